/*
 * tests/unit/test_misuse_driver.c: what the block layer answers to drivers that do it wrong: one misuse for each call.
 * Not here: callers that do it wrong (test_misuse.c); the same calls used well (test_drivers.c, test_engine.c).
 * Read more: inlay/driver.h. The first test reads it, and fails if a call has no row in the table at the end.
 */
#include "tests/unit/misuse.h"
#include <pthread.h>
#include <unistd.h>

/* ---- drivers: making a device ------------------------------------------------------------------------------------ */

static void dev_new_fails(const struct inl_dev_ops *ops, const struct inl_dev_params *params)
{
	struct inl_dev *const untouched = (struct inl_dev *)buf;
	struct inl_dev *dev = untouched;

	assert_int_equal(inl_dev_new(ops, &boxes[0], params, &dev), -EINVAL);
	assert_ptr_equal(dev, untouched);
}

static void test_dev_new(void **state)
{
	static const struct inl_dev_ops neither = { .name = "neither" };
	static const struct inl_dev_ops both = { .name = "both", .submit = box_submit, .map = box_map };
	struct inl_dev *children[INL_DEV_MAX_CHILDREN + 1] = { box() };
	struct inl_dev *child = children[0];

	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .block_size = 256 });
	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .block_size = 1000 });
	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .block_size = 131072 });
	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .mem_align = 3 });
	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .mem_align = 8192 });
	dev_new_fails(&neither, &(struct inl_dev_params){ .size = SIZE });
	dev_new_fails(&both, &(struct inl_dev_params){ .size = SIZE, .children = &child, .n_children = 1 });
	dev_new_fails(&map_ops, &(struct inl_dev_params){ .size = SIZE }); /* a map, and nothing to map to */
	/* Slots, and no way to fill them. */
	dev_new_fails(&other_ops, &(struct inl_dev_params){ .size = SIZE, .has_engine = true, .n_slots = 1 });
	for (unsigned i = 1; i <= INL_DEV_MAX_CHILDREN; i++)
		children[i] = child;
	dev_new_fails(&box_ops, &(struct inl_dev_params){ .size = SIZE, .children = children,
							  .n_children = INL_DEV_MAX_CHILDREN + 1 });
	assert_ptr_equal(inl_dev_priv(child), &boxes[0]);
	inl_dev_close(child); /* is still ours */
}

/* Of a device above, too: what is refused below is not allowed on top. */
static void test_set_fallback(void **state)
{
	struct inl_dev *below = box(), *dev;
	struct inl_key *raw = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *use;

	inl_dev_set_fallback(below, false);
	dev = make(1, &box_ops, -1, below);
	assert_false(inl_dev_fallback(dev));
	assert_int_equal(inl_key_start(dev, raw, &use), -ENOPKG);
	inl_key_put(raw);
	inl_dev_close(dev);
}

static void test_set_bounce(void **state)
{
	struct inl_dev *dev = box();
	struct inl_crypt_ctx ctx;

	assert_int_equal(inl_dev_set_bounce(dev, 0), -EINVAL);
	assert_int_equal(inl_dev_set_bounce(dev, (64 << 10) - 1), -EINVAL);
	assert_int_equal(inl_dev_set_bounce(dev, (1u << 30) + 1), -EINVAL);
	assert_int_equal(inl_dev_set_bounce(dev, SIZE_MAX), -EINVAL);
	ctx = (struct inl_crypt_ctx){ .use = start(dev) };
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), 0); /* as it was */
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

static void test_set_caps(void **state)
{
	struct inl_caps none = { 0 }, caps;
	struct inl_dev *dev = box();
	struct inl_key_use *use;

	assert_int_equal(inl_dev_set_caps(dev, &none), -EINVAL); /* no engine */
	inl_dev_close(dev);
	dev = make(0, &box_ops, 1, NULL);
	use = start(dev);
	assert_true(inl_key_use_native(use));
	assert_int_equal(inl_dev_set_caps(dev, &none), -EBUSY);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], UNIT);
	assert_int_equal(inl_key_evict(use), 0);
	assert_false(inl_key_use_native(use)); /* a dead handle */
	assert_int_equal(inl_dev_set_caps(dev, &none), 0);
	inl_dev_close(dev);
}

