/*
 * ext4/extent.c: changing the map of an inode; extent trees.
 * Not here: looking things up (map.c); indirect blocks (indirect.c); which blocks to use (alloc.c).
 * Read more: Linux Documentation/filesystems/ext4/ifork.rst; ext4/change.h.
 *
 * Everything is one step repeated: find the leaf, and replace a few neighbouring entries of it by a few others. A leaf
 * that is too full for that is split, from the leaf upwards, and a tree that is full to the root grows by a level below
 * the root; one that becomes empty goes, from the leaf upwards. An entry of an index begins where the node below does,
 * always.
 */
#include "ext4/map.h"
#include "base/crc.h"
#include <errno.h>
#include <string.h>

#define ROOT_SIZE    60u
#define ROOT_ENTRIES 4u
#define LIST_MAX     8u /* left neighbour, three parts of which one may be too long for its kind, right neighbour: 6 */

struct extent {
	uint64_t lblk, len, pblk;
	bool unwritten;
};

/* What takes the place of entries of a leaf. */
struct list {
	struct extent e[LIST_MAX];
	unsigned n;
};

/* One node on the way from the root to a leaf. */
struct step {
	uint64_t pblk; /* 0: the root */
	const uint8_t *node;
	int at; /* the entry taken: the last one at or before the block sought; in a leaf -1: none */
};

struct path {
	struct inl_handle *op;
	struct inl_inode *inode;
	unsigned depth;
	uint64_t hi;                           /* where the next leaf begins */
	struct step steps[EXT4_MAX_DEPTH + 1]; /* by height: [0] is the leaf, [depth] the root */
};

/* ---- nodes: bytes ----------------------------------------------------------------------------------------------- */

static uint8_t *root_of(struct inl_inode *inode)
{
	return (uint8_t *)inode->raw.i_block;
}

static void node_init(uint8_t *node, unsigned max, unsigned depth)
{
	inl_store_le16(node, EXTENT_MAGIC);
	inl_store_le16(node + 2, 0);
	inl_store_le16(node + 4, (uint16_t)max);
	inl_store_le16(node + 6, (uint16_t)depth);
	inl_store_le32(node + 8, 0); /* generation */
}

static uint8_t *entry_at(uint8_t *node, unsigned i)
{
	return node + NODE_HEADER + NODE_ENTRY * (size_t)i;
}

static uint64_t first_lblk(const uint8_t *node)
{
	return entry_lblk(node_entry(node, 0));
}

/* Make room for m entries in the place of k; there is enough. */
static void node_shift(uint8_t *node, unsigned pos, unsigned k, unsigned m)
{
	unsigned n = node_entries(node);

	memmove(entry_at(node, pos + m), entry_at(node, pos + k), NODE_ENTRY * (size_t)(n - pos - k));
	if (m < k)
		memset(entry_at(node, n - k + m), 0, NODE_ENTRY * (size_t)(k - m));
	inl_store_le16(node + 2, (uint16_t)(n - k + m));
}

static struct extent extent_load(const uint8_t *entry)
{
	return (struct extent){ entry_lblk(entry), extent_len(entry), extent_pblk(entry), extent_unwritten(entry) };
}

static void extent_store(uint8_t *entry, const struct extent *e)
{
	inl_store_le32(entry, (uint32_t)e->lblk);
	inl_store_le16(entry + 4, (uint16_t)(e->len + (e->unwritten ? EXTENT_LEN_MAX : 0)));
	inl_store_le16(entry + 6, (uint16_t)(e->pblk >> 32));
	inl_store_le32(entry + 8, (uint32_t)e->pblk);
}

static void index_store(uint8_t *entry, uint64_t lblk, uint64_t child)
{
	inl_store_le32(entry, (uint32_t)lblk);
	inl_store_le32(entry + 4, (uint32_t)child);
	inl_store_le16(entry + 8, (uint16_t)(child >> 32));
	inl_store_le16(entry + 10, 0);
}

