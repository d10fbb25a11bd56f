/*
 * tests/unit/test_threads.c: many threads on one device: slots, bounce buffers, eviction. Run under ThreadSanitizer too.
 * Not here: single-threaded behaviour (test_block.c).
 * Read more: inlay/block.h, the "Threads:" lines.
 */
#include <errno.h>
#include <inlay/block.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_THREADS 6
#define N_ROUNDS  200
#define UNIT	  4096u
#define LEN	  (4 * UNIT)

struct shared {
	struct inl_dev *dev;
	struct inl_key_use *uses[3];
	atomic_uint errors;
};

struct worker {
	struct shared *shared;
	unsigned id;
	pthread_t thread;
};

static struct inl_key *make_key(uint8_t seed)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW };
	uint8_t bytes[64];
	struct inl_key *key;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(seed + i);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	return key;
}

/* Each thread writes and reads back its own area, with a key that others use too. */
static void *work(void *arg)
{
	struct worker *worker = arg;
	struct shared *shared = worker->shared;
	uint64_t offset = (uint64_t)worker->id * LEN;
	uint8_t *plain = malloc(LEN), *back = malloc(LEN);

	for (unsigned round = 0; round < N_ROUNDS; round++) {
		struct inl_crypt_ctx ctx = { .use = shared->uses[(worker->id + round) % 3], .dun = { round } };
		int err;

		memset(plain, (int)(worker->id * 31 + round), LEN);
		err = inl_dev_write_keyed(shared->dev, offset, plain, LEN, &ctx);
		if (!err)
			err = inl_dev_read_keyed(shared->dev, offset, back, LEN, &ctx);
		if (err || memcmp(plain, back, LEN))
			atomic_fetch_add(&shared->errors, 1);
	}
	free(plain);
	free(back);
	return NULL;
}

static void run(const char *spec)
{
	struct shared shared = { 0 };
	struct worker workers[N_THREADS];
	struct inl_key *keys[3];
	struct inl_counters counters;

	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &shared.dev), 0);
	for (unsigned i = 0; i < 3; i++) {
		keys[i] = make_key((uint8_t)(70 * i));
		assert_int_equal(inl_key_start(shared.dev, keys[i], &shared.uses[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){ .shared = &shared, .id = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	assert_int_equal(atomic_load(&shared.errors), 0);
	inl_dev_counters(shared.dev, &counters);
	assert_int_equal(counters.engine_units_encrypted + counters.fallback_units_encrypted,
			 N_THREADS * N_ROUNDS * (LEN / UNIT));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(inl_key_evict(shared.uses[i]), 0);
		inl_key_put(keys[i]);
	}
	inl_dev_close(shared.dev);
}

static void test_one_slot(void **state)
{
	run("engine(ram(1M), slots=1)");
}

static void test_two_slots(void **state)
{
	run("engine(ram(1M), slots=2)");
}

static void test_no_slots(void **state)
{
	run("engine(ram(1M), slots=0)");
}

static void test_fallback(void **state)
{
	run("ram(1M)");
}

/* Threads start a key, use it and evict it, on one slot, all the time. */
static void *come_and_go(void *arg)
{
	struct worker *worker = arg;
	struct inl_key *key = make_key((uint8_t)(worker->id * 40));
	uint8_t *buf = malloc(UNIT);

	for (unsigned round = 0; round < N_ROUNDS; round++) {
		struct inl_key_use *use;
		struct inl_crypt_ctx ctx = { .dun = { round } };

		if (inl_key_start(worker->shared->dev, key, &use)) {
			atomic_fetch_add(&worker->shared->errors, 1);
			continue;
		}
		ctx.use = use;
		if (inl_dev_read_keyed(worker->shared->dev, 0, buf, UNIT, &ctx))
			atomic_fetch_add(&worker->shared->errors, 1);
		if (inl_key_evict(use))
			atomic_fetch_add(&worker->shared->errors, 1);
	}
	free(buf);
	inl_key_put(key);
	return NULL;
}

static void test_evict_under_load(void **state)
{
	struct shared shared = { 0 };
	struct worker workers[N_THREADS];
	struct inl_counters counters;

	assert_int_equal(inl_dev_open("engine(ram(1M), slots=1)", 0, NULL, &shared.dev), 0);
	for (unsigned i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){ .shared = &shared, .id = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, come_and_go, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	assert_int_equal(atomic_load(&shared.errors), 0);
	inl_dev_counters(shared.dev, &counters);
	assert_int_equal(counters.keys_started, N_THREADS * N_ROUNDS);
	assert_int_equal(counters.keys_evicted, N_THREADS * N_ROUNDS);
	inl_dev_close(shared.dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_slot),
		cmocka_unit_test(test_two_slots),
		cmocka_unit_test(test_no_slots),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_evict_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
