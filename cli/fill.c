/*
 * cli/fill.c: puts one entry of the host into the volume: made, replaced in one step, or left alone if it is there.
 * Not here: directories and their order (cli/source.c); contents (cli/pour.c).
 * Read more: doc/inlay.1, "IMPORT".
 *
 * A file gets its time of modification when it is complete: that is how the next run knows.
 */
#include "cli/plan.h"
#include "cli/put.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* A name that is about to be given to something new. */
struct place {
	struct inl_inode *dir;
	const char *name; /* what it is called in the end */
	size_t len;
	const char *at; /* what it is called now: name, or INL_PUT_TEMP */
	size_t at_len;
};

static int dest_failed(struct inl_put *put, int err)
{
	return err ? inl_put_failed(put, INL_DESTINATION, err) : 0;
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static struct inl_time time_of(const struct timespec *time)
{
	return (struct inl_time){ time->tv_sec, (uint32_t)time->tv_nsec };
}

void inl_put_attr(const struct inl_put *put, const struct stat *st, struct inl_attr *attr)
{
	*attr = (struct inl_attr){
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.atime = time_of(&st->st_atim),
		.mtime = time_of(&st->st_mtim),
	};
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		attr->rdev_major = major(st->st_rdev);
		attr->rdev_minor = minor(st->st_rdev);
	}
	if (put->plan)
		inl_plan_attr(put->plan, attr);
}

static void count_refused(struct inl_put *put, const char *name, int err)
{
	char *where;

	if (put->report.n_xattrs++)
		return;
	where = inl_put_where(put, INL_DESTINATION);
	if (asprintf(&put->report.first_xattr, "%s of %s: %s", name, where, inl_cli_why(err)) < 0)
		put->report.first_xattr = NULL;
	free(where);
}

static void report_unread(struct inl_put *put, const char *name, int err)
{
	char *where = inl_put_where(put, INL_SOURCE), *why;

	if (asprintf(&why, "%s%sextended attribute%s: %s", name ? name : "", name ? ": " : "", name ? "" : "s",
		     inl_cli_why(err)) < 0)
		why = NULL;
	inl_report_add(&put->report, where, why ? why : "extended attributes cannot be read");
	free(why);
	free(where);
}

static int put_xattr(struct inl_put *put, int fd, const char *path, const char *name, struct inl_inode *inode)
{
	ssize_t len = path ? lgetxattr(path, name, put->value, INL_PUT_XATTR_LEN)
			   : fgetxattr(fd, name, put->value, INL_PUT_XATTR_LEN);
	int err;

	if (len < 0 && errno == ENODATA)
		return 0;
	if (len < 0) {
		report_unread(put, name, -errno);
		return 0;
	}
	err = inl_xattr_set(inode, name, put->value, (size_t)len, 0, NULL);
	if (err == -EROFS || err == -EIO || err == -EUCLEAN || err == -ENOMEM)
		return dest_failed(put, err);
	if (err)
		count_refused(put, name, err);
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strcmp(*x, *y);
}

/* The host has them in the order in which they were set, and so would the volume. */
static void sort_names(char *names, size_t len)
{
	char *copy = inl_cli_alloc(len), *to = names;
	const char **all = NULL;
	size_t n = 0, room = 0;

	memcpy(copy, names, len);
	for (const char *name = copy; name < copy + len; name += strlen(name) + 1) {
		all = inl_cli_grow(all, n, n + 1, &room, sizeof(*all));
		all[n++] = name;
	}
	qsort(all, n, sizeof(*all), by_bytes);
	for (size_t i = 0; i < n; i++)
		to = stpcpy(to, all[i]) + 1;
	free(all);
	free(copy);
}

int inl_put_xattrs(struct inl_put *put, int fd, const char *path, struct inl_inode *inode)
{
	ssize_t len = path ? llistxattr(path, put->names, INL_PUT_XATTR_LEN)
			   : flistxattr(fd, put->names, INL_PUT_XATTR_LEN);
	int err = 0;

	if (len < 0 && errno != EOPNOTSUPP)
		report_unread(put, NULL, -errno);
	if (len > 0 && put->plan)
		sort_names(put->names, (size_t)len);
	for (const char *name = put->names; !err && len > 0 && name < put->names + len; name += strlen(name) + 1) {
		if (strcmp(name, INL_PUT_MARK))
			err = put_xattr(put, fd, path, name, inode);
	}
	return err;
}

/* ---- is it there already? ---------------------------------------------------------------------------------------- */

