/*
 * tests/unit/test_crypto.c: ciphers, hashes and key derivation against vectors of others and against OpenSSL.
 * Not here: policies and names (test_fscrypt.c), threads above the ciphers (test_threads.c).
 * Read more: HACKING.md, "Tests"; tests/vectors/SOURCES.
 */
#include "base/endian.h"
#include "base/secret.h"
#include <inlay/cipher.h>
#include "crypto/hash.h"
#include "crypto/kdf.h"
#include "tests/unit/plain.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <cmocka.h>

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		out[n++] = (uint8_t)byte;
	assert_int_equal(*hex, '\0');
	return n;
}

/* The DUN whose little-endian bytes begin with these. */
static void unhex_dun(const char *hex, uint64_t dun[4])
{
	uint8_t bytes[32] = { 0 };

	unhex(hex, bytes);
	for (int i = 0; i < 4; i++)
		dun[i] = inl_load_le64(bytes + 8 * i);
}

static void assert_hex(const uint8_t *bytes, const char *hex, const char *what)
{
	uint8_t expected[1024];
	size_t n = unhex(hex, expected);

	if (memcmp(bytes, expected, n) != 0)
		fail_msg("%s: not the expected bytes", what);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	while (len--)
		if (*p++)
			return false;
	return true;
}

/* Reproducible pseudorandom bytes (xorshift64*). */
static uint64_t random_state = 88172645463325252u;

static uint64_t random_64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 2685821657736338717u;
}

static void random_fill(uint8_t *p, size_t len)
{
	while (len--)
		*p++ = (uint8_t)(random_64() >> 32);
}

/* The name of the i-th implementation that this CPU runs; NULL past the last. */
static const char *impl_name(enum inl_cipher_id id, unsigned i)
{
	struct inl_cipher_impl impl;

	for (unsigned k = 0; inl_cipher_impl(id, k, &impl); k++)
		if (!impl.lacks && !i--)
			return impl.name;
	return NULL;
}

static struct inl_cipher *new_cipher(enum inl_cipher_id id, const uint8_t *key)
{
	struct inl_cipher *cipher = NULL;

	assert_int_equal(inl_cipher_new(id, NULL, key, &cipher), 0);
	assert_non_null(cipher);
	return cipher;
}

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

/* One data unit both ways, from buffer to buffer and in place. */
static void check_unit_with(struct inl_cipher *cipher, const uint64_t dun[4], const uint8_t *text, const uint8_t *sealed,
			    size_t len, const char *name)
{
	uint8_t out[4096];

	memset(out, 0xee, sizeof(out));
	assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, len, out, text), 0);
	if (memcmp(out, sealed, len) != 0)
		fail_msg("%s: wrong ciphertext", name);
	assert_int_equal(out[len], 0xee);
	assert_int_equal(inl_cipher_decrypt(cipher, dun, 1, len, out, out), 0);
	if (memcmp(out, text, len) != 0)
		fail_msg("%s: not decrypted in place", name);
	assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, len, out, out), 0);
	if (memcmp(out, sealed, len) != 0)
		fail_msg("%s: not encrypted in place", name);
	memset(out, 0xee, sizeof(out));
	assert_int_equal(inl_cipher_decrypt(cipher, dun, 1, len, out, sealed), 0);
	if (memcmp(out, text, len) != 0)
		fail_msg("%s: not decrypted", name);
	assert_int_equal(out[len], 0xee);
}

/* With every implementation that this CPU runs. */
static void check_unit(enum inl_cipher_id id, const uint8_t *key, const uint64_t dun[4], const uint8_t *text,
		       const uint8_t *sealed, size_t len, const char *name)
{
	unsigned i;

	for (i = 0; impl_name(id, i); i++) {
		struct inl_cipher *cipher;

		assert_int_equal(inl_cipher_new(id, impl_name(id, i), key, &cipher), 0);
		check_unit_with(cipher, dun, text, sealed, len, name);
		inl_cipher_free(cipher);
	}
	assert_true(i > 0);
}

struct cipher_vector {
	const char *name, *key, *iv, *text, *sealed;
};

static void check_cipher_vector(enum inl_cipher_id id, const struct cipher_vector *v)
{
	uint8_t key[64], text[512], sealed[512];
	size_t len = unhex(v->sealed, sealed);
	uint64_t dun[4];

	assert_int_equal(unhex(v->key, key), inl_cipher_info(id)->key_size);
	unhex_dun(v->iv, dun);
	if (v->text)
		assert_int_equal(unhex(v->text, text), len);
	for (size_t i = 0; !v->text && i < len; i++)
		text[i] = (uint8_t)i;
	check_unit(id, key, dun, text, sealed, len, v->name);
}

