/*
 * ext4/place.c: which blocks are best: near the goal, in one piece, out of the way of those who write elsewhere.
 * Not here: reserving what was found (alloc.c); where inodes go (ialloc.c).
 * Read more: ext4/change.h.
 *
 * A search looks at the group of the goal, then at those that follow. What memory knows of a group (how much is free,
 * how long its longest run can be) keeps most bitmaps from being looked at, and a search that finds only short runs
 * ends after a few of them: it takes the longest then.
 */
#include "ext4/alloc.h"
#include <errno.h>
#include <sys/stat.h>

#define MAX_SCANS      8u    /* bitmaps that one search looks through in vain */
#define STREAM_BLOCKS  16u   /* who has written as many one after the other will write more */
#define AHEAD_MAX      2048u /* blocks left to a stream */
#define HOLE_MAX       1024u /* blocks of a hole in a file that are left free on the medium */
#define FLEX_SPREAD    4u    /* with as many groups sharing tables: the first one is for directories */

struct run {
	uint32_t first, n;
};

struct search {
	struct inl_handle *op;
	struct inl_alloc *alloc;
	uint32_t want;
	uint64_t goal;
	bool polite; /* blocks ahead of streams are left to them */
	unsigned n_scans;
	/* The group that is being looked at: */
	uint32_t group;
	struct inl_bits_view view;
	struct run ahead[INL_N_STREAMS];
	unsigned n_ahead;
};

/* ---- streams --------------------------------------------------------------------------------------------------- */

static struct inl_stream *stream_find(struct inl_alloc *alloc, uint64_t goal)
{
	for (unsigned i = 0; goal && i < INL_N_STREAMS; i++) {
		if (alloc->streams[i].next == goal)
			return &alloc->streams[i];
	}
	return NULL;
}

static struct inl_stream *stream_oldest(struct inl_alloc *alloc)
{
	struct inl_stream *oldest = &alloc->streams[0];

	for (unsigned i = 1; i < INL_N_STREAMS; i++) {
		if (alloc->streams[i].used < oldest->used)
			oldest = &alloc->streams[i];
	}
	return oldest;
}

/* As many blocks as a stream deserves, up to where another one goes on. */
static uint64_t ahead_of(const struct inl_alloc *alloc, const struct inl_stream *stream)
{
	uint64_t n = stream->len < STREAM_BLOCKS ? 0 : INL_MIN(4 * stream->len, AHEAD_MAX);

	for (unsigned i = 0; n && i < INL_N_STREAMS; i++) {
		const struct inl_stream *other = &alloc->streams[i];

		if (other->ahead && other->next > stream->next && other->next - stream->next < n)
			n = other->next - stream->next;
	}
	return n;
}

/* Whoever had his goal there has got blocks here. */
static void stream_note(struct inl_alloc *alloc, uint64_t goal, uint64_t pblk, uint32_t n)
{
	struct inl_stream *stream = stream_find(alloc, goal);

	if (!stream) {
		stream = stream_oldest(alloc);
		stream->len = 0;
	}
	stream->next = pblk + n;
	stream->len += n;
	stream->ahead = ahead_of(alloc, stream);
	stream->used = ++alloc->clock;
}

/* The blocks of this group that others will want. */
static void find_ahead(struct search *search)
{
	struct inl_alloc *alloc = search->alloc;
	uint64_t start = inl_group_start(alloc, search->group), end = start + search->view.n;

	search->n_ahead = 0;
	for (unsigned i = 0; search->polite && i < INL_N_STREAMS; i++) {
		const struct inl_stream *stream = &alloc->streams[i];

		if (stream->ahead && stream->next != search->goal && stream->next >= start && stream->next < end)
			search->ahead[search->n_ahead++] =
				(struct run){ (uint32_t)(stream->next - start),
					      (uint32_t)INL_MIN(stream->ahead, end - stream->next) };
	}
}

/* Cut away what is others' at the start of a run; then it ends where something of others' begins. */
static struct run cut_ahead(const struct search *search, uint32_t first, uint32_t end)
{
	bool again = true;

