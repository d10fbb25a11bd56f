/*
 * fscrypt/shared.c: keys that several inodes use: DIRECT_KEY, IV_INO_LBLK_64, IV_INO_LBLK_32.
 * Not here: keys of single files (cache.c); how a key is derived (info.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "DIRECT_KEY policies" and what follows it.
 *
 * There are few of them, so they stay when nobody uses them, until their master key goes or the file system.
 */
#include "fscrypt/keyring.h"
#include "fscrypt/private.h"
#include <errno.h>
#include <stdlib.h>

/* What inodes must have in common. lock: of the ring; but for two fields nothing changes */
struct inl_shared_key {
	struct inl_shared_key *next; /* of the same master key */
	unsigned n_users;	     /* inodes */
	struct inl_master_key *master;
	struct inl_fscrypt *fs;
	uint8_t version; /* of the policy */
	uint8_t mode;
	enum inl_iv_method method;
	bool names;
	unsigned unit_bits; /* contents only */
	struct inl_ready_key key;
};

static uint8_t mode_of(const struct inl_crypt_info *info)
{
	return info->kind == INL_CRYPT_REG ? info->policy.contents_mode : info->policy.filenames_mode;
}

static bool shares(const struct inl_shared_key *shared, const struct inl_crypt_info *info)
{
	bool names = info->kind != INL_CRYPT_REG;

	return shared->fs == info->fs && shared->version == info->policy.version && shared->mode == mode_of(info) &&
	       shared->method == info->method && shared->names == names && (names || shared->unit_bits == info->unit_bits);
}

/* One more user of the one that is there, or NULL. */
static struct inl_shared_key *find(const struct inl_crypt_info *info, const struct inl_master_key *master)
{
	struct inl_keyring *ring = info->fs->ring;
	struct inl_shared_key *shared;

	pthread_mutex_lock(&ring->lock);
	for (shared = master->shared; shared; shared = shared->next)
		if (shares(shared, info))
			break;
	if (shared)
		shared->n_users++;
	pthread_mutex_unlock(&ring->lock);
	return shared;
}

static int make(const struct inl_crypt_info *info, struct inl_master_key *master, struct inl_shared_key **out,
		struct inl_diag *diag)
{
	struct inl_shared_key *shared = calloc(1, sizeof(*shared));
	int rc;

	if (!shared)
		return inl_diag_set(diag, -ENOMEM, "no memory left for the key of inode %llu", (unsigned long long)info->ino);
	shared->n_users = 1;
	shared->master = master;
	shared->fs = info->fs;
	shared->version = info->policy.version;
	shared->mode = mode_of(info);
	shared->method = info->method;
	shared->names = info->kind != INL_CRYPT_REG;
	shared->unit_bits = info->unit_bits;
	rc = inl_crypt_info_make_key(info, master, &shared->key, diag);
	if (rc) {
		free(shared);
		return rc;
	}
	pthread_mutex_lock(&info->fs->ring->lock);
	shared->next = master->shared;
	master->shared = shared;
	pthread_mutex_unlock(&info->fs->ring->lock);
	*out = shared;
	return 0;
}

int inl_shared_key_get(const struct inl_crypt_info *info, struct inl_master_key *master, struct inl_shared_key **out,
		       struct inl_diag *diag)
{
	struct inl_shared_key *shared;
	int rc = 0;

	pthread_mutex_lock(&info->fs->lock);
	shared = find(info, master);
	if (!shared)
		rc = make(info, master, &shared, diag);
	pthread_mutex_unlock(&info->fs->lock);
	if (!rc)
		*out = shared;
	return rc;
}

struct inl_ready_key inl_shared_key_of(const struct inl_shared_key *shared)
{
	return shared->key;
}

static void end(struct inl_shared_key *shared, struct inl_endings *endings)
{
	struct inl_shared_key **at;

	for (at = &shared->master->shared; *at != shared; at = &(*at)->next)
		;
	*at = shared->next;
	inl_endings_add(endings, shared->fs, shared->master, shared->key, false);
	free(shared);
}

/* In a callback it cannot be ended: then the next eviction does it. */
void inl_shared_key_put(struct inl_shared_key *shared, struct inl_endings *endings)
{
	if (--shared->n_users == 0 && shared->master->state == INL_MASTER_REMOVED && inl_may_wait())
		end(shared, endings);
}

bool inl_shared_keys_sweep(struct inl_master_key *master, const struct inl_fscrypt *fs, struct inl_endings *endings)
{
	struct inl_shared_key *shared, *next;

	for (shared = master->shared; shared; shared = next) {
		next = shared->next;
		if (fs ? shared->fs != fs : shared->n_users > 0)
			continue;
		if (endings->n == INL_ENDINGS_MAX)
			return false;
		end(shared, endings);
	}
	return true;
}
