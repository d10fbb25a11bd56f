/*
 * tests/unit/routes_draw.c: one random I/O of test_routes: what it does, where, with which key, what is wrong with it.
 * Not here: its memory, submitting it, what must come of it (routes_op.c).
 * Read more: inlay/block.h.
 *
 * What is drawn depends on the seed alone, never on what happened to be finished: I/Os of one round touch no sector in
 * common, and a round ends with a drain.
 */
#include "routes_run.h"

static const char *const what_names[] = { "write", "read", "plain write", "plain read", "raw read",
					  "flush", "zero", "discard" };
static const char *const flaw_names[] = { "",
					  "a segment cuts a unit",
					  "part of a unit",
					  "offset",
					  "empty",
					  "sum of segments",
					  "beyond the end",
					  "no key",
					  "key of another device",
					  "evicted key",
					  "DUN wraps" };

void inl_rt_op_print(const struct rt_op *op, char *text, size_t size)
{
	int n = snprintf(text, size, "I/O %u: %s of target %u at %llu, %llu bytes", op->number, what_names[op->what],
			 op->target, (unsigned long long)op->pos, (unsigned long long)op->len);

	if (rt_is_keyed(op))
		n += snprintf(text + n, size - (size_t)n, ", key %u, unit %u, dun 0x%s%llx:%016llx", op->key, rt_unit_of(op),
			      op->beyond ? "1:" : "", (unsigned long long)(op->dun >> 64), (unsigned long long)op->dun);
	n += snprintf(text + n, size - (size_t)n, ", %u segments%s, %s", op->n_segs, op->fua ? ", FUA" : "",
		      op->route == RT_QUEUED ? "queue" : op->route == RT_WAITING ? "waiting" : "one call");
	if (op->route == RT_QUEUED)
		n += snprintf(text + n, size - (size_t)n, " %u", op->queue);
	if (op->flaw)
		snprintf(text + n, size - (size_t)n, "; flaw: %s", flaw_names[op->flaw]);
}

/* ---- drawing: what, where, with which key ----------------------------------------------------------------------- */

static enum rt_what draw_what(struct rt_rng *rng, bool read_only)
{
	static const uint8_t weights[] = { 34, 30, 7, 5, 4, 3, 3, 2 };
	unsigned n = (unsigned)rt_below(rng, 88);
	enum rt_what what = RT_WRITE;

	while (n >= weights[what])
		n -= weights[what++];
	return read_only && what >= RT_FLUSH ? RT_READ : what;
}

/* A key that is started there; false: none is. */
static bool draw_key(struct rt_op *op, struct rt_rng *rng)
{
	unsigned first = (unsigned)rt_below(rng, op->run->n_keys);

	for (unsigned i = 0; i < op->run->n_keys; i++) {
		op->key = (first + i) % op->run->n_keys;
		if (op->run->use[op->target][op->key].use)
			return true;
	}
	return false;
}

static rt_u128 greatest_dun(const struct rt_op *op)
{
	unsigned bits = 8 * rt_cipher_of(op)->cfg.dun_bytes;

	return bits == 128 ? ~(rt_u128)0 : ((rt_u128)1 << bits) - 1;
}

/* Near carries from one limb to the next, near the end; never so that it wraps. */
static rt_u128 draw_dun(const struct rt_op *op, struct rt_rng *rng)
{
	uint64_t n = op->len / rt_unit_of(op), back = rt_below(rng, n + 2);
	rt_u128 greatest = greatest_dun(op) - (n - 1), dun;

	switch (rt_below(rng, 8)) {
	case 0:
	case 1:
		dun = ((rt_u128)1 << 32) - back;
		break;
	case 2:
	case 3:
		dun = ((rt_u128)1 << 64) - back;
		break;
	case 4:
		dun = greatest - rt_below(rng, 3);
		break;
	case 5:
		dun = (rt_u128)rt_next(rng) << 64 | rt_next(rng);
		break;
	default:
		dun = op->pos / rt_unit_of(op) + rt_below(rng, 100);
	}
	return dun <= greatest ? dun : dun % (greatest + 1);
}

static uint32_t step_of(const struct rt_op *op)
{
	uint32_t block = rt_node_of(op)->block;

	return rt_is_keyed(op) && rt_unit_of(op) > block ? rt_unit_of(op) : block;
}

