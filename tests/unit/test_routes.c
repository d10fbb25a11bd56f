/*
 * tests/unit/test_routes.c: one truth for every route: random stacks, engines, keys and I/Os against a slow model.
 * Not here: I/O that fails below (test_stack.c, test_engine.c), many threads (test_threads.c).
 * Read more: routes_model.h.
 *
 * From a seed a stack is drawn, and keys, and a sequence of steps. Whatever did the work, the media must hold what
 * OpenSSL alone makes of the same keys and DUNs, at the places that the documents of the drivers give; reads must
 * return what was written; I/O that is wrong must fail as documented and change nothing; and nowhere may plaintext be
 * found.
 *
 *	test_routes                      many cases
 *	test_routes --seed 17            one case, and what it does
 *	test_routes --seed 17 --steps 9  only its beginning
 *	test_routes --from 1000 --cases 50000
 */
#include "routes_run.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define N_CASES	      (SANITIZED ? 1500u : 5000u)
#define CASE_SECONDS  60 /* then it hangs */
#define SCRATCH_LEN   (1u << 20)
#define FOREIGN_SPEC  "ram(64K)"

static struct rt_place place;
static struct rt_totals totals;
static struct rt_run run;

/* ---- saying what is wrong --------------------------------------------------------------------------------------- */

static void print_repeat(void)
{
	printf("# seed %llu, step %u: %s\n", (unsigned long long)run.seed, run.step, run.tree.spec);
	printf("# again: test_routes --seed %llu [--steps %u]\n", (unsigned long long)run.seed, run.step);
	fflush(stdout);
}

static void remove_files(void)
{
	for (unsigned i = 0; i < run.tree.n_nodes; i++)
		if (run.tree.node[i].kind == RT_FILE)
			unlink(run.tree.node[i].path);
	inl_rt_place_done(&place);
}

