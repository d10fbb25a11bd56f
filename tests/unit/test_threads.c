/*
 * tests/unit/test_threads.c: many threads on one device: slots, bounce memory, evictions, resets. Run under TSan too.
 * Not here: one thread (test_block.c); what becomes of a key when threads disagree (test_keys.c); faults (test_faults.c).
 * Read more: inlay/block.h, the "Threads:" lines. --ios=N: so many I/Os in all (make stress: 10^6); --seed=N: other dice.
 */
#include "tests/unit/pattern.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLOW 5
#elif __has_feature(address_sanitizer)
#define SLOW 2
#endif
#endif
#ifndef SLOW
#define SLOW 1 /* how many times slower than usual */
#endif

#define PATIENCE (20 * SLOW) /* seconds without progress until somebody is taken to be lost */

static uint64_t total_ios = 240000 / SLOW; /* of all storms together */
static uint64_t first_seed = 1;

/* ---- what threads complain of ------------------------------------------------------------------------------------ */

static atomic_uint complaints;

/* cmocka's assertions are for the main thread only. */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (atomic_fetch_add(&complaints, 1) < 10)
		fprintf(stderr, "# %s\n", text);
}

/* ---- the storm ------------------------------------------------------------------------------------------------------
 *
 * Each thread has an area of the device, cut into cells. A cell is written with any key and read with the key that it
 * was written with. Keys go and come back all the time, with the same bytes, and nobody is told: a bio with the handle of
 * a key that is gone must be refused, and must have done nothing.
 */
#define N_THREADS  8
#define N_KEYS_MAX 100
#define AREA	   (512u << 10)
#define DISK	   ((uint64_t)N_THREADS * AREA)
#define DEPTH_MAX  32
#define N_SEGS_MAX 4

/* Cells of a thread: 1 of 128 KiB, 8 of 16 KiB, 16 of 8 KiB, 32 of 4 KiB. */
static const struct {
	unsigned n;
	uint32_t len;
} cell_sizes[] = { { 1, 128u << 10 }, { 8, 16u << 10 }, { 16, 8u << 10 }, { 32, 4u << 10 } };
#define N_CELLS 57

struct setup {
	const char *spec;    /* %s: the path of a file of DISK bytes */
	unsigned n_keys;
	unsigned changes;    /* in 10000 steps: a key goes and comes back */
	unsigned resets;     /* in 10000 steps: an engine is reset */
	uint64_t share;	     /* of all I/Os, in percent */
};

struct entry {
	_Atomic(struct inl_key_use *) use;
	atomic_uint going;   /* threads that are evicting it, or have and are starting it again */
	struct inl_key *key; /* whoever evicted it owns this until use is set again */
};

struct cell {
	struct worker *worker;
	uint64_t pos;
	uint32_t len;
	uint8_t *buf;
	uint32_t version; /* that is on the device; 0: none */
	unsigned key;	  /* of that */
	bool busy;
	struct inl_key_use *use; /* of this bio */
	bool refused;	  /* it must end with -ENOKEY */
	unsigned calls;	  /* of done, for this bio */
	unsigned epoch;	  /* of this bio, modulo 4 */
	uint32_t new_version, at;
	unsigned new_key;
	struct iovec segs[N_SEGS_MAX];
	struct inl_bio bio;
};

enum place { AT_WORK, AT_SUBMIT, AT_WAIT, AT_REAP, AT_EVICT, AT_START, AT_RESET, AT_FREE, AT_END };
static const char *const places[] = { "at work", "submit", "submit_wait", "reap", "evict",
				      "start", "reset", "queue_free", "at its end" };

struct worker {
	struct storm *storm;
	unsigned id;
	pthread_t thread;
	uint64_t dice;
	struct inl_queue *queue;
	unsigned depth, n_busy;
	bool plugged;
	struct inl_key_use *evicting; /* by this thread, now */
	unsigned evicting_key;
	struct inl_bio flush;
	bool flushing;
	struct cell cells[N_CELLS];
	atomic_uint place, busy_seen; /* for the watchdog */
	atomic_ulong steps;
};

