/*
 * drivers/file.c: a regular file or a block device, read and written when the bio is submitted.
 * Not here: asynchronous I/O (transfer() is where it would go); what the bytes mean.
 * Read more: preadv2(2), statx(2), fallocate(2), flock(2); inlay/driver.h.
 *
 * Locks, in the order they are taken: sync_lock, bounce_lock.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK_SIZE_MIN 512u
#define BLOCK_SIZE_MAX 65536u
#define ALIGN_DEFAULT  4096u /* of O_DIRECT where the kernel does not say */
#define MEM_ALIGN_MAX  4096u
#define BOUNCE_LEN     (256u << 10) /* bytes; a multiple of every block size */
#define ZERO_SEGS      64

struct file {
	int fd;
	bool is_blk;
	bool direct;
	uint32_t block_size; /* bytes */
	uint32_t mem_align;  /* bytes: what O_DIRECT wants of memory; 1: anything */
	uint64_t size;       /* bytes */
	uint8_t *bounce;     /* bounce_lock; BOUNCE_LEN bytes, or NULL */
	int sync_err;        /* sync_lock; the first error of making something durable, for good */
	bool no_dsync;       /* sync_lock; RWF_DSYNC does not work here */
	pthread_mutex_t bounce_lock;
	pthread_mutex_t sync_lock;
};

/* ---- reading and writing ----------------------------------------------------------------------------------------- */

/* A place in a list of segments. */
struct cursor {
	const struct iovec *seg;
	unsigned n_segs;
	size_t skip; /* bytes of *seg that are done */
};

static void advance(struct cursor *cur, size_t n)
{
	cur->skip += n;
	while (cur->n_segs && cur->skip >= cur->seg->iov_len) {
		cur->skip -= cur->seg->iov_len;
		cur->seg++;
		cur->n_segs--;
	}
}

/* One system call: the rest of a segment that was cut in two, or as many whole ones as it takes. */
static ssize_t transfer_some(struct file *file, enum inl_op op, const struct cursor *cur, uint64_t pos, int rwf)
{
	struct iovec rest = { (uint8_t *)cur->seg->iov_base + cur->skip, cur->seg->iov_len - cur->skip };
	const struct iovec *segs = cur->skip ? &rest : cur->seg;
	int n = cur->skip ? 1 : cur->n_segs < IOV_MAX ? (int)cur->n_segs : IOV_MAX;

	if (op == INL_READ)
		return preadv2(file->fd, segs, n, (off_t)pos, rwf);
	return pwritev2(file->fd, segs, n, (off_t)pos, rwf);
}

/*
 * Move len bytes between segments and the file, all of them. The one place that does I/O.
 *
 *   rwf    RWF_* flags
 *
 * Returns: 0 or -errno; -EIO where the file ends early.
 */
static int transfer(struct file *file, enum inl_op op, const struct iovec *segs, unsigned n_segs, uint64_t pos,
		    uint64_t len, int rwf)
{
	struct cursor cur = { segs, n_segs, 0 };
	ssize_t n;

	advance(&cur, 0);
	while (len) {
		n = transfer_some(file, op, &cur, pos, rwf);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || (file->direct && (size_t)n % file->block_size))
			return -EIO;
		pos += (size_t)n;
		len -= (size_t)n;
		advance(&cur, (size_t)n);
	}
	return 0;
}

/* Does the device refuse this memory? */
static bool misaligned(const struct file *file, const struct inl_bio *bio)
{
	uintptr_t bits = 0;

	if (file->mem_align == 1)
		return false;
	for (unsigned i = 0; i < bio->n_segs; i++)
		bits |= (uintptr_t)bio->segs[i].iov_base | bio->segs[i].iov_len;
	return bits & (file->mem_align - 1);
}

/* Through the aligned buffer, a piece at a time. */
static int transfer_bounced(struct file *file, struct inl_bio *bio, int rwf)
{
	int err = 0;

	pthread_mutex_lock(&file->bounce_lock);
	for (uint64_t at = 0; at < bio->len && !err;) {
		size_t n = bio->len - at < BOUNCE_LEN ? bio->len - at : BOUNCE_LEN;
		struct iovec seg = { file->bounce, n };

		if (bio->op == INL_WRITE)
			inl_bio_copy_out(bio, at, file->bounce, n);
		err = transfer(file, bio->op, &seg, 1, bio->state.pos + at, n, rwf);
		if (!err && bio->op == INL_READ)
			inl_bio_copy_in(bio, at, file->bounce, n);
		at += n;
	}
	pthread_mutex_unlock(&file->bounce_lock);
	return err;
}

