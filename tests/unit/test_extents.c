/*
 * tests/unit/test_extents.c: changing block maps: extent trees and indirect blocks.
 * Not here: nodes as bytes (test_ext4.c); data, files, crashes.
 * Read more: ext4/change.h, "changing the map of an inode".
 *
 * One file of a volume made by mke2fs is changed at random; a slow model has one cell for each of its blocks. What they
 * say of each block is compared, the file's count of blocks with the nodes that are there, and e2fsck is the judge of
 * what lies on the medium.
 */
#include "ext4/change.h"
#include "work_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CELLS 65536u

static uint32_t rng_state = 20261128;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(rng_state >> 4) * below >> 28);
}

/* ---- volumes ---------------------------------------------------------------------------------------------------- */

static struct inl_dev *dev;
static struct inl_volume *vol;
static struct inl_inode *file;

static int setup(void **state)
{
	return work_dir_make("extents");
}

static int teardown(void **state)
{
	return work_dir_remove();
}

static int try_open(void)
{
	struct inl_diag diag = { 0 };
	char path[100];
	int err;

	snprintf(path, sizeof(path), "%s/i.img", work_dir);
	assert_int_equal(inl_dev_open(path, INL_OPEN_WRITE, &diag, &dev), 0);
	err = inl_volume_open(dev, NULL, INL_VOLUME_WRITE, &diag, &vol);
	if (!err)
		err = inl_path(vol, "/f", false, &diag, &file);
	if (err)
		print_error("%s\n", diag.text);
	return err;
}

static void shut(void)
{
	inl_inode_put(file);
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
}

/* A volume with one file, which is one hole. */
static void make(const char *options, const char *size)
{
	if (!work_dir[0]) {
		print_message("skipped: mke2fs, e2fsck or debugfs is missing\n");
		skip();
	}
	run("rm -rf i.img d && mkdir d && truncate -s 64M d/f && mke2fs -F -q -t ext4 %s -d d i.img %s", options, size);
	assert_int_equal(try_open(), 0);
}

static void fsck(void)
{
	shut();
	run("e2fsck -fn i.img");
	assert_int_equal(try_open(), 0);
}

/* ---- one change ------------------------------------------------------------------------------------------------- */

struct change {
	enum { INSERT, CONVERT, REMOVE } what;
	uint64_t lblk, n, goal, pblk, got, left;
	bool unwritten, cancel;
	unsigned calls;
};

static int change_fn(struct inl_handle *op, void *arg)
{
	struct change *change = arg;
	int err = 0;

	change->calls++;
	switch (change->what) {
	case INSERT:
		err = inl_blocks_reserve(op, change->goal, change->n, &change->pblk, &change->got);
		if (!err)
			err = inl_blocks_take(op, change->pblk, change->got);
		if (!err)
			err = inl_map_insert(op, file, change->lblk, change->got, change->pblk, change->unwritten);
		break;
	case CONVERT:
		err = inl_map_convert(op, file, change->lblk, change->n, change->unwritten);
		break;
	case REMOVE:
		err = inl_map_remove(op, file, change->lblk, change->lblk + change->n, false, &change->left);
		break;
	}
	return !err && change->cancel ? -ECANCELED : err;
}

static int apply(struct change *change, unsigned credits)
{
	change->calls = 0;
	return inl_op_run(vol, credits, change_fn, change, NULL);
}

