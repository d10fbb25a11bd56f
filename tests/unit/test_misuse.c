/*
 * tests/unit/test_misuse.c: what the block layer answers to callers that do it wrong: one misuse for each call.
 * Not here: drivers that do it wrong (test_misuse_driver.c); the same calls used well (test_block.c, test_queue.c).
 * Read more: inlay/block.h. The first test reads it, and fails if a call has no row in the table at the end.
 */
#include "tests/unit/misuse.h"
#include <pthread.h>

static struct iovec one_seg = { buf, UNIT };

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void test_caps_supports(void **state)
{
	struct inl_caps caps = { .max_dun_bytes = 8, .key_types = INL_KEY_RAW };
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW };

	caps.modes[INL_BLK_MODE_AES_256_XTS] = UNIT | 512;
	assert_true(inl_caps_supports(&caps, &cfg));
	cfg.data_unit_size = UNIT | 512; /* two sizes at once */
	assert_false(inl_caps_supports(&caps, &cfg));
	cfg.data_unit_size = 0;
	assert_false(inl_caps_supports(&caps, &cfg));
	cfg.data_unit_size = UNIT;
	cfg.type = INL_KEY_RAW | INL_KEY_HW_WRAPPED;
	assert_false(inl_caps_supports(&caps, &cfg));
	cfg.type = INL_KEY_RAW;
	cfg.mode = (enum inl_blk_mode)1000;
	assert_false(inl_caps_supports(&caps, &cfg));
	cfg.mode = INL_BLK_MODE_INVALID;
	assert_false(inl_caps_supports(&caps, &cfg));
}

static void test_caps_sets(void **state)
{
	struct inl_caps none = { 0 }, some = { .max_dun_bytes = 8, .key_types = INL_KEY_RAW };

	some.modes[INL_BLK_MODE_AES_256_XTS] = UNIT;
	assert_true(inl_caps_superset(&none, &none));
	assert_false(inl_caps_superset(&none, &some));
	inl_caps_intersect(&some, NULL);
	assert_memory_equal(&some, &none, sizeof(none));
}

static void test_modes(void **state)
{
	static const int wrong[] = { INL_BLK_MODE_INVALID, INL_BLK_MODE_MAX, -1, INT_MAX };

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_null(inl_blk_mode_name((enum inl_blk_mode)wrong[i]));
		assert_int_equal(inl_blk_mode_key_size((enum inl_blk_mode)wrong[i]), 0);
		assert_int_equal(inl_blk_mode_iv_size((enum inl_blk_mode)wrong[i]), 0);
	}
}

static void test_dun(void **state)
{
	uint64_t dun[4] = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX };

	inl_dun_add(dun, 0);
	assert_true(dun[0] == UINT64_MAX && dun[3] == UINT64_MAX);
	inl_dun_add(dun, 1);
	assert_int_equal(dun[0] | dun[1] | dun[2] | dun[3], 0);
}

static void test_mergeable(void **state)
{
	struct inl_dev *dev = box();
	struct inl_crypt_ctx a = { .use = start(dev), .dun = { 1 } }, b = a;

	b.dun[0] = 2;
	assert_true(inl_ctx_mergeable(&a, UNIT, &b));
	assert_false(inl_ctx_mergeable(&a, UNIT, NULL));
	assert_false(inl_ctx_mergeable(NULL, UNIT, &b));
	assert_int_equal(inl_key_evict(a.use), 0);
	assert_false(inl_ctx_mergeable(&a, UNIT, &b)); /* there is no such key any more */
	a.use = b.use = NULL;
	assert_false(inl_ctx_mergeable(&a, UNIT, &b));
	inl_dev_close(dev);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void test_key_new(void **state)
{
	static const struct {
		struct inl_key_config cfg;
		size_t len;
	} wrong[] = {
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW }, 63 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW }, 65 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW }, 0 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 0, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 17, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, 0, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, 8, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, 4095, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, 131072, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_INVALID, UNIT, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_MAX, UNIT, 8, INL_KEY_RAW }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, 0 }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW | INL_KEY_HW_WRAPPED }, 64 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_HW_WRAPPED }, 129 },
		{ { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_HW_WRAPPED }, 0 },
	};
	struct inl_key *const untouched = (struct inl_key *)buf;
	struct inl_key *key = untouched;
	uint8_t bytes[129];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(inl_key_new(&wrong[i].cfg, bytes, wrong[i].len, &key), -EINVAL);
		assert_ptr_equal(key, untouched);
	}
	memset(bytes, 9, sizeof(bytes)); /* equal halves */
	assert_int_equal(inl_key_new(&(struct inl_key_config){ INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW }, bytes, 64,
				     &key),
			 -EINVAL);
}

