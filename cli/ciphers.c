/*
 * cli/ciphers.c: which implementation of ciphers is used, and its self-test, before any data is touched.
 * Not here: the list of all (cli/cpu.c), how fast they are (cli/speed.c).
 * Read more: inlay/cipher.h.
 */
#include "cli/cli.h"

int inl_cli_ciphers(struct inl_cli *cli)
{
	struct inl_diag diag = { 0 };
	int err = inl_cipher_self_test(cli->ciphers, &diag);

	return err ? inl_cli_error(cli, NULL, err, &diag) : 0;
}
