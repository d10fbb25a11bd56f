/*
 * ext4/change.h: what the files of ext4/ that change a volume share: operations, blocks, allocation, maps, directories.
 * Not here: what reading needs (own.h); what callers may know (inlay/volume.h).
 * Read more: ARCHITECTURE.md, "The life of a change".
 *
 * A change of the metadata is an *operation*: it happens whole or not at all, in memory and, after a crash, on the
 * medium. While it runs it has a *handle* (jbd2's word). One operation runs at a time per volume; it has vol->lock and
 * never waits for I/O. A block that it needs and that is not in the cache makes it end with -EAGAIN: all is put back as
 * it was, the block is read without the lock, and the operation begins again. So every function that takes an op
 *
 *   - may return -EAGAIN, which goes up untouched (no message, nothing put back by hand);
 *   - after any error leaves the op to be cancelled: blocks and inodes changed in it are put back by inl_op_run alone.
 *     State of its own in memory (other than what is changed through inl_block_modify and inl_inode_modify) it changes
 *     only
 *     by means that are undone too (inl_op_undo), or after the operation has succeeded.
 *
 * File data never waits for a transaction: blocks are reserved, the data is written to them, and only when it has
 * landed an operation makes them the file's. What is not there yet cannot be exposed, by a crash or by a commit.
 */
#ifndef INLAY_EXT4_CHANGE_H
#define INLAY_EXT4_CHANGE_H

#include "ext4/own.h"

struct inl_handle;

/* ---- op.c: operations -------------------------------------------------------------------------------------------- */

/*
 * Run one operation.
 *
 *   credits  how many different metadata blocks it changes at most (inodes count as the block they lie in); more is an
 *            error (-E2BIG), and the operation is undone. At most inl_op_credits_max
 *   fn       may be called several times; sees *arg as the time before left it. Holds vol->lock
 *
 * Returns: 0; -EROFS (opened for reading, or the journal was aborted: diag says which); what fn returned, and then
 *          nothing has changed; -EIO, -EUCLEAN of a block that it needed; -ENOMEM.
 * Never from within an operation, nor with a lock of vol held.
 */
typedef int inl_op_fn(struct inl_handle *op, void *arg);
int inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);

/* The same for looking only: op is only good for passing on. On a volume opened for reading nothing is locked. */
int inl_op_look(struct inl_volume *vol, inl_op_fn *fn, void *arg);

struct inl_volume *inl_op_vol(const struct inl_handle *op);

/*
 * The largest credits of this volume: a quarter of the journal. At least 64. Long work is cut into operations of less.
 */
unsigned inl_op_credits_max(const struct inl_volume *vol);
unsigned inl_op_credits_left(const struct inl_handle *op);

/*
 * Remember how to put back something in memory. Called last in first out if the operation is cancelled, never
 * otherwise.
 *
 *   len    bytes of what, copied; at most 64
 */
typedef void inl_undo_fn(struct inl_volume *vol, void *what);
int inl_op_undo(struct inl_handle *op, inl_undo_fn *fn, const void *what, size_t len);

/* The operation of this thread on this volume, NULL: none. Only one that holds vol->lock. */
struct inl_handle *inl_op_current(const struct inl_volume *vol);

/* Let go of an inode when the operation is over, which then deletes it: that takes operations of its own. */
void inl_op_put_later(struct inl_handle *op, struct inl_inode *inode);

struct inl_op_pool;
int inl_op_pool_new(struct inl_op_pool **out);
void inl_op_pool_free(struct inl_op_pool *pool); /* NULL is fine */

/* ---- cache.c: blocks of metadata --------------------------------------------------------------------------------- */

/*
 * inl_block_get (own.h) within an operation: -EAGAIN if the block has to be read.
 *
 * Change a block: it joins the running transaction. *bytes, the whole block, may be written until the operation ends;
 * what inl_block_bytes gave before is the content as it was when the operation first changed the block. The caller
 * keeps its checksum right.
 *
 * Returns: 0; -E2BIG (credits); -ENOMEM.
 */
int inl_block_modify(struct inl_handle *op, struct inl_block *block, uint8_t **bytes);

