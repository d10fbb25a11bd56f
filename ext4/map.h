/*
 * ext4/map.h: what the files that read and change block maps share: nodes of extent trees as bytes, indirect maps.
 * Not here: what the rest of ext4/ calls (own.h, change.h).
 * Read more: Linux Documentation/filesystems/ext4/ifork.rst.
 */
#ifndef INLAY_EXT4_MAP_H
#define INLAY_EXT4_MAP_H

#include "ext4/change.h"

#define EXTENT_MAGIC         0xf30a
#define EXTENT_LEN_MAX       32768u /* longer ones are unwritten extents of len - 32768 */
#define EXTENT_UNWRITTEN_MAX 32767u
#define NODE_HEADER          12u
#define NODE_ENTRY           12u
#define N_DIRECT             12u /* pointers of an indirect map that name data */

/* ---- extent nodes: bytes ---------------------------------------------------------------------------------------- */

static inline unsigned node_entries(const uint8_t *node)
{
	return inl_load_le16(node + 2);
}

static inline unsigned node_max(const uint8_t *node)
{
	return inl_load_le16(node + 4);
}

static inline unsigned node_depth(const uint8_t *node)
{
	return inl_load_le16(node + 6);
}

/* An entry of 12 bytes; both kinds begin with their first logical block. */
static inline const uint8_t *node_entry(const uint8_t *node, unsigned i)
{
	return node + NODE_HEADER + NODE_ENTRY * (size_t)i;
}

static inline uint32_t entry_lblk(const uint8_t *entry)
{
	return inl_load_le32(entry);
}

static inline uint32_t extent_len(const uint8_t *entry)
{
	uint32_t len = inl_load_le16(entry + 4);

	return len > EXTENT_LEN_MAX ? len - EXTENT_LEN_MAX : len;
}

static inline bool extent_unwritten(const uint8_t *entry)
{
	return inl_load_le16(entry + 4) > EXTENT_LEN_MAX;
}

static inline uint64_t extent_pblk(const uint8_t *entry)
{
	return inl_load_le32(entry + 8) | (uint64_t)inl_load_le16(entry + 6) << 32;
}

static inline uint64_t index_child(const uint8_t *entry)
{
	return inl_load_le32(entry + 4) | (uint64_t)inl_load_le16(entry + 8) << 32;
}

/* The last entry that begins at or before lblk, -1: none. */
int inl_extent_node_search(const uint8_t *node, uint64_t lblk);

/* An inl_block_verify: a node in a block of its own, and its checksum. */
int inl_extent_node_verify(struct inl_inode *inode, const uint8_t *bytes, unsigned depth);

/* ---- removing --------------------------------------------------------------------------------------------------- */

/* Runs that one operation removes at most: others want the lock. */
#define REMOVE_MAX 4096u

/*
 * How much of [pblk, pblk + n) can be freed from its end with the credits that are left when `keep` of them are kept.
 * 0: nothing.
 */
uint64_t inl_map_can_free(const struct inl_handle *op, unsigned keep, uint64_t pblk, uint64_t n);

/* ---- indirect.c ------------------------------------------------------------------------------------------------- */

/* As inl_map_*, within inl_inode_modify. The range is one that the map can have. */
int inl_indirect_insert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, uint64_t pblk);
int inl_indirect_remove(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t end, bool metadata,
			uint64_t *left);
unsigned inl_indirect_credits(void);
uint64_t inl_indirect_max(const struct inl_inode *inode);
uint64_t inl_indirect_insert_max(const struct inl_inode *inode);

#endif
