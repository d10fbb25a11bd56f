/*
 * tests/unit/test_block.c: the block layer: checks, slots, parking, bounce buffers, eviction, stacks.
 * Not here: threads (test_threads.c), the drivers (test_drivers.c), ciphers (test_crypto.c).
 * Read more: inlay/block.h. The device under test is written here, on inlay/driver.h alone: it completes when told to.
 */
#include <errno.h>
#include <fcntl.h>
#include <inlay/driver.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DISK_SIZE (4u << 20)
#define UNIT	  4096u

/* ---- a device that holds its bios until reaped, with an engine that is told what to do --------------------------- */

struct lab {
	uint8_t *disk;
	struct inl_bio *held[256];
	unsigned n_held, most_held;
	bool later;	     /* complete when reaped */
	int fail_program, fail_evict;
	const struct inl_key *slots[8];
	unsigned programs, evicts, starts, stops;
	enum inl_bio_kind last_kind;
	int fail_io;
};

static void lab_finish(struct inl_dev *dev, struct inl_bio *bio)
{
	struct lab *lab = inl_dev_priv(dev);

	if (lab->fail_io) {
		inl_bio_end(bio, lab->fail_io);
		return;
	}
	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, lab->disk + bio->state.pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, lab->disk + bio->state.pos, bio->len);
	inl_bio_end(bio, 0);
}

static void lab_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->last_kind = inl_bio_kind(bio);
	if (inl_bio_kind(bio) == INL_BIO_KEYED && inl_bio_slot(bio) >= 0)
		assert_ptr_equal(lab->slots[inl_bio_slot(bio)], inl_bio_key(bio));
	if (!lab->later) {
		lab_finish(dev, bio);
		return;
	}
	assert_true(lab->n_held < 256);
	lab->held[lab->n_held++] = bio;
	if (lab->n_held > lab->most_held)
		lab->most_held = lab->n_held;
}

/* One lab has bios at a time: its queue context is the lab itself, and there is always something to do. */
static struct lab *the_lab;
static struct inl_dev *the_lab_dev;

static unsigned lab_reap(void *ctx)
{
	struct inl_dev *dev = the_lab_dev;
	struct lab *lab = the_lab;
	unsigned n = lab->n_held;
	struct inl_bio *bios[256];

	memcpy(bios, lab->held, n * sizeof(bios[0]));
	lab->n_held = 0;
	for (unsigned i = 0; i < n; i++)
		lab_finish(dev, bios[i]);
	return n;
}

static int lab_queue_new(unsigned depth, void **ctx)
{
	*ctx = NULL;
	return 0;
}

static void lab_queue_free(void *ctx)
{
}

static void lab_queue_flush(void *ctx)
{
}

static int lab_queue_fd(void *ctx)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/zero", O_RDONLY | O_CLOEXEC); /* always readable */
	return fd;
}

static int lab_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->programs++;
	if (lab->fail_program)
		return lab->fail_program;
	lab->slots[slot] = key;
	return 0;
}

static int lab_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	struct lab *lab = inl_dev_priv(dev);

	assert_ptr_equal(lab->slots[slot], key);
	lab->evicts++;
	lab->slots[slot] = NULL;
	return lab->fail_evict;
}

static int lab_start(struct inl_dev *dev, const struct inl_key *key, void **priv)
{
	struct lab *lab = inl_dev_priv(dev);

	lab->starts++;
	*priv = lab;
	return 0;
}

static int lab_stop(struct inl_dev *dev, const struct inl_key *key, void *priv)
{
	struct lab *lab = inl_dev_priv(dev);

	assert_ptr_equal(priv, lab);
	lab->stops++;
	return lab->fail_evict;
}

static const struct inl_dev_ops lab_ops = {
	.name = "lab",
	.submit = lab_submit,
	.queue_new = lab_queue_new,
	.queue_free = lab_queue_free,
	.queue_flush = lab_queue_flush,
	.queue_reap = lab_reap,
	.queue_fd = lab_queue_fd,
	.key_program = lab_program,
	.key_evict = lab_evict,
	.key_start = lab_start,
	.key_stop = lab_stop,
};

