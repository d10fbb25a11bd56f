/*
 * tests/unit/test_faults.c: every fault of the emulated engine and of the fault device, alone and in pairs, while bios are
 * under way: nothing acknowledged is lost, errors arrive once and where they belong, no buffer holds what is not its own.
 * Not here: whether each rule does what it says (test_engine.c, test_stack.c); threads (test_threads.c).
 * Read more: doc/inlay.1, "DEVICES". --cases=N: N random draws of up to three faults; --seed=N: other dice.
 */
#include "tests/unit/pattern.h"
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

#define CELL	  (16u << 10)
#define N_CELLS	  16u
#define DISK	  (N_CELLS * CELL)
#define SECTOR	  512u
#define N_SECTORS (CELL / SECTOR)
#define N_KEYS	  2u
#define DEPTH_MAX 16u
#define PATIENCE  60 /* seconds for one scenario, after which a bio is taken to be lost */

static uint64_t first_seed = 1;
static unsigned n_cases = SLOW ? 300 : 2000;

/* ---- faults ------------------------------------------------------------------------------------------------------ */

#define READS	(1u << INL_READ)
#define WRITES	(1u << INL_WRITE)
#define FLUSHES (1u << INL_FLUSH)
#define ALWAYS	UINT32_MAX

struct fault {
	const char *driver, *rule;
	unsigned hits;	  /* operations that may end with an error, of those that it can make fail */
	uint32_t n;	  /* errors at most */
	int err;
	bool sure;	  /* alone, it makes exactly n of the operations fail, or all */
	bool loses;	  /* an acknowledged write may be lost: that is what it is for */
	bool keeps;	  /* an eviction may fail */
};

static const struct fault faults[] = {
	{ "engine", "reset@1", 0, 0, 0 },
	{ "engine", "reset@3", 0, 0, 0 },
	{ "engine", "reset@2..3", 0, 0, 0 },
	{ "engine", "program@1", READS | WRITES, 1, -EIO },
	{ "engine", "program@2", READS | WRITES, 1, -EIO },
	{ "engine", "evict@1", 0, 0, 0, .keeps = true },
	{ "engine", "evict@*", 0, 0, 0, .keeps = true },
	{ "engine", "io@1", READS | WRITES, 1, -EIO, .sure = true },
	{ "engine", "io@2..3", READS | WRITES, 2, -EIO },
	{ "engine", "latency=20us", 0, 0, 0 },
	{ "fault", "read@1=EIO", READS, 1, -EIO, .sure = true },
	{ "fault", "read@2=EREMOTEIO", READS, 1, -EREMOTEIO },
	{ "fault", "read@*=EIO", READS, ALWAYS, -EIO, .sure = true },
	{ "fault", "read@1..3=delay:50us", 0, 0, 0 },
	{ "fault", "write@1=EIO", WRITES, 1, -EIO, .sure = true },
	{ "fault", "write@2=ENOSPC", WRITES, 1, -ENOSPC },
	{ "fault", "write@*=ENOSPC", WRITES, ALWAYS, -ENOSPC, .sure = true },
	{ "fault", "write@1=torn:512", WRITES, 1, -EIO, .sure = true },
	{ "fault", "write@2=torn:8K", WRITES, 1, -EIO },
	{ "fault", "write@1=drop", 0, 0, 0, .loses = true },
	{ "fault", "write@1..2=delay:50us", 0, 0, 0 },
	{ "fault", "flush@1=EIO", FLUSHES, 1, -EIO, .sure = true },
	{ "fault", "flush@*=drop", 0, 0, 0 },
	{ "fault", "bad=20000..50000", READS | WRITES, ALWAYS, -EIO },
	{ "fault", "delay=10us", 0, 0, 0 },
};
#define N_FAULTS     (sizeof(faults) / sizeof(faults[0]))
#define TOGETHER_MAX 3

