/*
 * block/bio.c: bios and data unit numbers as values: making, copying, adding.
 * Not here: what happens to a bio after inl_submit (dev.c).
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

bool inl_ctx_covers(const struct inl_crypt_ctx *ctx, uint64_t n_units)
{
	const struct inl_key_config *cfg = &ctx->use->key->cfg;
	uint64_t last[4];

	if (!dun_fits(ctx->dun, cfg->dun_bytes))
		return false;
	memcpy(last, ctx->dun, sizeof(last));
	inl_dun_add(last, n_units - 1);
	if (!dun_fits(last, cfg->dun_bytes))
		return false;
	/* 256 bits may have wrapped. */
	for (int i = 3; i >= 0; i--) {
		if (last[i] != ctx->dun[i])
			return last[i] > ctx->dun[i];
	}
	return true;
}

bool inl_ctx_mergeable(const struct inl_crypt_ctx *ctx, uint64_t len, const struct inl_crypt_ctx *next)
{
	uint64_t dun[4], n_units;

	if (!ctx || !next)
		return !ctx && !next;
	if (!ctx->use || ctx->use != next->use)
		return false;
	n_units = len / ctx->use->key->cfg.data_unit_size;
	memcpy(dun, ctx->dun, sizeof(dun));
	inl_dun_add(dun, n_units);
	return !memcmp(dun, next->dun, sizeof(dun)) && inl_ctx_covers(ctx, n_units + 1);
}

static void bio_init(struct inl_bio *bio, enum inl_op op, uint64_t offset, uint64_t len)
{
	memset(bio, 0, sizeof(*bio));
	bio->op = op;
	bio->offset = offset;
	bio->len = len;
	bio->state.slot = -1;
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

void inl_bio_init_sealed_write(struct inl_bio *bio, struct inl_dev *dev, uint64_t pos, const struct iovec *seg,
			       unsigned flags)
{
	inl_bio_init_plain(bio, INL_WRITE, pos, seg, 1);
	bio->flags = flags;
	bio->state.kind = INL_BIO_SEALED;
	bio->state.piece = true;
	bio->state.dev = bio->state.top = dev;
	bio->state.pos = pos;
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
	return bio->state.ctx.use->key;
}

void *inl_bio_key_priv(const struct inl_bio *bio)
{
	return bio->state.ctx.use->driver_priv;
}

/* Walk the part [at, at + len) of the segments, one piece at a time. */
static void copy_segs(const struct inl_bio *bio, uint64_t at, uint8_t *buf, size_t len, bool to_segs)
{
	for (unsigned i = 0; i < bio->n_segs && len; i++) {
		size_t seg_len = bio->segs[i].iov_len, n;
		uint8_t *base = bio->segs[i].iov_base;

		if (at >= seg_len) {
			at -= seg_len;
			continue;
		}
		n = seg_len - at < len ? seg_len - at : len;
		if (to_segs)
			memcpy(base + at, buf, n);
		else
			memcpy(buf, base + at, n);
		buf += n;
		len -= n;
		at = 0;
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

	if (bio)
		list->head = bio->state.next;
	return bio;
}
