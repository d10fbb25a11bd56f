/*
 * ext4/ialloc.c: inode numbers: directories spread over the groups, what is in them stays near.
 * Not here: the inodes themselves (inode.c); bitmaps and descriptors as bytes (group.c).
 * Read more: Linux Documentation/filesystems/ext4/allocators.rst; "the Orlov block allocator".
 */
#include "ext4/alloc.h"
#include <errno.h>
#include <sys/stat.h>

#define FL_TOPDIR 0x00020000u /* what is in this directory is not related */

/* A group, or groups that share their tables. */
struct unit {
	uint64_t n_blocks, n_inodes, n_dirs; /* free ones; directories */
};

static bool has_inode(const struct inl_alloc_group *known)
{
	return known->n_free_inodes && !known->inodes_bad;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* The group of the directory or the next one behind that has an inode, better also blocks. */
static uint32_t file_group(const struct inl_alloc *alloc, uint32_t parent)
{
	uint32_t any = INL_NO_GROUP;

	for (uint32_t i = 0; i < alloc->n_groups; i++) {
		uint32_t group = (uint32_t)(((uint64_t)parent + i) % alloc->n_groups);
		const struct inl_alloc_group *known = &alloc->groups[group];

		if (!has_inode(known))
			continue;
		if (inl_group_n_usable(known))
			return group;
		if (any == INL_NO_GROUP)
			any = group;
	}
	return any;
}

/* ---- directories ----------------------------------------------------------------------------------------------- */

static uint32_t n_units(const struct inl_alloc *alloc)
{
	return (uint32_t)(((uint64_t)alloc->n_groups + alloc->flex - 1) / alloc->flex);
}

static uint32_t unit_end(const struct inl_alloc *alloc, uint32_t unit)
{
	return (uint32_t)INL_MIN((uint64_t)(unit + 1) * alloc->flex, alloc->n_groups);
}

static struct unit sum(const struct inl_alloc *alloc, uint32_t unit)
{
	struct unit total = { 0 };

	for (uint32_t i = unit * alloc->flex; i < unit_end(alloc, unit); i++) {
		const struct inl_alloc_group *known = &alloc->groups[i];

		total.n_blocks += inl_group_n_usable(known);
		total.n_inodes += has_inode(known) ? known->n_free_inodes : 0;
		total.n_dirs += known->n_dirs;
	}
	return total;
}

static struct unit average(const struct inl_alloc *alloc)
{
	uint32_t n = n_units(alloc);

	return (struct unit){ inl_alloc_n_usable(alloc) / n, alloc->n_free_inodes / n, alloc->n_dirs / n };
}

/* Of those with at least average room the one with the fewest directories; begin anywhere, but not twice the same. */
static uint32_t top_unit(const struct inl_alloc *alloc)
{
	struct unit mean = average(alloc);
	uint32_t n = n_units(alloc), start = alloc->n_dirs * 0x9e3779b1u % n, best = INL_NO_GROUP;
	uint64_t fewest = UINT64_MAX;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t unit = (uint32_t)(((uint64_t)start + i) % n);
		struct unit has = sum(alloc, unit);

		if (has.n_inodes && has.n_inodes >= mean.n_inodes && has.n_blocks >= mean.n_blocks &&
		    has.n_dirs < fewest) {
			fewest = has.n_dirs;
			best = unit;
		}
	}
	return best;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* The parent's, or the next one that is not worse off than the average by much. */
static uint32_t near_unit(const struct inl_alloc *alloc, uint32_t parent)
{
	struct unit mean = average(alloc);
	uint64_t inodes = (uint64_t)alloc->inodes_per_group * alloc->flex;
	uint64_t blocks = (uint64_t)alloc->blocks_per_group * alloc->flex;
	uint32_t n = n_units(alloc);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t unit = (uint32_t)(((uint64_t)parent + i) % n);
		struct unit has = sum(alloc, unit);

		if (has.n_inodes && has.n_inodes >= less(mean.n_inodes, inodes / 4) &&
		    has.n_blocks >= less(mean.n_blocks, blocks / 4) && has.n_dirs <= mean.n_dirs + inodes / 16)
			return unit;
	}
	return INL_NO_GROUP;
}

static uint32_t dir_group(const struct inl_alloc *alloc, const struct inl_inode *dir, uint32_t parent)
{
	bool top = !dir || dir->ino == INL_ROOT_INO || (dir->raw.i_flags & FL_TOPDIR);
	uint32_t unit = top ? top_unit(alloc) : near_unit(alloc, parent / alloc->flex);

	for (uint32_t i = unit * alloc->flex; unit != INL_NO_GROUP && i < unit_end(alloc, unit); i++) {
		if (has_inode(&alloc->groups[i]))
			return i;
	}
	return file_group(alloc, parent);
}

/* ---- taking and freeing ---------------------------------------------------------------------------------------- */

/* What is counted of a group, to put it back. */
struct counts {
	uint32_t group;
	int32_t n_inodes, n_dirs; /* to add: free inodes, directories */
};

