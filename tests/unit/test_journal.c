/*
 * tests/unit/test_journal.c: the replay in memory, on logs written here from the description of the format.
 * Not here: logs that a kernel wrote (tests/kernel/test_journal.py).
 * Read more: Linux Documentation/filesystems/ext4/journal.rst.
 *
 * The writer shares nothing with the code under test, checksums included: both of its own are slow, and checked against
 * the catalogue's check values. A fault is one byte changed in a log that replays without it.
 */
#include "ext4/own.h"
#include <errno.h>
#include <inlay/driver.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK	   1024u
#define LOG_BLOCKS 600u
#define MAX_BLOCK  1000u /* of the file system, where a test says nothing else */
#define MAGIC	   0xc03b3998u

enum { DESCRIPTOR = 1, COMMIT = 2, SUPER_V1 = 3, SUPER_V2 = 4, REVOKE = 5 };
enum { COMPAT_CHECKSUM = 1 };
enum { REVOKES = 1, BITS64 = 2, ASYNC = 4, CSUM_V2 = 8, CSUM_V3 = 16, FAST_COMMIT = 32 };
enum { TAG_ESCAPED = 1, TAG_SAME_UUID = 2, TAG_LAST = 8 };
enum { SB_BLOCK_SIZE = 12, SB_MAX_LEN = 16, SB_FIRST = 20, SB_TID = 24, SB_START = 28, SB_COMPAT = 36, SB_INCOMPAT = 40,
       SB_UUID = 48, SB_CSUM_TYPE = 80, SB_N_FC = 84, SB_CSUM = 252 };

#define ESCAPED_ID 0x80000000u /* contents of such a number begin with the journal's magic */

/* ---- checksums --------------------------------------------------------------------------------------------------- */

static uint32_t slow_crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
	}
	return crc;
}

static uint32_t slow_crc32_be(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= (uint32_t)*p++ << 24;
		for (int i = 0; i < 8; i++)
			crc = crc & 0x80000000u ? crc << 1 ^ 0x04c11db7u : crc << 1;
	}
	return crc;
}

static void test_checksums(void **state)
{
	const uint8_t *digits = (const uint8_t *)"123456789";

	assert_int_equal(~slow_crc32c(~0u, digits, 9), 0xe3069283u);	/* CRC-32/ISCSI */
	assert_int_equal(slow_crc32_be(~0u, digits, 9), 0x0376e6e7u);	/* CRC-32/MPEG-2 */
}

/* ---- the writer -------------------------------------------------------------------------------------------------- */

struct format {
	const char *name;
	uint32_t version, compat, incompat;
};

static const struct format formats[] = {
	{ "version 1", SUPER_V1, 0, 0 },
	{ "32 bits", SUPER_V2, 0, REVOKES },
	{ "64 bits", SUPER_V2, 0, REVOKES | BITS64 },
	{ "v2, 32 bits", SUPER_V2, 0, REVOKES | CSUM_V2 },
	{ "v2, 64 bits", SUPER_V2, 0, REVOKES | CSUM_V2 | BITS64 },
	{ "v3, 32 bits", SUPER_V2, 0, REVOKES | CSUM_V3 },
	{ "v3, 64 bits", SUPER_V2, 0, REVOKES | CSUM_V3 | BITS64 },
	{ "v3, fast commits", SUPER_V2, 0, REVOKES | CSUM_V3 | BITS64 | FAST_COMMIT },
	{ "old checksum", SUPER_V2, COMPAT_CHECKSUM, REVOKES },
	{ "old checksum, asynchronous", SUPER_V2, COMPAT_CHECKSUM, REVOKES | ASYNC | BITS64 },
};
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))
#define V3	  (&formats[6])
#define PLAIN	  (&formats[1])
#define OLD_SUM	  (&formats[8])
#define OLD_ASYNC (&formats[9])

static bool has_csum(const struct format *format)
{
	return format->incompat & (CSUM_V2 | CSUM_V3);
}

struct writer {
	const struct format *format;
	uint8_t bytes[LOG_BLOCKS * BLOCK];
	uint32_t n_blocks;    /* of the journal */
	uint32_t first, last; /* the log: [first, last) */
	uint32_t n_fc;
	uint32_t head;	      /* next block to write */
	uint32_t tid;
	uint64_t time;	      /* of the next commit, seconds */
	uint8_t uuid[16];
	bool no_last;	      /* leave TAG_LAST out: full descriptors end without it */
	uint32_t sum;	      /* the old checksum of the transaction */
	uint32_t descriptor, data, revoke, commit; /* the last of each that was written */
	uint64_t max_block;
	int read_error; /* of reading error_block */
	uint32_t error_block;
	bool seen[LOG_BLOCKS]; /* was read */
};

static uint8_t *block_at(struct writer *w, uint32_t block)
{
	return w->bytes + (size_t)block * BLOCK;
}

static uint32_t seed(const struct writer *w)
{
	return slow_crc32c(~0u, w->uuid, sizeof(w->uuid));
}

static void seal_super(struct writer *w)
{
	inl_store_be32(w->bytes + SB_CSUM, 0);
	inl_store_be32(w->bytes + SB_CSUM, slow_crc32c(~0u, w->bytes, 1024));
}

static void set_super(struct writer *w, unsigned at, uint32_t value)
{
	inl_store_be32(w->bytes + at, value);
	if (has_csum(w->format))
		seal_super(w);
}

/* An empty log of [1, n_blocks), which is to begin at block start with transaction tid. */
static struct writer *writer_new(const struct format *format, uint32_t n_blocks, uint32_t start, uint32_t tid)
{
	struct writer *w = test_calloc(1, sizeof(*w));

	assert_true(n_blocks <= LOG_BLOCKS);
	w->format = format;
	w->n_blocks = n_blocks;
	w->n_fc = format->incompat & FAST_COMMIT ? 8 : 0;
	w->first = 1;
	w->last = n_blocks - w->n_fc;
	w->head = start;
	w->tid = tid;
	w->time = 1700000000;
	w->sum = ~0u;
	w->max_block = MAX_BLOCK;
	for (unsigned i = 0; i < sizeof(w->uuid); i++)
		w->uuid[i] = (uint8_t)(0xa0 + i);
	inl_store_be32(w->bytes, MAGIC);
	inl_store_be32(w->bytes + 4, format->version);
	inl_store_be32(w->bytes + SB_BLOCK_SIZE, BLOCK);
	inl_store_be32(w->bytes + SB_MAX_LEN, n_blocks);
	inl_store_be32(w->bytes + SB_FIRST, w->first);
	inl_store_be32(w->bytes + SB_TID, tid);
	inl_store_be32(w->bytes + SB_START, start);
	inl_store_be32(w->bytes + SB_COMPAT, format->compat);
	inl_store_be32(w->bytes + SB_INCOMPAT, format->incompat);
	memcpy(w->bytes + SB_UUID, w->uuid, sizeof(w->uuid));
	w->bytes[SB_CSUM_TYPE] = has_csum(format) ? 4 : 0;
	inl_store_be32(w->bytes + SB_N_FC, w->n_fc);
	if (has_csum(format))
		seal_super(w);
	return w;
}

