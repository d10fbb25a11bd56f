/*
 * block/bio.c: bios and data unit numbers as values: making, copying, adding.
 * Not here: what happens to a bio after it was submitted (submit.c).
 * Read more: inlay/block.h, "bios".
 */
#include "block/own.h"
#include <string.h>

void inl_dun_add(uint64_t dun[4], uint64_t n_units)
{
	for (unsigned i = 0; i < 4 && n_units; i++) {
		dun[i] += n_units;
		n_units = dun[i] < n_units; /* the carry */
	}
}

/* Does the DUN fit in this many bytes? */
static bool dun_fits(const uint64_t dun[4], uint32_t dun_bytes)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned low = i * 8;

		if (dun_bytes >= low + 8)
			continue;
		if (dun_bytes <= low ? dun[i] != 0 : dun[i] >> ((dun_bytes - low) * 8) != 0)
			return false;
	}
	return true;
}

bool inl_dun_covers(const struct inl_key_config *cfg, const uint64_t dun[4], uint64_t n_units)
{
	uint64_t last[4];

	/* As good as always: one limb, and far from its end. */
	if (cfg->dun_bytes <= 8 && !(dun[1] | dun[2] | dun[3])) {
		uint64_t max = UINT64_MAX >> (64 - 8 * cfg->dun_bytes);

		return dun[0] <= max && n_units - 1 <= max - dun[0];
	}
	if (!dun_fits(dun, cfg->dun_bytes))
		return false;
	memcpy(last, dun, sizeof(last));
	inl_dun_add(last, n_units - 1);
	if (!dun_fits(last, cfg->dun_bytes))
		return false;
	/* 256 bits may have wrapped. */
	for (int i = 3; i >= 0; i--) {
		if (last[i] != dun[i])
			return last[i] > dun[i];
	}
	return true;
}

bool inl_ctx_mergeable(const struct inl_crypt_ctx *ctx, uint64_t len, const struct inl_crypt_ctx *next)
{
	uint64_t dun[4], n_units;
	struct inl_use *use;
	bool may;

	if (!ctx || !next)
		return !ctx && !next;
	use = ctx->use == next->use ? inl_use_hold(ctx->use) : NULL;
	if (!use)
		return false;
	n_units = len >> use->unit_bits;
	memcpy(dun, ctx->dun, sizeof(dun));
	inl_dun_add(dun, n_units);
	may = inl_dun_covers(&use->key->cfg, ctx->dun, n_units + 1) && !memcmp(dun, next->dun, sizeof(dun));
	inl_use_release(use);
	return may;
}

/* Field by field, twice per bio: clearing all of it would cost more than most of what follows. */
static void bio_init(struct inl_bio *bio, enum inl_op op, uint64_t offset, uint64_t len)
{
	bio->op = op;
	bio->flags = 0;
	bio->offset = offset;
	bio->len = len;
	bio->segs = NULL;
	bio->n_segs = 0;
	bio->tags = (struct iovec){ NULL, 0 };
	bio->status = 0;
	bio->done = NULL;
	bio->private_data = NULL;
	bio->state.kind = INL_BIO_PLAIN;
	bio->state.ctx.use = NULL;
}

/* All but the kind and the context, which say what a bio is and not where. The job is filled in when there is one. */
void inl_bio_state_init(struct inl_bio_state *state, struct inl_thread *thread, struct inl_queue *queue, bool piece)
{
	state->skip = 0;
	state->thread = thread;
	state->queue = queue;
	state->error = 0;
	state->piece = piece;
	state->parked = state->going = false;
	state->stage = 0;
	state->torn = 0;
	state->full_len = 0;
	state->use = state->held = NULL;
	state->slot_dev = NULL;
	state->slot = -1;
	state->pieces = NULL;
	state->cross = NULL;
}

static void set_segs(struct inl_bio *bio, const struct iovec *segs, unsigned n_segs)
{
	bio->segs = segs;
	bio->n_segs = n_segs;
	for (unsigned i = 0; i < n_segs; i++)
		bio->len += segs[i].iov_len;
}

void inl_bio_init_plain(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs, unsigned n_segs)
{
	bio_init(bio, op, offset, 0);
	set_segs(bio, segs, n_segs);
}

void inl_bio_init_keyed(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs, unsigned n_segs,
			const struct inl_crypt_ctx *ctx)
{
	inl_bio_init_plain(bio, op, offset, segs, n_segs);
	bio->state.kind = INL_BIO_KEYED;
	if (ctx)
		bio->state.ctx = *ctx;
}

void inl_bio_init_raw_read(struct inl_bio *bio, uint64_t offset, const struct iovec *segs, unsigned n_segs)
{
	inl_bio_init_plain(bio, INL_READ, offset, segs, n_segs);
	bio->state.kind = INL_BIO_SEALED;
}

