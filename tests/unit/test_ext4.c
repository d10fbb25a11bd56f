/*
 * tests/unit/test_ext4.c: what ext4/ makes of bytes (extents, entries, attributes, superblocks), and of volumes.
 * Not here: the journal (test_journal.c); encrypted volumes (tests/cli/, tests/kernel/).
 * Read more: Linux Documentation/filesystems/ext4/; ext4/own.h.
 *
 * Bytes are laid out by hand, or at random and compared with slow models that look at everything from the start.
 * Volumes are made by mke2fs from a tree of files that is then the oracle; debugfs is a second one where no source file
 * can be.
 */
#include "ext4/own.h"
#include "work_dir.h"
#include <dirent.h>
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
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB	  1024u
#define MIB	  (1024u * KIB)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define COUNT(a)  (sizeof(a) / sizeof((a)[0]))

static uint32_t rng_state = 20240601;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return (rng_state >> 8) % below;
}

/* Bit by bit, so that nothing is shared with the code under test. */
static uint32_t slow_crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
	}
	return crc;
}

/* ---- extents: one node ------------------------------------------------------------------------------------------- */

static void put_header(uint8_t *node, unsigned entries, unsigned max, unsigned depth)
{
	inl_store_le16(node, 0xf30a);
	inl_store_le16(node + 2, (uint16_t)entries);
	inl_store_le16(node + 4, (uint16_t)max);
	inl_store_le16(node + 6, (uint16_t)depth);
}

static void put_extent(uint8_t *node, unsigned i, uint64_t lblk, unsigned raw_len, uint64_t pblk)
{
	uint8_t *p = node + 12 + 12 * (size_t)i;

	inl_store_le32(p, (uint32_t)lblk);
	inl_store_le16(p + 4, (uint16_t)raw_len);
	inl_store_le16(p + 6, (uint16_t)(pblk >> 32));
	inl_store_le32(p + 8, (uint32_t)pblk);
}

static void put_index(uint8_t *node, unsigned i, uint64_t lblk, uint64_t child)
{
	uint8_t *p = node + 12 + 12 * (size_t)i;

	inl_store_le32(p, (uint32_t)lblk);
	inl_store_le32(p + 4, (uint32_t)child);
	inl_store_le16(p + 8, (uint16_t)(child >> 32));
	inl_store_le16(p + 10, 0xffff); /* unused */
}

#define NODE 1024u /* bytes: 84 entries */
#define ANY  (-1)

/* A good leaf: extents of 10 blocks at 100, 110 (touching) and 200. */
static void good_leaf(uint8_t *node)
{
	memset(node, 0, NODE);
	put_header(node, 3, 84, 0);
	put_extent(node, 0, 100, 10, 5000);
	put_extent(node, 1, 110, 10, 7000);
	put_extent(node, 2, 200, 10, 9000);
}

static void good_index(uint8_t *node)
{
	memset(node, 0, NODE);
	put_header(node, 3, 84, 2);
	put_index(node, 0, 100, 40);
	put_index(node, 1, 101, 41);
	put_index(node, 2, 200, 42);
}

static void test_extent_check(void **state)
{
	static const struct {
		unsigned at; /* of 16 bits */
		uint16_t value;
		int leaf, index;
	} cases[] = {
		{ 0, 0xf30b, -EUCLEAN, -EUCLEAN },	 /* magic */
		{ 0, 0x0af3, -EUCLEAN, -EUCLEAN },
		{ 2, 84, -EUCLEAN, -EUCLEAN },		 /* entries: zeros behind the third */
		{ 2, 85, -EUCLEAN, -EUCLEAN },		 /* more than max */
		{ 2, 0, 0, -EUCLEAN },			 /* an index has at least one */
		{ 2, 1, 0, 0 },
		{ 4, 0, -EUCLEAN, -EUCLEAN },		 /* max */
		{ 4, 2, -EUCLEAN, -EUCLEAN },		 /* fewer than entries */
		{ 4, 3, 0, 0 },
		{ 4, 85, -EUCLEAN, -EUCLEAN },		 /* more than fit */
		{ 4, 0xffff, -EUCLEAN, -EUCLEAN },
		{ 6, 1, -EUCLEAN, -EUCLEAN },		 /* another depth */
		{ 6, 6, -EUCLEAN, -EUCLEAN },
		{ 8, 0xffff, 0, 0 },			 /* generation */
		{ 24, 109, -EUCLEAN, 0 },		 /* the second begins within the first extent */
		{ 24, 100, -EUCLEAN, -EUCLEAN },	 /* with it */
		{ 24, 99, -EUCLEAN, -EUCLEAN },		 /* before it */
		{ 24, 201, -EUCLEAN, -EUCLEAN },	 /* behind the third */
		{ 24, 190, 0, 0 },
		{ 24, 191, -EUCLEAN, 0 },		 /* reaches into the third */
	};
	uint8_t leaf[NODE], index[NODE];

	good_leaf(leaf);
	good_index(index);
	assert_int_equal(inl_extent_node_check(leaf, NODE, 0), 0);
	assert_int_equal(inl_extent_node_check(leaf, NODE, ANY), 0);
	assert_int_equal(inl_extent_node_check(leaf, NODE, 1), -EUCLEAN);
	assert_int_equal(inl_extent_node_check(index, NODE, 2), 0);
	assert_int_equal(inl_extent_node_check(index, NODE, ANY), 0);
	assert_int_equal(inl_extent_node_check(index, NODE, 0), -EUCLEAN);
	for (size_t i = 0; i < COUNT(cases); i++) {
		good_leaf(leaf);
		good_index(index);
		inl_store_le16(leaf + cases[i].at, cases[i].value);
		inl_store_le16(index + cases[i].at, cases[i].value);
		assert_int_equal(inl_extent_node_check(leaf, NODE, 0), cases[i].leaf);
		assert_int_equal(inl_extent_node_check(index, NODE, 2), cases[i].index);
	}
}

static void test_extent_lengths(void **state)
{
	static const struct {
		unsigned raw;
		int err;
		uint64_t len;
		enum inl_extent_kind kind;
	} cases[] = {
		{ 0, -EUCLEAN, 0, INL_EXTENT_HOLE },
		{ 1, 0, 1, INL_EXTENT_DATA },
		{ 32767, 0, 32767, INL_EXTENT_DATA },
		{ 32768, 0, 32768, INL_EXTENT_DATA },
		{ 32769, 0, 1, INL_EXTENT_UNWRITTEN },
		{ 65535, 0, 32767, INL_EXTENT_UNWRITTEN },
	};
	struct inl_extent_hit hit;
	uint8_t root[60] = { 0 };

	for (size_t i = 0; i < COUNT(cases); i++) {
		put_header(root, 1, 4, 0);
		put_extent(root, 0, 1000, cases[i].raw, 0x123456789abcull);
		assert_int_equal(inl_extent_node_check(root, sizeof(root), ANY), cases[i].err);
		if (cases[i].err)
			continue;
		assert_int_equal(inl_extent_node_find(root, 0, 1ull << 32, 1000, &hit), 0);
		assert_true(hit.leaf);
		assert_int_equal(hit.run.kind, cases[i].kind);
		assert_int_equal(hit.run.lblk, 1000);
		assert_int_equal(hit.run.len, cases[i].len);
		assert_int_equal(hit.run.pblk, 0x123456789abcull);
		assert_int_equal(inl_extent_node_find(root, 0, 1ull << 32, 1000 + cases[i].len, &hit), 0);
		assert_int_equal(hit.run.kind, INL_EXTENT_HOLE);
		assert_int_equal(hit.run.lblk + hit.run.len, 1ull << 32);
		assert_int_equal(inl_extent_node_find(root, 0, 1ull << 32, 999, &hit), 0);
		assert_int_equal(hit.run.kind, INL_EXTENT_HOLE);
		assert_int_equal(hit.run.lblk + hit.run.len, 1000);
		/* Beyond the last logical block. */
		put_extent(root, 0, (1ull << 32) - cases[i].len + 1, cases[i].raw, 5);
		if (cases[i].len > 1)
			assert_int_equal(inl_extent_node_check(root, sizeof(root), ANY), -EUCLEAN);
	}
}

static void test_extent_sizes(void **state)
{
	uint8_t root[60];

	memset(root, 0, sizeof(root));
	for (unsigned depth = 0; depth < 8; depth++) {
		put_header(root, 4, 4, depth);
		for (unsigned i = 0; i < 4; i++) {
			if (depth)
				put_index(root, i, 10 * (i + 1), 7);
			else
				put_extent(root, i, 10 * (i + 1), 10, 7);
		}
		assert_int_equal(inl_extent_node_check(root, sizeof(root), ANY), depth <= 5 ? 0 : -EUCLEAN);
		assert_int_equal(inl_extent_node_check(root, 59, ANY), -EUCLEAN);
	}
	put_header(root, 0, 1, 0);
	assert_int_equal(inl_extent_node_check(root, 24, ANY), 0);
	for (size_t size = 0; size < 24; size++) {
		uint8_t *exact = test_malloc(size + 1);

		memcpy(exact + 1, root, size);
		assert_int_equal(inl_extent_node_check(exact + 1, size, ANY), -EUCLEAN);
		test_free(exact);
	}
}

/* A node knows what range it may speak of: nothing of it may lie outside. */
static void test_extent_outside(void **state)
{
	struct inl_extent_hit hit;
	uint8_t node[NODE];

	good_leaf(node);
	assert_int_equal(inl_extent_node_find(node, 100, 210, 100, &hit), 0);
	assert_int_equal(inl_extent_node_find(node, 101, 210, 101, &hit), -EUCLEAN);
	assert_int_equal(inl_extent_node_find(node, 100, 209, 205, &hit), -EUCLEAN);
	assert_int_equal(inl_extent_node_find(node, 50, 1000, 60, &hit), 0);
	assert_true(hit.leaf && hit.run.kind == INL_EXTENT_HOLE && hit.run.lblk <= 60);
	assert_int_equal(hit.run.lblk + hit.run.len, 100);
	assert_int_equal(inl_extent_node_find(node, 50, 1000, 210, &hit), 0);
	assert_int_equal(hit.run.lblk + hit.run.len, 1000);
	good_index(node);
	assert_int_equal(inl_extent_node_find(node, 100, 300, 100, &hit), 0);
	assert_true(!hit.leaf && hit.child == 40 && hit.lo == 100 && hit.hi == 101 && hit.depth == 1);
	assert_int_equal(inl_extent_node_find(node, 100, 300, 150, &hit), 0);
	assert_true(!hit.leaf && hit.child == 41 && hit.lo == 101 && hit.hi == 200 && hit.depth == 1);
	assert_int_equal(inl_extent_node_find(node, 100, 300, 299, &hit), 0);
	assert_true(!hit.leaf && hit.child == 42 && hit.lo == 200 && hit.hi == 300 && hit.depth == 1);
	assert_int_equal(inl_extent_node_find(node, 101, 300, 101, &hit), 0);
	assert_int_equal(hit.child, 41);
	assert_int_equal(inl_extent_node_find(node, 150, 300, 150, &hit), -EUCLEAN);
	assert_int_equal(inl_extent_node_find(node, 0, 300, 99, &hit), 0);
	assert_true(hit.leaf && hit.run.kind == INL_EXTENT_HOLE);
	assert_int_equal(hit.run.lblk + hit.run.len, 100);
	put_index(node, 0, 100, 0xfedcba987654ull);
	assert_int_equal(inl_extent_node_find(node, 0, 300, 100, &hit), 0);
	assert_int_equal(hit.child, 0xfedcba987654ull);
}

/* ---- extents: trees against a list ------------------------------------------------------------------------------- */

#define TREE_NODES   500
#define TREE_EXTENTS 84

struct tree {
	struct inl_run runs[TREE_EXTENTS]; /* sorted; no holes */
	unsigned n_runs;
	uint8_t nodes[TREE_NODES][NODE];
	unsigned n_nodes, root;
};

static void random_runs(struct tree *tree)
{
	uint64_t lblk = rng(3) ? rng(50) : 0;

	tree->n_runs = rng(TREE_EXTENTS);
	for (unsigned i = 0; i < tree->n_runs; i++) {
		struct inl_run *run = &tree->runs[i];

		run->kind = rng(3) ? INL_EXTENT_DATA : INL_EXTENT_UNWRITTEN;
		run->lblk = lblk;
		run->len = rng(10) ? 1 + rng(20) : run->kind == INL_EXTENT_DATA ? 32768 : 32767;
		run->pblk = 1000000ull * (i + 1) + ((uint64_t)rng(16) << 40);
		lblk += run->len + (rng(2) ? rng(30) : 0);
	}
}

