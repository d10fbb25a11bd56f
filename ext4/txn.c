/*
 * ext4/txn.c: transactions: what operations have changed, on its way to the log and home.
 * Not here: the form of the log (log.c); operations (op.c).
 * Read more: ext4/change.h; ARCHITECTURE.md, "The life of a change".
 *
 * A transaction is *running* while operations join it; then it is frozen, written to the log and flushed: *committed*.
 * What is committed goes home at a checkpoint, all of it at once, and the log is empty again.
 *
 * Locks: txn->commit, which whoever commits or checkpoints holds throughout, then vol->lock. No I/O is done with
 * vol->lock.
 */
#include "ext4/cache.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BYTES	(16u << 20) /* of one transaction */
#define MAX_LOGGED	(48u << 20) /* bytes that wait for a checkpoint */
#define MAX_AGE		5	    /* seconds: after that the next operation begins with a commit */
#define N_IOV		256u

struct inl_txn {
	pthread_mutex_t commit;
	struct inl_log *log;	/* NULL: the volume has no journal */
	uint64_t n_commits, n_committed; /* with commit held; committed: blocks */
	unsigned max_blocks;	/* of one transaction */

	/* vol->lock: */
	struct inl_link running;
	size_t n_running;
	struct inl_block **revoked; /* by the running transaction */
	size_t n_revoked, room_revoked;
	struct timespec started; /* when the first block joined */
	bool open;		 /* inl_txn_open has succeeded */
	int aborted;		 /* 0, or the error that ended it all */
	struct inl_link logged;	 /* changed only with commit held too */
	size_t n_logged;
};

/* A transaction that is frozen. */
struct frozen {
	struct inl_log_txn log;
	struct inl_log_block *blocks;
	struct inl_block **owners; /* of blocks; pinned */
	struct inl_page **pages;   /* references */
	uint64_t *revokes;
	struct inl_block **revoked; /* pinned */
	size_t n_revoked;
};

/* ---- the running transaction: with vol->lock held ---------------------------------------------------------------- */

void inl_txn_join(struct inl_volume *vol, struct inl_block *block)
{
	struct inl_txn *txn = vol->txn;

	if (!txn->n_running && !txn->n_revoked)
		clock_gettime(CLOCK_MONOTONIC_COARSE, &txn->started);
	inl_block_pin(block);
	inl_link_append(&txn->running, &block->txn);
	txn->n_running++;
	block->running = true;
}

void inl_txn_leave(struct inl_volume *vol, struct inl_block *block)
{
	inl_link_remove(&block->txn);
	vol->txn->n_running--;
	block->running = false;
	inl_block_put(block);
}

