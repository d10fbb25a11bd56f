/*
 * tests/unit/test_filekeys.c: the bounded cache of the keys of single files: right bytes, the limit, pins, full memory, threads.
 * Not here: which key a file has, and how it is derived (test_fscrypt.c).
 * Read more: fscrypt/cache.c.
 */
#include "crypto/kdf.h"
#include "fscrypt/info.h"
#include <errno.h>
#include <inlay/block.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK	4096
#define N_FILES 64 /* file i lies in block i */

struct env {
	struct inl_dev *dev;
	struct inl_keyring *ring;
	struct inl_fscrypt *fs;
	uint8_t context[40];
};

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static const uint8_t *master_key(void)
{
	static uint8_t key[64];

	for (int i = 0; i < 64; i++)
		key[i] = (uint8_t)(i + 1);
	return key;
}

static void fs_open(struct env *env, unsigned limit)
{
	struct inl_fscrypt_params params = { .dev = env->dev, .keys = env->ring, .traits = { 12, 32, 32, true } };

	params.max_file_keys = limit;
	assert_int_equal(inl_fscrypt_new(&params, &env->fs), 0);
}

static void env_open(struct env *env, const char *spec, unsigned limit)
{
	struct inl_key_spec name;

	memset(env, 0, sizeof(*env));
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &env->dev), 0);
	assert_int_equal(inl_keyring_new(&env->ring), 0);
	assert_int_equal(inl_keyring_add(env->ring, master_key(), 64, NULL), 0);
	assert_int_equal(inl_key_spec_derive(master_key(), 64, 2, &name), 0);
	memcpy(env->context, (uint8_t[]){ 2, INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS }, 3);
	memcpy(env->context + 8, name.bytes, 16);
	fs_open(env, limit);
}

/* Keys on the device. Started is read first: beside other threads the answer may be too low, never too high. */
static int64_t n_live(const struct env *env)
{
	struct inl_counters started, ended;

	inl_dev_counters(env->dev, &started);
	inl_dev_counters(env->dev, &ended);
	return (int64_t)(started.keys_started - ended.keys_evicted);
}

static uint64_t n_started(const struct env *env)
{
	struct inl_counters counters;

	inl_dev_counters(env->dev, &counters);
	return counters.keys_started;
}

static void env_close(struct env *env)
{
	inl_fscrypt_free(env->fs);
	assert_int_equal(n_live(env), 0);
	inl_keyring_free(env->ring);
	inl_dev_close(env->dev);
}

static void nonce_of(unsigned i, uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	memset(nonce, 0x5a, INL_FILE_NONCE_SIZE);
	memcpy(nonce, &i, sizeof(i));
}

static struct inl_crypt_info *info_new(const struct env *env, enum inl_crypt_kind kind, unsigned i)
{
	struct inl_crypt_info *info = NULL;
	uint8_t context[40];

	memcpy(context, env->context, sizeof(context));
	nonce_of(i, context + 24);
	if (inl_crypt_info_new(env->fs, 12 + i, kind, false, context, sizeof(context), &info))
		abort();
	return info;
}

static void infos_new(const struct env *env, enum inl_crypt_kind kind, struct inl_crypt_info *infos[N_FILES])
{
	for (unsigned i = 0; i < N_FILES; i++)
		infos[i] = info_new(env, kind, i);
}

static void infos_free(struct inl_crypt_info *infos[N_FILES])
{
	for (unsigned i = 0; i < N_FILES; i++)
		inl_crypt_info_free(infos[i]);
}

static void text_of(unsigned i, uint8_t text[BLOCK])
{
	for (unsigned k = 0; k < BLOCK; k++)
		text[k] = (uint8_t)(i * 37 + k * (i + 1) + (k >> 8));
}

static void write_all(struct env *env, struct inl_crypt_info *infos[N_FILES])
{
	struct inl_crypt_ctx ctx;
	uint8_t text[BLOCK];
	uint64_t n = 1;

	for (unsigned i = 0; i < N_FILES; i++) {
		text_of(i, text);
		assert_int_equal(inl_crypt_info_ctx(infos[i], 0, &n, &ctx, NULL), 0);
		assert_int_equal(inl_dev_write_keyed(env->dev, (uint64_t)i * BLOCK, text, BLOCK, &ctx), 0);
		inl_crypt_info_ctx_put(infos[i]);
	}
}

