/*
 * crypto/lanes.c: implementations of OpenSSL: its contexts carry an IV, so each thread needs one of its own.
 * Not here: the modes (evp_xts.c, cbc.c), implementations of our own.
 * Read more: HACKING.md, "Adding a cipher"; EVP_EncryptInit(3).
 */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/own.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define IV_MAX 32 /* bytes */

/*
 * Schedules for one direction. A thread takes the idle one, or, if another thread has it, a spare one, which is made
 * when there is none: never more than there were threads at once. None is made before the direction is first used,
 * since most files are only read or only written.
 */
struct lane {
	_Atomic(struct inl_schedule *) idle;
	struct inl_schedule *spares; /* lock: of both lanes */
};

struct both {
	struct lane decrypt, encrypt;
	pthread_mutex_t lock;
};

/* The state: secret memory, for it has the key. */
struct lanes {
	struct both *both; /* ordinary memory, as the contexts are */
	uint8_t key[INL_EVP_KEY_MAX];
};

static_assert(sizeof(struct lanes) == INL_LANES_SIZE, "as implementations say");

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static void schedule_free(struct inl_schedule *schedule)
{
	if (!schedule)
		return;
	EVP_CIPHER_CTX_free(schedule->data);
	EVP_CIPHER_CTX_free(schedule->iv);
	free(schedule);
}

static struct inl_schedule *schedule_new(const struct inl_evp_mode *mode, const struct lanes *lanes, bool encrypt)
{
	struct inl_schedule *schedule = calloc(1, sizeof(*schedule));

	if (schedule && mode->prepare(schedule, lanes->key, encrypt))
		return schedule;
	schedule_free(schedule);
	return NULL;
}

static struct inl_schedule *schedule_get(const struct inl_evp_mode *mode, struct lanes *lanes, struct lane *lane)
{
	struct inl_schedule *schedule = atomic_exchange_explicit(&lane->idle, NULL, memory_order_acquire);

	if (schedule)
		return schedule;
	pthread_mutex_lock(&lanes->both->lock);
	schedule = lane->spares;
	if (schedule)
		lane->spares = schedule->next;
	pthread_mutex_unlock(&lanes->both->lock);
	return schedule ? schedule : schedule_new(mode, lanes, lane == &lanes->both->encrypt);
}

static void schedule_put(struct lanes *lanes, struct lane *lane, struct inl_schedule *schedule)
{
	struct inl_schedule *none = NULL;

	if (atomic_compare_exchange_strong_explicit(&lane->idle, &none, schedule, memory_order_release,
						    memory_order_relaxed))
		return;
	pthread_mutex_lock(&lanes->both->lock);
	schedule->next = lane->spares;
	lane->spares = schedule;
	pthread_mutex_unlock(&lanes->both->lock);
}

static void lane_done(struct lane *lane)
{
	schedule_free(atomic_load(&lane->idle));
	while (lane->spares) {
		struct inl_schedule *next = lane->spares->next;

		schedule_free(lane->spares);
		lane->spares = next;
	}
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

bool inl_lanes_offered(const struct inl_impl *impl)
{
	return inl_evp_cipher(((const struct inl_evp_mode *)impl->code)->needs);
}

int inl_lanes_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size)
{
	struct lanes *lanes = state;

	lanes->both = calloc(1, sizeof(*lanes->both));
	if (!lanes->both)
		return -ENOMEM;
	pthread_mutex_init(&lanes->both->lock, NULL);
	memcpy(lanes->key, key, key_size);
	return 0;
}

void inl_lanes_done(void *state)
{
	struct lanes *lanes = state;

	lane_done(&lanes->both->decrypt);
	lane_done(&lanes->both->encrypt);
	pthread_mutex_destroy(&lanes->both->lock);
	free(lanes->both);
}

/* ---- data units -------------------------------------------------------------------------------------------------- */

static void dun_to_iv(const uint64_t dun[4], uint8_t iv[IV_MAX])
{
	for (int limb = 0; limb < 4; limb++)
		inl_store_le64(iv + 8 * limb, dun[limb]);
}

static void dun_increment(uint64_t dun[4])
{
	for (int limb = 0; limb < 4; limb++)
		if (++dun[limb])
			return;
}

static bool crypt_span(const struct inl_evp_mode *mode, struct inl_schedule *schedule, uint64_t dun[4], size_t len,
		       const struct inl_cipher_span *span, bool encrypt)
{
	uint8_t iv[IV_MAX];

	for (size_t i = 0; i < span->n; i++, dun_increment(dun)) {
		dun_to_iv(dun, iv);
		if (!(encrypt ? mode->encrypt : mode->decrypt)(schedule, iv, span->dst + i * len, span->src + i * len, len))
			return false;
	}
	return true;
}

int inl_lanes_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	struct lanes *lanes = state;
	struct lane *lane = encrypt ? &lanes->both->encrypt : &lanes->both->decrypt;
	uint64_t dun[4] = { units->dun[0], units->dun[1], units->dun[2], units->dun[3] };
	struct inl_schedule *schedule = schedule_get(impl->code, lanes, lane);
	bool ok = schedule;

	for (size_t i = 0; ok && i < units->n_spans; i++)
		ok = crypt_span(impl->code, schedule, dun, units->unit_len, &units->spans[i], encrypt);
	if (!ok) {
		schedule_free(schedule);
		for (size_t i = 0; i < units->n_spans; i++)
			inl_wipe(units->spans[i].dst, units->spans[i].n * units->unit_len);
		return -EIO;
	}
	schedule_put(lanes, lane, schedule);
	return 0;
}
