/*
 * block/key.c: keys, and what starting and evicting one means for a device and those below.
 * Not here: handles and holding (use.c), slots (slots.c), where key bytes come from (fscrypt/).
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
	return (cfg->mode != INL_BLK_MODE_AES_256_XTS && cfg->mode != INL_BLK_MODE_SM4_XTS) ||
	       !inl_equal_ct(bytes, bytes + len / 2, len / 2);
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

/* ---- starting and ending a use ------------------------------------------------------------------------------------ */

static int start(struct inl_dev *dev, struct inl_key *key, bool fallback, struct inl_use **out);

static void use_free(struct inl_use *use)
{
	inl_cipher_free(use->cipher);
	inl_key_put(use->key);
	free(use->children);
	inl_use_free(use);
}

/* On this device and every one below. Returns the first error of an engine. */
static int stop(struct inl_use *use)
{
	struct inl_dev *dev = use->dev;
	int err = 0;

	INL_COUNT(dev, keys_evicted, 1);
	if (use->native && dev->slots)
		err = inl_slots_evict(dev->slots, use);
	if (use->native && dev->has_engine && dev->ops->key_stop) {
		int stop_err = dev->ops->key_stop(dev, use->key, use->driver_priv);

		err = err ? err : stop_err;
	}
	while (use->n_children) {
		int child_err = stop(use->children[--use->n_children]);

		err = err ? err : child_err;
	}
	if (use->native)
		inl_tree_release(dev);
	use_free(use);
	return err;
}

/* fallback: it is not refused on a device above. */
static int start_fallback(struct inl_use *use, bool fallback)
{
	if (use->key->cfg.type != INL_KEY_RAW)
		return -EOPNOTSUPP;
	if (!fallback || !use->dev->fallback)
		return -ENOPKG;
	return inl_cross_cipher_new(use->key, use->dev->ciphers, &use->cipher);
}

/* On every child; or on none. */
static int start_below(struct inl_use *use, bool fallback)
{
	struct inl_dev *dev = use->dev;
	int err = 0;

	if (!dev->n_children)
		return 0;
	use->children = calloc(dev->n_children, sizeof(use->children[0]));
	if (!use->children)
		return -ENOMEM;
	while (use->n_children < dev->n_children && !err) {
		err = start(dev->children[use->n_children], use->key, fallback && dev->fallback,
			    &use->children[use->n_children]);
		use->n_children += !err;
	}
	/* For bios that the stack cannot cut between data units; without it those are refused. */
	if (!err && dev->ops->map && start_fallback(use, fallback) == -ENOMEM)
		err = -ENOMEM;
	while (err && use->n_children)
		stop(use->children[--use->n_children]);
	return err;
}

static int start_native(struct inl_use *use, bool fallback)
{
	struct inl_dev *dev = use->dev;
	int err = 0;

	use->native = true;
	if (!dev->has_engine)
		err = start_below(use, fallback);
	else if (dev->ops->key_start)
		err = dev->ops->key_start(dev, use->key, &use->driver_priv);
	if (err)
		inl_tree_release(dev);
	return err;
}

static int start(struct inl_dev *dev, struct inl_key *key, bool fallback, struct inl_use **out)
{
	struct inl_use *use = inl_use_new();
	int err;

	if (!use)
		return -ENOMEM;
	use->dev = dev;
	use->key = inl_key_get(key);
	use->unit_bits = (unsigned)__builtin_ctz(key->cfg.data_unit_size);
	use->native = false;
	use->cipher = NULL;
	use->driver_priv = NULL;
	use->children = NULL;
	use->n_children = 0;
	atomic_store(&use->ps_per_byte, 0);
	err = inl_tree_claim(dev, &key->cfg) ? start_native(use, fallback) : start_fallback(use, fallback);
	if (err) {
		use_free(use);
		return err;
	}
	INL_COUNT(dev, keys_started, 1);
	*out = use;
	return 0;
}

int inl_key_start(struct inl_dev *dev, struct inl_key *key, struct inl_key_use **out)
{
	struct inl_use *use;
	int err = start(dev, key, true, &use);

	if (err)
		return err;
	inl_use_open(use);
	*out = inl_use_handle(use);
	return 0;
}

int inl_key_evict(struct inl_key_use *handle)
{
	struct inl_use *use;

	if (!handle)
		return 0;
	if (!inl_may_wait())
		return -EDEADLK;
	if (!inl_use_close(handle, &use))
		return -ENOKEY;
	inl_use_drain(use);
	return stop(use);
}

bool inl_key_use_native(const struct inl_key_use *handle)
{
	const struct inl_use *use = inl_use_find(handle);

	return use && use->native;
}
