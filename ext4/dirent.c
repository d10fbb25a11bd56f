/*
 * ext4/dirent.c: directory entries as they lie in a block. Bytes in, no I/O.
 * Not here: finding the blocks (dir.c), the index (htree.c), what the names mean (fscrypt/).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst.
 */
#include "ext4/own.h"
#include <dirent.h>
#include <errno.h>

/* A length field of 16 bits in blocks of up to 64 KiB: the low two bits, always zero, carry the high ones. */
static uint32_t decode_rec_len(uint16_t stored, uint32_t block_size)
{
	if (block_size < 65536)
		return stored;
	if (stored == 65535 || stored == 0)
		return 65536;
	return (stored & 65532u) | (stored & 3u) << 16;
}

static uint8_t decode_type(uint8_t stored)
{
	static const uint8_t types[] = { DT_UNKNOWN, DT_REG, DT_DIR, DT_CHR, DT_BLK, DT_FIFO, DT_SOCK, DT_LNK };

	return stored < sizeof(types) ? types[stored] : DT_UNKNOWN;
}

int inl_dirent_parse(const struct inl_dirent_format *format, const uint8_t *block, size_t size, size_t at,
		     struct inl_raw_dirent *entry, size_t *next)
{
	const uint8_t *p = block + at;
	uint32_t rec_len, need, padded;

	if (at > size || size - at < 8)
		return -EUCLEAN;
	rec_len = decode_rec_len(inl_load_le16(p + 4), format->block_size);
	if (rec_len < 8 || rec_len % 4 || rec_len > size - at)
		return -EUCLEAN;
	entry->ino = inl_load_le32(p);
	entry->len = p[6]; /* one byte even without filetype: the other is 0, or marks the checksum */
	entry->type = format->filetype ? decode_type(p[7]) : DT_UNKNOWN;
	entry->name = p + 8;
	entry->rec_len = rec_len;
	entry->hash = entry->minor = 0;
	padded = 8 + ((entry->len + 3u) & ~3u);
	need = padded;
	if (entry->ino && format->hashes && !inl_is_dots(entry->name, entry->len <= rec_len - 8 ? entry->len : 0))
		need += 8;
	if (entry->len > INL_NAME_MAX || need > rec_len || (entry->ino && !entry->len))
		return -EUCLEAN;
	if (need > padded) {
		entry->hash = inl_load_le32(p + padded);
		entry->minor = inl_load_le32(p + padded + 4);
	}
	*next = at + rec_len;
	return 0;
}
