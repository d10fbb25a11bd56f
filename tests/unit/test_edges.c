/*
 * tests/unit/test_edges.c: what went wrong where parts of the block layer meet: one test, one defect, now mended.
 * Not here: queues (test_queue.c), slots and bounce memory (test_block.c), misuse (test_misuse.c, test_misuse_driver.c).
 * Read more: inlay/driver.h, on which alone the devices here are written. Most of these defects were hangs: a watchdog
 * names the test and ends the program. tests/meson.build has two functions of the C library called through this file.
 */
#include <errno.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK_SIZE (1u << 20)
#define UNIT	  4096u
#define BLOCK	  512u
#define BOUNCE	  65536u /* the least there can be */
#define LIMIT	  10	 /* seconds: more than any test needs */
#define MS	  1000000u /* ns */

/* ---- the watchdog ------------------------------------------------------------------------------------------------ */

static const char *running;

static void hung(int number)
{
	static const char text[] = " hangs: ended by its watchdog\n";

	if (write(STDERR_FILENO, running, strlen(running)) < 0 || write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(3);
	_exit(2);
}

static int watch(void **state)
{
	running = *state;
	signal(SIGALRM, hung);
	alarm(LIMIT);
	return 0;
}

static int unwatch(void **state)
{
	alarm(0);
	return 0;
}

#define EDGE(test) { #test, test, watch, unwatch, (void *)(uintptr_t)#test }

/* ---- in front of the C library: the linker's --wrap -------------------------------------------------------------- */

static _Thread_local void (*before_lock)(void); /* called once, before this thread's next lock */
static atomic_int clock_ahead;			/* seconds: the wall clock will have been set back by so much */

int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	void (*before)(void) = before_lock;

	before_lock = NULL;
	if (before)
		before();
	return __real_pthread_mutex_lock(lock);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	int err = __real_clock_gettime(clock, t);

	if (clock == CLOCK_REALTIME)
		t->tv_sec += clock_ahead;
	return err;
}

/* ---- a device in memory, and others on top of it ----------------------------------------------------------------- */

struct lab {
	uint8_t disk[DISK_SIZE];
	uint32_t mem_align;   /* that it was promised */
	uint64_t delay;	      /* ns that every bio takes */
	bool holds;
	struct inl_bio *held; /* by whoever holds one */
	unsigned n_arrived, n_misaligned;
	int program_err;
	struct inl_dev_extent extent; /* the answer of a map that answers nonsense */
	bool halves;		      /* ... or half of what was asked */
	struct inl_cross *cross;      /* of an emulated engine */
	struct inl_cipher *cipher;
};

static void look_at_memory(struct lab *lab, const struct inl_bio *bio)
{
	struct iovec iov[8];
	uint64_t len;

	for (uint64_t at = 0; at < bio->len; at += len) {
		unsigned n = inl_bio_iov(bio, at, iov, 8, &len);

		for (unsigned i = 0; i < n; i++)
			lab->n_misaligned += (uintptr_t)iov[i].iov_base % lab->mem_align != 0;
	}
}

static void answer(struct lab *lab, struct inl_bio *bio)
{
	uint64_t pos = bio->state.pos;

	if (pos > DISK_SIZE || bio->len > DISK_SIZE - pos) {
		inl_bio_end(bio, -EFAULT);
		return;
	}
	if (bio->op == INL_READ || bio->op == INL_WRITE)
		look_at_memory(lab, bio);
	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, lab->disk + pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, lab->disk + pos, bio->len);
	inl_bio_end(bio, 0);
}

static void lab_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct lab *lab = inl_dev_priv(dev);

	if (lab->delay && !*inl_bio_stage(bio)) {
		*inl_bio_stage(bio) = 1;
		inl_bio_again_at(bio, inl_now_ns() + lab->delay);
		return;
	}
	lab->n_arrived++;
	if (lab->holds)
		lab->held = bio;
	else
		answer(lab, bio);
}

static int lab_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	return ((struct lab *)inl_dev_priv(dev))->program_err;
}

static int lab_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	return 0;
}

static void lab_close(struct inl_dev *dev)
{
	struct lab *lab = inl_dev_priv(dev);

	inl_cross_free(lab->cross);
	inl_cross_cipher_free(lab->cipher);
	free(lab);
}

static const struct inl_dev_ops lab_ops = {
	.name = "lab",
	.submit = lab_submit,
	.close = lab_close,
	.key_program = lab_program,
	.key_evict = lab_evict,
};

