/*
 * crypto/cipher.c: the table of ciphers, and the frame around every mode: data units, DUNs, schedules per thread.
 * Not here: the modes themselves (xts.c, cbc.c).
 * Read more: HACKING.md, "Adding a cipher".
 */
#include "crypto/cipher.h"
#include "base/endian.h"
#include "crypto/own.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_MIN 16
#define UNIT_MAX 65536

static const struct {
	struct inl_cipher_info info;
	const struct inl_mode *mode;	/* NULL: not available */
	const struct inl_cpu_mode *cpu; /* preferred where the CPU has it; may be NULL */
} ciphers[INL_CIPHER_MAX] = {
	[INL_CIPHER_AES_256_XTS] = { { "AES-256-XTS", 64, 16, 32, true }, &inl_mode_aes_256_xts, &inl_xts_vaes },
	[INL_CIPHER_AES_128_CBC_ESSIV] = { { "AES-128-CBC-ESSIV", 16, 16, 16, true }, &inl_mode_aes_128_cbc_essiv, NULL },
	[INL_CIPHER_AES_256_CTS] = { { "AES-256-CBC-CTS", 32, 16, 32, true }, &inl_mode_aes_256_cts, NULL },
	[INL_CIPHER_AES_128_CTS] = { { "AES-128-CBC-CTS", 16, 16, 16, true }, &inl_mode_aes_128_cts, NULL },
	[INL_CIPHER_ADIANTUM] = { { "Adiantum", 32, 32, 32, false }, NULL, NULL },
	[INL_CIPHER_AES_256_HCTR2] = { { "AES-256-HCTR2", 32, 32, 32, false }, NULL, NULL },
	[INL_CIPHER_SM4_XTS] = { { "SM4-XTS", 32, 16, 16, false }, NULL, NULL },
	[INL_CIPHER_SM4_CTS] = { { "SM4-CBC-CTS", 16, 16, 16, false }, NULL, NULL },
};

/*
 * Schedules for one direction. A thread takes the idle one, or, if another thread has it, a spare one, which is made
 * when there is none: never more than there were threads at once. None is made before the direction is first used,
 * since most files are only read or only written.
 */
struct lane {
	_Atomic(struct inl_schedule *) idle;
	struct inl_schedule *spares; /* under the cipher's lock */
};

struct inl_cipher {
	const struct inl_mode *mode;
	const struct inl_cpu_mode *cpu; /* NULL: by OpenSSL */
	void *secret;			/* secret memory: the key (OpenSSL), or the schedule */
	struct lane decrypt, encrypt;
	pthread_mutex_t lock;
};

