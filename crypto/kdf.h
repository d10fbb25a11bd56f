/*
 * crypto/kdf.h: HKDF-SHA512 with the extract step done once, and the v1 derivation.
 * Not here: which context number derives what (fscrypt/keyring.c).
 * Read more: RFC 5869.
 */
#ifndef INLAY_CRYPTO_KDF_H
#define INLAY_CRYPTO_KDF_H

#include <inlay/base.h>

/* HKDF-SHA512 keyed by a pseudorandom key: RFC 5869's extract step done, its HMAC states kept. */
struct inl_hkdf;

/*
 * Extract with a salt of 64 zero bytes.
 *
 *   ikm   len bytes of input key material
 *
 * Returns: 0; -ENOMEM (secret memory is full).
 */
int inl_hkdf_new(const uint8_t *ikm, size_t len, struct inl_hkdf **out);
void inl_hkdf_free(struct inl_hkdf *hkdf); /* wipes; NULL is fine */

/*
 * Expand: out_len bytes (at most 255 * 64). Two compressions of SHA-512 for each 64 of them, if info has at most 46 bytes.
 *
 * Returns: 0; -EINVAL (out_len); nothing else can fail. Threads: any number on the same hkdf. Never blocks or allocates.
 */
int inl_hkdf_expand(const struct inl_hkdf *hkdf, const uint8_t *info, size_t info_len, uint8_t *out, size_t out_len);

/*
 * AES-128-ECB: the key derivation of v1 policies.
 *
 *   key   16 bytes (the file's nonce)
 *   len   a multiple of 16
 *
 * Returns: 0; -EINVAL; -EIO; -ENOMEM.
 */
int inl_aes128_ecb(const uint8_t key[16], const uint8_t *src, size_t len, uint8_t *dst);

#endif