/* ---- lists of extents ------------------------------------------------------------------------------------------- */

static uint64_t len_max(bool unwritten)
{
	return unwritten ? EXTENT_UNWRITTEN_MAX : EXTENT_LEN_MAX;
}

static bool touch(const struct extent *a, const struct extent *b)
{
	return a->unwritten == b->unwritten && a->lblk + a->len == b->lblk && a->pblk + a->len == b->pblk;
}

/* Add behind the last one: to it, as far as it may grow, where it goes on. */
static void list_push(struct list *list, struct extent e)
{
	uint64_t max = len_max(e.unwritten), len;

	while (e.len) {
		struct extent *last = list->n ? &list->e[list->n - 1] : NULL;

		if (last && touch(last, &e) && last->len < max) {
			len = INL_MIN(max - last->len, e.len);
			last->len += len;
		} else {
			len = INL_MIN(max, e.len);
			list->e[list->n] = e;
			list->e[list->n++].len = len;
		}
		e.lblk += len;
		e.pblk += len;
		e.len -= len;
	}
}

/* The part of e that is in [lo, hi), if any. */
static void list_push_part(struct list *list, struct extent e, uint64_t lo, uint64_t hi)
{
	uint64_t end = INL_MIN(e.lblk + e.len, hi);

	if (lo < e.lblk)
		lo = e.lblk;
	if (lo >= end)
		return;
	e.pblk += lo - e.lblk;
	e.lblk = lo;
	e.len = end - lo;
	list_push(list, e);
}

/* ---- paths ------------------------------------------------------------------------------------------------------ */

/* Down from step h to the node of its entry. */
static int path_down(struct path *path, unsigned h)
{
	struct step *step = &path->steps[h], *below = &path->steps[h - 1];
	const uint8_t *entry;
	int err;

	if (step->at < 0)
		step->at = 0;
	entry = node_entry(step->node, (unsigned)step->at);
	if ((unsigned)step->at + 1 < node_entries(step->node))
		path->hi = INL_MIN(path->hi, entry_lblk(entry + NODE_ENTRY));
	below->pblk = index_child(entry);
	if (!inl_block_in_range(path->inode->vol, below->pblk, 1))
		return -EUCLEAN;
	err = inl_block_look_verified(path->op, path->inode, below->pblk, inl_extent_node_verify, h - 1, &below->node);
	if (err)
		return err;
	if (!node_entries(below->node) || first_lblk(below->node) != entry_lblk(entry))
		return -EUCLEAN;
	return 0;
}

/* Find the leaf where lblk is, or would be. */
static int path_find(struct path *path, uint64_t lblk)
{
	const uint8_t *root = root_of(path->inode), *leaf;
	int err = inl_extent_node_check(root, ROOT_SIZE, -1);
	unsigned h, n;

	if (err)
		return err;
	h = path->depth = node_depth(root);
	path->hi = EXT4_LBLK_NONE;
	path->steps[h] = (struct step){ .node = root };
	for (;; h--) {
		path->steps[h].at = inl_extent_node_search(path->steps[h].node, lblk);
		if (!h)
			break;
		err = path_down(path, h);
		if (err)
			return err;
	}
	leaf = path->steps[0].node;
	n = node_entries(leaf);
	if (n && entry_lblk(node_entry(leaf, n - 1)) + (uint64_t)extent_len(node_entry(leaf, n - 1)) > path->hi)
		return -EUCLEAN;
	return 0;
}

static int step_change(struct path *path, unsigned h, uint8_t **node)
{
	struct step *step = &path->steps[h];
	int err;

	if (!step->pblk) {
		*node = root_of(path->inode);
		return 0;
	}
	err = inl_block_change(path->op, step->pblk, node);
	if (!err)
		step->node = *node;
	return err;
}

