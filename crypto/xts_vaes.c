/*
 * crypto/xts_vaes.c: AES-256-XTS for x86-64 CPUs with VAES and AVX-512: 32 blocks in flight, the tweaks of four units at once.
 * Not here: other CPUs (xts.c, on OpenSSL), ciphertext stealing (data units are whole blocks).
 * Read more: IEEE 1619-2018, 5.3; Intel, "Intrinsics Guide" (VAES, VPCLMULQDQ).
 *
 * Tweaks are elements of GF(2^128), little endian, modulo x^128 + x^7 + x^2 + x + 1: the 0x87 below. A vector holds those
 * of four neighbouring blocks. All arithmetic is data-independent in time.
 */
#include "base/cpu.h"
#include "crypto/own.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,sse4.1")))
#define INLINE TARGET __attribute__((always_inline)) static inline
#define ROUNDS 14
#define WIDE   8 /* vectors in flight */

/* Loops over registers: left as loops, they would be loops over memory. */
#ifdef __clang__
#define UNROLL _Pragma("unroll 16")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

struct schedule {
	__m128i data[ROUNDS + 1];  /* encryption; decryption keys are made from these on every call */
	__m128i tweak[ROUNDS + 1];
};

static bool supported(void)
{
	const unsigned needs = INL_CPU_AESNI | INL_CPU_VAES | INL_CPU_AVX512;

	return (inl_cpu_features() & needs) == needs;
}

/* ---- key expansion: FIPS 197, 5.2, for 256 bits ------------------------------------------------------------------- */

INLINE __m128i expand(__m128i key, __m128i assist)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
	return _mm_xor_si128(key, assist);
}

#define EXPAND_EVEN(k, i, rcon)                                                                                      \
	((k)[i] = expand((k)[(i) - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], rcon), 0xff)))
#define EXPAND_ODD(k, i)                                                                                             \
	((k)[i] = expand((k)[(i) - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128((k)[(i) - 1], 0), 0xaa)))

INLINE void expand_key(__m128i k[ROUNDS + 1], const uint8_t key[32])
{
	k[0] = _mm_loadu_si128((const __m128i *)key);
	k[1] = _mm_loadu_si128((const __m128i *)(key + 16));
	EXPAND_EVEN(k, 2, 0x01);
	EXPAND_ODD(k, 3);
	EXPAND_EVEN(k, 4, 0x02);
	EXPAND_ODD(k, 5);
	EXPAND_EVEN(k, 6, 0x04);
	EXPAND_ODD(k, 7);
	EXPAND_EVEN(k, 8, 0x08);
	EXPAND_ODD(k, 9);
	EXPAND_EVEN(k, 10, 0x10);
	EXPAND_ODD(k, 11);
	EXPAND_EVEN(k, 12, 0x20);
	EXPAND_ODD(k, 13);
	EXPAND_EVEN(k, 14, 0x40);
}

TARGET __attribute__((noinline)) static void expand_both(struct schedule *schedule, const uint8_t *key)
{
	expand_key(schedule->data, key);
	expand_key(schedule->tweak, key + 32);
}

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

struct round_keys {
	__m512i k[ROUNDS + 1];
};

/* For decryption the keys in the order they are used: FIPS 197, 5.3.5 (the equivalent inverse cipher). */
INLINE struct round_keys load_keys(const __m128i *k, bool encrypt)
{
	struct round_keys keys;

	UNROLL
	for (int i = 0; i <= ROUNDS; i++) {
		__m128i key = encrypt ? k[i] : k[ROUNDS - i];

		if (!encrypt && i != 0 && i != ROUNDS)
			key = _mm_aesimc_si128(key);
		keys.k[i] = _mm512_broadcast_i32x4(key);
	}
	return keys;
}

INLINE __m512i aes(const struct round_keys *keys, __m512i x, bool encrypt)
{
	x = _mm512_xor_si512(x, keys->k[0]);
	UNROLL
	for (int i = 1; i < ROUNDS; i++)
		x = encrypt ? _mm512_aesenc_epi128(x, keys->k[i]) : _mm512_aesdec_epi128(x, keys->k[i]);
	return encrypt ? _mm512_aesenclast_epi128(x, keys->k[ROUNDS]) : _mm512_aesdeclast_epi128(x, keys->k[ROUNDS]);
}

