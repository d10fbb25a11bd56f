/*
 * cli/mount.c: `inlay mount`: serves a volume until it is unmounted, in a process of its own.
 * Not here: requests (the library); what is told about a mount (cli/status.c), and how it ends (cli/umount.c).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#include "cli/mount.h"
#include "cli/change.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- options, as fstab has them ---------------------------------------------------------------------------------- */

/* What mount(8) and its like keep for themselves. */
static bool is_for_others(const char *option)
{
	static const char *const names[] = { "defaults", "auto",  "noauto", "nofail", "_netdev", "user",
					     "users",    "owner", "group",  "nouser", "noowner", "rw",
					     "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
					     "nodiratime", "diratime", "iversion", "noiversion", "silent", "loud", "mand",
					     "nomand", "nosymfollow" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(option, names[i]))
			return true;
	}
	return !strncmp(option, "x-", 2) || !strncmp(option, "comment=", 8);
}

/* Our own are taken, those of nobody here dropped; the others go to rest, which has room for all. Cuts text up. */
static int take_options(struct inl_cli *cli, char *text, char *rest)
{
	char *save = NULL, *end = rest;
	int code = 0;

	*rest = '\0';
	for (char *word = strtok_r(text, ",", &save); word && !code; word = strtok_r(NULL, ",", &save)) {
		if (!strncmp(word, "key=", 4)) {
			code = inl_cli_add_key_file(cli, word + 4, false);
		} else if (!strncmp(word, "key-hex=", 8)) {
			code = inl_cli_add_key_file(cli, word + 8, true);
		} else if (!strcmp(word, "passphrase")) {
			cli->given[INL_OPT_PASSPHRASE] = true;
		} else if (!strncmp(word, "protector=", 10)) {
			code = inl_cli_add_protector(cli, word + 10);
		} else if (!strcmp(word, "ro")) {
			cli->given[INL_OPT_READ_ONLY] = true;
		} else if (!is_for_others(word)) {
			if (end != rest)
				*end++ = ',';
			memcpy(end, word, strlen(word) + 1);
			end += strlen(word);
		}
	}
	return code;
}

/* ---- the process that serves ------------------------------------------------------------------------------------- */

/* Whoever typed the command waits until the mount is there, and has the exit code. */
struct waiter {
	int fd; /* -1: nobody */
};

static void tell(struct waiter *waiter, int code)
{
	unsigned char byte = (unsigned char)code;

	if (waiter->fd < 0)
		return;
	while (write(waiter->fd, &byte, 1) < 0 && errno == EINTR)
		;
	close(waiter->fd);
	waiter->fd = -1;
}

/* From the background nothing is said any more. */
static void leave_terminal(void)
{
	int fd = open("/dev/null", O_RDWR);

	setsid();
	fflush(stdout);
	for (int i = 0; fd >= 0 && i <= 2; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	/* So that the folder it was started in can be unmounted. */
	if (chdir("/"))
		return;
}

/* Returns in the child; the parent gets an exit code in *code and true. */
static bool fork_server(struct inl_cli *cli, struct waiter *waiter, int *code)
{
	unsigned char byte = INL_EXIT_FAILED;
	int fds[2], status = 0;
	pid_t pid;
	ssize_t n;

	fflush(stdout);
	if (pipe2(fds, O_CLOEXEC)) {
		*code = inl_cli_error(cli, NULL, -errno, NULL);
		return true;
	}
	pid = fork();
	if (pid < 0) {
		*code = inl_cli_error(cli, NULL, -errno, NULL);
		close(fds[0]);
		close(fds[1]);
		return true;
	}
	if (!pid) {
		close(fds[0]);
		waiter->fd = fds[1]; /* the terminal is left later: passphrases are asked for on it */
		return false;
	}
	close(fds[1]);
	while ((n = read(fds[0], &byte, 1)) < 0 && errno == EINTR)
		;
	close(fds[0]);
	/* It has ended before it could say anything, with a message; or it serves. */
	if (n == 1 && byte == INL_EXIT_OK) {
		*code = INL_EXIT_OK;
	} else {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		*code = n == 1 ? byte : INL_EXIT_FAILED;
		if (WIFSIGNALED(status))
			inl_cli_fail(cli, *code, NULL, "the server was ended by signal %d", WTERMSIG(status));
	}
	return true;
}

static void signals_of(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

struct ender {
	struct inl_mount *mount;
	pthread_t thread;
	atomic_bool over; /* it has ended already */
};

/* Waits for a signal to end the mount. */
static void *end_on_signal(void *arg)
{
	struct ender *ender = arg;
	sigset_t set;
	int number;

	signals_of(&set);
	if (!sigwait(&set, &number) && !atomic_load(&ender->over))
		inl_mount_end(ender->mount);
	return NULL;
}

/* Until it is unmounted. */
static int serve(struct inl_cli *cli, struct inl_mount *mount, struct waiter *waiter, const char *dir)
{
	struct ender ender = { .mount = mount };
	struct inl_diag diag = { 0 };
	sigset_t set;
	int err;

	/* Before there are threads: none of them is interrupted, one waits for it. */
	signals_of(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	err = inl_mount_start(mount, &diag);
	if (!err)
		err = -pthread_create(&ender.thread, NULL, end_on_signal, &ender);
	if (err) {
		inl_mount_end(mount);
		return inl_cli_error(cli, dir, err, &diag);
	}
	if (waiter->fd >= 0)
		leave_terminal();
	tell(waiter, INL_EXIT_OK);
	inl_mount_wait(mount);
	atomic_store(&ender.over, true);
	pthread_kill(ender.thread, SIGTERM);
	pthread_join(ender.thread, NULL);
	return 0;
}

static int mount_volume(struct inl_cli *cli, const char *image, const char *dir, const char *rest,
			struct waiter *waiter)
{
	char *path = realpath(image, NULL); /* NULL: a stack of devices */
	struct inl_mounted what = { .cli = cli, .image = path ? path : image, .dir = dir };
	struct inl_mount_options options = {
		.source = what.image,
		.options = rest,
		.read_only = cli->given[INL_OPT_READ_ONLY],
		.report = inl_mounted_describe,
		.arg = &what,
	};
	struct inl_diag diag = { 0 };
	struct inl_mount *mount;
	int err, code;

	if (!options.read_only)
		cli->flags |= INL_VOLUME_WRITE;
	cli->claims = true;
	code = inl_cli_open(cli, image);
	options.keys = cli->keys;
	err = code ? 0 : inl_mount_new(cli->vol, dir, &options, &diag, &mount);
	if (err)
		code = inl_cli_error(cli, dir, err, &diag);
	if (!code) {
		what.mount = mount;
		code = serve(cli, mount, waiter, dir);
		inl_mount_free(mount);
		code = inl_cli_worse(code, inl_cli_close(cli));
	}
	free(path);
	return code;
}

int inl_cli_mount(struct inl_cli *cli, int n_args, char **args)
{
	const char *given = cli->values[INL_OPT_MOUNT_OPTIONS] ? cli->values[INL_OPT_MOUNT_OPTIONS] : "";
	char *text = inl_cli_strdup(given, strlen(given)), *rest = inl_cli_alloc(strlen(given) + 1);
	struct waiter waiter = { -1 };
	int code;

	code = take_options(cli, text, rest);
	if (!code && (cli->given[INL_OPT_FOREGROUND] || !fork_server(cli, &waiter, &code))) {
		code = mount_volume(cli, args[0], args[1], rest, &waiter);
		tell(&waiter, code);
	}
	free(text);
	free(rest);
	return code;
}