static unsigned insert_credits(void)
{
	return 1 + inl_map_credits(file) + 4;
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

static struct cell {
	uint32_t pblk;
	enum inl_extent_kind kind;
} cells[CELLS];
static unsigned n_cells, n_mapped;

static void model_init(unsigned n)
{
	n_cells = n;
	n_mapped = 0;
	for (unsigned i = 0; i < n; i++)
		cells[i] = (struct cell){ 0, INL_EXTENT_HOLE };
}

static unsigned same_kind(unsigned from, unsigned max)
{
	unsigned n = 1;

	while (n < max && from + n < n_cells && cells[from + n].kind == cells[from].kind)
		n++;
	return n;
}

static unsigned mapped(unsigned from, unsigned max)
{
	unsigned n = 0;

	while (n < max && from + n < n_cells && cells[from + n].kind != INL_EXTENT_HOLE)
		n++;
	return n;
}

static void model_insert(const struct change *change)
{
	for (uint64_t i = 0; i < change->got; i++)
		cells[change->lblk + i] = (struct cell){ (uint32_t)(change->pblk + i),
							 change->unwritten ? INL_EXTENT_UNWRITTEN : INL_EXTENT_DATA };
	n_mapped += (unsigned)change->got;
}

static void model_convert(const struct change *change)
{
	for (uint64_t i = 0; i < change->n; i++)
		cells[change->lblk + i].kind = change->unwritten ? INL_EXTENT_UNWRITTEN : INL_EXTENT_DATA;
}

static void model_remove(uint64_t from, uint64_t to)
{
	for (; from < to && from < n_cells; from++) {
		n_mapped -= cells[from].kind != INL_EXTENT_HOLE;
		cells[from] = (struct cell){ 0, INL_EXTENT_HOLE };
	}
}

/* ---- checks ----------------------------------------------------------------------------------------------------- */

static void check_cell(uint64_t at, const struct inl_run *run)
{
	uint64_t pblk = run->pblk + (at - run->lblk);

	if (cells[at].kind != run->kind || (run->kind != INL_EXTENT_HOLE && cells[at].pblk != pblk)) {
		print_error("block %u: want kind %d at %u, got %d at %u\n", (unsigned)at, cells[at].kind,
			    cells[at].pblk, run->kind, (unsigned)pblk);
		fail();
	}
}

/* One lookup. What it finds is remembered, and must be forgotten when it changes. */
static struct inl_run check_at(uint64_t at)
{
	struct inl_run run;

	assert_int_equal(inl_map_look(file, at, &run, NULL), 0);
	assert_in_range(at, run.lblk, run.lblk + run.len - 1);
	check_cell(at, &run);
	return run;
}

static void check_map(void)
{
	uint64_t at = 0;

	while (at < n_cells) {
		struct inl_run run = check_at(at);

		for (; at < run.lblk + run.len && at < n_cells; at++)
			check_cell(at, &run);
	}
}

struct tree {
	unsigned depth, n_nodes, n_leaves, n_entries;
};

static int count_extents(struct inl_handle *op, const uint8_t *node, struct tree *tree)
{
	unsigned n = inl_load_le16(node + 2), depth = inl_load_le16(node + 6);
	int err = 0;

	if (!depth)
		tree->n_entries += n;
	tree->n_leaves += !depth;
	for (unsigned i = 0; depth && i < n && !err; i++) {
		const uint8_t *entry = node + 12 + 12 * (size_t)i, *below;

		err = inl_block_look(op, inl_load_le32(entry + 4), &below);
		if (err)
			break;
		tree->n_nodes++;
		assert_int_equal(inl_load_le16(below), 0xf30a);
		assert_int_equal(inl_load_le16(below + 6), depth - 1);
		assert_int_equal(inl_load_le32(below + 12), inl_load_le32(entry));
		assert_int_equal(inl_load_le16(entry + 10), 0);
		err = count_extents(op, below, tree);
	}
	return err;
}

static int count_pointers(struct inl_handle *op, uint32_t pblk, unsigned levels, struct tree *tree)
{
	unsigned n = 0;
	const uint8_t *pointers;
	int err;

	if (!pblk || !levels)
		return 0;
	tree->n_nodes++;
	err = inl_block_look(op, pblk, &pointers);
	for (unsigned i = 0; !err && i < vol->block_size / 4; i++) {
		n += inl_load_le32(pointers + 4 * (size_t)i) != 0;
		err = count_pointers(op, inl_load_le32(pointers + 4 * (size_t)i), levels - 1, tree);
	}
	assert_true(err || n);
	return err;
}

static int count_fn(struct inl_handle *op, void *arg)
{
	const uint8_t *root = (const uint8_t *)file->raw.i_block;
	struct tree *tree = arg;
	int err = 0;

	memset(tree, 0, sizeof(*tree));
	if (file->raw.i_flags & EXT4_FL_EXTENTS) {
		tree->depth = inl_load_le16(root + 6);
		return count_extents(op, root, tree);
	}
	for (unsigned i = 0; i < 3 && !err; i++)
		err = count_pointers(op, file->raw.i_block[12 + i], i + 1, tree);
	return err;
}

static struct tree count(void)
{
	struct tree tree;

	assert_int_equal(inl_op_look(vol, count_fn, &tree), 0);
	return tree;
}

static void check(void)
{
	struct tree tree = count();
	struct inl_stat st;

	check_map();
	assert_int_equal(inl_inode_stat(file, &st, NULL), 0);
	assert_int_equal(st.blocks, (uint64_t)(n_mapped + tree.n_nodes) * (vol->block_size / 512));
}

/* ---- at random -------------------------------------------------------------------------------------------------- */

static uint64_t random_goal(void)
{
	return 1 + rng((uint32_t)vol->n_blocks - 1);
}

static void try_insert(unsigned at, unsigned max)
{
	struct change change = { .what = INSERT, .lblk = at, .n = same_kind(at, 1 + rng(max)), .goal = random_goal() };
	int err;

	if (cells[at].kind != INL_EXTENT_HOLE) {
		change.n = 1;
		err = apply(&change, insert_credits());
		assert_true(err == -EEXIST || err == -ENOSPC);
		return;
	}
	if (at && rng(2) && cells[at - 1].kind != INL_EXTENT_HOLE)
		change.goal = cells[at - 1].pblk + 1;
	change.unwritten = rng(2) && file->raw.i_flags & EXT4_FL_EXTENTS;
	change.cancel = rng(8) == 0;
	err = apply(&change, insert_credits());
	if (err == -ENOSPC)
		return;
	assert_int_equal(err, change.cancel ? -ECANCELED : 0);
	if (!err)
		model_insert(&change);
}

static void try_convert(unsigned at, unsigned max)
{
	struct change change = { .what = CONVERT, .lblk = at, .n = mapped(at, 1 + rng(max)), .unwritten = rng(2) };
	int err;

	change.cancel = rng(8) == 0;
	if (!(file->raw.i_flags & EXT4_FL_EXTENTS)) {
		change.n = 1;
		assert_int_equal(apply(&change, 64), -EOPNOTSUPP);
	} else if (!change.n) {
		change.n = 1;
		assert_int_equal(apply(&change, 64), -EINVAL);
	} else {
		unsigned credits = INL_MIN(1 + (unsigned)change.n * inl_map_credits(file), inl_op_credits_max(vol));

		err = apply(&change, credits);
		if (err == -ENOSPC)
			return;
		assert_int_equal(err, change.cancel ? -ECANCELED : 0);
		if (!err)
			model_convert(&change);
	}
}

static void try_remove(unsigned at, unsigned max)
{
	struct change change = { .what = REMOVE, .lblk = at, .n = 1 + rng(max), .cancel = rng(8) == 0 };
	unsigned credits = rng(2) ? 64 : INL_MIN(200, inl_op_credits_max(vol));

	do {
		int err = apply(&change, credits);

		if (err == -ENOSPC)
			return;
		assert_int_equal(err, change.cancel ? -ECANCELED : 0);
		if (!err) {
			assert_in_range(change.left, at, at + change.n - 1);
			model_remove(change.left, at + change.n);
			change.n = change.left - at;
		}
		change.cancel = false;
	} while (change.n);
}

static void change_at_random(unsigned n, unsigned max)
{
	while (n--) {
		unsigned at = rng(n_cells), what = rng(16);

		check_at(at);
		if (what < 8)
			try_insert(at, max);
		else if (what < 13)
			try_convert(at, max);
		else
			try_remove(at, rng(8) ? max : 8 * max);
		check_at(at);
		if (rng(256) == 0)
			check();
	}
}

static void remove_all(void)
{
	struct change change = { .what = REMOVE, .n = n_cells };

	do {
		assert_int_equal(apply(&change, 64), 0);
		assert_true(change.left < change.n);
		change.n = change.left;
	} while (change.n);
	model_remove(0, n_cells);
	check();
	assert_int_equal(count().n_nodes, 0);
	assert_int_equal(count().depth, 0);
}

static void change_volume(const char *options, const char *size, unsigned n, unsigned max)
{
	make(options, size);
	model_init(n);
	for (unsigned i = 0; i < 3; i++) {
		change_at_random(1500, max);
		check();
		fsck();
		check();
	}
	remove_all();
	fsck();
	shut();
}

static void test_random_1k(void **state)
{
	change_volume("-b 1024 -N 16", "16M", 3000, 4);
}

static void test_random_few(void **state)
{
	change_volume("-b 1024 -N 16 -O ^metadata_csum,^64bit", "16M", 60, 8);
}

static void test_random_full(void **state)
{
	change_volume("-b 1024 -N 16 -O ^has_journal", "600k", 2000, 4);
}

static void test_random_4k(void **state)
{
	change_volume("-b 4096 -N 16 -O ^64bit", "24M", 3000, 16);
}

static void test_random_64k(void **state)
{
	change_volume("-b 65536 -N 16 -J size=64", "256M", 500, 8);
}

static void test_random_groups(void **state)
{
	change_volume("-b 1024 -g 256 -N 16 -O ^resize_inode", "24M", 3000, 700);
}

static void test_random_indirect(void **state)
{
	change_volume("-b 1024 -N 16 -O ^extents,^64bit", "16M", 3000, 4);
}

static void test_random_triple(void **state)
{
	change_volume("-b 1024 -N 16 -O ^extents,^64bit,^metadata_csum,uninit_bg", "16M", 65536, 300);
}

/* ---- deep trees ------------------------------------------------------------------------------------------------- */

/* Every second block, from the last to the first: nodes are left half full. */
static void test_deep(void **state)
{
	struct change change = { .what = INSERT, .n = 1, .goal = 1000 };

	make("-b 1024 -N 16", "32M");
	model_init(20000);
	for (unsigned i = 10000; i-- > 0;) {
		change.lblk = 2 * i;
		change.cancel = rng(16) == 0;
		assert_int_equal(apply(&change, insert_credits()), change.cancel ? -ECANCELED : 0);
		i += change.cancel;
		if (!change.cancel)
			model_insert(&change);
	}
	check();
	assert_in_range(count().depth, 3, EXT4_MAX_DEPTH);
	fsck();
	change_at_random(3000, 4);
	check();
	fsck();
	for (unsigned i = 0; i < 60; i++)
		try_remove(rng(n_cells), 2000);
	check();
	fsck();
	check();
	remove_all();
	fsck();
	shut();
}

/* From front to back: all leaves but the last are full. */
static void test_append(void **state)
{
	struct change change = { .what = INSERT, .n = 1, .goal = 1000 };
	struct tree tree;

	make("-b 1024 -N 16", "32M");
	model_init(2 * 84 * 30);
	for (unsigned i = 0; i < 84 * 30; i++) {
		change.lblk = 2 * i;
		assert_int_equal(apply(&change, insert_credits()), 0);
		model_insert(&change);
	}
	check();
	tree = count();
	assert_int_equal(tree.n_entries, 84 * 30);
	assert_int_equal(tree.n_leaves, 30);
	fsck();
	shut();
}

/* ---- full nodes ------------------------------------------------------------------------------------------------- */

/* n extents of three blocks; the middle one of one extent changes, where there is no room for two new entries. */
static void change_middle(unsigned n, unsigned which, bool punch)
{
	struct change change = { .what = INSERT, .n = 3, .unwritten = true };

	make("-b 1024 -N 16", "8M");
	model_init(4 * n);
	for (unsigned i = 0; i < n; i++) {
		change.goal = 2000 + 8 * i;
		change.lblk = 4 * i;
		assert_int_equal(apply(&change, insert_credits()), 0);
		assert_int_equal(change.got, 3);
		model_insert(&change);
	}
	assert_int_equal(count().n_leaves, 1);
	change = (struct change){ .what = punch ? REMOVE : CONVERT, .lblk = 4 * which + 1, .n = 1 };
	assert_int_equal(apply(&change, 64), 0);
	if (punch)
		model_remove(change.lblk, change.lblk + 1);
	else
		model_convert(&change);
	check();
	assert_int_equal(count().n_entries, punch ? n + 1 : n + 2);
	fsck();
	shut();
}

static void test_full_nodes(void **state)
{
	for (unsigned punch = 0; punch < 2; punch++) {
		for (unsigned n = 2; n <= 4; n++)
			for (unsigned which = 0; which < n; which++)
				change_middle(n, which, punch);
		for (unsigned n = 83; n <= 84; n++)
			for (unsigned i = 0; i < 7; i++)
				change_middle(n, (unsigned[]){ 0, 1, 41, 42, 43, n - 2, n - 1 }[i], punch);
	}
}

/* ---- no space --------------------------------------------------------------------------------------------------- */

static int reserve_fn(struct inl_handle *op, void *arg)
{
	struct change *change = arg;

	return inl_blocks_reserve(op, 0, change->n, &change->pblk, &change->got);
}

/* Keep all free blocks but a few. Returns how many reservations there are. */
static unsigned reserve_all_but(uint64_t keep, struct change *taken, unsigned room)
{
	unsigned n = 0;

	while (inl_alloc_n_free_blocks(vol->alloc) > keep) {
		assert_in_range(n, 0, room - 1);
		taken[n].n = inl_alloc_n_free_blocks(vol->alloc) - keep;
		assert_int_equal(inl_op_run(vol, 64, reserve_fn, &taken[n], NULL), 0);
		n++;
	}
	return n;
}

/* Four full leaves: one more extent needs a leaf and a level. With room for neither, or only for the leaf, nothing changes. */
static void test_no_space(void **state)
{
	static struct change taken[1000];
	struct change change = { .what = INSERT, .n = 1, .goal = 1000 };

	make("-b 1024 -N 16", "8M");
	model_init(4 * 84 * 2 + 2);
	for (unsigned i = 0; i < 4 * 84; i++) {
		change.lblk = 2 * i;
		assert_int_equal(apply(&change, insert_credits()), 0);
		model_insert(&change);
	}
	assert_int_equal(count().n_leaves, 4);
	change.lblk = 2 * 4 * 84;
	for (unsigned keep = 1; keep <= 3; keep++) {
		unsigned n = reserve_all_but(keep, taken, 1000);

		assert_int_equal(apply(&change, insert_credits()), keep < 3 ? -ENOSPC : 0);
		if (keep == 3)
			model_insert(&change);
		check();
		assert_int_equal(inl_alloc_n_free_blocks(vol->alloc), keep < 3 ? keep : 0);
		while (n--)
			inl_blocks_unreserve(vol, taken[n].pblk, taken[n].got);
		fsck();
	}
	check();
	shut();
}

/* ---- credits ---------------------------------------------------------------------------------------------------- */

/* Blocks in many groups, removed with few credits: never more are used, and 64 are always enough to get on. */
static void test_few_credits(void **state)
{
	make("-b 1024 -g 256 -N 16 -O ^resize_inode", "48M");
	model_init(3000);
	for (unsigned credits = 64; credits >= 12; credits -= 4) {
		struct change change = { .what = REMOVE, .n = n_cells };

		for (unsigned i = 0; i < 500; i++)
			try_insert(rng(n_cells), 1);
		for (uint64_t last = UINT64_MAX; change.n && change.n < last; change.n = change.left) {
			last = change.n;
			assert_int_equal(apply(&change, credits), 0);
			assert_true(credits < 64 || change.left < change.n);
			model_remove(change.left, n_cells);
		}
		check();
	}
	fsck();
	remove_all();
	shut();
}

/* ---- edges: in operations that are cancelled, so that blocks need not be there ---------------------------------- */

struct want {
	uint64_t lblk, len, pblk;
	bool unwritten;
};

/* In an operation, which begins again when a block has to be read. */
#define give(want, ...)                                                                                                \
	do {                                                                                                           \
		int got_ = (__VA_ARGS__);                                                                              \
		if (got_ == -EAGAIN)                                                                                   \
			return got_;                                                                                   \
		assert_int_equal(got_, (want));                                                                        \
	} while (0)

static int expect_runs(struct inl_handle *op, const struct want *want, unsigned n)
{
	struct tree tree = { 0 };

	for (unsigned i = 0; i < n; i++) {
		struct inl_run run;

		give(0, inl_map(file, want[i].lblk, &run, NULL));
		assert_int_equal(run.kind, want[i].unwritten ? INL_EXTENT_UNWRITTEN : INL_EXTENT_DATA);
		assert_int_equal(run.lblk, want[i].lblk);
		assert_int_equal(run.len, want[i].len);
		assert_int_equal(run.pblk, want[i].pblk);
	}
	give(0, count_extents(op, (const uint8_t *)file->raw.i_block, &tree));
	assert_int_equal(tree.n_entries, n);
	return 0;
}

#define expect(...)                                                                                                    \
	do {                                                                                                           \
		const struct want want[] = { __VA_ARGS__ };                                                            \
		give(0, expect_runs(op, want, sizeof(want) / sizeof(want[0])));                                        \
	} while (0)

static int merges(struct inl_handle *op, void *arg)
{
	/* Apart on the medium, in the file, or in kind: no. Otherwise from both sides. */
	give(0, inl_map_insert(op, file, 100, 10, 1000, false));
	give(0, inl_map_insert(op, file, 110, 10, 1011, false));
	give(0, inl_map_insert(op, file, 90, 10, 990, true));
	expect({ 90, 10, 990, true }, { 100, 10, 1000, false }, { 110, 10, 1011, false });
	give(0, inl_map_insert(op, file, 130, 10, 1031, false));
	give(0, inl_map_insert(op, file, 120, 10, 1021, false));
	expect({ 90, 10, 990, true }, { 100, 10, 1000, false }, { 110, 30, 1011, false });
	give(0, inl_map_convert(op, file, 90, 10, false));
	expect({ 90, 20, 990, false }, { 110, 30, 1011, false });
	give(0, inl_map_convert(op, file, 95, 20, true));
	expect({ 90, 5, 990, false }, { 95, 15, 995, true }, { 110, 5, 1011, true }, { 115, 25, 1016, false });
	give(0, inl_map_convert(op, file, 94, 2, false));
	give(0, inl_map_convert(op, file, 105, 10, false));
	give(0, inl_map_convert(op, file, 96, 9, false));
	expect({ 90, 20, 990, false }, { 110, 30, 1011, false });

	/* Not a hole, in part; too far; not blocks; not mapped. */
	give(-EEXIST, inl_map_insert(op, file, 80, 11, 2000, false));
	give(-EEXIST, inl_map_insert(op, file, 139, 2, 2000, false));
	give(-EINVAL, inl_map_insert(op, file, 0, UINT32_MAX, 2000, false));
	give(-EFBIG, inl_map_insert(op, file, UINT32_MAX, 1, 2000, false));
	give(-EINVAL, inl_map_insert(op, file, 0, 1, vol->n_blocks, false));
	give(-EINVAL, inl_map_convert(op, file, 139, 2, true));
	give(-EINVAL, inl_map_convert(op, file, 0, 1, true));
	return -ECANCELED;
}

static int lengths(struct inl_handle *op, void *arg)
{
	/* The longest extents; what is beyond begins another one. */
	give(0, inl_map_insert(op, file, 0, 32767, 100, false));
	give(0, inl_map_insert(op, file, 32767, 2, 32867, false));
	expect({ 0, 32768, 100, false }, { 32768, 1, 32868, false });
	give(0, inl_map_convert(op, file, 0, 32769, true));
	expect({ 0, 32767, 100, true }, { 32767, 2, 32867, true });
	give(0, inl_map_convert(op, file, 0, 32769, false));
	expect({ 0, 32768, 100, false }, { 32768, 1, 32868, false });
	give(0, inl_map_insert(op, file, 100000, 70000, 40000, true));
	expect({ 0, 32768, 100, false }, { 32768, 1, 32868, false }, { 100000, 32767, 40000, true },
	       { 132767, 32767, 72767, true }, { 165534, 4466, 105534, true });
	give(0, inl_map_insert(op, file, UINT32_MAX - 1, 1, 99, false));
	return -ECANCELED;
}

static int lengths_end(struct inl_handle *op, void *arg)
{
	give(0, inl_map_insert(op, file, UINT32_MAX - 1, 1, 99, false));
	expect({ UINT32_MAX - 1, 1, 99, false });
	give(0, inl_map_insert(op, file, UINT32_MAX - 2, 1, 98, false));
	expect({ UINT32_MAX - 2, 2, 98, false });
	return -ECANCELED;
}

static void test_edges(void **state)
{
	make("-b 1024 -N 16", "160M");
	model_init(1000);
	assert_int_equal(inl_op_run(vol, 64, merges, NULL, NULL), -ECANCELED);
	assert_int_equal(inl_op_run(vol, 64, lengths, NULL, NULL), -ECANCELED);
	assert_int_equal(inl_op_run(vol, 64, lengths_end, NULL, NULL), -ECANCELED);
	check();
	fsck();
	shut();
}

static int reaches(struct inl_handle *op, void *arg)
{
	/* Twelve, 256, 256 * 256 and 256 * 256 * 256 blocks. */
	static const uint64_t at[] = { 0, 11, 12, 267, 268, 65803, 65804, 16843019 };
	struct inl_run run;
	uint64_t left;

	for (unsigned i = 0; i < 8; i++)
		give(0, inl_map_insert(op, file, at[i], 1, 15000 + 2 * i, false));
	for (unsigned i = 0; i < 8; i++) {
		give(0, inl_map(file, at[i], &run, NULL));
		assert_int_equal(run.pblk + (at[i] - run.lblk), 15000 + 2 * i);
	}
	assert_int_equal(inl_map_max(file), 16843020);
	give(-EFBIG, inl_map_insert(op, file, 16843019, 2, 15100, false));
	give(-EEXIST, inl_map_insert(op, file, 200, 100, 15200, false));
	give(-EOPNOTSUPP, inl_map_insert(op, file, 1, 1, 15200, true));
	give(-EUCLEAN, inl_map_remove(op, file, 0, 1, false, &left)); /* free already */
	return -ECANCELED;
}

static void test_edges_indirect(void **state)
{
	make("-b 1024 -N 16 -O ^extents,^64bit", "16M");
	model_init(1000);
	assert_int_equal(inl_op_run(vol, 64, reaches, NULL, NULL), -ECANCELED);
	check();
	fsck();
	shut();
}

/* ---- damage ----------------------------------------------------------------------------------------------------- */

static void overwrite(uint64_t offset, const void *bytes, size_t len)
{
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "%s/i.img", work_dir);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t)offset), (ssize_t)len);
	close(fd);
}