void inl_rt_fail(struct rt_run *now, const char *fmt, ...)
{
	va_list args;

	printf("not ok 1 - the same bytes on every route\n# ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	print_repeat();
	printf("1..1\n");
	fflush(stdout);
	remove_files();
	_exit(1);
}

void inl_rt_trace(struct rt_run *now, const char *fmt, ...)
{
	va_list args;

	if (!now->trace)
		return;
	printf("# %3u ", now->step);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

/* A hang or a crash ends the program in any case: what a handler must not call is called all the same. */
static void on_signal(int number)
{
	static volatile sig_atomic_t again;

	if (!again++) {
		printf("not ok 1 - the same bytes on every route\n# %s\n",
		       number == SIGALRM ? "a case takes too long: nothing moves any more" : strsignal(number));
		print_repeat();
		remove_files();
	}
	signal(number == SIGALRM ? SIGABRT : number, SIG_DFL);
	raise(number == SIGALRM ? SIGABRT : number);
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

/* Something that the common engine can. */
static void suit_engines(struct inl_key_config *cfg, struct rt_rng *rng)
{
	const struct rt_caps *caps = &run.tree.common;

	if (!caps->units[cfg->mode])
		cfg->mode = cfg->mode == INL_BLK_MODE_AES_256_XTS ? INL_BLK_MODE_AES_128_CBC_ESSIV : INL_BLK_MODE_AES_256_XTS;
	while (!(caps->units[cfg->mode] & cfg->data_unit_size))
		cfg->data_unit_size = 64u << rt_below(rng, 11);
	if (cfg->dun_bytes > caps->dun_bytes)
		cfg->dun_bytes = caps->dun_bytes;
}

static void draw_key(struct rt_cipher *cipher, struct rt_rng *rng)
{
	static const uint32_t units[] = { 512, 1024, 2048, 4096, 4096, 4096, 4096, 8192, 16384, 32768, 65536 };
	static const uint32_t widths[] = { 4, 8, 8, 16, 16 };
	struct inl_key_config *cfg = &cipher->cfg;

	cfg->mode = rt_chance(rng, 75) ? INL_BLK_MODE_AES_256_XTS : INL_BLK_MODE_AES_128_CBC_ESSIV;
	cfg->data_unit_size = rt_chance(rng, 4) ? 16u << rt_below(rng, 5) : units[rt_below(rng, 11)];
	cfg->dun_bytes = rt_chance(rng, 10) ? (uint32_t)rt_between(rng, 3, 16) : widths[rt_below(rng, 5)];
	if (rt_chance(rng, 60))
		suit_engines(cfg, rng);
	cfg->type = INL_KEY_RAW;
	inl_rt_fill(rng, cipher->bytes, sizeof(cipher->bytes));
	if (!inl_rt_cipher_init(cipher))
		inl_rt_fail(&run, "OpenSSL has no such cipher");
}

static int start_error(unsigned target, unsigned key)
{
	const struct inl_key_config *cfg = &run.cipher[key].cfg;

	return inl_rt_native(run.target[target], cfg) || inl_rt_fallback(run.target[target]) ? 0 : -ENOPKG;
}

/* The same bytes, as a new key most times: its memory may have been another key's. */
static void start_key(unsigned target, unsigned key)
{
	struct rt_use *use = &run.use[target][key];
	const struct rt_cipher *cipher = &run.cipher[key];
	int want = start_error(target, key), err = 0;

	if (target && run.use[0][key].key)
		use->key = inl_key_get(run.use[0][key].key);
	else
		err = inl_key_new(&cipher->cfg, cipher->bytes, cipher->len, &use->key);
	inl_rt_trace(&run, "start key %u on target %u", key, target);
	if (err)
		inl_rt_fail(&run, "inl_key_new returns %d", err);
	err = inl_key_start(run.target[target]->dev, use->key, &use->use);
	if (err != want)
		inl_rt_fail(&run, "inl_key_start of key %u on target %u returns %d, not %d", key, target, err, want);
	totals.starts += !err;
	totals.starts_refused += err != 0;
	if (err || run.step & 1) {
		inl_key_put(use->key);
		use->key = NULL;
	}
	if (!err && inl_rt_native(run.target[target], &cipher->cfg) && !inl_key_use_native(use->use))
		inl_rt_fail(&run, "key %u on target %u should be an engine's work", key, target);
	if (!err && !inl_rt_has_engine(run.target[target]) && inl_key_use_native(use->use))
		inl_rt_fail(&run, "key %u on target %u can be no engine's work", key, target);
}

static void evict_key(unsigned target, unsigned key)
{
	struct rt_use *use = &run.use[target][key];
	int err;

	inl_rt_trace(&run, "evict key %u from target %u", key, target);
	use->evicting = true;
	err = inl_key_evict(use->use);
	use->evicting = false;
	use->stale = use->use;
	use->use = NULL;
	inl_key_put(use->key);
	use->key = NULL;
	if (err)
		inl_rt_fail(&run, "inl_key_evict returns %d", err);
	err = inl_key_evict(use->stale);
	if (err != -ENOKEY)
		inl_rt_fail(&run, "inl_key_evict of an evicted key returns %d", err);
	totals.evictions++;
}

static void toggle_key(unsigned target, unsigned key)
{
	if (run.use[target][key].use)
		evict_key(target, key);
	else
		start_key(target, key);
}

/* ---- queues ----------------------------------------------------------------------------------------------------- */

static void new_queue(struct rt_queue *queue)
{
	static const unsigned depths[] = { 1, 2, 3, 4, 8, 16, 32, 32 };
	int err;

	memset(queue, 0, sizeof(*queue));
	queue->target = run.n_targets > 1 && rt_chance(&run.rng, 25);
	queue->depth = depths[rt_below(&run.rng, 8)];
	err = inl_queue_new(run.target[queue->target]->dev, queue->depth, &queue->queue);
	if (err)
		inl_rt_fail(&run, "inl_queue_new returns %d", err);
}

static void free_queue(struct rt_queue *queue)
{
	queue->freeing = true;
	inl_queue_free(queue->queue);
	if (queue->n_busy)
		inl_rt_fail(&run, "%u bios under way in a queue that was freed", queue->n_busy);
}

static void renew_queue(struct rt_queue *queue)
{
	inl_rt_trace(&run, "a new queue");
	free_queue(queue);
	new_queue(queue);
}

static void reap_some(struct rt_queue *queue)
{
	unsigned min = (unsigned)rt_below(&run.rng, 4), n;
	uint64_t before = queue->n_ended;

	inl_rt_trace(&run, "reap %u", min);
	n = inl_queue_reap(queue->queue, min);
	if (n != queue->n_ended - before)
		inl_rt_fail(&run, "inl_queue_reap returns %u, %u ended", n, (unsigned)(queue->n_ended - before));
	if (n < min && queue->n_busy)
		inl_rt_fail(&run, "inl_queue_reap(%u) returns %u, %u are under way", min, n, queue->n_busy);
	if (inl_queue_n_busy(queue->queue) != queue->n_busy)
		inl_rt_fail(&run, "inl_queue_n_busy says %u, not %u", inl_queue_n_busy(queue->queue), queue->n_busy);
}

static void plug_or_not(unsigned n)
{
	struct rt_queue *queue = &run.queue[n];
	bool plug = rt_chance(&run.rng, 75);

	inl_rt_trace(&run, plug ? "plug" : "unplug");
	run.burst = plug && rt_chance(&run.rng, 50) ? (unsigned)rt_between(&run.rng, 2, 14) : 0;
	run.burst_queue = n;
	if (plug)
		inl_queue_plug(queue->queue);
	else
		inl_queue_unplug(queue->queue);
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static void compare_leaf(struct rt_node *leaf)
{
	int64_t at = inl_rt_compare(leaf, run.scratch);

	if (at != -1)
		inl_rt_fail(&run, "node %u: the medium is wrong at %lld (-2: cannot be read)", leaf->index, (long long)at);
	at = inl_rt_windows_find(&run.windows, run.scratch, leaf->size);
	if (at >= 0)
		inl_rt_fail(&run, "node %u: plaintext on the medium at %lld", leaf->index, (long long)at);
}

static void compare_media(void)
{
	inl_rt_trace(&run, "compare media");
	inl_rt_drain(&run);
	totals.checks++;
	for (unsigned i = 0; i < run.tree.n_nodes; i++)
		if (run.tree.node[i].medium)
			compare_leaf(&run.tree.node[i]);
}

static void add_counters(struct inl_counters *sum, const struct rt_node *node)
{
	struct inl_counters one;
	const uint64_t *from = (const uint64_t *)&one;
	uint64_t *to = (uint64_t *)sum;

	inl_dev_counters(node->dev, &one);
	for (size_t i = 0; i < sizeof(one) / sizeof(*from); i++)
		to[i] += from[i];
}

static void compare_number(const char *what, uint64_t is, uint64_t should)
{
	if (is != should)
		inl_rt_fail(&run, "%s: %llu, not %llu", what, (unsigned long long)is, (unsigned long long)should);
}

/* Bytes that are made zero count as written, discarded ones do not. */
static void compare_leaf_counters(const struct rt_node *node, const struct inl_counters *c)
{
	compare_number("bytes read from a medium", c->bytes_read, node->n_bytes[RT_BYTES_READ]);
	compare_number("bytes written to a medium", c->bytes_written, node->n_bytes[RT_BYTES_WRITTEN]);
	if (c->flushes < node->n_flushes)
		inl_rt_fail(&run, "node %u: %llu flushes of %u", node->index, (unsigned long long)c->flushes, node->n_flushes);
}

static void compare_node(const struct rt_node *node)
{
	struct inl_counters c;

	inl_dev_counters(node->dev, &c);
	compare_number("keys started and not evicted", c.keys_started - c.keys_evicted, 0);
	compare_number("errors", c.errors, node->n_errors);
	if (node->kind == RT_ENGINE && !node->slots)
		compare_number("slots programmed without slots", c.slot_programs, 0);
	if (node->kind == RT_ENGINE && node->slots && c.engine_units_encrypted + c.engine_units_decrypted && !c.slot_programs)
		inl_rt_fail(&run, "node %u: units, but no slot was programmed", node->index);
	if (node->kind != RT_ENGINE)
		compare_number("units of an engine that is none", c.engine_units_encrypted + c.engine_units_decrypted, 0);
	if (node->medium)
		compare_leaf_counters(node, &c);
}

/* Every unit was crossed once, by an engine where that is how it must be. */
static void compare_counters(void)
{
	struct inl_counters sum = { 0 };
	uint64_t engine, fallback;

	for (unsigned i = 0; i < run.tree.n_nodes; i++) {
		compare_node(&run.tree.node[i]);
		add_counters(&sum, &run.tree.node[i]);
		add_counters(&totals.counters, &run.tree.node[i]);
	}
	compare_number("units encrypted", sum.fallback_units_encrypted + sum.engine_units_encrypted, run.units_encrypted);
	compare_number("units decrypted", sum.fallback_units_decrypted + sum.engine_units_decrypted, run.units_decrypted);
	engine = sum.engine_units_encrypted + sum.engine_units_decrypted;
	fallback = sum.fallback_units_encrypted + sum.fallback_units_decrypted;
	if (engine < run.engine_units_least || fallback < run.fallback_units_least)
		inl_rt_fail(&run, "%llu units by engines, %llu by the fallback; at least %llu and %llu were theirs",
			    (unsigned long long)engine, (unsigned long long)fallback,
			    (unsigned long long)run.engine_units_least, (unsigned long long)run.fallback_units_least);
	totals.native_units += run.engine_units_least;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* An engine loses all its slots: nobody may notice. It gives up a request that it happens to thrice: drain before. */
static void reset_engine(void)
{
	struct rt_node *node = &run.tree.node[rt_below(&run.rng, run.tree.n_nodes)];
	struct inl_diag diag = { 0 };
	int err;

	if (node->kind != RT_ENGINE)
		return;
	if (run.n_resets == 2)
		inl_rt_drain(&run);
	run.n_resets++;
	inl_rt_trace(&run, "reset the engine of node %u", node->index);
	err = inl_dev_control(node->dev, "reset", &diag);
	if (err)
		inl_rt_fail(&run, "a reset returns %d: %s", err, diag.text);
}

static void other_step(unsigned dice)
{
	struct rt_rng *rng = &run.rng;
	struct rt_queue *queue = run.n_queues ? &run.queue[rt_below(rng, run.n_queues)] : NULL;
	unsigned target = (unsigned)rt_below(rng, run.n_targets), key = (unsigned)rt_below(rng, run.n_keys);

	if (dice < 10 && queue)
		plug_or_not((unsigned)(queue - run.queue));
	else if (dice < 13 && queue)
		reap_some(queue);
	else if (dice < 14 && queue)
		renew_queue(queue);
	else if (dice < 17)
		toggle_key(target, key);
	else if (dice < 19)
		reset_engine();
	else if (dice < 21)
		inl_rt_drain(&run);
	else
		compare_media();
}

static void take_steps(unsigned n)
{
	for (unsigned i = 0; i < n && run.step < run.n_steps; i++) {
		unsigned dice = (unsigned)rt_below(&run.rng, 100);

		run.step++;
		totals.steps++;
		if (dice < 22 && !run.burst)
			other_step(dice);
		else
			inl_rt_op_step(&run);
	}
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

static void begin_life(unsigned flags)
{
	const char *wrong = inl_rt_tree_open(&run.tree, flags);

	inl_rt_trace(&run, "%s%s", run.tree.spec, run.read_only ? " for reading" : "");
	if (wrong)
		inl_rt_fail(&run, "%s", wrong);
	run.units_encrypted = run.units_decrypted = run.engine_units_least = run.fallback_units_least = 0;
	run.n_unsupported = run.burst = 0;
	memset(&run.last, 0, sizeof(run.last));
	for (unsigned t = 0; t < run.n_targets; t++)
		for (unsigned k = 0; k < run.n_keys; k++)
			if (rt_chance(&run.rng, 85))
				start_key(t, k);
	run.n_queues = (unsigned)rt_below(&run.rng, RT_MAX_QUEUES + 1);
	if (!run.n_queues && rt_chance(&run.rng, 70))
		run.n_queues = 1;
	for (unsigned i = 0; i < run.n_queues; i++)
		new_queue(&run.queue[i]);
}

static void end_life(void)
{
	compare_media();
	for (unsigned i = 0; i < run.n_queues; i++)
		free_queue(&run.queue[i]);
	run.n_queues = 0;
	for (unsigned t = 0; t < run.n_targets; t++)
		for (unsigned k = 0; k < run.n_keys; k++)
			if (run.use[t][k].use)
				evict_key(t, k);
	compare_counters();
	inl_rt_tree_close(&run.tree);
}

/* The same bytes once more, with other engines, perhaps for reading. */
static void second_life(void)
{
	inl_rt_tree_redraw(&run.tree, &run.rng);
	run.read_only = rt_chance(&run.rng, 40);
	totals.second_lives++;
	begin_life(run.read_only ? 0 : INL_OPEN_WRITE);
	take_steps((unsigned)rt_between(&run.rng, 5, 50));
	end_life();
}

static void draw_case(uint64_t seed)
{
	run.seed = seed;
	run.rng.state = seed * 0xd1342543de82ef95u;
	run.step = run.n_ops = run.n_segs = run.n_drawn = run.n_queues = run.next_record = run.n_resets = 0;
	run.arena_used = 0;
	run.round = 1;
	run.read_only = false;
	run.tree.spec[0] = '\0';
	memset(run.use, 0, sizeof(run.use));
	for (unsigned i = 0; i < RT_N_RECORDS; i++)
		run.record[i].number = run.record[i].ok = 0;
	inl_rt_windows_clear(&run.windows);
	inl_rt_tree_draw(&run.tree, &run.rng, &place);
	run.n_targets = rt_chance(&run.rng, 25) ? 2 : 1;
	run.target[0] = run.tree.root;
	run.target[1] = &run.tree.node[rt_below(&run.rng, run.tree.n_nodes)];
	run.n_keys = (unsigned)rt_between(&run.rng, 1, RT_MAX_KEYS);
	for (unsigned i = 0; i < run.n_keys; i++)
		draw_key(&run.cipher[i], &run.rng);
}

static void one_case(uint64_t seed)
{
	alarm(CASE_SECONDS);
	draw_case(seed);
	begin_life(INL_OPEN_WRITE);
	take_steps((unsigned)rt_between(&run.rng, 10, 120));
	end_life();
	if (inl_rt_tree_lasting(&run.tree) && run.step < run.n_steps)
		second_life();
	for (unsigned i = 0; i < run.n_keys; i++)
		inl_rt_cipher_done(&run.cipher[i]);
	inl_rt_tree_free(&run.tree);
	totals.cases++;
	alarm(0);
}

/* ---- what was tested -------------------------------------------------------------------------------------------- */

/* A route that no case took proves nothing. */
static bool print_totals(void)
{
	const struct inl_counters *c = &totals.counters;
	const struct {
		const char *what;
		uint64_t n;
		bool rare; /* needs luck: thousands of cases */
	} rows[] = {
		{ "I/Os", totals.ios },
		{ "that had to fail", totals.refused },
		{ "submitted by callbacks", totals.chained },
		{ "refused while their key was evicted", totals.no_key_in_callback, true },
		{ "with a unit that the stack cuts", totals.cut_units },
		{ "keys started", totals.starts },
		{ "keys refused", totals.starts_refused },
		{ "keys evicted", totals.evictions },
		{ "units that had to be an engine's", totals.native_units },
		{ "units by engines", c->engine_units_encrypted + c->engine_units_decrypted },
		{ "units by the fallback", c->fallback_units_encrypted + c->fallback_units_decrypted },
		{ "slots programmed", c->slot_programs },
		{ "slots hit", c->slot_hits },
		{ "waits for a slot", c->slot_waits, true },
		{ "waits for bounce memory", c->bounce_waits, true },
		{ "resets", c->resets },
		{ "pieces", c->splits },
		{ "merged", c->merges },
		{ "times a queue was full", totals.full },
		{ "devices opened again", totals.second_lives },
		{ "comparisons of all media", totals.checks },
	};
	bool all = true;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		printf("# %10llu %s\n", (unsigned long long)rows[i].n, rows[i].what);
		all &= rows[i].n || (rows[i].rare && SANITIZED);
	}
	return all;
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

struct args {
	uint64_t from;
	unsigned n_cases, n_steps;
	bool one;
};

static int parse_args(int argc, char **argv, struct args *args)
{
	for (int i = 1; i < argc; i += 2) {
		char *end;
		uint64_t n = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;

		if (i + 1 >= argc || !*argv[i + 1] || *end)
			return -EINVAL;
		if (strcmp(argv[i], "--seed") == 0) {
			args->from = n;
			args->one = true;
		} else if (strcmp(argv[i], "--from") == 0) {
			args->from = n;
		} else if (strcmp(argv[i], "--cases") == 0) {
			args->n_cases = (unsigned)n;
		} else if (strcmp(argv[i], "--steps") == 0) {
			args->n_steps = (unsigned)n;
		} else {
			return -EINVAL;
		}
	}
	if (args->one)
		args->n_cases = 1;
	return 0;
}

/* A key of a device that is no part of any case. */
static struct inl_dev *open_foreign(struct inl_key_use **use)
{
	static const struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, 512, 16, INL_KEY_RAW };
	struct inl_dev *dev;
	struct inl_key *key;
	uint8_t bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	if (inl_dev_open(FOREIGN_SPEC, INL_OPEN_WRITE, NULL, &dev) || inl_key_new(&cfg, bytes, sizeof(bytes), &key) ||
	    inl_key_start(dev, key, use))
		abort();
	inl_key_put(key);
	return dev;
}

static void set_up(void)
{
	const int signals[] = { SIGALRM, SIGABRT, SIGSEGV, SIGBUS };
	static char buffer[1 << 16]; /* a handler cannot allocate one */

	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (inl_rt_place_init(&place))
		printf("# no folder for files\n");
	for (unsigned i = 0; i < (SANITIZED ? 2 : 4); i++)
		signal(signals[i], on_signal);
	run.totals = &totals;
	run.mem = calloc(1, RT_ARENA_LEN);
	run.want = calloc(1, RT_ARENA_LEN);
	run.scratch = calloc(1, SCRATCH_LEN);
	for (unsigned i = 0; i < RT_N_RECORDS; i++)
		run.record[i].bytes = calloc(1, RT_MAX_LEN);
	if (!run.mem || !run.want || !run.scratch || !run.record[RT_N_RECORDS - 1].bytes)
		abort();
}

static void clean_up(void)
{
	for (unsigned i = 0; i < RT_N_RECORDS; i++)
		free(run.record[i].bytes);
	free(run.scratch);
	free(run.want);
	free(run.mem);
	inl_rt_place_done(&place);
}

int main(int argc, char **argv)
{
	struct args args = { .from = 1, .n_cases = N_CASES, .n_steps = ~0u };
	struct inl_dev *dev;
	bool all;

	if (parse_args(argc, argv, &args)) {
		fprintf(stderr, "usage: test_routes [--seed N | --from N] [--cases N] [--steps N]\n");
		return 2;
	}
	set_up();
	dev = open_foreign(&run.foreign);
	run.trace = args.one;
	run.n_steps = args.n_steps;
	for (unsigned i = 0; i < args.n_cases; i++)
		one_case(args.from + i);
	inl_key_evict(run.foreign);
	inl_dev_close(dev);
	clean_up();
	printf("ok 1 - the same bytes on every route: %llu cases, %llu steps\n", (unsigned long long)totals.cases,
	       (unsigned long long)totals.steps);
	all = print_totals();
	if (args.n_cases < N_CASES) {
		printf("1..1\n");
		return 0;
	}
	printf("%sok 2 - every route was taken\n1..2\n", all ? "" : "not ");
	return !all;
}
