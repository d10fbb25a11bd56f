/*
 * ext4/inode.c: inodes: load, describe.
 * Not here: what they contain (data.c, dir.c, symlink.c, xattr.c).
 * Read more: Linux Documentation/filesystems/ext4/inodes.rst.
 */
#include "ext4/change.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool inl_is_inline(const struct inl_inode *inode)
{
	return inode->lasting & EXT4_FL_INLINE;
}

static int bad_place(uint32_t ino, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EUCLEAN, "inode %u cannot be found: its group descriptor is damaged", ino);
}

/* The places of inode tables do not change: those that were read at the open hold. */
int inl_inode_place(struct inl_volume *vol, uint32_t ino, uint64_t *pblk, uint32_t *at)
{
	ext2_filsys fs = vol->fs;
	uint32_t per_group = fs->super->s_inodes_per_group, inode_size = EXT2_INODE_SIZE(fs->super);
	uint64_t table, offset;
	dgrp_t group;

	if (ino == 0 || ino > fs->super->s_inodes_count)
		return -EUCLEAN;
	group = (ino - 1) / per_group;
	offset = (uint64_t)((ino - 1) % per_group) * inode_size;
	table = ext2fs_inode_table_loc(fs, group);
	if (!ext2fs_group_desc_csum_verify(fs, group) || !inl_block_in_range(vol, table, fs->inode_blocks_per_group))
		return -EUCLEAN;
	*pblk = table + (offset >> vol->block_bits);
	*at = (uint32_t)(offset & (vol->block_size - 1));
	return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (p[0] == 0 && !memcmp(p, p + 1, len - 1));
}

/* The checksum field's second half is there only where the inode has room for it. */
static bool has_checksum_hi(const uint8_t *body, uint32_t inode_size)
{
	return inode_size > 128 && inl_load_le16(body + 0x80) >= 4;
}

static uint32_t body_checksum(const struct inl_inode *inode, uint32_t inode_size)
{
	static const uint8_t zero[2];
	const uint8_t *body = inode->body;
	uint32_t crc = inl_crc32c(inode->csum_seed, body, 0x7c);

	crc = inl_crc32c(crc, zero, 2);
	crc = inl_crc32c(crc, body + 0x7e, 128 - 0x7e);
	if (inode_size == 128)
		return crc;
	if (!has_checksum_hi(body, inode_size))
		return inl_crc32c(crc, body + 128, inode_size - 128);
	crc = inl_crc32c(crc, body + 128, 2);
	crc = inl_crc32c(crc, zero, 2);
	return inl_crc32c(crc, body + 132, inode_size - 132);
}

static bool checksum_good(const struct inl_inode *inode, uint32_t inode_size)
{
	uint32_t crc = body_checksum(inode, inode_size), stored = inl_load_le16(inode->body + 0x7c);

	if (has_checksum_hi(inode->body, inode_size))
		stored |= (uint32_t)inl_load_le16(inode->body + 0x82) << 16;
	else
		crc &= 0xffff;
	/* One that was never used is all zeros. */
	return crc == stored || all_zero(inode->body, inode_size);
}

static void set_csum_seed(struct inl_inode *inode, uint32_t generation)
{
	uint8_t le[8];

	inl_store_le32(le, inode->ino);
	inl_store_le32(le + 4, generation);
	inode->csum_seed = inl_crc32c(inode->vol->csum_seed, le, sizeof(le));
}

static int read_body(struct inl_inode *inode, uint32_t inode_size, struct inl_diag *diag)
{
	INL_BLOCK_SCOPED struct inl_block *block = NULL;
	struct inl_volume *vol = inode->vol;
	uint64_t pblk;
	uint32_t at;
	int err;

	if (inode->ino == 0 || inode->ino > vol->fs->super->s_inodes_count)
		return inl_diag_set(diag, -EUCLEAN, "there is no inode %u", inode->ino);
	if (inl_inode_place(vol, inode->ino, &pblk, &at))
		return bad_place(inode->ino, diag);
	err = inl_block_get(vol, pblk, &block);
	if (err == -EAGAIN || err == -ENOMEM)
		return err;
	if (err)
		return inl_diag_set(diag, -EIO, "inode %u cannot be read", inode->ino);
	memcpy(inode->body, inl_block_bytes(block) + at, inode_size);
	set_csum_seed(inode, inl_load_le32(inode->body + 0x64));
	if (vol->metadata_csum && !checksum_good(inode, inode_size))
		return inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: wrong checksum", inode->ino);
	return 0;
}

