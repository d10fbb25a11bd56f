/*
 * tests/mount/posix_cases.c: what takes several steps by one process: reading a directory that changes, files and
 * directories without a name, files that must not change, long names and paths, loops, times.
 * Not here: other users and processes (posix_peers.c).
 * Read more: readdir(3), unlink(2), ioctl_iflags(2), path_resolution(7).
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What an operation uses for itself is called like this, and is gone when it ends. */
static void own_name(char *path, const char *name)
{
	size_t len;

	px_dir_path(path);
	len = strlen(path);
	snprintf(path + len, PX_PATH - len, "/%s", name);
}

static bool own_dir(char *path, const char *name)
{
	own_name(path, name);
	return px_result(mkdir(path, 0755));
}

static int own_file(char *path, const char *name)
{
	int fd;

	own_name(path, name);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0644);
	px_result(fd < 0 ? -1 : 0);
	return fd;
}

static void step(const char *what, long ret)
{
	printf(" %s", what);
	px_result(ret);
}

/* A descriptor that was only wanted for whether it is had. */
static void step_fd(const char *what, int fd)
{
	step(what, fd < 0 ? -1 : 0);
	if (fd >= 0)
		close(fd);
}

/* ---- a directory that is read ------------------------------------------------------------------------------------ */

/* Two in three are there to stay; of the rest one goes at a time while the directory is read. */
struct crowd {
	unsigned n, salt, n_seen, n_removed, next_victim, n_new;
	unsigned *seen;
	int fd;
};

static void crowd_name(const struct crowd *c, unsigned i, char *name)
{
	size_t len = (size_t)snprintf(name, NAME_MAX, "c%u-", i), more = (c->salt + i * 37) % 180;

	memset(name + len, 'a' + (int)(i % 26), more);
	name[len + more] = 0;
}

static bool is_victim(const struct crowd *c, unsigned i)
{
	return (c->salt + i) % 3 == 0;
}

static bool remove_victim(struct crowd *c)
{
	char name[NAME_MAX + 1];

	while (c->next_victim < c->n && !is_victim(c, c->next_victim))
		c->next_victim++;
	if (c->next_victim >= c->n)
		return false;
	crowd_name(c, c->next_victim++, name);
	if (unlinkat(c->fd, name, 0))
		printf(" unlink %s", strerrorname_np(errno));
	c->n_removed++;
	return true;
}

static void make_new(struct crowd *c)
{
	char name[NAME_MAX + 1];
	int fd;

	snprintf(name, sizeof(name), "x%u", c->n_new++);
	fd = openat(c->fd, name, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0)
		printf(" open %s", strerrorname_np(errno));
	else
		close(fd);
}

