/*
 * fscrypt/keyring.h: a master key: its life, what is derived from it; the ring and its lock.
 * Not here: adding keys and naming them (inlay/fscrypt.h); which inode needs which key (info.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Key hierarchy"; ARCHITECTURE.md, "The life of a key".
 */
#ifndef INLAY_FSCRYPT_KEYRING_H
#define INLAY_FSCRYPT_KEYRING_H

#include "crypto/kdf.h"
#include <inlay/fscrypt.h>
#include <pthread.h>

#define INL_INO_HASH_KEY_SIZE 16

/* The secret part; in the arena. */
struct inl_master_secret {
	uint8_t bytes[INL_MASTER_KEY_MAX];
	uint8_t ino_hash_key[INL_INO_HASH_KEY_SIZE]; /* SipHash key of IV_INO_LBLK_32 */
};

enum inl_master_state {
	INL_MASTER_PRESENT,
	INL_MASTER_MARKED, /* being removed: only inodes that found it before use it */
	INL_MASTER_REMOVED, /* evicted: only inodes that are held use it, or what they had derived */
};

struct inl_crypt_info;
struct inl_shared_key;

/*
 * lock: of the ring, for all that changes. Names and length never do. The secret is read without the lock by those who
 * are counted in n_users, and installed and wiped only while there are none. One that is REMOVED, and that nobody needs
 * any more, is freed by inl_master_settle.
 */
struct inl_master_key {
	struct inl_master_key *next;
	enum inl_master_state state;
	struct inl_key_spec v1, v2;
	size_t len; /* bytes */
	bool given; /* added for all: by inl_keyring_add */
	uint32_t *uids; /* of the users who claim it */
	unsigned n_uids, uids_room;
	struct inl_hkdf *hkdf;		  /* NULL: wiped */
	struct inl_master_secret *secret; /* the same */
	unsigned n_users;		  /* that derive from it now */
	unsigned n_ending;		  /* keys derived from it that are being evicted */
	unsigned n_refs;		  /* of inl_keyring_evict */
	struct inl_crypt_info *infos;	  /* the inodes that found it */
	struct inl_shared_key *shared;	  /* the keys that inodes share */
};

/*
 * The lock guards what changes of master keys, and of the keys made of them: which inode has one, which of those stand in
 * which cache. It is held for moments. Nothing is derived, started or evicted under it.
 */
struct inl_keyring {
	pthread_mutex_t lock;
	pthread_cond_t changed;	      /* a thread has done what another one may wait for */
	struct inl_master_key *first; /* oldest first */
	unsigned n;                   /* that are present */
};

/* What HKDF is asked for: the byte after "fscrypt\0". */
enum inl_hkdf_context {
	INL_HKDF_KEY_IDENTIFIER = 1,
	INL_HKDF_PER_FILE_KEY = 2,
	INL_HKDF_DIRECT_KEY = 3,
	INL_HKDF_IV_INO_LBLK_64_KEY = 4,
	INL_HKDF_DIRHASH_KEY = 5,
	INL_HKDF_IV_INO_LBLK_32_KEY = 6,
	INL_HKDF_INO_HASH_KEY = 7,
};

#define INL_HKDF_EXTRA_MAX 17 /* bytes: mode number and UUID */

/*
 * Derive len bytes for a purpose.
 *
 *   extra   extra_len bytes, at most INL_HKDF_EXTRA_MAX: what the purpose is bound to
 *
 * Returns: 0; -EIO. Threads: any.
 */
int inl_master_key_derive(const struct inl_master_key *master, enum inl_hkdf_context context, const void *extra,
			  size_t extra_len, uint8_t *out, size_t len);

/* The key of this name, if it is present, else NULL: it can be derived from until unuse. ring == NULL: an empty ring. */
struct inl_master_key *inl_keyring_use(struct inl_keyring *ring, const struct inl_key_spec *spec);
void inl_keyring_unuse(struct inl_keyring *ring, struct inl_master_key *master);

/* ---- with the lock of the ring held ---- */

/* NULL: there is none, in whatever state; or none that is present. */
struct inl_master_key *inl_master_find(struct inl_keyring *ring, const struct inl_key_spec *spec);
struct inl_master_key *inl_master_find_present(struct inl_keyring *ring, const struct inl_key_spec *spec);

/* Nobody uses the secret: it is wiped. */
void inl_master_wipe(struct inl_master_key *master);

/* Of one that was evicted: wipe the secret when nobody can need it, free it all when nobody knows it. */
void inl_master_settle(struct inl_keyring *ring, struct inl_master_key *master);

/* Inodes that hold it. lock: of the ring */
unsigned inl_master_count_held(const struct inl_master_key *master);

#endif
