/*
 * tests/unit/test_uring.c: files and block devices through queues: with io_uring, without it, and when it fails.
 * Not here: flushes (test_durable.c); opening, locks, the driver without a queue (test_drivers.c).
 * Read more: drivers/uring.c, drivers/file.c; uring_kernel.c for how faults come about.
 *
 * Oracles: an array of bytes in memory, and pread of the backing file.
 */
#include "tests/unit/uring_rig.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void test_buffered(void **state)
{
	inl_run_on_file("%s", false, 4000);
	inl_run_on_file("%s", true, 2000);
	if (inl_has_uring)
		CHECK(inl_kernel.n_rings == 2);
}

/* All transfers go through the ring, and what is misaligned does so from memory of the block layer. */
static void test_direct(void **state)
{
	inl_needs_direct();
	inl_kernel_reset();
	inl_run_on_file("file(%s, direct)", false, 4000);
	if (inl_has_uring) {
		CHECK(inl_kernel.n_at_once == 0);
		CHECK(inl_kernel.n_sqes[IORING_OP_READ] + inl_kernel.n_sqes[IORING_OP_READV] > 1000);
		CHECK(inl_kernel.n_sqes[IORING_OP_WRITE] + inl_kernel.n_sqes[IORING_OP_WRITEV] > 500);
		CHECK(inl_kernel.n_sqes[IORING_OP_FALLOCATE] > 100);
		CHECK(inl_kernel.n_sqes[IORING_OP_FSYNC] > 10);
	}
	inl_run_on_file("file(%s, direct)", true, 2000);
}

static void test_block_device(void **state)
{
	uint8_t *model = inl_memory(IMAGE_LEN);
	int backing = inl_make_file(inl_path_of("loop"), model, IMAGE_LEN), fd;
	int n = inl_loop_attach(backing, 512, &fd);

	if (n < 0) {
		close(backing);
		free(model);
		inl_skip_for("no loop devices here");
	}
	inl_kernel_reset();
	inl_run_on(inl_format("/dev/loop%d", n), model, false, 2000);
	inl_compare(backing, model, IMAGE_LEN);
	inl_run_on(inl_format("file(/dev/loop%d, direct)", n), model, true, 2000);
	inl_compare(backing, model, IMAGE_LEN);
	if (inl_has_uring)
		CHECK(inl_kernel.n_all > 1000);
	close(fd);
	close(backing);
	free(model);
}

/* Several files share the ring of a queue, and the pieces of its bios are more than it has requests. */
static void test_stripe(void **state)
{
	uint8_t *model = calloc(1, IMAGE_LEN);
	const char *d = inl_dir, *direct = inl_has_direct ? ", direct" : "";

	for (unsigned i = 0; i < 4; i++)
		close(inl_make_file(inl_format("%s/part%u", inl_dir, i), NULL, IMAGE_LEN / 4));
	inl_kernel_reset();
	inl_run_on(inl_format("stripe(file(%s/part0%s), file(%s/part1%s), %s/part2, file(%s/part3%s), chunk=4K)", d,
			      direct, d, direct, d, d, direct),
		   model, false, 3000);
	if (inl_has_uring)
		CHECK(inl_kernel.n_rings == 1);
	free(model);
}

/* ---- routes ------------------------------------------------------------------------------------------------------ */

