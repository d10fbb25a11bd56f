/*
 * cli/entry.c: the directory and the last name of IMAGE:PATH, and what new inodes are like.
 * Not here: what is done with them (cli/make.c, cli/move.c, cli/remove.c).
 * Read more: cli/change.h.
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void inl_cli_will_write(struct inl_cli *cli)
{
	cli->flags |= INL_VOLUME_WRITE;
	inl_cli_catch_signals(false);
}

static bool is_no_name(const char *last, size_t len)
{
	return !len || (len == 1 && (last[0] == '.' || last[0] == '/')) || (len == 2 && !memcmp(last, "..", 2));
}

static int failed(struct inl_cli *cli, const char *arg, int err, const struct inl_diag *diag)
{
	return err ? inl_cli_error(cli, arg, err, diag) : 0;
}

/* Look entry->name up in entry->dir. */
static int look_up(struct inl_cli *cli, struct inl_entry *entry)
{
	struct inl_diag diag = { 0 };
	uint64_t ino;
	int err = inl_lookup(entry->dir, entry->name, entry->len, &ino, &diag);

	if (err == -ENOENT)
		return 0;
	if (!err)
		err = inl_inode_get(cli->vol, ino, &diag, &entry->inode);
	if (!err)
		err = inl_inode_stat(entry->inode, &entry->st, &diag);
	if (!err && entry->slash && !S_ISDIR(entry->st.mode))
		err = -ENOTDIR;
	return failed(cli, entry->arg, err, &diag);
}

static int set_name(struct inl_cli *cli, struct inl_entry *entry, const char *name, size_t len)
{
	if (len > INL_NAME_MAX)
		return inl_cli_error(cli, entry->arg, -ENAMETOOLONG, NULL);
	memcpy(entry->name, name, len);
	entry->name[len] = '\0';
	entry->len = len;
	return 0;
}

/* A path that ends in no name. */
static int find_whole(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry)
{
	struct inl_diag diag = { 0 };
	int err = inl_path(cli->vol, target->path, true, &diag, &entry->inode);

	if (err)
		entry->inode = NULL;
	else
		err = inl_inode_stat(entry->inode, &entry->st, &diag);
	return failed(cli, entry->arg, err, &diag);
}

static int find_dir(struct inl_cli *cli, const struct inl_target *target, size_t len, struct inl_entry *entry)
{
	char *path = len ? inl_cli_strdup(target->path, len) : inl_cli_strdup("/", 1);
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	int err = inl_path(cli->vol, path, true, &diag, &entry->dir);

	free(path);
	if (err)
		entry->dir = NULL;
	else
		err = inl_inode_stat(entry->dir, &st, &diag);
	if (!err && !S_ISDIR(st.mode))
		err = -ENOTDIR;
	return failed(cli, entry->arg, err, &diag);
}

int inl_entry_find(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry)
{
	size_t len;
	const char *last = inl_path_last(target->path, &len);
	int code;

	*entry = (struct inl_entry){ .arg = target->arg };
	code = inl_cli_open(cli, target->image);
	if (code)
		return code;
	entry->slash = last[len] == '/';
	if (is_no_name(last, len))
		return find_whole(cli, target, entry);
	code = find_dir(cli, target, (size_t)(last - target->path), entry);
	code = code ? code : set_name(cli, entry, last, len);
	return code ? code : look_up(cli, entry);
}

int inl_entry_open(struct inl_cli *cli, const char *arg, struct inl_target *target, struct inl_entry *entry)
{
	int code = inl_target_init(cli, arg, target);

	*entry = (struct inl_entry){ .arg = arg };
	return code ? code : inl_entry_find(cli, target, entry);
}

void inl_entry_done(struct inl_entry *entry)
{
	inl_inode_put(entry->dir);
	inl_inode_put(entry->inode);
	entry->dir = entry->inode = NULL;
}

/* What the entry is when a link is followed; NULL: it leads nowhere. */
static struct inl_inode *follow(struct inl_cli *cli, const struct inl_target *target, const struct inl_entry *entry,
				struct inl_stat *st)
{
	struct inl_inode *inode = NULL;

	if (!S_ISLNK(entry->st.mode) || inl_path(cli->vol, target->path, true, NULL, &inode))
		return NULL;
	if (!inl_inode_stat(inode, st, NULL))
		return inode;
	inl_inode_put(inode);
	return NULL;
}

int inl_entry_enter(struct inl_cli *cli, const struct inl_target *target, const char *path, struct inl_entry *entry)
{
	struct inl_stat st = entry->st;
	struct inl_inode *dir = NULL;
	const char *last;
	size_t len;
	int code;

	if (!entry->inode)
		return 0;
	if (S_ISLNK(st.mode))
		dir = follow(cli, target, entry, &st);
	if (!S_ISDIR(st.mode)) {
		inl_inode_put(dir);
		return 0;
	}
	if (!dir) {
		dir = entry->inode;
		entry->inode = NULL;
	}
	inl_entry_done(entry);
	entry->dir = dir;
	entry->slash = false;
	entry->entered = true;
	entry->st = (struct inl_stat){ 0 };
	last = inl_path_last(path, &len);
	if (is_no_name(last, len))
		return inl_cli_fail(cli, INL_EXIT_FAILED, path, "does not end in a name");
	code = set_name(cli, entry, last, len);
	return code ? code : look_up(cli, entry);
}

int inl_new_attr(struct inl_inode *dir, uint32_t mode, struct inl_attr *attr)
{
	struct inl_stat st = { 0 };
	int err = inl_inode_stat(dir, &st, NULL);

	*attr = (struct inl_attr){ .mode = mode, .uid = geteuid(), .gid = getegid() };
	if (!err && st.mode & S_ISGID) {
		attr->gid = st.gid;
		if (S_ISDIR(mode))
			attr->mode |= S_ISGID;
	}
	return err;
}
