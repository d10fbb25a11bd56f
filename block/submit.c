/*
 * block/submit.c: the way of a bio through the devices: accept, start, drive, end; and waiting for one.
 * Not here: what a driver does with a bio; queues (queue.c), slots (slots.c), crossing the line (cross.c), pieces (pieces.c).
 * Read more: ARCHITECTURE.md, "The life of an I/O".
 *
 * All of this runs on the bio's own thread, but for the first lines of inl_bio_end.
 */
#include "block/own.h"
#include <errno.h>
#include <string.h>

/* ---- what may come in -------------------------------------------------------------------------------------------- */

static int check_keyed(const struct inl_dev *dev, const struct inl_bio *bio, const struct inl_use *use)
{
	const struct inl_key_config *cfg = &use->key->cfg;

	if (use->dev != dev)
		return -EINVAL;
	for (unsigned i = 0; i < bio->n_segs; i++) {
		if (bio->segs[i].iov_len & (cfg->data_unit_size - 1))
			return -EINVAL;
	}
	return inl_dun_covers(cfg, bio->state.ctx.dun, bio->len >> use->unit_bits) ? 0 : -EINVAL;
}

static bool segs_add_up(const struct inl_bio *bio)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < bio->n_segs; i++) {
		if (__builtin_add_overflow(len, bio->segs[i].iov_len, &len))
			return false;
	}
	return len == bio->len;
}

int inl_dev_check(const struct inl_dev *dev, enum inl_op op, uint64_t pos, uint64_t len)
{
	if (op != INL_READ && op != INL_FLUSH && !dev->writable)
		return -EROFS;
	if (op == INL_FLUSH)
		return 0;
	if ((pos | len) & (dev->block_size - 1))
		return -EINVAL;
	return pos > dev->size || len > dev->size - pos ? -ENXIO : 0;
}

static int check(const struct inl_dev *dev, const struct inl_bio *bio)
{
	bool payload = bio->op == INL_READ || bio->op == INL_WRITE;

	if ((unsigned)bio->op > INL_ZERO || (payload && !segs_add_up(bio)))
		return -EINVAL;
	if (bio->op == INL_FLUSH && (bio->offset || bio->len))
		return -EINVAL;
	if (bio->op != INL_FLUSH && !bio->len)
		return -EINVAL;
	if ((bio->state.kind == INL_BIO_SEALED && bio->op != INL_READ) || (bio->state.kind != INL_BIO_PLAIN && !payload))
		return -EINVAL;
	return inl_dev_check(dev, bio->op, bio->offset, bio->len);
}

/* The key's use is held before it is looked at. */
static int hold_key(const struct inl_dev *dev, struct inl_bio *bio)
{
	struct inl_use *use = inl_use_hold(bio->state.ctx.use);
	int err;

	if (!use)
		return -ENOKEY;
	err = check_keyed(dev, bio, use);
	if (err)
		inl_use_release(use);
	else
		bio->state.use = bio->state.held = use;
	return err;
}

void inl_bio_accept(struct inl_thread *thread, struct inl_queue *queue, struct inl_dev *dev, struct inl_bio *bio)
{
	struct inl_bio_state *state = &bio->state;

	inl_bio_state_init(state, thread, queue, false);
	state->dev = state->top = dev;
	state->pos = bio->offset;
	state->error = check(dev, bio);
	if (!state->error && state->kind == INL_BIO_KEYED)
		state->error = hold_key(dev, bio);
}

/* ---- down -------------------------------------------------------------------------------------------------------- */

/*
 * Does the payload lie where this device cannot take it from? Addresses are up to mem_align; a length that is no whole
 * number of blocks is refused by some systems too.
 */
static bool misaligned(const struct inl_dev *dev, const struct inl_bio *bio)
{
	uint64_t left = bio->len, skip = bio->state.skip;
	uintptr_t addresses = 0, lens = 0;

	if (dev->mem_align == 1 || (bio->op != INL_READ && bio->op != INL_WRITE))
		return false;
	for (unsigned i = 0; left; i++) {
		uint64_t here = bio->segs[i].iov_len - skip;

		if (here > left)
			here = left;
		if (here) {
			addresses |= (uintptr_t)bio->segs[i].iov_base + skip;
			lens |= here;
		}
		left -= here;
		skip = 0;
	}
	return addresses & (dev->mem_align - 1) || lens & (dev->block_size - 1);
}

static void count(struct inl_dev *dev, const struct inl_bio *bio)
{
	switch (bio->op) {
	case INL_READ:
		INL_COUNT(dev, reads, 1);
		INL_COUNT(dev, bytes_read, bio->len);
		break;
	case INL_FLUSH:
		INL_COUNT(dev, flushes, 1);
		break;
	case INL_DISCARD:
		INL_COUNT(dev, writes, 1);
		break;
	default:
		INL_COUNT(dev, writes, 1);
		INL_COUNT(dev, bytes_written, bio->len);
		break;
	}
}

