/*
 * tests/mount/posix_peers.c: what needs another process: other users, privileges that a write takes away, locks, pipes.
 * Not here: many processes at once (posix_shared.c).
 * Read more: credentials(7), fcntl(2), flock(2), inode(7).
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void step(const char *what, long ret)
{
	printf(" %s", what);
	px_result(ret);
}

/* ---- other users ------------------------------------------------------------------------------------------------- */

static const struct {
	uid_t uid;
	gid_t gid, more[2];
	size_t n_more;
} users[] = {
	{ 1000, 1000, { 2000 }, 1 },
	{ 1001, 1001, { 0 }, 0 },
	{ 1001, 2000, { 1000, 1001 }, 2 },
	{ 70000, 65534, { 0 }, 0 },
};

static void become(size_t user)
{
	if (setgroups(users[user].n_more, users[user].more) ||
	    setresgid(users[user].gid, users[user].gid, users[user].gid) ||
	    setresuid(users[user].uid, users[user].uid, users[user].uid))
		abort();
}

static pid_t child(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid)
		px_is_child = true;
	return pid;
}

static _Noreturn void child_ends(void)
{
	fflush(stdout);
	_exit(0);
}

static void wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		printf(" child %x", (unsigned)status);
}

/* A few operations; what is held open is so for them as well. */
static void op_user(void)
{
	size_t user = px_rng(PX_COUNT(users));
	unsigned n = 1 + (unsigned)px_rng(4);
	pid_t pid;

	printf(" %u:%u", users[user].uid, users[user].gid);
	pid = child();
	if (!pid) {
		become(user);
		umask(022);
		for (unsigned i = 0; i < n; i++) {
			printf(",");
			px_simple_op();
		}
		child_ends();
	}
	wait_for(pid);
}

/* ---- privileges that go ------------------------------------------------------------------------------------------ */

static void own_file(char *path, const char *name, mode_t mode)
{
	size_t len;
	int fd;

	px_dir_path(path);
	len = strlen(path);
	snprintf(path + len, PX_PATH - len, "/%s", name);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, mode);
	px_result(fd < 0 ? -1 : 0);
	if (fd < 0)
		return;
	step("write", write(fd, "something", 9));
	close(fd);
}

static long one_change(unsigned what, const char *path, int fd)
{
	switch (what) {
	case 0: return pwrite(fd, "x", 1, 3);
	case 1: return pwrite(fd, "x", 0, 3);
	case 2: return ftruncate(fd, 2);
	case 3: return truncate(path, 20);
	case 4: return ftruncate(fd, 9); /* its size */
	case 5: return fallocate(fd, 0, 0, 10);
	case 6: return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2);
	case 7: return chown(path, (uid_t)-1, getgid());
	case 8: return chown(path, (uid_t)-1, (gid_t)-1);
	case 9: return chown(path, getuid(), (gid_t)-1);
	case 10: return chmod(path, 06755);
	case 11: fd = open(path, O_WRONLY | O_TRUNC); return fd < 0 ? -1 : close(fd);
	case 12: return setxattr(path, "user.s", "x", 1, 0);
	default: return utimensat(AT_FDCWD, path, NULL, 0);
	}
}

static unsigned some_change(void)
{
	unsigned what = (unsigned)px_rng(14);

	return what == 8 && px_without("chown-none") ? 0 : what;
}

/* Set-user-ID, set-group-ID and capabilities, before and after something is done by somebody. */
static void op_privileges(void)
{
	static const mode_t modes[] = { 06777, 04777, 02777, 02767, 06766, 04766, 06666 };
	static const uint8_t capability[20] = { 1, 0, 0, 2, 0, 0x20 };
	mode_t mode = modes[px_rng(PX_COUNT(modes))];
	size_t user = px_rng(PX_COUNT(users) + 1);
	unsigned what = some_change();
	char path[PX_PATH];
	pid_t pid;
	int fd;

	printf(" %u by %d", what, user < PX_COUNT(users) ? (int)users[user].uid : 0);
	own_file(path, "privileged", 0600);
	step("chown", chown(path, px_rng(2) ? 1000 : 1001, px_rng(2) ? 1000 : 2000));
	if (px_rng(2))
		step("setxattr", setxattr(path, "security.capability", capability, sizeof(capability), 0));
	step("chmod", chmod(path, mode));
	px_show_path(path);
	pid = child();
	if (!pid) {
		if (user < PX_COUNT(users))
			become(user);
		fd = open(path, O_RDWR);
		step("open", fd < 0 ? -1 : 0);
		step("do", one_change(what, path, fd));
		child_ends();
	}
	wait_for(pid);
	px_show_path(path);
	step("getxattr", getxattr(path, "security.capability", NULL, 0));
	step("unlink", unlink(path));
}

