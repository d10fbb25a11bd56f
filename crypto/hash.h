/*
 * crypto/hash.h: SHA-256, SHA-512, SipHash-2-4.
 * Not here: checksums against accidents (base/crc.h); the directory hashes of ext4.
 * Read more: FIPS 180-4; Aumasson and Bernstein, "SipHash: a fast short-input PRF".
 */
#ifndef INLAY_CRYPTO_HASH_H
#define INLAY_CRYPTO_HASH_H

#include <inlay/base.h>
#include <inlay/cipher.h> /* inl_sha256 */

/* Returns 0, or -EIO if the crypto library below fails. */
int inl_sha512(const void *data, size_t len, uint8_t out[64]);

/* SipHash-2-4. The key is two little-endian 64-bit words, as bytes. */
uint64_t inl_siphash(const uint8_t key[16], const void *data, size_t len);

#endif
