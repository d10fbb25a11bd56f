/*
 * block/cross.c: crossing the line between plaintext and ciphertext in software: for the fallback and for emulated engines.
 * Not here: when it is done (dev.c), the ciphers (crypto/).
 * Read more: ARCHITECTURE.md, "The picture". The only file that makes sealed writes.
 *
 * Reads are decrypted in place when they end. Writes go through bounce buffers, a piece at a time, so that the caller's
 * memory is never changed; the buffers are made here once, and a bio that finds none is parked.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define N_BOUNCES  4
#define BOUNCE_LEN (256u << 10) /* a multiple of every data unit size */

struct inl_bounce {
	struct inl_cross *cross;
	struct inl_bounce *next;
	struct inl_bio bio;    /* the sealed write below */
	struct inl_bio *owner; /* the keyed write above */
	struct iovec seg;
	uint8_t *buf;
};

struct inl_cross {
	struct inl_dev *dev;	    /* whose counters */
	struct inl_dev *lower;	    /* where ciphertext lives; == dev for the fallback */
	bool fallback;
	pthread_mutex_t lock;	    /* free, parked */
	struct inl_bounce *free;
	struct inl_bio_list parked;
	uint8_t *memory;	    /* N_BOUNCES * BOUNCE_LEN, or NULL on a device that is not written */
	struct inl_bounce bounces[N_BOUNCES];
};

static int cross_new(struct inl_dev *dev, struct inl_dev *lower, bool fallback, bool writable, struct inl_cross **out)
{
	struct inl_cross *cross = calloc(1, sizeof(*cross));

	if (!cross)
		return -ENOMEM;
	pthread_mutex_init(&cross->lock, NULL);
	cross->dev = dev;
	cross->lower = lower;
	cross->fallback = fallback;
	if (writable) {
		void *memory = mmap(NULL, N_BOUNCES * BOUNCE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				    -1, 0);

		if (memory == MAP_FAILED) {
			inl_cross_free(cross);
			return -ENOMEM;
		}
		cross->memory = memory;
		for (unsigned i = 0; i < N_BOUNCES; i++) {
			struct inl_bounce *bounce = &cross->bounces[i];

			bounce->cross = cross;
			bounce->buf = cross->memory + (size_t)i * BOUNCE_LEN;
			bounce->next = cross->free;
			cross->free = bounce;
		}
	}
	*out = cross;
	return 0;
}

int inl_cross_new(struct inl_dev *dev, struct inl_dev *lower, struct inl_cross **out)
{
	return cross_new(dev, lower, false, lower->writable, out);
}

int inl_cross_new_fallback(struct inl_dev *dev, struct inl_cross **out)
{
	return cross_new(dev, dev, true, dev->writable, out);
}

void inl_cross_free(struct inl_cross *cross)
{
	if (!cross)
		return;
	if (cross->memory)
		munmap(cross->memory, N_BOUNCES * BOUNCE_LEN);
	pthread_mutex_destroy(&cross->lock);
	free(cross);
}

static const enum inl_cipher_id cipher_ids[INL_BLK_MODE_MAX] = {
	[INL_BLK_MODE_AES_256_XTS] = INL_CIPHER_AES_256_XTS,
	[INL_BLK_MODE_AES_128_CBC_ESSIV] = INL_CIPHER_AES_128_CBC_ESSIV,
	[INL_BLK_MODE_ADIANTUM] = INL_CIPHER_ADIANTUM,
	[INL_BLK_MODE_SM4_XTS] = INL_CIPHER_SM4_XTS,
};

int inl_cross_cipher_new(const struct inl_key *key, struct inl_cipher **out)
{
	if (key->cfg.type != INL_KEY_RAW)
		return -EOPNOTSUPP;
	return inl_cipher_new(cipher_ids[key->cfg.mode], key->bytes, out);
}

void inl_cross_cipher_free(struct inl_cipher *cipher)
{
	inl_cipher_free(cipher);
}

static void count_units(struct inl_cross *cross, enum inl_op op, uint64_t n)
{
	if (!cross->fallback)
		inl_dev_count_units(cross->dev, op, n);
	else if (op == INL_READ)
		INL_COUNT(cross->dev, fallback_units_decrypted, n);
	else
		INL_COUNT(cross->dev, fallback_units_encrypted, n);
}

static uint32_t unit_size(const struct inl_bio *bio)
{
	return bio->state.ctx.use->key->cfg.data_unit_size;
}

