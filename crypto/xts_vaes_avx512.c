/*
 * crypto/xts_vaes_avx512.c: AES-XTS for x86-64 CPUs with VAES and AVX-512: 32 blocks in flight, four units' tweaks at once.
 * Not here: other CPUs (the other xts_*.c), ciphertext stealing (xts.c).
 * Read more: IEEE 1619-2018, 5.3; Intel, "Intrinsics Guide" (VAES, VPCLMULQDQ).
 *
 * A vector holds four neighbouring blocks, or the tweaks of four.
 */
#include "base/cpu.h"
#include "crypto/xts.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET	 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,sse4.1")))
#define INLINE	 TARGET __attribute__((always_inline)) static inline
#define NOINLINE TARGET __attribute__((noinline)) static
#define WIDE	 8  /* vectors in flight */
#define LANES	 4  /* blocks in a vector */
#define VECTOR	 64 /* bytes */
#define AHEAD	 2048 /* bytes: how far memory is asked for */
#define STREAM	 ((size_t)16 << 20) /* bytes */

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

/*
 * A tweak is added before the first round and after the last, and so are the first and the last key. So what is kept is
 * the tweak with the last key added: it goes into the last round as it is, and into the first one together with both keys.
 * To multiply it, the last key's own product has to be taken out and the last key added again: one constant for each power.
 */
struct round_keys {
	__m512i white;			       /* the first and the last key */
	__m512i k[INL_AES_ROUNDS_MAX];	       /* from 1 on: those between */
	__m512i last, last_x8, last_x16, last_x32;
};

INLINE __m512i broadcast(const uint8_t block[INL_AES_BLOCK])
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)block));
}

INLINE __m512i poly(void)
{
	return _mm512_set1_epi64(INL_XTS_POLY);
}

/* The sum of three. */
INLINE __m512i add3(__m512i a, __m512i b, __m512i c)
{
	return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

/* Every lane times x^(8 * bytes), plus a constant; bytes is one, to 8. */
#define TIMES_BYTES(t, bytes, plus)                                                                                   \
	add3(_mm512_bslli_epi128(t, bytes),                                                                           \
	     _mm512_clmulepi64_epi128(_mm512_bsrli_epi128(t, 16 - (bytes)), poly(), 0x00), plus)

INLINE struct round_keys load_keys(const uint8_t (*k)[INL_AES_BLOCK], unsigned rounds)
{
	struct round_keys keys;

	INL_UNROLL
	for (unsigned i = 1; i < rounds; i++)
		keys.k[i] = broadcast(k[i]);
	keys.last = broadcast(k[rounds]);
	keys.white = _mm512_xor_si512(broadcast(k[0]), keys.last);
	keys.last_x8 = TIMES_BYTES(keys.last, 1, keys.last);
	keys.last_x16 = TIMES_BYTES(keys.last, 2, keys.last);
	keys.last_x32 = TIMES_BYTES(keys.last, 4, keys.last);
	return keys;
}

INLINE __m512i one_round(__m512i x, __m512i key, bool encrypt)
{
	return encrypt ? _mm512_aesenc_epi128(x, key) : _mm512_aesdec_epi128(x, key);
}

INLINE __m512i last_round(__m512i x, __m512i key, bool encrypt)
{
	return encrypt ? _mm512_aesenclast_epi128(x, key) : _mm512_aesdeclast_epi128(x, key);
}

/* ---- tweaks -------------------------------------------------------------------------------------------------------- */

/*
 * Every lane times its own power of x, less than 64, plus a constant. By multiplication, not by shifts: where a CPU has one
 * AES unit it is the unit that shifts, too, and what begins the next unit would wait until this one is done.
 */
INLINE __m512i times(__m512i t, __m512i powers, __m512i plus)
{
	__m512i low = _mm512_clmulepi64_epi128(t, powers, 0x00), high = _mm512_clmulepi64_epi128(t, powers, 0x01);
	__m512i out = _mm512_clmulepi64_epi128(high, poly(), 0x01);

	return _mm512_xor_si512(add3(low, _mm512_bslli_epi128(high, 8), plus), out);
}

/* The tweaks of a unit's first 32 blocks, from four copies of the first. None depends on more than two before it. */
INLINE void begin_tweaks(const struct round_keys *keys, __m512i t[WIDE], __m512i first)
{
	t[0] = times(first, _mm512_set_epi64(0, 8, 0, 4, 0, 2, 0, 1), keys->last);
	t[1] = times(first, _mm512_set_epi64(0, 128, 0, 64, 0, 32, 0, 16), keys->last);
	t[2] = TIMES_BYTES(t[0], 1, keys->last_x8);
	t[3] = TIMES_BYTES(t[1], 1, keys->last_x8);
	INL_UNROLL
	for (unsigned i = 0; i < 4; i++)
		t[4 + i] = TIMES_BYTES(t[i], 2, keys->last_x16);
}

/* ---- data units ---------------------------------------------------------------------------------------------------- */

/* n vectors, n a constant. stream: dst is aligned, and will not be read soon. */
INLINE void vectors(const struct round_keys *keys, unsigned rounds, const __m512i *t, unsigned n, uint8_t *dst,
		    const uint8_t *src, bool encrypt, bool stream)
{
	__m512i x[WIDE];

	INL_UNROLL
	for (unsigned i = 0; i < n; i++) {
		_mm_prefetch((const char *)src + VECTOR * i + AHEAD, _MM_HINT_T0);
		x[i] = add3(t[i], keys->white, _mm512_loadu_si512(src + VECTOR * i));
	}
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++) {
		INL_UNROLL
		for (unsigned i = 0; i < n; i++)
			x[i] = one_round(x[i], keys->k[r], encrypt);
	}
	INL_UNROLL
	for (unsigned i = 0; i < n; i++)
		x[i] = last_round(x[i], t[i], encrypt);
	if (stream) {
		INL_UNROLL
		for (unsigned i = 0; i < n; i++)
			_mm512_stream_si512((void *)(dst + VECTOR * i), x[i]);
		return;
	}
	INL_UNROLL
	for (unsigned i = 0; i < n; i++)
		_mm512_storeu_si512(dst + VECTOR * i, x[i]);
}

