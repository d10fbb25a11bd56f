/*
 * serve/names.c: requests about names: looking up, making, linking, renaming, removing.
 * Not here: what a directory holds (dir.c).
 * Read more: serve/serve.h; inlay/volume.h.
 */
#include "serve/serve.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* ---- looking up -------------------------------------------------------------------------------------------------- */

static int find(struct inl_mount *mount, struct inl_inode *dir, const char *name, struct inl_inode **inode)
{
	uint64_t ino;
	int err = inl_lookup(dir, name, strlen(name), &ino, NULL);

	if (err)
		return err;
	/* A name of something that is not there is damage, and does not mean that there is no such name. */
	err = inl_inode_get(mount->vol, ino, NULL, inode);
	return err == -ENOENT ? -EUCLEAN : err;
}

/* The kernel is about to be told of it. An error puts the inode. */
static int note(struct inl_mount *mount, const struct inl_node *dir, const char *name, struct inl_inode **inode)
{
	int err = inl_top_note(mount, dir->inode, dir->id, name, *inode);

	if (err) {
		inl_inode_put(*inode);
		*inode = NULL;
	}
	return err;
}

static void reply_entry(fuse_req_t req, int err, struct inl_inode *inode)
{
	struct fuse_entry_param entry;

	if (!err)
		err = inl_entry_fill(inl_mount_of(req), inode, &entry);
	if (err)
		inl_reply_error(req, err);
	else
		fuse_reply_entry(req, &entry);
}

/* The same with one that was got for this, and is put. */
static void reply_got(fuse_req_t req, int err, struct inl_inode *inode)
{
	reply_entry(req, err, inode);
	if (!err)
		inl_inode_put(inode);
}

/*
 * The kernel may remember that there is no such name, until one is made; not in a locked directory, whose names are
 * others once it is unlocked.
 */
static void reply_missing(fuse_req_t req, struct inl_inode *dir)
{
	struct fuse_entry_param entry = { .entry_timeout = INL_FOREVER };
	struct inl_inode_crypt crypt;

	inl_inode_crypt(dir, &crypt);
	if (crypt.status)
		entry.entry_timeout = 0;
	fuse_reply_entry(req, &entry);
}

void inl_serve_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	struct inl_inode *inode = NULL;
	int err = inl_node_use(mount, parent, &dir);

	if (!err)
		err = find(mount, dir.node->inode, name, &inode);
	if (!err)
		err = note(mount, dir.node, name, &inode);
	if (dir.node && (err == -ENOENT || err == -ENOKEY)) {
		/* As Linux: without the key there is no such name, if it is none of those that are shown. */
		reply_missing(req, dir.node->inode);
		return;
	}
	reply_got(req, err, inode);
}

void inl_serve_forget(fuse_req_t req, fuse_ino_t id, uint64_t n)
{
	inl_node_forget(&inl_mount_of(req)->nodes, id);
	fuse_reply_none(req);
}

void inl_serve_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		inl_node_forget(&inl_mount_of(req)->nodes, forgets[i].ino);
	fuse_reply_none(req);
}

void inl_serve_readlink(fuse_req_t req, fuse_ino_t id)
{
	INL_NODE_SCOPED struct inl_node_use link = { 0 };
	char *target = (char *)inl_worker_answer(INL_SYMLINK_MAX);
	size_t len = 0;
	int err = inl_node_use(inl_mount_of(req), id, &link);

	if (!err)
		err = inl_readlink(link.node->inode, target, INL_SYMLINK_MAX, &len, NULL);
	if (err)
		inl_reply_error(req, err);
	else
		fuse_reply_buf(req, target, len);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static struct inl_attr attr_of(fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);

	return (struct inl_attr){ .mode = mode, .uid = who->uid, .gid = who->gid, .umask = who->umask };
}

static int make(fuse_req_t req, fuse_ino_t parent, const char *name, const struct inl_attr *attr,
		struct inl_inode **inode)
{
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	int err = inl_node_use(inl_mount_of(req), parent, &dir);

