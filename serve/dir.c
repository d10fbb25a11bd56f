/*
 * serve/dir.c: requests about what a directory holds.
 * Not here: the order of names (the library); looking one up (names.c).
 * Read more: serve/serve.h; inl_dir_tell in inlay/volume.h.
 *
 * Offsets: 0 is the begin, 1 is behind ".", 2 behind ".."; the others are the library's, which begin at 8.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DOTS 2u

/* What the kernel has kept of an encrypted directory may be from when there was no key, or another time when there was. */
static bool may_keep(struct inl_mount *mount, struct inl_node *node)
{
	unsigned changes = atomic_load(&mount->keys.changes);

	return !inl_inode_policy(node->inode, NULL) || atomic_exchange(&node->listed, changes) == changes;
}

void inl_serve_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	struct inl_open *open = NULL;
	int err = inl_node_use(mount, id, &use);

	if (!err)
		err = inl_open_new(mount, use.node, false, false, &open);
	if (!err)
		err = inl_dir_open(use.node->inode, NULL, &open->dir);
	if (err) {
		if (open)
			inl_open_free(mount, open);
		inl_reply_error(req, err);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = may_keep(mount, use.node);
	fi->cache_readdir = 1;
	if (fuse_reply_open(req, fi) == -ENOENT)
		inl_open_free(mount, open);
}

void inl_serve_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	inl_open_free(inl_mount_of(req), inl_open_of(fi));
	fuse_reply_err(req, 0);
}

/* An answer in the making. */
struct listing {
	fuse_req_t req;
	struct inl_mount *mount;
	struct inl_open *open;
	bool plus;
	char *buf;
	size_t size, len;
};

/* Returns whether there was room. */
static bool put(struct listing *list, const char *name, const struct fuse_entry_param *entry, uint64_t next)
{
	size_t left = list->size - list->len, len;

	if (list->plus)
		len = fuse_add_direntry_plus(list->req, list->buf + list->len, left, name, entry, (off_t)next);
	else
		len = fuse_add_direntry(list->req, list->buf + list->len, left, name, &entry->attr, (off_t)next);
	if (len > left)
		return false;
	list->len += len;
	return true;
}

/* "." and ".." are never looked up: the kernel has them. */
static bool put_dots(struct listing *list, const char *name, uint64_t next)
{
	struct fuse_entry_param entry = { .attr = { .st_ino = INL_ROOT_INO, .st_mode = S_IFDIR } };
	struct inl_inode *dir = list->open->node->inode;
	struct inl_stat st;
	uint64_t ino;

	if (next == 1 && !inl_inode_stat(dir, &st, NULL))
		entry.attr.st_ino = st.ino;
	if (next == DOTS && !inl_parent(dir, &ino, NULL))
		entry.attr.st_ino = ino;
	return put(list, name, &entry, next);
}

/* With its attributes, if that is asked for: the kernel needs not ask for them one by one. */
static void fill(const struct listing *list, const struct inl_dirent *dirent, struct fuse_entry_param *entry)
{
	const struct inl_node *dir = list->open->node;
	struct inl_inode *inode;

	*entry = (struct fuse_entry_param){ 0 };
	if (list->plus && !inl_inode_get(list->mount->vol, dirent->ino, NULL, &inode)) {
		if (inl_top_note(list->mount, dir->inode, dir->id, dirent->name, inode) ||
		    inl_entry_fill(list->mount, inode, entry))
			entry->ino = 0;
		inl_inode_put(inode);
	}
	entry->attr.st_ino = dirent->ino;
	if (!entry->ino)
		entry->attr.st_mode = (mode_t)dirent->type << 12;
}

/* Returns 1 (an entry, in open->ahead), 0 (the end), or an error. */
static int next_entry(struct inl_open *open)
{
	int found;

	if (open->has_ahead)
		return 1;
	do
		found = inl_dir_next(open->dir, &open->ahead, NULL);
	while (found > 0 && open->ahead.status);
	open->has_ahead = found > 0;
	return found;
}

/*
 * Go on where the kernel wants: mostly where the last answer ended, and the iterator stands right between names of one
 * position. From the begin it is always read anew.
 */
static void go_to(struct inl_open *open, uint64_t pos)
{
	if (pos && pos == open->pos)
		return;
	open->has_ahead = false;
	open->failed = 0;
	open->pos = pos;
	inl_dir_seek(open->dir, pos);
}

static int list_from(struct listing *list, uint64_t offset)
{
	struct inl_open *open = list->open;
	struct fuse_entry_param entry;
	int found;

	if (offset < 1 && !put_dots(list, ".", 1))
		return 0;
	if (offset < DOTS && !put_dots(list, "..", DOTS))
		return 0;
	go_to(open, offset <= DOTS ? 0 : offset);
	found = open->failed;
	open->failed = 0;
	if (found)
		return found;
	while ((found = next_entry(open)) > 0) {
		uint64_t next = inl_dir_tell(open->dir);

		fill(list, &open->ahead, &entry);
		if (!put(list, open->ahead.name, &entry, next))
			return 0;
		open->has_ahead = false;
		open->pos = next;
	}
	if (found < 0 && list->len)
		open->failed = found; /* after what was found */
	return list->len ? 0 : found;
}

static void read_dir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
	struct listing list = {
		.req = req,
		.mount = inl_mount_of(req),
		.open = inl_open_of(fi),
		.plus = plus,
		.buf = (char *)inl_worker_answer(size < INL_REQUEST_MAX ? size : INL_REQUEST_MAX),
		.size = size < INL_REQUEST_MAX ? size : INL_REQUEST_MAX,
	};
	int err;

	pthread_mutex_lock(&list.open->lock);
	err = list_from(&list, (uint64_t)offset);
	pthread_mutex_unlock(&list.open->lock);
	if (err < 0)
		inl_reply_error(req, err);
	else
		fuse_reply_buf(req, list.buf, list.len);
}

void inl_serve_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	read_dir(req, size, offset, fi, false);
}

void inl_serve_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	read_dir(req, size, offset, fi, true);
}