static void take_fields(struct inl_inode *inode, uint32_t inode_size)
{
	bool large_dir = ext2fs_has_feature_largedir(inode->vol->fs->super);

	memcpy(&inode->raw, inode->body, inode_size < sizeof(inode->raw) ? inode_size : sizeof(inode->raw));
	inode->type = inode->raw.i_mode & S_IFMT;
	inode->lasting = inode->raw.i_flags & EXT4_FL_LASTING;
	inode->size = inode->raw.i_size;
	if (S_ISREG(inode->type) || (S_ISDIR(inode->type) && large_dir))
		inode->size |= (uint64_t)inode->raw.i_size_high << 32;
}

uint64_t inl_inode_blocks(const struct inl_inode *inode)
{
	bool huge = ext2fs_has_feature_huge_file(inode->vol->fs->super);
	uint64_t blocks = inode->raw.i_blocks;

	if (huge)
		blocks |= (uint64_t)inode->raw.osd2.linux2.l_i_blocks_hi << 32;
	if (huge && (inode->raw.i_flags & EXT4_FL_HUGE_FILE))
		blocks <<= inode->vol->block_bits - 9;
	return blocks;
}

bool inl_is_fast_symlink(const struct inl_inode *inode)
{
	struct ext2_super_block *sb = inode->vol->fs->super;
	uint64_t acl_blocks = 0;

	if (!S_ISLNK(inode->type) || inl_is_inline(inode) || inode->size >= sizeof(inode->raw.i_block))
		return false;
	/* As Linux tells them: by length where values may be charged to the inode, else by blocks. */
	if (ext2fs_has_feature_ea_inode(sb))
		return true;
	if (ext2fs_file_acl_block(inode->vol->fs, (const struct ext2_inode *)&inode->raw))
		acl_blocks = (1024ull << sb->s_log_cluster_size) / 512;
	return inl_inode_blocks(inode) == acl_blocks;
}

static struct inl_inode *inode_new(struct inl_volume *vol, uint32_t ino)
{
	struct inl_inode *inode = calloc(1, sizeof(*inode) + EXT2_INODE_SIZE(vol->fs->super));

	if (!inode)
		return NULL;
	atomic_init(&inode->refs, 1);
	pthread_mutex_init(&inode->lock, NULL);
	pthread_rwlock_init(&inode->rw, NULL);
	pthread_mutex_init(&inode->ranges_lock, NULL);
	pthread_cond_init(&inode->ranges_free, NULL);
	inode->vol = vol;
	inode->ino = ino;
	inode->body = (uint8_t *)(inode + 1);
	return inode;
}

static void inode_free(struct inl_inode *inode)
{
	inl_crypt_info_free(inode->crypt);
	pthread_cond_destroy(&inode->ranges_free);
	pthread_mutex_destroy(&inode->ranges_lock);
	pthread_rwlock_destroy(&inode->rw);
	pthread_mutex_destroy(&inode->lock);
	free(inode);
}

/* ---- live inodes: of a volume that is written there is one object for each; vol->lock is held -------------------- */

static struct inl_inode **bucket(struct inl_volume *vol, uint32_t ino)
{
	return &vol->inodes[ino % INL_INODE_BUCKETS];
}

static struct inl_inode *find_live(struct inl_volume *vol, uint32_t ino)
{
	struct inl_inode *inode = *bucket(vol, ino);

	while (inode && inode->ino != ino)
		inode = inode->hash_next;
	return inode;
}

static void unhash(struct inl_inode *inode)
{
	struct inl_inode **at;

	if (!inode->hashed)
		return;
	for (at = bucket(inode->vol, inode->ino); *at != inode; at = &(*at)->hash_next)
		;
	*at = inode->hash_next;
	inode->hashed = false;
}

