/*
 * tests/mount/posix_files.c: operations that open, read, write and cut off; and those that make, link, move and remove.
 * Not here: modes, owners, times, attributes (posix_meta.c); what takes several steps (posix_cases.c).
 * Read more: the manual pages of the calls.
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- open -------------------------------------------------------------------------------------------------------- */

static const struct {
	int flag;
	unsigned one_of; /* chances */
	const char *name;
} open_flags[] = {
	{ O_CREAT, 2, "CREAT" },          { O_EXCL, 5, "EXCL" },  { O_TRUNC, 5, "TRUNC" },
	{ O_APPEND, 5, "APPEND" },        { O_SYNC, 20, "SYNC" }, { O_NOFOLLOW, 6, "NOFOLLOW" },
	{ O_DIRECTORY, 12, "DIRECTORY" }, { O_PATH, 25, "PATH" }, { O_NOATIME, 20, "NOATIME" },
};

static int some_open_flags(void)
{
	static const int access_modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	static const char *const names[] = { "RDONLY", "WRONLY", "RDWR", "RDWR" };
	size_t mode = px_rng(PX_COUNT(access_modes));
	int flags = access_modes[mode];

	printf(" %s", names[mode]);
	for (size_t i = 0; i < PX_COUNT(open_flags); i++) {
		if (!px_rng(open_flags[i].one_of)) {
			flags |= open_flags[i].flag;
			printf("|%s", open_flags[i].name);
		}
	}
	return flags;
}

/* Some have the number of a driver that exists. */
static bool is_device(const char *path)
{
	struct stat st;

	return !stat(path, &st) && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode));
}

/* Never waits for the other end of a pipe. */
static int open_path(const char *path, int flags, mode_t mode)
{
	if (is_device(path) && !(flags & O_PATH)) {
		errno = ENXIO;
		return -1;
	}
	return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
}

static void op_open(void)
{
	char path[PX_PATH];
	mode_t mode = px_some_mode();
	int flags, fd;

	px_any_path(path);
	flags = some_open_flags();
	printf(" %o", mode);
	fd = open_path(path, flags, mode);
	if (!px_result(fd < 0 ? -1 : 0))
		return;
	if (flags & O_CREAT)
		px_add(path);
	px_show_fd(fd);
	px_hold(fd, flags);
}

static void op_create(void)
{
	char path[PX_PATH];
	mode_t mode = px_some_mode() | (px_rng(2) ? 0600 : 0);
	int fd;

	px_new_path(path);
	printf(" %o", mode);
	fd = open_path(path, O_CREAT | O_RDWR, mode);
	if (!px_result(fd < 0 ? -1 : 0))
		return;
	px_add(path);
	px_show_fd(fd);
	px_hold(fd, O_RDWR);
}

