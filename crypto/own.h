/*
 * crypto/own.h: what the files of this folder share: modes, their schedules, the algorithms of OpenSSL.
 * Not here: what other folders call (cipher.h, kdf.h, hash.h).
 * Read more: HACKING.md, "Adding a cipher"; EVP_EncryptInit(3), EVP_CIPHER_fetch(3).
 */
#ifndef INLAY_CRYPTO_OWN_H
#define INLAY_CRYPTO_OWN_H

#include "crypto/cipher.h"

#include <openssl/evp.h>

#define INL_AES_BLOCK  16
#define INL_IV_MAX     32 /* bytes */
#define INL_SHA512_LEN 64

/* Algorithms, fetched once per process. NULL: the library below does not offer it. */
enum inl_evp_id {
	INL_EVP_AES_256_XTS,
	INL_EVP_AES_128_CBC,
	INL_EVP_AES_256_CBC,
	INL_EVP_AES_128_ECB,
	INL_EVP_AES_256_ECB,
	INL_EVP_N_CIPHERS
};
const EVP_CIPHER *inl_evp_cipher(enum inl_evp_id id);
const EVP_MD *inl_evp_sha256(void);
const EVP_MD *inl_evp_sha512(void);

/* A key schedule for one direction. One thread at a time: contexts of OpenSSL carry the IV. */
struct inl_schedule {
	struct inl_schedule *next; /* in the list of spares */
	EVP_CIPHER_CTX *data;
	EVP_CIPHER_CTX *iv; /* ESSIV only */
};

/* A context keyed for one direction, without padding. NULL: OpenSSL failed. */
EVP_CIPHER_CTX *inl_evp_keyed(enum inl_evp_id id, const uint8_t *key, bool encrypt);

/* The next len bytes of a context that holds key and IV; len is a multiple of the block. dst may equal src. */
static inline bool inl_evp_update(EVP_CIPHER_CTX *ctx, uint8_t *dst, const uint8_t *src, size_t len)
{
	int out;

	return EVP_CipherUpdate(ctx, dst, &out, src, (int)len) == 1 && out == (int)len;
}

/* The same for a whole data unit that begins with this IV. */
static inline bool inl_evp_unit(EVP_CIPHER_CTX *ctx, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	return EVP_CipherInit_ex2(ctx, NULL, NULL, iv, -1, NULL) == 1 && inl_evp_update(ctx, dst, src, len);
}

/* A mode of operation. Its functions return false if the crypto library below fails. */
struct inl_mode {
	bool (*prepare)(struct inl_schedule *schedule, const uint8_t *key, bool encrypt);
	/* One data unit; dst may equal src. */
	bool (*encrypt)(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len);
	bool (*decrypt)(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len);
	bool (*weak_key)(const uint8_t *key); /* may be NULL: there are none */
	enum inl_evp_id needs;
	unsigned unit_step; /* the length of a data unit is a multiple of it */
};

/*
 * A mode in code of our own, for CPUs that have what it needs. It cannot fail, and any number of threads may use a schedule.
 * Its functions are inl_cipher_encrypt and inl_cipher_decrypt, with lengths that have been checked.
 */
struct inl_cpu_mode {
	const char *name; /* "vaes-avx512" */
	bool (*supported)(void);
	size_t schedule_size; /* bytes of secret memory */
	void (*prepare)(void *schedule, const uint8_t *key);
	void (*encrypt)(const void *schedule, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
			const uint8_t *src);
	void (*decrypt)(const void *schedule, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
			const uint8_t *src);
};

extern const struct inl_cpu_mode inl_xts_vaes;

extern const struct inl_mode inl_mode_aes_256_xts, inl_mode_aes_128_cbc_essiv;
extern const struct inl_mode inl_mode_aes_256_cts, inl_mode_aes_128_cts;

#endif
