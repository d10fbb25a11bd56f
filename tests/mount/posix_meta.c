/*
 * tests/mount/posix_meta.c: operations on modes, owners, times, flags and extended attributes.
 * Not here: what writing does to modes, on purpose (posix_peers.c).
 * Read more: chmod(2), chown(2), utimensat(2), xattr(7), acl(5); Linux include/uapi/linux/posix_acl_xattr.h.
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

/* ---- modes and owners -------------------------------------------------------------------------------------------- */

static void op_chmod(void)
{
	struct px_held *held = px_rng(4) ? NULL : px_some_held(PX_ANY);
	mode_t mode = px_some_mode();
	char path[PX_PATH];

	if (held) {
		printf(" %o", mode);
		px_result(fchmod(held->fd, mode));
		px_show_fd(held->fd);
		return;
	}
	px_old_path(path, PX_ANY);
	if (px_rng(6)) {
		printf(" %o", mode);
		px_result(chmod(path, mode));
	} else {
		printf(" nofollow %o", mode);
		px_result(syscall(SYS_fchmodat2, AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW));
	}
	px_show_path(path);
}

static void op_chown(void)
{
	struct px_held *held = px_rng(4) ? NULL : px_some_held(PX_ANY);
	unsigned uid = px_rng(4) ? px_some_id() : (unsigned)-1, gid = px_rng(4) ? px_some_id() : (unsigned)-1;
	bool follow = px_rng(2);
	char path[PX_PATH];

	if (px_without("chown-none") && uid == (unsigned)-1)
		gid = 0;
	if (held) {
		printf(" %d:%d", (int)uid, (int)gid);
		px_result(fchown(held->fd, uid, gid));
		px_show_fd(held->fd);
		return;
	}
	px_old_path(path, PX_ANY);
	printf(" %s %d:%d", follow ? "chown" : "lchown", (int)uid, (int)gid);
	px_result(follow ? chown(path, uid, gid) : lchown(path, uid, gid));
	px_show_path(path);
}

static void op_umask(void)
{
	static const mode_t masks[] = { 0, 022, 077, 027, 0777, 0111, 0 };
	mode_t mask = masks[px_rng(PX_COUNT(masks))];

	printf(" %o", mask);
	umask(px_is_child ? 022 : mask);
}

static void op_access(void)
{
	char path[PX_PATH];
	int mode = (int)px_rng(8);

	px_any_path(path);
	printf(" %d", mode);
	px_result(faccessat(AT_FDCWD, path, mode, px_rng(2) ? AT_EACCESS : 0));
}

static void show_link(const char *path)
{
	ssize_t len = readlink(path, (char *)px_buf, PX_BUF - 1);

	if (!px_result(len))
		return;
	px_buf[len] = 0;
	px_show((char *)px_buf);
}

static void op_readlink(void)
{
	char path[PX_PATH];

	px_old_path(path, PX_LNK);
	show_link(path);
}

/* All of statx(2) that is no matter of clocks and layouts. */
static void op_stat(void)
{
	struct statx st;
	char path[PX_PATH];
	int flags = px_rng(2) ? AT_SYMLINK_NOFOLLOW : 0;

	flags |= px_rng(8) ? 0 : px_rng(2) ? AT_STATX_FORCE_SYNC : AT_STATX_DONT_SYNC;
	px_any_path(path);
	if (!px_result(statx(AT_FDCWD, path, flags, STATX_BASIC_STATS, &st)))
		return;
	printf(" %x %o n%u %u:%u d%u:%u", st.stx_mask & STATX_BASIC_STATS, st.stx_mode, st.stx_nlink, st.stx_uid,
	       st.stx_gid, st.stx_rdev_major, st.stx_rdev_minor);
	if (!S_ISDIR(st.stx_mode))
		printf(" s%llu", (unsigned long long)st.stx_size);
}

/* ---- times ------------------------------------------------------------------------------------------------------- */

static struct timespec some_time(void)
{
	static const int64_t seconds[] = { 0,
					   1,
					   -1,
					   1000000000,
					   0x7fffffff,
					   0x80000000,
					   0x1ffffffff,
					   -0x80000000ll,
					   0x3fffffff0ll,
					   0x7ffffffff0ll,
					   -0x90000000ll };
	static const long odd[] = { UTIME_NOW, UTIME_OMIT, 1000000000, -1 };
	struct timespec t = { px_rng(3) ? (time_t)px_rng(1500000000) : (time_t)seconds[px_rng(PX_COUNT(seconds))],
			      px_rng(3)   ? (long)px_rng(1000000000)
			      : px_rng(2) ? 0
					  : 999999999 };

