/*
 * drivers/uring.c: the file driver's context of a queue: one io_uring, and the bios that the kernel has.
 * Not here: what a bio needs, call by call (file.c); queues without io_uring (file.c, too).
 * Read more: io_uring(7), io_uring_setup(2); inlay/driver.h, "queue_new".
 *
 * All of it belongs to the thread of the queue: no locks. Buffers and files are not registered with the ring: that
 * brought nothing measurable, and a registered file would outlive its device, with its lock.
 */
#include "drivers/file.h"
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>

#define REQUESTS_MIN 32 /* one bio may arrive here as many pieces */
#define ASYNC_TRIES  1	/* calls that ended with EAGAIN before the next is made at once */
#define START_EARLY  4	/* calls: the medium need not wait until all of a queue has been collected */

/* One bio under way. It has at most one entry in the rings, so that these never overflow. */
struct request {
	struct inl_file_io io;
	struct request *next; /* of the free ones */
	struct iovec iov[INL_FILE_SEGS];
};

struct uring {
	struct io_uring ring;
	bool can_allocate;  /* the kernel has IORING_OP_FALLOCATE */
	bool starting;	    /* start_waiting runs */
	unsigned n_ended;   /* bios, ever */
	unsigned n_pending; /* requests that are in the rings or with the kernel */
	struct request *free;
	struct inl_bio_list waiting; /* for a free request */
	struct request requests[];
};

static void end(struct uring *uring, struct request *req);

/* ---- the submission queue ---------------------------------------------------------------------------------------- */

/* The i-th entry that the kernel has not taken yet. Its request; NULL: it was taken back. */
static struct io_uring_sqe *prepared(struct uring *uring, unsigned i, struct request **req)
{
	struct io_uring_sq *sq = &uring->ring.sq;
	struct io_uring_sqe *sqe = &sq->sqes[(*sq->khead + i) & sq->ring_mask];

	*req = (struct request *)(uintptr_t)sqe->user_data;
	return sqe;
}

/* Has the kernel something of ours, so that a completion will come? */
static bool kernel_is_busy(struct uring *uring)
{
	unsigned n_prepared = 0;
	struct request *req;

	for (unsigned i = 0; i < io_uring_sq_ready(&uring->ring); i++) {
		prepared(uring, i, &req);
		n_prepared += req != NULL;
	}
	return uring->n_pending > n_prepared;
}

/* Do the rest of a bio without the ring. */
static void finish_without(struct uring *uring, struct request *req)
{
	inl_file_run(&req->io);
	end(uring, req);
}

/* The kernel takes nothing, and nothing of ours will change that: do what is prepared without it. */
static bool take_back(struct uring *uring)
{
	struct request *req;
	bool any = false;

	for (unsigned i = 0; i < io_uring_sq_ready(&uring->ring); i++) {
		struct io_uring_sqe *sqe = prepared(uring, i, &req);

		if (!req)
			continue;
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, NULL);
		uring->n_pending--;
		finish_without(uring, req);
		any = true;
	}
	return any;
}

void inl_uring_flush(void *ctx)
{
	struct uring *uring = ctx;

	while (io_uring_sq_ready(&uring->ring)) {
		int ret = io_uring_submit(&uring->ring);

		if (ret > 0 || ret == -EINTR)
			continue;
		/* Out of memory, perhaps. The next completion will have it tried again, if there will be one. */
		if (kernel_is_busy(uring) || !take_back(uring))
			return;
	}
}

/* The call of this step as an entry for the kernel. */
static void fill_in(struct io_uring_sqe *sqe, const struct inl_file_io *io)
{
	uint64_t pos = io->bio->state.pos + io->at;
	bool one = io->n_iov == 1, read = io->step == INL_FILE_READ;

	if (io->step == INL_FILE_SYNC) {
		io_uring_prep_fsync(sqe, io->file->fd, IORING_FSYNC_DATASYNC);
		return;
	}
	if (io->step == INL_FILE_ALLOCATE) {
		io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, io->file->fd, NULL, (unsigned)io->mode, io->bio->state.pos);
		sqe->addr = io->bio->len;
		return;
	}
	if (one)
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe, io->file->fd, io->iov->iov_base,
				 (unsigned)io->iov->iov_len, pos);
	else
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, io->file->fd, io->iov, io->n_iov, pos);
	sqe->rw_flags = io->rwf;
}

static void prepare(struct uring *uring, struct request *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe) { /* only what was taken back fills it, and the kernel still takes nothing */
		finish_without(uring, req);
		return;
	}
	fill_in(sqe, &req->io);
	if (req->io.n_tries)
		sqe->flags |= IOSQE_ASYNC; /* by a thread of the kernel's that may wait */
	io_uring_sqe_set_data(sqe, req);
	uring->n_pending++;
	if (io_uring_sq_ready(&uring->ring) >= START_EARLY)
		inl_uring_flush(uring);
}

/* ---- bios -------------------------------------------------------------------------------------------------------- */

/*
 * Is this a call to make here and now? What only touches memory is: the kernel would give a write to the page cache to
 * a thread of its own, which takes far longer. And what io_uring does not have, or does not get done.
 */
