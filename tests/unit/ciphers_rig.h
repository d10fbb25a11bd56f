/*
 * tests/unit/ciphers_rig.h: what the parts of test_ciphers share: dice, subjects, OpenSSL as oracle, one checked call.
 * Not here: the tests (ciphers_*.c).
 * Read more: inlay/cipher.h, from which they are written; crypto/own.h.
 */
#ifndef INLAY_TESTS_CIPHERS_RIG_H
#define INLAY_TESTS_CIPHERS_RIG_H

#include "crypto/own.h"
#include "tests/unit/plain.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define INL_TC_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* ---- how much, and dice ------------------------------------------------------------------------------------------ */

enum inl_tc_scale { INL_TC_QUICK, INL_TC_NORMAL, INL_TC_LONG };
extern enum inl_tc_scale inl_tc_scale;

/* One of the three. */
static inline unsigned inl_tc_much(unsigned quick, unsigned normal, unsigned much)
{
	return inl_tc_scale == INL_TC_QUICK ? quick : inl_tc_scale == INL_TC_NORMAL ? normal : much;
}

void inl_tc_seed(uint64_t seed);
uint64_t inl_tc_random(void);
uint64_t inl_tc_below(uint64_t n); /* 0 .. n - 1 */
void inl_tc_fill(uint8_t *p, size_t len);

/* ---- subjects ---------------------------------------------------------------------------------------------------- */

/* A cipher, and one way to compute it that this CPU runs. */
struct inl_tc_subject {
	enum inl_cipher_id id;
	unsigned key_size;	 /* bytes */
	const char *oracle;	 /* what OpenSSL calls the cipher */
	const char *ecb;	 /* and its block cipher */
	const struct inl_impl *impl;
	bool own;		 /* not OpenSSL's */
};

/* The structure of an implementation; NULL: none has this name. */
const struct inl_impl *inl_tc_impl(enum inl_cipher_id id, const char *name);

/* Call test with every subject, best implementation first; AES-256-XTS, then AES-128-XTS. */
void inl_tc_each(void (*test)(const struct inl_tc_subject *subject));

/* The key is random and key_size bytes long. */
struct inl_cipher *inl_tc_new(const struct inl_tc_subject *subject, uint8_t key[64]);

/* ---- one call ---------------------------------------------------------------------------------------------------- */

#define INL_TC_ROOM ((size_t)1 << 20) /* bytes of text in one call */
#define INL_TC_EDGE 64		      /* bytes around it: alignment, what must stay as it is */

/* Memory of the program: text is what goes in, expected what must come out, out what does. */
struct inl_tc_rooms {
	uint8_t text[INL_TC_ROOM + 2 * INL_TC_EDGE] __attribute__((aligned(64)));
	uint8_t expected[INL_TC_ROOM + 2 * INL_TC_EDGE] __attribute__((aligned(64)));
	uint8_t out[INL_TC_ROOM + 4 * INL_TC_EDGE] __attribute__((aligned(64)));
};
extern struct inl_tc_rooms inl_tc_rooms;

struct inl_tc_call {
	bool encrypt, stealing, in_place;
	uint64_t dun[4];
	size_t n, len;
	size_t src_at, dst_at; /* alignment, 0 .. 63; in place only the second counts */
};

/* OpenSSL, one data unit in a context that is made for it alone. Of the DUN 128 bits count. */
void inl_tc_oracle(const struct inl_tc_subject *subject, const uint8_t *key, bool encrypt, const uint64_t dun[4], size_t n,
		   size_t len, uint8_t *dst, const uint8_t *src);

/* The call itself; it must be accepted. stealing: n is 1. */
void inl_tc_run(const struct inl_cipher *cipher, const struct inl_tc_call *call, uint8_t *dst, const uint8_t *src);

/* The call on random text, against the oracle; nothing before or after dst is written, src stays as it was. */
void inl_tc_check(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
		  const struct inl_tc_call *call);

/* Fails with the subject, the place, and what. */
void inl_tc_same(const uint8_t *got, const uint8_t *expected, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

bool inl_tc_all(const uint8_t *p, size_t len, uint8_t value);

/* dun = 2^bits - before, and random above 128 bits. */
void inl_tc_dun_before(uint64_t dun[4], unsigned bits, uint64_t before);

/* ---- the parts --------------------------------------------------------------------------------------------------- */

/* Each runs its group, and returns how many failed. */
int inl_tc_known(void); /* must be the first: its processes need an arena of their own */
int inl_tc_compute(void);
int inl_tc_edges(void);
int inl_tc_clean(void);
int inl_tc_misuse(void);

#endif