struct storm {
	const struct setup *setup;
	struct inl_dev *dev;
	struct inl_dev *engines[4];
	unsigned n_engines;
	bool native; /* the engines do the work, not the fallback */
	uint64_t target;
	atomic_ulong ios, changes, too_late, refused, from_callbacks, waits; /* ios: what the watchdog looks at */
	pthread_mutex_t reset_lock;
	atomic_ulong epoch;	    /* resets so far; reset_lock to change it */
	atomic_uint under_way[4];   /* bios by the epoch, modulo 4, in which they were started */
	atomic_ulong units_written, units_read;
	atomic_uint at_end;
	struct entry keys[N_KEYS_MAX];
	struct worker workers[N_THREADS];
};

static uint32_t key_unit(unsigned k)
{
	return k % 3 ? 4096 : 512;
}

static bool is_over(const struct storm *storm)
{
	return atomic_load(&storm->ios) >= storm->target || atomic_load(&complaints);
}

static void go(struct worker *worker, enum place place)
{
	atomic_store_explicit(&worker->place, place, memory_order_relaxed);
	atomic_store_explicit(&worker->busy_seen, worker->n_busy, memory_order_relaxed);
}

static void unplug(struct worker *worker)
{
	if (worker->plugged)
		inl_queue_unplug(worker->queue);
	worker->plugged = false;
}

static void reap(struct worker *worker, unsigned min)
{
	go(worker, AT_REAP);
	worker->plugged = false;
	inl_queue_reap(worker->queue, min);
	go(worker, AT_WORK);
}

/* ---- one I/O */

static void io_done(struct inl_bio *bio);

static struct cell *idle_cell(struct worker *worker)
{
	for (unsigned tries = 0; tries < 8; tries++) {
		struct cell *cell = &worker->cells[roll(&worker->dice, N_CELLS)];

		if (!cell->busy)
			return cell;
	}
	return NULL;
}

/* Cut the buffer of an I/O at random multiples of the unit. Returns how many pieces there are. */
static unsigned cut(struct worker *worker, struct cell *cell, uint32_t len, uint32_t unit)
{
	uint32_t at = 0;
	unsigned n = 0;

	while (at < len && n < N_SEGS_MAX - 1) {
		uint32_t piece = unit * (1 + roll(&worker->dice, len / unit));

		piece = piece > len - at ? len - at : piece;
		cell->segs[n++] = (struct iovec){ cell->buf + at, piece };
		at += piece;
	}
	if (at < len)
		cell->segs[n++] = (struct iovec){ cell->buf + at, len - at };
	return n;
}

static uint64_t cell_dun(const struct cell *cell, uint32_t unit, uint32_t at)
{
	return (cell->pos / 512 << 4) + at / unit;
}

static void occupy(struct cell *cell)
{
	struct storm *storm = cell->worker->storm;

	cell->busy = true;
	cell->worker->n_busy++;
	cell->epoch = atomic_load(&storm->epoch) % 4;
	atomic_fetch_add(&storm->under_way[cell->epoch], 1);
}

static void vacate(struct cell *cell)
{
	atomic_fetch_sub(&cell->worker->storm->under_way[cell->epoch], 1);
	cell->refused = false;
	cell->busy = false;
	cell->worker->n_busy--;
}

