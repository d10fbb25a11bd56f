/*
 * drivers/engine.c: the driver of the emulated inline crypto chip: what the driver of a real one would do.
 * Not here: what the chip does (drivers/chip.c); who gets a slot (the block layer).
 * Read more: ARCHITECTURE.md, "Devices"; Linux Documentation/block/inline-encryption.rst.
 *
 * Keyed bios cross the line here; plain and sealed ones pass. The block layer cuts a keyed bio into jobs. A job waits
 * for a descriptor, is rung, and comes back with the interrupt. When the chip was reset under it, it waits until all
 * slots were programmed again, and is rung once more.
 *
 * Locks: control_lock, then lock; lock is held only for a few instructions, never while anybody is called.
 */
#include "base/secret.h"
#include "drivers/chip.h"
#include "drivers/drivers.h"
#include "drivers/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <inlay/wrapped.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SLOTS_DEFAULT     4
#define DUN_BYTES_DEFAULT 8                             /* as most controllers */
#define UNITS_DEFAULT     (2 * INL_UNIT_SIZE_MAX - 512) /* every power of two from 512 on */
#define TRIES_MAX         3                             /* of a job, if the chip is reset again and again */

static const char driver_name[] = "engine";

/* A descriptor: one job at the chip. */
struct request {
	struct inl_chip_request chip; /* first */
	struct engine *engine;
	struct inl_cross_job *job;
	uint64_t generation; /* engine->programmed when the job was taken */
	struct request *next_free;
};

/* What SPEC and control say the engine can do. */
struct choice {
	uint32_t modes; /* a bit per enum inl_blk_mode; 0: all that the chip can */
	uint32_t units; /* added up */
	uint32_t dun_bytes;
	uint32_t key_types; /* of enum inl_key_type */
};

struct engine {
	struct inl_dev *dev;
	struct inl_cross *cross;
	struct inl_chip *chip;
	unsigned n_slots;

	pthread_mutex_t control_lock; /* choice, and changing the capabilities */
	struct choice choice;

	pthread_mutex_t lock; /* all below but the keys */
	struct inl_cross_job *waiting, *waiting_tail;
	struct request *free;
	unsigned n_inside;   /* threads in pump() */
	pthread_cond_t outside; /* it became 0: for close, since a bio can be over before pump() is */
	bool recovering;     /* from a reset: nothing is rung */
	uint64_t programmed; /* the generation of the chip in which every slot holds what it should */
	uint64_t target;     /* what programmed will be after this recovery */
	struct request requests[INL_CHIP_DEPTH];
	_Atomic(const struct inl_key *) slot_keys[]; /* NULL: nothing known; not dereferenced */
};

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

/* The engine whose jobs this thread is ringing, in pump(), which is called from within itself if the chip answers at once. */
static _Thread_local const struct engine *pumping;

/* With the lock held. */
static void wait_in_line(struct engine *engine, struct inl_cross_job *job)
{
	job->next = NULL;
	if (engine->waiting)
		engine->waiting_tail->next = job;
	else
		engine->waiting = job;
	engine->waiting_tail = job;
}

/* The next job that can be rung, with a descriptor; NULL: there is none now. */
static struct request *next_request(struct engine *engine)
{
	struct request *request = NULL;

	pthread_mutex_lock(&engine->lock);
	if (engine->waiting && engine->free && !engine->recovering) {
		request = engine->free;
		engine->free = request->next_free;
		request->job = engine->waiting;
		engine->waiting = request->job->next;
		request->generation = engine->programmed;
	}
	pthread_mutex_unlock(&engine->lock);
	return request;
}

static void put_request(struct request *request)
{
	struct engine *engine = request->engine;

	pthread_mutex_lock(&engine->lock);
	request->next_free = engine->free;
	engine->free = request;
	pthread_mutex_unlock(&engine->lock);
}

static size_t range(const struct inl_chip_request *chip_request, uint64_t at, const uint8_t **src, uint8_t **dst)
{
	return inl_cross_job_range(((const struct request *)chip_request)->job, at, src, dst);
}