/* Get and modify. The block stays pinned until the operation ends. */
int inl_block_change(struct inl_handle *op, uint64_t pblk, uint8_t **bytes);

/* As inl_block_change, of a block just allocated: nothing is read, it is all zeros. */
int inl_block_new(struct inl_handle *op, uint64_t pblk, uint8_t **bytes);

/* A block is not metadata any more: it leaves the transaction and is revoked. Called by inl_blocks_free. */
int inl_block_forget(struct inl_handle *op, uint64_t pblk);

/* Look at a block within an operation; stays pinned until it ends. */
int inl_block_look(struct inl_handle *op, uint64_t pblk, const uint8_t **bytes);
int inl_block_look_verified(struct inl_handle *op, struct inl_inode *inode, uint64_t pblk, inl_block_verify verify,
			    unsigned arg, const uint8_t **bytes);

/* ---- inode.c: inodes --------------------------------------------------------------------------------------------- */

/*
 * Change an inode: afterwards inode->raw (its first 160 bytes), inode->body from byte 160 on (body[0..159] is not
 * looked at) and inode->size may be written until the operation ends; it is then written to the inode table with its
 * checksum. Between operations raw and body say the same. -EAGAIN as for blocks.
 */
int inl_inode_modify(struct inl_handle *op, struct inl_inode *inode);

/* attr.c has these, and the times below. */

/* Set i_size and i_size_high (and the visible size) from bytes. Within inl_inode_modify. */
void inl_inode_set_size(struct inl_inode *inode, uint64_t size);

/*
 * Add to i_blocks, in file system blocks; n may be negative. Within inl_inode_modify. Handles huge_file.
 *
 * Returns: 0; -EFBIG (more than the field holds); -EUCLEAN (less than nothing: it was wrong).
 */
int inl_inode_add_blocks(struct inl_inode *inode, int64_t n);

/*
 * Make a live object for a freshly allocated inode number; its table slot is zeroed except i_generation (random),
 * i_extra_isize and checksum. Its other fields are the caller's to fill. One reference; if the operation is cancelled
 * the object is dead, and must still be put.
 */
int inl_inode_new(struct inl_handle *op, uint32_t ino, struct inl_inode **out);

/* Times: the epoch bits and nanoseconds where the inode has room for them. Within inl_inode_modify. */
enum { INL_TIME_A = 1, INL_TIME_M = 2, INL_TIME_C = 4, INL_TIME_CR = 8 };
void inl_inode_set_times(struct inl_inode *inode, unsigned which, struct inl_time time);
struct inl_time inl_now(const struct inl_volume *vol); /* the clock, as inodes keep it (draw.c) */

/*
 * What inl_create is told of a new inode, and what it inherits from its directory: mode, owner, device, times, flags.
 * Not ACLs: they change the mode once more.
 * Within inl_inode_modify. -EINVAL: a device number that has no room.
 */
int inl_inode_fill(struct inl_inode *inode, const struct inl_inode *dir, uint32_t mode, const struct inl_attr *attr,
		   unsigned which);

/*
 * What else it inherits, of INL_ATTR_INHERIT: the directory's default ACL, or the umask. After its encryption, which is
 * to lie in the inode. Within inl_inode_modify. -ENOSPC; -EUCLEAN; -EOPNOTSUPP (longer than a block). Credits:
 * inl_xattr_credits.
 */
int inl_acls_inherit(struct inl_handle *op, struct inl_inode *inode, struct inl_inode *dir, uint32_t umask);

/* Are the times that are meant times at all? */
bool inl_attr_good(const struct inl_attr *attr, unsigned which);

/* For op.c: where an inode lies; what it was; how it is stored. */
struct inl_inode_saved {
	struct ext2_inode_large raw;
	uint64_t size;
	uint32_t csum_seed;
};
int inl_inode_place(struct inl_volume *vol, uint32_t ino, uint64_t *pblk, uint32_t *at);
void inl_inode_save(const struct inl_inode *inode, uint8_t *saved); /* sizeof(struct inl_inode_saved) + inode size bytes */
void inl_inode_restore(struct inl_inode *inode, const uint8_t *saved);
void inl_inode_encode(struct inl_inode *inode, uint8_t *bytes); /* inode size bytes, with the checksum */

