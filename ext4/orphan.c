/*
 * ext4/orphan.c: the list of orphans: inodes that are to be deleted or shortened, should a crash come between; and
 * doing so.
 * Not here: taking names away (namei.c); changing maps (extent.c, indirect.c).
 * Read more: Linux Documentation/filesystems/ext4/orphan.rst; ext4/change.h.
 *
 * On the medium the superblock names the first, and each names the next one in its i_dtime. In memory those that are
 * live are linked both ways, in the same order, so that any can leave. One that could not be finished (its map is
 * damaged) is set aside: moved behind all live ones, where it is in nobody's way until the next open. All of it under
 * vol->lock, in operations.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Changes of an inode that leaves: itself, its neighbour, the superblock. */
#define ORPHAN_CREDITS 3u

/* The most that map_credits says. */
#define MAP_CREDITS_MAX (16u + 2 * EXT2_NDIR_BLOCKS)

/* ---- the list in memory ------------------------------------------------------------------------------------------ */

static void link_before(struct inl_orphans *list, struct inl_inode *inode, struct inl_inode *next)
{
	struct inl_inode *prev = next ? next->orphan.prev : list->last;

	inode->orphan = (struct inl_orphan){ true, prev, next };
	*(prev ? &prev->orphan.next : &list->first) = inode;
	*(next ? &next->orphan.prev : &list->last) = inode;
}

static void unlink_inode(struct inl_orphans *list, struct inl_inode *inode)
{
	struct inl_inode *prev = inode->orphan.prev, *next = inode->orphan.next;

	*(prev ? &prev->orphan.next : &list->first) = next;
	*(next ? &next->orphan.prev : &list->last) = prev;
	inode->orphan = (struct inl_orphan){ 0 };
}

static void undo_link(struct inl_volume *vol, void *what)
{
	struct inl_inode *inode;

	memcpy(&inode, what, sizeof(inode));
	unlink_inode(&vol->orphans, inode);
}

/* Last in, first out: the neighbours are again what they were. */
struct unlinked {
	struct inl_inode *inode, *next;
};

static void undo_unlink(struct inl_volume *vol, void *what)
{
	struct unlinked unlinked;

	memcpy(&unlinked, what, sizeof(unlinked));
	link_before(&vol->orphans, unlinked.inode, unlinked.next);
}

static bool is_aside(const struct inl_inode *inode)
{
	const struct inl_orphans *list = &inode->vol->orphans;

	for (size_t i = 0; i < list->n_aside; i++) {
		if (list->aside[i] == inode->ino)
			return true;
	}
	return false;
}

/* ---- the list on the medium -------------------------------------------------------------------------------------- */

static int super_set_first(struct inl_handle *op, uint32_t ino)
{
	uint8_t *sb;
	int err = inl_super_change(op, &sb);

	if (err)
		return err;
	inl_store_le32(sb + EXT4_SB_LAST_ORPHAN, ino);
	inl_super_csum(inl_op_vol(op), sb);
	return 0;
}

static int super_get_first(struct inl_handle *op, uint32_t *ino)
{
	uint8_t *sb;
	int err = inl_super_change(op, &sb);

	if (!err)
		*ino = inl_load_le32(sb + EXT4_SB_LAST_ORPHAN);
	return err;
}

int inl_orphan_add(struct inl_handle *op, struct inl_inode *inode)
{
	struct inl_orphans *list = &inode->vol->orphans;
	uint32_t next;
	int err;

	if (inode->orphan.listed || is_aside(inode))
		return 0;
	err = super_get_first(op, &next);
	if (!err)
		err = super_set_first(op, inode->ino);
	if (!err)
		err = inl_inode_modify(op, inode);
	if (!err)
		err = inl_op_undo(op, undo_link, &inode, sizeof(struct inl_inode *));
	if (err)
		return err;
	inode->raw.i_dtime = next;
	link_before(list, inode, list->first);
	return 0;
}

