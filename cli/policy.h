/*
 * cli/policy.h: encryption policies as people write them.
 * Not here: which policies Linux accepts (inlay/fscrypt.h).
 * Read more: doc/inlay.1, "ENCRYPTING".
 */
#ifndef INLAY_CLI_POLICY_H
#define INLAY_CLI_POLICY_H

#include "cli/cli.h"

/* The words of a policy; what is NULL or false is not said. */
struct inl_policy_words {
	const char *contents, *filenames; /* modes, by name */
	const char *padding, *unit;	  /* bytes */
	bool v1, direct_key, iv_ino_lblk_64, iv_ino_lblk_32;
};

/*
 * Make a policy of words: version 2, AES-256-XTS, AES-256-CBC-CTS, names padded to 32 where nothing else is said; a mode
 * that is not named is the one that goes with the other. Its key is the caller's to fill.
 *
 *   where   for messages: the line of a file; NULL: options
 *
 * Returns: 0 or an exit code; the message is printed.
 */
int inl_policy_make(const struct inl_cli *cli, const char *where, const struct inl_policy_words *words,
		    struct inl_policy *policy);

#endif
