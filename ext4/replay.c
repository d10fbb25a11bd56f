/*
 * ext4/replay.c: the journal replayed to the device: what it holds goes home, and then it is empty.
 * Not here: what counts of a log (journal.c); reading through a journal without touching it (io.c).
 * Read more: Linux Documentation/filesystems/ext4/journal.rst.
 *
 * A crash on the way is harmless: the log is as it was until all has been flushed, and the next replay begins again.
 */
#include "ext4/change.h"
#include "ext4/jbd2.h"
#include <errno.h>
#include <stdlib.h>

#define BATCH_LEN    (1u << 20) /* bytes */

struct replay {
	struct inl_volume *vol;
	struct inl_journal_place place;
	uint8_t *buf;
	size_t max; /* blocks in buf */
};

static bool in_journal(const struct inl_journal_place *place, uint64_t pblk)
{
	for (size_t i = 0; i < place->n_runs; i++) {
		if (pblk >= place->runs[i].pblk && pblk - place->runs[i].pblk < place->runs[i].n)
			return true;
	}
	return false;
}

/* How many entries from here on belong side by side. */
static size_t count_run(const struct replay *replay, const struct inl_journal_entry *entries, size_t n)
{
	size_t len = 1;

	n = INL_MIN(n, replay->max);
	while (len < n && entries[len].block == entries[0].block + len)
		len++;
	return len;
}

/* Read the copies of n entries; those that lie side by side at once. */
static int read_copies(const struct replay *replay, const struct inl_journal_entry *entries, size_t n)
{
	unsigned bits = replay->vol->block_bits;

	for (size_t i = 0, len; i < n; i += len) {
		int err;

		for (len = 1; i + len < n && entries[i + len].copy == entries[i].copy + len;)
			len++;
		err = inl_dev_read(replay->vol->dev, entries[i].copy << bits, replay->buf + (i << bits), len << bits);
		if (err)
			return err;
	}
	for (size_t i = 0; i < n; i++) {
		if (entries[i].escaped)
			inl_store_be32(replay->buf + (i << bits), JBD2_MAGIC);
	}
	return 0;
}

static int write_home(const struct replay *replay, struct inl_diag *diag)
{
	const struct inl_journal_map *map = &replay->vol->journal;
	unsigned bits = replay->vol->block_bits;

	for (size_t i = 0, n; i < map->n; i += n) {
		const struct inl_journal_entry *entries = map->entries + i;
		int err;

		n = count_run(replay, entries, map->n - i);
		for (size_t k = 0; k < n; k++) {
			if (in_journal(&replay->place, entries[k].block))
				return inl_diag_set(diag, -EUCLEAN, "the journal holds a copy of a block of its own");
		}
		err = read_copies(replay, entries, n);
		if (!err)
			err = inl_dev_write(replay->vol->dev, entries[0].block << bits, replay->buf, n << bits);
		if (err)
			return inl_diag_set(diag, err, "the journal cannot be replayed");
	}
	return 0;
}

/*
 * An empty log. The number behind the last transaction is left out: an unfinished one may have it. An error that the
 * journal has recorded stays there: to deal with it is up to e2fsck.
 */
static int mark_empty(struct replay *replay, struct inl_diag *diag)
{
	uint8_t *super = replay->place.super;
	int err;

	if (inl_load_be32(super + JBD2_SB_ERRNO))
		replay->vol->fs->super->s_state |= EXT4_STATE_ERRORS;
	inl_store_be32(super + JBD2_SB_START, 0);
	inl_store_be32(super + JBD2_SB_SEQUENCE, replay->vol->journal.end_tid + 1);
	err = inl_journal_super_write(&replay->place);
	return err ? inl_diag_set(diag, err, "the journal's superblock cannot be written") : 0;
}

static int replay_home(struct replay *replay, struct inl_diag *diag)
{
	struct inl_volume *vol = replay->vol;
	int err;

	if (!inl_load_be32(replay->place.super + JBD2_SB_START))
		return 0; /* nothing was to be replayed */
	replay->max = BATCH_LEN >> vol->block_bits;
	replay->buf = aligned_alloc(4096, BATCH_LEN);
	if (!replay->buf)
		return -ENOMEM;
	err = write_home(replay, diag);
	if (err)
		return err;
	err = inl_dev_flush(vol->dev);
	if (err)
		return inl_diag_set(diag, err, "the journal cannot be replayed");
	return mark_empty(replay, diag);
}

int inl_journal_replay_home(struct inl_volume *vol, struct inl_diag *diag)
{
	struct replay replay = { .vol = vol };
	int err = inl_journal_place_open(vol, diag, &replay.place);

	if (err)
		return err;
	err = replay_home(&replay, diag);
	free(replay.buf);
	inl_journal_place_done(&replay.place);
	if (!err)
		inl_journal_map_done(&vol->journal);
	return err;
}
