/*
 * ext4/log.c: the log of the journal: transactions are written to it, one behind the other, in the format of jbd2.
 * Not here: which blocks a transaction has, and when its blocks go home (txn.c); reading a log (journal.c, replay.c).
 * Read more: Linux Documentation/filesystems/ext4/journal.rst; ARCHITECTURE.md, "The life of a change".
 *
 * The log is a ring of blocks. A transaction is: blocks of revokes; descriptors, each before the copies of the blocks
 * that it names; a flush, so that all this and the file data written before is on the medium; the commit block; a
 * flush. A replay begins at s_start with transaction s_sequence and ends before the first one without its commit block.
 *
 * Threads: one at a time.
 */
#include "ext4/change.h"
#include "ext4/jbd2.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define BATCH_LEN  (1u << 20) /* bytes of one I/O */
#define BATCH_SEGS 256u
#define N_SPARES   16u

/* Log blocks that are written together: they lie side by side on the device. Their bytes stay where they are. */
struct batch {
	struct iovec segs[BATCH_SEGS];
	unsigned n, max;
	uint64_t pblk;	 /* of the first */
	uint8_t *spares; /* N_SPARES blocks, for what has to be made: records, copies that are escaped */
	unsigned n_spares;
};

struct inl_log {
	struct inl_dev *dev;
	struct inl_journal_place place;
	uint32_t block_size;
	uint32_t first, last; /* the ring: blocks [first, last) of the journal */
	uint32_t head;	      /* the next to be written */
	uint32_t used;	      /* blocks before head that a replay would read */
	uint32_t tid;	      /* of the next transaction */
	uint32_t incompat, seed;
	bool csum;
	unsigned tail_size, tag_size, tags_max, revoke_size, revokes_max; /* per block; sizes in bytes */
	struct inl_time time; /* of the last commit */
	int error;	      /* what ended the log; 0: nothing has */
	struct batch batch;
};

/* ---- the journal's inode ----------------------------------------------------------------------------------------- */

static int add_run(struct inl_journal_place *place, const struct inl_run *run, uint32_t n)
{
	struct inl_journal_run *last = place->n_runs ? &place->runs[place->n_runs - 1] : NULL;

	if (last && last->pblk + last->n == run->pblk) {
		last->n += n;
		return 0;
	}
	if (place->n_runs == place->room) {
		size_t room = place->room ? 2 * place->room : 16;
		struct inl_journal_run *grown = reallocarray(place->runs, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		place->runs = grown;
		place->room = room;
	}
	place->runs[place->n_runs++] = (struct inl_journal_run){ (uint32_t)run->lblk, n, run->pblk };
	return 0;
}

static int map_all(struct inl_journal_place *place, struct inl_inode *inode, struct inl_diag *diag)
{
	uint64_t end = inode->size >> inode->vol->block_bits, lblk = 0;

	if (!S_ISREG(inode->type) || (inode->raw.i_flags & (EXT4_FL_ENCRYPT | EXT4_FL_INLINE)) || end == 0 ||
	    end > inode->vol->n_blocks || end > UINT32_MAX)
		return inl_diag_set(diag, -EUCLEAN, "inode %u cannot be a journal", inode->ino);
	while (lblk < end) {
		struct inl_run run;
		uint64_t skip, n;
		int err = inl_map(inode, lblk, &run, diag);

		if (err)
			return err;
		if (run.kind != INL_EXTENT_DATA)
			return inl_diag_set(diag, -EUCLEAN, "the journal has a hole at its block %llu",
					    (unsigned long long)lblk);
		skip = lblk - run.lblk;
		run.lblk = lblk;
		run.pblk += skip;
		n = INL_MIN(run.len - skip, end - lblk);
		err = add_run(place, &run, (uint32_t)n);
		if (err)
			return err;
		lblk += n;
	}
	place->n_blocks = (uint32_t)end;
	return 0;
}

uint64_t inl_journal_pblk(const struct inl_journal_place *place, uint32_t block)
{
	size_t lo = 0, hi = place->n_runs;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (place->runs[mid].first <= block)
			lo = mid;
		else
			hi = mid;
	}
	return place->runs[lo].pblk + (block - place->runs[lo].first);
}

