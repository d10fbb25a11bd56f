/*
 * cli/pour.c: the contents of a regular file of the host, holes kept, into one of the volume.
 * Not here: where that stands and what belongs to it (cli/fill.c).
 * Read more: doc/inlay.1, "IMPORT".
 */
#include "cli/put.h"
#include <errno.h>
#include <unistd.h>

int inl_write_all(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, struct inl_diag *diag)
{
	const uint8_t *from = buf;
	size_t done = 0;

	while (len) {
		int err = inl_write(inode, offset, from, len, &done, diag);

		if (err)
			return err;
		from += done;
		offset += done;
		len -= done;
	}
	return 0;
}

static int write_at(struct inl_put *put, struct inl_inode *inode, uint64_t offset, size_t len)
{
	int err = inl_write_all(inode, offset, put->buf, len, &put->diag);

	if (err)
		return inl_put_failed(put, INL_DESTINATION, err);
	put->report.n_bytes += len;
	return 0;
}

int inl_put_changed(struct inl_put *put)
{
	put->diag = (struct inl_diag){ 0 };
	return inl_put_failed(put, INL_SOURCE, inl_diag_set(&put->diag, -EIO, "changed while it was read"));
}

/* Read exactly len bytes. */
static int read_all(struct inl_put *put, int fd, uint64_t offset, size_t len)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(fd, put->buf + got, len - got, (off_t)(offset + got));

		if (inl_cli_interrupted())
			return -EINTR;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return inl_put_failed(put, INL_SOURCE, -errno);
		if (!n)
			return inl_put_changed(put);
		got += (size_t)n;
	}
	return 0;
}

static int copy_run(struct inl_put *put, int fd, struct inl_inode *inode, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		/* The first piece ends at a multiple of the buffer's length: the others are aligned. */
		uint64_t room = INL_PUT_BUF_LEN - offset % INL_PUT_BUF_LEN;
		size_t n = (size_t)(end - offset < room ? end - offset : room);
		int err = read_all(put, fd, offset, n);

		if (!err)
			err = write_at(put, inode, offset, n);
		if (err)
			return err;
		inl_report_progress(&put->report);
		offset += n;
	}
	return 0;
}

/* With its holes. */
static int copy_sparse(struct inl_put *put, int fd, uint64_t size, struct inl_inode *inode)
{
	uint64_t offset = 0;

	while (offset < size) {
		off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;
		int err;

		if (data < 0 && errno == ENXIO)
			break;
		hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (data < 0 || hole < 0)
			return copy_run(put, fd, inode, offset, size);
		if ((uint64_t)hole > size)
			hole = (off_t)size;
		err = (uint64_t)data < size ? copy_run(put, fd, inode, (uint64_t)data, (uint64_t)hole) : 0;
		if (err)
			return err;
		offset = (uint64_t)hole;
		if ((uint64_t)data >= size)
			break;
	}
	return inl_put_failed(put, INL_DESTINATION, inl_truncate(inode, size, &put->diag));
}

/* Is it still as it was when it was opened? */
static int check_unchanged(struct inl_put *put, int fd, const struct stat *st)
{
	struct stat now;

	if (fstat(fd, &now))
		return inl_put_failed(put, INL_SOURCE, -errno);
	if (now.st_size != st->st_size || now.st_mtim.tv_sec != st->st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != st->st_mtim.tv_nsec)
		return inl_put_changed(put);
	return 0;
}

int inl_put_contents(struct inl_put *put, int fd, const struct stat *st, struct inl_inode *inode)
{
	uint64_t size = (uint64_t)st->st_size;
	int err;

	if (!size)
		return 0;
	if ((uint64_t)st->st_blocks * 512 < size)
		err = copy_sparse(put, fd, size, inode);
	else
		err = copy_run(put, fd, inode, 0, size);
	return err ? err : check_unchanged(put, fd, st);
}
