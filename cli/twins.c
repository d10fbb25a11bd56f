/*
 * cli/twins.c: which inodes of the volume the files of several links became, in bounded memory.
 * Not here: making the links (cli/fill.c, cli/transfer.c).
 * Read more: cli/change.h.
 */
#include "cli/change.h"
#include <stdlib.h>

#define SLOTS_MIN 1024u
#define SLOTS_MAX (UINT32_C(1) << 20) /* 24 MiB, and 12 more while it grows */

struct inl_twins_slot {
	uint64_t dev, source;
	uint64_t ino; /* 0: empty */
};

static struct inl_twins_slot *slot_of(struct inl_twins_slot *slots, uint32_t n_slots, uint64_t dev, uint64_t source)
{
	uint64_t hash = (source ^ dev << 40) * UINT64_C(0x9e3779b97f4a7c15);
	uint32_t at = (uint32_t)(hash >> 32) & (n_slots - 1);

	while (slots[at].ino && (slots[at].source != source || slots[at].dev != dev))
		at = (at + 1) & (n_slots - 1);
	return &slots[at];
}

static bool grow(struct inl_twins *twins)
{
	uint32_t n_slots = twins->n_slots ? twins->n_slots * 2 : SLOTS_MIN;
	struct inl_twins_slot *slots;

	if (n_slots > SLOTS_MAX)
		return false;
	slots = inl_cli_alloc(n_slots * sizeof(*slots));
	for (uint32_t i = 0; i < twins->n_slots; i++) {
		const struct inl_twins_slot *old = &twins->slots[i];

		if (old->ino)
			*slot_of(slots, n_slots, old->dev, old->source) = *old;
	}
	free(twins->slots);
	twins->slots = slots;
	twins->n_slots = n_slots;
	return true;
}

uint64_t inl_twins_find(const struct inl_twins *twins, uint64_t dev, uint64_t source)
{
	return twins->n ? slot_of(twins->slots, twins->n_slots, dev, source)->ino : 0;
}

bool inl_twins_add(struct inl_twins *twins, uint64_t dev, uint64_t source, uint64_t ino)
{
	struct inl_twins_slot *slot;

	if (twins->n >= twins->n_slots / 4 * 3 && !grow(twins))
		return false;
	slot = slot_of(twins->slots, twins->n_slots, dev, source);
	twins->n += !slot->ino;
	*slot = (struct inl_twins_slot){ dev, source, ino };
	return true;
}

void inl_twins_done(struct inl_twins *twins)
{
	free(twins->slots);
	*twins = (struct inl_twins){ 0 };
}
