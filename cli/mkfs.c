/*
 * cli/mkfs.c: `inlay mkfs`: a new volume, made by mke2fs.
 * Not here: what is put into it (cli/put.c).
 * Read more: mke2fs(8).
 */
#include "cli/mkfs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEATURES "encrypt,64bit,metadata_csum,stable_inodes"
#define LOOK_LEN ((size_t)128 << 10) /* bytes at the start of a device that say whether something is on it */
#define SIZE_MIN ((uint64_t)256 << 10)
#define SIZE_SMALL ((uint64_t)16 << 20) /* smaller ones have no room for a journal of blocks of 4 KiB */
#define SIZE_MAX_FILE ((uint64_t)INT64_MAX)

/* ---- is there something already? --------------------------------------------------------------------------------- */

static int has_content(int fd, bool *content)
{
	uint8_t *buf = inl_cli_alloc(LOOK_LEN);
	ssize_t n = pread(fd, buf, LOOK_LEN, 0);
	int err = n < 0 ? -errno : 0;

	for (ssize_t i = 0; i < n && !*content; i++)
		*content = buf[i] != 0;
	free(buf);
	return err;
}

static int check_there(struct inl_cli *cli, struct inl_mkfs *mkfs)
{
	bool content = S_ISREG(mkfs->st.st_mode) && mkfs->st.st_size;
	int err = 0;

	if (S_ISBLK(mkfs->st.st_mode))
		err = has_content(mkfs->fd, &content);
	if (err)
		return inl_cli_error(cli, mkfs->image, err, NULL);
	if (content && !cli->given[INL_OPT_FORCE])
		return inl_cli_fail(cli, INL_EXIT_FAILED, mkfs->image,
				    "is not empty; --force makes a new volume of it, and what is in it is lost");
	if (S_ISBLK(mkfs->st.st_mode) && mkfs->size)
		return inl_cli_fail(cli, INL_EXIT_USAGE, "--size", "a device has its size");
	if (S_ISREG(mkfs->st.st_mode) && !mkfs->size && !mkfs->st.st_size)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "--size is needed to make a file");
	return 0;
}

int inl_mkfs_check_unused(struct inl_cli *cli, const char *path)
{
	int code = inl_cli_open_device(cli, path, INL_OPEN_WRITE, INL_EXIT_FAILED);

	inl_dev_close(cli->dev);
	cli->dev = NULL;
	return code;
}

