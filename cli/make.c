/*
 * cli/make.c: `inlay mkdir`, `inlay ln`, `inlay truncate`, `inlay touch`: what makes names.
 * Not here: what moves and removes them (cli/move.c, cli/remove.c).
 * Read more: doc/inlay.1.
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- mkdir ------------------------------------------------------------------------------------------------------- */

/* The permissions of a new directory; -m is not subject to the umask. */
static int dir_mode(struct inl_cli *cli, uint32_t *mode)
{
	const char *text = cli->values[INL_OPT_MODE];

	*mode = S_IFDIR | (0777 & ~inl_mode_umask());
	if (!text || inl_mode_parse(text, S_IFDIR | 0777, inl_mode_umask(), mode))
		return 0;
	return inl_cli_fail(cli, INL_EXIT_USAGE, "--mode", "'%s': expected a mode, octal or as in u=rwx,go+rX", text);
}

static int make_dir(struct inl_cli *cli, const struct inl_entry *entry, uint32_t mode, const char *where)
{
	struct inl_diag diag = { 0 };
	struct inl_attr attr;
	int err = inl_new_attr(entry->dir, mode, &attr);

	if (!err)
		err = inl_create(entry->dir, entry->name, entry->len, &attr, 0, &diag, NULL);
	return err ? inl_cli_error(cli, where, err, &diag) : 0;
}

/* Of a path of which the last part may be there already. */
static int make_part(struct inl_cli *cli, const struct inl_target *part, uint32_t mode)
{
	struct inl_inode *inode = NULL;
	struct inl_stat st = { 0 };
	struct inl_entry entry;
	int code = inl_cli_open(cli, part->image);

	if (code)
		return code;
	if (!inl_path(cli->vol, part->path, true, NULL, &inode)) {
		if (!inl_inode_stat(inode, &st, NULL) && !S_ISDIR(st.mode))
			code = inl_cli_error(cli, part->arg, -ENOTDIR, NULL);
		inl_inode_put(inode);
		return code;
	}
	code = inl_entry_find(cli, part, &entry);
	if (!code && !entry.inode)
		code = make_dir(cli, &entry, mode, part->arg);
	else if (!code)
		code = inl_cli_error(cli, part->arg, -EEXIST, NULL);
	inl_entry_done(&entry);
	return code;
}

/* Each directory of the path, from the top on. */
static int make_all(struct inl_cli *cli, const struct inl_target *target, uint32_t mode)
{
	uint32_t above = S_IFDIR | (0777 & ~inl_mode_umask()) | 0300;
	const char *path = target->path;
	size_t last_len, len;
	const char *last = inl_path_last(path, &last_len);
	int code = 0;

	for (len = strspn(path, "/"); !code && path + len < last; len += strspn(path + len, "/")) {
		struct inl_target part = *target;

		len += strcspn(path + len, "/");
		part.path = inl_cli_strdup(path, len);
		code = make_part(cli, &part, above);
		free(part.path);
	}
	return code ? code : make_part(cli, target, mode);
}

static int mkdir_one(struct inl_cli *cli, const char *arg, uint32_t mode)
{
	struct inl_target target;
	struct inl_entry entry = { .arg = arg };
	int code = inl_target_init(cli, arg, &target);

	if (!code && cli->given[INL_OPT_PARENTS]) {
		code = make_all(cli, &target, mode);
	} else if (!code) {
		code = inl_entry_find(cli, &target, &entry);
		if (!code && entry.inode)
			code = inl_cli_error(cli, arg, -EEXIST, NULL);
		else if (!code)
			code = make_dir(cli, &entry, mode, arg);
	}
	inl_entry_done(&entry);
	inl_target_done(&target);
	return code;
}

int inl_cli_mkdir(struct inl_cli *cli, int n_args, char **args)
{
	uint32_t mode;
	int code = dir_mode(cli, &mode);

	if (code)
		return code;
	inl_cli_will_write(cli);
	for (int i = 0; i < n_args; i++)
		code = inl_cli_worse(code, mkdir_one(cli, args[i], mode));
	return code;
}

/* ---- ln ---------------------------------------------------------------------------------------------------------- */