/* Put n things of the level below into nodes of at most `fan` (0: all into one); returns how many nodes. */
static unsigned build_level(struct tree *tree, unsigned depth, unsigned fan, const unsigned *below, unsigned n,
			    unsigned *made)
{
	unsigned n_made = 0;

	for (unsigned i = 0; i < n || !n_made; n_made++) {
		unsigned now = n ? fan ? 1 + rng(fan) : n : 0;
		uint8_t *node = tree->nodes[tree->n_nodes];

		assert_true(tree->n_nodes < TREE_NODES);
		now = MIN(now, n - i);
		memset(node, 0xa5, NODE); /* what lies behind the entries is nobody's business */
		assert_true(now <= 84);
		put_header(node, now, 84, depth);
		for (unsigned k = 0; k < now; k++, i++) {
			if (depth) {
				put_index(node, k, inl_load_le32(tree->nodes[below[i]] + 12), below[i]);
			} else {
				const struct inl_run *run = &tree->runs[i];
				unsigned raw = (unsigned)run->len + (run->kind == INL_EXTENT_UNWRITTEN ? 32768 : 0);

				put_extent(node, k, run->lblk, raw, run->pblk);
			}
		}
		made[n_made] = tree->n_nodes++;
	}
	return n_made;
}

static void build_tree(struct tree *tree, unsigned depth, unsigned fan)
{
	unsigned level[TREE_NODES], next[TREE_NODES], n;

	tree->n_nodes = 0;
	n = build_level(tree, 0, fan, NULL, tree->n_runs, level);
	for (unsigned d = 1; d <= depth; d++) {
		if (inl_load_le16(tree->nodes[level[0]] + 2) == 0)
			break; /* an empty file */
		n = build_level(tree, d, fan, level, n, next);
		memcpy(level, next, n * sizeof(*level));
	}
	if (n > 1) {
		build_level(tree, inl_load_le16(tree->nodes[level[0]] + 6) + 1u, 0, level, n, next);
		level[0] = next[0];
	}
	tree->root = level[0];
}

static void search_tree(const struct tree *tree, uint64_t lblk, struct inl_run *run)
{
	struct inl_extent_hit hit = { .child = tree->root, .lo = 0, .hi = 1ull << 32 };
	int depth = ANY;

	do {
		const uint8_t *node = tree->nodes[hit.child];
		uint64_t lo = hit.lo, hi = hit.hi;

		assert_int_equal(inl_extent_node_check(node, NODE, depth), 0);
		assert_int_equal(inl_extent_node_find(node, lo, hi, lblk, &hit), 0);
		if (!hit.leaf) {
			assert_true(hit.lo >= lo && hit.hi <= hi && lblk >= hit.lo && lblk < hit.hi);
			assert_true(hit.child < tree->n_nodes);
			depth = (int)hit.depth;
		}
	} while (!hit.leaf);
	*run = hit.run;
}

static void check_tree_at(const struct tree *tree, uint64_t lblk)
{
	const struct inl_run *in = NULL, *behind = NULL;
	struct inl_run run;
	uint64_t before = 0;

	for (unsigned i = 0; i < tree->n_runs && !behind; i++) {
		const struct inl_run *here = &tree->runs[i];

		if (lblk >= here->lblk && lblk < here->lblk + here->len)
			in = here;
		else if (here->lblk > lblk)
			behind = here;
		else
			before = here->lblk + here->len;
	}
	search_tree(tree, lblk, &run);
	if (in) {
		assert_int_equal(run.kind, in->kind);
		assert_int_equal(run.lblk, in->lblk);
		assert_int_equal(run.len, in->len);
		assert_int_equal(run.pblk, in->pblk);
	} else {
		assert_int_equal(run.kind, INL_EXTENT_HOLE);
		assert_in_range(run.lblk, before, lblk);
		assert_in_range(run.lblk + run.len, lblk + 1, behind ? behind->lblk : 1ull << 32);
	}
}

static void test_extent_trees(void **state)
{
	struct tree *tree = test_malloc(sizeof(*tree));

	for (unsigned round = 0; round < 300; round++) {
		unsigned fan = 2 + rng(6);

		random_runs(tree);
		build_tree(tree, round % 5, fan);
		assert_true(inl_load_le16(tree->nodes[tree->root] + 6) <= EXT4_MAX_DEPTH);
		check_tree_at(tree, 0);
		check_tree_at(tree, EXT4_LBLK_NONE - 1);
		for (unsigned i = 0; i < tree->n_runs; i++) {
			const struct inl_run *run = &tree->runs[i];

			check_tree_at(tree, run->lblk);
			check_tree_at(tree, run->lblk + run->len - 1);
			check_tree_at(tree, run->lblk + run->len);
			check_tree_at(tree, run->lblk + rng((uint32_t)run->len));
			if (run->lblk)
				check_tree_at(tree, run->lblk - 1);
		}
	}
	test_free(tree);
}

/* ---- directory entries ------------------------------------------------------------------------------------------- */

static void put_dirent(uint8_t *p, uint32_t ino, uint16_t stored_rec_len, uint8_t name_len, uint8_t type,
		       const char *name)
{
	inl_store_le32(p, ino);
	inl_store_le16(p + 4, stored_rec_len);
	p[6] = name_len;
	p[7] = type;
	memcpy(p + 8, name, name_len);
}

/* Parse one entry that fills a buffer of exactly `size` bytes from `at` on: what is read outside, ASan sees. */
static int parse_exact(const struct inl_dirent_format *format, const uint8_t *bytes, size_t size, size_t at,
		       struct inl_raw_dirent *entry, size_t *next)
{
	uint8_t *exact = malloc(size + !size);
	int err;

	assert_non_null(exact);
	memcpy(exact, bytes, size);
	err = inl_dirent_parse(format, exact, size, at, entry, next);
	if (!err)
		entry->name = bytes + (entry->name - exact);
	free(exact);
	return err;
}

static void test_dirent_types(void **state)
{
	static const uint8_t want[] = { DT_UNKNOWN, DT_REG, DT_DIR, DT_CHR, DT_BLK, DT_FIFO, DT_SOCK, DT_LNK,
					DT_UNKNOWN, DT_UNKNOWN };
	struct inl_dirent_format format = { 1024, true, false };
	struct inl_raw_dirent entry;
	uint8_t block[16] = { 0 };
	size_t next;

	for (unsigned type = 0; type < COUNT(want); type++) {
		put_dirent(block, 77, 16, 5, (uint8_t)type, "a\0/\xff" "b");
		assert_int_equal(parse_exact(&format, block, 16, 0, &entry, &next), 0);
		assert_int_equal(entry.type, want[type]);
		assert_int_equal(entry.ino, 77);
		assert_int_equal(entry.len, 5);
		assert_int_equal(entry.rec_len, 16);
		assert_memory_equal(entry.name, "a\0/\xff" "b", 5);
		assert_int_equal(next, 16);
		assert_int_equal(entry.hash | entry.minor, 0);
	}
	put_dirent(block, 77, 16, 5, 255, "abcde");
	assert_int_equal(parse_exact(&format, block, 16, 0, &entry, &next), 0);
	assert_int_equal(entry.type, DT_UNKNOWN);
}

/* Without the feature the type's byte says nothing: it is 0, or the mark of a checksum's place. */
static void test_dirent_no_filetype(void **state)
{
	struct inl_dirent_format with = { 1024, true, false }, without = { 1024, false, false };
	struct inl_raw_dirent entry;
	uint8_t block[512] = { 0 };
	size_t next;

	put_dirent(block, 77, 300, 3, 2, "abc");
	assert_int_equal(parse_exact(&with, block, 512, 0, &entry, &next), 0);
	assert_true(entry.len == 3 && entry.type == DT_DIR);
	block[7] = 0;
	assert_int_equal(parse_exact(&without, block, 512, 0, &entry, &next), 0);
	assert_true(entry.len == 3 && entry.type == DT_UNKNOWN && next == 300);
	block[6] = 255;
	assert_int_equal(parse_exact(&without, block, 512, 0, &entry, &next), 0);
	assert_int_equal(entry.len, 255);
	put_dirent(block, 0, 12, 0, 0xde, "");
	assert_int_equal(parse_exact(&without, block, 512, 0, &entry, &next), 0);
	assert_true(entry.ino == 0 && entry.len == 0 && next == 12);
}

static void test_dirent_lengths(void **state)
{
	static const struct {
		uint32_t block_size, size, at;
		uint16_t rec_len;
		uint8_t name_len;
		int err;
		size_t next;
	} cases[] = {
		{ 1024, 1024, 0, 12, 4, 0, 12 },
		{ 1024, 1024, 0, 12, 5, -EUCLEAN, 0 }, /* the name does not fit */
		{ 1024, 1024, 0, 16, 5, 0, 16 },
		{ 1024, 1024, 0, 12, 255, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 264, 255, 0, 264 },
		{ 1024, 1024, 0, 260, 255, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 0, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 4, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 8, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 13, 1, -EUCLEAN, 0 }, /* no multiple of 4 */
		{ 1024, 1024, 0, 14, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 1024, 1, 0, 1024 },
		{ 1024, 1024, 0, 1028, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 65535, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 0, 65532, 1, -EUCLEAN, 0 },
		{ 1024, 1024, 12, 1012, 1, 0, 1024 },
		{ 1024, 1024, 12, 1016, 1, -EUCLEAN, 0 }, /* four bytes beyond the block */
		{ 1024, 1024, 1012, 12, 1, 0, 1024 },
		{ 1024, 1024, 1012, 16, 1, -EUCLEAN, 0 },
		{ 1024, 1016, 1004, 12, 1, 0, 1016 },	  /* inline: an area smaller than a block */
		{ 1024, 1012, 1004, 12, 1, -EUCLEAN, 0 },
		{ 32768, 32768, 0, 32768, 1, 0, 32768 },
		{ 65536, 65536, 0, 65535, 1, 0, 65536 },
		{ 65536, 65536, 0, 0, 1, 0, 65536 },
		{ 65536, 65536, 0, 65532, 1, 0, 65532 },
		{ 65536, 65536, 0, 1, 1, 0, 65536 },	  /* the low two bits are bits 16 and 17 */
		{ 65536, 65536, 0, 5, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 0, 65533, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 0, 2, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 12, 65524, 1, 0, 65536 },
		{ 65536, 65536, 12, 65528, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 12, 65535, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 12, 0, 1, -EUCLEAN, 0 },
		{ 65536, 65536, 65524, 12, 4, 0, 65536 },
	};
	static uint8_t block[65536];

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct inl_dirent_format format = { cases[i].block_size, true, false };
		uint8_t *p = block + cases[i].at;
		struct inl_raw_dirent entry;
		size_t next = 0;

		memset(block, 0, sizeof(block));
		inl_store_le32(p, 5);
		inl_store_le16(p + 4, cases[i].rec_len);
		p[6] = cases[i].name_len;
		memset(p + 8, 'n', MIN(cases[i].name_len, cases[i].size - cases[i].at - 8));
		assert_int_equal(parse_exact(&format, block, cases[i].size, cases[i].at, &entry, &next), cases[i].err);
		if (cases[i].err)
			continue;
		assert_int_equal(next, cases[i].next);
		assert_int_equal(entry.rec_len, cases[i].next - cases[i].at);
		assert_int_equal(entry.len, cases[i].name_len);
		assert_ptr_equal(entry.name, p + 8);
	}
}

static void test_dirent_rest(void **state)
{
	struct inl_dirent_format format = { 1024, true, false };
	struct inl_raw_dirent entry;
	uint8_t block[64] = { 0 };
	size_t next;

	put_dirent(block, 5, 12, 1, 1, "a");
	for (size_t size = 0; size < 12; size++)
		assert_int_equal(parse_exact(&format, block, size, 0, &entry, &next), -EUCLEAN);
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), 0);
	assert_int_equal(parse_exact(&format, block, 12, 12, &entry, &next), -EUCLEAN);
	assert_int_equal(parse_exact(&format, block, 12, 13, &entry, &next), -EUCLEAN);
	/* No name: only where nothing is stored. */
	put_dirent(block, 5, 12, 0, 1, "");
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), -EUCLEAN);
	put_dirent(block, 0, 12, 0, 0xde, ""); /* the tail that holds a checksum */
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), 0);
	assert_true(entry.ino == 0 && next == 12);
}