static void step_seal(const struct path *path, uint64_t pblk, uint8_t *node)
{
	size_t tail = NODE_HEADER + NODE_ENTRY * (size_t)node_max(node);

	if (pblk && path->inode->vol->metadata_csum)
		inl_store_le32(node + tail, inl_crc32c(path->inode->csum_seed, node, tail));
}

/* The first block of the node at height h has changed: so do the entries that lead to it. */
static int path_fix(struct path *path, unsigned h)
{
	uint64_t lblk = first_lblk(path->steps[h].node);

	while (h++ < path->depth) {
		struct step *step = &path->steps[h];
		uint8_t *node;
		int err = step_change(path, h, &node);

		if (err)
			return err;
		inl_store_le32(entry_at(node, (unsigned)step->at), (uint32_t)lblk);
		step_seal(path, step->pblk, node);
		if (step->at)
			break;
	}
	return 0;
}

/* ---- growing ---------------------------------------------------------------------------------------------------- */

static int node_new(struct path *path, uint64_t goal, unsigned depth, uint64_t *pblk, uint8_t **node)
{
	int err = inl_block_alloc(path->op, goal, pblk);

	if (!err)
		err = inl_inode_add_blocks(path->inode, 1);
	if (!err)
		err = inl_block_new(path->op, *pblk, node);
	if (!err)
		node_init(*node, (path->inode->vol->block_size - NODE_HEADER) / NODE_ENTRY, depth);
	return err;
}

/* What the root holds moves to a node of its own, below it. The path stays good. */
static int path_grow(struct path *path, uint64_t goal)
{
	uint8_t *root = root_of(path->inode), *node;
	struct step *top = &path->steps[path->depth];
	unsigned n = node_entries(root);
	uint64_t pblk;
	int err;

	if (path->depth == EXT4_MAX_DEPTH)
		return -EFBIG;
	err = node_new(path, goal, path->depth, &pblk, &node);
	if (err)
		return err;
	memcpy(entry_at(node, 0), entry_at(root, 0), NODE_ENTRY * (size_t)n);
	inl_store_le16(node + 2, (uint16_t)n);
	step_seal(path, pblk, node);
	memset(entry_at(root, 1), 0, ROOT_SIZE - NODE_HEADER - NODE_ENTRY);
	node_init(root, ROOT_ENTRIES, path->depth + 1);
	inl_store_le16(root + 2, 1);
	index_store(entry_at(root, 0), first_lblk(node), pblk);
	*top = (struct step){ pblk, node, top->at };
	path->steps[++path->depth] = (struct step){ .node = root };
	return 0;
}

/* Put an entry into a node with room. */
static int step_put(struct path *path, unsigned h, unsigned pos, const uint8_t *entry)
{
	uint8_t *node;
	int err = step_change(path, h, &node);

	if (err)
		return err;
	node_shift(node, pos, 0, 1);
	memcpy(entry_at(node, pos), entry, NODE_ENTRY);
	step_seal(path, path->steps[h].pblk, node);
	return pos ? 0 : path_fix(path, h);
}

/*
 * Split a full node and put an entry at pos. Behind its end: it stays full, and the entry is the first one of a new
 * node, so that what is written from front to back has full nodes. Else half of it moves. entry becomes the one that
 * leads to the new node.
 */
static int step_split(struct path *path, unsigned h, unsigned pos, uint8_t *entry)
{
	struct step *step = &path->steps[h];
	unsigned n = node_entries(step->node), cut = pos == n ? n : n / 2;
	uint8_t *node, *new_node;
	uint64_t pblk;
	int err = node_new(path, step->pblk, h, &pblk, &new_node);

	if (!err && cut < n)
		err = step_change(path, h, &node);
	if (err)
		return err;
	if (cut < n) {
		memcpy(entry_at(new_node, 0), entry_at(node, cut), NODE_ENTRY * (size_t)(n - cut));
		inl_store_le16(new_node + 2, (uint16_t)(n - cut));
		node_shift(node, cut, n - cut, 0);
		step_seal(path, step->pblk, node);
	}
	if (pos > cut || cut == n) {
		node_shift(new_node, pos - cut, 0, 1);
		memcpy(entry_at(new_node, pos - cut), entry, NODE_ENTRY);
	} else {
		err = step_put(path, h, pos, entry);
	}
	step_seal(path, pblk, new_node);
	index_store(entry, first_lblk(new_node), pblk);
	return err;
}

