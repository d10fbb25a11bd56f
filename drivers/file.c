/*
 * drivers/file.c: a regular file or a block device: opening it, and its I/O as a series of system calls.
 * Not here: io_uring, which makes most of these calls for bios of a queue (uring.c); what the kernel uses (inuse.c).
 * Read more: preadv2(2), statx(2), fallocate(2), flock(2), fcntl(2); inlay/driver.h.
 *
 * Locks: file->sync.lock. It is not held during a call or the end of a bio.
 */
#include "drivers/file.h"
#include "drivers/drivers.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BLOCK_SIZE_MIN 512u
#define BLOCK_SIZE_MAX 65536u
#define ALIGN_DEFAULT  4096u /* of O_DIRECT where the kernel does not say */
#define MEM_ALIGN_MAX  4096u
#define CALL_LEN_MAX   (1u << 30) /* bytes: what one call is asked for */
#define CALL_SEGS      256 /* of calls that are made at once */
#define TRIES_MAX      100 /* of a call that ends with EAGAIN though it may wait */

/* ---- durability -------------------------------------------------------------------------------------------------- */

/*
 * The kernel reports that it lost written data to one call only, and a flush that is tried again then succeeds over the
 * loss. So the first error is kept for good, and the calls that may receive it are made one at a time: by the bio that
 * has the turn. Bios that come meanwhile, on any thread, wait; the first of them gets the turn next, and all that wait
 * when its call begins share that call.
 */
enum stage {
	STAGE_NEW,
	STAGE_TURN, /* the turn was passed on to this bio */
};

/* Returns 1: the bio has the turn; 0: somebody else; -errno: there was an error. */
static int sync_try(struct inl_file_sync *sync)
{
	int ret;

	pthread_mutex_lock(&sync->lock);
	ret = sync->err ? sync->err : !sync->taken;
	if (ret == 1)
		sync->taken = true;
	pthread_mutex_unlock(&sync->lock);
	return ret;
}

/* As sync_try, but where somebody else has the turn, the bio waits. It is not to be touched then. */
static int sync_enter(struct inl_file_sync *sync, struct inl_bio *bio)
{
	unsigned *stage = inl_bio_stage(bio);
	int ret = 1;

	pthread_mutex_lock(&sync->lock);
	if (*stage != STAGE_TURN)
		ret = sync->err ? sync->err : !sync->taken;
	if (ret == 1) {
		sync->taken = true;
		*stage = STAGE_TURN;
		sync->sharing = sync->waiting;
		sync->waiting = (struct inl_bio_list){ 0 };
	} else if (ret == 0) {
		inl_bio_list_add(&sync->waiting, bio);
	}
	pthread_mutex_unlock(&sync->lock);
	return ret;
}

static void end_all(struct inl_bio_list *list, int status)
{
	struct inl_bio *bio;

	while ((bio = inl_bio_list_pop(list)))
		inl_bio_end(bio, status);
}

/* Errors of a durable write that say something of the call, and nothing of data that may be lost. */
static bool of_the_call(int status)
{
	return status == -EFAULT || status == -EFBIG || status == -EINVAL || status == -EPERM || status == -ENOMEM;
}

/* The turn ends, with 0 or the error of the call. After an error that stays nobody needs it any more. */
static void sync_leave(struct inl_file_sync *sync, int status)
{
	struct inl_bio_list sharing, failed = { 0 };
	struct inl_bio *next = NULL;

	pthread_mutex_lock(&sync->lock);
	sharing = sync->sharing;
	sync->sharing = (struct inl_bio_list){ 0 };
	if (status && !of_the_call(status)) {
		sync->err = status;
		failed = sync->waiting;
		sync->waiting = (struct inl_bio_list){ 0 };
	} else {
		next = inl_bio_list_pop(&sync->waiting);
	}
	sync->taken = next;
	if (next)
		*inl_bio_stage(next) = STAGE_TURN;
	pthread_mutex_unlock(&sync->lock);
	/* What waits keeps the device open; once all have ended it may be gone. */
	if (next)
		inl_bio_again(next);
	end_all(&sharing, status);
	end_all(&failed, status);
}

/* ---- the steps of a bio ------------------------------------------------------------------------------------------ */

static void end_with(struct inl_file_io *io, int status)
{
	io->step = INL_FILE_END;
	io->status = status;
}