static struct inl_dev *lab_new(struct lab *lab, int n_slots)
{
	struct inl_dev_params params = { .size = DISK_SIZE, .writable = true };
	struct inl_dev *dev;

	memset(lab, 0, sizeof(*lab));
	lab->disk = calloc(1, DISK_SIZE);
	assert_non_null(lab->disk);
	if (n_slots >= 0) {
		params.has_engine = true;
		params.n_slots = (unsigned)n_slots;
		params.caps.modes[INL_BLK_MODE_AES_256_XTS] = UNIT;
		params.caps.max_dun_bytes = 8;
		params.caps.key_types = INL_KEY_RAW;
	}
	assert_int_equal(inl_dev_new(&lab_ops, lab, &params, &dev), 0);
	the_lab = lab;
	the_lab_dev = dev;
	return dev;
}

static void lab_free(struct lab *lab, struct inl_dev *dev)
{
	inl_dev_close(dev);
	free(lab->disk);
}

static struct inl_key *make_key(uint8_t seed, uint32_t unit)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, unit, 8, INL_KEY_RAW };
	uint8_t bytes[64];
	struct inl_key *key;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(seed + i);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	return key;
}

static struct inl_crypt_ctx context(struct inl_key_use *use, uint64_t dun)
{
	return (struct inl_crypt_ctx){ .use = use, .dun = { dun } };
}

static struct inl_counters counters(struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	return c;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void test_caps(void **state)
{
	struct inl_caps a = { .modes = { [1] = 512 | 4096, [3] = 4096 }, .max_dun_bytes = 8, .key_types = 3 };
	struct inl_caps b = { .modes = { [1] = 4096 }, .max_dun_bytes = 16, .key_types = 1 };
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, 4096, 8, INL_KEY_RAW };

	assert_true(inl_caps_supports(&a, &cfg));
	cfg.dun_bytes = 9;
	assert_false(inl_caps_supports(&a, &cfg));
	cfg.dun_bytes = 8;
	cfg.data_unit_size = 1024;
	assert_false(inl_caps_supports(&a, &cfg));
	cfg.data_unit_size = 512;
	assert_false(inl_caps_supports(&b, &cfg));
	cfg.type = INL_KEY_HW_WRAPPED;
	assert_true(inl_caps_supports(&a, &cfg));
	assert_false(inl_caps_superset(&b, &a));
	assert_false(inl_caps_superset(&a, &b)); /* the DUN */
	inl_caps_intersect(&a, &b);
	assert_int_equal(a.modes[1], 4096);
	assert_int_equal(a.modes[3], 0);
	assert_int_equal(a.max_dun_bytes, 8);
	assert_int_equal(a.key_types, 1);
	assert_true(inl_caps_superset(&b, &a));
	inl_caps_intersect(&a, NULL);
	assert_int_equal(a.modes[1] | a.max_dun_bytes | a.key_types, 0);
}

static void test_dun(void **state)
{
	uint64_t dun[4] = { UINT64_MAX, UINT64_MAX, 7, 0 };

	inl_dun_add(dun, 1);
	assert_int_equal(dun[0], 0);
	assert_int_equal(dun[1], 0);
	assert_int_equal(dun[2], 8);
	memset(dun, 0xff, sizeof(dun));
	inl_dun_add(dun, 2);
	assert_int_equal(dun[0], 1);
	assert_int_equal(dun[1] | dun[2] | dun[3], 0);
}

