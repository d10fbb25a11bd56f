/*
 * ext4/rename.c: names are taken away or moved: unlink, rmdir, rename.
 * Not here: names that are made (namei.c); inodes without names (orphan.c); what is above what (chain.c).
 * Read more: rename(2), unlink(2), rmdir(2), whose errors these return; inlay/volume.h.
 */
#include "ext4/namei.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- unlink, rmdir ----------------------------------------------------------------------------------------------- */

struct removal {
	struct inl_entry_ref entry;
	bool is_dir;
	struct inl_inode **gone; /* NULL: nobody wants it */
};

static int remove_op(struct inl_handle *op, void *arg)
{
	struct removal *removal = arg;
	struct inl_inode *dir = removal->entry.dir, *inode = removal->entry.inode;
	struct inl_time now = inl_now(inl_op_vol(op));
	int err = inl_entry_check(op, &removal->entry);

	if (!err && inl_check_taking(dir, inode, NULL)) /* it is marked since: that is said in its order */
		err = -ESTALE;
	if (!err && removal->is_dir)
		err = inl_dir_empty(op, inode);
	if (!err)
		err = inl_dir_remove(op, dir, removal->entry.stored, removal->entry.stored_len);
	if (!err)
		err = inl_dir_changed(op, dir, now);
	if (!err && removal->is_dir)
		inl_links_dec(dir);
	return err ? err : inl_link_take(op, inode, now);
}

static int remove_loaded(struct removal *removal, struct inl_diag *diag)
{
	struct inl_inode *dir = removal->entry.dir, *inode = removal->entry.inode;
	int err;

	if (!inode)
		return -ENOENT;
	err = inl_check_taking(dir, inode, diag);
	if (err)
		return err;
	if (removal->is_dir != S_ISDIR(inode->type))
		return removal->is_dir ? -ENOTDIR : -EISDIR;
	return inl_names_run(dir->vol, inl_dir_credits(dir) + 2 + inl_inode_unlinked_credits(dir->vol), remove_op, removal,
			     diag);
}

static int remove_once(void *arg, struct inl_diag *diag)
{
	struct removal *removal = arg;
	int err = inl_entry_get(&removal->entry, diag);

	if (!err)
		err = remove_loaded(removal, diag);
	if (!err && removal->gone) {
		*removal->gone = removal->entry.inode;
		removal->entry.inode = NULL;
	}
	inl_entry_put(&removal->entry);
	return err;
}

static int remove_name(struct inl_inode *dir, const char *name, size_t len, bool is_dir, struct inl_diag *diag,
		       struct inl_inode **gone)
{
	struct removal removal = { .entry = { .dir = dir, .name = name, .len = len }, .is_dir = is_dir, .gone = gone };
	int err = inl_dir_check(dir, diag);

	if (!err)
		err = inl_name_check_old(name, len);
	return err ? err : inl_settle(remove_once, &removal, diag);
}

int inl_remove(struct inl_inode *dir, const char *name, size_t len, bool is_dir, struct inl_diag *diag,
	       struct inl_inode **gone)
{
	if (!inl_is_dots(name, len))
		return remove_name(dir, name, len, is_dir, diag, gone);
	if (!is_dir)
		return -EISDIR;
	return len == 1 ? -EINVAL : -ENOTEMPTY;
}

int inl_unlink(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	return inl_remove(dir, name, len, false, diag, NULL);
}

int inl_rmdir(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	return inl_remove(dir, name, len, true, diag, NULL);
}

/* ---- rename ------------------------------------------------------------------------------------------------------ */

struct renaming {
	struct inl_entry_ref from, to;
	unsigned flags;
	struct inl_chain above_from, above_to;
	struct inl_inode *whiteout; /* what is left under the old name; of the last attempt */
	struct inl_diag *diag;
};

static bool is_dir(const struct inl_inode *inode)
{
	return inode && S_ISDIR(inode->type);
}

/* Between directories nothing may get into itself: neither what moves, nor what gives way. */
static int check_above(struct renaming *renaming, struct inl_diag *diag)
{
	struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	bool met = false;
	int err = 0;

	if (from->dir == to->dir)
		return 0;
	if (is_dir(from->inode))
		err = inl_chain_walk(&renaming->above_to, to->dir, from->inode, &met, diag);
	if (!err && met)
		return inl_diag_set(diag, -EINVAL, "a directory cannot move into itself");
	if (!err && is_dir(to->inode))
		err = inl_chain_walk(&renaming->above_from, from->dir, to->inode, &met, diag);
	if (err || !met)
		return err;
	return renaming->flags & INL_RENAME_EXCHANGE ?
		       inl_diag_set(diag, -EINVAL, "a directory cannot move into itself") :
		       -ENOTEMPTY;
}

static int is_alive_op(struct inl_handle *op, void *arg)
{
	const struct inl_inode *dir = arg;

	(void)op;
	return dir->raw.i_links_count ? 0 : -ENOENT;
}

/* Without their key, names are neither written nor moved. */
static int check_locked(const struct inl_entry_ref *entry, struct inl_diag *diag)
{
	int err = entry->locked ? inl_op_look(entry->dir->vol, is_alive_op, entry->dir) : 0;

	if (!err && entry->locked)
		inl_inode_unlock(entry->dir, diag); /* says why */
	return err ? err : entry->locked;
}

