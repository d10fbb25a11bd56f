/*
 * tests/unit/uring_rig.h: what test_uring and test_durable share: a kernel that can be watched, and ways to do I/O.
 * Not here: the tests.
 * Read more: uring_kernel.c for the faults, uring_rig.c for random I/O.
 */
#ifndef TESTS_UNIT_URING_RIG_H
#define TESTS_UNIT_URING_RIG_H

#include <errno.h>
#include <inlay/block.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB	   1024u
#define MIB	   (1024u * KIB)
#define IMAGE_LEN  (2 * MIB)
#define MEM_ALIGN  4096u

/* Works in child processes and in threads too, which set inl_alone: cmocka's assertions must not be used there. */
extern _Thread_local bool inl_alone;
#define CHECK(x) inl_check((x), #x, __FILE__, __LINE__)
void inl_check(bool ok, const char *text, const char *file, int line);

/* ---- uring_kernel.c ---------------------------------------------------------------------------------------------- */

#define ANY_TRANSFER (-1)
#define ALWAYS	     1000000000u

/* Set and read while no other thread does I/O. */
struct inl_kernel {
	/* seen: */
	unsigned n_sqes[IORING_OP_LAST];
	unsigned n_all;	   /* entries of any kind */
	unsigned n_dsyncs; /* ... with RWF_DSYNC */
	unsigned n_async;  /* ... with IOSQE_ASYNC */
	unsigned n_syncs;  /* begun, through a ring or not */
	unsigned n_shortened;
	unsigned n_submits, n_rings;
	unsigned n_at_once; /* preadv2, pwritev2 without RWF_NOWAIT */
	unsigned n_nowait;  /* ... with it */
	/* faults: */
	int setup_err;
	unsigned unknown_flags; /* to io_uring_setup: EINVAL */
	bool no_probe;
	unsigned lacks;		/* an opcode; 0: none */
	struct {
		int op;
		int rwf; /* only with these flags */
		int res;
		unsigned count;
	} inject;
	unsigned short_len;	/* transfers by the ring move so many bytes at most */
	unsigned refuse_every;	/* the n-th io_uring_submit fails */
	int sync_errno;		/* of fdatasync */
	int nowait_errno;	/* of preadv2 with RWF_NOWAIT */
};
extern struct inl_kernel inl_kernel;

void inl_kernel_reset(void);

/* How many syncs have begun; at any time. */
unsigned inl_kernel_n_syncs(void);

/* The result of the next count entries with this opcode is this, and nothing is done. */
void inl_kernel_inject(int op, int res, unsigned count);

/* ---- uring_rig.c: this machine ----------------------------------------------------------------------------------- */

extern char inl_dir[128]; /* for everything that the tests make; on a medium */
extern bool inl_has_uring, inl_has_direct, inl_has_nowait;

/* cmocka's fixture of a group. */
int inl_rig_set_up(void **state);
int inl_rig_tear_down(void **state);

/* Skip the test where this is lacking. */
void inl_skip_for(const char *reason);
void inl_needs_uring(void);
void inl_needs_inject(void);
void inl_needs_direct(void);

/* Text; a few of them at a time. */
const char *inl_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *inl_path_of(const char *name);

/* A number below n. */
unsigned inl_roll(unsigned n);

/* Random bytes, aligned to MEM_ALIGN. */
uint8_t *inl_memory(size_t len);

/* A file with these bytes; all of them on the medium. Returns a descriptor that the caller closes. */
int inl_make_file(const char *path, const void *bytes, size_t len);

/* A loop device on this descriptor. Returns its number, or -1 where that is not allowed; *fd keeps it. */
int inl_loop_attach(int backing, uint32_t block_size, int *fd);

struct inl_dev *inl_open_dev(const char *spec, unsigned flags);
struct inl_queue *inl_open_queue(struct inl_dev *dev, unsigned depth);

/* ---- uring_rig.c: one bio after the other, or a few -------------------------------------------------------------- */

struct inl_one {
	struct inl_bio bio;
	struct iovec seg;
	unsigned began_before, began_after; /* syncs when it was submitted, and when it was done */
	bool done;
};

void inl_submit_one(struct inl_queue *queue, struct inl_one *one);
void inl_submit_flush(struct inl_queue *queue, struct inl_one *one);
void inl_submit_write(struct inl_queue *queue, struct inl_one *one, uint64_t offset, void *buf, size_t len,
		      unsigned flags);
void inl_wait_for(struct inl_queue *queue, struct inl_one *one);

/* The same, waiting. Return the status. */
int inl_flush_now(struct inl_queue *queue);
int inl_write_now(struct inl_queue *queue, uint64_t offset, void *buf, size_t len, unsigned flags);
int inl_read_now(struct inl_queue *queue, uint64_t offset, void *buf, size_t len);
int inl_range_now(struct inl_queue *queue, enum inl_op op, uint64_t offset, uint64_t len);

/* ---- uring_rig.c: everything at once ----------------------------------------------------------------------------- */

/*
 * Random I/O on a device that holds the bytes of model. At the end both hold the same again.
 *
 *   odd    with memory and segments that are not aligned
 */
void inl_run_on(const char *spec, uint8_t *model, bool odd, unsigned n_ios);

/* The same on a new file; spec has a %s for its path. What lies in the file at the end is right, too. */
void inl_run_on_file(const char *spec, bool odd, unsigned n_ios);

void inl_compare(int fd, const uint8_t *model, size_t len);

#endif
