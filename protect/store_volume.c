/*
 * protect/store_volume.c: .fscrypt in a volume that is open here.
 * Not here: in a directory of the running system (store_dir.c).
 * Read more: inlay/volume.h.
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int inl_protect_open_volume(struct inl_volume *vol, struct inl_diag *diag, struct inl_protect **out)
{
	struct inl_protect *protect = calloc(1, sizeof(*protect));

	if (!protect)
		return -ENOMEM;
	protect->ops = &inl_store_volume;
	protect->at = vol;
	*out = protect;
	return 0;
}

static void close_volume(void *at)
{
}

/* An inode must be what it should be: it may have been made by anybody. */
static int check_type(struct inl_inode *inode, uint32_t type, struct inl_stat *st, struct inl_diag *diag)
{
	int err = inl_inode_stat(inode, st, diag);

	if (!err && (st->mode & S_IFMT) != type)
		err = inl_diag_set(diag, -EUCLEAN, type == S_IFDIR ? "is no directory" : "is no regular file");
	return err;
}

static int get_by_name(struct inl_volume *vol, struct inl_inode *dir, const char *name, struct inl_diag *diag,
		       struct inl_inode **out)
{
	uint64_t ino = 0;
	int err = inl_lookup(dir, name, strlen(name), &ino, NULL);

	return err ? err : inl_inode_get(vol, ino, diag, out);
}

/* Only .fscrypt itself may be a symbolic link, as for fscrypt. */
static int open_dir(struct inl_volume *vol, enum inl_meta_dir dir, struct inl_diag *diag, struct inl_inode **out)
{
	struct inl_inode *base = NULL, *inode = NULL;
	struct inl_stat st;
	int err = inl_path(vol, "/" INL_META_BASE, true, NULL, &base);

	if (!err)
		err = check_type(base, S_IFDIR, &st, diag);
	if (!err)
		err = get_by_name(vol, base, inl_meta_dir_names[dir], diag, &inode);
	if (!err)
		err = check_type(inode, S_IFDIR, &st, diag);
	inl_inode_put(base);
	if (err)
		inl_inode_put(inode);
	else
		*out = inode;
	return err;
}

static int list_volume(void *at, enum inl_meta_dir dir, int (*each)(const char *name, void *arg), void *arg,
		       struct inl_diag *diag)
{
	struct inl_inode *inode = NULL;
	struct inl_dir *names = NULL;
	struct inl_dirent entry;
	int err = open_dir(at, dir, diag, &inode);

	if (!err)
		err = inl_dir_open(inode, diag, &names);
	while (!err && (err = inl_dir_next(names, &entry, diag)) == 1)
		err = entry.status ? 0 : each(entry.name, arg);
	inl_dir_close(names);
	inl_inode_put(inode);
	return err;
}

static int read_volume(void *at, enum inl_meta_dir dir, const char *name, uint8_t *buf, size_t *len,
		       struct inl_meta_owner *owner, struct inl_diag *diag)
{
	struct inl_inode *parent = NULL, *inode = NULL;
	struct inl_stat st;
	int err = open_dir(at, dir, diag, &parent);

