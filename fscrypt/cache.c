/*
 * fscrypt/cache.c: the keys of single files that are ready: no more than a limit; which one goes when another comes.
 * Not here: deriving a key and starting it (info.c); ending one (evict.c); keys that files share (shared.c).
 * Read more: ARCHITECTURE.md, "The life of a read"; fscrypt/info.h, "inl_crypt_info_ctx".
 *
 * Second chance: those that are ready stand in a ring, and using one sets a bit. The hand goes round, takes the bit of
 * those that have it and the key of the first that has not, unless it is pinned. So using a key that is ready takes no
 * lock and writes to nothing that files share.
 *
 * An inode's state says it all: a key goes by one exchange, from ready and not pinned to not ready, and from then on
 * nobody can pin it. It is evicted with no lock held, since that may wait and callbacks may run.
 */
#include "fscrypt/keyring.h"
#include "fscrypt/private.h"

void inl_key_cache_init(struct inl_key_cache *cache, unsigned limit)
{
	cache->limit = limit ? limit : INL_FILE_KEYS_DEFAULT;
	atomic_init(&cache->n, 0);
}

/* ---- the ring; lock: of the key ring, in all of it --------------------------------------------------------------- */

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
	info->place = INL_KEY_CACHED;
}

static void unlink_from(struct inl_key_cache *cache, struct inl_crypt_info *info)
{
	if (cache->hand == info)
		cache->hand = info->next == info ? NULL : info->next;
	info->prev->next = info->next;
	info->next->prev = info->prev;
	info->prev = info->next = NULL;
	cache->n_ready--;
	info->place = INL_KEY_NOWHERE;
}

static void unlink_left(struct inl_key_cache *cache, struct inl_crypt_info *info)
{
	struct inl_crypt_info **at;

	for (at = &cache->left; *at != info; at = &(*at)->next)
		;
	*at = info->next;
	info->next = NULL;
	info->place = INL_KEY_NOWHERE;
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

/* Its key goes, the inode remains what it is. */
static void take(struct inl_crypt_info *info, struct inl_endings *endings)
{
	struct inl_ready_key key = { atomic_load_explicit(&info->use, memory_order_relaxed), info->names };

	unlink_from(&info->fs->cache, info);
	atomic_store_explicit(&info->use, NULL, memory_order_relaxed);
	info->names = NULL;
	inl_endings_add(endings, info->fs, info->master, key, true);
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

/* Takes one out, with the lock given up in between. False: none can go. lock: of the key ring */
static bool drop_locked(struct inl_fscrypt *fs)
{
	struct inl_crypt_info *husk = fs->cache.left, *victim = NULL;
	struct inl_endings endings = { 0 };

	if (!inl_may_wait())
		return false;
	if (!husk)
		victim = find_victim(&fs->cache);
	if (!husk && !victim)
		return false;
	if (husk)
		inl_crypt_info_detach(husk, &endings);
	else
		take(victim, &endings);
	pthread_mutex_unlock(&fs->ring->lock);
	inl_endings_run(fs->ring, &endings);
	inl_crypt_info_destroy(husk);
	pthread_mutex_lock(&fs->ring->lock);
	return true;
}

bool inl_key_cache_drop(struct inl_fscrypt *fs)
{
	bool dropped;

	pthread_mutex_lock(&fs->ring->lock);
	dropped = drop_locked(fs);
	if (!dropped && fs->n_ending && inl_may_wait()) {
		pthread_cond_wait(&fs->ring->changed, &fs->ring->lock);
		dropped = true;
	}
	pthread_mutex_unlock(&fs->ring->lock);
	return dropped;
}

void inl_key_cache_reserve(struct inl_fscrypt *fs)
{
	struct inl_key_cache *cache = &fs->cache;

	pthread_mutex_lock(&fs->ring->lock);
	while ((cache->left || atomic_load_explicit(&cache->n, memory_order_relaxed) >= cache->limit) && drop_locked(fs))
		;
	atomic_fetch_add_explicit(&cache->n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&fs->ring->lock);
}

void inl_key_cache_cancel(struct inl_fscrypt *fs)
{
	atomic_fetch_sub_explicit(&fs->cache.n, 1, memory_order_relaxed);
}

void inl_key_cache_trim(struct inl_fscrypt *fs)
{
	pthread_mutex_lock(&fs->ring->lock);
	while (inl_key_cache_over(&fs->cache) && drop_locked(fs))
		;
	pthread_mutex_unlock(&fs->ring->lock);
}

void inl_key_cache_add(struct inl_crypt_info *info)
{
	link_in(&info->fs->cache, info);
}

bool inl_key_cache_forget(struct inl_crypt_info *info)
{
	enum inl_key_place place = info->place;

	if (place == INL_KEY_CACHED)
		unlink_from(&info->fs->cache, info);
	else if (place == INL_KEY_LEFT)
		unlink_left(&info->fs->cache, info);
	info->place = INL_KEY_NOWHERE;
	return place == INL_KEY_CACHED || place == INL_KEY_LEFT;
}

void inl_key_cache_keep(struct inl_crypt_info *info)
{
	if (inl_key_cache_forget(info))
		inl_key_cache_cancel(info->fs);
	info->place = INL_KEY_KEPT;
}

void inl_key_cache_take_back(struct inl_crypt_info *info)
{
	if (info->place != INL_KEY_KEPT)
		return;
	atomic_fetch_add_explicit(&info->fs->cache.n, 1, memory_order_relaxed);
	link_in(&info->fs->cache, info);
}

void inl_key_cache_leave(struct inl_crypt_info *info)
{
	struct inl_key_cache *cache = &info->fs->cache;

	if (!inl_key_cache_forget(info))
		atomic_fetch_add_explicit(&cache->n, 1, memory_order_relaxed);
	info->place = INL_KEY_LEFT;
	info->next = cache->left;
	cache->left = info;
}
