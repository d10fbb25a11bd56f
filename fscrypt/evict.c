/*
 * fscrypt/evict.c: keys that end: of inodes whose master key is removed, but for those that are held; then itself.
 * Not here: whose key it was (claim.c); which key makes room for another (cache.c); names and data that others keep.
 * Read more: ARCHITECTURE.md, "The life of a key"; Linux fs/crypto/keyring.c does the same to its inodes.
 *
 * All is decided under the lock of the ring: who takes a key out of an inode there ends it, later and without the lock.
 * A key of contents may be pinned then. That is no matter: the block layer refuses what comes too late and waits for
 * what is under way. The cipher of names is pinned for a moment only, and that is waited for.
 */
#include "fscrypt/keyring.h"
#include "fscrypt/private.h"
#include <errno.h>

/* ---- ending keys ------------------------------------------------------------------------------------------------- */

void inl_endings_add(struct inl_endings *endings, struct inl_fscrypt *fs, struct inl_master_key *master,
		     struct inl_ready_key key, bool counted)
{
	endings->list[endings->n++] = (struct inl_ending){ fs, master, key, counted };
	fs->n_ending++;
	master->n_ending++;
}

/* An engine that fails to clear a slot has it unlinked all the same: nothing is left to do about it here. */
static void end_key(const struct inl_ready_key *key)
{
	(void)inl_key_evict(key->use);
	inl_cipher_free(key->names);
}

void inl_endings_run(struct inl_keyring *ring, struct inl_endings *endings)
{
	if (!endings->n)
		return;
	for (unsigned i = 0; i < endings->n; i++)
		end_key(&endings->list[i].key);
	pthread_mutex_lock(&ring->lock);
	for (unsigned i = 0; i < endings->n; i++) {
		struct inl_ending *ending = &endings->list[i];

		if (ending->counted)
			inl_key_cache_cancel(ending->fs);
		ending->fs->n_ending--;
		ending->master->n_ending--;
		inl_master_settle(ring, ending->master);
	}
	pthread_cond_broadcast(&ring->changed);
	pthread_mutex_unlock(&ring->lock);
	endings->n = 0;
}

/* ---- one inode; lock: of the ring -------------------------------------------------------------------------------- */

static bool is_pinned(const struct inl_crypt_info *info)
{
	return atomic_load_explicit(&info->state, memory_order_acquire) & INL_CRYPT_PINS;
}

bool inl_crypt_info_usable(const struct inl_crypt_info *info)
{
	enum inl_master_state state = info->master->state;

	return state == INL_MASTER_PRESENT || info->holds ||
	       (state == INL_MASTER_MARKED && info->kind == INL_CRYPT_REG);
}

static void forget_master(struct inl_crypt_info *info)
{
	if (info->mates_next)
		info->mates_next->mates_prev = info->mates_prev;
	if (info->mates_prev)
		info->mates_prev->mates_next = info->mates_next;
	else
		info->master->infos = info->mates_next;
	info->mates_prev = info->mates_next = NULL;
	info->master = NULL;
}

void inl_crypt_info_detach(struct inl_crypt_info *info, struct inl_endings *endings)
{
	struct inl_ready_key key = { atomic_load_explicit(&info->use, memory_order_relaxed), info->names };
	struct inl_shared_key *shared = info->shared;
	bool counted;

	if (!info->master)
		return;
	atomic_fetch_and(&info->state, INL_CRYPT_PINS);
	atomic_store_explicit(&info->use, NULL, memory_order_relaxed);
	info->names = NULL;
	info->shared = NULL;
	counted = inl_key_cache_forget(info);
	if (shared)
		inl_shared_key_put(shared, endings);
	else if (key.use || key.names)
		inl_endings_add(endings, info->fs, info->master, key, counted);
	forget_master(info);
}

static void look_after(struct inl_crypt_info *info)
{
	info->n_workers++;
	info->fs->n_workers++;
}

/* False: it was freed meanwhile, and is no more. */
static bool looked_after(struct inl_crypt_info *info, struct inl_endings *endings)
{
	struct inl_keyring *ring = info->fs->ring;
	bool gone = --info->n_workers == 0 && info->husk;

	info->fs->n_workers--;
	pthread_cond_broadcast(&ring->changed);
	if (!gone)
		return true;
	inl_crypt_info_detach(info, endings);
	inl_crypt_info_destroy(info);
	return false;
}

/* Can it be detached now, with nothing to wait for? From here on its key cannot be pinned any more. */
static bool goes_now(struct inl_crypt_info *info)
{
	atomic_fetch_and(&info->state, ~(INL_CRYPT_READY | INL_CRYPT_UNLOCKED));
	return !info->making && !info->going && (info->kind == INL_CRYPT_REG || !is_pinned(info));
}

