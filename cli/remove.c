/*
 * cli/remove.c: `inlay rm`.
 * Not here: the walk (cli/below.c).
 * Read more: doc/inlay.1.
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int refused(const struct inl_below_step *step, int err, const struct inl_diag *diag)
{
	char *where = inl_cli_where(step->cli, step->path, strlen(step->path));
	int code = inl_cli_error(step->cli, where, err, diag);

	free(where);
	return err == -EROFS ? -code : code; /* nothing that follows would fare better */
}

static int remove_step(const struct inl_below_step *step)
{
	struct inl_diag diag = { 0 };
	int err = 0;

	if (step->when == INL_BELOW_ENTRY)
		err = inl_unlink(step->parent, step->name, step->len, &diag);
	else if (step->when == INL_BELOW_LEAVE && !step->failed)
		err = inl_rmdir(step->parent, step->name, step->len, &diag);
	return err ? refused(step, err, &diag) : 0;
}

static int remove_tree(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry)
{
	struct inl_diag diag = { 0 };
	int err, code = inl_below_walk(cli, entry->inode, target->path, INL_BELOW_AGAIN, remove_step, NULL);

	if (code)
		return code;
	inl_inode_put(entry->inode);
	entry->inode = NULL;
	err = inl_rmdir(entry->dir, entry->name, entry->len, &diag);
	return err ? inl_cli_error(cli, entry->arg, err, &diag) : 0;
}

static int remove_entry(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry)
{
	struct inl_diag diag = { 0 };
	int err;

	if (!entry->dir)
		return inl_cli_fail(cli, INL_EXIT_FAILED, entry->arg, "cannot be removed");
	if (!entry->inode)
		return cli->given[INL_OPT_FORCE_RM] ? 0 : inl_cli_error(cli, entry->arg, -ENOENT, NULL);
	if (S_ISDIR(entry->st.mode) && !cli->given[INL_OPT_RM_RECURSIVE])
		return inl_cli_fail(cli, INL_EXIT_FAILED, entry->arg, "is a directory; -r removes it and all below it");
	if (S_ISDIR(entry->st.mode))
		return remove_tree(cli, target, entry);
	inl_inode_put(entry->inode);
	entry->inode = NULL;
	err = inl_unlink(entry->dir, entry->name, entry->len, &diag);
	return err ? inl_cli_error(cli, entry->arg, err, &diag) : 0;
}

int inl_cli_rm(struct inl_cli *cli, int n_args, char **args)
{
	int code = 0;

	inl_cli_will_write(cli);
	for (int i = 0; i < n_args && !inl_cli_interrupted(); i++) {
		struct inl_target target;
		struct inl_entry entry;
		int one = inl_entry_open(cli, args[i], &target, &entry);

		if (!one)
			one = remove_entry(cli, &target, &entry);
		inl_entry_done(&entry);
		inl_target_done(&target);
		code = inl_cli_worse(code, one);
	}
	if (inl_cli_interrupted())
		return inl_cli_fail(cli, INL_EXIT_INTERRUPTED, NULL, "interrupted; not all of it was removed");
	return code;
}
