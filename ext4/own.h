/*
 * ext4/own.h: what the files of ext4/ share: the insides of volumes and inodes, parsers of bytes, checksums.
 * Not here: anything that callers may know (inlay/volume.h).
 * Read more: Linux Documentation/filesystems/ext4/; ARCHITECTURE.md, "The life of a read".
 *
 * Locks, in the order they are taken: inode->rw and ranges (data, write.c), alloc->discarding (trim.c), txn->commit
 * (txn.c), vol->lock (operations), cache->lock, inode->lock. File data is read and written with inode->rw and ranges only.
 *
 * Of a volume that is open for reading nothing changes: vol->lock is not taken. Of one that is open for writing the
 * metadata is looked at within operations (change.h: inl_op_look).
 */
#ifndef INLAY_EXT4_OWN_H
#define INLAY_EXT4_OWN_H

#include "base/endian.h"
#include "fscrypt/info.h"
#include <inlay/volume.h>

#include <ext2fs/ext2fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* libext2fs keeps inodes and the superblock in host order, in-inode attributes partly: nobody has tried big endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ext4/ has been written and tried on little-endian hosts only");

#define EXT4_SUPER_OFFSET 1024 /* bytes on the device, of the primary */
#define EXT4_SUPER_SIZE	  1024
#define EXT4_N_LBLKS	  0x100000000ull /* logical block numbers have 32 bits */
#define EXT4_LBLK_NONE	  0xffffffffull	 /* the one that no file uses */
#define EXT4_MAX_DEPTH	  5
#define INL_INODE_BUCKETS 1024u
#define INL_DRAWN_LEN	  256u /* bytes: as many as getentropy(3) gives at once */

/* Offsets in the superblock. */
enum {
	EXT4_SB_STATE = 0x3a,
	EXT4_SB_COMPAT = 0x5c,
	EXT4_SB_INCOMPAT = 0x60,
	EXT4_SB_RO_COMPAT = 0x64,
	EXT4_SB_LAST_ORPHAN = 0xe8,
};
#define EXT4_STATE_VALID  0x0001u /* closed cleanly */
#define EXT4_STATE_ERRORS 0x0002u

/* Inode flags and features: the numbers of the format. */
enum {
	EXT4_FL_IMMUTABLE = 0x00000010,
	EXT4_FL_APPEND = 0x00000020,
	EXT4_FL_ENCRYPT = 0x00000800,
	EXT4_FL_INDEX = 0x00001000,
	EXT4_FL_HUGE_FILE = 0x00040000,
	EXT4_FL_EXTENTS = 0x00080000,
	EXT4_FL_EA_INODE = 0x00200000,
	EXT4_FL_INLINE = 0x10000000,
	EXT4_FL_CASEFOLD = 0x40000000,
	EXT4_FL_VERITY = 0x00100000,

	EXT4_FL_LASTING = EXT4_FL_IMMUTABLE | EXT4_FL_APPEND | EXT4_FL_EA_INODE | EXT4_FL_INLINE | EXT4_FL_CASEFOLD |
			  EXT4_FL_VERITY | EXT4_FL_EXTENTS,
};
enum {
	EXT4_COMPAT_HAS_JOURNAL = 0x0004,
	EXT4_COMPAT_EXT_ATTR = 0x0008,
	EXT4_COMPAT_DIR_INDEX = 0x0020,
	EXT4_COMPAT_STABLE_INODES = 0x0800,
	EXT4_INCOMPAT_RECOVER = 0x0004,
	EXT4_INCOMPAT_JOURNAL_DEV = 0x0008,
	EXT4_INCOMPAT_64BIT = 0x0080,
	EXT4_RO_COMPAT_LARGE_FILE = 0x0002,
	EXT4_RO_COMPAT_BIGALLOC = 0x0200,
	EXT4_RO_COMPAT_METADATA_CSUM = 0x0400,
};

struct inl_cache;
struct inl_block;

/* One block whose last committed content is in the journal. */
struct inl_journal_entry {
	uint64_t block; /* where it belongs */
	uint64_t copy;	/* block on the device that holds the content */
	uint32_t tid;	/* of the transaction that wrote the copy */
	bool escaped;	/* its first four bytes are the journal's magic, zeroed in the copy */
};

/* The journal replayed in memory: sorted by block, one entry each. */
struct inl_journal_map {
	struct inl_journal_entry *entries;
	size_t n, room;
	uint32_t n_transactions;
	uint32_t end_tid; /* the first transaction that did not count */
	bool damaged; /* with damaged_ok: ended before where the log seems to */
};

