/*
 * tests/unit/test_crash.c: what crashes leave of a volume that was being written: replayed by Inlay, e2fsck and the
 * kernel, clean and with every acknowledged sync in it, byte for byte.
 * Not here: the parts (crash.h).
 * Read more: ARCHITECTURE.md, "The life of a change"; HACKING.md, "Crashes".
 *
 * A workload is recorded write by write. A point is a moment of it, and which of the writes that no flush had covered
 * are on the medium then. Faults are planted in the record, or in the code while it works; the same points must find
 * each of them.
 *
 * test_crash [--points=N] [--seed=N] [--config=NAME] [--point=N]
 */
#include "crash_points.h"
#include "ext4/change.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define OPERATIONS 240u
#define POINTS	   40u /* per kind of volume */
#define PLANT_RUNS 30u
#define N_PLANTED  7u

static const struct cr_crypt per_file = { .flags = 3, .key_len = 64 };
static const struct cr_crypt pad_4 = { .flags = 0, .key_len = 32 };
static const struct cr_crypt lblk_64 = { .flags = 3 | INL_POLICY_FLAG_IV_INO_LBLK_64, .key_len = 64 };
static const struct cr_crypt lblk_32 = { .flags = 2 | INL_POLICY_FLAG_IV_INO_LBLK_32, .key_len = 32 };
static const struct cr_crypt units_512 = { .flags = 3, .unit_bits = 9, .key_len = 64 };

static const struct cr_config configs[] = {
	{ .name = "4k", .mkfs = "-b 4096 -J size=4 -N 1024", .size = 20 << 20, .n_actors = 1, .unwritten = true,
	  .n_names = 40, .max_kib = 2048 },
	{ .name = "1k", .mkfs = "-b 1024 -J size=1 -N 1024", .size = 12 << 20, .n_actors = 1, .unwritten = true,
	  .n_names = 40, .max_kib = 2048 },
	{ .name = "sums", .mkfs = "-b 1024 -J size=1 -N 1024 -O ^metadata_csum,^64bit", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048 },
	{ .name = "ext3", .mkfs = "-b 1024 -J size=1 -N 1024 -O ^extents,^64bit,^metadata_csum -I 128", .size = 12 << 20,
	  .n_actors = 1, .n_names = 20, .max_kib = 2048 },
	{ .name = "perfile", .mkfs = "-b 4096 -J size=4 -N 1024 -O encrypt", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &per_file, .eager = true },
	{ .name = "pad4", .mkfs = "-b 1024 -J size=1 -N 1024 -O encrypt", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &pad_4, .eager = true },
	{ .name = "lblk64", .mkfs = "-b 4096 -J size=4 -N 1024 -O encrypt,stable_inodes", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &lblk_64, .eager = true },
	{ .name = "lblk32", .mkfs = "-b 1024 -J size=1 -N 1024 -O encrypt,stable_inodes", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &lblk_32, .eager = true },
	{ .name = "units", .mkfs = "-b 4096 -J size=4 -N 1024 -O encrypt", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &units_512, .eager = true },
	{ .name = "context", .mkfs = "-b 1024 -J size=1 -N 1024 -I 128 -O encrypt", .size = 12 << 20, .n_actors = 1,
	  .unwritten = true, .n_names = 40, .max_kib = 2048, .crypt = &per_file, .eager = true },
	{ .name = "mixed", .mkfs = "-b 1024 -J size=1 -N 1024 -O encrypt", .size = 12 << 20, .late = true, .n_actors = 2,
	  .unwritten = true, .n_names = 20, .max_kib = 1024, .crypt = &per_file },
	{ .name = "late", .mkfs = "-b 4096 -J size=4 -N 1024", .size = 20 << 20, .late = true, .n_actors = 2,
	  .unwritten = true, .n_names = 20, .max_kib = 1024 },
};

static struct cr_place place;
static unsigned n_points = POINTS, only_point = CR_NONE;
static uint64_t first_seed;
static const char *only_config;

