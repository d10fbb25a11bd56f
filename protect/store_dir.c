/*
 * protect/store_dir.c: .fscrypt in a directory of the running system, which others may be able to write to.
 * Not here: in a volume that is open here (store_volume.c).
 * Read more: fscrypt's filesystem/filesystem.go, whose rules these are.
 */
#include "protect/private.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

struct place {
	int fd; /* of the directory that has .fscrypt in it */
	dev_t dev;
};

static void close_place(void *at)
{
	struct place *place = at;

	close(place->fd);
	free(place);
}

static int open_place(const char *root, struct place *place)
{
	struct stat st;
	int err;

	place->fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place->fd < 0)
		return -errno;
	if (!fstat(place->fd, &st)) {
		place->dev = st.st_dev;
		return 0;
	}
	err = -errno;
	close(place->fd);
	return err;
}

int inl_protect_open_dir(const char *root, struct inl_diag *diag, struct inl_protect **out)
{
	struct inl_protect *protect = calloc(1, sizeof(*protect));
	struct place *place = malloc(sizeof(*place));
	int err = -ENOMEM;

	if (protect && place)
		err = open_place(root, place);
	if (err)
		goto fail;
	protect->ops = &inl_store_dir;
	protect->at = place;
	*out = protect;
	return 0;
fail:
	free(place);
	free(protect);
	return err;
}

/* Whoever may list the directory may hold its lock: nobody waits for ever. */
#define LOCK_WAIT_MS 30000
#define LOCK_STEP_MS 10

static int lock_place(void *at, struct inl_diag *diag)
{
	const struct timespec step = { .tv_nsec = LOCK_STEP_MS * 1000000L };
	const struct place *place = at;

	for (int ms = 0; flock(place->fd, LOCK_EX | LOCK_NB); ms += LOCK_STEP_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return inl_diag_set(diag, -errno, "the directory of .fscrypt cannot be locked: %s",
					    strerror(errno));
		if (ms >= LOCK_WAIT_MS)
			return inl_diag_set(diag, -ETIMEDOUT,
					    "another program has had the directory of .fscrypt locked for %d s",
					    LOCK_WAIT_MS / 1000);
		nanosleep(&step, NULL);
	}
	return 0;
}

static void unlock_place(void *at)
{
	const struct place *place = at;

	flock(place->fd, LOCK_UN);
}

/* What belongs to somebody else is not for us to believe; but root answers for all. */
static int check_owner(const struct stat *st, const char *name, struct inl_diag *diag)
{
	uid_t user = geteuid();

	if (user && st->st_uid && st->st_uid != user)
		return inl_diag_set(diag, -EACCES, "%s belongs to user %u", name, (unsigned)st->st_uid);
	return 0;
}

/* What is to be written, for keys of this file system, is to go with it wherever it goes. */
static int check_dev(const struct place *place, const struct stat *st, const char *name, struct inl_diag *diag)
{
	if (st->st_dev != place->dev)
		return inl_diag_set(diag, -EXDEV, "%s lies on another file system: nothing is written there", name);
	return 0;
}

/* It may be a symbolic link, which is followed; but nothing is written by one that leaves the file system. */
static int open_base(const struct place *place, bool writing, struct inl_diag *diag, int *out)
{
	int err = 0, base = openat(place->fd, INL_META_BASE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (base < 0)
		return -errno;
	if (fstat(base, &st))
		err = -errno;
	if (!err)
		err = check_owner(&st, INL_META_BASE, diag);
	if (!err && writing)
		err = check_dev(place, &st, INL_META_BASE, diag);
	for (int i = 0; i < 2 && !err && writing; i++) {
		if (!fstatat(base, inl_meta_dir_names[i], &st, AT_SYMLINK_NOFOLLOW))
			err = check_dev(place, &st, inl_meta_dir_names[i], diag);
	}
	if (err)
		close(base);
	else
		*out = base;
	return err;
}

/* Only .fscrypt itself may be a symbolic link. */
static int open_dir(const struct place *place, enum inl_meta_dir dir, bool writing, struct inl_diag *diag, int *out)
{
	const char *name = inl_meta_dir_names[dir];
	int base = -1, fd, err = open_base(place, writing, diag, &base);
	struct stat st;

	if (err)
		return err;
	fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		err = -errno;
	close(base);
	if (!err)
		err = check_owner(&st, name, diag);
	if (!err && writing)
		err = check_dev(place, &st, name, diag);
	if (!err && (st.st_mode & (S_ISVTX | S_IWOTH)) == S_IWOTH)
		err = inl_diag_set(diag, -EACCES, "%s can be written to by everybody, and is not sticky", name);
	if (!err)
		*out = fd;
	else if (fd >= 0)
		close(fd);
	return err;
}

static int list_place(void *at, enum inl_meta_dir dir, int (*each)(const char *name, void *arg), void *arg,
		      struct inl_diag *diag)
{
	struct dirent *entry;
	int fd = -1, err = open_dir(at, dir, false, diag, &fd);
	DIR *names;

	if (err)
		return err;
	names = fdopendir(fd);
	if (!names) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err && (errno = 0, entry = readdir(names)))
		err = each(entry->d_name, arg);
	if (!err && errno)
		err = -errno;
	closedir(names);
	return err;
}

