/*
 * block/dev.c: devices, and the way of a bio through them: submit, start, end, wait.
 * Not here: what a driver does with a bio; slots (slots.c); crossing the line (cross.c).
 * Read more: ARCHITECTURE.md, "The life of a read".
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE_DEFAULT 512u
#define BLOCK_SIZE_MAX	   65536u
#define N_SLOTS_MAX	   4096u

/* ---- making and describing --------------------------------------------------------------------------------------- */

static bool params_valid(const struct inl_dev_ops *ops, const struct inl_dev_params *params, uint32_t block_size)
{
	if (block_size < BLOCK_SIZE_DEFAULT || block_size > BLOCK_SIZE_MAX || !inl_power_of_two(block_size))
		return false;
	if (params->n_children > INL_DEV_MAX_CHILDREN || params->n_slots > N_SLOTS_MAX)
		return false;
	return !params->has_engine || params->n_slots == 0 || (ops->key_program && ops->key_evict);
}

static void set_caps(struct inl_dev *dev, const struct inl_dev_params *params)
{
	if (params->has_engine) {
		dev->caps = params->caps;
		return;
	}
	for (unsigned i = 0; i < dev->n_children; i++) {
		if (i == 0)
			dev->caps = dev->children[0]->caps;
		else
			inl_caps_intersect(&dev->caps, &dev->children[i]->caps);
	}
}

static void dev_free(struct inl_dev *dev)
{
	inl_slots_free(dev->slots);
	inl_cross_free(dev->cross);
	pthread_mutex_destroy(&dev->idle_lock);
	pthread_cond_destroy(&dev->idle);
	free(dev->label);
	free(dev);
}

int inl_dev_new(const struct inl_dev_ops *ops, void *priv, const struct inl_dev_params *params, struct inl_dev **out)
{
	uint32_t block_size = params->block_size ? params->block_size : BLOCK_SIZE_DEFAULT;
	struct inl_dev *dev;
	int err;

	if (!params_valid(ops, params, block_size))
		return -EINVAL;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	pthread_mutex_init(&dev->idle_lock, NULL);
	pthread_cond_init(&dev->idle, NULL);
	dev->ops = ops;
	dev->priv = priv;
	dev->size = params->size & ~(uint64_t)(block_size - 1);
	dev->block_size = block_size;
	dev->sector_size = params->sector_size ? params->sector_size : BLOCK_SIZE_DEFAULT;
	dev->writable = params->writable;
	dev->has_engine = params->has_engine;
	dev->n_slots = params->n_slots;
	dev->reaps = ops->reap != NULL;
	for (unsigned i = 0; i < params->n_children; i++) {
		dev->children[i] = params->children[i];
		dev->reaps |= dev->children[i]->reaps;
		if (!params->sector_size && dev->sector_size < dev->children[i]->sector_size)
			dev->sector_size = dev->children[i]->sector_size;
	}
	dev->n_children = params->n_children;
	set_caps(dev, params);
	dev->label = strdup(params->label ? params->label : "");
	err = dev->label ? inl_cross_new_fallback(dev, &dev->cross) : -ENOMEM;
	if (!err && dev->has_engine && dev->n_slots)
		err = inl_slots_new(dev, dev->n_slots, &dev->slots);
	if (err) {
		dev_free(dev);
		return err;
	}
	*out = dev;
	return 0;
}

void inl_dev_close(struct inl_dev *dev)
{
	if (!dev)
		return;
	if (dev->ops->close)
		dev->ops->close(dev);
	for (unsigned i = 0; i < dev->n_children; i++)
		inl_dev_close(dev->children[i]);
	dev_free(dev);
}

void *inl_dev_priv(const struct inl_dev *dev)
{
	return dev->priv;
}

uint64_t inl_dev_size(const struct inl_dev *dev)
{
	return dev->size;
}

uint32_t inl_dev_block_size(const struct inl_dev *dev)
{
	return dev->block_size;
}

uint32_t inl_dev_sector_size(const struct inl_dev *dev)
{
	return dev->sector_size;
}

bool inl_dev_writable(const struct inl_dev *dev)
{
	return dev->writable;
}

const char *inl_dev_driver(const struct inl_dev *dev)
{
	return dev->ops->name;
}

const char *inl_dev_label(const struct inl_dev *dev)
{
	return dev->label;
}

const struct inl_caps *inl_dev_caps(const struct inl_dev *dev)
{
	return &dev->caps;
}

int inl_dev_n_slots(const struct inl_dev *dev)
{
	return dev->has_engine ? (int)dev->n_slots : -1;
}