/* ---- around operations ------------------------------------------------------------------------------------------- */

atomic_bool cr_early_reuse; /* a fault in the code: freed blocks can be used at once */
atomic_uint cr_eager; /* 0: no; else it counts, from 1 */
int __real_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);
int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag);

/* Is a file on the list of orphans that has a name? */
static bool is_shortening(struct inl_volume *vol)
{
	bool found = false;

	pthread_mutex_lock(&vol->lock);
	for (struct inl_inode *inode = vol->orphans.first; inode && !found; inode = inode->orphan.next)
		found = inode->raw.i_links_count;
	pthread_mutex_unlock(&vol->lock);
	return found;
}

static bool commits_now(struct inl_volume *vol)
{
	struct cr_dice dice = { atomic_fetch_add(&cr_eager, 1) };

	return cr_chance(&dice, is_shortening(vol) ? 50 : 8);
}

int __wrap_inl_op_run(struct inl_volume *vol, unsigned credits, inl_op_fn *fn, void *arg, struct inl_diag *diag)
{
	int err = __real_inl_op_run(vol, credits, fn, arg, diag);

	if (atomic_load(&cr_eager) && commits_now(vol))
		inl_txn_commit(vol);
	if (!atomic_load(&cr_early_reuse))
		return err;
	pthread_mutex_lock(&vol->lock);
	inl_alloc_frozen(vol->alloc);
	inl_alloc_committed(vol->alloc);
	pthread_mutex_unlock(&vol->lock);
	return err;
}

/* ---- a fault in the code: some data of encrypted files is written as it is --------------------------------------- */

atomic_bool cr_plain_writes;
void __real_inl_bio_init_keyed(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs,
			       unsigned n_segs, const struct inl_crypt_ctx *ctx);
void __wrap_inl_bio_init_keyed(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs,
			       unsigned n_segs, const struct inl_crypt_ctx *ctx);

void __wrap_inl_bio_init_keyed(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs,
			       unsigned n_segs, const struct inl_crypt_ctx *ctx)
{
	if (atomic_load(&cr_plain_writes) && op == INL_WRITE && offset % 7 == 0)
		inl_bio_init_plain(bio, op, offset, segs, n_segs);
	else
		__real_inl_bio_init_keyed(bio, op, offset, segs, n_segs, ctx);
}

/* ---- sound ------------------------------------------------------------------------------------------------------- */

static void run_config(const struct cr_config *config, uint64_t seed, enum cr_plant plant, unsigned n, bool first,
		       struct cr_tally *tally, unsigned *n_planted)
{
	struct cr_run run = { .config = config, .place = &place, .seed = seed, .plant = plant };
	char text[CR_TEXT] = "";

	if (!cr_run_record(&run, OPERATIONS, text) && plant == CR_SOUND)
		fail_msg("%s, seed %llu: %s", config->name, (unsigned long long)seed, text);
	*n_planted = run.n_planted;
	if (plant == CR_SOUND || run.n_planted || plant == CR_EARLY_REUSE)
		cr_run_points(&run, n, only_point, 2, first, tally);
	cr_run_done(&run);
}

static void print_tally(const struct cr_config *config, const struct cr_tally *tally)
{
	print_message("# %s: %u points: replayed by Inlay %u, by Inlay with another crash %u, by e2fsck %u, by the kernel %u, "
		      "without the key %u; read with the journal in memory %u; gone on with %u\n", config->name, tally->n_points,
		      tally->n_paths[CR_PATH_INLAY], tally->n_paths[CR_PATH_TWICE], tally->n_paths[CR_PATH_FSCK],
		      tally->n_paths[CR_PATH_KERNEL], tally->n_paths[CR_PATH_LOCKED], tally->n_looked, tally->n_went_on);
	if (config->crypt)
		print_message("# %s: searched for plaintext %u; files made longer %u; all removed without the key %u\n",
			      config->name, tally->n_searched, tally->n_tails, tally->n_removed);
}

