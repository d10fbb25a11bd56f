/*
 * tests/unit/uring_rig.c: what this machine has; I/O of one bio, of a few, or at random against an array of bytes.
 * Not here: the tests (test_uring.c, test_durable.c).
 * Read more: uring_rig.h.
 */
#include "tests/unit/uring_rig.h"
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

/* ---- what this machine has --------------------------------------------------------------------------------------- */

char inl_dir[128];
bool inl_has_uring, inl_has_direct, inl_has_nowait;
static bool has_inject;
_Thread_local bool inl_alone;

void inl_check(bool ok, const char *text, const char *file, int line)
{
	if (ok)
		return;
	if (!inl_alone)
		fail_msg("%s:%d: %s", file, line, text);
	fprintf(stderr, "%s:%d: %s\n", file, line, text);
	abort();
}

void inl_skip_for(const char *reason)
{
	print_message("skipped: %s\n", reason);
	skip();
}

void inl_needs_uring(void)
{
	if (!inl_has_uring)
		inl_skip_for("no io_uring here");
}

void inl_needs_inject(void)
{
	inl_needs_uring();
	if (!has_inject)
		inl_skip_for("no IORING_NOP_INJECT_RESULT here (Linux 6.10)");
}

void inl_needs_direct(void)
{
	if (!inl_has_direct)
		inl_skip_for("no direct I/O in the folder for temporary files");
}

const char *inl_format(const char *fmt, ...)
{
	static _Thread_local char text[4][512];
	static _Thread_local unsigned turn;
	char *p = text[turn++ % 4];
	va_list args;

	va_start(args, fmt);
	vsnprintf(p, sizeof(text[0]), fmt, args);
	va_end(args);
	return p;
}

const char *inl_path_of(const char *name)
{
	static char paths[32][sizeof(inl_dir) + 32];
	static unsigned n;
	char *p = paths[n++ % 32];

	snprintf(p, sizeof(paths[0]), "%s/%s", inl_dir, name);
	return p;
}

static uint64_t dice_state = 1;

/* A number below n. xorshift64*, Vigna 2016 (public domain). */
unsigned inl_roll(unsigned n)
{
	dice_state ^= dice_state >> 12;
	dice_state ^= dice_state << 25;
	dice_state ^= dice_state >> 27;
	return (unsigned)((dice_state * 2685821657736338717u) >> 33) % n;
}

uint8_t *inl_memory(size_t len)
{
	uint8_t *mem = aligned_alloc(MEM_ALIGN, len);

	CHECK(mem);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = inl_roll(1u << 31) * 0x9e3779b97f4a7c15u;

		memcpy(mem + i, &word, len - i < 8 ? len - i : 8);
	}
	return mem;
}

int inl_make_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK(bytes ? pwrite(fd, bytes, len, 0) == (ssize_t)len : !ftruncate(fd, (off_t)len));
	CHECK(!fsync(fd));
	return fd;
}

struct inl_dev *inl_open_dev(const char *spec, unsigned flags)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = NULL;

	if (inl_dev_open(spec, flags, &diag, &dev)) {
		fprintf(stderr, "%s: %s\n", spec, diag.text);
		CHECK(!"the device opens");
	}
	return dev;
}

struct inl_queue *inl_open_queue(struct inl_dev *dev, unsigned depth)
{
	struct inl_queue *queue = NULL;

	CHECK(!inl_queue_new(dev, depth, &queue));
	return queue;
}

