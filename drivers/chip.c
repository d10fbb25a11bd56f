/*
 * drivers/chip.c: the emulated chip: slots with key schedules, a queue of requests, threads that do them, faults.
 * Not here: what its driver makes of it (drivers/engine.c).
 * Read more: drivers/chip.h.
 *
 * A slot and each request that was begun hold a reference to a schedule: a reset empties slots without waiting for
 * anybody, and the last one to let go wipes.
 */
#include "drivers/chip.h"
#include "base/secret.h"
#include "base/clock.h"
#include <inlay/cipher.h>
#include "crypto/wrap.h"
#include "drivers/faults.h"

#include <errno.h>
#include <inlay/driver.h> /* inl_dun_add */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>

_Static_assert(INL_CHIP_BLOB_LEN == INL_WRAP_BLOB && INL_CHIP_SECRET_LEN == INL_WRAP_KEY &&
		       INL_CHIP_SW_SECRET == INL_WRAP_SW_SECRET,
	       "what the chip shows of crypto/wrap.h");

/* An algorithm and an expanded key. In a slot, or loaded to go with requests. */
struct inl_chip_key {
	atomic_uint refs;
	enum inl_chip_alg alg;
	uint32_t unit;
	struct inl_cipher *cipher;
};

/* In secret memory. */
struct secrets {
	uint8_t long_term[INL_CHIP_SECRET_LEN];
	uint8_t ephemeral[INL_CHIP_SECRET_LEN]; /* of this boot, so to speak */
};

struct inl_chip {
	unsigned n_slots;
	bool queued; /* it has threads of the setup's */
	void (*on_reset)(void *arg);
	void *arg;
	struct secrets *secrets;
	struct inl_faults *faults;
	uint64_t latency_setup;
	_Atomic uint64_t latency;    /* ns */
	_Atomic uint64_t generation; /* changes under the lock */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t work;
	struct inl_chip_caps caps;
	struct inl_chip_request *head, *tail; /* by due */
	bool stopping;
	unsigned n_threads; /* that run */
	pthread_t threads[INL_CHIP_THREADS_MAX];
	struct inl_chip_key *slots[]; /* NULL: empty */
};

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static const enum inl_cipher_id ciphers[INL_CHIP_N_ALGS] = {
	[INL_CHIP_AES_256_XTS] = INL_CIPHER_AES_256_XTS,
	[INL_CHIP_AES_128_CBC_ESSIV] = INL_CIPHER_AES_128_CBC_ESSIV,
	[INL_CHIP_ADIANTUM] = INL_CIPHER_ADIANTUM,
	[INL_CHIP_SM4_XTS] = INL_CIPHER_SM4_XTS,
};

static const uint8_t label_long_term[INL_WRAP_LABEL] = { 'I', 'W', 'L', '1' };
static const uint8_t label_ephemeral[INL_WRAP_LABEL] = { 'I', 'W', 'E', '1' };

bool inl_chip_has_alg(enum inl_chip_alg alg)
{
	return inl_cipher_info(ciphers[alg])->available;
}

static enum inl_chip_status status_of(int err)
{
	switch (err) {
	case 0:
		return INL_CHIP_OK;
	case -ENOMEM:
		return INL_CHIP_MEMORY;
	case -EBADMSG:
		return INL_CHIP_BLOB;
	case -EIO:
		return INL_CHIP_IO;
	default:
		return INL_CHIP_BAD;
	}
}

static bool config_valid(struct inl_chip *chip, const struct inl_chip_config *config)
{
	struct inl_chip_caps caps;

	inl_chip_caps(chip, &caps);
	if (config->alg >= INL_CHIP_N_ALGS || !(caps.units[config->alg] & config->unit) ||
	    (config->unit & (config->unit - 1)) || !(caps.key_kinds & config->kind))
		return false;
	if (config->kind == INL_CHIP_WRAPPED)
		return config->alg == INL_CHIP_AES_256_XTS;
	return config->kind == INL_CHIP_RAW && config->key_len == inl_cipher_info(ciphers[config->alg])->key_size;
}

static int key_new(const struct inl_chip_config *config, const uint8_t *bytes, struct inl_chip_key **out)
{
	struct inl_chip_key *key = calloc(1, sizeof(*key));
	int err;

	if (!key)
		return -ENOMEM;
	err = inl_cipher_new(ciphers[config->alg], config->impl, bytes, &key->cipher);
	if (err) {
		free(key);
		return err;
	}
	atomic_init(&key->refs, 1);
	key->alg = config->alg;
	key->unit = config->unit;
	*out = key;
	return 0;
}

