/*
 * serve/file.c: requests about the contents of files.
 * Not here: how contents are encrypted, and where they lie (the library).
 * Read more: serve/serve.h; inlay/volume.h.
 */
#include "serve/serve.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- open, release ----------------------------------------------------------------------------------------------- */

int inl_open_new(struct inl_mount *mount, struct inl_node *node, bool writes, bool must, struct inl_open **out)
{
	struct inl_open *open;
	int err = inl_inode_hold_key(node->inode, NULL);

	if (err && must)
		return err;
	open = calloc(1, sizeof(*open));
	if (!open) {
		if (!err)
			inl_inode_release_key(node->inode);
		return -ENOMEM;
	}
	pthread_mutex_init(&open->lock, NULL);
	open->holds = !err;
	open->node = node;
	open->writes = writes;
	inl_node_hold(&mount->nodes, node);
	if (writes)
		inl_node_writes(&mount->nodes, node, true);
	pthread_mutex_lock(&mount->nodes.lock);
	open->next = mount->opens;
	open->at = &mount->opens;
	if (open->next)
		open->next->at = &open->next;
	mount->opens = open;
	pthread_mutex_unlock(&mount->nodes.lock);
	*out = open;
	return 0;
}

static void release_key(struct inl_mount *mount, struct inl_inode *inode)
{
	struct inl_policy policy;

	inl_inode_release_key(inode);
	if (inl_inode_policy(inode, &policy))
		inl_keys_released(mount, &policy.key);
}

void inl_open_free(struct inl_mount *mount, struct inl_open *open)
{
	pthread_mutex_lock(&mount->nodes.lock);
	*open->at = open->next;
	if (open->next)
		open->next->at = open->at;
	pthread_mutex_unlock(&mount->nodes.lock);
	if (open->writes)
		inl_node_writes(&mount->nodes, open->node, false);
	inl_dir_close(open->dir);
	if (open->holds)
		release_key(mount, open->node->inode);
	inl_node_put(&mount->nodes, open->node);
	pthread_mutex_destroy(&open->lock);
	inl_wipe(&open->ahead, sizeof(open->ahead));
	free(open);
}

/* What Linux says at the open, and not later: a file that may only grow, or not change. */
static int may_open(struct inl_inode *inode, int flags)
{
	struct inl_stat st;
	int err;

	if ((flags & O_ACCMODE) == O_RDONLY)
		return 0;
	err = inl_inode_stat(inode, &st, NULL);
	if (err)
		return err;
	if (st.flags & INL_FL_IMMUTABLE)
		return -EPERM;
	return (st.flags & INL_FL_APPEND) && !(flags & O_APPEND) ? -EPERM : 0;
}

void inl_serve_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	struct inl_open *open = NULL;
	int err = inl_node_use(mount, id, &use);

	if (!err)
		err = inl_open_new(mount, use.node, (fi->flags & O_ACCMODE) != O_RDONLY, true, &open);
	if (!err)
		err = may_open(use.node->inode, fi->flags);
	if (err) {
		if (open)
			inl_open_free(mount, open);
		inl_reply_error(req, err);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) == -ENOENT)
		inl_open_free(mount, open);
}

void inl_serve_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	inl_open_free(inl_mount_of(req), inl_open_of(fi));
	fuse_reply_err(req, 0);
}

/* ---- read, write ------------------------------------------------------------------------------------------------- */

void inl_serve_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct inl_mount *mount = inl_mount_of(req);
	uint8_t *buf = inl_worker_answer(size);
	size_t got = 0;
	int err = inl_read(inl_open_of(fi)->node->inode, (uint64_t)offset, buf,
			   size < INL_REQUEST_MAX ? size : INL_REQUEST_MAX, &got, NULL);

	if (err) {
		inl_reply_error(req, err);
		return;
	}
	count(&mount->reads, 1);
	count(&mount->bytes_read, got);
	fuse_reply_buf(req, (const char *)buf, got);
}

typedef int write_fn(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, size_t *done,
		     struct inl_diag *diag);

/*
 * What the kernel writes back is written as a whole or has failed: it does not look at how much was. A program that
 * wrote only in part asks again, and then learns why.
 */
static int write_all(struct inl_inode *inode, uint64_t offset, const char *buf, size_t size, write_fn *fn, bool all,
		     size_t *done)
{
	int err = 0;

	*done = 0;
	while (*done < size && !err) {
		size_t n = 0;

		err = fn(inode, offset + *done, buf + *done, size - *done, &n, NULL);
		*done += err ? 0 : n;
		if (!err && !n)
			err = -EIO;
	}
	return *done && !all ? 0 : err;
}

void inl_serve_write(fuse_req_t req, fuse_ino_t id, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	size_t done = 0;
	/* By number, not by handle: what the kernel writes back may come with any. */
	int err = inl_node_use(mount, id, &use);

	if (!err && inl_request_kills_privileges(req))
		err = inl_kill_privileges(req, use.node->inode);
	if (!err)
		err = write_all(use.node->inode, (uint64_t)offset, buf, size,
				mount->writeback ? inl_write_back : inl_write, fi->writepage, &done);
	if (err) {
		inl_reply_error(req, err);
		return;
	}
	count(&mount->writes, 1);
	count(&mount->bytes_written, done);
	fuse_reply_write(req, done);
}