/* Cut the segments off after len bytes. */
static void trim(struct inl_file_io *io, uint64_t len)
{
	uint64_t left = len;
	unsigned i;

	for (i = 0; left; i++) {
		if (io->iov[i].iov_len > left)
			io->iov[i].iov_len = left;
		left -= io->iov[i].iov_len;
	}
	io->n_iov = i;
	io->len = len;
}

static void zero_segs(struct inl_file_io *io)
{
	static const uint8_t zeros[4096] __attribute__((aligned(MEM_ALIGN_MAX)));
	uint64_t left = io->bio->len - io->at;

	io->n_iov = 0;
	io->len = 0;
	while (io->n_iov < INL_FILE_SEGS && io->len < left) {
		size_t n = left - io->len < sizeof(zeros) ? left - io->len : sizeof(zeros);

		io->iov[io->n_iov++] = (struct iovec){ (void *)(uintptr_t)zeros, n };
		io->len += n;
	}
}

/* The segments of the next call: as much of the rest as it takes, and with direct I/O whole blocks. */
static void transfer_more(struct inl_file_io *io)
{
	uint64_t len;

	if (io->bio->op == INL_ZERO)
		zero_segs(io);
	else
		io->n_iov = inl_bio_iov(io->bio, io->at, io->iov, io->max_iov, &io->len);
	len = io->len < CALL_LEN_MAX ? io->len : CALL_LEN_MAX;
	if (io->file->direct)
		len -= len % io->file->block_size;
	if (len < io->len)
		trim(io, len);
	if (!len)
		end_with(io, -EIO); /* mem_align sees to it that this cannot be */
}

static void transfer(struct inl_file_io *io, enum inl_file_step step, int rwf)
{
	io->step = step;
	io->rwf = rwf;
	transfer_more(io);
}

static void sync_step(struct inl_file_io *io)
{
	int ret = sync_enter(&io->file->sync, io->bio);

	io->has_turn = ret == 1;
	if (ret < 0)
		end_with(io, ret);
	else
		io->step = ret ? INL_FILE_SYNC : INL_FILE_GONE;
}

/*
 * A durable write: with RWF_DSYNC, which asks for less than fdatasync, if it can have the turn at once. Otherwise it
 * writes now, and shares an fdatasync with others.
 */
static void write_durable(struct inl_file_io *io)
{
	int ret = sync_try(&io->file->sync);

	if (ret == 1 && atomic_load(&io->file->no_dsync)) {
		sync_leave(&io->file->sync, 0);
		ret = 0;
	}
	io->has_turn = ret == 1;
	if (ret < 0)
		end_with(io, ret);
	else
		transfer(io, INL_FILE_WRITE, ret ? RWF_DSYNC : 0);
}

static void allocate(struct inl_file_io *io, int mode)
{
	io->step = INL_FILE_ALLOCATE;
	io->mode = mode | FALLOC_FL_KEEP_SIZE;
}

void inl_file_begin(struct inl_file_io *io, struct inl_file *file, struct inl_bio *bio)
{
	io->file = file;
	io->bio = bio;
	io->status = 0;
	io->has_turn = false;
	io->rwf = 0;
	io->n_tries = 0;
	io->at = 0;
	switch (bio->op) {
	case INL_READ:
		transfer(io, INL_FILE_READ, 0);
		break;
	case INL_WRITE:
		if (*inl_bio_stage(bio) == STAGE_TURN) /* it has written, and then waited */
			sync_step(io);
		else if (bio->flags & INL_BIO_FUA)
			write_durable(io);
		else
			transfer(io, INL_FILE_WRITE, 0);
		break;
	case INL_FLUSH:
		sync_step(io);
		break;
	case INL_DISCARD:
		if (file->is_blk)
			io->step = INL_FILE_DISCARD;
		else
			allocate(io, FALLOC_FL_PUNCH_HOLE);
		break;
	case INL_ZERO:
		allocate(io, FALLOC_FL_ZERO_RANGE);
		break;
	}
}

/* All is written. */
static void written(struct inl_file_io *io)
{
	if (io->bio->op != INL_WRITE || !(io->bio->flags & INL_BIO_FUA) || io->rwf)
		end_with(io, 0);
	else
		sync_step(io);
}

