/*
 * tests/unit/test_dirmod.c: entries that are added, removed and replaced, against a model; e2fsck and the kernel look at what is left.
 * Not here: names as callers have them (test_namei.c); crashes (tests/crash).
 * Read more: ext4/dirmod.c, ext4/dxmod.c.
 */
#include "namei_rig.h"
#include "base/crc.h"
#include "ext4/dirmod.h"
#include <dirent.h>
#include <inttypes.h>

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

/* ---- single changes ---------------------------------------------------------------------------------------------- */

enum what { ADD, REMOVE, REPLACE, FIND, EMPTY, PARENT };

struct change {
	struct inl_inode *dir;
	enum what what;
	const void *name;
	size_t len;
	uint32_t ino;
};

static int do_change(struct inl_handle *op, void *arg)
{
	struct change *c = arg;

	switch (c->what) {
	case ADD:
		return inl_dir_add(op, c->dir, c->name, c->len, c->ino, DT_REG);
	case REMOVE:
		return inl_dir_remove(op, c->dir, c->name, c->len);
	case REPLACE:
		return inl_dir_replace(op, c->dir, c->name, c->len, c->ino, c->ino == 2 || c->ino == 11 ? DT_DIR : DT_REG);
	case FIND:
		return inl_dir_find(op, c->dir, c->name, c->len, &c->ino, NULL);
	case EMPTY:
		return inl_dir_empty(op, c->dir);
	default:
		return inl_dir_parent(op, c->dir, &c->ino);
	}
}

static int change(struct inl_inode *dir, enum what what, const void *name, size_t len, uint32_t ino)
{
	struct change c = { dir, what, name, len, ino };

	return inl_op_run(dir->vol, inl_dir_credits(dir), do_change, &c, NULL);
}

static int look(struct inl_inode *dir, enum what what, const void *name, size_t len, uint32_t *ino)
{
	struct change c = { dir, what, name, len, 0 };
	int err = inl_op_run(dir->vol, 1, do_change, &c, NULL);

	if (ino)
		*ino = c.ino;
	return err;
}

struct digest {
	struct inl_inode *dir;
	uint32_t crc;
};

static int do_digest(struct inl_handle *op, void *arg)
{
	struct digest *d = arg;
	struct inl_dir_block block;
	int err = 0;

	d->crc = inl_crc32c(~0u, (const uint8_t *)&d->dir->raw, 128);
	for (uint64_t i = 0; !err && i < d->dir->size >> d->dir->vol->block_bits; i++) {
		err = inl_dir_look(op, d->dir, i, &block);
		if (!err)
			d->crc = inl_crc32c(d->crc, block.bytes, d->dir->vol->block_size);
	}
	return err;
}

/* All blocks of a directory, and its inode. */
static uint32_t digest_of(struct inl_inode *dir)
{
	struct digest d = { dir, 0 };

	assert_int_equal(inl_op_run(dir->vol, 1, do_digest, &d, NULL), 0);
	return d.crc;
}

/* ---- many changes ------------------------------------------------------------------------------------------------ */

enum { TARGETS = 2, MAX_NAMES = 60000 };

struct layout {
	const char *label, *mkfs, *after;
	unsigned n;
	bool is_long;
	unsigned levels; /* of the index, at the end; with is_long and no large_dir it is filled up */
};

struct model {
	const struct layout *layout;
	struct disk disk;
	struct inl_inode *dir;
	uint32_t inos[TARGETS];
	unsigned n_links[TARGETS];
	unsigned n;
	uint8_t has[MAX_NAMES]; /* 0, or 1 + target */
};

static struct model model;

static size_t name_of(const struct model *m, unsigned id, char *name)
{
	size_t len = (size_t)sprintf(name, "%x\xe4.%u", id * 2654435761u, id);
	size_t want = m->layout->is_long ? 255 : len + id % 23 * (id % 7 == 0 ? 9 : 1);

	for (; len < want; len++)
		name[len] = (char)('a' + (id + len) % 26);
	name[len] = 0;
	return len;
}

static void model_set(struct model *m, unsigned id, unsigned to)
{
	if (m->has[id])
		m->n_links[m->has[id] - 1]--;
	if (to)
		m->n_links[to - 1]++;
	m->n += !!to - !!m->has[id];
	m->has[id] = (uint8_t)to;
}

