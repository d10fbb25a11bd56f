/*
 * ext4/super.c: superblocks: is one good, and where is a good one.
 * Not here: features (features.c); group descriptors, which libext2fs reads.
 * Read more: Linux Documentation/filesystems/ext4/super.rst (offsets as there).
 */
#include "ext4/own.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>


static uint32_t sb32(const uint8_t *sb, unsigned offset)
{
	return inl_load_le32(sb + offset);
}

static uint16_t sb16(const uint8_t *sb, unsigned offset)
{
	return inl_load_le16(sb + offset);
}

static uint64_t n_blocks(const uint8_t *sb)
{
	uint64_t n = sb32(sb, 0x4);

	if (sb32(sb, 0x60) & EXT4_INCOMPAT_64BIT)
		n |= (uint64_t)sb32(sb, 0x150) << 32;
	return n;
}

static bool checksum_good(const uint8_t *sb)
{
	if (!(sb32(sb, 0x64) & EXT4_RO_COMPAT_METADATA_CSUM))
		return true;
	return sb[0x175] == 1 && inl_crc32c(~0u, sb, 0x3fc) == sb32(sb, 0x3fc);
}

/* What is wrong with the shape of the file system, NULL: nothing. */
static const char *geometry_fault(const uint8_t *sb)
{
	uint32_t log_size = sb32(sb, 0x18), log_cluster = sb32(sb, 0x1c), per_group = sb32(sb, 0x20);
	uint32_t inodes_per_group = sb32(sb, 0x28), first = sb32(sb, 0x14);
	uint32_t incompat = sb32(sb, 0x60), desc_size = sb16(sb, 0xfe), inode_size;
	bool bigalloc = sb32(sb, 0x64) & EXT4_RO_COMPAT_BIGALLOC;
	uint64_t n_groups, block_size;

	if (log_size > 6)
		return "block size";
	block_size = 1024ull << log_size;
	if (bigalloc ? log_cluster < log_size || log_cluster > 20 : log_cluster != log_size)
		return "cluster size";
	inode_size = sb32(sb, 0x4c) == 0 ? 128 : sb16(sb, 0x58);
	if (inode_size < 128 || inode_size > block_size || (inode_size & (inode_size - 1)))
		return "inode size";
	if (!per_group || per_group > (8 * block_size << (log_cluster - log_size)) || per_group % 8)
		return "blocks per group";
	if (!inodes_per_group || inodes_per_group > 8 * block_size || inodes_per_group % (block_size / inode_size))
		return "inodes per group";
	if (first != (block_size == 1024 && !bigalloc ? 1 : 0) && !(bigalloc && block_size == 1024 && first <= 1))
		return "first data block";
	if (n_blocks(sb) <= first + 1)
		return "number of blocks";
	if ((incompat & EXT4_INCOMPAT_64BIT) &&
	    (desc_size < 64 || desc_size > block_size || (desc_size & (desc_size - 1))))
		return "group descriptor size";
	n_groups = (n_blocks(sb) - first + per_group - 1) / per_group;
	if (n_groups > UINT32_MAX || n_groups * inodes_per_group != sb32(sb, 0x0))
		return "number of inodes";
	return NULL;
}

bool inl_super_torn_mark(const uint8_t *sb)
{
	uint8_t other[EXT4_SUPER_SIZE];

	memcpy(other, sb, sizeof(other));
	inl_store_le32(other + 0x60, sb32(sb, 0x60) ^ EXT4_INCOMPAT_RECOVER);
	return checksum_good(other);
}

int inl_super_check(const uint8_t *sb, uint64_t dev_size, bool damaged_ok, struct inl_diag *diag)
{
	if (sb16(sb, 0x38) == 0xef53 && !checksum_good(sb))
		return inl_diag_set(diag, -EUCLEAN, "the superblock's checksum is wrong");
	return inl_super_check_unsummed(sb, dev_size, damaged_ok, diag);
}

