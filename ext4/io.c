/*
 * ext4/io.c: bytes of the file system as they are after the journal's replay, for us and, as an io_manager, for
 * libext2fs.
 * Not here: what the bytes mean; file data (data.c).
 * Read more: ext2fs/ext2_io.h. Reading only: a write through the channel fails.
 */
#include "ext4/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE	  4096u /* bytes read at a time where the device's alignment asks for a detour */

int inl_dev_read_bytes(struct inl_dev *dev, uint64_t offset, void *buf, size_t len)
{
	uint32_t align = inl_dev_block_size(dev);
	uint64_t size = inl_dev_size(dev);
	uint8_t *to = buf, *piece;
	uint32_t piece_len = align > PIECE ? align : PIECE;
	int err = 0;

	if (offset > size || len > size - offset)
		return -EIO;
	if (!((offset | len) % align))
		return len ? inl_dev_read(dev, offset, buf, len) : 0;
	piece = aligned_alloc(4096, piece_len < 4096 ? 4096 : piece_len);
	if (!piece)
		return -ENOMEM;
	while (len && !err) {
		uint64_t start = offset - offset % align;
		size_t whole = INL_MIN(piece_len, size - start), skip = offset - start, n = INL_MIN(len, whole - skip);

		err = inl_dev_read(dev, start, piece, whole);
		if (!err)
			memcpy(to, piece + skip, n);
		to += n;
		offset += n;
		len -= n;
	}
	free(piece);
	return err;
}

/* The first entry at or behind a block, NULL: none. */
static const struct inl_journal_entry *journal_next(const struct inl_journal_map *map, uint64_t block)
{
	size_t lo = 0, hi = map->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (map->entries[mid].block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < map->n ? &map->entries[lo] : NULL;
}

const struct inl_journal_entry *inl_journal_find(const struct inl_journal_map *map, uint64_t block)
{
	const struct inl_journal_entry *entry = journal_next(map, block);

	return entry && entry->block == block ? entry : NULL;
}

bool inl_data_place(const struct inl_volume *vol, uint64_t pblk, uint64_t *len, uint64_t *place)
{
	const struct inl_journal_entry *entry = journal_next(&vol->journal, pblk);

	*place = pblk;
	if (!entry || entry->block >= pblk + *len)
		return true;
	if (entry->block > pblk) {
		*len = entry->block - pblk;
		return true;
	}
	*len = 1;
	*place = entry->copy;
	return !entry->escaped;
}

/* The journal's magic, put back where escaping took it away. */
static void unescape(uint8_t *block_start, uint64_t in_block, size_t len)
{
	static const uint8_t magic[4] = { 0xc0, 0x3b, 0x39, 0x98 };

	for (uint64_t i = in_block; i < 4 && i - in_block < len; i++)
		block_start[i - in_block] = magic[i];
}

int inl_meta_read(struct inl_volume *vol, uint64_t offset, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (!vol->journal.n)
		return inl_dev_read_bytes(vol->dev, offset, buf, len);
	while (len) {
		uint64_t block = offset >> vol->block_bits, in_block = offset & (vol->block_size - 1);
		size_t n = INL_MIN(len, vol->block_size - in_block);
		const struct inl_journal_entry *entry = inl_journal_find(&vol->journal, block);
		uint64_t from = ((entry ? entry->copy : block) << vol->block_bits) + in_block;
		int err = inl_dev_read_bytes(vol->dev, from, to, n);

		if (err)
			return err;
		if (entry && entry->escaped)
			unescape(to, in_block, n);
		to += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* ---- the io_manager ---------------------------------------------------------------------------------------------- */

/* io_manager's open has no argument for its owner, so the owner waits here while ext2fs_open2 runs. */
static _Thread_local struct inl_volume *opening;

static errcode_t chan_open(const char *name, int flags, io_channel *channel)
{
	io_channel ch = calloc(1, sizeof(*ch));

	if (!ch)
		return EXT2_ET_NO_MEMORY;
	ch->name = strdup(name);
	if (!ch->name) {
		free(ch);
		return EXT2_ET_NO_MEMORY;
	}
	ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	ch->manager = inl_io_manager_for(opening);
	ch->block_size = 1024;
	ch->refcount = 1;
	ch->private_data = opening;
	*channel = ch;
	return 0;
}

static errcode_t chan_close(io_channel ch)
{
	if (--ch->refcount > 0)
		return 0;
	free(ch->name);
	free(ch);
	return 0;
}

static errcode_t chan_set_blksize(io_channel ch, int block_size)
{
	ch->block_size = block_size;
	return 0;
}

/* A negative count is a number of bytes. */
static errcode_t chan_read64(io_channel ch, unsigned long long block, int count, void *buf)
{
	size_t len = count < 0 ? (size_t)-(long)count : (size_t)count * (size_t)ch->block_size;
	uint64_t offset;
	int err;

	if (__builtin_mul_overflow((uint64_t)block, (uint64_t)ch->block_size, &offset))
		return EXT2_ET_SHORT_READ;
	err = inl_meta_read(ch->private_data, offset, buf, len);
	return err ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t chan_read(io_channel ch, unsigned long block, int count, void *buf)
{
	return chan_read64(ch, block, count, buf);
}

static errcode_t chan_write64(io_channel ch, unsigned long long block, int count, const void *buf)
{
	return EROFS;
}

static errcode_t chan_write(io_channel ch, unsigned long block, int count, const void *buf)
{
	return EROFS;
}

static errcode_t chan_flush(io_channel ch)
{
	return 0;
}

io_manager inl_io_manager_for(struct inl_volume *vol)
{
	static struct struct_io_manager manager = {
		.magic = EXT2_ET_MAGIC_IO_MANAGER,
		.name = "inlay",
		.open = chan_open,
		.close = chan_close,
		.set_blksize = chan_set_blksize,
		.read_blk = chan_read,
		.write_blk = chan_write,
		.flush = chan_flush,
		.read_blk64 = chan_read64,
		.write_blk64 = chan_write64,
	};

	opening = vol;
	return &manager;
}
