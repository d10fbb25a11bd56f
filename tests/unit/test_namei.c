/*
 * tests/unit/test_namei.c: names, attributes and orphans: what Linux does, Inlay does.
 * Not here: directories with many entries (test_dir.c); crashes at every write (tests/crash).
 * Read more: ext4/namei.c, ext4/attr.c, ext4/orphan.c.
 *
 * Most operations are done twice: by Inlay on an image, and by the running kernel on a twin of it (without root and loop devices: in
 * a directory of whatever file system that is). The errors must be the same, and so must all that is there afterwards.
 * Every image that was written ends in e2fsck -fn.
 */
#include "ext4/change.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inlay/driver.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SB	 1024u

static char work_dir[64]; /* empty: no volumes can be made here */
static bool has_kernel;

static const char *in_dir(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s", work_dir, name);
	return path;
}

static int __attribute__((format(printf, 1, 2))) try_run(const char *fmt, ...)
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

static void needs_tools(void)
{
	if (!work_dir[0]) {
		print_message("skipped: mke2fs, debugfs or e2fsck is missing\n");
		skip();
	}
}

static void needs_kernel(void)
{
	needs_tools();
	if (!has_kernel) {
		print_message("skipped: needs root and a loop device\n");
		skip();
	}
}

/* ---- an image as a device, with a look at every flush ------------------------------------------------------------- */

struct disk {
	uint8_t *bytes;
	size_t size;
	struct inl_dev *dev;
	struct inl_volume *vol;
	void (*flushed)(struct disk *disk);
	unsigned n_flushes;
};

static void disk_submit(struct inl_dev *dev, struct inl_bio *bio)
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

static void disk_map(struct disk *disk, const char *name)
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

static void disk_unmap(struct disk *disk)
{
	inl_dev_close(disk->dev);
	munmap(disk->bytes, disk->size);
}

static void disk_open_keys(struct disk *disk, const char *name, struct inl_keyring *keys, unsigned flags)
{
	struct inl_diag diag = { 0 };

	disk_map(disk, name);
	if (inl_volume_open(disk->dev, keys, flags, &diag, &disk->vol)) {
		print_error("%s: %s\n", name, diag.text);
		fail();
	}
}

static void disk_open(struct disk *disk, const char *name)
{
	disk_open_keys(disk, name, NULL, INL_VOLUME_WRITE);
}

static void disk_close(struct disk *disk)
{
	assert_int_equal(inl_volume_close(disk->vol), 0);
	disk_unmap(disk);
}

static void fsck(const char *name)
{
	run("e2fsck -fn %s", name);
}

static struct inl_inode *get(struct inl_volume *vol, const char *path)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *inode;
	int err = inl_path(vol, path, false, &diag, &inode);

	if (err)
		print_error("%s: %d %s\n", path, err, diag.text);
	assert_int_equal(err, 0);
	return inode;
}

static struct inl_stat stat_of(struct inl_volume *vol, const char *path)
{
	struct inl_inode *inode = get(vol, path);
	struct inl_stat st;

	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	inl_inode_put(inode);
	return st;
}

/* ---- one operation, by path ---------------------------------------------------------------------------------------- */

/* The directory of a path, and the last name in it. */
static int split(struct inl_volume *vol, const char *path, struct inl_inode **dir, const char **name)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');

	snprintf(parent, sizeof(parent), "/%.*s", (int)(slash - path), path);
	*name = slash + 1;
	return inl_path(vol, parent, true, NULL, dir);
}

static int make(struct inl_volume *vol, const char *path, uint32_t mode, unsigned major, unsigned minor)
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

static int make_symlink(struct inl_volume *vol, const char *target, const char *path)
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

static int make_link(struct inl_volume *vol, const char *from, const char *to)
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

static int take(struct inl_volume *vol, const char *path, bool is_dir)
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

static int move(struct inl_volume *vol, const char *from, const char *to, unsigned flags)
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

static void put_data(struct inl_volume *vol, const char *path, size_t len)
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

/* ---- twins ----------------------------------------------------------------------------------------------------------- */

struct twins {
	struct disk disk; /* a.img */
	char root[PATH_MAX]; /* b.img, mounted, or a plain directory */
};

#define TWIN_OPTIONS "-t ext4 -b 1024 -I 256 -N 2048"

static void twins_begin(struct twins *twins)
{
	run("rm -f a.img && truncate -s 24M a.img && mke2fs -Fq " TWIN_OPTIONS " a.img");
	if (has_kernel)
		run("cp a.img b.img && mount -o loop b.img mnt");
	else
		run("rm -rf mnt && mkdir -p mnt/lost+found");
	snprintf(twins->root, sizeof(twins->root), "%s/mnt", work_dir);
	disk_open(&twins->disk, "a.img");
}

static const char *real(const struct twins *twins, const char *path)
{
	static char paths[2][2 * PATH_MAX];
	static unsigned next;
	char *whole = paths[next++ % 2];

	snprintf(whole, sizeof(paths[0]), "%s%s", twins->root, path);
	return whole;
}

/* One operation: a letter and its paths. f: file, d: directory, p: pipe, l: symbolic link, h: hard link, u: unlink, r: rmdir, m: rename. */
struct step {
	char what;
	const char *a, *b;
	unsigned flags;
};

static int by_inlay(struct twins *twins, const struct step *step)
{
	struct inl_volume *vol = twins->disk.vol;

	switch (step->what) {
	case 'f':
		return make(vol, step->a, S_IFREG | 0644, 0, 0);
	case 'd':
		return make(vol, step->a, S_IFDIR | 0755, 0, 0);
	case 'p':
		return make(vol, step->a, S_IFIFO | 0600, 0, 0);
	case 'l':
		return make_symlink(vol, step->b, step->a);
	case 'h':
		return make_link(vol, step->a, step->b);
	case 'u':
		return take(vol, step->a, false);
	case 'r':
		return take(vol, step->a, true);
	default:
		return move(vol, step->a, step->b, step->flags);
	}
}