/* Where an inode stands on the orphan list (change.h, orphan.c). */
struct inl_orphan {
	bool listed;
	struct inl_inode *prev, *next; /* live ones, as they follow each other on the medium */
};

/* The orphan list of a volume, as far as its inodes are live. */
struct inl_orphans {
	struct inl_inode *first, *last;
	uint32_t *aside; /* inodes that could not be finished: at the end of the list on the medium */
	_Atomic size_t n_aside;
};

/* Random numbers, and the time (draw.c). */
struct inl_draws {
	pthread_mutex_t lock; /* the last of all */
	uint8_t bytes[INL_DRAWN_LEN];
	size_t left; /* of bytes: the first ones, not used yet */
	bool fixed;  /* these four; set before anything is changed */
	struct inl_time now;
	uint8_t seed[32];
	uint64_t n_drawn;
};

struct inl_volume {
	struct inl_dev *dev;
	struct inl_keyring *keys; /* may be NULL */
	struct inl_fscrypt *crypt;
	pthread_mutex_t lock; /* operations */
	ext2_filsys fs;	      /* as it was at the open: only what does not change is looked at later */
	unsigned flags;	      /* enum inl_volume_flags */
	uint32_t block_size;
	unsigned block_bits;
	uint64_t n_blocks;
	uint32_t first_block;	/* the lowest valid block number: s_first_data_block */
	bool super_torn;	/* the superblock's checksum is wrong, until the journal has a better one */
	bool super_torn_mark;	/* ... and only needs_recovery is in doubt: it is taken as set */
	bool metadata_csum;
	uint32_t csum_seed;
	struct inl_journal_map journal; /* immutable after open */
	struct inl_orphans orphans;	/* vol->lock */
	struct inl_cache *cache;	/* of metadata blocks */
	struct inl_op_pool *op_pool;	/* these five: of a volume that is written, else NULL */
	struct inl_alloc *alloc;
	struct inl_txn *txn;
	struct inl_mmp *mmp;		/* NULL also where the volume has no such protection */
	struct inl_inode **inodes;	/* live ones by number: a hash table; vol->lock */
	struct inl_draws draws;
	struct inl_volume_info info;
	unsigned n_features;
	struct inl_feature features[96];
	char feature_names[96][16]; /* of unknown ones */
};

/* A run of the block map, in blocks. */
struct inl_run {
	enum inl_extent_kind kind; /* not INLINE */
	uint64_t lblk, len, pblk;
};

/* What is known of a directory's index by who iterates. */
enum inl_index_state { INL_INDEX_NOT_SEEN, INL_INDEX_SOUND, INL_INDEX_DAMAGED };

struct inl_inode {
	struct inl_volume *vol;
	atomic_uint refs;
	uint32_t ino;
	uint32_t csum_seed; /* of everything that belongs to this inode */
	_Atomic uint64_t size;
	uint16_t type;		      /* S_IFMT of i_mode, which never changes: readable without a lock, as i_mode is not */
	_Atomic uint32_t lasting;     /* of i_flags, EXT4_FL_LASTING: readable without a lock. Only what programs set changes */
	_Atomic bool encrypted;	      /* set last when a directory becomes so: then crypt is there */
	int crypt_status;	      /* of the context: 0 or -EUCLEAN */
	struct inl_crypt_info *_Atomic crypt; /* NULL: not encrypted, or crypt_status */
	pthread_mutex_t lock;	      /* run, n_holds, n_key_holds */
	struct inl_run run;	      /* the last one looked up; len 0: none */
	unsigned n_holds;	      /* inl_inode_hold_key: by all, and, */
	unsigned n_key_holds;	      /* of those, since it is encrypted */
	struct ext2_inode_large raw;  /* host order */
	uint8_t *body;		      /* the whole inode as it lies in the table, inode_size bytes */

	/* Of a volume that is written. vol->lock: */
	struct inl_inode *hash_next;
	bool hashed;		      /* in vol->inodes */
	bool dead;		      /* its creation was undone, or it was deleted */
	bool deleting;		      /* nobody can get it any more */
	uint64_t op_seq;	      /* the operation that changed it last */
	struct inl_inode *op_next;    /* changed by the same operation */
	struct inl_inode *later_next; /* let go of in an operation, and to be deleted after it */
	struct inl_orphan orphan;

