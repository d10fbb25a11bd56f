/*
 * tests/unit/crash_rec.c: a device that writes down every write and flush, and the images that a crash may leave of it.
 * Not here: what must be in them (crash_walk.c).
 * Read more: crash.h; inlay/driver.h.
 *
 * A write is certainly on the medium when a flush has ended that began after the write had ended, or, with FUA, when it
 * has ended itself. Of other writes any sector may be there or not.
 */
#include "crash.h"
#include "base/crc.h"
#include "base/endian.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- dice -------------------------------------------------------------------------------------------------------- */

uint64_t cr_throw(struct cr_dice *dice) /* splitmix64 */
{
	uint64_t x = dice->state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint32_t cr_below(struct cr_dice *dice, uint32_t n)
{
	return (uint32_t)((cr_throw(dice) >> 32) * n >> 32);
}

uint32_t cr_between(struct cr_dice *dice, uint32_t lo, uint32_t hi)
{
	return lo + cr_below(dice, hi - lo + 1);
}

bool cr_chance(struct cr_dice *dice, uint32_t percent)
{
	return cr_below(dice, 100) < percent;
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

static bool fails(struct cr_rec *rec, enum inl_op op)
{
	struct cr_fault *fault = &rec->faults[op];
	uint64_t n = ++rec->n_ops[op];

	if (!fault->nth || (fault->sticky ? n < fault->nth : n != fault->nth))
		return false;
	if (!rec->failed_at[op])
		rec->failed_at[op] = rec->now;
	return true;
}

static bool changes(const struct inl_bio *bio)
{
	return bio->op == INL_WRITE || bio->op == INL_ZERO || bio->op == INL_DISCARD;
}

/* Write down that a bio begins. Returns its event. */
static size_t record(struct cr_rec *rec, struct inl_bio *bio)
{
	struct cr_event event = { .kind = changes(bio) ? CR_WRITE : CR_FLUSH, .fua = bio->flags & INL_BIO_FUA };

	event.start = ++rec->now;
	if (changes(bio)) {
		event.pos = bio->state.pos;
		event.len = bio->len;
		event.bytes = calloc(1, bio->len);
		if (bio->op == INL_WRITE)
			inl_bio_copy_out(bio, 0, event.bytes, bio->len);
	}
	if (rec->n_events == rec->room) {
		rec->room = rec->room ? 2 * rec->room : 1024;
		rec->events = realloc(rec->events, rec->room * sizeof(rec->events[0]));
	}
	rec->events[rec->n_events] = event;
	return rec->n_events++;
}

static bool same_bytes(const struct inl_bio *bio, const uint8_t *bytes)
{
	uint8_t *now = malloc(bio->len);
	bool same;

	inl_bio_copy_out(bio, 0, now, bio->len);
	same = !memcmp(now, bytes, bio->len);
	free(now);
	return same;
}

/* What a bio does to the medium, at its end. */
static void perform(struct cr_rec *rec, struct inl_bio *bio, size_t n)
{
	struct cr_event *event = n == SIZE_MAX ? NULL : &rec->events[n];

	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, rec->bytes + bio->state.pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, rec->bytes + bio->state.pos, bio->len);
	else if (changes(bio))
		memset(rec->bytes + bio->state.pos, 0, bio->len);
	if (changes(bio))
		rec->bytes_written += bio->len;
	if (!event)
		return;
	if (bio->op == INL_WRITE && !same_bytes(bio, event->bytes))
		rec->unstable++;
	event->end = ++rec->now;
	event->ok = true;
}

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct cr_rec *rec = inl_dev_priv(dev);
	size_t event = SIZE_MAX;
	bool failed, later;

	pthread_mutex_lock(&rec->lock);
	failed = fails(rec, bio->op);
	if (!failed && rec->recording && bio->op != INL_READ)
		event = record(rec, bio);
	later = !failed && rec->late && rec->n_pending < CR_COUNT(rec->pending);
	if (later) {
		rec->pending[rec->n_pending].bio = bio;
		rec->pending[rec->n_pending++].event = event;
		pthread_cond_signal(&rec->cond);
	} else if (!failed) {
		perform(rec, bio, event);
	}
	pthread_mutex_unlock(&rec->lock);
	if (!later)
		inl_bio_end(bio, failed ? -EIO : 0);
}

