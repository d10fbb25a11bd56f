/*
 * tests/unit/test_namei.c: names: what Linux does, Inlay does.
 * Not here: attributes (test_attr.c); orphans (test_orphan.c); crashes at every write (tests/crash).
 * Read more: ext4/namei.h.
 *
 * Most operations are done twice: by Inlay on an image, and by the running kernel on a twin of it (without root and loop
 * devices: in a directory of whatever file system that is). The errors must be the same, and so must all that is there
 * afterwards. Every image that was written ends in e2fsck -fn.
 */
#include "namei_rig.h"
#include <dirent.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <sys/ioctl.h>

/* ---- twins ------------------------------------------------------------------------------------------------------- */

struct twins {
	struct disk disk; /* a.img */
	char root[PATH_MAX]; /* b.img, mounted, or a plain directory */
};

#define TWIN_OPTIONS "-t ext4 -b 1024 -I 256 -N 2048"

static void twins_begin(struct twins *twins)
{
	run("rm -f a.img && truncate -s 24M a.img && mke2fs -Fq " TWIN_OPTIONS " a.img");
	try_run("umount mnt; umount mnt2"); /* of a test that failed */
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
		if (has_kernel && st.nlink != want.st_nlink)
			print_error("%s: %u links, not %lu\n", child, st.nlink, (unsigned long)want.st_nlink);
		if (has_kernel)
			assert_int_equal(st.nlink, want.st_nlink);
		if (has_kernel && entry.type != DT_DIR) {
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

#define LIST "find . -type d -printf '%%P %%y %%m %%n\\n' -o -printf '%%P %%y %%m %%n %%s %%b %%l\\n' | sort"

/* The same through the kernel: it mounts what Inlay wrote. */
static void twins_end(struct twins *twins)
{
	compare_dir(twins, "");
	disk_close(&twins->disk);
	fsck("a.img");
	if (!has_kernel)
		return;
	run("mkdir -p mnt2 && mount -o loop a.img mnt2 && (cd mnt && " LIST ") >list && (cd mnt2 && " LIST ") >list2; "
	    "umount mnt2 mnt; test -s list && diff list list2");
	fsck("a.img");
}

/* ---- errors, one by one ------------------------------------------------------------------------------------------ */

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

/* ---- rename: everything onto everything -------------------------------------------------------------------------- */

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

/* ---- times: what changes with what ------------------------------------------------------------------------------- */

static unsigned newer(struct inl_time a, struct inl_time b)
{
	return a.sec != b.sec || a.nsec != b.nsec;
}

static const char *const watched[] = { "/", "/a", "/b", "/a/f", "/a/d", "/b/f", "/b/d", "/a/l" };

/* What an inode had, wherever its name is now. */
struct seen {
	uint64_t ino; /* 0: nothing has this name */
	struct inl_time times[2];
};

static void look_inlay(struct twins *twins, struct seen *seen)
{
	for (size_t i = 0; i < COUNT(watched); i++) {
		struct inl_inode *inode;
		struct inl_stat st = { 0 };

		if (!inl_path(twins->disk.vol, watched[i], false, NULL, &inode)) {
			assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
			inl_inode_put(inode);
		}
		seen[i] = (struct seen){ st.ino, { st.mtime, st.ctime } };
	}
}

static void look_kernel(struct twins *twins, struct seen *seen)
{
	for (size_t i = 0; i < COUNT(watched); i++) {
		struct stat st = { 0 };

		if (lstat(real(twins, watched[i]), &st))
			memset(&st, 0, sizeof(st));
		seen[i] = (struct seen){ st.st_ino, { { st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec },
						      { st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec } } };
	}
}

/* Which times of what has a name now have changed since it was seen: bits. */
static unsigned changes(const struct seen *before, const struct seen *now)
{
	for (size_t i = 0; i < COUNT(watched); i++) {
		if (before[i].ino && before[i].ino == now->ino)
			return newer(before[i].times[0], now->times[0]) | newer(before[i].times[1], now->times[1]) << 1;
	}
	return 0;
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
		struct seen before[2][COUNT(watched)], after[2][COUNT(watched)];

		look_inlay(&twins, before[0]);
		look_kernel(&twins, before[1]);
		usleep(12000); /* the kernel's clock has ticks of up to 10 ms */
		assert_int_equal(both(&twins, &steps[i]), 0);
		look_inlay(&twins, after[0]);
		look_kernel(&twins, after[1]);
		for (size_t k = 0; k < COUNT(watched); k++) {
			unsigned got = changes(before[0], &after[0][k]), want = changes(before[1], &after[1][k]);

			if (got != want)
				print_error("%c %s %s: of %s %x change, should %x\n", steps[i].what, steps[i].a,
					    steps[i].b ? steps[i].b : "", watched[k], got, want);
			assert_int_equal(got, want);
		}
	}
	twins_end(&twins);
}

/* ---- limits of links --------------------------------------------------------------------------------------------- */

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

/* ---- what may not be changed ------------------------------------------------------------------------------------- */

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

/* ---- encrypted directories --------------------------------------------------------------------------------------- */

static const uint8_t master[64] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 };