static void answered(struct inl_chip_request *chip_request, enum inl_chip_status status);

/* false: the slot does not hold the job's key, because it could not be programmed again. */
static bool fill(struct request *request)
{
	struct engine *engine = request->engine;
	struct inl_cross_job *job = request->job;
	int slot = engine->n_slots ? inl_bio_slot(job->bio) : -1;

	if (engine->n_slots &&
	    (slot < 0 || (unsigned)slot >= engine->n_slots ||
	     atomic_load_explicit(&engine->slot_keys[slot], memory_order_acquire) != inl_bio_key(job->bio)))
		return false;
	request->chip = (struct inl_chip_request){
		.slot = slot,
		.key = engine->n_slots ? NULL : inl_bio_key_priv(job->bio),
		.encrypt = job->encrypt,
		.unit = job->unit,
		.len = job->n_units * job->unit,
		.generation = request->generation,
		.range = range,
		.done = answered,
	};
	memcpy(request->chip.dun, job->dun, sizeof(job->dun));
	job->tries++;
	return true;
}

/* Ring whatever can be rung. Answers may come at once: they leave the rest to the loop that is under way. */
static void pump(struct engine *engine)
{
	const struct engine *outer = pumping;
	struct request *request;

	if (outer == engine)
		return;
	pthread_mutex_lock(&engine->lock);
	engine->n_inside++;
	pthread_mutex_unlock(&engine->lock);
	pumping = engine;
	while ((request = next_request(engine))) {
		struct inl_cross_job *job = request->job;

		if (fill(request)) {
			inl_chip_ring(engine->chip, &request->chip);
		} else {
			put_request(request);
			inl_cross_done(job, -EIO);
		}
	}
	pumping = outer;
	pthread_mutex_lock(&engine->lock);
	if (!--engine->n_inside)
		pthread_cond_broadcast(&engine->outside);
	pthread_mutex_unlock(&engine->lock);
}

static void take_job(struct inl_dev *dev, struct inl_cross_job *job)
{
	struct engine *engine = inl_dev_priv(dev);

	job->tries = 0;
	pthread_mutex_lock(&engine->lock);
	wait_in_line(engine, job);
	pthread_mutex_unlock(&engine->lock);
	pump(engine);
}

/* ---- recovery from a reset --------------------------------------------------------------------------------------- */

/*
 * With the lock held: is it on the caller to have the slots programmed again? (The keys of an engine without slots are
 * not lost; there it is a short way that ends in reprogrammed() all the same.)
 */
static bool begin_recovery(struct engine *engine)
{
	uint64_t generation = inl_chip_generation(engine->chip);

	if (engine->recovering || generation == engine->programmed)
		return false;
	engine->recovering = true;
	engine->target = generation;
	return true;
}

/* Interrupt: the chip was reset. */
static void on_reset(void *arg)
{
	struct engine *engine = arg;
	bool begun;

	pthread_mutex_lock(&engine->lock);
	begun = begin_recovery(engine);
	pthread_mutex_unlock(&engine->lock);
	if (begun)
		inl_dev_reprogram(engine->dev);
}

/*
 * The block layer has done what inl_dev_reprogram asked for. Requests of the generation that this was for may be made
 * now: a slot whose key could not be programmed again is known by then, see fill().
 */
static void reprogrammed(struct inl_dev *dev)
{
	struct engine *engine = inl_dev_priv(dev);

	pthread_mutex_lock(&engine->lock);
	engine->programmed = engine->target;
	engine->recovering = false;
	pthread_mutex_unlock(&engine->lock);
	on_reset(engine); /* there may have been another one meanwhile */
	pump(engine);
}

/*
 * A job came back because of a reset: line it up again. The recovery begins under the same lock, so that nobody rings the
 * job before the slots have their keys again: that would use up another of its tries.
 */
static void again(struct engine *engine, struct inl_cross_job *job)
{
	bool begun;

	pthread_mutex_lock(&engine->lock);
	wait_in_line(engine, job);
	begun = begin_recovery(engine);
	pthread_mutex_unlock(&engine->lock);
	if (begun)
		inl_dev_reprogram(engine->dev);
}

