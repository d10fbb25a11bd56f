/*
 * ext4/dxwalk.c: reading through the index of a directory: the leaf of a hash, the ones behind it, is it sound.
 * Not here: the index as bytes (htree.c); changing it (dxmod.c).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories".
 */
#include "ext4/dirmod.h"
#include <errno.h>

#define HASH_END 0xfffffffeu /* no name has this hash, or one above */

/* ---- walk -------------------------------------------------------------------------------------------------------- */

static int push(struct inl_dx_walk *walk, uint64_t lblk)
{
	struct inl_volume *vol = walk->dir->vol;
	struct inl_dx_step *step = &walk->steps[walk->n];
	const uint8_t *bytes;
	uint64_t skip;
	int err = inl_dir_block_get(walk->dir, lblk, &step->block, &skip, NULL);

	if (err)
		return err;
	walk->n++;
	step->at = 0;
	bytes = inl_block_bytes(step->block);
	if (walk->n == 1)
		return inl_dx_root_parse(bytes, vol->block_size, vol->metadata_csum,
					 ext2fs_has_feature_largedir(vol->fs->super), &step->node);
	return inl_dx_node_parse(bytes, vol->block_size, vol->metadata_csum, &step->node);
}

int inl_dx_walk_begin(struct inl_dx_walk *walk, struct inl_inode *dir)
{
	walk->dir = dir;
	walk->n = 0;
	walk->n_left = dir->size >> dir->vol->block_bits;
	return push(walk, 0);
}

void inl_dx_walk_done(struct inl_dx_walk *walk)
{
	while (walk->n)
		inl_block_put(walk->steps[--walk->n].block);
}

uint64_t inl_dx_walk_leaf(const struct inl_dx_walk *walk)
{
	const struct inl_dx_step *step = &walk->steps[walk->n - 1];

	return inl_dx_entry(&step->node, step->at).block;
}

/* Down to the level above the leaves. */
static int descend(struct inl_dx_walk *walk, const uint32_t *hash)
{
	int err = 0;

	while (!err && walk->n <= walk->steps[0].node.levels) {
		err = push(walk, inl_dx_walk_leaf(walk));
		if (!err && hash)
			walk->steps[walk->n - 1].at = inl_dx_search(&walk->steps[walk->n - 1].node, *hash);
	}
	return err;
}

int inl_dx_walk_find(struct inl_dx_walk *walk, uint32_t hash)
{
	walk->steps[0].at = inl_dx_search(&walk->steps[0].node, hash);
	return descend(walk, &hash);
}

uint32_t inl_dx_walk_from(const struct inl_dx_walk *walk)
{
	unsigned i = walk->n;

	/* The first entry of a node has the hash that its parent says. */
	while (i && !walk->steps[i - 1].at)
		i--;
	return i ? inl_dx_entry(&walk->steps[i - 1].node, walk->steps[i - 1].at).hash : 0;
}

/* The deepest node that has something behind where the walk is; 0: none. */
static unsigned level_of_next(const struct inl_dx_walk *walk)
{
	unsigned i = walk->n;

	while (i && walk->steps[i - 1].at + 1 >= walk->steps[i - 1].node.count)
		i--;
	return i;
}

bool inl_dx_walk_to(const struct inl_dx_walk *walk, uint32_t *hash)
{
	unsigned i = level_of_next(walk);

	if (i)
		*hash = inl_dx_entry(&walk->steps[i - 1].node, walk->steps[i - 1].at + 1).hash;
	return i;
}

int inl_dx_walk_next(struct inl_dx_walk *walk)
{
	unsigned i = level_of_next(walk);

	if (!i || !walk->n_left--)
		return -EUCLEAN;
	while (walk->n > i)
		inl_block_put(walk->steps[--walk->n].block);
	walk->steps[i - 1].at++;
	return descend(walk, NULL);
}

/* ---- is it sound ------------------------------------------------------------------------------------------------- */

/* All blocks but the root, each of them once: what they are mixed to, added up, must be what it should be. */
struct sum {
	uint64_t n_blocks, n, total;
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static bool add_block(struct sum *sum, uint64_t lblk)
{
	if (!lblk || lblk >= sum->n_blocks || sum->n + 1 >= sum->n_blocks)
		return false;
	sum->n++;
	sum->total += mix(lblk);
	return true;
}

static bool sum_complete(const struct sum *sum)
{
	uint64_t total = 0;

	if (sum->n + 1 != sum->n_blocks)
		return false;
	for (uint64_t lblk = 1; lblk < sum->n_blocks; lblk++)
		total += mix(lblk);
	return total == sum->total;
}

/* The deepest node: its hashes rise from where it begins to where the next one does; only one that goes on repeats. */
static int check_node(const struct inl_dx_walk *walk, uint32_t from, uint32_t to, struct sum *sum)
{
	const struct inl_dx_node *node = &walk->steps[walk->n - 1].node;

	for (unsigned i = 0; i < node->count; i++) {
		struct inl_dx_entry entry = inl_dx_entry(node, i);

		if (i && (entry.hash < from || (entry.hash == from && !(from & 1))))
			return -EUCLEAN;
		if (i)
			from = entry.hash;
		if (!add_block(sum, entry.block))
			return -EUCLEAN;
	}
	return from < to || (from == to && (from & 1)) ? 0 : -EUCLEAN;
}

/* The deepest node and what is below it; at most INL_DX_LEVELS deep. */
static int check_tree(struct inl_dx_walk *walk, uint32_t from, uint32_t to, struct sum *sum)
{
	struct inl_dx_step *step = &walk->steps[walk->n - 1];
	int err = check_node(walk, from, to, sum);

	if (walk->n > walk->steps[0].node.levels)
		return err;
	for (; !err && step->at < step->node.count; step->at++) {
		bool last = step->at + 1 == step->node.count;
		uint32_t end = last ? to : inl_dx_entry(&step->node, step->at + 1).hash;

		err = push(walk, inl_dx_walk_leaf(walk));
		if (!err)
			err = check_tree(walk, step->at ? inl_dx_entry(&step->node, step->at).hash : from, end, sum);
		if (!err)
			inl_block_put(walk->steps[--walk->n].block);
	}
	return err;
}

int inl_dx_check(struct inl_inode *dir)
{
	struct sum sum = { .n_blocks = (dir->size + dir->vol->block_size - 1) >> dir->vol->block_bits };
	struct inl_dx_walk walk;
	int err = inl_dx_walk_begin(&walk, dir);

	if (!err)
		err = check_tree(&walk, 0, HASH_END, &sum);
	if (!err && !sum_complete(&sum))
		err = -EUCLEAN;
	inl_dx_walk_done(&walk);
	return err;
}
