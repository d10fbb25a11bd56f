/*
 * crypto/xts_vaes_avx2.c: AES-XTS for x86-64 CPUs with VAES but without AVX-512: 16 blocks in flight, eight units' tweaks.
 * Not here: other CPUs (the other xts_*.c), ciphertext stealing (xts.c).
 * Read more: IEEE 1619-2018, 5.3; Intel, "Intrinsics Guide" (VAES, VPCLMULQDQ).
 *
 * A vector holds two neighbouring blocks, or the tweaks of two.
 */
#include "base/cpu.h"
#include "crypto/xts.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET	 __attribute__((target("avx2,vaes,vpclmulqdq,aes,sse4.1")))
#define INLINE	 TARGET __attribute__((always_inline)) static inline
#define NOINLINE TARGET __attribute__((noinline)) static
#define WIDE	 8  /* vectors in flight: more would not fit into 16 registers */
#define VECTOR	 32 /* bytes */
#define GROUP	 8  /* units whose first tweaks are made together */
#define B	 INL_AES_BLOCK

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

INLINE __m256i load(const uint8_t *two_blocks)
{
	return _mm256_loadu_si256((const __m256i *)two_blocks);
}

/* One block, twice. */
INLINE __m256i broadcast(const uint8_t block[B])
{
	return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)block));
}

INLINE __m256i one_round(__m256i x, __m256i key, bool encrypt)
{
	return encrypt ? _mm256_aesenc_epi128(x, key) : _mm256_aesdec_epi128(x, key);
}

INLINE __m256i last_round(__m256i x, __m256i key, bool encrypt)
{
	return encrypt ? _mm256_aesenclast_epi128(x, key) : _mm256_aesdeclast_epi128(x, key);
}

/* ---- tweaks -------------------------------------------------------------------------------------------------------- */

INLINE __m256i poly(void)
{
	return _mm256_set1_epi64x(INL_XTS_POLY);
}

/* Lane i times x^i: from two copies of a unit's first tweak to its first two. */
INLINE __m256i spread(__m256i t)
{
	const __m256i up = _mm256_set_epi64x(1, 1, 0, 0), down = _mm256_set_epi64x(63, 63, 64, 64);
	__m256i carry = _mm256_srlv_epi64(t, down);

	t = _mm256_xor_si256(_mm256_sllv_epi64(t, up), _mm256_slli_si256(carry, 8));
	return _mm256_xor_si256(t, _mm256_clmulepi64_epi128(carry, poly(), 0x01));
}

/* Both lanes times x^n, n < 64. */
INLINE __m256i times_bits(__m256i t, int n)
{
	__m256i carry = _mm256_srli_epi64(t, 64 - n), out = _mm256_clmulepi64_epi128(carry, poly(), 0x01);

	t = _mm256_xor_si256(_mm256_slli_epi64(t, n), _mm256_slli_si256(carry, 8));
	return _mm256_xor_si256(t, out);
}

/* Both lanes times x^(8 * bytes), bytes a constant up to 8. */
#define TIMES_BYTES(t, bytes)                                                                                         \
	_mm256_xor_si256(_mm256_slli_si256(t, bytes),                                                                 \
			 _mm256_clmulepi64_epi128(_mm256_srli_si256(t, 16 - (bytes)), poly(), 0x00))

/* The tweaks of a unit's first 16 blocks, from two copies of the first. None depends on more than two before it. */
INLINE void begin_tweaks(__m256i t[WIDE], __m256i first)
{
	t[0] = spread(first);
	t[1] = times_bits(t[0], 2);
	t[2] = times_bits(t[0], 4);
	t[3] = times_bits(t[0], 6);
	INL_UNROLL
	for (unsigned i = 0; i < 4; i++)
		t[4 + i] = TIMES_BYTES(t[i], 1);
}

/* ---- data units ---------------------------------------------------------------------------------------------------- */

/* n vectors, n a constant. Keys come from memory: the registers are full of text. */
INLINE void vectors(const uint8_t (*k)[B], unsigned rounds, const __m256i *t, unsigned n, uint8_t *dst,
		    const uint8_t *src, bool encrypt)
{
	const __m256i first = broadcast(k[0]), last = broadcast(k[rounds]);
	__m256i x[WIDE];

	INL_UNROLL
	for (unsigned i = 0; i < n; i++)
		x[i] = _mm256_xor_si256(_mm256_xor_si256(t[i], first), load(src + VECTOR * i));
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++) {
		const __m256i key = broadcast(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < n; i++)
			x[i] = one_round(x[i], key, encrypt);
	}
	INL_UNROLL
	for (unsigned i = 0; i < n; i++) {
		x[i] = last_round(x[i], _mm256_xor_si256(t[i], last), encrypt);
		_mm256_storeu_si256((__m256i *)(dst + VECTOR * i), x[i]);
	}
}

/* One block, in the lower lane. */
INLINE void block(const uint8_t (*k)[B], unsigned rounds, __m128i t, uint8_t *dst, const uint8_t *src, bool encrypt)
{
	__m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)src), _mm_xor_si128(t, *(const __m128i *)k[0]));

	for (unsigned r = 1; r < rounds; r++)
		x = encrypt ? _mm_aesenc_si128(x, *(const __m128i *)k[r]) : _mm_aesdec_si128(x, *(const __m128i *)k[r]);
	t = _mm_xor_si128(t, *(const __m128i *)k[rounds]);
	x = encrypt ? _mm_aesenclast_si128(x, t) : _mm_aesdeclast_si128(x, t);
	_mm_storeu_si128((__m128i *)dst, x);
}

