/*
 * tests/unit/lock_rest.c: what is left of keys in the memory of the process.
 * Not here: which keys go (lock_infos.c).
 * Read more: tests/unit/test_lock.c.
 */
#include "crypto/kdf.h"
#include "lock.h"
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>

/* ---- what is left ------------------------------------------------------------------------------------------------ */

/* Something to look for that is not there itself: 16 bytes, each xored. */
struct needle {
	volatile uint8_t pad[16], xored[16];
};

struct needles {
	struct needle list[64];
	unsigned n;
	bool begins[256]; /* one of them, with this byte */
};

static void hide(struct needle *needle, const uint8_t *bytes, bool swapped)
{
	uint8_t pad[16];

	assert_int_equal(getrandom(pad, sizeof(pad), 0), sizeof(pad));
	for (unsigned i = 0; i < 16; i++) {
		needle->pad[i] = pad[i];
		needle->xored[i] = bytes[swapped ? i ^ 7 : i] ^ pad[i];
	}
}

/* As they are, and as words of the other byte order, which is how hashes load them. */
static void hide_all(struct needles *needles, const uint8_t *bytes, size_t len)
{
	for (size_t at = 0; at + 16 <= len; at += 16) {
		needles->begins[bytes[at]] = needles->begins[bytes[at + 7]] = true;
		hide(&needles->list[needles->n++], bytes + at, false);
		hide(&needles->list[needles->n++], bytes + at, true);
	}
}

static bool is_needle(const struct needle *needle, const uint8_t *at)
{
	for (unsigned i = 0; i < 16; i++)
		if ((uint8_t)(at[i] ^ needle->pad[i]) != needle->xored[i])
			return false;
	return true;
}

static unsigned look(const struct needles *needles, const uint8_t *from, const uint8_t *to)
{
	unsigned found = 0;

	for (const uint8_t *at = from; at + 16 <= to; at++)
		for (unsigned i = 0; needles->begins[*at] && i < needles->n; i++)
			found += is_needle(&needles->list[i], at);
	return found;
}

/* In all memory of the process: it is read where it is, since hidden memory cannot be read in another way. */
static unsigned look_everywhere(const struct needles *needles)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	unsigned found = 0;
	char line[300], mode[5];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && mode[0] == 'r' && mode[1] == 'w' && !strstr(line, "[v"))
			found += look(needles, (const uint8_t *)from, (const uint8_t *)to);
	fclose(maps);
	return found;
}

static void derive(const uint8_t *key, const struct env *env, unsigned i, struct needles *needles)
{
	uint8_t text[25] = "fscrypt", file_key[64];
	struct inl_hkdf *hkdf;

	text[8] = 2;
	memcpy(text + 9, &i, sizeof(i));
	assert_int_equal(inl_hkdf_new(key, 64, &hkdf), 0);
	assert_int_equal(inl_hkdf_expand(hkdf, text, sizeof(text), file_key, 64), 0);
	inl_hkdf_free(hkdf);
	hide_all(needles, file_key, 64);
	inl_wipe(file_key, sizeof(file_key));
}

static void unclaim_all(struct env *env)
{
	bool last;

	assert_int_equal(inl_keyring_unclaim(env->ring, &env->spec, 0, true, &last), 0);
}

/* What is done in a thread of its own, which does nothing else: what is on its stack stays there. */
struct rest {
	struct env env;
	struct needles of_master, of_files;
	struct inl_crypt_info *file[2], *dir;
	pthread_barrier_t done, looked; /* by each thread, and this one */
};

static void park(struct rest *rest)
{
	pthread_barrier_wait(&rest->done);
	pthread_barrier_wait(&rest->looked);
}