void inl_bio_init_range(struct inl_bio *bio, enum inl_op op, uint64_t offset, uint64_t len)
{
	bio_init(bio, op, offset, len);
}

/* The segment that holds byte `at` of the payload (at < len), and where in it. */
static unsigned find_seg(const struct inl_bio *bio, uint64_t at, size_t *skip)
{
	unsigned i = 0;

	at += bio->state.skip;
	while (at >= bio->segs[i].iov_len)
		at -= bio->segs[i++].iov_len;
	*skip = (size_t)at;
	return i;
}

void inl_bio_init_part(struct inl_bio *part, const struct inl_bio *owner, uint64_t at, uint64_t len)
{
	size_t skip;
	unsigned i;

	bio_init(part, owner->op, owner->offset + at, len);
	part->flags = owner->flags;
	inl_bio_state_init(&part->state, owner->state.thread, owner->state.queue, true);
	part->state.kind = owner->state.kind;
	if ((owner->op == INL_READ || owner->op == INL_WRITE) && len) {
		i = find_seg(owner, at, &skip);
		part->segs = owner->segs + i;
		part->n_segs = owner->n_segs - i;
		part->state.skip = skip;
	}
	if (owner->state.kind == INL_BIO_KEYED) {
		part->state.ctx = owner->state.ctx;
		part->state.use = owner->state.use;
		inl_dun_add(part->state.ctx.dun, at >> owner->state.use->unit_bits);
	}
}

void inl_bio_init_sealed_write(struct inl_bio *bio, const struct inl_bio *owner, uint64_t at, const struct iovec *seg)
{
	inl_bio_init_plain(bio, INL_WRITE, owner->offset + at, seg, 1);
	bio->flags = owner->flags;
	inl_bio_state_init(&bio->state, owner->state.thread, owner->state.queue, true);
	bio->state.kind = INL_BIO_SEALED;
}

enum inl_bio_kind inl_bio_kind(const struct inl_bio *bio)
{
	return bio->state.kind;
}

const uint64_t *inl_bio_dun(const struct inl_bio *bio)
{
	return bio->state.ctx.dun;
}

int inl_bio_slot(const struct inl_bio *bio)
{
	return bio->state.slot;
}

const struct inl_key *inl_bio_key(const struct inl_bio *bio)
{
	return bio->state.use->key;
}

void *inl_bio_key_priv(const struct inl_bio *bio)
{
	return bio->state.use->driver_priv;
}

unsigned *inl_bio_stage(struct inl_bio *bio)
{
	return &bio->state.stage;
}

unsigned inl_bio_iov(const struct inl_bio *bio, uint64_t at, struct iovec *iov, unsigned max, uint64_t *len)
{
	uint64_t left = bio->len - at;
	unsigned n = 0;
	size_t skip = 0;

	*len = 0;
	for (unsigned i = left ? find_seg(bio, at, &skip) : 0; left && n < max; i++) {
		size_t here = bio->segs[i].iov_len - skip;

		if (here > left)
			here = (size_t)left;
		if (here)
			iov[n++] = (struct iovec){ (uint8_t *)bio->segs[i].iov_base + skip, here };
		*len += here;
		left -= here;
		skip = 0;
	}
	return n;
}

/* Walk the part [at, at + len) of the payload, one range at a time. */
static void copy_segs(const struct inl_bio *bio, uint64_t at, uint8_t *buf, size_t len, bool to_segs)
{
	size_t skip = 0;

	for (unsigned i = len ? find_seg(bio, at, &skip) : 0; len; i++) {
		size_t n = bio->segs[i].iov_len - skip < len ? bio->segs[i].iov_len - skip : len;
		uint8_t *base = (uint8_t *)bio->segs[i].iov_base + skip;

		if (!n)
			continue;
		if (to_segs)
			memcpy(base, buf, n);
		else
			memcpy(buf, base, n);
		buf += n;
		len -= n;
		skip = 0;
	}
}

void inl_bio_copy_in(struct inl_bio *bio, uint64_t at, const void *buf, size_t len)
{
	copy_segs(bio, at, (uint8_t *)(uintptr_t)buf, len, true);
}

void inl_bio_copy_out(const struct inl_bio *bio, uint64_t at, void *buf, size_t len)
{
	copy_segs(bio, at, buf, len, false);
}

void inl_bio_list_add(struct inl_bio_list *list, struct inl_bio *bio)
{
	bio->state.next = NULL;
	if (list->head)
		list->tail->state.next = bio;
	else
		list->head = bio;
	list->tail = bio;
}

struct inl_bio *inl_bio_list_pop(struct inl_bio_list *list)
{
	struct inl_bio *bio = list->head;

	if (bio) {
		list->head = bio->state.next;
		if (!list->head)
			list->tail = NULL;
	}
	return bio;
}
