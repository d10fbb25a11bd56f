/*
 * tests/unit/namei_rig.h: what test_namei, test_attr and test_orphan share: images, commands, and operations by path.
 * Not here: the tests.
 * Read more: test_namei.c.
 */
#ifndef TESTS_UNIT_NAMEI_RIG_H
#define TESTS_UNIT_NAMEI_RIG_H

#include "ext4/change.h"
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

static char work_dir[64]; /* empty: no volumes can be made here */
static bool has_kernel;

static inline const char *in_dir(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s", work_dir, name);
	return path;
}

static inline int __attribute__((format(printf, 1, 2))) try_run(const char *fmt, ...)
{
	char command[3000], whole[3300];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	snprintf(whole, sizeof(whole), "cd %s && PATH=$PATH:/sbin:/usr/sbin && { %s; } >log 2>&1 </dev/null", work_dir,
		 command);
	return system(whole);
}

#define run(...)                                                        \
	do {                                                            \
		if (try_run(__VA_ARGS__)) {                             \
			print_error("failed: " __VA_ARGS__);            \
			print_error("\n");                              \
			assert_int_equal(system(in_dir("show")), 0);    \
			fail();                                         \
		}                                                       \
	} while (0)

static inline void needs_tools(void)
{
	if (!work_dir[0]) {
		print_message("skipped: mke2fs, debugfs or e2fsck is missing\n");
		skip();
	}
}

static inline void needs_kernel(void)
{
	needs_tools();
	if (!has_kernel) {
		print_message("skipped: needs root and a loop device\n");
		skip();
	}
}

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
	int fd;

	umask(0);
	snprintf(work_dir, sizeof(work_dir), "%s/inlay-namei-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(work_dir))
		return -1;
	if (try_run("mke2fs -V && debugfs -V && command -v e2fsck")) {
		rmdir(work_dir);
		work_dir[0] = 0;
		return 0;
	}
	fd = open(in_dir("show"), O_WRONLY | O_CREAT, 0700);
	if (fd < 0 || dprintf(fd, "#!/bin/sh\ncat %s/log >&2\n", work_dir) < 0)
		return -1;
	close(fd);
	has_kernel = !geteuid() && !try_run("mkdir mnt && truncate -s 4M probe && mke2fs -Fq -t ext4 probe && "
					    "mount -o loop probe mnt && umount mnt");
	if (!has_kernel)
		print_message("the kernel's ext4 is not asked: needs root and a loop device\n");
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline int teardown(void **state)
{
	if (!work_dir[0])
		return 0;
	/* After a test that failed. */
	try_run("umount mnt; umount mnt2");
	return nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
