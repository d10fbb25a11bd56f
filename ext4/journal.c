/*
 * ext4/journal.c: the journal (jbd2) replayed in memory: which blocks have newer content in the log, and where.
 * Not here: where the journal's blocks lie on the device (volume.c); writing one.
 * Read more: Linux Documentation/filesystems/ext4/journal.rst; fs/jbd2/recovery.c for what counts as the end of the
 * log.
 *
 * Three passes, as the kernel's: scan (where does the log end), revoke (which copies are void), map. Nothing is copied.
 */
#include "ext4/jbd2.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_HEADER	60 /* bytes */
#define FC_TAG_HEAD	9
#define FC_BLOCKS_DEFAULT 256

struct revoke {
	uint64_t block;
	uint32_t tid;
};

struct log {
	const struct inl_journal_source *source;
	struct inl_diag *diag;
	bool damaged_ok;
	uint8_t *buf;	    /* one block: what is being parsed */
	uint8_t *data;	    /* one block: a copy that is being checked */
	uint32_t first, last; /* log blocks: [first, last) */
	uint32_t max_len;     /* with the fast commits behind */
	uint32_t start, start_tid;
	uint32_t incompat;
	bool compat_checksum;
	uint32_t seed;	    /* of crc32c */
	uint32_t end_tid;   /* first transaction that is not replayed */
	uint32_t bad_tid;   /* where damage was found */
	struct revoke *revokes;
	size_t n_revokes, room_revokes;
	struct inl_journal_map *map;
};

static bool has_csum(const struct log *log)
{
	return log->incompat & (JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3);
}

/* Transaction numbers wrap. */
static bool tid_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static int damaged(struct log *log, const char *what, uint32_t tid, uint32_t block)
{
	log->bad_tid = tid;
	if (log->damaged_ok) /* not the end of the story */
		return -EUCLEAN;
	return inl_diag_set(log->diag, -EUCLEAN, "the journal is damaged: %s (transaction %u, journal block %u)", what,
			    tid, block);
}

static int read_block(struct log *log, uint32_t block, uint8_t *buf)
{
	int err = log->source->read(log->source->arg, block, buf);

	if (err)
		return inl_diag_set(log->diag, err, "journal block %u cannot be read", block);
	return 0;
}

/* ---- superblock -------------------------------------------------------------------------------------------------- */

static int check_features(struct log *log, const uint8_t *sb)
{
	if (inl_load_be32(sb + 4) == JBD2_SUPER_V1)
		return 0;
	log->compat_checksum = inl_load_be32(sb + 36) & JBD2_COMPAT_CHECKSUM;
	log->incompat = inl_load_be32(sb + 40);
	if (log->incompat & ~JBD2_INCOMPAT_KNOWN)
		return inl_diag_set(log->diag, -EOPNOTSUPP, "the journal has unknown features (0x%x)",
				    log->incompat & ~JBD2_INCOMPAT_KNOWN);
	if (!has_csum(log))
		return 0;
	if (((log->incompat & JBD2_INCOMPAT_CSUM_V2) && (log->incompat & JBD2_INCOMPAT_CSUM_V3)) || log->compat_checksum)
		return inl_diag_set(log->diag, -EUCLEAN, "the journal's superblock is damaged: two kinds of checksum");
	if (sb[80] != 4)
		return inl_diag_set(log->diag, -EOPNOTSUPP, "the journal has an unknown kind of checksum (%u)", sb[80]);
	log->seed = inl_crc32c(~0u, sb + 48, 16);
	return 0;
}

uint32_t inl_journal_super_csum(const uint8_t *super)
{
	static const uint8_t zero[4];
	uint32_t crc = inl_crc32c(~0u, super, JBD2_SB_CSUM);

	crc = inl_crc32c(crc, zero, sizeof(zero));
	return inl_crc32c(crc, super + JBD2_SB_CSUM + 4, JBD2_SUPER_SIZE - JBD2_SB_CSUM - 4);
}

static bool super_checksum_good(const struct log *log, const uint8_t *sb)
{
	return !has_csum(log) || inl_journal_super_csum(sb) == inl_load_be32(sb + JBD2_SB_CSUM);
}

