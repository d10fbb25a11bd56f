/*
 * inlay/cipher.h: modes of operation over many data units per call, in the best way that this CPU has.
 * Not here: where keys come from (inlay/fscrypt.h), what is encrypted on its way to a device (inlay/block.h).
 * Read more: HACKING.md, "Adding a cipher"; `inlay info --cpu` lists what this CPU runs.
 */
#ifndef INLAY_CIPHER_H
#define INLAY_CIPHER_H

#include <inlay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum inl_cipher_id {
	INL_CIPHER_AES_256_XTS = 1,
	INL_CIPHER_AES_128_XTS,
	INL_CIPHER_AES_128_CBC_ESSIV,
	INL_CIPHER_AES_256_CTS,
	INL_CIPHER_AES_128_CTS,
	INL_CIPHER_ADIANTUM,	  /* not available yet: -ENOPKG */
	INL_CIPHER_AES_256_HCTR2, /* not available yet: -ENOPKG */
	INL_CIPHER_SM4_XTS,	  /* not available yet: -ENOPKG */
	INL_CIPHER_SM4_CTS,	  /* not available yet: -ENOPKG */
	INL_CIPHER_MAX
};

#define INL_CIPHER_UNIT_MIN 16	  /* bytes */
#define INL_CIPHER_UNIT_MAX 65536 /* bytes */

/* What a cipher is, whether or not it is available. */
struct inl_cipher_info {
	const char *name;   /* "AES-256-XTS" */
	unsigned key_size;  /* bytes */
	unsigned iv_size;   /* bytes: how much of the data unit number is used */
	unsigned strength;  /* bytes: the least a master key must have */
	unsigned unit_step; /* bytes: the length of a data unit is a multiple of it */
	bool available;
};

/* Returns: a constant; NULL: there is no such cipher. */
INL_API const struct inl_cipher_info *inl_cipher_info(enum inl_cipher_id id);

/* One way to compute a cipher. */
struct inl_cipher_impl {
	const char *name;  /* "vaes-avx512", "openssl" */
	const char *lacks; /* the first feature it needs that this CPU lacks, as in /proc/cpuinfo; NULL: it runs here */
};

/*
 * The implementations of a cipher, best first. Without a choice the first that runs here is used; "openssl" is the last.
 *
 *   i      0, 1, ...
 *
 * Returns: false past the last, and for ciphers that are not available; *out is then untouched.
 */
INL_API bool inl_cipher_impl(enum inl_cipher_id id, unsigned i, struct inl_cipher_impl *out);

/*
 * Compute known answers: encrypt, decrypt, compare. Every implementation is tested before it is first used, once per
 * process, and never used if it fails; this is for those who want to know at their start.
 *
 *   impl   tested for every cipher that has it; NULL: what each cipher would use
 *
 * Returns: 0; -ENOTRECOVERABLE (wrong answers: this CPU, or this build, cannot be trusted); -ENOENT (there is no such
 *          implementation here).
 * Threads: any.
 */
INL_API int inl_cipher_self_test(const char *impl, struct inl_diag *diag);

/* A prepared key. Its schedule lives in secret memory. */
struct inl_cipher;

/*
 * Prepare a key.
 *
 *   impl   the name of an implementation; NULL: the best that runs here
 *   key    key_size bytes; not kept
 *
 * Returns: 0; -ENOPKG (not available); -ENOENT (no such implementation here); -EINVAL (XTS: equal key halves); -ENOMEM;
 *          -ENOTRECOVERABLE (failed its self-test); -EIO (the crypto library below failed).
 */
INL_API int inl_cipher_new(enum inl_cipher_id id, const char *impl, const uint8_t *key, struct inl_cipher **out);
INL_API void inl_cipher_free(struct inl_cipher *cipher); /* wipes; NULL is fine */

/*
 * True: encrypting and decrypting cannot fail but for wrong lengths, and store nothing in dst but the result: dst may be a
 * medium. Ciphers of OpenSSL can fail, and wipe dst then.
 */
INL_API bool inl_cipher_never_fails(const struct inl_cipher *cipher);

/*
 * Encrypt or decrypt n whole data units: dst[i] = E(key, dun + i, src[i]).
 *
 *   dun       of the first unit; the IV is its first iv_size bytes in little-endian order; incremented as 256 bits
 *   unit_len  bytes of one unit: INL_CIPHER_UNIT_MIN .. INL_CIPHER_UNIT_MAX in steps of unit_step
 *   dst       n * unit_len bytes; may equal src, may not otherwise overlap it
 *   src       n * unit_len bytes
 *
 * Returns: 0; -EINVAL (unit_len; dst is untouched); -EIO if the crypto library below fails (dst is then wiped).
 * Threads: any number on the same cipher. No allocation per call, but for a schedule when a direction of an OpenSSL cipher
 *          is first used, or by more threads at once than before: should that fail, -EIO as well.
 * Source:  IEEE 1619-2018 5.3 (XTS); NIST SP 800-38A addendum, CS3 (CTS); Linux crypto/essiv.c by its documentation
 */
INL_API int inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len,
			       uint8_t *dst, const uint8_t *src);
INL_API int inl_cipher_decrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len,
			       uint8_t *dst, const uint8_t *src);

/* SHA-256, FIPS 180-4. Returns 0, or -EIO if the crypto library below fails. */
INL_API int inl_sha256(const void *data, size_t len, uint8_t sum[32]);

/*
 * The same of what comes in pieces.
 *
 * Returns: 0; -ENOMEM; -EIO if the crypto library below fails. end: frees, whatever it returns.
 */
struct inl_digest;
INL_API int inl_digest_new(struct inl_digest **out);
INL_API int inl_digest_add(struct inl_digest *digest, const void *data, size_t len);
INL_API int inl_digest_end(struct inl_digest *digest, uint8_t sum[32]);

/* n whole data units that follow each other in memory, from where and to where. */
struct inl_cipher_span {
	uint8_t *dst;
	const uint8_t *src; /* may equal dst; nothing else may overlap */
	size_t n;
};

/*
 * The same for data units scattered over memory: the units of one span follow those of the span before.
 *
 *   spans  n_spans of them; one of 0 units is fine
 */
INL_API int inl_cipher_encrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
				     const struct inl_cipher_span *spans, size_t n_spans);
INL_API int inl_cipher_decrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
				     const struct inl_cipher_span *spans, size_t n_spans);

/*
 * One data unit of any length, by ciphertext stealing where it is not made of whole blocks.
 *
 *   len    bytes: INL_CIPHER_UNIT_MIN .. INL_CIPHER_UNIT_MAX
 *   dst    len bytes; may equal src, may not otherwise overlap it
 *
 * Returns: as above; -EOPNOTSUPP: the mode has no stealing (ESSIV).
 * Source:  IEEE 1619-2018 5.3.2, 5.4.2 (XTS)
 */
INL_API int inl_cipher_encrypt_stealing(const struct inl_cipher *cipher, const uint64_t dun[4], size_t len, uint8_t *dst,
					const uint8_t *src);
INL_API int inl_cipher_decrypt_stealing(const struct inl_cipher *cipher, const uint64_t dun[4], size_t len, uint8_t *dst,
					const uint8_t *src);

#ifdef __cplusplus
}
#endif
#endif