/* Where the nodes are. */
struct nodes {
	uint64_t pblk[300];
	uint8_t bytes[300][1024];
	unsigned n;
};

static int collect(struct inl_handle *op, const uint8_t *node, struct nodes *nodes)
{
	int err = 0;

	for (unsigned i = 0; inl_load_le16(node + 6) && i < inl_load_le16(node + 2) && !err; i++) {
		uint64_t pblk = inl_load_le32(node + 12 + 12 * (size_t)i + 4);
		const uint8_t *below;

		err = inl_block_look(op, pblk, &below);
		if (err || nodes->n == 300)
			break;
		nodes->pblk[nodes->n] = pblk;
		memcpy(nodes->bytes[nodes->n++], below, 1024);
		err = collect(op, below, nodes);
	}
	return err;
}

static int collect_pointers(struct inl_handle *op, uint32_t pblk, unsigned levels, struct nodes *nodes)
{
	const uint8_t *bytes;
	int err;

	if (!pblk || !levels || nodes->n == 300)
		return 0;
	err = inl_block_look(op, pblk, &bytes);
	if (err)
		return err;
	nodes->pblk[nodes->n] = pblk;
	memcpy(nodes->bytes[nodes->n++], bytes, 1024);
	for (unsigned i = 0; i < 256 && !err; i++)
		err = collect_pointers(op, inl_load_le32(bytes + 4 * (size_t)i), levels - 1, nodes);
	return err;
}