/* Casefolded and encrypted: eight bytes of hashes behind the padded name, except behind the dots. */
static void test_dirent_hashes(void **state)
{
	struct inl_dirent_format format = { 1024, true, true };
	struct inl_raw_dirent entry;
	uint8_t block[64] = { 0 };
	size_t next;

	put_dirent(block, 5, 32, 16, 1, "0123456789abcdef");
	inl_store_le32(block + 24, 0x11223344);
	inl_store_le32(block + 28, 0x55667788);
	assert_int_equal(parse_exact(&format, block, 32, 0, &entry, &next), 0);
	assert_int_equal(entry.hash, 0x11223344);
	assert_int_equal(entry.minor, 0x55667788);
	inl_store_le16(block + 4, 28);
	assert_int_equal(parse_exact(&format, block, 28, 0, &entry, &next), -EUCLEAN);
	format.hashes = false;
	assert_int_equal(parse_exact(&format, block, 28, 0, &entry, &next), 0);
	assert_int_equal(entry.hash | entry.minor, 0);
	format.hashes = true;
	put_dirent(block, 5, 32, 17, 1, "0123456789abcdefg"); /* padded to 20: four bytes short */
	assert_int_equal(parse_exact(&format, block, 32, 0, &entry, &next), -EUCLEAN);
	inl_store_le16(block + 4, 36);
	inl_store_le32(block + 28, 7);
	assert_int_equal(parse_exact(&format, block, 36, 0, &entry, &next), 0);
	assert_int_equal(entry.hash, 7);
	put_dirent(block, 5, 12, 1, 2, ".");
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), 0);
	assert_int_equal(entry.hash | entry.minor, 0);
	put_dirent(block, 5, 12, 2, 2, "..");
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), 0);
	put_dirent(block, 5, 12, 2, 2, ".x");
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), -EUCLEAN);
	put_dirent(block, 0, 12, 0, 0xde, "");
	assert_int_equal(parse_exact(&format, block, 12, 0, &entry, &next), 0);
}

/* Whole blocks of random entries, parsed back in order. */
static void test_dirent_blocks(void **state)
{
	for (unsigned round = 0; round < 300; round++) {
		static const uint32_t sizes[] = { 1024, 4096, 65536 };
		struct inl_dirent_format format = { sizes[round % 3], round & 1, (round & 6) == 6 };
		uint8_t *block = calloc(1, format.block_size);
		uint32_t starts[4000], lens[4000], n = 0, at = 0;
		struct inl_raw_dirent entry;
		size_t next = 0;

		assert_non_null(block);
		while (format.block_size - at >= 280) {
			uint32_t len = 1 + rng(255), rec_len = (8 + len + 3) & ~3u;

			rec_len += (format.hashes ? 8 : 0) + 4 * (rng(4) ? 0 : rng(3));
			if (format.block_size - at - rec_len < 12)
				break;
			for (uint32_t i = 0; i < len; i++)
				block[at + 8 + i] = (uint8_t)(rng(256) | (i == 0 ? 0x80 : 0));
			inl_store_le32(block + at, n + 1);
			inl_store_le16(block + at + 4, (uint16_t)rec_len);
			inl_store_le16(block + at + 6, (uint16_t)len);
			starts[n] = at;
			lens[n++] = len;
			at += rec_len;
		}
		inl_store_le16(block + at + 4, (uint16_t)(format.block_size - at)); /* the unused rest */
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(next, starts[i]);
			assert_int_equal(inl_dirent_parse(&format, block, format.block_size, next, &entry, &next), 0);
			assert_int_equal(entry.ino, i + 1);
			assert_int_equal(entry.len, lens[i]);
			assert_ptr_equal(entry.name, block + starts[i] + 8);
		}
		assert_int_equal(inl_dirent_parse(&format, block, format.block_size, next, &entry, &next), 0);
		assert_int_equal(entry.ino, 0);
		assert_int_equal(next, format.block_size);
		free(block);
	}
}

/* ---- the index of directories ------------------------------------------------------------------------------------ */

static void put_root(uint8_t *block, uint32_t block_size, bool csum, unsigned count)
{
	memset(block, 0, block_size);
	put_dirent(block, 2, 12, 1, 2, ".");
	put_dirent(block + 12, 2, (uint16_t)(block_size - 12), 2, 2, "..");
	block[28] = 1; /* half MD4 */
	block[29] = 8;
	inl_store_le16(block + 32, (uint16_t)((block_size - 32) / 8 - csum));
	inl_store_le16(block + 34, (uint16_t)count);
}

static void put_node(uint8_t *block, uint32_t block_size, bool csum, unsigned count)
{
	memset(block, 0, block_size);
	inl_store_le16(block + 4, block_size == 65536 ? 65535 : (uint16_t)block_size);
	inl_store_le16(block + 8, (uint16_t)((block_size - 8) / 8 - csum));
	inl_store_le16(block + 10, (uint16_t)count);
}

static void test_dx_parse(void **state)
{
	static const uint32_t sizes[] = { 1024, 2048, 4096, 65536 };
	static uint8_t block[65536];
	struct inl_dx_node node;

	for (unsigned i = 0; i < 8; i++) {
		uint32_t size = sizes[i / 2];
		bool csum = i & 1;
		unsigned root_max = (size - 32) / 8 - csum, node_max = (size - 8) / 8 - csum;

		put_root(block, size, csum, 3);
		assert_int_equal(inl_dx_root_parse(block, size, csum, false, &node), 0);
		assert_true(node.count == 3 && node.limit == root_max && node.offset == 32);
		assert_true(node.hash_version == 1 && node.levels == 0 && node.entries == block + 32);
		assert_int_equal(inl_dx_root_parse(block, size, !csum, false, &node), -EUCLEAN);
		inl_store_le16(block + 34, (uint16_t)root_max);
		assert_int_equal(inl_dx_root_parse(block, size, csum, false, &node), 0);
		inl_store_le16(block + 34, (uint16_t)(root_max + 1));
		assert_int_equal(inl_dx_root_parse(block, size, csum, false, &node), -EUCLEAN);

		put_node(block, size, csum, 3);
		assert_int_equal(inl_dx_node_parse(block, size, csum, &node), 0);
		assert_true(node.count == 3 && node.limit == node_max && node.offset == 8 && node.entries == block + 8);
		assert_int_equal(inl_dx_node_parse(block, size, !csum, &node), -EUCLEAN);
		inl_store_le16(block + 10, (uint16_t)node_max);
		assert_int_equal(inl_dx_node_parse(block, size, csum, &node), 0);
		inl_store_le16(block + 10, (uint16_t)(node_max + 1));
		assert_int_equal(inl_dx_node_parse(block, size, csum, &node), -EUCLEAN);
		inl_store_le16(block + 10, 0);
		assert_int_equal(inl_dx_node_parse(block, size, csum, &node), -EUCLEAN);
		put_node(block, size, csum, 3);
		block[0] = 1; /* an inode number: an entry, no node */
		assert_int_equal(inl_dx_node_parse(block, size, csum, &node), -EUCLEAN);
	}
}

static void test_dx_root_faults(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
		int small, large;
	} cases[] = {
		{ 4, 16, -EUCLEAN, -EUCLEAN },	/* length of "." */
		{ 24, 1, -EUCLEAN, -EUCLEAN },	/* reserved */
		{ 27, 1, -EUCLEAN, -EUCLEAN },
		{ 28, 2, 0, 0 },		/* hash version: the caller's business */
		{ 29, 7, -EUCLEAN, -EUCLEAN },	/* length of this information */
		{ 29, 0, -EUCLEAN, -EUCLEAN },
		{ 30, 1, 0, 0 },		/* levels */
		{ 30, 2, -EUCLEAN, 0 },
		{ 30, 3, -EUCLEAN, -EUCLEAN },
		{ 30, 255, -EUCLEAN, -EUCLEAN },
		{ 31, 1, -EUCLEAN, -EUCLEAN },	/* flags */
		{ 32, 123, -EUCLEAN, -EUCLEAN },/* limit: 124 */
		{ 32, 125, -EUCLEAN, -EUCLEAN },
		{ 34, 0, -EUCLEAN, -EUCLEAN },	/* count */
		{ 34, 1, 0, 0 },
		{ 34, 124, 0, 0 },
		{ 34, 125, -EUCLEAN, -EUCLEAN },
		{ 35, 1, -EUCLEAN, -EUCLEAN },
	};
	struct inl_dx_node node;
	uint8_t block[1024];

	for (size_t i = 0; i < COUNT(cases); i++) {
		put_root(block, 1024, false, 3);
		block[cases[i].at] = cases[i].value;
		assert_int_equal(inl_dx_root_parse(block, 1024, false, false, &node), cases[i].small);
		assert_int_equal(inl_dx_root_parse(block, 1024, false, true, &node), cases[i].large);
		if (!cases[i].large && cases[i].at == 30)
			assert_int_equal(node.levels, cases[i].value);
	}
}

static void test_dx_search(void **state)
{
	uint8_t block[1024];
	struct inl_dx_node node;

	for (unsigned round = 0; round < 500; round++) {
		unsigned count = 1 + rng(127), wanted;
		uint32_t hash = 0;

		put_node(block, 1024, false, count);
		inl_store_le32(block + 12, 1000);
		for (unsigned i = 1; i < count; i++) {
			hash += rng(8) ? 2 * rng(0x1000000 / (1 + rng(100))) : 0;
			inl_store_le32(block + 8 + 8 * i, hash);
			inl_store_le32(block + 12 + 8 * i, (1000 + i) | rng(16) << 28); /* four reserved bits */
		}
		assert_int_equal(inl_dx_node_parse(block, 1024, false, &node), 0);
		for (unsigned i = 0; i < 200; i++) {
			uint32_t probe = i < count ? inl_load_le32(block + 8 + 8 * i) : rng(0x1000000) * 257u;

			probe = i == 0 ? 0 : i == 199 ? UINT32_MAX : probe + rng(3) - 1;
			wanted = 0;
			for (unsigned k = 1; k < count; k++)
				wanted = inl_load_le32(block + 8 + 8 * k) <= probe ? k : wanted;
			assert_int_equal(inl_dx_search(&node, probe), wanted);
			assert_int_equal(inl_dx_entry(&node, wanted).block, 1000 + wanted);
			assert_int_equal(inl_dx_entry(&node, wanted).hash,
					 wanted ? inl_load_le32(block + 8 + 8 * wanted) : 0);
		}
	}
}

/* ---- extended attributes ----------------------------------------------------------------------------------------- */

#define AREA 256u

/* Entries from the front, values from the back. */
struct area {
	uint8_t bytes[AREA];
	size_t at, value_at;
};

static size_t put_xattr(struct area *area, uint8_t index, const char *name, const void *value, uint32_t size)
{
	uint8_t *p = area->bytes + area->at;
	size_t entry_at = area->at, name_len = strlen(name);

	area->value_at -= (size + 3) & ~3u;
	memcpy(area->bytes + area->value_at, value, size);
	p[0] = (uint8_t)name_len;
	p[1] = index;
	inl_store_le16(p + 2, size ? (uint16_t)area->value_at : 0);
	inl_store_le32(p + 8, size);
	memcpy(p + 16, name, name_len);
	area->at += (16 + name_len + 3) & ~(size_t)3;
	return entry_at;
}

struct seen {
	struct {
		uint8_t index;
		char name[256];
		uint8_t value[AREA];
		uint32_t size, ino;
	} xattrs[20];
	unsigned n, stop_at;
};

static int see(const struct inl_raw_xattr *xattr, void *arg)
{
	struct seen *seen = arg;

	assert_true(seen->n < 20);
	seen->xattrs[seen->n].index = xattr->index;
	memcpy(seen->xattrs[seen->n].name, xattr->name, xattr->name_len);
	seen->xattrs[seen->n].name[xattr->name_len] = 0;
	seen->xattrs[seen->n].size = xattr->size;
	seen->xattrs[seen->n].ino = xattr->value_ino;
	if (xattr->size) /* else there is nothing to point at */
		assert_int_equal(xattr->value == NULL, xattr->value_ino != 0);
	if (xattr->value && xattr->size)
		memcpy(seen->xattrs[seen->n].value, xattr->value, xattr->size);
	return ++seen->n == seen->stop_at ? 4711 : 0;
}