/* Into an encrypted directory comes only what is encrypted alike. */
static int check_policies(const struct renaming *renaming, struct inl_diag *diag)
{
	const struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err;

	if (from->dir == to->dir)
		return 0;
	err = inl_crypt_check_move(to->dir, from->inode, diag);
	return err || !(renaming->flags & INL_RENAME_EXCHANGE) ? err : inl_crypt_check_move(from->dir, to->inode, diag);
}

/* May the names be taken, and made? */
static int check_marks(const struct renaming *renaming, struct inl_diag *diag)
{
	const struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err = inl_check_taking(from->dir, from->inode, diag);

	if (err)
		return err;
	return to->inode ? inl_check_taking(to->dir, to->inode, diag) : inl_check_flags(to->dir, EXT4_FL_IMMUTABLE, diag);
}

/* What can be said of the two before the operation. */
static int rename_check(const struct renaming *renaming, struct inl_diag *diag)
{
	const struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err = check_marks(renaming, diag);

	if (err)
		return err;
	if (to->inode && !(renaming->flags & INL_RENAME_EXCHANGE) && is_dir(from->inode) != is_dir(to->inode))
		return is_dir(from->inode) ? -ENOTDIR : -EISDIR;
	err = check_locked(from, diag);
	if (!err)
		err = check_locked(to, diag);
	return err ? err : check_policies(renaming, diag);
}

static int entry_replace(struct inl_handle *op, struct inl_entry_ref *entry, const struct inl_inode *inode)
{
	return inl_dir_replace(op, entry->dir, entry->stored, entry->stored_len, inode->ino,
			       inl_dirent_type(inode->type));
}

/* A directory has come to another one. */
static int set_parent(struct inl_handle *op, struct inl_inode *inode, const struct inl_inode *parent)
{
	if (!is_dir(inode))
		return 0;
	return inl_dir_replace(op, inode, (const uint8_t *)"..", 2, parent->ino, inl_dirent_type(S_IFDIR));
}

static int rename_changed(struct inl_handle *op, struct renaming *renaming, struct inl_time now)
{
	int err = inl_dir_changed(op, renaming->from.dir, now);

	if (!err)
		err = inl_dir_changed(op, renaming->to.dir, now);
	return err ? err : inl_inode_changed(op, renaming->from.inode, now);
}

/* Subdirectories change places with what is none: the counts of their parents follow. */
static int exchange_links(struct renaming *renaming)
{
	struct inl_inode *loses = renaming->from.dir, *gains = renaming->to.dir;

	if (is_dir(renaming->from.inode) == is_dir(renaming->to.inode) || loses == gains)
		return 0;
	if (is_dir(renaming->to.inode)) {
		loses = renaming->to.dir;
		gains = renaming->from.dir;
	}
	if (inl_links_full(gains))
		return inl_links_too_many(renaming->diag);
	inl_links_dec(loses);
	inl_links_inc(gains);
	return 0;
}

static int exchange(struct inl_handle *op, struct renaming *renaming)
{
	struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	struct inl_time now = inl_now(inl_op_vol(op));
	bool moves = from->dir != to->dir;
	int err = entry_replace(op, from, to->inode);

	if (!err)
		err = entry_replace(op, to, from->inode);
	if (!err && moves)
		err = set_parent(op, from->inode, to->dir);
	if (!err && moves)
		err = set_parent(op, to->inode, from->dir);
	if (!err)
		err = rename_changed(op, renaming, now);
	if (!err)
		err = inl_inode_changed(op, to->inode, now);
	return err ? err : exchange_links(renaming);
}

/* The new name: another entry, or one that gives way. */
static int put_name(struct inl_handle *op, struct renaming *renaming)
{
	struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err;

	if (to->inode) {
		err = is_dir(to->inode) ? inl_dir_empty(op, to->inode) : 0;
		return err ? err : entry_replace(op, to, from->inode);
	}
	if (is_dir(from->inode) && from->dir != to->dir && inl_links_full(to->dir))
		return inl_links_too_many(renaming->diag);
	return inl_dir_add(op, to->dir, to->stored, to->stored_len, from->inode->ino,
			   inl_dirent_type(from->inode->type));
}

/* As a program of root makes it. It is not encrypted, wherever it is: only files, directories and links are. */
static int make_whiteout(struct inl_handle *op, struct renaming *renaming)
{
	static const struct inl_attr attr = { .mode = S_IFCHR };
	struct inl_new_crypt none = { 0 };

	return inl_inode_make(op, renaming->from.dir, attr.mode, &attr, INL_ATTR_INHERIT, &none, &renaming->whiteout);
}

static void drop_whiteout(struct renaming *renaming)
{
	inl_inode_put(renaming->whiteout);
	renaming->whiteout = NULL;
}

