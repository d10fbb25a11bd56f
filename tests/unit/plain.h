/*
 * tests/unit/plain.h: whether this is a build whose stack, registers and freed memory can be looked at.
 * Not here: what is looked for (test_crypto.c, ciphers_clean.c, test_constant_time.c).
 * Read more: HACKING.md, "Tests".
 */
#ifndef INLAY_TESTS_PLAIN_H
#define INLAY_TESTS_PLAIN_H

#include <stdbool.h>

/* Sanitizers, and builds without optimisation, lay out frames in their own way. */
static inline bool is_plain_build(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
	return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return false;
#endif
#endif
	return true;
}

#endif