static uint64_t offset_of(const struct inl_journal_place *place, uint32_t block)
{
	return inl_journal_pblk(place, block) << place->vol->block_bits;
}

static bool has_csum(const uint8_t *super)
{
	return inl_load_be32(super + JBD2_SB_INCOMPAT) & (JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3);
}

static int check_super(const struct inl_journal_place *place, struct inl_diag *diag)
{
	const uint8_t *super = place->super;
	uint32_t type = inl_load_be32(super + JBD2_SB_TYPE), incompat, max_len, first;

	if (inl_load_be32(super) != JBD2_MAGIC || (type != JBD2_SUPER_V1 && type != JBD2_SUPER_V2))
		return inl_diag_set(diag, -EUCLEAN, "the journal has no superblock");
	if (type == JBD2_SUPER_V1)
		return inl_diag_set(diag, -EOPNOTSUPP, "the journal has the first format, which is not written here: make "
						       "it anew with tune2fs");
	incompat = inl_load_be32(super + JBD2_SB_INCOMPAT);
	if ((incompat & ~JBD2_INCOMPAT_KNOWN) || inl_load_be32(super + JBD2_SB_RO_COMPAT))
		return inl_diag_set(diag, -EOPNOTSUPP, "the journal has unknown features");
	if (has_csum(super) && inl_journal_super_csum(super) != inl_load_be32(super + JBD2_SB_CSUM))
		return inl_diag_set(diag, -EUCLEAN, "the checksum of the journal's superblock is wrong");
	max_len = inl_load_be32(super + JBD2_SB_MAX_LEN);
	first = inl_load_be32(super + JBD2_SB_FIRST);
	if (inl_load_be32(super + JBD2_SB_BLOCK_SIZE) != place->vol->block_size || max_len > place->n_blocks ||
	    first < 1 || first >= max_len)
		return inl_diag_set(diag, -EUCLEAN, "the journal's superblock is damaged: impossible sizes");
	return 0;
}

static int open_place(struct inl_journal_place *place, struct inl_inode *inode, struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	int err = map_all(place, inode, diag);

	if (err)
		return err;
	place->super = inl_new_blocks(vol->block_size, 1);
	if (!place->super)
		return -ENOMEM;
	err = inl_dev_read(vol->dev, offset_of(place, 0), place->super, vol->block_size);
	if (err)
		return inl_diag_set(diag, err, "the journal's superblock cannot be read");
	return check_super(place, diag);
}

int inl_journal_place_open(struct inl_volume *vol, struct inl_diag *diag, struct inl_journal_place *place)
{
	const struct ext2_super_block *sb = vol->fs->super;
	struct inl_inode *inode;
	int err;

	memset(place, 0, sizeof(*place));
	place->vol = vol;
	if (!sb->s_journal_inum || (sb->s_feature_incompat & EXT4_INCOMPAT_JOURNAL_DEV))
		return inl_diag_set(diag, -EOPNOTSUPP, "the journal is on another device: such a volume is not written here");
	if (vol->block_size % inl_dev_block_size(vol->dev))
		return inl_diag_set(diag, -EOPNOTSUPP, "the blocks of the device (%u bytes) are larger than the volume's",
				    inl_dev_block_size(vol->dev));
	err = inl_inode_load(vol, sb->s_journal_inum, diag, &inode);
	if (err)
		return err;
	err = open_place(place, inode, diag);
	inl_inode_put(inode);
	if (err)
		inl_journal_place_done(place);
	return err;
}

void inl_journal_place_done(struct inl_journal_place *place)
{
	free(place->runs);
	free(place->super);
	memset(place, 0, sizeof(*place));
}

