/*
 * block/thread.c: what a thread has to do: turns, bios posted by other threads, timers, sleeping and being woken.
 * Not here: what is done with a bio (submit.c); queues as callers see them (queue.c).
 * Read more: ARCHITECTURE.md, "Submit never sleeps".
 */
#include "block/own.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define TURN_SHARE 128	  /* bios after which a turn looks at what else has happened */
#define TURN_MAX   4096	  /* ... after which it ends */
#define SPIN_NS	   60000u /* a sleep may take this much longer than asked for; so long a thread waits awake for a timer */

_Thread_local struct inl_thread *inl_thread_self;

static struct {
	pthread_once_t once;
	pthread_key_t key;	  /* its destructor gives the thread's struct back */
	bool ok;
	pthread_mutex_t lock;
	struct inl_thread *free;  /* lock */
	unsigned n_threads;	  /* lock */
} global = { .once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* The thread ends. One that left queues behind is not used again: there may be bios that think it alive. */
static void thread_done(void *arg)
{
	struct inl_thread *thread = arg;

	inl_thread_self = NULL;
	if (thread->queues)
		return;
	pthread_mutex_lock(&global.lock);
	thread->next_free = global.free;
	global.free = thread;
	pthread_mutex_unlock(&global.lock);
}

static void global_init(void)
{
	global.ok = pthread_key_create(&global.key, thread_done) == 0;
}

static struct inl_thread *thread_new(void)
{
	struct inl_thread *thread = calloc(1, sizeof(*thread));

	if (!thread)
		return NULL;
	pthread_mutex_init(&thread->lock, NULL);
	inl_cond_init(&thread->cond);
	thread->pipe[0] = thread->pipe[1] = -1;
	pthread_mutex_lock(&global.lock);
	thread->shard = global.n_threads < INL_SHARD_SHARED ? global.n_threads : INL_SHARD_SHARED;
	global.n_threads++;
	pthread_mutex_unlock(&global.lock);
	return thread;
}

static struct inl_thread *thread_make(void)
{
	struct inl_thread *thread;

	pthread_once(&global.once, global_init);
	if (!global.ok)
		return NULL;
	pthread_mutex_lock(&global.lock);
	thread = global.free;
	if (thread)
		global.free = thread->next_free;
	pthread_mutex_unlock(&global.lock);
	if (!thread)
		thread = thread_new();
	if (thread)
		pthread_setspecific(global.key, thread);
	inl_thread_self = thread;
	return thread;
}

struct inl_thread *inl_thread_get(void)
{
	return inl_thread_self ? inl_thread_self : thread_make();
}

int inl_thread_need_pipe(struct inl_thread *thread)
{
	if (thread->pipe[0] >= 0)
		return 0;
	if (pipe2(thread->pipe, O_CLOEXEC | O_NONBLOCK)) {
		thread->pipe[0] = thread->pipe[1] = -1;
		return -EMFILE;
	}
	return 0;
}

bool inl_thread_has_work(const struct inl_thread *thread)
{
	for (const struct inl_queue *queue = thread->queues; queue; queue = queue->next) {
		if (queue->n_busy)
			return true;
	}
	return false;
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static void flush_queues(struct inl_thread *thread)
{
	for (struct inl_queue *queue = thread->queues; queue; queue = queue->next) {
		if (queue->dirty && !queue->plugged)
			inl_queue_flush(queue);
	}
}

static unsigned take_events(struct inl_thread *thread);

/*
 * Callbacks may submit for ever, to a device that is done at once: every now and then the others have their turn too,
 * and at last the caller, with the rest left for the next call.
 */
unsigned inl_turn_run(struct inl_thread *thread)
{
	struct inl_bio *bio;
	unsigned n = 0;

	do {
		while (n < TURN_MAX && (bio = inl_bio_list_pop(&thread->turn))) {
			inl_bio_dispatch(bio);
			if (inl_piece_spare_wanted(thread))
				inl_piece_return_spare(thread);
			if (inl_use_spare_wanted(thread))
				inl_use_return_spare(thread);
			if (++n % TURN_SHARE == 0) {
				flush_queues(thread);
				take_events(thread);
			}
		}
		flush_queues(thread);
		/* In this order: once its uses are let go of, a device may be closed, and its pieces with it. */
		inl_piece_return_spare(thread);
		inl_use_return_spare(thread);
	} while (thread->turn.head && n < TURN_MAX);
	thread->running = false;
	return n;
}

/* What a callback would wait for may itself wait for the callback. */
bool inl_may_wait(void)
{
	return !inl_thread_self || !inl_thread_self->running;
}

static void wake(struct inl_thread *thread)
{
	static const char byte;

	if (!atomic_exchange(&thread->asleep, false))
		return;
	if (atomic_load(&thread->by_pipe)) {
		while (write(thread->pipe[1], &byte, 1) < 0 && errno == EINTR)
			;
		return;
	}
	pthread_mutex_lock(&thread->lock);
	thread->woken = true;
	pthread_cond_signal(&thread->cond);
	pthread_mutex_unlock(&thread->lock);
}

static void post(struct inl_thread *thread, struct inl_bio *bio)
{
	struct inl_bio *newest = atomic_load_explicit(&thread->posted, memory_order_relaxed);

	do
		bio->state.next = newest;
	while (!atomic_compare_exchange_weak(&thread->posted, &newest, bio));
	/* The bio may be done and gone now; threads stay. */
	if (atomic_load(&thread->asleep))
		wake(thread);
}

void inl_todo(struct inl_bio *bio, enum inl_todo todo)
{
	struct inl_thread *thread = bio->state.thread;
	bool first;

	bio->state.todo = (unsigned char)todo;
	if (thread != inl_thread_self) {
		post(thread, bio);
		return;
	}
	first = inl_turn_begin(thread);
	inl_bio_list_add(&thread->turn, bio);
	inl_turn_end(thread, first);
}

void inl_todo_first(struct inl_bio *bio, enum inl_todo todo)
{
	struct inl_bio_list *turn = &bio->state.thread->turn;

	bio->state.todo = (unsigned char)todo;
	bio->state.next = turn->head;
	turn->head = bio;
	if (!turn->tail)
		turn->tail = bio;
}

void inl_bio_again(struct inl_bio *bio)
{
	inl_todo(bio, INL_TODO_DRIVE);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

void inl_bio_again_at(struct inl_bio *bio, uint64_t ns)
{
	struct inl_bio **at = &bio->state.thread->later;

	bio->state.todo = INL_TODO_DRIVE;
	bio->state.again_at = ns;
	while (*at && (*at)->state.again_at <= ns)
		at = &(*at)->state.next;
	bio->state.next = *at;
	*at = bio;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static unsigned take_posted(struct inl_thread *thread)
{
	struct inl_bio *bio, *oldest = NULL;
	unsigned n = 0;

	if (!atomic_load_explicit(&thread->posted, memory_order_relaxed))
		return 0;
	bio = atomic_exchange(&thread->posted, NULL);
	while (bio) {
		struct inl_bio *next = bio->state.next;

		bio->state.next = oldest;
		oldest = bio;
		bio = next;
	}
	while (oldest) {
		struct inl_bio *next = oldest->state.next;

		inl_bio_list_add(&thread->turn, oldest);
		oldest = next;
		n++;
	}
	return n;
}

static unsigned take_due(struct inl_thread *thread)
{
	uint64_t now;
	unsigned n = 0;

	if (!thread->later)
		return 0;
	now = inl_now_ns();
	while (thread->later && thread->later->state.again_at <= now) {
		struct inl_bio *bio = thread->later;

		thread->later = bio->state.next;
		inl_bio_list_add(&thread->turn, bio);
		n++;
	}
	return n;
}

/* What has happened elsewhere joins the turn. */
static unsigned take_events(struct inl_thread *thread)
{
	unsigned n = take_posted(thread) + take_due(thread);

	for (struct inl_queue *queue = thread->queues; queue; queue = queue->next)
		n += inl_queue_poll(queue);
	return n;
}

unsigned inl_thread_poll(struct inl_thread *thread)
{
	bool first = inl_turn_begin(thread);
	unsigned n = 0;

	for (struct inl_queue *queue = thread->queues; queue; queue = queue->next) {
		n += queue->plugged;
		inl_queue_unplug(queue);
	}
	n += take_events(thread);
	return first ? n + inl_turn_run(thread) : n;
}

/* Until a descriptor is readable, somebody writes to the pipe, or the first timer is due. */
static void sleep_on_fds(struct inl_thread *thread)
{
	struct pollfd fds[INL_THREAD_FDS_MAX + 1];
	struct timespec wait, *timeout = NULL;
	nfds_t n = 0;
	char bytes[64];

	for (struct inl_queue *queue = thread->queues; queue; queue = queue->next) {
		for (unsigned i = 0; i < queue->n_ctx && queue->n_busy; i++)
			fds[n++] = (struct pollfd){ .fd = queue->ctx[i].fd, .events = POLLIN };
	}
	fds[n++] = (struct pollfd){ .fd = thread->pipe[0], .events = POLLIN };
	if (thread->later) {
		uint64_t now = inl_now_ns(), due = thread->later->state.again_at - SPIN_NS;

		wait = inl_timespec_of(due > now ? due - now : 0);
		timeout = &wait;
	}
	ppoll(fds, n, timeout, NULL);
	if (fds[n - 1].revents & POLLIN) {
		while (read(thread->pipe[0], bytes, sizeof(bytes)) > 0)
			;
	}
}

static void sleep_on_cond(struct inl_thread *thread)
{
	struct timespec until = { 0 };

	if (thread->later)
		until = inl_timespec_of(thread->later->state.again_at - SPIN_NS);
	pthread_mutex_lock(&thread->lock);
	while (!thread->woken) {
		if (!thread->later)
			pthread_cond_wait(&thread->cond, &thread->lock);
		else if (pthread_cond_timedwait(&thread->cond, &thread->lock, &until))
			break;
	}
	thread->woken = false;
	pthread_mutex_unlock(&thread->lock);
}

/* The first timer is due too soon to sleep. */
static bool due_soon(const struct inl_thread *thread)
{
	return thread->later && thread->later->state.again_at < inl_now_ns() + SPIN_NS;
}

static void sleep_until_woken(struct inl_thread *thread)
{
	bool by_pipe = thread->n_fds > 0;

	atomic_store(&thread->by_pipe, by_pipe);
	atomic_store(&thread->asleep, true);
	if (!atomic_load(&thread->posted)) {
		if (by_pipe)
			sleep_on_fds(thread);
		else
			sleep_on_cond(thread);
	}
	/* Not woken by another thread, or not yet: if it is about to, its byte or flag makes one sleep shorter. */
	atomic_store(&thread->asleep, false);
}

void inl_thread_wait(struct inl_thread *thread)
{
	while (!inl_thread_poll(thread)) {
		if (!due_soon(thread))
			sleep_until_woken(thread);
	}
}