/* What is in the page cache is read at once; what is not goes through the ring. */
static void test_page_cache(void **state)
{
	uint8_t *data = inl_memory(IMAGE_LEN), *back = inl_memory(IMAGE_LEN);
	const char *path = inl_path_of("cache");
	int fd = inl_make_file(path, data, IMAGE_LEN);
	struct inl_dev *dev = inl_open_dev(path, INL_OPEN_WRITE);
	struct inl_queue *queue = inl_open_queue(dev, 4);

	inl_kernel_reset();
	for (unsigned i = 0; i < 64; i++)
		CHECK(inl_read_now(queue, i * 8 * KIB, back + i * 8 * KIB, 8 * KIB) == 0);
	CHECK(!memcmp(back, data, 512 * KIB));
	if (inl_has_uring && inl_has_nowait)
		CHECK(inl_kernel.n_all == 0);
	CHECK(inl_write_now(queue, 0, back, 4 * KIB, 0) == 0);
	CHECK(inl_kernel.n_sqes[IORING_OP_WRITE] == 0);
	CHECK(!fsync(fd) && !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	memset(back, 0, IMAGE_LEN);
	CHECK(inl_read_now(queue, 0, back, IMAGE_LEN) == 0);
	CHECK(!memcmp(back, data, IMAGE_LEN));
	if (inl_has_uring)
		CHECK(inl_kernel.n_sqes[IORING_OP_READ] > 0 && inl_kernel.n_async == 0);

	/* Where RWF_NOWAIT is not known it is not tried twice; where it fails otherwise, the ring has the answer. */
	for (unsigned i = 0; inl_has_uring && i < 2; i++) {
		inl_kernel_reset();
		inl_kernel.nowait_errno = i ? EOPNOTSUPP : EIO;
		memset(back, 0, 64 * KIB);
		for (unsigned k = 0; k < 8; k++)
			CHECK(inl_read_now(queue, k * 8 * KIB, back + k * 8 * KIB, 8 * KIB) == 0);
		CHECK(!memcmp(back, data, 64 * KIB));
		CHECK(inl_kernel.n_sqes[IORING_OP_READ] == 8 && inl_kernel.n_at_once == 0);
		CHECK(!inl_has_nowait || inl_kernel.n_nowait == (i ? 1 : 8));
	}
	inl_queue_free(queue);
	inl_dev_close(dev);
	close(fd);
	free(data);
	free(back);
}

/* Where nothing ever waits for a medium, nothing goes through the ring. */
static void test_in_memory(void **state)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);
	uint8_t *model = calloc(1, IMAGE_LEN);

	CHECK(fd >= 0 && !ftruncate(fd, IMAGE_LEN));
	inl_kernel_reset();
	inl_run_on(inl_format("/proc/self/fd/%d", fd), model, true, 1000);
	inl_compare(fd, model, IMAGE_LEN);
	CHECK(inl_kernel.n_all == 0 && inl_kernel.n_at_once > 500);
	close(fd);
	free(model);
}

static void check_many_segments(const char *spec)
{
	enum { N = 2000, SIZE = 512 };
	struct inl_dev *dev = inl_open_dev(spec, INL_OPEN_WRITE);
	struct inl_queue *queue = inl_open_queue(dev, 2);
	uint8_t *data = inl_memory(N * SIZE), *back = inl_memory(N * SIZE);
	struct iovec *segs = calloc(2 * N, sizeof(*segs));
	struct inl_one one;

	/* Empty ones between them, and the last first. */
	for (unsigned i = 0; i < N; i++) {
		segs[2 * i] = (struct iovec){ data, 0 };
		segs[2 * i + 1] = (struct iovec){ data + (N - 1 - i) * SIZE, SIZE };
	}
	inl_bio_init_plain(&one.bio, INL_WRITE, 0, segs, 2 * N);
	inl_submit_one(queue, &one);
	inl_wait_for(queue, &one);
	CHECK(one.bio.status == 0);
	CHECK(inl_read_now(queue, 0, back, N * SIZE) == 0);
	for (unsigned i = 0; i < N; i++)
		CHECK(!memcmp(back + i * SIZE, data + (N - 1 - i) * SIZE, SIZE));
	memset(data, 0, N * SIZE);
	inl_bio_init_plain(&one.bio, INL_READ, 0, segs, 2 * N);
	inl_submit_one(queue, &one);
	inl_wait_for(queue, &one);
	CHECK(one.bio.status == 0);
	for (unsigned i = 0; i < N; i++)
		CHECK(!memcmp(back + i * SIZE, data + (N - 1 - i) * SIZE, SIZE));
	inl_queue_free(queue);
	inl_dev_close(dev);
	free(segs);
	free(data);
	free(back);
}

static void test_many_segments(void **state)
{
	const char *path = inl_path_of("segments");

	close(inl_make_file(path, NULL, IMAGE_LEN));
	check_many_segments(path);
	inl_needs_direct();
	inl_kernel_reset();
	check_many_segments(inl_format("file(%s, direct)", path));
	if (inl_has_uring)
		CHECK(inl_kernel.n_sqes[IORING_OP_READV] > 31 && inl_kernel.n_sqes[IORING_OP_WRITEV] > 31);
}

