/*
 * ext4/cache.h: what a cached block is made of, for the three files that keep it: cache.c, op.c, txn.c.
 * Not here: how to get and change one (own.h, change.h).
 * Read more: ARCHITECTURE.md, "The life of a change".
 *
 * The content of a block is a page, which counts its references and is never changed while there is more than one. Who
 * changes a block gives it a new page; the old one goes on serving whoever has it: the operation that may have to put
 * it back, a commit that writes it to the log, a checkpoint that writes it home.
 */
#ifndef INLAY_EXT4_CACHE_H
#define INLAY_EXT4_CACHE_H

#include "ext4/change.h"

struct inl_page {
	unsigned refs; /* cache->lock */
	struct inl_page *next; /* spare ones */
	uint8_t *bytes;
};

/* A list of blocks: running ones, or those that a checkpoint must write. */
struct inl_link {
	struct inl_link *prev, *next;
};

struct inl_block {
	struct inl_cache *cache;
	uint64_t pblk;
	struct inl_verdict {   /* found good, as what; verify NULL: not yet */
		inl_block_verify verify;
		unsigned arg;
		uint32_t ino;
	} good;
	unsigned pins;		/* cache->lock; one for each list and each commit that it is part of */
	bool loading, hashed;	/* cache->lock */
	struct inl_link idle;	/* by use, only while not pinned; cache->lock */
	struct inl_block *hash_next;
	struct inl_page *page;	/* the content; changed with vol->lock and cache->lock held */

	/* vol->lock: */
	uint64_t op_seq;	/* the operation that changed it last */
	bool running;		/* part of the running transaction: on its list, pinned */
	bool revoked;		/* revoked by the running transaction: on its list, pinned */
	bool committing;	/* part of the transaction that is being written to the log */
	struct inl_page *logged; /* its content as the log has it, newer than what is at home; then on the checkpoint's list, pinned */
	struct inl_link txn;	/* running */
	struct inl_link ckpt;	/* logged */
};

struct inl_cache {
	struct inl_volume *vol;
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	unsigned n_blocks, max_blocks;
	struct inl_link idle; /* least recently used first */
	struct inl_page *spare;
	struct inl_slab *slabs;
	unsigned bucket_bits;
	struct inl_block **hash;
};

static inline void inl_link_init(struct inl_link *head)
{
	head->prev = head->next = head;
}

static inline void inl_link_remove(struct inl_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
}

static inline void inl_link_append(struct inl_link *head, struct inl_link *link)
{
	link->prev = head->prev;
	link->next = head;
	link->prev->next = link;
	head->prev = link;
}

#define INL_LINK_OF(type, field, link) ((type *)(void *)((char *)(link) - offsetof(type, field)))

/* Pages. All take cache->lock themselves. */
struct inl_page *inl_page_new(struct inl_cache *cache); /* one reference, undefined content; NULL: no memory */
void inl_page_get(struct inl_cache *cache, struct inl_page *page);
void inl_page_put(struct inl_cache *cache, struct inl_page *page); /* NULL is fine */

/* The block if it is cached and loaded, pinned; NULL otherwise. Never reads. */
struct inl_block *inl_block_find(struct inl_volume *vol, uint64_t pblk);

/*
 * The cached block, or a fresh one whose page is `page` (a reference that it takes over). Pinned. *fresh says which.
 * -ENOMEM.
 */
int inl_block_make(struct inl_volume *vol, uint64_t pblk, struct inl_page *page, struct inl_block **out, bool *fresh);
void inl_block_pin(struct inl_block *block);

/*
 * Give a block another page; the old one's reference is returned to the caller. NULL: the block is not to be found any
 * more.
 */
struct inl_page *inl_block_swap(struct inl_block *block, struct inl_page *page);

/* ---- op.c, txn.c ------------------------------------------------------------------------------------------------- */

/* A block that the operation needs is not there: -EAGAIN. */
int inl_op_miss(struct inl_handle *op, uint64_t pblk);

/*
 * Take vol->lock with room for so many more blocks in the running transaction, committing it first if need be.
 *
 * Returns: 0 with the lock; -EROFS, or what a commit returned, without.
 */
int inl_txn_reserve(struct inl_volume *vol, unsigned credits, struct inl_diag *diag);

/* With vol->lock held: a block joins the running transaction, or leaves it. Both are their own opposites. */
void inl_txn_join(struct inl_volume *vol, struct inl_block *block);
void inl_txn_leave(struct inl_volume *vol, struct inl_block *block);
int inl_txn_revoke(struct inl_volume *vol, struct inl_block *block);   /* -ENOMEM */
void inl_txn_unrevoke(struct inl_volume *vol, struct inl_block *block);

#endif
