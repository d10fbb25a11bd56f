/*
 * tests/mount/fsx_file.c: one change, made to a file and to the copy of it; and the looks that compare the two.
 * Not here: when which is done (fsx_ops.c).
 * Read more: the manual pages of the calls, and mmap(2) for what is behind the end of a file in its last page.
 */
#include "tests/mount/fsx.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *name_of(const struct fx_file *f)
{
	const char *slash = strrchr(f->path, '/');

	return slash ? slash + 1 : f->path;
}

static unsigned number_of(const struct fx_file *f)
{
	return (unsigned)(f - fx.files);
}

static off_t at(uint64_t offset)
{
	return (off_t)(fx.base + offset);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static void hex(char out[64], const uint8_t *data, size_t len)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < len && i < 16; i++)
		n += (size_t)snprintf(out + n, 64 - n, "%02x ", data[i]);
}

/* The bytes from `offset` on are those of the copy, which is zero behind the end. */
static void compare(struct fx_file *f, uint64_t offset, const uint8_t *got, size_t len, const char *by)
{
	const uint8_t *want = f->want + offset;
	size_t first = 0, last = len, n = 0;
	char wanted[64], was[64];

	if (!len || !memcmp(want, got, len))
		return;
	while (want[first] == got[first])
		first++;
	while (want[last - 1] == got[last - 1])
		last--;
	for (size_t i = first; i < last; i++)
		n += want[i] != got[i];
	hex(wanted, want + first, len - first);
	hex(was, got + first, len - first);
	fx_fail("%s of file %u (%s, size 0x%llx) at 0x%llx, 0x%zx bytes: wrong from 0x%llx to 0x%llx, %zu bytes\n"
		"  wanted %s\n  got    %s",
		by, number_of(f), name_of(f), (unsigned long long)f->size, (unsigned long long)offset, len,
		(unsigned long long)(offset + first), (unsigned long long)(offset + last - 1), n, wanted, was);
}

void fx_check_size(struct fx_file *f)
{
	struct stat st;

	if (fstat(f->fd, &st))
		fx_fail_errno("fstat");
	if ((uint64_t)st.st_size != fx.base + f->size)
		fx_fail("fstat of file %u: size 0x%llx, wanted 0x%llx", number_of(f),
			(unsigned long long)st.st_size - fx.base, (unsigned long long)f->size);
	if (st.st_nlink != f->linked)
		fx_fail("fstat of file %u: %u links, wanted %u", number_of(f), (unsigned)st.st_nlink, f->linked);
	if (f->linked && FX_PATIENTLY(stat(f->path, &st)))
		fx_fail_errno("stat");
	if ((uint64_t)st.st_size != fx.base + f->size)
		fx_fail("stat of file %u: size 0x%llx, wanted 0x%llx", number_of(f),
			(unsigned long long)st.st_size - fx.base, (unsigned long long)f->size);
}

static void expect(ssize_t got, size_t wanted, const char *call)
{
	if (got < 0)
		fx_fail_errno(call);
	if ((size_t)got != wanted)
		fx_fail("%s: 0x%zx bytes, wanted 0x%zx", call, (size_t)got, wanted);
}

bool fx_again(unsigned *tries)
{
	if (!fx.patient || (errno != ENOKEY && errno != ENOENT) || ++*tries > 30000)
		return false;
	usleep(1000);
	return true;
}

/* ---- opening, closing -------------------------------------------------------------------------------------------- */

static void open_all(struct fx_file *f, int flags)
{
	f->fd = FX_PATIENTLY(open(f->path, O_RDWR | flags, 0644));
	if (f->fd < 0)
		fx_fail_errno("open");
	f->append_fd = FX_PATIENTLY(open(f->path, O_WRONLY | O_APPEND));
	if (f->append_fd < 0)
		fx_fail_errno("open with O_APPEND");
	f->direct_fd = fx.direct ? FX_PATIENTLY(open(f->path, O_RDWR | O_DIRECT)) : -1;
	if (f->direct_fd < 0 && fx.direct && !fx.lenient)
		fx_fail_errno("open with O_DIRECT");
	f->linked = true;
}

static void start_empty(struct fx_file *f)
{
	memset(f->want, 0, fx.max + FX_PAGE);
	f->size = 0;
	if (fx.base && ftruncate(f->fd, at(0)))
		fx_fail_errno("ftruncate");
}

void fx_create(struct fx_file *f)
{
	open_all(f, O_CREAT | O_TRUNC);
	start_empty(f);
}

void fx_close(struct fx_file *f)
{
	fx_unmap(f);
	if (close(f->fd) || close(f->append_fd) || (f->direct_fd >= 0 && close(f->direct_fd)))
		fx_fail_errno("close");
}

