/*
 * tests/mount/posix_shared.c: many processes in one directory, and what must be true for each of them, and at the end.
 * Not here: comparing with another file system: who comes first is chance (posix.c).
 * Read more: HACKING.md, "Tests".
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_PROCS   32u
#define N_DIRS    3u
#define N_OWN     24u
#define N_ROUNDS  400u
#define STRIPE    100u
#define N_STRIPES 60u
#define N_CELLS   2048u

enum race { RACE_OPEN, RACE_MKDIR, RACE_LINK, RACE_SYMLINK, RACE_RENAME, RACE_UNLINK, N_RACES };

/* In memory that all share, beside the file system. */
static struct {
	atomic_ulong n_failures;
	atomic_uint wins[N_RACES][N_ROUNDS];
	unsigned long n_names[N_PROCS], n_dirs[N_PROCS][N_DIRS], n_links[N_PROCS], counted[N_PROCS][3],
		appended[N_PROCS];
	atomic_uint arrived;
} * shared;

static unsigned me, n_procs;
static const char *doing;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
	char line[400];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (atomic_fetch_add(&shared->n_failures, 1) < 20)
		dprintf(1, "FAILED %s, %s %u: %s\n", doing, me < n_procs ? "process" : "after", me, line);
}

static void complain_errno(const char *call, const char *name)
{
	complain("%s %s: %s", call, name, strerrorname_np(errno));
}

static void make_file(const char *name, const void *data, size_t len)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len || close(fd))
		complain_errno("cannot make", name);
}

/* ---- names: of its own each process finds what it made, and nothing else ----------------------------------------- */

static struct own {
	unsigned dir, serial; /* serial 0: there is none */
	bool is_dir;
} own[N_OWN];
static unsigned serial;

static void own_path(char path[64], unsigned dir, unsigned number)
{
	snprintf(path, 64, "s%u/p%u-%u%s", dir, me, number, number % 5 ? "" : "-with-a-longer-name-than-most");
}

static void make_own(struct own *o)
{
	char path[64], text[64];

	*o = (struct own){ (unsigned)px_rng(N_DIRS), ++serial, px_rng(4) == 0 };
	own_path(path, o->dir, o->serial);
	if (o->is_dir) {
		if (mkdir(path, 0755))
			complain_errno("mkdir", path);
		return;
	}
	snprintf(text, sizeof(text), "%u by %u", o->serial, me);
	make_file(path, text, strlen(text));
}

static void remove_own(struct own *o)
{
	char path[64];

	own_path(path, o->dir, o->serial);
	if (o->is_dir ? rmdir(path) : unlink(path))
		complain_errno("remove", path);
	o->serial = 0;
}

static void check_own(const struct own *o, unsigned contents)
{
	char path[64], wanted[64], got[64];
	struct stat st;
	ssize_t len;
	int fd;

	own_path(path, o->dir, o->serial);
	if (stat(path, &st)) {
		complain_errno("stat", path);
		return;
	}
	if (o->is_dir)
		return;
	snprintf(wanted, sizeof(wanted), "%u by %u", contents, me);
	fd = open(path, O_RDONLY);
	len = fd < 0 ? -1 : read(fd, got, sizeof(got) - 1);
	got[len < 0 ? 0 : len] = 0;
	if (strcmp(got, wanted))
		complain("%s has '%s', wanted '%s'", path, got, wanted);
	if (fd >= 0)
		close(fd);
}

/* Its contents stay those of the old number: so it is looked at, and written again. */
static void move_own(struct own *o)
{
	char from[64], to[64], text[64];
	struct own old = *o;

	o->dir = (unsigned)px_rng(N_DIRS);
	o->serial = ++serial;
	own_path(from, old.dir, old.serial);
	own_path(to, o->dir, o->serial);
	if (rename(from, to)) {
		complain_errno("rename", from);
		return;
	}
	if (!access(from, F_OK) || errno != ENOENT)
		complain("%s is still there", from);
	check_own(o, old.serial);
	snprintf(text, sizeof(text), "%u by %u", o->serial, me);
	if (!o->is_dir)
		make_file(to, text, strlen(text));
}