/* ---- draw.c ------------------------------------------------------------------------------------------------------ */

void inl_draws_init(struct inl_draws *draws);
void inl_draws_done(struct inl_draws *draws);

/* Random bytes, at most INL_DRAWN_LEN. 0; -EIO; -ENOMEM. Threads: any. */
int inl_draw(struct inl_volume *vol, void *out, size_t len);

/* ---- crypt.c ----------------------------------------------------------------------------------------------------- */

/* May it come to be there? 0, or -EXDEV in words. */
int inl_crypt_check_move(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag);

/* Would an inode of this mode be encrypted there? */
bool inl_crypt_inherits(const struct inl_inode *dir, uint32_t mode);

/* The encryption of an inode to come. */
struct inl_new_crypt {
	struct inl_crypt_info *info; /* NULL: it will not be encrypted */
	uint8_t context[INL_CONTEXT_SIZE_MAX];
	size_t len;
};

/*
 * What an inode of this mode inherits from a directory; its key is made ready. Outside of operations.
 *
 *   nonce   NULL: random
 *
 * Returns: 0; -ENOKEY, -ENOPKG, -EINVAL, ... as inl_crypt_info_unlock. Done with inl_new_crypt_done, unless the inode
 * has it.
 */
int inl_new_crypt_init(struct inl_inode *dir, uint32_t mode, const uint8_t *nonce, struct inl_new_crypt *new,
		       struct inl_diag *diag);
void inl_new_crypt_done(struct inl_new_crypt *new);

/*
 * Give it to the inode: first of its attributes, so that it lies within the inode where that has room. Within
 * inl_inode_modify. When the operation is cancelled inode->crypt is still the caller's. Credits: inl_xattr_credits.
 */
int inl_new_crypt_give(struct inl_handle *op, struct inl_inode *inode, struct inl_new_crypt *new);

/* ---- flags.c ----------------------------------------------------------------------------------------------------- */

/* -EPERM: it has one of these flags, EXT4_FL_IMMUTABLE or EXT4_FL_APPEND. */
int inl_check_flags(const struct inl_inode *inode, uint32_t flags, struct inl_diag *diag);

/* 0; -EROFS; -EPERM (immutable, append-only). */
int inl_inode_may_change(struct inl_inode *inode, struct inl_diag *diag);

/* The flags of what is made in a directory. */
uint32_t inl_flags_inherited(const struct inl_inode *dir, uint32_t mode);

/* ---- write.c ----------------------------------------------------------------------------------------------------- */

/*
 * The contents: 0; -EISDIR; -EINVAL; -EROFS; -EPERM; -EOPNOTSUPP; -ENOKEY.
 *
 *   flags   that forbid it
 */
int inl_data_may_write(struct inl_inode *inode, uint32_t flags, struct inl_diag *diag);

/* Behind `size`, zeros to the end of its block. Outside of operations. */
int inl_data_zero_tail(struct inl_inode *inode, uint64_t size, struct inl_diag *diag);

/* ---- group.c, alloc.c: descriptors, bitmaps, allocation ---------------------------------------------------------- */

/*
 * Free blocks of a volume that is open for writing are in one of three states in memory: free; *reserved* for a write
 * under way; *busy*: freed by a transaction that has not been committed, and not to be used before it is.
 */

/*
 * Reserve contiguous blocks for file data, in memory only.
 *
 *   goal   where to look first: a block number (0: anywhere)
 *   n      how many are wanted; the nearest run that holds all is preferred over a nearer, shorter one within reason
 *   got    how many were got: 1 .. n
 *
 * Returns: 0; -ENOSPC; -EAGAIN; -EUCLEAN (a damaged bitmap or descriptor: that group is left alone, if others can
 * serve). The reservation outlives the operation (if it succeeds) until inl_blocks_take or inl_blocks_unreserve.
 */
int inl_blocks_reserve(struct inl_handle *op, uint64_t goal, uint64_t n, uint64_t *pblk, uint64_t *got);