/* With a context that somebody holds. */
static bool reads_with(const struct env *env, const struct inl_crypt_ctx *ctx, unsigned i)
{
	uint8_t text[BLOCK], got[BLOCK];

	text_of(i, text);
	return inl_dev_read_keyed(env->dev, (uint64_t)i * BLOCK, got, BLOCK, ctx) == 0 && !memcmp(got, text, BLOCK);
}

static bool reads(const struct env *env, struct inl_crypt_info *info, unsigned i)
{
	struct inl_crypt_ctx ctx;
	uint64_t n = 1;
	bool ok;

	if (inl_crypt_info_ctx(info, 0, &n, &ctx, NULL))
		return false;
	ok = reads_with(env, &ctx, i);
	inl_crypt_info_ctx_put(info);
	return ok;
}

/* What HKDF makes of the master key for file i. */
static void derive(unsigned i, uint8_t key[64])
{
	uint8_t text[9 + INL_FILE_NONCE_SIZE] = "fscrypt";
	struct inl_hkdf *hkdf;

	text[8] = 2;
	nonce_of(i, text + 9);
	assert_int_equal(inl_hkdf_new(master_key(), 64, &hkdf), 0);
	assert_int_equal(inl_hkdf_expand(hkdf, text, sizeof(text), key, 64), 0);
	inl_hkdf_free(hkdf);
}

/* Take all secret memory but `room` bytes in a row. */
struct stuffing {
	void *pieces[8192];
	size_t n;
};

static void stuff(struct stuffing *stuffing, size_t room)
{
	void *hole = room ? inl_secret_alloc(room) : NULL;

	stuffing->n = 0;
	for (size_t len = 65536; len >= 64; len /= 4) {
		void *piece;

		while ((piece = inl_secret_alloc(len))) {
			assert_true(stuffing->n < sizeof(stuffing->pieces) / sizeof(void *));
			stuffing->pieces[stuffing->n++] = piece;
		}
	}
	inl_secret_free(hole);
}

static void unstuff(struct stuffing *stuffing)
{
	while (stuffing->n)
		inl_secret_free(stuffing->pieces[--stuffing->n]);
}

/* ---- the limit --------------------------------------------------------------------------------------------------- */

static void read_randomly(const char *spec, unsigned limit)
{
	struct inl_crypt_info *infos[N_FILES];
	unsigned seed = limit;
	struct env env;

	env_open(&env, spec, limit);
	infos_new(&env, INL_CRYPT_REG, infos);
	write_all(&env, infos);
	assert_int_equal(n_live(&env), limit < N_FILES ? limit : N_FILES);
	for (int round = 0; round < 1000; round++) {
		unsigned i = (unsigned)rand_r(&seed) % N_FILES;

		assert_true(reads(&env, infos[i], i));
		assert_true(n_live(&env) <= limit);
	}
	assert_int_equal(n_started(&env) > N_FILES, limit < N_FILES);
	infos_free(infos);
	assert_int_equal(n_live(&env), 0);
	env_close(&env);
}

static void test_more_files_than_keys(void **state)
{
	static const unsigned limits[] = { 1, 2, 3, 7, 63, 64, 512 };
	(void)state;

	for (size_t k = 0; k < sizeof(limits) / sizeof(limits[0]); k++) {
		read_randomly("ram(1M)", limits[k]);
		read_randomly("engine(ram(1M), slots=1)", limits[k]);
	}
}

/* Where no limit was asked for. */
static void test_default_limit(void **state)
{
	struct inl_crypt_info *infos[600];
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", 0);
	for (unsigned i = 0; i < 600; i++) {
		infos[i] = info_new(&env, INL_CRYPT_REG, i);
		assert_int_equal(inl_crypt_info_unlock(infos[i], NULL), 0);
	}
	assert_int_equal(n_live(&env), 512);
	for (unsigned i = 0; i < 600; i++)
		inl_crypt_info_free(infos[i]);
	env_close(&env);
}

