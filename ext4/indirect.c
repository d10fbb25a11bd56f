/*
 * ext4/indirect.c: changing the map of an inode without extents: twelve pointers, and three trees of pointers.
 * Not here: looking things up (map.c); which blocks to use (alloc.c).
 * Read more: Linux Documentation/filesystems/ext4/ifork.rst, "Direct/Indirect Block Addressing".
 *
 * A pointer of zero is a hole of all that it would lead to. A block of pointers that are all zero is freed as soon as
 * something is removed near it.
 */
#include "ext4/map.h"
#include <errno.h>
#include <string.h>

#define LEVELS_MAX    3u
#define PBLK_MAX      0xffffffffull
#define INSERT_BLOCKS 4u /* how many full blocks of pointers one insert may fill */

/* One array of pointers on the way to a block. */
struct level {
	uint64_t pblk; /* 0: in the inode */
	const uint8_t *pointers;
	unsigned at, n;
};

struct path {
	struct inl_handle *op;
	struct inl_inode *inode;
	unsigned bits;
	unsigned levels;  /* how many blocks of pointers there are between the inode and the data */
	unsigned reached; /* the last level that is there */
	struct level level[LEVELS_MAX + 1];
};

static struct path path_of(struct inl_handle *op, struct inl_inode *inode)
{
	return (struct path){ .op = op, .inode = inode, .bits = inode->vol->block_bits - 2 };
}

uint64_t inl_indirect_max(const struct inl_inode *inode)
{
	unsigned bits = inode->vol->block_bits - 2;
	uint64_t max = N_DIRECT + (1ull << bits) + (1ull << 2 * bits) + (1ull << 3 * bits);

	return INL_MIN(max, EXT4_LBLK_NONE);
}

uint64_t inl_indirect_insert_max(const struct inl_inode *inode)
{
	return (uint64_t)INSERT_BLOCKS << (inode->vol->block_bits - 2);
}

unsigned inl_indirect_credits(void)
{
	/* Blocks of pointers, each with what its allocation changes: the lowest, two above, the highest; the inode. */
	return 3 * (INSERT_BLOCKS + 1) + 3 * 2 + 3 + 1;
}

/* Where the pointers to lblk are: one index per level. */
static void path_place(struct path *path, uint64_t lblk)
{
	uint64_t rest = lblk - N_DIRECT;

	path->reached = 0;
	path->levels = 0;
	path->level[0] = (struct level){ 0, (const uint8_t *)path->inode->raw.i_block, (unsigned)lblk, N_DIRECT };
	if (lblk < N_DIRECT)
		return;
	for (path->levels = 1; rest >> (path->bits * path->levels); path->levels++)
		rest -= 1ull << (path->bits * path->levels);
	path->level[0].at = N_DIRECT + path->levels - 1;
	path->level[0].n = path->level[0].at + 1;
	for (unsigned i = 1; i <= path->levels; i++) {
		path->level[i].at = rest >> (path->bits * (path->levels - i)) & ((1u << path->bits) - 1);
		path->level[i].n = 1u << path->bits;
	}
}

static uint32_t pointer(const struct level *level, unsigned i)
{
	return inl_load_le32(level->pointers + 4 * (size_t)i);
}

/* Go down as far as there are blocks. */
static int path_find(struct path *path, uint64_t lblk)
{
	path_place(path, lblk);
	while (path->reached < path->levels) {
		const struct level *level = &path->level[path->reached];
		struct level *below = &path->level[path->reached + 1];
		int err;

		below->pblk = pointer(level, level->at);
		if (!below->pblk)
			return 0;
		if (!inl_block_in_range(path->inode->vol, below->pblk, 1))
			return -EUCLEAN;
		err = inl_block_look(path->op, below->pblk, &below->pointers);
		if (err)
			return err;
		path->reached++;
	}
	return 0;
}

static int level_change(struct path *path, struct level *level, uint8_t **pointers)
{
	int err;

	if (!level->pblk) {
		*pointers = (uint8_t *)path->inode->raw.i_block;
		return 0;
	}
	err = inl_block_change(path->op, level->pblk, pointers);
	if (!err)
		level->pointers = *pointers;
	return err;
}

static int level_set(struct path *path, struct level *level, unsigned i, uint32_t value)
{
	uint8_t *pointers;
	int err = level_change(path, level, &pointers);

	if (!err)
		inl_store_le32(pointers + 4 * (size_t)i, value);
	return err;
}

/* ---- inserting -------------------------------------------------------------------------------------------------- */

/* The blocks of pointers that are missing on the way. */
static int path_fill(struct path *path, uint64_t goal)
{
	while (path->reached < path->levels) {
		struct level *level = &path->level[path->reached], *below = level + 1;
		uint8_t *pointers;
		uint64_t pblk;
		int err = inl_block_alloc(path->op, goal, &pblk);

		if (!err && pblk > PBLK_MAX)
			err = -EFBIG;
		if (!err)
			err = inl_inode_add_blocks(path->inode, 1);
		if (!err)
			err = inl_block_new(path->op, pblk, &pointers);
		if (!err)
			err = level_set(path, level, level->at, (uint32_t)pblk);
		if (err)
			return err;
		below->pblk = pblk;
		below->pointers = pointers;
		path->reached++;
	}
	return 0;
}