static void transferred(struct inl_file_io *io, ssize_t ret)
{
	if (ret == -EOPNOTSUPP && io->rwf) {
		atomic_store(&io->file->no_dsync, true);
		sync_leave(&io->file->sync, 0);
		io->has_turn = false;
		transfer(io, INL_FILE_WRITE, 0);
		return;
	}
	/* A file that ends early, or a kernel that does not keep to whole blocks. */
	if (ret == 0 || (ret > 0 && ((uint64_t)ret > io->len || (io->file->direct && ret % io->file->block_size))))
		ret = -EIO;
	if (ret < 0) {
		end_with(io, (int)ret);
		return;
	}
	io->at += (uint64_t)ret;
	if (io->at < io->bio->len)
		transfer_more(io);
	else if (io->step == INL_FILE_WRITE)
		written(io);
	else
		end_with(io, 0);
}

static void allocated(struct inl_file_io *io, int ret)
{
	/* Not on this file system, or not in such small pieces on this device. */
	if (io->bio->op == INL_ZERO && (ret == -EOPNOTSUPP || ret == -EINVAL || ret == -EINTR))
		transfer(io, INL_FILE_WRITE, 0);
	else if (ret != -EINTR)
		end_with(io, ret);
}

void inl_file_next(struct inl_file_io *io, ssize_t ret)
{
	if (ret == -EAGAIN) {
		if (++io->n_tries > TRIES_MAX)
			end_with(io, -EIO);
		return;
	}
	switch (io->step) {
	case INL_FILE_READ:
	case INL_FILE_WRITE:
		if (ret != -EINTR)
			transferred(io, ret);
		break;
	case INL_FILE_ALLOCATE:
		allocated(io, (int)ret);
		break;
	default:
		if (ret != -EINTR)
			end_with(io, (int)ret);
		break;
	}
}

ssize_t inl_file_call(const struct inl_file_io *io, int rwf)
{
	const struct inl_bio *bio = io->bio;
	off_t pos = (off_t)(bio->state.pos + io->at);
	uint64_t range[2] = { bio->state.pos, bio->len };
	int fd = io->file->fd;
	ssize_t ret;

	if (io->step == INL_FILE_READ)
		ret = preadv2(fd, io->iov, (int)io->n_iov, pos, rwf | io->rwf);
	else if (io->step == INL_FILE_WRITE)
		ret = pwritev2(fd, io->iov, (int)io->n_iov, pos, rwf | io->rwf);
	else if (io->step == INL_FILE_SYNC)
		ret = fdatasync(fd);
	else if (io->step == INL_FILE_ALLOCATE)
		ret = fallocate(fd, io->mode, (off_t)bio->state.pos, (off_t)bio->len);
	else
		ret = ioctl(fd, BLKDISCARD, range);
	return ret < 0 ? -errno : ret;
}

void inl_file_end(const struct inl_file_io *io)
{
	struct inl_file_sync *sync = &io->file->sync;
	struct inl_bio *bio = io->step == INL_FILE_END ? io->bio : NULL;
	int status = io->status;

	if (io->has_turn)
		sync_leave(sync, status);
	if (bio)
		inl_bio_end(bio, status);
}

void inl_file_run(struct inl_file_io *io)
{
	while (io->step > INL_FILE_END)
		inl_file_next(io, inl_file_call(io, 0));
}

static const struct inl_dev_ops ops;

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct inl_file *file = inl_dev_priv(dev);
	void *uring = inl_bio_queue_ctx(bio, &ops);
	struct iovec iov[CALL_SEGS];
	struct inl_file_io io = { .iov = iov, .max_iov = CALL_SEGS };

	if (uring) {
		inl_uring_submit(uring, file, bio);
		return;
	}
	inl_file_begin(&io, file, bio);
	inl_file_run(&io);
	inl_file_end(&io);
}

/* ---- open, close ------------------------------------------------------------------------------------------------- */

static void file_free(struct inl_file *file)
{
	if (!file)
		return;
	if (file->fd >= 0)
		close(file->fd);
	pthread_mutex_destroy(&file->sync.lock);
	free(file);
}

