/*
 * ext4/path.c: walking paths within a volume.
 * Not here: looking up one name (dir.c).
 * Read more: path_resolution(7), which this follows without permissions: the owner of the image may read it all.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LINKS_MAX 40
#define REST_MAX  (1u << 20) /* bytes of a path, after links were put in */

struct walk {
	struct inl_volume *vol;
	struct inl_diag *diag;
	uint64_t *trail; /* inode numbers from the root to here, for ".." */
	size_t depth, room;
	char *rest;	 /* what is still to walk, allocated */
	unsigned links;
	bool directory;	 /* a slash behind the last name, here or in a link: it is followed and must be a directory */
};

static uint64_t here(const struct walk *walk)
{
	return walk->trail[walk->depth - 1];
}

static int enter(struct walk *walk, uint64_t ino)
{
	if (walk->depth == walk->room) {
		size_t room = walk->room ? 2 * walk->room : 64;
		uint64_t *grown = reallocarray(walk->trail, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		walk->trail = grown;
		walk->room = room;
	}
	walk->trail[walk->depth++] = ino;
	return 0;
}

/* Replace what is still to walk by the link's target and the rest behind it. */
static int follow_link(struct walk *walk, struct inl_inode *link, const char *rest)
{
	char *target, *joined;
	size_t len, rest_len = strlen(rest);
	int err;

	if (++walk->links > LINKS_MAX)
		return inl_diag_set(walk->diag, -ELOOP, "too many symbolic links");
	target = malloc(INL_SYMLINK_MAX);
	if (!target)
		return -ENOMEM;
	err = inl_readlink(link, target, INL_SYMLINK_MAX, &len, walk->diag);
	if (!err && len + rest_len > REST_MAX)
		err = -ENAMETOOLONG;
	joined = err ? NULL : malloc(len + rest_len + 2);
	if (joined) {
		memcpy(joined, target, len);
		joined[len] = '/';
		memcpy(joined + len + 1, rest, rest_len + 1);
		if (!*rest)
			joined[len] = 0;
		if (target[0] == '/')
			walk->depth = 1;
		free(walk->rest);
		walk->rest = joined;
	}
	if (link->crypt)
		inl_wipe(target, INL_SYMLINK_MAX);
	free(target);
	return err ? err : joined ? 0 : -ENOMEM;
}

/* Whoever writes to what a path leads to must not be led from an encrypted directory to something that is not. */
static int find_child(struct walk *walk, const char *name, size_t len, struct inl_inode **child)
{
	struct inl_inode *dir;
	uint64_t ino;
	int err = inl_inode_get(walk->vol, here(walk), walk->diag, &dir);

	if (err)
		return err;
	/* Not inl_lookup, whose look at the child would be one too many. */
	err = inl_dir_resolve(dir, name, len, NULL, NULL, &ino, walk->diag);
	if (!err)
		err = inl_inode_get(walk->vol, ino, walk->diag, child);
	if (!err && walk->vol->txn) {
		err = inl_crypt_check_child(dir, *child, walk->diag);
		if (err)
			inl_inode_put(*child);
	}
	inl_inode_put(dir);
	return err;
}

/* Walk one name. rest: what follows it. Sets *followed when walk->rest was replaced. */
static int step(struct walk *walk, const char *name, size_t len, const char *rest, bool follow_last, bool *followed)
{
	struct inl_inode *child;
	bool last = !*rest;
	int err = find_child(walk, name, len, &child);

	if (err)
		return err;
	if (last && !follow_last) {
		err = enter(walk, child->ino);
	} else if (S_ISLNK(child->type)) {
		err = follow_link(walk, child, rest);
		*followed = !err;
	} else if (!last && !S_ISDIR(child->type)) {
		err = -ENOTDIR;
	} else {
		err = enter(walk, child->ino);
	}
	inl_inode_put(child);
	return err;
}

static int walk_all(struct walk *walk, bool follow)
{
	size_t at = 0;
	int err = 0;

	while (!err) {
		const char *name = walk->rest + at + strspn(walk->rest + at, "/");
		size_t len = strcspn(name, "/");
		const char *rest = name + len + strspn(name + len, "/");
		bool followed = false;

		if (!len)
			break;
		if (!*rest && name[len] == '/')
			walk->directory = true;
		if (len == 2 && name[0] == '.' && name[1] == '.')
			walk->depth -= walk->depth > 1;
		else if (len != 1 || name[0] != '.')
			err = step(walk, name, len, rest, follow || walk->directory, &followed);
		at = followed ? 0 : (size_t)(rest - walk->rest);
	}
	return err;
}

struct parent {
	struct inl_inode *dir;
	uint32_t ino;
};

static int find_parent(struct inl_handle *op, void *arg)
{
	struct parent *parent = arg;

	return inl_dir_parent(op, parent->dir, &parent->ino);
}

int inl_parent(struct inl_inode *dir, uint64_t *ino, struct inl_diag *diag)
{
	struct parent parent = { .dir = dir };
	int err;

	if (!S_ISDIR(dir->type))
		return inl_diag_set(diag, -ENOTDIR, "is not a directory");
	err = inl_op_look(dir->vol, find_parent, &parent);
	if (!err)
		*ino = parent.ino;
	return err == -EUCLEAN ? inl_diag_set(diag, err, "directory %u is damaged: \"..\"", dir->ino) : err;
}

int inl_path(struct inl_volume *vol, const char *path, bool follow, struct inl_diag *diag, struct inl_inode **out)
{
	struct walk walk = { .vol = vol, .diag = diag };
	struct inl_inode *inode = NULL;
	int err = enter(&walk, INL_ROOT_INO);

	walk.rest = strdup(path);
	if (!walk.rest)
		err = -ENOMEM;
	if (!err)
		err = walk_all(&walk, follow);
	if (!err)
		err = inl_inode_get(vol, here(&walk), diag, &inode);
	if (!err && walk.directory && !S_ISDIR(inode->type))
		err = -ENOTDIR;
	if (err)
		inl_inode_put(inode);
	else
		*out = inode;
	free(walk.rest);
	free(walk.trail);
	return err;
}