/* Under test: stacks with one engine and one fault device, or less, on a ram device. */
static const struct {
	const char *spec;
	bool whole; /* every bio meets the engine and the fault device */
} stacks[] = {
	{ "engine(fault(ram(256K)), slots=1)", true },
	{ "engine(fault(ram(256K)), slots=1, threads=1)", true },
	{ "engine(fault(ram(256K)), slots=0, threads=2)", true },
	{ "fault(engine(ram(256K), slots=2, threads=1))", true },
	{ "engine(fault(ram(256K)), slots=1, bounce=64K)", true },
	{ "fault(ram(256K), bounce=64K)", true },
	{ "stripe(engine(fault(ram(128K)), slots=1, threads=1), engine(ram(128K), slots=1), chunk=8K)", false },
};
#define N_STACKS (sizeof(stacks) / sizeof(stacks[0]))

enum phase { PHASE_READ, PHASE_WRITE, PHASE_MIX, PHASE_MERGED, PHASE_EVICT, N_PHASES };
static const char *const phase_names[] = { "reads", "writes", "reads, writes and flushes", "adjacent bios",
					   "evictions" };

/* ---- the lab ----------------------------------------------------------------------------------------------------- */

/* What lies on the device, sector by sector: a version from low to high. They differ after a write that failed. */
struct cell {
	uint32_t low[N_SECTORS], high[N_SECTORS];
	bool busy;
};

struct io {
	struct lab *lab;
	struct inl_bio bio;
	struct iovec segs[2];
	uint8_t *buf;	/* CELL bytes */
	struct cell *cell;
	uint32_t at;	/* bytes into the cell */
	uint32_t version;
	uint8_t canary;
	bool busy;
	unsigned calls;
};

struct lab {
	struct inl_dev *dev, *engine, *fault;
	struct inl_queue *queue;
	struct inl_key *keys[N_KEYS];
	struct inl_key_use *uses[N_KEYS];
	struct cell cells[N_CELLS];
	struct io ios[DEPTH_MAX];
	struct inl_bio flush;
	bool flushing;
	uint32_t version;
	uint64_t dice;
	/* of a scenario: */
	const struct fault *faults[TOGETHER_MAX];
	unsigned n_faults, stack, depth;
	enum phase phase;
	unsigned n_ops[INL_ZERO + 1], n_errors[INL_ZERO + 1], n_evict_errors;
	/* of all of them: */
	unsigned n_scenarios;
	uint64_t n_lost, n_torn, n_evict_errors_seen, errors_by[N_FAULTS], n_own_plain, n_own_sealed;
};

static char scenario[400]; /* for who is killed in the middle of it */

static void out_of_patience(int signal)
{
	static const char text[] = "# a bio was lost: ";

	(void)!write(2, text, sizeof(text) - 1);
	(void)!write(2, scenario, strlen(scenario));
	(void)!write(2, "\n", 1);
	abort();
}

/* Mostly called from within the block layer: cmocka's way out of there, a long jump, would break what follows. */
__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "# %s: ", scenario);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

static uint32_t key_unit(unsigned k)
{
	return k ? 4096 : SECTOR;
}

static unsigned cell_index(const struct lab *lab, const struct cell *cell)
{
	return (unsigned)(cell - lab->cells);
}

static unsigned cell_key(const struct lab *lab, const struct cell *cell)
{
	return cell_index(lab, cell) % N_KEYS;
}

static uint64_t cell_pos(const struct lab *lab, const struct cell *cell)
{
	return (uint64_t)cell_index(lab, cell) * CELL;
}

static uint64_t cell_dun(const struct lab *lab, const struct cell *cell, uint32_t at)
{
	return 0xffffffe0u + ((uint64_t)cell_index(lab, cell) << 8) + at / key_unit(cell_key(lab, cell));
}

/* ---- what a buffer may hold -------------------------------------------------------------------------------------- */