static void count_listed(unsigned dir, struct px_list *list)
{
	char path[64], prefix[16];
	unsigned n = 0, wanted = 0;

	snprintf(prefix, sizeof(prefix), "p%u-", me);
	for (size_t i = 0; i < list->n; i++) {
		if (i && !strcmp(list->names[i] + 1, list->names[i - 1] + 1))
			complain("s%u has %s twice", dir, list->names[i] + 1);
		n += !strncmp(list->names[i] + 1, prefix, strlen(prefix));
	}
	for (unsigned i = 0; i < N_OWN; i++) {
		bool found = false;

		if (!own[i].serial || own[i].dir != dir)
			continue;
		own_path(path, dir, own[i].serial);
		for (size_t k = 0; k < list->n && !found; k++)
			found = !strcmp(list->names[k] + 1, path + 3);
		if (!found)
			complain("%s is not listed", path);
		wanted++;
	}
	if (n != wanted)
		complain("s%u lists %u names of its own, wanted %u", dir, n, wanted);
}

static void list_own(unsigned dir)
{
	struct px_list list = { 0 };
	char path[16];
	int fd;

	snprintf(path, sizeof(path), "s%u", dir);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0 || px_list_fd(fd, &list))
		complain_errno("list", path);
	else
		count_listed(dir, &list);
	px_list_free(&list);
	if (fd >= 0)
		close(fd);
}

static void prepare_names(void)
{
	for (unsigned i = 0; i < N_DIRS; i++) {
		char path[16];

		snprintf(path, sizeof(path), "s%u", i);
		if (mkdir(path, 0755))
			complain_errno("mkdir", path);
	}
}

static void work_names(unsigned long n_ops)
{
	for (unsigned long i = 0; i < n_ops; i++) {
		struct own *o = &own[px_rng(N_OWN)];
		unsigned what = (unsigned)px_rng(10);

		if (!o->serial)
			make_own(o);
		else if (what < 3)
			remove_own(o);
		else if (what < 7)
			move_own(o);
		else if (what < 9)
			check_own(o, o->serial);
		else
			list_own((unsigned)px_rng(N_DIRS));
	}
	for (unsigned i = 0; i < N_DIRS; i++)
		list_own(i);
	for (unsigned i = 0; i < N_OWN; i++) {
		if (!own[i].serial)
			continue;
		check_own(&own[i], own[i].serial);
		shared->n_names[me]++;
		shared->n_dirs[me][own[i].dir] += own[i].is_dir;
	}
}

static void judge_names(void)
{
	unsigned long n = 0, wanted = 0;

	for (unsigned i = 0; i < N_DIRS; i++) {
		struct px_list list = { 0 };
		unsigned long n_dirs = 0;
		struct stat st = { 0 };
		char path[16];
		int fd;

		snprintf(path, sizeof(path), "s%u", i);
		fd = open(path, O_RDONLY | O_DIRECTORY);
		if (fd < 0 || px_list_fd(fd, &list) || fstat(fd, &st))
			complain_errno("list", path);
		n += list.n;
		for (unsigned p = 0; p < n_procs; p++)
			n_dirs += shared->n_dirs[p][i];
		if (st.st_nlink != n_dirs + 2)
			complain("%s has %lu links, wanted %lu", path, (unsigned long)st.st_nlink, n_dirs + 2);
		px_list_free(&list);
		close(fd);
	}
	for (unsigned p = 0; p < n_procs; p++)
		wanted += shared->n_names[p];
	if (n != wanted)
		complain("%lu names, wanted %lu", n, wanted);
}

/* ---- counters: no increment under a lock is lost ----------------------------------------------------------------- */