void inl_dev_drive(struct inl_dev *dev, struct inl_bio *bio)
{
	if (misaligned(dev, bio)) {
		inl_pieces_start(dev->align, bio);
		return;
	}
	count(dev, bio);
	if (dev->ops->map)
		inl_pieces_start(dev->split, bio);
	else
		dev->ops->submit(dev, bio);
}

/* Through stacks that would hand the bio on as a whole. */
static void *reach(struct inl_dev *dev, const struct inl_bio *bio, uint64_t pos)
{
	struct inl_dev_extent extent;
	void *memory = NULL;

	if (dev->ops->memory)
		memory = dev->ops->memory(dev, pos, bio->len);
	else if (dev->has_memory && inl_dev_map(dev, pos, bio->len, &extent) && extent.len == bio->len &&
		 !inl_dev_check(extent.child, bio->op, extent.pos, bio->len))
		memory = reach(extent.child, bio, extent.pos);
	if (memory)
		count(dev, bio);
	return memory;
}

void *inl_dev_reach(struct inl_dev *dev, const struct inl_bio *bio)
{
	return reach(dev, bio, bio->state.pos);
}

/* Would the map of this stack cut a data unit in two? */
static bool cuts_units(struct inl_dev *dev, const struct inl_bio *bio)
{
	uint32_t unit = inl_unit_size(bio->state.use);
	uint64_t at = 0;

	while (at < bio->len) {
		struct inl_dev_extent extent;

		if (!inl_dev_map(dev, bio->state.pos + at, bio->len - at, &extent))
			return true; /* found again when it is sent */
		at += extent.len;
		if (at < bio->len && extent.len & (unit - 1))
			return true;
	}
	return false;
}

/* A bio has arrived at bio->state.dev. A slot that it already holds there is not taken again. */
static void start(struct inl_bio *bio)
{
	struct inl_dev *dev = bio->state.dev;
	struct inl_use *use = bio->state.use;
	int err;

	bio->state.stage = 0;
	if (bio->state.error) {
		inl_bio_end(bio, bio->state.error);
		return;
	}
	if (bio->state.kind != INL_BIO_KEYED) {
		inl_dev_drive(dev, bio);
		return;
	}
	if (!use->native || (dev->ops->map && cuts_units(dev, bio))) {
		if (use->cipher)
			inl_cross_submit(dev->cross, bio);
		else
			inl_bio_end(bio, -EOPNOTSUPP);
		return;
	}
	if (misaligned(dev, bio)) {
		/* Its pieces take slots, each its own: a bio that held one meanwhile would wait for itself. */
		inl_pieces_start(dev->align, bio);
		return;
	}
	if (dev->slots && !bio->state.slot_dev) {
		err = inl_slots_get(dev->slots, bio);
		if (err == -EAGAIN)
			return;
		if (err) {
			inl_bio_end(bio, err);
			return;
		}
	}
	inl_dev_drive(dev, bio);
}

struct inl_use *inl_child_use(const struct inl_use *use, const struct inl_dev *child)
{
	for (unsigned i = 0; i < use->n_children; i++) {
		if (use->children[i]->dev == child)
			return use->children[i];
	}
	return NULL;
}

void inl_submit_below(struct inl_dev *child, struct inl_bio *bio, uint64_t pos)
{
	int err = inl_dev_check(child, bio->op, pos, bio->len);

	if (!err && bio->state.kind == INL_BIO_KEYED) {
		bio->state.use = inl_child_use(bio->state.use, child);
		err = bio->state.use ? 0 : -EINVAL;
	}
	if (err) {
		inl_bio_end(bio, err);
		return;
	}
	bio->state.dev = child;
	bio->state.pos = pos;
	start(bio);
}

void inl_submit_torn(struct inl_dev *child, struct inl_bio *bio, uint64_t pos, uint64_t len, int status)
{
	uint32_t step = bio->state.kind == INL_BIO_KEYED ? inl_unit_size(bio->state.use) : 1;

	if (len > bio->len)
		len = bio->len;
	if (len & (step - 1) || (bio->op == INL_READ && !status)) {
		inl_bio_end(bio, -EINVAL);
		return;
	}
	if (!len) {
		inl_bio_end(bio, status);
		return;
	}
	if (!bio->state.full_len)
		bio->state.full_len = bio->len;
	if (!bio->state.torn)
		bio->state.torn = status; /* the first tear is the caller's error, whatever is torn below */
	bio->len = len;
	inl_submit_below(child, bio, pos);
}

/* ---- up ---------------------------------------------------------------------------------------------------------- */

