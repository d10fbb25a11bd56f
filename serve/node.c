/*
 * serve/node.c: the inodes that the server holds, by the kernel's numbers.
 * Not here: handles (file.c, dir.c).
 * Read more: serve/serve.h.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>

#define IDLE_MAX 1024u /* used last: those whose requests come one after the other */

static uint32_t ino_of(uint64_t id)
{
	return id == FUSE_ROOT_ID ? INL_ROOT_INO : (uint32_t)id;
}

uint64_t inl_node_id(const struct inl_stat *st)
{
	return st->ino == INL_ROOT_INO ? FUSE_ROOT_ID : (uint64_t)st->generation << 32 | st->ino;
}

void inl_nodes_init(struct inl_nodes *nodes, struct inl_volume *vol)
{
	pthread_mutex_init(&nodes->lock, NULL);
	nodes->vol = vol;
}

static struct inl_node **bucket(struct inl_nodes *nodes, uint64_t id)
{
	return &nodes->buckets[(id ^ id >> 32) % INL_NODE_BUCKETS];
}

static struct inl_node *find(struct inl_nodes *nodes, uint64_t id)
{
	struct inl_node *node = *bucket(nodes, id);

	while (node && node->id != id)
		node = node->hash_next;
	return node;
}

static void insert(struct inl_nodes *nodes, struct inl_node *node)
{
	struct inl_node **head = bucket(nodes, node->id);

	node->hash_next = *head;
	*head = node;
	nodes->n++;
}

static void take_out(struct inl_nodes *nodes, struct inl_node *node)
{
	struct inl_node **at = bucket(nodes, node->id);

	while (*at != node)
		at = &(*at)->hash_next;
	*at = node->hash_next;
	nodes->n--;
}

/* ---- idle ones --------------------------------------------------------------------------------------------------- */

static void idle_add(struct inl_nodes *nodes, struct inl_node *node)
{
	node->newer = NULL;
	node->older = nodes->newest;
	if (node->older)
		node->older->newer = node;
	else
		nodes->oldest = node;
	nodes->newest = node;
	nodes->n_idle++;
}

static void idle_remove(struct inl_nodes *nodes, struct inl_node *node)
{
	if (node->newer)
		node->newer->older = node->older;
	else
		nodes->newest = node->older;
	if (node->older)
		node->older->newer = node->newer;
	else
		nodes->oldest = node->newer;
	nodes->n_idle--;
}

/* One that nobody needs is taken out of the table: to be dropped without the lock, since that may delete a file. */
static struct inl_node *surplus(struct inl_nodes *nodes)
{
	struct inl_node *node = nodes->n_idle > IDLE_MAX ? nodes->oldest : NULL;

	if (!node)
		return NULL;
	idle_remove(nodes, node);
	take_out(nodes, node);
	return node;
}

static void drop(struct inl_node *node)
{
	if (!node)
		return;
	inl_inode_put(node->inode);
	free(node);
}

/* ---- use --------------------------------------------------------------------------------------------------------- */

static void use(struct inl_nodes *nodes, struct inl_node *node)
{
	if (!node->users++ && !node->orphan)
		idle_remove(nodes, node);
}

/* Returns what is to be dropped. */
static struct inl_node *unuse(struct inl_nodes *nodes, struct inl_node *node)
{
	if (--node->users || node->orphan)
		return NULL;
	if (node->removed) {
		take_out(nodes, node);
		return node;
	}
	idle_add(nodes, node);
	return surplus(nodes);
}

/* An inode that is not in the table: its generation must be the one that the kernel means. */
static int load(struct inl_nodes *nodes, uint64_t id, struct inl_node **out)
{
	struct inl_node *node;
	struct inl_stat st;
	int err;

	node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->id = id;
	err = inl_inode_get(nodes->vol, ino_of(id), NULL, &node->inode);
	if (err) {
		free(node);
		return err == -ENOENT ? -ESTALE : err;
	}
	err = inl_inode_stat(node->inode, &st, NULL);
	if (!err && inl_node_id(&st) != id)
		err = -ESTALE;
	if (err) {
		drop(node);
		return err;
	}
	*out = node;
	return 0;
}

int inl_node_get(struct inl_nodes *nodes, uint64_t id, struct inl_node **out)
{
	struct inl_node *node, *fresh;
	int err;

	pthread_mutex_lock(&nodes->lock);
	node = find(nodes, id);
	if (node)
		use(nodes, node);
	pthread_mutex_unlock(&nodes->lock);
	if (node) {
		*out = node;
		return 0;
	}
	err = load(nodes, id, &fresh);
	if (err)
		return err;
	pthread_mutex_lock(&nodes->lock);
	node = find(nodes, id);
	if (node) {
		use(nodes, node);
	} else {
		node = fresh;
		fresh = NULL;
		node->users = 1;
		insert(nodes, node);
	}
	pthread_mutex_unlock(&nodes->lock);
	drop(fresh);
	*out = node;
	return 0;
}

