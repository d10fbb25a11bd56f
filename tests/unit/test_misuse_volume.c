/*
 * tests/unit/test_misuse_volume.c: callers of inlay/volume.h that do what they must not: the error that they are told, and
 * nothing happens.
 * Not here: what goes wrong without their doing (test_write_faults.c, test_write_full.c); names (test_namei.c).
 * Read more: inlay/volume.h.
 */
#include <errno.h>
#include <fcntl.h>
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

static char image[64];

static void mkfs(const char *options)
{
	char command[300];

	snprintf(command, sizeof(command), "truncate -s 0 %s && truncate -s 8M %s && mke2fs -q -F -t ext4 %s %s", image, image, options,
		 image);
	assert_int_equal(system(command), 0);
}

static int open_as(unsigned dev_flags, unsigned flags, struct inl_dev **dev, struct inl_volume **vol)
{
	int err = inl_dev_open(image, dev_flags, NULL, dev);

	if (err)
		return err;
	err = inl_volume_open(*dev, NULL, flags, NULL, vol);
	if (err)
		inl_dev_close(*dev);
	return err;
}

/* ---- the open ---------------------------------------------------------------------------------------------------- */

static void set_byte(long at, uint8_t bits)
{
	FILE *f = fopen(image, "r+b");
	int c;

	assert_non_null(f);
	fseek(f, at, SEEK_SET);
	c = fgetc(f);
	fseek(f, at, SEEK_SET);
	fputc(c | bits, f);
	fclose(f);
}

static void refused(unsigned dev_flags, unsigned flags, int wanted)
{
	struct inl_volume *vol;
	struct inl_dev *dev;
	char before[64], after[64], command[128];

	snprintf(command, sizeof(command), "md5sum < %s", image);
	for (unsigned i = 0; i < 2; i++) {
		FILE *f = popen(command, "r");

		assert_non_null(fgets(i ? after : before, sizeof(before), f));
		pclose(f);
		if (!i)
			assert_int_equal(open_as(dev_flags, flags, &dev, &vol), wanted);
	}
	assert_string_equal(before, after);
}

static void test_open(void **state)
{
	mkfs("-O encrypt");
	refused(0, INL_VOLUME_WRITE, -EROFS);
	refused(INL_OPEN_WRITE, INL_VOLUME_WRITE | INL_VOLUME_DAMAGED, -EINVAL);
	mkfs("-O ^metadata_csum");
	set_byte(1024 + 0x3a, 2); /* marked as having errors */
	refused(INL_OPEN_WRITE, INL_VOLUME_WRITE, -EROFS);
	mkfs("-O ^has_journal");
	{
		struct inl_volume *vol;
		struct inl_dev *dev;

		assert_int_equal(open_as(INL_OPEN_WRITE, INL_VOLUME_WRITE, &dev, &vol), 0);
		/* A second one, while the first is open: the lock of the file. */
		assert_int_equal(open_as(INL_OPEN_WRITE, INL_VOLUME_WRITE, &dev, &vol), -EBUSY);
		assert_int_equal(inl_volume_close(vol), 0);
		inl_dev_close(dev);
	}
}

static void test_no_journal_not_clean(void **state)
{
	char command[200];

	mkfs("-O ^has_journal,^metadata_csum");
	snprintf(command, sizeof(command), "debugfs -w -R 'ssv state 0' %s >/dev/null 2>&1", image);
	assert_int_equal(system(command), 0);
	refused(INL_OPEN_WRITE, INL_VOLUME_WRITE, -EROFS);
}

