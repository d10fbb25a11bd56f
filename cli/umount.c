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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WAIT_SECONDS 120 /* for whatever the medium has to do */

/* -1: cannot be waited for (another PID namespace). */
static int open_server(int fd)
{
	pid_t pid;

	if (inl_mounted_server(fd, &pid))
		return -1;
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Is it mounted elsewhere, too, as far as can be seen? To be asked before: numbers of devices are used again. */
static bool is_elsewhere(dev_t dev)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	unsigned at[2], n = 0;
	char line[8192];

	while (mounts && fgets(line, sizeof(line), mounts))
		n += sscanf(line, "%*u %*u %u:%u ", &at[0], &at[1]) == 2 && makedev(at[0], at[1]) == dev;
	if (mounts)
		fclose(mounts);
	return n > 1;
}

/* However long the medium takes; but who serves another mount of it, or is not who we take it for, does not end. */
static int wait_for_end(struct inl_cli *cli, int pid_fd, const char *dir, bool elsewhere)
{
	struct pollfd poll_fd = { .fd = pid_fd, .events = POLLIN };

	for (int seconds = 0; seconds < WAIT_SECONDS; seconds++) {
		if (poll(&poll_fd, 1, 1000) > 0)
			return 0;
		if (elsewhere)
			return inl_cli_fail(cli, INL_EXIT_FAILED, dir,
					    "is not mounted here any more, but elsewhere; its server goes on");
	}
	return inl_cli_fail(cli, INL_EXIT_FAILED, dir,
			    "is not mounted here any more, but its server has not ended yet");
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
	bool elsewhere;
	struct stat st;

	if (!inl_mounted_open(args[0], &fd))
		return inl_cli_fail(cli, INL_EXIT_FAILED, args[0], "is not in a mount of Inlay");
	pid_fd = open_server(fd);
	elsewhere = !fstat(fd, &st) && is_elsewhere(st.st_dev);
	/* What programs have written goes to the server, and from there to the medium: errors are told while they can be. */
	syncfs(fd);
	err = inl_mounted_sync(fd);
	if (err)
		inl_cli_error(cli, args[0], err, NULL);
	close(fd);
	code = unmount(cli, args[0]);
	if (!code && pid_fd >= 0)
		code = wait_for_end(cli, pid_fd, args[0], elsewhere);
	if (pid_fd >= 0)
		close(pid_fd);
	return inl_cli_worse(code, err ? INL_EXIT_FAILED : 0);
}