/* The last one to three blocks, or four: a mask of their 64-bit halves. */
INLINE void tail(const struct round_keys *keys, unsigned rounds, __m512i t, size_t len, uint8_t *dst,
		 const uint8_t *src, bool encrypt)
{
	__mmask8 mask = (__mmask8)((1u << (len / 8)) - 1);
	__m512i x = add3(t, keys->white, _mm512_maskz_loadu_epi64(mask, src));

	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++)
		x = one_round(x, keys->k[r], encrypt);
	_mm512_mask_storeu_epi64(dst, mask, last_round(x, t, encrypt));
}

/* What is left of a unit: less than 32 blocks. */
INLINE void rest(const struct round_keys *keys, unsigned rounds, const __m512i t[WIDE], size_t len, uint8_t *dst,
		 const uint8_t *src, bool encrypt)
{
	const unsigned half = WIDE / 2;
	__m512i now[WIDE / 2];
	unsigned i = 0;

	if (len >= VECTOR * half) {
		vectors(keys, rounds, t, half, dst, src, encrypt, false);
		len -= VECTOR * half;
		dst += VECTOR * half;
		src += VECTOR * half;
		i = half;
	}
	INL_UNROLL
	for (unsigned k = 0; k < half; k++)
		now[k] = i ? t[half + k] : t[k];
	if (len >= 2 * VECTOR) {
		vectors(keys, rounds, now, 2, dst, src, encrypt, false);
		len -= 2 * VECTOR;
		dst += 2 * VECTOR;
		src += 2 * VECTOR;
		now[0] = now[2];
		now[1] = now[3];
	}
	if (len > VECTOR) {
		vectors(keys, rounds, now, 1, dst, src, encrypt, false);
		len -= VECTOR;
		dst += VECTOR;
		src += VECTOR;
		now[0] = now[1];
	}
	if (len)
		tail(keys, rounds, now[0], len, dst, src, encrypt);
}

/* One unit, from four copies of the tweak of its first block. */
INLINE void unit(const struct round_keys *keys, unsigned rounds, __m512i first, size_t len, uint8_t *dst,
		 const uint8_t *src, bool encrypt, bool stream)
{
	__m512i t[WIDE];

	begin_tweaks(keys, t, first);
	for (; len >= VECTOR * WIDE; dst += VECTOR * WIDE, src += VECTOR * WIDE) {
		vectors(keys, rounds, t, WIDE, dst, src, encrypt, stream);
		len -= VECTOR * WIDE;
		if (!len)
			return;
		INL_UNROLL
		for (unsigned i = 0; i < WIDE; i++)
			t[i] = TIMES_BYTES(t[i], 4, keys->last_x32);
	}
	rest(keys, rounds, t, len, dst, src, encrypt);
}

/* The first tweaks of four units: their numbers encrypted together, one per lane. */
INLINE __m512i first_tweaks(const struct inl_xts_keys *schedule, unsigned rounds, const uint64_t dun[2])
{
	uint64_t lanes[2 * LANES];
	__m512i x;

	for (unsigned i = 0; i < LANES; i++) {
		lanes[2 * i] = dun[0] + i;
		lanes[2 * i + 1] = dun[1] + (lanes[2 * i] < dun[0]);
	}
	/* Loaded one by one: keeping a second set of keys in registers would push the data keys out. */
	x = _mm512_xor_si512(_mm512_loadu_si512(lanes), broadcast(schedule->tweak[0]));
	INL_UNROLL
	for (unsigned r = 1; r < rounds; r++)
		x = _mm512_aesenc_epi128(x, broadcast(schedule->tweak[r]));
	return _mm512_aesenclast_epi128(x, broadcast(schedule->tweak[rounds]));
}

