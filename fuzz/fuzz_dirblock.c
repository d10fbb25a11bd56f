/*
 * fuzz/fuzz_dirblock.c: libFuzzer target: directory blocks and index nodes from any bytes.
 * Not here: directories as a whole (fuzz_image.c).
 * Read more: HACKING.md, "Fuzzing". Input: one byte of flags, then the block.
 */
#include "ext4/own.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_entries(const struct inl_dirent_format *format, const uint8_t *block, size_t size)
{
	struct inl_raw_dirent entry;
	size_t at = 0, next;
	unsigned sum = 0;

	while (at < size && !inl_dirent_parse(format, block, size, at, &entry, &next)) {
		if (next <= at || next > size)
			abort();
		for (unsigned i = 0; i < entry.len; i++)
			sum += entry.name[i];
		at = next;
	}
	if (sum == 0xdeadbeef)
		abort(); /* keeps the reads */
}

static void walk_index(const struct inl_dx_node *node, const uint8_t *block, size_t size)
{
	if (node->entries < block || node->entries + 8 * (size_t)node->count > block + size)
		abort();
	for (uint64_t hash = 0; hash <= UINT32_MAX; hash += 0x01234567) {
		if (inl_dx_search(node, (uint32_t)hash) >= node->count)
			abort();
	}
	for (unsigned i = 0; i < node->count; i++)
		inl_dx_entry(node, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t sizes[] = { 1024, 2048, 4096, 65536 };
	struct inl_dirent_format format;
	struct inl_dx_node node;
	uint8_t flags;

	if (size < 2)
		return 0;
	flags = data[0];
	format.block_size = sizes[flags & 3];
	format.filetype = flags & 4;
	format.hashes = flags & 8;
	walk_entries(&format, data + 1, size - 1);
	if (size - 1 < format.block_size)
		return 0;
	if (!inl_dx_root_parse(data + 1, format.block_size, flags & 16, flags & 32, &node))
		walk_index(&node, data + 1, format.block_size);
	if (!inl_dx_node_parse(data + 1, format.block_size, flags & 16, &node))
		walk_index(&node, data + 1, format.block_size);
	return 0;
}
