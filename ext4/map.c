/*
 * ext4/map.c: from logical to physical blocks: extent trees and indirect blocks.
 * Not here: reading what is there (data.c); changing the map.
 * Read more: Linux Documentation/filesystems/ext4/ifork.rst.
 */
#include "ext4/map.h"
#include "base/crc.h"
#include <errno.h>
#include <sys/stat.h>

/* ---- extent nodes: bytes ----------------------------------------------------------------------------------------- */

int inl_extent_node_check(const uint8_t *node, size_t size, int depth)
{
	unsigned n, max;
	uint64_t next = 0;

	if (size < 12 || inl_load_le16(node) != EXTENT_MAGIC)
		return -EUCLEAN;
	n = node_entries(node);
	max = node_max(node);
	if (max == 0 || max > (size - 12) / 12 || n > max)
		return -EUCLEAN;
	if (depth >= 0 ? node_depth(node) != (unsigned)depth : node_depth(node) > EXT4_MAX_DEPTH)
		return -EUCLEAN;
	if (node_depth(node) > 0 && n == 0)
		return -EUCLEAN;
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *entry = node_entry(node, i);
		uint64_t len = node_depth(node) ? 1 : extent_len(entry);

		if (len == 0 || entry_lblk(entry) < next || entry_lblk(entry) + len > EXT4_LBLK_NONE)
			return -EUCLEAN;
		next = entry_lblk(entry) + len;
	}
	return 0;
}

