/*
 * tests/unit/limits.c: as much as a volume can take, of one kind: names, links, directories, files, bytes, extents.
 * Not here: whether what it made is sound (tests/kernel/test_limits.py, which runs it).
 * Read more: inlay/volume.h, "changing".
 *
 * limits IMAGE WHAT [N]: says in words what went wrong, with exit status 1; prints a number where WHAT has one.
 */
#include <errno.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct inl_volume *vol;
static struct inl_inode *root;
static struct inl_diag diag;

static void expect(const char *what, int err, int wanted)
{
	if (err == wanted)
		return;
	fprintf(stderr, "limits: %s: %s (%s), not %s\n", what, strerror(-err), diag.text, strerror(-wanted));
	exit(1);
}

static void expect_number(const char *what, unsigned long long got, unsigned long long wanted)
{
	if (got == wanted)
		return;
	fprintf(stderr, "limits: %s: %llu, not %llu\n", what, got, wanted);
	exit(1);
}

static int make(struct inl_inode *dir, const char *name, uint32_t mode, struct inl_inode **out)
{
	struct inl_attr attr = { .mode = mode };

	return inl_create(dir, name, strlen(name), &attr, 0, &diag, out);
}

static struct inl_stat stat_of(struct inl_inode *inode)
{
	struct inl_stat st;

	expect("stat", inl_inode_stat(inode, &st, &diag), 0);
	return st;
}

static uint64_t n_free(void)
{
	struct inl_volume_space space;

	inl_volume_space(vol, &space);
	return space.n_free_blocks;
}

static void do_names(unsigned long long n)
{
	char name[257];

	memset(name, 'n', sizeof(name));
	name[256] = 0;
	expect("256 bytes", make(root, name, S_IFREG | 0644, NULL), -ENAMETOOLONG);
	name[255] = 0;
	for (unsigned long long i = 0; i < n; i++) {
		snprintf(name, 21, "%020llu", i);
		name[20] = 'n';
		expect("255 bytes", make(root, name, i % 2 ? S_IFREG | 0644 : S_IFDIR | 0755, NULL), 0);
	}
}

static void do_links(unsigned long long n)
{
	struct inl_inode *inode, *dir;
	char name[32];

	expect("dir", make(root, "links", S_IFDIR | 0755, &dir), 0);
	expect("file", make(root, "file", S_IFREG | 0644, &inode), 0);
	for (unsigned long long i = 1; i < n; i++) {
		int len = snprintf(name, sizeof(name), "%llu", i);

		expect(name, inl_link(inode, dir, name, (size_t)len, &diag), 0);
	}
	expect_number("links", stat_of(inode).nlink, n);
	if (n == 65000) {
		expect("one more", inl_link(inode, dir, "more", 4, &diag), -EMLINK);
		expect("one less", inl_unlink(dir, "1", 1, &diag), 0);
		expect("one more then", inl_link(inode, dir, "more", 4, &diag), 0);
	}
	inl_inode_put(inode);
	inl_inode_put(dir);
}

/* More than 65,000: the count is 1, and stays there. */
static void do_dirs(unsigned long long n)
{
	struct inl_inode *dir;
	char name[32];

	expect("dir", make(root, "dirs", S_IFDIR | 0755, &dir), 0);
	for (unsigned long long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%llu", i);
		expect(name, make(dir, name, S_IFDIR | 0755, NULL), 0);
	}
	expect_number("links", stat_of(dir).nlink, n + 2 >= 65000 ? 1 : n + 2);
	expect("rmdir", inl_rmdir(dir, "7", 1, &diag), 0);
	expect_number("links", stat_of(dir).nlink, n + 1 >= 65000 ? 1 : n + 1);
	inl_inode_put(dir);
}

static void do_files(unsigned long long n)
{
	char name[32];

	for (unsigned long long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "file %llu", i);
		expect(name, make(root, name, S_IFREG | 0644, NULL), 0);
	}
}

static void do_unfiles(unsigned long long n)
{
	char name[32];

	for (unsigned long long i = 0; i < n; i++) {
		int len = snprintf(name, sizeof(name), "file %llu", i);

		expect(name, inl_unlink(root, name, (size_t)len, &diag), 0);
	}
}

