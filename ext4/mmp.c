/*
 * ext4/mmp.c: multiple mount protection: a block that says who has the volume, written anew every few seconds.
 * Not here: other locks (drivers/file.c). It protects between hosts only if their reads and writes reach the shared
 * medium: the kernel's page cache must not lie between (direct I/O).
 * Read more: Linux Documentation/filesystems/ext4/mmp.rst.
 *
 * Locks: mmp->lock, which is held during the I/O of the block.
 */
#include "ext4/change.h"
#include "base/clock.h"
#include "base/crc.h"
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>

#define MMP_MAGIC     0x004d4d50u
#define SEQ_CLEAN     0xff4d4d50u
#define SEQ_FSCK      0xe24d4d50u
#define SEQ_MAX	      0xe24d4d4fu
#define NODE_LEN      64u
#define DEVICE_LEN    32u
#define UPDATE_DEFAULT 5u /* seconds */
#define CHECK_MIN     5u
#define CHECK_MAX     300u
#define CHECK_FACTOR  2u /* of the time that an update takes */

enum { AT_SEQ = 4, AT_TIME = 8, AT_NODE = 16, AT_DEVICE = 80, AT_CHECK = 112, AT_CSUM = 1020 };

struct inl_mmp {
	struct inl_volume *vol;
	uint64_t offset; /* bytes, on the device */
	uint64_t second; /* nanoseconds: 10^9, but in tests */
	uint32_t update; /* seconds between writes */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* lock: */
	uint8_t *block, *seen; /* as it was written last; room to read */
	uint32_t check;	       /* seconds after which others may think that we are gone */
	uint64_t written;      /* when: inl_now_ns */
	bool stop;
	int lost; /* -EBUSY: somebody else has written the block */
};

/* ---- the block --------------------------------------------------------------------------------------------------- */

static uint32_t checksum(const struct inl_mmp *mmp, const uint8_t *block)
{
	return inl_crc32c(mmp->vol->csum_seed, block, AT_CSUM);
}

static int read_block(const struct inl_mmp *mmp, uint8_t *block)
{
	int err = inl_dev_read_bytes(mmp->vol->dev, mmp->offset, block, mmp->vol->block_size);

	if (err)
		return err;
	if (inl_load_le32(block) != MMP_MAGIC)
		return -EUCLEAN;
	return mmp->vol->metadata_csum && inl_load_le32(block + AT_CSUM) != checksum(mmp, block) ? -EUCLEAN : 0;
}

static int write_block(struct inl_mmp *mmp, uint32_t seq)
{
	struct iovec seg = { mmp->block, mmp->vol->block_size };
	struct inl_bio bio;
	int err;

	inl_store_le32(mmp->block + AT_SEQ, seq);
	inl_store_le64(mmp->block + AT_TIME, (uint64_t)time(NULL));
	if (mmp->vol->metadata_csum)
		inl_store_le32(mmp->block + AT_CSUM, checksum(mmp, mmp->block));
	inl_bio_init_plain(&bio, INL_WRITE, mmp->offset, &seg, 1);
	bio.flags = INL_BIO_FUA;
	err = inl_submit_wait(mmp->vol->dev, &bio);
	if (!err)
		mmp->written = inl_now_ns();
	return err;
}

static uint32_t seq_of(const uint8_t *block)
{
	return inl_load_le32(block + AT_SEQ);
}

static uint32_t random_seq(void)
{
	uint32_t seq;

	if (getrandom(&seq, sizeof(seq), 0) != sizeof(seq))
		seq = (uint32_t)inl_now_ns();
	return seq % SEQ_MAX + 1;
}

/* Who writes it, and how long others have to wait before they take the volume over. */
static void sign(struct inl_mmp *mmp)
{
	const char *label = inl_dev_label(mmp->vol->dev), *slash = strrchr(label, '/');
	struct utsname names = { 0 };

	uname(&names);
	memset(mmp->block + AT_NODE, 0, NODE_LEN + DEVICE_LEN);
	snprintf((char *)mmp->block + AT_NODE, NODE_LEN, "%.*s", (int)NODE_LEN - 1, names.nodename);
	snprintf((char *)mmp->block + AT_DEVICE, DEVICE_LEN, "%.*s", (int)DEVICE_LEN - 1, slash ? slash + 1 : label);
	inl_store_le16(mmp->block + AT_CHECK, (uint16_t)mmp->check);
}

