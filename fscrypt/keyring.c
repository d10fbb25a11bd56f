/*
 * fscrypt/keyring.c: master keys: their names, what is derived from them, the ring of those that were given.
 * Not here: HKDF itself (crypto/hkdf.c); whose claims they are (claim.c), eviction (evict.c); which inode needs which key
 * (info.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Key hierarchy".
 */
#include "fscrypt/claim.h"
#include "base/secret.h"
#include "crypto/hash.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int expand(const struct inl_hkdf *hkdf, enum inl_hkdf_context context, const void *extra, size_t extra_len,
		  uint8_t *out, size_t len)
{
	uint8_t info[8 + 1 + INL_HKDF_EXTRA_MAX] = "fscrypt";

	if (extra_len > INL_HKDF_EXTRA_MAX)
		return -EINVAL;
	info[8] = context;
	if (extra_len)
		memcpy(info + 9, extra, extra_len);
	return inl_hkdf_expand(hkdf, info, 9 + extra_len, out, len);
}

int inl_master_key_derive(const struct inl_master_key *master, enum inl_hkdf_context context, const void *extra,
			  size_t extra_len, uint8_t *out, size_t len)
{
	return expand(master->hkdf, context, extra, extra_len, out, len);
}

static int descriptor_of(const uint8_t *key, size_t len, struct inl_key_spec *spec)
{
	INL_SECRET_ARRAY(once, 64);
	INL_SECRET_ARRAY(twice, 64);
	int rc = inl_sha512(key, len, once);

	if (!rc)
		rc = inl_sha512(once, sizeof(once), twice);
	if (rc)
		return rc;
	*spec = (struct inl_key_spec){ .version = 1 };
	memcpy(spec->bytes, twice, INL_KEY_DESCRIPTOR_SIZE);
	return 0;
}

static int identifier_of(const struct inl_hkdf *hkdf, struct inl_key_spec *spec)
{
	struct inl_key_spec made = { .version = 2 };
	int rc = expand(hkdf, INL_HKDF_KEY_IDENTIFIER, NULL, 0, made.bytes, sizeof(made.bytes));

	if (!rc)
		*spec = made;
	return rc;
}

int inl_key_spec_derive(const uint8_t *key, size_t len, int version, struct inl_key_spec *spec)
{
	struct inl_hkdf *hkdf;
	int rc;

	if (len < INL_MASTER_KEY_MIN || len > INL_MASTER_KEY_MAX)
		return -EINVAL;
	if (version == 1)
		return descriptor_of(key, len, spec);
	if (version != 2)
		return -EINVAL;
	rc = inl_hkdf_new(key, len, &hkdf);
	if (rc)
		return rc;
	rc = identifier_of(hkdf, spec);
	inl_hkdf_free(hkdf);
	return rc;
}

char *inl_key_spec_hex(const struct inl_key_spec *spec, char hex[INL_KEY_SPEC_HEX_SIZE])
{
	size_t len = spec->version == 1 ? INL_KEY_DESCRIPTOR_SIZE : INL_KEY_IDENTIFIER_SIZE;

	for (size_t i = 0; i < len; i++) {
		hex[2 * i] = "0123456789abcdef"[spec->bytes[i] >> 4];
		hex[2 * i + 1] = "0123456789abcdef"[spec->bytes[i] & 15];
	}
	hex[2 * len] = '\0';
	return hex;
}

/* ---- one master key ---------------------------------------------------------------------------------------------- */

void inl_master_wipe(struct inl_master_key *master)
{
	inl_hkdf_free(master->hkdf);
	inl_secret_free(master->secret);
	master->hkdf = NULL;
	master->secret = NULL;
}

void inl_master_free(struct inl_master_key *master)
{
	if (!master)
		return;
	inl_master_wipe(master);
	free(master->uids);
	free(master);
}

static int master_derive_names(struct inl_master_key *master)
{
	int rc = descriptor_of(master->secret->bytes, master->len, &master->v1);

	if (!rc)
		rc = inl_hkdf_new(master->secret->bytes, master->len, &master->hkdf);
	if (!rc)
		rc = identifier_of(master->hkdf, &master->v2);
	if (!rc)
		rc = inl_master_key_derive(master, INL_HKDF_INO_HASH_KEY, NULL, 0, master->secret->ino_hash_key,
					   sizeof(master->secret->ino_hash_key));
	return rc;
}