/* Put an extent behind the path's entry of the leaf. The path is not good afterwards. */
static int path_put(struct path *path, const struct extent *e)
{
	uint8_t entry[NODE_ENTRY];
	int err;

	extent_store(entry, e);
	for (unsigned h = 0;; h++) {
		const struct step *step = &path->steps[h];
		unsigned pos = (unsigned)(step->at + 1);

		if (node_entries(step->node) >= node_max(step->node) && h == path->depth) {
			err = path_grow(path, e->pblk);
			if (err)
				return err;
		}
		if (node_entries(step->node) < node_max(step->node))
			return step_put(path, h, pos, entry);
		err = step_split(path, h, pos, entry);
		if (err)
			return err;
	}
}

/* ---- shrinking -------------------------------------------------------------------------------------------------- */

static int node_free(struct path *path, uint64_t pblk)
{
	int err = inl_blocks_free(path->op, pblk, 1, true);

	return err ? err : inl_inode_add_blocks(path->inode, -1);
}

static void root_clear(struct inl_inode *inode)
{
	uint8_t *root = root_of(inode);

	memset(root, 0, ROOT_SIZE);
	node_init(root, ROOT_ENTRIES, 0);
}

/* Take k entries out of the leaf, and nodes that are empty then out of the tree. */
static int path_take(struct path *path, unsigned pos, unsigned k)
{
	for (unsigned h = 0;; h++) {
		const struct step *step = &path->steps[h];
		uint8_t *node;
		int err;

		if (node_entries(step->node) > k) {
			err = step_change(path, h, &node);
			if (err)
				return err;
			node_shift(node, pos, k, 0);
			step_seal(path, step->pblk, node);
			return pos ? 0 : path_fix(path, h);
		}
		if (h == path->depth) {
			root_clear(path->inode);
			return 0;
		}
		err = node_free(path, step->pblk);
		if (err)
			return err;
		pos = (unsigned)path->steps[h + 1].at;
		k = 1;
	}
}

/* A root with one entry, and what that leads to fits in the root: one level less. *done: nothing to do. */
static int collapse_once(struct path *path, bool *done)
{
	uint8_t *root = root_of(path->inode);
	const struct step *below;
	unsigned n;
	int err;

	*done = true;
	if (!node_depth(root) || node_entries(root) != 1 || inl_op_credits_left(path->op) < 4)
		return 0;
	path->depth = node_depth(root);
	path->steps[path->depth] = (struct step){ .node = root };
	err = path_down(path, path->depth);
	below = &path->steps[path->depth - 1];
	if (err || node_entries(below->node) > ROOT_ENTRIES)
		return err;
	n = node_entries(below->node);
	root_clear(path->inode);
	inl_store_le16(root + 2, (uint16_t)n);
	inl_store_le16(root + 6, (uint16_t)(path->depth - 1));
	memcpy(entry_at(root, 0), node_entry(below->node, 0), NODE_ENTRY * (size_t)n);
	*done = false;
	return node_free(path, below->pblk);
}

static int collapse(struct path *path)
{
	bool done = false;
	int err = 0;

	while (!err && !done)
		err = collapse_once(path, &done);
	return err;
}

/* ---- replacing -------------------------------------------------------------------------------------------------- */

/*
 * Replace k entries of the leaf, from pos on, by those of the list. The path is not good afterwards. What happens,
 * happens in such an order that the tree is a good one whenever a path is sought.
 */