/* One unit, from two copies of the tweak of its first block. */
INLINE void unit(const uint8_t (*k)[B], unsigned rounds, __m256i first, size_t len, uint8_t *dst, const uint8_t *src,
		 bool encrypt)
{
	__m256i t[WIDE];

	begin_tweaks(t, first);
	for (; len >= VECTOR * WIDE; len -= VECTOR * WIDE, dst += VECTOR * WIDE, src += VECTOR * WIDE) {
		vectors(k, rounds, t, WIDE, dst, src, encrypt);
		INL_UNROLL
		for (unsigned i = 0; i < WIDE; i++)
			t[i] = TIMES_BYTES(t[i], 2);
	}
	if (len >= VECTOR * 4) {
		vectors(k, rounds, t, 4, dst, src, encrypt);
		len -= VECTOR * 4;
		dst += VECTOR * 4;
		src += VECTOR * 4;
		t[0] = TIMES_BYTES(t[0], 1);
	}
	for (; len >= VECTOR; len -= VECTOR, dst += VECTOR, src += VECTOR) {
		vectors(k, rounds, t, 1, dst, src, encrypt);
		t[0] = times_bits(t[0], 2);
	}
	if (len)
		block(k, rounds, _mm256_castsi256_si128(t[0]), dst, src, encrypt);
}

/* The first tweaks of eight units: their numbers encrypted together, two in a vector. */
INLINE void first_tweaks(const uint8_t (*k)[B], unsigned rounds, const uint64_t dun[2], uint8_t tweaks[GROUP][B])
{
	uint64_t numbers[GROUP][2];
	__m256i t[GROUP / 2];

	for (unsigned i = 0; i < GROUP; i++) {
		numbers[i][0] = dun[0] + i;
		numbers[i][1] = dun[1] + (numbers[i][0] < dun[0]);
	}
	INL_UNROLL
	for (unsigned i = 0; i < GROUP / 2; i++)
		t[i] = _mm256_xor_si256(load((const uint8_t *)numbers[2 * i]), broadcast(k[0]));
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++) {
		const __m256i key = broadcast(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < GROUP / 2; i++)
			t[i] = _mm256_aesenc_epi128(t[i], key);
	}
	INL_UNROLL
	for (unsigned i = 0; i < GROUP / 2; i++)
		_mm256_storeu_si256((__m256i *)tweaks[2 * i], _mm256_aesenclast_epi128(t[i], broadcast(k[rounds])));
}

INLINE void units(const struct inl_xts_keys *keys, const struct inl_units *u, unsigned rounds, bool encrypt)
{
	const uint8_t (*k)[B] = encrypt ? keys->enc : keys->dec;
	uint64_t dun[2] = { u->dun[0], u->dun[1] };
	size_t len = u->unit_len, n_made = 0;
	uint8_t first[GROUP][B];

	for (size_t s = 0; s < u->n_spans; s++) {
		const uint8_t *src = u->spans[s].src;
		uint8_t *dst = u->spans[s].dst;

		for (size_t i = u->spans[s].n; i; i--, dst += len, src += len, n_made++) {
			if (!u->tweak && n_made % GROUP == 0) {
				first_tweaks(keys->tweak, rounds, dun, first);
				inl_xts_dun_next(dun, GROUP);
			}
			unit(k, rounds, broadcast(u->tweak ? u->tweak : first[n_made % GROUP]), len, dst, src, encrypt);
		}
	}
}

/* ---- the implementation -------------------------------------------------------------------------------------------- */

INL_XTS_DIRECTIONS(NOINLINE)

NOINLINE void first_tweak(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t *tweak)
{
	uint8_t t[GROUP][B];

	first_tweaks(keys->tweak, keys->rounds, dun, t);
	_mm_storeu_si128((__m128i *)tweak, _mm_loadu_si128((const __m128i *)t[0]));
}

NOINLINE void clean(void)
{
	__m256i stack[INL_XTS_STACK / VECTOR];

	/* By hand: this is a good part of what a call for one short unit costs. */
	INL_UNROLL
	for (unsigned i = 0; i < INL_XTS_STACK / VECTOR; i++)
		_mm256_store_si256(&stack[i], _mm256_setzero_si256());
	__asm__ volatile("" : : "r"(stack) : "memory"); /* somebody might read it */
	_mm256_zeroall();
}

static const struct inl_xts_code code = {
	inl_xts_expand_x86, encrypt_256, decrypt_256, encrypt_128, decrypt_128, first_tweak, clean,
};

const struct inl_impl inl_xts_vaes_avx2 = {
	.name = "vaes-avx2",
	.needs = INL_CPU_AESNI | INL_CPU_AVX2 | INL_CPU_VAES,
	.state_size = sizeof(struct inl_xts_keys),
	.code = &code,
	.init = inl_xts_init,
	.crypt = inl_xts_crypt,
	.steal = inl_xts_steal,
};
#else
const struct inl_impl inl_xts_vaes_avx2 = { .name = "vaes-avx2", .needs = INL_CPU_AESNI | INL_CPU_AVX2 | INL_CPU_VAES };
#endif
