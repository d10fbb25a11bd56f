/*
 * block/workers.c: helping threads for large work on memory.
 * Not here: when that is worth it (cross.c).
 * Read more: ARCHITECTURE.md, "The life of an I/O".
 *
 * One fewer than there are processors, made when first needed, for the process. The caller takes part and does all of it
 * if nobody comes: where no threads can be made, all is slower and nothing else.
 */
#include "block/own.h"
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#define WORKERS_MAX 15

struct work {
	void (*fn)(void *arg, unsigned i);
	void *arg;
	unsigned n;
	atomic_uint next;  /* the first that nobody has taken */
	unsigned n_inside; /* pool.lock: workers that know of it */
	struct work *link; /* pool.lock */
};

static struct {
	pthread_once_t once;
	unsigned n_workers;
	pthread_mutex_t lock;
	pthread_cond_t come, leave;
	struct work *works; /* lock */
} pool = { .once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER,
	   .leave = PTHREAD_COND_INITIALIZER };

static void take_part(struct work *work)
{
	unsigned i;

	while ((i = atomic_fetch_add(&work->next, 1)) < work->n)
		work->fn(work->arg, i);
}

static void *worker(void *arg)
{
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct work *work = pool.works;

		while (work && atomic_load(&work->next) >= work->n)
			work = work->link;
		if (!work) {
			pthread_cond_wait(&pool.come, &pool.lock);
			continue;
		}
		work->n_inside++;
		pthread_mutex_unlock(&pool.lock);
		take_part(work);
		pthread_mutex_lock(&pool.lock);
		if (--work->n_inside == 0)
			pthread_cond_broadcast(&pool.leave);
	}
	return NULL;
}

/* The processors that this process may use: in a container fewer than there are. */
static long n_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
}

static void pool_init(void)
{
	long n = n_processors() - 1;
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;

	/* Signals are for the threads that the program knows of. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (pool.n_workers < (n < WORKERS_MAX ? n : WORKERS_MAX) && !pthread_create(&thread, &attr, worker, NULL))
		pool.n_workers++;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

unsigned inl_spread_width(void)
{
	pthread_once(&pool.once, pool_init);
	return pool.n_workers + 1;
}

void inl_spread(unsigned n, void (*fn)(void *arg, unsigned i), void *arg)
{
	struct work work = { .fn = fn, .arg = arg, .n = n }, **at;

	pthread_mutex_lock(&pool.lock);
	work.link = pool.works;
	pool.works = &work;
	pthread_cond_broadcast(&pool.come);
	pthread_mutex_unlock(&pool.lock);
	take_part(&work);
	pthread_mutex_lock(&pool.lock);
	for (at = &pool.works; *at != &work; at = &(*at)->link)
		;
	*at = work.link;
	while (work.n_inside)
		pthread_cond_wait(&pool.leave, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
}
