/*
 * cli/bench.h: the parts of `inlay bench`: speed.c (ciphers), and of `inlay bench block`: bench.c (what is asked for, the device), load.c (the I/O),
 * times.c (how long it took), figures.c (what is printed).
 * Not here: other subcommands; the table of benchmarks (bench/).
 * Read more: doc/inlay.1, "BENCHMARKS".
 */
#ifndef INLAY_CLI_BENCH_H
#define INLAY_CLI_BENCH_H

#include "cli/cli.h"

/* ---- times ------------------------------------------------------------------------------------------------------- */

/*
 * How often something took how long: buckets of 1 ns below 32 ns, then 32 to each doubling, so that what is told is at
 * most 1/32 too much.
 */
#define INL_TIMES_SUB_BITS 5
#define INL_TIMES_BUCKETS  ((64 - INL_TIMES_SUB_BITS + 1) << INL_TIMES_SUB_BITS)

struct inl_times {
	uint64_t n, max;
	double sum; /* ns */
	uint64_t buckets[INL_TIMES_BUCKETS];
};

void inl_times_add(struct inl_times *times, uint64_t ns);
void inl_times_merge(struct inl_times *into, const struct inl_times *from);

/* The time within which this part (0 .. 1) of all ended, ns; 0: there are none. */
uint64_t inl_times_at(const struct inl_times *times, double part);

/* ---- what is asked for ------------------------------------------------------------------------------------------- */

struct inl_bench_plan {
	const char *spec;
	uint64_t read_percent;
	unsigned sequential, keyed; /* 0 or 1 */
	uint64_t bs, range, share;  /* bytes; share: a thread's part of the range, a multiple of bs */
	uint64_t depth, n_threads;
	double seconds;             /* 0: no limit */
	uint64_t count;             /* I/Os; 0: no limit */
	uint64_t unit, n_keys;
	double theta;
	uint64_t plug, flush, seed, sample; /* 0: not */
};

/* Which of n things, each with a weight of its own, in constant time (Walker's alias method). */
struct inl_bench_choice {
	uint64_t n;
	struct {
		uint32_t stay, other; /* stay: 2^32 times the chance that it is this one and not the other */
	} *rows;
};

/* ---- what came of it --------------------------------------------------------------------------------------------- */

enum inl_bench_kind { INL_BENCH_READ, INL_BENCH_WRITE, INL_BENCH_FLUSH, INL_BENCH_KINDS };

struct inl_bench_result {
	struct {
		uint64_t n, bytes; /* of those that succeeded */
		struct inl_times times;
	} kinds[INL_BENCH_KINDS];
	uint64_t n_errors;
	struct {
		uint64_t when; /* ns of CLOCK_MONOTONIC */
		enum inl_bench_kind kind;
		uint64_t offset;
		int err;
	} first_error;
	uint64_t elapsed, user, system; /* ns */
	bool native;                    /* keys: an engine serves them */
	const char *ciphers;            /* keys: the implementation that the engine, or the fallback, computes with */
	bool interrupted;
};

/* `inlay bench ciphers` */
int inl_bench_ciphers(struct inl_cli *cli);

/* Make random bytes out of a state, which moves on. */
void inl_bench_noise(uint64_t *state, void *buf, size_t len);

/*
 * Perform the plan.
 *
 *   uses    plan->n_keys of them, if it is keyed
 *   choice  between them
 *
 * Returns: 0, also if I/Os failed; what kept the load from starting: -errno.
 */
int inl_bench_load(struct inl_dev *dev, const struct inl_bench_plan *plan, struct inl_key_use *const *uses,
		   const struct inl_bench_choice *choice, struct inl_bench_result *result);

void inl_bench_print(const struct inl_bench_plan *plan, const struct inl_bench_result *result,
		     const struct inl_dev *dev, const struct inl_counters *since);
void inl_bench_print_json(const struct inl_bench_plan *plan, const struct inl_bench_result *result,
			  const struct inl_dev *dev, const struct inl_counters *since);

/* "read" */
const char *inl_bench_kind_name(enum inl_bench_kind kind);

#endif
