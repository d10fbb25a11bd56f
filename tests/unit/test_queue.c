/*
 * tests/unit/test_queue.c: queues: depth, threads, plugging and merging, timers, live capabilities, resets.
 * Not here: slots and bounce memory (test_block.c), many threads (test_threads.c), the drivers.
 * Read more: inlay/block.h, "queues". The device under test is written here, on inlay/driver.h alone.
 */
#include "block/own.h" /* for the generations of handles alone */
#include <errno.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DISK_SIZE (4u << 20)
#define UNIT	  4096u
#define MAX_BIOS  64

/* ---- a device that notes what reaches it ------------------------------------------------------------------------- */

struct seen {
	enum inl_op op;
	enum inl_bio_kind kind;
	unsigned flags;
	uint64_t pos, len, dun;
	unsigned n_segs;
};

struct lab {
	uint8_t *disk;
	struct seen seen[256];
	unsigned n_seen;
	uint64_t bad_pos; /* I/O that touches this byte fails */
	bool delay;	  /* every bio waits a millisecond */
	bool elsewhere;	  /* every bio is ended by another thread */
	bool holds;	  /* ... but not before it is let go */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	struct inl_bio_list todo;
	bool stop;
	const struct inl_key *slots[4];
	unsigned programs, fail_program_of; /* n-th program from now fails */
	unsigned n_reprogrammed;
};

static void finish(struct lab *lab, struct inl_bio *bio)
{
	uint64_t pos = bio->state.pos;

	if (bio->op != INL_FLUSH && pos <= lab->bad_pos && lab->bad_pos < pos + bio->len) {
		inl_bio_end(bio, -EIO);
		return;
	}
	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, lab->disk + pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, lab->disk + pos, bio->len);
	inl_bio_end(bio, 0);
}

static void *end_elsewhere(void *arg)
{
	struct lab *lab = arg;
	struct inl_bio *bio;

	pthread_mutex_lock(&lab->lock);
	while (!lab->stop) {
		bio = lab->holds ? NULL : inl_bio_list_pop(&lab->todo);
		if (!bio) {
			pthread_cond_wait(&lab->cond, &lab->lock);
			continue;
		}
		pthread_mutex_unlock(&lab->lock);
		finish(lab, bio);
		pthread_mutex_lock(&lab->lock);
	}
	pthread_mutex_unlock(&lab->lock);
	return NULL;
}

static void lab_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct lab *lab = inl_dev_priv(dev);
	bool keyed = inl_bio_kind(bio) == INL_BIO_KEYED;

	if (lab->delay && !*inl_bio_stage(bio)) {
		*inl_bio_stage(bio) = 1;
		inl_bio_again_at(bio, inl_now_ns() + 1000000);
		return;
	}
	assert_true(lab->n_seen < 256);
	lab->seen[lab->n_seen++] = (struct seen){ bio->op, inl_bio_kind(bio), bio->flags, bio->state.pos, bio->len,
						  keyed ? inl_bio_dun(bio)[0] : 0, bio->n_segs };
	if (keyed)
		assert_ptr_equal(lab->slots[inl_bio_slot(bio)], inl_bio_key(bio));
	if (!lab->elsewhere) {
		finish(lab, bio);
		return;
	}
	pthread_mutex_lock(&lab->lock);
	inl_bio_list_add(&lab->todo, bio);
	pthread_cond_signal(&lab->cond);
	pthread_mutex_unlock(&lab->lock);
}

static void end_elsewhere_later(struct lab *lab)
{
	pthread_mutex_lock(&lab->lock);
	lab->elsewhere = lab->holds = true;
	pthread_mutex_unlock(&lab->lock);
}

static void let_go(struct lab *lab)
{
	pthread_mutex_lock(&lab->lock);
	lab->holds = false;
	pthread_cond_signal(&lab->cond);
	pthread_mutex_unlock(&lab->lock);
}

static int lab_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->programs++;
	if (lab->fail_program_of && --lab->fail_program_of == 0)
		return -EIO;
	lab->slots[slot] = key;
	return 0;
}

static int lab_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->slots[slot] = NULL;
	return 0;
}

static void lab_reprogrammed(struct inl_dev *dev)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->n_reprogrammed++;
}