static void test_xts_vectors(void **state)
{
	static const struct cipher_vector vectors[] = {
#include "../vectors/aes-xts.inc"
	};

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
		check_cipher_vector(INL_CIPHER_AES_256_XTS, &vectors[i]);
}

static void test_cts_vectors(void **state)
{
	static const struct cipher_vector vectors[] = {
#include "../vectors/aes-cts.inc"
	};

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
		check_cipher_vector(strlen(vectors[i].key) == 64 ? INL_CIPHER_AES_256_CTS : INL_CIPHER_AES_128_CTS,
				    &vectors[i]);
}

static void test_ecb_vectors(void **state)
{
	uint8_t key[16], text[64], out[64];

	unhex("2b7e151628aed2a6abf7158809cf4f3c", key);
	unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
	      "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710", text);
	assert_int_equal(inl_aes128_ecb(key, text, 64, out), 0);
	assert_hex(out, "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"
			"43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4", "nist f.1.1");
	assert_int_equal(inl_aes128_ecb(key, text, 0, out), 0);
	assert_int_equal(inl_aes128_ecb(key, text, 17, out), -EINVAL);
}

static void test_sha2_vectors(void **state)
{
	static const struct {
		const char *text, *sha256, *sha512;
	} vectors[] = {
#include "../vectors/sha2.inc"
	};
	uint8_t out[64];

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		size_t len = strlen(vectors[i].text);

		assert_int_equal(inl_sha256(vectors[i].text, len, out), 0);
		if (vectors[i].sha256)
			assert_hex(out, vectors[i].sha256, vectors[i].text);
		assert_int_equal(inl_sha512(vectors[i].text, len, out), 0);
		if (vectors[i].sha512)
			assert_hex(out, vectors[i].sha512, vectors[i].text);
	}
}

static void test_siphash_vectors(void **state)
{
	static const char *const authors[64] = {
#include "../vectors/siphash-authors.inc"
	};
	static const struct {
		const char *name, *key, *message, *tag;
	} vectors[] = {
#include "../vectors/siphash.inc"
	};
	uint8_t key[16], message[256], tag[8];

	for (size_t i = 0; i < 64; i++) {
		for (size_t k = 0; k < 64; k++)
			message[k] = (uint8_t)k;
		inl_store_le64(tag, inl_siphash(message, message, i)); /* key and message begin with the same bytes */
		assert_hex(tag, authors[i], "siphash of the authors");
	}
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		unhex(vectors[i].key, key);
		inl_store_le64(tag, inl_siphash(key, message, unhex(vectors[i].message, message)));
		assert_hex(tag, vectors[i].tag, vectors[i].name);
	}
}

static void test_hkdf_vectors(void **state)
{
	static const struct {
		const char *name, *ikm, *info, *okm;
	} vectors[] = {
#include "../vectors/hkdf-sha512.inc"
	};

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		uint8_t ikm[64], info[128], out[128];
		size_t ikm_len = unhex(vectors[i].ikm, ikm), info_len = unhex(vectors[i].info, info);
		size_t out_len = strlen(vectors[i].okm) / 2;
		struct inl_hkdf *hkdf;

		assert_int_equal(inl_hkdf_new(ikm, ikm_len, &hkdf), 0);
		for (int twice = 0; twice < 2; twice++) { /* the states must survive their use */
			memset(out, 0xee, sizeof(out));
			assert_int_equal(inl_hkdf_expand(hkdf, info, info_len, out, out_len), 0);
			assert_hex(out, vectors[i].okm, vectors[i].name);
			assert_int_equal(out[out_len], 0xee);
		}
		inl_hkdf_free(hkdf);
	}
}

/* ---- known answers of the fscrypt format, end to end ------------------------------------------------------------- */

#include "../vectors/fscrypt.inc"

#define MODE_XTS 1
static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
				  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
#define INODE 12

/* Derive with "fscrypt", NUL, the context number and up to 17 bytes more. */
static void derive(uint8_t context, const uint8_t *extra, size_t extra_len, uint8_t *out, size_t out_len)
{
	uint8_t info[32] = "fscrypt", master[64];
	struct inl_hkdf *hkdf;

	for (size_t i = 0; i < 64; i++)
		master[i] = (uint8_t)(i + 1);
	info[8] = context;
	if (extra_len)
		memcpy(info + 9, extra, extra_len);
	assert_int_equal(inl_hkdf_new(master, 64, &hkdf), 0);
	assert_int_equal(inl_hkdf_expand(hkdf, info, 9 + extra_len, out, out_len), 0);
	inl_hkdf_free(hkdf);
}