/* ---- tweaks -------------------------------------------------------------------------------------------------------- */

INLINE __m512i poly(void)
{
	return _mm512_set1_epi64(0x87);
}

/* Lane i times x^i: from four copies of a unit's first tweak to its first four. */
INLINE __m512i spread(__m512i t)
{
	const __m512i up = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
	const __m512i down = _mm512_set_epi64(61, 61, 62, 62, 63, 63, 64, 64);
	__m512i carry = _mm512_srlv_epi64(t, down);

	t = _mm512_xor_si512(_mm512_sllv_epi64(t, up), _mm512_bslli_epi128(carry, 8));
	return _mm512_xor_si512(t, _mm512_clmulepi64_epi128(carry, poly(), 0x01));
}

/* Every lane times x^4: the next four blocks. */
INLINE __m512i times_x4(__m512i t)
{
	__m512i carry = _mm512_srli_epi64(t, 60);

	t = _mm512_xor_si512(_mm512_slli_epi64(t, 4), _mm512_bslli_epi128(carry, 8));
	return _mm512_xor_si512(t, _mm512_clmulepi64_epi128(carry, poly(), 0x01));
}

/* Every lane times x^32: the same place in the next 32 blocks. */
INLINE __m512i times_x32(__m512i t)
{
	__m512i carry = _mm512_bsrli_epi128(t, 12);

	return _mm512_xor_si512(_mm512_bslli_epi128(t, 4), _mm512_clmulepi64_epi128(carry, poly(), 0x00));
}

/* ---- data units ---------------------------------------------------------------------------------------------------- */

/* The last one to three blocks, or four: a mask of their 64-bit halves. */
INLINE void tail(const struct round_keys *keys, __m512i t, size_t len, uint8_t *dst, const uint8_t *src, bool encrypt)
{
	__mmask8 mask = (__mmask8)((1u << (len / 8)) - 1);
	__m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi64(mask, src), t);

	x = _mm512_xor_si512(aes(keys, x, encrypt), t);
	_mm512_mask_storeu_epi64(dst, mask, x);
}

/* One unit, from the encrypted tweak of its first block (in all four lanes). */
INLINE void unit(const struct round_keys *keys, __m512i first, size_t len, uint8_t *dst, const uint8_t *src,
		 bool encrypt)
{
	__m512i t[WIDE];

	t[0] = spread(first);
	if (len >= 64 * WIDE) {
		UNROLL
		for (int i = 1; i < WIDE; i++)
			t[i] = times_x4(t[i - 1]);
	}
	for (; len >= 64 * WIDE; len -= 64 * WIDE, dst += 64 * WIDE, src += 64 * WIDE) {
		__m512i x[WIDE];

		UNROLL
		for (int i = 0; i < WIDE; i++)
			x[i] = _mm512_ternarylogic_epi64(_mm512_loadu_si512(src + 64 * i), t[i], keys->k[0], 0x96);
		UNROLL
		for (int r = 1; r < ROUNDS; r++) {
			UNROLL
			for (int i = 0; i < WIDE; i++)
				x[i] = encrypt ? _mm512_aesenc_epi128(x[i], keys->k[r]) :
						 _mm512_aesdec_epi128(x[i], keys->k[r]);
		}
		UNROLL
		for (int i = 0; i < WIDE; i++) {
			__m512i last = _mm512_xor_si512(keys->k[ROUNDS], t[i]);

			x[i] = encrypt ? _mm512_aesenclast_epi128(x[i], last) : _mm512_aesdeclast_epi128(x[i], last);
			_mm512_storeu_si512(dst + 64 * i, x[i]);
			t[i] = times_x32(t[i]);
		}
	}
	for (; len; len -= len < 64 ? len : 64, dst += 64, src += 64) {
		tail(keys, t[0], len < 64 ? len : 64, dst, src, encrypt);
		t[0] = times_x4(t[0]);
	}
}

