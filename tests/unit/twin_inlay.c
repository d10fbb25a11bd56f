/*
 * tests/unit/twin_inlay.c: the twin's operations through inlay/volume.h, on an image.
 * Not here: the same as system calls (twin_kernel.c).
 * Read more: inlay/volume.h.
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <inlay/block.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define FL_ENCRYPT 0x800u

static struct inl_dev *dev;
static struct inl_volume *vol;
static struct inl_keyring *keys;

/* What a result of the volume's was about, for whoever looks for it. */
static int told(int err, const struct inl_diag *diag)
{
	if ((err == -EUCLEAN || err == -EIO || err == -EROFS || err == -E2BIG) && diag->text[0])
		fprintf(stderr, "inlay: %s\n", diag->text);
	return err;
}

static int inlay_open(const char *target, bool read_only)
{
	struct inl_diag diag = { 0 };
	int err = inl_keyring_new(&keys);

	if (!err)
		err = inl_dev_open(target, read_only ? 0 : INL_OPEN_WRITE, &diag, &dev);
	if (!err) {
		err = inl_volume_open(dev, keys, read_only ? 0 : INL_VOLUME_WRITE, &diag, &vol);
		if (err)
			inl_dev_close(dev);
	}
	if (err)
		fprintf(stderr, "%s: %s\n", target, diag.text);
	return err;
}

static int inlay_close(void)
{
	int err = inl_volume_close(vol);

	inl_dev_close(dev);
	inl_keyring_free(keys);
	return err;
}

static int inlay_get(const char *path, void **obj)
{
	struct inl_diag diag = { 0 };
	char absolute[TWIN_PATH + 2];
	struct inl_inode *inode;
	int err;

	snprintf(absolute, sizeof(absolute), "/%s", path);
	err = inl_path(vol, absolute, false, &diag, &inode);
	if (!err)
		*obj = inode;
	return told(err, &diag);
}

static void inlay_put(void *obj)
{
	inl_inode_put(obj);
}

static uint32_t mask;

static void inlay_set_umask(uint32_t new_mask)
{
	mask = new_mask;
}

static int inlay_make(void *dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, unsigned rdev_major,
		      unsigned rdev_minor)
{
	struct inl_attr attr = { .mode = mode, .uid = uid, .gid = gid, .rdev_major = rdev_major, .rdev_minor = rdev_minor,
				 .umask = mask };
	struct inl_diag diag = { 0 };

	return told(inl_create(dir, name, strlen(name), &attr, INL_ATTR_INHERIT, &diag, NULL), &diag);
}

static int inlay_symlink(void *dir, const char *name, const char *target)
{
	struct inl_attr attr = { .mode = S_IFLNK | 0777 };
	struct inl_diag diag = { 0 };

	return told(inl_symlink(dir, name, strlen(name), target, strlen(target), &attr, INL_ATTR_INHERIT, &diag, NULL), &diag);
}

static int inlay_link(void *obj, void *dir, const char *name)
{
	struct inl_diag diag = { 0 };

	return told(inl_link(obj, dir, name, strlen(name), &diag), &diag);
}

static int inlay_unlink(void *dir, const char *name, bool is_dir)
{
	struct inl_diag diag = { 0 };

	return told((is_dir ? inl_rmdir : inl_unlink)(dir, name, strlen(name), &diag), &diag);
}

static int inlay_rename(void *dir, const char *name, void *new_dir, const char *new_name, enum twin_rename how)
{
	static const unsigned flags[] = { 0, INL_RENAME_NOREPLACE, INL_RENAME_EXCHANGE, INL_RENAME_WHITEOUT,
					  INL_RENAME_WHITEOUT | INL_RENAME_NOREPLACE };
	struct inl_diag diag = { 0 };

	return told(inl_rename(dir, name, strlen(name), new_dir, new_name, strlen(new_name), flags[how], &diag), &diag);
}

static int64_t inlay_write(void *obj, uint64_t offset, const void *buf, size_t len)
{
	struct inl_diag diag = { 0 };
	size_t done = 0;
	int err = told(inl_write(obj, offset, buf, len, &done, &diag), &diag);

	return err ? err : (int64_t)done;
}

static int64_t inlay_read(void *obj, uint64_t offset, void *buf, size_t len)
{
	struct inl_diag diag = { 0 };
	size_t got;
	int err = told(inl_read(obj, offset, buf, len, &got, &diag), &diag);

	return err ? err : (int64_t)got;
}

