/*
 * tests/unit/test_dirdamage.c: changing directories that are damaged: wrong bitmaps, indexes that are none.
 * Not here: directories that are sound (test_dirmod.c).
 * Read more: ext4/dxmod.c.
 *
 * Each round changes a few bytes of a directory without checksums, or hands out blocks that it has already, and goes on
 * to add, remove, replace and find. What comes of it is an error or not: the sanitizers judge.
 */
#include "namei_rig.h"
#include <dirent.h>

#define N_ROUNDS 60u
#define N_BLOCKS 1200u

static struct disk disk;
static struct inl_inode *dir, *file;
static uint32_t rng_state = 20261128;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(rng_state >> 4) * below >> 28);
}

static uint64_t used_block; /* what a damaged bitmap says is free; 0: none */

int __real_inl_block_alloc(struct inl_handle *op, uint64_t goal, uint64_t *pblk);
int __wrap_inl_block_alloc(struct inl_handle *op, uint64_t goal, uint64_t *pblk);
int __wrap_inl_block_alloc(struct inl_handle *op, uint64_t goal, uint64_t *pblk)
{
	if (!used_block)
		return __real_inl_block_alloc(op, goal, pblk);
	*pblk = used_block;
	return 0;
}

/* ---- a volume with one directory -----------------------------------------------------------------------------------
 */

static void open_volume(void)
{
	disk_open(&disk, "i.img");
	dir = get(disk.vol, "/d");
	file = get(disk.vol, "/f");
}

static void close_volume(void)
{
	inl_inode_put(dir);
	inl_inode_put(file);
	disk_close(&disk);
}

struct change {
	enum { FIND, ADD, REMOVE, REPLACE, DOTS, EMPTY, MARK } what;
	char name[256];
	size_t len;
};

static int change_fn(struct inl_handle *op, void *arg)
{
	struct change *c = arg;
	const uint8_t *name = (const uint8_t *)c->name;
	uint32_t ino;
	int err;

	switch (c->what) {
	case FIND:
		return inl_dir_find(op, dir, name, c->len, &ino, NULL);
	case ADD:
		return inl_dir_add(op, dir, name, c->len, file->ino, DT_REG);
	case REMOVE:
		return inl_dir_remove(op, dir, name, c->len);
	case REPLACE:
		return inl_dir_replace(op, dir, name, c->len, file->ino, DT_REG);
	case DOTS:
		return inl_dir_replace(op, dir, (const uint8_t *)"..", 2, 2, DT_DIR);
	case EMPTY:
		return inl_dir_empty(op, dir);
	case MARK:
		err = inl_inode_modify(op, dir);
		if (!err)
			dir->raw.i_flags ^= EXT4_FL_INDEX;
		return err;
	}
	return -EINVAL;
}

static int change(int what, unsigned i)
{
	struct change c = { .what = what, .len = 200 + i % 56 };

	memset(c.name, 'x', sizeof(c.name));
	c.name[snprintf(c.name, sizeof(c.name), "%u-", i)] = 'x';
	return inl_op_run(disk.vol, inl_dir_credits(dir) + 1, change_fn, &c, NULL);
}

static void make_volume(const char *options, unsigned n)
{
	needs_tools();
	run("rm -rf i.img top && mkdir -p top/d && touch top/f && mke2fs -F -q -t ext4 -b 1024 %s -d top i.img 8M",
	    options);
	open_volume();
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(change(ADD, i), 0);
}

static uint64_t place_of(uint64_t lblk)
{
	struct inl_run map;

	assert_int_equal(inl_map_look(dir, lblk, &map, NULL), 0);
	return map.pblk + (lblk - map.lblk);
}

/* ---- rounds
 * ------------------------------------------------------------------------------------------------------------ */

/* One change of one block: any bytes, small numbers, or a pair of an index in the place of another. */
static void damage(uint8_t *block)
{
	uint32_t at = rng(128) * 8, from = rng(128) * 8;

	switch (rng(5)) {
	case 0:
		block[rng(1024)] = (uint8_t)rng(256);
		break;
	case 1:
		inl_store_le32(block + at + 4 * rng(2), rng(64));
		break;
	case 2:
		inl_store_le16(block + rng(512) * 2, rng(2) ? 0xffff : (uint16_t)rng(1024));
		break;
	case 3:
		memmove(block + at, block + from, 8);
		break;
	default: /* where dots, root and first pairs are */
		inl_store_le32(block + rng(12) * 4, rng(3) ? rng(200) : (uint32_t)rng(1u << 28) << 4);
	}
}