static int by_kernel(struct twins *twins, const struct step *step)
{
	const char *a = real(twins, step->a);
	int ret;

	switch (step->what) {
	case 'f':
		ret = open(a, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (ret >= 0)
			close(ret);
		break;
	case 'd':
		ret = mkdir(a, 0755);
		break;
	case 'p':
		ret = mknod(a, S_IFIFO | 0600, 0);
		break;
	case 'l':
		ret = symlink(step->b, a);
		break;
	case 'h':
		ret = link(a, real(twins, step->b));
		break;
	case 'u':
		ret = unlink(a);
		break;
	case 'r':
		ret = rmdir(a);
		break;
	default:
		ret = renameat2(AT_FDCWD, a, AT_FDCWD, real(twins, step->b), step->flags);
		break;
	}
	return ret < 0 ? -errno : 0;
}

static int both(struct twins *twins, const struct step *step)
{
	int want = by_kernel(twins, step), got = by_inlay(twins, step);

	if (got != want)
		print_error("%c %s %s %x: Linux says %d, Inlay %d\n", step->what, step->a, step->b ? step->b : "", step->flags,
			    want, got);
	assert_int_equal(got, want);
	return want;
}

static void both_do(struct twins *twins, char what, const char *a, const char *b)
{
	assert_int_equal(both(twins, &(struct step){ what, a, b, 0 }), 0);
}

/* A directory of Inlay's against one of the kernel's: names, types, modes, links, sizes, targets; and below. */
static void compare_dir(struct twins *twins, const char *path)
{
	struct inl_volume *vol = twins->disk.vol;
	struct inl_inode *inode = get(vol, path[0] ? path : "/");
	struct inl_dirent entry;
	struct inl_dir *dir;
	unsigned n = 0;
	DIR *other;

	assert_int_equal(inl_dir_open(inode, NULL, &dir), 0);
	while (inl_dir_next(dir, &entry, NULL) == 1) {
		char child[PATH_MAX], target[2][300] = { "", "" };
		struct inl_stat st;
		struct stat want;

		snprintf(child, sizeof(child), "%s/%s", path, entry.name);
		if (lstat(real(twins, child), &want)) {
			print_error("%s is not in the twin\n", child);
			fail();
		}
		n++;
		st = stat_of(vol, child);
		assert_int_equal(st.mode, want.st_mode);
		if (st.mode >> 12 != entry.type)
			print_error("%s: type %u of mode 0%o\n", child, entry.type, st.mode);
		assert_int_equal(st.mode >> 12, entry.type);
		if (has_kernel && (st.nlink != want.st_nlink || (entry.type != DT_LNK && st.size != (uint64_t)want.st_size)))
			print_error("%s: %u links, not %lu\n", child, st.nlink, (unsigned long)want.st_nlink);
		if (has_kernel) {
			assert_int_equal(st.nlink, want.st_nlink);
			assert_int_equal(st.size, want.st_size);
			assert_int_equal(st.blocks, want.st_blocks);
		}
		if (entry.type == DT_LNK) {
			struct inl_inode *link = get(vol, child);
			size_t len;

			assert_int_equal(inl_readlink(link, target[0], sizeof(target[0]) - 1, &len, NULL), 0);
			inl_inode_put(link);
			assert_true(readlink(real(twins, child), target[1], sizeof(target[1]) - 1) > 0);
			assert_string_equal(target[0], target[1]);
		}
		if (entry.type == DT_DIR && strcmp(entry.name, "lost+found")) {
			char up[PATH_MAX + 8];

			snprintf(up, sizeof(up), "%s/..", child);
			assert_int_equal(stat_of(vol, up).ino, inode->ino);
			compare_dir(twins, child);
		}
	}
	inl_dir_close(dir);
	inl_inode_put(inode);
	other = opendir(real(twins, path));
	assert_non_null(other);
	for (struct dirent *e; (e = readdir(other));)
		n -= strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(other);
	assert_int_equal(n, 0);
}

/* The same through the kernel: it mounts what Inlay wrote. */
static void twins_end(struct twins *twins)
{
	compare_dir(twins, "");
	disk_close(&twins->disk);
	fsck("a.img");
	if (!has_kernel)
		return;
	run("mkdir -p mnt2 && mount -o loop a.img mnt2 && rm -rf mnt/lost+found mnt2/lost+found && "
	    "diff -r --no-dereference mnt mnt2 && umount mnt2 mnt");
	fsck("a.img");
}

/* ---- errors, one by one ---------------------------------------------------------------------------------------------- */

#define NAME_255                                                                                                          \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

static void test_errors(void **state)
{
	static const struct step steps[] = {
		{ 'f', "/f" }, { 'd', "/d" }, { 'd', "/full" }, { 'f', "/full/x" }, { 'l', "/l", "f" }, { 'p', "/p" },
		/* create */
		{ 'f', "/f" }, { 'd', "/f" }, { 'l', "/f", "t" }, { 'p', "/d" }, { 'f', "/l" }, { 'f', "/none/x" },
		{ 'f', "/f/x" }, { 'd', "/f/x" }, { 'd', "/." }, { 'd', "/.." }, { 'd', "/d/.." }, { 'l', "/d/.", "t" },
		{ 'f', "/" NAME_255 }, { 'f', "/" NAME_255 }, { 'f', "/" NAME_255 "n" }, { 'd', "/" NAME_255 "n" },
		{ 'l', "/empty", "" }, { 'f', "/ " }, { 'f', "/\001\377" }, { 'f', "/..." },
		/* link */
		{ 'h', "/f", "/f" }, { 'h', "/f", "/d" }, { 'h', "/d", "/dd" }, { 'h', "/d", "/f" }, { 'h', "/none", "/x" },
		{ 'h', "/f", "/none/x" }, { 'h', "/f", "/f/x" }, { 'h', "/l", "/ll" }, { 'h', "/p", "/pp" }, { 'h', "/f", "/f2" },
		{ 'h', "/f", "/." }, { 'h', "/f", "/" NAME_255 "n" }, { 'h', "/f2", "/d/f3" },
		/* unlink, rmdir */
		{ 'u', "/none" }, { 'u', "/d" }, { 'u', "/full" }, { 'u', "/d/." }, { 'u', "/f/x" }, { 'u', "/" NAME_255 "n" },
		{ 'r', "/none" }, { 'r', "/f" }, { 'r', "/l" }, { 'r', "/full" }, { 'r', "/d/." }, { 'r', "/d/.." },
		{ 'r', "/" NAME_255 "n" }, { 'r', "/f/x" }, { 'r', "/d" }, { 'u', "/d/f3" }, { 'r', "/d" }, { 'r', "/d" },
		{ 'u', "/ll" }, { 'u', "/ll" }, { 'u', "/f2" }, { 'u', "/" NAME_255 },
		/* rename: what the matrix has not */
		{ 'm', "/none", "/x" }, { 'm', "/none", "/none/x" }, { 'm', "/f", "/none/x" }, { 'm', "/f", "/f" },
		{ 'm', "/f", "/p/x" }, { 'm', "/.", "/x" }, { 'm', "/f", "/full/." }, { 'm', "/f", "/full/..", 1 },
		{ 'm', "/f", "/" NAME_255 "n" }, { 'm', "/" NAME_255 "n", "/f" }, { 'm', "/f", "/f", 1 },
		{ 'm', "/full", "/full/a" }, { 'm', "/full", "/full/x" }, { 'd', "/full/sub" }, { 'm', "/full", "/full/sub/y" },
		{ 'm', "/full/sub", "/full" }, { 'm', "/full/x", "/full" }, { 'm', "/full/x", "/full", 2 },
		{ 'm', "/full", "/full/sub", 2 }, { 'm', "/full/sub", "/full", 2 }, { 'm', "/full", "/full/x", 2 },
		{ 'm', "/f", "/none", 2 }, { 'm', "/none", "/f", 2 }, { 'm', "/f", "/l", 3 }, { 'm', "/f", "/x", 8 },
		{ 'm', "/full/sub", "/full/sub" }, { 'm', "/full/sub", "/moved" }, { 'm', "/moved", "/full/back" },
		{ 'd', "/full/back/1" }, { 'd', "/full/back/1/2" }, { 'm', "/full", "/full/back/1/2/3" },
		{ 'm', "/full/back", "/full/back/1/2", 2 }, { 'm', "/full/back/1/2", "/full", 2 },
		{ 'm', "/full/back/1/2", "/full" }, { 'm', "/full/back/1/2", "/2" },
	};
	struct twins twins;
	unsigned failed = 0;

	needs_tools();
	twins_begin(&twins);
	for (size_t i = 0; i < COUNT(steps); i++)
		failed += both(&twins, &steps[i]) != 0;
	assert_true(failed > 30);
	twins_end(&twins);
}

/* Names that no path can hold. */
static void test_error_names(void **state)
{
	struct inl_attr attr = { .mode = S_IFREG | 0644 }, bad = attr;
	struct inl_inode *root, *file;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img");
	disk_open(&disk, "a.img");
	root = get(disk.vol, "/");
	assert_int_equal(inl_create(root, "", 0, &attr, 0, NULL, NULL), -EINVAL);
	assert_int_equal(inl_create(root, "a/b", 3, &attr, 0, NULL, NULL), -EINVAL);
	assert_int_equal(inl_create(root, "a\0b", 3, &attr, 0, NULL, NULL), -EINVAL);
	assert_int_equal(inl_unlink(root, "a/b", 3, NULL), -ENOENT);
	assert_int_equal(inl_unlink(root, "", 0, NULL), -ENOENT);
	bad.mode = 0644;
	assert_int_equal(inl_create(root, "x", 1, &bad, 0, NULL, NULL), -EINVAL);
	bad.mode = S_IFLNK | 0777;
	assert_int_equal(inl_create(root, "x", 1, &bad, 0, NULL, NULL), -EINVAL);
	bad.mode = S_IFCHR;
	bad.rdev_major = 0x1000;
	assert_int_equal(inl_create(root, "x", 1, &bad, 0, NULL, NULL), -EINVAL);
	bad.mtime.nsec = 1000000000;
	bad.mode = S_IFREG;
	assert_int_equal(inl_create(root, "x", 1, &bad, INL_ATTR_MTIME, NULL, NULL), -EINVAL);
	assert_int_equal(inl_symlink(root, "x", 1, "a\0b", 3, &attr, 0, NULL, NULL), -EINVAL);
	assert_int_equal(inl_create(root, "f", 1, &attr, 0, NULL, &file), 0);
	assert_int_equal(inl_create(file, "x", 1, &attr, 0, NULL, NULL), -ENOTDIR);
	assert_int_equal(inl_setattr(file, &attr, 128, NULL), -EINVAL);
	assert_int_equal(inl_setattr(file, &bad, INL_ATTR_MTIME, NULL), -EINVAL);
	inl_inode_put(file);
	inl_inode_put(root);
	disk_close(&disk);
	fsck("a.img");

	disk_open_keys(&disk, "a.img", NULL, 0);
	assert_int_equal(make(disk.vol, "/x", S_IFREG, 0, 0), -EROFS);
	assert_int_equal(take(disk.vol, "/f", false), -EROFS);
	assert_int_equal(move(disk.vol, "/f", "/g", 0), -EROFS);
	assert_int_equal(make_link(disk.vol, "/f", "/g"), -EROFS);
	file = get(disk.vol, "/f");
	assert_int_equal(inl_setattr(file, &attr, INL_ATTR_MODE, NULL), -EROFS);
	inl_inode_put(file);
	disk_close(&disk);
}

/* A directory that was removed while somebody has it. */
static void test_dead_dir(void **state)
{
	struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_inode *dir, *root, *file;
	struct disk disk;
	uint64_t ino;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/f", S_IFREG, 0, 0), 0);
	root = get(disk.vol, "/");
	dir = get(disk.vol, "/d");
	file = get(disk.vol, "/f");
	assert_int_equal(take(disk.vol, "/d", true), 0);
	assert_int_equal(inl_create(dir, "x", 1, &attr, 0, NULL, NULL), -ENOENT);
	assert_int_equal(inl_link(file, dir, "x", 1, NULL), -ENOENT);
	assert_int_equal(inl_rename(root, "f", 1, dir, "f", 1, 0, NULL), -ENOENT);
	assert_int_equal(inl_rename(dir, "f", 1, root, "g", 1, 0, NULL), -ENOENT);
	assert_int_equal(inl_unlink(dir, "x", 1, NULL), -ENOENT);
	assert_int_equal(inl_lookup(dir, "x", 1, &ino, NULL), -ENOENT);
	assert_int_equal(inl_unlink(root, "f", 1, NULL), 0);
	assert_int_equal(inl_link(file, root, "g", 1, NULL), -ENOENT);
	/* What is open can be changed all the same. */
	assert_int_equal(inl_setattr(file, &attr, INL_ATTR_MODE, NULL), 0);
	inl_inode_put(file);
	inl_inode_put(dir);
	inl_inode_put(root);
	disk_close(&disk);
	fsck("a.img");
}

/* ---- rename: everything onto everything ------------------------------------------------------------------------------ */

/* . nothing, f file, h another name of the source, l link, p pipe, d empty directory, D directory with a file, S one with a directory */
static const char kinds[] = ".fhlpdDS";

static void make_kind(struct twins *twins, char kind, const char *path, const char *source)
{
	char below[PATH_MAX];

	snprintf(below, sizeof(below), "%s/x", path);
	if (kind == 'f' || kind == 'd' || kind == 'p')
		both_do(twins, kind, path, NULL);
	else if (kind == 'l')
		both_do(twins, 'l', path, "target");
	else if (kind == 'h')
		both_do(twins, 'h', source, path);
	else if (kind == 'D' || kind == 'S')
		both_do(twins, 'd', path, NULL);
	if (kind == 'D' || kind == 'S')
		both_do(twins, kind == 'D' ? 'f' : 'd', below, NULL);
}

static void test_rename_matrix(void **state)
{
	static const unsigned flags[] = { 0, INL_RENAME_NOREPLACE, INL_RENAME_EXCHANGE };
	struct twins twins;
	unsigned n = 0, failed = 0;

	needs_tools();
	twins_begin(&twins);
	both_do(&twins, 'd', "/a", NULL);
	both_do(&twins, 'd', "/b", NULL);
	for (const char *from = kinds; *from; from++) {
		for (const char *to = kinds; *to; to++) {
			for (unsigned i = 0; i < 2 * COUNT(flags); i++) {
				char source[32], target[32];
				struct step step = { 'm', source, target, flags[i / 2] };

				if (*from == 'h' || (*to == 'h' && strchr(".dDS", *from)))
					continue;
				snprintf(source, sizeof(source), "/a/s%u", n);
				snprintf(target, sizeof(target), "/%c/t%u", i & 1 ? 'b' : 'a', n++);
				make_kind(&twins, *from, source, NULL);
				make_kind(&twins, *to, target, source);
				failed += both(&twins, &step) != 0;
			}
		}
	}
	assert_true(n > 250 && failed > 100);
	twins_end(&twins);
}

/* ---- times: what changes with what ------------------------------------------------------------------------------------ */

static bool newer(struct inl_time a, struct inl_time b)
{
	return a.sec != b.sec || a.nsec != b.nsec;
}

static const char *const watched[] = { "/", "/a", "/b", "/a/f", "/a/d", "/b/f", "/b/d", "/a/l" };

static void look_inlay(struct twins *twins, struct inl_time times[][2])
{
	for (size_t i = 0; i < COUNT(watched); i++) {
		struct inl_inode *inode;
		struct inl_stat st = { 0 };

		if (!inl_path(twins->disk.vol, watched[i], false, NULL, &inode)) {
			assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
			inl_inode_put(inode);
		}
		times[i][0] = st.mtime;
		times[i][1] = st.ctime;
	}
}

static void look_kernel(struct twins *twins, struct inl_time times[][2])
{
	for (size_t i = 0; i < COUNT(watched); i++) {
		struct stat st = { 0 };

		if (lstat(real(twins, watched[i]), &st))
			memset(&st, 0, sizeof(st));
		times[i][0] = (struct inl_time){ st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec };
		times[i][1] = (struct inl_time){ st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec };
	}
}

static void test_times_of_names(void **state)
{
	static const struct step steps[] = {
		{ 'f', "/a/f" }, { 'd', "/a/d" }, { 'l', "/a/l", "t" }, { 'h', "/a/f", "/b/f" }, { 'u', "/b/f" },
		{ 'm', "/a/f", "/b/f" }, { 'f', "/a/f" }, { 'm', "/a/f", "/b/f", 2 }, { 'm', "/a/f", "/b/f" },
		{ 'm', "/a/d", "/b/d" }, { 'd', "/a/d" }, { 'm', "/a/d", "/b/d", 2 }, { 'm', "/a/d", "/b/f", 2 },
		{ 'm', "/a/d", "/b/f", 2 }, { 'm', "/a/d", "/b/d" }, { 'r', "/b/d" }, { 'h', "/b/f", "/a/f" },
		{ 'm', "/a/f", "/b/f" }, { 'u', "/a/f" }, { 'u', "/b/f" }, { 'u', "/a/l" },
	};
	struct twins twins;

	needs_kernel();
	twins_begin(&twins);
	both_do(&twins, 'd', "/a", NULL);
	both_do(&twins, 'd', "/b", NULL);
	for (size_t i = 0; i < COUNT(steps); i++) {
		struct inl_time before[2][COUNT(watched)][2], after[2][COUNT(watched)][2];

		look_inlay(&twins, before[0]);
		look_kernel(&twins, before[1]);
		usleep(12000); /* the kernel's clock has ticks of up to 10 ms */
		assert_int_equal(both(&twins, &steps[i]), 0);
		look_inlay(&twins, after[0]);
		look_kernel(&twins, after[1]);
		for (size_t k = 0; k < COUNT(watched); k++) {
			for (unsigned t = 0; t < 2; t++) {
				bool got = newer(before[0][k][t], after[0][k][t]), want = newer(before[1][k][t], after[1][k][t]);

				if (got != want)
					print_error("%c %s %s: %ctime of %s %s\n", steps[i].what, steps[i].a,
						    steps[i].b ? steps[i].b : "", "mc"[t], watched[k],
						    want ? "should change" : "should not change");
				assert_int_equal(got, want);
			}
		}
	}
	twins_end(&twins);
}

/* ---- attributes --------------------------------------------------------------------------------------------------------- */

static int64_t clamp(int64_t sec, int64_t max)
{
	return sec < INT32_MIN ? INT32_MIN : sec > max ? max : sec;
}

/* As they are read back, by Inlay and by the kernel. */
static void test_time_range(void **state)
{
	static const int64_t secs[] = { 0, 1, -1, INT32_MAX, INT32_MAX + 1ll, INT32_MIN, INT32_MIN - 1ll, UINT32_MAX, UINT32_MAX + 1ll,
					0x17fffffffll, 0x180000000ll, 0x27fffffffll, 0x280000000ll, 0x37ffffffell, 0x37fffffffll,
					0x380000000ll, INT64_MAX, INT64_MIN };
	static const char *const options[] = { "-I 256", "-I 128 -O ^metadata_csum" };

	needs_tools();
	for (size_t o = 0; o < COUNT(options); o++) {
		int64_t max = o ? INT32_MAX : 0x37fffffff;
		struct disk disk;

		run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 %s a.img", options[o]);
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(secs); i++) {
			struct inl_attr attr = { .mode = S_IFREG | 0644, .atime = { secs[i], 1 }, .mtime = { secs[i], 999999999 },
						 .ctime = { secs[i], 123456789 }, .crtime = { secs[i], 42 } };
			struct inl_inode *root = get(disk.vol, "/"), *inode;
			int64_t sec = clamp(secs[i], max);
			bool inside = sec == secs[i] && sec != max && sec != INT32_MIN && !o;
			struct inl_stat st;
			char name[16];

			snprintf(name, sizeof(name), "%zu", i);
			if (i & 1) {
				assert_int_equal(inl_create(root, name, strlen(name), &attr, INL_ATTR_TIMES, NULL, &inode), 0);
			} else {
				assert_int_equal(inl_create(root, name, strlen(name), &attr, 0, NULL, &inode), 0);
				assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_TIMES, NULL), 0);
			}
			assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
			assert_int_equal(st.atime.sec, sec);
			assert_int_equal(st.mtime.sec, sec);
			assert_int_equal(st.ctime.sec, sec);
			assert_int_equal(st.crtime.sec, o ? 0 : sec);
			assert_int_equal(st.atime.nsec, inside ? 1 : 0);
			assert_int_equal(st.mtime.nsec, inside ? 999999999 : 0);
			assert_int_equal(st.ctime.nsec, inside ? 123456789 : 0);
			inl_inode_put(inode);
			inl_inode_put(root);
		}
		disk_close(&disk);
		fsck("a.img");
		if (!has_kernel)
			continue;
		run("mount -o loop,ro a.img mnt");
		for (size_t i = 0; i < COUNT(secs); i++) {
			struct statx stx;
			char path[32];

			snprintf(path, sizeof(path), "mnt/%zu", i);
			assert_int_equal(statx(AT_FDCWD, in_dir(path), 0, STATX_ALL, &stx), 0);
			assert_int_equal(stx.stx_mtime.tv_sec, clamp(secs[i], max));
			assert_int_equal(stx.stx_ctime.tv_sec, clamp(secs[i], max));
			if (!o)
				assert_int_equal(stx.stx_btime.tv_sec, clamp(secs[i], max));
		}
		run("umount mnt");
	}
}