static void derive_by_nonce(uint8_t context, uint8_t *out, size_t out_len)
{
	uint8_t nonce[16];

	for (int i = 0; i < 16; i++)
		nonce[i] = (uint8_t)i;
	derive(context, nonce, 16, out, out_len);
}

static void derive_by_mode(uint8_t context, uint8_t *out)
{
	uint8_t extra[17] = { MODE_XTS };

	memcpy(extra + 1, uuid, 16);
	derive(context, extra, 17, out, 64);
}

/* The beginning of an encrypted unit of 4096 zeros. */
static void check_zeros(enum inl_cipher_id id, const uint8_t *key, uint64_t dun_low, const char *expected)
{
	struct inl_cipher *cipher = new_cipher(id, key);
	uint64_t dun[4] = { dun_low };
	uint8_t unit[4096] = { 0 };

	assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, sizeof(unit), unit, unit), 0);
	assert_hex(unit, expected, "unit of zeros");
	assert_int_equal(inl_cipher_decrypt(cipher, dun, 1, sizeof(unit), unit, unit), 0);
	assert_true(all_zero(unit, sizeof(unit)));
	inl_cipher_free(cipher);
}

static void test_fscrypt_contents(void **state)
{
	uint8_t key[64], ino_key[16], ino[8], master[64], nonce[16];
	uint32_t hashed;

	derive_by_nonce(2, key, 64);
	check_zeros(INL_CIPHER_AES_256_XTS, key, 0, FSCRYPT_XTS_PER_FILE);
	derive_by_nonce(2, key, 16);
	check_zeros(INL_CIPHER_AES_128_CBC_ESSIV, key, 0, FSCRYPT_ESSIV);

	derive_by_mode(4, key);
	check_zeros(INL_CIPHER_AES_256_XTS, key, (uint64_t)INODE << 32, FSCRYPT_XTS_LBLK_64);

	derive(7, NULL, 0, ino_key, 16);
	inl_store_le64(ino, INODE);
	hashed = (uint32_t)inl_siphash(ino_key, ino, 8);
	assert_int_equal(hashed, FSCRYPT_LBLK_32_INO);
	derive_by_mode(6, key);
	check_zeros(INL_CIPHER_AES_256_XTS, key, hashed, FSCRYPT_XTS_LBLK_32);

	for (int i = 0; i < 64; i++)
		master[i] = (uint8_t)(i + 1);
	for (int i = 0; i < 16; i++)
		nonce[i] = (uint8_t)i;
	assert_int_equal(inl_aes128_ecb(nonce, master, 64, key), 0);
	check_zeros(INL_CIPHER_AES_256_XTS, key, 0, FSCRYPT_XTS_V1);
}

static void test_fscrypt_names(void **state)
{
	const uint64_t dun[4] = { 0 };
	uint8_t key[32], name[32] = "hello", out[32];
	struct inl_cipher *cipher;

	derive_by_nonce(2, key, 32);
	cipher = new_cipher(INL_CIPHER_AES_256_CTS, key);
	assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 32, out, name), 0);
	assert_hex(out, FSCRYPT_HELLO_32, "hello, padded to 32");
	assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 16, out, name), 0);
	assert_hex(out, FSCRYPT_HELLO_4, "hello, padded to 16");
	inl_cipher_free(cipher);
	derive_by_nonce(5, key, 16);
	assert_hex(key, FSCRYPT_DIRHASH_KEY, "dirhash key");
}

/* ---- OpenSSL's own modes as oracle ------------------------------------------------------------------------------- */

/* One data unit in a context that is made for it alone. cts: CS3 as OpenSSL does it. */
static void oracle(const char *name, const uint8_t *key, const uint8_t iv[16], bool encrypt, uint8_t *dst,
		   const uint8_t *src, size_t len)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	OSSL_PARAM cs3[] = { OSSL_PARAM_utf8_string(OSSL_CIPHER_PARAM_CTS_MODE, "CS3", 0), OSSL_PARAM_END };
	int out = 0;

	assert_int_equal(EVP_CipherInit_ex2(ctx, cipher, key, iv, encrypt, strstr(name, "CTS") ? cs3 : NULL), 1);
	EVP_CIPHER_CTX_set_padding(ctx, 0);
	assert_int_equal(EVP_CipherUpdate(ctx, dst, &out, src, (int)len), 1);
	assert_int_equal(out, len);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
}

