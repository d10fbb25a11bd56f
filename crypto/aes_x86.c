/*
 * crypto/aes_x86.c: the AES key schedule by AES-NI, for all implementations on x86-64.
 * Not here: blocks (xts_aesni.c, xts_vaes_*.c).
 * Read more: FIPS 197, 5.2 and 5.3.5; Intel, "Intrinsics Guide" (AES).
 */
#include "crypto/xts.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("aes,sse4.1")))
#define INLINE TARGET __attribute__((always_inline)) static inline

INLINE __m128i expand_step(__m128i key, __m128i assist)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
	return _mm_xor_si128(key, assist);
}

/* Key i from the one before and the one n before: a key's length. Of 256 bits the odd ones take no constant. */
#define EXPAND(k, i, n, rcon) \
	((k)[i] = expand_step((k)[(i) - (n)], _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], rcon), 0xff)))
#define EXPAND_ODD(k, i) \
	((k)[i] = expand_step((k)[(i) - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], 0), 0xaa)))

INLINE void expand_128(__m128i k[11], const uint8_t key[16])
{
	k[0] = _mm_loadu_si128((const __m128i *)key);
	EXPAND(k, 1, 1, 0x01);
	EXPAND(k, 2, 1, 0x02);
	EXPAND(k, 3, 1, 0x04);
	EXPAND(k, 4, 1, 0x08);
	EXPAND(k, 5, 1, 0x10);
	EXPAND(k, 6, 1, 0x20);
	EXPAND(k, 7, 1, 0x40);
	EXPAND(k, 8, 1, 0x80);
	EXPAND(k, 9, 1, 0x1b);
	EXPAND(k, 10, 1, 0x36);
}

INLINE void expand_256(__m128i k[15], const uint8_t key[32])
{
	k[0] = _mm_loadu_si128((const __m128i *)key);
	k[1] = _mm_loadu_si128((const __m128i *)(key + 16));
	EXPAND(k, 2, 2, 0x01);
	EXPAND_ODD(k, 3);
	EXPAND(k, 4, 2, 0x02);
	EXPAND_ODD(k, 5);
	EXPAND(k, 6, 2, 0x04);
	EXPAND_ODD(k, 7);
	EXPAND(k, 8, 2, 0x08);
	EXPAND_ODD(k, 9);
	EXPAND(k, 10, 2, 0x10);
	EXPAND_ODD(k, 11);
	EXPAND(k, 12, 2, 0x20);
	EXPAND_ODD(k, 13);
	EXPAND(k, 14, 2, 0x40);
}

TARGET void inl_xts_expand_x86(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size)
{
	__m128i *enc = (__m128i *)keys->enc, *dec = (__m128i *)keys->dec, *tweak = (__m128i *)keys->tweak;
	unsigned rounds = key_size == 64 ? 14 : 10;

	keys->rounds = rounds;
	if (rounds == 14) {
		expand_256(enc, key);
		expand_256(tweak, key + 32);
	} else {
		expand_128(enc, key);
		expand_128(tweak, key + 16);
	}
	dec[0] = enc[rounds];
	for (unsigned i = 1; i < rounds; i++)
		dec[i] = _mm_aesimc_si128(enc[rounds - i]);
	dec[rounds] = enc[0];
}
#endif
