/*
 * tests/unit/routes_op.c: one random I/O of test_routes: laid out in memory, submitted, compared.
 * Not here: drawing it (routes_draw.c), what happens between I/Os (test_routes.c), where bytes are (routes_model.h).
 * Read more: inlay/block.h.
 *
 * Its effect on the model comes when it is submitted, which for the I/O of a callback may be at any time.
 */
#include "routes_run.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* Where a segment may end: whole units, for plain I/O anywhere. */
static uint64_t grain(const struct rt_op *op)
{
	return rt_is_keyed(op) && op->flaw != RT_FLAW_LENGTH ? rt_unit_of(op) : 1;
}

static unsigned draw_n_segs(struct rt_op *op, struct rt_rng *rng)
{
	uint64_t most = op->len / grain(op), n = rt_chance(rng, 40) ? 1 : rt_between(rng, 1, 8);

	if (rt_chance(rng, 1))
		n = rt_between(rng, 8, RT_MAX_SEGS);
	if (op->flaw == RT_FLAW_EMPTY)
		return 0;
	return (unsigned)(n < most ? n : most);
}

/* Lengths of the segments: all the grain, and what is left is given to some of them. */
static void draw_lengths(struct rt_op *op, struct rt_rng *rng)
{
	uint64_t left = op->n_segs ? op->len / grain(op) - op->n_segs : 0, part;

	for (unsigned i = 0; i < op->n_segs; i++) {
		part = i + 1 == op->n_segs ? left : rt_below(rng, (left / (op->n_segs - i)) * 2 + 1);
		if (part > left)
			part = left;
		op->segs[i].iov_len = (size_t)((1 + part) * grain(op));
		left -= part;
	}
}

/* A segment of no bytes, somewhere. */
static void add_empty(struct rt_op *op, struct rt_rng *rng)
{
	unsigned at = (unsigned)rt_below(rng, op->n_segs + 1);

	memmove(op->segs + at + 1, op->segs + at, (op->n_segs - at) * sizeof(*op->segs));
	op->segs[at].iov_len = 0;
	op->n_segs++;
}

/* A cut that is in no unit's place: bytes of one segment become the next one's. */
static void cut_a_unit(struct rt_op *op, struct rt_rng *rng)
{
	unsigned last = op->n_segs - 1;
	size_t off = (size_t)rt_between(rng, 1, rt_unit_of(op) - 1);

	op->segs[last].iov_len -= off;
	op->segs[op->n_segs++].iov_len = off;
}

/* Addresses: page by page as one buffer, or scattered with gaps, whose bytes must stay as they are. */
static void draw_addresses(struct rt_op *op, struct rt_rng *rng)
{
	unsigned style = (unsigned)rt_below(rng, 4);
	size_t at = style == 0 ? 64 : style == 1 ? 0 : (size_t)rt_below(rng, 513);

	for (unsigned i = 0; i < op->n_segs; i++) {
		op->segs[i].iov_base = op->mem + at;
		at += op->segs[i].iov_len;
		if (style == 2)
			at += rt_between(rng, 1, 48);
		else if (style == 3)
			at = (at + 511) / 512 * 512;
	}
	op->mem_len = at + 16;
}

static void fill_payload(struct rt_op *op, struct rt_rng *rng)
{
	memset(op->mem, (int)(0x80 | rt_below(rng, 128)), op->mem_len);
	for (unsigned i = 0; i < op->n_segs && rt_is_write(op); i++)
		inl_rt_fill(rng, op->segs[i].iov_base, op->segs[i].iov_len);
	memcpy(op->want, op->mem, op->mem_len);
}

static void lay_out(struct rt_op *op, struct rt_rng *rng)
{
	struct rt_run *run = op->run;

	run->arena_used = (run->arena_used + 4095) / 4096 * 4096;
	op->mem = run->mem + run->arena_used;
	op->want = run->want + run->arena_used;
	op->segs = run->seg + run->n_segs;
	op->n_segs = op->mem_len = 0;
	if (rt_has_payload(op)) {
		op->n_segs = draw_n_segs(op, rng);
		draw_lengths(op, rng);
		if (op->flaw == RT_FLAW_CUT)
			cut_a_unit(op, rng);
		else if (op->n_segs && op->n_segs < RT_MAX_SEGS && rt_chance(rng, 2))
			add_empty(op, rng);
		draw_addresses(op, rng);
		fill_payload(op, rng);
	}
	run->n_segs += op->n_segs;
	run->arena_used += op->mem_len;
}

