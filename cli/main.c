/*
 * cli/main.c: the command `inlay`: the table of subcommands, their options, help.
 * Not here: what a subcommand does (its own file).
 * Read more: doc/inlay.1.
 */
#include "cli/inside.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct option_row {
	enum inl_opt opt;
	char letter;	   /* or 0 */
	const char *name;  /* the long one, or NULL */
	const char *value; /* what help calls its value, or NULL: it has none */
	const char *help;
};

static const struct option_row option_rows[] = {
	{ INL_OPT_LONG, 'l', NULL, NULL, "mode, links, owner, group, size, time, name; E: encrypted, EL: and locked" },
	{ INL_OPT_RECURSIVE, 'R', NULL, NULL, "the directories below too" },
	{ INL_OPT_ALL, 'a', NULL, NULL, "names that begin with a dot too" },
	{ INL_OPT_ONE, '1', NULL, NULL, "one name per line, as always" },
	{ INL_OPT_DIRECTORY, 'd', NULL, NULL, "directories themselves, not what is in them" },
	{ INL_OPT_CPU, 0, "cpu", NULL, "no volume: how this CPU computes ciphers, and self-tests" },
	{ INL_OPT_KEY, 0, "key", "FILE", "a master key, raw bytes; -: standard input; repeatable" },
	{ INL_OPT_KEY_HEX, 0, "key-hex", "FILE", "a master key, hex text; -: standard input; repeatable" },
	{ INL_OPT_JSON, 0, "json", NULL, "print JSON" },
	{ INL_OPT_COUNTERS, 0, "counters", NULL, "at the end, print what the devices did to standard error" },
	{ INL_OPT_CIPHERS, 0, "ciphers", "NAME", "how ciphers are computed: best (default), openssl; bench: any that runs" },
	{ INL_OPT_KEEP_GOING, 0, "keep-going", NULL, "skip and report what cannot be copied (exit status 5)" },
	{ INL_OPT_QUIET, 'q', "quiet", NULL, "no progress" },
	{ INL_OPT_VERBOSE, 'v', "verbose", NULL, "print what is copied" },
	{ INL_OPT_V1, 0, "v1", NULL, "the descriptor of version 1 policies" },
	{ INL_OPT_HEX, 0, "key-hex", NULL, "the key on standard input is hex text" },
	{ INL_OPT_RW, 0, "rw", "WORD", "read (default), write or mix" },
	{ INL_OPT_READ, 0, "read", "PERCENT", "of mix: how many are reads (50)" },
	{ INL_OPT_BS, 0, "bs", "SIZE", "of one I/O (4K)" },
	{ INL_OPT_DEPTH, 0, "depth", "N", "I/Os under way, for each thread (32)" },
	{ INL_OPT_THREADS, 0, "threads", "N", "threads, each with a queue and a part of the range (1)" },
	{ INL_OPT_TIME, 0, "time", "SECONDS", "end after this time (2; of ciphers: 5, for all figures together)" },
	{ INL_OPT_COUNT, 0, "count", "N", "end after so many I/Os, and not after 2 seconds" },
	{ INL_OPT_PATTERN, 0, "pattern", "WORD", "random (default) or sequential" },
	{ INL_OPT_SIZE, 0, "size", "SIZE", "of the range that is used, from the start (all); of ciphers: of a buffer (64K)" },
	{ INL_OPT_MADE_KEY, 0, "key", "WORD", "none (default), or raw: encrypted with keys made at random" },
	{ INL_OPT_UNIT, 0, "unit", "SIZE", "data unit of the keys (4K, or the block size if I/Os are not made of 4K);\n"
				   "                        of ciphers: repeatable (512 and 4K)" },
	{ INL_OPT_KEYS, 0, "keys", "N", "number of keys, used at random (1)" },
	{ INL_OPT_ZIPF, 0, "zipf", "THETA", "... the n-th in proportion to 1/n^THETA (0: all alike)" },
	{ INL_OPT_PLUG, 0, "plug", "N", "submit so many together, so that they can be merged (0: one by one)" },
	{ INL_OPT_FLUSH, 0, "flush", "N", "a flush after every N writes of a thread (0: none)" },
	{ INL_OPT_SEED, 0, "seed", "N", "of places and choices (1)" },
	{ INL_OPT_SAMPLE, 0, "sample", "N", "measure the time of every N-th I/O (1; 0: of none)" },
	{ INL_OPT_OVERWRITE, 0, "overwrite", NULL, "yes, write to a device that is not memory: its content is lost" },
	{ INL_OPT_VOLUME_SIZE, 0, "size", "SIZE", "of the file that is made; a device, or a file that is there, has its own" },
	{ INL_OPT_BLOCK_SIZE, 0, "block-size", "SIZE", "1K, 2K, 4K ... 64K (4K; below 16M as mke2fs likes)" },
	{ INL_OPT_UUID, 0, "uuid", "UUID", "of the volume (made at random)" },
	{ INL_OPT_LABEL, 0, "label", "TEXT", "its name, up to 16 bytes" },
	{ INL_OPT_FORCE, 0, "force", NULL, "also where something is already, which is lost" },
	{ INL_OPT_PARENTS, 'p', "parents", NULL, "the directories above too; no error for those that are there" },
	{ INL_OPT_MODE, 'm', "mode", "MODE", "permissions, as of chmod (rwx for all, less the umask)" },
	{ INL_OPT_RM_RECURSIVE, 'r', "recursive", NULL, "directories too, with all that is below them" },
	{ INL_OPT_FORCE_RM, 'f', "force", NULL, "no error for what is not there" },
	{ INL_OPT_NO_CLOBBER, 'n', "no-clobber", NULL, "replace nothing" },
	{ INL_OPT_EXCHANGE, 0, "exchange", NULL, "the two change places" },
	{ INL_OPT_SYMBOLIC, 's', "symbolic", NULL, "a symbolic link: TARGET is any text" },
	{ INL_OPT_NEW_SIZE, 's', "size", "SIZE", "the new size; +SIZE: so much longer; -SIZE: shorter" },
	{ INL_OPT_NO_CREATE, 'c', "no-create", NULL, "make no files" },
	{ INL_OPT_BELOW, 'R', "recursive", NULL, "and all that is below; symbolic links are not followed" },
	{ INL_OPT_NO_FOLLOW, 'h', "no-dereference", NULL, "of a symbolic link itself, not of what it leads to" },
	{ INL_OPT_DATE, 'd', "date", "DATE", "@SECONDS[.NS] or as 2026-11-28T05:09:00Z; local time without a zone (now)" },
	{ INL_OPT_ATIME, 'a', NULL, NULL, "only the time of access" },
	{ INL_OPT_MTIME, 'm', NULL, NULL, "only the time of modification" },
	{ INL_OPT_READ_ONLY, 0, "read-only", NULL, "change nothing: replay the journal in memory only" },
	{ INL_OPT_POLICY, 0, "policy", "FILE", "what to encrypt: lines of PATH key=FILE [padding=N]...; see inlay(1)" },
	{ INL_OPT_SEED_TEXT, 0, "seed", "TEXT", "the same image every time; with SOURCE_DATE_EPOCH in the environment" },
	{ INL_OPT_HEX_OUT, 0, "key-hex", NULL, "as hex text" },
	{ INL_OPT_CONTENTS, 0, "contents", "MODE", "of file contents (AES-256-XTS)" },
	{ INL_OPT_FILENAMES, 0, "filenames", "MODE", "of names and symbolic links (AES-256-CBC-CTS, or what goes with --contents)" },
	{ INL_OPT_PADDING, 0, "padding", "N", "names are padded to a multiple of 4, 8, 16 or 32 bytes (32)" },
	{ INL_OPT_DATA_UNIT, 0, "data-unit-size", "SIZE", "512 bytes up to a block (a block)" },
	{ INL_OPT_LBLK_64, 0, "iv-ino-lblk-64", NULL, "one key for all, IVs of inode and block: for UFS hardware" },
	{ INL_OPT_LBLK_32, 0, "iv-ino-lblk-32", NULL, "the same in 32 bits: for eMMC hardware" },
	{ INL_OPT_DIRECT_KEY, 0, "direct-key", NULL, "one key for all, IVs of nonce and block: for Adiantum" },
	{ INL_OPT_POLICY_V1, 0, "v1", NULL, "a version 1 policy, which old kernels need" },
	{ INL_OPT_FOREGROUND, 'f', "foreground", NULL, "serve in this process, and not in the background" },
	{ INL_OPT_MOUNT_OPTIONS, 'o', "options", "LIST", "allow_other, ro, dev, suid, ... as fusermount3(1); key=FILE; passphrase,\n"
											"                        protector=NAME; no_writeback" },
	{ INL_OPT_WATCH, 'w', "watch", NULL, "a line for each second" },
	{ INL_OPT_DEFAULT, 0, "default", NULL, "encrypt with it what you make in directories that are not encrypted" },
	{ INL_OPT_ALL_USERS, 0, "all-users", NULL, "whoever has added the key; root only" },
	{ INL_OPT_WAIT, 0, "wait", NULL, "until what is in use is closed" },
	{ INL_OPT_PASSPHRASE, 0, "passphrase", NULL, "ask for the passphrase of a protector that the volume has" },
	{ INL_OPT_PASSPHRASE_FD, 0, "passphrase-fd", "N", "read it from this descriptor: a line for each protector" },
	{ INL_OPT_PROTECTOR, 0, "protector", "NAME", "which protector, by name or id; repeatable" },
	{ INL_OPT_PROTECTOR_KEY, 0, "protector-key", "FILE", "32 bytes that open a protector made of a key file" },
	{ INL_OPT_PROTECTORS_IN, 0, "protectors-in", "DIR", "where linked protectors lie: a mounted file system; repeatable" },
	{ INL_OPT_MEMORY_LIMIT, 0, "memory-limit", "SIZE", "that opening a protector may take (128M)" },
	{ INL_OPT_NEW_KEY, 0, "new-key", "FILE", "32 bytes that are to open it from now on, instead of a passphrase" },
	{ INL_OPT_ARGON2_TIME, 0, "argon2-time", "N", "passes over the memory for a new passphrase (about a second)" },
	{ INL_OPT_ARGON2_MEMORY, 0, "argon2-memory", "SIZE", "... and how much (128M, an eighth of what there is at most)" },
	{ INL_OPT_HELP, 'h', "help", NULL, "print this" },
};