static void test_setattr(void **state)
{
	struct inl_attr attr = { .mode = S_IFDIR | 07751, .uid = 0x12345678, .gid = 0x9abcdef0 };
	struct inl_inode *inode;
	struct inl_stat before, st;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make_symlink(disk.vol, "f", "/l"), 0);
	inode = get(disk.vol, "/f");
	assert_int_equal(inl_inode_stat(inode, &before, NULL), 0);
	usleep(1000);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_MODE, NULL), 0);
	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	assert_int_equal(st.mode, S_IFREG | 07751);
	assert_int_equal(st.uid, 0);
	assert_true(newer(before.ctime, st.ctime));
	assert_false(newer(before.mtime, st.mtime));
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_UID | INL_ATTR_CTIME, NULL), 0);
	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	assert_int_equal(st.ctime.sec, 0);
	assert_int_equal(st.uid, attr.uid);
	assert_int_equal(st.gid, 0);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_GID, NULL), 0);
	inl_inode_put(inode);
	inode = get(disk.vol, "/l");
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_MODE, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_UID, NULL), 0);
	inl_inode_put(inode);
	disk_close(&disk);
	fsck("a.img");
	disk_open(&disk, "a.img");
	st = stat_of(disk.vol, "/f");
	assert_int_equal(st.uid, attr.uid);
	assert_int_equal(st.gid, attr.gid);
	assert_int_equal(st.mode, S_IFREG | 07751);
	assert_int_equal(stat_of(disk.vol, "/l").uid, attr.uid);
	disk_close(&disk);
}

