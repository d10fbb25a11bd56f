/*
 * tests/unit/test_write_faults.c: a fixed row of changes, and at each of its reads, writes and flushes an error of the device.
 * Not here: a volume that is full (test_write_full.c); crashes (tests/crash).
 * Read more: inlay/volume.h, "changing"; drivers/fault.c.
 */
#include "namei_rig.h"

#define N_FILES	 8u
#define FILE_MAX (60u << 10)
#define N_NAMES	 70u
#define XATTR_LEN 700u

static char rule[64]; /* of the run */

/* ---- what should be there ---------------------------------------------------------------------------------------- */

struct file {
	bool exists, has_xattr;
	bool touched; /* since the last acknowledgement */
	size_t size;
	uint8_t bytes[FILE_MAX];
};

struct model {
	struct file files[N_FILES]; /* "/f0" ..; of f7: "/old" */
	bool has_dir, dir_touched;
	unsigned n_names;
};

struct run {
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct model now, durable;
	unsigned acked, failed, refused;
	bool read_fault, forever, died;
};

static void path_of(unsigned i, char path[16])
{
	if (i == N_FILES - 1)
		strcpy(path, "/old");
	else
		snprintf(path, 16, "/f%u", i);
}

static void name_of(unsigned i, char name[80])
{
	snprintf(name, 80, "%u, a name that is rather long, for there to be many blocks", i);
}

static void acknowledge(struct run *run)
{
	for (unsigned i = 0; i < N_FILES; i++)
		run->now.files[i].touched = false;
	run->now.dir_touched = false;
	run->durable = run->now;
	run->acked++;
}

