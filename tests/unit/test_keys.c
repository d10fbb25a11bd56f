/*
 * tests/unit/test_keys.c: the life of a key while threads disagree about it: started, used, evicted, its address given away.
 * Not here: data under load (test_threads.c); slots one by one (test_block.c). Run under ThreadSanitizer too.
 * Read more: inlay/block.h, inl_key_evict.
 */
#include "tests/unit/pattern.h"
#include <errno.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static atomic_uint complaints;

/* cmocka's assertions are for the main thread only. */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (atomic_fetch_add(&complaints, 1) < 10)
		fprintf(stderr, "# %s\n", text);
}

/* ---- threads that start a key, use it and evict it, on one slot, all the time ------------------------------------ */

#define N_THREADS 8
#define N_ROUNDS  100

struct visitor {
	struct inl_dev *dev;
	unsigned id;
	pthread_t thread;
};

static void *come_and_go(void *arg)
{
	struct visitor *visitor = arg;
	uint8_t buf[4096];
	struct inl_key *key;

	if (key_make(visitor->id, 4096, &key)) {
		complain("no key");
		return NULL;
	}
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		struct inl_crypt_ctx ctx = { .dun = { round } };

		if (inl_key_start(visitor->dev, key, &ctx.use)) {
			complain("start");
			continue;
		}
		if (inl_dev_read_keyed(visitor->dev, 0, buf, sizeof(buf), &ctx))
			complain("read");
		if (inl_key_evict(ctx.use))
			complain("evict");
	}
	inl_key_put(key);
	return NULL;
}