static void hash(struct inl_inode *inode)
{
	struct inl_inode **head = bucket(inode->vol, inode->ino), *old = find_live(inode->vol, inode->ino);

	/* Its number is in use again: it was deleted, and only its last user has not said so yet. */
	if (old)
		unhash(old);
	inode->hash_next = *head;
	*head = inode;
	inode->hashed = true;
}

int inl_inode_load(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	uint32_t inode_size = EXT2_INODE_SIZE(vol->fs->super);
	struct inl_inode *inode = inode_new(vol, ino);
	int err;

	if (!inode)
		return -ENOMEM;
	err = read_body(inode, inode_size, diag);
	if (err) {
		inode_free(inode);
		return err;
	}
	take_fields(inode, inode_size);
	*out = inode;
	return 0;
}

int inl_inode_load_crypt(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	struct inl_inode *inode;
	int err = inl_inode_load(vol, ino, diag, &inode);

	if (err)
		return err;
	err = inl_crypt_load(inode);
	if (err)
		inl_inode_put(inode);
	else
		*out = inode;
	return err;
}

static bool known_type(uint16_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode);
}

static int check_inode(struct inl_inode *inode, struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;

	if (!inode->raw.i_links_count)
		return inl_diag_set(diag, -ENOENT, "inode %u is not in use", inode->ino);
	if (!known_type(inode->raw.i_mode))
		return inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: unknown type (mode 0%o)", inode->ino,
				    inode->raw.i_mode);
	if (S_ISDIR(inode->type) && inode->size > vol->n_blocks << vol->block_bits)
		return inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: a directory larger than the volume",
				    inode->ino);
	return 0;
}

struct get {
	struct inl_volume *vol;
	uint32_t ino;
	bool any; /* without links too */
	struct inl_diag *diag;
	struct inl_inode *inode;
};

static int get_inode(struct inl_handle *op, void *arg)
{
	struct get *get = arg;
	struct inl_inode *inode = get->vol->inodes ? find_live(get->vol, get->ino) : NULL;
	int err;

	if (inode && inode->deleting)
		return inl_diag_set(get->diag, -ENOENT, "inode %u is not in use", get->ino);
	if (inode) {
		err = get->any ? 0 : check_inode(inode, get->diag);
		if (err)
			return err;
		atomic_fetch_add_explicit(&inode->refs, 1, memory_order_relaxed);
		get->inode = inode;
		return 0;
	}
	err = inl_inode_load_crypt(get->vol, get->ino, get->diag, &inode);
	if (err)
		return err;
	err = get->any ? 0 : check_inode(inode, get->diag);
	if (err) {
		inode_free(inode);
		return err;
	}
	if (get->vol->inodes)
		hash(inode);
	get->inode = inode;
	return 0;
}

static int inode_get(struct inl_volume *vol, uint64_t ino, bool any, struct inl_diag *diag, struct inl_inode **out)
{
	const struct ext2_super_block *sb = vol->fs->super;
	struct get get = { .vol = vol, .ino = (uint32_t)ino, .any = any, .diag = diag };
	int err;

	if (ino > sb->s_inodes_count || (ino != INL_ROOT_INO && ino < EXT2_FIRST_INODE(sb)))
		return inl_diag_set(diag, -EUCLEAN, "inode number %llu is out of range", (unsigned long long)ino);
	err = inl_op_look(vol, get_inode, &get);
	if (!err)
		*out = get.inode;
	return err;
}

int inl_inode_get(struct inl_volume *vol, uint64_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	return inode_get(vol, ino, false, diag, out);
}

int inl_inode_get_any(struct inl_volume *vol, uint64_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	return inode_get(vol, ino, true, diag, out);
}

int inl_inode_get_named(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	struct inl_diag local = { 0 };
	int err = inl_inode_get(vol, ino, &local, out);

	if (err == -ENOENT)
		return -ESTALE;
	return err && local.err ? inl_diag_set(diag, err, "%s", local.text) : err;
}

