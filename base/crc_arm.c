/*
 * base/crc_arm.c: CRC-32C for AArch64: by the crc32c instructions, in three streams where there is PMULL.
 * Not here: 32-bit ARM, and CPUs that have no such instructions (base/crc.c).
 * Read more: base/crc_shift.c, on the constants; Arm, "ACLE" (CRC32) and "Neon Intrinsics Reference".
 */
#include "base/cpu.h"
#include "base/crc_own.h"
#include "base/endian.h"

#if defined(__aarch64__)
#include <arm_acle.h>
#include <arm_neon.h>

#define INLINE __attribute__((always_inline)) static inline

/* Older clang has the intrinsics only where a whole file may use the instructions, and what they are made of always. */
#ifdef __clang__
#define TARGET_CRC		__attribute__((target("crc")))
#define TARGET_PMULL		__attribute__((target("crc,aes")))
#define crc_byte(crc, x)	__builtin_arm_crc32cb(crc, x)
#define crc_half(crc, x)	__builtin_arm_crc32ch(crc, x)
#define crc_word(crc, x)	__builtin_arm_crc32cw(crc, x)
#define crc_double(crc, x)	__builtin_arm_crc32cd(crc, x)
#define multiply_64(a, b)	((poly128_t)__builtin_neon_vmull_p64(a, b))
#else
#define TARGET_CRC		__attribute__((target("+crc")))
#define TARGET_PMULL		__attribute__((target("+crc+crypto")))
#define crc_byte(crc, x)	__crc32cb(crc, x)
#define crc_half(crc, x)	__crc32ch(crc, x)
#define crc_word(crc, x)	__crc32cw(crc, x)
#define crc_double(crc, x)	__crc32cd(crc, x)
#define multiply_64(a, b)	vmull_p64(a, b)
#endif

#define STREAMS_MIN 192 /* bytes; below, it costs more to put the parts together than it saves to have them */

TARGET_CRC INLINE uint32_t one_stream(uint32_t crc, const uint8_t *data, size_t len)
{
	for (; len >= 8; data += 8, len -= 8)
		crc = crc_double(crc, inl_load_le64(data));
	if (!len)
		return crc;
	if (len & 4) {
		crc = crc_word(crc, inl_load_le32(data));
		data += 4;
	}
	if (len & 2) {
		crc = crc_half(crc, inl_load_le16(data));
		data += 2;
	}
	return len & 1 ? crc_byte(crc, *data) : crc;
}

TARGET_CRC static uint32_t by_crc(uint32_t crc, const uint8_t *data, size_t len)
{
	return one_stream(crc, data, len);
}

/* Their product without carries, which is 64 bits. */
TARGET_PMULL INLINE uint64_t multiply(uint32_t a, uint32_t b)
{
	return (uint64_t)multiply_64(a, b);
}

/* Three times n words: see the function of this name in base/crc_x86.c. */
TARGET_PMULL INLINE uint32_t three_streams(uint32_t crc, const uint8_t *data, size_t n)
{
	const uint8_t *a = data, *b = a + 8 * n, *c = b + 8 * n;
	uint32_t once = inl_crc32c_shift[n - 1], twice = crc_double(0, multiply(once, once));
	uint32_t sum_a = crc, sum_b = 0, sum_c = 0;

	for (size_t i = 0; i < n - 1; i++, a += 8, b += 8, c += 8) {
		sum_a = crc_double(sum_a, inl_load_le64(a));
		sum_b = crc_double(sum_b, inl_load_le64(b));
		sum_c = crc_double(sum_c, inl_load_le64(c));
	}
	sum_a = crc_double(sum_a, inl_load_le64(a));
	sum_b = crc_double(sum_b, inl_load_le64(b));
	return crc_double(sum_c, inl_load_le64(c) ^ multiply(sum_a, twice) ^ multiply(sum_b, once));
}

TARGET_PMULL static uint32_t by_pmull(uint32_t crc, const uint8_t *data, size_t len)
{
	while (len >= STREAMS_MIN) {
		size_t n = len / 24 < INL_CRC32C_SHIFTS ? len / 24 : INL_CRC32C_SHIFTS;

		crc = three_streams(crc, data, n);
		data += 24 * n;
		len -= 24 * n;
	}
	return one_stream(crc, data, len);
}

const struct inl_crc32c_impl inl_crc32c_pmull = { "pmull", INL_CPU_ARM_CRC32 | INL_CPU_ARM_PMULL, by_pmull };
const struct inl_crc32c_impl inl_crc32c_arm = { "crc32", INL_CPU_ARM_CRC32, by_crc };
#endif
