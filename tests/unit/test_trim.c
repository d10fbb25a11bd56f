/*
 * tests/unit/test_trim.c: free blocks are discarded, and nothing else is, also while others write.
 * Not here: how much of what range, against the kernel (tests/kernel/test_posix.py); crashes (test_crash.c).
 * Read more: ext4/trim.c.
 */
#include "namei_rig.h"
#include <pthread.h>
#include <stdatomic.h>

#define N_FILES 24u
#define MIB	(1u << 20)

/* ---- a file with holes ------------------------------------------------------------------------------------------- */

static struct inl_volume *open_file(const char *name, struct inl_dev **dev)
{
	struct inl_volume *vol = NULL;
	struct inl_diag diag = { 0 };
	int err = inl_dev_open(in_dir(name), INL_OPEN_WRITE, &diag, dev);

	if (!err)
		err = inl_volume_open(*dev, NULL, INL_VOLUME_WRITE, &diag, &vol);
	if (err)
		fail_msg("%s: %s", name, diag.text);
	return vol;
}

static void close_file(struct inl_volume *vol, struct inl_dev *dev)
{
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
}

/* Bytes of the medium that the image takes. */
static uint64_t allocated(const char *name)
{
	struct stat st;

	assert_int_equal(stat(in_dir(name), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(1 + (seed * 31 + i * 7 + (i >> 8)) % 255);
}

static void put_file(struct inl_volume *vol, unsigned number, size_t len)
{
	struct inl_inode *inode;
	uint8_t *buf = test_malloc(len);
	char path[16];
	size_t done;

	snprintf(path, sizeof(path), "/f%u", number);
	assert_int_equal(make(vol, path, S_IFREG | 0644, 0, 0), 0);
	inode = get(vol, path);
	fill(buf, len, number);
	assert_int_equal(inl_write(inode, 0, buf, len, &done, NULL), 0);
	assert_int_equal(done, len);
	inl_inode_put(inode);
	test_free(buf);
}

static void check_file(struct inl_volume *vol, unsigned number, size_t len)
{
	uint8_t *buf = test_malloc(len), *want = test_malloc(len);
	struct inl_inode *inode;
	char path[16];
	size_t got;

	snprintf(path, sizeof(path), "/f%u", number);
	inode = get(vol, path);
	fill(want, len, number);
	assert_int_equal(inl_read(inode, 0, buf, len, &got, NULL), 0);
	assert_int_equal(got, len);
	assert_memory_equal(buf, want, len);
	inl_inode_put(inode);
	test_free(buf);
	test_free(want);
}

static void take_file(struct inl_volume *vol, unsigned number)
{
	char path[16];

	snprintf(path, sizeof(path), "/f%u", number);
	assert_int_equal(take(vol, path, false), 0);
}

static size_t len_of(unsigned number)
{
	return 1000 + number * number * 4099 % (MIB / 2);
}

/* All that is free is a hole in the image afterwards, and what is not is as it was. */
static void trim_image(const char *options)
{
	struct inl_volume_space space;
	uint64_t before, trimmed = 7;
	struct inl_volume *vol;
	struct inl_dev *dev;

	run("rm -f a.img && head -c 32M /dev/urandom > a.img && mke2fs -Fq -t ext4 -E nodiscard %s a.img", options);
	vol = open_file("a.img", &dev);
	for (unsigned i = 0; i < N_FILES; i++)
		put_file(vol, i, len_of(i));
	for (unsigned i = 0; i < N_FILES; i += 2)
		take_file(vol, i);
	before = allocated("a.img");
	assert_int_equal(inl_trim(vol, 0, UINT64_MAX, 0, &trimmed, NULL), 0);
	inl_volume_space(vol, &space);
	assert_int_equal(trimmed, space.n_free_blocks * (32ull * MIB / space.n_blocks));
	/* Holes are whole pages. */
	assert_true(before - allocated("a.img") > trimmed - trimmed / 8);
	assert_true(allocated("a.img") < 32ull * MIB - trimmed + trimmed / 8);
	for (unsigned i = 1; i < N_FILES; i += 2)
		check_file(vol, i, len_of(i));
	/* What was discarded can be had. */
	for (unsigned i = 0; i < N_FILES; i += 2)
		put_file(vol, i, len_of(i));
	for (unsigned i = 0; i < N_FILES; i++)
		check_file(vol, i, len_of(i));
	close_file(vol, dev);
	fsck("a.img");
}

static void test_holes(void **state)
{
	needs_tools();
	trim_image("-b 4096");
	trim_image("-b 1024 -g 2048");
	trim_image("-b 1024 -O ^has_journal,^extents,^64bit,^metadata_csum");
	trim_image("-b 2048 -O uninit_bg,^metadata_csum");
}

static void test_bounds(void **state)
{
	struct inl_volume *vol;
	struct inl_dev *dev;
	uint64_t trimmed = 7;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	vol = open_file("a.img", &dev);
	assert_int_equal(inl_trim(vol, 0, 1023, 0, &trimmed, NULL), -EINVAL);
	assert_int_equal(inl_trim(vol, 16 * MIB, UINT64_MAX, 0, &trimmed, NULL), -EINVAL);
	assert_int_equal(inl_trim(vol, UINT64_MAX, UINT64_MAX, 0, &trimmed, NULL), -EINVAL);
	assert_int_equal(inl_trim(vol, 0, UINT64_MAX, 8193 * 1024, &trimmed, NULL), -EINVAL);
	assert_int_equal(trimmed, 7);
	assert_int_equal(inl_trim(vol, 0, 1024, 0, &trimmed, NULL), 0);
	assert_int_equal(trimmed, 0);
	assert_int_equal(inl_trim(vol, 16 * MIB - 1024, UINT64_MAX - 1024, 0, &trimmed, NULL), 0);
	assert_int_equal(trimmed, 1024);
	close_file(vol, dev);
	disk_open_keys(&disk, "a.img", NULL, 0);
	assert_int_equal(inl_trim(disk.vol, 0, UINT64_MAX, 0, &trimmed, NULL), -EROFS);
	disk_close(&disk);
}

/* ---- a device that takes its time -------------------------------------------------------------------------------- */

struct slow {
	uint8_t *bytes;
	int err; /* of discards */
	atomic_uint n_discards;
};

static void slow_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct slow *slow = inl_dev_priv(dev);
	uint64_t pos = bio->state.pos;

	switch (bio->op) {
	case INL_READ:
		inl_bio_copy_in(bio, 0, slow->bytes + pos, bio->len);
		break;
	case INL_WRITE:
		inl_bio_copy_out(bio, 0, slow->bytes + pos, bio->len);
		break;
	case INL_DISCARD:
		slow->n_discards++;
		usleep(300);
		if (!slow->err)
			memset(slow->bytes + pos, 0xdb, bio->len);
		break;
	default:
		break;
	}
	inl_bio_end(bio, bio->op == INL_DISCARD ? slow->err : 0);
}

static const struct inl_dev_ops slow_ops = { .name = "slow", .submit = slow_submit };

static void slow_open(struct slow *slow, struct disk *disk)
{
	struct inl_dev_params params = { .block_size = 512, .writable = true };
	struct inl_diag diag = { 0 };

	disk_map(disk, "a.img");
	inl_dev_close(disk->dev);
	params.size = disk->size;
	slow->bytes = disk->bytes;
	assert_int_equal(inl_dev_new(&slow_ops, slow, &params, &disk->dev), 0);
	if (inl_volume_open(disk->dev, NULL, INL_VOLUME_WRITE, &diag, &disk->vol))
		fail_msg("%s", diag.text);
}

static void test_device_errors(void **state)
{
	static const int errs[] = { -EOPNOTSUPP, -EIO };
	struct inl_volume_space before, after;
	uint64_t trimmed = 7;

	needs_tools();
	for (unsigned i = 0; i < COUNT(errs); i++) {
		struct slow slow = { .err = errs[i] };
		struct disk disk;

		run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
		slow_open(&slow, &disk);
		inl_volume_space(disk.vol, &before);
		assert_int_equal(inl_trim(disk.vol, 0, UINT64_MAX, 0, &trimmed, NULL), errs[i]);
		assert_int_equal(slow.n_discards, 1);
		assert_int_equal(trimmed, 7);
		/* All of it has been given back, and nothing has happened. */
		inl_volume_space(disk.vol, &after);
		assert_memory_equal(&before, &after, sizeof(after));
		put_file(disk.vol, 1, 3 * MIB);
		check_file(disk.vol, 1, 3 * MIB);
		disk_close(&disk);
		fsck("a.img");
	}
}

/* ---- with others ------------------------------------------------------------------------------------------------- */

struct busy {
	struct inl_volume *vol;
	unsigned number;
	atomic_bool *end;
	unsigned n_rounds;
	int err;
	bool wrong;
};

static void *trim_on(void *arg)
{
	struct busy *busy = arg;
	uint64_t trimmed;

	while (!*busy->end && !busy->err) {
		busy->err = inl_trim(busy->vol, 0, UINT64_MAX, 0, &trimmed, NULL);
		busy->n_rounds++;
	}
	return NULL;
}

/* Files come, are read, and go. */
static void *write_on(void *arg)
{
	struct busy *busy = arg;
	static _Thread_local uint8_t buf[200000], found[200000];
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct inl_inode *root, *inode[4] = { 0 };
	char name[16];
	size_t len[4] = { 0 }, n, name_len;

	busy->err = inl_inode_get(busy->vol, INL_ROOT_INO, NULL, &root);
	for (; !*busy->end && !busy->err && !busy->wrong; busy->n_rounds++) {
		unsigned i = busy->n_rounds % 4;

		name_len = (size_t)snprintf(name, sizeof(name), "w%u-%u", busy->number, i);
		if (inode[i]) {
			fill(buf, len[i], busy->n_rounds - 4 + 1000 * busy->number);
			busy->err = inl_read(inode[i], 0, found, len[i], &n, NULL);
			busy->wrong = n != len[i] || memcmp(buf, found, n);
			inl_inode_put(inode[i]);
			if (!busy->err)
				busy->err = inl_unlink(root, name, name_len, NULL);
		}
		len[i] = 1 + busy->n_rounds * 7919 % sizeof(buf);
		fill(buf, len[i], busy->n_rounds + 1000 * busy->number);
		inode[i] = NULL;
		if (!busy->err)
			busy->err = inl_create(root, name, name_len, &attr, 0, NULL, &inode[i]);
		if (!busy->err)
			busy->err = inl_write(inode[i], 0, buf, len[i], &n, NULL);
		if (!busy->err && n != len[i])
			busy->err = -ENOSPC;
	}
	for (unsigned i = 0; i < 4; i++)
		inl_inode_put(inode[i]);
	inl_inode_put(root);
	return NULL;
}

static void *fsync_on(void *arg)
{
	struct busy *busy = arg;

	while (!*busy->end && !busy->err) {
		busy->err = inl_sync(busy->vol, NULL);
		usleep(700);
	}
	return NULL;
}

/* Two who trim, while files come and go. */
static void test_writers(void **state)
{
	static void *(*const fns[])(void *) = { trim_on, trim_on, write_on, write_on, fsync_on };
	struct busy busy[COUNT(fns)] = { 0 };
	pthread_t threads[COUNT(fns)];
	struct slow slow = { 0 };
	atomic_bool end = false;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 -g 2048 a.img");
	slow_open(&slow, &disk);
	put_file(disk.vol, 1, MIB);
	for (unsigned i = 0; i < COUNT(fns); i++) {
		busy[i] = (struct busy){ .vol = disk.vol, .number = i, .end = &end };
		pthread_create(&threads[i], NULL, fns[i], &busy[i]);
	}
	usleep(800000);
	end = true;
	for (unsigned i = 0; i < COUNT(fns); i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(busy[i].err, 0);
		assert_false(busy[i].wrong);
	}
	assert_true(busy[0].n_rounds && busy[2].n_rounds > 20 && slow.n_discards > 20);
	check_file(disk.vol, 1, MIB);
	disk_close(&disk);
	fsck("a.img");
}

/* Who needs all that is free gets it, whatever of it is being discarded. */
static void test_no_false_alarm(void **state)
{
	struct busy busy = { 0 };
	struct slow slow = { 0 };
	struct inl_volume_space space;
	atomic_bool end = false;
	pthread_t thread;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 4M a.img && mke2fs -Fq -t ext4 -b 1024 -J size=1 a.img");
	slow_open(&slow, &disk);
	inl_volume_space(disk.vol, &space);
	busy = (struct busy){ .vol = disk.vol, .end = &end };
	pthread_create(&thread, NULL, trim_on, &busy);
	for (unsigned i = 0; i < 25; i++) {
		size_t len = (size_t)(space.n_free_blocks - 8) * 1024;

		put_file(disk.vol, i, len);
		check_file(disk.vol, i, len);
		/* Of what can be had, all is free to see, all the time. */
		inl_volume_space(disk.vol, &space);
		assert_in_range(space.n_free_blocks, 1, 8);
		take_file(disk.vol, i);
		inl_volume_space(disk.vol, &space);
	}
	end = true;
	pthread_join(thread, NULL);
	assert_int_equal(busy.err, 0);
	assert_true(busy.n_rounds > 2);
	disk_close(&disk);
	fsck("a.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_holes),	 cmocka_unit_test(test_bounds),	 cmocka_unit_test(test_device_errors),
		cmocka_unit_test(test_writers),	 cmocka_unit_test(test_no_false_alarm),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