struct dent {
	uint64_t ino;
	int64_t next;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* All that a descriptor gives, in small portions; with changes in between. */
static void read_crowd(struct crowd *c, bool changes)
{
	long got;

	while ((got = syscall(SYS_getdents64, c->fd, px_buf, 700)) > 0) {
		for (long at = 0; at < got;) {
			struct dent *d = (void *)(px_buf + at);
			unsigned i = d->name[0] == 'c' ? (unsigned)strtoul(d->name + 1, NULL, 10) : c->n;

			at += d->len;
			if (i < c->n)
				c->seen[i]++;
			c->n_seen++;
			if (changes && c->n_seen % 2)
				remove_victim(c);
			if (changes && c->n_seen % 5 == 0 && c->n_new < 40)
				make_new(c);
		}
	}
	if (got < 0)
		printf(" getdents %s", strerrorname_np(errno));
}

/* Who stayed was seen once, and who went not more often. */
static void judge_crowd(struct crowd *c, bool gone)
{
	unsigned missing = 0, twice = 0;

	for (unsigned i = 0; i < c->n; i++) {
		missing += !c->seen[i] && !is_victim(c, i);
		twice += c->seen[i] > 1 || (gone && c->seen[i] && is_victim(c, i));
		c->seen[i] = 0;
	}
	printf(" missing %u twice %u", missing, twice);
}

static void fill_crowd(struct crowd *c)
{
	char name[NAME_MAX + 1];

	for (unsigned i = 0; i < c->n; i++) {
		int fd;

		crowd_name(c, i, name);
		fd = openat(c->fd, name, O_CREAT | O_EXCL | O_WRONLY, 0600);
		if (fd < 0)
			printf(" open %s", strerrorname_np(errno));
		else
			close(fd);
	}
}

static void empty_crowd(struct crowd *c)
{
	char name[NAME_MAX + 1];

	for (unsigned i = 0; i < c->n + c->n_new; i++) {
		if (i < c->n && is_victim(c, i))
			continue;
		if (i < c->n)
			crowd_name(c, i, name);
		else
			snprintf(name, sizeof(name), "x%u", i - c->n);
		if (unlinkat(c->fd, name, 0))
			printf(" unlink %s", strerrorname_np(errno));
	}
}

static void op_crowd(void)
{
	struct crowd c = { .n = 5 + (unsigned)px_rng(px_rng(3) ? 60 : 400), .salt = (unsigned)px_rng(1000) };
	char path[PX_PATH];

	if (!own_dir(path, "crowd"))
		return;
	c.seen = calloc(c.n, sizeof(*c.seen));
	c.fd = open(path, O_RDONLY | O_DIRECTORY);
	if (c.fd < 0 || !c.seen)
		abort();
	printf(" %u", c.n);
	fill_crowd(&c);
	read_crowd(&c, true);
	judge_crowd(&c, false);
	while (remove_victim(&c))
		;
	if (lseek(c.fd, 0, SEEK_SET))
		printf(" lseek %s", strerrorname_np(errno));
	read_crowd(&c, false);
	judge_crowd(&c, true);
	step("rmdir", rmdir(path));
	empty_crowd(&c);
	step("rmdir", rmdir(path));
	close(c.fd);
	free(c.seen);
}

static void rest_of(DIR *dir, struct px_list *list)
{
	struct dirent *entry;

	while ((entry = readdir(dir)))
		px_list_add(list, entry->d_type, entry->d_name);
}

static bool same_lists(const struct px_list *a, const struct px_list *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++) {
		if (strcmp(a->names[i], b->names[i]))
			return false;
	}
	return a->n == b->n;
}

/* From a place that was told the rest is the same again; also after reading to the end, and from the beginning. */
static void op_seekdir(void)
{
	struct px_list first = { 0 }, second = { 0 };
	unsigned skip = (unsigned)px_rng(12);
	char path[PX_PATH];
	long place;
	DIR *dir;

	px_dir_path(path);
	dir = opendir(path);
	if (!px_result(dir ? 0 : -1))
		return;
	for (unsigned i = 0; i < skip; i++)
		readdir(dir);
	place = telldir(dir);
	rest_of(dir, &first);
	seekdir(dir, place);
	rest_of(dir, &second);
	printf(" %zu again %s", first.n, same_lists(&first, &second) ? "same" : "different");
	px_list_free(&second);
	rewinddir(dir);
	rest_of(dir, &second);
	printf(" all %zu", second.n);
	px_list_free(&first);
	px_list_free(&second);
	closedir(dir);
}

/* ---- without a name ---------------------------------------------------------------------------------------------- */

static void op_orphan(void)
{
	size_t len = px_some_len(), more = px_rng(5000);
	char path[PX_PATH], other[PX_PATH + 10];
	int fd = own_file(path, "orphan");

	px_fill(px_buf, len > more ? len : more);
	if (fd < 0)
		return;
	snprintf(other, sizeof(other), "%s-too", path);
	step("write", write(fd, px_buf, len));
	step("unlink", unlink(path));
	px_show_fd(fd);
	step("write", pwrite(fd, px_buf, more, (off_t)(2 * len)));
	step("read", pread(fd, px_buf, 3 * more, (off_t)len));
	step("setxattr", fsetxattr(fd, "user.orphan", "x", 1, 0));
	step("getxattr", fgetxattr(fd, "user.orphan", px_buf, 10));
	step("chmod", fchmod(fd, 0600));
	step("truncate", ftruncate(fd, (off_t)more));
	step("fallocate", fallocate(fd, 0, 0, 20000));
	step("fsync", fsync(fd));
	step("linkat", linkat(fd, "", AT_FDCWD, other, AT_EMPTY_PATH));
	step("linkat", linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH));
	step_fd("open", open(path, O_RDWR));
	px_show_fd(fd);
	px_hold(fd, O_RDWR);
}

