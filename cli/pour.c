/*
 * cli/pour.c: the contents of a regular file of the host, holes kept, into one of the volume.
 * Not here: where that stands and what belongs to it (cli/fill.c).
 * Read more: doc/inlay.1, "IMPORT".
 */
#include "cli/plan.h"
#include "cli/put.h"
#include <errno.h>
#include <inlay/cipher.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define STRETCH ((size_t)64 << 10) /* bytes */

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

int inl_put_changed(struct inl_put *put)
{
	put->diag = (struct inl_diag){ 0 };
	return inl_put_failed(put, INL_SOURCE, inl_diag_set(&put->diag, -EIO, "changed while it was read"));
}

/* ---- one run of data, by one thread or two ----------------------------------------------------------------------- */

/*
 * Two threads read and write pieces in turns: while one waits for the device, the other reads, or encrypts. What they
 * share is changed with the lock held.
 */
struct run {
	struct inl_put *put;
	int fd;
	struct inl_inode *inode;
	uint64_t end;
	uint64_t before; /* bytes of the report */
	pthread_mutex_t lock;
	uint64_t next;	  /* the first that nobody has taken */
	uint64_t n_bytes; /* done */
	int err;	  /* the first failure, and what there is to say of it */
	enum inl_side side;
	struct inl_diag diag;
};

/* The first piece ends at a multiple of the buffer's length: the others are aligned. 0: there is none left. */
static size_t take(struct run *run, uint64_t *offset)
{
	size_t n = 0;

	pthread_mutex_lock(&run->lock);
	*offset = run->next;
	if (!run->err && run->next < run->end) {
		n = INL_PUT_BUF_LEN - run->next % INL_PUT_BUF_LEN;
		if (n > run->end - run->next)
			n = (size_t)(run->end - run->next);
		run->next += n;
	}
	pthread_mutex_unlock(&run->lock);
	return n;
}

static void done(struct run *run, size_t n, int err, enum inl_side side, const struct inl_diag *diag)
{
	pthread_mutex_lock(&run->lock);
	if (!err) {
		run->n_bytes += n;
	} else if (!run->err) {
		run->err = err;
		run->side = side;
		run->diag = *diag;
	}
	pthread_mutex_unlock(&run->lock);
}

/* Read exactly len bytes. */
static int read_all(int fd, uint64_t offset, uint8_t *buf, size_t len, struct inl_diag *diag)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(fd, buf + got, len - got, (off_t)(offset + got));

		if (inl_cli_interrupted())
			return -EINTR;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return inl_diag_set(diag, -EIO, "changed while it was read");
		got += (size_t)n;
	}
	return 0;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

/* With a seed zeros are left out, in stretches that begin and end where every block size has a boundary. */
static int write_piece(const struct run *run, uint64_t offset, const uint8_t *buf, size_t len, struct inl_diag *diag)
{
	int err = 0;

	if (!run->put->plan || !run->put->plan->seed)
		return inl_write_all(run->inode, offset, buf, len, diag);
	for (size_t at = 0; at < len && !err; at += STRETCH) {
		size_t n = len - at < STRETCH ? len - at : STRETCH;

		if (!is_zero(buf + at, n))
			err = inl_write_all(run->inode, offset + at, buf + at, n, diag);
	}
	return err;
}

/* By the thread that has the report. */
static void report_progress(struct run *run)
{
	struct inl_report *report = &run->put->report;

	pthread_mutex_lock(&run->lock);
	report->n_bytes = run->before + run->n_bytes;
	pthread_mutex_unlock(&run->lock);
	inl_report_progress(report);
}

static void copy_pieces(struct run *run, uint8_t *buf, bool report)
{
	uint64_t offset;
	size_t n;

	while ((n = take(run, &offset))) {
		struct inl_diag diag = { 0 };
		enum inl_side side = INL_SOURCE;
		int err = read_all(run->fd, offset, buf, n, &diag);

		if (!err && run->put->check)
			err = inl_digest_add(run->put->check, buf, n);
		if (!err) {
			side = INL_DESTINATION;
			err = write_piece(run, offset, buf, n, &diag);
		}
		done(run, n, err, side, &diag);
		if (report)
			report_progress(run);
	}
}

static void *help(void *arg)
{
	struct run *run = arg;

	copy_pieces(run, run->put->second, false);
	return NULL;
}

