/*
 * ext4/draw.c: random numbers and the time, as a volume that is written needs them; or, for one that is to come out the
 * same whenever it is made, numbers that follow from a seed and a time that stands.
 * Not here: where they go (inode.c, crypt.c, attr.c). MMP has its own: it is about this machine, now.
 * Read more: inlay/volume.h, inl_volume_fix.
 */
#include "ext4/change.h"
#include <errno.h>
#include <inlay/cipher.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUM_LEN 32 /* bytes, of SHA-256 */

void inl_draws_init(struct inl_draws *draws)
{
	memset(draws, 0, sizeof(*draws));
	pthread_mutex_init(&draws->lock, NULL);
}

void inl_draws_done(struct inl_draws *draws)
{
	pthread_mutex_destroy(&draws->lock);
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* SHA-256 of the seed and of a number that never comes again. */
static int draw_from_seed(struct inl_draws *draws, uint8_t sum[SUM_LEN])
{
	uint8_t bytes[sizeof(draws->seed) + 8];

	memcpy(bytes, draws->seed, sizeof(draws->seed));
	inl_store_le64(bytes + sizeof(draws->seed), draws->n_drawn++);
	return inl_sha256(bytes, sizeof(bytes), sum);
}

/* The system is asked for as much as it gives at once. lock: of draws */
static int refill(struct inl_draws *draws)
{
	int err = 0;

	if (!draws->fixed && getentropy(draws->bytes, sizeof(draws->bytes)))
		return -EIO;
	for (size_t i = 0; draws->fixed && !err && i < sizeof(draws->bytes); i += SUM_LEN)
		err = draw_from_seed(draws, draws->bytes + i);
	if (!err)
		draws->left = sizeof(draws->bytes);
	return err;
}

int inl_draw(struct inl_volume *vol, void *out, size_t len)
{
	struct inl_draws *draws = &vol->draws;
	int err = 0;

	pthread_mutex_lock(&draws->lock);
	if (draws->left < len)
		err = refill(draws);
	if (!err) {
		draws->left -= len;
		memcpy(out, draws->bytes + draws->left, len);
	}
	pthread_mutex_unlock(&draws->lock);
	return err;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

struct inl_time inl_now(const struct inl_volume *vol)
{
	struct timespec now;

	if (vol->draws.fixed)
		return vol->draws.now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (struct inl_time){ now.tv_sec, (uint32_t)now.tv_nsec };
}

int inl_volume_fix(struct inl_volume *vol, struct inl_time now, const uint8_t seed[32])
{
	struct inl_draws *draws = &vol->draws;

	if (!vol->txn)
		return -EROFS;
	if (now.nsec >= 1000000000u)
		return -EINVAL;
	pthread_mutex_lock(&draws->lock);
	draws->now = now;
	memcpy(draws->seed, seed, sizeof(draws->seed));
	draws->n_drawn = 0;
	draws->left = 0;
	draws->fixed = true;
	pthread_mutex_unlock(&draws->lock);
	return 0;
}
