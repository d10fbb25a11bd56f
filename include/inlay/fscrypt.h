/*
 * inlay/fscrypt.h: policies, key identifiers and the key ring, for callers.
 * Not here: which inode has which policy (inlay/volume.h); encryption itself (inlay/block.h).
 * Read more: Linux Documentation/filesystems/fscrypt.rst; include/uapi/linux/fscrypt.h, whose numbers these are.
 */
#ifndef INLAY_FSCRYPT_H
#define INLAY_FSCRYPT_H

#include <inlay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Modes of fscrypt (FSCRYPT_MODE_*): not the numbers of the block layer. */
enum inl_fscrypt_mode {
	INL_FSCRYPT_AES_256_XTS = 1,
	INL_FSCRYPT_AES_256_CTS = 4,
	INL_FSCRYPT_AES_128_CBC = 5, /* with ESSIV */
	INL_FSCRYPT_AES_128_CTS = 6,
	INL_FSCRYPT_SM4_XTS = 7,
	INL_FSCRYPT_SM4_CTS = 8,
	INL_FSCRYPT_ADIANTUM = 9,
	INL_FSCRYPT_AES_256_HCTR2 = 10,
};

/* "AES-256-XTS", "AES-256-CBC-CTS", ...; NULL for an unknown number. */
INL_API const char *inl_fscrypt_mode_name(int mode);

/* Policy flags. At most one of the last three. */
#define INL_POLICY_FLAGS_PAD_MASK   0x03 /* names are padded to 4 << n bytes */
#define INL_POLICY_FLAG_DIRECT_KEY     0x04
#define INL_POLICY_FLAG_IV_INO_LBLK_64 0x08
#define INL_POLICY_FLAG_IV_INO_LBLK_32 0x10

#define INL_KEY_DESCRIPTOR_SIZE 8  /* v1 */
#define INL_KEY_IDENTIFIER_SIZE 16 /* v2 */
#define INL_FILE_NONCE_SIZE	16
#define INL_MASTER_KEY_MIN	16
#define INL_MASTER_KEY_MAX	64

/* Names a master key: v1 policies by descriptor, v2 policies by identifier. */
struct inl_key_spec {
	uint8_t version;			/* of the policy: 1 or 2 */
	uint8_t bytes[INL_KEY_IDENTIFIER_SIZE]; /* v1: the first 8, the rest zero */
};

/* 2 * 16 + 1: what inl_key_spec_hex needs. */
#define INL_KEY_SPEC_HEX_SIZE 33

/* Lower-case hex, 16 or 32 digits, NUL-terminated. Returns hex. */
INL_API char *inl_key_spec_hex(const struct inl_key_spec *spec, char hex[INL_KEY_SPEC_HEX_SIZE]);

struct inl_policy {
	uint8_t version; /* 1 or 2 */
	uint8_t contents_mode;
	uint8_t filenames_mode;
	uint8_t flags;
	uint8_t log2_data_unit_size; /* 0: the file system block */
	uint8_t reserved[3];	     /* of the context: Linux refuses all but zeros */
	struct inl_key_spec key;
};

/*
 * Parse an encryption context as it lies in the xattr (index 9, name "c"): version 1, 28 bytes; version 2, 40 bytes.
 * Syntax only: whether modes and flags make sense together is inl_policy_check's business.
 *
 * Returns: 0; -EINVAL (length, version).
 */
INL_API int inl_policy_from_context(const void *context, size_t len, struct inl_policy *policy,
				    uint8_t nonce[INL_FILE_NONCE_SIZE]);

/* What of a file system decides which policies it can have. */
struct inl_policy_traits {
	unsigned block_bits;	 /* log2 of the block size */
	unsigned lblk_bits;	 /* width of a logical block number: 32 on ext4 */
	unsigned ino_bits;	 /* width of an inode number: 32 on ext4 */
	bool stable_inodes;	 /* inode numbers never change */
};