/* From here on what is durable may be gone, or not. */
static struct file *touch(struct run *run, unsigned i)
{
	run->now.files[i].touched = run->durable.files[i].touched = true;
	return &run->now.files[i];
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* ---- steps: 0, or the error; after an error they can be done again ----------------------------------------------- */

static int get_file(struct run *run, unsigned i, struct inl_inode **inode)
{
	char path[16];

	path_of(i, path);
	return inl_path(run->vol, path, false, NULL, inode);
}

static int step_create(struct run *run, unsigned i)
{
	struct file *file = touch(run, i);
	char path[16];
	int err;

	path_of(i, path);
	err = make(run->vol, path, S_IFREG | 0644, 0, 0);
	if (!err)
		file->exists = true;
	return err;
}

static int step_write(struct run *run, unsigned i, size_t at, size_t len, unsigned seed)
{
	struct file *file = touch(run, i);
	struct inl_inode *inode;
	uint8_t *buf = malloc(len);
	size_t done = 0;
	int err = buf ? get_file(run, i, &inode) : -ENOMEM;

	assert_non_null(buf);
	if (!err) {
		fill(buf, len, seed);
		err = inl_write(inode, at, buf, len, &done, NULL);
		/* Short for an error of the device: the rest is asked for, and says why. */
		while (!err && done < len) {
			size_t more = 0;

			err = inl_write(inode, at + done, buf + done, len - done, &more, NULL);
			done += more;
		}
		inl_inode_put(inode);
	}
	if (!err) {
		memcpy(file->bytes + at, buf, len);
		if (at + len > file->size)
			file->size = at + len;
	}
	free(buf);
	return err;
}

static int step_fsync(struct run *run, unsigned i)
{
	struct inl_inode *inode;
	int err = get_file(run, i, &inode);

	if (err)
		return err;
	err = inl_fsync(inode, NULL);
	inl_inode_put(inode);
	if (!err)
		acknowledge(run);
	return err;
}

static int step_sync(struct run *run)
{
	int err = inl_sync(run->vol, NULL);

	if (!err)
		acknowledge(run);
	return err;
}

static int step_mkdir(struct run *run)
{
	int err;

	run->now.dir_touched = run->durable.dir_touched = true;
	err = make(run->vol, "/d", S_IFDIR | 0755, 0, 0);
	if (!err)
		run->now.has_dir = true;
	return err;
}

static int step_names(struct run *run, unsigned upto)
{
	int err = 0;

	run->now.dir_touched = run->durable.dir_touched = true;
	while (!err && run->now.n_names < upto) {
		char name[80], path[100];

		name_of(run->now.n_names, name);
		snprintf(path, sizeof(path), "/d/%s", name);
		err = make_link(run->vol, "/f3", path);
		if (!err)
			run->now.n_names++;
	}
	return err;
}

static int step_rename(struct run *run, unsigned from, unsigned to)
{
	struct file *a = touch(run, from), *b = touch(run, to);
	char from_path[16], to_path[16];
	int err;

	path_of(from, from_path);
	path_of(to, to_path);
	err = move(run->vol, from_path, to_path, 0);
	if (!err) {
		*b = *a;
		a->exists = false;
	}
	return err;
}

static int step_truncate(struct run *run, unsigned i, size_t size)
{
	struct file *file = touch(run, i);
	struct inl_inode *inode;
	int err = get_file(run, i, &inode);

	if (err)
		return err;
	err = inl_truncate(inode, size, NULL);
	inl_inode_put(inode);
	if (!err) {
		memset(file->bytes + size, 0, FILE_MAX - size);
		file->size = size;
	}
	return err;
}

static int step_punch(struct run *run, unsigned i, size_t at, size_t len)
{
	struct file *file = touch(run, i);
	struct inl_inode *inode;
	int err = get_file(run, i, &inode);

	if (err)
		return err;
	err = inl_fallocate(inode, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, at, len, NULL);
	inl_inode_put(inode);
	if (!err)
		memset(file->bytes + at, 0, len);
	return err;
}

static int step_xattr(struct run *run, unsigned i)
{
	struct file *file = touch(run, i);
	uint8_t value[XATTR_LEN];
	struct inl_inode *inode;
	int err = get_file(run, i, &inode);

	if (err)
		return err;
	fill(value, sizeof(value), 99);
	err = inl_xattr_set(inode, "user.value", value, sizeof(value), 0, NULL);
	inl_inode_put(inode);
	if (!err)
		file->has_xattr = true;
	return err;
}

static int step_unlink(struct run *run, unsigned i)
{
	struct file *file = touch(run, i);
	char path[16];
	int err;

	path_of(i, path);
	err = take(run->vol, path, false);
	if (!err)
		file->exists = false;
	return err;
}

static int do_step(struct run *run, unsigned step)
{
	switch (step) {
	case 0: return step_create(run, 0);
	case 1: return step_write(run, 0, 0, 1, 1);
	case 2: return step_create(run, 1);
	case 3: return step_write(run, 1, 0, 1000, 2);
	case 4: return step_create(run, 2);
	case 5: return step_write(run, 2, 0, 20000, 3);
	case 6: return step_create(run, 3);
	case 7: return step_write(run, 3, 0, FILE_MAX, 4);
	case 8: return step_fsync(run, 3);
	case 9: return step_write(run, 2, 100, 5000, 5);
	case 10: return step_mkdir(run);
	case 11: return step_names(run, N_NAMES / 2);
	case 12: return step_fsync(run, 2);
	case 13: return step_names(run, N_NAMES);
	case 14: return step_create(run, 4);
	case 15: return step_write(run, 4, 5000, 3000, 6);
	case 16: return step_sync(run);
	case 17: return step_rename(run, 0, 1);
	case 18: return step_truncate(run, 3, 3001);
	case 19: return step_punch(run, 2, 3000, 9000);
	case 20: return step_xattr(run, 4);
	case 21: return step_fsync(run, 4);
	case 22: return step_unlink(run, N_FILES - 1);
	case 23: return step_unlink(run, 2);
	case 24: return step_write(run, 4, 0, 200, 7);
	case 25: return step_sync(run);
	case 26: return step_create(run, 5);
	default: return 1; /* the end */
	}
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static void check_file(struct inl_volume *vol, const char *path, const struct file *want)
{
	static uint8_t bytes[FILE_MAX + 1], value[XATTR_LEN], back[XATTR_LEN];
	struct inl_inode *inode;
	size_t got, len;
	int err = inl_path(vol, path, false, NULL, &inode);

	if (!want->exists) {
		assert_int_equal(err, -ENOENT);
		return;
	}
	assert_int_equal(err, 0);
	assert_int_equal(inl_read(inode, 0, bytes, sizeof(bytes), &got, NULL), 0);
	assert_int_equal(got, want->size);
	assert_memory_equal(bytes, want->bytes, want->size);
	if (want->has_xattr) {
		fill(value, sizeof(value), 99);
		assert_int_equal(inl_xattr_get(inode, "user.value", back, sizeof(back), &len, NULL), 0);
		assert_int_equal(len, XATTR_LEN);
		assert_memory_equal(back, value, len);
	}
	inl_inode_put(inode);
}

static void check_model(struct inl_volume *vol, const struct model *model)
{
	char path[100], name[80];

	for (unsigned i = 0; i < N_FILES; i++) {
		if (model->files[i].touched)
			continue;
		path_of(i, path);
		check_file(vol, path, &model->files[i]);
	}
	/* Names are only added. */
	for (unsigned i = 0; i < model->n_names; i++) {
		struct inl_inode *inode;

		name_of(i, name);
		snprintf(path, sizeof(path), "/d/%s", name);
		assert_int_equal(inl_path(vol, path, false, NULL, &inode), 0);
		inl_inode_put(inode);
	}
}

/* ---- one run with one fault -------------------------------------------------------------------------------------- */

static void check_dead(struct run *run)
{
	struct inl_attr attr = { .mode = S_IFREG };
	struct inl_inode *root;
	int err;

	assert_int_not_equal(inl_sync(run->vol, NULL), 0);
	err = inl_inode_get(run->vol, INL_ROOT_INO, NULL, &root);
	if (err)
		return;
	assert_int_not_equal(inl_fsync(root, NULL), 0);
	assert_int_equal(inl_create(root, "late", 4, &attr, 0, NULL, NULL), -EROFS);
	assert_int_equal(inl_unlink(root, "f3", 2, NULL) == 0, 0);
	assert_int_equal(inl_setattr(root, &attr, INL_ATTR_UID, NULL), -EROFS);
	assert_int_equal(inl_sync(run->vol, NULL) == 0, 0);
	inl_inode_put(root);
}

static bool writable(struct inl_volume *vol)
{
	struct inl_volume_info info;

	inl_volume_info(vol, &info);
	return info.writable;
}

/* All steps; one that fails is tried once more as long as the volume can be written. Returns false if it cannot. */
static bool do_steps(struct run *run)
{
	for (unsigned step = 0;; step++) {
		int err = do_step(run, step);

		if (err == 1)
			return true;
		assert_true(err <= 0);
		if (!err)
			continue;
		run->failed++;
		if (run->read_fault)
			assert_int_equal(err, -EIO);
		if (!writable(run->vol)) {
			assert_false(run->read_fault);
			run->died = true;
			check_dead(run);
			return false;
		}
		if (run->forever)
			return false;
		err = do_step(run, step);
		if (err)
			print_error("step %u once more: %s\n", step, strerror(-err));
		assert_int_equal(err, 0);
	}
}

static void spec_with(char spec[PATH_MAX])
{
	snprintf(spec, PATH_MAX, "fault(file(%s), %s)", in_dir("a.img"), rule);
}

/* Does the device say that the fault was met? Its kind was done less often otherwise. */
static uint64_t n_events(struct inl_dev *dev, char kind)
{
	struct inl_counters counters;

	inl_dev_counters(dev, &counters);
	return kind == 'r' ? counters.reads : kind == 'w' ? counters.writes : counters.flushes;
}

static void check_after(struct run *run, bool clean)
{
	struct inl_diag diag = { 0 };
	struct disk disk;
	int err;

	run("cp a.img after.img");
	disk_map(&disk, "a.img");
	err = inl_volume_open(disk.dev, NULL, INL_VOLUME_WRITE, &diag, &disk.vol);
	if (err) {
		assert_int_equal(err, -EROFS);
		assert_true(diag.text[0]);
		run->refused++;
		disk_unmap(&disk);
		assert_false(clean);
		try_run("e2fsck -fy a.img");
		run("e2fsck -fn a.img");
		disk_open(&disk, "a.img");
	}
	check_model(disk.vol, clean ? &run->now : &run->durable);
	disk_close(&disk);
	fsck("a.img");
}

/* How many runs ended the writing, and of how many the journal says so. */
struct seen {
	unsigned dead, refused;
};

/* Returns whether there was an n-th one. */
static bool run_with(char kind, bool forever, uint64_t n, const struct model *model, struct seen *seen)
{
	static const char *const words[] = { ['r'] = "read", ['w'] = "write", ['f'] = "flush" };
	char spec[PATH_MAX];
	static struct run run;
	struct inl_diag diag = { 0 };
	bool alive = false, met;
	int err;

	run("cp dirty.img a.img");
	memset(&run, 0, sizeof(run));
	run.now = run.durable = *model;
	run.read_fault = kind == 'r';
	run.forever = forever;
	snprintf(rule, sizeof(rule), "%s@%llu..%llu=EIO", words[(unsigned char)kind], (unsigned long long)n,
		 forever ? 1000000ull : (unsigned long long)n);
	spec_with(spec);
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, &diag, &run.dev), 0);
	err = inl_volume_open(run.dev, NULL, INL_VOLUME_WRITE, &diag, &run.vol);
	if (err && kind == 'r') {
		assert_int_equal(err, -EIO);
		err = inl_volume_open(run.dev, NULL, INL_VOLUME_WRITE, &diag, &run.vol);
		assert_int_equal(err, 0);
	}
	if (!err) {
		alive = do_steps(&run);
		err = inl_volume_close(run.vol);
		assert_true(alive || err);
		/* What is read at the close is the superblock, when all else is done. */
		if (kind == 'r')
			assert_true(!err || err == -EIO);
		else if (err)
			alive = false;
	}
	assert_true(err <= 0);
	met = n_events(run.dev, kind) >= n;
	inl_dev_close(run.dev);
	check_after(&run, alive);
	/* A device that works again is told. */
	if (run.died && !forever)
		assert_int_equal(run.refused, 1);
	seen->dead += !alive;
	seen->refused += run.refused;
	return met;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

/* dirty.img: as a crash leaves it, with a journal to replay. */
static void make_dirty(const char *options, struct model *model)
{
	struct file *old = &model->files[N_FILES - 1];
	struct disk disk;
	FILE *copy;

	memset(model, 0, sizeof(*model));
	run("rm -f a.img && truncate -s 4M a.img && mke2fs -Fq -b 1024 %s a.img", options);
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/old", S_IFREG, 0, 0), 0);
	put_data(disk.vol, "/old", 9000);
	old->exists = true;
	old->size = 9000;
	memset(old->bytes, 'x', old->size);
	assert_int_equal(inl_sync(disk.vol, NULL), 0);
	copy = fopen(in_dir("dirty.img"), "w");
	assert_non_null(copy);
	assert_int_equal(fwrite(disk.bytes, 1, disk.size, copy), disk.size);
	fclose(copy);
	disk_close(&disk);
}

static void fail_each(char kind, bool forever, const char *options)
{
	static struct model model;
	struct seen seen = { 0 };
	uint64_t n;

	needs_tools();
	make_dirty(options, &model);
	for (n = 1; run_with(kind, forever, n, &model, &seen); n++)
		;
	print_message("%c %s: %llu of them, %u ended the writing, %u left a note\n", kind, options,
		      (unsigned long long)n - 1, seen.dead, seen.refused);
	assert_true(n > 5);
	assert_true(kind == 'r' ? seen.dead == 0 : seen.dead > 3);
	if (kind != 'r' && !forever)
		assert_true(seen.refused > 3);
}

#define OPTIONS "-t ext4 -J size=1"
#define EXT3	"-t ext3 -I 128 -J size=1"

static void test_reads(void **state)
{
	fail_each('r', false, OPTIONS);
}

static void test_writes(void **state)
{
	fail_each('w', false, OPTIONS);
}

static void test_flushes(void **state)
{
	fail_each('f', false, OPTIONS);
}

/* From the n-th on the device takes nothing any more: not even the note that something went wrong. */
static void test_dead_device(void **state)
{
	fail_each('w', true, OPTIONS);
}

static void test_ext3(void **state)
{
	fail_each('r', false, EXT3);
	fail_each('w', false, EXT3);
}

#define N_PARTS 300u

/* Reads that fail while a file with many extents is shortened: what was cut off is never seen again. */
static bool shorten_with(unsigned n)
{
	static uint8_t bytes[N_PARTS * 2048];
	struct inl_inode *inode;
	struct inl_volume *vol;
	struct inl_dev *dev;
	char spec[PATH_MAX];
	struct disk disk;
	size_t got;
	bool met;
	int err;

	run("cp parts.img a.img");
	snprintf(rule, sizeof(rule), "clear");
	spec_with(spec);
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, INL_VOLUME_WRITE, NULL, &vol), 0);
	inode = get(vol, "/parts");
	snprintf(rule, sizeof(rule), "read@%u=EIO", n);
	assert_int_equal(inl_dev_control(dev, rule, NULL), 0);
	err = inl_truncate(inode, 10, NULL);
	met = err != 0;
	assert_true(!err || err == -EIO);
	assert_int_equal(inl_dev_control(dev, "clear", NULL), 0);
	if (stat_of(vol, "/parts").size == 10) {
		size_t done;

		/* It may be refused until the next open. */
		err = inl_truncate(inode, sizeof(bytes), NULL);
		assert_true(!err || (met && err == -EIO));
		if (!err)
			assert_int_equal(inl_write(inode, sizeof(bytes) - 1, "", 1, &done, NULL), 0);
		assert_int_equal(inl_read(inode, 0, bytes, sizeof(bytes), &got, NULL), 0);
		for (size_t i = 10; i < got; i++)
			assert_int_equal(bytes[i], 0);
	}
	inl_inode_put(inode);
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
	disk_open(&disk, "a.img");
	inode = get(disk.vol, "/parts");
	if (met && stat_of(disk.vol, "/parts").size == N_PARTS * 2048 - 1024) {
		assert_int_equal(stat_of(disk.vol, "/parts").blocks / 2 > N_PARTS, 1);
	} else {
		assert_int_equal(inl_truncate(inode, sizeof(bytes), NULL), 0);
		assert_int_equal(inl_read(inode, 0, bytes, sizeof(bytes), &got, NULL), 0);
		for (size_t i = 10; i < got; i++)
			assert_int_equal(bytes[i], 0);
	}
	inl_inode_put(inode);
	disk_close(&disk);
	fsck("a.img");
	return met;
}

