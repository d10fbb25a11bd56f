/*
 * serve/channel.c: what passes between libfuse and /dev/fuse.
 * Not here: what requests mean (names.c, attr.c, file.c, dir.c, control.c).
 * Read more: libfuse's fuse_session_custom_io; linux/fuse.h.
 *
 * Each worker reads from a descriptor of its own, into memory of its own: plaintext that programs write lies in these
 * buffers and nowhere else. And here is said and heard what libfuse 3.14 has no words for.
 */
#include "serve/serve.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE	    4096u
#define STACK_WIPED (96u << 10) /* bytes: more than a request needs */
#define HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in)) /* before the data of a write */

static _Thread_local struct inl_worker *current;
static _Thread_local int answer_fd = -1; /* where this thread's answers go; -1: to the session's own */

struct inl_worker *inl_worker_current(void)
{
	return current;
}

void inl_worker_become(struct inl_worker *worker)
{
	current = worker;
	answer_fd = worker->fd;
}

void inl_answer_for(const struct inl_worker *worker)
{
	answer_fd = worker ? worker->fd : -1;
}

int inl_worker_init(struct inl_worker *worker, struct inl_mount *mount)
{
	uint32_t master = (uint32_t)mount->fd;

	worker->mount = mount;
	worker->request = aligned_alloc(PAGE, PAGE + INL_REQUEST_MAX);
	worker->answer = aligned_alloc(PAGE, INL_REQUEST_MAX);
	worker->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (worker->fd >= 0 && ioctl(worker->fd, FUSE_DEV_IOC_CLONE, &master)) {
		close(worker->fd);
		worker->fd = -1;
	}
	/* Without one of its own (an unprivileged user may not open the device again) it shares the session's. */
	if (worker->fd < 0)
		worker->fd = mount->fd;
	return worker->request && worker->answer ? 0 : -ENOMEM;
}

void inl_worker_done(struct inl_worker *worker)
{
	if (worker->fd >= 0 && worker->fd != worker->mount->fd)
		close(worker->fd);
	if (worker->request)
		inl_wipe(worker->request, PAGE + INL_REQUEST_MAX);
	if (worker->answer)
		inl_wipe(worker->answer, INL_REQUEST_MAX);
	free(worker->request);
	free(worker->answer);
}

/* ---- what libfuse has no words for ------------------------------------------------------------------------------- */

/*
 * Who writes to a file takes its set-ID bits away. The kernel would ask before each write whether there is something to
 * take away (a getxattr of security.capability), unless it is promised that this is seen to: here, in inl_serve_write
 * and inl_serve_setattr.
 */
#define PROMISED FUSE_HANDLE_KILLPRIV_V2

static void amend_init(struct iovec *iov, int count)
{
	struct fuse_init_out *init;

	if (count != 2 || iov[1].iov_len < sizeof(*init))
		return;
	init = iov[1].iov_base;
	init->flags |= PROMISED;
}

/* The request that this thread is serving, as it was read. */
static const struct fuse_in_header *request_of(fuse_req_t req)
{
	return current ? inl_worker_buf(current) : NULL;
}

bool inl_request_kills_privileges(fuse_req_t req)
{
	const struct fuse_in_header *head = request_of(req);

	if (!head)
		return false;
	if (head->opcode == FUSE_SETATTR)
		return ((const struct fuse_setattr_in *)(head + 1))->valid & FATTR_KILL_SUIDGID;
	if (head->opcode == FUSE_WRITE)
		return ((const struct fuse_write_in *)(head + 1))->write_flags & FUSE_WRITE_KILL_SUIDGID;
	return false;
}

/* ---- the session's I/O ------------------------------------------------------------------------------------------- */

static bool begins_session(struct inl_worker *worker)
{
	return ((const struct fuse_in_header *)inl_worker_buf(worker))->opcode == FUSE_INIT;
}

static ssize_t channel_write(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;

	if (current && out->unique && begins_session(current))
		amend_init(iov, count);
	/* A notification belongs to no request. */
	return writev(out->unique && answer_fd >= 0 ? answer_fd : fd, iov, count);
}

static ssize_t channel_read(int fd, void *buf, size_t len, void *userdata)
{
	ssize_t n;

	if (!current)
		return read(fd, buf, len);
	/* libfuse allows for larger headers than there are. */
	if (len > HEAD + INL_REQUEST_MAX)
		len = HEAD + INL_REQUEST_MAX;
	/* The one place where a worker can be told to end: it has nothing in its hands. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	atomic_store_explicit(&current->waits, true, memory_order_relaxed);
	n = read(current->fd, buf, len);
	atomic_store_explicit(&current->waits, false, memory_order_relaxed);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	if (n > 0 && PAGE - HEAD + (size_t)n > current->request_used)
		current->request_used = PAGE - HEAD + (size_t)n;
	return n;
}

uint8_t *inl_worker_answer(size_t size)
{
	if (size > current->answer_used)
		current->answer_used = size;
	return current->answer;
}

/* Names pass through the stack as well. */
static void __attribute__((noinline)) wipe_stack(void)
{
	uint8_t below[STACK_WIPED];

	inl_wipe(below, sizeof(below));
}

void inl_worker_wipe(struct inl_worker *worker)
{
	inl_wipe(worker->request, worker->request_used);
	inl_wipe(worker->answer, worker->answer_used);
	worker->request_used = worker->answer_used = 0;
	wipe_stack();
}

/* The data of a write then begins on a page. */
void *inl_worker_buf(struct inl_worker *worker)
{
	return worker->request + PAGE - HEAD;
}

int inl_channel_set(struct inl_mount *mount)
{
	static const struct fuse_custom_io io = { .writev = channel_write, .read = channel_read };

	mount->fd = fuse_session_fd(mount->session);
	return fuse_session_custom_io(mount->session, &io, mount->fd);
}