/* n: the largest size that a file can have. */
static void do_sparse(unsigned long long n)
{
	static uint8_t bytes[8192], back[8192];
	struct inl_inode *inode;
	uint64_t before;
	size_t done;

	expect("file", make(root, "sparse", S_IFREG | 0644, &inode), 0);
	before = n_free();
	memset(bytes, 'e', sizeof(bytes));
	expect("write", inl_write(inode, n - 4096, bytes, 8192, &done, &diag), 0);
	expect_number("written", done, 4096);
	expect("write behind", inl_write(inode, n, bytes, 1, &done, &diag), -EFBIG);
	expect("truncate behind", inl_truncate(inode, n + 1, &diag), -EFBIG);
	expect("write before", inl_write(inode, 0, bytes, 4096, &done, &diag), 0);
	expect_number("size", stat_of(inode).size, n);
	expect("sync", inl_sync(vol, &diag), 0);
	expect("read", inl_read(inode, n - 8192, back, 8192, &done, &diag), 0);
	expect_number("read", done, 8192);
	expect_number("a hole", back[0] | back[4095], 0);
	expect_number("bytes", (unsigned long long)memcmp(back + 4096, bytes, 4096), 0);
	expect("shorten", inl_truncate(inode, 5, &diag), 0);
	expect("lengthen", inl_truncate(inode, n, &diag), 0);
	expect("read", inl_read(inode, n - 8192, back, 8192, &done, &diag), 0);
	expect_number("a hole", back[4096] | back[8191], 0);
	expect("unlink", inl_unlink(root, "sparse", 6, &diag), 0);
	inl_inode_put(inode);
	expect_number("free blocks", n_free(), before);
	expect("file", make(root, "sparse", S_IFREG | 0644, &inode), 0);
	expect("write", inl_write(inode, n - 4096, bytes, 4096, &done, &diag), 0);
	inl_inode_put(inode);
}

/* n times to the last block, and empty again. */
static void do_fill(unsigned long long n)
{
	static uint8_t bytes[1 << 20];
	uint64_t before = n_free(), full = 0;

	memset(bytes, 'f', sizeof(bytes));
	for (unsigned long long i = 0; i <= n; i++) {
		struct inl_inode *inode;
		uint64_t size = 0;
		size_t done;
		int err;

		expect("file", make(root, "full", S_IFREG | 0644, &inode), 0);
		while (!(err = inl_write(inode, size, bytes, sizeof(bytes), &done, &diag)))
			size += done;
		expect("full", err, -ENOSPC);
		expect_number("free blocks", n_free(), 0);
		expect_number("size", size, full ? full : size);
		full = size;
		inl_inode_put(inode);
		if (i == n)
			break; /* left for others to look at */
		expect("unlink", inl_unlink(root, "full", 4, &diag), 0);
		expect_number("free blocks", n_free(), before);
	}
}

/* n extents of one block with holes between, from the end or from the middle. */
static void do_extents(unsigned long long n)
{
	struct inl_inode *inode;
	uint8_t bytes[1024];
	size_t done;

	memset(bytes, 'x', sizeof(bytes));
	expect("file", make(root, "extents", S_IFREG | 0644, &inode), 0);
	for (unsigned long long i = 0; i < n; i++) {
		/* 7919 is a prime, and n no multiple of it. */
		expect("write", inl_write(inode, i * 7919 % n * 2048, bytes, sizeof(bytes), &done, &diag), 0);
	}
	expect_number("blocks", stat_of(inode).blocks / 2 > n, 1);
	inl_inode_put(inode);
}

static void do_unextents(unsigned long long n)
{
	struct inl_inode *inode;
	uint64_t before = n_free();

	expect("path", inl_path(vol, "/extents", false, &diag, &inode), 0);
	for (unsigned long long i = 0; i < n; i += 3)
		expect("punch", inl_fallocate(inode, INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, i * 2048, 1024, &diag),
		       0);
	expect("shorten", inl_truncate(inode, n / 2 * 2048 + 100, &diag), 0);
	expect_number("free", n_free() > before + n / 3, 1);
	inl_inode_put(inode);
	expect("unlink", inl_unlink(root, "extents", 7, &diag), 0);
}

static const struct {
	const char *name;
	void (*fn)(unsigned long long n);
} kinds[] = {
	{ "names", do_names }, { "links", do_links },	  { "dirs", do_dirs },	     { "files", do_files },
	{ "sparse", do_sparse }, { "unfiles", do_unfiles }, { "extents", do_extents }, { "unextents", do_unextents },
	{ "fill", do_fill },
};

int main(int argc, char **argv)
{
	size_t n_kinds = sizeof(kinds) / sizeof(kinds[0]), k = 0;
	struct inl_dev *dev;

	while (argc == 4 && k < n_kinds && strcmp(argv[2], kinds[k].name))
		k++;
	if (argc != 4 || k == n_kinds)
		return 2;
	expect("device", inl_dev_open(argv[1], INL_OPEN_WRITE, &diag, &dev), 0);
	expect("volume", inl_volume_open(dev, NULL, INL_VOLUME_WRITE, &diag, &vol), 0);
	expect("root", inl_inode_get(vol, INL_ROOT_INO, &diag, &root), 0);
	kinds[k].fn(strtoull(argv[3], NULL, 10));
	inl_inode_put(root);
	expect("close", inl_volume_close(vol), 0);
	inl_dev_close(dev);
	return 0;
}
