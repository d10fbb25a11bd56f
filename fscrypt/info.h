/*
 * fscrypt/info.h: one encrypted inode: its keys, its IVs, the names in it. For file systems.
 * Not here: where the context is stored, how blocks are found: a file system's business. No I/O.
 * Read more: Linux Documentation/filesystems/fscrypt.rst.
 */
#ifndef INLAY_FSCRYPT_INFO_H
#define INLAY_FSCRYPT_INFO_H

#include <inlay/block.h>
#include <inlay/fscrypt.h>

#define INL_FNAME_MAX	255 /* bytes: stored (encrypted) and real names */
#define INL_FNAME_MIN	16  /* bytes: no stored name is shorter */
#define INL_NOKEY_RAW_MAX 189 /* bytes: hashes, 149 bytes of ciphertext, SHA-256 of the rest */
#define INL_NOKEY_NAME_MAX 252 /* characters: base64url of that */
#define INL_CONTEXT_SIZE_MAX 40

/*
 * A policy and a nonce as they lie in the xattr: the inverse of inl_policy_from_context.
 *
 * Returns: bytes: 28 (version 1) or 40.
 */
size_t inl_policy_to_context(const struct inl_policy *policy, const uint8_t nonce[INL_FILE_NONCE_SIZE],
			     uint8_t context[INL_CONTEXT_SIZE_MAX]);

/* The encryption of one file system: what its inodes share. */
struct inl_fscrypt;

struct inl_fscrypt_params {
	struct inl_dev *dev;	   /* keys are started here */
	struct inl_keyring *keys;  /* may be NULL */
	uint8_t uuid[16];	   /* of the superblock: IV_INO_LBLK keys are bound to it */
	struct inl_policy_traits traits;
	unsigned max_file_keys;	   /* keys of single files that are ready at once; 0: 512. Those in use may be more */
};

int inl_fscrypt_new(const struct inl_fscrypt_params *params, struct inl_fscrypt **out);

/*
 * Evicts the keys that files shared. All infos must be freed. Waits for evictions of other threads. Not from a callback.
 * NULL is fine.
 */
void inl_fscrypt_free(struct inl_fscrypt *fs);

enum inl_crypt_kind { INL_CRYPT_REG, INL_CRYPT_DIR, INL_CRYPT_LNK };

/* The encryption of one inode. */
struct inl_crypt_info;

/*
 * Parse an inode's context. No key is needed yet.
 *
 *   context   len bytes, as in the xattr
 *
 * Returns: 0; -EINVAL (context does not parse); -ENOMEM.
 */
int inl_crypt_info_new(struct inl_fscrypt *fs, uint64_t ino, enum inl_crypt_kind kind, bool casefold, const void *context,
		       size_t len, struct inl_crypt_info **out);

/*
 * Evicts the inode's own key; in a callback, where that cannot be, a later call for the same file system does. No context
 * may be out. NULL is fine.
 */
void inl_crypt_info_free(struct inl_crypt_info *info);

/*
 * The inode number is known only now: of an inode that is being made, which nobody else can see. Unlocked before or
 * after.
 */
void inl_crypt_info_set_ino(struct inl_crypt_info *info, uint64_t ino);

const struct inl_policy *inl_crypt_info_policy(const struct inl_crypt_info *info);
const uint8_t *inl_crypt_info_nonce(const struct inl_crypt_info *info);
uint32_t inl_crypt_info_unit_size(const struct inl_crypt_info *info); /* bytes */

/*
 * Have the key ready: contents key started on the device (regular files), names key (directories, symlinks). Once that
 * has succeeded the inode counts as unlocked. Its own key may go when other inodes need room for theirs; it is then
 * derived again when it is needed. Cheap for an unlocked inode; tried again while the key is missing.
 *
 * Returns: 0; -ENOKEY (no such master key, or one too short for the mode); -ENOPKG (cipher not available); -EINVAL (a policy
 *          that Linux would not accept); -ENOMEM; -EIO.
 */
int inl_crypt_info_unlock(struct inl_crypt_info *info, struct inl_diag *diag);

/*
 * Unlock, and have the key stay until release, also when the master key is removed and evicted. Counted. The last release of
 * an inode whose master key was evicted ends its key, and what else was kept for it, before it returns (in a callback:
 * leaves that to the next eviction). An inode is released before it is freed.
 *
 * Returns: as inl_crypt_info_unlock; -ENOKEY also if the master key is being removed and nobody else holds the inode.
 * Threads: any that may wait, with no context out.
 */
int inl_crypt_info_hold(struct inl_crypt_info *info, struct inl_diag *diag);

/* The same for what one operation does in several steps: also contents of which a master key is being removed. */
int inl_crypt_info_hold_on(struct inl_crypt_info *info, struct inl_diag *diag);
void inl_crypt_info_release(struct inl_crypt_info *info);

/* Is the policy one of those that there are? 0; -EINVAL. */
int inl_fscrypt_policy_valid(struct inl_fscrypt *fs, const struct inl_policy *policy, bool casefold,
			     struct inl_diag *diag);

/*
 * Could inodes with this policy be written here? Looked at before a directory gets it: the policy itself, the ciphers of
 * contents and names, and, of version 2 policies, the master key (Linux wants it to have been added for those alone).
 *
 * Returns: 0; -EINVAL; -ENOKEY (not there, or too short); -ENOPKG (naming the cipher); -ENOMEM; -EIO.
 */
