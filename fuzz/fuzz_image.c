/*
 * fuzz/fuzz_image.c: libFuzzer target: a whole small volume from any bytes: opened, listed, read.
 * Not here: the parsers one by one (the other targets).
 * Read more: HACKING.md, "Fuzzing". Input: the image. Checksums keep most mutations out: seeds are made without metadata_csum.
 */
#include <errno.h>
#include <inlay/driver.h>
#include <inlay/volume.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_INODES 200
#define MAX_DEPTH  12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
	const uint8_t *data;
};

static void bytes_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct bytes *bytes = inl_dev_priv(dev);

	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, bytes->data + bio->state.pos, bio->len);
	inl_bio_end(bio, bio->op == INL_READ || bio->op == INL_FLUSH ? 0 : -EROFS);
}

static const struct inl_dev_ops bytes_ops = { .name = "bytes", .submit = bytes_submit };

static int count_xattr(const char *name, const void *value, size_t len, void *arg)
{
	unsigned *n = arg;

	*n += (unsigned)(strlen(name) + len + (len ? ((const uint8_t *)value)[len - 1] : 0));
	return 0;
}

static int count_policy(const struct inl_policy_use *use, void *arg)
{
	unsigned *n = arg;

	*n += use->policy.version;
	return 0;
}

static void read_some(struct inl_inode *inode)
{
	static uint8_t buf[64 << 10];
	struct inl_extent extent;
	uint64_t offset = 0;
	size_t got;

	for (unsigned i = 0; i < 16 && !inl_inode_extent(inode, offset, &extent, NULL); i++)
		offset += extent.len;
	if (!inl_read(inode, 0, buf, sizeof(buf), &got, NULL) && got > sizeof(buf))
		abort();
	inl_read(inode, 777, buf, 1000, &got, NULL);
}

static void visit(struct inl_volume *vol, uint64_t ino, unsigned depth, unsigned *budget)
{
	struct inl_inode *inode;
	struct inl_dirent entry;
	struct inl_stat st;
	struct inl_dir *dir;
	char target[4096];
	unsigned n = 0, errors = 0;
	size_t len;
	int got;

	if (!*budget || depth > MAX_DEPTH || inl_inode_get(vol, ino, NULL, &inode))
		return;
	--*budget;
	inl_inode_stat(inode, &st, NULL);
	inl_xattrs(inode, count_xattr, &n, NULL);
	inl_readlink(inode, target, sizeof(target), &len, NULL);
	if (S_ISREG(st.mode))
		read_some(inode);
	if (S_ISDIR(st.mode) && !inl_dir_open(inode, NULL, &dir)) {
		while ((got = inl_dir_next(dir, &entry, NULL)) && errors < 100) {
			uint64_t found;

			if (got < 0) {
				errors++;
				continue;
			}
			if (strlen(entry.name) != entry.len)
				abort();
			if (!entry.status && !inl_lookup(inode, entry.name, entry.len, &found, NULL))
				visit(vol, found, depth + 1, budget);
		}
		inl_dir_close(dir);
	}
	inl_inode_put(inode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[64] = { 1, 2, 3 };
	struct bytes bytes = { data };
	struct inl_dev_params params = { .size = size };
	struct inl_keyring *keys;
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct inl_inode *inode;
	unsigned budget = MAX_INODES, n = 0;

	if (inl_dev_new(&bytes_ops, &bytes, &params, &dev))
		return 0;
	if (inl_keyring_new(&keys))
		abort();
	inl_keyring_add(keys, key, sizeof(key), NULL);
	if (!inl_volume_open(dev, keys, INL_VOLUME_DAMAGED, NULL, &vol)) {
		inl_volume_policies(vol, count_policy, &n, NULL, NULL);
		visit(vol, INL_ROOT_INO, 0, &budget);
		if (!inl_path(vol, "/a/../b/./link/x", true, NULL, &inode))
			inl_inode_put(inode);
		inl_volume_close(vol);
	}
	inl_keyring_free(keys);
	inl_dev_close(dev);
	return 0;
}