/* A plan is for volumes that come out the same: there the order must. */
static bool is_for_two(const struct inl_put *put, uint64_t len)
{
	return len >= INL_PUT_FOR_TWO && !(put->plan && put->plan->seed) && sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

/*
 * With all of its blocks from the beginning they lie in order, whoever writes them, and neither thread has to make the
 * file longer, for which it must be alone.
 */
static int copy_by_two(struct run *run)
{
	struct inl_put *put = run->put;
	pthread_t helper;
	bool helped;
	int err = inl_fallocate(run->inode, 0, run->next, run->end - run->next, &put->diag);

	if (err && err != -EOPNOTSUPP)
		return inl_put_failed(put, INL_DESTINATION, err);
	if (!put->second)
		put->second = inl_cli_new_buf(INL_PUT_BUF_LEN);
	helped = !err && put->second && !pthread_create(&helper, NULL, help, run);
	put->diag = (struct inl_diag){ 0 };
	copy_pieces(run, put->buf, true);
	if (helped)
		pthread_join(helper, NULL);
	return 0;
}

static int copy_run(struct inl_put *put, int fd, struct inl_inode *inode, uint64_t offset, uint64_t end)
{
	struct run run = { .put = put, .fd = fd, .inode = inode, .next = offset, .end = end,
			   .before = put->report.n_bytes, .lock = PTHREAD_MUTEX_INITIALIZER };
	int err = 0;

	if (is_for_two(put, end - offset))
		err = copy_by_two(&run);
	else
		copy_pieces(&run, put->buf, true);
	pthread_mutex_destroy(&run.lock);
	put->report.n_bytes = run.before + run.n_bytes;
	if (err || !run.err)
		return err;
	put->diag = run.diag;
	return inl_put_failed(put, run.side, run.err);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* With its holes. */
static int copy_sparse(struct inl_put *put, int fd, uint64_t size, struct inl_inode *inode)
{
	uint64_t offset = 0;

	while (offset < size) {
		off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;
		int err;

		if ((data < 0 && errno == ENXIO) || data >= (off_t)size)
			break;
		hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (data < 0 || hole < 0)
			return copy_run(put, fd, inode, offset, size);
		if ((uint64_t)hole > size)
			hole = (off_t)size;
		err = copy_run(put, fd, inode, (uint64_t)data, (uint64_t)hole);
		if (err)
			return err;
		offset = (uint64_t)hole;
	}
	return inl_put_failed(put, INL_DESTINATION, inl_truncate(inode, size, &put->diag));
}

/* Where all has to come out the same, holes are where there is nothing but zeros, and not where the host has them. */
static int copy_same(struct inl_put *put, int fd, uint64_t size, struct inl_inode *inode)
{
	int err = copy_run(put, fd, inode, 0, size);

	return err ? err : inl_put_failed(put, INL_DESTINATION, inl_truncate(inode, size, &put->diag));
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

static int copy(struct inl_put *put, int fd, const struct stat *st, struct inl_inode *inode)
{
	uint64_t size = (uint64_t)st->st_size;

	if (put->plan && put->plan->seed)
		return copy_same(put, fd, size, inode);
	return (uint64_t)st->st_blocks * 512 < size ? copy_sparse(put, fd, size, inode) : copy_run(put, fd, inode, 0, size);
}

/*
 * The nonce was made of what the file contained before. What has been written must be the same, else two contents could be
 * encrypted alike: nothing of that may remain, whatever was asked for.
 */
static int copy_checked(struct inl_put *put, int fd, const struct stat *st, struct inl_inode *inode)
{
	uint8_t sum[32];
	int err = inl_digest_new(&put->check), ended;

	if (err)
		return inl_put_failed(put, INL_SOURCE, err);
	err = copy(put, fd, st, inode);
	ended = inl_digest_end(put->check, sum);
	put->check = NULL;
	if (!err && (ended || memcmp(sum, put->sum, sizeof(sum))))
		err = inl_put_changed(put);
	if (err)
		put->keep_going = false;
	return err;
}

int inl_put_contents(struct inl_put *put, int fd, const struct stat *st, struct inl_inode *inode, bool checked)
{
	int err;

	if (!st->st_size)
		return 0;
	err = checked ? copy_checked(put, fd, st, inode) : copy(put, fd, st, inode);
	return err ? err : check_unchanged(put, fd, st);
}