/* One change that must do what the model does; -ENOSPC of an add is told. */
static int step(struct model *m, unsigned id, unsigned more)
{
	unsigned to = 1 + draw(TARGETS);
	char name[300];
	size_t len = name_of(m, id, name);
	int err;

	if (!m->has[id]) {
		assert_int_equal(look(m->dir, FIND, name, len, NULL), -ENOENT);
		if (draw(16) == 0) {
			assert_int_equal(change(m->dir, REMOVE, name, len, 0), -ENOENT);
			assert_int_equal(change(m->dir, REPLACE, name, len, 12), -ENOENT);
		}
		err = change(m->dir, ADD, name, len, m->inos[to - 1]);
		if (err == -ENOSPC)
			return err;
	} else if (draw(8) == 0) {
		err = change(m->dir, REPLACE, name, len, m->inos[to - 1]);
	} else if (draw(100) >= more) {
		err = change(m->dir, REMOVE, name, len, 0);
		to = 0;
	} else {
		return 0;
	}
	if (err)
		print_error("%s: name %u: %d\n", m->layout->label, id, err);
	assert_int_equal(err, 0);
	model_set(m, id, to);
	return 0;
}

static void check_all(struct model *m)
{
	struct inl_dirent entry;
	struct inl_dir *dir;
	unsigned n = 0;
	char name[300];
	uint64_t ino;
	uint32_t other;

	for (unsigned id = 0; id < m->layout->n; id++) {
		size_t len = name_of(m, id, name);
		int want = m->has[id] ? 0 : -ENOENT;

		if (inl_lookup(m->dir, name, len, &ino, NULL) != want)
			print_error("%s: %s\n", m->layout->label, name);
		assert_int_equal(inl_lookup(m->dir, name, len, &ino, NULL), want);
		assert_int_equal(look(m->dir, FIND, name, len, &other), want);
		if (!want) {
			assert_int_equal(ino, m->inos[m->has[id] - 1]);
			assert_int_equal(other, ino);
		}
	}
	assert_int_equal(inl_dir_open(m->dir, NULL, &dir), 0);
	while (inl_dir_next(dir, &entry, NULL) == 1)
		n++;
	inl_dir_close(dir);
	assert_int_equal(n, m->n);
	assert_int_equal(look(m->dir, EMPTY, NULL, 0, NULL), n ? -ENOTEMPTY : 0);
}

static int do_links(struct inl_handle *op, void *arg)
{
	struct model *m = arg;

	for (unsigned i = 0; i < TARGETS; i++) {
		struct inl_inode *inode = get(m->disk.vol, i ? "/t1" : "/t0");
		int err = inl_inode_modify(op, inode);

		if (!err)
			inode->raw.i_links_count = (uint16_t)(1 + m->n_links[i]);
		inl_inode_put(inode);
		if (err)
			return err;
	}
	return 0;
}

static void model_open(struct model *m)
{
	disk_open(&m->disk, "a.img");
	m->dir = get(m->disk.vol, "/d");
	for (unsigned i = 0; i < TARGETS; i++)
		m->inos[i] = (uint32_t)stat_of(m->disk.vol, i ? "/t1" : "/t0").ino;
}

static void model_close(struct model *m)
{
	struct inl_inode *held[TARGETS] = { get(m->disk.vol, "/t0"), get(m->disk.vol, "/t1") };

	assert_int_equal(inl_op_run(m->disk.vol, 4, do_links, m, NULL), 0);
	inl_inode_put(held[0]);
	inl_inode_put(held[1]);
	inl_inode_put(m->dir);
	disk_close(&m->disk);
	fsck("a.img");
}

static void model_begin(struct model *m, const struct layout *layout)
{
	struct disk disk;

	memset(m, 0, sizeof(*m));
	m->layout = layout;
	run("rm -f a.img && truncate -s 80M a.img && mke2fs -Fq -t ext4 -I 256 -N 512 %s a.img", layout->mkfs);
	if (layout->after)
		run("%s", layout->after);
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/t0", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/t1", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	disk_close(&disk);
	model_open(m);
}

