/*
 * ext4/alloc.c: blocks that are reserved, taken and freed: what the medium says of them, and what memory says beyond.
 * Not here: which blocks (place.c); bitmaps and descriptors as bytes (group.c); inodes (ialloc.c).
 * Read more: ext4/change.h, "descriptors, bitmaps, allocation".
 *
 * A block is *held* if the medium calls it free and it must not be had all the same: reserved, or busy. Each group has
 * a second bitmap in memory for those, while there are any.
 */
#include "ext4/alloc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_HELD_GROUPS 64u /* bitmaps without a bit are kept up to this number of groups */

/* Part of a group; what is undone in it. */
struct piece {
	uint32_t group, first, n;
};

/* ---- spans ----------------------------------------------------------------------------------------------------- */

static int spans_room(struct inl_spans *spans)
{
	size_t room = spans->room ? 2 * spans->room : 16;
	struct inl_span *grown;

	if (spans->n < spans->room)
		return 0;
	grown = reallocarray(spans->at, room, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	spans->at = grown;
	spans->room = room;
	return 0;
}

/* With room for it. One that touches the last one becomes part of that. */
static void spans_push(struct inl_spans *spans, uint64_t start, uint64_t end)
{
	struct inl_span *last = spans->n ? &spans->at[spans->n - 1] : NULL;

	if (last && last->end == start)
		last->end = end;
	else if (last && last->start == end)
		last->start = start;
	else
		spans->at[spans->n++] = (struct inl_span){ start, end };
}

int inl_spans_add(struct inl_spans *spans, uint64_t start, uint64_t end)
{
	int err = spans_room(spans);

	if (!err)
		spans_push(spans, start, end);
	return err;
}

size_t inl_spans_find(const struct inl_spans *sorted, uint64_t pblk)
{
	size_t lo = 0, hi = sorted->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (sorted->at[mid].end <= pblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* ---- new, free, counts ----------------------------------------------------------------------------------------- */

static void group_init(struct inl_alloc *alloc, uint32_t group)
{
	struct inl_alloc_group *known = &alloc->groups[group];
	ext2_filsys fs = alloc->vol->fs;

	known->next_held = INL_NO_GROUP;
	known->n_free = ext2fs_bg_free_blocks_count(fs, group);
	known->n_free_inodes = ext2fs_bg_free_inodes_count(fs, group);
	known->n_dirs = ext2fs_bg_used_dirs_count(fs, group);
	known->max_run = inl_group_n_blocks(alloc, group);
	known->blocks_bad = known->n_free > inl_group_n_blocks(alloc, group);
	known->inodes_bad = known->n_free_inodes > alloc->inodes_per_group;
	alloc->n_free += known->n_free;
	alloc->n_free_inodes += known->n_free_inodes;
	alloc->n_dirs += known->n_dirs;
}

int inl_alloc_new(struct inl_volume *vol, struct inl_alloc **out)
{
	struct ext2_super_block *sb = vol->fs->super;
	struct inl_alloc *alloc = calloc(1, sizeof(*alloc));
	int err = -ENOMEM;

	if (!alloc)
		return -ENOMEM;
	alloc->vol = vol;
	pthread_mutex_init(&alloc->discarding, NULL);
	alloc->n_groups = vol->fs->group_desc_count;
	alloc->blocks_per_group = sb->s_blocks_per_group;
	alloc->inodes_per_group = sb->s_inodes_per_group;
	alloc->flex = 1;
	if (ext2fs_has_feature_flex_bg(sb) && sb->s_log_groups_per_flex < 31)
		alloc->flex = 1u << sb->s_log_groups_per_flex;
	alloc->desc_size = EXT2_DESC_SIZE(sb);
	alloc->first_held = INL_NO_GROUP;
	alloc->groups = calloc(alloc->n_groups, sizeof(alloc->groups[0]));
	alloc->scratch = malloc(vol->block_size);
	if (!alloc->groups || !alloc->scratch)
		goto fail;
	for (uint32_t i = 0; i < alloc->n_groups; i++)
		group_init(alloc, i);
	err = inl_group_find_system(alloc);
	if (err)
		goto fail;
	*out = alloc;
	return 0;
fail:
	inl_alloc_free(alloc);
	return err;
}

void inl_alloc_free(struct inl_alloc *alloc)
{
	if (!alloc)
		return;
	for (uint32_t i = 0; alloc->groups && i < alloc->n_groups; i++)
		free(alloc->groups[i].held);
	free(alloc->groups);
	free(alloc->scratch);
	free(alloc->system.at);
	free(alloc->freed.at);
	free(alloc->committing.at);
	pthread_mutex_destroy(&alloc->discarding);
	free(alloc);
}

uint64_t inl_alloc_n_free_blocks(const struct inl_alloc *alloc)
{
	return alloc->n_free - alloc->n_reserved + alloc->n_discarding;
}

uint32_t inl_alloc_n_free_inodes(const struct inl_alloc *alloc)
{
	return alloc->n_free_inodes;
}

bool inl_alloc_has_busy(const struct inl_alloc *alloc)
{
	return alloc->n_busy > 0;
}

bool inl_alloc_is_discarding(const struct inl_alloc *alloc)
{
	return alloc->n_discarding > 0;
}

void inl_alloc_lock_discarding(struct inl_alloc *alloc)
{
	pthread_mutex_lock(&alloc->discarding);
}

void inl_alloc_unlock_discarding(struct inl_alloc *alloc)
{
	pthread_mutex_unlock(&alloc->discarding);
}

/* ---- held blocks ----------------------------------------------------------------------------------------------- */

static int held_ready(struct inl_alloc *alloc, uint32_t group)
{
	struct inl_alloc_group *known = &alloc->groups[group];

	if (known->held)
		return 0;
	known->held = calloc(1, alloc->vol->block_size);
	if (!known->held)
		return -ENOMEM;
	known->next_held = alloc->first_held;
	alloc->first_held = group;
	alloc->n_held_groups++;
	return 0;
}

/* Between operations: an operation that is cancelled finds the bitmaps that it used. */
static void held_trim(struct inl_alloc *alloc)
{
	uint32_t *link = &alloc->first_held;

	while (alloc->n_held_groups > KEEP_HELD_GROUPS && *link != INL_NO_GROUP) {
		struct inl_alloc_group *known = &alloc->groups[*link];

		if (known->n_held) {
			link = &known->next_held;
			continue;
		}
		free(known->held);
		known->held = NULL;
		*link = known->next_held;
		alloc->n_held_groups--;
	}
}

static void hold(struct inl_alloc *alloc, const struct piece *piece)
{
	struct inl_alloc_group *known = &alloc->groups[piece->group];

	inl_bits_fill(known->held, piece->first, piece->n, true);
	known->n_held += piece->n;
	if (piece->first == known->first)
		known->first += piece->n;
}

static void unhold(struct inl_alloc *alloc, const struct piece *piece)
{
	struct inl_alloc_group *known = &alloc->groups[piece->group];

	inl_bits_fill(known->held, piece->first, piece->n, false);
	known->n_held -= piece->n;
}

/* Held before, to be had now. */
static void give_back(struct inl_alloc *alloc, const struct piece *piece)
{
	struct inl_alloc_group *known = &alloc->groups[piece->group];
	uint64_t max_run = 2ull * known->max_run + piece->n;

	unhold(alloc, piece);
	known->first = INL_MIN(known->first, piece->first);
	known->max_run = (uint32_t)INL_MIN(max_run, inl_group_n_blocks(alloc, piece->group));
}

/* The part of [pblk, pblk + n) in the group of pblk. The blocks are in range. */
static struct piece first_piece(const struct inl_alloc *alloc, uint64_t pblk, uint64_t n)
{
	struct piece piece = { .group = inl_group_of(alloc, pblk) };

	piece.first = (uint32_t)(pblk - inl_group_start(alloc, piece.group));
	piece.n = (uint32_t)INL_MIN(n, inl_group_n_blocks(alloc, piece.group) - piece.first);
	return piece;
}

static bool in_range(const struct inl_alloc *alloc, uint64_t pblk, uint64_t n)
{
	return pblk >= alloc->vol->first_block && pblk < alloc->vol->n_blocks && n <= alloc->vol->n_blocks - pblk;
}

/* ---- reserve --------------------------------------------------------------------------------------------------- */

static void unreserve(struct inl_alloc *alloc, const struct piece *piece)
{
	give_back(alloc, piece);
	alloc->n_reserved -= piece->n;
}

static void undo_reserve(struct inl_volume *vol, void *what)
{
	unreserve(vol->alloc, what);
}

static int reserve(struct inl_handle *op, uint64_t pblk, uint32_t n)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	struct piece piece = first_piece(alloc, pblk, n);
	int err = held_ready(alloc, piece.group);

	if (!err)
		err = inl_op_undo(op, undo_reserve, &piece, sizeof(piece));
	if (err)
		return err;
	hold(alloc, &piece);
	alloc->n_reserved += piece.n;
	return 0;
}

int inl_blocks_reserve(struct inl_handle *op, uint64_t goal, uint64_t n, uint64_t *pblk, uint64_t *got)
{
	uint64_t found;
	uint32_t len;
	int err = n ? inl_place_find(op, goal, n, true, &found, &len) : -EINVAL;

	if (!err)
		err = reserve(op, found, len);
	if (err)
		return err;
	*pblk = found;
	*got = len;
	return 0;
}

static void unreserve_all(struct inl_alloc *alloc, uint64_t pblk, uint64_t n)
{
	while (n) {
		struct piece piece = first_piece(alloc, pblk, n);

		unreserve(alloc, &piece);
		pblk += piece.n;
		n -= piece.n;
	}
}

void inl_blocks_unreserve(struct inl_volume *vol, uint64_t pblk, uint64_t n)
{
	pthread_mutex_lock(&vol->lock);
	unreserve_all(vol->alloc, pblk, n);
	pthread_mutex_unlock(&vol->lock);
}

/* ---- to discard ------------------------------------------------------------------------------------------------ */

int inl_blocks_find_run(struct inl_handle *op, uint64_t from, uint64_t end, uint64_t min, struct inl_span *run)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	uint32_t group = inl_group_of(alloc, from), at, next;
	uint64_t start = inl_group_start(alloc, group);
	struct inl_bits_view view = { .n = (uint32_t)(end - start) };
	int err;

	*run = (struct inl_span){ 0 };
	if (!inl_group_n_usable(&alloc->groups[group]))
		return 0;
	err = inl_group_look_blocks(op, group, &view.bits);
	if (err)
		return err;
	view.also = alloc->groups[group].held;
	for (at = (uint32_t)(from - start); (at = inl_bits_next_clear(&view, at)) < view.n; at = next) {
		next = inl_bits_next_set(&view, at);
		if (next - at < min)
			continue;
		*run = (struct inl_span){ start + at, start + next };
		return 0;
	}
	return 0;
}

static void undo_discarding(struct inl_volume *vol, void *what)
{
	const uint64_t *n = what;

	vol->alloc->n_discarding -= *n;
}

int inl_blocks_reserve_run(struct inl_handle *op, uint64_t pblk, uint64_t n)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	int err = reserve(op, pblk, (uint32_t)n);

	if (!err)
		err = inl_op_undo(op, undo_discarding, &n, sizeof(n));
	if (!err)
		alloc->n_discarding += n;
	return err;
}

