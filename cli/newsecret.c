/*
 * cli/newsecret.c: what is to open a new protector: asked for twice, with what it should cost.
 * Not here: what opens one that is there (cli/protector.c).
 * Read more: doc/inlay.1, "PASSPHRASES".
 */
#include "cli/secret.h"
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#define TRIES     3
#define SECOND_NS 1000000000u

/* Ctrl-C, Ctrl-D, backspace, return and delete: fscrypt takes them as such also where they come through a pipe. */
static bool has_keystrokes(const struct inl_typed *typed)
{
	bool has = false;

	for (size_t i = 0; i < typed->len; i++) {
		unsigned char c = (unsigned char)typed->bytes[i];

		has |= c == 3 || c == 4 || c == 8 || c == '\r' || c == 127;
	}
	return has;
}

int inl_ask_new(struct inl_cli *cli, const char *what, struct inl_typed *typed)
{
	char prompt[400];
	int code = 0;

	for (int i = 0; i < TRIES; i++) {
		struct inl_typed again = { 0 };
		bool same;

		snprintf(prompt, sizeof(prompt), "New passphrase for %s", what);
		code = inl_ask(cli, prompt, typed);
		if (!code && !typed->len)
			code = inl_cli_fail(cli, INL_EXIT_KEY, NULL, "the new passphrase is empty");
		if (!code && has_keystrokes(typed))
			code = inl_cli_fail(cli, INL_EXIT_KEY, NULL,
					    "there is a control character in it that the tool fscrypt would not pass");
		if (code || !inl_ask_again(cli))
			return code;
		code = inl_ask(cli, "The same once more", &again);
		same = !code && again.len == typed->len && inl_equal_ct(again.bytes, typed->bytes, again.len);
		inl_secret_free(again.bytes);
		if (code || same)
			return code;
		code = inl_cli_fail(cli, INL_EXIT_KEY, NULL, "these were two different passphrases");
		inl_secret_free(typed->bytes);
		typed->bytes = NULL;
	}
	return code;
}

int inl_cli_costs(struct inl_cli *cli, const struct inl_hash_costs *now, struct inl_hash_costs *costs)
{
	uint64_t bytes = 0;
	int err, code;

	/* Argon2 has no use for less, whatever is said here; more is refused by whoever opens it. */
	code = inl_cli_size(cli, INL_OPT_ARGON2_MEMORY, 8192, (uint64_t)INL_HASH_MEMORY_MAX << 10, &bytes);
	if (code)
		return code;
	if (now)
		*costs = *now;
	err = now ? 0 : inl_hash_costs_here(SECOND_NS, costs);
	if (err)
		return inl_cli_error(cli, NULL, err, NULL);
	if (bytes)
		costs->memory = bytes >> 10;
	if (costs->parallelism > costs->memory / 8)
		costs->parallelism = costs->memory / 8;
	return inl_cli_number(cli, INL_OPT_ARGON2_TIME, 1, INL_HASH_TIME_MAX, &costs->time);
}

const char *inl_cli_protector_name(void)
{
	const struct passwd *user = getpwuid(getuid());

	return user && user->pw_name[0] ? user->pw_name : "passphrase";
}

static int make_error(struct inl_cli *cli, const char *where, int err, const struct inl_diag *diag)
{
	inl_cli_error(cli, where, err, diag);
	return err == -EINVAL || err == -EEXIST ? INL_EXIT_USAGE : INL_EXIT_FAILED;
}

int inl_cli_make_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *name,
			   const char *key_file, struct inl_protector **out)
{
	struct inl_protector_new what = { .name = name, .kind = INL_PROTECTOR_PASSPHRASE };
	struct inl_diag diag = { 0 };
	struct inl_typed typed = { 0 };
	char text[320];
	int err, code = 0;

	snprintf(text, sizeof(text), "\"%s\" of %s", name, where);
	if (key_file)
		what.kind = INL_PROTECTOR_RAW_KEY;
	else
		code = inl_cli_costs(cli, NULL, &what.costs);
	if (!code)
		code = key_file ? inl_ask_file(cli, key_file, &typed) : inl_ask_new(cli, text, &typed);
	if (!code) {
		err = inl_protector_make(protect, &what, typed.bytes, typed.len, &diag, out);
		code = err ? make_error(cli, where, err, &diag) : 0;
	}
	inl_secret_free(typed.bytes);
	return code;
}

int inl_cli_make_recovery(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *name,
			  char *text, struct inl_protector **out)
{
	struct inl_protector_new what = { .name = name, .kind = INL_PROTECTOR_RECOVERY };
	struct inl_diag diag = { 0 };
	int err, code = inl_cli_costs(cli, NULL, &what.costs);

	if (code)
		return code;
	err = inl_recovery_code(text);
	if (!err)
		err = inl_protector_make(protect, &what, text, INL_RECOVERY_CODE_SIZE - 1, &diag, out);
	return err ? make_error(cli, where, err, &diag) : 0;
}

/* Not by way of stdio, which keeps copies. */
int inl_cli_show_code(struct inl_cli *cli, const char *text)
{
	struct iovec parts[] = { { (void *)text, strlen(text) }, { (void *)"\n", 1 } };

	/* Who does not read it has not got it: that is an error, and not the end. */
	signal(SIGPIPE, SIG_IGN);
	fflush(stdout);
	if (writev(STDOUT_FILENO, parts, 2) == (ssize_t)(parts[0].iov_len + 1))
		return 0;
	return inl_cli_fail(cli, INL_EXIT_FAILED, "standard output", "the code was not shown: there is none");
}

int inl_cli_random_key(struct inl_cli *cli, uint8_t **key)
{
	ssize_t n;

	*key = inl_secret_alloc(INL_POLICY_KEY_SIZE);
	if (!*key)
		return inl_cli_fail(cli, INL_EXIT_FAILED, NULL, "no secret memory left");
	do {
		n = getrandom(*key, INL_POLICY_KEY_SIZE, 0);
	} while (n < 0 && errno == EINTR);
	if (n == INL_POLICY_KEY_SIZE)
		return 0;
	inl_secret_free(*key);
	*key = NULL;
	return inl_cli_error(cli, "random numbers", -EIO, NULL);
}