int inl_orphan_remove(struct inl_handle *op, struct inl_inode *inode)
{
	struct unlinked unlinked = { inode, inode->orphan.next };
	struct inl_inode *prev = inode->orphan.prev;
	int err;

	if (!inode->orphan.listed)
		return 0;
	err = inl_inode_modify(op, inode);
	if (!err)
		err = prev ? inl_inode_modify(op, prev) : super_set_first(op, inode->raw.i_dtime);
	if (!err)
		err = inl_op_undo(op, undo_unlink, &unlinked, sizeof(unlinked));
	if (err)
		return err;
	if (prev)
		prev->raw.i_dtime = inode->raw.i_dtime;
	inode->raw.i_dtime = 0;
	unlink_inode(&inode->vol->orphans, inode);
	return 0;
}

/* ---- what cannot be finished ------------------------------------------------------------------------------------- */

/* Move to the end of the live ones, before what was set aside already. */
static int move_last_op(struct inl_handle *op, void *arg)
{
	struct inl_inode *inode = arg, *last = inode->vol->orphans.last;
	int err;

	if (inode == last)
		return 0;
	err = inl_orphan_remove(op, inode);
	if (!err)
		err = inl_inode_modify(op, last);
	if (err)
		return err;
	inode->raw.i_dtime = last->raw.i_dtime;
	last->raw.i_dtime = inode->ino;
	return 0;
}

/* Off the list in memory, where a move has not taken it already. */
static int leave_op(struct inl_handle *op, void *arg)
{
	struct inl_inode *inode = arg;

	(void)op;
	if (inode->orphan.listed)
		unlink_inode(&inode->vol->orphans, inode);
	return 0;
}

/* There is no more room to note it than there is memory. */
static int note_op(struct inl_handle *op, void *arg)
{
	struct inl_inode *inode = arg;
	struct inl_orphans *list = &inode->vol->orphans;
	uint32_t *grown = reallocarray(list->aside, list->n_aside + 1, sizeof(*grown));

	(void)op;
	if (!grown)
		return 0;
	list->aside = grown;
	list->aside[list->n_aside++] = inode->ino;
	return 0;
}

static int is_aside_op(struct inl_handle *op, void *arg)
{
	(void)op;
	return is_aside(arg);
}

bool inl_orphan_is_aside(struct inl_inode *inode)
{
	return inode->vol->orphans.n_aside && inl_op_look(inode->vol, is_aside_op, inode) > 0;
}

/*
 * The next open has another go. Where not even this can be noted the volume is in such trouble that at worst its blocks
 * are lost until e2fsck finds them.
 */
static void set_aside(struct inl_inode *inode)
{
	struct inl_volume *vol = inode->vol;

	inl_op_look(vol, note_op, inode);
	inl_op_run(vol, ORPHAN_CREDITS + 1, move_last_op, inode, NULL);
	inl_op_look(vol, leave_op, inode);
}

/* ---- delete, shorten --------------------------------------------------------------------------------------------- */

/* Has it blocks, and not something else in the place of their map? */
static bool has_map(const struct inl_inode *inode)
{
	uint16_t mode = inode->type;

	if (inl_is_inline(inode))
		return false;
	return S_ISREG(mode) || S_ISDIR(mode) || (S_ISLNK(mode) && !inl_is_fast_symlink(inode));
}

/* What freeing all of it in one go takes, by what inl_map_remove keeps back; 0: there may be more than a root knows. */
static unsigned map_credits(const struct inl_inode *inode)
{
	const uint8_t *root = (const uint8_t *)inode->raw.i_block;
	unsigned n = 0;

	if (!has_map(inode))
		return 1;
	/* An extent, or a block, lies in two groups at most: a bitmap and a descriptor each. */
	if (inode->raw.i_flags & EXT4_FL_EXTENTS)
		return inl_load_le16(root + 6) ? 0 : 4 + 4 * INL_MIN(inl_load_le16(root + 2), 4u);
	for (unsigned i = 0; i < EXT2_NDIR_BLOCKS; i++)
		n += inode->raw.i_block[i] != 0;
	return inode->raw.i_block[EXT2_IND_BLOCK] || inode->raw.i_block[EXT2_DIND_BLOCK] ||
			       inode->raw.i_block[EXT2_TIND_BLOCK] ?
		       0 :
		       16 + 2 * n;
}

