/*
 * ext4/dir.c: directories: their blocks and hashes; looking a name up (linear and by index), a real or a no-key one.
 * Not here: iterating (readdir.c); the index (dxwalk.c); entries as bytes (dirent.c); encryption of names (fscrypt/).
 * Read more: inlay/volume.h, "directories". Names are bytes of a given length everywhere: a stored one may hold NUL and
 * '/'.
 */
#include "ext4/dirmod.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- what all of it needs ---------------------------------------------------------------------------------------- */

struct inl_dirent_format inl_dir_format(const struct inl_inode *dir)
{
	return (struct inl_dirent_format){
		.block_size = dir->vol->block_size,
		.filetype = ext2fs_has_feature_filetype(dir->vol->fs->super),
		.hashes = dir->encrypted && (dir->lasting & EXT4_FL_CASEFOLD),
	};
}

int inl_dir_hash(struct inl_inode *dir, uint8_t version, const uint8_t *name, size_t len, uint32_t *hash,
		 uint32_t *minor)
{
	struct ext2_super_block *sb = dir->vol->fs->super;
	ext2_dirhash_t major, low;

	if (version > EXT2_HASH_TEA)
		return -EOPNOTSUPP;
	if (sb->s_flags & EXT2_FLAGS_UNSIGNED_HASH)
		version += 3;
	if (ext2fs_dirhash2(version, (const char *)name, (int)len, NULL, 0, sb->s_hash_seed, &major, &low))
		return -EOPNOTSUPP;
	/* The largest value stands for the end of a directory. libext2fs 1.47.0 leaves it as it is. */
	if (major == 0xfffffffe)
		major = 0xfffffffc;
	*hash = major;
	*minor = low;
	return 0;
}

/* Where the index of a dx block starts; 0: a leaf. */
static unsigned dx_offset(const struct inl_inode *dir, const uint8_t *block)
{
	uint32_t size = dir->vol->block_size;
	uint16_t whole = size == 65536 ? 0 : (uint16_t)size, rest = (uint16_t)(size - 12);

	if (!(dir->raw.i_flags & EXT4_FL_INDEX))
		return 0;
	if (inl_load_le16(block + 4) == whole || (size == 65536 && inl_load_le16(block + 4) == 65535))
		return 8;
	if (inl_load_le16(block + 4) == 12 && inl_load_le16(block + 16) == rest && inl_load_le32(block + 24) == 0 &&
	    block[29] == 8)
		return 32;
	return 0;
}

static bool dx_checksum_good(const struct inl_inode *dir, const uint8_t *block, unsigned offset)
{
	static const uint8_t zero[4];
	size_t limit = inl_load_le16(block + offset), count = inl_load_le16(block + offset + 2);
	size_t tail = offset + limit * 8;
	uint32_t crc;

	if (count > limit || tail + 8 > dir->vol->block_size)
		return false;
	crc = inl_crc32c(dir->csum_seed, block, offset + count * 8);
	crc = inl_crc32c(crc, block + tail, 4);
	return inl_crc32c(crc, zero, 4) == inl_load_le32(block + tail + 4);
}

static bool leaf_checksum_good(const struct inl_inode *dir, const uint8_t *block)
{
	const uint8_t *tail = block + dir->vol->block_size - 12;

	if (inl_load_le32(tail) != 0 || inl_load_le16(tail + 4) != 12 || tail[6] != 0 || tail[7] != 0xde)
		return false;
	return inl_crc32c(dir->csum_seed, block, dir->vol->block_size - 12) == inl_load_le32(tail + 8);
}

int inl_dir_block_verify(struct inl_inode *dir, const uint8_t *block, unsigned arg)
{
	unsigned offset = dx_offset(dir, block);

	if (!dir->vol->metadata_csum)
		return 0;
	return (offset ? dx_checksum_good(dir, block, offset) : leaf_checksum_good(dir, block)) ? 0 : -EUCLEAN;
}

int inl_dir_block_get(struct inl_inode *dir, uint64_t lblk, struct inl_block **block, uint64_t *skip,
		      struct inl_diag *diag)
{
	struct inl_run run;
	int err = inl_map(dir, lblk, &run, diag);

	*skip = 1;
	if (err)
		return err;
	if (run.kind != INL_EXTENT_DATA) {
		*skip = run.lblk + run.len - lblk;
		return inl_diag_set(diag, -EUCLEAN, "directory %u is damaged: a hole at block %llu", dir->ino,
				    (unsigned long long)lblk);
	}
	err = inl_block_get_verified(dir, run.pblk + (lblk - run.lblk), inl_dir_block_verify, 0, block);
	if (err == -EUCLEAN)
		return inl_diag_set(diag, err, "directory %u is damaged: wrong checksum of block %llu", dir->ino,
				    (unsigned long long)lblk);
	return err ? inl_diag_set(diag, err, "directory %u: block %llu cannot be read", dir->ino,
				  (unsigned long long)lblk) :
		     0;
}