int inl_loop_attach(int backing, uint32_t block_size, int *fd)
{
	struct loop_config config = { .fd = (uint32_t)backing, .block_size = block_size,
				      .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n = -1;

	for (unsigned tries = 0; control >= 0 && tries < 10; tries++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		*fd = n < 0 ? -1 : open(inl_format("/dev/loop%d", n), O_RDWR | O_CLOEXEC);
		if (*fd >= 0 && !ioctl(*fd, LOOP_CONFIGURE, &config))
			break;
		if (*fd >= 0)
			close(*fd);
		n = -1;
	}
	if (control >= 0)
		close(control);
	return n;
}

/* A jump out of a callback would leave the block layer in the middle of something. */
#define IN_CALLBACK(x)                     \
	do {                               \
		bool was_alone = inl_alone; \
		inl_alone = true;          \
		CHECK(x);                  \
		inl_alone = was_alone;     \
	} while (0)

/* ---- one bio after the other, or a few --------------------------------------------------------------------------- */

static void one_done(struct inl_bio *bio)
{
	struct inl_one *one = bio->private_data;

	IN_CALLBACK(!one->done);
	one->done = true;
	one->began_after = inl_kernel_n_syncs();
}

void inl_submit_one(struct inl_queue *queue, struct inl_one *one)
{
	one->bio.done = one_done;
	one->bio.private_data = one;
	one->done = false;
	one->began_before = inl_kernel_n_syncs();
	CHECK(!inl_queue_submit(queue, &one->bio));
}

void inl_submit_flush(struct inl_queue *queue, struct inl_one *one)
{
	inl_bio_init_range(&one->bio, INL_FLUSH, 0, 0);
	inl_submit_one(queue, one);
}

void inl_submit_write(struct inl_queue *queue, struct inl_one *one, uint64_t offset, void *buf, size_t len,
		      unsigned flags)
{
	one->seg = (struct iovec){ buf, len };
	inl_bio_init_plain(&one->bio, INL_WRITE, offset, &one->seg, 1);
	one->bio.flags = flags;
	inl_submit_one(queue, one);
}

void inl_wait_for(struct inl_queue *queue, struct inl_one *one)
{
	while (!one->done)
		CHECK(inl_queue_reap(queue, 1));
}

int inl_flush_now(struct inl_queue *queue)
{
	struct inl_one one;

	inl_submit_flush(queue, &one);
	inl_wait_for(queue, &one);
	return one.bio.status;
}

int inl_write_now(struct inl_queue *queue, uint64_t offset, void *buf, size_t len, unsigned flags)
{
	struct inl_one one;

	inl_submit_write(queue, &one, offset, buf, len, flags);
	inl_wait_for(queue, &one);
	return one.bio.status;
}

int inl_read_now(struct inl_queue *queue, uint64_t offset, void *buf, size_t len)
{
	struct inl_one one = { .seg = { buf, len } };

	inl_bio_init_plain(&one.bio, INL_READ, offset, &one.seg, 1);
	inl_submit_one(queue, &one);
	inl_wait_for(queue, &one);
	return one.bio.status;
}

int inl_range_now(struct inl_queue *queue, enum inl_op op, uint64_t offset, uint64_t len)
{
	struct inl_one one;

	inl_bio_init_range(&one.bio, op, offset, len);
	inl_submit_one(queue, &one);
	inl_wait_for(queue, &one);
	return one.bio.status;
}

/* ---- everything at once, against an array of bytes --------------------------------------------------------------- */

#define DEPTH	   32
#define BLOCKS_MAX 32u /* of one I/O */
#define SEGS_MAX   5u

struct rig;

struct io {
	struct inl_bio bio;
	struct iovec segs[SEGS_MAX];
	struct rig *rig;
	uint8_t *buf; /* BLOCKS_MAX blocks, and room to be misaligned */
	uint64_t first, n; /* blocks */
	bool busy;
};

struct rig {
	struct inl_queue *queue;
	uint32_t block_size, n_blocks;
	bool odd;	 /* memory and segments are not aligned */
	uint8_t *model;
	uint8_t *readers; /* per block; 255: a writer */
	struct io ios[DEPTH];
	unsigned n_busy, n_done;
};

static bool changes(enum inl_op op)
{
	return op == INL_WRITE || op == INL_DISCARD || op == INL_ZERO;
}

static uint8_t *payload(const struct io *io)
{
	return io->segs[0].iov_base;
}

static void io_done(struct inl_bio *bio)
{
	struct io *io = bio->private_data;
	struct rig *rig = io->rig;
	uint8_t *model = rig->model + io->first * rig->block_size;
	size_t len = io->n * rig->block_size;

	IN_CALLBACK(io->busy);
	if (bio->status)
		fprintf(stderr, "op %d at %llu: %d\n", bio->op, (unsigned long long)bio->offset, bio->status);
	IN_CALLBACK(bio->status == 0);
	if (bio->op == INL_READ)
		IN_CALLBACK(!memcmp(payload(io), model, len));
	else if (bio->op == INL_WRITE)
		memcpy(model, payload(io), len);
	else if (changes(bio->op))
		memset(model, 0, len);
	for (uint64_t i = 0; i < io->n; i++)
		rig->readers[io->first + i] = changes(bio->op) ? 0 : rig->readers[io->first + i] - 1;
	io->busy = false;
	rig->n_busy--;
	rig->n_done++;
}

/* Nobody else writes there, and nobody else is there at all if this I/O writes. */
static bool claim(struct rig *rig, struct io *io, bool write)
{
	for (uint64_t i = 0; i < io->n; i++) {
		uint8_t there = rig->readers[io->first + i];

		if (write ? there : there == 255)
			return false;
	}
	for (uint64_t i = 0; i < io->n; i++)
		rig->readers[io->first + i] = write ? 255 : rig->readers[io->first + i] + 1;
	return true;
}

/* The segments follow each other in memory, so that the payload can be looked at as a whole. */
static unsigned cut(struct rig *rig, struct io *io, size_t len)
{
	unsigned n = 1 + inl_roll(SEGS_MAX), unit = rig->odd ? 1 : rig->block_size;
	uint8_t *at = io->buf + (rig->odd ? inl_roll(64) : 0);

	for (unsigned i = 0; i < n; i++) {
		size_t part = i == n - 1 ? len : inl_roll((unsigned)(len / unit) + 1) * unit;

		io->segs[i] = (struct iovec){ at, part };
		at += part;
		len -= part;
	}
	return n;
}

static void set_up_bio(struct rig *rig, struct io *io, enum inl_op op)
{
	uint64_t offset = io->first * rig->block_size, len = io->n * rig->block_size;

	if (op == INL_READ || op == INL_WRITE) {
		inl_bio_init_plain(&io->bio, op, offset, io->segs, cut(rig, io, len));
		io->bio.flags = op == INL_WRITE && inl_roll(8) == 0 ? INL_BIO_FUA : 0;
		for (uint64_t i = 0; op == INL_WRITE && i < len; i += 16) {
			uint32_t word = inl_roll(1u << 31);

			memcpy(payload(io) + i, &word, sizeof(word));
		}
	} else {
		inl_bio_init_range(&io->bio, op, op == INL_FLUSH ? 0 : offset, op == INL_FLUSH ? 0 : len);
	}
	io->bio.done = io_done;
	io->bio.private_data = io;
}

static bool start_io(struct rig *rig, struct io *io)
{
	static const enum inl_op ops[16] = { INL_FLUSH, INL_DISCARD, INL_ZERO, INL_WRITE, INL_WRITE, INL_WRITE,
					     INL_WRITE, INL_WRITE }; /* and INL_READ */
	enum inl_op op = ops[inl_roll(16)];

	io->n = op == INL_FLUSH ? 0 : 1 + inl_roll(BLOCKS_MAX);
	io->first = inl_roll(rig->n_blocks - (unsigned)io->n);
	if (!claim(rig, io, changes(op)))
		return false;
	set_up_bio(rig, io, op);
	io->busy = true;
	rig->n_busy++;
	CHECK(!inl_queue_submit(rig->queue, &io->bio));
	return true;
}

static void run(struct rig *rig, unsigned n_ios)
{
	unsigned n = 0;

	while (n < n_ios) {
		if (inl_roll(8) == 0)
			inl_queue_plug(rig->queue);
		for (unsigned i = 0; i < DEPTH && n < n_ios; i++)
			n += !rig->ios[i].busy && start_io(rig, &rig->ios[i]);
		inl_queue_unplug(rig->queue);
		inl_queue_reap(rig->queue, rig->n_busy ? 1 + inl_roll(rig->n_busy) : 0);
	}
	while (rig->n_busy)
		CHECK(inl_queue_reap(rig->queue, 1));
	CHECK(rig->n_done == n_ios && inl_queue_n_busy(rig->queue) == 0);
}

void inl_run_on(const char *spec, uint8_t *model, bool odd, unsigned n_ios)
{
	struct inl_dev *dev = inl_open_dev(spec, INL_OPEN_WRITE);
	struct rig *rig = calloc(1, sizeof(*rig));

	CHECK(rig && inl_dev_size(dev) == IMAGE_LEN);
	rig->block_size = inl_dev_block_size(dev);
	rig->n_blocks = IMAGE_LEN / rig->block_size;
	rig->odd = odd;
	rig->model = model;
	rig->readers = calloc(1, rig->n_blocks);
	rig->queue = inl_open_queue(dev, DEPTH);
	for (unsigned i = 0; i < DEPTH; i++) {
		rig->ios[i].rig = rig;
		rig->ios[i].buf = inl_memory(BLOCKS_MAX * rig->block_size + MEM_ALIGN);
	}
	run(rig, n_ios);
	CHECK(inl_flush_now(rig->queue) == 0);
	inl_queue_free(rig->queue);
	inl_dev_close(dev);
	for (unsigned i = 0; i < DEPTH; i++)
		free(rig->ios[i].buf);
	free(rig->readers);
	free(rig);
}

void inl_compare(int fd, const uint8_t *model, size_t len)
{
	uint8_t *back = malloc(len);

	CHECK(pread(fd, back, len, 0) == (ssize_t)len);
	CHECK(!memcmp(back, model, len));
	free(back);
}

void inl_run_on_file(const char *fmt, bool odd, unsigned n_ios)
{
	const char *path = inl_path_of("model");
	uint8_t *model = inl_memory(IMAGE_LEN);
	int fd = inl_make_file(path, model, IMAGE_LEN);
	char spec[300];

	snprintf(spec, sizeof(spec), fmt, path);
	inl_run_on(spec, model, odd, n_ios);
	inl_compare(fd, model, IMAGE_LEN);
	close(fd);
	free(model);
}

/* ---- the fixture ------------------------------------------------------------------------------------------------- */

/* Does the kernel put faults in for us? */
static bool find_inject(void)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	bool found;

	if (io_uring_queue_init_params(4, &ring, &(struct io_uring_params){ 0 }))
		return false;
	inl_has_uring = true;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_nop(sqe);
	inl_kernel_inject(IORING_OP_NOP, -EIO, 1);
	found = io_uring_submit(&ring) == 1 && !io_uring_wait_cqe(&ring, &cqe) && cqe->res == -EIO;
	io_uring_queue_exit(&ring);
	return found;
}