static struct inl_dev *make(const struct inl_dev_ops *ops, struct inl_dev_params params)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct inl_dev *dev;

	assert_non_null(lab);
	if (!params.size)
		params.size = DISK_SIZE;
	lab->mem_align = params.mem_align ? params.mem_align : 1;
	if (params.has_engine) {
		params.caps.modes[INL_BLK_MODE_AES_256_XTS] = 2 * INL_UNIT_SIZE_MAX - INL_UNIT_SIZE_MIN;
		params.caps.max_dun_bytes = 16;
		params.caps.key_types = INL_KEY_RAW;
	}
	assert_int_equal(inl_dev_new(ops, lab, &params, &dev), 0);
	return dev;
}

static struct inl_dev *make_lab(void)
{
	return make(&lab_ops, (struct inl_dev_params){ .writable = true });
}

static struct inl_dev *make_over(const struct inl_dev_ops *ops, struct inl_dev *child)
{
	return make(ops, (struct inl_dev_params){ .writable = true, .children = &child, .n_children = 1 });
}

static struct lab *lab_of(struct inl_dev *dev)
{
	return inl_dev_priv(dev);
}

static void below(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos);
}

static const struct inl_dev_ops over_ops = { .name = "over", .submit = below, .close = lab_close };

/* In extents of one unit. */
static void map_units(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	uint64_t here = UNIT - pos % UNIT;

	*out = (struct inl_dev_extent){ inl_dev_child(dev, 0), pos, here < len ? here : len };
}

static const struct inl_dev_ops map_ops = { .name = "map", .map = map_units, .close = lab_close };

/* ---- keys, emulated engines, bios -------------------------------------------------------------------------------- */

static struct inl_key *make_key(uint8_t seed, uint32_t unit)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, unit, 8, INL_KEY_RAW };
	struct inl_key *key;
	uint8_t bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(seed + i * 3);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	return key;
}

static struct inl_key_use *start_key(struct inl_dev *dev, uint8_t seed, uint32_t unit)
{
	struct inl_key *key = make_key(seed, unit);
	struct inl_key_use *use;

	assert_int_equal(inl_key_start(dev, key, &use), 0);
	inl_key_put(key);
	return use;
}

static void emulate(struct inl_dev *dev, struct inl_bio *bio)
{
	if (inl_bio_kind(bio) == INL_BIO_KEYED)
		inl_cross_submit(lab_of(dev)->cross, bio);
	else
		below(dev, bio);
}

static void run_job(struct inl_dev *dev, struct inl_cross_job *job)
{
	inl_cross_done(job, inl_cross_job_run(job, lab_of(dev)->cipher));
}

static const struct inl_dev_ops emulated_ops = { .name = "emulated", .submit = emulate, .close = lab_close };

/* An emulated engine that knows one key: seed 1. */
static struct inl_dev *make_emulated(struct inl_dev *child, uint32_t unit, struct inl_dev_params params)
{
	struct inl_key *key = make_key(1, unit);
	struct inl_dev *dev;

	params.has_engine = true;
	params.children = &child;
	params.n_children = 1;
	dev = make(&emulated_ops, params);
	assert_int_equal(inl_cross_new(dev, child, run_job, &lab_of(dev)->cross), 0);
	assert_int_equal(inl_cross_cipher_new(key, NULL, &lab_of(dev)->cipher), 0);
	inl_key_put(key);
	return dev;
}

struct flow {
	struct inl_bio bio;
	struct iovec seg;
	unsigned n_done;
	int status;
};

static void flow_done(struct inl_bio *bio)
{
	struct flow *flow = bio->private_data;

	flow->n_done++;
	flow->status = bio->status;
}

/* use == NULL: plain. */
static struct inl_bio *prepare(struct flow *flow, enum inl_op op, uint64_t offset, void *buf, size_t len,
			       struct inl_key_use *use)
{
	struct inl_crypt_ctx ctx = { use, { offset / UNIT } };

	*flow = (struct flow){ .seg = { buf, len }, .status = 1 };
	if (use)
		inl_bio_init_keyed(&flow->bio, op, offset, &flow->seg, 1, &ctx);
	else
		inl_bio_init_plain(&flow->bio, op, offset, &flow->seg, 1);
	flow->bio.done = flow_done;
	flow->bio.private_data = flow;
	return &flow->bio;
}

static void is_done(const struct flow *flow, int status)
{
	assert_int_equal(flow->n_done, 1);
	assert_int_equal(flow->status, status);
}

static void fill(uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(i * 7 + i / 251 + 1);
}

static struct inl_counters counters(struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	return c;
}