	uint64_t add_hint;	      /* linear directories: the first block that may have room */
	_Atomic uint8_t index;	      /* of directories: enum inl_index_state */

	/* Data: shared by reads and writes, exclusive for whatever takes blocks away. Ranges: write.c */
	pthread_rwlock_t rw;
	pthread_mutex_t ranges_lock;
	pthread_cond_t ranges_free;
	struct inl_range *ranges;
};

/* ---- io.c: bytes of the device, seen through the journal ---- */

/* Read len bytes at a byte offset of the file system, any alignment. 0 or -errno. */
int inl_meta_read(struct inl_volume *vol, uint64_t offset, void *buf, size_t len);

/*
 * Where the content of [pblk, pblk + *len) lies: shortens *len to a run of one place. Returns false if it cannot be
 * read directly.
 */
bool inl_data_place(const struct inl_volume *vol, uint64_t pblk, uint64_t *len, uint64_t *place);

const struct inl_journal_entry *inl_journal_find(const struct inl_journal_map *map, uint64_t block);

/* An io_manager for ext2fs_open2; opens the volume that inl_io_manager_for names on this thread. */
io_manager inl_io_manager_for(struct inl_volume *vol);

/* Raw, before there is a volume: any alignment. */
int inl_dev_read_bytes(struct inl_dev *dev, uint64_t offset, void *buf, size_t len);

/* ---- cache.c: metadata blocks ---- */

int inl_cache_new(struct inl_volume *vol, struct inl_cache **out);
void inl_cache_free(struct inl_cache *cache);

/*
 * Get a block's content, pinned until put. verify, if given, is called once per cached content and owner; its error is
 * returned and the block not kept.
 *
 * Returns: 0; -EUCLEAN (block number out of range); -EIO; -ENOMEM; what verify says.
 */
typedef int (*inl_block_verify)(struct inl_inode *inode, const uint8_t *bytes, unsigned arg);
int inl_block_get(struct inl_volume *vol, uint64_t pblk, struct inl_block **out);
int inl_block_get_verified(struct inl_inode *inode, uint64_t pblk, inl_block_verify verify, unsigned arg,
			   struct inl_block **out);
void inl_block_put(struct inl_block *block); /* NULL is fine */
const uint8_t *inl_block_bytes(const struct inl_block *block);

static inline void inl_block_put_scope(struct inl_block **block)
{
	inl_block_put(*block);
}
#define INL_BLOCK_SCOPED __attribute__((cleanup(inl_block_put_scope)))

/* ---- super.c, features.c ---- */

/*
 * Is this a superblock that can be trusted? Bytes in, no I/O.
 *
 *   sb          EXT4_SUPER_SIZE bytes
 *   dev_size    bytes
 *   damaged_ok  accept one that describes more blocks than the device has
 */
int inl_super_check(const uint8_t *sb, uint64_t dev_size, bool damaged_ok, struct inl_diag *diag);

/* The same of one whose checksum is not looked at. */
int inl_super_check_unsummed(const uint8_t *sb, uint64_t dev_size, bool damaged_ok, struct inl_diag *diag);

/*
 * Would the checksum be right if needs_recovery were the other way? That mark is set and cleared without a journal: a
 * device whose sectors are smaller than a superblock may have torn that write.
 */
bool inl_super_torn_mark(const uint8_t *sb);

/*
 * Find a superblock: the primary, or the first good backup. *block is 0 for the primary.
 *
 *   torn_ok  take the primary with a wrong checksum, too, if there is nothing else wrong with it: vol->super_torn then
 */
int inl_super_find(struct inl_volume *vol, bool torn_ok, uint64_t *block, uint32_t *block_size, struct inl_diag *diag);

/* Find the first good backup. 0 or -ENOENT. */
int inl_super_find_backup(struct inl_volume *vol, uint64_t *block, uint32_t *block_size);

/* Fill vol->features and info.access. -EOPNOTSUPP naming the features that are refused. */
int inl_features_check(struct inl_volume *vol, const uint8_t *sb, struct inl_diag *diag);

/* ---- journal.c ---- */

/* Where the journal's bytes come from. */
struct inl_journal_source {
	uint32_t block_size;
	uint64_t n_blocks; /* of the journal */
	uint64_t max_block; /* of the file system: a copy of a block beyond is damage */
	int (*read)(void *arg, uint64_t block, uint8_t *buf); /* block of the journal; 0 or -errno */
	void *arg;
};

