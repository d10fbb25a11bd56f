/*
 * tests/unit/pattern.h: plaintext that says itself where and when it was written, keys from a number, and dice.
 * Not here: what is done with them (test_threads.c, test_faults.c).
 * Read more: every 16 bytes are a tag and (version << 40 | position / 16), so that a block on the wrong place, of another
 * bio or of another time is told from the right one, and plaintext on a medium is found by its tag.
 */
#ifndef INLAY_TESTS_PATTERN_H
#define INLAY_TESTS_PATTERN_H

#include <inlay/block.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_TAG	"Plain16!" /* 8 bytes that ciphertext has once in 2^64 */
#define PATTERN_VERSION 0xffffffu /* the highest */

/* splitmix64, Vigna 2015 (public domain). */
static inline uint64_t dice(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* A number below n. */
static inline unsigned roll(uint64_t *state, unsigned n)
{
	return (unsigned)(dice(state) % n);
}

/* pos and len: multiples of 16. */
static inline void pattern_fill(uint8_t *buf, uint64_t pos, size_t len, uint32_t version)
{
	for (size_t i = 0; i < len; i += 16) {
		uint64_t word = (uint64_t)version << 40 | (pos + i) / 16;

		memcpy(buf + i, PATTERN_TAG, 8);
		memcpy(buf + i + 8, &word, 8);
	}
}

/* Which version of the plaintext of this place do these 16 bytes hold? -1: none. */
static inline long pattern_version(const uint8_t *block, uint64_t pos)
{
	uint64_t word;

	memcpy(&word, block + 8, 8);
	if (memcmp(block, PATTERN_TAG, 8) || (word & 0xffffffffffu) != pos / 16)
		return -1;
	return (long)(word >> 40);
}

static inline bool pattern_is(const uint8_t *buf, uint64_t pos, size_t len, uint32_t version)
{
	for (size_t i = 0; i < len; i += 16)
		if (pattern_version(buf + i, pos + i) != (long)version)
			return false;
	return true;
}

/* Where memory holds plaintext, at any alignment; -1: nowhere. */
static inline long pattern_find(const uint8_t *mem, size_t len)
{
	const uint8_t *at = memmem(mem, len, PATTERN_TAG, 8);

	return at ? (long)(at - mem) : -1;
}

/* Where a device holds plaintext, as it lies there; -1: nowhere; -2: it cannot be read. */
static inline long pattern_find_on(struct inl_dev *dev)
{
	size_t len = inl_dev_size(dev);
	uint8_t *mem = malloc(len);
	long at = -2;

	if (mem && !inl_dev_read(dev, 0, mem, len))
		at = pattern_find(mem, len);
	free(mem);
	return at;
}

/* The bytes of key number n. */
static inline void key_bytes(uint64_t n, uint8_t bytes[64])
{
	uint64_t state = n * 0x10001 + 77;

	for (unsigned i = 0; i < 8; i++) {
		uint64_t x = dice(&state);

		memcpy(bytes + 8 * i, &x, 8);
	}
}

static inline int key_make(uint64_t n, uint32_t unit, struct inl_key **out)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, unit, 8, INL_KEY_RAW };
	uint8_t bytes[64];

	key_bytes(n, bytes);
	return inl_key_new(&cfg, bytes, sizeof(bytes), out);
}

/* One data unit under key number n, as OpenSSL alone does it. False: it failed. */
static inline bool unit_crypt(uint64_t n, uint64_t dun, const uint8_t *in, uint8_t *out, int unit, bool encrypt)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t bytes[64], iv[16] = { 0 };
	int len = 0;
	bool ok;

	key_bytes(n, bytes);
	for (unsigned i = 0; i < 8; i++)
		iv[i] = (uint8_t)(dun >> (8 * i));
	ok = ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_xts(), NULL, bytes, iv, encrypt) == 1 &&
	     EVP_CipherUpdate(ctx, out, &len, in, unit) == 1 && len == unit;
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

#endif