static int range_op(struct inl_dev *dev, enum inl_op op, uint64_t offset, uint64_t len)
{
	struct inl_bio bio;

	inl_bio_init_range(&bio, op, offset, len);
	return inl_submit_wait(dev, &bio);
}

/* ---- plugged queues, and waiting --------------------------------------------------------------------------------- */

static struct {
	struct inl_queue *queue;
	struct flow first, second;
	uint8_t buf[BLOCK];
	int err;
} plugging;

static void plug_and_submit(struct inl_bio *bio)
{
	flow_done(bio);
	inl_queue_plug(plugging.queue);
	plugging.err = inl_queue_submit(plugging.queue, prepare(&plugging.second, INL_READ, 0, plugging.buf, BLOCK, NULL));
}

/* A callback had plugged and submitted: what it submitted was done while the wait unplugged, and was waited for for ever. */
static void test_reap_of_what_a_callback_plugged(void **state)
{
	struct inl_dev *dev = make_lab();

	assert_int_equal(inl_queue_new(dev, 8, &plugging.queue), 0);
	inl_queue_plug(plugging.queue);
	prepare(&plugging.first, INL_READ, 0, plugging.buf, BLOCK, NULL)->done = plug_and_submit;
	assert_int_equal(inl_queue_submit(plugging.queue, &plugging.first.bio), 0);
	inl_queue_reap(plugging.queue, 2);
	assert_int_equal(plugging.err, 0);
	is_done(&plugging.first, 0);
	is_done(&plugging.second, 0);
	assert_int_equal(inl_queue_n_busy(plugging.queue), 0);
	inl_queue_free(plugging.queue);
	inl_dev_close(dev);
}

/* Holds every other bio, and ends it together with the next. */
static void submit_pair(struct inl_dev *dev, struct inl_bio *bio)
{
	struct lab *lab = inl_dev_priv(dev);
	struct inl_bio *held = lab->held;

	lab->held = held ? NULL : bio;
	if (held) {
		answer(lab, held);
		answer(lab, bio);
	}
}

static const struct inl_dev_ops pair_ops = { .name = "pair", .submit = submit_pair, .close = lab_close };

/* A read slept for ever, since it had ended while its wait unplugged a queue of the same thread. */
static void test_wait_that_unplugging_ends(void **state)
{
	struct inl_dev *dev = make(&pair_ops, (struct inl_dev_params){ .writable = true });
	static uint8_t buf[2][BLOCK];
	struct inl_queue *queue;
	struct flow flow;

	assert_int_equal(inl_queue_new(dev, 8, &queue), 0);
	inl_queue_plug(queue);
	assert_int_equal(inl_queue_submit(queue, prepare(&flow, INL_READ, 0, buf[0], BLOCK, NULL)), 0);
	assert_int_equal(inl_dev_read(dev, BLOCK, buf[1], BLOCK), 0);
	is_done(&flow, 0);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

/* A bio that had been waited for came back with the block layer's done and private_data, fit for nothing any more. */
static void test_wait_gives_the_bio_back(void **state)
{
	struct inl_dev *dev = make_lab();
	static uint8_t buf[BLOCK];
	struct inl_queue *queue;
	struct flow flow;

	assert_int_equal(inl_queue_new(dev, 2, &queue), 0);
	assert_int_equal(inl_submit_wait(dev, prepare(&flow, INL_READ, 0, buf, BLOCK, NULL)), 0);
	assert_int_equal(flow.n_done, 0);
	assert_true(flow.bio.done == flow_done);
	assert_ptr_equal(flow.bio.private_data, &flow);
	assert_int_equal(inl_queue_submit(queue, &flow.bio), 0);
	inl_queue_free(queue);
	is_done(&flow, 0);
	inl_dev_close(dev);
}

/* ---- memory that must be aligned --------------------------------------------------------------------------------- */

/* Where memory is aligned to more than a block, a single block counted as misaligned, in bounce memory too: for ever. */
static void test_align_beyond_the_block(void **state)
{
	static const uint32_t aligns[] = { 512, 1024, 4096 };
	static _Alignas(4096) uint8_t buf[2 * UNIT], back[2 * UNIT];

	fill(buf, sizeof(buf));
	for (unsigned i = 0; i < sizeof(aligns) / sizeof(aligns[0]); i++) {
		struct inl_dev *dev = make(&lab_ops, (struct inl_dev_params){ .writable = true, .mem_align = aligns[i] });

		assert_int_equal(inl_dev_write(dev, BLOCK, buf, BLOCK), 0);
		assert_memory_equal(lab_of(dev)->disk + BLOCK, buf, BLOCK);
		assert_int_equal(inl_dev_write(dev, UNIT, buf + 1, 3 * BLOCK), 0);
		assert_int_equal(inl_dev_read(dev, UNIT, back + 3, 3 * BLOCK), 0);
		assert_memory_equal(back + 3, buf + 1, 3 * BLOCK);
		assert_int_equal(lab_of(dev)->n_misaligned, 0);
		inl_dev_close(dev);
	}
}

/* A bio kept the only slot while its pieces waited for one, behind a bio with another key. */
static void test_align_and_one_slot(void **state)
{
	struct inl_dev *dev = make(&lab_ops, (struct inl_dev_params){ .writable = true, .mem_align = BLOCK,
								      .has_engine = true, .n_slots = 1 });
	struct inl_key_use *uses[2] = { start_key(dev, 1, UNIT), start_key(dev, 100, UNIT) };
	static _Alignas(4096) uint8_t buf[4 * BOUNCE + 1];
	struct inl_queue *queue;
	struct flow flows[2];

	assert_int_equal(inl_dev_set_bounce(dev, BOUNCE), 0);
	assert_int_equal(inl_queue_new(dev, 2, &queue), 0);
	lab_of(dev)->delay = MS;
	fill(buf, sizeof(buf));
	prepare(&flows[0], INL_WRITE, 0, buf + 1, 4 * BOUNCE, uses[0]);
	prepare(&flows[1], INL_WRITE, DISK_SIZE / 2, buf + 1, UNIT, uses[1]);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_queue_submit(queue, &flows[i].bio), 0);
	inl_queue_free(queue);
	for (unsigned i = 0; i < 2; i++) {
		is_done(&flows[i], 0);
		assert_int_equal(inl_key_evict(uses[i]), 0);
	}
	assert_true(counters(dev).slot_waits > 0);
	assert_memory_equal(lab_of(dev)->disk, buf + 1, 4 * BOUNCE); /* this engine does not encrypt */
	assert_memory_equal(lab_of(dev)->disk + DISK_SIZE / 2, buf + 1, UNIT);
	assert_int_equal(lab_of(dev)->n_misaligned, 0);
	inl_dev_close(dev);
}

