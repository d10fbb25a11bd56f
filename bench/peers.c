/*
 * bench/peers.c: what our AES-XTS is compared with.
 * Not here: our own ciphers, measuring (ciphers.c).
 * Read more: bench/peers.h; EVP_EncryptInit(3); the libgcrypt manual, "Working with cipher handles".
 */
#include "bench/peers.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what)
{
	fprintf(stderr, "ciphers: %s failed\n", what);
	exit(1);
}

/* ---- OpenSSL ------------------------------------------------------------------------------------------------------ */

static void *openssl_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const EVP_CIPHER *cipher = key_size == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts();

	if (!ctx || EVP_CipherInit_ex2(ctx, cipher, key, NULL, encrypt, NULL) != 1)
		die("EVP_CipherInit_ex2");
	return ctx;
}

static size_t openssl_run(void *state, const struct pass *pass)
{
	uint64_t iv[2] = { 0 };
	int len;

	for (size_t at = 0; iv[0] < pass->n; at += pass->unit, iv[0]++) {
		if (EVP_CipherInit_ex2(state, NULL, NULL, (const unsigned char *)iv, -1, NULL) != 1 ||
		    EVP_CipherUpdate(state, pass->dst + at, &len, pass->src + at, (int)pass->unit) != 1)
			die("EVP_CipherUpdate");
	}
	return pass->n * pass->unit;
}

static void openssl_close(void *state)
{
	EVP_CIPHER_CTX_free(state);
}

const struct peer openssl = { "OpenSSL", openssl_open, openssl_run, openssl_close };

/* ---- libgcrypt ---------------------------------------------------------------------------------------------------- */

#ifdef HAVE_GCRYPT
#include <gcrypt.h>

static void *gcrypt_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	gcry_cipher_hd_t handle;

	if (!gcry_check_version(GCRYPT_VERSION))
		die("gcry_check_version");
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	if (gcry_cipher_open(&handle, key_size == 64 ? GCRY_CIPHER_AES256 : GCRY_CIPHER_AES128, GCRY_CIPHER_MODE_XTS, 0) ||
	    gcry_cipher_setkey(handle, key, key_size))
		die("gcry_cipher_setkey");
	return handle;
}

static size_t gcrypt_run(void *state, const struct pass *pass)
{
	uint64_t iv[2] = { 0 };

	for (size_t at = 0; iv[0] < pass->n; at += pass->unit, iv[0]++) {
		if (gcry_cipher_setiv(state, iv, sizeof(iv)) ||
		    (pass->encrypt ? gcry_cipher_encrypt : gcry_cipher_decrypt)(state, pass->dst + at, pass->unit,
										pass->src + at, pass->unit))
			die("libgcrypt");
	}
	return pass->n * pass->unit;
}

static void gcrypt_close(void *state)
{
	gcry_cipher_close(state);
}

const struct peer libgcrypt = { "libgcrypt", gcrypt_open, gcrypt_run, gcrypt_close };
#else
static void *gcrypt_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	return NULL;
}

const struct peer libgcrypt = { .name = "libgcrypt", .open = gcrypt_open };
#endif

/* ---- the AES units of this CPU -------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#include "base/cpu.h"
#include "crypto/xts.h"
#include <immintrin.h>

#define ROUNDS 14

/* What a loop computes has to be wanted by somebody. */
static volatile uint64_t sink;

/*
 * n times 14 rounds of so many independent vectors that the units never wait for a result, and so few that they and a round
 * key stay in registers. Decrypting takes the units the same time.
 */
#define LOOP(name, vector, features, n_vectors, set1, xor, low, round, last)					\
	__attribute__((target(features), noinline)) static void name(size_t n)					\
	{													\
		vector x[n_vectors], key = set1((long long)n);							\
														\
		for (unsigned i = 0; i < n_vectors; i++)							\
			x[i] = set1((long long)i);								\
		for (; n; n--) {										\
			INL_UNROLL										\
			for (unsigned r = 1; r < ROUNDS; r++) {							\
				INL_UNROLL									\
				for (unsigned i = 0; i < n_vectors; i++)					\
					x[i] = round(x[i], key);						\
			}											\
			INL_UNROLL										\
			for (unsigned i = 0; i < n_vectors; i++)						\
				x[i] = last(x[i], key);								\
		}												\
		for (unsigned i = 1; i < n_vectors; i++)							\
			x[0] = xor(x[0], x[i]);									\
		sink = (uint64_t)_mm_cvtsi128_si64(low(x[0]));							\
	}

LOOP(loop_512, __m512i, "avx512f,vaes", 16, _mm512_set1_epi64, _mm512_xor_si512, _mm512_castsi512_si128,
     _mm512_aesenc_epi128, _mm512_aesenclast_epi128)
LOOP(loop_256, __m256i, "avx2,vaes", 12, _mm256_set1_epi64x, _mm256_xor_si256, _mm256_castsi256_si128,
     _mm256_aesenc_epi128, _mm256_aesenclast_epi128)
LOOP(loop_128, __m128i, "sse4.1,aes", 12, _mm_set1_epi64x, _mm_xor_si128, , _mm_aesenc_si128, _mm_aesenclast_si128)

struct units {
	void (*loop)(size_t n);
	unsigned needs;
	size_t at_once; /* bytes */
};

static const struct units widths[] = {
	{ loop_512, INL_CPU_AESNI | INL_CPU_VAES | INL_CPU_AVX512, 16 * 64 },
	{ loop_256, INL_CPU_AESNI | INL_CPU_VAES | INL_CPU_AVX2, 12 * 32 },
	{ loop_128, INL_CPU_AESNI, 12 * 16 },
};

/* The widest that this CPU has. */
static void *units_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
		if (!(widths[i].needs & ~inl_cpu_features()))
			return (void *)&widths[i];
	}
	return NULL;
}

static size_t units_run(void *state, const struct pass *pass)
{
	const struct units *units = state;
	size_t n = pass->n * pass->unit / units->at_once;

	units->loop(n);
	return n * units->at_once;
}
#else
static void *units_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	return NULL;
}

static size_t units_run(void *state, const struct pass *pass)
{
	return 0;
}
#endif

static void nothing(void *state)
{
}

const struct peer aes_units = { "AES-units", units_open, units_run, nothing };

/* ---- memcpy --------------------------------------------------------------------------------------------------------- */

static void *copy_open(const uint8_t *key, unsigned key_size, bool encrypt)
{
	return (void *)&copy; /* anything but NULL */
}

static size_t copy_run(void *state, const struct pass *pass)
{
	memcpy(pass->dst, pass->src, pass->n * pass->unit);
	return pass->n * pass->unit;
}

const struct peer copy = { "memcpy", copy_open, copy_run, nothing };
