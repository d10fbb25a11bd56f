/*
 * tests/unit/test_alloc.c: allocation of blocks and inodes, against a model that has one byte per block.
 * Not here: what the blocks are for (test_map.c, test_write.c).
 * Read more: ext4/change.h, "descriptors, bitmaps, allocation"; ext4/alloc.h.
 *
 * Operations of random steps are ended, cancelled and begun again; what a step may do, and what is free afterwards, the
 * model says. libext2fs reads the volume that is left and says the same, checksums included; when all has been freed
 * e2fsck finds nothing.
 */
#include "ext4/alloc.h"
#include "work_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint32_t rng_state = 1;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)(rng_state >> 4) * below) >> 28);
}

/* ---- volumes --------------------------------------------------------------------------------------------------- */

enum state { FREE, USED, RESERVED, TAKEN, BUSY }; /* USED: since the volume was made */

/* A volume, and what is known of it. */
struct rig {
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct inl_alloc *alloc;
	uint64_t n_blocks;
	uint32_t n_inodes;
	uint8_t *blocks, *saved_blocks; /* enum state: now, and before the operation under way */
	uint8_t *inodes, *saved_inodes; /* FREE, USED, TAKEN; DIR */
};
#define DIR_TAKEN 9

static ext2_filsys open_ext2fs(void)
{
	char path[PATH_MAX];
	ext2_filsys fs;

	snprintf(path, sizeof(path), "%s/i.img", work_dir);
	assert_int_equal(ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs), 0);
	/* Verifies the checksums. */
	assert_int_equal(ext2fs_read_bitmaps(fs), 0);
	return fs;
}

static void rig_open(struct rig *rig)
{
	struct inl_diag diag = { 0 };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/i.img", work_dir);
	if (inl_dev_open(path, INL_OPEN_WRITE, &diag, &rig->dev) ||
	    inl_volume_open(rig->dev, NULL, INL_VOLUME_WRITE, &diag, &rig->vol)) {
		print_error("%s\n", diag.text);
		fail();
	}
	rig->alloc = rig->vol->alloc;
}

static void rig_close(struct rig *rig)
{
	assert_int_equal(inl_volume_close(rig->vol), 0);
	inl_dev_close(rig->dev);
}

static void rig_new(struct rig *rig, const char *mkfs)
{
	ext2_filsys fs;

	memset(rig, 0, sizeof(*rig));
	run("rm -f i.img && mke2fs -F -q %s", mkfs);
	fs = open_ext2fs();
	rig->n_blocks = ext2fs_blocks_count(fs->super);
	rig->n_inodes = fs->super->s_inodes_count;
	rig->blocks = calloc(2, rig->n_blocks);
	rig->inodes = calloc(2, rig->n_inodes + 1);
	rig->saved_blocks = rig->blocks + rig->n_blocks;
	rig->saved_inodes = rig->inodes + rig->n_inodes + 1;
	for (uint64_t i = 0; i < rig->n_blocks; i++)
		rig->blocks[i] = i < fs->super->s_first_data_block || ext2fs_test_block_bitmap2(fs->block_map, i) ?
					 USED :
					 FREE;
	for (uint32_t i = 1; i <= rig->n_inodes; i++)
		rig->inodes[i] = ext2fs_test_inode_bitmap2(fs->inode_map, i) ? USED : FREE;
	ext2fs_close_free(&fs);
	rig_open(rig);
}

static void rig_free(struct rig *rig)
{
	free(rig->blocks);
	free(rig->inodes);
}

static uint64_t count_blocks(const struct rig *rig, uint8_t state)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < rig->n_blocks; i++)
		n += rig->blocks[i] == state;
	return n;
}

static void commit(struct rig *rig)
{
	assert_int_equal(inl_txn_commit(rig->vol), 0);
	assert_false(inl_alloc_has_busy(rig->alloc));
	for (uint64_t i = 0; i < rig->n_blocks; i++) {
		if (rig->blocks[i] == BUSY)
			rig->blocks[i] = FREE;
	}
}

/* ---- what memory says ------------------------------------------------------------------------------------------ */