static void prepare(struct worker *worker, struct cell *cell, enum inl_op op, unsigned k, struct inl_key_use *use)
{
	uint32_t unit = key_unit(k), len = cell->len;
	struct inl_crypt_ctx ctx = { .use = use };

	cell->at = 0;
	if (op == INL_WRITE) {
		cell->new_version = cell->version % PATTERN_VERSION + 1;
		cell->new_key = k;
		pattern_fill(cell->buf, cell->pos, len, cell->new_version);
	} else {
		cell->at = unit * roll(&worker->dice, len / unit);
		len = unit * (1 + roll(&worker->dice, (len - cell->at) / unit));
		memset(cell->buf, 0xee, len);
	}
	cell->use = use;
	ctx.dun[0] = cell_dun(cell, unit, cell->at);
	inl_bio_init_keyed(&cell->bio, op, cell->pos + cell->at, cell->segs, cut(worker, cell, len, unit), &ctx);
	if (op == INL_WRITE && !roll(&worker->dice, 16))
		cell->bio.flags = INL_BIO_FUA;
	cell->bio.done = io_done;
	cell->bio.private_data = cell;
	cell->calls = 0;
	occupy(cell);
}

/* A key is not there only while somebody is changing it. */
static bool is_right(const struct cell *cell, int status)
{
	struct entry *entry = &cell->worker->storm->keys[cell->bio.op == INL_READ ? cell->key : cell->new_key];

	if (cell->refused || !status)
		return status == (cell->refused ? -ENOKEY : 0);
	return status == -ENOKEY && (atomic_load(&entry->going) || atomic_load(&entry->use) != cell->use);
}

/* What is true when a bio has ended. */
static void settle(struct cell *cell, int status)
{
	struct worker *worker = cell->worker;
	struct inl_bio *bio = &cell->bio;

	if (++cell->calls != 1)
		complain("a bio was called back %u times", cell->calls);
	if (!is_right(cell, status))
		complain("%s at %" PRIu64 ", %" PRIu64 " bytes: %s%s", bio->op == INL_READ ? "read" : "write", bio->offset,
			 bio->len, strerror(-status), cell->refused ? " instead of no key" : "");
	if (!status && bio->op == INL_READ && !pattern_is(cell->buf, bio->offset, bio->len, cell->version))
		complain("read at %" PRIu64 ", %" PRIu64 " bytes: not version %u", bio->offset, bio->len, cell->version);
	if (!status && bio->op == INL_WRITE) {
		cell->version = cell->new_version;
		cell->key = cell->new_key;
		atomic_fetch_add(&worker->storm->units_written, bio->len / key_unit(cell->key));
	} else if (!status) {
		atomic_fetch_add(&worker->storm->units_read, bio->len / key_unit(cell->key));
	} else {
		atomic_fetch_add(&worker->storm->refused, 1);
	}
	if (!status)
		atomic_fetch_add(&worker->storm->ios, 1);
	vacate(cell);
}

/* Start an I/O on the cell, if the key that it takes is there. */
static void start(struct worker *worker, struct cell *cell, bool in_callback)
{
	struct storm *storm = worker->storm;
	enum inl_op op = !cell->version || roll(&worker->dice, 2) ? INL_WRITE : INL_READ;
	unsigned k = op == INL_READ ? cell->key : roll(&worker->dice, storm->setup->n_keys);
	int err;

	prepare(worker, cell, op, k, atomic_load(&storm->keys[k].use));
	if (!in_callback && !roll(&worker->dice, 8)) {
		go(worker, AT_WAIT);
		atomic_fetch_add(&storm->waits, 1);
		err = inl_submit_wait(storm->dev, &cell->bio);
		settle(cell, err);
	} else {
		go(worker, AT_SUBMIT);
		err = inl_queue_submit(worker->queue, &cell->bio);
		if (err) {
			vacate(cell);
			if (err != -EAGAIN || in_callback)
				complain("submit: %s%s", strerror(-err), in_callback ? " in a callback" : "");
		}
	}
	go(worker, AT_WORK);
}

/* A bio of the key that this thread is evicting: refused, with nothing done. */
static void start_refused(struct worker *worker, struct cell *cell)
{
	prepare(worker, cell, roll(&worker->dice, 2) ? INL_WRITE : INL_READ, worker->evicting_key, worker->evicting);
	cell->refused = true;
	if (inl_queue_submit(worker->queue, &cell->bio))
		complain("submit failed in a callback");
}