/* Interrupt: a request is done. */
static void answered(struct inl_chip_request *chip_request, enum inl_chip_status status)
{
	struct request *request = (struct request *)chip_request;
	struct engine *engine = request->engine;
	struct inl_cross_job *job = request->job;

	put_request(request);
	if (status == INL_CHIP_RESET && job->tries < TRIES_MAX)
		again(engine, job);
	else
		inl_cross_done(job, status == INL_CHIP_OK ? 0 : -EIO);
	pump(engine);
}

/* ---- the operations ---------------------------------------------------------------------------------------------- */

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct engine *engine = inl_dev_priv(dev);

	if (inl_bio_kind(bio) == INL_BIO_KEYED)
		inl_cross_submit(engine->cross, bio);
	else
		inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos);
}

static const struct {
	enum inl_blk_mode mode;
	enum inl_chip_alg alg;
} algs[] = {
	{ INL_BLK_MODE_AES_256_XTS, INL_CHIP_AES_256_XTS },
	{ INL_BLK_MODE_AES_128_CBC_ESSIV, INL_CHIP_AES_128_CBC_ESSIV },
	{ INL_BLK_MODE_ADIANTUM, INL_CHIP_ADIANTUM },
	{ INL_BLK_MODE_SM4_XTS, INL_CHIP_SM4_XTS },
};

#define N_ALGS (sizeof(algs) / sizeof(algs[0]))

static enum inl_chip_alg alg_of(enum inl_blk_mode mode)
{
	for (unsigned i = 0; i < N_ALGS; i++) {
		if (algs[i].mode == mode)
			return algs[i].alg;
	}
	return INL_CHIP_N_ALGS;
}

static struct inl_chip_config config_of(const struct inl_dev *dev, const struct inl_key *key)
{
	const struct inl_key_config *cfg = inl_key_config(key);
	struct inl_chip_config config = {
		.enable = true,
		.alg = alg_of(cfg->mode),
		.unit = cfg->data_unit_size,
		.kind = cfg->type == INL_KEY_HW_WRAPPED ? INL_CHIP_WRAPPED : INL_CHIP_RAW,
		.impl = inl_dev_ciphers(dev),
	};

	config.key = inl_key_bytes(key, &config.key_len);
	return config;
}

/* What the chip answers to anything but a request, as an error. */
static int error_of(enum inl_chip_status status)
{
	static const int errors[] = {
		[INL_CHIP_OK] = 0,	    [INL_CHIP_KEY] = -EIO,	[INL_CHIP_RESET] = -EIO,    [INL_CHIP_IO] = -EIO,
		[INL_CHIP_BAD] = -EOPNOTSUPP, [INL_CHIP_BLOB] = -EBADMSG, [INL_CHIP_MEMORY] = -ENOMEM,
	};

	return errors[status];
}

static int key_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct engine *engine = inl_dev_priv(dev);
	struct inl_chip_config config = config_of(dev, key);
	enum inl_chip_status status;

	atomic_store_explicit(&engine->slot_keys[slot], NULL, memory_order_release);
	status = inl_chip_write_slot(engine->chip, slot, &config);
	if (status == INL_CHIP_OK)
		atomic_store_explicit(&engine->slot_keys[slot], key, memory_order_release);
	return error_of(status);
}

static int key_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct engine *engine = inl_dev_priv(dev);
	struct inl_chip_config config = { .enable = false };

	atomic_store_explicit(&engine->slot_keys[slot], NULL, memory_order_release);
	return error_of(inl_chip_write_slot(engine->chip, slot, &config));
}

static int key_start(struct inl_dev *dev, const struct inl_key *key, void **priv)
{
	struct engine *engine = inl_dev_priv(dev);
	struct inl_chip_config config = config_of(dev, key);
	struct inl_chip_key *loaded;
	int err = error_of(inl_chip_key_load(engine->chip, &config, &loaded));

	if (!err)
		*priv = loaded;
	return err;
}