#define N_OPTION_ROWS (sizeof(option_rows) / sizeof(option_rows[0]))

#define PROTECTORS INL_OPT_PASSPHRASE, INL_OPT_PASSPHRASE_FD, INL_OPT_PROTECTOR, INL_OPT_PROTECTOR_KEY, \
	INL_OPT_PROTECTORS_IN, INL_OPT_MEMORY_LIMIT
#define KEYS INL_OPT_KEY, INL_OPT_KEY_HEX, PROTECTORS, INL_OPT_COUNTERS, INL_OPT_CIPHERS

static int run_help(struct inl_cli *cli, int n_args, char **args);

static const struct inl_cli_command commands[] = {
	{
		"info", "IMAGE | --cpu", "describe a volume: features, policies, keys, state; or this CPU", "",
		{ INL_OPT_CPU, INL_OPT_JSON, KEYS },
		0, 1, inl_cli_info,
	},
	{
		"ls", "IMAGE[:PATH]...", "list directories",
		"Without the key of an encrypted directory its no-key names are listed, as Linux shows them.\n"
		"Sorted by bytes. Owners and groups are numbers.\n",
		{ INL_OPT_LONG, INL_OPT_RECURSIVE, INL_OPT_ALL, INL_OPT_ONE, INL_OPT_DIRECTORY,
		  INL_OPT_JSON, KEYS }, 1, -1, inl_cli_ls,
	},
	{
		"tree", "IMAGE[:PATH]", "show a directory and all below it as a tree", "",
		{ INL_OPT_ALL, KEYS }, 1, 1, inl_cli_tree,
	},
	{
		"stat", "IMAGE:PATH...", "everything about files: inode, times, policy, key, extents",
		"A symbolic link in the last place is not followed.\n",
		{ INL_OPT_JSON, KEYS }, 1, -1, inl_cli_stat,
	},
	{
		"cat", "IMAGE:PATH...", "write files to standard output", "",
		{ KEYS }, 1, -1, inl_cli_cat,
	},
	{
		"get", "IMAGE[:PATH] DEST", "export a file or a tree",
		"DEST is treated as cp -a treats it: in an existing directory a copy of the name PATH ends with\n"
		"is made, otherwise DEST is made. Without PATH, or with one that ends in \"/.\", the content goes\n"
		"into DEST itself. Times, modes, owners (for root), extended attributes, symbolic and hard links,\n"
		"devices and holes are kept. Run the same command again to go on after an interruption: what is\n"
		"already there is skipped.\n",
		{ INL_OPT_KEEP_GOING, INL_OPT_QUIET, INL_OPT_VERBOSE, KEYS },
		2, 2, inl_cli_get,
	},
	{
		"mkfs", "IMAGE", "make a volume, in a new file or on a block device",
		"ext4 with what encrypted directories need: encrypt, 64bit, metadata_csum, stable_inodes. mke2fs does it.\n",
		{ INL_OPT_VOLUME_SIZE, INL_OPT_BLOCK_SIZE, INL_OPT_UUID, INL_OPT_LABEL, INL_OPT_FORCE }, 1, 1, inl_cli_mkfs,
	},
	{
		"build", "DIR IMAGE", "make a volume of a directory, with encrypted directories in it",
		"What mke2fs -d does, and directories of your choice encrypted, each with its own key. IMAGE appears when it is\n"
		"complete. With --seed the same tree, keys and SOURCE_DATE_EPOCH make the same image, byte for byte.\n",
		{ INL_OPT_POLICY, INL_OPT_SEED_TEXT, INL_OPT_VOLUME_SIZE, INL_OPT_BLOCK_SIZE, INL_OPT_UUID, INL_OPT_LABEL,
		  INL_OPT_FORCE, INL_OPT_KEEP_GOING, INL_OPT_QUIET, INL_OPT_VERBOSE, INL_OPT_COUNTERS, INL_OPT_CIPHERS },
		2, 2, inl_cli_build,
	},
	{
		"put", "SRC... IMAGE[:PATH]", "import files and trees",
		"PATH is treated as cp -a treats its last argument: in an existing directory copies are made under the last\n"
		"names of SRC, otherwise PATH is made. Of a SRC that ends in \"/.\" the content goes into PATH itself. Times,\n"
		"modes, owners, extended attributes, symbolic and hard links, devices and holes are kept. Run the same\n"
		"command again to go on after an interruption: what is already there is skipped.\n",
		{ INL_OPT_KEEP_GOING, INL_OPT_QUIET, INL_OPT_VERBOSE, KEYS },
		2, -1, inl_cli_put,
	},
	{
		"mkdir", "IMAGE:PATH...", "make directories", "",
		{ INL_OPT_PARENTS, INL_OPT_MODE, KEYS }, 1, -1, inl_cli_mkdir,
	},
	{
		"rm", "IMAGE:PATH...", "remove files, and trees", "",
		{ INL_OPT_RM_RECURSIVE, INL_OPT_FORCE_RM, KEYS }, 1, -1, inl_cli_rm,
	},
	{
		"mv", "IMAGE:PATH... IMAGE:NEW", "rename, and move within an image",
		"If NEW is a directory, into it. What is there is replaced, in one step. Where things are encrypted differently, they\n"
		"are copied, and then removed.\n",
		{ INL_OPT_NO_CLOBBER, INL_OPT_EXCHANGE, KEYS }, 2, -1, inl_cli_mv,
	},
	{
		"ln", "TARGET IMAGE:NAME", "make a hard link to IMAGE:PATH or, with -s, a symbolic one",
		"If NAME is a directory, in it, under the last name of TARGET.\n",
		{ INL_OPT_SYMBOLIC, KEYS }, 2, 2, inl_cli_ln,
	},
	{
		"truncate", "IMAGE:PATH...", "make files this long, with a hole or by cutting them off",
		"A file that is missing is made.\n",
		{ INL_OPT_NEW_SIZE, INL_OPT_NO_CREATE, KEYS }, 1, -1, inl_cli_truncate,
	},
	{
		"chmod", "MODE IMAGE:PATH...", "change permissions: octal, or as in u=rwx,go+rX",
		"MODE is what chmod(1) takes; one that begins with '-' needs '--' before it.\n",
		{ INL_OPT_BELOW, KEYS }, 2, -1, inl_cli_chmod,
	},
	{
		"chown", "UID[:GID] IMAGE:PATH...", "change owners, which are numbers",
		"Of a symbolic link that of the link itself. As on Linux, files lose set-ID bits and capabilities.\n",
		{ INL_OPT_BELOW, INL_OPT_NO_FOLLOW, KEYS }, 2, -1, inl_cli_chown,
	},
	{
		"touch", "IMAGE:PATH...", "set times, make empty files", "",
		{ INL_OPT_DATE, INL_OPT_ATIME, INL_OPT_MTIME, INL_OPT_NO_CREATE, KEYS }, 1, -1, inl_cli_touch,
	},
	{
		"xattr", "VERB [NAME [VALUE]] IMAGE:PATH...", "extended attributes: list, get NAME, set NAME VALUE, remove NAME",
		"VALUE is text, \"text\" in quotes, hex after 0x, or base64 after 0s. get prints what set takes: text or 0x.\n",
		{ INL_OPT_NO_FOLLOW, KEYS }, 2, -1, inl_cli_xattr,
	},
	{
		"fsck", "IMAGE", "bring a volume to rest, and check it",
		"The journal is replayed, and what a crash left behind is removed. Then all that is encrypted is looked at:\n"
		"contexts, nonces, policies and, with their keys, names; and e2fsck looks at the volume, which changes\n"
		"nothing. Exit status 4: errors.\n",
		{ INL_OPT_READ_ONLY, KEYS }, 1, 1, inl_cli_fsck,
	},
	{
		"encrypt", "IMAGE:DIR...", "encrypt what will be in empty directories, with the key that is given",
		"All that is made below inherits the policy. As Linux does it: fscryptctl set_policy. With --passphrase or\n"
		"--protector-key a key is made, and wrapped by a protector, as fscrypt encrypt does it: one that is there, or a new one.\n",
		{ INL_OPT_CONTENTS, INL_OPT_FILENAMES, INL_OPT_PADDING, INL_OPT_DATA_UNIT, INL_OPT_LBLK_64, INL_OPT_LBLK_32,
		  INL_OPT_DIRECT_KEY, INL_OPT_POLICY_V1, INL_OPT_ARGON2_TIME, INL_OPT_ARGON2_MEMORY, KEYS },
		1, -1, inl_cli_encrypt,
	},
	{
		"protect", "IMAGE|DIR VERB [NAME]", "several ways to the same keys: add, remove, list, change, recovery",
		"add: another passphrase, or a key file (--new-key). change: another passphrase instead of one. recovery: a code, which\n"
		"is printed once. remove: not the last one. As fscrypt keeps them, which has them, too, on Linux.\n",
		{ INL_OPT_NEW_KEY, INL_OPT_ARGON2_TIME, INL_OPT_ARGON2_MEMORY, PROTECTORS, INL_OPT_COUNTERS, INL_OPT_CIPHERS },
		2, 3, inl_cli_protect,
	},
	{
		"mount", "IMAGE DIR", "make a volume a part of the file system, for every program",
		"Until 'inlay umount DIR'. All that was written is durable after 5 seconds, or an fsync. As mount.fuse.inlay it\n"
		"serves mount(8) and fstab: IMAGE DIR fuse.inlay key=FILE,allow_other 0 0\n",
		{ INL_OPT_READ_ONLY, INL_OPT_FOREGROUND, INL_OPT_MOUNT_OPTIONS, KEYS }, 2, 2, inl_cli_mount,
	},
	{
		"umount", "DIR", "end a mount, and wait until the volume is at rest", "",
		{ INL_OPT_END }, 1, 1, inl_cli_umount,
	},
	{
		"status", "DIR", "what a mount is doing: volume, keys, devices, counters", "",
		{ INL_OPT_WATCH, INL_OPT_JSON }, 1, 1, inl_cli_status,
	},
	{
		"unlock", "DIR", "give a key to a mount: what it encrypts becomes readable",
		"The key is yours: it stays until you, and all others who have added it, lock it again.\n",
		{ INL_OPT_KEY, INL_OPT_KEY_HEX, PROTECTORS, INL_OPT_DEFAULT }, 1, 1, inl_cli_unlock,
	},
	{
		"lock", "[DIR [IDENTIFIER]]", "take your keys, or one of them, away from a mount, or from all",
		"What nobody has open becomes unreadable at once, for everybody; what is in use when it is closed. Exits with 5 then.\n",
		{ INL_OPT_ALL_USERS, INL_OPT_WAIT }, 0, 2, inl_cli_lock,
	},
	{
		"keygen", "> KEY", "make a master key: 64 random bytes", "",
		{ INL_OPT_HEX_OUT }, 0, 0, inl_cli_keygen,
	},
	{
		"keyid", "< KEY", "name a key: its identifier (version 2 policies) or descriptor (version 1)", "",
		{ INL_OPT_V1, INL_OPT_HEX }, 0, 0, inl_cli_keyid,
	},
	{
		"device", "[SPEC]", "describe a stack of devices; without SPEC: list the drivers", "",
		{ INL_OPT_JSON }, 0, 1, inl_cli_device,
	},
	{
		"bench", "block SPEC | ciphers", "measure a stack of devices, or the ciphers of this CPU",
		"ciphers takes --ciphers, --json, --size, --time and --unit: all units, ways to compute and directions.\n"
		"Without --rw nothing is written. Memory (ram) is filled with noise first, up to 1 GiB of each device.\n"
		"SIZE is in bytes or has K, M, G or T after it.\n",
		{ INL_OPT_RW, INL_OPT_READ, INL_OPT_BS, INL_OPT_DEPTH, INL_OPT_THREADS, INL_OPT_TIME, INL_OPT_COUNT,
		  INL_OPT_PATTERN, INL_OPT_SIZE, INL_OPT_MADE_KEY, INL_OPT_UNIT, INL_OPT_KEYS, INL_OPT_ZIPF, INL_OPT_PLUG,
		  INL_OPT_FLUSH, INL_OPT_SEED, INL_OPT_SAMPLE, INL_OPT_OVERWRITE, INL_OPT_CIPHERS, INL_OPT_JSON },
		1, 2, inl_cli_bench,
	},
	{
		"help", "[COMMAND]", "print help", "",
		{ INL_OPT_END }, 0, 1, run_help,
	},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char synopsis[] = "Usage: inlay COMMAND [OPTION]... [ARGUMENT]...\n"
			       "Read and write ext4 volumes with encrypted directories, without mounting them.\n\n";

static const char general_help[] =
	"\nIMAGE is an image file, a block device, or a stack of devices such as 'part(disk.img, 2)'.\n"
	"IMAGE[:PATH]: an argument that names an existing file is an IMAGE; otherwise it is divided at the first ':'\n"
	"outside parentheses and quotes that is followed by '/' or ends it, else at the first ':' outside them.\n"
	"\nExit status: 0 success; 1 failure; 2 usage; 3 a key is missing or wrong; 4 not a volume that can be used, or damaged;\n"
	"5 get or put done, but not all of it; 130 interrupted.\n"
	"\nMore: inlay help COMMAND; inlay(1).\n";

/* ---- help -------------------------------------------------------------------------------------------------------- */

static const struct inl_cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static bool takes(const struct inl_cli_command *command, enum inl_opt opt)
{
	for (unsigned i = 0; command->options[i]; i++) {
		if (command->options[i] == opt)
			return true;
	}
	return opt == INL_OPT_HELP;
}

/* letter: 0 where the row has none, or another row has it. */
static void print_option(const struct option_row *row, char letter)
{
	char text[40];

	snprintf(text, sizeof(text), "%c%c%s%s%s%s%s", letter ? '-' : ' ', letter ? letter : ' ',
		 letter && row->name ? ", " : row->name ? "  " : "", row->name ? "--" : "",
		 row->name ? row->name : "", row->value ? " " : "", row->value ? row->value : "");
	printf("  %-20s  %s\n", text, row->help);
}

static char letter_of(const struct inl_cli_command *command, const struct option_row *row)
{
	return row->opt == INL_OPT_HELP && takes(command, INL_OPT_NO_FOLLOW) ? '\0' : row->letter;
}

static int help_of(const struct inl_cli_command *command)
{
	printf("Usage: inlay %s %s%s\n%c%s.\n", command->name, command->options[0] ? "[OPTION]... " : "",
	       command->usage, command->summary[0] - 'a' + 'A', command->summary + 1);
	if (command->help[0])
		printf("\n%s", command->help);
	printf("\nOptions:\n");
	for (size_t i = 0; i < N_OPTION_ROWS; i++) {
		if (takes(command, option_rows[i].opt))
			print_option(&option_rows[i], letter_of(command, &option_rows[i]));
	}
	return 0;
}

/* Usage and summary; what is too long for its column gets a line of its own. */
static void print_command(const struct inl_cli_command *command)
{
	if (strlen(command->usage) > 26)
		printf("  %-8s %s\n  %8s %-26s %s\n", command->name, command->usage, "", "", command->summary);
	else
		printf("  %-8s %-26s %s\n", command->name, command->usage, command->summary);
}

static int general(void)
{
	fputs(synopsis, stdout);
	for (size_t i = 0; i < N_COMMANDS; i++)
		print_command(&commands[i]);
	fputs(general_help, stdout);
	return 0;
}

static int run_help(struct inl_cli *cli, int n_args, char **args)
{
	const struct inl_cli_command *command = n_args ? find_command(args[0]) : NULL;

	if (n_args && !command)
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0], "no such command");
	return command ? help_of(command) : general();
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* What getopt_long wants to know, for one command. Long options without a letter return 256 + enum inl_opt. */
struct parser {
	char letters[2 * N_OPTION_ROWS + 2];
	struct option names[N_OPTION_ROWS + 1];
};