int inl_super_check_unsummed(const uint8_t *sb, uint64_t dev_size, bool damaged_ok, struct inl_diag *diag)
{
	const char *fault;
	uint64_t block_size, have;

	if (sb16(sb, 0x38) != 0xef53)
		return inl_diag_set(diag, -EINVAL, "no ext4 superblock (no magic number 0xef53 at byte 1080)");
	if (sb32(sb, 0x60) & EXT4_INCOMPAT_JOURNAL_DEV)
		return inl_diag_set(diag, -EOPNOTSUPP, "this is an external journal, not a file system");
	fault = geometry_fault(sb);
	if (fault)
		return inl_diag_set(diag, -EUCLEAN, "the superblock is damaged: impossible %s", fault);
	block_size = 1024ull << sb32(sb, 0x18);
	have = dev_size / block_size;
	if (n_blocks(sb) > have && !damaged_ok)
		return inl_diag_set(diag, -EUCLEAN, "truncated: the file system has %llu blocks of %llu bytes, the device %llu",
				    (unsigned long long)n_blocks(sb), (unsigned long long)block_size,
				    (unsigned long long)have);
	/* However damaged: tables must not be sized by a number out of the blue. */
	if (n_blocks(sb) / 64 > have)
		return inl_diag_set(diag, -EUCLEAN, "less than a 64th of the file system is there");
	return 0;
}

/* Read and check the superblock copy of a group, assuming a block size. */
static int try_backup(struct inl_volume *vol, uint32_t block_size, uint32_t group, uint64_t *block)
{
	uint64_t at = (uint64_t)group * 8 * block_size + (block_size == 1024), size = inl_dev_size(vol->dev);
	uint8_t sb[EXT4_SUPER_SIZE];
	int err;

	if (at > size / block_size || at * block_size + sizeof(sb) > size)
		return -ENOENT;
	err = inl_dev_read_bytes(vol->dev, at * block_size, sb, sizeof(sb));
	if (!err)
		err = inl_super_check(sb, size, vol->flags & INL_VOLUME_DAMAGED, NULL);
	if (err)
		return err;
	if (1024u << sb32(sb, 0x18) != block_size || sb32(sb, 0x20) != 8 * block_size || sb16(sb, 0x5a) != group)
		return -ENOENT;
	*block = at;
	return 0;
}

int inl_super_find_backup(struct inl_volume *vol, uint64_t *block, uint32_t *block_size)
{
	/* Groups that hold a copy under sparse_super: 1 and powers of 3, 5, 7. The first few will do. */
	static const uint32_t groups[] = { 1, 3, 5, 7, 9, 25, 27, 49, 81, 125 };

	for (uint32_t size = 1024; size <= 65536; size *= 2) {
		for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
			if (!try_backup(vol, size, groups[i], block)) {
				*block_size = size;
				return 0;
			}
		}
	}
	return -ENOENT;
}

int inl_super_find(struct inl_volume *vol, bool torn_ok, uint64_t *block, uint32_t *block_size, struct inl_diag *diag)
{
	bool damaged_ok = vol->flags & INL_VOLUME_DAMAGED;
	struct inl_diag primary = { 0 };
	uint8_t sb[EXT4_SUPER_SIZE];
	int err = inl_dev_read_bytes(vol->dev, EXT4_SUPER_OFFSET, sb, sizeof(sb));

	if (err && err != -EIO)
		return inl_diag_set(diag, err, "the superblock cannot be read");
	if (err)
		err = inl_diag_set(&primary, inl_dev_size(vol->dev) < 2048 ? -EINVAL : -EIO,
				   inl_dev_size(vol->dev) < 2048 ? "too small for an ext4 file system" :
								   "the superblock cannot be read");
	else
		err = inl_super_check(sb, inl_dev_size(vol->dev), damaged_ok, &primary);
	vol->super_torn = err == -EUCLEAN && torn_ok && !inl_super_check_unsummed(sb, inl_dev_size(vol->dev), damaged_ok, NULL);
	if (!err || vol->super_torn) {
		*block = 0;
		*block_size = 1024u << sb32(sb, 0x18);
		return 0;
	}
	if (!inl_super_find_backup(vol, block, block_size))
		return 0;
	return inl_diag_set(diag, err, "%s", primary.text);
}
