/*
 * base/crc_own.h: what the implementations of CRC-32C share: who they are, and the constants that move a sum.
 * Not here: what callers see (base/crc.h).
 * Read more: base/crc_shift.c, on the constants.
 */
#ifndef INLAY_BASE_CRC_OWN_H
#define INLAY_BASE_CRC_OWN_H

#include "base/crc.h"

extern const struct inl_crc32c_impl inl_crc32c_avx512, inl_crc32c_pclmul, inl_crc32c_sse42; /* x86-64 */
extern const struct inl_crc32c_impl inl_crc32c_pmull, inl_crc32c_arm;			    /* AArch64 */

/*
 * The sum of A and B, one after the other, is the sum of A moved past the length of B, plus the sum of B from zero. To
 * move a sum past n words of 64 bits, multiply it by inl_crc32c_shift[n - 1], without carries, and sum the 64-bit
 * product from zero.
 */
#define INL_CRC32C_SHIFTS 176
extern const uint32_t inl_crc32c_shift[INL_CRC32C_SHIFTS];

#endif
