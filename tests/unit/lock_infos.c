/*
 * tests/unit/lock_infos.c: inodes without a volume whose key goes: held or not, shared keys, slots, callbacks, threads.
 * Not here: volumes (test_lock.c).
 * Read more: fscrypt/evict.c.
 */
#include "fscrypt/keyring.h"
#include "fscrypt/private.h"
#include "lock.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* Files and directories, of which every third is held, under a cache of whatever size; taken away, given back, released. */
static void lock_many(const char *spec, unsigned limit, uint8_t flags)
{
	struct inl_crypt_info *file[N_FILES], *dir[N_FILES];
	unsigned n_held = 0;
	struct env env;

	env_open(&env, spec, limit, flags);
	for (unsigned i = 0; i < N_FILES; i++) {
		file[i] = info_new(&env, INL_CRYPT_REG, i);
		dir[i] = info_new(&env, i % 2 ? INL_CRYPT_DIR : INL_CRYPT_LNK, 1000 + i);
		assert_int_equal(transfer(&env, file[i], i, true), 0);
		assert_int_equal(inl_crypt_info_unlock(dir[i], NULL), 0);
	}
	for (unsigned i = 0; i < N_FILES; i += 3, n_held += 2) {
		assert_int_equal(inl_crypt_info_hold(file[i], NULL), 0);
		assert_int_equal(inl_crypt_info_hold(file[i], NULL), 0); /* twice */
		assert_int_equal(inl_crypt_info_hold(dir[i], NULL), 0);
		inl_crypt_info_release(file[i]);
	}
	for (unsigned round = 0; round < 3; round++) {
		take_away(&env);
		for (unsigned i = 0; i < N_FILES; i++) { /* marked */
			int want = i % 3 ? -ENOKEY : 0;

			assert_int_equal(name_works(dir[i]), want);
			assert_int_equal(inl_crypt_info_hold(file[i], NULL), want);
			if (!want)
				inl_crypt_info_release(file[i]);
			assert_int_equal(transfer(&env, file[i], i, round == 1), 0);
		}
		for (unsigned again = 0; again <= round; again++)
			assert_int_equal(evict(env.ring, &env.spec), n_held);
		assert_int_equal(state_of(&env), INL_KEY_INCOMPLETELY_REMOVED);
		assert_int_equal(status_of(env.ring, &env.spec, 1).n_busy, n_held);
		assert_int_equal(n_live(&env), flags ? 1 : n_held / 2);
		for (unsigned i = 0; i < N_FILES; i++) {
			int want = i % 3 ? -ENOKEY : 0;

			assert_int_equal(transfer(&env, file[i], i, false), want);
			assert_int_equal(transfer(&env, file[i], i, true), want);
			assert_int_equal(inl_crypt_info_unlock(file[i], NULL), want);
			assert_int_equal(inl_crypt_info_unlock(dir[i], NULL), want);
			assert_int_equal(name_works(dir[i]), want);
			assert_int_equal(inl_crypt_info_hold(dir[i], NULL), want);
			if (!want)
				inl_crypt_info_release(dir[i]);
		}
		if (round == 2)
			break;
		assert_int_equal(inl_keyring_claim(env.ring, master, 64, 1, NULL), 0);
		for (unsigned i = 0; i < N_FILES; i++) {
			assert_int_equal(transfer(&env, file[i], i, false), 0);
			assert_int_equal(inl_crypt_info_unlock(dir[i], NULL), 0);
			assert_int_equal(name_works(dir[i]), 0);
		}
		assert_true(flags || n_live(&env) <= (limit > n_held / 2 ? limit : n_held / 2 + limit));
	}
	for (unsigned i = 0; i < N_FILES; i += 3, n_held -= 2) {
		assert_int_equal(status_of(env.ring, &env.spec, 1).n_busy, n_held);
		inl_crypt_info_release(dir[i]);
		assert_int_equal(name_works(dir[i]), -ENOKEY);
		assert_int_equal(transfer(&env, file[i], i, false), 0);
		inl_crypt_info_release(file[i]);
		assert_int_equal(transfer(&env, file[i], i, false), -ENOKEY);
	}
	assert_int_equal(n_live(&env), 0);
	assert_int_equal(state_of(&env), INL_KEY_ABSENT);
	assert_int_equal(inl_keyring_claim(env.ring, master, 64, 1, NULL), 0);
	for (unsigned i = 0; i < N_FILES; i++) {
		assert_int_equal(transfer(&env, file[i], i, false), 0);
		inl_crypt_info_free(file[i]);
		inl_crypt_info_free(dir[i]);
	}
	env_close(&env);
}