/* The kernel finds all names, takes some away and makes others. */
static void ask_kernel(struct model *m)
{
	char path[PATH_MAX], name[300];
	struct stat st;
	DIR *dir;
	unsigned n = 0;

	if (!has_kernel || try_run("cp a.img k.img && mount -o loop k.img mnt"))
		return;
	dir = opendir(in_dir("mnt/d"));
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	for (unsigned id = 0; id < m->layout->n; id++) {
		name_of(m, id, name);
		snprintf(path, sizeof(path), "%s/mnt/d/%s", work_dir, name);
		assert_int_equal(lstat(path, &st), m->has[id] ? 0 : -1);
		if (m->has[id])
			assert_int_equal(st.st_ino, m->inos[m->has[id] - 1]);
	}
	assert_int_equal(n, m->n + 2);
	for (unsigned i = 0; i < m->layout->n / 8; i++) {
		unsigned id = draw(m->layout->n);

		name_of(m, id, name);
		snprintf(path, sizeof(path), "%s/mnt/d/%s", work_dir, name);
		if (m->has[id])
			assert_int_equal(unlink(path), 0);
		else if (link(in_dir("mnt/t0"), path))
			continue;
		model_set(m, id, !m->has[id]);
	}
	/* Another mount namespace may have it for a while: then the umount does not write it. The copy's journal is replayed. */
	run("sync -f mnt && umount mnt && cp k.img a.img && rm k.img");
}

static void churn(struct model *m, unsigned steps, unsigned more)
{
	while (steps--)
		(void)step(m, draw(m->layout->n), more);
}

struct depth {
	struct inl_inode *dir;
	unsigned levels;
};

static int do_depth(struct inl_handle *op, void *arg)
{
	struct depth *depth = arg;
	struct inl_dx_path path;
	int err = inl_dx_path_find(op, depth->dir, (const uint8_t *)"x", 1, &path);

	depth->levels = path.n;
	return err;
}

/* Of the index; 0: there is none. */
static unsigned levels_of(struct inl_inode *dir)
{
	struct depth depth = { dir, 0 };

	if (dir->raw.i_flags & EXT4_FL_INDEX)
		assert_int_equal(inl_op_run(dir->vol, 1, do_depth, &depth, NULL), 0);
	return depth.levels;
}

static const struct layout layouts[] = {
	{ "1K", "-b 1024", NULL, 4000, false, 2 },
	{ "4K", "-b 4096", NULL, 4000, false, 1 },
	{ "64K", "-b 65536 -O ^has_journal", NULL, 4000, false, 1 },
	{ "64K, no checksums", "-b 65536 -O ^has_journal,^metadata_csum", NULL, 4000, false, 1 },
	{ "no checksums", "-b 1024 -O ^metadata_csum", NULL, 3000, false, 2 },
	{ "no filetype", "-b 1024 -O ^filetype", NULL, 2000, false, 1 },
	{ "linear", "-b 1024 -O ^dir_index", NULL, 400, false, 0 },
	{ "indirect", "-b 1024 -O ^extents,^64bit,^metadata_csum", NULL, 2000, true, 2 },
	{ "tea", "-b 1024", "tune2fs -E hash_alg=tea a.img", 2000, false, 1 },
	{ "legacy", "-b 1024", "tune2fs -E hash_alg=legacy a.img", 2000, false, 1 },
	{ "unsigned", "-b 1024", "debugfs -w -R 'ssv flags 2' a.img", 2000, false, 1 },
	{ "large_dir", "-b 1024 -O large_dir", NULL, 3000, true, 2 },
};

static void test_layouts(void **state)
{
	struct model *m = &model;

	needs_tools();
	for (unsigned i = 0; i < COUNT(layouts); i++) {
		const struct layout *l = &layouts[i];

		model_begin(m, l);
		churn(m, l->n * 2, 80);
		churn(m, l->n / 4, 10);
		check_all(m);
		if (levels_of(m->dir) != l->levels)
			print_error("%s: %u levels\n", l->label, levels_of(m->dir));
		model_close(m);
		ask_kernel(m);
		model_open(m);
		check_all(m);
		churn(m, l->n / 2, 60);
		check_all(m);
		model_close(m);
	}
}

/* ---- what is in the way ------------------------------------------------------------------------------------------ */

/* The index of few levels is full one day: then nothing changes. large_dir goes on. */
static bool is_long; /* --long: three levels of index, too */

