/*
 * ext4/cache.c: a bounded cache of metadata blocks, least recently used first out.
 * Not here: file data, which is never cached; what a block means (the callers' verify).
 * Read more: ext4/own.h. Blocks are read without the lock; who wants one that is being read waits for it.
 */
#include "ext4/cache.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES	  (4u << 20)
#define CACHE_BYTES_WRITE (64u << 20)
#define CACHE_BLOCKS_MIN  256u
#define SLAB_PAGES	  16u
#define BUCKET_BITS	  10u
#define BUCKET_BITS_WRITE 14u

static struct inl_block **bucket(struct inl_cache *cache, uint64_t pblk)
{
	return &cache->hash[(pblk * 0x9e3779b97f4a7c15u) >> (64 - cache->bucket_bits)];
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

/* ---- pages ------------------------------------------------------------------------------------------------------- */

/*
 * Pages come by the slab: one by one, aligned as devices want them, they would take twice the memory. Slabs stay until the
 * end; there are as many as were ever needed, and the bounds of the cache and of transactions bound that.
 */
struct inl_slab {
	struct inl_slab *next;
	uint8_t *bytes;
	struct inl_page pages[SLAB_PAGES];
};

/* With the lock held. */
static int slab_add(struct inl_cache *cache)
{
	struct inl_slab *slab = calloc(1, sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	slab->bytes = inl_new_blocks(cache->vol->block_size, SLAB_PAGES);
	if (!slab->bytes) {
		free(slab);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < SLAB_PAGES; i++) {
		slab->pages[i].bytes = slab->bytes + (size_t)i * cache->vol->block_size;
		slab->pages[i].next = cache->spare;
		cache->spare = &slab->pages[i];
	}
	slab->next = cache->slabs;
	cache->slabs = slab;
	return 0;
}

static void slabs_free(struct inl_cache *cache)
{
	while (cache->slabs) {
		struct inl_slab *slab = cache->slabs;

		cache->slabs = slab->next;
		free(slab->bytes);
		free(slab);
	}
}

/* With the lock held. */
static struct inl_page *page_new_locked(struct inl_cache *cache)
{
	struct inl_page *page;

	if (!cache->spare && slab_add(cache))
		return NULL;
	page = cache->spare;
	cache->spare = page->next;
	page->refs = 1;
	return page;
}

static void page_put_locked(struct inl_cache *cache, struct inl_page *page)
{
	if (!page || --page->refs)
		return;
	page->next = cache->spare;
	cache->spare = page;
}

struct inl_page *inl_page_new(struct inl_cache *cache)
{
	struct inl_page *page;

	pthread_mutex_lock(&cache->lock);
	page = page_new_locked(cache);
	pthread_mutex_unlock(&cache->lock);
	return page;
}

void inl_page_get(struct inl_cache *cache, struct inl_page *page)
{
	pthread_mutex_lock(&cache->lock);
	page->refs++;
	pthread_mutex_unlock(&cache->lock);
}

void inl_page_put(struct inl_cache *cache, struct inl_page *page)
{
	pthread_mutex_lock(&cache->lock);
	page_put_locked(cache, page);
	pthread_mutex_unlock(&cache->lock);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

int inl_cache_new(struct inl_volume *vol, struct inl_cache **out)
{
	bool write = vol->flags & INL_VOLUME_WRITE;
	struct inl_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	cache->bucket_bits = write ? BUCKET_BITS_WRITE : BUCKET_BITS;
	cache->hash = calloc((size_t)1 << cache->bucket_bits, sizeof(struct inl_block *));
	if (!cache->hash) {
		free(cache);
		return -ENOMEM;
	}
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->loaded, NULL);
	cache->vol = vol;
	cache->max_blocks = (write ? CACHE_BYTES_WRITE : CACHE_BYTES) / vol->block_size;
	if (cache->max_blocks < CACHE_BLOCKS_MIN)
		cache->max_blocks = CACHE_BLOCKS_MIN;
	inl_link_init(&cache->idle);
	*out = cache;
	return 0;
}

static void block_free(struct inl_block *block)
{
	page_put_locked(block->cache, block->logged);
	page_put_locked(block->cache, block->page);
	free(block);
}

void inl_cache_free(struct inl_cache *cache)
{
	if (!cache)
		return;
	/* All of them, those too that an aborted journal has left pinned. */
	for (size_t i = 0; i < (size_t)1 << cache->bucket_bits; i++) {
		struct inl_block *block, *next;

		for (block = cache->hash[i]; block; block = next) {
			next = block->hash_next;
			block_free(block);
		}
	}
	slabs_free(cache);
	pthread_mutex_destroy(&cache->lock);
	pthread_cond_destroy(&cache->loaded);
	free(cache->hash);
	free(cache);
}

/* With the lock held: a block without a page, off all lists. Above the limit only while everything is pinned. */
static struct inl_block *block_take(struct inl_cache *cache)
{
	struct inl_link *link = cache->idle.next;
	struct inl_block *block;

	if (cache->n_blocks >= cache->max_blocks && link != &cache->idle) {
		block = INL_LINK_OF(struct inl_block, idle, link);
		inl_link_remove(link);
		unhash(cache, block);
		page_put_locked(cache, block->page);
		memset(block, 0, sizeof(*block));
		block->cache = cache;
		return block;
	}
	block = calloc(1, sizeof(*block));
	if (!block)
		return NULL;
	block->cache = cache;
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

/* With the lock held: back to nothing, of a block that is on no list. */
static void discard(struct inl_cache *cache, struct inl_block *block)
{
	unhash(cache, block);
	cache->n_blocks--;
	block_free(block);
}

static void put_locked(struct inl_block *block)
{
	struct inl_cache *cache = block->cache;

	if (--block->pins)
		return;
	if (!block->hashed || !block->page || cache->n_blocks > cache->max_blocks)
		discard(cache, block);
	else
		inl_link_append(&cache->idle, &block->idle);
}

static void pin_locked(struct inl_block *block)
{
	if (block->pins++ == 0)
		inl_link_remove(&block->idle);
}

/* With the lock held on entry and exit, not meanwhile. */
static int load(struct inl_cache *cache, uint64_t pblk, struct inl_block **out)
{
	struct inl_block *block = block_take(cache);
	struct inl_page *page = block ? page_new_locked(cache) : NULL;
	int err;

	if (!page) {
		if (block)
			discard(cache, block);
		return -ENOMEM;
	}
	block->pins = 1;
	block->loading = true;
	block->page = page;
	hash(cache, block, pblk);
	pthread_mutex_unlock(&cache->lock);
	err = inl_meta_read(cache->vol, pblk << cache->vol->block_bits, page->bytes, cache->vol->block_size);
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

/* With the lock held; waits while somebody reads it. */
static struct inl_block *find_loaded(struct inl_cache *cache, uint64_t pblk)
{
	struct inl_block *block;

	while ((block = find(cache, pblk)) && block->loading)
		pthread_cond_wait(&cache->loaded, &cache->lock);
	return block;
}

struct inl_block *inl_block_find(struct inl_volume *vol, uint64_t pblk)
{
	struct inl_cache *cache = vol->cache;
	struct inl_block *block;

	pthread_mutex_lock(&cache->lock);
	block = find(cache, pblk);
	if (block && block->loading)
		block = NULL;
	if (block)
		pin_locked(block);
	pthread_mutex_unlock(&cache->lock);
	return block;
}

int inl_block_make(struct inl_volume *vol, uint64_t pblk, struct inl_page *page, struct inl_block **out, bool *fresh)
{
	struct inl_cache *cache = vol->cache;
	struct inl_block *block;
	int err = 0;

	pthread_mutex_lock(&cache->lock);
	block = find_loaded(cache, pblk);
	*fresh = !block;
	if (block) {
		pin_locked(block);
	} else {
		block = block_take(cache);
		if (block) {
			block->pins = 1;
			block->page = page;
			hash(cache, block, pblk);
		} else {
			err = -ENOMEM;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	if (!err)
		*out = block;
	return err;
}

void inl_block_pin(struct inl_block *block)
{
	pthread_mutex_lock(&block->cache->lock);
	pin_locked(block);
	pthread_mutex_unlock(&block->cache->lock);
}

struct inl_page *inl_block_swap(struct inl_block *block, struct inl_page *page)
{
	struct inl_cache *cache = block->cache;
	struct inl_page *old;

	pthread_mutex_lock(&cache->lock);
	old = block->page;
	block->page = page;
	if (!page)
		unhash(cache, block);
	pthread_mutex_unlock(&cache->lock);
	return old;
}

int inl_block_get(struct inl_volume *vol, uint64_t pblk, struct inl_block **out)
{
	struct inl_cache *cache = vol->cache;
	struct inl_handle *op = inl_op_current(vol);
	struct inl_block *block;
	int err = 0;

	if (pblk >= vol->n_blocks)
		return -EUCLEAN;
	if (op) {
		block = inl_block_find(vol, pblk);
		if (!block)
			return inl_op_miss(op, pblk);
		*out = block;
		return 0;
	}
	pthread_mutex_lock(&cache->lock);
	block = find_loaded(cache, pblk);
	if (block)
		pin_locked(block);
	else
		err = load(cache, pblk, &block);
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
		err = verify(inode, block->page->bytes, arg);
		if (err) {
			inl_block_put(block);
			return err;
		}
		pthread_mutex_lock(&block->cache->lock);
		block->good = (struct inl_verdict){ verify, arg, inode->ino };
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
	return block->page->bytes;
}