/* The old name goes, or stands for a whiteout. */
static int leave_name(struct inl_handle *op, struct renaming *renaming)
{
	struct inl_entry_ref *from = &renaming->from;
	int err;

	if (!(renaming->flags & INL_RENAME_WHITEOUT))
		return inl_dir_remove(op, from->dir, from->stored, from->stored_len);
	err = make_whiteout(op, renaming);
	return err ? err : entry_replace(op, from, renaming->whiteout);
}

static int move(struct inl_handle *op, struct renaming *renaming)
{
	struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	struct inl_time now = inl_now(inl_op_vol(op));
	bool moves = is_dir(from->inode) && from->dir != to->dir;
	int err = put_name(op, renaming);

	if (!err)
		err = leave_name(op, renaming);
	if (!err && moves)
		err = set_parent(op, from->inode, to->dir);
	if (!err)
		err = rename_changed(op, renaming, now);
	if (err)
		return err;
	if (moves || is_dir(to->inode))
		inl_links_dec(from->dir);
	if (moves && !to->inode)
		inl_links_inc(to->dir);
	return to->inode ? inl_link_take(op, to->inode, now) : 0;
}

static int rename_op(struct inl_handle *op, void *arg)
{
	struct renaming *renaming = arg;
	int err = inl_entry_check(op, &renaming->from);

	drop_whiteout(renaming);
	if (!err)
		err = inl_entry_check(op, &renaming->to);
	if (!err)
		err = inl_chain_check(op, &renaming->above_from);
	if (!err)
		err = inl_chain_check(op, &renaming->above_to);
	if (!err && check_marks(renaming, NULL))
		err = -ESTALE;
	if (err)
		return err;
	return renaming->flags & INL_RENAME_EXCHANGE ? exchange(op, renaming) : move(op, renaming);
}

static unsigned rename_credits(const struct renaming *renaming)
{
	const struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	unsigned credits = inl_dir_credits(from->dir) + inl_dir_credits(to->dir) + 4 + 2;

	if (renaming->flags & INL_RENAME_WHITEOUT)
		credits += INL_MAKE_CREDITS + inl_xattr_credits(from->dir->vol);
	return to->inode ? credits + inl_inode_unlinked_credits(to->dir->vol) : credits;
}

static int rename_loaded(struct renaming *renaming, struct inl_diag *diag)
{
	struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err;

	if (!from->inode)
		return -ENOENT;
	if (to->inode && (renaming->flags & INL_RENAME_NOREPLACE))
		return -EEXIST;
	if (!to->inode && (renaming->flags & INL_RENAME_EXCHANGE))
		return -ENOENT;
	err = check_above(renaming, diag);
	if (err)
		return err;
	/* Two names of one inode stay as they are. */
	if (from->inode == to->inode)
		return 0;
	err = rename_check(renaming, diag);
	return err ? err : inl_names_run(from->dir->vol, rename_credits(renaming), rename_op, renaming, diag);
}

/* Where there is no key, a name that is no no-key name is one to be made: why not is said later. */
static int target_get(struct inl_entry_ref *to, struct inl_diag *diag)
{
	int err = inl_entry_get(to, diag);

	return err && err == to->locked ? 0 : err;
}

static int rename_once(void *arg, struct inl_diag *diag)
{
	struct renaming *renaming = arg;
	int err = inl_entry_get(&renaming->from, diag);

	if (!err)
		err = target_get(&renaming->to, diag);
	if (!err)
		err = rename_loaded(renaming, diag);
	drop_whiteout(renaming);
	inl_chain_done(&renaming->above_from);
	inl_chain_done(&renaming->above_to);
	inl_entry_put(&renaming->from);
	inl_entry_put(&renaming->to);
	return err;
}

static int check_names(const struct renaming *renaming)
{
	const struct inl_entry_ref *from = &renaming->from, *to = &renaming->to;
	int err;

	if (inl_is_dots(from->name, from->len))
		return -EBUSY;
	if (inl_is_dots(to->name, to->len))
		return renaming->flags & INL_RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	err = inl_name_check_old(from->name, from->len);
	return err ? err : inl_name_check_new(to->name, to->len);
}

static int check_dirs(struct inl_inode *dir, struct inl_inode *new_dir, struct inl_diag *diag)
{
	int err;

	if (dir->vol != new_dir->vol)
		return -EXDEV;
	err = inl_dir_check(dir, diag);
	return err ? err : inl_dir_check(new_dir, diag);
}

int inl_rename(struct inl_inode *dir, const char *name, size_t len, struct inl_inode *new_dir, const char *new_name,
	       size_t new_len, unsigned flags, struct inl_diag *diag)
{
	struct renaming renaming = { .from = { .dir = dir, .name = name, .len = len },
				     .to = { .dir = new_dir, .name = new_name, .len = new_len },
				     .flags = flags, .diag = diag };
	int err;

	if ((flags & ~(unsigned)(INL_RENAME_NOREPLACE | INL_RENAME_EXCHANGE | INL_RENAME_WHITEOUT)) ||
	    ((flags & INL_RENAME_EXCHANGE) && flags != INL_RENAME_EXCHANGE))
		return -EINVAL;
	err = check_dirs(dir, new_dir, diag);
	if (!err)
		err = check_names(&renaming);
	return err ? err : inl_settle(rename_once, &renaming, diag);
}