static void test_key_references(void **state)
{
	struct inl_dev *dev = box();
	struct inl_key *key = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *use;

	inl_key_put(NULL);
	assert_ptr_equal(inl_key_get(key), key);
	inl_key_put(key);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	inl_key_put(key); /* the last one of ours: the use has another */
	assert_int_equal(inl_key_config(key)->data_unit_size, UNIT);
	assert_int_equal(inl_key_evict(use), 0);
	inl_dev_close(dev);
}

static void test_key_start(void **state)
{
	struct inl_dev *dev = box();
	struct inl_key *wrapped = key_of_type(INL_KEY_HW_WRAPPED, 8), *raw = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *const untouched = (struct inl_key_use *)buf;
	struct inl_key_use *use = untouched;

	assert_int_equal(inl_key_start(dev, wrapped, &use), -EOPNOTSUPP);
	inl_dev_set_fallback(dev, false);
	assert_false(inl_dev_fallback(dev));
	assert_int_equal(inl_key_start(dev, raw, &use), -ENOPKG);
	assert_int_equal(inl_key_start(dev, wrapped, &use), -EOPNOTSUPP);
	assert_ptr_equal(use, untouched);
	assert_int_equal(counters(dev).keys_started, 0);
	inl_key_put(wrapped);
	inl_key_put(raw);
	inl_dev_close(dev);
}

static void evict_in_callback(struct watched *watched)
{
	watched->answer = inl_key_evict(watched->use);
}

static void test_key_evict(void **state)
{
	struct inl_dev *dev = box();
	struct inl_crypt_ctx ctx = { .use = start(dev) };
	struct inl_queue *queue;
	struct watched watched;

	assert_int_equal(inl_key_evict(NULL), 0);
	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	watched_read(&watched, 0);
	watched.then = evict_in_callback;
	watched.use = ctx.use;
	assert_int_equal(inl_queue_submit(queue, &watched.bio), 0);
	inl_queue_reap(queue, 1);
	assert_int_equal(watched.answer, -EDEADLK);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0); /* nothing was done */
	assert_int_equal(inl_key_evict(ctx.use), 0);
	assert_int_equal(inl_key_evict(ctx.use), -ENOKEY);
	assert_false(inl_key_use_native(ctx.use));
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
	assert_int_equal(counters(dev).keys_evicted, 1);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

/* ---- bios -------------------------------------------------------------------------------------------------------- */

static void test_plain_bio(void **state)
{
	struct inl_dev *dev = box();
	struct iovec segs[2] = { { buf, BLOCK }, { buf + UNIT, BLOCK } };
	struct inl_bio bio;

	inl_bio_init_plain(&bio, INL_READ, 0, NULL, 0);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_plain(&bio, INL_READ, 1, &one_seg, 1);
	refused(dev, &bio, -EINVAL);
	segs[1].iov_len = BLOCK - 1;
	inl_bio_init_plain(&bio, INL_WRITE, 0, segs, 2);
	refused(dev, &bio, -EINVAL);
	segs[1].iov_len = BLOCK;
	inl_bio_init_plain(&bio, INL_WRITE, 0, segs, 2);
	bio.len = BLOCK; /* less than the segments hold */
	refused(dev, &bio, -EINVAL);
	bio.len = 4 * BLOCK;
	refused(dev, &bio, -EINVAL);
	inl_bio_init_plain(&bio, (enum inl_op)(INL_ZERO + 1), 0, &one_seg, 1);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_plain(&bio, INL_READ, SIZE - BLOCK, &one_seg, 1);
	refused(dev, &bio, -ENXIO);
	inl_bio_init_plain(&bio, INL_READ, UINT64_MAX - BLOCK + 1, &one_seg, 1);
	refused(dev, &bio, -ENXIO);
	inl_dev_close(dev);
}

