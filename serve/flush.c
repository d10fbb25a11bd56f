/*
 * serve/flush.c: having the kernel write back what programs have written, from a thread that serves nobody.
 * Not here: what is done then (file.c, mount.c).
 * Read more: linux/Documentation/filesystems/fuse-io.rst, "writeback cache".
 *
 * The kernel is told that what it has of a file is void; before it drops what was not written yet, it writes it, and
 * the notification returns after that. Those writes are requests like any other: a thread that serves would wait for
 * itself.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>

static void write_back(struct inl_mount *mount, uint64_t id)
{
	fuse_lowlevel_notify_inval_inode(mount->session, id, 0, 0);
}

static void serve_now(struct inl_mount *mount, struct inl_flush *flush)
{
	flush->fn(flush);
	inl_node_put(&mount->nodes, flush->node);
	free(flush);
}

static void *flush_queued(void *arg)
{
	struct inl_mount *mount = arg;

	pthread_mutex_lock(&mount->lock);
	for (;;) {
		struct inl_flush *flush;

		while (!mount->flushes && !mount->flusher_stop)
			pthread_cond_wait(&mount->flush_wake, &mount->lock);
		flush = mount->flushes;
		if (!flush)
			break;
		mount->flushes = flush->next;
		if (!mount->flushes)
			mount->flushes_end = &mount->flushes;
		pthread_mutex_unlock(&mount->lock);
		write_back(mount, flush->node->id);
		inl_answer_for(flush->worker);
		serve_now(mount, flush);
		inl_answer_for(NULL);
		atomic_fetch_add_explicit(&mount->finished, 1, memory_order_release);
		pthread_mutex_lock(&mount->lock);
	}
	pthread_mutex_unlock(&mount->lock);
	return NULL;
}

int inl_flusher_start(struct inl_mount *mount)
{
	int err;

	mount->flushes_end = &mount->flushes;
	err = -pthread_create(&mount->flusher, NULL, flush_queued, mount);
	mount->has_flusher = !err;
	return err;
}

void inl_flusher_stop(struct inl_mount *mount)
{
	if (!mount->has_flusher)
		return;
	pthread_mutex_lock(&mount->lock);
	mount->flusher_stop = true;
	pthread_cond_broadcast(&mount->flush_wake);
	pthread_mutex_unlock(&mount->lock);
	pthread_join(mount->flusher, NULL);
	mount->has_flusher = false;
}

/* Not when the mount is about to end: then all has been written back just now. */
static bool queue(struct inl_mount *mount, struct inl_flush *flush)
{
	bool queued;

	pthread_mutex_lock(&mount->lock);
	queued = mount->has_flusher && !mount->flusher_stop;
	if (queued) {
		*mount->flushes_end = flush;
		mount->flushes_end = &flush->next;
		pthread_cond_signal(&mount->flush_wake);
	}
	pthread_mutex_unlock(&mount->lock);
	return queued;
}

void inl_flush_then(fuse_req_t req, struct inl_node *node, struct inl_flush *flush, void (*fn)(struct inl_flush *flush))
{
	struct inl_mount *mount = inl_mount_of(req);

	flush->next = NULL;
	flush->req = req;
	flush->node = node;
	flush->worker = inl_worker_current();
	flush->fn = fn;
	inl_node_hold(&mount->nodes, node);
	if (!mount->writeback || !inl_node_is_written(&mount->nodes, node) || !queue(mount, flush))
		serve_now(mount, flush);
}

void inl_flush_all(struct inl_mount *mount)
{
	unsigned n = 0;
	uint64_t *ids = mount->writeback ? inl_nodes_written(&mount->nodes, &n) : NULL;

	for (unsigned i = 0; i < n; i++)
		write_back(mount, ids[i]);
	free(ids);
}