/* What is too much for the caches is written around them: otherwise it would be read from memory first. */
INLINE bool worth_streaming(const struct inl_cipher_span *span, size_t len)
{
	return span->n * len >= STREAM && span->dst != span->src && (uintptr_t)span->dst % VECTOR == 0 && len % VECTOR == 0;
}

/*
 * The tweaks of a group of four units are made while the group before is under way, since nothing can begin without them
 * and they take as long as a short unit does.
 */
INLINE void units(const struct inl_xts_keys *schedule, const struct inl_units *u, unsigned rounds, bool encrypt)
{
	struct round_keys keys = load_keys(encrypt ? schedule->enc : schedule->dec, rounds);
	uint64_t dun[2] = { u->dun[0], u->dun[1] };
	__m512i next = u->tweak ? broadcast(u->tweak) : first_tweaks(schedule, rounds, dun), first = next;
	size_t len = u->unit_len, n_made = 0, n_all = inl_units_count(u);
	bool streamed = false;

	for (size_t s = 0; s < u->n_spans; s++) {
		const uint8_t *src = u->spans[s].src;
		uint8_t *dst = u->spans[s].dst;
		bool stream = worth_streaming(&u->spans[s], len);

		streamed |= stream;
		for (size_t i = u->spans[s].n; i; i--, dst += len, src += len) {
			if (n_made++ % LANES == 0) {
				first = next;
				if (n_made + LANES <= n_all) {
					inl_xts_dun_next(dun, LANES);
					next = first_tweaks(schedule, rounds, dun);
				}
			}
			unit(&keys, rounds, _mm512_shuffle_i64x2(first, first, 0x00), len, dst, src, encrypt,
			     stream);
			first = _mm512_shuffle_i64x2(first, first, 0x39); /* the next unit's tweak to lane 0 */
		}
	}
	if (streamed)
		_mm_sfence(); /* before whatever tells another thread that it is done */
}

/* ---- the implementation -------------------------------------------------------------------------------------------- */

INL_XTS_DIRECTIONS(NOINLINE)

NOINLINE void first_tweak(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t *tweak)
{
	__m512i t = keys->rounds == 14 ? first_tweaks(keys, 14, dun) : first_tweaks(keys, 10, dun);

	_mm_storeu_si128((__m128i *)tweak, _mm512_castsi512_si128(t));
}

NOINLINE void clean(void)
{
	__m512i stack[INL_XTS_STACK_WIDE / VECTOR];

	/* By hand: this is a good part of what a call for one short unit costs. */
	INL_UNROLL
	for (unsigned i = 0; i < INL_XTS_STACK_WIDE / VECTOR; i++)
		_mm512_store_si512(&stack[i], _mm512_setzero_si512());
	__asm__ volatile("" : : "r"(stack) : "memory"); /* somebody might read it */
	_mm256_zeroall();
	__asm__ volatile("vpxord %%zmm16, %%zmm16, %%zmm16; vpxord %%zmm17, %%zmm17, %%zmm17;"
			 "vpxord %%zmm18, %%zmm18, %%zmm18; vpxord %%zmm19, %%zmm19, %%zmm19;"
			 "vpxord %%zmm20, %%zmm20, %%zmm20; vpxord %%zmm21, %%zmm21, %%zmm21;"
			 "vpxord %%zmm22, %%zmm22, %%zmm22; vpxord %%zmm23, %%zmm23, %%zmm23;"
			 "vpxord %%zmm24, %%zmm24, %%zmm24; vpxord %%zmm25, %%zmm25, %%zmm25;"
			 "vpxord %%zmm26, %%zmm26, %%zmm26; vpxord %%zmm27, %%zmm27, %%zmm27;"
			 "vpxord %%zmm28, %%zmm28, %%zmm28; vpxord %%zmm29, %%zmm29, %%zmm29;"
			 "vpxord %%zmm30, %%zmm30, %%zmm30; vpxord %%zmm31, %%zmm31, %%zmm31"
			 :
			 :
			 : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
			   "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}

static const struct inl_xts_code code = {
	inl_xts_expand_x86, encrypt_256, decrypt_256, encrypt_128, decrypt_128, first_tweak, clean,
};

const struct inl_impl inl_xts_vaes_avx512 = {
	.name = "vaes-avx512",
	.needs = INL_CPU_AESNI | INL_CPU_VAES | INL_CPU_AVX512,
	.state_size = sizeof(struct inl_xts_keys),
	.code = &code,
	.init = inl_xts_init,
	.crypt = inl_xts_crypt,
	.steal = inl_xts_steal,
};
#else
const struct inl_impl inl_xts_vaes_avx512 = {
	.name = "vaes-avx512",
	.needs = INL_CPU_AESNI | INL_CPU_VAES | INL_CPU_AVX512,
};
#endif