static void test_mergeable(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, -1);
	struct inl_key *key = make_key(1, UNIT);
	struct inl_key_use *use, *other;
	struct inl_crypt_ctx a, b;

	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_int_equal(inl_key_start(dev, key, &other), 0);
	a = context(use, 10);
	b = context(use, 12);
	assert_true(inl_ctx_mergeable(&a, 2 * UNIT, &b));
	assert_false(inl_ctx_mergeable(&a, 3 * UNIT, &b));
	b.use = other;
	assert_false(inl_ctx_mergeable(&a, 2 * UNIT, &b));
	a = context(use, UINT64_MAX);
	b = context(use, 0);
	assert_false(inl_ctx_mergeable(&a, UNIT, &b)); /* 8 bytes of DUN wrap */
	b.dun[1] = 1;
	assert_false(inl_ctx_mergeable(&a, UNIT, &b));
	assert_true(inl_ctx_mergeable(NULL, UNIT, NULL));
	assert_false(inl_ctx_mergeable(&a, UNIT, NULL));
	inl_key_evict(use);
	inl_key_evict(other);
	inl_key_put(key);
	lab_free(&lab, dev);
}

static void test_key_new(void **state)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, 4096, 8, INL_KEY_RAW };
	uint8_t bytes[128];
	struct inl_key *key;

	memset(bytes, 7, sizeof(bytes));
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL); /* equal halves */
	bytes[63] = 8;
	assert_int_equal(inl_key_new(&cfg, bytes, 63, &key), -EINVAL);
	cfg.data_unit_size = 3000;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL);
	cfg.data_unit_size = 131072;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL);
	cfg.data_unit_size = 512;
	cfg.dun_bytes = 17;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL);
	cfg.dun_bytes = 0;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL);
	cfg.dun_bytes = 16;
	cfg.mode = INL_BLK_MODE_MAX;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), -EINVAL);
	cfg.mode = INL_BLK_MODE_AES_256_XTS;
	assert_int_equal(inl_key_new(&cfg, bytes, 64, &key), 0);
	inl_key_put(key);
	cfg.type = INL_KEY_HW_WRAPPED;
	assert_int_equal(inl_key_new(&cfg, bytes, 128, &key), 0);
	inl_key_put(key);
}

static void test_key_start(void **state)
{
	struct inl_key_config cfg = { INL_BLK_MODE_ADIANTUM, 4096, 8, INL_KEY_RAW };
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, -1);
	struct inl_key_use *use;
	struct inl_key *key;
	uint8_t bytes[64] = { 1 };

	assert_int_equal(inl_key_new(&cfg, bytes, 32, &key), 0);
	assert_int_equal(inl_key_start(dev, key, &use), -ENOPKG);
	inl_key_put(key);
	cfg = (struct inl_key_config){ INL_BLK_MODE_AES_256_XTS, 4096, 8, INL_KEY_HW_WRAPPED };
	assert_int_equal(inl_key_new(&cfg, bytes, 60, &key), 0);
	assert_int_equal(inl_key_start(dev, key, &use), -EOPNOTSUPP);
	inl_key_put(key);
	lab_free(&lab, dev);
}

/* ---- what submit refuses ----------------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	struct lab lab, lab2;
	struct inl_dev *dev = lab_new(&lab, -1), *dev2 = lab_new(&lab2, -1);
	struct inl_key *key = make_key(1, UNIT);
	struct inl_key_use *use;
	struct inl_crypt_ctx ctx;
	uint8_t *buf = calloc(1, 4 * UNIT);
	struct iovec segs[2] = { { buf, UNIT }, { buf + UNIT, 2048 } };
	struct inl_bio bio;

	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_int_equal(inl_dev_read(dev, 1, buf, 512), -EINVAL);
	assert_int_equal(inl_dev_read(dev, 0, buf, 500), -EINVAL);
	assert_int_equal(inl_dev_read(dev, 0, buf, 0), -EINVAL);
	assert_int_equal(inl_dev_read(dev, DISK_SIZE, buf, 512), -ENXIO);
	assert_int_equal(inl_dev_read(dev, DISK_SIZE - 512, buf, 1024), -ENXIO);
	assert_int_equal(inl_dev_read(dev, UINT64_MAX - 511, buf, 512), -ENXIO);
	ctx = context(NULL, 0);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, NULL), -ENOKEY);
	ctx = context(use, 0);
	assert_int_equal(inl_dev_read_keyed(dev2, 0, buf, UNIT, &ctx), -EINVAL);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 512, &ctx), -EINVAL);
	inl_bio_init_keyed(&bio, INL_READ, 0, segs, 2, &ctx);
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	ctx = context(use, UINT64_MAX);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 2 * UNIT, &ctx), -EINVAL); /* the DUN would wrap */
	/* Plaintext cannot be passed off as ciphertext. */
	inl_bio_init_raw_read(&bio, 0, segs, 1);
	bio.op = INL_WRITE;
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	assert_int_equal(counters(dev).writes, 0);
	assert_int_equal(counters(dev).errors, 12);
	assert_int_equal(inl_key_evict(use), 0);
	inl_key_put(key);
	free(buf);
	lab_free(&lab, dev);
	lab_free(&lab2, dev2);
}