static const struct inl_dev_ops lab_ops = {
	.name = "lab",
	.submit = lab_submit,
	.key_program = lab_program,
	.key_evict = lab_evict,
	.reprogrammed = lab_reprogrammed,
};

static const struct inl_caps lab_caps = { .modes = { [INL_BLK_MODE_AES_256_XTS] = UNIT },
					  .max_dun_bytes = 8,
					  .key_types = INL_KEY_RAW };

static struct inl_dev *lab_new(struct lab *lab, unsigned n_slots)
{
	struct inl_dev_params params = { .size = DISK_SIZE, .writable = true };
	struct inl_dev *dev;

	memset(lab, 0, sizeof(*lab));
	lab->disk = calloc(1, DISK_SIZE);
	assert_non_null(lab->disk);
	lab->bad_pos = UINT64_MAX;
	pthread_mutex_init(&lab->lock, NULL);
	pthread_cond_init(&lab->cond, NULL);
	if (n_slots) {
		params.has_engine = true;
		params.n_slots = n_slots;
		params.caps = lab_caps;
	}
	assert_int_equal(inl_dev_new(&lab_ops, lab, &params, &dev), 0);
	assert_int_equal(pthread_create(&lab->thread, NULL, end_elsewhere, lab), 0);
	return dev;
}

static void lab_free(struct lab *lab, struct inl_dev *dev)
{
	pthread_mutex_lock(&lab->lock);
	lab->stop = true;
	pthread_cond_signal(&lab->cond);
	pthread_mutex_unlock(&lab->lock);
	pthread_join(lab->thread, NULL);
	inl_dev_close(dev);
	free(lab->disk);
}

static struct inl_key_use *start_key(struct inl_dev *dev, uint8_t seed, uint32_t dun_bytes)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, dun_bytes, INL_KEY_RAW };
	struct inl_key_use *use;
	struct inl_key *key;
	uint8_t bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(seed + i);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	inl_key_put(key);
	return use;
}

/* ---- bios that count their ends ---------------------------------------------------------------------------------- */

struct flow {
	struct inl_bio bio;
	struct iovec segs[2];
	uint8_t buf[2 * UNIT];
	unsigned n_done;
	int status;
	pthread_t done_on;
};

static struct flow flows[MAX_BIOS];

static void flow_done(struct inl_bio *bio)
{
	struct flow *flow = bio->private_data;

	flow->n_done++;
	flow->status = bio->status;
	flow->done_on = pthread_self();
}

/* One unit at block number `unit`. use == NULL: plain. */
static struct inl_bio *prepare(unsigned i, enum inl_op op, uint64_t unit, struct inl_key_use *use, uint64_t dun)
{
	struct flow *flow = &flows[i];
	struct inl_crypt_ctx ctx = { use, { dun } };

	memset(flow, 0, sizeof(*flow));
	memset(flow->buf, (int)i + 1, UNIT);
	flow->segs[0] = (struct iovec){ flow->buf, UNIT };
	flow->status = 1;
	if (use)
		inl_bio_init_keyed(&flow->bio, op, unit * UNIT, flow->segs, 1, &ctx);
	else
		inl_bio_init_plain(&flow->bio, op, unit * UNIT, flow->segs, 1);
	flow->bio.done = flow_done;
	flow->bio.private_data = flow;
	return &flow->bio;
}

static void check_done(unsigned n, int status)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(flows[i].n_done, 1);
		assert_int_equal(flows[i].status, status);
	}
}

static struct inl_counters counters(struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	return c;
}

/* ---- depth, threads, timers -------------------------------------------------------------------------------------- */

static void test_depth(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	struct inl_queue *queue;

	assert_int_equal(inl_queue_new(dev, 0, &queue), -EINVAL);
	assert_int_equal(inl_queue_new(dev, INL_QUEUE_DEPTH_MAX + 1, &queue), -EINVAL);
	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	end_elsewhere_later(&lab);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(inl_queue_submit(queue, prepare(i, INL_WRITE, i, NULL, 0)), 0);
	assert_int_equal(inl_queue_n_busy(queue), 4);
	assert_int_equal(inl_queue_submit(queue, prepare(4, INL_WRITE, 4, NULL, 0)), -EAGAIN);
	assert_int_equal(flows[4].n_done, 0);
	assert_int_equal(inl_queue_reap(queue, 0), 0); /* does not wait */
	let_go(&lab);
	assert_int_equal(inl_queue_reap(queue, 4), 4);
	check_done(4, 0);
	assert_int_equal(inl_queue_reap(queue, 1), 0); /* nothing under way: does not wait */
	assert_int_equal(inl_queue_submit(queue, &flows[4].bio), 0);
	inl_queue_free(queue); /* waits */
	check_done(5, 0);
	lab_free(&lab, dev);
}

