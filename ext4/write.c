/*
 * ext4/write.c: writing file data, and what changes the size and the map of a file.
 * Not here: the map itself (extent.c, indirect.c), allocation (alloc.c).
 * Read more: inlay/volume.h; ARCHITECTURE.md, "The life of a write".
 *
 * Contents of an encrypted file cross to the device in keyed bios alone, whole blocks at a time; a part of a block is
 * decrypted, changed and encrypted again.
 *
 * Data goes to blocks before they are part of the file: blocks are reserved, written, and only then one operation maps
 * them and moves i_size. So a crash, or a commit at any moment, can expose nothing that was not written.
 *
 * Locks: inode->rw exclusively for what extends the file or takes blocks away, else shared; then a range of blocks, so
 * that two writes to parts of one block do not meet. Both are held while the device works; vol->lock never.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SHRINK_CREDITS 64u
#define ORPHAN_CREDITS 4u	 /* of inl_orphan_remove */
#define PIECE_BYTES   (4u << 20) /* of one run of blocks that is written at once */
#define FORBIDS	      (EXT4_FL_IMMUTABLE | EXT4_FL_APPEND)

/* ---- locks ------------------------------------------------------------------------------------------------------- */

struct inl_range {
	uint64_t first, last; /* blocks */
	struct inl_range *next;
};

void inl_data_lock_shared(struct inl_inode *inode)
{
	if (inode->vol->txn)
		pthread_rwlock_rdlock(&inode->rw);
}

void inl_data_lock_exclusive(struct inl_inode *inode)
{
	if (inode->vol->txn)
		pthread_rwlock_wrlock(&inode->rw);
}

void inl_data_unlock(struct inl_inode *inode)
{
	if (inode->vol->txn)
		pthread_rwlock_unlock(&inode->rw);
}

static bool range_taken(const struct inl_inode *inode, const struct inl_range *range)
{
	for (const struct inl_range *r = inode->ranges; r; r = r->next) {
		if (r->first <= range->last && range->first <= r->last)
			return true;
	}
	return false;
}

static void range_lock(struct inl_inode *inode, struct inl_range *range)
{
	pthread_mutex_lock(&inode->ranges_lock);
	while (range_taken(inode, range))
		pthread_cond_wait(&inode->ranges_free, &inode->ranges_lock);
	range->next = inode->ranges;
	inode->ranges = range;
	pthread_mutex_unlock(&inode->ranges_lock);
}

static void range_unlock(struct inl_inode *inode, struct inl_range *range)
{
	struct inl_range **at;

	pthread_mutex_lock(&inode->ranges_lock);
	for (at = &inode->ranges; *at != range; at = &(*at)->next)
		;
	*at = range->next;
	pthread_cond_broadcast(&inode->ranges_free);
	pthread_mutex_unlock(&inode->ranges_lock);
}

/* ---- may it be written? ------------------------------------------------------------------------------------------ */

int inl_data_may_write(struct inl_inode *inode, uint32_t flags, struct inl_diag *diag)
{
	int err;

	if (S_ISDIR(inode->type))
		return inl_diag_set(diag, -EISDIR, "is a directory");
	if (!S_ISREG(inode->type))
		return inl_diag_set(diag, -EINVAL, "is not a regular file");
	if (!inode->vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	err = inl_check_flags(inode, flags, diag);
	if (!err)
		err = inl_inode_unlock(inode, diag);
	if (err)
		return err;
	if (inl_is_inline(inode))
		return inl_diag_set(diag, -EOPNOTSUPP, "files kept in their inodes are not written");
	if (inode->lasting & EXT4_FL_VERITY)
		return inl_diag_set(diag, -EPERM, "is protected by fs-verity");
	if (inl_orphan_is_aside(inode))
		return inl_diag_set(diag, -EIO, "could not be shortened: the next open tries again");
	return 0;
}

/* Bytes that any file can have. i_blocks counts 512 bytes in 32 bits, where huge_file does not say more. */
static uint64_t volume_max_size(const struct inl_volume *vol)
{
	uint64_t max = EXT4_LBLK_NONE;

	if (!ext2fs_has_feature_huge_file(vol->fs->super))
		max = UINT32_MAX >> (vol->block_bits - 9);
	return max << vol->block_bits;
}

static int too_large(uint64_t max, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EFBIG, "a file of this volume has at most %llu bytes", (unsigned long long)max);
}

