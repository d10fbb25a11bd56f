/*
 * inlay/protect.h: keys behind passphrases: the metadata of the tool fscrypt, on a volume or in a directory.
 * Not here: what the keys are good for (inlay/fscrypt.h); asking a person (the caller).
 * Read more: doc/inlay.1, "PASSPHRASES"; github.com/google/fscrypt, metadata/metadata.proto.
 *
 * In a library of its own, libinlay-protect: who only has raw keys needs neither Argon2 nor protobuf.
 *
 * A policy's key (64 bytes) is wrapped by the keys of protectors (32 bytes), as often as there are protectors for it. A
 * protector's key is wrapped by what a person has: a passphrase through Argon2id, or a file of 32 bytes. It all lies in
 * .fscrypt/policies and .fscrypt/protectors at the root of the file system.
 */
#ifndef INLAY_PROTECT_H
#define INLAY_PROTECT_H

#include <inlay/fscrypt.h>
#include <inlay/volume.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INL_POLICY_KEY_SIZE    64 /* bytes: what fscrypt makes, and no other */
#define INL_PROTECTOR_KEY_SIZE 32
#define INL_PROTECTOR_ID_SIZE  17   /* 16 hex digits and a NUL */
#define INL_PASSPHRASE_MAX     4096 /* bytes; they are taken as they are: neither case nor encoding is changed */

/* ---- the store --------------------------------------------------------------------------------------------------- */

/* The metadata of one file system. Threads: one at a time. */
struct inl_protect;

/*
 * On a volume.
 *
 *   vol   remains the caller's, and outlives the store; its .fscrypt need not be there
 *
 * Owners mean nothing here: who has the volume has all of it. Only a login protector must belong to root or to the user
 * that it names, as fscrypt wants it.
 */
INL_API int inl_protect_open_volume(struct inl_volume *vol, struct inl_diag *diag, struct inl_protect **out);

/*
 * In the running system.
 *
 *   root   the directory that has .fscrypt in it: where a file system is mounted
 *
 * What belongs neither to root nor to the user is refused, unless the user is root, as in fscrypt. Symbolic links are not
 * followed, except .fscrypt itself; and nothing is written where one, or a mount, leads to another file system: -EXDEV.
 *
 * Returns: 0 (also if there is no .fscrypt); -ENOENT, -EACCES, ...
 */
INL_API int inl_protect_open_dir(const char *root, struct inl_diag *diag, struct inl_protect **out);
INL_API void inl_protect_close(struct inl_protect *protect); /* NULL is fine */

/*
 * Where linked protectors are to be looked for: another directory that has .fscrypt in it. May be repeated, 16 times.
 *
 * Returns: as inl_protect_open_dir; -ENOSPC.
 */
INL_API int inl_protect_add_place(struct inl_protect *protect, const char *root, struct inl_diag *diag);

/* ---- what there is ----------------------------------------------------------------------------------------------- */

enum inl_protector_kind {
	INL_PROTECTOR_LOGIN = 1,      /* the password of a user; checked by nobody but the wrapped key itself */
	INL_PROTECTOR_PASSPHRASE = 2, /* fscrypt's custom_passphrase */
	INL_PROTECTOR_RAW_KEY = 3,    /* 32 bytes */
	INL_PROTECTOR_RECOVERY = 4,   /* a code made by Inlay: to fscrypt, a passphrase */
};

/* What a person has to be asked for. */
static inline bool inl_protector_is_typed(enum inl_protector_kind kind)
{
	return kind != INL_PROTECTOR_RAW_KEY;
}

/* Of Argon2id. */
struct inl_hash_costs {
	uint64_t time;	      /* passes */
	uint64_t memory;      /* KiB */
	uint64_t parallelism; /* lanes */
};

