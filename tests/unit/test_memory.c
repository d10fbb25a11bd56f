/*
 * tests/unit/test_memory.c: devices that offer their memory: the fallback encrypts into it and decrypts out of it.
 * Not here: what a driver that offers memory does wrong (test_misuse_driver.c); bounce memory (test_block.c).
 * Read more: inlay/driver.h, memory. tests/meson.build has the two functions of the cipher called through this file: each
 * encryption is looked at before it begins, and whether the cipher may fail, and does, is said here, whatever CPU this is.
 */
#include <inlay/cipher.h>
#include "tests/unit/pattern.h"
#include <errno.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cmocka.h>

#define UNIT	  4096u
#define SIZE	  (4u << 20)
#define LARGE	  (2u << 20) /* bytes: worth a helping thread, whatever the cipher */
#define KEY	  5
#define DUN	  1000
#define OLD	  0xa7 /* what all memory holds at first */

/* ---- in front of the cipher: the linker's --wrap ----------------------------------------------------------------- */

static bool may_fail, fails;
static const uint8_t *guarded; /* SIZE bytes in which there must be no plaintext when an encryption begins; NULL: none */
static const uint8_t *_Atomic last_dst;
static atomic_uint n_inside, n_outside, n_unsafe; /* encryptions into the guarded bytes, and elsewhere */

bool __wrap_inl_cipher_never_fails(const struct inl_cipher *cipher);
int __real_inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len,
			      uint8_t *dst, const uint8_t *src);
int __wrap_inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len,
			      uint8_t *dst, const uint8_t *src);

int __real_inl_cipher_encrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
				    const struct inl_cipher_span *spans, size_t n);
int __wrap_inl_cipher_encrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
				    const struct inl_cipher_span *spans, size_t n);

bool __wrap_inl_cipher_never_fails(const struct inl_cipher *cipher)
{
	return !may_fail;
}

static void seen(uint8_t *dst, size_t len)
{
	last_dst = dst;
	if (guarded && dst >= guarded && dst < guarded + SIZE) {
		n_inside++;
		n_unsafe += pattern_find(dst, len) != -1;
	} else {
		n_outside++;
	}
	if (fails)
		memset(dst, 0, len);
}

int __wrap_inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len,
			      uint8_t *dst, const uint8_t *src)
{
	seen(dst, n * unit_len);
	return fails ? -EIO : __real_inl_cipher_encrypt(cipher, dun, n, unit_len, dst, src);
}

int __wrap_inl_cipher_encrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
				    const struct inl_cipher_span *spans, size_t n)
{
	for (size_t i = 0; i < n; i++)
		seen(spans[i].dst, spans[i].n * unit_len);
	return fails ? -EIO : __real_inl_cipher_encrypt_spans(cipher, dun, unit_len, spans, n);
}

/* ---- a driver that offers its memory ----------------------------------------------------------------------------- */

static struct {
	uint8_t mem[SIZE];
	uint64_t kept; /* bytes at the end that are not offered */
	unsigned n_arrived, n_keyed;
	atomic_uint n_asked, n_beyond;
} lab;

static void lab_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	lab.n_arrived++;
	lab.n_keyed += inl_bio_kind(bio) == INL_BIO_KEYED;
	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, lab.mem + bio->state.pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, lab.mem + bio->state.pos, bio->len);
	inl_bio_end(bio, 0);
}

static void *lab_memory(struct inl_dev *dev, uint64_t pos, uint64_t len)
{
	lab.n_asked++;
	lab.n_beyond += !len || pos > SIZE || len > SIZE - pos;
	return pos + len > SIZE - lab.kept ? NULL : lab.mem + pos;
}

static const struct inl_dev_ops lab_ops = { .name = "lab", .submit = lab_submit, .memory = lab_memory };

static struct inl_dev *lab_open(bool writable)
{
	struct inl_dev_params params = { .size = SIZE, .writable = writable };
	struct inl_dev *dev;

	memset(&lab, 0, sizeof(lab));
	memset(lab.mem, OLD, SIZE);
	guarded = lab.mem;
	n_inside = n_outside = n_unsafe = 0;
	may_fail = fails = false;
	assert_int_equal(inl_dev_new(&lab_ops, NULL, &params, &dev), 0);
	return dev;
}

static int lab_closed(void **state)
{
	guarded = NULL;
	may_fail = fails = false;
	return 0;
}