/* Bios that do not add up are refused, not done by halves. */
static void test_malformed(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, -1);
	uint8_t buf[512];
	struct iovec seg = { buf, sizeof(buf) };
	struct inl_bio bio;

	inl_bio_init_range(&bio, INL_READ, 0, 4096);
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	inl_bio_init_range(&bio, INL_WRITE, 0, 4096);
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	inl_bio_init_plain(&bio, INL_READ, 0, &seg, 1);
	bio.len = 1024;
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	inl_bio_init_plain(&bio, (enum inl_op)77, 0, &seg, 1);
	assert_int_equal(inl_submit_wait(dev, &bio), -EINVAL);
	assert_int_equal(counters(dev).reads + counters(dev).writes, 0);
	lab_free(&lab, dev);
}

/* ---- the fallback ------------------------------------------------------------------------------------------------ */

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(seed + i * 7 + i / 251);
}

static void test_fallback(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, -1);
	struct inl_key *key = make_key(3, UNIT);
	struct inl_key_use *use;
	size_t len = 300 * UNIT; /* more than one bounce buffer */
	uint8_t *plain = malloc(len), *kept = malloc(len), *back = malloc(len);
	struct iovec segs[3] = { { back, UNIT }, { back + UNIT, 200 * UNIT }, { back + 201 * UNIT, 99 * UNIT } };
	struct inl_crypt_ctx ctx;
	struct inl_bio bio;

	fill(plain, len, 1);
	memcpy(kept, plain, len);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_false(inl_key_use_native(use));
	ctx = context(use, 5);
	assert_int_equal(inl_dev_write_keyed(dev, 8 * UNIT, plain, len, &ctx), 0);
	assert_memory_equal(plain, kept, len); /* the caller's memory is left alone */
	for (size_t i = 0; i < 300; i++)
		assert_memory_not_equal(lab.disk + (8 + i) * UNIT, plain + i * UNIT, 16);
	inl_bio_init_keyed(&bio, INL_READ, 8 * UNIT, segs, 3, &ctx);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_memory_equal(back, kept, len);
	assert_int_equal(lab.last_kind, INL_BIO_SEALED);
	assert_int_equal(counters(dev).fallback_units_encrypted, 300);
	assert_int_equal(counters(dev).fallback_units_decrypted, 300);
	/* The unit number counts: from the middle, with the DUN that belongs there. */
	ctx = context(use, 5 + 100);
	assert_int_equal(inl_dev_read_keyed(dev, (8 + 100) * UNIT, back, UNIT, &ctx), 0);
	assert_memory_equal(back, kept + 100 * UNIT, UNIT);
	ctx = context(use, 5 + 101);
	assert_int_equal(inl_dev_read_keyed(dev, (8 + 100) * UNIT, back, UNIT, &ctx), 0);
	assert_memory_not_equal(back, kept + 100 * UNIT, UNIT);
	/* The same bio again, as after an error: it is what it was. */
	inl_bio_init_keyed(&bio, INL_READ, 8 * UNIT, segs, 3, &ctx);
	bio.state.ctx.dun[0] = 5;
	for (int round = 0; round < 2; round++) {
		memset(back, 0, len);
		assert_int_equal(inl_submit_wait(dev, &bio), 0);
		assert_memory_equal(back, kept, len);
	}
	/* A raw read gives what lies there. */
	inl_bio_init_raw_read(&bio, 8 * UNIT, segs, 1);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_memory_equal(back, lab.disk + 8 * UNIT, UNIT);
	inl_key_evict(use);
	inl_key_put(key);
	free(plain);
	free(kept);
	free(back);
	lab_free(&lab, dev);
}

