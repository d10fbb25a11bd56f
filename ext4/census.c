/*
 * ext4/census.c: which encryption policies are in use, by looking at every inode.
 * Not here: parsing contexts (fscrypt/policy.c).
 * Read more: inlay/volume.h, inl_volume_policies.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N_POLICIES_MAX 4096u

/* One policy. What its key can do for one inode it can do for all of that type: it is tried once for each. */
struct use {
	struct inl_policy_use use; /* first */
	uint32_t tried;		   /* a bit per S_IFMT >> 12 */
};

struct census {
	struct inl_volume *vol;
	struct use *uses;
	size_t n, room;
	uint64_t n_damaged;
};

static bool has_key(struct inl_volume *vol, const struct inl_policy *policy)
{
	return vol->keys && inl_keyring_has(vol->keys, &policy->key);
}

/* NULL: there are too many, or no memory is left: *err. */
static struct use *find_use(struct census *census, const struct inl_policy *policy, int *err)
{
	*err = 0;
	for (size_t i = 0; i < census->n; i++) {
		if (inl_policy_equal(&census->uses[i].use.policy, policy))
			return &census->uses[i];
	}
	if (census->n == N_POLICIES_MAX)
		return NULL;
	if (census->n == census->room) {
		size_t room = census->room ? 2 * census->room : 16;
		struct use *grown = reallocarray(census->uses, room, sizeof(*grown));

		*err = grown ? 0 : -ENOMEM;
		if (!grown)
			return NULL;
		census->uses = grown;
		census->room = room;
	}
	census->uses[census->n] = (struct use){ .use = { .policy = *policy, .key_given = has_key(census->vol, policy) } };
	return &census->uses[census->n++];
}

static int count(struct census *census, struct inl_inode *inode)
{
	uint32_t type = UINT32_C(1) << (inode->type >> 12);
	int err, status;
	struct use *use = find_use(census, inl_crypt_info_policy(inode->crypt), &err);

	if (!use) {
		census->n_damaged += !err;
		return err;
	}
	use->use.n_inodes++;
	if (use->tried & type)
		return 0;
	use->tried |= type;
	status = inl_inode_unlock(inode, NULL);
	/* The worst that is known is shown. */
	if (status)
		use->use.status = status;
	return 0;
}

static int count_inode(struct census *census, uint32_t ino)
{
	struct inl_inode *inode;
	int err = inl_inode_get_any(census->vol, ino, NULL, &inode);

	if (err == -ENOMEM)
		return err;
	if (err) {
		census->n_damaged++;
		return 0;
	}
	err = 0;
	if (inode->encrypted && inode->crypt)
		err = count(census, inode);
	else
		census->n_damaged += inode->encrypted;
	inl_inode_put(inode);
	return err;
}

/* How many inodes of a group's table were ever used. */
static uint32_t inodes_used(struct inl_volume *vol, uint16_t flags, uint32_t unused)
{
	uint32_t per_group = vol->fs->super->s_inodes_per_group;

	/* Of a backup only the places can be trusted: what has happened since it was written is not in it. */
	if (!ext2fs_has_group_desc_csum(vol->fs) || vol->info.backup_superblock)
		return per_group;
	if (flags & EXT2_BG_INODE_UNINIT)
		return 0;
	return unused <= per_group ? per_group - unused : per_group;
}

/* What there is to look at of a group. */
struct table {
	struct inl_volume *vol;
	dgrp_t group;
	uint32_t used;
	uint64_t pblk; /* of the block that is wanted next */
	uint8_t *buf;
};

