/*
 * ext4/xattr.c: extended attributes: in the inode, in a block, with values in inodes of their own.
 * Not here: where they are put when they change (xattrmod.c); POSIX ACLs (acl.c); what the encryption context means
 * (fscrypt/). Own code because libext2fs has no name for index 9.
 * Read more: Linux Documentation/filesystems/ext4/attributes.rst; xattr(7).
 */
#include "ext4/xattr.h"
#include "base/crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_LEN 255u /* bytes of a full name, as in Linux */

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

		if (len - at < XATTR_ENTRY_SIZE || len - at - XATTR_ENTRY_SIZE < area[at])
			return -EUCLEAN;
		xattr.name_len = area[at];
		xattr.index = area[at + 1];
		value_at = inl_load_le16(area + at + 2);
		xattr.value_ino = inl_load_le32(area + at + 4);
		xattr.size = inl_load_le32(area + at + 8);
		xattr.hash = inl_load_le32(area + at + 12);
		xattr.name = (const char *)area + at + XATTR_ENTRY_SIZE;
		xattr.value = xattr.value_ino ? NULL : area + (xattr.size ? value_at : 0);
		if (xattr.size > XATTR_VALUE_MAX)
			return -EUCLEAN;
		if (!xattr.value_ino && xattr.size && (value_at > len || xattr.size > len - value_at))
			return -EUCLEAN;
		if (memchr(xattr.name, 0, xattr.name_len))
			return -EUCLEAN;
		err = each(&xattr, arg);
		if (err)
			return err;
		at += inl_xattr_entry_len(xattr.name_len);
	}
	return 0;
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

int inl_xattr_body_start(const struct inl_volume *vol, const uint8_t *body, size_t *start)
{
	size_t inode_size = EXT2_INODE_SIZE(vol->fs->super), at;

	*start = 0;
	if (inode_size <= 128)
		return 0;
	at = 128 + (size_t)inl_load_le16(body + 128);
	if (at == 128) /* as Linux: nothing is there, whatever it looks like */
		return 0;
	if (at % 4 || at > inode_size)
		return -EUCLEAN;
	*start = inode_size - at < XATTR_BODY_HEADER + 4 ? 0 : at;
	return 0;
}

void inl_xattr_body_copy(const struct inl_inode *inode, uint8_t *body)
{
	size_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super), n = INL_MIN(inode_size, sizeof(inode->raw));

	memcpy(body, &inode->raw, n);
	memcpy(body + n, inode->body + n, inode_size - n);
}

uint64_t inl_xattr_block(const struct inl_inode *inode)
{
	return ext2fs_file_acl_block(inode->vol->fs, (const struct ext2_inode *)&inode->raw);
}

/* body: an inode as it lies in the table. */
static int walk_body(const struct inl_volume *vol, const uint8_t *body, inl_raw_xattr_fn each, void *arg)
{
	size_t inode_size = EXT2_INODE_SIZE(vol->fs->super), start;
	int err = inl_xattr_body_start(vol, body, &start);

	if (err || !start || inl_load_le32(body + start) != XATTR_MAGIC)
		return err;
	start += XATTR_BODY_HEADER;
	return inl_xattr_area_walk(body + start, inode_size - start, 0, each, arg);
}

uint32_t inl_xattr_block_csum(const struct inl_volume *vol, uint64_t pblk, const uint8_t *block)
{
	static const uint8_t zero[4];
	uint8_t le[8];
	uint32_t crc;

	inl_store_le64(le, pblk);
	crc = inl_crc32c(vol->csum_seed, le, sizeof(le));
	crc = inl_crc32c(crc, block, XATTR_CSUM);
	crc = inl_crc32c(crc, zero, 4);
	return inl_crc32c(crc, block + XATTR_CSUM + 4, vol->block_size - XATTR_CSUM - 4);
}

static int verify_block(struct inl_inode *inode, const uint8_t *block, unsigned arg)
{
	struct inl_volume *vol = inode->vol;

	if (inl_load_le32(block) != XATTR_MAGIC || inl_load_le32(block + XATTR_BLOCKS) != 1)
		return -EUCLEAN;
	if (!vol->metadata_csum)
		return 0;
	return inl_xattr_block_csum(vol, inl_xattr_block(inode), block) == inl_load_le32(block + XATTR_CSUM) ?
		       0 : -EUCLEAN;
}

int inl_xattr_block_look(struct inl_handle *op, struct inl_inode *inode, const uint8_t **bytes)
{
	uint64_t pblk = inl_xattr_block(inode);

	if (!inl_block_in_range(inode->vol, pblk, 1))
		return -EUCLEAN;
	return inl_block_look_verified(op, inode, pblk, verify_block, 0, bytes);
}

