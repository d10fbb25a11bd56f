/*
 * cli/meta.c: owners, permissions, extended attributes and times of what was exported.
 * Not here: contents (cli/copy.c).
 * Read more: doc/inlay.1, "EXPORT".
 *
 * The order matters: changing the owner clears capabilities and set-ID bits, attributes need write permission, an ACL
 * changes the group's bits, and everything changes the times.
 */
#include "cli/get.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPABILITY  "security.capability"

bool inl_meta_needs_chown(const struct inl_get *get, const struct inl_stat *st)
{
	const struct inl_frame *frame = get->n_frames ? &get->frames[get->n_frames - 1] : NULL;

	if (!get->root)
		return false;
	return !frame || frame->gid != get->egid || st->uid != get->euid || st->gid != get->egid;
}

bool inl_meta_default_acl(int fd)
{
	return fgetxattr(fd, ACL_DEFAULT, NULL, 0) > 0;
}

/* ---- owners ------------------------------------------------------------------------------------------------------ */

/* A destination that knows no owners or modes (FAT) refuses them with -EPERM: nothing to be done about it. */
static int may_refuse(struct inl_get *get, int failed)
{
	return failed && errno != EPERM && errno != EOPNOTSUPP && errno != EINVAL
		       ? inl_get_failed(get, INL_DESTINATION, -errno)
		       : 0;
}

static bool is_owned(const struct inl_stat *st, const struct stat *now)
{
	return st->uid == now->st_uid && st->gid == now->st_gid;
}

static int look(struct inl_get *get, int at, const char *name)
{
	int failed = name ? fstatat(at, name, &get->there, AT_SYMLINK_NOFOLLOW) : fstat(at, &get->there);

	return failed ? inl_get_failed(get, INL_DESTINATION, -errno) : 0;
}

/*
 * Set the owner, as far as that goes; get->there is how the file is then.
 *
 *   at, name   as of fchownat(2); name NULL: the open file at itself
 */
static int put_owner(struct inl_get *get, const struct inl_stat *st, int at, const char *name)
{
	int err = look(get, at, name);

	if (err || !get->root || is_owned(st, &get->there))
		return err;
	err = may_refuse(get, name ? fchownat(at, name, st->uid, st->gid, AT_SYMLINK_NOFOLLOW)
				   : fchown(at, st->uid, st->gid));
	return err ? err : look(get, at, name);
}

