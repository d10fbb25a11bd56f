/*
 * tests/unit/twin.c: random operations on a file system, the same ones for the same seed, and what it then holds.
 * Not here: the operations (twin_ops.c, twin_crypt.c, twin_script.c); who carries them out (twin_kernel.c, twin_inlay.c);
 * images, mounts, comparing (tests/kernel/test_twin.py).
 * Read more: HACKING.md, "Tests".
 *
 *   twin run  kernel|inlay TARGET SEED N [old] [crash] [CRYPT]    N operations, a line with its result for each
 *   twin script kernel|inlay TARGET [ro] [CRYPT]                  what standard input says: twin_script.c
 *   twin mend kernel|inlay TARGET                                 open for writing, close
 *   twin dump kernel|inlay TARGET [CRYPT]                         a line for each name: all that is to be seen of it
 *
 * CRYPT is [locked] policy=VERSION:FLAGS:LOG2_UNIT:KEY:KEY_LEN..., the policies that directories can have and, unless it is
 * locked, keys: KEY is a number.
 *
 * TARGET is a directory, the root of a mount, or an image. What an operation is depends on the seed, on what is there, and
 * on the results of those before: two sides differ at the first result that differs. `old`: inodes of 128 bytes. `crash`:
 * end after a last sync, with what is held still held, without closing anything.
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- run --------------------------------------------------------------------------------------------------------- */

/* Nobody says that lost+found must not be encrypted, but it must not: with policies about, it is left alone. */
static void note(const char *path, void *obj, const struct twin_stat *st)
{
	const char *slash = strrchr(path, '/');

	if (tw_n_policies && !strncmp(path, "lost+found", 10))
		return;
	if (path[0] && (slash ? slash[1] : path[0]) != '~')
		tw_add_entry(path, st->mode & S_IFMT);
}

/* Times of long ago, of all that is there: what is of today at the end has been changed. */
static void age(const char *path, void *obj, const struct twin_stat *st)
{
	struct twin_time time = { 1000000000 + (int64_t)(tw_hash_bytes(0, path, strlen(path)) % 100000000), 0 };
	int err = tw_side->utimes(obj, time, time);

	if (err && !(err == -EPERM && (st->marks & (TWIN_IMMUTABLE | TWIN_APPEND))))
		tw_die("cannot set the times of", path, err);
}

static struct timespec aged_at;

/* Waits so long that no clock that times are taken from says the same before and behind. */
static void note_start(void)
{
	nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
	clock_gettime(CLOCK_REALTIME, &aged_at);
	nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
}

/* The one time that cannot be set: before the start or behind it. */
static void show_changed(const char *path, void *obj, const struct twin_stat *st)
{
	bool later = st->ctime.sec > aged_at.tv_sec ||
		     (st->ctime.sec == aged_at.tv_sec && st->ctime.nsec > (uint32_t)aged_at.tv_nsec);

	tw_show(path[0] ? path : "/");
	printf(" was %s\n", later ? "changed" : "left alone");
}

static int run(uint64_t seed, unsigned long n, bool crash)
{
	int err;

	tw_dice = seed;
	tw_make_vaults();
	tw_walk("", age);
	tw_walk("", note);
	note_start();
	for (unsigned long i = 0; i < n; i++) {
		const struct op *op = tw_some_op();
		int64_t result;

		printf("%lu %s", i, op->name);
		result = op->fn();
		if (result < 0)
			printf(" = %s\n", strerrorname_np((int)-result));
		else
			printf(" = %" PRId64 "\n", result);
	}
	if (!tw_old_inodes)
		tw_walk("", show_changed);
	if (crash) {
		printf("sync = %d\n", tw_side->sync());
		fflush(stdout);
		_exit(0);
	}
	for (unsigned slot = 0; slot < N_HELD; slot++) {
		if (tw_held[slot].obj)
			tw_side->put(tw_held[slot].obj);
	}
	while (tw_n_entries)
		free(tw_entries[--tw_n_entries].path);
	err = tw_side->close();
	printf("close = %d\n", err);
	return err != 0;
}

/* ---- dump -------------------------------------------------------------------------------------------------------- */

/* The first path of each inode with several. */
static struct {
	uint64_t ino;
	char *path;
} links[2 * N_ENTRIES];
static unsigned n_links;

/* How many blocks a file has depends on what its map has been through: the history of a link is a short one. */
static void hash_target(void *obj, const struct twin_stat *st, int64_t *err)
{
	*err = tw_side->readlink(obj, (char *)tw_buf, TW_BUF_LEN);
	printf(" %" PRIu64 " %016" PRIx64 " in %" PRIu64, st->size,
	       *err > 0 ? tw_hash_bytes(0, tw_buf, (size_t)*err) : 0, st->blocks);
}

static const char *first_link(const char *path, const struct twin_stat *st)
{
	for (unsigned i = 0; i < n_links; i++) {
		if (links[i].ino == st->ino)
			return links[i].path;
	}
	if (n_links < COUNT(links)) {
		links[n_links].ino = st->ino;
		links[n_links++].path = strdup(path);
	}
	return path;
}

