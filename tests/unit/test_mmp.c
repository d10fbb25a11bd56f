/*
 * tests/unit/test_mmp.c: multiple mount protection: who may have a volume, and who loses it.
 * Not here: locks within one host (test_drivers.c, tests/kernel/test_exclusion.py).
 * Read more: Linux Documentation/filesystems/ext4/mmp.rst.
 *
 * A second lasts 20 ms here. With --long the kernel is asked too, at its own pace: half a minute.
 */
#include "ext4/change.h"
#include "base/crc.h"
#include "work_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inlay/driver.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND	  20000000u /* ns */
#define SEQ_CLEAN 0xff4d4d50u
#define SEQ_FSCK  0xe24d4d50u
#define SEQ_MAX	  0xe24d4d4fu
#define COUNT(a)  (sizeof(a) / sizeof((a)[0]))

static bool with_kernel;

static int setup(void **state)
{
	return work_dir_make("mmp");
}

static int teardown(void **state)
{
	return work_dir_remove();
}

/* ---- a volume, and its block as others see it -------------------------------------------------------------------- */

static const char *const layouts[] = { "-t ext4 -b 1024 -O mmp", "-t ext4 -b 4096 -O mmp,^metadata_csum -E mmp_update_interval=1",
				       "-t ext4 -b 4096 -O mmp,metadata_csum_seed" };

struct rig {
	struct inl_dev *dev;
	struct inl_volume *vol;
	off_t at; /* of the block */
	int fd;
};

static void rig_open(struct rig *rig, const char *options)
{
	if (!work_dir[0]) {
		print_message("skipped: mke2fs or e2fsck is missing\n");
		skip();
	}
	assert_int_equal(try_run("rm -f i.img && mke2fs -Fq %s i.img 8M", options), 0);
	assert_int_equal(inl_dev_open(in_dir("i.img"), INL_OPEN_WRITE, NULL, &rig->dev), 0);
	assert_int_equal(inl_volume_open(rig->dev, NULL, 0, NULL, &rig->vol), 0);
	rig->at = (off_t)rig->vol->fs->super->s_mmp_block * rig->vol->block_size;
	rig->fd = open(in_dir("i.img"), O_RDWR);
	assert_true(rig->fd >= 0 && rig->at > 0);
}

static void rig_close(struct rig *rig)
{
	close(rig->fd);
	inl_volume_close(rig->vol);
	inl_dev_close(rig->dev);
}

static void block_read(const struct rig *rig, uint8_t *block)
{
	assert_int_equal(pread(rig->fd, block, 1024, rig->at), 1024);
}

static uint32_t seq_now(const struct rig *rig)
{
	uint8_t block[1024];

	block_read(rig, block);
	return inl_load_le32(block + 4);
}

/* As another host would: its name, and a sequence number. */
static void block_write(const struct rig *rig, uint32_t seq, const char *node)
{
	uint8_t block[1024];

	block_read(rig, block);
	inl_store_le32(block + 4, seq);
	memset(block + 16, 0, 96);
	memcpy(block + 16, node, strlen(node));
	memcpy(block + 80, "sdx", 4);
	if (rig->vol->metadata_csum)
		inl_store_le32(block + 1020, inl_crc32c(rig->vol->csum_seed, block, 1020));
	assert_int_equal(pwrite(rig->fd, block, 1024, rig->at), 1024);
}

static void seconds(double n)
{
	usleep((useconds_t)(n * SECOND / 1000));
}

static int start(struct rig *rig, struct inl_diag *diag, struct inl_mmp **mmp)
{
	*diag = (struct inl_diag){ 0 };
	return inl_mmp_start_with(rig->vol, SECOND, diag, mmp);
}

