/*
 * ext4/readdir.c: iterating over a directory: in the order of the hash, or by blocks.
 * Not here: the index (dxwalk.c); looking one name up (dir.c).
 * Read more: inlay/volume.h, "directories".
 *
 * The order of the hash stays while names come and go and splits move them. The names whose positions are in a range
 * lie in one leaf, and in those that continue it: a *batch*. It is read as a whole within one look, sorted, and handed
 * out from memory. The next batch begins where that range ends, wherever its names are by then. Names of one position
 * are sorted by their bytes, so that an iterator can go on behind any name, without having to remember a place.
 *
 * Where there is no index and more than one block, names never move: there blocks are read one after the other, and a
 * position is a place in the directory. So is a directory read whose index is damaged, as then every block counts.
 */
#include "ext4/dirmod.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define POS_FIRST INL_DIR_POS_FIRST
#define POS_END	  INL_DIR_POS_LAST /* above all hashes: Linux keeps the highest one free */
#define LEAF_NONE UINT64_MAX
#define LOADS_MAX 64u		     /* how often each leaf is read, on average */
#define BATCH_MAX 262144u	     /* bytes of names with the same hash that are kept at once */

enum hash_source {
	HASH_NONE,   /* linear directory: no-key names carry 0, 0 */
	HASH_NAME,   /* of the stored name, by hash_version */
	HASH_STORED, /* beside the name */
};

enum order { ORDER_OPEN, ORDER_HASH, ORDER_BLOCKS }; /* OPEN: known when something is read */

/* Between two names in the order of the hash: behind this one, or (without a name) in front of all of its position. */
struct place {
	uint64_t pos;
	bool behind;
	uint8_t len;
	uint8_t name[INL_NAME_MAX];
};

/* An entry in memory. */
struct slot {
	uint64_t pos;
	uint32_t at; /* in bytes */
};

struct inl_dir {
	struct inl_inode *inode;
	struct inl_dirent_format format;
	enum hash_source hash_source;
	uint8_t hash_version;
	enum order order;
	uint64_t sought;    /* ORDER_OPEN */
	struct place place; /* HASH: where the batch begins; BLOCKS: what is not behind it was handed out already */
	uint8_t *bytes;	    /* blocks as they were read */
	size_t size, room;
	size_t at; /* what comes next. HASH: of slots; BLOCKS: of bytes */

	/* HASH: the batch */
	bool loaded;
	bool whole;	   /* all of it is in memory, else all that is not behind last */
	uint64_t to;	   /* where the next one begins */
	struct place last; /* not whole */
	struct slot *slots;
	size_t n_slots, slots_room;
	uint64_t leaf;		 /* the one that is being read, or LEAF_NONE */
	uint64_t unreadable;	 /* one that is left out, or LEAF_NONE */
	uint64_t n_leaves;	 /* of the batch */
	uint64_t n_loads;	 /* of leaves, since the last seek */
	struct inl_diag trouble; /* to be told behind the batch, if .err */
	uint64_t troubled;	 /* the leaf that it is about, or LEAF_NONE */
	uint64_t told;		 /* the last one that was told of, or LEAF_NONE */

	/* BLOCKS */
	bool inline_data;
	uint64_t lblk;	 /* next block to read */
	uint64_t base;	 /* of bytes in the directory */
	size_t resume;	 /* where to begin in the next block */
	size_t from;	 /* where it was begun in this one */
};

/* ---- open -------------------------------------------------------------------------------------------------------- */

static uint64_t n_blocks(const struct inl_inode *inode)
{
	return (inode->size + inode->vol->block_size - 1) >> inode->vol->block_bits;
}

/* Linux shows hashes in no-key names where it considers the directory indexed. */
static int choose_hash(struct inl_handle *op, void *arg)
{
	struct inl_dir *dir = arg;
	struct inl_inode *inode = dir->inode;
	struct ext2_super_block *sb = inode->vol->fs->super;
	struct inl_dx_walk walk;
	int err;

	dir->hash_source = HASH_NONE;
	dir->hash_version = sb->s_def_hash_version;
	if (dir->format.hashes) {
		dir->hash_source = HASH_STORED;
		return 0;
	}
	if (!(sb->s_feature_compat & EXT4_COMPAT_DIR_INDEX))
		return 0;
	if (!(inode->raw.i_flags & EXT4_FL_INDEX)) {
		dir->hash_source = n_blocks(inode) == 1 || inl_is_inline(inode) ? HASH_NAME : HASH_NONE;
		return 0;
	}
	dir->hash_source = HASH_NAME;
	err = inl_dx_walk_begin(&walk, inode);
	if (!err)
		dir->hash_version = walk.steps[0].node.hash_version;
	inl_dx_walk_done(&walk);
	return err == -EAGAIN ? err : 0;
}