/* ---- look up ----------------------------------------------------------------------------------------------------- */

/* What is looked for: a stored name, or a no-key name. */
struct wanted {
	uint8_t stored[INL_FNAME_MAX];
	size_t len;
	bool is_nokey;
	struct inl_nokey nokey;
	uint8_t *found; /* for the name as it is stored, INL_NAME_MAX bytes; may be NULL */
	size_t *found_len;
};

static bool matches(const struct wanted *wanted, const struct inl_raw_dirent *entry)
{
	if (!entry->ino)
		return false;
	if (wanted->is_nokey)
		return !inl_is_dots(entry->name, entry->len) && inl_nokey_match(&wanted->nokey, entry->name, entry->len);
	return entry->len == wanted->len && !memcmp(entry->name, wanted->stored, wanted->len);
}

/* Returns 1 (found), 0, or -EUCLEAN. */
static int search_bytes(const struct inl_dirent_format *format, const uint8_t *bytes, size_t size, size_t at,
			const struct wanted *wanted, uint64_t *ino)
{
	struct inl_raw_dirent entry;

	while (at < size) {
		if (inl_dirent_parse(format, bytes, size, at, &entry, &at))
			return -EUCLEAN;
		if (matches(wanted, &entry)) {
			*ino = entry.ino;
			if (wanted->found) {
				memcpy(wanted->found, entry.name, entry.len);
				*wanted->found_len = entry.len;
			}
			return 1;
		}
	}
	return 0;
}

static int search_block(struct inl_inode *dir, uint64_t lblk, const struct wanted *wanted, uint64_t *ino, uint64_t *skip,
			struct inl_diag *diag)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	struct inl_block *block;
	int err = inl_dir_block_get(dir, lblk, &block, skip, diag);

	if (err)
		return err;
	err = search_bytes(&format, inl_block_bytes(block), dir->vol->block_size, 0, wanted, ino);
	inl_block_put(block);
	if (err == -EUCLEAN)
		return inl_diag_set(diag, err, "directory %u is damaged: a bad entry in block %llu", dir->ino,
				    (unsigned long long)lblk);
	return err;
}

static int search_inline(struct inl_inode *dir, const struct wanted *wanted, uint64_t *ino, struct inl_diag *diag)
{
	struct inl_dirent_format format = inl_dir_format(dir);
	uint8_t *bytes = malloc(INL_INLINE_DIR_MAX);
	size_t len;
	int err;

	if (!bytes)
		return -ENOMEM;
	err = inl_inline_read(dir, bytes, INL_INLINE_DIR_MAX, &len, diag);
	if (!err)
		err = search_bytes(&format, bytes, len < dir->size ? len : dir->size, 4, wanted, ino);
	free(bytes);
	return err;
}

/* Every block. A damaged one does not hide what the others hold, but "not found" is then not said. */
static int search_linear(struct inl_inode *dir, const struct wanted *wanted, uint64_t *ino, struct inl_diag *diag)
{
	uint64_t n_blocks = (dir->size + dir->vol->block_size - 1) >> dir->vol->block_bits, skip = 1;
	struct inl_diag local = { 0 };
	int damage = 0;

	for (uint64_t lblk = 0; lblk < n_blocks; lblk += skip) {
		int found = search_block(dir, lblk, wanted, ino, &skip, &local);

		if (found > 0 || found == -EAGAIN)
			return found;
		damage = damage ? damage : found;
	}
	return damage ? inl_diag_set(diag, damage, "%s", local.text) : 0;
}

/* On to the next leaf, if it may hold the same hash: 1; 0; an error. */
static int next_leaf(struct inl_dx_walk *walk, uint32_t hash)
{
	uint32_t next;
	int err;

	if (!inl_dx_walk_to(walk, &next) || next != (hash | 1))
		return 0;
	err = inl_dx_walk_next(walk);
	return err ? err : 1;
}

