/*
 * cli/source.c: walks a tree of the host, of any depth, in bounded memory, and makes its directories in the volume.
 * Not here: what is done with an entry that is no directory (cli/fill.c).
 * Read more: doc/inlay.1, "IMPORT".
 *
 * Only the deepest directories are open. Those above are opened again through "..", compared with what was left there
 * on the way down.
 */
#include "cli/plan.h"
#include "cli/put.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPEN_MAX_DIRS 32

static struct inl_put_frame *top(struct inl_put *put)
{
	return &put->frames[put->n_frames - 1];
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static void close_frame(struct inl_put_frame *frame)
{
	if (frame->stream) {
		frame->pos = telldir(frame->stream);
		closedir(frame->stream);
	}
	inl_inode_put(frame->dir);
	frame->stream = NULL;
	frame->dir = NULL;
}

static void drop_frame(struct inl_put *put)
{
	close_frame(top(put));
	inl_put_names_free(top(put)->names);
	put->n_frames--;
}

static struct inl_put_frame *add_frame(struct inl_put *put)
{
	put->frames = inl_cli_grow(put->frames, put->n_frames, put->n_frames + 1, &put->frames_room,
				   sizeof(*put->frames));
	put->frames[put->n_frames] = (struct inl_put_frame){ 0 };
	return &put->frames[put->n_frames++];
}

/* Go down; dir becomes the frame's. */
static int push(struct inl_put *put, DIR *stream, const struct stat *st, struct inl_inode *dir)
{
	struct inl_put_frame *frame = add_frame(put);
	struct inl_stat copy = { 0 };
	int err = inl_inode_stat(dir, &copy, &put->diag);

	*frame = (struct inl_put_frame){ .stream = stream, .dir = dir, .ino = copy.ino, .st = *st,
					 .path_len = put->path_len };
	if (err)
		inl_put_failed(put, INL_DESTINATION, err);
	else
		err = inl_plan_enter(put, dir);
	if (!err)
		err = inl_put_xattrs(put, dirfd(stream), NULL, dir);
	if (put->plan) {
		int read = inl_put_names_read(stream, &frame->names);

		err = err ? err : inl_put_failed(put, INL_SOURCE, read);
	}
	if (put->n_frames > OPEN_MAX_DIRS)
		close_frame(&put->frames[put->n_frames - 1 - OPEN_MAX_DIRS]);
	return err;
}

/* Open the stream of the directory above the deepest one again; it must be the one we came from. */
static int reopen_stream(struct inl_put *put, struct inl_put_frame *above)
{
	int fd = openat(dirfd(top(put)->stream), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_dev != above->st.st_dev || st.st_ino != above->st.st_ino) {
		close(fd);
		return inl_diag_set(&put->diag, -ESTALE, "was moved during the import");
	}
	above->stream = fdopendir(fd);
	if (!above->stream) {
		int err = -errno;

		close(fd);
		return err;
	}
	seekdir(above->stream, above->pos);
	return 0;
}

static int reopen(struct inl_put *put, struct inl_put_frame *above)
{
	int err = above->stream ? 0 : reopen_stream(put, above);

	if (err)
		return inl_put_failed(put, INL_SOURCE, err);
	if (!above->dir)
		err = inl_inode_get(put->cli->vol, above->ino, &put->diag, &above->dir);
	if (err)
		above->dir = NULL;
	return err ? inl_put_failed(put, INL_DESTINATION, err) : 0;
}

/* The last of a directory: its times, which changed with all that was put into it. */
static int finish_dir(struct inl_put *put)
{
	struct inl_put_frame *frame = top(put);
	struct inl_attr attr;
	int err;

	put->diag = (struct inl_diag){ 0 };
	inl_put_attr(put, &frame->st, &attr);
	err = inl_setattr(frame->dir, &attr,
			  INL_ATTR_MODE | INL_ATTR_UID | INL_ATTR_GID | INL_ATTR_ATIME | INL_ATTR_MTIME, &put->diag);
	return err ? inl_put_trouble(put, inl_put_failed(put, INL_DESTINATION, err)) : 0;
}

/* Go up. A failure to get there ends the import, whatever was asked for. */
static int pop(struct inl_put *put)
{
	int err = 0, code;

	put->diag = (struct inl_diag){ 0 };
	if (put->n_frames > 1)
		err = reopen(put, &put->frames[put->n_frames - 2]);
	if (err) {
		put->keep_going = false;
		return inl_put_trouble(put, err);
	}
	code = finish_dir(put);
	drop_frame(put);
	if (put->n_frames)
		inl_put_path_cut(put, top(put)->path_len);
	return code;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

/* Open a directory of the source. Returns 0 or -errno (inl_put_failed). */
static int open_source(struct inl_put *put, const struct inl_put_item *item, DIR **stream, struct stat *st)
{
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (item->follow ? 0 : O_NOFOLLOW);
	int err, fd = openat(item->fd, item->name, flags);

	if (fd < 0)
		return inl_put_failed(put, INL_SOURCE, -errno);
	*stream = fstat(fd, st) ? NULL : fdopendir(fd);
	if (*stream)
		return 0;
	err = -errno;
	close(fd);
	return inl_put_failed(put, INL_SOURCE, err);
}

static int descend(struct inl_put *put, const char *name)
{
	const struct inl_put_item item = { dirfd(top(put)->stream), name, false, DT_DIR };
	struct inl_inode *dir = NULL;
	DIR *stream = NULL;
	struct stat st;
	int err = open_source(put, &item, &stream, &st);

	if (err)
		return err;
	err = inl_put_dir(put, top(put)->dir, name, strlen(name), &st, &dir);
	if (err) {
		closedir(stream);
		return err;
	}
	return push(put, stream, &st, dir);
}

static bool is_directory(struct inl_put *put, const char *name, uint8_t type)
{
	struct stat st;

	if (type != DT_UNKNOWN)
		return type == DT_DIR;
	return !fstatat(dirfd(top(put)->stream), name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode);
}

static int take(struct inl_put *put, const char *name, uint8_t type)
{
	const struct inl_put_item item = { dirfd(top(put)->stream), name, false, type };
	size_t path_len = put->path_len, n_frames = put->n_frames;
	int err, code;

	inl_put_path_add(put, name, strlen(name));
	if (!strcmp(name, INL_PUT_TEMP)) {
		err = inl_diag_set(&put->diag, -EINVAL, "the name is reserved for this command");
		code = inl_put_trouble(put, inl_put_failed(put, INL_SOURCE, err));
	} else if (is_directory(put, name, type)) {
		err = descend(put, name);
		code = err ? inl_put_trouble(put, err) : 0;
	} else {
		code = inl_put_place(put, &item, top(put)->dir, name, strlen(name));
	}
	if (put->n_frames == n_frames)
		inl_put_path_cut(put, path_len);
	return code;
}

/* The next name, NULL behind the last; errno says whether that is an error. */
static const char *next_name(struct inl_put *put, uint8_t *type)
{
	const struct dirent *entry;

	errno = 0;
	if (put->plan)
		return inl_put_names_next(top(put)->names, type);
	entry = readdir(top(put)->stream);
	*type = entry ? entry->d_type : DT_UNKNOWN;
	return entry ? entry->d_name : NULL;
}

static int step(struct inl_put *put)
{
	const char *name;
	uint8_t type;

	put->diag.err = 0;
	put->diag.text[0] = '\0';
	name = next_name(put, &type);
	if (!name && errno) {
		int code = inl_put_trouble(put, inl_put_failed(put, INL_SOURCE, -errno));

		return code ? code : pop(put);
	}
	if (!name)
		return pop(put);
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	return take(put, name, type);
}

int inl_put_walk(struct inl_put *put, const struct inl_put_item *item, struct inl_inode *dir)
{
	DIR *stream = NULL;
	struct stat st;
	int code = 0, err = open_source(put, item, &stream, &st);

	if (err) {
		inl_inode_put(dir);
		return inl_put_trouble(put, err);
	}
	err = push(put, stream, &st, dir);
	if (err)
		code = inl_put_trouble(put, err);
	while (!code && put->n_frames) {
		code = inl_cli_interrupted() ? INL_EXIT_INTERRUPTED : step(put);
		inl_report_progress(&put->report);
	}
	while (put->n_frames)
		drop_frame(put);
	return code;
}