static int collect_fn(struct inl_handle *op, void *arg)
{
	struct nodes *nodes = arg;
	int err = 0;

	nodes->n = 0;
	if (file->raw.i_flags & EXT4_FL_EXTENTS)
		return collect(op, (const uint8_t *)file->raw.i_block, nodes);
	for (unsigned i = 0; i < 3 && !err; i++)
		err = collect_pointers(op, file->raw.i_block[12 + i], i + 1, nodes);
	return err;
}

/* Everything that can be asked of a damaged map ends, and with an error that says so if with any. */
static void use_damaged(void)
{
	for (unsigned i = 0; i < 40; i++) {
		struct change change = { .lblk = rng(n_cells), .n = 1 + rng(300), .cancel = true };
		int err;

		change.goal = random_goal();
		change.what = (int[]){ INSERT, CONVERT, REMOVE }[i % 3];
		change.unwritten = rng(2) && file->raw.i_flags & EXT4_FL_EXTENTS;
		err = apply(&change, 64);
		if (err != -EUCLEAN && err != -ECANCELED && err != -EEXIST && err != -EINVAL && err != -E2BIG &&
		    err != -EOPNOTSUPP) {
			print_error("%d: %s\n", i % 3, strerror(-err));
			fail();
		}
	}
}

static void damage(const struct nodes *nodes, unsigned rounds)
{
	static const uint16_t values[] = { 0, 1, 2, 4, 84, 85, 255, 256, 32768, 32769, 65535 };

	while (rounds--) {
		unsigned which = rng(nodes->n);
		uint8_t bytes[1024];

		memcpy(bytes, nodes->bytes[which], 1024);
		for (unsigned i = 1 + rng(3); i; i--) {
			unsigned at = rng(3) ? 2 * rng(30) : 2 * rng(510);

			inl_store_le16(bytes + at, rng(2) ? values[rng(11)] : (uint16_t)rng(65536));
		}
		if (rng(8) == 0)
			memcpy(bytes, nodes->bytes[rng(nodes->n)], 1024);
		if (rng(4) == 0)
			inl_store_le32(bytes + 4 * rng(255), (uint32_t)nodes->pblk[rng(nodes->n)]);
		overwrite(nodes->pblk[which] * 1024, bytes, 1024);
		assert_int_equal(try_open(), 0);
		use_damaged();
		shut();
		overwrite(nodes->pblk[which] * 1024, nodes->bytes[which], 1024);
	}
}

