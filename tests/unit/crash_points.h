/*
 * tests/unit/crash_points.h: recording one workload, and trying what crashes leave of it.
 * Not here: the parts (crash.h); what is asked for (test_crash.c).
 * Read more: test_crash.c.
 */
#ifndef TESTS_UNIT_CRASH_POINTS_H
#define TESTS_UNIT_CRASH_POINTS_H

#include "crash.h"

#define CR_MAX_ACTORS 2

/* A kind of volume, and how it is used. */
struct cr_config {
	const char *name, *mkfs; /* options of mke2fs */
	const char *root; /* the first actor's directory; NULL: "one" */
	const struct cr_crypt *crypt; /* how it is encrypted; the second actor's never is */
	uint64_t size;
	bool late;	    /* the device ends bios later, in any order */
	unsigned n_actors;  /* threads */
	bool unwritten;	    /* it has extents */
	bool eager;	    /* commits come between any two operations, and in the middle of a truncation often */
	unsigned n_names;   /* in the directory of long names */
	uint32_t max_kib;   /* of file contents, per actor */
};

/* A folder in memory; removed by cr_place_done. */
struct cr_place {
	char dir[64];
	bool kernel; /* can mount */
};
void cr_place_init(struct cr_place *place);
void cr_place_done(struct cr_place *place);

/* An image there, mapped. */
uint8_t *cr_image_map(const struct cr_place *place, const char *name, uint64_t size, char path[128]);

/* Run a program; its output to text. Returns its exit status, or -1. */
int cr_spawn(char *const argv[], char text[CR_TEXT]);
int cr_fsck(const char *mode, const char *path, char text[CR_TEXT]); /* mode "-fn", "-fy" */
void cr_mkfs(const struct cr_config *config, const char *path);

/* A volume of this kind with the actors' directories in it, closed. Returns "" or what went wrong in text. */
void cr_prepare(const struct cr_config *config, struct inl_keyring *keys, uint64_t seed, uint8_t *bytes,
		struct cr_actor *actors, char text[CR_TEXT]);

struct cr_run {
	const struct cr_config *config;
	const struct cr_place *place;
	uint64_t seed;
	enum cr_plant plant;
	struct inl_keyring *keys;
	uint8_t *base, *live;
	struct cr_rec *rec;
	struct cr_actor actors[CR_MAX_ACTORS];
	unsigned n_planted; /* places where the fault is */
};

/*
 * Record a workload of n operations per actor. Returns false, and why in text, if something went wrong without a crash.
 */
bool cr_run_record(struct cr_run *run, unsigned n, char text[CR_TEXT]);
void cr_run_done(struct cr_run *run);

enum cr_path { CR_PATH_INLAY, CR_PATH_TWICE, CR_PATH_FSCK, CR_PATH_KERNEL, CR_PATH_LOCKED, CR_N_PATHS };

#define CR_N_REPORTS 3
struct cr_tally {
	unsigned n_points, n_failed, n_paths[CR_N_PATHS], n_looked, n_went_on;
	unsigned n_searched, n_removed, n_tails; /* of encrypted ones */
	char reports[CR_N_REPORTS][CR_TEXT + 256];
};

/*
 * Try n crashes of it, in n_jobs processes; add to the tally.
 *
 *   only   CR_NONE: all; else this one alone, of n
 *   first  stop after the first failure
 */
void cr_run_points(struct cr_run *run, unsigned n, unsigned only, unsigned n_jobs, bool first, struct cr_tally *tally);

#endif