/* The end of a bio, on its own thread. */
static void finish(struct inl_bio *bio, int status)
{
	struct inl_use *held = bio->state.held;
	struct inl_queue *queue = bio->state.queue;

	if (bio->state.slot_dev)
		inl_slots_put(bio->state.slot_dev->slots, bio);
	if (bio->state.full_len) {
		status = status ? status : bio->state.torn;
		bio->len = bio->state.full_len;
	}
	if (!bio->state.piece) {
		if (status)
			INL_COUNT(bio->state.top, errors, 1);
		if (queue) {
			queue->n_busy--;
			queue->n_done++;
		}
	}
	if (held)
		bio->state.kind = INL_BIO_KEYED; /* as it was submitted, so that it can be submitted again */
	bio->status = status;
	if (bio->done)
		bio->done(bio); /* the bio may be gone now */
	if (held)
		inl_use_release(held);
}

static void end_here(struct inl_bio *bio, int status)
{
	struct inl_cross *cross = bio->state.cross;

	bio->state.cross = NULL;
	if (cross && status == 0 && bio->op == INL_READ && !bio->state.full_len)
		inl_cross_read(cross, bio); /* which ends it again */
	else
		finish(bio, status);
}

void inl_bio_end(struct inl_bio *bio, int status)
{
	struct inl_thread *thread = bio->state.thread;
	bool first;

	if (thread != inl_thread_self) {
		bio->state.error = status;
		inl_todo(bio, INL_TODO_END);
		return;
	}
	first = inl_turn_begin(thread);
	end_here(bio, status);
	inl_turn_end(thread, first);
}

void inl_bio_dispatch(struct inl_bio *bio)
{
	switch ((enum inl_todo)bio->state.todo) {
	case INL_TODO_START:
		start(bio);
		break;
	case INL_TODO_DRIVE:
		bio->state.dev->ops->submit(bio->state.dev, bio);
		break;
	case INL_TODO_END:
		end_here(bio, bio->state.error);
		break;
	case INL_TODO_PIECES:
		bio->state.going = false;
		inl_pieces_go(bio);
		break;
	case INL_TODO_CROSSED:
		inl_piece_crossed(bio, bio->state.error);
		break;
	}
}

/* ---- one bio, waiting -------------------------------------------------------------------------------------------- */

static void note_done(struct inl_bio *bio)
{
	*(bool *)bio->private_data = true;
}

int inl_submit_wait(struct inl_dev *dev, struct inl_bio *bio)
{
	struct inl_thread *thread = inl_thread_get();
	void (*callers_done)(struct inl_bio *) = bio->done;
	void *callers_data = bio->private_data;
	bool done = false;

	if (!thread)
		return -ENOMEM;
	if (!inl_may_wait())
		return -EDEADLK;
	bio->done = note_done;
	bio->private_data = &done;
	inl_bio_accept(thread, NULL, dev, bio);
	inl_todo(bio, INL_TODO_START);
	while (!done)
		inl_thread_wait(thread);
	bio->done = callers_done;
	bio->private_data = callers_data;
	return bio->status;
}

static int rw_wait(struct inl_dev *dev, enum inl_op op, uint64_t offset, const void *buf, size_t len,
		   const struct inl_crypt_ctx *ctx, bool keyed)
{
	struct iovec seg = { (void *)(uintptr_t)buf, len };
	struct inl_bio bio;

	if (keyed)
		inl_bio_init_keyed(&bio, op, offset, &seg, 1, ctx);
	else
		inl_bio_init_plain(&bio, op, offset, &seg, 1);
	return inl_submit_wait(dev, &bio);
}

int inl_dev_read(struct inl_dev *dev, uint64_t offset, void *buf, size_t len)
{
	return rw_wait(dev, INL_READ, offset, buf, len, NULL, false);
}

int inl_dev_write(struct inl_dev *dev, uint64_t offset, const void *buf, size_t len)
{
	return rw_wait(dev, INL_WRITE, offset, buf, len, NULL, false);
}

int inl_dev_read_keyed(struct inl_dev *dev, uint64_t offset, void *buf, size_t len, const struct inl_crypt_ctx *ctx)
{
	return rw_wait(dev, INL_READ, offset, buf, len, ctx, true);
}

int inl_dev_write_keyed(struct inl_dev *dev, uint64_t offset, const void *buf, size_t len,
			const struct inl_crypt_ctx *ctx)
{
	return rw_wait(dev, INL_WRITE, offset, buf, len, ctx, true);
}

int inl_dev_flush(struct inl_dev *dev)
{
	struct inl_bio bio;

	inl_bio_init_range(&bio, INL_FLUSH, 0, 0);
	return inl_submit_wait(dev, &bio);
}