/* By the kernel: /e with files, a link and directories in it. False: it cannot. */
static bool make_encrypted(void)
{
	struct fscrypt_add_key_arg *add = test_calloc(1, sizeof(*add) + sizeof(master));
	struct fscrypt_policy_v2 policy = { .version = 2, .contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
					    .filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS, .flags = FSCRYPT_POLICY_FLAGS_PAD_16 };
	int fd, err;

	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 -O encrypt a.img && mount -o loop a.img mnt && mkdir mnt/e");
	add->key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
	add->raw_size = sizeof(master);
	memcpy(add->raw, master, sizeof(master));
	fd = open(in_dir("mnt/e"), O_RDONLY);
	err = ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, add);
	if (!err) {
		memcpy(policy.master_key_identifier, add->key_spec.u.identifier, 16);
		err = ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &policy);
	}
	close(fd);
	test_free(add);
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

/* With the key all of that is made, but for what is not encrypted itself; and all is gone again. */
static void made_in_encrypted(struct inl_volume *vol)
{
	assert_int_equal(make(vol, "/plain", S_IFREG, 0, 0), 0);
	assert_int_equal(make_link(vol, "/plain", "/e/new"), -EXDEV);
	assert_int_equal(move(vol, "/plain", "/e/new", 0), -EXDEV);
	assert_int_equal(move(vol, "/plain", "/e/file-2", 0), -EXDEV);
	assert_int_equal(move(vol, "/e/file-1", "/plain", INL_RENAME_EXCHANGE), -EXDEV);
	assert_int_equal(make(vol, "/e/new", S_IFREG, 0, 0), 0);
	assert_int_equal(make(vol, "/e/new", S_IFREG, 0, 0), -EEXIST);
	assert_int_equal(make(vol, "/e/dir", S_IFDIR, 0, 0), 0);
	assert_int_equal(make(vol, "/e/dir/fifo", S_IFIFO, 0, 0), 0);
	assert_int_equal(make_symlink(vol, "t", "/e/dir/link"), 0);
	assert_int_equal(make_link(vol, "/e/new", "/e/dir/more"), 0);
	assert_int_equal(move(vol, "/e/new", "/e/dir/new", INL_RENAME_NOREPLACE), 0);
	assert_int_equal(move(vol, "/e/dir/new", "/e/dir/link", INL_RENAME_EXCHANGE), 0);
	assert_int_equal(move(vol, "/e/dir/more", "/out", 0), 0);
	assert_int_equal(move(vol, "/out", "/e/dir/more", 0), 0);
	assert_int_equal(take(vol, "/e/dir", true), -ENOTEMPTY);
	assert_int_equal(take(vol, "/e/dir/fifo", false), 0);
	assert_int_equal(take(vol, "/e/dir/link", false), 0);
	assert_int_equal(take(vol, "/e/dir/new", false), 0);
	assert_int_equal(take(vol, "/e/dir/more", false), 0);
	assert_int_equal(take(vol, "/e/dir", true), 0);
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
		} else {
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
	disk_open(&disk, "a.img");
	refused_in_encrypted(disk.vol, -ENOKEY);
	assert_int_equal(move(disk.vol, "/e/file-1", "/out", 0), -ENOKEY);
	assert_int_equal(take(disk.vol, "/e/file-1", false), -ENOKEY);
	disk_close(&disk);
	fsck("a.img");

	assert_int_equal(inl_keyring_new(&keys), 0);
	assert_int_equal(inl_keyring_add(keys, master, sizeof(master), NULL), 0);
	disk_open_keys(&disk, "a.img", keys, INL_VOLUME_WRITE);
	made_in_encrypted(disk.vol);
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

	/* Without the key: file-3 to file-9, the one with the long name, and a directory. */
	disk_open(&disk, "a.img");
	remove_all(disk.vol, "/e", 9);
	assert_int_equal(take(disk.vol, "/e", true), 0);
	disk_close(&disk);
	fsck("a.img");
	run("mount -o loop a.img mnt && test ! -e mnt/e && test -e mnt/out && umount mnt");
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

struct parent {
	struct inl_inode *dir;
	uint32_t ino;
};

static int set_parent_op(struct inl_handle *op, void *arg)
{
	const struct parent *parent = arg;

	return inl_dir_replace(op, parent->dir, (const uint8_t *)"..", 2, parent->ino, DT_DIR);
}

/* Ways up that do not lead to the root, and names of inodes that are none. */
static void test_damage(void **state)
{
	struct inl_inode *a, *f;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img && touch x && "
	    "printf 'write x gone\\nmkdir a\\nmkdir a/b\\nmkdir a/b/c\\nmkdir d\\nwrite x f\\nsif gone links_count 0\\n"
	    "sif gone dtime 1\\nsif gone mode 0\\n' | debugfs -w a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(take(disk.vol, "/gone", false), -EUCLEAN);
	assert_int_equal(move(disk.vol, "/gone", "/x", 0), -EUCLEAN);
	assert_int_equal(move(disk.vol, "/f", "/gone", 0), -EUCLEAN);
	a = get(disk.vol, "/a");
	f = get(disk.vol, "/f");
	for (unsigned i = 0; i < 4; i++) {
		const uint32_t ups[] = { (uint32_t)stat_of(disk.vol, "/a/b/c").ino, a->ino, f->ino, 0x7fffffff };
		struct parent parent = { a, ups[i] };
		struct inl_inode *root = get(disk.vol, "/"), *below = get(disk.vol, "/a/b/c");

		assert_int_equal(inl_op_run(disk.vol, 5, set_parent_op, &parent, NULL), 0);
		assert_int_equal(inl_rename(root, "d", 1, below, "d", 1, 0, NULL), -EUCLEAN);
		parent.ino = INL_ROOT_INO;
		assert_int_equal(inl_op_run(disk.vol, 5, set_parent_op, &parent, NULL), 0);
		inl_inode_put(below);
		inl_inode_put(root);
	}
	assert_int_equal(move(disk.vol, "/d", "/a/b/c/d", 0), 0);
	inl_inode_put(a);
	inl_inode_put(f);
	disk_close(&disk);
}

/* ---- a full volume ----------------------------------------------------------------------------------------------- */

static void test_full(void **state)
{
	struct inl_volume_info info;
	struct disk disk;
	char path[32];
	unsigned n = 0;
	int err;

	needs_tools();
	/* Few inodes. */
	run("rm -f a.img && truncate -s 4M a.img && mke2fs -Fq -t ext4 -b 1024 -N 64 a.img");
	disk_open(&disk, "a.img");
	do {
		snprintf(path, sizeof(path), "/%u", n++);
		err = make(disk.vol, path, n % 5 ? S_IFREG | 0644 : S_IFDIR | 0755, 0, 0);
	} while (!err);
	assert_int_equal(err, -ENOSPC);
	inl_volume_info(disk.vol, &info);
	assert_int_equal(info.n_free_inodes, 0);
	assert_int_equal(take(disk.vol, "/0", false), 0);
	assert_int_equal(make(disk.vol, path, S_IFREG, 0, 0), 0);
	assert_int_equal(make_link(disk.vol, "/1", "/0"), 0);
	disk_close(&disk);
	fsck("a.img");

	/* Few blocks: a directory takes one, its parent one for many of them. Nothing is left of what failed. */
	run("rm -f a.img && truncate -s 2M a.img && mke2fs -Fq -t ext4 -b 1024 -O ^has_journal -N 2000 a.img");
	disk_open(&disk, "a.img");
	for (n = 0, err = 0; !err; n++) {
		uint32_t before;

		inl_volume_info(disk.vol, &info);
		before = info.n_free_inodes;
		snprintf(path, sizeof(path), "/a-name-of-some-length-%u", n);
		err = make(disk.vol, path, S_IFDIR | 0755, 0, 0);
		inl_volume_info(disk.vol, &info);
		assert_int_equal(info.n_free_inodes, before - !err);
	}
	assert_int_equal(err, -ENOSPC);
	assert_true(n > 500);
	/* What a directory has left, because it needs two, symbolic links with blocks of their own may take. */
	for (n = 0, err = 0; !err && n < 4; n++) {
		snprintf(path, sizeof(path), "/link-%u", n);
		err = make_symlink(disk.vol, "a-target-that-is-too-long-to-lie-in-an-inode-so-that-it-needs-a-block", path);
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(take(disk.vol, "/a-name-of-some-length-7", true), 0);
	assert_int_equal(make(disk.vol, "/a-name-of-some-length-7", S_IFDIR | 0755, 0, 0), 0);
	disk_close(&disk);
	fsck("a.img");
}

/* ---- somebody comes between -------------------------------------------------------------------------------------- */

int __real_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);
int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);