int inl_cross_end_read(struct inl_bio *bio)
{
	uint32_t unit = unit_size(bio);
	uint64_t *dun = bio->state.cross_dun;

	for (unsigned i = 0; i < bio->n_segs; i++) {
		uint8_t *base = bio->segs[i].iov_base;
		size_t n = bio->segs[i].iov_len / unit;
		int err = inl_cipher_decrypt(bio->state.cipher, dun, n, unit, base, base);

		if (err)
			return err;
		inl_dun_add(dun, n);
	}
	count_units(bio->state.cross, INL_READ, bio->len / unit);
	return 0;
}

/* ---- writes ------------------------------------------------------------------------------------------------------ */

/* Fill the bounce buffer with ciphertext of the owner's next piece. */
static int encrypt_piece(struct inl_bounce *bounce)
{
	struct inl_bio *owner = bounce->owner;
	uint32_t unit = unit_size(owner);
	uint64_t at = owner->state.cross_pos, skip = at;
	size_t filled = 0, want = owner->len - at < BOUNCE_LEN ? owner->len - at : BOUNCE_LEN;

	for (unsigned i = 0; i < owner->n_segs && filled < want; i++) {
		const uint8_t *base = owner->segs[i].iov_base;
		size_t len = owner->segs[i].iov_len;
		int err;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len -= skip;
		if (len > want - filled)
			len = want - filled;
		err = inl_cipher_encrypt(owner->state.cipher, owner->state.cross_dun, len / unit, unit,
					 bounce->buf + filled, base + skip);
		if (err)
			return err;
		inl_dun_add(owner->state.cross_dun, len / unit);
		filled += len;
		skip = 0;
	}
	bounce->seg.iov_base = bounce->buf;
	bounce->seg.iov_len = filled;
	count_units(bounce->cross, INL_WRITE, filled / unit);
	return 0;
}

static void piece_done(struct inl_bio *bio);

/* Send the owner's next piece, or end the owner. */
static void next_piece(struct inl_bounce *bounce)
{
	struct inl_bio *owner = bounce->owner;
	struct inl_cross *cross = bounce->cross;
	int err = encrypt_piece(bounce);

	if (err) {
		bounce->bio.status = err;
		bounce->bio.private_data = bounce;
		piece_done(&bounce->bio);
		return;
	}
	inl_bio_init_sealed_write(&bounce->bio, cross->lower, owner->state.pos + owner->state.cross_pos, &bounce->seg,
				  owner->flags);
	bounce->bio.done = piece_done;
	bounce->bio.private_data = bounce;
	inl_run(&bounce->bio);
}

/* Pass the buffer on to the bio that has waited longest, or put it back. */
static void bounce_put(struct inl_bounce *bounce)
{
	struct inl_cross *cross = bounce->cross;
	struct inl_bio *waiting;

	pthread_mutex_lock(&cross->lock);
	waiting = inl_bio_list_pop(&cross->parked);
	bounce->owner = waiting;
	if (!waiting) {
		bounce->next = cross->free;
		cross->free = bounce;
	}
	pthread_mutex_unlock(&cross->lock);
	if (waiting)
		next_piece(bounce);
}

static void piece_done(struct inl_bio *bio)
{
	struct inl_bounce *bounce = bio->private_data;
	struct inl_bio *owner = bounce->owner;
	int status = bio->status;

	owner->state.cross_pos += bounce->seg.iov_len;
	if (status == 0 && owner->state.cross_pos < owner->len) {
		next_piece(bounce);
		return;
	}
	bounce_put(bounce);
	inl_bio_end(owner, status);
}

static void write_through_bounce(struct inl_cross *cross, struct inl_bio *bio)
{
	struct inl_bounce *bounce;

	pthread_mutex_lock(&cross->lock);
	bounce = cross->free;
	if (bounce) {
		cross->free = bounce->next;
		bounce->owner = bio;
	} else {
		INL_COUNT(cross->dev, bounce_waits, 1);
		inl_bio_list_add(&cross->parked, bio);
	}
	pthread_mutex_unlock(&cross->lock);
	if (bounce)
		next_piece(bounce);
}

void inl_cross_submit(struct inl_cross *cross, struct inl_bio *bio, const struct inl_cipher *cipher)
{
	bio->state.cross = cross;
	bio->state.cipher = cipher;
	bio->state.cross_pos = 0;
	memcpy(bio->state.cross_dun, bio->state.ctx.dun, sizeof(bio->state.cross_dun));
	if (bio->op == INL_WRITE) {
		write_through_bounce(cross, bio);
		return;
	}
	bio->state.kind = INL_BIO_SEALED;
	if (cross->lower == bio->state.dev)
		inl_dev_drive(cross->lower, bio);
	else
		inl_submit_below(cross->lower, bio, bio->state.pos);
}
