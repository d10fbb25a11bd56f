/*
 * ext4/chain.c: a directory and all that are above it, as its ".." and theirs say.
 * Not here: who wants to know (namei.c).
 * Read more: ext4/change.h. The directories are loaded before an operation, which then sees whether it all still holds.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

void inl_chain_done(struct inl_chain *chain)
{
	while (chain->n)
		inl_inode_put(chain->dirs[--chain->n]);
	free(chain->dirs);
	*chain = (struct inl_chain){ 0 };
}

/* Takes over a reference. */
static int chain_push(struct inl_chain *chain, struct inl_inode *dir)
{
	if (chain->n == chain->room) {
		size_t room = chain->room ? 2 * chain->room : 16;
		struct inl_inode **grown = reallocarray(chain->dirs, room, sizeof(struct inl_inode *));

		if (!grown) {
			inl_inode_put(dir);
			return -ENOMEM;
		}
		chain->dirs = grown;
		chain->room = room;
	}
	chain->dirs[chain->n++] = dir;
	return 0;
}

struct parent {
	struct inl_inode *dir;
	uint32_t ino;
};

static int parent_op(struct inl_handle *op, void *arg)
{
	struct parent *parent = arg;

	if (!parent->dir->raw.i_links_count)
		return -ENOENT;
	return inl_dir_parent(op, parent->dir, &parent->ino);
}

static int circle(uint32_t ino, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EUCLEAN, "the way up from directory %u does not lead to the root", ino);
}

static int chain_up(struct inl_chain *chain, struct inl_diag *diag)
{
	struct parent parent = { .dir = chain->dirs[chain->n - 1] };
	struct inl_inode *dir;
	int err = inl_op_look(parent.dir->vol, parent_op, &parent);

	if (!err)
		err = inl_inode_get_named(parent.dir->vol, parent.ino, diag, &dir);
	if (err)
		return err == -ENOENT ? -ESTALE : err;
	err = chain_push(chain, dir);
	return !err && !S_ISDIR(dir->type) ? circle(parent.dir->ino, diag) : err;
}

/* A way that meets itself never ends: it is seen at twice its length. */
int inl_chain_walk(struct inl_chain *chain, struct inl_inode *dir, const struct inl_inode *what, bool *met,
		   struct inl_diag *diag)
{
	uint32_t mark = 0;
	size_t mark_at = 1;
	int err;

	atomic_fetch_add_explicit(&dir->refs, 1, memory_order_relaxed);
	err = chain_push(chain, dir);
	*met = dir == what;
	while (!err && !*met && dir->ino != INL_ROOT_INO) {
		if (chain->n == mark_at) {
			mark = dir->ino;
			mark_at *= 2;
		}
		err = chain_up(chain, diag);
		if (err)
			break;
		dir = chain->dirs[chain->n - 1];
		*met = dir->ino == what->ino;
		if (dir->ino == mark)
			err = circle(dir->ino, diag);
	}
	return err;
}

int inl_chain_check(struct inl_handle *op, const struct inl_chain *chain)
{
	for (size_t i = 0; i + 1 < chain->n; i++) {
		struct parent parent = { .dir = chain->dirs[i] };
		int err = parent_op(op, &parent);

		if (err)
			return err == -ENOENT ? -ESTALE : err;
		if (parent.ino != chain->dirs[i + 1]->ino)
			return -ESTALE;
	}
	return 0;
}
