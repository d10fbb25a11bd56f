/*
 * cli/ls.c: `inlay ls`: lists directories, locked ones too.
 * Not here: reading and sorting a directory (cli/list.c).
 * Read more: doc/inlay.1.
 */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct ls {
	struct inl_cli *cli;
	struct inl_json json;
	bool headings;
	bool printed; /* something was: an empty line goes before the next heading */
};

/* One row and what its columns need. */
struct row {
	const char *path; /* in the volume */
	const char *name; /* as it is shown */
	size_t len;
	bool nokey;
	struct inl_stat st;
	struct inl_inode_crypt crypt;
	char *target;
	size_t target_len;
	bool has_target;
};

/* A directory that is still to be listed. */
struct pending {
	struct pending *next;
	uint64_t ino;
	char *path;
};

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Ask the inode for what the row shows. */
static int fill_row(struct inl_inode *inode, struct row *row, struct inl_diag *diag)
{
	int err = inl_inode_stat(inode, &row->st, diag);

	if (err)
		return err;
	inl_inode_crypt(inode, &row->crypt);
	if (!S_ISLNK(row->st.mode))
		return 0;
	row->target = inl_cli_alloc(INL_SYMLINK_MAX);
	err = inl_readlink(inode, row->target, INL_SYMLINK_MAX, &row->target_len, diag);
	row->has_target = !err;
	return err;
}

static void print_long(const struct row *row)
{
	const struct inl_stat *st = &row->st;
	const char *mark = !row->crypt.encrypted ? "" : row->crypt.status ? "EL" : "E";
	char mode[11], time[INL_TIME_TEXT_SIZE], size[32];

	if (S_ISCHR(st->mode) || S_ISBLK(st->mode))
		snprintf(size, sizeof(size), "%" PRIu32 ",%" PRIu32, st->rdev_major, st->rdev_minor);
	else
		snprintf(size, sizeof(size), "%" PRIu64, st->size);
	printf("%s%-2s %3" PRIu32 " %5" PRIu32 " %5" PRIu32 " %12s %s ", inl_text_mode(st->mode, mode), mark, st->nlink,
	       st->uid, st->gid, size, inl_text_time(&st->mtime, false, time));
	inl_text_name(row->name, row->len);
	if (row->has_target) {
		printf(" -> ");
		inl_text_name(row->target, row->target_len);
	}
	putchar('\n');
}

static void json_row(struct inl_json *json, const struct row *row)
{
	const char *slash = memrchr(row->name, '/', row->len);
	const char *name = slash && slash[1] ? slash + 1 : row->name; /* of one that was named by its path */

	inl_json_open(json, NULL, '{');
	inl_json_name(json, "name", name, row->len - (size_t)(name - row->name));
	inl_json_name(json, "path", row->path, strlen(row->path));
	inl_json_stat(json, &row->st);
	inl_json_time(json, "mtime", &row->st.mtime);
	inl_json_bool(json, "encrypted", row->crypt.encrypted);
	inl_json_bool(json, "locked", row->crypt.encrypted && row->crypt.status);
	inl_json_bool(json, "nokey_name", row->nokey);
	if (row->has_target)
		inl_json_name(json, "target", row->target, row->target_len);
	inl_json_close(json, '}');
}

static int show_inode(struct ls *ls, struct inl_inode *inode, struct row *row)
{
	struct inl_diag diag = { 0 };
	int code = 0, err = fill_row(inode, row, &diag);

	if (err) {
		char *where = inl_cli_where(ls->cli, row->path, strlen(row->path));

		code = inl_cli_error(ls->cli, where, err, &diag);
		free(where);
	}
	if (row->st.ino && ls->cli->given[INL_OPT_JSON])
		json_row(&ls->json, row);
	else if (row->st.ino)
		print_long(row);
	free(row->target);
	return code;
}

static bool needs_inode(const struct ls *ls)
{
	return ls->cli->given[INL_OPT_LONG] || ls->cli->given[INL_OPT_JSON];
}