/* Reserved blocks become allocated: bitmaps, descriptors, counts. Credits: 2 per group touched. */
int inl_blocks_take(struct inl_handle *op, uint64_t pblk, uint64_t n);

/* Give reserved blocks back. Outside of operations, without vol->lock. */
void inl_blocks_unreserve(struct inl_volume *vol, uint64_t pblk, uint64_t n);

/* Reserve and take one block of metadata. */
int inl_block_alloc(struct inl_handle *op, uint64_t goal, uint64_t *pblk);

/*
 * Free blocks: clear in the bitmaps; busy until the transaction has been committed.
 *
 *   metadata  they are forgotten (inl_block_forget) too
 *
 * Returns: 0; -EUCLEAN (some are free already, or are part of the file system's own tables); -EAGAIN.
 * Credits: 2 per group.
 */
int inl_blocks_free(struct inl_handle *op, uint64_t pblk, uint64_t n, bool metadata);

/*
 * Allocate an inode number. Directories are spread over groups, other inodes lie near their directory.
 *
 *   dir    the parent; NULL for the root of nothing (then anywhere)
 *   mode   S_IFDIR matters
 *
 * Returns: 0; -ENOSPC; -EUCLEAN (what is left is damaged); -EAGAIN.
 * Credits: 2.
 */
int inl_ino_alloc(struct inl_handle *op, const struct inl_inode *dir, uint32_t mode, uint32_t *ino);

/* Free one that is allocated, else -EUCLEAN. Credits: 2. */
int inl_ino_free(struct inl_handle *op, uint32_t ino, bool is_dir);

/*
 * Are all other inodes in the block of the table where this one lies free? Then that block needs not be read
 * (inl_block_new will do), and must not be where the table has never been initialised.
 */
int inl_ino_alone(struct inl_handle *op, uint32_t ino, bool *alone);

/* What a group's descriptor says. */
struct inl_group {
	uint32_t n_free_blocks, n_free_inodes, n_dirs;
	uint32_t n_unused_inodes; /* at the end of the table: never used */
	uint16_t flags;		  /* EXT4_BG_* */
};
int inl_group_look(struct inl_handle *op, uint32_t group, struct inl_group *out);

/* Where data of an inode is best put: behind what it has (near lblk), else in the group of its inode. */
uint64_t inl_inode_goal(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk);

/* Total the groups' free counts in the superblock: at a clean close. Credits: 1. */
int inl_group_sync_super(struct inl_handle *op);

/* Change the superblock: 1024 bytes. Call inl_super_csum when done. */
int inl_super_change(struct inl_handle *op, uint8_t **sb);
void inl_super_csum(const struct inl_volume *vol, uint8_t *sb);

/* Set a feature: one of the words EXT4_SB_*COMPAT. Credits: 1. */
int inl_super_set_feature(struct inl_handle *op, unsigned at, uint32_t feature);

/* Change the superblock on the device itself, and flush: when the journal does not yet, or no longer, protect it. */
typedef void inl_super_fn(uint8_t *sb);
int inl_super_rewrite(struct inl_volume *vol, inl_super_fn *edit);

/* The state in memory. From open to close of a volume that is written. */
struct inl_alloc;
int inl_alloc_new(struct inl_volume *vol, struct inl_alloc **out);
void inl_alloc_free(struct inl_alloc *alloc); /* NULL is fine */
uint64_t inl_alloc_n_free_blocks(const struct inl_alloc *alloc); /* busy ones count as free, reserved ones do not */
uint32_t inl_alloc_n_free_inodes(const struct inl_alloc *alloc);

/*
 * The journal tells of its transactions, with vol->lock held: the running one has been frozen for its commit; that one
 * has been committed: what it freed is free.
 */
void inl_alloc_frozen(struct inl_alloc *alloc);
void inl_alloc_committed(struct inl_alloc *alloc);
bool inl_alloc_has_busy(const struct inl_alloc *alloc); /* would a commit make blocks free? */

/* Are there free blocks that are being discarded? With the lock held, which comes before vol->lock, there are none. */
bool inl_alloc_is_discarding(const struct inl_alloc *alloc);
void inl_alloc_lock_discarding(struct inl_alloc *alloc);
void inl_alloc_unlock_discarding(struct inl_alloc *alloc);