static void io_done(struct inl_bio *bio)
{
	struct cell *cell = bio->private_data;
	struct worker *worker = cell->worker;
	bool was_refused = cell->refused;

	if (!pthread_equal(pthread_self(), worker->thread))
		complain("called back on another thread");
	settle(cell, bio->status);
	if (is_over(worker->storm))
		return;
	if (worker->evicting && !was_refused) {
		start_refused(worker, cell);
	} else if (!roll(&worker->dice, 4)) {
		struct cell *next = idle_cell(worker);

		atomic_fetch_add(&worker->storm->from_callbacks, 1);
		if (next)
			start(worker, next, true);
	}
}

static void flush_done(struct inl_bio *bio)
{
	struct worker *worker = bio->private_data;

	if (bio->status)
		complain("flush: %s", strerror(-bio->status));
	worker->flushing = false;
	worker->n_busy--;
	atomic_fetch_add(&worker->storm->ios, 1);
}

static void start_flush(struct worker *worker)
{
	if (worker->flushing)
		return;
	inl_bio_init_range(&worker->flush, INL_FLUSH, 0, 0);
	worker->flush.done = flush_done;
	worker->flush.private_data = worker;
	worker->flushing = true;
	worker->n_busy++;
	if (inl_queue_submit(worker->queue, &worker->flush)) {
		worker->flushing = false;
		worker->n_busy--;
	}
}

/* ---- what else happens */

/* A key comes back, as the same object or as a new one of the same bytes. */
static void bring_back(struct worker *worker, struct entry *entry, unsigned k)
{
	struct inl_key_use *use = NULL;
	int err = 0;

	if (roll(&worker->dice, 2)) {
		inl_key_put(entry->key);
		err = key_make(k, key_unit(k), &entry->key);
	}
	go(worker, AT_START);
	if (!err)
		err = inl_key_start(worker->storm->dev, entry->key, &use);
	if (err)
		complain("start: %s", strerror(-err));
	atomic_store(&entry->use, use);
	atomic_fetch_add(&worker->storm->changes, 1);
}

/* A key goes, on every engine. Of several threads that evict it, one does it, and brings it back. */
static void change_key(struct worker *worker)
{
	struct storm *storm = worker->storm;
	unsigned k = roll(&worker->dice, storm->setup->n_keys);
	struct entry *entry = &storm->keys[k];
	int err;

	atomic_fetch_add(&entry->going, 1);
	worker->evicting = atomic_load(&entry->use);
	worker->evicting_key = k;
	worker->plugged = false;
	go(worker, AT_EVICT);
	err = inl_key_evict(worker->evicting);
	worker->evicting = NULL;
	if (!err)
		bring_back(worker, entry, k);
	else if (err != -ENOKEY)
		complain("evict: %s", strerror(-err));
	else
		atomic_fetch_add(&storm->too_late, 1);
	go(worker, AT_WORK);
	atomic_fetch_sub(&entry->going, 1);
}

/*
 * An engine gives up a request that was aborted three times, so no bio may live to see three resets: the next one has to
 * wait until those have ended that were there before the last but one.
 */
static bool may_reset(struct storm *storm)
{
	unsigned long epoch = atomic_load(&storm->epoch);

	return !atomic_load(&storm->under_way[(epoch + 2) % 4]) && !atomic_load(&storm->under_way[(epoch + 1) % 4]);
}

/* One reset, or two at once. */
static void reset(struct worker *worker)
{
	struct storm *storm = worker->storm;
	struct inl_dev *engine = storm->n_engines ? storm->engines[roll(&worker->dice, storm->n_engines)] : NULL;

	if (!engine || pthread_mutex_trylock(&storm->reset_lock))
		return;
	go(worker, AT_RESET);
	for (unsigned n = 1 + !roll(&worker->dice, 4); n && may_reset(storm); n--) {
		if (inl_dev_control(engine, "reset", NULL))
			complain("reset failed");
		atomic_fetch_add(&storm->epoch, 1); /* not before: what is started meanwhile may see it */
	}
	pthread_mutex_unlock(&storm->reset_lock);
	go(worker, AT_WORK);
}