static void build_parser(const struct inl_cli_command *command, struct parser *parser)
{
	unsigned n_letters = 1, n_names = 0;

	*parser = (struct parser){ .letters = ":" };
	for (size_t i = 0; i < N_OPTION_ROWS; i++) {
		const struct option_row *row = &option_rows[i];

		if (!takes(command, row->opt))
			continue;
		if (row->letter)
			parser->letters[n_letters++] = row->letter;
		if (row->letter && row->value)
			parser->letters[n_letters++] = ':';
		if (row->name)
			parser->names[n_names++] =
				(struct option){ row->name, row->value != NULL, NULL, 256 + (int)row->opt };
	}
}

/* The row of an option that a command takes; NULL: it is not in the table. */
static const struct option_row *row_of(enum inl_opt opt)
{
	for (size_t i = 0; i < N_OPTION_ROWS; i++) {
		if (option_rows[i].opt == opt)
			return &option_rows[i];
	}
	return NULL;
}

const char *inl_cli_option_name(enum inl_opt opt, char name[32])
{
	const struct option_row *row = row_of(opt);

	snprintf(name, 32, "--%s", row && row->name ? row->name : "?");
	return name;
}

char inl_cli_option_letter(enum inl_opt opt)
{
	const struct option_row *row = row_of(opt);

	return row ? row->letter : '\0';
}

