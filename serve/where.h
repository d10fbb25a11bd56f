/*
 * serve/where.h: which mount of Inlay a path leads to.
 * Not here: asking it something (inlay/mount.h).
 * Read more: serve/where.c.
 */
#ifndef INLAY_SERVE_WHERE_H
#define INLAY_SERVE_WHERE_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct inl_where {
	dev_t dev;
	uid_t owner; /* who mounted */
	bool others; /* may use it, too: allow_other */
	char point[PATH_MAX];
};

/* Is it this directory, or below it? Both without links. */
bool inl_is_below(const char *path, const char *dir);

/*
 * Returns: 0; -ENOTTY (no mount of Inlay; *where may be set); -ENOENT, ... of the path; -ENOMEM.
 */
int inl_where(const char *path, struct inl_where *where);

/* Of the i-th mount of Inlay that the system lists. -ENOENT: there are no more. */
int inl_where_nth(unsigned i, struct inl_where *where);

#endif
