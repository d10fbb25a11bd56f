/*
 * examples/read-file.c: prints one file of an ext4 image, decrypted with the key in a file. The library in 100 lines.
 * Not here: the command `inlay` (cli/), which does more and explains its errors better.
 * Read more: inlay/volume.h; `cc read-file.c $(pkg-config --cflags --libs inlay)` builds it against an installed library.
 */
#include <errno.h>
#include <fcntl.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (256 * 1024)

static int complain(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "read-file: %s: %s\n", what, diag && diag->err ? diag->text : strerror(-err));
	return err;
}

/* Keys go from the file straight into secret memory: no stdio buffer ever holds them. */
static int add_key(struct inl_keyring *keys, const char *path)
{
	struct inl_diag diag = {0};
	uint8_t *key = inl_secret_alloc(INL_MASTER_KEY_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = -ENOMEM;

	if (fd < 0) {
		err = -errno;
	} else if (key) {
		ssize_t len = read(fd, key, INL_MASTER_KEY_MAX + 1);

		err = len < 0 ? -errno : inl_keyring_add(keys, key, len, &diag);
	}
	if (fd >= 0)
		close(fd);
	inl_secret_free(key);
	return err ? complain(path, err, &diag) : 0;
}

static int print_file(struct inl_inode *inode, const char *path)
{
	static char buf[CHUNK] __attribute__((aligned(4096)));
	struct inl_diag diag = {0};
	uint64_t offset = 0;
	size_t got = 1;
	int err;

	while (got) {
		err = inl_read(inode, offset, buf, sizeof(buf), &got, &diag);
		if (err)
			return complain(path, err, &diag);
		if (fwrite(buf, 1, got, stdout) != got)
			return complain("standard output", -errno, NULL);
		offset += got;
	}
	return fflush(stdout) ? complain("standard output", -errno, NULL) : 0;
}

static int read_file(const char *image, const char *path, struct inl_keyring *keys)
{
	struct inl_diag diag = {0};
	struct inl_dev *dev = NULL;
	struct inl_volume *vol = NULL;
	struct inl_inode *inode = NULL;
	int err = inl_dev_open(image, 0, &diag, &dev);

	if (!err)
		err = inl_volume_open(dev, keys, 0, &diag, &vol);
	if (!err)
		err = inl_path(vol, path, true, &diag, &inode);
	if (err)
		complain(path, err, &diag);
	else
		err = print_file(inode, path);
	inl_inode_put(inode);
	inl_volume_close(vol);
	inl_dev_close(dev);
	return err;
}

int main(int argc, char **argv)
{
	struct inl_keyring *keys = NULL;
	int err;

	if (argc != 4) {
		fprintf(stderr, "usage: read-file IMAGE KEYFILE PATH > COPY\n");
		return 2;
	}
	err = inl_keyring_new(&keys);
	if (!err)
		err = add_key(keys, argv[2]);
	if (!err)
		err = read_file(argv[1], argv[3], keys);
	inl_keyring_free(keys);
	return err ? 1 : 0;
}