	if (px_without("far-times") &&
	    (t.tv_sec < -0x80000000ll || t.tv_sec > 0x37fffffffll || (t.tv_sec == -0x80000000ll)))
		t.tv_sec = 5;
	if (!px_rng(4))
		t.tv_nsec = odd[px_rng(8) ? px_rng(2) : px_rng(PX_COUNT(odd))];
	printf(t.tv_nsec == UTIME_NOW    ? " NOW"
	       : t.tv_nsec == UTIME_OMIT ? " OMIT"
					 : " %lld.%ld",
	       (long long)t.tv_sec, t.tv_nsec);
	return t;
}

static void op_utimens(void)
{
	struct px_held *held = px_rng(4) ? NULL : px_some_held(PX_ANY);
	struct timespec old[2] = { { 981173106, 123456789 }, { 981173107, 1 } }, times[2];
	char path[PX_PATH];
	struct stat st;
	bool none = !px_rng(10);

	if (!held)
		px_old_path(path, PX_ANY);
	/* What is left out is what it was: so that it was something that is known. */
	if (!px_is_child && (held ? futimens(held->fd, old) : utimensat(AT_FDCWD, path, old, AT_SYMLINK_NOFOLLOW)))
		printf(" first %s", strerrorname_np(errno));
	times[0] = some_time();
	times[1] = some_time();
	printf("%s", none ? " NULL" : "");
	px_result(held ? futimens(held->fd, none ? NULL : times)
		       : utimensat(AT_FDCWD, path, none ? NULL : times, AT_SYMLINK_NOFOLLOW));
	if (px_is_child || (held ? fstat(held->fd, &st) : lstat(path, &st)))
		return;
	px_show_time("atime", st.st_atim);
	px_show_time("mtime", st.st_mtim);
}

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

static const char *const names[] = { "user.a",
				     "user.b",
				     "user.A",
				     "trusted.t",
				     "security.foo",
				     "security.capability",
				     "user.a.very.long.name.of.an.attribute",
				     "user.",
				     "nonsense.x",
				     "user",
				     "system.other",
				     "system.posix_acl_access",
				     "system.posix_acl_default" };
static const char acl_access[] = "system.posix_acl_access", acl_default[] = "system.posix_acl_default";

/* Of 255 bytes, or one more. */
static const char *long_name(size_t len)
{
	static char name[300];

	memset(name, 'l', sizeof(name));
	memcpy(name, "user.", 5);
	name[len] = 0;
	return name;
}

static const char *some_name(void)
{
	unsigned what = (unsigned)px_rng(40);
	const char *name = what == 0   ? long_name(255)
			   : what == 1 ? long_name(256)
				       : names[px_rng(px_rng(3) ? 5 : PX_COUNT(names))];

	px_show(name);
	return name;
}

static size_t some_value(const char *name, uint8_t *value)
{
	static const uint8_t capability[20] = { 1, 0, 0, 2, 0, 0x20 };
	unsigned what = (unsigned)px_rng(40);
	size_t len = what < 30 ? px_rng(40) : what < 38 ? px_rng(700) : what == 38 ? px_rng(3000) : 65537;

	if (!strcmp(name, "security.capability") && px_rng(4)) {
		memcpy(value, capability, sizeof(capability));
		return sizeof(capability);
	}
	px_fill(value, len);
	return len;
}

/* An object of attributes: a path, followed or not, or what is held. */
struct subject {
	struct px_held *held;
	bool follow;
	char path[PX_PATH];
};

static void some_subject(struct subject *s, unsigned kinds)
{
	s->held = px_rng(4) ? NULL : px_some_held(kinds);
	s->follow = px_rng(2);
	if (s->held)
		return;
	px_old_path(s->path, kinds);
	printf("%s", s->follow ? "" : " nofollow");
}

static long set(const struct subject *s, const char *name, const void *value, size_t len, int flags)
{
	if (s->held)
		return fsetxattr(s->held->fd, name, value, len, flags);
	return s->follow ? setxattr(s->path, name, value, len, flags) : lsetxattr(s->path, name, value, len, flags);
}

