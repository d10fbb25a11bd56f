/*
 * ext4/volume.c: opening a volume: superblock, features, journal, libext2fs, encryption.
 * Not here: each of those (super.c, features.c, journal.c, io.c, fscrypt/).
 * Read more: inlay/volume.h.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int open_fs(struct inl_volume *vol, uint64_t super_block, struct inl_diag *diag)
{
	int flags = EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES | (vol->super_torn ? EXT2_FLAG_IGNORE_CSUM_ERRORS : 0);
	errcode_t code = ext2fs_open2("inlay", NULL, flags, (int)super_block, super_block ? vol->block_size : 0,
				      inl_io_manager_for(vol), &vol->fs);

	inl_io_manager_for(NULL);
	if (!code) {
		vol->fs->flags &= ~EXT2_FLAG_IGNORE_CSUM_ERRORS;
		return 0;
	}
	vol->fs = NULL;
	if (code == EXT2_ET_NO_MEMORY)
		return -ENOMEM;
	if (code == EXT2_ET_SHORT_READ)
		return inl_diag_set(diag, -EIO, "the group descriptors cannot be read");
	return inl_diag_set(diag, -EUCLEAN, "the superblock or the group descriptors are damaged (libext2fs error %ld)",
			    (long)code);
}

static void close_fs(struct inl_volume *vol)
{
	if (vol->fs)
		ext2fs_close_free(&vol->fs);
}

/* One that may be torn is good when its content can only be what was meant. */
static int check_super(struct inl_volume *vol, const uint8_t *sb, struct inl_diag *diag)
{
	bool damaged_ok = vol->flags & INL_VOLUME_DAMAGED;
	uint64_t size = inl_dev_size(vol->dev);

	if (!vol->super_torn)
		return inl_super_check(sb, size, damaged_ok, diag);
	if (!inl_super_check(sb, size, damaged_ok, NULL))
		vol->super_torn = false;
	vol->super_torn_mark = vol->super_torn && inl_super_torn_mark(sb);
	return inl_super_check_unsummed(sb, size, damaged_ok, diag);
}

/* Read the superblock (through the journal, once there is one) and all that hangs on it. */
static int load_super(struct inl_volume *vol, uint64_t super_block, uint32_t block_size, struct inl_diag *diag)
{
	uint64_t at = super_block ? super_block * block_size : EXT4_SUPER_OFFSET;
	uint8_t sb[EXT4_SUPER_SIZE];
	int err = inl_meta_read(vol, at, sb, sizeof(sb));

	if (err)
		return inl_diag_set(diag, err, "the superblock cannot be read");
	err = check_super(vol, sb, diag);
	if (!err)
		err = inl_features_check(vol, sb, diag);
	if (!err && 1024u << inl_load_le32(sb + 0x18) != block_size)
		err = inl_diag_set(diag, -EUCLEAN, "the journal holds a superblock with another block size");
	if (!err)
		err = open_fs(vol, super_block, diag);
	if (err)
		return err;
	if (vol->fs->super->s_encryption_level)
		return inl_diag_set(diag, -EOPNOTSUPP, "unknown encryption level %u",
				    vol->fs->super->s_encryption_level);
	vol->n_blocks = ext2fs_blocks_count(vol->fs->super);
	vol->first_block = vol->fs->super->s_first_data_block;
	vol->metadata_csum = ext2fs_has_feature_metadata_csum(vol->fs->super);
	vol->csum_seed = vol->fs->csum_seed;
	return inl_cache_new(vol, &vol->cache);
}

static void unload_super(struct inl_volume *vol)
{
	inl_cache_free(vol->cache);
	vol->cache = NULL;
	close_fs(vol);
}

/* ---- the journal ------------------------------------------------------------------------------------------------- */