static int transfer_bio(struct file *file, struct inl_bio *bio, int rwf)
{
	if (misaligned(file, bio))
		return transfer_bounced(file, bio, rwf);
	return transfer(file, bio->op, bio->segs, bio->n_segs, bio->state.pos, bio->len, rwf);
}

/* ---- durability -------------------------------------------------------------------------------------------------- */

/*
 * The kernel reports that it lost written data to one call only, and a flush that is tried again then succeeds over the
 * loss. So the first error is kept, and everything that may receive it runs one at a time.
 */
static int sync_locked(struct file *file)
{
	int err;

	do
		err = fdatasync(file->fd) ? -errno : 0;
	while (err == -EINTR);
	return err;
}

static int flush(struct file *file)
{
	int err;

	pthread_mutex_lock(&file->sync_lock);
	if (!file->sync_err)
		file->sync_err = sync_locked(file);
	err = file->sync_err;
	pthread_mutex_unlock(&file->sync_lock);
	return err;
}

static int write_durable_locked(struct file *file, struct inl_bio *bio)
{
	int err;

	if (!file->no_dsync) {
		err = transfer_bio(file, bio, RWF_DSYNC);
		if (err != -EOPNOTSUPP)
			return err;
		file->no_dsync = true;
	}
	err = transfer_bio(file, bio, 0);
	return err ? err : sync_locked(file);
}

static int write_durable(struct file *file, struct inl_bio *bio)
{
	int err;

	pthread_mutex_lock(&file->sync_lock);
	if (!file->sync_err)
		file->sync_err = write_durable_locked(file, bio);
	err = file->sync_err;
	pthread_mutex_unlock(&file->sync_lock);
	return err;
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static int discard(struct file *file, uint64_t pos, uint64_t len)
{
	uint64_t range[2] = { pos, len };
	int ret;

	do {
		if (file->is_blk)
			ret = ioctl(file->fd, BLKDISCARD, range);
		else
			ret = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)pos, (off_t)len);
	} while (ret && errno == EINTR);
	return ret ? -errno : 0;
}

static int write_zeros(struct file *file, uint64_t pos, uint64_t len)
{
	static const uint8_t zeros[4096] __attribute__((aligned(MEM_ALIGN_MAX)));
	struct iovec segs[ZERO_SEGS];
	uint64_t max = sizeof(zeros) * ZERO_SEGS;
	int err = 0;

	for (unsigned i = 0; i < ZERO_SEGS; i++)
		segs[i] = (struct iovec){ (void *)(uintptr_t)zeros, sizeof(zeros) };
	while (len && !err) {
		uint64_t n = len < max ? len : max;
		unsigned n_segs = (unsigned)((n + sizeof(zeros) - 1) / sizeof(zeros));

		segs[n_segs - 1].iov_len = n - (n_segs - 1) * sizeof(zeros);
		err = transfer(file, INL_WRITE, segs, n_segs, pos, n, 0);
		pos += n;
		len -= n;
	}
	return err;
}

static int zero(struct file *file, uint64_t pos, uint64_t len)
{
	if (!fallocate(file->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)pos, (off_t)len))
		return 0;
	/* Not on this file system, or not in such small pieces on this device. */
	if (errno == EOPNOTSUPP || errno == EINVAL || errno == EINTR)
		return write_zeros(file, pos, len);
	return -errno;
}

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct file *file = inl_dev_priv(dev);
	int err = 0;

	switch (bio->op) {
	case INL_READ:
		err = transfer_bio(file, bio, 0);
		break;
	case INL_WRITE:
		err = bio->flags & INL_BIO_FUA ? write_durable(file, bio) : transfer_bio(file, bio, 0);
		break;
	case INL_FLUSH:
		err = flush(file);
		break;
	case INL_DISCARD:
		err = discard(file, bio->state.pos, bio->len);
		break;
	case INL_ZERO:
		err = zero(file, bio->state.pos, bio->len);
		break;
	}
	inl_bio_end(bio, err);
}