	return err ? err : inl_create(dir.node->inode, name, strlen(name), attr, INL_ATTR_INHERIT, NULL, inode);
}

void inl_serve_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct inl_attr attr = attr_of(req, mode);
	struct inl_inode *inode = NULL;
	int err;

	attr.rdev_major = major(rdev);
	attr.rdev_minor = minor(rdev);
	err = make(req, parent, name, &attr, &inode);
	reply_got(req, err, inode);
}

/* A new directory of a user who has a key for those. The kernel does not know it yet. */
static int encrypt_made(struct inl_mount *mount, const struct inl_node *dir, const char *name,
			const struct inl_key_spec *key, struct inl_inode **inode)
{
	const struct inl_policy policy = {
		.version = 2,
		.contents_mode = INL_FSCRYPT_AES_256_XTS,
		.filenames_mode = INL_FSCRYPT_AES_256_CTS,
		.flags = INL_POLICY_FLAGS_PAD_MASK, /* to 32 bytes */
		.key = *key,
	};
	int err = inl_set_policy(*inode, &policy, NULL, NULL);

	if (!err)
		return note(mount, dir, name, inode);
	inl_inode_put(*inode);
	*inode = NULL;
	inl_rmdir(dir->inode, name, strlen(name), NULL);
	return err;
}

void inl_serve_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct inl_attr attr = attr_of(req, S_IFDIR | (mode & 07777));
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	struct inl_inode *inode = NULL;
	struct inl_key_spec key;
	int err = inl_node_use(mount, parent, &dir);
	bool encrypts = !err && !inl_inode_policy(dir.node->inode, NULL) && inl_keys_default(mount, attr.uid, &key);

	pthread_rwlock_rdlock(&mount->keys.marking);
	if (encrypts && !inl_keyring_claimed(mount->keys.ring, &key, attr.uid))
		err = -ENOKEY;
	if (!err)
		err = inl_create(dir.node->inode, name, strlen(name), &attr, INL_ATTR_INHERIT, NULL, &inode);
	if (!err && encrypts)
		err = encrypt_made(mount, dir.node, name, &key, &inode);
	pthread_rwlock_unlock(&mount->keys.marking);
	reply_got(req, err, inode);
}

void inl_serve_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct inl_attr attr = attr_of(req, S_IFLNK | 0777);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	struct inl_inode *inode = NULL;
	int err = inl_node_use(inl_mount_of(req), parent, &dir);

	if (!err)
		err = inl_symlink(dir.node->inode, name, strlen(name), target, strlen(target), &attr, INL_ATTR_INHERIT,
				  NULL, &inode);
	reply_got(req, err, inode);
}

/* Takes the inode over. */
static int open_made(struct inl_mount *mount, struct inl_inode *inode, struct fuse_entry_param *entry,
		     struct inl_open **open)
{
	struct inl_node *node;
	int err = inl_entry_fill(mount, inode, entry);

	if (!err)
		err = inl_node_get(&mount->nodes, entry->ino, &node);
	inl_inode_put(inode);
	if (err)
		return err;
	err = inl_open_new(mount, node, true, true, open);
	inl_node_put(&mount->nodes, node);
	return err;
}

void inl_serve_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct inl_attr attr = attr_of(req, S_IFREG | (mode & 07777));
	struct inl_mount *mount = inl_mount_of(req);
	struct fuse_entry_param entry;
	struct inl_inode *inode;
	struct inl_open *open;
	int err;

	/* What was made can be opened: no key is marked in between. */
	pthread_rwlock_rdlock(&mount->keys.marking);
	err = make(req, parent, name, &attr, &inode);
	if (!err)
		err = open_made(mount, inode, &entry, &open);
	pthread_rwlock_unlock(&mount->keys.marking);
	/* The key came after it was looked up: looked up once more, it is opened. */
	if (err == -EEXIST && !(fi->flags & O_EXCL))
		err = -ESTALE;
	if (err) {
		inl_reply_error(req, err);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = 1;
	/* Whoever asked may be gone: then nobody will release it. */
	if (fuse_reply_create(req, &entry, fi) == -ENOENT)
		inl_open_free(mount, open);
}

