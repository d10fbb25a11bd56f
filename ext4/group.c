/*
 * ext4/group.c: group descriptors, the bitmaps they speak of, and the superblock: looked at and changed as blocks.
 * Not here: which block or inode to take (place.c, ialloc.c); what is taken in memory only (alloc.c).
 * Read more: Linux Documentation/filesystems/ext4/group_descr.rst, bitmaps.rst.
 */
#include "ext4/alloc.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Offsets in a descriptor; the high halves, of descriptors of 64 bytes, where not 0x20 behind. */
enum {
	BG_FREE_BLOCKS = 0x0c,
	BG_FREE_INODES = 0x0e,
	BG_USED_DIRS = 0x10,
	BG_FLAGS = 0x12,
	BG_BLOCKS_CSUM = 0x18,
	BG_INODES_CSUM = 0x1a,
	BG_ITABLE_UNUSED = 0x1c,
	BG_CSUM = 0x1e,
	BG_ITABLE_UNUSED_HI = 0x32,
	BG_HI = 0x20,
};
#define DESC_SIZE_WITH_HI 64u

/* Offsets in the superblock. */
enum { SB_FREE_BLOCKS = 0x0c, SB_FREE_INODES = 0x10, SB_FREE_BLOCKS_HI = 0x158, SB_CSUM = 0x3fc };

/* ---- the superblock -------------------------------------------------------------------------------------------- */

int inl_super_change(struct inl_handle *op, uint8_t **sb)
{
	struct inl_volume *vol = inl_op_vol(op);
	uint8_t *bytes;
	int err = inl_block_change(op, EXT4_SUPER_OFFSET >> vol->block_bits, &bytes);

	if (!err)
		*sb = bytes + (EXT4_SUPER_OFFSET & (vol->block_size - 1));
	return err;
}

void inl_super_csum(const struct inl_volume *vol, uint8_t *sb)
{
	if (vol->metadata_csum)
		inl_store_le32(sb + SB_CSUM, inl_crc32c(~0u, sb, SB_CSUM));
}

int inl_super_rewrite(struct inl_volume *vol, inl_super_fn *edit)
{
	uint64_t at = EXT4_SUPER_OFFSET & ~((uint64_t)vol->block_size - 1);
	uint8_t *bytes = inl_new_blocks(vol->block_size, 1), *sb;
	int err;

	if (!bytes)
		return -ENOMEM;
	sb = bytes + (EXT4_SUPER_OFFSET - at);
	err = inl_dev_read(vol->dev, at, bytes, vol->block_size);
	if (!err) {
		edit(sb);
		inl_super_csum(vol, sb);
		err = inl_dev_write(vol->dev, at, bytes, vol->block_size);
	}
	free(bytes);
	return err ? err : inl_dev_flush(vol->dev);
}

int inl_super_set_feature(struct inl_handle *op, unsigned at, uint32_t feature)
{
	struct inl_volume *vol = inl_op_vol(op);
	const uint8_t *is;
	uint8_t *sb;
	int err = inl_block_look(op, EXT4_SUPER_OFFSET >> vol->block_bits, &is);

	if (err || (inl_load_le32(is + (EXT4_SUPER_OFFSET & (vol->block_size - 1)) + at) & feature))
		return err;
	err = inl_super_change(op, &sb);
	if (err)
		return err;
	inl_store_le32(sb + at, inl_load_le32(sb + at) | feature);
	inl_super_csum(vol, sb);
	return 0;
}

int inl_group_sync_super(struct inl_handle *op)
{
	struct inl_volume *vol = inl_op_vol(op);
	uint8_t *sb;
	int err = inl_super_change(op, &sb);

	if (err)
		return err;
	inl_store_le32(sb + SB_FREE_BLOCKS, (uint32_t)vol->alloc->n_free);
	if (ext2fs_has_feature_64bit(vol->fs->super))
		inl_store_le32(sb + SB_FREE_BLOCKS_HI, (uint32_t)(vol->alloc->n_free >> 32));
	inl_store_le32(sb + SB_FREE_INODES, vol->alloc->n_free_inodes);
	inl_super_csum(vol, sb);
	return 0;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

bool inl_group_has_csum(const struct inl_volume *vol)
{
	return vol->metadata_csum || ext2fs_has_feature_gdt_csum(vol->fs->super);
}

/* The CRC of uninit_bg: polynomial 0x8005, reflected. */
static uint16_t crc16(uint16_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
	}
	return crc;
}

