/*
 * ext4/cache.c: a bounded cache of metadata blocks, least recently used first out.
 * Not here: file data, which is never cached; what a block means (the callers' verify).
 * Read more: ext4/own.h. Blocks are read without the lock; who wants one that is being read waits for it.
 */
#include "ext4/own.h"
#include <errno.h>
#include <stdlib.h>

#define CACHE_BYTES  (4u << 20)
#define CACHE_BLOCKS_MIN 32u
#define N_BUCKETS    1024u

struct inl_block {
	struct inl_cache *cache;
	uint64_t pblk;
	struct verdict {       /* found good, as what; verify NULL: not yet */
		inl_block_verify verify;
		unsigned arg;
		uint32_t ino;
	} good;
	unsigned pins;
	bool loading, hashed;
	struct inl_block *prev, *next; /* by use, only while not pinned */
	struct inl_block *hash_next;
	uint8_t *bytes;
};

struct inl_cache {
	struct inl_volume *vol;
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	unsigned n_blocks, max_blocks;
	struct inl_block idle; /* list head, least recently used first */
	struct inl_block *hash[N_BUCKETS];
};

static struct inl_block **bucket(struct inl_cache *cache, uint64_t pblk)
{
	return &cache->hash[(pblk * 0x9e3779b97f4a7c15u) >> 54];
}

static void list_remove(struct inl_block *block)
{
	block->prev->next = block->next;
	block->next->prev = block->prev;
}

static void list_append(struct inl_cache *cache, struct inl_block *block)
{
	block->prev = cache->idle.prev;
	block->next = &cache->idle;
	block->prev->next = block;
	block->next->prev = block;
}

static void unhash(struct inl_cache *cache, struct inl_block *block)
{
	struct inl_block **at;

	if (!block->hashed)
		return;
	for (at = bucket(cache, block->pblk); *at != block; at = &(*at)->hash_next)
		;
	*at = block->hash_next;
	block->hashed = false;
}

static void hash(struct inl_cache *cache, struct inl_block *block, uint64_t pblk)
{
	struct inl_block **head = bucket(cache, pblk);

	block->pblk = pblk;
	block->hash_next = *head;
	*head = block;
	block->hashed = true;
}

int inl_cache_new(struct inl_volume *vol, struct inl_cache **out)
{
	struct inl_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->loaded, NULL);
	cache->vol = vol;
	cache->max_blocks = CACHE_BYTES / vol->block_size;
	if (cache->max_blocks < CACHE_BLOCKS_MIN)
		cache->max_blocks = CACHE_BLOCKS_MIN;
	cache->idle.prev = cache->idle.next = &cache->idle;
	*out = cache;
	return 0;
}

static void block_free(struct inl_block *block)
{
	free(block->bytes);
	free(block);
}

void inl_cache_free(struct inl_cache *cache)
{
	struct inl_block *block;

	if (!cache)
		return;
	while ((block = cache->idle.next) != &cache->idle) {
		list_remove(block);
		block_free(block);
	}
	pthread_mutex_destroy(&cache->lock);
	pthread_cond_destroy(&cache->loaded);
	free(cache);
}

/* With the lock held: a block to fill, off all lists. Above the limit only while everything is pinned. */
static struct inl_block *block_take(struct inl_cache *cache)
{
	struct inl_block *block = cache->idle.next;

	if (cache->n_blocks >= cache->max_blocks && block != &cache->idle) {
		list_remove(block);
		unhash(cache, block);
		return block;
	}
	block = calloc(1, sizeof(*block));
	if (!block)
		return NULL;
	block->cache = cache;
	block->bytes = aligned_alloc(4096, cache->vol->block_size < 4096 ? 4096 : cache->vol->block_size);
	if (!block->bytes) {
		free(block);
		return NULL;
	}
	cache->n_blocks++;
	return block;
}

static struct inl_block *find(struct inl_cache *cache, uint64_t pblk)
{
	struct inl_block *block = *bucket(cache, pblk);

	while (block && block->pblk != pblk)
		block = block->hash_next;
	return block;
}

static void put_locked(struct inl_block *block)
{
	struct inl_cache *cache = block->cache;

	if (--block->pins)
		return;
	if (!block->hashed || cache->n_blocks > cache->max_blocks) {
		unhash(cache, block);
		cache->n_blocks--;
		block_free(block);
		return;
	}
	list_append(cache, block);
}

/* With the lock held on entry and exit, not meanwhile. */
static int load(struct inl_cache *cache, uint64_t pblk, struct inl_block **out)
{
	struct inl_block *block = block_take(cache);
	int err;

	if (!block)
		return -ENOMEM;
	block->pins = 1;
	block->loading = true;
	block->good = (struct verdict){ 0 };
	hash(cache, block, pblk);
	pthread_mutex_unlock(&cache->lock);
	err = inl_meta_read(cache->vol, pblk << cache->vol->block_bits, block->bytes, cache->vol->block_size);
	pthread_mutex_lock(&cache->lock);
	block->loading = false;
	pthread_cond_broadcast(&cache->loaded);
	if (err) {
		unhash(cache, block);
		put_locked(block);
		return err;
	}
	*out = block;
	return 0;
}

int inl_block_get(struct inl_volume *vol, uint64_t pblk, struct inl_block **out)
{
	struct inl_cache *cache = vol->cache;
	struct inl_block *block;
	int err = 0;

	if (pblk >= vol->n_blocks)
		return -EUCLEAN;
	pthread_mutex_lock(&cache->lock);
	while ((block = find(cache, pblk)) && block->loading)
		pthread_cond_wait(&cache->loaded, &cache->lock);
	if (!block)
		err = load(cache, pblk, &block);
	else if (block->pins++ == 0)
		list_remove(block);
	pthread_mutex_unlock(&cache->lock);
	if (!err)
		*out = block;
	return err;
}

int inl_block_get_verified(struct inl_inode *inode, uint64_t pblk, inl_block_verify verify, unsigned arg,
			   struct inl_block **out)
{
	struct inl_block *block;
	bool good;
	int err = inl_block_get(inode->vol, pblk, &block);

	if (err)
		return err;
	pthread_mutex_lock(&block->cache->lock);
	good = block->good.verify == verify && block->good.arg == arg && block->good.ino == inode->ino;
	pthread_mutex_unlock(&block->cache->lock);
	if (!good) {
		err = verify(inode, block->bytes, arg);
		if (err) {
			inl_block_put(block);
			return err;
		}
		pthread_mutex_lock(&block->cache->lock);
		block->good = (struct verdict){ verify, arg, inode->ino };
		pthread_mutex_unlock(&block->cache->lock);
	}
	*out = block;
	return 0;
}

void inl_block_put(struct inl_block *block)
{
	struct inl_cache *cache;

	if (!block)
		return;
	cache = block->cache;
	pthread_mutex_lock(&cache->lock);
	put_locked(block);
	pthread_mutex_unlock(&cache->lock);
}

const uint8_t *inl_block_bytes(const struct inl_block *block)
{
	return block->bytes;
}