static const char *const counters[] = { "count-fcntl", "count-flock", "count-ofd" };

static int lock_counter(unsigned which, int fd, bool on)
{
	struct flock lk = { .l_type = on ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 8 };

	if (which == 1)
		return flock(fd, on ? LOCK_EX : LOCK_UN);
	return fcntl(fd, which ? F_OFD_SETLKW : F_SETLKW, &lk);
}

static void prepare_counters(void)
{
	for (unsigned i = 0; i < 3; i++)
		make_file(counters[i], "\0\0\0\0\0\0\0", 8);
}

static void work_counters(unsigned long n_ops)
{
	int fds[3];

	for (unsigned i = 0; i < 3; i++)
		fds[i] = open(counters[i], O_RDWR);
	for (unsigned long i = 0; i < n_ops; i++) {
		unsigned which = (unsigned)px_rng(3);
		uint64_t value = 0;

		if (lock_counter(which, fds[which], true))
			complain_errno("lock", counters[which]);
		if (pread(fds[which], &value, 8, 0) != 8)
			complain_errno("read", counters[which]);
		value++;
		if (pwrite(fds[which], &value, 8, 0) != 8)
			complain_errno("write", counters[which]);
		if (lock_counter(which, fds[which], false))
			complain_errno("unlock", counters[which]);
		shared->counted[me][which]++;
	}
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
}

static void judge_counters(void)
{
	for (unsigned i = 0; i < 3; i++) {
		uint64_t value = 0, wanted = 0;
		int fd = open(counters[i], O_RDONLY);

		if (fd < 0 || pread(fd, &value, 8, 0) != 8)
			complain_errno("read", counters[i]);
		for (unsigned p = 0; p < n_procs; p++)
			wanted += shared->counted[p][i];
		if (value != wanted)
			complain("%s is %llu, wanted %llu", counters[i], (unsigned long long)value,
				 (unsigned long long)wanted);
		close(fd);
	}
}

/* ---- append: every record is there, once, whole, and in the order of who wrote it -------------------------------- */

struct record {
	uint32_t magic, process, number, len; /* of all of it */
	uint64_t hash;                        /* of what follows */
};

#define RECORD_MAGIC 0x1a2b3c4du
#define MOST         6000u

static void work_append(unsigned long n_ops)
{
	static uint8_t buf[sizeof(struct record) + MOST];
	int fd = open("append", O_WRONLY | O_APPEND | O_CREAT, 0644);

	for (unsigned long i = 0; i < n_ops; i++) {
		size_t len = px_rng(px_rng(4) ? 100 : MOST);
		struct record r = { RECORD_MAGIC, me, (uint32_t)i, (uint32_t)(sizeof(r) + len), 0 };

		px_fill(buf + sizeof(r), len);
		r.hash = px_hash(0, buf + sizeof(r), len);
		memcpy(buf, &r, sizeof(r));
		if (write(fd, buf, r.len) != (ssize_t)r.len)
			complain_errno("write", "append");
		shared->appended[me]++;
	}
	close(fd);
}

static void judge_append(void)
{
	static uint8_t buf[MOST];
	unsigned long next[N_PROCS] = { 0 };
	int fd = open("append", O_RDONLY);
	struct record r;
	off_t at = 0;

	while (pread(fd, &r, sizeof(r), at) == (ssize_t)sizeof(r)) {
		size_t len = r.len - sizeof(r);

		if (r.magic != RECORD_MAGIC || r.process >= n_procs || len > MOST ||
		    pread(fd, buf, len, at + (off_t)sizeof(r)) != (ssize_t)len || px_hash(0, buf, len) != r.hash) {
			complain("no whole record at 0x%llx", (unsigned long long)at);
			break;
		}
		if (r.number != next[r.process])
			complain("record %u of process %u where %lu should be", r.number, r.process, next[r.process]);
		next[r.process] = r.number + 1ul;
		at += (off_t)r.len;
	}
	for (unsigned p = 0; p < n_procs; p++) {
		if (next[p] != shared->appended[p])
			complain("%lu records of process %u, wanted %lu", next[p], p, shared->appended[p]);
	}
	close(fd);
}

