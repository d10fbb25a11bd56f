/*
 * ext4/attr.c: the attributes of inodes: times, owner, mode, size, blocks, as they are kept and as they are set.
 * Not here: reading them (inode.c); extended attributes (xattr.c, xattrmod.c).
 * Read more: Linux Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps"; ext4/change.h.
 */
#include "ext4/xattr.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define TIME_MIN	 INT32_MIN	/* seconds: 1901 */
#define TIME_MAX	 INT32_MAX	/* 2038, without the extra bits */
#define TIME_MAX_EXTRA	 0x37fffffffll	/* 2446 */
#define NSEC_PER_SEC	 1000000000u
#define BLOCKS_MAX_SMALL 0xffffffffull	/* of 512 bytes, in i_blocks_lo */
#define BLOCKS_MAX	 0xffffffffffffull

/* ---- times ------------------------------------------------------------------------------------------------------- */

/* The nearest time that can be kept; nanoseconds count only between the ends. */
static struct inl_time clamp_time(struct inl_time time, bool extra)
{
	int64_t max = extra ? TIME_MAX_EXTRA : TIME_MAX;

	if (time.sec >= max)
		return (struct inl_time){ max, 0 };
	if (time.sec <= TIME_MIN)
		return (struct inl_time){ TIME_MIN, 0 };
	return time;
}

/* The low 32 bits of the seconds, and the extra word: two more bits of them, 30 bits of nanoseconds. */
static uint32_t time_low(struct inl_time time)
{
	return (uint32_t)time.sec;
}

static uint32_t time_extra(struct inl_time time)
{
	uint64_t above = (uint64_t)(time.sec - (int32_t)time.sec) >> 32;

	return (uint32_t)(above & 3) | time.nsec << 2;
}