static void oracle_essiv(const uint8_t *key, const uint8_t iv[16], bool encrypt, uint8_t *dst, const uint8_t *src,
			 size_t len)
{
	uint8_t salt[32], salted[16];

	assert_int_equal(EVP_Digest(key, 16, salt, NULL, EVP_sha256(), NULL), 1);
	oracle("AES-256-ECB", salt, NULL, true, salted, iv, 16);
	oracle("AES-128-CBC", key, salted, encrypt, dst, src, len);
}

static const struct {
	enum inl_cipher_id id;
	const char *oracle; /* NULL: oracle_essiv */
	size_t step;
	bool best; /* the best implementation that this CPU runs; else OpenSSL's */
} modes[] = {
	{ INL_CIPHER_AES_256_XTS, "AES-256-XTS", 16, true },
	{ INL_CIPHER_AES_256_XTS, "AES-256-XTS", 16, false },
	{ INL_CIPHER_AES_128_CBC_ESSIV, NULL, 16, false },
	{ INL_CIPHER_AES_256_CTS, "AES-256-CBC-CTS", 1, false },
	{ INL_CIPHER_AES_128_CTS, "AES-128-CBC-CTS", 1, false },
};
#define N_MODES (sizeof(modes) / sizeof(modes[0]))

static bool is_openssl(size_t mode)
{
	return !modes[mode].best || !strcmp(impl_name(modes[mode].id, 0), "openssl");
}

static struct inl_cipher *mode_cipher(size_t mode, const uint8_t *key)
{
	struct inl_cipher *cipher;

	assert_int_equal(inl_cipher_new(modes[mode].id, modes[mode].best ? NULL : "openssl", key, &cipher), 0);
	return cipher;
}

static void oracle_units(size_t mode, const uint8_t *key, const uint64_t first[4], bool encrypt, size_t n, size_t len,
			 uint8_t *dst, const uint8_t *src)
{
	unsigned __int128 low = (unsigned __int128)first[1] << 64 | first[0]; /* all that these modes use of a DUN */

	for (size_t i = 0; i < n; i++, low++) {
		uint8_t iv[16];

		inl_store_le64(iv, (uint64_t)low);
		inl_store_le64(iv + 8, (uint64_t)(low >> 64));
		if (modes[mode].oracle)
			oracle(modes[mode].oracle, key, iv, encrypt, dst + i * len, src + i * len, len);
		else
			oracle_essiv(key, iv, encrypt, dst + i * len, src + i * len, len);
	}
}

#define ROOM 65536

/* n units, in place or not, misaligned by up to 63 bytes, first DUN near a carry or anywhere. */
static void random_case(size_t mode, uint8_t *text, uint8_t *expected, uint8_t *out)
{
	size_t max = random_64() % 8 ? 700 : 4096, len = 16 + random_64() % (max - 15), n, at = random_64() % 64;
	uint64_t dun[4] = { random_64(), random_64(), random_64(), random_64() };
	uint8_t key[64];
	struct inl_cipher *cipher;
	bool in_place = random_64() % 2;

	len -= len % modes[mode].step;
	n = random_64() % 9;
	if (random_64() % 2)
		dun[0] = UINT64_MAX - random_64() % 4; /* carries */
	if (random_64() % 4 == 0)
		dun[1] = UINT64_MAX;
	random_fill(key, sizeof(key));
	cipher = mode_cipher(mode, key);
	random_fill(text + at, n * len);
	oracle_units(mode, key, dun, true, n, len, expected, text + at);
	memset(out, 0xee, ROOM);
	if (in_place)
		memcpy(out + at, text + at, n * len);
	assert_int_equal(inl_cipher_encrypt(cipher, dun, n, len, out + at, in_place ? out + at : text + at), 0);
	assert_memory_equal(out + at, expected, n * len);
	assert_int_equal(out[at + n * len], 0xee);
	assert_true(at == 0 || out[at - 1] == 0xee);
	assert_int_equal(inl_cipher_decrypt(cipher, dun, n, len, in_place ? out + at : expected,
					    in_place ? out + at : expected), 0);
	assert_memory_equal(in_place ? out + at : expected, text + at, n * len);
	inl_cipher_free(cipher);
}

static void test_against_openssl(void **state)
{
	uint8_t *text = malloc(ROOM), *expected = malloc(ROOM), *out = malloc(ROOM);

	assert_true(text && expected && out);
	for (size_t mode = 0; mode < N_MODES; mode++)
		for (int round = 0; round < 150; round++)
			random_case(mode, text, expected, out);
	free(text);
	free(expected);
	free(out);
}