static void test_feature(void **state)
{
	mkfs("-O inline_data");
	refused(INL_OPEN_WRITE, INL_VOLUME_WRITE, -EROFS);
	mkfs("-O bigalloc -C 16384");
	refused(INL_OPEN_WRITE, INL_VOLUME_WRITE, -EROFS);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* What the calls are made with. */
struct scene {
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct inl_inode *root, *file, *link;
};

static const struct inl_attr attr = { .mode = S_IFREG | 0644 };

static void scene_open(struct scene *scene, bool write)
{
	struct inl_attr dir = { .mode = S_IFDIR | 0755 };
	uint64_t ino;

	mkfs("-b 1024");
	assert_int_equal(open_as(INL_OPEN_WRITE, INL_VOLUME_WRITE, &scene->dev, &scene->vol), 0);
	assert_int_equal(inl_inode_get(scene->vol, INL_ROOT_INO, NULL, &scene->root), 0);
	assert_int_equal(inl_create(scene->root, "f", 1, &attr, 0, NULL, &scene->file), 0);
	assert_int_equal(inl_create(scene->root, "d", 1, &dir, 0, NULL, NULL), 0);
	assert_int_equal(inl_symlink(scene->root, "l", 1, "f", 1, &attr, 0, NULL, &scene->link), 0);
	if (write)
		return;
	inl_inode_put(scene->root);
	inl_inode_put(scene->file);
	inl_inode_put(scene->link);
	assert_int_equal(inl_volume_close(scene->vol), 0);
	inl_dev_close(scene->dev);
	assert_int_equal(open_as(0, 0, &scene->dev, &scene->vol), 0);
	assert_int_equal(inl_inode_get(scene->vol, INL_ROOT_INO, NULL, &scene->root), 0);
	assert_int_equal(inl_lookup(scene->root, "f", 1, &ino, NULL), 0);
	assert_int_equal(inl_inode_get(scene->vol, ino, NULL, &scene->file), 0);
	assert_int_equal(inl_lookup(scene->root, "l", 1, &ino, NULL), 0);
	assert_int_equal(inl_inode_get(scene->vol, ino, NULL, &scene->link), 0);
}

static void scene_close(struct scene *scene)
{
	char command[128];

	inl_inode_put(scene->root);
	inl_inode_put(scene->file);
	inl_inode_put(scene->link);
	assert_int_equal(inl_volume_close(scene->vol), 0);
	inl_dev_close(scene->dev);
	snprintf(command, sizeof(command), "e2fsck -fn %s >/dev/null 2>&1", image);
	assert_int_equal(system(command), 0);
}

static void test_read_only(void **state)
{
	struct scene s;
	size_t done;

	scene_open(&s, false);
	assert_int_equal(inl_create(s.root, "x", 1, &attr, 0, NULL, NULL), -EROFS);
	assert_int_equal(inl_symlink(s.root, "x", 1, "y", 1, &attr, 0, NULL, NULL), -EROFS);
	assert_int_equal(inl_link(s.file, s.root, "x", 1, NULL), -EROFS);
	assert_int_equal(inl_unlink(s.root, "f", 1, NULL), -EROFS);
	assert_int_equal(inl_rmdir(s.root, "d", 1, NULL), -EROFS);
	assert_int_equal(inl_rename(s.root, "f", 1, s.root, "g", 1, 0, NULL), -EROFS);
	assert_int_equal(inl_setattr(s.file, &attr, INL_ATTR_MODE, NULL), -EROFS);
	assert_int_equal(inl_write(s.file, 0, "x", 1, &done, NULL), -EROFS);
	assert_int_equal(inl_truncate(s.file, 1, NULL), -EROFS);
	assert_int_equal(inl_fallocate(s.file, 0, 0, 1, NULL), -EROFS);
	assert_int_equal(inl_xattr_set(s.file, "user.x", "y", 1, 0, NULL), -EROFS);
	assert_int_equal(inl_fsync(s.file, NULL), -EROFS);
	assert_int_equal(inl_sync(s.vol, NULL), -EROFS);
	scene_close(&s);
}

static void test_names(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		int err;
	} rows[] = { { "", 0, -EINVAL }, { "a/b", 3, -EINVAL }, { "a\0b", 3, -EINVAL } };
	char longest[300];
	struct scene s;

	memset(longest, 'n', sizeof(longest));
	scene_open(&s, true);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(inl_create(s.root, rows[i].name, rows[i].len, &attr, 0, NULL, NULL), rows[i].err);
		assert_int_equal(inl_link(s.file, s.root, rows[i].name, rows[i].len, NULL), rows[i].err);
	}
	assert_int_equal(inl_create(s.root, longest, 256, &attr, 0, NULL, NULL), -ENAMETOOLONG);
	assert_int_equal(inl_create(s.root, "f", 1, &attr, 0, NULL, NULL), -EEXIST);
	assert_int_equal(inl_create(s.file, "x", 1, &attr, 0, NULL, NULL), -ENOTDIR);
	assert_int_equal(inl_unlink(s.root, "nothing", 7, NULL), -ENOENT);
	assert_int_equal(inl_unlink(s.root, "d", 1, NULL), -EISDIR);
	assert_int_equal(inl_rmdir(s.root, "f", 1, NULL), -ENOTDIR);
	assert_int_equal(inl_link(s.root, s.root, "x", 1, NULL), -EPERM);
	assert_int_equal(inl_rename(s.root, "f", 1, s.root, "d", 1, 0, NULL), -EISDIR);
	assert_int_equal(inl_rename(s.root, "f", 1, s.root, "l", 1, INL_RENAME_NOREPLACE, NULL), -EEXIST);
	assert_int_equal(inl_rename(s.root, "f", 1, s.root, "x", 1, 64, NULL), -EINVAL);
	assert_int_equal(inl_rename(s.root, "f", 1, s.root, "x", 1, INL_RENAME_EXCHANGE | INL_RENAME_WHITEOUT, NULL), -EINVAL);
	assert_int_equal(inl_symlink(s.root, "x", 1, "", 0, &attr, 0, NULL, NULL), -ENOENT);
	scene_close(&s);
}

