/*
 * tests/unit/test_flags.c: flags that programs set: what becomes of them, what they forbid, also to those under way.
 * Not here: which can be set on what, and all that is forbidden, against the kernel (tests/kernel/test_posix.py).
 * Read more: ext4/flags.c.
 */
#include "namei_rig.h"
#include <pthread.h>
#include <stdatomic.h>

#define FL_NODUMP	0x40u
#define FL_JOURNAL_DATA 0x4000u
#define ROUNDS		150u

static uint32_t flags_of(struct inl_inode *inode)
{
	struct inl_stat st;

	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	return st.flags;
}

static void test_kept(void **state)
{
	static const char *const journal[] = { "", "-O ^has_journal" };
	struct inl_inode *file;
	struct inl_stat before, after;
	struct disk disk;

	needs_tools();
	for (unsigned i = 0; i < COUNT(journal); i++) {
		run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 %s a.img", journal[i]);
		disk_open(&disk, "a.img");
		assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
		file = get(disk.vol, "/f");
		assert_int_equal(inl_inode_stat(file, &before, NULL), 0);
		usleep(1000);
		/* The form of the map is not given, and stays. Where there is no journal nobody journals data. */
		assert_int_equal(inl_set_flags(file, FL_NODUMP | FL_JOURNAL_DATA, NULL), 0);
		assert_int_equal(inl_inode_stat(file, &after, NULL), 0);
		assert_int_equal(after.flags, before.flags | FL_NODUMP | (i ? 0 : FL_JOURNAL_DATA));
		assert_true(after.ctime.sec != before.ctime.sec || after.ctime.nsec != before.ctime.nsec);
		assert_true(after.mtime.sec == before.mtime.sec && after.mtime.nsec == before.mtime.nsec);
		assert_int_equal(inl_set_flags(file, EXT4_FL_IMMUTABLE | EXT4_FL_EXTENTS, NULL), 0);
		inl_inode_put(file);
		disk_close(&disk);
		fsck("a.img");
		disk_open_keys(&disk, "a.img", NULL, 0);
		file = get(disk.vol, "/f");
		assert_int_equal(flags_of(file), before.flags | EXT4_FL_IMMUTABLE);
		assert_int_equal(inl_set_flags(file, EXT4_FL_EXTENTS, NULL), -EROFS);
		inl_inode_put(file);
		disk_close(&disk);
	}
}