/* ---- drivers: one bio -------------------------------------------------------------------------------------------- */

static void *end_elsewhere(void *arg)
{
	inl_bio_end(arg, -EREMOTEIO);
	return NULL;
}

static void end_on_a_thread(struct inl_dev *dev, struct inl_bio *bio)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, end_elsewhere, bio), 0);
	pthread_join(thread, NULL);
	assert_ptr_equal(boxes[0].held, NULL);
}

/* Ended before submit returns, on a thread that knows no queue: still called back here, later, once. */
static void test_end_elsewhere(void **state)
{
	struct inl_dev *dev = box();
	struct inl_queue *queue;
	struct watched watched;

	assert_int_equal(inl_queue_new(dev, 1, &queue), 0);
	boxes[0].submit = end_on_a_thread;
	assert_int_equal(inl_queue_submit(queue, &watched_read(&watched, 0)->bio), 0);
	while (inl_queue_n_busy(queue))
		inl_queue_reap(queue, 1);
	assert_int_equal(watched.n_done, 1);
	assert_int_equal(watched.status, -EREMOTEIO);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

static void below_the_end(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, SIZE - BLOCK);
}

static void below_far_away(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, UINT64_MAX - BLOCK + 1);
}

static void below_between_blocks(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(inl_dev_child(dev, 0), bio, 100);
}

static struct inl_dev *stranger;

static void below_stranger(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_below(stranger, bio, 0);
}

/* A driver that sends a bio to where there is nothing: an error, and no byte beside the device. */
static void test_submit_below(void **state)
{
	struct inl_dev *below = box(), *dev = make(1, &box_ops, -1, make(2, &box_ops, 1, below));
	struct inl_crypt_ctx ctx;

	boxes[1].submit = below_the_end;
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -ENXIO);
	boxes[1].submit = below_far_away;
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -ENXIO);
	boxes[1].submit = below_between_blocks;
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -EINVAL);
	/* A keyed bio to a device where its key was never started. */
	stranger = make(3, &box_ops, -1, NULL);
	ctx = (struct inl_crypt_ctx){ .use = start(dev) };
	assert_true(inl_key_use_native(ctx.use));
	boxes[1].submit = below_stranger;
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -EINVAL);
	assert_int_equal(boxes[0].n_arrived + boxes[2].n_arrived + boxes[3].n_arrived, 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(stranger);
	inl_dev_close(dev);
}

static uint64_t torn_len;

static void tear(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_submit_torn(inl_dev_child(dev, 0), bio, bio->state.pos, torn_len, -EIO);
}

static void test_submit_torn(void **state)
{
	struct inl_dev *below = box(), *dev = make(1, &box_ops, -1, below);

	boxes[1].submit = tear;
	memset(buf, 0x5a, sizeof(buf));
	torn_len = 0;
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -EIO);
	assert_int_equal(boxes[0].n_arrived, 0);
	torn_len = 2 * UNIT; /* more than there is */
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -EIO);
	assert_int_equal(boxes[0].mem[UNIT - 1], 0x5a);
	assert_int_equal(boxes[0].mem[UNIT], 0);
	torn_len = BLOCK + 1; /* no whole block */
	assert_true(inl_dev_write(dev, 2 * UNIT, buf, UNIT) < 0);
	assert_int_equal(boxes[0].mem[2 * UNIT], 0);
	torn_len = BLOCK;
	boxes[0].fail = -ENOSPC; /* an error of the part comes first */
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), -ENOSPC);
	inl_dev_close(dev);
}

static void *again_elsewhere(void *arg)
{
	inl_bio_again(arg);
	return NULL;
}

/* First at once, then from another thread, then for a time long past, then for one that comes. */
static void again(struct inl_dev *dev, struct inl_bio *bio)
{
	unsigned *stage = inl_bio_stage(bio);
	pthread_t thread;

	assert_int_equal(*stage, boxes[0].n_again++);
	switch ((*stage)++) {
	case 0:
		inl_bio_again(bio);
		break;
	case 1:
		assert_int_equal(pthread_create(&thread, NULL, again_elsewhere, bio), 0);
		pthread_join(thread, NULL);
		break;
	case 2:
		inl_bio_again_at(bio, 0);
		break;
	case 3:
		inl_bio_again_at(bio, inl_now_ns() + 1000);
		break;
	default:
		box_answer(dev, bio);
	}
}