/* Every length of a name, encrypted and decrypted, apart and in place. */
static void test_all_name_lengths(void **state)
{
	const uint64_t dun[4] = { 0 };
	uint8_t key[32], iv[16] = { 0 }, text[300], expected[300];
	struct inl_cipher *cipher;

	random_fill(key, 32);
	random_fill(text, sizeof(text));
	cipher = new_cipher(INL_CIPHER_AES_256_CTS, key);
	for (size_t len = 16; len <= 300; len++) {
		oracle("AES-256-CBC-CTS", key, iv, true, expected, text, len);
		check_unit(INL_CIPHER_AES_256_CTS, key, dun, text, expected, len, "name");
	}
	inl_cipher_free(cipher);
}

/* n units per call are the same as one unit per call; a unit depends on its own DUN only. */
static void test_units_one_by_one(void **state)
{
	enum { N = 20, LEN = 512 };
	uint8_t key[64], text[N * LEN], at_once[N * LEN], one[LEN];
	uint64_t dun[4] = { UINT64_MAX - 7, 5 };

	random_fill(key, sizeof(key));
	random_fill(text, sizeof(text));
	for (size_t mode = 0; mode < N_MODES; mode++) {
		struct inl_cipher *cipher = mode_cipher(mode, key);

		assert_int_equal(inl_cipher_encrypt(cipher, dun, N, LEN, at_once, text), 0);
		for (uint64_t i = N; i-- > 0;) {
			const uint64_t mine[4] = { dun[0] + i, dun[1] + (i > 7) };

			assert_int_equal(inl_cipher_encrypt(cipher, mine, 1, LEN, one, text + i * LEN), 0);
			assert_memory_equal(one, at_once + i * LEN, LEN);
		}
		inl_cipher_free(cipher);
	}
}

/* A buffer that ends where its page ends: nothing may read or write beyond. */
static void test_guard_page(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t dun[4] = { 1 };
	uint8_t key[64];

	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
	random_fill(key, sizeof(key));
	for (size_t mode = 0; mode < N_MODES; mode++) {
		struct inl_cipher *cipher = mode_cipher(mode, key);

		for (size_t len = 16; len < 600; len += modes[mode].step) {
			uint8_t *end = map + page - len;

			memset(end, 0, len);
			assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, len, end, end), 0);
			assert_false(all_zero(end, len));
			assert_int_equal(inl_cipher_decrypt(cipher, dun, 1, len, end, end), 0);
			assert_true(all_zero(end, len));
		}
		inl_cipher_free(cipher);
	}
	munmap(map, 2 * page);
}

static void oracle_hkdf(const uint8_t *ikm, size_t ikm_len, const uint8_t *info, size_t info_len, uint8_t *out,
			size_t out_len)
{
	uint8_t salt[64] = { 0 };
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA512", 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, (void *)ikm, ikm_len),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof(salt)),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_len),
		OSSL_PARAM_END,
	};

	assert_int_equal(EVP_KDF_derive(ctx, out, out_len, params), 1);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
}