static void test_damage(void **state)
{
	static struct nodes nodes;

	make("-b 1024 -N 16 -O ^metadata_csum,^has_journal", "16M");
	model_init(3000);
	for (unsigned i = 0; i < 1400; i++)
		try_insert(2 * i, 1);
	change_at_random(300, 4);
	assert_in_range(count().depth, 2, 3);
	assert_int_equal(inl_op_look(vol, collect_fn, &nodes), 0);
	fsck();
	shut();
	damage(&nodes, 150);
	assert_int_equal(try_open(), 0);
	check();
	fsck();
	shut();
}

static void test_damage_indirect(void **state)
{
	static struct nodes nodes;

	make("-b 1024 -N 16 -O ^extents,^64bit,^metadata_csum,^has_journal", "16M");
	model_init(CELLS);
	change_at_random(300, 20);
	for (unsigned i = 0; i < 100; i++)
		try_insert(i, 1);
	assert_int_equal(inl_op_look(vol, collect_fn, &nodes), 0);
	assert_in_range(nodes.n, 10, 300);
	fsck();
	shut();
	damage(&nodes, 100);
	assert_int_equal(try_open(), 0);
	check();
	fsck();
	shut();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_1k),
		cmocka_unit_test(test_random_few),
		cmocka_unit_test(test_random_full),
		cmocka_unit_test(test_random_4k),
		cmocka_unit_test(test_random_64k),
		cmocka_unit_test(test_random_groups),
		cmocka_unit_test(test_random_indirect),
		cmocka_unit_test(test_random_triple),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_full_nodes),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_few_credits),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_edges_indirect),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_damage_indirect),
	};

	return cmocka_run_group_tests_name("extents", tests, setup, teardown);
}