static int master_new(const uint8_t *key, size_t len, struct inl_master_key **out)
{
	struct inl_master_key *master = calloc(1, sizeof(*master));
	int rc = -ENOMEM;

	if (!master)
		return rc;
	master->secret = inl_secret_alloc(sizeof(*master->secret));
	if (!master->secret)
		goto fail;
	memcpy(master->secret->bytes, key, len);
	master->len = len;
	rc = master_derive_names(master);
	if (rc)
		goto fail;
	*out = master;
	return 0;
fail:
	inl_master_free(master);
	return rc;
}

int inl_master_new(const uint8_t *key, size_t len, struct inl_master_key **out, struct inl_diag *diag)
{
	int rc;

	if (len < INL_MASTER_KEY_MIN || len > INL_MASTER_KEY_MAX)
		return inl_diag_set(diag, -EINVAL, "a master key has %d to %d bytes, not %zu", INL_MASTER_KEY_MIN,
				    INL_MASTER_KEY_MAX, len);
	rc = master_new(key, len, out);
	if (rc)
		return inl_diag_set(diag, rc, "cannot keep the master key: %s",
				    rc == -ENOMEM ? "no memory for secrets left" : "the crypto library failed");
	return 0;
}

void inl_master_settle(struct inl_keyring *ring, struct inl_master_key *master)
{
	struct inl_master_key **at;

	if (master->state != INL_MASTER_REMOVED || master->infos || master->n_users)
		return;
	inl_master_wipe(master);
	if (master->shared || master->n_ending || master->n_refs)
		return;
	for (at = &ring->first; *at != master; at = &(*at)->next)
		;
	*at = master->next;
	inl_master_free(master);
}

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

int inl_keyring_new(struct inl_keyring **out)
{
	struct inl_keyring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return -ENOMEM;
	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->changed, NULL);
	*out = ring;
	return 0;
}

void inl_keyring_free(struct inl_keyring *ring)
{
	struct inl_master_key *master, *next;

	if (!ring)
		return;
	for (master = ring->first; master; master = next) {
		next = master->next;
		inl_master_free(master);
	}
	pthread_cond_destroy(&ring->changed);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

struct inl_master_key *inl_master_find(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	size_t len = spec->version == 1 ? INL_KEY_DESCRIPTOR_SIZE : INL_KEY_IDENTIFIER_SIZE;
	struct inl_master_key *master;

	for (master = ring->first; master; master = master->next)
		if (memcmp(spec->version == 1 ? master->v1.bytes : master->v2.bytes, spec->bytes, len) == 0)
			break;
	return master;
}

struct inl_master_key *inl_master_find_present(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	struct inl_master_key *master = inl_master_find(ring, spec);

	return master && master->state == INL_MASTER_PRESENT ? master : NULL;
}

struct inl_master_key *inl_keyring_use(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	struct inl_master_key *master;

	if (!ring)
		return NULL;
	pthread_mutex_lock(&ring->lock);
	master = inl_master_find_present(ring, spec);
	if (master)
		master->n_users++;
	pthread_mutex_unlock(&ring->lock);
	return master;
}

void inl_keyring_unuse(struct inl_keyring *ring, struct inl_master_key *master)
{
	pthread_mutex_lock(&ring->lock);
	master->n_users--;
	inl_master_settle(ring, master);
	pthread_cond_broadcast(&ring->changed);
	pthread_mutex_unlock(&ring->lock);
}

bool inl_keyring_has(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	bool has;

	if (!ring)
		return false;
	pthread_mutex_lock(&ring->lock);
	has = inl_master_find_present(ring, spec);
	pthread_mutex_unlock(&ring->lock);
	return has;
}

unsigned inl_keyring_count(struct inl_keyring *ring)
{
	unsigned n;

	if (!ring)
		return 0;
	pthread_mutex_lock(&ring->lock);
	n = ring->n;
	pthread_mutex_unlock(&ring->lock);
	return n;
}

/* all: also those that are not present any more. */
static int nth(struct inl_keyring *ring, unsigned i, bool all, int version, struct inl_key_spec *spec)
{
	const struct inl_master_key *master;

	if (version != 1 && version != 2)
		return -EINVAL;
	if (!ring)
		return -ENOENT;
	pthread_mutex_lock(&ring->lock);
	for (master = ring->first; master; master = master->next)
		if ((all || master->state == INL_MASTER_PRESENT) && i-- == 0)
			break;
	if (master)
		*spec = version == 1 ? master->v1 : master->v2;
	pthread_mutex_unlock(&ring->lock);
	return master ? 0 : -ENOENT;
}

int inl_keyring_spec(struct inl_keyring *ring, unsigned i, int version, struct inl_key_spec *spec)
{
	return nth(ring, i, false, version, spec);
}

int inl_keyring_known(struct inl_keyring *ring, unsigned i, int version, struct inl_key_spec *spec)
{
	return nth(ring, i, true, version, spec);
}