static void test_hkdf_against_openssl(void **state)
{
	static uint8_t expected[255 * 64], out[255 * 64 + 1];
	uint8_t ikm[64], info[200];
	struct inl_hkdf *hkdf;

	for (int round = 0; round < 100; round++) {
		size_t ikm_len = 16 + random_64() % 49, info_len = 1 + random_64() % 200;
		size_t out_len = round == 0 ? sizeof(expected) : 1 + random_64() % 300;

		random_fill(ikm, ikm_len);
		random_fill(info, info_len);
		oracle_hkdf(ikm, ikm_len, info, info_len, expected, out_len);
		assert_int_equal(inl_hkdf_new(ikm, ikm_len, &hkdf), 0);
		assert_int_equal(inl_hkdf_expand(hkdf, info, info_len, out, out_len), 0);
		assert_memory_equal(out, expected, out_len);
		assert_int_equal(inl_hkdf_expand(hkdf, info, info_len, out, sizeof(out)), -EINVAL);
		inl_hkdf_free(hkdf);
	}
	inl_hkdf_free(NULL);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void test_info(void **state)
{
	static const struct {
		unsigned key, iv, strength;
		bool available;
	} expected[INL_CIPHER_MAX] = {
		[INL_CIPHER_AES_256_XTS] = { 64, 16, 32, true },
		[INL_CIPHER_AES_128_XTS] = { 32, 16, 16, true },
		[INL_CIPHER_AES_128_CBC_ESSIV] = { 16, 16, 16, true },
		[INL_CIPHER_AES_256_CTS] = { 32, 16, 32, true },
		[INL_CIPHER_AES_128_CTS] = { 16, 16, 16, true },
		[INL_CIPHER_ADIANTUM] = { 32, 32, 32, false },
		[INL_CIPHER_AES_256_HCTR2] = { 32, 32, 32, false },
		[INL_CIPHER_SM4_XTS] = { 32, 16, 16, false },
		[INL_CIPHER_SM4_CTS] = { 16, 16, 16, false },
	};
	uint8_t key[64];

	random_fill(key, sizeof(key));
	for (int id = 1; id < INL_CIPHER_MAX; id++) {
		const struct inl_cipher_info *info = inl_cipher_info((enum inl_cipher_id)id);
		struct inl_cipher *cipher = NULL;

		assert_int_equal(info->key_size, expected[id].key);
		assert_int_equal(info->iv_size, expected[id].iv);
		assert_int_equal(info->strength, expected[id].strength);
		assert_int_equal(info->available, expected[id].available);
		assert_int_equal(inl_cipher_new((enum inl_cipher_id)id, NULL, key, &cipher), info->available ? 0 : -ENOPKG);
		assert_true(info->available == !!cipher);
		inl_cipher_free(cipher);
	}
	assert_null(inl_cipher_info(0));
	assert_null(inl_cipher_info(INL_CIPHER_MAX));
	assert_null(inl_cipher_info((enum inl_cipher_id)-1));
}

static void test_weak_keys(void **state)
{
	struct inl_cipher *cipher = NULL;
	uint8_t key[64];

	random_fill(key, 32);
	memcpy(key + 32, key, 32);
	assert_int_equal(inl_cipher_new(INL_CIPHER_AES_256_XTS, NULL, key, &cipher), -EINVAL);
	assert_null(cipher);
	key[63] ^= 1;
	assert_int_equal(inl_cipher_new(INL_CIPHER_AES_256_XTS, NULL, key, &cipher), 0);
	inl_cipher_free(cipher);
	inl_cipher_free(NULL);
}

static void test_unit_lengths(void **state)
{
	static uint8_t buffer[65536 + 16];
	const uint64_t dun[4] = { 0 };
	uint8_t key[64];

	random_fill(key, sizeof(key));
	for (size_t mode = 0; mode < N_MODES; mode++) {
		struct inl_cipher *cipher = mode_cipher(mode, key);

		memset(buffer, 0x11, sizeof(buffer));
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 15, buffer, buffer), -EINVAL);
		assert_int_equal(inl_cipher_decrypt(cipher, dun, 1, 0, buffer, buffer), -EINVAL);
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 65536 + 16, buffer, buffer), -EINVAL);
		for (size_t i = 0; i < sizeof(buffer); i++)
			assert_int_equal(buffer[i], 0x11);
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 17, buffer, buffer),
				 modes[mode].step == 1 ? 0 : -EINVAL);
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 1, 65536, buffer, buffer), 0);
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 0, 512, NULL, NULL), 0);
		inl_cipher_free(cipher);
	}
}

/* ---- a failing library below ------------------------------------------------------------------------------------- */

/* OpenSSL's allocations fail while this is positive: the only way to make its functions fail from outside. */
static atomic_int allocations_fail;

static void *failing_malloc(size_t len, const char *file, int line)
{
	return allocations_fail ? NULL : malloc(len);
}

static void *failing_realloc(void *p, size_t len, const char *file, int line)
{
	return allocations_fail ? NULL : realloc(p, len);
}

static void plain_free(void *p, const char *file, int line)
{
	free(p);
}

static void test_library_fails(void **state)
{
	const uint64_t dun[4] = { 0 };
	uint8_t key[64], text[1024], out[1024];

	random_fill(key, sizeof(key));
	memset(text, 0x22, sizeof(text));
	for (size_t mode = 0; mode < N_MODES; mode++) {
		struct inl_cipher *cipher;

		if (!is_openssl(mode))
			continue;
		cipher = mode_cipher(mode, key);
		allocations_fail = 1;
		memset(out, 0x33, sizeof(out));
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 2, 512, out, text), -EIO);
		assert_true(all_zero(out, sizeof(out)));
		memset(out, 0x33, sizeof(out));
		assert_int_equal(inl_cipher_decrypt(cipher, dun, 2, 512, out, text), -EIO);
		assert_true(all_zero(out, sizeof(out)));
		allocations_fail = 0; /* it recovers */
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 2, 512, out, text), 0);
		allocations_fail = 1; /* and needs no memory any more */
		assert_int_equal(inl_cipher_encrypt(cipher, dun, 2, 512, out, text), 0);
		allocations_fail = 0;
		assert_int_equal(inl_cipher_decrypt(cipher, dun, 2, 512, out, out), 0);
		assert_memory_equal(out, text, sizeof(text));
		inl_cipher_free(cipher);
	}
}