/* Reads that fail while such a file is deleted: it is gone, now or at the next open; or it is still there, whole. */
static bool delete_with(unsigned n)
{
	struct inl_volume_space space;
	struct inl_volume_info info;
	struct inl_counters before, after;
	struct inl_volume *vol;
	struct inl_dev *dev;
	char spec[PATH_MAX];
	struct disk disk;
	int err;

	run("cp parts.img a.img");
	snprintf(rule, sizeof(rule), "clear");
	spec_with(spec);
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, INL_VOLUME_WRITE, NULL, &vol), 0);
	inl_volume_space(vol, &space);
	snprintf(rule, sizeof(rule), "read@%u=EIO", n);
	inl_dev_counters(dev, &before);
	assert_int_equal(inl_dev_control(dev, rule, NULL), 0);
	err = take(vol, "/parts", false);
	inl_dev_counters(dev, &after);
	assert_int_equal(inl_dev_control(dev, "clear", NULL), 0);
	assert_true(!err || err == -EIO);
	assert_int_equal(make(vol, "/other", S_IFREG, 0, 0), 0);
	if (err)
		assert_int_equal(take(vol, "/parts", false), 0);
	assert_int_equal(take(vol, "/other", false), 0);
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
	disk_open(&disk, "a.img");
	inl_volume_info(disk.vol, &info);
	assert_true(info.n_free_blocks > space.n_free_blocks + N_PARTS);
	assert_int_equal(info.n_free_inodes, space.n_free_inodes + 1);
	disk_close(&disk);
	fsck("a.img");
	return after.reads - before.reads >= n;
}

