/*
 * cli/twins.c: which inodes of the volume the files of several links became, in bounded memory.
 * Not here: making the links (cli/fill.c).
 * Read more: cli/put.h.
 */
#include "cli/put.h"
#include <stdlib.h>

#define SLOTS_MIN 1024u
#define SLOTS_MAX (UINT32_C(1) << 20) /* 24 MiB, and 12 more while it grows */

struct inl_put_slot {
	uint64_t dev, host;
	uint64_t ino; /* 0: empty */
};

static struct inl_put_slot *slot_of(struct inl_put_slot *slots, uint32_t n_slots, uint64_t dev, uint64_t host)
{
	uint64_t hash = (host ^ dev << 40) * UINT64_C(0x9e3779b97f4a7c15);
	uint32_t at = (uint32_t)(hash >> 32) & (n_slots - 1);

	while (slots[at].ino && (slots[at].host != host || slots[at].dev != dev))
		at = (at + 1) & (n_slots - 1);
	return &slots[at];
}

static bool grow(struct inl_put_links *links)
{
	uint32_t n_slots = links->n_slots ? links->n_slots * 2 : SLOTS_MIN;
	struct inl_put_slot *slots;

	if (n_slots > SLOTS_MAX)
		return false;
	slots = inl_cli_alloc(n_slots * sizeof(*slots));
	for (uint32_t i = 0; i < links->n_slots; i++) {
		const struct inl_put_slot *old = &links->slots[i];

		if (old->ino)
			*slot_of(slots, n_slots, old->dev, old->host) = *old;
	}
	free(links->slots);
	links->slots = slots;
	links->n_slots = n_slots;
	return true;
}

uint64_t inl_put_link_find(const struct inl_put_links *links, const struct stat *st)
{
	return links->n ? slot_of(links->slots, links->n_slots, st->st_dev, st->st_ino)->ino : 0;
}

bool inl_put_link_add(struct inl_put_links *links, const struct stat *st, uint64_t ino)
{
	struct inl_put_slot *slot;

	if (links->n >= links->n_slots / 4 * 3 && !grow(links))
		return false;
	slot = slot_of(links->slots, links->n_slots, st->st_dev, st->st_ino);
	links->n += !slot->ino;
	*slot = (struct inl_put_slot){ st->st_dev, st->st_ino, ino };
	return true;
}
