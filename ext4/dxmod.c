/*
 * ext4/dxmod.c: the index of large directories: finding the leaf of a hash, splitting leaves and nodes, growing.
 * Not here: entries within a leaf (dirmod.c); the index as bytes (htree.c); reading through it (dxwalk.c).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories".
 *
 * A node names, for ranges of hashes, the block that has them: the first of its hashes is not kept, as it is the node's
 * own. Where entries of equal hash are in two leaves, the second one's hash has its lowest bit set.
 */
#include "ext4/dirmod.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOT_INFO 24u
#define DOTS	  24u /* bytes of "." and ".." in the root block */

/* ---- nodes: bytes ------------------------------------------------------------------------------------------------ */

static unsigned node_limit(const struct inl_inode *dir, unsigned at)
{
	return (dir->vol->block_size - at - (dir->vol->metadata_csum ? 8 : 0)) / 8;
}

static uint8_t *node_entry(uint8_t *bytes, unsigned at, unsigned i)
{
	return bytes + at + 8 * (size_t)i;
}

static void node_seal(const struct inl_inode *dir, uint8_t *bytes, unsigned at)
{
	static const uint8_t zero[4];
	size_t count = inl_load_le16(bytes + at + 2);
	uint8_t *tail = bytes + at + 8 * (size_t)node_limit(dir, at);
	uint32_t crc;

	if (!dir->vol->metadata_csum)
		return;
	crc = inl_crc32c(dir->csum_seed, bytes, at + count * 8);
	crc = inl_crc32c(crc, tail, 4);
	inl_store_le32(tail + 4, inl_crc32c(crc, zero, 4));
}

void inl_dx_root_seal(const struct inl_inode *dir, uint8_t *bytes)
{
	node_seal(dir, bytes, INL_DX_ROOT_AT);
}

/* An index block that is not the root looks like a leaf with one unused entry. */
static void node_init(const struct inl_inode *dir, uint8_t *bytes)
{
	inl_dirent_set_rec_len(bytes, dir->vol->block_size, dir->vol->block_size);
	inl_store_le16(bytes + INL_DX_NODE_AT, (uint16_t)node_limit(dir, INL_DX_NODE_AT));
}

