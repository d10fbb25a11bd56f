/*
 * ext4/flags.c: the flags of inodes that programs set: what they forbid, how they go from a directory to what is made in
 * it, how they are changed.
 * Not here: those that say how something is stored (extents, index, encryption), which come and go with that.
 * Read more: ioctl_iflags(2), chattr(1), whose letters the flags have; inlay/volume.h.
 */
#include "ext4/change.h"
#include <errno.h>
#include <sys/stat.h>

enum {
	FL_SECRM = 0x00000001,	     /* s */
	FL_UNRM = 0x00000002,	     /* u */
	FL_COMPR = 0x00000004,	     /* c */
	FL_SYNC = 0x00000008,	     /* S */
	FL_NODUMP = 0x00000040,	     /* d */
	FL_NOATIME = 0x00000080,     /* A */
	FL_NOCOMPR = 0x00000400,     /* m */
	FL_JOURNAL_DATA = 0x00004000, /* j */
	FL_NOTAIL = 0x00008000,	     /* t */
	FL_DIRSYNC = 0x00010000,     /* D */
	FL_TOPDIR = 0x00020000,	     /* T */
	FL_EOFBLOCKS = 0x00400000,
	FL_DAX = 0x02000000,	     /* x */
	FL_PROJINHERIT = 0x20000000, /* P */

	INHERITED = FL_SECRM | FL_UNRM | FL_COMPR | FL_SYNC | FL_NODUMP | FL_NOATIME | FL_NOCOMPR | FL_JOURNAL_DATA |
		    FL_NOTAIL | FL_DIRSYNC | FL_DAX | FL_PROJINHERIT,
	OF_DIRS_ONLY = FL_DIRSYNC | FL_TOPDIR | FL_PROJINHERIT | EXT4_FL_CASEFOLD,
	OF_ALL = FL_NODUMP | FL_NOATIME,

	/* What Linux lets programs set; of the rest what it shows must be passed back, and is not looked at. */
	SETTABLE = FL_SECRM | FL_UNRM | FL_COMPR | FL_SYNC | EXT4_FL_IMMUTABLE | EXT4_FL_APPEND | FL_NODUMP | FL_NOATIME |
		   FL_JOURNAL_DATA | FL_NOTAIL | FL_DIRSYNC | FL_TOPDIR | EXT4_FL_EXTENTS | FL_EOFBLOCKS | FL_DAX |
		   FL_PROJINHERIT | EXT4_FL_CASEFOLD,
	/* ... and what becomes of it here: maps are not converted, directories not made to ignore case. */
	CHANGED = SETTABLE & ~(EXT4_FL_EXTENTS | EXT4_FL_CASEFOLD),
	NOT_WITH_DAX = EXT4_FL_VERITY | EXT4_FL_ENCRYPT | FL_JOURNAL_DATA,
};

/* ---- what they forbid -------------------------------------------------------------------------------------------- */

int inl_check_flags(const struct inl_inode *inode, uint32_t flags, struct inl_diag *diag)
{
	uint32_t has = inode->lasting & flags;

	if (!has)
		return 0;
	return inl_diag_set(diag, -EPERM, "inode %u is marked as %s", inode->ino,
			    has & EXT4_FL_IMMUTABLE ? "immutable" : "append-only");
}

int inl_inode_may_change(struct inl_inode *inode, struct inl_diag *diag)
{
	if (!inode->vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	return inl_check_flags(inode, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, diag);
}

/* ---- what is inherited ------------------------------------------------------------------------------------------- */

uint32_t inl_flags_inherited(const struct inl_inode *dir, uint32_t mode)
{
	uint32_t flags = dir->raw.i_flags & INHERITED;

	if (S_ISDIR(mode))
		return flags;
	return S_ISREG(mode) ? flags & ~(uint32_t)OF_DIRS_ONLY : flags & OF_ALL;
}

/* ---- set --------------------------------------------------------------------------------------------------------- */

struct setting {
	struct inl_inode *inode;
	uint32_t flags;
	struct inl_diag *diag;
};

/* Are there such flags, and are they for what the inode is? */
static int check_known(const struct setting *setting, uint32_t type)
{
	uint32_t unknown = setting->flags & ~INL_FLAGS_VISIBLE, of_dirs = setting->flags & SETTABLE & OF_DIRS_ONLY;

	if (!S_ISREG(type) && !S_ISDIR(type))
		return inl_diag_set(setting->diag, -ENOTTY, "only files and directories have flags that can be set");
	if (unknown)
		return inl_diag_set(setting->diag, -EOPNOTSUPP, "flags 0x%x are none that programs know", unknown);
	if (of_dirs && !S_ISDIR(type))
		return inl_diag_set(setting->diag, -EOPNOTSUPP, "flags 0x%x are for directories", of_dirs);
	return 0;
}

/* DAX excludes what changes data on their way. Nothing of this comes to a directory that is inline. */
static bool dax_good(const struct inl_inode *inode, uint32_t old, uint32_t flags)
{
	uint32_t excluded = NOT_WITH_DAX | (S_ISDIR(inode->type) ? 0 : EXT4_FL_INLINE);

	return !((flags & FL_DAX) && (old & excluded)) && !((flags & excluded) && (old & FL_DAX));
}

/* In the order of Linux. */
static int check_setting(const struct setting *setting)
{
	uint32_t old = setting->inode->raw.i_flags, flags = setting->flags & SETTABLE;
	int err = check_known(setting, setting->inode->type);

	if (err)
		return err;
	/* Until it is not immutable any more, nothing else changes. As Linux, which compares with all that it has. */
	if ((old & flags & EXT4_FL_IMMUTABLE) && old != flags)
		return inl_check_flags(setting->inode, EXT4_FL_IMMUTABLE, setting->diag);
	if (!dax_good(setting->inode, old, flags))
		return inl_diag_set(setting->diag, -EOPNOTSUPP,
				    "DAX goes neither with encryption, fs-verity and journaled data nor with files kept in inodes");
	if ((old ^ flags) & EXT4_FL_CASEFOLD)
		return inl_diag_set(setting->diag, -EOPNOTSUPP, "directories without case are only read");
	return 0;
}

static int set_op(struct inl_handle *op, void *arg)
{
	const struct setting *setting = arg;
	struct inl_inode *inode = setting->inode;
	uint32_t changed = CHANGED;
	int err = check_setting(setting);

	if (!err)
		err = inl_inode_modify(op, inode);
	if (err)
		return err;
	if (!ext2fs_has_feature_journal(inode->vol->fs->super))
		changed &= ~(uint32_t)FL_JOURNAL_DATA;
	inode->raw.i_flags = (inode->raw.i_flags & ~changed) | (setting->flags & changed);
	inode->lasting = inode->raw.i_flags & EXT4_FL_LASTING;
	inl_inode_set_times(inode, INL_TIME_C, inl_now(inl_op_vol(op)));
	return 0;
}

int inl_set_flags(struct inl_inode *inode, uint32_t flags, struct inl_diag *diag)
{
	struct setting setting = { inode, flags, diag };
	int err;

	/* Whoever writes has looked at the flags, and goes on until he is done. */
	inl_data_lock_exclusive(inode);
	err = inl_op_run(inode->vol, 1, set_op, &setting, diag);
	inl_data_unlock(inode);
	return err;
}