/* ---- what is written and read ------------------------------------------------------------------------------------ */

static uint8_t text[SIZE], back[SIZE], raw[SIZE];

static struct inl_crypt_ctx start(struct inl_dev *dev)
{
	struct inl_crypt_ctx ctx = { .dun = { DUN } };
	struct inl_key *key;

	assert_int_equal(key_make(KEY, UNIT, &key), 0);
	assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
	inl_key_put(key);
	return ctx;
}

static struct inl_counters counters(const struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	return c;
}

/* Cut buf into five segments, of which one is empty and none but the last is as long as another: n units, at least 6. */
static void cut(uint8_t *buf, unsigned n, struct iovec segs[5])
{
	const unsigned units[5] = { 1, 3, 0, 2, n - 6 };

	for (unsigned i = 0; i < 5; i++) {
		segs[i] = (struct iovec){ buf, units[i] * UNIT };
		buf += units[i] * UNIT;
	}
}

static int io(struct inl_dev *dev, enum inl_op op, unsigned flags, uint64_t pos, uint8_t *buf, unsigned n,
	      const struct inl_crypt_ctx *ctx)
{
	struct iovec segs[5];
	struct inl_bio bio;

	cut(buf, n, segs);
	inl_bio_init_keyed(&bio, op, pos, segs, 5, ctx);
	bio.flags = flags;
	return inl_submit_wait(dev, &bio);
}

/* n units of the plaintext of this version under DUN .., as OpenSSL encrypts them one by one. */
static bool is_sealed(const uint8_t *mem, unsigned n, uint32_t version)
{
	uint8_t plain[UNIT], unit[UNIT];

	for (unsigned i = 0; i < n; i++) {
		pattern_fill(plain, (uint64_t)i * UNIT, UNIT, version);
		if (!unit_crypt(KEY, DUN + i, plain, unit, UNIT, true) || memcmp(mem + i * UNIT, unit, UNIT))
			return false;
	}
	return true;
}

static bool is_all(const uint8_t *mem, size_t len, uint8_t byte)
{
	for (size_t i = 0; i < len; i++)
		if (mem[i] != byte)
			return false;
	return true;
}

static void read_raw(struct inl_dev *dev, uint64_t pos, unsigned n)
{
	struct iovec seg = { raw, n * UNIT };
	struct inl_bio bio;

	inl_bio_init_raw_read(&bio, pos, &seg, 1);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
}

/* Write n units at pos and read them back; what lies there is what OpenSSL makes of them; the caller's memory stays. */
static void round_trip(struct inl_dev *dev, uint64_t pos, unsigned n, uint32_t version, const struct inl_crypt_ctx *ctx)
{
	pattern_fill(text, 0, n * UNIT, version);
	assert_int_equal(io(dev, INL_WRITE, 0, pos, text, n, ctx), 0);
	assert_true(pattern_is(text, 0, n * UNIT, version));
	read_raw(dev, pos, n);
	assert_true(is_sealed(raw, n, version));
	memset(back, 0, sizeof(back));
	assert_int_equal(io(dev, INL_READ, 0, pos, back, n, ctx), 0);
	assert_true(pattern_is(back, 0, n * UNIT, version));
	assert_true(is_all(back + n * UNIT, UNIT, 0));
}

/* ---- straight ---------------------------------------------------------------------------------------------------- */

