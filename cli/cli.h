/*
 * cli/cli.h: what the subcommands share: options, exit codes, messages, an open volume, sorted listings.
 * Not here: output formats (cli/text.h, cli/json.h); the parts of `get` (cli/get.h) and of `bench` (cli/bench.h).
 * Read more: doc/inlay.1.
 */
#ifndef INLAY_CLI_CLI_H
#define INLAY_CLI_CLI_H

#include <inlay/cipher.h>
#include <inlay/volume.h>
#include <stdio.h>

enum inl_exit {
	INL_EXIT_OK = 0,
	INL_EXIT_FAILED = 1,
	INL_EXIT_USAGE = 2,
	INL_EXIT_KEY = 3,        /* a key is missing or wrong */
	INL_EXIT_VOLUME = 4,     /* no volume that can be read */
	INL_EXIT_INCOMPLETE = 5, /* done, but not all of it */
	INL_EXIT_INTERRUPTED = 130,
};

/* Every option of every subcommand; a subcommand names those it takes. */
enum inl_opt {
	INL_OPT_END,
	INL_OPT_LONG,
	INL_OPT_RECURSIVE,
	INL_OPT_ALL,
	INL_OPT_ONE,
	INL_OPT_DIRECTORY,
	INL_OPT_KEY,
	INL_OPT_KEY_HEX,
	INL_OPT_JSON,
	INL_OPT_COUNTERS,
	INL_OPT_CIPHERS,
	INL_OPT_CPU,
	INL_OPT_KEEP_GOING,
	INL_OPT_QUIET,
	INL_OPT_VERBOSE,
	INL_OPT_V1,
	INL_OPT_HEX, /* of keyid: the key on standard input is hex text */
	INL_OPT_RW,
	INL_OPT_READ,
	INL_OPT_BS,
	INL_OPT_DEPTH,
	INL_OPT_THREADS,
	INL_OPT_TIME,
	INL_OPT_COUNT,
	INL_OPT_PATTERN,
	INL_OPT_SIZE,
	INL_OPT_MADE_KEY, /* of bench: --key, but none or one that is made */
	INL_OPT_UNIT,
	INL_OPT_KEYS,
	INL_OPT_ZIPF,
	INL_OPT_PLUG,
	INL_OPT_FLUSH,
	INL_OPT_SEED,
	INL_OPT_SAMPLE,
	INL_OPT_OVERWRITE,
	INL_OPT_VOLUME_SIZE, /* of mkfs: --size */
	INL_OPT_BLOCK_SIZE,
	INL_OPT_UUID,
	INL_OPT_LABEL,
	INL_OPT_FORCE,
	INL_OPT_PARENTS,
	INL_OPT_MODE,
	INL_OPT_RM_RECURSIVE,
	INL_OPT_FORCE_RM, /* of rm: -f */
	INL_OPT_NO_CLOBBER,
	INL_OPT_EXCHANGE,
	INL_OPT_SYMBOLIC,
	INL_OPT_NEW_SIZE, /* of truncate: --size */
	INL_OPT_NO_CREATE,
	INL_OPT_BELOW, /* of chmod and chown: -R */
	INL_OPT_NO_FOLLOW,
	INL_OPT_DATE,
	INL_OPT_ATIME,
	INL_OPT_MTIME,
	INL_OPT_READ_ONLY,
	INL_OPT_POLICY,	    /* of build */
	INL_OPT_SEED_TEXT, /* of build: --seed */
	INL_OPT_HEX_OUT, /* of keygen: the new key as hex text */
	INL_OPT_CONTENTS,
	INL_OPT_FILENAMES,
	INL_OPT_PADDING,
	INL_OPT_DATA_UNIT,
	INL_OPT_LBLK_64,
	INL_OPT_LBLK_32,
	INL_OPT_DIRECT_KEY,
	INL_OPT_POLICY_V1, /* of encrypt: --v1 */
	INL_OPT_FOREGROUND, /* of mount */
	INL_OPT_MOUNT_OPTIONS,
	INL_OPT_WATCH, /* of status */
	INL_OPT_DEFAULT, /* of unlock */
	INL_OPT_ALL_USERS, /* of lock */
	INL_OPT_WAIT,
	INL_OPT_PASSPHRASE,
	INL_OPT_PASSPHRASE_FD,
	INL_OPT_PROTECTOR,
	INL_OPT_PROTECTOR_KEY,
	INL_OPT_PROTECTORS_IN,
	INL_OPT_MEMORY_LIMIT,
	INL_OPT_NEW_KEY, /* of protect */
	INL_OPT_ARGON2_TIME,
	INL_OPT_ARGON2_MEMORY,
	INL_OPT_HELP,
	INL_OPT_MAX
};