/* Bytes that this file can have. */
static uint64_t max_size(const struct inl_inode *inode)
{
	uint64_t mapped = inl_map_max(inode) << inode->vol->block_bits, max = volume_max_size(inode->vol);

	return INL_MIN(mapped, max);
}

/* ---- a part of a block ------------------------------------------------------------------------------------------- */

static int write_failed(const struct inl_inode *inode, int err, struct inl_diag *diag)
{
	return inl_diag_set(diag, err, "the data of inode %u cannot be written", inode->ino);
}

/* One block, by way of memory. ctx: NULL for a plain file. */
static int block_io(struct inl_volume *vol, enum inl_op op, uint64_t pblk, uint8_t *buf, const struct inl_crypt_ctx *ctx)
{
	struct iovec iov = { buf, vol->block_size };
	struct inl_bio bio;

	if (ctx)
		inl_bio_init_keyed(&bio, op, pblk << vol->block_bits, &iov, 1, ctx);
	else
		inl_bio_init_plain(&bio, op, pblk << vol->block_bits, &iov, 1);
	return inl_submit_wait(vol->dev, &bio);
}

/* The key of an encrypted file from a block on, until put_ctx: *n blocks at most. *ctx NULL: a plain file. */
static int get_ctx(struct inl_inode *inode, uint64_t lblk, uint64_t *n, struct inl_crypt_ctx *room,
		   const struct inl_crypt_ctx **ctx, struct inl_diag *diag)
{
	int err;

	*ctx = NULL;
	if (!inode->encrypted)
		return 0;
	err = inode->crypt ? inl_crypt_info_ctx(inode->crypt, lblk, n, room, diag) : -ENOKEY;
	if (!err)
		*ctx = room;
	return err;
}

static void put_ctx(struct inl_inode *inode, const struct inl_crypt_ctx *ctx)
{
	if (ctx)
		inl_crypt_info_ctx_put(inode->crypt);
}

/* Memory that plaintext of an encrypted file was in. */
static void free_blocks(const struct inl_inode *inode, uint8_t *buf, unsigned n)
{
	if (buf && inode->encrypted)
		inl_wipe(buf, (size_t)inode->vol->block_size * n);
	free(buf);
}

static int zero_block(struct inl_inode *inode, uint64_t pblk, const struct inl_crypt_ctx *ctx, uint32_t from, uint32_t to,
		      bool only_see)
{
	struct inl_volume *vol = inode->vol;
	uint8_t *buf = inl_new_blocks(vol->block_size, 1);
	int err;

	if (!buf)
		return -ENOMEM;
	err = block_io(vol, INL_READ, pblk, buf, ctx);
	if (!err && !only_see && (buf[from] || memcmp(buf + from, buf + from + 1, to - from - 1))) {
		memset(buf + from, 0, to - from);
		err = block_io(vol, INL_WRITE, pblk, buf, ctx);
	}
	free_blocks(inode, buf, 1);
	return err;
}

/* Zero [from, to) of one block on the medium, where it is data; or only see whether it could be read. */
static int zero_part(struct inl_inode *inode, uint64_t lblk, uint32_t from, uint32_t to, bool only_see,
		     struct inl_diag *diag)
{
	const struct inl_crypt_ctx *ctx;
	struct inl_crypt_ctx room;
	struct inl_run run;
	uint64_t n = 1;
	int err = inl_map_look(inode, lblk, &run, diag);

	if (err || from >= to || run.kind != INL_EXTENT_DATA)
		return err;
	err = get_ctx(inode, lblk, &n, &room, &ctx, diag);
	if (err)
		return err;
	err = zero_block(inode, run.pblk + (lblk - run.lblk), ctx, from, to, only_see);
	put_ctx(inode, ctx);
	return err ? write_failed(inode, err, diag) : 0;
}

static int zero_tail(struct inl_inode *inode, uint64_t size, bool only_see, struct inl_diag *diag)
{
	uint32_t block_size = inode->vol->block_size, from = (uint32_t)(size & (block_size - 1));

	return from ? zero_part(inode, size >> inode->vol->block_bits, from, block_size, only_see, diag) : 0;
}