/* Is the 16-byte block ciphertext of a version of its place? */
static bool is_own_sealed(struct lab *lab, const struct io *io, const uint8_t *block, uint32_t at)
{
	unsigned k = cell_key(lab, io->cell);
	uint32_t unit = key_unit(k), start = at / unit * unit, sector = at / SECTOR;
	uint8_t plain[4096], sealed[4096];

	for (uint32_t v = io->cell->low[sector]; v <= io->cell->high[sector]; v++) {
		pattern_fill(plain, cell_pos(lab, io->cell) + start, unit, v);
		if (!unit_crypt(k, cell_dun(lab, io->cell, start), plain, sealed, (int)unit, true))
			give_up("OpenSSL failed");
		if (!memcmp(block, sealed + (at - start), 16))
			return true;
	}
	return false;
}

static bool all_bytes(const uint8_t *block, uint8_t byte)
{
	for (unsigned i = 0; i < 16; i++)
		if (block[i] != byte)
			return false;
	return true;
}

static bool is_own_plain(struct lab *lab, const struct cell *cell, const uint8_t *block, uint32_t at)
{
	long version = pattern_version(block, cell_pos(lab, cell) + at);

	return version >= (long)cell->low[at / SECTOR] && version <= (long)cell->high[at / SECTOR];
}

/* A read that failed: what was there before, zeros, or what belongs to this place. */
static void check_failed_read(struct lab *lab, const struct io *io)
{
	for (uint32_t i = 0; i < io->bio.len; i += 16) {
		const uint8_t *block = io->buf + i;

		if (all_bytes(block, io->canary) || all_bytes(block, 0))
			continue;
		if (is_own_plain(lab, io->cell, block, io->at + i))
			lab->n_own_plain++;
		else if (is_own_sealed(lab, io, block, io->at + i))
			lab->n_own_sealed++;
		else
			give_up("a failed read at %" PRIu64 " holds foreign bytes at %u", io->bio.offset, i);
	}
}

static void check_good_read(struct lab *lab, const struct io *io)
{
	for (uint32_t i = 0; i < io->bio.len; i += 16)
		if (!is_own_plain(lab, io->cell, io->buf + i, io->at + i))
			give_up("a read at %" PRIu64 ": wrong bytes at %u", io->bio.offset, i);
}

/* ---- one I/O ----------------------------------------------------------------------------------------------------- */

static bool any_fault(const struct lab *lab, bool (*is)(const struct fault *fault))
{
	for (unsigned i = 0; i < lab->n_faults; i++)
		if (is(lab->faults[i]))
			return true;
	return false;
}

static bool loses(const struct fault *fault)
{
	return fault->loses;
}

static bool keeps(const struct fault *fault)
{
	return fault->keeps;
}

static bool is_reset(const struct fault *fault)
{
	return !strncmp(fault->rule, "reset", 5);
}

static bool programs(const struct fault *fault)
{
	return !strncmp(fault->rule, "program", 7);
}

/* Every error has a fault that explains it. */
static void explain(struct lab *lab, enum inl_op op, int status)
{
	bool explained = false;

	lab->n_ops[op]++;
	if (!status)
		return;
	lab->n_errors[op]++;
	for (unsigned i = 0; i < lab->n_faults; i++) {
		const struct fault *fault = lab->faults[i];

		if (!(fault->hits & 1u << op) || fault->err != status)
			continue;
		explained = true;
		lab->errors_by[fault - faults]++;
	}
	if (!explained)
		give_up("operation %d ended with %s, which nothing explains", op, strerror(-status));
}

static void wrote(struct lab *lab, struct io *io, int status)
{
	for (uint32_t s = io->at / SECTOR; s < (io->at + io->bio.len) / SECTOR; s++) {
		io->cell->high[s] = io->version;
		if (!status && !any_fault(lab, loses))
			io->cell->low[s] = io->version;
	}
}

static void settle(struct io *io, int status)
{
	struct lab *lab = io->lab;

	if (++io->calls != 1)
		give_up("called back %u times", io->calls);
	explain(lab, io->bio.op, status);
	if (io->bio.op == INL_WRITE)
		wrote(lab, io, status);
	else if (status)
		check_failed_read(lab, io);
	else
		check_good_read(lab, io);
	io->busy = io->cell->busy = false;
}