/* What is used again and again stays, what is used once goes. */
static void test_second_chance(void **state)
{
	struct inl_crypt_info *infos[N_FILES];
	struct env env;
	uint64_t before;
	(void)state;

	env_open(&env, "ram(1M)", 3);
	infos_new(&env, INL_CRYPT_REG, infos);
	write_all(&env, infos);
	for (unsigned i = 0; i < 4; i++)
		assert_true(reads(&env, infos[i], i));
	for (unsigned i = 4; i < 20; i++) {
		before = n_started(&env);
		assert_true(reads(&env, infos[2], 2));
		assert_int_equal(n_started(&env), before);
		assert_true(reads(&env, infos[i], i));
		assert_int_equal(n_started(&env), before + 1);
	}
	infos_free(infos);
	env_close(&env);
}

/* Unlocked it stays, whether its key is there or not; names are those of an inode whose key never went. */
static void test_names(void **state)
{
	struct inl_crypt_info *dirs[N_FILES], *other[N_FILES];
	uint8_t stored[N_FILES][32], got[32], name[32];
	struct env env, roomy;
	unsigned seed = 5;
	size_t len;
	(void)state;

	env_open(&roomy, "ram(64K)", 512);
	env_open(&env, "ram(64K)", 1);
	infos_new(&roomy, INL_CRYPT_DIR, other);
	for (unsigned i = 0; i < N_FILES; i++) {
		dirs[i] = info_new(&env, i % 2 ? INL_CRYPT_LNK : INL_CRYPT_DIR, i);
		assert_int_equal(inl_fname_encrypt(dirs[i], "a name of some length", 21, 32, got), -ENOKEY);
		assert_int_equal(inl_crypt_info_unlock(dirs[i], NULL), 0);
		assert_int_equal(inl_crypt_info_unlock(other[i], NULL), 0);
		assert_int_equal(inl_fname_encrypt(other[i], "a name of some length", 21, 32, stored[i]), 0);
	}
	for (int round = 0; round < 500; round++) {
		unsigned i = (unsigned)rand_r(&seed) % N_FILES;

		assert_int_equal(inl_crypt_info_unlock(dirs[i], NULL), 0);
		assert_int_equal(inl_fname_encrypt(dirs[i], "a name of some length", 21, 32, got), 0);
		assert_memory_equal(got, stored[i], 32);
		i = (unsigned)rand_r(&seed) % N_FILES;
		assert_int_equal(inl_fname_decrypt(dirs[i], stored[i], 32, name, &len), 0);
		assert_int_equal(len, 21);
		assert_memory_equal(name, "a name of some length", 21);
	}
	infos_free(dirs);
	infos_free(other);
	env_close(&env);
	env_close(&roomy);
}

/* ---- pins -------------------------------------------------------------------------------------------------------- */

static void test_pins(void **state)
{
	struct inl_crypt_info *infos[N_FILES];
	struct inl_crypt_ctx ctx[10];
	struct env env;
	uint64_t n = 1;
	(void)state;

	env_open(&env, "engine(ram(1M), slots=1)", 2);
	infos_new(&env, INL_CRYPT_REG, infos);
	write_all(&env, infos);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(inl_crypt_info_ctx(infos[i], 0, &n, &ctx[i], NULL), 0);
		assert_true(n_live(&env) <= (i < 2 ? 2 : i + 1));
	}
	assert_int_equal(inl_crypt_info_ctx(infos[0], 0, &n, &ctx[0], NULL), 0); /* twice */
	for (unsigned i = 10; i < N_FILES; i++) {
		assert_true(reads(&env, infos[i], i));
		assert_int_equal(n_live(&env), 10); /* it went when it was put */
		assert_true(reads_with(&env, &ctx[i % 10], i % 10));
	}
	inl_crypt_info_ctx_put(infos[0]);
	assert_true(reads_with(&env, &ctx[0], 0)); /* still once */
	for (unsigned i = 0; i < 10; i++) {
		assert_true(reads_with(&env, &ctx[i], i));
		inl_crypt_info_ctx_put(infos[i]);
		assert_true(n_live(&env) <= (9 - i > 2 ? 9 - i : 2));
	}
	infos_free(infos);
	env_close(&env);
}