/* ---- extent.c, indirect.c: changing the map of an inode ---------------------------------------------------------- */

/*
 * All: within inl_inode_modify of the inode (they call it). They keep i_blocks and inode->run right, allocate and free
 * the blocks of the tree, and serve extent trees and indirect maps alike.
 */

/* The root of an empty map: extents where the volume has the feature. Sets the inode's flag. */
void inl_map_init(struct inl_inode *inode);

/*
 * Map a hole: [lblk, lblk + n) to the blocks at pblk, which are allocated already; i_blocks counts them. Merges with
 * its neighbours.
 *
 *   unwritten  extents only (-EOPNOTSUPP otherwise)
 *
 * Returns: 0; -EFBIG (beyond what the map can hold); -EEXIST (not a hole); -ENOSPC; -EUCLEAN; -EAGAIN.
 * Credits: inl_map_credits for up to inl_map_insert_max blocks.
 */
int inl_map_insert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, uint64_t pblk, bool unwritten);

/*
 * [lblk, lblk + n), which is mapped throughout by extents, becomes written, or unwritten. Splits and merges. Credits:
 * inl_map_credits per extent. -EINVAL: there is a hole in it; -EOPNOTSUPP: not extents.
 */
int inl_map_convert(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t n, bool unwritten);

/*
 * Unmap [lblk, end) from its end downwards and free the blocks, as far as the credits that are left allow.
 *
 *   metadata  the contents are metadata (directories, symbolic links, attribute values)
 *   left      what remains is [lblk, *left): lblk when all is done
 *
 * At least 64 credits that are left are enough to get on; with fewer it may do nothing, which is no error. -ENOSPC:
 * only where a hole is made within an extent.
 */
int inl_map_remove(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t end, bool metadata, uint64_t *left);

/* Credits of an insert or convert of one extent, allocation of nodes included. */
unsigned inl_map_credits(const struct inl_inode *inode);

/* The most blocks that this is enough for, of one insert. */
uint64_t inl_map_insert_max(const struct inl_inode *inode);

/* The first block that no map of this inode can have: 2^32 - 1, or what indirect blocks reach. */
uint64_t inl_map_max(const struct inl_inode *inode);

/* ---- direntry changes: dirmod.c, dxmod.c ------------------------------------------------------------------------- */

/* Names are as stored: bytes of a length, of encrypted directories the ciphertext. None of these checks permissions. */

/* Find an entry. 0 and *ino; -ENOENT. type may be NULL. */
int inl_dir_find(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t *ino, uint8_t *type);

/*
 * Add an entry that is known not to be there. Linear directories become indexed at their second block where the volume
 * has dir_index.
 *
 *   type   DT_*
 *
 * Returns: 0; -ENOSPC (no block, or the index is full: large_dir); -EUCLEAN. Times and links are the caller's.
 * Credits: inl_dir_credits.
 */
int inl_dir_add(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t ino, uint8_t type);

/* Remove an entry. -ENOENT. */
int inl_dir_remove(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len);

/* Make an entry (".." too) point elsewhere. -ENOENT. */
int inl_dir_replace(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len, uint32_t ino, uint8_t type);

/* The first block of a new directory: allocate, "." and "..". dir is empty and within inl_inode_modify. */
int inl_dir_init(struct inl_handle *op, struct inl_inode *dir, uint32_t parent);

/* 0 if there is nothing but "." and ".."; -ENOTEMPTY; -EUCLEAN. */
int inl_dir_empty(struct inl_handle *op, struct inl_inode *dir);

/* The directory that ".." names. */
int inl_dir_parent(struct inl_handle *op, struct inl_inode *dir, uint32_t *ino);

unsigned inl_dir_credits(const struct inl_inode *dir);

/*
 * A real name as it is stored, or would be: what the functions above take. Outside of operations (dir.c).
 *
 *   name     len bytes: a name that can be
 *   stored   INL_NAME_MAX bytes
 *
 * Returns: 0; -ENOKEY, -ENOPKG, -EINVAL, -EUCLEAN of a directory that is locked; -EIO; -ENOMEM.
 */
