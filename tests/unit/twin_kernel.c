/*
 * tests/unit/twin_kernel.c: the twin's operations as system calls below a directory.
 * Not here: the same on an image (twin_inlay.c).
 * Read more: openat(2), "O_PATH"; proc(5), "/proc/pid/fd".
 */
#include "tests/unit/twin.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inlay/fscrypt.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define N_LIST 65536

_Static_assert(STATX_ATTR_IMMUTABLE == TWIN_IMMUTABLE && STATX_ATTR_APPEND == TWIN_APPEND && STATX_ATTR_NODUMP == TWIN_NODUMP,
	       "statx has the numbers of the flags");

static int root = -1;

/* An object is a file descriptor; 0 is none of ours. */
static int fd_of(void *obj)
{
	return (int)(intptr_t)obj;
}

static int result(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

/* The path of what a descriptor stands for: also of one that cannot be read or written, and of a link itself. */
static const char *path_of(void *obj)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd_of(obj));
	return path;
}

static int kernel_open(const char *target, bool read_only)
{
	root = open(target, O_RDONLY | O_DIRECTORY);
	return root < 0 ? -errno : 0;
}

static int kernel_close(void)
{
	return result(close(root));
}

static int kernel_get(const char *path, void **obj)
{
	struct stat st;
	int flags = O_PATH, fd;

	if (!path[0])
		path = ".";
	if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))
		flags = O_RDONLY;
	fd = openat(root, path, flags | O_NOFOLLOW);
	if (fd < 0 && errno == ENOKEY)
		fd = openat(root, path, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	*obj = (void *)(intptr_t)fd;
	return 0;
}

static void kernel_put(void *obj)
{
	close(fd_of(obj));
}

static void kernel_set_umask(uint32_t mask)
{
	umask(mask);
}

/* Whom what is made belongs to, without a loss of rights. */
static void act_for(uint32_t uid, uint32_t gid)
{
	prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
	setfsgid(gid);
	setfsuid(uid);
	prctl(PR_SET_SECUREBITS, 0);
}

static int kernel_make(void *dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, unsigned rdev_major,
		       unsigned rdev_minor)
{
	int err;

	if (!geteuid())
		act_for(uid, gid);
	if (S_ISDIR(mode))
		err = result(mkdirat(fd_of(dir), name, mode & 07777));
	else
		err = result(mknodat(fd_of(dir), name, mode, makedev(rdev_major, rdev_minor)));
	if (!geteuid())
		act_for(0, 0);
	return err;
}

static int kernel_symlink(void *dir, const char *name, const char *target)
{
	return result(symlinkat(target, fd_of(dir), name));
}

static int kernel_link(void *obj, void *dir, const char *name)
{
	return result(linkat(fd_of(obj), "", fd_of(dir), name, AT_EMPTY_PATH));
}

static int kernel_unlink(void *dir, const char *name, bool is_dir)
{
	return result(unlinkat(fd_of(dir), name, is_dir ? AT_REMOVEDIR : 0));
}

static int kernel_rename(void *dir, const char *name, void *new_dir, const char *new_name, enum twin_rename how)
{
	static const unsigned flags[] = { 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT,
					  RENAME_WHITEOUT | RENAME_NOREPLACE };

	return result(renameat2(fd_of(dir), name, fd_of(new_dir), new_name, flags[how]));
}

/* Whatever wants to be at the contents of a file that could not be opened is told why. */
static bool is_closed(void *obj)
{
	int fd;

	if (!(fcntl(fd_of(obj), F_GETFL) & O_PATH))
		return false;
	fd = open(path_of(obj), O_RDONLY);
	if (fd < 0)
		return true;
	close(fd);
	return false;
}

/*
 * For writing, as the file is now: each time, since Linux asks only at the open whether it is append-only.
 *
 *   append   at the end: then it may be
 */
static int open_to_write(void *obj, bool append)
{
	int fd = open(path_of(obj), O_RDWR);

	return fd < 0 && errno == EPERM && append ? open(path_of(obj), O_RDWR | O_APPEND) : fd;
}

static int64_t kernel_write(void *obj, uint64_t offset, const void *buf, size_t len)
{
	struct stat st;
	int fd = fstat(fd_of(obj), &st) ? -1 : open_to_write(obj, offset == (uint64_t)st.st_size);
	int64_t done = result(fd < 0 ? -1 : pwrite(fd, buf, len, (off_t)offset));

	if (fd >= 0)
		close(fd);
	return done;
}

