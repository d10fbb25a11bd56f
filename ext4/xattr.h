/*
 * ext4/xattr.h: what reading (xattr.c) and changing (xattrmod.c) attributes and POSIX ACLs (acl.c) share.
 * Not here: what the rest of ext4/ calls (own.h, change.h).
 * Read more: Linux Documentation/filesystems/ext4/attributes.rst.
 */
#ifndef INLAY_EXT4_XATTR_H
#define INLAY_EXT4_XATTR_H

#include "ext4/change.h"

#define XATTR_MAGIC	   0xea020000u
#define XATTR_ENTRY_SIZE   16u /* bytes, before the name */
#define XATTR_HEADER_SIZE  32u /* bytes, of a block */
#define XATTR_BODY_HEADER  4u  /* bytes, in an inode: the magic */
#define XATTR_REFCOUNT	   4u  /* offsets in the header of a block */
#define XATTR_BLOCKS	   8u
#define XATTR_HASH	   12u
#define XATTR_CSUM	   16u
#define XATTR_VALUE_MAX	   65536u /* bytes: XATTR_SIZE_MAX */

enum {
	XATTR_INDEX_USER = 1,
	XATTR_INDEX_ACL_ACCESS = 2,
	XATTR_INDEX_ACL_DEFAULT = 3,
	XATTR_INDEX_TRUSTED = 4,
	XATTR_INDEX_SECURITY = 6,
	XATTR_INDEX_SYSTEM = 7,
	XATTR_INDEX_ENCRYPTION = 9,
};

/* Bytes that an entry, and its value, take. */
static inline size_t inl_xattr_entry_len(size_t name_len)
{
	return (XATTR_ENTRY_SIZE + name_len + 3) & ~(size_t)3;
}

static inline size_t inl_xattr_value_len(size_t size)
{
	return (size + 3) & ~(size_t)3;
}

/*
 * Where the attribute area of an inode begins, magic included: 0 if it has no room for one.
 *
 *   body    the inode as it lies in the table
 *
 * Returns: 0; -EUCLEAN.
 */
int inl_xattr_body_start(const struct inl_volume *vol, const uint8_t *body, size_t *start);

/* The inode as it lies in the table, also while it is being changed: inode_size bytes. */
void inl_xattr_body_copy(const struct inl_inode *inode, uint8_t *body);

/* The block of an inode's attributes; 0: none. */
uint64_t inl_xattr_block(const struct inl_inode *inode);
uint32_t inl_xattr_block_csum(const struct inl_volume *vol, uint64_t pblk, const uint8_t *block);

/* Look at that block, which there is, checked: within an operation. */
int inl_xattr_block_look(struct inl_handle *op, struct inl_inode *inode, const uint8_t **bytes);

bool inl_xattr_is(const struct inl_raw_xattr *xattr, uint8_t index, const char *name);

/* As inl_raw_xattr_set; *changed is set if anything had to be. */
int inl_xattr_change(struct inl_handle *op, struct inl_inode *inode, uint8_t index, const char *name, const void *value,
		     size_t len, int flags, bool *changed);

/* ---- acl.c: POSIX ACLs. Bytes in, no I/O ------------------------------------------------------------------------- */

struct inl_acl {
	bool empty;    /* no entries, which means none at all */
	bool good;     /* Linux would accept it */
	bool equiv;    /* it says nothing that the mode does not */
	uint16_t mode; /* the permissions that it gives */
	size_t len;    /* bytes on the medium */
};

/*
 * Convert one from the form that setxattr(2) takes, and say what is to be said of it.
 *
 *   out    at least len bytes
 *
 * Returns: 0; -EINVAL, -EOPNOTSUPP (version) as Linux, of what looks like no ACL at all.
 */
int inl_acl_parse(const uint8_t *value, size_t len, uint8_t *out, struct inl_acl *acl);

/* Have an access ACL, as it lies on the medium, say what a mode says. -EUCLEAN. */
int inl_acl_set_mode(uint8_t *acl, size_t len, uint32_t mode);

/*
 * Make of a default ACL, as it lies on the medium, the access ACL of an inode that is made with a mode: both grant what
 * both granted before.
 *
 *   equiv   the ACL says nothing that the mode does not
 *
 * Returns: 0; -EUCLEAN.
 */
int inl_acl_narrow(uint8_t *acl, size_t len, uint32_t *mode, bool *equiv);
#define INL_ACL_LEN_NONE 4u /* bytes on the medium of one without entries, which is none */

#endif
