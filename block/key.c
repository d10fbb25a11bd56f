/*
 * block/key.c: keys and their use on a device: start, hold, evict.
 * Not here: slots (slots.c), where key bytes come from (fscrypt/).
 * Read more: inlay/block.h, "keys".
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool config_valid(const struct inl_key_config *cfg, const uint8_t *bytes, size_t len)
{
	unsigned key_size = inl_blk_mode_key_size(cfg->mode);

	if (!key_size || !inl_power_of_two(cfg->data_unit_size) || cfg->data_unit_size < INL_UNIT_SIZE_MIN ||
	    cfg->data_unit_size > INL_UNIT_SIZE_MAX)
		return false;
	if (cfg->dun_bytes < 1 || cfg->dun_bytes > inl_blk_mode_iv_size(cfg->mode))
		return false;
	if (cfg->type == INL_KEY_HW_WRAPPED)
		return len >= 1 && len <= INL_WRAPPED_KEY_MAX;
	if (cfg->type != INL_KEY_RAW || len != key_size)
		return false;
	/* An XTS key whose halves are equal leaks the tweak: IEEE 1619-2018 and FIPS 140-3 IG C.I. */
	return cfg->mode != INL_BLK_MODE_AES_256_XTS || !inl_equal_ct(bytes, bytes + len / 2, len / 2);
}

int inl_key_new(const struct inl_key_config *cfg, const uint8_t *bytes, size_t len, struct inl_key **out)
{
	struct inl_key *key;

	if (!config_valid(cfg, bytes, len))
		return -EINVAL;
	key = inl_secret_alloc(sizeof(*key) + len);
	if (!key)
		return -ENOMEM;
	atomic_init(&key->refs, 1);
	key->cfg = *cfg;
	key->len = (uint32_t)len;
	memcpy(key->bytes, bytes, len);
	*out = key;
	return 0;
}

struct inl_key *inl_key_get(struct inl_key *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	return key;
}

void inl_key_put(struct inl_key *key)
{
	if (key && atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) == 1)
		inl_secret_free(key);
}

const struct inl_key_config *inl_key_config(const struct inl_key *key)
{
	return &key->cfg;
}

const uint8_t *inl_key_bytes(const struct inl_key *key, size_t *len)
{
	*len = key->len;
	return key->bytes;
}

/* ---- uses -------------------------------------------------------------------------------------------------------- */

/* Undo what start_here did, in any state. Returns the first error of an engine. */
static int stop_here(struct inl_key_use *use)
{
	struct inl_dev *dev = use->dev;
	int err = 0;

	if (use->cipher) {
		inl_cipher_free(use->cipher);
	} else if (dev->slots) {
		err = inl_slots_evict(dev->slots, use);
	} else if (dev->has_engine && dev->ops->key_stop) {
		err = dev->ops->key_stop(dev, use->key, use->driver_priv);
	}
	for (unsigned i = 0; i < use->n_children; i++) {
		int child_err = inl_key_evict(use->children[i]);

		err = err ? err : child_err;
	}
	return err;
}

static void use_free(struct inl_key_use *use)
{
	inl_key_put(use->key);
	free(use);
}

static int start_fallback(struct inl_key_use *use)
{
	if (use->key->cfg.type != INL_KEY_RAW)
		return -EOPNOTSUPP;
	return inl_cross_cipher_new(use->key, &use->cipher);
}

static int start_native(struct inl_key_use *use)
{
	struct inl_dev *dev = use->dev;
	int err = 0;

	if (dev->has_engine)
		return dev->n_slots == 0 && dev->ops->key_start ?
			       dev->ops->key_start(dev, use->key, &use->driver_priv) :
			       0;
	for (unsigned i = 0; i < dev->n_children; i++) {
		err = inl_key_start(dev->children[i], use->key, &use->children[i]);
		if (err)
			break;
		use->n_children = i + 1;
	}
	if (use->n_children == dev->n_children)
		return 0;
	while (use->n_children)
		inl_key_evict(use->children[--use->n_children]);
	return err;
}

int inl_key_start(struct inl_dev *dev, struct inl_key *key, struct inl_key_use **out)
{
	struct inl_key_use *use = calloc(1, sizeof(*use) + dev->n_children * sizeof(use->children[0]));
	int err;

	if (!use)
		return -ENOMEM;
	use->dev = dev;
	use->key = inl_key_get(key);
	atomic_init(&use->busy, 0);
	err = inl_caps_supports(&dev->caps, &key->cfg) ? start_native(use) : start_fallback(use);
	if (err) {
		use_free(use);
		return err;
	}
	INL_COUNT(dev, keys_started, 1);
	*out = use;
	return 0;
}

bool inl_key_use_native(const struct inl_key_use *use)
{
	return !use->cipher;
}

bool inl_use_hold(struct inl_key_use *use)
{
	unsigned busy = atomic_load_explicit(&use->busy, memory_order_relaxed);

	do {
		if (busy & INL_USE_EVICTING)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&use->busy, &busy, busy + 1, memory_order_acquire,
							memory_order_relaxed));
	return true;
}

void inl_use_release(struct inl_key_use *use)
{
	struct inl_dev *dev = use->dev; /* the use may be gone once the count is down */

	if (atomic_fetch_sub_explicit(&use->busy, 1, memory_order_acq_rel) != (INL_USE_EVICTING | 1))
		return;
	pthread_mutex_lock(&dev->idle_lock);
	pthread_cond_broadcast(&dev->idle);
	pthread_mutex_unlock(&dev->idle_lock);
}

static bool use_busy(struct inl_key_use *use)
{
	return atomic_load_explicit(&use->busy, memory_order_acquire) != INL_USE_EVICTING;
}

/* Wait until no bio is under way with this use. Bios may be completed by reaping, or by other threads, or both. */
static void use_drain(struct inl_key_use *use)
{
	struct inl_dev *dev = use->dev;

	while (use_busy(use)) {
		struct timespec until;

		if (dev->reaps && inl_reap(dev, false))
			continue;
		until = inl_in_a_millisecond();
		pthread_mutex_lock(&dev->idle_lock);
		if (use_busy(use))
			pthread_cond_timedwait(&dev->idle, &dev->idle_lock, &until);
		pthread_mutex_unlock(&dev->idle_lock);
	}
}

int inl_key_evict(struct inl_key_use *use)
{
	int err;

	if (!use)
		return 0;
	atomic_fetch_or_explicit(&use->busy, INL_USE_EVICTING, memory_order_acq_rel);
	use_drain(use);
	/* The last release may still be inside the lock below. */
	pthread_mutex_lock(&use->dev->idle_lock);
	pthread_mutex_unlock(&use->dev->idle_lock);
	INL_COUNT(use->dev, keys_evicted, 1);
	err = stop_here(use);
	use_free(use);
	return err;
}