/* What is done behind the back of the next operation, when it has looked its names up. */
static _Thread_local const struct step *between;

static int do_step(struct inl_volume *vol, const struct step *step)
{
	struct twins twins = { .disk.vol = vol };

	return by_inlay(&twins, step);
}

int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	const struct step *step = between;

	between = NULL;
	if (step)
		assert_int_equal(do_step(vol, step), 0);
	return __real_inl_op_run(vol, credits, fn, arg, diag);
}

static void test_between(void **state)
{
	static const struct {
		struct step step, between;
		int err;
	} cases[] = {
		{ { 'u', "/f" }, { 'u', "/f" }, -ENOENT },
		{ { 'u', "/f" }, { 'm', "/g", "/f" }, 0 },
		{ { 'u', "/f" }, { 'm', "/d", "/f", INL_RENAME_EXCHANGE }, -EISDIR },
		{ { 'f', "/x" }, { 'f', "/x" }, -EEXIST },
		{ { 'f', "/d/x" }, { 'r', "/d" }, -ENOENT },
		{ { 'h', "/f", "/x" }, { 'f', "/x" }, -EEXIST },
		{ { 'h', "/f", "/x" }, { 'u', "/f" }, -ENOENT },
		{ { 'h', "/f", "/d/x" }, { 'r', "/d" }, -ENOENT },
		{ { 'r', "/d" }, { 'f', "/d/x" }, -ENOTEMPTY },
		{ { 'r', "/d" }, { 'r', "/d" }, -ENOENT },
		{ { 'r', "/d" }, { 'm', "/f", "/d", INL_RENAME_EXCHANGE }, -ENOTDIR },
		{ { 'm', "/f", "/x" }, { 'f', "/x" }, 0 },
		{ { 'm', "/f", "/x", INL_RENAME_NOREPLACE }, { 'f', "/x" }, -EEXIST },
		{ { 'm', "/f", "/x" }, { 'd', "/x" }, -EISDIR },
		{ { 'm', "/f", "/x" }, { 'u', "/f" }, -ENOENT },
		{ { 'm', "/f", "/x" }, { 'h', "/f", "/x" }, 0 },
		{ { 'm', "/f", "/g" }, { 'u', "/g" }, 0 },
		{ { 'm', "/f", "/g", INL_RENAME_EXCHANGE }, { 'u', "/g" }, -ENOENT },
		{ { 'm', "/f", "/d/x" }, { 'r', "/d" }, -ENOENT },
		{ { 'm', "/d", "/e" }, { 'f', "/e/x" }, -ENOTEMPTY },
		/* The one is about to move below the other, and finds itself below it. */
		{ { 'm', "/d", "/a/b/d" }, { 'm', "/a", "/d/a" }, -EINVAL },
		{ { 'm', "/d", "/a/b", INL_RENAME_EXCHANGE }, { 'm', "/a", "/d/a" }, -EINVAL },
		{ { 'm', "/d", "/a/b/d" }, { 'm', "/a/b", "/b" }, 0 },
	};

	needs_tools();
	for (size_t i = 0; i < COUNT(cases); i++) {
		static const struct step before[] = { { 'f', "/f" }, { 'f', "/g" }, { 'd', "/d" }, { 'd', "/e" }, { 'd', "/a" },
						      { 'd', "/a/b" } };
		struct disk disk;
		int err;

		run("rm -f a.img && truncate -s 2M a.img && mke2fs -Fq -t ext4 -O ^has_journal -b 1024 a.img");
		disk_open(&disk, "a.img");
		for (size_t k = 0; k < COUNT(before); k++)
			assert_int_equal(do_step(disk.vol, &before[k]), 0);
		between = &cases[i].between;
		err = do_step(disk.vol, &cases[i].step);
		if (err != cases[i].err)
			print_error("%zu: %d\n", i, err);
		assert_int_equal(err, cases[i].err);
		assert_null(between);
		assert_null(disk.vol->orphans.first);
		disk_close(&disk);
		fsck("a.img");
	}
}

/* ---- several at once --------------------------------------------------------------------------------------------- */

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
	assert_null(disk.vol->orphans.first);
	disk_close(&disk);
	fsck("a.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_error_names),
		cmocka_unit_test(test_dead_dir),
		cmocka_unit_test(test_rename_matrix),
		cmocka_unit_test(test_times_of_names),
		cmocka_unit_test(test_link_limits),
		cmocka_unit_test(test_flags_forbid),
		cmocka_unit_test(test_encrypted),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_between),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
