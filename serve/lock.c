/*
 * serve/lock.c: taking keys away from a volume that is in use, and giving them to it.
 * Not here: who may (fscrypt.c, socket.c); what happens to keys as such (the library); what is encrypted (tops.c).
 * Read more: ARCHITECTURE.md, "The life of a lock"; inlay/fscrypt.h.
 *
 * All of this waits for requests to be served: never in a thread that serves.
 */
#include "serve/serve.h"
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As linux/fuse.h has it from 7.44 (Linux 6.16): every name is looked up again before it is used. */
#define NOTIFY_INC_EPOCH 8

static bool is_of(const struct inl_key_names *names, const struct inl_key_spec *spec)
{
	return inl_key_spec_equal(&names->spec[0], spec) || inl_key_spec_equal(&names->spec[1], spec);
}

static struct inl_key_names names_of(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	struct inl_key_names names = { .spec = { *spec, *spec } };
	struct inl_key_spec v1, v2;

	for (unsigned i = 0; !inl_keyring_known(ring, i, 2, &v2); i++) {
		if (!inl_keyring_known(ring, i, 1, &v1) &&
		    (inl_key_spec_equal(&v1, spec) || inl_key_spec_equal(&v2, spec)))
			names = (struct inl_key_names){ .spec = { v1, v2 } };
	}
	return names;
}

static void say_old(struct inl_mount *mount)
{
	const struct fuse_out_header out = { .len = sizeof(out), .error = NOTIFY_INC_EPOCH };

	/* A kernel that does not know it says so. */
	if (write(mount->fd, &out, sizeof(out)) < 0)
		return;
}

/* arg: struct inl_key_names */
static bool has_key(struct inl_inode *inode, const void *arg)
{
	struct inl_policy policy;

	return inl_inode_policy(inode, &policy) && is_of(arg, &policy.key);
}

/* Names, attributes, lists, links and contents that nobody is using: the kernel forgets them. */
static int forget_unused(struct inl_mount *mount, const struct inl_key_names *names)
{
	int err = inl_tops_void(mount, &names->spec[0]), other = 0;

	if (!inl_key_spec_equal(&names->spec[0], &names->spec[1]))
		other = inl_tops_void(mount, &names->spec[1]);
	say_old(mount);
	return err ? err : other;
}

/* What a handle without the key has read ahead while the key was there. */
static void forget_ahead(struct inl_open *open)
{
	if (open->holds)
		return;
	pthread_mutex_lock(&open->lock);
	open->has_ahead = false;
	inl_wipe(&open->ahead, sizeof(open->ahead));
	open->pos = INL_POS_NOWHERE;
	pthread_mutex_unlock(&open->lock);
}

/* Of what is open: written back, and then read again by whoever may. */
static int forget_open(struct inl_mount *mount, const struct inl_key_names *names)
{
	unsigned n = 0;
	uint64_t *ids;

	pthread_mutex_lock(&mount->nodes.lock);
	for (const struct inl_open *open = mount->opens; open; open = open->next)
		n++;
	ids = calloc(n + 1, sizeof(*ids));
	n = 0;
	for (struct inl_open *open = mount->opens; open && ids; open = open->next) {
		if (!has_key(open->node->inode, names))
			continue;
		ids[n++] = open->node->id;
		forget_ahead(open);
	}
	pthread_mutex_unlock(&mount->nodes.lock);
	for (unsigned i = 0; i < n; i++)
		fuse_lowlevel_notify_inval_inode(mount->session, ids[i], 0, 0);
	free(ids);
	return ids ? 0 : -ENOMEM;
}

/*
 * The key is marked: what begins now does without it. What began before is over after the workers' turn, and what it
 * has told the kernel is forgotten after that. Without memory for all of it the key goes all the same, and the lock has
 * failed.
 */
static int evict(struct inl_mount *mount, const struct inl_key_names *names, unsigned *n_busy)
{
	int err, again, gone;

	atomic_fetch_add(&mount->keys.changes, 1);
	inl_workers_turn(mount);
	err = forget_open(mount, names);
	again = forget_unused(mount, names);
	inl_nodes_drop(&mount->nodes, has_key, names);
	gone = inl_keyring_evict(mount->keys.ring, &names->spec[0], n_busy);
	/* An answer of before, which the kernel took up late. */
	atomic_fetch_add(&mount->keys.changes, 1);
	err = err ? err : forget_open(mount, names);
	again = again ? again : forget_unused(mount, names);
	inl_report_wipe(mount);
	inl_workers_turn(mount);
	return gone ? gone : err ? err : again;
}

/* keys.lock is held. */
static void remember(struct inl_keys *keys, const struct inl_key_names *names)
{
	struct inl_key_names *grown;

	for (unsigned i = 0; i < keys->n_unfinished; i++) {
		if (is_of(&keys->unfinished[i], &names->spec[0]))
			return;
	}
	/* Without memory somebody has to lock again. */
	grown = realloc(keys->unfinished, (keys->n_unfinished + 1) * sizeof(*grown));
	if (!grown)
		return;
	keys->unfinished = grown;
	grown[keys->n_unfinished++] = *names;
}

int inl_keys_take(struct inl_mount *mount, const struct inl_key_spec *spec, uid_t uid, bool all,
		  struct inl_taken *taken)
{
	struct inl_keys *keys = &mount->keys;
	struct inl_key_names names;
	bool last = false;
	int err;

