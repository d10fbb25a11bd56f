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

mode_t inl_meta_mode(const struct inl_get *get, const struct inl_stat *st)
{
	mode_t mode = st->mode & 07777;

	if (!get->root && (st->uid != get->euid || st->gid != get->egid))
		mode &= ~(mode_t)(S_ISUID | (S_ISDIR(st->mode) ? 0 : S_ISGID));
	return mode;
}

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

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

/* Where attributes go: an open file or, for what cannot be opened, a path. */
struct sink {
	struct inl_get *get;
	int fd;
	const char *path;
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

static int each_xattr(const char *name, const void *value, size_t len, void *arg)
{
	struct sink *sink = arg;
	int err;

	sink->has_acl |= !strcmp(name, ACL_ACCESS);
	sink->has_default_acl |= !strcmp(name, ACL_DEFAULT);
	err = sink->path ? lsetxattr(sink->path, name, value, len, 0) : fsetxattr(sink->fd, name, value, len, 0);
	if (err)
		count_refused(sink->get, name, -errno);
	return 0;
}

static void report_damage(struct inl_get *get, int err)
{
	char *where = inl_get_where(get, INL_SOURCE), *why;

	if (asprintf(&why, "extended attributes: %s", get->diag.text[0] ? get->diag.text : inl_cli_why(err)) < 0)
		why = NULL;
	inl_report_add(get, where, why ? why : "extended attributes: damaged");
	get->report.n_partial++;
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
		sink->damaged = true;
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

/* A destination that knows no owners or modes (FAT) refuses them with -EPERM: nothing to be done about it. */
static int may_refuse(struct inl_get *get, int failed)
{
	return failed && errno != EPERM && errno != EOPNOTSUPP && errno != EINVAL
		       ? inl_get_failed(get, INL_DESTINATION, -errno)
		       : 0;
}

int inl_meta_file(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd, mode_t now,
		  bool with_times)
{
	struct sink sink = { .get = get, .fd = fd };
	mode_t mode = inl_meta_mode(get, st);
	bool inherited = !get->n_frames || get->frames[get->n_frames - 1].has_default_acl;
	bool chown = inl_meta_needs_chown(get, st);
	int err = 0;

	if (chown)
		err = may_refuse(get, fchown(fd, st->uid, st->gid));
	if (!err)
		err = put_xattrs(&sink, inode);
	if (!err && inherited && !sink.has_acl)
		fremovexattr(fd, ACL_ACCESS);
	if (!err && (mode != now || inherited || (chown && (mode & 06000))))
		err = may_refuse(get, fchmod(fd, mode));
	if (!err && with_times && !sink.damaged)
		err = set_times(get, st, fd);
	return err;
}

int inl_meta_dir(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd,
		 const struct inl_frame *frame)
{
	struct sink sink = { .get = get, .fd = fd };
	int err = 0;

	if (get->root && (st->uid != frame->uid || st->gid != frame->gid))
		err = may_refuse(get, fchown(fd, st->uid, st->gid));
	if (!err)
		err = put_xattrs(&sink, inode);
	if (!err && frame->has_default_acl) {
		if (!sink.has_acl)
			fremovexattr(fd, ACL_ACCESS);
		if (!sink.has_default_acl)
			fremovexattr(fd, ACL_DEFAULT);
	}
	if (!err)
		err = may_refuse(get, fchmod(fd, inl_meta_mode(get, st)));
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
	int err = 0;

	/* There is no fsetxattr for what is not opened; the last part of the path is not followed. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", get->dir_fd, name);
	if (inl_meta_needs_chown(get, st))
		err = may_refuse(get, fchownat(get->dir_fd, name, st->uid, st->gid, AT_SYMLINK_NOFOLLOW));
	if (!err)
		err = put_xattrs(&sink, inode);
	if (!err && !S_ISLNK(st->mode))
		err = may_refuse(get, fchmodat(get->dir_fd, name, inl_meta_mode(get, st), AT_SYMLINK_NOFOLLOW));
	if (!err && utimensat(get->dir_fd, name, times, AT_SYMLINK_NOFOLLOW))
		err = inl_get_failed(get, INL_DESTINATION, -errno);
	return err;
}