/* The first tweaks of four units: their numbers encrypted together, one per lane. */
INLINE __m512i first_tweaks(const __m128i *tweak_keys, const uint64_t dun[4])
{
	uint64_t lanes[8];

	for (unsigned i = 0; i < 4; i++) {
		lanes[2 * i] = dun[0] + i;
		lanes[2 * i + 1] = dun[1] + (lanes[2 * i] < dun[0]);
	}
	/* Loaded one by one: keeping a second set of keys in registers would push the data keys out. */
	__m512i x = _mm512_xor_si512(_mm512_loadu_si512(lanes), _mm512_broadcast_i32x4(tweak_keys[0]));

	UNROLL
	for (int i = 1; i < ROUNDS; i++)
		x = _mm512_aesenc_epi128(x, _mm512_broadcast_i32x4(tweak_keys[i]));
	return _mm512_aesenclast_epi128(x, _mm512_broadcast_i32x4(tweak_keys[ROUNDS]));
}

INLINE void units(const struct schedule *schedule, const uint64_t dun[4], size_t n, size_t len, uint8_t *dst,
		  const uint8_t *src, bool encrypt)
{
	struct round_keys keys = load_keys(schedule->data, encrypt);
	uint64_t at[4] = { dun[0], dun[1] };
	__m512i first = _mm512_setzero_si512();

	for (size_t i = 0; i < n; i++, dst += len, src += len) {
		if (i % 4 == 0) {
			first = first_tweaks(schedule->tweak, at);
			at[1] += at[0] > UINT64_MAX - 4;
			at[0] += 4;
		}
		unit(&keys, _mm512_shuffle_i64x2(first, first, 0x00), len, dst, src, encrypt);
		first = _mm512_shuffle_i64x2(first, first, 0x39); /* the next unit's tweak to lane 0 */
	}
}

/* ---- leaving nothing behind ---------------------------------------------------------------------------------------- */

/*
 * The compiler may keep round keys and tweaks on the stack, where a variable cannot reach them. So the work is done in a
 * function of its own, and then the stack that it had is overwritten, and every vector register.
 */
#define STACK_USED 2048 /* bytes; gcc 12 and clang 14 use less than 1024 */

TARGET __attribute__((noinline)) static void encrypt_all(const struct schedule *schedule, const uint64_t dun[4], size_t n,
							 size_t len, uint8_t *dst, const uint8_t *src)
{
	units(schedule, dun, n, len, dst, src, true);
}

TARGET __attribute__((noinline)) static void decrypt_all(const struct schedule *schedule, const uint64_t dun[4], size_t n,
							 size_t len, uint8_t *dst, const uint8_t *src)
{
	units(schedule, dun, n, len, dst, src, false);
}

TARGET __attribute__((noinline)) static void overwrite(void)
{
	uint8_t stack[STACK_USED];

	inl_wipe(stack, sizeof(stack));
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

static void prepare(void *schedule, const uint8_t *key)
{
	expand_both(schedule, key);
	overwrite();
}

static void encrypt_units(const void *schedule, const uint64_t dun[4], size_t n, size_t len, uint8_t *dst,
			  const uint8_t *src)
{
	encrypt_all(schedule, dun, n, len, dst, src);
	overwrite();
}

static void decrypt_units(const void *schedule, const uint64_t dun[4], size_t n, size_t len, uint8_t *dst,
			  const uint8_t *src)
{
	decrypt_all(schedule, dun, n, len, dst, src);
	overwrite();
}

const struct inl_cpu_mode inl_xts_vaes = {
	.name = "vaes-avx512",
	.supported = supported,
	.schedule_size = sizeof(struct schedule),
	.prepare = prepare,
	.encrypt = encrypt_units,
	.decrypt = decrypt_units,
};
#else
static bool supported(void)
{
	return false;
}

const struct inl_cpu_mode inl_xts_vaes = { .name = "vaes-avx512", .supported = supported };
#endif
