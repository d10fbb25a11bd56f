/*
 * fscrypt/info.c: one encrypted inode: find its master key, derive its key or share one, make its IVs.
 * Not here: which policies are valid (policy.c), master keys (keyring.c), names (fname.c), how keys end (evict.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Per-file encryption keys" and what follows it.
 */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/hash.h"
#include "fscrypt/keyring.h"
#include "fscrypt/private.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define KEYS_NAMED_MAX 3 /* how many of the keys that were given a message lists */

int inl_fscrypt_new(const struct inl_fscrypt_params *params, struct inl_fscrypt **out)
{
	struct inl_fscrypt *fs = calloc(1, sizeof(*fs));
	int rc = 0;

	if (!fs)
		return -ENOMEM;
	fs->params = *params;
	fs->ring = params->keys;
	if (!fs->ring)
		rc = inl_keyring_new(&fs->ring);
	if (rc) {
		free(fs);
		return rc;
	}
	pthread_mutex_init(&fs->lock, NULL);
	inl_key_cache_init(&fs->cache, params->max_file_keys);
	*out = fs;
	return 0;
}

/* A round over the keys that its files shared. False: there may be more. lock: of the ring */
static bool end_shared(struct inl_fscrypt *fs, struct inl_endings *endings)
{
	struct inl_master_key *master;

	for (master = fs->ring->first; master; master = master->next)
		if (!inl_shared_keys_sweep(master, fs, endings))
			return false;
	return true;
}