static void test_full_index(void **state)
{
	static const struct layout full = { "full", "-b 1024", NULL, MAX_NAMES, true, 2 };
	static const struct layout large = { "large", "-b 1024 -O large_dir", NULL, 27000, true, 3 };
	struct model *m = &model;
	unsigned id = 0, n_full = 0;
	uint32_t before = 0;

	needs_tools();
	model_begin(m, &full);
	for (; id < MAX_NAMES && n_full < 4; id++) {
		if (n_full)
			before = digest_of(m->dir);
		if (!step(m, id, 100))
			continue;
		if (n_full++)
			assert_int_equal(digest_of(m->dir), before);
	}
	assert_int_equal(n_full, 4);
	assert_true(m->n > 10000);
	assert_int_equal(levels_of(m->dir), 2);
	/* Room of a removed name is found again. */
	for (unsigned i = 0; i < 200; i++) {
		char name[300];
		size_t len = name_of(m, i, name);

		assert_int_equal(change(m->dir, REMOVE, name, len, 0), 0);
		assert_int_equal(change(m->dir, ADD, name, len, m->inos[m->has[i] - 1]), 0);
	}
	model_close(m);
	if (!is_long)
		return;

	model_begin(m, &large);
	for (id = 0; id < large.n; id++)
		assert_int_equal(step(m, id, 100), 0);
	assert_int_equal(levels_of(m->dir), 3);
	model_close(m);
	ask_kernel(m);
	model_open(m);
	check_all(m);
	model_close(m);
}

/* No blocks: an add that would split changes nothing. */
static void test_no_blocks(void **state)
{
	static const struct layout tight = { "tight", "-b 1024 -m 0", NULL, 4000, true, 2 };
	struct model *m = &model;
	unsigned n_failed = 0, id = 0;
	struct inl_inode *fill;
	static uint8_t zeros[1 << 16];
	size_t done;
	int err = 0;

	needs_tools();
	model_begin(m, &tight);
	for (; id < 1000; id++)
		assert_int_equal(step(m, id, 100), 0);
	assert_int_equal(make(m->disk.vol, "/fill", S_IFREG | 0600, 0, 0), 0);
	fill = get(m->disk.vol, "/fill");
	for (uint64_t pos = 0; !err; pos += done)
		err = inl_write(fill, pos, zeros, sizeof(zeros), &done, NULL);
	assert_int_equal(err, -ENOSPC);
	for (uint64_t pos = fill->size; inl_write(fill, pos, zeros, 1024, &done, NULL) == 0;)
		pos += 1024;
	inl_inode_put(fill);
	for (; id < 2000; id++) {
		uint32_t before = digest_of(m->dir);

		if (!step(m, id, 100))
			continue;
		n_failed++;
		assert_int_equal(digest_of(m->dir), before);
	}
	assert_true(n_failed > 100);
	check_all(m);
	model_close(m);
}

/* ---- names of equal hash ----------------------------------------------------------------------------------------- */

enum { TWINS = 6, TWIN_LEN = 250 };

struct legacy {
	uint32_t hash0, hash1;
};

static void legacy_step(struct legacy *l, uint8_t c)
{
	uint32_t hash = l->hash1 + (l->hash0 ^ (uint32_t)(c * 7152373));

	if (hash & 0x80000000u)
		hash -= 0x7fffffff;
	l->hash1 = l->hash0;
	l->hash0 = hash;
}

/* The byte that makes the hash what is wanted; 0: none does. */
static uint8_t solve(const struct legacy *l, uint32_t want)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t x = l->hash0 ^ (want + (i ? 0x7fffffff : 0) - l->hash1);

		if (x < 127u * 7152373 && x && x % 7152373 == 0 && x / 7152373 != '/')
			return (uint8_t)(x / 7152373);
	}
	return 0;
}

/* Names whose legacy hash is the same: for the last byte the hash can be solved, once in a while. */
static void make_twins(uint8_t names[TWINS][TWIN_LEN])
{
	struct legacy base = { 0x12a3fe2d, 0x37abe8f9 };
	unsigned n = 0;

	memset(names, 'n', (size_t)TWINS * TWIN_LEN);
	for (unsigned i = 0; i < TWIN_LEN - 6; i++)
		legacy_step(&base, 'n');
	for (uint32_t i = 0; n < TWINS && i < 1u << 24; i++) {
		uint8_t tail[6];
		struct legacy l = base;

		for (unsigned k = 0; k < 4; k++)
			legacy_step(&l, tail[k] = (uint8_t)('0' + (i >> 6 * k & 63)));
		for (tail[4] = '0'; n < TWINS && tail[4] < 'p'; tail[4]++) {
			struct legacy last = l;

			legacy_step(&last, tail[4]);
			tail[5] = solve(&last, 0x12345678);
			if (tail[5])
				memcpy(names[n++] + TWIN_LEN - 6, tail, 6);
		}
	}
	assert_int_equal(n, TWINS);
}