static void test_come_and_go(void **state)
{
	struct visitor visitors[N_THREADS];
	struct inl_counters counters;
	struct inl_dev *dev;

	atomic_store(&complaints, 0);
	assert_int_equal(inl_dev_open("engine(ram(1M), slots=1)", 0, NULL, &dev), 0);
	for (unsigned i = 0; i < N_THREADS; i++) {
		visitors[i] = (struct visitor){ .dev = dev, .id = i };
		assert_int_equal(pthread_create(&visitors[i].thread, NULL, come_and_go, &visitors[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(visitors[i].thread, NULL);
	assert_int_equal(atomic_load(&complaints), 0);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.keys_started, N_THREADS * N_ROUNDS);
	assert_int_equal(counters.keys_evicted, N_THREADS * N_ROUNDS);
	inl_dev_close(dev);
}

/* ---- eviction while others submit --------------------------------------------------------------------------------------
 *
 * A device that holds some bios until it is told. Each thread has one such bio under way, so the key cannot be gone, and
 * submits others with the same key until they are refused. Only then is the held one let go.
 */
#define N_HAMMERS 4

struct gate {
	struct inl_bio *held[N_HAMMERS]; /* by the thread that submitted it */
	atomic_uint n_held; /* until they were called back */
	atomic_int programming; /* calls into the engine, at the same time */
};

static void gate_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct gate *gate = inl_dev_priv(dev);
	uint64_t i = bio->state.pos / 4096;

	if (bio->op == INL_READ && i < N_HAMMERS) {
		gate->held[i] = bio;
		atomic_fetch_add(&gate->n_held, 1);
	} else {
		inl_bio_end(bio, 0);
	}
}

static int gate_key(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct gate *gate = inl_dev_priv(dev);

	if (atomic_fetch_add(&gate->programming, 1))
		complain("two calls into an engine at the same time");
	sched_yield();
	atomic_fetch_sub(&gate->programming, 1);
	return 0;
}

static const struct inl_dev_ops gate_ops = {
	.name = "gate", .submit = gate_submit, .key_program = gate_key, .key_evict = gate_key
};

struct hammer {
	struct inl_dev *dev;
	struct inl_key_use *use;
	unsigned id;
	pthread_t thread;
	unsigned n_done, n_refused, n_good;
	struct inl_bio anchor, bio;
	struct iovec segs[2];
	uint8_t bufs[2][4096];
};

static void hammer_done(struct inl_bio *bio)
{
	struct hammer *hammer = bio->private_data;
	struct gate *gate = inl_dev_priv(hammer->dev);

	hammer->n_done++;
	if (bio == &hammer->anchor) {
		usleep(100); /* long enough for an eviction that does not wait for the end of this */
		atomic_fetch_sub(&gate->n_held, 1);
	}
	if (bio->status == -ENOKEY)
		hammer->n_refused++;
	else if (!bio->status)
		hammer->n_good++;
	else
		complain("hammer: %s", strerror(-bio->status));
	if (hammer->n_refused && !bio->status && bio == &hammer->bio)
		complain("taken after one was refused");
}

static void hammer_start(struct hammer *hammer, struct inl_queue *queue, struct inl_bio *bio, unsigned i,
			 uint64_t pos)
{
	struct inl_crypt_ctx ctx = { .use = hammer->use };

	hammer->segs[i] = (struct iovec){ hammer->bufs[i], 4096 };
	inl_bio_init_keyed(bio, INL_READ, pos, &hammer->segs[i], 1, &ctx);
	bio->done = hammer_done;
	bio->private_data = hammer;
	if (inl_queue_submit(queue, bio))
		complain("submit");
}

static void *hammer_work(void *arg)
{
	struct hammer *hammer = arg;
	struct gate *gate = inl_dev_priv(hammer->dev);
	struct inl_queue *queue;

	if (inl_queue_new(hammer->dev, 2, &queue)) {
		complain("no queue");
		return NULL;
	}
	hammer_start(hammer, queue, &hammer->anchor, 0, hammer->id * 4096ull);
	while (hammer->n_refused < 3 && !atomic_load(&complaints)) {
		unsigned before = hammer->n_done;

		hammer_start(hammer, queue, &hammer->bio, 1, N_HAMMERS * 4096);
		inl_queue_reap(queue, 0); /* the held one may have waited for the slot */
		while (hammer->n_done == before)
			inl_queue_reap(queue, 1);
	}
	inl_bio_end(gate->held[hammer->id], 0);
	inl_queue_free(queue);
	return NULL;
}

static void hammer_round(struct inl_dev *dev, unsigned round)
{
	struct gate *gate = inl_dev_priv(dev);
	struct hammer *hammers = calloc(N_HAMMERS, sizeof(*hammers));
	struct inl_key_use *use;
	struct inl_key *key;

	assert_non_null(hammers);
	assert_int_equal(key_make(round, 4096, &key), 0);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	for (unsigned i = 0; i < N_HAMMERS; i++) {
		hammers[i].dev = dev;
		hammers[i].use = use;
		hammers[i].id = i;
		assert_int_equal(pthread_create(&hammers[i].thread, NULL, hammer_work, &hammers[i]), 0);
	}
	while (atomic_load(&gate->n_held) < N_HAMMERS && !atomic_load(&complaints))
		sched_yield();
	if (inl_key_evict(use))
		complain("evict");
	if (atomic_load(&gate->n_held))
		complain("evict did not wait for %u bios", atomic_load(&gate->n_held));
	for (unsigned i = 0; i < N_HAMMERS; i++) {
		pthread_join(hammers[i].thread, NULL);
		if (hammers[i].n_good + hammers[i].n_refused != hammers[i].n_done || hammers[i].n_refused != 3)
			complain("hammer %u: %u done, %u good, %u refused", i, hammers[i].n_done, hammers[i].n_good,
				 hammers[i].n_refused);
	}
	inl_key_put(key);
	if (inl_key_evict(use) != -ENOKEY)
		complain("evicted twice");
	free(hammers);
}

static void test_evict_while_others_submit(void **state)
{
	struct inl_dev_params params = { .size = 1 << 20, .writable = true, .has_engine = true, .n_slots = 1 };
	struct gate gate = { 0 };
	struct inl_dev *dev;

	atomic_store(&complaints, 0);
	params.caps.modes[INL_BLK_MODE_AES_256_XTS] = 4096;
	params.caps.max_dun_bytes = 8;
	params.caps.key_types = INL_KEY_RAW;
	assert_int_equal(inl_dev_new(&gate_ops, &gate, &params, &dev), 0);
	for (unsigned round = 0; round < N_ROUNDS && !atomic_load(&complaints); round++)
		hammer_round(dev, round);
	inl_dev_close(dev);
	assert_int_equal(atomic_load(&complaints), 0);
}

/* ---- an address that comes back ----------------------------------------------------------------------------------------
 *
 * A key is freed and another one lies at the same address: it must not be taken for the old one, by slots, by schedules, by
 * engines that keep something per key. The old one's handle stays dead.
 */
#define N_TRIES 200

struct meeting {
	struct inl_dev *dev, *medium, *engine;
	const char *rule; /* that the engine is given before the eviction */
	unsigned n_same;  /* keys at the address of the one before */
	struct inl_key *old_key;
	struct inl_key_use *old_uses[N_TRIES];
};

/* Write a unit with key number n; the medium must hold what OpenSSL makes of it. */
static void write_and_compare(struct meeting *meeting, struct inl_key_use *use, uint64_t n)
{
	struct inl_crypt_ctx ctx = { .use = use, .dun = { 5 } };
	uint8_t plain[512], wanted[512], got[512];

	pattern_fill(plain, 0, sizeof(plain), 1);
	assert_true(unit_crypt(n, 5, plain, wanted, sizeof(plain), true));
	assert_int_equal(inl_dev_write_keyed(meeting->dev, 0, plain, sizeof(plain), &ctx), 0);
	assert_int_equal(inl_dev_read(meeting->medium, 0, got, sizeof(got)), 0);
	assert_memory_equal(got, wanted, sizeof(got));
	assert_int_equal(inl_dev_read_keyed(meeting->dev, 0, got, sizeof(got), &ctx), 0);
	assert_memory_equal(got, plain, sizeof(got));
}

/* What the one before wrote must not be readable. */
static void read_and_compare(struct meeting *meeting, struct inl_key_use *use)
{
	struct inl_crypt_ctx ctx = { .use = use, .dun = { 5 } };
	uint8_t plain[512], got[512];

	pattern_fill(plain, 0, sizeof(plain), 1);
	assert_int_equal(inl_dev_read_keyed(meeting->dev, 0, got, sizeof(got), &ctx), 0);
	assert_memory_not_equal(got, plain, sizeof(got));
}

/* A handle of before does nothing, and is none of the new ones. */
static void use_old_handle(struct meeting *meeting, struct inl_key_use *old)
{
	struct inl_crypt_ctx ctx = { .use = old, .dun = { 5 } };
	uint8_t text[512], before[512], after[512];

	memset(text, 0x11, sizeof(text));
	assert_int_equal(inl_dev_read(meeting->medium, 0, before, sizeof(before)), 0);
	assert_int_equal(inl_dev_write_keyed(meeting->dev, 0, text, sizeof(text), &ctx), -ENOKEY);
	assert_int_equal(inl_dev_read(meeting->medium, 0, after, sizeof(after)), 0);
	assert_memory_equal(before, after, sizeof(after));
	assert_int_equal(inl_dev_read_keyed(meeting->dev, 0, text, sizeof(text), &ctx), -ENOKEY);
	for (unsigned i = 0; i < sizeof(text); i++)
		assert_int_equal(text[i], 0x11);
	assert_int_equal(inl_key_evict(old), -ENOKEY);
}

static void meet(struct meeting *meeting, uint64_t n)
{
	uint64_t n_rolled = n;
	struct inl_key_use *use;
	struct inl_key *key;
	int err;

	assert_int_equal(key_make(n, 512, &key), 0);
	assert_int_equal(inl_key_start(meeting->dev, key, &use), 0);
	meeting->n_same += key == meeting->old_key;
	meeting->old_key = key;
	meeting->old_uses[n] = use;
	for (uint64_t i = 0; i < n; i++)
		assert_ptr_not_equal(meeting->old_uses[i], use);
	if (n)
		use_old_handle(meeting, meeting->old_uses[roll(&n_rolled, (unsigned)n)]);
	if (n)
		read_and_compare(meeting, use);
	write_and_compare(meeting, use, n);
	if (meeting->rule)
		assert_int_equal(inl_dev_control(meeting->engine, meeting->rule, NULL), 0);
	err = inl_key_evict(use);
	if (meeting->rule)
		assert_int_not_equal(err, 0);
	else
		assert_int_equal(err, 0);
	inl_key_put(key);
}

static void run_meeting(const char *spec, const char *rule)
{
	struct meeting meeting = { .rule = rule };

	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &meeting.dev), 0);
	meeting.medium = inl_dev_find(meeting.dev, "ram");
	meeting.engine = inl_dev_find(meeting.dev, "engine");
	for (uint64_t n = 0; n < N_TRIES; n++)
		meet(&meeting, n);
	inl_dev_close(meeting.dev);
	if (!meeting.n_same) {
		print_message("skipped: the allocator never gave the same address to two of %d keys\n", N_TRIES);
		skip();
	}
}

static void test_same_address_slots(void **state)
{
	run_meeting("engine(ram(64K), slots=1)", NULL);
}

static void test_same_address_kept_by_engine(void **state)
{
	run_meeting("engine(ram(64K), slots=1)", "evict@1");
}

static void test_same_address_no_slots(void **state)
{
	run_meeting("engine(ram(64K), slots=0)", NULL);
}

static void test_same_address_fallback(void **state)
{
	run_meeting("ram(64K)", NULL);
}

static void test_same_address_stack(void **state)
{
	run_meeting("linear(engine(ram(64K), slots=2), ram(64K))", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_come_and_go),
		cmocka_unit_test(test_evict_while_others_submit),
		cmocka_unit_test(test_same_address_slots),
		cmocka_unit_test(test_same_address_kept_by_engine),
		cmocka_unit_test(test_same_address_no_slots),
		cmocka_unit_test(test_same_address_fallback),
		cmocka_unit_test(test_same_address_stack),
	};

	alarm(150); /* whoever waits for ever is ended */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