static void io_done(struct inl_bio *bio)
{
	settle(bio->private_data, bio->status);
}

static void flush_done(struct inl_bio *bio)
{
	struct lab *lab = bio->private_data;

	explain(lab, INL_FLUSH, bio->status);
	lab->flushing = false;
}

static void reap_one(struct lab *lab)
{
	assert_true(inl_queue_n_busy(lab->queue) > 0);
	inl_queue_reap(lab->queue, 1);
}

static struct cell *idle_cell(struct lab *lab)
{
	struct cell *cell;

	do
		cell = &lab->cells[roll(&lab->dice, N_CELLS)];
	while (cell->busy);
	return cell;
}

static struct io *idle_io(struct lab *lab)
{
	for (;;) {
		for (unsigned i = 0; i < lab->depth && inl_queue_n_busy(lab->queue) < lab->depth; i++)
			if (!lab->ios[i].busy)
				return &lab->ios[i];
		reap_one(lab);
	}
}

/* An I/O of len bytes at `at` of a cell, in one or two segments. */
static void prepare(struct lab *lab, struct io *io, enum inl_op op, struct cell *cell, uint32_t at, uint32_t len)
{
	unsigned k = cell_key(lab, cell);
	uint32_t unit = key_unit(k), cut = unit * roll(&lab->dice, len / unit + 1);
	struct inl_crypt_ctx ctx = { .use = lab->uses[k] };

	io->segs[0] = (struct iovec){ io->buf, cut ? cut : len };
	io->segs[1] = (struct iovec){ io->buf + cut, len - cut };
	io->cell = cell;
	io->at = at;
	io->calls = 0;
	io->busy = cell->busy = true;
	if (op == INL_WRITE) {
		io->version = ++lab->version;
		pattern_fill(io->buf, cell_pos(lab, cell) + io->at, len, io->version);
	} else {
		io->canary = (uint8_t)(0xa0 + (io - lab->ios));
		memset(io->buf, io->canary, len);
	}
	ctx.dun[0] = cell_dun(lab, cell, io->at);
	inl_bio_init_keyed(&io->bio, op, cell_pos(lab, cell) + io->at, io->segs, cut && cut < len ? 2 : 1, &ctx);
	io->bio.done = io_done;
	io->bio.private_data = io;
}

static void start_io(struct lab *lab, enum inl_op op)
{
	struct io *io = idle_io(lab);
	struct cell *cell = idle_cell(lab);
	uint32_t unit = key_unit(cell_key(lab, cell)), n_units = CELL / unit, first = roll(&lab->dice, n_units);

	prepare(lab, io, op, cell, first * unit, unit * (1 + roll(&lab->dice, n_units - first)));
	if (lab->depth == 1 && roll(&lab->dice, 2))
		settle(io, inl_submit_wait(lab->dev, &io->bio));
	else if (inl_queue_submit(lab->queue, &io->bio))
		give_up("submit failed");
}

static void start_flush(struct lab *lab)
{
	while (lab->flushing || inl_queue_n_busy(lab->queue) == lab->depth)
		reap_one(lab);
	inl_bio_init_range(&lab->flush, INL_FLUSH, 0, 0);
	lab->flush.done = flush_done;
	lab->flush.private_data = lab;
	lab->flushing = true;
	if (inl_queue_submit(lab->queue, &lab->flush))
		give_up("submit failed");
}

static void drain(struct lab *lab)
{
	while (inl_queue_n_busy(lab->queue))
		reap_one(lab);
	for (unsigned i = 0; i < lab->depth; i++)
		if (lab->ios[i].busy || lab->flushing)
			give_up("a bio never ended, though none is under way");
}

/* ---- phases ------------------------------------------------------------------------------------------------------ */

