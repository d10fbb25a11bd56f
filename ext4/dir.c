/*
 * ext4/dir.c: directories: iterate, look up (linear and by index), real and no-key names.
 * Not here: entries and index nodes as bytes (dirent.c, htree.c); encryption of names (fscrypt/).
 * Read more: inlay/volume.h, "directories". Names are bytes of a given length everywhere: a stored one may hold NUL and
 * '/'.
 */
#include "ext4/dirmod.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INLINE_DIR_MAX	 65536u

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

/*
 * Get a block of a directory. A hole is damage; *skip then says how many blocks it is long (else 1).
 */
static int dir_block(struct inl_inode *dir, uint64_t lblk, struct inl_block **block, uint64_t *skip,
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

/* ---- iterate ----------------------------------------------------------------------------------------------------- */

enum hash_source {
	HASH_NONE,   /* linear directory: no-key names carry 0, 0 */
	HASH_NAME,   /* of the stored name, by hash_version */
	HASH_STORED, /* beside the name */
};

struct inl_dir {
	struct inl_inode *inode;
	uint64_t lblk, n_blocks; /* next block to load */
	uint8_t *bytes;		 /* what is being iterated; NULL before the first block */
	size_t size, at, room;
	uint64_t base; /* of bytes in the directory */
	size_t resume; /* where to begin in the next block to load */
	bool inline_data;
	struct inl_dirent_format format;
	enum hash_source hash_source;
	uint8_t hash_version;
};

/* Linux iterates by hash, and shows hashes in no-key names, where it considers the directory indexed. */
static int choose_hash(struct inl_handle *op, void *arg)
{
	struct inl_dir *dir = arg;
	struct inl_inode *inode = dir->inode;
	struct ext2_super_block *sb = inode->vol->fs->super;
	struct inl_block *block;
	struct inl_dx_node root;
	uint64_t skip;
	int err;

	dir->hash_source = HASH_NONE;
	dir->hash_version = sb->s_def_hash_version;
	if (dir->format.hashes) {
		dir->hash_source = HASH_STORED;
		return 0;
	}
	if (!(sb->s_feature_compat & EXT4_COMPAT_DIR_INDEX))
		return 0;
	if (!(inode->raw.i_flags & EXT4_FL_INDEX)) {
		dir->hash_source = dir->n_blocks == 1 || inl_is_inline(inode) ? HASH_NAME : HASH_NONE;
		return 0;
	}
	dir->hash_source = HASH_NAME;
	err = dir_block(inode, 0, &block, &skip, NULL);
	if (err)
		return err == -EAGAIN ? err : 0;
	if (!inl_dx_root_parse(inl_block_bytes(block), inode->vol->block_size, inode->vol->metadata_csum,
			       ext2fs_has_feature_largedir(sb), &root))
		dir->hash_version = root.hash_version;
	inl_block_put(block);
	return 0;
}

int inl_dir_open(struct inl_inode *inode, struct inl_diag *diag, struct inl_dir **out)
{
	struct inl_dir *dir;
	size_t room = inl_is_inline(inode) ? INLINE_DIR_MAX : inode->vol->block_size;

	if (!S_ISDIR(inode->type))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	if (inode->encrypted && !inode->crypt)
		return inl_inode_unlock(inode, diag);
	dir = calloc(1, sizeof(*dir) + room);
	if (!dir)
		return -ENOMEM;
	atomic_fetch_add_explicit(&inode->refs, 1, memory_order_relaxed);
	dir->inode = inode;
	dir->bytes = (uint8_t *)(dir + 1);
	dir->room = room;
	dir->inline_data = inl_is_inline(inode);
	dir->n_blocks = (inode->size + inode->vol->block_size - 1) >> inode->vol->block_bits;
	dir->format = inl_dir_format(inode);
	inl_op_look(inode->vol, choose_hash, dir);
	*out = dir;
	return 0;
}

void inl_dir_close(struct inl_dir *dir)
{
	if (!dir)
		return;
	inl_inode_put(dir->inode);
	free(dir);
}

/*
 * An inline directory is the parent's number, then two areas of entries: what is left of i_block, and the attribute.
 * They are iterated as one: an entry never spans them, because the first area's last one ends there.
 */
static int load_inline(struct inl_dir *dir, size_t resume, struct inl_diag *diag)
{
	int err = inl_inline_read(dir->inode, dir->bytes, dir->room, &dir->size, diag);

	dir->inline_data = false;
	dir->n_blocks = 0;
	if (err)
		return err;
	if (dir->size > dir->inode->size)
		dir->size = dir->inode->size;
	dir->at = resume > 4 ? resume : 4;
	return 0;
}

struct load {
	struct inl_dir *dir;
	uint64_t skip;
	struct inl_diag *diag;
};

static int copy_block(struct inl_handle *op, void *arg)
{
	struct load *load = arg;
	struct inl_dir *dir = load->dir;
	struct inl_block *block;
	int err = dir_block(dir->inode, dir->lblk, &block, &load->skip, load->diag);

	if (err)
		return err;
	memcpy(dir->bytes, inl_block_bytes(block), dir->inode->vol->block_size);
	inl_block_put(block);
	return 0;
}

/* Returns 1 (a block is there), 0 (the end), or an error; the next call goes on behind. */
static int load_next(struct inl_dir *dir, struct inl_diag *diag)
{
	struct load load = { dir, 1, diag };
	size_t resume = dir->resume;
	int err;

	dir->size = dir->at = dir->resume = 0;
	dir->base = dir->lblk << dir->inode->vol->block_bits;
	if (dir->inline_data) {
		err = load_inline(dir, resume, diag);
		return err ? err : 1;
	}
	if (dir->lblk >= dir->n_blocks)
		return 0;
	err = inl_op_look(dir->inode->vol, copy_block, &load);
	dir->lblk += load.skip;
	if (err)
		return err;
	dir->size = dir->inode->vol->block_size;
	dir->at = resume;
	return 1;
}

uint64_t inl_dir_tell(const struct inl_dir *dir)
{
	uint64_t next = dir->lblk << dir->inode->vol->block_bits;

	if (inl_is_inline(dir->inode))
		return dir->inline_data ? dir->resume : dir->at;
	return dir->at < dir->size ? dir->base + dir->at : next + dir->resume;
}

void inl_dir_seek(struct inl_dir *dir, uint64_t pos)
{
	dir->size = dir->at = 0;
	dir->inline_data = inl_is_inline(dir->inode);
	dir->lblk = dir->inline_data ? 0 : pos >> dir->inode->vol->block_bits;
	dir->resume = dir->inline_data ? INL_MIN(pos, dir->room) : pos & (dir->inode->vol->block_size - 1);
}

static bool possible_name(const char *name, size_t len)
{
	return len && len <= INL_NAME_MAX && !memchr(name, '/', len) && !memchr(name, 0, len) &&
	       !inl_is_dots(name, len);
}

static int nokey_name(struct inl_dir *dir, const struct inl_raw_dirent *raw, struct inl_dirent *entry, size_t *len)
{
	uint32_t hash = raw->hash, minor = raw->minor;

	if (dir->hash_source == HASH_NAME &&
	    inl_dir_hash(dir->inode, dir->hash_version, raw->name, raw->len, &hash, &minor))
		hash = minor = 0;
	entry->nokey = true;
	return inl_nokey_encode(hash, minor, raw->name, raw->len, entry->name, len);
}

/* Make the name that is shown. What cannot be one is marked as damaged, with a name that is safe to print. */
static int show_name(struct inl_dir *dir, const struct inl_raw_dirent *raw, struct inl_dirent *entry,
		     struct inl_diag *diag)
{
	struct inl_crypt_info *crypt = dir->inode->crypt;
	size_t len = raw->len;
	int err = 0;

	entry->nokey = false;
	if (!crypt) {
		memcpy(entry->name, raw->name, len);
	} else {
		err = inl_crypt_info_unlock(crypt, diag);
		if (!err)
			err = inl_fname_decrypt(crypt, raw->name, raw->len, entry->name, &len);
		else if (err == -ENOKEY || err == -ENOPKG || err == -EINVAL)
			err = nokey_name(dir, raw, entry, &len);
		if (err && err != -EUCLEAN)
			return err;
	}
	entry->status = err || !possible_name(entry->name, len) || raw->ino > dir->inode->vol->fs->super->s_inodes_count ?
				-EUCLEAN :
				0;
	if (entry->status)
		len = (size_t)snprintf(entry->name, sizeof(entry->name), "(damaged entry of inode %u)", raw->ino);
	entry->len = (uint16_t)len;
	entry->name[len] = 0;
	return 0;
}

int inl_dir_next(struct inl_dir *dir, struct inl_dirent *entry, struct inl_diag *diag)
{
	struct inl_raw_dirent raw;
	int err;

	for (;;) {
		size_t next;

		while (dir->at >= dir->size) {
			err = load_next(dir, diag);
			if (err <= 0)
				return err;
		}
		if (inl_dirent_parse(&dir->format, dir->bytes, dir->size, dir->at, &raw, &next)) {
			dir->at = dir->size;
			return inl_diag_set(diag, -EUCLEAN, "directory %u is damaged: a bad entry before block %llu",
					    dir->inode->ino, (unsigned long long)dir->lblk);
		}
		dir->at = next;
		if (raw.ino && !inl_is_dots(raw.name, raw.len))
			break;
	}
	entry->ino = raw.ino;
	entry->type = raw.type;
	err = show_name(dir, &raw, entry, NULL);
	return err ? inl_diag_set(diag, err, "directory %u: a name cannot be decrypted", dir->inode->ino) : 1;
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
	int err = dir_block(dir, lblk, &block, skip, diag);

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
	uint8_t *bytes = malloc(INLINE_DIR_MAX);
	size_t len;
	int err;

	if (!bytes)
		return -ENOMEM;
	err = inl_inline_read(dir, bytes, INLINE_DIR_MAX, &len, diag);
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

/* The place in one level of the index. */
struct frame {
	struct inl_block *block;
	struct inl_dx_node node;
	unsigned at;
};

#define MAX_LEVELS 3

struct walk {
	struct inl_inode *dir;
	struct frame frames[MAX_LEVELS];
	unsigned n;
	uint32_t hash;
	uint64_t n_left; /* how many more leaves: in a sound index none is visited twice */
};

static int push(struct walk *walk, uint64_t lblk, bool leftmost)
{
	struct inl_volume *vol = walk->dir->vol;
	struct frame *frame = &walk->frames[walk->n];
	const uint8_t *bytes;
	uint64_t skip;
	int err = dir_block(walk->dir, lblk, &frame->block, &skip, NULL);

	if (err)
		return err;
	walk->n++;
	bytes = inl_block_bytes(frame->block);
	if (walk->n == 1)
		err = inl_dx_root_parse(bytes, vol->block_size, vol->metadata_csum,
					ext2fs_has_feature_largedir(vol->fs->super), &frame->node);
	else
		err = inl_dx_node_parse(bytes, vol->block_size, vol->metadata_csum, &frame->node);
	if (!err)
		frame->at = leftmost ? 0 : inl_dx_search(&frame->node, walk->hash);
	return err;
}

static void walk_done(struct walk *walk)
{
	while (walk->n)
		inl_block_put(walk->frames[--walk->n].block);
}

static uint32_t frame_child(const struct frame *frame)
{
	return inl_dx_entry(&frame->node, frame->at).block;
}

/* Down to the level above the leaves. */
static int descend(struct walk *walk, bool leftmost)
{
	int err = 0;

	while (!err && walk->n <= walk->frames[0].node.levels)
		err = push(walk, frame_child(&walk->frames[walk->n - 1]), leftmost);
	return err;
}

/*
 * On to the next leaf, if it may hold the same hash: a set low bit of its hash says that it continues the one before.
 * Returns 1, 0 (no), or an error.
 */
static int next_leaf(struct walk *walk)
{
	struct frame *frame;
	int err;

	while (walk->n) {
		frame = &walk->frames[walk->n - 1];
		if (frame->at + 1 < frame->node.count)
			break;
		inl_block_put(walk->frames[--walk->n].block);
	}
	if (!walk->n)
		return 0;
	frame->at++;
	if (inl_dx_entry(&frame->node, frame->at).hash != (walk->hash | 1))
		return 0;
	if (!walk->n_left--)
		return -EUCLEAN;
	err = descend(walk, true);
	return err ? err : 1;
}

/* Returns 1, 0, or an error: then the index is of no use. */
static int search_index(struct inl_inode *dir, const struct wanted *wanted, uint64_t *ino)
{
	struct walk walk = { .dir = dir, .n_left = dir->size >> dir->vol->block_bits };
	const uint8_t *stored = wanted->is_nokey ? wanted->nokey.bytes : wanted->stored;
	size_t len = wanted->is_nokey ? wanted->nokey.len : wanted->len;
	uint32_t minor;
	uint64_t skip;
	int err = push(&walk, 0, true);

	/* The hash within a no-key name counts only where the stored name is not all there. */
	if (!err && wanted->is_nokey && wanted->nokey.truncated)
		walk.hash = wanted->nokey.hash;
	else if (!err)
		err = inl_dir_hash(dir, walk.frames[0].node.hash_version, stored, len, &walk.hash, &minor);
	if (!err) {
		walk.frames[0].at = inl_dx_search(&walk.frames[0].node, walk.hash);
		err = descend(&walk, false);
	}
	while (!err) {
		err = search_block(dir, frame_child(&walk.frames[walk.n - 1]), wanted, ino, &skip, NULL);
		if (err)
			break;
		err = next_leaf(&walk);
		if (err <= 0)
			break;
		err = 0;
	}
	walk_done(&walk);
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