/* The payload as one buffer, and the other way round, into what is wanted. */
static void gather(const struct rt_op *op, uint8_t *out)
{
	for (unsigned i = 0; i < op->n_segs; out += op->segs[i++].iov_len)
		memcpy(out, op->segs[i].iov_base, op->segs[i].iov_len);
}

static void scatter_wanted(struct rt_op *op, const uint8_t *in)
{
	for (unsigned i = 0; i < op->n_segs; in += op->segs[i++].iov_len)
		memcpy(op->want + ((uint8_t *)op->segs[i].iov_base - op->mem), in, op->segs[i].iov_len);
}

/* ---- the effect on the model ------------------------------------------------------------------------------------ */

/* One window of each sector, and the last. */
static void note_plaintext(struct rt_op *op, const uint8_t *bytes)
{
	for (uint64_t at = 0; at < op->len; at += RT_SECTOR)
		inl_rt_windows_add(&op->run->windows, bytes + at + op->number % (RT_SECTOR / RT_WINDOW) * RT_WINDOW);
	inl_rt_windows_add(&op->run->windows, bytes + op->len - RT_WINDOW);
}

static void note_record(struct rt_op *op, const uint8_t *bytes)
{
	for (unsigned i = 0; i < RT_N_RECORDS; i++)
		if (op->run->record[i].number == op->number) {
			memcpy(op->run->record[i].bytes, bytes, op->len);
			op->run->record[i].ok = true;
		}
}

/* Units that only one side can have worked on. A queue may have merged this I/O with one of which a unit is cut. */
static void count_units(struct rt_op *op)
{
	struct rt_run *run = op->run;
	uint64_t n = op->len / rt_unit_of(op);
	bool cut = rt_cutter(op);

	*(op->what == RT_WRITE ? &run->units_encrypted : &run->units_decrypted) += n;
	run->totals->cut_units += cut;
	if (!inl_rt_has_engine(rt_node_of(op)))
		run->fallback_units_least += n;
	else if (inl_rt_native(rt_node_of(op), &rt_cipher_of(op)->cfg) && !cut && op->route != RT_QUEUED)
		run->engine_units_least += n;
}

static void model_write(struct rt_op *op)
{
	uint8_t *buf = op->run->scratch;

	gather(op, buf);
	if (op->what == RT_WRITE) {
		note_plaintext(op, buf);
		note_record(op, buf);
		if (!inl_rt_crypt(rt_cipher_of(op), true, op->dun, buf, buf, op->len))
			inl_rt_fail(op->run, "OpenSSL does not encrypt");
	}
	inl_rt_put(rt_node_of(op), op->pos, op->len, buf);
	inl_rt_count(rt_node_of(op), op->pos, op->len, RT_BYTES_WRITTEN);
}

static void model_range(struct rt_op *op)
{
	if (op->what == RT_ZERO)
		inl_rt_put(rt_node_of(op), op->pos, op->len, NULL);
	inl_rt_count(rt_node_of(op), op->pos, op->len, op->what == RT_ZERO ? RT_BYTES_WRITTEN : RT_BYTES_DISCARDED);
}

/* The byte-array model beside the ciphers: both must say the same. */
static void compare_records(struct rt_op *op, const uint8_t *bytes)
{
	for (unsigned i = 0; i < RT_N_RECORDS; i++) {
		const struct rt_record *r = &op->run->record[i];
		uint64_t skip = op->pos - r->pos;

		if (!r->ok || r->target != op->target || r->key != op->key || op->pos < r->pos || skip >= r->len ||
		    op->len > r->len - skip || skip % rt_unit_of(op) || op->dun - r->dun != skip / rt_unit_of(op) ||
		    !inl_rt_has_stamp(rt_node_of(op), op->pos, op->len, r->number))
			continue;
		if (memcmp(bytes, r->bytes + skip, op->len) != 0)
			inl_rt_fail(op->run, "the test's own models differ");
	}
}

static void model_read(struct rt_op *op)
{
	uint8_t *buf = op->run->scratch;

	inl_rt_get(rt_node_of(op), op->pos, op->len, buf);
	if (op->what == RT_READ) {
		if (!inl_rt_crypt(rt_cipher_of(op), false, op->dun, buf, buf, op->len))
			inl_rt_fail(op->run, "OpenSSL does not decrypt");
		compare_records(op, buf);
	}
	scatter_wanted(op, buf);
	inl_rt_count(rt_node_of(op), op->pos, op->len, RT_BYTES_READ);
}