static void test_shorten(void **state)
{
	struct inl_inode *inode;
	char block[1024];
	struct disk disk;
	unsigned n;

	needs_tools();
	run("rm -f parts.img && truncate -s 4M parts.img && mke2fs -Fq -t ext4 -b 1024 -J size=1 parts.img");
	disk_open(&disk, "parts.img");
	assert_int_equal(make(disk.vol, "/parts", S_IFREG, 0, 0), 0);
	inode = get(disk.vol, "/parts");
	memset(block, 'p', sizeof(block));
	for (unsigned i = 0; i < N_PARTS; i++) {
		size_t done;

		assert_int_equal(inl_write(inode, i * 2048, block, sizeof(block), &done, NULL), 0);
	}
	inl_inode_put(inode);
	disk_close(&disk);
	for (n = 1; shorten_with(n); n++)
		;
	print_message("%u reads to shorten\n", n - 1);
	assert_true(n > 3);
	for (n = 1; delete_with(n); n++)
		;
	print_message("%u reads to delete\n", n - 1);
	assert_true(n > 3);
}

/* The last one, for who looks why it failed. */
static int say_rule(void **state)
{
	print_message("the last one was %s\n", rule);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_reads, say_rule),
		cmocka_unit_test_teardown(test_writes, say_rule),
		cmocka_unit_test_teardown(test_flushes, say_rule),
		cmocka_unit_test_teardown(test_dead_device, say_rule),
		cmocka_unit_test_teardown(test_ext3, say_rule),
		cmocka_unit_test_teardown(test_shorten, say_rule),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