int inl_data_zero_tail(struct inl_inode *inode, uint64_t size, struct inl_diag *diag)
{
	return zero_tail(inode, size, false, diag);
}

/* ---- write ------------------------------------------------------------------------------------------------------- */

/* One run of blocks that is being written: of one kind, and in one place. */
struct piece {
	struct inl_inode *inode;
	bool back; /* from a page cache: times are its business */
	struct inl_diag *diag;
	uint64_t offset;	/* bytes of the file */
	const uint8_t *buf;
	size_t len;		/* bytes; may be cut by find_place */
	uint64_t lblk, n;	/* the blocks that it touches */
	const struct inl_crypt_ctx *ctx; /* of lblk; NULL: a plain file */
	enum inl_extent_kind kind;
	uint64_t pblk;		/* of lblk; reserved if kind is HOLE */
};

static uint64_t blocks_of(const struct inl_volume *vol, uint64_t offset, size_t len)
{
	return ((offset + len - 1) >> vol->block_bits) - (offset >> vol->block_bits) + 1;
}

static void cut(struct piece *piece, uint64_t n)
{
	struct inl_volume *vol = piece->inode->vol;

	if (n >= piece->n)
		return;
	piece->n = n;
	piece->len = (size_t)(((piece->lblk + n) << vol->block_bits) - piece->offset);
}

/* Where the piece goes: what is mapped there, or blocks reserved for it. */
static int find_place(struct inl_handle *op, void *arg)
{
	struct piece *piece = arg;
	struct inl_run run;
	uint64_t got, left;
	int err = inl_map(piece->inode, piece->lblk, &run, piece->diag);

	if (err)
		return err;
	left = run.lblk + run.len - piece->lblk;
	piece->kind = run.kind;
	if (run.kind != INL_EXTENT_HOLE) {
		piece->pblk = run.pblk + (piece->lblk - run.lblk);
		cut(piece, left);
		return 0;
	}
	left = INL_MIN(left, inl_map_insert_max(piece->inode));
	err = inl_blocks_reserve(op, inl_inode_goal(op, piece->inode, piece->lblk), INL_MIN(piece->n, left), &piece->pblk,
				 &got);
	if (!err)
		cut(piece, got);
	return err;
}

/* What is there already, of block i of the piece. */
static int read_block(const struct piece *piece, uint64_t i, uint8_t *block)
{
	struct inl_volume *vol = piece->inode->vol;
	struct inl_crypt_ctx ctx;

	if (!piece->ctx)
		return block_io(vol, INL_READ, piece->pblk + i, block, NULL);
	ctx = *piece->ctx;
	inl_dun_add(ctx.dun, i * (vol->block_size / inl_crypt_info_unit_size(piece->inode->crypt)));
	return block_io(vol, INL_READ, piece->pblk + i, block, &ctx);
}

/* A whole block of which the piece has only a part: the rest is what is there, or zeros. */
static int fill_block(const struct piece *piece, uint64_t i, uint8_t *block)
{
	struct inl_volume *vol = piece->inode->vol;
	uint64_t start = (piece->lblk + i) << vol->block_bits, size = piece->inode->size;
	uint64_t from = piece->offset > start ? piece->offset - start : 0;
	uint64_t to = INL_MIN(piece->offset + piece->len - start, vol->block_size);
	int err = 0;

	if (piece->kind == INL_EXTENT_DATA && start < size) {
		err = read_block(piece, i, block);
		/* Behind the end a crash may have left anything. */
		if (size - start < vol->block_size)
			memset(block + (size - start), 0, vol->block_size - (size - start));
	} else {
		memset(block, 0, vol->block_size);
	}
	memcpy(block + from, piece->buf + (start + from - piece->offset), to - from);
	return err;
}