/* Another queue, of another depth. What is under way on the old one ends first. */
static void change_queue(struct worker *worker)
{
	go(worker, AT_FREE);
	inl_queue_free(worker->queue);
	worker->queue = NULL;
	worker->plugged = false;
	if (worker->n_busy)
		complain("%u bios under way after queue_free", worker->n_busy);
	worker->depth = 1 + roll(&worker->dice, roll(&worker->dice, 4) ? DEPTH_MAX : 2);
	if (inl_queue_new(worker->storm->dev, worker->depth, &worker->queue))
		complain("no queue");
	go(worker, AT_WORK);
}

static void step(struct worker *worker)
{
	const struct setup *setup = worker->storm->setup;
	unsigned n = roll(&worker->dice, 10000);
	struct cell *cell;

	if (inl_queue_n_busy(worker->queue) != worker->n_busy)
		complain("%u under way, %u counted", inl_queue_n_busy(worker->queue), worker->n_busy);
	if (n < setup->changes) {
		change_key(worker);
	} else if (n < setup->changes + setup->resets) {
		reset(worker);
	} else if (n < 500) {
		start_flush(worker);
	} else if (n < 1000) {
		inl_queue_plug(worker->queue);
		worker->plugged = true;
	} else if (n < 1500) {
		unplug(worker);
	} else if (n < 1550) {
		change_queue(worker);
	} else if (n < 2500) {
		reap(worker, roll(&worker->dice, worker->depth + 1));
	} else if (worker->n_busy == worker->depth || !(cell = idle_cell(worker))) {
		reap(worker, 1);
	} else {
		start(worker, cell, false);
	}
}

/* Everything that was acknowledged is there. */
static void read_back(struct worker *worker)
{
	struct storm *storm = worker->storm;

	for (unsigned i = 0; i < N_CELLS; i++) {
		struct cell *cell = &worker->cells[i];
		struct inl_crypt_ctx ctx = { .dun = { cell_dun(cell, key_unit(cell->key), 0) } };
		int err;

		if (!cell->version)
			continue;
		do {
			ctx.use = atomic_load(&storm->keys[cell->key].use);
			err = inl_dev_read_keyed(storm->dev, cell->pos, cell->buf, cell->len, &ctx);
		} while (err == -ENOKEY && !atomic_load(&complaints)); /* others are still changing keys */
		atomic_fetch_add(&storm->units_read, cell->len / key_unit(cell->key));
		if (err || !pattern_is(cell->buf, cell->pos, cell->len, cell->version))
			complain("at the end, %" PRIu64 ": %s", cell->pos, err ? strerror(-err) : "lost");
	}
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	worker->thread = pthread_self();
	change_queue(worker);
	while (!is_over(worker->storm)) {
		step(worker);
		atomic_fetch_add_explicit(&worker->steps, 1, memory_order_relaxed);
	}
	while (worker->n_busy)
		reap(worker, 1);
	go(worker, AT_END);
	if (!atomic_load(&complaints))
		read_back(worker);
	inl_queue_free(worker->queue);
	atomic_fetch_add(&worker->storm->at_end, 1);
	return NULL;
}

/* ---- around it */

typedef void visit_fn(struct inl_dev *dev, unsigned depth, void *arg);

static void walk(struct inl_dev *dev, unsigned depth, visit_fn *visit, void *arg)
{
	struct inl_dev *child;

	visit(dev, depth, arg);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		walk(child, depth + 1, visit, arg);
}

static void note_engine(struct inl_dev *dev, unsigned depth, void *arg)
{
	struct storm *storm = arg;

	if (!strcmp(inl_dev_driver(dev), "engine"))
		storm->engines[storm->n_engines++] = dev;
}