static int path_replace(struct path *path, unsigned pos, unsigned k, const struct list *list)
{
	struct step *leaf = &path->steps[0];
	unsigned n = node_entries(leaf->node), m = list->n, put;
	uint8_t *node;
	int err;

	if (!m)
		return path_take(path, pos, k);
	put = n - k + m <= node_max(leaf->node) ? m : k;
	if (put) {
		err = step_change(path, 0, &node);
		if (err)
			return err;
		node_shift(node, pos, k, put);
		for (unsigned i = 0; i < put; i++)
			extent_store(entry_at(node, pos + i), &list->e[i]);
		step_seal(path, leaf->pblk, node);
		err = pos ? 0 : path_fix(path, 0);
		if (err)
			return err;
	}
	leaf->at = (int)(pos + put) - 1;
	for (unsigned i = put; i < m; i++) {
		err = i == put ? 0 : path_find(path, list->e[i].lblk);
		if (!err)
			err = path_put(path, &list->e[i]);
		if (err)
			return err;
	}
	return 0;
}

/* ---- the three changes ------------------------------------------------------------------------------------------ */

/* The neighbours that e goes on from, or into, are part of what is replaced. */
static int insert_at(struct path *path, struct extent e)
{
	const uint8_t *leaf = path->steps[0].node;
	unsigned pos = (unsigned)(path->steps[0].at + 1), n = node_entries(leaf), k = 0;
	struct list list = { .n = 0 };
	struct extent left, right;

	if (pos) {
		left = extent_load(node_entry(leaf, pos - 1));
		if (touch(&left, &e) && left.len < len_max(e.unwritten)) {
			list_push(&list, left);
			k++;
		}
	}
	list_push(&list, e);
	if (pos < n) {
		right = extent_load(node_entry(leaf, pos));
		if (touch(&e, &right) && list.e[list.n - 1].len < len_max(e.unwritten)) {
			list_push(&list, right);
			return path_replace(path, pos - k, k + 1, &list);
		}
	}
	return path_replace(path, pos - k, k, &list);
}

/* Is [lblk, lblk + n) a hole, as far as this leaf and where the next begins can tell? They can. */
static bool is_hole(const struct path *path, uint64_t lblk, uint64_t n)
{
	const struct step *leaf = &path->steps[0];
	uint64_t next = path->hi;

	if (leaf->at >= 0) {
		struct extent left = extent_load(node_entry(leaf->node, (unsigned)leaf->at));

		if (left.lblk + left.len > lblk)
			return false;
	}
	if ((unsigned)(leaf->at + 1) < node_entries(leaf->node))
		next = entry_lblk(node_entry(leaf->node, (unsigned)(leaf->at + 1)));
	return lblk + n <= next;
}

static int extents_insert(struct path *path, struct extent e)
{
	struct extent part = e;

	while (e.len) {
		int err = path_find(path, e.lblk);

		if (err)
			return err;
		if (!is_hole(path, e.lblk, e.len))
			return -EEXIST;
		part = e;
		part.len = INL_MIN(e.len, len_max(e.unwritten));
		err = insert_at(path, part);
		if (err)
			return err;
		e.lblk += part.len;
		e.pblk += part.len;
		e.len -= part.len;
	}
	return 0;
}

/* [lo, hi) of the path's extent. */
static int convert_at(struct path *path, uint64_t lo, uint64_t hi, bool unwritten)
{
	const uint8_t *leaf = path->steps[0].node;
	unsigned at = (unsigned)path->steps[0].at, pos = at, k = 1;
	struct extent e = extent_load(node_entry(leaf, at)), changed = e;
	struct list list = { .n = 0 };

	changed.unwritten = unwritten;
	if (lo == e.lblk && at) {
		list_push(&list, extent_load(node_entry(leaf, at - 1)));
		pos--;
		k++;
	}
	list_push_part(&list, e, e.lblk, lo);
	list_push_part(&list, changed, lo, hi);
	list_push_part(&list, e, hi, e.lblk + e.len);
	if (hi == e.lblk + e.len && at + 1 < node_entries(leaf)) {
		list_push(&list, extent_load(node_entry(leaf, at + 1)));
		k++;
	}
	return path_replace(path, pos, k, &list);
}