/* The data of a piece, to whole blocks: at most the first and the last are made here. edges: two blocks. */
static int write_data(const struct piece *piece, uint8_t *edges)
{
	struct inl_volume *vol = piece->inode->vol;
	uint32_t block_size = vol->block_size, head = piece->offset & (block_size - 1);
	bool tail = (piece->offset + piece->len) & (block_size - 1);
	uint64_t first = head || (tail && piece->n == 1) ? 1 : 0, last = piece->n - (tail && piece->n > first);
	struct iovec iov[3];
	struct inl_bio bio;
	unsigned n = 0;
	int err = 0;

	if (first) {
		err = fill_block(piece, 0, edges);
		iov[n++] = (struct iovec){ edges, block_size };
	}
	if (last > first) {
		const uint8_t *from = piece->buf + (((piece->lblk + first) << vol->block_bits) - piece->offset);

		iov[n++] = (struct iovec){ (void *)from, (last - first) << vol->block_bits };
	}
	if (!err && last < piece->n) {
		err = fill_block(piece, last, edges + block_size);
		iov[n++] = (struct iovec){ edges + block_size, block_size };
	}
	if (err)
		return err;
	if (piece->ctx)
		inl_bio_init_keyed(&bio, INL_WRITE, piece->pblk << vol->block_bits, iov, n, piece->ctx);
	else
		inl_bio_init_plain(&bio, INL_WRITE, piece->pblk << vol->block_bits, iov, n);
	return inl_submit_wait(vol->dev, &bio);
}

/* How many blocks of memory write_data needs for blocks of which the piece has only a part. */
static unsigned n_edges(const struct piece *piece)
{
	if (!((piece->offset | piece->len) & (piece->inode->vol->block_size - 1)))
		return 0;
	return piece->n == 1 ? 1 : 2;
}

/* A size, and what the superblock must say of it: as Linux, the first file of 2 GiB sets large_file. */
static int move_size(struct inl_handle *op, struct inl_inode *inode, uint64_t size)
{
	inl_inode_set_size(inode, size);
	if (size <= INT32_MAX || ext2fs_has_feature_large_file(inode->vol->fs->super))
		return 0;
	return inl_super_set_feature(op, EXT4_SB_RO_COMPAT, EXT4_RO_COMPAT_LARGE_FILE);
}

/* The data has landed: the blocks become the file's, and its size and times follow. */
static int attach(struct inl_handle *op, void *arg)
{
	struct piece *piece = arg;
	struct inl_inode *inode = piece->inode;
	int err = inl_inode_modify(op, inode);

	if (!err && piece->kind == INL_EXTENT_HOLE) {
		err = inl_blocks_take(op, piece->pblk, piece->n);
		if (!err)
			err = inl_map_insert(op, inode, piece->lblk, piece->n, piece->pblk, false);
	} else if (!err && piece->kind == INL_EXTENT_UNWRITTEN) {
		err = inl_map_convert(op, inode, piece->lblk, piece->n, false);
	}
	if (err)
		return err;
	if (piece->offset + piece->len > inode->size)
		err = move_size(op, inode, piece->offset + piece->len);
	/* Whoever keeps a cache knows when it was written to. */
	if (!piece->back)
		inl_inode_set_times(inode, INL_TIME_M | INL_TIME_C, inl_now(inl_op_vol(op)));
	return err;
}

/* Does the inode remain as it is? The size can only grow meanwhile. */
static bool is_overwrite(const struct piece *piece)
{
	return piece->back && piece->kind == INL_EXTENT_DATA && piece->offset + piece->len <= piece->inode->size;
}

static unsigned attach_credits(const struct piece *piece)
{
	/* The inode, the superblock; the map; bitmaps and descriptors of the groups that the blocks lie in. */
	return 2 + inl_map_credits(piece->inode) + 4;
}

static int write_keyed(struct piece *piece)
{
	struct inl_volume *vol = piece->inode->vol;
	uint8_t *edges = NULL;
	unsigned n;
	int err;

	err = inl_op_run(vol, 0, find_place, piece, piece->diag);
	if (err)
		return err;
	n = n_edges(piece);
	if (n) {
		edges = inl_new_blocks(vol->block_size, n);
		err = edges ? 0 : -ENOMEM;
	}
	if (!err)
		err = write_data(piece, edges);
	free_blocks(piece->inode, edges, n);
	if (err)
		write_failed(piece->inode, err, piece->diag);
	else if (!is_overwrite(piece))
		err = inl_op_run(vol, attach_credits(piece), attach, piece, piece->diag);
	if (err && piece->kind == INL_EXTENT_HOLE)
		inl_blocks_unreserve(vol, piece->pblk, piece->n);
	return err;
}

