/*
 * ext4/xattr.c: extended attributes: in the inode, in a block, with values in inodes of their own; POSIX ACLs.
 * Not here: what the encryption context means (fscrypt/). Own code because libext2fs has no name for index 9.
 * Read more: Linux Documentation/filesystems/ext4/attributes.rst.
 */
#include "ext4/own.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XATTR_MAGIC   0xea020000u
#define ENTRY_SIZE    16u
#define BLOCK_HEADER  32u
#define VALUE_MAX     65536u /* bytes: XATTR_SIZE_MAX */
#define INDEX_ACL_ACCESS  2
#define INDEX_ACL_DEFAULT 3
#define INDEX_SYSTEM	  7
#define INDEX_ENCRYPTION  9

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The four zero bytes that end the list may be missing where the area is full to the last byte. */
static bool list_ends(const uint8_t *area, size_t len, size_t at)
{
	return len - at < 4 || inl_load_le32(area + at) == 0;
}

int inl_xattr_area_walk(const uint8_t *area, size_t len, size_t first, inl_raw_xattr_fn each, void *arg)
{
	size_t at = first;

	while (at <= len && !list_ends(area, len, at)) {
		struct inl_raw_xattr xattr;
		uint32_t value_at;
		int err;

		if (len - at < ENTRY_SIZE || len - at - ENTRY_SIZE < area[at])
			return -EUCLEAN;
		xattr.name_len = area[at];
		xattr.index = area[at + 1];
		value_at = inl_load_le16(area + at + 2);
		xattr.value_ino = inl_load_le32(area + at + 4);
		xattr.size = inl_load_le32(area + at + 8);
		xattr.name = (const char *)area + at + ENTRY_SIZE;
		xattr.value = xattr.value_ino ? NULL : area + (xattr.size ? value_at : 0);
		if (xattr.size > VALUE_MAX)
			return -EUCLEAN;
		if (!xattr.value_ino && xattr.size && (value_at > len || xattr.size > len - value_at))
			return -EUCLEAN;
		if (memchr(xattr.name, 0, xattr.name_len))
			return -EUCLEAN;
		err = each(&xattr, arg);
		if (err)
			return err;
		at += (ENTRY_SIZE + xattr.name_len + 3) & ~(size_t)3;
	}
	return 0;
}

int inl_acl_convert(const uint8_t *value, size_t len, uint8_t *out)
{
	enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
	size_t at = 4, to = 4;

	if (len < 4 || inl_load_le32(value) != 1)
		return -EUCLEAN;
	inl_store_le32(out, 2);
	while (at < len) {
		uint16_t tag;
		bool has_id;

		if (len - at < 4)
			return -EUCLEAN;
		tag = inl_load_le16(value + at);
		has_id = tag == USER || tag == GROUP;
		if ((!has_id && tag != USER_OBJ && tag != GROUP_OBJ && tag != MASK && tag != OTHER) ||
		    (has_id && len - at < 8))
			return -EUCLEAN;
		memcpy(out + to, value + at, 4);
		inl_store_le32(out + to + 4, has_id ? inl_load_le32(value + at + 4) : ~0u);
		at += has_id ? 8 : 4;
		to += 8;
	}
	return (int)to;
}

/* ---- areas of an inode ------------------------------------------------------------------------------------------- */

static int damaged(struct inl_inode *inode, int err, struct inl_diag *diag)
{
	if (err == -EUCLEAN)
		return inl_diag_set(diag, err, "the attributes of inode %u are damaged", inode->ino);
	if (err == -EIO)
		return inl_diag_set(diag, err, "the attributes of inode %u cannot be read", inode->ino);
	return err;
}

static int walk_body(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg)
{
	size_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super), start;

	if (inode_size <= 128)
		return 0;
	start = 128 + (size_t)inode->raw.i_extra_isize;
	if (start % 4 || start > inode_size)
		return -EUCLEAN;
	if (inode_size - start < 8) /* no room for any */
		return 0;
	if (inl_load_le32(inode->body + start) != XATTR_MAGIC)
		return 0;
	start += 4;
	return inl_xattr_area_walk(inode->body + start, inode_size - start, 0, each, arg);
}

static int verify_block(struct inl_inode *inode, const uint8_t *block, unsigned arg)
{
	static const uint8_t zero[4];
	struct inl_volume *vol = inode->vol;
	uint64_t pblk = ext2fs_file_acl_block(vol->fs, (struct ext2_inode *)&inode->raw);
	uint8_t le[8];
	uint32_t crc;

	if (inl_load_le32(block) != XATTR_MAGIC || inl_load_le32(block + 8) != 1)
		return -EUCLEAN;
	if (!vol->metadata_csum)
		return 0;
	inl_store_le64(le, pblk);
	crc = inl_crc32c(vol->csum_seed, le, sizeof(le));
	crc = inl_crc32c(crc, block, 16);
	crc = inl_crc32c(crc, zero, 4);
	crc = inl_crc32c(crc, block + 20, vol->block_size - 20);
	return crc == inl_load_le32(block + 16) ? 0 : -EUCLEAN;
}

static int walk_block(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg)
{
	INL_BLOCK_SCOPED struct inl_block *block = NULL;
	struct inl_volume *vol = inode->vol;
	uint64_t pblk = ext2fs_file_acl_block(vol->fs, (struct ext2_inode *)&inode->raw);
	int err;

	if (!pblk)
		return 0;
	if (!inl_block_in_range(vol, pblk, 1))
		return -EUCLEAN;
	err = inl_block_get_verified(inode, pblk, verify_block, 0, &block);
	return err ? err :
		     inl_xattr_area_walk(inl_block_bytes(block), vol->block_size, BLOCK_HEADER, each, arg);
}