/* Set up to n pointers, as many as the lowest array of the path has room for. *done: how many. */
static int insert_at(struct path *path, uint64_t n, uint64_t pblk, uint64_t *done)
{
	struct level *level = &path->level[path->levels];
	uint64_t count = INL_MIN(n, level->n - level->at);
	uint8_t *pointers;
	int err;

	for (unsigned i = 0; i < count; i++)
		if (pointer(level, level->at + i))
			return -EEXIST;
	err = level_change(path, level, &pointers);
	if (err)
		return err;
	for (unsigned i = 0; i < count; i++)
		inl_store_le32(pointers + 4 * (size_t)(level->at + i), (uint32_t)(pblk + i));
	*done = count;
	return 0;
}

int inl_indirect_insert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, uint64_t pblk)
{
	struct path path = path_of(op, inode);

	if (pblk + n - 1 > PBLK_MAX)
		return -EFBIG;
	while (n) {
		uint64_t done = 0;
		int err = path_find(&path, lblk);

		if (!err)
			err = path_fill(&path, pblk);
		if (!err)
			err = insert_at(&path, n, pblk, &done);
		if (err)
			return err;
		lblk += done;
		pblk += done;
		n -= done;
	}
	return 0;
}

/* ---- removing --------------------------------------------------------------------------------------------------- */

static bool all_zero(const struct level *level)
{
	for (unsigned i = 0; i < level->n; i++)
		if (pointer(level, i))
			return false;
	return true;
}

/* Free the blocks of pointers of this path that lead nowhere. */
static int path_prune(struct path *path)
{
	for (unsigned i = path->reached; i > 0 && all_zero(&path->level[i]); i--) {
		int err = inl_blocks_free(path->op, path->level[i].pblk, 1, true);

		if (!err)
			err = inl_inode_add_blocks(path->inode, -1);
		if (!err)
			err = level_set(path, &path->level[i - 1], path->level[i - 1].at, 0);
		if (err)
			return err;
	}
	return 0;
}

/* The first block that the lowest entry of the path stands for, and how many it does. */
static uint64_t entry_start(const struct path *path, uint64_t lblk, uint64_t *span)
{
	uint64_t tree = N_DIRECT;

	*span = 1ull << (path->bits * (path->levels - path->reached));
	if (!path->levels)
		return lblk;
	for (unsigned i = 1; i < path->levels; i++)
		tree += 1ull << (path->bits * i);
	return tree + ((lblk - tree) & ~(*span - 1));
}

/* How many entries below the path's, which begins at start, have to do with blocks from lblk on. */
static unsigned entries_below(const struct path *path, uint64_t start, uint64_t span, uint64_t lblk)
{
	const struct level *level = &path->level[path->reached];

	if (start <= lblk || (path->levels && !path->reached))
		return 0;
	return (unsigned)INL_MIN((start - lblk + span - 1) / span, level->at);
}

/* Free a run of data that ends at the path's entry: up to 1 + below blocks. *n: how many, 0: no credits for any. */
static int remove_run(struct path *path, unsigned below, bool metadata, uint64_t *n)
{
	struct level *level = &path->level[path->levels];
	uint64_t last = pointer(level, level->at), first = last, count;
	uint8_t *pointers;
	int err;

	while (last - first < below && first > 1 &&
	       pointer(level, level->at - (unsigned)(last - first) - 1) == first - 1)
		first--;
	if (!inl_block_in_range(path->inode->vol, first, last - first + 1))
		return -EUCLEAN;
	/* Blocks of pointers changed, and freed; the inode. */
	count = inl_map_can_free(path->op, 3 * LEVELS_MAX + 1, first, last - first + 1);
	*n = count;
	if (!count)
		return 0;
	err = inl_blocks_free(path->op, last - count + 1, count, metadata);
	if (!err)
		err = inl_inode_add_blocks(path->inode, -(int64_t)count);
	if (!err)
		err = level_change(path, level, &pointers);
	if (!err)
		memset(pointers + 4 * ((size_t)level->at + 1 - count), 0, 4 * (size_t)count);
	return err;
}

/* One run, of data or of nothing, at the end of [lblk, *end), which then ends where it begins. *enough: of credits. */
static int remove_one(struct path *path, uint64_t lblk, uint64_t *end, bool metadata, bool *enough)
{
	const struct level *level = &path->level[path->reached];
	uint64_t span, start = entry_start(path, *end - 1, &span), n = 1;
	unsigned below = entries_below(path, start, span, lblk);
	int err = 0;

	if (pointer(level, level->at)) {
		err = remove_run(path, below, metadata, &n);
		*enough = n != 0;
	} else {
		while (n <= below && !pointer(level, level->at - (unsigned)n))
			n++;
		*enough = inl_op_credits_left(path->op) > 3 * LEVELS_MAX;
	}
	if (err || !*enough)
		return err;
	start -= (n - 1) * span;
	*end = start > lblk ? start : lblk;
	return path_prune(path);
}

int inl_indirect_remove(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t end, bool metadata,
			uint64_t *left)
{
	struct path path = path_of(op, inode);
	bool enough = true;

	for (unsigned i = 0; end > lblk && i < REMOVE_MAX; i++) {
		int err = path_find(&path, end - 1);

		if (!err)
			err = remove_one(&path, lblk, &end, metadata, &enough);
		if (err)
			return err;
		if (!enough)
			break;
	}
	*left = end;
	return 0;
}
