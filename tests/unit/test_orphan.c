/*
 * tests/unit/test_orphan.c: inodes without names, and files that become shorter: finished now, or after a crash.
 * Not here: crashes at every write (tests/crash).
 * Read more: ext4/orphan.c. The list is read from a copy of the image as a crash would leave it.
 */
#include "namei_rig.h"

/* ---- orphans ----------------------------------------------------------------------------------------------------- */

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

static void still_orphan(struct disk *disk, const struct inl_inode *inode)
{
	uint32_t list[20];

	assert_int_equal(orphans_now(disk, list), 1);
	assert_int_equal(list[0], inode->ino);
	assert_int_equal(inode->raw.i_links_count, 0);
}

/* One that somebody still has is used as before; it remains an orphan, whatever becomes of its size, and gets no name. */
static void use_held(struct disk *disk, struct inl_inode *root, struct inl_inode *file)
{
	static char buf[300000], found[300000];
	struct inl_attr attr = { .mode = 0600, .uid = 5, .mtime = { 77, 0 } };
	struct inl_stat st;
	size_t n;

	memset(buf, 'y', sizeof(buf));
	assert_int_equal(inl_write(file, 1000, buf, sizeof(buf), &n, NULL), 0);
	assert_int_equal(n, sizeof(buf));
	still_orphan(disk, file);
	assert_int_equal(inl_fallocate(file, 0, 400000, 50000, NULL), 0);
	assert_int_equal(inl_fallocate(file, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, 5000, 9000, NULL), 0);
	assert_int_equal(inl_fallocate(file, INL_FALLOC_ZERO_RANGE, 100000, 700, NULL), 0);
	still_orphan(disk, file);
	assert_int_equal(inl_setattr(file, &attr, INL_ATTR_MODE | INL_ATTR_UID | INL_ATTR_MTIME, NULL), 0);
	assert_int_equal(inl_xattr_set(file, "user.x", buf, 700, 0, NULL), 0);
	assert_int_equal(inl_set_flags(file, EXT4_FL_EXTENTS | 0x40, NULL), 0);
	assert_int_equal(inl_link(file, root, "again", 5, NULL), -ENOENT);
	still_orphan(disk, file);
	assert_int_equal(inl_inode_stat(file, &st, NULL), 0);
	assert_int_equal(st.size, 450000);
	assert_int_equal(st.nlink, 0);
	assert_int_equal(st.uid, 5);
	assert_int_equal(st.mtime.sec, 77);
	memset(buf + 4000, 0, 9000);
	memset(buf + 99000, 0, 700);
	assert_int_equal(inl_read(file, 1000, found, sizeof(found), &n, NULL), 0);
	assert_int_equal(n, sizeof(buf));
	assert_memory_equal(buf, found, n);
	crash_now(disk, 1);
	/* Within a block, to nothing, and to be filled anew. */
	assert_int_equal(inl_truncate(file, 123456, NULL), 0);
	still_orphan(disk, file);
	assert_int_equal(inl_truncate(file, 0, NULL), 0);
	still_orphan(disk, file);
	assert_int_equal(inl_truncate(file, 1 << 20, NULL), 0);
	assert_int_equal(inl_write(file, 5, buf, 100, &n, NULL), 0);
	still_orphan(disk, file);
	crash_now(disk, 1);
}