void inl_node_hold(struct inl_nodes *nodes, struct inl_node *node)
{
	pthread_mutex_lock(&nodes->lock);
	node->users++;
	pthread_mutex_unlock(&nodes->lock);
}

void inl_node_put(struct inl_nodes *nodes, struct inl_node *node)
{
	struct inl_node *old;

	pthread_mutex_lock(&nodes->lock);
	old = unuse(nodes, node);
	pthread_mutex_unlock(&nodes->lock);
	drop(old);
}

/* ---- removed ones ------------------------------------------------------------------------------------------------ */

void inl_node_removed(struct inl_nodes *nodes, struct inl_inode *inode)
{
	struct inl_node *node, *fresh = NULL;
	struct inl_stat st;

	if (!inl_inode_stat(inode, &st, NULL) && !st.nlink)
		fresh = calloc(1, sizeof(*fresh));
	if (!fresh) {
		inl_inode_put(inode);
		return;
	}
	pthread_mutex_lock(&nodes->lock);
	node = find(nodes, inl_node_id(&st));
	if (!node) {
		*fresh = (struct inl_node){ .id = inl_node_id(&st), .inode = inode };
		insert(nodes, fresh);
		node = fresh;
	} else if (!node->users && !node->orphan) {
		idle_remove(nodes, node);
	}
	if (!node->removed) {
		node->removed = node->orphan = true;
		nodes->n_orphans++;
	}
	pthread_mutex_unlock(&nodes->lock);
	if (node != fresh) {
		inl_inode_put(inode);
		free(fresh);
	}
}

void inl_node_forget(struct inl_nodes *nodes, uint64_t id)
{
	struct inl_node *node, *gone = NULL;

	pthread_mutex_lock(&nodes->lock);
	node = find(nodes, id);
	if (node && node->orphan) {
		node->orphan = false;
		nodes->n_orphans--;
		if (!node->users) {
			take_out(nodes, node);
			gone = node;
		}
	}
	pthread_mutex_unlock(&nodes->lock);
	drop(gone);
}

/* ---- those that are written -------------------------------------------------------------------------------------- */

void inl_node_writes(struct inl_nodes *nodes, struct inl_node *node, bool begins)
{
	pthread_mutex_lock(&nodes->lock);
	node->writers += begins ? 1 : -1u;
	pthread_mutex_unlock(&nodes->lock);
}

bool inl_node_is_written(struct inl_nodes *nodes, const struct inl_node *node)
{
	bool is;

	pthread_mutex_lock(&nodes->lock);
	is = node->writers;
	pthread_mutex_unlock(&nodes->lock);
	return is;
}

void inl_nodes_drop(struct inl_nodes *nodes, bool (*which)(struct inl_inode *inode, const void *arg), const void *arg)
{
	struct inl_node *gone = NULL, *node, *older;

	pthread_mutex_lock(&nodes->lock);
	for (node = nodes->newest; node; node = older) {
		older = node->older;
		if (!which(node->inode, arg))
			continue;
		idle_remove(nodes, node);
		take_out(nodes, node);
		node->older = gone;
		gone = node;
	}
	pthread_mutex_unlock(&nodes->lock);
	while (gone) {
		node = gone;
		gone = node->older;
		drop(node);
	}
}

uint64_t *inl_nodes_written(struct inl_nodes *nodes, unsigned *n)
{
	uint64_t *ids;

	*n = 0;
	pthread_mutex_lock(&nodes->lock);
	ids = calloc(nodes->n + 1, sizeof(*ids));
	for (unsigned i = 0; ids && i < INL_NODE_BUCKETS; i++) {
		for (const struct inl_node *node = nodes->buckets[i]; node; node = node->hash_next) {
			if (node->writers)
				ids[(*n)++] = node->id;
		}
	}
	pthread_mutex_unlock(&nodes->lock);
	return ids;
}

void inl_nodes_done(struct inl_nodes *nodes)
{
	for (unsigned i = 0; i < INL_NODE_BUCKETS; i++) {
		while (nodes->buckets[i]) {
			struct inl_node *node = nodes->buckets[i];

			nodes->buckets[i] = node->hash_next;
			drop(node);
		}
	}
	pthread_mutex_destroy(&nodes->lock);
}
