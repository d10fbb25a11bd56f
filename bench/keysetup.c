/*
 * bench/keysetup.c: what it takes to have a file's key ready: all of it as fscrypt/ does it, and its parts alone.
 * Not here: the I/O that the key is for (bench/xts.c, `inlay bench block`).
 * Read more: HACKING.md, "Speed".
 */
#include <inlay/block.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"
#include "fscrypt/info.h"
#include "fscrypt/keyring.h"

#define N_FILES 256 /* at once, so that the clock is read seldom */
#define ROUNDS	401

struct bench {
	struct inl_dev *dev;
	struct inl_keyring *ring;
	struct inl_master_key *master;
	struct inl_fscrypt *fs, *small; /* small: with a limit of half the files */
	uint8_t context[40];
	uint8_t bytes[N_FILES][INL_KEY_SIZE_MAX];
	struct inl_key *keys[N_FILES];
	struct inl_key_use *uses[N_FILES];
	struct inl_crypt_info *infos[N_FILES], *many[N_FILES];
};

static void need(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "keysetup: %s failed: %s\n", what, strerror(-err));
	exit(1);
}

/* ---- what is measured: each does one file -------------------------------------------------------------------------- */

static void derive(struct bench *b, unsigned i)
{
	uint8_t nonce[INL_FILE_NONCE_SIZE] = { (uint8_t)i };

	need(inl_master_key_derive(b->master, INL_HKDF_PER_FILE_KEY, nonce, sizeof(nonce), b->bytes[i], 64), "derivation");
}

static void key_new(struct bench *b, unsigned i)
{
	static const struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, 4096, 4, INL_KEY_RAW };

	need(inl_key_new(&cfg, b->bytes[i], 64, &b->keys[i]), "inl_key_new");
}

static void key_start(struct bench *b, unsigned i)
{
	need(inl_key_start(b->dev, b->keys[i], &b->uses[i]), "inl_key_start");
}

static void key_end(struct bench *b, unsigned i)
{
	need(inl_key_evict(b->uses[i]), "inl_key_evict");
	inl_key_put(b->keys[i]);
}

static void info_make(struct bench *b, struct inl_fscrypt *fs, unsigned i, struct inl_crypt_info **out)
{
	memcpy(b->context + 24, &i, sizeof(i));
	need(inl_crypt_info_new(fs, 12 + i, INL_CRYPT_REG, false, b->context, sizeof(b->context), out),
	     "inl_crypt_info_new");
}

static void info_new(struct bench *b, unsigned i)
{
	info_make(b, b->fs, i, &b->infos[i]);
}

static void info_unlock(struct bench *b, unsigned i)
{
	need(inl_crypt_info_unlock(b->infos[i], NULL), "inl_crypt_info_unlock");
}

static void get_and_put(struct inl_crypt_info *info)
{
	struct inl_crypt_ctx ctx;
	uint64_t n = 1;

	need(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL), "inl_crypt_info_ctx");
	inl_crypt_info_ctx_put(info);
}

static void ctx_ready(struct bench *b, unsigned i)
{
	get_and_put(b->infos[i]);
}

/* One after the other, there are always as many others before: the key is gone and must take another's place. */
static void ctx_again(struct bench *b, unsigned i)
{
	get_and_put(b->many[i]);
}

static void info_free(struct bench *b, unsigned i)
{
	inl_crypt_info_free(b->infos[i]);
}

static const struct step {
	const char *name; /* NULL: not reported */
	void (*run)(struct bench *b, unsigned i);
} steps[] = {
	{ "derive", derive }, { "key-new", key_new }, { "key-start", key_start }, { "key-end", key_end },
	{ NULL, info_new },   { "set-up", info_unlock }, { "ready", ctx_ready },     { "evict", info_free },
	{ "again", ctx_again },
};

#define N_STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- measuring ----------------------------------------------------------------------------------------------------- */

static void bench_init(struct bench *b)
{
	struct inl_fscrypt_params params = { .traits = { 12, 32, 32, true } };
	struct inl_key_spec spec;
	uint8_t key[64];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i + 1);
	need(inl_dev_open("ram(1M)", INL_OPEN_WRITE, NULL, &b->dev), "inl_dev_open");
	need(inl_keyring_new(&b->ring), "inl_keyring_new");
	need(inl_keyring_add(b->ring, key, sizeof(key), NULL), "inl_keyring_add");
	need(inl_key_spec_derive(key, sizeof(key), 2, &spec), "inl_key_spec_derive");
	b->master = inl_keyring_use(b->ring, &spec);
	params.dev = b->dev;
	params.keys = b->ring;
	need(inl_fscrypt_new(&params, &b->fs), "inl_fscrypt_new");
	memcpy(b->context, (const uint8_t[]){ 2, INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS }, 3);
	memcpy(b->context + 8, spec.bytes, sizeof(spec.bytes));
	params.max_file_keys = N_FILES / 2;
	need(inl_fscrypt_new(&params, &b->small), "inl_fscrypt_new");
	for (unsigned i = 0; i < N_FILES; i++)
		info_make(b, b->small, i, &b->many[i]);
}

static void bench_done(struct bench *b)
{
	for (unsigned i = 0; i < N_FILES; i++)
		inl_crypt_info_free(b->many[i]);
	inl_fscrypt_free(b->small);
	inl_fscrypt_free(b->fs);
	inl_keyring_unuse(b->ring, b->master);
	inl_keyring_free(b->ring);
	inl_dev_close(b->dev);
}

/* One line per step: its name, the median of nanoseconds per file. */
int main(void)
{
	static double ns[N_STEPS][ROUNDS];
	static struct bench b;

	bench_init(&b);
	for (unsigned round = 0; round < ROUNDS; round++)
		for (unsigned s = 0; s < N_STEPS; s++) {
			uint64_t begin = inl_now_ns();

			for (unsigned i = 0; i < N_FILES; i++)
				steps[s].run(&b, i);
			ns[s][round] = (double)(inl_now_ns() - begin) / N_FILES;
		}
	for (unsigned s = 0; s < N_STEPS; s++)
		if (steps[s].name)
			printf("%s %.0f\n", steps[s].name, stats_median(ns[s], ROUNDS));
	bench_done(&b);
	return 0;
}