static int show_entry(struct ls *ls, const char *dir, const struct inl_list *list, const struct inl_list_entry *entry)
{
	struct row row = { .name = list->names + entry->name, .len = entry->len, .nokey = entry->nokey };
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	char *path, *where;
	int code, err;

	if (!needs_inode(ls)) {
		inl_text_name(row.name, row.len);
		putchar('\n');
		return 0;
	}
	path = inl_cli_join(dir, row.name, row.len);
	row.path = path;
	err = inl_inode_get(ls->cli->vol, entry->ino, &diag, &inode);
	if (err) {
		where = inl_cli_where(ls->cli, path, strlen(path));
		code = inl_cli_error(ls->cli, where, err, &diag);
		free(where);
	} else {
		code = show_inode(ls, inode, &row);
	}
	inl_inode_put(inode);
	free(path);
	return code;
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

static void heading(struct ls *ls, const char *path)
{
	char *where;

	if (!ls->headings || ls->cli->given[INL_OPT_JSON])
		return;
	where = inl_cli_where(ls->cli, path, strlen(path));
	if (ls->printed)
		putchar('\n');
	inl_text_name(where, strlen(where));
	puts(":");
	free(where);
}

static struct pending *new_pending(uint64_t ino, char *path, struct pending *next)
{
	struct pending *pending = inl_cli_alloc(sizeof(*pending));

	*pending = (struct pending){ .next = next, .ino = ino, .path = path };
	return pending;
}

/* Put the directories of a listing before *rest, in their order. */
static void push_directories(struct ls *ls, const struct inl_list *list, const char *path, struct pending **rest)
{
	for (size_t i = list->n; i-- > 0;) {
		const struct inl_list_entry *entry = &list->entries[i];

		if (inl_list_is_dir(ls->cli, entry))
			*rest = new_pending(entry->ino, inl_cli_join(path, list->names + entry->name, entry->len),
					    *rest);
	}
}

static int list_one(struct ls *ls, const struct pending *dir, struct pending **rest)
{
	char *where = inl_cli_where(ls->cli, dir->path, strlen(dir->path));
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_list list;
	int code, err = inl_inode_get(ls->cli->vol, dir->ino, &diag, &inode);

	if (err) {
		code = inl_cli_error(ls->cli, where, err, &diag);
		free(where);
		return code;
	}
	code = inl_list_init(ls->cli, inode, where, ls->cli->given[INL_OPT_ALL], &list);
	inl_inode_put(inode);
	heading(ls, dir->path);
	ls->printed = true;
	for (size_t i = 0; i < list.n; i++)
		code = inl_cli_worse(code, show_entry(ls, dir->path, &list, &list.entries[i]));
	if (ls->cli->given[INL_OPT_RECURSIVE])
		push_directories(ls, &list, dir->path, rest);
	inl_list_done(&list);
	free(where);
	return code;
}

static int listed_already(struct ls *ls, const struct pending *dir)
{
	char *where = inl_cli_where(ls->cli, dir->path, strlen(dir->path));
	int code = inl_cli_fail(ls->cli, INL_EXIT_FAILED, where, "damaged: this directory was listed already");

	free(where);
	return code;
}

static int list_directories(struct ls *ls, uint64_t ino, const char *path)
{
	struct pending *first, *rest;
	struct inl_seen seen;
	int code = 0, err = inl_seen_init(&seen, ls->cli->vol);

	if (err)
		return inl_cli_error(ls->cli, ls->cli->image, err, NULL);
	rest = new_pending(ino, inl_cli_strdup(path, strlen(path)), NULL);
	while ((first = rest)) {
		rest = first->next;
		code = inl_cli_worse(code, inl_seen_before(&seen, first->ino) ? listed_already(ls, first)
									      : list_one(ls, first, &rest));
		free(first->path);
		free(first);
	}
	inl_seen_done(&seen);
	return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

/* As ls(1): a link on the command line is followed unless it is itself shown; one that leads nowhere is shown. */
static int find(struct ls *ls, const struct inl_target *target, struct inl_inode **inode)
{
	bool follow = !ls->cli->given[INL_OPT_LONG] && !ls->cli->given[INL_OPT_DIRECTORY];
	int code = inl_cli_open(ls->cli, target->image);

	if (code)
		return code;
	if (follow && !inl_path(ls->cli->vol, target->path, true, NULL, inode))
		return 0;
	return inl_cli_find(ls->cli, target, false, inode);
}

static int show_target(struct ls *ls, const struct inl_target *target)
{
	struct row row = { .path = target->path, .name = target->path, .len = strlen(target->path) };
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	int err, code = find(ls, target, &inode);

	if (code)
		return code;
	err = inl_inode_stat(inode, &st, &diag);
	if (err) {
		code = inl_cli_error(ls->cli, target->arg, err, &diag);
	} else if (S_ISDIR(st.mode) && !ls->cli->given[INL_OPT_DIRECTORY]) {
		code = list_directories(ls, st.ino, target->path);
	} else if (needs_inode(ls)) {
		code = show_inode(ls, inode, &row);
	} else {
		inl_text_name(row.name, row.len);
		putchar('\n');
	}
	ls->printed = true;
	inl_inode_put(inode);
	return code;
}

int inl_cli_ls(struct inl_cli *cli, int n_args, char **args)
{
	struct ls ls = { .cli = cli, .headings = n_args > 1 || cli->given[INL_OPT_RECURSIVE] };
	int code = 0;

	if (cli->given[INL_OPT_JSON])
		inl_json_open(&ls.json, NULL, '[');
	for (int i = 0; i < n_args; i++) {
		struct inl_target target;
		int one = inl_target_init(cli, args[i], &target);

		if (!one)
			one = show_target(&ls, &target);
		inl_target_done(&target);
		code = inl_cli_worse(code, one);
	}
	if (cli->given[INL_OPT_JSON])
		inl_json_close(&ls.json, ']');
	return code;
}
