/*
 * cli/load.c: the I/O of `inlay bench block`: threads, each with a queue that it keeps full.
 * Not here: what is asked for (cli/bench.c); what is printed (cli/figures.c).
 * Read more: inlay/block.h, "queues".
 */
#include "cli/bench.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

struct load {
	struct inl_dev *dev;
	const struct inl_bench_plan *plan;
	struct inl_key_use *const *uses;
	const struct inl_bench_choice *choice;
	struct worker *workers;
	unsigned n_workers; /* those whose thread was made */

	pthread_mutex_t lock; /* for what follows; change: it did */
	pthread_cond_t change;
	unsigned n_ready, n_ended;
	bool go;
};

struct worker;

struct io {
	struct inl_bio bio;
	struct iovec seg;
	struct worker *worker;
	enum inl_bench_kind kind;
	uint64_t started; /* ns; 0: it is not timed */
};

/* A thread. All is its own, except err and result after its end. */
struct worker {
	const struct load *load;
	pthread_t thread;
	struct inl_queue *queue;
	struct io *ios, **idle;
	unsigned n_idle;
	uint8_t *memory;     /* the buffers of all ios, one after the other */
	uint64_t first, next; /* bytes: where its part of the range begins; sequential: the next place in it */
	uint64_t left;        /* I/Os to be started */
	uint64_t n_writes;    /* since the last flush */
	uint64_t to_sample;   /* I/Os until one is timed */
	uint64_t random, ended;
	int err;
	struct inl_bench_result result; /* errors and kinds only */
};

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static atomic_bool stopped; /* time is up, or something keeps the load from going on */

/* ---- chance ------------------------------------------------------------------------------------------------------ */

/* SplitMix64. */
static inline uint64_t random_u64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* 0 .. n - 1 */
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	return (uint64_t)((unsigned __int128)random_u64(state) * n >> 64);
}

void inl_bench_noise(uint64_t *state, void *buf, size_t len)
{
	uint8_t *p = buf;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t value = random_u64(state);

		memcpy(p, &value, 8);
	}
	for (; len; len--)
		*p++ = (uint8_t)random_u64(state);
}

static unsigned choose_key(struct worker *w)
{
	const struct inl_bench_choice *choice = w->load->choice;
	uint64_t i;

	if (choice->n == 1)
		return 0;
	i = random_below(&w->random, choice->n);
	return (uint32_t)random_u64(&w->random) < choice->rows[i].stay ? (unsigned)i : choice->rows[i].other;
}

static enum inl_bench_kind choose_kind(struct worker *w)
{
	const struct inl_bench_plan *plan = w->load->plan;

	if (plan->flush && w->n_writes >= plan->flush)
		return INL_BENCH_FLUSH;
	if (plan->read_percent == 100)
		return INL_BENCH_READ;
	if (!plan->read_percent)
		return INL_BENCH_WRITE;
	return random_below(&w->random, 100) < plan->read_percent ? INL_BENCH_READ : INL_BENCH_WRITE;
}

static uint64_t choose_place(struct worker *w)
{
	const struct inl_bench_plan *plan = w->load->plan;
	uint64_t at;

	if (!plan->sequential)
		return w->first + random_below(&w->random, plan->share / plan->bs) * plan->bs;
	at = w->next;
	w->next = at + plan->bs < plan->share ? at + plan->bs : 0;
	return w->first + at;
}

/* ---- one I/O ----------------------------------------------------------------------------------------------------- */

static void note_error(struct worker *w, const struct io *io)
{
	if (!w->result.n_errors++) {
		w->result.first_error.when = inl_now_ns();
		w->result.first_error.kind = io->kind;
		w->result.first_error.offset = io->bio.offset;
		w->result.first_error.err = io->bio.status;
	}
}

static bool over(const struct worker *w)
{
	return !w->left || atomic_load_explicit(&stopped, memory_order_relaxed) || inl_cli_interrupted();
}

static int start_one(struct worker *w);

/* Its successor is submitted here: what a thread does for many bios in one go costs less than one by one. */
static void done(struct inl_bio *bio)
{
	struct io *io = bio->private_data;
	struct worker *w = io->worker;

	if (bio->status) {
		note_error(w, io);
	} else {
		w->result.kinds[io->kind].n++;
		w->result.kinds[io->kind].bytes += bio->len;
		if (io->started)
			inl_times_add(&w->result.kinds[io->kind].times, inl_now_ns() - io->started);
	}
	w->idle[w->n_idle++] = io;
	if (!w->load->plan->plug && !w->err && !over(w))
		w->err = start_one(w);
}