static enum inl_opt opt_of(const struct inl_cli_command *command, int c)
{
	for (size_t i = 0; i < N_OPTION_ROWS; i++) {
		if (takes(command, option_rows[i].opt) &&
		    (c == option_rows[i].letter || c == 256 + (int)option_rows[i].opt))
			return option_rows[i].opt;
	}
	return INL_OPT_END;
}

static int usage_error(struct inl_cli *cli, int c, char **argv)
{
	const char *word = argv[optind - 1];
	char letter[] = { '-', (char)optopt, '\0' };
	const struct option_row *row;

	if (c == ':') {
		row = row_of(opt_of(cli->command, optopt));
		return inl_cli_fail(cli, INL_EXIT_USAGE, word, "%s must follow",
				    row && strcmp(row->value, "FILE") ? row->value : "a file name");
	}
	if (optopt > 0 && optopt < 256)
		word = letter;
	return inl_cli_fail(cli, INL_EXIT_USAGE, word, "%s; see: inlay help %s",
			    optopt >= 256 ? "takes no value" : "no such option", cli->command->name);
}

static int take_place(struct inl_cli *cli)
{
	if (cli->n_places == INL_PROTECTORS_NAMED_MAX)
		return inl_cli_fail(cli, INL_EXIT_USAGE, "--protectors-in", "more than %d times", INL_PROTECTORS_NAMED_MAX);
	cli->places[cli->n_places++] = optarg;
	return 0;
}

