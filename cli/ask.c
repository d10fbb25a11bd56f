/*
 * cli/ask.c: asks people for passphrases, straight into secret memory.
 * Not here: what they are good for (cli/protector.c).
 * Read more: doc/inlay.1, "PASSPHRASES"; termios(3), systemd-ask-password(1).
 */
#include "cli/secret.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

#define PROMPT_MAX	  600  /* bytes */
#define TERMINAL_LINE_MAX 4095 /* bytes: N_TTY_BUF_SIZE of Linux, but for the line feed */

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/*
 * A line from a descriptor, or what is left of it, without the line feed. By bytes: what follows is for others.
 *
 * Returns: 0; -ENODATA (nothing was there); -EMSGSIZE; -EINTR; other -errno.
 */
static int read_line(int fd, char *bytes, size_t room, size_t *len)
{
	size_t n = 0;

	for (;;) {
		ssize_t got = read(fd, bytes + n, 1);

		if (got < 0)
			return -errno;
		if (!got && !n)
			return -ENODATA;
		if (!got || bytes[n] == '\n')
			break;
		if (++n == room)
			return -EMSGSIZE;
	}
	/* Where lines end with both, the tool fscrypt takes the first one for the end. */
	if (n && bytes[n - 1] == '\r')
		n--;
	bytes[n] = '\0';
	*len = n;
	return 0;
}

static int read_error(struct inl_cli *cli, const char *where, int err)
{
	if (err == -ENODATA)
		return inl_cli_fail(cli, INL_EXIT_KEY, where, "no passphrase came");
	if (err == -EMSGSIZE)
		return inl_cli_fail(cli, INL_EXIT_KEY, where, "more than %d bytes: no passphrase is as long",
				    INL_PASSPHRASE_MAX);
	return inl_cli_error(cli, where, err, NULL);
}

static int from_fd(struct inl_cli *cli, struct inl_typed *typed)
{
	char where[64];
	uint64_t fd = 0;
	int err, code = inl_cli_number(cli, INL_OPT_PASSPHRASE_FD, 0, INT32_MAX, &fd);

	if (code)
		return code;
	do {
		err = read_line((int)fd, typed->bytes, INL_PASSPHRASE_MAX + 1, &typed->len);
	} while (err == -EINTR);
	snprintf(where, sizeof(where), "descriptor %d", (int)fd);
	return err ? read_error(cli, where, err) : 0;
}

/* ---- the terminal ------------------------------------------------------------------------------------------------ */

static const int ending[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
#define N_ENDING (sizeof(ending) / sizeof(ending[0]))

static volatile sig_atomic_t ended_by;

static void on_signal(int number)
{
	ended_by = number;
}

/* Whoever is ended here must first give the terminal its echo back. */
static void catch_endings(struct sigaction old[N_ENDING])
{
	const struct sigaction action = { .sa_handler = on_signal };

	ended_by = 0;
	for (size_t i = 0; i < N_ENDING; i++) {
		sigaction(ending[i], NULL, &old[i]);
		if (old[i].sa_handler != SIG_IGN)
			sigaction(ending[i], &action, NULL);
	}
}

static void release_endings(const struct sigaction old[N_ENDING])
{
	for (size_t i = 0; i < N_ENDING; i++)
		sigaction(ending[i], &old[i], NULL);
	if (ended_by)
		raise(ended_by);
}

/* Names come from volumes: nothing in them may steer the terminal, or whoever asks for us. For free(); NULL: no memory. */
static char *harmless(const char *prompt, const char *end)
{
	char *line = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&line, &len);

	if (!out)
		return NULL;
	inl_text_put(out, prompt, strnlen(prompt, PROMPT_MAX), true);
	fputs(end, out);
	if (!fclose(out))
		return line;
	free(line);
	return NULL;
}

static void put_prompt(int fd, const char *prompt)
{
	char *line = harmless(prompt, ": ");

	/* Where it cannot be shown, one is asked all the same. */
	if (line && write(fd, line, strlen(line)) < 0)
		line[0] = '\0';
	free(line);
}

/* 0 or -errno; -EINTR: ended, by a signal that was given on. */
static int read_hidden(int fd, const char *prompt, char *bytes, size_t room, size_t *len)
{
	struct sigaction old[N_ENDING];
	struct termios normal, hidden;
	int err;

	if (tcgetattr(fd, &normal))
		return -errno;
	catch_endings(old);
	hidden = normal;
	hidden.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	hidden.c_lflag |= ICANON | ISIG;
	hidden.c_cc[VSUSP] = _POSIX_VDISABLE; /* who stops would leave it without echo */
	tcsetattr(fd, TCSAFLUSH, &hidden);
	put_prompt(fd, prompt);
	do {
		err = read_line(fd, bytes, room, len);
	} while (err == -EINTR && !ended_by);
	tcsetattr(fd, TCSAFLUSH, &normal);
	if (write(fd, "\n", 1) < 0 && !err)
		err = -errno;
	release_endings(old);
	return err;
}

