/*
 * ext4/dirmod.c: changing directories: adding, removing and replacing entries.
 * Not here: the index (dxmod.c); looking up by a name that somebody typed (dir.c).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst. Names are as stored: bytes, which may be NUL and '/'.
 */
#include "ext4/dirmod.h"
#include "base/crc.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>

#define LEAF_TAIL 12u
#define TAIL_TYPE 0xdeu

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

int inl_dir_look(struct inl_handle *op, struct inl_inode *dir, uint64_t lblk, struct inl_dir_block *block)
{
	struct inl_run run;
	int err = inl_map(dir, lblk, &run, NULL);

	if (err)
		return err;
	if (run.kind != INL_EXTENT_DATA)
		return -EUCLEAN;
	block->lblk = lblk;
	block->pblk = run.pblk + (lblk - run.lblk);
	return inl_block_look_verified(op, dir, block->pblk, inl_dir_block_verify, 0, &block->bytes);
}

static uint64_t n_blocks(const struct inl_inode *dir)
{
	return (dir->size + dir->vol->block_size - 1) >> dir->vol->block_bits;
}

int inl_dir_append(struct inl_handle *op, struct inl_inode *dir, struct inl_dir_block *block, uint8_t **bytes)
{
	struct inl_volume *vol = dir->vol;
	uint64_t lblk = n_blocks(dir), size = (lblk + 1) << vol->block_bits;
	uint64_t max =
		ext2fs_has_feature_largedir(vol->fs->super) ? (uint64_t)INL_DX_MAX_LBLK << vol->block_bits : UINT32_MAX;
	int err;

	if (size > max)
		return -ENOSPC;
	err = inl_inode_modify(op, dir);
	if (!err)
		err = inl_block_alloc(op, inl_inode_goal(op, dir, lblk), &block->pblk);
	if (!err)
		err = inl_map_insert(op, dir, lblk, 1, block->pblk, false);
	if (!err)
		err = inl_block_new(op, block->pblk, bytes);
	if (err)
		return err;
	inl_inode_set_size(dir, size);
	block->lblk = lblk;
	block->bytes = *bytes;
	return 0;
}

uint32_t inl_dir_leaf_size(const struct inl_inode *dir)
{
	return dir->vol->block_size - (dir->vol->metadata_csum ? LEAF_TAIL : 0);
}

void inl_dir_leaf_init(const struct inl_inode *dir, uint8_t *bytes)
{
	uint8_t *tail = bytes + dir->vol->block_size - LEAF_TAIL;

	if (!dir->vol->metadata_csum)
		return;
	memset(tail, 0, LEAF_TAIL);
	inl_store_le16(tail + 4, LEAF_TAIL);
	tail[7] = TAIL_TYPE;
}

void inl_dir_leaf_seal(const struct inl_inode *dir, uint8_t *bytes)
{
	uint32_t size = dir->vol->block_size - LEAF_TAIL;

	if (dir->vol->metadata_csum)
		inl_store_le32(bytes + size + 8, inl_crc32c(dir->csum_seed, bytes, size));
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

/* Blocks of 64 KiB: the high bits of the length go where its low two bits, which are zero, would be. */
void inl_dirent_set_rec_len(uint8_t *entry, uint32_t rec_len, uint32_t block_size)
{
	if (block_size < 65536)
		inl_store_le16(entry + 4, (uint16_t)rec_len);
	else if (rec_len == 65536)
		inl_store_le16(entry + 4, 65535);
	else
		inl_store_le16(entry + 4, (uint16_t)((rec_len & 65532u) | (rec_len >> 16 & 3u)));
}

static uint8_t encode_type(const struct inl_inode *dir, uint8_t type)
{
	static const uint8_t codes[] = {
		[DT_REG] = 1, [DT_DIR] = 2, [DT_CHR] = 3, [DT_BLK] = 4, [DT_FIFO] = 5, [DT_SOCK] = 6, [DT_LNK] = 7
	};

	return ext2fs_has_feature_filetype(dir->vol->fs->super) && type < sizeof(codes) ? codes[type] : 0;
}

static void put_entry(const struct inl_inode *dir, uint8_t *at, uint32_t rec_len, const struct inl_new_dirent *entry)
{
	memset(at, 0, inl_dirent_need(entry->len));
	inl_store_le32(at, entry->ino);
	inl_dirent_set_rec_len(at, rec_len, dir->vol->block_size);
	at[6] = (uint8_t)entry->len;
	at[7] = encode_type(dir, entry->type);
	memcpy(at + 8, entry->name, entry->len);
}

/* Of a leaf: the first entry with room behind it. 0; -ENOSPC; -EUCLEAN. */
static int find_room(const struct inl_inode *dir, const uint8_t *bytes, uint32_t need, struct inl_raw_dirent *entry,
		     size_t *at)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	size_t size = inl_dir_leaf_size(dir), next = 0;

	do {
		*at = next;
		if (inl_dirent_parse(&format, bytes, size, *at, entry, &next))
			return -EUCLEAN;
		if (entry->rec_len >= need + (entry->ino ? inl_dirent_need(entry->len) : 0))
			return 0;
	} while (next < size);
	return -ENOSPC;
}