	while (again && first < end) {
		again = false;
		for (unsigned i = 0; i < search->n_ahead; i++) {
			const struct run *ahead = &search->ahead[i];

			if (first >= ahead->first && first < ahead->first + ahead->n) {
				first = ahead->first + ahead->n;
				again = true;
			}
		}
	}
	for (unsigned i = 0; i < search->n_ahead; i++) {
		if (search->ahead[i].first > first && search->ahead[i].first < end)
			end = search->ahead[i].first;
	}
	return (struct run){ first, first < end ? end - first : 0 };
}

/* ---- one group ------------------------------------------------------------------------------------------------- */

/* Have the group's bitmap ready. -EUCLEAN: leave it. */
static int enter(struct search *search, uint32_t group)
{
	struct inl_alloc *alloc = search->alloc;
	struct inl_alloc_group *known = &alloc->groups[group];
	int err = inl_group_look_blocks(search->op, group, &search->view.bits);

	if (err)
		return err;
	search->group = group;
	search->view.also = known->held;
	search->view.n = inl_group_n_blocks(alloc, group);
	known->first = inl_bits_next_clear(&search->view, known->first);
	find_ahead(search);
	return 0;
}

/* The first run of all that are wanted in [from, to), or else the longest. longest: of what is left to others, too. */
static bool scan(const struct search *search, uint32_t from, uint32_t to, struct run *best, uint32_t *longest)
{
	const struct inl_bits_view *view = &search->view;
	uint32_t at = inl_bits_next_clear(view, from);

	while (at < to) {
		uint32_t end = inl_bits_next_set(view, at);

		*longest = end - at > *longest ? end - at : *longest;
		while (at < end) {
			struct run run = cut_ahead(search, at, end);

			if (run.n > best->n)
				*best = run;
			if (best->n >= search->want)
				return true;
			at = run.n ? run.first + run.n : end;
		}
		at = inl_bits_next_clear(view, end);
	}
	return false;
}

/* Look through the group that was entered: from a bit to the end, then from the start. What is learnt of it is kept. */
static bool scan_group(struct search *search, uint32_t from, struct run *best)
{
	struct inl_alloc_group *known = &search->alloc->groups[search->group];
	uint32_t longest = 0;

	*best = (struct run){ 0 };
	from = from > known->first ? from : known->first;
	if (scan(search, from, search->view.n, best, &longest))
		return true;
	if (from > known->first && scan(search, known->first, from, best, &longest))
		return true;
	known->max_run = longest;
	search->n_scans++;
	return false;
}

/* At the goal itself, for those who go on there: also if not all are there. */
static bool at_goal(const struct search *search, uint32_t bit, struct run *best)
{
	struct run run;

	if (bit >= search->view.n || inl_bits_next_clear(&search->view, bit) != bit)
		return false;
	run = cut_ahead(search, bit, inl_bits_next_set(&search->view, bit));
	if (run.first != bit || run.n < (search->want + 3) / 4)
		return false;
	*best = run;
	return true;
}

/* ---- all groups ------------------------------------------------------------------------------------------------ */

static uint32_t run_limit(const struct search *search, uint32_t group)
{
	const struct inl_alloc_group *known = &search->alloc->groups[group];

	return INL_MIN(known->max_run, inl_group_n_usable(known));
}

/* From the goal onwards, the first run that holds all. 1: found. */
static int sweep(struct search *search, struct run *best)
{
	struct inl_alloc *alloc = search->alloc;
	uint32_t home = inl_group_of(alloc, search->goal);
	uint32_t bit = (uint32_t)(search->goal - inl_group_start(alloc, home));

	search->n_scans = 0;
	for (uint32_t i = 0; i < alloc->n_groups && search->n_scans < MAX_SCANS; i++) {
		uint32_t group = home + i < alloc->n_groups ? home + i : home + i - alloc->n_groups;
		uint32_t limit = run_limit(search, group);
		int err;

		if (!limit || (i && limit < search->want))
			continue;
		err = enter(search, group);
		/* A damaged group is left out from now on. */
		if (err == -EUCLEAN)
			continue;
		if (err)
			return err;
		if (!i && at_goal(search, bit, best))
			return 1;
		if (limit >= search->want && scan_group(search, i ? 0 : bit, best))
			return 1;
	}
	return 0;
}

