/*
 * fuzz/fuzz_extent.c: libFuzzer target: one node of an extent tree from any bytes.
 * Not here: trees (fuzz_image.c).
 * Read more: HACKING.md, "Fuzzing". Input: a depth, then the node.
 */
#include "ext4/own.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_hit(const struct inl_extent_hit *hit, uint64_t lblk, uint64_t lo, uint64_t hi)
{
	if (hit->leaf) {
		if (lblk < hit->run.lblk || lblk >= hit->run.lblk + hit->run.len || hit->run.lblk + hit->run.len > hi)
			abort();
	} else if (lblk < hit->lo || lblk >= hit->hi || hit->lo < lo || hit->hi > hi || hit->depth >= EXT4_MAX_DEPTH) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inl_extent_hit hit;
	uint64_t lo, hi;
	int depth;

	if (size < 1)
		return 0;
	depth = data[0] % 7 - 1;
	if (inl_extent_node_check(data + 1, size - 1, depth))
		return 0;
	lo = data[0] & 0x80 ? 1000 : 0;
	hi = data[0] & 0x40 ? 2000000 : EXT4_N_LBLKS;
	for (uint64_t lblk = lo; lblk < hi; lblk = lblk * 3 / 2 + 1) {
		memset(&hit, 0, sizeof(hit));
		if (!inl_extent_node_find(data + 1, lo, hi, lblk, &hit))
			check_hit(&hit, lblk, lo, hi);
	}
	return 0;
}