int inl_dir_leaf_add(struct inl_handle *op, struct inl_inode *dir, const struct inl_dir_block *block,
		     const struct inl_new_dirent *entry)
{
	struct inl_raw_dirent old;
	uint32_t used, rec_len;
	uint8_t *bytes;
	size_t at;
	int err = find_room(dir, block->bytes, inl_dirent_need(entry->len), &old, &at);

	if (!err)
		err = inl_block_change(op, block->pblk, &bytes);
	if (err)
		return err;
	used = old.ino ? inl_dirent_need(old.len) : 0;
	rec_len = old.rec_len;
	if (used)
		inl_dirent_set_rec_len(bytes + at, used, dir->vol->block_size);
	put_entry(dir, bytes + at + used, rec_len - used, entry);
	inl_dir_leaf_seal(dir, bytes);
	return 0;
}

/* ---- find -------------------------------------------------------------------------------------------------------- */

/* Where an entry is. */
struct place {
	struct inl_dir_block block;
	struct inl_raw_dirent entry;
	size_t at, before; /* bytes; before: where the entry in front of it is, or at: there is none */
};

/* 0; -ENOENT (not in this block); -EUCLEAN. */
static int find_in_block(struct inl_handle *op, struct inl_inode *dir, uint64_t lblk, const uint8_t *name, size_t len,
			 struct place *place)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	size_t next = 0, before = 0;
	int err = inl_dir_look(op, dir, lblk, &place->block);

	if (err)
		return err;
	while (next < dir->vol->block_size) {
		place->before = before;
		place->at = before = next;
		if (inl_dirent_parse(&format, place->block.bytes, dir->vol->block_size, place->at, &place->entry,
				     &next))
			return -EUCLEAN;
		if (place->entry.ino && place->entry.len == len && !memcmp(place->entry.name, name, len))
			return 0;
	}
	return -ENOENT;
}

static int find_linear(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len,
		       struct place *place)
{
	uint64_t n = n_blocks(dir);
	int err = -ENOENT;

	for (uint64_t lblk = 0; lblk < n && err == -ENOENT; lblk++)
		err = find_in_block(op, dir, lblk, name, len, place);
	return err;
}

static int find_indexed(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len,
			struct place *place)
{
	struct inl_dx_path path;
	int err = inl_dx_path_find(op, dir, name, len, &path);

	if (err)
		return err;
	for (;;) {
		err = find_in_block(op, dir, path.leaf, name, len, place);
		if (err != -ENOENT)
			return err;
		err = inl_dx_path_next(op, dir, &path);
		if (err <= 0)
			return err ? err : -ENOENT;
	}
}

static int check_dir(const struct inl_inode *dir, size_t len)
{
	if (inl_is_inline(dir) || (dir->lasting & EXT4_FL_CASEFOLD))
		return -EOPNOTSUPP;
	return len && len <= INL_NAME_MAX ? 0 : -EINVAL;
}

