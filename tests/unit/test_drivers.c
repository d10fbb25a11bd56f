/*
 * tests/unit/test_drivers.c: the SPEC language and every driver, with faults put between them and the system.
 * Not here: the block layer itself (test_block.c); running it with many threads (test_threads.c).
 * Read more: drivers/drivers.h.
 *
 * Oracles: sfdisk and the kernel's own partition scan for partition tables, pread of the backing file for what was
 * written, the fallback for the engine. Those that this machine lacks are skipped, with the reason.
 */
#include "base/crc.h"
#include "base/endian.h"
#include "drivers/drivers.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB 1024u
#define MIB (1024u * KIB)

/* ---- faults: these stand before the C library's functions for the whole program ---------------------------------- */

static struct {
	size_t short_by;     /* transfers move at most this many bytes; 0: all */
	unsigned interrupts; /* this many calls fail with EINTR first */
	int transfer_errno;  /* transfers fail */
	int dsync_errno;     /* transfers with RWF_DSYNC fail */
	int sync_errno;      /* the next fdatasync fails */
	int fallocate_errno; /* every fallocate fails */
	int flock_errno;     /* every flock fails */
	bool odd_result;     /* transfers claim to have moved 100 bytes */
	bool no_statx;       /* every statx fails */
	unsigned n_transfers, n_syncs, n_dsyncs;
} fault;

