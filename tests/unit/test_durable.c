/*
 * tests/unit/test_durable.c: flushes and durable writes of files: whose turn it is, who shares, and errors that stay.
 * Not here: other I/O (test_uring.c).
 * Read more: drivers/file.c, "durability"; uring_kernel.c for how faults come about.
 */
#include "tests/unit/uring_rig.h"
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* The flushes of a queue share a call that began after they came. */
static void test_flushes_share(void **state)
{
	const char *path = inl_path_of("share");
	struct inl_dev *dev;
	struct inl_queue *queue;
	struct inl_one ones[8];

	inl_needs_uring();
	close(inl_make_file(path, NULL, IMAGE_LEN));
	dev = inl_open_dev(path, INL_OPEN_WRITE);
	queue = inl_open_queue(dev, 8);
	inl_kernel_reset();
	for (unsigned i = 0; i < 8; i++)
		inl_submit_flush(queue, &ones[i]);
	for (unsigned i = 0; i < 8; i++) {
		inl_wait_for(queue, &ones[i]);
		CHECK(ones[i].bio.status == 0);
	}
	CHECK(inl_kernel.n_sqes[IORING_OP_FSYNC] == 2 && inl_kernel.n_syncs == 2);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

struct party {
	struct inl_dev *dev;
	sem_t submitted;
	atomic_bool done;
	bool waits; /* with inl_dev_flush, not with a queue */
};

static void *flush_beside(void *arg)
{
	struct party *party = arg;
	struct inl_queue *queue;
	struct inl_one one;

	inl_alone = true;
	if (party->waits) {
		sem_post(&party->submitted);
		CHECK(inl_dev_flush(party->dev) == 0);
		atomic_store(&party->done, true);
		return NULL;
	}
	queue = inl_open_queue(party->dev, 1);
	inl_submit_flush(queue, &one);
	CHECK(inl_queue_reap(queue, 0) == 0 && !one.done);
	sem_post(&party->submitted);
	inl_wait_for(queue, &one);
	CHECK(one.bio.status == 0);
	atomic_store(&party->done, true);
	inl_queue_free(queue);
	return NULL;
}

/* A flush that waits is handed over to its own thread, with a queue or without. */
static void test_turns_of_threads(void **state)
{
	const char *path = inl_path_of("turns");

	inl_needs_uring();
	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned i = 0; i < 2; i++) {
		struct party party = { .dev = inl_open_dev(path, INL_OPEN_WRITE), .waits = i };
		struct inl_queue *queue = inl_open_queue(party.dev, 1);
		struct inl_one one;
		pthread_t thread;

		sem_init(&party.submitted, 0, 0);
		inl_kernel_reset();
		inl_submit_flush(queue, &one);
		CHECK(!pthread_create(&thread, NULL, flush_beside, &party));
		while (sem_wait(&party.submitted))
			;
		usleep(20000);
		/* This thread has not reaped, so the turn is still here. */
		CHECK(!atomic_load(&party.done) && inl_kernel_n_syncs() == 1);
		inl_wait_for(queue, &one);
		CHECK(!pthread_join(thread, NULL));
		CHECK(party.done && inl_kernel_n_syncs() == 2);
		sem_destroy(&party.submitted);
		inl_queue_free(queue);
		inl_dev_close(party.dev);
	}
}

/* A thread that waits for a flush while its own queue has the turn. */
static void test_turn_of_own_queue(void **state)
{
	const char *path = inl_path_of("own");
	struct inl_dev *dev;
	struct inl_queue *queue;
	struct inl_one one;

	close(inl_make_file(path, NULL, IMAGE_LEN));
	dev = inl_open_dev(path, INL_OPEN_WRITE);
	queue = inl_open_queue(dev, 1);
	for (unsigned i = 0; i < 20; i++) {
		inl_submit_flush(queue, &one);
		CHECK(inl_dev_flush(dev) == 0);
		inl_wait_for(queue, &one);
		CHECK(one.bio.status == 0);
	}
	inl_queue_free(queue);
	inl_dev_close(dev);
}

#define N_THREADS 4
#define N_ROUNDS  30
#define N_FLUSHES 6

static void *write_and_flush(void *arg)
{
	struct party *party = arg;
	struct inl_queue *queue = inl_open_queue(party->dev, 2 * N_FLUSHES);
	uint8_t *buf = aligned_alloc(MEM_ALIGN, N_FLUSHES * 4 * KIB);
	struct inl_one flushes[N_FLUSHES], writes[N_FLUSHES];

	inl_alone = true;
	memset(buf, 1, N_FLUSHES * 4 * KIB);
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		for (unsigned i = 0; i < N_FLUSHES; i++) {
			inl_submit_write(queue, &writes[i], i * 4 * KIB, buf + i * 4 * KIB, 4 * KIB,
					 round % 2 ? INL_BIO_FUA : 0);
			inl_submit_flush(queue, &flushes[i]);
		}
		for (unsigned i = 0; i < N_FLUSHES; i++) {
			inl_wait_for(queue, &writes[i]);
			inl_wait_for(queue, &flushes[i]);
			CHECK(writes[i].bio.status == 0 && flushes[i].bio.status == 0);
			/* Its writes were there before the call began. */
			CHECK(flushes[i].began_after != flushes[i].began_before);
		}
		if (round % 5 == 0)
			CHECK(inl_dev_flush(party->dev) == 0);
	}
	inl_queue_free(queue);
	free(buf);
	return NULL;
}