/* With slots nothing is kept per key; but a blob that the chip will refuse is refused now, and not in the middle of an I/O. */
static int key_check(struct inl_dev *dev, const struct inl_key *key, void **priv)
{
	struct engine *engine = inl_dev_priv(dev);
	uint8_t secret[INL_CHIP_SW_SECRET];
	const uint8_t *bytes;
	size_t len;
	int err;

	if (inl_key_config(key)->type != INL_KEY_HW_WRAPPED)
		return 0;
	if (inl_key_config(key)->mode != INL_BLK_MODE_AES_256_XTS)
		return -EOPNOTSUPP;
	bytes = inl_key_bytes(key, &len);
	err = error_of(inl_chip_sw_secret(engine->chip, bytes, len, secret));
	inl_wipe(secret, sizeof(secret));
	return err;
}

static int key_stop(struct inl_dev *dev, const struct inl_key *key, void *priv)
{
	struct engine *engine = inl_dev_priv(dev);

	return error_of(inl_chip_key_drop(engine->chip, priv));
}

static void engine_free(struct engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	while (engine->n_inside)
		pthread_cond_wait(&engine->outside, &engine->lock);
	pthread_mutex_unlock(&engine->lock);
	inl_chip_free(engine->chip); /* first: its threads may still be about to turn away from the last job */
	inl_cross_free(engine->cross);
	pthread_cond_destroy(&engine->outside);
	pthread_mutex_destroy(&engine->control_lock);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

static void close_engine(struct inl_dev *dev)
{
	engine_free(inl_dev_priv(dev));
}

static int control(struct inl_dev *dev, const char *command, struct inl_diag *diag);

static const struct inl_dev_ops ops_slots = {
	.name = driver_name,
	.submit = submit,
	.close = close_engine,
	.control = control,
	.key_program = key_program,
	.key_evict = key_evict,
	.reprogrammed = reprogrammed,
	.key_start = key_check,
};

static const struct inl_dev_ops ops_no_slots = {
	.name = driver_name,
	.submit = submit,
	.close = close_engine,
	.control = control,
	.reprogrammed = reprogrammed,
	.key_start = key_start,
	.key_stop = key_stop,
};

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

/* The next piece of a list a+b+c: its length; *list moves behind the '+', to NULL after the last. */
static size_t next_piece(const char **list)
{
	size_t len = strcspn(*list, "+");

	*list = (*list)[len] ? *list + len + 1 : NULL;
	return len;
}

static enum inl_blk_mode find_mode(const char *name, size_t len)
{
	for (unsigned i = 0; i < N_ALGS; i++) {
		const char *known = inl_blk_mode_name(algs[i].mode);

		if (strlen(known) == len && !strncasecmp(known, name, len))
			return algs[i].mode;
	}
	return INL_BLK_MODE_INVALID;
}

static int unknown_mode(const char *name, size_t len, struct inl_diag *diag)
{
	char known[128] = "";
	size_t used = 0;

	for (unsigned i = 0; i < N_ALGS && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
					 inl_blk_mode_name(algs[i].mode));
	return inl_diag_set(diag, -EINVAL, "unknown mode '%.*s' (known: %s)", len < 32 ? (int)len : 32, name, known);
}

static int parse_modes(const char *text, struct choice *choice, struct inl_diag *diag)
{
	choice->modes = 0;
	for (const char *list = text; list;) {
		const char *name = list;
		size_t len = next_piece(&list);
		enum inl_blk_mode mode = find_mode(name, len);

		if (mode == INL_BLK_MODE_INVALID)
			return unknown_mode(name, len, diag);
		if (!inl_chip_has_alg(alg_of(mode)))
			return inl_diag_set(diag, -ENOPKG, "mode %s is not available in this build",
					    inl_blk_mode_name(mode));
		choice->modes |= 1u << mode;
	}
	return 0;
}

static int parse_units(const char *text, struct choice *choice, struct inl_diag *diag)
{
	choice->units = 0;
	for (const char *list = text; list;) {
		const char *piece = list;
		size_t len = next_piece(&list);
		uint64_t unit;

		if (inl_size_parse(piece, len, &unit) || unit < INL_UNIT_SIZE_MIN || unit > INL_UNIT_SIZE_MAX ||
		    (unit & (unit - 1)))
			return inl_diag_set(diag, -EINVAL, "unit '%.*s': expected powers of two, %d to %d, joined by '+'",
					    len < 32 ? (int)len : 32, piece, INL_UNIT_SIZE_MIN, INL_UNIT_SIZE_MAX);
		choice->units |= (uint32_t)unit;
	}
	return 0;
}

static int parse_dun_bytes(const char *text, struct choice *choice, struct inl_diag *diag)
{
	uint64_t bytes;

	if (inl_size_parse(text, strlen(text), &bytes) || bytes < 1 || bytes > INL_DUN_BYTES_MAX)
		return inl_diag_set(diag, -EINVAL, "dun_bytes %.32s: expected 1 to %d", text, INL_DUN_BYTES_MAX);
	choice->dun_bytes = (uint32_t)bytes;
	return 0;
}

static int parse_keys(const char *text, struct choice *choice, struct inl_diag *diag)
{
	choice->key_types = 0;
	for (const char *list = text; list;) {
		const char *name = list;
		size_t len = next_piece(&list);

		if (len == 3 && !memcmp(name, "raw", 3))
			choice->key_types |= INL_KEY_RAW;
		else if (len == 7 && !memcmp(name, "wrapped", 7))
			choice->key_types |= INL_KEY_HW_WRAPPED;
		else
			return inl_diag_set(diag, -EINVAL, "keys '%.*s': expected raw, wrapped or raw+wrapped",
					    len < 32 ? (int)len : 32, name);
	}
	return 0;
}

static const struct caps_option {
	const char *name;
	int (*parse)(const char *text, struct choice *choice, struct inl_diag *diag);
} caps_options[] = {
	{ "modes", parse_modes },
	{ "unit", parse_units },
	{ "dun_bytes", parse_dun_bytes },
	{ "keys", parse_keys },
};

#define N_CAPS_OPTIONS (sizeof(caps_options) / sizeof(caps_options[0]))

/* What a chip must be to do what was chosen. */
static struct inl_chip_caps chip_caps_of(const struct choice *choice)
{
	struct inl_chip_caps caps = {
		.dun_bytes = choice->dun_bytes,
		.key_kinds = (choice->key_types & INL_KEY_RAW ? INL_CHIP_RAW : 0) |
			     (choice->key_types & INL_KEY_HW_WRAPPED ? INL_CHIP_WRAPPED : 0),
	};
	bool raw = choice->key_types & INL_KEY_RAW;

	for (unsigned i = 0; i < N_ALGS; i++) {
		bool chosen = choice->modes ? choice->modes >> algs[i].mode & 1 :
					      raw || algs[i].alg == INL_CHIP_AES_256_XTS;

		if (chosen && inl_chip_has_alg(algs[i].alg))
			caps.units[algs[i].alg] = choice->units;
	}
	return caps;
}

/* What the registers of a chip say, in the words of the block layer. */
static struct inl_caps caps_of(const struct inl_chip_caps *chip)
{
	struct inl_caps caps = {
		.max_dun_bytes = chip->dun_bytes,
		.key_types = (chip->key_kinds & INL_CHIP_RAW ? INL_KEY_RAW : 0) |
			     (chip->key_kinds & INL_CHIP_WRAPPED ? INL_KEY_HW_WRAPPED : 0),
	};

	for (unsigned i = 0; i < N_ALGS; i++)
		caps.modes[algs[i].mode] = chip->units[algs[i].alg];
	return caps;
}

static struct inl_chip_caps both(const struct inl_chip_caps *a, const struct inl_chip_caps *b)
{
	struct inl_chip_caps caps = {
		.dun_bytes = a->dun_bytes > b->dun_bytes ? a->dun_bytes : b->dun_bytes,
		.key_kinds = a->key_kinds | b->key_kinds,
	};

	for (unsigned i = 0; i < INL_CHIP_N_ALGS; i++)
		caps.units[i] = a->units[i] | b->units[i];
	return caps;
}

/* The chip can both while the block layer makes up its mind. */
static int change_caps(struct engine *engine, const struct choice *choice)
{
	struct inl_chip_caps old, next = chip_caps_of(choice), wide;
	struct inl_caps caps = caps_of(&next);
	int err;

	inl_chip_caps(engine->chip, &old);
	wide = both(&old, &next);
	inl_chip_set_caps(engine->chip, &wide);
	err = inl_dev_set_caps(engine->dev, &caps);
	inl_chip_set_caps(engine->chip, err ? &old : &next);
	return err;
}

static int control_caps(struct engine *engine, const struct caps_option *option, const char *text, struct inl_diag *diag)
{
	struct choice choice;
	int err;

	pthread_mutex_lock(&engine->control_lock);
	choice = engine->choice;
	err = option->parse(text, &choice, diag);
	if (!err) {
		err = change_caps(engine, &choice);
		if (err)
			inl_diag_set(diag, err, "%s: keys are started that might need what would be lost", option->name);
		else
			engine->choice = choice;
	}
	pthread_mutex_unlock(&engine->control_lock);
	return err;
}

static int control(struct inl_dev *dev, const char *command, struct inl_diag *diag)
{
	struct engine *engine = inl_dev_priv(dev);

	for (unsigned i = 0; i < N_CAPS_OPTIONS; i++) {
		size_t len = strlen(caps_options[i].name);

		if (!strncmp(command, caps_options[i].name, len) && command[len] == '=')
			return control_caps(engine, &caps_options[i], command + len + 1, diag);
	}
	return inl_chip_test(engine->chip, command, strlen(command), diag);
}

/* ---- wrapped keys ------------------------------------------------------------------------------------------------ */

static int find_chip(struct inl_dev *dev, struct inl_chip **out)
{
	struct inl_dev *found = inl_dev_find(dev, driver_name);
	struct inl_caps caps;

	/* Another driver of that name is not ours, and nor is its private state. */
	if (!found || inl_dev_driver(found) != driver_name)
		return -EOPNOTSUPP;
	inl_dev_caps(found, &caps);
	if (!(caps.key_types & INL_KEY_HW_WRAPPED))
		return -EOPNOTSUPP;
	*out = ((struct engine *)inl_dev_priv(found))->chip;
	return 0;
}

/* Hand a blob out: the end of the three functions that make one. */
static int give_blob(enum inl_chip_status status, const uint8_t made[INL_CHIP_BLOB_LEN], uint8_t *blob, size_t *len)
{
	if (status == INL_CHIP_OK) {
		memcpy(blob, made, INL_CHIP_BLOB_LEN);
		*len = INL_CHIP_BLOB_LEN;
	}
	return error_of(status);
}

int inl_dev_key_import(struct inl_dev *dev, const uint8_t *raw, size_t len, uint8_t *blob, size_t size, size_t *blob_len)
{
	uint8_t made[INL_CHIP_BLOB_LEN];
	enum inl_chip_status status;
	struct inl_chip *chip;
	int err = find_chip(dev, &chip);

	if (err)
		return err;
	status = inl_chip_import(chip, raw, len, made);
	if (status == INL_CHIP_BAD)
		return -EINVAL;
	return size < sizeof(made) ? -EOVERFLOW : give_blob(status, made, blob, blob_len);
}

int inl_dev_key_generate(struct inl_dev *dev, uint8_t *blob, size_t size, size_t *blob_len)
{
	uint8_t made[INL_CHIP_BLOB_LEN];
	struct inl_chip *chip;
	int err = find_chip(dev, &chip);

	if (err)
		return err;
	if (size < sizeof(made))
		return -EOVERFLOW;
	return give_blob(inl_chip_generate(chip, made), made, blob, blob_len);
}

int inl_dev_key_prepare(struct inl_dev *dev, const uint8_t *blob, size_t len, uint8_t *ephemeral, size_t size,
			size_t *ephemeral_len)
{
	uint8_t made[INL_CHIP_BLOB_LEN];
	enum inl_chip_status status;
	struct inl_chip *chip;
	int err = find_chip(dev, &chip);

	if (err)
		return err;
	status = inl_chip_prepare(chip, blob, len, made);
	if (status == INL_CHIP_OK && size < sizeof(made))
		return -EOVERFLOW;
	return give_blob(status, made, ephemeral, ephemeral_len);
}

int inl_dev_derive_sw_secret(struct inl_dev *dev, const uint8_t *ephemeral, size_t len,
			     uint8_t secret[INL_SW_SECRET_SIZE])
{
	struct inl_chip *chip;
	int err = find_chip(dev, &chip);

	return err ? err : error_of(inl_chip_sw_secret(chip, ephemeral, len, secret));
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

/* The options but for device and faults. */
struct options {
	struct choice choice;
	unsigned n_slots, n_threads;
	uint64_t latency; /* ns */
};

static int parse_number(const struct inl_spec *spec, const char *name, unsigned max, unsigned *out, struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, name);

	if (!arg)
		return 0;
	if (arg->number > max)
		return inl_spec_error(diag, -EINVAL, arg->column, "%s %llu: expected 0 to %u", name,
				      (unsigned long long)arg->number, max);
	*out = (unsigned)arg->number;
	return 0;
}

static int parse_caps(const struct inl_spec *spec, struct choice *choice, struct inl_diag *diag)
{
	for (unsigned i = 0; i < N_CAPS_OPTIONS; i++) {
		const struct inl_arg *arg = inl_spec_arg(spec, caps_options[i].name);
		struct inl_diag cause = { 0 };
		int err = arg ? caps_options[i].parse(arg->text, choice, &cause) : 0;

		if (err)
			return inl_spec_error(diag, err, arg->column, "%s", cause.text);
	}
	return 0;
}

static int parse_options(const struct inl_spec *spec, struct options *options, struct inl_diag *diag)
{
	const struct inl_arg *latency = inl_spec_arg(spec, "latency");
	int err;

	*options = (struct options){ .choice = { .units = UNITS_DEFAULT,
						 .dun_bytes = DUN_BYTES_DEFAULT,
						 .key_types = INL_KEY_RAW },
				     .n_slots = SLOTS_DEFAULT };
	err = parse_number(spec, "slots", INL_CHIP_SLOTS_MAX, &options->n_slots, diag);
	if (!err)
		err = parse_number(spec, "threads", INL_CHIP_THREADS_MAX, &options->n_threads, diag);
	if (!err)
		err = parse_caps(spec, &options->choice, diag);
	if (!err && latency && inl_time_parse(latency->text, strlen(latency->text), &options->latency))
		err = inl_spec_error(diag, -EINVAL, latency->column,
				     "latency '%.32s': expected digits and ns, us, ms or s, up to an hour", latency->text);
	return err;
}

/* Read the chip's secret. Returns 0; -EINVAL (not exactly as many bytes); errors of open and read. */
static int read_secret(const char *path, uint8_t secret[INL_CHIP_SECRET_LEN])
{
	INL_SECRET_ARRAY(bytes, INL_CHIP_SECRET_LEN + 1);
	size_t used = 0;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	while (n > 0 && used < sizeof(bytes)) {
		n = read(fd, bytes + used, sizeof(bytes) - used);
		used += n > 0 ? (size_t)n : 0;
	}
	err = n < 0 ? -errno : used == INL_CHIP_SECRET_LEN ? 0 : -EINVAL;
	close(fd);
	if (!err)
		memcpy(secret, bytes, INL_CHIP_SECRET_LEN);
	return err;
}

static int chip_new(struct engine *engine, const struct inl_spec *spec, const struct options *options,
		    struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "secret");
	INL_SECRET_ARRAY(secret, INL_CHIP_SECRET_LEN);
	struct inl_chip_setup setup = {
		.n_slots = options->n_slots,
		.n_threads = options->n_threads,
		.latency = options->latency,
		.caps = chip_caps_of(&options->choice),
		.secret = arg ? secret : NULL,
		.on_reset = on_reset,
		.arg = engine,
	};
	int err = arg ? read_secret(arg->text, secret) : 0;

	if (err == -EINVAL)
		return inl_spec_error(diag, err, arg->column, "secret: expected a file of exactly %d bytes",
				      INL_CHIP_SECRET_LEN);
	if (err)
		return inl_spec_error(diag, err, arg->column, "secret: cannot read '%.128s': %s", arg->text,
				      strerror(-err));
	err = inl_chip_new(&setup, &engine->chip);
	return err ? inl_diag_set(diag, err, "engine: cannot make the chip") : 0;
}