/* chmod and an access ACL, against the kernel's own. */
static void test_chmod_acl(void **state)
{
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
				       16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255 };
	static const uint32_t modes[] = { 0700, 0070, 07007, 0777, 0, 0640 };
	struct disk disk;

	needs_kernel();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img && mount -o loop a.img mnt && cd mnt && "
	    "for i in 0 1 2 3 4 5; do touch a$i b$i; done");
	for (unsigned i = 0; i < COUNT(modes); i++) {
		for (char c = 'a'; c <= 'b'; c++) {
			char path[16];

			snprintf(path, sizeof(path), "mnt/%c%u", c, i);
			if (setxattr(in_dir(path), "system.posix_acl_access", acl, sizeof(acl), 0)) {
				run("umount mnt");
				print_message("skipped: the kernel has no ACLs\n");
				skip();
			}
			if (c == 'b')
				assert_int_equal(chmod(in_dir(path), modes[i]), 0);
		}
	}
	run("umount mnt");
	disk_open(&disk, "a.img");
	for (unsigned i = 0; i < COUNT(modes); i++) {
		struct inl_attr attr = { .mode = modes[i] };
		uint8_t got[128], want[128];
		size_t len, len2;
		struct inl_inode *a, *b;
		char path[16];

		snprintf(path, sizeof(path), "/a%u", i);
		a = get(disk.vol, path);
		path[1] = 'b';
		b = get(disk.vol, path);
		assert_int_equal(inl_setattr(a, &attr, INL_ATTR_MODE, NULL), 0);
		assert_int_equal(inl_raw_xattr_get(a, 2, "", got, sizeof(got), &len, NULL), 0);
		assert_int_equal(inl_raw_xattr_get(b, 2, "", want, sizeof(want), &len2, NULL), 0);
		assert_int_equal(len, len2);
		assert_memory_equal(got, want, len);
		assert_int_equal(a->raw.i_mode, b->raw.i_mode);
		inl_inode_put(a);
		inl_inode_put(b);
	}
	disk_close(&disk);
	fsck("a.img");
}