static void test_flushes_of_threads(void **state)
{
	const char *path = inl_path_of("threads");
	struct party party;
	pthread_t threads[N_THREADS];

	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned i = 0; i < 1u + inl_has_direct; i++) {
		party.dev = inl_open_dev(i ? inl_format("file(%s, direct)", path) : path, INL_OPEN_WRITE);
		inl_kernel_reset();
		for (unsigned k = 0; k < N_THREADS; k++)
			CHECK(!pthread_create(&threads[k], NULL, write_and_flush, &party));
		for (unsigned k = 0; k < N_THREADS; k++)
			CHECK(!pthread_join(threads[k], NULL));
		if (inl_has_uring)
			CHECK(inl_kernel.n_syncs < N_THREADS * N_ROUNDS * N_FLUSHES * 2 / 3);
		inl_dev_close(party.dev);
	}
}

/* A durable write that is inl_alone is one call; several share one. */
static void test_fua(void **state)
{
	const char *path = inl_path_of("fua");
	struct inl_queue *queue;
	struct inl_dev *dev;
	struct inl_one ones[8];
	uint8_t *buf, *back;

	inl_needs_inject();
	buf = inl_memory(32 * KIB);
	back = inl_memory(32 * KIB);
	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned direct = 0; direct < 1u + inl_has_direct; direct++) {
		dev = inl_open_dev(direct ? inl_format("file(%s, direct)", path) : path, INL_OPEN_WRITE);
		queue = inl_open_queue(dev, 8);
		inl_kernel_reset();
		CHECK(inl_write_now(queue, 0, buf, 4 * KIB, INL_BIO_FUA) == 0);
		CHECK(inl_kernel.n_dsyncs == 1 && inl_kernel.n_all == 1 && inl_kernel.n_syncs == 0);
		for (unsigned i = 0; i < 8; i++)
			inl_submit_write(queue, &ones[i], i * 4 * KIB, buf + i * 4 * KIB, 4 * KIB, INL_BIO_FUA);
		for (unsigned i = 0; i < 8; i++) {
			inl_wait_for(queue, &ones[i]);
			CHECK(ones[i].bio.status == 0);
			CHECK(i == 0 || ones[i].began_after > ones[i].began_before);
		}
		CHECK(inl_kernel.n_dsyncs == 2 && inl_kernel.n_syncs >= 1 && inl_kernel.n_syncs <= (direct ? 7 : 1));
		CHECK(inl_kernel.n_sqes[IORING_OP_WRITE] + inl_kernel.n_at_once == 9);
		CHECK(inl_read_now(queue, 0, back, 32 * KIB) == 0 && !memcmp(buf, back, 32 * KIB));

		/* where RWF_DSYNC is not known: fdatasync, and the question is not asked twice */
		inl_kernel_inject(IORING_OP_WRITE, -EOPNOTSUPP, 1);
		inl_kernel.inject.rwf = RWF_DSYNC;
		inl_kernel.n_syncs = 0;
		CHECK(inl_write_now(queue, 4 * KIB, buf, 4 * KIB, INL_BIO_FUA) == 0);
		CHECK(inl_write_now(queue, 8 * KIB, buf, 4 * KIB, INL_BIO_FUA) == 0);
		CHECK(inl_kernel.inject.count == 0 && inl_kernel.n_dsyncs == 3 && inl_kernel.n_syncs == 2);
		CHECK(inl_read_now(queue, 8 * KIB, back, 4 * KIB) == 0 && !memcmp(buf, back, 4 * KIB));
		inl_queue_free(queue);
		inl_dev_close(dev);
	}
	free(buf);
	free(back);
}

/* After the first error nothing is durable any more, until the device is opened again; reading and writing go on. */
static void check_failed(struct inl_dev *dev, struct inl_queue *queue, int err)
{
	uint8_t *buf = inl_memory(4 * KIB);
	unsigned before = inl_kernel_n_syncs(), n_dsyncs = inl_kernel.n_dsyncs;

	for (unsigned i = 0; i < 3; i++) {
		CHECK(inl_flush_now(queue) == err);
		CHECK(inl_dev_flush(dev) == err);
		CHECK(inl_write_now(queue, 0, buf, 4 * KIB, INL_BIO_FUA) == err);
	}
	CHECK(inl_kernel_n_syncs() == before && inl_kernel.n_dsyncs == n_dsyncs);
	CHECK(inl_write_now(queue, 0, buf, 4 * KIB, 0) == 0);
	CHECK(inl_read_now(queue, 0, buf, 4 * KIB) == 0);
	free(buf);
}