/* What is made in a set-group-ID directory, and removed from a sticky one. */
static void op_shared_dir(void)
{
	size_t user = px_rng(PX_COUNT(users));
	mode_t mode = px_rng(2) ? 02777 : 03777, mode_below = px_some_mode();
	char path[PX_PATH];
	size_t len;
	pid_t pid;

	printf(" %o by %u", mode, users[user].uid);
	px_dir_path(path);
	len = strlen(path);
	snprintf(path + len, PX_PATH - len, "/common");
	step("mkdir", mkdir(path, 0700));
	step("chown", chown(path, px_rng(3) ? 1001 : 1000, px_rng(2) ? 2000 : 4000));
	step("chmod", chmod(path, mode));
	pid = child();
	if (!pid) {
		become(user);
		step("chdir", chdir(path));
		step("mkdir", mkdir("d", mode_below));
		px_show_path("d");
		step("mknod", mknod("f", S_IFREG | mode_below, 0));
		px_show_path("f");
		step("chmod", chmod("f", 02711));
		px_show_path("f");
		step("link", link("f", "g"));
		child_ends();
	}
	wait_for(pid);
	pid = child();
	if (!pid) {
		become((user + 1) % PX_COUNT(users));
		step("chdir", chdir(path));
		step("unlink", unlink("f"));
		step("rename", rename("d", "e"));
		step("rename", rename("g", "f"));
		step("rmdir", rmdir("d"));
		step("setxattr", setxattr(".", "user.s", "x", 1, 0));
		child_ends();
	}
	wait_for(pid);
	step("remove", px_remove_tree(path));
}

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static int to_child[2], to_parent[2];

static void open_pipes(void)
{
	if (pipe(to_child) || pipe(to_parent))
		abort();
}

static void close_pipes(void)
{
	close(to_child[0]);
	close(to_child[1]);
	close(to_parent[0]);
	close(to_parent[1]);
}

static void tell(const int pipe_fds[2])
{
	if (write(pipe_fds[1], "x", 1) != 1)
		abort();
}

static void hear(const int pipe_fds[2])
{
	char c;

	if (read(pipe_fds[0], &c, 1) != 1)
		abort();
}

static long lock(int fd, int command, short type, off_t start, off_t len)
{
	struct flock lk = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, command, &lk);
}

static void get_lock(int fd, int command, short type, off_t start, off_t len, pid_t owner)
{
	struct flock lk = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	printf(" getlk");
	if (!px_result(fcntl(fd, command, &lk)))
		return;
	printf(" %d", lk.l_type);
	if (lk.l_type != F_UNLCK)
		printf(" %lld %lld %s", (long long)lk.l_start, (long long)lk.l_len,
		       lk.l_pid == owner ? "its"
		       : lk.l_pid == -1  ? "-1"
					 : "whose?");
}

/* The child has 10 to 19 exclusively and 30 to 39 shared, until it is told. Then it closes another descriptor. */
static void child_locks(const char *path)
{
	int fd = open(path, O_RDWR), other = open(path, O_RDWR);

	step("child", lock(fd, F_SETLK, F_WRLCK, 10, 10));
	step("child", lock(fd, F_SETLK, F_RDLCK, 30, 10));
	fflush(stdout);
	tell(to_parent);
	hear(to_child);
	close(other);
	tell(to_parent);
	hear(to_child);
	step("child", lock(fd, F_SETLK, F_WRLCK, 10, 10));
	child_ends();
}

static void op_fcntl_lock(void)
{
	char path[PX_PATH];
	pid_t pid;
	int fd;

	own_file(path, "locked", 0644);
	fd = open(path, O_RDWR);
	open_pipes();
	pid = child();
	if (!pid)
		child_locks(path);
	hear(to_parent);
	step("wr", lock(fd, F_SETLK, F_WRLCK, 15, 10));
	step("rd", lock(fd, F_SETLK, F_RDLCK, 0, 0));
	step("wr", lock(fd, F_SETLK, F_WRLCK, 20, 10));
	step("rd", lock(fd, F_SETLK, F_RDLCK, 35, 10));
	step("wr", lock(fd, F_SETLK, F_WRLCK, 35, 10));
	get_lock(fd, F_GETLK, F_WRLCK, 0, 0, pid);
	get_lock(fd, F_GETLK, F_RDLCK, 30, 5, pid);
	get_lock(fd, F_GETLK, F_WRLCK, 30, 5, pid);
	step("ofd", lock(fd, F_OFD_SETLK, F_WRLCK, 12, 1));
	tell(to_child);
	hear(to_parent);
	step("wr", lock(fd, F_SETLK, F_WRLCK, 15, 10));
	fflush(stdout);
	tell(to_child);
	wait_for(pid);
	get_lock(fd, F_GETLK, F_WRLCK, 0, 0, pid);
	close_pipes();
	close(fd);
	step("unlink", unlink(path));
}