/* Ends bios in any order. */
static void *end_late(void *arg)
{
	struct cr_rec *rec = arg;
	struct inl_bio *bio;
	unsigned i;

	pthread_mutex_lock(&rec->lock);
	while (rec->n_pending || !rec->stop) {
		if (!rec->n_pending) {
			pthread_cond_wait(&rec->cond, &rec->lock);
			continue;
		}
		if (cr_chance(&rec->dice, 30)) {
			pthread_mutex_unlock(&rec->lock);
			sched_yield();
			pthread_mutex_lock(&rec->lock);
		}
		i = cr_below(&rec->dice, rec->n_pending);
		bio = rec->pending[i].bio;
		perform(rec, bio, rec->pending[i].event);
		rec->pending[i] = rec->pending[--rec->n_pending];
		pthread_mutex_unlock(&rec->lock);
		inl_bio_end(bio, 0);
		pthread_mutex_lock(&rec->lock);
	}
	pthread_mutex_unlock(&rec->lock);
	return NULL;
}

static const struct inl_dev_ops ops = { .name = "recorder", .submit = submit };

struct cr_rec *cr_rec_new(uint8_t *bytes, uint64_t size, bool late, uint64_t seed, struct inl_dev **dev)
{
	struct inl_dev_params params = { .size = size, .block_size = CR_SECTOR, .writable = true };
	struct cr_rec *rec = calloc(1, sizeof(*rec));

	rec->bytes = bytes;
	rec->size = size;
	rec->late = late;
	rec->dice.state = seed;
	pthread_mutex_init(&rec->lock, NULL);
	pthread_cond_init(&rec->cond, NULL);
	if (inl_dev_new(&ops, rec, &params, dev))
		abort();
	if (late && pthread_create(&rec->thread, NULL, end_late, rec))
		abort();
	return rec;
}

void cr_rec_free(struct cr_rec *rec)
{
	if (rec->late) {
		pthread_mutex_lock(&rec->lock);
		rec->stop = true;
		pthread_cond_signal(&rec->cond);
		pthread_mutex_unlock(&rec->lock);
		pthread_join(rec->thread, NULL);
	}
	for (size_t i = 0; i < rec->n_events; i++)
		free(rec->events[i].bytes);
	free(rec->events);
	pthread_cond_destroy(&rec->cond);
	pthread_mutex_destroy(&rec->lock);
	free(rec);
}

uint64_t cr_rec_now(struct cr_rec *rec)
{
	uint64_t now;

	pthread_mutex_lock(&rec->lock);
	now = rec->now;
	pthread_mutex_unlock(&rec->lock);
	return now;
}

void cr_rec_fail(struct cr_rec *rec, enum inl_op op, uint64_t nth, bool sticky)
{
	pthread_mutex_lock(&rec->lock);
	memset(rec->n_ops, 0, sizeof(rec->n_ops));
	memset(rec->failed_at, 0, sizeof(rec->failed_at));
	rec->faults[op] = (struct cr_fault){ nth, sticky };
	pthread_mutex_unlock(&rec->lock);
}

/* ---- planting faults --------------------------------------------------------------------------------------------- */

#define JBD2_MAGIC 0xc03b3998u
enum { JBD2_COMMIT = 2, JBD2_SUPER = 4, JBD2_REVOKE = 5 };

/* Is there a journal block of this type in a write? Its offset; -1: none. Blocks are no smaller than 1 KiB. */
static int64_t find_journal(const struct cr_event *event, uint32_t type, uint64_t from)
{
	for (uint64_t at = from; event->kind == CR_WRITE && at + 1024 <= event->len; at += 1024) {
		if (inl_load_be32(event->bytes + at) == JBD2_MAGIC && inl_load_be32(event->bytes + at + 4) == type)
			return (int64_t)at;
	}
	return -1;
}

/* Flushes between which and a journal block of this type there is no other. */
static unsigned ignore_flushes_before(struct cr_rec *rec, uint32_t type)
{
	struct cr_event *flush = NULL;
	unsigned n = 0;

	for (size_t i = 0; i < rec->n_events; i++) {
		if (rec->events[i].kind == CR_FLUSH)
			flush = &rec->events[i];
		if (find_journal(&rec->events[i], type, 0) < 0 || !flush)
			continue;
		flush->ignored = true;
		flush = NULL;
		n++;
	}
	return n;
}

/* The flush that follows a commit record, or its FUA. */
static unsigned ignore_flushes_after(struct cr_rec *rec)
{
	bool seen = false;
	unsigned n = 0;

	for (size_t i = 0; i < rec->n_events; i++) {
		if (find_journal(&rec->events[i], JBD2_COMMIT, 0) >= 0) {
			n += rec->events[i].fua;
			rec->events[i].fua = false;
			seen = true;
		} else if (rec->events[i].kind == CR_FLUSH && seen) {
			rec->events[i].ignored = true;
			seen = false;
			n++;
		}
	}
	return n;
}