static void check_group(const struct rig *rig, uint32_t group)
{
	const struct inl_alloc_group *known = &rig->alloc->groups[group];
	uint64_t start = inl_group_start(rig->alloc, group);
	uint32_t n_held = 0, n_free = 0, longest = 0, run_len = 0, first = UINT32_MAX;

	for (uint32_t i = 0; i < inl_group_n_blocks(rig->alloc, group); i++) {
		uint8_t state = rig->blocks[start + i];
		bool held = state == RESERVED || state == BUSY;

		assert_int_equal(known->held && inl_bits_test(known->held, i), held);
		n_held += held;
		n_free += held || state == FREE;
		run_len = state == FREE ? run_len + 1 : 0;
		longest = run_len > longest ? run_len : longest;
		if (state == FREE && first == UINT32_MAX)
			first = i;
	}
	assert_int_equal(known->n_held, n_held);
	assert_int_equal(known->n_free, n_free);
	assert_true(known->max_run >= longest);
	assert_true(known->first <= first);
}

static void check_memory(const struct rig *rig)
{
	uint32_t n_inodes = 0;

	for (uint32_t i = 0; i < rig->alloc->n_groups; i++)
		check_group(rig, i);
	for (uint32_t i = 1; i <= rig->n_inodes; i++)
		n_inodes += rig->inodes[i] == FREE;
	assert_int_equal(rig->alloc->n_reserved, count_blocks(rig, RESERVED));
	assert_int_equal(rig->alloc->n_busy, count_blocks(rig, BUSY));
	assert_int_equal(inl_alloc_n_free_blocks(rig->alloc), count_blocks(rig, FREE) + count_blocks(rig, BUSY));
	assert_int_equal(inl_alloc_n_free_inodes(rig->alloc), n_inodes);
}

/* ---- what the medium says -------------------------------------------------------------------------------------- */

static void check_descriptor(const struct rig *rig, ext2_filsys fs, dgrp_t group)
{
	uint32_t per_group = fs->super->s_inodes_per_group, n_free_inodes = 0, n_dirs = 0, last = 0;
	uint64_t n_free = 0;

	for (blk64_t i = ext2fs_group_first_block2(fs, group); i <= ext2fs_group_last_block2(fs, group); i++)
		n_free += rig->blocks[i] == FREE;
	for (uint32_t i = 1; i <= per_group; i++) {
		uint8_t state = rig->inodes[group * per_group + i];

		n_free_inodes += state == FREE;
		n_dirs += state == DIR_TAKEN;
		last = state == FREE ? last : i;
	}
	assert_true(ext2fs_group_desc_csum_verify(fs, group));
	assert_int_equal(ext2fs_bg_free_blocks_count(fs, group), n_free);
	assert_int_equal(ext2fs_bg_free_inodes_count(fs, group), n_free_inodes);
	assert_int_equal(ext2fs_bg_used_dirs_count(fs, group), n_dirs + (group ? 0 : 2));
	if (ext2fs_has_group_desc_csum(fs)) {
		assert_true(ext2fs_bg_itable_unused(fs, group) <= per_group - last);
		if (last)
			assert_false(ext2fs_bg_flags_test(fs, group, EXT2_BG_INODE_UNINIT));
	}
}