static void test_contents(void **state)
{
	static uint8_t bytes[16];
	struct scene s;
	size_t done = 7, len;

	scene_open(&s, true);
	assert_int_equal(inl_write(s.root, 0, "x", 1, &done, NULL), -EISDIR);
	assert_int_equal(inl_write(s.link, 0, "x", 1, &done, NULL), -EINVAL);
	assert_int_equal(done, 7);
	assert_int_equal(inl_write(s.file, 0, "x", 0, &done, NULL), 0);
	assert_int_equal(done, 0);
	assert_int_equal(inl_write(s.file, UINT64_MAX - 4, bytes, sizeof(bytes), &done, NULL), -EFBIG);
	assert_int_equal(inl_truncate(s.root, 0, NULL), -EISDIR);
	assert_int_equal(inl_truncate(s.file, UINT64_MAX, NULL), -EFBIG);
	assert_int_equal(inl_fallocate(s.file, 0, 0, 0, NULL), -EINVAL);
	assert_int_equal(inl_fallocate(s.file, 0, UINT64_MAX - 1, 4, NULL), -EFBIG);
	assert_int_equal(inl_fallocate(s.file, INL_FALLOC_PUNCH_HOLE, 0, 1, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_fallocate(s.file, 4, 0, 1, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_xattr_get(s.file, "user.x", NULL, 0, &len, NULL), -ENODATA);
	assert_int_equal(inl_xattr_get(s.file, "nothing", NULL, 0, &len, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_xattr_set(s.file, "nothing", "y", 1, 0, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_xattr_set(s.link, "user.x", "y", 1, 0, NULL), -EPERM);
	assert_int_equal(inl_xattr_set(s.file, "user.x", "y", 1, INL_XATTR_REPLACE, NULL), -ENODATA);
	assert_int_equal(inl_xattr_set(s.file, "user.x", "y", 1, 64, NULL), -EINVAL);
	scene_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_journal_not_clean), cmocka_unit_test(test_feature), cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_names),		     cmocka_unit_test(test_contents), cmocka_unit_test(test_open),
	};
	char dir[] = "/tmp/inlay-misuse-XXXXXX";
	int failed;

	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (!mkdtemp(dir))
		return 1;
	snprintf(image, sizeof(image), "%s/image", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(image);
	rmdir(dir);
	return failed;
}