void inl_blocks_unreserve_run(struct inl_volume *vol, uint64_t pblk, uint64_t n)
{
	pthread_mutex_lock(&vol->lock);
	unreserve_all(vol->alloc, pblk, n);
	vol->alloc->n_discarding -= n;
	pthread_mutex_unlock(&vol->lock);
}

/* ---- take ------------------------------------------------------------------------------------------------------ */

static void undo_take(struct inl_volume *vol, void *what)
{
	struct inl_alloc *alloc = vol->alloc;
	const struct piece *piece = what;

	hold(alloc, piece);
	alloc->n_reserved += piece->n;
	alloc->groups[piece->group].n_free += piece->n;
	alloc->n_free += piece->n;
}

static int take_piece(struct inl_handle *op, const struct piece *piece)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc *alloc = vol->alloc;
	struct inl_alloc_group *known = &alloc->groups[piece->group];
	struct inl_group_edit edit;
	int err = inl_group_edit_blocks(op, piece->group, &edit);

	if (err)
		return err;
	if (!known->held || !inl_bits_all(known->held, piece->first, piece->n, true) ||
	    !inl_bits_all(edit.bits, piece->first, piece->n, false))
		return -EUCLEAN;
	err = inl_op_undo(op, undo_take, piece, sizeof(*piece));
	if (err)
		return err;
	unhold(alloc, piece);
	alloc->n_reserved -= piece->n;
	known->n_free -= piece->n;
	alloc->n_free -= piece->n;
	inl_bits_fill(edit.bits, piece->first, piece->n, true);
	inl_group_seal_blocks(vol, &edit, known->n_free);
	return 0;
}