static uint32_t next_block(struct writer *w)
{
	uint32_t block = w->head++;

	if (w->head == w->last)
		w->head = w->first;
	memset(block_at(w, block), 0, BLOCK);
	return block;
}

static uint8_t *start_block(struct writer *w, uint32_t type, uint32_t *block)
{
	uint8_t *p;

	*block = next_block(w);
	p = block_at(w, *block);
	inl_store_be32(p, MAGIC);
	inl_store_be32(p + 4, type);
	inl_store_be32(p + 8, w->tid);
	return p;
}

static void seal_tail(struct writer *w, uint8_t *p)
{
	if (has_csum(w->format))
		inl_store_be32(p + BLOCK - 4, slow_crc32c(seed(w), p, BLOCK));
}

static void contents(uint8_t *buf, uint32_t id)
{
	for (uint32_t i = 0; i < BLOCK / 4; i++)
		inl_store_be32(buf + 4 * (size_t)i, id * 2654435761u + i + 1);
	if (id & ESCAPED_ID)
		inl_store_be32(buf, MAGIC);
}

static unsigned tag_size(const struct format *format)
{
	if (format->incompat & CSUM_V3)
		return 16;
	return (format->incompat & CSUM_V2 ? 10 : 8) + (format->incompat & BITS64 ? 4 : 0);
}

static unsigned tags_max(const struct format *format)
{
	return (BLOCK - 12 - (has_csum(format) ? 4 : 0) - 16) / tag_size(format);
}

/* Write one copy, and its tag at p. */
static void write_copy(struct writer *w, uint8_t *p, uint64_t block, uint32_t id, uint32_t flags)
{
	uint8_t be_tid[4], *copy;
	uint32_t csum;

	w->data = next_block(w);
	copy = block_at(w, w->data);
	contents(copy, id);
	if (inl_load_be32(copy) == MAGIC) {
		inl_store_be32(copy, 0);
		flags |= TAG_ESCAPED;
	}
	inl_store_be32(be_tid, w->tid);
	csum = slow_crc32c(slow_crc32c(seed(w), be_tid, 4), copy, BLOCK);
	inl_store_be32(p, (uint32_t)block);
	if (w->format->incompat & CSUM_V3) {
		inl_store_be32(p + 4, flags);
		inl_store_be32(p + 12, csum);
	} else {
		inl_store_be16(p + 4, w->format->incompat & CSUM_V2 ? (uint16_t)csum : 0);
		inl_store_be16(p + 6, (uint16_t)flags);
	}
	if (w->format->incompat & BITS64)
		inl_store_be32(p + 8, (uint32_t)(block >> 32));
	else
		assert_true(block <= UINT32_MAX);
}

struct copy {
	uint64_t block;
	uint32_t id;
};

static void put_descriptor(struct writer *w, const struct copy *copies, unsigned n)
{
	uint8_t *p = start_block(w, DESCRIPTOR, &w->descriptor);
	uint32_t data = w->head, at = 12;

	for (unsigned i = 0; i < n; i++) {
		uint32_t flags = (i ? TAG_SAME_UUID : 0) | (i + 1 == n && !w->no_last ? TAG_LAST : 0);

		write_copy(w, p + at, copies[i].block, copies[i].id, flags);
		at += tag_size(w->format);
		if (!i) {
			memcpy(p + at, w->uuid, sizeof(w->uuid));
			at += 16;
		}
	}
	seal_tail(w, p);
	w->sum = slow_crc32_be(w->sum, p, BLOCK);
	for (unsigned i = 0; i < n; i++) {
		w->sum = slow_crc32_be(w->sum, block_at(w, data), BLOCK);
		data = data + 1 == w->last ? w->first : data + 1;
	}
}

/* As many descriptors as it takes. */
static void put_copies(struct writer *w, const struct copy *copies, unsigned n)
{
	while (n) {
		unsigned now = n < tags_max(w->format) ? n : tags_max(w->format);

		put_descriptor(w, copies, now);
		copies += now;
		n -= now;
	}
}

static void put_copy(struct writer *w, uint64_t block, uint32_t id)
{
	put_copies(w, &(struct copy){ block, id }, 1);
}

static void put_revokes(struct writer *w, const uint64_t *blocks, unsigned n)
{
	uint8_t *p = start_block(w, REVOKE, &w->revoke);
	unsigned size = w->format->incompat & BITS64 ? 8 : 4;

	assert_true(16 + n * size <= BLOCK - (has_csum(w->format) ? 4 : 0));
	for (unsigned i = 0; i < n; i++) {
		if (size == 8)
			inl_store_be64(p + 16 + 8 * (size_t)i, blocks[i]);
		else
			inl_store_be32(p + 16 + 4 * (size_t)i, (uint32_t)blocks[i]);
	}
	inl_store_be32(p + 12, 16 + n * size);
	seal_tail(w, p);
}

static void put_revoke(struct writer *w, uint64_t block)
{
	put_revokes(w, &block, 1);
}

static void put_commit(struct writer *w)
{
	uint8_t *p = start_block(w, COMMIT, &w->commit);

	inl_store_be64(p + 48, w->time);
	inl_store_be32(p + 56, 123456789);
	if (w->format->compat & COMPAT_CHECKSUM) {
		p[12] = 1;
		p[13] = 4;
		inl_store_be32(p + 16, w->sum);
	}
	if (has_csum(w->format))
		inl_store_be32(p + 16, slow_crc32c(seed(w), p, BLOCK));
	w->sum = ~0u;
	w->time++;
	w->tid++;
}

static void put_transaction(struct writer *w, uint64_t block, uint32_t id)
{
	put_copy(w, block, id);
	put_commit(w);
}

static void flip(struct writer *w, uint32_t block, unsigned offset)
{
	block_at(w, block)[offset] ^= 0x10;
}

/* ---- running the code under test --------------------------------------------------------------------------------- */

static int read_block(void *arg, uint64_t block, uint8_t *buf)
{
	struct writer *w = arg;

	assert_true(block < w->n_blocks);
	w->seen[block] = true;
	if (w->read_error && block == w->error_block)
		return w->read_error;
	memcpy(buf, block_at(w, (uint32_t)block), BLOCK);
	return 0;
}

static int scan(struct writer *w, bool damaged_ok, struct inl_journal_map *map, bool *clean)
{
	struct inl_journal_source source = { BLOCK, w->n_blocks, w->max_block, read_block, w };
	struct inl_diag diag = { 0 };
	int err = inl_journal_scan(&source, damaged_ok, map, clean, &diag);

	if (err && err != -ENOMEM) {
		assert_int_equal(diag.err, err);
		assert_true(diag.text[0]);
		assert_null(map->entries);
		assert_int_equal(map->n, 0);
	}
	return err;
}