struct inl_protector_info {
	char id[INL_PROTECTOR_ID_SIZE];
	enum inl_protector_kind kind;
	char name[256];	 /* "" for one that has none; bytes as they were stored, up to so many */
	int64_t uid;	 /* LOGIN */
	struct inl_hash_costs costs; /* of what is typed */
	bool linked;	 /* lies in another place */
	char link[256];	 /* where: the first line of the link, such as "UUID=..."; or "" */
	int status;	 /* 0; -ENOLINK (linked, and in no place that was added); -EUCLEAN, -EACCES, ...; then only id is known */
	struct inl_diag why; /* of a status */
};

/*
 * The protectors, by id.
 *
 *   each   a non-zero return ends the walk and is returned
 *
 * Returns: 0; -ENOENT (no .fscrypt); -EIO, ... of the directory.
 */
INL_API int inl_protectors(struct inl_protect *protect, int (*each)(const struct inl_protector_info *info, void *arg),
			   void *arg, struct inl_diag *diag);

/* One of them. -ENOENT; else info->status, also where it is not 0: then with what is known. */
INL_API int inl_protector_info(struct inl_protect *protect, const char *id, struct inl_protector_info *info,
			       struct inl_diag *diag);

#define INL_PROTECTORS_MAX 116 /* of one policy: more do not go into a file */

struct inl_policy_info {
	struct inl_policy policy;
	int status;	     /* 0; -EUCLEAN, -EACCES, ...: only policy.key is known */
	struct inl_diag why;
	unsigned n_protectors;
	char protectors[INL_PROTECTORS_MAX][INL_PROTECTOR_ID_SIZE];
};

/* The policies that have metadata, by name. As inl_protectors. */
INL_API int inl_protected(struct inl_protect *protect, int (*each)(const struct inl_policy_info *info, void *arg), void *arg,
			  struct inl_diag *diag);
INL_API int inl_protected_info(struct inl_protect *protect, const struct inl_key_spec *key, struct inl_policy_info *info,
			       struct inl_diag *diag);

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* What a protector from somebody else may cost here. 0: INL_HASH_MEMORY_MAX. */
struct inl_hash_limits {
	uint64_t memory; /* KiB */
};
#define INL_HASH_MEMORY_MAX 131072u /* KiB: fscrypt makes no more by itself */
#define INL_HASH_TIME_MAX   10000u  /* passes */
#define INL_HASH_WORK_MAX   512u    /* passes over all the memory that is allowed */
#define INL_HASH_LANES_MAX  255u

/* A protector's key, in secret memory. */
struct inl_protector;
INL_API void inl_protector_free(struct inl_protector *protector); /* wipes; NULL is fine */
INL_API const char *inl_protector_id(const struct inl_protector *protector);

/*
 * Open a protector. Takes as long as its costs say.
 *
 *   secret   len bytes: the passphrase without a line feed, at most INL_PASSPHRASE_MAX; the code, or the passphrase that
 *            the tool fscrypt has put in its place; the key
 *   limits   NULL: the usual ones
 *
 * Returns: 0; -EKEYREJECTED (the secret is wrong); -EINVAL (a code that is mistyped, with the group; a key that has not 32
 *          bytes; too long); -E2BIG (it would cost more than the limits, by name); -ENOLINK (it lies elsewhere); -ENOENT;
 *          -EUCLEAN; -EACCES; -ENOMEM; -EIO.
 */
INL_API int inl_protector_open(struct inl_protect *protect, const char *id, const void *secret, size_t len,
			       const struct inl_hash_limits *limits, struct inl_diag *diag, struct inl_protector **out);

/*
 * The key of a policy.
 *
 *   key    in secret memory
 *
 * Returns: 0; -ENOKEY (not protected by this); -EUCLEAN (damaged; or what is wrapped is not this policy's key); -ENOENT; -EIO.
 */
INL_API int inl_protector_key(struct inl_protect *protect, const struct inl_protector *protector,
			      const struct inl_key_spec *policy, struct inl_diag *diag, uint8_t key[INL_POLICY_KEY_SIZE]);

