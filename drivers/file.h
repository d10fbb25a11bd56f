/*
 * drivers/file.h: what the two halves of the file driver share: the I/O of one bio as a series of system calls.
 * Not here: opening a file and what follows each call (file.c); having calls done by io_uring (uring.c).
 * Read more: inlay/driver.h, "queue_new".
 */
#ifndef INLAY_DRIVERS_FILE_H
#define INLAY_DRIVERS_FILE_H

#include <inlay/driver.h>
#include <pthread.h>
#include <stdatomic.h>

#define INL_FILE_SEGS 64 /* of one call at least; a payload of more goes on as after a short transfer */

/* Bios that make something durable take turns; see "durability" in file.c. */
struct inl_file_sync {
	pthread_mutex_t lock;
	/* lock: */
	bool taken;		     /* some bio has the turn */
	int err;		     /* the first error, for good */
	struct inl_bio_list sharing; /* the call that runs is theirs too */
	struct inl_bio_list waiting; /* came while it ran */
};

struct inl_file {
	int fd;
	bool is_blk;
	bool direct;
	bool in_memory;	       /* the file system is: no call ever waits for a medium */
	uint32_t block_size;   /* bytes */
	uint32_t mem_align;    /* bytes: what O_DIRECT wants of memory; 1: anything */
	uint64_t size;	       /* bytes */
	atomic_bool no_nowait; /* RWF_NOWAIT does not work here */
	atomic_bool no_dsync;  /* RWF_DSYNC does not work here */
	struct inl_file_sync sync;
};

/* What a bio needs next. */
enum inl_file_step {
	INL_FILE_GONE, /* nothing: it waits for its turn to sync, and may have ended by now; not to be touched */
	INL_FILE_END,  /* to be ended with status */
	/* One system call: */
	INL_FILE_READ,
	INL_FILE_WRITE,
	INL_FILE_SYNC,
	INL_FILE_ALLOCATE,
	INL_FILE_DISCARD,
};

struct inl_file_io {
	struct inl_file *file;
	struct inl_bio *bio;
	enum inl_file_step step;
	int status;
	bool has_turn;	   /* to sync */
	int rwf;	   /* READ, WRITE: RWF_* */
	int mode;	   /* ALLOCATE: FALLOC_FL_* */
	unsigned n_tries;  /* calls that ended with EAGAIN */
	uint64_t at;	   /* bytes of the payload that are done */
	uint64_t len;	   /* bytes: READ, WRITE: of the segments */
	struct iovec *iov; /* room for max_iov, at least INL_FILE_SEGS */
	unsigned n_iov, max_iov;
};

/* The first step; iov and max_iov are set. May be GONE or END. */
void inl_file_begin(struct inl_file_io *io, struct inl_file *file, struct inl_bio *bio);

/* Make the call of this step, with these RWF_* flags besides. Returns what it returns, or -errno. */
ssize_t inl_file_call(const struct inl_file_io *io, int rwf);

/* The call has returned this: decide on the next step. */
void inl_file_next(struct inl_file_io *io, ssize_t ret);

/* All remaining steps, here and now. */
void inl_file_run(struct inl_file_io *io);

/* After the last step: pass on the turn and end the bio. *io may be used for another bio as soon as this one ends. */
void inl_file_end(const struct inl_file_io *io);

/* ---- inuse.c ----------------------------------------------------------------------------------------------------- */

/*
 * Does the kernel use this file or block device: is it mounted, part of another device, or behind a loop device?
 *
 * Returns: 0: not as far as can be seen; -EBUSY, and diag says how.
 */
struct stat;
int inl_file_in_use(const struct stat *st, const char *path, struct inl_diag *diag);

/* ---- uring.c ----------------------------------------------------------------------------------------------------- */

/* The queue functions of struct inl_dev_ops. new fails where there is no io_uring, or one that lacks what is needed. */
int inl_uring_new(unsigned depth, void **ctx);
void inl_uring_free(void *ctx);
void inl_uring_flush(void *ctx);
unsigned inl_uring_reap(void *ctx);
int inl_uring_fd(void *ctx);

/* Perform a bio: what need not wait for the medium at once, the rest through the ring. */
void inl_uring_submit(void *ctx, struct inl_file *file, struct inl_bio *bio);

#endif
