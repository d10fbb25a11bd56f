/*
 * ext4/data.c: reading file data: through the block map to bios, keyed for encrypted files.
 * Not here: the map (map.c), the crypt contexts (fscrypt/), decryption (block/).
 * Read more: ARCHITECTURE.md, "The life of a read". The only place that reads contents; encrypted contents are read by
 * keyed bios alone.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INLINE_MAX 65536u

static int io_error(const struct inl_inode *inode, int err, uint64_t lblk, struct inl_diag *diag)
{
	if (err == -ENXIO)
		return inl_diag_set(diag, -EIO, "block %llu of inode %u lies beyond the end of the device",
				    (unsigned long long)lblk, inode->ino);
	return inl_diag_set(diag, err, "cannot read block %llu of inode %u", (unsigned long long)lblk, inode->ino);
}

struct map_arg {
	struct inl_inode *inode;
	uint64_t lblk;
	struct inl_run *run;
	struct inl_diag *diag;
};

static int map_in_op(struct inl_handle *op, void *arg)
{
	struct map_arg *map = arg;

	return inl_map(map->inode, map->lblk, map->run, map->diag);
}

int inl_map_look(struct inl_inode *inode, uint64_t lblk, struct inl_run *run, struct inl_diag *diag)
{
	struct map_arg map = { inode, lblk, run, diag };
	bool known;

	pthread_mutex_lock(&inode->lock);
	known = lblk >= inode->run.lblk && lblk - inode->run.lblk < inode->run.len;
	if (known)
		*run = inode->run;
	pthread_mutex_unlock(&inode->lock);
	return known ? 0 : inl_op_look(inode->vol, map_in_op, &map);
}

/* Read *n whole blocks that follow each other on the device; fewer if the journal or the crypt context says so. */
static int read_blocks(struct inl_inode *inode, uint64_t lblk, uint64_t pblk, uint64_t *n, void *buf,
		       struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	struct inl_crypt_ctx ctx;
	uint64_t place;
	int err;

	if (!inl_data_place(vol, pblk, n, &place)) {
		/* The journal changed the first bytes of this copy: only plain data can be mended. */
		if (inode->crypt)
			return inl_diag_set(diag, -EUCLEAN, "block %llu of inode %u is encrypted and in the journal",
					    (unsigned long long)lblk, inode->ino);
		return inl_meta_read(vol, pblk << vol->block_bits, buf, vol->block_size);
	}
	if (inode->crypt) {
		err = inl_crypt_info_ctx(inode->crypt, lblk, n, &ctx, diag);
		if (err)
			return err;
		err = inl_dev_read_keyed(vol->dev, place << vol->block_bits, buf, *n << vol->block_bits, &ctx);
		inl_crypt_info_ctx_put(inode->crypt);
	} else if ((vol->block_size % inl_dev_block_size(vol->dev)) == 0) {
		err = inl_dev_read(vol->dev, place << vol->block_bits, buf, *n << vol->block_bits);
	} else {
		err = inl_dev_read_bytes(vol->dev, place << vol->block_bits, buf, *n << vol->block_bits);
	}
	return err ? io_error(inode, err, lblk, diag) : 0;
}

/* Part of one block, by way of a buffer that is wiped: it may have held plaintext that was not asked for. */
static int read_part(struct inl_inode *inode, uint64_t lblk, uint64_t pblk, size_t skip, size_t len, void *buf,
		     struct inl_diag *diag)
{
	uint32_t block_size = inode->vol->block_size;
	uint8_t *block = inl_new_blocks(block_size, 1);
	uint64_t n = 1;
	int err;

	if (!block)
		return -ENOMEM;
	err = read_blocks(inode, lblk, pblk, &n, block, diag);
	if (!err)
		memcpy(buf, block + skip, len);
	if (inode->crypt)
		inl_wipe(block, block_size);
	free(block);
	return err;
}

/*
 * Read one piece: at most len bytes of one run. room is how much of buf may be overwritten, so that a last block can be
 * read whole. *done: bytes.
 */