static void show_device(struct inl_dev *dev, unsigned depth, void *arg)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	fprintf(stderr,
		"# %*s%s(%s): reads %" PRIu64 " writes %" PRIu64 " flushes %" PRIu64 " hits %" PRIu64 " programs %" PRIu64
		" waits %" PRIu64 " evictions %" PRIu64 " resets %" PRIu64 " bounce waits %" PRIu64 " splits %" PRIu64
		" merges %" PRIu64 " started %" PRIu64 " evicted %" PRIu64 " errors %" PRIu64 "\n",
		(int)depth * 2, "", inl_dev_driver(dev), inl_dev_label(dev), c.reads, c.writes, c.flushes, c.slot_hits,
		c.slot_programs, c.slot_waits, c.slot_evictions, c.resets, c.bounce_waits, c.splits, c.merges,
		c.keys_started, c.keys_evicted, c.errors);
}

static void show(struct storm *storm)
{
	fprintf(stderr, "# no I/O has ended for %d s: %s\n", PATIENCE, storm->setup->spec);
	walk(storm->dev, 0, show_device, NULL);
	for (unsigned i = 0; i < N_THREADS; i++) {
		struct worker *worker = &storm->workers[i];

		fprintf(stderr, "# thread %u: %s, %u under way, step %lu\n", i, places[atomic_load(&worker->place)],
			atomic_load(&worker->busy_seen), atomic_load(&worker->steps));
	}
	for (unsigned k = 0; k < storm->setup->n_keys; k++) {
		unsigned going = atomic_load(&storm->keys[k].going);

		if (going)
			fprintf(stderr, "# key %u: %u threads are changing it\n", k, going);
	}
}

/* Until all are at their end. A thread that waits for ever is a lost waiter: the rest could not end without it. */
static void watch(struct storm *storm)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	unsigned long last = 0, quiet = 0;

	while (atomic_load(&storm->at_end) < N_THREADS) {
		unsigned long now = atomic_load(&storm->ios) + atomic_load(&storm->at_end);

		quiet = now == last ? quiet + 1 : 0;
		last = now;
		if (quiet > PATIENCE * 100ul) {
			show(storm);
			abort();
		}
		nanosleep(&pause, NULL);
	}
}

static void worker_init(struct storm *storm, unsigned id)
{
	struct worker *worker = &storm->workers[id];
	uint64_t pos = (uint64_t)id * AREA;
	unsigned n = 0;

	worker->storm = storm;
	worker->id = id;
	worker->dice = first_seed * 1000 + id;
	for (unsigned i = 0; i < sizeof(cell_sizes) / sizeof(cell_sizes[0]); i++)
		for (unsigned j = 0; j < cell_sizes[i].n; j++) {
			struct cell *cell = &worker->cells[n++];

			*cell = (struct cell){ .worker = worker, .pos = pos, .len = cell_sizes[i].len };
			cell->buf = malloc(cell->len);
			assert_non_null(cell->buf);
			pos += cell->len;
		}
	assert_int_equal(n, N_CELLS);
	assert_int_equal(pos, (uint64_t)(id + 1) * AREA);
}

static void storm_init(struct storm *storm, const struct setup *setup, const char *spec)
{
	struct inl_diag diag = { 0 };

	storm->setup = setup;
	pthread_mutex_init(&storm->reset_lock, NULL);
	storm->target = total_ios * setup->share / 100;
	if (inl_dev_open(spec, INL_OPEN_WRITE, &diag, &storm->dev))
		fail_msg("%s: %s", spec, diag.text);
	assert_int_equal(inl_dev_size(storm->dev), DISK);
	walk(storm->dev, 0, note_engine, storm);
	for (unsigned k = 0; k < setup->n_keys; k++) {
		struct entry *entry = &storm->keys[k];
		struct inl_key_use *use;

		assert_int_equal(key_make(k, key_unit(k), &entry->key), 0);
		assert_int_equal(inl_key_start(storm->dev, entry->key, &use), 0);
		atomic_store(&entry->use, use);
		storm->native = inl_key_use_native(use);
	}
	for (unsigned i = 0; i < N_THREADS; i++)
		worker_init(storm, i);
}