int inl_dir_stored_name(struct inl_inode *dir, const char *name, size_t len, uint8_t *stored, size_t *stored_len,
			struct inl_diag *diag);

/*
 * As inl_lookup without its check, and the name as it is stored. Outside of operations (dir.c).
 *
 *   stored   INL_NAME_MAX bytes
 */
int inl_dir_resolve(struct inl_inode *dir, const char *name, size_t len, uint8_t *stored, size_t *stored_len, uint64_t *ino,
		    struct inl_diag *diag);

/* ---- xattrmod.c -------------------------------------------------------------------------------------------------- */

/*
 * Set or remove an attribute.
 *
 *   index, name  as stored
 *   value        as stored; NULL: remove it
 *   flags        XATTR_CREATE, XATTR_REPLACE
 *
 * Returns: 0; -EEXIST; -ENODATA; -ENOSPC (no room, as Linux says it); -ERANGE; -EUCLEAN. Does not touch ctime.
 * Credits: inl_xattr_credits.
 */
int inl_raw_xattr_set(struct inl_handle *op, struct inl_inode *inode, uint8_t index, const char *name, const void *value,
		      size_t len, int flags);

/* Free all that attributes have outside the inode: of one that goes away. Credits: inl_xattr_credits. */
int inl_raw_xattrs_drop(struct inl_handle *op, struct inl_inode *inode);

/*
 * Could they be? -EOPNOTSUPP: one has its value in an inode of its own (ea_inode). Before the last name is taken away.
 */
int inl_raw_xattrs_may_drop(struct inl_handle *op, struct inl_inode *inode);

unsigned inl_xattr_credits(const struct inl_volume *vol);

/* ---- chain.c: what is above a directory -------------------------------------------------------------------------- */

struct inl_chain {
	struct inl_inode **dirs; /* references; the directory first */
	size_t n, room;
};

/*
 * Walk from dir up to the root, or to an inode: *met. Outside of operations; done in any case.
 *
 * Returns: 0; -ESTALE (somebody moved one meanwhile); -EUCLEAN (the way does not lead to the root).
 */
int inl_chain_walk(struct inl_chain *chain, struct inl_inode *dir, const struct inl_inode *what, bool *met,
		   struct inl_diag *diag);
int inl_chain_check(struct inl_handle *op, const struct inl_chain *chain); /* Is it still so? -ESTALE */
void inl_chain_done(struct inl_chain *chain);

/* ---- orphan.c: inodes that are to be deleted or shortened, should a crash come between --------------------------- */

/* Within operations. Both call inl_inode_modify. Credits: 3. */
int inl_orphan_add(struct inl_handle *op, struct inl_inode *inode);	 /* no effect if it is one */
int inl_orphan_remove(struct inl_handle *op, struct inl_inode *inode); /* no effect if it is none */

/*
 * Could it not be shortened as it should be? Then there may be blocks behind its end, and it must not grow before the
 * next open. Outside of operations.
 */
bool inl_orphan_is_aside(struct inl_inode *inode);

/* After the replay: delete and shorten what a crash has left. 0 or -errno. */
int inl_orphans_finish(struct inl_volume *vol, struct inl_diag *diag);

/* At the close. */
void inl_orphans_done(struct inl_volume *vol);

/*
 * An inode has lost its last link: if nobody but the caller has it and there is little of it, it is freed, else it
 * becomes an orphan. Within inl_inode_modify; the caller has one reference.
 * Credits: inl_inode_unlinked_credits.
 */
int inl_inode_unlinked(struct inl_handle *op, struct inl_inode *inode);
unsigned inl_inode_unlinked_credits(const struct inl_volume *vol);

/*
 * An inode without links whose last reference goes: shortened, freed. Outside of operations. Errors leave it to the
 * next open. No effect on one that is no orphan: it has been freed, or was never made.
 */
int inl_inode_delete(struct inl_inode *inode);

/*
 * Shorten to size bytes in steps, on the orphan list meanwhile: the operation that made it this long (inode->size is
 * size already) has put it there. After an error it stays there until the next open.
 */
int inl_inode_shorten(struct inl_inode *inode, uint64_t size, struct inl_diag *diag);