static void assert_busy(struct rig *rig, int want, const char *words)
{
	struct inl_diag diag;
	struct inl_mmp *mmp;

	assert_int_equal(start(rig, &diag, &mmp), want);
	if (!strstr(diag.text, words))
		fail_msg("'%s' does not say '%s'", diag.text, words);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void test_held(void **state)
{
	for (unsigned l = 0; l < COUNT(layouts); l++) {
		struct utsname names;
		struct inl_diag diag;
		struct inl_mmp *mmp;
		uint8_t block[1024];
		uint64_t begin;
		struct rig rig;
		uint32_t seq;

		rig_open(&rig, layouts[l]);
		assert_int_equal(seq_now(&rig), SEQ_CLEAN);
		begin = inl_now_ns();
		assert_int_equal(start(&rig, &diag, &mmp), 0);
		assert_true(inl_now_ns() - begin < 11ull * SECOND); /* what is clean does not wait */
		seq = seq_now(&rig);
		assert_true(seq >= 1 && seq <= SEQ_MAX);
		block_read(&rig, block);
		assert_int_equal(uname(&names), 0);
		assert_string_equal((char *)block + 16, names.nodename);
		assert_string_equal((char *)block + 80, "i.img");
		if (rig.vol->metadata_csum)
			assert_int_equal(inl_load_le32(block + 1020), inl_crc32c(rig.vol->csum_seed, block, 1020));

		assert_busy(&rig, -EBUSY, names.nodename);
		assert_int_not_equal(seq_now(&rig), seq);
		assert_int_equal(inl_mmp_check(mmp), 0);
		assert_int_equal(inl_mmp_stop(mmp), 0);
		assert_int_equal(seq_now(&rig), SEQ_CLEAN);
		rig_close(&rig);
		assert_int_equal(try_run("e2fsck -fn i.img"), 0);
	}
}

struct writer {
	struct rig *rig;
	double after; /* seconds */
};

static void *write_later(void *arg)
{
	const struct writer *writer = arg;

	seconds(writer->after);
	block_write(writer->rig, 6, "elsewhere");
	return NULL;
}

static void test_not_clean(void **state)
{
	struct inl_diag diag;
	struct inl_mmp *mmp;
	pthread_t thread;
	uint64_t begin;
	struct rig rig;

	rig_open(&rig, layouts[0]);
	/* Somebody crashed. */
	block_write(&rig, 5, "elsewhere");
	begin = inl_now_ns();
	assert_int_equal(start(&rig, &diag, &mmp), 0);
	assert_true(inl_now_ns() - begin >= 22ull * SECOND);
	assert_int_equal(inl_mmp_stop(mmp), 0);

	/* Somebody is there: seen late in the first wait, and in the second. */
	for (unsigned i = 0; i < 2; i++) {
		struct writer writer = { &rig, i ? 14 : 7 };

		block_write(&rig, 5, "elsewhere");
		assert_int_equal(pthread_create(&thread, NULL, write_later, &writer), 0);
		assert_busy(&rig, -EBUSY, "in use elsewhere: on 'elsewhere', as 'sdx'");
		pthread_join(thread, NULL);
		assert_int_equal(seq_now(&rig), 6);
	}

	block_write(&rig, SEQ_FSCK, "elsewhere");
	assert_busy(&rig, -EBUSY, "e2fsck");
	rig_close(&rig);
}

static void test_damaged(void **state)
{
	uint8_t byte = 1;
	struct rig rig;

	rig_open(&rig, layouts[0]);
	assert_int_equal(pwrite(rig.fd, &byte, 1, rig.at + 600), 1);
	assert_busy(&rig, -EUCLEAN, "damaged");
	block_write(&rig, SEQ_CLEAN, "");
	assert_int_equal(pwrite(rig.fd, &byte, 1, rig.at), 1);
	assert_busy(&rig, -EUCLEAN, "damaged");
	rig.vol->fs->super->s_mmp_block = rig.vol->n_blocks;
	assert_busy(&rig, -EUCLEAN, "names no block");
	rig_close(&rig);
}

/* Somebody else takes it, rightly or not: nothing is written over that. */
static void test_lost(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct inl_diag diag;
		struct inl_mmp *mmp;
		struct rig rig;

		rig_open(&rig, layouts[i]);
		assert_int_equal(start(&rig, &diag, &mmp), 0);
		block_write(&rig, 77, "elsewhere");
		if (i == 0) {
			seconds(12);
			assert_int_equal(inl_mmp_check(mmp), -EBUSY);
		}
		assert_int_equal(inl_mmp_stop(mmp), -EBUSY);
		assert_int_equal(seq_now(&rig), 77);
		rig_close(&rig);
	}
}

/* The volume: protection begins with the open for writing, and ends with the close. */
static void test_volume(void **state)
{
	struct inl_volume *vol;
	struct rig rig;

	rig_open(&rig, layouts[0]);
	inl_volume_close(rig.vol);
	assert_int_equal(inl_volume_open(rig.dev, NULL, INL_VOLUME_WRITE, NULL, &vol), 0);
	assert_int_not_equal(seq_now(&rig), SEQ_CLEAN);
	if (with_kernel) {
		assert_int_equal(mkdir(in_dir("mnt"), 0700), 0);
		assert_int_equal(try_run("! mount -o loop i.img mnt 2>words && grep -qi busy words"), 0);
	}
	assert_int_equal(inl_volume_close(vol), 0);
	assert_int_equal(seq_now(&rig), SEQ_CLEAN);
	inl_dev_close(rig.dev);
	close(rig.fd);
	assert_int_equal(try_run("e2fsck -fn i.img"), 0);
	if (with_kernel)
		assert_int_equal(try_run("mount -o loop i.img mnt && umount mnt"), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_held), cmocka_unit_test(test_not_clean), cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_lost), cmocka_unit_test(test_volume),
	};

	with_kernel = argc > 1 && !strcmp(argv[1], "--long") && !geteuid();
	return cmocka_run_group_tests_name("multiple mount protection", tests, setup, teardown);
}
