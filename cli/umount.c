/*
 * cli/umount.c: `inlay umount`: ends a mount, and waits until the volume is at rest.
 * Not here: what the server does then (the library).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#include "cli/change.h"
#include "cli/mount.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* -1: cannot be waited for (another PID namespace). */
static int open_server(int fd)
{
	pid_t pid;

	if (inl_mounted_server(fd, &pid))
		return -1;
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void wait_for_end(int pid_fd)
{
	struct pollfd poll_fd = { .fd = pid_fd, .events = POLLIN };

	while (poll(&poll_fd, 1, -1) < 0 && errno == EINTR)
		;
}

static int busy(struct inl_cli *cli, const char *dir)
{
	return inl_cli_fail(cli, INL_EXIT_FAILED, dir, "is in use; see: fuser -vm %s", dir);
}

/* As an ordinary user only fusermount3 may. */
static int unmount(struct inl_cli *cli, const char *dir)
{
	const char *const argv[] = { "fusermount3", "-u", "--", dir, NULL };
	char said[512];
	int status, code;

	if (!umount2(dir, UMOUNT_NOFOLLOW))
		return 0;
	if (errno == EBUSY)
		return busy(cli, dir);
	if (errno != EPERM)
		return inl_cli_error(cli, dir, -errno, NULL);
	code = inl_spawn(cli, argv, said, sizeof(said), &status);
	if (code || !status)
		return code;
	if (strstr(said, "busy"))
		return busy(cli, dir);
	said[strcspn(said, "\n")] = '\0';
	return inl_cli_fail(cli, INL_EXIT_FAILED, dir, "%s", said);
}

int inl_cli_umount(struct inl_cli *cli, int n_args, char **args)
{
	int fd, pid_fd, err, code;

	if (!inl_mounted_open(args[0], &fd))
		return inl_cli_fail(cli, INL_EXIT_FAILED, args[0], "is not in a mount of Inlay");
	pid_fd = open_server(fd);
	/* What programs have written goes to the server, and all that it has to the medium: errors are told while they
	 * can be. */
	syncfs(fd);
	err = inl_mounted_sync(fd);
	if (err)
		inl_cli_error(cli, args[0], err, NULL);
	close(fd);
	code = unmount(cli, args[0]);
	if (!code && pid_fd >= 0)
		wait_for_end(pid_fd);
	if (pid_fd >= 0)
		close(pid_fd);
	return inl_cli_worse(code, err ? INL_EXIT_FAILED : 0);
}