int inl_journal_super_write(struct inl_journal_place *place)
{
	struct inl_dev *dev = place->vol->dev;
	int err;

	if (has_csum(place->super))
		inl_store_be32(place->super + JBD2_SB_CSUM, inl_journal_super_csum(place->super));
	err = inl_dev_write(dev, offset_of(place, 0), place->super, place->vol->block_size);
	return err ? err : inl_dev_flush(dev);
}

/* ---- open, close ------------------------------------------------------------------------------------------------- */

static uint32_t load_field(const struct inl_log *log, unsigned at)
{
	return inl_load_be32(log->place.super + at);
}

static void store_field(struct inl_log *log, unsigned at, uint32_t value)
{
	inl_store_be32(log->place.super + at, value);
}

/* The log that the volume was left with: empty, whole, and not of a size that Linux refuses. */
static int check_log(const struct inl_log *log, struct inl_diag *diag)
{
	int32_t error = (int32_t)load_field(log, JBD2_SB_ERRNO);

	if (error)
		return inl_diag_set(diag, -EROFS, "the journal was aborted by an error (%d): run e2fsck", (int)error);
	if (load_field(log, JBD2_SB_START))
		return inl_diag_set(diag, -EUCLEAN, "the journal holds transactions, but the volume is not marked so: run e2fsck");
	if (log->last - log->first < JBD2_MIN_BLOCKS - 1)
		return inl_diag_set(diag, -EOPNOTSUPP, "the journal is too small: %u blocks, %u are needed", log->last,
				    JBD2_MIN_BLOCKS);
	return 0;
}

/*
 * The features that Linux sets at a mount with default options. An empty log needs none of those that it had; that of
 * 64 bits stays. The area of fast commits becomes part of the log: whoever makes some says so again, on an empty log.
 */
static void set_features(struct inl_log *log, const struct inl_volume *vol)
{
	uint32_t compat = load_field(log, JBD2_SB_COMPAT) & ~(uint32_t)JBD2_COMPAT_CHECKSUM;

	log->csum = vol->metadata_csum;
	log->incompat = (load_field(log, JBD2_SB_INCOMPAT) & JBD2_INCOMPAT_64BIT) | JBD2_INCOMPAT_REVOKE;
	if (vol->fs->super->s_feature_incompat & EXT4_INCOMPAT_64BIT)
		log->incompat |= JBD2_INCOMPAT_64BIT;
	if (log->csum)
		log->incompat |= JBD2_INCOMPAT_CSUM_V3;
	store_field(log, JBD2_SB_COMPAT, compat);
	store_field(log, JBD2_SB_INCOMPAT, log->incompat);
	log->place.super[JBD2_SB_CSUM_TYPE] = log->csum ? JBD2_CSUM_CRC32C : 0;
}

static void set_format(struct inl_log *log)
{
	bool wide = log->incompat & JBD2_INCOMPAT_64BIT;

	log->seed = inl_crc32c(~0u, log->place.super + JBD2_SB_UUID, 16);
	log->tail_size = log->csum ? 4 : 0;
	log->tag_size = log->csum ? 16 : wide ? 12 : 8;
	log->revoke_size = wide ? 8 : 4;
	log->tags_max = (log->block_size - JBD2_HEADER - 16 - log->tail_size) / log->tag_size;
	log->revokes_max = (log->block_size - JBD2_REVOKE_FIRST - log->tail_size) / log->revoke_size;
}

static void set_needs_recovery(uint8_t *sb)
{
	inl_store_le32(sb + EXT4_SB_INCOMPAT, inl_load_le32(sb + EXT4_SB_INCOMPAT) | EXT4_INCOMPAT_RECOVER);
}

/*
 * Make the log that is empty the one to be replayed. A volume that is not marked and has such a log would be damaged.
 */