/* HKDF needs nothing of OpenSSL that can fail; the others are wiped. */
static void test_derivation_fails(void **state)
{
	struct inl_hkdf *hkdf = NULL;
	uint8_t key[16] = { 1 }, out[64], expected[64];

	oracle_hkdf(key, 16, key, 16, expected, 64);
	allocations_fail = 1;
	assert_int_equal(inl_hkdf_new(key, 16, &hkdf), 0);
	assert_int_equal(inl_hkdf_expand(hkdf, key, 16, out, 64), 0);
	assert_memory_equal(out, expected, 64);
	assert_int_equal(inl_aes128_ecb(key, key, 16, out), -EIO);
	assert_true(all_zero(out, 16));
	assert_int_equal(inl_sha256(key, 16, out), -EIO);
	assert_int_equal(inl_sha512(key, 16, out), -EIO);
	allocations_fail = 0;
	inl_hkdf_free(hkdf);
}

/* No more memory for secrets: nothing is leaked, nothing works by accident. */
static void test_arena_full(void **state)
{
	static void *all[1 << 17];
	struct inl_cipher *cipher = NULL;
	struct inl_hkdf *hkdf = NULL;
	uint8_t key[64];
	size_t n = 0;

	random_fill(key, sizeof(key));
	while (n < sizeof(all) / sizeof(all[0]) && (all[n] = inl_secret_alloc(64)))
		n++;
	assert_true(n < sizeof(all) / sizeof(all[0]));
	assert_int_equal(inl_cipher_new(INL_CIPHER_AES_256_XTS, NULL, key, &cipher), -ENOMEM);
	assert_null(cipher);
	assert_int_equal(inl_hkdf_new(key, sizeof(key), &hkdf), -ENOMEM);
	assert_null(hkdf);
	while (n)
		inl_secret_free(all[--n]);
}

/* How often `len` bytes of a key stand in what lies below on the stack. */
__attribute__((noinline)) static unsigned count_on_stack(const uint8_t *bytes, size_t len)
{
	uint8_t below[32768];
	unsigned n = 0;

	__asm__ volatile("" : "=m"(below)); /* for the compiler it has been written */
	for (size_t i = 0; i + len <= sizeof(below); i++) {
		size_t same = 0;

		while (same < len && below[i + same] == bytes[same])
			same++;
		n += same == len;
	}
	return n;
}

/* Functions of their own, so that their callers find below them on the stack what they left there. */
__attribute__((noinline)) static void make_hkdf(const uint8_t ikm[64], struct inl_hkdf **hkdf)
{
	assert_int_equal(inl_hkdf_new(ikm, 64, hkdf), 0);
}

__attribute__((noinline)) static void use_hkdf(const struct inl_hkdf *hkdf, uint8_t okm[64])
{
	assert_int_equal(inl_hkdf_expand(hkdf, (const uint8_t *)"info", 4, okm, 64), 0);
}

/* SHA-512 works on the words of a block, each with a constant added: the first, of the 64 bytes xored with a pad. */
static unsigned count_first_word(const uint8_t bytes[64], uint8_t pad)
{
	uint64_t word = 0;

	for (int i = 0; i < 8; i++)
		word = word << 8 | (bytes[i] ^ pad);
	word += UINT64_C(0x428a2f98d728ae22);
	return count_on_stack((const uint8_t *)&word, sizeof(word));
}

static void sha512_pieces(const uint8_t key[64], uint8_t pad, const void *text, size_t len, uint8_t out[64])
{
	uint8_t block[256];

	memset(block, pad, 128);
	for (int i = 0; i < 64; i++)
		block[i] ^= key[i];
	memcpy(block + 128, text, len);
	assert_int_equal(EVP_Digest(block, 128 + len, out, NULL, EVP_sha512(), NULL), 1);
}

/*
 * Of a derivation nothing stays behind: not in secret memory, and on the stack neither the states that the arena holds
 * (each begins with eight words), nor the keys that they come from, nor what was derived.
 */
