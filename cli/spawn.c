/*
 * cli/spawn.c: runs the programs of e2fsprogs, without a shell.
 * Not here: what they are asked for (cli/mkfs.c, cli/fsck.c).
 * Read more: posix_spawn(3).
 */
#include "cli/change.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Where e2fsprogs is, also where PATH does not say so: users other than root rarely have it there. */
#define SYSTEM_PATH "/usr/sbin:/sbin:/usr/local/sbin"

/* Look a program up in one list of folders. */
static bool find_in(const char *folders, const char *name, char path[PATH_MAX])
{
	while (folders && *folders) {
		int len = (int)strcspn(folders, ":");

		if (len && snprintf(path, PATH_MAX, "%.*s/%s", len, folders, name) < PATH_MAX && !access(path, X_OK))
			return true;
		folders += len;
		folders += *folders == ':';
	}
	return false;
}

static int find(struct inl_cli *cli, const char *name, char path[PATH_MAX])
{
	if (find_in(getenv("PATH"), name, path) || find_in(SYSTEM_PATH, name, path))
		return 0;
	return inl_cli_fail(cli, INL_EXIT_FAILED, name, "no such program; the package %s has it",
			    strcmp(name, "fusermount3") ? "e2fsprogs" : "fuse3");
}

static void keep_reading(int fd, char *said, size_t room)
{
	char more[512];
	size_t len = 0;

	for (;;) {
		size_t left = room - 1 - len;
		ssize_t n = read(fd, left ? said + len : more, left ? left : sizeof(more));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += left ? (size_t)n : 0;
	}
	said[len] = '\0';
}

/* Returns 0 or -errno. pipe_fd -1: output goes where ours goes. */
static int start(const char *path, const char *const *argv, int pipe_fd, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int err = posix_spawn_file_actions_init(&actions);

	if (err)
		return -err;
	err = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!err && pipe_fd >= 0) {
		err = posix_spawn_file_actions_adddup2(&actions, pipe_fd, STDOUT_FILENO);
		if (!err)
			err = posix_spawn_file_actions_adddup2(&actions, pipe_fd, STDERR_FILENO);
	}
	if (!err)
		err = posix_spawn(pid, path, &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

static int wait_for(pid_t pid, int *status)
{
	int how;

	while (waitpid(pid, &how, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	*status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
	return 0;
}

int inl_spawn(struct inl_cli *cli, const char *const *argv, char *said, size_t room, int *status)
{
	int err, code, fds[2] = { -1, -1 };
	char path[PATH_MAX];
	pid_t pid;

	code = find(cli, argv[0], path);
	if (code)
		return code;
	fflush(stdout);
	if (said && pipe2(fds, O_CLOEXEC))
		return inl_cli_error(cli, argv[0], -errno, NULL);
	err = start(path, argv, fds[1], &pid);
	if (fds[1] >= 0)
		close(fds[1]);
	if (!err && said)
		keep_reading(fds[0], said, room);
	if (fds[0] >= 0)
		close(fds[0]);
	if (!err)
		err = wait_for(pid, status);
	return err ? inl_cli_error(cli, argv[0], err, NULL) : 0;
}