static void run_ios(struct lab *lab)
{
	for (unsigned i = 0; i < 2 * lab->depth + 4; i++) {
		if (lab->phase == PHASE_READ)
			start_io(lab, INL_READ);
		else if (lab->phase == PHASE_WRITE)
			start_io(lab, INL_WRITE);
		else
			start_io(lab, i % 2 ? INL_READ : INL_WRITE);
		if (lab->phase == PHASE_MIX && i % 5 == 4)
			start_flush(lab);
	}
}

/* A cell as a row of bios that become one. If that fails, each is tried alone. */
static void run_merged(struct lab *lab, enum inl_op op)
{
	struct cell *cell = idle_cell(lab);
	uint32_t unit = key_unit(cell_key(lab, cell)), n_units = CELL / unit;
	unsigned n = lab->depth < n_units ? lab->depth : n_units;

	inl_queue_plug(lab->queue);
	for (unsigned i = 0; i < n; i++) {
		uint32_t at = n_units * i / n * unit, end = n_units * (i + 1) / n * unit;

		prepare(lab, &lab->ios[i], op, cell, at, end - at);
		if (inl_queue_submit(lab->queue, &lab->ios[i].bio))
			give_up("submit failed");
	}
	drain(lab);
}

/* Both keys go while their bios are under way, and come back. */
static void run_evictions(struct lab *lab)
{
	for (unsigned k = 0; k < N_KEYS; k++) {
		int err;

		run_ios(lab);
		err = inl_key_evict(lab->uses[k]);
		lab->uses[k] = NULL;
		for (unsigned i = 0; i < lab->depth; i++)
			if (lab->ios[i].busy && cell_key(lab, lab->ios[i].cell) == k)
				give_up("evicted while a bio was under way");
		lab->n_evict_errors += err != 0;
		if (err && !any_fault(lab, keeps))
			give_up("eviction failed: %s", strerror(-err));
		err = inl_key_start(lab->dev, lab->keys[k], &lab->uses[k]);
		/* An engine without slots is told of a key when it is started; it refuses two times at most. */
		for (unsigned tries = 0; err == -EIO && any_fault(lab, programs) && tries < 2; tries++)
			err = inl_key_start(lab->dev, lab->keys[k], &lab->uses[k]);
		if (err)
			give_up("the key cannot be started again: %s", strerror(-err));
	}
	run_ios(lab);
}

static void control(struct lab *lab, const char *driver, const char *rule)
{
	struct inl_dev *dev = strcmp(driver, "engine") ? lab->fault : lab->engine;
	struct inl_diag diag = { 0 };

	if (dev && inl_dev_control(dev, rule, &diag))
		give_up("%s: %s", rule, diag.text);
}

static uint64_t errors_counted(struct lab *lab)
{
	struct inl_counters c;

	inl_dev_counters(lab->dev, &c);
	return c.errors;
}

static void check_exactly(const struct lab *lab, const struct fault *fault, uint64_t n_errors)
{
	uint32_t n_ops = 0;

	for (enum inl_op op = INL_READ; op <= INL_FLUSH; op++)
		if (fault->hits & 1u << op)
			n_ops += lab->n_ops[op];
	if (n_errors != (fault->n < n_ops ? fault->n : n_ops))
		give_up("%" PRIu64 " errors of %u operations", n_errors, n_ops);
}

/* How many errors there may be, and how many there must be. */
static void check_numbers(struct lab *lab, uint64_t errors_before)
{
	uint64_t n_errors = lab->n_errors[INL_READ] + lab->n_errors[INL_WRITE] + lab->n_errors[INL_FLUSH], most = 0;
	bool resets = any_fault(lab, is_reset);

	if (errors_counted(lab) - errors_before != n_errors)
		give_up("%" PRIu64 " errors reported, %" PRIu64 " counted", n_errors, errors_counted(lab) - errors_before);
	for (unsigned i = 0; i < lab->n_faults; i++) {
		/* A key that is not programmed again after a reset fails for all who had its slot. */
		bool many = lab->faults[i]->n == ALWAYS || (resets && programs(lab->faults[i]));

		most += many ? UINT32_MAX : lab->faults[i]->n;
	}
	if (n_errors > most)
		give_up("%" PRIu64 " errors, at most %" PRIu64 " expected", n_errors, most);
	if (lab->n_faults == 1 && lab->faults[0]->sure && stacks[lab->stack].whole &&
	    (lab->phase != PHASE_MERGED || lab->faults[0]->n == ALWAYS))
		check_exactly(lab, lab->faults[0], n_errors);
}