/* The copy that is aligned held all the bounce memory that its ciphertext waited for. */
static void test_align_and_emulated_engine(void **state)
{
	struct inl_dev *lab = make_lab(), *dev;
	static _Alignas(4096) uint8_t buf[2 * BOUNCE + 1], back[2 * BOUNCE + 1];
	struct inl_crypt_ctx ctx = { 0 };

	dev = make_emulated(lab, UNIT, (struct inl_dev_params){ .writable = true, .mem_align = BLOCK });
	assert_int_equal(inl_dev_set_bounce(dev, BOUNCE), 0);
	ctx.use = start_key(dev, 1, UNIT);
	assert_true(inl_key_use_native(ctx.use));
	fill(buf, sizeof(buf));
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf + 1, 2 * BOUNCE, &ctx), 0);
	assert_memory_not_equal(lab_of(lab)->disk, buf + 1, UNIT);
	assert_int_equal(inl_dev_read_keyed(dev, 0, back + 1, 2 * BOUNCE, &ctx), 0);
	assert_memory_equal(back + 1, buf + 1, 2 * BOUNCE);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* ---- engines and keys -------------------------------------------------------------------------------------------- */

/* The engine's own -EAGAIN was taken for "no slot is idle", and the bio was parked for ever. */
static void test_program_answers_eagain(void **state)
{
	struct inl_dev *dev = make(&lab_ops,
				   (struct inl_dev_params){ .writable = true, .has_engine = true, .n_slots = 1 });
	struct inl_crypt_ctx ctx = { .use = start_key(dev, 1, UNIT) };
	static uint8_t buf[UNIT];

	lab_of(dev)->program_err = -EAGAIN;
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -EAGAIN);
	lab_of(dev)->program_err = 0;
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

static struct {
	struct inl_dev *dev;
	struct inl_key_use *use;
	struct flow flow;
	uint8_t buf[UNIT];
	int err;
	atomic_bool called, interrupted, evicted, too_early;
} late;

/* The thread is interrupted where it gives the key's use back: may the key be gone, and its device with it? */
static void while_evicting(void)
{
	late.interrupted = true;
	for (unsigned i = 0; i < 30 && !late.evicted; i++)
		usleep(1000);
	late.too_early = late.evicted;
}

static void done_while_evicting(struct inl_bio *bio)
{
	flow_done(bio);
	late.called = true;
	while (inl_key_use_native(late.use))
		usleep(100);
	before_lock = while_evicting;
}