static int make_symlink(struct inl_cli *cli, const char *text, const struct inl_entry *entry)
{
	struct inl_diag diag = { 0 };
	struct inl_attr attr;
	int err = inl_new_attr(entry->dir, S_IFLNK | 0777, &attr);

	if (!err)
		err = inl_symlink(entry->dir, entry->name, entry->len, text, strlen(text), &attr, 0, &diag, NULL);
	return err ? inl_cli_error(cli, entry->arg, err, &diag) : 0;
}

/* The entry under which a link is made: NAME, or in the directory that NAME is. */
static int find_new(struct inl_cli *cli, const char *arg, const char *from, struct inl_target *target,
		    struct inl_entry *entry)
{
	int code = inl_entry_open(cli, arg, target, entry);

	if (!code)
		code = inl_entry_enter(cli, target, from, entry);
	if (!code && (entry->inode || !entry->dir))
		code = inl_cli_error(cli, arg, -EEXIST, NULL);
	if (!code && entry->slash)
		code = inl_cli_error(cli, arg, -ENOENT, NULL);
	return code;
}

static int ln_symbolic(struct inl_cli *cli, const char *text, const char *arg)
{
	struct inl_target target;
	struct inl_entry entry;
	int code = text[0] ? 0 : inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "a link needs something to lead to");

	if (code)
		return code;
	code = find_new(cli, arg, text, &target, &entry);
	if (!code)
		code = make_symlink(cli, text, &entry);
	inl_entry_done(&entry);
	inl_target_done(&target);
	return code;
}

static int ln_hard(struct inl_cli *cli, const char *from_arg, const char *arg)
{
	struct inl_target from, target = { 0 };
	struct inl_entry first, entry = { 0 };
	struct inl_diag diag = { 0 };
	int err, code = inl_entry_open(cli, from_arg, &from, &first);

	if (!code && !first.inode)
		code = inl_cli_error(cli, from_arg, -ENOENT, NULL);
	if (!code && S_ISDIR(first.st.mode))
		code = inl_cli_fail(cli, INL_EXIT_FAILED, from_arg, "is a directory, which has one name only");
	if (!code)
		code = inl_cli_same_image(cli, arg);
	if (!code)
		code = find_new(cli, arg, from.path, &target, &entry);
	if (!code) {
		err = inl_link(first.inode, entry.dir, entry.name, entry.len, &diag);
		code = err ? inl_cli_error(cli, arg, err, &diag) : 0;
	}
	inl_entry_done(&entry);
	inl_entry_done(&first);
	inl_target_done(&target);
	inl_target_done(&from);
	return code;
}

int inl_cli_ln(struct inl_cli *cli, int n_args, char **args)
{
	inl_cli_will_write(cli);
	return cli->given[INL_OPT_SYMBOLIC] ? ln_symbolic(cli, args[0], args[1]) : ln_hard(cli, args[0], args[1]);
}

/* ---- a file, made if it is missing ------------------------------------------------------------------------------- */

/*
 * Find what a path leads to; make an empty file if that is missing and may be made. *inode NULL: it is missing.
 *
 *   made   may be NULL
 */
static int find_or_make(struct inl_cli *cli, const struct inl_target *target, bool may_make, struct inl_inode **inode)
{
	struct inl_diag diag = { 0 };
	struct inl_entry entry;
	struct inl_attr attr;
	int err, code = inl_cli_open(cli, target->image);

	*inode = NULL;
	if (code)
		return code;
	err = inl_path(cli->vol, target->path, true, &diag, inode);
	if (!err)
		return 0;
	*inode = NULL;
	if (err != -ENOENT)
		return inl_cli_error(cli, target->arg, err, &diag);
	if (!may_make)
		return 0;
	code = inl_entry_find(cli, target, &entry);
	if (!code && (entry.inode || entry.slash))
		code = inl_cli_error(cli, target->arg, -ENOENT, NULL);
	if (!code) {
		diag = (struct inl_diag){ 0 };
		err = inl_new_attr(entry.dir, S_IFREG | (0666 & ~inl_mode_umask()), &attr);
		if (!err)
			err = inl_create(entry.dir, entry.name, entry.len, &attr, 0, &diag, inode);
		if (err)
			*inode = NULL;
		code = err ? inl_cli_error(cli, target->arg, err, &diag) : 0;
	}
	inl_entry_done(&entry);
	return code;
}