/* Where one call takes segments that end within a block, it is asked for less. */
static void test_whole_blocks(void **state)
{
	enum { N = 512, SIZE = 512, LEN = N * SIZE };
	uint8_t *data = inl_memory(LEN), *back = inl_memory(LEN);
	int backing = inl_make_file(inl_path_of("blocks"), NULL, IMAGE_LEN), fd;
	int n = inl_loop_attach(backing, 4096, &fd);
	struct iovec segs[N - 1];
	struct inl_queue *queue;
	struct inl_dev *dev;
	struct inl_one one;

	if (n < 0) {
		close(backing);
		free(data);
		free(back);
		inl_skip_for("no loop devices here");
	}
	dev = inl_open_dev(inl_format("file(/dev/loop%d, direct)", n), INL_OPEN_WRITE);
	queue = inl_open_queue(dev, 1);
	CHECK(inl_dev_block_size(dev) == 4096);
	for (unsigned i = 0; i < N - 1; i++)
		segs[i] = (struct iovec){ data + (i ? i + 1 : 0) * SIZE, i ? SIZE : 2 * SIZE };
	inl_bio_init_plain(&one.bio, INL_WRITE, 0, segs, N - 1);
	inl_submit_one(queue, &one);
	inl_wait_for(queue, &one);
	CHECK(one.bio.status == 0);
	CHECK(inl_read_now(queue, 0, back, LEN) == 0 && !memcmp(back, data, LEN));
	inl_bio_init_plain(&one.bio, INL_WRITE, LEN, segs, N - 1);
	CHECK(inl_submit_wait(dev, &one.bio) == 0);
	CHECK(inl_read_now(queue, LEN, back, LEN) == 0 && !memcmp(back, data, LEN));
	inl_queue_free(queue);
	inl_dev_close(dev);
	close(fd);
	close(backing);
	free(data);
	free(back);
}

/* A device that is closed is unlocked at once: nothing in the kernel holds on to the file. */
static void test_reopen(void **state)
{
	const char *path = inl_path_of("reopen");
	uint8_t *buf = inl_memory(64 * KIB);

	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned i = 0; i < 50; i++) {
		const char *spec = i % 2 && inl_has_direct ? inl_format("file(%s, direct)", path) : path;
		struct inl_dev *dev = inl_open_dev(spec, INL_OPEN_WRITE);
		struct inl_queue *queue = inl_open_queue(dev, 1 + i * 4);
		struct inl_one ones[2];

		inl_submit_write(queue, &ones[0], 0, buf, 64 * KIB, INL_BIO_FUA * (i & 1));
		inl_wait_for(queue, &ones[0]);
		inl_submit_flush(queue, &ones[1]);
		inl_queue_free(queue); /* waits */
		CHECK(ones[1].done && ones[1].bio.status == 0);
		inl_dev_close(dev);
	}
	free(buf);
}

/* ---- transfers that do not go well ------------------------------------------------------------------------------- */

static void test_short_transfers(void **state)
{
	inl_needs_uring();
	inl_needs_direct();
	inl_kernel_reset();
	inl_kernel.short_len = 4 * KIB;
	inl_run_on_file("file(%s, direct)", false, 1000);
	CHECK(inl_kernel.n_shortened > 500);
}

/* Interrupted, or to be tried again: by a thread of the kernel's, and at last by our own. */
static void test_again(void **state)
{
	static const int errs[] = { -EINTR, -EAGAIN };

	inl_needs_inject();
	inl_needs_direct();
	for (unsigned i = 0; i < 2; i++) {
		inl_kernel_reset();
		inl_kernel_inject(ANY_TRANSFER, errs[i], 300);
		inl_run_on_file("file(%s, direct)", false, 1000);
		CHECK(inl_kernel.inject.count == 0);
		CHECK(i == 0 || inl_kernel.n_async > 50);
	}
	inl_kernel_reset();
	inl_kernel_inject(ANY_TRANSFER, -EAGAIN, ALWAYS);
	inl_run_on_file("file(%s, direct)", false, 1000);
	CHECK(inl_kernel.n_at_once > 200);
	inl_kernel_reset();
	inl_kernel_inject(IORING_OP_FSYNC, -EAGAIN, ALWAYS);
	inl_run_on_file("%s", false, 1000);
}