/* The key first: without it nothing is reserved. */
static int write_piece(struct piece *piece)
{
	struct inl_volume *vol = piece->inode->vol;
	struct inl_crypt_ctx room;
	uint64_t n;
	int err;

	piece->lblk = piece->offset >> vol->block_bits;
	piece->n = blocks_of(vol, piece->offset, piece->len);
	cut(piece, PIECE_BYTES >> vol->block_bits);
	n = piece->n;
	err = get_ctx(piece->inode, piece->lblk, &n, &room, &piece->ctx, piece->diag);
	if (err)
		return err;
	cut(piece, n);
	err = write_keyed(piece);
	put_ctx(piece->inode, piece->ctx);
	return err;
}

static int write_all(struct inl_inode *inode, uint64_t offset, const uint8_t *buf, size_t len, bool back, size_t *done,
		     struct inl_diag *diag)
{
	int err = 0;

	/* Between the old end and the new data lies a hole: of zeros, also in the block where the old end was. */
	if (offset > inode->size)
		err = inl_data_zero_tail(inode, inode->size, diag);
	*done = 0;
	while (!err && *done < len) {
		struct piece piece = { .inode = inode, .diag = diag, .back = back, .offset = offset + *done, .buf = buf + *done,
				       .len = len - *done };

		err = write_piece(&piece);
		if (!err)
			*done += piece.len;
	}
	return *done ? 0 : err;
}

/* An append-only file may be written at its end. */
static uint32_t write_forbids(const struct inl_inode *inode, uint64_t offset, bool back)
{
	return back || offset == inode->size ? EXT4_FL_IMMUTABLE : FORBIDS;
}

static int write_data_of(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, bool back, size_t *done,
			 struct inl_diag *diag)
{
	struct inl_range range;
	uint64_t max;
	int err = inl_data_may_write(inode, write_forbids(inode, offset, back), diag);

	if (err)
		return err;
	*done = 0;
	if (!len)
		return 0;
	max = max_size(inode);
	if (offset >= max)
		return too_large(max, diag);
	len = INL_MIN(len, max - offset);
	range = (struct inl_range){ offset >> inode->vol->block_bits, (offset + len - 1) >> inode->vol->block_bits, NULL };
	inl_data_lock_shared(inode);
	if (offset + len > inode->size) {
		inl_data_unlock(inode);
		inl_data_lock_exclusive(inode);
	}
	err = inl_check_flags(inode, write_forbids(inode, offset, back), diag); /* the end, and the flags, may be others since */
	if (!err) {
		range_lock(inode, &range);
		err = write_all(inode, offset, buf, len, back, done, diag);
		range_unlock(inode, &range);
	}
	inl_data_unlock(inode);
	return err;
}

int inl_write(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, size_t *done, struct inl_diag *diag)
{
	return write_data_of(inode, offset, buf, len, false, done, diag);
}

#define COMPARED 65536u /* bytes at a time */

/* Does this say again what an append-only file has already, as far as it has? A cache writes whole pages. */
static int check_appended(struct inl_inode *inode, uint64_t offset, const uint8_t *buf, size_t len, struct inl_diag *diag)
{
	uint8_t *bytes = malloc(COMPARED);
	int err = bytes ? 0 : -ENOMEM;

	for (size_t at = 0, got = 1; !err && at < len && got; at += got) {
		err = inl_read(inode, offset + at, bytes, INL_MIN(len - at, COMPARED), &got, diag);
		if (!err && memcmp(bytes, buf + at, got))
			err = inl_check_flags(inode, EXT4_FL_APPEND, diag);
	}
	if (bytes)
		inl_wipe(bytes, COMPARED);
	free(bytes);
	return err;
}

int inl_write_back(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, size_t *done,
		   struct inl_diag *diag)
{
	int err = inode->lasting & EXT4_FL_APPEND ? check_appended(inode, offset, buf, len, diag) : 0;

	if (err)
		return err;
	return write_data_of(inode, offset, buf, len, true, done, diag);
}

/* ---- truncate ---------------------------------------------------------------------------------------------------- */

struct resize {
	struct inl_inode *inode;
	uint64_t size;
	bool shrink;
	bool unfinished; /* blocks, or a tail that must become zeros, are left: it is on the orphan list */
};

/*
 * What can be done at once is: only the rest needs the orphan list, of which e2fsck 1.47 takes more than blocks away
 * (the block of attributes too).
 */
