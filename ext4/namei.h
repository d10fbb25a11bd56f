/*
 * ext4/namei.h: what creating, linking, removing and renaming share: names.c, namei.c, rename.c.
 * Not here: directories as such (change.h).
 * Read more: inlay/volume.h, "changing".
 *
 * Names in encrypted directories are encrypted, and keys of what is made derived, before the operation, which sees
 * first whether the directory is still what it was.
 *
 * Inodes cannot be loaded within an operation. So a name is looked up before, its inode loaded, and the operation sees
 * first whether the name still stands for it: if not (-ESTALE, which nobody else returns), all begins again.
 */
#ifndef INLAY_EXT4_NAMEI_H
#define INLAY_EXT4_NAMEI_H

#include "ext4/change.h"
#include <sys/stat.h>

#define INL_LINKS_MAX 65000u

/* DT_* */
static inline uint8_t inl_dirent_type(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

/* An operation. The credits are upper bounds, which small journals do not have room for. */
int inl_names_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);

/* ---- what may be ------------------------------------------------------------------------------------------------- */

/* A name to be made: -EEXIST ("."), -ENAMETOOLONG, -EINVAL. One that should be there: -ENAMETOOLONG, -ENOENT. */
int inl_name_check_new(const char *name, size_t len);
int inl_name_check_old(const char *name, size_t len);

/* -EOPNOTSUPP: inline, without case, the value of an attribute. */
int inl_check_features(const struct inl_inode *inode, struct inl_diag *diag);

/* A directory whose entries are to change. -ENOTDIR; -EROFS; -EOPNOTSUPP. */
int inl_dir_check(const struct inl_inode *dir, struct inl_diag *diag);

/* May a name be taken from a directory, and from this inode? -EPERM; -EBUSY; -EOPNOTSUPP. */
int inl_check_taking(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag);

/* ---- inodes that are made ---------------------------------------------------------------------------------------- */

/*
 * One in this directory, which has no name and no contents yet: what inl_create is told of it, and what it inherits.
 *
 *   crypt   its encryption, which it takes over; or one without
 *   out     set as soon as there is an object, which must be put also if this fails
 *
 * Returns: as inl_ino_alloc, inl_inode_fill, inl_new_crypt_give and inl_acls_inherit.
 * Credits: INL_MAKE_CREDITS; inl_xattr_credits more where it is encrypted or which has INL_ATTR_INHERIT.
 */
#define INL_MAKE_CREDITS 3u
int inl_inode_make(struct inl_handle *op, struct inl_inode *dir, uint32_t mode, const struct inl_attr *attr, unsigned which,
		   struct inl_new_crypt *crypt, struct inl_inode **out);

/* ---- links and times: within inl_inode_modify of the inode, or calling it ---------------------------------------- */

bool inl_links_full(const struct inl_inode *dir); /* no subdirectory more */
int inl_links_too_many(struct inl_diag *diag);	 /* -EMLINK */
void inl_links_inc(struct inl_inode *dir);	 /* one subdirectory more; less */
void inl_links_dec(struct inl_inode *dir);
int inl_dir_changed(struct inl_handle *op, struct inl_inode *dir, struct inl_time now);
int inl_inode_changed(struct inl_handle *op, struct inl_inode *inode, struct inl_time now);

/* One name less: of a directory the only one. */
int inl_link_take(struct inl_handle *op, struct inl_inode *inode, struct inl_time now);

/* ---- an entry of a directory ------------------------------------------------------------------------------------- */

struct inl_entry_ref {
	struct inl_inode *dir;
	const char *name;
	size_t len;
	uint8_t stored[INL_NAME_MAX]; /* the name as it lies in the directory */
	size_t stored_len;
	bool encrypted;		 /* the directory, when that was looked up */
	int locked;		 /* why it had no key then: its names could only be taken away; 0: it had one */
	struct inl_inode *inode; /* who has the name; NULL: nobody */
};

/* Look the name up and load its inode. Not finding it is no error. */
int inl_entry_get(struct inl_entry_ref *entry, struct inl_diag *diag);
void inl_entry_put(struct inl_entry_ref *entry);

/* Does the name still stand for what it did? -ESTALE; -ENOENT: the directory was removed. */
int inl_entry_check(struct inl_handle *op, struct inl_entry_ref *entry);

/* Try until nobody has come between. */
typedef int inl_attempt_fn(void *arg, struct inl_diag *diag);
int inl_settle(inl_attempt_fn *attempt, void *arg, struct inl_diag *diag);

#endif