/*
 * Would Linux accept this policy on such a file system?
 *
 * Returns: 0; -EINVAL with the reason in *diag (unknown mode or flag, modes that do not go together, ...).
 */
INL_API int inl_policy_check(const struct inl_policy *policy, const struct inl_policy_traits *traits, bool casefold,
			     struct inl_diag *diag);

INL_API bool inl_policy_equal(const struct inl_policy *a, const struct inl_policy *b);

/* "per-file", "DIRECT_KEY", "IV_INO_LBLK_64" or "IV_INO_LBLK_32". */
INL_API const char *inl_policy_iv_method(const struct inl_policy *policy);

/* 4, 8, 16 or 32 bytes. */
INL_API unsigned inl_policy_padding(const struct inl_policy *policy);

/*
 * Name a raw master key, as version 1 or 2 policies do.
 *
 *   key      len bytes
 *   version  1: the first 8 bytes of SHA-512(SHA-512(key)), a convention; 2: HKDF-SHA512 with context 1
 *
 * Returns: 0; -EINVAL (fewer than 16 or more than 64 bytes; unknown version); -ENOMEM.
 */
INL_API int inl_key_spec_derive(const uint8_t *key, size_t len, int version, struct inl_key_spec *spec);

/*
 * The master keys that the user has given. Each serves v2 policies by its identifier and v1 policies by its descriptor.
 * Threads: all of it is safe from any thread.
 */
struct inl_keyring;
INL_API int inl_keyring_new(struct inl_keyring **out);

/* Frees the ring and wipes its keys. Every volume opened with it must be closed. NULL is fine. */
INL_API void inl_keyring_free(struct inl_keyring *ring);

/*
 * Add a raw master key, for all; adding it twice is fine. One that was removed is there again.
 *
 *   key    len bytes, INL_MASTER_KEY_MIN .. INL_MASTER_KEY_MAX; copied into secret memory
 *
 * Returns: 0; -EINVAL (length); -ENOMEM.
 */
INL_API int inl_keyring_add(struct inl_keyring *ring, const uint8_t *key, size_t len, struct inl_diag *diag);

/*
 * Keys that belong to users, as Linux has them. A key is there as long as somebody claims it, or it was added for all.
 * Taking it away has two phases, so that whoever keeps plaintext can write back and forget in between:
 *
 *   inl_keyring_unclaim   the last claim goes: the key is marked. -ENOKEY for what has not used it, for what is made, for
 *                         policies, and for names in directories, and targets of links, that nobody holds
 *                         (inl_inode_hold_key). Contents of files that have used it can still be read and written.
 *   inl_keyring_evict     all that nobody holds is locked, its keys and the master key are wiped.
 *
 * Adding the key again, at any time, takes it all back.
 */

/* Limits: users who claim one key; keys that one user claims (as kernel.keys.maxkeys; user 0 has none). */
#define INL_CLAIMS_PER_KEY_MAX	1024
#define INL_CLAIMS_PER_USER_MAX 200

/*
 * Add a raw master key as a user's: FS_IOC_ADD_ENCRYPTION_KEY. A user's second claim of a key is the first one.
 *
 *   key    as of inl_keyring_add
 *   uid    whoever it is to the caller
 *
 * Returns: 0; -EINVAL (length); -EDQUOT (limits); -ENOMEM.
 */
INL_API int inl_keyring_claim(struct inl_keyring *ring, const uint8_t *key, size_t len, uint32_t uid, struct inl_diag *diag);

/*
 * Drop a user's claim: FS_IOC_REMOVE_ENCRYPTION_KEY.
 *
 *   spec   of version 1: always for all, since Linux keeps no claims of such keys; whether the user may, the caller checks
 *   all    drop every claim, and what inl_keyring_add has added: FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS
 *   last   no claim is left: the key is marked; inl_keyring_evict comes next
 *
 * Returns: 0, with *last also of a key that is marked or incompletely removed: a retry; -ENOKEY (no such key; it is present
 *          and this user does not claim it); -EINVAL (version).
 */