static void test_again(void **state)
{
	struct inl_dev *dev = box();

	boxes[0].submit = again;
	for (unsigned i = 0; i < 3; i++) {
		boxes[0].n_again = 0; /* the stage of a bio is 0 when it arrives, whatever another one's was */
		assert_int_equal(inl_dev_read(dev, 0, buf, UNIT), 0);
		assert_int_equal(boxes[0].n_again, 5);
	}
	inl_dev_close(dev);
}

/* What a driver may ask of a bio that is not keyed, or has no queue. */
static void ask(struct inl_dev *dev, struct inl_bio *bio)
{
	struct iovec iov[4];
	uint64_t len = 99;

	assert_int_equal(inl_bio_kind(bio), INL_BIO_PLAIN);
	assert_int_equal(inl_bio_slot(bio), -1);
	assert_null(inl_bio_queue_ctx(bio, &box_ops));
	assert_null(inl_bio_queue_ctx(bio, NULL));
	assert_int_equal(inl_bio_iov(bio, bio->len, iov, 4, &len), 0); /* at its end */
	assert_int_equal(len, 0);
	len = 99;
	assert_int_equal(inl_bio_iov(bio, 0, iov, 0, &len), 0); /* no room */
	assert_int_equal(len, 0);
	inl_bio_copy_in(bio, bio->len, "x", 0);
	inl_bio_copy_out(bio, bio->len, iov, 0);
	box_answer(dev, bio);
}

static void test_questions(void **state)
{
	struct iovec segs[3] = { { buf, BLOCK }, { buf, 0 }, { buf + UNIT, BLOCK } }; /* one is empty */
	struct inl_dev *dev = box();
	struct inl_bio bio;

	boxes[0].submit = ask;
	inl_bio_init_plain(&bio, INL_READ, 0, segs, 3);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	inl_dev_close(dev);
}

static void test_bio_list(void **state)
{
	struct inl_bio_list list = { 0 };
	struct inl_bio a = { 0 }, b = { 0 };

	assert_null(inl_bio_list_pop(&list));
	inl_bio_list_add(&list, &a);
	inl_bio_list_add(&list, &b);
	assert_ptr_equal(inl_bio_list_pop(&list), &a);
	assert_ptr_equal(inl_bio_list_pop(&list), &b);
	assert_null(inl_bio_list_pop(&list));
	inl_bio_list_add(&list, &a); /* after it was empty again */
	assert_ptr_equal(inl_bio_list_pop(&list), &a);
}

/* A map that answers nonsense: an error, no other device is touched, and no loop. */
static void test_map(void **state)
{
	struct inl_dev *below = make(1, &box_ops, 1, NULL), *foreign = make(2, &box_ops, 1, NULL), *dev;
	struct inl_dev_extent wrong[] = {
		{ below, 0, 0 }, { NULL, 0, UNIT }, { below, SIZE, UNIT }, { below, UINT64_MAX - UNIT + 1, UNIT },
		{ below, 100, UNIT }, { below, 0, 2 * UNIT }, { below, 0, BLOCK / 2 },
	};
	struct inl_crypt_ctx ctx;

	dev = make(0, &map_ops, -1, below);
	ctx = (struct inl_crypt_ctx){ .use = start(dev) };
	alarm(20);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		boxes[0].extent = wrong[i];
		assert_true(inl_dev_write(dev, 0, buf, UNIT) < 0);
		assert_true(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx) < 0);
	}
	boxes[0].extent = (struct inl_dev_extent){ foreign, 0, UNIT };
	assert_true(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx) < 0);
	alarm(0);
	assert_int_equal(boxes[1].n_arrived + boxes[2].n_arrived, 0);
	boxes[0].extent = (struct inl_dev_extent){ below, 0, UNIT };
	assert_int_equal(inl_dev_write(dev, 0, buf, UNIT), 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(foreign);
	inl_dev_close(dev);
}

