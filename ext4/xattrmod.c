/*
 * ext4/xattrmod.c: setting and removing attributes: in the inode while there is room, then in a block.
 * Not here: looking at them, and what callers may set (xattr.c). Values in inodes of their own are kept, never made.
 * Read more: Linux Documentation/filesystems/ext4/attributes.rst.
 *
 * An area is taken apart into its attributes, these are changed, and it is put together anew: beside its old content,
 * so that nothing depends on the order in which things move. Blocks that Linux shares among inodes are copied first.
 */
#include "ext4/xattr.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXTRA_ISIZE   32u /* what Linux gives to inodes of which nothing is known behind the first 128 bytes */
#define SUPER_COMPAT  0x5cu
#define COMPAT_XATTRS 0x0008u

/* A place for attributes, and what is going to be in it. */
struct area {
	uint8_t *bytes; /* a copy: value offsets count from here */
	size_t len;	/* 0: there is no such place */
	size_t first;	/* offset of the first entry */
	bool in_block;	/* sorted, with hashes */
	struct inl_raw_xattr *attrs; /* they point into bytes */
	size_t n, room;
	bool changed;
};

struct plan {
	struct inl_handle *op;
	struct inl_inode *inode;
	uint8_t *body, *block, *scratch; /* one allocation; scratch is a block long */
	size_t body_start;		 /* of the magic */
	bool extra_new;			 /* i_extra_isize was 0 */
	struct area in_body, in_block;
};

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static uint32_t rotate_in(uint32_t hash, unsigned bits, uint32_t word)
{
	return (hash << bits | hash >> (32 - bits)) ^ word;
}

static uint32_t entry_hash(const struct inl_raw_xattr *attr)
{
	uint32_t hash = 0;

	for (unsigned i = 0; i < attr->name_len; i++)
		hash = rotate_in(hash, 5, (uint8_t)attr->name[i]);
	for (size_t at = 0; at < attr->size; at += 4) {
		uint8_t word[4] = { 0 };

		memcpy(word, attr->value + at, INL_MIN(attr->size - at, sizeof(word)));
		hash = rotate_in(hash, 16, inl_load_le32(word));
	}
	return hash;
}

/* 0 if the block may not be shared: when any of its entries has none. */
static uint32_t block_hash(const struct area *area)
{
	uint32_t hash = 0;

	for (size_t i = 0; i < area->n; i++) {
		if (!area->attrs[i].hash)
			return 0;
		hash = rotate_in(hash, 16, area->attrs[i].hash);
	}
	return hash;
}

/* ---- areas ------------------------------------------------------------------------------------------------------- */

static size_t attr_len(const struct inl_raw_xattr *attr)
{
	return inl_xattr_entry_len(attr->name_len) + (attr->value_ino ? 0 : inl_xattr_value_len(attr->size));
}

/* Without the four zero bytes at the end of the list. */
static size_t area_used(const struct area *area)
{
	size_t used = area->first;

	for (size_t i = 0; i < area->n; i++)
		used += attr_len(&area->attrs[i]);
	return used;
}

static int make_room(struct area *area)
{
	size_t room = area->room ? 2 * area->room : 16;
	struct inl_raw_xattr *attrs;

	if (area->n < area->room)
		return 0;
	attrs = realloc(area->attrs, room * sizeof(*attrs));
	if (!attrs)
		return -ENOMEM;
	area->attrs = attrs;
	area->room = room;
	return 0;
}

static int collect(const struct inl_raw_xattr *attr, void *arg)
{
	struct area *area = arg;
	int err = make_room(area);

	if (!err)
		area->attrs[area->n++] = *attr;
	return err;
}

static int take_apart(struct area *area)
{
	int err = inl_xattr_area_walk(area->bytes, area->len, area->first, collect, area);

	/* Values that overlap would be more than there is. */
	return err ? err : area_used(area) > area->len ? -EUCLEAN : 0;
}

static void put_entry(uint8_t *entry, const struct inl_raw_xattr *attr, size_t value_at)
{
	entry[0] = attr->name_len;
	entry[1] = attr->index;
	inl_store_le16(entry + 2, (uint16_t)value_at);
	inl_store_le32(entry + 4, attr->value_ino);
	inl_store_le32(entry + 8, attr->size);
	inl_store_le32(entry + 12, attr->hash);
	memcpy(entry + XATTR_ENTRY_SIZE, attr->name, attr->name_len);
}

