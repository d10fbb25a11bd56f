/*
 * examples/driver.c: a driver: memory that keeps a checksum of each block and never hands out a block that was damaged.
 * Not here: drivers that complete later, stacks, engines (inlay/driver.h; drivers/ has one of each).
 * Read more: inlay/driver.h; `cc driver.c $(pkg-config --cflags --libs inlay)` builds it against an installed library.
 */
#include <errno.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 512

struct checked {
	pthread_mutex_t lock;	  /* what follows: the queues of several threads share it */
	uint64_t n_blocks, *sums; /* a checksum per block */
	uint8_t *blocks;
};

static uint64_t sum(const uint8_t *block)
{
	uint64_t x = 0xcbf29ce484222325; /* FNV-1a */

	for (unsigned i = 0; i < BLOCK; i++)
		x = (x ^ block[i]) * 0x100000001b3;
	return x;
}

/* One block of the bio, at byte `at` of it. Returns 0, or -EBADMSG for a read of a damaged block. */
static int one_block(struct checked *checked, struct inl_bio *bio, uint64_t at)
{
	uint64_t n = (bio->state.pos + at) / BLOCK;
	uint8_t *block = checked->blocks + n * BLOCK;

	if (bio->op == INL_READ && sum(block) != checked->sums[n])
		return -EBADMSG;
	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, at, block, BLOCK);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, at, block, BLOCK);
	else
		memset(block, 0, BLOCK); /* INL_ZERO, INL_DISCARD */
	checked->sums[n] = sum(block);
	return 0;
}

/* Memory is quick: the bio ends before this returns. Its len is 0 for a flush, which has nothing to do here. */
static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct checked *checked = inl_dev_priv(dev);
	int err = 0;

	pthread_mutex_lock(&checked->lock);
	for (uint64_t at = 0; at < bio->len && !err; at += BLOCK)
		err = one_block(checked, bio, at);
	pthread_mutex_unlock(&checked->lock);
	inl_bio_end(bio, err); /* once, whatever happened; bio is gone now */
}

/* inl_dev_control(dev, "damage N"): flip a bit of block N behind the driver's back. */
static int control(struct inl_dev *dev, const char *command, struct inl_diag *diag)
{
	struct checked *checked = inl_dev_priv(dev);
	unsigned long long n;

	if (sscanf(command, "damage %llu", &n) != 1 || n >= checked->n_blocks)
		return inl_diag_set(diag, -EINVAL, "checked: expected 'damage N', N a block of the device");
	pthread_mutex_lock(&checked->lock);
	checked->blocks[n * BLOCK] ^= 1;
	pthread_mutex_unlock(&checked->lock);
	return 0;
}

static void checked_free(struct checked *checked)
{
	pthread_mutex_destroy(&checked->lock);
	free(checked->blocks);
	free(checked->sums);
	free(checked);
}

static void close_checked(struct inl_dev *dev)
{
	checked_free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops = {
	.name = "checked",
	.submit = submit,
	.close = close_checked,
	.control = control,
};

static int checked_new(uint64_t size, struct inl_dev **out)
{
	struct inl_dev_params params = { .size = size, .block_size = BLOCK, .writable = true, .label = "an example" };
	struct checked *checked = calloc(1, sizeof(*checked));
	int err = -ENOMEM;

	if (!checked)
		return -ENOMEM;
	pthread_mutex_init(&checked->lock, NULL);
	checked->n_blocks = size / BLOCK;
	checked->blocks = calloc(checked->n_blocks, BLOCK);
	checked->sums = calloc(checked->n_blocks, sizeof(checked->sums[0]));
	for (uint64_t n = 0; checked->blocks && checked->sums && n < checked->n_blocks; n++)
		checked->sums[n] = sum(checked->blocks + n * BLOCK);
	if (checked->blocks && checked->sums)
		err = inl_dev_new(&ops, checked, &params, out);
	if (err)
		checked_free(checked);
	return err;
}

/* Without an engine, the block layer encrypts before the device and decrypts behind it: this driver sees ciphertext. */
int main(void)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, BLOCK, 8, INL_KEY_RAW };
	uint8_t key_bytes[64], text[2 * BLOCK] = "Never hands out a damaged block.", back[2 * BLOCK], raw[BLOCK];
	struct inl_crypt_ctx ctx = { .dun = { 7 } };
	struct inl_dev *dev = NULL;
	struct inl_key *key = NULL;
	int err = checked_new(1 << 20, &dev);

	for (unsigned i = 0; i < sizeof(key_bytes); i++)
		key_bytes[i] = (uint8_t)(i * 3); /* an example; keys come from getrandom(2) or inlay/fscrypt.h */
	if (!err)
		err = inl_key_new(&cfg, key_bytes, sizeof(key_bytes), &key);
	if (!err)
		err = inl_key_start(dev, key, &ctx.use);
	if (!err)
		err = inl_dev_write_keyed(dev, 4 * BLOCK, text, sizeof(text), &ctx);
	if (!err)
		err = inl_dev_read_keyed(dev, 4 * BLOCK, back, sizeof(back), &ctx);
	printf("with key: %s\n", err ? strerror(-err) : (char *)back);
	if (!err)
		err = inl_dev_read(dev, 4 * BLOCK, raw, sizeof(raw));
	printf("without:  %s\n", err || !memcmp(raw, text, BLOCK) ? "(wrong)" : "(ciphertext)");
	if (!err)
		err = inl_dev_control(dev, "damage 5", NULL);
	if (!err)
		err = inl_dev_read_keyed(dev, 4 * BLOCK, back, sizeof(back), &ctx);
	printf("damaged:  %s\n", strerror(-err));
	inl_key_evict(ctx.use);
	inl_key_put(key);
	inl_dev_close(dev);
	return err == -EBADMSG ? 0 : 1;
}