static struct engine *engine_alloc(const struct options *options)
{
	struct engine *engine = calloc(1, sizeof(*engine) + options->n_slots * sizeof(engine->slot_keys[0]));

	if (!engine)
		return NULL;
	pthread_cond_init(&engine->outside, NULL);
	pthread_mutex_init(&engine->control_lock, NULL);
	pthread_mutex_init(&engine->lock, NULL);
	engine->n_slots = options->n_slots;
	engine->choice = options->choice;
	for (unsigned i = 0; i < INL_CHIP_DEPTH; i++) {
		engine->requests[i].engine = engine;
		engine->requests[i].next_free = engine->free;
		engine->free = &engine->requests[i];
	}
	return engine;
}

/* A device before the child, which the engine's chip serves. On failure the child remains the caller's. */
static int device_new(struct engine *engine, struct inl_dev *child, const struct options *options, struct inl_dev **out)
{
	char label[48];
	struct inl_chip_caps chip_caps;
	struct inl_dev_params params = {
		.size = inl_dev_size(child),
		.block_size = inl_dev_block_size(child),
		.writable = inl_dev_writable(child),
		.has_engine = true,
		.n_slots = inl_chip_n_slots(engine->chip),
		.label = label,
		.children = &child,
		.n_children = 1,
	};

	inl_chip_caps(engine->chip, &chip_caps);
	params.caps = caps_of(&chip_caps);
	snprintf(label, sizeof(label), "%u slots", params.n_slots);
	if (options->n_threads)
		snprintf(label, sizeof(label), "%u slots, %u threads", params.n_slots, options->n_threads);
	return inl_dev_new(engine->n_slots ? &ops_slots : &ops_no_slots, engine, &params, out);
}

