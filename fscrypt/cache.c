/*
 * fscrypt/cache.c: the keys of single files that are ready: no more than a limit; which one goes when another comes.
 * Not here: deriving a key and starting it (info.c); keys that files share, which are few and stay.
 * Read more: ARCHITECTURE.md, "The life of a read"; fscrypt/info.h, "inl_crypt_info_ctx".
 *
 * Second chance: those that are ready stand in a ring, and using one sets a bit. The hand goes round, takes the bit of
 * those that have it and the key of the first that has not, unless it is pinned. So using a key that is ready takes no
 * lock and writes to nothing that files share.
 *
 * An inode's state says it all: a key goes by one exchange, from ready and not pinned to not ready, and from then on
 * nobody can pin it. It is evicted with no lock held, since that may wait and callbacks may run.
 */
#include "fscrypt/private.h"
#include <errno.h>

/* Out of reach for everybody else, to be ended with no lock held. */
struct taken {
	struct inl_ready_key key;
	struct inl_crypt_info *husk; /* an inode that was freed but for its key; NULL: it lives */
};

void inl_key_cache_init(struct inl_key_cache *cache, unsigned limit)
{
	cache->limit = limit ? limit : INL_FILE_KEYS_DEFAULT;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->gone, NULL);
	atomic_init(&cache->n, 0);
}

int inl_ready_key_end(struct inl_ready_key *key)
{
	/* An engine that fails to clear a slot has it unlinked all the same: nothing is left to do about it here. */
	if (inl_key_evict(key->use) == -EDEADLK)
		return -EDEADLK;
	inl_cipher_free(key->names);
	return 0;
}

/* ---- the ring; lock: of the cache, in all of it ------------------------------------------------------------------ */

static void link_in(struct inl_key_cache *cache, struct inl_crypt_info *info)
{
	struct inl_crypt_info *at = cache->hand ? cache->hand : info;

	/* Behind the hand: its turn comes last. */
	info->next = at;
	info->prev = at == info ? info : at->prev;
	info->prev->next = info;
	at->prev = info;
	cache->hand = at;
	cache->n_ready++;
}

static void unlink_from(struct inl_key_cache *cache, struct inl_crypt_info *info)
{
	if (cache->hand == info)
		cache->hand = info->next == info ? NULL : info->next;
	info->prev->next = info->next;
	info->next->prev = info->prev;
	info->prev = info->next = NULL;
	cache->n_ready--;
}

/* Not ready any more, if it is neither pinned nor was used since the hand came by. */
static bool give_up(struct inl_crypt_info *info)
{
	unsigned state = atomic_load_explicit(&info->state, memory_order_relaxed);

	if (state & INL_CRYPT_PINS)
		return false;
	if (state & INL_CRYPT_USED) {
		atomic_fetch_and_explicit(&info->state, ~INL_CRYPT_USED, memory_order_relaxed);
		return false;
	}
	return atomic_compare_exchange_strong_explicit(&info->state, &state, state & ~INL_CRYPT_READY,
						       memory_order_acquire, memory_order_relaxed);
}

/* The next one that can go, or NULL: after two rounds nobody has a bit left. */
static struct inl_crypt_info *find_victim(struct inl_key_cache *cache)
{
	for (unsigned steps = 2 * cache->n_ready + 1; cache->hand && steps; steps--) {
		struct inl_crypt_info *info = cache->hand;

		cache->hand = info->next;
		if (give_up(info))
			return info;
	}
	return NULL;
}

static bool take(struct inl_key_cache *cache, struct taken *taken)
{
	struct inl_crypt_info *info = cache->left;

	if (!inl_may_wait())
		return false;
	taken->husk = info;
	if (info) {
		cache->left = info->next;
	} else {
		info = find_victim(cache);
		if (!info)
			return false;
		unlink_from(cache, info);
	}
	taken->key = info->key;
	return true;
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

/* Takes one out, with the lock given up in between. False: none can go. lock: of the cache */
static bool drop_locked(struct inl_key_cache *cache)
{
	struct taken taken;

	if (!take(cache, &taken))
		return false;
	cache->n_going++;
	pthread_mutex_unlock(&cache->lock);
	(void)inl_ready_key_end(&taken.key);
	inl_crypt_info_destroy(taken.husk);
	pthread_mutex_lock(&cache->lock);
	cache->n_going--;
	pthread_cond_broadcast(&cache->gone);
	atomic_fetch_sub_explicit(&cache->n, 1, memory_order_relaxed);
	return true;
}

bool inl_key_cache_drop(struct inl_key_cache *cache)
{
	bool dropped;

	pthread_mutex_lock(&cache->lock);
	dropped = drop_locked(cache);
	if (!dropped && cache->n_going && inl_may_wait()) {
		pthread_cond_wait(&cache->gone, &cache->lock);
		dropped = true;
	}
	pthread_mutex_unlock(&cache->lock);
	return dropped;
}

void inl_key_cache_reserve(struct inl_key_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	while ((cache->left || atomic_load_explicit(&cache->n, memory_order_relaxed) >= cache->limit) && drop_locked(cache))
		;
	atomic_fetch_add_explicit(&cache->n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&cache->lock);
}

void inl_key_cache_cancel(struct inl_key_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	atomic_fetch_sub_explicit(&cache->n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&cache->lock);
}

void inl_key_cache_trim(struct inl_key_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	while (inl_key_cache_over(cache) && drop_locked(cache))
		;
	pthread_mutex_unlock(&cache->lock);
}

void inl_key_cache_add(struct inl_key_cache *cache, struct inl_crypt_info *info, const struct inl_ready_key *key)
{
	pthread_mutex_lock(&cache->lock);
	info->key = *key;
	link_in(cache, info);
	inl_crypt_info_set_ready(info);
	pthread_mutex_unlock(&cache->lock);
}

bool inl_key_cache_remove(struct inl_key_cache *cache, struct inl_crypt_info *info)
{
	bool ready, gone = true;

	pthread_mutex_lock(&cache->lock);
	ready = info->next;
	if (ready)
		unlink_from(cache, info);
	pthread_mutex_unlock(&cache->lock);
	if (!ready)
		return true;
	gone = inl_ready_key_end(&info->key) == 0;
	pthread_mutex_lock(&cache->lock);
	if (gone) {
		atomic_fetch_sub_explicit(&cache->n, 1, memory_order_relaxed);
	} else {
		info->next = cache->left;
		cache->left = info;
	}
	pthread_mutex_unlock(&cache->lock);
	return gone;
}

void inl_key_cache_done(struct inl_key_cache *cache)
{
	while (cache->left && inl_key_cache_drop(cache))
		;
	pthread_cond_destroy(&cache->gone);
	pthread_mutex_destroy(&cache->lock);
}