/* Entries from the start, values from the end; what precedes the first entry is the caller's. */
static void put_together(const struct area *area, uint8_t *out)
{
	size_t at = area->first, end = area->len;

	memset(out + at, 0, area->len - at);
	for (size_t i = 0; i < area->n; i++) {
		const struct inl_raw_xattr *attr = &area->attrs[i];
		bool has_value = !attr->value_ino && attr->size;

		if (has_value) {
			end -= inl_xattr_value_len(attr->size);
			memcpy(out + end, attr->value, attr->size);
		}
		put_entry(out + at, attr, has_value ? end : 0);
		at += inl_xattr_entry_len(attr->name_len);
	}
}

static struct inl_raw_xattr *area_find(const struct area *area, uint8_t index, const char *name)
{
	for (size_t i = 0; i < area->n; i++) {
		if (inl_xattr_is(&area->attrs[i], index, name))
			return &area->attrs[i];
	}
	return NULL;
}

static void area_remove(struct area *area, struct inl_raw_xattr *attr)
{
	size_t i = (size_t)(attr - area->attrs);

	memmove(attr, attr + 1, (area->n - i - 1) * sizeof(*attr));
	area->n--;
	area->changed = true;
}

/* The order of blocks: by index, then length of the name, then name. */
static int compare(const struct inl_raw_xattr *a, const struct inl_raw_xattr *b)
{
	if (a->index != b->index)
		return a->index < b->index ? -1 : 1;
	if (a->name_len != b->name_len)
		return a->name_len < b->name_len ? -1 : 1;
	return memcmp(a->name, b->name, a->name_len);
}

static int area_add(struct area *area, const struct inl_raw_xattr *attr)
{
	size_t i = area->n;
	int err;

	if (!area->len || area_used(area) + attr_len(attr) + 4 > area->len)
		return -ENOSPC;
	err = make_room(area);
	if (err)
		return err;
	while (area->in_block && i > 0 && compare(&area->attrs[i - 1], attr) > 0)
		i--;
	memmove(&area->attrs[i + 1], &area->attrs[i], (area->n - i) * sizeof(*attr));
	area->attrs[i] = *attr;
	area->attrs[i].hash = area->in_block ? entry_hash(attr) : 0;
	area->n++;
	area->changed = true;
	return 0;
}

static bool any_in_inodes(const struct area *area)
{
	for (size_t i = 0; i < area->n; i++) {
		if (area->attrs[i].value_ino)
			return true;
	}
	return false;
}

/* ---- from the inode and its block -------------------------------------------------------------------------------- */

/* Of an inode from times before its second half: as Linux begins to use it. */
static void start_extra(struct plan *plan, size_t inode_size)
{
	if (inode_size <= 128 || inl_load_le16(plan->body + 128))
		return;
	plan->extra_new = true;
	memset(plan->body + 128, 0, inode_size - 128);
	inl_store_le16(plan->body + 128, EXTRA_ISIZE);
}

static int load_body(struct plan *plan)
{
	const struct inl_volume *vol = plan->inode->vol;
	size_t inode_size = EXT2_INODE_SIZE(vol->fs->super);
	struct area *area = &plan->in_body;
	int err;

	inl_xattr_body_copy(plan->inode, plan->body);
	start_extra(plan, inode_size);
	err = inl_xattr_body_start(vol, plan->body, &plan->body_start);
	if (err || !plan->body_start)
		return err;
	area->bytes = plan->body + plan->body_start + XATTR_BODY_HEADER;
	area->len = inode_size - plan->body_start - XATTR_BODY_HEADER;
	return inl_load_le32(plan->body + plan->body_start) == XATTR_MAGIC ? take_apart(area) : 0;
}

static int load_block(struct plan *plan)
{
	struct area *area = &plan->in_block;
	const uint8_t *bytes;
	int err;

	area->bytes = plan->block;
	area->len = plan->inode->vol->block_size;
	area->first = XATTR_HEADER_SIZE;
	area->in_block = true;
	if (!inl_xattr_block(plan->inode))
		return 0;
	err = inl_xattr_block_look(plan->op, plan->inode, &bytes);
	if (err)
		return err;
	if (!inl_load_le32(bytes + XATTR_REFCOUNT))
		return -EUCLEAN;
	memcpy(plan->block, bytes, area->len);
	return take_apart(area);
}

static void plan_done(struct plan *plan)
{
	free(plan->in_body.attrs);
	free(plan->in_block.attrs);
	free(plan->body);
}

static int plan_init(struct plan *plan, struct inl_handle *op, struct inl_inode *inode)
{
	size_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super), block_size = inode->vol->block_size;
	int err;

	*plan = (struct plan){ .op = op, .inode = inode };
	plan->body = malloc(inode_size + 2 * block_size);
	if (!plan->body)
		return -ENOMEM;
	plan->block = plan->body + inode_size;
	plan->scratch = plan->block + block_size;
	err = load_body(plan);
	if (!err)
		err = load_block(plan);
	if (err)
		plan_done(plan);
	return err;
}