static void *read_on_a_thread(void *arg)
{
	struct inl_queue *queue;

	late.err = inl_queue_new(late.dev, 1, &queue);
	if (late.err)
		return NULL;
	prepare(&late.flow, INL_READ, 0, late.buf, UNIT, late.use)->done = done_while_evicting;
	late.err = inl_queue_submit(queue, &late.flow.bio);
	before_lock = NULL;
	inl_queue_free(queue);
	return NULL;
}

/* Evict returned to a thread that had I/O of its own before the last bio was done with the device, which could be closed. */
static void test_evict_waits_for_the_last_release(void **state)
{
	struct inl_dev *busy = make_lab();
	struct inl_queue *queue;
	struct flow flow;
	pthread_t thread;

	late.dev = make(&lab_ops, (struct inl_dev_params){ .writable = true, .has_engine = true });
	late.use = start_key(late.dev, 1, UNIT);
	lab_of(busy)->holds = true;
	assert_int_equal(inl_queue_new(busy, 1, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(&flow, INL_FLUSH, 0, NULL, 0, NULL)), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_on_a_thread, NULL), 0);
	while (!late.called)
		usleep(100);
	assert_int_equal(inl_key_evict(late.use), 0);
	late.evicted = true;
	pthread_join(thread, NULL);
	assert_int_equal(late.err, 0);
	is_done(&late.flow, 0);
	assert_true(late.interrupted);
	assert_false(late.too_early);
	inl_bio_end(lab_of(busy)->held, 0);
	inl_queue_free(queue);
	is_done(&flow, 0);
	inl_dev_close(late.dev);
	inl_dev_close(busy);
}

#define AHEAD 6 /* seconds */

/* Evict slept by the wall clock, and when that was set back, slept until it had caught up. */
static void test_evict_when_the_clock_is_set_back(void **state)
{
	struct inl_dev *dev = make_lab();
	struct inl_key_use *use = start_key(dev, 1, UNIT);
	static uint8_t buf[UNIT];
	struct inl_queue *queue;
	struct flow flow;
	uint64_t begin;

	lab_of(dev)->delay = 20 * MS;
	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(&flow, INL_READ, 0, buf, UNIT, use)), 0);
	assert_int_equal(flow.n_done, 0);
	begin = inl_now_ns();
	clock_ahead = AHEAD;
	assert_int_equal(inl_key_evict(use), 0);
	clock_ahead = 0;
	is_done(&flow, 0);
	assert_true(inl_now_ns() - begin < (AHEAD - 1) * UINT64_C(1000) * MS);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static struct {
	struct inl_dev *dev;
	atomic_bool reporting, second_returned;
	atomic_uint n_programs, n_reports, n_mixed;
} resets;

static int resets_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	resets.n_mixed += resets.reporting;
	resets.n_programs++;
	return 0;
}

/* The first time it takes long enough for another reset to come. */
static void resets_reprogrammed(struct inl_dev *dev)
{
	resets.reporting = true;
	if (resets.n_reports++ == 0) {
		while (!resets.second_returned)
			usleep(100);
	}
	resets.reporting = false;
}

static const struct inl_dev_ops resets_ops = {
	.name = "resets",
	.submit = lab_submit,
	.close = lab_close,
	.key_program = resets_program,
	.key_evict = lab_evict,
	.reprogrammed = resets_reprogrammed,
};

static void *reset_first(void *arg)
{
	inl_dev_reprogram(resets.dev);
	return NULL;
}

