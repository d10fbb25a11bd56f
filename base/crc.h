/*
 * base/crc.h: CRC-32 (GPT) and CRC-32C (ext4, jbd2).
 * Not here: cryptographic hashes (crypto/hash.h).
 * Read more: RFC 3720 appendix B.4 (CRC-32C); UEFI 2.10, 5.3.2 (CRC-32).
 */
#ifndef INLAY_BASE_CRC_H
#define INLAY_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C of the bytes, going on from crc; no inversion before or after (start with ~0 as ext4 does). */
uint32_t inl_crc32c(uint32_t crc, const void *data, size_t len);

/* CRC-32 (polynomial 0x04c11db7, reflected, inverted before and after): of one buffer as zlib's crc32(0, ...). */
uint32_t inl_crc32(const void *data, size_t len);

/* A way to compute CRC-32C. */
struct inl_crc32c_impl {
	const char *name;
	unsigned needs; /* of enum inl_cpu_feature */
	uint32_t (*update)(uint32_t crc, const uint8_t *data, size_t len);
};

/* Those of this architecture, best first, then NULL; the last one needs nothing. Listed for tests and benchmarks. */
extern const struct inl_crc32c_impl *const inl_crc32c_impls[];

#endif
