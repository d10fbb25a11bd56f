/*
 * cli/keygen.c: `inlay keygen`: a new master key on standard output.
 * Not here: naming keys (cli/keyid.c), reading them (cli/keys.c).
 * Read more: doc/inlay.1, "KEYS".
 */
#include "cli/cli.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX_LEN (2 * INL_MASTER_KEY_MAX + 1) /* and a line feed */

/* All in secret memory. */
struct new_key {
	uint8_t bytes[INL_MASTER_KEY_MAX];
	uint8_t hex[HEX_LEN];
};

static void to_hex(struct new_key *key)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof(key->bytes); i++) {
		key->hex[2 * i] = (uint8_t)digits[key->bytes[i] >> 4];
		key->hex[2 * i + 1] = (uint8_t)digits[key->bytes[i] & 15];
	}
	key->hex[HEX_LEN - 1] = '\n';
}

/* Not by way of stdio, which keeps copies. */
static int write_all(struct inl_cli *cli, const uint8_t *from, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, from, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return inl_cli_error(cli, "standard output", -errno, NULL);
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

static void warn_if_open(struct inl_cli *cli)
{
	struct stat st;

	if (!fstat(STDOUT_FILENO, &st) && S_ISREG(st.st_mode) && (st.st_mode & 077))
		inl_cli_fail(cli, 0, NULL, "warning: others can read the file (mode %04o); chmod 600 ends that",
			     st.st_mode & 07777);
}

int inl_cli_keygen(struct inl_cli *cli, int n_args, char **args)
{
	bool hex = cli->given[INL_OPT_HEX_OUT];
	struct new_key *key;
	int code;

	(void)n_args;
	(void)args;
	if (isatty(STDOUT_FILENO))
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "a key is not for a terminal: inlay keygen > KEY");
	key = inl_secret_alloc(sizeof(*key));
	if (!key)
		return inl_cli_fail(cli, INL_EXIT_FAILED, NULL, "no secret memory left");
	if (getentropy(key->bytes, sizeof(key->bytes))) {
		code = inl_cli_error(cli, NULL, -errno, NULL);
	} else {
		to_hex(key);
		code = hex ? write_all(cli, key->hex, HEX_LEN) : write_all(cli, key->bytes, sizeof(key->bytes));
	}
	inl_secret_free(key);
	if (!code)
		warn_if_open(cli);
	return code;
}