/* Nothing is left over: every key can be evicted, every start has its end, and what engines count adds up. */
static void check_device(struct inl_dev *dev, unsigned depth, void *arg)
{
	const struct storm *storm = arg;
	struct inl_counters c;
	long at = inl_dev_child(dev, 0) ? -1 : pattern_find_on(dev);

	inl_dev_counters(dev, &c);
	if (at != -1)
		complain("plaintext at %ld of %s", at, inl_dev_driver(dev));
	if (c.keys_started != c.keys_evicted)
		complain("%s: %" PRIu64 " keys started, %" PRIu64 " evicted", inl_dev_driver(dev), c.keys_started,
			 c.keys_evicted);
	if (c.slot_evictions > c.slot_programs || c.slot_program_failures || c.slot_evict_failures)
		complain("%s: %" PRIu64 " programs, %" PRIu64 " evictions", inl_dev_driver(dev), c.slot_programs,
			 c.slot_evictions);
	if (storm->native && inl_dev_n_slots(dev) > 0 && !c.slot_programs)
		complain("%s: no slot was ever programmed", inl_dev_driver(dev));
}

static void count_units(struct inl_dev *dev, unsigned depth, void *arg)
{
	uint64_t *units = arg;
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	units[0] += c.engine_units_encrypted + c.fallback_units_encrypted;
	units[1] += c.engine_units_decrypted + c.fallback_units_decrypted;
}

/* What was written and read, every unit of it, went through an engine or the fallback, once. */
static void check_units(struct storm *storm)
{
	uint64_t units[2] = { 0 };

	walk(storm->dev, 0, count_units, units);
	if (units[0] != atomic_load(&storm->units_written) || units[1] != atomic_load(&storm->units_read))
		complain("%lu units written, %" PRIu64 " encrypted; %lu read, %" PRIu64 " decrypted",
			 atomic_load(&storm->units_written), units[0], atomic_load(&storm->units_read), units[1]);
}

static void storm_done(struct storm *storm)
{
	check_units(storm);
	for (unsigned k = 0; k < storm->setup->n_keys; k++) {
		struct entry *entry = &storm->keys[k];

		if (inl_key_evict(atomic_load(&entry->use)))
			complain("a key cannot be evicted at the end");
		inl_key_put(entry->key);
	}
	walk(storm->dev, 0, check_device, storm);
	inl_dev_close(storm->dev);
	for (unsigned i = 0; i < N_THREADS; i++)
		for (unsigned n = 0; n < N_CELLS; n++)
			free(storm->workers[i].cells[n].buf);
}

/* path: a file that the device holds open from here on; or NULL. */
static void run_spec(const struct setup *setup, const char *spec, const char *path)
{
	struct storm *storm = calloc(1, sizeof(*storm));

	assert_non_null(storm);
	storm_init(storm, setup, spec);
	if (path)
		unlink(path);
	for (unsigned i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&storm->workers[i].thread, NULL, work, &storm->workers[i]), 0);
	watch(storm);
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(storm->workers[i].thread, NULL);
	storm_done(storm);
	if (setup->changes && !atomic_load(&storm->changes))
		complain("no key ever went");
	if (setup->resets && !atomic_load(&storm->epoch))
		complain("no reset ever came");
	print_message("# %s: %lu I/Os, %lu waited for, %lu from callbacks, %lu refused, %lu keys changed, %lu resets\n",
		      spec, atomic_load(&storm->ios), atomic_load(&storm->waits), atomic_load(&storm->from_callbacks),
		      atomic_load(&storm->refused), atomic_load(&storm->changes), atomic_load(&storm->epoch));
	pthread_mutex_destroy(&storm->reset_lock);
	free(storm);
	if (atomic_load(&complaints))
		fail_msg("%u complaints; --seed=%" PRIu64 " --ios=%" PRIu64, atomic_load(&complaints), first_seed,
			 total_ios);
}

