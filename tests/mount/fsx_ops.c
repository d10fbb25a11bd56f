/*
 * tests/mount/fsx_ops.c: what is done to files at random, and a case that has a name.
 * Not here: how it is done, and what must be true then (fsx_file.c).
 * Read more: HACKING.md, "Tests".
 */
#include "tests/mount/fsx.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PUNCH    (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* ---- chance ------------------------------------------------------------------------------------------------------ */

static struct fx_file *some_file(void)
{
	return &fx.files[fx_rng(FX_N_FILES)];
}

/* Near the end of the file, at or near a boundary of pages, or anywhere; below `limit`. */
static uint64_t some_offset(const struct fx_file *f, uint64_t limit)
{
	uint64_t offset;

	switch (fx_rng(4)) {
	case 0:
		offset = f->size + fx_rng(5000);
		offset -= offset < 2500 ? offset : 2500;
		break;
	case 1: offset = fx_rng(limit) & ~(uint64_t)(FX_PAGE - 1); break;
	case 2: offset = (fx_rng(limit) & ~(uint64_t)(FX_PAGE - 1)) + FX_PAGE - 8 + fx_rng(16); break;
	default: offset = fx_rng(limit);
	}
	return offset < limit ? offset : fx_rng(limit);
}

static size_t some_len(uint64_t room)
{
	static const uint64_t most[] = { 16, 600, FX_PAGE, 3 * FX_PAGE, 20000, 70000, 140000 };
	uint64_t len = fx_rng(5) ? 1 + fx_rng(most[fx_rng(COUNT(most))]) : FX_PAGE * (1 + fx_rng(8));

	if (!fx_rng(200))
		len = room;
	return len < room ? (size_t)len : (size_t)room;
}