static ssize_t transfer(long call, int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	struct iovec part;

	fault.n_transfers++;
	fault.n_dsyncs += flags != 0;
	if (fault.interrupts) {
		fault.interrupts--;
		errno = EINTR;
		return -1;
	}
	errno = flags && fault.dsync_errno ? fault.dsync_errno : fault.transfer_errno;
	if (errno)
		return -1;
	if (fault.short_by) {
		part = iov[0];
		if (part.iov_len > fault.short_by)
			part.iov_len = fault.short_by;
		iov = &part;
		n = 1;
	}
	if (fault.odd_result)
		return 100;
	return syscall(call, fd, iov, n, (long)pos, (long)((uint64_t)pos >> 32), flags);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	return transfer(SYS_preadv2, fd, iov, n, pos, flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	return transfer(SYS_pwritev2, fd, iov, n, pos, flags);
}

int fdatasync(int fd)
{
	int err = fault.sync_errno;

	fault.n_syncs++;
	fault.sync_errno = 0;
	if (err) {
		errno = err;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (fault.fallocate_errno) {
		errno = fault.fallocate_errno;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int flock(int fd, int operation)
{
	if (fault.flock_errno) {
		errno = fault.flock_errno;
		return -1;
	}
	return (int)syscall(SYS_flock, fd, operation);
}

int statx(int fd, const char *path, int flags, unsigned mask, struct statx *stx)
{
	if (fault.no_statx) {
		errno = ENOSYS;
		return -1;
	}
	return (int)syscall(SYS_statx, fd, path, flags, mask, stx);
}

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static char dir[64]; /* for everything that the tests make */

static const char *path_of(const char *name)
{
	static char path[4][128];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static const char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *format(const char *fmt, ...)
{
	static char text[4][512];
	static unsigned turn;
	char *p = text[turn++ % 4];
	va_list args;

	va_start(args, fmt);
	vsnprintf(p, sizeof(text[0]), fmt, args);
	va_end(args);
	return p;
}

static int make_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	if (bytes)
		assert_int_equal(pwrite(fd, bytes, len, 0), len);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

static void fill(uint8_t *bytes, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(seed >> 24);
	}
}

static uint8_t *pattern(size_t len, uint32_t seed)
{
	uint8_t *bytes = malloc(len);

	assert_non_null(bytes);
	fill(bytes, len, seed);
	return bytes;
}

static struct inl_dev *open_dev(const char *spec, unsigned flags)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = NULL;
	int err = inl_dev_open(spec, flags, &diag, &dev);

	if (err)
		fail_msg("%s: %d, %s", spec, err, diag.text);
	assert_non_null(dev);
	assert_int_equal(diag.err, 0);
	return dev;
}

/* The error, and text somewhere in its explanation. */
static void refuses(const char *spec, unsigned flags, int want, const char *text)
{
	struct inl_dev *const untouched = (struct inl_dev *)(uintptr_t)64;
	struct inl_dev *dev = untouched;
	struct inl_diag diag = { 0 };
	int err = inl_dev_open(spec, flags, &diag, &dev);

	if (err != want || diag.err != want || !strstr(diag.text, text))
		fail_msg("%s: %d, \"%s\"; expected %d, \"%s\"", spec, err, diag.text, want, text);
	assert_ptr_equal(dev, untouched);
	assert_int_equal(inl_dev_open(spec, flags, NULL, &dev), want);
}

static int range_op(struct inl_dev *dev, enum inl_op op, uint64_t offset, uint64_t len)
{
	struct inl_bio bio;

	inl_bio_init_range(&bio, op, offset, len);
	return inl_submit_wait(dev, &bio);
}

static int write_fua(struct inl_dev *dev, uint64_t offset, void *buf, size_t len)
{
	struct iovec seg = { buf, len };
	struct inl_bio bio;

	inl_bio_init_plain(&bio, INL_WRITE, offset, &seg, 1);
	bio.flags = INL_BIO_FUA;
	return inl_submit_wait(dev, &bio);
}

static int read_raw(struct inl_dev *dev, uint64_t offset, void *buf, size_t len)
{
	struct iovec seg = { buf, len };
	struct inl_bio bio;

	inl_bio_init_raw_read(&bio, offset, &seg, 1);
	return inl_submit_wait(dev, &bio);
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* ---- SPEC: parsing ----------------------------------------------------------------------------------------------- */

static size_t dump(const struct inl_spec *spec, char *buf, size_t size);

static size_t dump_value(const struct inl_param *param, const struct inl_arg *arg, char *buf, size_t size)
{
	if (arg->spec)
		return dump(arg->spec, buf, size);
	if (param->kind == INL_PARAM_NUMBER || param->kind == INL_PARAM_SIZE || param->kind == INL_PARAM_SWITCH)
		return (size_t)snprintf(buf, size, "%llu", (unsigned long long)arg->number);
	return (size_t)snprintf(buf, size, "%s", arg->text ? arg->text : "yes");
}

/* "name=value;": of a repeated parameter "name=value;value;". */
static size_t dump_args(const struct inl_param *params, const struct inl_arg *args, char *buf, size_t size)
{
	size_t n = 0;

	for (unsigned i = 0; params[i].name; i++) {
		if (!args[i].given)
			continue;
		n += (size_t)snprintf(buf + n, size - n, "%s=", params[i].name);
		for (const struct inl_arg *arg = &args[i]; arg; arg = arg->next) {
			n += dump_value(&params[i], arg, buf + n, size - n);
			n += (size_t)snprintf(buf + n, size - n, ";");
		}
	}
	return n;
}

static size_t dump(const struct inl_spec *spec, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s[", spec->driver->info.name);

	n += dump_args(spec->driver->params, spec->args, buf + n, size - n);
	n += dump_args(inl_common_params, spec->common, buf + n, size - n);
	return n - 1 + (size_t)snprintf(buf + n - 1, size - n + 1, "]");
}

static void test_spec_parses(void **state)
{
	static const struct {
		const char *text, *tree;
	} rows[] = {
		{ "disk.img", "file[path=disk.img]" },
		{ "/a dir/with, commas (and) \"quotes\"", "file[path=/a dir/with, commas (and) \"quotes\"]" },
		{ " disk.img ", "file[path= disk.img ]" },
		{ "./part(1)", "file[path=./part(1)]" },
		{ "file", "file[path=file]" },
		{ "part (x, 1)", "file[path=part (x, 1)]" },
		{ "prt(x)", "file[path=prt(x)]" },
		{ "file(disk.img)", "file[path=disk.img]" },
		{ "file(disk.img)  \n", "file[path=disk.img]" },
		{ "file( \t my disk.img , direct )", "file[path=my disk.img;direct=yes]" },
		{ "file(a=b)", "file[path=a=b]" },
		{ "file(direct)", "file[path=direct]" },
		{ "file(\"a, (b) \\\"c\\\" \\\\d\")", "file[path=a, (b) \"c\" \\d]" },
		{ "file(\" x \" , direct)", "file[path= x ;direct=yes]" },
		{ "file(gr\xc3\xbc\xc3\x9f.img)", "file[path=gr\xc3\xbc\xc3\x9f.img]" },
		{ "ram(1M)", "ram[size=1048576]" },
		{ "ram(64KiB,block_size=4K)", "ram[size=65536;block_size=4096]" },
		{ "ram(\"2G\", block_size = \"512B\")", "ram[size=2147483648;block_size=512]" },
		{ "slice(disk.img)", "slice[device=file[path=disk.img]]" },
		{ "slice(disk.img, length=1, offset=2)", "slice[device=file[path=disk.img];offset=2;length=1]" },
		{ "slice(\"part(x, 1)\")", "slice[device=file[path=part(x, 1)]]" },
		{ "part(file(x,direct), 12)", "part[device=file[path=x;direct=yes];number=12]" },
		{ "slice(part(ram( 1T ),3),offset=16777215TiB)",
		  "slice[device=part[device=ram[size=1099511627776];number=3];offset=18446742974197923840]" },
		{ "engine(x, modes=aes-256-xts+adiantum, unit=512+4K, slots=1)",
		  "engine[device=file[path=x];slots=1;modes=aes-256-xts+adiantum;unit=512+4K]" },
		{ "linear(x)", "linear[device=file[path=x]]" },
		{ "linear(a=b, ram(1M) , \"c=d\",e f=g)",
		  "linear[device=file[path=a=b];ram[size=1048576];file[path=c=d];file[path=e f=g]]" },
		{ "linear(stripe(x, y, chunk=4K), z, fallback = off)",
		  "linear[device=stripe[device=file[path=x];file[path=y];chunk=4096];file[path=z];fallback=0]" },
		{ "stripe(x, fallback=on, chunk=1M, bounce=64K)",
		  "stripe[device=file[path=x];chunk=1048576;fallback=1;bounce=65536]" },
		{ "fault(x)", "fault[device=file[path=x]]" },
		{ "fault(x, bounce=1M)", "fault[device=file[path=x];bounce=1048576]" },
		{ "fault(x, write@3=EIO+flush@*=drop, delay=100us, \"fallback=off\", fallback=off)",
		  "fault[device=file[path=x];rule=write@3=EIO+flush@*=drop;delay=100us;fallback=off;fallback=0]" },
		{ "file(x, bounce=1, direct)", "file[path=x;direct=yes;bounce=1]" },
		{ "file(\"fallback=off\")", "file[path=fallback=off]" },
	};
	char tree[1024];

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_diag diag = { 0 };
		struct inl_spec *spec;

		if (inl_spec_parse(rows[i].text, strlen(rows[i].text), &diag, &spec))
			fail_msg("%s: %s", rows[i].text, diag.text);
		dump(spec, tree, sizeof(tree));
		assert_string_equal(tree, rows[i].tree);
		inl_spec_free(spec);
	}
	inl_spec_free(NULL);
}

#define KNOWN       "(known: file, ram, slice, part, engine, linear, stripe, fault)"
#define SLICE       "slice(SPEC [, offset=N, length=N])"
#define LINEAR      "linear(SPEC, SPEC, ...)"
#define STRIPE      "stripe(SPEC, SPEC, ... [, chunk=SIZE])"
#define WANT_DEVICE "expected a device: a path or NAME(...)"
#define WANT_SIZE   "expected a size such as 512, 64K or 1MiB"

static void test_spec_refuses(void **state)
{
	static const struct {
		const char *text;
		unsigned column;
		const char *want;
	} rows[] = {
		{ "", 1, WANT_DEVICE },
		{ "slice(part(prt(x, 1), 2))", 12, "unknown driver 'prt' " KNOWN },
		{ "slice(gr\xc3\xbc\xc3\x9f(x))", 11, "'(' within a value: put the value in double quotes" },
		{ "slice(\xc3\xbc, x=1)", 10, "unknown option 'x': " SLICE },
		{ "slice(", 7, WANT_DEVICE },
		{ "slice()", 7, WANT_DEVICE ": " SLICE },
		{ "slice( )", 8, WANT_DEVICE ": " SLICE },
		{ "slice(,offset=1)", 7, WANT_DEVICE },
		{ "slice(offset=1)", 7, WANT_DEVICE " before the options: " SLICE },
		{ "slice(x", 8, "expected ',' or ')'" },
		{ "slice(x,", 9, "expected an option: " SLICE },
		{ "slice(x,)", 9, "expected an argument after ','" },
		{ "slice(x,,)", 9, "expected an option: " SLICE },
		{ "slice(x, y)", 10, "unknown option 'y': " SLICE },
		{ "slice(x, offset)", 16, "expected '=' and a size such as 512, 64K or 1MiB after 'offset'" },
		{ "slice(x, offset=)", 17, WANT_SIZE },
		{ "slice(x, offset=-1)", 17, WANT_SIZE },
		{ "slice(x, offset=1k)", 17, WANT_SIZE },
		{ "slice(x, offset=0x10)", 17, WANT_SIZE },
		{ "slice(x, offset=1Ki)", 17, WANT_SIZE },
		{ "slice(x, offset=1 K)", 17, WANT_SIZE },
		{ "slice(x, offset=1KBB)", 17, WANT_SIZE },
		{ "slice(x, offset=K)", 17, WANT_SIZE },
		{ "slice(x, offset=18446744073709551616)", 17, "number too large (64 bits at most)" },
		{ "slice(x, offset=16777216T)", 17, "number too large (64 bits at most)" },
		{ "slice(x, offset=1, offset=1)", 20, "option 'offset' given twice" },
		{ "slice(x) y", 10, "expected nothing more after ')'" },
		{ "slice(x))", 9, "expected nothing more after ')'" },
		{ "part(x)", 7, "expected a number: part(SPEC, N)" },
		{ "part(x, 1K)", 9, "expected a number" },
		{ "part(x, 1, 2)", 12, "unknown option '2': part(SPEC, N)" },
		{ "file(x, direct, direct)", 17, "option 'direct' given twice" },
		{ "file(x, direct=1)", 15, "expected ',' or ')'" },
		{ "file(x, Direct)", 9, "expected an option: file(PATH [, direct])" },
		{ "file(\"x)", 9, "expected '\"': quotes opened in column 6" },
		{ "file(\"x\\", 9, "expected '\"' or '\\' after '\\'" },
		{ "file(\"x\\n\")", 9, "expected '\"' or '\\' after '\\'" },
		{ "file(\"\")", 6, "expected a path" },
		{ "file(\"x\"y)", 9, "expected ',' or ')'" },
		{ "file(x\"y\")", 7, "'\"' within a value: put the value in double quotes" },
		{ "file(a(b))", 7, "'(' within a value: put the value in double quotes" },
		{ "engine(x, modes=)", 17, "expected a value" },
		{ "linear()", 8, WANT_DEVICE ": " LINEAR },
		{ "linear(fallback=on)", 8, WANT_DEVICE " before the options: " LINEAR },
		{ "linear(x,)", 10, "expected an argument after ','" },
		{ "linear(x, , y)", 11, WANT_DEVICE },
		{ "linear(x, chunk=4K)", 11, "unknown option 'chunk': " LINEAR },
		{ "linear(a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q)", 40, "more than 16 of them: " LINEAR },
		{ "stripe(x, chnk=4K)", 11, "unknown option 'chnk': " STRIPE },
		{ "stripe(x, chunk=4K, y)", 21, "unknown option 'y': " STRIPE },
		{ "stripe(x, y, prt(z, 1))", 14, "unknown driver 'prt' " KNOWN },
		{ "fault(write@1=EIO", 18, "expected ',' or ')'" },
		{ "fault(x, )", 10, "expected an argument after ','" },
		{ "fault(x, , y)", 10, "expected a value" },
		{ "fault(x, fallback=off, write@1=EIO)", 24, "unknown option 'write': fault(SPEC [, RULE+RULE, ...])" },
		{ "slice(x, fallback)", 18, "expected '=' and on or off after 'fallback'" },
		{ "slice(x, fallback=)", 19, "expected on or off" },
		{ "slice(x, fallback=yes)", 19, "expected on or off" },
		{ "slice(x, fallback=on, fallback=on)", 23, "option 'fallback' given twice" },
		{ "slice(x, bounce=many)", 17, WANT_SIZE },
		{ "slice(fallback=on)", 7, WANT_DEVICE " before the options: " SLICE },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_spec *spec = NULL;
		struct inl_diag diag = { 0 };
		int err = inl_spec_parse(rows[i].text, strlen(rows[i].text), &diag, &spec);

		assert_string_equal(diag.text, format("SPEC, column %u: %s", rows[i].column, rows[i].want));
		assert_int_equal(err, -EINVAL);
		assert_null(spec);
		assert_int_equal(inl_spec_parse(rows[i].text, strlen(rows[i].text), NULL, &spec), -EINVAL);
	}
}

/* n calls in each other and a path: n + 1 devices. */
static char *nest(unsigned n)
{
	char *text = calloc(1, 8 * n + 8);

	assert_non_null(text);
	for (unsigned i = 0; i < n; i++)
		strcat(text, "slice(");
	strcat(text, "x");
	for (unsigned i = 0; i < n; i++)
		strcat(text, ")");
	return text;
}

static void test_spec_limits(void **state)
{
	static const char wide[] = "linear(a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,linear(p,q))";
	char *text = nest(15), *longest = malloc(65537);
	struct inl_diag diag = { 0 };
	struct inl_spec *spec;

	assert_int_equal(inl_spec_parse(text, strlen(text), &diag, &spec), 0);
	inl_spec_free(spec);
	free(text);
	text = nest(16);
	assert_int_equal(inl_spec_parse(text, strlen(text), &diag, &spec), -EINVAL);
	assert_string_equal(diag.text, "SPEC, column 97: more than 16 devices deep");
	free(text);

	assert_non_null(longest);
	memset(longest, 'x', 65537);
	assert_int_equal(inl_spec_parse(longest, 65536, NULL, &spec), 0);
	assert_int_equal(strlen(spec->args[0].text), 65536);
	inl_spec_free(spec);
	diag = (struct inl_diag){ 0 };
	assert_int_equal(inl_spec_parse(longest, 65537, &diag, &spec), -EINVAL);
	assert_string_equal(diag.text, "SPEC, column 1: longer than 65536 bytes");
	free(longest);

	diag = (struct inl_diag){ 0 };
	assert_int_equal(inl_spec_parse("ram(1M\0)", 8, &diag, &spec), -EINVAL);
	assert_string_equal(diag.text, "SPEC, column 7: expected no NUL byte");
	/* A tree may be as wide as it is deep. */
	assert_int_equal(inl_spec_parse(wide, strlen(wide), NULL, &spec), 0);
	inl_spec_free(spec);

	/* The length counts, not a NUL behind it. */
	assert_int_equal(inl_spec_parse("ram(1M)trash", 7, NULL, &spec), 0);
	inl_spec_free(spec);
}

static void test_spec_sizes(void **state)
{
	static const struct {
		const char *text;
		int err;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0 },
		{ "512", 0, 512 },
		{ "512B", 0, 512 },
		{ "64K", 0, 65536 },
		{ "64KB", 0, 65536 },
		{ "64KiB", 0, 65536 },
		{ "1M", 0, 1 << 20 },
		{ "3GiB", 0, UINT64_C(3) << 30 },
		{ "1T", 0, UINT64_C(1) << 40 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999", -ERANGE, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "16777215T", 0, UINT64_C(16777215) << 40 },
		{ "", -EINVAL, 0 },
		{ "K", -EINVAL, 0 },
		{ "1P", -EINVAL, 0 },
		{ "1iB", -EINVAL, 0 },
		{ "1Ki", -EINVAL, 0 },
		{ "1KBi", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "1.5K", -EINVAL, 0 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t value = 0;

		if (inl_size_parse(rows[i].text, strlen(rows[i].text), &value) != rows[i].err || value != rows[i].value)
			fail_msg("%s: %llu", rows[i].text, (unsigned long long)value);
	}
}

static void test_table(void **state)
{
	const struct inl_driver_info *info;
	unsigned n = 0;

	for (; (info = inl_driver_info(n)); n++) {
		assert_non_null(info->summary);
		assert_int_equal(strncmp(info->usage, info->name, strlen(info->name)), 0);
		assert_int_equal(info->usage[strlen(info->name)], '(');
		assert_string_equal(inl_driver_find(info->name, strlen(info->name))->info.name, info->name);
	}
	assert_int_equal(n, 8);
	assert_null(inl_driver_find("fil", 3));
	assert_null(inl_driver_find("files", 5));
}

static void test_open_misspelt(void **state)
{
	refuses("prt(disk.img, 1)", 0, -EINVAL,
		"SPEC, column 1: unknown driver 'prt' " KNOWN ", and no file of this name");
	refuses("slice(prt(x))", 0, -EINVAL, "column 7: unknown driver 'prt'");
	refuses("ram(1M)", 8, -EINVAL, "unknown flags 0x8");
	/* A file of such a name is a file. */
	assert_int_equal(chdir(dir), 0);
	close(make_file("prt(1)", NULL, 4096));
	inl_dev_close(open_dev("prt(1)", 0));
	close(make_file("ram(4K)", NULL, 8192));
	struct inl_dev *dev = open_dev("./ram(4K)", 0);

	assert_int_equal(inl_dev_size(dev), 8192);
	assert_string_equal(inl_dev_driver(dev), "file");
	inl_dev_close(dev);
	assert_int_equal(chdir("/"), 0);
}

/* ---- options of every device ------------------------------------------------------------------------------------- */

static void test_open_fallback(void **state)
{
	struct inl_dev *dev = open_dev("ram(1M)", 0);

	assert_true(inl_dev_fallback(dev));
	inl_dev_close(dev);
	dev = open_dev("slice(ram(1M), fallback=off)", 0);
	assert_false(inl_dev_fallback(dev));
	assert_true(inl_dev_fallback(inl_dev_child(dev, 0)));
	inl_dev_close(dev);
	/* What is on top of it has none either, and cannot have it back. */
	dev = open_dev("slice(ram(1M, fallback=off))", 0);
	assert_false(inl_dev_fallback(dev));
	inl_dev_close(dev);
	refuses("slice(ram(1M, fallback=off), fallback=on)", 0, -EINVAL,
		"SPEC, column 39: a device below has fallback=off");
	dev = open_dev("slice(ram(1M, fallback=on), fallback=on)", 0);
	assert_true(inl_dev_fallback(dev));
	inl_dev_close(dev);

	/* The flag means the topmost device, whatever the SPEC says. */
	dev = open_dev("slice(ram(1M), fallback=on)", INL_OPEN_NO_FALLBACK | INL_OPEN_WRITE);
	assert_false(inl_dev_fallback(dev));
	assert_true(inl_dev_fallback(inl_dev_child(dev, 0)));
	assert_true(inl_dev_writable(dev));
	inl_dev_close(dev);
	refuses("ram(1M)", INL_OPEN_NO_FALLBACK | 4, -EINVAL, "unknown flags 0x6");
}

static void test_open_bounce(void **state)
{
	struct inl_dev *dev = open_dev("ram(1M, bounce=64K)", INL_OPEN_WRITE);

	inl_dev_close(dev);
	inl_dev_close(open_dev("slice(ram(1M, bounce=100000), bounce=1G)", 0));
	refuses("ram(1M, bounce=65535)", 0, -EINVAL,
		"SPEC, column 16: bounce memory of 65535 bytes: expected 64K to 1G");
	refuses("slice(ram(1M, bounce=1025M))", 0, -EINVAL,
		"SPEC, column 22: bounce memory of 1074790400 bytes: expected 64K to 1G");
	refuses("ram(1M, bounce=0)", 0, -EINVAL, "SPEC, column 16");
}

/* ---- ram --------------------------------------------------------------------------------------------------------- */

/* Every operation, on any device of at least 256 KiB that the test may overwrite. */
static void exercise(struct inl_dev *dev)
{
	size_t len = 256 * KIB, bs = inl_dev_block_size(dev);
	uint8_t *data = pattern(len, 1), *back = malloc(len);

	assert_int_equal(inl_dev_write(dev, 0, data, len), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, len), 0);
	assert_memory_equal(back, data, len);
	assert_int_equal(inl_dev_read(dev, bs, back, bs), 0);
	assert_memory_equal(back, data + bs, bs);
	assert_int_equal(inl_dev_flush(dev), 0);

	/* zeros, at odd places too */
	assert_int_equal(range_op(dev, INL_ZERO, bs, 64 * KIB), 0);
	memset(data + bs, 0, 64 * KIB);
	assert_int_equal(range_op(dev, INL_ZERO, 128 * KIB + bs, bs), 0);
	memset(data + 128 * KIB + bs, 0, bs);
	assert_int_equal(inl_dev_read(dev, 0, back, len), 0);
	assert_memory_equal(back, data, len);

	/* the same bytes in one bio of many segments */
	fill(data, len, 2);
	struct iovec segs[64];
	struct inl_bio bio;

	for (unsigned i = 0; i < 64; i++)
		segs[i] = (struct iovec){ data + (63 - i) * 4 * KIB, 4 * KIB };
	inl_bio_init_plain(&bio, INL_WRITE, 0, segs, 64);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, len), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_memory_equal(back + i * 4 * KIB, data + (63 - i) * 4 * KIB, 4 * KIB);
	memset(data, 0, len);
	inl_bio_init_plain(&bio, INL_READ, 0, segs, 64);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_memory_equal(back + i * 4 * KIB, data + (63 - i) * 4 * KIB, 4 * KIB);

	assert_int_equal(write_fua(dev, 0, data, bs), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, bs), 0);
	assert_memory_equal(back, data, bs);
	free(data);
	free(back);
}

static void test_ram(void **state)
{
	struct inl_dev *dev = open_dev("ram(1M)", INL_OPEN_WRITE);
	uint8_t *buf = pattern(1 * MIB, 3);

	assert_int_equal(inl_dev_size(dev), 1 * MIB);
	assert_int_equal(inl_dev_block_size(dev), 512);
	assert_true(inl_dev_writable(dev));
	assert_int_equal(inl_dev_n_slots(dev), -1);
	assert_null(inl_dev_child(dev, 0));
	assert_int_equal(inl_dev_read(dev, 0, buf, 1 * MIB), 0);
	assert_true(all_zero(buf, 1 * MIB));
	exercise(dev);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 1 * MIB), 0);
	assert_int_equal(inl_dev_read(dev, 0, buf, 1 * MIB), 0);
	assert_true(all_zero(buf, 1 * MIB));

	assert_int_equal(inl_dev_read(dev, 1 * MIB, buf, 512), -ENXIO);
	assert_int_equal(inl_dev_read(dev, 1 * MIB - 512, buf, 1024), -ENXIO);
	assert_int_equal(inl_dev_read(dev, UINT64_MAX - 511, buf, 512), -ENXIO);
	assert_int_equal(inl_dev_write(dev, 1 * MIB, buf, 512), -ENXIO);
	assert_int_equal(inl_dev_read(dev, 1, buf, 512), -EINVAL);
	assert_int_equal(inl_dev_read(dev, 0, buf, 511), -EINVAL);
	inl_dev_close(dev);
	free(buf);
}

