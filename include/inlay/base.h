/*
 * inlay/base.h: what every other header of the library uses: errors with a text, secret memory, the version.
 * Not here: anything that knows of devices, keys or file systems.
 * Read more: ARCHITECTURE.md, "Errors, memory, secrets".
 */
#ifndef INLAY_BASE_H
#define INLAY_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INL_API __attribute__((visibility("default")))

/* "0.1.0"; a constant string. */
INL_API const char *inl_version(void);

/*
 * Why a cold call (open, parse, unlock) failed, in one line for a person: what, and where. A caller that does not
 * want to know passes NULL. It is filled once, where the cause is known; later callers leave a filled one alone.
 * Start with `struct inl_diag diag = {0};`.
 */
struct inl_diag {
	int err;	/* negative errno, or 0: not filled */
	char text[508]; /* no newline, no trailing period */
};

/*
 * Fill *diag (unless it is NULL or already filled) and return err, so that `return inl_diag_set(...)` reads well.
 *
 *   err    negative errno; -EAGAIN asks for another attempt and is no cause of a failure: nothing is filled in
 */
INL_API int inl_diag_set(struct inl_diag *diag, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * Secret memory: key bytes live in one arena that is locked, left out of core dumps, not inherited by children and fenced
 * by guard pages (memfd_secret(2) where the kernel has it).
 */

/*
 * Allocate zeroed secret memory.
 *
 * Returns: memory aligned to 64 bytes, or NULL when the arena is full.
 * Threads: any.
 */
INL_API void *inl_secret_alloc(size_t len);

/* Wipe and free what inl_secret_alloc returned. NULL is fine. */
INL_API void inl_secret_free(void *secret);

/* How well the arena is protected on this machine, worst first. */
enum inl_secret_level {
	INL_SECRET_PLAIN,  /* could not be locked: may reach the swap */
	INL_SECRET_LOCKED, /* mlock: never swapped */
	INL_SECRET_HIDDEN, /* memfd_secret: not even mapped in the kernel */
};
INL_API enum inl_secret_level inl_secret_level(void);

/* Overwrite len bytes with zeros; never optimised away. */
INL_API void inl_wipe(void *bytes, size_t len);

/* Compare len bytes in time that depends on len only. */
INL_API bool inl_equal_ct(const void *a, const void *b, size_t len);

/*
 * A number: decimal digits. A size in bytes: digits, with or without a binary suffix: 512, 64K, 1MiB, 2GB.
 *
 *   text   len bytes; need not end in NUL
 *
 * Returns: 0; -EINVAL; -ERANGE (more than 64 bits).
 */
INL_API int inl_number_parse(const char *text, size_t len, uint64_t *out);
INL_API int inl_size_parse(const char *text, size_t len, uint64_t *out);

/* Nanoseconds of CLOCK_MONOTONIC. */
INL_API uint64_t inl_now_ns(void);

#ifdef __cplusplus
}
#endif
#endif