/* A range before the end of the file, not empty. */
static bool some_range_inside(const struct fx_file *f, uint64_t *offset, size_t *len)
{
	if (!f->size)
		return false;
	*offset = some_offset(f, f->size);
	*len = some_len(f->size - *offset);
	return true;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static void op_write(struct fx_file *f)
{
	uint64_t offset = some_offset(f, fx.max);

	fx_write(f, offset, some_len(fx.max - offset), fx_rng(4) ? FX_PWRITE : FX_PWRITEV);
}

static void op_append(struct fx_file *f)
{
	if (f->size < fx.max)
		fx_write(f, 0, some_len(fx.max - f->size), FX_APPEND);
}

static void op_direct(struct fx_file *f)
{
	uint64_t offset = some_offset(f, fx.max) & ~(uint64_t)(FX_PAGE - 1);
	size_t len = (some_len(fx.max - offset) + FX_PAGE - 1) & ~(size_t)(FX_PAGE - 1);

	if (f->direct_fd < 0)
		return;
	if (fx_rng(2))
		fx_write(f, offset, len, FX_DIRECT);
	else
		fx_read(f, offset, len, FX_READ_DIRECT);
}

static void op_read(struct fx_file *f)
{
	uint64_t offset = some_offset(f, fx.max);

	fx_read(f, offset, some_len(fx.max - offset), fx_rng(4) ? FX_PREAD : FX_PREADV);
}

static void op_map_read(struct fx_file *f)
{
	uint64_t offset;
	size_t len;

	if (some_range_inside(f, &offset, &len))
		fx_map_read(f, offset, len);
}

static void op_map_write(struct fx_file *f)
{
	static const int flags[] = { 0, 0, MS_SYNC, MS_ASYNC };
	uint64_t offset;
	size_t len;

	if (some_range_inside(f, &offset, &len))
		fx_map_write(f, offset, len, flags[fx_rng(COUNT(flags))]);
}

static void op_map_private(struct fx_file *f)
{
	uint64_t offset;
	size_t len;

	if (some_range_inside(f, &offset, &len))
		fx_map_private(f, offset, len);
}

static void op_map(struct fx_file *f)
{
	if (!f->map) {
		fx_map(f);
		return;
	}
	fx_say("munmap file %ld", (long)(f - fx.files));
	fx_unmap(f);
}

static void op_truncate(struct fx_file *f)
{
	uint64_t size = fx_rng(12) ? some_offset(f, fx.max) : fx_rng(3) ? f->size : 0;

	fx_truncate(f, size, fx_rng(3) == 0);
}

static void op_fallocate(struct fx_file *f)
{
	static const int modes[] = { 0,     FALLOC_FL_KEEP_SIZE,  PUNCH,
				     PUNCH, FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	uint64_t offset = some_offset(f, fx.max);
	size_t len = some_len(fx.max - offset);

	fx_fallocate(f, modes[fx_rng(COUNT(modes))], offset, len);
	if (!fx_rng(3))
		fx_read(f, offset > 100 ? offset - 100 : 0, len, FX_PREAD);
	if (!fx_rng(3))
		fx_read(f, offset + len - 1, FX_PAGE, FX_PREAD);
}

static void op_copy(struct fx_file *f)
{
	struct fx_file *to = some_file();
	uint64_t offset, to_offset = some_offset(to, fx.max);
	size_t len;

	if (!some_range_inside(f, &offset, &len))
		return;
	if (len > fx.max - to_offset)
		len = (size_t)(fx.max - to_offset);
	if (to == f && to_offset < offset + len && offset < to_offset + len)
		return;
	fx_copy(f, offset, to, to_offset, len);
}

static void op_seek(struct fx_file *f)
{
	fx_seek(f);
}

static void op_sync(struct fx_file *f)
{
	unsigned how = (unsigned)fx_rng(16);

	fx_say("%s file %ld", how ? how % 2 ? "fsync" : "fdatasync" : "syncfs", (long)(f - fx.files));
	if (how ? how % 2 ? fsync(f->fd) : fdatasync(f->fd) : syncfs(f->fd))
		fx_fail_errno("sync");
}

static void op_evict(struct fx_file *f)
{
	fx_evict(f);
}

static void op_reopen(struct fx_file *f)
{
	bool truncate = !fx_rng(6);

	fx_say("reopen file %ld%s", (long)(f - fx.files), !f->linked ? ", a new one" : truncate ? ", O_TRUNC" : "");
	fx_reopen(f, truncate);
}

static void op_verify(struct fx_file *f)
{
	fx_say("read all of file %ld", (long)(f - fx.files));
	fx_verify(f);
}

/* It stays open, and is worked on until it is opened again. */
static void op_unlink(struct fx_file *f)
{
	if (!f->linked)
		return;
	fx_say("unlink file %ld", (long)(f - fx.files));
	if (FX_PATIENTLY(unlink(f->path)))
		fx_fail_errno("unlink");
	f->linked = false;
}

/* What had the name stays open, without one. */
static void op_rename(struct fx_file *f)
{
	struct fx_file *over = some_file();
	char path[sizeof(f->path)];

	if (over == f || !f->linked)
		return;
	fx_say("rename file %ld over file %ld", (long)(f - fx.files), (long)(over - fx.files));
	if (FX_PATIENTLY(rename(f->path, over->path)))
		fx_fail_errno("rename");
	memcpy(path, f->path, sizeof(path));
	memcpy(f->path, over->path, sizeof(path));
	memcpy(over->path, path, sizeof(path));
	over->linked = false;
}

static void expect_links(struct fx_file *f, unsigned n)
{
	struct stat st;

	if (fstat(f->fd, &st))
		fx_fail_errno("fstat");
	if (st.st_nlink != n)
		fx_fail("%u links, wanted %u", (unsigned)st.st_nlink, n);
}

/* Writes by way of a second name; then one of the two goes, and if it was the first, the second one takes its place. */
static void op_link(struct fx_file *f)
{
	uint64_t offset = some_offset(f, fx.max);
	int old = f->fd, fd;
	char second[600];

	if (!f->linked)
		return;
	fx_say("link file %ld", (long)(f - fx.files));
	snprintf(second, sizeof(second), "%s.second", f->path);
	if (FX_PATIENTLY(link(f->path, second)))
		fx_fail_errno("link");
	expect_links(f, 2);
	fd = FX_PATIENTLY(open(second, O_RDWR));
	if (fd < 0)
		fx_fail_errno("open of a link");
	f->fd = fd;
	fx_write(f, offset, some_len(fx.max - offset), FX_PWRITE);
	f->fd = old;
	if (close(fd))
		fx_fail_errno("close");
	if (fx_rng(2) ? FX_PATIENTLY(unlink(second)) :
			FX_PATIENTLY(unlink(f->path)) || FX_PATIENTLY(rename(second, f->path)))
		fx_fail_errno("unlink of a link");
}

static const struct {
	unsigned weight;
	void (*fn)(struct fx_file *f);
} ops[] = {
	{ 16, op_write },      { 5, op_append }, { 16, op_read },    { 8, op_map_read },  { 12, op_map_write },
	{ 2, op_map_private }, { 2, op_map },    { 8, op_truncate }, { 8, op_fallocate }, { 5, op_copy },
	{ 3, op_seek },        { 2, op_sync },   { 2, op_evict },    { 2, op_reopen },    { 5, op_verify },
	{ 1, op_unlink },      { 1, op_rename }, { 1, op_link },     { 4, op_direct },
};

void fx_some_op(void)
{
	struct fx_file *f = some_file();
	unsigned sum = 0, pick;

	for (size_t i = 0; i < COUNT(ops); i++)
		sum += ops[i].weight;
	pick = (unsigned)fx_rng(sum);
	for (size_t i = 0; i < COUNT(ops); i++) {
		if (pick < ops[i].weight) {
			ops[i].fn(f);
			break;
		}
		pick -= ops[i].weight;
	}
	for (unsigned i = 0; i < FX_N_FILES; i++)
		fx_check_size(&fx.files[i]);
}

/* ---- mmap_write_after_fallocate ---------------------------------------------------------------------------------- */

enum { RANGE = 3 * FX_PAGE + 100, RANGE_LEN = 6 * FX_PAGE, END = 16 * FX_PAGE };

static void after_write(struct fx_file *f)
{
	fx_write(f, 0, END, FX_PWRITE);
}

static void after_fallocate(struct fx_file *f)
{
	fx_fallocate(f, 0, 0, END);
}

static void after_fallocate_on(struct fx_file *f)
{
	fx_write(f, 0, RANGE, FX_PWRITE);
	fx_fallocate(f, 0, RANGE, END - RANGE);
}

static void after_keep_size(struct fx_file *f)
{
	fx_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, END);
	fx_truncate(f, END, false);
}

static void after_punch(struct fx_file *f)
{
	fx_write(f, 0, END, FX_PWRITE);
	fx_fallocate(f, PUNCH, RANGE, RANGE_LEN);
}

static void after_zero_range(struct fx_file *f)
{
	fx_write(f, 0, END, FX_PWRITE);
	fx_fallocate(f, FALLOC_FL_ZERO_RANGE, RANGE, RANGE_LEN);
}

static void after_truncate_up(struct fx_file *f)
{
	fx_write(f, 0, RANGE, FX_PWRITE);
	fx_truncate(f, END, false);
}

static void after_truncate_down_and_up(struct fx_file *f)
{
	fx_write(f, 0, END, FX_PWRITE);
	fx_truncate(f, RANGE, false);
	fx_truncate(f, END, false);
}

static void after_direct(struct fx_file *f)
{
	fx_fallocate(f, 0, 0, END);
	if (f->direct_fd >= 0)
		fx_write(f, FX_PAGE, 3 * FX_PAGE, FX_DIRECT);
}

static const struct {
	const char *name;
	void (*fn)(struct fx_file *f);
} befores[] = {
	{ "write", after_write },
	{ "fallocate", after_fallocate },
	{ "fallocate behind the end", after_fallocate_on },
	{ "fallocate with KEEP_SIZE, then truncate up", after_keep_size },
	{ "punch", after_punch },
	{ "zero range", after_zero_range },
	{ "truncate up", after_truncate_up },
	{ "truncate down and up", after_truncate_down_and_up },
	{ "a direct write into what was allocated", after_direct },
};

static void look_at_all(struct fx_file *f)
{
	fx_verify(f);
	fx_evict(f);
	fx_verify(f);
	fx_map_read(f, 0, f->size);
	fx_reopen(f, false);
	fx_verify(f);
}

/* how: bit 0, written back between all steps; bit 1, by a mapping that was there before; bit 2, with a read before. */
static void one_case(struct fx_file *f, void (*before)(struct fx_file *f), unsigned how)
{
	fx_reopen(f, true);
	if (how & 2)
		fx_map(f);
	before(f);
	if (how & 1)
		fx_evict(f);
	if (how & 4)
		fx_map_read(f, 0, f->size);
	fx_map_write(f, RANGE + FX_PAGE - 150, 300, how & 1 ? MS_SYNC : 0);
	fx_map_write(f, RANGE + 3 * FX_PAGE, 2 * FX_PAGE, how & 1 ? MS_SYNC : 0);
	fx_read(f, RANGE, RANGE_LEN, FX_PREAD);
	fx_write(f, RANGE + FX_PAGE, 20, FX_PWRITE);
	fx_map_write(f, f->size - 5, 5, 0);
	look_at_all(f);
}

void fx_named_case(void)
{
	for (size_t i = 0; i < COUNT(befores); i++) {
		for (unsigned how = 0; how < 8; how++) {
			fx.doing = befores[i].name;
			fx_say("mmap_write_after_fallocate: after %s, kind %u", befores[i].name, how);
			one_case(&fx.files[0], befores[i].fn, how);
		}
	}
	fx.doing = NULL;
	fx_truncate(&fx.files[0], 0, false);
	printf("process %u: mmap_write_after_fallocate: ok\n", fx.process);
}