static void test_refused(void **state)
{
	struct inl_inode *inode;
	struct disk disk;
	size_t done;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/p", S_IFIFO | 0644, 0, 0), 0);
	assert_int_equal(make_symlink(disk.vol, "p", "/l"), 0);
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	inode = get(disk.vol, "/p");
	assert_int_equal(inl_set_flags(inode, FL_NODUMP, NULL), -ENOTTY);
	inl_inode_put(inode);
	inode = get(disk.vol, "/l");
	assert_int_equal(inl_set_flags(inode, FL_NODUMP, NULL), -ENOTTY);
	inl_inode_put(inode);
	inode = get(disk.vol, "/");
	assert_int_equal(inl_set_flags(inode, EXT4_FL_EXTENTS | EXT4_FL_CASEFOLD, NULL), -EOPNOTSUPP);
	inl_inode_put(inode);
	inode = get(disk.vol, "/f");
	assert_int_equal(inl_set_flags(inode, EXT4_FL_EXTENTS | EXT4_FL_HUGE_FILE, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_set_flags(inode, EXT4_FL_EXTENTS | EXT4_FL_CASEFOLD, NULL), -EOPNOTSUPP);
	assert_int_equal(flags_of(inode), EXT4_FL_EXTENTS);
	/* An append-only file is written at its end, and nowhere else. */
	assert_int_equal(inl_write(inode, 0, "0123", 4, &done, NULL), 0);
	assert_int_equal(inl_set_flags(inode, EXT4_FL_EXTENTS | EXT4_FL_APPEND, NULL), 0);
	assert_int_equal(inl_write(inode, 4, "4567", 4, &done, NULL), 0);
	assert_int_equal(inl_write(inode, 4, "4567", 4, &done, NULL), -EPERM);
	assert_int_equal(inl_write(inode, 9, "4567", 4, &done, NULL), -EPERM);
	assert_int_equal(inl_truncate(inode, 8, NULL), -EPERM);
	assert_int_equal(inl_fallocate(inode, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, 0, 4, NULL), -EPERM);
	assert_int_equal(inl_fallocate(inode, INL_FALLOC_KEEP_SIZE, 0, 10000, NULL), 0);
	assert_int_equal(stat_of(disk.vol, "/f").size, 8);
	inl_inode_put(inode);
	disk_close(&disk);
	fsck("a.img");
}

/* What a page cache writes back: its times are its own business, and so is where an append-only file was written. */
static void test_write_back(void **state)
{
	const struct inl_attr then = { .mtime = { 1000000000, 5 }, .ctime = { 1000000001, 6 } };
	struct inl_stat st, again;
	struct inl_inode *file;
	struct disk disk;
	size_t done;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	file = get(disk.vol, "/f");
	assert_int_equal(inl_write(file, 0, "0123", 4, &done, NULL), 0);
	assert_int_equal(inl_set_flags(file, EXT4_FL_EXTENTS | EXT4_FL_APPEND, NULL), 0);
	/* Chosen times are for nobody, those of a change are for the cache. */
	assert_int_equal(inl_setattr(file, &then, INL_ATTR_MTIME | INL_ATTR_CTIME, NULL), -EPERM);
	assert_int_equal(inl_setattr(file, &then, INL_ATTR_MTIME | INL_ATTR_CTIME | INL_ATTR_TOUCH, NULL), 0);
	assert_int_equal(inl_setattr(file, &then, INL_ATTR_MTIME | INL_ATTR_MODE | INL_ATTR_TOUCH, NULL), -EPERM);
	st = stat_of(disk.vol, "/f");
	assert_int_equal(st.mtime.sec, 1000000000);
	assert_int_equal(inl_write_back(file, 0, "01234567", 8, &done, NULL), 0);
	assert_int_equal(done, 8);
	assert_int_equal(inl_write_back(file, 2, "23456789", 8, &done, NULL), 0);
	assert_int_equal(inl_write_back(file, 2, "xx", 2, &done, NULL), -EPERM);
	assert_int_equal(inl_write_back(file, 8, "8x0", 3, &done, NULL), -EPERM);
	assert_int_equal(inl_write_back(file, 3000, "far", 3, &done, NULL), 0);
	again = stat_of(disk.vol, "/f");
	assert_true(again.mtime.sec == st.mtime.sec && again.mtime.nsec == st.mtime.nsec);
	assert_true(again.ctime.sec == st.ctime.sec && again.ctime.nsec == st.ctime.nsec);
	assert_int_equal(again.size, 3003);
	assert_int_equal(inl_set_flags(file, EXT4_FL_EXTENTS | EXT4_FL_IMMUTABLE, NULL), 0);
	assert_int_equal(inl_write_back(file, 0, "y", 1, &done, NULL), -EPERM);
	inl_inode_put(file);
	disk_close(&disk);
	fsck("a.img");
	run("debugfs -R 'cat /f' a.img 2>/dev/null | head -c 8 | grep -qx 01234567");
}

static int cancelled_op(struct inl_handle *op, void *arg)
{
	struct inl_inode *inode = arg;
	int err = inl_inode_modify(op, inode);

	inode->raw.i_flags |= EXT4_FL_IMMUTABLE;
	inode->lasting = inode->raw.i_flags & EXT4_FL_LASTING;
	return err ? err : -ECANCELED;
}

/* An operation that does not stand takes the mark with it. */
static void test_cancelled(void **state)
{
	struct inl_inode *inode;
	struct disk disk;
	size_t done;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	inode = get(disk.vol, "/f");
	assert_int_equal(inl_op_run(disk.vol, 1, cancelled_op, inode, NULL), -ECANCELED);
	assert_int_equal(flags_of(inode), EXT4_FL_EXTENTS);
	assert_int_equal(inl_write(inode, 0, "x", 1, &done, NULL), 0);
	inl_inode_put(inode);
	disk_close(&disk);
	fsck("a.img");
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct busy {
	struct inl_volume *vol;
	struct inl_inode *dir, *file;
	atomic_bool end;
	atomic_uint n_done, n_refused, n_wrong;
};

static void count(struct busy *busy, int err)
{
	if (!err)
		busy->n_done++;
	else if (err == -EPERM)
		busy->n_refused++;
	else
		busy->n_wrong++;
}

static void *write_on(void *arg)
{
	struct busy *busy = arg;
	struct inl_attr attr = { .mode = 0644 };
	static const char bytes[5000];
	size_t done;

	for (unsigned i = 0; !busy->end; i++) {
		switch (i % 4) {
		case 0:
			count(busy, inl_write(busy->file, i % 7 * 3000, bytes, sizeof(bytes), &done, NULL));
			break;
		case 1:
			count(busy, inl_truncate(busy->file, i % 5 * 2000, NULL));
			break;
		case 2:
			count(busy, inl_fallocate(busy->file, INL_FALLOC_KEEP_SIZE, 0, 9000, NULL));
			break;
		default:
			count(busy, inl_setattr(busy->file, &attr, INL_ATTR_MODE, NULL));
		}
	}
	return NULL;
}

static void *rename_on(void *arg)
{
	struct busy *busy = arg;
	struct inl_attr attr = { .mode = S_IFREG | 0644 };

	for (unsigned i = 0; !busy->end; i++) {
		const char *from = i & 1 ? "b" : "a", *to = i & 1 ? "a" : "b";
		int err = inl_rename(busy->dir, from, 1, busy->dir, to, 1, 0, NULL);

		/* It stands where the last one that was not refused has put it. */
		count(busy, err == -ENOENT ? 0 : err);
		err = inl_create(busy->dir, "c", 1, &attr, 0, NULL, NULL);
		count(busy, err == -EEXIST ? 0 : err);
		err = inl_unlink(busy->dir, "c", 1, NULL);
		count(busy, err == -ENOENT ? 0 : err);
	}
	return NULL;
}

static bool same_times(struct inl_inode *inode, const struct inl_stat *was)
{
	struct inl_stat st;

	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	return st.size == was->size && st.ctime.sec == was->ctime.sec && st.ctime.nsec == was->ctime.nsec;
}

/* From the moment that it is marked until it is not, nothing changes, whoever was at it. */
static void test_threads(void **state)
{
	struct busy busy = { 0 };
	pthread_t threads[3];
	struct inl_inode *marked;
	struct inl_stat was;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	busy.vol = disk.vol;
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d/a", S_IFREG | 0644, 0, 0), 0);
	busy.dir = get(disk.vol, "/d");
	busy.file = get(disk.vol, "/d/a");
	pthread_create(&threads[0], NULL, write_on, &busy);
	pthread_create(&threads[1], NULL, write_on, &busy);
	pthread_create(&threads[2], NULL, rename_on, &busy);
	for (unsigned i = 0; i < ROUNDS; i++) {
		marked = i & 1 ? busy.dir : busy.file;
		assert_int_equal(inl_set_flags(marked, EXT4_FL_EXTENTS | EXT4_FL_IMMUTABLE, NULL), 0);
		assert_int_equal(inl_inode_stat(marked, &was, NULL), 0);
		usleep(500);
		assert_true(same_times(marked, &was));
		assert_int_equal(inl_set_flags(marked, EXT4_FL_EXTENTS, NULL), 0);
		usleep(500);
	}
	busy.end = true;
	for (unsigned i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(busy.n_wrong, 0);
	assert_true(busy.n_done && busy.n_refused);
	inl_inode_put(busy.file);
	inl_inode_put(busy.dir);
	disk_close(&disk);
	fsck("a.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_write_back),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