static void test_held(void **state)
{
	struct inl_inode *root, *file, *dir;
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct inl_volume_space before, after;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	root = get(disk.vol, "/");
	inl_volume_space(disk.vol, &before);
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	file = get(disk.vol, "/f");
	assert_int_equal(take(disk.vol, "/f", false), 0);
	use_held(&disk, root, file);
	inl_inode_put(file);
	inl_volume_space(disk.vol, &after);
	assert_memory_equal(&before, &after, sizeof(after));
	/* A directory that is gone is one, and nothing can come into it. */
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	dir = get(disk.vol, "/d");
	file = get(disk.vol, "/f");
	assert_int_equal(take(disk.vol, "/d", true), 0);
	attr.mode = S_IFDIR | 0700;
	assert_int_equal(inl_setattr(dir, &attr, INL_ATTR_MODE, NULL), 0);
	assert_int_equal(inl_create(dir, "x", 1, &attr, INL_ATTR_INHERIT, NULL, NULL), -ENOENT);
	assert_int_equal(inl_link(file, dir, "x", 1, NULL), -ENOENT);
	assert_int_equal(inl_rename(root, "f", 1, dir, "x", 1, INL_RENAME_WHITEOUT, NULL), -ENOENT);
	still_orphan(&disk, dir);
	inl_inode_put(file);
	inl_inode_put(dir);
	inl_inode_put(root);
	disk_close(&disk);
	fsck("a.img");
}

struct undone {
	struct inl_inode **inodes;
	unsigned n;
	bool remove;
};

static int undone_op(struct inl_handle *op, void *arg)
{
	const struct undone *undone = arg;

	for (unsigned i = 0; i < undone->n; i++) {
		int err = undone->remove ? inl_orphan_remove(op, undone->inodes[i]) : inl_orphan_add(op, undone->inodes[i]);

		if (err)
			return err;
	}
	return -ECANCELED;
}

/* An operation that fails at its end leaves the list as it was. */
static void test_orphan_undo(void **state)
{
	struct inl_inode *open[4], *middle[3];
	uint32_t list[20], again[20];
	struct disk disk;
	char path[16];

	needs_tools();
	run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
	disk_open(&disk, "a.img");
	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "/f%u", i);
		assert_int_equal(make(disk.vol, path, S_IFREG, 0, 0), 0);
		open[i] = get(disk.vol, path);
	}
	assert_int_equal(inl_op_run(disk.vol, 20, undone_op, &(struct undone){ open, 4, false }, NULL), -ECANCELED);
	assert_null(disk.vol->orphans.first);
	assert_null(disk.vol->orphans.last);
	for (unsigned i = 0; i < 4; i++) {
		assert_false(open[i]->orphan.listed);
		snprintf(path, sizeof(path), "/f%u", i);
		assert_int_equal(take(disk.vol, path, false), 0);
	}
	assert_int_equal(orphans_now(&disk, list), 4);
	middle[0] = open[2];
	middle[1] = open[1];
	middle[2] = open[3];
	for (unsigned n = 1; n <= 3; n++) {
		assert_int_equal(inl_op_run(disk.vol, 20, undone_op, &(struct undone){ middle, n, true }, NULL), -ECANCELED);
		assert_int_equal(inl_op_run(disk.vol, 20, undone_op, &(struct undone){ open, 4, true }, NULL), -ECANCELED);
		assert_int_equal(orphans_now(&disk, again), 4);
		assert_memory_equal(list, again, 4 * sizeof(list[0]));
	}
	assert_ptr_equal(disk.vol->orphans.first, open[3]);
	assert_ptr_equal(disk.vol->orphans.last, open[0]);
	for (unsigned i = 0; i < 4; i++)
		inl_inode_put(open[i]);
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
#define N_COPIES 6

static unsigned n_copies;

/* Zeros are left out: most of the image is. */
static void keep_copy(struct disk *disk)
{
	static const uint8_t zeros[4096];
	char name[16];
	int fd;

	if (n_copies == N_COPIES)
		return;
	snprintf(name, sizeof(name), "c%u.img", n_copies++);
	fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(ftruncate(fd, (off_t)disk->size), 0);
	for (size_t at = 0; at < disk->size; at += sizeof(zeros)) {
		if (memcmp(disk->bytes + at, zeros, sizeof(zeros)))
			assert_int_equal(pwrite(fd, disk->bytes + at, sizeof(zeros), (off_t)at), sizeof(zeros));
	}
	close(fd);
}