/* With the faults gone, everything acknowledged is there. What differs within a cell is made whole again. */
static void check_device(struct lab *lab)
{
	struct io *io = &lab->ios[0];

	for (unsigned n = 0; n < N_CELLS; n++) {
		struct cell *cell = &lab->cells[n];
		struct inl_crypt_ctx ctx = { .use = lab->uses[cell_key(lab, cell)], .dun = { cell_dun(lab, cell, 0) } };
		bool mixed = false;
		int err = inl_dev_read_keyed(lab->dev, cell_pos(lab, cell), io->buf, CELL, &ctx);

		for (uint32_t i = 0; i < CELL && !err; i += 16) {
			if (!is_own_plain(lab, cell, io->buf + i, i))
				give_up("%" PRIu64 ": lost", cell_pos(lab, cell) + i);
			if (cell->low[i / SECTOR] == cell->high[i / SECTOR])
				continue;
			mixed = true;
			if (pattern_version(io->buf + i, cell_pos(lab, cell) + i) != (long)cell->high[i / SECTOR])
				lab->n_lost++;
			else
				lab->n_torn++;
		}
		if (!err && mixed) {
			lab->version++;
			pattern_fill(io->buf, cell_pos(lab, cell), CELL, lab->version);
			err = inl_dev_write_keyed(lab->dev, cell_pos(lab, cell), io->buf, CELL, &ctx);
			for (unsigned s = 0; s < N_SECTORS; s++)
				cell->low[s] = cell->high[s] = lab->version;
		}
		if (err)
			give_up("afterwards: %s", strerror(-err));
	}
}

static void check_medium(struct inl_dev *dev)
{
	struct inl_dev *child;
	long at = inl_dev_child(dev, 0) ? -1 : pattern_find_on(dev);

	if (at != -1)
		give_up("plaintext on the medium at %ld", at);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		check_medium(child);
}

static void describe(const struct lab *lab)
{
	size_t used = (size_t)snprintf(scenario, sizeof(scenario), "--seed=%" PRIu64 " %s, %s, depth %u,", first_seed,
				       stacks[lab->stack].spec, phase_names[lab->phase], lab->depth);

	for (unsigned i = 0; i < lab->n_faults && used < sizeof(scenario); i++)
		used += (size_t)snprintf(scenario + used, sizeof(scenario) - used, " %s", lab->faults[i]->rule);
}

/* lab->faults, n_faults, phase and depth say which. */
static void run_scenario(struct lab *lab)
{
	uint64_t errors_before = errors_counted(lab);

	describe(lab);
	alarm(PATIENCE);
	memset(lab->n_ops, 0, sizeof(lab->n_ops));
	memset(lab->n_errors, 0, sizeof(lab->n_errors));
	lab->n_evict_errors = 0;
	assert_int_equal(inl_queue_new(lab->dev, lab->depth, &lab->queue), 0);
	for (unsigned i = 0; i < lab->n_faults; i++)
		control(lab, lab->faults[i]->driver, lab->faults[i]->rule);
	if (lab->phase == PHASE_EVICT)
		run_evictions(lab);
	else if (lab->phase != PHASE_MERGED)
		run_ios(lab);
	for (unsigned i = 0; i < 6 && lab->phase == PHASE_MERGED; i++)
		run_merged(lab, i % 2 ? INL_READ : INL_WRITE);
	drain(lab);
	check_numbers(lab, errors_before);
	control(lab, "engine", "clear");
	control(lab, "engine", "latency=0us");
	control(lab, "fault", "clear");
	inl_queue_free(lab->queue);
	check_device(lab);
	check_medium(lab->dev);
	lab->n_evict_errors_seen += lab->n_evict_errors;
	lab->n_scenarios++;
	alarm(0);
}