static bool same_time(const struct inl_put *put, const struct timespec *a, const struct inl_time *b)
{
	return a->tv_sec == b->sec && ((uint32_t)a->tv_nsec == b->nsec || (put->seconds_only && !b->nsec));
}

/* target: of a symbolic link; else NULL. */
static bool same_target(struct inl_inode *old, const char *target)
{
	char *there = inl_cli_alloc(INL_SYMLINK_MAX);
	size_t len = 0;
	bool same = !inl_readlink(old, there, INL_SYMLINK_MAX, &len, NULL) && len == strlen(target) &&
		    !memcmp(there, target, len);

	free(there);
	return same;
}

static bool is_same(const struct inl_put *put, const struct stat *st, const char *target, struct inl_inode *old,
		    const struct inl_stat *there)
{
	if ((st->st_mode & S_IFMT) != (there->mode & S_IFMT) || !same_time(put, &st->st_mtim, &there->mtime))
		return false;
	if (S_ISREG(st->st_mode))
		return (uint64_t)st->st_size == there->size;
	if (S_ISLNK(st->st_mode))
		return same_target(old, target);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		return major(st->st_rdev) == there->rdev_major && minor(st->st_rdev) == there->rdev_minor;
	return true;
}

/* Something has the name. Returns 1: it is what we are about to make, *ino; 0: it may be replaced; -errno. */
static int look_at_existing(struct inl_put *put, const struct stat *st, const char *target, const struct place *place,
			    uint64_t *ino)
{
	struct inl_inode *old = NULL;
	struct inl_stat there = { 0 };
	int err, same = 0;

	put->diag = (struct inl_diag){ 0 };
	err = inl_lookup(place->dir, place->name, place->len, ino, &put->diag);
	if (!err)
		err = inl_inode_get(put->cli->vol, *ino, &put->diag, &old);
	if (!err)
		err = inl_inode_stat(old, &there, &put->diag);
	if (!err && S_ISDIR(there.mode))
		err = inl_diag_set(&put->diag, -EISDIR, "a directory is in the way");
	if (!err)
		same = is_same(put, st, target, old, &there);
	inl_inode_put(old);
	return err ? dest_failed(put, err) : same;
}

/* The place of something that will replace what is there, free. */
static int use_temp(struct inl_put *put, struct place *place)
{
	int err;

	place->at = INL_PUT_TEMP;
	place->at_len = strlen(INL_PUT_TEMP);
	put->diag = (struct inl_diag){ 0 };
	err = inl_unlink(place->dir, place->at, place->at_len, &put->diag);
	if (err == -ENOENT)
		err = 0;
	if (!err)
		put->diag = (struct inl_diag){ 0 };
	return dest_failed(put, err);
}

/* Give what was made its final name, or remove it. */
static int settle(struct inl_put *put, const struct place *place, int err)
{
	if (!err && place->at != place->name)
		err = dest_failed(put, inl_rename(place->dir, place->at, place->at_len, place->dir, place->name,
						  place->len, 0, &put->diag));
	if (err)
		inl_unlink(place->dir, place->at, place->at_len, NULL);
	return err;
}

/* ---- regular files ----------------------------------------------------------------------------------------------- */

static int fill(struct inl_put *put, int fd, const struct stat *st, const struct inl_attr *attr,
		struct inl_inode *inode)
{
	int err = inl_put_contents(put, fd, st, inode, attr->nonce != NULL);

	if (!err)
		err = inl_put_xattrs(put, fd, NULL, inode);
	if (!err && st->st_size)
		err = dest_failed(put, inl_setattr(inode, attr, INL_ATTR_ATIME | INL_ATTR_MTIME, &put->diag));
	return err;
}

/* Returns 1: was there already; 0; -errno. */
static int place_file(struct inl_put *put, int fd, const struct stat *st, struct place *place, uint64_t *ino)
{
	unsigned which = st->st_size ? 0 : INL_ATTR_ATIME | INL_ATTR_MTIME;
	struct inl_inode *inode = NULL;
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	struct inl_stat made = { 0 };
	struct inl_attr attr;
	int err;

	inl_put_attr(put, st, &attr);
	err = inl_plan_nonce(put, fd, st, NULL, nonce, &attr);
	if (err)
		return err;
	err = inl_create(place->dir, place->at, place->at_len, &attr, which, &put->diag, &inode);
	if (err == -EEXIST) {
		err = look_at_existing(put, st, NULL, place, ino);
		if (!err)
			err = use_temp(put, place);
		if (err)
			return err;
		err = inl_create(place->dir, place->at, place->at_len, &attr, which, &put->diag, &inode);
	}
	if (err)
		return dest_failed(put, err);
	err = fill(put, fd, st, &attr, inode);
	if (!err && st->st_nlink > 1)
		err = dest_failed(put, inl_inode_stat(inode, &made, &put->diag));
	*ino = made.ino;
	inl_inode_put(inode);
	return settle(put, place, err);
}