static void test_equal_hashes(void **state)
{
	static const struct layout legacy = { "twins", "-b 1024", "tune2fs -E hash_alg=legacy a.img", 300, true, 1 };
	static uint8_t names[TWINS][TWIN_LEN];
	struct model *m = &model;
	uint32_t hash, first, minor, ino;

	needs_tools();
	make_twins(names);
	model_begin(m, &legacy);
	for (unsigned id = 0; id < 40; id++)
		assert_int_equal(step(m, id, 100), 0);
	for (unsigned i = 0; i < TWINS; i++) {
		assert_int_equal(inl_dir_hash(m->dir, 0, names[i], TWIN_LEN, &hash, &minor), 0);
		first = i ? first : hash;
		assert_int_equal(hash, first);
		assert_int_equal(change(m->dir, ADD, names[i], TWIN_LEN, m->inos[0]), 0);
		m->n_links[0]++;
		m->n++;
		for (unsigned k = 0; k < TWINS; k++)
			assert_int_equal(look(m->dir, FIND, names[k], TWIN_LEN, &ino), k <= i ? 0 : -ENOENT);
	}
	churn(m, 600, 70);
	for (unsigned i = 0; i < TWINS; i++) {
		uint64_t found;

		assert_int_equal(look(m->dir, FIND, names[i], TWIN_LEN, &ino), 0);
		assert_int_equal(inl_lookup(m->dir, (char *)names[i], TWIN_LEN, &found, NULL), 0);
	}
	model_close(m);
	ask_kernel(m);
	model_open(m);
	for (unsigned i = 0; i < TWINS; i += 2) {
		assert_int_equal(change(m->dir, REMOVE, names[i], TWIN_LEN, 0), 0);
		m->n_links[0]--;
		m->n--;
	}
	for (unsigned i = 0; i < TWINS; i++)
		assert_int_equal(look(m->dir, FIND, names[i], TWIN_LEN, &ino), i % 2 ? 0 : -ENOENT);
	check_all(m);
	model_close(m);
}

/* ---- "." and "..", and names that only an encrypted directory has ------------------------------------------------ */

