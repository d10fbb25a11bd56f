/*
 * cli/move.c: `inlay mv`, within one image.
 * Not here: to where things are encrypted differently (cli/transfer.c); copies between images (cli/get.c, cli/put.c).
 * Read more: doc/inlay.1.
 */
#include "cli/change.h"
#include <errno.h>
#include <string.h>

static int find_dest(struct inl_cli *cli, const char *arg, struct inl_target *target, struct inl_entry *entry)
{
	int code = inl_cli_same_image(cli, arg);

	*entry = (struct inl_entry){ .arg = arg };
	*target = (struct inl_target){ 0 };
	return code ? code : inl_entry_open(cli, arg, target, entry);
}

static unsigned rename_flags(const struct inl_cli *cli)
{
	if (cli->given[INL_OPT_EXCHANGE])
		return INL_RENAME_EXCHANGE;
	return cli->given[INL_OPT_NO_CLOBBER] ? INL_RENAME_NOREPLACE : 0;
}

static int check(struct inl_cli *cli, const struct inl_entry *from, const struct inl_entry *to)
{
	if (!to->dir)
		return inl_cli_fail(cli, INL_EXIT_FAILED, to->arg, "does not end in a name");
	if (to->slash && !S_ISDIR(from->st.mode))
		return inl_cli_error(cli, to->arg, -ENOTDIR, NULL);
	if (cli->given[INL_OPT_EXCHANGE] && !to->inode)
		return inl_cli_error(cli, to->arg, -ENOENT, NULL);
	if (cli->given[INL_OPT_NO_CLOBBER] && to->inode)
		return inl_cli_fail(cli, INL_EXIT_FAILED, to->arg, "not replaced: %s is there already", to->name);
	if (!cli->given[INL_OPT_EXCHANGE] && to->inode && from->st.ino == to->st.ino)
		return inl_cli_fail(cli, INL_EXIT_FAILED, to->arg, "is the same file as %s", from->arg);
	return 0;
}

static int move(struct inl_cli *cli, const struct inl_target *from_target, struct inl_entry *from,
		const struct inl_target *to_target, struct inl_entry *to)
{
	struct inl_diag diag = { 0 };
	int code = check(cli, from, to);
	int err = code ? 0 : inl_rename(from->dir, from->name, from->len, to->dir, to->name, to->len,
					rename_flags(cli), &diag);

	if (code || !err)
		return code;
	if (err == -EXDEV && cli->given[INL_OPT_EXCHANGE])
		return inl_cli_fail(cli, INL_EXIT_FAILED, to->arg,
				    "is encrypted differently from %s: they cannot change places", from->arg);
	if (err == -EXDEV)
		return inl_transfer(cli, from_target, from, to_target, to);
	if (err == -EINVAL)
		return inl_cli_fail(cli, INL_EXIT_FAILED, from->arg, "a directory cannot be moved into itself");
	return inl_cli_error(cli, to->arg, err, &diag);
}

static int find_source(struct inl_cli *cli, const char *arg, struct inl_target *target, struct inl_entry *entry)
{
	int code = inl_entry_open(cli, arg, target, entry);

	if (!code && !entry->dir)
		code = inl_cli_fail(cli, INL_EXIT_FAILED, arg, "cannot be moved");
	/* Was it moved by a run that was killed when only the rest was to be removed? */
	if (!code && !entry->inode)
		code = inl_transfer_tidy(cli, target, entry);
	if (!code && !entry->inode)
		code = inl_cli_error(cli, arg, -ENOENT, NULL);
	return code;
}

static int move_one(struct inl_cli *cli, const char *from_arg, const char *to_arg, bool into)
{
	struct inl_target from, to = { 0 };
	struct inl_entry source, dest = { 0 };
	int code = find_source(cli, from_arg, &from, &source);

	if (!code)
		code = find_dest(cli, to_arg, &to, &dest);
	if (!code && !cli->given[INL_OPT_EXCHANGE])
		code = inl_entry_enter(cli, &to, from.path, &dest);
	if (!code && into && !dest.entered)
		code = inl_cli_error(cli, to_arg, -ENOTDIR, NULL);
	if (!code)
		code = move(cli, &from, &source, &to, &dest);
	inl_entry_done(&dest);
	inl_entry_done(&source);
	inl_target_done(&to);
	inl_target_done(&from);
	return code;
}

int inl_cli_mv(struct inl_cli *cli, int n_args, char **args)
{
	int i, code = 0;

	if (cli->given[INL_OPT_EXCHANGE] && (n_args != 2 || cli->given[INL_OPT_NO_CLOBBER]))
		return inl_cli_fail(cli, INL_EXIT_USAGE, "--exchange", "takes two names, and not -n");
	inl_cli_will_write(cli);
	for (i = 0; i < n_args - 1 && !inl_cli_interrupted(); i++)
		code = inl_cli_worse(code, move_one(cli, args[i], args[n_args - 1], n_args > 2));
	if (i < n_args - 1)
		return inl_cli_fail(cli, INL_EXIT_INTERRUPTED, NULL, "interrupted; not all of it was moved");
	return code;
}
