/*
 * cli/status.c: `inlay status`: what a mount is doing; and the process that serves it, telling.
 * Not here: the volume as such (cli/info.c), devices (cli/device.c).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#include "cli/info.h"
#include "cli/json.h"
#include "cli/mount.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- in the process that serves ---------------------------------------------------------------------------------- */

static const char *state_of(const struct inl_cli *cli, const struct inl_volume_info *info)
{
	if (!(cli->flags & INL_VOLUME_WRITE))
		return "read-only";
	return info->writable ? "writable" : "read-only since an error: what was not durable by then is lost";
}

static void print_served(const struct inl_mount *mount)
{
	struct inl_mount_counters counters;
	char in[16], out[16];

	inl_mount_counters(mount, &counters);
	printf("Served       %" PRIu64 " requests; %s read, %s written; %" PRIu64 " errors\n", counters.requests,
	       inl_text_size(counters.bytes_read, out), inl_text_size(counters.bytes_written, in), counters.errors);
	printf("In use       %" PRIu64 " files and directories open, %" PRIu64 " removed and still in use\n",
	       counters.n_open, counters.n_orphans);
}

static void print_journal(struct inl_volume *vol)
{
	struct inl_volume_journal journal;

	inl_volume_journal(vol, &journal);
	if (journal.n_blocks)
		printf("Log          %" PRIu64 " commits of %" PRIu64 " blocks; %" PRIu32 " of %" PRIu32
		       " blocks in use\n",
		       journal.n_commits, journal.n_logged, journal.n_used, journal.n_blocks);
}

static void json_journal(struct inl_json *json, struct inl_volume *vol)
{
	struct inl_volume_journal journal;

	inl_volume_journal(vol, &journal);
	inl_json_open(json, "journal", '{');
	inl_json_u64(json, "blocks", journal.n_blocks);
	inl_json_u64(json, "used", journal.n_used);
	inl_json_u64(json, "commits", journal.n_commits);
	inl_json_u64(json, "logged", journal.n_logged);
	inl_json_close(json, '}');
}

static void print_holders(struct inl_mount *mount, const struct inl_key_spec *spec)
{
	struct inl_holder *holders;
	unsigned n;

	if (inl_mount_holders(mount, spec, &holders, &n))
		return;
	for (unsigned i = 0; i < n; i++) {
		printf("             in use: ");
		if (holders[i].path)
			inl_text_put(stdout, holders[i].path, strlen(holders[i].path), true);
		else
			printf("inode %" PRIu64, holders[i].ino);
		if (holders[i].pid) {
			printf(" by process %d (", (int)holders[i].pid);
			inl_text_put(stdout, holders[i].command, strlen(holders[i].command), true);
			printf(")\n");
		} else {
			printf(" by a process that cannot be looked at\n");
		}
	}
	inl_holders_free(holders, n);
}

#define USERS_SHOWN 16

static void print_claims(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	uint32_t uids[USERS_SHOWN];
	unsigned n = inl_keyring_claimants(ring, spec, uids, USERS_SHOWN);

	for (unsigned i = 0; i < n && i < USERS_SHOWN; i++)
		printf("%s %" PRIu32, i ? "," : n == 1 ? ", of user" : ", of users", uids[i]);
	if (n > USERS_SHOWN)
		printf(" and %u more", n - USERS_SHOWN);
}

static const char *key_state(enum inl_key_state state)
{
	return state == INL_KEY_PRESENT ? "present" : state == INL_KEY_ABSENT ? "absent" : "incompletely removed";
}

