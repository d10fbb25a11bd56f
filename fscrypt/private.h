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

struct inl_fscrypt {
	struct inl_fscrypt_params params;
	pthread_mutex_t lock;          /* taken after an info's */
	struct inl_shared_key *shared; /* lock */
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

	pthread_mutex_t lock; /* held while the key is made ready; taken before the locks of fs and key ring */
	const struct inl_master_key *master; /* lock; NULL: not found yet */
	atomic_bool ready;    /* once set, what follows never changes */
	bool owns_key;        /* otherwise the key is shared and belongs to fs */
	struct inl_ready_key key;
	uint32_t hashed_ino; /* IV_INO_LBLK_32 only */
};

static inline bool inl_crypt_info_ready(const struct inl_crypt_info *info)
{
	return atomic_load_explicit(&info->ready, memory_order_acquire);
}

#endif