static void op_orphan_dir(void)
{
	char path[PX_PATH];
	int fd;

	if (!own_dir(path, "orphan"))
		return;
	fd = open(path, O_RDONLY | O_DIRECTORY);
	step("rmdir", rmdir(path));
	px_show_fd(fd);
	step_fd("openat", openat(fd, "new", O_CREAT | O_RDWR, 0644));
	step("mkdirat", mkdirat(fd, "new", 0755));
	step("symlinkat", symlinkat("x", fd, "new"));
	step("mknodat", mknodat(fd, "new", S_IFIFO | 0644, 0));
	step("linkat", linkat(AT_FDCWD, "n1", fd, "new", 0));
	step("renameat", renameat(AT_FDCWD, "n1", fd, "new"));
	step("unlinkat", unlinkat(fd, "new", 0));
	step("chmod", fchmod(fd, 0700));
	step("setxattr", fsetxattr(fd, "user.orphan", "x", 1, 0));
	step("fsync", fsync(fd));
	step_fd("open", openat(fd, ".", O_RDONLY | O_DIRECTORY));
	step("getdents", syscall(SYS_getdents64, fd, px_buf, 1000));
	px_hold(fd, O_RDONLY);
}

/* The working directory of a child goes. */
static void op_cwd(void)
{
	char path[PX_PATH], away[PX_PATH + 10], moved[PX_PATH + 20];
	struct stat st;
	int status;

	if (!own_dir(path, "cwd"))
		return;
	fflush(stdout);
	if (!fork()) {
		snprintf(away, sizeof(away), "/%s", path);
		snprintf(moved, sizeof(moved), "%s-moved", away);
		step("chdir", chdir(path));
		step("rename", rename(away, moved));
		memset(px_buf, 0, 100);
		step("getcwd", syscall(SYS_getcwd, px_buf, PX_BUF) < 0 ? -1 : 0);
		px_show((char *)px_buf);
		step_fd("open", open("below", O_CREAT | O_RDWR, 0644));
		step("rmdir", rmdir(moved));
		step("unlink", unlink("below"));
		step("rmdir", rmdir(moved));
		step("getcwd", syscall(SYS_getcwd, px_buf, PX_BUF) < 0 ? -1 : 0);
		step_fd("open", open("below", O_CREAT | O_RDWR, 0644));
		step("stat", stat(".", &st));
		px_show_stat(&st);
		step("stat", stat("..", &st));
		step("chdir", chdir(".."));
		step("getcwd", syscall(SYS_getcwd, px_buf, PX_BUF) < 0 ? -1 : 0);
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
	if (status)
		printf(" status %d", status);
}

/* ---- files that must not change ---------------------------------------------------------------------------------- */

static bool set_flag(const char *path, int flag, bool on)
{
	int fd = open(path, O_RDONLY), flags = 0;
	bool done = fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &flags);

	flags = on ? flags | flag : flags & ~flag;
	done = done && !ioctl(fd, FS_IOC_SETFLAGS, &flags);
	printf(" %s", on ? "set" : "clear");
	px_result(done ? 0 : -1);
	if (fd >= 0)
		close(fd);
	return done;
}

