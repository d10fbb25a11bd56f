/*
 * fscrypt/keyring.h: a master key, and what is derived from it.
 * Not here: adding keys and naming them (inlay/fscrypt.h); which inode needs which key (info.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Key hierarchy".
 */
#ifndef INLAY_FSCRYPT_KEYRING_H
#define INLAY_FSCRYPT_KEYRING_H

#include "crypto/kdf.h"
#include <inlay/fscrypt.h>

#define INL_INO_HASH_KEY_SIZE 16

/* The secret part; in the arena. */
struct inl_master_secret {
	uint8_t bytes[INL_MASTER_KEY_MAX];
	uint8_t ino_hash_key[INL_INO_HASH_KEY_SIZE]; /* SipHash key of IV_INO_LBLK_32 */
};

/* Immutable once it is in a ring, but for the first two; lives as long as the ring. */
struct inl_master_key {
	struct inl_master_key *next; /* lock: of the ring */
	bool removed;		     /* the same: for whoever has not found it yet, it is not there */
	struct inl_key_spec v1, v2;
	size_t len; /* bytes */
	struct inl_hkdf *hkdf;
	struct inl_master_secret *secret;
};

/* What HKDF is asked for: the byte after "fscrypt\0". */
enum inl_hkdf_context {
	INL_HKDF_KEY_IDENTIFIER = 1,
	INL_HKDF_PER_FILE_KEY = 2,
	INL_HKDF_DIRECT_KEY = 3,
	INL_HKDF_IV_INO_LBLK_64_KEY = 4,
	INL_HKDF_DIRHASH_KEY = 5,
	INL_HKDF_IV_INO_LBLK_32_KEY = 6,
	INL_HKDF_INO_HASH_KEY = 7,
};

#define INL_HKDF_EXTRA_MAX 17 /* bytes: mode number and UUID */

/*
 * Derive len bytes for a purpose.
 *
 *   extra   extra_len bytes, at most INL_HKDF_EXTRA_MAX: what the purpose is bound to
 *
 * Returns: 0; -EIO. Threads: any.
 */
int inl_master_key_derive(const struct inl_master_key *master, enum inl_hkdf_context context, const void *extra,
			  size_t extra_len, uint8_t *out, size_t len);

/* The key of this name, or NULL. ring == NULL: an empty ring. */
const struct inl_master_key *inl_keyring_find(struct inl_keyring *ring, const struct inl_key_spec *spec);

#endif
