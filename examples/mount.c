/*
 * examples/mount.c: mounts a device that lives in this program's memory alone: what is put there is gone when it ends.
 * Not here: keys (examples/read-file.c), volumes as such (examples/volume.c).
 * Read more: inlay/mount.h; `cc mount.c $(pkg-config --cflags --libs inlay-fuse) -pthread` builds it against installed
 * libraries.
 */
#include <errno.h>
#include <inlay/mount.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int complain(const char *what, int err, const struct inl_diag *diag)
{
	fprintf(stderr, "mount: %s: %s\n", what, diag->err ? diag->text : strerror(-err));
	return 1;
}

/* Fill a device in memory with the bytes of an image. */
static int fill(struct inl_dev *ram, FILE *image, struct inl_diag *diag)
{
	static char buf[1 << 20];
	uint64_t offset = 0;
	size_t len;
	int err = 0;

	while (!err && (len = fread(buf, 1, sizeof(buf), image)) > 0) {
		err = inl_dev_write(ram, offset, buf, len);
		offset += len;
	}
	return err ? inl_diag_set(diag, err, "it does not fit into the device") : ferror(image) ? -EIO : 0;
}

/* Programs can use it from inl_mount_start on; Ctrl-C, or umount(8), ends it. */
static int serve(struct inl_volume *vol, const char *dir, const sigset_t *stop)
{
	const struct inl_mount_options options = {.source = "memory"};
	struct inl_mount *mount = NULL;
	struct inl_diag diag = {0};
	int number, err = inl_mount_new(vol, dir, &options, &diag, &mount);

	if (!err)
		err = inl_mount_start(mount, &diag);
	if (!err) {
		printf("mounted on %s\n", dir);
		fflush(stdout);
		sigwait(stop, &number);
		inl_mount_end(mount);
		inl_mount_wait(mount);
	}
	inl_mount_free(mount);
	return err ? complain(dir, err, &diag) : 0;
}

int main(int argc, char **argv)
{
	struct inl_volume *vol = NULL;
	struct inl_dev *dev = NULL;
	struct inl_diag diag = {0};
	FILE *image = NULL;
	sigset_t stop;
	int err;

	if (argc != 4) {
		fprintf(stderr, "usage: mount SIZE IMAGE DIR\n");
		return 2;
	}
	/* Before there are threads, which inherit it. */
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);

	char spec[64];
	snprintf(spec, sizeof(spec), "ram(%s)", argv[1]);
	err = inl_dev_open(spec, INL_OPEN_WRITE, &diag, &dev);
	image = fopen(argv[2], "rb");
	if (!err)
		err = image ? fill(dev, image, &diag) : -errno;
	if (!err)
		err = inl_volume_open(dev, NULL, INL_VOLUME_WRITE, &diag, &vol);
	err = err ? complain(argv[2], err, &diag) : serve(vol, argv[3], &stop);
	if (image)
		fclose(image);
	if (vol && inl_volume_close(vol) && !err)
		err = 1;
	inl_dev_close(dev);
	return err;
}
