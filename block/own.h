/*
 * block/own.h: what the files of block/ share: the insides of devices, uses, slots and crossings.
 * Not here: anything that callers or drivers may know (inlay/block.h, inlay/driver.h).
 * Read more: ARCHITECTURE.md, "The life of a read".
 *
 * Locks, in the order they are taken: slots->lock, cross->lock. Neither is held while a driver's submit or a bio's done runs;
 * the slots' lock is held while an engine programs or evicts.
 */
#ifndef INLAY_BLOCK_OWN_H
#define INLAY_BLOCK_OWN_H

#include "crypto/cipher.h"
#include <inlay/driver.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define INL_N_COUNTERS (sizeof(struct inl_counters) / sizeof(uint64_t))

struct inl_dev {
	const struct inl_dev_ops *ops;
	void *priv;
	char *label;
	uint64_t size;
	uint32_t block_size, sector_size;
	bool writable;
	bool has_engine;
	bool reaps; /* this device or one below completes only when reaped */
	unsigned n_slots;
	struct inl_caps caps;
	struct inl_slots *slots; /* NULL: no engine, or one that takes the key with the request */
	struct inl_cross *cross; /* the software fallback */
	unsigned n_children;
	struct inl_dev *children[INL_DEV_MAX_CHILDREN];
	_Atomic uint64_t counters[INL_N_COUNTERS]; /* struct inl_counters, field by field */
	pthread_mutex_t idle_lock;		   /* for those who wait for a use to drain */
	pthread_cond_t idle;
};

#define INL_COUNT(dev, field, n)                                                                        \
	atomic_fetch_add_explicit(&(dev)->counters[offsetof(struct inl_counters, field) / sizeof(uint64_t)], \
				  (n), memory_order_relaxed)

/* Lives in secret memory as a whole. */
struct inl_key {
	atomic_uint refs;
	struct inl_key_config cfg;
	uint32_t len;
	uint8_t bytes[];
};

#define INL_USE_EVICTING 0x80000000u

struct inl_key_use {
	struct inl_dev *dev;
	struct inl_key *key;
	struct inl_cipher *cipher; /* of the fallback; NULL: an engine here or below does the work */
	void *driver_priv;
	atomic_uint busy;	   /* bios under way, and INL_USE_EVICTING */
	unsigned n_children;
	struct inl_key_use *children[]; /* of a stack: the same key on each child */
};

static inline bool inl_power_of_two(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* A deadline for pthread_cond_timedwait, for waits that also have to reap. */
static inline struct timespec inl_in_a_millisecond(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += t.tv_nsec >= 999000000;
	t.tv_nsec = (t.tv_nsec + 1000000) % 1000000000;
	return t;
}

/* ---- bio.c, dev.c ---- */

/* A list of bios, first in, first out. */
struct inl_bio_list {
	struct inl_bio *head, *tail;
};
void inl_bio_list_add(struct inl_bio_list *list, struct inl_bio *bio);
struct inl_bio *inl_bio_list_pop(struct inl_bio_list *list);

/*
 * Start a bio on bio->state.dev when its turn comes: now, or after what this thread is already doing. This is what keeps
 * callbacks that submit from recursing.
 */
void inl_run(struct inl_bio *bio);

/* Give the bio to the driver of bio->state.dev, and count it. */
void inl_dev_drive(struct inl_dev *dev, struct inl_bio *bio);

/* Does the key's DUN width hold n_units (at least 1) from the context's DUN on, without wrapping? */
bool inl_ctx_covers(const struct inl_crypt_ctx *ctx, uint64_t n_units);

/* A bio that goes down on behalf of another, whose payload is ciphertext. Only cross.c makes these. */
void inl_bio_init_sealed_write(struct inl_bio *bio, struct inl_dev *dev, uint64_t pos, const struct iovec *seg,
			       unsigned flags);

/* ---- key.c ---- */
bool inl_use_hold(struct inl_key_use *use); /* false: being evicted */
void inl_use_release(struct inl_key_use *use);

/* ---- slots.c ---- */
struct inl_slots;
int inl_slots_new(struct inl_dev *dev, unsigned n_slots, struct inl_slots **out);
void inl_slots_free(struct inl_slots *slots);

/* 0: bio->state.slot is set; -EAGAIN: the bio is parked and will be run again; else the engine's error. */
int inl_slots_get(struct inl_slots *slots, struct inl_bio *bio);
void inl_slots_put(struct inl_slots *slots, struct inl_bio *bio);

/* Clear the slot that holds this use, if any. Returns the engine's error; the slot is unlinked all the same. */
int inl_slots_evict(struct inl_slots *slots, struct inl_key_use *use);

/* ---- cross.c ---- */
int inl_cross_new_fallback(struct inl_dev *dev, struct inl_cross **out);

/* A read has ended well: decrypt it. Returns 0 or -EIO. */
int inl_cross_end_read(struct inl_bio *bio);

#endif