/* A device that fails: the error arrives on the bio, once, and what it held is free again. */
static void test_failing_device(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, -1);
	struct inl_key *key = make_key(3, UNIT);
	size_t len = 200 * UNIT;
	uint8_t *buf = malloc(len);
	struct inl_key_use *use;
	struct inl_crypt_ctx ctx;

	fill(buf, len, 1);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	ctx = context(use, 0);
	lab.fail_io = -EIO;
	for (int round = 0; round < 8; round++) /* more than there are bounce buffers */
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, len, &ctx), -EIO);
	assert_int_equal(counters(dev).errors, 8);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, len, &ctx), -EIO);
	assert_int_equal(counters(dev).errors, 9);
	assert_int_equal(counters(dev).fallback_units_decrypted, 0);
	lab.fail_io = 0;
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, len, &ctx), 0);
	inl_key_evict(use);
	inl_key_put(key);
	free(buf);
	lab_free(&lab, dev);
}

/* ---- many bios, one thread, few resources ------------------------------------------------------------------------ */

struct flow {
	struct inl_bio bio;
	struct iovec seg;
	uint8_t *buf;
	unsigned *n_done;
	int status;
};

static void flow_done(struct inl_bio *bio)
{
	struct flow *flow = bio->private_data;

	flow->status = bio->status;
	++*flow->n_done;
}

/* DESIGN's test that matters: one thread, depth 32, two keys, one slot; nothing may ever wait for itself. */
static void run_depth(int n_slots, enum inl_op op, unsigned depth)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, n_slots);
	struct inl_key *keys[2] = { make_key(1, UNIT), make_key(99, UNIT) };
	struct inl_key_use *uses[2];
	struct flow *flows = calloc(depth, sizeof(*flows));
	unsigned n_done = 0, rounds = 0;
	struct inl_queue *queue;

	assert_int_equal(inl_queue_new(dev, depth, &queue), 0);
	assert_int_equal(inl_dev_set_bounce(dev, 64 << 10), 0); /* the least there can be */
	lab.later = true;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
	for (unsigned i = 0; i < depth; i++) {
		struct inl_crypt_ctx ctx = context(uses[i % 2], i);

		flows[i].buf = malloc(2 * UNIT);
		fill(flows[i].buf, 2 * UNIT, i);
		flows[i].seg = (struct iovec){ flows[i].buf, 2 * UNIT };
		flows[i].n_done = &n_done;
		flows[i].status = 1;
		inl_bio_init_keyed(&flows[i].bio, op, (uint64_t)i * 2 * UNIT, &flows[i].seg, 1, &ctx);
		flows[i].bio.done = flow_done;
		flows[i].bio.private_data = &flows[i];
		assert_int_equal(inl_queue_submit(queue, &flows[i].bio), 0);
	}
	while (n_done < depth) {
		assert_true(inl_queue_reap(queue, 1) > 0); /* there is always something to reap */
		assert_true(++rounds < 10 * depth);
	}
	inl_queue_free(queue);
	for (unsigned i = 0; i < depth; i++) {
		assert_int_equal(flows[i].status, 0);
		free(flows[i].buf);
	}
	if (n_slots > 0) {
		assert_true(counters(dev).slot_waits > 0);
		assert_true(counters(dev).slot_programs >= 2);
	} else if (n_slots < 0 && op == INL_WRITE) {
		assert_true(counters(dev).bounce_waits > 0);
		assert_int_equal(counters(dev).fallback_units_encrypted, 2 * depth);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(inl_key_evict(uses[i]), 0);
		inl_key_put(keys[i]);
	}
	free(flows);
	lab_free(&lab, dev);
}

