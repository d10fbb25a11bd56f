/*
 * block/dev.c: devices: making and describing them, their capabilities and those of the stacks above, their counters.
 * Not here: the way of a bio through them (submit.c).
 * Read more: ARCHITECTURE.md, "Devices".
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE_DEFAULT 512u
#define BLOCK_SIZE_MAX	   65536u
#define N_SLOTS_MAX	   4096u
#define MEM_ALIGN_MAX	   4096u
#define BOUNCE_DEFAULT	   (4u << 20) /* bytes */
#define BOUNCE_STEP	   (64u << 10)
#define BOUNCE_MAX	   (1u << 30)

/* Guards the capabilities of all devices, and the numbers of keys that rely on them: none of it is on the data path. */
static pthread_mutex_t tree_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- making and describing --------------------------------------------------------------------------------------- */

static bool params_valid(const struct inl_dev_ops *ops, const struct inl_dev_params *params, uint32_t block_size)
{
	if (block_size < BLOCK_SIZE_DEFAULT || block_size > BLOCK_SIZE_MAX || !inl_power_of_two(block_size))
		return false;
	if (params->n_children > INL_DEV_MAX_CHILDREN || params->n_slots > N_SLOTS_MAX)
		return false;
	if (params->mem_align > MEM_ALIGN_MAX || (params->mem_align && !inl_power_of_two(params->mem_align)))
		return false;
	if (!ops->submit == !ops->map || (ops->map && (!params->n_children || ops->memory)))
		return false;
	if ((params->unit_max && !inl_power_of_two(params->unit_max)) ||
	    (params->sector_size && !inl_power_of_two(params->sector_size)))
		return false;
	return !params->has_engine || params->n_slots == 0 || (ops->key_program && ops->key_evict);
}

/* Of a device without an engine: what all its children can, in units that its map does not cut. */
static void inherit_caps(struct inl_dev *dev)
{
	struct inl_caps *caps = &dev->caps;

	for (unsigned i = 0; i < dev->n_children; i++) {
		if (i == 0)
			*caps = dev->children[0]->caps;
		else
			inl_caps_intersect(caps, &dev->children[i]->caps);
	}
	for (unsigned i = 0; i < INL_BLK_MODE_MAX; i++)
		caps->modes[i] &= 2 * dev->unit_max - 1;
}

static void dev_free(struct inl_dev *dev)
{
	inl_slots_free(dev->slots);
	inl_cross_free(dev->cross);
	inl_pieces_free(dev->bounce);
	inl_pieces_free(dev->align);
	inl_pieces_free(dev->split);
	pthread_mutex_destroy(&dev->idle_lock);
	pthread_cond_destroy(&dev->idle);
	free(dev->label);
	free(dev);
}

/* What a device takes over from those below it. */
static void adopt_children(struct inl_dev *dev, const struct inl_dev_params *params)
{
	for (unsigned i = 0; i < params->n_children; i++) {
		struct inl_dev *child = params->children[i];

		dev->children[i] = child;
		dev->fallback &= child->fallback;
		dev->ciphers = dev->ciphers ? dev->ciphers : child->ciphers;
		dev->has_memory |= dev->ops->map && child->has_memory;
		if (!params->sector_size && dev->sector_size < child->sector_size)
			dev->sector_size = child->sector_size;
	}
	dev->n_children = params->n_children;
	pthread_mutex_lock(&tree_lock);
	if (dev->has_engine)
		dev->caps = params->caps;
	else
		inherit_caps(dev);
	pthread_mutex_unlock(&tree_lock);
}

static int make_parts(struct inl_dev *dev, const char *label)
{
	int err;

	dev->label = strdup(label ? label : "");
	err = dev->label ? inl_cross_new_fallback(dev, &dev->cross) : -ENOMEM;
	if (!err && dev->writable)
		err = inl_pieces_new(dev, BOUNCE_DEFAULT, &dev->bounce);
	if (!err && dev->mem_align > 1)
		err = inl_pieces_new(dev, BOUNCE_DEFAULT, &dev->align);
	if (!err && dev->ops->map)
		err = inl_pieces_new(dev, 0, &dev->split);
	if (!err && dev->has_engine && dev->n_slots)
		err = inl_slots_new(dev, dev->n_slots, &dev->slots);
	return err;
}