/*
 * Replay in memory: scan, revoke, map. entries[].copy is a block number *of the journal*.
 *
 *   damaged_ok  what cannot be trusted ends the replay instead of failing it
 *   clean       nothing had to be replayed
 *
 * Returns: 0; -EUCLEAN (damaged); -EOPNOTSUPP (features, fast commits); -EIO; -ENOMEM.
 */
int inl_journal_scan(const struct inl_journal_source *source, bool damaged_ok, struct inl_journal_map *map, bool *clean,
		     struct inl_diag *diag);
void inl_journal_map_done(struct inl_journal_map *map);

/* ---- map.c: extents and indirect blocks ---- */

/* Find the run that contains lblk (holes included); it may end before the real run does, never after. */
int inl_map(struct inl_inode *inode, uint64_t lblk, struct inl_run *run, struct inl_diag *diag);

/* The same outside of operations, also of a volume that is being written. */
int inl_map_look(struct inl_inode *inode, uint64_t lblk, struct inl_run *run, struct inl_diag *diag);

/* What one node of an extent tree says of lblk. Bytes in, no I/O. */
struct inl_extent_hit {
	bool leaf;
	struct inl_run run;	    /* leaf: or a hole in an index */
	uint64_t child, lo, hi;	    /* else: where to go on, and what blocks [lo, hi) the child may map */
	unsigned depth;		    /* of the child */
};

/*
 * Check a node: header, order, ranges.
 *
 *   node        size bytes
 *   depth       what it must be; -1: a root, anything up to EXT4_MAX_DEPTH
 *
 * Returns: 0; -EUCLEAN.
 */
int inl_extent_node_check(const uint8_t *node, size_t size, int depth);

/* Search a checked node for a block of [lo, hi). Returns 0, or -EUCLEAN when what it finds lies outside. */
int inl_extent_node_find(const uint8_t *node, uint64_t lo, uint64_t hi, uint64_t lblk, struct inl_extent_hit *hit);

/* ---- dirent.c, htree.c: directory blocks. Bytes in, no I/O ---- */

struct inl_raw_dirent {
	uint32_t ino;	      /* 0: unused */
	uint16_t len;	      /* of name */
	uint8_t type;	      /* DT_* or DT_UNKNOWN */
	const uint8_t *name;
	uint32_t hash, minor; /* of casefolded encrypted directories; else 0 */
	uint32_t rec_len;
};

struct inl_dirent_format {
	uint32_t block_size;
	bool filetype;
	bool hashes; /* casefolded and encrypted: hash and minor hash behind each name */
};

/*
 * Parse the entry at an offset of a directory block (or of inline data: size is then what there is).
 *
 * Returns: 0, and *next is where the next one starts (size: none); -EUCLEAN.
 */
int inl_dirent_parse(const struct inl_dirent_format *format, const uint8_t *block, size_t size, size_t at,
		     struct inl_raw_dirent *entry, size_t *next);

struct inl_dx_entry {
	uint32_t hash, block;
};

/* The index part of an htree block. */
struct inl_dx_node {
	const uint8_t *entries; /* pairs of le32: hash, block; the first hash is limit and count */
	unsigned count, limit;
	unsigned offset;	/* bytes from the block's start */
	uint8_t hash_version;	/* root only */
	uint8_t levels;		/* root only: how many levels of nodes are below */
};
int inl_dx_root_parse(const uint8_t *block, uint32_t block_size, bool csum, bool large_dir, struct inl_dx_node *node);
int inl_dx_node_parse(const uint8_t *block, uint32_t block_size, bool csum, struct inl_dx_node *node);
struct inl_dx_entry inl_dx_entry(const struct inl_dx_node *node, unsigned i);

/* The last entry whose hash is not above. */
unsigned inl_dx_search(const struct inl_dx_node *node, uint32_t hash);

/* ---- dir.c ---- */

int inl_dir_hash(struct inl_inode *dir, uint8_t version, const uint8_t *name, size_t len, uint32_t *hash,
		 uint32_t *minor);

/* ---- xattr.c ---- */

/* One attribute as it lies on the medium. */
struct inl_raw_xattr {
	uint8_t index;
	uint8_t name_len;
	const char *name;
	const uint8_t *value; /* NULL: in another inode */
	uint32_t size;
	uint32_t value_ino;
	uint32_t hash;
};