/* The map has these blocks and no others, and what lies at their copies is the content of these numbers. */
static void check_map(struct writer *w, const struct inl_journal_map *map, const struct copy *want, unsigned n)
{
	assert_int_equal(map->n, n);
	for (unsigned i = 0; i < n; i++) {
		const struct inl_journal_entry *entry = inl_journal_find(map, want[i].block);
		uint8_t expected[BLOCK], got[BLOCK];

		assert_non_null(entry);
		assert_int_equal(entry->block, want[i].block);
		assert_in_range(entry->copy, w->first, w->last - 1);
		contents(expected, want[i].id);
		memcpy(got, block_at(w, (uint32_t)entry->copy), BLOCK);
		assert_int_equal(entry->escaped, (want[i].id & ESCAPED_ID) != 0);
		if (entry->escaped)
			inl_store_be32(got, MAGIC);
		assert_memory_equal(got, expected, BLOCK);
	}
	for (size_t i = 1; i < map->n; i++)
		assert_true(map->entries[i - 1].block < map->entries[i].block);
}

static void expect_from(struct writer *w, bool damaged_ok, uint32_t n_transactions, const struct copy *want, unsigned n)
{
	struct inl_journal_map map;
	bool clean = true;

	assert_int_equal(scan(w, damaged_ok, &map, &clean), 0);
	assert_false(clean);
	assert_int_equal(map.n_transactions, n_transactions);
	check_map(w, &map, want, n);
	inl_journal_map_done(&map);
}

#define EXPECT(w, damaged_ok, n_transactions, ...)                                                                 \
	expect_from(w, damaged_ok, n_transactions, (const struct copy[]){ __VA_ARGS__ },                          \
		    sizeof((const struct copy[]){ __VA_ARGS__ }) / sizeof(struct copy))
#define EXPECT_NOTHING(w, damaged_ok) expect_from(w, damaged_ok, 0, NULL, 0)

static void expect_error(struct writer *w, bool damaged_ok, int err)
{
	struct inl_journal_map map;
	bool clean;

	assert_int_equal(scan(w, damaged_ok, &map, &clean), err);
}

static void expect_clean(struct writer *w)
{
	struct inl_journal_map map;
	bool clean = false;

	assert_int_equal(scan(w, false, &map, &clean), 0);
	assert_true(clean);
	assert_int_equal(map.n, 0);
	inl_journal_map_done(&map);
}

/* ---- logs that are good ------------------------------------------------------------------------------------------ */

static void test_clean(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_transaction(w, 5, 1);
		set_super(w, SB_START, 0);
		expect_clean(w);
		set_super(w, SB_START, 1);
		EXPECT(w, false, 1, { 5, 1 });
		test_free(w);
	}
}

static void test_empty(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 9, 7);

		EXPECT_NOTHING(w, false);
		test_free(w);
	}
}

static void test_overwrite(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_transaction(w, 5, 1);
		put_copies(w, (const struct copy[]){ { 9, 2 }, { 5, 3 }, { 2, 4 } }, 3);
		put_commit(w);
		put_transaction(w, 5, 5);
		put_transaction(w, 9, 6);
		EXPECT(w, false, 4, { 2, 4 }, { 5, 5 }, { 9, 6 });
		test_free(w);
	}
}

static void test_no_commit(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_transaction(w, 5, 1);
		put_copies(w, (const struct copy[]){ { 5, 2 }, { 6, 3 } }, 2);
		EXPECT(w, false, 1, { 5, 1 });
		if (formats[i].version == SUPER_V2) {
			put_revoke(w, 5);
			EXPECT(w, false, 1, { 5, 1 });
			put_commit(w);
			EXPECT(w, false, 2, { 6, 3 });
		} else {
			put_commit(w);
			EXPECT(w, false, 2, { 5, 2 }, { 6, 3 });
		}
		test_free(w);
	}
}

/* Behind the end lie blocks of this log's last round: valid, but of lower numbers. */
static void test_last_round(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_transaction(w, 5, 1); /* 1..3, overwritten below */
		put_transaction(w, 5, 2); /* 4..6 */
		w->head = 1;
		w->tid = 12;
		set_super(w, SB_TID, 12);
		put_transaction(w, 6, 3);
		EXPECT(w, false, 1, { 6, 3 });
		test_free(w);
	}
}

static void test_wrap(void **state)
{
	static const struct copy two[] = { { 11, 1 }, { 12, 2 } };

	for (size_t i = 0; i < N_FORMATS; i++) {
		uint32_t n = 40, last = n - (formats[i].incompat & FAST_COMMIT ? 8 : 0);

		/* Each of the four blocks of the second transaction comes to lie first after the wrap. */
		for (uint32_t start = last - 7; start < last; start++) {
			struct writer *w = writer_new(&formats[i], n, start, 7);

			put_transaction(w, 10, 9);
			put_copies(w, two, 2);
			put_commit(w);
			put_transaction(w, 13, 3);
			assert_true(w->head <= 10);
			EXPECT(w, false, 3, { 10, 9 }, { 11, 1 }, { 12, 2 }, { 13, 3 });
			test_free(w);
		}
	}
}

/* The log may be shorter than the journal, begin late, and be full to the last block. */
static void test_bounds(void **state)
{
	struct writer *w = writer_new(V3, 40, 5, 7);

	w->first = 5;
	w->last = 14;
	w->head = 5;
	set_super(w, SB_FIRST, 5);
	set_super(w, SB_MAX_LEN, 14);
	for (uint32_t i = 0; i < 3; i++)
		put_transaction(w, 20 + i, i);
	assert_int_equal(w->head, 5);
	EXPECT(w, false, 3, { 20, 0 }, { 21, 1 }, { 22, 2 });
	test_free(w);
}

static void test_tid_wrap(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		for (uint32_t before = 0; before < 5; before++) {
			struct writer *w = writer_new(&formats[i], 60, 1, UINT32_MAX - before);

			put_transaction(w, 5, 1);
			put_transaction(w, 5, 2);
			if (formats[i].version == SUPER_V2) {
				put_revoke(w, 6);
				put_transaction(w, 7, 3);
				put_transaction(w, 6, 4);
			}
			put_transaction(w, 8, 5);
			if (formats[i].version == SUPER_V2)
				EXPECT(w, false, 5, { 5, 2 }, { 6, 4 }, { 7, 3 }, { 8, 5 });
			else
				EXPECT(w, false, 3, { 5, 2 }, { 8, 5 });
			test_free(w);
		}
	}
}

/* More copies than one descriptor has room for; exactly as many; and a descriptor that is full without a last tag. */
static void test_many_tags(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		unsigned max = tags_max(&formats[i]);
		const unsigned counts[] = { max - 1, max, max + 1, 2 * max + 3 };

		for (unsigned k = 0; k < 4; k++) {
			struct writer *w = writer_new(&formats[i], LOG_BLOCKS, LOG_BLOCKS - 50, 7);
			struct copy copies[300];

			assert_true(counts[k] <= 300);
			for (unsigned j = 0; j < counts[k]; j++)
				copies[j] = (struct copy){ 900 - 3 * j, j };
			put_copies(w, copies, counts[k]);
			put_commit(w);
			put_transaction(w, 1, 999);
			copies[counts[k]] = (struct copy){ 1, 999 };
			expect_from(w, false, 2, copies, counts[k] + 1);
			test_free(w);
		}
	}
}

