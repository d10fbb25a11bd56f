/*
 * bench/creates.c: creates in one directory, at its beginning and when it is large; what a commit writes.
 * Not here: whether that is what it should be (bench/change.py).
 * Read more: inlay/volume.h.
 *
 * creates IMAGE N: prints seconds per create of the second 10,000 and of the last 10,000, and the peak of memory in bytes.
 * creates IMAGE commit: prints how many bytes one changed inode writes.
 */
#include "base/clock.h"
#include <errno.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define PART 10000u

static void die(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "creates: %s: %s (%s)\n", what, strerror(-err), diag->text);
	exit(1);
}

static double create_part(struct inl_inode *dir, unsigned first)
{
	struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_diag diag = { 0 };
	uint64_t start = inl_now_ns();

	for (unsigned i = first; i < first + PART; i++) {
		char name[32];
		int len = snprintf(name, sizeof(name), "a file, number %u", i);
		int err = inl_create(dir, name, (size_t)len, &attr, 0, &diag, NULL);

		if (err)
			die(name, err, &diag);
	}
	return (double)(inl_now_ns() - start) / 1e9 / PART;
}

static void creates(struct inl_inode *dir, unsigned n)
{
	double early = 0, late = 0;
	struct rusage usage;

	for (unsigned first = 0; first + PART <= n; first += PART) {
		late = create_part(dir, first);
		if (first == PART)
			early = late;
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("%.9f %.9f %ld\n", early, late, usage.ru_maxrss * 1024);
}

static void commit(struct inl_dev *dev, struct inl_volume *vol, struct inl_inode *dir)
{
	struct inl_attr attr = { .mode = 0700 };
	struct inl_counters before, after;
	struct inl_diag diag = { 0 };
	int err = inl_setattr(dir, &attr, INL_ATTR_MODE, &diag);

	inl_dev_counters(dev, &before);
	if (!err)
		err = inl_sync(vol, &diag);
	if (err)
		die("commit", err, &diag);
	inl_dev_counters(dev, &after);
	printf("%llu\n", (unsigned long long)(after.bytes_written - before.bytes_written));
}

int main(int argc, char **argv)
{
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	struct inl_inode *dir;
	struct inl_dev *dev;
	int err;

	if (argc != 3)
		return 2;
	err = inl_dev_open(argv[1], INL_OPEN_WRITE, &diag, &dev);
	if (!err)
		err = inl_volume_open(dev, NULL, INL_VOLUME_WRITE, &diag, &vol);
	if (!err)
		err = inl_inode_get(vol, INL_ROOT_INO, &diag, &dir);
	if (err)
		die(argv[1], err, &diag);
	if (!strcmp(argv[2], "commit"))
		commit(dev, vol, dir);
	else
		creates(dir, (unsigned)strtoul(argv[2], NULL, 10));
	inl_inode_put(dir);
	err = inl_volume_close(vol);
	if (err)
		die("close", err, &diag);
	inl_dev_close(dev);
	return 0;
}