/* The mode as it can be kept: a set-ID bit gives away rights of whoever is the owner now, not of who was. */
static mode_t kept_mode(const struct inl_stat *st, const struct stat *now)
{
	mode_t mode = st->mode & 07777;

	if (st->uid != now->st_uid)
		mode &= ~(mode_t)S_ISUID;
	if (st->gid != now->st_gid)
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

/* Where attributes go: an open file or, for what cannot be opened, a path. */
struct sink {
	struct inl_get *get;
	int fd;
	const char *path;
	bool owned; /* has the owner it had: what gives rights may be set */
	void *acl;  /* kept for last: it may take the right to set the others */
	size_t acl_len;
	bool has_acl, has_default_acl;
	bool damaged; /* not all of the attributes could be read: only with --keep-going */
};

static void count_refused(struct inl_get *get, const char *name, int err)
{
	char *where;

	if (get->report.n_xattrs++)
		return;
	where = inl_get_where(get, INL_DESTINATION);
	if (asprintf(&get->report.first_xattr, "%s of %s: %s", name, where, inl_cli_why(err)) < 0)
		get->report.first_xattr = NULL;
	free(where);
}

static bool put_xattr(struct sink *sink, const char *name, const void *value, size_t len)
{
	int err = sink->path ? lsetxattr(sink->path, name, value, len, 0) : fsetxattr(sink->fd, name, value, len, 0);

	if (err)
		count_refused(sink->get, name, -errno);
	return !err;
}

static int each_xattr(const char *name, const void *value, size_t len, void *arg)
{
	struct sink *sink = arg;

	if (!strcmp(name, ACL_ACCESS)) {
		free(sink->acl);
		sink->acl = inl_cli_alloc(len);
		sink->acl_len = len;
		if (len)
			memcpy(sink->acl, value, len);
	} else if (!strcmp(name, CAPABILITY) && !sink->owned) {
		count_refused(sink->get, name, -EPERM);
	} else if (put_xattr(sink, name, value, len)) {
		sink->has_default_acl |= !strcmp(name, ACL_DEFAULT);
	}
	return 0;
}

/* The last of the attributes; where there is none, an inherited one goes. */
static void put_acl(struct sink *sink, bool inherited)
{
	if (sink->acl)
		sink->has_acl = put_xattr(sink, ACL_ACCESS, sink->acl, sink->acl_len);
	free(sink->acl);
	sink->acl = NULL;
	if (!inherited || sink->has_acl)
		return;
	if (sink->path)
		lremovexattr(sink->path, ACL_ACCESS);
	else
		fremovexattr(sink->fd, ACL_ACCESS);
}

static void report_damage(struct inl_get *get, int err)
{
	char *where = inl_get_where(get, INL_SOURCE), *why;

	if (asprintf(&why, "extended attributes: %s", get->diag.text[0] ? get->diag.text : inl_cli_why(err)) < 0)
		why = NULL;
	inl_report_add(&get->report, where, why ? why : "extended attributes: damaged");
	free(why);
	free(where);
}

static int put_xattrs(struct sink *sink, struct inl_inode *inode)
{
	struct inl_get *get = sink->get;
	int err;

	get->diag = (struct inl_diag){ 0 };
	err = inl_xattrs(inode, each_xattr, sink, &get->diag);
	if ((err == -EIO || err == -EUCLEAN) && get->keep_going) {
		report_damage(get, err);
		sink->damaged = get->incomplete = true;
		return 0;
	}
	return err ? inl_get_failed(get, INL_SOURCE, err) : 0;
}

/* ---- open files -------------------------------------------------------------------------------------------------- */

static int set_times(struct inl_get *get, const struct inl_stat *st, int fd)
{
	struct timespec times[] = {
		{ st->atime.sec, st->atime.nsec },
		{ st->mtime.sec, st->mtime.nsec },
	};

	return futimens(fd, times) ? inl_get_failed(get, INL_DESTINATION, -errno) : 0;
}

static bool inherits(const struct inl_get *get)
{
	return !get->n_frames || get->frames[get->n_frames - 1].has_default_acl;
}

int inl_meta_file(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd, bool with_times)
{
	struct sink sink = { .get = get, .fd = fd };
	bool inherited = inherits(get);
	const struct stat *now = &get->there;
	int err = put_owner(get, st, fd, NULL);

	if (err)
		return err;
	sink.owned = is_owned(st, now);
	err = put_xattrs(&sink, inode);
	put_acl(&sink, inherited);
	if (!err && (kept_mode(st, now) != (now->st_mode & 07777) || inherited || sink.has_acl))
		err = may_refuse(get, fchmod(fd, kept_mode(st, now)));
	if (!err && with_times && !sink.damaged)
		err = set_times(get, st, fd);
	return err;
}

int inl_meta_dir(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd,
		 const struct inl_frame *frame)
{
	struct sink sink = { .get = get, .fd = fd };
	const struct stat *now = &get->there;
	int err = put_owner(get, st, fd, NULL);

	if (err)
		return err;
	sink.owned = is_owned(st, now);
	err = put_xattrs(&sink, inode);
	if (!err && get->n_frames == 1)
		inl_get_unmark(get); /* while that is allowed, and before the times */
	put_acl(&sink, frame->has_default_acl);
	if (!err && frame->has_default_acl && !sink.has_default_acl)
		fremovexattr(fd, ACL_DEFAULT);
	if (!err)
		err = may_refuse(get, fchmod(fd, kept_mode(st, now)));
	get->report.n_partial += sink.damaged;
	return err ? err : set_times(get, st, fd);
}

/* ---- names: what is not opened ----------------------------------------------------------------------------------- */

int inl_meta_name(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name)
{
	struct timespec times[] = {
		{ st->atime.sec, st->atime.nsec },
		{ st->mtime.sec, st->mtime.nsec },
	};
	char path[INL_NAME_MAX + 64];
	struct sink sink = { .get = get, .fd = -1, .path = path };
	const struct stat *now = &get->there;
	int err = put_owner(get, st, get->dir_fd, name);

	if (err)
		return err;
	/* There is no fsetxattr for what is not opened; the last part of the path is not followed. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", get->dir_fd, name);
	sink.owned = is_owned(st, now);
	err = put_xattrs(&sink, inode);
	put_acl(&sink, inherits(get) && !S_ISLNK(st->mode));
	if (!err && !S_ISLNK(st->mode))
		err = may_refuse(get, fchmodat(get->dir_fd, name, kept_mode(st, now), AT_SYMLINK_NOFOLLOW));
	if (!err && !sink.damaged && utimensat(get->dir_fd, name, times, AT_SYMLINK_NOFOLLOW))
		err = inl_get_failed(get, INL_DESTINATION, -errno);
	return err;
}