const struct inl_cipher_info *inl_cipher_info(enum inl_cipher_id id)
{
	return (unsigned)id < INL_CIPHER_MAX && ciphers[id].info.name ? &ciphers[id].info : NULL;
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static void schedule_free(struct inl_schedule *schedule)
{
	if (!schedule)
		return;
	EVP_CIPHER_CTX_free(schedule->data);
	EVP_CIPHER_CTX_free(schedule->iv);
	free(schedule);
}

static struct inl_schedule *schedule_new(const struct inl_cipher *cipher, bool encrypt)
{
	struct inl_schedule *schedule = calloc(1, sizeof(*schedule));

	if (schedule && cipher->mode->prepare(schedule, cipher->secret, encrypt))
		return schedule;
	schedule_free(schedule);
	return NULL;
}

static struct inl_schedule *schedule_get(struct inl_cipher *cipher, struct lane *lane)
{
	struct inl_schedule *schedule = atomic_exchange_explicit(&lane->idle, NULL, memory_order_acquire);

	if (schedule)
		return schedule;
	pthread_mutex_lock(&cipher->lock);
	schedule = lane->spares;
	if (schedule)
		lane->spares = schedule->next;
	pthread_mutex_unlock(&cipher->lock);
	return schedule ? schedule : schedule_new(cipher, lane == &cipher->encrypt);
}

static void schedule_put(struct inl_cipher *cipher, struct lane *lane, struct inl_schedule *schedule)
{
	struct inl_schedule *none = NULL;

	if (atomic_compare_exchange_strong_explicit(&lane->idle, &none, schedule, memory_order_release,
						    memory_order_relaxed))
		return;
	pthread_mutex_lock(&cipher->lock);
	schedule->next = lane->spares;
	lane->spares = schedule;
	pthread_mutex_unlock(&cipher->lock);
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

/* ---- ciphers ----------------------------------------------------------------------------------------------------- */

/* Implementation i: ours if the CPU has it, then OpenSSL's. Sets *cpu to NULL for the latter. */
static bool choose(enum inl_cipher_id id, unsigned i, const struct inl_cpu_mode **cpu)
{
	const struct inl_cpu_mode *own = ciphers[id].cpu;

	*cpu = own && own->supported() ? own : NULL;
	if (*cpu && i == 1)
		*cpu = NULL;
	else if (i)
		return false;
	return *cpu || inl_evp_cipher(ciphers[id].mode->needs);
}

const char *inl_cipher_impl(enum inl_cipher_id id, unsigned i)
{
	const struct inl_cipher_info *info = inl_cipher_info(id);
	const struct inl_cpu_mode *cpu;

	if (!info || !info->available || !choose(id, i, &cpu))
		return NULL;
	return cpu ? cpu->name : "openssl";
}

int inl_cipher_new_impl(enum inl_cipher_id id, unsigned i, const uint8_t *key, struct inl_cipher **out)
{
	const struct inl_cipher_info *info = inl_cipher_info(id);
	const struct inl_cpu_mode *cpu;
	struct inl_cipher *cipher;

	if (!info || !info->available)
		return -ENOPKG;
	if (!choose(id, i, &cpu))
		return i ? -ENOENT : -ENOPKG;
	if (ciphers[id].mode->weak_key && ciphers[id].mode->weak_key(key))
		return -EINVAL;
	cipher = calloc(1, sizeof(*cipher));
	if (!cipher)
		return -ENOMEM;
	pthread_mutex_init(&cipher->lock, NULL);
	cipher->mode = ciphers[id].mode;
	cipher->cpu = cpu;
	cipher->secret = inl_secret_alloc(cpu ? cpu->schedule_size : info->key_size);
	if (!cipher->secret) {
		inl_cipher_free(cipher);
		return -ENOMEM;
	}
	if (cpu)
		cpu->prepare(cipher->secret, key);
	else
		memcpy(cipher->secret, key, info->key_size);
	*out = cipher;
	return 0;
}

int inl_cipher_new(enum inl_cipher_id id, const uint8_t *key, struct inl_cipher **out)
{
	return inl_cipher_new_impl(id, 0, key, out);
}

void inl_cipher_free(struct inl_cipher *cipher)
{
	if (!cipher)
		return;
	lane_done(&cipher->decrypt);
	lane_done(&cipher->encrypt);
	inl_secret_free(cipher->secret);
	pthread_mutex_destroy(&cipher->lock);
	free(cipher);
}

/* ---- data units -------------------------------------------------------------------------------------------------- */

static void dun_to_iv(const uint64_t dun[4], uint8_t iv[INL_IV_MAX])
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

static int crypt_units(struct inl_cipher *cipher, struct lane *lane, const uint64_t first[4], size_t n, size_t unit_len,
		       uint8_t *dst, const uint8_t *src)
{
	bool (*crypt)(struct inl_schedule *, const uint8_t *, uint8_t *, const uint8_t *, size_t) =
		lane == &cipher->encrypt ? cipher->mode->encrypt : cipher->mode->decrypt;
	uint64_t dun[4] = { first[0], first[1], first[2], first[3] };
	struct inl_schedule *schedule;
	uint8_t iv[INL_IV_MAX];
	bool ok;

	if (unit_len < UNIT_MIN || unit_len > UNIT_MAX || unit_len % cipher->mode->unit_step)
		return -EINVAL;
	if (cipher->cpu) {
		(lane == &cipher->encrypt ? cipher->cpu->encrypt : cipher->cpu->decrypt)(cipher->secret, first, n, unit_len,
											 dst, src);
		return 0;
	}
	schedule = schedule_get(cipher, lane);
	ok = schedule;
	for (size_t i = 0; ok && i < n; i++, dun_increment(dun)) {
		dun_to_iv(dun, iv);
		ok = crypt(schedule, iv, dst + i * unit_len, src + i * unit_len, unit_len);
	}
	if (!ok) {
		schedule_free(schedule);
		inl_wipe(dst, n * unit_len);
		return -EIO;
	}
	schedule_put(cipher, lane, schedule);
	return 0;
}

/* Callers see a cipher as constant: taking and returning schedules does not change what it computes. */
int inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src)
{
	struct inl_cipher *own = (struct inl_cipher *)cipher;

	return crypt_units(own, &own->encrypt, dun, n, unit_len, dst, src);
}

int inl_cipher_decrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src)
{
	struct inl_cipher *own = (struct inl_cipher *)cipher;

	return crypt_units(own, &own->decrypt, dun, n, unit_len, dst, src);
}