static uint16_t desc_csum(const struct inl_volume *vol, uint32_t group, const uint8_t *desc)
{
	static const uint8_t zeros[2];
	uint32_t size = vol->alloc->desc_size;
	uint8_t le[4];

	inl_store_le32(le, group);
	if (vol->metadata_csum) {
		uint32_t crc = inl_crc32c(inl_crc32c(vol->csum_seed, le, sizeof(le)), desc, BG_CSUM);

		crc = inl_crc32c(crc, zeros, sizeof(zeros));
		return (uint16_t)inl_crc32c(crc, desc + BG_CSUM + 2, size - BG_CSUM - 2);
	} else {
		uint16_t crc = crc16(0xffff, vol->fs->super->s_uuid, sizeof(vol->fs->super->s_uuid));

		crc = crc16(crc16(crc, le, sizeof(le)), desc, BG_CSUM);
		return crc16(crc, desc + BG_CSUM + 2, size - BG_CSUM - 2);
	}
}

static unsigned hi_of(unsigned field)
{
	return field == BG_ITABLE_UNUSED ? BG_ITABLE_UNUSED_HI : field + BG_HI;
}

static uint32_t get(const struct inl_alloc *alloc, const uint8_t *desc, unsigned field)
{
	uint32_t value = inl_load_le16(desc + field);

	if (alloc->desc_size >= DESC_SIZE_WITH_HI)
		value |= (uint32_t)inl_load_le16(desc + hi_of(field)) << 16;
	return value;
}

static void set(const struct inl_alloc *alloc, uint8_t *desc, unsigned field, uint32_t value)
{
	inl_store_le16(desc + field, (uint16_t)value);
	if (alloc->desc_size >= DESC_SIZE_WITH_HI)
		inl_store_le16(desc + hi_of(field), (uint16_t)(value >> 16));
}

void inl_group_parse(const struct inl_alloc *alloc, const uint8_t *desc, struct inl_group *group)
{
	bool has_csum = inl_group_has_csum(alloc->vol);

	group->n_free_blocks = get(alloc, desc, BG_FREE_BLOCKS);
	group->n_free_inodes = get(alloc, desc, BG_FREE_INODES);
	group->n_dirs = get(alloc, desc, BG_USED_DIRS);
	group->n_unused_inodes = has_csum ? get(alloc, desc, BG_ITABLE_UNUSED) : 0;
	group->flags = has_csum ? inl_load_le16(desc + BG_FLAGS) : 0;
}

/* Where a descriptor lies. The volume has not meta_bg: such ones are only read. */
static void desc_place(const struct inl_alloc *alloc, uint32_t group, uint64_t *pblk, uint32_t *at)
{
	uint32_t per_block = alloc->vol->block_size / alloc->desc_size;

	*pblk = alloc->vol->first_block + 1 + group / per_block;
	*at = group % per_block * alloc->desc_size;
}

static int look_desc(struct inl_handle *op, uint32_t group, const uint8_t **desc)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc_group *known = &vol->alloc->groups[group];
	const uint8_t *bytes;
	uint64_t pblk;
	uint32_t at;
	int err;

	desc_place(vol->alloc, group, &pblk, &at);
	err = inl_block_look(op, pblk, &bytes);
	if (err)
		return err;
	bytes += at;
	if (!known->desc_good && inl_group_has_csum(vol) &&
	    desc_csum(vol, group, bytes) != inl_load_le16(bytes + BG_CSUM)) {
		known->blocks_bad = known->inodes_bad = true;
		return -EUCLEAN;
	}
	known->desc_good = true;
	*desc = bytes;
	return 0;
}

static int change_desc(struct inl_handle *op, uint32_t group, uint8_t **desc)
{
	uint8_t *bytes;
	uint64_t pblk;
	uint32_t at;
	int err;

	desc_place(inl_op_vol(op)->alloc, group, &pblk, &at);
	err = inl_block_change(op, pblk, &bytes);
	if (!err)
		*desc = bytes + at;
	return err;
}