int inl_dev_new(const struct inl_dev_ops *ops, void *priv, const struct inl_dev_params *params, struct inl_dev **out)
{
	uint32_t block_size = params->block_size ? params->block_size : BLOCK_SIZE_DEFAULT;
	struct inl_dev *dev;
	int err;

	if (!params_valid(ops, params, block_size))
		return -EINVAL;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	pthread_mutex_init(&dev->idle_lock, NULL);
	inl_cond_init(&dev->idle);
	dev->ops = ops;
	dev->priv = priv;
	dev->size = params->size & ~(uint64_t)(block_size - 1);
	dev->block_size = block_size;
	dev->sector_size = params->sector_size ? params->sector_size : BLOCK_SIZE_DEFAULT;
	dev->mem_align = params->mem_align ? params->mem_align : 1;
	dev->unit_max = params->unit_max ? params->unit_max : INL_UNIT_SIZE_MAX;
	dev->writable = params->writable;
	dev->has_engine = params->has_engine;
	dev->has_memory = ops->memory;
	dev->fallback = true;
	dev->n_slots = params->n_slots;
	adopt_children(dev, params);
	err = make_parts(dev, params->label);
	if (err) {
		dev_free(dev);
		return err;
	}
	for (unsigned i = 0; i < dev->n_children; i++)
		dev->children[i]->parent = dev;
	*out = dev;
	return 0;
}

void inl_dev_set_fallback(struct inl_dev *dev, bool fallback)
{
	dev->fallback = fallback;
}

/* The constant name of an implementation that some cipher has and this CPU runs. */
static const char *find_impl(const char *name)
{
	struct inl_cipher_impl impl;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++)
		for (unsigned i = 0; inl_cipher_impl((enum inl_cipher_id)id, i, &impl); i++)
			if (!impl.lacks && !strcmp(impl.name, name))
				return impl.name;
	return NULL;
}

static void set_ciphers(struct inl_dev *dev, const char *impl)
{
	dev->ciphers = impl;
	for (unsigned i = 0; i < dev->n_children; i++)
		set_ciphers(dev->children[i], impl);
}

int inl_dev_set_ciphers(struct inl_dev *dev, const char *impl)
{
	const char *found = impl ? find_impl(impl) : NULL;

	if (impl && !found)
		return -ENOENT;
	set_ciphers(dev, found);
	return 0;
}

static int replace_pieces(struct inl_dev *dev, size_t len, struct inl_pieces **pieces)
{
	struct inl_pieces *new;
	int err;

	if (!*pieces)
		return 0;
	err = inl_pieces_new(dev, len, &new);
	if (err)
		return err;
	inl_pieces_free(*pieces);
	*pieces = new;
	return 0;
}

int inl_dev_set_bounce(struct inl_dev *dev, size_t len)
{
	int err;

	if (len < BOUNCE_STEP || len > BOUNCE_MAX)
		return -EINVAL;
	len = (len + BOUNCE_STEP - 1) / BOUNCE_STEP * BOUNCE_STEP;
	err = replace_pieces(dev, len, &dev->bounce);
	return err ? err : replace_pieces(dev, len, &dev->align);
}

void inl_dev_close(struct inl_dev *dev)
{
	if (!dev)
		return;
	if (dev->ops->close)
		dev->ops->close(dev);
	for (unsigned i = 0; i < dev->n_children; i++)
		inl_dev_close(dev->children[i]);
	dev_free(dev);
}

void *inl_dev_priv(const struct inl_dev *dev)
{
	return dev->priv;
}

uint64_t inl_dev_size(const struct inl_dev *dev)
{
	return dev->size;
}

uint32_t inl_dev_block_size(const struct inl_dev *dev)
{
	return dev->block_size;
}

uint32_t inl_dev_sector_size(const struct inl_dev *dev)
{
	return dev->sector_size;
}

bool inl_dev_writable(const struct inl_dev *dev)
{
	return dev->writable;
}

const char *inl_dev_driver(const struct inl_dev *dev)
{
	return dev->ops->name;
}

const char *inl_dev_label(const struct inl_dev *dev)
{
	return dev->label;
}

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