int inl_fscrypt_policy_ready(struct inl_fscrypt *fs, const struct inl_policy *policy, bool casefold,
			     struct inl_diag *diag);

/*
 * Get the crypt context of a regular file at a block. Unlocks, or derives the key again, if need be. The key stays
 * ready until the context is put. Put it when the I/O is done and not before: otherwise a thread that evicts the key may
 * wait for this I/O while this thread waits for the eviction.
 *
 *   lblk       logical block of the file
 *   n_blocks   in: how many blocks are wanted; out: how many the context covers (IV_INO_LBLK_32 wraps)
 *
 * Returns: 0, or as inl_crypt_info_unlock, before any I/O.
 * Threads: any. No lock if the key is ready. To make room it may evict another inode's key. From a callback it evicts
 *          none and goes beyond the limit, until secret memory is full (-ENOMEM): who does all in callbacks calls
 *          inl_crypt_info_unlock of some inode outside one now and then.
 */
int inl_crypt_info_ctx(struct inl_crypt_info *info, uint64_t lblk, uint64_t *n_blocks, struct inl_crypt_ctx *ctx,
		       struct inl_diag *diag);
void inl_crypt_info_ctx_put(struct inl_crypt_info *info);

/* The IV of data unit `index` as a DUN. Exposed for tests; needs an unlocked info for IV_INO_LBLK_32. */
void inl_crypt_info_dun(const struct inl_crypt_info *info, uint64_t index, uint64_t dun[4]);

/* ---- names: of an unlocked directory or symlink --------------------------------------------------------------------- */

/*
 * Stored length of a real name: at least 16, padded as the policy says, at most max.
 *
 * Returns: false if len > max.
 */
bool inl_fname_stored_len(const struct inl_policy *policy, size_t len, size_t max, size_t *stored);

/*
 * Encrypt a name.
 *
 *   name     len bytes, no NUL
 *   stored   of inl_fname_stored_len
 *   out      stored bytes
 *
 * Returns: 0; -ENOKEY (not unlocked); -EINVAL; -EIO; -ENOMEM.
 */
int inl_fname_encrypt(struct inl_crypt_info *dir, const void *name, size_t len, size_t stored, uint8_t *out);

/*
 * Decrypt a stored name and cut it at its first NUL.
 *
 *   stored   len bytes, at least 16
 *   out      len bytes
 *
 * Returns: 0; -ENOKEY; -EUCLEAN (shorter than 16); -EIO; -ENOMEM. Whether the result is a possible name ('/', empty) the
 *          caller checks.
 */
int inl_fname_decrypt(struct inl_crypt_info *dir, const uint8_t *stored, size_t len, void *out, size_t *out_len);

/* ---- no-key names: need no info -------------------------------------------------------------------------------------- */

/*
 * What Linux shows for a stored name when the key is absent: base64url without '=' of hash, minor hash, ciphertext.
 *
 *   hash, minor   of the htree (0, 0 where Linux has none: linear directories, symlinks)
 *   stored        len bytes; symlinks may be longer than names
 *   out           INL_NOKEY_NAME_MAX bytes; not NUL-terminated
 *
 * Returns: 0; -EUCLEAN (shorter than 16); -EIO.
 */
int inl_nokey_encode(uint32_t hash, uint32_t minor, const uint8_t *stored, size_t len, char *out, size_t *out_len);

/* A no-key name, taken apart. */
struct inl_nokey {
	uint32_t hash, minor;
	size_t len;	      /* of bytes */
	bool truncated;	      /* bytes are the first 149 only; sha256 is of the rest */
	uint8_t bytes[157];
	uint8_t sha256[32];
};

/* Returns: 0; -ENOENT (not a no-key name: wrong characters or lengths). */
int inl_nokey_decode(const char *name, size_t len, struct inl_nokey *nokey);

/* Is this the stored name that the no-key name stands for? */
bool inl_nokey_match(const struct inl_nokey *nokey, const uint8_t *stored, size_t len);

/* ---- symlink targets ------------------------------------------------------------------------------------------------- */

/*
 * Encode a target as it is stored: le16 length, ciphertext; i_size of the symlink is *out_len.
 *
 *   info    unlocked
 *   target  len bytes, no NUL
 *   size    of the file system block: a NUL has to have room in it, too
 *   out     size bytes
 *
 * Returns: 0; -ENAMETOOLONG; -EINVAL (a NUL); -ENOKEY; -EIO; -ENOMEM.
 */
int inl_symlink_encode(struct inl_crypt_info *info, const char *target, size_t len, size_t size, uint8_t *out,
		       size_t *out_len);

/*
 * Decode what a symlink stores: le16 length, ciphertext. With the key the target, without it the no-key form.
 *
 *   raw   len bytes, i_size of the symlink
 *   out   size bytes
 *
 * Returns: 0; -EUCLEAN (lengths do not fit, or an empty target); -ERANGE (size too small); -ENOPKG; -EINVAL; -EIO; -ENOMEM.
 */
int inl_symlink_decode(struct inl_crypt_info *info, const uint8_t *raw, size_t len, char *out, size_t size,
		       size_t *out_len, struct inl_diag *diag);

#endif
