/*
 * ext4/inode.c: inodes: load, describe.
 * Not here: what they contain (data.c, dir.c, symlink.c, xattr.c).
 * Read more: Linux Documentation/filesystems/ext4/inodes.rst.
 */
#include "ext4/own.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>


bool inl_is_inline(const struct inl_inode *inode)
{
	return inode->raw.i_flags & EXT4_FL_INLINE;
}

static int inode_error(errcode_t code, uint32_t ino, struct inl_diag *diag)
{
	switch (code) {
	case EXT2_ET_NO_MEMORY:
		return -ENOMEM;
	case EXT2_ET_SHORT_READ:
		return inl_diag_set(diag, -EIO, "inode %u cannot be read", ino);
	case EXT2_ET_INODE_CSUM_INVALID:
		return inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: wrong checksum", ino);
	case EXT2_ET_BAD_INODE_NUM:
		return inl_diag_set(diag, -EUCLEAN, "there is no inode %u", ino);
	default:
		return inl_diag_set(diag, -EUCLEAN, "inode %u cannot be found: its group descriptor is damaged", ino);
	}
}

static int read_body(struct inl_inode *inode, uint32_t inode_size, struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	ext2_filsys fs = vol->fs;
	bool group_good;
	errcode_t code = 0;

	if (inode->ino == 0 || inode->ino > fs->super->s_inodes_count)
		return inode_error(EXT2_ET_BAD_INODE_NUM, inode->ino, diag);
	pthread_mutex_lock(&vol->lock);
	group_good = ext2fs_group_desc_csum_verify(fs, (inode->ino - 1) / fs->super->s_inodes_per_group);
	if (group_good)
		code = ext2fs_read_inode_full(fs, inode->ino, (struct ext2_inode *)inode->body, (int)inode_size);
	pthread_mutex_unlock(&vol->lock);
	if (!group_good)
		code = EXT2_ET_GDESC_BAD_INODE_TABLE;
	return code ? inode_error(code, inode->ino, diag) : 0;
}

static void take_fields(struct inl_inode *inode, uint32_t inode_size)
{
	uint8_t le[8];
	bool large_dir = ext2fs_has_feature_largedir(inode->vol->fs->super);

	memcpy(&inode->raw, inode->body, inode_size < sizeof(inode->raw) ? inode_size : sizeof(inode->raw));
	inode->size = inode->raw.i_size;
	if (S_ISREG(inode->raw.i_mode) || (S_ISDIR(inode->raw.i_mode) && large_dir))
		inode->size |= (uint64_t)inode->raw.i_size_high << 32;
	inl_store_le32(le, inode->ino);
	inl_store_le32(le + 4, inode->raw.i_generation);
	inode->csum_seed = inl_crc32c(inode->vol->csum_seed, le, sizeof(le));
}

static uint64_t stat_blocks(const struct inl_inode *inode)
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

	if (!S_ISLNK(inode->raw.i_mode) || inl_is_inline(inode) || inode->size >= sizeof(inode->raw.i_block))
		return false;
	/* As Linux tells them: by length where values may be charged to the inode, else by blocks. */
	if (ext2fs_has_feature_ea_inode(sb))
		return true;
	if (ext2fs_file_acl_block(inode->vol->fs, (const struct ext2_inode *)&inode->raw))
		acl_blocks = (1024ull << sb->s_log_cluster_size) / 512;
	return stat_blocks(inode) == acl_blocks;
}

/* A context that is missing or damaged is remembered, not an error: the inode can still be looked at. */
static int load_context(struct inl_inode *inode)
{
	uint8_t context[INL_CONTEXT_SIZE_MAX];
	enum inl_crypt_kind kind;
	uint16_t mode = inode->raw.i_mode;
	size_t len;
	int err;

	if (!(inode->raw.i_flags & EXT4_FL_ENCRYPT) || !(S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode)))
		return 0;
	inode->encrypted = true;
	kind = S_ISREG(mode) ? INL_CRYPT_REG : S_ISDIR(mode) ? INL_CRYPT_DIR : INL_CRYPT_LNK;
	err = inl_raw_xattr_get(inode, 9, "c", context, sizeof(context), &len, NULL);
	if (!err)
		err = inl_crypt_info_new(inode->vol->crypt, inode->ino, kind, inode->raw.i_flags & EXT4_FL_CASEFOLD, context,
					 len, &inode->crypt);
	if (err == -ENOMEM)
		return err;
	inode->crypt_status = !err ? 0 : err == -EIO ? -EIO : -EUCLEAN;
	return 0;
}