static int find(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, struct place *place)
{
	int err = check_dir(dir, len);

	if (err)
		return err;
	if (inl_is_dots(name, len))
		return find_in_block(op, dir, 0, name, len, place);
	if (dir->raw.i_flags & EXT4_FL_INDEX) {
		err = find_indexed(op, dir, name, len, place);
		/* An index that is of no use: every block is looked at. */
		if (err != -EUCLEAN && err != -EOPNOTSUPP)
			return err;
	}
	return find_linear(op, dir, name, len, place);
}

int inl_dir_find(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t *ino,
		 uint8_t *type)
{
	struct place place;
	int err = find(op, dir, name, len, &place);

	if (err)
		return err;
	*ino = place.entry.ino;
	if (type)
		*type = place.entry.type;
	return 0;
}

int inl_dir_parent(struct inl_handle *op, struct inl_inode *dir, uint32_t *ino)
{
	int err = inl_dir_find(op, dir, (const uint8_t *)"..", 2, ino, NULL);

	return err == -ENOENT ? -EUCLEAN : err;
}

static int block_empty(struct inl_handle *op, struct inl_inode *dir, uint64_t lblk)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	struct inl_raw_dirent entry;
	struct inl_dir_block block;
	int err = inl_dir_look(op, dir, lblk, &block);

	for (size_t at = 0; !err && at < dir->vol->block_size;) {
		err = inl_dirent_parse(&format, block.bytes, dir->vol->block_size, at, &entry, &at);
		if (!err && entry.ino && !inl_is_dots(entry.name, entry.len))
			err = -ENOTEMPTY;
	}
	return err;
}

int inl_dir_empty(struct inl_handle *op, struct inl_inode *dir)
{
	uint64_t n = n_blocks(dir);
	int err = check_dir(dir, 1);

	for (uint64_t lblk = 0; lblk < n && !err; lblk++)
		err = block_empty(op, dir, lblk);
	return err;
}

/* ---- add --------------------------------------------------------------------------------------------------------- */

/* A new block for one entry. */
static int append_entry(struct inl_handle *op, struct inl_inode *dir, const struct inl_new_dirent *entry)
{
	struct inl_dir_block block;
	uint8_t *bytes;
	int err = inl_dir_append(op, dir, &block, &bytes);

	if (err)
		return err;
	inl_dir_leaf_init(dir, bytes);
	put_entry(dir, bytes, inl_dir_leaf_size(dir), entry);
	inl_dir_leaf_seal(dir, bytes);
	dir->add_hint = block.lblk;
	return 0;
}

static bool wants_index(const struct inl_inode *dir)
{
	const struct ext2_super_block *sb = dir->vol->fs->super;

	return (sb->s_feature_compat & EXT4_COMPAT_DIR_INDEX) && sb->s_def_hash_version <= EXT2_HASH_TEA &&
	       n_blocks(dir) == 1;
}

/* Where room was found last is where the search begins; removals bring it back. */
static int add_linear(struct inl_handle *op, struct inl_inode *dir, const struct inl_new_dirent *entry, bool may_index)
{
	uint64_t n = n_blocks(dir);
	struct inl_dx_path path;
	int err = -ENOSPC;

	for (uint64_t lblk = INL_MIN(dir->add_hint, n - 1); lblk < n && err == -ENOSPC; lblk++) {
		struct inl_dir_block block;

		err = inl_dir_look(op, dir, lblk, &block);
		if (!err)
			err = inl_dir_leaf_add(op, dir, &block, entry);
		if (!err)
			dir->add_hint = lblk;
	}
	if (err != -ENOSPC)
		return err;
	if (!may_index || !wants_index(dir))
		return append_entry(op, dir, entry);
	err = inl_dx_make(op, dir);
	if (!err)
		err = inl_dx_path_find(op, dir, entry->name, entry->len, &path);
	return err ? err : inl_dx_add(op, dir, &path, entry);
}

