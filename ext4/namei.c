/*
 * ext4/namei.c: names: create, link, unlink, rename.
 * Not here: directories as such (dirmod.c, dxmod.c); what becomes of inodes without names (orphan.c); attributes
 * (attr.c); what is above what (chain.c).
 * Read more: rename(2), link(2), unlink(2), mkdir(2), whose errors these return; inlay/volume.h.
 *
 * Names in encrypted directories are encrypted, and keys of what is made derived, before the operation: which sees first
 * whether the directory is still what it was.
 *
 * Inodes cannot be loaded within an operation. So a name is looked up before, its inode loaded, and the operation sees
 * first whether the name still stands for it: if not (-ESTALE, which nobody else returns), all begins again.
 *
 * What is made is as it is asked for: neither the setgid bit nor the default ACL of its directory is looked at.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LINKS_MAX 65000u
#define TRIES_MAX 1000u

/* The permission bits of a symbolic link, which nobody asks for. */
#define SYMLINK_MODE (S_IFLNK | 0777)

static uint8_t dirent_type(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

/* The credits are upper bounds, which small journals do not have room for. */
static int run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	return inl_op_run(vol, INL_MIN(credits, inl_op_credits_max(vol)), fn, arg, diag);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool has_bad_bytes(const char *name, size_t len)
{
	return memchr(name, '/', len) || memchr(name, 0, len);
}

/* A name to be made. */
static int check_new_name(const char *name, size_t len)
{
	if (inl_is_dots(name, len))
		return -EEXIST;
	if (len > INL_NAME_MAX)
		return -ENAMETOOLONG;
	return !len || has_bad_bytes(name, len) ? -EINVAL : 0;
}

/* A name that should be there. */
static int check_old_name(const char *name, size_t len)
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

static int check_features(const struct inl_inode *inode, struct inl_diag *diag)
{
	if (inode->raw.i_flags & EXT4_FL_INLINE)
		return not_written(inode, "keeps its contents in itself", diag);
	if (inode->raw.i_flags & EXT4_FL_CASEFOLD)
		return not_written(inode, "is a directory without case", diag);
	if (inode->raw.i_flags & EXT4_FL_EA_INODE)
		return not_written(inode, "is the value of an attribute", diag);
	return 0;
}

/* A directory whose entries are to change. */
static int check_dir(const struct inl_inode *dir, struct inl_diag *diag)
{
	if (!S_ISDIR(dir->raw.i_mode))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	if (!dir->vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	return check_features(dir, diag);
}

static int forbidden(const struct inl_inode *inode, uint32_t flags, struct inl_diag *diag)
{
	if (!(inode->raw.i_flags & flags))
		return 0;
	return inl_diag_set(diag, -EPERM, "inode %u is marked as %s", inode->ino,
			    inode->raw.i_flags & flags & EXT4_FL_IMMUTABLE ? "immutable" : "append-only");
}

/* May a name be taken from a directory, and from this inode? */
static int check_taking(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag)
{
	int err = forbidden(dir, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, diag);

	if (!err)
		err = forbidden(inode, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, diag);
	if (!err && inode->ino == INL_ROOT_INO)
		err = inl_diag_set(diag, -EBUSY, "is the root");
	return err ? err : check_features(inode, diag);
}

/* ---- links and times --------------------------------------------------------------------------------------------- */

static bool is_indexed(const struct inl_inode *dir)
{
	return dir->raw.i_flags & EXT4_FL_INDEX;
}

static bool links_full(const struct inl_inode *dir)
{
	return dir->raw.i_links_count >= LINKS_MAX &&
	       !(ext2fs_has_feature_dir_nlink(dir->vol->fs->super) && is_indexed(dir));
}

static int too_many(struct inl_diag *diag)
{
	return inl_diag_set(diag, -EMLINK, "there are 65,000 links already");
}

/* One subdirectory more. A count of 1 says that they are too many to be counted. */
static void links_inc(struct inl_inode *dir)
{
	dir->raw.i_links_count++;
	if (is_indexed(dir) && (dir->raw.i_links_count > LINKS_MAX || dir->raw.i_links_count == 2))
		dir->raw.i_links_count = 1;
}

static void links_dec(struct inl_inode *dir)
{
	if (dir->raw.i_links_count > 2)
		dir->raw.i_links_count--;
}

static int changed_dir(struct inl_handle *op, struct inl_inode *dir, struct inl_time now)
{
	int err = inl_inode_modify(op, dir);

	if (!err)
		inl_inode_set_times(dir, INL_TIME_M | INL_TIME_C, now);
	return err;
}

static int changed_inode(struct inl_handle *op, struct inl_inode *inode, struct inl_time now)
{
	int err = inl_inode_modify(op, inode);

	if (!err)
		inl_inode_set_times(inode, INL_TIME_C, now);
	return err;
}

/* One name less: of a directory the only one. */
static int take_link(struct inl_handle *op, struct inl_inode *inode, struct inl_time now)
{
	int err = changed_inode(op, inode, now);

	if (err)
		return err;
	if (!inode->raw.i_links_count)
		return -EUCLEAN;
	if (S_ISDIR(inode->raw.i_mode)) {
		inode->raw.i_links_count = 0;
		inl_inode_set_size(inode, 0);
	} else {
		inode->raw.i_links_count--;
	}
	return inode->raw.i_links_count ? 0 : inl_inode_unlinked(op, inode);
}

/* ---- an entry of a directory ------------------------------------------------------------------------------------- */

struct entry {
	struct inl_inode *dir;
	const char *name;
	size_t len;
	uint8_t stored[INL_NAME_MAX]; /* the name as it lies in the directory */
	size_t stored_len;
	bool encrypted;		 /* the directory, when that was looked up */
	int locked;		 /* why it had no key then: its names could only be taken away; 0: it had one */
	struct inl_inode *inode; /* who has the name; NULL: nobody */
};

struct finding {
	struct entry *entry;
	uint32_t ino;
};

static int find_op(struct inl_handle *op, void *arg)
{
	struct finding *finding = arg;
	struct entry *entry = finding->entry;

	if (!entry->dir->raw.i_links_count)
		return -ENOENT;
	return inl_dir_find(op, entry->dir, entry->stored, entry->stored_len, &finding->ino, NULL);
}

static int find(struct entry *entry, uint32_t *ino, struct inl_diag *diag)
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

/* Look the name up and load its inode. Not finding it is no error. */
static int entry_get(struct entry *entry, struct inl_diag *diag)
{
	uint32_t ino;
	int err = find(entry, &ino, diag);

	entry->inode = NULL;
	if (err)
		return err == -ENOENT ? 0 : err;
	err = inl_inode_get_named(entry->dir->vol, ino, diag, &entry->inode);
	/* As Linux, which looks at regular files only when they are opened. */
	return err || S_ISREG(entry->inode->raw.i_mode) ? err : inl_crypt_check_child(entry->dir, entry->inode, diag);
}

static void entry_put(struct entry *entry)
{
	inl_inode_put(entry->inode);
	entry->inode = NULL;
}

/* Does the name still stand for what it did? */
static int entry_check(struct inl_handle *op, struct entry *entry)
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

/* Try until nobody has come between. */
typedef int attempt_fn(void *arg, struct inl_diag *diag);

static int settle(attempt_fn *attempt, void *arg, struct inl_diag *diag)
{
	int err = -ESTALE;

	for (unsigned i = 0; err == -ESTALE && i < TRIES_MAX; i++)
		err = attempt(arg, diag);
	return err == -ESTALE ? inl_diag_set(diag, -EUCLEAN, "a name stands for an inode that is not in use") : err;
}

/* ---- create ------------------------------------------------------------------------------------------------------ */

struct creation {
	struct inl_inode *dir;
	const char *name;
	size_t len;
	uint8_t stored[INL_NAME_MAX]; /* the name as it will lie in the directory */
	size_t stored_len;
	bool encrypted; /* the directory, when that was made */
	struct inl_new_crypt crypt;
	uint32_t mode;
	const char *target; /* of symbolic links */
	size_t target_len;
	uint8_t *encoded; /* room for an encrypted one, a block */
	const struct inl_attr *attr;
	unsigned which;
	struct inl_diag *diag;
	struct inl_inode *inode;
};

/* Can the directory have it? */
static int create_check_dir(const struct creation *creation)
{
	struct inl_inode *dir = creation->dir;
	int err = forbidden(dir, EXT4_FL_IMMUTABLE, creation->diag);

	if (err)
		return err;
	return S_ISDIR(creation->mode) && links_full(dir) ? too_many(creation->diag) : 0;
}

/* May it be made? */
static int create_check(struct inl_handle *op, const struct creation *creation)
{
	struct inl_inode *dir = creation->dir;
	uint32_t ino;
	int err;

	if (creation->encrypted != dir->encrypted)
		return -ESTALE;
	if (!dir->raw.i_links_count)
		return -ENOENT;
	err = inl_dir_find(op, dir, creation->stored, creation->stored_len, &ino, NULL);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	return create_check_dir(creation);
}

/* The target stands in place of the map where it fits with a NUL, else in a block. */
static int put_target(struct inl_handle *op, struct inl_inode *inode, const void *target, size_t len)
{
	uint64_t pblk;
	uint8_t *bytes;
	int err;

	inl_inode_set_size(inode, len);
	if (len < sizeof(inode->raw.i_block)) {
		memcpy(inode->raw.i_block, target, len);
		return 0;
	}
	inl_map_init(inode);
	err = inl_block_alloc(op, inl_inode_goal(op, inode, 0), &pblk);
	if (!err)
		err = inl_block_new(op, pblk, &bytes);
	if (err)
		return err;
	memcpy(bytes, target, len);
	return inl_map_insert(op, inode, 0, 1, pblk, false);
}

/* Its number is part of the encryption of a target, so that waits until there is one. */
static int put_link(struct inl_handle *op, const struct creation *creation)
{
	struct inl_inode *inode = creation->inode;
	size_t len;
	int err;

	if (!inode->encrypted)
		return put_target(op, inode, creation->target, creation->target_len);
	err = inl_symlink_encode(inode->crypt, creation->target, creation->target_len, inode->vol->block_size,
				 creation->encoded, &len);
	return err ? err : put_target(op, inode, creation->encoded, len);
}

static int put_contents(struct inl_handle *op, const struct creation *creation)
{
	struct inl_inode *inode = creation->inode;

	if (S_ISLNK(creation->mode))
		return put_link(op, creation);
	if (S_ISREG(creation->mode) || S_ISDIR(creation->mode))
		inl_map_init(inode);
	return S_ISDIR(creation->mode) ? inl_dir_init(op, inode, creation->dir->ino) : 0;
}

static int make_inode(struct inl_handle *op, struct creation *creation)
{
	uint32_t ino;
	int err = inl_ino_alloc(op, creation->dir, creation->mode, &ino);

	if (!err)
		err = inl_inode_new(op, ino, &creation->inode);
	if (!err)
		err = inl_inode_modify(op, creation->inode);
	if (!err)
		err = inl_inode_fill(creation->inode, creation->dir, creation->mode, creation->attr, creation->which);
	if (!err)
		err = inl_new_crypt_give(op, creation->inode, &creation->crypt);
	return err ? err : put_contents(op, creation);
}

/* What an attempt that did not succeed has made; its encryption serves the next one. */
static void drop_inode(struct creation *creation)
{
	if (creation->inode)
		creation->inode->crypt = NULL;
	inl_inode_put(creation->inode);
	creation->inode = NULL;
}

static int create_op(struct inl_handle *op, void *arg)
{
	struct creation *creation = arg;
	struct inl_inode *dir = creation->dir;
	int err;

	drop_inode(creation);
	err = create_check(op, creation);
	if (!err)
		err = make_inode(op, creation);
	if (!err)
		err = inl_dir_add(op, dir, creation->stored, creation->stored_len, creation->inode->ino,
				  dirent_type(creation->mode));
	if (!err)
		err = changed_dir(op, dir, inl_now(inl_op_vol(op)));
	if (!err && S_ISDIR(creation->mode))
		links_inc(dir);
	return err;
}

/* An inode and its number, a first block with its place in the map, its context; the directory's. */
static unsigned create_credits(const struct creation *creation)
{
	unsigned credits = 3 + 4 + inl_dir_credits(creation->dir) + 1;

	return creation->crypt.info ? credits + inl_xattr_credits(creation->dir->vol) : credits;
}

/* What needs keys, and so cannot be done within the operation. */
static int encrypt_ahead(struct creation *creation)
{
	struct inl_inode *dir = creation->dir;
	int err;

	creation->encrypted = dir->encrypted;
	err = inl_dir_stored_name(dir, creation->name, creation->len, creation->stored, &creation->stored_len,
				  creation->diag);
	if (!err)
		err = inl_new_crypt_init(dir, creation->mode, creation->attr->nonce, &creation->crypt, creation->diag);
	if (err || !creation->crypt.info || !S_ISLNK(creation->mode))
		return err;
	creation->encoded = malloc(dir->vol->block_size);
	return creation->encoded ? 0 : -ENOMEM;
}

static int create_once(void *arg, struct inl_diag *diag)
{
	struct creation *creation = arg;
	int err = encrypt_ahead(creation);

	if (!err)
		err = run(creation->dir->vol, create_credits(creation), create_op, creation, diag);
	if (err)
		drop_inode(creation);
	else if (creation->inode->crypt)
		creation->crypt.info = NULL;
	inl_new_crypt_done(&creation->crypt);
	free(creation->encoded);
	creation->encoded = NULL;
	return err;
}

/* A name to be made in a locked directory: all that can be said of it is that it is a no-key name that is there. */
static int check_locked_name(struct inl_inode *dir, const char *name, size_t len)
{
	uint64_t ino;

	return inl_dir_resolve(dir, name, len, NULL, NULL, &ino, NULL) ? 0 : -EEXIST;
}

static int create_locked_op(struct inl_handle *op, void *arg)
{
	const struct creation *creation = arg;

	(void)op;
	return creation->dir->raw.i_links_count ? create_check_dir(creation) : -ENOENT;
}

/* In a locked directory: what Linux says before it says that. */
static int create_locked(struct creation *creation, int why)
{
	struct inl_inode *dir = creation->dir;
	int err = check_locked_name(dir, creation->name, creation->len);

	if (!err)
		err = inl_op_look(dir->vol, create_locked_op, creation);
	return err ? err : why;
}

static int create(struct creation *creation, struct inl_inode **out)
{
	struct inl_inode *dir = creation->dir;
	int err = check_dir(dir, creation->diag);

	if (!err)
		err = check_new_name(creation->name, creation->len);
	if (!err) {
		err = inl_inode_unlock(dir, creation->diag);
		if (err)
			return create_locked(creation, err);
	}
	if (!err && creation->target_len >= dir->vol->block_size) /* of an encrypted one also: fscrypt/ */
		err = inl_diag_set(creation->diag, -ENAMETOOLONG, "the target of a symbolic link has no room in a block");
	if (!err && !inl_attr_good(creation->attr, creation->which))
		err = -EINVAL;
	if (!err)
		err = settle(create_once, creation, creation->diag);
	if (!err && out)
		*out = creation->inode;
	else
		inl_inode_put(creation->inode);
	return err;
}

int inl_create(struct inl_inode *dir, const char *name, size_t len, const struct inl_attr *attr, unsigned which,
	       struct inl_diag *diag, struct inl_inode **out)
{
	struct creation creation = { .dir = dir, .name = name, .len = len, .attr = attr, .which = which, .diag = diag };

	creation.mode = attr->mode & (S_IFMT | 07777);
	switch (attr->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return create(&creation, out);
	default:
		return inl_diag_set(diag, -EINVAL, "mode 0%o has no type that can be made", attr->mode);
	}
}

int inl_symlink(struct inl_inode *dir, const char *name, size_t len, const char *target, size_t target_len,
		const struct inl_attr *attr, unsigned which, struct inl_diag *diag, struct inl_inode **out)
{
	struct creation creation = { .dir = dir, .name = name, .len = len, .mode = SYMLINK_MODE, .attr = attr,
				     .which = which, .diag = diag, .target = target, .target_len = target_len };

	if (!target_len)
		return inl_diag_set(diag, -ENOENT, "a symbolic link needs a target");
	if (memchr(target, 0, target_len))
		return inl_diag_set(diag, -EINVAL, "the target of a symbolic link holds a NUL");
	return create(&creation, out);
}

/* ---- link -------------------------------------------------------------------------------------------------------- */

struct linking {
	struct inl_inode *inode, *dir;
	const char *name;
	size_t len;
	uint8_t stored[INL_NAME_MAX];
	size_t stored_len;
	bool encrypted; /* the directory, when that was made */
	struct inl_diag *diag;
};

/* Can it have another name? */
static int link_check_inode(const struct linking *linking)
{
	struct inl_inode *inode = linking->inode;
	int err = forbidden(linking->dir, EXT4_FL_IMMUTABLE, linking->diag);

	if (!err)
		err = forbidden(inode, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, linking->diag);
	if (err)
		return err;
	if (S_ISDIR(inode->raw.i_mode))
		return inl_diag_set(linking->diag, -EPERM, "a directory has one name only");
	if (!inode->raw.i_links_count)
		return -ENOENT;
	return inode->raw.i_links_count >= LINKS_MAX ? too_many(linking->diag) : 0;
}

static int link_check(struct inl_handle *op, const struct linking *linking)
{
	struct inl_inode *dir = linking->dir;
	uint32_t ino;
	int err;

	if (linking->encrypted != dir->encrypted)
		return -ESTALE;
	if (!dir->raw.i_links_count)
		return -ENOENT;
	err = inl_dir_find(op, dir, linking->stored, linking->stored_len, &ino, NULL);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	err = link_check_inode(linking);
	return err ? err : inl_crypt_check_move(dir, linking->inode, linking->diag);
}

static int link_op(struct inl_handle *op, void *arg)
{
	const struct linking *linking = arg;
	struct inl_inode *inode = linking->inode, *dir = linking->dir;
	struct inl_time now = inl_now(inl_op_vol(op));
	int err = link_check(op, linking);

	if (!err)
		err = inl_dir_add(op, dir, linking->stored, linking->stored_len, inode->ino,
				  dirent_type(inode->raw.i_mode));
	if (!err)
		err = changed_dir(op, dir, now);
	if (!err)
		err = changed_inode(op, inode, now);
	if (!err)
		inode->raw.i_links_count++;
	return err;
}

static int link_once(void *arg, struct inl_diag *diag)
{
	struct linking *linking = arg;
	struct inl_inode *dir = linking->dir;
	int err;

	linking->encrypted = dir->encrypted;
	err = inl_dir_stored_name(dir, linking->name, linking->len, linking->stored, &linking->stored_len, diag);
	return err ? err : run(dir->vol, inl_dir_credits(dir) + 2, link_op, linking, diag);
}

static int link_locked_op(struct inl_handle *op, void *arg)
{
	const struct linking *linking = arg;

	(void)op;
	return linking->dir->raw.i_links_count ? link_check_inode(linking) : -ENOENT;
}

/* Into a locked directory, as create_locked. */
static int link_locked(struct linking *linking, int why)
{
	struct inl_inode *dir = linking->dir;
	int err = check_locked_name(dir, linking->name, linking->len);

	if (!err)
		err = inl_op_look(dir->vol, link_locked_op, linking);
	return err ? err : why;
}

int inl_link(struct inl_inode *inode, struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	struct linking linking = { .inode = inode, .dir = dir, .name = name, .len = len, .diag = diag };
	int err = inode->vol == dir->vol ? check_dir(dir, diag) : -EXDEV;

	if (!err)
		err = check_new_name(name, len);
	if (!err)
		err = check_features(inode, diag);
	if (!err) {
		err = inl_inode_unlock(dir, diag);
		if (err)
			return link_locked(&linking, err);
	}
	return err ? err : settle(link_once, &linking, diag);
}

/* ---- unlink, rmdir ----------------------------------------------------------------------------------------------- */

struct removal {
	struct entry entry;
	bool is_dir;
};

static int remove_op(struct inl_handle *op, void *arg)
{
	struct removal *removal = arg;
	struct inl_inode *dir = removal->entry.dir, *inode = removal->entry.inode;
	struct inl_time now = inl_now(inl_op_vol(op));
	int err = entry_check(op, &removal->entry);

	if (!err && removal->is_dir)
		err = inl_dir_empty(op, inode);
	if (!err)
		err = inl_dir_remove(op, dir, removal->entry.stored, removal->entry.stored_len);
	if (!err)
		err = changed_dir(op, dir, now);
	if (!err && removal->is_dir)
		links_dec(dir);
	return err ? err : take_link(op, inode, now);
}

static int remove_loaded(struct removal *removal, struct inl_diag *diag)
{
	struct inl_inode *dir = removal->entry.dir, *inode = removal->entry.inode;
	int err;

	if (!inode)
		return -ENOENT;
	err = check_taking(dir, inode, diag);
	if (err)
		return err;
	if (removal->is_dir != S_ISDIR(inode->raw.i_mode))
		return removal->is_dir ? -ENOTDIR : -EISDIR;
	return run(dir->vol, inl_dir_credits(dir) + 2 + inl_inode_unlinked_credits(dir->vol), remove_op, removal, diag);
}

static int remove_once(void *arg, struct inl_diag *diag)
{
	struct removal *removal = arg;
	int err = entry_get(&removal->entry, diag);

	if (!err)
		err = remove_loaded(removal, diag);
	entry_put(&removal->entry);
	return err;
}

static int remove_name(struct inl_inode *dir, const char *name, size_t len, bool is_dir, struct inl_diag *diag)
{
	struct removal removal = { .entry = { .dir = dir, .name = name, .len = len }, .is_dir = is_dir };
	int err = check_dir(dir, diag);

	if (!err)
		err = check_old_name(name, len);
	return err ? err : settle(remove_once, &removal, diag);
}

int inl_unlink(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	return inl_is_dots(name, len) ? -EISDIR : remove_name(dir, name, len, false, diag);
}

int inl_rmdir(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	if (inl_is_dots(name, len))
		return len == 1 ? -EINVAL : -ENOTEMPTY;
	return remove_name(dir, name, len, true, diag);
}

/* ---- rename ------------------------------------------------------------------------------------------------------ */

struct renaming {
	struct entry from, to;
	unsigned flags;
	struct inl_chain above_from, above_to;
	struct inl_diag *diag;
};

static bool is_dir(const struct inl_inode *inode)
{
	return inode && S_ISDIR(inode->raw.i_mode);
}

/* Between directories nothing may get into itself: neither what moves, nor what gives way. */
static int check_above(struct renaming *renaming, struct inl_diag *diag)
{
	struct entry *from = &renaming->from, *to = &renaming->to;
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
static int check_locked(const struct entry *entry, struct inl_diag *diag)
{
	int err = entry->locked ? inl_op_look(entry->dir->vol, is_alive_op, entry->dir) : 0;

	if (!err && entry->locked)
		inl_inode_unlock(entry->dir, diag); /* says why */
	return err ? err : entry->locked;
}

/* Into an encrypted directory comes only what is encrypted alike. */
static int check_policies(const struct renaming *renaming, struct inl_diag *diag)
{
	const struct entry *from = &renaming->from, *to = &renaming->to;
	int err;

	if (from->dir == to->dir)
		return 0;
	err = inl_crypt_check_move(to->dir, from->inode, diag);
	return err || !(renaming->flags & INL_RENAME_EXCHANGE) ? err : inl_crypt_check_move(from->dir, to->inode, diag);
}

/* What can be said of the two before the operation. */
static int rename_check(const struct renaming *renaming, struct inl_diag *diag)
{
	const struct entry *from = &renaming->from, *to = &renaming->to;
	int err = check_taking(from->dir, from->inode, diag);

	if (err)
		return err;
	err = to->inode ? check_taking(to->dir, to->inode, diag) : forbidden(to->dir, EXT4_FL_IMMUTABLE, diag);
	if (err)
		return err;
	if (to->inode && !(renaming->flags & INL_RENAME_EXCHANGE) && is_dir(from->inode) != is_dir(to->inode))
		return is_dir(from->inode) ? -ENOTDIR : -EISDIR;
	err = check_locked(from, diag);
	if (!err)
		err = check_locked(to, diag);
	return err ? err : check_policies(renaming, diag);
}

static int entry_replace(struct inl_handle *op, struct entry *entry, const struct inl_inode *inode)
{
	return inl_dir_replace(op, entry->dir, entry->stored, entry->stored_len, inode->ino, dirent_type(inode->raw.i_mode));
}

/* A directory has come to another one. */
static int set_parent(struct inl_handle *op, struct inl_inode *inode, const struct inl_inode *parent)
{
	if (!is_dir(inode))
		return 0;
	return inl_dir_replace(op, inode, (const uint8_t *)"..", 2, parent->ino, dirent_type(S_IFDIR));
}

static int rename_changed(struct inl_handle *op, struct renaming *renaming, struct inl_time now)
{
	int err = changed_dir(op, renaming->from.dir, now);

	if (!err)
		err = changed_dir(op, renaming->to.dir, now);
	return err ? err : changed_inode(op, renaming->from.inode, now);
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
	if (links_full(gains))
		return too_many(renaming->diag);
	links_dec(loses);
	links_inc(gains);
	return 0;
}

static int exchange(struct inl_handle *op, struct renaming *renaming)
{
	struct entry *from = &renaming->from, *to = &renaming->to;
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
		err = changed_inode(op, to->inode, now);
	return err ? err : exchange_links(renaming);
}

/* The new name: another entry, or one that gives way. */
static int put_name(struct inl_handle *op, struct renaming *renaming)
{
	struct entry *from = &renaming->from, *to = &renaming->to;
	int err;

	if (to->inode) {
		err = is_dir(to->inode) ? inl_dir_empty(op, to->inode) : 0;
		return err ? err : entry_replace(op, to, from->inode);
	}
	if (is_dir(from->inode) && from->dir != to->dir && links_full(to->dir))
		return too_many(renaming->diag);
	return inl_dir_add(op, to->dir, to->stored, to->stored_len, from->inode->ino, dirent_type(from->inode->raw.i_mode));
}

static int move(struct inl_handle *op, struct renaming *renaming)
{
	struct entry *from = &renaming->from, *to = &renaming->to;
	struct inl_time now = inl_now(inl_op_vol(op));
	bool moves = is_dir(from->inode) && from->dir != to->dir;
	int err = put_name(op, renaming);

	if (!err)
		err = inl_dir_remove(op, from->dir, from->stored, from->stored_len);
	if (!err && moves)
		err = set_parent(op, from->inode, to->dir);
	if (!err)
		err = rename_changed(op, renaming, now);
	if (err)
		return err;
	if (moves || is_dir(to->inode))
		links_dec(from->dir);
	if (moves && !to->inode)
		links_inc(to->dir);
	return to->inode ? take_link(op, to->inode, now) : 0;
}

static int rename_op(struct inl_handle *op, void *arg)
{
	struct renaming *renaming = arg;
	int err = entry_check(op, &renaming->from);

	if (!err)
		err = entry_check(op, &renaming->to);
	if (!err)
		err = inl_chain_check(op, &renaming->above_from);
	if (!err)
		err = inl_chain_check(op, &renaming->above_to);
	if (err)
		return err;
	return renaming->flags & INL_RENAME_EXCHANGE ? exchange(op, renaming) : move(op, renaming);
}

static unsigned rename_credits(const struct renaming *renaming)
{
	const struct entry *from = &renaming->from, *to = &renaming->to;
	unsigned credits = inl_dir_credits(from->dir) + inl_dir_credits(to->dir) + 4 + 2;

	return to->inode ? credits + inl_inode_unlinked_credits(to->dir->vol) : credits;
}

static int rename_loaded(struct renaming *renaming, struct inl_diag *diag)
{
	struct entry *from = &renaming->from, *to = &renaming->to;
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
	return err ? err : run(from->dir->vol, rename_credits(renaming), rename_op, renaming, diag);
}

/* Where there is no key, a name that is no no-key name is one to be made: why not is said later. */
static int target_get(struct entry *to, struct inl_diag *diag)
{
	int err = entry_get(to, diag);

	return err && err == to->locked ? 0 : err;
}

static int rename_once(void *arg, struct inl_diag *diag)
{
	struct renaming *renaming = arg;
	int err = entry_get(&renaming->from, diag);

	if (!err)
		err = target_get(&renaming->to, diag);
	if (!err)
		err = rename_loaded(renaming, diag);
	inl_chain_done(&renaming->above_from);
	inl_chain_done(&renaming->above_to);
	entry_put(&renaming->from);
	entry_put(&renaming->to);
	return err;
}

static int check_names(const struct renaming *renaming)
{
	const struct entry *from = &renaming->from, *to = &renaming->to;
	int err;

	if (inl_is_dots(from->name, from->len))
		return -EBUSY;
	if (inl_is_dots(to->name, to->len))
		return renaming->flags & INL_RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	err = check_old_name(from->name, from->len);
	return err ? err : check_new_name(to->name, to->len);
}

static int check_dirs(struct inl_inode *dir, struct inl_inode *new_dir, struct inl_diag *diag)
{
	int err;

	if (dir->vol != new_dir->vol)
		return -EXDEV;
	err = check_dir(dir, diag);
	return err ? err : check_dir(new_dir, diag);
}

int inl_rename(struct inl_inode *dir, const char *name, size_t len, struct inl_inode *new_dir, const char *new_name,
	       size_t new_len, unsigned flags, struct inl_diag *diag)
{
	struct renaming renaming = { .from = { .dir = dir, .name = name, .len = len },
				     .to = { .dir = new_dir, .name = new_name, .len = new_len },
				     .flags = flags, .diag = diag };
	int err;

	if ((flags & ~(unsigned)(INL_RENAME_NOREPLACE | INL_RENAME_EXCHANGE)) ||
	    flags == (INL_RENAME_NOREPLACE | INL_RENAME_EXCHANGE))
		return -EINVAL;
	err = check_dirs(dir, new_dir, diag);
	if (!err)
		err = check_names(&renaming);
	return err ? err : settle(rename_once, &renaming, diag);
}