/* ---- to the inode ------------------------------------------------------------------------------------------------ */

/*
 * Bytes [from, inode_size) of plan->body, over the two places that hold them. Those that are in both are written to
 * both, so that whoever reads attributes later in the same operation finds them.
 */
static void body_back(struct plan *plan, size_t from)
{
	struct inl_inode *inode = plan->inode;
	size_t inode_size = EXT2_INODE_SIZE(inode->vol->fs->super), n = INL_MIN(inode_size, sizeof(inode->raw));

	if (from < n)
		memcpy((uint8_t *)&inode->raw + from, plan->body + from, n - from);
	memcpy(inode->body + from, plan->body + from, inode_size - from);
}

static int store_body(struct plan *plan)
{
	struct area *area = &plan->in_body;
	int err = inl_inode_modify(plan->op, plan->inode);

	if (err)
		return err;
	put_together(area, plan->scratch);
	memcpy(area->bytes, plan->scratch, area->len);
	inl_store_le32(plan->body + plan->body_start, area->n ? XATTR_MAGIC : 0);
	body_back(plan, plan->extra_new ? 128 : plan->body_start);
	return 0;
}

/* ---- to the block ------------------------------------------------------------------------------------------------ */

static void block_checksum(const struct inl_volume *vol, uint64_t pblk, uint8_t *block)
{
	if (vol->metadata_csum)
		inl_store_le32(block + XATTR_CSUM, inl_xattr_block_csum(vol, pblk, block));
}

/* One inode less has this block. */
static int release(struct inl_handle *op, uint64_t pblk, uint32_t refcount)
{
	uint8_t *bytes;
	int err;

	if (refcount == 1)
		return inl_blocks_free(op, pblk, 1, true);
	err = inl_block_change(op, pblk, &bytes);
	if (err)
		return err;
	inl_store_le32(bytes + XATTR_REFCOUNT, refcount - 1);
	block_checksum(inl_op_vol(op), pblk, bytes);
	return 0;
}

/* Another block for the inode, or none (0); i_blocks counts it. */
static int set_block(struct inl_handle *op, struct inl_inode *inode, uint64_t pblk)
{
	int had = inl_xattr_block(inode) ? 1 : 0, has = pblk ? 1 : 0;
	int err = inl_inode_modify(op, inode);

	if (!err && had != has)
		err = inl_inode_add_blocks(inode, has - had);
	if (!err)
		ext2fs_file_acl_block_set(inode->vol->fs, (struct ext2_inode *)&inode->raw, pblk);
	return err;
}

/* Near the inode, out of the way of what grows behind its data. */
static uint64_t block_goal(const struct inl_inode *inode)
{
	const struct ext2_super_block *sb = inode->vol->fs->super;

	return inode->vol->first_block + (uint64_t)((inode->ino - 1) / sb->s_inodes_per_group) * sb->s_blocks_per_group;
}

/* A block of its own for an inode that has none, or shares it. */
static int new_block(struct plan *plan, uint64_t *pblk, uint8_t **bytes)
{
	uint32_t refcount = inl_load_le32(plan->block + XATTR_REFCOUNT);
	uint64_t old = inl_xattr_block(plan->inode);
	int err = 0;

	if (old && any_in_inodes(&plan->in_block)) /* each copy would count as one more reference to those inodes */
		return -EOPNOTSUPP;
	if (old)
		err = release(plan->op, old, refcount);
	if (!err)
		err = inl_super_set_feature(plan->op, EXT4_SB_COMPAT, EXT4_COMPAT_EXT_ATTR);
	if (!err)
		err = inl_block_alloc(plan->op, block_goal(plan->inode), pblk);
	if (!err)
		err = inl_block_new(plan->op, *pblk, bytes);
	return err ? err : set_block(plan->op, plan->inode, *pblk);
}

static int store_block(struct plan *plan)
{
	uint64_t pblk = inl_xattr_block(plan->inode);
	uint32_t refcount = inl_load_le32(plan->block + XATTR_REFCOUNT);
	uint8_t *bytes;
	int err;

	if (!plan->in_block.n) {
		err = release(plan->op, pblk, refcount);
		return err ? err : set_block(plan->op, plan->inode, 0);
	}
	if (pblk && refcount == 1)
		err = inl_block_change(plan->op, pblk, &bytes);
	else
		err = new_block(plan, &pblk, &bytes);
	if (err)
		return err;
	memset(bytes, 0, XATTR_HEADER_SIZE);
	inl_store_le32(bytes, XATTR_MAGIC);
	inl_store_le32(bytes + XATTR_REFCOUNT, 1);
	inl_store_le32(bytes + XATTR_BLOCKS, 1);
	inl_store_le32(bytes + XATTR_HASH, block_hash(&plan->in_block));
	put_together(&plan->in_block, bytes);
	block_checksum(plan->inode->vol, pblk, bytes);
	return 0;
}