int inl_extent_node_search(const uint8_t *node, uint64_t lblk)
{
	int lo = 0, hi = (int)node_entries(node);

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (entry_lblk(node_entry(node, (unsigned)mid)) <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

static void hit_hole(struct inl_extent_hit *hit, uint64_t lblk, uint64_t end)
{
	hit->leaf = true;
	hit->run = (struct inl_run){ INL_EXTENT_HOLE, lblk, end - lblk, 0 };
}

int inl_extent_node_find(const uint8_t *node, uint64_t lo, uint64_t hi, uint64_t lblk, struct inl_extent_hit *hit)
{
	int i = inl_extent_node_search(node, lblk);
	uint64_t end = hi, start, len;
	const uint8_t *entry;

	if (i + 1 < (int)node_entries(node) && entry_lblk(node_entry(node, (unsigned)(i + 1))) < hi)
		end = entry_lblk(node_entry(node, (unsigned)(i + 1)));
	if (i < 0) {
		hit_hole(hit, lblk, end);
		return 0;
	}
	entry = node_entry(node, (unsigned)i);
	start = entry_lblk(entry);
	if (start < lo)
		return -EUCLEAN;
	if (node_depth(node)) {
		*hit = (struct inl_extent_hit){ .child = index_child(entry), .lo = start, .hi = end,
						.depth = node_depth(node) - 1 };
		return 0;
	}
	len = extent_len(entry);
	if (start + len > hi)
		return -EUCLEAN;
	if (lblk >= start + len) {
		hit_hole(hit, lblk, end);
		return 0;
	}
	hit->leaf = true;
	hit->run = (struct inl_run){ extent_unwritten(entry) ? INL_EXTENT_UNWRITTEN : INL_EXTENT_DATA, start, len,
				     extent_pblk(entry) };
	return 0;
}

/* ---- extent trees ------------------------------------------------------------------------------------------------ */

int inl_extent_node_verify(struct inl_inode *inode, const uint8_t *bytes, unsigned depth)
{
	uint32_t size = inode->vol->block_size;
	size_t tail;
	int err = inl_extent_node_check(bytes, size, (int)depth);

	if (err || !inode->vol->metadata_csum)
		return err;
	tail = 12 + 12 * (size_t)node_max(bytes);
	if (tail + 4 > size || inl_crc32c(inode->csum_seed, bytes, tail) != inl_load_le32(bytes + tail))
		return -EUCLEAN;
	return 0;
}

static int map_extents(struct inl_inode *inode, uint64_t lblk, struct inl_run *run)
{
	const uint8_t *root = (const uint8_t *)inode->raw.i_block;
	struct inl_extent_hit hit;
	int err = inl_extent_node_check(root, sizeof(inode->raw.i_block), -1);

	if (!err)
		err = inl_extent_node_find(root, 0, EXT4_N_LBLKS, lblk, &hit);
	while (!err && !hit.leaf) {
		uint64_t lo = hit.lo, hi = hit.hi;
		struct inl_block *block;

		if (!inl_block_in_range(inode->vol, hit.child, 1))
			return -EUCLEAN;
		err = inl_block_get_verified(inode, hit.child, inl_extent_node_verify, hit.depth, &block);
		if (err)
			return err;
		err = inl_extent_node_find(inl_block_bytes(block), lo, hi, lblk, &hit);
		inl_block_put(block);
	}
	if (!err)
		*run = hit.run;
	return err;
}

/* ---- indirect blocks --------------------------------------------------------------------------------------------- */

/*
 * The run that begins at pointer i of n. A pointer stands for `span` blocks; one that is absent is a hole of all of
 * them. lblk is the first block that pointer i stands for.
 */
static void pointer_run(const uint8_t *pointers, unsigned i, unsigned n, uint64_t span, uint64_t lblk,
			struct inl_run *run)
{
	uint32_t first = inl_load_le32(pointers + 4 * (size_t)i);
	uint64_t count = 1;

	while (i + count < n) {
		uint32_t next = inl_load_le32(pointers + 4 * (i + count));

		if (first ? span != 1 || next != first + count : next != 0)
			break;
		count++;
	}
	*run = (struct inl_run){ first ? INL_EXTENT_DATA : INL_EXTENT_HOLE, lblk, count * span, first };
}

/* Go down from one of the three roots. lblk counts from `base`, the first block that this root stands for. */
static int map_levels(struct inl_inode *inode, uint64_t base, uint64_t lblk, unsigned levels, uint32_t pointer,
		      struct inl_run *run)
{
	unsigned bits = inode->vol->block_bits - 2;

	while (levels) {
		INL_BLOCK_SCOPED struct inl_block *block = NULL;
		uint64_t span = 1ull << (bits * --levels);
		unsigned i = (unsigned)((lblk - base) / span);
		int err;

		if (!inl_block_in_range(inode->vol, pointer, 1))
			return -EUCLEAN;
		err = inl_block_get(inode->vol, pointer, &block);
		if (err)
			return err;
		base += i * span;
		pointer = inl_load_le32(inl_block_bytes(block) + 4 * (size_t)i);
		if (!pointer || !levels) {
			pointer_run(inl_block_bytes(block), i, 1u << bits, span, base, run);
			return 0;
		}
	}
	return -EUCLEAN;
}

static int map_indirect(struct inl_inode *inode, uint64_t lblk, struct inl_run *run)
{
	const uint8_t *pointers = (const uint8_t *)inode->raw.i_block;
	unsigned bits = inode->vol->block_bits - 2;
	uint64_t base = N_DIRECT;

	if (lblk < N_DIRECT) {
		pointer_run(pointers, (unsigned)lblk, N_DIRECT, 1, lblk, run);
		return 0;
	}
	for (unsigned levels = 1; levels <= 3; levels++) {
		uint64_t span = 1ull << (bits * levels);
		uint32_t pointer = inl_load_le32(pointers + 4 * (N_DIRECT + levels - 1));

		if (lblk - base < span) {
			if (pointer)
				return map_levels(inode, base, lblk, levels, pointer, run);
			*run = (struct inl_run){ INL_EXTENT_HOLE, base, span, 0 };
			return 0;
		}
		base += span;
	}
	*run = (struct inl_run){ INL_EXTENT_HOLE, base, EXT4_N_LBLKS - base, 0 };
	return 0;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

int inl_map(struct inl_inode *inode, uint64_t lblk, struct inl_run *run, struct inl_diag *diag)
{
	bool known;
	int err;

	pthread_mutex_lock(&inode->lock);
	known = lblk >= inode->run.lblk && lblk - inode->run.lblk < inode->run.len;
	if (known)
		*run = inode->run;
	pthread_mutex_unlock(&inode->lock);
	if (known)
		return 0;
	if (lblk >= EXT4_LBLK_NONE)
		err = -EUCLEAN;
	else if (inode->lasting & EXT4_FL_EXTENTS)
		err = map_extents(inode, lblk, run);
	else
		err = map_indirect(inode, lblk, run);
	if (err == -EAGAIN)
		return err;
	if (!err && run->kind != INL_EXTENT_HOLE && !inl_block_in_range(inode->vol, run->pblk, run->len))
		err = -EUCLEAN;
	if (err)
		return inl_diag_set(diag, err, "%s of inode %u at block %llu",
				    err == -EUCLEAN ? "damaged block map" : "cannot read the block map", inode->ino,
				    (unsigned long long)lblk);
	pthread_mutex_lock(&inode->lock);
	inode->run = *run;
	pthread_mutex_unlock(&inode->lock);
	return 0;
}