/* An error is the error of its bio, and of no other. */
static void test_error(void **state)
{
	const char *path = inl_path_of("error");
	struct inl_one ones[8];
	uint8_t *buf;

	inl_needs_inject();
	inl_needs_direct();
	buf = inl_memory(64 * KIB);
	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned i = 0; i < 3; i++) {
		struct inl_dev *dev = inl_open_dev(inl_format("file(%s, direct)", path), INL_OPEN_WRITE);
		struct inl_queue *queue = inl_open_queue(dev, 8);
		int res = (const int[]){ -EIO, 100, 0 }[i]; /* 100 is no whole block */
		unsigned n_failed = 0;

		inl_kernel_reset();
		inl_kernel_inject(IORING_OP_WRITE, res, 1);
		for (unsigned k = 0; k < 8; k++)
			inl_submit_write(queue, &ones[k], k * 16 * KIB, buf + k * 8 * KIB, 8 * KIB, 0);
		for (unsigned k = 0; k < 8; k++) {
			inl_wait_for(queue, &ones[k]);
			CHECK(ones[k].bio.status == 0 || ones[k].bio.status == -EIO);
			n_failed += ones[k].bio.status != 0;
		}
		CHECK(n_failed == 1);
		CHECK(inl_flush_now(queue) == 0);
		inl_queue_free(queue);
		inl_dev_close(dev);
	}
	free(buf);
}

