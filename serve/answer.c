/*
 * serve/answer.c: what answers are made of: errors, attributes, entries.
 * Not here: requests (names.c, attr.c, file.c, dir.c).
 * Read more: serve/serve.h.
 */
#include "serve/serve.h"
#include <errno.h>
#include <sys/sysmacros.h>

/* What a system call of Linux would say. */
static int as_errno(int err)
{
	return err < 0 && err > -4096 ? -err : EIO;
}

void inl_reply_error(fuse_req_t req, int err)
{
	if (err == -EIO || err == -EUCLEAN)
		atomic_fetch_add_explicit(&inl_mount_of(req)->errors, 1, memory_order_relaxed);
	fuse_reply_err(req, as_errno(err));
}

void inl_reply_status(fuse_req_t req, int err)
{
	if (err)
		inl_reply_error(req, err);
	else
		fuse_reply_err(req, 0);
}

static struct timespec time_of(struct inl_time time)
{
	return (struct timespec){ .tv_sec = time.sec, .tv_nsec = time.nsec };
}

void inl_stat_convert(uint32_t block_size, const struct inl_stat *st, struct stat *out)
{
	*out = (struct stat){
		.st_ino = st->ino,
		.st_mode = st->mode,
		.st_nlink = st->nlink,
		.st_uid = st->uid,
		.st_gid = st->gid,
		.st_rdev = makedev(st->rdev_major, st->rdev_minor),
		.st_size = (off_t)st->size,
		.st_blksize = block_size,
		.st_blocks = (blkcnt_t)st->blocks,
		.st_atim = time_of(st->atime),
		.st_mtim = time_of(st->mtime),
		.st_ctim = time_of(st->ctime),
	};
}

int inl_entry_fill(struct inl_mount *mount, struct inl_inode *inode, struct fuse_entry_param *entry)
{
	struct inl_stat st;
	int err = inl_inode_stat(inode, &st, NULL);

	if (err)
		return err;
	*entry = (struct fuse_entry_param){
		.ino = inl_node_id(&st),
		.generation = st.generation,
		.attr_timeout = INL_FOREVER,
		.entry_timeout = INL_FOREVER,
	};
	inl_stat_convert(mount->block_size, &st, &entry->attr);
	return 0;
}