struct inl_dev *inl_dev_child(const struct inl_dev *dev, unsigned i)
{
	return i < dev->n_children ? dev->children[i] : NULL;
}

void inl_dev_counters(const struct inl_dev *dev, struct inl_counters *out)
{
	uint64_t values[INL_N_COUNTERS];

	for (unsigned i = 0; i < INL_N_COUNTERS; i++)
		values[i] = atomic_load_explicit(&dev->counters[i], memory_order_relaxed);
	_Static_assert(sizeof(values) == sizeof(*out), "struct inl_counters holds nothing but 64-bit counters");
	memcpy(out, values, sizeof(values));
}

void inl_dev_count_units(struct inl_dev *dev, enum inl_op op, uint64_t n_units)
{
	if (op == INL_READ)
		INL_COUNT(dev, engine_units_decrypted, n_units);
	else
		INL_COUNT(dev, engine_units_encrypted, n_units);
}

/* ---- taking turns ------------------------------------------------------------------------------------------------ */

/*
 * What this thread still has to start. A bio submitted while another one is being started or ended waits here for its turn,
 * so callbacks that submit do not recurse.
 */
static _Thread_local struct {
	bool running;
	struct inl_bio_list list;
} turn;

static void start(struct inl_bio *bio);

static bool turn_begin(void)
{
	bool first = !turn.running;

	turn.running = true;
	return first;
}

static void turn_end(bool first)
{
	struct inl_bio *bio;

	if (!first)
		return;
	while ((bio = inl_bio_list_pop(&turn.list)))
		start(bio);
	turn.running = false;
}

void inl_run(struct inl_bio *bio)
{
	bool first = turn_begin();

	inl_bio_list_add(&turn.list, bio);
	turn_end(first);
}

/* ---- down -------------------------------------------------------------------------------------------------------- */

void inl_dev_drive(struct inl_dev *dev, struct inl_bio *bio)
{
	switch (bio->op) {
	case INL_READ:
		INL_COUNT(dev, reads, 1);
		INL_COUNT(dev, bytes_read, bio->len);
		break;
	case INL_FLUSH:
		INL_COUNT(dev, flushes, 1);
		break;
	default:
		INL_COUNT(dev, writes, 1);
		INL_COUNT(dev, bytes_written, bio->len);
		break;
	}
	dev->ops->submit(dev, bio);
}

/* Start a bio on bio->state.dev. Resources that it already holds there are not taken again. */
static void start(struct inl_bio *bio)
{
	struct inl_dev *dev = bio->state.dev;
	struct inl_key_use *use = bio->state.ctx.use;
	int err;

	if (bio->state.error) {
		inl_bio_end(bio, bio->state.error);
		return;
	}
	if (bio->state.kind != INL_BIO_KEYED) {
		inl_dev_drive(dev, bio);
		return;
	}
	if (use->cipher) {
		inl_cross_submit(dev->cross, bio, use->cipher);
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

static int check_keyed(const struct inl_dev *dev, const struct inl_bio *bio)
{
	const struct inl_crypt_ctx *ctx = &bio->state.ctx;
	uint32_t unit;

	if (!ctx->use)
		return -ENOKEY;
	if (ctx->use->dev != dev || (bio->op != INL_READ && bio->op != INL_WRITE))
		return -EINVAL;
	unit = ctx->use->key->cfg.data_unit_size;
	for (unsigned i = 0; i < bio->n_segs; i++) {
		if (bio->segs[i].iov_len % unit)
			return -EINVAL;
	}
	return inl_ctx_covers(ctx, bio->len / unit) ? 0 : -EINVAL;
}

static bool segs_add_up(const struct inl_bio *bio)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < bio->n_segs; i++)
		len += bio->segs[i].iov_len;
	return len == bio->len;
}

static int check(const struct inl_dev *dev, const struct inl_bio *bio)
{
	if ((unsigned)bio->op > INL_ZERO || ((bio->op == INL_READ || bio->op == INL_WRITE) && !segs_add_up(bio)))
		return -EINVAL;
	if (bio->op != INL_READ && bio->op != INL_FLUSH && !dev->writable)
		return -EROFS;
	if (bio->op == INL_FLUSH)
		return bio->state.kind == INL_BIO_PLAIN ? 0 : -EINVAL;
	if (!bio->len || (bio->offset | bio->len) % dev->block_size)
		return -EINVAL;
	if (bio->offset > dev->size || bio->len > dev->size - bio->offset)
		return -ENXIO;
	if (bio->state.kind == INL_BIO_SEALED && bio->op != INL_READ)
		return -EINVAL;
	return bio->state.kind == INL_BIO_KEYED ? check_keyed(dev, bio) : 0;
}