/* The driver heard that its slots were whole again while they were being programmed after the next reset. */
static void test_reprogrammed_comes_before_the_next_reset(void **state)
{
	static uint8_t buf[UNIT];
	struct inl_crypt_ctx ctx = { 0 };
	pthread_t thread;

	resets.dev = make(&resets_ops, (struct inl_dev_params){ .has_engine = true, .n_slots = 1 });
	ctx.use = start_key(resets.dev, 1, UNIT);
	assert_int_equal(inl_dev_read_keyed(resets.dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(pthread_create(&thread, NULL, reset_first, NULL), 0);
	while (!resets.n_reports)
		usleep(100);
	inl_dev_reprogram(resets.dev);
	resets.second_returned = true;
	pthread_join(thread, NULL);
	assert_int_equal(resets.n_mixed, 0);
	assert_int_equal(resets.n_programs, 3);
	assert_int_equal(resets.n_reports, 2);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(resets.dev);
}

/* Equal halves were refused in an AES-256-XTS key, and taken in an SM4-XTS key, where they do the same harm. */
static void test_equal_halves(void **state)
{
	struct inl_key *key;
	uint8_t bytes[64];

	memset(bytes, 7, sizeof(bytes));
	for (unsigned mode = 1; mode < INL_BLK_MODE_MAX; mode++) {
		struct inl_key_config cfg = { mode, UNIT, 8, INL_KEY_RAW };
		bool xts = mode == INL_BLK_MODE_AES_256_XTS || mode == INL_BLK_MODE_SM4_XTS;
		unsigned size = inl_blk_mode_key_size(mode);

		assert_int_equal(inl_key_new(&cfg, bytes, size, &key), xts ? -EINVAL : 0);
		if (!xts)
			inl_key_put(key);
		bytes[0]++;
		assert_int_equal(inl_key_new(&cfg, bytes, size, &key), 0);
		bytes[0]--;
		inl_key_put(key);
	}
}

/* ---- what must not reach a device -------------------------------------------------------------------------------- */

/* Ciphertext of an emulated engine was sent down without a look at the size and the blocks of the device below. */
static void test_engine_unlike_its_child(void **state)
{
	struct inl_dev *lab = make(&lab_ops, (struct inl_dev_params){ .writable = true, .block_size = UNIT }), *dev;
	static uint8_t buf[UNIT];
	struct inl_crypt_ctx ctx = { 0 };

	dev = make_emulated(lab, BLOCK, (struct inl_dev_params){ .writable = true, .size = 2 * DISK_SIZE });
	ctx.use = start_key(dev, 1, BLOCK);
	assert_true(inl_key_use_native(ctx.use));
	assert_int_equal(inl_dev_write(dev, BLOCK, buf, BLOCK), -EINVAL);
	assert_int_equal(inl_dev_read_keyed(dev, BLOCK, buf, BLOCK, &ctx), -EINVAL);
	assert_int_equal(inl_dev_write_keyed(dev, BLOCK, buf, BLOCK, &ctx), -EINVAL);
	assert_int_equal(inl_dev_write(dev, DISK_SIZE, buf, UNIT), -ENXIO);
	assert_int_equal(inl_dev_read_keyed(dev, DISK_SIZE, buf, UNIT, &ctx), -ENXIO);
	assert_int_equal(inl_dev_write_keyed(dev, DISK_SIZE, buf, UNIT, &ctx), -ENXIO);
	assert_int_equal(lab_of(lab)->n_arrived, 0);
	assert_int_equal(inl_dev_write_keyed(dev, UNIT, buf, UNIT, &ctx), 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

static void map_nonsense(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	*out = lab_of(dev)->extent;
	if (lab_of(dev)->halves)
		*out = (struct inl_dev_extent){ inl_dev_child(dev, 0), pos, len / 2 };
}

static const struct inl_dev_ops nonsense_ops = { .name = "nonsense", .map = map_nonsense, .close = lab_close };

/* Maps that name the device itself, a stranger, or no length made endless loops, or wrote to the stranger. */
static void test_maps_of_nonsense(void **state)
{
	struct inl_dev_params engine = { .writable = true, .has_engine = true };
	struct inl_dev *child = make(&lab_ops, engine), *stranger = make(&lab_ops, engine);
	struct inl_dev *dev = make_over(&nonsense_ops, child);
	struct inl_crypt_ctx ctx = { .use = start_key(dev, 1, UNIT) };
	struct inl_dev_extent wrong[] = { { dev, 0, 2 * UNIT }, { stranger, 0, 2 * UNIT }, { child, 0, 0 } };
	static uint8_t buf[2 * UNIT];

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		lab_of(dev)->extent = wrong[i];
		assert_int_equal(inl_dev_write(dev, 0, buf, 2 * UNIT), -EIO);
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 2 * UNIT, &ctx), -EIO);
		assert_int_equal(range_op(dev, INL_DISCARD, 0, 2 * UNIT), -EIO);
	}
	assert_int_equal(lab_of(child)->n_arrived + lab_of(stranger)->n_arrived, 0);
	lab_of(dev)->halves = true; /* down to less than a block */
	assert_int_equal(inl_dev_write(dev, 0, buf, 2 * UNIT), -EINVAL);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 2 * UNIT, &ctx), -EINVAL);
	assert_int_equal(lab_of(stranger)->n_arrived, 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(stranger);
	inl_dev_close(dev);
}

static void tear(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_torn(inl_dev_child(dev, 0), bio, bio->state.pos, BLOCK, 0);
}

static const struct inl_dev_ops tear_ops = { .name = "tear", .submit = tear, .close = lab_close };