static void print_key(const struct inl_mounted *what, unsigned i)
{
	struct inl_keyring *ring = what->cli->keys;
	struct inl_key_status status;
	char hex[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec, old = { 0 };

	if (inl_keyring_known(ring, i, 2, &spec) || inl_keyring_status(ring, &spec, 0, &status))
		return;
	printf("Key          %s", inl_key_spec_hex(&spec, hex));
	if (!inl_keyring_known(ring, i, 1, &old))
		printf(" (version 1: %s)", inl_key_spec_hex(&old, hex));
	printf(": %s", key_state(status.state));
	print_claims(ring, &spec);
	putchar('\n');
	if (status.state != INL_KEY_PRESENT) {
		print_holders(what->mount, &spec);
		print_holders(what->mount, &old);
	}
}

static void print_keys(const struct inl_mounted *what)
{
	struct inl_key_spec spec;

	for (unsigned i = 0; !inl_keyring_known(what->cli->keys, i, 2, &spec); i++)
		print_key(what, i);
}

static int print_status(const struct inl_mounted *what)
{
	struct inl_cli *cli = what->cli;
	struct inl_volume_info info;
	int err;

	inl_volume_info(cli->vol, &info);
	printf("Mount        %s on %s, served by process %d\n", what->image, what->dir, (int)getpid());
	printf("State        %s\n", state_of(cli, &info));
	if (info.error)
		printf("             by an error of the device: %s\n", strerror(-info.error));
	print_served(what->mount);
	print_journal(cli->vol);
	print_keys(what);
	err = inl_info_print(cli, NULL);
	if (!err)
		inl_cli_counters_tree(cli->dev, NULL);
	return err;
}

static void json_served(struct inl_json *json, const struct inl_mount *mount)
{
	struct inl_mount_counters counters;

	inl_mount_counters(mount, &counters);
	inl_json_open(json, "served", '{');
	inl_json_u64(json, "requests", counters.requests);
	inl_json_u64(json, "reads", counters.reads);
	inl_json_u64(json, "writes", counters.writes);
	inl_json_u64(json, "bytes_read", counters.bytes_read);
	inl_json_u64(json, "bytes_written", counters.bytes_written);
	inl_json_u64(json, "errors", counters.errors);
	inl_json_u64(json, "open", counters.n_open);
	inl_json_u64(json, "removed_in_use", counters.n_orphans);
	inl_json_u64(json, "inodes_in_memory", counters.n_inodes);
	inl_json_close(json, '}');
}

static void json_holders(struct inl_json *json, struct inl_mount *mount, const struct inl_key_spec *spec)
{
	struct inl_holder *holders;
	unsigned n;

	if (inl_mount_holders(mount, spec, &holders, &n))
		return;
	for (unsigned i = 0; i < n; i++) {
		inl_json_open(json, NULL, '{');
		inl_json_u64(json, "inode", holders[i].ino);
		if (holders[i].pid) {
			inl_json_u64(json, "process", (uint64_t)holders[i].pid);
			inl_json_name(json, "command", holders[i].command, strlen(holders[i].command));
		}
		if (holders[i].path)
			inl_json_name(json, "path", holders[i].path, strlen(holders[i].path));
		inl_json_close(json, '}');
	}
	inl_holders_free(holders, n);
}

static void json_claims(struct inl_json *json, struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	uint32_t uids[INL_CLAIMS_PER_KEY_MAX];
	unsigned n = inl_keyring_claimants(ring, spec, uids, INL_CLAIMS_PER_KEY_MAX);

	inl_json_open(json, "claims", '[');
	for (unsigned i = 0; i < n && i < INL_CLAIMS_PER_KEY_MAX; i++)
		inl_json_u64(json, NULL, uids[i]);
	inl_json_close(json, ']');
}

static void json_key(struct inl_json *json, const struct inl_mounted *what, unsigned i)
{
	struct inl_keyring *ring = what->cli->keys;
	struct inl_key_spec spec, old = { 0 };
	struct inl_key_status status;

	if (inl_keyring_known(ring, i, 2, &spec) || inl_keyring_status(ring, &spec, 0, &status))
		return;
	inl_json_open(json, NULL, '{');
	inl_json_hex(json, "identifier", spec.bytes, INL_KEY_IDENTIFIER_SIZE);
	if (!inl_keyring_known(ring, i, 1, &old))
		inl_json_hex(json, "descriptor", old.bytes, INL_KEY_DESCRIPTOR_SIZE);
	inl_json_text(json, "state", key_state(status.state));
	json_claims(json, ring, &spec);
	inl_json_open(json, "busy", '[');
	if (status.state != INL_KEY_PRESENT) {
		json_holders(json, what->mount, &spec);
		json_holders(json, what->mount, &old);
	}
	inl_json_close(json, ']');
	inl_json_close(json, '}');
}

static void json_keys(struct inl_json *json, const struct inl_mounted *what)
{
	struct inl_key_spec spec;

	inl_json_open(json, "keys", '[');
	for (unsigned i = 0; !inl_keyring_known(what->cli->keys, i, 2, &spec); i++)
		json_key(json, what, i);
	inl_json_close(json, ']');
}

static int json_status(const struct inl_mounted *what)
{
	struct inl_json json = { 0 };
	struct inl_cli *cli = what->cli;
	struct inl_volume_info info;
	int err;

	inl_volume_info(cli->vol, &info);
	inl_json_open(&json, NULL, '{');
	inl_json_name(&json, "image", what->image, strlen(what->image));
	inl_json_name(&json, "directory", what->dir, strlen(what->dir));
	inl_json_u64(&json, "process", (uint64_t)getpid());
	inl_json_bool(&json, "writable", info.writable);
	inl_json_text(&json, "error", info.error ? strerror(-info.error) : NULL);
	json_served(&json, what->mount);
	json_journal(&json, cli->vol);
	json_keys(&json, what);
	inl_json_open(&json, "volume", '{');
	err = inl_info_json(cli, &json, NULL);
	inl_json_close(&json, '}');
	inl_cli_json_device(&json, "device", cli->dev, NULL);
	inl_json_close(&json, '}');
	return err;
}

/* What was printed into a file. */
static int take_text(int fd, char **text, size_t *len)
{
	struct stat st;
	ssize_t got;

	if (fstat(fd, &st))
		return -errno;
	*text = malloc((size_t)st.st_size + 1);
	if (!*text)
		return -ENOMEM;
	got = pread(fd, *text, (size_t)st.st_size, 0);
	if (got < 0) {
		free(*text);
		return -errno;
	}
	(*text)[got] = '\0';
	*len = (size_t)got;
	return 0;
}

/*
 * All that prints here prints to standard output, so that is turned to memory meanwhile; one call at a time. Nothing
 * else is printed by a process that serves.
 */
int inl_mounted_describe(void *arg, bool json, char **text, size_t *len)
{
	const struct inl_mounted *what = arg;
	int err, fd = memfd_create("status", MFD_CLOEXEC), before = dup(STDOUT_FILENO);

	if (fd < 0 || before < 0 || fflush(stdout) || dup2(fd, STDOUT_FILENO) < 0) {
		err = -errno;
	} else {
		err = json ? json_status(what) : print_status(what);
		fflush(stdout);
		err = err ? err : take_text(fd, text, len);
		/* Paths that are secret after the next lock are not to stay in the buffer of the stream. */
		for (size_t i = 0; i < BUFSIZ; i++)
			putchar('\0');
		fflush(stdout);
		dup2(before, STDOUT_FILENO);
	}
	if (before >= 0)
		close(before);
	if (fd >= 0)
		close(fd);
	return err;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

bool inl_mounted_open(const char *path, int *fd)
{
	pid_t pid;

	*fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return false;
	if (!inl_mounted_server(*fd, &pid))
		return true;
	close(*fd);
	*fd = -1;
	return false;
}

/* fd: -1: it does not let us look into it. */
static int report(struct inl_cli *cli, int fd, const char *dir)
{
	bool json = cli->given[INL_OPT_JSON];
	char *text;
	size_t len;
	int err = fd < 0 ? inl_mounted_report_at(dir, json, &text, &len) : inl_mounted_report(fd, json, &text, &len);

	if (err)
		return inl_cli_error(cli, dir, err, NULL);
	fwrite(text, 1, len, stdout);
	free(text);
	return 0;
}

static void print_rates(const struct inl_mount_counters *now, const struct inl_mount_counters *then, bool json)
{
	uint64_t in = now->bytes_written - then->bytes_written, out = now->bytes_read - then->bytes_read;
	char in_text[16], out_text[16];

	if (json) {
		printf("{\"requests\": %" PRIu64 ", \"bytes_read\": %" PRIu64 ", \"bytes_written\": %" PRIu64
		       ", \"open\": %" PRIu64 ", \"errors\": %" PRIu64 "}\n",
		       now->requests - then->requests, out, in, now->n_open, now->errors);
	} else {
		printf("%8" PRIu64 " requests, %10s read, %10s written, %6" PRIu64 " open, %" PRIu64 " errors\n",
		       now->requests - then->requests, inl_text_size(out, out_text), inl_text_size(in, in_text),
		       now->n_open, now->errors);
	}
	fflush(stdout);
}

/* The mount is not kept in use meanwhile: it may end. */
static int count(const char *dir, struct inl_mount_counters *counters)
{
	int err, fd = open(dir, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = inl_mounted_counters(fd, counters);
	close(fd);
	return err;
}

/* A line for each second, until it is interrupted or unmounted. */
static int watch(struct inl_cli *cli, const char *dir)
{
	struct inl_mount_counters then, now;
	int err = count(dir, &then);

	inl_cli_catch_signals(true);
	while (!err && !inl_cli_interrupted()) {
		struct timespec second = { .tv_sec = 1 };

		nanosleep(&second, NULL);
		err = count(dir, &now);
		if (err == -ENOTCONN || err == -ENODEV || err == -ECONNABORTED || err == -ENOTTY)
			return inl_cli_fail(cli, INL_EXIT_FAILED, dir, "is not served any more");
		if (!err)
			print_rates(&now, &then, cli->given[INL_OPT_JSON]);
		then = now;
	}
	return err ? inl_cli_error(cli, dir, err, NULL) : 0;
}

static const char *why_not(int err)
{
	switch (err) {
	case ENOENT:
	case EACCES:
		return strerror(err);
	case ENOTCONN:
		return "its server has ended without unmounting: inlay mount makes it good";
	default:
		return "is not in a mount of Inlay";
	}
}

int inl_cli_status(struct inl_cli *cli, int n_args, char **args)
{
	int fd, code;

	if (!inl_mounted_open(args[0], &fd) && (errno != EACCES || cli->given[INL_OPT_WATCH]))
		return inl_cli_fail(cli, INL_EXIT_FAILED, args[0], "%s", why_not(errno));
	code = cli->given[INL_OPT_WATCH] ? 0 : report(cli, fd, args[0]);
	if (fd >= 0)
		close(fd);
	return cli->given[INL_OPT_WATCH] ? watch(cli, args[0]) : code;
}
