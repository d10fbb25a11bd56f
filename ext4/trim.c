/*
 * ext4/trim.c: the device is told which blocks are free: FITRIM.
 * Not here: which blocks those are (alloc.c, group.c).
 * Read more: fstrim(8); inlay/volume.h.
 *
 * A run of free blocks is reserved, as for a write, and so nobody's while the device works on it, with no lock of the
 * volume held; then it is given back. Piece by piece: others get blocks meanwhile, and who finds none waits for the end of
 * the piece before he believes it (op.c). Only blocks that are free in what is committed are free to be had at all: no crash
 * brings back an owner of what was discarded.
 */
#include "ext4/alloc.h"
#include <errno.h>

#define PIECE_BYTES (16u << 20)

struct trim {
	struct inl_volume *vol;
	uint64_t at, end; /* blocks that are still to be looked at */
	uint64_t min;	  /* blocks of a run; fewer are left alone */
	uint64_t good;	  /* up to here it has been seen that the run is long enough */
	/* A piece that is reserved; n 0: there was none up to next. Of an attempt, until it stands: */
	uint64_t pblk, n, next, next_good;
	uint64_t done;	  /* blocks */
};

/* The next piece of the group at trim->at. What is damaged is passed over. */
static int reserve_op(struct inl_handle *op, void *arg)
{
	struct trim *trim = arg;
	struct inl_alloc *alloc = trim->vol->alloc;
	uint32_t group = inl_group_of(alloc, trim->at);
	uint64_t end = inl_group_start(alloc, group) + inl_group_n_blocks(alloc, group);
	struct inl_span run;
	int err;

	end = INL_MIN(end, trim->end);
	trim->n = 0;
	trim->next = end;
	trim->next_good = 0;
	err = inl_blocks_find_run(op, trim->at, end, trim->at < trim->good ? 1 : trim->min, &run);
	if (err || run.start == run.end)
		return err == -EUCLEAN ? 0 : err;
	trim->next_good = run.end;
	trim->pblk = run.start;
	trim->n = INL_MIN(run.end - run.start, (uint64_t)PIECE_BYTES >> trim->vol->block_bits);
	trim->next = trim->pblk + trim->n;
	return inl_blocks_reserve_run(op, trim->pblk, trim->n);
}

static int discard(struct trim *trim)
{
	unsigned bits = trim->vol->block_bits;
	struct inl_bio bio;
	int err;

	inl_bio_init_range(&bio, INL_DISCARD, trim->pblk << bits, trim->n << bits);
	err = inl_submit_wait(trim->vol->dev, &bio);
	if (!err)
		trim->done += trim->n;
	return err;
}

static int trim_piece(struct trim *trim, struct inl_diag *diag)
{
	struct inl_alloc *alloc = trim->vol->alloc;
	int err;

	pthread_mutex_lock(&alloc->discarding);
	err = inl_op_run(trim->vol, 0, reserve_op, trim, diag);
	if (!err && trim->n) {
		err = discard(trim);
		inl_blocks_unreserve_run(trim->vol, trim->pblk, trim->n);
		if (err)
			inl_diag_set(diag, err, err == -EOPNOTSUPP ? "the device cannot discard" : "blocks cannot be discarded");
	}
	pthread_mutex_unlock(&alloc->discarding);
	trim->at = trim->next;
	trim->good = trim->next_good;
	return err;
}

int inl_trim(struct inl_volume *vol, uint64_t offset, uint64_t len, uint64_t min_len, uint64_t *trimmed,
	     struct inl_diag *diag)
{
	unsigned bits = vol->block_bits;
	struct trim trim = { .vol = vol, .at = offset >> bits, .min = min_len >> bits };
	int err;

	if (!vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	if (trim.min > vol->alloc->blocks_per_group || trim.at >= vol->n_blocks || len < vol->block_size)
		return inl_diag_set(diag, -EINVAL, "there is nothing of that length to be discarded there");
	trim.end = trim.at + INL_MIN(len >> bits, vol->n_blocks - trim.at);
	trim.at = trim.at > vol->first_block ? trim.at : vol->first_block;
	trim.min += !trim.min;
	/* What was freed before is to count. */
	err = inl_sync(vol, diag);
	while (!err && trim.at < trim.end)
		err = trim_piece(&trim, diag);
	if (!err)
		*trimmed = trim.done << bits;
	return err;
}