/* Devices, and flags that are inherited, as the kernel makes them. */
static void test_made_as_linux(void **state)
{
	static const struct {
		uint32_t mode;
		unsigned major, minor;
	} nodes[] = {
		{ S_IFCHR, 0, 0 }, { S_IFCHR, 1, 3 }, { S_IFBLK, 255, 255 }, { S_IFBLK, 256, 0 }, { S_IFCHR, 0, 256 }, { S_IFCHR, 0xfff, 0xfffff },
		{ S_IFBLK, 8, 0x12345 }, { S_IFIFO, 0, 0 }, { S_IFSOCK, 0, 0 }, { S_IFREG, 0, 0 }, { S_IFDIR, 0, 0 },
	};
	struct disk a, b;
	char path[32], target[200];

	needs_kernel();
	/* S sync, D dirsync, A noatime, d nodump */
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img && mount -o loop a.img mnt && mkdir mnt/flags && "
	    "chattr +SDAd mnt/flags && umount mnt && cp a.img b.img && mount -o loop b.img mnt");
	disk_open(&a, "a.img");
	memset(target, 't', sizeof(target));
	for (unsigned i = 0; i < COUNT(nodes); i++) {
		snprintf(path, sizeof(path), "/flags/n%u", i);
		assert_int_equal(make(a.vol, path, nodes[i].mode | 0640, nodes[i].major, nodes[i].minor), 0);
		snprintf(path, sizeof(path), "mnt/flags/n%u", i);
		if (S_ISDIR(nodes[i].mode))
			assert_int_equal(mkdir(in_dir(path), 0640), 0);
		else
			assert_int_equal(mknod(in_dir(path), nodes[i].mode | 0640, makedev(nodes[i].major, nodes[i].minor)), 0);
	}
	for (unsigned len = 58; len < 63; len++) {
		target[len] = 0;
		snprintf(path, sizeof(path), "/flags/l%u", len);
		assert_int_equal(make_symlink(a.vol, target, path), 0);
		snprintf(path, sizeof(path), "mnt/flags/l%u", len);
		assert_int_equal(symlink(target, in_dir(path)), 0);
		target[len] = 't';
	}
	run("umount mnt");
	disk_close(&a);
	fsck("a.img");
	disk_open_keys(&a, "a.img", NULL, 0);
	disk_open_keys(&b, "b.img", NULL, 0);
	for (unsigned i = 0; i < COUNT(nodes) + 5; i++) {
		struct inl_inode *x, *y;

		snprintf(path, sizeof(path), i < COUNT(nodes) ? "/flags/n%u" : "/flags/l%u",
			 i < COUNT(nodes) ? i : i - (unsigned)COUNT(nodes) + 58);
		x = get(a.vol, path);
		y = get(b.vol, path);
		if (x->raw.i_flags != y->raw.i_flags)
			print_error("%s: flags %x, not %x\n", path, x->raw.i_flags, y->raw.i_flags);
		assert_int_equal(x->raw.i_flags, y->raw.i_flags);
		assert_int_equal(x->raw.i_mode, y->raw.i_mode);
		assert_int_equal(x->raw.i_blocks, y->raw.i_blocks);
		assert_int_equal(x->raw.i_size, y->raw.i_size);
		assert_int_equal(x->raw.i_links_count, y->raw.i_links_count);
		assert_int_equal(x->raw.i_extra_isize, y->raw.i_extra_isize);
		if (!(x->raw.i_flags & EXT4_FL_EXTENTS))
			assert_memory_equal(x->raw.i_block, y->raw.i_block, sizeof(x->raw.i_block));
		inl_inode_put(x);
		inl_inode_put(y);
	}
	disk_close(&a);
	disk_close(&b);
}

static void test_symlink_lengths(void **state)
{
	static const unsigned sizes[] = { 1024, 2048, 4096 };

	needs_tools();
	for (size_t s = 0; s < COUNT(sizes); s++) {
		static const unsigned lens[] = { 1, 59, 60, 61, 1022, 1023, 1024, 2047, 2048, 4095, 4096, 5000 };
		static char target[5001], got[5001];
		struct disk disk;
		struct inl_inode *inode;
		char path[16];
		size_t len;

		run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t %s -b %u a.img", s == 1 ? "ext3" : "ext4", sizes[s]);
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(lens); i++) {
			memset(target, 'a' + (int)i, lens[i]);
			target[lens[i]] = 0;
			snprintf(path, sizeof(path), "/%zu", i);
			assert_int_equal(make_symlink(disk.vol, target, path), lens[i] < sizes[s] ? 0 : -ENAMETOOLONG);
			if (lens[i] >= sizes[s])
				continue;
			inode = get(disk.vol, path);
			assert_int_equal(inl_readlink(inode, got, sizeof(got), &len, NULL), 0);
			assert_int_equal(len, lens[i]);
			assert_memory_equal(got, target, len);
			inl_inode_put(inode);
		}
		disk_close(&disk);
		fsck("a.img");
		for (size_t i = 0; has_kernel && i < COUNT(lens) && lens[i] < sizes[s]; i++) {
			run("mount -o loop,ro a.img mnt");
			snprintf(path, sizeof(path), "mnt/%zu", i);
			memset(target, 'a' + (int)i, lens[i]);
			assert_int_equal(readlink(in_dir(path), got, sizeof(got)), lens[i] < 4096 ? lens[i] : 4095);
			assert_memory_equal(got, target, lens[i]);
			run("umount mnt");
		}
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(lens) && lens[i] < sizes[s]; i++) {
			snprintf(path, sizeof(path), "/%zu", i);
			assert_int_equal(take(disk.vol, path, false), 0);
		}
		disk_close(&disk);
		fsck("a.img");
	}
}

/* ---- limits of links ------------------------------------------------------------------------------------------------------ */

static void test_link_limits(void **state)
{
	struct disk disk;
	char path[32];

	needs_tools();
	/* Counts that would take long to reach are put there by debugfs; e2fsck could only object to them. */
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 -O ^dir_nlink a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/e", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/e/f", S_IFREG | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/x", S_IFDIR | 0755, 0, 0), 0);
	disk_close(&disk);
	run("debugfs -w -R 'sif /f links_count 64999' a.img && debugfs -w -R 'sif /d links_count 64999' a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make_link(disk.vol, "/f", "/f2"), 0);
	assert_int_equal(make_link(disk.vol, "/f", "/f3"), -EMLINK);
	assert_int_equal(stat_of(disk.vol, "/f").nlink, 65000);
	assert_int_equal(take(disk.vol, "/f2", false), 0);
	assert_int_equal(make_link(disk.vol, "/f", "/f3"), 0);
	assert_int_equal(make(disk.vol, "/d/1", S_IFDIR, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d/2", S_IFDIR, 0, 0), -EMLINK);
	assert_int_equal(make(disk.vol, "/d/2", S_IFREG, 0, 0), 0);
	assert_int_equal(move(disk.vol, "/x", "/d/x", 0), -EMLINK);
	assert_int_equal(move(disk.vol, "/x", "/d/1", 0), 0); /* one comes, one goes */
	assert_int_equal(move(disk.vol, "/d/1", "/d/x", 0), 0);
	assert_int_equal(move(disk.vol, "/e", "/d/2", INL_RENAME_EXCHANGE), -EMLINK);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 65000);
	assert_int_equal(take(disk.vol, "/d/x", true), 0);
	assert_int_equal(move(disk.vol, "/e", "/d/2", INL_RENAME_EXCHANGE), 0);
	disk_close(&disk);

	/* With dir_nlink an indexed directory stops counting. */
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 -O dir_nlink a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/linear", S_IFDIR | 0755, 0, 0), 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "/d/some-file-%u", i);
		assert_int_equal(make(disk.vol, path, S_IFREG, 0, 0), 0);
	}
	disk_close(&disk);
	fsck("a.img");
	run("debugfs -w -R 'sif /d links_count 64999' a.img && debugfs -w -R 'sif /linear links_count 65000' a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/linear/1", S_IFDIR, 0, 0), -EMLINK);
	assert_int_equal(make(disk.vol, "/d/1", S_IFDIR, 0, 0), 0);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 65000);
	assert_int_equal(make(disk.vol, "/d/2", S_IFDIR, 0, 0), 0);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 1);
	assert_int_equal(make(disk.vol, "/d/3", S_IFDIR, 0, 0), 0);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 1);
	assert_int_equal(take(disk.vol, "/d/3", true), 0);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 1);
	assert_int_equal(move(disk.vol, "/d/2", "/2", 0), 0);
	assert_int_equal(move(disk.vol, "/2", "/d/4", 0), 0);
	assert_int_equal(stat_of(disk.vol, "/d").nlink, 1);
	disk_close(&disk);
}