static void test_ram_options(void **state)
{
	struct inl_dev *dev = open_dev("ram(1000000, block_size=4K)", INL_OPEN_WRITE);
	uint8_t buf[4096];

	assert_int_equal(inl_dev_size(dev), 999424); /* 244 blocks */
	assert_int_equal(inl_dev_block_size(dev), 4096);
	assert_int_equal(inl_dev_read(dev, 512, buf, 512), -EINVAL);
	exercise(dev);
	inl_dev_close(dev);

	dev = open_dev("ram(4K)", 0);
	assert_false(inl_dev_writable(dev));
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), -EROFS);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 512), -EROFS);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), -EROFS);
	assert_int_equal(inl_dev_flush(dev), 0);
	inl_dev_close(dev);

	refuses("ram(0)", 0, -EINVAL, "column 5: expected at least one block of 512 bytes");
	refuses("ram(4K,block_size=8K)", 0, -EINVAL, "column 5: expected at least one block of 8192 bytes");
	refuses("ram(1M, block_size=256)", 0, -EINVAL,
		"column 20: block size 256: expected a power of two, 512 to 65536");
	refuses("ram(1M, block_size=3K)", 0, -EINVAL, "block size 3072");
	refuses("ram(1M, block_size=128K)", 0, -EINVAL, "block size 131072");
	refuses("ram(1M, block_size=4294967808)", 0, -EINVAL, "block size 4294967808");
	refuses("ram(1000000T)", 0, -ENOMEM, "no memory for 1099511627776000000 bytes");
}

/* ---- file -------------------------------------------------------------------------------------------------------- */

static void test_file(void **state)
{
	const char *path = path_of("file");
	uint8_t *data = pattern(1 * MIB + 100, 4), *back = malloc(1 * MIB);
	int fd = make_file(path, data, 1 * MIB + 100);
	struct inl_dev *dev = open_dev(path, 0);
	struct inl_counters counters;

	assert_int_equal(inl_dev_size(dev), 1 * MIB);
	assert_int_equal(inl_dev_block_size(dev), 512);
	assert_string_equal(inl_dev_driver(dev), "file");
	assert_string_equal(inl_dev_label(dev), path);
	assert_int_equal(inl_dev_read(dev, 0, back, 1 * MIB), 0);
	assert_memory_equal(back, data, 1 * MIB);
	assert_int_equal(inl_dev_read(dev, 1 * MIB, back, 512), -ENXIO);
	assert_int_equal(inl_dev_write(dev, 0, back, 512), -EROFS);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 512), -EROFS);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), -EROFS);
	assert_int_equal(inl_dev_flush(dev), 0);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.reads, 1);
	assert_int_equal(counters.bytes_read, 1 * MIB);
	assert_int_equal(counters.writes, 0);
	inl_dev_close(dev);

	dev = open_dev(format("file(\"%s\")", path), INL_OPEN_WRITE);
	exercise(dev);
	assert_int_equal(inl_dev_read(dev, 0, data, 1 * MIB), 0);
	assert_int_equal(pread(fd, back, 1 * MIB, 0), 1 * MIB);
	assert_memory_equal(back, data, 1 * MIB);
	inl_dev_close(dev);
	close(fd);
	free(data);
	free(back);
}

static void test_file_refuses(void **state)
{
	const char *fifo = path_of("fifo"), *tiny = path_of("tiny"), *link_path = path_of("link");

	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(symlink("fifo", link_path), 0);
	close(make_file(tiny, NULL, 511));
	refuses(path_of("absent"), 0, -ENOENT, "absent': No such file or directory");
	refuses(dir, 0, -EISDIR, "is a directory: expected a regular file or a block device");
	refuses(fifo, 0, -EINVAL, "is a FIFO: expected");
	refuses(link_path, INL_OPEN_WRITE, -EINVAL, "is a FIFO: expected");
	refuses("/dev/null", 0, -EINVAL, "is a character device: expected");
	refuses(tiny, 0, -EINVAL, "is too small: 511 bytes");
	refuses(format("slice(%s)", dir), 0, -EISDIR, "is a directory");
}

static void test_file_locks(void **state)
{
	const char *path = path_of("locked");
	struct inl_dev *a, *b;

	close(make_file(path, NULL, 4096));
	a = open_dev(path, 0);
	b = open_dev(path, 0);
	refuses(path, INL_OPEN_WRITE, -EBUSY, "is locked: something else has it open");
	inl_dev_close(a);
	inl_dev_close(b);
	a = open_dev(path, INL_OPEN_WRITE);
	refuses(path, 0, -EBUSY, "is locked: something else writes to it");
	refuses(path, INL_OPEN_WRITE, -EBUSY, "is locked");
	inl_dev_close(a);

	/* file systems without locks */
	for (unsigned i = 0; i < 3; i++) {
		fault.flock_errno = (const int[]){ ENOLCK, EOPNOTSUPP, EINVAL }[i];
		a = open_dev(path, INL_OPEN_WRITE);
		fault.flock_errno = 0;
		inl_dev_close(a);
	}
}

static void test_file_short_transfers(void **state)
{
	const char *path = path_of("short");
	struct inl_dev *dev;

	close(make_file(path, NULL, 1 * MIB));
	dev = open_dev(path, INL_OPEN_WRITE);
	for (unsigned i = 0; i < 3; i++) {
		fault.short_by = (const size_t[]){ 4095, 7, 100000 }[i];
		fault.interrupts = 5;
		fault.n_transfers = 0;
		exercise(dev);
		assert_int_equal(fault.interrupts, 0);
		assert_true(fault.n_transfers > 64);
	}
	fault.short_by = 0;
	inl_dev_close(dev);
}

/* More segments than one system call takes, some of them empty. */
static void test_file_many_segments(void **state)
{
	enum { N = 3000, SIZE = 512 };
	const char *path = path_of("segments");
	uint8_t *data = pattern(N * SIZE, 5), *back = malloc(N * SIZE);
	struct iovec *segs = calloc(2 * N, sizeof(*segs));
	struct inl_dev *dev;
	struct inl_bio bio;

	close(make_file(path, NULL, N * SIZE));
	dev = open_dev(path, INL_OPEN_WRITE);
	for (unsigned i = 0; i < N; i++) {
		segs[2 * i] = (struct iovec){ data, 0 };
		segs[2 * i + 1] = (struct iovec){ data + i * SIZE, SIZE };
	}
	inl_bio_init_plain(&bio, INL_WRITE, 0, segs, 2 * N);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, N * SIZE), 0);
	assert_memory_equal(back, data, N * SIZE);
	memset(data, 0, N * SIZE);
	fault.short_by = 300;
	inl_bio_init_plain(&bio, INL_READ, 0, segs, 2 * N);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	fault.short_by = 0;
	assert_memory_equal(back, data, N * SIZE);
	inl_dev_close(dev);
	free(segs);
	free(data);
	free(back);
}