/* Where a block of the journal lies on the device. */
static int journal_place(struct inl_inode *inode, uint64_t block, uint64_t *pblk)
{
	struct inl_run run;
	int err = inl_map(inode, block, &run, NULL);

	if (err)
		return err;
	if (run.kind != INL_EXTENT_DATA)
		return -EUCLEAN;
	*pblk = run.pblk + (block - run.lblk);
	return 0;
}

static int journal_read(void *arg, uint64_t block, uint8_t *buf)
{
	struct inl_inode *inode = arg;
	uint64_t pblk;
	int err = journal_place(inode, block, &pblk);

	return err ? err : inl_meta_read(inode->vol, pblk << inode->vol->block_bits, buf, inode->vol->block_size);
}

static int scan_inode(struct inl_volume *vol, struct inl_inode *inode, bool *clean, struct inl_diag *diag)
{
	struct inl_journal_source source = {
		.block_size = vol->block_size,
		.n_blocks = inode->size >> vol->block_bits,
		.max_block = vol->n_blocks,
		.read = journal_read,
		.arg = inode,
	};
	struct inl_journal_map map;
	int err;

	if (!S_ISREG(inode->type) || (inode->raw.i_flags & (EXT4_FL_ENCRYPT | EXT4_FL_INLINE)) ||
	    source.n_blocks > vol->n_blocks)
		return inl_diag_set(diag, -EUCLEAN, "inode %u cannot be a journal", inode->ino);
	err = inl_journal_scan(&source, vol->flags & INL_VOLUME_DAMAGED, &map, clean, diag);

	for (size_t i = 0; !err && i < map.n; i++)
		err = journal_place(inode, map.entries[i].copy, &map.entries[i].copy);
	if (err) {
		inl_journal_map_done(&map);
		return err;
	}
	vol->journal = map;
	return 0;
}

/* With INL_VOLUME_DAMAGED a journal that is of no use is done without. */
static int scan_journal(struct inl_volume *vol, bool *clean, struct inl_diag *diag)
{
	struct inl_diag local = { 0 };
	struct inl_inode *inode;
	int err = inl_inode_load(vol, vol->fs->super->s_journal_inum, &local, &inode);

	if (!err) {
		err = scan_inode(vol, inode, clean, &local);
		inl_inode_put(inode);
	}
	if (err && err != -ENOMEM && (vol->flags & INL_VOLUME_DAMAGED)) {
		vol->info.journal_damaged = true;
		*clean = true;
		return 0;
	}
	return err && local.err ? inl_diag_set(diag, err, "%s", local.text) : err;
}

/* Does the superblock say, or (a backup does not say) may it be, that the journal was not replayed? */
static bool needs_replay(const struct inl_volume *vol, uint64_t super_block)
{
	const struct ext2_super_block *sb = vol->fs->super;

	return (sb->s_feature_compat & EXT4_COMPAT_HAS_JOURNAL) &&
	       ((sb->s_feature_incompat & EXT4_INCOMPAT_RECOVER) || super_block || vol->super_torn);
}

static int replay_journal(struct inl_volume *vol, uint64_t super_block, uint32_t block_size, struct inl_diag *diag)
{
	bool clean = true;
	int err;

	if (!needs_replay(vol, super_block))
		return 0;
	if (!vol->fs->super->s_journal_inum)
		return super_block ? 0 :
				     inl_diag_set(diag, -EOPNOTSUPP,
						  "the volume needs the replay of an external journal, which is on another device");
	err = scan_journal(vol, &clean, diag);
	if (err)
		return inl_diag_set(diag, err, "the journal cannot be read");
	if (clean)
		return 0;
	/* Everything read so far may have newer content in the journal. */
	unload_super(vol);
	err = load_super(vol, super_block, block_size, diag);
	vol->info.journal_replayed = true;
	vol->info.journal_damaged = vol->journal.damaged;
	vol->info.journal_blocks = (uint32_t)vol->journal.n;
	vol->info.journal_transactions = vol->journal.n_transactions;
	return err;
}

