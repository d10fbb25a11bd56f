/*
 * cli/keyid.c: `inlay keyid`: names the key on standard input.
 * Not here: how a name is derived (inlay/fscrypt.h).
 * Read more: doc/inlay.1.
 */
#include "cli/cli.h"

int inl_cli_keyid(struct inl_cli *cli, int n_args, char **args)
{
	char hex[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec;
	uint8_t *key = NULL;
	size_t len = 0;
	int err, code = inl_cli_read_key(cli, "-", cli->given[INL_OPT_HEX], &key, &len);

	if (code)
		return code;
	err = inl_key_spec_derive(key, len, cli->given[INL_OPT_V1] ? 1 : 2, &spec);
	inl_secret_free(key);
	if (err)
		return inl_cli_error(cli, "standard input", err, NULL);
	puts(inl_key_spec_hex(&spec, hex));
	return 0;
}