/* A place and a length: both whole blocks, the length whole units, the place often. False: the device is too small. */
static bool draw_place(struct rt_op *op, struct rt_rng *rng)
{
	static const uint32_t limits[] = { 4096, 8192, 16384, 65536, 131072, RT_MAX_LEN };
	uint32_t step = step_of(op), block = rt_node_of(op)->block;
	uint32_t limit = limits[rt_below(rng, rt_chance(rng, 10) ? 6 : 4)];
	uint64_t most = rt_node_of(op)->size / step, room;

	if (!most)
		return false;
	if (most * step > limit)
		most = limit > step ? limit / step : 1;
	op->len = rt_between(rng, 1, most) * step;
	room = rt_node_of(op)->size - op->len;
	op->pos = rt_below(rng, room / block + 1) * block;
	if (rt_chance(rng, 60))
		op->pos -= op->pos % step;
	return true;
}

/* In the same direction, but perhaps of another kind. */
static enum rt_what similar(const struct rt_op *op, struct rt_rng *rng)
{
	static const enum rt_what reads[] = { RT_READ, RT_PLAIN_READ, RT_RAW_READ };

	if (rt_is_write(op))
		return rt_chance(rng, 50) ? RT_WRITE : RT_PLAIN_WRITE;
	return reads[rt_below(rng, 3)];
}

/* Go on where the last one ended, with its key and the next DUN: or nearly so. */
static bool draw_next(struct rt_op *op, struct rt_rng *rng)
{
	const struct rt_op *last = &op->run->last;
	uint64_t n;

	if (!last->run || last->target != op->target || !rt_has_payload(last))
		return false;
	op->what = rt_chance(rng, 6) ? similar(last, rng) : last->what;
	op->fua = last->fua;
	op->key = rt_chance(rng, 90) ? last->key : op->key;
	if (rt_is_keyed(op) && !rt_is_keyed(last) && !draw_key(op, rng))
		return false;
	op->pos = last->pos + last->len;
	op->len = (uint64_t)step_of(op) * rt_between(rng, 1, 3);
	if (op->pos % rt_node_of(op)->block || op->pos >= rt_node_of(op)->size || op->len > rt_node_of(op)->size - op->pos)
		return false;
	if (!rt_is_keyed(op))
		return true;
	n = op->len / rt_unit_of(op);
	op->dun = rt_is_keyed(last) ? last->dun + last->len / rt_unit_of(last) : rt_below(rng, 1000);
	if (rt_chance(rng, 25))
		op->dun += rt_between(rng, 0, 2) - 1;
	return op->run->use[op->target][op->key].use && op->dun <= greatest_dun(op) - (n - 1);
}

/* Read back what was written, or a part of it. */
static bool draw_record(struct rt_op *op, struct rt_rng *rng)
{
	const struct rt_record *record = &op->run->record[rt_below(rng, RT_N_RECORDS)];
	uint64_t first, n;

	if (!record->number || record->target != op->target || !op->run->use[op->target][record->key].use ||
	    !inl_rt_has_stamp(rt_node_of(op), record->pos, record->len, record->number))
		return false;
	op->what = RT_READ;
	op->key = record->key;
	n = record->len / step_of(op);
	first = rt_chance(rng, 50) ? 0 : rt_below(rng, n);
	op->pos = record->pos + first * step_of(op);
	op->len = rt_between(rng, 1, n - first) * step_of(op);
	op->dun = record->dun + first * (step_of(op) / rt_unit_of(op));
	return true;
}

static bool draw_free(struct rt_op *op, struct rt_rng *rng)
{
	op->what = draw_what(rng, op->run->read_only);
	op->fua = rt_is_write(op) && rt_chance(rng, 10);
	if (op->what == RT_FLUSH) {
		op->pos = op->len = 0;
		return true;
	}
	if ((rt_is_keyed(op) && !draw_key(op, rng)) || !draw_place(op, rng))
		return false;
	op->dun = rt_is_keyed(op) ? draw_dun(op, rng) : 0;
	return true;
}

/* What becomes of I/O that a device below would have to cut, without the fallback, is open. */
static bool settled(const struct rt_op *op)
{
	return !rt_too_cut(op) || rt_cutter(op) == rt_node_of(op);
}