/* ---- replace: who opens a file that others rename over sees one of them, whole ----------------------------------- */

/* The contents follow from who wrote them and which version they are. */
static size_t version_of(unsigned process, uint32_t version, uint8_t *buf)
{
	struct px saved = { .dice = px->dice };
	size_t len;

	px->dice = process * 1000003ull + version;
	len = 16 + px_rng(30000);
	px_fill(buf, len);
	memcpy(buf, &version, 4);
	px->dice = saved.dice;
	return len;
}

static void replace(uint32_t version)
{
	char temporary[32], name[32];

	snprintf(temporary, sizeof(temporary), "r%u.new", me);
	snprintf(name, sizeof(name), "r%u", me);
	make_file(temporary, px_buf, version_of(me, version, px_buf));
	if (rename(temporary, name))
		complain_errno("rename", temporary);
}

static uint32_t look_at(unsigned process, uint32_t least)
{
	static uint8_t wanted[PX_BUF];
	uint32_t version = 0;
	char name[32];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "r%u", process);
	fd = open(name, O_RDONLY);
	got = fd < 0 ? -1 : read(fd, px_buf, PX_BUF);
	if (got < 4) {
		complain("%s: %zd bytes (%s)", name, got, got < 0 ? strerrorname_np(errno) : "short");
	} else {
		memcpy(&version, px_buf, 4);
		if ((size_t)got != version_of(process, version, wanted) || memcmp(px_buf, wanted, (size_t)got))
			complain("%s: %zd bytes of version %u are not what was written", name, got, version);
		if (version < least)
			complain("%s: version %u after version %u", name, version, least);
	}
	if (fd >= 0)
		close(fd);
	return version;
}

static void prepare_replace(void)
{
	for (me = 0; me < n_procs; me++)
		replace(0);
}

static void work_replace(unsigned long n_ops)
{
	uint32_t seen[N_PROCS] = { 0 }, version = 0;

	for (unsigned long i = 0; i < n_ops; i++) {
		unsigned other = (unsigned)px_rng(n_procs);

		if (px_rng(3) == 0)
			replace(++version);
		else
			seen[other] = look_at(other, seen[other]);
	}
}

/* ---- races: of all who make or remove the same name, one does ---------------------------------------------------- */

static long enter(enum race kind, unsigned round)
{
	char name[32], mine[32];
	long ret;
	int fd;

	snprintf(name, sizeof(name), "race-%d-%u", kind, round);
	snprintf(mine, sizeof(mine), "mine-%u", me);
	switch (kind) {
	case RACE_OPEN: fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644); return fd < 0 ? -1 : close(fd);
	case RACE_MKDIR: return mkdir(name, 0755);
	case RACE_LINK: return link(mine, name);
	case RACE_SYMLINK: return symlink(mine, name);
	case RACE_RENAME:
		snprintf(mine, sizeof(mine), "moves-%u", me);
		make_file(mine, "", 0);
		ret = renameat2(AT_FDCWD, mine, AT_FDCWD, name, 1 /* RENAME_NOREPLACE */);
		fd = errno;
		if (ret && unlink(mine))
			complain_errno("unlink", mine);
		errno = fd;
		return ret;
	default: snprintf(name, sizeof(name), "race-%d-%u", RACE_OPEN, round); return unlink(name);
	}
}

static void run_race(enum race kind, unsigned round)
{
	int lost = kind == RACE_UNLINK ? ENOENT : EEXIST;

	if (!enter(kind, round))
		atomic_fetch_add(&shared->wins[kind][round], 1);
	else if (errno != lost)
		complain("race %d, round %u: %s", kind, round, strerrorname_np(errno));
}