void inl_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	bio->state.dev = bio->state.top = dev;
	bio->state.pos = bio->offset;
	bio->state.error = check(dev, bio);
	if (!bio->state.error && bio->state.kind == INL_BIO_KEYED) {
		if (inl_use_hold(bio->state.ctx.use))
			bio->state.held = bio->state.ctx.use;
		else
			bio->state.error = -ENOKEY;
	}
	inl_run(bio);
}

static struct inl_key_use *child_use(const struct inl_key_use *use, const struct inl_dev *child)
{
	for (unsigned i = 0; i < use->n_children; i++) {
		if (use->children[i]->dev == child)
			return use->children[i];
	}
	return NULL;
}

void inl_submit_below(struct inl_dev *child, struct inl_bio *bio, uint64_t pos)
{
	if (bio->op != INL_FLUSH && (pos > child->size || bio->len > child->size - pos)) {
		inl_bio_end(bio, -ENXIO);
		return;
	}
	if (bio->op != INL_FLUSH && (pos | bio->len) % child->block_size) {
		inl_bio_end(bio, -EINVAL);
		return;
	}
	if (bio->state.kind == INL_BIO_KEYED) {
		bio->state.ctx.use = child_use(bio->state.ctx.use, child);
		if (!bio->state.ctx.use) {
			inl_bio_end(bio, -EINVAL);
			return;
		}
	}
	bio->state.dev = child;
	bio->state.pos = pos;
	start(bio);
}

/* ---- up ---------------------------------------------------------------------------------------------------------- */

void inl_bio_end(struct inl_bio *bio, int status)
{
	bool first = turn_begin();
	struct inl_dev *slot_dev = bio->state.slot_dev;
	struct inl_key_use *held = bio->state.held;

	if (bio->state.cross) {
		if (status == 0 && bio->op == INL_READ)
			status = inl_cross_end_read(bio);
		bio->state.cross = NULL;
	}
	if (slot_dev)
		inl_slots_put(slot_dev->slots, bio);
	if (status && !bio->state.piece)
		INL_COUNT(bio->state.top, errors, 1);
	if (held) {
		/* As it was submitted, so that it can be submitted again. */
		bio->state.kind = INL_BIO_KEYED;
		bio->state.ctx.use = held;
	}
	bio->status = status;
	bio->state.held = NULL;
	if (bio->done)
		bio->done(bio); /* the bio may be gone now */
	if (held)
		inl_use_release(held);
	turn_end(first);
}

unsigned inl_reap(struct inl_dev *dev, bool wait)
{
	bool first = turn_begin();
	unsigned n = 0;

	for (unsigned i = 0; i < dev->n_children; i++) {
		if (dev->children[i]->reaps)
			n += inl_reap(dev->children[i], wait && n == 0);
	}
	if (dev->ops->reap)
		n += dev->ops->reap(dev, wait && n == 0);
	turn_end(first);
	return n;
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void wake(struct inl_bio *bio)
{
	struct waiter *waiter = bio->private_data;

	pthread_mutex_lock(&waiter->lock);
	waiter->done = true;
	pthread_cond_signal(&waiter->cond);
	pthread_mutex_unlock(&waiter->lock);
}

static bool is_done(struct waiter *waiter)
{
	bool done;

	pthread_mutex_lock(&waiter->lock);
	done = waiter->done;
	pthread_mutex_unlock(&waiter->lock);
	return done;
}

/* Sleep until woken, at most a millisecond if the device below has to be reaped. */
static void nap(struct waiter *waiter, bool reaps)
{
	struct timespec until = inl_in_a_millisecond();

	pthread_mutex_lock(&waiter->lock);
	if (!waiter->done) {
		if (reaps)
			pthread_cond_timedwait(&waiter->cond, &waiter->lock, &until);
		else
			pthread_cond_wait(&waiter->cond, &waiter->lock);
	}
	pthread_mutex_unlock(&waiter->lock);
}

int inl_submit_wait(struct inl_dev *dev, struct inl_bio *bio)
{
	struct waiter waiter = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };

	bio->done = wake;
	bio->private_data = &waiter;
	inl_submit(dev, bio);
	while (!is_done(&waiter)) {
		if (!dev->reaps || !inl_reap(dev, true))
			nap(&waiter, dev->reaps);
	}
	return bio->status;
}

/* ---- one buffer, waiting ----------------------------------------------------------------------------------------- */

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