static int shrink_map(struct inl_handle *op, struct resize *resize)
{
	struct inl_inode *inode = resize->inode;
	uint64_t mask = inode->vol->block_size - 1, first = (resize->size + mask) >> inode->vol->block_bits, left;
	struct inl_run run = { .kind = INL_EXTENT_HOLE };
	int err = inl_orphan_add(op, inode);

	if (!err && (resize->size & mask))
		err = inl_map(inode, first - 1, &run, NULL);
	if (!err)
		err = inl_map_remove(op, inode, first, inl_map_max(inode), false, &left);
	if (err)
		return err;
	resize->unfinished = left > first || run.kind == INL_EXTENT_DATA || inl_op_credits_left(op) < ORPHAN_CREDITS;
	/* One without a name stays on the list for that. */
	return resize->unfinished || !inode->raw.i_links_count ? 0 : inl_orphan_remove(op, inode);
}

static int set_size(struct inl_handle *op, void *arg)
{
	struct resize *resize = arg;
	int err = inl_inode_modify(op, resize->inode);

	if (err)
		return err;
	err = move_size(op, resize->inode, resize->size);
	inl_inode_set_times(resize->inode, INL_TIME_M | INL_TIME_C, inl_now(inl_op_vol(op)));
	return !err && resize->shrink ? shrink_map(op, resize) : err;
}

static unsigned resize_credits(const struct resize *resize)
{
	const struct inl_volume *vol = resize->inode->vol;

	return resize->shrink ? INL_MIN(SHRINK_CREDITS, inl_op_credits_max(vol)) : 2;
}

static int truncate_locked(struct inl_inode *inode, uint64_t size, struct inl_diag *diag)
{
	struct resize resize = { .inode = inode, .size = size, .shrink = size < inode->size };
	int err = 0, later;

	if (size > inode->size)
		err = inl_data_zero_tail(inode, inode->size, diag);
	else if (resize.shrink)
		err = zero_tail(inode, size, true, diag);
	if (!err)
		err = inl_op_run(inode->vol, resize_credits(&resize), set_size, &resize, diag);
	if (err || !resize.unfinished)
		return err;
	/*
	 * It is on the orphan list: should a crash come now, the next open does what follows; and it must not stay
	 * there.
	 */
	err = inl_data_zero_tail(inode, size, diag);
	later = inl_inode_shorten(inode, size, diag);
	return err ? err : later;
}

/* As Linux, which says before it asks for the key that no file can be so long, and after it that this one cannot. */
static int check_truncate(struct inl_inode *inode, uint64_t size, struct inl_diag *diag)
{
	uint64_t max = volume_max_size(inode->vol);
	int err;

	if (size > max && S_ISREG(inode->type) && !inl_inode_may_change(inode, NULL))
		return too_large(max, diag);
	err = inl_data_may_write(inode, FORBIDS, diag);
	return err || size <= max_size(inode) ? err : too_large(max_size(inode), diag);
}

/* What takes several steps with the key must not lose it between them. */
static int hold_on(struct inl_inode *inode, struct inl_diag *diag)
{
	return inode->crypt ? inl_crypt_info_hold_on(inode->crypt, diag) : 0;
}

static void let_go(struct inl_inode *inode)
{
	if (inode->crypt)
		inl_crypt_info_release(inode->crypt);
}

int inl_truncate(struct inl_inode *inode, uint64_t size, struct inl_diag *diag)
{
	int err = check_truncate(inode, size, diag);

	if (!err)
		err = hold_on(inode, diag);
	if (err)
		return err;
	inl_data_lock_exclusive(inode);
	err = inl_check_flags(inode, FORBIDS, diag);
	if (!err)
		err = truncate_locked(inode, size, diag);
	inl_data_unlock(inode);
	let_go(inode);
	return err;
}

/* ---- fallocate --------------------------------------------------------------------------------------------------- */

struct change {
	struct inl_inode *inode;
	struct inl_diag *diag;
	uint64_t at, end; /* blocks: what is still to do; not changed by a step, which may be done again */
	uint64_t next_at, next_end; /* after the step, if it stands */
	uint64_t size;	  /* when it is done; 0: as it is */
};