static unsigned xattr_credits(const struct inl_inode *inode)
{
	struct inl_volume *vol = inode->vol;
	bool outside = inode->raw.i_file_acl || ext2fs_has_feature_ea_inode(vol->fs->super);

	return outside ? inl_xattr_credits(vol) : 0;
}

/* What comes when the map is empty: attributes, the inode's bit and count, the list. */
static unsigned free_credits(const struct inl_inode *inode)
{
	return xattr_credits(inode) + 2 + ORPHAN_CREDITS;
}

/* Of any inode: whoever asks may not look at it, as others may be changing it. */
unsigned inl_inode_unlinked_credits(const struct inl_volume *vol)
{
	return MAP_CREDITS_MAX + inl_xattr_credits(vol) + 2 + ORPHAN_CREDITS;
}

/* With its map empty. */
static int free_inode(struct inl_handle *op, struct inl_inode *inode)
{
	bool is_dir = S_ISDIR(inode->type);
	int err = inl_raw_xattrs_drop(op, inode);

	if (!err)
		err = inl_inode_modify(op, inode);
	if (!err)
		err = inl_orphan_remove(op, inode);
	if (!err)
		err = inl_ino_free(op, inode->ino, is_dir);
	if (err)
		return err;
	inl_inode_set_size(inode, 0);
	inode->raw.i_blocks = 0;
	inode->raw.osd2.linux2.l_i_blocks_hi = 0;
	inode->raw.i_dtime = (uint32_t)inl_now(inl_op_vol(op)).sec;
	return 0;
}

/* Unmap from the end as far as the credits go. Contents of directories and symbolic links are metadata. */
static int cut_map(struct inl_handle *op, struct inl_inode *inode, uint64_t lblk, uint64_t *left)
{
	*left = lblk;
	if (!has_map(inode))
		return 0;
	return inl_map_remove(op, inode, lblk, inl_map_max(inode), !S_ISREG(inode->type), left);
}

int inl_inode_unlinked(struct inl_handle *op, struct inl_inode *inode)
{
	/* The caller has one, and the operation another, as the inode is part of it. */
	bool sole = atomic_load_explicit(&inode->refs, memory_order_relaxed) == 2;
	uint64_t left = 1;
	int err = inl_raw_xattrs_may_drop(op, inode);

	if (!err && sole && map_credits(inode) && inl_op_credits_left(op) >= map_credits(inode) + free_credits(inode) &&
	    !inode->orphan.listed && !is_aside(inode))
		err = cut_map(op, inode, 0, &left);
	if (err)
		return err;
	return left ? inl_orphan_add(op, inode) : free_inode(op, inode);
}

struct cutting {
	struct inl_inode *inode;
	uint64_t lblk;	/* to be the first unmapped one */
	bool free;	/* and then the inode */
	bool done;
	uint64_t left;	/* of the map, after an operation */
};

static int cut_op(struct inl_handle *op, void *arg)
{
	struct cutting *cutting = arg;
	struct inl_inode *inode = cutting->inode;
	int err = inl_inode_modify(op, inode);

	cutting->done = false;
	if (!err)
		err = cut_map(op, inode, cutting->lblk, &cutting->left);
	if (err || cutting->left != cutting->lblk)
		return err;
	if (inl_op_credits_left(op) < (cutting->free ? free_credits(inode) : ORPHAN_CREDITS))
		return 0;
	cutting->done = true;
	if (cutting->free)
		return free_inode(op, inode);
	/* Whoever took its last name meanwhile relies on its being on the list. */
	return inode->raw.i_links_count ? inl_orphan_remove(op, inode) : 0;
}

/*
 * In as many operations as it takes; the last one takes it off the list. Small ones leave room for others in the
 * transaction.
 */
