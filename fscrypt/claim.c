/*
 * fscrypt/claim.c: whose keys the master keys of a ring are: claims of users, and what was added for all.
 * Not here: what the end of the last claim does to inodes (evict.c).
 * Read more: inlay/fscrypt.h; Linux Documentation/filesystems/fscrypt.rst, "Adding keys", "Removing keys".
 */
#include "fscrypt/claim.h"
#include "fscrypt/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- claims; lock: of the ring ----------------------------------------------------------------------------------- */

/* Index of the user's claim, or n_uids. */
static unsigned find_claim(const struct inl_master_key *master, uint32_t uid)
{
	unsigned i = 0;

	while (i < master->n_uids && master->uids[i] != uid)
		i++;
	return i;
}

static bool has_claim(const struct inl_master_key *master, uint32_t uid)
{
	return find_claim(master, uid) < master->n_uids;
}

static unsigned count_claims(const struct inl_keyring *ring, uint32_t uid)
{
	unsigned n = 0;

	for (const struct inl_master_key *master = ring->first; master; master = master->next)
		n += has_claim(master, uid);
	return n;
}

static int make_room(struct inl_master_key *master)
{
	unsigned room = master->uids_room ? 2 * master->uids_room : 4;
	uint32_t *uids;

	if (master->n_uids < master->uids_room)
		return 0;
	uids = realloc(master->uids, room * sizeof(*uids));
	if (!uids)
		return -ENOMEM;
	master->uids = uids;
	master->uids_room = room;
	return 0;
}

/* To a key of the ring, or to one that will be put there. The same claim again is none. */
static int add_claim(struct inl_keyring *ring, struct inl_master_key *master, uint32_t uid)
{
	int rc;

	if (has_claim(master, uid))
		return 0;
	if (master->n_uids >= INL_CLAIMS_PER_KEY_MAX || (uid && count_claims(ring, uid) >= INL_CLAIMS_PER_USER_MAX))
		return -EDQUOT;
	rc = make_room(master);
	if (!rc)
		master->uids[master->n_uids++] = uid;
	return rc;
}