/* ---- going through them ------------------------------------------------------------------------------------------ */

static void lab_init(struct lab *lab, unsigned stack)
{
	struct inl_diag diag = { 0 };

	memset(lab, 0, sizeof(*lab));
	lab->stack = stack;
	lab->dice = first_seed * 1000 + stack;
	if (inl_dev_open(stacks[stack].spec, INL_OPEN_WRITE, &diag, &lab->dev))
		fail_msg("%s: %s", stacks[stack].spec, diag.text);
	assert_int_equal(inl_dev_size(lab->dev), DISK);
	lab->engine = inl_dev_find(lab->dev, "engine");
	lab->fault = inl_dev_find(lab->dev, "fault");
	for (unsigned k = 0; k < N_KEYS; k++) {
		assert_int_equal(key_make(k, key_unit(k), &lab->keys[k]), 0);
		assert_int_equal(inl_key_start(lab->dev, lab->keys[k], &lab->uses[k]), 0);
	}
	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		lab->ios[i].lab = lab;
		lab->ios[i].buf = malloc(CELL);
		assert_non_null(lab->ios[i].buf);
	}
	lab->version = 1;
	for (unsigned n = 0; n < N_CELLS; n++) {
		struct cell *cell = &lab->cells[n];
		struct inl_crypt_ctx ctx = { .use = lab->uses[cell_key(lab, cell)], .dun = { cell_dun(lab, cell, 0) } };

		pattern_fill(lab->ios[0].buf, cell_pos(lab, cell), CELL, 1);
		assert_int_equal(inl_dev_write_keyed(lab->dev, cell_pos(lab, cell), lab->ios[0].buf, CELL, &ctx), 0);
		for (unsigned s = 0; s < N_SECTORS; s++)
			cell->low[s] = cell->high[s] = 1;
	}
}

static void lab_done(struct lab *lab)
{
	struct inl_counters c;

	for (unsigned k = 0; k < N_KEYS; k++) {
		assert_int_equal(inl_key_evict(lab->uses[k]), 0);
		inl_key_put(lab->keys[k]);
	}
	inl_dev_counters(lab->dev, &c);
	assert_int_equal(c.keys_started, c.keys_evicted);
	inl_dev_close(lab->dev);
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		free(lab->ios[i].buf);
}

static bool has_driver(const struct lab *lab, const struct fault *fault)
{
	return strcmp(fault->driver, "engine") ? lab->fault != NULL : lab->engine != NULL;
}

/* The faults i and j, which may be the same: one alone. */
static void run_pair(struct lab *lab, unsigned i, unsigned j)
{
	static const unsigned depths[] = { 1, 8 };

	if (!has_driver(lab, &faults[i]) || !has_driver(lab, &faults[j]))
		return;
	/* An engine gives up what was aborted three times. */
	if (i != j && is_reset(&faults[i]) && is_reset(&faults[j]))
		return;
	lab->faults[0] = &faults[i];
	lab->faults[1] = &faults[j];
	lab->n_faults = i == j ? 1 : 2;
	for (unsigned d = 0; d < 2; d++)
		for (unsigned phase = 0; phase < N_PHASES; phase++) {
			/* Pairs in sanitized builds: one of the ten, in turn. */
			if (SLOW && i != j && (i + j + lab->stack + d * N_PHASES + phase) % 10)
				continue;
			lab->depth = depths[d];
			lab->phase = (enum phase)phase;
			run_scenario(lab);
		}
}