static void try_to_change(const char *path, const char *other, int fd)
{
	struct timespec times[2] = { { 1, 2 }, { 3, 4 } };

	if (!px_without("late-flags"))
		step("write", pwrite(fd, "later", 5, 1));
	step("ftruncate", ftruncate(fd, 3));
	step("fallocate", fallocate(fd, 0, 0, 8000));
	step("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4));
	step_fd("open", open(path, O_RDONLY));
	step_fd("open to write", open(path, O_RDWR));
	step_fd("open to append", open(path, O_WRONLY | O_APPEND));
	step_fd("open to append and truncate", open(path, O_WRONLY | O_APPEND | O_TRUNC));
	step_fd("open and truncate", open(path, O_RDONLY | O_TRUNC));
	step("truncate", truncate(path, 2));
	step("chmod", chmod(path, 0600));
	step("chown", chown(path, 7, 7));
	step("utimens", utimensat(AT_FDCWD, path, times, 0));
	step("touch", utimensat(AT_FDCWD, path, NULL, 0));
	step("setxattr", setxattr(path, "user.fixed", "x", 1, 0));
	step("removexattr", removexattr(path, "user.fixed"));
	step("link", link(path, other));
	step("rename", rename(path, other));
	step("unlink", unlink(path));
	if (!px_without("late-flags"))
		step("access", access(path, W_OK));
	px_show_path(path);
}

static void op_fixed_file(void)
{
	int flag = px_rng(2) ? FS_IMMUTABLE_FL : FS_APPEND_FL, fd, append_fd;
	char path[PX_PATH], other[PX_PATH + 10];

	printf(" %s", flag == FS_IMMUTABLE_FL ? "immutable" : "append");
	if (flag == FS_IMMUTABLE_FL && px_without("flag-times"))
		return;
	fd = own_file(path, "fixed");
	if (fd < 0)
		return;
	append_fd = open(path, O_WRONLY | O_APPEND);
	snprintf(other, sizeof(other), "%s-too", path);
	step("write", write(fd, "contents", 8));
	set_flag(path, flag, true);
	try_to_change(path, other, fd);
	if (flag == FS_APPEND_FL || !px_without("late-flags"))
		step("append", write(append_fd, "more", 4));
	px_show_fd(fd);
	set_flag(path, flag, false);
	step("write", pwrite(fd, "again", 5, 1));
	step("unlink", unlink(path));
	close(append_fd);
	close(fd);
}

static void op_fixed_dir(void)
{
	int flag = px_rng(2) ? FS_IMMUTABLE_FL : FS_APPEND_FL, fd;
	char path[PX_PATH], there[PX_PATH + 20], new[PX_PATH + 20];

	printf(" %s", flag == FS_IMMUTABLE_FL ? "immutable" : "append");
	if (!own_dir(path, "fixed"))
		return;
	snprintf(there, sizeof(there), "%s/there", path);
	snprintf(new, sizeof(new), "%s/new", path);
	fd = open(there, O_CREAT | O_RDWR, 0644);
	set_flag(path, flag, true);
	step_fd("open", open(new, O_CREAT | O_RDWR, 0644));
	step("unlink", unlink(new));
	step("mkdir", mkdir(new, 0755));
	if (!px_without("late-flags"))
		step("rmdir", rmdir(new));
	step("symlink", symlink("x", new));
	step("link", link(there, new));
	step("rename", rename(there, new));
	step("unlink", unlink(there));
	step("write", write(fd, "contents", 8));
	step("chmod", chmod(path, 0700));
	step("setxattr", setxattr(path, "user.fixed", "x", 1, 0));
	step("rmdir", rmdir(path));
	set_flag(path, flag, false);
	px_show_path(path);
	close(fd);
	step("remove", px_remove_tree(path));
}

/* ---- long names, long paths, loops ------------------------------------------------------------------------------- */

static void op_long_names(void)
{
	char path[PX_PATH], fits[NAME_MAX + 2], too_long[NAME_MAX + 2];
	struct stat st;
	int fd;

	memset(fits, px_rng(2) ? 'l' : 0xfe, sizeof(fits));
	memcpy(too_long, fits, sizeof(fits));
	fits[NAME_MAX] = too_long[NAME_MAX + 1] = 0;
	if (!own_dir(path, "long"))
		return;
	fd = open(path, O_RDONLY | O_DIRECTORY);
	for (unsigned i = 0; i < 2; i++) {
		const char *name = i ? too_long : fits;

		step_fd("open", openat(fd, name, O_CREAT | O_RDWR, 0644));
		step_fd("open", openat(fd, name, O_RDWR, 0644));
		step("stat", fstatat(fd, name, &st, 0));
		step("link", linkat(fd, fits, fd, i ? name : "x", 0));
		step("rename", renameat(fd, "x", fd, name));
		step("unlink", unlinkat(fd, "x", 0));
		step("unlink", unlinkat(fd, name, 0));
		step("mkdir", mkdirat(fd, name, 0755));
		step("rmdir", unlinkat(fd, name, AT_REMOVEDIR));
		step("symlink", symlinkat(name, fd, name));
		step("readlink", readlinkat(fd, name, (char *)px_buf, PX_BUF));
		step("mknod", mknodat(fd, name, S_IFIFO | 0644, 0));
	}
	close(fd);
	step("remove", px_remove_tree(path));
}

static void op_deep(void)
{
	unsigned n = 10 + (unsigned)px_rng(25), made;
	char path[PX_PATH], name[210];
	int fd, next = 0;

	memset(name, 'd', sizeof(name));
	name[200] = 0;
	if (!own_dir(path, "deep"))
		return;
	fd = open(path, O_RDONLY | O_DIRECTORY);
	for (made = 0; made < n && next >= 0; made++) {
		next = mkdirat(fd, name, 0755) ? -1 : openat(fd, name, O_RDONLY | O_DIRECTORY);
		if (next < 0)
			break;
		close(fd);
		fd = next;
	}
	printf(" %u of %u", made, n);
	step_fd("open", openat(fd, "bottom", O_CREAT | O_RDWR, 0644));
	px_show_fd(fd);
	fflush(stdout);
	if (!fork()) {
		step("chdir", fchdir(fd));
		step("getcwd", syscall(SYS_getcwd, px_buf, PX_BUF) < 0 ? -1 : 0);
		fflush(stdout);
		_exit(0);
	}
	wait(NULL);
	close(fd);
	step("remove", px_remove_tree(path));
}

static void op_loop(void)
{
	char path[PX_PATH], name[20], target[20];
	struct stat st;
	int fd;

	if (!own_dir(path, "loop"))
		return;
	fd = open(path, O_RDONLY | O_DIRECTORY);
	step("symlink", symlinkat("b", fd, "a") | symlinkat("a", fd, "b") | symlinkat("gone", fd, "c"));
	step("stat", fstatat(fd, "a", &st, 0));
	step("lstat", fstatat(fd, "a", &st, AT_SYMLINK_NOFOLLOW));
	step_fd("open", openat(fd, "a", O_RDONLY));
	step_fd("open", openat(fd, "a", O_CREAT | O_RDWR, 0644));
	step_fd("open a dangling one with EXCL", openat(fd, "c", O_CREAT | O_EXCL | O_RDWR, 0644));
	step("mkdir on a dangling one", mkdirat(fd, "c", 0755));
	step_fd("open a dangling one", openat(fd, "c", O_CREAT | O_RDWR, 0644));
	step("stat", fstatat(fd, "gone", &st, 0));
	step("symlink", symlinkat("gone", fd, "l0"));
	for (unsigned i = 1; i < 42; i++) {
		snprintf(target, sizeof(target), "l%u", i - 1);
		snprintf(name, sizeof(name), "l%u", i);
		if (symlinkat(target, fd, name))
			printf(" %s", strerrorname_np(errno));
	}
	step_fd("open by 40", openat(fd, "l39", O_RDONLY));
	step_fd("open by 41", openat(fd, "l40", O_RDONLY));
	close(fd);
	step("remove", px_remove_tree(path));
}

/* ---- times and sizes --------------------------------------------------------------------------------------------- */

static const struct timespec long_ago[2] = { { 981173106, 123456789 }, { 981173107, 999999999 } };

struct moment {
	struct stat st;
	bool there;
};

static struct moment look(const char *path)
{
	struct moment m;

	m.there = !lstat(path, &m.st);
	return m;
}

static int later(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec > b.tv_sec ? 1 : -1;
	return (a.tv_nsec > b.tv_nsec) - (a.tv_nsec < b.tv_nsec);
}

static void show_changes(const char *what, const struct moment *before, const char *path)
{
	static const char *const changes[] = { " ctime went back", "", " ctime" };
	struct moment m = look(path);

	if (m.there && before->there)
		printf(" %s%s%s", what, later(m.st.st_mtim, long_ago[1]) ? " mtime" : "",
		       changes[1 + later(m.st.st_ctim, before->st.st_ctim)]);
}

static long open_and_close(int dir, int flags)
{
	int fd = openat(dir, "f", flags, 0644);

	return fd < 0 ? -1 : close(fd);
}

/* One of many things to do to a file "f" in a directory, and to the directory. */
static long change_something(unsigned what, int dir)
{
	int fd = openat(dir, "f", O_RDWR);
	long ret;

	switch (what) {
	case 0: ret = pwrite(fd, "x", 1, 0); break;
	case 1: ret = pread(fd, px_buf, 10, 0); break;
	case 2: ret = pwrite(fd, "x", 0, 0); break;
	case 3: ret = ftruncate(fd, 4); break; /* its size */
	case 4: ret = ftruncate(fd, 9000); break;
	case 5: ret = fchmod(fd, 0640); break;
	case 6: ret = fchown(fd, 5, 5); break;
	case 7: ret = fchown(fd, (uid_t)-1, (gid_t)-1); break;
	case 8: ret = fsetxattr(fd, "user.t", "x", 1, 0); break;
	case 9: ret = linkat(dir, "f", dir, "g", 0); break;
	case 10: ret = renameat(dir, "f", dir, "g"); break;
	case 11: ret = unlinkat(dir, "f", 0); break;
	case 12: ret = mkdirat(dir, "g", 0755); break;
	case 13: ret = symlinkat("x", dir, "g"); break;
	case 14: ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10000); break;
	case 15: ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2); break;
	case 16: ret = fallocate(fd, 0, 0, 10000); break;
	case 17: ret = fremovexattr(fd, "user.t"); break;
	case 18: ret = open_and_close(dir, O_RDWR | O_TRUNC); break;
	case 19: ret = open_and_close(dir, O_RDWR | O_CREAT); break;
	case 20: ret = renameat(dir, "f", dir, "f"); break;
	case 21: ret = fsync(fd); break;
	case 22: ret = renameat(dir, "f", AT_FDCWD, "moved-away") | renameat(AT_FDCWD, "moved-away", dir, "f"); break;
	default: ret = fchmod(fd, 0644); /* its mode */
	}
	close(fd);
	return ret;
}