static int extents_convert(struct path *path, uint64_t lblk, uint64_t end, bool unwritten)
{
	while (lblk < end) {
		const struct step *leaf = &path->steps[0];
		int err = path_find(path, lblk);
		struct extent e;
		uint64_t hi;

		if (err)
			return err;
		if (leaf->at < 0)
			return -EINVAL;
		e = extent_load(node_entry(leaf->node, (unsigned)leaf->at));
		if (lblk >= e.lblk + e.len)
			return -EINVAL;
		hi = INL_MIN(end, e.lblk + e.len);
		if (e.unwritten != unwritten)
			err = convert_at(path, lblk, hi, unwritten);
		if (err)
			return err;
		lblk = hi;
	}
	return 0;
}

static unsigned put_credits(unsigned depth)
{
	/* Each level is split (itself, a new node and what its allocation changes), and the root grows; the inode. */
	return 4 * depth + 4;
}

uint64_t inl_map_can_free(const struct inl_handle *op, unsigned keep, uint64_t pblk, uint64_t n)
{
	const struct inl_volume *vol = inl_op_vol(op);
	unsigned left = inl_op_credits_left(op);
	uint64_t per_group = vol->fs->super->s_blocks_per_group, groups, last, first;

	if (left < keep + 2 || !n)
		return 0;
	groups = (left - keep) / 2;
	last = (pblk + n - 1 - vol->first_block) / per_group;
	if (last + 1 <= groups)
		return n;
	first = vol->first_block + (last + 1 - groups) * per_group;
	return first <= pblk ? n : pblk + n - first;
}

/*
 * Free what the path's extent has in [lblk, *end), from its end, as far as the credits go; *end becomes where that
 * begins. The entry's parts on both sides stay.
 */
static int remove_at(struct path *path, uint64_t lblk, uint64_t *end, bool metadata, bool *enough)
{
	const struct step *leaf = &path->steps[0];
	struct extent e = extent_load(node_entry(leaf->node, (unsigned)leaf->at));
	uint64_t lo = lblk > e.lblk ? lblk : e.lblk, hi = INL_MIN(*end, e.lblk + e.len), n;
	unsigned keep = 3 * path->depth + 4; /* nodes changed, nodes freed; the inode */
	struct list list = { .n = 0 };
	int err;

	if (hi < e.lblk + e.len)
		keep += put_credits(path->depth + 1);
	if (!inl_block_in_range(path->inode->vol, e.pblk, e.len))
		return -EUCLEAN;
	n = inl_map_can_free(path->op, keep, e.pblk + (lo - e.lblk), hi - lo);
	*enough = n != 0;
	if (!n)
		return 0;
	lo = hi - n;
	err = inl_blocks_free(path->op, e.pblk + (lo - e.lblk), n, metadata);
	if (!err)
		err = inl_inode_add_blocks(path->inode, -(int64_t)n);
	if (err)
		return err;
	list_push_part(&list, e, e.lblk, lo);
	if (hi < e.lblk + e.len)
		list.e[list.n++] = (struct extent){ hi, e.lblk + e.len - hi, e.pblk + (hi - e.lblk), e.unwritten };
	*end = lo;
	return path_replace(path, (unsigned)leaf->at, 1, &list);
}

/* Does the path's extent end at or before lblk? */
static bool nothing_above(const struct step *leaf, uint64_t lblk)
{
	struct extent e;

	if (leaf->at < 0)
		return true;
	e = extent_load(node_entry(leaf->node, (unsigned)leaf->at));
	return e.lblk + e.len <= lblk;
}