/* ---- truncate ---------------------------------------------------------------------------------------------------- */

struct new_size {
	char sign; /* 0: absolute */
	uint64_t bytes;
};

static int parse_size(struct inl_cli *cli, struct new_size *size)
{
	const char *text = cli->values[INL_OPT_NEW_SIZE], *digits = text;

	if (!text)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "--size is needed");
	size->sign = *text == '+' || *text == '-' ? *digits++ : '\0';
	if (!inl_size_parse(digits, strlen(digits), &size->bytes) && size->bytes <= INT64_MAX)
		return 0;
	return inl_cli_fail(cli, INL_EXIT_USAGE, "--size", "'%s': expected a size, such as 512, 64K, +1M", text);
}

static int resize(struct inl_cli *cli, const char *arg, struct inl_inode *inode, const struct new_size *size)
{
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	int err = inl_inode_stat(inode, &st, &diag);
	uint64_t bytes = size->bytes;

	if (size->sign == '+')
		bytes += st.size;
	else if (size->sign == '-')
		bytes = st.size > bytes ? st.size - bytes : 0;
	if (!err)
		err = inl_truncate(inode, bytes, &diag);
	return err ? inl_cli_error(cli, arg, err, &diag) : 0;
}

int inl_cli_truncate(struct inl_cli *cli, int n_args, char **args)
{
	struct new_size size;
	int code = parse_size(cli, &size);

	if (code)
		return code;
	inl_cli_will_write(cli);
	for (int i = 0; i < n_args; i++) {
		struct inl_target target;
		struct inl_inode *inode = NULL;
		int one = inl_target_init(cli, args[i], &target);

		if (!one)
			one = find_or_make(cli, &target, !cli->given[INL_OPT_NO_CREATE], &inode);
		if (!one && inode)
			one = resize(cli, args[i], inode, &size);
		inl_inode_put(inode);
		inl_target_done(&target);
		code = inl_cli_worse(code, one);
	}
	return code;
}

/* ---- touch ------------------------------------------------------------------------------------------------------- */

static int touch_one(struct inl_cli *cli, const char *arg, const struct inl_attr *attr, unsigned which)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_target target;
	int err, code = inl_target_init(cli, arg, &target);

	if (!code)
		code = find_or_make(cli, &target, !cli->given[INL_OPT_NO_CREATE], &inode);
	if (!code && inode) {
		err = inl_setattr(inode, attr, which, &diag);
		code = err ? inl_cli_error(cli, arg, err, &diag) : 0;
	}
	inl_inode_put(inode);
	inl_target_done(&target);
	return code;
}

int inl_cli_touch(struct inl_cli *cli, int n_args, char **args)
{
	const char *date = cli->values[INL_OPT_DATE];
	struct inl_attr attr = { 0 };
	unsigned which = 0;
	struct timespec now;
	int code = 0;

	clock_gettime(CLOCK_REALTIME, &now);
	attr.mtime = (struct inl_time){ now.tv_sec, (uint32_t)now.tv_nsec };
	if (date && !inl_date_parse(date, &attr.mtime))
		return inl_cli_fail(cli, INL_EXIT_USAGE, "--date",
				    "'%s': expected @SECONDS or a date such as 2026-11-28 or 2026-11-28T05:09:00Z",
				    date);
	attr.atime = attr.mtime;
	which |= cli->given[INL_OPT_MTIME] && !cli->given[INL_OPT_ATIME] ? 0 : INL_ATTR_ATIME;
	which |= cli->given[INL_OPT_ATIME] && !cli->given[INL_OPT_MTIME] ? 0 : INL_ATTR_MTIME;
	inl_cli_will_write(cli);
	for (int i = 0; i < n_args; i++)
		code = inl_cli_worse(code, touch_one(cli, args[i], &attr, which));
	return code;
}
