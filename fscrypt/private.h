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

/* lock: of the key ring */
struct inl_key_cache {
	unsigned limit;		     /* never changes */
	atomic_uint n;		     /* changed under the lock; ready, being made, or being evicted */
	unsigned n_ready;	     /* in the ring */
	struct inl_crypt_info *hand; /* NULL: the ring is empty */
	struct inl_crypt_info *left; /* inodes that were freed where their key could not be evicted */
};

/* Locks, in the order they are taken: inl_crypt_info.lock, inl_fscrypt.lock, that of the key ring. */
struct inl_fscrypt {
	struct inl_fscrypt_params params;
	struct inl_keyring *ring; /* that of the caller, or an empty one of its own */
	pthread_mutex_t lock;	  /* held while a shared key is made */
	unsigned n_ending;	  /* lock of the ring: keys that are being evicted */
	unsigned n_workers;	  /* lock of the ring: those of its inodes */
	struct inl_key_cache cache;
};

/* Bits of an inode's state; the others count pins. READY is set, and all bits are cleared, under the lock of the ring. */
#define INL_CRYPT_READY	   0x80000000u /* the key can be pinned */
#define INL_CRYPT_USED	   0x40000000u /* since the hand of the cache came by */
#define INL_CRYPT_UNLOCKED 0x20000000u /* the key was ready, and can be made again or is kept; cleared when that ends */
#define INL_CRYPT_PINS	   0x1fffffffu

/* Where the own key of an inode is. */
enum inl_key_place {
	INL_KEY_NOWHERE, /* there is none, or it is shared */
	INL_KEY_CACHED,	 /* in the ring of the cache */
	INL_KEY_KEPT,	 /* it can be derived no more, and the inode is held */
	INL_KEY_LEFT,	 /* the inode is freed, the key could not be evicted then */
};

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
	atomic_uint state;
	struct inl_key_use *_Atomic use; /* contents. May change while it is pinned: then what a pin had is refused */
	struct inl_cipher *names;	 /* never changes while it is pinned */
	uint32_t hashed_ino;		 /* IV_INO_LBLK_32 only; set before the first key is ready */

	/* lock of the ring: */
	struct inl_master_key *master;	 /* NULL: not found yet, or gone again */
	struct inl_crypt_info *mates_prev, *mates_next; /* the inodes of the same master key */
	struct inl_shared_key *shared;	 /* what use or names are, unless they are its own */
	struct inl_crypt_info *prev, *next; /* in the cache */
	enum inl_key_place place;
	bool hashed;	    /* hashed_ino is right */
	bool making;	    /* a thread derives its key, or starts it */
	bool going;	    /* its key goes as soon as nobody has it pinned */
	bool husk;	    /* it was freed: goes as soon as nobody looks after it */
	unsigned n_workers; /* evictions that look after it */
	unsigned holds;
};

static inline bool inl_crypt_info_owns_key(const struct inl_crypt_info *info)
{
	return info->method == INL_IV_PER_FILE;
}

static inline bool inl_crypt_info_unlocked(const struct inl_crypt_info *info)
{
	return atomic_load_explicit(&info->state, memory_order_acquire) & INL_CRYPT_UNLOCKED;
}

/* Of one that nobody holds: names cannot be encrypted or decrypted any more. lock: of the ring */
static inline void inl_crypt_info_lock_names(struct inl_crypt_info *info)
{
	atomic_fetch_and(&info->state, ~INL_CRYPT_UNLOCKED);
}

/* ---- info.c ---- */

/* Have the key ready and keep it so until unpin. Returns as inl_crypt_info_unlock. */
int inl_crypt_info_pin(struct inl_crypt_info *info, struct inl_diag *diag);
void inl_crypt_info_unpin(struct inl_crypt_info *info);

/* Derive the key, shared or not, and have it ready. master: with the secret, which is counted as used */
int inl_crypt_info_make_key(const struct inl_crypt_info *info, const struct inl_master_key *master,
			    struct inl_ready_key *out, struct inl_diag *diag);