/*
 * Walk the entries of one attribute area. Bytes in, no I/O.
 *
 *   area     len bytes; value offsets count from its start
 *   first    offset of the first entry
 *   each     a non-zero return ends the walk and is returned
 *
 * Returns: 0; -EUCLEAN.
 */
typedef int (*inl_raw_xattr_fn)(const struct inl_raw_xattr *xattr, void *arg);
int inl_xattr_area_walk(const uint8_t *area, size_t len, size_t first, inl_raw_xattr_fn each, void *arg);

/* All attributes of an inode, the encryption context and inline data among them. */
int inl_raw_xattrs(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg, struct inl_diag *diag);

/* The value of one attribute. -ENODATA; -ERANGE (longer than size). */
int inl_raw_xattr_get(struct inl_inode *inode, uint8_t index, const char *name, void *buf, size_t size, size_t *len,
		      struct inl_diag *diag);

/* Convert a POSIX ACL from its form on the medium. Returns its length, or -EUCLEAN. out: at least 2 * len + 4 bytes. */
int inl_acl_convert(const uint8_t *value, size_t len, uint8_t *out);

/* ---- inode.c, data.c ---- */

/*
 * As inl_inode_get, of any inode number (the journal's, attribute inodes), links or not, but without its encryption:
 * what is read of it is what lies there.
 */
int inl_inode_load(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out);

/* Inline data: up to size bytes; -ENODATA when the inode has none. */
int inl_inline_read(struct inl_inode *inode, uint8_t *buf, size_t size, size_t *len, struct inl_diag *diag);

/* While somebody reads or writes data, nobody takes its blocks away. No effect on a volume that is open for reading. */
void inl_data_lock_shared(struct inl_inode *inode);
void inl_data_lock_exclusive(struct inl_inode *inode);
void inl_data_unlock(struct inl_inode *inode);

/* Read the bytes of a plain inode of any type, as inl_read. */
int inl_data_read(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, size_t *got, struct inl_diag *diag);

/* The same with its encryption context. */
int inl_inode_load_crypt(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out);

bool inl_is_inline(const struct inl_inode *inode);

/* ---- crypt.c ---- */

/* The context of an inode that is being loaded. 0; -ENOMEM; -EAGAIN. */
int inl_crypt_load(struct inl_inode *inode);

/* May this inode be in this directory? Only if it is encrypted alike, or cannot be encrypted, or the directory is not. */
bool inl_crypt_permitted(const struct inl_inode *dir, const struct inl_inode *inode);

/* The same: 0, or -EPERM in words. */
int inl_crypt_check_child(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag);

/* ---- inode.c again ---- */

/* As inl_inode_get, also of one that has no links any more. */
int inl_inode_get_any(struct inl_volume *vol, uint64_t ino, struct inl_diag *diag, struct inl_inode **out);

/* As inl_inode_get, of one that a directory names: -ESTALE if it is not in use, as somebody has come between. */
int inl_inode_get_named(struct inl_volume *vol, uint32_t ino, struct inl_diag *diag, struct inl_inode **out);

/* The block map has changed: what was looked up is void. */
void inl_inode_forget_run(struct inl_inode *inode);

/* Has the inode room for a field of the extra part? */
#define INL_HAS_FIELD(inode, field)                                                            \
	(EXT2_INODE_SIZE((inode)->vol->fs->super) > 128 &&                                     \
	 offsetof(struct ext2_inode_large, field) + sizeof((inode)->raw.field) <=              \
		 128u + (inode)->raw.i_extra_isize)

/* i_blocks in units of 512 bytes. */
uint64_t inl_inode_blocks(const struct inl_inode *inode);

/* Is this a symbolic link whose target stands in place of the block map? */
bool inl_is_fast_symlink(const struct inl_inode *inode);

#define INL_MIN(a, b) ((a) < (b) ? (a) : (b))

/* "." or "..". */
static inline bool inl_is_dots(const void *name, size_t len)
{
	const char *p = name;

	return (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.');
}

/* Memory for n blocks, as every device wants it; to be freed. */
static inline uint8_t *inl_new_blocks(uint32_t block_size, unsigned n)
{
	return aligned_alloc(4096, ((size_t)block_size * n + 4095) & ~(size_t)4095);
}

static inline bool inl_block_in_range(const struct inl_volume *vol, uint64_t pblk, uint64_t len)
{
	return pblk > vol->first_block && pblk < vol->n_blocks && len <= vol->n_blocks - pblk;
}

#endif