static int extents_remove(struct path *path, uint64_t lblk, uint64_t end, bool metadata, uint64_t *left)
{
	bool enough = true;

	for (unsigned i = 0; end > lblk && i < REMOVE_MAX; i++) {
		const struct step *leaf = &path->steps[0];
		int err = path_find(path, end - 1);

		if (err)
			return err;
		if (nothing_above(leaf, lblk)) {
			end = lblk;
			break;
		}
		err = remove_at(path, lblk, &end, metadata, &enough);
		if (err)
			return err;
		if (!enough)
			break;
	}
	*left = end;
	return end == lblk ? collapse(path) : 0;
}

/* ---- of any map ------------------------------------------------------------------------------------------------- */

static bool has_extents(const struct inl_inode *inode)
{
	return inode->lasting & EXT4_FL_EXTENTS;
}

void inl_map_init(struct inl_inode *inode)
{
	memset(inode->raw.i_block, 0, sizeof(inode->raw.i_block));
	if (ext2fs_has_feature_extents(inode->vol->fs->super)) {
		inode->raw.i_flags |= EXT4_FL_EXTENTS;
		inode->lasting |= EXT4_FL_EXTENTS;
		root_clear(inode);
	} else {
		inode->raw.i_flags &= ~(uint32_t)EXT4_FL_EXTENTS;
		inode->lasting &= ~(uint32_t)EXT4_FL_EXTENTS;
	}
	inl_inode_forget_run(inode);
}

uint64_t inl_map_max(const struct inl_inode *inode)
{
	return has_extents(inode) ? EXT4_LBLK_NONE : inl_indirect_max(inode);
}

uint64_t inl_map_insert_max(const struct inl_inode *inode)
{
	return has_extents(inode) ? EXTENT_UNWRITTEN_MAX : inl_indirect_insert_max(inode);
}

unsigned inl_map_credits(const struct inl_inode *inode)
{
	/* However deep it is: whoever asks may not look at the root, which others may be changing. */
	return has_extents(inode) ? put_credits(EXT4_MAX_DEPTH) : inl_indirect_credits();
}

static int begin(struct inl_handle *op, struct inl_inode *inode)
{
	int err = inl_is_inline(inode) ? -EOPNOTSUPP : inl_inode_modify(op, inode);

	if (!err)
		inl_inode_forget_run(inode);
	return err;
}

int inl_map_insert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, uint64_t pblk,
		   bool unwritten)
{
	struct path path = { .op = op, .inode = inode };
	uint64_t max = inl_map_max(inode);
	int err;

	if (lblk > max || n > max - lblk)
		return -EFBIG;
	if (!inl_block_in_range(inode->vol, pblk, n))
		return -EINVAL;
	if (!has_extents(inode) && unwritten)
		return -EOPNOTSUPP;
	err = begin(op, inode);
	if (!err)
		err = inl_inode_add_blocks(inode, (int64_t)n);
	if (err)
		return err;
	return has_extents(inode) ? extents_insert(&path, (struct extent){ lblk, n, pblk, unwritten })
				  : inl_indirect_insert(op, inode, lblk, n, pblk);
}

int inl_map_convert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, bool unwritten)
{
	struct path path = { .op = op, .inode = inode };
	int err;

	if (!has_extents(inode))
		return -EOPNOTSUPP;
	if (lblk > EXT4_LBLK_NONE || n > EXT4_LBLK_NONE - lblk)
		return -EFBIG;
	err = begin(op, inode);
	return err ? err : extents_convert(&path, lblk, lblk + n, unwritten);
}

int inl_map_remove(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t end, bool metadata,
		   uint64_t *left)
{
	struct path path = { .op = op, .inode = inode };
	uint64_t max = inl_map_max(inode);
	int err;

	end = INL_MIN(end, max);
	if (lblk >= end) {
		*left = lblk;
		return 0;
	}
	err = begin(op, inode);
	if (err)
		return err;
	return has_extents(inode) ? extents_remove(&path, lblk, end, metadata, left)
				  : inl_indirect_remove(op, inode, lblk, end, metadata, left);
}