static int activate(struct inl_log *log, struct inl_volume *vol, struct inl_diag *diag)
{
	int err = inl_super_rewrite(vol, set_needs_recovery);

	if (err)
		return inl_diag_set(diag, err, "the superblock cannot be written");
	vol->fs->super->s_feature_incompat |= EXT4_INCOMPAT_RECOVER;
	store_field(log, JBD2_SB_START, log->head);
	store_field(log, JBD2_SB_SEQUENCE, log->tid);
	err = inl_journal_super_write(&log->place);
	return err ? inl_diag_set(diag, err, "the journal's superblock cannot be written") : 0;
}

int inl_log_open(struct inl_volume *vol, struct inl_diag *diag, struct inl_log **out)
{
	struct inl_log *log = calloc(1, sizeof(*log));
	int err;

	if (!log)
		return -ENOMEM;
	log->dev = vol->dev;
	log->block_size = vol->block_size;
	err = inl_journal_place_open(vol, diag, &log->place);
	if (err)
		goto fail;
	log->first = log->head = load_field(log, JBD2_SB_FIRST);
	log->last = load_field(log, JBD2_SB_MAX_LEN);
	log->tid = load_field(log, JBD2_SB_SEQUENCE);
	log->batch.max = INL_MIN(BATCH_LEN / log->block_size, BATCH_SEGS);
	log->batch.spares = inl_new_blocks(log->block_size, N_SPARES);
	err = log->batch.spares ? check_log(log, diag) : -ENOMEM;
	if (err)
		goto fail;
	set_features(log, vol);
	set_format(log);
	err = activate(log, vol, diag);
	if (err)
		goto fail;
	*out = log;
	return 0;
fail:
	inl_log_free(log);
	return err;
}

void inl_log_free(struct inl_log *log)
{
	if (!log)
		return;
	inl_journal_place_done(&log->place);
	free(log->batch.spares);
	free(log);
}

uint32_t inl_log_next_tid(const struct inl_log *log)
{
	return log->tid;
}

/* One block always stays free: a full ring would look like an empty one to who counts from head to start. */
uint32_t inl_log_len(const struct inl_log *log)
{
	return log->last - log->first - 1;
}

uint32_t inl_log_left(const struct inl_log *log)
{
	return inl_log_len(log) - log->used;
}

/* Write the superblock; an error ends the log, for what lies on the medium is not known then. */
static int write_super(struct inl_log *log)
{
	int err = inl_journal_super_write(&log->place);

	if (err)
		log->error = err;
	return err;
}

int inl_log_reset(struct inl_log *log)
{
	int err;

	if (log->error)
		return log->error;
	store_field(log, JBD2_SB_START, log->head);
	store_field(log, JBD2_SB_SEQUENCE, log->tid);
	err = write_super(log);
	if (!err)
		log->used = 0;
	return err;
}

/* As jbd2 does, leave one number out, so that nothing in the ring can belong to the next log. */
int inl_log_close(struct inl_log *log)
{
	if (log->error)
		return log->error;
	store_field(log, JBD2_SB_START, 0);
	store_field(log, JBD2_SB_SEQUENCE, log->tid + 1);
	return write_super(log);
}

void inl_log_abort(struct inl_log *log, int err)
{
	if (!log->error)
		log->error = err;
	store_field(log, JBD2_SB_ERRNO, (uint32_t)err);
	inl_journal_super_write(&log->place);
}

/* ---- blocks of the log ------------------------------------------------------------------------------------------- */

static int send_batch(struct inl_log *log)
{
	struct batch *batch = &log->batch;
	struct inl_bio bio;
	int err;

	if (!batch->n)
		return 0;
	inl_bio_init_plain(&bio, INL_WRITE, batch->pblk << log->place.vol->block_bits, batch->segs, batch->n);
	err = inl_submit_wait(log->dev, &bio);
	batch->n = batch->n_spares = 0;
	return err;
}