/* A bio that holds its file's key, and what is done when it is. */
struct held_read {
	struct inl_bio bio;
	struct iovec seg;
	struct inl_crypt_info **infos;
	uint8_t got[BLOCK];
	int wrong;
};

/* Evictions cannot be waited for here: keys come, and go later; one inode goes, and its key later. */
static void use_others(struct inl_bio *bio)
{
	struct held_read *held = bio->private_data;
	struct inl_crypt_ctx ctx;
	uint64_t n = 1;

	held->wrong += bio->status != 0;
	for (unsigned i = 10; i < 20; i++) {
		if (inl_crypt_info_ctx(held->infos[i], 0, &n, &ctx, NULL))
			held->wrong++;
		else
			inl_crypt_info_ctx_put(held->infos[i]);
	}
	inl_crypt_info_free(held->infos[12]);
	held->infos[12] = NULL;
	inl_crypt_info_ctx_put(held->infos[0]);
}

static void test_callback(void **state)
{
	struct inl_crypt_info *infos[N_FILES];
	struct inl_queue *queue;
	struct inl_crypt_ctx ctx;
	struct held_read held;
	uint8_t text[BLOCK];
	struct env env;
	uint64_t n = 1;
	(void)state;

	env_open(&env, "ram(1M)", 2);
	infos_new(&env, INL_CRYPT_REG, infos);
	write_all(&env, infos);
	held = (struct held_read){ .seg = { held.got, BLOCK }, .infos = infos };
	assert_int_equal(inl_queue_new(env.dev, 1, &queue), 0);
	assert_int_equal(inl_crypt_info_ctx(infos[0], 0, &n, &ctx, NULL), 0);
	inl_bio_init_keyed(&held.bio, INL_READ, 0, &held.seg, 1, &ctx);
	held.bio.done = use_others;
	held.bio.private_data = &held;
	assert_int_equal(inl_queue_submit(queue, &held.bio), 0);
	inl_queue_reap(queue, 1);
	assert_int_equal(held.wrong, 0);
	text_of(0, text);
	assert_memory_equal(held.got, text, BLOCK);
	assert_true(n_live(&env) > 2);
	assert_true(reads(&env, infos[30], 30)); /* here it may wait */
	assert_true(n_live(&env) <= 2);
	inl_queue_free(queue);
	infos_free(infos);
	env_close(&env);
}

static void free_in_callback(struct inl_bio *bio)
{
	struct held_read *held = bio->private_data;

	inl_crypt_info_ctx_put(held->infos[0]);
	inl_crypt_info_free(held->infos[0]);
}

/* The next key that is made takes the place, also where there is room; or nobody comes again. */
static void freed_in_callback(bool again)
{
	struct inl_crypt_info *info, *next;
	struct inl_queue *queue;
	struct inl_crypt_ctx ctx;
	struct held_read held;
	struct env env;
	uint64_t n = 1;

	env_open(&env, "ram(1M)", 2);
	info = info_new(&env, INL_CRYPT_REG, 0);
	held = (struct held_read){ .seg = { held.got, BLOCK }, .infos = &info };
	assert_int_equal(inl_queue_new(env.dev, 1, &queue), 0);
	assert_int_equal(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL), 0);
	inl_bio_init_keyed(&held.bio, INL_READ, 0, &held.seg, 1, &ctx);
	held.bio.done = free_in_callback;
	held.bio.private_data = &held;
	assert_int_equal(inl_queue_submit(queue, &held.bio), 0);
	inl_queue_reap(queue, 1);
	assert_int_equal(n_live(&env), 1);
	if (again) {
		next = info_new(&env, INL_CRYPT_REG, 1);
		assert_int_equal(inl_crypt_info_unlock(next, NULL), 0);
		assert_int_equal(n_live(&env), 1);
		inl_crypt_info_free(next);
		assert_int_equal(n_live(&env), 0);
	}
	inl_queue_free(queue);
	env_close(&env);
}