/* ---- what may not be changed ------------------------------------------------------------------------------------------------ */

static void test_flags_forbid(void **state)
{
	struct inl_attr attr = { .mode = 0600 };
	struct inl_inode *inode;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/i", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/di", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/di/f", S_IFREG | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/da", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/da/f", S_IFREG | 0755, 0, 0), 0);
	disk_close(&disk);
	run("debugfs -w -R 'sif /i flags 0x80010' a.img && debugfs -w -R 'sif /di flags 0x80010' a.img && "
	    "debugfs -w -R 'sif /da flags 0x80020' a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(take(disk.vol, "/i", false), -EPERM);
	assert_int_equal(move(disk.vol, "/i", "/j", 0), -EPERM);
	assert_int_equal(move(disk.vol, "/f", "/i", 0), -EPERM);
	assert_int_equal(move(disk.vol, "/f", "/i", INL_RENAME_EXCHANGE), -EPERM);
	assert_int_equal(make_link(disk.vol, "/i", "/j"), -EPERM);
	inode = get(disk.vol, "/i");
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_MODE, NULL), -EPERM);
	inl_inode_put(inode);
	assert_int_equal(make(disk.vol, "/di/x", S_IFREG, 0, 0), -EPERM);
	assert_int_equal(make(disk.vol, "/di/f", S_IFREG, 0, 0), -EEXIST);
	assert_int_equal(take(disk.vol, "/di/f", false), -EPERM);
	assert_int_equal(move(disk.vol, "/di/f", "/x", 0), -EPERM);
	assert_int_equal(move(disk.vol, "/f", "/di/x", 0), -EPERM);
	assert_int_equal(make_link(disk.vol, "/f", "/di/x"), -EPERM);
	assert_int_equal(make(disk.vol, "/da/x", S_IFREG, 0, 0), 0);
	assert_int_equal(make_link(disk.vol, "/f", "/da/y"), 0);
	assert_int_equal(move(disk.vol, "/f", "/da/z", 0), 0);
	assert_int_equal(take(disk.vol, "/da/f", false), -EPERM);
	assert_int_equal(move(disk.vol, "/da/f", "/x", 0), -EPERM);
	disk_close(&disk);
	fsck("a.img");
}

/* ---- encrypted directories ---------------------------------------------------------------------------------------------------- */

static const uint8_t master[64] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 };

/* By the kernel: /e with files, a link and directories in it. False: it cannot. */
static bool make_encrypted(void)
{
	struct {
		struct fscrypt_add_key_arg arg;
		uint8_t raw[64];
	} add = { .arg = { .key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER, .raw_size = 64 } };
	struct fscrypt_policy_v2 policy = { .version = 2, .contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
					    .filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS, .flags = FSCRYPT_POLICY_FLAGS_PAD_16 };
	int fd, err;

	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 -O encrypt a.img && mount -o loop a.img mnt && mkdir mnt/e");
	memcpy(add.raw, master, 64);
	fd = open(in_dir("mnt/e"), O_RDONLY);
	err = ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, &add);
	if (!err) {
		memcpy(policy.master_key_identifier, add.arg.key_spec.u.identifier, 16);
		err = ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &policy);
	}
	close(fd);
	if (!err)
		run("cd mnt/e && mkdir d d/sub full && echo x > full/x && for i in 1 2 3 4 5 6 7 8 9; do echo hello > file-$i; done && "
		    "ln -s target link && echo x > a-name-that-is-long-enough-to-have-a-no-key-name-of-another-form-"
		    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
	run("umount mnt");
	return !err;
}

static void refused_in_encrypted(struct inl_volume *vol, int err)
{
	assert_int_equal(make(vol, "/plain", S_IFREG, 0, 0), 0);
	assert_int_equal(make(vol, "/e/new", S_IFREG, 0, 0), err);
	assert_int_equal(make(vol, "/e/new", S_IFDIR, 0, 0), err);
	assert_int_equal(make_symlink(vol, "t", "/e/new"), err);
	assert_int_equal(make_link(vol, "/plain", "/e/new"), err);
	assert_int_equal(move(vol, "/plain", "/e/new", 0), err);
	assert_int_equal(move(vol, "/e/file-1", "/e/file-2", 0), err);
	assert_int_equal(move(vol, "/e/file-1", "/plain", INL_RENAME_EXCHANGE), err);
	assert_int_equal(take(vol, "/plain", false), 0);
}

/* Everything in the directory goes by the names that it shows. */
static void remove_all(struct inl_volume *vol, const char *path, unsigned want)
{
	struct inl_inode *inode = get(vol, path);
	struct inl_dirent entries[20];
	struct inl_dir *dir;
	unsigned n = 0;

	assert_int_equal(inl_dir_open(inode, NULL, &dir), 0);
	while (n < COUNT(entries) && inl_dir_next(dir, &entries[n], NULL) == 1)
		n++;
	inl_dir_close(dir);
	assert_int_equal(n, want);
	for (unsigned i = 0; i < n; i++) {
		char below[PATH_MAX];

		snprintf(below, sizeof(below), "%s/%s", path, entries[i].name);
		if (entries[i].type == DT_DIR) {
			assert_int_equal(inl_unlink(inode, entries[i].name, entries[i].len, NULL), -EISDIR);
			assert_int_equal(inl_rmdir(inode, entries[i].name, entries[i].len, NULL), -ENOTEMPTY);
			remove_all(vol, below, 1);
			assert_int_equal(inl_rmdir(inode, entries[i].name, entries[i].len, NULL), 0);
		} else if (!(want == 1 && entries[i].type == DT_DIR)) {
			assert_int_equal(inl_unlink(inode, entries[i].name, entries[i].len, NULL), 0);
			assert_int_equal(inl_unlink(inode, entries[i].name, entries[i].len, NULL), -ENOENT);
		}
	}
	inl_inode_put(inode);
}

static void test_encrypted(void **state)
{
	struct inl_keyring *keys;
	struct disk disk;

	needs_kernel();
	if (!make_encrypted()) {
		print_message("skipped: the kernel does not encrypt\n");
		skip();
	}
	run("cp a.img b.img && mount -o loop b.img mnt && rmdir mnt/lost+found && umount mnt");
	disk_open(&disk, "a.img");
	refused_in_encrypted(disk.vol, -ENOKEY);
	assert_int_equal(move(disk.vol, "/e/file-1", "/out", 0), -ENOKEY);
	assert_int_equal(take(disk.vol, "/e/file-1", false), -ENOKEY);
	disk_close(&disk);
	fsck("a.img");

	assert_int_equal(inl_keyring_new(&keys), 0);
	assert_int_equal(inl_keyring_add(keys, master, sizeof(master), NULL), 0);
	disk_open_keys(&disk, "a.img", keys, INL_VOLUME_WRITE);
	refused_in_encrypted(disk.vol, -EOPNOTSUPP);
	assert_int_equal(take(disk.vol, "/e/file-1", false), 0);
	assert_int_equal(take(disk.vol, "/e/file-1", false), -ENOENT);
	assert_int_equal(move(disk.vol, "/e/file-2", "/out", 0), 0);
	assert_int_equal(make_link(disk.vol, "/e/file-3", "/linked"), 0);
	assert_int_equal(take(disk.vol, "/e/d", true), -ENOTEMPTY);
	assert_int_equal(take(disk.vol, "/e/d/sub", true), 0);
	assert_int_equal(take(disk.vol, "/e/d", true), 0);
	assert_int_equal(take(disk.vol, "/e/link", false), 0);
	disk_close(&disk);
	inl_keyring_free(keys);
	fsck("a.img");

	/* Without the key: 7 files, the long one, and the directory with one more. */
	disk_open(&disk, "a.img");
	{
		struct inl_inode *dir = get(disk.vol, "/e");

		/* full is the only directory left. */
		inl_inode_put(dir);
	}
	remove_all(disk.vol, "/e", 9);
	assert_int_equal(take(disk.vol, "/e", true), 0);
	disk_close(&disk);
	fsck("a.img");
	run("mount -o loop a.img mnt && test ! -e mnt/e && test -e mnt/out && umount mnt");
}

