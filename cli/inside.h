/*
 * cli/inside.h: paths inside a mount.
 * Not here: the mount (cli/mount.h).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#ifndef INLAY_CLI_INSIDE_H
#define INLAY_CLI_INSIDE_H

#include "cli/cli.h"

/* Is this, or where it would be made, inside a mount of Inlay? Not if it is an image itself. */
bool inl_inside(const char *path);

/*
 * If the command is about a path inside a mount, do it with the program that everybody has for that. Returns only if there is
 * none: false; or if that failed: true, and *code.
 */
bool inl_inside_run(struct inl_cli *cli, int n_args, char **args, int *code);

#endif