static void count_flush(struct rt_node *node)
{
	node->n_flushes++;
	for (unsigned i = 0; i < node->n_children; i++)
		count_flush(node->child[i]);
}

static void apply(struct rt_op *op)
{
	if (rt_is_keyed(op))
		count_units(op);
	if (op->what == RT_FLUSH)
		count_flush(rt_node_of(op));
	else if (rt_is_write(op))
		model_write(op);
	else if (rt_has_payload(op))
		model_read(op);
	else
		model_range(op);
}

static int flaw_error(enum rt_flaw flaw)
{
	if (flaw == RT_FLAW_NO_USE || flaw == RT_FLAW_EVICTED)
		return -ENOKEY;
	return flaw == RT_FLAW_END ? -ENXIO : -EINVAL;
}

/* What must come of it, now that it is submitted. */
static int expected(struct rt_op *op)
{
	const struct rt_use *use = &op->run->use[op->target][op->key];

	if (op->flaw)
		return flaw_error(op->flaw);
	if (rt_is_keyed(op) && (!use->use || use->evicting))
		return -ENOKEY;
	if (op->run->read_only && rt_changes(op))
		return -EROFS;
	return rt_too_cut(op) ? -EOPNOTSUPP : 0;
}

/* ---- submitting ------------------------------------------------------------------------------------------------- */

static void launch(struct rt_op *op);

static _Noreturn void op_fail(const struct rt_op *op, const char *what, long is, long should)
{
	char text[256];

	inl_rt_op_print(op, text, sizeof(text));
	inl_rt_fail(op->run, "%s: %s %ld, not %ld", text, what, is, should);
}

static void check_memory(const struct rt_op *op)
{
	size_t at = 0;

	if (memcmp(op->mem, op->want, op->mem_len) == 0)
		return;
	while (op->mem[at] == op->want[at])
		at++;
	inl_rt_trace(op->run, "byte %zu of %zu, gaps included", at, op->mem_len);
	op_fail(op, "the memory differs: a byte is", op->mem[at], op->want[at]);
}

static void check(struct rt_op *op, int status)
{
	bool unsupported = op->what == RT_DISCARD && !op->expect && status == -EOPNOTSUPP;

	if (op->ended)
		op_fail(op, "ends", 2, 1);
	op->ended = true;
	if (status != op->expect && !unsupported)
		op_fail(op, "the status is", status, op->expect);
	op->run->n_unsupported += unsupported;
	rt_node_of(op)->n_errors += status != 0;
	check_memory(op);
}

/* A callback may not wait for bios: it is told so, and the key stays. */
static void evict_here(const struct rt_op *op)
{
	struct inl_key_use *use = op->run->use[op->target][op->key].use;
	int err = use ? inl_key_evict(use) : -EDEADLK;

	if (err != -EDEADLK)
		inl_rt_fail(op->run, "inl_key_evict in a callback returns %d", err);
}

static void done(struct inl_bio *bio)
{
	struct rt_op *op = bio->private_data;
	struct rt_queue *queue = &op->run->queue[op->queue];

	queue->n_ended++;
	queue->n_busy--;
	check(op, bio->status);
	if (op->number % 32 == 0)
		evict_here(op);
	if (op->then && !queue->freeing)
		launch(op->then);
}

static void init_ctx(struct rt_op *op)
{
	const struct rt_use *use = &op->run->use[op->target][op->key];

	op->ctx.use = use->use && op->flaw != RT_FLAW_EVICTED ? use->use : use->stale;
	if (op->flaw == RT_FLAW_NO_USE)
		op->ctx.use = NULL;
	if (op->flaw == RT_FLAW_FOREIGN)
		op->ctx.use = op->run->foreign;
	op->ctx.dun[0] = (uint64_t)op->dun;
	op->ctx.dun[1] = (uint64_t)(op->dun >> 64);
	op->ctx.dun[2] = op->beyond;
	op->ctx.dun[3] = 0;
}

