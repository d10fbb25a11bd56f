/*
 * block/slots.c: the key slots of an engine: which key is where, who may use it, who waits.
 * Not here: how an engine stores a key (its key_program and key_evict).
 * Read more: Linux block/blk-crypto-profile.c by its documentation. A slot is known by the use of its key, so a
 * recycled address cannot pass for another key.
 *
 * The engine is spoken to by one thread at a time, with no lock held: who finds nobody busy with that does whatever there is
 * to do until nothing is left (work), everybody else leaves a note (parked, reset) and goes on.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>

struct slot {
	struct inl_use *use;	  /* NULL: holds no key */
	unsigned refs;		  /* bios that use it now; 0: on the idle list */
	struct slot *prev, *next; /* idle list */
	struct slot *hash_next;
};

struct inl_slots {
	struct inl_dev *dev;
	pthread_mutex_t lock;	    /* all below */
	pthread_cond_t free;	    /* busy became false: for evictors */
	bool busy;		    /* a thread is speaking to the engine */
	unsigned n_evictors;	    /* threads that wait to; they come before more bios */
	bool reset;		    /* all slots have lost their keys, and have not got them back */
	unsigned n_resets;	    /* that were reported */
	struct slot idle;	    /* head of the list of idle slots, least recently used first */
	struct inl_bio_list parked; /* bios that wait, first come, first served */
	unsigned hash_mask;
	struct slot **hash; /* by use */
	unsigned n_slots;
	struct slot slots[];
};

static struct slot **bucket(struct inl_slots *slots, const struct inl_use *use)
{
	uint64_t x = (uint64_t)(uintptr_t)use * 0x9e3779b97f4a7c15u;

	return &slots->hash[(x >> 32) & slots->hash_mask];
}

static struct slot *find(struct inl_slots *slots, const struct inl_use *use)
{
	struct slot *slot = *bucket(slots, use);

	while (slot && slot->use != use)
		slot = slot->hash_next;
	return slot;
}

static void book(struct inl_slots *slots, struct slot *slot, struct inl_use *use)
{
	struct slot **head = bucket(slots, use);

	slot->use = use;
	slot->hash_next = *head;
	*head = slot;
}

static void unbook(struct inl_slots *slots, struct slot *slot)
{
	struct slot **at;

	if (!slot->use)
		return;
	for (at = bucket(slots, slot->use); *at != slot; at = &(*at)->hash_next)
		;
	*at = slot->hash_next;
	slot->use = NULL;
}

static unsigned index_of(const struct inl_slots *slots, const struct slot *slot)
{
	return (unsigned)(slot - slots->slots);
}

static void idle_remove(struct slot *slot)
{
	slot->prev->next = slot->next;
	slot->next->prev = slot->prev;
}

/* Insert before `at`: the list's head for "most recently used", its first slot for "least". */
static void idle_insert(struct slot *slot, struct slot *at)
{
	slot->prev = at->prev;
	slot->next = at;
	at->prev->next = slot;
	at->prev = slot;
}

/* It holds no known key: the first to be programmed again. Not for slots in use. */
static void idle_to_front(struct inl_slots *slots, struct slot *slot)
{
	idle_remove(slot);
	idle_insert(slot, slots->idle.next);
}

int inl_slots_new(struct inl_dev *dev, unsigned n_slots, struct inl_slots **out)
{
	unsigned n_buckets = 2;
	struct inl_slots *slots;

	while (n_buckets < 2 * n_slots)
		n_buckets *= 2;
	slots = calloc(1, sizeof(*slots) + n_slots * sizeof(struct slot));
	if (!slots)
		return -ENOMEM;
	slots->hash = calloc(n_buckets, sizeof(struct slot *));
	if (!slots->hash) {
		free(slots);
		return -ENOMEM;
	}
	pthread_mutex_init(&slots->lock, NULL);
	pthread_cond_init(&slots->free, NULL);
	slots->dev = dev;
	slots->hash_mask = n_buckets - 1;
	slots->n_slots = n_slots;
	slots->idle.prev = slots->idle.next = &slots->idle;
	for (unsigned i = 0; i < n_slots; i++)
		idle_insert(&slots->slots[i], &slots->idle);
	*out = slots;
	return 0;
}

void inl_slots_free(struct inl_slots *slots)
{
	if (!slots)
		return;
	pthread_cond_destroy(&slots->free);
	pthread_mutex_destroy(&slots->lock);
	free(slots->hash);
	free(slots);
}

/* ---- speaking to the engine --------------------------------------------------------------------------------------- */

/* With the lock held, which is given up while the engine works; busy keeps the slot as it is. */
static int program(struct inl_slots *slots, struct slot *slot, struct inl_use *use)
{
	struct inl_dev *dev = slots->dev;
	int err;

	pthread_mutex_unlock(&slots->lock);
	err = dev->ops->key_program(dev, index_of(slots, slot), use->key);
	if (err)
		INL_COUNT(dev, slot_program_failures, 1);
	else
		INL_COUNT(dev, slot_programs, 1);
	pthread_mutex_lock(&slots->lock);
	return err;
}

/* Put the key into this idle slot. Returns the engine's error. */
static int load(struct inl_slots *slots, struct slot *slot, struct inl_use *use)
{
	int err;

	unbook(slots, slot);
	err = program(slots, slot, use);
	if (err)
		idle_to_front(slots, slot);
	else
		book(slots, slot, use);
	return err;
}

/* After a reset: every key back into its slot. */
static void reload_all(struct inl_slots *slots)
{
	for (unsigned i = 0; i < slots->n_slots; i++) {
		struct slot *slot = &slots->slots[i];

		if (!slot->use || !program(slots, slot, slot->use))
			continue;
		unbook(slots, slot);
		if (!slot->refs)
			idle_to_front(slots, slot);
	}
}

