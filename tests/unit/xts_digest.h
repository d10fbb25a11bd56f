/*
 * tests/unit/xts_digest.h: AES-XTS at every length folded into one digest, for machines without a second implementation.
 * Not here: the digests to expect and their maker (tests/vectors/aes-xts-digests.inc, make-aes-xts-digests.py).
 * Read more: the definition below, which both follow.
 *
 * Numbers: xorshift64*. x = 88172645463325252 at the start of a digest; each number is made by
 *	x ^= x >> 12, x ^= x << 25, x ^= x >> 27, all modulo 2^64; the number is x * 2685821657736338717 modulo 2^64.
 * Bytes: a number each, of which bits 32 to 39 are the byte.
 *
 * A digest is of one size of key: 32 bytes (AES-128) or 64 (AES-256), both halves. It is a chain of cases. Case i (from 0)
 * of n units of len bytes draws
 *	key	so many bytes
 *	dun	two numbers, the low and the high 64 bits; then, unless i % 4 is 0, the low 32 (i % 4 == 1), 64 (2) or 128 (3)
 *		bits are set, and 1 is subtracted if i / 4 is odd: the carry comes between the units, or out of the last bit
 *	text	n * len bytes
 * and goes on from sum to SHA-256(sum || ciphertext). At first sum is 32 zero bytes, at the end it is the digest.
 *
 * The DUN is the tweak, 16 bytes little-endian; that of a unit is the one before plus 1, modulo 2^128.
 *
 * Units:     n = 3; len = 16, 32, 48 .. 4096.
 * Stealing:  n = 1; len = 16, 17, 18 .. 600, then 603, 700, 797 .. 4095. Some are whole blocks: nothing to steal there.
 */
#ifndef INLAY_TESTS_XTS_DIGEST_H
#define INLAY_TESTS_XTS_DIGEST_H

#include "crypto/hash.h"

#include <string.h>

#define XTS_DIGEST_UNITS 3
#define XTS_DIGEST_ROOM	 (XTS_DIGEST_UNITS * 4096)

struct xts_digest {
	uint64_t x;
	size_t key_len;
	unsigned i; /* the case */
	uint8_t key[64];
	uint64_t dun[2];
	uint8_t text[XTS_DIGEST_ROOM];
	uint8_t chain[32 + XTS_DIGEST_ROOM]; /* sum, ciphertext */
};

static inline uint64_t xts_digest_number(struct xts_digest *d)
{
	d->x ^= d->x >> 12;
	d->x ^= d->x << 25;
	d->x ^= d->x >> 27;
	return d->x * 2685821657736338717u;
}

static inline void xts_digest_bytes(struct xts_digest *d, uint8_t *p, size_t len)
{
	while (len--)
		*p++ = (uint8_t)(xts_digest_number(d) >> 32);
}

static inline void xts_digest_start(struct xts_digest *d, size_t key_len)
{
	d->x = 88172645463325252u;
	d->key_len = key_len;
	d->i = 0;
	memset(d->chain, 0, 32);
}

static inline void xts_digest_draw(struct xts_digest *d, size_t len)
{
	static const uint64_t ones[4][2] = { { 0, 0 }, { UINT32_MAX, 0 }, { UINT64_MAX, 0 }, { UINT64_MAX, UINT64_MAX } };

	xts_digest_bytes(d, d->key, d->key_len);
	d->dun[0] = xts_digest_number(d);
	d->dun[1] = xts_digest_number(d);
	d->dun[0] |= ones[d->i % 4][0];
	d->dun[1] |= ones[d->i % 4][1];
	if (d->i % 4)
		d->dun[0] -= d->i / 4 % 2; /* no borrow: the last bit is set */
	xts_digest_bytes(d, d->text, len);
	d->i++;
}

static inline int xts_digest_chain(struct xts_digest *d, size_t len)
{
	uint8_t sum[32];
	int err = inl_sha256(d->chain, 32 + len, sum);

	if (!err)
		memcpy(d->chain, sum, 32);
	return err;
}

/*
 * The digest of whole blocks.
 *
 *   encrypt  dst[k] = E(key, dun + k, src[k]) for n data units of unit_len bytes; dst and src are apart
 *   arg      for it
 *   key_len  32 or 64
 *
 * Returns: 0, or the error of inl_sha256.
 */
static inline int xts_digest_units(void (*encrypt)(void *arg, const uint8_t *key, size_t key_len, const uint64_t dun[2],
						   size_t n, size_t unit_len, uint8_t *dst, const uint8_t *src),
				   void *arg, size_t key_len, uint8_t out[32])
{
	struct xts_digest d;
	int err = 0;

	xts_digest_start(&d, key_len);
	for (size_t len = 16; !err && len <= 4096; len += 16) {
		xts_digest_draw(&d, XTS_DIGEST_UNITS * len);
		encrypt(arg, d.key, key_len, d.dun, XTS_DIGEST_UNITS, len, d.chain + 32, d.text);
		err = xts_digest_chain(&d, XTS_DIGEST_UNITS * len);
	}
	if (!err)
		memcpy(out, d.chain, 32);
	return err;
}

/* The digest of any length: steal encrypts one data unit of len bytes. The rest as above. */
static inline int xts_digest_stealing(void (*steal)(void *arg, const uint8_t *key, size_t key_len, const uint64_t dun[2],
						    size_t len, uint8_t *dst, const uint8_t *src),
				      void *arg, size_t key_len, uint8_t out[32])
{
	struct xts_digest d;
	int err = 0;

	xts_digest_start(&d, key_len);
	for (size_t len = 16; !err && len <= 4096; len = len < 600 ? len + 1 : len == 600 ? 603 : len + 97) {
		xts_digest_draw(&d, len);
		steal(arg, d.key, key_len, d.dun, len, d.chain + 32, d.text);
		err = xts_digest_chain(&d, len);
	}
	if (!err)
		memcpy(out, d.chain, 32);
	return err;
}

#endif
