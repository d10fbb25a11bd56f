/*
 * tests/unit/test_write_full.c: volumes on which k blocks, or k inodes, are free: each change succeeds, or fails whole.
 * Not here: errors of the device (test_write_faults.c).
 * Read more: inlay/volume.h, "changing".
 */
#include "namei_rig.h"

#define MAX_FREE 40u
#define N_LINKS	 12u

/* ---- volumes ----------------------------------------------------------------------------------------------------- */

static struct inl_volume_space space_of(struct inl_volume *vol)
{
	struct inl_volume_space space;

	inl_volume_space(vol, &space);
	return space;
}

static int write_at(struct inl_volume *vol, const char *path, uint64_t at, size_t len, size_t *done)
{
	struct inl_inode *inode = get(vol, path);
	char *buf = test_malloc(len);
	int err;

	*done = 0;
	memset(buf, 'y', len);
	err = inl_write(inode, at, buf, len, done, NULL);
	test_free(buf);
	inl_inode_put(inode);
	return err;
}

/* Block by block, until so many are free. False: it went from more to less in one step. */
static bool fill_to(struct inl_volume *vol, uint64_t n_free)
{
	struct inl_inode *inode = get(vol, "/filler");
	struct inl_stat st;
	char block[1024];
	size_t done;

	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	memset(block, 'z', sizeof(block));
	while (space_of(vol).n_free_blocks > n_free) {
		assert_int_equal(inl_write(inode, st.size, block, sizeof(block), &done, NULL), 0);
		assert_int_equal(done, sizeof(block));
		st.size += done;
	}
	inl_inode_put(inode);
	return space_of(vol).n_free_blocks == n_free;
}

