/*
 * tests/unit/routes_run.h: one case of test_routes while it runs: its tree, keys, queues and I/Os.
 * Not here: the model (routes_model.h).
 * Read more: test_routes.c.
 */
#ifndef TESTS_UNIT_ROUTES_RUN_H
#define TESTS_UNIT_ROUTES_RUN_H

#include "routes_model.h"

#define RT_MAX_OPS     96 /* of one round */
#define RT_MAX_SEGS    2048
#define RT_N_SEGS      16384 /* of one round */
#define RT_MAX_LEN     (256u << 10)
#define RT_ARENA_LEN   (8u << 20)
#define RT_MAX_KEYS    5
#define RT_MAX_TARGETS 2
#define RT_MAX_QUEUES  2
#define RT_N_RECORDS   12

enum rt_what {
	RT_WRITE, /* these two keyed */
	RT_READ,
	RT_PLAIN_WRITE,
	RT_PLAIN_READ,
	RT_RAW_READ,
	RT_FLUSH,
	RT_ZERO,
	RT_DISCARD,
};

/* What is wrong with an I/O. */
enum rt_flaw {
	RT_FLAWLESS,
	RT_FLAW_CUT,	 /* a segment ends inside of a data unit */
	RT_FLAW_LENGTH,	 /* no whole number of data units */
	RT_FLAW_OFFSET,	 /* no multiple of the block size */
	RT_FLAW_EMPTY,
	RT_FLAW_SUM,	 /* segments do not add up */
	RT_FLAW_END,	 /* beyond the end of the device */
	RT_FLAW_NO_USE,	 /* a context without a key */
	RT_FLAW_FOREIGN, /* a context of another device */
	RT_FLAW_EVICTED, /* a context whose key was evicted, and perhaps started again since */
	RT_FLAW_DUN,	 /* a DUN that wraps */
	RT_N_FLAWS,
};

enum rt_route { RT_QUEUED, RT_WAITING, RT_WRAPPED }; /* inl_queue_submit, inl_submit_wait, inl_dev_read and the like */

struct rt_run;

struct rt_op {
	struct rt_run *run;
	unsigned number;
	enum rt_what what;
	enum rt_flaw flaw;
	enum rt_route route;
	unsigned queue, target, key;
	uint64_t pos, len;
	rt_u128 dun;
	bool beyond; /* the DUN is more than 128 bits wide */
	bool fua;
	struct inl_bio bio;
	struct inl_crypt_ctx ctx;
	struct iovec *segs;
	unsigned n_segs;
	uint8_t *mem, *want; /* the payload with gaps around its segments; how it must look in the end */
	size_t mem_len;
	int expect;
	bool launched, ended;
	struct rt_op *then; /* is submitted by the callback of this one */
};

/* Plaintext that was written and must come back. */
struct rt_record {
	unsigned target, key, number;
	uint64_t pos, len;
	rt_u128 dun;
	uint8_t *bytes;
	bool ok;
};

struct rt_use {
	struct inl_key *key;
	struct inl_key_use *use;   /* NULL: not started */
	struct inl_key_use *stale; /* that was evicted last; NULL: none was */
	bool evicting;
};

struct rt_queue {
	struct inl_queue *queue;
	unsigned target, depth, n_busy;
	uint64_t n_ended;
	bool freeing;
};

/* What all cases did together: a route that was never taken is no route that was tested. */
struct rt_totals {
	uint64_t cases, steps, ios, refused, full, chained, no_key_in_callback, second_lives, checks, cut_units;
	uint64_t starts, starts_refused, evictions, native_units;
	struct inl_counters counters; /* of all devices */
};

