/*
 * cli/error.c: messages on standard error, one line each, and the exit codes that go with them.
 * Not here: why something failed below (struct inl_diag, filled where the cause is known).
 * Read more: doc/inlay.1, "EXIT STATUS".
 */
#include "cli/cli.h"
#include "cli/text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* In one write: several processes may share standard error. */
static void put_line(const struct inl_cli *cli, const char *where, const char *why)
{
	char *line = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&line, &len);

	if (!out)
		return;
	fputs("inlay: ", out);
	if (cli->command)
		fprintf(out, "%s: ", cli->command->name);
	if (where) {
		inl_text_put(out, where, strlen(where), true);
		fputs(": ", out);
	}
	inl_text_put(out, why, strlen(why), true);
	putc('\n', out);
	fclose(out);
	fflush(stdout);
	fwrite(line, 1, len, stderr);
	free(line);
}

const char *inl_cli_why(int err)
{
	switch (-err) {
	case ENOKEY:
		return "locked: its key was not given";
	case ENOPKG:
		return "needs a cipher that is not available here";
	case ENOTRECOVERABLE:
		return "needs a cipher that computes wrong answers on this machine";
	case EUCLEAN:
		return "damaged";
	case EOPNOTSUPP:
		return "not supported";
	case EIO:
		return "input/output error";
	case ENODEV:
		return "no such device or partition";
	case ENOENT:
		return "no such file or directory";
	case ENOTDIR:
		return "not a directory";
	case EISDIR:
		return "is a directory";
	case ELOOP:
		return "too many symbolic links";
	case ENAMETOOLONG:
		return "name too long";
	case ENOMEM:
		return "out of memory";
	case ENOSPC:
		return "no space left";
	case EDQUOT:
		return "quota exceeded";
	case EROFS:
		return "read-only file system";
	case EACCES:
		return "permission denied";
	case EBUSY:
		return "in use by another process";
	}
	return strerror(-err);
}

void inl_cli_explain_full(const struct inl_cli *cli, struct inl_diag *diag)
{
	struct inl_volume_space space = { 0 };

	inl_volume_space(cli->vol, &space);
	inl_diag_set(diag, -ENOSPC, "the volume is full: %s",
		     space.n_free_inodes ? "no block is left for this" : "no inode is left");
}

int inl_cli_error(const struct inl_cli *cli, const char *where, int err, const struct inl_diag *diag)
{
	put_line(cli, where, diag && diag->text[0] ? diag->text : inl_cli_why(err));
	return err == -ENOKEY ? INL_EXIT_KEY : INL_EXIT_FAILED;
}

int inl_cli_fail(const struct inl_cli *cli, int code, const char *where, const char *fmt, ...)
{
	char *why = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&why, fmt, args) < 0)
		why = NULL;
	va_end(args);
	put_line(cli, where, why ? why : inl_cli_why(-ENOMEM));
	free(why);
	return code;
}

int inl_cli_worse(int a, int b)
{
	return a ? a : b;
}

static void out_of_memory(void)
{
	fputs("inlay: out of memory\n", stderr);
	exit(INL_EXIT_FAILED);
}

void *inl_cli_alloc(size_t len)
{
	void *memory = calloc(1, len ? len : 1);

	if (!memory)
		out_of_memory();
	return memory;
}

uint8_t *inl_cli_new_buf(size_t len)
{
	void *buf = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return buf == MAP_FAILED ? NULL : buf;
}

void inl_cli_free_buf(uint8_t *buf, size_t len)
{
	if (!buf)
		return;
	inl_wipe(buf, len);
	munmap(buf, len);
}

void *inl_cli_grow(void *array, size_t used, size_t needed, size_t *room, size_t size)
{
	void *grown;

	if (needed <= *room)
		return array;
	*room = 2 * needed;
	grown = inl_cli_alloc(*room * size);
	if (used)
		memcpy(grown, array, used * size);
	free(array);
	return grown;
}

char *inl_cli_strdup(const char *text, size_t len)
{
	char *copy = inl_cli_alloc(len + 1);

	memcpy(copy, text, len);
	return copy;
}