	if (!err)
		err = get_by_name(at, parent, name, diag, &inode);
	if (!err)
		err = check_type(inode, S_IFREG, &st, diag);
	if (!err)
		err = inl_read(inode, 0, buf, INL_META_MAX + 1, len, diag);
	if (!err)
		*owner = (struct inl_meta_owner){ st.uid, st.gid, st.mode & 0777 };
	inl_inode_put(inode);
	inl_inode_put(parent);
	return err;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* What is new belongs to whom the volume belongs to. */
static int new_attr(struct inl_volume *vol, uint32_t mode, struct inl_attr *attr, struct inl_diag *diag)
{
	struct inl_inode *root = NULL;
	struct inl_stat st = { 0 };
	int err = inl_inode_get(vol, INL_ROOT_INO, diag, &root);

	if (!err)
		err = inl_inode_stat(root, &st, diag);
	inl_inode_put(root);
	*attr = (struct inl_attr){ .mode = mode, .uid = st.uid, .gid = st.gid };
	return err;
}

/* A directory, which may be there. */
static int make_dir(struct inl_inode *parent, const char *name, const struct inl_attr *attr, struct inl_diag *diag)
{
	int err = inl_create(parent, name, strlen(name), attr, 0, diag, NULL);

	return err == -EEXIST ? 0 : err;
}

/* fscrypt takes .fscrypt for nothing before it has both directories in it: it appears with them. */
static int make_base(struct inl_volume *vol, const struct inl_attr *attr, struct inl_diag *diag)
{
	struct inl_inode *root = NULL, *base = NULL;
	char temp[INL_TEMP_SIZE];
	int err = inl_inode_get(vol, INL_ROOT_INO, diag, &root);

	if (!err)
		err = inl_meta_temp(temp);
	if (!err)
		err = inl_create(root, temp, strlen(temp), attr, 0, diag, &base);
	for (int i = 0; i < 2 && !err; i++)
		err = make_dir(base, inl_meta_dir_names[i], attr, diag);
	if (!err)
		err = inl_rename(root, temp, strlen(temp), root, INL_META_BASE, strlen(INL_META_BASE),
				 INL_RENAME_NOREPLACE, diag);
	inl_inode_put(base);
	inl_inode_put(root);
	return err;
}

/* With what is missing of it. */
static int set_up(struct inl_volume *vol, struct inl_diag *diag)
{
	struct inl_inode *base = NULL;
	struct inl_attr attr;
	struct inl_stat st;
	int err = new_attr(vol, S_IFDIR | INL_META_DIR_MODE, &attr, diag);

	if (err)
		return err;
	err = inl_path(vol, "/" INL_META_BASE, true, NULL, &base);
	if (err == -ENOENT)
		return make_base(vol, &attr, diag);
	if (!err)
		err = check_type(base, S_IFDIR, &st, diag);
	for (int i = 0; i < 2 && !err; i++)
		err = make_dir(base, inl_meta_dir_names[i], &attr, diag);
	inl_inode_put(base);
	return err;
}

static int write_temp(struct inl_inode *dir, const char *temp, const struct inl_attr *attr, const uint8_t *data,
		      size_t len, struct inl_diag *diag)
{
	struct inl_inode *inode = NULL;
	size_t done = 0;
	int err = inl_create(dir, temp, strlen(temp), attr, 0, diag, &inode);

	if (err)
		return err;
	err = inl_write(inode, 0, data, len, &done, diag);
	if (!err && done != len)
		err = -ENOSPC;
	if (!err)
		err = inl_fsync(inode, diag);
	inl_inode_put(inode);
	if (err)
		inl_unlink(dir, temp, strlen(temp), NULL);
	return err;
}

static int write_volume(void *at, enum inl_meta_dir dir, const char *name, const uint8_t *data, size_t len,
			const struct inl_meta_owner *owner, struct inl_diag *diag)
{
	struct inl_inode *inode = NULL;
	char temp[INL_TEMP_SIZE];
	struct inl_attr attr;
	int err = set_up(at, diag);

	if (!err)
		err = open_dir(at, dir, diag, &inode);
	if (!err)
		err = inl_meta_temp(temp);
	if (!err)
		err = new_attr(at, S_IFREG | INL_META_FILE_MODE, &attr, diag);
	if (err) {
		inl_inode_put(inode);
		return err;
	}
	if (owner)
		attr = (struct inl_attr){ .mode = S_IFREG | owner->mode, .uid = owner->uid, .gid = owner->gid };
	err = write_temp(inode, temp, &attr, data, len, diag);
	if (!err) {
		err = inl_rename(inode, temp, strlen(temp), inode, name, strlen(name), 0, diag);
		if (err)
			inl_unlink(inode, temp, strlen(temp), NULL);
	}
	if (!err)
		err = inl_fsync(inode, diag);
	inl_inode_put(inode);
	return err;
}

static int remove_volume(void *at, enum inl_meta_dir dir, const char *name, struct inl_diag *diag)
{
	struct inl_inode *inode = NULL;
	int err = open_dir(at, dir, diag, &inode);

	if (!err)
		err = inl_unlink(inode, name, strlen(name), diag);
	if (!err)
		err = inl_fsync(inode, diag);
	inl_inode_put(inode);
	return err;
}

const struct inl_store_ops inl_store_volume = {
	.list = list_volume,
	.read = read_volume,
	.write = write_volume,
	.remove = remove_volume,
	.close = close_volume,
};
