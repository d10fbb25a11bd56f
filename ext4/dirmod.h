/*
 * ext4/dirmod.h: what the files that change directories share: blocks of directories, entries in them, the index.
 * Not here: what the rest of ext4/ calls (own.h, change.h).
 * Read more: Linux Documentation/filesystems/ext4/directory.rst.
 */
#ifndef INLAY_EXT4_DIRMOD_H
#define INLAY_EXT4_DIRMOD_H

#include "ext4/change.h"

#define INL_DX_LEVELS	3u /* root included; large_dir has one more than others */
#define INL_DX_ROOT_AT	32u
#define INL_DX_NODE_AT	8u
#define INL_DX_MAX_LBLK 0x0fffffffu

/* A block of a directory, as it is now. */
struct inl_dir_block {
	uint64_t lblk, pblk;
	const uint8_t *bytes;
};

/* ---- dir.c ------------------------------------------------------------------------------------------------------- */

struct inl_dirent_format inl_dir_format(const struct inl_inode *dir);
int inl_dir_block_verify(struct inl_inode *dir, const uint8_t *block, unsigned arg);

/*
 * Get a block of a directory, for reading only; also outside of operations, where nothing changes. A hole is damage:
 * *skip then says how many blocks it is long (else 1).
 */
int inl_dir_block_get(struct inl_inode *dir, uint64_t lblk, struct inl_block **block, uint64_t *skip,
		      struct inl_diag *diag);

/* An inline directory, of whatever block size, is not longer. */
#define INL_INLINE_DIR_MAX 65536u

/* ---- dxwalk.c ---------------------------------------------------------------------------------------------------- */

struct inl_dx_step {
	struct inl_block *block;
	struct inl_dx_node node;
	unsigned at;
};

/* The way through the index to a leaf, for reading only. Done in any case. */
struct inl_dx_walk {
	struct inl_inode *dir;
	struct inl_dx_step steps[INL_DX_LEVELS]; /* the root first */
	unsigned n;
	uint64_t n_left; /* how many more leaves: in a sound index none is visited twice */
};

/* Read the root; then to the leaf where a hash is, or would be. 0, or an error: the index is of no use. */
int inl_dx_walk_begin(struct inl_dx_walk *walk, struct inl_inode *dir);
int inl_dx_walk_find(struct inl_dx_walk *walk, uint32_t hash);
void inl_dx_walk_done(struct inl_dx_walk *walk);

/* The leaf; the hash in the index where it begins (its lowest bit set: it continues the one before), and the next. */
uint64_t inl_dx_walk_leaf(const struct inl_dx_walk *walk);
uint32_t inl_dx_walk_from(const struct inl_dx_walk *walk);
bool inl_dx_walk_to(const struct inl_dx_walk *walk, uint32_t *hash); /* false: there is no next one */

/* On to the next leaf. -EUCLEAN also if there is none. */
int inl_dx_walk_next(struct inl_dx_walk *walk);

/* Read all nodes: are their hashes in order, and does each block have its one place? 0; -EUCLEAN; -EIO; -ENOMEM. */
int inl_dx_check(struct inl_inode *dir);

/* ---- dirmod.c ---------------------------------------------------------------------------------------------------- */

int inl_dir_look(struct inl_handle *op, struct inl_inode *dir, uint64_t lblk, struct inl_dir_block *block);

/* A new block behind the last one, all zeros. */
int inl_dir_append(struct inl_handle *op, struct inl_inode *dir, struct inl_dir_block *block, uint8_t **bytes);

/* How many bytes of a leaf are for entries: all but the checksum. */
uint32_t inl_dir_leaf_size(const struct inl_inode *dir);

/* A new leaf's checksum entry; the checksum of a leaf that was changed. */
void inl_dir_leaf_init(const struct inl_inode *dir, uint8_t *bytes);
void inl_dir_leaf_seal(const struct inl_inode *dir, uint8_t *bytes);

void inl_dirent_set_rec_len(uint8_t *entry, uint32_t rec_len, uint32_t block_size);

/* What an entry with a name of so many bytes takes. */
static inline uint32_t inl_dirent_need(size_t name_len)
{
	return (uint32_t)(8 + name_len + 3) & ~3u;
}

struct inl_new_dirent {
	const uint8_t *name;
	size_t len;
	uint32_t ino;
	uint8_t type; /* DT_* */
};

/* Put an entry into a leaf. 0; -ENOSPC (no room in this one); -EUCLEAN. */
int inl_dir_leaf_add(struct inl_handle *op, struct inl_inode *dir, const struct inl_dir_block *block,
		     const struct inl_new_dirent *entry);

/* ---- dxmod.c ----------------------------------------------------------------------------------------------------- */

struct inl_dx_frame {
	struct inl_dir_block block;
	struct inl_dx_node node;
	unsigned at;
};

/* The way through the index to the leaf where a hash is, or would be. */
struct inl_dx_path {
	struct inl_dx_frame frames[INL_DX_LEVELS];
	unsigned n;
	uint8_t hash_version;
	uint32_t hash;
	uint64_t leaf;	 /* block of the directory */
	uint64_t n_left; /* how many more leaves: in a sound index none is visited twice */
};

/* -EUCLEAN, -EOPNOTSUPP: the index cannot be used. */
int inl_dx_path_find(struct inl_handle *op, struct inl_inode *dir, const uint8_t *name, size_t len,
		     struct inl_dx_path *path);

/* The next leaf, if it may hold the same hash too: 1; 0; -errno. */
int inl_dx_path_next(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path);

/* Put an entry where its path leads; the path is of no use afterwards. */
int inl_dx_add(struct inl_handle *op, struct inl_inode *dir, struct inl_dx_path *path,
	       const struct inl_new_dirent *entry);

/* The checksum of the root block. */
void inl_dx_root_seal(const struct inl_inode *dir, uint8_t *bytes);

/* A directory of one block, which is full, becomes an indexed one of two. */
int inl_dx_make(struct inl_handle *op, struct inl_inode *dir);

#endif
