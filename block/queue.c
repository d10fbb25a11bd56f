/*
 * block/queue.c: queues as callers see them: submit, plug and merge, reap.
 * Not here: what happens to a bio (submit.c); sleeping (thread.c).
 * Read more: inlay/block.h, "queues"; io_uring(7), whose division into submitting and reaping it follows.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>

#define MERGE_SEGS 64
#define MERGE_LEN  (1u << 20) /* bytes */

/* Several adjacent bios as one. */
struct inl_merge {
	struct inl_bio bio; /* first, so that a bio with done == merged_done is known for one of these */
	struct inl_queue *queue;
	struct inl_merge *next_free;
	struct inl_bio_list members;
	struct iovec segs[MERGE_SEGS];
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* A context for each driver below that has them. One that cannot make its own works without. */
static int open_contexts(struct inl_queue *queue, struct inl_dev *dev)
{
	const struct inl_dev_ops *ops = dev->ops;
	unsigned i = 0;
	void *ctx;
	int err;

	while (i < queue->n_ctx && queue->ctx[i].ops != ops)
		i++;
	if (ops->queue_new && i == queue->n_ctx) {
		if (i == INL_QUEUE_CTX_MAX || queue->thread->n_fds == INL_THREAD_FDS_MAX)
			return -EMFILE;
		err = inl_thread_need_pipe(queue->thread);
		if (err)
			return err;
		if (!ops->queue_new(queue->depth, &ctx)) {
			queue->ctx[i].ops = ops;
			queue->ctx[i].ctx = ctx;
			queue->ctx[i].fd = ops->queue_fd(ctx);
			queue->n_ctx++;
			queue->thread->n_fds++;
		}
	}
	for (i = 0; i < dev->n_children; i++) {
		err = open_contexts(queue, dev->children[i]);
		if (err)
			return err;
	}
	return 0;
}

static void queue_free(struct inl_queue *queue)
{
	for (unsigned i = 0; i < queue->n_ctx; i++) {
		queue->ctx[i].ops->queue_free(queue->ctx[i].ctx);
		queue->thread->n_fds--;
	}
	free(queue->merges);
	free(queue);
}

int inl_queue_new(struct inl_dev *dev, unsigned depth, struct inl_queue **out)
{
	struct inl_thread *thread = inl_thread_get();
	struct inl_queue *queue;
	unsigned n_merges = depth / 2;
	int err;

	if (!depth || depth > INL_QUEUE_DEPTH_MAX)
		return -EINVAL;
	queue = thread ? calloc(1, sizeof(*queue)) : NULL;
	if (!queue)
		return -ENOMEM;
	queue->dev = dev;
	queue->thread = thread;
	queue->depth = depth;
	queue->merges = n_merges ? calloc(n_merges, sizeof(queue->merges[0])) : NULL;
	err = n_merges && !queue->merges ? -ENOMEM : open_contexts(queue, dev);
	if (err) {
		queue_free(queue);
		return err;
	}
	for (unsigned i = 0; i < n_merges; i++) {
		queue->merges[i].queue = queue;
		queue->merges[i].next_free = queue->free_merges;
		queue->free_merges = &queue->merges[i];
	}
	queue->next = thread->queues;
	thread->queues = queue;
	*out = queue;
	return 0;
}

void inl_queue_free(struct inl_queue *queue)
{
	struct inl_queue **at;

	if (!queue)
		return;
	inl_queue_reap(queue, UINT32_MAX);
	for (at = &queue->thread->queues; *at != queue; at = &(*at)->next)
		;
	*at = queue->next;
	queue_free(queue);
}

unsigned inl_queue_n_busy(const struct inl_queue *queue)
{
	return queue->n_busy;
}

void *inl_bio_queue_ctx(const struct inl_bio *bio, const struct inl_dev_ops *ops)
{
	struct inl_queue *queue = bio->state.queue;

	for (unsigned i = 0; queue && i < queue->n_ctx; i++) {
		if (queue->ctx[i].ops == ops) {
			queue->dirty = true;
			return queue->ctx[i].ctx;
		}
	}
	return NULL;
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static void merged_done(struct inl_bio *bio)
{
	struct inl_merge *merge = (struct inl_merge *)bio;
	struct inl_bio_list members = merge->members;
	int status = bio->status;
	struct inl_bio *member;

	merge->next_free = merge->queue->free_merges;
	merge->queue->free_merges = merge;
	while ((member = inl_bio_list_pop(&members))) {
		if (status)
			inl_todo(member, INL_TODO_START);
		else
			inl_bio_end(member, 0);
	}
}

static bool may_follow(const struct inl_bio *first, const struct inl_bio *next)
{
	if (first->op != next->op || (first->op != INL_READ && first->op != INL_WRITE) || first->flags != next->flags ||
	    first->state.kind != next->state.kind || first->state.error || next->state.error)
		return false;
	if (first->state.pos + first->len != next->state.pos || first->len + next->len > MERGE_LEN ||
	    first->n_segs + next->n_segs > MERGE_SEGS)
		return false;
	return first->state.kind != INL_BIO_KEYED ||
	       inl_ctx_mergeable(&first->state.ctx, first->len, &next->state.ctx);
}

static void merge_add(struct inl_merge *merge, struct inl_bio *bio)
{
	for (unsigned i = 0; i < bio->n_segs; i++)
		merge->segs[merge->bio.n_segs++] = bio->segs[i];
	merge->bio.len += bio->len;
	inl_bio_list_add(&merge->members, bio);
}

static struct inl_merge *merge_begin(struct inl_queue *queue, struct inl_bio *bio)
{
	struct inl_merge *merge = queue->free_merges;

	if (!merge)
		return NULL;
	queue->free_merges = merge->next_free;
	inl_bio_init_part(&merge->bio, bio, 0, 0);
	merge->bio.segs = merge->segs;
	merge->bio.state.dev = merge->bio.state.top = queue->dev;
	merge->bio.state.pos = bio->state.pos;
	merge->bio.done = merged_done;
	merge->members = (struct inl_bio_list){ 0 };
	merge_add(merge, bio);
	return merge;
}

/* Keep the bio for later: with the last one if they are adjacent. */
static void collect(struct inl_queue *queue, struct inl_bio *bio)
{
	struct inl_bio *last = queue->plug_last;
	struct inl_merge *merge;

	if (last && may_follow(last, bio)) {
		merge = last->done == merged_done ? (struct inl_merge *)last : merge_begin(queue, last);
		if (merge) {
			merge_add(merge, bio);
			queue->plug_last = &merge->bio;
			INL_COUNT(queue->dev, merges, 1);
			return;
		}
	}
	if (last)
		inl_bio_list_add(&queue->plug_list, last);
	queue->plug_last = bio;
}

/* ---- submitting -------------------------------------------------------------------------------------------------- */

int inl_queue_submit(struct inl_queue *queue, struct inl_bio *bio)
{
	if (queue->thread != inl_thread_self)
		return -EPERM;
	if (queue->n_busy == queue->depth)
		return -EAGAIN;
	queue->n_busy++;
	inl_bio_accept(queue->thread, queue, queue->dev, bio);
	if (queue->plugged)
		collect(queue, bio);
	else
		inl_todo(bio, INL_TODO_START);
	return 0;
}

void inl_queue_plug(struct inl_queue *queue)
{
	queue->plugged = true;
}

void inl_queue_unplug(struct inl_queue *queue)
{
	bool first;
	struct inl_bio *bio;

	if (!queue->plugged)
		return;
	first = inl_turn_begin(queue->thread);
	queue->plugged = false;
	if (queue->plug_last)
		inl_bio_list_add(&queue->plug_list, queue->plug_last);
	queue->plug_last = NULL;
	while ((bio = inl_bio_list_pop(&queue->plug_list)))
		inl_todo(bio, INL_TODO_START);
	inl_turn_end(queue->thread, first);
}

/* ---- reaping ----------------------------------------------------------------------------------------------------- */

unsigned inl_queue_poll(struct inl_queue *queue)
{
	unsigned n = 0;

	for (unsigned i = 0; i < queue->n_ctx && queue->n_busy; i++)
		n += queue->ctx[i].ops->queue_reap(queue->ctx[i].ctx);
	return n;
}

void inl_queue_flush(struct inl_queue *queue)
{
	queue->dirty = false;
	for (unsigned i = 0; i < queue->n_ctx; i++)
		queue->ctx[i].ops->queue_flush(queue->ctx[i].ctx);
}

unsigned inl_queue_reap(struct inl_queue *queue, unsigned min)
{
	uint64_t before = queue->n_done;

	if (queue->thread != inl_thread_self || queue->thread->running)
		return 0;
	inl_thread_poll(queue->thread);
	while (queue->n_busy && queue->n_done - before < min)
		inl_thread_wait(queue->thread);
	return (unsigned)(queue->n_done - before);
}