static void test_straight(void **state)
{
	const uint64_t pos = 3 * UNIT + 512;
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);
	struct inl_counters c;

	round_trip(dev, pos, 40, 1, &ctx);
	assert_true(is_sealed(lab.mem + pos, 40, 1));
	assert_true(is_all(lab.mem, pos, OLD));
	assert_true(is_all(lab.mem + pos + 40 * UNIT, SIZE - pos - 40 * UNIT, OLD));
	assert_int_equal(lab.n_arrived, 1); /* the raw read */
	assert_int_equal(lab.n_asked, 2);
	assert_true(n_inside > 0);
	assert_int_equal(n_outside + n_unsafe + lab.n_beyond, 0);
	c = counters(dev);
	assert_int_equal(c.writes, 1);
	assert_int_equal(c.bytes_written, 40 * UNIT);
	assert_int_equal(c.reads, 2);
	assert_int_equal(c.bytes_read, 2 * 40 * UNIT);
	assert_int_equal(c.fallback_units_encrypted, 40);
	assert_int_equal(c.fallback_units_decrypted, 40);
	assert_int_equal(c.engine_units_encrypted + c.engine_units_decrypted + c.errors + c.bounce_waits, 0);
	round_trip(dev, SIZE - 6 * UNIT, 6, 2, &ctx); /* to the very end */
	assert_true(is_sealed(lab.mem + pos, 40, 1));
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* Large enough to be done by several threads, once it is known how long it takes. */
static void test_large(void **state)
{
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);

	for (uint32_t version = 1; version <= 3; version++)
		round_trip(dev, UNIT, LARGE / UNIT, version, &ctx);
	assert_true(is_all(lab.mem, UNIT, OLD));
	assert_true(is_all(lab.mem + UNIT + LARGE, SIZE - UNIT - LARGE, OLD));
	assert_int_equal(n_outside + n_unsafe, 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* Bios that became one in a plugged queue. */
static void test_merged(void **state)
{
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);
	struct iovec segs[8];
	struct inl_bio bios[8];
	struct inl_queue *queue;

	pattern_fill(text, 0, 16 * UNIT, 9);
	assert_int_equal(inl_queue_new(dev, 8, &queue), 0);
	inl_queue_plug(queue);
	for (unsigned i = 0; i < 8; i++) {
		segs[i] = (struct iovec){ text + 2 * i * UNIT, 2 * UNIT };
		ctx.dun[0] = DUN + 2 * i;
		inl_bio_init_keyed(&bios[i], INL_WRITE, UNIT + 2 * i * UNIT, &segs[i], 1, &ctx);
		assert_int_equal(inl_queue_submit(queue, &bios[i]), 0);
	}
	inl_queue_unplug(queue);
	assert_int_equal(inl_queue_n_busy(queue), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(bios[i].status, 0);
	assert_true(is_sealed(lab.mem + UNIT, 16, 9));
	assert_true(is_all(lab.mem, UNIT, OLD));
	assert_true(is_all(lab.mem + 17 * UNIT, SIZE - 17 * UNIT, OLD));
	assert_int_equal(counters(dev).merges, 7);
	assert_int_equal(counters(dev).writes, 1);
	assert_int_equal(lab.n_arrived + n_outside + n_unsafe, 0);
	inl_queue_free(queue);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* ---- not straight ------------------------------------------------------------------------------------------------ */

/* A cipher that fails wipes what it was to write: that must not be the medium. */
static void test_cipher_that_may_fail(void **state)
{
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);

	may_fail = true;
	round_trip(dev, 0, 8, 1, &ctx);
	assert_int_equal(n_inside, 0);
	assert_true(n_outside > 0);
	assert_int_equal(lab.n_arrived, 2); /* the write, the raw read: reading costs the medium nothing */
	fails = true;
	pattern_fill(text, 0, 8 * UNIT, 2);
	assert_int_equal(io(dev, INL_WRITE, 0, 0, text, 8, &ctx), -EIO);
	assert_true(is_sealed(lab.mem, 8, 1));
	assert_true(pattern_is(text, 0, 8 * UNIT, 2));
	assert_int_equal(counters(dev).fallback_units_encrypted, 8);
	assert_int_equal(counters(dev).errors, 1);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* The driver wants to see it: what is to be durable, and what lies in memory that it keeps to itself. */
static void test_left_to_submit(void **state)
{
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);

	pattern_fill(text, 0, 8 * UNIT, 3);
	assert_int_equal(io(dev, INL_WRITE, INL_BIO_FUA, 0, text, 8, &ctx), 0);
	assert_true(is_sealed(lab.mem, 8, 3));
	assert_int_equal(lab.n_arrived, 1);
	assert_int_equal(lab.n_asked, 0);
	lab.kept = 2 * UNIT;
	round_trip(dev, SIZE - 8 * UNIT, 8, 4, &ctx);
	assert_int_equal(lab.n_arrived, 4);
	assert_int_equal(lab.n_asked, 2);
	assert_int_equal(n_inside + n_unsafe + lab.n_keyed, 0);
	assert_int_equal(counters(dev).writes, 2);
	assert_int_equal(counters(dev).reads, 2);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

static void test_refused(void **state)
{
	struct inl_dev *dev = lab_open(false);
	struct inl_crypt_ctx ctx = start(dev);
	struct inl_key_use *use = ctx.use;

	pattern_fill(text, 0, 8 * UNIT, 5);
	assert_int_equal(io(dev, INL_WRITE, 0, 0, text, 8, &ctx), -EROFS);
	assert_int_equal(lab.n_asked, 0);
	assert_int_equal(io(dev, INL_READ, 0, SIZE - 7 * UNIT, back, 8, &ctx), -ENXIO);
	assert_int_equal(io(dev, INL_READ, 0, SIZE - 8 * UNIT + 100, back, 8, &ctx), -EINVAL);
	assert_int_equal(lab.n_asked, 0);
	assert_int_equal(io(dev, INL_READ, 0, SIZE - 8 * UNIT, back, 8, &ctx), 0);
	assert_int_equal(lab.n_asked, 1);
	assert_int_equal(inl_key_evict(use), 0);
	assert_int_equal(io(dev, INL_READ, 0, 0, back, 8, &ctx), -ENOKEY);
	assert_int_equal(lab.n_asked, 1);
	assert_true(is_all(lab.mem, SIZE, OLD));
	inl_dev_close(dev);
}

/* ---- stacks, by their SPEC --------------------------------------------------------------------------------------- */

static struct inl_dev *open_spec(const char *spec)
{
	struct inl_dev *dev;

	guarded = NULL;
	n_inside = n_outside = 0;
	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &dev), 0);
	return dev;
}