static void test_file_truncated(void **state)
{
	const char *path = path_of("truncated");
	int fd = make_file(path, NULL, 64 * KIB);
	struct inl_dev *dev = open_dev(path, 0);
	uint8_t buf[8 * KIB];
	struct inl_counters counters;

	assert_int_equal(ftruncate(fd, 4 * KIB + 100), 0);
	assert_int_equal(inl_dev_read(dev, 0, buf, 4 * KIB), 0);
	assert_int_equal(inl_dev_read(dev, 0, buf, 8 * KIB), -EIO);
	assert_int_equal(inl_dev_read(dev, 32 * KIB, buf, 512), -EIO);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.errors, 2);
	inl_dev_close(dev);
	close(fd);
}

static void test_file_errors(void **state)
{
	const char *path = path_of("errors");
	struct inl_dev *dev;
	uint8_t buf[512] = { 0 };

	close(make_file(path, NULL, 64 * KIB));
	dev = open_dev(path, INL_OPEN_WRITE);
	fault.transfer_errno = EIO;
	assert_int_equal(inl_dev_read(dev, 0, buf, 512), -EIO);
	fault.transfer_errno = ENOSPC;
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), -ENOSPC);
	fault.transfer_errno = 0;
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), 0);
	assert_int_equal(inl_dev_flush(dev), 0);
	fault.fallocate_errno = EIO;
	assert_int_equal(range_op(dev, INL_ZERO, 0, 4 * KIB), -EIO);
	fault.fallocate_errno = EOPNOTSUPP;
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 4 * KIB), -EOPNOTSUPP);
	fault.fallocate_errno = 0;
	inl_dev_close(dev);
}

/* A flush that failed must not succeed when it is tried again: what was lost is lost. */
static void test_file_failed_flush(void **state)
{
	const char *path = path_of("flush");
	struct inl_dev *dev;
	uint8_t buf[512] = { 0 };

	close(make_file(path, NULL, 64 * KIB));
	dev = open_dev(path, INL_OPEN_WRITE);
	fault.n_syncs = 0;
	assert_int_equal(inl_dev_flush(dev), 0);
	fault.sync_errno = EIO;
	assert_int_equal(inl_dev_flush(dev), -EIO);
	assert_int_equal(fault.sync_errno, 0);
	assert_int_equal(inl_dev_flush(dev), -EIO);
	assert_int_equal(write_fua(dev, 0, buf, 512), -EIO);
	assert_int_equal(inl_dev_flush(dev), -EIO);
	assert_int_equal(fault.n_syncs, 2);
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), 0);
	inl_dev_close(dev);
	dev = open_dev(path, INL_OPEN_WRITE);
	assert_int_equal(inl_dev_flush(dev), 0);

	/* the other way round: a durable write that fails fails the flushes behind it */
	fault.dsync_errno = EIO;
	assert_int_equal(write_fua(dev, 0, buf, 512), -EIO);
	fault.dsync_errno = 0;
	assert_int_equal(inl_dev_flush(dev), -EIO);
	inl_dev_close(dev);
}

static void test_file_fua(void **state)
{
	const char *path = path_of("fua");
	struct inl_dev *dev;
	uint8_t buf[512];

	close(make_file(path, NULL, 64 * KIB));
	dev = open_dev(path, INL_OPEN_WRITE);
	fill(buf, sizeof(buf), 6);
	fault.n_syncs = fault.n_dsyncs = 0;
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), 0);
	assert_int_equal(fault.n_syncs + fault.n_dsyncs, 0);
	assert_int_equal(write_fua(dev, 0, buf, 512), 0);
	assert_int_equal(fault.n_dsyncs, 1);
	assert_int_equal(fault.n_syncs, 0);
	/* where RWF_DSYNC is not known: fdatasync, and the question is not asked twice */
	fault.dsync_errno = EOPNOTSUPP;
	assert_int_equal(write_fua(dev, 512, buf, 512), 0);
	assert_int_equal(write_fua(dev, 1024, buf, 512), 0);
	fault.dsync_errno = 0;
	assert_int_equal(fault.n_dsyncs, 2);
	assert_int_equal(fault.n_syncs, 2);
	uint8_t back[512];

	assert_int_equal(inl_dev_read(dev, 1024, back, 512), 0);
	assert_memory_equal(back, buf, 512);
	inl_dev_close(dev);
}

static void test_file_ranges(void **state)
{
	const char *path = path_of("ranges");
	uint8_t *data = pattern(1 * MIB, 7), *back = malloc(1 * MIB);
	int fd = make_file(path, data, 1 * MIB);
	struct inl_dev *dev = open_dev(path, INL_OPEN_WRITE);
	struct stat before, after;

	assert_int_equal(fsync(fd), 0);
	assert_int_equal(fstat(fd, &before), 0);
	assert_int_equal(range_op(dev, INL_DISCARD, 512 * KIB, 512 * KIB), 0);
	assert_int_equal(fstat(fd, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(range_op(dev, INL_DISCARD, 1 * MIB, 512), -ENXIO);

	/* zeros by writing, more than one batch of them and an odd rest */
	fault.fallocate_errno = EOPNOTSUPP;
	fault.n_transfers = 0;
	assert_int_equal(range_op(dev, INL_ZERO, 512, 400 * KIB + 1536), 0);
	fault.fallocate_errno = 0;
	assert_int_equal(fault.n_transfers, 2);
	memset(data + 512, 0, 400 * KIB + 1536);
	assert_int_equal(inl_dev_read(dev, 0, back, 512 * KIB), 0);
	assert_memory_equal(back, data, 512 * KIB);
	inl_dev_close(dev);
	close(fd);
	free(data);
	free(back);
}

static void test_file_direct(void **state)
{
	const char *path = path_of("direct"), *spec = format("file(%s, direct)", path);
	uint8_t *data = pattern(2 * MIB, 8), *back = aligned_alloc(4096, 2 * MIB + 4096);
	int fd = make_file(path, data, 2 * MIB);
	struct inl_dev *dev;
	int probe = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	assert_int_equal(fsync(fd), 0);
	if (probe < 0) {
		print_message("skipped: no direct I/O in %s\n", dir);
		refuses(spec, 0, -EINVAL, "no direct I/O");
		skip();
	}
	close(probe);
	dev = open_dev(spec, INL_OPEN_WRITE);
	assert_true(inl_dev_block_size(dev) >= 512);

	/* aligned memory, then memory that is misaligned by a byte and by half a sector; more than the bounce buffer */
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *to = back + (const size_t[]){ 32, 1, 33 }[i];

		memset(back, 0, 2 * MIB + 64);
		assert_int_equal(inl_dev_read(dev, 0, to, 2 * MIB), 0);
		assert_memory_equal(to, data, 2 * MIB);
	}
	fill(data, 2 * MIB, 9);
	memcpy(back + 1, data, 2 * MIB);
	assert_int_equal(inl_dev_write(dev, 0, back + 1, 2 * MIB), 0);
	assert_int_equal(pread(fd, back, 2 * MIB, 0), 2 * MIB);
	assert_memory_equal(back, data, 2 * MIB);

	/* segments whose lengths are odd, on one block boundary only as a whole */
	uint32_t bs = inl_dev_block_size(dev);
	struct iovec segs[2] = { { back, 100 }, { back + 4096, 2 * bs - 100 } };
	struct inl_bio bio;

	inl_bio_init_plain(&bio, INL_READ, bs, segs, 2);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
	assert_memory_equal(back, data + bs, 100);
	assert_memory_equal(back + 4096, data + bs + 100, 2 * bs - 100);

	exercise(dev);
	fault.fallocate_errno = EOPNOTSUPP;
	exercise(dev);
	fault.fallocate_errno = 0;
	fault.odd_result = true;
	assert_int_equal(inl_dev_read(dev, 0, back, 64 * KIB), -EIO);
	fault.odd_result = false;

	/* cut off within a block */
	assert_int_equal(ftruncate(fd, 64 * KIB + 100), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, 64 * KIB), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, 128 * KIB), -EIO);
	assert_int_equal(inl_dev_read(dev, 64 * KIB, back, 4 * KIB), -EIO);
	assert_int_equal(inl_dev_read(dev, 1 * MIB, back + 1, 4 * KIB), -EIO);
	inl_dev_close(dev);
	close(fd);
	free(data);
	free(back);
}

/* ---- slice ------------------------------------------------------------------------------------------------------- */

static void test_slice(void **state)
{
	const char *path = path_of("slice");
	uint8_t *data = pattern(1 * MIB, 10), *back = malloc(1 * MIB);
	int fd = make_file(path, data, 1 * MIB);
	struct inl_dev *dev =
		open_dev(format("slice(slice(%s, offset=128K), offset=4K, length=512K)", path), INL_OPEN_WRITE);

	assert_int_equal(inl_dev_size(dev), 512 * KIB);
	assert_string_equal(inl_dev_driver(dev), "slice");
	assert_string_equal(inl_dev_label(dev), "offset 4096, length 524288");
	assert_int_equal(inl_dev_size(inl_dev_child(dev, 0)), 896 * KIB);
	assert_int_equal(inl_dev_n_slots(dev), -1);
	assert_int_equal(inl_dev_read(dev, 0, back, 512 * KIB), 0);
	assert_memory_equal(back, data + 132 * KIB, 512 * KIB);
	assert_int_equal(inl_dev_read(dev, 512 * KIB, back, 512), -ENXIO);
	exercise(dev);
	/* nothing outside was touched */
	assert_int_equal(pread(fd, back, 1 * MIB, 0), 1 * MIB);
	assert_memory_equal(back, data, 132 * KIB);
	assert_memory_equal(back + 388 * KIB, data + 388 * KIB, 1 * MIB - 388 * KIB);
	assert_memory_not_equal(back + 132 * KIB, data + 132 * KIB, 256 * KIB);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 4 * KIB), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, 4 * KIB), 0);
	assert_true(all_zero(back, 4 * KIB));
	inl_dev_close(dev);

	dev = open_dev(format("slice(%s)", path), 0);
	assert_int_equal(inl_dev_size(dev), 1 * MIB);
	assert_int_equal(inl_dev_write(dev, 0, back, 512), -EROFS);
	inl_dev_close(dev);
	close(fd);
	free(data);
	free(back);
}

static void test_slice_refuses(void **state)
{
	refuses("slice(ram(1M), offset=1M)", 0, -EINVAL, "column 23: offset 1048576: expected 0 to 1048064");
	refuses("slice(ram(1M), offset=100)", 0, -EINVAL, "offset 100: expected a multiple of 512");
	refuses("slice(ram(1M,block_size=4K), offset=512)", 0, -EINVAL, "expected a multiple of 4096");
	refuses("slice(ram(1M), length=0)", 0, -EINVAL, "column 23: length 0: expected 512 to 1048576");
	refuses("slice(ram(1M), length=1000)", 0, -EINVAL, "length 1000: expected a multiple of 512");
	refuses("slice(ram(1M), offset=512K, length=513K)", 0, -EINVAL, "length 525312: expected 512 to 524288");
	refuses("slice(ram(1M), offset=512, length=18446744073709551104)", 0, -EINVAL, "expected 512 to 1048064");
	refuses("slice(ram(1M), offset=18446744073709551104)", 0, -EINVAL, "expected 0 to 1048064");
	refuses(format("slice(%s)", path_of("absent")), 0, -ENOENT, "No such file");
}

