/*
 * examples/queue-depth.c: overwrites the beginning of a device with encrypted blocks, 32 at a time, and reads them back.
 * Not here: where keys come from (inlay/fscrypt.h); this one is random and dies with the program.
 * Read more: inlay/block.h; `cc queue-depth.c $(pkg-config --cflags --libs inlay)` builds it against an installed library.
 *
 * The pattern to copy: a fixed set of requests, each with a bio of its own; done() notes what happened and starts the
 * request again with the next block; the main loop only reaps. Nothing is allocated on the way.
 */
#include <errno.h>
#include <inlay/block.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEPTH 32
#define BLOCK 4096

struct pass;

struct request {
	struct inl_bio bio;
	struct iovec seg;
	struct pass *pass;
	uint64_t block;
};

/* One pass over the device: all blocks are written, or all are read and compared. */
struct pass {
	struct inl_queue *queue;
	struct inl_key_use *use;
	enum inl_op op;
	uint64_t n_blocks, next; /* next: the first block that nobody has taken yet */
	uint64_t n_done, n_wrong;
	int err;	     /* the first error, and where it was */
	uint64_t err_block;
	struct request requests[DEPTH];
};

static int complain(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "queue-depth: %s: %s\n", what, diag && diag->err ? diag->text : strerror(-err));
	return err;
}

/* What block number n holds: its number, over and over. */
static void fill(uint8_t *buf, uint64_t n)
{
	for (size_t i = 0; i < BLOCK; i += sizeof(n))
		memcpy(buf + i, &n, sizeof(n));
}

static bool is_filled(const uint8_t *buf, uint64_t n)
{
	for (size_t i = 0; i < BLOCK; i += sizeof(n))
		if (memcmp(buf + i, &n, sizeof(n)) != 0)
			return false;
	return true;
}

static void note_error(struct pass *pass, int err, uint64_t block)
{
	if (!pass->err) {
		pass->err = err;
		pass->err_block = block;
	}
}

static void done(struct inl_bio *bio);

/* Take the next block, if there is one and nothing has gone wrong so far. */
static void start(struct request *request)
{
	struct pass *pass = request->pass;
	struct inl_crypt_ctx ctx = { .use = pass->use };
	int err;

	if (pass->err || pass->next == pass->n_blocks)
		return;
	request->block = pass->next++;
	ctx.dun[0] = request->block;
	if (pass->op == INL_WRITE)
		fill(request->seg.iov_base, request->block);
	inl_bio_init_keyed(&request->bio, pass->op, request->block * BLOCK, &request->seg, 1, &ctx);
	request->bio.done = done;
	request->bio.private_data = request;
	/* Errors of the I/O arrive in done(). Only a full queue is told here, and this one has room for every request. */
	err = inl_queue_submit(pass->queue, &request->bio);
	if (err)
		note_error(pass, err, request->block);
}

static void done(struct inl_bio *bio)
{
	struct request *request = bio->private_data;
	struct pass *pass = request->pass;

	if (bio->status)
		note_error(pass, bio->status, request->block);
	else
		pass->n_done++;
	if (!bio->status && bio->op == INL_READ && !is_filled(request->seg.iov_base, request->block))
		pass->n_wrong++;
	start(request);
}

/* Start every request once; from then on they go on by themselves until the last block is done. */
static int run(struct pass *pass, enum inl_op op)
{
	pass->op = op;
	pass->next = pass->n_done = 0;
	inl_queue_plug(pass->queue); /* the first 32 go to the system together */
	for (unsigned i = 0; i < DEPTH; i++)
		start(&pass->requests[i]);
	inl_queue_unplug(pass->queue);
	while (inl_queue_n_busy(pass->queue))
		inl_queue_reap(pass->queue, 1);
	if (pass->err)
		fprintf(stderr, "queue-depth: %s block %" PRIu64 ": %s\n", op == INL_WRITE ? "write" : "read",
			pass->err_block, strerror(-pass->err));
	return pass->err;
}