/* ---- txn.c, log.c, replay.c: the journal ------------------------------------------------------------------------- */

/*
 * Where committed transactions go. The blocks of a transaction and what it revokes are written to the log, then its
 * commit record; home they go at the next checkpoint.
 */
struct inl_log;

/* A block of a transaction as it was when it was frozen. */
struct inl_log_block {
	uint64_t pblk;
	const uint8_t *bytes;
};

struct inl_log_txn {
	uint32_t tid;
	const struct inl_log_block *blocks;
	size_t n_blocks;
	const uint64_t *revokes;
	size_t n_revokes;
};

/*
 * Open the log of a volume whose journal has been replayed (or was clean): map its blocks, set the features that Linux
 * sets at a mount, and make it active: needs_recovery in the superblock, then s_start and s_sequence, each flushed.
 *
 *   tid    of the first transaction to come
 */
int inl_log_open(struct inl_volume *vol, struct inl_diag *diag, struct inl_log **out);
void inl_log_free(struct inl_log *log); /* NULL is fine; writes nothing */
uint32_t inl_log_next_tid(const struct inl_log *log);
uint32_t inl_log_len(const struct inl_log *log);  /* blocks, for transactions */
uint32_t inl_log_left(const struct inl_log *log); /* blocks that can be written now */

/* How many blocks of the log a transaction takes, all its records included. */
uint32_t inl_log_need(const struct inl_log *log, size_t n_blocks, size_t n_revokes);

/*
 * Write a transaction without its commit record; flush; write the record; flush. The data that it exposes has been
 * written.
 */
int inl_log_commit(struct inl_log *log, const struct inl_log_txn *txn);

/* All that was logged is home and flushed: the log is empty from here. Durable on return. */
int inl_log_reset(struct inl_log *log);

/* Clean: s_start = 0. needs_recovery is the caller's, after. */
int inl_log_close(struct inl_log *log);

/* Nothing can be trusted any more: s_errno, if that can still be written. */
void inl_log_abort(struct inl_log *log, int err);

/*
 * Write every block of vol->journal home, flush, and mark the journal as empty (s_start = 0, s_sequence behind the last
 * one). For a volume that is going to be written. vol->journal is empty afterwards.
 */
int inl_journal_replay_home(struct inl_volume *vol, struct inl_diag *diag);

/*
 * The running transaction. Commit it, and wait: 0, or the error that aborted the journal, now or earlier. Also makes
 * durable what has been written to files before. Outside of operations.
 */
struct inl_txn;
int inl_txn_open(struct inl_volume *vol, struct inl_diag *diag);
int inl_txn_commit(struct inl_volume *vol);
int inl_txn_close(struct inl_volume *vol); /* commit, checkpoint, clean unmount */
bool inl_txn_writable(struct inl_volume *vol);
int inl_txn_error(struct inl_volume *vol); /* 0, or what ended it */
void inl_txn_journal(struct inl_volume *vol, struct inl_volume_journal *journal);

/* ---- mmp.c: multiple mount protection ---------------------------------------------------------------------------- */

/*
 * Take the volume (which has the feature) for this host, and say so until the stop, from a thread. Before anything is
 * written, the replay of the journal too. Waits (Linux's times: 11 seconds at least, twice) if the one before did not
 * say goodbye.
 *
 * Returns: 0; -EBUSY (somebody else has it, or is checking it: diag says who); -EUCLEAN; -EIO; -ENOMEM; -EAGAIN (no
 * thread).
 */
struct inl_mmp;
int inl_mmp_start(struct inl_volume *vol, struct inl_diag *diag, struct inl_mmp **out);

/* The same with another length of a second, in nanoseconds: for tests. */
int inl_mmp_start_with(struct inl_volume *vol, uint64_t second, struct inl_diag *diag, struct inl_mmp **out);

/* Is it still ours? -EBUSY: nothing may be written any more. Before each commit record; may read the block. */
int inl_mmp_check(struct inl_mmp *mmp);

/* Goodbye, after the last write. NULL is fine. 0; -EBUSY; -EIO: then the next one has to wait. */
int inl_mmp_stop(struct inl_mmp *mmp);

#endif
