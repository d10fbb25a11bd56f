/*
 * bench/xts.c: AES-256-XTS decryption, 4 KiB and 512-byte data units: by the whole block layer, beside OpenSSL alone.
 * Not here: ciphers alone (bench/ciphers.c), files and commands (bench/run.py, which runs this program too).
 * Read more: HACKING.md, "Speed".
 */
#include <inlay/block.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"

#define BUF_LEN (256 * 1024) /* stays in the second-level cache */
#define ROUNDS	9
#define ROUND_NS 30000000.0

struct bench {
	size_t unit;
	uint8_t *buf;
	EVP_CIPHER_CTX *evp;
	struct inl_dev *dev;
	struct inl_key_use *use;
};

static void die(const char *what)
{
	fprintf(stderr, "xts: %s failed\n", what);
	exit(1);
}

/* The reference: the key schedule is made once, each unit sets its IV only. */
static void run_openssl(struct bench *b)
{
	uint64_t iv[2] = {0};
	int len;

	for (size_t at = 0; at < BUF_LEN; at += b->unit, iv[0]++) {
		if (EVP_DecryptInit_ex2(b->evp, NULL, NULL, (const unsigned char *)iv, NULL) != 1 ||
		    EVP_DecryptUpdate(b->evp, b->buf + at, &len, b->buf + at, b->unit) != 1)
			die("EVP_DecryptUpdate");
	}
}

/* A keyed read of a ram device: the copy out of the device, the crossing, the accounting. */
static void run_block(struct bench *b)
{
	struct inl_crypt_ctx ctx = { .use = b->use };

	if (inl_dev_read_keyed(b->dev, 0, b->buf, BUF_LEN, &ctx))
		die("inl_dev_read_keyed");
}

static double gb_per_s(void (*run)(struct bench *b), struct bench *b)
{
	uint64_t start = inl_now_ns();
	double ns;
	uint64_t n = 0;

	do {
		run(b);
		n++;
		ns = (double)(inl_now_ns() - start);
	} while (ns < ROUND_NS);
	return (double)n * BUF_LEN / ns;
}

static void bench_init(struct bench *b, size_t unit)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, (uint32_t)unit, 8, INL_KEY_RAW };
	struct inl_key *key = NULL;
	uint8_t bytes[64];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i + 1);
	b->unit = unit;
	b->buf = aligned_alloc(4096, BUF_LEN);
	b->evp = EVP_CIPHER_CTX_new();
	if (!b->buf || !b->evp || EVP_DecryptInit_ex2(b->evp, EVP_aes_256_xts(), bytes, NULL, NULL) != 1)
		die("EVP_DecryptInit_ex2");
	memset(b->buf, 0x5a, BUF_LEN);
	if (inl_key_new(&cfg, bytes, sizeof(bytes), &key) || inl_dev_open("ram(1M)", INL_OPEN_WRITE, NULL, &b->dev) ||
	    inl_key_start(b->dev, key, &b->use))
		die("set-up");
	inl_key_put(key);
}

static void bench_done(struct bench *b)
{
	inl_key_evict(b->use);
	inl_dev_close(b->dev);
	EVP_CIPHER_CTX_free(b->evp);
	free(b->buf);
}

/* One line per unit size: unit, GB/s of OpenSSL, of the block layer. */
static void report(size_t unit)
{
	static void (*const runs[])(struct bench *b) = { run_openssl, run_block };
	double speed[2][ROUNDS];
	struct bench b;

	bench_init(&b, unit);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 2; i++)
			speed[i][round] = gb_per_s(runs[i], &b);
	}
	printf("%zu", unit);
	for (int i = 0; i < 2; i++)
		printf(" %.3f", stats_median(speed[i], ROUNDS));
	printf("\n");
	bench_done(&b);
}

int main(void)
{
	report(4096);
	report(512);
	return 0;
}
