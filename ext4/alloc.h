/*
 * ext4/alloc.h: what the files of allocation share: the state in memory, and groups with their bitmaps.
 * Not here: what the rest of ext4/ calls (change.h).
 * Read more: ext4/change.h, "descriptors, bitmaps, allocation".
 *
 * Everything here is used with vol->lock held. What is a hint may be stale after a cancelled operation; it errs on the
 * side that is safe. What is counted is put back (inl_op_undo).
 */
#ifndef INLAY_EXT4_ALLOC_H
#define INLAY_EXT4_ALLOC_H

#include "ext4/bits.h"
#include "ext4/change.h"

enum { EXT4_BG_INODE_UNINIT = 1, EXT4_BG_BLOCK_UNINIT = 2, EXT4_BG_INODE_ZEROED = 4 };

#define INL_N_STREAMS 64u
#define INL_NO_GROUP  UINT32_MAX

/* What is known of a group in memory. */
struct inl_alloc_group {
	uint8_t *held;		/* a bit per block that is reserved or busy; NULL: none is. block_size bytes */
	uint32_t next_held;	/* group: the list of those that have held */
	uint32_t n_held;
	uint32_t n_free;	/* blocks; as the descriptor says: held ones count */
	uint32_t n_free_inodes; /* as the descriptor says */
	uint32_t n_dirs;
	uint32_t max_run;	/* hint: no run of blocks that can be had is longer */
	uint32_t first;		/* hint: no block that can be had is lower */
	bool desc_good, blocks_good, inodes_good; /* their checksums were right when they were first looked at */
	bool blocks_bad, inodes_bad;		  /* damaged: left alone */
};

/* Blocks [start, end). */
struct inl_span {
	uint64_t start, end;
};

struct inl_spans {
	struct inl_span *at;
	size_t n, room;
};

/* Somebody who writes one block after the other: the blocks ahead are left to him while there are others. Hints. */
struct inl_stream {
	uint64_t next;	/* where the next one goes; 0: unused */
	uint64_t len;	/* blocks so far */
	uint64_t ahead; /* blocks from next on */
	uint64_t used;	/* alloc->clock at the last use */
};

struct inl_alloc {
	struct inl_volume *vol;
	uint32_t n_groups, blocks_per_group, inodes_per_group;
	uint32_t flex; /* groups that share their tables; 1: they do not */
	uint32_t desc_size;
	struct inl_alloc_group *groups;
	uint64_t n_free, n_reserved, n_busy; /* blocks; free ones as the descriptors say */
	uint32_t n_free_inodes, n_dirs;
	uint32_t first_held;		   /* list of groups, INL_NO_GROUP: empty */
	uint32_t n_held_groups;
	struct inl_spans system;	   /* sorted, apart: what is the file system's own */
	struct inl_spans freed, committing; /* by the running transaction, by the frozen one */
	uint64_t n_discarding;		   /* of n_reserved: those that come back by themselves */
	pthread_mutex_t discarding;	   /* whoever has blocks discarded, a piece at a time; before vol->lock */
	uint8_t *scratch;		   /* block_size bytes: the bitmap of a group that has none on the medium yet */
	uint64_t clock;
	struct inl_stream streams[INL_N_STREAMS];
};

/* ---- alloc.c --------------------------------------------------------------------------------------------------- */

static inline uint64_t inl_group_start(const struct inl_alloc *alloc, uint32_t group)
{
	return alloc->vol->first_block + (uint64_t)group * alloc->blocks_per_group;
}

/* Blocks of a group: the last one may have fewer. */
static inline uint32_t inl_group_n_blocks(const struct inl_alloc *alloc, uint32_t group)
{
	return (uint32_t)INL_MIN(alloc->blocks_per_group, alloc->vol->n_blocks - inl_group_start(alloc, group));
}

static inline uint32_t inl_group_of(const struct inl_alloc *alloc, uint64_t pblk)
{
	return (uint32_t)((pblk - alloc->vol->first_block) / alloc->blocks_per_group);
}

static inline uint64_t inl_alloc_n_usable(const struct inl_alloc *alloc)
{
	return alloc->n_free - alloc->n_reserved - alloc->n_busy;
}

static inline uint32_t inl_group_n_usable(const struct inl_alloc_group *group)
{
	return group->blocks_bad ? 0 : group->n_free - group->n_held;
}

int inl_spans_add(struct inl_spans *spans, uint64_t start, uint64_t end); /* -ENOMEM */

/* The first span that ends behind a block: an index, spans->n if there is none. */
size_t inl_spans_find(const struct inl_spans *sorted, uint64_t pblk);

/*
 * To discard, of free blocks. The first run of at least min blocks that can be had in [from, end), all of one group, as
 * far as it lies there; none: *run is empty. -EUCLEAN; -EAGAIN.
 */
int inl_blocks_find_run(struct inl_handle *op, uint64_t from, uint64_t end, uint64_t min, struct inl_span *run);

/* Reserve what was found, and give it back, outside of operations: with alloc->discarding held from before until after. */
int inl_blocks_reserve_run(struct inl_handle *op, uint64_t pblk, uint64_t n);
void inl_blocks_unreserve_run(struct inl_volume *vol, uint64_t pblk, uint64_t n);

/* ---- group.c: descriptors and bitmaps -------------------------------------------------------------------------- */

/*
 * The bitmap of a group's blocks as it is, or as it will be when it is first written: then in alloc->scratch, good
 * until the next call. Returns: 0; -EAGAIN; -EUCLEAN (then the group is marked as bad).
 */
int inl_group_look_blocks(struct inl_handle *op, uint32_t group, const uint8_t **bits);
int inl_group_look_inodes(struct inl_handle *op, uint32_t group, const uint8_t **bits);

/*
 * To change: descriptor and bitmap, initialised if they were not. Both are put right by seal, which must follow.
 * -EUCLEAN before anything has changed.
 */
struct inl_group_edit {
	uint32_t group;
	uint8_t *desc, *bits;
};
int inl_group_edit_blocks(struct inl_handle *op, uint32_t group, struct inl_group_edit *edit);
int inl_group_edit_inodes(struct inl_handle *op, uint32_t group, struct inl_group_edit *edit);
void inl_group_seal_blocks(struct inl_volume *vol, const struct inl_group_edit *edit, uint32_t n_free);
void inl_group_seal_inodes(struct inl_volume *vol, const struct inl_group_edit *edit, const struct inl_group *now);

void inl_group_parse(const struct inl_alloc *alloc, const uint8_t *desc, struct inl_group *group);

/* Has the volume flags, numbers of unused inodes and checksums in its descriptors? */
bool inl_group_has_csum(const struct inl_volume *vol);

/* Build alloc->system. */
int inl_group_find_system(struct inl_alloc *alloc);

/* ---- place.c --------------------------------------------------------------------------------------------------- */

/*
 * Find blocks that can be had: 1 .. n of them, all in one group.
 *
 *   stream   it is data of a file, and more may follow
 *
 * Returns: 0; -ENOSPC; -EUCLEAN; -EAGAIN.
 */
int inl_place_find(struct inl_handle *op, uint64_t goal, uint64_t n, bool stream, uint64_t *pblk, uint32_t *got);

#endif
