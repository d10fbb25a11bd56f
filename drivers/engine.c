/*
 * drivers/engine.c: inline crypto hardware, emulated before any device: key slots, or the key with each request.
 * Not here: the ciphers and bounce buffers (inl_cross_*); who gets a slot (the block layer).
 * Read more: ARCHITECTURE.md, "Devices"; Linux Documentation/block/inline-encryption.rst.
 *
 * Keyed bios cross the line here; plain and sealed ones pass. Units are counted by inl_cross_submit.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SLOTS_DEFAULT     4
#define SLOTS_MAX         1024
#define DUN_BYTES_DEFAULT 8                             /* as most controllers */
#define UNITS_DEFAULT     (2 * INL_UNIT_SIZE_MAX - 512) /* every power of two from 512 on */

struct engine {
	struct inl_cross *cross;
	unsigned n_slots;
	struct inl_cipher *slots[]; /* a schedule, or NULL: empty; changed by program and evict only */
};

/* ---- at work ----------------------------------------------------------------------------------------------------- */

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct engine *engine = inl_dev_priv(dev);

	if (inl_bio_kind(bio) != INL_BIO_KEYED)
		inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos);
	else
		inl_cross_submit(engine->cross, bio);
}

static void crypt_job(struct inl_dev *dev, struct inl_cross_job *job)
{
	struct engine *engine = inl_dev_priv(dev);
	int slot = inl_bio_slot(job->bio);
	const struct inl_cipher *cipher;

	if (!engine->n_slots)
		cipher = inl_bio_key_priv(job->bio);
	else
		cipher = slot >= 0 && (unsigned)slot < engine->n_slots ? engine->slots[slot] : NULL;
	inl_cross_done(job, cipher ? inl_cross_job_run(job, cipher) : -EIO);
}

static int key_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct engine *engine = inl_dev_priv(dev);

	inl_cross_cipher_free(engine->slots[slot]);
	engine->slots[slot] = NULL;
	return inl_cross_cipher_new(key, &engine->slots[slot]);
}

static int key_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct engine *engine = inl_dev_priv(dev);

	inl_cross_cipher_free(engine->slots[slot]);
	engine->slots[slot] = NULL;
	return 0;
}

static int key_start(struct inl_dev *dev, const struct inl_key *key, void **priv)
{
	struct inl_cipher *cipher;
	int err = inl_cross_cipher_new(key, &cipher);

	if (!err)
		*priv = cipher;
	return err;
}

static int key_stop(struct inl_dev *dev, const struct inl_key *key, void *priv)
{
	inl_cross_cipher_free(priv);
	return 0;
}

static void engine_free(struct engine *engine)
{
	if (!engine)
		return;
	for (unsigned i = 0; i < engine->n_slots; i++)
		inl_cross_cipher_free(engine->slots[i]);
	inl_cross_free(engine->cross);
	free(engine);
}

static void close_engine(struct inl_dev *dev)
{
	engine_free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops_slots = {
	.name = "engine",
	.submit = submit,
	.close = close_engine,
	.key_program = key_program,
	.key_evict = key_evict,
};

static const struct inl_dev_ops ops_no_slots = {
	.name = "engine",
	.submit = submit,
	.close = close_engine,
	.key_start = key_start,
	.key_stop = key_stop,
};

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

/* Has this build a cipher for the mode? Found out with a key that is thrown away. */
static bool mode_available(enum inl_blk_mode mode)
{
	struct inl_key_config cfg = { mode, 4096, 1, INL_KEY_RAW };
	uint8_t bytes[INL_KEY_SIZE_MAX];
	struct inl_cipher *cipher;
	struct inl_key *key;
	int err;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	if (inl_key_new(&cfg, bytes, inl_blk_mode_key_size(mode), &key))
		return false;
	err = inl_cross_cipher_new(key, &cipher);
	if (!err)
		inl_cross_cipher_free(cipher);
	inl_key_put(key);
	return !err;
}

/* The next piece of a list a+b+c: its length; *list moves behind the '+', to NULL after the last. */
static size_t next_piece(const char **list)
{
	size_t len = strcspn(*list, "+");

	*list = (*list)[len] ? *list + len + 1 : NULL;
	return len;
}

static enum inl_blk_mode find_mode(const char *name, size_t len)
{
	for (unsigned mode = 1; mode < INL_BLK_MODE_MAX; mode++) {
		const char *known = inl_blk_mode_name((enum inl_blk_mode)mode);

		if (known && strlen(known) == len && !strncasecmp(known, name, len))
			return (enum inl_blk_mode)mode;
	}
	return INL_BLK_MODE_INVALID;
}

static int unknown_mode(const struct inl_arg *arg, const char *name, size_t len, struct inl_diag *diag)
{
	char known[128] = "";
	size_t used = 0;

	for (unsigned mode = 1; mode < INL_BLK_MODE_MAX && used < sizeof(known); mode++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", mode > 1 ? ", " : "",
					 inl_blk_mode_name((enum inl_blk_mode)mode));
	return inl_spec_error(diag, -EINVAL, arg->column, "unknown mode '%.*s' (known: %s)", len < 32 ? (int)len : 32,
			      name, known);
}

static int set_modes(const struct inl_spec *spec, uint32_t units, struct inl_caps *caps, struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "modes");

	if (!arg) {
		for (unsigned mode = 1; mode < INL_BLK_MODE_MAX; mode++)
			caps->modes[mode] = mode_available((enum inl_blk_mode)mode) ? units : 0;
		return 0;
	}
	for (const char *list = arg->text; list;) {
		const char *name = list;
		size_t len = next_piece(&list);
		enum inl_blk_mode mode = find_mode(name, len);

		if (mode == INL_BLK_MODE_INVALID)
			return unknown_mode(arg, name, len, diag);
		if (!mode_available(mode))
			return inl_spec_error(diag, -ENOPKG, arg->column, "mode %s is not available in this build",
					      inl_blk_mode_name(mode));
		caps->modes[mode] = units;
	}
	return 0;
}

