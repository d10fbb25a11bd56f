/*
 * tests/mount/fsx.h: a file that is changed in every way there is, beside a copy in memory of what must be in it.
 * Not here: the choice of what is done (fsx_ops.c).
 * Read more: HACKING.md, "Tests".
 */
#ifndef INLAY_TESTS_FSX_H
#define INLAY_TESTS_FSX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FX_PAGE    4096u
#define FX_N_FILES 3u

/* Offsets in a file of ours count from fx.base: before it is nothing but a hole. */
struct fx_file {
	char path[512];
	bool linked; /* false: unlinked or replaced while it was open, and `path` is free */
	int fd, append_fd;
	int direct_fd; /* -1 where it cannot be opened, or is not wanted */
	uint8_t *map;  /* a shared mapping that lives on, of fx.max bytes, or NULL */
	uint8_t *want; /* fx.max + FX_PAGE bytes; zero from `size` on */
	uint64_t size;
};

struct fx {
	uint64_t max, base;
	bool drop, lenient, direct, verbose, patient;
	unsigned long from; /* verbose from this operation on */
	unsigned process;
	const char *doing;    /* the name of the case that is tried, or NULL */
	unsigned long number; /* of the operation */
	uint64_t dice;
	uint8_t *buf, *buf2; /* fx.max + 2 * FX_PAGE bytes, aligned for O_DIRECT */
	struct fx_file files[FX_N_FILES];
};

extern struct fx fx;

/* ---- fsx.c: what is remembered, and said ------------------------------------------------------------------------- */

/* Remembers what is about to be done; the last fifty are printed when something is wrong. */
void fx_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds to the last line. */
void fx_add(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints all that is known, and ends the process. */
_Noreturn void fx_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with what errno says. */
_Noreturn void fx_fail_errno(const char *call);

uint64_t fx_rng64(void);
uint64_t fx_rng(uint64_t below);

/* ---- fsx_file.c: one change, made to the file and to its copy; or one look, which compares them ------------------ */

void fx_create(struct fx_file *f);
/* Opens it again; what has no name any more is looked at for the last time, and becomes a new, empty file. */
void fx_reopen(struct fx_file *f, bool truncate);
void fx_close(struct fx_file *f);

enum fx_write_how { FX_PWRITE, FX_PWRITEV, FX_APPEND, FX_DIRECT };
enum fx_read_how { FX_PREAD, FX_PREADV, FX_READ_DIRECT };

void fx_write(struct fx_file *f, uint64_t offset, size_t len, enum fx_write_how how);
void fx_read(struct fx_file *f, uint64_t offset, size_t len, enum fx_read_how how);
void fx_truncate(struct fx_file *f, uint64_t size, bool by_path);
void fx_fallocate(struct fx_file *f, int mode, uint64_t offset, uint64_t len);
/* What is copied must not overlap where it goes to if both files are the same. */
void fx_copy(struct fx_file *from, uint64_t offset, struct fx_file *to, uint64_t to_offset, size_t len);

/* Of a mapping that is kept. */
void fx_map(struct fx_file *f);
void fx_unmap(struct fx_file *f);
/* In the mapping that is kept, or in one made for it. The range ends at or before the end of the file. */
void fx_map_read(struct fx_file *f, uint64_t offset, size_t len);
void fx_map_write(struct fx_file *f, uint64_t offset, size_t len, int msync_flags);
/* Changes a private mapping, of which the file must not see anything. */
void fx_map_private(struct fx_file *f, uint64_t offset, size_t len);

/* Written back and no longer cached, as far as that can be asked for. */
void fx_evict(struct fx_file *f);
/* What is data and what is hole, from the beginning to the end. */
void fx_seek(struct fx_file *f);
void fx_check_size(struct fx_file *f);
void fx_verify(struct fx_file *f);

/* ---- fsx_ops.c --------------------------------------------------------------------------------------------------- */

void fx_some_op(void);
/* The case that has a name; says so. */
void fx_named_case(void);

/*
 * A call by name, of which keys may be locked at that moment: with --patient it is made again until they come back. What is
 * open goes on all the time.
 */
bool fx_again(unsigned *tries);
#define FX_PATIENTLY(call)                             \
	({                                             \
		unsigned tries_ = 0;                   \
		int result_;                           \
		do                                     \
			result_ = (call);              \
		while (result_ < 0 && fx_again(&tries_)); \
		result_;                               \
	})

#endif