static long get(const struct subject *s, const char *name, void *value, size_t len)
{
	if (s->held)
		return fgetxattr(s->held->fd, name, value, len);
	return s->follow ? getxattr(s->path, name, value, len) : lgetxattr(s->path, name, value, len);
}

static long list(const struct subject *s, char *buf, size_t len)
{
	if (s->held)
		return flistxattr(s->held->fd, buf, len);
	return s->follow ? listxattr(s->path, buf, len) : llistxattr(s->path, buf, len);
}

static long remove_one(const struct subject *s, const char *name)
{
	if (s->held)
		return fremovexattr(s->held->fd, name);
	return s->follow ? removexattr(s->path, name) : lremovexattr(s->path, name);
}

static void show_subject(const struct subject *s)
{
	if (s->held)
		px_show_fd(s->held->fd);
	else
		px_show_path(s->path);
}

static void show_value(long len)
{
	if (px_result(len))
		printf(" %016llx", (unsigned long long)px_hash(0, px_buf, (size_t)len));
}

static void op_xattr_set(void)
{
	static const int all[] = { 0, 0, 0, XATTR_CREATE, XATTR_REPLACE };
	int flags = all[px_rng(PX_COUNT(all))];
	struct subject s;
	const char *name;
	size_t len;

	some_subject(&s, PX_ANY);
	name = some_name();
	len = some_value(name, px_buf);
	printf(" %zu %d", len, flags);
	px_result(set(&s, name, px_buf, len, flags));
}

static void op_xattr_get(void)
{
	struct subject s;
	const char *name;
	size_t len = px_rng(3) ? PX_BUF / 2 : px_rng(30);

	some_subject(&s, PX_ANY);
	name = some_name();
	printf(" %zu", len);
	memset(px_buf, 0, PX_BUF);
	show_value(len ? get(&s, name, px_buf, len) : get(&s, name, NULL, 0));
}

static void op_xattr_remove(void)
{
	struct subject s;

	some_subject(&s, PX_ANY);
	px_result(remove_one(&s, some_name()));
	show_subject(&s);
}

static void op_xattr_list(void)
{
	struct px_list sorted = { 0 };
	struct subject s;
	size_t room = px_rng(5) ? PX_BUF : px_rng(50);
	long len;

	some_subject(&s, PX_ANY);
	printf(" %zu", room);
	len = list(&s, (char *)px_buf, room);
	if (!px_result(len) || !room)
		return;
	for (long at = 0; at < len; at += (long)strlen((char *)px_buf + at) + 1)
		px_list_add(&sorted, 0, (char *)px_buf + at);
	px_list_sort(&sorted);
	for (size_t i = 0; i < sorted.n; i++)
		px_show(sorted.names[i] + 1);
	px_list_free(&sorted);
}

/* ---- access control lists ---------------------------------------------------------------------------------------- */

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static size_t put_entry(uint8_t *acl, size_t at, unsigned tag, unsigned permissions, unsigned id)
{
	uint16_t head[2] = { (uint16_t)tag, (uint16_t)permissions };

	memcpy(acl + at, head, 4);
	memcpy(acl + at + 4, &id, 4);
	return at + 8;
}

/* Mostly a good one: three entries, or more and a mask. */
static size_t some_acl(uint8_t *acl)
{
	unsigned n_users = (unsigned)px_rng(3), n_groups = (unsigned)px_rng(3), version = px_rng(30) ? 2 : 1;
	size_t len = 4;

	memcpy(acl, &version, 4);
	len = put_entry(acl, len, USER_OBJ, (unsigned)px_rng(8), (unsigned)-1);
	for (unsigned i = 0; i < n_users; i++)
		len = put_entry(acl, len, USER, (unsigned)px_rng(8), 1000 + i);
	len = put_entry(acl, len, GROUP_OBJ, (unsigned)px_rng(8), (unsigned)-1);
	for (unsigned i = 0; i < n_groups; i++)
		len = put_entry(acl, len, GROUP, (unsigned)px_rng(8), 1000 * (i + 1));
	if ((n_users || n_groups) == (px_rng(20) != 0))
		len = put_entry(acl, len, MASK, (unsigned)px_rng(8), (unsigned)-1);
	if (px_rng(30))
		len = put_entry(acl, len, OTHER, (unsigned)px_rng(px_rng(30) ? 8 : 16), (unsigned)-1);
	return px_rng(40) ? len : len - 1;
}