/* The group that may have the longest run. */
static uint32_t likeliest(const struct search *search)
{
	uint32_t home = inl_group_of(search->alloc, search->goal), best = INL_NO_GROUP, limit = 0;

	for (uint32_t i = 0; i < search->alloc->n_groups; i++) {
		uint32_t group = (uint32_t)(((uint64_t)home + i) % search->alloc->n_groups);

		if (run_limit(search, group) > limit) {
			limit = run_limit(search, group);
			best = group;
		}
	}
	return best;
}

/* No run holds all: a long one, the longest if it is found soon. 1: found. */
static int longest_run(struct search *search, struct run *best)
{
	search->n_scans = 0;
	for (;;) {
		uint32_t group = likeliest(search), limit;
		int err;

		/* There is something to be had, so it is in groups that are damaged. */
		if (group == INL_NO_GROUP)
			return -EUCLEAN;
		limit = run_limit(search, group);
		err = enter(search, group);
		/* A damaged group is left out from now on. */
		if (err == -EUCLEAN)
			continue;
		if (err)
			return err;
		/* Every scan in vain lowers the group's limit, so this ends. */
		if (scan_group(search, 0, best) || best->n >= limit || (best->n && search->n_scans >= MAX_SCANS))
			return 1;
	}
}

int inl_place_find(struct inl_handle *op, uint64_t goal, uint64_t n, bool stream, uint64_t *pblk, uint32_t *got)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	struct search search = { .op = op, .alloc = alloc, .polite = true };
	struct run best;
	int found;

	search.want = (uint32_t)INL_MIN(n, alloc->blocks_per_group);
	search.goal = goal >= alloc->vol->first_block && goal < alloc->vol->n_blocks ? goal : alloc->vol->first_block;
	if (!inl_alloc_n_usable(alloc))
		return -ENOSPC;
	found = sweep(&search, &best);
	search.polite = false;
	if (!found)
		found = sweep(&search, &best);
	if (!found)
		found = longest_run(&search, &best);
	if (found < 0)
		return found;
	*pblk = inl_group_start(alloc, search.group) + best.first;
	*got = INL_MIN(best.n, search.want);
	if (stream)
		stream_note(alloc, goal, *pblk, *got);
	return 0;
}

/* ---- goals ----------------------------------------------------------------------------------------------------- */

/* In the group of the inode; where groups share tables, the first of them is left to directories. */
static uint64_t group_goal(const struct inl_alloc *alloc, const struct inl_inode *inode)
{
	uint32_t group = (inode->ino - 1) / alloc->inodes_per_group;

	if (alloc->flex >= FLEX_SPREAD) {
		group -= group % alloc->flex;
		if (!S_ISDIR(inode->type) && group + 1 < alloc->n_groups)
			group++;
	}
	return inl_group_start(alloc, group);
}

uint64_t inl_inode_goal(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk)
{
	struct inl_alloc *alloc = inode->vol->alloc;
	uint64_t gap = 0, goal;
	struct inl_run run;
	int err = lblk && !inl_is_inline(inode) ? inl_map(inode, lblk - 1, &run, NULL) : -ENOENT;

	/* What is before the hole? */
	if (!err && run.kind == INL_EXTENT_HOLE && run.lblk) {
		gap = lblk - run.lblk;
		err = inl_map(inode, run.lblk - 1, &run, NULL);
	}
	if (err || run.kind == INL_EXTENT_HOLE)
		return group_goal(alloc, inode);
	goal = run.pblk + (lblk - gap - run.lblk) + (gap < HOLE_MAX ? gap : 0);
	return goal < alloc->vol->n_blocks ? goal : run.pblk;
}
