/*
 * cli/place.c: puts one exported entry in its place: made, replaced in one step, or left alone if it is there.
 * Not here: directories (cli/walk.c); contents (cli/copy.c); owners, modes, times (cli/meta.c).
 * Read more: doc/inlay.1, "EXPORT".
 */
#include "cli/get.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void inl_get_temp_name(char name[INL_TEMP_NAME_SIZE])
{
	uint8_t random[8] = { 0 };
	char hex[17];

	while (getrandom(random, sizeof(random), 0) < 0 && errno == EINTR)
		;
	snprintf(name, INL_TEMP_NAME_SIZE, ".inlay-%s", inl_text_hex(random, sizeof(random), hex));
}

/* ---- is it there already? ---------------------------------------------------------------------------------------- */

/* What a time becomes that the destination keeps: how many nanoseconds go into one step. */
static int probe_granularity(int dir_fd)
{
	static const struct timespec times[2] = { { 1000000001, 123456789 }, { 1000000001, 123456789 } };
	char name[INL_TEMP_NAME_SIZE];
	struct stat st;
	int fd, step = 1;

	inl_get_temp_name(name);
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return 1;
	if (!futimens(fd, times) && !fstat(fd, &st)) {
		if (st.st_mtim.tv_sec == times[1].tv_sec - 1)
			step = 2000000000;
		while (step < 1000000000 && 123456789 / (step * 10) * (step * 10) >= st.st_mtim.tv_nsec)
			step *= 10;
	}
	close(fd);
	unlinkat(dir_fd, name, 0);
	return step;
}

static bool same_time(struct inl_get *get, const struct inl_time *a, const struct timespec *b)
{
	if (a->sec == b->tv_sec && a->nsec == (uint32_t)b->tv_nsec)
		return true;
	if (a->sec != b->tv_sec && a->sec - 1 != b->tv_sec)
		return false;
	if (!get->granularity)
		get->granularity = probe_granularity(get->dir_fd);
	if (get->granularity > 1000000000)
		return (a->sec & ~INT64_C(1)) == b->tv_sec && !b->tv_nsec;
	return a->sec == b->tv_sec && a->nsec - a->nsec % (uint32_t)get->granularity == (uint32_t)b->tv_nsec;
}

static int read_target(struct inl_get *get, struct inl_inode *inode)
{
	size_t len = 0;
	int err;

	get->diag = (struct inl_diag){ 0 };
	err = inl_readlink(inode, (char *)get->buf, INL_SYMLINK_MAX, &len, &get->diag);
	if (!err && len >= INL_SYMLINK_MAX)
		err = -ENAMETOOLONG;
	if (err)
		return inl_get_failed(get, INL_SOURCE, err);
	get->buf[len] = '\0';
	if (!len || strlen((char *)get->buf) != len)
		return inl_get_failed(get, INL_SOURCE, inl_diag_set(&get->diag, -EUCLEAN, "its target is damaged"));
	return 0;
}

/* The target is in get->buf. */
static bool same_target(struct inl_get *get, const char *name)
{
	char *old = (char *)get->buf + INL_SYMLINK_MAX + 1;
	ssize_t len = readlinkat(get->dir_fd, name, old, INL_SYMLINK_MAX);

	return len >= 0 && (size_t)len == strlen((char *)get->buf) && !memcmp(old, get->buf, (size_t)len);
}

static bool is_device(mode_t mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode);
}

static bool is_same(struct inl_get *get, const struct inl_stat *st, const char *name, const struct stat *old)
{
	if ((st->mode & S_IFMT) != (old->st_mode & S_IFMT) || !same_time(get, &st->mtime, &old->st_mtim))
		return false;
	if (S_ISREG(st->mode))
		return st->size == (uint64_t)old->st_size;
	if (S_ISLNK(st->mode))
		return same_target(get, name);
	if (is_device(st->mode))
		return makedev(st->rdev_major, st->rdev_minor) == old->st_rdev;
	return true;
}