/* ---- open, close ------------------------------------------------------------------------------------------------- */

static void file_free(struct file *file)
{
	if (!file)
		return;
	if (file->bounce)
		munmap(file->bounce, BOUNCE_LEN);
	if (file->fd >= 0)
		close(file->fd);
	pthread_mutex_destroy(&file->bounce_lock);
	pthread_mutex_destroy(&file->sync_lock);
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
};

static struct file *file_new(void)
{
	struct file *file = calloc(1, sizeof(*file));

	if (file) {
		file->fd = -1;
		file->block_size = BLOCK_SIZE_MIN;
		file->mem_align = 1;
		pthread_mutex_init(&file->bounce_lock, NULL);
		pthread_mutex_init(&file->sync_lock, NULL);
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

/* Looks before it opens: opening a FIFO may wait for ever, and opening a character device may do something. */
static int open_fd(struct file *file, const char *path, unsigned flags, struct inl_diag *diag)
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
	if (file->fd < 0 && errno == EBUSY)
		return inl_diag_set(diag, -EBUSY, "'%s' is in use: mounted, or part of another device", path);
	if (file->fd < 0 || fstat(file->fd, &st))
		return failed(diag, "open", path);
	file->is_blk = S_ISBLK(st.st_mode);
	file->size = (uint64_t)st.st_size;
	return check_kind(&st, path, diag);
}

static int lock(struct file *file, const char *path, unsigned flags, struct inl_diag *diag)
{
	int ret;

	do
		ret = flock(file->fd, (flags & INL_OPEN_WRITE ? LOCK_EX : LOCK_SH) | LOCK_NB);
	while (ret && errno == EINTR);
	if (ret && errno == EWOULDBLOCK)
		return inl_diag_set(diag, -EBUSY, "'%s' is locked: %s", path,
				    flags & INL_OPEN_WRITE ? "something else has it open"
							   : "something else writes to it");
	return 0; /* there are file systems without locks */
}

static int find_size(struct file *file, const char *path, struct inl_diag *diag)
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
static uint32_t sector_size(const struct file *file)
{
	int sector;

	return file->is_blk && !ioctl(file->fd, BLKSSZGET, &sector) && sector > 0 ? (uint32_t)sector : BLOCK_SIZE_MIN;
}

/* What direct I/O wants of offsets and memory: asked of the kernel (6.1), of the block device, or assumed. */
static void ask_alignment(const struct file *file, uint32_t *offset_align, uint32_t *mem_align)
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

static int set_up_direct(struct file *file, const char *path, struct inl_diag *diag)
{
	uint32_t offset_align, mem_align;
	void *bounce;

	ask_alignment(file, &offset_align, &mem_align);
	if (!offset_align || !mem_align)
		return inl_diag_set(diag, -EINVAL, "'%s': its file system has no direct I/O", path);
	if (!power_of_two(offset_align) || offset_align > BLOCK_SIZE_MAX || !power_of_two(mem_align) ||
	    mem_align > MEM_ALIGN_MAX)
		return inl_diag_set(diag, -EINVAL, "'%s': direct I/O wants alignments of %u (offset) and %u (memory)",
				    path, offset_align, mem_align);
	file->block_size = offset_align > BLOCK_SIZE_MIN ? offset_align : BLOCK_SIZE_MIN;
	file->mem_align = mem_align;
	bounce = mmap(NULL, BOUNCE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bounce == MAP_FAILED)
		return inl_diag_set(diag, -ENOMEM, "'%s': no memory for a bounce buffer", path);
	file->bounce = bounce;
	return 0;
}

static int file_open(struct file *file, const char *path, unsigned flags, struct inl_diag *diag)
{
	int err = open_fd(file, path, flags, diag);

	if (!err)
		err = lock(file, path, flags, diag);
	if (!err && file->direct)
		err = set_up_direct(file, path, diag);
	return err ? err : find_size(file, path, diag);
}

int inl_file_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	const char *path = inl_spec_arg(spec, "path")->text;
	struct inl_dev_params params = { .writable = flags & INL_OPEN_WRITE, .label = path };
	struct file *file = file_new();
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