static void test_one_slot_depth_32(void **state)
{
	run_depth(1, INL_READ, 32);
	run_depth(1, INL_WRITE, 32);
}

static void test_bounce_depth_32(void **state)
{
	run_depth(-1, INL_WRITE, 32);
	run_depth(-1, INL_READ, 32);
}

static void test_slotless_depth_32(void **state)
{
	run_depth(0, INL_WRITE, 32);
}

/* A callback that submits the next bio, ten thousand times, on a device that completes at once: the stack must not grow. */
struct chain {
	struct inl_dev *dev;
	struct inl_queue *queue;
	struct inl_bio bio;
	struct iovec seg;
	uint8_t buf[512];
	unsigned left;
	int status; /* that each one ends with */
	uint64_t offset;
	uintptr_t low, high;
};

static void chain_done(struct inl_bio *bio)
{
	struct chain *chain = bio->private_data;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	assert_int_equal(bio->status, chain->status);
	if (here < chain->low)
		chain->low = here;
	if (here > chain->high)
		chain->high = here;
	if (!chain->left--)
		return;
	inl_bio_init_plain(&chain->bio, INL_READ, chain->offset, &chain->seg, 1);
	chain->bio.done = chain_done;
	chain->bio.private_data = chain;
	assert_int_equal(inl_queue_submit(chain->queue, &chain->bio), 0);
}

static void run_chain(uint64_t offset, int status)
{
	struct lab lab;
	struct chain chain = { .left = 10000, .status = status, .offset = offset, .low = UINTPTR_MAX };

	chain.dev = lab_new(&lab, -1);
	chain.seg = (struct iovec){ chain.buf, sizeof(chain.buf) };
	inl_bio_init_plain(&chain.bio, INL_READ, offset, &chain.seg, 1);
	chain.bio.done = chain_done;
	chain.bio.private_data = &chain;
	assert_int_equal(inl_queue_new(chain.dev, 1, &chain.queue), 0);
	assert_int_equal(inl_queue_submit(chain.queue, &chain.bio), 0);
	inl_queue_free(chain.queue);
	assert_int_equal(chain.left, UINT_MAX);
	assert_int_equal(counters(chain.dev).reads, status ? 0 : 10001);
	assert_int_equal(counters(chain.dev).errors, status ? 10001 : 0);
	assert_true(chain.high - chain.low < 4096);
	lab_free(&lab, chain.dev);
}

static void test_callbacks_do_not_recurse(void **state)
{
	run_chain(0, 0);
	run_chain(DISK_SIZE, -ENXIO); /* refused at once, and still in its turn */
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static void read_with(struct inl_dev *dev, struct inl_key_use *use, int expected)
{
	uint8_t *buf = malloc(UNIT);
	struct inl_crypt_ctx ctx = context(use, 0);

	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), expected);
	free(buf);
}

static void test_least_recently_used(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 2);
	struct inl_key *keys[3];
	struct inl_key_use *uses[3];

	for (unsigned i = 0; i < 3; i++) {
		keys[i] = make_key((uint8_t)(i * 40), UNIT);
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
		assert_true(inl_key_use_native(uses[i]));
	}
	read_with(dev, uses[0], 0);
	read_with(dev, uses[1], 0);
	read_with(dev, uses[0], 0);
	assert_int_equal(lab.programs, 2);
	assert_int_equal(counters(dev).slot_hits, 1);
	read_with(dev, uses[2], 0); /* takes the slot of key 1, which was used longest ago */
	assert_int_equal(lab.programs, 3);
	read_with(dev, uses[0], 0);
	assert_int_equal(lab.programs, 3);
	read_with(dev, uses[1], 0);
	assert_int_equal(lab.programs, 4);
	assert_int_equal(lab.last_kind, INL_BIO_KEYED);
	for (unsigned i = 0; i < 3; i++) {
		inl_key_evict(uses[i]);
		inl_key_put(keys[i]);
	}
	assert_int_equal(lab.evicts, 2);
	assert_null(lab.slots[0]);
	assert_null(lab.slots[1]);
	lab_free(&lab, dev);
}