static void test_keyed_bio(void **state)
{
	struct inl_dev *dev = box(), *other = make(1, &box_ops, -1, NULL);
	struct inl_crypt_ctx ctx = { .use = start(dev) };
	struct iovec segs[2] = { { buf, UNIT / 2 }, { buf + UNIT, UNIT / 2 } };
	struct inl_bio bio;

	inl_bio_init_keyed(&bio, INL_READ, 0, &one_seg, 1, NULL);
	refused(dev, &bio, -ENOKEY);
	inl_bio_init_keyed(&bio, INL_WRITE, 0, segs, 2, &ctx); /* a unit in two places */
	refused(dev, &bio, -EINVAL);
	inl_bio_init_keyed(&bio, INL_WRITE, 0, segs, 1, &ctx);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_keyed(&bio, INL_DISCARD, 0, &one_seg, 1, &ctx);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_keyed(&bio, INL_WRITE, 0, &one_seg, 1, &ctx);
	refused(other, &bio, -EINVAL);
	ctx.dun[1] = 1; /* wider than the key's */
	inl_bio_init_keyed(&bio, INL_WRITE, 0, &one_seg, 1, &ctx);
	refused(dev, &bio, -EINVAL);
	ctx.dun[1] = 0;
	ctx.dun[0] = UINT64_MAX;
	segs[0].iov_len = segs[1].iov_len = UNIT;
	inl_bio_init_keyed(&bio, INL_WRITE, 0, segs, 2, &ctx); /* wraps */
	segs[1].iov_base = buf;
	refused(dev, &bio, -EINVAL);
	ctx.use = (struct inl_key_use *)buf; /* no handle at all */
	inl_bio_init_keyed(&bio, INL_WRITE, 0, &one_seg, 1, &ctx);
	refused(dev, &bio, -ENOKEY);
	assert_int_equal(counters(dev).writes + counters(other).writes, 0);
	inl_dev_close(other);
	ctx.use = NULL;
	inl_dev_close(dev);
}

/* The way that a write of plaintext could be passed off as ciphertext. */
static void test_raw_read(void **state)
{
	struct inl_dev *dev = box();
	struct inl_bio bio;

	inl_bio_init_raw_read(&bio, 0, &one_seg, 1);
	bio.op = INL_WRITE;
	refused(dev, &bio, -EINVAL);
	inl_bio_init_raw_read(&bio, 0, &one_seg, 1);
	bio.op = INL_DISCARD;
	refused(dev, &bio, -EINVAL);
	inl_dev_close(dev);
}

static void test_range_bio(void **state)
{
	struct inl_dev *dev = box();
	struct inl_bio bio;

	inl_bio_init_range(&bio, INL_READ, 0, UNIT);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_range(&bio, INL_WRITE, 0, UNIT);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_range(&bio, INL_ZERO, 0, 0);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_range(&bio, INL_DISCARD, BLOCK / 2, BLOCK);
	refused(dev, &bio, -EINVAL);
	inl_bio_init_range(&bio, INL_DISCARD, SIZE, BLOCK);
	refused(dev, &bio, -ENXIO);
	inl_bio_init_range(&bio, INL_ZERO, 0, UINT64_MAX - BLOCK + 1);
	refused(dev, &bio, -ENXIO);
	inl_dev_close(dev);
}

/* ---- queues ------------------------------------------------------------------------------------------------------ */