/* ---- group descriptors ------------------------------------------------------------------------------------------- */

/* Is every descriptor's checksum right (where it has one), and every inode table within the file system? */
static bool descriptors_good(struct inl_volume *vol)
{
	for (dgrp_t group = 0; group < vol->fs->group_desc_count; group++) {
		if (!ext2fs_group_desc_csum_verify(vol->fs, group) ||
		    !inl_block_in_range(vol, ext2fs_inode_table_loc(vol->fs, group), vol->fs->inode_blocks_per_group))
			return false;
	}
	return true;
}

/* Damaged descriptors: those behind a backup superblock may be better. Where they are not, all stays as it was. */
static int mend_descriptors(struct inl_volume *vol, uint64_t *super_block, uint32_t block_size, struct inl_diag *diag)
{
	uint64_t backup;
	uint32_t backup_size;

	if (*super_block || descriptors_good(vol) || inl_super_find_backup(vol, &backup, &backup_size) ||
	    backup_size != block_size)
		return 0;
	unload_super(vol);
	if (!load_super(vol, backup, block_size, NULL) && descriptors_good(vol)) {
		*super_block = backup;
		return 0;
	}
	unload_super(vol);
	return load_super(vol, 0, block_size, diag);
}

/* ---- open, close, info ------------------------------------------------------------------------------------------- */

static int start_crypt(struct inl_volume *vol)
{
	struct inl_fscrypt_params params = { .dev = vol->dev, .keys = vol->keys };

	memcpy(params.uuid, vol->fs->super->s_uuid, sizeof(params.uuid));
	params.traits.block_bits = vol->block_bits;
	params.traits.lblk_bits = 32;
	params.traits.ino_bits = 32;
	params.traits.stable_inodes = vol->fs->super->s_feature_compat & EXT4_COMPAT_STABLE_INODES;
	return inl_fscrypt_new(&params, &vol->crypt);
}

static void fill_info(struct inl_volume *vol, uint64_t super_block)
{
	struct inl_volume_info *info = &vol->info;
	const struct ext2_super_block *sb = vol->fs->super;

	memcpy(info->label, sb->s_volume_name, 16);
	memcpy(info->uuid, sb->s_uuid, 16);
	info->block_size = vol->block_size;
	info->n_blocks = vol->n_blocks;
	info->n_inodes = sb->s_inodes_count;
	/* The superblock's own sums are brought up to date only when the volume is unmounted. */
	for (dgrp_t group = 0; group < vol->fs->group_desc_count; group++) {
		info->n_free_blocks += (uint64_t)ext2fs_bg_free_blocks_count(vol->fs, group)
				       << vol->fs->cluster_ratio_bits;
		info->n_free_inodes += ext2fs_bg_free_inodes_count(vol->fs, group);
	}
	info->truncated = vol->n_blocks > inl_dev_size(vol->dev) >> vol->block_bits;
	info->inode_size = EXT2_INODE_SIZE(sb);
	info->backup_superblock = super_block;
	info->has_errors = sb->s_state & EXT4_STATE_ERRORS;
	info->has_journal = sb->s_feature_compat & EXT4_COMPAT_HAS_JOURNAL;
}

/* ---- for writing ------------------------------------------------------------------------------------------------- */

static int refuse_feature(const struct inl_volume *vol, struct inl_diag *diag)
{
	for (unsigned i = 0; i < vol->n_features; i++) {
		if (vol->features[i].access == INL_ACCESS_RO)
			return inl_diag_set(diag, -EROFS, "the volume has the feature %s and is not written: %s",
					    vol->features[i].name, vol->features[i].why);
	}
	return 0;
}