#define INL_KEY_FILES_MAX 256
#define INL_UNITS_MAX 16
#define INL_PROTECTORS_NAMED_MAX 16

/* One run of the command. */
struct inl_cli {
	const struct inl_cli_command *command;
	bool given[INL_OPT_MAX];
	const char *values[INL_OPT_MAX]; /* as written; of those that can be repeated the last; NULL: none */
	struct {
		const char *file;
		bool hex;
	} key_files[INL_KEY_FILES_MAX];
	unsigned n_key_files;
	const char *units[INL_UNITS_MAX]; /* of every --unit */
	unsigned n_units;

	const char *protectors[INL_PROTECTORS_NAMED_MAX]; /* of every --protector */
	unsigned n_protectors;
	const char *places[INL_PROTECTORS_NAMED_MAX]; /* of every --protectors-in */
	unsigned n_places;

	unsigned flags; /* volumes are opened with: of enum inl_volume_flags */
	const char *ciphers; /* the implementation; NULL: the best of each */

	bool building; /* a volume that nobody has yet: a crash would cost nothing */

	bool making; /* protectors are worked on: the keys of the volume are not asked for when it is opened */
	bool claims; /* the keys that are given are this user's, and can be taken away again */
	struct inl_keyring *keys; /* from the first inl_cli_open on */
	char *image;              /* what is open */
	int open_err;             /* of the last inl_cli_open: why not */
	struct inl_dev *dev;
	struct inl_volume *vol;
};

struct inl_cli_command {
	const char *name;
	const char *usage;                                        /* the operands */
	const char *summary;                                      /* one line */
	const char *help;                                         /* more lines; may be "" */
	uint8_t options[32];                                      /* of enum inl_opt, up to INL_OPT_END */
	int min_args, max_args;                                   /* operands; max -1: any number */
	int (*run)(struct inl_cli *cli, int n_args, char **args); /* returns an exit code */
};

int inl_cli_info(struct inl_cli *cli, int n_args, char **args);
int inl_cli_ls(struct inl_cli *cli, int n_args, char **args);
int inl_cli_tree(struct inl_cli *cli, int n_args, char **args);
int inl_cli_stat(struct inl_cli *cli, int n_args, char **args);
int inl_cli_cat(struct inl_cli *cli, int n_args, char **args);
int inl_cli_get(struct inl_cli *cli, int n_args, char **args);
int inl_cli_build(struct inl_cli *cli, int n_args, char **args);
int inl_cli_mkfs(struct inl_cli *cli, int n_args, char **args);
int inl_cli_put(struct inl_cli *cli, int n_args, char **args);
int inl_cli_mkdir(struct inl_cli *cli, int n_args, char **args);
int inl_cli_rm(struct inl_cli *cli, int n_args, char **args);
int inl_cli_mv(struct inl_cli *cli, int n_args, char **args);
int inl_cli_ln(struct inl_cli *cli, int n_args, char **args);
int inl_cli_truncate(struct inl_cli *cli, int n_args, char **args);
int inl_cli_chmod(struct inl_cli *cli, int n_args, char **args);
int inl_cli_chown(struct inl_cli *cli, int n_args, char **args);
int inl_cli_touch(struct inl_cli *cli, int n_args, char **args);
int inl_cli_xattr(struct inl_cli *cli, int n_args, char **args);
int inl_cli_fsck(struct inl_cli *cli, int n_args, char **args);
int inl_cli_encrypt(struct inl_cli *cli, int n_args, char **args);
int inl_cli_protect(struct inl_cli *cli, int n_args, char **args);
int inl_cli_unlock(struct inl_cli *cli, int n_args, char **args);
int inl_cli_lock(struct inl_cli *cli, int n_args, char **args);
int inl_cli_mount(struct inl_cli *cli, int n_args, char **args);
int inl_cli_umount(struct inl_cli *cli, int n_args, char **args);
int inl_cli_status(struct inl_cli *cli, int n_args, char **args);
int inl_cli_keygen(struct inl_cli *cli, int n_args, char **args);
int inl_cli_keyid(struct inl_cli *cli, int n_args, char **args);
int inl_cli_device(struct inl_cli *cli, int n_args, char **args);
int inl_cli_bench(struct inl_cli *cli, int n_args, char **args);

/* Are there as many operands as there should be (max -1: any number)? 0 or an exit code; the message is printed. */
int inl_cli_operands(const struct inl_cli *cli, int n_args, char **args, int min, int max);

/* `inlay info --cpu` */
int inl_cli_cpu(struct inl_cli *cli);

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/*
 * Print "inlay: WHAT: WHERE: why" on standard error; why is diag's text if it has one, else what err means.
 *
 *   where   may be NULL
 *   err     negative errno
 *   diag    may be NULL
 *
 * Returns: the exit code for err.
 */
