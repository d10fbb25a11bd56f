/*
 * crypto/xts_aesni.c: AES-XTS for x86-64 CPUs with AES-NI: eight blocks in flight, eight units' tweaks at once.
 * Not here: wider CPUs (xts_vaes_*.c), ciphertext stealing (xts.c).
 * Read more: IEEE 1619-2018, 5.3; Intel, "Intrinsics Guide" (AES).
 */
#include "base/cpu.h"
#include "crypto/xts.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET	 __attribute__((target("aes,sse4.1")))
#define INLINE	 TARGET __attribute__((always_inline)) static inline
#define NOINLINE TARGET __attribute__((noinline)) static
#define WIDE	 8  /* blocks in flight: more would not fit into 16 registers */
#define B	 INL_AES_BLOCK

INLINE __m128i load(const uint8_t *block)
{
	return _mm_loadu_si128((const __m128i *)block);
}

INLINE __m128i one_round(__m128i x, __m128i key, bool encrypt)
{
	return encrypt ? _mm_aesenc_si128(x, key) : _mm_aesdec_si128(x, key);
}

INLINE __m128i last_round(__m128i x, __m128i key, bool encrypt)
{
	return encrypt ? _mm_aesenclast_si128(x, key) : _mm_aesdeclast_si128(x, key);
}

/* Times x: each half is doubled, and takes in the bit that the other one lost: as 1, or as the polynomial. */
INLINE __m128i times_x(__m128i t)
{
	const __m128i in = _mm_set_epi32(0, 1, 0, INL_XTS_POLY);
	__m128i out = _mm_srai_epi32(_mm_shuffle_epi32(t, 0x13), 31);

	return _mm_xor_si128(_mm_add_epi64(t, t), _mm_and_si128(out, in));
}

/* n blocks, n a constant. Moves *t on by n. */
INLINE void blocks(const uint8_t (*k)[B], unsigned rounds, __m128i *t, unsigned n, uint8_t *dst, const uint8_t *src,
		   bool encrypt)
{
	const __m128i first = load(k[0]), last = load(k[rounds]);
	__m128i x[WIDE], tweaks[WIDE];

	INL_UNROLL
	for (unsigned i = 0; i < n; i++) {
		x[i] = _mm_xor_si128(_mm_xor_si128(load(src + B * i), first), *t);
		tweaks[i] = _mm_xor_si128(*t, last);
		*t = times_x(*t);
	}
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++) {
		const __m128i key = load(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < n; i++)
			x[i] = one_round(x[i], key, encrypt);
	}
	INL_UNROLL
	for (unsigned i = 0; i < n; i++)
		_mm_storeu_si128((__m128i *)(dst + B * i), last_round(x[i], tweaks[i], encrypt));
}

/* One unit, from the tweak of its first block. */
INLINE void unit(const uint8_t (*k)[B], unsigned rounds, __m128i t, size_t len, uint8_t *dst, const uint8_t *src,
		 bool encrypt)
{
	for (; len >= B * WIDE; len -= B * WIDE, dst += B * WIDE, src += B * WIDE)
		blocks(k, rounds, &t, WIDE, dst, src, encrypt);
	if (len >= B * 4) {
		blocks(k, rounds, &t, 4, dst, src, encrypt);
		len -= B * 4;
		dst += B * 4;
		src += B * 4;
	}
	for (; len; len -= B, dst += B, src += B)
		blocks(k, rounds, &t, 1, dst, src, encrypt);
}

/* The first tweaks of eight units: their numbers encrypted side by side. */
INLINE void first_tweaks(const uint8_t (*k)[B], unsigned rounds, const uint64_t dun[2], __m128i t[WIDE])
{
	INL_UNROLL
	for (unsigned i = 0; i < WIDE; i++) {
		uint64_t low = dun[0] + i;

		t[i] = _mm_xor_si128(_mm_set_epi64x((long long)(dun[1] + (low < dun[0])), (long long)low), load(k[0]));
	}
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++) {
		const __m128i key = load(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < WIDE; i++)
			t[i] = _mm_aesenc_si128(t[i], key);
	}
	INL_UNROLL
	for (unsigned i = 0; i < WIDE; i++)
		t[i] = _mm_aesenclast_si128(t[i], load(k[rounds]));
}

INLINE void units(const struct inl_xts_keys *keys, const struct inl_units *u, unsigned rounds, bool encrypt)
{
	const uint8_t (*k)[B] = encrypt ? keys->enc : keys->dec;
	uint64_t dun[2] = { u->dun[0], u->dun[1] };
	size_t len = u->unit_len, n_made = 0;
	__m128i first[WIDE];

	for (size_t s = 0; s < u->n_spans; s++) {
		const uint8_t *src = u->spans[s].src;
		uint8_t *dst = u->spans[s].dst;

		for (size_t i = u->spans[s].n; i; i--, dst += len, src += len, n_made++) {
			if (u->tweak) {
				first[0] = load(u->tweak);
			} else if (n_made % WIDE == 0) {
				first_tweaks(keys->tweak, rounds, dun, first);
				inl_xts_dun_next(dun, WIDE);
			}
			unit(k, rounds, first[n_made % WIDE], len, dst, src, encrypt);
		}
	}
}

/* ---- the implementation -------------------------------------------------------------------------------------------- */

INL_XTS_DIRECTIONS(NOINLINE)

NOINLINE void first_tweak(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t *tweak)
{
	__m128i t[WIDE];

	first_tweaks(keys->tweak, keys->rounds, dun, t);
	_mm_storeu_si128((__m128i *)tweak, t[0]);
}

static const struct inl_xts_code code = {
	inl_xts_expand_x86, encrypt_256, decrypt_256, encrypt_128, decrypt_128, first_tweak, inl_xts_clean,
};

const struct inl_impl inl_xts_aesni = {
	.name = "aesni",
	.needs = INL_CPU_AESNI,
	.state_size = sizeof(struct inl_xts_keys),
	.code = &code,
	.init = inl_xts_init,
	.crypt = inl_xts_crypt,
	.steal = inl_xts_steal,
};
#else
const struct inl_impl inl_xts_aesni = { .name = "aesni", .needs = INL_CPU_AESNI };
#endif
