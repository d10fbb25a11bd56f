/*
 * crypto/own.h: what the files of this folder share: implementations of ciphers, the algorithms of OpenSSL.
 * Not here: what other folders call (inlay/cipher.h, kdf.h, hash.h); what XTS alone needs (xts.h).
 * Read more: HACKING.md, "Adding a cipher"; EVP_EncryptInit(3), EVP_CIPHER_fetch(3).
 */
#ifndef INLAY_CRYPTO_OWN_H
#define INLAY_CRYPTO_OWN_H

#include <inlay/cipher.h>

#include <openssl/evp.h>

#define INL_AES_BLOCK  16
#define INL_SHA512_LEN 64

/* Some data units, with lengths that have been checked. */
struct inl_units {
	uint64_t dun[4]; /* of the first one */
	size_t unit_len;
	const struct inl_cipher_span *spans;
	size_t n_spans;
	const uint8_t *tweak; /* XTS: of one unit, instead of its number encrypted; else NULL */
};

static inline size_t inl_units_count(const struct inl_units *units)
{
	size_t n = 0;

	for (size_t i = 0; i < units->n_spans; i++)
		n += units->spans[i].n;
	return n;
}

/*
 * One way to compute a cipher. The state is secret memory, aligned to 64 bytes, zero when init sees it and wiped after
 * done. Any number of threads may be in crypt and steal with the same state.
 *
 * What crypt returns is what inl_cipher_encrypt returns: authenticated modes will have a tag per unit in struct inl_units,
 * and an error for a wrong one.
 */
struct inl_impl {
	const char *name;
	unsigned needs;	       /* of the CPU: enum inl_cpu_feature */
	bool may_fail;	       /* or stores something in dst that is not the result */
	size_t state_size;     /* bytes */
	const void *code;      /* for the functions below, which several implementations share */
	bool (*offered)(const struct inl_impl *impl); /* by the library below; NULL: there is none */
	int (*init)(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size);
	void (*done)(void *state); /* NULL: wiping will do */
	int (*crypt)(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt);
	int (*steal)(const struct inl_impl *impl, void *state, const struct inl_units *unit, bool encrypt); /* NULL: no stealing */
};

/* A cipher: what it is, and its implementations, best first, to a NULL. */
#define INL_IMPLS_MAX 8
struct inl_cipher_row {
	struct inl_cipher_info info;
	bool (*weak_key)(const uint8_t *key); /* NULL: there are none */
	const struct inl_impl *impls[INL_IMPLS_MAX];
};

/*
 * Does this implementation give the known answers of this cipher?
 *
 * Returns: 0; -ENOTRECOVERABLE: it does not; -ENOMEM, -EIO: it could not be asked.
 */
int inl_known_answers(enum inl_cipher_id id, const struct inl_impl *impl);

/* AES-XTS in code of our own, for both key sizes; where the compiler cannot build one, its name with nothing behind it. */
extern const struct inl_impl inl_xts_vaes_avx512, inl_xts_vaes_avx2, inl_xts_aesni, inl_xts_arm, inl_xts_portable;

/* By OpenSSL. */
extern const struct inl_impl inl_evp_aes_256_xts, inl_evp_aes_128_xts, inl_evp_aes_128_cbc_essiv;
extern const struct inl_impl inl_evp_aes_256_cts, inl_evp_aes_128_cts;

/* ---- OpenSSL ------------------------------------------------------------------------------------------------------ */

/* Algorithms, fetched once per process. NULL: the library below does not offer it. */
enum inl_evp_id {
	INL_EVP_AES_256_XTS,
	INL_EVP_AES_128_XTS,
	INL_EVP_AES_128_CBC,
	INL_EVP_AES_256_CBC,
	INL_EVP_AES_128_ECB,
	INL_EVP_AES_256_ECB,
	INL_EVP_N_CIPHERS
};
const EVP_CIPHER *inl_evp_cipher(enum inl_evp_id id);
const EVP_MD *inl_evp_sha256(void);
const EVP_MD *inl_evp_sha512(void);

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

/* ---- modes on OpenSSL: what lanes.c makes implementations of -------------------------------------------------------- */

/* A key schedule for one direction. One thread at a time: contexts of OpenSSL carry the IV. */
struct inl_schedule {
	struct inl_schedule *next; /* in the list of spares */
	EVP_CIPHER_CTX *data;
	EVP_CIPHER_CTX *iv; /* ESSIV only */
};

/* The code of an implementation by OpenSSL. The functions return false if that fails. */
struct inl_evp_mode {
	enum inl_evp_id needs;
	bool (*prepare)(struct inl_schedule *schedule, const uint8_t *key, bool encrypt);
	/* One data unit; dst may equal src. */
	bool (*encrypt)(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len);
	bool (*decrypt)(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len);
};

#define INL_EVP_KEY_MAX 64 /* bytes */

/* The functions of such an implementation: schedules are handed out to threads. */
#define INL_LANES_SIZE (sizeof(void *) + INL_EVP_KEY_MAX)
bool inl_lanes_offered(const struct inl_impl *impl);
int inl_lanes_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size);
void inl_lanes_done(void *state);
int inl_lanes_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt);

#endif
