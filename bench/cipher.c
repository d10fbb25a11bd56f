/*
 * bench/cipher.c: AES-256-XTS alone, in buffers of the size of an I/O: the part of an encrypted I/O that is encryption.
 * Not here: I/O (`inlay bench block`); comparison with other implementations (bench/ciphers.c).
 * Read more: HACKING.md, "Speed".
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <inlay/cipher.h>

#define ROUND_BYTES ((size_t)16 << 20) /* between two looks at the clock */

struct load {
	struct inl_cipher *cipher;
	bool write;
	size_t len, unit, region; /* bytes; region: 0: the other side is one buffer too */
	size_t n_bufs;
	uint8_t *buf, *medium;
	uint64_t random, n, dun[4];
};

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* SplitMix64, and a number below n: what `inlay bench block` draws its places with. */
static uint64_t random_below(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (uint64_t)((unsigned __int128)(z ^ z >> 31) * n >> 64);
}

/* Writes are encrypted into another buffer, reads are decrypted in place, as the block layer does it before a device. */
static int crypt_buffer(struct load *load)
{
	size_t n = load->len / load->unit;

	load->dun[0] += n;
	return load->write ? inl_cipher_encrypt(load->cipher, load->dun, n, load->unit, load->medium, load->buf) :
			     inl_cipher_decrypt(load->cipher, load->dun, n, load->unit, load->buf, load->buf);
}

/* Each buffer once, then the same from the last to the first: as the bench takes them off its pile and puts them back. */
static uint8_t *next_buffer(struct load *load)
{
	size_t round = load->n / load->n_bufs, i = load->n % load->n_bufs;

	load->n++;
	return load->buf + (round % 2 ? load->n_bufs - 1 - i : i) * load->len;
}

/* Between a buffer and a random place of a region: what is left of an I/O if the medium is memory. */
static int crypt_region(struct load *load)
{
	uint64_t place = random_below(&load->random, load->region / load->len) * load->len;
	uint8_t *medium = load->medium + place, *buf = next_buffer(load);
	size_t n = load->len / load->unit;

	load->dun[0] = place / load->unit;
	return load->write ? inl_cipher_encrypt(load->cipher, load->dun, n, load->unit, medium, buf) :
			     inl_cipher_decrypt(load->cipher, load->dun, n, load->unit, buf, medium);
}

/* As the bench and the ram device have theirs: pages of their own, touched before the time runs. */
static uint8_t *memory(size_t len, int fill)
{
	uint8_t *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : memset(mem, fill, len);
}

/* Print bytes per second by the clock, and per second of CPU time. */
static int run(struct load *load, double seconds)
{
	double start = now(CLOCK_MONOTONIC), start_cpu = now(CLOCK_PROCESS_CPUTIME_ID), passed;
	uint64_t bytes = 0;

	do {
		for (size_t at = 0; at < ROUND_BYTES; at += load->len) {
			if (load->region ? crypt_region(load) : crypt_buffer(load))
				return 1;
			bytes += load->len;
		}
		passed = now(CLOCK_MONOTONIC) - start;
	} while (passed < seconds);
	printf("%.0f %.0f\n", (double)bytes / passed, (double)bytes / (now(CLOCK_PROCESS_CPUTIME_ID) - start_cpu));
	return 0;
}

static size_t number(int argc, char **argv, int i)
{
	return i < argc ? strtoul(argv[i], NULL, 10) : 0;
}

/* cipher read|write LEN UNIT SECONDS [REGION BUFFERS]: between so many buffers and places in REGION bytes of memory. */
int main(int argc, char **argv)
{
	struct load load = { .len = number(argc, argv, 2), .unit = number(argc, argv, 3),
			     .region = number(argc, argv, 5), .n_bufs = argc > 5 ? number(argc, argv, 6) : 1,
			     .random = 1 };
	double seconds = argc > 4 ? strtod(argv[4], NULL) : 0;
	uint8_t key[64];
	int status;

	if (!load.len || !load.unit || load.len % load.unit || seconds <= 0 || !load.n_bufs ||
	    (argc > 5 && load.region < load.len))
		return 2;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i + 1);
	load.write = !strcmp(argv[1], "write");
	load.buf = memory(load.len * load.n_bufs, 0x5a);
	load.medium = memory(load.region ? load.region : load.len, 0xa5);
	if (!load.buf || !load.medium || inl_cipher_new(INL_CIPHER_AES_256_XTS, NULL, key, &load.cipher))
		return 1;
	status = run(&load, seconds);
	inl_cipher_free(load.cipher);
	return status;
}