INL_API int inl_keyring_unclaim(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid, bool all,
				bool *last);

/*
 * Mark a key, whoever claims it. Returns: 0; -ENOKEY (it is not present).
 */
INL_API int inl_keyring_remove(struct inl_keyring *ring, const struct inl_key_spec *spec);

/*
 * Evict a key that was marked: in all volumes opened with this ring, each inode that nobody holds loses its key. What is
 * under way with it is waited for; what comes later has -ENOKEY. Inodes that are held keep their keys: those are made ready,
 * and may be more than are ready otherwise. Then the master key is wiped, and when the last of those inodes is released,
 * the rest. If secret memory has no room for so many, the master key is wiped only then.
 *
 *   n_busy   inodes that are held; 0: the key is absent
 *
 * A key that was added again, before or meanwhile, is left alone, or what is left of it: 0 and *n_busy 0. So is one that is
 * not there. It may be repeated, and be called by several threads.
 *
 * Returns: 0; -EDEADLK (from a callback; nothing was done).
 * Threads: any without bios of its own under way, or contexts.
 */
INL_API int inl_keyring_evict(struct inl_keyring *ring, const struct inl_key_spec *spec, unsigned *n_busy);

enum inl_key_state { /* FSCRYPT_KEY_STATUS_* */
	INL_KEY_ABSENT = 1,
	INL_KEY_PRESENT = 2,
	INL_KEY_INCOMPLETELY_REMOVED = 3, /* marked, too */
};

struct inl_key_status {
	enum inl_key_state state;
	unsigned n_claims; /* of users */
	bool claimed;	   /* by the user who was asked for */
	bool given;	   /* added for all */
	unsigned n_busy;   /* inodes that are held */
};

/* FS_IOC_GET_ENCRYPTION_KEY_STATUS. Returns: 0 (also for an absent key); -EINVAL (version). */
INL_API int inl_keyring_status(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid,
			       struct inl_key_status *status);

/* Is there an inode that is held? Quick for a key that was evicted, however many there are. */
INL_API bool inl_keyring_busy(struct inl_keyring *ring, const struct inl_key_spec *spec);

/* Is the key present, and does this user claim it? A user who has not added a key may not set a policy with it. */
INL_API bool inl_keyring_claimed(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid);

/* The users who claim a key: at most max are filled in, as many as there are is returned. uids may be NULL with max 0. */
INL_API unsigned inl_keyring_claimants(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t *uids,
				       unsigned max);

/* As inl_keyring_spec, of all keys that are not absent: of i = 0, 1, ... until -ENOENT. */
INL_API int inl_keyring_known(struct inl_keyring *ring, unsigned i, int version, struct inl_key_spec *spec);

INL_API bool inl_keyring_has(struct inl_keyring *ring, const struct inl_key_spec *spec);

/* A ring that is NULL has no keys; the same below and above. */
INL_API unsigned inl_keyring_count(struct inl_keyring *ring);

/* The name of key i (0 .. count - 1) of those present, for policies of this version. Returns 0, -ENOENT or -EINVAL. */
INL_API int inl_keyring_spec(struct inl_keyring *ring, unsigned i, int version, struct inl_key_spec *spec);

/*
 * The nonce of an inode of a volume that is to come out the same, byte for byte, whenever it is made of the same things:
 * HKDF-SHA512 of the master key, with information that fscrypt does not use, cut to 16 bytes. It is secret from those
 * without the key what a nonce was made of, and who changes a file changes its nonce.
 *
 *   who       SHA-256 of all that says which inode of which volume it is
 *   contents  SHA-256 of what will be encrypted under this nonce
 *
 * Returns: 0; -ENOKEY (the ring has no such key); -EIO.
 */
INL_API int inl_nonce_derive(struct inl_keyring *ring, const struct inl_key_spec *spec, const uint8_t who[32],
			     const uint8_t contents[32], uint8_t nonce[INL_FILE_NONCE_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