static void test_no_last_tag(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], LOG_BLOCKS, 1, 7);
		unsigned max = tags_max(&formats[i]);
		struct copy copies[200];

		/* Where not even the room of the UUID is left over: fewer bytes than a tag remain. */
		for (unsigned j = 0; j < max; j++)
			copies[j] = (struct copy){ 10 + j, j };
		w->no_last = true;
		put_copies(w, copies, max);
		put_commit(w);
		expect_from(w, false, 1, copies, max);
		test_free(w);
	}
}

static void test_escaped(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_copies(w, (const struct copy[]){ { 5, 1 | ESCAPED_ID }, { 6, 2 }, { 7, 3 | ESCAPED_ID } }, 3);
		put_commit(w);
		put_copies(w, (const struct copy[]){ { 6, 4 | ESCAPED_ID }, { 7, 5 } }, 2);
		put_commit(w);
		EXPECT(w, false, 2, { 5, 1 | ESCAPED_ID }, { 6, 4 | ESCAPED_ID }, { 7, 5 });
		test_free(w);
	}
}

static void test_high_blocks(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w;

		if (!(formats[i].incompat & BITS64))
			continue;
		w = writer_new(&formats[i], 40, 1, 7);
		w->max_block = 1ull << 45;
		put_copies(w, (const struct copy[]){ { 5, 1 }, { (1ull << 32) + 5, 2 }, { (1ull << 44) + 6, 3 } }, 3);
		put_commit(w);
		EXPECT(w, false, 1, { 5, 1 }, { (1ull << 32) + 5, 2 }, { (1ull << 44) + 6, 3 });
		put_revoke(w, (1ull << 32) + 5);
		put_commit(w);
		EXPECT(w, false, 2, { 5, 1 }, { (1ull << 44) + 6, 3 });
		test_free(w);
	}
}

/* ---- revokes ----------------------------------------------------------------------------------------------------- */

static void test_revoked(void **state)
{
	for (size_t i = 1; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 60, 1, 7);
		struct writer *same = writer_new(&formats[i], 60, 1, 7);

		/* In a later transaction, and journaled again in one that is later still. */
		put_copies(w, (const struct copy[]){ { 5, 1 }, { 6, 2 } }, 2);
		put_commit(w);
		put_revoke(w, 5);
		put_commit(w);
		EXPECT(w, false, 2, { 6, 2 });
		put_transaction(w, 5, 3);
		EXPECT(w, false, 3, { 5, 3 }, { 6, 2 });
		/* A revoke says nothing about what comes after it. */
		put_revoke(w, 9);
		put_commit(w);
		put_transaction(w, 9, 4);
		EXPECT(w, false, 5, { 5, 3 }, { 6, 2 }, { 9, 4 });
		/* The earlier of two revokes must not hide the later one. */
		put_revoke(w, 5);
		put_commit(w);
		EXPECT(w, false, 6, { 6, 2 }, { 9, 4 });

		/* In the transaction of the copy itself, on either side of it. */
		put_revoke(same, 5);
		put_copy(same, 5, 1);
		put_copy(same, 6, 2);
		put_revoke(same, 6);
		put_copy(same, 7, 3);
		put_commit(same);
		EXPECT(same, false, 1, { 7, 3 });
		test_free(w);
		test_free(same);
	}
}

static void test_many_revokes(void **state)
{
	for (size_t i = 1; i < N_FORMATS; i++) {
		unsigned max = (BLOCK - 16 - (has_csum(&formats[i]) ? 4 : 0)) / (formats[i].incompat & BITS64 ? 8 : 4);
		struct writer *w = writer_new(&formats[i], LOG_BLOCKS, 1, 7);
		struct copy copies[300];
		uint64_t blocks[300];

		for (unsigned j = 0; j < 300; j++) {
			copies[j] = (struct copy){ 100 + j, j };
			blocks[j] = 100 + 299 - j;
		}
		put_copies(w, copies, 300);
		put_commit(w);
		put_revokes(w, blocks, max); /* the block is full */
		put_commit(w);
		expect_from(w, false, 2, copies, 300 - max);
		test_free(w);
	}
}