static int open_terminal(void)
{
	return open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
}

bool inl_ask_line(const char *prompt, char *line, size_t room)
{
	int err, fd = open_terminal();
	size_t len;

	if (fd < 0)
		return false;
	put_prompt(fd, prompt);
	do {
		err = read_line(fd, line, room, &len);
	} while (err == -EINTR);
	close(fd);
	return !err;
}

/* ---- systemd ----------------------------------------------------------------------------------------------------- */

#define ASKER "systemd-ask-password"

/* 0, -ENOENT (there is none), -ECANCELED, or -errno. */
static int ask_by_asker(const char *prompt, char *bytes, size_t room, size_t *len)
{
	const char *const argv[] = { ASKER, "--no-tty", "--", prompt, NULL };
	posix_spawn_file_actions_t actions;
	int fds[2], err, status = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	err = -posix_spawnp(&pid, ASKER, &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (!err) {
		do {
			err = read_line(fds[0], bytes, room, len);
		} while (err == -EINTR);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(fds[0]);
	return !err && status ? -ECANCELED : err;
}

static int from_asker(const char *prompt, char *bytes, size_t room, size_t *len)
{
	char *line = harmless(prompt, "");
	int err = line ? ask_by_asker(line, bytes, room, len) : -ENOMEM;

	free(line);
	return err;
}

static int from_person(struct inl_cli *cli, const char *prompt, struct inl_typed *typed)
{
	int err, fd = open_terminal();

	if (fd >= 0) {
		err = read_hidden(fd, prompt, typed->bytes, INL_PASSPHRASE_MAX + 1, &typed->len);
		close(fd);
		/* It drops what is longer, and does not say so. */
		if (!err && typed->len >= TERMINAL_LINE_MAX)
			return inl_cli_fail(cli, INL_EXIT_KEY, "the terminal",
					    "passes no more than %d bytes: --passphrase-fd N takes more",
					    TERMINAL_LINE_MAX - 1);
		return err ? read_error(cli, "the terminal", err) : 0;
	}
	err = from_asker(prompt, typed->bytes, INL_PASSPHRASE_MAX + 1, &typed->len);
	if (err == -ENOENT)
		return inl_cli_fail(
			cli, INL_EXIT_USAGE, NULL,
			"there is no terminal to ask on: --passphrase-fd N reads the passphrase from a descriptor");
	return err ? read_error(cli, ASKER, err) : 0;
}

int inl_ask(struct inl_cli *cli, const char *prompt, struct inl_typed *typed)
{
	int code;

	typed->len = 0;
	typed->bytes = inl_secret_alloc(INL_TYPED_ROOM);
	if (!typed->bytes)
		return inl_cli_fail(cli, INL_EXIT_FAILED, NULL, "no secret memory left");
	code = cli->given[INL_OPT_PASSPHRASE_FD] ? from_fd(cli, typed) : from_person(cli, prompt, typed);
	if (code) {
		inl_secret_free(typed->bytes);
		typed->bytes = NULL;
	}
	return code;
}

bool inl_ask_again(const struct inl_cli *cli)
{
	return !cli->given[INL_OPT_PASSPHRASE_FD];
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

int inl_ask_file(struct inl_cli *cli, const char *file, struct inl_typed *typed)
{
	bool standard = !strcmp(file, "-");
	const char *where = standard ? "standard input" : file;
	int code = 0, fd = standard ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t got = 1;

	if (fd < 0)
		return inl_cli_error(cli, where, -errno, NULL);
	typed->bytes = inl_secret_alloc(INL_TYPED_ROOM);
	if (!typed->bytes)
		code = inl_cli_fail(cli, INL_EXIT_FAILED, NULL, "no secret memory left");
	while (!code && got && n <= INL_PROTECTOR_KEY_SIZE) {
		got = read(fd, typed->bytes + n, INL_PROTECTOR_KEY_SIZE + 1 - n);
		if (got < 0 && errno != EINTR)
			code = inl_cli_error(cli, where, -errno, NULL);
		n += got > 0 ? (size_t)got : 0;
	}
	if (!code && n != INL_PROTECTOR_KEY_SIZE)
		code = inl_cli_fail(cli, INL_EXIT_KEY, where,
				    "the key of a protector has %d bytes, no more and no fewer",
				    INL_PROTECTOR_KEY_SIZE);
	if (!standard)
		close(fd);
	typed->len = n;
	if (code) {
		inl_secret_free(typed->bytes);
		typed->bytes = NULL;
	}
	return code;
}