/* Room for one more block, and for its bytes, in the batch. */
static int make_room(struct inl_log *log)
{
	const struct batch *batch = &log->batch;

	if (batch->n == batch->max || batch->n_spares == N_SPARES ||
	    (batch->n && inl_journal_pblk(&log->place, log->head) != batch->pblk + batch->n))
		return send_batch(log);
	return 0;
}

/* The next block of the log. After make_room. */
static void add_block(struct inl_log *log, const uint8_t *bytes)
{
	struct batch *batch = &log->batch;

	if (!batch->n)
		batch->pblk = inl_journal_pblk(&log->place, log->head);
	batch->segs[batch->n++] = (struct iovec){ (void *)(uintptr_t)bytes, log->block_size };
	if (++log->head == log->last)
		log->head = log->first;
}

/* A block to be filled and added at once. After make_room. */
static uint8_t *take_spare(struct inl_log *log)
{
	return log->batch.spares + (size_t)log->batch.n_spares++ * log->block_size;
}

/* A block of the log's own; all zeros behind its header. After make_room. */
static uint8_t *take_record(struct inl_log *log, uint32_t type)
{
	uint8_t *record = take_spare(log);

	memset(record, 0, log->block_size);
	inl_store_be32(record, JBD2_MAGIC);
	inl_store_be32(record + 4, type);
	inl_store_be32(record + 8, log->tid);
	return record;
}

/* The checksum in the last four bytes, which are zero so far. */
static void seal_tail(const struct inl_log *log, uint8_t *record)
{
	if (log->csum)
		inl_store_be32(record + log->block_size - 4, inl_crc32c(log->seed, record, log->block_size));
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

static uint32_t div_up(size_t n, unsigned by)
{
	return (uint32_t)((n + by - 1) / by);
}

uint32_t inl_log_need(const struct inl_log *log, size_t n_blocks, size_t n_revokes)
{
	return (uint32_t)n_blocks + div_up(n_blocks, log->tags_max) + div_up(n_revokes, log->revokes_max) + 1;
}

static int write_revoke_block(struct inl_log *log, const uint64_t *blocks, unsigned n)
{
	uint8_t *record;
	int err = make_room(log);

	if (err)
		return err;
	record = take_record(log, JBD2_REVOKE);
	inl_store_be32(record + JBD2_REVOKE_USED, JBD2_REVOKE_FIRST + n * log->revoke_size);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = record + JBD2_REVOKE_FIRST + (size_t)i * log->revoke_size;

		if (log->revoke_size == 8)
			inl_store_be64(p, blocks[i]);
		else
			inl_store_be32(p, (uint32_t)blocks[i]);
	}
	seal_tail(log, record);
	add_block(log, record);
	return 0;
}

/* A copy may not begin as a block of the log's own does. */
static bool is_escaped(const uint8_t *bytes)
{
	return inl_load_be32(bytes) == JBD2_MAGIC;
}

/* Of the copy as it lies in the log. */
static uint32_t copy_csum(const struct inl_log *log, const uint8_t *bytes)
{
	static const uint8_t zero[4];
	uint8_t tid[4];
	uint32_t crc;

	inl_store_be32(tid, log->tid);
	crc = inl_crc32c(log->seed, tid, sizeof(tid));
	crc = inl_crc32c(crc, is_escaped(bytes) ? zero : bytes, 4);
	return inl_crc32c(crc, bytes + 4, log->block_size - 4);
}

static void put_tag(const struct inl_log *log, uint8_t *p, const struct inl_log_block *block, uint32_t flags)
{
	if (is_escaped(block->bytes))
		flags |= JBD2_TAG_ESCAPE;
	inl_store_be32(p, (uint32_t)block->pblk);
	if (log->incompat & JBD2_INCOMPAT_64BIT)
		inl_store_be32(p + 8, (uint32_t)(block->pblk >> 32));
	if (log->csum) {
		inl_store_be32(p + 4, flags);
		inl_store_be32(p + 12, copy_csum(log, block->bytes));
	} else {
		inl_store_be16(p + 6, (uint16_t)flags);
	}
}