static void test_revoke_count(void **state)
{
	struct writer *w = writer_new(PLAIN, 60, 1, 7);
	const uint64_t blocks[] = { 5, 6 };

	put_copies(w, (const struct copy[]){ { 5, 1 }, { 6, 2 } }, 2);
	put_commit(w);
	put_revokes(w, blocks, 2);
	put_commit(w);
	expect_from(w, false, 2, NULL, 0);
	inl_store_be32(block_at(w, w->revoke) + 12, 20); /* bytes, header included: one of the two */
	EXPECT(w, false, 2, { 6, 2 });
	inl_store_be32(block_at(w, w->revoke) + 12, 16);
	EXPECT(w, false, 2, { 5, 1 }, { 6, 2 });
	inl_store_be32(block_at(w, w->revoke) + 12, BLOCK);
	expect_from(w, false, 2, NULL, 0);
	inl_store_be32(block_at(w, w->revoke) + 12, BLOCK + 4);
	expect_error(w, false, -EUCLEAN);
	inl_store_be32(block_at(w, w->revoke) + 12, 0x7fffffff);
	expect_error(w, false, -EUCLEAN);
	test_free(w);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* Three transactions with all kinds of blocks; what lies where is noted of transaction `which`. */
static struct writer *three(const struct format *format, unsigned which, struct writer *noted)
{
	struct writer *w = writer_new(format, 40, 1, 7);

	for (unsigned i = 0; i < 3; i++) {
		put_revoke(w, 50 + i);
		put_copies(w, (const struct copy[]){ { 5, 10 + i }, { 20 + i, 20 + i } }, 2);
		put_commit(w);
		if (i == which)
			*noted = *w;
	}
	EXPECT(w, false, 3, { 5, 12 }, { 20, 20 }, { 21, 21 }, { 22, 22 });
	return w;
}

/* What is left when the log ends before a transaction. */
static void expect_before(struct writer *w, bool damaged_ok, unsigned which)
{
	if (which == 0)
		EXPECT_NOTHING(w, damaged_ok);
	else if (which == 1)
		EXPECT(w, damaged_ok, 1, { 5, 10 }, { 20, 20 });
	else
		EXPECT(w, damaged_ok, 2, { 5, 11 }, { 20, 20 }, { 21, 21 });
}

/* Whatever else is made of a damaged log: this block of it is not taken. */
static void expect_unused(struct writer *w, uint32_t block)
{
	struct inl_journal_map map;
	bool clean;

	assert_int_equal(scan(w, true, &map, &clean), 0);
	for (size_t i = 0; i < map.n; i++)
		assert_int_not_equal(map.entries[i].copy, block);
	inl_journal_map_done(&map);
}

static void test_checksum_faults(void **state)
{
	static struct writer noted;

	for (size_t i = 0; i < N_FORMATS; i++) {
		for (unsigned which = 0; which < 3; which++) {
			struct writer *w;

			if (!has_csum(&formats[i]))
				continue;
			w = three(&formats[i], which, &noted);
			const struct {
				uint32_t block;
				unsigned offset;
			} faults[] = {
				{ noted.descriptor, 12 + 3 },	   /* a block number */
				{ noted.descriptor, BLOCK - 1 },   /* the checksum */
				{ noted.descriptor, BLOCK - 5 },   /* the unused rest */
				{ noted.revoke, 16 + 3 },	   /* a block number */
				{ noted.revoke, BLOCK - 1 },	   /* the checksum */
				{ noted.revoke, BLOCK - 5 },	   /* the unused rest */
				{ noted.commit, 19 },		   /* the checksum */
				{ noted.commit, 55 },		   /* the time: a few seconds later */
				{ noted.commit, 59 },		   /* nanoseconds */
			};
			for (size_t k = 0; k < sizeof(faults) / sizeof(faults[0]); k++) {
				/* A later time, never an earlier one: that would make it a stale block. */
				if (faults[k].offset == 55)
					block_at(w, faults[k].block)[54] += 1;
				else
					flip(w, faults[k].block, faults[k].offset);
				expect_error(w, false, -EUCLEAN);
				expect_before(w, true, which);
				if (faults[k].offset == 55)
					block_at(w, faults[k].block)[54] -= 1;
				else
					flip(w, faults[k].block, faults[k].offset);
			}
			flip(w, noted.data, 700);
			expect_error(w, false, -EUCLEAN);
			expect_unused(w, noted.data);
			flip(w, noted.data, 700);
			flip(w, noted.data, 0);
			expect_error(w, false, -EUCLEAN);
			test_free(w);
		}
	}
}

/* Without checksums the same bytes are not looked at: these logs replay. */
static void test_no_checksums(void **state)
{
	static struct writer noted;
	struct writer *w = three(PLAIN, 1, &noted);

	flip(w, noted.descriptor, BLOCK - 1);
	flip(w, noted.revoke, BLOCK - 1);
	flip(w, noted.commit, 19);
	EXPECT(w, false, 3, { 5, 12 }, { 20, 20 }, { 21, 21 }, { 22, 22 });
	test_free(w);
}

/* A revoked copy is never used, so nobody asks for its checksum. */
static void test_revoked_copy_damaged(void **state)
{
	struct writer *w = writer_new(V3, 40, 1, 7);

	put_transaction(w, 5, 1);
	flip(w, w->data, 9);
	expect_error(w, false, -EUCLEAN);
	put_revoke(w, 5);
	put_transaction(w, 6, 2);
	EXPECT(w, false, 2, { 6, 2 });
	test_free(w);
}

/* A wrong header is no damage: it is how a log ends. */
static void test_wrong_headers(void **state)
{
	static struct writer noted;

	for (size_t i = 0; i < N_FORMATS; i++) {
		static const unsigned offsets[] = { 3, 6, 11 }; /* magic, type, transaction */

		if (formats[i].version == SUPER_V1)
			continue;
		for (unsigned k = 0; k < 3; k++) {
			struct writer *w = three(&formats[i], 1, &noted);

			flip(w, noted.revoke, offsets[k]);
			expect_before(w, false, 1);
			flip(w, noted.revoke, offsets[k]);
			flip(w, noted.descriptor, offsets[k]);
			expect_before(w, false, 1);
			flip(w, noted.descriptor, offsets[k]);
			flip(w, noted.commit, offsets[k]);
			expect_before(w, false, 1);
			test_free(w);
		}
	}
}

static void test_old_checksum(void **state)
{
	static struct writer noted;

	for (unsigned which = 0; which < 3; which++) {
		struct writer *w = three(OLD_SUM, which, &noted);
		const struct {
			uint32_t block;
			unsigned offset;
		} faults[] = {
			{ noted.descriptor, BLOCK - 1 }, { noted.descriptor, 12 + 3 },
			{ noted.data, 700 },		 { noted.commit, 19 },
			{ noted.commit, 12 },		 { noted.commit, 13 },
		};

		for (size_t k = 0; k < sizeof(faults) / sizeof(faults[0]); k++) {
			flip(w, faults[k].block, faults[k].offset);
			expect_error(w, false, -EUCLEAN);
			expect_before(w, true, which);
			flip(w, faults[k].block, faults[k].offset);
		}
		/* One that was never computed is all zero. */
		memset(block_at(w, noted.commit) + 12, 0, 8);
		EXPECT(w, false, 3, { 5, 12 }, { 20, 20 }, { 21, 21 }, { 22, 22 });
		block_at(w, noted.commit)[13] = 4;
		expect_error(w, false, -EUCLEAN);
		test_free(w);
	}
}

/* The last transaction of asynchronous commits may have a commit block before all of its blocks have landed. */
static void test_async_torn(void **state)
{
	static struct writer noted;
	struct writer *w = three(OLD_ASYNC, 2, &noted);

	flip(w, noted.data, 700);
	expect_before(w, false, 2);
	test_free(w);
}

/*
 * Behind the end lie blocks of a journal that was here before: the numbers go on by chance, the checksums are wrong,
 * and the commit is older. With a time that goes on too it would be damage.
 */
static void test_stale(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w;
		uint64_t now;

		if (!has_csum(&formats[i]))
			continue;
		w = writer_new(&formats[i], 60, 1, 7);
		put_transaction(w, 5, 1);
		put_transaction(w, 6, 2);
		now = w->time;
		memset(w->uuid, 0x77, sizeof(w->uuid));
		w->time = now - 2;
		put_revoke(w, 6);
		put_transaction(w, 5, 3);
		put_transaction(w, 7, 4);
		EXPECT(w, false, 2, { 5, 1 }, { 6, 2 });
		EXPECT(w, true, 2, { 5, 1 }, { 6, 2 });
		w->head = 7;
		w->tid = 9;
		w->time = now - 1; /* the time of the last good one: not older */
		put_revoke(w, 6);
		put_transaction(w, 5, 3);
		expect_error(w, false, -EUCLEAN);
		EXPECT(w, true, 2, { 5, 1 }, { 6, 2 });
		test_free(w);
	}
}

/* Nothing but the checksum of the commit block is wrong, and it is older. */
static void test_stale_commit(void **state)
{
	struct writer *w = writer_new(V3, 60, 1, 7);

	put_transaction(w, 5, 1);
	w->time -= 100;
	put_transaction(w, 6, 2);
	EXPECT(w, false, 2, { 5, 1 }, { 6, 2 });
	flip(w, w->commit, 19);
	EXPECT(w, false, 1, { 5, 1 });
	test_free(w);
}

/* The medium may have taken the first sector of a commit block only: its checksum was made over zeros behind it. */
static void test_commit_sector(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 60, 1, 7);

		put_transaction(w, 5, 1);
		memset(block_at(w, w->commit) + 512, 0x5a, BLOCK - 512);
		put_transaction(w, 6, 2);
		EXPECT(w, false, 2, { 5, 1 }, { 6, 2 });
		test_free(w);
	}
}