static void *no_memory(struct inl_dev *dev, uint64_t pos, uint64_t len)
{
	boxes[0].n_again++; /* it was asked */
	return NULL;
}

/* Memory that a device has not, and an answer of nothing: the bio comes to submit. */
static void test_memory(void **state)
{
	static const struct inl_dev_ops refuses = { .name = "refuses", .submit = box_submit, .memory = no_memory };
	static const struct inl_dev_ops only = { .name = "only", .memory = no_memory };
	static const struct inl_dev_ops mapped = { .name = "mapped", .map = box_map, .memory = no_memory };
	struct inl_dev *below = make(0, &refuses, -1, NULL), *dev = make(1, &map_ops, -1, below);
	struct inl_crypt_ctx ctx = { .use = start(below) };

	dev_new_fails(&only, &(struct inl_dev_params){ .size = SIZE });
	dev_new_fails(&mapped, &(struct inl_dev_params){ .size = SIZE, .children = &below, .n_children = 1 });
	assert_int_equal(inl_dev_read_keyed(below, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(boxes[0].n_again, 1);
	assert_int_equal(boxes[0].n_arrived, 1);
	assert_int_equal(counters(below).reads, 1);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	/* A map that leads beyond the end: nobody is asked for what is not there. */
	ctx.use = start(dev);
	boxes[1].extent = (struct inl_dev_extent){ below, SIZE, UNIT };
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -ENXIO);
	boxes[1].extent = (struct inl_dev_extent){ below, 100, UNIT };
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -EINVAL);
	boxes[1].extent = (struct inl_dev_extent){ dev, 0, UNIT };
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -EIO);
	assert_int_equal(boxes[0].n_again, 1);
	assert_int_equal(boxes[0].n_arrived, 1);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* ---- drivers: engines -------------------------------------------------------------------------------------------- */

static void test_reprogram(void **state)
{
	struct inl_dev *dev = box();
	struct inl_crypt_ctx ctx;

	inl_dev_reprogram(dev); /* nothing to program */
	assert_int_equal(boxes[0].programs, 0);
	inl_dev_close(dev);
	dev = make(0, &box_ops, 2, NULL);
	inl_dev_reprogram(dev); /* no slot has a key */
	assert_int_equal(boxes[0].programs, 0);
	assert_int_equal(boxes[0].reprogrammed, 1);
	ctx = (struct inl_crypt_ctx){ .use = start(dev) };
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(boxes[0].programs, 1);
	inl_dev_reprogram(dev);
	assert_int_equal(boxes[0].programs, 2);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_reprogram(dev); /* evicted: must not come back */
	assert_int_equal(boxes[0].programs, 2);
	assert_int_equal(boxes[0].evicts, 1);
	inl_dev_close(dev);
}

/* What the engine under test asks of a keyed bio, before it crosses. */
static void cross(struct inl_dev *dev, struct inl_bio *bio)
{
	struct box *self = inl_dev_priv(dev);
	size_t len = 0;

	if (inl_bio_kind(bio) != INL_BIO_KEYED) {
		inl_submit_below(inl_dev_child(dev, 0), bio, bio->state.pos);
		return;
	}
	assert_int_equal(inl_bio_slot(bio), 0);
	assert_int_equal(inl_bio_dun(bio)[0], 3);
	assert_int_equal(inl_key_config(inl_bio_key(bio))->data_unit_size, UNIT);
	assert_non_null(inl_key_bytes(inl_bio_key(bio), &len));
	assert_int_equal(len, 64);
	assert_null(inl_bio_key_priv(bio)); /* key_start was never called */
	inl_cross_submit(self->cross, bio);
}

static struct inl_cipher *cipher;
static int cross_status;

static void crypt_badly(struct inl_dev *dev, struct inl_cross_job *job)
{
	const uint8_t *src;
	uint8_t *dst;

	assert_int_equal(inl_cross_job_range(job, 0, &src, &dst), UNIT);
	assert_ptr_equal(dst, job->encrypt ? job->sealed : src);
	if (!cross_status)
		assert_int_equal(inl_cross_job_run(job, cipher), 0);
	inl_cross_done(job, cross_status);
}