static int take_option(struct inl_cli *cli, enum inl_opt opt)
{
	cli->given[opt] = true;
	cli->values[opt] = optarg;
	if (opt == INL_OPT_UNIT) {
		if (cli->n_units == INL_UNITS_MAX)
			return inl_cli_fail(cli, INL_EXIT_USAGE, "--unit", "more than %d times", INL_UNITS_MAX);
		cli->units[cli->n_units++] = optarg;
	}
	if (opt == INL_OPT_PROTECTOR)
		return inl_cli_add_protector(cli, optarg);
	if (opt == INL_OPT_PROTECTORS_IN)
		return take_place(cli);
	if (opt == INL_OPT_KEY || opt == INL_OPT_KEY_HEX)
		return inl_cli_add_key_file(cli, optarg, opt == INL_OPT_KEY_HEX);
	return 0;
}

static int parse_options(struct inl_cli *cli, int argc, char **argv)
{
	struct parser parser;
	int c, code = 0;

	build_parser(cli->command, &parser);
	opterr = 0;
	while (!code && (c = getopt_long(argc, argv, parser.letters, parser.names, NULL)) != -1) {
		if (c == '?' || c == ':')
			return usage_error(cli, c, argv);
		code = take_option(cli, opt_of(cli->command, c));
	}
	return code;
}