static void grant(struct inl_slots *slots, struct slot *slot, struct inl_bio *bio)
{
	if (slot->refs++ == 0)
		idle_remove(slot);
	bio->state.slot_dev = slots->dev;
	bio->state.slot = (int)index_of(slots, slot);
}

/* Serve the first one parked. False: it has to wait. */
static bool serve_first(struct inl_slots *slots, struct inl_bio_list *ready)
{
	struct inl_bio *bio = slots->parked.head;
	struct slot *slot = find(slots, bio->state.use);
	int err = 0;

	if (slot) {
		INL_COUNT(slots->dev, slot_hits, 1);
	} else {
		slot = slots->idle.next;
		if (slot == &slots->idle)
			return false;
		err = load(slots, slot, bio->state.use);
	}
	if (slots->reset)
		return true; /* while it was programmed; first things first */
	inl_bio_list_pop(&slots->parked);
	if (err)
		bio->state.error = err;
	else
		grant(slots, slot, bio);
	inl_bio_list_add(ready, bio);
	return true;
}

/* All keys back into their slots, as often as they get lost meanwhile; then tell the driver. */
static void recover(struct inl_slots *slots)
{
	struct inl_dev *dev = slots->dev;

	while (slots->reset) {
		unsigned n_resets = slots->n_resets;

		reload_all(slots);
		if (n_resets != slots->n_resets)
			continue;
		slots->reset = false;
		INL_COUNT(dev, resets, 1);
		if (!dev->ops->reprogrammed)
			continue;
		pthread_mutex_unlock(&slots->lock);
		dev->ops->reprogrammed(dev);
		pthread_mutex_lock(&slots->lock);
	}
}

/*
 * Do all that there is to do, unless another thread is at it, or about to be, and will. With the lock held.
 *
 *   ready    bios that have a slot now, or an error
 */
static void work(struct inl_slots *slots, struct inl_bio_list *ready)
{
	if (slots->busy || slots->n_evictors)
		return;
	slots->busy = true;
	do
		recover(slots);
	while (!slots->n_evictors && slots->parked.head && serve_first(slots, ready));
	slots->busy = false;
	pthread_cond_broadcast(&slots->free);
}

static void start_all(struct inl_bio_list *ready)
{
	struct inl_bio *bio;

	while ((bio = inl_bio_list_pop(ready)))
		inl_todo(bio, INL_TODO_START);
}

/* ---- for bios ----------------------------------------------------------------------------------------------------- */

int inl_slots_get(struct inl_slots *slots, struct inl_bio *bio)
{
	struct inl_bio_list ready = { 0 };
	struct slot *slot;

	pthread_mutex_lock(&slots->lock);
	/* Who comes while others wait, waits too: else a busy key would starve the rest. */
	slot = slots->reset || slots->parked.head ? NULL : find(slots, bio->state.use);
	if (slot) {
		INL_COUNT(slots->dev, slot_hits, 1);
		grant(slots, slot, bio);
		pthread_mutex_unlock(&slots->lock);
		return 0;
	}
	inl_bio_list_add(&slots->parked, bio);
	work(slots, &ready);
	if (!bio->state.slot_dev && !bio->state.error)
		INL_COUNT(slots->dev, slot_waits, 1);
	pthread_mutex_unlock(&slots->lock);
	start_all(&ready);
	return -EAGAIN;
}

void inl_slots_put(struct inl_slots *slots, struct inl_bio *bio)
{
	struct slot *slot = &slots->slots[bio->state.slot];
	struct inl_bio_list ready = { 0 };

	bio->state.slot_dev = NULL;
	bio->state.slot = -1;
	pthread_mutex_lock(&slots->lock);
	if (--slot->refs == 0)
		idle_insert(slot, slot->use ? &slots->idle : slots->idle.next);
	if (slots->parked.head)
		work(slots, &ready);
	pthread_mutex_unlock(&slots->lock);
	start_all(&ready);
}

int inl_slots_evict(struct inl_slots *slots, struct inl_use *use)
{
	struct inl_dev *dev = slots->dev;
	struct inl_bio_list ready = { 0 };
	struct slot *slot;
	int err = 0;

	pthread_mutex_lock(&slots->lock);
	slots->n_evictors++;
	while (slots->busy)
		pthread_cond_wait(&slots->free, &slots->lock);
	slots->n_evictors--;
	slot = find(slots, use);
	if (slot) {
		/* The use is drained, so nobody holds the slot. */
		unbook(slots, slot);
		idle_to_front(slots, slot);
		slots->busy = true;
		pthread_mutex_unlock(&slots->lock);
		err = dev->ops->key_evict(dev, index_of(slots, slot), use->key);
		if (err)
			INL_COUNT(dev, slot_evict_failures, 1);
		INL_COUNT(dev, slot_evictions, 1);
		pthread_mutex_lock(&slots->lock);
		slots->busy = false;
		pthread_cond_broadcast(&slots->free);
	}
	work(slots, &ready);
	pthread_mutex_unlock(&slots->lock);
	start_all(&ready);
	return err;
}

void inl_dev_reprogram(struct inl_dev *dev)
{
	struct inl_slots *slots = dev->slots;
	struct inl_bio_list ready = { 0 };

	if (!slots) {
		INL_COUNT(dev, resets, 1);
		if (dev->ops->reprogrammed)
			dev->ops->reprogrammed(dev);
		return;
	}
	pthread_mutex_lock(&slots->lock);
	slots->reset = true;
	slots->n_resets++;
	work(slots, &ready);
	pthread_mutex_unlock(&slots->lock);
	start_all(&ready);
}
