/*
 * serve/ask.c: threads for requests that look into the memory of whoever asks: that may take for ever.
 * Not here: what such requests are (fscrypt.c).
 * Read more: process_vm_readv(2).
 *
 * What lies there may have to be fetched first: from a file of this mount, which takes another request to be served, or
 * of another file system that never answers. So neither those that serve nor the lanes look there, but a thread that
 * nobody waits for, of which there are few, and fewer for each user. Between two looks it is inside the *gate*, where
 * the mount is there; while it looks it is outside, and may come back to find the gate closed: then there is nobody any
 * more to answer to.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#define ASKERS_MAX         16u
#define ASKERS_OF_USER_MAX 4u

struct asker;

struct inl_gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool closed;
	unsigned n_inside;
	unsigned refs; /* of the mount, and of each that asks */
	struct asker *askers[ASKERS_MAX];
	unsigned n;
};

struct asker {
	struct inl_gate *gate;
	struct inl_control control; /* of the request, which is over: what it came with is copied */
	uint8_t in[INL_ASK_IN_MAX];
	struct inl_worker *worker;
	int (*fn)(const struct inl_control *control);
	uid_t uid;
	bool inside;
};

static _Thread_local struct asker *current;

struct inl_gate *inl_gate_new(void)
{
	struct inl_gate *gate = calloc(1, sizeof(*gate));

	if (!gate)
		return NULL;
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->changed, NULL);
	gate->refs = 1;
	return gate;
}

/* The lock is held, and given up. */
static void put_gate(struct inl_gate *gate)
{
	bool last = --gate->refs == 0;

	pthread_mutex_unlock(&gate->lock);
	if (!last)
		return;
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
	free(gate);
}

void inl_gate_close(struct inl_gate *gate)
{
	if (!gate)
		return;
	pthread_mutex_lock(&gate->lock);
	gate->closed = true;
	while (gate->n_inside)
		pthread_cond_wait(&gate->changed, &gate->lock);
	/* Those that are left are outside, and never come back to theirs. */
	for (unsigned i = 0; i < gate->n; i++)
		fuse_reply_none(gate->askers[i]->control.req);
	put_gate(gate);
}

static void leave(struct asker *asker)
{
	pthread_mutex_lock(&asker->gate->lock);
	asker->gate->n_inside--;
	pthread_cond_broadcast(&asker->gate->changed);
	pthread_mutex_unlock(&asker->gate->lock);
	asker->inside = false;
}

static bool enter(struct asker *asker)
{
	pthread_mutex_lock(&asker->gate->lock);
	asker->inside = !asker->gate->closed;
	asker->gate->n_inside += asker->inside;
	pthread_mutex_unlock(&asker->gate->lock);
	return asker->inside;
}

struct inl_worker *inl_control_worker(void)
{
	return current ? current->worker : inl_worker_current();
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* Nothing of the mount is touched meanwhile, nor after -ENOTCONN. */
static int move(const struct inl_control *control, size_t at, void *bytes, size_t len, bool there)
{
	const struct iovec local = { bytes, len }, remote = { (uint8_t *)control->arg + at, len };
	pid_t pid = fuse_req_ctx(control->req)->pid;
	struct asker *asker = current;
	ssize_t n = -1;
	int err;

	leave(asker);
	errno = EPERM;
	if (pid)
		n = there ? process_vm_writev(pid, &local, 1, &remote, 1, 0)
			  : process_vm_readv(pid, &local, 1, &remote, 1, 0);
	err = n == (ssize_t)len ? 0 : n >= 0 || errno == EFAULT ? -EFAULT : -EPERM;
	return enter(asker) ? err : -ENOTCONN;
}

int inl_peek(const struct inl_control *control, size_t at, void *to, size_t len)
{
	return move(control, at, to, len, false);
}

int inl_poke(const struct inl_control *control, size_t at, const void *from, size_t len)
{
	return move(control, at, (void *)from, len, true);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Inside or not, in one step: who is left in the list when nobody is inside has not answered. */
static void end(struct asker *asker)
{
	struct inl_gate *gate = asker->gate;
	unsigned i = 0;

	pthread_mutex_lock(&gate->lock);
	while (gate->askers[i] != asker)
		i++;
	gate->askers[i] = gate->askers[--gate->n];
	gate->n_inside -= asker->inside;
	pthread_cond_broadcast(&gate->changed);
	put_gate(gate);
	inl_wipe(asker, sizeof(*asker));
	free(asker);
}

static void *ask(void *arg)
{
	struct asker *asker = arg;
	struct inl_mount *mount = asker->control.mount;
	int err;

	current = asker;
	inl_answer_for(asker->worker);
	err = asker->fn(&asker->control);
	if (asker->inside) {
		if (err)
			inl_reply_error(asker->control.req, err);
		inl_node_put(&mount->nodes, asker->control.node);
	}
	end(asker);
	return NULL;
}

static bool may_ask(struct inl_gate *gate, struct asker *asker)
{
	unsigned n = 0;

	for (unsigned i = 0; i < gate->n; i++)
		n += gate->askers[i]->uid == asker->uid;
	if (gate->closed || gate->n == ASKERS_MAX || n == ASKERS_OF_USER_MAX)
		return false;
	gate->askers[gate->n++] = asker;
	gate->n_inside++;
	gate->refs++;
	return true;
}

static int start(struct asker *asker)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&thread, &attr, ask, asker);
	pthread_attr_destroy(&attr);
	return err;
}

int inl_ask(const struct inl_control *control, int (*fn)(const struct inl_control *control))
{
	struct inl_gate *gate = control->mount->gate;
	struct asker *asker;
	bool may;
	int err;

	if (control->in_size > INL_ASK_IN_MAX)
		return -EINVAL;
	asker = calloc(1, sizeof(*asker));
	if (!asker)
		return -ENOMEM;
	asker->gate = gate;
	asker->control = *control;
	if (control->in_size)
		memcpy(asker->in, control->in, control->in_size);
	asker->control.in = asker->in;
	asker->worker = inl_worker_current();
	asker->fn = fn;
	asker->uid = fuse_req_ctx(control->req)->uid;
	pthread_mutex_lock(&gate->lock);
	may = may_ask(gate, asker);
	pthread_mutex_unlock(&gate->lock);
	if (!may) {
		free(asker);
		return -EAGAIN;
	}
	asker->inside = true;
	inl_node_hold(&control->mount->nodes, control->node);
	err = start(asker);
	if (err) {
		inl_node_put(&control->mount->nodes, control->node);
		end(asker);
	}
	return err;
}
