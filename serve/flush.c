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

static void flush_and_serve(struct inl_mount *mount, struct inl_job *job)
{
	struct inl_flush *flush = (struct inl_flush *)job;

	write_back(mount, flush->node->id);
	inl_answer_for(flush->worker);
	serve_now(mount, flush);
	inl_answer_for(NULL);
}

void inl_flush_then(fuse_req_t req, struct inl_node *node, struct inl_flush *flush, void (*fn)(struct inl_flush *flush))
{
	struct inl_mount *mount = inl_mount_of(req);

	flush->job.run = flush_and_serve;
	flush->req = req;
	flush->node = node;
	flush->worker = inl_worker_current();
	flush->fn = fn;
	inl_node_hold(&mount->nodes, node);
	/* Not when the mount is about to end: then all has been written back just now. */
	if (!mount->writeback || !inl_node_is_written(&mount->nodes, node) ||
	    !inl_lane_add(mount, &mount->flusher, &flush->job))
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