void lock_many_files(void **state)
{
	static const unsigned limits[] = { 1, 2, 7, 60, 512 };
	(void)state;

	for (unsigned i = 0; i < COUNT(limits); i++) {
		lock_many("ram(1M)", limits[i], 0);
		lock_many("engine(ram(1M), slots=2)", limits[i], 0);
	}
}

void lock_shared(void **state)
{
	(void)state;
	lock_many("ram(1M)", 8, INL_POLICY_FLAG_IV_INO_LBLK_64);
	lock_many("ram(1M)", 8, INL_POLICY_FLAG_IV_INO_LBLK_32);
	lock_many("engine(ram(1M), slots=1)", 8, INL_POLICY_FLAG_IV_INO_LBLK_64);
	lock_many("engine(ram(1M), slots=1)", 8, INL_POLICY_FLAG_IV_INO_LBLK_32);
}

/* What was in a slot is cleared there, and only that. */
void lock_slots(void **state)
{
	struct inl_crypt_info *file[4];
	struct inl_counters before, after;
	struct env env;
	(void)state;

	env_open(&env, "engine(ram(1M), slots=8)", 0, 0);
	for (unsigned i = 0; i < 4; i++) {
		file[i] = info_new(&env, INL_CRYPT_REG, i);
		assert_int_equal(transfer(&env, file[i], i, true), 0);
	}
	assert_int_equal(inl_crypt_info_hold(file[3], NULL), 0);
	take_away(&env);
	inl_dev_counters(env.dev, &before);
	assert_int_equal(evict(env.ring, &env.spec), 1);
	inl_dev_counters(env.dev, &after);
	assert_int_equal(after.slot_evictions - before.slot_evictions, 3);
	assert_int_equal(after.keys_evicted - before.keys_evicted, 3);
	assert_int_equal(transfer(&env, file[3], 3, false), 0);
	inl_dev_counters(env.dev, &before);
	assert_int_equal(before.slot_programs, after.slot_programs); /* is in its slot still */
	inl_crypt_info_release(file[3]);
	inl_dev_counters(env.dev, &after);
	assert_int_equal(after.slot_evictions - before.slot_evictions, 1);
	for (unsigned i = 0; i < 4; i++)
		inl_crypt_info_free(file[i]);
	env_close(&env);
}

/* Two file systems have one ring. */
void lock_two_volumes(void **state)
{
	struct inl_crypt_info *file[2];
	struct env a, b;
	(void)state;

	env_open(&a, "ram(1M)", 0, INL_POLICY_FLAG_IV_INO_LBLK_64);
	b = a;
	assert_int_equal(inl_fscrypt_new(&a.fs->params, &b.fs), 0);
	file[0] = info_new(&a, INL_CRYPT_REG, 0);
	file[1] = info_new(&b, INL_CRYPT_REG, 1);
	assert_int_equal(transfer(&a, file[0], 0, true), 0);
	assert_int_equal(inl_crypt_info_hold(file[1], NULL), 0);
	take_away(&a);
	assert_int_equal(evict(a.ring, &a.spec), 1);
	assert_int_equal(transfer(&a, file[0], 0, false), -ENOKEY);
	assert_int_equal(transfer(&b, file[1], 1, true), 0);
	inl_crypt_info_free(file[0]);
	inl_crypt_info_release(file[1]);
	assert_int_equal(state_of(&a), INL_KEY_ABSENT);
	inl_crypt_info_free(file[1]);
	inl_fscrypt_free(b.fs);
	env_close(&a);
}

