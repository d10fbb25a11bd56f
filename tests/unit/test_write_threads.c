/*
 * tests/unit/test_write_threads.c: several threads that write, read, shorten and sync one volume at once.
 * Not here: names (test_namei.c), crashes in the middle of it (test_crash.c).
 * Read more: inlay/volume.h, "Threads"; ext4/write.c, "Locks".
 */
#include <errno.h>
#include <inlay/volume.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define N_WRITERS 4u
#define N_ROUNDS  300u
#define SECTOR	  512u
#define N_SECTORS 256u /* of the shared file; writer i has every N_WRITERS-th */

static char image[64];

struct shared {
	struct inl_volume *vol;
	struct inl_inode *file; /* parts of one block belong to all writers */
	struct inl_inode *lone; /* grows and shrinks; always of one byte value per length */
	atomic_bool end;
	atomic_uint n_wrong;
};

struct writer {
	struct shared *shared;
	unsigned number;
	uint8_t last[N_SECTORS]; /* what it wrote to each of its own; 0: nothing */
	unsigned seed;
};

static void *write_sectors(void *arg)
{
	struct writer *writer = arg;
	struct shared *shared = writer->shared;
	uint8_t bytes[SECTOR], found[SECTOR];

	for (unsigned round = 0; round < N_ROUNDS; round++) {
		unsigned i = (unsigned)rand_r(&writer->seed) % (N_SECTORS / N_WRITERS) * N_WRITERS + writer->number;
		uint8_t value = (uint8_t)(1 + rand_r(&writer->seed) % 255);
		size_t done = 0;

		memset(bytes, value, sizeof(bytes));
		if (inl_write(shared->file, (uint64_t)i * SECTOR, bytes, SECTOR, &done, NULL) || done != SECTOR)
			shared->n_wrong++;
		writer->last[i] = value;
		if (inl_read(shared->file, (uint64_t)i * SECTOR, found, SECTOR, &done, NULL) || done != SECTOR ||
		    memcmp(found, bytes, SECTOR))
			shared->n_wrong++;
	}
	return NULL;
}

/* Everything below the size that a reader saw is what somebody wrote there, or zeros behind a hole. */
static void *grow_and_shrink(void *arg)
{
	struct shared *shared = arg;
	static const uint8_t bytes[3000] = { [0 ... 2999] = 0x77 };
	unsigned seed = 5;

	for (unsigned round = 0; round < N_ROUNDS; round++) {
		uint64_t at = (uint64_t)rand_r(&seed) % 40000;
		size_t done;
		int err = round % 3 == 2 ? inl_truncate(shared->lone, at, NULL) :
			  round % 7 == 1 ? inl_fallocate(shared->lone, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, at, 9000, NULL) :
					   inl_write(shared->lone, at, bytes, sizeof(bytes), &done, NULL);

		shared->n_wrong += err != 0;
	}
	return NULL;
}

static void *read_and_sync(void *arg)
{
	struct shared *shared = arg;
	uint8_t *bytes = malloc(65536);
	struct inl_stat st;

	for (unsigned round = 0; !shared->end; round++) {
		size_t got = 0;

		if (inl_read(shared->lone, 0, bytes, 65536, &got, NULL))
			shared->n_wrong++;
		for (size_t i = 0; i < got; i++) {
			if (bytes[i] && bytes[i] != 0x77) {
				shared->n_wrong++;
				break;
			}
		}
		if (inl_inode_stat(shared->file, &st, NULL) || st.size > N_SECTORS * SECTOR)
			shared->n_wrong++;
		if (round % 8 == 0 && inl_sync(shared->vol, NULL))
			shared->n_wrong++;
	}
	free(bytes);
	return NULL;
}

/* Names of its own, while the others work. */
static void *make_and_remove(void *arg)
{
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct shared *shared = arg;
	struct inl_inode *root, *inode;
	char name[16];
	size_t done;

	if (inl_inode_get(shared->vol, INL_ROOT_INO, NULL, &root))
		return NULL;
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		int len = snprintf(name, sizeof(name), "n%u", round % 20);

		if (!inl_create(root, name, (size_t)len, &attr, 0, NULL, &inode)) {
			shared->n_wrong += inl_write(inode, 0, name, (size_t)len, &done, NULL) != 0;
			inl_inode_put(inode);
		} else if (inl_unlink(root, name, (size_t)len, NULL)) {
			shared->n_wrong++;
		}
	}
	inl_inode_put(root);
	return NULL;
}

static void check(struct shared *shared, const struct writer *writers)
{
	uint8_t bytes[SECTOR];

	for (unsigned i = 0; i < N_SECTORS; i++) {
		uint8_t value = writers[i % N_WRITERS].last[i];
		size_t got = 0;

		assert_int_equal(inl_read(shared->file, (uint64_t)i * SECTOR, bytes, SECTOR, &got, NULL), 0);
		for (size_t k = 0; k < got; k++)
			assert_int_equal(bytes[k], value);
		if (value)
			assert_int_equal(got, SECTOR);
	}
}