void inl_serve_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t parent, const char *name)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	INL_NODE_SCOPED struct inl_node_use file = { 0 };
	int err = inl_node_use(mount, id, &file);

	if (!err)
		err = inl_node_use(mount, parent, &dir);
	if (!err)
		err = inl_top_note(mount, dir.node->inode, parent, name, file.node->inode);
	if (!err)
		err = inl_link(file.node->inode, dir.node->inode, name, strlen(name), NULL);
	reply_entry(req, err, err ? NULL : file.node->inode);
}

/* ---- removing, renaming ------------------------------------------------------------------------------------------ */

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool is_dir)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	struct inl_inode *gone;
	int err = inl_node_use(mount, parent, &dir);

	if (!err)
		err = inl_remove(dir.node->inode, name, strlen(name), is_dir, NULL, &gone);
	/* As Linux: a name that was there is not there without the key. */
	if (dir.node && err == -ENOKEY)
		err = -ENOENT;
	if (!err)
		inl_node_removed(&mount->nodes, gone);
	inl_reply_status(req, err);
}

void inl_serve_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, false);
}

void inl_serve_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, true);
}

/* Made as root makes it by the library; on Linux it is the caller's. */
static int give_whiteout(fuse_req_t req, struct inl_inode *dir, const char *name)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);
	const struct inl_attr attr = { .uid = who->uid, .gid = who->gid };
	struct inl_inode *whiteout;
	struct inl_stat st;
	unsigned wanted = INL_ATTR_UID;
	int err = who->uid || who->gid ? find(inl_mount_of(req), dir, name, &whiteout) : -ENOENT;

	if (err)
		return err == -ENOENT ? 0 : err;
	if (!inl_inode_stat(dir, &st, NULL) && !(st.mode & S_ISGID))
		wanted |= INL_ATTR_GID;
	err = inl_inode_stat(whiteout, &st, NULL);
	if (!err && S_ISCHR(st.mode))
		err = inl_setattr(whiteout, &attr, wanted, NULL);
	inl_inode_put(whiteout);
	return err;
}

/* The kernel moves names by itself. What cannot be noted is forgotten by the kernel later than it could be. */
static void note_moved(struct inl_mount *mount, const struct inl_node *dir, const char *name)
{
	struct inl_inode *inode;

	if (inl_inode_policy(dir->inode, NULL) || find(mount, dir->inode, name, &inode))
		return;
	inl_top_note(mount, dir->inode, dir->id, name, inode);
	inl_inode_put(inode);
}

void inl_serve_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		      unsigned flags)
{
	struct inl_mount *mount = inl_mount_of(req);
	INL_NODE_SCOPED struct inl_node_use dir = { 0 };
	INL_NODE_SCOPED struct inl_node_use new_dir = { 0 };
	struct inl_inode *gone = NULL; /* what has the new name now: held, as the kernel knows it; nothing is fine */
	int err = inl_node_use(mount, parent, &dir);

	if (!err)
		err = inl_node_use(mount, new_parent, &new_dir);
	/* No key is marked before it is noted what was moved. */
	pthread_rwlock_rdlock(&mount->keys.marking);
	if (!err) {
		if (!(flags & INL_RENAME_EXCHANGE) && find(mount, new_dir.node->inode, new_name, &gone))
			gone = NULL;
		err = inl_rename(dir.node->inode, name, strlen(name), new_dir.node->inode, new_name, strlen(new_name),
				 flags, NULL);
	}
	if (!err && gone)
		inl_node_removed(&mount->nodes, gone);
	else
		inl_inode_put(gone);
	if (!err)
		note_moved(mount, new_dir.node, new_name);
	if (!err && (flags & INL_RENAME_EXCHANGE))
		note_moved(mount, dir.node, name);
	pthread_rwlock_unlock(&mount->keys.marking);
	if (!err && (flags & INL_RENAME_WHITEOUT))
		err = give_whiteout(req, dir.node->inode, name);
	inl_reply_status(req, err);
}