static void init_payload(struct worker *w, struct io *io, enum inl_op op)
{
	const struct inl_bench_plan *plan = w->load->plan;
	uint64_t offset = choose_place(w);

	if (plan->keyed) {
		struct inl_crypt_ctx ctx = {
			.use = w->load->uses[choose_key(w)],
			.dun = { offset / plan->unit },
		};

		inl_bio_init_keyed(&io->bio, op, offset, &io->seg, 1, &ctx);
	} else {
		inl_bio_init_plain(&io->bio, op, offset, &io->seg, 1);
	}
}

static uint64_t start_time(struct worker *w)
{
	if (!w->to_sample || --w->to_sample)
		return 0;
	w->to_sample = w->load->plan->sample;
	return inl_now_ns();
}

static int start_one(struct worker *w)
{
	struct io *io = w->idle[--w->n_idle];
	int err;

	io->kind = choose_kind(w);
	if (io->kind == INL_BENCH_FLUSH) {
		inl_bio_init_range(&io->bio, INL_FLUSH, 0, 0);
		w->n_writes = 0;
	} else {
		init_payload(w, io, io->kind == INL_BENCH_READ ? INL_READ : INL_WRITE);
		w->n_writes += io->kind == INL_BENCH_WRITE;
		w->left--;
	}
	io->bio.done = done;
	io->bio.private_data = io;
	io->started = start_time(w);
	err = inl_queue_submit(w->queue, &io->bio);
	if (err)
		w->idle[w->n_idle++] = io;
	return err;
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

/* Fill the queue once, or submit one batch; then wait until there is room for more. */
static int one_round(struct worker *w)
{
	const struct inl_bench_plan *plan = w->load->plan;
	unsigned n = plan->plug ? (unsigned)plan->plug : w->n_idle, room = plan->plug ? n : 1;
	int err = 0;

	if (plan->plug)
		inl_queue_plug(w->queue);
	for (; n && w->n_idle && !err && !over(w); n--)
		err = start_one(w);
	if (plan->plug)
		inl_queue_unplug(w->queue);
	if (w->n_idle < room)
		inl_queue_reap(w->queue, room - w->n_idle);
	else if (inl_queue_n_busy(w->queue))
		inl_queue_reap(w->queue, 0);
	return err ? err : w->err;
}

static int set_up(struct worker *w)
{
	const struct inl_bench_plan *plan = w->load->plan;
	size_t len = plan->depth * plan->bs;
	int err;

	w->memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w->ios = calloc(plan->depth, sizeof(*w->ios));
	w->idle = calloc(plan->depth, sizeof(w->idle[0]));
	if (w->memory == MAP_FAILED || !w->ios || !w->idle)
		return -ENOMEM;
	inl_bench_noise(&w->random, w->memory, len);
	for (unsigned i = 0; i < plan->depth; i++) {
		w->ios[i].worker = w;
		w->ios[i].seg = (struct iovec){ w->memory + i * plan->bs, plan->bs };
		w->idle[w->n_idle++] = &w->ios[i];
	}
	err = inl_queue_new(w->load->dev, (unsigned)plan->depth, &w->queue);
	if (err)
		w->queue = NULL;
	return err;
}

static void clean_up(struct worker *w)
{
	inl_queue_free(w->queue);
	if (w->memory && w->memory != MAP_FAILED)
		munmap(w->memory, w->load->plan->depth * w->load->plan->bs);
	free(w->ios);
	free(w->idle);
}

static void wait_to_start(struct load *load)
{
	pthread_mutex_lock(&load->lock);
	load->n_ready++;
	pthread_cond_broadcast(&load->change);
	while (!load->go)
		pthread_cond_wait(&load->change, &load->lock);
	pthread_mutex_unlock(&load->lock);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct load *load = (struct load *)w->load;
	int err = w->err = set_up(w);

	wait_to_start(load);
	while (!err && !over(w))
		err = one_round(w);
	if (err)
		atomic_store(&stopped, true);
	while (w->queue && inl_queue_n_busy(w->queue))
		inl_queue_reap(w->queue, inl_queue_n_busy(w->queue));
	w->ended = inl_now_ns();
	w->err = err;
	clean_up(w);
	pthread_mutex_lock(&load->lock);
	load->n_ended++;
	pthread_cond_broadcast(&load->change);
	pthread_mutex_unlock(&load->lock);
	return NULL;
}

/* ---- all threads ------------------------------------------------------------------------------------------------- */

static int make_workers(struct load *load)
{
	const struct inl_bench_plan *plan = load->plan;
	int err = 0;

	for (unsigned i = 0; i < plan->n_threads && !err; i++) {
		struct worker *w = &load->workers[i];

		w->load = load;
		w->first = i * plan->share;
		w->random = plan->seed + i * UINT64_C(0x632be59bd9b4e019);
		w->to_sample = plan->sample;
		w->left = plan->count ? plan->count / plan->n_threads + (i < plan->count % plan->n_threads)
				      : UINT64_MAX;
		err = -pthread_create(&w->thread, NULL, work, w);
		load->n_workers += !err;
	}
	pthread_mutex_lock(&load->lock);
	while (load->n_ready < load->n_workers)
		pthread_cond_wait(&load->change, &load->lock);
	pthread_mutex_unlock(&load->lock);
	for (unsigned i = 0; i < load->n_workers && !err; i++)
		err = load->workers[i].err;
	return err;
}

/* Let all go, and wait for their end; when time is up they are told to stop. Returns when they started, ns. */
static uint64_t run_workers(struct load *load)
{
	uint64_t start = inl_now_ns(), end = start + (uint64_t)(load->plan->seconds * 1e9);
	struct timespec until = { (time_t)(end / 1000000000), (long)(end % 1000000000) };
	int err = 0;

	pthread_mutex_lock(&load->lock);
	load->go = true;
	pthread_cond_broadcast(&load->change);
	while (load->n_ended < load->n_workers && !err)
		err = load->plan->seconds > 0 ? pthread_cond_timedwait(&load->change, &load->lock, &until)
					      : pthread_cond_wait(&load->change, &load->lock);
	pthread_mutex_unlock(&load->lock);
	if (err)
		atomic_store(&stopped, true);
	for (unsigned i = 0; i < load->n_workers; i++)
		pthread_join(load->workers[i].thread, NULL);
	return start;
}

static uint64_t ns_of(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_usec * 1000;
}

static void add_result(struct inl_bench_result *into, const struct inl_bench_result *from)
{
	if (from->n_errors && (!into->n_errors || from->first_error.when < into->first_error.when))
		into->first_error = from->first_error;
	into->n_errors += from->n_errors;
	for (unsigned i = 0; i < INL_BENCH_KINDS; i++) {
		into->kinds[i].n += from->kinds[i].n;
		into->kinds[i].bytes += from->kinds[i].bytes;
		inl_times_merge(&into->kinds[i].times, &from->kinds[i].times);
	}
}

static int run(struct load *load, struct inl_bench_result *result)
{
	struct rusage before, after;
	uint64_t start, end = 0;
	int err;

	err = make_workers(load);
	if (err)
		atomic_store(&stopped, true);
	getrusage(RUSAGE_SELF, &before);
	start = run_workers(load);
	getrusage(RUSAGE_SELF, &after);
	for (unsigned i = 0; i < load->n_workers; i++) {
		err = err ? err : load->workers[i].err;
		end = load->workers[i].ended > end ? load->workers[i].ended : end;
		add_result(result, &load->workers[i].result);
	}
	result->elapsed = end > start ? end - start : 1;
	result->user = ns_of(&after.ru_utime) - ns_of(&before.ru_utime);
	result->system = ns_of(&after.ru_stime) - ns_of(&before.ru_stime);
	result->interrupted = inl_cli_interrupted();
	return err;
}

int inl_bench_load(struct inl_dev *dev, const struct inl_bench_plan *plan, struct inl_key_use *const *uses,
		   const struct inl_bench_choice *choice, struct inl_bench_result *result)
{
	struct load load = { .dev = dev, .plan = plan, .uses = uses, .choice = choice };
	pthread_condattr_t attr;
	int err;

	load.workers = calloc(plan->n_threads, sizeof(*load.workers));
	if (!load.workers)
		return -ENOMEM;
	pthread_mutex_init(&load.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&load.change, &attr);
	inl_cli_catch_signals(true);
	err = run(&load, result);
	pthread_condattr_destroy(&attr);
	pthread_cond_destroy(&load.change);
	pthread_mutex_destroy(&load.lock);
	free(load.workers);
	return err;
}
