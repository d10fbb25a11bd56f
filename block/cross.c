/*
 * block/cross.c: crossing the line between plaintext and ciphertext in memory: for the fallback and for emulated engines.
 * Not here: when it is done (submit.c), bounce memory (pieces.c), the ciphers (crypto/).
 * Read more: ARCHITECTURE.md, "The picture". The only file that makes sealed writes.
 *
 * Reads are decrypted in place when they end. Writes go through bounce memory, so that the caller's memory is never
 * changed. Who does the work is one function: of the fallback, or of an engine, which may do it later, elsewhere.
 *
 * Where the medium is memory the fallback needs no bio below: it crosses between the caller's memory and the medium's.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPREAD_NS    60000u	   /* work that takes less is not worth waking anybody for */
#define SPREAD_PIECE (32u << 10)   /* bytes: the least that a helping thread is given */
#define MEASURE_LEN  (16u << 10)   /* bytes: less is not a measurement */

struct inl_cross {
	struct inl_dev *dev;   /* whose counters, whose bounce memory */
	struct inl_dev *lower; /* where ciphertext lives; == dev for the fallback */
	bool fallback;
	inl_crypt_fn *crypt;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int cross_new(struct inl_dev *dev, struct inl_dev *lower, bool fallback, inl_crypt_fn *crypt,
		     struct inl_cross **out)
{
	struct inl_cross *cross = malloc(sizeof(*cross));

	if (!cross)
		return -ENOMEM;
	*cross = (struct inl_cross){ dev, lower, fallback, crypt };
	*out = cross;
	return 0;
}

int inl_cross_new(struct inl_dev *dev, struct inl_dev *lower, inl_crypt_fn *crypt, struct inl_cross **out)
{
	return cross_new(dev, lower, false, crypt, out);
}

static void crypt_in_software(struct inl_dev *dev, struct inl_cross_job *job)
{
	inl_cross_done(job, inl_cross_job_run(job, job->bio->state.use->cipher));
}

int inl_cross_new_fallback(struct inl_dev *dev, struct inl_cross **out)
{
	return cross_new(dev, dev, true, crypt_in_software, out);
}

void inl_cross_free(struct inl_cross *cross)
{
	free(cross);
}

static const enum inl_cipher_id cipher_ids[INL_BLK_MODE_MAX] = {
	[INL_BLK_MODE_AES_256_XTS] = INL_CIPHER_AES_256_XTS,
	[INL_BLK_MODE_AES_128_CBC_ESSIV] = INL_CIPHER_AES_128_CBC_ESSIV,
	[INL_BLK_MODE_ADIANTUM] = INL_CIPHER_ADIANTUM,
	[INL_BLK_MODE_SM4_XTS] = INL_CIPHER_SM4_XTS,
};

bool inl_cross_has_cipher(const struct inl_key_config *cfg)
{
	const struct inl_cipher_info *info =
		(unsigned)cfg->mode < INL_BLK_MODE_MAX ? inl_cipher_info(cipher_ids[cfg->mode]) : NULL;

	return info && info->available;
}

int inl_cross_cipher_new(const struct inl_key *key, const char *impl, struct inl_cipher **out)
{
	if (key->cfg.type != INL_KEY_RAW)
		return -EOPNOTSUPP;
	return inl_cipher_new(cipher_ids[key->cfg.mode], impl, key->bytes, out);
}

void inl_cross_cipher_free(struct inl_cipher *cipher)
{
	inl_cipher_free(cipher);
}

/* ---- one job ----------------------------------------------------------------------------------------------------- */

/* A stretch of memory of a job, in data units. */
struct stretch {
	const struct inl_cipher *cipher;
	bool encrypt;
	uint32_t unit;
	size_t n_units;
	uint64_t dun[4];
	uint8_t *dst;
	const uint8_t *src;
	atomic_uint *ps_per_byte; /* of the key's use */
	size_t n_each;		  /* data units per helper */
	atomic_int err;
};

/*
 * Learn how long the cipher takes. The least that was seen counts, since everything that disturbs a measurement makes it
 * longer; it is forgotten slowly.
 */
static void learn(atomic_uint *ps_per_byte, uint64_t ns, uint64_t len)
{
	unsigned known = atomic_load_explicit(ps_per_byte, memory_order_relaxed);
	uint64_t ps = ns * 1000 / len + 1;

	if (known && ps > known + known / 32 + 1)
		ps = known + known / 32 + 1;
	atomic_store_explicit(ps_per_byte, (unsigned)ps, memory_order_relaxed);
}

static int crypt_units(const struct stretch *all, size_t first, size_t n)
{
	uint8_t *dst = all->dst + first * all->unit;
	const uint8_t *src = all->src + first * all->unit;
	uint64_t dun[4], begin = 0;
	bool measured = n * all->unit >= MEASURE_LEN;
	int err;

	memcpy(dun, all->dun, sizeof(dun));
	inl_dun_add(dun, first);
	if (measured)
		begin = inl_now_ns();
	err = all->encrypt ? inl_cipher_encrypt(all->cipher, dun, n, all->unit, dst, src) :
			     inl_cipher_decrypt(all->cipher, dun, n, all->unit, dst, src);
	if (measured)
		learn(all->ps_per_byte, inl_now_ns() - begin, n * all->unit);
	return err;
}

static void crypt_share(void *arg, unsigned i)
{
	struct stretch *all = arg;
	size_t first = i * all->n_each, n = all->n_units - first < all->n_each ? all->n_units - first : all->n_each;
	int err = crypt_units(all, first, n);

	if (err)
		atomic_store(&all->err, err);
}

/* A helping thread pays only for work that takes longer than it takes to wake one. */
static int crypt_stretch(struct stretch *all)
{
	uint64_t len = (uint64_t)all->n_units * all->unit;
	unsigned ps = atomic_load_explicit(all->ps_per_byte, memory_order_relaxed), width;
	size_t each;

	if (len < 2 * SPREAD_PIECE || len * ps / 1000 < SPREAD_NS || (width = inl_spread_width()) == 1)
		return crypt_units(all, 0, all->n_units);
	each = (len + width - 1) / width > SPREAD_PIECE ? (len + width - 1) / width : SPREAD_PIECE;
	all->n_each = (each + all->unit - 1) / all->unit;
	inl_spread((unsigned)((all->n_units + all->n_each - 1) / all->n_each), crypt_share, all);
	return atomic_load(&all->err);
}

/* Where the units at `at`, which the payload has here, come from and go to. */
static void sides(const struct inl_cross_job *job, uint64_t at, uint8_t *here, const uint8_t **src, uint8_t **dst)
{
	uint8_t *sealed = job->sealed ? job->sealed + at : here;

	*src = job->encrypt ? here : sealed;
	*dst = job->encrypt ? sealed : here;
}

size_t inl_cross_job_range(const struct inl_cross_job *job, uint64_t at, const uint8_t **src, uint8_t **dst)
{
	uint64_t left = job->n_units * job->unit - at, len;
	struct iovec iov;

	inl_bio_iov(job->bio, job->at + at, &iov, 1, &len);
	sides(job, at, iov.iov_base, src, dst);
	return (size_t)(len < left ? len : left);
}

#define IOVS_AT_ONCE 64

/* The part of a job that these n segments hold: all of them, but for what lies behind the job's end. Returns units. */
static size_t make_spans(const struct inl_cross_job *job, uint64_t at, const struct iovec *iov, unsigned *n,
			 struct inl_cipher_span *spans)
{
	uint64_t left = job->n_units - at / job->unit;
	size_t all = 0;
	unsigned i;