static void test_beyond_end(void **state)
{
	for (size_t i = 0; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 1, 7);

		put_transaction(w, MAX_BLOCK - 1, 1);
		EXPECT(w, false, 1, { MAX_BLOCK - 1, 1 });
		put_transaction(w, MAX_BLOCK, 2);
		expect_error(w, false, -EUCLEAN);
		expect_unused(w, w->data);
		test_free(w);
	}
}

/* No commit anywhere: the scan goes round once and ends. */
static void test_endless(void **state)
{
	for (size_t i = 1; i < N_FORMATS; i++) {
		struct writer *w = writer_new(&formats[i], 40, 3, 7);

		for (uint32_t n = 0; n < w->last - w->first; n++)
			put_revoke(w, 5);
		EXPECT_NOTHING(w, false);
		test_free(w);
	}
}

/* ---- superblock -------------------------------------------------------------------------------------------------- */

static void test_super(void **state)
{
	static const struct {
		unsigned at;
		uint32_t value;
		int err;
		bool v2; /* version 1 has no such field */
	} cases[] = {
		{ 0, MAGIC ^ 1, -EUCLEAN },
		{ 4, DESCRIPTOR, -EUCLEAN },
		{ 4, REVOKE, -EUCLEAN },
		{ SB_BLOCK_SIZE, 2 * BLOCK, -EUCLEAN },
		{ SB_BLOCK_SIZE, 0, -EUCLEAN },
		{ SB_MAX_LEN, 41, -EUCLEAN },
		{ SB_MAX_LEN, 0xffffffff, -EUCLEAN },
		{ SB_MAX_LEN, 1, -EUCLEAN },
		{ SB_MAX_LEN, 0, -EUCLEAN },
		{ SB_FIRST, 0, -EUCLEAN },
		{ SB_FIRST, 40, -EUCLEAN },
		{ SB_FIRST, 0xffffffff, -EUCLEAN },
		{ SB_START, 40, -EUCLEAN },
		{ SB_START, 0xffffffff, -EUCLEAN },
		{ SB_INCOMPAT, 0x40, -EOPNOTSUPP, true },
		{ SB_INCOMPAT, 0x80000001, -EOPNOTSUPP, true },
	};

	for (size_t i = 0; i < N_FORMATS; i++) {
		for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
			struct writer *w = writer_new(&formats[i], 40, 1, 7);
			uint32_t good;

			if (!cases[k].v2 || formats[i].version == SUPER_V2) {
				put_transaction(w, 5, 1);
				good = inl_load_be32(w->bytes + cases[k].at);
				set_super(w, cases[k].at, cases[k].v2 ? good | cases[k].value : cases[k].value);
				expect_error(w, false, cases[k].err);
				set_super(w, cases[k].at, good);
				EXPECT(w, false, 1, { 5, 1 });
			}
			test_free(w);
		}
	}
}

static void test_super_start_early(void **state)
{
	struct writer *w = writer_new(V3, 40, 5, 7);

	set_super(w, SB_FIRST, 5);
	w->first = 5;
	put_transaction(w, 5, 1);
	EXPECT(w, false, 1, { 5, 1 });
	set_super(w, SB_START, 4);
	expect_error(w, false, -EUCLEAN);
	test_free(w);
}

/* The log ends where the fast commits begin. */
static void test_super_fast_commit_area(void **state)
{
	struct writer *w = writer_new(&formats[7], 40, 31, 7);

	put_transaction(w, 5, 1);
	EXPECT(w, false, 1, { 5, 1 });
	set_super(w, SB_N_FC, 9);
	expect_error(w, false, -EUCLEAN); /* the start lies in it */
	set_super(w, SB_N_FC, 40);
	expect_error(w, false, -EUCLEAN);
	set_super(w, SB_N_FC, 0xffffffff);
	expect_error(w, false, -EUCLEAN);
	test_free(w);

	/* None given: 256. */
	w = writer_new(&formats[7], 400, 143, 7);
	w->last = 400 - 256;
	set_super(w, SB_N_FC, 0);
	put_transaction(w, 5, 1);
	assert_int_equal(w->head, 3);
	EXPECT(w, false, 1, { 5, 1 });
	set_super(w, SB_START, 144);
	expect_error(w, false, -EUCLEAN);
	test_free(w);
}

static void test_super_checksum(void **state)
{
	static const unsigned offsets[] = { SB_TID + 3, SB_UUID, SB_CSUM, SB_CSUM + 3, 32, 256, 1023 };

	for (size_t i = 0; i < N_FORMATS; i++) {
		for (size_t k = 0; k < sizeof(offsets) / sizeof(offsets[0]) && has_csum(&formats[i]); k++) {
			struct writer *w = writer_new(&formats[i], 40, 1, 7);

			put_transaction(w, 5, 1);
			flip(w, 0, offsets[k]);
			expect_error(w, false, -EUCLEAN);
			flip(w, 0, offsets[k]);
			EXPECT(w, false, 1, { 5, 1 });
			test_free(w);
		}
	}
}

static void test_super_checksum_kind(void **state)
{
	struct writer *w = writer_new(V3, 40, 1, 7);

	put_transaction(w, 5, 1);
	w->bytes[SB_CSUM_TYPE] = 1;
	seal_super(w);
	expect_error(w, false, -EOPNOTSUPP);
	w->bytes[SB_CSUM_TYPE] = 4;
	set_super(w, SB_INCOMPAT, V3->incompat | CSUM_V2);
	expect_error(w, false, -EUCLEAN);
	set_super(w, SB_INCOMPAT, V3->incompat);
	EXPECT(w, false, 1, { 5, 1 });
	test_free(w);
}

/* Version 1 has no features: bytes where version 2 keeps them mean nothing. */
static void test_super_v1(void **state)
{
	struct writer *w = writer_new(&formats[0], 40, 1, 7);

	put_transaction(w, 5, 1);
	memset(w->bytes + SB_COMPAT, 0xff, 1024 - SB_COMPAT);
	EXPECT(w, false, 1, { 5, 1 });
	test_free(w);
}

/* Compatible features that nobody knows change nothing. */
static void test_super_compat(void **state)
{
	struct writer *w = writer_new(V3, 40, 1, 7);

	put_transaction(w, 5, 1);
	set_super(w, SB_COMPAT, 0xfffffffe);
	EXPECT(w, false, 1, { 5, 1 });
	test_free(w);
}

/* ---- fast commits ------------------------------------------------------------------------------------------------ */

/* The kernel leaves the first block behind the log alone: the area begins with the second (seen on Linux 6.18). */
static uint8_t *fast_commit_head(struct writer *w, uint32_t tid)
{
	uint8_t *p = block_at(w, w->last + 1);

	inl_store_le16(p, 9); /* EXT4_FC_TAG_HEAD */
	inl_store_le16(p + 2, 8);
	inl_store_le32(p + 4, 0);
	inl_store_le32(p + 8, tid);
	return p;
}