static bool is_for_now(const struct uring *uring, const struct inl_file_io *io)
{
	const struct inl_file *file = io->file;

	if (file->in_memory || io->step == INL_FILE_DISCARD || io->n_tries > ASYNC_TRIES)
		return true;
	if (io->step == INL_FILE_WRITE)
		return !file->direct && !io->rwf;
	return io->step == INL_FILE_ALLOCATE && !uring->can_allocate;
}

/* Read what is in the page cache. Returns: true if that was all that was asked for. */
static bool read_cached(struct inl_file_io *io)
{
	uint64_t len = io->len;
	ssize_t ret;

	if (io->step != INL_FILE_READ || io->file->direct ||
	    atomic_load_explicit(&io->file->no_nowait, memory_order_relaxed))
		return false;
	ret = inl_file_call(io, RWF_NOWAIT);
	if (ret == -EOPNOTSUPP)
		atomic_store_explicit(&io->file->no_nowait, true, memory_order_relaxed);
	if (ret > 0) /* anything else may be for want of waiting */
		inl_file_next(io, ret);
	return ret > 0 && (uint64_t)ret == len;
}

/* Go on as far as that is possible without waiting for the medium. */
static void go_on(struct uring *uring, struct request *req)
{
	struct inl_file_io *io = &req->io;

	while (io->step > INL_FILE_END) {
		if (is_for_now(uring, io))
			inl_file_next(io, inl_file_call(io, 0));
		else if (!read_cached(io))
			break;
	}
	if (io->step > INL_FILE_END)
		prepare(uring, req);
	else
		end(uring, req);
}

static void start(struct uring *uring, struct inl_file *file, struct inl_bio *bio)
{
	struct request *req = uring->free;

	uring->free = req->next;
	req->io.iov = req->iov;
	req->io.max_iov = INL_FILE_SEGS;
	inl_file_begin(&req->io, file, bio);
	go_on(uring, req);
}

static void start_waiting(struct uring *uring)
{
	struct inl_bio *bio;

	if (uring->starting)
		return;
	uring->starting = true;
	while (uring->free && (bio = inl_bio_list_pop(&uring->waiting)))
		start(uring, inl_dev_priv(bio->state.dev), bio);
	uring->starting = false;
}

/* As long as a bio waits, whoever gives a request back comes by here. */
static void end(struct uring *uring, struct request *req)
{
	req->next = uring->free;
	uring->free = req;
	uring->n_ended += req->io.step == INL_FILE_END;
	inl_file_end(&req->io);
	start_waiting(uring);
}

void inl_uring_submit(void *ctx, struct inl_file *file, struct inl_bio *bio)
{
	struct uring *uring = ctx;

	if (uring->free && !uring->waiting.head)
		start(uring, file, bio);
	else
		inl_bio_list_add(&uring->waiting, bio);
}

unsigned inl_uring_reap(void *ctx)
{
	struct uring *uring = ctx;
	unsigned n_before = uring->n_ended;
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&uring->ring, &cqe)) {
		struct request *req = io_uring_cqe_get_data(cqe);
		int ret = cqe->res;

		io_uring_cqe_seen(&uring->ring, cqe);
		if (!req)
			continue;
		uring->n_pending--;
		inl_file_next(&req->io, ret);
		go_on(uring, req);
	}
	inl_uring_flush(uring);
	return uring->n_ended - n_before;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* With the flags that save interrupts and locks, as far as this kernel has them. */
static int open_ring(struct uring *uring, unsigned n_entries)
{
	static const unsigned flags[] = {
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			IORING_SETUP_SINGLE_ISSUER, /* 6.0 */
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 5.19 */
		0,
	};
	int err = -EINVAL;

	/* Not IORING_SETUP_DEFER_TASKRUN: it would leave a thread that waits with ppoll asleep. */
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]) && err == -EINVAL; i++) {
		struct io_uring_params params = { .flags = flags[i] };

		err = io_uring_queue_init_params(n_entries, &uring->ring, &params);
	}
	return err;
}

static int probe(struct uring *uring)
{
	static const int needed[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_WRITEV,
				      IORING_OP_FSYNC };
	struct io_uring_probe *known = io_uring_get_probe_ring(&uring->ring);
	int err = known ? 0 : -ENOSYS;

	for (unsigned i = 0; known && i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (!io_uring_opcode_supported(known, needed[i]))
			err = -ENOSYS;
	}
	uring->can_allocate = known && io_uring_opcode_supported(known, IORING_OP_FALLOCATE);
	if (known)
		io_uring_free_probe(known);
	return err;
}

int inl_uring_new(unsigned depth, void **ctx)
{
	unsigned n = REQUESTS_MIN;
	struct uring *uring;
	int err;

	while (n < depth)
		n *= 2;
	uring = calloc(1, sizeof(*uring) + n * sizeof(uring->requests[0]));
	if (!uring)
		return -ENOMEM;
	err = open_ring(uring, n);
	if (err) {
		free(uring);
		return err;
	}
	err = probe(uring);
	if (err) {
		inl_uring_free(uring);
		return err;
	}
	for (unsigned i = 0; i < n; i++) {
		uring->requests[i].next = uring->free;
		uring->free = &uring->requests[i];
	}
	*ctx = uring;
	return 0;
}

void inl_uring_free(void *ctx)
{
	struct uring *uring = ctx;

	io_uring_queue_exit(&uring->ring);
	free(uring);
}

int inl_uring_fd(void *ctx)
{
	struct uring *uring = ctx;

	return uring->ring.ring_fd;
}