/* Returns 1, 0, or an error: then the index is of no use. */
static int search_index(struct inl_inode *dir, const struct wanted *wanted, uint64_t *ino)
{
	const uint8_t *stored = wanted->is_nokey ? wanted->nokey.bytes : wanted->stored;
	size_t len = wanted->is_nokey ? wanted->nokey.len : wanted->len;
	struct inl_dx_walk walk;
	uint32_t hash = 0, minor;
	uint64_t skip;
	int err = inl_dx_walk_begin(&walk, dir);

	/* The hash within a no-key name counts only where the stored name is not all there. */
	if (!err && wanted->is_nokey && wanted->nokey.truncated)
		hash = wanted->nokey.hash;
	else if (!err)
		err = inl_dir_hash(dir, walk.steps[0].node.hash_version, stored, len, &hash, &minor);
	if (!err)
		err = inl_dx_walk_find(&walk, hash);
	while (!err) {
		err = search_block(dir, inl_dx_walk_leaf(&walk), wanted, ino, &skip, NULL);
		if (err)
			break;
		err = next_leaf(&walk, hash);
		if (err <= 0)
			break;
		err = 0;
	}
	inl_dx_walk_done(&walk);
	return err;
}

int inl_dir_stored_name(struct inl_inode *dir, const char *name, size_t len, uint8_t *stored, size_t *stored_len,
			struct inl_diag *diag)
{
	struct inl_crypt_info *crypt;
	int err;

	if (!dir->encrypted) {
		memcpy(stored, name, len);
		*stored_len = len;
		return 0;
	}
	err = inl_inode_unlock(dir, diag);
	if (err)
		return err;
	crypt = dir->crypt;
	if (!inl_fname_stored_len(inl_crypt_info_policy(crypt), len, INL_FNAME_MAX, stored_len))
		return -ENAMETOOLONG;
	return inl_fname_encrypt(crypt, name, len, *stored_len, stored);
}

/* Turn the name asked for into what is stored. */
static int want(struct inl_inode *dir, const char *name, size_t len, struct wanted *wanted, struct inl_diag *diag)
{
	struct inl_diag locked = { 0 };
	int err;

	memset(wanted, 0, sizeof(*wanted));
	err = inl_dir_stored_name(dir, name, len, wanted->stored, &wanted->len, &locked);
	if (!err)
		return 0;
	if (err != -ENOKEY && err != -ENOPKG && err != -EINVAL)
		return err;
	wanted->is_nokey = true;
	if (!inl_nokey_decode(name, len, &wanted->nokey))
		return 0;
	return inl_diag_set(diag, err, "%s", locked.text[0] ? locked.text : "the directory is locked");
}

struct lookup {
	struct inl_inode *dir;
	const struct wanted *wanted;
	uint64_t *ino;
	struct inl_diag *diag;
};

static int search(struct inl_handle *op, void *arg)
{
	struct lookup *lookup = arg;
	struct inl_inode *dir = lookup->dir;
	int found = -EUCLEAN;

	if (inl_is_inline(dir)) {
		found = search_inline(dir, lookup->wanted, lookup->ino, lookup->diag);
	} else {
		if ((dir->raw.i_flags & EXT4_FL_INDEX) && !(dir->lasting & EXT4_FL_CASEFOLD))
			found = search_index(dir, lookup->wanted, lookup->ino);
		if (found < 0 && found != -EAGAIN)
			found = search_linear(dir, lookup->wanted, lookup->ino, lookup->diag);
	}
	return found > 0 ? 0 : found < 0 ? found : -ENOENT;
}

int inl_dir_resolve(struct inl_inode *dir, const char *name, size_t len, uint8_t *stored, size_t *stored_len, uint64_t *ino,
		    struct inl_diag *diag)
{
	struct wanted wanted;
	struct lookup lookup = { dir, &wanted, ino, diag };
	int err;

	if (!S_ISDIR(dir->type))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	if (dir->encrypted && !dir->crypt)
		return inl_inode_unlock(dir, diag);
	if (len > INL_NAME_MAX)
		return -ENAMETOOLONG;
	if (!len || memchr(name, '/', len) || memchr(name, 0, len))
		return -ENOENT;
	err = want(dir, name, len, &wanted, diag);
	if (err)
		return err;
	wanted.found = stored;
	wanted.found_len = stored_len;
	return inl_op_look(dir->vol, search, &lookup);
}

/* As Linux: what cannot be opened without a look at its directory. */
static int check_found(struct inl_inode *dir, uint64_t ino, struct inl_diag *diag)
{
	struct inl_inode *inode;
	int err = 0;

	if (inl_inode_get(dir->vol, ino, NULL, &inode))
		return 0; /* whoever asks for it will see why */
	if (!S_ISREG(inode->type))
		err = inl_crypt_check_child(dir, inode, diag);
	inl_inode_put(inode);
	return err;
}

int inl_lookup(struct inl_inode *dir, const char *name, size_t len, uint64_t *ino, struct inl_diag *diag)
{
	int err = inl_dir_resolve(dir, name, len, NULL, NULL, ino, diag);

	return !err && dir->encrypted && dir->vol->txn ? check_found(dir, *ino, diag) : err;
}