/* ---- making and changing ----------------------------------------------------------------------------------------- */

/*
 * Each of these is durable when it returns, and happens whole or not at all: a file is written under another name, which
 * then takes the place of the old one. Owner and permissions of what is replaced are kept; what is new belongs to whom the
 * root directory of the volume belongs to, or to the user who makes it in a directory. The first makes .fscrypt, too. Fields
 * that Inlay does not know are kept. In a directory each has a lock (flock on the root directory) from the first that
 * it reads to the last that it writes: two at a time do not spoil each other's work.
 *
 * Returns: also -EROFS, -ENOSPC, -EACCES; -ETIMEDOUT (another has had the lock for 30 s).
 */

/* Costs that take about so long here, within an eighth of the memory that there is for this process, and 128 MiB. */
INL_API int inl_hash_costs_here(uint64_t target_ns, struct inl_hash_costs *costs);

#define INL_RECOVERY_CODE_SIZE 49 /* seven groups of six signs, hyphens between, and a NUL */

/* Make a recovery code: 140 random bits. code: secret memory. -EIO. */
INL_API int inl_recovery_code(char code[INL_RECOVERY_CODE_SIZE]);

struct inl_protector_new {
	enum inl_protector_kind kind; /* not LOGIN */
	const char *name;	      /* UTF-8, 1 to 255 bytes, no control characters, not 16 hex digits; of no other */
	struct inl_hash_costs costs;  /* of what is typed; within the limits that are usual when it is opened */
};

/*
 * Make a protector, which protects nothing yet.
 *
 *   secret   as of inl_protector_open; not empty
 *
 * Returns: 0; -EEXIST (the name); -EINVAL (secret, name, kind); -E2BIG (costs); -ENOMEM; -EIO.
 */
INL_API int inl_protector_make(struct inl_protect *protect, const struct inl_protector_new *what, const void *secret,
			       size_t len, struct inl_diag *diag, struct inl_protector **out);

/*
 * Give an open protector another secret; what it protects is not touched.
 *
 *   costs    NULL: those that it has; others as of a new one
 *
 * Returns: also -E2BIG; -ENOLINK (it lies in another place: to be changed there).
 */
INL_API int inl_protector_change(struct inl_protect *protect, const struct inl_protector *protector, const void *secret,
				 size_t len, const struct inl_hash_costs *costs, struct inl_diag *diag);

/*
 * Remove a protector, first from the policies that it protects. Those of other users, in a directory, which this one may
 * not read, are left as they are.
 *
 * Returns: 0; -EBUSY (it is the last one of a policy, which *diag names; nothing is changed); -ENOENT.
 */
INL_API int inl_protector_remove(struct inl_protect *protect, const char *id, struct inl_diag *diag);

/*
 * Write down a policy's key, wrapped by one protector: for a new policy, before any directory has it.
 *
 *   key   INL_POLICY_KEY_SIZE bytes, whose name is policy->key
 *
 * Returns: 0; -EEXIST (it has metadata); -EOPNOTSUPP (fscrypt has no place for such a policy: data units, IV methods);
 *          -EINVAL; -ENOENT (the protector was removed meanwhile).
 */
INL_API int inl_protected_make(struct inl_protect *protect, const struct inl_policy *policy, const uint8_t *key,
			       const struct inl_protector *protector, struct inl_diag *diag);

/* Take that back, when no directory has it. */
INL_API int inl_protected_remove(struct inl_protect *protect, const struct inl_key_spec *policy, struct inl_diag *diag);

/*
 * Have another protector for a policy, too; fine if it has it already.
 *
 *   by     has it
 *   more   is to have it
 *
 * Returns: also as inl_protector_key; -ENOSPC (INL_PROTECTORS_MAX); -ENOENT (it was removed meanwhile).
 */
INL_API int inl_protected_add(struct inl_protect *protect, const struct inl_key_spec *policy, const struct inl_protector *by,
			      const struct inl_protector *more, struct inl_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