static void key_put(struct inl_chip_key *key)
{
	if (!key || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
		return;
	inl_cipher_free(key->cipher);
	free(key);
}

static int random_bytes(uint8_t *bytes, size_t len)
{
	return getrandom(bytes, len, 0) == (ssize_t)len ? 0 : -EIO;
}

/* What is left when a write breaks off: a key that nobody has. NULL if even that fails. */
static struct inl_chip_key *scrambled(const struct inl_chip_config *config)
{
	INL_SECRET_ARRAY(bytes, 64);
	struct inl_chip_key *key = NULL;

	if (!random_bytes(bytes, 64))
		key_new(config, bytes, &key);
	return key;
}

static int wrapped_key_new(struct inl_chip *chip, const struct inl_chip_config *config, struct inl_chip_key **out)
{
	INL_SECRET_ARRAY(raw, INL_WRAP_KEY);
	INL_SECRET_ARRAY(bytes, INL_WRAP_INLINE_KEY);
	int err = inl_wrap_open(chip->secrets->ephemeral, label_ephemeral, config->key, config->key_len, raw);

	if (!err)
		err = inl_wrap_inline_key(raw, bytes);
	return err ? err : key_new(config, bytes, out);
}

static bool fails(struct inl_chip *chip, unsigned what)
{
	struct inl_fault_rule rule;

	return inl_faults_event(chip->faults, what, &rule, 1) != 0;
}

enum word { WORD_RESET, WORD_PROGRAM, WORD_EVICT, WORD_IO, WORD_LATENCY, WORD_CLEAR };

enum inl_chip_status inl_chip_key_load(struct inl_chip *chip, const struct inl_chip_config *config,
				       struct inl_chip_key **out)
{
	bool fail = fails(chip, WORD_PROGRAM);

	if (!config->enable || !config_valid(chip, config))
		return INL_CHIP_BAD;
	if (fail)
		return INL_CHIP_IO;
	if (config->kind == INL_CHIP_WRAPPED)
		return status_of(wrapped_key_new(chip, config, out));
	return status_of(key_new(config, config->key, out));
}

enum inl_chip_status inl_chip_key_drop(struct inl_chip *chip, struct inl_chip_key *key)
{
	bool fail = fails(chip, WORD_EVICT);

	key_put(key);
	return fail ? INL_CHIP_IO : INL_CHIP_OK;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static void slot_set(struct inl_chip *chip, unsigned slot, struct inl_chip_key *key)
{
	struct inl_chip_key *old;

	pthread_mutex_lock(&chip->lock);
	old = chip->slots[slot];
	chip->slots[slot] = key;
	pthread_mutex_unlock(&chip->lock);
	key_put(old);
}

enum inl_chip_status inl_chip_write_slot(struct inl_chip *chip, unsigned slot, const struct inl_chip_config *config)
{
	struct inl_chip_key *key = NULL;
	enum inl_chip_status status;

	if (slot >= chip->n_slots)
		return INL_CHIP_BAD;
	if (!config->enable) {
		if (fails(chip, WORD_EVICT))
			return INL_CHIP_IO;
		slot_set(chip, slot, NULL);
		return INL_CHIP_OK;
	}
	status = inl_chip_key_load(chip, config, &key);
	if (status == INL_CHIP_IO)
		key = scrambled(config);
	slot_set(chip, slot, key);
	return status;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static bool dun_fits(const uint64_t dun[4], uint32_t bytes)
{
	for (unsigned i = bytes / 8; i < 4; i++) {
		unsigned n = i == bytes / 8 ? bytes % 8 : 0; /* bytes of this limb that count */

		if (n ? dun[i] >> (8 * n) : dun[i])
			return false;
	}
	return true;
}

static bool request_valid(const struct inl_chip_request *request, uint32_t dun_bytes)
{
	uint64_t last[4];

	if (!request->unit || !request->len || request->len % request->unit)
		return false;
	memcpy(last, request->dun, sizeof(last));
	inl_dun_add(last, request->len / request->unit - 1);
	return dun_fits(request->dun, dun_bytes) && dun_fits(last, dun_bytes);
}

/* The key for a request, referenced. From here on the request is finished whatever happens to the slot. */
static enum inl_chip_status begin(struct inl_chip *chip, struct inl_chip_request *request, struct inl_chip_key **out)
{
	enum inl_chip_status status = INL_CHIP_OK;
	struct inl_chip_key *key = request->key;

	pthread_mutex_lock(&chip->lock);
	if (request->slot >= 0)
		key = (unsigned)request->slot < chip->n_slots ? chip->slots[request->slot] : NULL;
	if (request->generation != atomic_load(&chip->generation))
		status = INL_CHIP_RESET;
	else if (!key || key->unit != request->unit)
		status = INL_CHIP_KEY;
	else if (!request_valid(request, chip->caps.dun_bytes))
		status = INL_CHIP_BAD;
	else
		atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&chip->lock);
	*out = key;
	return status;
}

static enum inl_chip_status work(const struct inl_chip_request *request, const struct inl_chip_key *key)
{
	uint32_t unit = request->unit;
	uint64_t dun[4];

	memcpy(dun, request->dun, sizeof(dun));
	for (uint64_t at = 0; at < request->len;) {
		const uint8_t *src;
		uint8_t *dst;
		size_t len = request->range(request, at, &src, &dst), n = len / unit;
		int err = request->encrypt ? inl_cipher_encrypt(key->cipher, dun, n, unit, dst, src) :
					     inl_cipher_decrypt(key->cipher, dun, n, unit, dst, src);

		if (err || !n)
			return INL_CHIP_IO;
		inl_dun_add(dun, n);
		at += len;
	}
	return INL_CHIP_OK;
}

static void perform(struct inl_chip *chip, struct inl_chip_request *request)
{
	struct inl_chip_key *key;
	enum inl_chip_status status = begin(chip, request, &key);

	if (status == INL_CHIP_OK) {
		status = request->fail ? INL_CHIP_IO : work(request, key);
		key_put(key);
	}
	request->done(request, status);
}

/* Into the queue, by due. Nearly always at its end. */
static void enqueue(struct inl_chip *chip, struct inl_chip_request *request)
{
	struct inl_chip_request **at = &chip->head;

	pthread_mutex_lock(&chip->lock);
	if (chip->head && chip->tail->due <= request->due)
		at = &chip->tail->next;
	else
		while (*at && (*at)->due <= request->due)
			at = &(*at)->next;
	request->next = *at;
	*at = request;
	if (!request->next)
		chip->tail = request;
	pthread_cond_signal(&chip->work);
	pthread_mutex_unlock(&chip->lock);
}

static void do_reset(struct inl_chip *chip, struct inl_chip_request *first);

void inl_chip_ring(struct inl_chip *chip, struct inl_chip_request *request)
{
	uint64_t latency = atomic_load_explicit(&chip->latency, memory_order_relaxed);

	request->next = NULL;
	request->due = latency ? inl_now_ns() + latency : 0;
	request->fail = fails(chip, WORD_IO);
	if (fails(chip, WORD_RESET))
		do_reset(chip, request);
	else if (latency || chip->queued)
		enqueue(chip, request);
	else
		perform(chip, request);
}

/* ---- reset ------------------------------------------------------------------------------------------------------- */

/* first: a request that arrives at this moment, or NULL. */
static void do_reset(struct inl_chip *chip, struct inl_chip_request *first)
{
	struct inl_chip_request *aborted, *next;

	pthread_mutex_lock(&chip->lock);
	atomic_fetch_add(&chip->generation, 1);
	for (unsigned i = 0; i < chip->n_slots; i++) {
		key_put(chip->slots[i]);
		chip->slots[i] = NULL;
	}
	aborted = chip->head;
	chip->head = NULL;
	pthread_mutex_unlock(&chip->lock);
	if (first) {
		first->next = aborted;
		aborted = first;
	}
	for (; aborted; aborted = next) {
		next = aborted->next;
		aborted->done(aborted, INL_CHIP_RESET);
	}
	chip->on_reset(chip->arg);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* With the lock held. The first request if it is due; otherwise waits for a while and returns NULL. */
static struct inl_chip_request *take(struct inl_chip *chip)
{
	struct inl_chip_request *request = chip->head;
	struct timespec until;

	if (!request) {
		pthread_cond_wait(&chip->work, &chip->lock);
		return NULL;
	}
	if (request->due > inl_now_ns()) {
		until = inl_timespec_of(request->due);
		pthread_cond_timedwait(&chip->work, &chip->lock, &until);
		return NULL;
	}
	chip->head = request->next;
	/* The one who was woken for what is left may have been this thread. */
	if (chip->head)
		pthread_cond_signal(&chip->work);
	return request;
}

static void *thread_main(void *arg)
{
	struct inl_chip *chip = arg;

	prctl(PR_SET_NAME, "inlay-chip");
	prctl(PR_SET_TIMERSLACK, 1); /* ns; the default of 50 us is a latency of its own */
	pthread_mutex_lock(&chip->lock);
	while (!chip->stopping) {
		struct inl_chip_request *request = take(chip);

		if (!request)
			continue;
		pthread_mutex_unlock(&chip->lock);
		perform(chip, request);
		pthread_mutex_lock(&chip->lock);
	}
	pthread_mutex_unlock(&chip->lock);
	return NULL;
}

/* With the lock held. Signals are for the threads of the program. */
static int start_threads(struct inl_chip *chip, unsigned n)
{
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && chip->n_threads < n) {
		err = pthread_create(&chip->threads[chip->n_threads], NULL, thread_main, chip);
		if (!err)
			chip->n_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

/* A chip that is not to answer at once needs somebody who does it later. */
static int set_latency(struct inl_chip *chip, uint64_t ns)
{
	int err = 0;

	pthread_mutex_lock(&chip->lock);
	if (ns && !chip->n_threads)
		err = start_threads(chip, 1);
	pthread_mutex_unlock(&chip->lock);
	if (!err)
		atomic_store(&chip->latency, ns);
	return err;
}

static void stop_threads(struct inl_chip *chip)
{
	pthread_mutex_lock(&chip->lock);
	chip->stopping = true;
	pthread_cond_broadcast(&chip->work);
	pthread_mutex_unlock(&chip->lock);
	for (unsigned i = 0; i < chip->n_threads; i++)
		pthread_join(chip->threads[i], NULL);
}

/* ---- making and describing --------------------------------------------------------------------------------------- */

static struct secrets *secrets_new(const uint8_t *long_term)
{
	struct secrets *secrets = inl_secret_alloc(sizeof(*secrets));

	if (!secrets)
		return NULL;
	if (long_term)
		memcpy(secrets->long_term, long_term, INL_CHIP_SECRET_LEN);
	if ((!long_term && random_bytes(secrets->long_term, INL_CHIP_SECRET_LEN)) ||
	    random_bytes(secrets->ephemeral, INL_CHIP_SECRET_LEN)) {
		inl_secret_free(secrets);
		return NULL;
	}
	return secrets;
}

int inl_chip_new(const struct inl_chip_setup *setup, struct inl_chip **out)
{
	struct inl_chip *chip;
	int err;

	if (setup->n_slots > INL_CHIP_SLOTS_MAX || setup->n_threads > INL_CHIP_THREADS_MAX)
		return -EINVAL;
	chip = calloc(1, sizeof(*chip) + setup->n_slots * sizeof(chip->slots[0]));
	if (!chip)
		return -ENOMEM;
	pthread_mutex_init(&chip->lock, NULL);
	inl_cond_init(&chip->work);
	chip->n_slots = setup->n_slots;
	chip->queued = setup->n_threads != 0;
	chip->on_reset = setup->on_reset;
	chip->arg = setup->arg;
	chip->caps = setup->caps;
	chip->latency_setup = setup->latency;
	chip->secrets = secrets_new(setup->secret);
	err = chip->secrets ? inl_faults_new(&chip->faults) : -ENOMEM;
	if (!err) {
		pthread_mutex_lock(&chip->lock);
		err = start_threads(chip, setup->n_threads);
		pthread_mutex_unlock(&chip->lock);
	}
	if (!err)
		err = set_latency(chip, setup->latency);
	if (err) {
		inl_chip_free(chip);
		return err;
	}
	*out = chip;
	return 0;
}

void inl_chip_free(struct inl_chip *chip)
{
	if (!chip)
		return;
	stop_threads(chip);
	for (unsigned i = 0; i < chip->n_slots; i++)
		key_put(chip->slots[i]);
	pthread_cond_destroy(&chip->work);
	pthread_mutex_destroy(&chip->lock);
	inl_faults_free(chip->faults);
	inl_secret_free(chip->secrets);
	free(chip);
}

unsigned inl_chip_n_slots(const struct inl_chip *chip)
{
	return chip->n_slots;
}

void inl_chip_caps(struct inl_chip *chip, struct inl_chip_caps *out)
{
	pthread_mutex_lock(&chip->lock);
	*out = chip->caps;
	pthread_mutex_unlock(&chip->lock);
}

void inl_chip_set_caps(struct inl_chip *chip, const struct inl_chip_caps *caps)
{
	pthread_mutex_lock(&chip->lock);
	chip->caps = *caps;
	pthread_mutex_unlock(&chip->lock);
}

uint64_t inl_chip_generation(struct inl_chip *chip)
{
	return atomic_load(&chip->generation);
}

/* ---- wrapped keys ------------------------------------------------------------------------------------------------ */

enum inl_chip_status inl_chip_import(struct inl_chip *chip, const uint8_t *raw, size_t len, uint8_t *blob)
{
	if (len != INL_WRAP_KEY)
		return INL_CHIP_BAD;
	return status_of(inl_wrap_seal(chip->secrets->long_term, label_long_term, raw, blob));
}

enum inl_chip_status inl_chip_generate(struct inl_chip *chip, uint8_t *blob)
{
	INL_SECRET_ARRAY(raw, INL_WRAP_KEY);

	if (random_bytes(raw, INL_WRAP_KEY))
		return INL_CHIP_IO;
	return inl_chip_import(chip, raw, INL_WRAP_KEY, blob);
}

enum inl_chip_status inl_chip_prepare(struct inl_chip *chip, const uint8_t *blob, size_t len, uint8_t *ephemeral)
{
	INL_SECRET_ARRAY(raw, INL_WRAP_KEY);
	int err = inl_wrap_open(chip->secrets->long_term, label_long_term, blob, len, raw);

	if (!err)
		err = inl_wrap_seal(chip->secrets->ephemeral, label_ephemeral, raw, ephemeral);
	return status_of(err);
}

enum inl_chip_status inl_chip_sw_secret(struct inl_chip *chip, const uint8_t *ephemeral, size_t len,
					uint8_t secret[INL_CHIP_SW_SECRET])
{
	INL_SECRET_ARRAY(raw, INL_WRAP_KEY);
	int err = inl_wrap_open(chip->secrets->ephemeral, label_ephemeral, ephemeral, len, raw);

	if (!err)
		err = inl_wrap_sw_secret(raw, secret);
	return status_of(err);
}

/* ---- the test port ----------------------------------------------------------------------------------------------- */

static const struct inl_fault_word words[] = {
	[WORD_RESET] = { "reset", INL_FAULT_BARE | INL_FAULT_EVENTS, "reset, reset@N" },
	[WORD_PROGRAM] = { "program", INL_FAULT_EVENTS, "program@N" },
	[WORD_EVICT] = { "evict", INL_FAULT_EVENTS, "evict@N" },
	[WORD_IO] = { "io", INL_FAULT_EVENTS, "io@N" },
	[WORD_LATENCY] = { "latency", INL_FAULT_VALUE, "latency=TIME" },
	[WORD_CLEAR] = { "clear", INL_FAULT_BARE, "clear" },
	{ NULL },
};

static int apply(struct inl_chip *chip, const struct inl_fault_rule *rule, struct inl_diag *diag)
{
	int err = 0;

	if (rule->what == WORD_LATENCY) {
		err = set_latency(chip, rule->number[0]);
	} else if (rule->what == WORD_CLEAR) {
		inl_faults_clear(chip->faults);
		err = set_latency(chip, chip->latency_setup);
	} else if (rule->form == INL_FAULT_BARE) {
		do_reset(chip, NULL);
	} else {
		err = inl_faults_add(chip->faults, rule, 1);
	}
	if (err == -ENOSPC)
		return inl_diag_set(diag, err, "more than %d rules at work: 'clear' ends them", INL_FAULT_RULES_MAX);
	return err ? inl_diag_set(diag, err, "cannot start a thread that keeps the time") : 0;
}

int inl_chip_test(struct inl_chip *chip, const char *text, size_t len, struct inl_diag *diag)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n = 0;
	int err = inl_faults_parse(text, len, words, diag, rules, &n);

	for (unsigned i = 0; i < n && !err; i++) {
		if (rules[i].what == WORD_LATENCY && inl_time_parse(rules[i].value, strlen(rules[i].value), rules[i].number))
			err = inl_diag_set(diag, -EINVAL, "latency '%s': expected digits and ns, us, ms or s, up to an hour",
					   rules[i].value);
	}
	for (unsigned i = 0; i < n && !err; i++)
		err = apply(chip, &rules[i], diag);
	return err;
}
