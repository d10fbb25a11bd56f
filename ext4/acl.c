/*
 * ext4/acl.c: POSIX ACLs: as they lie on the medium (version 1), and as system calls have them (version 2).
 * Not here: where they are kept (xattr.c, xattrmod.c).
 * Read more: acl(5); Linux include/uapi/linux/posix_acl_xattr.h.
 */
#include "ext4/xattr.h"
#include <errno.h>
#include <sys/stat.h>

#define DISK_VERSION 1u
#define CALL_VERSION 2u
#define NO_ID	     0xffffffffu
#define ACL_LEN_MIN  16u /* bytes on the medium: the version, and the three entries that every ACL has */

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static bool has_id(uint16_t tag)
{
	return tag == USER || tag == GROUP;
}

static bool known(uint16_t tag)
{
	return has_id(tag) || tag == USER_OBJ || tag == GROUP_OBJ || tag == MASK || tag == OTHER;
}

int inl_acl_convert(const uint8_t *value, size_t len, uint8_t *out)
{
	size_t at = 4, to = 4;

	if (len < 4 || inl_load_le32(value) != DISK_VERSION)
		return -EUCLEAN;
	inl_store_le32(out, CALL_VERSION);
	while (at < len) {
		size_t n;
		uint16_t tag;

		if (len - at < 4)
			return -EUCLEAN;
		tag = inl_load_le16(value + at);
		n = has_id(tag) ? 8 : 4;
		if (!known(tag) || len - at < n)
			return -EUCLEAN;
		memcpy(out + to, value + at, 4);
		inl_store_le32(out + to + 4, has_id(tag) ? inl_load_le32(value + at + 4) : NO_ID);
		at += n;
		to += 8;
	}
	return (int)to;
}

/* What has been seen of an ACL, entry by entry. */
struct seen {
	uint16_t tag;	/* the last one */
	bool any_named; /* users or groups: there must be a mask */
	bool has_mask;
	uint16_t perm[OTHER + 1];
};

/* The order is that of the tags: each once but USER and GROUP, the three without MASK and names at least. */
static bool in_order(const struct seen *seen, uint16_t tag)
{
	switch (tag) {
	case USER_OBJ:
		return seen->tag == 0;
	case USER:
		return seen->tag == USER_OBJ || seen->tag == USER;
	case GROUP_OBJ:
		return seen->tag == USER_OBJ || seen->tag == USER;
	case GROUP:
		return seen->tag == GROUP_OBJ || seen->tag == GROUP;
	case MASK:
		return seen->tag == GROUP_OBJ || seen->tag == GROUP;
	case OTHER:
		return seen->tag == MASK || (seen->tag == GROUP_OBJ && !seen->any_named);
	default:
		return false;
	}
}

/* Also when it is not in order, the rest is looked at. */
static bool see(struct seen *seen, const uint8_t *entry)
{
	uint16_t tag = inl_load_le16(entry), perm = inl_load_le16(entry + 2);

	if (!in_order(seen, tag) || perm > 7)
		return false;
	seen->tag = tag;
	seen->any_named |= has_id(tag);
	seen->has_mask |= tag == MASK;
	seen->perm[tag] = perm;
	return true;
}

/* The group's bits of a mode are the mask where there is one. */
static uint16_t mode_of(const struct seen *seen)
{
	uint16_t group = seen->perm[seen->has_mask ? MASK : GROUP_OBJ];

	return (uint16_t)(seen->perm[USER_OBJ] << 6 | group << 3 | seen->perm[OTHER]);
}

int inl_acl_parse(const uint8_t *value, size_t len, uint8_t *out, struct inl_acl *acl)
{
	struct seen seen = { 0 };
	bool good = true;
	size_t at, to = 4;

	if (len < 4)
		return -EINVAL;
	if (inl_load_le32(value) != CALL_VERSION)
		return -EOPNOTSUPP;
	if ((len - 4) % 8)
		return -EINVAL;
	inl_store_le32(out, DISK_VERSION);
	for (at = 4; at < len; at += 8) {
		uint16_t tag = inl_load_le16(value + at);
		size_t n = has_id(tag) ? 8 : 4;

		if (!known(tag) || (has_id(tag) && inl_load_le32(value + at + 4) == NO_ID))
			return -EINVAL;
		good &= see(&seen, value + at);
		memcpy(out + to, value + at, n);
		to += n;
	}
	acl->empty = len == 4;
	acl->good = acl->empty || (good && seen.tag == OTHER);
	acl->equiv = !seen.has_mask;
	acl->mode = mode_of(&seen);
	acl->len = to;
	return 0;
}

/* ---- with the mode ----------------------------------------------------------------------------------------------- */

/* Where the permissions of a tag's entry lie; 0: there is none. -EUCLEAN. */
static int find(const uint8_t *acl, size_t len, uint16_t tag, size_t *perm)
{
	size_t at = 4;

	*perm = 0;
	if (len < 4 || inl_load_le32(acl) != DISK_VERSION)
		return -EUCLEAN;
	while (at < len) {
		uint16_t here;

		if (len - at < 4)
			return -EUCLEAN;
		here = inl_load_le16(acl + at);
		if (here == tag)
			*perm = at + 2;
		at += has_id(here) ? 8 : 4;
	}
	return at == len ? 0 : -EUCLEAN;
}

/* Where the permissions lie that are in the mode too: the group's are those of the mask where there is one. */
static int find_all(const uint8_t *acl, size_t len, size_t *user, size_t *group, size_t *other)
{
	size_t mask;
	int err = find(acl, len, USER_OBJ, user);

	if (!err)
		err = find(acl, len, GROUP_OBJ, group);
	if (!err)
		err = find(acl, len, MASK, &mask);
	if (!err)
		err = find(acl, len, OTHER, other);
	if (err || !*user || !*group || !*other)
		return -EUCLEAN;
	if (mask)
		*group = mask;
	return 0;
}

int inl_acl_set_mode(uint8_t *acl, size_t len, uint32_t mode)
{
	size_t user, group, other;
	int err = find_all(acl, len, &user, &group, &other);

	if (err)
		return err;
	inl_store_le16(acl + user, mode >> 6 & 7);
	inl_store_le16(acl + group, mode >> 3 & 7);
	inl_store_le16(acl + other, mode & 7);
	return 0;
}

int inl_acl_narrow(uint8_t *acl, size_t len, uint32_t *mode, bool *equiv)
{
	size_t user, group, other;
	uint32_t both;
	int err = find_all(acl, len, &user, &group, &other);

	if (err)
		return err;
	both = (inl_load_le16(acl + user) & 7u) << 6 | (inl_load_le16(acl + group) & 7u) << 3 | (inl_load_le16(acl + other) & 7u);
	both &= *mode;
	*mode = (*mode & ~0777u) | both;
	*equiv = len == ACL_LEN_MIN;
	return inl_acl_set_mode(acl, len, both);
}
