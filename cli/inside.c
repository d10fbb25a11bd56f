/*
 * cli/inside.c: commands on a path inside a mount, which the programs that everybody has can do.
 * Not here: images (cli/open.c); `encrypt`, which no other program can (cli/encrypt.c).
 * Read more: doc/inlay.1, "MOUNTING".
 */
#include "cli/inside.h"
#include "cli/mount.h"
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The operand that says where: 0 the first, -1 the last, -2 all of them. */
#define FIRST 0
#define LAST  (-1)
#define ANY   (-2)

static const struct {
	const char *command;
	int operand;
	const char *argv[4]; /* options have the same letters */
} tools[] = {
	{ "get", FIRST, { "cp", "-a", "--sparse=always" } },
	{ "put", LAST, { "cp", "-a", "--sparse=always" } },
	{ "ls", ANY, { "ls" } },
	{ "cat", ANY, { "cat" } },
	{ "stat", ANY, { "stat" } },
	{ "mkdir", ANY, { "mkdir" } },
	{ "rm", ANY, { "rm" } },
	{ "mv", ANY, { "mv" } },
	{ "ln", LAST, { "ln" } },
	{ "truncate", ANY, { "truncate" } },
	{ "chmod", LAST, { "chmod" } },
	{ "chown", LAST, { "chown" } },
	{ "touch", ANY, { "touch" } },
};

/* An image may lie inside a mount, too. */
static bool is_volume(int fd)
{
	uint8_t magic[2];

	return pread(fd, magic, 2, 1024 + 56) == 2 && magic[0] == 0x53 && magic[1] == 0xef;
}

/* IMAGE:PATH of an image that is there: whoever means a file with a colon in its name writes it after "./". */
static bool is_in_image(const char *path)
{
	size_t len = inl_cli_image_len(path);
	char *image = inl_cli_strdup(path, len);
	struct stat st;
	bool is = path[len] && !stat(image, &st) && !S_ISDIR(st.st_mode);

	free(image);
	return is;
}

bool inl_inside(const char *path)
{
	char *copy = inl_cli_strdup(path, strlen(path));
	bool inside = false;
	struct stat st;
	int fd;

	if (is_in_image(path)) {
		free(copy);
		return false;
	}
	/* What is to be made has a directory. */
	if (stat(path, &st))
		path = dirname(copy);
	if (!stat(path, &st) && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) && inl_mounted_open(path, &fd)) {
		inside = S_ISDIR(st.st_mode) || !is_volume(fd);
		close(fd);
	}
	free(copy);
	return inside;
}

/* What of our options a tool has, too: all but those of keys and devices, which the mount has already. */
static int pass_options(struct inl_cli *cli, const char **argv, int *n)
{
	for (unsigned i = 0; cli->command->options[i]; i++) {
		enum inl_opt opt = cli->command->options[i];
		static char letters[INL_OPT_MAX][3];
		char letter = inl_cli_option_letter(opt), name[32];

		if (!cli->given[opt] || opt == INL_OPT_KEY || opt == INL_OPT_KEY_HEX || opt == INL_OPT_CIPHERS ||
		    opt == INL_OPT_COUNTERS || opt == INL_OPT_KEEP_GOING || opt == INL_OPT_QUIET ||
		    (opt >= INL_OPT_PASSPHRASE && opt <= INL_OPT_MEMORY_LIMIT))
			continue;
		if (!letter)
			return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name(opt, name),
					    "not on a path inside a mount");
		snprintf(letters[opt], sizeof(letters[opt]), "-%c", letter);
		argv[(*n)++] = letters[opt];
		if (cli->values[opt])
			argv[(*n)++] = cli->values[opt];
	}
	return 0;
}

static int run_tool(struct inl_cli *cli, const char *const *tool, int n_args, char **args)
{
	const char **argv = inl_cli_alloc(sizeof(*argv) * ((size_t)n_args + 4 + 2 * INL_OPT_MAX));
	int n = 0, code;

	while (tool[n]) {
		argv[n] = tool[n];
		n++;
	}
	code = pass_options(cli, argv, &n);
	argv[n++] = "--";
	for (int i = 0; i < n_args; i++)
		argv[n++] = args[i];
	argv[n] = NULL;
	if (!code) {
		fflush(stdout);
		execvp(argv[0], (char *const *)argv);
		code = inl_cli_error(cli, argv[0], -errno, NULL);
	}
	free(argv);
	return code;
}

bool inl_inside_run(struct inl_cli *cli, int n_args, char **args, int *code)
{
	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
		int at = tools[i].operand;

		if (strcmp(tools[i].command, cli->command->name))
			continue;
		for (int k = 0; k < n_args; k++) {
			if ((at == FIRST && k) || (at == LAST && k + 1 < n_args) || !inl_inside(args[k]))
				continue;
			*code = run_tool(cli, tools[i].argv, n_args, args);
			return true;
		}
	}
	return false;
}