/* ---- set, drop --------------------------------------------------------------------------------------------------- */

static int store(struct plan *plan)
{
	int err = 0;

	if (plan->in_body.changed)
		err = store_body(plan);
	if (!err && plan->in_block.changed)
		err = store_block(plan);
	return err;
}

static int add(struct plan *plan, const struct inl_raw_xattr *attr)
{
	int err = area_add(&plan->in_body, attr);

	return err == -ENOSPC ? area_add(&plan->in_block, attr) : err;
}

static bool same_value(const struct inl_raw_xattr *old, const struct inl_raw_xattr *new)
{
	return !old->value_ino && old->size == new->size && !memcmp(old->value, new->value, new->size);
}

/* attr->value NULL: remove. */
static int replace(struct plan *plan, const struct inl_raw_xattr *attr, const char *name, int flags, bool *changed)
{
	struct area *area = &plan->in_body;
	struct inl_raw_xattr *old = area_find(area, attr->index, name);
	int err = 0;

	if (!old) {
		area = &plan->in_block;
		old = area_find(area, attr->index, name);
	}
	if (!old && (!attr->value || flags & INL_XATTR_REPLACE))
		return -ENODATA;
	if (old && flags & INL_XATTR_CREATE && attr->value)
		return -EEXIST;
	if (old && attr->value && same_value(old, attr))
		return 0;
	if (old && old->value_ino)
		return -EOPNOTSUPP;
	if (old)
		area_remove(area, old);
	if (attr->value)
		err = add(plan, attr);
	if (!err)
		err = store(plan);
	if (!err)
		*changed = true;
	return err;
}

int inl_xattr_change(struct inl_handle *op, struct inl_inode *inode, uint8_t index, const char *name, const void *value,
		     size_t len, int flags, bool *changed)
{
	size_t name_len = strlen(name);
	struct inl_raw_xattr attr = { .index = index, .name = name, .value = value };
	struct plan plan;
	int err;

	if (name_len > 255)
		return -ERANGE;
	if (value && len > XATTR_VALUE_MAX)
		return -ENOSPC;
	attr.name_len = (uint8_t)name_len;
	attr.size = value ? (uint32_t)len : 0;
	err = plan_init(&plan, op, inode);
	if (err)
		return err;
	err = replace(&plan, &attr, name, flags, changed);
	plan_done(&plan);
	return err;
}

int inl_raw_xattr_set(struct inl_handle *op, struct inl_inode *inode, uint8_t index, const char *name, const void *value,
		      size_t len, int flags)
{
	bool changed = false;

	return inl_xattr_change(op, inode, index, name, value, len, flags, &changed);
}

/* The last one that has a value in another inode would have to take that with it. */
static int may_drop(const struct plan *plan)
{
	bool last = inl_xattr_block(plan->inode) && inl_load_le32(plan->block + XATTR_REFCOUNT) == 1;

	return any_in_inodes(&plan->in_body) || (last && any_in_inodes(&plan->in_block)) ? -EOPNOTSUPP : 0;
}

static int drop(const struct plan *plan)
{
	uint64_t pblk = inl_xattr_block(plan->inode);
	int err = may_drop(plan);

	if (err || !pblk)
		return err;
	err = release(plan->op, pblk, inl_load_le32(plan->block + XATTR_REFCOUNT));
	return err ? err : set_block(plan->op, plan->inode, 0);
}

int inl_raw_xattrs_may_drop(struct inl_handle *op, struct inl_inode *inode)
{
	struct plan plan;
	int err;

	if (!ext2fs_has_feature_ea_inode(inode->vol->fs->super))
		return 0;
	err = plan_init(&plan, op, inode);
	if (err)
		return err;
	err = may_drop(&plan);
	plan_done(&plan);
	return err;
}

int inl_raw_xattrs_drop(struct inl_handle *op, struct inl_inode *inode)
{
	struct plan plan;
	int err;

	if (!inl_xattr_block(inode) && !ext2fs_has_feature_ea_inode(inode->vol->fs->super))
		return 0;
	err = plan_init(&plan, op, inode);
	if (err)
		return err;
	err = drop(&plan);
	plan_done(&plan);
	return err;
}

unsigned inl_xattr_credits(const struct inl_volume *vol)
{
	/* The inode; the old block, or the group where it becomes free; a new one with its group; the superblock. */
	return 1 + 1 + 2 + 1 + 2 + 1;
}