/* Returns 0; *clean when there is nothing to replay. */
static int parse_super(struct log *log, bool *clean)
{
	const uint8_t *sb = log->buf;
	uint32_t type, n_fc = 0;
	int err = read_block(log, 0, log->buf);

	if (err)
		return err;
	type = inl_load_be32(sb + 4);
	if (inl_load_be32(sb) != JBD2_MAGIC || (type != JBD2_SUPER_V1 && type != JBD2_SUPER_V2))
		return inl_diag_set(log->diag, -EUCLEAN, "the journal has no superblock");
	err = check_features(log, sb);
	if (err)
		return err;
	if (!super_checksum_good(log, sb))
		return inl_diag_set(log->diag, -EUCLEAN, "the checksum of the journal's superblock is wrong");
	log->max_len = inl_load_be32(sb + 16);
	log->first = inl_load_be32(sb + 20);
	log->start_tid = inl_load_be32(sb + 24);
	log->start = inl_load_be32(sb + 28);
	if (log->incompat & JBD2_INCOMPAT_FAST_COMMIT) {
		n_fc = inl_load_be32(sb + 84);
		n_fc = n_fc ? n_fc : FC_BLOCKS_DEFAULT;
	}
	if (inl_load_be32(sb + 12) != log->source->block_size || log->max_len > log->source->n_blocks ||
	    log->max_len < 2 || n_fc >= log->max_len - 1 || log->first < 1 || log->first >= log->max_len - n_fc)
		return inl_diag_set(log->diag, -EUCLEAN, "the journal's superblock is damaged: impossible sizes");
	log->last = log->max_len - n_fc;
	*clean = log->start == 0;
	if (!*clean && (log->start < log->first || log->start >= log->last))
		return inl_diag_set(log->diag, -EUCLEAN, "the journal's superblock is damaged: its start lies outside");
	return 0;
}

/* ---- blocks of the log ------------------------------------------------------------------------------------------- */

static void advance(const struct log *log, uint32_t *block, uint32_t n)
{
	uint64_t at = (uint64_t)*block + n;

	while (at >= log->last)
		at -= log->last - log->first;
	*block = (uint32_t)at;
}

/* The checksum in the last four bytes of descriptor and revoke blocks. */
static bool tail_checksum_good(const struct log *log, const uint8_t *buf)
{
	static const uint8_t zero[4];
	uint32_t size = log->source->block_size, crc;

	if (!has_csum(log))
		return true;
	crc = inl_crc32c(log->seed, buf, size - 4);
	return inl_crc32c(crc, zero, 4) == inl_load_be32(buf + size - 4);
}

/* The checksum of a commit block whose first `len` bytes are as in buf, the rest zero, and its own field zero. */
static uint32_t commit_checksum(const struct log *log, const uint8_t *buf, uint32_t len)
{
	static const uint8_t zero[64];
	uint32_t size = log->source->block_size, crc;

	crc = inl_crc32c(log->seed, buf, 16);
	crc = inl_crc32c(crc, zero, 4);
	crc = inl_crc32c(crc, buf + 20, len - 20);
	for (uint32_t at = len; at < size; at += INL_MIN(size - at, sizeof(zero)))
		crc = inl_crc32c(crc, zero, INL_MIN(size - at, sizeof(zero)));
	return crc;
}

/* Only the first sector of a commit block need have reached the medium: its header is whole, the rest was zero. */
static bool commit_checksum_good(const struct log *log, const uint8_t *buf)
{
	uint32_t stored = inl_load_be32(buf + 16);

	return !has_csum(log) || commit_checksum(log, buf, log->source->block_size) == stored ||
	       commit_checksum(log, buf, COMMIT_HEADER) == stored;
}

struct tag {
	uint64_t block;
	uint32_t flags;
	uint32_t csum;
};

static unsigned tag_size(const struct log *log)
{
	if (log->incompat & JBD2_INCOMPAT_CSUM_V3)
		return 16;
	return 8 + (log->incompat & JBD2_INCOMPAT_CSUM_V2 ? 2 : 0) + (log->incompat & JBD2_INCOMPAT_64BIT ? 4 : 0);
}

/* Take the tag at *at of a descriptor block; false behind the last one. */
static bool next_tag(const struct log *log, const uint8_t *buf, uint32_t *at, bool *more, struct tag *tag)
{
	uint32_t end = log->source->block_size - (has_csum(log) ? 4 : 0), size = tag_size(log);
	const uint8_t *p = buf + *at;
	bool v3 = log->incompat & JBD2_INCOMPAT_CSUM_V3;

	if (!*more || *at + size > end)
		return false;
	tag->block = inl_load_be32(p);
	tag->flags = v3 ? inl_load_be32(p + 4) : inl_load_be16(p + 6);
	tag->csum = v3 ? inl_load_be32(p + 12) : inl_load_be16(p + 4);
	if (log->incompat & JBD2_INCOMPAT_64BIT)
		tag->block |= (uint64_t)inl_load_be32(p + 8) << 32;
	*at += size + (tag->flags & JBD2_TAG_SAME_UUID ? 0 : 16);
	*more = !(tag->flags & JBD2_TAG_LAST);
	return true;
}

