/*
 * cli/attr.c: `inlay chmod`, `inlay chown`.
 * Not here: times (cli/make.c, touch), extended attributes (cli/xattr.c).
 * Read more: doc/inlay.1.
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is to be done with each inode. */
struct change {
	const char *mode; /* NULL: the owner */
	struct inl_attr owner;
	unsigned which;
};

static int change_mode(const struct change *change, struct inl_inode *inode, const struct inl_stat *st,
		       struct inl_diag *diag)
{
	struct inl_attr attr = { 0 };

	inl_mode_parse(change->mode, st->mode, inl_mode_umask(), &attr.mode);
	return inl_setattr(inode, &attr, INL_ATTR_MODE, diag);
}

/* As Linux does it: a new owner does not inherit the rights that set-ID bits and capabilities give away. */
static int change_owner(const struct change *change, struct inl_inode *inode, const struct inl_stat *st,
			struct inl_diag *diag)
{
	struct inl_attr attr = change->owner;
	unsigned which = change->which;
	int err;

	attr.mode = st->mode & ~(uint32_t)S_ISUID;
	if (attr.mode & S_IXGRP)
		attr.mode &= ~(uint32_t)S_ISGID;
	if (!S_ISDIR(st->mode) && !S_ISLNK(st->mode) && attr.mode != st->mode)
		which |= INL_ATTR_MODE;
	err = inl_setattr(inode, &attr, which, diag);
	if (err || !S_ISREG(st->mode))
		return err;
	err = inl_xattr_set(inode, "security.capability", NULL, 0, 0, NULL);
	return err == -ENODATA || err == -EOPNOTSUPP ? 0 : err;
}

/* err: 0, or that the inode could not be had. */
static int change_inode(const struct change *change, struct inl_inode *inode, struct inl_diag *diag)
{
	struct inl_stat st = { 0 };
	int err = inl_inode_stat(inode, &st, diag);

	if (err)
		return err;
	if (!change->mode)
		return change_owner(change, inode, &st, diag);
	return S_ISLNK(st.mode) ? 0 : change_mode(change, inode, &st, diag);
}

static int each_below(const struct inl_below_step *step)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	char *where;
	int err, code;

	if (step->when == INL_BELOW_LEAVE)
		return 0;
	err = inl_inode_get(step->cli->vol, step->ino, &diag, &inode);
	if (err)
		inode = NULL;
	else
		err = change_inode(step->arg, inode, &diag);
	inl_inode_put(inode);
	if (!err)
		return 0;
	where = inl_cli_where(step->cli, step->path, strlen(step->path));
	code = inl_cli_error(step->cli, where, err, &diag);
	free(where);
	return err == -EROFS ? -code : code;
}

static int change_one(struct inl_cli *cli, const char *arg, struct change *change)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	struct inl_target target;
	int err, code = inl_target_init(cli, arg, &target);

	if (!code)
		code = inl_cli_find(cli, &target, change->mode != NULL, &inode);
	if (!code) {
		err = change_inode(change, inode, &diag);
		if (!err)
			err = inl_inode_stat(inode, &st, &diag);
		code = err ? inl_cli_error(cli, arg, err, &diag) : 0;
	}
	if (!code && cli->given[INL_OPT_BELOW] && S_ISDIR(st.mode))
		code = inl_below_walk(cli, inode, target.path, 0, each_below, change);
	inl_inode_put(inode);
	inl_target_done(&target);
	return code;
}

static int change_all(struct inl_cli *cli, int n_args, char **args, struct change *change)
{
	int code = 0;

	inl_cli_will_write(cli);
	for (int i = 0; i < n_args && !inl_cli_interrupted(); i++)
		code = inl_cli_worse(code, change_one(cli, args[i], change));
	if (inl_cli_interrupted())
		return inl_cli_fail(cli, INL_EXIT_INTERRUPTED, NULL, "interrupted; not all of it was changed");
	return code;
}

int inl_cli_chmod(struct inl_cli *cli, int n_args, char **args)
{
	struct change change = { .mode = args[0] };
	uint32_t mode;

	if (!inl_mode_parse(args[0], S_IFREG, 0, &mode))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0], "expected a mode, octal or as in u=rwx,go+rX");
	return change_all(cli, n_args - 1, args + 1, &change);
}

int inl_cli_chown(struct inl_cli *cli, int n_args, char **args)
{
	struct change change = { 0 };

	if (!inl_owner_parse(args[0], &change.owner, &change.which))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0],
				    "expected UID, UID:GID or :GID, as numbers: names mean nothing on the volume");
	return change_all(cli, n_args - 1, args + 1, &change);
}