/* After a close. */
static void check_medium(const struct rig *rig)
{
	ext2_filsys fs = open_ext2fs();

	for (uint64_t i = fs->super->s_first_data_block; i < rig->n_blocks; i++)
		assert_int_equal(!!ext2fs_test_block_bitmap2(fs->block_map, i), rig->blocks[i] != FREE);
	for (uint32_t i = 1; i <= rig->n_inodes; i++)
		assert_int_equal(!!ext2fs_test_inode_bitmap2(fs->inode_map, i), rig->inodes[i] != FREE);
	for (dgrp_t i = 0; i < fs->group_desc_count; i++)
		check_descriptor(rig, fs, i);
	assert_int_equal(ext2fs_free_blocks_count(fs->super), count_blocks(rig, FREE));
	ext2fs_close_free(&fs);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

struct plan {
	struct rig *rig;
	unsigned n_steps;
	int end;       /* what the operation returns in the end */
	bool only_one; /* small requests */
};

static void model_set(struct rig *rig, uint64_t pblk, uint64_t n, uint8_t from, uint8_t to)
{
	assert_true(pblk + n <= rig->n_blocks);
	for (uint64_t i = pblk; i < pblk + n; i++) {
		assert_int_equal(rig->blocks[i], from);
		rig->blocks[i] = to;
	}
}

/* A run of at most max blocks in this state, looked for from anywhere. 0: there is none. */
static uint64_t pick(const struct rig *rig, uint8_t state, uint64_t max, uint64_t *pblk)
{
	uint64_t at = rng((uint32_t)rig->n_blocks), n = 0;

	for (uint64_t i = 0; i < rig->n_blocks && rig->blocks[at] != state; i++)
		at = (at + 1) % rig->n_blocks;
	while (n < max && at + n < rig->n_blocks && rig->blocks[at + n] == state)
		n++;
	*pblk = at;
	return n;
}

static int step_reserve(struct plan *plan, struct inl_handle *op)
{
	struct rig *rig = plan->rig;
	uint64_t goal = rng(4) ? rng((uint32_t)rig->n_blocks) : 0, n = 1 + rng(rng(3) ? 20 : 3000), pblk, got;
	int err = inl_blocks_reserve(op, goal, n, &pblk, &got);

	if (err == -ENOSPC)
		assert_int_equal(count_blocks(rig, FREE), 0);
	if (err)
		return err == -ENOSPC ? 0 : err;
	assert_in_range(got, 1, n);
	model_set(rig, pblk, got, FREE, RESERVED);
	return 0;
}

static int step_take(struct plan *plan, struct inl_handle *op)
{
	uint64_t pblk, n = pick(plan->rig, RESERVED, 1 + rng(100), &pblk);
	int err = n ? inl_blocks_take(op, pblk, n) : 0;

	if (!err && n)
		model_set(plan->rig, pblk, n, RESERVED, TAKEN);
	return err;
}

static int step_alloc(struct plan *plan, struct inl_handle *op)
{
	uint64_t pblk;
	int err = inl_block_alloc(op, rng((uint32_t)plan->rig->n_blocks), &pblk);

	if (err == -ENOSPC) {
		assert_int_equal(count_blocks(plan->rig, FREE), 0);
		return 0;
	}
	if (!err)
		model_set(plan->rig, pblk, 1, FREE, TAKEN);
	return err;
}

static int step_free(struct plan *plan, struct inl_handle *op)
{
	uint64_t pblk, n = pick(plan->rig, TAKEN, 1 + rng(rng(4) ? 30 : 2000), &pblk);
	int err = n ? inl_blocks_free(op, pblk, n, n < 10 && rng(2)) : 0;

	if (!err && n)
		model_set(plan->rig, pblk, n, TAKEN, BUSY);
	return err;
}

static int step_inode(struct plan *plan, struct inl_handle *op)
{
	struct rig *rig = plan->rig;
	struct inl_inode dir = { .vol = rig->vol, .ino = 1 + rng(rig->n_inodes) };
	bool is_dir = rng(3) == 0;
	uint32_t ino;
	int err = inl_ino_alloc(op, rng(8) ? &dir : NULL, is_dir ? S_IFDIR : S_IFREG, &ino);

	if (err == -ENOSPC) {
		assert_null(memchr(rig->inodes + 1, FREE, rig->n_inodes));
		return 0;
	}
	if (err)
		return err;
	assert_in_range(ino, 11, rig->n_inodes);
	assert_int_equal(rig->inodes[ino], FREE);
	rig->inodes[ino] = is_dir ? DIR_TAKEN : TAKEN;
	return 0;
}

static int step_inode_free(struct plan *plan, struct inl_handle *op)
{
	struct rig *rig = plan->rig;
	uint32_t at = 1 + rng(rig->n_inodes);
	bool is_dir;
	int err;

	for (uint32_t i = 0; i < rig->n_inodes && rig->inodes[at] < TAKEN; i++)
		at = at % rig->n_inodes + 1;
	if (rig->inodes[at] < TAKEN)
		return 0;
	is_dir = rig->inodes[at] == DIR_TAKEN;
	err = inl_ino_free(op, at, is_dir);
	if (!err)
		rig->inodes[at] = FREE;
	return err;
}

/* What must not work, and ends the operation. */
static int step_wrong(struct plan *plan, struct inl_handle *op)
{
	static const uint8_t states[] = { FREE, USED, RESERVED, BUSY };
	struct rig *rig = plan->rig;
	uint8_t state = states[rng(4)];
	uint64_t pblk;
	int err;

	if (!pick(rig, state, 1, &pblk))
		return 0;
	/* What mke2fs has allocated for files is not told from what is the file system's own here. */
	if (state == USED)
		pblk = ext2fs_inode_table_loc(rig->vol->fs, rng(rig->vol->fs->group_desc_count));
	err = rng(2) || state == RESERVED ? inl_blocks_free(op, pblk, 1, rng(2)) : inl_blocks_take(op, pblk, 1);
	if (state == BUSY && !err) /* a busy block may be taken by who has not reserved it: not told apart */
		return -ECANCELED;
	assert_true(err == -EUCLEAN || err == -EAGAIN);
	return err;
}

static int do_plan(struct inl_handle *op, void *arg)
{
	static int (*const steps[])(struct plan *plan, struct inl_handle *op) = {
		step_reserve, step_reserve, step_reserve, step_take, step_take, step_take, step_alloc, step_free,
		step_free, step_free, step_inode, step_inode, step_inode_free,
	};
	struct plan *plan = arg;
	struct rig *rig = plan->rig;
	int err = 0;

	/* Another attempt, maybe after a commit. */
	memcpy(rig->blocks, rig->saved_blocks, rig->n_blocks);
	memcpy(rig->inodes, rig->saved_inodes, rig->n_inodes + 1);
	for (uint64_t i = 0; i < rig->n_blocks && !rig->alloc->n_busy; i++) {
		if (rig->blocks[i] == BUSY)
			rig->blocks[i] = rig->saved_blocks[i] = FREE;
	}
	for (unsigned i = 0; i < plan->n_steps && !err; i++)
		err = steps[rng(COUNT(steps))](plan, op);
	if (!err && plan->end == -EUCLEAN)
		err = step_wrong(plan, op);
	if (!err && plan->end == -EUCLEAN)
		err = -ECANCELED;
	return err ? err : plan->end;
}

static void one_op(struct rig *rig)
{
	static const int ends[] = { 0, 0, 0, -ECANCELED, -EUCLEAN };
	struct plan plan = { .rig = rig, .n_steps = 1 + rng(5), .end = ends[rng(COUNT(ends))] };
	int err;

	memcpy(rig->saved_blocks, rig->blocks, rig->n_blocks);
	memcpy(rig->saved_inodes, rig->inodes, rig->n_inodes + 1);
	err = inl_op_run(rig->vol, 30, do_plan, &plan, NULL);
	if (err) {
		assert_true(err == plan.end || err == -ECANCELED);
		assert_int_not_equal(plan.end, 0);
		memcpy(rig->blocks, rig->saved_blocks, rig->n_blocks);
		memcpy(rig->inodes, rig->saved_inodes, rig->n_inodes + 1);
	}
}

static void some_unreserve(struct rig *rig, uint64_t max)
{
	uint64_t pblk, n = pick(rig, RESERVED, max, &pblk);

	if (!n)
		return;
	inl_blocks_unreserve(rig->vol, pblk, n);
	model_set(rig, pblk, n, RESERVED, FREE);
}

/* ---- ends ------------------------------------------------------------------------------------------------------ */

static int free_some(struct inl_handle *op, void *arg)
{
	struct plan *plan = arg;
	struct rig *rig = plan->rig;
	int err = 0;

	memcpy(rig->blocks, rig->saved_blocks, rig->n_blocks);
	memcpy(rig->inodes, rig->saved_inodes, rig->n_inodes + 1);
	while (inl_op_credits_left(op) > 8 && !err) {
		if (memchr(rig->blocks, TAKEN, rig->n_blocks))
			err = step_free(plan, op);
		else if (memchr(rig->inodes, TAKEN, rig->n_inodes + 1) ||
			 memchr(rig->inodes, DIR_TAKEN, rig->n_inodes + 1))
			err = step_inode_free(plan, op);
		else
			break;
		if (!rng(10))
			break;
	}
	return err;
}

static void free_all(struct rig *rig)
{
	struct plan plan = { .rig = rig };

	while (memchr(rig->blocks, RESERVED, rig->n_blocks))
		some_unreserve(rig, UINT64_MAX);
	while (memchr(rig->blocks, TAKEN, rig->n_blocks) || memchr(rig->inodes, TAKEN, rig->n_inodes + 1) ||
	       memchr(rig->inodes, DIR_TAKEN, rig->n_inodes + 1)) {
		memcpy(rig->saved_blocks, rig->blocks, rig->n_blocks);
		memcpy(rig->saved_inodes, rig->inodes, rig->n_inodes + 1);
		assert_int_equal(inl_op_run(rig->vol, 60, free_some, &plan, NULL), 0);
	}
}

/* Close; what libext2fs reads is what the model says; open again. */
static void reopen(struct rig *rig)
{
	while (memchr(rig->blocks, RESERVED, rig->n_blocks))
		some_unreserve(rig, UINT64_MAX);
	commit(rig);
	rig_close(rig);
	check_medium(rig);
	rig_open(rig);
	check_memory(rig);
}

static void finish(struct rig *rig)
{
	free_all(rig);
	commit(rig);
	check_memory(rig);
	rig_close(rig);
	check_medium(rig);
	run("e2fsck -fn i.img");
	rig_free(rig);
}

/* ---- the tests ------------------------------------------------------------------------------------------------- */

/* Layouts: who has which checksums, where tables lie, what is never initialised, what the last group is like. */
static const char *const layouts[] = {
	"-t ext4 -b 1024 i.img 24M",
	"-t ext4 -b 1024 -O ^metadata_csum,uninit_bg i.img 24001k",
	"-t ext4 -b 1024 -O ^64bit i.img 20003k",
	"-t ext4 -b 1024 -g 512 -N 640 -O ^resize_inode i.img 12M",
	"-t ext4 -b 1024 -g 1024 -O ^flex_bg,^64bit -I 128 i.img 20M",
	"-t ext4 -b 1024 -g 2048 -G 4 -O sparse_super2,^resize_inode i.img 30M",
	"-t ext4 -b 2048 -O ^sparse_super,^flex_bg,^resize_inode -g 2048 i.img 40M",
	"-t ext4 -b 4096 -g 1024 -N 4000 i.img 48M",
	"-t ext4 -b 65536 -O metadata_csum_seed i.img 300M",
	"-t ext3 -b 1024 i.img 20M",
	"-t ext2 -b 1024 -O ^resize_inode i.img 9M",
	"-t ext2 -b 4096 -g 512 -O uninit_bg i.img 30M",
};

static void test_model(void **state)
{
	needs_tools();
	for (size_t i = 0; i < COUNT(layouts); i++) {
		struct rig rig;

		rng_state = (uint32_t)i + 1;
		rig_new(&rig, layouts[i]);
		check_memory(&rig);
		for (unsigned n = 0; n < 400; n++) {
			one_op(&rig);
			if (!rng(4))
				some_unreserve(&rig, 1 + rng(500));
			if (!rng(20))
				commit(&rig);
			if (!rng(60))
				check_memory(&rig);
			if (!rng(150))
				reopen(&rig);
		}
		check_memory(&rig);
		reopen(&rig);
		finish(&rig);
	}
}

/* To the last block and the last inode, one by one or in long runs, and back. */
static int fill_some(struct inl_handle *op, void *arg)
{
	struct plan *plan = arg;
	struct rig *rig = plan->rig;

	memcpy(rig->blocks, rig->saved_blocks, rig->n_blocks);
	memcpy(rig->inodes, rig->saved_inodes, rig->n_inodes + 1);
	for (unsigned i = 0; i < 300 && inl_op_credits_left(op) > 8; i++) {
		uint64_t pblk, got;
		int err = plan->only_one ? inl_block_alloc(op, 0, &pblk) : inl_blocks_reserve(op, 0, 70, &pblk, &got);

		if (!err && !plan->only_one)
			err = inl_blocks_take(op, pblk, got);
		if (err)
			return i && err == -ENOSPC ? 0 : err;
		model_set(rig, pblk, plan->only_one ? 1 : got, FREE, TAKEN);
		if (i % 4 == 0)
			err = step_inode(plan, op);
		if (err)
			return err;
	}
	return 0;
}

static void test_full(void **state)
{
	static const size_t which[] = { 1, 3, 4, 7, 10 };

	needs_tools();
	for (size_t i = 0; i < COUNT(which); i++) {
		struct plan plan = { .only_one = i % 2 };
		struct rig rig;
		int err = 0;

		rig_new(&rig, layouts[which[i]]);
		plan.rig = &rig;
		while (!err) {
			memcpy(rig.saved_blocks, rig.blocks, rig.n_blocks);
			memcpy(rig.saved_inodes, rig.inodes, rig.n_inodes + 1);
			err = inl_op_run(rig.vol, 60, fill_some, &plan, NULL);
		}
		assert_int_equal(err, -ENOSPC);
		assert_int_equal(count_blocks(&rig, FREE), 0);
		assert_int_equal(inl_alloc_n_free_blocks(rig.alloc), 0);
		check_memory(&rig);
		reopen(&rig);
		finish(&rig);
	}
}

/* Writers side by side: each gets long runs, whatever the size of the pieces that they write. */
struct writer {
	uint64_t goal, n, pblk, got;
};

static int write_piece(struct inl_handle *op, void *arg)
{
	struct writer *writer = arg;
	int err = inl_blocks_reserve(op, writer->goal, writer->n, &writer->pblk, &writer->got);

	return err ? err : inl_blocks_take(op, writer->pblk, writer->got);
}

static void test_streams(void **state)
{
	static const uint64_t pieces[] = { 1, 5, 64, 256 };

	needs_tools();
	for (size_t i = 0; i < COUNT(pieces); i++) {
		struct writer writers[6];
		unsigned n_runs = 0;
		struct rig rig;

		rig_new(&rig, "-t ext4 -b 1024 i.img 64M");
		for (unsigned w = 0; w < COUNT(writers); w++)
			writers[w] = (struct writer){ .goal = inl_group_start(rig.alloc, 1), .n = pieces[i] };
		for (uint64_t done = 0; done < 6000; done += pieces[i]) {
			for (unsigned w = 0; w < COUNT(writers); w++) {
				struct writer *writer = &writers[w];

				assert_int_equal(inl_op_run(rig.vol, 8, write_piece, writer, NULL), 0);
				model_set(&rig, writer->pblk, writer->got, FREE, TAKEN);
				n_runs += writer->pblk != writer->goal;
				writer->goal = writer->pblk + writer->got;
			}
		}
		/* 36,000 blocks. */
		if (n_runs > 120) {
			print_error("%u runs in pieces of %u\n", n_runs, (unsigned)pieces[i]);
			fail();
		}
		finish(&rig);
	}
}

/* ---- inodes ---------------------------------------------------------------------------------------------------- */

struct tree {
	struct rig *rig;
	uint32_t parent, n, ino[200];
	uint32_t mode;
};

static int make_inodes(struct inl_handle *op, void *arg)
{
	struct tree *tree = arg;
	struct inl_inode dir = { .vol = tree->rig->vol, .ino = tree->parent };
	int err = 0;

	for (uint32_t i = 0; i < tree->n && !err; i++)
		err = inl_ino_alloc(op, &dir, tree->mode, &tree->ino[i]);
	return err;
}

static void test_spread(void **state)
{
	struct rig rig;
	uint32_t seen = 0;

	needs_tools();
	rig_new(&rig, "-t ext4 -b 1024 -g 2048 -O ^flex_bg i.img 64M"); /* 32 groups */
	{
		struct tree top = { .rig = &rig, .parent = 2, .n = 25, .mode = S_IFDIR };

		assert_int_equal(inl_op_run(rig.vol, 60, make_inodes, &top, NULL), 0);
		for (uint32_t i = 0; i < top.n; i++) {
			seen |= 1u << (top.ino[i] - 1) / rig.alloc->inodes_per_group;
			rig.inodes[top.ino[i]] = DIR_TAKEN;
		}
		assert_true(__builtin_popcount(seen) >= 20);
		/* What is in them stays with them. */
		for (uint32_t i = 0; i < top.n; i++) {
			struct tree sub = { .rig = &rig, .parent = top.ino[i], .n = 10 };

			sub.mode = i % 2 ? S_IFREG : S_IFDIR;
			assert_int_equal(inl_op_run(rig.vol, 60, make_inodes, &sub, NULL), 0);
			for (uint32_t k = 0; k < sub.n; k++) {
				rig.inodes[sub.ino[k]] = i % 2 ? TAKEN : DIR_TAKEN;
				if (i % 2)
					assert_int_equal((sub.ino[k] - 1) / rig.alloc->inodes_per_group,
							 (top.ino[i] - 1) / rig.alloc->inodes_per_group);
			}
		}
	}
	check_memory(&rig);
	reopen(&rig);
	finish(&rig);
}

static int check_alone(struct inl_handle *op, void *arg)
{
	struct rig *rig = arg;
	uint32_t per_block = rig->vol->block_size / EXT2_INODE_SIZE(rig->vol->fs->super);
	int err = 0;

	for (uint32_t ino = 1; ino <= rig->n_inodes && !err; ino++) {
		uint32_t first = (ino - 1) / per_block * per_block + 1;
		bool alone, model = true;

		for (uint32_t i = first; i < first + per_block; i++)
			model &= i == ino || rig->inodes[i] == FREE;
		err = inl_ino_alone(op, ino, &alone);
		if (!err)
			assert_int_equal(alone, model);
	}
	return err;
}

static void test_alone(void **state)
{
	struct rig rig;

	needs_tools();
	rig_new(&rig, layouts[3]);
	for (unsigned i = 0; i < 60; i++)
		one_op(&rig);
	assert_int_equal(inl_op_run(rig.vol, 0, check_alone, &rig, NULL), 0);
	assert_int_equal(inl_op_look(rig.vol, check_alone, &rig), 0);
	finish(&rig);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void poke(uint64_t at, uint8_t flip)
{
	char path[PATH_MAX];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof(path), "%s/i.img", work_dir);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= flip;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

struct wanted {
	uint64_t pblk;
	int (*fn)(struct inl_handle *op, uint64_t pblk);
};

static int free_one(struct inl_handle *op, uint64_t pblk)
{
	return inl_blocks_free(op, pblk, 1, false);
}

static int free_inode(struct inl_handle *op, uint64_t ino)
{
	return inl_ino_free(op, (uint32_t)ino, false);
}

static int do_wanted(struct inl_handle *op, void *arg)
{
	struct wanted *wanted = arg;

	return wanted->fn(op, wanted->pblk);
}

/* Damage the bitmaps of group 1, which is left alone then: with checksums, or by counts that do not fit. */
static void damaged_group(const char *mkfs, unsigned bit)
{
	struct plan plan = { .only_one = true };
	struct rig rig;
	uint64_t start, n;
	int err = 0;

	rig_new(&rig, mkfs);
	start = inl_group_start(rig.alloc, 1);
	n = inl_group_n_blocks(rig.alloc, 1);
	plan.rig = &rig;
	uint64_t blocks = ext2fs_block_bitmap_loc(rig.vol->fs, 1) * rig.vol->block_size;
	uint64_t inodes = ext2fs_inode_bitmap_loc(rig.vol->fs, 1) * rig.vol->block_size;
	uint32_t per_group = rig.alloc->inodes_per_group;

	/* Have them initialised. */
	struct tree tree = { .rig = &rig, .parent = per_group + 1, .n = 1, .mode = S_IFREG };
	assert_int_equal(inl_op_run(rig.vol, 8, make_inodes, &tree, NULL), 0);
	assert_int_equal((tree.ino[0] - 1) / per_group, 1);
	struct writer writer = { .goal = start + n / 2, .n = 1 };
	assert_int_equal(inl_op_run(rig.vol, 8, write_piece, &writer, NULL), 0);
	assert_in_range(writer.pblk, start, start + n - 1);
	rig_close(&rig);
	poke(blocks + bit / 8, (uint8_t)(1u << bit % 8));
	poke(inodes + per_group / 16, 0x10);
	rig_open(&rig);

	struct wanted taken = { writer.pblk, free_one }, inode = { tree.ino[0], free_inode };
	assert_int_equal(inl_op_run(rig.vol, 8, do_wanted, &taken, NULL), -EUCLEAN);
	assert_int_equal(inl_op_run(rig.vol, 8, do_wanted, &inode, NULL), -EUCLEAN);
	for (uint64_t i = start; i < start + n; i++)
		rig.blocks[i] = USED;
	for (uint32_t i = per_group + 1; i <= 2 * per_group; i++)
		rig.inodes[i] = USED;
	while (!err) {
		memcpy(rig.saved_blocks, rig.blocks, rig.n_blocks);
		memcpy(rig.saved_inodes, rig.inodes, rig.n_inodes + 1);
		plan.only_one = !plan.only_one;
		err = inl_op_run(rig.vol, 60, fill_some, &plan, NULL);
	}
	assert_int_equal(err, -EUCLEAN);
	rig_close(&rig);
	rig_free(&rig);
}

static void test_damaged(void **state)
{
	needs_tools();
	damaged_group("-t ext4 -b 1024 -N 2000 i.img 24M", 4000);
	damaged_group("-t ext2 -b 1024 -N 2000 i.img 24M", 4000);
	damaged_group("-t ext2 -b 1024 -N 2000 i.img 24M", 0); /* the superblock's copy */
}

static int any_steps(struct inl_handle *op, void *arg)
{
	struct rig *rig = arg;
	uint64_t pblk, got;
	uint32_t ino;
	int err;

	for (unsigned i = 0; i < 6; i++) {
		switch (rng(4)) {
		case 0:
			err = inl_blocks_reserve(op, rng((uint32_t)rig->n_blocks), 1 + rng(100), &pblk, &got);
			if (!err)
				err = inl_blocks_take(op, pblk, got);
			break;
		case 1:
			err = inl_blocks_free(op, rng((uint32_t)rig->n_blocks + 10), 1 + rng(50), rng(2));
			break;
		case 2:
			err = inl_ino_alloc(op, NULL, rng(2) ? S_IFDIR : S_IFREG, &ino);
			break;
		default:
			err = inl_ino_free(op, rng(rig->n_inodes + 10), rng(2));
		}
		if (err)
			return err;
	}
	return 0;
}

/* Whatever descriptors and bitmaps say: nothing is worse than an error. */
static void test_garbage(void **state)
{
	static const char *const kinds[] = { "-t ext2 -b 1024 -g 512 -N 640 i.img 6M",
					     "-t ext4 -b 1024 -g 512 -N 640 i.img 6M" };

	needs_tools();
	for (unsigned i = 0; i < 60; i++) {
		struct inl_diag diag = { 0 };
		struct rig rig;
		uint32_t n = 1 + rng(12);
		char path[PATH_MAX];

		rng_state = i + 100;
		rig_new(&rig, kinds[i % 4 == 3]);
		rig_close(&rig);
		/* Descriptors are in block 2, bitmaps of flex groups behind them. */
		while (n--)
			poke(2048 + rng(rng(2) ? 400 : 12000), (uint8_t)(1 + rng(255)));
		snprintf(path, sizeof(path), "%s/i.img", work_dir);
		assert_int_equal(inl_dev_open(path, INL_OPEN_WRITE, &diag, &rig.dev), 0);
		if (!inl_volume_open(rig.dev, NULL, INL_VOLUME_WRITE, &diag, &rig.vol)) {
			for (unsigned k = 0; k < 60; k++) {
				int err = inl_op_run(rig.vol, 30, any_steps, &rig, NULL);

				assert_true(!err || err == -EUCLEAN || err == -ENOSPC || err == -EIO || err == -E2BIG);
			}
			inl_volume_close(rig.vol);
		}
		inl_dev_close(rig.dev);
		rig_free(&rig);
	}
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

static void test_bits(void **state)
{
	uint8_t bits[64], also[64];

	for (unsigned round = 0; round < 3000; round++) {
		uint32_t n = 1 + rng(512), first = rng(n), len = rng(n - first + 1), n_clear = 0;
		uint32_t density = 1 + rng(60), clear = n, set = n;
		bool all_set = true, all_clear = true, value = rng(2);
		struct inl_bits_view view = { bits, rng(2) ? also : NULL, n };

		memset(bits, 0, sizeof(bits));
		memset(also, 0, sizeof(also));
		for (unsigned i = 0; i < 512; i++) {
			bits[i / 8] |= (uint8_t)(!rng(density) << i % 8);
			also[i / 8] |= (uint8_t)(!rng(density) << i % 8);
		}
		if (rng(2))
			inl_bits_fill(bits, first, len, value);
		for (uint32_t i = n; i-- > 0;) {
			bool bit = inl_bits_test(bits, i), both = bit || (view.also && inl_bits_test(also, i));

			n_clear += !bit;
			if (i >= first && i < first + len) {
				all_set &= bit;
				all_clear &= !bit;
			}
			if (i >= first && both)
				set = i;
			if (i >= first && !both)
				clear = i;
		}
		assert_int_equal(inl_bits_n_clear(bits, n), n_clear);
		assert_int_equal(inl_bits_all(bits, first, len, true), all_set);
		assert_int_equal(inl_bits_all(bits, first, len, false), all_clear);
		assert_int_equal(inl_bits_next_clear(&view, first), clear);
		assert_int_equal(inl_bits_next_set(&view, first), set);
	}
}

/* ---- set up ---------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	return work_dir_make("alloc");
}

static int teardown(void **state)
{
	return work_dir_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits),	 cmocka_unit_test(test_model), cmocka_unit_test(test_full),
		cmocka_unit_test(test_streams),	 cmocka_unit_test(test_spread), cmocka_unit_test(test_alone),
		cmocka_unit_test(test_damaged),	 cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
