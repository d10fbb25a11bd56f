/*
 * ext4/namei.c: names are made: create, symlink, link.
 * Not here: names that are taken away or moved (rename.c); directories as such (dirmod.c, dxmod.c).
 * Read more: link(2), mkdir(2), symlink(2), whose errors these return; inlay/volume.h.
 *
 * What is made is as it is asked for. The setgid bit and the default ACL of its directory are looked at if that is asked
 * for too (INL_ATTR_INHERIT).
 */
#include "ext4/namei.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The permission bits of a symbolic link, which nobody asks for. */
#define SYMLINK_MODE (S_IFLNK | 0777)

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
	int err = inl_check_flags(dir, EXT4_FL_IMMUTABLE, creation->diag);

	if (err)
		return err;
	return S_ISDIR(creation->mode) && inl_links_full(dir) ? inl_links_too_many(creation->diag) : 0;
}

/* May it be made? */
static int create_check(struct inl_handle *op, const struct creation *creation)
{
	struct inl_inode *dir = creation->dir;
	uint32_t ino;
	int err;

	/* The second for safety: nothing becomes plain where others are encrypted. */
	if (creation->encrypted != dir->encrypted || !creation->crypt.info == inl_crypt_inherits(dir, creation->mode))
		return -ESTALE;
	if (!dir->raw.i_links_count)
		return -ENOENT;
	err = inl_dir_find(op, dir, creation->stored, creation->stored_len, &ino, NULL);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	err = create_check_dir(creation);
	if (!err && creation->target_len >= dir->vol->block_size) /* of an encrypted one also: fscrypt/ */
		err = inl_diag_set(creation->diag, -ENAMETOOLONG, "the target of a symbolic link has no room in a block");
	return err;
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

int inl_inode_make(struct inl_handle *op, struct inl_inode *dir, uint32_t mode, const struct inl_attr *attr, unsigned which,
		   struct inl_new_crypt *crypt, struct inl_inode **out)
{
	uint32_t ino;
	int err = inl_ino_alloc(op, dir, mode, &ino);

	if (!err)
		err = inl_inode_new(op, ino, out);
	if (!err)
		err = inl_inode_modify(op, *out);
	if (!err)
		err = inl_inode_fill(*out, dir, mode, attr, which);
	if (!err)
		err = inl_new_crypt_give(op, *out, crypt);
	if (!err && (which & INL_ATTR_INHERIT))
		err = inl_acls_inherit(op, *out, dir, attr->umask);
	return err;
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
		err = inl_inode_make(op, dir, creation->mode, creation->attr, creation->which, &creation->crypt,
				     &creation->inode);
	if (!err)
		err = put_contents(op, creation);
	if (!err)
		err = inl_dir_add(op, dir, creation->stored, creation->stored_len, creation->inode->ino,
				  inl_dirent_type(creation->mode));
	if (!err)
		err = inl_dir_changed(op, dir, inl_now(inl_op_vol(op)));
	if (!err && S_ISDIR(creation->mode))
		inl_links_inc(dir);
	return err;
}

/* An inode and its number, a first block with its place in the map, its attributes; the directory's. */
static unsigned create_credits(const struct creation *creation)
{
	unsigned credits = INL_MAKE_CREDITS + 4 + inl_dir_credits(creation->dir) + 1;
	bool has_attributes = creation->crypt.info || (creation->which & INL_ATTR_INHERIT);

	return has_attributes ? credits + inl_xattr_credits(creation->dir->vol) : credits;
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
		err = inl_names_run(creation->dir->vol, create_credits(creation), create_op, creation, diag);
	if (err)
		drop_inode(creation);
	else if (creation->inode->crypt)
		creation->crypt.info = NULL;
	inl_new_crypt_done(&creation->crypt);
	free(creation->encoded);
	creation->encoded = NULL;
	return err;
}

/*
 * A name to be made in a locked directory: what Linux says before it says why that cannot be. All that can be said of the
 * name is that it is a no-key name that is there; the rest is up to check.
 */
static int refuse_locked(struct inl_inode *dir, const char *name, size_t len, inl_op_fn *check, void *arg, int why)
{
	uint64_t ino;
	int err;

	if (!inl_dir_resolve(dir, name, len, NULL, NULL, &ino, NULL))
		return -EEXIST;
	err = inl_op_look(dir->vol, check, arg);
	return err ? err : why;
}

static int create_locked(struct inl_handle *op, void *arg)
{
	const struct creation *creation = arg;

	return creation->dir->raw.i_links_count ? create_check_dir(creation) : -ENOENT;
}

static int create(struct creation *creation, struct inl_inode **out)
{
	struct inl_inode *dir = creation->dir;
	int err = inl_dir_check(dir, creation->diag);

	if (!err)
		err = inl_name_check_new(creation->name, creation->len);
	if (!err) {
		err = inl_inode_unlock(dir, creation->diag);
		if (err)
			return refuse_locked(dir, creation->name, creation->len, create_locked, creation, err);
	}
	if (!err && !inl_attr_good(creation->attr, creation->which))
		err = -EINVAL;
	if (!err)
		err = inl_settle(create_once, creation, creation->diag);
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
	if ((which & INL_ATTR_INHERIT) && S_ISDIR(creation.mode))
		creation.mode &= ~(uint32_t)(S_ISUID | S_ISGID);
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
	int err = inl_check_flags(linking->dir, EXT4_FL_IMMUTABLE, linking->diag);

	if (!err)
		err = inl_check_flags(inode, EXT4_FL_IMMUTABLE | EXT4_FL_APPEND, linking->diag);
	if (err)
		return err;
	if (S_ISDIR(inode->type))
		return inl_diag_set(linking->diag, -EPERM, "a directory has one name only");
	if (!inode->raw.i_links_count)
		return -ENOENT;
	return inode->raw.i_links_count >= INL_LINKS_MAX ? inl_links_too_many(linking->diag) : 0;
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
				  inl_dirent_type(inode->type));
	if (!err)
		err = inl_dir_changed(op, dir, now);
	if (!err)
		err = inl_inode_changed(op, inode, now);
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
	return err ? err : inl_names_run(dir->vol, inl_dir_credits(dir) + 2, link_op, linking, diag);
}

static int link_locked(struct inl_handle *op, void *arg)
{
	const struct linking *linking = arg;

	return linking->dir->raw.i_links_count ? link_check_inode(linking) : -ENOENT;
}

int inl_link(struct inl_inode *inode, struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	struct linking linking = { .inode = inode, .dir = dir, .name = name, .len = len, .diag = diag };
	int err = inode->vol == dir->vol ? inl_dir_check(dir, diag) : -EXDEV;

	if (!err)
		err = inl_name_check_new(name, len);
	if (!err)
		err = inl_check_features(inode, diag);
	if (!err) {
		err = inl_inode_unlock(dir, diag);
		if (err)
			return refuse_locked(dir, name, len, link_locked, &linking, err);
	}
	return err ? err : inl_settle(link_once, &linking, diag);
}