/* Whoever ends a bio, its callback runs on the thread of its queue. */
static void test_callbacks_at_home(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	struct inl_queue *queue;

	lab.elsewhere = true;
	assert_int_equal(inl_queue_new(dev, 32, &queue), 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(inl_queue_submit(queue, prepare(i, INL_WRITE, i, NULL, 0)), 0);
	while (inl_queue_n_busy(queue))
		assert_true(inl_queue_reap(queue, 1) > 0);
	check_done(32, 0);
	for (unsigned i = 0; i < 32; i++)
		assert_true(pthread_equal(flows[i].done_on, pthread_self()));
	inl_queue_free(queue);
	lab_free(&lab, dev);
}

/* Waiting for one bio reaps the thread's queues: here the waiter needs the slot that a bio on the queue holds. */
static void test_wait_reaps_queues(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key_use *a = start_key(dev, 1, 8), *b = start_key(dev, 100, 8);
	struct inl_crypt_ctx ctx = { b, { 0 } };
	static uint8_t buf[UNIT];
	struct inl_queue *queue;

	lab.elsewhere = true;
	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(0, INL_WRITE, 0, a, 0)), 0);
	assert_int_equal(inl_dev_read_keyed(dev, UNIT, buf, UNIT, &ctx), 0);
	check_done(1, 0);
	assert_int_equal(lab.programs, 2);
	inl_queue_free(queue);
	assert_int_equal(inl_key_evict(a), 0);
	assert_int_equal(inl_key_evict(b), 0);
	lab_free(&lab, dev);
}

struct stranger {
	struct inl_queue *queue;
	struct inl_bio *bio;
	int err;
	unsigned reaped;
};

static void *submit_as_stranger(void *arg)
{
	struct stranger *stranger = arg;

	stranger->err = inl_queue_submit(stranger->queue, stranger->bio);
	stranger->reaped = inl_queue_reap(stranger->queue, 1);
	return NULL;
}

static void test_other_thread_refused(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	struct stranger stranger = { .bio = prepare(0, INL_READ, 0, NULL, 0) };
	pthread_t thread;

	assert_int_equal(inl_queue_new(dev, 1, &stranger.queue), 0);
	assert_int_equal(pthread_create(&thread, NULL, submit_as_stranger, &stranger), 0);
	pthread_join(thread, NULL);
	assert_int_equal(stranger.err, -EPERM);
	assert_int_equal(stranger.reaped, 0);
	assert_int_equal(flows[0].n_done, 0);
	inl_queue_free(stranger.queue);
	lab_free(&lab, dev);
}

static struct {
	struct inl_dev *dev;
	struct inl_queue *queue;
	struct inl_key_use *use;
	int wait_err, evict_err;
	unsigned reaped;
} misuse;

static void wait_in_callback(struct inl_bio *bio)
{
	static uint8_t buf[UNIT];

	flow_done(bio);
	misuse.wait_err = inl_dev_read(misuse.dev, 0, buf, UNIT);
	misuse.evict_err = inl_key_evict(misuse.use);
	misuse.reaped = inl_queue_reap(misuse.queue, 1);
}

/* What would wait for itself is refused. */
static void test_waiting_in_callback(void **state)
{
	struct lab lab;

	misuse.dev = lab_new(&lab, 1);
	misuse.use = start_key(misuse.dev, 1, 8);
	assert_int_equal(inl_queue_new(misuse.dev, 2, &misuse.queue), 0);
	prepare(0, INL_READ, 0, NULL, 0)->done = wait_in_callback;
	assert_int_equal(inl_queue_submit(misuse.queue, &flows[0].bio), 0);
	check_done(1, 0);
	assert_int_equal(misuse.wait_err, -EDEADLK);
	assert_int_equal(misuse.evict_err, -EDEADLK);
	assert_int_equal(misuse.reaped, 0);
	inl_queue_free(misuse.queue);
	assert_int_equal(inl_key_evict(misuse.use), 0);
	lab_free(&lab, misuse.dev);
}