void fx_reopen(struct fx_file *f, bool truncate)
{
	if (!f->linked) {
		fx_verify(f);
		fx_close(f);
		open_all(f, O_CREAT | O_EXCL);
		start_empty(f);
		return;
	}
	fx_close(f);
	open_all(f, truncate ? O_TRUNC : 0);
	if (truncate)
		start_empty(f);
	fx_check_size(f);
}

/* ---- read and write ---------------------------------------------------------------------------------------------- */

/* Three parts, the middle one of a page where there is so much. */
static int split(struct iovec iov[3], uint8_t *buf, size_t len)
{
	size_t first = len / 3, second = len > 3 * FX_PAGE ? FX_PAGE : (len - first) / 2;

	iov[0] = (struct iovec){ buf, first };
	iov[1] = (struct iovec){ buf + first, second };
	iov[2] = (struct iovec){ buf + first + second, len - first - second };
	return 3;
}

static void fill(uint8_t *buf, size_t len)
{
	uint64_t word = fx_rng64();

	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			word = word * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
		buf[i] = (uint8_t)(word >> (8 * (i % 8)));
	}
}

static void copy_in(struct fx_file *f, uint64_t offset, const uint8_t *data, size_t len)
{
	memcpy(f->want + offset, data, len);
	if (len && offset + len > f->size)
		f->size = offset + len;
}

void fx_write(struct fx_file *f, uint64_t offset, size_t len, enum fx_write_how how)
{
	static const char *const calls[] = { "pwrite", "pwritev", "write with O_APPEND", "pwrite with O_DIRECT" };
	struct iovec iov[3];
	ssize_t got;

	if (how == FX_APPEND)
		offset = f->size;
	fx_say("%s file %u at 0x%llx, 0x%zx bytes", calls[how], number_of(f), (unsigned long long)offset, len);
	fill(fx.buf, len);
	if (how == FX_PWRITEV)
		got = pwritev(f->fd, iov, split(iov, fx.buf, len), at(offset));
	else if (how == FX_APPEND)
		got = write(f->append_fd, fx.buf, len);
	else
		got = pwrite(how == FX_DIRECT ? f->direct_fd : f->fd, fx.buf, len, at(offset));
	expect(got, len, calls[how]);
	copy_in(f, offset, fx.buf, len);
}

void fx_read(struct fx_file *f, uint64_t offset, size_t len, enum fx_read_how how)
{
	static const char *const calls[] = { "pread", "preadv", "pread with O_DIRECT" };
	size_t wanted = offset >= f->size ? 0 : f->size - offset < len ? (size_t)(f->size - offset) : len;
	struct iovec iov[3];
	ssize_t got;

	fx_say("%s file %u at 0x%llx, 0x%zx bytes", calls[how], number_of(f), (unsigned long long)offset, len);
	memset(fx.buf, 0xa5, len);
	if (how == FX_PREADV)
		got = preadv(f->fd, iov, split(iov, fx.buf, len), at(offset));
	else
		got = pread(how == FX_READ_DIRECT ? f->direct_fd : f->fd, fx.buf, len, at(offset));
	expect(got, wanted, calls[how]);
	compare(f, offset, fx.buf, wanted, calls[how]);
}

/* All of it, and that there is no more. */
void fx_verify(struct fx_file *f)
{
	ssize_t got = pread(f->fd, fx.buf2, fx.max + FX_PAGE, at(0));

	if (got < 0)
		fx_fail_errno("pread of all");
	compare(f, 0, fx.buf2, (size_t)got < f->size ? (size_t)got : f->size, "pread of all");
	expect(got, f->size, "pread of all");
}

/* ---- size and space ---------------------------------------------------------------------------------------------- */

void fx_truncate(struct fx_file *f, uint64_t size, bool by_path)
{
	by_path = by_path && f->linked;
	fx_say("%s file %u from 0x%llx to 0x%llx", by_path ? "truncate" : "ftruncate", number_of(f),
	       (unsigned long long)f->size, (unsigned long long)size);
	if (by_path ? FX_PATIENTLY(truncate(f->path, at(size))) : ftruncate(f->fd, at(size)))
		fx_fail_errno("truncate");
	if (size < f->size)
		memset(f->want + size, 0, f->size - size);
	f->size = size;
}

static const char *mode_name(int mode)
{
	switch (mode) {
	case 0: return "";
	case FALLOC_FL_KEEP_SIZE: return "KEEP_SIZE ";
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: return "PUNCH_HOLE ";
	case FALLOC_FL_ZERO_RANGE: return "ZERO_RANGE ";
	default: return "ZERO_RANGE KEEP_SIZE ";
	}
}

