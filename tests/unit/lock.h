/*
 * tests/unit/lock.h: what the parts of test_lock share: a key, its status, inodes without a volume.
 * Not here: the tests themselves (test_lock.c, lock_*.c), volumes (test_lock.c).
 * Read more: tests/unit/test_lock.c.
 */
#ifndef TESTS_UNIT_LOCK_H
#define TESTS_UNIT_LOCK_H

#include "ext4/own.h"
#include <errno.h>
#include <inlay/volume.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define BLOCK	 4096u
#define N_FILES	 64u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

extern unsigned n_races; /* operations of a race; --long: 120,000 */

static const uint8_t __attribute__((unused)) master[64] = { 5, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5 };

static inline struct inl_key_status status_of(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid)
{
	struct inl_key_status status = { 0 };

	assert_int_equal(inl_keyring_status(ring, spec, uid, &status), 0);
	return status;
}

static inline unsigned evict(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	unsigned n_busy = 99;

	assert_int_equal(inl_keyring_evict(ring, spec, &n_busy), 0);
	return n_busy;
}

/* ---- inodes without a volume ------------------------------------------------------------------------------------- */

struct env {
	struct inl_dev *dev;
	struct inl_keyring *ring;
	struct inl_fscrypt *fs;
	struct inl_key_spec spec;
	uint8_t flags; /* of the policy */
	int version;
};

static inline void env_open(struct env *env, const char *spec, unsigned limit, uint8_t flags)
{
	struct inl_fscrypt_params params = { .traits = { 12, 32, 32, true }, .max_file_keys = limit };

	memset(env, 0, sizeof(*env));
	env->flags = flags;
	env->version = 2;
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &env->dev), 0);
	assert_int_equal(inl_keyring_new(&env->ring), 0);
	params.dev = env->dev;
	params.keys = env->ring;
	assert_int_equal(inl_fscrypt_new(&params, &env->fs), 0);
	assert_int_equal(inl_key_spec_derive(master, 64, 2, &env->spec), 0);
	assert_int_equal(inl_keyring_claim(env->ring, master, 64, 1, NULL), 0);
}

static inline int64_t n_live(const struct env *env)
{
	struct inl_counters counters;

	inl_dev_counters(env->dev, &counters);
	return (int64_t)(counters.keys_started - counters.keys_evicted);
}

static inline void env_close(struct env *env)
{
	inl_fscrypt_free(env->fs);
	assert_int_equal(n_live(env), 0);
	inl_keyring_free(env->ring);
	inl_dev_close(env->dev);
}

static inline struct inl_crypt_info *info_new(const struct env *env, enum inl_crypt_kind kind, unsigned i)
{
	uint8_t context[40] = { 2, INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS, env->flags };
	struct inl_crypt_info *info = NULL;
	size_t len = 40;

	memcpy(context + 8, env->spec.bytes, 16);
	memcpy(context + 24, &i, sizeof(i));
	if (env->version == 1) {
		context[0] = 1;
		memcpy(context + 4, env->spec.bytes, 8);
		memset(context + 12, 0, 16);
		memcpy(context + 12, &i, sizeof(i));
		len = 28;
	}
	if (inl_crypt_info_new(env->fs, 12 + i, kind, false, context, len, &info))
		abort();
	return info;
}

static inline void text_of(unsigned i, uint8_t text[BLOCK])
{
	for (unsigned k = 0; k < BLOCK; k++)
		text[k] = (uint8_t)(i * 37 + k * (i + 1) + (k >> 8));
}

static inline int transfer(const struct env *env, struct inl_crypt_info *info, unsigned i, bool write)
{
	uint8_t text[BLOCK], buf[BLOCK];
	struct inl_crypt_ctx ctx;
	uint64_t n = 1;
	int err = inl_crypt_info_ctx(info, 0, &n, &ctx, NULL);

	if (err)
		return err;
	text_of(i, text);
	if (write)
		err = inl_dev_write_keyed(env->dev, (uint64_t)i * BLOCK, text, BLOCK, &ctx);
	else
		err = inl_dev_read_keyed(env->dev, (uint64_t)i * BLOCK, buf, BLOCK, &ctx);
	inl_crypt_info_ctx_put(info);
	return err || write ? err : memcmp(buf, text, BLOCK) ? -EBADMSG : 0;
}

static inline int name_works(struct inl_crypt_info *dir)
{
	uint8_t stored[32], name[32];
	size_t len;
	int err = inl_fname_encrypt(dir, "a name of some length", 21, 32, stored);

	if (!err)
		err = inl_fname_decrypt(dir, stored, 32, name, &len);
	return err ? err : len == 21 && !memcmp(name, "a name of some length", 21) ? 0 : -EBADMSG;
}

static inline void take_away(struct env *env)
{
	bool last = false;

	assert_int_equal(inl_keyring_unclaim(env->ring, &env->spec, 1, false, &last), 0);
	assert_true(last);
}

static inline enum inl_key_state state_of(const struct env *env)
{
	return status_of(env->ring, &env->spec, 1).state;
}

/* ---- the tests of other files ------------------------------------------------------------------------------------- */

void lock_claims(void **state);
void lock_limits(void **state);
void lock_odd(void **state);
void lock_many_files(void **state);
void lock_shared(void **state);
void lock_slots(void **state);
void lock_two_volumes(void **state);
void lock_version_1(void **state);
void lock_memory_full(void **state);
void lock_two_evictions(void **state);
void lock_name_in_use(void **state);
void lock_callback(void **state);
void lock_info_races(void **state);
void lock_nothing_left(void **state);

#endif