static void drop_claims(struct inl_master_key *master)
{
	free(master->uids);
	master->uids = NULL;
	master->n_uids = master->uids_room = 0;
	master->given = false;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

/* It was being removed, or is incompletely: the secret, if it is not there any more, comes from the new object. */
static void revive(struct inl_keyring *ring, struct inl_master_key *master, struct inl_master_key *with)
{
	if (master->state == INL_MASTER_PRESENT)
		return;
	if (!master->secret) {
		master->secret = with->secret;
		master->hkdf = with->hkdf;
		with->secret = NULL;
		with->hkdf = NULL;
	}
	master->state = INL_MASTER_PRESENT;
	ring->n++;
}

static void append(struct inl_keyring *ring, struct inl_master_key *master)
{
	struct inl_master_key **at = &ring->first;

	while (*at)
		at = &(*at)->next;
	*at = master;
	ring->n++;
}

/* uid NULL: for all. */
static int add(struct inl_keyring *ring, const uint8_t *key, size_t len, const uint32_t *uid, struct inl_diag *diag)
{
	struct inl_master_key *made, *there, *master;
	int rc = inl_master_new(key, len, &made, diag);

	if (rc)
		return rc;
	pthread_mutex_lock(&ring->lock);
	there = inl_master_find(ring, &made->v2);
	master = there ? there : made;
	rc = uid ? add_claim(ring, master, *uid) : 0;
	if (!rc) {
		master->given |= !uid;
		if (there)
			revive(ring, there, made);
		else
			append(ring, made);
	}
	pthread_mutex_unlock(&ring->lock);
	if (rc || there)
		inl_master_free(made);
	if (rc == -EDQUOT)
		return inl_diag_set(diag, rc, "too many keys of user %u, or users of this key", *uid);
	return rc ? inl_diag_set(diag, rc, "no memory left for a claim") : 0;
}

int inl_keyring_add(struct inl_keyring *ring, const uint8_t *key, size_t len, struct inl_diag *diag)
{
	return add(ring, key, len, NULL, diag);
}

int inl_keyring_claim(struct inl_keyring *ring, const uint8_t *key, size_t len, uint32_t uid, struct inl_diag *diag)
{
	return add(ring, key, len, &uid, diag);
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

/* Names of inodes that nobody holds are locked from here on; contents go on until the eviction. */
static void mark(struct inl_keyring *ring, struct inl_master_key *master)
{
	drop_claims(master);
	master->state = INL_MASTER_MARKED;
	ring->n--;
	for (struct inl_crypt_info *info = master->infos; info; info = info->mates_next)
		if (!info->holds && info->kind != INL_CRYPT_REG)
			inl_crypt_info_lock_names(info);
}

/* As Linux: once no claim is left, to remove it again is to try again. */
static int unclaim(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid, bool all, bool *last)
{
	struct inl_master_key *master = inl_master_find(ring, spec);
	unsigned i;

	*last = false;
	if (!master)
		return -ENOKEY;
	if (master->state == INL_MASTER_PRESENT && !all && spec->version != 1) {
		i = find_claim(master, uid);
		if (i == master->n_uids)
			return -ENOKEY;
		master->uids[i] = master->uids[--master->n_uids];
		if (master->given || master->n_uids)
			return 0;
	}
	if (master->state == INL_MASTER_PRESENT)
		mark(ring, master);
	*last = true;
	return 0;
}

int inl_keyring_unclaim(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid, bool all, bool *last)
{
	bool was_last;
	int rc;

	if (spec->version != 1 && spec->version != 2)
		return -EINVAL;
	if (!ring)
		return -ENOKEY;
	pthread_mutex_lock(&ring->lock);
	rc = unclaim(ring, spec, uid, all, &was_last);
	pthread_mutex_unlock(&ring->lock);
	if (!rc)
		*last = was_last;
	return rc;
}

int inl_keyring_remove(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	struct inl_master_key *master;

	if (!ring)
		return -ENOKEY;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find_present(ring, spec);
	if (master)
		mark(ring, master);
	pthread_mutex_unlock(&ring->lock);
	return master ? 0 : -ENOKEY;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

unsigned inl_master_count_held(const struct inl_master_key *master)
{
	unsigned n = 0;

	for (const struct inl_crypt_info *info = master->infos; info; info = info->mates_next)
		n += info->holds > 0;
	return n;
}

int inl_keyring_status(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid,
		       struct inl_key_status *status)
{
	const struct inl_master_key *master = NULL;

	if (spec->version != 1 && spec->version != 2)
		return -EINVAL;
	*status = (struct inl_key_status){ .state = INL_KEY_ABSENT };
	if (!ring)
		return 0;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find(ring, spec);
	if (master) {
		status->state = master->state == INL_MASTER_PRESENT ? INL_KEY_PRESENT : INL_KEY_INCOMPLETELY_REMOVED;
		status->n_claims = master->n_uids;
		status->claimed = has_claim(master, uid);
		status->given = master->given;
		status->n_busy = inl_master_count_held(master);
	}
	pthread_mutex_unlock(&ring->lock);
	return 0;
}

bool inl_keyring_busy(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	const struct inl_master_key *master;
	bool busy = false;

	if (!ring)
		return false;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find(ring, spec);
	/* After an eviction there are no others, so the first one says it. */
	for (const struct inl_crypt_info *info = master ? master->infos : NULL; info && !busy; info = info->mates_next)
		busy = info->holds;
	pthread_mutex_unlock(&ring->lock);
	return busy;
}

bool inl_keyring_claimed(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid)
{
	const struct inl_master_key *master;
	bool claimed;

	if (!ring)
		return false;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find_present(ring, spec);
	claimed = master && has_claim(master, uid);
	pthread_mutex_unlock(&ring->lock);
	return claimed;
}

unsigned inl_keyring_claimants(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t *uids, unsigned max)
{
	const struct inl_master_key *master;
	unsigned n = 0;

	if (!ring)
		return 0;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find(ring, spec);
	if (master) {
		n = master->n_uids;
		if (n && max)
			memcpy(uids, master->uids, (n < max ? n : max) * sizeof(*uids));
	}
	pthread_mutex_unlock(&ring->lock);
	return n;
}