static void test_failed_program(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key *keys[2] = { make_key(1, UNIT), make_key(50, UNIT) };
	struct inl_key_use *uses[2];

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
	read_with(dev, uses[0], 0);
	lab.fail_program = -EIO;
	read_with(dev, uses[1], -EIO);
	/* What the slot holds now is unknown: the old key must not be believed to be there. */
	lab.fail_program = 0;
	read_with(dev, uses[0], 0);
	assert_int_equal(lab.programs, 3);
	read_with(dev, uses[1], 0);
	lab.fail_evict = -EIO;
	assert_int_equal(inl_key_evict(uses[1]), -EIO);
	lab.fail_evict = 0;
	assert_int_equal(inl_key_evict(uses[0]), 0);
	for (unsigned i = 0; i < 2; i++)
		inl_key_put(keys[i]);
	lab_free(&lab, dev);
}

/* A failing program while bios are parked: each of them hears of it, and the next ones work. */
static void test_failed_program_while_parked(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key *keys[2] = { make_key(1, UNIT), make_key(50, UNIT) };
	struct inl_key_use *uses[2];
	struct flow flows[3] = { 0 };
	uint8_t *buf = malloc(3 * UNIT);
	unsigned n_done = 0;
	struct inl_queue *queue;

	lab.later = true;
	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct inl_crypt_ctx ctx = context(uses[i > 0], i);

		flows[i].seg = (struct iovec){ buf + i * UNIT, UNIT };
		flows[i].n_done = &n_done;
		inl_bio_init_keyed(&flows[i].bio, INL_READ, 0, &flows[i].seg, 1, &ctx);
		flows[i].bio.done = flow_done;
		flows[i].bio.private_data = &flows[i];
		assert_int_equal(inl_queue_submit(queue, &flows[i].bio), 0);
	}
	assert_int_equal(counters(dev).slot_waits, 2);
	lab.fail_program = -EREMOTEIO;
	assert_int_equal(inl_queue_reap(queue, 1), 3);
	assert_int_equal(n_done, 3);
	assert_int_equal(flows[0].status, 0);
	assert_int_equal(flows[1].status, -EREMOTEIO);
	assert_int_equal(flows[2].status, -EREMOTEIO);
	lab.fail_program = 0;
	lab.later = false;
	inl_queue_free(queue);
	read_with(dev, uses[1], 0);
	for (unsigned i = 0; i < 2; i++) {
		inl_key_evict(uses[i]);
		inl_key_put(keys[i]);
	}
	free(buf);
	lab_free(&lab, dev);
}

/* Eviction waits for bios under way, by reaping, parked ones among them. */
static void test_evict_drains(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 1);
	struct inl_key *keys[2] = { make_key(1, UNIT), make_key(50, UNIT) };
	struct inl_key_use *uses[2];
	struct flow flows[4] = { 0 };
	uint8_t *buf = malloc(4 * UNIT);
	unsigned n_done = 0;
	struct inl_queue *queue;

	lab.later = true;
	assert_int_equal(inl_queue_new(dev, 4, &queue), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct inl_crypt_ctx ctx = context(uses[i % 2], i);

		flows[i].seg = (struct iovec){ buf + i * UNIT, UNIT };
		flows[i].n_done = &n_done;
		flows[i].status = 1;
		inl_bio_init_keyed(&flows[i].bio, INL_READ, 0, &flows[i].seg, 1, &ctx);
		flows[i].bio.done = flow_done;
		flows[i].bio.private_data = &flows[i];
		assert_int_equal(inl_queue_submit(queue, &flows[i].bio), 0);
	}
	assert_int_equal(n_done, 0);
	assert_int_equal(inl_key_evict(uses[1]), 0);
	assert_int_equal(flows[1].status, 0);
	assert_int_equal(flows[3].status, 0);
	assert_int_equal(inl_key_evict(uses[0]), 0);
	assert_int_equal(n_done, 4);
	inl_queue_free(queue);
	assert_null(lab.slots[0]);
	for (unsigned i = 0; i < 2; i++)
		inl_key_put(keys[i]);
	free(buf);
	lab_free(&lab, dev);
}

