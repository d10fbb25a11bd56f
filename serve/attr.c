/*
 * serve/attr.c: requests about attributes: stat, chmod, chown, utimes, truncate; extended ones; statfs.
 * Not here: who may change them: the kernel has seen to that.
 * Read more: serve/serve.h; inlay/volume.h.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

/* ---- stat -------------------------------------------------------------------------------------------------------- */

static void reply_attr(fuse_req_t req, int err, struct inl_inode *inode)
{
	struct inl_stat st;
	struct stat attr;

	if (!err)
		err = inl_inode_stat(inode, &st, NULL);
	if (err) {
		inl_reply_error(req, err);
		return;
	}
	inl_stat_convert(inl_mount_of(req)->block_size, &st, &attr);
	fuse_reply_attr(req, &attr, INL_FOREVER);
}

void inl_serve_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	int err = inl_node_use(inl_mount_of(req), id, &use);

	reply_attr(req, err, err ? NULL : use.node->inode);
}

/* ---- set-ID bits ------------------------------------------------------------------------------------------------- */

#define N_GROUPS 256

static bool is_in_group(fuse_req_t req, gid_t gid)
{
	gid_t groups[N_GROUPS];
	int n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_getgroups(req, N_GROUPS, groups);
	for (int i = 0; i < n && i < N_GROUPS; i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}

/* The mode without what Linux takes away: set-group-ID without the right to execute is a mark for locks, may stay. */
static uint32_t without_privileges(fuse_req_t req, const struct inl_stat *st)
{
	uint32_t mode = st->mode;

	if (S_ISDIR(mode))
		return mode;
	mode &= ~(uint32_t)S_ISUID;
	if ((mode & S_ISGID) && ((mode & S_IXGRP) || (fuse_req_ctx(req)->uid && !is_in_group(req, st->gid))))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

int inl_kill_privileges(fuse_req_t req, struct inl_inode *inode)
{
	struct inl_attr attr = { 0 };
	struct inl_stat st;
	int err = inl_inode_stat(inode, &st, NULL);

	if (err)
		return err;
	attr.mode = without_privileges(req, &st);
	return attr.mode == st.mode ? 0 : inl_setattr(inode, &attr, INL_ATTR_MODE, NULL);
}

/* ---- chmod, chown, utimes, truncate ------------------------------------------------------------------------------ */

static struct inl_time time_of(struct timespec ts)
{
	return (struct inl_time){ .sec = ts.tv_sec, .nsec = (uint32_t)ts.tv_nsec };
}

static struct inl_time time_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return time_of(now);
}

/* What of the request the library's call takes, but the size. */
static unsigned collect(const struct stat *attr, int which, struct inl_attr *out)
{
	unsigned wanted = 0;

	if (which & FUSE_SET_ATTR_MODE)
		wanted |= INL_ATTR_MODE;
	if (which & FUSE_SET_ATTR_UID)
		wanted |= INL_ATTR_UID;
	if (which & FUSE_SET_ATTR_GID)
		wanted |= INL_ATTR_GID;
	if (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		wanted |= INL_ATTR_ATIME;
	if (which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		wanted |= INL_ATTR_MTIME;
	if (which & FUSE_SET_ATTR_CTIME)
		wanted |= INL_ATTR_CTIME;
	/* utimes(NULL); or what the kernel noted while it kept the data: that comes without a time of access. */
	if ((which & FUSE_SET_ATTR_ATIME_NOW) || ((wanted & INL_ATTR_CTIME) && !(wanted & INL_ATTR_ATIME)))
		wanted |= INL_ATTR_TOUCH;
	*out = (struct inl_attr){ .mode = attr->st_mode & 07777, .uid = attr->st_uid, .gid = attr->st_gid };
	out->atime = which & FUSE_SET_ATTR_ATIME_NOW ? time_now() : time_of(attr->st_atim);
	out->mtime = which & FUSE_SET_ATTR_MTIME_NOW ? time_now() : time_of(attr->st_mtim);
	out->ctime = time_of(attr->st_ctim);
	return wanted;
}

/* The times that the kernel noted while it kept data or names, and nothing else. */
static bool is_noted(unsigned wanted)
{
	return (wanted & INL_ATTR_TOUCH) && !(wanted & ~(unsigned)(INL_ATTR_MTIME | INL_ATTR_CTIME | INL_ATTR_TOUCH));
}

/*
 * A change of the owner takes privileges away, also one that changes no owner: of that nothing arrives but a time of
 * change, and not whether who asks may do it.
 */
static int drop_with_owner(fuse_req_t req, struct inl_inode *inode, struct inl_attr *out, unsigned *wanted)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	struct inl_stat st;
	int err = inl_inode_stat(inode, &st, NULL);

	if (err)
		return err;
	out->mode = without_privileges(req, &st);
	if (out->mode == st.mode)
		return 0;
	if (!(*wanted & (INL_ATTR_UID | INL_ATTR_GID)) && uid && uid != st.uid)
		return -EPERM;
	out->mode &= 07777;
	*wanted |= INL_ATTR_MODE;
	return 0;
}

static int change(fuse_req_t req, struct inl_node *node, const struct stat *attr, int which)
{
	struct inl_inode *inode = node->inode;
	struct inl_attr out;
	unsigned wanted = collect(attr, which, &out);
	bool noted = is_noted(wanted) && !(which & FUSE_SET_ATTR_SIZE);
	bool owner = (wanted & (INL_ATTR_UID | INL_ATTR_GID)) || (noted && !(wanted & INL_ATTR_MTIME));
	int err = 0;

	if (which & FUSE_SET_ATTR_SIZE)
		err = inl_truncate(inode, (uint64_t)attr->st_size, NULL);
	if (!err && !owner && inl_request_kills_privileges(req))
		err = inl_kill_privileges(req, inode);
	if (!err && owner && !(wanted & INL_ATTR_MODE))
		err = drop_with_owner(req, inode, &out, &wanted);
	noted = noted && !(wanted & INL_ATTR_MODE);
	/* What nobody will find any more needs no time of its last change, which the kernel notes at each unlink. */
	if (err || !wanted || (noted && node->removed))
		return err;
	err = inl_setattr(inode, &out, wanted, NULL);
	/* It has become immutable since: whoever syncs it is not to blame. */
	return noted && err == -EPERM ? 0 : err;
}

void inl_serve_setattr(fuse_req_t req, fuse_ino_t id, struct stat *attr, int which, struct fuse_file_info *fi)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	int err = inl_node_use(inl_mount_of(req), id, &use);

	if (!err)
		err = change(req, use.node, attr, which);
	reply_attr(req, err, err ? NULL : use.node->inode);
}

void inl_serve_statfs(fuse_req_t req, fuse_ino_t id)
{
	struct inl_mount *mount = inl_mount_of(req);
	struct inl_volume_space space;
	struct statvfs st;

	inl_volume_space(mount->vol, &space);
	st = (struct statvfs){
		.f_bsize = mount->block_size,
		.f_frsize = mount->block_size,
		.f_blocks = space.n_blocks - space.n_overhead_blocks,
		.f_bfree = space.n_free_blocks,
		.f_bavail = space.n_free_blocks > space.n_reserved_blocks
				    ? space.n_free_blocks - space.n_reserved_blocks
				    : 0,
		.f_files = space.n_inodes,
		.f_ffree = space.n_free_inodes,
		.f_favail = space.n_free_inodes,
		.f_namemax = INL_NAME_MAX,
	};
	fuse_reply_statfs(req, &st);
}

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

/* Who sets the ACL, and with it the mode, of a file of a group that is not theirs makes it set-group-ID no longer. */
static int drop_group_id(fuse_req_t req, struct inl_inode *inode)
{
	struct inl_attr attr = { 0 };
	struct inl_stat st;
	int err = inl_inode_stat(inode, &st, NULL);

	if (err || !(st.mode & S_ISGID) || !fuse_req_ctx(req)->uid || is_in_group(req, st.gid))
		return err;
	attr.mode = st.mode & ~(uint32_t)S_ISGID;
	return inl_setattr(inode, &attr, INL_ATTR_MODE, NULL);
}

void inl_serve_setxattr(fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	int err = inl_node_use(inl_mount_of(req), id, &use);

	if (!err)
		err = inl_xattr_set(use.node->inode, name, value, size, (unsigned)flags, NULL);
	if (!err && !strcmp(name, "system.posix_acl_access"))
		err = drop_group_id(req, use.node->inode);
	inl_reply_status(req, err);
}

void inl_serve_removexattr(fuse_req_t req, fuse_ino_t id, const char *name)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	int err = inl_node_use(inl_mount_of(req), id, &use);

	if (!err)
		err = inl_xattr_set(use.node->inode, name, NULL, 0, 0, NULL);
	inl_reply_status(req, err);
}