void fx_fallocate(struct fx_file *f, int mode, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;

	fx_say("fallocate %sfile %u at 0x%llx, 0x%llx bytes", mode_name(mode), number_of(f), (unsigned long long)offset,
	       (unsigned long long)len);
	if (fallocate(f->fd, mode, at(offset), (off_t)len)) {
		if (errno != EOPNOTSUPP || !fx.lenient)
			fx_fail_errno("fallocate");
		fx_add(": not supported");
		return;
	}
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && offset < f->size)
		memset(f->want + offset, 0, (end < f->size ? end : f->size) - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > f->size)
		f->size = end;
}

/* Fewer bytes than asked for are a good answer, none are not where there is something to copy. */
void fx_copy(struct fx_file *from, uint64_t offset, struct fx_file *to, uint64_t to_offset, size_t len)
{
	size_t there = offset >= from->size ? 0 : from->size - offset < len ? (size_t)(from->size - offset) : len;
	off_t in = at(offset), out = at(to_offset);
	ssize_t got;

	fx_say("copy_file_range file %u at 0x%llx to file %u at 0x%llx, 0x%zx bytes", number_of(from),
	       (unsigned long long)offset, number_of(to), (unsigned long long)to_offset, len);
	got = copy_file_range(from->fd, &in, to->fd, &out, len, 0);
	if (got < 0)
		fx_fail_errno("copy_file_range");
	fx_add(" = 0x%zx", (size_t)got);
	if ((size_t)got > there || (there && !got) || in != at(offset) + got || out != at(to_offset) + got)
		fx_fail("copy_file_range: 0x%zx bytes (wanted 0x%zx), offsets then 0x%llx and 0x%llx", (size_t)got,
			there, (unsigned long long)in - fx.base, (unsigned long long)out - fx.base);
	memcpy(fx.buf, from->want + offset, (size_t)got);
	copy_in(to, to_offset, fx.buf, (size_t)got);
}

/* ---- mappings ---------------------------------------------------------------------------------------------------- */

void fx_map(struct fx_file *f)
{
	if (f->map)
		return;
	fx_say("mmap file %u, to stay", number_of(f));
	f->map = mmap(NULL, fx.max, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, at(0));
	if (f->map == MAP_FAILED)
		fx_fail_errno("mmap");
}

void fx_unmap(struct fx_file *f)
{
	if (f->map && munmap(f->map, fx.max))
		fx_fail_errno("munmap");
	f->map = NULL;
}

/* A mapping of the pages of a range; bytes from its start to that of the range in *skip. */
static uint8_t *map_range(struct fx_file *f, uint64_t offset, size_t len, int prot, int flags, size_t *skip)
{
	uint8_t *map;

	*skip = offset % FX_PAGE;
	map = mmap(NULL, *skip + len, prot, flags, f->fd, at(offset - *skip));
	if (map == MAP_FAILED)
		fx_fail_errno("mmap");
	return map;
}

/* Where the range reaches the end of the file: and the rest of the last page, which is zero. */
static size_t with_rest(const struct fx_file *f, uint64_t offset, size_t len)
{
	return offset + len == f->size ? len + (FX_PAGE - f->size % FX_PAGE) % FX_PAGE : len;
}

void fx_map_read(struct fx_file *f, uint64_t offset, size_t len)
{
	size_t skip, all = with_rest(f, offset, len);
	uint8_t *map;

	fx_say("read %s mapping of file %u at 0x%llx, 0x%zx bytes", f->map ? "the old" : "a new", number_of(f),
	       (unsigned long long)offset, len);
	if (f->map) {
		compare(f, offset, f->map + offset, all, "mapped read");
		return;
	}
	map = map_range(f, offset, all, PROT_READ, MAP_SHARED, &skip);
	compare(f, offset, map + skip, all, "mapped read");
	if (munmap(map, skip + all))
		fx_fail_errno("munmap");
}

void fx_map_write(struct fx_file *f, uint64_t offset, size_t len, int msync_flags)
{
	bool keep = f->map != NULL;
	size_t skip = offset % FX_PAGE;
	uint8_t *map =
		keep ? f->map + (offset - skip) : map_range(f, offset, len, PROT_READ | PROT_WRITE, MAP_SHARED, &skip);

	fx_say("write %s mapping of file %u at 0x%llx, 0x%zx bytes%s", keep ? "the old" : "a new", number_of(f),
	       (unsigned long long)offset, len, msync_flags ? ", msync" : "");
	fill(map + skip, len);
	memcpy(fx.buf, map + skip, len);
	copy_in(f, offset, fx.buf, len);
	if (msync_flags && msync(map, skip + len, msync_flags))
		fx_fail_errno("msync");
	if (!keep && munmap(map, skip + len))
		fx_fail_errno("munmap");
}