static void close_file(struct inl_dev *dev)
{
	file_free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops = {
	.name = "file",
	.submit = submit,
	.close = close_file,
	.queue_new = inl_uring_new,
	.queue_free = inl_uring_free,
	.queue_flush = inl_uring_flush,
	.queue_reap = inl_uring_reap,
	.queue_fd = inl_uring_fd,
};

static struct inl_file *file_new(void)
{
	struct inl_file *file = calloc(1, sizeof(*file));

	if (file) {
		file->fd = -1;
		file->block_size = BLOCK_SIZE_MIN;
		file->mem_align = 1;
		pthread_mutex_init(&file->sync.lock, NULL);
	}
	return file;
}

static int failed(struct inl_diag *diag, const char *what, const char *path)
{
	int err = errno;

	return inl_diag_set(diag, -err, "cannot %s '%s': %s", what, path, strerror(err));
}

static const char *kind_of(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISFIFO(mode))
		return "a FIFO";
	if (S_ISCHR(mode))
		return "a character device";
	if (S_ISSOCK(mode))
		return "a socket";
	return "of an unknown kind";
}

static int check_kind(const struct stat *st, const char *path, struct inl_diag *diag)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	return inl_diag_set(diag, S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL,
			    "'%s' is %s: expected a regular file or a block device", path, kind_of(st->st_mode));
}

/* Where calls never wait, the fastest is to make them at once; and tmpfs has no RWF_NOWAIT to find that out. */
static bool in_memory(const struct inl_file *file)
{
	struct statfs st;

	return !file->is_blk && !fstatfs(file->fd, &st) && (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC);
}

/* Looks before it opens: opening a FIFO may wait for ever, and opening a character device may do something. */
static int open_fd(struct inl_file *file, const char *path, unsigned flags, struct inl_diag *diag)
{
	int oflags = O_CLOEXEC | (flags & INL_OPEN_WRITE ? O_RDWR : O_RDONLY) | (file->direct ? O_DIRECT : 0);
	struct stat st;
	int err;

	if (stat(path, &st))
		return failed(diag, "open", path);
	err = check_kind(&st, path, diag);
	if (err)
		return err;
	/* Of a block device: not while it is mounted or part of another device. */
	if (S_ISBLK(st.st_mode) && flags & INL_OPEN_WRITE)
		oflags |= O_EXCL;
	/* Looking at an image should leave no trace on it; only its owner may ask for that. */
	file->fd = open(path, oflags | (flags & INL_OPEN_WRITE ? 0 : O_NOATIME));
	if (file->fd < 0 && errno == EPERM)
		file->fd = open(path, oflags);
	if (file->fd < 0 && errno == EINVAL && file->direct)
		return inl_diag_set(diag, -EINVAL, "'%s': its file system has no direct I/O", path);
	if (file->fd < 0 && errno == EBUSY) {
		err = inl_file_in_use(&st, path, diag);
		return err ? err :
			     inl_diag_set(diag, -EBUSY, "'%s' is in use: mounted, or part of another device", path);
	}
	if (file->fd < 0 || fstat(file->fd, &st))
		return failed(diag, "open", path);
	file->is_blk = S_ISBLK(st.st_mode);
	file->in_memory = in_memory(file);
	file->size = (uint64_t)st.st_size;
	return check_kind(&st, path, diag);
}

/*
 * An OFD lock besides the other one: virtual machine monitors know these. One who writes locks all bytes, one who reads
 * the first, so that monitors, whose locks begin at byte 100, may read too.
 */
static int lock_ofd(const struct inl_file *file, bool write)
{
	struct flock range = { .l_type = write ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_len = write ? 0 : 1 };
	int ret;

	do
		ret = fcntl(file->fd, F_OFD_SETLK, &range);
	while (ret && errno == EINTR);
	return ret && (errno == EAGAIN || errno == EACCES) ? -EBUSY : 0;
}

static int lock_flock(const struct inl_file *file, bool write)
{
	int ret;

	do
		ret = flock(file->fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB);
	while (ret && errno == EINTR);
	return ret && errno == EWOULDBLOCK ? -EBUSY : 0;
}

/* There are file systems without locks: other errors than that somebody has it are none. */
static int lock(const struct inl_file *file, const char *path, bool write, struct inl_diag *diag)
{
	int err = lock_flock(file, write);

	if (!err)
		err = lock_ofd(file, write);
	if (err)
		inl_diag_set(diag, err, "'%s' is locked: %s", path,
			     write ? "something else has it open" : "something else writes to it");
	return err;
}