/* ---- orphans ------------------------------------------------------------------------------------------------------------------ */

static uint32_t first_orphan(struct inl_volume *vol)
{
	return vol->fs->super->s_last_orphan;
}

/* The list as a crash now would leave it, read through the journal. Returns how many. */
static unsigned orphans_now(struct disk *disk, uint32_t *list)
{
	FILE *copy = fopen(in_dir("c.img"), "w");
	struct disk other;
	unsigned n = 0;

	assert_int_equal(inl_sync(disk->vol, NULL), 0);
	assert_int_equal(fwrite(disk->bytes, 1, disk->size, copy), disk->size);
	fclose(copy);
	disk_open_keys(&other, "c.img", NULL, 0);
	for (uint32_t ino = first_orphan(other.vol); ino && n < 20;) {
		struct inl_inode *inode;

		list[n++] = ino;
		assert_int_equal(inl_inode_load(other.vol, ino, NULL, &inode), 0);
		ino = inode->raw.i_dtime;
		inl_inode_put(inode);
	}
	disk_close(&other);
	return n;
}

/* A crash now: Inlay finishes so many, and so does the kernel. */
static void crash_now(struct disk *disk, unsigned want)
{
	struct inl_volume_info info;
	uint32_t list[20];
	struct disk other;

	assert_int_equal(orphans_now(disk, list), want);
	run("cp c.img d.img");
	disk_open(&other, "c.img");
	inl_volume_info(other.vol, &info);
	assert_int_equal(info.n_orphans, want);
	disk_close(&other);
	fsck("c.img");
	if (has_kernel) {
		run("mount -o loop d.img mnt && umount mnt");
		fsck("d.img");
	} else {
		run("e2fsck -fy d.img; e2fsck -fn d.img");
	}
}

#define N_OPEN 6

static void test_orphan_list(void **state)
{
	/* Closed in this order: the last one added, the first one, then from the middle. */
	static const unsigned order[N_OPEN] = { 5, 0, 2, 3, 1, 4 };
	struct inl_inode *open[N_OPEN];
	uint64_t free_inodes, free_blocks;
	struct inl_volume_info info;
	uint32_t list[20];
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	inl_volume_info(disk.vol, &info);
	free_inodes = info.n_free_inodes;
	free_blocks = info.n_free_blocks;
	for (unsigned i = 0; i < N_OPEN; i++) {
		char path[16];

		snprintf(path, sizeof(path), "/f%u", i);
		assert_int_equal(make(disk.vol, path, i == 3 ? S_IFDIR | 0755 : S_IFREG | 0644, 0, 0), 0);
		if (i != 3)
			put_data(disk.vol, path, 3000 * i);
		open[i] = get(disk.vol, path);
		assert_int_equal(take(disk.vol, path, i == 3), 0);
	}
	/* What nobody has goes at once. */
	assert_int_equal(make(disk.vol, "/g", S_IFREG, 0, 0), 0);
	put_data(disk.vol, "/g", 5000);
	assert_int_equal(take(disk.vol, "/g", false), 0);
	assert_int_equal(orphans_now(&disk, list), N_OPEN);
	for (unsigned i = 0; i < N_OPEN; i++)
		assert_int_equal(list[i], open[N_OPEN - 1 - i]->ino);
	crash_now(&disk, N_OPEN);
	for (unsigned i = 0; i < N_OPEN; i++) {
		inl_inode_put(open[order[i]]);
		open[order[i]] = NULL;
		assert_int_equal(orphans_now(&disk, list), N_OPEN - 1 - i);
		for (unsigned k = N_OPEN, at = 0; k-- > 0;) {
			if (open[k])
				assert_int_equal(list[at++], open[k]->ino);
		}
		if (i == 2)
			crash_now(&disk, N_OPEN - 1 - i);
	}
	inl_volume_info(disk.vol, &info);
	assert_int_equal(info.n_free_inodes, free_inodes);
	assert_int_equal(info.n_free_blocks, free_blocks);
	disk_close(&disk);
	fsck("a.img");
}

/* Over an open file, over an open directory; and a hard link keeps it. */
static void test_orphan_rename(void **state)
{
	struct inl_inode *file, *dir, *kept;
	uint8_t buf[4] = { 0 };
	uint32_t list[20];
	struct disk disk;
	size_t got;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[][2] = { { "/f", "/f2" }, { "/d", "/d2" }, { "/k", "/k2" } };

		for (unsigned k = 0; k < 2; k++)
			assert_int_equal(make(disk.vol, names[i][k], i == 1 ? S_IFDIR | 0755 : S_IFREG | 0644, 0, 0), 0);
	}
	put_data(disk.vol, "/f2", 3000);
	assert_int_equal(make_link(disk.vol, "/k2", "/k3"), 0);
	file = get(disk.vol, "/f2");
	dir = get(disk.vol, "/d2");
	kept = get(disk.vol, "/k2");
	assert_int_equal(move(disk.vol, "/f", "/f2", 0), 0);
	assert_int_equal(move(disk.vol, "/d", "/d2", 0), 0);
	assert_int_equal(move(disk.vol, "/k", "/k2", 0), 0);
	assert_int_equal(orphans_now(&disk, list), 2);
	assert_int_equal(list[0], dir->ino);
	assert_int_equal(list[1], file->ino);
	assert_int_equal(kept->raw.i_links_count, 1);
	/* It can still be read. */
	assert_int_equal(inl_read(file, 0, buf, 4, &got, NULL), 0);
	assert_memory_equal(buf, "xxxx", 4);
	crash_now(&disk, 2);
	inl_inode_put(file);
	inl_inode_put(dir);
	inl_inode_put(kept);
	assert_int_equal(orphans_now(&disk, list), 0);
	disk_close(&disk);
	fsck("a.img");
}

/* A large file, in pieces, on a volume with a small journal: whatever a flush has made durable can be finished. */
static unsigned n_with_orphans;

static void snapshot(struct disk *disk)
{
	struct inl_volume_info info;
	struct disk other;
	FILE *copy;

	if (disk->n_flushes++ % 3)
		return;
	copy = fopen(in_dir("c.img"), "w");
	assert_int_equal(fwrite(disk->bytes, 1, disk->size, copy), disk->size);
	fclose(copy);
	disk_open(&other, "c.img");
	inl_volume_info(other.vol, &info);
	n_with_orphans += info.n_orphans;
	disk_close(&other);
	fsck("c.img");
}

