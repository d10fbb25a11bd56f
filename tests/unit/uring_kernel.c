/*
 * tests/unit/uring_kernel.c: stands before functions of liburing and of the C library: counts what is asked of the
 * kernel, and puts faults in.
 * Not here: what is expected (test_uring.c, test_durable.c).
 * Read more: uring_rig.h; io_uring_enter(2).
 */
#include "tests/unit/uring_rig.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>

#define NOP_INJECT 1u /* IORING_NOP_INJECT_RESULT, Linux 6.10 */

/* The real ones, from the shared library. */
static int real_submit(struct io_uring *ring)
{
	return ((int (*)(struct io_uring *))dlsym(RTLD_NEXT, "io_uring_submit"))(ring);
}

static int real_init(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	return ((int (*)(unsigned, struct io_uring *, struct io_uring_params *))dlsym(
		RTLD_NEXT, "io_uring_queue_init_params"))(entries, ring, params);
}

static struct io_uring_probe *real_probe(struct io_uring *ring)
{
	return ((struct io_uring_probe * (*)(struct io_uring *)) dlsym(RTLD_NEXT, "io_uring_get_probe_ring"))(ring);
}

static pthread_mutex_t kernel_lock = PTHREAD_MUTEX_INITIALIZER;
struct inl_kernel inl_kernel;

/* What of a ring was looked at already: rings belong to their threads. */
static _Thread_local struct {
	struct io_uring *ring;
	unsigned tail;
} looked[8];

static unsigned *looked_tail(struct io_uring *ring, bool anew)
{
	unsigned i = 0;

	while (i < 7 && looked[i].ring && looked[i].ring != ring)
		i++;
	if (anew || looked[i].ring != ring)
		looked[i].tail = 0;
	looked[i].ring = ring;
	return &looked[i].tail;
}

static bool is_transfer(unsigned op)
{
	return op == IORING_OP_READ || op == IORING_OP_WRITE || op == IORING_OP_READV || op == IORING_OP_WRITEV;
}

static void put_fault_in(struct io_uring_sqe *sqe)
{
	int op = inl_kernel.inject.op, rwf = inl_kernel.inject.rwf;
	bool wanted = op == ANY_TRANSFER ? is_transfer(sqe->opcode) : sqe->opcode == op;
	uint64_t data = sqe->user_data;

	if (inl_kernel.inject.count && wanted && (!rwf || sqe->rw_flags & rwf)) {
		inl_kernel.inject.count--;
		io_uring_prep_nop(sqe);
		sqe->rw_flags = NOP_INJECT;
		sqe->len = (unsigned)inl_kernel.inject.res;
		sqe->user_data = data;
	} else if (inl_kernel.short_len && is_transfer(sqe->opcode)) {
		bool one = sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_WRITE;
		unsigned most = one ? inl_kernel.short_len : 1; /* bytes; segments */

		inl_kernel.n_shortened += sqe->len > most;
		sqe->len = sqe->len < most ? sqe->len : most;
	}
}

static void look_at(struct io_uring_sqe *sqe)
{
	inl_kernel.n_all++;
	inl_kernel.n_sqes[sqe->opcode]++;
	inl_kernel.n_dsyncs += sqe->opcode == IORING_OP_WRITE && sqe->rw_flags & RWF_DSYNC;
	inl_kernel.n_async += (sqe->flags & IOSQE_ASYNC) != 0;
	inl_kernel.n_syncs += sqe->opcode == IORING_OP_FSYNC;
	put_fault_in(sqe);
}

int io_uring_submit(struct io_uring *ring)
{
	unsigned *tail = looked_tail(ring, false);
	bool refused;

	pthread_mutex_lock(&kernel_lock);
	refused = inl_kernel.refuse_every && ++inl_kernel.n_submits % inl_kernel.refuse_every == 0;
	for (; !refused && *tail != ring->sq.sqe_tail; ++*tail)
		look_at(&ring->sq.sqes[*tail & ring->sq.ring_mask]);
	pthread_mutex_unlock(&kernel_lock);
	return refused ? -EAGAIN : real_submit(ring);
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	int err;

	if (inl_kernel.setup_err || params->flags & inl_kernel.unknown_flags)
		return inl_kernel.setup_err ? inl_kernel.setup_err : -EINVAL;
	err = real_init(entries, ring, params);
	looked_tail(ring, true);
	pthread_mutex_lock(&kernel_lock);
	inl_kernel.n_rings += !err;
	pthread_mutex_unlock(&kernel_lock);
	return err;
}

struct io_uring_probe *io_uring_get_probe_ring(struct io_uring *ring)
{
	struct io_uring_probe *probe = inl_kernel.no_probe ? NULL : real_probe(ring);

	if (probe && inl_kernel.lacks)
		probe->ops[inl_kernel.lacks].flags = 0;
	return probe;
}

static void count_at_once(int flags)
{
	pthread_mutex_lock(&kernel_lock);
	inl_kernel.n_at_once += !(flags & RWF_NOWAIT);
	inl_kernel.n_nowait += (flags & RWF_NOWAIT) != 0;
	pthread_mutex_unlock(&kernel_lock);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	count_at_once(flags);
	if (flags & RWF_NOWAIT && inl_kernel.nowait_errno) {
		errno = inl_kernel.nowait_errno;
		return -1;
	}
	return syscall(SYS_preadv2, fd, iov, n, (long)pos, (long)((uint64_t)pos >> 32), flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	count_at_once(flags);
	return syscall(SYS_pwritev2, fd, iov, n, (long)pos, (long)((uint64_t)pos >> 32), flags);
}

int fdatasync(int fd)
{
	int err;

	pthread_mutex_lock(&kernel_lock);
	inl_kernel.n_syncs++;
	err = inl_kernel.sync_errno;
	inl_kernel.sync_errno = 0;
	pthread_mutex_unlock(&kernel_lock);
	errno = err;
	return err ? -1 : (int)syscall(SYS_fdatasync, fd);
}

void inl_kernel_reset(void)
{
	pthread_mutex_lock(&kernel_lock);
	memset(&inl_kernel, 0, sizeof(inl_kernel));
	pthread_mutex_unlock(&kernel_lock);
}

unsigned inl_kernel_n_syncs(void)
{
	unsigned n;

	pthread_mutex_lock(&kernel_lock);
	n = inl_kernel.n_syncs;
	pthread_mutex_unlock(&kernel_lock);
	return n;
}

/* The result of the next count entries of this kind is this, and nothing is done. */
void inl_kernel_inject(int op, int res, unsigned count)
{
	inl_kernel.inject.op = op;
	inl_kernel.inject.rwf = 0;
	inl_kernel.inject.res = res;
	inl_kernel.inject.count = count;
}

