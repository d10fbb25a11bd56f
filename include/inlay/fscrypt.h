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
 * Threads: adding and looking up are safe from any thread.
 */
struct inl_keyring;
INL_API int inl_keyring_new(struct inl_keyring **out);

/* Frees the ring and wipes its keys. Every volume opened with it must be closed. NULL is fine. */
INL_API void inl_keyring_free(struct inl_keyring *ring);

/*
 * Add a raw master key; adding it twice is fine.
 *
 *   key    len bytes, INL_MASTER_KEY_MIN .. INL_MASTER_KEY_MAX; copied into secret memory
 *
 * Returns: 0; -EINVAL (length); -ENOMEM.
 */
INL_API int inl_keyring_add(struct inl_keyring *ring, const uint8_t *key, size_t len, struct inl_diag *diag);

/*
 * Remove a key: from now on it is not there for inodes that have not used it, nor for what is made (-ENOKEY). Inodes that
 * have used it go on until they are put. Its bytes are wiped with the ring, not before. Adding it again takes that back.
 *
 * Returns: 0; -ENOKEY.
 */
INL_API int inl_keyring_remove(struct inl_keyring *ring, const struct inl_key_spec *spec);

INL_API bool inl_keyring_has(struct inl_keyring *ring, const struct inl_key_spec *spec);

/* A ring that is NULL has no keys; the same below and above. */
INL_API unsigned inl_keyring_count(struct inl_keyring *ring);

/* The name of key i (0 .. count - 1) for policies of this version. Returns 0, -ENOENT or -EINVAL. */
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