int inl_cli_error(const struct inl_cli *cli, const char *where, int err, const struct inl_diag *diag);

/* The same with a reason of the caller's; returns code. */
int inl_cli_fail(const struct inl_cli *cli, int code, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* What an errno means to somebody who reads a volume; err negative. */
const char *inl_cli_why(int err);

/* -ENOSPC: of what has the volume nothing left? diag stays as it is if it has a text. */
void inl_cli_explain_full(const struct inl_cli *cli, struct inl_diag *diag);

/* The first of two exit codes that is not 0. */
int inl_cli_worse(int a, int b);

/* ---- signals ----------------------------------------------------------------------------------------------------- */

/*
 * From now on SIGHUP, SIGINT and SIGTERM are only noted. System calls are not restarted: a write that hangs ends too. Who
 * started us ignoring a signal goes on doing so.
 *
 *   once   the second signal ends the process as usual
 */
void inl_cli_catch_signals(bool once);
bool inl_cli_interrupted(void);

/* ---- values of options ------------------------------------------------------------------------------------------- */

/* "--depth" */
const char *inl_cli_option_name(enum inl_opt opt, char name[32]);
char inl_cli_option_letter(enum inl_opt opt); /* or 0 */

/*
 * The value of an option, min .. max; *out stays as it is where the option was not given.
 *
 *   number  decimal digits
 *   size    bytes, written as in a SPEC: 512, 64K, 1MiB
 *   units   the sizes of every --unit
 *   real    digits, and a fraction after a point
 *   word    one of words, which ends in NULL: its index
 *
 * Returns: 0 or an exit code; the message is printed.
 */
int inl_cli_number(const struct inl_cli *cli, enum inl_opt opt, uint64_t min, uint64_t max, uint64_t *out);
int inl_cli_size(const struct inl_cli *cli, enum inl_opt opt, uint64_t min, uint64_t max, uint64_t *out);
int inl_cli_units(const struct inl_cli *cli, uint64_t min, uint64_t max, uint64_t out[INL_UNITS_MAX], unsigned *n);
int inl_cli_real(const struct inl_cli *cli, enum inl_opt opt, double min, double max, double *out);
int inl_cli_word(const struct inl_cli *cli, enum inl_opt opt, const char *const *words, unsigned *out);

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/*
 * Read a key into secret memory: raw bytes, or hex text with any white space.
 *
 *   file   "-": standard input
 *   key    inl_secret_free it
 *
 * Returns: an exit code; the message is printed.
 */
int inl_cli_read_key(struct inl_cli *cli, const char *file, bool hex, uint8_t **key, size_t *len);

/* Name one more key file, as --key and --key-hex do. 0 or an exit code; the message is printed. */
int inl_cli_add_key_file(struct inl_cli *cli, const char *file, bool hex);

/* Name one more protector, as --protector does. */
int inl_cli_add_protector(struct inl_cli *cli, const char *named);

/* Read every key named on the command line into cli->keys, once. */
int inl_cli_load_keys(struct inl_cli *cli);

/* ---- ciphers ----------------------------------------------------------------------------------------------------- */

/*
 * Choose what --ciphers asks for, and test it. For every command that opens a device, before it does.
 *
 *   any   not only "best" and "openssl", but every implementation that runs here
 *
 * Returns: 0; an exit code: there is no such implementation, or it cannot be trusted. The message is printed.
 */
int inl_cli_ciphers(struct inl_cli *cli, bool any);

/* The choice alone, into cli->ciphers. */
int inl_cli_choose_ciphers(struct inl_cli *cli, bool any);

/* The names of all implementations that run here, each once. Returns how many. */
#define INL_IMPL_NAMES_MAX 16
unsigned inl_cli_impl_names(const char *names[INL_IMPL_NAMES_MAX]);

/* The implementation that a cipher uses where this one is chosen (NULL: the best); NULL: it has none. */
const char *inl_cli_impl_of(enum inl_cipher_id id, const char *chosen);

/* ---- volumes ----------------------------------------------------------------------------------------------------- */

/* IMAGE[:PATH], taken apart. */
struct inl_target {
	const char *arg;
	char *image;
	char *path; /* "/" where none was given */
};

/* Length of IMAGE in IMAGE[:PATH]. */
size_t inl_cli_image_len(const char *arg);

/* Returns 0 or an exit code. Done with inl_target_done, whatever was returned. */
int inl_target_init(struct inl_cli *cli, const char *arg, struct inl_target *target);
void inl_target_done(struct inl_target *target);

/* The last part of a path; *len without the slashes behind it. */
const char *inl_path_last(const char *path, size_t *len);

/* Is it the content of PATH that is copied, not PATH itself? True of "/", and of what ends in "." or "..". */
bool inl_path_is_content(const char *path);

/* "IMAGE:PATH" on the heap; never NULL. len bytes of path. */
char *inl_cli_where(const struct inl_cli *cli, const char *path, size_t len);

/* Open the volume, unless it is the one that is open. */
int inl_cli_open(struct inl_cli *cli, const char *image);

/* Is "IMAGE:PATH" in the volume that is open? 0 or an exit code; the message is printed. */
int inl_cli_same_image(struct inl_cli *cli, const char *arg);

/* Open the volume of a target and walk to its path. The message is printed. */
int inl_cli_find(struct inl_cli *cli, const struct inl_target *target, bool follow, struct inl_inode **inode);

/*
 * Open cli->dev with the chosen ciphers, and nothing on it.
 *
 *   flags         of enum inl_open_flags
 *   not_a_device  the exit code where a bare path is there, but nothing that can be a device
 *
 * Returns: an exit code; the message is printed.
 */
int inl_cli_open_device(struct inl_cli *cli, const char *spec, unsigned flags, int not_a_device);

/*
 * Close what is open and free the keys; prints the counters if they were asked for.
 *
 * Returns: an exit code: what was written did not arrive. The message is printed.
 */
int inl_cli_close(struct inl_cli *cli);

/* The files that a stack of devices consists of: what must be neither replaced nor read by a copy from or to it. */
#define INL_IMAGES_MAX 16

struct inl_image {
	dev_t dev;
	ino_t ino;
};

struct inl_images {
	struct inl_image files[INL_IMAGES_MAX];
	unsigned n;
};

struct stat;
void inl_images_note(struct inl_images *images, const struct inl_dev *dev);
bool inl_images_has(const struct inl_images *images, const struct stat *st);

/* Print the counters of a device and of those below it, one line each. */
void inl_cli_counters(FILE *out, const struct inl_dev *dev);

/* The counters of a device and of those below it as they are now, for the two below; free() it. */
struct inl_counters *inl_cli_counters_take(const struct inl_dev *dev);

/*
 * Print what a stack has counted since then as a tree; describe it as JSON, with the counters since then.
 *
 *   since   of the same stack; NULL: since it was opened
 */
struct inl_json;
void inl_cli_counters_tree(const struct inl_dev *dev, const struct inl_counters *since);
void inl_cli_json_device(struct inl_json *json, const char *key, const struct inl_dev *dev,
			 const struct inl_counters *since);

/* Directories that were entered already: a damaged volume may have loops. One bit per inode, paged in on demand. */
struct inl_seen {
	uint8_t *bits;
	uint64_t n_inodes;
};
int inl_seen_init(struct inl_seen *seen, const struct inl_volume *vol); /* 0 or -ENOMEM */
void inl_seen_done(struct inl_seen *seen);
bool inl_seen_before(struct inl_seen *seen, uint64_t ino); /* true: it is a loop; marks it */

/* ---- listings ---------------------------------------------------------------------------------------------------- */

struct inl_list_entry {
	uint64_t ino;
	size_t name; /* offset in names, NUL-terminated */
	uint16_t len;
	uint8_t type;
	bool nokey;
};

/* A directory sorted by the bytes of its names. */
struct inl_list {
	struct inl_list_entry *entries;
	size_t n, room;
	char *names;
	size_t names_len, names_room;
};

/*
 * Read a directory. Damaged entries and blocks are reported and left out.
 *
 *   where   for messages
 *   hidden  names that begin with '.' too
 *
 * Returns: the exit code of what was left out; list is usable anyway. Done with inl_list_done.
 */
int inl_list_init(struct inl_cli *cli, struct inl_inode *dir, const char *where, bool hidden, struct inl_list *list);
void inl_list_done(struct inl_list *list);

/* Is it a directory? Asks the inode where the entry does not say. */
bool inl_list_is_dir(struct inl_cli *cli, const struct inl_list_entry *entry);

/* "PATH/NAME" on the heap; never NULL. */
char *inl_cli_join(const char *path, const char *name, size_t len);

/* ---- small things ------------------------------------------------------------------------------------------------ */

/* As malloc and strdup, but memory that is not there ends the program with a message. */
void *inl_cli_alloc(size_t len);
char *inl_cli_strdup(const char *text, size_t len);

/*
 * Memory for what is read and written, aligned as devices like it. NULL: there is none. free wipes it; NULL is fine.
 */
uint8_t *inl_cli_new_buf(size_t len);
void inl_cli_free_buf(uint8_t *buf, size_t len);

/*
 * Have room for so many elements in an array that grows; the same, or a larger one in its place.
 *
 *   used   how many of the old one's elements are kept
 *   room   how many it has; changed
 *   size   bytes of one
 */
void *inl_cli_grow(void *array, size_t used, size_t needed, size_t *room, size_t size);

#endif
