/*
 * base/crc_x86.c: CRC-32C for x86-64: by the crc32 instruction, in three streams, and by folding wide vectors.
 * Not here: CRC-32 (GPT), for which there is no instruction, and which is of little data (base/crc.c).
 * Read more: base/crc_shift.c, on the constants; Intel, "Intrinsics Guide" (SSE4.2, PCLMULQDQ, VPCLMULQDQ).
 */
#include "base/cpu.h"
#include "base/crc_own.h"
#include "base/endian.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET_SSE42  __attribute__((target("sse4.2")))
#define TARGET_PCLMUL __attribute__((target("sse4.2,pclmul")))
#define TARGET_AVX512 __attribute__((target("sse4.2,pclmul,avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq")))
#define INLINE	      __attribute__((always_inline)) static inline

/* Below these many bytes it costs more to put the parts together than it saves to have them. */
#define STREAMS_MIN 96
#define VECTORS_MIN 256 /* and no less: as many are loaded at once */

/* ---- one stream -------------------------------------------------------------------------------------------------- */

TARGET_SSE42 INLINE uint32_t one_stream(uint32_t crc, const uint8_t *data, size_t len)
{
	uint64_t wide = crc;

	for (; len >= 8; data += 8, len -= 8)
		wide = _mm_crc32_u64(wide, inl_load_le64(data));
	crc = (uint32_t)wide;
	if (!len)
		return crc;
	if (len & 4) {
		crc = _mm_crc32_u32(crc, inl_load_le32(data));
		data += 4;
	}
	if (len & 2) {
		crc = _mm_crc32_u16(crc, inl_load_le16(data));
		data += 2;
	}
	return len & 1 ? _mm_crc32_u8(crc, *data) : crc;
}

TARGET_SSE42 static uint32_t by_sse42(uint32_t crc, const uint8_t *data, size_t len)
{
	return one_stream(crc, data, len);
}

/* ---- three streams: the instruction takes three cycles, and one can begin in each -------------------------------- */

/* Their product without carries, which is 64 bits. */
TARGET_PCLMUL INLINE uint64_t multiply(uint32_t a, uint32_t b)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);

	return (uint64_t)_mm_cvtsi128_si64(product);
}

/*
 * Three times n words. The last word of the third stream is summed together with the products that move the other sums
 * to the end: addition is an exclusive or, in any order.
 */
TARGET_PCLMUL INLINE uint32_t three_streams(uint32_t crc, const uint8_t *data, size_t n)
{
	const uint8_t *a = data, *b = a + 8 * n, *c = b + 8 * n;
	uint32_t once = inl_crc32c_shift[n - 1], twice = (uint32_t)_mm_crc32_u64(0, multiply(once, once));
	uint64_t sum_a = crc, sum_b = 0, sum_c = 0, moved;

	for (size_t i = 0; i < n - 1; i++, a += 8, b += 8, c += 8) {
		sum_a = _mm_crc32_u64(sum_a, inl_load_le64(a));
		sum_b = _mm_crc32_u64(sum_b, inl_load_le64(b));
		sum_c = _mm_crc32_u64(sum_c, inl_load_le64(c));
	}
	sum_a = _mm_crc32_u64(sum_a, inl_load_le64(a));
	sum_b = _mm_crc32_u64(sum_b, inl_load_le64(b));
	moved = multiply((uint32_t)sum_a, twice) ^ multiply((uint32_t)sum_b, once);
	return (uint32_t)_mm_crc32_u64(sum_c, inl_load_le64(c) ^ moved);
}

TARGET_PCLMUL static uint32_t by_pclmul(uint32_t crc, const uint8_t *data, size_t len)
{
	while (len >= STREAMS_MIN) {
		size_t n = len / 24 < INL_CRC32C_SHIFTS ? len / 24 : INL_CRC32C_SHIFTS;

		crc = three_streams(crc, data, n);
		data += 24 * n;
		len -= 24 * n;
	}
	return one_stream(crc, data, len);
}

/* ---- vectors: four of 64 bytes, each of four times 128 bits ------------------------------------------------------ */

/* The factors that move past so many bytes, in each 128 bits: of the later half below, of the earlier one above. */
TARGET_AVX512 INLINE __m512i factors(unsigned bytes)
{
	const uint32_t *shift = &inl_crc32c_shift[bytes / 8 - 1];

	return _mm512_broadcast_i64x2(_mm_cvtepu32_epi64(_mm_loadl_epi64((const __m128i *)shift)));
}

/* v moved, plus what is there. */
TARGET_AVX512 INLINE __m512i fold(__m512i v, __m512i factor, __m512i there)
{
	__m512i earlier = _mm512_clmulepi64_epi128(v, factor, 0x10), later = _mm512_clmulepi64_epi128(v, factor, 0x01);

	return _mm512_ternarylogic_epi64(earlier, later, there, 0x96);
}

/* The four quarters of v, moved to the last one. */
TARGET_AVX512 INLINE __m128i fold_quarters(__m512i v)
{
	const __m256i *shift = (const __m256i *)&inl_crc32c_shift[1];
	__m512i up = _mm512_cvtepu32_epi64(_mm256_loadu_si256(shift));	 /* by 16, 32, 48 bytes */
	__m512i factor = _mm512_maskz_shuffle_i64x2(0x3f, up, up, 0xc6); /* by 48, 32, 16; the last quarter stays */
	__m256i half;

	v = fold(v, factor, _mm512_maskz_mov_epi64(0xc0, v));
	half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
	return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* At least VECTORS_MIN. What goes before is added to the first bytes. */
TARGET_AVX512 INLINE uint32_t vectors(uint32_t crc, const uint8_t *data, size_t len)
{
	__m512i a = _mm512_loadu_si512(data), b = _mm512_loadu_si512(data + 64);
	__m512i c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
	__m512i factor = factors(256);
	__m128i last;
	uint64_t sum;

	a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
	for (data += 256, len -= 256; len >= 256; data += 256, len -= 256) {
		a = fold(a, factor, _mm512_loadu_si512(data));
		b = fold(b, factor, _mm512_loadu_si512(data + 64));
		c = fold(c, factor, _mm512_loadu_si512(data + 128));
		d = fold(d, factor, _mm512_loadu_si512(data + 192));
	}
	a = fold(a, factors(192), _mm512_setzero_si512());
	b = fold(b, factors(128), a);
	d = _mm512_xor_si512(fold(c, factors(64), b), d);
	for (factor = factors(64); len >= 64; data += 64, len -= 64)
		d = fold(d, factor, _mm512_loadu_si512(data));
	last = fold_quarters(d);
	sum = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last));
	sum = _mm_crc32_u64(sum, (uint64_t)_mm_extract_epi64(last, 1));
	return one_stream((uint32_t)sum, data, len);
}

TARGET_AVX512 static uint32_t by_avx512(uint32_t crc, const uint8_t *data, size_t len)
{
	if (len < STREAMS_MIN)
		return one_stream(crc, data, len);
	return len < VECTORS_MIN ? by_pclmul(crc, data, len) : vectors(crc, data, len);
}

const struct inl_crc32c_impl inl_crc32c_avx512 = {
	"avx512", INL_CPU_SSE42 | INL_CPU_PCLMUL | INL_CPU_VAES | INL_CPU_AVX512, by_avx512,
};
const struct inl_crc32c_impl inl_crc32c_pclmul = { "pclmul", INL_CPU_SSE42 | INL_CPU_PCLMUL, by_pclmul };
const struct inl_crc32c_impl inl_crc32c_sse42 = { "sse4.2", INL_CPU_SSE42, by_sse42 };
#endif