static void test_freed_in_callback(void **state)
{
	(void)state;
	freed_in_callback(false);
	freed_in_callback(true);
}

/* ---- secret memory ----------------------------------------------------------------------------------------------- */

static void test_memory_full(void **state)
{
	struct inl_crypt_info *infos[N_FILES], *dir;
	static struct stuffing stuffing;
	struct inl_diag diag = { 0 };
	struct inl_crypt_ctx ctx[16], more;
	struct env env;
	uint64_t n = 1;
	(void)state;

	env_open(&env, "ram(1M)", 0);
	infos_new(&env, INL_CRYPT_REG, infos);
	write_all(&env, infos);
	infos_free(infos);
	infos_new(&env, INL_CRYPT_REG, infos);
	dir = info_new(&env, INL_CRYPT_DIR, 1);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(inl_crypt_info_unlock(infos[i], NULL), 0);
	stuff(&stuffing, 0);
	for (unsigned i = 0; i < N_FILES; i++) {
		assert_true(reads(&env, infos[i], i));
		assert_int_equal(inl_crypt_info_unlock(dir, &diag), 0);
		assert_int_equal(diag.err, 0);
	}
	assert_true(n_live(&env) <= 8);
	assert_true(n_live(&env) >= 1);

	/* All that there is room for are in use. */
	for (unsigned i = 0; i < 16; i++) {
		int err = inl_crypt_info_ctx(infos[i], 0, &n, &ctx[i], &diag);

		if (!err)
			continue;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(diag.err, -ENOMEM);
		assert_true(i >= 1);
		for (unsigned k = 0; k < i; k++)
			assert_true(reads_with(&env, &ctx[k], k));
		inl_crypt_info_ctx_put(infos[--i]);
		assert_int_equal(inl_crypt_info_ctx(infos[40], 0, &n, &more, NULL), 0);
		inl_crypt_info_ctx_put(infos[40]);
		while (i)
			inl_crypt_info_ctx_put(infos[--i]);
		break;
	}
	assert_int_equal(diag.err, -ENOMEM);
	unstuff(&stuffing);
	inl_crypt_info_free(dir);
	infos_free(infos);
	env_close(&env);
}

/* Secret memory with nothing in it, where the next keys will lie. */
#define PROBE_LEN 2048

static bool holds(const uint8_t *probe, unsigned i)
{
	uint8_t key[64];

	derive(i, key);
	return memmem(probe, PROBE_LEN, key, 32) || memmem(probe, PROBE_LEN, key + 32, 32);
}