/* An engine that fails: nothing is written, nothing is counted, the error arrives. */
static void test_cross(void **state)
{
	struct inl_dev *below = box(), *dev = make(1, &box_ops, 1, below);
	struct inl_crypt_ctx ctx = { .dun = { 3 } };
	struct inl_key *key = key_of_type(INL_KEY_RAW, 8);
	uint8_t zeros[UNIT] = { 0 };

	boxes[1].submit = cross;
	assert_int_equal(inl_cross_new(dev, below, crypt_badly, &boxes[1].cross), 0);
	assert_int_equal(inl_cross_cipher_new(key, NULL, &cipher), 0);
	assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
	memset(buf, 0x77, UNIT);
	cross_status = -EREMOTEIO;
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -EREMOTEIO);
	assert_memory_equal(boxes[0].mem, zeros, UNIT);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -EREMOTEIO);
	assert_int_equal(counters(dev).engine_units_encrypted + counters(dev).engine_units_decrypted, 0);
	assert_int_equal(counters(dev).errors, 2);
	cross_status = 0;
	memset(buf, 0x77, UNIT);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_memory_not_equal(boxes[0].mem, buf, UNIT);
	/* The medium fails: the engine must not be asked, let alone say that all went well. */
	boxes[0].fail = -EIO;
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &ctx), -EIO);
	assert_int_equal(counters(dev).engine_units_decrypted, 0);
	inl_dev_count_units(dev, INL_READ, 0);
	assert_int_equal(counters(dev).engine_units_decrypted, 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_cross_cipher_free(cipher);
	inl_key_put(key);
	inl_dev_close(dev);
}

static void test_cross_cipher(void **state)
{
	struct inl_key *wrapped = key_of_type(INL_KEY_HW_WRAPPED, 8), *key = key_of_type(INL_KEY_RAW, 8);
	struct inl_cipher *const untouched = (struct inl_cipher *)buf;
	struct inl_cipher *out = untouched;

	assert_int_equal(inl_cross_cipher_new(wrapped, NULL, &out), -EOPNOTSUPP);
	assert_ptr_equal(out, untouched);
	assert_int_equal(inl_cross_cipher_new(key, "abacus", &out), -ENOENT);
	assert_ptr_equal(out, untouched);
	inl_key_put(key);
	inl_cross_cipher_free(NULL);
	inl_cross_free(NULL);
	inl_key_put(wrapped);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct row rows[] = {
	{ test_dev_new, "inl_dev_new inl_dev_priv" },
	{ test_set_fallback, "inl_dev_set_fallback" },
	{ test_set_bounce, "inl_dev_set_bounce" },
	{ test_set_caps, "inl_dev_set_caps" },
	{ test_end_elsewhere, "inl_bio_end" },
	{ test_submit_below, "inl_submit_below" },
	{ test_submit_torn, "inl_submit_torn" },
	{ test_again, "inl_bio_again inl_bio_again_at inl_bio_stage inl_now_ns" },
	{ test_questions, "inl_bio_kind inl_bio_queue_ctx inl_bio_iov inl_bio_copy_in inl_bio_copy_out" },
	{ test_bio_list, "inl_bio_list_add inl_bio_list_pop" },
	{ test_map, "a map that answers nonsense" },
	{ test_memory, "memory that is not there" },
	{ test_reprogram, "inl_dev_reprogram" },
	{ test_cross, "inl_cross_new inl_cross_submit inl_cross_job_run inl_cross_job_range inl_cross_done "
		      "inl_dev_count_units inl_bio_slot inl_bio_dun inl_bio_key inl_bio_key_priv inl_key_bytes" },
	{ test_cross_cipher, "inl_cross_cipher_new inl_cross_cipher_free inl_cross_free" },
	{ NULL, NULL },
};

static void test_every_call_has_a_row(void **state)
{
	assert_true(check_header("include/inlay/driver.h", rows) > 30);
}

int main(void)
{
	return run_rows(rows, test_every_call_has_a_row);
}