/* Drop a reference that is not the last one. */
static bool put_fast(struct inl_inode *inode)
{
	unsigned refs = atomic_load_explicit(&inode->refs, memory_order_relaxed);

	while (refs > 1) {
		if (atomic_compare_exchange_weak_explicit(&inode->refs, &refs, refs - 1, memory_order_acq_rel,
							  memory_order_relaxed))
			return true;
	}
	return false;
}

/*
 * The last reference of an inode that has no name any more: it goes. What fails is left to the next open, as after a
 * crash.
 */
static bool must_delete(const struct inl_inode *inode)
{
	return inode->hashed && !inode->dead && !inode->deleting && !inode->raw.i_links_count;
}

void inl_inode_put(struct inl_inode *inode)
{
	struct inl_handle *op;
	struct inl_volume *vol;

	if (!inode || put_fast(inode))
		return;
	vol = inode->vol;
	if (!vol->inodes) {
		if (atomic_fetch_sub_explicit(&inode->refs, 1, memory_order_acq_rel) == 1)
			inode_free(inode);
		return;
	}
	op = inl_op_current(vol);
	if (!op)
		pthread_mutex_lock(&vol->lock);
	if (atomic_fetch_sub_explicit(&inode->refs, 1, memory_order_acq_rel) != 1) {
		if (!op)
			pthread_mutex_unlock(&vol->lock);
		return;
	}
	if (must_delete(inode)) {
		atomic_store_explicit(&inode->refs, 1, memory_order_relaxed);
		if (op) {
			/* A neighbour on the list of orphans, say: its last user went while the operation had it. */
			inl_op_put_later(op, inode);
			return;
		}
		inode->deleting = true;
		pthread_mutex_unlock(&vol->lock);
		inl_inode_delete(inode);
		pthread_mutex_lock(&vol->lock);
	}
	unhash(inode);
	if (!op)
		pthread_mutex_unlock(&vol->lock);
	inode_free(inode);
}

/* ---- change ------------------------------------------------------------------------------------------------------ */

void inl_inode_save(const struct inl_inode *inode, uint8_t *saved)
{
	struct inl_inode_saved state = { .raw = inode->raw, .size = inode->size, .csum_seed = inode->csum_seed };

	memcpy(saved, &state, sizeof(state));
	memcpy(saved + sizeof(state), inode->body, EXT2_INODE_SIZE(inode->vol->fs->super));
}

void inl_inode_forget_run(struct inl_inode *inode)
{
	pthread_mutex_lock(&inode->lock);
	inode->run.len = 0;
	pthread_mutex_unlock(&inode->lock);
}

/* Only what is different: fields that never change are looked at without the lock. */
static void put_back(uint8_t *to, const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (to[i] != from[i])
			to[i] = from[i];
	}
}

void inl_inode_restore(struct inl_inode *inode, const uint8_t *saved)
{
	struct inl_inode_saved state;

	memcpy(&state, saved, sizeof(state));
	put_back((uint8_t *)&inode->raw, (const uint8_t *)&state.raw, sizeof(state.raw));
	inode->size = state.size;
	inode->lasting = state.raw.i_flags & EXT4_FL_LASTING;
	inode->csum_seed = state.csum_seed;
	memcpy(inode->body, saved + sizeof(state), EXT2_INODE_SIZE(inode->vol->fs->super));
	inl_inode_forget_run(inode);
}

void inl_inode_encode(struct inl_inode *inode, uint8_t *bytes)
{
	uint32_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super), crc;

	memcpy(inode->body, &inode->raw, INL_MIN(inode_size, sizeof(inode->raw)));
	if (inode->vol->metadata_csum) {
		crc = body_checksum(inode, inode_size);
		inl_store_le16(inode->body + 0x7c, (uint16_t)crc);
		inode->raw.osd2.linux2.l_i_checksum_lo = (uint16_t)crc;
		if (has_checksum_hi(inode->body, inode_size)) {
			inl_store_le16(inode->body + 0x82, (uint16_t)(crc >> 16));
			inode->raw.i_checksum_hi = (uint16_t)(crc >> 16);
		}
	}
	memcpy(bytes, inode->body, inode_size);
}