static void test_timers(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	uint64_t begin = inl_now_ns();
	static uint8_t buf[UNIT];
	struct inl_queue *queue;

	lab.delay = true;
	assert_int_equal(inl_queue_new(dev, 32, &queue), 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(inl_queue_submit(queue, prepare(i, INL_WRITE, i, NULL, 0)), 0);
	assert_int_equal(lab.n_seen, 0);
	assert_int_equal(inl_dev_read(dev, UNIT * 40, buf, UNIT), 0);
	while (inl_queue_n_busy(queue))
		inl_queue_reap(queue, 1);
	assert_true(inl_now_ns() - begin >= 1000000);
	check_done(32, 0);
	assert_int_equal(lab.n_seen, 33);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(lab.seen[i].pos, i * UNIT); /* first in, first out */
	inl_queue_free(queue);
	lab_free(&lab, dev);
}

static struct {
	struct inl_queue *queue;
	uint64_t until;
	unsigned n_rounds;
	bool stop;
} greedy;

static void submit_again(struct inl_bio *bio)
{
	greedy.n_rounds++;
	if (!greedy.stop && inl_now_ns() < greedy.until)
		assert_int_equal(inl_queue_submit(greedy.queue, bio), 0);
}

static void stop_greedy(struct inl_bio *bio)
{
	flow_done(bio);
	greedy.stop = true;
}

/* A callback that submits for ever to what is done at once starves neither other bios nor the caller. */
static void test_nobody_starves(void **state)
{
	struct inl_dev *dev;
	uint64_t begin;

	assert_int_equal(inl_dev_open("linear(ram(1M), fault(ram(1M), delay=1ms))", INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_queue_new(dev, 2, &greedy.queue), 0);
	greedy.until = inl_now_ns() + 20000000000;
	prepare(0, INL_READ, 256, NULL, 0)->done = stop_greedy;
	assert_int_equal(inl_queue_submit(greedy.queue, &flows[0].bio), 0);
	prepare(1, INL_READ, 0, NULL, 0)->done = submit_again;
	begin = inl_now_ns();
	assert_int_equal(inl_queue_submit(greedy.queue, &flows[1].bio), 0);
	assert_true(inl_now_ns() - begin < 10000000000);
	while (inl_queue_n_busy(greedy.queue))
		inl_queue_reap(greedy.queue, 1);
	assert_true(greedy.stop && inl_now_ns() < greedy.until);
	assert_true(greedy.n_rounds > 10);
	check_done(1, 0);
	inl_queue_free(greedy.queue);
	inl_dev_close(dev);
}

static void plug_and_submit_again(struct inl_bio *bio)
{
	inl_queue_plug(greedy.queue);
	submit_again(bio);
}

/* Nor does a callback that leaves its queue plugged each time. */
static void test_plugged_for_ever(void **state)
{
	struct inl_queue *other;
	struct inl_dev *dev;

	assert_int_equal(inl_dev_open("linear(ram(1M), fault(ram(1M), delay=1ms))", INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_queue_new(dev, 1, &greedy.queue), 0);
	assert_int_equal(inl_queue_new(dev, 1, &other), 0);
	greedy.stop = false;
	greedy.n_rounds = 0;
	greedy.until = inl_now_ns() + 20000000000;
	prepare(0, INL_READ, 256, NULL, 0)->done = stop_greedy;
	assert_int_equal(inl_queue_submit(other, &flows[0].bio), 0);
	prepare(1, INL_READ, 0, NULL, 0)->done = plug_and_submit_again;
	assert_int_equal(inl_queue_submit(greedy.queue, &flows[1].bio), 0);
	assert_int_equal(inl_queue_reap(other, 1), 1);
	assert_true(greedy.stop && inl_now_ns() < greedy.until);
	inl_queue_free(other);
	inl_queue_free(greedy.queue);
	check_done(1, 0);
	inl_dev_close(dev);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static void submit_all(struct inl_queue *queue, unsigned n)
{
	inl_queue_plug(queue);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(inl_queue_submit(queue, &flows[i].bio), 0);
}

static void test_merge_plain(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	struct inl_queue *queue;

	assert_int_equal(inl_queue_new(dev, 16, &queue), 0);
	for (unsigned i = 0; i < 8; i++)
		prepare(i, INL_WRITE, 10 + i, NULL, 0);
	submit_all(queue, 8);
	assert_int_equal(lab.n_seen, 0);
	inl_queue_unplug(queue);
	check_done(8, 0);
	assert_int_equal(lab.n_seen, 1);
	assert_int_equal(lab.seen[0].pos, 10 * UNIT);
	assert_int_equal(lab.seen[0].len, 8 * UNIT);
	assert_int_equal(lab.seen[0].n_segs, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(lab.disk + (10 + i) * UNIT, flows[i].buf, UNIT);
	assert_int_equal(counters(dev).merges, 7);
	assert_int_equal(counters(dev).writes, 1);
	/* And each reader gets its own. Reaping unplugs. */
	for (unsigned i = 0; i < 8; i++)
		memset(prepare(i, INL_READ, 10 + i, NULL, 0)->segs->iov_base, 0, UNIT);
	submit_all(queue, 8);
	assert_int_equal(inl_queue_reap(queue, 8), 8);
	assert_int_equal(lab.n_seen, 2);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(flows[i].buf, lab.disk + (10 + i) * UNIT, UNIT);
	inl_queue_free(queue);
	lab_free(&lab, dev);
}

/* What must not become one: each pair stays two. */
static void test_never_merged(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 2);
	struct inl_key_use *a = start_key(dev, 1, 8), *b = start_key(dev, 100, 8), *narrow = start_key(dev, 50, 1);
	struct inl_queue *queue;
	struct pair {
		enum inl_op op[2];
		uint64_t unit[2];
		struct inl_key_use *use[2];
		uint64_t dun[2];
		unsigned flags[2];
		bool merged;
	} pairs[] = {
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, a }, { 7, 8 }, { 0, 0 }, true },
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, a }, { 7, 9 }, { 0, 0 }, false },	       /* DUN */
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, a }, { 7, 7 }, { 0, 0 }, false },
		{ { INL_WRITE, INL_WRITE }, { 3, 5 }, { a, a }, { 7, 8 }, { 0, 0 }, false },	       /* place */
		{ { INL_WRITE, INL_WRITE }, { 3, 2 }, { a, a }, { 7, 8 }, { 0, 0 }, false },
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, b }, { 7, 8 }, { 0, 0 }, false },	       /* key */
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, NULL }, { 7, 8 }, { 0, 0 }, false },
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { NULL, a }, { 7, 8 }, { 0, 0 }, false },
		{ { INL_WRITE, INL_READ }, { 3, 4 }, { a, a }, { 7, 8 }, { 0, 0 }, false },	       /* op */
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, a }, { 7, 8 }, { 0, INL_BIO_FUA }, false }, /* flags */
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { a, a }, { UINT64_MAX, 0 }, { 0, 0 }, false },  /* wraps */
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { narrow, narrow }, { 254, 255 }, { 0, 0 }, true },
		{ { INL_WRITE, INL_WRITE }, { 3, 4 }, { narrow, narrow }, { 255, 0 }, { 0, 0 }, false },
	};

	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	for (unsigned p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++) {
		lab.n_seen = 0;
		for (unsigned i = 0; i < 2; i++)
			prepare(i, pairs[p].op[i], pairs[p].unit[i], pairs[p].use[i], pairs[p].dun[i])->flags =
				pairs[p].flags[i];
		submit_all(queue, 2);
		inl_queue_unplug(queue);
		check_done(2, 0);
		assert_int_equal(lab.n_seen, pairs[p].merged ? 1 : 2);
		assert_int_equal(lab.seen[0].dun, pairs[p].use[0] ? pairs[p].dun[0] : 0);
	}
	inl_queue_free(queue);
	assert_int_equal(inl_key_evict(a), 0);
	assert_int_equal(inl_key_evict(b), 0);
	assert_int_equal(inl_key_evict(narrow), 0);
	lab_free(&lab, dev);
}