/* Until it can be detached; the lock is given up meanwhile. False: it is no more, or somebody holds it. */
static bool wait_until_it_goes(struct inl_crypt_info *info, struct inl_endings *endings)
{
	struct inl_keyring *ring = info->fs->ring;
	bool goes;

	look_after(info);
	while (!info->holds && !goes_now(info)) {
		if (info->making || info->going) {
			pthread_cond_wait(&ring->changed, &ring->lock);
			continue;
		}
		info->going = true;
		while (is_pinned(info))
			pthread_cond_wait(&ring->changed, &ring->lock);
		info->going = false;
	}
	goes = !info->holds;
	return looked_after(info, endings) && goes;
}

/* ---- inodes that are held ---------------------------------------------------------------------------------------- */

/* May it be held as well, by one who begins something, or by one who goes on? */
static bool may_hold(const struct inl_crypt_info *info, bool begins)
{
	return begins ? info->holds || info->master->state == INL_MASTER_PRESENT : inl_crypt_info_usable(info);
}

static int hold(struct inl_crypt_info *info, bool begins, struct inl_diag *diag)
{
	struct inl_keyring *ring = info->fs->ring;
	bool held, locked;
	int rc = 0;

	for (;;) {
		pthread_mutex_lock(&ring->lock);
		locked = info->master && !may_hold(info, begins);
		held = info->master && !locked && inl_crypt_info_unlocked(info);
		info->holds += held;
		pthread_mutex_unlock(&ring->lock);
		if (held)
			return 0;
		if (locked)
			return inl_crypt_info_key_missing(info, diag);
		rc = inl_crypt_info_unlock(info, diag);
		if (rc)
			return rc;
	}
}

int inl_crypt_info_hold(struct inl_crypt_info *info, struct inl_diag *diag)
{
	return hold(info, true, diag);
}

int inl_crypt_info_hold_on(struct inl_crypt_info *info, struct inl_diag *diag)
{
	return hold(info, false, diag);
}

/* The last one let go of it, and its master key is gone; also if that comes back meanwhile. */
static void complete(struct inl_crypt_info *info, struct inl_endings *endings)
{
	struct inl_master_key *master = info->master;
	struct inl_keyring *ring = info->fs->ring;

	/* In a callback nothing can be waited for: the next eviction does it. */
	if (!inl_may_wait())
		return;
	master->n_refs++;
	if (goes_now(info) || wait_until_it_goes(info, endings))
		inl_crypt_info_detach(info, endings);
	master->n_refs--;
	inl_master_settle(ring, master);
}

void inl_crypt_info_release(struct inl_crypt_info *info)
{
	struct inl_fscrypt *fs = info->fs;
	struct inl_endings endings = { 0 };

	pthread_mutex_lock(&fs->ring->lock);
	if (info->holds && --info->holds == 0 && info->master) {
		if (info->master->state == INL_MASTER_REMOVED) {
			complete(info, &endings);
		} else {
			inl_key_cache_take_back(info);
			if (!inl_crypt_info_usable(info))
				inl_crypt_info_lock_names(info);
		}
	}
	pthread_mutex_unlock(&fs->ring->lock);
	inl_endings_run(fs->ring, &endings);
	if (inl_key_cache_over(&fs->cache))
		inl_key_cache_trim(fs);
}

/* ---- an inode that is freed -------------------------------------------------------------------------------------- */

void inl_crypt_info_free(struct inl_crypt_info *info)
{
	struct inl_endings endings = { 0 };
	struct inl_master_key *master;
	struct inl_keyring *ring;

	if (!info)
		return;
	ring = info->fs->ring;
	pthread_mutex_lock(&ring->lock);
	master = info->master;
	info->holds = 0;
	info->husk = info->n_workers;
	if (!info->husk && !inl_may_wait() && info->place != INL_KEY_NOWHERE) {
		goes_now(info);
		info->husk = true;
		inl_key_cache_leave(info);
	}
	if (info->husk) {
		pthread_mutex_unlock(&ring->lock);
		return;
	}
	inl_crypt_info_detach(info, &endings);
	if (master)
		inl_master_settle(ring, master);
	pthread_mutex_unlock(&ring->lock);
	inl_endings_run(ring, &endings);
	inl_crypt_info_destroy(info);
}

/* ---- all inodes of a master key ---------------------------------------------------------------------------------- */

/* Let the keys that were taken out end; others may change anything meanwhile. lock: of the ring */
static void end_unlocked(struct inl_keyring *ring, struct inl_endings *endings)
{
	pthread_mutex_unlock(&ring->lock);
	inl_endings_run(ring, endings);
	pthread_mutex_lock(&ring->lock);
}