	for (i = 0; i < *n && left; i++) {
		struct inl_cipher_span *span = &spans[i];
		uint64_t units = iov[i].iov_len / job->unit;

		sides(job, at + all * job->unit, iov[i].iov_base, &span->src, &span->dst);
		span->n = units < left ? units : left;
		left -= span->n;
		all += span->n;
	}
	*n = i;
	return all;
}

/* In one call: to begin one costs as much as some blocks. */
static int crypt_together(const struct stretch *all, const struct inl_cipher_span *spans, unsigned n)
{
	return (all->encrypt ? inl_cipher_encrypt_spans : inl_cipher_decrypt_spans)(all->cipher, all->dun, all->unit, spans,
										    n);
}

/* One after the other, each perhaps with helping threads. Moves the DUN on. */
static int crypt_in_turn(struct stretch *all, const struct inl_cipher_span *spans, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		all->dst = spans[i].dst;
		all->src = spans[i].src;
		all->n_units = spans[i].n;
		err = crypt_stretch(all);
		inl_dun_add(all->dun, spans[i].n);
	}
	return err;
}

static bool all_short(const struct inl_cipher_span *spans, unsigned n, uint32_t unit)
{
	for (unsigned i = 0; i < n; i++)
		if (spans[i].n * unit >= 2 * SPREAD_PIECE)
			return false;
	return true;
}

int inl_cross_job_run(struct inl_cross_job *job, const struct inl_cipher *cipher)
{
	uint64_t at = 0, end = job->n_units * job->unit, len;
	struct stretch all = { .cipher = cipher, .encrypt = job->encrypt, .unit = job->unit,
			       .ps_per_byte = &job->bio->state.use->ps_per_byte };
	struct inl_cipher_span spans[IOVS_AT_ONCE];
	struct iovec iov[IOVS_AT_ONCE];
	int err = 0;

	memcpy(all.dun, job->dun, sizeof(all.dun));
	while (at < end && !err) {
		unsigned n = inl_bio_iov(job->bio, job->at + at, iov, IOVS_AT_ONCE, &len);

		size_t n_units = make_spans(job, at, iov, &n, spans);

		at += n_units * job->unit;
		if (n > 1 && all_short(spans, n, job->unit)) {
			err = crypt_together(&all, spans, n);
			inl_dun_add(all.dun, n_units);
		} else {
			err = crypt_in_turn(&all, spans, n);
		}
	}
	return err;
}

