/*
 * examples/volume.c: writes into an ext4 image: makes a directory and a file in it, replaces the file in one step, and has
 * all of it on the medium before it says so.
 * Not here: reading (examples/read-file.c); the command `inlay` (cli/), which does more.
 * Read more: inlay/volume.h; `cc volume.c $(pkg-config --cflags --libs inlay)` builds it against an installed library.
 */
#include <errno.h>
#include <inlay/volume.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int complain(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "volume: %s: %s\n", what, diag && diag->err ? diag->text : strerror(-err));
	return err;
}

/* A directory of this name: the one that is there, or a new one. */
static int make_dir(struct inl_volume *vol, struct inl_inode *parent, const char *name, struct inl_inode **out)
{
	const struct inl_attr attr = {.mode = S_IFDIR | 0755};
	struct inl_diag diag = {0};
	uint64_t ino;
	int err = inl_create(parent, name, strlen(name), &attr, 0, &diag, out);

	if (err == -EEXIST) {
		diag = (struct inl_diag){0};
		err = inl_lookup(parent, name, strlen(name), &ino, &diag);
		if (!err)
			err = inl_inode_get(vol, ino, &diag, out);
	}
	return err ? complain(name, err, &diag) : 0;
}

static int write_all(struct inl_inode *file, const char *text, size_t len, struct inl_diag *diag)
{
	uint64_t offset = 0;
	size_t done = 0;
	int err = 0;

	while (!err && offset < len) {
		err = inl_write(file, offset, text + offset, len - offset, &done, diag);
		offset += err ? 0 : done; /* less than all: the volume became full, and the next call says so */
	}
	return err;
}

/* Who looks at name sees the old file or the new one, also after a crash: never half of one. */
static int replace_file(struct inl_inode *dir, const char *name, const char *text)
{
	static const char temp[] = ".new";
	const struct inl_attr attr = {.mode = S_IFREG | 0644};
	struct inl_inode *file = NULL;
	struct inl_diag diag = {0};
	int err;

	inl_unlink(dir, temp, strlen(temp), NULL); /* of a run that was killed */
	err = inl_create(dir, temp, strlen(temp), &attr, 0, &diag, &file);
	if (err)
		return complain(name, err, &diag);
	err = write_all(file, text, strlen(text), &diag);
	if (!err)
		err = inl_xattr_set(file, "user.made-by", "volume.c", 8, 0, &diag);
	if (!err)
		err = inl_fsync(file, &diag);
	if (!err)
		err = inl_rename(dir, temp, strlen(temp), dir, name, strlen(name), 0, &diag);
	inl_inode_put(file);
	if (err)
		inl_unlink(dir, temp, strlen(temp), NULL);
	return err ? complain(name, err, &diag) : 0;
}

static int list(struct inl_inode *dir)
{
	struct inl_dir *cursor = NULL;
	struct inl_dirent entry;
	struct inl_diag diag = {0};
	int got = inl_dir_open(dir, &diag, &cursor);

	while (!got && (got = inl_dir_next(cursor, &entry, &diag)) > 0) {
		printf("%s\n", entry.name);
		got = 0;
	}
	inl_dir_close(cursor);
	return got ? complain("list", got, &diag) : 0;
}

static int change(struct inl_volume *vol, const char *dir_name, const char *file_name, const char *text)
{
	struct inl_inode *root = NULL, *dir = NULL;
	struct inl_diag diag = {0};
	int err = inl_inode_get(vol, INL_ROOT_INO, &diag, &root);

	if (err)
		return complain("/", err, &diag);
	err = make_dir(vol, root, dir_name, &dir);
	if (!err) {
		err = replace_file(dir, file_name, text);
		if (!err)
			err = list(dir);
		inl_inode_put(dir);
	}
	inl_inode_put(root);
	return err;
}

int main(int argc, char **argv)
{
	struct inl_dev *dev = NULL;
	struct inl_volume *vol = NULL;
	struct inl_diag diag = {0};
	int err, closed;

	if (argc != 5) {
		fprintf(stderr, "usage: volume IMAGE DIRECTORY FILE TEXT\n");
		return 2;
	}
	err = inl_dev_open(argv[1], INL_OPEN_WRITE, &diag, &dev);
	if (!err)
		err = inl_volume_open(dev, NULL, INL_VOLUME_WRITE, &diag, &vol);
	if (err)
		complain(argv[1], err, &diag);
	else
		err = change(vol, argv[2], argv[3], argv[4]);
	closed = inl_volume_close(vol); /* makes durable what was not yet */
	if (closed)
		complain(argv[1], closed, NULL);
	inl_dev_close(dev);
	return err || closed ? 1 : 0;
}
