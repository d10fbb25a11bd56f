/*
 * cli/tree.c: `inlay tree`: a directory and all below it, drawn.
 * Not here: reading and sorting a directory (cli/list.c).
 * Read more: doc/inlay.1.
 */
#include "cli/cli.h"
#include "cli/text.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A directory that is being shown; its parents stand below it on the heap. */
struct level {
	struct level *parent;
	size_t path_len; /* of tree.path */
	struct inl_list list;
	size_t next; /* entry */
};

struct tree {
	struct inl_cli *cli;
	struct inl_seen seen;
	struct level *top;
	char *path; /* of what is being shown */
	size_t path_len, path_room;
	uint64_t n_dirs, n_files;
	int code;
};

static void set_path(struct tree *tree, size_t base_len, const char *name, size_t len)
{
	size_t needed = base_len + len + 2;

	while (base_len && tree->path[base_len - 1] == '/')
		base_len--;
	tree->path = inl_cli_grow(tree->path, base_len, needed, &tree->path_room, 1);
	if (tree->top)
		tree->path[base_len++] = '/';
	memcpy(tree->path + base_len, name, len);
	tree->path_len = base_len + len;
}

static char *where_of(const struct tree *tree)
{
	return inl_cli_where(tree->cli, tree->path, tree->path_len);
}

static void trouble(struct tree *tree, int err, const struct inl_diag *diag)
{
	char *where = where_of(tree);

	tree->code = inl_cli_worse(tree->code, inl_cli_error(tree->cli, where, err, diag));
	free(where);
}

/* Go down into the directory at tree->path. */
static void enter(struct tree *tree, uint64_t ino)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct level *level;
	char *where;
	int err = 0;

	if (inl_seen_before(&tree->seen, ino))
		err = inl_diag_set(&diag, -EUCLEAN, "damaged: this directory was shown already");
	if (!err)
		err = inl_inode_get(tree->cli->vol, ino, &diag, &inode);
	if (err) {
		trouble(tree, err, &diag);
		return;
	}
	where = where_of(tree);
	level = inl_cli_alloc(sizeof(*level));
	level->parent = tree->top;
	level->path_len = tree->path_len;
	tree->code = inl_cli_worse(tree->code,
				   inl_list_init(tree->cli, inode, where, tree->cli->given[INL_OPT_ALL], &level->list));
	tree->top = level;
	inl_inode_put(inode);
	free(where);
}

static void leave(struct tree *tree)
{
	struct level *level = tree->top;

	tree->top = level->parent;
	inl_list_done(&level->list);
	free(level);
}

/* The lines that come down from the levels above: a bar where a level has entries left. */
static void print_bars(const struct level *level)
{
	const char *bars[64];
	size_t n = 0;

	for (const struct level *up = level->parent; up && n < 64; up = up->parent)
		bars[n++] = up->next < up->list.n ? "\xe2\x94\x82   " : "    ";
	if (n == 64)
		printf("...");
	while (n)
		fputs(bars[--n], stdout);
}

static void print_target(struct tree *tree, const struct inl_list_entry *entry)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	char *target = inl_cli_alloc(INL_SYMLINK_MAX);
	size_t len = 0;
	int err = inl_inode_get(tree->cli->vol, entry->ino, &diag, &inode);

	if (!err)
		err = inl_readlink(inode, target, INL_SYMLINK_MAX, &len, &diag);
	inl_inode_put(inode);
	if (!err) {
		printf(" -> ");
		inl_text_name(target, len);
	} else {
		trouble(tree, err, &diag);
	}
	free(target);
}

static void show(struct tree *tree, struct level *level, const struct inl_list_entry *entry)
{
	const char *name = level->list.names + entry->name;
	bool is_dir = inl_list_is_dir(tree->cli, entry);

	print_bars(level);
	fputs(level->next < level->list.n ? "\xe2\x94\x9c\xe2\x94\x80\xe2\x94\x80 "
					  : "\xe2\x94\x94\xe2\x94\x80\xe2\x94\x80 ",
	      stdout);
	inl_text_name(name, entry->len);
	set_path(tree, level->path_len, name, entry->len);
	if (entry->type == DT_LNK)
		print_target(tree, entry);
	putchar('\n');
	tree->n_dirs += is_dir;
	tree->n_files += !is_dir;
	if (is_dir)
		enter(tree, entry->ino);
}

static void show_all(struct tree *tree, const struct inl_target *target, uint64_t ino, bool is_dir)
{
	inl_text_name(target->arg, strlen(target->arg));
	putchar('\n');
	set_path(tree, 0, target->path, strlen(target->path));
	if (is_dir)
		enter(tree, ino);
	while (tree->top) {
		struct level *level = tree->top;

		if (level->next < level->list.n)
			show(tree, level, &level->list.entries[level->next++]);
		else
			leave(tree);
	}
	printf("\n%ju director%s, %ju file%s\n", (uintmax_t)tree->n_dirs, tree->n_dirs == 1 ? "y" : "ies",
	       (uintmax_t)tree->n_files, tree->n_files == 1 ? "" : "s");
}

static int run(struct inl_cli *cli, const struct inl_target *target)
{
	struct tree tree = { .cli = cli };
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	int err, code = inl_cli_find(cli, target, true, &inode);

	if (code)
		return code;
	err = inl_inode_stat(inode, &st, &diag);
	if (!err)
		err = inl_seen_init(&tree.seen, cli->vol);
	inl_inode_put(inode);
	if (err)
		return inl_cli_error(cli, target->arg, err, &diag);
	show_all(&tree, target, st.ino, S_ISDIR(st.mode));
	inl_seen_done(&tree.seen);
	free(tree.path);
	return tree.code;
}

int inl_cli_tree(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_target target;
	int code = inl_target_init(cli, args[0], &target);

	if (!code)
		code = run(cli, &target);
	inl_target_done(&target);
	return code;
}