static void test_dots(void **state)
{
	static const struct layout dots = { "dots", "-b 1024", NULL, 100, false, 1 };
	struct model *m = &model;
	uint8_t name[255];
	uint32_t ino;

	needs_tools();
	model_begin(m, &dots);
	assert_int_equal(look(m->dir, EMPTY, NULL, 0, NULL), 0);
	/* The first name's room goes to ".."; longer ones fill the block, and there has to be an index. */
	assert_int_equal(change(m->dir, ADD, "a", 1, m->inos[0]), 0);
	assert_int_equal(change(m->dir, ADD, "b", 1, m->inos[0]), 0);
	assert_int_equal(change(m->dir, REMOVE, "a", 1, 0), 0);
	assert_int_equal(change(m->dir, REMOVE, "b", 1, 0), 0);
	assert_int_equal(look(m->dir, EMPTY, NULL, 0, NULL), 0);
	assert_int_equal(change(m->dir, ADD, "a", 1, m->inos[0]), 0);
	for (unsigned id = 0; id < 3; id++) {
		memset(name, 'A' + (int)id, sizeof(name));
		assert_int_equal(change(m->dir, ADD, name, sizeof(name), m->inos[0]), 0);
	}
	assert_int_equal(change(m->dir, REMOVE, "a", 1, 0), 0);
	m->n_links[0] = m->n = 3;
	for (unsigned id = 10; id < 100; id++)
		assert_int_equal(step(m, id, 100), 0);
	assert_int_equal(levels_of(m->dir), 1);
	check_all(m);
	assert_int_equal(look(m->dir, FIND, ".", 1, &ino), 0);
	assert_int_equal(ino, m->dir->ino);
	assert_int_equal(look(m->dir, FIND, "", 0, &ino), -EINVAL);
	/* Any byte goes. */
	for (unsigned i = 0; i < 400; i++) {
		memset(name, 0, sizeof(name));
		name[0] = (uint8_t)i;
		name[1] = '/';
		assert_int_equal(change(m->dir, ADD, name, 16 + i / 2, m->inos[0]), 0);
		assert_int_equal(look(m->dir, FIND, name, 16 + i / 2, &ino), 0);
	}
	for (unsigned i = 0; i < 400; i++) {
		memset(name, 0, sizeof(name));
		name[0] = (uint8_t)i;
		name[1] = '/';
		assert_int_equal(change(m->dir, REMOVE, name, 16 + i / 2, 0), 0);
		assert_int_equal(look(m->dir, FIND, name, 16 + i / 2, &ino), -ENOENT);
	}
	check_all(m);
	assert_int_equal(look(m->dir, PARENT, NULL, 0, &ino), 0);
	assert_int_equal(ino, 2);
	assert_int_equal(change(m->dir, REPLACE, "..", 2, 11), 0);
	assert_int_equal(look(m->dir, PARENT, NULL, 0, &ino), 0);
	assert_int_equal(ino, 11);
	assert_int_equal(change(m->dir, REPLACE, "..", 2, 2), 0);
	model_close(m);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static const uint8_t bad_bytes[] = { 0, 1, 2, 4, 8, 12, 0x7f, 0xff };

/* In one operation, which is undone: bytes of the directory's blocks become others, and names come and go. */
static int do_damage(struct inl_handle *op, void *arg)
{
	struct model *m = arg;
	uint32_t block_size = m->dir->vol->block_size;
	uint64_t n = m->dir->size / block_size;

	for (unsigned i = 0; i < 1 + draw(6); i++) {
		struct inl_dir_block block;
		uint8_t *bytes;
		uint32_t at = draw(2) ? draw(64) : draw(block_size);
		int err = inl_dir_look(op, m->dir, draw(3) ? draw((uint32_t)n) : 0, &block);

		if (!err)
			err = inl_block_change(op, block.pblk, &bytes);
		if (err == -EAGAIN)
			return err;
		assert_int_equal(err, 0);
		bytes[at] = draw(2) ? bad_bytes[draw(sizeof(bad_bytes))] : (uint8_t)draw(256);
	}
	for (unsigned i = 0; i < 8; i++) {
		unsigned id = draw(m->layout->n);
		char name[300];
		struct change c = { m->dir, (enum what)draw(PARENT + 1), name, name_of(m, id, name), m->inos[0] };
		int err = do_change(op, &c);

		if (err == -EAGAIN)
			return err;
		if (err != 0 && err != -EUCLEAN && err != -ENOENT && err != -ENOSPC && err != -EOPNOTSUPP &&
		    err != -ENOTEMPTY && err != -E2BIG)
			print_error("damage: %d\n", err);
		assert_true(!err || err == -EUCLEAN || err == -ENOENT || err == -ENOSPC || err == -EOPNOTSUPP ||
			    err == -ENOTEMPTY || err == -E2BIG);
		if (err)
			break;
	}
	return -ECANCELED;
}

static void test_damage(void **state)
{
	static const struct layout kinds[] = {
		{ "damage", "-b 1024 -O ^metadata_csum", NULL, 1200, true, 2 },
		{ "damage, one block", "-b 1024 -O ^metadata_csum", NULL, 8, false, 0 },
		{ "damage, 4K", "-b 4096 -O ^metadata_csum,large_dir", NULL, 600, false, 1 },
		{ "damage, 64K", "-b 65536 -O ^metadata_csum,^has_journal", NULL, 4000, false, 1 },
	};
	struct model *m = &model;

	needs_tools();
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		uint32_t before;

		model_begin(m, &kinds[i]);
		churn(m, kinds[i].n * 2, 80);
		before = digest_of(m->dir);
		for (unsigned k = 0; k < 1500; k++) {
			unsigned credits = inl_op_credits_max(m->disk.vol);
			int err = inl_op_run(m->disk.vol, credits, do_damage, m, NULL);

			assert_true(err == -ECANCELED || err == -EUCLEAN || err == -EIO);
		}
		assert_int_equal(digest_of(m->dir), before);
		check_all(m);
		model_close(m);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_full_index),
		cmocka_unit_test(test_no_blocks),
		cmocka_unit_test(test_equal_hashes),
		cmocka_unit_test(test_dots),
		cmocka_unit_test(test_damage),
	};

	is_long = argc > 1 && !strcmp(argv[1], "--long");
	if (getenv("F"))
		cmocka_set_test_filter(getenv("F"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
