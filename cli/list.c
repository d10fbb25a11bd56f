/*
 * cli/list.c: a directory in memory, sorted by the bytes of its names.
 * Not here: how it is shown (cli/ls.c, cli/tree.c).
 * Read more: cli/cli.h.
 */
#include "cli/cli.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Make *array hold at least n + more elements of this size. */
static void make_room(void **array, size_t *room, size_t n, size_t more, size_t size)
{
	size_t wanted = *room ? *room : 64;
	void *bigger;

	while (wanted < n + more)
		wanted *= 2;
	if (wanted == *room)
		return;
	bigger = inl_cli_alloc(wanted * size);
	if (n)
		memcpy(bigger, *array, n * size);
	free(*array);
	*array = bigger;
	*room = wanted;
}

static void add(struct inl_list *list, const struct inl_dirent *entry)
{
	make_room((void **)&list->entries, &list->room, list->n, 1, sizeof(*list->entries));
	make_room((void **)&list->names, &list->names_room, list->names_len, entry->len + 1u, 1);
	list->entries[list->n++] = (struct inl_list_entry){
		.ino = entry->ino,
		.name = list->names_len,
		.len = entry->len,
		.type = entry->type,
		.nokey = entry->nokey,
	};
	memcpy(list->names + list->names_len, entry->name, entry->len + 1u);
	list->names_len += entry->len + 1u;
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct inl_list_entry *x = a, *y = b;
	const char *names = arg;
	int order = memcmp(names + x->name, names + y->name, x->len < y->len ? x->len : y->len);

	return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* A damaged entry in a message; the name is the best that could be made of it. */
static int report_entry(struct inl_cli *cli, const char *where, const struct inl_dirent *entry,
			const struct inl_diag *diag)
{
	if (diag->text[0])
		return inl_cli_error(cli, where, entry->status, diag);
	return inl_cli_fail(cli, INL_EXIT_FAILED, where, "damaged entry \"%.*s\" (inode %ju)", (int)entry->len,
			    entry->name, (uintmax_t)entry->ino);
}

int inl_list_init(struct inl_cli *cli, struct inl_inode *dir, const char *where, bool hidden, struct inl_list *list)
{
	struct inl_diag diag = { 0 };
	struct inl_dirent entry;
	struct inl_dir *cursor = NULL;
	int code = 0, err = inl_dir_open(dir, &diag, &cursor);

	*list = (struct inl_list){ 0 };
	if (err)
		return inl_cli_error(cli, where, err, &diag);
	for (;;) {
		diag = (struct inl_diag){ 0 };
		err = inl_dir_next(cursor, &entry, &diag);
		if (!err)
			break;
		if (err < 0)
			code = inl_cli_worse(code, inl_cli_error(cli, where, err, &diag));
		else if (entry.status)
			code = inl_cli_worse(code, report_entry(cli, where, &entry, &diag));
		else if (hidden || entry.name[0] != '.')
			add(list, &entry);
	}
	inl_dir_close(cursor);
	if (list->n)
		qsort_r(list->entries, list->n, sizeof(*list->entries), compare, list->names);
	return code;
}

void inl_list_done(struct inl_list *list)
{
	free(list->entries);
	free(list->names);
	*list = (struct inl_list){ 0 };
}

bool inl_list_is_dir(struct inl_cli *cli, const struct inl_list_entry *entry)
{
	struct inl_inode *inode = NULL;
	struct inl_stat st = { 0 };

	if (entry->type != DT_UNKNOWN)
		return entry->type == DT_DIR;
	if (inl_inode_get(cli->vol, entry->ino, NULL, &inode))
		return false;
	if (inl_inode_stat(inode, &st, NULL))
		st.mode = 0;
	inl_inode_put(inode);
	return S_ISDIR(st.mode);
}

char *inl_cli_join(const char *path, const char *name, size_t len)
{
	size_t path_len = strlen(path);
	char *joined = inl_cli_alloc(path_len + len + 2);

	while (path_len && path[path_len - 1] == '/')
		path_len--;
	memcpy(joined, path, path_len);
	joined[path_len] = '/';
	memcpy(joined + path_len + 1, name, len);
	return joined;
}
