/*
 * cli/change.h: what the commands that change a volume share: names in directories, walks over what lies below one, new
 * inodes, the check of what is encrypted, hard links, moving, modes and dates as text, other programs.
 * Not here: the parts of `put` (cli/put.h).
 * Read more: doc/inlay.1.
 */
#ifndef INLAY_CLI_CHANGE_H
#define INLAY_CLI_CHANGE_H

#include "cli/cli.h"
#include <sys/stat.h>
#include <sys/types.h>

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* A name in a directory of the volume, and what has it. */
struct inl_entry {
	const char *arg;
	struct inl_inode *dir;	 /* NULL: the path ends in no name, but in "/", "." or ".." */
	struct inl_inode *inode; /* NULL: nothing has this name */
	struct inl_stat st;	 /* of inode */
	bool slash;		 /* the path ends in '/': it means a directory */
	bool entered;		 /* the path is that of dir */
	size_t len;
	char name[INL_NAME_MAX + 1];
};

/*
 * Open the volume of a target, for writing, and find its entry. A symbolic link in the last place is not followed.
 *
 * Returns: an exit code; the message is printed. That nothing has the name is no failure. Done with inl_entry_done,
 *          whatever was returned.
 */
int inl_entry_find(struct inl_cli *cli, const struct inl_target *target, struct inl_entry *entry);

/* The same for "IMAGE:PATH"; target is done with inl_target_done, whatever was returned. */
int inl_entry_open(struct inl_cli *cli, const char *arg, struct inl_target *target, struct inl_entry *entry);
void inl_entry_done(struct inl_entry *entry);

/* If the entry is a directory, or a link to one: change it to the name that path has in there, which is looked up. */
int inl_entry_enter(struct inl_cli *cli, const struct inl_target *target, const char *path, struct inl_entry *entry);

/* Begin to write: open volumes for that; only note signals from now on. */
void inl_cli_will_write(struct inl_cli *cli);

/* What this user makes in a directory is like: owner, setgid as Linux does; mode with its type, umask not applied. */
int inl_new_attr(struct inl_inode *dir, uint32_t mode, struct inl_attr *attr);

/* ---- what lies below a directory --------------------------------------------------------------------------------- */

enum inl_below_when {
	INL_BELOW_ENTRY,  /* of a directory: anything but a directory */
	INL_BELOW_ENTER, /* a directory, before what is in it */
	INL_BELOW_LEAVE, /* and after that */
	INL_BELOW_DAMAGE, /* with INL_BELOW_TELL: what is at path is damaged; only path and why are set */
};

enum inl_below_flags {
	INL_BELOW_AGAIN = 1, /* entries go away meanwhile: read a directory until nothing that could go is left in it */
	INL_BELOW_TELL = 2,  /* what is wrong with the volume is not printed, but told to the function */
	INL_BELOW_TO_END = 4, /* also when it is interrupted */
};

/*
 * One step of the walk.
 *
 *   parent  the directory that name is in
 *   ino     what has the name
 *   path    in the volume, for messages
 *
 * Returns: 0, or an exit code; a negative one ends the walk.
 */
struct inl_below_step {
	struct inl_cli *cli;
	enum inl_below_when when;
	struct inl_inode *parent;
	uint64_t ino;
	const char *name, *path;
	size_t len;
	uint8_t type; /* DT_* */
	bool failed;  /* INL_BELOW_LEAVE: not all that is in it went well */
	void *arg;
	const char *why; /* INL_BELOW_DAMAGE */
};
typedef int inl_below_fn(const struct inl_below_step *step);

/*
 * Walk over all that lies below a directory, in bounded memory but for its depth.
 *
 *   path   of dir, for messages
 *   flags  of enum inl_below_flags
 *
 * Returns: the first exit code; INL_EXIT_INTERRUPTED where it was.
 */
int inl_below_walk(struct inl_cli *cli, struct inl_inode *dir, const char *path, unsigned flags, inl_below_fn *fn,
		   void *arg);

/*
 * Remove a name, and all that is below it. It is no failure that nothing has it.
 *
 *   path   of the name, for messages
 *   flags  INL_BELOW_TO_END, or 0
 *
 * Returns: an exit code; the messages are printed.
 */
int inl_remove_name(struct inl_cli *cli, struct inl_inode *dir, const char *name, size_t len, const char *path,
		    unsigned flags);

/* Write all of it to a regular file. Returns 0 or -errno. */
int inl_write_all(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, struct inl_diag *diag);

/* ---- checks ------------------------------------------------------------------------------------------------------ */

/*
 * Look at all that is encrypted on the open volume, as far as its keys were given. Nothing is changed.
 *
 * Returns: an exit code; INL_EXIT_VOLUME: something is wrong with it. What is found is printed, the first hundred
 *          lines of it.
 */
int inl_check_encryption(struct inl_cli *cli);

/* ---- hard links -------------------------------------------------------------------------------------------------- */

/* What files of several links became: open addressing, from a source's device and inode to an inode of the volume. */
struct inl_twins {
	struct inl_twins_slot *slots;
	uint32_t n_slots, n;
};

uint64_t inl_twins_find(const struct inl_twins *twins, uint64_t dev, uint64_t source); /* 0: none yet */
bool inl_twins_add(struct inl_twins *twins, uint64_t dev, uint64_t source, uint64_t ino); /* false: there is no room */
void inl_twins_done(struct inl_twins *twins);

/* ---- moving ------------------------------------------------------------------------------------------------------ */

/*
 * Move between directories of which rename says -EXDEV, since they are encrypted differently: copy what from names,
 * replace to with it in one step, remove the source. What stands in the way, or cannot be read, is found before
 * anything is written; after a failure or an interruption the source is as it was.
 *
 *   from   its inode is put
 *
 * Returns: an exit code; the messages are printed.
 */
int inl_transfer(struct inl_cli *cli, const struct inl_target *from_target, struct inl_entry *from,
		 const struct inl_target *to_target, struct inl_entry *to);

/* Remove what one that was killed left in the directory of an entry. Returns an exit code; the messages are printed. */
int inl_transfer_tidy(struct inl_cli *cli, const struct inl_target *target, const struct inl_entry *entry);

/* ---- text -------------------------------------------------------------------------------------------------------- */

/*
 * A mode as chmod(1) takes it: octal, or u+rwx,g=r,a-x,+X ...
 *
 *   mode   of the inode before, type included
 *   mask   umask: bits that a clause without u, g, o or a leaves alone
 *
 * Returns: false if the text is none.
 */
bool inl_mode_parse(const char *text, uint32_t mode, uint32_t mask, uint32_t *out);
uint32_t inl_mode_umask(void);

/* @SECONDS[.NS], or YYYY-MM-DD[( |T)HH:MM[:SS[.NS]]][ ][Z|+HH[[:]MM]]; local time without a zone. */
bool inl_date_parse(const char *text, struct inl_time *time);

/* UID, UID:GID or :GID */
bool inl_owner_parse(const char *text, struct inl_attr *attr, unsigned *which);

/* ---- other programs ---------------------------------------------------------------------------------------------- */

/*
 * Run a program of e2fsprogs, without a shell, and wait.
 *
 *   argv    NULL-terminated; argv[0] is its name, found in PATH and the system's folders
 *   said    what it said on standard output and error, room bytes and NUL-terminated; NULL: it goes where ours goes
 *   status  exit status
 *
 * Returns: an exit code; the message is printed.
 */
int inl_spawn(struct inl_cli *cli, const char *const *argv, char *said, size_t room, int *status);

#endif