static void test_wiped(void **state)
{
	static const uint8_t zeros[PROBE_LEN];
	struct inl_crypt_info *file[2], *dir;
	uint8_t *probe;
	struct env env;
	(void)state;

	env_open(&env, "ram(1M)", 1);
	file[0] = info_new(&env, INL_CRYPT_REG, 0);
	file[1] = info_new(&env, INL_CRYPT_REG, 1);
	dir = info_new(&env, INL_CRYPT_DIR, 2);
	probe = inl_secret_alloc(PROBE_LEN);
	inl_secret_free(probe);
	assert_int_equal(inl_crypt_info_unlock(file[0], NULL), 0);
	assert_true(holds(probe, 0));
	assert_int_equal(inl_crypt_info_unlock(file[1], NULL), 0);
	assert_false(holds(probe, 0));
	assert_true(holds(probe, 1));
	assert_int_equal(inl_crypt_info_unlock(dir, NULL), 0);
	assert_false(holds(probe, 1));
	inl_crypt_info_free(dir);
	assert_memory_equal(probe, zeros, PROBE_LEN);
	inl_crypt_info_free(file[0]);
	inl_crypt_info_free(file[1]);
	env_close(&env);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

enum { N_THREADS = 8 };

struct crowd {
	struct env env;
	struct inl_crypt_info *files[N_FILES], *dirs[N_FILES];
	uint8_t stored[N_FILES][16];
	unsigned bound; /* of live keys */
	atomic_int wrong;
};

static bool names_right(struct crowd *crowd, unsigned i)
{
	uint8_t got[16];

	return inl_fname_encrypt(crowd->dirs[i], "name", 4, 16, got) == 0 && !memcmp(got, crowd->stored[i], 16);
}

/* Reads files and names that all have, and now and then a file of its own, which comes and goes. */
static void *crowd_thread(void *arg)
{
	struct crowd *crowd = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (int round = 0; round < 1500; round++) {
		unsigned i = (unsigned)rand_r(&seed) % N_FILES;
		struct inl_crypt_info *own;

		crowd->wrong += !reads(&crowd->env, crowd->files[i], i);
		crowd->wrong += n_live(&crowd->env) > crowd->bound;
		if (round % 4 == 0)
			crowd->wrong += !names_right(crowd, (unsigned)rand_r(&seed) % N_FILES);
		if (round % 8)
			continue;
		own = info_new(&crowd->env, INL_CRYPT_REG, i);
		crowd->wrong += !reads(&crowd->env, own, i);
		inl_crypt_info_free(own);
	}
	return NULL;
}

static void crowd_init(struct crowd *crowd, const char *spec, unsigned limit)
{
	env_open(&crowd->env, spec, limit);
	infos_new(&crowd->env, INL_CRYPT_REG, crowd->files);
	infos_new(&crowd->env, INL_CRYPT_DIR, crowd->dirs);
	write_all(&crowd->env, crowd->files);
	for (unsigned i = 0; i < N_FILES; i++) {
		assert_int_equal(inl_crypt_info_unlock(crowd->dirs[i], NULL), 0);
		assert_int_equal(inl_fname_encrypt(crowd->dirs[i], "name", 4, 16, crowd->stored[i]), 0);
	}
}

static void crowd_run(struct crowd *crowd, unsigned n_threads)
{
	pthread_t threads[N_THREADS];

	for (unsigned i = 0; i < n_threads; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_thread, crowd), 0);
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crowd->wrong, 0);
}

static void crowd_done(struct crowd *crowd)
{
	infos_free(crowd->files);
	infos_free(crowd->dirs);
	env_close(&crowd->env);
}

/* Each thread pins one at most, so there are never more than the limit and one for each. */
static void test_threads(void **state)
{
	static const char *const specs[] = { "ram(1M)", "engine(ram(1M), slots=1)" };
	static const unsigned limits[] = { 4, 1, 60 };
	static struct crowd crowd;
	(void)state;

	for (unsigned k = 0; k < 6; k++) {
		unsigned limit = limits[k / 2];

		crowd_init(&crowd, specs[k % 2], limit);
		crowd.bound = limit + N_THREADS;
		crowd_run(&crowd, N_THREADS);
		assert_true(n_live(&crowd.env) <= limit);
		crowd_done(&crowd);
	}
}

/*
 * Secret memory has room for a dozen keys, no limit asks for less. With four threads three keys can be in the way of a
 * fourth, and however they lie there is room for it: nobody may be refused.
 */
static void test_threads_in_little_memory(void **state)
{
	static struct stuffing stuffing;
	static struct crowd crowd;
	(void)state;

	crowd_init(&crowd, "ram(1M)", 0);
	crowd.bound = 512;
	infos_free(crowd.files);
	infos_free(crowd.dirs);
	infos_new(&crowd.env, INL_CRYPT_REG, crowd.files);
	infos_new(&crowd.env, INL_CRYPT_DIR, crowd.dirs);
	stuff(&stuffing, 8192);
	for (unsigned i = 0; i < N_FILES; i++)
		assert_int_equal(inl_crypt_info_unlock(crowd.dirs[i], NULL), 0);
	crowd_run(&crowd, 4);
	unstuff(&stuffing);
	crowd_done(&crowd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_more_files_than_keys),
		cmocka_unit_test(test_default_limit),
		cmocka_unit_test(test_second_chance),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_pins),
		cmocka_unit_test(test_callback),
		cmocka_unit_test(test_freed_in_callback),
		cmocka_unit_test(test_memory_full),
		cmocka_unit_test(test_wiped),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_threads_in_little_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
