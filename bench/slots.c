/*
 * bench/slots.c: what a bio costs on an engine that does nothing: without a key, with a slot that has its key already,
 * with a key that goes with the request.
 * Not here: what encryption costs (bench/ciphers.c, bench/cipher.c).
 * Read more: HACKING.md, "Speed"; inlay/driver.h.
 */
#include <inlay/driver.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/stats.h"

#define ROUNDS	   31
#define ROUND_BIOS 100000
#define UNIT	   512

static void die(const char *what)
{
	fprintf(stderr, "slots: %s failed\n", what);
	exit(1);
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

static uint64_t n_keyed, n_programs;

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	n_keyed += inl_bio_kind(bio) == INL_BIO_KEYED;
	inl_bio_end(bio, 0);
}

static int key_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	n_programs++;
	return 0;
}

static int key_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	return 0;
}

static const struct inl_dev_ops ops = {
	.name = "null",
	.submit = submit,
	.key_program = key_program,
	.key_evict = key_evict,
};

static const struct inl_dev_ops ops_no_slots = { .name = "null", .submit = submit };

static struct inl_dev *engine_new(unsigned n_slots)
{
	struct inl_dev_params params = {
		.size = 1 << 20,
		.writable = true,
		.has_engine = true,
		.n_slots = n_slots,
		.caps = {
			.modes = { [INL_BLK_MODE_AES_256_XTS] = UNIT },
			.max_dun_bytes = 8,
			.key_types = INL_KEY_RAW,
		},
	};
	struct inl_dev *dev;

	if (inl_dev_new(n_slots ? &ops : &ops_no_slots, NULL, &params, &dev))
		die("inl_dev_new");
	return dev;
}

/* ---- one way to submit ------------------------------------------------------------------------------------------- */

struct way {
	struct inl_dev *dev;
	struct inl_key_use *use; /* NULL: no key */
	struct inl_queue *queue;
	double ns[ROUNDS]; /* of one bio */
};

static void way_init(struct way *way, unsigned n_slots, bool keyed)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW };
	struct inl_key *key = NULL;
	uint8_t bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i + 1);
	way->dev = engine_new(n_slots);
	way->use = NULL;
	if (keyed && (inl_key_new(&cfg, bytes, sizeof(bytes), &key) || inl_key_start(way->dev, key, &way->use)))
		die("inl_key_start");
	inl_key_put(key);
	if (inl_queue_new(way->dev, 32, &way->queue))
		die("inl_queue_new");
}

static void way_done(struct way *way)
{
	inl_queue_free(way->queue);
	inl_key_evict(way->use);
	inl_dev_close(way->dev);
}

static unsigned n_done;

static void done(struct inl_bio *bio)
{
	if (bio->status)
		die("a bio");
	n_done++;
}

static void run(struct way *way, int round)
{
	static uint8_t buf[UNIT] __attribute__((aligned(512)));
	struct iovec seg = { buf, sizeof(buf) };
	struct inl_crypt_ctx ctx = { .use = way->use };
	static struct inl_bio bio;
	uint64_t start = inl_now_ns();

	n_done = 0;
	for (unsigned i = 0; i < ROUND_BIOS; i++) {
		if (way->use)
			inl_bio_init_keyed(&bio, INL_READ, 0, &seg, 1, &ctx);
		else
			inl_bio_init_plain(&bio, INL_READ, 0, &seg, 1);
		bio.done = done;
		if (inl_queue_submit(way->queue, &bio))
			die("inl_queue_submit");
	}
	way->ns[round] = (double)(inl_now_ns() - start) / ROUND_BIOS;
	if (n_done != ROUND_BIOS)
		die("completion before submit returns");
}

/* What this way costs more than the other, round by round. */
static double difference(const struct way *way, const struct way *other)
{
	double more[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		more[i] = way->ns[i] - other->ns[i];
	return stats_median(more, ROUNDS);
}

/* Nanoseconds: plain, and what more a slot that is hit costs, and a key that goes with the request. */
int main(void)
{
	static struct way plain, slot, request;
	double slot_more, request_more;

	way_init(&plain, 1, false);
	way_init(&slot, 1, true);
	way_init(&request, 0, true);
	for (int round = 0; round < ROUNDS; round++) {
		run(&plain, round);
		run(&slot, round);
		run(&request, round);
	}
	if (n_keyed != 2ull * ROUNDS * ROUND_BIOS || n_programs != 1)
		die("the count of keyed bios and programs");
	slot_more = difference(&slot, &plain);
	request_more = difference(&request, &plain);
	printf("%.1f %.1f %.1f\n", stats_median(plain.ns, ROUNDS), slot_more, request_more);
	way_done(&plain);
	way_done(&slot);
	way_done(&request);
	return 0;
}