void lock_version_1(void **state)
{
	struct inl_crypt_info *file, *other;
	struct env env;
	bool last;
	(void)state;

	env_open(&env, "ram(1M)", 0, 0);
	env.version = 1;
	assert_int_equal(inl_key_spec_derive(master, 64, 1, &env.spec), 0);
	file = info_new(&env, INL_CRYPT_REG, 0);
	other = info_new(&env, INL_CRYPT_REG, 1);
	assert_int_equal(transfer(&env, file, 0, true), 0);
	assert_int_equal(transfer(&env, other, 1, true), 0);
	assert_int_equal(inl_crypt_info_hold(file, NULL), 0);
	assert_int_equal(inl_keyring_unclaim(env.ring, &env.spec, 9, false, &last), 0);
	assert_int_equal(evict(env.ring, &env.spec), 1);
	assert_int_equal(transfer(&env, file, 0, false), 0);
	assert_int_equal(transfer(&env, other, 1, false), -ENOKEY);
	inl_crypt_info_release(file);
	assert_int_equal(transfer(&env, file, 0, false), -ENOKEY);
	inl_crypt_info_free(file);
	inl_crypt_info_free(other);
	env_close(&env);
}

/* Where secret memory has no room for the keys of all that are held, the master key stays until the last one goes. */
void lock_memory_full(void **state)
{
	struct inl_crypt_info *file[N_FILES];
	static void *pieces[8192];
	unsigned n = 0;
	struct env env;
	(void)state;

	env_open(&env, "ram(1M)", 4, 0);
	for (unsigned i = 0; i < N_FILES; i++) {
		file[i] = info_new(&env, INL_CRYPT_REG, i);
		assert_int_equal(transfer(&env, file[i], i, true), 0);
		assert_int_equal(inl_crypt_info_hold(file[i], NULL), 0);
	}
	for (size_t len = 65536; len >= 64; len /= 4)
		while (n < COUNT(pieces) && (pieces[n] = inl_secret_alloc(len)))
			n++;
	take_away(&env);
	assert_int_equal(evict(env.ring, &env.spec), N_FILES);
	for (unsigned i = 0; i < N_FILES; i++) {
		int err = transfer(&env, file[i], i, false);

		assert_true(err == 0 || err == -ENOMEM);
	}
	while (n)
		inl_secret_free(pieces[--n]);
	for (unsigned i = 0; i < N_FILES; i++)
		assert_int_equal(transfer(&env, file[i], i, false), 0);
	assert_int_equal(evict(env.ring, &env.spec), N_FILES); /* now it can be wiped */
	pthread_mutex_lock(&env.ring->lock);
	assert_null(env.ring->first->secret);
	assert_null(env.ring->first->hkdf);
	pthread_mutex_unlock(&env.ring->lock);
	for (unsigned i = 0; i < N_FILES; i++) {
		assert_int_equal(transfer(&env, file[i], i, false), 0);
		inl_crypt_info_release(file[i]);
	}
	assert_int_equal(state_of(&env), INL_KEY_ABSENT);
	for (unsigned i = 0; i < N_FILES; i++)
		inl_crypt_info_free(file[i]);
	env_close(&env);
}

/* ---- what others wait for ---------------------------------------------------------------------------------------- */

struct waiter {
	struct env *env;
	struct inl_crypt_info *info;
	atomic_bool done;
	unsigned n_busy;
	int err;
};

static void *evict_thread(void *arg)
{
	struct waiter *w = arg;

	w->err = inl_keyring_evict(w->env->ring, &w->env->spec, &w->n_busy);
	w->done = true;
	return NULL;
}

static void *hold_thread(void *arg)
{
	struct waiter *w = arg;

	w->err = inl_crypt_info_hold(w->info, NULL);
	w->done = true;
	return NULL;
}

static void start(pthread_t *thread, void *(*function)(void *), struct waiter *w)
{
	assert_int_equal(pthread_create(thread, NULL, function, w), 0);
	usleep(20000);
	assert_false(w->done);
}

