/*
 * base/endian.h: on-disk integers as types: mixing them up is a compile error; no packing, no alignment question.
 * Not here: anything but 16, 32 and 64 bits, little and big endian.
 * Read more: STYLE in HACKING.md, "On-disk integers are types".
 */
#ifndef INLAY_BASE_ENDIAN_H
#define INLAY_BASE_ENDIAN_H

#include <stdint.h>
#include <string.h>

struct le16 { uint8_t b[2]; };
struct le32 { uint8_t b[4]; };
struct le64 { uint8_t b[8]; };
struct be16 { uint8_t b[2]; };
struct be32 { uint8_t b[4]; };
struct be64 { uint8_t b[8]; };

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define INL_TO_LE(bits, v) (v)
#define INL_TO_BE(bits, v) __builtin_bswap##bits(v)
#else
#define INL_TO_LE(bits, v) __builtin_bswap##bits(v)
#define INL_TO_BE(bits, v) (v)
#endif

/* For each type: inl_le32(v) is its value, inl_to_le32(x) the other way round; inl_load_le32(p) reads from bytes. */
#define INL_ENDIAN_TYPE(type, bits, swap)                              \
	static inline uint##bits##_t inl_##type(struct type v)         \
	{                                                              \
		uint##bits##_t x;                                      \
		memcpy(&x, v.b, sizeof(x));                            \
		return swap(bits, x);                                  \
	}                                                              \
	static inline struct type inl_to_##type(uint##bits##_t x)      \
	{                                                              \
		struct type v;                                         \
		x = swap(bits, x);                                     \
		memcpy(v.b, &x, sizeof(x));                            \
		return v;                                              \
	}                                                              \
	static inline uint##bits##_t inl_load_##type(const void *p)    \
	{                                                              \
		uint##bits##_t x;                                      \
		memcpy(&x, p, sizeof(x));                              \
		return swap(bits, x);                                  \
	}                                                              \
	static inline void inl_store_##type(void *p, uint##bits##_t x) \
	{                                                              \
		x = swap(bits, x);                                     \
		memcpy(p, &x, sizeof(x));                              \
	}

INL_ENDIAN_TYPE(le16, 16, INL_TO_LE)
INL_ENDIAN_TYPE(le32, 32, INL_TO_LE)
INL_ENDIAN_TYPE(le64, 64, INL_TO_LE)
INL_ENDIAN_TYPE(be16, 16, INL_TO_BE)
INL_ENDIAN_TYPE(be32, 32, INL_TO_BE)
INL_ENDIAN_TYPE(be64, 64, INL_TO_BE)

#endif