/* On failure the child remains the caller's. */
static int engine_new(const struct inl_spec *spec, const struct options *options, struct inl_dev *child,
		      struct inl_diag *diag, struct inl_dev **out)
{
	struct engine *engine = engine_alloc(options);
	int err;

	if (!engine)
		return inl_diag_set(diag, -ENOMEM, "engine: no memory");
	err = chip_new(engine, spec, options, diag);
	if (!err) {
		err = device_new(engine, child, options, out);
		if (err)
			inl_diag_set(diag, err, "engine: cannot make the device");
	}
	if (err)
		engine_free(engine);
	else
		engine->dev = *out;
	return err;
}

static int set_faults(struct engine *engine, const struct inl_spec *spec, struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "faults");
	struct inl_diag cause = { 0 };
	int err = arg ? inl_chip_test(engine->chip, arg->text, strlen(arg->text), &cause) : 0;

	return err ? inl_spec_error(diag, err, arg->column, "%s", cause.text) : 0;
}

int inl_engine_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev *child, *dev;
	struct options options;
	struct engine *engine;
	int err = parse_options(spec, &options, diag);

	if (!err)
		err = inl_spec_open_child(spec, "device", flags, diag, &child);
	if (err)
		return err;
	err = engine_new(spec, &options, child, diag, &dev);
	if (err) {
		inl_dev_close(child);
		return err;
	}
	engine = inl_dev_priv(dev);
	err = inl_cross_new(dev, child, take_job, &engine->cross);
	if (err)
		inl_diag_set(diag, err, "engine: cannot make the bounce buffers");
	else
		err = set_faults(engine, spec, diag);
	if (err)
		inl_dev_close(dev);
	else
		*out = dev;
	return err;
}
