/*
 * crypto/aes_x86.h: the AES key schedule by AES-NI, for all implementations on x86-64.
 * Not here: blocks (xts_aesni.c, xts_vaes_*.c).
 * Read more: FIPS 197, 5.2 and 5.3.5; Intel, "Intrinsics Guide" (AES).
 */
#ifndef INLAY_CRYPTO_AES_X86_H
#define INLAY_CRYPTO_AES_X86_H

#include "crypto/xts.h"

#include <immintrin.h>

#define INL_AES_X86 __attribute__((target("aes,sse4.1"), always_inline)) static inline

INL_AES_X86 __m128i inl_aes_expand_step(__m128i key, __m128i assist)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
	return _mm_xor_si128(key, assist);
}

/* The next key of 128 from the one before; for 256, even and odd ones, from the two before. */
#define INL_AES_EXPAND_128(k, i, rcon)                                                                                \
	((k)[i] = inl_aes_expand_step((k)[(i) - 1],                                                                   \
				      _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], rcon), 0xff)))
#define INL_AES_EXPAND_EVEN(k, i, rcon)                                                                               \
	((k)[i] = inl_aes_expand_step((k)[(i) - 2],                                                                   \
				      _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], rcon), 0xff)))
#define INL_AES_EXPAND_ODD(k, i)                                                                                      \
	((k)[i] = inl_aes_expand_step((k)[(i) - 2],                                                                   \
				      _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], 0), 0xaa)))

INL_AES_X86 void inl_aes_expand_128(__m128i k[11], const uint8_t key[16])
{
	k[0] = _mm_loadu_si128((const __m128i *)key);
	INL_AES_EXPAND_128(k, 1, 0x01);
	INL_AES_EXPAND_128(k, 2, 0x02);
	INL_AES_EXPAND_128(k, 3, 0x04);
	INL_AES_EXPAND_128(k, 4, 0x08);
	INL_AES_EXPAND_128(k, 5, 0x10);
	INL_AES_EXPAND_128(k, 6, 0x20);
	INL_AES_EXPAND_128(k, 7, 0x40);
	INL_AES_EXPAND_128(k, 8, 0x80);
	INL_AES_EXPAND_128(k, 9, 0x1b);
	INL_AES_EXPAND_128(k, 10, 0x36);
}

INL_AES_X86 void inl_aes_expand_256(__m128i k[15], const uint8_t key[32])
{
	k[0] = _mm_loadu_si128((const __m128i *)key);
	k[1] = _mm_loadu_si128((const __m128i *)(key + 16));
	INL_AES_EXPAND_EVEN(k, 2, 0x01);
	INL_AES_EXPAND_ODD(k, 3);
	INL_AES_EXPAND_EVEN(k, 4, 0x02);
	INL_AES_EXPAND_ODD(k, 5);
	INL_AES_EXPAND_EVEN(k, 6, 0x04);
	INL_AES_EXPAND_ODD(k, 7);
	INL_AES_EXPAND_EVEN(k, 8, 0x08);
	INL_AES_EXPAND_ODD(k, 9);
	INL_AES_EXPAND_EVEN(k, 10, 0x10);
	INL_AES_EXPAND_ODD(k, 11);
	INL_AES_EXPAND_EVEN(k, 12, 0x20);
	INL_AES_EXPAND_ODD(k, 13);
	INL_AES_EXPAND_EVEN(k, 14, 0x40);
}

/* The state of an implementation from a key of 2 * 16 or 2 * 32 bytes. Leaves its registers and its stack dirty. */
INL_AES_X86 void inl_xts_expand_x86(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size)
{
	__m128i *enc = (__m128i *)keys->enc, *dec = (__m128i *)keys->dec, *tweak = (__m128i *)keys->tweak;
	unsigned rounds = key_size == 64 ? 14 : 10;

	keys->rounds = rounds;
	if (rounds == 14) {
		inl_aes_expand_256(enc, key);
		inl_aes_expand_256(tweak, key + 32);
	} else {
		inl_aes_expand_128(enc, key);
		inl_aes_expand_128(tweak, key + 16);
	}
	dec[0] = enc[rounds];
	for (unsigned i = 1; i < rounds; i++)
		dec[i] = _mm_aesimc_si128(enc[rounds - i]);
	dec[rounds] = enc[0];
}

#endif