/* ---- part -------------------------------------------------------------------------------------------------------- */

struct disk {
	uint8_t *bytes;
	size_t len;
	uint64_t hole; /* bytes of zeros behind them */
	size_t n_reads;
	size_t max_read; /* bytes */
};

/* The reader of the parser: nothing outside the source may be asked for. */
static int read_disk(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct disk *disk = arg;

	assert_true(offset <= disk->len + disk->hole && len <= disk->len + disk->hole - offset);
	disk->n_reads++;
	if (len > disk->max_read)
		disk->max_read = len;
	memset(buf, 0, len);
	if (offset < disk->len)
		memcpy(buf, disk->bytes + offset, len < disk->len - offset ? len : disk->len - offset);
	return 0;
}

static int scan_disk(struct disk *disk, uint32_t block_size, struct inl_diag *diag, struct inl_part_table **table)
{
	struct inl_part_source source = { read_disk, disk, disk->len + disk->hole, block_size };

	return inl_part_scan(&source, diag, table);
}

static void disk_new(struct disk *disk, size_t len)
{
	*disk = (struct disk){ .bytes = calloc(1, len), .len = len };
	assert_non_null(disk->bytes);
}

static void put_mbr_entry(uint8_t *sector, unsigned i, uint8_t type, uint32_t start, uint32_t count)
{
	uint8_t *entry = sector + 446 + 16 * i;

	entry[4] = type;
	inl_store_le32(entry + 8, start);
	inl_store_le32(entry + 12, count);
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

/* UEFI 2.10, table 5-5; offsets by hand so that the parser's structures are not what checks them. */
static void seal_gpt_header(uint8_t *header, const uint8_t *array)
{
	inl_store_le32(header + 88, inl_crc32(array, 128 * 128));
	inl_store_le32(header + 16, 0);
	inl_store_le32(header + 16, inl_crc32(header, 92));
}

static void put_gpt_header(struct disk *disk, uint32_t sector, uint64_t lba, uint64_t other, uint64_t array_lba)
{
	uint8_t *header = disk->bytes + lba * sector;
	uint64_t n_sectors = disk->len / sector, n_array = 128 * 128 / sector;

	memcpy(header, "EFI PART", 8);
	inl_store_le32(header + 8, 0x10000);
	inl_store_le32(header + 12, 92);
	inl_store_le64(header + 24, lba);
	inl_store_le64(header + 32, other);
	inl_store_le64(header + 40, 2 + n_array);
	inl_store_le64(header + 48, n_sectors - 2 - n_array);
	memset(header + 56, 0x77, 16);
	inl_store_le64(header + 72, array_lba);
	inl_store_le32(header + 80, 128);
	inl_store_le32(header + 84, 128);
	seal_gpt_header(header, disk->bytes + array_lba * sector);
}

static void put_gpt_entry(uint8_t *array, unsigned number, uint64_t first, uint64_t last)
{
	uint8_t *entry = array + (number - 1) * 128;

	memset(entry, (int)(0x40 + number), 32);
	inl_store_le64(entry + 32, first);
	inl_store_le64(entry + 40, last);
}

/* Partitions 1, 2 and 5: sectors 40..47, 48..99, 100..100. */
static void make_gpt(struct disk *disk, uint32_t sector)
{
	uint64_t n_sectors, n_array = 128 * 128 / sector;
	uint8_t *array;

	disk_new(disk, 1 * MIB);
	n_sectors = disk->len / sector;
	array = disk->bytes + 2 * sector;
	put_mbr_entry(disk->bytes, 0, 0xee, 1, (uint32_t)n_sectors - 1);
	put_gpt_entry(array, 1, 40, 47);
	put_gpt_entry(array, 2, 48, 99);
	put_gpt_entry(array, 5, 100, 100);
	memcpy(disk->bytes + (n_sectors - 1 - n_array) * sector, array, 128 * 128);
	put_gpt_header(disk, sector, 1, n_sectors - 1, 2);
	put_gpt_header(disk, sector, n_sectors - 1, 1, n_sectors - 1 - n_array);
}

static void check_gpt(struct disk *disk, uint32_t block_size, uint32_t sector, bool damaged)
{
	struct inl_diag diag = { 0 };
	struct inl_part_table *table;
	struct inl_part part;

	if (scan_disk(disk, block_size, &diag, &table))
		fail_msg("%s", diag.text);
	assert_string_equal(table->kind, "GPT");
	assert_int_equal(table->damaged, damaged);
	assert_int_equal(table->n_parts, 3);
	assert_int_equal(inl_part_find(table, 1, NULL, &part), 0);
	assert_int_equal(part.offset, 40 * sector);
	assert_int_equal(part.len, 8 * sector);
	assert_int_equal(inl_part_find(table, 2, NULL, &part), 0);
	assert_int_equal(part.offset, 48 * sector);
	assert_int_equal(part.len, 52 * sector);
	assert_int_equal(inl_part_find(table, 5, NULL, &part), 0);
	assert_int_equal(part.offset, 100 * sector);
	assert_int_equal(part.len, sector);
	assert_int_equal(inl_part_find(table, 3, &diag, &part), -ENODEV);
	assert_string_equal(diag.text,
			    format("no partition 3: the GPT has 1, 2, 5%s", damaged ? "; the table is damaged" : ""));
	inl_part_table_free(table);
}

static void check_scan_fails(struct disk *disk, int want, const char *text)
{
	struct inl_diag diag = { 0 };
	struct inl_part_table *table;

	assert_int_equal(scan_disk(disk, 512, &diag, &table), want);
	assert_string_equal(diag.text, text);
}

#define BOTH_BAD "the GPT is damaged: neither its header nor the backup is valid"
#define NO_TABLE "no partition table (neither GPT nor MBR)"

static void test_gpt(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t sector = i ? 4096 : 512;
		struct disk disk;

		make_gpt(&disk, sector);
		check_gpt(&disk, 512, sector, false);
		check_gpt(&disk, 4096, sector, false);
		disk.bytes[sector + 60] ^= 1; /* the primary header */
		check_gpt(&disk, 512, sector, true);
		disk.bytes[sector + 60] ^= 1;
		disk.bytes[2 * sector + 128 * 100] ^= 1; /* an unused entry of the primary array */
		check_gpt(&disk, 512, sector, true);
		memset(disk.bytes, 0, 34 * sector); /* all of it, the MBR too */
		check_gpt(&disk, 512, sector, true);
		disk.bytes[disk.len - sector + 60] ^= 1; /* and the backup */
		check_scan_fails(&disk, -ENODEV, NO_TABLE);
		put_mbr_entry(disk.bytes, 0, 0xee, 1, 2047);
		check_scan_fails(&disk, -EUCLEAN, BOTH_BAD);
		free(disk.bytes);
	}
}

/* Headers whose checksums are right and whose contents are not. */
static void test_gpt_hostile_headers(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} rows[] = {
		{ 12, 4, 91 },  /* header size: too small */
		{ 12, 4, 513 }, /* larger than the sector */
		{ 12, 4, 0xffffffff },
		{ 24, 8, 2 },    /* another header's place */
		{ 40, 8, 2047 }, /* first usable behind the last */
		{ 72, 8, 0 },    /* the array elsewhere, behind the end, ... */
		{ 72, 8, 1 },
		{ 72, 8, 2048 },
		{ 72, 8, 2047 },
		{ 72, 8, UINT64_MAX },
		{ 72, 8, UINT64_C(1) << 55 }, /* 0 in bytes, modulo 2^64 */
		{ 80, 4, 0 },                 /* entries: none, too many, a product that overflows 32 bits */
		{ 80, 4, 0xffffffff },
		{ 80, 4, 0x2000000 },
		{ 80, 4, 0x2000080 },
		{ 84, 4, 0 }, /* entry size */
		{ 84, 4, 64 },
		{ 84, 4, 129 },
		{ 84, 4, 0x80000000 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct disk disk;
		uint8_t *header;

		make_gpt(&disk, 512);
		memset(disk.bytes + disk.len - 512, 0, 512);
		header = disk.bytes + 512;
		if (rows[i].bytes == 4)
			inl_store_le32(header + rows[i].at, (uint32_t)rows[i].value);
		else
			inl_store_le64(header + rows[i].at, rows[i].value);
		inl_store_le32(header + 16, 0);
		inl_store_le32(header + 16, inl_crc32(header, rows[i].at == 12 && rows[i].value == 91 ? 91 : 92));
		check_scan_fails(&disk, -EUCLEAN, BOTH_BAD);
		free(disk.bytes);
	}
}

/* A device on which an array of many gigabytes would have room. */
static void test_gpt_huge_array(void **state)
{
	struct disk disk;

	make_gpt(&disk, 512);
	disk.hole = UINT64_C(1) << 50;
	inl_store_le32(disk.bytes + 512 + 80, 1 << 20);
	inl_store_le32(disk.bytes + 512 + 16, 0);
	inl_store_le32(disk.bytes + 512 + 16, inl_crc32(disk.bytes + 512, 92));
	check_scan_fails(&disk, -EUCLEAN, BOTH_BAD);
	assert_true(disk.max_read <= 4096);
	free(disk.bytes);
}