/* Is the block on the medium anything but what was written? A raw read shows what lies there. */
static int check_sealed(struct inl_dev *dev, struct pass *pass)
{
	struct request *request = &pass->requests[0];
	int err;

	inl_bio_init_raw_read(&request->bio, 0, &request->seg, 1);
	err = inl_submit_wait(dev, &request->bio);
	if (err)
		return complain("raw read", err, NULL);
	if (is_filled(request->seg.iov_base, 0))
		pass->n_wrong++;
	return 0;
}

static int run_all(struct inl_dev *dev, struct pass *pass)
{
	int err = run(pass, INL_WRITE);

	if (err)
		return err;
	err = inl_dev_flush(dev); /* written is not yet durable */
	if (err)
		return complain("flush", err, NULL);
	err = run(pass, INL_READ);
	if (err)
		return err;
	err = check_sealed(dev, pass);
	if (err)
		return err;
	printf("%" PRIu64 " blocks written and read back, %u at a time, %" PRIu64 " wrong\n", pass->n_done, DEPTH,
	       pass->n_wrong);
	return pass->n_wrong ? -EIO : 0;
}

/* A random key; its bytes are in secret memory only. */
static int make_key(struct inl_key **out)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, BLOCK, 8, INL_KEY_RAW };
	unsigned len = inl_blk_mode_key_size(cfg.mode);
	uint8_t *bytes = inl_secret_alloc(len);
	int err = -ENOMEM;

	if (bytes)
		err = getrandom(bytes, len, 0) == (ssize_t)len ? inl_key_new(&cfg, bytes, len, out) : -EIO;
	inl_secret_free(bytes);
	return err;
}

static int make_requests(struct pass *pass, uint8_t **memory)
{
	*memory = aligned_alloc(BLOCK, (size_t)DEPTH * BLOCK);
	if (!*memory)
		return -ENOMEM;
	for (unsigned i = 0; i < DEPTH; i++) {
		pass->requests[i].pass = pass;
		pass->requests[i].seg = (struct iovec){ *memory + (size_t)i * BLOCK, BLOCK };
	}
	return 0;
}

static int with_device(struct inl_dev *dev, struct pass *pass)
{
	struct inl_key *key = NULL;
	uint8_t *memory = NULL;
	int err, evict_err;

	if (inl_dev_size(dev) / BLOCK < pass->n_blocks)
		return complain("so many blocks", -ENOSPC, NULL);
	err = make_key(&key);
	if (!err)
		err = make_requests(pass, &memory);
	if (!err)
		err = inl_key_start(dev, key, &pass->use); /* an unsupported key is refused here, not on the data path */
	if (!err)
		err = inl_queue_new(dev, DEPTH, &pass->queue);
	if (err)
		complain("preparing", err, NULL);
	else
		err = run_all(dev, pass);
	inl_queue_free(pass->queue);
	evict_err = inl_key_evict(pass->use); /* an engine may fail to forget a key: worth saying */
	if (evict_err)
		complain("evicting the key", evict_err, NULL);
	inl_key_put(key);
	free(memory);
	return err ? err : evict_err;
}

int main(int argc, char **argv)
{
	static struct pass pass;
	struct inl_diag diag = { 0 };
	struct inl_dev *dev;
	char *end = "";
	int err;

	if (argc == 3)
		pass.n_blocks = strtoull(argv[2], &end, 10);
	if (argc != 3 || *end || !pass.n_blocks || argv[2][0] == '-') {
		fprintf(stderr, "usage: queue-depth SPEC BLOCKS   (overwrites so many blocks of %d bytes)\n", BLOCK);
		return 2;
	}
	err = inl_dev_open(argv[1], INL_OPEN_WRITE, &diag, &dev);
	if (err) {
		complain(argv[1], err, &diag);
		return 1;
	}
	err = with_device(dev, &pass);
	inl_dev_close(dev);
	return err ? 1 : 0;
}
