/*
 * examples/encrypt.c: makes an encrypted directory in an ext4 image, with the key of a file, and puts standard input into
 * a file in it.
 * Not here: writing as such (examples/volume.c), reading it again (examples/read-file.c).
 * Read more: inlay/volume.h, inl_set_policy; `cc encrypt.c $(pkg-config --cflags --libs inlay)` builds it against an
 * installed library.
 */
#include <errno.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int complain(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "encrypt: %s: %s\n", what, diag && diag->err ? diag->text : strerror(-err));
	return err;
}

/* A program that keeps secrets reads them into inl_secret_alloc, with read(2): stdio keeps copies. */
static int load_key(const char *path, struct inl_keyring *keys, struct inl_diag *diag)
{
	uint8_t bytes[INL_MASTER_KEY_MAX];
	FILE *f = fopen(path, "rb");
	size_t len = f ? fread(bytes, 1, sizeof(bytes), f) : 0;
	int err = f ? inl_keyring_add(keys, bytes, len, diag) : -errno;

	if (f)
		fclose(f);
	inl_wipe(bytes, sizeof(bytes));
	return err;
}

/* All that is made in the directory from now on inherits this. */
static int encrypt(struct inl_inode *dir, struct inl_keyring *keys, struct inl_diag *diag)
{
	struct inl_policy policy = {.version = 2,
				    .contents_mode = INL_FSCRYPT_AES_256_XTS,
				    .filenames_mode = INL_FSCRYPT_AES_256_CTS,
				    .flags = 3}; /* names are padded to 32 bytes */
	int err = inl_keyring_spec(keys, 0, 2, &policy.key);

	return err ? err : inl_set_policy(dir, &policy, NULL, diag);
}

/* Nothing of this differs from a plain file. */
static int fill(struct inl_inode *dir, const char *name, FILE *from, struct inl_diag *diag)
{
	const struct inl_attr attr = {.mode = S_IFREG | 0600};
	struct inl_inode *file = NULL;
	char buf[65536];
	uint64_t offset = 0;
	size_t len, done;
	int err = inl_create(dir, name, strlen(name), &attr, 0, diag, &file);

	while (!err && (len = fread(buf, 1, sizeof(buf), from)) > 0) {
		for (size_t at = 0; !err && at < len; at += done)
			err = inl_write(file, offset + at, buf + at, len - at, &done, diag);
		offset += len;
	}
	inl_wipe(buf, sizeof(buf));
	inl_inode_put(file);
	return err;
}

static int make(struct inl_volume *vol, struct inl_keyring *keys, const char *dir_name, const char *file_name)
{
	const struct inl_attr attr = {.mode = S_IFDIR | 0700};
	struct inl_inode *root = NULL, *dir = NULL;
	struct inl_diag diag = {0};
	int err = inl_inode_get(vol, INL_ROOT_INO, &diag, &root);

	if (!err)
		err = inl_create(root, dir_name, strlen(dir_name), &attr, 0, &diag, &dir);
	if (!err)
		err = encrypt(dir, keys, &diag);
	if (!err)
		err = fill(dir, file_name, stdin, &diag);
	if (!err)
		err = inl_sync(vol, &diag);
	inl_inode_put(dir);
	inl_inode_put(root);
	return err ? complain(dir_name, err, &diag) : 0;
}

int main(int argc, char **argv)
{
	struct inl_keyring *keys = NULL;
	struct inl_volume *vol = NULL;
	struct inl_dev *dev = NULL;
	struct inl_diag diag = {0};
	int err, closed;

	if (argc != 5) {
		fprintf(stderr, "usage: encrypt IMAGE KEYFILE DIRECTORY FILE < CONTENTS\n");
		return 2;
	}
	err = inl_keyring_new(&keys);
	if (!err)
		err = load_key(argv[2], keys, &diag);
	if (!err)
		err = inl_dev_open(argv[1], INL_OPEN_WRITE, &diag, &dev);
	if (!err)
		err = inl_volume_open(dev, keys, INL_VOLUME_WRITE, &diag, &vol);
	err = err ? complain(argv[1], err, &diag) : make(vol, keys, argv[3], argv[4]);
	closed = inl_volume_close(vol);
	if (closed)
		complain(argv[1], closed, NULL);
	inl_dev_close(dev);
	inl_keyring_free(keys); /* after the volume */
	return err || closed ? 1 : 0;
}