int inl_dir_add(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t ino,
		uint8_t type)
{
	struct inl_new_dirent entry = { name, len, ino, type };
	bool indexed = dir->raw.i_flags & EXT4_FL_INDEX;
	struct inl_dx_path path;
	int err = check_dir(dir, len);

	if (!err && !n_blocks(dir))
		err = -EUCLEAN;
	if (!err)
		err = inl_inode_modify(op, dir);
	if (err)
		return err;
	if (!indexed)
		return add_linear(op, dir, &entry, true);
	err = inl_dx_path_find(op, dir, name, len, &path);
	if (!err)
		return inl_dx_add(op, dir, &path, &entry);
	if ((err != -EUCLEAN && err != -EOPNOTSUPP) || dir->vol->metadata_csum)
		return err;
	/* As Linux: what has no checksums may have an index that is of no use. Its blocks look empty without it. */
	dir->raw.i_flags &= ~(uint32_t)EXT4_FL_INDEX;
	return add_linear(op, dir, &entry, false);
}

/* ---- remove, replace --------------------------------------------------------------------------------------------- */

int inl_dir_remove(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len)
{
	uint32_t block_size = dir->vol->block_size;
	struct place place;
	uint8_t *bytes, *entry;
	int err = find(op, dir, name, len, &place);

	if (!err)
		err = inl_block_change(op, place.block.pblk, &bytes);
	if (err)
		return err;
	entry = bytes + place.at;
	if (place.before == place.at) {
		/* The first of its block stays, unused. */
		memset(entry, 0, 4);
		memset(entry + 6, 0, inl_dirent_need(len) - 6);
	} else {
		uint32_t before = (uint32_t)(place.at - place.before);

		memset(entry, 0, inl_dirent_need(len));
		inl_dirent_set_rec_len(bytes + place.before, before + place.entry.rec_len, block_size);
	}
	inl_dir_leaf_seal(dir, bytes);
	if (place.block.lblk < dir->add_hint)
		dir->add_hint = place.block.lblk;
	return 0;
}

/* Block 0 of an indexed directory has its checksum elsewhere. -EUCLEAN: it is no root. */
static int seal_any(const struct inl_inode *dir, const struct place *place, uint8_t *bytes)
{
	const struct inl_volume *vol = dir->vol;
	struct inl_dx_node root;

	if (place->block.lblk || !(dir->raw.i_flags & EXT4_FL_INDEX)) {
		inl_dir_leaf_seal(dir, bytes);
		return 0;
	}
	if (vol->metadata_csum &&
	    inl_dx_root_parse(bytes, vol->block_size, true, ext2fs_has_feature_largedir(vol->fs->super), &root))
		return -EUCLEAN;
	inl_dx_root_seal(dir, bytes);
	return 0;
}

int inl_dir_replace(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t ino,
		    uint8_t type)
{
	struct place place;
	uint8_t *bytes;
	int err = find(op, dir, name, len, &place);

	if (!err)
		err = inl_block_change(op, place.block.pblk, &bytes);
	if (err)
		return err;
	inl_store_le32(bytes + place.at, ino);
	bytes[place.at + 7] = encode_type(dir, type);
	return seal_any(dir, &place, bytes);
}

/* ---- new directories --------------------------------------------------------------------------------------------- */

int inl_dir_init(struct inl_handle *op, struct inl_inode *dir, uint32_t parent)
{
	struct inl_new_dirent dot = { (const uint8_t *)".", 1, dir->ino, DT_DIR };
	struct inl_new_dirent dots = { (const uint8_t *)"..", 2, parent, DT_DIR };
	struct inl_dir_block block;
	uint8_t *bytes;
	int err = inl_dir_append(op, dir, &block, &bytes);

	if (err)
		return err;
	inl_dir_leaf_init(dir, bytes);
	put_entry(dir, bytes, 12, &dot);
	put_entry(dir, bytes + 12, inl_dir_leaf_size(dir) - 12, &dots);
	inl_dir_leaf_seal(dir, bytes);
	return 0;
}

unsigned inl_dir_credits(const struct inl_inode *dir)
{
	/* The leaf and its other half; a node and its other half per level; what allocation changes; the inode. */
	return 2 + 2 * INL_DX_LEVELS + 2 * (INL_DX_LEVELS + 1) + 2 * inl_map_credits(dir) + 1;
}