/* $TMPDIR, if it is on a medium. */
static bool find_dir(void)
{
	const char *tops[] = { getenv("TMPDIR"), "/tmp", "/var/tmp", "." };
	struct statfs st;

	for (unsigned i = 0; i < 4; i++) {
		if (!tops[i] || statfs(tops[i], &st) || st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC)
			continue;
		snprintf(inl_dir, sizeof(inl_dir), "%s/inlay-uring.XXXXXX", tops[i]);
		if (mkdtemp(inl_dir))
			return true;
	}
	return false;
}

int inl_rig_set_up(void **state)
{
	uint8_t *buf = aligned_alloc(MEM_ALIGN, 4 * KIB);
	struct iovec iov = { buf, 4 * KIB };
	int fd;

	if (!find_dir())
		return -1;
	memset(buf, 1, 4 * KIB);
	close(inl_make_file(inl_path_of("probe"), buf, 4 * KIB));
	fd = open(inl_path_of("probe"), O_RDONLY | O_CLOEXEC);
	inl_has_nowait = preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
	close(fd);
	fd = open(inl_path_of("probe"), O_RDONLY | O_DIRECT | O_CLOEXEC);
	inl_has_direct = fd >= 0 && preadv2(fd, &iov, 1, 0, 0) == 4 * KIB;
	if (fd >= 0)
		close(fd);
	free(buf);
	has_inject = find_inject();
	inl_kernel_reset();
	return 0;
}

int inl_rig_tear_down(void **state)
{
	return system(inl_format("rm -rf '%s'", inl_dir));
}