/* One hole of the range gets unwritten blocks; what is mapped stays. */
static int allocate_step(struct inl_handle *op, void *arg)
{
	struct change *change = arg;
	struct inl_inode *inode = change->inode;
	uint64_t n, pblk, got, at = change->at;
	struct inl_run run;
	int err = inl_map(inode, at, &run, change->diag);

	if (err)
		return err;
	n = INL_MIN(change->end, run.lblk + run.len) - at;
	if (run.kind != INL_EXTENT_HOLE) {
		change->next_at = at + n;
		return 0;
	}
	n = INL_MIN(n, INL_MIN(32767u, PIECE_BYTES >> 2));
	err = inl_blocks_reserve(op, inl_inode_goal(op, inode, at), n, &pblk, &got);
	if (!err)
		err = inl_blocks_take(op, pblk, got);
	if (!err)
		err = inl_inode_modify(op, inode);
	if (!err)
		err = inl_map_insert(op, inode, at, got, pblk, true);
	if (!err)
		change->next_at = at + got;
	return err;
}

/* One run of written blocks of the range becomes unwritten; holes and unwritten ones stay. */
static int unwrite_step(struct inl_handle *op, void *arg)
{
	struct change *change = arg;
	struct inl_run run;
	uint64_t n;
	int err = inl_map(change->inode, change->at, &run, change->diag);

	if (err)
		return err;
	n = INL_MIN(change->end, run.lblk + run.len) - change->at;
	if (run.kind == INL_EXTENT_DATA) {
		err = inl_inode_modify(op, change->inode);
		if (!err)
			err = inl_map_convert(op, change->inode, change->at, n, true);
	}
	if (!err)
		change->next_at = change->at + n;
	return err;
}

static int remove_step(struct inl_handle *op, void *arg)
{
	struct change *change = arg;
	uint64_t left;
	int err = inl_inode_modify(op, change->inode);

	if (!err)
		err = inl_map_remove(op, change->inode, change->at, change->end, false, &left);
	if (!err)
		change->next_end = left;
	return err;
}

static int finish_change(struct inl_handle *op, void *arg)
{
	struct change *change = arg;
	int err = inl_inode_modify(op, change->inode);

	if (err)
		return err;
	if (change->size > change->inode->size)
		err = move_size(op, change->inode, change->size);
	inl_inode_set_times(change->inode, INL_TIME_M | INL_TIME_C, inl_now(inl_op_vol(op)));
	return err;
}

static int run_steps(struct change *change, uint64_t first, uint64_t end, unsigned credits, inl_op_fn *step)
{
	int err = 0;

	change->at = first;
	change->end = end;
	while (change->at < change->end) {
		change->next_at = change->at;
		change->next_end = change->end;
		err = inl_op_run(change->inode->vol, credits, step, change, change->diag);
		if (err)
			break;
		change->at = change->next_at;
		change->end = change->next_end;
	}
	return err;
}

static unsigned step_credits(const struct inl_inode *inode)
{
	unsigned credits = 1 + inl_map_credits(inode) + 6;

	return INL_MIN(credits, inl_op_credits_max(inode->vol));
}

/* Zero the parts of blocks at both ends of [offset, end). *first, *last: the whole blocks between. */
static int zero_edges(struct inl_inode *inode, uint64_t offset, uint64_t end, uint64_t *first, uint64_t *last,
		      struct inl_diag *diag)
{
	uint32_t bits = inode->vol->block_bits, mask = inode->vol->block_size - 1;
	int err = 0;

	*first = (offset + mask) >> bits;
	*last = end >> bits;
	if (*first > *last) /* within one block */
		return zero_part(inode, offset >> bits, (uint32_t)(offset & mask), (uint32_t)(end & mask), false, diag);
	if (offset & mask)
		err = zero_part(inode, offset >> bits, (uint32_t)(offset & mask), mask + 1, false, diag);
	if (!err && (end & mask))
		err = zero_part(inode, end >> bits, 0, (uint32_t)(end & mask), false, diag);
	return err;
}