static void test_queue_new(void **state)
{
	struct inl_queue *const untouched = (struct inl_queue *)buf;
	struct inl_queue *queue = untouched;
	struct inl_dev *dev = box();

	assert_int_equal(inl_queue_new(dev, 0, &queue), -EINVAL);
	assert_int_equal(inl_queue_new(dev, INL_QUEUE_DEPTH_MAX + 1, &queue), -EINVAL);
	assert_ptr_equal(queue, untouched);
	assert_int_equal(inl_queue_new(dev, INL_QUEUE_DEPTH_MAX, &queue), 0);
	inl_queue_free(queue);
	inl_queue_free(NULL);
	inl_dev_close(dev);
}

static void hold(struct inl_dev *dev, struct inl_bio *bio)
{
	boxes[0].held = bio;
}

static void test_queue_full(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched first, second;

	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	boxes[0].submit = hold;
	assert_int_equal(inl_queue_submit(queue, &watched_read(&first, 0)->bio), 0);
	assert_int_equal(inl_queue_submit(queue, &watched_read(&second, 0)->bio), -EAGAIN);
	assert_int_equal(inl_queue_n_busy(queue), 1);
	assert_int_equal(inl_queue_reap(queue, 0), 0);
	inl_bio_end(boxes[0].held, -ETIMEDOUT);
	inl_queue_reap(queue, 1);
	assert_int_equal(first.n_done, 1);
	assert_int_equal(first.status, -ETIMEDOUT);
	assert_int_equal(second.n_done, 0); /* nothing was done */
	assert_int_equal(boxes[0].n_arrived, 1);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

/* Errors arrive on the bio, not from submit. */
static void test_queue_refuses(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched watched;

	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	assert_int_equal(inl_queue_submit(queue, &watched_read(&watched, SIZE)->bio), 0);
	inl_queue_reap(queue, 1);
	assert_int_equal(watched.n_done, 1);
	assert_int_equal(watched.status, -ENXIO);
	assert_int_equal(inl_queue_n_busy(queue), 0);
	inl_queue_plug(queue);
	assert_int_equal(inl_queue_submit(queue, &watched_read(&watched, 1)->bio), 0);
	inl_queue_unplug(queue);
	inl_queue_reap(queue, 1);
	assert_int_equal(watched.n_done, 1);
	assert_int_equal(watched.status, -EINVAL);
	assert_int_equal(boxes[0].n_arrived, 0);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static void *submit_elsewhere(void *arg)
{
	struct watched *watched = arg;

	watched->answer = inl_queue_submit(watched->queue, &watched->bio);
	if (inl_queue_reap(watched->queue, 1))
		watched->answer = 0;
	return NULL;
}

static void test_queue_of_another_thread(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched watched;
	pthread_t thread;

	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	watched_read(&watched, 0)->queue = queue;
	assert_int_equal(pthread_create(&thread, NULL, submit_elsewhere, &watched), 0);
	pthread_join(thread, NULL);
	assert_true(watched.answer < 0);
	assert_int_equal(watched.n_done, 0);
	assert_int_equal(boxes[0].n_arrived, 0);
	assert_int_equal(inl_queue_n_busy(queue), 0);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static void test_plug(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched watched;

	assert_int_equal(inl_queue_new(dev, 2, &queue), 0);
	inl_queue_unplug(queue); /* was not plugged */
	inl_queue_plug(queue);
	inl_queue_plug(queue); /* plugs are not counted */
	assert_int_equal(inl_queue_submit(queue, &watched_read(&watched, 0)->bio), 0);
	assert_int_equal(watched.n_done, 0);
	inl_queue_unplug(queue);
	inl_queue_unplug(queue);
	inl_queue_reap(queue, 1);
	assert_int_equal(watched.n_done, 1);
	inl_queue_plug(queue);
	assert_int_equal(inl_queue_submit(queue, &watched_read(&watched, 0)->bio), 0);
	inl_queue_free(queue); /* plugged, with a bio: it is done first */
	assert_int_equal(watched.n_done, 1);
	inl_dev_close(dev);
}

static void reap_in_callback(struct watched *watched)
{
	watched->answer = (int)inl_queue_reap(watched->queue, 1);
}

static void test_reap(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched first, second;

	assert_int_equal(inl_queue_new(dev, 2, &queue), 0);
	assert_int_equal(inl_queue_reap(queue, UINT_MAX), 0); /* none is under way */
	boxes[0].submit = hold;
	assert_int_equal(inl_queue_submit(queue, &watched_read(&first, 0)->bio), 0);
	boxes[0].submit = NULL;
	watched_read(&second, 0)->queue = queue;
	second.then = reap_in_callback; /* would wait for the first one for ever */
	assert_int_equal(inl_queue_submit(queue, &second.bio), 0);
	inl_queue_reap(queue, 0);
	assert_int_equal(second.n_done, 1);
	assert_int_equal(second.answer, 0);
	inl_bio_end(boxes[0].held, 0);
	inl_queue_reap(queue, UINT_MAX);
	assert_int_equal(first.n_done, 1);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static void wait_in_callback(struct watched *watched)
{
	struct inl_bio bio;

	inl_bio_init_plain(&bio, INL_READ, 0, &one_seg, 1);
	watched->answer = inl_may_wait() ? 0 : inl_submit_wait(watched->dev, &bio);
}

static void test_submit_wait(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched watched;

	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	watched_read(&watched, 0)->dev = dev;
	watched.then = wait_in_callback;
	assert_int_equal(inl_queue_submit(queue, &watched.bio), 0);
	inl_queue_reap(queue, 1);
	assert_int_equal(watched.n_done, 1);
	assert_int_equal(watched.answer, -EDEADLK);
	assert_true(inl_may_wait());
	watched_read(&watched, 0);
	assert_int_equal(inl_submit_wait(dev, &watched.bio), 0);
	assert_int_equal(watched.n_done, 0); /* its done is not called */
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static void test_simple_calls(void **state)
{
	struct inl_dev *dev = box();
	struct inl_crypt_ctx ctx = { .use = NULL };

	assert_int_equal(inl_dev_read(dev, 0, buf, 0), -EINVAL);
	assert_int_equal(inl_dev_read(dev, BLOCK - 1, buf, BLOCK), -EINVAL);
	assert_int_equal(inl_dev_write(dev, 0, buf, BLOCK + 1), -EINVAL);
	assert_int_equal(inl_dev_write(dev, SIZE, buf, BLOCK), -ENXIO);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, NULL), -ENOKEY);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -ENOKEY);
	boxes[0].fail = -ENOLINK;
	assert_int_equal(inl_dev_flush(dev), -ENOLINK);
	assert_int_equal(boxes[0].n_arrived, 1); /* the flush alone */
	inl_dev_close(dev);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static void test_dev_open(void **state)
{
	static const char *const wrong[] = { "", "ram", "ram(", "ram()", "ram(1M", "ram(1M))", "ram(1M, 2M)",
					     "ram(1M, colour=red)", "nosuch(ram(1M))", "engine(ram(1M), slots=-1)",
					     "ram(0)", "slice()" };
	struct inl_dev *const untouched = (struct inl_dev *)buf;
	struct inl_dev *dev = untouched;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct inl_diag diag = { 0 };

		assert_true(inl_dev_open(wrong[i], 0, &diag, &dev) < 0);
		assert_true(diag.err < 0 && diag.text[0]);
		assert_true(inl_dev_open(wrong[i], 0, NULL, &dev) < 0);
		assert_ptr_equal(dev, untouched);
	}
	assert_int_equal(inl_dev_open("/nonexistent/inlay", 0, NULL, &dev), -ENOENT);
	inl_dev_close(NULL);
}

static void test_read_only(void **state)
{
	struct inl_dev *dev;
	struct inl_bio bio;

	assert_int_equal(inl_dev_open("engine(ram(64K))", 0, NULL, &dev), 0);
	assert_false(inl_dev_writable(dev));
	assert_int_equal(inl_dev_write(dev, 0, buf, BLOCK), -EROFS);
	inl_bio_init_range(&bio, INL_DISCARD, 0, BLOCK);
	assert_int_equal(inl_submit_wait(dev, &bio), -EROFS);
	inl_bio_init_range(&bio, INL_ZERO, 0, BLOCK);
	assert_int_equal(inl_submit_wait(dev, &bio), -EROFS);
	assert_int_equal(inl_dev_flush(dev), 0); /* changes nothing */
	inl_dev_close(dev);
}

static void test_no_fallback(void **state)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_RAW };
	struct inl_key *key = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *use;
	struct inl_caps caps;
	struct inl_dev *dev;

	assert_int_equal(inl_dev_open("linear(ram(64K))", INL_OPEN_NO_FALLBACK, NULL, &dev), 0);
	assert_false(inl_dev_fallback(dev));
	assert_false(inl_dev_supports(dev, &cfg));
	assert_false(inl_dev_supports_natively(dev, &cfg));
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[cfg.mode] | caps.max_dun_bytes, 0);
	assert_int_equal(inl_key_start(dev, key, &use), -ENOPKG);
	inl_key_put(key);
	inl_dev_close(dev);
	dev = box();
	cfg.type = INL_KEY_HW_WRAPPED;
	assert_false(inl_dev_supports(dev, &cfg));
	cfg.type = INL_KEY_RAW;
	cfg.mode = INL_BLK_MODE_MAX;
	assert_false(inl_dev_supports(dev, &cfg));
	inl_dev_close(dev);
}