static uint32_t count_tags(const struct log *log, const uint8_t *buf)
{
	struct tag tag;
	uint32_t at = 12, n = 0;
	bool more = true;

	while (next_tag(log, buf, &at, &more, &tag))
		n++;
	return n;
}

/* ---- pass 1: where does the log end ------------------------------------------------------------------------------ */

/*
 * CRC-32, big endian and without inversion: the checksum of volumes that have no metadata_csum (JBD2_COMPAT_CHECKSUM).
 */
static uint32_t crc32_be(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= (uint32_t)*p++ << 24;
		for (unsigned i = 0; i < 8; i++)
			crc = crc << 1 ^ (crc & 0x80000000u ? 0x04c11db7u : 0);
	}
	return crc;
}

/* Extend the transaction's checksum by its descriptor and the blocks behind. */
static int sum_blocks(struct log *log, uint32_t block, uint32_t n, uint32_t *crc)
{
	*crc = crc32_be(*crc, log->buf, log->source->block_size);
	for (uint32_t i = 0; i < n; i++) {
		int err = read_block(log, block, log->data);

		if (err)
			return err;
		*crc = crc32_be(*crc, log->data, log->source->block_size);
		advance(log, &block, 1);
	}
	return 0;
}

/* The old checksum in a commit block: {type, size} and the sum. An all-zero one was never computed. */
static bool old_checksum_good(const struct log *log, uint32_t crc)
{
	const uint8_t *b = log->buf;

	if (!log->compat_checksum || has_csum(log))
		return true;
	if (b[12] == 0 && b[13] == 0 && inl_load_be32(b + 16) == 0)
		return true;
	return b[12] == 1 && b[13] == 4 && inl_load_be32(b + 16) == crc;
}

struct scan {
	uint32_t tid, block;
	uint32_t crc;
	bool suspect;		   /* a block of this transaction has a wrong checksum */
	bool has_torn;		   /* transaction `torn` has a wrong checksum, which may be well if it is the last */
	uint32_t torn;
	uint64_t last_commit_time; /* seconds */
};

/* Damage ends the log before a transaction, or is an error. */
static int scan_damaged(struct log *log, struct scan *scan, uint32_t tid)
{
	if (!log->damaged_ok)
		return damaged(log, "wrong checksum", tid, scan->block);
	log->map->damaged = true;
	return 0;
}

/*
 * A commit block ends a transaction. What is wrong in it, or before it, is either the remains of an older log, or
 * damage: its time tells. Returns 1: go on; 0: the log ends before this transaction; -EUCLEAN.
 */
static int scan_commit(struct log *log, struct scan *scan)
{
	uint64_t time = inl_load_be64(log->buf + 48);
	bool good = commit_checksum_good(log, log->buf) && old_checksum_good(log, scan->crc);

	if (scan->suspect || !good) {
		if (time < scan->last_commit_time)
			return 0;
		/* The last transaction of an asynchronous commit may be torn without harm. */
		if (scan->suspect || !(log->incompat & JBD2_INCOMPAT_ASYNC) || scan->has_torn)
			return scan_damaged(log, scan, scan->tid);
		scan->has_torn = true;
		scan->torn = scan->tid;
	} else if (scan->has_torn) {
		return scan_damaged(log, scan, scan->torn);
	} else {
		scan->last_commit_time = time;
	}
	scan->crc = ~0u;
	scan->tid++;
	return 1;
}

static int scan_pass(struct log *log)
{
	struct scan scan = { .tid = log->start_tid, .block = log->start, .crc = ~0u };
	uint32_t seen = 0;
	int go = 1;

	while (go > 0 && seen < log->last - log->first) {
		uint32_t n = 1, next = scan.block;
		int err = read_block(log, scan.block, log->buf);

		if (err)
			return err;
		if (inl_load_be32(log->buf) != JBD2_MAGIC || inl_load_be32(log->buf + 8) != scan.tid)
			break;
		switch (inl_load_be32(log->buf + 4)) {
		case JBD2_DESCRIPTOR:
			n += count_tags(log, log->buf);
			scan.suspect |= !tail_checksum_good(log, log->buf);
			advance(log, &next, 1);
			if (log->compat_checksum && !has_csum(log))
				err = sum_blocks(log, next, n - 1, &scan.crc);
			break;
		case JBD2_COMMIT:
			go = scan_commit(log, &scan);
			break;
		case JBD2_REVOKE:
			scan.suspect |= !tail_checksum_good(log, log->buf);
			break;
		default:
			go = 0;
			break;
		}
		if (err)
			return err;
		seen += n;
		advance(log, &scan.block, n);
	}
	log->end_tid = scan.has_torn ? scan.torn : scan.tid;
	return go < 0 ? go : 0;
}