#define SET_TIME(inode, field, time)                                        \
	do {                                                                \
		bool extra = INL_HAS_FIELD(inode, field##_extra);               \
		struct inl_time kept = clamp_time(time, extra);             \
		(inode)->raw.field = time_low(kept);                        \
		if (extra)                                                  \
			(inode)->raw.field##_extra = time_extra(kept);      \
	} while (0)

void inl_inode_set_times(struct inl_inode *inode, unsigned which, struct inl_time time)
{
	if (which & INL_TIME_A)
		SET_TIME(inode, i_atime, time);
	if (which & INL_TIME_M)
		SET_TIME(inode, i_mtime, time);
	if (which & INL_TIME_C)
		SET_TIME(inode, i_ctime, time);
	if ((which & INL_TIME_CR) && INL_HAS_FIELD(inode, i_crtime))
		SET_TIME(inode, i_crtime, time);
}

/* ---- size, blocks, owner ----------------------------------------------------------------------------------------- */

void inl_inode_set_size(struct inl_inode *inode, uint64_t size)
{
	inode->raw.i_size = (uint32_t)size;
	inode->raw.i_size_high = (uint32_t)(size >> 32);
	inode->size = size;
}

static int set_blocks(struct inl_inode *inode, uint64_t blocks)
{
	bool huge = ext2fs_has_feature_huge_file(inode->vol->fs->super), in_blocks = blocks > BLOCKS_MAX;

	if (in_blocks)
		blocks >>= inode->vol->block_bits - 9;
	if (blocks > (huge ? BLOCKS_MAX : BLOCKS_MAX_SMALL))
		return -EFBIG;
	inode->raw.i_blocks = (uint32_t)blocks;
	if (!huge)
		return 0;
	inode->raw.osd2.linux2.l_i_blocks_hi = (uint16_t)(blocks >> 32);
	/* Others look at the flags without the lock: they are left alone unless this one changes. */
	if (in_blocks != !!(inode->raw.i_flags & EXT4_FL_HUGE_FILE))
		inode->raw.i_flags ^= EXT4_FL_HUGE_FILE;
	return 0;
}

int inl_inode_add_blocks(struct inl_inode *inode, int64_t n)
{
	uint64_t blocks = inl_inode_blocks(inode), change = (n < 0 ? -(uint64_t)n : (uint64_t)n) << (inode->vol->block_bits - 9);

	if (n < 0 && change > blocks)
		return -EUCLEAN;
	return set_blocks(inode, n < 0 ? blocks - change : blocks + change);
}

static void set_uid(struct inl_inode *inode, uint32_t uid)
{
	inode->raw.i_uid = (uint16_t)uid;
	inode->raw.osd2.linux2.l_i_uid_high = (uint16_t)(uid >> 16);
}

static void set_gid(struct inl_inode *inode, uint32_t gid)
{
	inode->raw.i_gid = (uint16_t)gid;
	inode->raw.osd2.linux2.l_i_gid_high = (uint16_t)(gid >> 16);
}

/* ---- new inodes -------------------------------------------------------------------------------------------------- */

/* The old form (16 bits) in the first word where it has room, else the new one in the second. */
static int set_device(struct inl_inode *inode, uint32_t major, uint32_t minor)
{
	if (major > 0xfff || minor > 0xfffff)
		return -EINVAL;
	if (major < 256 && minor < 256)
		inode->raw.i_block[0] = major << 8 | minor;
	else
		inode->raw.i_block[1] = (minor & 0xff) | major << 8 | (minor & 0xfff00) << 12;
	return 0;
}

/* Mode and group are what is asked for, unless the directory is to have a say. */
static void set_mode_and_owner(struct inl_inode *inode, const struct inl_inode *dir, uint32_t mode,
			       const struct inl_attr *attr, unsigned which)
{
	bool inherits = which & INL_ATTR_INHERIT;
	bool bsd = inherits && (dir->vol->fs->super->s_default_mount_opts & EXT2_DEFM_BSDGROUPS);
	bool setgid = inherits && !bsd && (dir->raw.i_mode & S_ISGID);

	if (setgid && S_ISDIR(mode))
		mode |= S_ISGID;
	inode->raw.i_mode = (uint16_t)mode;
	inode->type = mode & S_IFMT;
	set_uid(inode, attr->uid);
	set_gid(inode, bsd || setgid ? dir->raw.i_gid | (uint32_t)dir->raw.osd2.linux2.l_i_gid_high << 16 : attr->gid);
}

int inl_inode_fill(struct inl_inode *inode, const struct inl_inode *dir, uint32_t mode, const struct inl_attr *attr,
		   unsigned which)
{
	struct inl_time now = inl_now(inode->vol);

	set_mode_and_owner(inode, dir, mode, attr, which);
	inode->raw.i_links_count = S_ISDIR(mode) ? 2 : 1;
	inode->raw.i_flags |= inl_flags_inherited(dir, mode);
	inode->lasting = inode->raw.i_flags & EXT4_FL_LASTING;
	inl_inode_set_times(inode, INL_TIME_A, which & INL_ATTR_ATIME ? attr->atime : now);
	inl_inode_set_times(inode, INL_TIME_M, which & INL_ATTR_MTIME ? attr->mtime : now);
	inl_inode_set_times(inode, INL_TIME_C, which & INL_ATTR_CTIME ? attr->ctime : now);
	inl_inode_set_times(inode, INL_TIME_CR, which & INL_ATTR_CRTIME ? attr->crtime : now);
	return S_ISCHR(mode) || S_ISBLK(mode) ? set_device(inode, attr->rdev_major, attr->rdev_minor) : 0;
}

/* A directory has the ACL for what will be made in it, too. Linux sets that one first. */
static int put_acls(struct inl_handle *op, struct inl_inode *inode, uint8_t *acl, size_t len)
{
	uint32_t mode = inode->raw.i_mode;
	bool equiv;
	int err = 0;

	if (S_ISDIR(mode))
		err = inl_raw_xattr_set(op, inode, XATTR_INDEX_ACL_DEFAULT, "", acl, len, INL_XATTR_CREATE);
	if (!err)
		err = inl_acl_narrow(acl, len, &mode, &equiv);
	if (err)
		return err;
	inode->raw.i_mode = (uint16_t)mode;
	return equiv ? 0 : inl_raw_xattr_set(op, inode, XATTR_INDEX_ACL_ACCESS, "", acl, len, INL_XATTR_CREATE);
}

int inl_acls_inherit(struct inl_handle *op, struct inl_inode *inode, struct inl_inode *dir, uint32_t umask)
{
	uint32_t room = inode->vol->block_size;
	uint8_t *acl;
	size_t len;
	int err;

	if (S_ISLNK(inode->type))
		return 0;
	acl = malloc(room);
	if (!acl)
		return -ENOMEM;
	err = inl_raw_xattr_get(dir, XATTR_INDEX_ACL_DEFAULT, "", acl, room, &len, NULL);
	if (err == -ENODATA || (!err && len == INL_ACL_LEN_NONE)) {
		inode->raw.i_mode &= (uint16_t)~(umask & 0777);
		err = 0;
	} else if (!err) {
		err = put_acls(op, inode, acl, len);
	}
	free(acl);
	return err == -ERANGE ? -EOPNOTSUPP : err;
}

/* ---- setattr ----------------------------------------------------------------------------------------------------- */

/* The access ACL, if there is one, says what the mode says. */
static int chmod_acl(struct inl_handle *op, struct inl_inode *inode, uint32_t mode)
{
	uint8_t *acl = malloc(inode->vol->block_size);
	size_t len;
	int err;

	if (!acl)
		return -ENOMEM;
	err = inl_raw_xattr_get(inode, XATTR_INDEX_ACL_ACCESS, "", acl, inode->vol->block_size, &len, NULL);
	if (!err)
		err = inl_acl_set_mode(acl, len, mode);
	if (!err)
		err = inl_raw_xattr_set(op, inode, XATTR_INDEX_ACL_ACCESS, "", acl, len, 0);
	free(acl);
	return err == -ENODATA ? 0 : err;
}

struct setting {
	struct inl_inode *inode;
	const struct inl_attr *attr;
	unsigned which;
	struct inl_diag *diag;
};

static int check_setting(const struct setting *setting)
{
	struct inl_inode *inode = setting->inode;
	bool touch = (setting->which & INL_ATTR_TOUCH) && !(setting->which & ~(unsigned)(INL_ATTR_TIMES | INL_ATTR_TOUCH));
	int err = touch ? inl_check_flags(inode, EXT4_FL_IMMUTABLE, setting->diag) :
			  inl_inode_may_change(inode, setting->diag);

	if (!err && (setting->which & INL_ATTR_MODE) && S_ISLNK(inode->type))
		err = inl_diag_set(setting->diag, -EOPNOTSUPP, "a symbolic link has no permissions of its own");
	return err;
}

static void set_times(struct inl_inode *inode, const struct inl_attr *attr, unsigned which)
{
	if (which & INL_ATTR_ATIME)
		inl_inode_set_times(inode, INL_TIME_A, attr->atime);
	if (which & INL_ATTR_MTIME)
		inl_inode_set_times(inode, INL_TIME_M, attr->mtime);
	if (which & INL_ATTR_CRTIME)
		inl_inode_set_times(inode, INL_TIME_CR, attr->crtime);
	inl_inode_set_times(inode, INL_TIME_C, which & INL_ATTR_CTIME ? attr->ctime : inl_now(inode->vol));
}

static int setattr_op(struct inl_handle *op, void *arg)
{
	const struct setting *setting = arg;
	const struct inl_attr *attr = setting->attr;
	struct inl_inode *inode = setting->inode;
	int err = check_setting(setting);

	if (!err)
		err = inl_inode_modify(op, inode);
	if (err)
		return err;
	if (setting->which & INL_ATTR_MODE) {
		inode->raw.i_mode = (uint16_t)((inode->raw.i_mode & S_IFMT) | (attr->mode & 07777));
		err = chmod_acl(op, inode, attr->mode);
	}
	if (setting->which & INL_ATTR_UID)
		set_uid(inode, attr->uid);
	if (setting->which & INL_ATTR_GID)
		set_gid(inode, attr->gid);
	set_times(inode, attr, setting->which);
	return err;
}

bool inl_attr_good(const struct inl_attr *attr, unsigned which)
{
	return !((which & INL_ATTR_ATIME) && attr->atime.nsec >= NSEC_PER_SEC) &&
	       !((which & INL_ATTR_MTIME) && attr->mtime.nsec >= NSEC_PER_SEC) &&
	       !((which & INL_ATTR_CTIME) && attr->ctime.nsec >= NSEC_PER_SEC) &&
	       !((which & INL_ATTR_CRTIME) && attr->crtime.nsec >= NSEC_PER_SEC);
}

int inl_setattr(struct inl_inode *inode, const struct inl_attr *attr, unsigned which, struct inl_diag *diag)
{
	struct setting setting = { inode, attr, which, diag };
	unsigned credits = 1 + (which & INL_ATTR_MODE ? inl_xattr_credits(inode->vol) : 0);

	if ((which & ~(unsigned)(INL_ATTR_MODE | INL_ATTR_UID | INL_ATTR_GID | INL_ATTR_TIMES | INL_ATTR_TOUCH)) ||
	    !inl_attr_good(attr, which))
		return -EINVAL;
	return inl_op_run(inode->vol, credits, setattr_op, &setting, diag);
}