static void check_shrunk(const char *spec, int fd)
{
	struct inl_dev *dev = inl_open_dev(spec, 0);
	struct inl_queue *queue = inl_open_queue(dev, 8);
	uint8_t *buf = inl_memory(8 * 32 * KIB);
	struct inl_one ones[8];

	CHECK(!ftruncate(fd, 100 * KIB));
	CHECK(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	for (unsigned k = 0; k < 8; k++) {
		ones[k].seg = (struct iovec){ buf + k * 32 * KIB, 32 * KIB };
		inl_bio_init_plain(&ones[k].bio, INL_READ, k * 32 * KIB, &ones[k].seg, 1);
		inl_submit_one(queue, &ones[k]);
	}
	for (unsigned k = 0; k < 8; k++) {
		inl_wait_for(queue, &ones[k]);
		CHECK(ones[k].bio.status == (k < 3 ? 0 : -EIO));
	}
	inl_queue_free(queue);
	inl_dev_close(dev);
	free(buf);
	CHECK(!ftruncate(fd, IMAGE_LEN));
}

static void test_shrunk(void **state)
{
	const char *path = inl_path_of("shrunk");
	int fd = inl_make_file(path, NULL, IMAGE_LEN);

	check_shrunk(path, fd);
	if (inl_has_direct)
		check_shrunk(inl_format("file(%s, direct)", path), fd);
	close(fd);
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && !memcmp(bytes, bytes + 1, len - 1);
}

/* Zeroing is done by writing where the file system cannot; discarding is not. */
static void test_ranges(void **state)
{
	const char *path = inl_path_of("ranges");
	struct inl_queue *queue;
	struct inl_dev *dev;
	uint8_t *data, *back;

	inl_needs_inject();
	data = inl_memory(IMAGE_LEN);
	back = inl_memory(IMAGE_LEN);
	close(inl_make_file(path, data, IMAGE_LEN));
	for (unsigned direct = 0; direct < 1u + inl_has_direct; direct++) {
		inl_kernel_reset();
		dev = inl_open_dev(direct ? inl_format("file(%s, direct)", path) : path, INL_OPEN_WRITE);
		queue = inl_open_queue(dev, 4);
		for (unsigned i = 0; i < 3; i++) {
			CHECK(inl_write_now(queue, 0, data, IMAGE_LEN, 0) == 0);
			inl_kernel_inject(IORING_OP_FALLOCATE, (const int[]){ -EOPNOTSUPP, -EINVAL, -EINTR }[i], 1);
			CHECK(inl_range_now(queue, INL_ZERO, 8 * KIB, 700 * KIB) == 0);
			CHECK(inl_kernel.inject.count == 0);
			CHECK(inl_read_now(queue, 0, back, IMAGE_LEN) == 0);
			CHECK(all_zero(back + 8 * KIB, 700 * KIB) && !memcmp(back, data, 8 * KIB));
			CHECK(!memcmp(back + 708 * KIB, data + 708 * KIB, IMAGE_LEN - 708 * KIB));
		}
		inl_kernel_inject(IORING_OP_FALLOCATE, -EOPNOTSUPP, 1);
		CHECK(inl_range_now(queue, INL_DISCARD, 0, 8 * KIB) == -EOPNOTSUPP);
		inl_kernel_inject(IORING_OP_FALLOCATE, -EIO, 1);
		CHECK(inl_range_now(queue, INL_ZERO, 0, 8 * KIB) == -EIO);
		inl_kernel_inject(IORING_OP_FALLOCATE, -EINTR, 1);
		CHECK(inl_range_now(queue, INL_DISCARD, 0, 8 * KIB) == 0);
		CHECK(inl_read_now(queue, 0, back, 16 * KIB) == 0 && all_zero(back, 8 * KIB));
		inl_queue_free(queue);
		inl_dev_close(dev);
	}
	free(data);
	free(back);
}

/* ---- kernels that have less -------------------------------------------------------------------------------------- */

static void refuse_io_uring(int err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	CHECK(syscall(__NR_io_uring_setup, 1, NULL) == -1 && errno == err);
}

static void work_refused(int err)
{
	inl_alone = true;
	refuse_io_uring(err);
	inl_run_on_file("%s", true, 1000);
	if (inl_has_direct)
		inl_run_on_file("file(%s, direct)", false, 1000);
	CHECK(inl_kernel.n_rings == 0 && inl_kernel.n_all == 0 && inl_kernel.n_at_once > 1000);
	_exit(0);
}

/* As in a container: in child processes that have a filter for system calls. */
static void test_refused(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		pid_t pid;
		int status;

		inl_kernel_reset();
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0)
			work_refused(i ? ENOSYS : EPERM);
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

static void test_old_kernels(void **state)
{
	inl_needs_uring();
	for (unsigned i = 0; i < 6; i++) {
		bool ring = i < 3;

		inl_kernel_reset();
		inl_kernel.unknown_flags = i == 0 ? IORING_SETUP_SINGLE_ISSUER : i == 1 ? ~0u : 0;
		inl_kernel.lacks = i == 2 ? IORING_OP_FALLOCATE : i == 3 ? IORING_OP_READ : 0;
		inl_kernel.no_probe = i == 4;
		inl_kernel.setup_err = i == 5 ? -ENOMEM : 0;
		inl_run_on_file(inl_has_direct ? "file(%s, direct)" : "%s", false, 1000);
		CHECK((inl_kernel.n_all > 0) == ring);
		CHECK(i != 2 || inl_kernel.n_sqes[IORING_OP_FALLOCATE] == 0);
	}
}

/* A kernel that takes nothing, now and then or ever. */
static void test_out_of_memory(void **state)
{
	inl_needs_uring();
	for (unsigned i = 0; i < 3; i++) {
		inl_kernel_reset();
		inl_kernel.refuse_every = 3 - i;
		inl_run_on_file(inl_has_direct ? "file(%s, direct)" : "%s", false, 1000);
		CHECK(i == 2 ? inl_kernel.n_all == 0 : inl_kernel.n_all > 0);
		CHECK(inl_kernel.n_submits > 50);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffered),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_block_device),
		cmocka_unit_test(test_stripe),
		cmocka_unit_test(test_page_cache),
		cmocka_unit_test(test_in_memory),
		cmocka_unit_test(test_many_segments),
		cmocka_unit_test(test_whole_blocks),
		cmocka_unit_test(test_reopen),
		cmocka_unit_test(test_short_transfers),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_shrunk),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_old_kernels),
		cmocka_unit_test(test_out_of_memory),
	};

	return cmocka_run_group_tests(tests, inl_rig_set_up, inl_rig_tear_down);
}