bool inl_rt_op_draw(struct rt_op *op, struct rt_rng *rng)
{
	unsigned dice = (unsigned)rt_below(rng, op->run->burst ? 50 : 100);

	op->fua = false;
	op->key = 0;
	if (dice < 40 ? !draw_next(op, rng) : dice < 62 ? !draw_record(op, rng) : !draw_free(op, rng))
		return false;
	if (op->what == RT_FLUSH)
		return true;
	if (rt_has_payload(op) && !rt_is_write(op) && inl_rt_any_unknown(rt_node_of(op), op->pos, op->len))
		return false;
	if (!settled(op))
		return false;
	return inl_rt_reserve(rt_node_of(op), op->pos, op->len, op->run->round);
}

/* ---- drawing: what is wrong with it ----------------------------------------------------------------------------- */

static bool flaw_fits(const struct rt_op *op, enum rt_flaw flaw)
{
	switch (flaw) {
	case RT_FLAW_CUT:
		return rt_is_keyed(op);
	case RT_FLAW_LENGTH:
		return rt_is_keyed(op) && rt_unit_of(op) > rt_node_of(op)->block && op->pos + op->len < rt_node_of(op)->size;
	case RT_FLAW_SUM:
		return rt_has_payload(op) && (op->len > rt_node_of(op)->block || op->pos + op->len < rt_node_of(op)->size);
	case RT_FLAW_NO_USE:
	case RT_FLAW_DUN:
		return rt_is_keyed(op);
	case RT_FLAW_FOREIGN:
		return rt_is_keyed(op) && op->run->foreign;
	case RT_FLAW_EVICTED:
		return rt_is_keyed(op) && op->run->use[op->target][op->key].stale;
	case RT_FLAW_EMPTY:
	case RT_FLAW_OFFSET:
	case RT_FLAW_END:
		return op->what != RT_FLUSH;
	default:
		return true;
	}
}

/* As many units as there are DUNs left, and one more; or a DUN that no key of this width has. */
static void make_dun_wrap(struct rt_op *op, struct rt_rng *rng)
{
	uint64_t n = op->len / rt_unit_of(op);

	op->dun = greatest_dun(op) - (n - 1) + rt_between(rng, 1, n);
	if (rt_cipher_of(op)->cfg.dun_bytes == 16 && rt_chance(rng, n > 1 ? 30 : 100)) {
		op->dun = rt_below(rng, 4);
		op->beyond = true;
	} else if (op->dun < n) { /* it has wrapped here already */
		op->dun = ~(rt_u128)0 - (n - 2);
	}
}

static void apply_flaw(struct rt_op *op, struct rt_rng *rng)
{
	uint32_t block = rt_node_of(op)->block;
	uint64_t size = rt_node_of(op)->size;

	switch (op->flaw) {
	case RT_FLAW_LENGTH:
		op->len += block - op->len % block;
		break;
	case RT_FLAW_OFFSET:
		op->pos += rt_between(rng, 1, block - 1);
		break;
	case RT_FLAW_EMPTY:
		op->len = 0;
		break;
	case RT_FLAW_END:
		op->pos = rt_chance(rng, 10) ? 0 - (uint64_t)block : size - rt_below(rng, op->len / block) * block;
		break;
	case RT_FLAW_DUN:
		make_dun_wrap(op, rng);
		break;
	default:
		break;
	}
}

void inl_rt_op_draw_flaw(struct rt_op *op, struct rt_rng *rng)
{
	enum rt_flaw flaw = (enum rt_flaw)rt_between(rng, 1, RT_N_FLAWS - 1);

	if (!flaw_fits(op, flaw) || (op->run->read_only && rt_changes(op)))
		return;
	op->flaw = flaw;
	apply_flaw(op, rng);
}

bool inl_rt_op_draw_chained(struct rt_op *op, struct rt_rng *rng)
{
	if (!draw_key(op, rng) || !draw_place(op, rng) || !settled(op) ||
	    inl_rt_any_unknown(rt_node_of(op), op->pos, op->len) ||
	    !inl_rt_reserve(rt_node_of(op), op->pos, op->len, op->run->round))
		return false;
	op->dun = draw_dun(op, rng);
	return true;
}