static void see_done(pthread_t thread, struct waiter *w)
{
	pthread_join(thread, NULL);
	assert_int_equal(w->err, 0);
	assert_int_equal(w->n_busy, 0);
}

static void mark_done(struct inl_bio *bio)
{
	*(bool *)bio->private_data = true;
}

/* One eviction waits for a read, and another one for the first. */
void lock_two_evictions(void **state)
{
	struct waiter w[2] = { 0 };
	struct inl_queue *queue;
	struct inl_crypt_ctx ctx;
	struct inl_bio bio;
	uint8_t got[BLOCK];
	struct iovec seg = { got, BLOCK };
	pthread_t threads[2];
	bool read = false;
	struct env env;
	uint64_t n = 1;
	(void)state;

	env_open(&env, "ram(1M)", 0, 0);
	w[0].env = w[1].env = &env;
	w[0].info = info_new(&env, INL_CRYPT_REG, 0);
	assert_int_equal(transfer(&env, w[0].info, 0, true), 0);
	assert_int_equal(inl_queue_new(env.dev, 1, &queue), 0);
	assert_int_equal(inl_crypt_info_ctx(w[0].info, 0, &n, &ctx, NULL), 0);
	inl_bio_init_keyed(&bio, INL_READ, 0, &seg, 1, &ctx);
	bio.done = mark_done;
	bio.private_data = &read;
	inl_queue_plug(queue);
	assert_int_equal(inl_queue_submit(queue, &bio), 0);
	take_away(&env);
	for (unsigned i = 0; i < 2; i++)
		start(&threads[i], evict_thread, &w[i]);
	assert_false(w[0].done);
	assert_int_equal(transfer(&env, w[0].info, 0, false), -ENOKEY);
	inl_queue_reap(queue, 1);
	for (unsigned i = 0; i < 2; i++)
		see_done(threads[i], &w[i]);
	assert_true(read);
	assert_int_equal(bio.status, 0);
	inl_crypt_info_ctx_put(w[0].info);
	inl_queue_free(queue);
	inl_crypt_info_free(w[0].info);
	env_close(&env);
}

/* An eviction waits for a name that is being decrypted; whoever comes when the key is back waits for the eviction. */
void lock_name_in_use(void **state)
{
	struct waiter evicts = { 0 }, holds = { 0 };
	pthread_t threads[2];
	struct env env;
	(void)state;

	env_open(&env, "ram(1M)", 0, 0);
	evicts.env = &env;
	evicts.info = holds.info = info_new(&env, INL_CRYPT_DIR, 0);
	assert_int_equal(inl_crypt_info_unlock(holds.info, NULL), 0);
	assert_int_equal(inl_crypt_info_pin(holds.info, NULL), 0);
	take_away(&env);
	start(&threads[0], evict_thread, &evicts);
	assert_int_equal(inl_keyring_claim(env.ring, master, 64, 1, NULL), 0);
	start(&threads[1], hold_thread, &holds);
	assert_false(evicts.done);
	inl_crypt_info_unpin(holds.info);
	for (unsigned i = 0; i < 2; i++)
		see_done(threads[i], i ? &holds : &evicts);
	assert_int_equal(name_works(holds.info), 0);
	inl_crypt_info_release(holds.info);
	assert_int_equal(name_works(holds.info), 0);
	inl_crypt_info_free(holds.info);
	env_close(&env);
}

/* ---- in callbacks ------------------------------------------------------------------------------------------------ */

struct held_read {
	struct inl_bio bio;
	struct iovec seg;
	struct env *env;
	struct inl_crypt_info *info;
	uint8_t got[BLOCK];
	int evicted;
	bool done;
};

static void free_in_callback(struct inl_bio *bio)
{
	struct held_read *held = bio->private_data;
	unsigned n_busy;

	held->evicted = inl_keyring_evict(held->env->ring, &held->env->spec, &n_busy);
	inl_crypt_info_ctx_put(held->info);
	inl_crypt_info_release(held->info);
	inl_crypt_info_free(held->info);
	held->done = true;
}