int inl_dir_open(struct inl_inode *inode, struct inl_diag *diag, struct inl_dir **out)
{
	struct inl_dir *dir;

	if (!S_ISDIR(inode->type))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	if (inode->encrypted && !inode->crypt)
		return inl_inode_unlock(inode, diag);
	dir = calloc(1, sizeof(*dir));
	if (!dir)
		return -ENOMEM;
	dir->room = inl_is_inline(inode) ? INL_INLINE_DIR_MAX : inode->vol->block_size;
	dir->bytes = malloc(dir->room);
	if (!dir->bytes) {
		free(dir);
		return -ENOMEM;
	}
	atomic_fetch_add_explicit(&inode->refs, 1, memory_order_relaxed);
	dir->inode = inode;
	dir->format = inl_dir_format(inode);
	dir->told = LEAF_NONE;
	inl_op_look(inode->vol, choose_hash, dir);
	*out = dir;
	return 0;
}

void inl_dir_close(struct inl_dir *dir)
{
	if (!dir)
		return;
	inl_inode_put(dir->inode);
	free(dir->slots);
	free(dir->bytes);
	free(dir);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

static uint64_t pos_of_hash(uint32_t hash, uint32_t minor)
{
	uint64_t pos = (uint64_t)(hash >> 1) << 32 | minor;

	return pos < POS_FIRST ? POS_FIRST : pos >= POS_END ? POS_END - 1 : pos;
}

/* -EOPNOTSUPP: there is no telling. */
static int pos_of(const struct inl_dir *dir, const struct inl_raw_dirent *raw, uint64_t *pos)
{
	uint32_t hash = raw->hash, minor = raw->minor;
	int err = 0;

	if (!dir->format.hashes)
		err = inl_dir_hash(dir->inode, dir->hash_version, raw->name, raw->len, &hash, &minor);
	if (!err)
		*pos = pos_of_hash(hash, minor);
	return err;
}

static int compare_names(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	int order = memcmp(a, b, INL_MIN(a_len, b_len));

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

static bool is_behind(const struct place *place, uint64_t pos, const uint8_t *name, size_t len)
{
	if (pos != place->pos || !place->behind)
		return pos >= place->pos;
	return compare_names(name, len, place->name, place->len) > 0;
}

static const uint8_t *slot_name(const struct inl_dir *dir, const struct slot *slot, size_t *len)
{
	*len = dir->bytes[slot->at + 6];
	return dir->bytes + slot->at + 8;
}

static void place_behind(const struct inl_dir *dir, const struct slot *slot, struct place *place)
{
	size_t len;
	const uint8_t *name = slot_name(dir, slot, &len);

	place->pos = slot->pos;
	place->behind = true;
	place->len = (uint8_t)len;
	memcpy(place->name, name, len);
}

static void place_at(struct place *place, uint64_t pos)
{
	place->pos = pos;
	place->behind = false;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static int compare_slots(const void *a, const void *b, void *arg)
{
	const struct slot *x = a, *y = b;
	const uint8_t *x_name, *y_name;
	size_t x_len, y_len;
	int order;

	if (x->pos != y->pos)
		return x->pos < y->pos ? -1 : 1;
	x_name = slot_name(arg, x, &x_len);
	y_name = slot_name(arg, y, &y_len);
	order = compare_names(x_name, x_len, y_name, y_len);
	return order ? order : (x->at > y->at) - (x->at < y->at); /* twins: a damaged directory */
}

static void sort_slots(struct inl_dir *dir)
{
	if (dir->n_slots)
		qsort_r(dir->slots, dir->n_slots, sizeof(*dir->slots), compare_slots, dir);
}

/* More than is kept at once: the first half stays; what is behind it is for the next time. */
static int drop_half(struct inl_dir *dir)
{
	uint8_t *bytes = malloc(dir->room);
	size_t size = 0, i;

	if (!bytes)
		return -ENOMEM;
	sort_slots(dir);
	for (i = 0; i < dir->n_slots && size < BATCH_MAX / 2; i++) {
		struct slot *slot = &dir->slots[i];
		uint32_t len = inl_dirent_need(dir->bytes[slot->at + 6]) + (dir->format.hashes ? 8 : 0);

		memcpy(bytes + size, dir->bytes + slot->at, len);
		inl_dirent_set_rec_len(bytes + size, len, dir->format.block_size);
		slot->at = (uint32_t)size;
		size += len;
	}
	free(dir->bytes);
	dir->bytes = bytes;
	dir->size = size;
	if (i < dir->n_slots) {
		dir->n_slots = i;
		dir->whole = false;
		place_behind(dir, &dir->slots[i - 1], &dir->last);
	}
	return 0;
}

/* Room for one more block. */
static int make_room(struct inl_dir *dir)
{
	size_t block_size = dir->format.block_size, room = 2 * dir->room;
	uint8_t *bytes;

	if (dir->size + block_size <= dir->room)
		return 0;
	if (dir->room >= BATCH_MAX + block_size)
		return drop_half(dir);
	bytes = realloc(dir->bytes, INL_MIN(room, BATCH_MAX + block_size));
	if (!bytes)
		return -ENOMEM;
	dir->bytes = bytes;
	dir->room = INL_MIN(room, BATCH_MAX + block_size);
	return 0;
}

static int add_slot(struct inl_dir *dir, uint64_t pos, size_t at)
{
	if (dir->n_slots == dir->slots_room) {
		size_t room = dir->slots_room ? 2 * dir->slots_room : 64;
		struct slot *slots = realloc(dir->slots, room * sizeof(*slots));

		if (!slots)
			return -ENOMEM;
		dir->slots = slots;
		dir->slots_room = room;
	}
	dir->slots[dir->n_slots++] = (struct slot){ pos, (uint32_t)at };
	return 0;
}

/* What a leaf has to have, and what of it goes into the batch. */
struct range {
	uint64_t lo, hi; /* positions of all its names; one that is elsewhere by mistake counts as one of these */
	uint64_t to;	 /* the batch ends here */
};

/* The entries of bytes[at, size). -EUCLEAN: some of them. */
static int add_entries(struct inl_dir *dir, size_t at, const struct range *range)
{
	struct inl_raw_dirent raw;
	int err = 0;

	for (size_t next; !err && at < dir->size; at = next) {
		uint64_t pos;

		err = inl_dirent_parse(&dir->format, dir->bytes, dir->size, at, &raw, &next);
		if (err || !raw.ino || inl_is_dots(raw.name, raw.len))
			continue;
		err = pos_of(dir, &raw, &pos);
		if (err)
			break;
		pos = pos < range->lo ? range->lo : pos > range->hi ? range->hi : pos;
		if (pos < range->to && is_behind(&dir->place, pos, raw.name, raw.len) &&
		    (dir->whole || !is_behind(&dir->last, pos, raw.name, raw.len)))
			err = add_slot(dir, pos, at);
	}
	return err;
}

/*
 * It is told behind the batch, once: a leaf may have names of two batches. What asks for another attempt, or for memory,
 * ends this one.
 */
static int note(struct inl_dir *dir, int err, const struct inl_diag *diag)
{
	if (err == -EAGAIN || err == -ENOMEM)
		return err;
	if (err && !dir->trouble.err && (dir->leaf == LEAF_NONE || dir->leaf != dir->told)) {
		inl_diag_set(&dir->trouble, err, "%s", diag->text);
		dir->troubled = dir->leaf;
	}
	return 0;
}

static int read_leaf(struct inl_dir *dir, uint64_t lblk, struct inl_diag *diag)
{
	uint32_t block_size = dir->format.block_size;
	struct inl_block *block;
	uint64_t skip;
	int err;

	dir->leaf = lblk;
	if (lblk == dir->unreadable)
		return inl_diag_set(diag, -EIO, "directory %u: block %llu cannot be read", dir->inode->ino,
				    (unsigned long long)lblk);
	err = make_room(dir);
	if (!err)
		err = inl_dir_block_get(dir->inode, lblk, &block, &skip, diag);
	if (err)
		return err;
	memcpy(dir->bytes + dir->size, inl_block_bytes(block), block_size);
	dir->size += block_size;
	inl_block_put(block);
	return 0;
}

static int add_leaf(struct inl_dir *dir, uint64_t lblk, const struct range *range)
{
	struct inl_diag diag = { 0 };
	int err;

	dir->n_leaves++;
	dir->to = range->to;
	err = read_leaf(dir, lblk, &diag);
	if (!err) {
		err = add_entries(dir, dir->size - dir->format.block_size, range);
		if (err == -EUCLEAN)
			inl_diag_set(&diag, err, "directory %u is damaged: a bad entry in block %llu", dir->inode->ino,
				     (unsigned long long)lblk);
	}
	return note(dir, err, &diag);
}

/* An inline directory is the parent's number, then two areas of entries: an entry never spans them. */
static int add_inline(struct inl_dir *dir)
{
	struct range range = { POS_FIRST, POS_END - 1, POS_END };
	struct inl_diag diag = { 0 };
	int err;

	dir->to = POS_END;
	err = inl_inline_read(dir->inode, dir->bytes, dir->room, &dir->size, &diag);
	if (err)
		return note(dir, err, &diag);
	dir->size = INL_MIN(dir->size, dir->inode->size);
	err = add_entries(dir, 4, &range);
	if (err == -EUCLEAN)
		inl_diag_set(&diag, err, "directory %u is damaged: a bad entry", dir->inode->ino);
	return note(dir, err, &diag);
}

/* The leaf where a walk is; *goes_on: the next one has names of the same hash. */
static int add_walked(struct inl_dir *dir, const struct inl_dx_walk *walk, uint32_t hash, bool *goes_on)
{
	struct range range = { pos_of_hash(inl_dx_walk_from(walk) & ~1u, 0), POS_END - 1, POS_END };
	uint32_t next;

	*goes_on = false;
	if (inl_dx_walk_to(walk, &next)) {
		*goes_on = next == (hash | 1);
		range.hi = pos_of_hash(next & ~1u, 0) - 1;
		if (next & 1)
			range.hi = pos_of_hash(next & ~1u, UINT32_MAX);
		range.to = *goes_on ? range.hi + 1 : pos_of_hash(next & ~1u, 0);
	}
	return add_leaf(dir, inl_dx_walk_leaf(walk), &range);
}

static int add_indexed(struct inl_dir *dir)
{
	uint32_t hash = (uint32_t)(dir->place.pos >> 32) << 1;
	struct inl_dx_walk walk;
	bool goes_on = false;
	int err = inl_dx_walk_begin(&walk, dir->inode);

	if (!err && !dir->format.hashes && walk.steps[0].node.hash_version > EXT2_HASH_TEA)
		err = -EUCLEAN;
	if (!err)
		dir->hash_version = walk.steps[0].node.hash_version;
	if (!err)
		err = inl_dx_walk_find(&walk, hash);
	if (!err)
		err = add_walked(dir, &walk, hash, &goes_on);
	while (!err && goes_on) {
		dir->leaf = LEAF_NONE;
		err = inl_dx_walk_next(&walk);
		if (!err)
			err = add_walked(dir, &walk, hash, &goes_on);
	}
	inl_dx_walk_done(&walk);
	if (!err && dir->to <= dir->place.pos)
		err = -EUCLEAN;
	return err;
}

static int add_batch(struct inl_dir *dir)
{
	struct range all = { POS_FIRST, POS_END - 1, POS_END };

	dir->leaf = LEAF_NONE;
	dir->whole = true;
	dir->n_leaves = 0;
	dir->size = dir->at = dir->n_slots = 0;
	dir->trouble = (struct inl_diag){ 0 };
	if (inl_is_inline(dir->inode))
		return add_inline(dir);
	return dir->inode->raw.i_flags & EXT4_FL_INDEX ? add_indexed(dir) : add_leaf(dir, 0, &all);
}

/* ---- which order ------------------------------------------------------------------------------------------------- */

/* Would it go by hash if it were not damaged? */
static bool wants_hash(const struct inl_dir *dir)
{
	const struct inl_inode *inode = dir->inode;

	return (inode->vol->fs->super->s_feature_compat & EXT4_COMPAT_DIR_INDEX) &&
	       (dir->format.hashes || !(inode->lasting & EXT4_FL_CASEFOLD));
}

/* Are there hashes of its names? This does not change while a volume is open and not damaged. */
static bool has_hashes(const struct inl_dir *dir)
{
	return wants_hash(dir) && (dir->format.hashes || dir->hash_version <= EXT2_HASH_TEA);
}

/*
 * The index is looked at once: who iterates by hash relies on it. Whole leaves of one hash, more of them than are kept at
 * once, are read again and again, which must have an end. Returns -EUCLEAN: by blocks.
 */
static int check_order(struct inl_dir *dir)
{
	struct inl_inode *inode = dir->inode;
	int err;

	if (!has_hashes(dir) || dir->n_loads > 1024 + LOADS_MAX * n_blocks(inode))
		return -EUCLEAN;
	if (inl_is_inline(inode))
		return 0;
	if (!(inode->raw.i_flags & EXT4_FL_INDEX))
		return n_blocks(inode) == 1 ? 0 : -EUCLEAN;
	if (inode->index == INL_INDEX_SOUND)
		return 0;
	if (inode->index == INL_INDEX_DAMAGED)
		return -EUCLEAN;
	err = inl_dx_check(inode);
	if (err == -EAGAIN || err == -ENOMEM)
		return err;
	inode->index = err ? INL_INDEX_DAMAGED : INL_INDEX_SOUND;
	return err ? -EUCLEAN : 0;
}

/* From what was sought, or, if the order of the hash can be kept no longer, all that was not handed out already. */
static void go_by_blocks(struct inl_dir *dir)
{
	const struct inl_volume *vol = dir->inode->vol;
	uint64_t pos = dir->order == ORDER_OPEN ? dir->sought : 0;

	/* A position that no block has is one of a hash, from before the index was damaged. */
	if (pos > n_blocks(dir->inode) << vol->block_bits && wants_hash(dir)) {
		if (has_hashes(dir))
			place_at(&dir->place, pos);
		pos = 0;
	}
	dir->order = ORDER_BLOCKS;
	dir->size = dir->at = 0;
	dir->inline_data = inl_is_inline(dir->inode);
	dir->lblk = dir->inline_data ? 0 : pos >> vol->block_bits;
	dir->resume = dir->inline_data ? INL_MIN(pos, dir->room) : pos & (vol->block_size - 1);
}

static int load_batch(struct inl_handle *op, void *arg)
{
	struct inl_dir *dir = arg;
	int err = check_order(dir);

	if (!err) {
		if (dir->order == ORDER_OPEN)
			place_at(&dir->place, dir->sought);
		dir->order = ORDER_HASH;
		err = add_batch(dir);
		if (err == -EUCLEAN)
			dir->inode->index = INL_INDEX_DAMAGED;
	}
	if (err != -EUCLEAN)
		return err;
	go_by_blocks(dir);
	return 0;
}

/* ---- by hash ----------------------------------------------------------------------------------------------------- */

/* A block cannot be read. Returns true if it can be done without: a leaf is left out, a node is one of an index. */
static bool do_without(struct inl_dir *dir)
{
	if (dir->leaf == LEAF_NONE) {
		dir->inode->index = INL_INDEX_DAMAGED;
		return !inl_is_inline(dir->inode);
	}
	if (dir->unreadable != LEAF_NONE)
		return false;
	dir->unreadable = dir->leaf;
	return true;
}

/* Returns 0, also if the order is another one now; or an error: the iteration stands behind what it is about. */
static int load_hashed(struct inl_dir *dir, struct inl_diag *diag)
{
	int err;

	dir->unreadable = dir->leaf = LEAF_NONE;
	dir->to = POS_END;
	do {
		err = inl_op_look(dir->inode->vol, load_batch, dir);
		if (!err) {
			dir->loaded = dir->order == ORDER_HASH;
			dir->n_loads += dir->n_leaves;
			if (dir->loaded)
				sort_slots(dir);
			return 0;
		}
	} while (err != -ENOMEM && do_without(dir));
	dir->order = ORDER_HASH;
	place_at(&dir->place, dir->to);
	return inl_diag_set(diag, err, "directory %u cannot be read", dir->inode->ino);
}

/* All of the batch was handed out. 0, or what is to be told of it. */
static int end_batch(struct inl_dir *dir, struct inl_diag *diag)
{
	dir->loaded = false;
	if (!dir->whole) {
		dir->place = dir->last;
		return 0; /* what there is to tell is met again */
	}
	place_at(&dir->place, dir->to);
	if (!dir->trouble.err)
		return 0;
	dir->told = dir->troubled;
	return inl_diag_set(diag, dir->trouble.err, "%s", dir->trouble.text);
}

static int take_slot(struct inl_dir *dir, struct inl_raw_dirent *raw, uint64_t *pos)
{
	const struct slot *slot = &dir->slots[dir->at++];
	size_t next;
	int err = inl_dirent_parse(&dir->format, dir->bytes, dir->size, slot->at, raw, &next);

	*pos = slot->pos;
	return err ? err : 1;
}

/* ---- by blocks --------------------------------------------------------------------------------------------------- */

struct load {
	struct inl_dir *dir;
	uint64_t skip;
	struct inl_diag *diag;
};

static int load_block(struct inl_handle *op, void *arg)
{
	struct load *load = arg;
	struct inl_dir *dir = load->dir;
	struct inl_block *block;
	int err;

	if (dir->inline_data)
		return inl_inline_read(dir->inode, dir->bytes, dir->room, &dir->size, load->diag);
	err = inl_dir_block_get(dir->inode, dir->lblk, &block, &load->skip, load->diag);
	if (err)
		return err;
	dir->size = dir->inode->vol->block_size;
	memcpy(dir->bytes, inl_block_bytes(block), dir->size);
	inl_block_put(block);
	return 0;
}

/*
 * Returns 1 (a block is there), 0 (the end), or an error; the next call goes on behind. The areas of an inline directory
 * are iterated as one, behind the parent's number: an entry never spans them.
 */
static int load_next(struct inl_dir *dir, struct inl_diag *diag)
{
	struct load load = { dir, 1, diag };
	bool is_inline = inl_is_inline(dir->inode);
	int err;

	dir->size = dir->at = 0;
	dir->base = dir->lblk << dir->inode->vol->block_bits;
	if (is_inline ? !dir->inline_data : dir->lblk >= n_blocks(dir->inode))
		return 0;
	err = inl_op_look(dir->inode->vol, load_block, &load);
	dir->inline_data = false;
	if (!is_inline)
		dir->lblk += load.skip;
	dir->from = dir->resume;
	dir->resume = 0;
	if (err) {
		dir->size = 0;
		return err;
	}
	if (is_inline) {
		dir->size = INL_MIN(dir->size, dir->inode->size);
		dir->at = 4;
	}
	return 1;
}

/* Was it handed out before the order had to be given up? */
static bool is_done(const struct inl_dir *dir, const struct inl_raw_dirent *raw)
{
	uint64_t pos;

	if (!dir->place.pos || pos_of(dir, raw, &pos))
		return false;
	return !is_behind(&dir->place, pos, raw->name, raw->len);
}

/* What begins before the place that was sought was there before: records change their lengths, but do not move. */
static int next_in_blocks(struct inl_dir *dir, struct inl_raw_dirent *raw, uint64_t *pos, struct inl_diag *diag)
{
	for (;;) {
		size_t at, next;

		while (dir->at >= dir->size) {
			int err = load_next(dir, diag);

			if (err <= 0)
				return err;
		}
		at = dir->at;
		if (inl_dirent_parse(&dir->format, dir->bytes, dir->size, at, raw, &next)) {
			dir->at = dir->size;
			return inl_diag_set(diag, -EUCLEAN, "directory %u is damaged: a bad entry before block %llu",
					    dir->inode->ino, (unsigned long long)dir->lblk);
		}
		dir->at = next;
		*pos = dir->base + at;
		if (at >= dir->from && raw->ino && !inl_is_dots(raw->name, raw->len) && !is_done(dir, raw))
			return 1;
	}
}

static uint64_t tell_block(const struct inl_dir *dir)
{
	uint64_t next = dir->lblk << dir->inode->vol->block_bits;

	if (inl_is_inline(dir->inode))
		return dir->inline_data ? dir->resume : dir->at;
	return dir->at < dir->size ? dir->base + dir->at : next + dir->resume;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

uint64_t inl_dir_tell(const struct inl_dir *dir)
{
	if (dir->order == ORDER_OPEN)
		return dir->sought;
	if (dir->order == ORDER_BLOCKS)
		return tell_block(dir);
	if (!dir->loaded)
		return dir->place.pos;
	if (dir->at < dir->n_slots)
		return dir->slots[dir->at].pos;
	if (!dir->whole)
		return dir->last.pos;
	if (dir->trouble.err) /* still to be told */
		return dir->n_slots ? dir->slots[dir->n_slots - 1].pos + 1 : dir->place.pos;
	return dir->to;
}

void inl_dir_seek(struct inl_dir *dir, uint64_t pos)
{
	dir->order = ORDER_OPEN;
	dir->sought = pos < POS_FIRST ? 0 : INL_MIN(pos, POS_END);
	dir->loaded = false;
	dir->told = LEAF_NONE;
	dir->n_loads = 0;
	place_at(&dir->place, 0);
}

static int next_raw(struct inl_dir *dir, struct inl_raw_dirent *raw, uint64_t *pos, struct inl_diag *diag)
{
	while (dir->order != ORDER_BLOCKS) {
		int err = 0;

		if (dir->loaded && dir->at < dir->n_slots)
			return take_slot(dir, raw, pos);
		if (dir->loaded)
			err = end_batch(dir, diag);
		else if (inl_dir_tell(dir) >= POS_END)
			return 0;
		else
			err = load_hashed(dir, diag);
		if (err)
			return err;
	}
	return next_in_blocks(dir, raw, pos, diag);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool possible_name(const char *name, size_t len)
{
	return len && len <= INL_NAME_MAX && !memchr(name, '/', len) && !memchr(name, 0, len) &&
	       !inl_is_dots(name, len);
}

static int nokey_name(struct inl_dir *dir, const struct inl_raw_dirent *raw, struct inl_dirent *entry, size_t *len)
{
	uint32_t hash = raw->hash, minor = raw->minor;

	if (dir->hash_source == HASH_NAME &&
	    inl_dir_hash(dir->inode, dir->hash_version, raw->name, raw->len, &hash, &minor))
		hash = minor = 0;
	entry->nokey = true;
	return inl_nokey_encode(hash, minor, raw->name, raw->len, entry->name, len);
}

/* Make the name that is shown. What cannot be one is marked as damaged, with a name that is safe to print. */
static int show_name(struct inl_dir *dir, const struct inl_raw_dirent *raw, struct inl_dirent *entry,
		     struct inl_diag *diag)
{
	struct inl_crypt_info *crypt = dir->inode->crypt;
	size_t len = raw->len;
	int err = 0;

	entry->nokey = false;
	if (!crypt) {
		memcpy(entry->name, raw->name, len);
	} else {
		err = inl_crypt_info_unlock(crypt, diag);
		if (!err)
			err = inl_fname_decrypt(crypt, raw->name, raw->len, entry->name, &len);
		if (err == -ENOKEY || err == -ENOPKG || err == -EINVAL)
			err = nokey_name(dir, raw, entry, &len);
		if (err && err != -EUCLEAN)
			return err;
	}
	entry->status = err || !possible_name(entry->name, len) || raw->ino > dir->inode->vol->fs->super->s_inodes_count ?
				-EUCLEAN :
				0;
	if (entry->status)
		len = (size_t)snprintf(entry->name, sizeof(entry->name), "(damaged entry of inode %u)", raw->ino);
	entry->len = (uint16_t)len;
	entry->name[len] = 0;
	return 0;
}

int inl_dir_next(struct inl_dir *dir, struct inl_dirent *entry, struct inl_diag *diag)
{
	struct inl_raw_dirent raw;
	uint64_t pos = 0;
	int err = next_raw(dir, &raw, &pos, diag);

	if (err <= 0)
		return err;
	entry->pos = pos;
	entry->ino = raw.ino;
	entry->type = raw.type;
	err = show_name(dir, &raw, entry, NULL);
	return err ? inl_diag_set(diag, err, "directory %u: a name cannot be decrypted", dir->inode->ino) : 1;
}