/* What must be seen to before this volume is written. */
static int refuse_state(const struct inl_volume *vol, uint64_t super_block, struct inl_diag *diag)
{
	const struct ext2_super_block *sb = vol->fs->super;

	if (super_block)
		return inl_diag_set(diag, -EROFS, "the primary superblock or its descriptors are damaged: run e2fsck first");
	if (sb->s_state & EXT4_STATE_ERRORS)
		return inl_diag_set(diag, -EROFS, "the volume is marked as having errors: run e2fsck first");
	if (!(sb->s_feature_compat & EXT4_COMPAT_HAS_JOURNAL) && !(sb->s_state & EXT4_STATE_VALID))
		return inl_diag_set(diag, -EROFS, "the volume has no journal and was not closed cleanly: run e2fsck first");
	if (sb->s_rev_level == 0)
		return inl_diag_set(diag, -EROFS, "the volume is of revision 0, which is only read");
	if (vol->block_size % inl_dev_block_size(vol->dev))
		return inl_diag_set(diag, -EROFS, "blocks of %u bytes cannot be written to a device with blocks of %u bytes",
				    vol->block_size, inl_dev_block_size(vol->dev));
	return refuse_feature(vol, diag);
}

static int check_writable(struct inl_dev *dev, unsigned flags, struct inl_diag *diag)
{
	if (!(flags & INL_VOLUME_WRITE))
		return 0;
	if (flags & INL_VOLUME_DAMAGED)
		return inl_diag_set(diag, -EINVAL, "a damaged volume is not opened for writing");
	return inl_dev_writable(dev) ? 0 : inl_diag_set(diag, -EROFS, "the device is open for reading only");
}

/* The journal's content goes home before anything is written; then all is read again. */
static int replay_home(struct inl_volume *vol, uint32_t block_size, struct inl_diag *diag)
{
	int err;

	if (!vol->info.journal_replayed)
		return 0;
	err = inl_journal_replay_home(vol, diag);
	if (err)
		return err;
	unload_super(vol);
	return load_super(vol, 0, block_size, diag);
}

static int start_writing(struct inl_volume *vol, uint64_t super_block, uint32_t block_size, struct inl_diag *diag)
{
	int err = refuse_state(vol, super_block, diag);

	if (!err && ext2fs_has_feature_mmp(vol->fs->super))
		err = inl_mmp_start(vol, diag, &vol->mmp);
	if (!err)
		err = replay_home(vol, block_size, diag);
	if (!err)
		err = refuse_state(vol, super_block, diag);
	if (err)
		return err;
	vol->inodes = calloc(INL_INODE_BUCKETS, sizeof(struct inl_inode *));
	if (!vol->inodes)
		return -ENOMEM;
	err = inl_op_pool_new(&vol->op_pool);
	if (!err)
		err = inl_alloc_new(vol, &vol->alloc);
	if (!err)
		err = inl_txn_open(vol, diag);
	return err ? err : inl_orphans_finish(vol, diag);
}