/* As Linux: nothing behind the block that has the end of the file is touched. */
static int punch(struct change *change, uint64_t offset, uint64_t end)
{
	struct inl_inode *inode = change->inode;
	uint64_t mask = inode->vol->block_size - 1, size = inode->size, first, last;
	int err;

	if (offset >= size) /* no block, but a change all the same */
		return inl_op_run(inode->vol, 2, finish_change, change, change->diag);
	if (end > size)
		end = (size + mask) & ~mask;
	err = zero_edges(inode, offset, end, &first, &last, change->diag);
	if (!err)
		err = inl_op_run(inode->vol, 2, finish_change, change, change->diag);
	if (!err && first < last)
		err = run_steps(change, first, last, INL_MIN(64u, inl_op_credits_max(inode->vol)), remove_step);
	return err;
}

static int allocate(struct change *change, unsigned flags, uint64_t offset, uint64_t end)
{
	struct inl_inode *inode = change->inode;
	uint64_t mask = inode->vol->block_size - 1, first, last;
	unsigned bits = inode->vol->block_bits;
	int err = 0;

	if (!(inode->lasting & EXT4_FL_EXTENTS))
		return inl_diag_set(change->diag, -EOPNOTSUPP, "unwritten blocks need a file with extents");
	change->size = !(flags & INL_FALLOC_KEEP_SIZE) && end > inode->size ? end : 0;
	/* The old end: what lies behind it in its block becomes part of the file. */
	if (change->size)
		err = inl_data_zero_tail(inode, inode->size, change->diag);
	if (!err && (flags & INL_FALLOC_ZERO_RANGE)) {
		err = zero_edges(inode, offset, end, &first, &last, change->diag);
		if (!err && first < last)
			err = run_steps(change, first, last, step_credits(inode), unwrite_step);
	}
	if (!err)
		err = run_steps(change, offset >> bits, (end + mask) >> bits, step_credits(inode), allocate_step);
	return err ? err : inl_op_run(inode->vol, 2, finish_change, change, change->diag);
}

/* An append-only file may get blocks, and become longer. */
static uint32_t fallocate_forbids(unsigned flags)
{
	return flags & ~(unsigned)INL_FALLOC_KEEP_SIZE ? FORBIDS : EXT4_FL_IMMUTABLE;
}

static int check_fallocate(struct inl_inode *inode, unsigned flags, uint64_t offset, uint64_t len, struct inl_diag *diag)
{
	unsigned known = INL_FALLOC_KEEP_SIZE | INL_FALLOC_PUNCH_HOLE | INL_FALLOC_ZERO_RANGE;
	uint64_t max = volume_max_size(inode->vol); /* punching goes as far, whatever the map */
	int err = inl_data_may_write(inode, fallocate_forbids(flags), diag);

	if (err)
		return err;
	if ((flags & ~known) || ((flags & INL_FALLOC_PUNCH_HOLE) && (flags & INL_FALLOC_ZERO_RANGE)) ||
	    ((flags & INL_FALLOC_PUNCH_HOLE) && !(flags & INL_FALLOC_KEEP_SIZE)))
		return -EOPNOTSUPP;
	if (!len)
		return -EINVAL;
	return offset > max || len > max - offset ? too_large(max, diag) : 0;
}

int inl_fallocate(struct inl_inode *inode, unsigned flags, uint64_t offset, uint64_t len, struct inl_diag *diag)
{
	struct change change = { .inode = inode, .diag = diag };
	int err = check_fallocate(inode, flags, offset, len, diag);

	if (!err)
		err = hold_on(inode, diag);
	if (err)
		return err;
	inl_data_lock_exclusive(inode);
	err = inl_check_flags(inode, fallocate_forbids(flags), diag);
	if (!err && (flags & INL_FALLOC_PUNCH_HOLE))
		err = punch(&change, offset, offset + len);
	else if (!err)
		err = allocate(&change, flags, offset, offset + len);
	inl_data_unlock(inode);
	let_go(inode);
	return err;
}

/* ---- sync -------------------------------------------------------------------------------------------------------- */

int inl_sync(struct inl_volume *vol, struct inl_diag *diag)
{
	int err = inl_txn_commit(vol);

	if (err == -EROFS)
		return inl_diag_set(diag, err, "the volume is open for reading only");
	return err ? inl_diag_set(diag, err, "what was written is not durable: the device has failed") : 0;
}

int inl_fsync(struct inl_inode *inode, struct inl_diag *diag)
{
	return inl_sync(inode->vol, diag);
}