static void undo_new(struct inl_volume *vol, void *what)
{
	struct inl_inode *inode;

	memcpy(&inode, what, sizeof(inode));
	inode->dead = true;
	unhash(inode);
}

/* As Linux: what the superblock wants, at least what all known fields need. */
static uint16_t extra_isize(const struct inl_volume *vol)
{
	const struct ext2_super_block *sb = vol->fs->super;
	uint32_t inode_size = EXT2_INODE_SIZE(sb);
	uint16_t want = sizeof(struct ext2_inode_large) - 128;

	if (inode_size <= 128)
		return 0;
	if (sb->s_want_extra_isize > want && sb->s_want_extra_isize % 4 == 0)
		want = sb->s_want_extra_isize;
	return want + 128u > inode_size ? (uint16_t)(inode_size - 128) : want;
}

/* The rest of its block is in use by nobody: it need not be read, and what was never initialised becomes zeros. */
static int init_block(struct inl_handle *op, uint32_t ino)
{
	uint64_t pblk;
	uint8_t *bytes;
	uint32_t at;
	bool alone;
	int err = inl_ino_alone(op, ino, &alone);

	if (err || !alone)
		return err;
	err = inl_inode_place(inl_op_vol(op), ino, &pblk, &at);
	return err ? err : inl_block_new(op, pblk, &bytes);
}

int inl_inode_new(struct inl_handle *op, uint32_t ino, struct inl_inode **out)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_inode *inode = inode_new(vol, ino);
	int err;

	if (!inode)
		return -ENOMEM;
	err = inl_draw(vol, &inode->raw.i_generation, sizeof(inode->raw.i_generation));
	if (err) {
		inode_free(inode);
		return err;
	}
	if (EXT2_INODE_SIZE(vol->fs->super) > 128)
		inode->raw.i_extra_isize = extra_isize(vol);
	set_csum_seed(inode, inode->raw.i_generation);
	err = init_block(op, ino);
	if (!err)
		err = inl_inode_modify(op, inode);
	if (!err)
		err = inl_op_undo(op, undo_new, &inode, sizeof(inode));
	if (err) {
		inode->dead = true;
		inl_inode_put(inode);
		return err;
	}
	hash(inode);
	*out = inode;
	return 0;
}

/* ---- stat -------------------------------------------------------------------------------------------------------- */

/* 34 bits of seconds, 30 of nanoseconds: the low two bits of `extra` go above the signed 32 of `low`. */
static struct inl_time decode_time(uint32_t low, uint32_t extra)
{
	uint32_t nsec = extra >> 2;

	/* Up to 2^30 - 1 on a damaged volume, which no system call would take. */
	return (struct inl_time){ (int64_t)(int32_t)low + ((int64_t)(extra & 3) << 32), INL_MIN(nsec, 999999999u) };
}

static void stat_times(const struct inl_inode *inode, struct inl_stat *st)
{
	const struct ext2_inode_large *raw = &inode->raw;

	st->atime = decode_time(raw->i_atime, INL_HAS_FIELD(inode, i_atime_extra) ? raw->i_atime_extra : 0);
	st->mtime = decode_time(raw->i_mtime, INL_HAS_FIELD(inode, i_mtime_extra) ? raw->i_mtime_extra : 0);
	st->ctime = decode_time(raw->i_ctime, INL_HAS_FIELD(inode, i_ctime_extra) ? raw->i_ctime_extra : 0);
	if (INL_HAS_FIELD(inode, i_crtime))
		st->crtime = decode_time(raw->i_crtime, INL_HAS_FIELD(inode, i_crtime_extra) ? raw->i_crtime_extra : 0);
}

/* Device numbers: the old form (16 bits) in the first word, else the new one in the second. */
static void stat_device(const struct inl_inode *inode, struct inl_stat *st)
{
	uint32_t old = inode->raw.i_block[0], new = inode->raw.i_block[1];

	if (!S_ISCHR(st->mode) && !S_ISBLK(st->mode))
		return;
	st->rdev_major = old ? old >> 8 & 0xff : (new & 0xfff00) >> 8;
	st->rdev_minor = old ? old & 0xff : (new & 0xff) | (new >> 12 & 0xfff00);
}