static void tear_and_tell(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_torn(inl_dev_child(dev, 0), bio, bio->state.pos, 2 * BLOCK, -EIO);
}

static const struct inl_dev_ops tell_ops = { .name = "tell", .submit = tear_and_tell, .close = lab_close };

/* A tear that nobody is to hear of hid the error of another one above it. */
static void test_torn_twice(void **state)
{
	struct inl_dev *lab = make_lab(), *dev = make_over(&tell_ops, make_over(&tear_ops, lab));
	static uint8_t buf[UNIT];

	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -EIO);
	assert_int_equal(lab_of(lab)->n_arrived, 1);
	inl_dev_close(dev);
}

/* A torn write that is to look whole left the bio as short as its torn part, also for whoever submitted it again. */
static void test_torn_and_no_error(void **state)
{
	struct inl_dev *lab = make_lab(), *dev = make_over(&tear_ops, lab);
	static const uint8_t zeros[UNIT];
	static uint8_t buf[UNIT];
	struct flow flow;

	fill(buf, UNIT);
	prepare(&flow, INL_WRITE, UNIT, buf, UNIT, NULL);
	for (unsigned i = 0; i < 2; i++) {
		memset(lab_of(lab)->disk, 0, DISK_SIZE);
		assert_int_equal(inl_submit_wait(dev, &flow.bio), 0);
		assert_int_equal(flow.bio.len, UNIT);
		assert_memory_equal(lab_of(lab)->disk + UNIT, buf, BLOCK);
		assert_memory_equal(lab_of(lab)->disk + UNIT + BLOCK, zeros, UNIT - BLOCK);
	}
	assert_int_equal(lab_of(lab)->n_arrived, 2);
	/* Of a read nobody would know which part of the memory is from the medium. */
	assert_int_equal(inl_dev_read(dev, 0, buf, UNIT), -EINVAL);
	assert_int_equal(lab_of(lab)->n_arrived, 2);
	inl_dev_close(dev);
}

/* Lengths that add up to a sane one only because they overflow were taken. */
static void test_lengths_that_overflow(void **state)
{
	struct inl_dev *dev = make_lab();
	static uint8_t buf[UNIT];
	struct iovec huge[2] = { { buf, SIZE_MAX - BLOCK + 1 }, { buf, 2 * BLOCK } };
	struct iovec empty[3] = { { NULL, 0 }, { buf, BLOCK }, { NULL, 0 } };
	struct inl_bio bio;

	inl_bio_init_plain(&bio, INL_READ, 0, huge, 2);
	bio.len = BLOCK;
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	assert_int_equal(lab_of(dev)->n_arrived, 0);
	inl_bio_init_plain(&bio, INL_READ, 0, empty, 3); /* some may be empty */
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	inl_dev_close(dev);
}

static void refused_below(struct inl_dev *dev, struct inl_dev *lab)
{
	struct inl_crypt_ctx ctx = { .use = start_key(dev, 1, UNIT) };
	static uint8_t buf[2 * UNIT];

	assert_int_equal(inl_dev_write(dev, 0, buf, BLOCK), -EROFS);
	assert_int_equal(inl_dev_write(dev, 0, buf, 2 * UNIT), -EROFS);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -EROFS);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 2 * UNIT, &ctx), -EROFS);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, BLOCK), -EROFS);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 2 * UNIT), -EROFS);
	assert_int_equal(lab_of(lab)->n_arrived, 0);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 2 * UNIT, &ctx), 0);
	assert_int_equal(inl_dev_flush(dev), 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* Through a stack that is writable a device that is not was written to. */
static void test_read_only_below(void **state)
{
	struct inl_dev *lab = make(&lab_ops, (struct inl_dev_params){ 0 });

	refused_below(make_over(&over_ops, lab), lab);
	lab = make(&lab_ops, (struct inl_dev_params){ 0 });
	refused_below(make_over(&map_ops, lab), lab);
}

/* A keyed write came to an engine that is read only, and so has no memory for ciphertext: a crash. */
static void test_read_only_engine_below(void **state)
{
	struct inl_dev *lab = make(&lab_ops, (struct inl_dev_params){ 0 });

	refused_below(make_over(&over_ops, make_emulated(lab, UNIT, (struct inl_dev_params){ 0 })), lab);
	lab = make(&lab_ops, (struct inl_dev_params){ 0 });
	refused_below(make_over(&map_ops, make_emulated(lab, UNIT, (struct inl_dev_params){ 0 })), lab);
}

/* A discard that was made from a read was split as if it had its bytes in memory, far behind its last segment. */
static void test_discard_with_segments(void **state)
{
	struct inl_dev *lab = make_lab(), *dev = make_over(&map_ops, lab);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec *last = (struct iovec *)(void *)(pages + page) - 1;
	static uint8_t buf[BLOCK];
	struct inl_bio bio;

	assert_true(pages != MAP_FAILED);
	assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
	*last = (struct iovec){ buf, BLOCK };
	inl_bio_init_plain(&bio, INL_READ, 0, last, 1);
	bio.op = INL_DISCARD;
	bio.len = 16 * UNIT;
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_int_equal(lab_of(lab)->n_arrived, 16);
	munmap(pages, 2 * page);
	inl_dev_close(dev);
}

/* A flush with a place or a length was carried out, whatever its caller may have meant by them. */
static void test_flush_of_a_place(void **state)
{
	struct inl_dev *lab = make_lab(), *dev = make_over(&map_ops, lab);

	assert_int_equal(range_op(dev, INL_FLUSH, BLOCK, 0), -EINVAL);
	assert_int_equal(range_op(dev, INL_FLUSH, 0, BLOCK), -EINVAL);
	assert_int_equal(range_op(dev, INL_FLUSH, BLOCK, 12345), -EINVAL);
	assert_int_equal(lab_of(lab)->n_arrived, 0);
	assert_int_equal(range_op(dev, INL_FLUSH, 0, 0), 0);
	assert_int_equal(lab_of(lab)->n_arrived, 1);
	inl_dev_close(dev);
}

/* ---- a driver that works in batches ------------------------------------------------------------------------------ */

struct batch {
	struct inl_bio_list list;
	int fd;
};

static int batch_new(unsigned depth, void **ctx)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return -ENOMEM;
	batch->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	*ctx = batch;
	return 0;
}

