/*
 * bench/cipher.c: AES-256-XTS alone, in buffers of the size of an I/O: the part of an encrypted I/O that is encryption.
 * Not here: I/O (`inlay bench block`); comparison with other implementations (bench/xts.c).
 * Read more: HACKING.md, "Speed".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <inlay/cipher.h>

#define ROUND_BYTES ((size_t)16 << 20) /* between two looks at the clock */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Writes are encrypted into another buffer, reads are decrypted in place, as the block layer does it. */
static int crypt_one(const struct inl_cipher *cipher, bool write, size_t len, size_t unit, uint8_t *buf, uint8_t *bounce)
{
	static uint64_t dun[4];

	dun[0] += len / unit;
	return write ? inl_cipher_encrypt(cipher, dun, len / unit, unit, bounce, buf)
		     : inl_cipher_decrypt(cipher, dun, len / unit, unit, buf, buf);
}

/* cipher read|write LEN UNIT SECONDS: bytes per second. */
int main(int argc, char **argv)
{
	size_t len = argc == 5 ? strtoul(argv[2], NULL, 10) : 0, unit = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
	double seconds = argc == 5 ? strtod(argv[4], NULL) : 0, start, passed;
	uint8_t key[64], *buf, *bounce;
	struct inl_cipher *cipher;
	uint64_t bytes = 0;

	if (!len || !unit || len % unit || seconds <= 0)
		return 2;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i + 1);
	buf = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
	bounce = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
	if (!buf || !bounce || inl_cipher_new(INL_CIPHER_AES_256_XTS, NULL, key, &cipher))
		return 1;
	memset(buf, 0x5a, len);
	memset(bounce, 0xa5, len);
	start = now();
	do {
		for (size_t at = 0; at < ROUND_BYTES; at += len) {
			if (crypt_one(cipher, !strcmp(argv[1], "write"), len, unit, buf, bounce))
				return 1;
			bytes += len;
		}
		passed = now() - start;
	} while (passed < seconds);
	printf("%.0f\n", (double)bytes / passed);
	inl_cipher_free(cipher);
	free(buf);
	free(bounce);
	return 0;
}