int inl_blocks_take(struct inl_handle *op, uint64_t pblk, uint64_t n)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	int err = in_range(alloc, pblk, n) ? 0 : -EUCLEAN;

	while (n && !err) {
		struct piece piece = first_piece(alloc, pblk, n);

		err = take_piece(op, &piece);
		pblk += piece.n;
		n -= piece.n;
	}
	return err;
}

int inl_block_alloc(struct inl_handle *op, uint64_t goal, uint64_t *pblk)
{
	uint64_t found;
	uint32_t len;
	int err = inl_place_find(op, goal, 1, false, &found, &len);

	if (!err)
		err = reserve(op, found, 1);
	if (!err)
		err = inl_blocks_take(op, found, 1);
	if (!err)
		*pblk = found;
	return err;
}

/* ---- free ------------------------------------------------------------------------------------------------------ */

/* A freed piece, and the end of the list of freed spans as it was before. */
struct freed_piece {
	struct piece piece;
	size_t n_spans;
	struct inl_span last;
};

static void undo_free(struct inl_volume *vol, void *what)
{
	const struct freed_piece *freed = what;
	struct inl_alloc *alloc = vol->alloc;

	unhold(alloc, &freed->piece);
	alloc->n_busy -= freed->piece.n;
	alloc->groups[freed->piece.group].n_free -= freed->piece.n;
	alloc->n_free -= freed->piece.n;
	alloc->freed.n = freed->n_spans;
	if (freed->n_spans)
		alloc->freed.at[freed->n_spans - 1] = freed->last;
}

