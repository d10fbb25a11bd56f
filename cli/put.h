/*
 * cli/put.h: the parts of `inlay put`: source.c, fill.c, pour.c.
 * Not here: `get` (cli/get.h).
 * Read more: doc/inlay.1, "IMPORT".
 *
 * Functions return 0, or the exit code that ends the import; the message is out by then. A function that cannot know
 * whether a failure ends it returns -errno and leaves side and diag in struct inl_put.
 */
#ifndef INLAY_CLI_PUT_H
#define INLAY_CLI_PUT_H

#include "cli/change.h"
#include "cli/report.h"
#include <dirent.h>

#define INL_PUT_BUF_LEN ((size_t)1 << 20)
#define INL_PUT_FOR_TWO ((uint64_t)8 << 20)	/* bytes in a row that are worth a second thread */
#define INL_PUT_XATTR_LEN ((size_t)64 << 10)	/* no list and no value is longer */
#define INL_PUT_TEMP ".inlay-replacing"		/* what replaces something, until it is complete */
#define INL_PUT_MARK "user.inlay.unfinished" /* of a copy that was made for a SRC: which one */

struct inl_plan; /* cli/plan.h */

/* A directory on the way from the top to where the import is. */
struct inl_put_frame {
	DIR *stream; /* NULL: closed, to be opened again at pos */
	long pos;
	struct inl_put_names *names; /* with a plan: all that are in it, in order */
	struct inl_inode *dir; /* the copy; NULL: closed */
	uint64_t ino;
	struct stat st; /* of the source, when it was entered */
	size_t path_len;
};

struct inl_put {
	struct inl_cli *cli;
	struct inl_plan *plan; /* of `build`, else NULL */
	bool keep_going;
	bool seconds_only; /* inodes have no room for nanoseconds */
	uint8_t *buf; /* INL_PUT_BUF_LEN, and two times INL_PUT_XATTR_LEN behind */
	char *names, *value;
	struct inl_digest *check; /* of what is written of a file; NULL: nobody wants to know */
	uint8_t sum[32];	  /* of the contents that the last derived nonce is made of */
	uint8_t *second; /* INL_PUT_BUF_LEN, of a second thread; NULL: there was none yet */

	const char *source; /* SRC */
	char *dest;	    /* its copy, IMAGE:PATH */
	char *path;	    /* below both, where the import is */
	size_t path_len, path_room;

	struct inl_put_frame *frames;
	size_t n_frames, frames_room;
	struct inl_twins links;
	struct inl_images images;
	struct inl_report report;
	bool entered;	 /* the copy has SRC's name in a directory that was there: it is found again without a mark */
	uint64_t marked; /* the copy that has the mark of an unfinished import; 0: none has */

	/* of the last failure */
	enum inl_side side;
	struct inl_diag diag;
};

/* What is put: name in the folder fd, which the message about it calls source/path. */
struct inl_put_item {
	int fd;
	const char *name;
	bool follow;  /* of a directory: name may be a link to it */
	uint8_t type; /* DT_*, DT_UNKNOWN where it is to be found out */
};

/* The names in a directory of the host, sorted by bytes; after an error none, or some. 0 or -errno. */
int inl_put_names_read(DIR *stream, struct inl_put_names **out);
const char *inl_put_names_next(struct inl_put_names *names, uint8_t *type); /* NULL: no more, and errno is 0 */
void inl_put_names_free(struct inl_put_names *names);			    /* NULL is fine */

int inl_put_failed(struct inl_put *put, enum inl_side side, int err);
int inl_put_trouble(struct inl_put *put, int err);
char *inl_put_where(const struct inl_put *put, enum inl_side side);

void inl_put_path_add(struct inl_put *put, const char *name, size_t len);
void inl_put_path_cut(struct inl_put *put, size_t len);

/* Walk a directory of the source; dir is its copy, and becomes the walk's. Returns 0 or an exit code. */
int inl_put_walk(struct inl_put *put, const struct inl_put_item *item, struct inl_inode *dir);

/* Make a directory, or take the one that is there. Returns 0 or -errno (inl_put_failed). */
int inl_put_dir(struct inl_put *put, struct inl_inode *dir, const char *name, size_t len, const struct stat *st,
		struct inl_inode **out);

/* Put anything but a directory as name in dir. Returns 0 or an exit code. */
int inl_put_place(struct inl_put *put, const struct inl_put_item *item, struct inl_inode *dir, const char *name,
		  size_t len);

/* Extended attributes of an open file, or (fd -1) of a path. Returns 0 or -errno (inl_put_failed). */
int inl_put_xattrs(struct inl_put *put, int fd, const char *path, struct inl_inode *inode);

/*
 * Copy the contents. Returns 0 or -errno (inl_put_failed): also where they change meanwhile.
 *
 *   checked   they must be what put->sum says
 */
int inl_put_contents(struct inl_put *put, int fd, const struct stat *st, struct inl_inode *inode, bool checked);
int inl_put_changed(struct inl_put *put);

/* Mode, owner, device and times of a file of the host, as they are to be in the volume. */
void inl_put_attr(const struct inl_put *put, const struct stat *st, struct inl_attr *attr);

/*
 * Import sources into a target: the whole command, but for its arguments. Returns an exit code.
 *
 *   plan   NULL: none
 */
int inl_put_run(struct inl_cli *cli, struct inl_plan *plan, int n_sources, char **sources,
		const struct inl_target *target);

#endif
