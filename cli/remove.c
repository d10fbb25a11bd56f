/*
 * cli/remove.c: `inlay rm`.
 * Not here: the walk (cli/below.c).
 * Read more: doc/inlay.1.
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int refused(struct inl_cli *cli, const char *path, int err, const struct inl_diag *diag)
{
	char *where = inl_cli_where(cli, path, strlen(path));
	int code = inl_cli_error(cli, where, err, diag);

	free(where);
	return code;
}

static int remove_step(const struct inl_below_step *step)
{
	struct inl_diag diag = { 0 };
	int err = 0, code;

	if (step->when == INL_BELOW_ENTRY)
		err = inl_unlink(step->parent, step->name, step->len, &diag);
	else if (step->when == INL_BELOW_LEAVE && !step->failed)
		err = inl_rmdir(step->parent, step->name, step->len, &diag);
	if (!err)
		return 0;
	code = refused(step->cli, step->path, err, &diag);
	return err == -EROFS ? -code : code; /* nothing that follows would fare better */
}

int inl_remove_name(struct inl_cli *cli, struct inl_inode *dir, const char *name, size_t len, const char *path,
		    unsigned flags)
{
	struct inl_inode *inode = NULL;
	struct inl_stat st = { 0 };
	struct inl_diag diag = { 0 };
	uint64_t ino;
	int code = 0, err = inl_lookup(dir, name, len, &ino, &diag);

	if (err == -ENOENT)
		return 0;
	if (!err)
		err = inl_inode_get(cli->vol, ino, &diag, &inode);
	if (!err)
		err = inl_inode_stat(inode, &st, &diag);
	if (!err && S_ISDIR(st.mode))
		code = inl_below_walk(cli, inode, path, INL_BELOW_AGAIN | flags, remove_step, NULL);
	inl_inode_put(inode);
	if (code)
		return code;
	if (!err)
		err = S_ISDIR(st.mode) ? inl_rmdir(dir, name, len, &diag) : inl_unlink(dir, name, len, &diag);
	return err ? refused(cli, path, err, &diag) : 0;
}

static int remove_entry(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry)
{
	if (!entry->dir)
		return inl_cli_fail(cli, INL_EXIT_FAILED, entry->arg, "cannot be removed");
	if (!entry->inode)
		return cli->given[INL_OPT_FORCE_RM] ? 0 : inl_cli_error(cli, entry->arg, -ENOENT, NULL);
	if (S_ISDIR(entry->st.mode) && !cli->given[INL_OPT_RM_RECURSIVE])
		return inl_cli_fail(cli, INL_EXIT_FAILED, entry->arg, "is a directory; -r removes it and all below it");
	inl_inode_put(entry->inode);
	entry->inode = NULL;
	return inl_remove_name(cli, entry->dir, entry->name, entry->len, target->path, 0);
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