int inl_cli_operands(const struct inl_cli *cli, int n_args, char **args, int min, int max)
{
	const struct inl_cli_command *command = cli->command;

	if (n_args < min)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "too few arguments; usage: inlay %s %s", command->name,
				    command->usage);
	if (max >= 0 && n_args > max)
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[max],
				    "one argument too many; usage: inlay %s %s", command->name, command->usage);
	return 0;
}

/* argv[0] is the name of the command. */
static int run(struct inl_cli *cli, int argc, char **argv)
{
	int code = parse_options(cli, argc, argv);

	if (code)
		return code;
	if (cli->given[INL_OPT_HELP])
		return help_of(cli->command);
	code = inl_cli_operands(cli, argc - optind, argv + optind, cli->command->min_args, cli->command->max_args);
	if (!code && !inl_inside_run(cli, argc - optind, argv + optind, &code))
		code = cli->command->run(cli, argc - optind, argv + optind);
	return inl_cli_worse(code, inl_cli_close(cli));
}

/* Output that did not arrive is a failure. */
static int finish(const struct inl_cli *cli, int code)
{
	if (!fflush(stdout) && !ferror(stdout))
		return code;
	inl_cli_error(cli, "standard output", errno ? -errno : -EIO, NULL);
	return inl_cli_worse(code, INL_EXIT_FAILED);
}