int inl_group_look(struct inl_handle *op, uint32_t group, struct inl_group *out)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	const uint8_t *desc;
	int err = group < alloc->n_groups ? look_desc(op, group, &desc) : -EUCLEAN;

	if (!err)
		inl_group_parse(alloc, desc, out);
	return err;
}

static void seal(struct inl_volume *vol, uint32_t group, uint8_t *desc)
{
	if (inl_group_has_csum(vol))
		inl_store_le16(desc + BG_CSUM, desc_csum(vol, group, desc));
}

/* ---- checksums of bitmaps -------------------------------------------------------------------------------------- */

static uint32_t bitmap_csum(const struct inl_volume *vol, const uint8_t *bits, uint32_t n_bits)
{
	return inl_crc32c(vol->csum_seed, bits, n_bits / 8);
}

static bool bitmap_csum_good(const struct inl_volume *vol, const uint8_t *desc, unsigned field, const uint8_t *bits,
			     uint32_t n_bits)
{
	uint32_t csum;

	if (!vol->metadata_csum)
		return true;
	csum = bitmap_csum(vol, bits, n_bits);
	if (vol->alloc->desc_size < DESC_SIZE_WITH_HI)
		csum &= 0xffff;
	return csum == get(vol->alloc, desc, field);
}

static void bitmap_csum_set(const struct inl_volume *vol, uint8_t *desc, unsigned field, const uint8_t *bits,
			    uint32_t n_bits)
{
	if (vol->metadata_csum)
		set(vol->alloc, desc, field, bitmap_csum(vol, bits, n_bits));
}

/* ---- what is the file system's own ----------------------------------------------------------------------------- */

/* The copy of the superblock, the descriptors and what is kept free for more of them. */
static int add_super(struct inl_alloc *alloc, uint32_t group)
{
	ext2_filsys fs = alloc->vol->fs;
	uint64_t start = inl_group_start(alloc, group), n = 1ull + fs->desc_blocks + fs->super->s_reserved_gdt_blocks;

	if (!ext2fs_bg_has_super(fs, group))
		return 0;
	return inl_spans_add(&alloc->system, start, start + INL_MIN(n, inl_group_n_blocks(alloc, group)));
}

static bool add_table(struct inl_alloc *alloc, uint64_t start, uint64_t n, int *err)
{
	if (!inl_block_in_range(alloc->vol, start, n))
		return false;
	if (!*err)
		*err = inl_spans_add(&alloc->system, start, start + n);
	return true;
}

