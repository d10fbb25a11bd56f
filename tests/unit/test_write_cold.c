/*
 * tests/unit/test_write_cold.c: changes of a file whose block map has to be read on the way: an operation that lacks a block
 * is done again, and must then do all of its work.
 * Not here: the map itself (test_extents.c).
 * Read more: ext4/change.h.
 */
#include <errno.h>
#include <inlay/volume.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCK	 1024u
#define N_BLOCKS 900u /* every second one is there: 450 extents, six leaves of 84 */

static char image[64];

struct scene {
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct inl_inode *file;
};

static void reopen(struct scene *s, const char *name)
{
	uint64_t ino;
	struct inl_inode *root;

	assert_int_equal(inl_dev_open(image, INL_OPEN_WRITE, NULL, &s->dev), 0);
	assert_int_equal(inl_volume_open(s->dev, NULL, INL_VOLUME_WRITE, NULL, &s->vol), 0);
	assert_int_equal(inl_inode_get(s->vol, INL_ROOT_INO, NULL, &root), 0);
	assert_int_equal(inl_lookup(root, name, strlen(name), &ino, NULL), 0);
	inl_inode_put(root);
	assert_int_equal(inl_inode_get(s->vol, ino, NULL, &s->file), 0);
}

static void close_all(struct scene *s)
{
	inl_inode_put(s->file);
	assert_int_equal(inl_volume_close(s->vol), 0);
	inl_dev_close(s->dev);
}

/* A file of many extents, on a volume whose cache is then cold but for the leaf at `warm`. */
static void make(struct scene *s, const char *options, uint64_t warm)
{
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct inl_inode *root;
	uint8_t bytes[BLOCK];
	char command[256];
	size_t done;

	snprintf(command, sizeof(command), "rm -f %s && truncate -s 16M %s && mke2fs -q -F -t ext4 -b 1024 %s %s", image, image,
		 options, image);
	assert_int_equal(system(command), 0);
	assert_int_equal(inl_dev_open(image, INL_OPEN_WRITE, NULL, &s->dev), 0);
	assert_int_equal(inl_volume_open(s->dev, NULL, INL_VOLUME_WRITE, NULL, &s->vol), 0);
	assert_int_equal(inl_inode_get(s->vol, INL_ROOT_INO, NULL, &root), 0);
	assert_int_equal(inl_create(root, "f", 1, &attr, 0, NULL, &s->file), 0);
	inl_inode_put(root);
	memset(bytes, 'x', sizeof(bytes));
	for (unsigned i = 0; i < N_BLOCKS; i += 2)
		assert_int_equal(inl_write(s->file, (uint64_t)i * BLOCK, bytes, BLOCK, &done, NULL), 0);
	close_all(s);
	reopen(s, "f");
	assert_int_equal(inl_read(s->file, warm * BLOCK, bytes, BLOCK, &done, NULL), 0);
}

static unsigned count(struct scene *s, enum inl_extent_kind kind)
{
	struct inl_extent extent;
	unsigned n = 0;

	for (uint64_t at = 0; !inl_inode_extent(s->file, at, &extent, NULL); at += extent.len)
		n += extent.kind == kind ? (unsigned)(extent.len / BLOCK) : 0;
	return n;
}

static void finish(struct scene *s)
{
	char command[128];

	close_all(s);
	snprintf(command, sizeof(command), "e2fsck -fn %s >/dev/null 2>&1", image);
	assert_int_equal(system(command), 0);
	unlink(image);
}

static void test_punch(void **state)
{
	for (unsigned extents = 0; extents < 2; extents++) {
		struct scene s;

		make(&s, extents ? "" : "-O ^extents,^64bit", N_BLOCKS - 2);
		assert_int_equal(inl_fallocate(s.file, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, 0, N_BLOCKS * BLOCK, NULL), 0);
		assert_int_equal(count(&s, INL_EXTENT_DATA), 0);
		finish(&s);
	}
}

static void test_allocate(void **state)
{
	struct scene s;

	make(&s, "", 0);
	assert_int_equal(inl_fallocate(s.file, INL_FALLOC_KEEP_SIZE, 0, (N_BLOCKS - 1) * BLOCK, NULL), 0);
	assert_int_equal(count(&s, INL_EXTENT_HOLE), 0);
	assert_int_equal(count(&s, INL_EXTENT_DATA), N_BLOCKS / 2);
	finish(&s);
}

static void test_zero_range(void **state)
{
	struct scene s;

	make(&s, "", 400);
	assert_int_equal(inl_fallocate(s.file, INL_FALLOC_ZERO_RANGE, 0, (N_BLOCKS - 1) * BLOCK, NULL), 0);
	assert_int_equal(count(&s, INL_EXTENT_UNWRITTEN), N_BLOCKS - 1);
	finish(&s);
}

static void test_truncate(void **state)
{
	struct scene s;

	make(&s, "", N_BLOCKS - 2);
	assert_int_equal(inl_truncate(s.file, 2 * BLOCK, NULL), 0);
	assert_int_equal(inl_truncate(s.file, N_BLOCKS * BLOCK, NULL), 0);
	assert_int_equal(count(&s, INL_EXTENT_DATA), 1);
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_punch), cmocka_unit_test(test_allocate),
					    cmocka_unit_test(test_zero_range), cmocka_unit_test(test_truncate) };

	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	snprintf(image, sizeof(image), "%s/inlay-cold-%d", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