static void one_round(unsigned n_names)
{
	static const int allowed[] = { 0, -ENOENT, -EUCLEAN, -ENOSPC, -EOPNOTSUPP, -E2BIG, -ENOTEMPTY };

	for (unsigned k = 0; k < 60; k++) {
		int err = change(used_block ? ADD : (int)rng(EMPTY + 1), rng(n_names));
		unsigned i = 0;

		while (i < COUNT(allowed) && allowed[i] != err)
			i++;
		assert_true(i < COUNT(allowed));
	}
}

/* Nodes of an index first. */
static unsigned find_blocks(uint64_t *places)
{
	uint64_t n = INL_MIN(dir->size / 1024, N_BLOCKS);
	unsigned found = 0;

	for (unsigned pass = 0; pass < 2; pass++)
		for (uint64_t i = 0; i < n; i++) {
			uint64_t place = place_of(i);
			bool is_node = i == 0 || inl_load_le16(disk.bytes + place * 1024 + 4) == 1024;

			if (is_node == !pass)
				places[found++] = place;
		}
	return found;
}

static void put_back(const uint8_t *good)
{
	disk_map(&disk, "i.img");
	memcpy(disk.bytes, good, disk.size);
}

static void rounds(const char *options, unsigned n_names, unsigned n_first)
{
	uint64_t places[N_BLOCKS];
	uint8_t *good;
	unsigned n;

	make_volume(options, n_names);
	close_volume();
	open_volume();
	n = find_blocks(places);
	close_volume();
	disk_map(&disk, "i.img");
	good = test_malloc(disk.size);
	memcpy(good, disk.bytes, disk.size);
	disk_unmap(&disk);
	for (unsigned i = 0; i < N_ROUNDS; i++) {
		put_back(good);
		used_block = rng(3) ? 0 : places[rng(n_first)];
		for (unsigned k = used_block ? 0 : 1 + rng(4); k; k--)
			damage(disk.bytes + places[rng(3) ? rng(n_first) : rng(n)] * 1024);
		disk_unmap(&disk);
		open_volume();
		one_round(2 * n_names);
		close_volume();
		used_block = 0;
	}
	test_free(good);
}

static void test_rounds(void **state)
{
	rounds("-O ^metadata_csum,^has_journal", 700, 4);
	rounds("-O ^metadata_csum,^has_journal,large_dir", 700, 4);
	rounds("-O ^metadata_csum,^has_journal,^dir_index", 100, 30);
}

/* ---- indexes that are none
 * -------------------------------------------------------------------------------------------- */

/* Blocks have checksums, and no block is a root: nothing is added, and ".." is not replaced, for want of a place for
 * the checksum. */
static void test_marked(void **state)
{
	make_volume("", 3);
	assert_int_equal(change(MARK, 0), 0);
	assert_int_equal(change(FIND, 2), 0);
	assert_int_equal(change(DOTS, 0), -EUCLEAN);
	assert_int_equal(change(ADD, 3), -EUCLEAN);
	assert_int_equal(change(REMOVE, 1), 0);
	assert_int_equal(change(MARK, 0), 0);
	assert_int_equal(change(FIND, 1), -ENOENT);
	assert_int_equal(change(ADD, 1), 0);
	close_volume();
}

/* A hash that nobody knows, and no checksums: as Linux, the index is forgotten when something is added. */
static void test_unknown_hash(void **state)
{
	make_volume("-O ^metadata_csum", 100);
	close_volume();
	open_volume();
	disk.bytes[place_of(0) * 1024 + 28] = 99;
	close_volume();
	open_volume();
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(change(FIND, i), 0);
	assert_int_equal(change(REMOVE, 7), 0);
	assert_true(dir->raw.i_flags & EXT4_FL_INDEX);
	assert_int_equal(change(ADD, 100), 0);
	assert_false(dir->raw.i_flags & EXT4_FL_INDEX);
	for (unsigned i = 0; i <= 100; i++)
		assert_int_equal(change(FIND, i), i == 7 ? -ENOENT : 0);
	for (unsigned i = 0; i <= 100; i++)
		assert_int_equal(change(REMOVE, i), i == 7 ? -ENOENT : 0);
	close_volume();
	fsck("i.img");
}

/* What cannot be added to the index that there is leaves it: a block of it that is handed out again is no reason to
 * forget it. */
static void test_used_block(void **state)
{
	unsigned n = 400;
	int err = 0;

	make_volume("-O ^metadata_csum", n);
	used_block = place_of(0);
	while (!err)
		err = change(ADD, n++);
	assert_int_equal(err, -EUCLEAN);
	assert_true(dir->raw.i_flags & EXT4_FL_INDEX);
	used_block = 0;
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(change(i + 1 < n ? REMOVE : FIND, i), i + 1 < n ? 0 : -ENOENT);
	close_volume();
	fsck("i.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_marked),
		cmocka_unit_test(test_unknown_hash),
		cmocka_unit_test(test_used_block),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