/* Nobody may write below a file system of the kernel, whatever else it is then good for. */
static int check_kernel(const struct inl_file *file, const char *path, bool write, struct inl_diag *diag)
{
	struct stat st;

	if (!write)
		return 0;
	return fstat(file->fd, &st) ? failed(diag, "look at", path) : inl_file_in_use(&st, path, diag);
}

static int find_size(struct inl_file *file, const char *path, struct inl_diag *diag)
{
	if (file->is_blk && ioctl(file->fd, BLKGETSIZE64, &file->size))
		return failed(diag, "find the size of", path);
	if (file->direct && file->size % file->block_size >= BLOCK_SIZE_MIN)
		return inl_diag_set(diag, -EINVAL,
				    "'%s': direct I/O wants multiples of %u bytes here, and its size is none: open it without "
				    "'direct'", path, file->block_size);
	if (file->size < file->block_size)
		return inl_diag_set(diag, -EINVAL, "'%s' is too small: %llu bytes, less than one block of %u", path,
				    (unsigned long long)file->size, file->block_size);
	return 0;
}

/* Images of disks with 4 KiB sectors cannot be told from others: a file has sectors of 512 bytes. */
static uint32_t sector_size(const struct inl_file *file)
{
	int sector;

	return file->is_blk && !ioctl(file->fd, BLKSSZGET, &sector) && sector > 0 ? (uint32_t)sector : BLOCK_SIZE_MIN;
}

/* What direct I/O wants of offsets and memory: asked of the kernel (6.1), of the block device, or assumed. */
static void ask_alignment(const struct inl_file *file, uint32_t *offset_align, uint32_t *mem_align)
{
	*offset_align = *mem_align = ALIGN_DEFAULT;
	if (file->is_blk)
		*offset_align = *mem_align = sector_size(file);
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (!statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) && stx.stx_mask & STATX_DIOALIGN) {
		*offset_align = stx.stx_dio_offset_align;
		*mem_align = stx.stx_dio_mem_align;
	}
#endif
}

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int set_up_direct(struct inl_file *file, const char *path, struct inl_diag *diag)
{
	uint32_t offset_align, mem_align;

	ask_alignment(file, &offset_align, &mem_align);
	if (!offset_align || !mem_align)
		return inl_diag_set(diag, -EINVAL, "'%s': its file system has no direct I/O", path);
	if (!power_of_two(offset_align) || offset_align > BLOCK_SIZE_MAX || !power_of_two(mem_align) ||
	    mem_align > MEM_ALIGN_MAX)
		return inl_diag_set(diag, -EINVAL, "'%s': direct I/O wants alignments of %u (offset) and %u (memory)",
				    path, offset_align, mem_align);
	file->block_size = offset_align > BLOCK_SIZE_MIN ? offset_align : BLOCK_SIZE_MIN;
	/* So that the segments of one call hold a block at least. */
	file->mem_align = mem_align > file->block_size / INL_FILE_SEGS ? mem_align : file->block_size / INL_FILE_SEGS;
	return 0;
}

static int file_open(struct inl_file *file, const char *path, unsigned flags, struct inl_diag *diag)
{
	int err = open_fd(file, path, flags, diag);

	if (!err)
		err = lock(file, path, flags & INL_OPEN_WRITE, diag);
	if (!err)
		err = check_kernel(file, path, flags & INL_OPEN_WRITE, diag);
	if (!err && file->direct)
		err = set_up_direct(file, path, diag);
	return err ? err : find_size(file, path, diag);
}

int inl_file_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	const char *path = inl_spec_arg(spec, "path")->text;
	struct inl_dev_params params = { .writable = flags & INL_OPEN_WRITE, .label = path };
	struct inl_file *file = file_new();
	int err;

	if (!file)
		return inl_diag_set(diag, -ENOMEM, "out of memory");
	file->direct = inl_spec_arg(spec, "direct");
	err = file_open(file, path, flags, diag);
	if (err)
		goto fail;
	params.size = file->size;
	params.block_size = file->block_size;
	params.sector_size = sector_size(file);
	params.mem_align = file->mem_align;
	err = inl_dev_new(&ops, file, &params, out);
	if (err) {
		inl_diag_set(diag, err, "'%s': cannot make the device", path);
		goto fail;
	}
	return 0;
fail:
	file_free(file);
	return err;
}