int inl_inode_load(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	uint32_t inode_size = EXT2_INODE_SIZE(vol->fs->super);
	struct inl_inode *inode = calloc(1, sizeof(*inode) + inode_size);
	int err;

	if (!inode)
		return -ENOMEM;
	atomic_init(&inode->refs, 1);
	pthread_mutex_init(&inode->lock, NULL);
	inode->vol = vol;
	inode->ino = ino;
	inode->body = (uint8_t *)(inode + 1);
	err = read_body(inode, inode_size, diag);
	if (err) {
		inl_inode_put(inode);
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
	err = load_context(inode);
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

int inl_inode_get(struct inl_volume *vol, uint64_t ino, struct inl_diag *diag, struct inl_inode **out)
{
	const struct ext2_super_block *sb = vol->fs->super;
	struct inl_inode *inode;
	int err;

	if (ino > sb->s_inodes_count || (ino != INL_ROOT_INO && ino < EXT2_FIRST_INODE(sb)))
		return inl_diag_set(diag, -EUCLEAN, "inode number %llu is out of range", (unsigned long long)ino);
	err = inl_inode_load_crypt(vol, (uint32_t)ino, diag, &inode);
	if (err)
		return err;
	if (!inode->raw.i_links_count)
		err = inl_diag_set(diag, -ENOENT, "inode %u is not in use", inode->ino);
	else if (!known_type(inode->raw.i_mode))
		err = inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: unknown type (mode 0%o)", inode->ino,
				   inode->raw.i_mode);
	else if (S_ISDIR(inode->raw.i_mode) && inode->size > vol->n_blocks << vol->block_bits)
		err = inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: a directory larger than the volume",
				   inode->ino);
	if (err) {
		inl_inode_put(inode);
		return err;
	}
	*out = inode;
	return 0;
}

void inl_inode_put(struct inl_inode *inode)
{
	if (!inode || atomic_fetch_sub_explicit(&inode->refs, 1, memory_order_acq_rel) != 1)
		return;
	inl_crypt_info_free(inode->crypt);
	pthread_mutex_destroy(&inode->lock);
	free(inode);
}

/* ---- stat -------------------------------------------------------------------------------------------------------- */

/* Is the field of the extra part there? */
#define HAS_FIELD(inode, field)                                                                        \
	(EXT2_INODE_SIZE((inode)->vol->fs->super) > 128 &&                                             \
	 offsetof(struct ext2_inode_large, field) + sizeof((inode)->raw.field) <=                      \
		 128u + (inode)->raw.i_extra_isize)

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

	st->atime = decode_time(raw->i_atime, HAS_FIELD(inode, i_atime_extra) ? raw->i_atime_extra : 0);
	st->mtime = decode_time(raw->i_mtime, HAS_FIELD(inode, i_mtime_extra) ? raw->i_mtime_extra : 0);
	st->ctime = decode_time(raw->i_ctime, HAS_FIELD(inode, i_ctime_extra) ? raw->i_ctime_extra : 0);
	if (HAS_FIELD(inode, i_crtime))
		st->crtime = decode_time(raw->i_crtime, HAS_FIELD(inode, i_crtime_extra) ? raw->i_crtime_extra : 0);
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

int inl_inode_stat(struct inl_inode *inode, struct inl_stat *st, struct inl_diag *diag)
{
	const struct ext2_inode_large *raw = &inode->raw;

	memset(st, 0, sizeof(*st));
	st->ino = inode->ino;
	st->mode = raw->i_mode;
	st->nlink = raw->i_links_count;
	st->uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16;
	st->gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16;
	st->size = inode->size;
	st->blocks = stat_blocks(inode);
	st->generation = raw->i_generation;
	st->flags = raw->i_flags;
	stat_times(inode, st);
	stat_device(inode, st);
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
		return inl_diag_set(diag, inode->crypt_status,
				    "inode %u is encrypted, but its encryption context is missing or damaged", inode->ino);
	return inl_crypt_info_unlock(inode->crypt, diag);
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