/* How long it is, or what it is. */
static void reply_xattr(fuse_req_t req, int err, const uint8_t *value, size_t len, size_t size)
{
	if (!err && size && len > size)
		err = -ERANGE;
	if (err)
		inl_reply_error(req, err);
	else if (size)
		fuse_reply_buf(req, (const char *)value, len);
	else
		fuse_reply_xattr(req, len);
}

void inl_serve_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	uint8_t *value = inl_worker_answer(0); /* attributes are not encrypted */
	size_t len = 0;
	int err = inl_node_use(inl_mount_of(req), id, &use);

	if (!err)
		err = inl_xattr_get(use.node->inode, name, size ? value : NULL, size ? INL_REQUEST_MAX : 0, &len, NULL);
	reply_xattr(req, err, value, len, size);
}

struct names {
	char *text;
	size_t len;
	bool all;
};

/* As Linux: only root sees that there is something trusted. */
static int add_name(const char *name, const void *value, size_t value_len, void *arg)
{
	static const char trusted[] = "trusted.";
	struct names *names = arg;
	size_t len = strlen(name) + 1;

	if (!names->all && !strncmp(name, trusted, sizeof(trusted) - 1))
		return 0;
	if (names->len + len > INL_REQUEST_MAX)
		return -E2BIG;
	memcpy(names->text + names->len, name, len);
	names->len += len;
	return 0;
}

void inl_serve_listxattr(fuse_req_t req, fuse_ino_t id, size_t size)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	struct names names = { .text = (char *)inl_worker_answer(0), .all = !fuse_req_ctx(req)->uid };
	int err = inl_node_use(inl_mount_of(req), id, &use);

	if (!err)
		err = inl_xattrs(use.node->inode, add_name, &names, NULL);
	reply_xattr(req, err, (const uint8_t *)names.text, names.len, size);
}