/* "the key ... is needed": fills *diag and returns -ENOKEY. No lock is held. */
int inl_crypt_info_key_missing(const struct inl_crypt_info *info, struct inl_diag *diag);

/* The number that IV_INO_LBLK_32 hashes. lock: of the ring; the master key has been found */
void inl_crypt_info_hash_ino(struct inl_crypt_info *info);

void inl_crypt_info_destroy(struct inl_crypt_info *info); /* its memory; NULL is fine */

/* ---- evict.c: keys that are on their way out --------------------------------------------------------------------- */

#define INL_ENDINGS_MAX 32

/* Out of reach for everybody else, to be ended with no lock held: that may wait, and callbacks may run. */
struct inl_endings {
	unsigned n;
	struct inl_ending {
		struct inl_fscrypt *fs;
		struct inl_master_key *master;
		struct inl_ready_key key;
		bool counted; /* by the cache */
	} list[INL_ENDINGS_MAX];
};

/* lock: of the ring. There must be room, and the thread may wait. */
void inl_endings_add(struct inl_endings *endings, struct inl_fscrypt *fs, struct inl_master_key *master,
		     struct inl_ready_key key, bool counted);

/* No lock is held. Leaves it empty. */
void inl_endings_run(struct inl_keyring *ring, struct inl_endings *endings);

/*
 * The inode has found no master key any more, and no key; its own one, or a shared one that nobody needs now, is to be ended.
 * lock: of the ring. No thread makes its key; of names none has it pinned.
 */
void inl_crypt_info_detach(struct inl_crypt_info *info, struct inl_endings *endings);

/* May names be decrypted, is it still unlocked? Of an inode with a master key. lock: of the ring */
bool inl_crypt_info_usable(const struct inl_crypt_info *info);

/* ---- shared.c; lock of the ring, but for the first ---- */

/* The key that this inode shares, found or made; put it when the inode goes. */
int inl_shared_key_get(const struct inl_crypt_info *info, struct inl_master_key *master, struct inl_shared_key **out,
		       struct inl_diag *diag);
struct inl_ready_key inl_shared_key_of(const struct inl_shared_key *shared);

/* Ends it if its master key is gone and nobody uses it. */
void inl_shared_key_put(struct inl_shared_key *shared, struct inl_endings *endings);

/* End those of a master key that nobody uses, or all of one file system. False: there are more than it has room for. */
bool inl_shared_keys_sweep(struct inl_master_key *master, const struct inl_fscrypt *fs, struct inl_endings *endings);

/* ---- cache.c ---- */

void inl_key_cache_init(struct inl_key_cache *cache, unsigned limit); /* 0: the default */

static inline bool inl_key_cache_over(struct inl_key_cache *cache)
{
	return atomic_load_explicit(&cache->n, memory_order_relaxed) > cache->limit;
}

/*
 * Before a key is made: make room, as far as there are keys that can go, and count it. Then add or cancel it. These, trim
 * and drop may evict: no lock is held by the caller.
 */
void inl_key_cache_reserve(struct inl_fscrypt *fs);
void inl_key_cache_cancel(struct inl_fscrypt *fs);

void inl_key_cache_trim(struct inl_fscrypt *fs); /* down to the limit, if it can be */

/* Secret memory is full: one key less, whatever the limit, or one that another thread evicts. False: none can go. */
bool inl_key_cache_drop(struct inl_fscrypt *fs);

/* ---- lock of the ring: */

void inl_key_cache_add(struct inl_crypt_info *info);  /* its own key is there, and counted */
void inl_key_cache_keep(struct inl_crypt_info *info); /* not the cache's any more: not counted, and does not go */
void inl_key_cache_take_back(struct inl_crypt_info *info); /* one that was kept */

/* Where it is: no more. True: it was counted, and still is. */
bool inl_key_cache_forget(struct inl_crypt_info *info);

/* The inode goes where its key cannot be evicted: the cache does both when it can. */
void inl_key_cache_leave(struct inl_crypt_info *info);

#endif