static void test_hkdf_is_wiped(void **state)
{
	enum { HALF = 216, LEN = 2 * HALF };
	uint8_t *ikm = malloc(64), *held = malloc(LEN), *okm = malloc(64), *inner = malloc(64), *prk = malloc(64), *probe;
	const uint8_t salt[64] = { 0 };
	struct inl_hkdf *hkdf;

	assert_true(ikm && held && okm && inner && prk);
	random_fill(ikm, 64);
	sha512_pieces(salt, 0x36, ikm, 64, inner);
	sha512_pieces(salt, 0x5c, inner, 64, prk);
	sha512_pieces(prk, 0x36, "info\1", 5, inner);
	probe = inl_secret_alloc(LEN);
	inl_secret_free(probe);
	make_hkdf(ikm, &hkdf);
	assert_int_equal(is_plain_build() ? count_first_word(prk, 0x36) + count_first_word(prk, 0x5c) : 0, 0);
	assert_false(all_zero(probe, 64) || all_zero(probe + HALF, 64));
	memcpy(held, probe, LEN);
	use_hkdf(hkdf, okm);
	assert_int_equal(is_plain_build() ? count_first_word(inner, 0) : 0, 0);
	for (size_t at = 0; at < 64 && is_plain_build(); at += 8)
		assert_int_equal(count_on_stack(held + at, 8) + count_on_stack(held + HALF + at, 8) +
					 count_on_stack(okm + at, 8), 0);
	inl_hkdf_free(hkdf);
	assert_true(all_zero(probe, LEN));
	free(ikm);
	free(held);
	free(okm);
	free(inner);
	free(prk);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

enum { N_THREADS = 8, N_UNITS = 8, UNIT = 512 };

static int n_rounds = 400;

struct crowd {
	struct inl_cipher *cipher;
	struct inl_hkdf *hkdf;
	uint8_t text[N_UNITS * UNIT], sealed[N_UNITS * UNIT], okm[64];
	uint64_t dun[4];
	pthread_barrier_t start;
	atomic_int wrong;
};

static void *crowd_thread(void *arg)
{
	struct crowd *crowd = arg;
	uint8_t out[N_UNITS * UNIT], okm[64];

	pthread_barrier_wait(&crowd->start);
	for (int round = 0; round < n_rounds; round++) {
		if (inl_cipher_encrypt(crowd->cipher, crowd->dun, N_UNITS, UNIT, out, crowd->text) < 0 ||
		    memcmp(out, crowd->sealed, sizeof(out)) != 0)
			crowd->wrong++;
		if (inl_cipher_decrypt(crowd->cipher, crowd->dun, N_UNITS, UNIT, out, out) < 0 ||
		    memcmp(out, crowd->text, sizeof(out)) != 0)
			crowd->wrong++;
		if (inl_hkdf_expand(crowd->hkdf, crowd->text, 20, okm, 64) < 0 || memcmp(okm, crowd->okm, 64) != 0)
			crowd->wrong++;
	}
	return NULL;
}

static void run_crowd(struct crowd *crowd)
{
	pthread_t threads[N_THREADS];

	pthread_barrier_init(&crowd->start, NULL, N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_thread, crowd), 0);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd->start);
	assert_int_equal(crowd->wrong, 0);
}

static void test_threads(void **state)
{
	static struct crowd crowd;
	uint8_t key[64];

	for (size_t mode = 0; mode < N_MODES; mode++) {
		random_fill(key, sizeof(key));
		random_fill(crowd.text, sizeof(crowd.text));
		crowd.dun[0] = UINT64_MAX - 3;
		oracle_units(mode, key, crowd.dun, true, N_UNITS, UNIT, crowd.sealed, crowd.text);
		oracle_hkdf(key, 64, crowd.text, 20, crowd.okm, 64);
		/* Not used before: the threads also race to make schedules. */
		crowd.cipher = mode_cipher(mode, key);
		assert_int_equal(inl_hkdf_new(key, 64, &crowd.hkdf), 0);
		run_crowd(&crowd);
		inl_cipher_free(crowd.cipher);
		inl_hkdf_free(crowd.hkdf);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_xts_vectors),
		cmocka_unit_test(test_cts_vectors),
		cmocka_unit_test(test_ecb_vectors),
		cmocka_unit_test(test_sha2_vectors),
		cmocka_unit_test(test_siphash_vectors),
		cmocka_unit_test(test_hkdf_vectors),
		cmocka_unit_test(test_fscrypt_contents),
		cmocka_unit_test(test_fscrypt_names),
		cmocka_unit_test(test_against_openssl),
		cmocka_unit_test(test_all_name_lengths),
		cmocka_unit_test(test_units_one_by_one),
		cmocka_unit_test(test_guard_page),
		cmocka_unit_test(test_hkdf_against_openssl),
		cmocka_unit_test(test_info),
		cmocka_unit_test(test_weak_keys),
		cmocka_unit_test(test_unit_lengths),
		cmocka_unit_test(test_library_fails),
		cmocka_unit_test(test_derivation_fails),
		cmocka_unit_test(test_arena_full),
		cmocka_unit_test(test_hkdf_is_wiped),
		cmocka_unit_test(test_threads),
	};

	if (CRYPTO_set_mem_functions(failing_malloc, failing_realloc, plain_free) != 1)
		return 1;
	if (argc == 2 && strcmp(argv[1], "--quick") == 0)
		n_rounds = 20; /* an emulated CPU */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
