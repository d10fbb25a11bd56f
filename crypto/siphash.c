/*
 * crypto/siphash.c: SipHash-2-4.
 * Not here: the directory hash made of it (ext4/), the inode hash (fscrypt/).
 * Read more: Aumasson and Bernstein, "SipHash: a fast short-input PRF", section 2.
 */
#include "base/endian.h"
#include "crypto/hash.h"

static uint64_t rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

static void compress(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_rounds(v, 2);
	v[0] ^= word;
}

/* The last word: what is left of the data, zeros, and the length modulo 256 in the top byte. */
static uint64_t last_word(const uint8_t *rest, size_t len)
{
	uint8_t word[8] = { 0 };

	if (len % 8)
		memcpy(word, rest, len % 8);
	word[7] = (uint8_t)len;
	return inl_load_le64(word);
}

uint64_t inl_siphash(const uint8_t key[16], const void *data, size_t len)
{
	uint64_t k0 = inl_load_le64(key), k1 = inl_load_le64(key + 8);
	uint64_t v[4] = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
			  k1 ^ 0x7465646279746573 };
	const uint8_t *p = data;
	uint64_t hash;

	for (size_t n = len / 8; n; n--, p += 8)
		compress(v, inl_load_le64(p));
	compress(v, last_word(p, len));
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	hash = v[0] ^ v[1] ^ v[2] ^ v[3];
	inl_wipe(v, sizeof(v));
	return hash;
}
