/*
 * cli/mount.h: what the commands around a mount share.
 * Not here: the mount itself (inlay/mount.h).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#ifndef INLAY_CLI_MOUNT_H
#define INLAY_CLI_MOUNT_H

#include "cli/cli.h"
#include <inlay/mount.h>

/* What a process serves. */
struct inl_mounted {
	struct inl_cli *cli;
	const char *image, *dir;
	struct inl_mount *mount;
};

/* For inl_mount_options.report; arg: a struct inl_mounted. */
int inl_mounted_describe(void *arg, bool json, char **text, size_t *len);

/*
 * Open something for the calls of inlay/mount.h.
 *
 * Returns: whether it lies in a mount of Inlay; *fd then is to be closed.
 */
bool inl_mounted_open(const char *path, int *fd);

#endif