/* All that may fail before the blocks of a piece are freed. */
static int free_ready(struct inl_handle *op, const struct piece *piece, const struct inl_group_edit *edit)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	struct freed_piece freed = { .piece = *piece, .n_spans = alloc->freed.n };
	int err;

	if (!inl_bits_all(edit->bits, piece->first, piece->n, true))
		return -EUCLEAN;
	if (freed.n_spans)
		freed.last = alloc->freed.at[freed.n_spans - 1];
	err = held_ready(alloc, piece->group);
	if (!err)
		err = spans_room(&alloc->freed);
	return err ? err : inl_op_undo(op, undo_free, &freed, sizeof(freed));
}

static int free_piece(struct inl_handle *op, const struct piece *piece)
{
	struct inl_volume *vol = inl_op_vol(op);
	struct inl_alloc *alloc = vol->alloc;
	struct inl_alloc_group *known = &alloc->groups[piece->group];
	uint64_t pblk = inl_group_start(alloc, piece->group) + piece->first;
	struct inl_group_edit edit;
	int err = inl_group_edit_blocks(op, piece->group, &edit);

	if (!err)
		err = free_ready(op, piece, &edit);
	if (err)
		return err;
	hold(alloc, piece);
	alloc->n_busy += piece->n;
	known->n_free += piece->n;
	alloc->n_free += piece->n;
	spans_push(&alloc->freed, pblk, pblk + piece->n);
	inl_bits_fill(edit.bits, piece->first, piece->n, false);
	inl_group_seal_blocks(vol, &edit, known->n_free);
	return 0;
}

static bool is_system(const struct inl_alloc *alloc, uint64_t pblk, uint64_t n)
{
	size_t i = inl_spans_find(&alloc->system, pblk);

	return i < alloc->system.n && alloc->system.at[i].start < pblk + n;
}

int inl_blocks_free(struct inl_handle *op, uint64_t pblk, uint64_t n, bool metadata)
{
	struct inl_alloc *alloc = inl_op_vol(op)->alloc;
	uint64_t end = pblk + n;
	int err = in_range(alloc, pblk, n) && !is_system(alloc, pblk, n) ? 0 : -EUCLEAN;

	for (uint64_t i = pblk; metadata && i < end && !err; i++)
		err = inl_block_forget(op, i);
	while (pblk < end && !err) {
		struct piece piece = first_piece(alloc, pblk, end - pblk);

		err = free_piece(op, &piece);
		pblk += piece.n;
	}
	return err;
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

void inl_alloc_frozen(struct inl_alloc *alloc)
{
	struct inl_spans empty = alloc->committing;

	/* A frozen transaction has been committed before the next one is frozen, or nothing is committed any more. */
	empty.n = 0;
	alloc->committing = alloc->freed;
	alloc->freed = empty;
	held_trim(alloc);
}

void inl_alloc_committed(struct inl_alloc *alloc)
{
	for (size_t i = 0; i < alloc->committing.n; i++) {
		struct inl_span span = alloc->committing.at[i];

		while (span.start < span.end) {
			struct piece piece = first_piece(alloc, span.start, span.end - span.start);

			give_back(alloc, &piece);
			alloc->n_busy -= piece.n;
			span.start += piece.n;
		}
	}
	alloc->committing.n = 0;
	held_trim(alloc);
}