static void run(const struct setup *setup)
{
	const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	char path[256], spec[512];
	int fd;

	atomic_store(&complaints, 0);
	if (!strstr(setup->spec, "%s")) {
		run_spec(setup, setup->spec, NULL);
		return;
	}
	snprintf(path, sizeof(path), "%s/inlay-threads-XXXXXX", tmp);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)DISK), 0);
	close(fd);
	snprintf(spec, sizeof(spec), "%.*s%s%s", (int)(strstr(setup->spec, "%s") - setup->spec), setup->spec, path,
		 strstr(setup->spec, "%s") + 2);
	run_spec(setup, spec, path);
}

static void test_one_slot(void **state)
{
	run(&(struct setup){ "engine(ram(4M), slots=1)", 5, 100, 0, 10 });
}

static void test_one_slot_100_keys(void **state)
{
	run(&(struct setup){ "engine(ram(4M), slots=1, threads=2)", 100, 200, 50, 15 });
}

static void test_two_slots_little_memory(void **state)
{
	run(&(struct setup){ "engine(ram(4M), slots=2, threads=1, bounce=64K)", 10, 100, 50, 10 });
}

static void test_four_slots(void **state)
{
	run(&(struct setup){ "engine(ram(4M), slots=4, threads=2)", 3, 100, 50, 10 });
}

static void test_no_slots(void **state)
{
	run(&(struct setup){ "engine(ram(4M), slots=0, threads=2)", 20, 100, 0, 10 });
}

static void test_fallback(void **state)
{
	run(&(struct setup){ "fault(ram(4M), bounce=64K)", 20, 100, 0, 10 });
}

/* Straight into the medium, which is memory, but for what is durable or would be cut. */
static void test_memory(void **state)
{
	run(&(struct setup){ "ram(4M)", 20, 100, 0, 10 });
}

/* Engines with slots of their own, and without: every key is on all of them. */
static void test_stack(void **state)
{
	run(&(struct setup){ "stripe(engine(ram(1M), slots=1, threads=1), engine(ram(1M), slots=2), "
			     "engine(ram(1M), slots=0), engine(ram(1M), slots=1), chunk=8K)",
			     20, 100, 50, 10 });
}

/* A child that cannot: the fallback does it for all. */
static void test_mixed_stack(void **state)
{
	run(&(struct setup){ "linear(engine(ram(2M), slots=1, threads=1), ram(2M), bounce=64K)", 20, 100, 50, 5 });
}

/* The medium takes its time, and so does the engine. */
static void test_slow_medium(void **state)
{
	run(&(struct setup){ "engine(fault(ram(4M), delay=30us), slots=1, threads=1, latency=10us)", 4, 100, 50, 5 });
}

static void test_file(void **state)
{
	run(&(struct setup){ "engine(file(%s), slots=3, threads=1)", 10, 100, 50, 10 });
}

static void test_file_fallback(void **state)
{
	run(&(struct setup){ "linear(slice(file(%s), length=4M))", 10, 100, 0, 5 });
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--ios=", 6))
			total_ios = strtoull(argv[i] + 6, NULL, 10);
		else if (!strncmp(argv[i], "--seed=", 7))
			first_seed = strtoull(argv[i] + 7, NULL, 10);
		else if (!strncmp(argv[i], "--only=", 7))
			cmocka_set_test_filter(argv[i] + 7);
		else
			exit(2);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_slot),
		cmocka_unit_test(test_one_slot_100_keys),
		cmocka_unit_test(test_two_slots_little_memory),
		cmocka_unit_test(test_four_slots),
		cmocka_unit_test(test_no_slots),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_stack),
		cmocka_unit_test(test_mixed_stack),
		cmocka_unit_test(test_slow_medium),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_fallback),
	};

	read_options(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