struct rt_run {
	uint64_t seed;
	unsigned n_steps, step;
	bool trace;
	struct rt_rng rng;
	struct rt_tree tree;
	struct rt_node *target[RT_MAX_TARGETS];
	unsigned n_targets;
	struct rt_cipher cipher[RT_MAX_KEYS];
	unsigned n_keys;
	struct rt_use use[RT_MAX_TARGETS][RT_MAX_KEYS];
	struct rt_queue queue[RT_MAX_QUEUES];
	unsigned n_queues;
	bool read_only;

	struct rt_op op[RT_MAX_OPS];
	unsigned n_ops, n_drawn; /* of the round; of the case */
	uint32_t round;
	unsigned n_resets; /* of engines, in this round */
	struct iovec seg[RT_N_SEGS];
	unsigned n_segs;
	uint8_t *mem, *want; /* RT_ARENA_LEN each */
	size_t arena_used;
	struct rt_op last; /* what the next one may follow */
	unsigned burst, burst_queue; /* so many will be neighbours, in this queue, which is plugged */
	struct rt_record record[RT_N_RECORDS];
	unsigned next_record;
	struct rt_windows windows;
	uint8_t *scratch; /* RT_MAX_LEN or the largest medium */

	/* of this life */
	uint64_t units_encrypted, units_decrypted;
	uint64_t engine_units_least, fallback_units_least; /* of which no other may have been used */
	unsigned n_unsupported; /* discards */
	struct rt_totals *totals;
	struct inl_key_use *foreign; /* of a device that has nothing to do with this */
};

/* Report what is wrong and how to see it again; does not return. */
_Noreturn void inl_rt_fail(struct rt_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void inl_rt_trace(struct rt_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- what it is ------------------------------------------------------------------------------------------------- */

static inline bool rt_is_keyed(const struct rt_op *op)
{
	return op->what == RT_WRITE || op->what == RT_READ;
}

static inline bool rt_is_write(const struct rt_op *op)
{
	return op->what == RT_WRITE || op->what == RT_PLAIN_WRITE;
}

static inline bool rt_has_payload(const struct rt_op *op)
{
	return op->what <= RT_RAW_READ;
}

static inline bool rt_changes(const struct rt_op *op)
{
	return rt_is_write(op) || op->what == RT_ZERO || op->what == RT_DISCARD;
}

static inline struct rt_node *rt_node_of(const struct rt_op *op)
{
	return op->run->target[op->target];
}

static inline struct rt_cipher *rt_cipher_of(const struct rt_op *op)
{
	return &op->run->cipher[op->key];
}

static inline uint32_t rt_unit_of(const struct rt_op *op)
{
	return rt_cipher_of(op)->cfg.data_unit_size;
}

static inline struct rt_node *rt_cutter(const struct rt_op *op)
{
	return inl_rt_cutter(rt_node_of(op), op->pos, op->len, rt_unit_of(op));
}

/* Without the fallback, a device refuses what it would have to cut. */
static inline bool rt_too_cut(const struct rt_op *op)
{
	return rt_is_keyed(op) && !inl_rt_fallback(rt_node_of(op)) && rt_cutter(op);
}

/* ---- drawing one (routes_draw.c) -------------------------------------------------------------------------------- */

/* "I/O 3: write of target 0 ..." */
void inl_rt_op_print(const struct rt_op *op, char *text, size_t size);

/* What, where and with which key, for a target. False: the device, the keys or others at work do not allow it. */
bool inl_rt_op_draw(struct rt_op *op, struct rt_rng *rng);

/* One for a callback: nothing whose effect decides what may be drawn next. What and the target are known. */
bool inl_rt_op_draw_chained(struct rt_op *op, struct rt_rng *rng);

/* Make something wrong with it, if what is drawn fits. */
void inl_rt_op_draw_flaw(struct rt_op *op, struct rt_rng *rng);

/* ---- doing it (routes_op.c) ------------------------------------------------------------------------------------- */

/* Draw one, and submit it. */
void inl_rt_op_step(struct rt_run *run);

/* Wait for all; forget them. */
void inl_rt_drain(struct rt_run *run);

#endif