/* A larger array, or NULL; *room is then as it was. */
static void *grow(void *array, size_t *room, size_t size)
{
	size_t wanted = *room ? 2 * *room : 256;
	void *grown = reallocarray(array, wanted, size);

	if (grown)
		*room = wanted;
	return grown;
}

/* ---- pass 2: revokes --------------------------------------------------------------------------------------------- */

/* By block, then by transaction, the latest first. */
static int compare_revokes(const void *a, const void *b)
{
	const struct revoke *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->tid == y->tid ? 0 : tid_before(y->tid, x->tid) ? -1 : 1;
}

/* Keep the latest revoke of each block. */
static void settle_revokes(struct log *log)
{
	size_t kept = 0;

	if (log->n_revokes)
		qsort(log->revokes, log->n_revokes, sizeof(*log->revokes), compare_revokes);
	for (size_t i = 0; i < log->n_revokes; i++) {
		if (!kept || log->revokes[kept - 1].block != log->revokes[i].block)
			log->revokes[kept++] = log->revokes[i];
	}
	log->n_revokes = kept;
}

/* Memory is bounded by the blocks of the file system, however often a block is revoked. */
static int add_revoke(struct log *log, uint64_t block, uint32_t tid)
{
	if (block >= log->source->max_block)
		return 0; /* no copy of such a block is taken anyway */
	if (log->n_revokes == log->room_revokes) {
		settle_revokes(log);
		if (log->n_revokes >= log->room_revokes - log->room_revokes / 4) {
			struct revoke *grown = grow(log->revokes, &log->room_revokes, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			log->revokes = grown;
		}
	}
	log->revokes[log->n_revokes++] = (struct revoke){ block, tid };
	return 0;
}

static int take_revokes(struct log *log, uint32_t tid, uint32_t block)
{
	uint32_t size = log->incompat & JBD2_INCOMPAT_64BIT ? 8 : 4, used = inl_load_be32(log->buf + 12);
	int err = 0;

	if (used < 16 || used > log->source->block_size - (has_csum(log) ? 4 : 0))
		return damaged(log, "impossible revoke block", tid, block);
	for (uint32_t at = 16; at + size <= used && !err; at += size)
		err = add_revoke(log, size == 8 ? inl_load_be64(log->buf + at) : inl_load_be32(log->buf + at), tid);
	return err;
}

static bool is_revoked(const struct log *log, uint64_t block, uint32_t tid)
{
	size_t lo = 0, hi = log->n_revokes;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (log->revokes[mid].block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < log->n_revokes && log->revokes[lo].block == block && !tid_before(log->revokes[lo].tid, tid);
}

/* ---- pass 3: the map --------------------------------------------------------------------------------------------- */

/* By block; of one block the copies in the order of their transactions. */
static int compare_entries(const void *a, const void *b)
{
	const struct inl_journal_entry *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->tid == y->tid ? 0 : tid_before(x->tid, y->tid) ? -1 : 1;
}

/* Keep the last copy of each block. */
static void settle(struct inl_journal_map *map)
{
	size_t kept = 0;

	if (map->n)
		qsort(map->entries, map->n, sizeof(*map->entries), compare_entries);
	for (size_t i = 0; i < map->n; i++) {
		if (kept && map->entries[kept - 1].block == map->entries[i].block)
			kept--;
		map->entries[kept++] = map->entries[i];
	}
	map->n = kept;
}

static int add_entry(struct inl_journal_map *map, uint64_t block, uint64_t copy, uint32_t tid, bool escaped)
{
	if (map->n == map->room) {
		settle(map);
		if (map->n >= map->room - map->room / 4) {
			struct inl_journal_entry *grown = grow(map->entries, &map->room, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			map->entries = grown;
		}
	}
	map->entries[map->n++] = (struct inl_journal_entry){ block, copy, tid, escaped };
	return 0;
}

static bool copy_checksum_good(struct log *log, const struct tag *tag, uint32_t tid)
{
	uint8_t be_tid[4];
	uint32_t crc;

	inl_store_be32(be_tid, tid);
	crc = inl_crc32c(log->seed, be_tid, 4);
	crc = inl_crc32c(crc, log->data, log->source->block_size);
	return log->incompat & JBD2_INCOMPAT_CSUM_V3 ? crc == tag->csum : (crc & 0xffff) == tag->csum;
}

static int map_descriptor(struct log *log, uint32_t tid, uint32_t block)
{
	uint32_t at = 12;
	struct tag tag;
	bool more = true;

	while (next_tag(log, log->buf, &at, &more, &tag)) {
		int err;

		advance(log, &block, 1);
		if (is_revoked(log, tag.block, tid))
			continue;
		if (tag.block >= log->source->max_block)
			return damaged(log, "a copy of a block beyond the end", tid, block);
		if (has_csum(log)) {
			err = read_block(log, block, log->data);
			if (err)
				return err;
			if (!copy_checksum_good(log, &tag, tid))
				return damaged(log, "wrong checksum of a copied block", tid, block);
		}
		err = add_entry(log->map, tag.block, block, tid, tag.flags & JBD2_TAG_ESCAPE);
		if (err)
			return err;
	}
	return 0;
}

/* Walk the transactions found by the scan once more: for their revokes, or for their copies. */
static int walk(struct log *log, bool revokes)
{
	uint32_t tid = log->start_tid, block = log->start, seen = 0;

	while (tid_before(tid, log->end_tid) && seen < log->last - log->first) {
		uint32_t n = 1;
		int err = read_block(log, block, log->buf);

		if (err)
			return err;
		switch (inl_load_be32(log->buf + 4)) {
		case JBD2_DESCRIPTOR:
			n += count_tags(log, log->buf);
			err = revokes ? 0 : map_descriptor(log, tid, block);
			break;
		case JBD2_COMMIT:
			tid++;
			break;
		case JBD2_REVOKE:
			err = revokes ? take_revokes(log, tid, block) : 0;
			break;
		}
		if (err)
			return err;
		seen += n;
		advance(log, &block, n);
	}
	return 0;
}

/*
 * A fast commit that belongs to this log's end holds changes that only its own replay would show. Linux writes the
 * first one not at the start of the area, but one block behind.
 */
static int check_fast_commits(struct log *log)
{
	if (!(log->incompat & JBD2_INCOMPAT_FAST_COMMIT))
		return 0;
	for (uint32_t block = log->last; block <= log->last + 1; block++) {
		int err = block < log->max_len ? read_block(log, block, log->buf) : 0;

		if (err)
			return err;
		if (block >= log->max_len || inl_load_le16(log->buf) != FC_TAG_HEAD ||
		    inl_load_le32(log->buf + 8) != log->end_tid)
			continue;
		log->map->damaged = true;
		if (!log->damaged_ok)
			return inl_diag_set(log->diag, -EOPNOTSUPP,
					    "the journal holds fast commits, which are not replayed here: mount the "
					    "volume once with Linux, or run e2fsck on it");
	}
	return 0;
}

/* Passes 2 and 3, from nothing. */
static int revoke_and_map(struct log *log)
{
	int err;

	log->n_revokes = log->map->n = 0;
	err = walk(log, true);
	settle_revokes(log);
	return err ? err : walk(log, false);
}

static int replay(struct log *log)
{
	int err = scan_pass(log);

	if (err)
		return err;
	err = revoke_and_map(log);
	/*
	 * Nothing of a damaged transaction counts, nor of those behind. Earlier damage would have been found earlier.
	 */
	for (int pass = 0; pass < 2 && err == -EUCLEAN && log->damaged_ok; pass++) {
		log->end_tid = log->bad_tid;
		log->map->damaged = true;
		err = revoke_and_map(log);
	}
	if (err)
		return err;
	settle(log->map);
	log->map->n_transactions = log->end_tid - log->start_tid;
	log->map->end_tid = log->end_tid;
	return check_fast_commits(log);
}

int inl_journal_scan(const struct inl_journal_source *source, bool damaged_ok, struct inl_journal_map *map, bool *clean,
		     struct inl_diag *diag)
{
	struct log log = { .source = source, .diag = diag, .damaged_ok = damaged_ok, .map = map };
	int err = -ENOMEM;

	memset(map, 0, sizeof(*map));
	*clean = true;
	log.buf = malloc(source->block_size);
	log.data = malloc(source->block_size);
	if (log.buf && log.data)
		err = parse_super(&log, clean);
	if (!err && !*clean)
		err = replay(&log);
	free(log.buf);
	free(log.data);
	free(log.revokes);
	if (err)
		inl_journal_map_done(map);
	return err;
}

void inl_journal_map_done(struct inl_journal_map *map)
{
	free(map->entries);
	memset(map, 0, sizeof(*map));
}
