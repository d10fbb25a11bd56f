/*
 * cli/lock.c: `inlay unlock` and `inlay lock`: keys that come to a mount, and go.
 * Not here: what the server does then (the library); who keeps a key (cli/status.c).
 * Read more: doc/inlay.1, "LOCKING".
 */
#include "cli/mount.h"
#include "cli/secret.h"
#include "cli/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int refused(struct inl_cli *cli, const char *where, int err)
{
	switch (err) {
	case -ENOTTY:
		return inl_cli_fail(cli, INL_EXIT_FAILED, where, "is not in a mount of Inlay");
	case -ETIMEDOUT:
		return inl_cli_fail(cli, INL_EXIT_FAILED, where, "the server of this mount does not answer");
	case -ECONNREFUSED:
	case -ENOTCONN:
		return inl_cli_fail(cli, INL_EXIT_FAILED, where, "nobody serves this mount any more");
	default:
		return inl_cli_error(cli, where, err, NULL);
	}
}

/* ---- unlock ------------------------------------------------------------------------------------------------------ */

static int give_key(struct inl_cli *cli, const char *dir, const uint8_t *key, size_t len)
{
	char text[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec;
	int err = inl_mounted_add_key(dir, key, len, cli->given[INL_OPT_DEFAULT], &spec);

	if (err == -EOPNOTSUPP && cli->given[INL_OPT_DEFAULT])
		return inl_cli_fail(cli, INL_EXIT_FAILED, dir,
				    "--default needs the socket of the mount, which cannot be reached");
	if (err)
		return refused(cli, dir, err);
	printf("%s: unlocked with key %s\n", dir, inl_key_spec_hex(&spec, text));
	return 0;
}

static int unlock_with(struct inl_cli *cli, const char *dir, const char *file, bool hex)
{
	uint8_t *key = NULL;
	size_t len = 0;
	int code = inl_cli_read_key(cli, file, hex, &key, &len);

	if (!code)
		code = give_key(cli, dir, key, len);
	inl_secret_free(key);
	return code;
}

static int give_protected(struct inl_cli *cli, const char *dir, const uint8_t *key)
{
	return give_key(cli, dir, key, INL_POLICY_KEY_SIZE);
}

/* With what lies in .fscrypt of the mount itself. */
static int unlock_protected(struct inl_cli *cli, const char *dir)
{
	struct inl_protect *protect = NULL;
	char *root = NULL;
	int code = inl_cli_protect_path(cli, dir, &protect, &root);

	if (code)
		return code;
	code = inl_cli_open_protectors(cli, protect, root, give_protected);
	inl_protect_close(protect);
	free(root);
	return code;
}

int inl_cli_unlock(struct inl_cli *cli, int n_args, char **args)
{
	int code = 0;

	if (!cli->n_key_files && !inl_cli_wants_protectors(cli))
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL,
				    "a key is needed: --key FILE or --key-hex FILE, or a protector: --passphrase");
	if (cli->given[INL_OPT_DEFAULT] && cli->n_key_files + inl_cli_wants_protectors(cli) > 1)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "--default is for one key");
	for (unsigned i = 0; i < cli->n_key_files; i++)
		code = inl_cli_worse(code, unlock_with(cli, args[0], cli->key_files[i].file, cli->key_files[i].hex));
	if (inl_cli_wants_protectors(cli))
		code = inl_cli_worse(code, unlock_protected(cli, args[0]));
	return code;
}

/* ---- lock -------------------------------------------------------------------------------------------------------- */

/* 32 digits, or 16 of a version 1 policy. */
static bool parse_name(const char *text, struct inl_key_spec *spec)
{
	size_t len = strlen(text);

	if (len != 2 * INL_KEY_IDENTIFIER_SIZE && len != 2 * INL_KEY_DESCRIPTOR_SIZE)
		return false;
	*spec = (struct inl_key_spec){ .version = len == 2 * INL_KEY_IDENTIFIER_SIZE ? 2 : 1 };
	for (size_t i = 0; i < len; i++) {
		int value = inl_text_hex_digit((unsigned char)text[i]);

		if (value < 0)
			return false;
		spec->bytes[i / 2] |= (uint8_t)(value << (i % 2 ? 0 : 4));
	}
	return true;
}

/* Until nobody keeps it, or it is given again. */
static int wait_for_holders(struct inl_cli *cli, const char *dir, const struct inl_key_spec *spec,
			    struct inl_mounted_key *key)
{
	const struct timespec pause = { .tv_nsec = 50000000 };
	int err = 0;