static void test_fast_commits(void **state)
{
	struct writer *w = writer_new(&formats[7], 40, 1, 7);

	put_transaction(w, 5, 1);
	EXPECT(w, false, 1, { 5, 1 });
	fast_commit_head(w, 8); /* of this log's end */
	expect_error(w, false, -EOPNOTSUPP);
	fast_commit_head(w, 8)[11] ^= 1;
	EXPECT(w, false, 1, { 5, 1 });
	/* Where nothing was to be replayed nothing is missing: the kernel does not look either. */
	fast_commit_head(w, 7);
	set_super(w, SB_START, 0);
	expect_clean(w);
	test_free(w);
}

static void test_fast_commits_other(void **state)
{
	struct writer *w = writer_new(&formats[7], 40, 1, 7);

	put_transaction(w, 5, 1);
	EXPECT(w, false, 1, { 5, 1 });
	fast_commit_head(w, 7); /* older than the full commit of 7 */
	EXPECT(w, false, 1, { 5, 1 });
	fast_commit_head(w, 9);
	EXPECT(w, false, 1, { 5, 1 });
	fast_commit_head(w, 8)[0] = 8; /* no head */
	EXPECT(w, false, 1, { 5, 1 });
	test_free(w);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void test_read_errors(void **state)
{
	static struct writer noted;

	for (size_t i = 1; i < N_FORMATS; i++) {
		struct writer *w = three(&formats[i], 1, &noted);
		bool seen[LOG_BLOCKS];
		unsigned n = 0;

		memcpy(seen, w->seen, sizeof(seen));
		for (uint32_t block = 0; block < w->n_blocks; block++) {
			w->read_error = -EIO;
			w->error_block = block;
			if (seen[block]) {
				expect_error(w, false, -EIO);
				n++;
			} else {
				EXPECT(w, false, 3, { 5, 12 }, { 20, 20 }, { 21, 21 }, { 22, 22 });
			}
		}
		/* Superblock, three transactions of revoke, descriptor, commit, and the block where the log ends. */
		assert_true(n >= 1 + 9 + 1);
		/* The error is passed on as it is. */
		w->read_error = -EREMOTEIO;
		w->error_block = 0;
		expect_error(w, false, -EREMOTEIO);
		w->error_block = 1;
		expect_error(w, false, -EREMOTEIO);
		test_free(w);
	}
}

/* ---- random logs against a slow model ---------------------------------------------------------------------------- */

static uint32_t rng_state;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return (rng_state >> 8) % below;
}

#define MODEL_BLOCKS 30
#define MODEL_EVENTS 400

/* Everything that happened, in order; looked through from the start for each block. */
struct model {
	struct event {
		unsigned transaction; /* counted from 0: no wrap */
		uint64_t block;
		bool revoke;
		uint32_t id;
	} events[MODEL_EVENTS];
	unsigned n;
};

static bool model_content(const struct model *model, uint64_t block, unsigned n_transactions, uint32_t *id)
{
	bool found = false;
	int revoked = -1;

	for (unsigned i = 0; i < model->n; i++) {
		const struct event *event = &model->events[i];

		if (event->block == block && event->revoke && event->transaction < n_transactions)
			revoked = (int)event->transaction;
	}
	for (unsigned i = 0; i < model->n; i++) {
		const struct event *event = &model->events[i];

		if (event->block == block && !event->revoke && event->transaction < n_transactions &&
		    (int)event->transaction > revoked) {
			found = true;
			*id = event->id;
		}
	}
	return found;
}

static void random_transaction(struct writer *w, struct model *model, unsigned transaction)
{
	for (unsigned part = 1 + rng(3); part; part--) {
		bool revoke = rng(3) == 0 && w->format->version == SUPER_V2;
		unsigned n = 1 + rng(6);
		struct copy copies[6];
		uint64_t blocks[6];

		for (unsigned i = 0; i < n; i++) {
			uint64_t block = blocks[i] = 1 + rng(MODEL_BLOCKS);
			uint32_t id = (uint32_t)model->n + (rng(5) ? 0 : ESCAPED_ID);

			/* No block is journaled twice in one transaction. */
			for (unsigned k = 0; k < model->n && !revoke; k++) {
				const struct event *event = &model->events[k];

				if (event->transaction == transaction && !event->revoke && event->block == block)
					block = blocks[i] = MODEL_BLOCKS + 1 + model->n;
			}
			copies[i] = (struct copy){ block, id };
			assert_true(model->n < MODEL_EVENTS);
			model->events[model->n++] = (struct event){ transaction, block, revoke, id };
		}
		if (revoke)
			put_revokes(w, blocks, n);
		else
			put_copies(w, copies, n);
	}
}

static void random_log(const struct format *format)
{
	uint32_t log_blocks = 200;
	struct writer *w =
		writer_new(format, log_blocks + 1, 1 + rng(log_blocks - 10), rng(2) ? rng(1000) : 0 - rng(9));
	static struct model model;
	unsigned n_transactions = rng(8);
	struct copy want[MODEL_EVENTS];
	unsigned n = 0;

	model.n = 0;
	for (unsigned i = 0; i < n_transactions; i++) {
		random_transaction(w, &model, i);
		put_commit(w);
	}
	if (rng(2))
		random_transaction(w, &model, n_transactions); /* without commit */
	for (uint64_t block = 0; block < MAX_BLOCK; block++) {
		uint32_t id;

		if (model_content(&model, block, n_transactions, &id))
			want[n++] = (struct copy){ block, id };
	}
	expect_from(w, false, n_transactions, want, n);
	expect_from(w, true, n_transactions, want, n);
	test_free(w);
}

static void test_random(void **state)
{
	rng_state = 20240601;
	for (unsigned i = 0; i < 100 * N_FORMATS; i++)
		random_log(&formats[i % N_FORMATS]);
}

/* ---- the map in use ---------------------------------------------------------------------------------------------- */

static void bytes_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	uint8_t *bytes = inl_dev_priv(dev);

	assert_int_equal(bio->op, INL_READ);
	inl_bio_copy_in(bio, 0, bytes + bio->state.pos, bio->len);
	inl_bio_end(bio, 0);
}

static const struct inl_dev_ops bytes_ops = { .name = "bytes", .submit = bytes_submit };

#define N_BLOCKS 16u