/* Something has this name. Returns 1: it is what we are about to make; 0: it may be replaced; -errno. */
static int look_at_existing(struct inl_get *get, const struct inl_stat *st, const char *name)
{
	int err;

	get->diag = (struct inl_diag){ 0 };
	if (fstatat(get->dir_fd, name, &get->there, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : inl_get_failed(get, INL_DESTINATION, -errno);
	if (S_ISDIR(get->there.st_mode))
		return inl_get_failed(get, INL_DESTINATION,
				      inl_diag_set(&get->diag, -EISDIR, "a directory is in the way"));
	if (inl_images_has(&get->images, &get->there))
		return inl_get_failed(get, INL_DESTINATION,
				      inl_diag_set(&get->diag, -EBUSY, "is the image that is being read"));
	/* Somebody's /dev/null is no old version of a file. */
	if (!S_ISREG(get->there.st_mode) && !S_ISLNK(get->there.st_mode) && (get->there.st_mode & S_IFMT) != (st->mode & S_IFMT))
		return inl_get_failed(get, INL_DESTINATION,
				      inl_diag_set(&get->diag, -EEXIST, "a %s is in the way",
						   inl_text_type(get->there.st_mode)));
	err = inl_mine_check(get, name, &get->there);
	return err ? err : is_same(get, st, name, &get->there);
}

/* ---- regular files ----------------------------------------------------------------------------------------------- */

/* Permissions to make a file with: nobody else sees it before it has its owner. */
static mode_t first_mode(const struct inl_get *get, const struct inl_stat *st)
{
	return (st->mode & (inl_meta_needs_chown(get, st) ? 0700 : 0777)) | S_IWUSR;
}

static int create(struct inl_get *get, const struct inl_stat *st, const char *name)
{
	int fd = openat(get->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, first_mode(get, st));

	return fd < 0 ? -errno : fd;
}

static int nothing_left(struct inl_get *get)
{
	get->diag = (struct inl_diag){ 0 };
	return inl_get_failed(
		get, INL_SOURCE,
		inl_diag_set(&get->diag, -EIO, "nothing of it could be read (%ju bytes)", (uintmax_t)get->n_bad));
}

/* What replaces an older version is on the medium before that goes. */
static int fill(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd, bool replaces)
{
	int err = inl_get_copy(get, inode, st->size, fd);

	if (!err && get->n_bad && !get->n_good)
		err = nothing_left(get);
	if (!err)
		err = inl_meta_file(get, inode, st, fd, !get->n_bad);
	get->incomplete |= get->n_bad;
	if (!err && replaces && !get->incomplete && fdatasync(fd) && errno != EINVAL)
		err = inl_get_failed(get, INL_DESTINATION, -errno);
	if (close(fd) && !err)
		err = inl_get_failed(get, INL_DESTINATION, -errno);
	return err;
}

static void report_partial(struct inl_get *get)
{
	char *where = inl_get_where(get, INL_SOURCE), *why = NULL;
	size_t len = 0;
	uint64_t named = 0;
	FILE *text = open_memstream(&why, &len);

	if (text) {
		fprintf(text, "%ju bytes could not be read, at", (uintmax_t)get->n_bad);
		for (unsigned i = 0; i < get->n_ranges; i++) {
			const struct inl_range *range = &get->ranges[i];

			fprintf(text, "%s %ju-%ju", i ? "," : "", (uintmax_t)range->offset,
				(uintmax_t)(range->offset + range->len - 1));
			named += range->len;
		}
		if (named < get->n_bad)
			fputs(", and more", text);
		fclose(text);
	}
	inl_report_add(&get->report, where, why ? why : "not all of it could be read");
	free(why);
	free(where);
}

/* Something has the name already; what was made instead of it is not worth that. */
static int not_replaced(struct inl_get *get)
{
	get->diag = (struct inl_diag){ 0 };
	if (get->n_bad)
		inl_diag_set(&get->diag, -EIO, "not replaced, the older one was kept: %ju bytes could not be read",
			     (uintmax_t)get->n_bad);
	else
		inl_diag_set(&get->diag, -EIO, "not replaced, the older one was kept: its attributes are damaged");
	return inl_get_failed(get, INL_SOURCE, -EIO);
}

/* Give what was made under a temporary name its own, or remove it; at is its name now. */
static int settle(struct inl_get *get, const char *at, const char *name, int err)
{
	if (!err && at != name && get->incomplete)
		err = not_replaced(get);
	if (!err && at != name && renameat(get->dir_fd, at, get->dir_fd, name))
		err = inl_get_failed(get, INL_DESTINATION, -errno);
	if (err)
		unlinkat(get->dir_fd, at, 0);
	return err;
}

/* Returns 1: was there already; 0; -errno. */
static int place_file(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name)
{
	char temp[INL_TEMP_NAME_SIZE];
	const char *at = name;
	int err, fd = create(get, st, name);

	if (fd == -EEXIST) {
		int same = look_at_existing(get, st, name);

		if (same)
			return same;
		inl_get_temp_name(temp);
		at = temp;
		fd = create(get, st, at);
	}
	if (fd < 0) {
		get->diag = (struct inl_diag){ 0 };
		return inl_get_failed(get, INL_DESTINATION, fd);
	}
	err = settle(get, at, name, fill(get, inode, st, fd, at != name));
	if (!err && get->n_bad)
		report_partial(get);
	return err;
}

/* ---- everything else --------------------------------------------------------------------------------------------- */

static int make_special(struct inl_get *get, const struct inl_stat *st, const char *name)
{
	int err;

	if (S_ISLNK(st->mode))
		err = symlinkat((const char *)get->buf, get->dir_fd, name);
	else
		err = mknodat(get->dir_fd, name, (st->mode & S_IFMT) | first_mode(get, st),
			      is_device(st->mode) ? makedev(st->rdev_major, st->rdev_minor) : 0);
	return err ? -errno : 0;
}

static int special_failed(struct inl_get *get, const struct inl_stat *st, int err)
{
	get->diag = (struct inl_diag){ 0 };
	if (err != -EPERM || S_ISLNK(st->mode))
		return inl_get_failed(get, INL_DESTINATION, err);
	return inl_get_failed(get, INL_REFUSED,
			      inl_diag_set(&get->diag, err,
					   "not made: a %s needs root, and a file system that has them",
					   inl_text_type(st->mode)));
}

/* Returns 1: was there already; 0; -errno. */
static int place_special(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name)
{
	char temp[INL_TEMP_NAME_SIZE];
	const char *at = name;
	int err = S_ISLNK(st->mode) ? read_target(get, inode) : 0;

	if (err)
		return err;
	err = make_special(get, st, name);
	if (err == -EEXIST) {
		int same = look_at_existing(get, st, name);

		if (same)
			return same;
		inl_get_temp_name(temp);
		at = temp;
		err = make_special(get, st, at);
	}
	if (err)
		return special_failed(get, st, err);
	return settle(get, at, name, inl_meta_name(get, inode, st, at));
}

/* ---- hard links -------------------------------------------------------------------------------------------------- */

/* Open the directory of a path below the top, part by part: the path may be longer than PATH_MAX. *last is its end. */
static int open_dir_of(struct inl_get *get, char *path, const char **last)
{
	int fd = openat(get->top_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *slash;

	for (; fd >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		int below;

		*slash = '\0';
		below = openat(fd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = below;
	}
	*last = path;
	return fd;
}

/* Returns 1: it is that link already; 0; -errno. */
static int link_over(struct inl_get *get, int fd, const char *first, const char *name)
{
	char temp[INL_TEMP_NAME_SIZE];
	struct stat a, b;

	if (fstatat(fd, first, &a, AT_SYMLINK_NOFOLLOW) || fstatat(get->dir_fd, name, &b, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return 1;
	if (S_ISDIR(b.st_mode))
		return -EISDIR;
	if (inl_mine_check(get, name, &b))
		return -EEXIST;
	inl_get_temp_name(temp);
	if (linkat(fd, first, get->dir_fd, temp, 0))
		return -errno;
	return settle(get, temp, name, 0);
}

/* Is first what it was when it was remembered? */
static bool is_still(int fd, const char *first, const struct stat *was)
{
	struct stat now;

	return !fstatat(fd, first, &now, AT_SYMLINK_NOFOLLOW) && now.st_dev == was->st_dev && now.st_ino == was->st_ino;
}

/* Returns 1: it is that link already; 0; -EXDEV: no link can be made; -errno. */
static int place_link(struct inl_get *get, char *path, const struct stat *was, const char *name)
{
	const char *first;
	int err = 0, fd = open_dir_of(get, path, &first);

	get->diag = (struct inl_diag){ 0 };
	if (fd < 0)
		return -EXDEV;
	if (!is_still(fd, first, was))
		err = -EXDEV;
	else if (linkat(fd, first, get->dir_fd, name, 0))
		err = errno == EEXIST ? link_over(get, fd, first, name) : -errno;
	close(fd);
	if (err == -EMLINK || err == -EPERM || err == -EOPNOTSUPP || err == -ENOENT || err == -ELOOP)
		return -EXDEV;
	if (err == -EISDIR)
		inl_diag_set(&get->diag, err, "a directory is in the way");
	if (err == -EEXIST)
		return err;
	return err < 0 && err != -EXDEV ? inl_get_failed(get, INL_DESTINATION, err) : err;
}

static int remember_link(struct inl_get *get, const struct inl_stat *st)
{
	int err = inl_links_add(&get->links, get->top_fd, (uint32_t)st->ino, get->path, get->path_len, &get->there);

	get->diag = (struct inl_diag){ 0 };
	if (err == -EOVERFLOW) {
		get->report.n_unlinked++;
		return 0;
	}
	return err ? inl_get_failed(get, INL_DESTINATION, err) : 0;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Count; say so if asked. */
static void placed(struct inl_get *get, bool was_there)
{
	char *where;

	get->report.n_same += was_there;
	get->report.n_files += !was_there;
	if (was_there || !get->cli->given[INL_OPT_VERBOSE])
		return;
	inl_report_erase(&get->report);
	where = inl_get_where(get, INL_DESTINATION);
	inl_text_name(where, strlen(where));
	putchar('\n');
	free(where);
}

/* Make it, or leave alone what is there already, and remember what is there now. */
static int place_first(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name,
		       bool links)
{
	int err = S_ISREG(st->mode) ? place_file(get, inode, st, name) : place_special(get, inode, st, name);
	if (err < 0)
		return err;
	placed(get, err > 0);
	get->report.n_partial += get->incomplete;
	inl_mine_add(get, &get->there);
	return links ? remember_link(get, st) : 0;
}

int inl_get_place(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name)
{
	bool links = st->nlink > 1 && get->top_fd >= 0;
	struct stat was;
	char *first = links ? inl_links_find(&get->links, (uint32_t)st->ino, &was) : NULL;
	int err;

	get->incomplete = false;
	get->n_bad = 0;
	err = first ? place_link(get, first, &was, name) : -EXDEV;
	if (err == -EXDEV) {
		get->report.n_unlinked += first != NULL;
		err = place_first(get, inode, st, name, links);
	} else if (err >= 0) {
		placed(get, err > 0);
	}
	free(first);
	return err < 0 ? inl_get_trouble(get, err) : 0;
}