/* Returns in how many there was something to finish. */
static unsigned finish_copies(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < n_copies; i++) {
		struct inl_volume_info info;
		struct disk disk;
		char name[16];

		snprintf(name, sizeof(name), "c%u.img", i);
		disk_open(&disk, name);
		inl_volume_info(disk.vol, &info);
		n += info.n_orphans;
		disk_close(&disk);
		fsck(name);
	}
	return n;
}

/* Groups are so small that an operation has not credits for all of them. */
static void big_file(const char *type, bool shorten)
{
	static const uint8_t zeros[1 << 20];
	struct inl_inode *inode;
	struct disk disk;
	size_t done;

	run("rm -f a.img && truncate -s 96M a.img && mke2fs -Fq -t %s -b 1024 -g 256 -O ^resize_inode,^meta_bg -N 2000 -J size=1 a.img", type);
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	inode = get(disk.vol, "/f");
	for (unsigned i = 0; i < 80; i++)
		assert_int_equal(inl_write(inode, (uint64_t)i << 20, zeros, sizeof(zeros), &done, NULL), 0);
	assert_int_equal(inl_sync(disk.vol, NULL), 0);
	n_copies = 0;
	disk.flushed = keep_copy;
	if (shorten)
		assert_int_equal(inl_truncate(inode, 5000, NULL), 0);
	else
		assert_int_equal(take(disk.vol, "/f", false), 0);
	inl_inode_put(inode);
	disk.flushed = NULL;
	if (shorten) {
		assert_int_equal(stat_of(disk.vol, "/f").size, 5000);
		assert_int_equal(stat_of(disk.vol, "/f").blocks, 5 * 2);
	}
	disk_close(&disk);
	fsck("a.img");
	assert_true(n_copies > 1);
	assert_true(finish_copies() > 0);
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

int __real_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);
int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);

/* A name that is taken away before the operation after this many. */
static const char *taken;
static unsigned taken_after;

int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	const char *path = taken;

	if (path && taken_after-- == 0) {
		taken = NULL;
		assert_int_equal(take(vol, path, false), 0);
	}
	return __real_inl_op_run(vol, credits, fn, arg, diag);
}

/* While it becomes shorter the file loses its last name. */
static void test_shorten_unlink(void **state)
{
	needs_tools();
	for (unsigned after = 0; after < 2; after++) {
		struct inl_volume_info before, info;
		struct inl_inode *inode;
		uint32_t list[20];
		struct disk disk;

		run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img");
		disk_open(&disk, "a.img");
		inl_volume_info(disk.vol, &before);
		assert_int_equal(make(disk.vol, "/f", S_IFREG, 0, 0), 0);
		put_data(disk.vol, "/f", 100000);
		inode = get(disk.vol, "/f");
		taken = "/f";
		taken_after = after;
		/* The tail of a block must become zeros: that takes a second operation. */
		assert_int_equal(inl_truncate(inode, 1000, NULL), 0);
		assert_null(taken);
		assert_int_equal(orphans_now(&disk, list), 1);
		assert_int_equal(inode->raw.i_blocks, 2);
		inl_inode_put(inode);
		assert_int_equal(orphans_now(&disk, list), 0);
		inl_volume_info(disk.vol, &info);
		assert_int_equal(info.n_free_blocks, before.n_free_blocks);
		assert_int_equal(info.n_free_inodes, before.n_free_inodes);
		disk_close(&disk);
		fsck("a.img");
	}
}