/* The journal's superblock, as it was written last; NULL: never. */
static const uint8_t *journal_super(const struct cr_rec *rec)
{
	for (size_t i = rec->n_events; i-- > 0;) {
		int64_t at = find_journal(&rec->events[i], JBD2_SUPER, 0);

		if (at >= 0)
			return rec->events[i].bytes + at;
	}
	return NULL;
}

/* A revoke block says that it holds nothing. */
static void empty_revoke(const uint8_t *super, uint8_t *block)
{
	uint32_t size = inl_load_be32(super + 12), seed = inl_crc32c(~0u, super + 48, 16);

	inl_store_be32(block + 12, 16);
	if (!(inl_load_be32(super + 40) & 0x18)) /* checksums */
		return;
	inl_store_be32(block + size - 4, 0);
	inl_store_be32(block + size - 4, inl_crc32c(seed, block, size));
}

static unsigned empty_revokes(struct cr_rec *rec)
{
	const uint8_t *super = journal_super(rec);
	unsigned n = 0;

	for (size_t i = 0; super && i < rec->n_events; i++) {
		struct cr_event *event = &rec->events[i];
		int64_t at = find_journal(event, JBD2_REVOKE, 0);

		while (at >= 0) {
			n += inl_load_be32(event->bytes + at + 12) > 16;
			empty_revoke(super, event->bytes + at);
			at = find_journal(event, JBD2_REVOKE, (uint64_t)at + 1024);
		}
	}
	return n;
}

static bool is_data(const struct cr_event *event)
{
	uint32_t id, gen;
	uint64_t at;

	for (uint64_t i = 0; event->kind == CR_WRITE && i < event->len; i += CR_SECTOR) {
		if (cr_pattern_find(event->bytes + i, &id, &gen, &at))
			return true;
	}
	return false;
}

/* File data begins and ends only when the flush behind the next commit record has ended. */
static unsigned delay_data(struct cr_rec *rec)
{
	uint64_t until = 0, commit = 0;
	unsigned n = 0;

	for (size_t i = rec->n_events; i-- > 0;) {
		struct cr_event *event = &rec->events[i];

		if (event->kind == CR_FLUSH) {
			commit = event->end; /* the nearest flush behind what comes before it */
		} else if (find_journal(event, JBD2_COMMIT, 0) >= 0) {
			until = commit;
		} else if (until && is_data(event)) {
			event->start = event->end = until;
			n++;
		}
	}
	return n;
}