int inl_txn_revoke(struct inl_volume *vol, struct inl_block *block)
{
	struct inl_txn *txn = vol->txn;

	if (txn->n_revoked == txn->room_revoked) {
		size_t room = txn->room_revoked ? 2 * txn->room_revoked : 64;
		struct inl_block **grown = reallocarray(txn->revoked, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		txn->revoked = grown;
		txn->room_revoked = room;
	}
	inl_block_pin(block);
	txn->revoked[txn->n_revoked++] = block;
	block->revoked = true;
	return 0;
}

/* Mostly the latest one, of an operation that is cancelled. */
void inl_txn_unrevoke(struct inl_volume *vol, struct inl_block *block)
{
	struct inl_txn *txn = vol->txn;
	size_t i = txn->n_revoked;

	while (txn->revoked[--i] != block)
		;
	txn->revoked[i] = txn->revoked[--txn->n_revoked];
	block->revoked = false;
	inl_block_put(block);
}

static int read_only(const struct inl_volume *vol, int aborted, struct inl_diag *diag)
{
	if (aborted)
		return inl_diag_set(diag, -EROFS, "the volume is read-only since an error of its device (%s)",
				    strerror(-aborted));
	return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
}

/* Before so many blocks join: is the running transaction full, or old? */
static bool must_commit(const struct inl_volume *vol, unsigned credits)
{
	const struct inl_txn *txn = vol->txn;
	struct timespec now;

	if (txn->n_running + txn->n_revoked == 0)
		return false;
	if (txn->n_running + credits > txn->max_blocks)
		return true;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return !vol->draws.fixed && now.tv_sec - txn->started.tv_sec >= MAX_AGE;
}

int inl_txn_reserve(struct inl_volume *vol, unsigned credits, struct inl_diag *diag)
{
	struct inl_txn *txn = vol->txn;

	if (!txn)
		return read_only(vol, 0, diag);
	if (credits > inl_op_credits_max(vol))
		return -E2BIG;
	for (;;) {
		int err;

		pthread_mutex_lock(&vol->lock);
		if (txn->aborted) {
			err = read_only(vol, txn->aborted, diag);
			pthread_mutex_unlock(&vol->lock);
			return err;
		}
		if (!must_commit(vol, credits))
			return 0;
		pthread_mutex_unlock(&vol->lock);
		err = inl_txn_commit(vol);
		if (err)
			return read_only(vol, err, diag);
	}
}

unsigned inl_op_credits_max(const struct inl_volume *vol)
{
	return vol->txn->max_blocks;
}

/* ---- writing home ------------------------------------------------------------------------------------------------ */

struct home {
	uint64_t pblk;
	const uint8_t *bytes;
};

static int compare_homes(const void *a, const void *b)
{
	const struct home *x = a, *y = b;

	return x->pblk < y->pblk ? -1 : x->pblk > y->pblk;
}

/* Sorted: what lies side by side is written at once. */
static int write_homes(struct inl_volume *vol, struct home *homes, size_t n)
{
	struct iovec iov[N_IOV];
	int err = 0;

	if (n)
		qsort(homes, n, sizeof(*homes), compare_homes);
	for (size_t at = 0, run; at < n && !err; at += run) {
		struct inl_bio bio;

		for (run = 0; run < N_IOV && at + run < n && homes[at + run].pblk == homes[at].pblk + run; run++)
			iov[run] = (struct iovec){ (void *)homes[at + run].bytes, vol->block_size };
		inl_bio_init_plain(&bio, INL_WRITE, homes[at].pblk << vol->block_bits, iov, (unsigned)run);
		err = inl_submit_wait(vol->dev, &bio);
	}
	return err;
}

/* ---- commit ------------------------------------------------------------------------------------------------------ */

static void frozen_done(struct frozen *frozen)
{
	free(frozen->blocks);
	free(frozen->owners);
	free(frozen->pages);
	free(frozen->revokes);
	free(frozen->revoked);
}

static int frozen_init(struct frozen *frozen, const struct inl_txn *txn)
{
	size_t n = txn->n_running, r = txn->n_revoked;

	frozen->blocks = calloc(n + 1, sizeof(*frozen->blocks));
	frozen->owners = calloc(n + 1, sizeof(struct inl_block *));
	frozen->pages = calloc(n + 1, sizeof(struct inl_page *));
	frozen->revokes = calloc(r + 1, sizeof(*frozen->revokes));
	frozen->revoked = calloc(r + 1, sizeof(struct inl_block *));
	if (frozen->blocks && frozen->owners && frozen->pages && frozen->revokes && frozen->revoked)
		return 0;
	frozen_done(frozen);
	return -ENOMEM;
}

/* With vol->lock held: the running transaction becomes the frozen one, and an empty one runs. Pins go along. */
static int freeze(struct inl_volume *vol, struct frozen *frozen)
{
	struct inl_txn *txn = vol->txn;
	struct inl_link *link, *next;
	int err = frozen_init(frozen, txn);
	size_t n = 0;

	if (err)
		return err;
	for (link = txn->running.next; link != &txn->running; link = next, n++) {
		struct inl_block *block = INL_LINK_OF(struct inl_block, txn, link);

		next = link->next;
		block->running = false;
		block->committing = true;
		inl_page_get(vol->cache, block->page);
		frozen->owners[n] = block;
		frozen->pages[n] = block->page;
		frozen->blocks[n] = (struct inl_log_block){ block->pblk, block->page->bytes };
	}
	for (size_t i = 0; i < txn->n_revoked; i++) {
		frozen->revoked[i] = txn->revoked[i];
		frozen->revokes[i] = txn->revoked[i]->pblk;
		txn->revoked[i]->revoked = false;
	}
	frozen->n_revoked = txn->n_revoked;
	frozen->log = (struct inl_log_txn){ .blocks = frozen->blocks, .n_blocks = n, .revokes = frozen->revokes,
					    .n_revokes = txn->n_revoked };
	inl_link_init(&txn->running);
	txn->n_running = txn->n_revoked = 0;
	inl_alloc_frozen(vol->alloc);
	return 0;
}

/* The block's content is in the log, or home: what the log had before is void. */
static void set_logged(struct inl_volume *vol, struct inl_block *block, struct inl_page *page)
{
	struct inl_txn *txn = vol->txn;
	struct inl_page *old = block->logged;

	block->logged = page;
	if (!old && page) {
		inl_block_pin(block);
		inl_link_append(&txn->logged, &block->ckpt);
		txn->n_logged++;
	} else if (old && !page) {
		inl_link_remove(&block->ckpt);
		txn->n_logged--;
		inl_block_put(block);
	}
	inl_page_put(vol->cache, old);
}

/* With vol->lock held: the frozen transaction has been committed (or never will be). */
static void thaw(struct inl_volume *vol, struct frozen *frozen, bool committed)
{
	for (size_t i = 0; i < frozen->log.n_blocks; i++) {
		struct inl_block *block = frozen->owners[i];

		block->committing = false;
		if (committed && vol->txn->log)
			set_logged(vol, block, frozen->pages[i]);
		else
			inl_page_put(vol->cache, frozen->pages[i]);
		inl_block_put(block);
	}
	for (size_t i = 0; i < frozen->n_revoked; i++) {
		if (committed && frozen->revoked[i]->logged)
			set_logged(vol, frozen->revoked[i], NULL);
		inl_block_put(frozen->revoked[i]);
	}
	if (committed)
		inl_alloc_committed(vol->alloc);
}

static void abort_journal(struct inl_volume *vol, int err)
{
	struct inl_txn *txn = vol->txn;

	pthread_mutex_lock(&vol->lock);
	if (!txn->aborted)
		txn->aborted = err;
	pthread_mutex_unlock(&vol->lock);
	/* Of a volume that somebody else has taken not even that is written. */
	if (txn->log && err != -EBUSY)
		inl_log_abort(txn->log, err);
}

/* With commit held: everything that the log has goes home, and the log is empty. */
static int checkpoint(struct inl_volume *vol)
{
	struct inl_txn *txn = vol->txn;
	struct inl_link *link;
	struct home *homes;
	size_t n = 0;
	int err;

	pthread_mutex_lock(&vol->lock);
	homes = calloc(txn->n_logged + 1, sizeof(*homes));
	for (link = txn->logged.next; homes && link != &txn->logged; link = link->next) {
		struct inl_block *block = INL_LINK_OF(struct inl_block, ckpt, link);

		homes[n++] = (struct home){ block->pblk, block->logged->bytes };
	}
	pthread_mutex_unlock(&vol->lock);
	if (!homes)
		return -ENOMEM;
	/* Pages that are logged do not change, and blocks leave that list only here and in a commit. */
	err = write_homes(vol, homes, n);
	free(homes);
	if (!err)
		err = inl_dev_flush(vol->dev);
	if (!err)
		err = inl_log_reset(txn->log);
	if (err)
		return err;
	pthread_mutex_lock(&vol->lock);
	while ((link = txn->logged.next) != &txn->logged)
		set_logged(vol, INL_LINK_OF(struct inl_block, ckpt, link), NULL);
	pthread_mutex_unlock(&vol->lock);
	return 0;
}

static int commit_to_log(struct inl_volume *vol, struct frozen *frozen)
{
	struct inl_log *log = vol->txn->log;
	int err = 0;

	if (inl_log_need(log, frozen->log.n_blocks, frozen->log.n_revokes) > inl_log_left(log))
		err = checkpoint(vol);
	frozen->log.tid = inl_log_next_tid(log);
	if (!err)
		err = inl_log_commit(log, &frozen->log);
	vol->txn->n_commits += !err;
	vol->txn->n_committed += err ? 0 : frozen->log.n_blocks;
	return err;
}

/* Without a journal blocks go home at once, the data that they expose before them. */
static int commit_home(struct inl_volume *vol, struct frozen *frozen)
{
	struct home *homes = calloc(frozen->log.n_blocks + 1, sizeof(*homes));
	int err;

	if (!homes)
		return -ENOMEM;
	for (size_t i = 0; i < frozen->log.n_blocks; i++)
		homes[i] = (struct home){ frozen->blocks[i].pblk, frozen->blocks[i].bytes };
	err = inl_dev_flush(vol->dev);
	if (!err)
		err = write_homes(vol, homes, frozen->log.n_blocks);
	free(homes);
	return err ? err : inl_dev_flush(vol->dev);
}

static int commit_frozen(struct inl_volume *vol, struct frozen *frozen)
{
	int err;

	err = vol->txn->log ? commit_to_log(vol, frozen) : commit_home(vol, frozen);
	pthread_mutex_lock(&vol->lock);
	thaw(vol, frozen, !err);
	pthread_mutex_unlock(&vol->lock);
	return err;
}

static bool log_is_full(const struct inl_volume *vol)
{
	const struct inl_txn *txn = vol->txn;

	return txn->log && (inl_log_left(txn->log) < inl_log_len(txn->log) / 2 ||
			    txn->n_logged > MAX_LOGGED >> vol->block_bits);
}

/* With commit held. */
static int commit(struct inl_volume *vol)
{
	struct inl_txn *txn = vol->txn;
	struct frozen frozen = { 0 };
	bool empty;
	int err;

	pthread_mutex_lock(&vol->lock);
	err = txn->aborted ? -EIO : 0;
	empty = !txn->n_running && !txn->n_revoked;
	if (!err && vol->mmp)
		err = inl_mmp_check(vol->mmp) ? -EBUSY : 0;
	if (!err && !empty)
		err = freeze(vol, &frozen);
	pthread_mutex_unlock(&vol->lock);
	if (err == -EBUSY)
		abort_journal(vol, err);
	if (err)
		return err;
	if (empty)
		err = inl_dev_flush(vol->dev);
	else
		err = commit_frozen(vol, &frozen);
	frozen_done(&frozen);
	if (!err && log_is_full(vol))
		err = checkpoint(vol);
	/* A transaction that was not committed cannot be put back, and those behind it need it. */
	if (err)
		abort_journal(vol, err);
	return err;
}

int inl_txn_commit(struct inl_volume *vol)
{
	int err;

	if (!vol->txn)
		return -EROFS;
	pthread_mutex_lock(&vol->txn->commit);
	err = commit(vol);
	pthread_mutex_unlock(&vol->txn->commit);
	return err;
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

/* A volume without a journal says in this way that it is being written. */
static void clear_valid(uint8_t *sb)
{
	inl_store_le16(sb + EXT4_SB_STATE, (uint16_t)(inl_load_le16(sb + EXT4_SB_STATE) & ~EXT4_STATE_VALID));
}

static void set_valid(uint8_t *sb)
{
	inl_store_le16(sb + EXT4_SB_STATE, (uint16_t)(inl_load_le16(sb + EXT4_SB_STATE) | EXT4_STATE_VALID));
}

static void clear_needs_recovery(uint8_t *sb)
{
	inl_store_le32(sb + EXT4_SB_INCOMPAT, inl_load_le32(sb + EXT4_SB_INCOMPAT) & ~(uint32_t)EXT4_INCOMPAT_RECOVER);
}

static unsigned max_blocks(const struct inl_volume *vol, const struct inl_log *log)
{
	unsigned max = MAX_BYTES >> vol->block_bits;

	if (log && inl_log_len(log) / 4 < max)
		max = inl_log_len(log) / 4;
	return max;
}

int inl_txn_open(struct inl_volume *vol, struct inl_diag *diag)
{
	struct inl_txn *txn = calloc(1, sizeof(*txn));
	int err = 0;

	if (!txn)
		return -ENOMEM;
	pthread_mutex_init(&txn->commit, NULL);
	inl_link_init(&txn->running);
	inl_link_init(&txn->logged);
	if (vol->fs->super->s_feature_compat & EXT4_COMPAT_HAS_JOURNAL)
		err = inl_log_open(vol, diag, &txn->log);
	txn->max_blocks = max_blocks(vol, txn->log);
	vol->txn = txn;
	if (!err && !txn->log)
		err = inl_super_rewrite(vol, clear_valid);
	if (!err && txn->log && txn->max_blocks < 64)
		err = inl_diag_set(diag, -EOPNOTSUPP, "the journal is too small to write with it: %u blocks",
				   inl_log_len(txn->log));
	txn->open = !err;
	return err;
}

bool inl_txn_writable(struct inl_volume *vol)
{
	bool writable;

	if (!vol->txn)
		return false;
	pthread_mutex_lock(&vol->lock);
	writable = vol->txn->open && !vol->txn->aborted;
	pthread_mutex_unlock(&vol->lock);
	return writable;
}

void inl_txn_journal(struct inl_volume *vol, struct inl_volume_journal *journal)
{
	struct inl_txn *txn = vol->txn;

	if (!txn || !txn->log)
		return;
	pthread_mutex_lock(&txn->commit);
	journal->n_blocks = inl_log_len(txn->log);
	journal->n_used = journal->n_blocks - inl_log_left(txn->log);
	journal->n_commits = txn->n_commits;
	journal->n_logged = txn->n_committed;
	pthread_mutex_unlock(&txn->commit);
}

int inl_txn_error(struct inl_volume *vol)
{
	int err;

	if (!vol->txn)
		return 0;
	pthread_mutex_lock(&vol->lock);
	err = vol->txn->aborted;
	pthread_mutex_unlock(&vol->lock);
	return err;
}

static int sync_super(struct inl_handle *op, void *arg)
{
	return inl_group_sync_super(op);
}

/* With commit held. */
static int close_clean(struct inl_volume *vol)
{
	struct inl_txn *txn = vol->txn;
	int err = commit(vol);

	if (!err && txn->log)
		err = checkpoint(vol);
	if (!err && txn->log)
		err = inl_log_close(txn->log);
	return err ? err : inl_super_rewrite(vol, txn->log ? clear_needs_recovery : set_valid);
}

int inl_txn_close(struct inl_volume *vol)
{
	struct inl_txn *txn = vol->txn;
	int err = 0;

	if (!txn)
		return 0;
	if (txn->open)
		err = inl_op_run(vol, 2, sync_super, NULL, NULL);
	if (err == -EROFS)
		err = -EIO;
	pthread_mutex_lock(&txn->commit);
	if (!err && txn->open)
		err = close_clean(vol);
	pthread_mutex_unlock(&txn->commit);
	inl_log_free(txn->log);
	free(txn->revoked);
	pthread_mutex_destroy(&txn->commit);
	free(txn);
	vol->txn = NULL;
	return err;
}