static int compare_spans(const void *a, const void *b)
{
	const struct inl_span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sort, and make one of those that touch. */
static void tidy(struct inl_spans *spans)
{
	size_t n = 0;

	qsort(spans->at, spans->n, sizeof(spans->at[0]), compare_spans);
	for (size_t i = 0; i < spans->n; i++) {
		struct inl_span *last = n ? &spans->at[n - 1] : NULL;

		if (last && spans->at[i].start <= last->end)
			last->end = spans->at[i].end > last->end ? spans->at[i].end : last->end;
		else
			spans->at[n++] = spans->at[i];
	}
	spans->n = n;
}

int inl_group_find_system(struct inl_alloc *alloc)
{
	ext2_filsys fs = alloc->vol->fs;
	int err = 0;

	/* One kind after the other: with flex_bg the tables of one kind lie side by side, and become one span. */
	for (uint32_t i = 0; i < alloc->n_groups && !err; i++)
		err = add_super(alloc, i);
	for (uint32_t i = 0; i < alloc->n_groups && !err; i++)
		alloc->groups[i].blocks_bad |= !add_table(alloc, ext2fs_block_bitmap_loc(fs, i), 1, &err);
	for (uint32_t i = 0; i < alloc->n_groups && !err; i++)
		alloc->groups[i].inodes_bad |= !add_table(alloc, ext2fs_inode_bitmap_loc(fs, i), 1, &err);
	for (uint32_t i = 0; i < alloc->n_groups && !err; i++)
		alloc->groups[i].inodes_bad |=
			!add_table(alloc, ext2fs_inode_table_loc(fs, i), fs->inode_blocks_per_group, &err);
	if (!err)
		tidy(&alloc->system);
	return err;
}

/* The part of a span that lies in a group. false: behind it. The span ends behind the group's start. */
static bool clip_to_group(const struct inl_alloc *alloc, uint32_t group, struct inl_span span, uint32_t *first,
			  uint32_t *n)
{
	uint64_t start = inl_group_start(alloc, group), end = start + inl_group_n_blocks(alloc, group);

	if (span.start >= end)
		return false;
	*first = span.start > start ? (uint32_t)(span.start - start) : 0;
	*n = (uint32_t)(INL_MIN(span.end, end) - start) - *first;
	return true;
}

/* Are the file system's own blocks marked in the bitmap of their group? */
static bool system_marked(const struct inl_alloc *alloc, uint32_t group, const uint8_t *bits)
{
	uint32_t first, n;

	for (size_t i = inl_spans_find(&alloc->system, inl_group_start(alloc, group));
	     i < alloc->system.n && clip_to_group(alloc, group, alloc->system.at[i], &first, &n); i++) {
		if (!inl_bits_all(bits, first, n, true))
			return false;
	}
	return true;
}

/* ---- bitmaps of blocks ----------------------------------------------------------------------------------------- */

/* The bitmap of a group that nothing has been allocated in: the file system's own, and what is behind the end. */
static void fresh_blocks(const struct inl_alloc *alloc, uint32_t group, uint8_t *bits)
{
	uint32_t n_blocks = inl_group_n_blocks(alloc, group), first, n;

	memset(bits, 0, alloc->vol->block_size);
	for (size_t i = inl_spans_find(&alloc->system, inl_group_start(alloc, group));
	     i < alloc->system.n && clip_to_group(alloc, group, alloc->system.at[i], &first, &n); i++)
		inl_bits_fill(bits, first, n, true);
	inl_bits_fill(bits, n_blocks, 8 * alloc->vol->block_size - n_blocks, true);
}

/* A bitmap, its checksum, what must be in it and the count of what is not. */
static bool blocks_good(struct inl_volume *vol, uint32_t group, const uint8_t *desc, const struct inl_group *is,
			const uint8_t *bits)
{
	struct inl_alloc *alloc = vol->alloc;

	if (!(is->flags & EXT4_BG_BLOCK_UNINIT) &&
	    (!bitmap_csum_good(vol, desc, BG_BLOCKS_CSUM, bits, alloc->blocks_per_group) ||
	     !system_marked(alloc, group, bits)))
		return false;
	return is->n_free_blocks == alloc->groups[group].n_free &&
	       is->n_free_blocks == inl_bits_n_clear(bits, inl_group_n_blocks(alloc, group));
}

int inl_group_look_blocks(struct inl_handle *op, uint32_t group, const uint8_t **bits)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc_group *known = &vol->alloc->groups[group];
	struct inl_group is;
	const uint8_t *desc;
	int err = known->blocks_bad ? -EUCLEAN : look_desc(op, group, &desc);

	if (err)
		return err;
	inl_group_parse(vol->alloc, desc, &is);
	if (is.flags & EXT4_BG_BLOCK_UNINIT) {
		fresh_blocks(vol->alloc, group, vol->alloc->scratch);
		*bits = vol->alloc->scratch;
	} else {
		err = inl_block_look(op, ext2fs_block_bitmap_loc(vol->fs, group), bits);
	}
	if (err || known->blocks_good)
		return err;
	if (!blocks_good(vol, group, desc, &is, *bits)) {
		known->blocks_bad = true;
		return -EUCLEAN;
	}
	known->blocks_good = true;
	return 0;
}

int inl_group_edit_blocks(struct inl_handle *op, uint32_t group, struct inl_group_edit *edit)
{
	struct inl_volume *vol = inl_op_vol(op);
	uint64_t bitmap = ext2fs_block_bitmap_loc(vol->fs, group);
	const uint8_t *bits;
	struct inl_group is;
	int err = inl_group_look_blocks(op, group, &bits);

	if (!err)
		err = change_desc(op, group, &edit->desc);
	if (err)
		return err;
	edit->group = group;
	inl_group_parse(vol->alloc, edit->desc, &is);
	if (!(is.flags & EXT4_BG_BLOCK_UNINIT))
		return inl_block_change(op, bitmap, &edit->bits);
	err = inl_block_new(op, bitmap, &edit->bits);
	if (err)
		return err;
	fresh_blocks(vol->alloc, group, edit->bits);
	inl_store_le16(edit->desc + BG_FLAGS, is.flags & ~EXT4_BG_BLOCK_UNINIT);
	return 0;
}