static void work_races(unsigned long n_ops)
{
	unsigned n = n_ops / 4 < N_ROUNDS ? (unsigned)n_ops / 4 : N_ROUNDS;
	char mine[32];

	snprintf(mine, sizeof(mine), "mine-%u", me);
	make_file(mine, "", 0);
	for (unsigned round = 0; round < n; round++) {
		for (enum race kind = 0; kind < RACE_UNLINK; kind++)
			run_race(kind, round);
	}
	atomic_fetch_add(&shared->arrived, 1);
	while (atomic_load(&shared->arrived) < n_procs)
		usleep(200);
	for (unsigned round = 0; round < n; round++)
		run_race(RACE_UNLINK, round);
}

static void judge_races(void)
{
	for (unsigned kind = 0; kind < N_RACES; kind++) {
		for (unsigned round = 0; round < N_ROUNDS; round++) {
			unsigned n = atomic_load(&shared->wins[kind][round]);

			if (n != 1 && (n || atomic_load(&shared->wins[0][round])))
				complain("race %u, round %u: %u have won", kind, round, n);
		}
	}
}

/* ---- links: the count is right at the end ------------------------------------------------------------------------ */

static void prepare_links(void)
{
	make_file("one", "of many names", 13);
}

static void work_links(unsigned long n_ops)
{
	bool there[40] = { false };
	struct stat st;

	for (unsigned long i = 0; i < n_ops; i++) {
		unsigned which = (unsigned)px_rng(PX_COUNT(there));
		char name[32];

		snprintf(name, sizeof(name), "l%u-%u", me, which);
		if (there[which] ? unlink(name) : link("one", name))
			complain_errno(there[which] ? "unlink" : "link", name);
		there[which] = !there[which];
		if (stat("one", &st) || st.st_nlink < 1 || st.st_nlink > 1 + n_procs * PX_COUNT(there))
			complain("%lu links", (unsigned long)st.st_nlink);
	}
	for (unsigned i = 0; i < PX_COUNT(there); i++)
		shared->n_links[me] += there[i];
}

static void judge_links(void)
{
	unsigned long wanted = 1;
	struct stat st;

	for (unsigned p = 0; p < n_procs; p++)
		wanted += shared->n_links[p];
	if (stat("one", &st) || st.st_nlink != wanted)
		complain("%lu links, wanted %lu", (unsigned long)st.st_nlink, wanted);
}

/* ---- stripes: neighbours in the same block do not write over each other ------------------------------------------ */

static void work_stripes(unsigned long n_ops)
{
	uint8_t want[N_STRIPES][STRIPE] = { { 0 } }, got[STRIPE];
	bool written[N_STRIPES] = { false };
	int fd = open("stripes", O_CREAT | O_RDWR, 0644);

	for (unsigned long i = 0; i < n_ops; i++) {
		unsigned which = (unsigned)px_rng(N_STRIPES);
		off_t at = (off_t)(which * n_procs + me) * STRIPE;

		if (!written[which] || px_rng(2)) {
			px_fill(want[which], STRIPE);
			written[which] = true;
			if (pwrite(fd, want[which], STRIPE, at) != STRIPE)
				complain_errno("write", "stripes");
		} else if (pread(fd, got, STRIPE, at) != STRIPE || memcmp(got, want[which], STRIPE)) {
			complain("what it wrote at 0x%llx is not there", (unsigned long long)at);
		}
		if (!px_rng(100) && fdatasync(fd))
			complain_errno("fdatasync", "stripes");
	}
	for (unsigned i = 0; i < N_STRIPES; i++) {
		off_t at = (off_t)(i * n_procs + me) * STRIPE;

		if (written[i] && (pread(fd, got, STRIPE, at) != STRIPE || memcmp(got, want[i], STRIPE)))
			complain("at the end what it wrote at 0x%llx is not there", (unsigned long long)at);
	}
	close(fd);
}