void fx_map_private(struct fx_file *f, uint64_t offset, size_t len)
{
	size_t skip;
	uint8_t *map = map_range(f, offset, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, &skip);

	fx_say("write a private mapping of file %u at 0x%llx, 0x%zx bytes", number_of(f), (unsigned long long)offset,
	       len);
	compare(f, offset, map + skip, len, "private mapping");
	memset(map + skip, 0x5a, len);
	if (pread(f->fd, fx.buf, len, at(offset)) != (ssize_t)len)
		fx_fail_errno("pread");
	compare(f, offset, fx.buf, len, "pread beside a private mapping");
	if (munmap(map, skip + len))
		fx_fail_errno("munmap");
}

/* ---- caches ------------------------------------------------------------------------------------------------------ */

static void drop_caches(const char *what)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0)
		fx_fail_errno("/proc/sys/vm/drop_caches");
	if (write(fd, what, 1) != 1)
		fx_fail_errno("/proc/sys/vm/drop_caches");
	close(fd);
}

void fx_evict(struct fx_file *f)
{
	bool drop = fx.drop && !fx_rng(16);

	fx_say("evict file %u%s", number_of(f), drop ? ", drop caches" : "");
	if (fdatasync(f->fd))
		fx_fail_errno("fdatasync");
	if (posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED))
		fx_fail_errno("posix_fadvise");
	if (drop)
		drop_caches(fx_rng(2) ? "1" : "3");
}

/* ---- holes ------------------------------------------------------------------------------------------------------- */

static void check_hole(struct fx_file *f, uint64_t start, uint64_t end)
{
	for (uint64_t i = start; i < end; i++) {
		if (f->want[i])
			fx_fail("file %u: 0x%llx to 0x%llx is said to be a hole, but there is data at 0x%llx",
				number_of(f), (unsigned long long)start, (unsigned long long)end,
				(unsigned long long)i);
	}
}

/* Offset of the next one from `from` on; the size of the file where there is no more data. */
static uint64_t seek(struct fx_file *f, uint64_t from, int whence)
{
	off_t got = lseek(f->fd, at(from), whence);

	if (got < 0 && errno == ENXIO && (whence == SEEK_DATA || from == f->size))
		return f->size;
	if (got < 0)
		fx_fail_errno(whence == SEEK_DATA ? "SEEK_DATA" : "SEEK_HOLE");
	if (got < at(from) || got > at(f->size))
		fx_fail("file %u, size 0x%llx: %s from 0x%llx is 0x%llx", number_of(f), (unsigned long long)f->size,
			whence == SEEK_DATA ? "SEEK_DATA" : "SEEK_HOLE", (unsigned long long)from,
			(unsigned long long)got - fx.base);
	return (uint64_t)got - fx.base;
}

static void no_seek_behind(struct fx_file *f)
{
	if (lseek(f->fd, at(f->size), SEEK_DATA) >= 0 || errno != ENXIO)
		fx_fail("file %u: SEEK_DATA at the end does not say ENXIO", number_of(f));
	if (lseek(f->fd, at(f->size), SEEK_HOLE) >= 0 || errno != ENXIO)
		fx_fail("file %u: SEEK_HOLE at the end does not say ENXIO", number_of(f));
}

/*
 * Answers from within a piece: what they take for a hole is one. They need not be those from its start: a range that is
 * allocated and was never written counts as data for as long as it is cached.
 */
static void seek_from_within(struct fx_file *f, uint64_t start, uint64_t end)
{
	uint64_t middle = start + fx_rng(end - start), hole = seek(f, middle, SEEK_HOLE);

	check_hole(f, middle, seek(f, middle, SEEK_DATA));
	check_hole(f, hole, seek(f, hole, SEEK_DATA));
}

void fx_seek(struct fx_file *f)
{
	uint64_t hole = 0, data;
	unsigned n = 0;

	fx_say("seek data and holes of file %u", number_of(f));
	while (hole < f->size) {
		data = seek(f, hole, SEEK_DATA);
		check_hole(f, hole, data);
		if (data > hole)
			seek_from_within(f, hole, data);
		if (data == f->size)
			break;
		hole = seek(f, data, SEEK_HOLE);
		check_hole(f, hole, hole + (hole < f->size));
		if (hole > data)
			seek_from_within(f, data, hole);
		if (n++ > fx.max)
			fx_fail("file %u: data and holes do not end", number_of(f));
	}
	no_seek_behind(f);
	fx_add(": %u pieces", n);
}