static int walk_exact(const uint8_t *bytes, size_t len, size_t first, struct seen *seen)
{
	uint8_t *exact = malloc(len + !len);
	int err;

	assert_non_null(exact);
	memcpy(exact, bytes, len);
	memset(seen->xattrs, 0, sizeof(seen->xattrs));
	seen->n = 0;
	err = inl_xattr_area_walk(exact, len, first, see, seen);
	free(exact);
	return err;
}

static void test_xattr_walk(void **state)
{
	for (size_t first = 0; first <= 32; first += 32) {
		struct area area = { .at = first, .value_at = AREA };
		static struct seen seen;

		memset(area.bytes, 0xff, first);
		assert_int_equal(walk_exact(area.bytes, AREA, first, &seen), 0);
		assert_int_equal(seen.n, 0);
		put_xattr(&area, 1, "comment", "hello", 5);
		put_xattr(&area, 9, "c", "\x02\x01\x04\x02", 4);
		put_xattr(&area, 2, "", "\1\0\0\0", 4); /* an ACL has no name of its own */
		put_xattr(&area, 6, "empty", "", 0);
		inl_store_le32(area.bytes + put_xattr(&area, 1, "big", "", 0) + 4, 99);
		inl_store_le32(area.bytes + area.at - 20 + 8, 40000); /* in inode 99 */
		assert_int_equal(walk_exact(area.bytes, AREA, first, &seen), 0);
		assert_int_equal(seen.n, 5);
		assert_int_equal(seen.xattrs[0].index, 1);
		assert_string_equal(seen.xattrs[0].name, "comment");
		assert_int_equal(seen.xattrs[0].size, 5);
		assert_memory_equal(seen.xattrs[0].value, "hello", 5);
		assert_int_equal(seen.xattrs[1].index, 9);
		assert_memory_equal(seen.xattrs[1].value, "\x02\x01\x04\x02", 4);
		assert_string_equal(seen.xattrs[2].name, "");
		assert_int_equal(seen.xattrs[3].size, 0);
		assert_int_equal(seen.xattrs[4].ino, 99);
		assert_int_equal(seen.xattrs[4].size, 40000);
		seen.stop_at = 2;
		assert_int_equal(walk_exact(area.bytes, AREA, first, &seen), 4711);
		assert_int_equal(seen.n, 2);
		seen.stop_at = 0;
	}
}

/* Values that are shared, and an area that is full to its last byte. */
static void test_xattr_tight(void **state)
{
	struct area area = { .value_at = 64 };
	static struct seen seen;

	put_xattr(&area, 1, "abcd", "12345678", 8);
	put_xattr(&area, 1, "efgh", "", 0);
	inl_store_le16(area.bytes + 20 + 2, 56);
	inl_store_le32(area.bytes + 20 + 8, 8);
	assert_int_equal(walk_exact(area.bytes, 64, 0, &seen), 0);
	assert_int_equal(seen.n, 2);
	assert_memory_equal(seen.xattrs[1].value, "12345678", 8);
	/* No room for the zero that ends the list. */
	area = (struct area){ .value_at = 40 };
	put_xattr(&area, 1, "abcd", "", 0);
	put_xattr(&area, 1, "efgh", "", 0);
	assert_int_equal(area.at, 40);
	assert_int_equal(walk_exact(area.bytes, 40, 0, &seen), 0);
	assert_int_equal(seen.n, 2);
	assert_int_equal(walk_exact(area.bytes, 0, 0, &seen), 0);
	assert_int_equal(seen.n, 0);
}

static void test_xattr_faults(void **state)
{
	static const struct {
		unsigned at, size;
		uint32_t value;
		int err;
	} cases[] = {
		{ 24 + 0, 1, 255, -EUCLEAN },	      /* name beyond the end */
		{ 24 + 2, 2, AREA - 4, 0 },	      /* value: the last four bytes */
		{ 24 + 2, 2, AREA - 3, -EUCLEAN },    /* one byte beyond */
		{ 24 + 2, 2, AREA, -EUCLEAN },
		{ 24 + 2, 2, 0xffff, -EUCLEAN },
		{ 24 + 8, 4, 5, 0 },		      /* value size: it lies 8 before the end */
		{ 24 + 8, 4, 8, 0 },
		{ 24 + 8, 4, 9, -EUCLEAN },
		{ 24 + 8, 4, 0xffffffff, -EUCLEAN },
		{ 24 + 8, 4, 0x80000000, -EUCLEAN },
		{ 24 + 16, 1, 0, -EUCLEAN },	      /* NUL in the name */
	};
	static struct seen seen;

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct area area = { .value_at = AREA - 4 };

		put_xattr(&area, 1, "firstabc", "", 0);
		assert_int_equal(put_xattr(&area, 1, "second", "1234", 4), 24);
		assert_int_equal(walk_exact(area.bytes, AREA, 0, &seen), 0);
		memcpy(area.bytes + cases[i].at, &cases[i].value, cases[i].size);
		assert_int_equal(walk_exact(area.bytes, AREA, 0, &seen), cases[i].err);
	}
	/* The area ends within the second entry, at each byte that leaves something of it that is not zero. */
	for (size_t len = 28; len < 24 + 16 + 6; len++) {
		struct area area = { .value_at = AREA };

		put_xattr(&area, 1, "firstabc", "", 0);
		put_xattr(&area, 1, "second", "", 0);
		assert_int_equal(walk_exact(area.bytes, len, 0, &seen), -EUCLEAN);
		assert_int_equal(seen.n, 1);
	}
	/* In another inode: no offset to check, but a length. */
	for (unsigned i = 0; i < 2; i++) {
		struct area area = { .value_at = AREA };

		put_xattr(&area, 1, "far", "", 0);
		inl_store_le32(area.bytes + 4, 12);
		inl_store_le32(area.bytes + 8, 65536 + i);
		assert_int_equal(walk_exact(area.bytes, AREA, 0, &seen), i ? -EUCLEAN : 0);
	}
}

/* ---- ACLs -------------------------------------------------------------------------------------------------------- */

/* user::rwx user:1000:r-x group::r-x group:4294967294:--- mask::r-x other::r-- */
static const uint8_t acl_stored[] = {
	1, 0, 0, 0,
	0x01, 0, 7, 0,
	0x02, 0, 5, 0, 0xe8, 3, 0, 0,
	0x04, 0, 5, 0,
	0x08, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff,
	0x10, 0, 5, 0,
	0x20, 0, 4, 0,
};
static const uint8_t acl_shown[] = {
	2, 0, 0, 0,
	0x01, 0, 7, 0, 0xff, 0xff, 0xff, 0xff,
	0x02, 0, 5, 0, 0xe8, 3, 0, 0,
	0x04, 0, 5, 0, 0xff, 0xff, 0xff, 0xff,
	0x08, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff,
	0x10, 0, 5, 0, 0xff, 0xff, 0xff, 0xff,
	0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
};

static int convert_exact(const uint8_t *value, size_t len, uint8_t *out)
{
	uint8_t *in = malloc(len + !len), *room = malloc(2 * len + 4);
	int got;

	assert_true(in && room);
	memcpy(in, value, len);
	got = inl_acl_convert(in, len, room);
	if (got > 0)
		memcpy(out, room, (size_t)got);
	free(in);
	free(room);
	return got;
}

static void test_acl(void **state)
{
	static const size_t ends[] = { 4, 8, 16, 20, 28, 32, 36 }; /* behind each entry */
	uint8_t out[100], stored[sizeof(acl_stored)];
	unsigned n = 0;

	for (size_t len = 0; len <= sizeof(acl_stored); len++) {
		bool whole = len == ends[n];
		int got = convert_exact(acl_stored, len, out);

		assert_int_equal(got, whole ? (int)(4 + 8 * n) : -EUCLEAN);
		if (whole)
			assert_memory_equal(out, acl_shown, (size_t)got);
		n += whole;
	}
	assert_int_equal(n, COUNT(ends));
	memcpy(stored, acl_stored, sizeof(stored));
	stored[0] = 2; /* version */
	assert_int_equal(convert_exact(stored, sizeof(stored), out), -EUCLEAN);
	stored[0] = 1;
	stored[3] = 1;
	assert_int_equal(convert_exact(stored, sizeof(stored), out), -EUCLEAN);
	stored[3] = 0;
	for (unsigned tag = 0; tag < 70; tag++) { /* of the last entry: four bytes, so no named one */
		bool good = tag == 1 || tag == 4 || tag == 16 || tag == 32;

		stored[32] = (uint8_t)tag;
		assert_int_equal(convert_exact(stored, sizeof(stored), out), good ? (int)sizeof(acl_shown) : -EUCLEAN);
	}
}

/* ---- volumes: a tree of files, mke2fs, and what it takes to compare ---------------------------------------------- */

static uint8_t pattern_byte(uint64_t offset, unsigned salt)
{
	uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15ull + salt * 0xc2b2ae3d27d4eb4full;

	return (uint8_t)((x ^ x >> 29) >> 16 | 1); /* never zero: zeros are holes */
}

static void put_data(int fd, uint64_t offset, size_t len, unsigned salt)
{
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern_byte(offset + i, salt);
	assert_int_equal(pwrite(fd, buf, len, (off_t)offset), (ssize_t)len);
	free(buf);
}

static int source_file(const char *name, uint64_t size)
{
	int fd = open(in_dir(name), O_RDWR | O_CREAT | O_EXCL, 0640);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void source_filled(const char *name, uint64_t size)
{
	int fd = source_file(name, size);

	put_data(fd, 0, size, (unsigned)size);
	close(fd);
}

static void source_link(const char *target_of, const char *name)
{
	assert_int_equal(symlink(target_of, in_dir(name)), 0);
}

/* Files around every border there is, sparse ones, links of every length, directories. */
static void make_source(void)
{
	static const uint32_t sizes[] = { 0,     1,     59,    60,           61,       100,      150,
					  160,   1023,  1024,  1025,         2047,     2048,     2049,
					  4095,  4096,  4097,  12 * KIB,     13 * KIB, 48 * KIB, 49 * KIB,
					  65535, 65536, 65537, 300 * KIB + 1 };
	static const unsigned links[] = { 1, 58, 59, 60, 61, 100, 150, 255, 900 };
	char name[64], long_name[300], target[1000];
	int fd;

	assert_int_equal(mkdir(in_dir("src"), 0755), 0);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		snprintf(name, sizeof(name), "src/size-%u", sizes[i]);
		source_filled(name, sizes[i]);
	}
	/* Blocks in all three ways of indirection, for block sizes of 1 KiB; for the others in some. */
	fd = source_file("src/sparse", 66 * MIB + 77);
	put_data(fd, 4 * KIB, 4 * KIB, 1);
	put_data(fd, 100 * KIB, 12 * KIB, 2);
	put_data(fd, 268 * KIB - 4 * KIB, 8 * KIB, 3);
	put_data(fd, 5 * MIB, 70 * KIB, 4);
	put_data(fd, 65804 * KIB - 4 * KIB, 8 * KIB, 5);
	put_data(fd, 65 * MIB, 300 * KIB, 6);
	put_data(fd, 66 * MIB, 77, 7);
	close(fd);
	/* Many fragments: a tree of extents. */
	fd = source_file("src/fragments", 0);
	for (unsigned i = 0; i < 500; i++)
		put_data(fd, i * 8ull * KIB, 3 * KIB + 5, i);
	close(fd);
	for (size_t i = 0; i < COUNT(links); i++) {
		memset(target, 't', links[i]);
		target[links[i]] = 0;
		snprintf(name, sizeof(name), "src/link-%u", links[i]);
		source_link(target, name);
	}
	assert_int_equal(mkdir(in_dir("src/empty"), 0700), 0);
	assert_int_equal(mkdir(in_dir("src/dir"), 01777), 0);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "src/dir/%u-%.*s", i, (int)(i * 2 / 3),
			 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
		source_filled(name, i * 3);
	}
	memset(long_name, 0xe4, sizeof(long_name));
	memcpy(long_name, "src/dir/", 8);
	long_name[8 + 255] = 0;
	source_filled(long_name, 5);
	assert_int_equal(mkdir(in_dir("src/few"), 0755), 0);
	source_filled("src/few/one", 10);
	source_filled("src/few/two", 2000);
	assert_int_equal(link(in_dir("src/few/one"), in_dir("src/few/again")), 0);
	assert_int_equal(mkfifo(in_dir("src/few/fifo"), 0600), 0);
}