int inl_raw_xattrs(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg, struct inl_diag *diag)
{
	int err = walk_body(inode, each, arg);

	if (!err)
		err = walk_block(inode, each, arg);
	return damaged(inode, err, diag);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static bool is_inline_data(const struct inl_raw_xattr *xattr)
{
	return xattr->index == INDEX_SYSTEM && xattr->name_len == 4 && !memcmp(xattr->name, "data", 4);
}

/* Fetch a value wherever it lies; buf has xattr->size bytes. */
static int fetch(struct inl_inode *inode, const struct inl_raw_xattr *xattr, void *buf, struct inl_diag *diag)
{
	struct inl_inode *holder;
	size_t got = 0;
	int err;

	if (!xattr->value_ino) {
		memcpy(buf, xattr->value, xattr->size);
		return 0;
	}
	/* What opening and reading an inode depend on is never in another one: damage could make that a circle. */
	if (xattr->index == INDEX_ENCRYPTION || is_inline_data(xattr))
		return -EUCLEAN;
	err = inl_inode_load(inode->vol, xattr->value_ino, diag, &holder);
	if (err)
		return err;
	if (!(holder->raw.i_flags & EXT4_FL_EA_INODE) || inl_is_inline(holder))
		err = -EUCLEAN;
	if (!err)
		err = inl_data_read(holder, 0, buf, xattr->size, &got, diag);
	if (!err && got != xattr->size)
		err = -EUCLEAN;
	inl_inode_put(holder);
	return err;
}

struct get {
	struct inl_inode *inode;
	uint8_t index;
	const char *name;
	void *buf;
	size_t size, *len;
	struct inl_diag *diag;
};

static int get_one(const struct inl_raw_xattr *xattr, void *arg)
{
	struct get *get = arg;
	int err;

	if (xattr->index != get->index || xattr->name_len != strlen(get->name) ||
	    memcmp(xattr->name, get->name, xattr->name_len))
		return 0;
	if (xattr->size > get->size)
		return -ERANGE;
	err = fetch(get->inode, xattr, get->buf, get->diag);
	if (err)
		return err;
	*get->len = xattr->size;
	return 1;
}

int inl_raw_xattr_get(struct inl_inode *inode, uint8_t index, const char *name, void *buf, size_t size, size_t *len,
		      struct inl_diag *diag)
{
	struct get get = { inode, index, name, buf, size, len, diag };
	int err = inl_raw_xattrs(inode, get_one, &get, diag);

	return err > 0 ? 0 : err < 0 ? err : -ENODATA;
}

/* ---- for callers ------------------------------------------------------------------------------------------------- */

static const char *const prefixes[] = {
	[0] = "",
	[1] = "user.",
	[2] = "system.posix_acl_access",
	[3] = "system.posix_acl_default",
	[4] = "trusted.",
	[6] = "security.",
	[7] = "system.",
	[8] = "system.richacl",
};

struct list {
	struct inl_inode *inode;
	int (*each)(const char *name, const void *value, size_t len, void *arg);
	void *arg;
	struct inl_diag *diag;
	uint8_t *value, *converted;
	size_t room;
};

static int room_for(struct list *list, size_t len)
{
	uint8_t *value, *converted;

	if (len <= list->room)
		return 0;
	value = realloc(list->value, len);
	list->value = value ? value : list->value;
	converted = realloc(list->converted, 2 * len + 4);
	list->converted = converted ? converted : list->converted;
	if (!value || !converted)
		return -ENOMEM;
	list->room = len;
	return 0;
}

static bool hidden(const struct inl_raw_xattr *xattr)
{
	return xattr->index == INDEX_ENCRYPTION || xattr->index >= sizeof(prefixes) / sizeof(prefixes[0]) ||
	       !prefixes[xattr->index] || is_inline_data(xattr);
}

static int list_one(const struct inl_raw_xattr *xattr, void *arg)
{
	struct list *list = arg;
	char name[64 + 256];
	const uint8_t *value;
	int len = (int)xattr->size, err;

	if (hidden(xattr))
		return 0;
	snprintf(name, sizeof(name), "%s%.*s", prefixes[xattr->index], xattr->name_len, xattr->name);
	err = room_for(list, xattr->size);
	if (!err)
		err = fetch(list->inode, xattr, list->value, list->diag);
	if (err)
		return err;
	value = list->value;
	if (xattr->index == INDEX_ACL_ACCESS || xattr->index == INDEX_ACL_DEFAULT) {
		len = inl_acl_convert(list->value, xattr->size, list->converted);
		value = list->converted;
		if (len < 0)
			return len;
	}
	return list->each(name, value, (size_t)len, list->arg);
}

int inl_xattrs(struct inl_inode *inode, int (*each)(const char *name, const void *value, size_t len, void *arg),
	       void *arg, struct inl_diag *diag)
{
	struct list list = { .inode = inode, .each = each, .arg = arg, .diag = diag };
	int err = room_for(&list, 64);

	if (!err)
		err = inl_raw_xattrs(inode, list_one, &list, diag);
	free(list.value);
	free(list.converted);
	return err;
}
