/*
 * tests/unit/test_log.c: logs that are written here are replayed by e2fsck, by the running kernel and by the two readers of
 * ext4/, and what comes home is compared with a model, byte for byte.
 * Not here: logs that nobody should have written (test_journal.c); what goes into a transaction (txn.c).
 * Read more: Linux Documentation/filesystems/ext4/journal.rst.
 *
 * The blocks that are journaled are those of a file's data, so that nothing they hold can hurt the file system.
 */
#include "ext4/change.h"
#include "ext4/jbd2.h"
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

#define N_POOL	 1200u /* blocks of the file */
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct layout {
	const char *name, *options;
	uint32_t block_size;
	bool csum, wide;
} layouts[] = {
	{ "1K, checksums, 64 bits", "-b 1024 -J size=1", 1024, true, true },
	{ "4K, checksums, 64 bits", "-b 4096 -J size=4", 4096, true, true },
	{ "1K, no checksums", "-b 1024 -J size=1 -O ^metadata_csum,^64bit", 1024, false, false },
	{ "2K, no checksums, 64 bits", "-b 2048 -J size=4 -O ^metadata_csum,64bit", 2048, false, true },
	{ "1K, checksums, 32 bits, a journal in pieces", "-b 1024 -J size=1 -O ^64bit,^extents", 1024, true, false },
	{ "4K, fast commits, a checksum seed", "-b 4096 -J size=5,fast_commit_size=1 -O fast_commit,metadata_csum_seed", 4096,
	  true, true },
};

static uint64_t dice;

static uint32_t rng(uint32_t below)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(dice >> 33) % below;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	int err = work_dir_make("log");

	if (!err)
		work_dir_ask_kernel();
	return err;
}

