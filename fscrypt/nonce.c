/*
 * fscrypt/nonce.c: nonces that follow from what they are for.
 * Not here: random ones, as they should be (a file system's business).
 * Read more: inlay/fscrypt.h; RFC 5869, 2.3 and 3.2: what is derived for one purpose says nothing of the others.
 */
#include "fscrypt/keyring.h"
#include <errno.h>
#include <string.h>

/* No purpose of fscrypt begins like this. */
#define PURPOSE "inlay\0nonce"

int inl_nonce_derive(struct inl_keyring *ring, const struct inl_key_spec *spec, const uint8_t who[32],
		     const uint8_t contents[32], uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	struct inl_master_key *master = inl_keyring_use(ring, spec);
	uint8_t info[sizeof(PURPOSE) + 64];
	int rc;

	if (!master)
		return -ENOKEY;
	memcpy(info, PURPOSE, sizeof(PURPOSE));
	memcpy(info + sizeof(PURPOSE), who, 32);
	memcpy(info + sizeof(PURPOSE) + 32, contents, 32);
	rc = inl_hkdf_expand(master->hkdf, info, sizeof(info), nonce, INL_FILE_NONCE_SIZE);
	inl_keyring_unuse(ring, master);
	return rc;
}