/* ---- everything else --------------------------------------------------------------------------------------------- */

static int make_special(struct inl_put *put, const struct stat *st, const char *target, const struct place *place,
			struct inl_inode **inode)
{
	const unsigned which = INL_ATTR_ATIME | INL_ATTR_MTIME;
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	struct inl_attr attr;
	int err;

	inl_put_attr(put, st, &attr);
	err = inl_plan_nonce(put, -1, st, target, nonce, &attr);
	if (err)
		return err;
	if (target)
		return inl_symlink(place->dir, place->at, place->at_len, target, strlen(target), &attr, which,
				   &put->diag, inode);
	return inl_create(place->dir, place->at, place->at_len, &attr, which, &put->diag, inode);
}

/* There is no flistxattr for what is not opened; the last part of the path is not followed. */
static int special_xattrs(struct inl_put *put, const struct inl_put_item *item, struct inl_inode *inode)
{
	char path[INL_NAME_MAX + 64];

	if (item->fd == AT_FDCWD)
		return inl_put_xattrs(put, -1, item->name, inode);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", item->fd, item->name);
	return inl_put_xattrs(put, -1, path, inode);
}

/* Returns 1: was there already; 0; -errno. */
static int place_special(struct inl_put *put, const struct inl_put_item *item, const struct stat *st,
			 const char *target, struct place *place, uint64_t *ino)
{
	struct inl_inode *inode = NULL;
	struct inl_stat made = { 0 };
	int err = make_special(put, st, target, place, &inode);

	if (err == -EEXIST) {
		err = look_at_existing(put, st, target, place, ino);
		if (!err)
			err = use_temp(put, place);
		if (err)
			return err;
		err = make_special(put, st, target, place, &inode);
	}
	if (err)
		return dest_failed(put, err);
	err = special_xattrs(put, item, inode);
	if (!err)
		err = dest_failed(put, inl_inode_stat(inode, &made, &put->diag));
	*ino = made.ino;
	inl_inode_put(inode);
	return settle(put, place, err);
}

/* The target ends up in put->buf. */
static int place_symlink(struct inl_put *put, const struct inl_put_item *item, const struct stat *st,
			 struct place *place, uint64_t *ino)
{
	char *target = (char *)put->buf;
	ssize_t len = readlinkat(item->fd, item->name, target, INL_SYMLINK_MAX);

	if (len < 0)
		return inl_put_failed(put, INL_SOURCE, -errno);
	if (len == INL_SYMLINK_MAX)
		return inl_put_failed(put, INL_SOURCE, -ENAMETOOLONG);
	target[len] = '\0';
	return place_special(put, item, st, target, place, ino);
}

/* ---- hard links -------------------------------------------------------------------------------------------------- */

/* Returns 1: it is that link already; 0; -EMLINK, -EXDEV: no link can be made; -errno. */
static int link_over(struct inl_put *put, struct inl_inode *inode, uint64_t ino, struct place *place)
{
	struct stat none = { 0 };
	uint64_t there;
	int same = look_at_existing(put, &none, NULL, place, &there);

	if (same < 0)
		return same;
	if (there == ino)
		return 1;
	same = use_temp(put, place);
	if (same)
		return same;
	same = inl_link(inode, place->dir, place->at, place->at_len, &put->diag);
	return same ? dest_failed(put, same) : settle(put, place, 0);
}

/*
 * A plain directory could have a link to an encrypted file, as on Linux: but what is put there is to be plain, like all
 * that is there.
 */
static bool encrypted_alike(struct inl_inode *a, struct inl_inode *b)
{
	struct inl_inode_crypt x, y;

	inl_inode_crypt(a, &x);
	inl_inode_crypt(b, &y);
	return x.encrypted == y.encrypted && (!x.encrypted || inl_policy_equal(&x.policy, &y.policy));
}

