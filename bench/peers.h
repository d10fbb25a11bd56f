/*
 * bench/peers.h: what our AES-XTS is compared with: other libraries, what the CPU's AES units can do, a copy.
 * Not here: our own ciphers, measuring (ciphers.c).
 * Read more: HACKING.md, "Speed".
 */
#ifndef INLAY_BENCH_PEERS_H
#define INLAY_BENCH_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n data units of one pass, numbered from 0. */
struct pass {
	uint8_t *dst;
	const uint8_t *src;
	size_t unit, n; /* bytes; units */
	bool encrypt;
};

/* Whoever can do a pass. */
struct peer {
	const char *name;
	void *(*open)(const uint8_t *key, unsigned key_size, bool encrypt); /* NULL: not on this machine */
	size_t (*run)(void *state, const struct pass *pass); /* returns bytes */
	void (*close)(void *state);
};

/*
 * OpenSSL: a schedule prepared once, an IV per unit.
 * libgcrypt: the same; opens as NULL where it was not there at build time.
 * AES-units: the rounds alone, as many as a pass of AES-256 has, in registers: no loads, no stores, no tweaks.
 * memcpy: the whole pass in one call.
 */
extern const struct peer openssl, libgcrypt, aes_units, copy;

#endif