static void big_file(const char *type, bool shorten)
{
	struct inl_inode *inode;
	struct disk disk;
	size_t done;

	run("rm -f a.img && truncate -s 12M a.img && mke2fs -Fq -t %s -b 1024 -J size=1 a.img", type);
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	inode = get(disk.vol, "/f");
	/* Every other block: as many extents as blocks. */
	for (unsigned i = 0; i < 1200; i++) {
		char buf[1024];

		memset(buf, 'a' + (int)(i % 26), sizeof(buf));
		assert_int_equal(inl_write(inode, i * 2048ull * (i > 1000 ? 3 : 1), buf, sizeof(buf), &done, NULL), 0);
	}
	assert_int_equal(inl_sync(disk.vol, NULL), 0);
	n_with_orphans = 0;
	disk.flushed = snapshot;
	if (shorten) {
		assert_int_equal(inl_truncate(inode, 5000, NULL), 0);
		inl_inode_put(inode);
	} else {
		assert_int_equal(take(disk.vol, "/f", false), 0);
		inl_inode_put(inode);
	}
	disk.flushed = NULL;
	disk_close(&disk);
	fsck("a.img");
	disk_open(&disk, "a.img");
	if (shorten)
		assert_int_equal(stat_of(disk.vol, "/f").blocks, 3 * 2 + (strcmp(type, "ext3") ? 0 : 0));
	disk_close(&disk);
	assert_true(disk.n_flushes == 0);
	assert_true(n_with_orphans > 0);
}

static void test_big_delete(void **state)
{
	needs_tools();
	big_file("ext4", false);
	big_file("ext3", false);
}

static void test_big_shorten(void **state)
{
	needs_tools();
	big_file("ext4", true);
	big_file("ext3", true);
}

/* Lists that no crash leaves. */
static void test_orphan_damage(void **state)
{
	static const struct {
		const char *commands;
		int err;
		unsigned n;
	} cases[] = {
		{ "ssv last_orphan 12", 0, 1 },		    /* a file with a name: shortened to its size */
		{ "ssv last_orphan 14", -EUCLEAN, 0 },	    /* not in use */
		{ "ssv last_orphan 5", -EUCLEAN, 0 },	    /* reserved */
		{ "ssv last_orphan 4000000", -EUCLEAN, 0 }, /* out of range */
		{ "ssv last_orphan 12\nsif <12> dtime 13\nsif <13> dtime 12", 0, 3 }, /* a circle of names: comes to an end */
		{ "ssv last_orphan 12\nsif <12> dtime 12", 0, 2 },
		{ "ssv last_orphan 13\nsif <13> links_count 0\nsif <13> dtime 12\nsif <12> dtime 13", -EUCLEAN, 0 },
	};

	needs_tools();
	run("rm -f b.img && truncate -s 8M b.img && mke2fs -Fq -t ext4 -b 1024 b.img && echo x > x && "
	    "printf 'write x f\\nwrite x g\\n' | debugfs -w b.img");
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct inl_volume_info info;
		struct inl_diag diag = { 0 };
		struct disk disk;
		int err;

		run("cp b.img a.img && printf '%s\\n' | debugfs -w a.img", cases[i].commands);
		disk_map(&disk, "a.img");
		err = inl_volume_open(disk.dev, NULL, INL_VOLUME_WRITE, &diag, &disk.vol);
		if (err != cases[i].err)
			print_error("%s: %d %s\n", cases[i].commands, err, diag.text);
		assert_int_equal(err, cases[i].err);
		if (err) {
			assert_non_null(strstr(diag.text, "orphan"));
		} else {
			inl_volume_info(disk.vol, &info);
			assert_int_equal(info.n_orphans, cases[i].n);
			assert_int_equal(inl_volume_close(disk.vol), 0);
		}
		disk_unmap(&disk);
		if (!err)
			fsck("a.img");
	}
}

/* A file whose map is damaged cannot be deleted: it stays on the list, behind the others, which can. */
static void test_orphan_aside(void **state)
{
	struct inl_inode *good[2], *bad;
	uint32_t list[20], ino;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/a", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/b", S_IFREG, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/c", S_IFREG, 0, 0), 0);
	put_data(disk.vol, "/b", 2000);
	disk_close(&disk);
	run("debugfs -w -R 'sif /b block[5] 0x7fffffff' a.img");
	disk_open(&disk, "a.img");
	good[0] = get(disk.vol, "/a");
	bad = get(disk.vol, "/b");
	good[1] = get(disk.vol, "/c");
	assert_int_equal(take(disk.vol, "/a", false), 0);
	assert_int_equal(take(disk.vol, "/b", false), 0);
	assert_int_equal(take(disk.vol, "/c", false), 0);
	ino = bad->ino;
	inl_inode_put(bad);
	assert_int_equal(orphans_now(&disk, list), 3);
	assert_int_equal(list[0], good[1]->ino);
	assert_int_equal(list[1], good[0]->ino);
	assert_int_equal(list[2], ino);
	inl_inode_put(good[0]);
	assert_int_equal(orphans_now(&disk, list), 2);
	assert_int_equal(list[1], ino);
	inl_inode_put(good[1]);
	assert_int_equal(orphans_now(&disk, list), 1);
	assert_int_equal(list[0], ino);
	disk_close(&disk);
	disk_map(&disk, "a.img");
	assert_int_equal(inl_volume_open(disk.dev, NULL, INL_VOLUME_WRITE, NULL, &disk.vol), -EUCLEAN);
	disk_unmap(&disk);
}

/* ---- several at once ------------------------------------------------------------------------------------------------------------ */

struct worker {
	struct inl_volume *vol;
	unsigned seed;
	unsigned n_done;
};

static unsigned draw(struct worker *worker, unsigned below)
{
	worker->seed = worker->seed * 1664525u + 1013904223u;
	return (worker->seed >> 10) % below;
}

/* A path of up to three levels, out of few names. */
static void draw_path(struct worker *worker, char *path)
{
	unsigned depth = 1 + draw(worker, 3);

	for (unsigned i = 0; i < depth; i++)
		path += sprintf(path, "/%c", 'a' + (int)draw(worker, 4));
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct inl_volume *vol = worker->vol;

	for (unsigned i = 0; i < 3000; i++) {
		char a[16], b[16];
		int err;

		draw_path(worker, a);
		draw_path(worker, b);
		switch (draw(worker, 8)) {
		case 0:
			err = make(vol, a, S_IFREG | 0644, 0, 0);
			break;
		case 1:
		case 2:
			err = make(vol, a, S_IFDIR | 0755, 0, 0);
			break;
		case 3:
			err = take(vol, a, false);
			break;
		case 4:
			err = take(vol, a, true);
			break;
		case 5:
			err = make_link(vol, a, b);
			break;
		default:
			err = move(vol, a, b, draw(worker, 3));
			break;
		}
		worker->n_done += !err;
		if (err == -EUCLEAN || err == -EIO || err == -ESTALE || err == -EAGAIN || err == -E2BIG || err == -ENOSPC)
			return "an error that should not come";
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct worker workers[3];
	pthread_t threads[3];
	struct disk disk;
	void *wrong[3];

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	for (unsigned i = 0; i < 3; i++) {
		workers[i] = (struct worker){ disk.vol, 77 + i, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], &wrong[i]);
	for (unsigned i = 0; i < 3; i++) {
		assert_null(wrong[i]);
		assert_true(workers[i].n_done > 100);
	}
	assert_int_equal(first_orphan(disk.vol), 0);
	assert_null(disk.vol->orphans.first);
	disk_close(&disk);
	fsck("a.img");
}

/* ---- set up --------------------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
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

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	if (!work_dir[0])
		return 0;
	/* After a test that failed. */
	try_run("umount mnt; umount mnt2");
	return nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_error_names),
		cmocka_unit_test(test_dead_dir),
		cmocka_unit_test(test_rename_matrix),
		cmocka_unit_test(test_times_of_names),
		cmocka_unit_test(test_time_range),
		cmocka_unit_test(test_setattr),
		cmocka_unit_test(test_chmod_acl),
		cmocka_unit_test(test_made_as_linux),
		cmocka_unit_test(test_symlink_lengths),
		cmocka_unit_test(test_link_limits),
		cmocka_unit_test(test_flags_forbid),
		cmocka_unit_test(test_encrypted),
		cmocka_unit_test(test_orphan_list),
		cmocka_unit_test(test_orphan_rename),
		cmocka_unit_test(test_big_delete),
		cmocka_unit_test(test_big_shorten),
		cmocka_unit_test(test_orphan_damage),
		cmocka_unit_test(test_orphan_aside),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