/* Up to the end, or INL_META_MAX + 1 bytes. */
static int read_all(int fd, uint8_t *buf, size_t *len)
{
	size_t n = 0;

	while (n < INL_META_MAX + 1) {
		ssize_t got = read(fd, buf + n, INL_META_MAX + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		n += (size_t)got;
	}
	*len = n;
	return 0;
}

static int read_place(void *at, enum inl_meta_dir dir, const char *name, uint8_t *buf, size_t *len,
		      struct inl_meta_owner *owner, struct inl_diag *diag)
{
	int fd = -1, file, err = open_dir(at, dir, false, diag, &fd);
	struct stat st;

	if (err)
		return err;
	/* O_NONBLOCK: it may be a pipe that nobody writes to. */
	file = openat(fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (file < 0)
		err = errno == ELOOP ? inl_diag_set(diag, -EUCLEAN, "is no regular file") : -errno;
	else if (fstat(file, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = inl_diag_set(diag, -EUCLEAN, "is no regular file");
	if (!err)
		err = check_owner(&st, "the file", diag);
	if (!err)
		err = read_all(file, buf, len);
	if (!err)
		*owner = (struct inl_meta_owner){ st.st_uid, st.st_gid, st.st_mode & 0777 };
	if (file >= 0)
		close(file);
	close(fd);
	return err;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Whatever the umask takes away. */
static int make_dir(int parent, const char *name)
{
	int fd, err = 0;

	if (mkdirat(parent, name, INL_META_DIR_MODE))
		return errno == EEXIST ? 0 : -errno;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, INL_META_DIR_MODE))
		err = -errno;
	close(fd);
	return err;
}

static int make_both(int base)
{
	int err = 0;

	for (int i = 0; i < 2 && !err; i++)
		err = make_dir(base, inl_meta_dir_names[i]);
	if (!err && fsync(base))
		err = -errno;
	return err;
}

/* fscrypt takes .fscrypt for nothing before it has both directories in it: it appears with them. */
static int make_base(int root)
{
	char temp[INL_TEMP_SIZE];
	int fd, err = inl_meta_temp(temp);

	if (!err)
		err = make_dir(root, temp);
	if (err)
		return err;
	fd = openat(root, temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = make_both(fd);
	close(fd);
	if (!err && (renameat(root, temp, root, INL_META_BASE) || fsync(root)))
		err = -errno;
	return err;
}

/* With what is missing of it. */
static int set_up(const struct place *place, struct inl_diag *diag)
{
	int base = -1, err = open_base(place, true, diag, &base);
	struct stat st;

	if (err == -ENOENT && !fstatat(place->fd, INL_META_BASE, &st, AT_SYMLINK_NOFOLLOW))
		return inl_diag_set(diag, err, INL_META_BASE " is a symbolic link to what is not there");
	if (err == -ENOENT)
		return make_base(place->fd);
	if (err)
		return err;
	err = make_both(base);
	close(base);
	return err;
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

static int write_temp(int dir, const char *temp, const uint8_t *data, size_t len, const struct inl_meta_owner *owner)
{
	int err = 0, fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	/* Only root can give a file away; everybody's own files are theirs already. */
	if (owner && !geteuid() && fchown(fd, owner->uid, owner->gid))
		err = -errno;
	if (!err && fchmod(fd, owner ? owner->mode : INL_META_FILE_MODE))
		err = -errno;
	if (!err)
		err = write_all(fd, data, len);
	close(fd);
	if (err)
		unlinkat(dir, temp, 0);
	return err;
}

static int write_place(void *at, enum inl_meta_dir dir, const char *name, const uint8_t *data, size_t len,
		       const struct inl_meta_owner *owner, struct inl_diag *diag)
{
	char temp[INL_TEMP_SIZE];
	int fd = -1, err = set_up(at, diag);

	if (!err)
		err = open_dir(at, dir, true, diag, &fd);
	if (err)
		return err;
	err = inl_meta_temp(temp);
	if (!err)
		err = write_temp(fd, temp, data, len, owner);
	if (!err && renameat(fd, temp, fd, name)) {
		err = -errno;
		unlinkat(fd, temp, 0);
	}
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	return err;
}

static int remove_place(void *at, enum inl_meta_dir dir, const char *name, struct inl_diag *diag)
{
	int fd = -1, err = open_dir(at, dir, true, diag, &fd);

	if (err)
		return err;
	if (unlinkat(fd, name, 0) || fsync(fd))
		err = -errno;
	close(fd);
	return err;
}

const struct inl_store_ops inl_store_dir = {
	.list = list_place,
	.read = read_place,
	.write = write_place,
	.remove = remove_place,
	.lock = lock_place,
	.unlock = unlock_place,
	.close = close_place,
};