static void count(struct inl_alloc *alloc, const struct counts *counts, int sign)
{
	struct inl_alloc_group *known = &alloc->groups[counts->group];
	uint32_t n_inodes = (uint32_t)(sign * counts->n_inodes), n_dirs = (uint32_t)(sign * counts->n_dirs);

	known->n_free_inodes += n_inodes;
	known->n_dirs += n_dirs;
	alloc->n_free_inodes += n_inodes;
	alloc->n_dirs += n_dirs;
}

static void undo_count(struct inl_volume *vol, void *what)
{
	count(vol->alloc, what, -1);
}

/* Set or clear the bit of an inode, and count. */
static int change(struct inl_handle *op, const struct inl_group_edit *edit, uint32_t bit, bool used, bool is_dir)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct counts counts = { edit->group, used ? -1 : 1, is_dir ? (used ? 1 : -1) : 0 };
	struct inl_group now;
	int err = inl_op_undo(op, undo_count, &counts, sizeof(counts));

	if (err)
		return err;
	count(vol->alloc, &counts, 1);
	inl_group_parse(vol->alloc, edit->desc, &now);
	now.n_free_inodes += (uint32_t)counts.n_inodes;
	now.n_dirs += (uint32_t)counts.n_dirs;
	/* Those behind are never looked at. Bits are taken from the lowest up: none below was never written. */
	if (used)
		now.n_unused_inodes = INL_MIN(now.n_unused_inodes, vol->alloc->inodes_per_group - bit - 1);
	inl_bits_fill(edit->bits, bit, 1, used);
	inl_group_seal_inodes(vol, edit, &now);
	return 0;
}

/* In a group that says it has one. -EUCLEAN: it has not, or is otherwise damaged. */
static int take(struct inl_handle *op, uint32_t group, bool is_dir, uint32_t *ino)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc *alloc = vol->alloc;
	struct inl_bits_view view = { .n = alloc->inodes_per_group };
	struct inl_group_edit edit;
	uint32_t bit;
	int err = inl_group_look_inodes(op, group, &view.bits);

	if (err)
		return err;
	bit = inl_bits_next_clear(&view, group ? 0 : EXT2_FIRST_INODE(vol->fs->super) - 1);
	if (bit >= view.n) {
		alloc->groups[group].inodes_bad = true;
		return -EUCLEAN;
	}
	err = inl_group_edit_inodes(op, group, &edit);
	if (!err)
		err = change(op, &edit, bit, true, is_dir);
	if (!err)
		*ino = group * alloc->inodes_per_group + bit + 1;
	return err;
}

int inl_ino_alloc(struct inl_handle *op, const struct inl_inode *dir, uint32_t mode, uint32_t *ino)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	uint32_t parent = dir ? (dir->ino - 1) / alloc->inodes_per_group : 0;
	bool is_dir = S_ISDIR(mode);

	for (;;) {
		uint32_t group = is_dir ? dir_group(alloc, dir, parent) : file_group(alloc, parent);
		int err = group == INL_NO_GROUP ? -ENOSPC : take(op, group, is_dir, ino);

		/* What is left is in groups that are damaged. */
		if (err == -ENOSPC && alloc->n_free_inodes)
			return -EUCLEAN;
		/* A damaged group is marked as that, and not chosen again. */
		if (err != -EUCLEAN || !alloc->groups[group].inodes_bad)
			return err;
	}
}

int inl_ino_free(struct inl_handle *op, uint32_t ino, bool is_dir)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc *alloc = vol->alloc;
	struct inl_group_edit edit;
	uint32_t group, bit;
	int err;

	if (ino < EXT2_FIRST_INODE(vol->fs->super) || ino > vol->fs->super->s_inodes_count)
		return -EUCLEAN;
	group = (ino - 1) / alloc->inodes_per_group;
	bit = (ino - 1) % alloc->inodes_per_group;
	err = inl_group_edit_inodes(op, group, &edit);
	if (err)
		return err;
	if (!inl_bits_test(edit.bits, bit) || (is_dir && !alloc->groups[group].n_dirs))
		return -EUCLEAN;
	return change(op, &edit, bit, false, is_dir);
}

int inl_ino_alone(struct inl_handle *op, uint32_t ino, bool *alone)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc *alloc = vol->alloc;
	uint32_t per_block = vol->block_size / EXT2_INODE_SIZE(vol->fs->super);
	uint32_t bit = (ino - 1) % alloc->inodes_per_group;
	uint32_t first = bit - bit % per_block;
	const uint8_t *bits;
	int err;

	if (!ino || ino > vol->fs->super->s_inodes_count)
		return -EUCLEAN;
	err = inl_group_look_inodes(op, (ino - 1) / alloc->inodes_per_group, &bits);
	if (!err)
		*alone = inl_bits_all(bits, first, bit - first, false) &&
			 inl_bits_all(bits, bit + 1, first + per_block - bit - 1, false);
	return err;
}