static void test_gpt_bad_entries(void **state)
{
	static const uint64_t rows[][2] = {
		{ 40, 39 }, { 33, 50 },     { 40, 2015 }, { 40, UINT64_MAX }, { UINT64_MAX, UINT64_MAX },
		{ 0, 0 },   { 5000, 6000 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_diag diag = { 0 };
		struct inl_part_table *table;
		struct inl_part part;
		struct disk disk;

		make_gpt(&disk, 512);
		put_gpt_entry(disk.bytes + 1024, 2, rows[i][0], rows[i][1]);
		seal_gpt_header(disk.bytes + 512, disk.bytes + 1024);
		assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
		assert_int_equal(inl_part_find(table, 1, NULL, &part), 0);
		assert_int_equal(inl_part_find(table, 2, &diag, &part), -EUCLEAN);
		assert_string_equal(diag.text, "partition 2: the GPT gives it a range that is not on the device");
		inl_part_table_free(table);
		free(disk.bytes);
	}
}

static void test_mbr(void **state)
{
	struct inl_diag diag = { 0 };
	struct inl_part_table *table;
	struct inl_part part;
	struct disk disk;

	disk_new(&disk, 1 * MIB);
	put_mbr_entry(disk.bytes, 0, 0x83, 8, 100);
	disk.bytes[446] = 0x80;
	put_mbr_entry(disk.bytes, 1, 0x05, 200, 1000);
	put_mbr_entry(disk.bytes, 3, 0x07, 1300, 10);
	put_mbr_entry(disk.bytes + 200 * 512, 0, 0x83, 1, 99);
	put_mbr_entry(disk.bytes + 200 * 512, 1, 0x05, 100, 300);
	put_mbr_entry(disk.bytes + 300 * 512, 0, 0x83, 10, 20);
	put_mbr_entry(disk.bytes + 300 * 512, 1, 0x0f, 500, 300);
	put_mbr_entry(disk.bytes + 700 * 512, 0, 0x82, 2, 2);
	assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
	assert_string_equal(table->kind, "MBR");
	assert_false(table->damaged);
	static const uint32_t want[][3] = {
		{ 1, 8, 100 }, { 4, 1300, 10 }, { 5, 201, 99 }, { 6, 310, 20 }, { 7, 702, 2 }
	};

	assert_int_equal(table->n_parts, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(inl_part_find(table, want[i][0], NULL, &part), 0);
		assert_int_equal(part.offset, want[i][1] * 512);
		assert_int_equal(part.len, want[i][2] * 512);
	}
	assert_int_equal(inl_part_find(table, 2, &diag, &part), -ENODEV);
	assert_string_equal(diag.text, "no partition 2: the MBR has 1, 4, 5, 6, 7");
	inl_part_table_free(table);
	free(disk.bytes);
}

static void test_mbr_hostile(void **state)
{
	struct inl_part_table *table;
	struct inl_part part;
	struct inl_diag diag = { 0 };
	struct disk disk;

	/* a chain that comes back */
	disk_new(&disk, 1 * MIB);
	put_mbr_entry(disk.bytes, 0, 0x05, 200, 1000);
	put_mbr_entry(disk.bytes + 200 * 512, 0, 0x83, 1, 9);
	put_mbr_entry(disk.bytes + 200 * 512, 1, 0x05, 100, 300);
	put_mbr_entry(disk.bytes + 300 * 512, 0, 0x83, 1, 9);
	put_mbr_entry(disk.bytes + 300 * 512, 1, 0x05, 0, 300);
	assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
	assert_true(table->damaged);
	assert_int_equal(table->n_parts, 2);
	assert_int_equal(inl_part_find(table, 6, NULL, &part), 0);
	assert_int_equal(part.offset, 301 * 512);
	assert_int_equal(inl_part_find(table, 7, &diag, &part), -ENODEV);
	assert_string_equal(diag.text, "no partition 7: the MBR has 5, 6; the table is damaged");
	inl_part_table_free(table);

	/* out of the extended partition, out of the device, into sectors that are no boot record */
	put_mbr_entry(disk.bytes + 1200 * 512, 0, 0x83, 1, 9);
	for (unsigned i = 0; i < 4; i++) {
		put_mbr_entry(disk.bytes + 300 * 512, 1, 0x05, (const uint32_t[]){ 1000, 0xffffffff, 5000, 50 }[i],
			      300);
		put_mbr_entry(disk.bytes, 0, 0x05, 200, i == 2 ? 0xffffffff : 1000);
		assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
		assert_true(table->damaged);
		assert_int_equal(table->n_parts, 2);
		inl_part_table_free(table);
	}

	/* a chain without end: one boot record per sector */
	for (uint32_t i = 0; i < 1000; i++) {
		put_mbr_entry(disk.bytes + (200 + i) * 512, 0, 0x83, 1, 1);
		put_mbr_entry(disk.bytes + (200 + i) * 512, 1, 0x05, i + 1, 1);
	}
	disk.n_reads = 0;
	assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
	assert_true(table->damaged);
	assert_int_equal(table->n_parts, 256);
	assert_true(disk.n_reads < 300);
	diag = (struct inl_diag){ 0 };
	assert_int_equal(inl_part_find(table, 1, &diag, &part), -ENODEV);
	assert_non_null(strstr(diag.text, "..."));
	inl_part_table_free(table);

	/* partitions that leave the device */
	memset(disk.bytes, 0, 512);
	put_mbr_entry(disk.bytes, 0, 0x83, 2000, 49);
	put_mbr_entry(disk.bytes, 1, 0x83, 0xffffffff, 0xffffffff);
	put_mbr_entry(disk.bytes, 2, 0x83, 0, 10);
	put_mbr_entry(disk.bytes, 3, 0x83, 2000, 48);
	assert_int_equal(scan_disk(&disk, 512, NULL, &table), 0);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(inl_part_find(table, i, NULL, &part), -EUCLEAN);
	assert_int_equal(inl_part_find(table, 4, NULL, &part), 0);
	inl_part_table_free(table);

	/* the boot sector of a file system, an empty disk, a tiny one */
	memset(disk.bytes + 446, 0x20, 64);
	check_scan_fails(&disk, -ENODEV, NO_TABLE);
	memset(disk.bytes, 0, 512);
	check_scan_fails(&disk, -ENODEV, NO_TABLE);
	disk.len = 511;
	check_scan_fails(&disk, -ENODEV, "no partition table: the device is too small");
	free(disk.bytes);
}

/* Any one byte changed, any length: never an access outside (read_disk), never a partition outside. */
static void test_part_mutations(void **state)
{
	uint32_t seed = 11;

	for (unsigned i = 0; i < 4000; i++) {
		struct inl_part_table *table;
		struct disk disk;
		unsigned n_changes = 1 + i % 4;

		make_gpt(&disk, i % 2 ? 4096 : 512);
		if (i % 3 == 0)
			disk.bytes[450] = 0x05;
		for (unsigned j = 0; j < n_changes; j++) {
			seed = seed * 1664525 + 1013904223;
			disk.bytes[(seed >> 8) % (i % 5 ? 700 : 5000)] ^= (uint8_t)(1u << (seed >> 29));
		}
		if (i % 7 == 0) /* right checksums over wrong contents */
			seal_gpt_header(disk.bytes + 512, disk.bytes + 1024);
		if (i % 11 == 0)
			disk.len -= (seed >> 16) % 700000;
		if (!scan_disk(&disk, 512, NULL, &table)) {
			for (unsigned j = 0; j < table->n_parts; j++) {
				const struct inl_part *part = &table->parts[j];

				assert_true(part->offset <= disk.len && part->len <= disk.len - part->offset);
				assert_true(part->bad || (part->offset && part->len));
			}
			inl_part_table_free(table);
		}
		free(disk.bytes);
	}
}

static void test_part_device(void **state)
{
	const char *path = path_of("parts");
	struct disk disk;
	struct inl_dev *dev;
	uint8_t *back = malloc(52 * 4096);
	int fd;

	make_gpt(&disk, 4096);
	fill(disk.bytes + 40 * 4096, 100 * 4096, 12);
	fd = make_file(path, disk.bytes, disk.len);
	dev = open_dev(format("part(%s, 2)", path), INL_OPEN_WRITE);
	assert_string_equal(inl_dev_driver(dev), "part");
	assert_string_equal(inl_dev_label(dev), "GPT, partition 2");
	assert_int_equal(inl_dev_size(dev), 52 * 4096);
	assert_int_equal(inl_dev_read(dev, 0, back, 52 * 4096), 0);
	assert_memory_equal(back, disk.bytes + 48 * 4096, 52 * 4096);
	memset(back, 0xa5, 4096);
	assert_int_equal(inl_dev_write(dev, 51 * 4096, back, 4096), 0);
	assert_int_equal(inl_dev_write(dev, 52 * 4096, back, 512), -ENXIO);
	inl_dev_close(dev);
	assert_int_equal(pread(fd, back, 8192, 99 * 4096), 8192);
	assert_int_equal(back[4095], 0xa5);
	assert_memory_equal(back + 4096, disk.bytes + 100 * 4096, 4096);

	refuses(format("part(%s, 3)", path), 0, -ENODEV, "no partition 3: the GPT has 1, 2, 5");
	refuses(format("part(%s, 0)", path), 0, -EINVAL, "expected the number of a partition, from 1 on");
	refuses(format("part(%s, 4294967297)", path), 0, -EINVAL, "expected the number of a partition");
	refuses("part(ram(1M), 1)", 0, -ENODEV, NO_TABLE);
	fault.transfer_errno = EIO;
	refuses(format("part(%s, 1)", path), 0, -EIO, "cannot read the partition table");
	fault.transfer_errno = 0;
	close(fd);
	free(disk.bytes);
	free(back);
}

/* On a device with large blocks the small sectors are read by way of whole blocks. */
static void test_part_large_blocks(void **state)
{
	const char *path = path_of("large-blocks");
	struct inl_dev *dev = NULL;
	struct disk disk;
	uint8_t back[4096];

	make_gpt(&disk, 512);
	fill(disk.bytes + 40 * 512, 60 * 512, 13);
	close(make_file(path, disk.bytes, disk.len));
	fault.no_statx = true;
	if (inl_dev_open(format("slice(file(%s, direct))", path), 0, NULL, &dev)) {
		fault.no_statx = false;
		free(disk.bytes);
		print_message("skipped: no direct I/O in %s\n", dir);
		skip();
	}
	assert_int_equal(inl_dev_block_size(dev), 4096);
	inl_dev_close(dev);
	dev = open_dev(format("part(file(%s, direct), 1)", path), 0);
	assert_int_equal(inl_dev_size(dev), 4096);
	assert_int_equal(inl_dev_read(dev, 0, back, 4096), 0);
	assert_memory_equal(back, disk.bytes + 40 * 512, 4096);
	inl_dev_close(dev);
	refuses(format("part(file(%s, direct), 2)", path), 0, -EINVAL,
		"partition 2: offset 24576, length 26624: no multiples of the device's block size, 4096");
	fault.no_statx = false;
	free(disk.bytes);
}

/* The unit of an MBR is the medium's sector, whatever direct I/O wants of offsets. */
static void test_mbr_direct(void **state)
{
	const char *path = path_of("mbr-direct");
	struct inl_dev *dev = NULL;
	struct disk disk;

	disk_new(&disk, 1 * MIB);
	disk.bytes[510] = 0x55;
	disk.bytes[511] = 0xaa;
	put_mbr_entry(disk.bytes, 0, 0x83, 8, 16);
	close(make_file(path, disk.bytes, disk.len));
	fault.no_statx = true;
	if (inl_dev_open(format("file(%s, direct)", path), 0, NULL, &dev)) {
		fault.no_statx = false;
		free(disk.bytes);
		print_message("skipped: no direct I/O in %s\n", dir);
		skip();
	}
	assert_int_equal(inl_dev_block_size(dev), 4096);
	assert_int_equal(inl_dev_sector_size(dev), 512);
	inl_dev_close(dev);
	dev = open_dev(format("part(file(%s, direct), 1)", path), 0);
	assert_int_equal(inl_dev_size(dev), 16 * 512);
	inl_dev_close(dev);
	/* A size that direct I/O cannot reach the end of is refused, not cut. */
	assert_int_equal(truncate(path, 1 * MIB - 1024), 0);
	refuses(format("file(%s, direct)", path), 0, -EINVAL, "direct I/O wants multiples of 4096 bytes");
	fault.no_statx = false;
	free(disk.bytes);
}

/* sfdisk of util-linux makes the table and says what is in it. */
static void check_sfdisk(const char *script, const uint32_t (*want)[3], unsigned n_want)
{
	const char *path = path_of("sfdisk"), *in = path_of("sfdisk.in");

	close(make_file(path, NULL, 0));
	close(make_file(path, NULL, 16 * MIB));
	close(make_file(in, script, strlen(script)));
	if (system(format("sfdisk --quiet '%s' < '%s'", path, in)))
		fail_msg("sfdisk failed on: %s", script);
	for (unsigned i = 0; i < n_want; i++) {
		struct inl_dev *dev = open_dev(format("part(%s, %u)", path, want[i][0]), 0);
		struct inl_dev *same = open_dev(
			format("slice(%s, offset=%u, length=%u)", path, want[i][1] * 512, want[i][2] * 512), 0);

		assert_string_equal(inl_dev_driver(dev), "part");
		assert_int_equal(inl_dev_size(dev), inl_dev_size(same));
		inl_dev_close(dev);
		inl_dev_close(same);
	}
}

/* Does a mark written at this sector of the file show up at the start of the partition? */
static void check_place(const char *path, unsigned number, uint32_t sector)
{
	char mark[16] = "a mark of a test", back[512];
	struct inl_dev *dev;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, mark, sizeof(mark), (off_t)sector * 512), sizeof(mark));
	close(fd);
	dev = open_dev(format("part(%s, %u)", path, number), 0);
	assert_int_equal(inl_dev_read(dev, 0, back, 512), 0);
	assert_memory_equal(back, mark, sizeof(mark));
	inl_dev_close(dev);
}