/* Returns why not all of it is durable. */
static int stop_writing(struct inl_volume *vol)
{
	int err = inl_txn_close(vol), mmp_err = inl_mmp_stop(vol->mmp);

	inl_orphans_done(vol);
	inl_alloc_free(vol->alloc);
	inl_op_pool_free(vol->op_pool);
	free(vol->inodes);
	return err ? err : mmp_err;
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

/*
 * Superblock, descriptors, journal.
 *
 *   torn_ok  begin with a superblock whose checksum is wrong, if that is all: a crash may have torn its last write. The
 *            journal has it whole, or only the mark that needs no journal was torn; if neither is so, begin again
 *            without
 */
static int load(struct inl_volume *vol, bool torn_ok, uint64_t *super_block, uint32_t *block_size, struct inl_diag *diag)
{
	struct inl_diag local = { 0 };
	int err = inl_super_find(vol, torn_ok, super_block, block_size, diag);

	if (err)
		return err;
	vol->block_size = *block_size;
	vol->block_bits = (unsigned)__builtin_ctz(*block_size);
	torn_ok = vol->super_torn;
	err = load_super(vol, *super_block, *block_size, torn_ok ? &local : diag);
	if (!err)
		err = mend_descriptors(vol, super_block, *block_size, torn_ok ? &local : diag);
	if (!err)
		err = replay_journal(vol, *super_block, *block_size, torn_ok ? &local : diag);
	if (!torn_ok || (!err && (!vol->super_torn || vol->super_torn_mark)))
		return err;
	unload_super(vol);
	inl_journal_map_done(&vol->journal);
	memset(&vol->info, 0, sizeof(vol->info));
	return load(vol, false, super_block, block_size, diag);
}

int inl_volume_open(struct inl_dev *dev, struct inl_keyring *keys, unsigned flags, struct inl_diag *diag,
		    struct inl_volume **out)
{
	struct inl_volume *vol;
	uint64_t super_block = 0;
	uint32_t block_size = 0;
	int err = check_writable(dev, flags, diag);

	if (err)
		return err;
	vol = calloc(1, sizeof(*vol));
	if (!vol)
		return -ENOMEM;
	pthread_mutex_init(&vol->lock, NULL);
	inl_draws_init(&vol->draws);
	vol->dev = dev;
	vol->keys = keys;
	vol->flags = flags;
	err = load(vol, true, &super_block, &block_size, diag);
	if (!err)
		err = start_crypt(vol);
	if (!err && (flags & INL_VOLUME_WRITE))
		err = start_writing(vol, super_block, block_size, diag);
	if (err)
		goto fail;
	fill_info(vol, super_block);
	*out = vol;
	return 0;
fail:
	inl_volume_close(vol);
	return err;
}

int inl_volume_close(struct inl_volume *vol)
{
	int err;

	if (!vol)
		return 0;
	err = stop_writing(vol);
	inl_fscrypt_free(vol->crypt);
	unload_super(vol);
	inl_journal_map_done(&vol->journal);
	inl_draws_done(&vol->draws);
	pthread_mutex_destroy(&vol->lock);
	free(vol);
	return err;
}

void inl_volume_info(const struct inl_volume *vol, struct inl_volume_info *info)
{
	struct inl_volume *own = (struct inl_volume *)vol; /* for its lock */

	*info = vol->info;
	if (!vol->txn)
		return;
	info->error = inl_txn_error(own);
	pthread_mutex_lock(&own->lock);
	info->n_free_blocks = inl_alloc_n_free_blocks(vol->alloc);
	info->n_free_inodes = inl_alloc_n_free_inodes(vol->alloc);
	pthread_mutex_unlock(&own->lock);
	info->writable = inl_txn_writable(own);
}

void inl_volume_journal(struct inl_volume *vol, struct inl_volume_journal *journal)
{
	*journal = (struct inl_volume_journal){ 0 };
	inl_txn_journal(vol, journal);
}

/*
 * mke2fs says how many; where it does not, the tables of inodes and the journal are most of it. The superblock may be damaged:
 * never more than there are.
 */
static uint64_t overhead(const struct inl_volume *vol)
{
	const struct ext2_super_block *sb = vol->fs->super;
	uint64_t n = sb->s_overhead_clusters;

	n <<= sb->s_log_cluster_size - sb->s_log_block_size;
	if (!n)
		n = (uint64_t)vol->fs->inode_blocks_per_group * vol->fs->group_desc_count + sb->s_first_data_block;
	return INL_MIN(n, vol->n_blocks);
}

void inl_volume_space(const struct inl_volume *vol, struct inl_volume_space *space)
{
	struct inl_volume_info info;

	inl_volume_info(vol, &info);
	*space = (struct inl_volume_space){
		.n_blocks = info.n_blocks,
		.n_free_blocks = info.n_free_blocks,
		.n_inodes = info.n_inodes,
		.n_free_inodes = info.n_free_inodes,
		.n_overhead_blocks = overhead(vol),
		.n_reserved_blocks = ext2fs_r_blocks_count(vol->fs->super),
	};
}