static void test_slotless_engine(void **state)
{
	struct lab lab;
	struct inl_dev *dev = lab_new(&lab, 0);
	struct inl_key *key = make_key(1, UNIT);
	struct inl_key_use *use;

	assert_int_equal(inl_dev_n_slots(dev), 0);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_int_equal(lab.starts, 1);
	read_with(dev, use, 0);
	assert_int_equal(lab.last_kind, INL_BIO_KEYED);
	lab.fail_evict = -EIO;
	assert_int_equal(inl_key_evict(use), -EIO);
	assert_int_equal(lab.stops, 1);
	inl_key_put(key);
	lab_free(&lab, dev);
}

/* ---- stacks ------------------------------------------------------------------------------------------------------ */

static void over_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos + UNIT);
}

static const struct inl_dev_ops over_ops = { .name = "over", .submit = over_submit };

static void test_stack(void **state)
{
	struct lab lab;
	struct inl_dev *engine = lab_new(&lab, 1), *children[1] = { engine }, *dev;
	struct inl_dev_params params = { .size = DISK_SIZE, .writable = true, .children = children, .n_children = 1 };
	struct inl_key *key = make_key(1, UNIT), *small = make_key(2, 512);
	struct inl_key_use *use, *fallback;
	struct inl_caps caps, engine_caps;
	struct inl_crypt_ctx ctx;
	uint8_t *buf = malloc(UNIT);

	assert_int_equal(inl_dev_new(&over_ops, NULL, &params, &dev), 0);
	assert_int_equal(inl_dev_n_slots(dev), -1);
	inl_dev_caps(dev, &caps);
	inl_dev_caps(engine, &engine_caps);
	assert_true(inl_caps_superset(&caps, &engine_caps));
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_true(inl_key_use_native(use));
	assert_int_equal(inl_key_start(dev, small, &fallback), 0);
	assert_false(inl_key_use_native(fallback)); /* the engine has no 512-byte units */
	ctx = context(use, 0);
	memset(lab.disk + UNIT, 0x5a, UNIT);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(lab.last_kind, INL_BIO_KEYED);
	assert_int_equal(buf[0], 0x5a); /* the lab's engine does not decrypt; the place is what is tested */
	assert_int_equal(lab.programs, 1);
	ctx = context(fallback, 0);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(lab.last_kind, INL_BIO_SEALED);
	assert_int_not_equal(buf[0], 0x5a);
	assert_int_equal(counters(dev).fallback_units_decrypted, 8);
	/* Beyond the end of the child, though not of the stack. */
	assert_int_equal(inl_dev_read(dev, DISK_SIZE - UNIT, buf, UNIT), -ENXIO);
	assert_int_equal(inl_key_evict(use), 0);
	assert_int_equal(lab.evicts, 1);
	assert_int_equal(inl_key_evict(fallback), 0);
	inl_key_put(key);
	inl_key_put(small);
	free(buf);
	lab_free(&lab, dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_dun),
		cmocka_unit_test(test_mergeable),
		cmocka_unit_test(test_key_new),
		cmocka_unit_test(test_key_start),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_failing_device),
		cmocka_unit_test(test_one_slot_depth_32),
		cmocka_unit_test(test_bounce_depth_32),
		cmocka_unit_test(test_slotless_depth_32),
		cmocka_unit_test(test_callbacks_do_not_recurse),
		cmocka_unit_test(test_least_recently_used),
		cmocka_unit_test(test_failed_program),
		cmocka_unit_test(test_failed_program_while_parked),
		cmocka_unit_test(test_evict_drains),
		cmocka_unit_test(test_slotless_engine),
		cmocka_unit_test(test_stack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