static uint32_t clamp_check(uint64_t seconds)
{
	return seconds < CHECK_MIN ? CHECK_MIN : seconds > CHECK_MAX ? CHECK_MAX : (uint32_t)seconds;
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Is the block as we left it? What cannot be read is no sign of anybody. */
static int look(struct inl_mmp *mmp)
{
	int err = mmp->lost ? mmp->lost : read_block(mmp, mmp->seen);

	if (!err && (seq_of(mmp->seen) != seq_of(mmp->block) ||
		     memcmp(mmp->seen + AT_NODE, mmp->block + AT_NODE, NODE_LEN)))
		mmp->lost = err = -EBUSY;
	return err;
}

/* When a write takes long, others have to wait longer. A write that fails is tried again the next time. */
static void update(struct inl_mmp *mmp)
{
	uint32_t seq = seq_of(mmp->block);
	uint64_t start = inl_now_ns();

	inl_store_le16(mmp->block + AT_CHECK, (uint16_t)mmp->check);
	write_block(mmp, seq < SEQ_MAX ? seq + 1 : 1);
	mmp->check = clamp_check(CHECK_FACTOR * (mmp->update + (inl_now_ns() - start) / mmp->second));
}

static void *run(void *arg)
{
	struct inl_mmp *mmp = arg;
	struct timespec until;

	pthread_mutex_lock(&mmp->lock);
	while (!mmp->stop) {
		until = inl_timespec_of(inl_now_ns() + mmp->update * mmp->second);
		while (!mmp->stop && !pthread_cond_timedwait(&mmp->wake, &mmp->lock, &until))
			;
		if (!mmp->stop && look(mmp) != -EBUSY)
			update(mmp);
	}
	pthread_mutex_unlock(&mmp->lock);
	return NULL;
}

int inl_mmp_check(struct inl_mmp *mmp)
{
	int err;

	pthread_mutex_lock(&mmp->lock);
	err = mmp->lost;
	if (!err && inl_now_ns() - mmp->written > mmp->check * mmp->second)
		err = look(mmp);
	pthread_mutex_unlock(&mmp->lock);
	return err;
}

/* ---- start, stop ------------------------------------------------------------------------------------------------- */

static void printable(char *out, const uint8_t *text, size_t len)
{
	size_t i;

	for (i = 0; i < len && text[i]; i++)
		out[i] = (char)(isprint(text[i]) ? text[i] : '?');
	out[i] = 0;
}

static int in_use(const uint8_t *block, struct inl_diag *diag)
{
	char node[NODE_LEN + 1], device[DEVICE_LEN + 1];

	printable(node, block + AT_NODE, NODE_LEN);
	printable(device, block + AT_DEVICE, DEVICE_LEN);
	return inl_diag_set(diag, -EBUSY, "the volume is in use elsewhere: on '%s', as '%s'", node, device);
}

static int read_first(struct inl_mmp *mmp, struct inl_diag *diag)
{
	int err = read_block(mmp, mmp->block);

	if (err == -EUCLEAN)
		return inl_diag_set(diag, err, "the block of the multiple mount protection is damaged: run e2fsck");
	return err ? inl_diag_set(diag, err, "the block of the multiple mount protection cannot be read") : 0;
}

static void wait_seconds(const struct inl_mmp *mmp, uint32_t seconds)
{
	struct timespec until = inl_timespec_of(inl_now_ns() + seconds * mmp->second);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Nobody cleared it at the end: see whether anybody is still writing it. */
static int see_changes(struct inl_mmp *mmp, struct inl_diag *diag)
{
	uint32_t seq = seq_of(mmp->block);
	int err;

	wait_seconds(mmp, INL_MIN(2 * mmp->check + 1, mmp->check + 60));
	err = read_first(mmp, diag);
	if (!err && seq_of(mmp->block) != seq)
		err = in_use(mmp->block, diag);
	return err;
}

static int take_over(struct inl_mmp *mmp, struct inl_diag *diag)
{
	uint32_t seq;
	int err = read_first(mmp, diag);

	if (err)
		return err;
	seq = seq_of(mmp->block);
	mmp->check = INL_MIN(inl_load_le16(mmp->block + AT_CHECK), CHECK_MAX);
	mmp->check = clamp_check(mmp->check > mmp->update ? mmp->check : mmp->update);
	if (seq == SEQ_FSCK)
		return inl_diag_set(diag, -EBUSY, "the volume is being checked by e2fsck; if that has ended: "
						  "tune2fs -f -E clear_mmp");
	if (seq != SEQ_CLEAN)
		err = see_changes(mmp, diag);
	if (err)
		return err;
	sign(mmp);
	err = write_block(mmp, random_seq());
	if (err)
		return inl_diag_set(diag, err, "the block of the multiple mount protection cannot be written");
	/* As Linux: whoever began at the same moment is seen only after a wait, which a clean volume does without. */
	if (seq != SEQ_CLEAN)
		wait_seconds(mmp, INL_MIN(2 * mmp->check + 1, mmp->check + 60));
	err = look(mmp);
	return err == -EBUSY ? in_use(mmp->seen, diag) : err;
}

static void mmp_free(struct inl_mmp *mmp)
{
	pthread_mutex_destroy(&mmp->lock);
	pthread_cond_destroy(&mmp->wake);
	free(mmp->block);
	free(mmp->seen);
	free(mmp);
}

static struct inl_mmp *mmp_new(struct inl_volume *vol, uint64_t second)
{
	struct inl_mmp *mmp = calloc(1, sizeof(*mmp));

	if (!mmp)
		return NULL;
	mmp->vol = vol;
	mmp->second = second;
	mmp->offset = (uint64_t)vol->fs->super->s_mmp_block << vol->block_bits;
	mmp->update = vol->fs->super->s_mmp_update_interval ? vol->fs->super->s_mmp_update_interval : UPDATE_DEFAULT;
	pthread_mutex_init(&mmp->lock, NULL);
	inl_cond_init(&mmp->wake);
	mmp->block = inl_new_blocks(vol->block_size, 1);
	mmp->seen = inl_new_blocks(vol->block_size, 1);
	if (mmp->block && mmp->seen)
		return mmp;
	mmp_free(mmp);
	return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(struct inl_mmp *mmp)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&mmp->thread, NULL, run, mmp);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int inl_mmp_start_with(struct inl_volume *vol, uint64_t second, struct inl_diag *diag, struct inl_mmp **out)
{
	struct inl_mmp *mmp;
	int err;

	if (!inl_block_in_range(vol, vol->fs->super->s_mmp_block, 1))
		return inl_diag_set(diag, -EUCLEAN, "the superblock names no block for the multiple mount protection");
	mmp = mmp_new(vol, second);
	if (!mmp)
		return -ENOMEM;
	err = take_over(mmp, diag);
	if (!err)
		err = start_thread(mmp);
	if (err)
		mmp_free(mmp);
	else
		*out = mmp;
	return err;
}

int inl_mmp_start(struct inl_volume *vol, struct inl_diag *diag, struct inl_mmp **out)
{
	return inl_mmp_start_with(vol, 1000000000u, diag, out);
}

int inl_mmp_stop(struct inl_mmp *mmp)
{
	int err;

	if (!mmp)
		return 0;
	pthread_mutex_lock(&mmp->lock);
	mmp->stop = true;
	pthread_cond_signal(&mmp->wake);
	pthread_mutex_unlock(&mmp->lock);
	pthread_join(mmp->thread, NULL);
	err = look(mmp);
	if (!err)
		err = write_block(mmp, SEQ_CLEAN);
	mmp_free(mmp);
	return err;
}
