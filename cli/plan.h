/*
 * cli/plan.h: what `inlay build` wants of an import: which directories become encrypted, and that all comes out the same.
 * Not here: the import (cli/put.h), policies as words (cli/policy.h).
 * Read more: doc/inlay.1, "BUILDING".
 */
#ifndef INLAY_CLI_PLAN_H
#define INLAY_CLI_PLAN_H

#include "cli/put.h"

struct inl_plan_dir {
	char *path; /* in the volume, without slashes at its ends */
	struct inl_policy policy;
	unsigned line; /* of the file of policies */
	bool done;     /* the directory is there, and encrypted */
};

struct inl_plan {
	const char *file; /* of policies; NULL: none */
	struct inl_plan_dir *dirs;
	size_t n, room;
	const char *seed; /* NULL: nonces are random */
	bool fixed_time;  /* no time is later than now, and what has none of its own has now */
	struct inl_time now;
};

/*
 * Read the file of policies and its keys, which go into cli->keys. Lines of PATH WORD...; '#' begins a comment; what holds
 * spaces stands in "quotes".
 *
 * Returns: 0 or an exit code; the message is printed. plan is done with inl_plan_done, whatever was returned.
 */
int inl_plan_read(struct inl_cli *cli, const char *file, struct inl_plan *plan);
void inl_plan_done(struct inl_plan *plan);

/* Has all been done? Returns 0 or an exit code; the message, about the first that was not, is printed. */
int inl_plan_check_done(struct inl_cli *cli, const struct inl_plan *plan);

/* SHA-256 of a purpose and the seed. Returns 0 or -errno. */
int inl_plan_seed(const struct inl_plan *plan, const char *purpose, uint8_t sum[32]);

void inl_plan_attr(const struct inl_plan *plan, struct inl_attr *attr);

/*
 * The nonce of what is about to be made at put->path, where it will be encrypted and must come out the same: attr->nonce.
 * Reads all of a regular file.
 *
 *   fd      of a regular file
 *   target  of a symbolic link
 *   nonce   room for it, as long as attr is used
 *
 * Returns: 0 or -errno (inl_put_failed).
 */
int inl_plan_nonce(struct inl_put *put, int fd, const struct stat *st, const char *target,
		   uint8_t nonce[INL_FILE_NONCE_SIZE], struct inl_attr *attr);

/*
 * A directory has been made at put->path, and is empty: encrypt it if it is one of the plan. 0 or -errno
 * (inl_put_failed), and then nothing is put any more, whatever was asked for: it would become plaintext.
 */
int inl_plan_enter(struct inl_put *put, struct inl_inode *dir);

#endif
