/*
 * block/slots.c: the key slots of an engine: which key is where, who may use it, who waits.
 * Not here: how an engine stores a key (its key_program and key_evict).
 * Read more: Linux block/blk-crypto-profile.c by its documentation. A slot is known by the use of its key, so a
 * recycled address cannot pass for another key.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>

struct slot {
	struct inl_key_use *use;   /* NULL: holds no key */
	unsigned refs;		   /* bios that use it now; 0: on the idle list */
	struct slot *prev, *next;  /* idle list */
	struct slot *hash_next;
};

struct inl_slots {
	struct inl_dev *dev;
	pthread_mutex_t lock;	    /* all below, and the engine's programming calls */
	struct slot idle;	    /* head of the list of idle slots, least recently used first */
	struct inl_bio_list parked; /* bios that wait for an idle slot, fair */
	unsigned hash_mask;
	struct slot **hash; /* by use */
	unsigned n_slots;
	struct slot slots[];
};

static struct slot **bucket(struct inl_slots *slots, const struct inl_key_use *use)
{
	uint64_t x = (uint64_t)(uintptr_t)use * 0x9e3779b97f4a7c15u;

	return &slots->hash[(x >> 32) & slots->hash_mask];
}

static struct slot *find(struct inl_slots *slots, const struct inl_key_use *use)
{
	struct slot *slot = *bucket(slots, use);

	while (slot && slot->use != use)
		slot = slot->hash_next;
	return slot;
}

static void book(struct inl_slots *slots, struct slot *slot, struct inl_key_use *use)
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
	pthread_mutex_destroy(&slots->lock);
	free(slots->hash);
	free(slots);
}

static int program(struct inl_slots *slots, struct slot *slot, struct inl_key_use *use)
{
	unsigned i = (unsigned)(slot - slots->slots);
	int err;

	unbook(slots, slot);
	err = slots->dev->ops->key_program(slots->dev, i, use->key);
	if (err) {
		/* Unknown content: under no key, and the first to be programmed again. */
		idle_remove(slot);
		idle_insert(slot, slots->idle.next);
		return err;
	}
	INL_COUNT(slots->dev, slot_programs, 1);
	book(slots, slot, use);
	return 0;
}

/* With the lock held. -EAGAIN: no slot holds the key and none is idle. */
static int try_get(struct inl_slots *slots, struct inl_bio *bio)
{
	struct inl_key_use *use = bio->state.ctx.use;
	struct slot *slot = find(slots, use);
	int err;

	if (slot) {
		INL_COUNT(slots->dev, slot_hits, 1);
	} else {
		slot = slots->idle.next;
		if (slot == &slots->idle)
			return -EAGAIN;
		err = program(slots, slot, use);
		if (err)
			return err;
	}
	if (slot->refs++ == 0)
		idle_remove(slot);
	bio->state.slot_dev = slots->dev;
	bio->state.slot = (int)(slot - slots->slots);
	return 0;
}

int inl_slots_get(struct inl_slots *slots, struct inl_bio *bio)
{
	int err;

	pthread_mutex_lock(&slots->lock);
	/* Who comes while others wait, waits too: else a busy key would starve the rest. */
	err = slots->parked.head ? -EAGAIN : try_get(slots, bio);
	if (err == -EAGAIN) {
		INL_COUNT(slots->dev, slot_waits, 1);
		inl_bio_list_add(&slots->parked, bio);
	}
	pthread_mutex_unlock(&slots->lock);
	return err;
}

void inl_slots_put(struct inl_slots *slots, struct inl_bio *bio)
{
	struct inl_bio_list ready = { 0 };
	struct slot *slot = &slots->slots[bio->state.slot];
	struct inl_bio *next;

	bio->state.slot_dev = NULL;
	bio->state.slot = -1;
	pthread_mutex_lock(&slots->lock);
	if (--slot->refs == 0)
		idle_insert(slot, &slots->idle);
	while ((next = slots->parked.head)) {
		int err = try_get(slots, next);

		if (err == -EAGAIN)
			break;
		inl_bio_list_pop(&slots->parked);
		next->state.error = err;
		inl_bio_list_add(&ready, next);
	}
	pthread_mutex_unlock(&slots->lock);
	while ((next = inl_bio_list_pop(&ready)))
		inl_run(next);
}

int inl_slots_evict(struct inl_slots *slots, struct inl_key_use *use)
{
	struct slot *slot;
	int err = 0;

	pthread_mutex_lock(&slots->lock);
	slot = find(slots, use);
	if (slot) {
		/* The use is drained, so nobody holds the slot. */
		unbook(slots, slot);
		err = slots->dev->ops->key_evict(slots->dev, (unsigned)(slot - slots->slots), use->key);
		idle_remove(slot);
		idle_insert(slot, slots->idle.next);
		INL_COUNT(slots->dev, slot_evictions, 1);
	}
	pthread_mutex_unlock(&slots->lock);
	return err;
}
