/*
 * crypto/cipher.h: modes of operation over n data units per call, behind one frame.
 * Not here: key derivation (kdf.h), hashes (hash.h), what the keys and units are for.
 * Read more: HACKING.md, "Adding a cipher".
 */
#ifndef INLAY_CRYPTO_CIPHER_H
#define INLAY_CRYPTO_CIPHER_H

#include <inlay/base.h>

enum inl_cipher_id {
	INL_CIPHER_AES_256_XTS = 1,
	INL_CIPHER_AES_128_CBC_ESSIV,
	INL_CIPHER_AES_256_CTS,
	INL_CIPHER_AES_128_CTS,
	INL_CIPHER_ADIANTUM,	  /* not available yet: -ENOPKG */
	INL_CIPHER_AES_256_HCTR2, /* not available yet: -ENOPKG */
	INL_CIPHER_SM4_XTS,	  /* not available yet: -ENOPKG */
	INL_CIPHER_SM4_CTS,	  /* not available yet: -ENOPKG */
	INL_CIPHER_MAX
};

/* What a cipher is, whether or not it is available. */
struct inl_cipher_info {
	const char *name;  /* "AES-256-XTS" */
	unsigned key_size; /* bytes */
	unsigned iv_size;  /* bytes: how much of the DUN is used */
	unsigned strength; /* bytes: the least a master key must have */
	bool available;
};
const struct inl_cipher_info *inl_cipher_info(enum inl_cipher_id id);

struct inl_cipher;

/*
 * The implementations of a cipher that this CPU runs, best first. The last one is OpenSSL's.
 *
 * Returns: a constant name ("vaes-avx512", "openssl"), or NULL past the last.
 */
const char *inl_cipher_impl(enum inl_cipher_id id, unsigned i);

/*
 * Prepare a key schedule. key: exactly key_size bytes; not kept.
 *
 * Returns: 0; -ENOPKG (not available); -EINVAL (XTS: equal key halves); -ENOMEM.
 */
int inl_cipher_new(enum inl_cipher_id id, const uint8_t *key, struct inl_cipher **out);
void inl_cipher_free(struct inl_cipher *cipher); /* wipes; NULL is fine */

/* The same with implementation i instead of the best: for tests and benchmarks. -ENOENT: there is none. */
int inl_cipher_new_impl(enum inl_cipher_id id, unsigned i, const uint8_t *key, struct inl_cipher **out);

/*
 * Encrypt or decrypt n whole data units: dst[i] = E(key, dun + i, src[i]).
 *
 *   dun       of the first unit; the IV is its first iv_size bytes in little-endian order; incremented as 256 bits
 *   unit_len  bytes of one unit: XTS and ESSIV: 16 .. 65536 in steps of 16; CTS: 16 .. 65536, any length
 *   dst       n * unit_len bytes; may equal src, may not otherwise overlap it
 *   src       n * unit_len bytes
 *
 * Returns: 0; -EINVAL (unit_len; dst is untouched); -EIO if the crypto library below fails (dst is then wiped).
 * Threads: any number on the same cipher. No allocation per call, but for a schedule when a direction of an OpenSSL cipher
 *          is first used, or by more threads at once than before: should that fail, -EIO as well.
 * Source:  IEEE 1619-2018 5.3 (XTS); NIST SP 800-38A addendum, CS3 (CTS); Linux crypto/essiv.c by its documentation
 */
int inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src);
int inl_cipher_decrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src);

#endif