/* ---- mapped: all see the same pages ------------------------------------------------------------------------------ */

static void prepare_mapped(void)
{
	int fd = open("mapped", O_CREAT | O_RDWR, 0644);

	if (fd < 0 || ftruncate(fd, N_CELLS * sizeof(atomic_uint)))
		complain_errno("ftruncate", "mapped");
	close(fd);
}

static void work_mapped(unsigned long n_ops)
{
	int fd = open("mapped", O_RDWR);
	atomic_uint *cells = mmap(NULL, N_CELLS * sizeof(*cells), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (cells == MAP_FAILED) {
		complain_errno("mmap", "mapped");
		return;
	}
	for (unsigned long i = 0; i < n_ops; i++) {
		atomic_fetch_add(&cells[px_rng(8) * (N_CELLS / 8)], 1);
		if (!px_rng(200) && msync(cells, N_CELLS * sizeof(*cells), px_rng(2) ? MS_SYNC : MS_ASYNC))
			complain_errno("msync", "mapped");
	}
	munmap(cells, N_CELLS * sizeof(*cells));
	close(fd);
	shared->appended[me] = n_ops;
}

static void judge_mapped(void)
{
	static unsigned cells[N_CELLS];
	unsigned long sum = 0, wanted = 0;
	int fd = open("mapped", O_RDONLY);

	if (fd < 0 || read(fd, cells, sizeof(cells)) != (ssize_t)sizeof(cells))
		complain_errno("read", "mapped");
	for (unsigned i = 0; i < N_CELLS; i++)
		sum += cells[i];
	for (unsigned p = 0; p < n_procs; p++)
		wanted += shared->appended[p];
	if (sum != wanted)
		complain("%lu increments, wanted %lu", sum, wanted);
	close(fd);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void nothing(void)
{
}

static const struct {
	const char *name;
	void (*prepare)(void);
	void (*work)(unsigned long n_ops);
	void (*judge)(void);
} checks[] = {
	{ "names", prepare_names, work_names, judge_names },
	{ "counters", prepare_counters, work_counters, judge_counters },
	{ "append", nothing, work_append, judge_append },
	{ "replace", prepare_replace, work_replace, nothing },
	{ "races", nothing, work_races, judge_races },
	{ "links", prepare_links, work_links, judge_links },
	{ "stripes", nothing, work_stripes, nothing },
	{ "mapped", prepare_mapped, work_mapped, judge_mapped },
};

static void run_check(size_t which, uint64_t seed, unsigned long n_ops)
{
	unsigned long before = atomic_load(&shared->n_failures);
	int status;

	doing = checks[which].name;
	checks[which].prepare();
	for (me = 0; me < n_procs; me++) {
		pid_t pid = fork();

		if (pid < 0)
			complain_errno("fork", "");
		if (!pid) {
			px->dice = (seed * 100 + which) * 1000003 + me;
			checks[which].work(n_ops);
			_exit(0);
		}
	}
	while (wait(&status) > 0) {
		if (status)
			complain("a process ended with status 0x%x", (unsigned)status);
	}
	checks[which].judge();
	if (atomic_load(&shared->n_failures) == before)
		dprintf(1, "ok %s\n", doing);
}

/* The memory of px is each process's own here. */
int px_shared(const char *dir, uint64_t seed, unsigned processes, unsigned long n_ops)
{
	static struct px state;

	px = &state;
	n_procs = processes < N_PROCS ? processes : N_PROCS;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || chdir(dir)) {
		perror(dir);
		return 2;
	}
	dprintf(1, "seed %llu, %u processes\n", (unsigned long long)seed, n_procs);
	for (size_t i = 0; i < PX_COUNT(checks); i++)
		run_check(i, seed, n_ops);
	return atomic_load(&shared->n_failures) != 0;
}