/* One round over those that nobody holds. False: there may be more to do, the lock was given up. */
static bool evict_idle(struct inl_keyring *ring, struct inl_master_key *master, struct inl_endings *endings)
{
	struct inl_crypt_info *info, *next;

	for (info = master->infos; info && endings->n < INL_ENDINGS_MAX; info = next) {
		next = info->mates_next;
		if (info->holds)
			continue;
		if (!goes_now(info)) {
			if (wait_until_it_goes(info, endings))
				inl_crypt_info_detach(info, endings);
			return false;
		}
		inl_crypt_info_detach(info, endings);
		if (info->husk && !info->n_workers)
			inl_crypt_info_destroy(info);
	}
	if (!info && inl_shared_keys_sweep(master, NULL, endings) && !endings->n)
		return true;
	end_unlocked(ring, endings);
	return false;
}

/* Does it do without the master key, as long as it is held? */
static bool is_kept(const struct inl_crypt_info *info)
{
	return (atomic_load_explicit(&info->state, memory_order_relaxed) & INL_CRYPT_READY) &&
	       (info->shared || info->place == INL_KEY_KEPT);
}

/* Of one that is held. False: its key has to be made first. */
static bool keep(struct inl_crypt_info *info)
{
	bool ready = atomic_load_explicit(&info->state, memory_order_relaxed) & INL_CRYPT_READY;

	if (ready && info->place == INL_KEY_CACHED)
		inl_key_cache_keep(info);
	return is_kept(info);
}

/*
 * Derive the key of one that is held, and keep it. The lock is given up meanwhile. *alive: it still is, and has its
 * master key.
 */
static int make_and_keep(struct inl_crypt_info *info, struct inl_endings *endings, bool *alive)
{
	struct inl_keyring *ring = info->fs->ring;
	int rc;

	look_after(info);
	pthread_mutex_unlock(&ring->lock);
	inl_endings_run(ring, endings);
	rc = inl_crypt_info_pin(info, NULL);
	pthread_mutex_lock(&ring->lock);
	if (!rc && info->holds)
		(void)keep(info);
	if (!rc)
		atomic_fetch_sub_explicit(&info->state, 1, memory_order_release);
	rc = rc && info->holds ? rc : 0;
	*alive = looked_after(info, endings) && info->master;
	return rc;
}

/* There is no memory for all of them: the master key stays, and so each key can go and be made again. */
static void keep_none(struct inl_master_key *master)
{
	for (struct inl_crypt_info *info = master->infos; info; info = info->mates_next)
		inl_key_cache_take_back(info);
}

/* The keys of those that are held stay without the master key. False: not all of them can. */
static bool keep_held(struct inl_master_key *master, struct inl_endings *endings)
{
	struct inl_crypt_info *info;
	bool alive;

	/* First those that are ready, so that making the others does not drive them out. */
	for (info = master->infos; info; info = info->mates_next)
		if (info->holds)
			(void)keep(info);
	for (info = master->infos; info && master->state == INL_MASTER_REMOVED && master->secret;
	     info = alive ? info->mates_next : master->infos) {
		alive = true;
		if (info->holds && !keep(info) && make_and_keep(info, endings, &alive)) {
			keep_none(master);
			return false;
		}
	}
	return true;
}

/* lock: of the ring; given up meanwhile */
static void evict(struct inl_keyring *ring, struct inl_master_key *master)
{
	struct inl_endings endings = { 0 };
	bool kept;

	master->state = INL_MASTER_REMOVED;
	while (master->state == INL_MASTER_REMOVED && !evict_idle(ring, master, &endings))
		;
	kept = keep_held(master, &endings);
	end_unlocked(ring, &endings);
	/* What other threads derive, and end: nobody begins who was not there already, unless there was no memory. */
	while (master->state == INL_MASTER_REMOVED && (master->n_ending || (kept && master->n_users)))
		pthread_cond_wait(&ring->changed, &ring->lock);
	if (master->state == INL_MASTER_REMOVED && kept && !master->n_users)
		inl_master_wipe(master);
}

int inl_keyring_evict(struct inl_keyring *ring, const struct inl_key_spec *spec, unsigned *n_busy)
{
	struct inl_master_key *master;
	unsigned n = 0;

	if (!inl_may_wait())
		return -EDEADLK;
	if (ring) {
		pthread_mutex_lock(&ring->lock);
		master = inl_master_find(ring, spec);
		if (master && master->state != INL_MASTER_PRESENT) {
			master->n_refs++;
			evict(ring, master);
			n = master->state == INL_MASTER_REMOVED ? inl_master_count_held(master) : 0;
			master->n_refs--;
			inl_master_settle(ring, master);
		}
		pthread_mutex_unlock(&ring->lock);
	}
	*n_busy = n;
	return 0;
}