/* Of a volume that is being written the descriptors are in their blocks, else as they were read at the open. */
static int find_table(struct inl_handle *op, void *arg)
{
	struct table *table = arg;
	struct inl_volume *vol = table->vol;
	ext2_filsys fs = vol->fs;
	struct inl_group group;
	int err;

	if (!ext2fs_group_desc_csum_verify(fs, table->group) ||
	    !inl_block_in_range(vol, ext2fs_inode_table_loc(fs, table->group), fs->inode_blocks_per_group))
		return -EUCLEAN;
	table->pblk = ext2fs_inode_table_loc(fs, table->group);
	table->used = inodes_used(vol, ext2fs_bg_flags(fs, table->group), ext2fs_bg_itable_unused(fs, table->group));
	if (!vol->txn)
		return 0;
	err = inl_group_look(op, table->group, &group);
	if (!err)
		table->used = inodes_used(vol, group.flags, group.n_unused_inodes);
	return err;
}

static int copy_block(struct inl_handle *op, void *arg)
{
	struct table *table = arg;
	const uint8_t *bytes;
	int err = inl_block_look(op, table->pblk, &bytes);

	if (!err)
		memcpy(table->buf, bytes, table->vol->block_size);
	return err;
}

/* What is only read does not go through the cache. */
static int read_table(struct table *table)
{
	struct inl_volume *vol = table->vol;

	if (vol->txn)
		return inl_op_look(vol, copy_block, table);
	return inl_meta_read(vol, table->pblk << vol->block_bits, table->buf, vol->block_size);
}

/* Look at the raw table first: only encrypted inodes in use are worth loading. */
static int count_block(struct census *census, const uint8_t *bytes, uint32_t first_ino, uint32_t n)
{
	uint32_t inode_size = EXT2_INODE_SIZE(census->vol->fs->super);
	int err = 0;

	for (uint32_t i = 0; i < n && !err; i++) {
		const uint8_t *raw = bytes + (size_t)i * inode_size;
		bool in_use = inl_load_le16(raw + 0x1a) && inl_load_le16(raw);

		if (in_use && (inl_load_le32(raw + 0x20) & EXT4_FL_ENCRYPT))
			err = count_inode(census, first_ino + i);
	}
	return err;
}

static int count_group(struct census *census, dgrp_t group, uint8_t *buf)
{
	struct inl_volume *vol = census->vol;
	struct table table = { .vol = vol, .group = group, .buf = buf };
	uint32_t per_block = vol->block_size / EXT2_INODE_SIZE(vol->fs->super);
	uint32_t first = group * vol->fs->super->s_inodes_per_group + 1;
	int err = inl_op_look(vol, find_table, &table);

	for (uint32_t i = 0; i < table.used && !err; i += per_block, table.pblk++) {
		err = read_table(&table);
		if (!err)
			err = count_block(census, buf, first + i, table.used - i < per_block ? table.used - i : per_block);
	}
	return err;
}

static int compare_uses(const void *a, const void *b)
{
	const struct inl_policy_use *x = a, *y = b; /* each the first of a struct use */

	return x->n_inodes == y->n_inodes ? 0 : x->n_inodes > y->n_inodes ? -1 : 1;
}

int inl_volume_policies(struct inl_volume *vol, int (*each)(const struct inl_policy_use *use, void *arg), void *arg,
			uint64_t *n_damaged, struct inl_diag *diag)
{
	struct census census = { .vol = vol };
	uint8_t *buf = inl_new_blocks(vol->block_size, 1);
	int err = buf ? 0 : -ENOMEM, table_err = 0;

	for (dgrp_t group = 0; !err && group < vol->fs->group_desc_count; group++) {
		err = count_group(&census, group, buf);
		if (err == -EUCLEAN || err == -EIO) {
			/* One bad table does not hide the others. */
			table_err = inl_diag_set(diag, err, "the inode table of group %u cannot be read", group);
			err = 0;
		}
	}
	if (census.n)
		qsort(census.uses, census.n, sizeof(*census.uses), compare_uses);
	for (size_t i = 0; !err && i < census.n; i++)
		err = each(&census.uses[i].use, arg);
	if (!err && n_damaged)
		*n_damaged = census.n_damaged;
	free(census.uses);
	free(buf);
	return err ? err : table_err;
}