/* A list of the kernel's, with its journal not replayed. */
static void test_orphans_of_linux(void **state)
{
	struct inl_volume_info info;
	struct disk disk;
	int fds[4];

	needs_kernel();
	run("rm -f a.img b.img && truncate -s 16M b.img && mke2fs -Fq -t ext4 -b 1024 b.img && mount -o loop b.img mnt");
	for (unsigned i = 0; i < COUNT(fds); i++) {
		char path[16];

		snprintf(path, sizeof(path), "mnt/f%u", i);
		fds[i] = open(in_dir(path), O_RDWR | O_CREAT, 0600);
		assert_true(fds[i] >= 0);
		assert_int_equal(ftruncate(fds[i], 100000), 0);
		assert_int_equal(pwrite(fds[i], "data", 4, 50000 * i), 4);
		assert_int_equal(fsync(fds[i]), 0);
		assert_int_equal(unlink(in_dir(path)), 0);
	}
	run("touch mnt/x && sync -f mnt && cp b.img a.img");
	for (unsigned i = 0; i < COUNT(fds); i++)
		close(fds[i]);
	run("umount mnt");
	disk_open(&disk, "a.img");
	inl_volume_info(disk.vol, &info);
	assert_true(info.journal_replayed);
	assert_int_equal(info.n_orphans, COUNT(fds));
	disk_close(&disk);
	fsck("a.img");
}

/* Every kind of inode comes and goes, on every kind of volume. */
static void test_layouts(void **state)
{
	static const char *const options[] = {
		"-t ext4 -b 1024", "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg", "-t ext4 -b 65536", "-t ext3 -b 1024 -I 128",
		"-t ext2 -b 2048", "-t ext4 -b 1024 -O ^dir_index,^64bit", "-t ext4 -b 4096 -O metadata_csum_seed,orphan_file",
		"-t ext4 -b 1024 -O ^has_journal,^filetype", "-t ext4 -b 1024 -O ea_inode,large_dir",
	};
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK };

	needs_tools();
	for (size_t o = 0; o < COUNT(options); o++) {
		struct inl_inode *open[COUNT(types)];
		struct inl_volume_info before, after;
		struct disk disk;
		char path[16];

		if (try_run("rm -f a.img && truncate -s 64M a.img && mke2fs -Fq %s a.img", options[o]))
			continue;
		disk_open(&disk, "a.img");
		inl_volume_info(disk.vol, &before);
		for (unsigned round = 0; round < 2; round++) {
			for (size_t i = 0; i < COUNT(types); i++) {
				snprintf(path, sizeof(path), "/%zu", i);
				if (types[i] == S_IFLNK)
					assert_int_equal(make_symlink(disk.vol, "a-target-that-is-too-long-to-lie-in-an-inode-so-it-has-a-block",
								      path), 0);
				else
					assert_int_equal(make(disk.vol, path, types[i] | 0644, 1, 3), 0);
				if (types[i] == S_IFREG)
					put_data(disk.vol, path, 100000);
			}
			if (round == 0) {
				assert_int_equal(inl_sync(disk.vol, NULL), 0);
				run("cp a.img d.img; e2fsck -fy d.img; e2fsck -fn d.img");
			}
			for (size_t i = 0; i < COUNT(types); i++) {
				snprintf(path, sizeof(path), "/%zu", i);
				open[i] = round ? get(disk.vol, path) : NULL;
				assert_int_equal(take(disk.vol, path, types[i] == S_IFDIR), 0);
			}
			assert_int_equal(disk.vol->orphans.first != NULL, round);
			for (size_t i = 0; i < COUNT(types); i++)
				inl_inode_put(open[i]);
			assert_null(disk.vol->orphans.first);
		}
		inl_volume_info(disk.vol, &after);
		assert_int_equal(before.n_free_blocks, after.n_free_blocks);
		assert_int_equal(before.n_free_inodes, after.n_free_inodes);
		disk_close(&disk);
		fsck("a.img");
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orphan_list),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_orphan_undo),
		cmocka_unit_test(test_orphan_rename),
		cmocka_unit_test(test_big_delete),
		cmocka_unit_test(test_big_shorten),
		cmocka_unit_test(test_shorten_unlink),
		cmocka_unit_test(test_orphans_of_linux),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_orphan_damage),
		cmocka_unit_test(test_orphan_aside),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
