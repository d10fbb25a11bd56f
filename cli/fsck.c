/*
 * cli/fsck.c: `inlay fsck`: brings a volume to rest, looks at what is encrypted, and has e2fsck look at the rest.
 * Not here: what is wrong with encryption (cli/check.c); the replay, and inodes that a crash left behind (the library).
 * Read more: doc/inlay.1; e2fsck(8).
 */
#include "cli/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the volume at rest ------------------------------------------------------------------------------------------ */

static void say_state(const struct inl_cli *cli, bool read_only)
{
	struct inl_volume_info info = { 0 };

	inl_volume_info(cli->vol, &info);
	if (info.journal_replayed)
		printf("journal: %u transaction%s replayed%s\n", info.journal_transactions,
		       info.journal_transactions == 1 ? "" : "s",
		       read_only ? ", in memory only: e2fsck sees the volume as it was before" : "");
	if (info.n_orphans)
		printf("inodes: %u that a crash had left behind removed or shortened\n", info.n_orphans);
	if (info.backup_superblock)
		printf("superblock: the backup in block %ju is used\n", (uintmax_t)info.backup_superblock);
}

/* Open, for writing if that is possible, and close again. What is wrong is said; e2fsck is asked in any case. */
static int come_to_rest(struct inl_cli *cli, const char *image)
{
	bool read_only = cli->given[INL_OPT_READ_ONLY] || access(image, W_OK);
	int code, closed;

	if (!read_only)
		inl_cli_will_write(cli);
	code = inl_cli_open(cli, image);
	if (code)
		return code;
	say_state(cli, read_only);
	code = inl_check_encryption(cli);
	closed = inl_cli_close(cli);
	return code ? code : closed;
}

/* ---- e2fsck ------------------------------------------------------------------------------------------------------ */

static int ask_e2fsck(struct inl_cli *cli, const char *image)
{
	char *path = image[0] == '-' ? inl_cli_join(".", image, strlen(image)) : inl_cli_strdup(image, strlen(image));
	const char *argv[] = { "e2fsck", "-fn", path, NULL };
	int code, status = 0;

	code = inl_spawn(cli, argv, NULL, 0, &status);
	free(path);
	if (code || !status)
		return code;
	if (status & 4)
		return inl_cli_fail(cli, INL_EXIT_VOLUME, image, "e2fsck found errors; 'e2fsck -f' repairs them");
	return inl_cli_fail(cli, status & 32 || inl_cli_interrupted() ? INL_EXIT_INTERRUPTED : INL_EXIT_VOLUME, image,
			    "e2fsck did not finish: exit status %d", status);
}

int inl_cli_fsck(struct inl_cli *cli, int n_args, char **args)
{
	int code, asked;

	if (access(args[0], F_OK) && strchr(args[0], '('))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0],
				    "e2fsck reads files and block devices, not stacks of devices");
	code = come_to_rest(cli, args[0]);
	if (code == INL_EXIT_INTERRUPTED)
		return code;
	if (code && (cli->open_err == -EBUSY || access(args[0], R_OK) || code == INL_EXIT_USAGE ||
		     code == INL_EXIT_KEY))
		return code;
	asked = ask_e2fsck(cli, args[0]);
	return asked == INL_EXIT_VOLUME ? asked : inl_cli_worse(code, asked);
}
