/*
 * tests/mount/posix.h: what the files of the exerciser of names and modes share.
 * Not here: contents in all detail (fsx.c).
 * Read more: HACKING.md, "Tests".
 */
#ifndef INLAY_TESTS_POSIX_H
#define INLAY_TESTS_POSIX_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define PX_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PX_PATH     6000
#define PX_KNOWN    160u /* paths remembered */
#define PX_LONGEST  700u /* bytes of a remembered path */
#define PX_N_HELD   6u
#define PX_BUF      (1u << 17)

/* Kinds of files, as a set. */
enum { PX_REG = 1, PX_DIR = 2, PX_LNK = 4, PX_OTHER = 8, PX_ANY = 15 };

/*
 * In memory that children share: what a child of another user makes is known to its parent. What is remembered is a
 * hint where there may be something; what is there decides.
 */
struct px {
	uint64_t dice;
	unsigned long number;
	unsigned n_known;
	char known[PX_KNOWN][PX_LONGEST];
};

struct px_held {
	int fd; /* -1: none */
	int flags;
	unsigned kind;
};

extern struct px *px;
extern struct px_held px_held[PX_N_HELD];
/* Is this left out? One of the names of --without. */
bool px_without(const char *what);
extern bool px_is_child; /* of another user: what it opens is gone when it ends */
extern uint8_t px_buf[PX_BUF];

/* ---- posix_names.c ----------------------------------------------------------------------------------------------- */

uint64_t px_rng64(void);
uint64_t px_rng(uint64_t below);
uint64_t px_hash(uint64_t hash, const void *data, size_t len);
void px_fill(uint8_t *buf, size_t len);

/* On standard output: a path on one line and not too long, after a blank. */
void px_show(const char *path);
/* " = 12", or the name of the error. Returns whether it is none. */
bool px_result(long ret);
/* What stat(2) says that is the same on every equal file system. */
void px_show_stat(const struct stat *st);
/* The time, or "now": today. */
void px_show_time(const char *what, struct timespec t);
void px_show_fd(int fd);
/* Of what the name itself stands for */
void px_show_path(const char *path);

unsigned px_kind(mode_t mode);
void px_add(const char *path);
/* And all below it. */
void px_forget(const char *path);
void px_moved(const char *from, const char *to);

/* These choose, write into `path` (PX_PATH bytes), and show it. */
void px_old_path(char *path, unsigned kinds); /* mostly one that is there, of these kinds */
void px_new_path(char *path);                 /* mostly one that is not there, in a directory that is */
void px_any_path(char *path);
/* A directory that is there: "." or below. */
void px_dir_path(char *path);
void px_some_name(char *name);
mode_t px_some_mode(void);
unsigned px_some_id(void);
uint64_t px_some_offset(void);
size_t px_some_len(void);

/* One that is held open, shown; NULL if there is none of these kinds. */
struct px_held *px_some_held(unsigned kinds);
void px_hold(int fd, int flags);
void px_release(struct px_held *held);

/* Names in an open directory but "." and "..", sorted. The type (DT_...) is before each name. */
struct px_list {
	char **names;
	size_t n, room;
};
int px_list_fd(int fd, struct px_list *list);
void px_list_add(struct px_list *list, unsigned type, const char *name);
void px_list_sort(struct px_list *list);
void px_list_free(struct px_list *list);

/* ---- operations, each a line: its arguments and what came of it -------------------------------------------------- */

struct px_op {
	unsigned weight;
	const char *name;
	void (*fn)(void);
};

extern const struct px_op px_file_ops[]; /* posix_files.c: open, read, write, sizes */
extern const struct px_op px_name_ops[]; /* posix_files.c: make, link, move and remove */
extern const struct px_op px_meta_ops[]; /* posix_meta.c: modes, owners, times, attributes */
extern const struct px_op px_case_ops[]; /* posix_cases.c: several steps; for root only */
extern const struct px_op px_peer_ops[]; /* posix_peers.c: with other processes and users; for root only */

/* One of those of a user. */
void px_simple_op(void);

/* ---- posix_walk.c ------------------------------------------------------------------------------------------------ */

/* Everything below the working directory, a line for each. */
void px_walk(FILE *out);
/* All of a tree, wherever it is; -errno of the first that cannot be removed. */
int px_remove_tree(const char *path);

/* ---- posix_shared.c ---------------------------------------------------------------------------------------------- */

/* Many processes in one directory; 0: nobody has seen anything wrong. */
int px_shared(const char *dir, uint64_t seed, unsigned n_procs, unsigned long n_ops);

#endif