#define HELPER "mount."

/* "OLD,MORE"; old is freed. */
static char *add_options(char *old, const char *more)
{
	size_t len = strlen(old) + strlen(more) + 2;
	char *both = inl_cli_alloc(len);

	snprintf(both, len, "%s,%s", old, more);
	free(old);
	return both;
}

/*
 * As mount(8) calls its helpers: mount.fuse.inlay SOURCE DIR [-sfnvrw] [-N NAMESPACE] [-o OPTIONS]... [-t TYPE]. What of it
 * does not concern us is left out.
 */
static int run_helper(struct inl_cli *cli, int argc, char **argv)
{
	char *own[8] = { "mount", "-o", NULL, "--" }, *options = inl_cli_strdup("rw", 2);
	int n = 4, c, code = 0;
	bool fake = false;

	opterr = 0;
	while (!code && (c = getopt(argc, argv, "-sfnvrwo:t:N:")) != -1) {
		fake = fake || c == 'f';
		if (c == '?' || (c == 1 && n == 6))
			code = inl_cli_fail(cli, INL_EXIT_USAGE, argv[optind - 1], "not understood");
		else if (c == 1)
			own[n++] = optarg;
		else if (c == 'o' || c == 'r')
			options = add_options(options, c == 'r' ? "ro" : optarg);
	}
	/* Behind "--" all are operands. */
	while (optind < argc && n < 6)
		own[n++] = argv[optind++];
	own[2] = options;
	optind = 0;
	if (!code && !fake)
		code = run(cli, n, own);
	free(options);
	return code;
}

static const char *last_part(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;

	return slash ? slash + 1 : path ? path : "";
}

int main(int argc, char **argv)
{
	static struct inl_cli cli;

	signal(SIGPIPE, SIG_DFL); /* whoever reads our output has seen enough: not worth a message */
	if (!strncmp(last_part(argv[0]), HELPER, sizeof(HELPER) - 1)) {
		cli.command = find_command("mount");
		return finish(&cli, run_helper(&cli, argc, argv));
	}
	if (argc < 2) {
		fputs(synopsis, stderr);
		fputs("inlay: no command is given; see: inlay help\n", stderr);
		return INL_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return finish(&cli, general());
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("inlay %s\n", inl_version());
		return finish(&cli, 0);
	}
	cli.command = find_command(argv[1]);
	if (!cli.command)
		return inl_cli_fail(&cli, INL_EXIT_USAGE, argv[1], "no such command; see: inlay help");
	return finish(&cli, run(&cli, argc - 1, argv + 1));
}