/* A read under way, whose file goes when it is done: while the key is evicted, by this thread, or before. */
static void evict_around_callback(bool reap_first, uint8_t flags)
{
	struct inl_queue *queue;
	struct inl_crypt_ctx ctx;
	struct held_read held;
	struct env env;
	uint64_t n = 1;

	env_open(&env, "ram(1M)", 0, flags);
	held = (struct held_read){ .seg = { held.got, BLOCK }, .env = &env, .info = info_new(&env, INL_CRYPT_REG, 0) };
	assert_int_equal(inl_queue_new(env.dev, 1, &queue), 0);
	assert_int_equal(transfer(&env, held.info, 0, true), 0);
	if (reap_first)
		assert_int_equal(inl_crypt_info_hold(held.info, NULL), 0);
	assert_int_equal(inl_crypt_info_ctx(held.info, 0, &n, &ctx, NULL), 0);
	inl_bio_init_keyed(&held.bio, INL_READ, 0, &held.seg, 1, &ctx);
	held.bio.done = free_in_callback;
	held.bio.private_data = &held;
	inl_queue_plug(queue);
	assert_int_equal(inl_queue_submit(queue, &held.bio), 0);
	take_away(&env);
	if (reap_first) {
		assert_int_equal(evict(env.ring, &env.spec), 1);
		inl_queue_reap(queue, 1);
		assert_true(held.done);
	}
	assert_int_equal(evict(env.ring, &env.spec), 0);
	inl_queue_reap(queue, 1);
	assert_true(held.done);
	assert_int_equal(held.evicted, -EDEADLK);
	assert_int_equal(held.bio.status, 0);
	assert_int_equal(n_live(&env), 0);
	assert_int_equal(state_of(&env), INL_KEY_ABSENT);
	inl_queue_free(queue);
	env_close(&env);
}

void lock_callback(void **state)
{
	(void)state;
	evict_around_callback(false, 0);
	evict_around_callback(true, 0);
	evict_around_callback(false, INL_POLICY_FLAG_IV_INO_LBLK_64);
	evict_around_callback(true, INL_POLICY_FLAG_IV_INO_LBLK_64);
}

/* ---- races ------------------------------------------------------------------------------------------------------- */

/* Few keys are ready at a time, of inodes that all use, and of some that come and go. */
enum { N_WORKERS = 4, N_INFOS = 16 };

struct info_race {
	struct env env;
	struct inl_crypt_info *file[N_INFOS], *dir[N_INFOS];
	atomic_uint n_ops, n_done, n_refused, wrong;
	atomic_bool stop;
};

static bool allowed(struct info_race *race, int err)
{
	race->n_ops++;
	race->n_done += !err;
	race->wrong += err && err != -ENOKEY;
	if (err) {
		race->n_refused++;
		usleep(20);
	}
	return !err;
}

/* Held, nothing is refused. */
static void use_held(struct info_race *race, unsigned i, bool is_file)
{
	struct inl_crypt_info *info = is_file ? race->file[i] : race->dir[i];

	if (!allowed(race, inl_crypt_info_hold(info, NULL)))
		return;
	for (unsigned k = 0; k < 2; k++) {
		race->wrong += (is_file ? transfer(&race->env, info, i, false) : name_works(info)) != 0;
		race->wrong += inl_crypt_info_unlock(info, NULL) != 0;
	}
	inl_crypt_info_release(info);
}

/* A file system that comes and goes while its keys may be on their way out. */
static void use_own_fs(struct info_race *race, unsigned i)
{
	struct inl_crypt_info *file, *dir;
	struct env own = race->env;

	race->wrong += inl_fscrypt_new(&race->env.fs->params, &own.fs) != 0;
	file = info_new(&own, INL_CRYPT_REG, i);
	dir = info_new(&own, INL_CRYPT_DIR, 2000 + i);
	allowed(race, transfer(&own, file, i, false));
	allowed(race, inl_crypt_info_unlock(dir, NULL));
	inl_crypt_info_free(file);
	inl_crypt_info_free(dir);
	inl_fscrypt_free(own.fs);
}