/* A merged I/O that fails: the one to blame gets the error, the others are done. */
static void test_merged_error(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key_use *use = start_key(dev, 1, 8);
	struct inl_queue *queue;

	assert_int_equal(inl_queue_new(dev, 8, &queue), 0);
	lab.bad_pos = 22 * UNIT + 5;
	for (unsigned i = 0; i < 4; i++)
		prepare(i, INL_WRITE, 20 + i, use, i);
	submit_all(queue, 4);
	inl_queue_unplug(queue);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(flows[i].n_done, 1);
		assert_int_equal(flows[i].status, i == 2 ? -EIO : 0);
		if (i != 2)
			assert_memory_equal(lab.disk + (20 + i) * UNIT, flows[i].buf, UNIT);
	}
	assert_int_equal(lab.n_seen, 5);
	assert_int_equal(counters(dev).errors, 1);
	/* A bio that is refused takes nobody along. */
	lab.bad_pos = UINT64_MAX;
	for (unsigned i = 0; i < 3; i++)
		prepare(i, INL_WRITE, DISK_SIZE / UNIT - 2 + i, use, i);
	submit_all(queue, 3);
	inl_queue_unplug(queue);
	assert_int_equal(flows[0].status, 0);
	assert_int_equal(flows[1].status, 0);
	assert_int_equal(flows[2].status, -ENXIO);
	inl_queue_free(queue);
	assert_int_equal(inl_key_evict(use), 0);
	lab_free(&lab, dev);
}