unsigned cr_plant(struct cr_rec *rec, enum cr_plant plant)
{
	switch (plant) {
	case CR_NO_FLUSH_BEFORE_COMMIT:
		return ignore_flushes_before(rec, JBD2_COMMIT);
	case CR_NO_FLUSH_AFTER_COMMIT:
		return ignore_flushes_after(rec);
	case CR_NO_FLUSH_BEFORE_TAIL:
		return ignore_flushes_before(rec, JBD2_SUPER);
	case CR_NO_REVOKES:
		return empty_revokes(rec);
	case CR_LATE_DATA:
		return delay_data(rec);
	default:
		return 1;
	}
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

const char *cr_variant_name(enum cr_variant variant)
{
	static const char *const names[] = { "all", "drop", "subset", "shuffle", "torn", "shred" };

	return names[variant];
}

void cr_medium_init(struct cr_medium *medium, const struct cr_rec *rec, const uint8_t *base)
{
	memset(medium, 0, sizeof(*medium));
	medium->rec = rec;
	medium->bytes = malloc(rec->size);
	memcpy(medium->bytes, base, rec->size);
	medium->stamps = calloc(rec->size / CR_SECTOR, sizeof(medium->stamps[0]));
	medium->applied = calloc(rec->n_events + 1, sizeof(medium->applied[0]));
}

void cr_medium_done(struct cr_medium *medium)
{
	free(medium->bytes);
	free(medium->stamps);
	free(medium->applied);
}

/* The order in which writes of the same sector count. */
static uint64_t stamp_of(const struct cr_event *event)
{
	return event->end ? event->end : UINT64_MAX;
}

/* Sectors [from, to) of a write, where nothing newer is. */
static void put_sectors(const struct cr_medium *medium, const struct cr_event *event, uint64_t from, uint64_t to,
			uint8_t *image, bool certain)
{
	for (uint64_t i = from; i < to; i++) {
		uint64_t sector = event->pos / CR_SECTOR + i;

		if (medium->stamps[sector] > stamp_of(event))
			continue;
		memcpy(image + sector * CR_SECTOR, event->bytes + i * CR_SECTOR, CR_SECTOR);
		if (certain)
			medium->stamps[sector] = stamp_of(event);
	}
}

/*
 * Starts are in order, but for those that a planted fault has moved: a little way, so that the window is long enough.
 */
#define WINDOW 4096

static void find_covered(struct cr_medium *medium, uint64_t moment)
{
	const struct cr_rec *rec = medium->rec;

	for (size_t i = medium->low; i < rec->n_events && i < medium->low + WINDOW; i++) {
		const struct cr_event *event = &rec->events[i];

		if (event->start <= moment && event->kind == CR_FLUSH && !event->ignored && event->ok && event->end <= moment)
			medium->covered = CR_MAX(medium->covered, event->start);
	}
}

static void advance(struct cr_medium *medium, uint64_t moment)
{
	const struct cr_rec *rec = medium->rec;

	find_covered(medium, moment);
	for (size_t i = medium->low; i < rec->n_events && i < medium->low + WINDOW; i++) {
		const struct cr_event *event = &rec->events[i];
		bool ended = event->end && event->end <= moment;

		if (medium->applied[i] || event->start > moment)
			continue;
		if (event->kind == CR_FLUSH ? !ended : !(ended && (event->end < medium->covered || event->fua)))
			continue;
		if (event->kind == CR_WRITE)
			put_sectors(medium, event, 0, event->len / CR_SECTOR, medium->bytes, true);
		medium->applied[i] = true;
	}
	while (medium->low < rec->n_events && medium->applied[medium->low])
		medium->low++;
}

/* The writes that may or may not be there, in order. */
static size_t volatiles(const struct cr_medium *medium, uint64_t moment, const struct cr_event **out, size_t max)
{
	const struct cr_rec *rec = medium->rec;
	size_t n = 0;

	for (size_t i = medium->low; i < rec->n_events && n < max && i < medium->low + WINDOW; i++) {
		const struct cr_event *event = &rec->events[i];

		if (event->kind == CR_WRITE && !medium->applied[i] && event->start <= moment)
			out[n++] = event;
	}
	return n;
}

static void shuffle(struct cr_dice *dice, const struct cr_event **events, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = cr_below(dice, (uint32_t)i);
		const struct cr_event *swap = events[i - 1];

		events[i - 1] = events[j];
		events[j] = swap;
	}
}

static void put_shreds(const struct cr_medium *medium, const struct cr_event *event, struct cr_dice *dice, uint8_t *image)
{
	uint64_t n = event->len / CR_SECTOR, next;

	for (uint64_t at = 0; at < n; at = next) {
		next = at + 1 + cr_below(dice, 8);
		next = CR_MIN(n, next);
		if (cr_chance(dice, 50))
			put_sectors(medium, event, at, next, image, false);
	}
}

static void put_volatile(const struct cr_medium *medium, const struct cr_event *event, bool last, enum cr_variant variant,
			 struct cr_dice *dice, uint32_t percent, uint8_t *image)
{
	uint64_t n = event->len / CR_SECTOR;

	if (variant == CR_SHRED) {
		put_shreds(medium, event, dice, image);
		return;
	}
	if ((variant == CR_SUBSET || variant == CR_SHUFFLE) && !cr_chance(dice, percent))
		return;
	if (variant == CR_TORN && last)
		n = cr_below(dice, (uint32_t)n);
	put_sectors(medium, event, 0, n, image, false);
}

void cr_medium_image(struct cr_medium *medium, uint64_t moment, enum cr_variant variant, struct cr_dice *dice,
		     uint8_t *image)
{
	static const uint32_t percents[] = { 10, 50, 90 };
	const struct cr_event **events = calloc(WINDOW, sizeof(events[0]));
	uint32_t percent = percents[cr_below(dice, 3)];
	size_t n;

	advance(medium, moment);
	memcpy(image, medium->bytes, medium->rec->size);
	n = variant == CR_DROP ? 0 : volatiles(medium, moment, events, WINDOW);
	if (variant == CR_SHUFFLE)
		shuffle(dice, events, n);
	for (size_t i = 0; i < n; i++)
		put_volatile(medium, events[i], i == n - 1, variant, dice, percent, image);
	free(events);
}