static void count_units(const struct inl_cross *cross, const struct inl_cross_job *job)
{
	if (!cross->fallback)
		inl_dev_count_units(cross->dev, job->encrypt ? INL_WRITE : INL_READ, job->n_units);
	else if (job->encrypt)
		INL_COUNT(cross->dev, fallback_units_encrypted, job->n_units);
	else
		INL_COUNT(cross->dev, fallback_units_decrypted, job->n_units);
}

static struct inl_bio *piece_of(struct inl_cross_job *job)
{
	return (struct inl_bio *)(void *)((char *)job - offsetof(struct inl_bio, state.job));
}

void inl_cross_done(struct inl_cross_job *job, int status)
{
	struct inl_bio *bio = job->bio;
	struct inl_thread *thread = bio->state.thread;
	bool first;

	if (!status)
		count_units(job->cross, job);
	if (!job->encrypt) {
		inl_bio_end(bio, status);
		return;
	}
	bio = piece_of(job);
	if (thread == inl_thread_self) {
		first = inl_turn_begin(thread);
		inl_piece_crossed(bio, status);
		inl_turn_end(thread, first);
	} else {
		bio->state.error = status;
		inl_todo(bio, INL_TODO_CROSSED);
	}
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

static void begin(struct inl_cross *cross, struct inl_cross_job *job, struct inl_bio *bio, uint64_t at, uint64_t len)
{
	unsigned unit_bits = bio->state.use->unit_bits;

	job->cross = cross;
	job->bio = bio;
	job->encrypt = bio->op == INL_WRITE;
	job->unit = 1u << unit_bits;
	job->n_units = len >> unit_bits;
	job->at = at;
	job->sealed = NULL;
	job->next = NULL;
	job->tries = 0;
	memcpy(job->dun, bio->state.ctx.dun, sizeof(job->dun));
	inl_dun_add(job->dun, at >> unit_bits);
}

void inl_cross_read(struct inl_cross *cross, struct inl_bio *bio)
{
	begin(cross, &bio->state.job, bio, 0, bio->len);
	cross->crypt(cross->dev, &bio->state.job);
}

/* ---- writes ------------------------------------------------------------------------------------------------------ */

void inl_cross_write(struct inl_bio *piece, struct inl_bio *owner, uint64_t at, uint64_t len, uint8_t *out)
{
	struct inl_cross *cross = owner->state.cross;

	begin(cross, &piece->state.job, owner, at, len);
	piece->state.job.sealed = out;
	cross->crypt(cross->dev, &piece->state.job);
}

void inl_cross_seal(struct inl_cross *cross, struct inl_bio *piece, uint64_t pos)
{
	piece->state.dev = piece->state.top = cross->lower;
	piece->state.pos = pos;
	if (cross->lower == cross->dev) {
		inl_dev_drive(cross->lower, piece); /* it has arrived there before, as part of its owner */
		return;
	}
	piece->state.error = inl_dev_check(cross->lower, INL_WRITE, pos, piece->len);
	inl_todo_first(piece, INL_TODO_START);
}

/* ---- media of memory --------------------------------------------------------------------------------------------- */

/*
 * An engine may fail half way, and so may a cipher, which then wipes what it wrote: that must not cost what the medium had.
 * FUA is for the driver to honour. Of a torn read nothing is decrypted.
 */
static bool may_reach(const struct inl_cross *cross, const struct inl_bio *bio)
{
	if (!cross->fallback || !cross->dev->has_memory || bio->flags & INL_BIO_FUA || bio->state.full_len)
		return false;
	return bio->op == INL_READ || inl_cipher_never_fails(bio->state.use->cipher);
}

static void cross_straight(struct inl_cross *cross, struct inl_bio *bio, uint8_t *medium)
{
	struct inl_cross_job *job = &bio->state.job;
	int err;

	begin(cross, job, bio, 0, bio->len);
	job->sealed = medium;
	err = inl_cross_job_run(job, bio->state.use->cipher);
	if (!err)
		count_units(cross, job);
	inl_bio_end(bio, err);
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

void inl_cross_submit(struct inl_cross *cross, struct inl_bio *bio)
{
	uint8_t *medium = may_reach(cross, bio) ? inl_dev_reach(cross->dev, bio) : NULL;

	if (medium) {
		cross_straight(cross, bio, medium);
		return;
	}
	bio->state.cross = cross;
	if (bio->op == INL_WRITE) {
		inl_pieces_start(cross->dev->bounce, bio);
		return;
	}
	bio->state.kind = INL_BIO_SEALED;
	if (cross->lower == bio->state.dev)
		inl_dev_drive(cross->lower, bio);
	else
		inl_submit_below(cross->lower, bio, bio->state.pos);
}
