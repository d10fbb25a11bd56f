/*
 * protect/private.h: what the files of this folder share: stores, messages, wrapping, Argon2id, recovery codes.
 * Not here: what callers see (inlay/protect.h).
 * Read more: github.com/google/fscrypt.
 */
#ifndef INLAY_PROTECT_PRIVATE_H
#define INLAY_PROTECT_PRIVATE_H

#include <inlay/protect.h>
#include <metadata.pb-c.h>
#include <stdio.h>
#include <sys/stat.h>

#define INL_META_MAX  16384 /* bytes of a file; fscrypt reads no more */
#define INL_SALT_SIZE 16
#define INL_IV_SIZE   16
#define INL_MAC_SIZE  32

/* ---- stores ------------------------------------------------------------------------------------------------------ */

enum inl_meta_dir { INL_META_POLICIES, INL_META_PROTECTORS };
extern const char *const inl_meta_dir_names[2];
#define INL_META_BASE	".fscrypt"
#define INL_META_TEMP	".tmp"
#define INL_META_SUFFIX ".link"

/* Of a file. */
struct inl_meta_owner {
	uint32_t uid, gid;
	uint32_t mode; /* permissions */
};

/* Names are without '/'. Errors: negative errno; -ENOENT where there is no such name, or no .fscrypt at all. */
struct inl_store_ops {
	/* Call each for every name; not for "." and "..". */
	int (*list)(void *at, enum inl_meta_dir dir, int (*each)(const char *name, void *arg), void *arg,
		    struct inl_diag *diag);

	/* A regular file: at most INL_META_MAX + 1 bytes are read. */
	int (*read)(void *at, enum inl_meta_dir dir, const char *name, uint8_t *buf, size_t *len,
		    struct inl_meta_owner *owner, struct inl_diag *diag);

	/*
	 * Write a file, durably and in one step: under a name that begins with INL_META_TEMP first. Makes .fscrypt.
	 *
	 *   owner   NULL: a new file
	 */
	int (*write)(void *at, enum inl_meta_dir dir, const char *name, const uint8_t *data, size_t len,
		     const struct inl_meta_owner *owner, struct inl_diag *diag);
	int (*remove)(void *at, enum inl_meta_dir dir, const char *name, struct inl_diag *diag); /* durably */

	/* Keep other writers out, of which each waits for a while. NULL: there are none. -ETIMEDOUT. */
	int (*lock)(void *at, struct inl_diag *diag);
	void (*unlock)(void *at);
	void (*close)(void *at);
};

#define INL_META_DIR_MODE  0755u
#define INL_META_FILE_MODE 0600u

/* ".tmp" and random digits. -EIO. */
#define INL_TEMP_SIZE 24
int inl_meta_temp(char name[INL_TEMP_SIZE]);

/* Random bytes, from the kernel straight to where they are kept. -EIO. */
int inl_protect_random(void *bytes, size_t len);
extern const struct inl_store_ops inl_store_volume, inl_store_dir;

#define INL_PLACES_MAX 16

struct inl_protect {
	const struct inl_store_ops *ops;
	void *at;
	struct inl_protect *places[INL_PLACES_MAX]; /* where linked protectors are looked for */
	unsigned n_places;
};

/*
 * What changes metadata has the lock from the first that it reads to the last that it writes: what it decided by is
 * still so. Not taken twice.
 */
int inl_protect_lock(struct inl_protect *protect, struct inl_diag *diag);
void inl_protect_unlock(struct inl_protect *protect);

/* Read a file of metadata, which must be of a size that makes sense. buf: INL_META_MAX + 1 bytes. */
int inl_metadata_read(struct inl_protect *protect, enum inl_meta_dir dir, const char *name, uint8_t *buf, size_t *len,
		  struct inl_meta_owner *owner, struct inl_diag *diag);

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/*
 * Parse and check what a file has.
 *
 *   id    the name of the file: the descriptor that must be in it
 *   out   for inl_meta_protector_free, inl_meta_policy_free
 *
 * Returns: 0; -EUCLEAN with the reason in *diag; -ENOMEM.
 */
int inl_meta_protector(const uint8_t *data, size_t len, const char *id, struct inl_diag *diag, Inl__Meta__Protector **out);
int inl_meta_policy(const uint8_t *data, size_t len, const char *id, struct inl_diag *diag, Inl__Meta__Policy **out);
void inl_meta_protector_free(Inl__Meta__Protector *protector); /* NULL is fine */
void inl_meta_policy_free(Inl__Meta__Policy *policy);

/* Only 16 hex digits, small ones, as fscrypt writes them; 32 of a version 2 policy. */
bool inl_meta_is_id(const char *id, size_t len);