static void op_ofd_lock(void)
{
	char path[PX_PATH];
	int a, b, c;

	own_file(path, "locked", 0644);
	a = open(path, O_RDWR);
	b = open(path, O_RDWR);
	c = dup(a);
	step("a", lock(a, F_OFD_SETLK, F_WRLCK, 0, 100));
	step("b", lock(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	step("b", lock(b, F_OFD_SETLK, F_RDLCK, 100, 10));
	step("c", lock(c, F_OFD_SETLK, F_WRLCK, 40, 20));
	get_lock(b, F_OFD_GETLK, F_WRLCK, 0, 10, -2);
	close(a);
	step("b", lock(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	step("c", lock(c, F_OFD_SETLK, F_UNLCK, 50, 10));
	step("b", lock(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	close(c);
	step("b", lock(b, F_OFD_SETLK, F_WRLCK, 0, 0));
	close(b);
	step("unlink", unlink(path));
}

static void child_flocks(const char *path)
{
	int fd = open(path, O_RDONLY);

	step("child", flock(fd, LOCK_SH | LOCK_NB));
	fflush(stdout);
	tell(to_parent);
	hear(to_child);
	step("child", flock(fd, LOCK_EX | LOCK_NB));
	fflush(stdout);
	tell(to_parent);
	hear(to_child);
	child_ends();
}

static void op_flock(void)
{
	char path[PX_PATH];
	pid_t pid;
	int fd;

	own_file(path, "locked", 0644);
	fd = open(path, O_RDWR);
	open_pipes();
	pid = child();
	if (!pid)
		child_flocks(path);
	hear(to_parent);
	step("ex", flock(fd, LOCK_EX | LOCK_NB));
	step("sh", flock(fd, LOCK_SH | LOCK_NB));
	step("un", flock(fd, LOCK_UN));
	fflush(stdout);
	tell(to_child);
	hear(to_parent);
	step("sh", flock(fd, LOCK_SH | LOCK_NB));
	fflush(stdout);
	tell(to_child);
	wait_for(pid);
	step("ex", flock(fd, LOCK_EX | LOCK_NB));
	close_pipes();
	close(fd);
	step("unlink", unlink(path));
}

/* Waits for a lock until the child ends; and for one that both wait for. */
static void op_lock_wait(void)
{
	char path[PX_PATH];
	pid_t pid;
	int fd;

	own_file(path, "locked", 0644);
	fd = open(path, O_RDWR);
	open_pipes();
	step("wr", lock(fd, F_SETLK, F_WRLCK, 0, 10));
	pid = child();
	if (!pid) {
		int mine = open(path, O_RDWR);

		step("child", lock(mine, F_SETLK, F_WRLCK, 10, 10));
		fflush(stdout);
		tell(to_parent);
		lock(mine, F_SETLKW, F_WRLCK, 0, 10);
		nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
		_exit(0);
	}
	hear(to_parent);
	nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
	step("deadlock", lock(fd, F_SETLKW, F_WRLCK, 10, 10));
	step("un", lock(fd, F_SETLK, F_UNLCK, 0, 10));
	step("wait", lock(fd, F_SETLKW, F_WRLCK, 10, 10));
	wait_for(pid);
	close_pipes();
	close(fd);
	step("unlink", unlink(path));
}

/* ---- pipes and sockets ------------------------------------------------------------------------------------------- */

static void op_fifo(void)
{
	char path[PX_PATH];
	size_t len;
	pid_t pid;
	int fd;

	px_dir_path(path);
	len = strlen(path);
	snprintf(path + len, PX_PATH - len, "/fifo");
	step("mkfifo", mkfifo(path, 0644));
	pid = child();
	if (!pid) {
		fd = open(path, O_WRONLY);
		if (write(fd, "through the pipe", 16) != 16)
			_exit(1);
		_exit(0);
	}
	fd = open(path, O_RDONLY);
	step("open", fd < 0 ? -1 : 0);
	wait_for(pid);
	step("read", read(fd, px_buf, 100));
	step("read", read(fd, px_buf, 100));
	px_show_fd(fd);
	close(fd);
	step("unlink", unlink(path));
}

static void op_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	char path[PX_PATH];

	px_dir_path(path);
	/* Its address is short. */
	if (chdir(path)) {
		px_result(-1);
	} else {
		memcpy(address.sun_path, "socket", 7);
		step("bind", bind(server, (struct sockaddr *)&address, sizeof(address)));
		step("bind", bind(client, (struct sockaddr *)&address, sizeof(address)));
		px_show_path("socket");
		step("connect", connect(client, (struct sockaddr *)&address, sizeof(address)));
		step("listen", listen(server, 1));
		step("connect", connect(client, (struct sockaddr *)&address, sizeof(address)));
		step("unlink", unlink("socket"));
		if (chdir("/"))
			abort();
	}
	close(client);
	close(server);
}

const struct px_op px_peer_ops[] = {
	{ 90, "user", op_user },
	{ 16, "privileges", op_privileges },
	{ 8, "shared_dir", op_shared_dir },
	{ 3, "fcntl_lock", op_fcntl_lock },
	{ 3, "ofd_lock", op_ofd_lock },
	{ 3, "flock", op_flock },
	{ 2, "lock_wait", op_lock_wait },
	{ 3, "fifo", op_fifo },
	{ 3, "socket", op_socket },
	{ 0 },
};