static void test_failed_flush(void **state)
{
	const char *path = inl_path_of("failed");
	struct inl_one ones[8];
	uint8_t *buf;

	inl_needs_inject();
	buf = inl_memory(4 * KIB);
	close(inl_make_file(path, NULL, IMAGE_LEN));
	for (unsigned i = 0; i < 3; i++) {
		struct inl_dev *dev = inl_open_dev(path, INL_OPEN_WRITE);
		struct inl_queue *queue = inl_open_queue(dev, 8);

		inl_kernel_reset();
		CHECK(inl_flush_now(queue) == 0);
		if (i == 0) { /* of several: they all learn of it */
			inl_kernel_inject(IORING_OP_FSYNC, -ENOSPC, 1);
			for (unsigned k = 0; k < 8; k++)
				inl_submit_flush(queue, &ones[k]);
			for (unsigned k = 0; k < 8; k++) {
				inl_wait_for(queue, &ones[k]);
				CHECK(ones[k].bio.status == -ENOSPC);
			}
			CHECK(inl_kernel.n_sqes[IORING_OP_FSYNC] == 2);
		} else if (i == 1) { /* of a durable write */
			inl_kernel_inject(IORING_OP_WRITE, -ENOSPC, 1);
			inl_kernel.inject.rwf = RWF_DSYNC;
			CHECK(inl_write_now(queue, 0, buf, 4 * KIB, INL_BIO_FUA) == -ENOSPC);
		} else { /* of a flush without a queue */
			inl_kernel.sync_errno = ENOSPC;
			CHECK(inl_dev_flush(dev) == -ENOSPC);
		}
		check_failed(dev, queue, -ENOSPC);
		inl_queue_free(queue);
		inl_dev_close(dev);
	}
	free(buf);
}

/* The same from the kernel itself, which reports it once: a block device whose medium takes no more writes. */
static void test_lost_writes(void **state)
{
	int backing = memfd_create("medium", MFD_CLOEXEC | MFD_ALLOW_SEALING), fd = -1, n = -1;
	uint8_t *buf = inl_memory(64 * KIB);
	struct inl_dev *dev;
	struct inl_queue *queue;

	if (backing >= 0 && !ftruncate(backing, IMAGE_LEN))
		n = inl_loop_attach(backing, 512, &fd);
	if (n < 0) {
		free(buf);
		inl_skip_for("no loop devices here");
	}
	inl_kernel_reset();
	dev = inl_open_dev(inl_format("/dev/loop%d", n), INL_OPEN_WRITE);
	queue = inl_open_queue(dev, 8);
	CHECK(inl_write_now(queue, 0, buf, 64 * KIB, 0) == 0);
	CHECK(inl_flush_now(queue) == 0);
	CHECK(!fcntl(backing, F_ADD_SEALS, F_SEAL_WRITE));
	CHECK(inl_write_now(queue, 0, buf, 64 * KIB, 0) == 0);
	CHECK(inl_flush_now(queue) == -EIO);
	check_failed(dev, queue, -EIO);
	inl_queue_free(queue);
	inl_dev_close(dev);
	close(fd);
	close(backing);
	free(buf);
}

/* A durable write that fails for its own reasons has lost nothing: flushes go on. */
static void test_error_of_the_call(void **state)
{
	const char *path = inl_path_of("too-large");
	struct rlimit before, limit;
	static uint8_t block[4096];
	struct iovec seg = { block, sizeof(block) };
	struct inl_dev *dev;
	struct inl_bio bio;

	close(inl_make_file(path, NULL, IMAGE_LEN));
	dev = inl_open_dev(path, INL_OPEN_WRITE);
	CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
	limit = (struct rlimit){ 8192, before.rlim_max };
	signal(SIGXFSZ, SIG_IGN);
	CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	inl_bio_init_plain(&bio, INL_WRITE, 16384, &seg, 1);
	bio.flags = INL_BIO_FUA;
	CHECK(inl_submit_wait(dev, &bio) == -EFBIG);
	CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
	CHECK(inl_dev_flush(dev) == 0);
	CHECK(inl_submit_wait(dev, &bio) == 0);
	inl_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flushes_share),
		cmocka_unit_test(test_turns_of_threads),
		cmocka_unit_test(test_turn_of_own_queue),
		cmocka_unit_test(test_flushes_of_threads),
		cmocka_unit_test(test_fua),
		cmocka_unit_test(test_failed_flush),
		cmocka_unit_test(test_lost_writes),
		cmocka_unit_test(test_error_of_the_call),
	};

	return cmocka_run_group_tests(tests, inl_rig_set_up, inl_rig_tear_down);
}