static void run(const char *options)
{
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct shared shared = { .n_wrong = 0 };
	struct writer writers[N_WRITERS] = { 0 };
	pthread_t threads[N_WRITERS + 3];
	struct inl_inode *root;
	struct inl_dev *dev;
	char command[256];

	snprintf(command, sizeof(command), "truncate -s 16M %s && mke2fs -q -F -t ext4 %s %s", image, options, image);
	assert_int_equal(system(command), 0);
	assert_int_equal(inl_dev_open(image, INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, INL_VOLUME_WRITE, NULL, &shared.vol), 0);
	assert_int_equal(inl_inode_get(shared.vol, INL_ROOT_INO, NULL, &root), 0);
	assert_int_equal(inl_create(root, "shared", 6, &attr, 0, NULL, &shared.file), 0);
	assert_int_equal(inl_create(root, "lone", 4, &attr, 0, NULL, &shared.lone), 0);
	pthread_create(&threads[N_WRITERS + 2], NULL, read_and_sync, &shared);
	pthread_create(&threads[N_WRITERS], NULL, grow_and_shrink, &shared);
	pthread_create(&threads[N_WRITERS + 1], NULL, make_and_remove, &shared);
	for (unsigned i = 0; i < N_WRITERS; i++) {
		writers[i] = (struct writer){ .shared = &shared, .number = i, .seed = 100 + i };
		pthread_create(&threads[i], NULL, write_sectors, &writers[i]);
	}
	for (unsigned i = 0; i < N_WRITERS + 2; i++)
		pthread_join(threads[i], NULL);
	shared.end = true;
	pthread_join(threads[N_WRITERS + 2], NULL);
	check(&shared, writers);
	assert_int_equal(shared.n_wrong, 0);
	inl_inode_put(shared.file);
	inl_inode_put(shared.lone);
	inl_inode_put(root);
	assert_int_equal(inl_volume_close(shared.vol), 0);
	inl_dev_close(dev);
	snprintf(command, sizeof(command), "e2fsck -fn %s >/dev/null 2>&1", image);
	assert_int_equal(system(command), 0);
	unlink(image);
}

static void test_4k(void **state)
{
	run("-b 4096");
}

static void test_1k(void **state)
{
	run("-b 1024 -J size=1");
}

static void test_no_extents(void **state)
{
	run("-b 1024 -O ^extents,^64bit,^has_journal");
}

/* ---- removed inodes ---------------------------------------------------------------------------------------------- */

#define N_REMOVED 400u

struct removed {
	struct inl_inode *inodes[N_REMOVED];
	pthread_barrier_t *barrier;
};

static void *let_go(void *arg)
{
	struct removed *removed = arg;

	for (unsigned i = 0; i < N_REMOVED; i++) {
		pthread_barrier_wait(removed->barrier);
		inl_inode_put(removed->inodes[i]);
	}
	return NULL;
}

/* Thread i has every N_WRITERS-th, so that each one's neighbours on the list of orphans are other threads'. */
static void remove_all(struct inl_inode *root, struct removed *removed)
{
	struct inl_attr attr = { .mode = S_IFREG | 0600 };
	struct inl_inode *inode;
	char name[16];
	size_t done;

	for (unsigned i = 0; i < N_WRITERS * N_REMOVED; i++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "r%u", i);

		attr.mode = i % 3 ? S_IFREG | 0600 : S_IFDIR | 0700;
		assert_int_equal(inl_create(root, name, len, &attr, 0, NULL, &inode), 0);
		if (i % 3)
			assert_int_equal(inl_write(inode, 0, name, len, &done, NULL), 0);
		assert_int_equal(i % 3 ? inl_unlink(root, name, len, NULL) : inl_rmdir(root, name, len, NULL), 0);
		removed[i % N_WRITERS].inodes[i / N_WRITERS] = inode;
	}
}

/* The last user of an inode goes while an operation has it, as the neighbour of another: it is deleted all the same. */
static void test_removed(void **state)
{
	struct removed *removed = calloc(N_WRITERS, sizeof(*removed));
	struct inl_volume_space before, after;
	pthread_barrier_t barrier;
	pthread_t threads[N_WRITERS];
	struct inl_inode *root;
	struct inl_volume *vol;
	struct inl_dev *dev;
	char command[256];

	snprintf(command, sizeof(command), "truncate -s 32M %s && mke2fs -q -F -t ext4 %s", image, image);
	assert_int_equal(system(command), 0);
	assert_int_equal(inl_dev_open(image, INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, INL_VOLUME_WRITE, NULL, &vol), 0);
	assert_int_equal(inl_inode_get(vol, INL_ROOT_INO, NULL, &root), 0);
	inl_volume_space(vol, &before);
	remove_all(root, removed);
	pthread_barrier_init(&barrier, NULL, N_WRITERS);
	for (unsigned i = 0; i < N_WRITERS; i++) {
		removed[i].barrier = &barrier;
		pthread_create(&threads[i], NULL, let_go, &removed[i]);
	}
	for (unsigned i = 0; i < N_WRITERS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
	inl_volume_space(vol, &after);
	assert_int_equal(after.n_free_inodes, before.n_free_inodes);
	inl_inode_put(root);
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
	snprintf(command, sizeof(command), "e2fsck -fn %s >/dev/null 2>&1", image);
	assert_int_equal(system(command), 0);
	unlink(image);
	free(removed);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_4k), cmocka_unit_test(test_1k),
					    cmocka_unit_test(test_no_extents), cmocka_unit_test(test_removed) };

	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	snprintf(image, sizeof(image), "%s/inlay-threads-%d", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