static int read_piece(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, size_t room, size_t *done,
		      struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	uint64_t lblk = offset >> vol->block_bits, n, pblk;
	size_t skip = offset & (vol->block_size - 1);
	struct inl_run run;
	int err = inl_map_look(inode, lblk, &run, diag);

	if (err)
		return err;
	*done = INL_MIN(len, ((run.lblk + run.len) << vol->block_bits) - offset);
	if (run.kind != INL_EXTENT_DATA) {
		memset(buf, 0, *done);
		return 0;
	}
	pblk = run.pblk + (lblk - run.lblk);
	n = (*done + vol->block_size - 1) >> vol->block_bits;
	if (skip || n << vol->block_bits > room)
		n = skip ? 0 : *done >> vol->block_bits;
	if (!n) {
		*done = INL_MIN(*done, vol->block_size - skip);
		return read_part(inode, lblk, pblk, skip, *done, buf, diag);
	}
	err = read_blocks(inode, lblk, pblk, &n, buf, diag);
	*done = INL_MIN(*done, n << vol->block_bits);
	return err;
}

int inl_inline_read(struct inl_inode *inode, uint8_t *buf, size_t size, size_t *len, struct inl_diag *diag)
{
	size_t rest = 0;
	int err;

	if (!inl_is_inline(inode))
		return -ENODATA;
	if (size < sizeof(inode->raw.i_block))
		return -ERANGE;
	memcpy(buf, inode->raw.i_block, sizeof(inode->raw.i_block));
	err = inl_raw_xattr_get(inode, 7, "data", buf + sizeof(inode->raw.i_block), size - sizeof(inode->raw.i_block),
				&rest, diag);
	if (err && err != -ENODATA)
		return err;
	*len = sizeof(inode->raw.i_block) + (err ? 0 : rest);
	return 0;
}

static int read_inline(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, struct inl_diag *diag)
{
	uint8_t *all = malloc(INLINE_MAX);
	size_t have;
	int err;

	if (!all)
		return -ENOMEM;
	err = inl_inline_read(inode, all, INLINE_MAX, &have, diag);
	if (!err) {
		size_t n = offset < have ? INL_MIN(len, have - offset) : 0;

		/* What the size promises beyond what is stored is a hole. */
		memcpy(buf, all + offset, n);
		memset((uint8_t *)buf + n, 0, len - n);
	}
	free(all);
	return err;
}

int inl_data_read(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, size_t *got, struct inl_diag *diag)
{
	uint64_t size = inode->size;
	uint8_t *to = buf;
	size_t want, at = 0;
	int err = 0;

	want = offset >= size ? 0 : INL_MIN(len, size - offset);
	if (want && inl_is_inline(inode)) {
		err = read_inline(inode, offset, buf, want, diag);
		at = want;
	}
	while (at < want && !err) {
		size_t done = 0;

		err = read_piece(inode, offset + at, to + at, want - at, len - at, &done, diag);
		at += done;
	}
	if (!err)
		*got = want;
	return err;
}

int inl_read(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, size_t *got, struct inl_diag *diag)
{
	int err;

	if (S_ISDIR(inode->type))
		return inl_diag_set(diag, -EISDIR, "is a directory");
	if (!S_ISREG(inode->type))
		return inl_diag_set(diag, -EINVAL, "is not a regular file");
	err = inl_inode_unlock(inode, diag);
	if (err)
		return err;
	if (inode->encrypted && inl_is_inline(inode))
		return inl_diag_set(diag, -EUCLEAN, "inode %u is damaged: encrypted and inline", inode->ino);
	inl_data_lock_shared(inode);
	err = inl_data_read(inode, offset, buf, len, got, diag);
	inl_data_unlock(inode);
	return err;
}

int inl_inode_extent(struct inl_inode *inode, uint64_t offset, struct inl_extent *extent, struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	uint64_t len;
	struct inl_run run;
	int err;

	if (!S_ISREG(inode->type) && !S_ISDIR(inode->type) && !S_ISLNK(inode->type))
		return inl_diag_set(diag, -EINVAL, "has no contents");
	if (offset >= inode->size)
		return -ENXIO;
	len = inode->size - offset;
	if (inl_is_inline(inode) || inl_is_fast_symlink(inode)) {
		*extent = (struct inl_extent){ .kind = INL_EXTENT_INLINE, .offset = offset, .len = len };
		return 0;
	}
	err = inl_map_look(inode, offset >> vol->block_bits, &run, diag);
	if (err)
		return err;
	len = INL_MIN(len, ((run.lblk + run.len) << vol->block_bits) - offset);
	*extent = (struct inl_extent){ .kind = run.kind, .offset = offset, .len = len };
	if (run.kind != INL_EXTENT_HOLE)
		extent->phys = (run.pblk << vol->block_bits) + (offset - (run.lblk << vol->block_bits));
	return 0;
}