	*taken = (struct inl_taken){ 0 };
	if (!keys->ring)
		return -ENOKEY;
	pthread_mutex_lock(&keys->lock);
	names = names_of(keys->ring, spec);
	pthread_rwlock_wrlock(&keys->marking);
	err = inl_keyring_unclaim(keys->ring, spec, uid, all, &last);
	pthread_rwlock_unlock(&keys->marking);
	taken->others = !err && !last;
	if (!err && last)
		err = evict(mount, &names, &taken->n_busy);
	if (taken->n_busy)
		remember(keys, &names);
	pthread_mutex_unlock(&keys->lock);
	return err;
}

int inl_keys_give(struct inl_mount *mount, const uint8_t *key, size_t len, uid_t uid)
{
	struct inl_keys *keys = &mount->keys;
	struct inl_key_names names;
	bool was_there;
	int err;

	if (!keys->ring || !keys->supported)
		return -EOPNOTSUPP;
	err = inl_key_spec_derive(key, len, 1, &names.spec[0]);
	if (!err)
		err = inl_key_spec_derive(key, len, 2, &names.spec[1]);
	if (err)
		return err;
	pthread_mutex_lock(&keys->lock);
	was_there = inl_keyring_has(keys->ring, &names.spec[1]);
	err = uid == INL_NOBODY ? inl_keyring_add(keys->ring, key, len, NULL)
				: inl_keyring_claim(keys->ring, key, len, uid, NULL);
	if (!err && !was_there) {
		/* Names that were shown without the key, and what was not found. */
		atomic_fetch_add(&keys->changes, 1);
		forget_unused(mount, &names);
		forget_open(mount, &names);
	}
	pthread_mutex_unlock(&keys->lock);
	return err;
}

/* ---- the last one that was busy ---------------------------------------------------------------------------------- */

static void finish(struct inl_mount *mount, struct inl_job *job)
{
	struct inl_keys *keys = &mount->keys;

	free(job);
	atomic_store(&keys->finishing, false);
	pthread_mutex_lock(&keys->lock);
	for (unsigned i = 0; i < keys->n_unfinished;) {
		struct inl_key_names names = keys->unfinished[i];
		unsigned n_busy = 0;

		/* Somebody may have given it again. */
		if (!inl_keyring_has(keys->ring, &names.spec[0]))
			evict(mount, &names, &n_busy);
		if (n_busy) {
			i++;
			continue;
		}
		keys->unfinished[i] = keys->unfinished[--keys->n_unfinished];
	}
	pthread_mutex_unlock(&keys->lock);
}

void inl_keys_released(struct inl_mount *mount, const struct inl_key_spec *spec)
{
	struct inl_job *job;

	/* Most often it is there. */
	if (!mount->keys.ring || inl_keyring_has(mount->keys.ring, spec) || inl_keyring_busy(mount->keys.ring, spec) ||
	    atomic_exchange(&mount->keys.finishing, true))
		return;
	job = calloc(1, sizeof(*job));
	if (job)
		job->run = finish;
	if (!job || !inl_lane_add(mount, &mount->locker, job)) {
		free(job);
		atomic_store(&mount->keys.finishing, false);
	}
}

/* ---- keys for what users make ------------------------------------------------------------------------------------ */

/* NULL: this user has none. defaults_lock is held. */
static struct inl_default *find_default(struct inl_keys *keys, uid_t uid)
{
	for (unsigned i = 0; i < keys->n_defaults; i++) {
		if (keys->defaults[i].uid == uid)
			return &keys->defaults[i];
	}
	return NULL;
}

/* defaults_lock is held. */
static struct inl_default *add_default(struct inl_keys *keys, uid_t uid)
{
	struct inl_default *grown = realloc(keys->defaults, (keys->n_defaults + 1) * sizeof(*grown));

	if (!grown)
		return NULL;
	keys->defaults = grown;
	grown[keys->n_defaults].uid = uid;
	return &grown[keys->n_defaults++];
}

int inl_keys_set_default(struct inl_mount *mount, uid_t uid, const struct inl_key_spec *spec)
{
	struct inl_keys *keys = &mount->keys;
	struct inl_default *mine;

	pthread_mutex_lock(&keys->defaults_lock);
	mine = find_default(keys, uid);
	if (!mine)
		mine = add_default(keys, uid);
	if (mine)
		mine->key = *spec;
	pthread_mutex_unlock(&keys->defaults_lock);
	return mine ? 0 : -ENOMEM;
}

bool inl_keys_default(struct inl_mount *mount, uid_t uid, struct inl_key_spec *spec)
{
	const struct inl_default *mine;

	pthread_mutex_lock(&mount->keys.defaults_lock);
	mine = find_default(&mount->keys, uid);
	if (mine)
		*spec = mine->key;
	pthread_mutex_unlock(&mount->keys.defaults_lock);
	return mine;
}

static bool has_feature(const struct inl_volume *vol)
{
	struct inl_feature feature;

	for (unsigned i = 0; inl_volume_feature(vol, i, &feature); i++) {
		if (!strcmp(feature.name, "encrypt"))
			return true;
	}
	return false;
}

void inl_keys_init(struct inl_keys *keys, struct inl_keyring *ring, const struct inl_volume *vol)
{
	pthread_rwlockattr_t attr;

	keys->ring = ring;
	keys->supported = has_feature(vol);
	/* A directory that nobody has listed has seen no change. */
	atomic_init(&keys->changes, 1);
	pthread_mutex_init(&keys->lock, NULL);
	/* Those who make something do not keep others from marking by being many. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&keys->marking, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&keys->defaults_lock, NULL);
}

void inl_keys_done(struct inl_keys *keys)
{
	free(keys->defaults);
	free(keys->unfinished);
	pthread_mutex_destroy(&keys->defaults_lock);
	pthread_rwlock_destroy(&keys->marking);
	pthread_mutex_destroy(&keys->lock);
}
