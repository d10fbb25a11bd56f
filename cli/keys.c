/*
 * cli/keys.c: reads keys from files and standard input, straight into secret memory.
 * Not here: what a key is good for (the key ring of inlay/fscrypt.h).
 * Read more: doc/inlay.1, "KEYS".
 */
#include "cli/cli.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CHUNK   256  /* bytes read at a time; all in secret memory */
#define RAW_MAX 4096 /* bytes: no more than this is looked at, there may be no end */
#define HEX_MAX 65536

/* What one read of a key needs, in secret memory as a whole. */
struct reader {
	uint8_t key[INL_MASTER_KEY_MAX];
	uint8_t chunk[CHUNK];
	uint8_t high; /* the first digit of a pair */
};

static bool is_space(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Raw bytes: keep what fits, count the rest. */
static void take_raw(struct reader *r, size_t got, uint64_t *len)
{
	for (size_t i = 0; i < got; i++, ++*len) {
		if (*len < sizeof(r->key))
			r->key[*len] = r->chunk[i];
	}
}

/* Hex digits: *n_digits so far. Returns false at anything that is no digit and no white space. */
static bool take_hex(struct reader *r, size_t got, uint64_t *n_digits)
{
	for (size_t i = 0; i < got; i++) {
		int value = inl_text_hex_digit(r->chunk[i]);

		if (value < 0) {
			if (is_space(r->chunk[i]))
				continue;
			return false;
		}
		if (*n_digits % 2 == 0)
			r->high = (uint8_t)(value << 4);
		else if (*n_digits / 2 < sizeof(r->key))
			r->key[*n_digits / 2] = r->high | (uint8_t)value;
		++*n_digits;
	}
	return true;
}

/* Read fd to its end, or until it is too long for sure. */
static int read_all(struct inl_cli *cli, int fd, const char *where, bool hex, struct reader *r, uint64_t *len)
{
	size_t total = 0;
	uint64_t n = 0;

	while (total < (hex ? HEX_MAX : RAW_MAX)) {
		ssize_t got = read(fd, r->chunk, sizeof(r->chunk));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return inl_cli_error(cli, where, -errno, NULL);
		if (!got)
			break;
		total += (size_t)got;
		if (hex && !take_hex(r, (size_t)got, &n))
			return inl_cli_fail(cli, INL_EXIT_KEY, where,
					    "this is no hex text (for a key in raw bytes leave out the -hex)");
		if (!hex)
			take_raw(r, (size_t)got, &n);
	}
	if (total >= (hex ? HEX_MAX : RAW_MAX))
		return inl_cli_fail(cli, INL_EXIT_KEY, where, "more than %zu bytes: keys have %d to %d bytes",
				    total - 1, INL_MASTER_KEY_MIN, INL_MASTER_KEY_MAX);
	if (hex && n % 2)
		return inl_cli_fail(cli, INL_EXIT_KEY, where, "an odd number of hex digits (%ju)", (uintmax_t)n);
	*len = hex ? n / 2 : n;
	return 0;
}

static int check_len(struct inl_cli *cli, const char *where, bool hex, uint64_t len)
{
	const char *hint = "";

	if (len >= INL_MASTER_KEY_MIN && len <= INL_MASTER_KEY_MAX)
		return 0;
	if (!hex && (len == INL_MASTER_KEY_MAX + 1 || len / 2 == INL_MASTER_KEY_MAX))
		hint = len / 2 == INL_MASTER_KEY_MAX ? "; is it hex text?" : "; is there a line feed at its end?";
	return inl_cli_fail(cli, INL_EXIT_KEY, where, "a key of %ju byte%s: keys have %d to %d bytes%s", (uintmax_t)len,
			    len == 1 ? "" : "s", INL_MASTER_KEY_MIN, INL_MASTER_KEY_MAX, hint);
}

int inl_cli_read_key(struct inl_cli *cli, const char *file, bool hex, uint8_t **key, size_t *len)
{
	bool standard = !strcmp(file, "-");
	const char *where = standard ? "standard input" : file;
	int fd = standard ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	struct reader *r = NULL;
	uint64_t n = 0;
	int code;

	if (fd < 0)
		return inl_cli_error(cli, where, -errno, NULL);
	r = inl_secret_alloc(sizeof(*r));
	if (!r)
		code = inl_cli_fail(cli, INL_EXIT_FAILED, where, "no secret memory left");
	else
		code = read_all(cli, fd, where, hex, r, &n);
	if (!code)
		code = check_len(cli, where, hex, n);
	if (!standard)
		close(fd);
	if (code) {
		inl_secret_free(r);
		return code;
	}
	inl_wipe(r->chunk, sizeof(r->chunk));
	*key = r->key; /* the first member: freeing it frees the whole */
	*len = (size_t)n;
	return 0;
}

static int add_key(struct inl_cli *cli, const char *file, bool hex)
{
	struct inl_diag diag = { 0 };
	uint8_t *key = NULL;
	size_t len = 0;
	int code = inl_cli_read_key(cli, file, hex, &key, &len);
	int err;

	if (code)
		return code;
	err = cli->claims ? inl_keyring_claim(cli->keys, key, len, getuid(), &diag) :
			    inl_keyring_add(cli->keys, key, len, &diag);
	inl_secret_free(key);
	return err ? inl_cli_error(cli, file, err, &diag) : 0;
}

int inl_cli_add_key_file(struct inl_cli *cli, const char *file, bool hex)
{
	for (unsigned i = 0; i < cli->n_key_files; i++) {
		if (!strcmp(file, "-") && !strcmp(cli->key_files[i].file, "-"))
			return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "only one key can come from standard input");
	}
	if (cli->n_key_files == INL_KEY_FILES_MAX)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "more than %d keys", INL_KEY_FILES_MAX);
	cli->key_files[cli->n_key_files].file = file;
	cli->key_files[cli->n_key_files++].hex = hex;
	return 0;
}

int inl_cli_load_keys(struct inl_cli *cli)
{
	int err, code = 0;

	if (cli->keys)
		return 0;
	err = inl_keyring_new(&cli->keys);
	if (err)
		return inl_cli_error(cli, NULL, err, NULL);
	for (unsigned i = 0; i < cli->n_key_files && !code; i++)
		code = add_key(cli, cli->key_files[i].file, cli->key_files[i].hex);
	return code;
}