static void *info_worker(void *arg)
{
	struct info_race *race = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	while (!race->stop) {
		unsigned i = (unsigned)rand_r(&seed) % N_INFOS;
		struct inl_crypt_info *own;

		if (i % 4 == 0) /* there may be fewer CPUs than threads: let others have their turn */
			usleep(1);
		switch (rand_r(&seed) % 8) {
		case 0:
			use_held(race, i, true);
			break;
		case 1:
			use_held(race, i, false);
			break;
		case 2:
			own = info_new(&race->env, INL_CRYPT_REG, i);
			allowed(race, transfer(&race->env, own, i, false));
			inl_crypt_info_free(own);
			break;
		case 3:
			own = info_new(&race->env, INL_CRYPT_LNK, 3000 + i);
			if (allowed(race, inl_crypt_info_unlock(own, NULL)))
				allowed(race, name_works(own));
			inl_crypt_info_free(own);
			break;
		case 4:
			use_own_fs(race, i);
			break;
		case 5:
			if (allowed(race, inl_crypt_info_unlock(race->dir[i], NULL)))
				allowed(race, name_works(race->dir[i]));
			break;
		default:
			allowed(race, transfer(&race->env, race->file[i], i, false));
		}
	}
	return NULL;
}

static void *info_evictor(void *arg)
{
	struct info_race *race = arg;
	unsigned n_busy;

	while (!race->stop) {
		race->wrong += inl_keyring_evict(race->env.ring, &race->env.spec, &n_busy) != 0;
		usleep(50);
	}
	return NULL;
}

static void info_race_run(const char *spec, unsigned limit, uint8_t flags)
{
	pthread_t threads[N_WORKERS + 1];
	struct info_race race = { 0 };
	unsigned rounds = 0;
	bool last;

	env_open(&race.env, spec, limit, flags);
	for (unsigned i = 0; i < N_INFOS; i++) {
		race.file[i] = info_new(&race.env, INL_CRYPT_REG, i);
		race.dir[i] = info_new(&race.env, INL_CRYPT_DIR, 1000 + i);
		assert_int_equal(transfer(&race.env, race.file[i], i, true), 0);
	}
	for (unsigned i = 0; i <= N_WORKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i ? info_worker : info_evictor, &race), 0);
	for (; (race.n_ops < n_races || race.n_done < n_races / 4 || rounds < n_races / 50) && !race.wrong; rounds++) {
		race.wrong += inl_keyring_unclaim(race.env.ring, &race.env.spec, 1, false, &last) != 0;
		if (rounds % 3)
			race.wrong += inl_keyring_evict(race.env.ring, &race.env.spec, &(unsigned){ 0 }) != 0;
		race.wrong += inl_keyring_claim(race.env.ring, master, 64, 1, NULL) != 0;
		race.wrong += transfer(&race.env, race.file[rounds % N_INFOS], rounds % N_INFOS, false) == -EBADMSG;
		usleep((unsigned)rand() % 300);
	}
	race.stop = true;
	for (unsigned i = 0; i <= N_WORKERS; i++)
		pthread_join(threads[i], NULL);
	print_message("%u locks, %u done, %u refused\n", rounds, race.n_done, race.n_refused);
	assert_int_equal(race.wrong, 0);
	take_away(&race.env);
	assert_int_equal(evict(race.env.ring, &race.env.spec), 0);
	assert_int_equal(n_live(&race.env), 0);
	assert_int_equal(state_of(&race.env), INL_KEY_ABSENT);
	for (unsigned i = 0; i < N_INFOS; i++) {
		assert_int_equal(transfer(&race.env, race.file[i], i, false), -ENOKEY);
		inl_crypt_info_free(race.file[i]);
		inl_crypt_info_free(race.dir[i]);
	}
	env_close(&race.env);
}

void lock_info_races(void **state)
{
	(void)state;
	info_race_run("ram(1M)", 2, 0);
	info_race_run("engine(ram(1M), slots=1)", 3, 0);
	info_race_run("ram(1M)", 512, 0);
	info_race_run("engine(ram(1M), slots=1)", 3, INL_POLICY_FLAG_IV_INO_LBLK_64);
}