static int write_descriptor(struct inl_log *log, const struct inl_log_block *blocks, unsigned n)
{
	uint8_t *record;
	uint32_t at = JBD2_HEADER;
	int err = make_room(log);

	if (err)
		return err;
	record = take_record(log, JBD2_DESCRIPTOR);
	for (unsigned i = 0; i < n; i++) {
		put_tag(log, record + at, &blocks[i],
			(i ? JBD2_TAG_SAME_UUID : 0) | (i + 1 == n ? JBD2_TAG_LAST : 0));
		at += log->tag_size;
		if (i)
			continue;
		memcpy(record + at, log->place.super + JBD2_SB_UUID, 16);
		at += 16;
	}
	seal_tail(log, record);
	add_block(log, record);
	return 0;
}

static int write_copy(struct inl_log *log, const uint8_t *bytes)
{
	int err = make_room(log);

	if (err)
		return err;
	if (is_escaped(bytes)) {
		uint8_t *copy = take_spare(log);

		memset(copy, 0, 4);
		memcpy(copy + 4, bytes + 4, log->block_size - 4);
		bytes = copy;
	}
	add_block(log, bytes);
	return 0;
}

static int write_copies(struct inl_log *log, const struct inl_log_block *blocks, unsigned n)
{
	int err = write_descriptor(log, blocks, n);

	for (unsigned i = 0; i < n && !err; i++)
		err = write_copy(log, blocks[i].bytes);
	return err;
}

/* All but the commit block. */
static int write_body(struct inl_log *log, const struct inl_log_txn *txn)
{
	int err = 0;

	for (size_t i = 0, n; i < txn->n_revokes && !err; i += n) {
		n = INL_MIN(txn->n_revokes - i, log->revokes_max);
		err = write_revoke_block(log, txn->revokes + i, (unsigned)n);
	}
	for (size_t i = 0, n; i < txn->n_blocks && !err; i += n) {
		n = INL_MIN(txn->n_blocks - i, log->tags_max);
		err = write_copies(log, txn->blocks + i, (unsigned)n);
	}
	return err ? err : send_batch(log);
}

/* The times of commits never go back: by them a replay tells damage from what an older round has left. */
static struct inl_time commit_time(struct inl_log *log)
{
	struct inl_time now = inl_now(log->place.vol);

	if (now.sec > log->time.sec || (now.sec == log->time.sec && now.nsec > log->time.nsec))
		log->time = now;
	return log->time;
}

static int write_commit(struct inl_log *log)
{
	struct inl_time time = commit_time(log);
	uint8_t *record;
	int err = make_room(log);

	if (err)
		return err;
	record = take_record(log, JBD2_COMMIT);
	inl_store_be64(record + JBD2_COMMIT_SEC, (uint64_t)time.sec);
	inl_store_be32(record + JBD2_COMMIT_NSEC, time.nsec);
	if (log->csum)
		inl_store_be32(record + JBD2_COMMIT_CSUM, inl_crc32c(log->seed, record, log->block_size));
	add_block(log, record);
	return send_batch(log);
}

int inl_log_commit(struct inl_log *log, const struct inl_log_txn *txn)
{
	uint32_t need = inl_log_need(log, txn->n_blocks, txn->n_revokes);
	int err;

	if (log->error)
		return log->error;
	if (txn->tid != log->tid)
		return -EINVAL;
	if (need > inl_log_left(log))
		return -ENOSPC;
	err = write_body(log, txn);
	if (!err)
		err = inl_dev_flush(log->dev);
	if (!err)
		err = write_commit(log);
	if (!err)
		err = inl_dev_flush(log->dev);
	if (err) {
		log->error = err;
		return err;
	}
	log->used += need;
	log->tid++;
	return 0;
}