static int teardown(void **state)
{
	return work_dir_remove();
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

struct image {
	uint8_t *bytes; /* shared with the file */
	size_t size;
	struct inl_dev *dev;
	struct inl_volume *vol;
};

static void map_image(struct image *image, const char *name)
{
	struct stat st;
	int fd = open(in_dir(name), O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	image->size = (size_t)st.st_size;
	image->bytes = mmap(NULL, image->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(image->bytes, MAP_FAILED);
	close(fd);
}

static void open_image(struct image *image, const char *name)
{
	struct inl_diag diag = { 0 };
	char spec[PATH_MAX];

	map_image(image, name);
	snprintf(spec, sizeof(spec), "fault(%s)", in_dir(name));
	if (inl_dev_open(spec, INL_OPEN_WRITE, &diag, &image->dev) ||
	    inl_volume_open(image->dev, NULL, 0, &diag, &image->vol)) {
		print_error("%s\n", diag.text);
		fail();
	}
}

static void close_image(struct image *image)
{
	assert_int_equal(inl_volume_close(image->vol), 0);
	inl_dev_close(image->dev);
	munmap(image->bytes, image->size);
}

static void control(struct image *image, const char *command)
{
	assert_int_equal(inl_dev_control(image->dev, command, NULL), 0);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

struct lab {
	const struct layout *layout;
	struct image image;
	struct inl_log *log;
	uint64_t pblks[N_POOL];
	bool logged[N_POOL]; /* the newest content is in the log only */
	uint8_t *want;	     /* what each block holds after a replay */
	unsigned order[N_POOL];
};

static size_t block_size(const struct lab *lab)
{
	return lab->layout->block_size;
}

static uint8_t *want(const struct lab *lab, unsigned i)
{
	return lab->want + i * block_size(lab);
}

static uint8_t *home(const struct lab *lab, const struct image *image, unsigned i)
{
	return image->bytes + lab->pblks[i] * block_size(lab);
}

static void find_pool(struct lab *lab)
{
	struct inl_inode *inode;

	assert_int_equal(inl_path(lab->image.vol, "/data", false, NULL, &inode), 0);
	for (unsigned i = 0; i < N_POOL; i++) {
		struct inl_run map;

		assert_int_equal(inl_map(inode, i, &map, NULL), 0);
		assert_int_equal(map.kind, INL_EXTENT_DATA);
		lab->pblks[i] = map.pblk + (i - map.lblk);
		memcpy(want(lab, i), home(lab, &lab->image, i), block_size(lab));
		lab->order[i] = i;
	}
	inl_inode_put(inode);
}

/* i.img; made once. */
static void make_volume(const struct layout *layout)
{
	size_t i = (size_t)(layout - layouts);

	needs_tools();
	run("test -e %zu.img || { mkdir %zu && head -c %zu /dev/urandom > %zu/data && truncate -s %zu %zu.img && "
	    "mke2fs -Fq -t ext4 %s -d %zu %zu.img; }",
	    i, i, (size_t)N_POOL * layout->block_size, i, (size_t)8192 * layout->block_size, i, layout->options, i, i);
	run("rm -f i.img && cp --sparse=always %zu.img i.img", i);
}

static struct lab *lab_new(const struct layout *layout, uint64_t seed)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	make_volume(layout);
	dice = seed;
	lab->layout = layout;
	lab->want = malloc(N_POOL * (size_t)layout->block_size);
	assert_non_null(lab->want);
	open_image(&lab->image, "i.img");
	find_pool(lab);
	return lab;
}

static void open_log(struct lab *lab)
{
	struct inl_diag diag = { 0 };

	if (inl_log_open(lab->image.vol, &diag, &lab->log)) {
		print_error("%s\n", diag.text);
		fail();
	}
}

static void lab_free(struct lab *lab)
{
	inl_log_free(lab->log);
	close_image(&lab->image);
	free(lab->want);
	free(lab);
}

static void shuffle(struct lab *lab)
{
	for (unsigned i = N_POOL - 1; i > 0; i--) {
		unsigned k = rng(i + 1), swap = lab->order[i];

		lab->order[i] = lab->order[k];
		lab->order[k] = swap;
	}
}

/* Some begin as blocks of the journal do, down to their type and number. */
static void fill(const struct lab *lab, uint8_t *p)
{
	for (size_t at = 0; at < block_size(lab); at += 4)
		inl_store_le32(p + at, rng(UINT32_MAX));
	if (rng(6))
		return;
	inl_store_be32(p, JBD2_MAGIC);
	if (rng(2)) {
		inl_store_be32(p + 4, 1 + rng(5));
		inl_store_be32(p + 8, lab->log ? inl_log_next_tid(lab->log) + rng(2) : 0);
	}
}

/* A transaction of n blocks and n_revokes others: the pool's, as its order has them. */
struct change {
	struct inl_log_txn txn;
	struct inl_log_block blocks[N_POOL];
	uint64_t revokes[N_POOL];
	uint8_t *bytes;
};

static struct change *make_change(struct lab *lab, unsigned n, unsigned n_revokes)
{
	struct change *change = calloc(1, sizeof(*change));

	assert_true(n + n_revokes <= N_POOL);
	shuffle(lab);
	change->bytes = malloc((n + 1) * block_size(lab));
	assert_non_null(change->bytes);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *bytes = change->bytes + i * block_size(lab);

		fill(lab, bytes);
		change->blocks[i] = (struct inl_log_block){ lab->pblks[lab->order[i]], bytes };
	}
	for (unsigned i = 0; i < n_revokes; i++)
		change->revokes[i] = lab->pblks[lab->order[n + i]];
	change->txn = (struct inl_log_txn){ inl_log_next_tid(lab->log), change->blocks, n, change->revokes, n_revokes };
	return change;
}

static void free_change(struct change *change)
{
	free(change->bytes);
	free(change);
}

/* What a transaction means, once it is committed. */
static void apply(struct lab *lab, const struct change *change)
{
	unsigned n = (unsigned)change->txn.n_blocks;

	for (unsigned i = 0; i < n; i++) {
		memcpy(want(lab, lab->order[i]), change->blocks[i].bytes, block_size(lab));
		lab->logged[lab->order[i]] = true;
	}
	for (unsigned i = n; i < n + change->txn.n_revokes; i++) {
		memcpy(want(lab, lab->order[i]), home(lab, &lab->image, lab->order[i]), block_size(lab));
		lab->logged[lab->order[i]] = false;
	}
}

/* File data in the places of what has been revoked. */
static void reuse_revoked(struct lab *lab, const struct change *change)
{
	unsigned n = (unsigned)change->txn.n_blocks;

	for (unsigned i = n; i < n + change->txn.n_revokes; i++) {
		if (rng(2))
			continue;
		fill(lab, want(lab, lab->order[i]));
		memcpy(home(lab, &lab->image, lab->order[i]), want(lab, lab->order[i]), block_size(lab));
	}
}

static int try_commit(struct lab *lab, unsigned n, unsigned n_revokes)
{
	struct change *change = make_change(lab, n, n_revokes);
	int err = inl_log_commit(lab->log, &change->txn);

	if (!err) {
		apply(lab, change);
		reuse_revoked(lab, change);
	}
	free_change(change);
	return err;
}

static void commit(struct lab *lab, unsigned n, unsigned n_revokes)
{
	assert_int_equal(try_commit(lab, n, n_revokes), 0);
}

/* All home, as a checkpoint does. */
static int try_checkpoint(struct lab *lab)
{
	int err = 0;

	for (unsigned i = 0; i < N_POOL && !err; i++) {
		if (!lab->logged[i])
			continue;
		err = inl_dev_write(lab->image.dev, lab->pblks[i] * block_size(lab), want(lab, i), block_size(lab));
		lab->logged[i] = false;
	}
	if (!err)
		err = inl_dev_flush(lab->image.dev);
	return err ? err : inl_log_reset(lab->log);
}

static void commit_with_room(struct lab *lab, unsigned n, unsigned n_revokes)
{
	if (inl_log_need(lab->log, n, n_revokes) > inl_log_left(lab->log))
		assert_int_equal(try_checkpoint(lab), 0);
	commit(lab, n, n_revokes);
}

/* Mostly small ones; some need several descriptors, several blocks of revokes, or both. */
static void commit_at_random(struct lab *lab)
{
	unsigned n = rng(12), n_revokes = rng(3) ? 0 : rng(8);

	if (!rng(4))
		n = 40 + rng(200);
	if (!rng(9))
		n = 500 + rng(200);
	if (!rng(9))
		n_revokes = 100 + rng(400);
	commit_with_room(lab, n, n_revokes);
}

/* ---- who replays ------------------------------------------------------------------------------------------------- */

static void copy_image(void)
{
	run("rm -f c.img && cp --sparse=always i.img c.img");
}

/* First difference of a replayed image to the model, or N_POOL. */
static unsigned differs(const struct lab *lab, const char *name)
{
	struct image image;
	unsigned i;

	map_image(&image, name);
	for (i = 0; i < N_POOL; i++) {
		if (memcmp(home(lab, &image, i), want(lab, i), block_size(lab)))
			break;
	}
	munmap(image.bytes, image.size);
	return i;
}

#define assert_replayed(lab, who)                                                                \
	do {                                                                                     \
		unsigned i_ = differs(lab, "c.img");                                             \
		if (i_ < N_POOL) {                                                               \
			print_error("%s, %s: block %u differs\n", (lab)->layout->name, who, i_); \
			fail();                                                                  \
		}                                                                                \
	} while (0)

/* In memory: c.img as it is. */
static void check_in_memory(const struct lab *lab)
{
	uint8_t *buf = malloc(block_size(lab));
	struct image image;

	open_image(&image, "c.img");
	for (unsigned i = 0; i < N_POOL; i++) {
		assert_int_equal(inl_meta_read(image.vol, lab->pblks[i] * block_size(lab), buf, block_size(lab)), 0);
		assert_memory_equal(buf, want(lab, i), block_size(lab));
	}
	close_image(&image);
	free(buf);
}

static void replay_home(const struct lab *lab)
{
	struct image image;

	open_image(&image, "c.img");
	assert_int_equal(inl_journal_replay_home(image.vol, NULL), 0);
	assert_int_equal(image.vol->journal.n, 0);
	close_image(&image);
	assert_replayed(lab, "replay");
}

static void check_replay(const struct lab *lab)
{
	copy_image();
	check_in_memory(lab);
	replay_home(lab);
	run("e2fsck -fy c.img && e2fsck -fn c.img");
	assert_replayed(lab, "e2fsck behind the replay");
}

static void check_e2fsck(const struct lab *lab)
{
	copy_image();
	run("e2fsck -y -E journal_only c.img");
	assert_replayed(lab, "e2fsck");
	run("e2fsck -fn c.img");
}

static void check_kernel(const struct lab *lab)
{
	if (!has_kernel)
		return;
	copy_image();
	run("mount -t ext4 -o loop,noatime c.img mnt && umount mnt");
	assert_replayed(lab, "kernel");
	run("e2fsck -fn c.img");
}

static void check_all(const struct lab *lab)
{
	check_replay(lab);
	check_e2fsck(lab);
	check_kernel(lab);
}

/* ---- good logs --------------------------------------------------------------------------------------------------- */

static void test_layouts(void **state)
{
	for (size_t i = 0; i < COUNT(layouts); i++) {
		struct lab *lab = lab_new(&layouts[i], i);

		open_log(lab);
		check_all(lab); /* an empty log */
		for (unsigned n = 0; n < 60; n++) {
			commit_at_random(lab);
			if (n % 20 == 19)
				check_replay(lab);
		}
		check_all(lab);
		lab_free(lab);
	}
}

/* What Linux would have set, and what follows from it for the sizes of things. */
static void test_features(void **state)
{
	for (size_t i = 0; i < COUNT(layouts); i++) {
		const struct layout *layout = &layouts[i];
		struct lab *lab = lab_new(layout, i);
		unsigned tail = layout->csum ? 4 : 0, tag = layout->csum ? 16 : layout->wide ? 12 : 8;
		unsigned tags = (layout->block_size - 12 - 16 - tail) / tag;
		unsigned revokes = (layout->block_size - 16 - tail) / (layout->wide ? 8 : 4);
		struct inl_journal_place place;
		uint32_t len;

		open_log(lab);
		assert_int_equal(inl_journal_place_open(lab->image.vol, NULL, &place), 0);
		assert_int_equal(inl_load_be32(place.super + 40),
				 1 | (layout->wide ? 2 : 0) | (layout->csum ? 16 : 0));
		assert_int_equal(inl_load_be32(place.super + 36), 0);
		assert_int_equal(place.super[80], layout->csum ? 4 : 0);
		len = inl_load_be32(place.super + 16) - 2;
		inl_journal_place_done(&place);
		assert_int_equal(inl_log_len(lab->log), len);
		assert_int_equal(inl_log_left(lab->log), len);
		assert_int_equal(inl_log_need(lab->log, 0, 0), 1);
		assert_int_equal(inl_log_need(lab->log, tags, 0), tags + 2);
		assert_int_equal(inl_log_need(lab->log, tags + 1, 0), tags + 4);
		assert_int_equal(inl_log_need(lab->log, 1, revokes), 4);
		assert_int_equal(inl_log_need(lab->log, 1, revokes + 1), 5);
		/* A descriptor and a block of revokes that are full to the last byte, and one more. */
		for (unsigned more = 0; more < 2; more++) {
			commit(lab, tags + more, revokes + more);
			len -= inl_log_need(lab->log, tags + more, revokes + more);
			assert_int_equal(inl_log_left(lab->log), len);
			check_e2fsck(lab);
		}
		check_kernel(lab);
		lab_free(lab);
	}
}

/* Transactions that fill the ring to the last block that they may have, at every offset of its end. */
static void test_full(void **state)
{
	struct lab *lab = lab_new(&layouts[0], 3);
	uint32_t len;

	open_log(lab);
	len = inl_log_len(lab->log);
	assert_int_equal(len, 1022);
	for (unsigned n = 0; n < 40; n++) {
		commit_with_room(lab, 1 + n, n % 3);
		while (inl_log_left(lab->log) > 100)
			commit(lab, 80, 0);
		while (inl_log_left(lab->log) > 3)
			commit(lab, 1, 0);
		while (inl_log_left(lab->log))
			commit(lab, 0, 0);
		assert_int_equal(try_commit(lab, 0, 0), -ENOSPC);
		if (n % 20 == 7)
			check_all(lab);
		assert_int_equal(try_checkpoint(lab), 0);
		assert_int_equal(inl_log_left(lab->log), len);
		if (n % 20 == 8)
			check_replay(lab);
	}
	lab_free(lab);
}

static void test_wrong_number(void **state)
{
	struct lab *lab = lab_new(&layouts[0], 4);
	struct change *change;

	open_log(lab);
	change = make_change(lab, 3, 0);
	change->txn.tid++;
	assert_int_equal(inl_log_commit(lab->log, &change->txn), -EINVAL);
	change->txn.tid--;
	assert_int_equal(inl_log_commit(lab->log, &change->txn), 0);
	apply(lab, change);
	free_change(change);
	check_replay(lab);
	lab_free(lab);
}

/* Closed, and opened again: an old transaction never counts in the next log. */
static void test_again(void **state)
{
	struct lab *lab = lab_new(&layouts[1], 5);

	for (unsigned n = 0; n < 5; n++) {
		uint32_t tid;

		open_log(lab);
		check_replay(lab);
		for (unsigned k = rng(5); k > 0; k--)
			commit_with_room(lab, rng(50), rng(3));
		check_replay(lab);
		assert_int_equal(try_checkpoint(lab), 0);
		tid = inl_log_next_tid(lab->log);
		assert_int_equal(inl_log_close(lab->log), 0);
		inl_log_free(lab->log);
		lab->log = NULL;
		check_all(lab);
		open_log(lab);
		assert_true(inl_log_next_tid(lab->log) > tid);
		assert_int_equal(inl_log_close(lab->log), 0);
		inl_log_free(lab->log);
		lab->log = NULL;
	}
	lab_free(lab);
}

/* One block of a log that would put a wrong content into the pool's first block: a descriptor, a copy, a commit block. */
static void forge(const struct lab *lab, uint8_t *p, unsigned i, uint32_t tid)
{
	memset(p, 0, block_size(lab));
	inl_store_be32(p, JBD2_MAGIC);
	inl_store_be32(p + 4, i % 3 == 2 ? JBD2_COMMIT : JBD2_DESCRIPTOR);
	inl_store_be32(p + 8, tid);
	if (i % 3 == 0) {
		inl_store_be32(p + 12, (uint32_t)lab->pblks[0]);
		inl_store_be16(p + 18, JBD2_TAG_LAST);
	}
}

/*
 * What has been a copy in the last round of the ring lies where the log ends in this one, and looks like the transaction that
 * would come next. That is what escapes are for.
 */
static void test_forged(void **state)
{
	for (unsigned k = 0; k < 3; k++) {
		struct lab *lab = lab_new(&layouts[2], 6 + k);
		struct change *change;

		open_log(lab);
		change = make_change(lab, 800, 0);
		for (unsigned i = 0; i < 800; i++)
			forge(lab, change->bytes + i * block_size(lab), i, change->txn.tid + 2);
		assert_int_equal(inl_log_commit(lab->log, &change->txn), 0);
		apply(lab, change);
		free_change(change);
		assert_int_equal(try_checkpoint(lab), 0);
		commit(lab, 300 + k, 0);
		check_all(lab);
		lab_free(lab);
	}
}

#define FAR	  (1ull << 32)
#define N_FAR	  300u
#define FAR_BLOCK 4096u

/* Block numbers of more than 32 bits. Their lower halves are those of blocks that must stay as they are. */
static void test_far(void **state)
{
	static uint8_t bytes[N_FAR][FAR_BLOCK], got[FAR_BLOCK];
	struct inl_log_block blocks[N_FAR];
	struct inl_log_txn txn = { .blocks = blocks, .n_blocks = N_FAR };
	uint64_t revoked[2] = { FAR + 777000, FAR + 777003 };
	struct inl_log *log;
	struct image image;

	needs_tools();
	if (try_run("truncate -s 17T far.img && mke2fs -Fq -t ext4 -b 4096 -O ^resize_inode,64bit,sparse_super2 -G 65536 "
		    "-N 200000 -E lazy_itable_init=1,packed_meta_blocks=1,num_backup_sb=0 -J size=4 far.img")) {
		print_message("skipped: no files of 17 TiB here\n");
		skip();
	}
	for (unsigned i = 0; i < N_FAR; i++) {
		memset(bytes[i], (int)i + 1, FAR_BLOCK);
		blocks[i] = (struct inl_log_block){ FAR + 777000 + 3 * i, bytes[i] };
	}
	open_image(&image, "far.img");
	assert_int_equal(inl_log_open(image.vol, NULL, &log), 0);
	txn.tid = inl_log_next_tid(log);
	assert_int_equal(inl_log_commit(log, &txn), 0);
	txn = (struct inl_log_txn){ .tid = inl_log_next_tid(log), .revokes = revoked, .n_revokes = 2 };
	assert_int_equal(inl_log_commit(log, &txn), 0);
	inl_log_free(log);
	close_image(&image);

	open_image(&image, "far.img");
	assert_int_equal(image.vol->journal.n, N_FAR - 2);
	for (unsigned i = 0; i < N_FAR; i++) {
		assert_int_equal(inl_meta_read(image.vol, blocks[i].pblk * FAR_BLOCK, got, FAR_BLOCK), 0);
		assert_int_equal(got[5], i < 2 ? 0 : (uint8_t)(i + 1));
	}
	close_image(&image);
	run("e2fsck -y -E journal_only far.img");
	open_image(&image, "far.img");
	for (unsigned i = 0; i < N_FAR; i++) {
		assert_int_equal(inl_dev_read(image.dev, blocks[i].pblk * FAR_BLOCK, got, FAR_BLOCK), 0);
		assert_int_equal(got[5], i < 2 ? 0 : (uint8_t)(i + 1));
		assert_int_equal(inl_dev_read(image.dev, (blocks[i].pblk - FAR) * FAR_BLOCK, got, FAR_BLOCK), 0);
		assert_int_equal(got[5], 0);
	}
	close_image(&image);
	run("rm far.img");
}

/* ---- logs that end early ----------------------------------------------------------------------------------------- */

/* Where the log's blocks are now; block of the journal n blocks behind another. */
static uint32_t behind(const struct inl_journal_place *place, uint32_t block, uint32_t n)
{
	uint32_t first = inl_load_be32(place->super + JBD2_SB_FIRST), last = inl_load_be32(place->super + JBD2_SB_MAX_LEN);

	return first + (block - first + n) % (last - first);
}

/*
 * The last transaction reaches the medium up to any block, or in any order without its commit block: it does not count, and
 * what is written behind the replay is not disturbed by what is left of it.
 */
static void test_torn(void **state)
{
	for (size_t i = 0; i < COUNT(layouts); i++) {
		struct lab *lab = lab_new(&layouts[i], 10 + i);
		uint8_t *before = malloc(lab->image.size), *after = malloc(lab->image.size);
		unsigned n = i % 2 ? 30 : 300, n_revokes = 140;
		struct inl_journal_place place;
		struct change *change;
		uint32_t need, head, tid;

		open_log(lab);
		for (unsigned k = 0; k < 6; k++)
			commit_at_random(lab);
		assert_int_equal(try_checkpoint(lab), 0);
		commit(lab, 5, 3);
		assert_int_equal(inl_journal_place_open(lab->image.vol, NULL, &place), 0);
		head = behind(&place, inl_load_be32(place.super + JBD2_SB_START), inl_log_need(lab->log, 5, 3));
		memcpy(before, lab->image.bytes, lab->image.size);
		change = make_change(lab, n, n_revokes);
		need = inl_log_need(lab->log, n, n_revokes);
		assert_int_equal(inl_log_commit(lab->log, &change->txn), 0);
		memcpy(after, lab->image.bytes, lab->image.size);
		for (uint32_t cut = 0, hole; cut < need; cut += cut < 4 || cut + 4 > need ? 1 : 1 + rng(need / 6)) {
			memcpy(lab->image.bytes, before, lab->image.size);
			hole = rng(2) ? rng(need) : need;
			for (uint32_t k = 0; k < cut; k++) {
				size_t at = inl_journal_pblk(&place, behind(&place, head, k)) * block_size(lab);

				if (k != hole)
					memcpy(lab->image.bytes + at, after + at, block_size(lab));
			}
			check_replay(lab);
			if (cut == 3 || cut + 1 == need)
				check_all(lab);
		}
		tid = change->txn.tid;
		free_change(change);
		inl_journal_place_done(&place);
		/* Go on behind the last one: replay, a new log, a transaction. */
		copy_image();
		replay_home(lab);
		inl_log_free(lab->log);
		lab->log = NULL;
		close_image(&lab->image);
		run("mv c.img i.img");
		open_image(&lab->image, "i.img");
		open_log(lab);
		assert_true(inl_log_next_tid(lab->log) > tid);
		check_all(lab);
		commit(lab, 7, 2);
		check_all(lab);
		free(before);
		free(after);
		lab_free(lab);
	}
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

/* Several commits with a checkpoint between. Returns the first error; *acked: how many calls were good. */
static int scenario(struct lab *lab, unsigned *acked)
{
	int err = inl_log_open(lab->image.vol, NULL, &lab->log);

	*acked = 0;
	for (unsigned k = 0; k < 6 && !err; k++) {
		err = k == 3 ? try_checkpoint(lab) : try_commit(lab, k == 4 ? 300 : 3 + k, k);
		*acked += !err;
	}
	return err;
}

/* After an error nothing is taken any more, and the error is what is said. */
static void check_dead(struct lab *lab, int err)
{
	uint32_t left = inl_log_left(lab->log);

	assert_int_equal(try_commit(lab, 1, 0), err);
	assert_int_equal(inl_log_reset(lab->log), err);
	assert_int_equal(inl_log_close(lab->log), err);
	assert_int_equal(inl_log_left(lab->log), left);
}

static void faults_of(const char *what, unsigned every)
{
	for (unsigned n = 1;; n += every) {
		struct lab *lab = lab_new(&layouts[n % COUNT(layouts)], n);
		char rule[64];
		unsigned acked;
		int err;

		snprintf(rule, sizeof(rule), "%s@%u=EREMOTEIO", what, n);
		control(&lab->image, rule);
		err = scenario(lab, &acked);
		control(&lab->image, "clear");
		if (!err) {
			lab_free(lab);
			return;
		}
		assert_int_equal(err, -EREMOTEIO);
		if (lab->log && inl_log_close(lab->log)) { /* not one of the checkpoint's own */
			check_dead(lab, -EREMOTEIO);
			inl_log_abort(lab->log, -EREMOTEIO);
			check_dead(lab, -EREMOTEIO);
		}
		lab_free(lab);
	}
}

static void test_faults(void **state)
{
	faults_of("write", 1);
	faults_of("flush", 1);
	faults_of("read", 1);
}

/* Replayed by e2fsck or Linux: all of the model, or all of what was before? */
static void check_old_or_new(const struct lab *lab, const uint8_t *old, const struct change *change, unsigned n)
{
	struct image image;
	bool is_old = true, is_new = true;

	copy_image();
	if (n % 2 && has_kernel)
		run("mount -t ext4 -o loop,noatime,errors=continue c.img mnt && umount mnt");
	else
		run("e2fsck -y -E journal_only c.img || test $? = 1");
	map_image(&image, "c.img");
	for (unsigned i = 0; i < N_POOL; i++) {
		const uint8_t *got = home(lab, &image, lab->order[i]);

		is_old &= !memcmp(got, old + lab->order[i] * block_size(lab), block_size(lab));
		is_new &= !memcmp(got, i < change->txn.n_blocks ? change->blocks[i].bytes : want(lab, lab->order[i]),
				  block_size(lab));
	}
	munmap(image.bytes, image.size);
	assert_true(is_old || is_new);
}

/* A commit fails at its n-th operation: the transaction counts whole or not at all, and those before it do. */
static bool commit_fault(const char *kind, unsigned n)
{
	struct lab *lab = lab_new(&layouts[n % 2], n);
	size_t len = N_POOL * block_size(lab);
	uint8_t *old = malloc(len);
	struct change *change;
	char rule[64];
	int err;

	open_log(lab);
	commit(lab, 20, 3);
	memcpy(old, lab->want, len);
	change = make_change(lab, 400, 0);
	snprintf(rule, sizeof(rule), kind, n);
	control(&lab->image, rule);
	err = inl_log_commit(lab->log, &change->txn);
	control(&lab->image, "clear");
	if (err) {
		assert_int_equal(err, -EIO);
		inl_log_abort(lab->log, err);
		check_old_or_new(lab, old, change, n);
	}
	free(old);
	free_change(change);
	lab_free(lab);
	return err;
}

static void test_commit_faults(void **state)
{
	for (unsigned n = 1; commit_fault("write@%u=EIO", n); n++)
		;
	for (unsigned n = 1; commit_fault("flush@%u=EIO", n); n++)
		assert_true(n <= 2);
	for (unsigned n = 1; commit_fault("write@%u=torn:512", n); n++)
		;
	for (unsigned n = 1; commit_fault("write@%u=torn:3K", n); n++)
		;
}

/* The error is in the journal's superblock: no log is opened on it, e2fsck and Linux know of it. */
static void test_abort(void **state)
{
	struct lab *lab = lab_new(&layouts[0], 20);
	struct inl_diag diag = { 0 };
	struct inl_log *log;

	open_log(lab);
	commit(lab, 20, 3);
	inl_log_abort(lab->log, -EIO);
	check_dead(lab, -EIO);
	copy_image();
	check_in_memory(lab);
	replay_home(lab);
	inl_log_free(lab->log);
	lab->log = NULL;
	close_image(&lab->image);
	run("mv c.img i.img");
	open_image(&lab->image, "i.img");
	assert_int_equal(inl_log_open(lab->image.vol, &diag, &log), -EROFS);
	assert_int_equal(diag.err, -EROFS);
	copy_image();
	if (has_kernel) {
		run("mount -t ext4 -o loop,noatime,errors=continue c.img mnt && umount mnt");
		run("dumpe2fs -h c.img 2>/dev/null | grep '^Filesystem state:.*errors'");
	}
	copy_image();
	run("e2fsck -y c.img; e2fsck -fn c.img");
	assert_replayed(lab, "e2fsck after an abort");
	run("mv c.img i.img");
	close_image(&lab->image);
	open_image(&lab->image, "i.img");
	open_log(lab);
	lab_free(lab);
}

/* A crash in the middle of a replay: the next one does it all. */
static void test_replay_faults(void **state)
{
	static const char *const kinds[] = { "write", "flush", "read" };
	struct lab *lab = lab_new(&layouts[0], 30);

	open_log(lab);
	for (unsigned k = 0; k < 10; k++)
		commit_with_room(lab, 30, 2);
	for (unsigned kind = 0; kind < COUNT(kinds); kind++) {
		for (unsigned n = 1;; n += n < 4 || kind == 1 ? 1 : 17) {
			struct image image;
			char rule[32];
			int err;

			copy_image();
			open_image(&image, "c.img");
			snprintf(rule, sizeof(rule), "%s@%u=EIO", kinds[kind], n);
			control(&image, rule);
			err = inl_journal_replay_home(image.vol, NULL);
			control(&image, "clear");
			close_image(&image);
			if (!err)
				break;
			assert_int_equal(err, -EIO);
			check_in_memory(lab);
			replay_home(lab);
		}
	}
	lab_free(lab);
}

/* Is there a commit block of this transaction in the log? */
static bool has_commit_block(const struct lab *lab, uint32_t tid)
{
	uint8_t wanted[12];

	inl_store_be32(wanted, JBD2_MAGIC);
	inl_store_be32(wanted + 4, JBD2_COMMIT);
	inl_store_be32(wanted + 8, tid);
	for (size_t at = 0; at < lab->image.size; at += block_size(lab)) {
		if (!memcmp(lab->image.bytes + at, wanted, sizeof(wanted)))
			return true;
	}
	return false;
}

/* The first flush of a commit comes before its commit block, the second one behind. */
static void test_flushes(void **state)
{
	for (unsigned n = 1; n <= 3; n++) {
		struct lab *lab = lab_new(&layouts[0], 31);
		struct change *change;

		open_log(lab);
		change = make_change(lab, 90, 3);
		for (unsigned i = 0; i < 90; i++) /* nothing that looks like a commit block */
			change->bytes[i * block_size(lab)] = 0;
		control(&lab->image, n == 1 ? "flush@1=EIO" : n == 2 ? "flush@2=EIO" : "flush@3=EIO");
		assert_int_equal(inl_log_commit(lab->log, &change->txn), n == 3 ? 0 : -EIO);
		assert_int_equal(has_commit_block(lab, change->txn.tid), n > 1);
		free_change(change);
		lab_free(lab);
	}
}

static uint32_t load_le32_at(const struct lab *lab, size_t at)
{
	return inl_load_le32(lab->image.bytes + at);
}

/* The volume is marked before its log is active, and each has reached the medium when the next step begins. */
static void test_open_order(void **state)
{
	for (unsigned n = 1; n <= 3; n++) {
		struct lab *lab = lab_new(&layouts[0], 32);
		struct inl_journal_place place;
		size_t super;

		assert_int_equal(inl_journal_place_open(lab->image.vol, NULL, &place), 0);
		super = inl_journal_pblk(&place, 0) * block_size(lab);
		inl_journal_place_done(&place);
		assert_int_equal(load_le32_at(lab, 1024 + 0x60) & EXT4_INCOMPAT_RECOVER, 0);
		control(&lab->image, n == 1 ? "flush@1=EIO" : n == 2 ? "flush@2=EIO" : "flush@3=EIO");
		assert_int_equal(inl_log_open(lab->image.vol, NULL, &lab->log), n == 3 ? 0 : -EIO);
		assert_true(load_le32_at(lab, 1024 + 0x60) & EXT4_INCOMPAT_RECOVER);
		assert_int_equal(load_le32_at(lab, super + JBD2_SB_START) != 0, n > 1);
		control(&lab->image, "clear");
		check_all(lab);
		lab_free(lab);
	}
}

/* ---- logs that are refused --------------------------------------------------------------------------------------- */

static void refused(const char *how, int err)
{
	struct inl_diag diag = { 0 };
	struct inl_log *log = NULL;
	struct image image;

	needs_tools();
	run("rm -f i.img j.img && %s", how);
	open_image(&image, "i.img");
	assert_int_equal(inl_log_open(image.vol, &diag, &log), err);
	assert_int_equal(diag.err, err);
	assert_true(diag.text[0]);
	assert_null(log);
	close_image(&image);
}

static void set_journal_field(unsigned at, uint32_t value, int err)
{
	struct inl_diag diag = { 0 };
	struct inl_log *log = NULL;
	struct image image;
	uint64_t offset;

	make_volume(&layouts[2]); /* without checksums */
	{
		struct inl_journal_place place;

		open_image(&image, "i.img");
		assert_int_equal(inl_journal_place_open(image.vol, NULL, &place), 0);
		offset = inl_journal_pblk(&place, 0) * 1024;
		inl_journal_place_done(&place);
	}
	inl_store_be32(image.bytes + offset + at, value);
	assert_int_equal(inl_log_open(image.vol, &diag, &log), err);
	assert_int_equal(diag.err, err);
	assert_null(log);
	close_image(&image);
}

static void test_refused(void **state)
{
	refused("truncate -s 8M i.img && mke2fs -Fq -t ext2 i.img", -EOPNOTSUPP);
	refused("truncate -s 8M i.img j.img && mke2fs -Fq -O journal_dev -b 1024 j.img && mke2fs -Fq -t ext4 -b 1024 i.img && "
		"tune2fs -O ^has_journal i.img && debugfs -w -R 'feature has_journal' i.img", -EOPNOTSUPP);
	set_journal_field(0, 0, -EUCLEAN);
	set_journal_field(JBD2_SB_TYPE, JBD2_SUPER_V1, -EOPNOTSUPP);
	set_journal_field(JBD2_SB_TYPE, 7, -EUCLEAN);
	set_journal_field(JBD2_SB_BLOCK_SIZE, 4096, -EUCLEAN);
	set_journal_field(JBD2_SB_MAX_LEN, 1025, -EUCLEAN);
	set_journal_field(JBD2_SB_MAX_LEN, 1023, -EOPNOTSUPP);
	set_journal_field(JBD2_SB_MAX_LEN, 0, -EUCLEAN);
	set_journal_field(JBD2_SB_FIRST, 0, -EUCLEAN);
	set_journal_field(JBD2_SB_FIRST, 1024, -EUCLEAN);
	set_journal_field(JBD2_SB_START, 1, -EUCLEAN);
	set_journal_field(JBD2_SB_ERRNO, (uint32_t)-EIO, -EROFS);
	set_journal_field(JBD2_SB_INCOMPAT, 64, -EOPNOTSUPP);
	set_journal_field(JBD2_SB_RO_COMPAT, 1, -EOPNOTSUPP);
	/* A checksum of the superblock that the field above does not agree with. */
	set_journal_field(JBD2_SB_INCOMPAT, JBD2_INCOMPAT_CSUM_V3, -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_wrong_number),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_far),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_commit_faults),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_replay_faults),
		cmocka_unit_test(test_flushes),
		cmocka_unit_test(test_open_order),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