/* Its mtime and that of its directory are of long ago before; nothing else says what has changed them. */
static void op_times(void)
{
	unsigned what = (unsigned)px_rng(24);
	char path[PX_PATH], file[PX_PATH + 10];
	struct moment before, dir_before;
	int dir, fd;

	printf(" %u", what);
	if (!own_dir(path, "times"))
		return;
	snprintf(file, sizeof(file), "%s/f", path);
	dir = open(path, O_RDONLY | O_DIRECTORY);
	fd = openat(dir, "f", O_CREAT | O_RDWR, 0644);
	step("write", write(fd, "abcd", 4));
	close(fd);
	if (utimensat(AT_FDCWD, file, long_ago, 0) || utimensat(AT_FDCWD, path, long_ago, 0))
		printf(" utimens %s", strerrorname_np(errno));
	before = look(file);
	dir_before = look(path);
	nanosleep(&(struct timespec){ 0, 12000000 }, NULL);
	step("do", change_something(what, dir));
	show_changes("file", &before, file);
	show_changes("dir", &dir_before, path);
	close(dir);
	step("remove", px_remove_tree(path));
}

static void op_big(void)
{
	char path[PX_PATH];
	int fd = own_file(path, "big");
	off_t huge = (off_t)1 << (31 + px_rng(11));

	if (fd < 0)
		return;
	step("truncate", ftruncate(fd, huge));
	step("write", pwrite(fd, "across", 6, huge - 3));
	px_show_fd(fd);
	step("read", pread(fd, px_buf, 100, huge - 5));
	printf(" %016llx", (unsigned long long)px_hash(0, px_buf, 8));
	step("data", (long)(lseek(fd, 0, SEEK_DATA) / 65536));
	step("fsync", fsync(fd));
	step("truncate", ftruncate(fd, (off_t)1 << 50));
	step("truncate", ftruncate(fd, INT64_MAX));
	step("fallocate", fallocate(fd, 0, (off_t)1 << 50, 5));
	if (!px_without("far"))
		step("write", pwrite(fd, "x", 1, (off_t)1 << 50));
	px_show_fd(fd);
	step("truncate", ftruncate(fd, 5));
	step("unlink", unlink(path));
	close(fd);
}

const struct px_op px_case_ops[] = {
	{ 5, "crowd", op_crowd },
	{ 6, "seekdir", op_seekdir },
	{ 8, "orphan", op_orphan },
	{ 5, "orphan_dir", op_orphan_dir },
	{ 4, "cwd", op_cwd },
	{ 5, "fixed_file", op_fixed_file },
	{ 4, "fixed_dir", op_fixed_dir },
	{ 4, "long_names", op_long_names },
	{ 2, "deep", op_deep },
	{ 4, "loop", op_loop },
	{ 20, "times", op_times },
	{ 5, "big", op_big },
	{ 0 },
};
