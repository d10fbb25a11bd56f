/*
 * cli/mkfs.h: a new volume, as `inlay mkfs` and `inlay build` make it.
 * Not here: what is put into it (cli/put.h).
 * Read more: mke2fs(8).
 */
#ifndef INLAY_CLI_MKFS_H
#define INLAY_CLI_MKFS_H

#include "cli/change.h"

struct inl_mkfs {
	const char *image;
	uint64_t size;	   /* 0: as it is */
	uint64_t n_inodes; /* 0: as mke2fs likes */
	char block[16];	   /* "": as mke2fs likes */
	const char *uuid, *label, *hash_seed; /* NULL: as mke2fs likes */
	bool fresh; /* the file must not be there */
	int fd;
	bool made; /* the file was not there */
	struct stat st;
};

/* What the options --size, --block-size, --uuid and --label say. Returns 0 or an exit code, as below. */
int inl_mkfs_parse(struct inl_cli *cli, struct inl_mkfs *mkfs);

/* Make the file, unless it is a device, and the volume in it. What was made is removed after a failure. */
int inl_mkfs_make(struct inl_cli *cli, struct inl_mkfs *mkfs);

/* Has nobody else this file or device: another process of ours, the kernel? Returns an exit code; the message is printed. */
int inl_mkfs_check_unused(struct inl_cli *cli, const char *path);

#endif