static int cut(struct cutting *cutting, struct inl_diag *diag)
{
	struct inl_volume *vol = cutting->inode->vol;
	unsigned max = inl_op_credits_max(vol), credits = map_credits(cutting->inode) + free_credits(cutting->inode);
	int err;

	if (!map_credits(cutting->inode) || credits > max)
		credits = max;
	cutting->left = UINT64_MAX;
	do {
		uint64_t before = cutting->left;

		err = inl_op_run(vol, credits, cut_op, cutting, diag);
		if (!err && !cutting->done && cutting->left == before && credits == max)
			err = -EUCLEAN;
		credits = cutting->left == cutting->lblk ? INL_MIN(1 + free_credits(cutting->inode), max) : max;
	} while (!err && !cutting->done);
	if (err)
		set_aside(cutting->inode);
	return err;
}

int inl_inode_delete(struct inl_inode *inode)
{
	struct cutting cutting = { .inode = inode, .free = true };

	return inode->orphan.listed ? cut(&cutting, NULL) : 0;
}

int inl_inode_shorten(struct inl_inode *inode, uint64_t size, struct inl_diag *diag)
{
	struct inl_volume *vol = inode->vol;
	struct cutting cutting = { .inode = inode };

	cutting.lblk = (size >> vol->block_bits) + ((size & (vol->block_size - 1)) != 0);
	return inode->orphan.listed ? cut(&cutting, diag) : 0;
}

/* ---- after a crash ----------------------------------------------------------------------------------------------- */

static int list_damaged(uint32_t ino, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EUCLEAN, "the list of orphans is damaged at inode %u: e2fsck is needed", ino);
}

static bool may_be_orphan(const struct inl_inode *inode)
{
	uint16_t mode = inode->raw.i_mode;

	return mode && (!inode->raw.i_links_count || has_map(inode)) && (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) ||
	       S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode));
}

/* The first one on the list: as if it had been put there by this session. */
static int first_op(struct inl_handle *op, void *arg)
{
	struct inl_inode *inode = arg;

	(void)op;
	link_before(&inode->vol->orphans, inode, NULL);
	return 0;
}

/* Shorten, and behind the end zeros: those of an encrypted file can be written only with its key. */
static int finish_shortening(struct inl_inode *inode, struct inl_diag *diag)
{
	bool has_tail = S_ISREG(inode->type) && !inl_is_inline(inode) && !inl_inode_unlock(inode, NULL);
	int err = has_tail ? inl_data_zero_tail(inode, inode->size, diag) : 0;

	return err ? err : inl_inode_shorten(inode, inode->size, diag);
}

static int finish_first(struct inl_volume *vol, uint32_t ino, uint32_t *next, struct inl_diag *diag)
{
	struct inl_inode *inode;
	int err = inl_inode_load_crypt(vol, ino, diag, &inode);

	if (err)
		return err;
	*next = inode->raw.i_dtime;
	if (!may_be_orphan(inode))
		err = list_damaged(ino, diag);
	if (!err)
		err = inl_op_look(vol, first_op, inode);
	if (!err)
		err = inode->raw.i_links_count ? finish_shortening(inode, diag) : inl_inode_delete(inode);
	inl_inode_put(inode);
	return err == -EUCLEAN ? list_damaged(ino, diag) : err;
}

int inl_orphans_finish(struct inl_volume *vol, struct inl_diag *diag)
{
	const struct ext2_super_block *sb = vol->fs->super;
	uint32_t ino = sb->s_last_orphan;

	vol->info.n_orphans = 0;
	while (ino) {
		uint32_t next;
		int err;

		if (ino < EXT2_FIRST_INODE(sb) || ino > sb->s_inodes_count || vol->info.n_orphans == sb->s_inodes_count)
			return list_damaged(ino, diag);
		err = finish_first(vol, ino, &next, diag);
		if (err)
			return inl_diag_set(diag, err, "inode %u, an orphan, cannot be finished", ino);
		vol->info.n_orphans++;
		ino = next;
	}
	return 0;
}

void inl_orphans_done(struct inl_volume *vol)
{
	free(vol->orphans.aside);
	vol->orphans = (struct inl_orphans){ 0 };
}