static void test_config(void **state)
{
	const struct cr_config *config = *state;
	struct cr_tally tally = { 0 };
	unsigned per_run = n_points < 500 ? n_points : 250, n_planted;

	if (only_config && strcmp(only_config, config->name))
		skip();
	for (unsigned done = 0, i = 0; done < n_points && !tally.n_failed; done += per_run, i++)
		run_config(config, first_seed + i, CR_SOUND, per_run, false, &tally, &n_planted);
	for (unsigned i = 0; i < CR_N_REPORTS && tally.reports[i][0]; i++)
		print_message("# %s\n", tally.reports[i]);
	print_tally(config, &tally);
	assert_int_equal(tally.n_failed, 0);
}

/* ---- planted ----------------------------------------------------------------------------------------------------- */

static const struct cr_config *config_of(const char *name)
{
	size_t i = 0;

	while (strcmp(configs[i].name, name))
		i++;
	return &configs[i];
}

static void expect_found_in(enum cr_plant plant, const char *config)
{
	struct cr_tally tally = { 0 };
	unsigned n_places = 0;

	if (only_config)
		skip();
	for (unsigned i = 0; i < PLANT_RUNS && !tally.n_failed; i++) {
		unsigned n_planted = 0;

		run_config(config_of(config), 77 + i, plant, 150, true, &tally, &n_planted);
		n_places += n_planted;
	}
	print_message("# %u places; found after %u points: %s\n", n_places, tally.n_points, tally.reports[0]);
	assert_true(tally.n_failed > 0);
}

static void expect_found(enum cr_plant plant)
{
	expect_found_in(plant, "1k");
}

static void test_no_flush_before_commit(void **state)
{
	expect_found(CR_NO_FLUSH_BEFORE_COMMIT);
}

static void test_no_flush_after_commit(void **state)
{
	expect_found(CR_NO_FLUSH_AFTER_COMMIT);
}

static void test_no_flush_before_tail(void **state)
{
	expect_found(CR_NO_FLUSH_BEFORE_TAIL);
}

static void test_no_revokes(void **state)
{
	expect_found(CR_NO_REVOKES);
}

static void test_late_data(void **state)
{
	expect_found(CR_LATE_DATA);
}

static void test_early_reuse(void **state)
{
	expect_found(CR_EARLY_REUSE);
}

static void test_plain_writes(void **state)
{
	expect_found_in(CR_PLAIN_WRITES, "pad4");
}

static void take_option(const char *option)
{
	if (!strncmp(option, "--points=", 9))
		n_points = (unsigned)strtoul(option + 9, NULL, 0);
	else if (!strncmp(option, "--seed=", 7))
		first_seed = strtoull(option + 7, NULL, 0);
	else if (!strncmp(option, "--config=", 9))
		only_config = option + 9;
	else if (!strncmp(option, "--point=", 8))
		only_point = (unsigned)strtoul(option + 8, NULL, 0);
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[CR_COUNT(configs) + N_PLANTED] = {
		cmocka_unit_test(test_no_flush_before_commit), cmocka_unit_test(test_no_flush_after_commit),
		cmocka_unit_test(test_no_flush_before_tail),   cmocka_unit_test(test_no_revokes),
		cmocka_unit_test(test_late_data),	       cmocka_unit_test(test_early_reuse),
		cmocka_unit_test(test_plain_writes),
	};
	int failed;

	for (size_t i = 0; i < CR_COUNT(configs); i++)
		tests[N_PLANTED + i] = (struct CMUnitTest){ configs[i].name, test_config, NULL, NULL, (void *)&configs[i] };
	first_seed = 1;
	for (int i = 1; i < argc; i++)
		take_option(argv[i]);
	printf("# seed %llu, %u points per kind of volume\n", (unsigned long long)first_seed, n_points);
	cr_place_init(&place);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	cr_place_done(&place);
	return failed;
}