static void test_dev_lists(void **state)
{
	struct inl_dev *below = box(), *dev = make(1, &other_ops, -1, below);
	unsigned n = 0;

	assert_ptr_equal(inl_dev_child(dev, 0), below);
	assert_null(inl_dev_child(dev, 1));
	assert_null(inl_dev_child(dev, UINT_MAX));
	assert_int_equal(inl_dev_n_slots(dev), -1);
	assert_ptr_equal(inl_dev_find(dev, inl_dev_driver(dev)), dev);
	assert_ptr_equal(inl_dev_find(dev, "box"), below);
	assert_null(inl_dev_find(dev, ""));
	assert_null(inl_dev_find(dev, "boxe"));
	assert_string_equal(inl_dev_label(dev), "");
	while (inl_driver_info(n))
		n++;
	assert_true(n > 0);
	assert_null(inl_driver_info(n + 1));
	assert_null(inl_driver_info(UINT_MAX));
	inl_dev_close(dev);
	assert_true(boxes[0].closed);
}

/* What no cipher has is refused and changes nothing; what a cipher lacks is refused when its keys are started. */
static void test_ciphers(void **state)
{
	struct inl_dev *below = box(), *dev = make(1, &map_ops, -1, below);
	struct inl_key *key = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *use = NULL;

	assert_null(inl_dev_ciphers(dev));
	assert_int_equal(inl_dev_set_ciphers(dev, "abacus"), -ENOENT);
	assert_int_equal(inl_dev_set_ciphers(dev, ""), -ENOENT);
	assert_null(inl_dev_ciphers(dev));
	assert_int_equal(inl_dev_set_ciphers(dev, "openssl"), 0);
	assert_string_equal(inl_dev_ciphers(dev), "openssl");
	assert_string_equal(inl_dev_ciphers(below), "openssl");
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_int_equal(inl_key_evict(use), 0);
	assert_int_equal(inl_dev_set_ciphers(below, NULL), 0);
	assert_null(inl_dev_ciphers(below));
	assert_string_equal(inl_dev_ciphers(dev), "openssl");
	dev = make(2, &map_ops, -1, dev);
	assert_string_equal(inl_dev_ciphers(dev), "openssl"); /* a stack that is made on top does not forget it */
	inl_key_put(key);
	inl_dev_close(dev);
}