void inl_serve_fsync(fuse_req_t req, fuse_ino_t id, int data_only, struct fuse_file_info *fi)
{
	inl_reply_status(req, inl_mount_of(req)->read_only ? 0 : inl_fsync(inl_open_of(fi)->node->inode, NULL));
}

/*
 * With the writeback cache the kernel has noted the time of a change itself, and tells it when it likes: unless that is
 * what it has told already.
 */
static void keep_times(struct inl_mount *mount, struct inl_inode *inode, const struct inl_stat *before)
{
	struct inl_attr attr = { .mtime = before->mtime, .ctime = before->ctime };

	if (mount->writeback)
		inl_setattr(inode, &attr, INL_ATTR_MTIME | INL_ATTR_CTIME | INL_ATTR_TOUCH, NULL);
}

/* ---- holes ------------------------------------------------------------------------------------------------------- */

void inl_serve_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	struct inl_inode *inode = inl_open_of(fi)->node->inode;
	struct inl_stat st;
	int err = inl_inode_stat(inode, &st, NULL);

	if (!err)
		err = inl_fallocate(inode, (unsigned)mode, (uint64_t)offset, (uint64_t)len, NULL);
	if (!err)
		keep_times(inl_mount_of(req), inode, &st);
	/* Of this, and of a copy, the kernel does not say that privileges should go. */
	if (!err && fuse_req_ctx(req)->uid)
		err = inl_kill_privileges(req, inode);
	inl_reply_status(req, err);
}

struct seek {
	struct inl_flush flush; /* first */
	uint64_t offset;
	int whence;
};

/* Where the next data, or hole, begins: as ext4, where unwritten blocks are holes and there is one at the end. */
static int seek_in(struct inl_inode *inode, uint64_t offset, int whence, uint64_t *found)
{
	struct inl_extent extent;
	int err;

	for (;;) {
		err = inl_inode_extent(inode, offset, &extent, NULL);
		if (err == -ENXIO && whence == SEEK_HOLE && *found) {
			*found = offset;
			return 0;
		}
		if (err)
			return err;
		if ((extent.kind == INL_EXTENT_DATA || extent.kind == INL_EXTENT_INLINE) == (whence == SEEK_DATA)) {
			*found = offset;
			return 0;
		}
		*found = 1; /* the offset asked for lies within the file */
		offset += extent.len;
	}
}

static void seek_now(struct inl_flush *flush)
{
	struct seek *seek = (struct seek *)flush;
	uint64_t found = 0;
	int err = seek_in(flush->node->inode, seek->offset, seek->whence, &found);

	if (err)
		inl_reply_error(flush->req, err);
	else
		fuse_reply_lseek(flush->req, (off_t)found);
}

/*
 * While somebody may write, the kernel may have data that we have not seen, and asks all the same: a hole that is none
 * any more would be said, and whoever copies the file would lose what is there. So it is written back first.
 */
void inl_serve_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct seek *seek;

	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		inl_reply_error(req, -EINVAL);
		return;
	}
	if (offset < 0) {
		inl_reply_error(req, -ENXIO);
		return;
	}
	seek = calloc(1, sizeof(*seek));
	if (!seek) {
		inl_reply_error(req, -ENOMEM);
		return;
	}
	seek->offset = (uint64_t)offset;
	seek->whence = whence;
	inl_flush_then(req, inl_open_of(fi)->node, &seek->flush, seek_now);
}

#define COPY_MAX ((size_t)16 << 20) /* bytes of one request */

/* ---- copying within the volume ----------------------------------------------------------------------------------- */

void inl_serve_copy(fuse_req_t req, fuse_ino_t from_id, off_t from, struct fuse_file_info *from_fi, fuse_ino_t to_id,
		    off_t to, struct fuse_file_info *to_fi, size_t len, int flags)
{
	struct inl_inode *source = inl_open_of(from_fi)->node->inode, *dest = inl_open_of(to_fi)->node->inode;
	uint8_t *buf = inl_worker_answer(len < INL_REQUEST_MAX ? len : INL_REQUEST_MAX);
	struct inl_stat st;
	size_t total = 0;
	int err = inl_inode_stat(dest, &st, NULL);

	/* The rest is asked for again: whoever waits for this thread's turn should not wait long. */
	if (len > COPY_MAX)
		len = COPY_MAX;
	if (!err && fuse_req_ctx(req)->uid)
		err = inl_kill_privileges(req, dest);
	while (!err && total < len) {
		size_t want = len - total < INL_REQUEST_MAX ? len - total : INL_REQUEST_MAX, got = 0, done = 0;

		err = inl_read(source, (uint64_t)from + total, buf, want, &got, NULL);
		if (!err && got)
			err = inl_write(dest, (uint64_t)to + total, buf, got, &done, NULL);
		total += done;
		if (err || done < want)
			break;
	}
	if (total)
		keep_times(inl_mount_of(req), dest, &st);
	if (err && !total)
		inl_reply_error(req, err);
	else
		fuse_reply_write(req, total);
}