/* Every fault did what it is for, at least once: otherwise nothing was tested. */
static void check_effects(const struct lab *lab)
{
	struct inl_counters c;

	for (unsigned i = 0; i < N_FAULTS; i++) {
		/* A slot that is programmed: not with as many slots as keys, nor without slots. */
		bool one_slot = lab->engine && inl_dev_n_slots(lab->engine) == 1;

		if (!faults[i].hits || !has_driver(lab, &faults[i]) || lab->errors_by[i])
			continue;
		if (!programs(&faults[i]) || one_slot)
			give_up("%s never had an effect", faults[i].rule);
	}
	inl_dev_counters(lab->dev, &c);
	if (!lab->n_lost || !lab->n_torn || !c.merges)
		give_up("nothing was lost, or torn, or merged");
	if (!lab->engine)
		return;
	inl_dev_counters(lab->engine, &c);
	if (!c.resets || (inl_dev_n_slots(lab->engine) && (!lab->n_evict_errors_seen || !c.slot_evict_failures)))
		give_up("%" PRIu64 " resets, %" PRIu64 " failed evictions", c.resets, lab->n_evict_errors_seen);
}

static void run_stack(unsigned stack)
{
	static struct lab lab;

	lab_init(&lab, stack);
	for (unsigned i = 0; i < N_FAULTS; i++)
		for (unsigned j = i; j < N_FAULTS; j++)
			run_pair(&lab, i, j);
	check_effects(&lab);
	print_message("# %s: %u scenarios; of 16 bytes: %" PRIu64 " lost, %" PRIu64 " torn; after failed reads %" PRIu64
		      " own plain, %" PRIu64 " own sealed\n",
		      stacks[stack].spec, lab.n_scenarios, lab.n_lost, lab.n_torn, lab.n_own_plain, lab.n_own_sealed);
	lab_done(&lab);
}

static void test_engine_over_fault(void **state)
{
	run_stack(0);
}

static void test_engine_with_thread(void **state)
{
	run_stack(1);
}

static void test_engine_without_slots(void **state)
{
	run_stack(2);
}

static void test_fault_over_engine(void **state)
{
	run_stack(3);
}

static void test_little_memory(void **state)
{
	run_stack(4);
}

static void test_fallback(void **state)
{
	run_stack(5);
}

static void test_stripe(void **state)
{
	run_stack(6);
}

/* Up to three faults at once, any depth. */
static void test_random(void **state)
{
	static struct lab labs[N_STACKS];
	uint64_t state_of_dice = first_seed;

	for (unsigned i = 0; i < N_STACKS; i++)
		lab_init(&labs[i], i);
	for (unsigned n = 0; n < n_cases; n++) {
		struct lab *lab = &labs[roll(&state_of_dice, N_STACKS)];
		unsigned resets = 0;

		lab->n_faults = 0;
		while (lab->n_faults < TOGETHER_MAX && (!lab->n_faults || roll(&state_of_dice, 3))) {
			const struct fault *fault = &faults[roll(&state_of_dice, N_FAULTS)];

			if (has_driver(lab, fault) && (!is_reset(fault) || !resets++))
				lab->faults[lab->n_faults++] = fault;
		}
		lab->depth = 1 + roll(&state_of_dice, DEPTH_MAX - 4);
		lab->phase = (enum phase)roll(&state_of_dice, N_PHASES);
		run_scenario(lab);
	}
	for (unsigned i = 0; i < N_STACKS; i++)
		lab_done(&labs[i]);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--cases=", 8))
			n_cases = (unsigned)strtoul(argv[i] + 8, NULL, 10);
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
		cmocka_unit_test(test_engine_over_fault),
		cmocka_unit_test(test_engine_with_thread),
		cmocka_unit_test(test_engine_without_slots),
		cmocka_unit_test(test_fault_over_engine),
		cmocka_unit_test(test_little_memory),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_stripe),
		cmocka_unit_test(test_random),
	};

	read_options(argc, argv);
	signal(SIGALRM, out_of_patience);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