static void init_bio(struct rt_op *op)
{
	static const enum inl_op ops[] = { INL_WRITE, INL_READ, INL_WRITE, INL_READ, INL_READ,
					   INL_FLUSH, INL_ZERO, INL_DISCARD };

	if (rt_is_keyed(op))
		inl_bio_init_keyed(&op->bio, ops[op->what], op->pos, op->segs, op->n_segs, &op->ctx);
	else if (op->what == RT_RAW_READ)
		inl_bio_init_raw_read(&op->bio, op->pos, op->segs, op->n_segs);
	else if (rt_has_payload(op))
		inl_bio_init_plain(&op->bio, ops[op->what], op->pos, op->segs, op->n_segs);
	else
		inl_bio_init_range(&op->bio, ops[op->what], op->pos, op->len);
	if (op->fua)
		op->bio.flags |= INL_BIO_FUA;
	if (op->flaw == RT_FLAW_SUM)
		op->bio.len = op->pos + op->len < rt_node_of(op)->size ? op->len + rt_node_of(op)->block
								    : op->len - rt_node_of(op)->block;
	op->bio.done = done;
	op->bio.private_data = op;
}

/* Depth bios may be under way: then the queue says so, and some are waited for. */
static void submit(struct rt_op *op)
{
	struct rt_run *run = op->run;
	struct rt_queue *queue = &run->queue[op->queue];

	for (;;) {
		uint64_t before = queue->n_ended;
		unsigned n;
		int err;

		queue->n_busy++;
		err = inl_queue_submit(queue->queue, &op->bio);
		if (!err)
			return;
		queue->n_busy--;
		if (err != -EAGAIN)
			inl_rt_fail(run, "inl_queue_submit returns %d", err);
		if (queue->n_busy != queue->depth)
			inl_rt_fail(run, "-EAGAIN with %u of %u bios under way", queue->n_busy, queue->depth);
		run->totals->full++;
		n = inl_queue_reap(queue->queue, 1);
		if (n < 1 || n != queue->n_ended - before)
			inl_rt_fail(run, "inl_queue_reap(1) returns %u, %u ended", n, (unsigned)(queue->n_ended - before));
	}
}

/* The wrappers for one buffer. */
static int call(struct rt_op *op)
{
	struct inl_dev *dev = rt_node_of(op)->dev;
	void *buf = op->n_segs ? op->segs[0].iov_base : NULL;

	switch (op->what) {
	case RT_WRITE:
		return inl_dev_write_keyed(dev, op->pos, buf, op->len, &op->ctx);
	case RT_READ:
		return inl_dev_read_keyed(dev, op->pos, buf, op->len, &op->ctx);
	case RT_PLAIN_WRITE:
		return inl_dev_write(dev, op->pos, buf, op->len);
	case RT_PLAIN_READ:
		return inl_dev_read(dev, op->pos, buf, op->len);
	default:
		return inl_dev_flush(dev);
	}
}

static void launch(struct rt_op *op)
{
	struct rt_run *run = op->run;

	op->expect = expected(op);
	op->launched = true;
	run->totals->ios++;
	run->totals->refused += op->expect != 0;
	run->totals->no_key_in_callback += run->use[op->target][op->key].evicting && op->expect == -ENOKEY;
	if (!op->expect)
		apply(op);
	init_ctx(op);
	init_bio(op);
	if (op->route == RT_QUEUED)
		submit(op);
	else if (op->route == RT_WAITING)
		check(op, inl_submit_wait(rt_node_of(op)->dev, &op->bio));
	else
		check(op, call(op));
}

/* ---- one step --------------------------------------------------------------------------------------------------- */

static void add_record(struct rt_op *op)
{
	struct rt_record *record = &op->run->record[op->run->next_record];

	if (op->what != RT_WRITE || op->flaw || op->run->read_only)
		return;
	op->run->next_record = (op->run->next_record + 1) % RT_N_RECORDS;
	record->target = op->target;
	record->key = op->key;
	record->number = op->number;
	record->pos = op->pos;
	record->len = op->len;
	record->dun = op->dun;
	record->ok = false;
}

static void draw_route(struct rt_op *op, struct rt_rng *rng)
{
	struct rt_run *run = op->run;

	op->route = RT_WAITING;
	op->target = run->n_targets > 1 && rt_chance(rng, 25);
	if (!run->n_queues || (!run->burst && rt_chance(rng, 15)))
		return;
	op->route = RT_QUEUED;
	op->queue = run->burst ? run->burst_queue : (unsigned)rt_below(rng, run->n_queues);
	op->target = run->queue[op->queue].target;
}

static void trace(const struct rt_op *op)
{
	char text[256];

	if (!op->run->trace)
		return;
	inl_rt_op_print(op, text, sizeof(text));
	inl_rt_trace(op->run, "%s", text);
}