/* Evicting a key whose bios are still collected sends them off first. */
static void test_evict_unplugs(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key_use *use = start_key(dev, 1, 8);
	struct inl_queue *queue;

	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	for (unsigned i = 0; i < 3; i++)
		prepare(i, INL_WRITE, i, use, i);
	submit_all(queue, 3);
	assert_int_equal(inl_key_evict(use), 0);
	check_done(3, 0);
	inl_queue_free(queue);
	lab_free(&lab, dev);
}

/* A context whose key was evicted is refused, whatever was started in its place since. */
static void test_stale_handles(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key_use *old = start_key(dev, 1, 8), *use;
	struct inl_crypt_ctx ctx = { old, { 0 } }, next = { old, { 1 } };
	static uint8_t buf[UNIT];

	assert_true(inl_ctx_mergeable(&ctx, UNIT, &next));
	assert_int_equal(inl_key_evict(old), 0);
	for (unsigned i = 0; i < 1000; i++) {
		use = start_key(dev, (uint8_t)i, 8);
		assert_ptr_not_equal(use, old);
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
		assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
		assert_int_equal(inl_key_evict(use), 0);
	}
	assert_int_equal(inl_key_evict(old), -ENOKEY);
	assert_false(inl_key_use_native(old));
	assert_false(inl_ctx_mergeable(&ctx, UNIT, &next));
	ctx.use = (struct inl_key_use *)(uintptr_t)UINT64_C(0x7fffffffffff); /* and nonsense is no key */
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
	assert_int_equal(lab.n_seen, 0);
	lab_free(&lab, dev);
}

/* After its last generation a place in the table is given up: a handle never comes back. */
static void test_last_generation(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key_use *handle = start_key(dev, 1, 8), *last, *next;
	struct inl_use *place = inl_use_find(handle);

	assert_non_null(place);
	atomic_store(&place->busy, UINT64_C(0xffffffff) << 32);
	assert_null(inl_use_find(handle));
	last = inl_use_handle(place);
	assert_int_equal(inl_key_evict(last), 0);
	for (unsigned i = 0; i < 600; i++) {
		next = start_key(dev, 1, 8);
		assert_ptr_not_equal(inl_use_find(next), place);
		assert_ptr_not_equal(next, last);
		assert_int_equal(inl_key_evict(next), 0);
	}
	assert_int_equal(inl_key_evict(last), -ENOKEY);
	lab_free(&lab, dev);
}

/* ---- capabilities that change, resets ---------------------------------------------------------------------------- */

static void below(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos);
}

static const struct inl_dev_ops over_ops = { .name = "over", .submit = below };