void inl_dev_caps(const struct inl_dev *dev, struct inl_caps *out)
{
	pthread_mutex_lock(&tree_lock);
	*out = dev->caps;
	pthread_mutex_unlock(&tree_lock);
}

bool inl_dev_supports_natively(const struct inl_dev *dev, const struct inl_key_config *cfg)
{
	struct inl_caps caps;

	inl_dev_caps(dev, &caps);
	return inl_caps_supports(&caps, cfg);
}

bool inl_dev_supports(const struct inl_dev *dev, const struct inl_key_config *cfg)
{
	return inl_dev_supports_natively(dev, cfg) ||
	       (dev->fallback && cfg->type == INL_KEY_RAW && inl_cross_has_cipher(cfg));
}

const char *inl_dev_ciphers(const struct inl_dev *dev)
{
	return dev->ciphers;
}

bool inl_dev_fallback(const struct inl_dev *dev)
{
	return dev->fallback;
}

bool inl_tree_claim(struct inl_dev *dev, const struct inl_key_config *cfg)
{
	bool native;

	pthread_mutex_lock(&tree_lock);
	native = inl_caps_supports(&dev->caps, cfg);
	dev->n_native += native;
	pthread_mutex_unlock(&tree_lock);
	return native;
}

void inl_tree_release(struct inl_dev *dev)
{
	pthread_mutex_lock(&tree_lock);
	dev->n_native--;
	pthread_mutex_unlock(&tree_lock);
}

static bool in_use(const struct inl_dev *dev)
{
	bool used = dev->n_native;

	/* Stacks above rely on it before they have started their key here. */
	for (dev = dev->parent; dev && !dev->has_engine; dev = dev->parent)
		used |= dev->n_native > 0;
	return used;
}

int inl_dev_set_caps(struct inl_dev *dev, const struct inl_caps *caps)
{
	int err = 0;

	if (!dev->has_engine)
		return -EINVAL;
	pthread_mutex_lock(&tree_lock);
	if (!inl_caps_superset(caps, &dev->caps) && in_use(dev)) {
		err = -EBUSY;
	} else {
		dev->caps = *caps;
		for (struct inl_dev *above = dev->parent; above && !above->has_engine; above = above->parent)
			inherit_caps(above);
	}
	pthread_mutex_unlock(&tree_lock);
	return err;
}

/* ---- describing -------------------------------------------------------------------------------------------------- */

int inl_dev_n_slots(const struct inl_dev *dev)
{
	return dev->has_engine ? (int)dev->n_slots : -1;
}

struct inl_dev *inl_dev_child(const struct inl_dev *dev, unsigned i)
{
	return i < dev->n_children ? dev->children[i] : NULL;
}

struct inl_dev *inl_dev_find(struct inl_dev *dev, const char *driver)
{
	struct inl_dev *found = NULL;

	if (!strcmp(dev->ops->name, driver))
		return dev;
	for (unsigned i = 0; i < dev->n_children && !found; i++)
		found = inl_dev_find(dev->children[i], driver);
	return found;
}

int inl_dev_control(struct inl_dev *dev, const char *command, struct inl_diag *diag)
{
	if (!dev->ops->control)
		return inl_diag_set(diag, -ENOTTY, "the driver '%s' takes no commands", dev->ops->name);
	return dev->ops->control(dev, command, diag);
}

void inl_dev_counters(const struct inl_dev *dev, struct inl_counters *out)
{
	uint64_t values[INL_N_COUNTERS] = { 0 };

	for (unsigned shard = 0; shard < INL_N_SHARDS; shard++) {
		for (unsigned i = 0; i < INL_N_COUNTERS; i++)
			values[i] += atomic_load_explicit(&dev->counters[shard][i], memory_order_relaxed);
	}
	_Static_assert(sizeof(values) == sizeof(*out), "struct inl_counters holds nothing but 64-bit counters");
	memcpy(out, values, sizeof(values));
}

void inl_dev_count_units(struct inl_dev *dev, enum inl_op op, uint64_t n_units)
{
	if (op == INL_READ)
		INL_COUNT(dev, engine_units_decrypted, n_units);
	else
		INL_COUNT(dev, engine_units_encrypted, n_units);
}