void inl_group_seal_blocks(struct inl_volume *vol, const struct inl_group_edit *edit, uint32_t n_free)
{
	set(vol->alloc, edit->desc, BG_FREE_BLOCKS, n_free);
	bitmap_csum_set(vol, edit->desc, BG_BLOCKS_CSUM, edit->bits, vol->alloc->blocks_per_group);
	seal(vol, edit->group, edit->desc);
}

/* ---- bitmaps of inodes ----------------------------------------------------------------------------------------- */

static void fresh_inodes(const struct inl_alloc *alloc, uint8_t *bits)
{
	memset(bits, 0, alloc->vol->block_size);
	inl_bits_fill(bits, alloc->inodes_per_group, 8 * alloc->vol->block_size - alloc->inodes_per_group, true);
}

static bool inodes_good(struct inl_volume *vol, uint32_t group, const uint8_t *desc, const struct inl_group *is,
			const uint8_t *bits)
{
	struct inl_alloc *alloc = vol->alloc;

	/* The first group has inodes that are always in use. */
	if (is->flags & EXT4_BG_INODE_UNINIT) {
		if (!group)
			return false;
	} else if (!bitmap_csum_good(vol, desc, BG_INODES_CSUM, bits, alloc->inodes_per_group)) {
		return false;
	}
	return is->n_free_inodes == alloc->groups[group].n_free_inodes &&
	       is->n_unused_inodes <= alloc->inodes_per_group &&
	       is->n_free_inodes == inl_bits_n_clear(bits, alloc->inodes_per_group);
}

int inl_group_look_inodes(struct inl_handle *op, uint32_t group, const uint8_t **bits)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc_group *known = &vol->alloc->groups[group];
	struct inl_group is;
	const uint8_t *desc;
	int err = known->inodes_bad ? -EUCLEAN : look_desc(op, group, &desc);

	if (err)
		return err;
	inl_group_parse(vol->alloc, desc, &is);
	if (is.flags & EXT4_BG_INODE_UNINIT) {
		fresh_inodes(vol->alloc, vol->alloc->scratch);
		*bits = vol->alloc->scratch;
	} else {
		err = inl_block_look(op, ext2fs_inode_bitmap_loc(vol->fs, group), bits);
	}
	if (err || known->inodes_good)
		return err;
	if (!inodes_good(vol, group, desc, &is, *bits)) {
		known->inodes_bad = true;
		return -EUCLEAN;
	}
	known->inodes_good = true;
	return 0;
}

int inl_group_edit_inodes(struct inl_handle *op, uint32_t group, struct inl_group_edit *edit)
{
	struct inl_volume *vol = inl_op_vol(op);
	uint64_t bitmap = ext2fs_inode_bitmap_loc(vol->fs, group);
	const uint8_t *bits;
	struct inl_group is;
	int err = inl_group_look_inodes(op, group, &bits);

	if (!err)
		err = change_desc(op, group, &edit->desc);
	if (err)
		return err;
	edit->group = group;
	inl_group_parse(vol->alloc, edit->desc, &is);
	if (!(is.flags & EXT4_BG_INODE_UNINIT))
		return inl_block_change(op, bitmap, &edit->bits);
	err = inl_block_new(op, bitmap, &edit->bits);
	if (err)
		return err;
	fresh_inodes(vol->alloc, edit->bits);
	inl_store_le16(edit->desc + BG_FLAGS, is.flags & ~EXT4_BG_INODE_UNINIT);
	/* None of the table has been used, whatever the descriptor says. */
	set(vol->alloc, edit->desc, BG_ITABLE_UNUSED, vol->alloc->inodes_per_group);
	return 0;
}

void inl_group_seal_inodes(struct inl_volume *vol, const struct inl_group_edit *edit, const struct inl_group *now)
{
	set(vol->alloc, edit->desc, BG_FREE_INODES, now->n_free_inodes);
	set(vol->alloc, edit->desc, BG_USED_DIRS, now->n_dirs);
	if (inl_group_has_csum(vol))
		set(vol->alloc, edit->desc, BG_ITABLE_UNUSED, now->n_unused_inodes);
	bitmap_csum_set(vol, edit->desc, BG_INODES_CSUM, edit->bits, vol->alloc->inodes_per_group);
	seal(vol, edit->group, edit->desc);
}