static void op_close(void)
{
	struct px_held *held = px_some_held(PX_ANY);

	if (held && !px_is_child)
		px_release(held);
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

/* By path, or what is held; -1 and a line that is complete where that cannot be. */
static int some_file(int flags, struct px_held **held)
{
	char path[PX_PATH];
	int fd;

	*held = px_rng(2) ? px_some_held(PX_ANY) : NULL;
	if (*held)
		return (*held)->fd;
	px_old_path(path, PX_REG);
	fd = open_path(path, flags, 0);
	if (fd < 0)
		px_result(-1);
	return fd;
}

static void done_with(int fd, const struct px_held *held)
{
	if (!held && close(fd))
		printf(" close %s", strerrorname_np(errno));
}

static void op_write(void)
{
	struct px_held *held;
	int fd = some_file(px_rng(6) ? O_WRONLY : O_WRONLY | O_APPEND, &held);
	uint64_t offset = px_some_offset();
	size_t len = px_some_len();

	px_fill(px_buf, len);
	if (fd < 0)
		return;
	printf(" at %llu %zu", (unsigned long long)offset, len);
	px_result(pwrite(fd, px_buf, len, (off_t)offset));
	px_show_fd(fd);
	done_with(fd, held);
}

/* Where the descriptor is, or the end: of what is held only; pipes, too. */
static void op_write_on(void)
{
	struct px_held *held = px_some_held(PX_REG | PX_OTHER);
	size_t len = px_rng(4000);

	px_fill(px_buf, len);
	if (!held)
		return;
	printf(" %zu", len);
	px_result(write(held->fd, px_buf, len));
	printf(" at %lld", (long long)lseek(held->fd, 0, SEEK_CUR));
	px_show_fd(held->fd);
}

static void op_read(void)
{
	struct px_held *held;
	int fd = some_file(O_RDONLY, &held);
	uint64_t offset = px_rng(3) ? px_some_offset() : 0;
	size_t len = px_rng(4) ? px_some_len() : PX_BUF;
	ssize_t got;

	if (fd < 0)
		return;
	printf(" at %llu %zu", (unsigned long long)offset, len);
	got = pread(fd, px_buf, len, (off_t)offset);
	if (px_result(got))
		printf(" %016llx", (unsigned long long)px_hash(0, px_buf, (size_t)got));
	done_with(fd, held);
}

static void op_read_on(void)
{
	struct px_held *held = px_some_held(PX_ANY);
	size_t len = px_rng(6000);
	ssize_t got;

	if (!held)
		return;
	if (px_rng(2))
		printf(" lseek %lld", (long long)lseek(held->fd, (off_t)px_rng(20000), SEEK_SET));
	got = read(held->fd, px_buf, len);
	if (px_result(got))
		printf(" %016llx", (unsigned long long)px_hash(0, px_buf, (size_t)got));
}

static void op_truncate(void)
{
	uint64_t size = px_rng(6) ? px_some_offset() : px_rng(3) ? 0 : (uint64_t)-1;
	struct px_held *held = px_rng(2) ? px_some_held(PX_ANY) : NULL;
	char path[PX_PATH];
	struct stat st;

	if (held) {
		printf(" %lld", (long long)size);
		px_result(ftruncate(held->fd, (off_t)size));
		px_show_fd(held->fd);
		return;
	}
	px_old_path(path, PX_REG);
	if (px_without("same-size") && !stat(path, &st) && (uint64_t)st.st_size == size)
		size++;
	printf(" %lld", (long long)size);
	px_result(truncate(path, (off_t)size));
	px_show_path(path);
}

static void op_fallocate(void)
{
	static const int modes[] = { 0,
				     FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE,
				     0x100 };
	struct px_held *held;
	int fd = some_file(O_RDWR, &held), mode = modes[px_rng(PX_COUNT(modes))];
	uint64_t offset = px_some_offset(), len = px_some_len();

	if (fd < 0)
		return;
	printf(" 0x%x at %llu %llu", mode, (unsigned long long)offset, (unsigned long long)len);
	px_result(fallocate(fd, mode, (off_t)offset, (off_t)len));
	px_show_fd(fd);
	done_with(fd, held);
}

/* Until all is copied: how much it is at a time, nobody says. */
static void op_copy_range(void)
{
	struct px_held *from = px_some_held(PX_REG), *to = px_some_held(PX_REG);
	off_t in = (off_t)px_some_offset(), out = (off_t)px_some_offset();
	size_t len = px_some_len(), done = 0;
	ssize_t got = 1;

	if (!from || !to)
		return;
	printf(" %lld to %lld %zu", (long long)in, (long long)out, len);
	while (done < len && got > 0) {
		got = copy_file_range(from->fd, &in, to->fd, &out, len - done, 0);
		done += got > 0 ? (size_t)got : 0;
	}
	px_result(got < 0 ? -1 : (long)done);
	px_show_fd(to->fd);
}

static void op_sync(void)
{
	struct px_held *held;
	int fd = some_file(O_RDONLY, &held);

	if (fd < 0)
		return;
	px_result(px_rng(3) ? fsync(fd) : px_rng(4) ? fdatasync(fd) : syncfs(fd));
	done_with(fd, held);
}

static void op_sync_dir(void)
{
	char path[PX_PATH];
	int fd;

	px_dir_path(path);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (!px_result(fd < 0 ? -1 : 0))
		return;
	px_result(fsync(fd));
	close(fd);
}

const struct px_op px_file_ops[] = {
	{ 60, "open", op_open },
	{ 50, "create", op_create },
	{ 8, "close", op_close },
	{ 55, "write", op_write },
	{ 12, "write_on", op_write_on },
	{ 45, "read", op_read },
	{ 12, "read_on", op_read_on },
	{ 22, "truncate", op_truncate },
	{ 16, "fallocate", op_fallocate },
	{ 8, "copy_range", op_copy_range },
	{ 6, "sync", op_sync },
	{ 4, "sync_dir", op_sync_dir },
	{ 0 },
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

static void made(long ret, const char *path)
{
	if (!px_result(ret))
		return;
	px_add(path);
	px_show_path(path);
}

static void op_mkdir(void)
{
	char path[PX_PATH];
	mode_t mode = px_rng(2) ? 0777 : px_some_mode();

	px_new_path(path);
	printf(" %o", mode);
	made(mkdir(path, mode), path);
}

/* Devices have numbers that no driver has; one is what renaming leaves behind as a whiteout. */
static void op_mknod(void)
{
	static const mode_t types[] = { S_IFIFO, S_IFCHR, S_IFSOCK, S_IFREG, S_IFBLK, S_IFDIR, 0 };
	static const unsigned majors[] = { 0, 511, 300, 4095, 511 };
	mode_t mode = types[px_rng(PX_COUNT(types))] | px_some_mode();
	unsigned number = majors[px_rng(PX_COUNT(majors))],
		 less = (unsigned)px_rng(4) ? (unsigned)px_rng(256) : 0xfffff;
	char path[PX_PATH];

	px_new_path(path);
	printf(" %o %u:%u", mode, number, number ? less : 0);
	made(mknod(path, mode, makedev(number, number ? less : 0)), path);
}

static void some_target(char *target)
{
	unsigned what = (unsigned)px_rng(20);
	size_t len = what == 0 ? 0 : what < 4 ? px_rng(60) : what == 4 ? 1 + px_rng(4096) : 0;

	if (what > 4 && px->n_known && px_rng(3)) {
		snprintf(target, PX_PATH, "%s%s", px_rng(6) ? "/" : "", px->known[px_rng(px->n_known)]);
	} else if (what > 4) {
		snprintf(target, PX_PATH, "%sn%u", px_rng(8) ? "" : "../", (unsigned)px_rng(30));
	} else {
		for (size_t i = 0; i < len; i++)
			target[i] = (char)(what & 1 ? 1 + px_rng(255) : 'a' + px_rng(26));
		target[len] = 0;
	}
}

static void op_symlink(void)
{
	char path[PX_PATH], target[PX_PATH];

	some_target(target);
	px_show(target);
	px_new_path(path);
	made(symlink(target, path), path);
}

static void op_link(void)
{
	char path[PX_PATH], new[PX_PATH];
	int flags = px_rng(3) ? 0 : AT_SYMLINK_FOLLOW;

	px_old_path(path, PX_REG | PX_LNK | PX_OTHER);
	px_new_path(new);
	printf("%s", flags ? " follow" : "");
	made(linkat(AT_FDCWD, path, AT_FDCWD, new, flags), new);
}

static void op_unlink(void)
{
	char path[PX_PATH];

	px_old_path(path, px_rng(8) ? PX_REG | PX_LNK | PX_OTHER : PX_DIR);
	if (px_result(unlink(path)))
		px_forget(path);
}

static void op_rmdir(void)
{
	char path[PX_PATH];

	px_old_path(path, px_rng(8) ? PX_DIR : PX_ANY);
	if (px_result(rmdir(path)))
		px_forget(path);
}

/* Keeps the tree from growing without end. */
static void op_prune(void)
{
	char path[PX_PATH];
	int n;

	if (px_rng(120) > px->n_known || px_is_child)
		return;
	px_dir_path(path);
	if (!strcmp(path, "."))
		return;
	n = px_remove_tree(path);
	printf(" = %d", n);
	px_forget(path);
}

static void op_rename(void)
{
	static const unsigned all[] = { 0,
					0,
					0,
					0,
					0,
					RENAME_NOREPLACE,
					RENAME_EXCHANGE,
					RENAME_EXCHANGE,
					RENAME_WHITEOUT,
					RENAME_NOREPLACE | RENAME_EXCHANGE,
					RENAME_NOREPLACE | RENAME_WHITEOUT,
					64 };
	unsigned flags = all[px_rng(PX_COUNT(all))];
	char from[PX_PATH], to[PX_PATH];
	struct stat st;

	if ((flags & RENAME_WHITEOUT) && px_is_child && px_without("whiteout-owner"))
		flags = 0;
	px_old_path(from, PX_ANY);
	if (flags & RENAME_EXCHANGE || !px_rng(3))
		px_old_path(to, PX_ANY);
	else
		px_new_path(to);
	/* Where the directory that goes is not empty, ext4 has left a whiteout, and takes it back: the other one has
	 * changed. */
	if ((flags & RENAME_WHITEOUT) && !lstat(to, &st) && S_ISDIR(st.st_mode))
		flags = 0;
	printf(" 0x%x", flags);
	if (!px_result(flags ? renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) : rename(from, to)))
		return;
	if (flags & RENAME_EXCHANGE) {
		px_show_path(from);
	} else {
		px_moved(from, to);
		if (flags & RENAME_WHITEOUT)
			px_add(from);
	}
	px_show_path(to);
}

/* From the open directory itself, so that it is the one that was opened, whatever it is called now. */
static void op_list(void)
{
	struct px_held *held = px_rng(3) ? NULL : px_some_held(PX_DIR);
	struct px_list list = { 0 };
	char path[PX_PATH];
	uint64_t hash = 0;
	int fd, err;

	if (held) {
		fd = held->fd;
	} else {
		px_old_path(path, PX_DIR);
		fd = open_path(path, O_RDONLY | O_DIRECTORY, 0);
		if (fd < 0) {
			px_result(-1);
			return;
		}
	}
	err = px_list_fd(fd, &list);
	for (size_t i = 0; i < list.n; i++)
		hash = px_hash(hash, list.names[i], strlen(list.names[i]) + 1);
	errno = -err;
	if (px_result(err < 0 ? -1 : (long)list.n))
		printf(" %016llx", (unsigned long long)hash);
	px_list_free(&list);
	done_with(fd, held);
}

static void op_statfs(void)
{
	struct statfs sf;
	char path[PX_PATH];

	px_any_path(path);
	if (px_result(statfs(path, &sf)))
		printf(" %ld %ld", (long)sf.f_namelen, (long)sf.f_bsize);
}

/* Below a directory that is held, which may have moved or gone. */
static void op_at(void)
{
	struct px_held *held = px_some_held(PX_DIR);
	char name[NAME_MAX + 2];
	int fd;

	px_some_name(name);
	if (!held)
		return;
	px_show(name);
	switch (px_rng(5)) {
	case 0:
		printf(" mkdirat");
		px_result(mkdirat(held->fd, name, 0755));
		break;
	case 1:
		printf(" unlinkat");
		px_result(unlinkat(held->fd, name, px_rng(2) ? AT_REMOVEDIR : 0));
		break;
	case 2:
		printf(" symlinkat");
		px_result(symlinkat("n1", held->fd, name));
		break;
	default:
		printf(" openat");
		fd = openat(held->fd, name, O_CREAT | O_EXCL | O_RDWR, 0644);
		if (px_result(fd < 0 ? -1 : 0))
			px_hold(fd, O_RDWR);
	}
}

const struct px_op px_name_ops[] = {
	{ 50, "mkdir", op_mkdir },  { 14, "mknod", op_mknod },   { 22, "symlink", op_symlink },
	{ 22, "link", op_link },    { 36, "unlink", op_unlink }, { 22, "rmdir", op_rmdir },
	{ 6, "prune", op_prune },   { 60, "rename", op_rename }, { 16, "list", op_list },
	{ 3, "statfs", op_statfs }, { 10, "at", op_at },         { 0 },
};