/* Put a pair behind entry i. There is room. */
static void node_insert(const struct inl_inode *dir, uint8_t *bytes, unsigned at, unsigned i, uint32_t hash,
			uint32_t lblk)
{
	unsigned count = inl_load_le16(bytes + at + 2);

	memmove(node_entry(bytes, at, i + 2), node_entry(bytes, at, i + 1), 8 * (size_t)(count - i - 1));
	inl_store_le32(node_entry(bytes, at, i + 1), hash);
	inl_store_le32(node_entry(bytes, at, i + 1) + 4, lblk);
	inl_store_le16(bytes + at + 2, (uint16_t)(count + 1));
	node_seal(dir, bytes, at);
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static bool is_full(const struct inl_dx_frame *frame)
{
	return frame->node.count >= frame->node.limit;
}

/* A block of the device has one place in an index. */
static bool path_has(const struct inl_dx_path *path, uint64_t pblk)
{
	for (unsigned i = 0; i < path->n; i++)
		if (path->frames[i].block.pblk == pblk)
			return true;
	return false;
}

static int push(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path, uint64_t lblk)
{
	struct inl_volume *vol = dir->vol;
	struct inl_dx_frame *frame = &path->frames[path->n];
	int err = inl_dir_look(op, dir, lblk, &frame->block);

	if (!err && path_has(path, frame->block.pblk))
		err = -EUCLEAN;
	if (err)
		return err;
	path->n++;
	if (path->n == 1)
		return inl_dx_root_parse(frame->block.bytes, vol->block_size, vol->metadata_csum,
					 ext2fs_has_feature_largedir(vol->fs->super), &frame->node);
	return inl_dx_node_parse(frame->block.bytes, vol->block_size, vol->metadata_csum, &frame->node);
}

/* Down from the last frame to the leaf. leftmost: by the first entries, else by the hash. */
static int descend(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path, bool leftmost)
{
	unsigned levels = path->frames[0].node.levels;

	for (;;) {
		struct inl_dx_frame *frame = &path->frames[path->n - 1];
		uint32_t lblk = inl_dx_entry(&frame->node, frame->at).block;
		int err;

		if (path->n > levels) {
			path->leaf = lblk;
			return lblk ? 0 : -EUCLEAN;
		}
		err = push(op, dir, path, lblk);
		if (err)
			return err;
		frame = &path->frames[path->n - 1];
		frame->at = leftmost ? 0 : inl_dx_search(&frame->node, path->hash);
	}
}

int inl_dx_path_find(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len,
		     struct inl_dx_path *path)
{
	uint32_t minor;
	int err;

	path->n = 0;
	path->n_left = (dir->size >> dir->vol->block_bits) + 1;
	err = push(op, dir, path, 0);
	if (err)
		return err;
	path->hash_version = path->frames[0].node.hash_version;
	err = inl_dir_hash(dir, path->hash_version, name, len, &path->hash, &minor);
	if (err)
		return err;
	path->frames[0].at = inl_dx_search(&path->frames[0].node, path->hash);
	return descend(op, dir, path, false);
}

int inl_dx_path_next(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path)
{
	struct inl_dx_frame *frame;
	uint32_t hash;
	int err;

	while (path->n && path->frames[path->n - 1].at + 1 >= path->frames[path->n - 1].node.count)
		path->n--;
	if (!path->n)
		return 0;
	frame = &path->frames[path->n - 1];
	hash = inl_dx_entry(&frame->node, ++frame->at).hash;
	if (!(hash & 1) || (hash & ~1u) != path->hash)
		return 0;
	if (!path->n_left--)
		return -EUCLEAN;
	err = descend(op, dir, path, true);
	return err ? err : 1;
}

/* ---- making room in the index ------------------------------------------------------------------------------------ */

/* A new block. -EUCLEAN also if it was in use here already: the bitmap is wrong. */
static int append(struct inl_handle *op, struct inl_inode *dir, const struct inl_dx_path *path,
		  struct inl_dir_block *block, uint8_t **bytes)
{
	int err = inl_dir_append(op, dir, block, bytes);

	return !err && path_has(path, block->pblk) ? -EUCLEAN : err;
}

/* What the root has moves to a node of its own. */
static int add_level(struct inl_handle *op, struct inl_inode *dir, const struct inl_dx_path *path)
{
	const struct inl_dx_frame *root = &path->frames[0];
	unsigned max = ext2fs_has_feature_largedir(dir->vol->fs->super) ? 2 : 1;
	struct inl_dir_block block;
	uint8_t *bytes, *old;
	int err;

	if (root->node.levels >= max)
		return -ENOSPC;
	err = append(op, dir, path, &block, &bytes);
	if (!err)
		err = inl_block_change(op, root->block.pblk, &old);
	if (err)
		return err;
	node_init(dir, bytes);
	memcpy(node_entry(bytes, INL_DX_NODE_AT, 0) + 4, node_entry(old, INL_DX_ROOT_AT, 0) + 4,
	       8 * (size_t)root->node.count - 4);
	inl_store_le16(bytes + INL_DX_NODE_AT + 2, (uint16_t)root->node.count);
	node_seal(dir, bytes, INL_DX_NODE_AT);
	memset(node_entry(old, INL_DX_ROOT_AT, 1), 0, 8 * (size_t)(root->node.count - 1));
	inl_store_le16(old + INL_DX_ROOT_AT + 2, 1);
	inl_store_le32(old + INL_DX_ROOT_AT + 4, (uint32_t)block.lblk);
	old[ROOT_INFO + 6]++;
	inl_dx_root_seal(dir, old);
	return 0;
}

/* The upper half of a full node moves to a new one. Its parent has room. */
static int split_node(struct inl_handle *op, struct inl_inode *dir, const struct inl_dx_path *path, unsigned i)
{
	const struct inl_dx_frame *frame = &path->frames[i], *parent = frame - 1;
	unsigned half = frame->node.count / 2, moved = frame->node.count - half;
	uint32_t hash = inl_dx_entry(&frame->node, half).hash;
	struct inl_dir_block block;
	uint8_t *bytes, *old, *above;
	int err = append(op, dir, path, &block, &bytes);

	if (!err)
		err = inl_block_change(op, frame->block.pblk, &old);
	if (!err)
		err = inl_block_change(op, parent->block.pblk, &above);
	if (err)
		return err;
	node_init(dir, bytes);
	/* The first pair's hash goes to the parent: in its place are limit and count. */
	memcpy(node_entry(bytes, INL_DX_NODE_AT, 0) + 4, node_entry(old, INL_DX_NODE_AT, half) + 4,
	       8 * (size_t)moved - 4);
	inl_store_le16(bytes + INL_DX_NODE_AT + 2, (uint16_t)moved);
	node_seal(dir, bytes, INL_DX_NODE_AT);
	memset(node_entry(old, INL_DX_NODE_AT, half), 0, 8 * (size_t)moved);
	inl_store_le16(old + INL_DX_NODE_AT + 2, (uint16_t)half);
	node_seal(dir, old, INL_DX_NODE_AT);
	node_insert(dir, above, i == 1 ? INL_DX_ROOT_AT : INL_DX_NODE_AT, parent->at, hash, (uint32_t)block.lblk);
	return 0;
}

/* Until the last node of the path has room for one more leaf. */
static int make_room(struct inl_handle *op, struct inl_inode *dir, const struct inl_new_dirent *entry,
		     struct inl_dx_path *path)
{
	while (is_full(&path->frames[path->n - 1])) {
		unsigned i = path->n - 1;
		int err;

		while (i && is_full(&path->frames[i - 1]))
			i--;
		err = i ? split_node(op, dir, path, i) : add_level(op, dir, path);
		if (!err)
			err = inl_dx_path_find(op, dir, entry->name, entry->len, path);
		if (err)
			return err;
	}
	return 0;
}

/* ---- splitting a leaf -------------------------------------------------------------------------------------------- */

struct mapped {
	uint32_t hash;
	uint16_t at, len; /* bytes of the leaf, in units of 4 */
};

/* A leaf taken apart. */
struct leaf {
	struct mapped *map; /* by hash */
	unsigned n;
	uint8_t *copy;
};

static int compare_mapped(const void *a, const void *b)
{
	const struct mapped *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static void leaf_done(struct leaf *leaf)
{
	free(leaf->map);
	free(leaf->copy);
}

static int map_leaf(struct inl_inode *dir, const struct inl_dx_path *path, struct leaf *leaf)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	uint32_t size = inl_dir_leaf_size(dir), minor;

	for (size_t at = 0, next; at < size; at = next) {
		struct inl_raw_dirent entry;
		struct mapped *mapped = &leaf->map[leaf->n];
		int err = inl_dirent_parse(&format, leaf->copy, size, at, &entry, &next);

		if (err)
			return err;
		if (!entry.ino)
			continue;
		err = inl_dir_hash(dir, path->hash_version, entry.name, entry.len, &mapped->hash, &minor);
		if (err)
			return err;
		mapped->at = (uint16_t)(at / 4);
		mapped->len = (uint16_t)(inl_dirent_need(entry.len) / 4);
		leaf->n++;
	}
	qsort(leaf->map, leaf->n, sizeof(*leaf->map), compare_mapped);
	return 0;
}

static int leaf_init(struct inl_inode *dir, const struct inl_dx_path *path, const uint8_t *bytes, struct leaf *leaf)
{
	uint32_t block_size = dir->vol->block_size;
	int err;

	leaf->n = 0;
	leaf->map = calloc(block_size / 12, sizeof(*leaf->map));
	leaf->copy = malloc(block_size);
	if (leaf->map && leaf->copy) {
		memcpy(leaf->copy, bytes, block_size);
		err = map_leaf(dir, path, leaf);
	} else {
		err = -ENOMEM;
	}
	if (err)
		leaf_done(leaf);
	return err;
}

/* Half of the bytes, the upper hashes, move. Returns the first that does. */
static unsigned split_point(const struct leaf *leaf, uint32_t block_size)
{
	uint32_t moved = 0;
	unsigned i = leaf->n;

	while (i && moved + leaf->map[i - 1].len * 4u / 2 <= block_size / 2)
		moved += leaf->map[--i].len * 4u;
	return i ? i : leaf->n / 2;
}

/* Entries [from, to) of the map, one behind the other; the last one has what is left. */
static void pack(const struct inl_inode *dir, const struct leaf *leaf, unsigned from, unsigned to, uint8_t *bytes)
{
	uint32_t block_size = dir->vol->block_size, size = inl_dir_leaf_size(dir), at = 0;

	memset(bytes, 0, block_size);
	inl_dir_leaf_init(dir, bytes);
	for (unsigned i = from; i < to; i++) {
		uint32_t len = leaf->map[i].len * 4u;

		memcpy(bytes + at, leaf->copy + leaf->map[i].at * 4u, len);
		inl_dirent_set_rec_len(bytes + at, i + 1 == to ? size - at : len, block_size);
		at += len;
	}
	inl_dir_leaf_seal(dir, bytes);
}

/* Split the path's leaf; *target becomes the half where the path's hash belongs. */
static int split_leaf(struct inl_handle *op, struct inl_inode *dir, const struct inl_dx_path *path,
		      const struct leaf *leaf, struct inl_dir_block *target)
{
	const struct inl_dx_frame *frame = &path->frames[path->n - 1];
	unsigned cut = split_point(leaf, dir->vol->block_size);
	uint32_t hash = leaf->map[cut].hash, continued = hash == leaf->map[cut - 1].hash;
	struct inl_dir_block block;
	uint8_t *bytes, *old, *node;
	int err = append(op, dir, path, &block, &bytes);

	if (!err && block.pblk == target->pblk)
		err = -EUCLEAN;
	if (!err)
		err = inl_block_change(op, target->pblk, &old);
	if (!err)
		err = inl_block_change(op, frame->block.pblk, &node);
	if (err)
		return err;
	pack(dir, leaf, cut, leaf->n, bytes);
	pack(dir, leaf, 0, cut, old);
	node_insert(dir, node, path->n == 1 ? INL_DX_ROOT_AT : INL_DX_NODE_AT, frame->at, hash + continued,
		    (uint32_t)block.lblk);
	target->bytes = old;
	if (path->hash >= hash)
		*target = block;
	return 0;
}

int inl_dx_add(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path,
	       const struct inl_new_dirent *entry)
{
	struct inl_dir_block target;
	struct leaf leaf;
	int err = inl_dir_look(op, dir, path->leaf, &target);

	if (!err)
		err = path_has(path, target.pblk) ? -EUCLEAN : inl_dir_leaf_add(op, dir, &target, entry);
	if (err != -ENOSPC)
		return err;
	err = make_room(op, dir, entry, path);
	if (!err)
		err = leaf_init(dir, path, target.bytes, &leaf);
	if (err)
		return err;
	err = leaf.n < 2 ? -EUCLEAN : split_leaf(op, dir, path, &leaf, &target);
	leaf_done(&leaf);
	return err ? err : inl_dir_leaf_add(op, dir, &target, entry);
}

/* ---- the first index --------------------------------------------------------------------------------------------- */

/* "." and "..", where an index needs them; *rest: bytes of the block in front of what follows them, DOTS or more. */
static int check_dots(const struct inl_inode *dir, const uint8_t *bytes, size_t *rest)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	uint32_t size = inl_dir_leaf_size(dir);
	struct inl_raw_dirent dot, dots;

	if (inl_dirent_parse(&format, bytes, size, 0, &dot, rest) || *rest != 12 || dot.len != 1 || dot.name[0] != '.')
		return -EUCLEAN;
	if (inl_dirent_parse(&format, bytes, size, *rest, &dots, rest) || *rest == size || dots.len != 2 ||
	    dots.name[0] != '.' || dots.name[1] != '.')
		return -EUCLEAN;
	return 0;
}

