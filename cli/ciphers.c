/*
 * cli/ciphers.c: --ciphers: which implementation of ciphers is used; its self-test, before any data is touched.
 * Not here: the list of all (cli/cpu.c), how fast they are (cli/speed.c).
 * Read more: doc/inlay.1, "CIPHERS"; inlay/cipher.h.
 */
#include "cli/cli.h"
#include <string.h>

static void add_name(const char **names, unsigned *n, const char *name)
{
	for (unsigned i = 0; i < *n; i++) {
		if (!strcmp(names[i], name))
			return;
	}
	if (*n < INL_IMPL_NAMES_MAX)
		names[(*n)++] = name;
}

unsigned inl_cli_impl_names(const char *names[INL_IMPL_NAMES_MAX])
{
	struct inl_cipher_impl impl;
	unsigned n = 0;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		for (unsigned i = 0; inl_cipher_impl((enum inl_cipher_id)id, i, &impl); i++) {
			if (!impl.lacks)
				add_name(names, &n, impl.name);
		}
	}
	return n;
}

int inl_cli_choose_ciphers(struct inl_cli *cli, bool any)
{
	const char *words[1 + INL_IMPL_NAMES_MAX + 1] = { "best", "openssl" };
	unsigned word = 0;
	int code;

	if (any)
		words[1 + inl_cli_impl_names(words + 1)] = NULL;
	code = inl_cli_word(cli, INL_OPT_CIPHERS, words, &word);
	if (!code && word)
		cli->ciphers = words[word];
	return code;
}

int inl_cli_ciphers(struct inl_cli *cli, bool any)
{
	struct inl_diag diag = { 0 };
	int err, code = inl_cli_choose_ciphers(cli, any);

	if (code)
		return code;
	err = inl_cipher_self_test(cli->ciphers, &diag);
	return err ? inl_cli_error(cli, NULL, err, &diag) : 0;
}

const char *inl_cli_impl_of(enum inl_cipher_id id, const char *chosen)
{
	struct inl_cipher_impl impl;

	for (unsigned i = 0; inl_cipher_impl(id, i, &impl); i++) {
		if (!impl.lacks && (!chosen || !strcmp(impl.name, chosen)))
			return impl.name;
	}
	return NULL;
}