struct stat_arg {
	struct inl_inode *inode;
	struct inl_stat *st;
};

static int take_stat(struct inl_handle *op, void *arg)
{
	struct stat_arg *a = arg;
	struct inl_inode *inode = a->inode;
	const struct ext2_inode_large *raw = &inode->raw;
	struct inl_stat *st = a->st;

	memset(st, 0, sizeof(*st));
	st->ino = inode->ino;
	st->mode = raw->i_mode;
	st->nlink = raw->i_links_count;
	st->uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16;
	st->gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16;
	st->size = inode->size;
	st->blocks = inl_inode_blocks(inode);
	st->generation = raw->i_generation;
	st->flags = raw->i_flags;
	stat_times(inode, st);
	stat_device(inode, st);
	return 0;
}

int inl_inode_stat(struct inl_inode *inode, struct inl_stat *st, struct inl_diag *diag)
{
	struct stat_arg arg = { inode, st };

	inl_op_look(inode->vol, take_stat, &arg);
	if (S_ISLNK(st->mode) && inode->encrypted) {
		char *target = malloc(INL_SYMLINK_MAX);
		size_t len;

		if (!target)
			return -ENOMEM;
		/* One that cannot be decoded keeps the length of what is stored. */
		if (!inl_readlink(inode, target, INL_SYMLINK_MAX, &len, NULL)) {
			st->size = len;
			inl_wipe(target, len);
		}
		free(target);
	}
	return 0;
}

int inl_inode_unlock(struct inl_inode *inode, struct inl_diag *diag)
{
	if (!inode->encrypted)
		return 0;
	if (!inode->crypt)
		return inl_diag_set(diag, inode->crypt_status ? inode->crypt_status : -EUCLEAN,
				    "inode %u is encrypted, but its encryption context is missing or damaged", inode->ino);
	return inl_crypt_info_unlock(inode->crypt, diag);
}

/* An empty directory may become encrypted while somebody has it: those have no hold of the key, and those who come later do. */
int inl_inode_hold_key(struct inl_inode *inode, struct inl_diag *diag)
{
	bool encrypted = inode->encrypted;
	int err = 0;

	if (encrypted && !inode->crypt)
		return inl_inode_unlock(inode, diag);
	if (encrypted)
		err = inl_crypt_info_hold(inode->crypt, diag);
	if (err)
		return err;
	pthread_mutex_lock(&inode->lock);
	inode->n_holds++;
	inode->n_key_holds += encrypted;
	pthread_mutex_unlock(&inode->lock);
	return 0;
}

void inl_inode_release_key(struct inl_inode *inode)
{
	bool release;

	pthread_mutex_lock(&inode->lock);
	inode->n_holds -= inode->n_holds > 0;
	release = inode->n_key_holds > inode->n_holds;
	inode->n_key_holds -= release;
	pthread_mutex_unlock(&inode->lock);
	if (release)
		inl_crypt_info_release(inode->crypt);
}

bool inl_inode_policy(struct inl_inode *inode, struct inl_policy *policy)
{
	const struct inl_crypt_info *info = inode->encrypted ? inode->crypt : NULL;

	if (info && policy)
		*policy = *inl_crypt_info_policy(info);
	return info;
}

void inl_inode_crypt(struct inl_inode *inode, struct inl_inode_crypt *crypt)
{
	memset(crypt, 0, sizeof(*crypt));
	crypt->encrypted = inode->encrypted;
	crypt->status = inl_inode_unlock(inode, NULL);
	if (!inode->crypt)
		return;
	crypt->policy = *inl_crypt_info_policy(inode->crypt);
	memcpy(crypt->nonce, inl_crypt_info_nonce(inode->crypt), INL_FILE_NONCE_SIZE);
	crypt->data_unit_size = inl_crypt_info_unit_size(inode->crypt);
}
