/*
 * fuzz/fuzz_journal.c: libFuzzer target: a journal of 1 KiB blocks from any bytes.
 * Not here: where the journal lies (fuzz_image.c).
 * Read more: HACKING.md, "Fuzzing". Input: one byte of flags, then the journal. Checksums are not mended: seeds without them lead in.
 */
#include "ext4/own.h"
#include <errno.h>
#include <stdlib.h>

#define BLOCK 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
	const uint8_t *data;
	size_t size;
};

static int read_block(void *arg, uint64_t block, uint8_t *buf)
{
	struct bytes *bytes = arg;

	if (block >= bytes->size / BLOCK)
		abort(); /* must have been checked against n_blocks */
	memcpy(buf, bytes->data + block * BLOCK, BLOCK);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes bytes = { data + 1, size ? size - 1 : 0 };
	struct inl_journal_source source = { BLOCK, bytes.size / BLOCK, 1 << 20, read_block, &bytes };
	struct inl_journal_map map;
	struct inl_diag diag = { 0 };
	bool clean;

	if (!source.n_blocks)
		return 0;
	if (inl_journal_scan(&source, data[0] & 1, &map, &clean, &diag))
		return 0;
	for (size_t i = 0; i < map.n; i++) {
		if (map.entries[i].block >= source.max_block || map.entries[i].copy >= source.n_blocks)
			abort();
		if (i && map.entries[i - 1].block >= map.entries[i].block)
			abort();
		if (inl_journal_find(&map, map.entries[i].block) != &map.entries[i])
			abort();
	}
	inl_journal_map_done(&map);
	return 0;
}