/* Every range of a small device, read through a map: each byte as if the blocks had been copied into their places. */
static void read_through(uint32_t dev_block_size)
{
	static uint8_t bytes[N_BLOCKS * BLOCK], replayed[N_BLOCKS * BLOCK], buf[N_BLOCKS * BLOCK + 8];
	struct inl_journal_entry entries[] = { { 2, 12, 1, false }, { 3, 10, 1, true }, { 7, 11, 1, true },
					       { 8, 9, 1, false } };
	struct inl_dev_params params = { .size = sizeof(bytes), .block_size = dev_block_size };
	struct inl_volume vol = { .block_size = BLOCK, .block_bits = 10, .n_blocks = N_BLOCKS,
				  .journal = { .entries = entries, .n = 4 } };

	for (uint32_t i = 0; i < N_BLOCKS; i++)
		contents(bytes + (size_t)i * BLOCK, i);
	memcpy(replayed, bytes, sizeof(bytes));
	for (unsigned i = 0; i < 4; i++) {
		memcpy(replayed + entries[i].block * BLOCK, bytes + entries[i].copy * BLOCK, BLOCK);
		if (entries[i].escaped)
			inl_store_be32(replayed + entries[i].block * BLOCK, MAGIC);
	}
	assert_int_equal(inl_dev_new(&bytes_ops, bytes, &params, &vol.dev), 0);
	for (unsigned i = 0; i < N_BLOCKS * 8; i++) {
		static const size_t starts[] = { 0, 1, 2, 3, 4, 500, 1021, 1023 };
		static const size_t lens[] = { 0, 1, 2, 3, 4, 5, 6, 1023, 1024, 1025, 2048, 5000 };
		size_t from = i / 8 * BLOCK + starts[i % 8];

		for (unsigned k = 0; k < sizeof(lens) / sizeof(lens[0]); k++) {
			size_t len = lens[k] < sizeof(bytes) - from ? lens[k] : sizeof(bytes) - from;

			memset(buf, 0xee, len + 8);
			assert_int_equal(inl_meta_read(&vol, from, buf, len), 0);
			assert_true(!len || !memcmp(buf, replayed + from, len));
			assert_memory_equal(buf + len, "\xee\xee\xee\xee\xee\xee\xee\xee", 8);
		}
	}
	assert_int_equal(inl_meta_read(&vol, sizeof(bytes) - 1, buf, 2), -EIO);
	inl_dev_close(vol.dev);
}

static void test_read_through(void **state)
{
	read_through(512);
	read_through(1024);
	read_through(4096);
}

/* Runs of data are cut where a block lies elsewhere. */
static void test_data_place(void **state)
{
	struct inl_journal_entry entries[] = { { 2, 12, 1, false }, { 3, 10, 1, true }, { 7, 11, 1, false } };
	struct inl_volume vol = { .block_size = BLOCK, .block_bits = 10, .journal = { .entries = entries, .n = 3 } };
	static const struct {
		uint64_t pblk, len;
		bool direct;
		uint64_t got_len, place;
	} cases[] = {
		{ 0, 1, true, 1, 0 },  { 0, 2, true, 2, 0 },  { 0, 9, true, 2, 0 },     { 1, 9, true, 1, 1 },
		{ 2, 9, true, 1, 12 }, { 2, 1, true, 1, 12 }, { 3, 2, false, 1, 10 },   { 4, 3, true, 3, 4 },
		{ 4, 4, true, 3, 4 },  { 7, 1, true, 1, 11 }, { 8, 100, true, 100, 8 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t len = cases[i].len, place = 0;

		assert_int_equal(inl_data_place(&vol, cases[i].pblk, &len, &place), cases[i].direct);
		assert_int_equal(len, cases[i].got_len);
		if (cases[i].direct)
			assert_int_equal(place, cases[i].place);
	}
	vol.journal.n = 0;
	assert_null(inl_journal_find(&vol.journal, 2));
}

/* ---- found by review ---- */

/* own.h: with damaged_ok what cannot be trusted ends the replay. A wrong copy is skipped and the replay goes on, with
 * block 20/21/22 of the same transaction and block 5 as an older transaction left it: a mixture. */
static void test_damaged_copy_ends(void **state)
{
	static struct writer noted;

	for (unsigned which = 0; which < 3; which++) {
		struct writer *w = three(V3, which, &noted);

		flip(w, noted.data, 700);
		expect_before(w, true, which);
		test_free(w);
	}
}

static void test_beyond_end_ends(void **state)
{
	struct writer *w = writer_new(V3, 40, 1, 7);

	put_transaction(w, 5, 1);
	put_copies(w, (const struct copy[]){ { 5, 2 }, { MAX_BLOCK, 3 } }, 2);
	put_commit(w);
	EXPECT(w, true, 1, { 5, 1 });
	test_free(w);
}

/* The same with a revoke block that cannot be: its revokes are left out and the blocks it voids are replayed. */
static void test_damaged_revoke_ends(void **state)
{
	struct writer *w = writer_new(PLAIN, 60, 1, 7);

	put_transaction(w, 5, 1);
	put_revoke(w, 5);
	put_transaction(w, 6, 2);
	inl_store_be32(block_at(w, w->revoke) + 12, BLOCK + 4);
	EXPECT(w, true, 1, { 5, 1 });
	test_free(w);
}

/* A torn transaction of asynchronous commits is harmless as the last one only: a committed one behind it means damage. */
static void test_async_torn_in_the_middle(void **state)
{
	static struct writer noted;
	struct writer *w = three(OLD_ASYNC, 1, &noted);

	flip(w, noted.data, 700);
	expect_error(w, false, -EUCLEAN);
	test_free(w);
}

/* A read error in a transaction under the old checksum becomes -EIO whatever it was. */
static void test_read_error_kept(void **state)
{
	struct writer *w = writer_new(OLD_SUM, 40, 1, 7);

	put_transaction(w, 5, 1);
	w->read_error = -ENOMEM;
	w->error_block = w->data;
	expect_error(w, false, -ENOMEM);
	test_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksums),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_overwrite),
		cmocka_unit_test(test_no_commit),
		cmocka_unit_test(test_last_round),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_tid_wrap),
		cmocka_unit_test(test_many_tags),
		cmocka_unit_test(test_no_last_tag),
		cmocka_unit_test(test_escaped),
		cmocka_unit_test(test_high_blocks),
		cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_many_revokes),
		cmocka_unit_test(test_revoke_count),
		cmocka_unit_test(test_checksum_faults),
		cmocka_unit_test(test_no_checksums),
		cmocka_unit_test(test_revoked_copy_damaged),
		cmocka_unit_test(test_wrong_headers),
		cmocka_unit_test(test_old_checksum),
		cmocka_unit_test(test_async_torn),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_stale_commit),
		cmocka_unit_test(test_commit_sector),
		cmocka_unit_test(test_beyond_end),
		cmocka_unit_test(test_endless),
		cmocka_unit_test(test_super),
		cmocka_unit_test(test_super_start_early),
		cmocka_unit_test(test_super_fast_commit_area),
		cmocka_unit_test(test_super_checksum),
		cmocka_unit_test(test_super_checksum_kind),
		cmocka_unit_test(test_super_v1),
		cmocka_unit_test(test_super_compat),
		cmocka_unit_test(test_fast_commits),
		cmocka_unit_test(test_fast_commits_other),
		cmocka_unit_test(test_read_errors),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_read_through),
		cmocka_unit_test(test_data_place),
		cmocka_unit_test(test_damaged_copy_ends),
		cmocka_unit_test(test_beyond_end_ends),
		cmocka_unit_test(test_damaged_revoke_ends),
		cmocka_unit_test(test_async_torn_in_the_middle),
		cmocka_unit_test(test_read_error_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