void inl_fscrypt_free(struct inl_fscrypt *fs)
{
	struct inl_endings endings = { 0 };
	bool all;

	if (!fs)
		return;
	while (fs->cache.left && inl_key_cache_drop(fs))
		;
	do {
		pthread_mutex_lock(&fs->ring->lock);
		all = end_shared(fs, &endings);
		pthread_mutex_unlock(&fs->ring->lock);
		inl_endings_run(fs->ring, &endings);
	} while (!all);
	/* Another thread may be at work on keys of inodes that were freed meanwhile. */
	pthread_mutex_lock(&fs->ring->lock);
	while (fs->n_ending || fs->n_workers)
		pthread_cond_wait(&fs->ring->changed, &fs->ring->lock);
	pthread_mutex_unlock(&fs->ring->lock);
	if (!fs->params.keys)
		inl_keyring_free(fs->ring);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

/* A size that the policy check will refuse counts as the default, so that it can be asked for before. */
static unsigned unit_bits_of(const struct inl_policy *policy, const struct inl_policy_traits *traits)
{
	unsigned bits = policy->log2_data_unit_size;

	return bits >= 9 && bits <= traits->block_bits ? bits : traits->block_bits;
}

int inl_crypt_info_new(struct inl_fscrypt *fs, uint64_t ino, enum inl_crypt_kind kind, bool casefold,
		       const void *context, size_t len, struct inl_crypt_info **out)
{
	struct inl_crypt_info *info = calloc(1, sizeof(*info));
	int rc;

	if (!info)
		return -ENOMEM;
	rc = inl_policy_from_context(context, len, &info->policy, info->nonce);
	if (rc) {
		free(info);
		return rc;
	}
	info->fs = fs;
	info->ino = ino;
	info->kind = kind;
	info->casefold = casefold;
	info->unit_bits = unit_bits_of(&info->policy, &fs->params.traits);
	info->method = inl_policy_method(&info->policy);
	pthread_mutex_init(&info->lock, NULL);
	atomic_init(&info->state, 0);
	*out = info;
	return 0;
}

void inl_crypt_info_destroy(struct inl_crypt_info *info)
{
	if (!info)
		return;
	pthread_mutex_destroy(&info->lock);
	free(info);
}

const struct inl_policy *inl_crypt_info_policy(const struct inl_crypt_info *info)
{
	return &info->policy;
}

const uint8_t *inl_crypt_info_nonce(const struct inl_crypt_info *info)
{
	return info->nonce;
}

uint32_t inl_crypt_info_unit_size(const struct inl_crypt_info *info)
{
	return 1u << info->unit_bits;
}

static uint8_t mode_of(const struct inl_crypt_info *info)
{
	return info->kind == INL_CRYPT_REG ? info->policy.contents_mode : info->policy.filenames_mode;
}

/* ---- the master key ---- */

/* "given: 91bc..., 00aa..., and 4 more" */
static void describe_given(struct inl_keyring *ring, int version, char *text, size_t size)
{
	unsigned n = ring ? inl_keyring_count(ring) : 0;
	char hex[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec;
	size_t at;

	if (!n) {
		snprintf(text, size, "no key was given");
		return;
	}
	at = snprintf(text, size, "given:");
	for (unsigned i = 0; i < n && i < KEYS_NAMED_MAX; i++)
		if (inl_keyring_spec(ring, i, version, &spec) == 0)
			at += snprintf(text + at, size - at, "%s %s", i ? "," : "", inl_key_spec_hex(&spec, hex));
	if (n > KEYS_NAMED_MAX)
		snprintf(text + at, size - at, ", and %u more", n - KEYS_NAMED_MAX);
}

int inl_crypt_info_key_missing(const struct inl_crypt_info *info, struct inl_diag *diag)
{
	char given[KEYS_NAMED_MAX * (INL_KEY_SPEC_HEX_SIZE + 2) + 40];
	char hex[INL_KEY_SPEC_HEX_SIZE];

	if (!diag || diag->err)
		return -ENOKEY;
	describe_given(info->fs->params.keys, info->policy.version, given, sizeof(given));
	return inl_diag_set(diag, -ENOKEY, "the key %s is needed; %s", inl_key_spec_hex(&info->policy.key, hex), given);
}

/* Version 1 policies need as many bytes as the mode, version 2 policies as much strength. */
static int check_key_len(const struct inl_crypt_info *info, const struct inl_master_key *master,
			 const struct inl_fscrypt_mode_info *mode, struct inl_diag *diag)
{
	const struct inl_cipher_info *cipher = inl_cipher_info(mode->cipher);
	unsigned need = info->policy.version == 1 ? cipher->key_size : cipher->strength;
	char hex[INL_KEY_SPEC_HEX_SIZE];

	if (master->len >= need)
		return 0;
	return inl_diag_set(diag, -ENOKEY, "the key %s is too short: it has %zu bytes, %s needs %u",
			    inl_key_spec_hex(&info->policy.key, hex), master->len, mode->name, need);
}

/* ---- from the master key to a key that works ---- */

static int derive_per_file(const struct inl_crypt_info *info, const struct inl_master_key *master, uint8_t *key,
			   size_t len)
{
	if (info->policy.version == 1)
		return inl_aes128_ecb(info->nonce, master->secret->bytes, len, key);
	return inl_master_key_derive(master, INL_HKDF_PER_FILE_KEY, info->nonce, sizeof(info->nonce), key, len);
}

static int derive_shared(const struct inl_crypt_info *info, const struct inl_master_key *master, uint8_t *key,
			 size_t len)
{
	const uint8_t *uuid = info->fs->params.uuid;
	uint8_t extra[INL_HKDF_EXTRA_MAX] = { mode_of(info) };

	if (info->policy.version == 1) {
		memcpy(key, master->secret->bytes, len);
		return 0;
	}
	if (info->method == INL_IV_DIRECT_KEY)
		return inl_master_key_derive(master, INL_HKDF_DIRECT_KEY, extra, 1, key, len);
	memcpy(extra + 1, uuid, sizeof(info->fs->params.uuid));
	return inl_master_key_derive(
		master, info->method == INL_IV_INO_LBLK_64 ? INL_HKDF_IV_INO_LBLK_64_KEY : INL_HKDF_IV_INO_LBLK_32_KEY,
		extra, sizeof(extra), key, len);
}

/* How wide the DUNs of this inode's contents can get. */
static uint32_t dun_bytes(const struct inl_crypt_info *info)
{
	const struct inl_policy_traits *traits = &info->fs->params.traits;
	unsigned index_bits = traits->lblk_bits + traits->block_bits - info->unit_bits;

	switch (info->method) {
	case INL_IV_DIRECT_KEY:
		return sizeof(uint64_t) + INL_FILE_NONCE_SIZE;
	case INL_IV_INO_LBLK_64:
		return 8;
	case INL_IV_INO_LBLK_32:
		return 4;
	default:
		return (index_bits + 7) / 8;
	}
}

static int start_contents(const struct inl_crypt_info *info, const struct inl_fscrypt_mode_info *mode,
			  const uint8_t *bytes, size_t len, struct inl_key_use **use)
{
	const struct inl_key_config cfg = {
		.mode = mode->blk,
		.data_unit_size = 1u << info->unit_bits,
		.dun_bytes = dun_bytes(info),
		.type = INL_KEY_RAW,
	};
	struct inl_key *key;
	int rc = inl_key_new(&cfg, bytes, len, &key);

	if (rc)
		return rc;
	rc = inl_key_start(info->fs->params.dev, key, use);
	inl_key_put(key);
	return rc;
}

static int explain(const struct inl_crypt_info *info, const struct inl_fscrypt_mode_info *mode, int rc,
		   struct inl_diag *diag)
{
	switch (rc) {
	case -ENOPKG:
		return inl_diag_set(diag, rc, "the cipher %s is not available", mode->name);
	case -ENOENT:
		return inl_diag_set(diag, rc, "the cipher %s has no implementation named %s here", mode->name,
				    inl_dev_ciphers(info->fs->params.dev) ? inl_dev_ciphers(info->fs->params.dev) :
									    "as a device below asks for");
	case -ENOTRECOVERABLE:
		return inl_diag_set(diag, rc, "the cipher %s computes wrong answers on this machine", mode->name);
	case -EINVAL:
		return inl_diag_set(diag, rc, "inode %llu: %s does not take its key: the master key is weak",
				    (unsigned long long)info->ino, mode->name);
	case -ENOMEM:
		return inl_diag_set(diag, rc, "no memory left for the key of inode %llu",
				    (unsigned long long)info->ino);
	default:
		return inl_diag_set(diag, rc, "inode %llu: its %s key could not be prepared",
				    (unsigned long long)info->ino, mode->name);
	}
}

int inl_crypt_info_make_key(const struct inl_crypt_info *info, const struct inl_master_key *master,
			    struct inl_ready_key *out, struct inl_diag *diag)
{
	const struct inl_fscrypt_mode_info *mode = inl_fscrypt_mode_info(mode_of(info));
	size_t len = inl_cipher_info(mode->cipher)->key_size;
	INL_SECRET_ARRAY(bytes, INL_KEY_SIZE_MAX);
	int rc;

	if (info->method == INL_IV_PER_FILE)
		rc = derive_per_file(info, master, bytes, len);
	else
		rc = derive_shared(info, master, bytes, len);
	if (rc)
		return explain(info, mode, rc, diag);
	if (info->kind == INL_CRYPT_REG)
		rc = start_contents(info, mode, bytes, len, &out->use);
	else
		rc = inl_cipher_new(mode->cipher, inl_dev_ciphers(info->fs->params.dev), bytes, &out->names);
	return rc ? explain(info, mode, rc, diag) : 0;
}

/* ---- the master key is found ------------------------------------------------------------------------------------- */

void inl_crypt_info_hash_ino(struct inl_crypt_info *info)
{
	struct le64 le = inl_to_le64(info->ino);

	info->hashed_ino = (uint32_t)inl_siphash(info->master->secret->ino_hash_key, &le, sizeof(le));
	info->hashed = true;
}

/* Nobody else has seen it. What was hashed is hashed again: now, or when its master key is found again. */
void inl_crypt_info_set_ino(struct inl_crypt_info *info, uint64_t ino)
{
	pthread_mutex_lock(&info->fs->ring->lock);
	info->ino = ino;
	info->hashed = false;
	if (info->method == INL_IV_INO_LBLK_32 && info->master && info->master->secret)
		inl_crypt_info_hash_ino(info);
	pthread_mutex_unlock(&info->fs->ring->lock);
}

/* lock: of the ring */
static void join(struct inl_crypt_info *info, struct inl_master_key *master)
{
	info->master = master;
	info->mates_next = master->infos;
	if (master->infos)
		master->infos->mates_prev = info;
	master->infos = info;
	if (info->method == INL_IV_INO_LBLK_32 && !info->hashed)
		inl_crypt_info_hash_ino(info);
}

static bool has_master(struct inl_crypt_info *info)
{
	bool has;

	pthread_mutex_lock(&info->fs->ring->lock);
	has = info->master;
	pthread_mutex_unlock(&info->fs->ring->lock);
	return has;
}

/* Once found, it is the inode's until an eviction, or the inode's end. */
static int find_master(struct inl_crypt_info *info, struct inl_diag *diag)
{
	struct inl_keyring *ring = info->fs->ring;
	struct inl_master_key *master;
	int rc;

	if (has_master(info))
		return 0;
	rc = inl_policy_check(&info->policy, &info->fs->params.traits, info->casefold, diag);
	if (rc)
		return rc;
	master = inl_keyring_use(ring, &info->policy.key);
	if (!master)
		return inl_crypt_info_key_missing(info, diag);
	rc = check_key_len(info, master, inl_fscrypt_mode_info(mode_of(info)), diag);
	pthread_mutex_lock(&ring->lock);
	if (!rc && !info->master && master->state == INL_MASTER_PRESENT)
		join(info, master);
	pthread_mutex_unlock(&ring->lock);
	inl_keyring_unuse(ring, master);
	return rc;
}

/* ---- ready, and pinned ------------------------------------------------------------------------------------------- */

static bool pin_ready(struct inl_crypt_info *info)
{
	unsigned state = atomic_load_explicit(&info->state, memory_order_relaxed);

	do {
		if (!(state & INL_CRYPT_READY))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&info->state, &state, (state | INL_CRYPT_USED) + 1,
							memory_order_acquire, memory_order_relaxed));
	return true;
}

/*
 * From here on no eviction takes the inode's key or the secret, until end_making. *master NULL: begin again. lock: of
 * info
 */
static int begin_making(struct inl_crypt_info *info, struct inl_master_key **master)
{
	struct inl_keyring *ring = info->fs->ring;
	int rc = 0;

	*master = NULL;
	pthread_mutex_lock(&ring->lock);
	while (info->going && inl_may_wait())
		pthread_cond_wait(&ring->changed, &ring->lock);
	if (info->going || (info->master && (!info->master->secret ||
					     (info->master->state == INL_MASTER_REMOVED && !info->holds)))) {
		rc = -ENOKEY;
	} else if (info->master) {
		*master = info->master;
		info->master->n_users++;
		info->making = true;
	}
	pthread_mutex_unlock(&ring->lock);
	return rc;
}

/* With one pin, and as not used yet: what is used only once goes before what is used again. lock: of the ring */
static void set_ready(struct inl_crypt_info *info, struct inl_ready_key key, struct inl_shared_key *shared)
{
	info->shared = shared;
	info->names = key.names;
	atomic_store_explicit(&info->use, key.use, memory_order_relaxed);
	if (!shared)
		inl_key_cache_add(info);
	if (inl_crypt_info_usable(info))
		atomic_fetch_or(&info->state, INL_CRYPT_UNLOCKED);
	atomic_fetch_and(&info->state, ~INL_CRYPT_USED);
	/* Of contents there may be pins from before an eviction. */
	atomic_fetch_add(&info->state, INL_CRYPT_READY + 1);
}

static void end_making(struct inl_crypt_info *info, struct inl_master_key *master)
{
	info->making = false;
	master->n_users--;
	pthread_cond_broadcast(&info->fs->ring->changed);
}

/* lock: of info */
static int make_ready(struct inl_crypt_info *info, struct inl_diag *diag)
{
	struct inl_shared_key *shared = NULL;
	struct inl_ready_key key = { 0 };
	struct inl_master_key *master;
	int rc = begin_making(info, &master);

	if (rc)
		return inl_crypt_info_key_missing(info, diag);
	if (!master)
		return -EAGAIN;
	if (inl_crypt_info_owns_key(info))
		rc = inl_crypt_info_make_key(info, master, &key, diag);
	else
		rc = inl_shared_key_get(info, master, &shared, diag);
	pthread_mutex_lock(&info->fs->ring->lock);
	if (shared)
		key = inl_shared_key_of(shared);
	if (!rc)
		set_ready(info, key, shared);
	end_making(info, master);
	pthread_mutex_unlock(&info->fs->ring->lock);
	return rc;
}

/* Its own key is counted by the cache before it is there: for nothing, if another thread was faster. */
static int pin_once(struct inl_crypt_info *info, struct inl_diag *diag)
{
	bool owns = inl_crypt_info_owns_key(info), found;
	int rc = find_master(info, diag);

	if (rc)
		return rc;
	if (owns)
		inl_key_cache_reserve(info->fs);
	pthread_mutex_lock(&info->lock);
	found = pin_ready(info);
	if (!found)
		rc = make_ready(info, diag);
	pthread_mutex_unlock(&info->lock);
	if (owns && (found || rc))
		inl_key_cache_cancel(info->fs);
	return rc;
}

/*
 * Secret memory is full: the keys of others make room, until there is none that can go. And what was found may have
 * gone again before it was used.
 */
int inl_crypt_info_pin(struct inl_crypt_info *info, struct inl_diag *diag)
{
	bool filled = diag && diag->err;
	int rc;

	if (pin_ready(info))
		return 0;
	while ((rc = pin_once(info, diag)) == -EAGAIN || (rc == -ENOMEM && inl_key_cache_drop(info->fs)))
		if (diag && !filled)
			diag->err = 0;
	return rc;
}

/* An eviction waits for it. */
static void wake(struct inl_keyring *ring)
{
	pthread_mutex_lock(&ring->lock);
	pthread_cond_broadcast(&ring->changed);
	pthread_mutex_unlock(&ring->lock);
}

/* Where all were pinned there may be more than the limit allows: whoever lets go first puts that right. */
void inl_crypt_info_unpin(struct inl_crypt_info *info)
{
	struct inl_fscrypt *fs = info->fs;
	bool over = inl_crypt_info_owns_key(info) && inl_key_cache_over(&fs->cache);
	unsigned before = atomic_fetch_sub_explicit(&info->state, 1, memory_order_release);

	if (!(before & INL_CRYPT_READY))
		wake(fs->ring);
	if (over)
		inl_key_cache_trim(fs);
}

/* What an inode of this kind would meet. */
static int try_kind(struct inl_fscrypt *fs, const struct inl_policy *policy, enum inl_crypt_kind kind,
		    struct inl_diag *diag)
{
	static const uint8_t nonce[INL_FILE_NONCE_SIZE];
	uint8_t context[INL_CONTEXT_SIZE_MAX];
	struct inl_crypt_info *info;
	int rc = inl_crypt_info_new(fs, 0, kind, false, context, inl_policy_to_context(policy, nonce, context), &info);

	if (rc)
		return rc;
	rc = inl_crypt_info_unlock(info, diag);
	inl_crypt_info_free(info);
	return rc;
}

/* Without a key an engine cannot be asked whether it has a cipher that the library lacks. */
static int cipher_missing(int mode, struct inl_diag *diag)
{
	const struct inl_fscrypt_mode_info *info = inl_fscrypt_mode_info(mode);

	if (inl_cipher_info(info->cipher)->available)
		return 0;
	return inl_diag_set(diag, -ENOPKG, "the cipher %s is not available", info->name);
}

int inl_fscrypt_policy_valid(struct inl_fscrypt *fs, const struct inl_policy *policy, bool casefold,
			     struct inl_diag *diag)
{
	return inl_policy_check(policy, &fs->params.traits, casefold, diag);
}

int inl_fscrypt_policy_ready(struct inl_fscrypt *fs, const struct inl_policy *policy, bool casefold,
			     struct inl_diag *diag)
{
	int rc = inl_policy_check(policy, &fs->params.traits, casefold, diag);

	if (rc)
		return rc;
	/* Linux does not ask for the keys of version 1 policies. */
	if (policy->version == 1 && !inl_keyring_has(fs->params.keys, &policy->key)) {
		rc = cipher_missing(policy->contents_mode, diag);
		return rc ? rc : cipher_missing(policy->filenames_mode, diag);
	}
	rc = try_kind(fs, policy, INL_CRYPT_DIR, diag);
	return rc ? rc : try_kind(fs, policy, INL_CRYPT_REG, diag);
}

enum verdict { LOCKED, UNLOCKED, AGAIN };

/* Pinned: its key was there; but is it still, and is it to be used? */
static enum verdict judge(struct inl_crypt_info *info, bool pinned)
{
	enum verdict verdict = AGAIN;

	pthread_mutex_lock(&info->fs->ring->lock);
	if (info->master && !inl_crypt_info_usable(info)) {
		verdict = LOCKED;
	} else if (info->master && pinned && (atomic_load(&info->state) & INL_CRYPT_READY)) {
		atomic_fetch_or(&info->state, INL_CRYPT_UNLOCKED);
		verdict = UNLOCKED;
	}
	pthread_mutex_unlock(&info->fs->ring->lock);
	return verdict;
}

int inl_crypt_info_unlock(struct inl_crypt_info *info, struct inl_diag *diag)
{
	enum verdict verdict = AGAIN;
	int rc;

	if (inl_crypt_info_unlocked(info))
		return 0;
	while (verdict == AGAIN) {
		if (judge(info, false) == LOCKED)
			return inl_crypt_info_key_missing(info, diag);
		rc = inl_crypt_info_pin(info, diag);
		if (rc)
			return rc;
		verdict = judge(info, true);
		inl_crypt_info_unpin(info);
	}
	return verdict == UNLOCKED ? 0 : inl_crypt_info_key_missing(info, diag);
}

/* ---- IVs ---- */

void inl_crypt_info_dun(const struct inl_crypt_info *info, uint64_t index, uint64_t dun[4])
{
	dun[0] = index;
	dun[1] = dun[2] = dun[3] = 0;
	switch (info->method) {
	case INL_IV_DIRECT_KEY:
		dun[1] = inl_load_le64(info->nonce);
		dun[2] = inl_load_le64(info->nonce + 8);
		break;
	case INL_IV_INO_LBLK_64:
		dun[0] = (uint32_t)index | info->ino << 32;
		break;
	case INL_IV_INO_LBLK_32:
		dun[0] = (uint32_t)(info->hashed_ino + index);
		break;
	case INL_IV_PER_FILE:
		break;
	}
}

int inl_crypt_info_ctx(struct inl_crypt_info *info, uint64_t lblk, uint64_t *n_blocks, struct inl_crypt_ctx *ctx,
		       struct inl_diag *diag)
{
	const struct inl_policy_traits *traits = &info->fs->params.traits;
	unsigned shift = traits->block_bits - info->unit_bits;
	uint64_t covered = (1ull << traits->lblk_bits) - lblk;
	int rc;

	if (info->kind != INL_CRYPT_REG)
		return inl_diag_set(diag, -EINVAL, "inode %llu is no regular file", (unsigned long long)info->ino);
	if (lblk >> traits->lblk_bits)
		return inl_diag_set(diag, -EINVAL, "block %llu is beyond the largest file", (unsigned long long)lblk);
	rc = inl_crypt_info_pin(info, diag);
	if (rc)
		return rc;
	ctx->use = atomic_load_explicit(&info->use, memory_order_relaxed);
	inl_crypt_info_dun(info, lblk << shift, ctx->dun);
	if (info->method == INL_IV_INO_LBLK_32 && covered > (1ull << 32) - ctx->dun[0])
		covered = (1ull << 32) - ctx->dun[0];
	if (*n_blocks > covered)
		*n_blocks = covered;
	return 0;
}

void inl_crypt_info_ctx_put(struct inl_crypt_info *info)
{
	inl_crypt_info_unpin(info);
}