static int parse_units(const struct inl_spec *spec, uint32_t *units, struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "unit");

	*units = arg ? 0 : UNITS_DEFAULT;
	for (const char *list = arg ? arg->text : NULL; list;) {
		const char *text = list;
		size_t len = next_piece(&list);
		uint64_t unit;

		if (inl_spec_size(text, len, &unit) || unit < INL_UNIT_SIZE_MIN || unit > INL_UNIT_SIZE_MAX ||
		    (unit & (unit - 1)))
			return inl_spec_error(diag, -EINVAL, arg->column,
					      "unit '%.*s': expected powers of two, %d to %d, joined by '+'",
					      len < 32 ? (int)len : 32, text, INL_UNIT_SIZE_MIN, INL_UNIT_SIZE_MAX);
		*units |= (uint32_t)unit;
	}
	return 0;
}

static int parse_caps(const struct inl_spec *spec, struct inl_caps *caps, struct inl_diag *diag)
{
	uint64_t dun_bytes = inl_spec_number(spec, "dun_bytes", DUN_BYTES_DEFAULT);
	uint32_t units;
	int err;

	if (dun_bytes < 1 || dun_bytes > INL_DUN_BYTES_MAX)
		return inl_spec_error(diag, -EINVAL, inl_spec_arg(spec, "dun_bytes")->column,
				      "dun_bytes %llu: expected 1 to %d", (unsigned long long)dun_bytes,
				      INL_DUN_BYTES_MAX);
	caps->max_dun_bytes = (uint32_t)dun_bytes;
	caps->key_types = INL_KEY_RAW;
	err = parse_units(spec, &units, diag);
	return err ? err : set_modes(spec, units, caps, diag);
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

/* On failure the child remains the caller's. */
static int engine_new(struct inl_dev *child, const struct inl_caps *caps, unsigned n_slots, struct inl_dev **out)
{
	char label[32];
	struct inl_dev_params params = {
		.size = inl_dev_size(child),
		.block_size = inl_dev_block_size(child),
		.writable = inl_dev_writable(child),
		.has_engine = true,
		.n_slots = n_slots,
		.caps = *caps,
		.label = label,
		.children = &child,
		.n_children = 1,
	};
	struct engine *engine = calloc(1, sizeof(*engine) + n_slots * sizeof(engine->slots[0]));
	int err;

	if (!engine)
		return -ENOMEM;
	engine->n_slots = n_slots;
	snprintf(label, sizeof(label), "%u slots", n_slots);
	err = inl_dev_new(n_slots ? &ops_slots : &ops_no_slots, engine, &params, out);
	if (err)
		engine_free(engine);
	return err;
}

int inl_engine_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	uint64_t n_slots = inl_spec_number(spec, "slots", SLOTS_DEFAULT);
	struct inl_caps caps = { 0 };
	struct inl_dev *child, *dev;
	struct engine *engine;
	int err;

	if (n_slots > SLOTS_MAX)
		return inl_spec_error(diag, -EINVAL, inl_spec_arg(spec, "slots")->column,
				      "slots %llu: expected 0 to %d", (unsigned long long)n_slots, SLOTS_MAX);
	err = parse_caps(spec, &caps, diag);
	if (err)
		return err;
	err = inl_spec_open_child(spec, "device", flags, diag, &child);
	if (err)
		return err;
	err = engine_new(child, &caps, (unsigned)n_slots, &dev);
	if (err) {
		inl_dev_close(child);
		return inl_diag_set(diag, err, "engine: cannot make the device");
	}
	engine = inl_dev_priv(dev);
	err = inl_cross_new(dev, child, crypt_job, &engine->cross);
	if (err) {
		inl_dev_close(dev);
		return inl_diag_set(diag, err, "engine: cannot make the bounce buffers");
	}
	*out = dev;
	return 0;
}