/* All that is drawn once the place is found. */
static void finish_drawing(struct rt_op *op, struct rt_rng *rng)
{
	struct rt_run *run = op->run;

	op->number = ++run->n_drawn;
	if (rt_chance(rng, 6))
		inl_rt_op_draw_flaw(op, rng);
	if (rt_changes(op) && !op->flaw && !run->read_only && !rt_too_cut(op)) {
		inl_rt_stamp(rt_node_of(op), op->pos, op->len, op->number);
		inl_rt_set_unknown(rt_node_of(op), op->pos, op->len, op->what == RT_DISCARD);
	}
	lay_out(op, rng);
	if (op->route == RT_WAITING && !op->flaw && !op->fua && rt_chance(rng, 30) &&
	    ((op->n_segs == 1 && op->what != RT_RAW_READ) || op->what == RT_FLUSH))
		op->route = RT_WRAPPED;
	add_record(op);
	run->last = op->flaw ? (struct rt_op){ 0 } : *op;
	trace(op);
}

static bool room_left(const struct rt_run *run)
{
	return run->n_ops + 2 <= RT_MAX_OPS && run->n_segs + 2 * (RT_MAX_SEGS + 1) <= RT_N_SEGS &&
	       run->arena_used + 2 * (RT_MAX_LEN + INL_UNIT_SIZE_MAX + RT_MAX_SEGS * 512 + 8192) <= RT_ARENA_LEN;
}

static struct rt_op *new_op(struct rt_run *run)
{
	struct rt_op *op = &run->op[run->n_ops];

	memset(op, 0, sizeof(*op));
	op->run = run;
	return op;
}

/* One that the callback of the other submits. */
static void draw_chained(struct rt_op *first, struct rt_rng *rng)
{
	struct rt_run *run = first->run;
	struct rt_op *op = new_op(run);

	op->route = RT_QUEUED;
	op->queue = first->queue;
	op->target = first->target;
	op->what = !run->read_only && rt_chance(rng, 50) ? RT_WRITE : RT_READ;
	if (!inl_rt_op_draw_chained(op, rng))
		return;
	op->number = ++run->n_drawn;
	if (op->what == RT_WRITE)
		inl_rt_stamp(rt_node_of(op), op->pos, op->len, op->number);
	lay_out(op, rng);
	add_record(op);
	trace(op);
	run->n_ops++;
	run->totals->chained++;
	first->then = op;
}

void inl_rt_op_step(struct rt_run *run)
{
	struct rt_rng *rng = &run->rng;
	struct rt_op *op;

	if (!room_left(run))
		inl_rt_drain(run);
	op = new_op(run);
	draw_route(op, rng);
	for (unsigned tries = 0; !inl_rt_op_draw(op, rng); tries++) {
		if (tries > 40)
			return;
		if (tries % 8 == 7) {
			run->burst = 0;
			inl_rt_drain(run);
			op = new_op(run);
			draw_route(op, rng);
		}
	}
	finish_drawing(op, rng);
	run->n_ops++;
	run->burst -= run->burst != 0;
	if (op->route == RT_QUEUED && rt_chance(rng, 8))
		draw_chained(op, rng);
	launch(op);
}

static void drain_queue(struct rt_run *run, struct rt_queue *queue)
{
	uint64_t before = queue->n_ended;
	unsigned n;

	if (inl_queue_n_busy(queue->queue) != queue->n_busy)
		inl_rt_fail(run, "inl_queue_n_busy says %u, not %u", inl_queue_n_busy(queue->queue), queue->n_busy);
	n = inl_queue_reap(queue->queue, UINT_MAX);
	if (n != queue->n_ended - before)
		inl_rt_fail(run, "inl_queue_reap returns %u, %u ended", n, (unsigned)(queue->n_ended - before));
	if (queue->n_busy || inl_queue_n_busy(queue->queue))
		inl_rt_fail(run, "%u bios are under way after a reap of all, it says %u", queue->n_busy,
			    inl_queue_n_busy(queue->queue));
}

void inl_rt_drain(struct rt_run *run)
{
	for (unsigned i = 0; i < run->n_queues; i++)
		drain_queue(run, &run->queue[i]);
	for (unsigned i = 0; i < run->n_ops; i++)
		if (run->op[i].launched && !run->op[i].ended)
			op_fail(&run->op[i], "ends", 0, 1);
	run->n_ops = run->n_segs = run->n_resets = 0;
	run->arena_used = 0;
	run->round++;
}
