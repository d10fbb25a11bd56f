/*
 * cli/build.h: the parts of `inlay build`: build.c, measure.c; plan.h has what the import needs.
 * Not here: the import (cli/put.h), the new volume (cli/mkfs.h).
 * Read more: doc/inlay.1, "BUILDING".
 */
#ifndef INLAY_CLI_BUILD_H
#define INLAY_CLI_BUILD_H

#include "cli/cli.h"
#include <sys/stat.h>

/* What a tree needs. */
struct inl_measure {
	uint64_t n_inodes;
	uint64_t bytes; /* in whole blocks */
	bool whole;	/* asked for: holes count too, wherever the host has them */
};

/* Add a tree of the host. block: bytes. Returns 0 or -errno; -EINTR when interrupted. */
int inl_measure_tree(const char *dir, uint64_t block, struct inl_measure *measure);
uint64_t inl_measure_inodes(const struct inl_measure *measure);
uint64_t inl_measure_size(const struct inl_measure *measure); /* bytes, of a volume that has room for it */

#endif
