/*
 * fscrypt/private.h: what the files of this folder share: the table of modes, the inside of an inode's encryption.
 * Not here: what file systems may use (info.h); master keys (keyring.h).
 * Read more: fscrypt/info.h.
 */
#ifndef INLAY_FSCRYPT_PRIVATE_H
#define INLAY_FSCRYPT_PRIVATE_H

#include <inlay/cipher.h>
#include "fscrypt/info.h"
#include <pthread.h>
#include <stdatomic.h>

/* What the two layers below call a mode of fscrypt. */
struct inl_fscrypt_mode_info {
	const char *name;
	enum inl_cipher_id cipher;
	enum inl_blk_mode blk; /* INL_BLK_MODE_INVALID: for names only */
};

/* NULL for an unknown number. */
const struct inl_fscrypt_mode_info *inl_fscrypt_mode_info(int mode);

/* How the IVs of a policy are made, and with that, whether files share keys. */
enum inl_iv_method { INL_IV_PER_FILE, INL_IV_DIRECT_KEY, INL_IV_INO_LBLK_64, INL_IV_INO_LBLK_32 };

enum inl_iv_method inl_policy_method(const struct inl_policy *policy);

/* A key that is ready for work: contents use the block layer, names a cipher. One of the two is NULL. */
struct inl_ready_key {
	struct inl_key_use *use;
	struct inl_cipher *names;
};

/*
 * Of the keys that belong to one file each, those that are ready. The default: a key and its schedules take 640 to 900 bytes
 * of secret memory, of which there is 1 MiB where the system allows little; so two file systems have room there.
 */
#define INL_FILE_KEYS_DEFAULT 512

struct inl_key_cache {
	unsigned limit;		     /* never changes */
	pthread_mutex_t lock;
	atomic_uint n;		     /* changed under lock; ready, being made, or being evicted */
	unsigned n_ready;	     /* lock; in the ring */
	unsigned n_going;	     /* lock; being evicted to make room */
	pthread_cond_t gone;	     /* one of those is */
	struct inl_crypt_info *hand; /* lock; NULL: the ring is empty */
	struct inl_crypt_info *left; /* lock; inodes that were freed where their key could not be evicted */
};

/* Locks, in the order they are taken: inl_crypt_info.lock, inl_fscrypt.lock, that of the key ring or that of the cache. */
struct inl_fscrypt {
	struct inl_fscrypt_params params;
	pthread_mutex_t lock;
	struct inl_shared_key *shared; /* lock */
	struct inl_key_cache cache;
};

/* Bits of an inode's state; the others count pins. */
#define INL_CRYPT_READY	 0x80000000u /* the key can be pinned */
#define INL_CRYPT_USED	 0x40000000u /* since the hand of the cache came by */
#define INL_CRYPT_PROVED 0x20000000u /* the key was ready once, so it can be made again */
#define INL_CRYPT_PINS	 0x1fffffffu

struct inl_crypt_info {
	struct inl_fscrypt *fs;
	uint64_t ino;
	enum inl_crypt_kind kind;
	bool casefold;
	unsigned unit_bits; /* log2 of the data unit size */
	enum inl_iv_method method;
	struct inl_policy policy;
	uint8_t nonce[INL_FILE_NONCE_SIZE];

	pthread_mutex_t lock; /* held while the key is made ready */
	const struct inl_master_key *master; /* lock; NULL: not found yet */
	uint32_t hashed_ino;		     /* lock; IV_INO_LBLK_32 only; never changes once the key was ready */
	atomic_uint state;
	struct inl_ready_key key;	     /* changes only while it is not ready; read by those who have pinned it */
	struct inl_crypt_info *prev, *next;  /* lock of the cache; NULL: not in the ring */
};

static inline bool inl_crypt_info_owns_key(const struct inl_crypt_info *info)
{
	return info->method == INL_IV_PER_FILE;
}

static inline bool inl_crypt_info_proved(const struct inl_crypt_info *info)
{
	return atomic_load_explicit(&info->state, memory_order_acquire) & INL_CRYPT_PROVED;
}

/* With one pin, and as not used yet: what is used only once goes before what is used again. */
static inline void inl_crypt_info_set_ready(struct inl_crypt_info *info)
{
	/* Nobody else changes the state of one that is not ready. */
	atomic_store_explicit(&info->state, INL_CRYPT_READY | INL_CRYPT_PROVED | 1, memory_order_release);
}

/* ---- info.c ---- */

/* Have the key ready and keep it so until unpin. Returns as inl_crypt_info_unlock. */
int inl_crypt_info_pin(struct inl_crypt_info *info, struct inl_diag *diag);
void inl_crypt_info_unpin(struct inl_crypt_info *info);

void inl_crypt_info_destroy(struct inl_crypt_info *info); /* its memory; NULL is fine */

/* ---- cache.c ---- */

/* Returns 0, also if an engine failed; -EDEADLK (from a callback; nothing was done). */
int inl_ready_key_end(struct inl_ready_key *key);

void inl_key_cache_init(struct inl_key_cache *cache, unsigned limit); /* 0: the default */
void inl_key_cache_done(struct inl_key_cache *cache);

static inline bool inl_key_cache_over(struct inl_key_cache *cache)
{
	return atomic_load_explicit(&cache->n, memory_order_relaxed) > cache->limit;
}

/*
 * Before a key is made: make room, as far as there are keys that can go, and count it. Then add or cancel it. These, trim
 * and drop may evict: no lock is held by the caller.
 */
void inl_key_cache_reserve(struct inl_key_cache *cache);
void inl_key_cache_cancel(struct inl_key_cache *cache);

/* The key is ready, with one pin. lock: of info */
void inl_key_cache_add(struct inl_key_cache *cache, struct inl_crypt_info *info, const struct inl_ready_key *key);

/* The inode goes. False: its key could not be evicted here, and the cache frees both when it can. */
bool inl_key_cache_remove(struct inl_key_cache *cache, struct inl_crypt_info *info);

void inl_key_cache_trim(struct inl_key_cache *cache); /* down to the limit, if it can be */

/* Secret memory is full: one key less, whatever the limit, or one that another thread evicts. False: none can go. */
bool inl_key_cache_drop(struct inl_key_cache *cache);

#endif
