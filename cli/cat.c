/*
 * cli/cat.c: `inlay cat`: file contents to standard output.
 * Not here: trees (cli/get.c).
 * Read more: doc/inlay.1.
 */
#include "cli/cli.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUF_LEN ((size_t)512 << 10) /* a multiple of every block size; 128 KiB to 1 MiB are equally fast */

static int write_all(const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy(struct inl_cli *cli, const struct inl_target *target, struct inl_inode *inode, uint8_t *buf)
{
	struct inl_diag diag = { 0 };
	uint64_t offset = 0;
	size_t got = 0;

	for (;; offset += got) {
		int err = inl_read(inode, offset, buf, BUF_LEN, &got, &diag);

		if (err)
			return inl_cli_error(cli, target->arg, err, &diag);
		if (!got)
			return 0;
		err = write_all(buf, got);
		if (err)
			return inl_cli_error(cli, "standard output", err, NULL);
		if (got < BUF_LEN)
			return 0;
	}
}

/* What is no file to read is refused before anything is written. */
static int check(struct inl_cli *cli, const struct inl_target *target, struct inl_inode *inode)
{
	struct inl_diag diag = { 0 };
	struct inl_stat st = { 0 };
	int err = inl_inode_stat(inode, &st, &diag);

	if (!err && S_ISDIR(st.mode))
		return inl_cli_fail(cli, INL_EXIT_FAILED, target->arg, "is a directory");
	if (!err && !S_ISREG(st.mode))
		return inl_cli_fail(cli, INL_EXIT_FAILED, target->arg, "is not a regular file");
	if (!err)
		err = inl_inode_unlock(inode, &diag);
	return err ? inl_cli_error(cli, target->arg, err, &diag) : 0;
}

static int cat_one(struct inl_cli *cli, const char *arg, uint8_t *buf)
{
	struct inl_target target;
	struct inl_inode *inode = NULL;
	int code = inl_target_init(cli, arg, &target);

	if (!code)
		code = inl_cli_find(cli, &target, true, &inode);
	if (!code)
		code = check(cli, &target, inode);
	if (!code)
		code = copy(cli, &target, inode, buf);
	inl_inode_put(inode);
	inl_target_done(&target);
	return code;
}

int inl_cli_cat(struct inl_cli *cli, int n_args, char **args)
{
	uint8_t *buf = inl_cli_new_buf(BUF_LEN);
	int code = 0;

	if (!buf)
		return inl_cli_error(cli, NULL, -ENOMEM, NULL);
	for (int i = 0; i < n_args; i++)
		code = inl_cli_worse(code, cat_one(cli, args[i], buf));
	inl_cli_free_buf(buf, BUF_LEN);
	return code;
}