	inl_cli_catch_signals(true);
	while (!err && key->status.state == INL_KEY_INCOMPLETELY_REMOVED && !inl_cli_interrupted()) {
		nanosleep(&pause, NULL);
		err = inl_mounted_key_status(dir, spec, key);
	}
	inl_cli_catch_signals(false);
	return err;
}

/* The lines that status has below the key, for those who may see them. */
static void print_holders(const char *dir, const char *name)
{
	char *text = NULL, *save = NULL;
	bool below = false;
	size_t len;

	if (inl_mounted_report_at(dir, false, &text, &len))
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (below && *line == ' ') {
			line += strspn(line, " ");
			inl_text_put(stderr, line, strlen(line), true);
			fputc('\n', stderr);
			continue;
		}
		below = !strncmp(line, "Key ", 4) && strstr(line, name);
	}
	free(text);
}

static int lock_one(struct inl_cli *cli, const char *dir, const struct inl_key_spec *spec)
{
	bool all = cli->given[INL_OPT_ALL_USERS];
	char text[INL_KEY_SPEC_HEX_SIZE];
	struct inl_mounted_key key;
	int err = inl_mounted_remove_key(dir, spec, all, &key);

	inl_key_spec_hex(spec, text);
	if (err == -ENOKEY)
		return inl_cli_fail(cli, INL_EXIT_KEY, dir, "the key %s is not there%s", text,
				    all ? "" : ", or not yours");
	if (!err && cli->given[INL_OPT_WAIT])
		err = wait_for_holders(cli, dir, spec, &key);
	if (err)
		return refused(cli, dir, err);
	if (key.others) {
		printf("%s: key %s stays: %u other user%s it\n", dir, text, key.status.n_claims,
		       key.status.n_claims == 1 ? " has" : "s have");
		return 0;
	}
	if (key.status.state == INL_KEY_PRESENT)
		return inl_cli_fail(cli, INL_EXIT_FAILED, dir, "the key %s was given again meanwhile", text);
	if (key.status.state == INL_KEY_INCOMPLETELY_REMOVED) {
		inl_cli_fail(cli, INL_EXIT_INCOMPLETE, dir, "the key %s goes when what is in use is closed", text);
		print_holders(dir, text);
		return inl_cli_interrupted() ? INL_EXIT_INTERRUPTED : INL_EXIT_INCOMPLETE;
	}
	printf("%s: locked key %s\n", dir, text);
	return 0;
}

#define KEYS_MAX 4096

/* All that this user has, or all there are, and what is not completely gone yet. Names first: locking changes the list.
 */
static int lock_all(struct inl_cli *cli, const char *dir)
{
	struct inl_key_spec *specs = inl_cli_alloc(KEYS_MAX * sizeof(*specs));
	struct inl_mounted_key key;
	unsigned n = 0;
	int err = 0, code = 0;

	for (unsigned i = 0; i < KEYS_MAX; i++) {
		err = inl_mounted_known_key(dir, i, &specs[n], &key);
		if (err)
			break;
		n += key.status.claimed || cli->given[INL_OPT_ALL_USERS] ||
		     key.status.state == INL_KEY_INCOMPLETELY_REMOVED;
	}
	if (err == -EOPNOTSUPP)
		n = 0; /* of volumes without the feature, say */
	else if (err && err != -ENODATA)
		code = refused(cli, dir, err);
	for (unsigned i = 0; i < n; i++)
		code = inl_cli_worse(code, lock_one(cli, dir, &specs[i]));
	if (!code && !n)
		printf("%s: no key%s is there\n", dir, cli->given[INL_OPT_ALL_USERS] ? "" : " of yours");
	free(specs);
	return code;
}

/* On all mounts that this user may ask. */
static int lock_everywhere(struct inl_cli *cli)
{
	struct inl_mounted_key key;
	struct inl_key_spec spec;
	int code = 0;
	char *dir;

	for (unsigned i = 0; !inl_mounted_nth(i, &dir); i++) {
		int err = inl_mounted_known_key(dir, 0, &spec, &key);

		/* Others' mounts are none of ours; who does not serve any more has no keys. */
		if (err != -ENOTCONN && err != -ECONNREFUSED && (err != -EACCES || cli->given[INL_OPT_ALL_USERS]))
			code = inl_cli_worse(code, lock_all(cli, dir));
		free(dir);
	}
	return code;
}

int inl_cli_lock(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_key_spec spec;

	if (!n_args)
		return lock_everywhere(cli);
	if (n_args == 1)
		return lock_all(cli, args[0]);
	if (!parse_name(args[1], &spec))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[1],
				    "is no name of a key: 32 hex digits, or 16 of version 1 policies (inlay keyid)");
	return lock_one(cli, args[0], &spec);
}