/* full.img: everything that the changes need, and MAX_FREE blocks or a little less. */
static void make_full(const char *options)
{
	char path[200];
	struct disk disk;
	size_t done;

	run("rm -f full.img && truncate -s 3M full.img && mke2fs -Fq -m 0 -b 1024 -J size=1 %s full.img", options);
	disk_open(&disk, "full.img");
	assert_int_equal(make(disk.vol, "/filler", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/empty", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/sparse", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/whole", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	put_data(disk.vol, "/whole", 30000);
	/* More extents than an inode holds, so that the next ones need a block. */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(write_at(disk.vol, "/sparse", 20480 * i, 1024, &done), 0);
	/* Directories of one block and of many, each without room for another long name. */
	for (unsigned i = 0; i < N_LINKS; i++) {
		snprintf(path, sizeof(path), "/d/%0150u", i);
		assert_int_equal(make_link(disk.vol, "/empty", path), 0);
	}
	assert_true(space_of(disk.vol).n_free_blocks > MAX_FREE);
	fill_to(disk.vol, MAX_FREE + 4);
	disk_close(&disk);
	fsck("full.img");
}

/* ---- changes: 0 or an error -------------------------------------------------------------------------------------- */

static int op_create(struct inl_volume *vol)
{
	return make(vol, "/new", S_IFREG, 0, 0);
}

static int op_mkdir(struct inl_volume *vol)
{
	return make(vol, "/d/new", S_IFDIR | 0755, 0, 0);
}

static int op_symlink(struct inl_volume *vol)
{
	char target[300] = { 0 };

	memset(target, 't', sizeof(target) - 1);
	return make_symlink(vol, target, "/d/symlink");
}

static int op_link(struct inl_volume *vol)
{
	char path[300];

	snprintf(path, sizeof(path), "/d/%0250u", 1u);
	return make_link(vol, "/whole", path);
}

static int op_rename(struct inl_volume *vol)
{
	char path[300];

	snprintf(path, sizeof(path), "/d/%0250u", 2u);
	return move(vol, "/whole", path, 0);
}

static int op_write_one(struct inl_volume *vol)
{
	size_t done;
	int err = write_at(vol, "/empty", 0, 1000, &done);

	assert_true(err ? !done : done == 1000);
	return err;
}

/* May be short. */
static int op_write_many(struct inl_volume *vol)
{
	uint64_t before = space_of(vol).n_free_blocks;
	size_t done;
	int err = write_at(vol, "/empty", 0, 50 * 1024, &done);

	assert_true(err ? !done : done > 0);
	assert_int_equal(stat_of(vol, "/empty").size, done);
	assert_int_equal(stat_of(vol, "/empty").blocks / 2, before - space_of(vol).n_free_blocks);
	return err;
}

static int op_write_hole(struct inl_volume *vol)
{
	size_t done;

	return write_at(vol, "/sparse", 20480 * 2 + 5000, 10, &done);
}

static int op_punch(struct inl_volume *vol)
{
	struct inl_inode *inode = get(vol, "/whole");
	int err = inl_fallocate(inode, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, 2048, 1024, NULL);

	inl_inode_put(inode);
	return err;
}

static int op_fallocate(struct inl_volume *vol)
{
	struct inl_inode *inode = get(vol, "/sparse");
	int err = inl_fallocate(inode, INL_FALLOC_KEEP_SIZE, 21504, 1024, NULL);

	inl_inode_put(inode);
	return err;
}

static int op_zero_range(struct inl_volume *vol)
{
	struct inl_inode *inode = get(vol, "/whole");
	int err = inl_fallocate(inode, INL_FALLOC_ZERO_RANGE, 4096, 2048, NULL);

	inl_inode_put(inode);
	return err;
}

static int op_xattr(struct inl_volume *vol)
{
	struct inl_inode *inode = get(vol, "/whole");
	char value[600];
	int err;

	memset(value, 'v', sizeof(value));
	err = inl_xattr_set(inode, "user.large", value, sizeof(value), 0, NULL);
	inl_inode_put(inode);
	return err;
}

static int op_truncate(struct inl_volume *vol)
{
	struct inl_inode *inode = get(vol, "/whole");
	int err = inl_truncate(inode, 100, NULL);

	inl_inode_put(inode);
	return err;
}

static int op_unlink(struct inl_volume *vol)
{
	return take(vol, "/whole", false);
}

static const struct change {
	const char *name;
	int (*fn)(struct inl_volume *vol);
	unsigned needs; /* blocks that are certainly enough */
	bool whole;	/* a failure leaves the free blocks as they were */
} changes[] = {
	{ "create", op_create, 3, true },	    { "mkdir", op_mkdir, 5, true },
	{ "symlink", op_symlink, 5, true },	    { "link", op_link, 4, true },
	{ "rename", op_rename, 4, true },	    { "write one", op_write_one, 1, true },
	{ "write many", op_write_many, 1, true },   { "write into a hole", op_write_hole, 3, true },
	{ "punch", op_punch, 2, true },		    { "fallocate", op_fallocate, 3, true },
	{ "zero range", op_zero_range, 4, false },  { "xattr", op_xattr, 1, true },
	{ "truncate", op_truncate, 0, true },	    { "unlink", op_unlink, 0, true },
};

/* ---- running them ------------------------------------------------------------------------------------------------ */

static uint8_t *pristine;
static size_t pristine_size;

static void load_pristine(const char *name)
{
	struct disk disk;

	disk_map(&disk, name);
	pristine_size = disk.size;
	pristine = realloc(pristine, disk.size);
	assert_non_null(pristine);
	memcpy(pristine, disk.bytes, disk.size);
	disk_unmap(&disk);
	run("cp %s a.img", name);
}

static void open_copy(struct disk *disk)
{
	struct inl_diag diag = { 0 };

	disk_map(disk, "a.img");
	assert_int_equal(disk->size, pristine_size);
	memcpy(disk->bytes, pristine, pristine_size);
	assert_int_equal(inl_volume_open(disk->dev, NULL, INL_VOLUME_WRITE, &diag, &disk->vol), 0);
}

static void check_same_space(const struct change *change, struct inl_volume_space a, struct inl_volume_space b)
{
	assert_int_equal(a.n_free_inodes, b.n_free_inodes);
	if (change->whole)
		assert_int_equal(a.n_free_blocks, b.n_free_blocks);
}

static unsigned n_checks, n_refused;

/* With so many free: it is done, or nothing is; and after something was removed it can be. */
static void change_with(const struct change *change, struct disk *disk, uint64_t n_free)
{
	struct inl_volume_space before = space_of(disk->vol), after;
	struct inl_stat root = stat_of(disk->vol, "/"), dir = stat_of(disk->vol, "/d");
	int err = change->fn(disk->vol);

	after = space_of(disk->vol);
	if (!err)
		return;
	n_refused++;
	if (err != -ENOSPC || n_free >= change->needs)
		print_error("%s with %u free: %s\n", change->name, (unsigned)n_free, strerror(-err));
	assert_int_equal(err, -ENOSPC);
	assert_true(n_free < change->needs);
	check_same_space(change, before, after);
	assert_int_equal(stat_of(disk->vol, "/").nlink, root.nlink);
	assert_int_equal(stat_of(disk->vol, "/d").nlink, dir.nlink);
	assert_int_equal(stat_of(disk->vol, "/d").size, dir.size);
	assert_int_equal(stat_of(disk->vol, "/d").blocks, dir.blocks);
	/* What this frees is in the transaction that runs. */
	assert_int_equal(take(disk->vol, "/filler", false), 0);
	assert_int_equal(change->fn(disk->vol), 0);
}

static void run_full(const char *options)
{
	needs_tools();
	make_full(options);
	for (unsigned k = 0; k <= MAX_FREE; k += k < 8 ? 1 : 8) {
		struct disk disk;
		bool exact;

		load_pristine("full.img");
		open_copy(&disk);
		exact = fill_to(disk.vol, k);
		disk_close(&disk);
		if (!exact)
			continue;
		run("cp a.img k.img");
		load_pristine("k.img");
		for (unsigned i = 0; i < COUNT(changes); i++) {
			if (changes[i].fn == op_fallocate && strstr(options, "ext3"))
				continue;
			if (changes[i].fn == op_zero_range && strstr(options, "ext3"))
				continue;
			open_copy(&disk);
			assert_int_equal(space_of(disk.vol).n_free_blocks, k);
			change_with(&changes[i], &disk, k);
			disk_close(&disk);
			fsck("a.img");
			n_checks++;
		}
	}
	assert_true(n_refused > 8);
}

static void test_ext4(void **state)
{
	run_full("-t ext4");
}

static void test_ext3(void **state)
{
	run_full("-t ext3 -I 128");
}

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

static void test_inodes(void **state)
{
	struct disk disk;

	needs_tools();
	for (unsigned k = 0; k < 5; k++) {
		struct inl_volume_space before, after;
		char path[32];
		unsigned n = 0;
		int err;

		run("rm -f a.img && truncate -s 3M a.img && mke2fs -Fq -t ext4 -b 1024 -J size=1 -N 32 a.img");
		disk_open(&disk, "a.img");
		while (space_of(disk.vol).n_free_inodes > k) {
			snprintf(path, sizeof(path), "/f%u", n++);
			assert_int_equal(make(disk.vol, path, S_IFREG, 0, 0), 0);
		}
		for (unsigned i = 0; i < 6; i++) {
			before = space_of(disk.vol);
			snprintf(path, sizeof(path), "/n%u", i);
			if (i % 3 == 0)
				err = make(disk.vol, path, S_IFDIR | 0755, 0, 0);
			else if (i % 3 == 1)
				err = make_symlink(disk.vol, "short", path);
			else
				err = make(disk.vol, path, S_IFIFO, 0, 0);
			after = space_of(disk.vol);
			assert_int_equal(err, i < k ? 0 : -ENOSPC);
			assert_int_equal(after.n_free_inodes, i < k ? k - i - 1 : 0);
			if (err)
				assert_int_equal(after.n_free_blocks, before.n_free_blocks);
		}
		assert_int_equal(take(disk.vol, "/f0", false), 0);
		assert_int_equal(make(disk.vol, "/again", S_IFDIR | 0755, 0, 0), 0);
		disk_close(&disk);
		fsck("a.img");
	}
}

/* Filled to the last block, emptied, and filled again, with no sync between. */
static void test_again(void **state)
{
	uint64_t n_free, len[3];
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 6M a.img && mke2fs -Fq -t ext4 -m 0 -b 1024 -J size=1 a.img");
	disk_open(&disk, "a.img");
	n_free = space_of(disk.vol).n_free_blocks;
	for (unsigned round = 0; round < 3; round++) {
		size_t done;

		assert_int_equal(make(disk.vol, "/f", S_IFREG, 0, 0), 0);
		len[round] = 0;
		while (!write_at(disk.vol, "/f", len[round], 100000, &done))
			len[round] += done;
		assert_int_equal(space_of(disk.vol).n_free_blocks, 0);
		assert_int_equal(len[round], len[0]);
		assert_int_equal(take(disk.vol, "/f", false), 0);
		assert_int_equal(space_of(disk.vol).n_free_blocks, n_free);
	}
	disk_close(&disk);
	fsck("a.img");
}

static int full_teardown(void **state)
{
	free(pristine);
	if (n_checks)
		print_message("%u changes, %u of them refused\n", n_checks, n_refused);
	return teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ext4),
		cmocka_unit_test(test_ext3),
		cmocka_unit_test(test_inodes),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests(tests, setup, full_teardown);
}