static int64_t kernel_read(void *obj, uint64_t offset, void *buf, size_t len)
{
	return is_closed(obj) ? -errno : result(pread(fd_of(obj), buf, len, (off_t)offset));
}

static int kernel_next_data(void *obj, uint64_t offset, uint64_t *start, uint64_t *end)
{
	off_t data, hole;

	if (is_closed(obj))
		return -errno;
	data = lseek(fd_of(obj), (off_t)offset, SEEK_DATA);
	if (data < 0)
		return -errno;
	hole = lseek(fd_of(obj), data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*start = (uint64_t)data;
	*end = (uint64_t)hole;
	return 0;
}

static int kernel_truncate(void *obj, uint64_t size)
{
	return result(truncate(path_of(obj), (off_t)size));
}

static int kernel_fallocate(void *obj, enum twin_fallocate how, uint64_t offset, uint64_t len)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };

	int fd = open_to_write(obj, how == TWIN_ALLOCATE || how == TWIN_ALLOCATE_KEEP);
	int err = result(fd < 0 ? -1 : fallocate(fd, modes[how], (off_t)offset, (off_t)len));

	if (fd >= 0)
		close(fd);
	return err;
}

static int kernel_stat(void *obj, struct twin_stat *out)
{
	struct statx stx;
	struct stat st;

	if (fstatat(fd_of(obj), "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ||
	    statx(fd_of(obj), "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_TYPE, &stx))
		return -errno;
	*out = (struct twin_stat){
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.encrypted = stx.stx_attributes & STATX_ATTR_ENCRYPTED,
		.marks = stx.stx_attributes & TWIN_MARKS,
		.mode = st.st_mode,
		.nlink = (uint32_t)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
		.atime = { st.st_atim.tv_sec, (uint32_t)st.st_atim.tv_nsec },
		.mtime = { st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec },
		.ctime = { st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec },
	};
	return 0;
}

static int kernel_chmod(void *obj, uint32_t mode)
{
	return result(chmod(path_of(obj), mode));
}

static int kernel_chown(void *obj, uint32_t uid, uint32_t gid)
{
	return result(fchownat(fd_of(obj), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

static int kernel_get_flags(void *obj, uint32_t *flags)
{
	int value = 0, err = is_closed(obj) ? -1 : ioctl(fd_of(obj), FS_IOC_GETFLAGS, &value);

	*flags = (uint32_t)value;
	return result(err);
}

static int kernel_set_flags(void *obj, uint32_t flags)
{
	int value = (int)flags;

	return is_closed(obj) ? -errno : result(ioctl(fd_of(obj), FS_IOC_SETFLAGS, &value));
}

static int kernel_utimes(void *obj, struct twin_time atime, struct twin_time mtime)
{
	struct timespec times[2] = { { atime.sec, atime.nsec }, { mtime.sec, mtime.nsec } };

	return result(utimensat(fd_of(obj), "", times, AT_EMPTY_PATH));
}

static int kernel_xattr_set(void *obj, const char *name, const void *value, size_t len, int flags)
{
	if (!value)
		return result(removexattr(path_of(obj), name));
	return result(setxattr(path_of(obj), name, value, len, flags));
}

static int64_t kernel_xattr_get(void *obj, const char *name, void *buf, size_t size)
{
	return result(getxattr(path_of(obj), name, buf, size));
}

static int kernel_xattrs(void *obj, void (*each)(const char *name, const void *value, size_t len, void *arg), void *arg)
{
	static char names[N_LIST], value[N_LIST];
	ssize_t len = listxattr(path_of(obj), names, sizeof(names));

	if (len < 0)
		return -errno;
	for (char *name = names; name < names + len; name += strlen(name) + 1) {
		ssize_t value_len = getxattr(path_of(obj), name, value, sizeof(value));

		if (value_len < 0)
			return -errno;
		each(name, value, (size_t)value_len, arg);
	}
	return 0;
}

static int64_t kernel_readlink(void *obj, char *buf, size_t size)
{
	return result(readlinkat(fd_of(obj), "", buf, size));
}

static int kernel_list(void *obj, void (*each)(const char *name, unsigned type, void *arg), void *arg)
{
	int fd = openat(fd_of(obj), ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			each(entry->d_name, entry->d_type, arg);
	}
	closedir(dir);
	return 0;
}

/* Keys of v1 policies are called what those who add them like: here as Inlay calls them. */
static int kernel_add_key(const uint8_t *key, size_t len, unsigned version, uint8_t name[16])
{
	static union {
		struct fscrypt_add_key_arg arg;
		uint8_t bytes[sizeof(struct fscrypt_add_key_arg) + INL_MASTER_KEY_MAX];
	} add;
	struct inl_key_spec spec = { 0 };

	if (version == 1 && inl_key_spec_derive(key, len, 1, &spec))
		return -EINVAL;
	memset(&add, 0, sizeof(add));
	add.arg.key_spec.type = version == 1 ? FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR : FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
	add.arg.raw_size = (uint32_t)len;
	memcpy(add.arg.key_spec.u.descriptor, spec.bytes, 8);
	memcpy(add.bytes + sizeof(add.arg), key, len);
	if (ioctl(root, FS_IOC_ADD_ENCRYPTION_KEY, &add.arg))
		return -errno;
	memset(name, 0, 16);
	memcpy(name, add.arg.key_spec.u.identifier, version == 1 ? 8 : 16);
	return 0;
}

/* struct fscrypt_policy_v1 and _v2, byte by byte, as older headers do not name all of them. */
static int kernel_set_policy(void *obj, const struct twin_policy *policy)
{
	uint8_t bytes[24] = { policy->version == 1 ? 0 : policy->version, policy->contents_mode, policy->filenames_mode,
			      policy->flags, policy->log2_unit };

	if (policy->version == 1) {
		memcpy(bytes + 4, policy->key, 8);
	} else {
		memcpy(bytes + 5, policy->reserved, 3);
		memcpy(bytes + 8, policy->key, 16);
	}
	return is_closed(obj) ? -errno : result(ioctl(fd_of(obj), FS_IOC_SET_ENCRYPTION_POLICY, bytes));
}

static int kernel_get_policy(void *obj, struct twin_policy *policy)
{
	struct fscrypt_get_policy_ex_arg arg = { .policy_size = sizeof(arg.policy) };
	uint8_t bytes[24] = { 0 };

	if (is_closed(obj) || ioctl(fd_of(obj), FS_IOC_GET_ENCRYPTION_POLICY_EX, &arg))
		return -errno;
	memcpy(bytes, &arg.policy, arg.policy_size);
	*policy = (struct twin_policy){ bytes[0] ? bytes[0] : 1, bytes[1], bytes[2], bytes[3] };
	if (bytes[0])
		policy->log2_unit = bytes[4];
	memcpy(policy->key, bytes + (bytes[0] ? 8 : 4), bytes[0] ? 16 : 8);
	return 0;
}

static int kernel_set_user(uint32_t uid)
{
	return result(seteuid(uid));
}

static int kernel_trim(uint64_t offset, uint64_t len, uint64_t min_len, uint64_t *trimmed)
{
	struct fstrim_range range = { offset, len, min_len };
	int err = result(ioctl(root, FITRIM, &range));

	*trimmed = range.len;
	return err;
}

static int kernel_fsync(void *obj)
{
	return is_closed(obj) ? 0 : result(fsync(fd_of(obj)));
}

static int kernel_sync(void)
{
	return result(syncfs(root));
}

const struct twin_side tw_kernel = {
	.open = kernel_open,
	.close = kernel_close,
	.get = kernel_get,
	.put = kernel_put,
	.set_umask = kernel_set_umask,
	.make = kernel_make,
	.symlink = kernel_symlink,
	.link = kernel_link,
	.unlink = kernel_unlink,
	.rename = kernel_rename,
	.write = kernel_write,
	.read = kernel_read,
	.next_data = kernel_next_data,
	.truncate = kernel_truncate,
	.fallocate = kernel_fallocate,
	.stat = kernel_stat,
	.chmod = kernel_chmod,
	.chown = kernel_chown,
	.get_flags = kernel_get_flags,
	.set_flags = kernel_set_flags,
	.utimes = kernel_utimes,
	.xattr_set = kernel_xattr_set,
	.xattr_get = kernel_xattr_get,
	.xattrs = kernel_xattrs,
	.readlink = kernel_readlink,
	.list = kernel_list,
	.add_key = kernel_add_key,
	.set_policy = kernel_set_policy,
	.get_policy = kernel_get_policy,
	.set_user = kernel_set_user,
	.trim = kernel_trim,
	.fsync = kernel_fsync,
	.sync = kernel_sync,
};
