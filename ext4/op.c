/*
 * ext4/op.c: operations: changes of the metadata that happen whole or not at all.
 * Not here: what is changed (the callers); how it becomes durable (txn.c).
 * Read more: ext4/change.h; ARCHITECTURE.md, "The life of a change".
 *
 * Everything here but inl_op_run and inl_op_look runs with vol->lock held.
 */
#include "ext4/cache.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNDO_BYTES 64u
#define N_HELD	   24u
#define AHEAD_MAX  127u /* blocks; less than the smallest cache has */

enum undo_kind { UNDO_PAGE, UNDO_FORGET, UNDO_INODE, UNDO_CALL };

struct undo {
	enum undo_kind kind;
	bool was_running, was_revoked;
	struct inl_block *block; /* pinned by op->held */
	struct inl_page *page;	 /* UNDO_PAGE: what it was, a reference; NULL: it was not cached */
	struct inl_verdict good;
	uint64_t op_seq;
	struct inl_inode *inode;
	size_t saved;		 /* UNDO_INODE: where in the arena */
	inl_undo_fn *fn;
	uint8_t what[UNDO_BYTES];
};

/* What operations need again and again: kept by the volume, used by the one that has vol->lock. */
struct inl_op_pool {
	struct undo *undo;
	size_t n_undo, room_undo;
	uint8_t *arena; /* inodes as they were */
	size_t n_arena, room_arena;
	uint64_t seq;
};

struct inl_handle {
	struct inl_volume *vol;
	struct inl_op_pool *pool; /* NULL: this one only looks, without a lock */
	bool look;
	unsigned credits, used;
	uint64_t seq;
	bool missed;
	bool busy, discarding; /* there was no room, and blocks of this kind */
	bool alone;	       /* nobody discards meanwhile */
	uint64_t missing;
	unsigned ahead; /* how many blocks behind the next one that is missed are read too */
	unsigned n_held, room_held;
	struct inl_block **held; /* pinned until the end */
	struct inl_block *held_few[N_HELD];
	struct inl_inode *changed; /* by op_next */
	struct inl_inode *later;   /* by later_next */
};

static _Thread_local struct inl_handle *current;

struct inl_handle *inl_op_current(const struct inl_volume *vol)
{
	return current && current->vol == vol ? current : NULL;
}

struct inl_volume *inl_op_vol(const struct inl_handle *op)
{
	return op->vol;
}

unsigned inl_op_credits_left(const struct inl_handle *op)
{
	return op->credits - op->used;
}

int inl_op_miss(struct inl_handle *op, uint64_t pblk)
{
	op->missed = true;
	op->missing = pblk;
	return -EAGAIN;
}