static int inlay_next_data(void *obj, uint64_t offset, uint64_t *start, uint64_t *end)
{
	for (;;) {
		struct inl_extent extent;
		int err = inl_inode_extent(obj, offset, &extent, NULL);

		if (err)
			return err;
		*start = offset;
		*end = offset += extent.len;
		if (extent.kind != INL_EXTENT_HOLE)
			return 0;
	}
}

static int inlay_truncate(void *obj, uint64_t size)
{
	struct inl_diag diag = { 0 };

	return told(inl_truncate(obj, size, &diag), &diag);
}

static int inlay_fallocate(void *obj, enum twin_fallocate how, uint64_t offset, uint64_t len)
{
	static const unsigned flags[] = { 0, INL_FALLOC_KEEP_SIZE, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE,
					  INL_FALLOC_ZERO_RANGE, INL_FALLOC_ZERO_RANGE | INL_FALLOC_KEEP_SIZE };
	struct inl_diag diag = { 0 };

	return told(inl_fallocate(obj, flags[how], offset, len, &diag), &diag);
}

static int inlay_stat(void *obj, struct twin_stat *out)
{
	struct inl_diag diag = { 0 };
	struct inl_stat st;
	int err = told(inl_inode_stat(obj, &st, &diag), &diag);

	if (err)
		return err;
	*out = (struct twin_stat){
		.ino = st.ino,
		.size = st.size,
		.blocks = st.blocks,
		.encrypted = st.flags & FL_ENCRYPT,
		.marks = st.flags & TWIN_MARKS,
		.mode = st.mode,
		.nlink = st.nlink,
		.uid = st.uid,
		.gid = st.gid,
		.rdev_major = st.rdev_major,
		.rdev_minor = st.rdev_minor,
		.atime = { st.atime.sec, st.atime.nsec },
		.mtime = { st.mtime.sec, st.mtime.nsec },
		.ctime = { st.ctime.sec, st.ctime.nsec },
	};
	return 0;
}

static int set(void *obj, const struct inl_attr *attr, unsigned which)
{
	struct inl_diag diag = { 0 };

	return told(inl_setattr(obj, attr, which, &diag), &diag);
}

static int inlay_chmod(void *obj, uint32_t mode)
{
	return set(obj, &(struct inl_attr){ .mode = mode }, INL_ATTR_MODE);
}

static int inlay_chown(void *obj, uint32_t uid, uint32_t gid)
{
	return set(obj, &(struct inl_attr){ .uid = uid, .gid = gid }, INL_ATTR_UID | INL_ATTR_GID);
}

static int inlay_get_flags(void *obj, uint32_t *flags)
{
	struct inl_stat st;
	int err = inl_inode_stat(obj, &st, NULL);

	*flags = st.flags & INL_FLAGS_VISIBLE;
	return err;
}

static int inlay_set_flags(void *obj, uint32_t flags)
{
	struct inl_diag diag = { 0 };

	return told(inl_set_flags(obj, flags, &diag), &diag);
}

static int inlay_utimes(void *obj, struct twin_time atime, struct twin_time mtime)
{
	struct inl_attr attr = { .atime = { atime.sec, atime.nsec }, .mtime = { mtime.sec, mtime.nsec } };

	return set(obj, &attr, INL_ATTR_ATIME | INL_ATTR_MTIME);
}

static int inlay_xattr_set(void *obj, const char *name, const void *value, size_t len, int flags)
{
	struct inl_diag diag = { 0 };
	unsigned ours = (flags & XATTR_CREATE ? INL_XATTR_CREATE : 0) | (flags & XATTR_REPLACE ? INL_XATTR_REPLACE : 0);

	return told(inl_xattr_set(obj, name, value, len, ours, &diag), &diag);
}

static int64_t inlay_xattr_get(void *obj, const char *name, void *buf, size_t size)
{
	struct inl_diag diag = { 0 };
	size_t len;
	int err = told(inl_xattr_get(obj, name, buf, size, &len, &diag), &diag);

	return err ? err : (int64_t)len;
}

struct walk {
	void (*each_xattr)(const char *name, const void *value, size_t len, void *arg);
	void *arg;
};

static int one_xattr(const char *name, const void *value, size_t len, void *arg)
{
	struct walk *walk = arg;

	walk->each_xattr(name, value, len, walk->arg);
	return 0;
}

static int inlay_xattrs(void *obj, void (*each)(const char *name, const void *value, size_t len, void *arg), void *arg)
{
	struct walk walk = { each, arg };
	struct inl_diag diag = { 0 };

	return told(inl_xattrs(obj, one_xattr, &walk, &diag), &diag);
}