static void test_part_sfdisk(void **state)
{
	static const uint32_t gpt[][3] = { { 1, 2048, 4096 }, { 3, 8192, 2048 } };
	static const uint32_t mbr[][3] = { { 1, 2048, 2048 }, { 5, 6144, 2048 }, { 6, 10240, 1024 } };

	if (system("sfdisk --version > /dev/null 2>&1")) {
		print_message("skipped: sfdisk is not installed\n");
		skip();
	}
	check_sfdisk("label: gpt\n1: start=2048, size=4096\n3: start=8192, size=2048\n", gpt, 2);
	for (unsigned i = 0; i < 2; i++)
		check_place(path_of("sfdisk"), gpt[i][0], gpt[i][1]);
	check_sfdisk("label: dos\n1: start=2048, size=2048, type=83\n2: start=4096, size=20480, type=5\n"
		     "5: start=6144, size=2048\n6: start=10240, size=1024\n",
		     mbr, 3);
	for (unsigned i = 0; i < 3; i++)
		check_place(path_of("sfdisk"), mbr[i][0], mbr[i][1]);
}

/* ---- block devices ----------------------------------------------------------------------------------------------- */

/* Attach a loop device. Returns its number, or -1 where that is not allowed. */
static int loop_attach(const char *path, uint32_t block_size, uint32_t flags, int *fd)
{
	struct loop_config config = { .block_size = block_size };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), backing = open(path, O_RDWR | O_CLOEXEC), n = -1;

	for (unsigned tries = 0; control >= 0 && backing >= 0 && tries < 10; tries++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		*fd = n < 0 ? -1 : open(format("/dev/loop%d", n), O_RDWR | O_CLOEXEC);
		config.fd = (uint32_t)backing;
		config.info.lo_flags = LO_FLAGS_AUTOCLEAR | flags;
		if (*fd >= 0 && !ioctl(*fd, LOOP_CONFIGURE, &config))
			break;
		if (*fd >= 0)
			close(*fd);
		n = -1;
	}
	if (control >= 0)
		close(control);
	if (backing >= 0)
		close(backing);
	return n;
}

static void test_block_device(void **state)
{
	const char *path = path_of("loop");
	uint8_t buf[4096];
	int fd;

	for (unsigned i = 0; i < 2; i++) {
		uint32_t sector = i ? 4096 : 512;
		struct inl_dev *dev;
		int n;

		close(make_file(path, NULL, 4 * MIB));
		n = loop_attach(path, sector, 0, &fd);
		if (n < 0) {
			print_message("skipped: no loop devices here\n");
			skip();
		}
		dev = open_dev(format("/dev/loop%d", n), INL_OPEN_WRITE);
		assert_int_equal(inl_dev_size(dev), 4 * MIB);
		assert_int_equal(inl_dev_block_size(dev), 512);
		refuses(format("/dev/loop%d", n), INL_OPEN_WRITE, -EBUSY, "in use");
		exercise(dev);
		assert_int_equal(range_op(dev, INL_DISCARD, 0, 1 * MIB), 0);
		assert_int_equal(inl_dev_read(dev, 0, buf, 4096), 0);
		assert_true(all_zero(buf, 4096));
		inl_dev_close(dev);

		dev = open_dev(format("file(/dev/loop%d, direct)", n), INL_OPEN_WRITE);
		assert_int_equal(inl_dev_block_size(dev), sector);
		exercise(dev);
		inl_dev_close(dev);
		close(fd);
	}
}

static long sysfs_number(int loop, unsigned part, const char *name)
{
	FILE *in = fopen(format("/sys/block/loop%d/loop%dp%u/%s", loop, loop, part, name), "re");
	long value = -1;

	if (in && fscanf(in, "%ld", &value) != 1)
		value = -1;
	if (in)
		fclose(in);
	return value;
}

/* The kernel reads the same tables. Returns how many partitions it found; 0: it does not look. */
static unsigned check_kernel(struct disk *disk, uint32_t sector)
{
	const char *path = path_of("scan");
	struct inl_part_table *table;
	unsigned n_kernel = 0;
	int fd, n;

	close(make_file(path, disk->bytes, disk->len));
	n = loop_attach(path, sector, LO_FLAGS_PARTSCAN, &fd);
	if (n < 0) {
		print_message("skipped: no loop devices here\n");
		skip();
	}
	assert_int_equal(scan_disk(disk, sector, NULL, &table), 0);
	for (unsigned number = 1; number < 40; number++) {
		long start = sysfs_number(n, number, "start"), size = sysfs_number(n, number, "size");
		struct inl_part part;

		if (start < 0)
			continue;
		n_kernel++;
		/* An extended partition is a device of one kibibyte for the kernel, and nothing for us. */
		if (size <= 2 && inl_part_find(table, number, NULL, &part))
			continue;
		assert_int_equal(inl_part_find(table, number, NULL, &part), 0);
		assert_int_equal(part.offset, start * 512);
		assert_int_equal(part.len, size * 512);
	}
	close(fd);
	assert_true(!n_kernel || n_kernel >= table->n_parts);
	inl_part_table_free(table);
	return n_kernel;
}

static void test_part_kernel(void **state)
{
	struct disk disk;
	unsigned n;

	make_gpt(&disk, 512);
	n = check_kernel(&disk, 512);
	free(disk.bytes);
	make_gpt(&disk, 4096);
	n += check_kernel(&disk, 4096);
	free(disk.bytes);
	disk_new(&disk, 1 * MIB);
	put_mbr_entry(disk.bytes, 0, 0x83, 8, 100);
	put_mbr_entry(disk.bytes, 1, 0x05, 200, 1000);
	put_mbr_entry(disk.bytes, 2, 0x83, 1400, 8);
	put_mbr_entry(disk.bytes + 200 * 512, 0, 0x83, 1, 99);
	put_mbr_entry(disk.bytes + 200 * 512, 1, 0x05, 300, 200);
	put_mbr_entry(disk.bytes + 500 * 512, 0, 0x83, 10, 20);
	put_mbr_entry(disk.bytes + 500 * 512, 1, 0x05, 100, 200);
	put_mbr_entry(disk.bytes + 300 * 512, 0, 0x83, 2, 7);
	n += check_kernel(&disk, 512);
	free(disk.bytes);
	if (!n) {
		print_message("skipped: this kernel reads no partition tables\n");
		skip();
	}
}

/* ---- engine ------------------------------------------------------------------------------------------------------ */

static struct inl_key *make_key(enum inl_blk_mode mode, uint32_t unit, uint32_t dun_bytes, uint32_t seed)
{
	struct inl_key_config cfg = { mode, unit, dun_bytes, INL_KEY_RAW };
	uint8_t bytes[INL_KEY_SIZE_MAX];
	struct inl_key *key;

	fill(bytes, sizeof(bytes), seed);
	assert_int_equal(inl_key_new(&cfg, bytes, inl_blk_mode_key_size(mode), &key), 0);
	return key;
}

/* Write two files' worth under two keys in turns, read it back; cipher: what lies on the medium afterwards. */
static void run_keyed(struct inl_dev *dev, enum inl_blk_mode mode, uint32_t unit, uint8_t *cipher, bool native)
{
	enum { LEN = 64 * KIB, STEP = 8 * KIB };
	struct inl_key *keys[2] = { make_key(mode, unit, 8, 21), make_key(mode, unit, 8, 22) };
	struct inl_key_use *uses[2];
	uint8_t *plain = pattern(2 * LEN, 23), *back = malloc(2 * LEN), *kept = malloc(2 * LEN);

	memcpy(kept, plain, 2 * LEN);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
		assert_int_equal(inl_key_use_native(uses[i]), native);
	}
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned at = 0; at < 2 * LEN; at += STEP) {
			unsigned i = at / STEP % 2;
			struct inl_crypt_ctx ctx = { uses[i], { 1000 + at / unit } };

			if (pass == 0)
				assert_int_equal(inl_dev_write_keyed(dev, at, plain + at, STEP, &ctx), 0);
			else
				assert_int_equal(inl_dev_read_keyed(dev, at, back + at, STEP, &ctx), 0);
		}
	}
	assert_memory_equal(plain, kept, 2 * LEN);
	assert_memory_equal(back, plain, 2 * LEN);
	assert_int_equal(read_raw(dev, 0, cipher, 2 * LEN), 0);
	assert_memory_not_equal(cipher, plain, unit);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(inl_key_evict(uses[i]), 0);
		inl_key_put(keys[i]);
	}
	free(plain);
	free(back);
	free(kept);
}

static void check_engine(const char *spec, enum inl_blk_mode mode, uint32_t unit, const uint8_t *want, int n_slots)
{
	struct inl_dev *dev = open_dev(spec, INL_OPEN_WRITE);
	uint8_t *cipher = malloc(128 * KIB);
	struct inl_counters counters, below;

	assert_int_equal(inl_dev_n_slots(dev), n_slots);
	assert_string_equal(inl_dev_driver(dev), "engine");
	run_keyed(dev, mode, unit, cipher, true);
	assert_memory_equal(cipher, want, 128 * KIB);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.engine_units_encrypted, 128 * KIB / unit);
	assert_int_equal(counters.engine_units_decrypted, 128 * KIB / unit);
	assert_int_equal(counters.fallback_units_encrypted, 0);
	assert_int_equal(counters.fallback_units_decrypted, 0);
	assert_int_equal(counters.errors, 0);
	/* 32 requests of two keys in turns */
	assert_int_equal(counters.slot_programs, n_slots == 0 ? 0 : n_slots == 1 ? 32 : 2);
	assert_int_equal(counters.slot_hits, n_slots <= 1 ? 0 : 30);
	inl_dev_counters(inl_dev_child(dev, 0), &below);
	assert_int_equal(below.engine_units_encrypted + below.engine_units_decrypted, 0);
	assert_int_equal(below.fallback_units_encrypted + below.fallback_units_decrypted, 0);
	assert_int_equal(below.bytes_written, 128 * KIB);
	inl_dev_close(dev);
	free(cipher);
}