/* From the top of the stack to the device of memory that holds what was written: all have counted it. */
static void counted(const struct inl_dev *dev, unsigned child, unsigned n)
{
	for (; dev; dev = inl_dev_child(dev, child)) {
		assert_int_equal(counters(dev).writes, 1);
		assert_int_equal(counters(dev).bytes_written, n * UNIT);
		assert_int_equal(counters(dev).reads, 2);
		assert_int_equal(counters(dev).bytes_read, 2 * n * UNIT);
		assert_int_equal(counters(dev).splits, 0);
	}
}

/* Through a stack that hands it on as it is, and the neighbours of it stay. */
static void through(const char *spec, uint64_t pos, unsigned child, uint64_t pos_below)
{
	struct inl_dev *dev = open_spec(spec), *below = dev;
	struct inl_crypt_ctx ctx = start(dev);

	round_trip(dev, pos, 8, 6, &ctx);
	counted(dev, child, 8);
	while (inl_dev_child(below, child))
		below = inl_dev_child(below, child);
	assert_int_equal(inl_dev_read(below, 0, raw, inl_dev_size(below)), 0);
	assert_true(is_sealed(raw + pos_below, 8, 6));
	assert_true(is_all(raw, pos_below, 0));
	assert_true(is_all(raw + pos_below + 8 * UNIT, inl_dev_size(below) - pos_below - 8 * UNIT, 0));
	assert_int_equal(counters(dev).fallback_units_encrypted, 8);
	assert_int_equal(counters(dev).fallback_units_decrypted, 8);
	/* What was encrypted into is the medium: it goes when that is overwritten. */
	memset(raw, 0, 8 * UNIT);
	assert_int_equal(inl_dev_write(below, pos_below, raw, 8 * UNIT), 0);
	assert_true(is_all((const uint8_t *)last_dst, UNIT, 0));
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

static void test_through_stacks(void **state)
{
	through("ram(1M)", 5 * UNIT, 0, 5 * UNIT);
	through("slice(ram(1M), offset=64K)", UNIT, 0, 17 * UNIT);
	through("slice(slice(ram(1M), offset=64K), offset=512, length=128K)", UNIT, 0, 17 * UNIT + 512);
	through("linear(ram(256K), ram(1M))", (256u << 10) + UNIT, 1, UNIT);
	through("stripe(ram(1M), ram(1M), chunk=64K)", 7 * (64u << 10) + UNIT, 1, 3 * (64u << 10) + UNIT);
}

/* What a stack splits, in the middle of a data unit if it must be, goes as it always went. */
static void test_split(void **state)
{
	const char *specs[] = { "linear(ram(16K), ram(1M))", "linear(ram(6K), ram(1M))",
				"stripe(ram(1M), ram(1M), ram(1M), chunk=8K)", "linear(slice(ram(1M), offset=16K, length=4K), ram(1M))" };

	for (unsigned i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct inl_dev *dev = open_spec(specs[i]);
		struct inl_crypt_ctx ctx = start(dev);

		round_trip(dev, 0, 20, 7, &ctx);
		assert_true(counters(dev).splits > 0);
		assert_int_equal(counters(dev).writes, 1);
		assert_int_equal(counters(dev).fallback_units_encrypted, 20);
		assert_int_equal(inl_key_evict(ctx.use), 0);
		inl_dev_close(dev);
	}
}

/* A device before the memory, on which things go wrong: nothing goes round it. */
static void test_faults_hit(void **state)
{
	struct inl_dev *dev = open_spec("fault(ram(1M), write@2=EIO, write@3=torn:8K, read@3=EIO)");
	struct inl_crypt_ctx ctx = start(dev);

	round_trip(dev, 0, 8, 1, &ctx);
	pattern_fill(text, 0, 8 * UNIT, 2);
	assert_int_equal(io(dev, INL_WRITE, 0, 0, text, 8, &ctx), -EIO);
	assert_int_equal(io(dev, INL_READ, 0, 0, back, 8, &ctx), -EIO);
	read_raw(dev, 0, 8);
	assert_true(is_sealed(raw, 8, 1));
	assert_int_equal(io(dev, INL_WRITE, 0, 0, text, 8, &ctx), -EIO);
	assert_int_equal(io(dev, INL_READ, 0, 0, back, 8, &ctx), 0);
	assert_true(pattern_is(back, 0, 2 * UNIT, 2));
	assert_true(pattern_is(back + 2 * UNIT, 2 * UNIT, 6 * UNIT, 1));
	assert_int_equal(counters(dev).writes, 3);
	assert_int_equal(counters(inl_dev_child(dev, 0)).writes, 2);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* An engine may fail when it has written: its ciphertext comes to the medium as a bio. */
static void test_engine_fails(void **state)
{
	struct inl_dev *dev = open_spec("engine(ram(1M), slots=1)");
	struct inl_crypt_ctx ctx = start(dev);

	round_trip(dev, 0, 8, 1, &ctx);
	assert_int_equal(inl_dev_control(dev, "io@1", NULL), 0);
	pattern_fill(text, 0, 8 * UNIT, 2);
	assert_int_equal(io(dev, INL_WRITE, 0, 0, text, 8, &ctx), -EIO);
	read_raw(dev, 0, 8);
	assert_true(is_sealed(raw, 8, 1));
	assert_int_equal(counters(dev).engine_units_encrypted, 8);
	assert_int_equal(counters(dev).fallback_units_encrypted, 0);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define N_THREADS 3
#define N_ROUNDS  60
#define PART	  (24 * UNIT)

struct worker {
	pthread_t thread;
	struct inl_dev *dev;
	struct inl_crypt_ctx ctx;
	unsigned i;
	bool ok;
	uint8_t text[PART], back[PART];
};

/* Each writes and reads its own part, again and again; the parts touch. */
static void *work(void *arg)
{
	struct worker *w = arg;

	w->ok = true;
	for (uint32_t round = 1; round <= N_ROUNDS && w->ok; round++) {
		pattern_fill(w->text, 0, PART, round);
		w->ok = !inl_dev_write_keyed(w->dev, w->i * PART, w->text, PART, &w->ctx) &&
			!inl_dev_read_keyed(w->dev, w->i * PART, w->back, PART, &w->ctx) &&
			pattern_is(w->back, 0, PART, round);
	}
	return NULL;
}

static void test_threads(void **state)
{
	static struct worker workers[N_THREADS];
	struct inl_dev *dev = lab_open(true);
	struct inl_crypt_ctx ctx = start(dev);

	guarded = NULL; /* its counters belong to one thread */
	for (unsigned i = 0; i < N_THREADS; i++) {
		workers[i].dev = dev;
		workers[i].ctx = ctx;
		workers[i].i = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < N_THREADS; i++) {
		assert_true(workers[i].ok);
		assert_true(is_sealed(lab.mem + i * PART, PART / UNIT, N_ROUNDS));
	}
	assert_true(is_all(lab.mem + N_THREADS * PART, SIZE - N_THREADS * PART, OLD));
	assert_int_equal(lab.n_arrived, 0);
	assert_int_equal(counters(dev).fallback_units_encrypted, N_THREADS * N_ROUNDS * PART / UNIT);
	assert_int_equal(counters(dev).writes, N_THREADS * N_ROUNDS);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_dev_close(dev);
}

/* ---- every single store ------------------------------------------------------------------------------------------ */

#if defined(__x86_64__)
#define N_WATCHED 4u
#define TRAP_FLAG 0x100 /* of RFLAGS: stop after one instruction */

static struct {
	uint8_t *mem; /* N_WATCHED units, which may only be read */
	uint8_t old[N_WATCHED * UNIT], new[N_WATCHED * UNIT];
	volatile unsigned n_stores, n_wrong;
} watched;

static void on_store(int number, siginfo_t *info, void *context)
{
	const uint8_t *at = info->si_addr;

	if (at < watched.mem - 64 || at >= watched.mem + N_WATCHED * UNIT)
		abort();
	mprotect(watched.mem, N_WATCHED * UNIT, PROT_READ | PROT_WRITE);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* After the store: every byte is as it was, or as it will be. */
static void after_store(int number, siginfo_t *info, void *context)
{
	watched.n_stores++;
	for (size_t i = 0; i < N_WATCHED * UNIT; i++)
		watched.n_wrong += watched.mem[i] != watched.old[i] && watched.mem[i] != watched.new[i];
	mprotect(watched.mem, N_WATCHED * UNIT, PROT_READ);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

bool __real_inl_cipher_never_fails(const struct inl_cipher *cipher);

static void watch_cipher(enum inl_cipher_id id, const uint8_t *key)
{
	const uint64_t dun[4] = { DUN };
	struct inl_cipher *cipher;

	if (inl_cipher_new(id, NULL, key, &cipher))
		return;
	watched.n_stores = watched.n_wrong = 0;
	if (__real_inl_cipher_never_fails(cipher)) {
		assert_int_equal(__real_inl_cipher_encrypt(cipher, dun, N_WATCHED, UNIT, watched.new, text), 0);
		assert_int_equal(__real_inl_cipher_encrypt(cipher, dun, N_WATCHED, UNIT, watched.mem, text), 0);
		assert_memory_equal(watched.mem, watched.new, N_WATCHED * UNIT);
		assert_true(watched.n_stores >= N_WATCHED * UNIT / 64);
		assert_int_equal(watched.n_wrong, 0);
		mprotect(watched.mem, N_WATCHED * UNIT, PROT_READ | PROT_WRITE);
		memcpy(watched.mem, watched.old, N_WATCHED * UNIT);
		mprotect(watched.mem, N_WATCHED * UNIT, PROT_READ);
	}
	inl_cipher_free(cipher);
}

/* Ciphers that may write into media, one store after the other. */
static void test_every_store(void **state)
{
	struct sigaction store = { .sa_sigaction = on_store, .sa_flags = SA_SIGINFO };
	struct sigaction after = { .sa_sigaction = after_store, .sa_flags = SA_SIGINFO }, segv, trap;
	uint8_t key[64];

	key_bytes(KEY, key);
	pattern_fill(text, 0, N_WATCHED * UNIT, 1);
	memset(watched.old, OLD, sizeof(watched.old));
	watched.mem = mmap(NULL, N_WATCHED * UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(watched.mem, MAP_FAILED);
	memcpy(watched.mem, watched.old, N_WATCHED * UNIT);
	mprotect(watched.mem, N_WATCHED * UNIT, PROT_READ);
	sigaction(SIGSEGV, &store, &segv);
	sigaction(SIGTRAP, &after, &trap);
	for (int id = 1; id < INL_CIPHER_MAX; id++)
		watch_cipher((enum inl_cipher_id)id, key);
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGTRAP, &trap, NULL);
	munmap(watched.mem, N_WATCHED * UNIT);
}
#else
static void test_every_store(void **state)
{
	print_message("skipped: stores are watched on x86-64 only\n");
	skip();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_straight, lab_closed),
		cmocka_unit_test_teardown(test_large, lab_closed),
		cmocka_unit_test_teardown(test_merged, lab_closed),
		cmocka_unit_test_teardown(test_cipher_that_may_fail, lab_closed),
		cmocka_unit_test_teardown(test_left_to_submit, lab_closed),
		cmocka_unit_test_teardown(test_refused, lab_closed),
		cmocka_unit_test_teardown(test_through_stacks, lab_closed),
		cmocka_unit_test_teardown(test_split, lab_closed),
		cmocka_unit_test_teardown(test_faults_hit, lab_closed),
		cmocka_unit_test_teardown(test_engine_fails, lab_closed),
		cmocka_unit_test_teardown(test_threads, lab_closed),
		cmocka_unit_test_teardown(test_every_store, lab_closed),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
