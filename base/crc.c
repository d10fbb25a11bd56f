/*
 * base/crc.c: both CRCs by table, eight bytes per step, and the choice among the ways to compute CRC-32C.
 * Not here: CRC-32C by instructions (base/crc_x86.c, base/crc_arm.c); what is summed, from which seed (ext4/).
 * Read more: Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based CRC Generators".
 */
#include "base/cpu.h"
#include "base/crc_own.h"
#include "base/endian.h"

#include <pthread.h>
#include <stdatomic.h>

#define POLY_CRC32  0xedb88320u /* bits reflected */
#define POLY_CRC32C 0x82f63b78u

/* t[k][b]: what byte b does to the sum when k more bytes follow it in the same step. */
struct crc_table {
	uint32_t t[8][256];
};

static struct crc_table crc32_table, crc32c_table;
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static uint32_t shift_byte(uint32_t crc, uint32_t poly)
{
	for (int bit = 0; bit < 8; bit++)
		crc = crc >> 1 ^ (crc & 1 ? poly : 0);
	return crc;
}

static void table_init(struct crc_table *table, uint32_t poly)
{
	for (uint32_t byte = 0; byte < 256; byte++)
		table->t[0][byte] = shift_byte(byte, poly);
	for (int k = 1; k < 8; k++)
		for (int byte = 0; byte < 256; byte++) {
			uint32_t crc = table->t[k - 1][byte];

			table->t[k][byte] = crc >> 8 ^ table->t[0][crc & 0xff];
		}
}

static void tables_init(void)
{
	table_init(&crc32_table, POLY_CRC32);
	table_init(&crc32c_table, POLY_CRC32C);
}

static uint32_t by_table(const struct crc_table *table, uint32_t crc, const uint8_t *data, size_t len)
{
	const uint32_t(*t)[256] = table->t;

	for (; len >= 8; data += 8, len -= 8) {
		uint64_t x = inl_load_le64(data) ^ crc;

		crc = t[7][x & 0xff] ^ t[6][x >> 8 & 0xff] ^ t[5][x >> 16 & 0xff] ^ t[4][x >> 24 & 0xff] ^
		      t[3][x >> 32 & 0xff] ^ t[2][x >> 40 & 0xff] ^ t[1][x >> 48 & 0xff] ^ t[0][x >> 56];
	}
	for (; len; data++, len--)
		crc = crc >> 8 ^ t[0][(crc ^ *data) & 0xff];
	return crc;
}

static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *data, size_t len)
{
	pthread_once(&tables_once, tables_init);
	return by_table(&crc32c_table, crc, data, len);
}

static const struct inl_crc32c_impl in_c = { "table", 0, crc32c_by_table };

const struct inl_crc32c_impl *const inl_crc32c_impls[] = {
#if defined(__x86_64__)
	&inl_crc32c_avx512, &inl_crc32c_pclmul, &inl_crc32c_sse42,
#elif defined(__aarch64__)
	&inl_crc32c_pmull, &inl_crc32c_arm,
#endif
	&in_c, NULL,
};

static uint32_t crc32c_by_best(uint32_t crc, const uint8_t *data, size_t len);

/* The best implementation's function, from the first sum on. Threads that come early all write the same. */
static uint32_t (*_Atomic crc32c_best)(uint32_t crc, const uint8_t *data, size_t len) = crc32c_by_best;

static uint32_t crc32c_by_best(uint32_t crc, const uint8_t *data, size_t len)
{
	const struct inl_crc32c_impl *const *impl = inl_crc32c_impls;

	while ((*impl)->needs & ~inl_cpu_features())
		impl++;
	atomic_store_explicit(&crc32c_best, (*impl)->update, memory_order_relaxed);
	return (*impl)->update(crc, data, len);
}

uint32_t inl_crc32c(uint32_t crc, const void *data, size_t len)
{
	return atomic_load_explicit(&crc32c_best, memory_order_relaxed)(crc, data, len);
}

uint32_t inl_crc32(const void *data, size_t len)
{
	pthread_once(&tables_once, tables_init);
	return ~by_table(&crc32_table, ~0u, data, len);
}