static void test_live_caps(void **state)
{
	struct lab lab;
	struct inl_dev *engine = lab_new(&lab, 1), *children[1] = { engine }, *dev;
	struct inl_dev_params params = { .size = DISK_SIZE, .writable = true, .children = children, .n_children = 1 };
	struct inl_caps more = lab_caps, less = lab_caps, now;
	struct inl_key_config small = { INL_BLK_MODE_AES_256_XTS, 512, 8, INL_KEY_RAW };
	struct inl_key_use *use;

	assert_int_equal(inl_dev_new(&over_ops, NULL, &params, &dev), 0);
	more.modes[INL_BLK_MODE_AES_256_XTS] |= 512;
	less.max_dun_bytes = 4;
	assert_false(inl_dev_supports_natively(dev, &small));
	assert_true(inl_dev_supports(dev, &small));
	inl_dev_set_fallback(dev, false);
	assert_false(inl_dev_supports(dev, &small));
	inl_dev_set_fallback(dev, true);
	use = start_key(dev, 1, 8);
	assert_int_equal(inl_dev_set_caps(engine, &more), 0); /* gains, and the stack above with it */
	assert_true(inl_dev_supports_natively(dev, &small));
	assert_int_equal(inl_dev_set_caps(engine, &less), -EBUSY);
	assert_int_equal(inl_dev_set_caps(dev, &more), -EINVAL); /* has none of its own */
	inl_dev_caps(dev, &now);
	assert_memory_equal(&now, &more, sizeof(now));
	assert_int_equal(inl_key_evict(use), 0);
	assert_int_equal(inl_dev_set_caps(engine, &less), 0);
	inl_dev_caps(dev, &now);
	assert_memory_equal(&now, &less, sizeof(now));
	use = start_key(dev, 1, 8); /* too wide now: the fallback's */
	assert_false(inl_key_use_native(use));
	assert_int_equal(inl_dev_set_caps(engine, &lab_caps), 0);
	assert_int_equal(inl_dev_set_caps(engine, &less), 0); /* and a key of the fallback holds nothing back */
	assert_int_equal(inl_key_evict(use), 0);
	lab_free(&lab, dev);
}

static void test_reprogram(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 2);
	struct inl_key_use *a = start_key(dev, 1, 8), *b = start_key(dev, 100, 8);
	struct inl_crypt_ctx ctx = { b, { 0 } };
	const struct inl_key *before[2];
	static uint8_t buf[UNIT];
	struct inl_queue *queue;

	end_elsewhere_later(&lab);
	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(0, INL_WRITE, 0, a, 0)), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(1, INL_WRITE, 1, b, 0)), 0);
	assert_int_equal(lab.programs, 2);
	memcpy(before, lab.slots, sizeof(before));
	memset(lab.slots, 0, sizeof(lab.slots));
	inl_dev_reprogram(dev);
	assert_int_equal(lab.programs, 4);
	assert_int_equal(lab.n_reprogrammed, 1);
	assert_memory_equal(lab.slots, before, sizeof(before)); /* each where it was */
	assert_int_equal(counters(dev).resets, 1);
	/* One of them cannot be programmed again, while a bio holds its slot: nobody takes the slot for what it was. */
	memset(lab.slots, 0, sizeof(lab.slots));
	lab.fail_program_of = 2;
	inl_dev_reprogram(dev);
	assert_int_equal(lab.n_reprogrammed, 2);
	assert_int_equal(counters(dev).slot_program_failures, 1);
	let_go(&lab);
	assert_int_equal(inl_queue_reap(queue, 2), 2);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(lab.programs, 7);
	inl_queue_free(queue);
	assert_int_equal(inl_key_evict(a), 0);
	assert_int_equal(inl_key_evict(b), 0);
	lab_free(&lab, dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_callbacks_at_home),
		cmocka_unit_test(test_wait_reaps_queues),
		cmocka_unit_test(test_other_thread_refused),
		cmocka_unit_test(test_waiting_in_callback),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_nobody_starves),
		cmocka_unit_test(test_plugged_for_ever),
		cmocka_unit_test(test_merge_plain),
		cmocka_unit_test(test_never_merged),
		cmocka_unit_test(test_merged_error),
		cmocka_unit_test(test_evict_unplugs),
		cmocka_unit_test(test_stale_handles),
		cmocka_unit_test(test_last_generation),
		cmocka_unit_test(test_live_caps),
		cmocka_unit_test(test_reprogram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