int inl_op_pool_new(struct inl_op_pool **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void inl_op_pool_free(struct inl_op_pool *pool)
{
	if (!pool)
		return;
	free(pool->undo);
	free(pool->arena);
	free(pool);
}

/* ---- what an operation holds ------------------------------------------------------------------------------------- */

/* Take over a pin. */
static int hold(struct inl_handle *op, struct inl_block *block)
{
	if (op->n_held == op->room_held) {
		unsigned room = 2 * op->room_held;
		struct inl_block **grown = op->held == op->held_few ? malloc(room * sizeof(*grown)) :
								     realloc(op->held, room * sizeof(*grown));

		if (!grown) {
			inl_block_put(block);
			return -ENOMEM;
		}
		if (op->held == op->held_few)
			memcpy(grown, op->held_few, sizeof(op->held_few));
		op->held = grown;
		op->room_held = room;
	}
	op->held[op->n_held++] = block;
	return 0;
}

static void release(struct inl_handle *op)
{
	while (op->n_held)
		inl_block_put(op->held[--op->n_held]);
	if (op->held != op->held_few)
		free(op->held);
	op->held = op->held_few;
	op->room_held = N_HELD;
}

static struct undo *undo_push(struct inl_handle *op, enum undo_kind kind)
{
	struct inl_op_pool *pool = op->pool;
	struct undo *undo;

	if (pool->n_undo == pool->room_undo) {
		size_t room = pool->room_undo ? 2 * pool->room_undo : 64;
		struct undo *grown = reallocarray(pool->undo, room, sizeof(*grown));

		if (!grown)
			return NULL;
		pool->undo = grown;
		pool->room_undo = room;
	}
	undo = &pool->undo[pool->n_undo++];
	undo->kind = kind;
	return undo;
}

int inl_op_undo(struct inl_handle *op, inl_undo_fn *fn, const void *what, size_t len)
{
	struct undo *undo;

	if (len > UNDO_BYTES || op->look)
		return -EINVAL;
	undo = undo_push(op, UNDO_CALL);
	if (!undo)
		return -ENOMEM;
	undo->fn = fn;
	memcpy(undo->what, what, len);
	return 0;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static struct undo *undo_block(struct inl_handle *op, enum undo_kind kind, struct inl_block *block, struct inl_page *page)
{
	struct undo *undo = undo_push(op, kind);

	if (!undo)
		return NULL;
	undo->block = block;
	undo->page = page;
	undo->was_running = block->running;
	undo->was_revoked = block->revoked;
	undo->good = block->good;
	undo->op_seq = block->op_seq;
	return undo;
}

/* The block belongs to the running transaction from now on. */
static void join(struct inl_handle *op, struct inl_block *block)
{
	block->op_seq = op->seq;
	op->used++;
	if (block->revoked)
		inl_txn_unrevoke(op->vol, block);
	if (!block->running)
		inl_txn_join(op->vol, block);
}

int inl_block_modify(struct inl_handle *op, struct inl_block *block, uint8_t **bytes)
{
	struct inl_cache *cache = op->vol->cache;
	struct inl_page *page;

	if (op->look)
		return -EROFS;
	if (block->op_seq == op->seq && block->running) {
		*bytes = block->page->bytes;
		return 0;
	}
	if (op->used >= op->credits)
		return -E2BIG;
	inl_block_pin(block);
	if (hold(op, block))
		return -ENOMEM;
	page = inl_page_new(cache);
	if (!page)
		return -ENOMEM;
	if (!undo_block(op, UNDO_PAGE, block, block->page)) {
		inl_page_put(cache, page);
		return -ENOMEM;
	}
	memcpy(page->bytes, block->page->bytes, op->vol->block_size);
	inl_block_swap(block, page);
	join(op, block);
	*bytes = page->bytes;
	return 0;
}

int inl_block_change(struct inl_handle *op, uint64_t pblk, uint8_t **bytes)
{
	struct inl_block *block;
	int err = inl_block_get(op->vol, pblk, &block);

	if (err)
		return err;
	err = inl_block_modify(op, block, bytes);
	inl_block_put(block);
	return err;
}

int inl_block_new(struct inl_handle *op, uint64_t pblk, uint8_t **bytes)
{
	struct inl_volume *vol = op->vol;
	struct inl_block *block;
	struct inl_page *page;
	bool fresh;
	int err;

	if (op->look)
		return -EROFS;
	if (!inl_block_in_range(vol, pblk, 1))
		return -EUCLEAN;
	if (op->used >= op->credits)
		return -E2BIG;
	page = inl_page_new(vol->cache);
	if (!page)
		return -ENOMEM;
	memset(page->bytes, 0, vol->block_size);
	err = inl_block_make(vol, pblk, page, &block, &fresh);
	if (err) {
		inl_page_put(vol->cache, page);
		return err;
	}
	inl_block_pin(block); /* hold takes over the other one, also if it fails */
	err = hold(op, block);
	if (!err && !undo_block(op, UNDO_PAGE, block, fresh ? NULL : block->page))
		err = -ENOMEM;
	if (err) {
		inl_page_put(vol->cache, fresh ? inl_block_swap(block, NULL) : page);
		inl_block_put(block);
		return err;
	}
	inl_block_put(block);
	if (!fresh)
		inl_block_swap(block, page);
	block->good = (struct inl_verdict){ 0 };
	join(op, block);
	*bytes = page->bytes;
	return 0;
}

int inl_block_forget(struct inl_handle *op, uint64_t pblk)
{
	struct inl_block *block = inl_block_find(op->vol, pblk);

	/* What is in the log or on its way there is cached. */
	if (!block)
		return 0;
	if (hold(op, block))
		return -ENOMEM;
	if (!undo_block(op, UNDO_FORGET, block, NULL))
		return -ENOMEM;
	if (block->running)
		inl_txn_leave(op->vol, block);
	if ((block->logged || block->committing) && !block->revoked)
		return inl_txn_revoke(op->vol, block);
	return 0;
}

int inl_block_look(struct inl_handle *op, uint64_t pblk, const uint8_t **bytes)
{
	struct inl_block *block;
	int err = inl_block_get(op->vol, pblk, &block);

	if (err)
		return err;
	*bytes = block->page->bytes;
	return hold(op, block);
}

int inl_block_look_verified(struct inl_handle *op, struct inl_inode *inode, uint64_t pblk, inl_block_verify verify, unsigned arg,
			    const uint8_t **bytes)
{
	struct inl_block *block;
	int err = inl_block_get_verified(inode, pblk, verify, arg, &block);

	if (err)
		return err;
	*bytes = block->page->bytes;
	return hold(op, block);
}

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

static size_t saved_size(const struct inl_volume *vol)
{
	return sizeof(struct inl_inode_saved) + EXT2_INODE_SIZE(vol->fs->super);
}

/* Save the inode as it is, and list it as one that is written when the operation ends. */
static int inode_changes(struct inl_handle *op, struct inl_inode *inode)
{
	struct inl_op_pool *pool = op->pool;
	size_t len = saved_size(op->vol);
	struct undo *undo;

	if (pool->n_arena + len > pool->room_arena) {
		size_t room = 2 * (pool->room_arena + len);
		uint8_t *grown = realloc(pool->arena, room);

		if (!grown)
			return -ENOMEM;
		pool->arena = grown;
		pool->room_arena = room;
	}
	undo = undo_push(op, UNDO_INODE);
	if (!undo)
		return -ENOMEM;
	undo->inode = inode;
	undo->op_seq = inode->op_seq;
	undo->saved = pool->n_arena;
	inl_inode_save(inode, pool->arena + pool->n_arena);
	pool->n_arena += len;
	inode->op_seq = op->seq;
	inode->op_next = op->changed;
	op->changed = inode;
	atomic_fetch_add_explicit(&inode->refs, 1, memory_order_relaxed);
	return 0;
}

int inl_inode_modify(struct inl_handle *op, struct inl_inode *inode)
{
	const uint8_t *bytes;
	uint64_t pblk;
	uint32_t at;
	int err;

	if (op->look)
		return -EROFS;
	if (inode->op_seq == op->seq)
		return 0;
	/* Its block is needed at the end, when nothing may fail any more for want of it. */
	err = inl_inode_place(op->vol, inode->ino, &pblk, &at);
	if (!err)
		err = inl_block_look(op, pblk, &bytes);
	return err ? err : inode_changes(op, inode);
}

/* With the operation nearly done: the inodes that it changed go to their blocks. */
static int write_inodes(struct inl_handle *op)
{
	struct inl_inode *inode;
	int err = 0;

	for (inode = op->changed; inode && !err; inode = inode->op_next) {
		uint64_t pblk;
		uint32_t at;
		uint8_t *bytes;

		err = inl_inode_place(op->vol, inode->ino, &pblk, &at);
		if (!err)
			err = inl_block_change(op, pblk, &bytes);
		if (!err)
			inl_inode_encode(inode, bytes + at);
	}
	return err;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void undo_page(struct inl_handle *op, struct undo *undo)
{
	struct inl_block *block = undo->block;

	if (!undo->was_running)
		inl_txn_leave(op->vol, block);
	inl_page_put(op->vol->cache, inl_block_swap(block, undo->page));
	block->good = undo->good;
	block->op_seq = undo->op_seq;
	/* It was revoked by this transaction, so there is room for it on the list. */
	if (undo->was_revoked)
		inl_txn_revoke(op->vol, block);
}

static void undo_forget(struct inl_handle *op, struct undo *undo)
{
	struct inl_block *block = undo->block;

	if (!undo->was_revoked && block->revoked)
		inl_txn_unrevoke(op->vol, block);
	if (undo->was_running)
		inl_txn_join(op->vol, block);
}

static void cancel(struct inl_handle *op)
{
	struct inl_op_pool *pool = op->pool;

	while (pool->n_undo) {
		struct undo *undo = &pool->undo[--pool->n_undo];

		switch (undo->kind) {
		case UNDO_PAGE:
			undo_page(op, undo);
			break;
		case UNDO_FORGET:
			undo_forget(op, undo);
			break;
		case UNDO_INODE:
			undo->inode->op_seq = undo->op_seq;
			inl_inode_restore(undo->inode, pool->arena + undo->saved);
			break;
		case UNDO_CALL:
			undo->fn(op->vol, undo->what);
			break;
		}
	}
}

/* The operation stands. */
static void finish(struct inl_handle *op)
{
	struct inl_op_pool *pool = op->pool;

	while (pool->n_undo) {
		struct undo *undo = &pool->undo[--pool->n_undo];

		if (undo->kind == UNDO_PAGE)
			inl_page_put(op->vol->cache, undo->page);
	}
}

static void put_inodes(struct inl_handle *op)
{
	while (op->changed) {
		struct inl_inode *inode = op->changed;

		op->changed = inode->op_next;
		inl_inode_put(inode);
	}
}

void inl_op_put_later(struct inl_handle *op, struct inl_inode *inode)
{
	inode->later_next = op->later;
	op->later = inode;
}

/* With no lock held. */
static void put_later(struct inl_inode *later)
{
	while (later) {
		struct inl_inode *inode = later;

		later = inode->later_next;
		inl_inode_put(inode);
	}
}

static void begin(struct inl_handle *op)
{
	struct inl_op_pool *pool = op->pool;

	op->used = 0;
	op->missed = false;
	op->changed = NULL;
	op->seq = ++pool->seq;
	pool->n_undo = pool->n_arena = 0;
	current = op;
}

/*
 * Read the block that was missed, without the lock, and keep it. Who misses many probably goes through a directory: what
 * lies behind is read along, more each time, so that the operation need not begin again for each of them.
 */
static int fetch_missing(struct inl_handle *op)
{
	struct inl_block *block;
	int err = inl_block_get(op->vol, op->missing, &block);

	for (unsigned i = 1; !err && i <= op->ahead; i++) {
		struct inl_block *next;

		if (op->missing + i >= op->vol->n_blocks || inl_block_get(op->vol, op->missing + i, &next))
			break;
		inl_block_put(next);
	}
	op->ahead = INL_MIN(2 * op->ahead + 1, AHEAD_MAX);
	return err ? err : hold(op, block);
}

/* With vol->lock held on entry, not on exit. */
static int attempt(struct inl_handle *op, inl_op_fn *fn, void *arg)
{
	struct inl_inode *later;
	int err;

	begin(op);
	err = fn(op, arg);
	if (!err && !op->look)
		err = write_inodes(op);
	/* Also if whoever missed a block made something else of it. */
	if (op->missed)
		err = -EAGAIN;
	if (err)
		cancel(op);
	else
		finish(op);
	op->busy = err == -ENOSPC && inl_alloc_has_busy(op->vol->alloc);
	op->discarding = err == -ENOSPC && inl_alloc_is_discarding(op->vol->alloc);
	put_inodes(op);
	later = op->later;
	op->later = NULL;
	current = NULL;
	pthread_mutex_unlock(&op->vol->lock);
	put_later(later);
	return err;
}

static void op_init(struct inl_handle *op, struct inl_volume *vol, unsigned credits)
{
	memset(op, 0, sizeof(*op));
	op->vol = vol;
	op->pool = vol->op_pool;
	op->credits = credits;
	op->held = op->held_few;
	op->room_held = N_HELD;
}

static int cannot_read(const struct inl_handle *op, int err, struct inl_diag *diag)
{
	return inl_diag_set(diag, err, "block %llu of the file system's own data cannot be read",
			    (unsigned long long)op->missing);
}

/*
 * There was no room. Could there be some all the same? What is being discarded comes back, but others might be faster, and
 * the next piece may be under way by then: so nobody discards until the operation has had another go. What the running
 * transaction has freed can be used once it is committed. 1: try again; 0: it is so.
 */
static int make_room(struct inl_handle *op, bool *waited)
{
	int err;

	if (op->discarding && !op->alone) {
		inl_alloc_lock_discarding(op->vol->alloc);
		op->alone = true;
		return 1;
	}
	if (*waited || !op->busy)
		return 0;
	*waited = true;
	err = inl_txn_commit(op->vol);
	return err ? err : 1;
}

static int run(struct inl_handle *op, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	bool waited = false;

	for (;;) {
		int err = inl_txn_reserve(op->vol, op->credits, diag), more = 1;

		if (err)
			return err;
		err = attempt(op, fn, arg);
		if (op->missed) {
			err = fetch_missing(op);
			if (err)
				return cannot_read(op, err, diag);
			continue;
		}
		if (err == -ENOSPC)
			more = make_room(op, &waited);
		if (err != -ENOSPC || more <= 0)
			return more < 0 ? more : err;
	}
}

int inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	struct inl_handle op;
	int err;

	op_init(&op, vol, credits);
	err = run(&op, fn, arg, diag);
	if (op.alone)
		inl_alloc_unlock_discarding(vol->alloc);
	release(&op);
	return err;
}

/* Of a volume that nobody changes: no lock, no second attempt, and blocks are read where they are needed. */
static int look_unlocked(struct inl_volume *vol, inl_op_fn *fn, void *arg)
{
	struct inl_handle op;
	int err;

	op_init(&op, vol, 0);
	op.look = true;
	err = fn(&op, arg);
	release(&op);
	return err;
}

int inl_op_look(struct inl_volume *vol, inl_op_fn *fn, void *arg)
{
	struct inl_handle op;
	int err;

	if (!vol->op_pool)
		return look_unlocked(vol, fn, arg);
	if (inl_op_current(vol))
		return fn(current, arg);
	op_init(&op, vol, 0);
	op.look = true;
	do {
		pthread_mutex_lock(&vol->lock);
		err = attempt(&op, fn, arg);
		if (!op.missed)
			break;
		err = fetch_missing(&op);
	} while (!err);
	release(&op);
	return err;
}
