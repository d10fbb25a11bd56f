/*
 * ext4/htree.c: the index of large directories as it lies in its blocks. Bytes in, no I/O.
 * Not here: walking it (dxwalk.c).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories".
 */
#include "ext4/own.h"
#include <errno.h>

#define ROOT_INFO 24u /* behind the entries of "." and ".." */

static int parse_entries(const uint8_t *block, uint32_t block_size, unsigned offset, bool csum,
			 struct inl_dx_node *node)
{
	unsigned room = (block_size - offset - (csum ? 8 : 0)) / 8;

	node->offset = offset;
	node->entries = block + offset;
	node->limit = inl_load_le16(node->entries);
	node->count = inl_load_le16(node->entries + 2);
	if (node->limit != room || node->count == 0 || node->count > node->limit)
		return -EUCLEAN;
	return 0;
}

int inl_dx_root_parse(const uint8_t *block, uint32_t block_size, bool csum, bool large_dir, struct inl_dx_node *node)
{
	const uint8_t *info = block + ROOT_INFO;

	if (inl_load_le16(block + 4) != 12 || inl_load_le32(info) != 0 || info[5] != 8)
		return -EUCLEAN;
	node->hash_version = info[4];
	node->levels = info[6];
	if (node->levels > (large_dir ? 2 : 1) || (info[7] & 1))
		return -EUCLEAN;
	return parse_entries(block, block_size, ROOT_INFO + 8, csum, node);
}

int inl_dx_node_parse(const uint8_t *block, uint32_t block_size, bool csum, struct inl_dx_node *node)
{
	if (inl_load_le32(block) != 0)
		return -EUCLEAN;
	node->hash_version = node->levels = 0;
	return parse_entries(block, block_size, 8, csum, node);
}

struct inl_dx_entry inl_dx_entry(const struct inl_dx_node *node, unsigned i)
{
	const uint8_t *p = node->entries + 8 * (size_t)i;

	/* The place of the first hash holds limit and count: its hash is 0. */
	return (struct inl_dx_entry){ i ? inl_load_le32(p) : 0, inl_load_le32(p + 4) & 0x0fffffff };
}

unsigned inl_dx_search(const struct inl_dx_node *node, uint32_t hash)
{
	unsigned lo = 1, hi = node->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (inl_dx_entry(node, mid).hash <= hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}