static void test_control(void **state)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = box();

	assert_int_equal(inl_dev_control(dev, "reset", &diag), -ENOTTY);
	assert_true(diag.err && diag.text[0]);
	assert_int_equal(inl_dev_control(dev, "", NULL), -ENOTTY);
	inl_dev_close(dev);
	assert_int_equal(inl_dev_open("engine(ram(64K))", INL_OPEN_WRITE, NULL, &dev), 0);
	diag = (struct inl_diag){ 0 };
	assert_int_equal(inl_dev_control(dev, "explode", &diag), -EINVAL);
	assert_true(diag.err == -EINVAL && diag.text[0]);
	assert_int_equal(inl_dev_control(dev, "io@0", NULL), -EINVAL);
	assert_int_equal(inl_dev_write(dev, 0, buf, BLOCK), 0); /* nothing of it was obeyed */
	inl_dev_close(dev);
}

/* A bio that is refused reaches no driver and is no I/O. */
static void test_counters(void **state)
{
	struct inl_dev *dev = box();
	struct inl_counters none = { 0 }, c;

	assert_int_equal(inl_dev_write(dev, SIZE, buf, BLOCK), -ENXIO);
	c = counters(dev);
	assert_int_equal(c.errors, 1);
	c.errors = 0;
	assert_memory_equal(&c, &none, sizeof(c));
	assert_int_equal(inl_dev_size(dev), SIZE);
	inl_dev_close(dev);
}