static int64_t inlay_readlink(void *obj, char *buf, size_t size)
{
	struct inl_diag diag = { 0 };
	size_t len;
	int err = told(inl_readlink(obj, buf, size, &len, &diag), &diag);

	return err ? err : (int64_t)len;
}

static int inlay_list(void *obj, void (*each)(const char *name, unsigned type, void *arg), void *arg)
{
	struct inl_diag diag = { 0 };
	struct inl_dirent entry;
	struct inl_dir *dir;
	int err = inl_dir_open(obj, &diag, &dir);

	if (err)
		return told(err, &diag);
	while ((err = inl_dir_next(dir, &entry, &diag)) > 0)
		each(entry.name, entry.type, arg);
	inl_dir_close(dir);
	return told(err, &diag);
}

static int inlay_add_key(const uint8_t *key, size_t len, unsigned version, uint8_t name[16])
{
	struct inl_diag diag = { 0 };
	struct inl_key_spec spec;
	int err = inl_keyring_add(keys, key, len, &diag);

	if (!err)
		err = inl_key_spec_derive(key, len, (int)version, &spec);
	if (!err)
		memcpy(name, spec.bytes, sizeof(spec.bytes));
	return err;
}

static int inlay_set_policy(void *obj, const struct twin_policy *policy)
{
	struct inl_policy ours = {
		.version = policy->version,
		.contents_mode = policy->contents_mode,
		.filenames_mode = policy->filenames_mode,
		.flags = policy->flags,
		.log2_data_unit_size = policy->log2_unit,
		.key = { .version = policy->version },
	};
	struct inl_diag diag = { 0 };

	memcpy(ours.reserved, policy->reserved, sizeof(ours.reserved));
	memcpy(ours.key.bytes, policy->key, policy->version == 1 ? 8 : 16);
	return told(inl_set_policy(obj, &ours, NULL, &diag), &diag);
}

static int inlay_get_policy(void *obj, struct twin_policy *policy)
{
	struct inl_inode_crypt crypt;

	inl_inode_crypt(obj, &crypt);
	if (!crypt.encrypted)
		return -ENODATA;
	if (crypt.status == -EUCLEAN)
		return -EINVAL;
	*policy = (struct twin_policy){
		.version = crypt.policy.version,
		.contents_mode = crypt.policy.contents_mode,
		.filenames_mode = crypt.policy.filenames_mode,
		.flags = crypt.policy.flags,
		.log2_unit = crypt.policy.log2_data_unit_size,
	};
	memcpy(policy->key, crypt.policy.key.bytes, sizeof(policy->key));
	return 0;
}

static int inlay_set_user(uint32_t uid)
{
	return 0;
}

static int inlay_trim(uint64_t offset, uint64_t len, uint64_t min_len, uint64_t *trimmed)
{
	struct inl_diag diag = { 0 };

	return told(inl_trim(vol, offset, len, min_len, trimmed, &diag), &diag);
}

static int inlay_fsync(void *obj)
{
	struct inl_diag diag = { 0 };

	return told(inl_fsync(obj, &diag), &diag);
}

static int inlay_sync(void)
{
	struct inl_diag diag = { 0 };

	return told(inl_sync(vol, &diag), &diag);
}

const struct twin_side tw_inlay = {
	.open = inlay_open,
	.close = inlay_close,
	.get = inlay_get,
	.put = inlay_put,
	.set_umask = inlay_set_umask,
	.make = inlay_make,
	.symlink = inlay_symlink,
	.link = inlay_link,
	.unlink = inlay_unlink,
	.rename = inlay_rename,
	.write = inlay_write,
	.read = inlay_read,
	.next_data = inlay_next_data,
	.truncate = inlay_truncate,
	.fallocate = inlay_fallocate,
	.stat = inlay_stat,
	.chmod = inlay_chmod,
	.chown = inlay_chown,
	.get_flags = inlay_get_flags,
	.set_flags = inlay_set_flags,
	.utimes = inlay_utimes,
	.xattr_set = inlay_xattr_set,
	.xattr_get = inlay_xattr_get,
	.xattrs = inlay_xattrs,
	.readlink = inlay_readlink,
	.list = inlay_list,
	.add_key = inlay_add_key,
	.set_policy = inlay_set_policy,
	.get_policy = inlay_get_policy,
	.set_user = inlay_set_user,
	.trim = inlay_trim,
	.fsync = inlay_fsync,
	.sync = inlay_sync,
};