static int check_unused(struct inl_cli *cli, const struct inl_mkfs *mkfs)
{
	if (mkfs->made || (S_ISREG(mkfs->st.st_mode) && !mkfs->st.st_size))
		return 0;
	return inl_mkfs_check_unused(cli, mkfs->image);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int open_image(struct inl_cli *cli, struct inl_mkfs *mkfs)
{
	mkfs->fd = mkfs->fresh ? -1 : open(mkfs->image, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (mkfs->fd < 0 && (mkfs->fresh || errno == ENOENT)) {
		if (!mkfs->size)
			return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "--size is needed to make a file");
		mkfs->fd = open(mkfs->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		mkfs->made = mkfs->fd >= 0;
	}
	if (mkfs->fd < 0 || fstat(mkfs->fd, &mkfs->st))
		return inl_cli_error(cli, mkfs->image, -errno, NULL);
	if (!S_ISREG(mkfs->st.st_mode) && !S_ISBLK(mkfs->st.st_mode))
		return inl_cli_fail(cli, INL_EXIT_FAILED, mkfs->image, "is neither a file nor a block device");
	return mkfs->made ? 0 : check_there(cli, mkfs);
}

/* All holes, of the size that was asked for. */
static int make_sparse(struct inl_cli *cli, const struct inl_mkfs *mkfs)
{
	off_t size = mkfs->size ? (off_t)mkfs->size : mkfs->st.st_size;

	if (!S_ISREG(mkfs->st.st_mode))
		return 0;
	if (ftruncate(mkfs->fd, 0) || ftruncate(mkfs->fd, size))
		return inl_cli_error(cli, mkfs->image, -errno, NULL);
	return 0;
}

/* 4 KiB where that is possible: what kernels before 5.5 need to encrypt anything. */
static void choose_block_size(struct inl_mkfs *mkfs)
{
	off_t size = lseek(mkfs->fd, 0, SEEK_END);

	if (!mkfs->block[0] && size >= (off_t)SIZE_SMALL)
		snprintf(mkfs->block, sizeof(mkfs->block), "4096");
}

/* ---- mke2fs ------------------------------------------------------------------------------------------------------ */

/* What it said, on one line, without its warnings. */
static const char *one_line(char *said)
{
	char *out = said;

	for (char *line = said, *next; *line; line = next) {
		size_t len = strcspn(line, "\n");

		next = line + len + (line[len] == '\n');
		if (!len || !strncmp(line, "Warning:", 8))
			continue;
		if (out != said)
			*out++ = ' ';
		memmove(out, line, len);
		out += len;
	}
	*out = '\0';
	return *said ? said : "mke2fs failed";
}

static int run_mke2fs(struct inl_cli *cli, const struct inl_mkfs *mkfs)
{
	const char *argv[20] = { "mke2fs", "-q", "-F", "-t", "ext4", "-O", FEATURES };
	char *said = inl_cli_alloc(4096), *path = NULL, n_inodes[24], extended[64];
	unsigned n = 7;
	int code, status = 0;

	if (mkfs->block[0]) {
		argv[n++] = "-b";
		argv[n++] = mkfs->block;
	}
	if (mkfs->uuid) {
		argv[n++] = "-U";
		argv[n++] = mkfs->uuid;
	}
	if (mkfs->label) {
		argv[n++] = "-L";
		argv[n++] = mkfs->label;
	}
	if (mkfs->n_inodes) {
		snprintf(n_inodes, sizeof(n_inodes), "%ju", (uintmax_t)mkfs->n_inodes);
		argv[n++] = "-N";
		argv[n++] = n_inodes;
	}
	if (mkfs->hash_seed) {
		snprintf(extended, sizeof(extended), "hash_seed=%s", mkfs->hash_seed);
		argv[n++] = "-E";
		argv[n++] = extended;
	} else if (getuid()) {
		/* Whoever makes a volume can make something in it when it is mounted. */
		snprintf(extended, sizeof(extended), "root_owner=%ju:%ju", (uintmax_t)getuid(), (uintmax_t)getgid());
		argv[n++] = "-E";
		argv[n++] = extended;
	}
	path = mkfs->image[0] == '-' ? inl_cli_join(".", mkfs->image, strlen(mkfs->image)) : NULL;
	argv[n] = path ? path : mkfs->image;
	code = inl_spawn(cli, argv, said, 4096, &status);
	if (!code && status)
		code = inl_cli_fail(cli, INL_EXIT_FAILED, mkfs->image, "%s", one_line(said));
	free(said);
	free(path);
	return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static bool is_uuid(const char *text)
{
	size_t i;

	if (!strcmp(text, "random") || !strcmp(text, "clear") || !strcmp(text, "time"))
		return true;
	for (i = 0; text[i]; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]))
			return false;
	}
	return i == 36;
}

int inl_mkfs_parse(struct inl_cli *cli, struct inl_mkfs *mkfs)
{
	const char *uuid = cli->values[INL_OPT_UUID], *label = cli->values[INL_OPT_LABEL];
	uint64_t block = 0;
	int code = inl_cli_size(cli, INL_OPT_VOLUME_SIZE, SIZE_MIN, SIZE_MAX_FILE, &mkfs->size);

	if (!code)
		code = inl_cli_size(cli, INL_OPT_BLOCK_SIZE, 1024, 65536, &block);
	if (!code && block & (block - 1))
		code = inl_cli_fail(cli, INL_EXIT_USAGE, "--block-size", "'%s': expected a power of two",
				    cli->values[INL_OPT_BLOCK_SIZE]);
	if (!code && label && strlen(label) > 16)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, "--label", "'%s': longer than 16 bytes", label);
	if (!code && uuid && !is_uuid(uuid))
		code = inl_cli_fail(cli, INL_EXIT_USAGE, "--uuid", "'%s': no UUID", uuid);
	if (!code && block)
		snprintf(mkfs->block, sizeof(mkfs->block), "%u", (unsigned)block);
	mkfs->uuid = uuid;
	mkfs->label = label;
	return code;
}

int inl_mkfs_make(struct inl_cli *cli, struct inl_mkfs *mkfs)
{
	int code;

	mkfs->fd = -1;
	code = open_image(cli, mkfs);
	if (!code)
		code = check_unused(cli, mkfs);
	if (!code)
		code = make_sparse(cli, mkfs);
	if (!code) {
		choose_block_size(mkfs);
		code = run_mke2fs(cli, mkfs);
	}
	if (mkfs->fd >= 0)
		close(mkfs->fd);
	if (code && mkfs->made)
		unlink(mkfs->image);
	return code && inl_cli_interrupted() ? INL_EXIT_INTERRUPTED : code;
}

int inl_cli_mkfs(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_mkfs mkfs = { .image = args[0] };
	int code = inl_mkfs_parse(cli, &mkfs);

	inl_cli_catch_signals(false);
	return code ? code : inl_mkfs_make(cli, &mkfs);
}