enum inl_protector_kind inl_meta_kind(const Inl__Meta__Protector *protector);

/* What is said of a policy, in our words. */
void inl_meta_describe_policy(const Inl__Meta__Policy *policy, struct inl_policy_info *info);

/* The costs as they count: fscrypt once cut lanes down to 8 bits. */
struct inl_hash_costs inl_meta_costs(const Inl__Meta__Costs *costs);

/*
 * Read and check a protector, here or, if it is linked, in another place.
 *
 *   info   filled in as far as it is known; may be NULL
 */
int inl_meta_load_protector(struct inl_protect *protect, const char *id, struct inl_protector_info *info,
			    struct inl_diag *diag, Inl__Meta__Protector **out);
int inl_meta_load_policy(struct inl_protect *protect, const char *id, struct inl_diag *diag, Inl__Meta__Policy **out);

/*
 * Read a protector of this very store, with the owner of its file.
 *
 * Returns: also -ENOLINK: it is linked.
 */
int inl_meta_load_own(struct inl_protect *protect, const char *id, struct inl_meta_owner *owner, struct inl_diag *diag,
		      Inl__Meta__Protector **out);

/* The key that wraps a protector's, of what a person has: inl_protector_open's errors. by: secret memory. */
int inl_protector_wrapping(const Inl__Meta__Protector *meta, const void *secret, size_t len,
			   const struct inl_hash_limits *limits, struct inl_diag *diag, uint8_t by[INL_PROTECTOR_KEY_SIZE]);

const Inl__Meta__Wrapped *inl_meta_find_wrapped(const Inl__Meta__Policy *policy, const char *id);

/* ---- wrapping ---------------------------------------------------------------------------------------------------- */

/*
 * Wrap a key: AES-256-CTR with an HMAC-SHA256, both keys made of one by HKDF-SHA256.
 *
 *   by        INL_PROTECTOR_KEY_SIZE bytes
 *   iv        INL_IV_SIZE bytes, never used with this key before
 *   key       len bytes, at most INL_POLICY_KEY_SIZE
 *   sealed    len bytes
 *
 * Returns: 0; -EIO; -ENOMEM.
 */
int inl_seal(const uint8_t *by, const uint8_t *iv, const uint8_t *key, size_t len, uint8_t *sealed, uint8_t mac[INL_MAC_SIZE]);

/* The other way round. -EKEYREJECTED: wrapped by another key, or damaged; key is untouched then. */
int inl_unseal(const uint8_t *by, const Inl__Meta__Wrapped *wrapped, size_t len, uint8_t *key);

/* ---- passphrases ------------------------------------------------------------------------------------------------- */

/* Are these costs within the limits? 0; -E2BIG, with the limit in *diag. */
int inl_hash_check(const struct inl_hash_costs *costs, const struct inl_hash_limits *limits, struct inl_diag *diag);

/*
 * Argon2id, version 1.3. What it worked in is wiped.
 *
 *   out   INL_PROTECTOR_KEY_SIZE bytes
 *
 * Returns: 0; -EINVAL; -ENOMEM.
 */
int inl_hash(const void *secret, size_t len, const uint8_t salt[INL_SALT_SIZE], const struct inl_hash_costs *costs,
	     uint8_t *out);

/* What this process may have of memory, in bytes: of the machine and of the control groups below root (""). */
uint64_t inl_memory_here(const char *root);

/* An unlocked protector; secret memory. */
struct inl_protector {
	uint8_t key[INL_PROTECTOR_KEY_SIZE];
	char id[INL_PROTECTOR_ID_SIZE];
};

/* ---- recovery codes ---------------------------------------------------------------------------------------------- */

#define INL_CODE_GROUPS 7
#define INL_CODE_GROUP	6						/* symbols; the last two check the others */
#define INL_CODE_SIZE	(INL_CODE_GROUPS * (INL_CODE_GROUP + 1))	/* with what divides the groups, and a NUL */
#define INL_CODE_RANDOM (INL_CODE_GROUPS * (INL_CODE_GROUP - 2))	/* bytes of which five bits each are used */

/* Write a code as it is printed, and as it is hashed: groups with hyphens between. */
void inl_code_make(const uint8_t random[INL_CODE_RANDOM], char code[INL_CODE_SIZE]);

/*
 * Read a code as people type it: any case, any blanks and hyphens, O for 0, I and L for 1.
 *
 *   code   secret memory
 *
 * Returns: 0; -EINVAL: *diag names the group.
 */
int inl_code_parse(const char *text, size_t len, struct inl_diag *diag, char code[INL_CODE_SIZE]);

/* Has it as many symbols as a code has, and nothing else? */
bool inl_code_has_shape(const char *text, size_t len);

#endif