static int setup(void **state)
{
	int err = work_dir_make("ext4");

	if (!err && work_dir[0])
		make_source();
	return err;
}

static int teardown(void **state)
{
	return work_dir_remove();
}

/* An image, mapped, as a device of any logical block size. */
struct image {
	uint8_t *bytes;
	size_t size;
	struct inl_dev *dev;
	struct inl_volume *vol;
};

static void image_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct image *image = inl_dev_priv(dev);

	assert_int_equal(bio->op, INL_READ);
	inl_bio_copy_in(bio, 0, image->bytes + bio->state.pos, bio->len);
	inl_bio_end(bio, 0);
}

static const struct inl_dev_ops image_ops = { .name = "image", .submit = image_submit };

/* Changes to image->bytes stay in memory. */
static void image_map(struct image *image, const char *name)
{
	struct stat st;
	int fd = open(in_dir(name), O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	memset(image, 0, sizeof(*image));
	image->size = (size_t)st.st_size;
	image->bytes = mmap(NULL, image->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(image->bytes, MAP_FAILED);
	close(fd);
}

static int image_try_open(struct image *image, uint32_t dev_block_size, struct inl_diag *diag)
{
	struct inl_dev_params params = { .size = image->size, .block_size = dev_block_size };

	assert_int_equal(inl_dev_new(&image_ops, image, &params, &image->dev), 0);
	return inl_volume_open(image->dev, NULL, 0, diag, &image->vol);
}

static void image_open(struct image *image, const char *name, uint32_t dev_block_size)
{
	struct inl_diag diag = { 0 };

	image_map(image, name);
	if (image_try_open(image, dev_block_size, &diag)) {
		print_error("%s\n", diag.text);
		fail();
	}
}

static void image_done(struct image *image)
{
	inl_volume_close(image->vol);
	inl_dev_close(image->dev);
	munmap(image->bytes, image->size);
}

static struct inl_inode *get_path(struct inl_volume *vol, const char *path)
{
	struct inl_inode *inode;

	assert_int_equal(inl_path(vol, path, false, NULL, &inode), 0);
	return inode;
}

/* ---- volumes: compare -------------------------------------------------------------------------------------------- */

/* Extents add up to the file; holes are zeros; data lies where it is said to lie. */
static void compare_extents(struct image *image, struct inl_inode *inode, const uint8_t *want, uint64_t size)
{
	struct inl_extent extent;
	uint64_t at = 0;

	while (at < size) {
		assert_int_equal(inl_inode_extent(inode, at, &extent, NULL), 0);
		assert_int_equal(extent.offset, at);
		assert_in_range(extent.len, 1, size - at);
		if (extent.kind == INL_EXTENT_DATA)
			assert_memory_equal(image->bytes + extent.phys, want + at, extent.len);
		if (extent.kind == INL_EXTENT_HOLE || extent.kind == INL_EXTENT_UNWRITTEN)
			assert_true(want[at] == 0 && !memcmp(want + at, want + at + 1, extent.len - 1));
		if (extent.kind == INL_EXTENT_INLINE)
			assert_true(at == 0 && extent.len == size);
		at += extent.len;
	}
	assert_int_equal(inl_inode_extent(inode, size, &extent, NULL), -ENXIO);
	assert_int_equal(inl_inode_extent(inode, UINT64_MAX, &extent, NULL), -ENXIO);
}

static void compare_read(struct inl_inode *inode, const uint8_t *want, uint64_t size, uint64_t offset, size_t len)
{
	uint8_t *buf = malloc(len + !len);
	size_t got = 12345, wanted = offset >= size ? 0 : MIN(len, size - offset);

	assert_non_null(buf);
	assert_int_equal(inl_read(inode, offset, buf, len, &got, NULL), 0);
	assert_int_equal(got, wanted);
	assert_true(!wanted || !memcmp(buf, want + offset, wanted));
	free(buf);
}

static void compare_content(struct image *image, struct inl_inode *inode, const uint8_t *want, uint64_t size)
{
	size_t step = size > 4 * MIB ? 3 * MIB + 12345 : 100 * KIB + 7;

	compare_extents(image, inode, want, size);
	if (size < 8 * MIB)
		compare_read(inode, want, size, 0, size + 100000);
	for (uint64_t at = 0; at < size; at += step)
		compare_read(inode, want, size, at, step);
	compare_read(inode, want, size, size, 10);
	compare_read(inode, want, size, size + 100000, 10);
	compare_read(inode, want, size, 0, 0);
}

static void compare_file(struct image *image, struct inl_inode *inode, const char *source, uint64_t size)
{
	int fd = open(source, O_RDONLY);
	uint8_t *want = NULL;

	assert_true(fd >= 0);
	if (size) {
		want = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
		assert_ptr_not_equal(want, MAP_FAILED);
	}
	close(fd);
	compare_content(image, inode, want, size);
	if (size)
		munmap(want, size);
}

static void compare_link(struct inl_inode *inode, const char *source)
{
	char want[2000], got[2000];
	ssize_t wanted = readlink(source, want, sizeof(want));
	size_t len = 0;

	assert_true(wanted > 0);
	assert_int_equal(inl_readlink(inode, got, sizeof(got), &len, NULL), 0);
	assert_int_equal(len, wanted);
	assert_memory_equal(got, want, len);
	assert_int_equal(inl_readlink(inode, got, len, &len, NULL), 0);
	assert_int_equal(inl_readlink(inode, got, len - 1, &len, NULL), -ERANGE);
}

static unsigned count_source(const char *source)
{
	DIR *dir = opendir(source);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void compare_tree(struct image *image, struct inl_inode *dir, const char *source, bool filetype);

static void compare_one(struct image *image, struct inl_inode *parent, const struct inl_dirent *entry, const char *path,
			bool filetype)
{
	struct inl_inode *inode;
	struct inl_stat got;
	struct stat want;
	uint64_t ino;

	assert_int_equal(lstat(path, &want), 0);
	assert_int_equal(inl_lookup(parent, entry->name, entry->len, &ino, NULL), 0);
	assert_int_equal(ino, entry->ino);
	assert_int_equal(inl_inode_get(image->vol, ino, NULL, &inode), 0);
	assert_int_equal(inl_inode_stat(inode, &got, NULL), 0);
	assert_int_equal(got.mode, want.st_mode);
	assert_int_equal(got.mtime.sec, want.st_mtime);
	assert_int_equal(entry->type, filetype ? IFTODT(want.st_mode) : DT_UNKNOWN);
	if (!S_ISDIR(want.st_mode)) {
		assert_int_equal(got.nlink, want.st_nlink);
		assert_int_equal(got.size, want.st_size);
	}
	if (S_ISREG(want.st_mode))
		compare_file(image, inode, path, (uint64_t)want.st_size);
	else if (S_ISLNK(want.st_mode))
		compare_link(inode, path);
	else if (S_ISDIR(want.st_mode))
		compare_tree(image, inode, path, filetype);
	inl_inode_put(inode);
}

/* Every place of a directory, by another iterator that is sent there. */
static void check_resume(struct inl_inode *inode)
{
	struct inl_dirent entry, again;
	struct inl_dir *dir, *other;
	uint64_t start, pos;
	int got;

	assert_int_equal(inl_dir_open(inode, NULL, &dir), 0);
	assert_int_equal(inl_dir_open(inode, NULL, &other), 0);
	start = inl_dir_tell(dir);
	do {
		pos = inl_dir_tell(dir);
		got = inl_dir_next(dir, &entry, NULL);
		inl_dir_seek(other, pos);
		assert_int_equal(inl_dir_tell(other), pos);
		assert_int_equal(inl_dir_next(other, &again, NULL), got);
		if (got > 0) {
			assert_int_equal(again.ino, entry.ino);
			assert_string_equal(again.name, entry.name);
		}
	} while (got > 0);
	assert_int_equal(got, 0);
	inl_dir_seek(dir, start); /* and back from the end */
	inl_dir_seek(other, start);
	assert_int_equal(inl_dir_next(dir, &entry, NULL), inl_dir_next(other, &again, NULL));
	inl_dir_close(dir);
	inl_dir_close(other);
}

static void compare_tree(struct image *image, struct inl_inode *inode, const char *source, bool filetype)
{
	struct inl_dirent entry;
	struct inl_dir *dir;
	unsigned n = 0;
	int got;

	check_resume(inode);
	assert_int_equal(inl_dir_open(inode, NULL, &dir), 0);
	while ((got = inl_dir_next(dir, &entry, NULL)) > 0) {
		char path[PATH_MAX];

		assert_int_equal(entry.status, 0);
		if (!strcmp(entry.name, "lost+found"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", source, entry.name);
		compare_one(image, inode, &entry, path, filetype);
		n++;
	}
	assert_int_equal(got, 0);
	assert_int_equal(n, count_source(source));
	inl_dir_close(dir);
}

static const struct layout {
	const char *name, *options, *size;
	uint32_t dev_block_size;
	bool no_filetype;
} layouts[] = {
	{ "1 KiB", "-t ext4 -b 1024", "32M", 512 },
	{ "1 KiB on 4 KiB sectors", "-t ext4 -b 1024 -O ^metadata_csum", "32M", 4096 },
	{ "2 KiB", "-t ext4 -b 2048", "32M", 512 },
	{ "4 KiB", "-t ext4 -b 4096", "32M", 4096 },
	{ "64 KiB", "-t ext4 -b 65536 -N 300", "300M", 512 },
	{ "64 KiB, no checksums", "-t ext4 -b 65536 -O ^metadata_csum -N 300", "300M", 4096 },
	{ "ext2, 1 KiB", "-t ext2 -b 1024 -I 128", "32M", 512 },
	{ "ext2, 1 KiB on 4 KiB sectors", "-t ext2 -b 1024 -I 256", "32M", 4096 },
	{ "ext2, revision 0 style", "-t ext2 -b 4096 -I 128 -O none", "32M", 512, true },
	{ "ext3, 2 KiB", "-t ext3 -b 2048", "32M", 512 },
	{ "ext3, 4 KiB", "-t ext3 -b 4096", "32M", 512 },
	{ "inline data", "-t ext4 -b 1024 -O inline_data -I 256", "32M", 512 },
	{ "inline data, big inodes", "-t ext4 -b 4096 -O inline_data -I 1024", "32M", 512 },
	{ "128-byte inodes", "-t ext4 -b 1024 -I 128", "32M", 512 },
	{ "bigalloc", "-t ext4 -b 1024 -O bigalloc -C 16384", "64M", 512 },
	{ "bigalloc, 4 KiB", "-t ext4 -b 4096 -O bigalloc -C 65536", "64M", 512 },
	{ "no index, no 64 bits", "-t ext4 -b 1024 -O ^dir_index,^64bit", "32M", 512 },
	{ "meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg", "32M", 512 },
	{ "checksum seed", "-t ext4 -b 4096 -O metadata_csum_seed,large_dir,ea_inode", "32M", 512 },
};

static void test_layouts(void **state)
{
	needs_tools();
	for (size_t i = 0; i < COUNT(layouts); i++) {
		struct inl_inode *root;
		struct image image;

		print_message("%s\n", layouts[i].name);
		run("rm -f i.img && mke2fs -F -q %s -d src i.img %s && e2fsck -fn i.img", layouts[i].options,
		    layouts[i].size);
		image_open(&image, "i.img", layouts[i].dev_block_size);
		root = get_path(image.vol, "/");
		compare_tree(&image, root, in_dir("src"), !layouts[i].no_filetype);
		inl_inode_put(root);
		image_done(&image);
	}
}

/* The files of one volume are what this test means to read: a deep tree, all levels of indirection, inline ones. */
static void test_layouts_are_what_they_say(void **state)
{
	struct inl_inode *inode;
	struct inl_extent extent;
	struct image image;

	needs_tools();
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -d src i.img 32M");
	image_open(&image, "i.img", 512);
	inode = get_path(image.vol, "/fragments");
	assert_true(inl_load_le16((const uint8_t *)inode->raw.i_block + 6) >= 2);
	inl_inode_put(inode);
	image_done(&image);

	run("rm -f i.img && mke2fs -F -q -t ext2 -b 1024 -d src i.img 32M");
	image_open(&image, "i.img", 512);
	inode = get_path(image.vol, "/sparse");
	assert_false(inode->raw.i_flags & EXT4_EXTENTS_FL);
	for (unsigned i = EXT2_IND_BLOCK; i <= EXT2_TIND_BLOCK; i++)
		assert_int_not_equal(inode->raw.i_block[i], 0);
	inl_inode_put(inode);
	image_done(&image);

	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -O inline_data -d src i.img 32M");
	image_open(&image, "i.img", 512);
	static const char *const inlined[] = { "/size-1", "/size-59", "/size-100", "/empty", "/few", "/link-100" };
	for (size_t i = 0; i < COUNT(inlined); i++) {
		inode = get_path(image.vol, inlined[i]);
		assert_true(inl_is_inline(inode));
		assert_int_equal(inl_inode_extent(inode, 0, &extent, NULL), 0);
		assert_int_equal(extent.kind, INL_EXTENT_INLINE);
		inl_inode_put(inode);
	}
	inode = get_path(image.vol, "/size-2048");
	assert_false(inl_is_inline(inode));
	inl_inode_put(inode);
	image_done(&image);
}

/* Every start and every end near a border of blocks. */
static void test_read_borders(void **state)
{
	static uint8_t want[5 * KIB + 100];
	uint64_t points[40];
	struct inl_inode *inode;
	unsigned n = 0;
	int fd;

	needs_tools();
	run("rm -rf small && mkdir small");
	fd = source_file("small/f", sizeof(want));
	put_data(fd, 0, 2 * KIB, 1);
	put_data(fd, 3 * KIB, 1 * KIB, 2); /* the third block and the fifth are holes */
	put_data(fd, 5 * KIB, 100, 3);
	assert_int_equal(pread(fd, want, sizeof(want), 0), sizeof(want));
	close(fd);
	close(source_file("small/hole", 100 * KIB));
	for (unsigned i = 0; i <= 5; i++) {
		for (int d = -2; d <= 2; d++) {
			if (i || d >= 0)
				points[n++] = i * KIB + (uint64_t)d;
		}
	}
	for (int d = -2; d <= 2; d++)
		points[n++] = sizeof(want) + (uint64_t)d;
	assert_true(n <= COUNT(points));
	for (unsigned kind = 0; kind < 4; kind++) {
		struct image image;

		run("rm -f i.img && mke2fs -F -q -t %s -b 1024 -d small i.img 1M", kind & 1 ? "ext2" : "ext4");
		image_open(&image, "i.img", kind & 2 ? 4096 : 512);
		inode = get_path(image.vol, "/f");
		compare_extents(&image, inode, want, sizeof(want));
		for (unsigned i = 0; i < n; i++) {
			for (unsigned k = 0; k < n; k++) {
				if (points[k] >= points[i])
					compare_read(inode, want, sizeof(want), points[i], points[k] - points[i]);
			}
		}
		for (uint64_t at = 0; at < sizeof(want); at++)
			compare_read(inode, want, sizeof(want), at, 1);
		inl_inode_put(inode);
		inode = get_path(image.vol, "/hole");
		compare_file(&image, inode, in_dir("small/hole"), 100 * KIB);
		inl_inode_put(inode);
		image_done(&image);
	}
}

/* What mke2fs does not make: unwritten extents, and holes punched into a file. debugfs says what is there. */
static void test_unwritten(void **state)
{
	static uint8_t want[700 * KIB];
	struct inl_extent extent;
	struct inl_inode *inode;
	struct image image;
	unsigned kinds[4] = { 0 };
	int fd;

	needs_tools();
	run("rm -rf small && mkdir small && cp src/size-307201 small/f && rm -f i.img && mke2fs -F -q -t ext4 -b 1024 "
	    "-d small i.img 4M");
	run("debugfs -w -R 'fallocate f 310 500' i.img && debugfs -w -R 'punch f 20 29' i.img && "
	    "debugfs -w -R 'punch f 400 404' i.img && debugfs -w -R 'set_inode_field f size %zu' i.img", sizeof(want));
	run("e2fsck -fn i.img && rm -f dumped && debugfs -R 'dump f dumped' i.img");
	fd = open(in_dir("dumped"), O_RDONLY);
	assert_true(fd >= 0);
	assert_true(pread(fd, want, sizeof(want), 0) >= (ssize_t)(300 * KIB)); /* a trailing hole may be left out */
	close(fd);
	assert_true(want[0] && want[300 * KIB] && !want[20 * KIB] && !want[30 * KIB - 1] && want[30 * KIB]);
	image_open(&image, "i.img", 512);
	inode = get_path(image.vol, "/f");
	compare_content(&image, inode, want, sizeof(want));
	for (uint64_t at = 0; at < sizeof(want); at += extent.len) {
		assert_int_equal(inl_inode_extent(inode, at, &extent, NULL), 0);
		kinds[extent.kind] += (unsigned)extent.len;
	}
	assert_int_equal(kinds[INL_EXTENT_UNWRITTEN], (191 - 5) * KIB);
	assert_true(kinds[INL_EXTENT_DATA] == 301 * KIB - 10 * KIB && kinds[INL_EXTENT_HOLE]);
	inl_inode_put(inode);
	image_done(&image);
}

/* ---- large directories ------------------------------------------------------------------------------------------- */

static void many_name(char *name, size_t size, unsigned i)
{
	/* Some are not ASCII: the hashes come in a signed and an unsigned kind. */
	snprintf(name, size, "%s%u-%.*s", i % 3 ? "name" : "\xc3\xa4\xff\x80", i * 7919u, (int)(i % 60),
		 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh");
}

static void make_many(unsigned n)
{
	char name[128], path[PATH_MAX];

	run("rm -rf many && mkdir -p many/d");
	source_filled("many/one", 1);
	for (unsigned i = 0; i < n; i++) {
		many_name(name, sizeof(name), i);
		snprintf(path, sizeof(path), "%s/many/d/%s", work_dir, name);
		if (i % 500 == 0)
			assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
		else
			assert_int_equal(link(in_dir("many/one"), path), 0);
	}
}

static void look_all_up(struct inl_inode *dir, unsigned n, unsigned step)
{
	uint64_t ino;
	char name[160];

	for (unsigned i = 0; i < n; i += step) {
		many_name(name, sizeof(name), i);
		assert_int_equal(inl_lookup(dir, name, strlen(name), &ino, NULL), 0);
		strcat(name, "?");
		assert_int_equal(inl_lookup(dir, name, strlen(name), &ino, NULL), -ENOENT);
	}
}

static void check_many(unsigned n, unsigned step, bool indexed, unsigned levels)
{
	struct inl_dx_node node;
	struct inl_inode *dir;
	struct inl_dirent entry;
	struct image image;
	struct inl_dir *list;
	struct inl_run first;
	unsigned seen = 0;
	int got;

	image_open(&image, "i.img", 512);
	dir = get_path(image.vol, "/d");
	assert_int_equal((dir->raw.i_flags & EXT2_INDEX_FL) != 0, indexed);
	if (indexed) {
		assert_int_equal(inl_map(dir, 0, &first, NULL), 0);
		assert_int_equal(inl_dx_root_parse(image.bytes + first.pblk * image.vol->block_size,
						   image.vol->block_size, image.vol->metadata_csum, false, &node),
				 0);
		assert_int_equal(node.levels, levels);
	}
	look_all_up(dir, n, step);
	check_resume(dir);
	assert_int_equal(inl_dir_open(dir, NULL, &list), 0);
	while ((got = inl_dir_next(list, &entry, NULL)) > 0)
		seen++;
	assert_int_equal(got, 0);
	assert_int_equal(seen, n);
	inl_dir_close(list);
	inl_inode_put(dir);
	image_done(&image);
}

static void test_htree(void **state)
{
	needs_tools();
	make_many(5000);
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -d many i.img 8M && e2fsck -fn i.img");
	check_many(5000, 29, false, 0);
	run("e2fsck -fyD i.img || test $? = 1; e2fsck -fn i.img");
	check_many(5000, 1, true, 1);
}

static void test_htree_hashes(void **state)
{
	static const struct {
		const char *hash;
		unsigned flags; /* of the superblock: signed 1, unsigned 2 */
	} kinds[] = {
		{ "legacy", 1 }, { "half_md4", 1 }, { "tea", 1 }, { "legacy", 2 }, { "half_md4", 2 }, { "tea", 2 }
	};

	needs_tools();
	make_many(1500);
	for (size_t i = 0; i < COUNT(kinds); i++) {
		run("rm -f i.img && mke2fs -F -q -t ext4 -b 4096 %s -d many i.img 8M",
		    i & 1 ? "-O ^metadata_csum" : "-O metadata_csum");
		run("tune2fs -E hash_alg=%s i.img && debugfs -w -R 'ssv flags %u' i.img", kinds[i].hash,
		    kinds[i].flags);
		run("e2fsck -fyD i.img || test $? = 1; e2fsck -fn i.img");
		check_many(1500, 1, true, 0);
	}
}

#define N_HASHED 300000u

static void hashed_name(char *name, size_t size, uint32_t number)
{
	snprintf(name, size, "%06u%0200u", number, 0u);
}

static int compare_u64(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Find pairs of names of one hash, and behind each one more name, so that pairs come to lie anywhere. Returns how many.
 */
static unsigned make_collisions(uint32_t *numbers, unsigned room)
{
	uint64_t *hashes = malloc(N_HASHED * sizeof(*hashes)); /* hash, then number */
	unsigned n = 0;
	char name[300];

	assert_non_null(hashes);
	for (uint32_t i = 0; i < N_HASHED; i++) {
		ext2_dirhash_t hash, minor;

		hashed_name(name, sizeof(name), i);
		assert_int_equal(ext2fs_dirhash(EXT2_HASH_LEGACY, name, (int)strlen(name), NULL, &hash, &minor), 0);
		hashes[i] = (uint64_t)hash << 32 | i;
	}
	qsort(hashes, N_HASHED, sizeof(*hashes), compare_u64);
	for (uint32_t i = 1; i + 1 < N_HASHED && n + 3 <= room; i++) {
		if (hashes[i - 1] >> 32 == hashes[i] >> 32) {
			numbers[n++] = (uint32_t)hashes[i - 1];
			numbers[n++] = (uint32_t)hashes[i];
			numbers[n++] = (uint32_t)hashes[++i];
		}
	}
	free(hashes);
	return n;
}

/* Names of one hash on both sides of a border between leaves: the index marks the second leaf as going on. */
static void test_htree_collisions(void **state)
{
	unsigned n, continued = 0;
	struct inl_dx_node node;
	uint32_t numbers[66];
	struct inl_inode *dir;
	struct inl_run first;
	struct image image;
	char name[300];
	uint64_t ino;

	needs_tools();
	run("rm -rf many && mkdir -p many/d && rm -f i.img");
	n = make_collisions(numbers, COUNT(numbers));
	for (unsigned i = 0; i < n; i++) {
		hashed_name(name, sizeof(name), numbers[i]);
		snprintf(name, sizeof(name), "many/d/%06u%0200u", numbers[i], 0u);
		close(source_file(name, 0));
	}
	run("mke2fs -F -q -t ext4 -b 1024 -d many i.img 4M && tune2fs -E hash_alg=legacy i.img");
	run("{ e2fsck -fyD i.img || test $? = 1; } && e2fsck -fn i.img");
	image_open(&image, "i.img", 512);
	dir = get_path(image.vol, "/d");
	assert_int_equal(inl_map(dir, 0, &first, NULL), 0);
	assert_int_equal(inl_dx_root_parse(image.bytes + first.pblk * KIB, KIB, true, false, &node), 0);
	assert_int_equal(node.hash_version, 0);
	for (unsigned i = 1; i < node.count; i++)
		continued += inl_dx_entry(&node, i).hash & 1;
	assert_true(continued > 0);
	for (unsigned i = 0; i < n; i++) {
		hashed_name(name, sizeof(name), numbers[i]);
		assert_int_equal(inl_lookup(dir, name, strlen(name), &ino, NULL), 0);
	}
	inl_inode_put(dir);
	image_done(&image);
}

static void test_lookup_names(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		int err;
	} cases[] = {
		{ "few", 3, 0 },           { "few", 2, -ENOENT }, { "fewx", 3, 0 },      { "few\0x", 5, -ENOENT },
		{ "few/one", 7, -ENOENT }, { "", 0, -ENOENT },    { "FEW", 3, -ENOENT },
	};
	struct inl_inode *root, *file;
	char long_name[300];
	struct image image;
	uint64_t ino;

	needs_tools();
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -d src i.img 32M");
	image_open(&image, "i.img", 512);
	root = get_path(image.vol, "/");
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_int_equal(inl_lookup(root, cases[i].name, cases[i].len, &ino, NULL), cases[i].err);
	memset(long_name, 'x', sizeof(long_name));
	assert_int_equal(inl_lookup(root, long_name, 255, &ino, NULL), -ENOENT);
	assert_int_equal(inl_lookup(root, long_name, 256, &ino, NULL), -ENAMETOOLONG);
	file = get_path(image.vol, "/few/one");
	assert_int_equal(inl_lookup(file, "x", 1, &ino, NULL), -ENOTDIR);
	inl_inode_put(file);
	inl_inode_put(root);
	image_done(&image);
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static void make_paths(void)
{
	char name[64], target[64];

	run("rm -rf p && mkdir -p p/a/b/c p/d && echo f >p/a/f && echo g >p/d/g");
	source_link("a", "p/la");
	source_link("a/b", "p/lb");
	source_link("../../d", "p/a/b/up");
	source_link("/d", "p/a/b/abs");
	source_link("/", "p/a/b/root");
	source_link("../..", "p/a/b/top");
	source_link("../../../../../d", "p/a/b/above");
	source_link("a/f", "p/lf");
	source_link("/a//b/.././f", "p/lf2");
	source_link("self", "p/self");
	source_link("pong", "p/ping");
	source_link("ping", "p/pong");
	source_link("nowhere", "p/dangling");
	source_link(".", "p/dot");
	source_link("a/", "p/slash");
	for (unsigned i = 1; i <= 41; i++) {
		snprintf(name, sizeof(name), "p/chain%u", i);
		snprintf(target, sizeof(target), i == 1 ? "a/f" : "chain%u", i - 1);
		source_link(target, name);
	}
}

#define ERR(e) NULL, e

static const struct path_case {
	const char *path;
	bool follow;
	const char *same; /* what it is, without any link or dot; NULL: the error */
	int err;
} path_cases[] = {
	{ "", true, "/" },
	{ "/", true, "/" },
	{ "//", true, "/" },
	{ ".", true, "/" },
	{ "..", true, "/" },
	{ "/../..", true, "/" },
	{ "./.", true, "/" },
	{ "a", true, "/a" },
	{ "/a", true, "/a" },
	{ "///a", true, "/a" },
	{ "a/", true, "/a" },
	{ "a//", true, "/a" },
	{ "a/.", true, "/a" },
	{ "a/./", true, "/a" },
	{ "a/..", true, "/" },
	{ "a/b/c", true, "/a/b/c" },
	{ "a/b/c/../..", true, "/a" },
	{ "a/b/../../d/g", true, "/d/g" },
	{ "a/b/../../../../d", true, "/d" },
	{ "a//b///c", true, "/a/b/c" },
	{ "a/f", true, "/a/f" },
	{ "a/f/", true, ERR(-ENOTDIR) },
	{ "a/f//", false, ERR(-ENOTDIR) },
	{ "a/f/.", true, ERR(-ENOTDIR) },
	{ "a/f/..", true, ERR(-ENOTDIR) },
	{ "a/f/x", true, ERR(-ENOTDIR) },
	{ "x", true, ERR(-ENOENT) },
	{ "x/", true, ERR(-ENOENT) },
	{ "x/..", true, ERR(-ENOENT) },
	{ "x/../a", true, ERR(-ENOENT) },
	{ "a/x/c", true, ERR(-ENOENT) },
	{ "...", true, ERR(-ENOENT) },
	{ "la", true, "/a" },
	{ "la/", true, "/a" },
	{ "la/", false, "/a" },
	{ "la/.", false, "/a" },
	{ "la/b", false, "/a/b" },
	{ "la/..", true, "/" },
	{ "lb/..", true, "/a" },
	{ "lb/../f", true, "/a/f" },
	{ "lb/up", true, "/d" },
	{ "lb/up/g", true, "/d/g" },
	{ "a/b/up/..", true, "/" },
	{ "a/b/abs", true, "/d" },
	{ "a/b/abs/g", false, "/d/g" },
	{ "a/b/abs/..", true, "/" },
	{ "a/b/root", true, "/" },
	{ "a/b/root/a/f", true, "/a/f" },
	{ "a/b/top/d", true, "/d" },
	{ "a/b/above/g", true, "/d/g" },
	{ "lf", true, "/a/f" },
	{ "lf2", true, "/a/f" },
	{ "lf/", true, ERR(-ENOTDIR) },
	{ "lf/", false, ERR(-ENOTDIR) },
	{ "lf/.", true, ERR(-ENOTDIR) },
	{ "lf/x", true, ERR(-ENOTDIR) },
	{ "self", true, ERR(-ELOOP) },
	{ "self/", true, ERR(-ELOOP) },
	{ "self/x", false, ERR(-ELOOP) },
	{ "ping", true, ERR(-ELOOP) },
	{ "dangling", true, ERR(-ENOENT) },
	{ "dangling/", false, ERR(-ENOENT) },
	{ "dot", true, "/" },
	{ "dot/dot/a", true, "/a" },
	{ "slash", true, "/a" },
	{ "slash/f", true, "/a/f" },
	{ "chain40", true, "/a/f" },
	{ "chain41", true, ERR(-ELOOP) },
};

static void test_paths(void **state)
{
	static const char *const links[] = { "la", "self", "ping", "dangling", "chain41", "a/b/abs", "la/b/up" };
	struct inl_inode *inode, *want;
	char long_name[300];
	struct image image;

	needs_tools();
	make_paths();
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -d p i.img 1M && e2fsck -fn i.img");
	image_open(&image, "i.img", 512);
	for (size_t i = 0; i < COUNT(path_cases); i++) {
		const struct path_case *c = &path_cases[i];
		int err = inl_path(image.vol, c->path, c->follow, NULL, &inode);

		if (err != (c->same ? 0 : c->err))
			print_error("path \"%s\": %d\n", c->path, err);
		assert_int_equal(err, c->same ? 0 : c->err);
		if (err)
			continue;
		want = get_path(image.vol, c->same);
		if (inode->ino != want->ino)
			print_error("path \"%s\" is not %s\n", c->path, c->same);
		assert_int_equal(inode->ino, want->ino);
		inl_inode_put(inode);
		inl_inode_put(want);
	}
	for (size_t i = 0; i < COUNT(links); i++) { /* not followed: the link itself */
		assert_int_equal(inl_path(image.vol, links[i], false, NULL, &inode), 0);
		assert_true(S_ISLNK(inode->raw.i_mode));
		inl_inode_put(inode);
	}
	memset(long_name, 'x', sizeof(long_name));
	long_name[256] = 0;
	assert_int_equal(inl_path(image.vol, long_name, true, NULL, &inode), -ENAMETOOLONG);
	long_name[255] = 0;
	assert_int_equal(inl_path(image.vol, long_name, true, NULL, &inode), -ENOENT);
	image_done(&image);
}

/* ---- attributes of a volume -------------------------------------------------------------------------------------- */

struct xattrs {
	struct {
		char name[256];
		uint8_t value[5000];
		size_t len;
	} all[20];
	unsigned n;
};

static int keep_xattr(const char *name, const void *value, size_t len, void *arg)
{
	struct xattrs *xattrs = arg;

	assert_true(xattrs->n < 20 && len <= sizeof(xattrs->all[0].value));
	snprintf(xattrs->all[xattrs->n].name, sizeof(xattrs->all[0].name), "%s", name);
	memcpy(xattrs->all[xattrs->n].value, value, len);
	xattrs->all[xattrs->n++].len = len;
	return 0;
}

/* The source's attributes, as getxattr(2) gives them, are the oracle. */
static void compare_xattrs(struct inl_volume *vol, const char *path, const char *source)
{
	static struct xattrs xattrs;
	struct inl_inode *inode = get_path(vol, path);
	char names[4096];
	ssize_t len = llistxattr(source, names, sizeof(names));
	unsigned n = 0;

	assert_true(len > 0);
	xattrs.n = 0;
	assert_int_equal(inl_xattrs(inode, keep_xattr, &xattrs, NULL), 0);
	for (const char *name = names; name < names + len; name += strlen(name) + 1, n++) {
		uint8_t value[5000];
		ssize_t size = lgetxattr(source, name, value, sizeof(value));
		unsigned found = 0;

		assert_true(size >= 0);
		for (unsigned i = 0; i < xattrs.n; i++) {
			if (strcmp(xattrs.all[i].name, name))
				continue;
			assert_int_equal(xattrs.all[i].len, size);
			assert_memory_equal(xattrs.all[i].value, value, (size_t)size);
			found++;
		}
		assert_int_equal(found, 1);
	}
	assert_int_equal(xattrs.n, n);
	inl_inode_put(inode);
}

static void test_volume_xattrs(void **state)
{
	static const char *const options[] = { "-b 1024 -I 256", "-b 4096 -I 128", "-b 4096 -I 1024",
					       "-b 1024 -I 256 -O ^metadata_csum" };
	uint8_t big[600];
	bool acls;

	needs_tools();
	run("rm -rf x && mkdir -p x/d && echo 1 >x/f && echo 2 >x/g");
	if (setxattr(in_dir("x/f"), "user.comment", "hello", 5, 0)) {
		print_message("skipped: no user attributes in %s\n", work_dir);
		skip();
	}
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = pattern_byte(i, 9);
	assert_int_equal(setxattr(in_dir("x/f"), "user.empty", "", 0, 0), 0);
	assert_int_equal(setxattr(in_dir("x/f"), "user.big", big, sizeof(big), 0), 0);
	assert_int_equal(setxattr(in_dir("x/g"), "user.a", "\0\1", 2, 0), 0);
	assert_int_equal(setxattr(in_dir("x/d"), "user.d", big, 20, 0), 0);
	acls = !setxattr(in_dir("x/g"), "system.posix_acl_access", acl_shown, sizeof(acl_shown), 0) &&
	       !setxattr(in_dir("x/d"), "system.posix_acl_default", acl_shown, sizeof(acl_shown), 0);
	if (!acls)
		print_message("without ACLs: not supported in %s\n", work_dir);
	for (size_t i = 0; i < COUNT(options); i++) {
		struct image image;

		run("rm -f i.img && mke2fs -F -q -t ext4 %s -d x i.img 1M && e2fsck -fn i.img", options[i]);
		image_open(&image, "i.img", 512);
		compare_xattrs(image.vol, "/f", in_dir("x/f"));
		compare_xattrs(image.vol, "/g", in_dir("x/g"));
		compare_xattrs(image.vol, "/d", in_dir("x/d"));
		image_done(&image);
	}
}

/* ---- superblocks ------------------------------------------------------------------------------------------------- */

enum {
	SB_INODES = 0x0,
	SB_BLOCKS = 0x4,
	SB_FIRST = 0x14,
	SB_LOG_BLOCK = 0x18,
	SB_LOG_CLUSTER = 0x1c,
	SB_PER_GROUP = 0x20,
	SB_INODES_PER_GROUP = 0x28,
	SB_MAGIC = 0x38,
	SB_INODE_SIZE = 0x58,
	SB_INCOMPAT = 0x60,
	SB_DESC_SIZE = 0xfe,
	SB_BLOCKS_HI = 0x150,
	SB_CSUM_TYPE = 0x175,
	SB_CSUM = 0x3fc
};

static void seal_super(uint8_t *sb)
{
	if (inl_load_le32(sb + 0x64) & 0x400)
		inl_store_le32(sb + SB_CSUM, slow_crc32c(~0u, sb, SB_CSUM));
}

static const struct super_fault {
	unsigned at, size;
	uint32_t value;
	int err;
} super_faults[] = {
	{ SB_MAGIC, 2, 0xef54, -EINVAL },
	{ SB_INODES, 4, 1, -EUCLEAN },
	{ SB_INODES, 4, 0, -EUCLEAN },
	{ SB_BLOCKS, 4, 0, -EUCLEAN },
	{ SB_BLOCKS, 4, 1, -EUCLEAN },
	{ SB_BLOCKS, 4, 0xffffffff, -EUCLEAN },
	{ SB_FIRST, 4, 2, -EUCLEAN },
	{ SB_FIRST, 4, 0xffffffff, -EUCLEAN },
	{ SB_LOG_BLOCK, 4, 7, -EUCLEAN },
	{ SB_LOG_BLOCK, 4, 32, -EUCLEAN },
	{ SB_LOG_BLOCK, 4, 0xffffffff, -EUCLEAN },
	{ SB_LOG_CLUSTER, 4, 5, -EUCLEAN },
	{ SB_LOG_CLUSTER, 4, 0xffffffff, -EUCLEAN },
	{ SB_PER_GROUP, 4, 0, -EUCLEAN },
	{ SB_PER_GROUP, 4, 1001, -EUCLEAN },
	{ SB_PER_GROUP, 4, 32764, -EUCLEAN }, /* one group of 4 KiB blocks as before, but no multiple of 8 */
	{ SB_PER_GROUP, 4, 0xfffffff8, -EUCLEAN },
	{ SB_INODES_PER_GROUP, 4, 0, -EUCLEAN },
	{ SB_INODES_PER_GROUP, 4, 1, -EUCLEAN },
	{ SB_INODES_PER_GROUP, 4, 0x80000000, -EUCLEAN },
	{ SB_INODE_SIZE, 2, 0, -EUCLEAN },
	{ SB_INODE_SIZE, 2, 64, -EUCLEAN },
	{ SB_INODE_SIZE, 2, 200, -EUCLEAN },
	{ SB_INODE_SIZE, 2, 32768, -EUCLEAN },
	{ SB_BLOCKS_HI, 4, 1, -EUCLEAN },
	{ SB_DESC_SIZE, 2, 0, -EUCLEAN },
	{ SB_DESC_SIZE, 2, 32, -EUCLEAN },
	{ SB_DESC_SIZE, 2, 96, -EUCLEAN },
	{ SB_DESC_SIZE, 2, 32768, -EUCLEAN },
};

static void read_super(const char *options, uint8_t *sb)
{
	int fd;

	run("rm -f i.img && mke2fs -F -q -t ext4 %s i.img 64M", options);
	fd = open(in_dir("i.img"), O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, sb, EXT4_SUPER_SIZE, EXT4_SUPER_OFFSET), EXT4_SUPER_SIZE);
	close(fd);
}

static int check_super(const uint8_t *sb, uint64_t dev_size, bool damaged_ok)
{
	struct inl_diag diag = { 0 };
	int err = inl_super_check(sb, dev_size, damaged_ok, &diag);

	assert_int_equal(diag.err, err);
	assert_int_equal(diag.text[0] != 0, err != 0);
	return err;
}

static void test_super_faults(void **state)
{
	static const char *const options[] = { "-b 1024 -O 64bit", "-b 4096 -O 64bit",
					       "-b 2048 -O 64bit,^metadata_csum", "-b 1024 -O 64bit,bigalloc -C 4096" };
	uint8_t good[EXT4_SUPER_SIZE], sb[EXT4_SUPER_SIZE];
	uint32_t per_group;

	needs_tools();
	for (size_t i = 0; i < COUNT(options); i++) {
		read_super(options[i], good);
		assert_int_equal(check_super(good, 64 * MIB, false), 0);
		for (size_t k = 0; k < COUNT(super_faults); k++) {
			const struct super_fault *fault = &super_faults[k];

			if (fault->at == SB_LOG_CLUSTER && fault->value == 5 && i == 3)
				continue; /* a size that clusters may have */
			memcpy(sb, good, sizeof(sb));
			memcpy(sb + fault->at, &fault->value, fault->size);
			seal_super(sb);
			if (check_super(sb, 64 * MIB, false) != fault->err)
				print_error("%s: 0x%x = 0x%x\n", options[i], fault->at, fault->value);
			assert_int_equal(check_super(sb, 64 * MIB, false), fault->err);
		}
		/* Inodes that do not fill whole blocks; their number agrees. */
		memcpy(sb, good, sizeof(sb));
		per_group = inl_load_le32(sb + SB_INODES_PER_GROUP);
		inl_store_le32(sb + SB_INODES, inl_load_le32(sb + SB_INODES) / per_group * (per_group - 1));
		inl_store_le32(sb + SB_INODES_PER_GROUP, per_group - 1);
		seal_super(sb);
		assert_int_equal(check_super(sb, 64 * MIB, false), -EUCLEAN);
		memcpy(sb, good, sizeof(sb));
		sb[SB_INCOMPAT] |= 8; /* journal_dev */
		seal_super(sb);
		assert_int_equal(check_super(sb, 64 * MIB, false), -EOPNOTSUPP);
	}
}

static void test_super_checksum(void **state)
{
	uint8_t good[EXT4_SUPER_SIZE], sb[EXT4_SUPER_SIZE];

	needs_tools();
	read_super("-b 4096 -O metadata_csum", good);
	for (size_t at = 0; at < sizeof(sb); at++) {
		/* Not the magic number, nor the feature itself. */
		if (at == SB_MAGIC || at == SB_MAGIC + 1 || at == 0x65)
			continue;
		memcpy(sb, good, sizeof(sb));
		sb[at] ^= 0x40;
		assert_int_equal(check_super(sb, 64 * MIB, false), -EUCLEAN);
	}
	memcpy(sb, good, sizeof(sb));
	sb[SB_CSUM_TYPE] = 2;
	seal_super(sb);
	assert_int_equal(check_super(sb, 64 * MIB, false), -EUCLEAN);
	/* Without the feature nobody looks. */
	read_super("-b 4096 -O ^metadata_csum", sb);
	memset(sb + SB_CSUM, 0x55, 4);
	assert_int_equal(check_super(sb, 64 * MIB, false), 0);
}

static void test_super_truncated(void **state)
{
	uint8_t sb[EXT4_SUPER_SIZE];

	needs_tools();
	read_super("-b 4096", sb);
	assert_int_equal(check_super(sb, 64 * MIB, false), 0);
	assert_int_equal(check_super(sb, 65 * MIB, false), 0);
	assert_int_equal(check_super(sb, 64 * MIB - 1, false), -EUCLEAN);
	assert_int_equal(check_super(sb, 64 * MIB - 1, true), 0);
	assert_int_equal(check_super(sb, 32 * MIB, true), 0);
	assert_int_equal(check_super(sb, 100 * KIB, true), -EUCLEAN);
	assert_int_equal(check_super(sb, 0, true), -EUCLEAN);
}

/* The primary is gone: a backup serves, and says so. */
static void test_super_backup(void **state)
{
	static const char *const options[] = { "-b 1024 -d src", "-b 4096 -g 8192 -d src" };

	needs_tools();
	for (unsigned i = 0; i < COUNT(options); i++) {
		struct inl_volume_info info;
		struct inl_inode *inode;
		struct image image;

		run("rm -f i.img && mke2fs -F -q -t ext4 %s i.img %s", options[i], i ? "300M" : "32M");
		image_map(&image, "i.img");
		memset(image.bytes + EXT4_SUPER_OFFSET, 0, EXT4_SUPER_SIZE);
		if (i) { /* groups that are smaller than they could be: no backup where one is looked for */
			assert_int_equal(image_try_open(&image, 512, NULL), -EINVAL);
		} else {
			assert_int_equal(image_try_open(&image, 512, NULL), 0);
			inl_volume_info(image.vol, &info);
			assert_int_equal(info.backup_superblock, 8193);
			inode = get_path(image.vol, "/size-4097");
			compare_file(&image, inode, in_dir("src/size-4097"), 4097);
			inl_inode_put(inode);
		}
		image_done(&image);
	}
}

/* ---- found by review ---- */

/* The slash behind a link must reach what the link names. Oracle: the kernel on the source tree. */
static void test_path_slashes(void **state)
{
	static const char *const paths[] = { "ll/", "ll/.", "self/", "lfs", "lfs/", "llf/" };
	struct inl_inode *inode;
	struct image image;
	unsigned wrong = 0;

	needs_tools();
	run("rm -rf p && mkdir -p p/a && echo f >p/a/f");
	source_link("a", "p/la");
	source_link("la", "p/ll");	 /* "ll/" without following the last: a directory all the same */
	source_link("self", "p/self");	 /* "self/": ELOOP */
	source_link("a/f/", "p/lfs");	 /* a target with a slash behind a file: ENOTDIR */
	source_link("a/f", "p/lf");
	source_link("lf", "p/llf");
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -d p i.img 1M");
	image_open(&image, "i.img", 512);
	for (unsigned i = 0; i < 2 * COUNT(paths); i++) {
		bool follow = i & 1;
		char path[PATH_MAX];
		struct stat st;
		int want, got = inl_path(image.vol, paths[i / 2], follow, NULL, &inode);

		snprintf(path, sizeof(path), "%s/p/%s", work_dir, paths[i / 2]);
		want = (follow ? stat(path, &st) : lstat(path, &st)) ? -errno : 0;
		if (got != want || (!got && inode->raw.i_mode != st.st_mode)) {
			print_error("\"%s\", %s: %d, Linux says %d\n", paths[i / 2], follow ? "follow" : "nofollow", got, want);
			wrong++;
		}
		if (!got)
			inl_inode_put(inode);
	}
	image_done(&image);
	assert_int_equal(wrong, 0);
}

/* Inline, and i_size beyond what is stored (mke2fs -d makes this of a file that is one hole; e2fsck -fn is content, Linux
 * 6.18 reads zeros). inl_read says -EUCLEAN. */
static void test_inline_hole(void **state)
{
	static const uint8_t zeros[100 * KIB];
	struct inl_inode *inode;
	struct image image;

	needs_tools();
	run("rm -rf small && mkdir small");
	close(source_file("small/hole", sizeof(zeros)));
	run("rm -f i.img && mke2fs -F -q -t ext4 -b 1024 -O inline_data -I 256 -d small i.img 1M && e2fsck -fn i.img");
	image_open(&image, "i.img", 512);
	inode = get_path(image.vol, "/hole");
	assert_true(inl_is_inline(inode));
	compare_read(inode, zeros, sizeof(zeros), 0, 200 * KIB);
	inl_inode_put(inode);
	image_done(&image);
}

/* (own.h) block 0xffffffff is no file's; Linux refuses an extent that ends at 2^32. The check lets it pass. */
static void test_extent_last_block(void **state)
{
	uint8_t root[60] = { 0 };

	put_header(root, 1, 4, 0);
	put_extent(root, 0, 0xfffffffe, 1, 5);
	assert_int_equal(inl_extent_node_check(root, sizeof(root), ANY), 0);
	put_extent(root, 0, 0xfffffffe, 2, 5);
	assert_int_equal(inl_extent_node_check(root, sizeof(root), ANY), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extent_check),
		cmocka_unit_test(test_extent_lengths),
		cmocka_unit_test(test_extent_sizes),
		cmocka_unit_test(test_extent_outside),
		cmocka_unit_test(test_extent_trees),
		cmocka_unit_test(test_dirent_types),
		cmocka_unit_test(test_dirent_no_filetype),
		cmocka_unit_test(test_dirent_lengths),
		cmocka_unit_test(test_dirent_rest),
		cmocka_unit_test(test_dirent_hashes),
		cmocka_unit_test(test_dirent_blocks),
		cmocka_unit_test(test_dx_parse),
		cmocka_unit_test(test_dx_root_faults),
		cmocka_unit_test(test_dx_search),
		cmocka_unit_test(test_xattr_walk),
		cmocka_unit_test(test_xattr_tight),
		cmocka_unit_test(test_xattr_faults),
		cmocka_unit_test(test_acl),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_layouts_are_what_they_say),
		cmocka_unit_test(test_read_borders),
		cmocka_unit_test(test_unwritten),
		cmocka_unit_test(test_htree),
		cmocka_unit_test(test_htree_hashes),
		cmocka_unit_test(test_htree_collisions),
		cmocka_unit_test(test_lookup_names),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_volume_xattrs),
		cmocka_unit_test(test_super_faults),
		cmocka_unit_test(test_super_checksum),
		cmocka_unit_test(test_super_truncated),
		cmocka_unit_test(test_super_backup),
		cmocka_unit_test(test_path_slashes),
		cmocka_unit_test(test_inline_hole),
		cmocka_unit_test(test_extent_last_block),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