static int place_link(struct inl_put *put, uint64_t ino, struct place *place)
{
	struct inl_inode *inode = NULL;
	int err;

	put->diag = (struct inl_diag){ 0 };
	err = inl_inode_get(put->cli->vol, ino, &put->diag, &inode);
	if (err)
		return dest_failed(put, err);
	if (!encrypted_alike(inode, place->dir)) {
		inl_inode_put(inode);
		return -EXDEV;
	}
	err = inl_link(inode, place->dir, place->name, place->len, &put->diag);
	if (err == -EEXIST)
		err = link_over(put, inode, ino, place);
	else
		err = dest_failed(put, err);
	inl_inode_put(inode);
	return err;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void placed(struct inl_put *put, bool was_there)
{
	char *where;

	put->report.n_same += was_there;
	put->report.n_files += !was_there;
	if (was_there || !put->cli->given[INL_OPT_VERBOSE])
		return;
	inl_report_erase(&put->report);
	where = inl_put_where(put, INL_DESTINATION);
	inl_text_name(where, strlen(where));
	putchar('\n');
	free(where);
}

/* Returns 1: was there already; 0; -errno. fd: open if it is a regular file. */
static int place_new(struct inl_put *put, const struct inl_put_item *item, int fd, const struct stat *st,
		     struct place *place)
{
	bool links = st->st_nlink > 1;
	uint64_t ino = links ? inl_twins_find(&put->links, st->st_dev, st->st_ino) : 0;
	int done;

	if (ino) {
		done = place_link(put, ino, place);
		if (done != -EMLINK && done != -EXDEV)
			return done;
		put->report.n_unlinked++;
		put->diag = (struct inl_diag){ 0 };
	}
	if (S_ISREG(st->st_mode))
		done = place_file(put, fd, st, place, &ino);
	else if (S_ISLNK(st->st_mode))
		done = place_symlink(put, item, st, place, &ino);
	else
		done = place_special(put, item, st, NULL, place, &ino);
	if (done >= 0 && links && !inl_twins_add(&put->links, st->st_dev, st->st_ino, ino))
		put->report.n_unlinked++;
	return done;
}

static int look_without_opening(struct inl_put *put, const struct inl_put_item *item, struct stat *st)
{
	if (fstatat(item->fd, item->name, st, AT_SYMLINK_NOFOLLOW))
		return inl_put_failed(put, INL_SOURCE, -errno);
	return 0;
}

/* Open what is a regular file, look at everything else. */
static int look(struct inl_put *put, const struct inl_put_item *item, struct stat *st, int *fd)
{
	int err = item->type == DT_REG ? 0 : look_without_opening(put, item, st);

	if (err || (item->type != DT_REG && !S_ISREG(st->st_mode)))
		return err;
	*fd = openat(item->fd, item->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, st))
		return inl_put_failed(put, INL_SOURCE, -errno);
	if (!S_ISREG(st->st_mode))
		return inl_put_changed(put);
	if (inl_images_has(&put->images, st))
		return inl_put_failed(put, INL_REFUSED,
				      inl_diag_set(&put->diag, -EBUSY, "is the image that is being written"));
	return 0;
}

int inl_put_place(struct inl_put *put, const struct inl_put_item *item, struct inl_inode *dir, const char *name,
		  size_t len)
{
	struct place place = { dir, name, len, name, len };
	struct stat st;
	int fd = -1, err = look(put, item, &st, &fd);

	if (!err)
		err = place_new(put, item, fd, &st, &place);
	if (fd >= 0)
		close(fd);
	if (err >= 0)
		placed(put, err);
	return err < 0 ? inl_put_trouble(put, err) : 0;
}

int inl_put_dir(struct inl_put *put, struct inl_inode *dir, const char *name, size_t len, const struct stat *st,
		struct inl_inode **out)
{
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	struct inl_stat there = { 0 };
	struct inl_attr attr;
	uint64_t ino;
	int err;

	inl_put_attr(put, st, &attr);
	put->diag = (struct inl_diag){ 0 };
	err = inl_plan_nonce(put, -1, st, NULL, nonce, &attr);
	if (err)
		return err;
	err = inl_create(dir, name, len, &attr, 0, &put->diag, out);
	if (err != -EEXIST)
		return dest_failed(put, err);
	put->diag = (struct inl_diag){ 0 };
	err = inl_lookup(dir, name, len, &ino, &put->diag);
	if (!err)
		err = inl_inode_get(put->cli->vol, ino, &put->diag, out);
	if (err)
		return dest_failed(put, err);
	err = inl_inode_stat(*out, &there, &put->diag);
	if (!err && !S_ISDIR(there.mode))
		err = inl_diag_set(&put->diag, -ENOTDIR, "something that is no directory is in the way");
	if (err)
		inl_inode_put(*out);
	return dest_failed(put, err);
}
