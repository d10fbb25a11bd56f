/*
 * bench/crc.c: CRC-32C of pieces of several lengths, each sum beginning where the last one ended: ours and libext2fs's.
 * Not here: files and commands (bench/run.py, which runs this program too).
 * Read more: HACKING.md, "Speed".
 */
#include <ext2fs/ext2fs.h>
#include <inlay/base.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/crc.h"
#include "bench/stats.h"

#define LEN_MAX	 65536
#define ROUNDS	 15
#define ROUND_NS 5000000.0
#define N_MAX	 8

static uint8_t buf[LEN_MAX];
static volatile uint32_t sink; /* what is summed must be computed */

static uint32_t by_libext2fs(uint32_t crc, const uint8_t *data, size_t len)
{
	return ext2fs_crc32c_le(crc, data, len);
}

static const struct inl_crc32c_impl reference = { "libext2fs", 0, by_libext2fs };

static double gb_per_s(const struct inl_crc32c_impl *impl, size_t len)
{
	const size_t at_once = 1 + LEN_MAX / len; /* between two looks at the clock */
	uint64_t start = inl_now_ns();
	double ns;
	uint32_t crc = ~0u;
	uint64_t n = 0;

	do {
		for (size_t i = 0; i < at_once; i++)
			crc = impl->update(crc, buf, len);
		n += at_once;
		ns = (double)(inl_now_ns() - start);
	} while (ns < ROUND_NS);
	sink = crc;
	return (double)n * (double)len / ns;
}

/* One line per implementation, best first: length, name, GB/s, GB/s of libext2fs, the median of all rounds' ratios. */
static void report(const struct inl_crc32c_impl *const impls[], int n, size_t len)
{
	double speed[N_MAX][ROUNDS], ratio[N_MAX][ROUNDS], theirs[ROUNDS];

	for (int round = 0; round < ROUNDS; round++) {
		theirs[round] = gb_per_s(&reference, len);
		for (int i = 0; i < n; i++) {
			speed[i][round] = gb_per_s(impls[i], len);
			ratio[i][round] = speed[i][round] / theirs[round];
		}
	}
	for (int i = 0; i < n; i++)
		printf("%zu %s %.3f %.3f %.3f\n", len, impls[i]->name, stats_median(speed[i], ROUNDS),
		       stats_median(theirs, ROUNDS), stats_median(ratio[i], ROUNDS));
}

int main(void)
{
	static const size_t lens[] = { 64, 1024, 4096, 65536 };
	const struct inl_crc32c_impl *impls[N_MAX];
	int n = 0;

	for (size_t i = 0; i < LEN_MAX; i++)
		buf[i] = (uint8_t)(i * 193 >> 3);
	for (const struct inl_crc32c_impl *const *impl = inl_crc32c_impls; *impl && n < N_MAX; impl++)
		if (!((*impl)->needs & ~inl_cpu_features()))
			impls[n++] = *impl;
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		report(impls, n, lens[i]);
	return 0;
}
