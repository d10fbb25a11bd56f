/*
 * ext4/names.c: names and entries: which can be, what they stand for, how inodes count them.
 * Not here: making, linking (namei.c), removing and renaming (rename.c) them.
 * Read more: ext4/namei.h.
 */
#include "ext4/namei.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TRIES_MAX 1000u

int inl_names_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	return inl_op_run(vol, INL_MIN(credits, inl_op_credits_max(vol)), fn, arg, diag);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool has_bad_bytes(const char *name, size_t len)
{
	return memchr(name, '/', len) || memchr(name, 0, len);
}

int inl_name_check_new(const char *name, size_t len)
{
	if (inl_is_dots(name, len))
		return -EEXIST;
	if (len > INL_NAME_MAX)
		return -ENAMETOOLONG;
	return !len || has_bad_bytes(name, len) ? -EINVAL : 0;
}

int inl_name_check_old(const char *name, size_t len)
{
	if (len > INL_NAME_MAX)
		return -ENAMETOOLONG;
	return !len || has_bad_bytes(name, len) ? -ENOENT : 0;
}

/* ---- what may be changed ----------------------------------------------------------------------------------------- */

static int not_written(const struct inl_inode *inode, const char *what, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EOPNOTSUPP, "inode %u %s: such are only read", inode->ino, what);
}

int inl_check_features(const struct inl_inode *inode, struct inl_diag *diag)
{
	if (inode->lasting & EXT4_FL_INLINE)
		return not_written(inode, "keeps its contents in itself", diag);
	if (inode->lasting & EXT4_FL_CASEFOLD)
		return not_written(inode, "is a directory without case", diag);
	if (inode->lasting & EXT4_FL_EA_INODE)
		return not_written(inode, "is the value of an attribute", diag);
	return 0;
}

int inl_dir_check(const struct inl_inode *dir, struct inl_diag *diag)
{
	if (!S_ISDIR(dir->type))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	if (!dir->vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	return inl_check_features(dir, diag);
}

int inl_check_taking(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag)
{
	int err = inl_check_flags(dir, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, diag);

	if (!err)
		err = inl_check_flags(inode, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, diag);
	if (!err && inode->ino == INL_ROOT_INO)
		err = inl_diag_set(diag, -EBUSY, "is the root");
	return err ? err : inl_check_features(inode, diag);
}

/* ---- links and times --------------------------------------------------------------------------------------------- */

static bool is_indexed(const struct inl_inode *dir)
{
	return dir->raw.i_flags & EXT4_FL_INDEX;
}

bool inl_links_full(const struct inl_inode *dir)
{
	return dir->raw.i_links_count >= INL_LINKS_MAX &&
	       !(ext2fs_has_feature_dir_nlink(dir->vol->fs->super) && is_indexed(dir));
}

int inl_links_too_many(struct inl_diag *diag)
{
	return inl_diag_set(diag, -EMLINK, "there are 65,000 links already");
}

/* One subdirectory more. A count of 1 says that they are too many to be counted. */
void inl_links_inc(struct inl_inode *dir)
{
	dir->raw.i_links_count++;
	if (is_indexed(dir) && (dir->raw.i_links_count > INL_LINKS_MAX || dir->raw.i_links_count == 2))
		dir->raw.i_links_count = 1;
}

void inl_links_dec(struct inl_inode *dir)
{
	if (dir->raw.i_links_count > 2)
		dir->raw.i_links_count--;
}

int inl_dir_changed(struct inl_handle *op, struct inl_inode *dir, struct inl_time now)
{
	int err = inl_inode_modify(op, dir);

	if (!err)
		inl_inode_set_times(dir, INL_TIME_M | INL_TIME_C, now);
	return err;
}

int inl_inode_changed(struct inl_handle *op, struct inl_inode *inode, struct inl_time now)
{
	int err = inl_inode_modify(op, inode);

	if (!err)
		inl_inode_set_times(inode, INL_TIME_C, now);
	return err;
}

int inl_link_take(struct inl_handle *op, struct inl_inode *inode, struct inl_time now)
{
	int err = inl_inode_changed(op, inode, now);

	if (err)
		return err;
	if (!inode->raw.i_links_count)
		return -EUCLEAN;
	if (S_ISDIR(inode->type)) {
		inode->raw.i_links_count = 0;
		inl_inode_set_size(inode, 0);
	} else {
		inode->raw.i_links_count--;
	}
	return inode->raw.i_links_count ? 0 : inl_inode_unlinked(op, inode);
}

/* ---- an entry of a directory ------------------------------------------------------------------------------------- */

struct finding {
	struct inl_entry_ref *entry;
	uint32_t ino;
};

static int find_op(struct inl_handle *op, void *arg)
{
	struct finding *finding = arg;
	struct inl_entry_ref *entry = finding->entry;

	if (!entry->dir->raw.i_links_count)
		return -ENOENT;
	return inl_dir_find(op, entry->dir, entry->stored, entry->stored_len, &finding->ino, NULL);
}

static int find(struct inl_entry_ref *entry, uint32_t *ino, struct inl_diag *diag)
{
	struct finding finding = { .entry = entry };
	uint64_t found;
	int err;

	entry->encrypted = entry->dir->encrypted;
	/* Of a locked directory no-key names can be looked up. */
	err = inl_dir_stored_name(entry->dir, entry->name, entry->len, entry->stored, &entry->stored_len, NULL);
	entry->locked = err;
	if (err) {
		err = inl_dir_resolve(entry->dir, entry->name, entry->len, entry->stored, &entry->stored_len, &found, diag);
		*ino = (uint32_t)found;
		return err;
	}
	err = inl_op_look(entry->dir->vol, find_op, &finding);
	*ino = finding.ino;
	return err == -EUCLEAN ? inl_diag_set(diag, err, "directory %u is damaged", entry->dir->ino) : err;
}

int inl_entry_get(struct inl_entry_ref *entry, struct inl_diag *diag)
{
	uint32_t ino;
	int err = find(entry, &ino, diag);

	entry->inode = NULL;
	if (err)
		return err == -ENOENT ? 0 : err;
	err = inl_inode_get_named(entry->dir->vol, ino, diag, &entry->inode);
	/* As Linux, which looks at regular files only when they are opened. */
	return err || S_ISREG(entry->inode->type) ? err : inl_crypt_check_child(entry->dir, entry->inode, diag);
}

void inl_entry_put(struct inl_entry_ref *entry)
{
	inl_inode_put(entry->inode);
	entry->inode = NULL;
}

int inl_entry_check(struct inl_handle *op, struct inl_entry_ref *entry)
{
	uint32_t ino;
	int err;

	if (entry->encrypted != entry->dir->encrypted)
		return -ESTALE;
	if (!entry->dir->raw.i_links_count)
		return -ENOENT;
	err = inl_dir_find(op, entry->dir, entry->stored, entry->stored_len, &ino, NULL);
	if (err == -ENOENT)
		return entry->inode ? -ESTALE : 0;
	if (err)
		return err;
	return entry->inode && entry->inode->ino == ino ? 0 : -ESTALE;
}

int inl_settle(inl_attempt_fn *attempt, void *arg, struct inl_diag *diag)
{
	int err = -ESTALE;

	for (unsigned i = 0; err == -ESTALE && i < TRIES_MAX; i++)
		err = attempt(arg, diag);
	return err == -ESTALE ? inl_diag_set(diag, -EUCLEAN, "a name stands for an inode that is not in use") : err;
}