static int walk_block(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg)
{
	INL_BLOCK_SCOPED struct inl_block *block = NULL;
	struct inl_volume *vol = inode->vol;
	uint64_t pblk = inl_xattr_block(inode);
	int err;

	if (!pblk)
		return 0;
	if (!inl_block_in_range(vol, pblk, 1))
		return -EUCLEAN;
	err = inl_block_get_verified(inode, pblk, verify_block, 0, &block);
	return err ? err :
		     inl_xattr_area_walk(inl_block_bytes(block), vol->block_size, XATTR_HEADER_SIZE, each, arg);
}

int inl_raw_xattrs(struct inl_inode *inode, inl_raw_xattr_fn each, void *arg, struct inl_diag *diag)
{
	int err = walk_body(inode->vol, inode->body, each, arg);

	if (!err)
		err = walk_block(inode, each, arg);
	return damaged(inode, err, diag);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

bool inl_xattr_is(const struct inl_raw_xattr *xattr, uint8_t index, const char *name)
{
	return xattr->index == index && xattr->name_len == strlen(name) && !memcmp(xattr->name, name, xattr->name_len);
}

static bool is_inline_data(const struct inl_raw_xattr *xattr)
{
	return inl_xattr_is(xattr, XATTR_INDEX_SYSTEM, "data");
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
	if (xattr->index == XATTR_INDEX_ENCRYPTION || is_inline_data(xattr))
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

	if (!inl_xattr_is(xattr, get->index, get->name))
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

/* ---- for callers: looking ---------------------------------------------------------------------------------------- */

/* All that an inode has, at one moment: what callers do with it is done without locks. */
struct snapshot {
	struct inl_inode *inode;
	uint8_t *body, *block; /* one allocation */
	bool has_block;
};

static int take(struct inl_handle *op, void *arg)
{
	struct snapshot *snapshot = arg;
	struct inl_inode *inode = snapshot->inode;
	const uint8_t *bytes;
	int err;

	inl_xattr_body_copy(inode, snapshot->body);
	snapshot->has_block = inl_xattr_block(inode);
	if (!snapshot->has_block)
		return 0;
	err = inl_xattr_block_look(op, inode, &bytes);
	if (!err)
		memcpy(snapshot->block, bytes, inode->vol->block_size);
	return err;
}

static int snapshot_init(struct snapshot *snapshot, struct inl_inode *inode)
{
	size_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super);
	int err;

	snapshot->inode = inode;
	snapshot->body = malloc(inode_size + inode->vol->block_size);
	if (!snapshot->body)
		return -ENOMEM;
	snapshot->block = snapshot->body + inode_size;
	err = inl_op_look(inode->vol, take, snapshot);
	if (err)
		free(snapshot->body);
	return err;
}

static void snapshot_done(struct snapshot *snapshot)
{
	free(snapshot->body);
}

static int snapshot_walk(const struct snapshot *snapshot, inl_raw_xattr_fn each, void *arg)
{
	const struct inl_volume *vol = snapshot->inode->vol;
	int err = walk_body(vol, snapshot->body, each, arg);

	if (!err && snapshot->has_block)
		err = inl_xattr_area_walk(snapshot->block, vol->block_size, XATTR_HEADER_SIZE, each, arg);
	return err;
}

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

static bool is_acl(uint8_t index)
{
	return index == XATTR_INDEX_ACL_ACCESS || index == XATTR_INDEX_ACL_DEFAULT;
}

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
	return xattr->index == XATTR_INDEX_ENCRYPTION || xattr->index >= sizeof(prefixes) / sizeof(prefixes[0]) ||
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
	if (is_acl(xattr->index)) {
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
	struct snapshot snapshot;
	int err = snapshot_init(&snapshot, inode);

	if (err)
		return damaged(inode, err, diag);
	err = room_for(&list, 64);
	if (!err)
		err = snapshot_walk(&snapshot, list_one, &list);
	snapshot_done(&snapshot);
	free(list.value);
	free(list.converted);
	return damaged(inode, err, diag);
}

static int check_name(const char *full, struct inl_diag *diag)
{
	size_t len = strlen(full);

	if (len && len <= NAME_MAX_LEN)
		return 0;
	return inl_diag_set(diag, -ERANGE, "the name of an attribute has 1 to %u bytes, this one %zu", NAME_MAX_LEN,
			    len);
}

/* Only files and directories have attributes of users; Linux sees to that before it looks at the rest of the name. */
static bool may_have(uint16_t mode, const char *full)
{
	return strncmp(full, "user.", 5) || S_ISREG(mode) || S_ISDIR(mode);
}

/* From a full name to what is stored. */
static int resolve(const char *full, uint8_t *index, const char **name, struct inl_diag *diag)
{
	static const uint8_t with_name[] = { XATTR_INDEX_USER, XATTR_INDEX_TRUSTED, XATTR_INDEX_SECURITY };
	for (uint8_t i = XATTR_INDEX_ACL_ACCESS; i <= XATTR_INDEX_ACL_DEFAULT; i++) {
		if (!strcmp(full, prefixes[i])) {
			*index = i;
			*name = "";
			return 0;
		}
	}
	for (size_t i = 0; i < sizeof(with_name); i++) {
		size_t n = strlen(prefixes[with_name[i]]);

		if (strncmp(full, prefixes[with_name[i]], n))
			continue;
		if (!full[n])
			return inl_diag_set(diag, -EINVAL, "'%s' is only the beginning of a name", full);
		*index = with_name[i];
		*name = full + n;
		return 0;
	}
	return inl_diag_set(diag, -EOPNOTSUPP,
			    "no attribute can have the name '%s': it would begin with user., trusted. or security., or be "
			    "one of the two of ACLs", full);
}

/* Fetch what was found, for callers. Returns 1, or -errno. */
static int get_public(const struct inl_raw_xattr *xattr, void *arg)
{
	struct get *get = arg;
	uint8_t *value, *out;
	int len = (int)xattr->size, err;

	if (!inl_xattr_is(xattr, get->index, get->name))
		return 0;
	if (!is_acl(xattr->index) && (xattr->size > get->size || !get->size)) {
		if (get->size)
			return -ERANGE;
		*get->len = xattr->size;
		return 1;
	}
	value = malloc(3 * (size_t)xattr->size + 4);
	if (!value)
		return -ENOMEM;
	out = value;
	err = fetch(get->inode, xattr, value, get->diag);
	if (!err && is_acl(xattr->index)) {
		out = value + xattr->size;
		len = inl_acl_convert(value, xattr->size, out);
		err = len < 0 ? len : 0;
	}
	if (!err && get->size && (size_t)len > get->size)
		err = -ERANGE;
	if (!err) {
		if (get->size)
			memcpy(get->buf, out, (size_t)len);
		*get->len = (size_t)len;
	}
	free(value);
	return err ? err : 1;
}

/* By its full name, in what was there at one moment. Returns 1, 0 (there is none), or -errno. */
static int get_in(const struct snapshot *snapshot, const char *full, struct get *get)
{
	uint16_t mode = inl_load_le16(snapshot->body);
	int err;

	if (!may_have(mode, full))
		return 0;
	err = resolve(full, &get->index, &get->name, get->diag);
	if (err)
		return err;
	if (is_acl(get->index) && S_ISLNK(mode))
		return inl_diag_set(get->diag, -EOPNOTSUPP, "inode %u is a symbolic link: it has no ACL", get->inode->ino);
	return damaged(get->inode, snapshot_walk(snapshot, get_public, get), get->diag);
}

int inl_xattr_get(struct inl_inode *inode, const char *name, void *buf, size_t size, size_t *len, struct inl_diag *diag)
{
	struct get get = { .inode = inode, .buf = buf, .size = size, .len = len, .diag = diag };
	struct snapshot snapshot;
	int err = check_name(name, diag);

	if (err)
		return err;
	err = snapshot_init(&snapshot, inode);
	if (err)
		return damaged(inode, err, diag);
	err = get_in(&snapshot, name, &get);
	snapshot_done(&snapshot);
	return err > 0 ? 0 : err < 0 ? err : -ENODATA;
}

/* ---- for callers: changing --------------------------------------------------------------------------------------- */

struct set {
	struct inl_inode *inode;
	const char *full;
	int resolved; /* 0, and then index and name are what is stored; else why there are none */
	uint8_t index;
	const char *name;
	const void *value; /* as stored; NULL: remove */
	size_t len;
	int flags;
	bool sets_mode; /* an access ACL */
	struct inl_acl acl;
	struct inl_diag *diag;
};

/* What Linux allows of each name on each type of inode, in its order. */
static int check_set(struct set *set)
{
	uint16_t mode = set->inode->raw.i_mode;
	int err = inl_inode_may_change(set->inode, set->diag);

	if (err)
		return err;
	if (!may_have(mode, set->full))
		return inl_diag_set(set->diag, -EPERM,
				    "inode %u is neither a file nor a directory: it has no attributes of users",
				    set->inode->ino);
	if (set->resolved)
		return resolve(set->full, &set->index, &set->name, set->diag);
	if (is_acl(set->index) && S_ISLNK(mode))
		return inl_diag_set(set->diag, -EOPNOTSUPP, "inode %u is a symbolic link: it has no ACL",
				    set->inode->ino);
	if (set->index == XATTR_INDEX_ACL_DEFAULT && !S_ISDIR(mode) && set->value)
		return inl_diag_set(set->diag, -EACCES, "inode %u is no directory: it has no default ACL",
				    set->inode->ino);
	if (is_acl(set->index) && !set->acl.good)
		return inl_diag_set(set->diag, -EINVAL, "this ACL is none that Linux would accept");
	return 0;
}

static int set_mode(struct inl_handle *op, const struct set *set, bool *changed)
{
	struct inl_inode *inode = set->inode;
	uint16_t mode = (uint16_t)((inode->raw.i_mode & ~0777u) | set->acl.mode);
	int err;

	if (!set->sets_mode || mode == inode->raw.i_mode)
		return 0;
	err = inl_inode_modify(op, inode);
	if (err)
		return err;
	inode->raw.i_mode = mode;
	*changed = true;
	return 0;
}

static int set_op(struct inl_handle *op, void *arg)
{
	struct set *set = arg;
	bool changed = false, in_mode = set->sets_mode && set->acl.equiv;
	int err = check_set(set);

	if (err)
		return err;
	err = inl_xattr_change(op, set->inode, set->index, set->name, in_mode ? NULL : set->value, set->len, set->flags,
			       &changed);
	if (err == -ENODATA && is_acl(set->index)) /* an ACL that is not there can be removed */
		err = 0;
	if (!err)
		err = set_mode(op, set, &changed);
	if (err || !changed)
		return err;
	err = inl_inode_modify(op, set->inode);
	if (!err)
		inl_inode_set_times(set->inode, INL_TIME_C, inl_now(inl_op_vol(op)));
	return err;
}

/* ACLs are converted; whether there is one already does not matter to them, as in Linux. */
static int prepare_acl(struct set *set, uint8_t *out)
{
	bool access = set->index == XATTR_INDEX_ACL_ACCESS;
	int err;

	set->flags = 0;
	set->acl = (struct inl_acl){ .empty = true, .good = true };
	if (set->value && set->len) {
		err = inl_acl_parse(set->value, set->len, out, &set->acl);
		if (err)
			return inl_diag_set(set->diag, err, "this is no ACL");
	}
	set->len = set->acl.len;
	set->sets_mode = access && !set->acl.empty;
	set->value = set->acl.empty ? NULL : out;
	return 0;
}

static int explain(int err, const char *name, struct inl_diag *diag)
{
	switch (err) {
	case -ENOSPC:
		return inl_diag_set(diag, err, "there is no room for the attribute '%s'", name);
	case -EEXIST:
		return inl_diag_set(diag, err, "there is an attribute '%s' already", name);
	case -ENODATA:
		return inl_diag_set(diag, err, "there is no attribute '%s'", name);
	case -EOPNOTSUPP:
		return inl_diag_set(diag, err, "the attribute '%s' is kept in an inode of its own, which is only read",
				    name);
	default:
		return err;
	}
}

int inl_xattr_set(struct inl_inode *inode, const char *name, const void *value, size_t len, unsigned flags,
		  struct inl_diag *diag)
{
	struct set set = {
		.inode = inode, .full = name, .value = value, .len = len, .flags = (int)flags, .diag = diag
	};
	uint8_t *acl = NULL;
	int err = check_name(name, diag);

	if (flags & ~(unsigned)(INL_XATTR_CREATE | INL_XATTR_REPLACE))
		return -EINVAL;
	if (err)
		return err;
	set.resolved = resolve(name, &set.index, &set.name, NULL);
	if (value && len > XATTR_VALUE_MAX)
		return inl_diag_set(diag, -E2BIG, "the value of an attribute has at most %u bytes, this one %zu",
				    XATTR_VALUE_MAX, len);
	if (is_acl(set.index)) {
		acl = malloc(len + 4);
		err = acl ? prepare_acl(&set, acl) : -ENOMEM;
	}
	if (!err)
		err = inl_op_run(inode->vol, inl_xattr_credits(inode->vol), set_op, &set, diag);
	free(acl);
	return damaged(inode, explain(err, name, diag), diag);
}