static void batch_free(void *ctx)
{
	close(((struct batch *)ctx)->fd);
	free(ctx);
}

static void batch_flush(void *ctx)
{
	struct batch *batch = ctx;
	struct inl_bio *bio;

	while ((bio = inl_bio_list_pop(&batch->list)))
		answer(lab_of(bio->state.dev), bio);
}

static unsigned batch_reap(void *ctx)
{
	return 0;
}

static int batch_fd(void *ctx)
{
	return ((struct batch *)ctx)->fd;
}

static void batch_submit(struct inl_dev *dev, struct inl_bio *bio);

static const struct inl_dev_ops batch_ops = {
	.name = "batch",
	.submit = batch_submit,
	.close = lab_close,
	.queue_new = batch_new,
	.queue_free = batch_free,
	.queue_flush = batch_flush,
	.queue_reap = batch_reap,
	.queue_fd = batch_fd,
};

static void batch_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct batch *batch = inl_bio_queue_ctx(bio, &batch_ops);

	if (batch)
		inl_bio_list_add(&batch->list, bio);
	else
		answer(lab_of(dev), bio);
}

/* What a thread keeps of one bio for the next it kept beyond its turn, if that ended in queue_flush, and evict hung. */
static void test_ended_by_a_flush_of_the_queue(void **state)
{
	struct inl_dev *dev = make(&batch_ops, (struct inl_dev_params){ .writable = true });
	struct inl_key_use *use = start_key(dev, 1, UNIT);
	static uint8_t buf[UNIT];
	struct inl_queue *queue;
	struct flow flow;

	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, prepare(&flow, INL_WRITE, 0, buf, UNIT, use)), 0);
	is_done(&flow, 0);
	assert_int_equal(inl_queue_n_busy(queue), 0);
	assert_int_equal(inl_key_evict(use), 0);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EDGE(test_reap_of_what_a_callback_plugged),
		EDGE(test_wait_that_unplugging_ends),
		EDGE(test_wait_gives_the_bio_back),
		EDGE(test_align_beyond_the_block),
		EDGE(test_align_and_one_slot),
		EDGE(test_align_and_emulated_engine),
		EDGE(test_program_answers_eagain),
		EDGE(test_evict_waits_for_the_last_release),
		EDGE(test_evict_when_the_clock_is_set_back),
		EDGE(test_reprogrammed_comes_before_the_next_reset),
		EDGE(test_equal_halves),
		EDGE(test_engine_unlike_its_child),
		EDGE(test_maps_of_nonsense),
		EDGE(test_torn_and_no_error),
		EDGE(test_torn_twice),
		EDGE(test_lengths_that_overflow),
		EDGE(test_read_only_below),
		EDGE(test_read_only_engine_below),
		EDGE(test_discard_with_segments),
		EDGE(test_flush_of_a_place),
		EDGE(test_ended_by_a_flush_of_the_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
