/*
 * examples/engine-reset.c: an engine with one key slot is reset while bios of two keys are under way, and nobody notices.
 * Not here: how to write an engine (inlay/driver.h); what else the emulated one can be told (inlay(1), "DEVICES").
 * Read more: inlay/block.h; `cc engine-reset.c $(pkg-config --cflags --libs inlay)` builds it against an installed library.
 *
 * A reset clears every slot. The engine refuses what it was given for a slot that is empty; its driver has the keys
 * programmed again while new work is parked, and then gives it the refused work once more. The caller sees only a delay,
 * and the counters.
 */
#include <errno.h>
#include <inlay/block.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SPEC	 "engine(ram(16M), slots=1, threads=1)"
#define DEPTH	 32
#define BLOCK	 4096
#define N_KEYS	 2
#define N_BLOCKS 2048
#define EVERY	 256 /* blocks between two resets */

struct test {
	struct inl_dev *dev, *engine;
	struct inl_queue *queue;
	struct inl_key_use *uses[N_KEYS];
	enum inl_op op;
	unsigned next, n_done, n_wrong, n_errors;
	struct request {
		struct inl_bio bio;
		struct iovec seg;
		struct test *test;
		unsigned block;
		unsigned n_resets; /* while it was under way */
		bool busy;
	} requests[DEPTH];
};

static void done(struct inl_bio *bio);

static void start(struct request *request)
{
	struct test *test = request->test;
	struct inl_crypt_ctx ctx = { 0 };

	if (test->next == N_BLOCKS)
		return;
	request->block = test->next++;
	ctx.use = test->uses[request->block % N_KEYS]; /* neighbours want different keys, and there is one slot */
	ctx.dun[0] = request->block;
	if (test->op == INL_WRITE)
		memset(request->seg.iov_base, (int)request->block % 251, BLOCK);
	inl_bio_init_keyed(&request->bio, test->op, (uint64_t)request->block * BLOCK, &request->seg, 1, &ctx);
	request->bio.done = done;
	request->bio.private_data = request;
	request->busy = true;
	request->n_resets = 0;
	if (inl_queue_submit(test->queue, &request->bio))
		test->n_errors++;
}

static void done(struct inl_bio *bio)
{
	struct request *request = bio->private_data;
	struct test *test = request->test;
	const uint8_t *buf = request->seg.iov_base;

	request->busy = false;
	if (bio->status)
		test->n_errors++;
	else if (bio->op == INL_READ && (buf[0] != request->block % 251 || memcmp(buf, buf + 1, BLOCK - 1) != 0))
		test->n_wrong++;
	test->n_done++;
	start(request);
}

/* An engine gives up what was aborted three times, so nobody is made to see more than two resets. */
static int reset(struct test *test)
{
	for (unsigned i = 0; i < DEPTH; i++)
		if (test->requests[i].busy && test->requests[i].n_resets == 2)
			return 0;
	for (unsigned i = 0; i < DEPTH; i++)
		test->requests[i].n_resets++;
	return inl_dev_control(test->engine, "reset", NULL);
}

/* Write or read all blocks; the resets come while the queue is full. */
static int run(struct test *test, enum inl_op op)
{
	unsigned next_reset = EVERY;
	int err = 0;

	test->op = op;
	test->next = test->n_done = 0;
	for (unsigned i = 0; i < DEPTH; i++)
		start(&test->requests[i]);
	while (inl_queue_n_busy(test->queue)) {
		if (!err && test->n_done >= next_reset) {
			err = reset(test);
			next_reset += EVERY;
		}
		inl_queue_reap(test->queue, 1);
	}
	return err;
}

static int show(struct test *test)
{
	struct inl_counters counters;

	inl_dev_counters(test->engine, &counters);
	printf("%u blocks, %d keys, slots: %d, resets: %" PRIu64 ", programs: %" PRIu64 ", wrong: %u, errors: %u\n",
	       test->n_done, N_KEYS, inl_dev_n_slots(test->engine), counters.resets, counters.slot_programs,
	       test->n_wrong, test->n_errors);
	if (!counters.resets)
		fprintf(stderr, "engine-reset: all was done before the first reset; does the engine have threads?\n");
	return test->n_wrong || test->n_errors || test->n_done != N_BLOCKS || !counters.resets ? -EIO : 0;
}

static int start_key(struct test *test, unsigned i)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, BLOCK, 8, INL_KEY_RAW };
	uint8_t *bytes = inl_secret_alloc(64);
	struct inl_key *key = NULL;
	int err = -ENOMEM;

	if (bytes)
		err = getrandom(bytes, 64, 0) == 64 ? inl_key_new(&cfg, bytes, 64, &key) : -EIO;
	inl_secret_free(bytes);
	if (!err)
		err = inl_key_start(test->dev, key, &test->uses[i]);
	inl_key_put(key); /* the use keeps it */
	return err;
}

static int prepare(struct test *test, uint8_t **memory)
{
	int err = 0;

	*memory = aligned_alloc(BLOCK, (size_t)DEPTH * BLOCK);
	if (!*memory)
		return -ENOMEM;
	for (unsigned i = 0; i < DEPTH; i++) {
		test->requests[i].test = test;
		test->requests[i].seg = (struct iovec){ *memory + (size_t)i * BLOCK, BLOCK };
	}
	for (unsigned i = 0; i < N_KEYS && !err; i++)
		err = start_key(test, i);
	return err ? err : inl_queue_new(test->dev, DEPTH, &test->queue);
}

int main(int argc, char **argv)
{
	static struct test test;
	const char *spec = argc > 1 ? argv[1] : SPEC;
	struct inl_diag diag = { 0 };
	uint8_t *memory = NULL;
	int err = inl_dev_open(spec, INL_OPEN_WRITE, &diag, &test.dev);

	if (!err) {
		test.engine = inl_dev_find(test.dev, "engine");
		if (!test.engine)
			err = inl_diag_set(&diag, -ENODEV, "%s: no engine in it", spec);
	}
	if (!err)
		err = prepare(&test, &memory);
	if (!err)
		err = run(&test, INL_WRITE);
	if (!err)
		err = run(&test, INL_READ);
	if (!err)
		err = show(&test);
	inl_queue_free(test.queue);
	for (unsigned i = 0; i < N_KEYS; i++)
		inl_key_evict(test.uses[i]);
	inl_dev_close(test.dev);
	free(memory);
	if (err)
		fprintf(stderr, "engine-reset: %s\n", diag.err ? diag.text : strerror(-err));
	return err ? 1 : 0;
}
