/*
 * ext4/jbd2.h: the journal on the medium: its numbers, where its blocks lie on the device, its superblock.
 * Not here: what the code that writes shares of it (change.h); the replay in memory (own.h).
 * Read more: Linux Documentation/filesystems/ext4/journal.rst. All integers of the journal are big endian.
 */
#ifndef INLAY_EXT4_JBD2_H
#define INLAY_EXT4_JBD2_H

#include "ext4/own.h"

#define JBD2_MAGIC	0xc03b3998u
#define JBD2_MIN_BLOCKS 1024u /* Linux mounts none with a smaller log */

enum { JBD2_DESCRIPTOR = 1, JBD2_COMMIT = 2, JBD2_SUPER_V1 = 3, JBD2_SUPER_V2 = 4, JBD2_REVOKE = 5 };
enum { JBD2_COMPAT_CHECKSUM = 1 };
enum { JBD2_INCOMPAT_REVOKE = 1, JBD2_INCOMPAT_64BIT = 2, JBD2_INCOMPAT_ASYNC = 4, JBD2_INCOMPAT_CSUM_V2 = 8,
       JBD2_INCOMPAT_CSUM_V3 = 16, JBD2_INCOMPAT_FAST_COMMIT = 32 };
#define JBD2_INCOMPAT_KNOWN 0x3fu
enum { JBD2_TAG_ESCAPE = 1, JBD2_TAG_SAME_UUID = 2, JBD2_TAG_LAST = 8 };

/* Offsets in the superblock, bytes. Each field has 32 bits, the UUID 16 bytes, the type of checksum one. */
#define JBD2_SUPER_SIZE 1024
enum { JBD2_SB_TYPE = 4, JBD2_SB_BLOCK_SIZE = 12, JBD2_SB_MAX_LEN = 16, JBD2_SB_FIRST = 20, JBD2_SB_SEQUENCE = 24,
       JBD2_SB_START = 28, JBD2_SB_ERRNO = 32, JBD2_SB_COMPAT = 36, JBD2_SB_INCOMPAT = 40, JBD2_SB_RO_COMPAT = 44,
       JBD2_SB_UUID = 48, JBD2_SB_CSUM_TYPE = 80, JBD2_SB_N_FC = 84, JBD2_SB_CSUM = 252 };
#define JBD2_CSUM_CRC32C 4

/* Offsets in other blocks, behind the header {magic, type, transaction}. */
enum { JBD2_HEADER = 12, JBD2_REVOKE_USED = 12, JBD2_REVOKE_FIRST = 16, JBD2_COMMIT_CSUM = 16, JBD2_COMMIT_SEC = 48,
       JBD2_COMMIT_NSEC = 56 };

/* ---- journal.c ---- */

/* The checksum of a superblock whose own field is taken as zero. */
uint32_t inl_journal_super_csum(const uint8_t *super);

/* ---- log.c: the journal's inode ---- */

struct inl_journal_run {
	uint32_t first, n; /* blocks of the journal */
	uint64_t pblk;
};

/* Where the blocks of the journal lie, and a copy of its superblock. */
struct inl_journal_place {
	struct inl_volume *vol;
	struct inl_journal_run *runs; /* by first, without holes */
	size_t n_runs, room;
	uint32_t n_blocks;
	uint8_t *super; /* a whole block, as it lies on the medium */
};

/*
 * Map the whole journal of a volume and read its superblock from the device, not through vol->journal.
 *
 * Returns: 0; -EOPNOTSUPP (external, or a format that is not written); -EUCLEAN; -EIO; -ENOMEM.
 */
int inl_journal_place_open(struct inl_volume *vol, struct inl_diag *diag, struct inl_journal_place *place);
void inl_journal_place_done(struct inl_journal_place *place);

/* The block of the device. block: of the journal, below n_blocks. */
uint64_t inl_journal_pblk(const struct inl_journal_place *place, uint32_t block);

/* Write the superblock as it is in memory, with its checksum where it has one, and flush. 0 or -errno. */
int inl_journal_super_write(struct inl_journal_place *place);

#endif
