/*
 * tests/unit/namei_rig.h: what test_namei, test_attr and test_orphan share: images, commands, and operations by path.
 * Not here: the tests.
 * Read more: test_namei.c.
 */
#ifndef TESTS_UNIT_NAMEI_RIG_H
#define TESTS_UNIT_NAMEI_RIG_H

#include "ext4/change.h"
#include "work_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inlay/driver.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- an image as a device, with a look at every flush ------------------------------------------------------------ */

struct disk {
	uint8_t *bytes;
	size_t size;
	struct inl_dev *dev;
	struct inl_volume *vol;
	void (*flushed)(struct disk *disk);
};

static inline void disk_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct disk *disk = inl_dev_priv(dev);
	uint64_t pos = bio->state.pos;

	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, disk->bytes + pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, disk->bytes + pos, bio->len);
	else if (bio->op != INL_FLUSH)
		memset(disk->bytes + pos, 0, bio->len);
	else if (disk->flushed)
		disk->flushed(disk);
	inl_bio_end(bio, 0);
}

static const struct inl_dev_ops disk_ops = { .name = "disk", .submit = disk_submit };

static inline void disk_map(struct disk *disk, const char *name)
{
	struct inl_dev_params params = { .block_size = 512, .writable = true };
	struct stat st;
	int fd = open(in_dir(name), O_RDWR);

	memset(disk, 0, sizeof(*disk));
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	params.size = disk->size = (size_t)st.st_size;
	disk->bytes = mmap(NULL, disk->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(disk->bytes, MAP_FAILED);
	close(fd);
	assert_int_equal(inl_dev_new(&disk_ops, disk, &params, &disk->dev), 0);
}

static inline void disk_unmap(struct disk *disk)
{
	inl_dev_close(disk->dev);
	munmap(disk->bytes, disk->size);
}

static inline void disk_open_keys(struct disk *disk, const char *name, struct inl_keyring *keys, unsigned flags)
{
	struct inl_diag diag = { 0 };

	disk_map(disk, name);
	if (inl_volume_open(disk->dev, keys, flags, &diag, &disk->vol)) {
		print_error("%s: %s\n", name, diag.text);
		fail();
	}
}

static inline void disk_open(struct disk *disk, const char *name)
{
	disk_open_keys(disk, name, NULL, INL_VOLUME_WRITE);
}

static inline void disk_close(struct disk *disk)
{
	assert_int_equal(inl_volume_close(disk->vol), 0);
	disk_unmap(disk);
}

static inline void fsck(const char *name)
{
	run("e2fsck -fn %s", name);
}

static inline struct inl_inode *get(struct inl_volume *vol, const char *path)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *inode;
	int err = inl_path(vol, path, false, &diag, &inode);

	if (err)
		print_error("%s: %d %s\n", path, err, diag.text);
	assert_int_equal(err, 0);
	return inode;
}

static inline struct inl_stat stat_of(struct inl_volume *vol, const char *path)
{
	struct inl_inode *inode = get(vol, path);
	struct inl_stat st;

	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	inl_inode_put(inode);
	return st;
}

/* ---- one operation, by path -------------------------------------------------------------------------------------- */

/* The directory of a path, and the last name in it. */
static inline int split(struct inl_volume *vol, const char *path, struct inl_inode **dir, const char **name)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');

	snprintf(parent, sizeof(parent), "/%.*s", (int)(slash - path), path);
	*name = slash + 1;
	return inl_path(vol, parent, true, NULL, dir);
}

static inline int make(struct inl_volume *vol, const char *path, uint32_t mode, unsigned major, unsigned minor)
{
	struct inl_attr attr = { .mode = mode, .rdev_major = major, .rdev_minor = minor };
	struct inl_inode *dir, *inode;
	const char *name;
	int err = split(vol, path, &dir, &name);

	if (err)
		return err;
	err = inl_create(dir, name, strlen(name), &attr, 0, NULL, &inode);
	inl_inode_put(dir);
	if (!err)
		inl_inode_put(inode);
	return err;
}

static inline int make_symlink(struct inl_volume *vol, const char *target, const char *path)
{
	struct inl_attr attr = { 0 };
	struct inl_inode *dir;
	const char *name;
	int err = split(vol, path, &dir, &name);

	if (err)
		return err;
	err = inl_symlink(dir, name, strlen(name), target, strlen(target), &attr, 0, NULL, NULL);
	inl_inode_put(dir);
	return err;
}

static inline int make_link(struct inl_volume *vol, const char *from, const char *to)
{
	struct inl_inode *inode, *dir;
	const char *name;
	int err = inl_path(vol, from, false, NULL, &inode);

	if (err)
		return err;
	err = split(vol, to, &dir, &name);
	if (!err) {
		err = inl_link(inode, dir, name, strlen(name), NULL);
		inl_inode_put(dir);
	}
	inl_inode_put(inode);
	return err;
}

static inline int take(struct inl_volume *vol, const char *path, bool is_dir)
{
	struct inl_inode *dir;
	const char *name;
	int err = split(vol, path, &dir, &name);

	if (err)
		return err;
	err = is_dir ? inl_rmdir(dir, name, strlen(name), NULL) : inl_unlink(dir, name, strlen(name), NULL);
	inl_inode_put(dir);
	return err;
}

static inline int move(struct inl_volume *vol, const char *from, const char *to, unsigned flags)
{
	struct inl_inode *dir, *new_dir;
	const char *name, *new_name;
	int err = split(vol, from, &dir, &name);

	if (err)
		return err;
	err = split(vol, to, &new_dir, &new_name);
	if (!err) {
		err = inl_rename(dir, name, strlen(name), new_dir, new_name, strlen(new_name), flags, NULL);
		inl_inode_put(new_dir);
	}
	inl_inode_put(dir);
	return err;
}

static inline void put_data(struct inl_volume *vol, const char *path, size_t len)
{
	struct inl_inode *inode = get(vol, path);
	char *buf = test_malloc(len);
	size_t done;

	memset(buf, 'x', len);
	assert_int_equal(inl_write(inode, 0, buf, len, &done, NULL), 0);
	assert_int_equal(done, len);
	test_free(buf);
	inl_inode_put(inode);
}

/* ---- set up ------------------------------------------------------------------------------------------------------ */

static inline int setup(void **state)
{
	int err;

	umask(0);
	err = work_dir_make("namei");
	if (!err)
		work_dir_ask_kernel();
	return err;
}

static inline int teardown(void **state)
{
	/* After a test that failed. */
	if (work_dir[0])
		try_run("umount mnt; umount mnt2");
	return work_dir_remove();
}

#endif
