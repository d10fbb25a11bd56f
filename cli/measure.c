/*
 * cli/measure.c: how large a volume has to be for a tree of the host.
 * Not here: the volume (cli/mkfs.c).
 * Read more: cli/build.h.
 */
#include "cli/build.h"
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MIB	     ((uint64_t)1 << 20)
#define SPARE_INODES 64u
#define LINK_INSIDE  32	 /* bytes: a longer target, encrypted, has no room in the inode */
#define NAME_BYTES   48u /* of an entry in a directory, encrypted, in blocks that are not full */

/* What of a file is data, as the import will find it. What cannot be opened cannot be imported. */
static uint64_t data_of(const char *path, const struct stat *st)
{
	off_t size = st->st_size, at = 0;
	uint64_t bytes = 0;
	int fd;

	if ((uint64_t)st->st_blocks * 512 >= (uint64_t)size)
		return (uint64_t)size;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	while (fd >= 0 && at < size) {
		off_t data = lseek(fd, at, SEEK_DATA), hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0 || hole < 0) {
			bytes = (uint64_t)size;
			break;
		}
		bytes += (uint64_t)(hole - data);
		at = hole;
	}
	if (fd >= 0)
		close(fd);
	return bytes;
}

/* One entry: its inode, its name, its blocks, one more for attributes. Holes stay holes. */
static void add(struct inl_measure *measure, const char *path, const struct stat *st, size_t name_len, uint64_t block)
{
	uint64_t bytes = 0;

	measure->n_inodes++;
	measure->bytes += NAME_BYTES + 2 * name_len;
	if (S_ISREG(st->st_mode))
		bytes = measure->whole ? (uint64_t)st->st_size : data_of(path, st);
	else if (S_ISDIR(st->st_mode) || (S_ISLNK(st->st_mode) && st->st_size > LINK_INSIDE))
		bytes = block;
	measure->bytes += (bytes + block - 1) / block * block;
	if (llistxattr(path, NULL, 0) > 0)
		measure->bytes += block;
}

int inl_measure_tree(const char *dir, uint64_t block, struct inl_measure *measure)
{
	char *paths[] = { (char *)dir, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL);
	const FTSENT *entry;
	int err = 0;

	if (!fts)
		return -errno;
	errno = 0;
	while (!inl_cli_interrupted() && (entry = fts_read(fts))) {
		/* What cannot be read here cannot be read later, where that is said. */
		if (entry->fts_info != FTS_DP && entry->fts_info != FTS_NS && entry->fts_statp)
			add(measure, entry->fts_accpath, entry->fts_statp, entry->fts_namelen, block);
		errno = 0;
	}
	if (inl_cli_interrupted())
		err = -EINTR;
	else if (errno)
		err = -errno;
	fts_close(fts);
	return err;
}

uint64_t inl_measure_inodes(const struct inl_measure *measure)
{
	return measure->n_inodes + measure->n_inodes / 20 + SPARE_INODES;
}

/* Inode tables, the journal (at most a sixteenth of the volume, or 1 GiB), maps, bitmaps, and something to spare. */
uint64_t inl_measure_size(const struct inl_measure *measure)
{
	uint64_t need = measure->bytes + 256 * inl_measure_inodes(measure), spare = need / 8;

	if (spare > 2048 * MIB)
		spare = 2048 * MIB + (need - 16384 * MIB) / 50;
	return (need + spare + 16 * MIB + MIB - 1) & ~(MIB - 1);
}