static void hash_blocks(uint64_t *hash, uint64_t offset, size_t len)
{
	static const uint8_t zeros[4096];

	for (size_t i = 0; i < len; i += 4096) {
		size_t n = len - i < 4096 ? len - i : 4096;

		if (memcmp(tw_buf + i, zeros, n))
			*hash = tw_hash_bytes(*hash ^ (offset + i), tw_buf + i, n);
	}
}

/* Blocks of zeros are not told from holes. */
static int hash_data(void *obj, uint64_t *hash)
{
	uint64_t start, end = 0;
	int err;

	*hash = 0;
	while (!(err = tw_side->next_data(obj, end, &start, &end))) {
		start &= ~4095ull;
		end = (end + 4095) & ~4095ull;
		while (start < end) {
			size_t len = end - start < TW_BUF_LEN ? (size_t)(end - start) : TW_BUF_LEN;
			int64_t got = tw_side->read(obj, start, tw_buf, len);

			if (got <= 0)
				return (int)got;
			hash_blocks(hash, start, (size_t)got);
			start += (uint64_t)got;
		}
	}
	return err == -ENXIO ? 0 : err;
}

static void collect_xattr(const char *name, const void *value, size_t len, void *arg)
{
	char line[400];

	if (!strcmp(name, "security.selinux"))
		return;
	snprintf(line, sizeof(line), "%s=%zu:%016" PRIx64, name, len, tw_hash_bytes(0, value, len));
	tw_collect(line, 0, arg);
}

static void show_time(const char *what, struct twin_time t)
{
	time_t now = time(NULL);

	if (t.sec > now - 86400 && t.sec < now + 86400)
		printf(" %s=now", what);
	else
		printf(" %s=%" PRId64 ".%09" PRIu32, what, t.sec, t.nsec);
}

static void dump_one(const char *path, void *obj, const struct twin_stat *st)
{
	struct names xattrs = { 0 };
	int64_t err = tw_side->xattrs(obj, collect_xattr, &xattrs);
	uint64_t hash = 0;

	tw_show(path[0] ? path : "/");
	printf(" %o %u %u:%u %02x", st->mode, st->nlink, st->uid, st->gid, st->marks);
	show_time("mtime", st->mtime);
	show_time("atime", st->atime);
	if (!err)
		err = tw_show_policy(obj, st);
	if (!err && S_ISREG(st->mode) && tw_locked && st->encrypted) {
		printf(" %" PRIu64, st->size);
	} else if (!err && S_ISREG(st->mode)) {
		err = hash_data(obj, &hash);
		printf(" %" PRIu64 " %016" PRIx64, st->size, hash);
	} else if (!err && S_ISLNK(st->mode)) {
		hash_target(obj, st, &err);
	} else if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		printf(" %u:%u", st->rdev_major, st->rdev_minor);
	}
	if (!S_ISDIR(st->mode) && st->nlink > 1) {
		printf(" is ");
		tw_show(first_link(path, st));
	}
	if (xattrs.n)
		qsort(xattrs.names, xattrs.n, sizeof(*xattrs.names), tw_compare_names);
	for (size_t i = 0; i < xattrs.n; i++)
		printf(" %s", xattrs.names[i]);
	tw_free_names(&xattrs);
	if (err < 0)
		printf(" %s", strerrorname_np((int)-err));
	putchar('\n');
}

static int dump(void)
{
	tw_walk("", dump_one);
	while (n_links)
		free(links[--n_links].path);
	return tw_side->close() != 0;
}

static int usage(void)
{
	fputs("usage: twin run kernel|inlay TARGET SEED N [old] [crash] [locked] [policy=...]...\n"
	      "       twin script kernel|inlay TARGET [ro] [locked] [policy=...]...\n"
	      "       twin mend kernel|inlay TARGET\n"
	      "       twin dump kernel|inlay TARGET [locked] [policy=...]...\n", stderr);
	return 2;
}

static bool crash, read_only;

static bool parse_options(char **options)
{
	for (; *options; options++) {
		if (!strcmp(*options, "old"))
			tw_old_inodes = true;
		else if (!strcmp(*options, "crash"))
			crash = true;
		else if (!strcmp(*options, "ro"))
			read_only = true;
		else if (!strcmp(*options, "locked"))
			tw_locked = true;
		else if (strncmp(*options, "policy=", 7) || !tw_parse_policy(*options + 7))
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 3 ? argv[1] : "";
	bool runs = argc > 5 && !strcmp(verb, "run"), dumps = !strcmp(verb, "dump"), mends = !strcmp(verb, "mend");
	int err;

	if (!runs && !dumps && !mends && strcmp(verb, "script"))
		return usage();
	if (!parse_options(argv + (runs ? 6 : 4)))
		return usage();
	tw_side = !strcmp(argv[2], "kernel") ? &tw_kernel : &tw_inlay;
	umask(0);
	err = tw_side->open(argv[3], dumps || read_only);
	if (err) {
		printf("cannot open %s: %s\n", argv[3], strerror(-err));
		return 1;
	}
	if (mends)
		return tw_side->close() != 0;
	err = tw_add_keys();
	if (err)
		tw_die("cannot add keys to", argv[3], err);
	if (dumps)
		return dump();
	return runs ? run(strtoull(argv[4], NULL, 0), strtoul(argv[5], NULL, 0), crash) : tw_script();
}