static void test_dev_sizes(void **state)
{
	struct inl_dev_params params = { .size = SIZE + 100, .block_size = 4096 };
	struct inl_dev *dev;

	assert_int_equal(inl_dev_new(&other_ops, &boxes[0], &params, &dev), 0);
	assert_int_equal(inl_dev_size(dev), SIZE);
	assert_int_equal(inl_dev_block_size(dev), 4096);
	assert_int_equal(inl_dev_sector_size(dev), 512);
	assert_int_equal(inl_dev_read(dev, 0, buf, BLOCK), -EINVAL);
	inl_dev_close(dev);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* Getters that take nothing but a device stand where they are asked of an odd one. */
static const struct row rows[] = {
	{ test_caps_supports, "inl_caps_supports" },
	{ test_caps_sets, "inl_caps_superset inl_caps_intersect" },
	{ test_modes, "inl_blk_mode_name inl_blk_mode_key_size inl_blk_mode_iv_size" },
	{ test_dun, "inl_dun_add" },
	{ test_mergeable, "inl_ctx_mergeable" },
	{ test_key_new, "inl_key_new" },
	{ test_key_references, "inl_key_get inl_key_put inl_key_config" },
	{ test_key_start, "inl_key_start" },
	{ test_key_evict, "inl_key_evict inl_key_use_native" },
	{ test_plain_bio, "inl_bio_init_plain" },
	{ test_keyed_bio, "inl_bio_init_keyed" },
	{ test_raw_read, "inl_bio_init_raw_read" },
	{ test_range_bio, "inl_bio_init_range" },
	{ test_queue_new, "inl_queue_new inl_queue_free" },
	{ test_queue_full, "inl_queue_submit inl_queue_n_busy" },
	{ test_queue_refuses, "inl_queue_submit" },
	{ test_queue_of_another_thread, "inl_queue_submit inl_queue_reap" },
	{ test_plug, "inl_queue_plug inl_queue_unplug" },
	{ test_reap, "inl_queue_reap" },
	{ test_submit_wait, "inl_submit_wait inl_may_wait" },
	{ test_simple_calls, "inl_dev_read inl_dev_write inl_dev_flush inl_dev_read_keyed inl_dev_write_keyed" },
	{ test_dev_open, "inl_dev_open inl_dev_close" },
	{ test_read_only, "inl_dev_writable" },
	{ test_no_fallback, "inl_dev_supports inl_dev_supports_natively inl_dev_caps inl_dev_fallback" },
	{ test_dev_lists, "inl_dev_child inl_dev_n_slots inl_dev_find inl_dev_driver inl_dev_label inl_driver_info" },
	{ test_ciphers, "inl_dev_ciphers inl_dev_set_ciphers" },
	{ test_control, "inl_dev_control" },
	{ test_dev_sizes, "inl_dev_size inl_dev_block_size inl_dev_sector_size" },
	{ test_counters, "inl_dev_counters" },
	{ NULL, NULL },
};

static void test_every_call_has_a_row(void **state)
{
	assert_true(check_header("include/inlay/block.h", rows) > 40);
}

int main(void)
{
	return run_rows(rows, test_every_call_has_a_row);
}