static void test_engine(void **state)
{
	static const struct {
		enum inl_blk_mode mode;
		uint32_t unit;
	} rows[] = {
		{ INL_BLK_MODE_AES_256_XTS, 512 },
		{ INL_BLK_MODE_AES_256_XTS, 4096 },
		{ INL_BLK_MODE_AES_128_CBC_ESSIV, 4096 },
	};
	const char *path = path_of("engine");
	uint8_t *want = malloc(128 * KIB), *raw = malloc(128 * KIB);

	for (unsigned i = 0; i < 3; i++) {
		struct inl_dev *dev = open_dev("ram(1M)", INL_OPEN_WRITE);
		struct inl_counters counters;
		int fd;

		run_keyed(dev, rows[i].mode, rows[i].unit, want, false);
		inl_dev_counters(dev, &counters);
		assert_int_equal(counters.fallback_units_encrypted, 128 * KIB / rows[i].unit);
		assert_int_equal(counters.fallback_units_decrypted, 128 * KIB / rows[i].unit);
		assert_int_equal(counters.engine_units_encrypted + counters.engine_units_decrypted, 0);
		inl_dev_close(dev);

		check_engine("engine(ram(1M), slots=1)", rows[i].mode, rows[i].unit, want, 1);
		check_engine("engine(ram(1M), slots=3)", rows[i].mode, rows[i].unit, want, 3);
		check_engine("engine(ram(1M), slots=0)", rows[i].mode, rows[i].unit, want, 0);
		fd = make_file(path, NULL, 1 * MIB);
		for (int n_slots = 0; n_slots <= 3; n_slots += n_slots ? 2 : 1) {
			assert_int_equal(ftruncate(fd, 0) | ftruncate(fd, 1 * MIB), 0);
			check_engine(format("engine(%s, slots=%d)", path, n_slots), rows[i].mode, rows[i].unit, want,
				     n_slots);
			assert_int_equal(pread(fd, raw, 128 * KIB, 0), 128 * KIB);
			assert_memory_equal(raw, want, 128 * KIB);
		}
		close(fd);
	}
	free(want);
	free(raw);
}

/* An engine below a stack: the context goes down, and nothing above does the work. */
static void test_engine_below_slice(void **state)
{
	struct inl_dev *dev = open_dev("slice(engine(ram(2M), slots=1), offset=1M)", INL_OPEN_WRITE);
	struct inl_dev *plain = open_dev("ram(1M)", INL_OPEN_WRITE);
	uint8_t *cipher = malloc(128 * KIB), *want = malloc(128 * KIB);
	struct inl_counters counters;
	struct inl_caps caps, below;

	assert_int_equal(inl_dev_n_slots(dev), -1);
	inl_dev_caps(dev, &caps);
	inl_dev_caps(inl_dev_child(dev, 0), &below);
	assert_true(inl_caps_superset(&caps, &below));
	run_keyed(dev, INL_BLK_MODE_AES_256_XTS, 4096, cipher, true);
	run_keyed(plain, INL_BLK_MODE_AES_256_XTS, 4096, want, false);
	assert_memory_equal(cipher, want, 128 * KIB);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.engine_units_encrypted + counters.fallback_units_encrypted, 0);
	inl_dev_counters(inl_dev_child(dev, 0), &counters);
	assert_int_equal(counters.engine_units_encrypted, 32);
	inl_dev_close(dev);
	inl_dev_close(plain);
	free(cipher);
	free(want);
}

/* What the engine cannot do the fallback does before it, and the ciphertext passes through. */
static void test_engine_limits(void **state)
{
	static const struct {
		const char *spec;
		enum inl_blk_mode mode;
		uint32_t unit;
		bool native;
	} rows[] = {
		{ "engine(ram(1M), modes=aes-128-cbc-essiv)", INL_BLK_MODE_AES_256_XTS, 4096, false },
		{ "engine(ram(1M), modes=aes-256-xts)", INL_BLK_MODE_AES_256_XTS, 4096, true },
		{ "engine(ram(1M), modes=AES-128-CBC-ESSIV+AES-256-XTS)", INL_BLK_MODE_AES_256_XTS, 4096, true },
		{ "engine(ram(1M), unit=512+1K)", INL_BLK_MODE_AES_256_XTS, 4096, false },
		{ "engine(ram(1M), unit=512+4K)", INL_BLK_MODE_AES_256_XTS, 4096, true },
		{ "engine(ram(1M), dun_bytes=7)", INL_BLK_MODE_AES_256_XTS, 4096, false },
		{ "engine(ram(1M), dun_bytes=8)", INL_BLK_MODE_AES_256_XTS, 4096, true },
	};
	uint8_t *cipher = malloc(128 * KIB), *want = malloc(128 * KIB);
	struct inl_dev *dev = open_dev("ram(1M)", INL_OPEN_WRITE);

	run_keyed(dev, INL_BLK_MODE_AES_256_XTS, 4096, want, false);
	inl_dev_close(dev);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_counters counters;

		dev = open_dev(rows[i].spec, INL_OPEN_WRITE);
		run_keyed(dev, rows[i].mode, rows[i].unit, cipher, rows[i].native);
		assert_memory_equal(cipher, want, 128 * KIB);
		inl_dev_counters(dev, &counters);
		assert_int_equal(counters.engine_units_encrypted, rows[i].native ? 32 : 0);
		assert_int_equal(counters.fallback_units_encrypted, rows[i].native ? 0 : 32);
		inl_dev_close(dev);
	}
	free(cipher);
	free(want);
}

static void test_engine_caps(void **state)
{
	struct inl_dev *dev = open_dev("engine(ram(1M))", 0);
	struct inl_caps caps;

	inl_dev_caps(dev, &caps);
	assert_int_equal(inl_dev_n_slots(dev), 4);
	assert_int_equal(caps.max_dun_bytes, 8);
	assert_int_equal(caps.key_types, INL_KEY_RAW);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 0x1fe00);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV], 0x1fe00);
	inl_dev_close(dev);
	dev = open_dev("engine(ram(1M), modes=aes-256-xts, unit=4096+512, dun_bytes=32)", 0);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.max_dun_bytes, 32);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 0x1200);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV], 0);
	inl_dev_close(dev);

	refuses("engine(ram(1M), modes=rot13)", 0, -EINVAL, "column 23: unknown mode 'rot13' (known: AES-256-XTS, ");
	refuses("engine(ram(1M), modes=aes-256-xts+)", 0, -EINVAL, "unknown mode ''");
	refuses("engine(ram(1M), modes=aes-256-xt)", 0, -EINVAL, "unknown mode 'aes-256-xt'");
	refuses("engine(ram(1M), unit=8)", 0, -EINVAL, "column 22: unit '8': expected powers of two, 16 to 65536");
	refuses("engine(ram(1M), unit=4096+1000)", 0, -EINVAL, "unit '1000'");
	refuses("engine(ram(1M), unit=128K)", 0, -EINVAL, "unit '128K'");
	refuses("engine(ram(1M), slots=1025)", 0, -EINVAL, "column 23: slots 1025: expected 0 to 1024");
	refuses("engine(ram(1M), dun_bytes=0)", 0, -EINVAL, "dun_bytes 0: expected 1 to 32");
	refuses("engine(ram(1M), dun_bytes=33)", 0, -EINVAL, "dun_bytes 33: expected 1 to 32");
	refuses("engine(ram(0))", 0, -EINVAL, "column 12: expected at least one block");
}

/* Plain bios pass an engine untouched, every operation of them; a read-only engine refuses. */
static void test_engine_plain(void **state)
{
	struct inl_dev *dev = open_dev("engine(ram(1M), slots=1)", INL_OPEN_WRITE);
	struct inl_counters counters;
	uint8_t buf[512] = { 0 };

	exercise(dev);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 4096), 0);
	inl_dev_counters(dev, &counters);
	assert_int_equal(counters.engine_units_encrypted + counters.engine_units_decrypted, 0);
	assert_int_equal(counters.slot_programs, 0);
	inl_dev_close(dev);

	dev = open_dev("engine(ram(1M), slots=1)", 0);
	struct inl_key *key = make_key(INL_BLK_MODE_AES_256_XTS, 512, 8, 31);
	struct inl_key_use *use;

	assert_int_equal(inl_key_start(dev, key, &use), 0);
	struct inl_crypt_ctx ctx = { use, { 0 } };

	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 512, &ctx), -EROFS);
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), -EROFS);
	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 512, &ctx), 0);
	assert_false(all_zero(buf, 512)); /* zeros, decrypted */
	assert_int_equal(inl_key_evict(use), 0);
	inl_key_put(key);
	inl_dev_close(dev);
}

/* An error of the device below comes up through the engine, and its slot is free again. */
static void test_engine_errors(void **state)
{
	const char *path = path_of("engine-errors");
	struct inl_dev *dev;
	struct inl_key *keys[2];
	struct inl_key_use *uses[2];
	uint8_t buf[4096] = { 0 };

	close(make_file(path, NULL, 1 * MIB));
	dev = open_dev(format("engine(%s, slots=1)", path), INL_OPEN_WRITE);
	for (unsigned i = 0; i < 2; i++) {
		keys[i] = make_key(INL_BLK_MODE_AES_256_XTS, 4096, 8, 41 + i);
		assert_int_equal(inl_key_start(dev, keys[i], &uses[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		struct inl_crypt_ctx ctx = { uses[i % 2], { i } };

		fault.transfer_errno = EIO;
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 4096, &ctx), -EIO);
		assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 4096, &ctx), -EIO);
		fault.transfer_errno = 0;
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, 4096, &ctx), 0);
		assert_int_equal(inl_dev_read_keyed(dev, 0, buf, 4096, &ctx), 0);
		assert_true(all_zero(buf, 4096));
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(inl_key_evict(uses[i]), 0);
		inl_key_put(keys[i]);
	}
	inl_dev_close(dev);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/inlay-drivers-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	return system(format("rm -r '%s'", dir));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spec_parses),
		cmocka_unit_test(test_spec_refuses),
		cmocka_unit_test(test_spec_limits),
		cmocka_unit_test(test_spec_sizes),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_open_misspelt),
		cmocka_unit_test(test_open_fallback),
		cmocka_unit_test(test_open_bounce),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_ram_options),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_refuses),
		cmocka_unit_test(test_file_locks),
		cmocka_unit_test(test_file_short_transfers),
		cmocka_unit_test(test_file_many_segments),
		cmocka_unit_test(test_file_truncated),
		cmocka_unit_test(test_file_errors),
		cmocka_unit_test(test_file_failed_flush),
		cmocka_unit_test(test_file_fua),
		cmocka_unit_test(test_file_ranges),
		cmocka_unit_test(test_file_direct),
		cmocka_unit_test(test_slice),
		cmocka_unit_test(test_slice_refuses),
		cmocka_unit_test(test_gpt),
		cmocka_unit_test(test_gpt_hostile_headers),
		cmocka_unit_test(test_gpt_huge_array),
		cmocka_unit_test(test_gpt_bad_entries),
		cmocka_unit_test(test_mbr),
		cmocka_unit_test(test_mbr_hostile),
		cmocka_unit_test(test_part_mutations),
		cmocka_unit_test(test_part_device),
		cmocka_unit_test(test_part_large_blocks),
		cmocka_unit_test(test_mbr_direct),
		cmocka_unit_test(test_part_sfdisk),
		cmocka_unit_test(test_block_device),
		cmocka_unit_test(test_part_kernel),
		cmocka_unit_test(test_engine),
		cmocka_unit_test(test_engine_below_slice),
		cmocka_unit_test(test_engine_limits),
		cmocka_unit_test(test_engine_caps),
		cmocka_unit_test(test_engine_plain),
		cmocka_unit_test(test_engine_errors),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