static void *claim_thread(void *arg)
{
	struct rest *rest = arg;
	struct env *env = &rest->env;
	uint8_t key[64];

	assert_int_equal(getrandom(key, sizeof(key), 0), sizeof(key));
	hide_all(&rest->of_master, key, sizeof(key));
	derive(key, env, 0, &rest->of_files);
	assert_int_equal(inl_key_spec_derive(key, 64, env->version, &env->spec), 0);
	assert_int_equal(inl_keyring_claim(env->ring, key, 64, 1, NULL), 0);
	inl_wipe(key, sizeof(key));
	park(rest);
	return NULL;
}

static void *use_thread(void *arg)
{
	struct rest *rest = arg;
	struct env *env = &rest->env;

	for (unsigned i = 0; i < 2; i++) {
		rest->file[i] = info_new(env, INL_CRYPT_REG, i);
		assert_int_equal(transfer(env, rest->file[i], i, true), 0);
	}
	rest->dir = info_new(env, INL_CRYPT_DIR, 2);
	assert_int_equal(inl_crypt_info_unlock(rest->dir, NULL), 0);
	assert_int_equal(name_works(rest->dir), 0);
	assert_int_equal(inl_crypt_info_hold(rest->file[1], NULL), 0);
	park(rest);
	return NULL;
}

static void in_thread(struct rest *rest, pthread_t *thread, void *(*function)(void *))
{
	assert_int_equal(pthread_create(thread, NULL, function, rest), 0);
	pthread_barrier_wait(&rest->done);
}

static void see_rest(struct rest *rest, bool derived)
{
	struct env *env = &rest->env;

	assert_true(look_everywhere(&rest->of_master) > 0);
	if (derived)
		assert_true(look_everywhere(&rest->of_files) > 0);
	unclaim_all(env);
	assert_int_equal(evict(env->ring, &env->spec), 1);
	assert_int_equal(look_everywhere(&rest->of_master), 0);
	assert_int_equal(look_everywhere(&rest->of_files), 0);
	assert_int_equal(transfer(env, rest->file[1], 1, false), 0);
	inl_crypt_info_release(rest->file[1]);
	assert_int_equal(look_everywhere(&rest->of_master), 0);
}

/* flags: of the policy; version 1 or 2. Everything is used, and then taken away. */
static void look_for_rest(const char *spec, const char *impl, uint8_t flags, int version)
{
	struct rest *rest = calloc(1, sizeof(*rest));
	struct env *env = &rest->env;
	pthread_t threads[2];

	env_open(env, spec, 0, flags);
	unclaim_all(env);
	assert_int_equal(evict(env->ring, &env->spec), 0);
	env->version = version;
	assert_int_equal(inl_dev_set_ciphers(env->dev, impl), 0);
	pthread_barrier_init(&rest->done, NULL, 2);
	pthread_barrier_init(&rest->looked, NULL, 3);
	in_thread(rest, &threads[0], claim_thread);
	in_thread(rest, &threads[1], use_thread);
	see_rest(rest, !flags && version == 2);
	pthread_barrier_wait(&rest->looked);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		inl_crypt_info_free(rest->file[i]);
	}
	inl_crypt_info_free(rest->dir);
	pthread_barrier_destroy(&rest->done);
	pthread_barrier_destroy(&rest->looked);
	env_close(env);
	free(rest);
}

void lock_nothing_left(void **state)
{
	(void)state;
	if (SANITIZED) {
		print_message("skipped: a sanitizer keeps copies of memory\n");
		skip();
	}
	look_for_rest("ram(1M)", NULL, 0, 2);
	look_for_rest("ram(1M)", "openssl", 0, 2);
	look_for_rest("engine(ram(1M), slots=2)", NULL, 0, 2);
	look_for_rest("ram(1M)", NULL, INL_POLICY_FLAG_IV_INO_LBLK_64, 2);
	look_for_rest("ram(1M)", NULL, INL_POLICY_FLAG_IV_INO_LBLK_32, 2);
	look_for_rest("ram(1M)", NULL, 0, 1);
	look_for_rest("ram(1M)", "openssl", 0, 1);
}
