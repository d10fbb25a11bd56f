/*
 * bench/ciphers.c: AES-XTS from one buffer to another: each of our implementations, others', the CPU's AES units, a copy.
 * Not here: the others (peers.c), what the figures mean (bench/run.py, which runs this program), ciphers without peers
 * (`inlay bench ciphers`).
 * Read more: HACKING.md, "Speed".
 */
#include <inlay/cipher.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/peers.h"

#define ROUNDS	 15
#define TURN_NS	 5000000
#define LOOK	 ((size_t)512 << 10) /* bytes, at least, between two looks at the clock */
#define PEERS	 4
#define MAX	 (PEERS + 8)
#define IN_CACHE ((size_t)64 << 10)
#define IN_NONE	 ((size_t)256 << 20)

static void die(const char *what)
{
	fprintf(stderr, "ciphers: %s failed\n", what);
	exit(1);
}

/* ---- ours, as peers ------------------------------------------------------------------------------------------------ */

static size_t ours_run(void *state, const struct pass *pass)
{
	uint64_t dun[4] = { 0 };

	if (pass->encrypt ? inl_cipher_encrypt(state, dun, pass->n, pass->unit, pass->dst, pass->src)
			  : inl_cipher_decrypt(state, dun, pass->n, pass->unit, pass->dst, pass->src))
		die("inl_cipher_encrypt");
	return pass->n * pass->unit;
}

static void ours_close(void *state)
{
	inl_cipher_free(state);
}

/* ---- a contest ------------------------------------------------------------------------------------------------------ */

struct contestant {
	struct peer peer;
	void *state;
	bool ours;
	double gb_s[ROUNDS];
};

struct contest {
	enum inl_cipher_id id;
	size_t unit, size; /* bytes */
	bool encrypt;
	struct contestant all[MAX];
	unsigned n;
};

static void add(struct contest *c, const struct peer *peer, void *state, bool ours)
{
	if (state && c->n < MAX)
		c->all[c->n++] = (struct contestant){ .peer = *peer, .state = state, .ours = ours };
}

/* Where no cache helps, only the best: the others would take all day. */
static void gather(struct contest *c)
{
	static const struct peer *const peers[PEERS] = { &openssl, &libgcrypt, &aes_units, &copy };
	unsigned key_size = inl_cipher_info(c->id)->key_size;
	struct inl_cipher_impl impl;
	uint8_t key[64];

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i + 1);
	for (unsigned i = 0; inl_cipher_impl(c->id, i, &impl) && (c->size == IN_CACHE || !c->n); i++) {
		const struct peer peer = { impl.name, NULL, ours_run, ours_close };
		struct inl_cipher *cipher;

		if (impl.lacks)
			continue;
		if (inl_cipher_new(c->id, impl.name, key, &cipher))
			die("inl_cipher_new");
		add(c, &peer, cipher, true);
	}
	for (unsigned i = 0; i < PEERS; i++)
		add(c, peers[i], peers[i]->open(key, key_size, c->encrypt), false);
}

/* Of this thread: what others do meanwhile on this core does not count. */
static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void turn(struct contestant *c, const struct pass *pass, unsigned round)
{
	size_t bytes = 0, look = LOOK;
	double start, passed;

	if (pass->n * pass->unit == IN_CACHE) /* the first pass brings code and clock rate to where they are later */
		c->peer.run(c->state, pass);
	start = cpu_ns();
	do {
		for (; bytes < look; bytes += c->peer.run(c->state, pass))
			;
		look = bytes + LOOK;
		passed = cpu_ns() - start;
	} while (passed < TURN_NS);
	c->gb_s[round] = (double)bytes / passed;
}

/* Mode, unit, size, direction, whose, name, GB/s of each round. */
static void report(const struct contest *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		printf("%s %zu %zu %s %s %s", inl_cipher_info(c->id)->name, c->unit, c->size,
		       c->encrypt ? "encrypt" : "decrypt", c->all[i].ours ? "ours" : "peer", c->all[i].peer.name);
		for (unsigned round = 0; round < ROUNDS; round++)
			printf(" %.4f", c->all[i].gb_s[round]);
		putchar('\n');
	}
}

static void hold(enum inl_cipher_id id, size_t unit, size_t size, bool encrypt, uint8_t *dst, const uint8_t *src)
{
	struct contest c = { .id = id, .unit = unit, .size = size, .encrypt = encrypt };
	const struct pass pass = { dst, src, unit, size / unit, encrypt };

	gather(&c);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < c.n; i++)
			turn(&c.all[round % 2 ? c.n - 1 - i : i], &pass, round);
	}
	report(&c);
	for (unsigned i = 0; i < c.n; i++)
		c.all[i].peer.close(c.all[i].state);
}

int main(void)
{
	uint8_t *src = aligned_alloc(4096, IN_NONE), *dst = aligned_alloc(4096, IN_NONE);

	if (!src || !dst)
		die("aligned_alloc");
	memset(src, 0x5a, IN_NONE);
	memset(dst, 0xa5, IN_NONE);
	for (int encrypt = 1; encrypt >= 0; encrypt--) {
		hold(INL_CIPHER_AES_256_XTS, 4096, IN_CACHE, encrypt, dst, src);
		hold(INL_CIPHER_AES_256_XTS, 512, IN_CACHE, encrypt, dst, src);
		hold(INL_CIPHER_AES_128_XTS, 4096, IN_CACHE, encrypt, dst, src);
		hold(INL_CIPHER_AES_128_XTS, 512, IN_CACHE, encrypt, dst, src);
		hold(INL_CIPHER_AES_256_XTS, 4096, IN_NONE, encrypt, dst, src);
	}
	free(src);
	free(dst);
	return 0;
}
