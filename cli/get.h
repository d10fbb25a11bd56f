/*
 * cli/get.h: the parts of `inlay get`: walk.c, place.c, copy.c, meta.c, links.c, mine.c, report.c.
 * Not here: other subcommands.
 * Read more: doc/inlay.1, "EXPORT".
 *
 * Functions return 0, or the exit code that ends the export; the message is out by then. A function that cannot know
 * whether a failure ends the export returns -errno and leaves side and diag in struct inl_get.
 */
#ifndef INLAY_CLI_GET_H
#define INLAY_CLI_GET_H

#include "cli/cli.h"
#include "cli/report.h"
#include <sys/stat.h>
#include <sys/types.h>

#define INL_GET_BUF_LEN    ((size_t)1 << 20)
#define INL_RANGES_MAX     8 /* bad ranges of one file that are reported one by one */
#define INL_TEMP_NAME_SIZE 32
#define INL_GET_MARK       ".inlay-unfinished"

/* ---- hard links -------------------------------------------------------------------------------------------------- */

/*
 * Where files with several links were exported to: inode numbers in an open-addressing table, paths in an unlinked file
 * of the destination. At most 24 MiB of memory, however many there are.
 */
struct inl_links {
	struct inl_link_slot *slots;
	uint32_t n_slots, n;
	int fd; /* -1: none yet */
	uint64_t end;
};

void inl_links_init(struct inl_links *links);
void inl_links_done(struct inl_links *links);

/*
 * Remember that the inode ino was exported as path, which is st there now.
 *
 * Returns: 0; -ENOSPC and so on (the destination); -EOVERFLOW (the table is full: this file's links become files).
 */
int inl_links_add(struct inl_links *links, int top_fd, uint32_t ino, const char *path, size_t len,
		  const struct stat *st);

/* The path of an inode's first link on the heap, and in *st the st_dev and st_ino it had; NULL: there is none yet. */
char *inl_links_find(const struct inl_links *links, uint32_t ino, struct stat *st);

/* ---- the export -------------------------------------------------------------------------------------------------- */

/* A directory on the way from the top to where the export is. */
struct inl_frame {
	uint32_t ino;
	struct inl_dir *cursor; /* NULL: closed, to be opened again at pos */
	uint64_t pos;           /* inl_dir_tell */
	bool tied;              /* that would bring the last entry again: the cursor stays open */
	uint64_t n_entries;     /* so far */
	size_t path_len;
	dev_t dev; /* the exported directory */
	ino_t dev_ino;
	gid_t gid;            /* as it is there when it is entered */
	bool has_default_acl; /* new files inherit what they should not */
};

struct inl_range {
	uint64_t offset, len;
};

struct inl_get {
	struct inl_cli *cli;
	bool keep_going;
	bool root;
	uid_t euid;
	gid_t egid;
	uint32_t block_size;
	uint8_t *buf; /* INL_GET_BUF_LEN */

	const char *source; /* PATH */
	char *dest;         /* where the copy of PATH is */
	char *path;         /* below both, where the export is */
	size_t path_len, path_room;

	int top_fd; /* of the directory that hard links are counted from; -1: a single file */
	int dir_fd; /* of the directory that is being filled */
	struct inl_frame *frames;
	size_t n_frames, frames_room;
	struct inl_seen seen;
	struct inl_links links;
	uint8_t *mine; /* mine.c */
	uint64_t n_looks;
	struct inl_images images; /* the files that the volume is read from */
	struct inl_report report;
	bool marked;     /* the top has the mark of an unfinished export */
	int granularity; /* of times in the destination: nanoseconds; 0: not known yet */

	/* of the last failure */
	enum inl_side side;
	struct inl_diag diag;

	/* of the file that is being copied */
	uint64_t written_end;
	uint64_t n_bad; /* bytes that could not be read */
	uint64_t n_good;
	unsigned n_ranges;
	struct inl_range ranges[INL_RANGES_MAX];
	struct stat there; /* what was placed last or found in its place: st_dev, st_ino, owner */
	bool incomplete;   /* what is being placed lacks contents or attributes: only with keep_going */
};

/* Remember who failed, for inl_get_trouble. Returns err. */
int inl_get_failed(struct inl_get *get, enum inl_side side, int err);

/*
 * An entry could not be exported: goes into the report if the export can go on without it, else ends the export.
 *
 * Returns: 0 or an exit code.
 */
int inl_get_trouble(struct inl_get *get, int err);

/* "IMAGE:PATH/..." or "DEST/...", on the heap. */
char *inl_get_where(const struct inl_get *get, enum inl_side side);

/* Append a name to get->path; cut it off again with inl_get_path_cut(get, the former path_len). */
void inl_get_path_add(struct inl_get *get, const char *name, size_t len);
void inl_get_path_cut(struct inl_get *get, size_t len);

/* The top is as good as finished: take the mark of an unfinished export away, unless something is missing. */
void inl_get_unmark(struct inl_get *get);

/* Walk a directory: fd becomes the export's. Returns 0 or an exit code. */
int inl_get_walk(struct inl_get *get, struct inl_inode *dir, int fd);

/* Open name in the directory fd as a directory to fill, made if missing; a symbolic link is none. An fd or -errno. */
int inl_get_open_dir(int fd, const char *name);

/* Export anything but a directory as name in get->dir_fd. Returns 0 or an exit code. */
int inl_get_place(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name);

/* Copy the contents of a regular file. Returns 0 or -errno (inl_get_failed); get->n_bad says what is missing. */
int inl_get_copy(struct inl_get *get, struct inl_inode *inode, uint64_t size, int fd);

/* A name for something unfinished. */
void inl_get_temp_name(char name[INL_TEMP_NAME_SIZE]);

/* ---- what this run put there ------------------------------------------------------------------------------------- */

int inl_mine_init(struct inl_get *get); /* 0 or -ENOMEM */
void inl_mine_done(struct inl_get *get);

/* What is in the destination now as st was put or left there by this run. */
void inl_mine_add(struct inl_get *get, const struct stat *st);

/*
 * Something has the name of the entry that the walk is at. Is it what an earlier entry of the same directory became?
 *
 * Returns: 0: no; -EEXIST (inl_get_failed).
 */
int inl_mine_check(struct inl_get *get, const char *name, const struct stat *st);

/* ---- what is not contents ---------------------------------------------------------------------------------------- */

/* Must the owner of what this user just made in the current directory be changed? */
bool inl_meta_needs_chown(const struct inl_get *get, const struct inl_stat *st);

/*
 * Owner, attributes and mode of an open file, then (if with_times) its times. Set-ID bits are kept only with their
 * owner. Attributes that the destination refuses are only counted.
 *
 * Returns: 0 or -errno (inl_get_failed).
 */
int inl_meta_file(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd, bool with_times);
int inl_meta_dir(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, int fd,
		 const struct inl_frame *frame);
int inl_meta_name(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *name);

/* Have files made in this directory an ACL? */
bool inl_meta_default_acl(int fd);

#endif