static void op_acl_set(void)
{
	const char *name = px_rng(2) ? acl_access : acl_default;
	struct subject s;
	size_t len;

	some_subject(&s, name == acl_default ? PX_DIR : PX_ANY);
	len = some_acl(px_buf);
	printf(" %s %zu:%016llx", name + 17, len, (unsigned long long)px_hash(0, px_buf, len));
	px_result(set(&s, name, px_buf, len, 0));
	show_subject(&s);
}

static void op_acl_get(void)
{
	const char *name = px_rng(2) ? acl_access : acl_default;
	struct subject s;

	some_subject(&s, PX_ANY);
	printf(" %s", name + 17);
	show_value(get(&s, name, px_buf, PX_BUF));
}

/* What is made in a directory with a default ACL has it, less the umask only where there is none. */
static void op_acl_inherit(void)
{
	char path[PX_PATH], name[] = "inherits", below[PX_PATH + 20];
	mode_t mode = px_some_mode() & 0777;
	bool is_dir = px_rng(2);
	size_t len;
	int fd;

	px_dir_path(path);
	len = some_acl(px_buf);
	px_result(setxattr(path, acl_default, px_buf, len, 0));
	snprintf(below, sizeof(below), "%s/%s", path, name);
	printf(" %s %o", is_dir ? "mkdir" : "open", mode);
	fd = is_dir ? mkdir(below, mode) : open(below, O_CREAT | O_EXCL | O_WRONLY, mode);
	if (!px_result(fd < 0 ? -1 : 0))
		return;
	if (!is_dir)
		close(fd);
	px_show_path(below);
	show_value(getxattr(below, acl_access, px_buf, PX_BUF));
	show_value(getxattr(below, acl_default, px_buf, PX_BUF));
	px_result(is_dir ? rmdir(below) : unlink(below));
	if (px_rng(2))
		px_result(removexattr(path, acl_default));
}

/* ---- flags ------------------------------------------------------------------------------------------------------- */

/* Layout is no business of the comparison. */
#define COMPARED                                                                                                       \
	(FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | FS_DIRSYNC_FL | FS_ENCRYPT_FL)

static void op_flags(void)
{
	static const int all[] = { FS_NODUMP_FL, FS_NOATIME_FL, FS_SYNC_FL, FS_DIRSYNC_FL,
				   FS_NODUMP_FL | FS_NOATIME_FL };
	int wanted = all[px_rng(PX_COUNT(all))], flags = 0, fd;
	bool sets = px_rng(2);
	char path[PX_PATH];
	struct stat st;

	px_old_path(path, PX_REG | PX_DIR);
	if (stat(path, &st) || !(px_kind(st.st_mode) & (PX_REG | PX_DIR)))
		return;
	fd = open(path, O_RDONLY | O_NONBLOCK);
	if (!px_result(fd < 0 ? -1 : 0))
		return;
	if (px_result(ioctl(fd, FS_IOC_GETFLAGS, &flags)))
		printf(" 0x%x", flags & COMPARED);
	if (sets) {
		flags ^= wanted;
		printf(" set 0x%x", wanted);
		px_result(ioctl(fd, FS_IOC_SETFLAGS, &flags));
		px_result(ioctl(fd, FS_IOC_GETFLAGS, &flags));
		printf(" 0x%x", flags & COMPARED);
	}
	close(fd);
}

const struct px_op px_meta_ops[] = {
	{ 30, "chmod", op_chmod },
	{ 22, "chown", op_chown },
	{ 5, "umask", op_umask },
	{ 14, "access", op_access },
	{ 10, "readlink", op_readlink },
	{ 20, "stat", op_stat },
	{ 20, "utimens", op_utimens },
	{ 26, "xattr_set", op_xattr_set },
	{ 14, "xattr_get", op_xattr_get },
	{ 10, "xattr_remove", op_xattr_remove },
	{ 10, "xattr_list", op_xattr_list },
	{ 16, "acl_set", op_acl_set },
	{ 6, "acl_get", op_acl_get },
	{ 6, "acl_inherit", op_acl_inherit },
	{ 6, "flags", op_flags },
	{ 0 },
};