/* The entries behind ".." move to a leaf as they are; its last one gets what the dots had. */
static int fill_first_leaf(const struct inl_inode *dir, const uint8_t *from, size_t rest, uint8_t *to)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	uint32_t size = inl_dir_leaf_size(dir);
	struct inl_raw_dirent entry;
	size_t at = 0, next = 0;

	memcpy(to, from + rest, size - rest);
	while (next < size - rest) {
		at = next;
		if (inl_dirent_parse(&format, to, size - rest, at, &entry, &next))
			return -EUCLEAN;
	}
	inl_dirent_set_rec_len(to + at, (uint32_t)(size - at), dir->vol->block_size);
	inl_dir_leaf_init(dir, to);
	inl_dir_leaf_seal(dir, to);
	return 0;
}

int inl_dx_make(struct inl_handle *op, struct inl_inode *dir)
{
	uint32_t block_size = dir->vol->block_size;
	struct inl_dir_block root, leaf;
	uint8_t *bytes, *first;
	size_t rest;
	int err = inl_dir_look(op, dir, 0, &root);

	if (!err)
		err = check_dots(dir, root.bytes, &rest);
	if (!err)
		err = inl_dir_append(op, dir, &leaf, &first);
	if (!err && leaf.pblk == root.pblk)
		err = -EUCLEAN;
	if (!err)
		err = fill_first_leaf(dir, root.bytes, rest, first);
	if (!err)
		err = inl_block_change(op, root.pblk, &bytes);
	if (err)
		return err;
	dir->raw.i_flags |= EXT4_FL_INDEX;
	memset(bytes + DOTS, 0, block_size - DOTS);
	inl_dirent_set_rec_len(bytes + 12, block_size - 12, block_size);
	bytes[ROOT_INFO + 4] = dir->vol->fs->super->s_def_hash_version;
	bytes[ROOT_INFO + 5] = 8;
	inl_store_le16(bytes + INL_DX_ROOT_AT, (uint16_t)node_limit(dir, INL_DX_ROOT_AT));
	inl_store_le16(bytes + INL_DX_ROOT_AT + 2, 1);
	inl_store_le32(bytes + INL_DX_ROOT_AT + 4, (uint32_t)leaf.lblk);
	inl_dx_root_seal(dir, bytes);
	return 0;
}
