/*
 * cli/walk.c: walks a tree of any depth with one directory of the destination open, in bounded memory.
 * Not here: what is done with an entry that is no directory (cli/place.c).
 * Read more: doc/inlay.1, "EXPORT".
 *
 * The way up is "..", compared with what was left there on the way down. Of the source only the deepest directories
 * have an open cursor; those above are opened again, where they were, when the walk comes back.
 */
#include "cli/get.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CURSORS_MAX 32

/* ---- directories of the destination ------------------------------------------------------------------------------ */

/* A directory of ours that we may not enter: make it ours again, without following anything. */
static void unlock_dir(int fd, const char *name)
{
	int at = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char path[64];

	if (at < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", at);
	(void)!chmod(path, 0700); /* if not: opening it fails, and that is reported */
	close(at);
}

int inl_get_open_dir(int fd, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int below;

	if (mkdirat(fd, name, 0700) && errno != EEXIST)
		return -errno;
	below = openat(fd, name, flags);
	if (below < 0 && errno == EACCES) {
		unlock_dir(fd, name);
		below = openat(fd, name, flags);
	}
	return below < 0 ? -errno : below;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static struct inl_frame *top_frame(struct inl_get *get)
{
	return &get->frames[get->n_frames - 1];
}

static struct inl_frame *add_frame(struct inl_get *get)
{
	get->frames = inl_cli_grow(get->frames, get->n_frames, get->n_frames + 1, &get->frames_room,
				   sizeof(*get->frames));
	get->frames[get->n_frames] = (struct inl_frame){ 0 };
	return &get->frames[get->n_frames++];
}

static void close_cursor(struct inl_frame *frame)
{
	if (frame->cursor)
		frame->pos = inl_dir_tell(frame->cursor);
	inl_dir_close(frame->cursor);
	frame->cursor = NULL;
}

/* To be opened again where it was, if there is no doubt about where that is. */
static void park_cursor(struct inl_frame *frame)
{
	if (!frame->tied)
		close_cursor(frame);
}

/* Go down: fd is the directory to fill, ino the one to read. */
static int push(struct inl_get *get, uint64_t ino, int fd)
{
	struct inl_frame *frame;
	struct stat st;

	get->diag = (struct inl_diag){ 0 };
	if (fstat(fd, &st) || ((st.st_mode & 0700) != 0700 && !get->root && fchmod(fd, st.st_mode | 0700))) {
		int err = -errno;

		close(fd);
		return inl_get_failed(get, INL_DESTINATION, err);
	}
	inl_mine_add(get, &st);
	frame = add_frame(get);
	frame->ino = (uint32_t)ino;
	frame->path_len = get->path_len;
	frame->dev = st.st_dev;
	frame->dev_ino = st.st_ino;
	frame->gid = st.st_gid;
	frame->has_default_acl = inl_meta_default_acl(fd);
	if (get->n_frames > CURSORS_MAX)
		park_cursor(&get->frames[get->n_frames - 1 - CURSORS_MAX]);
	if (get->dir_fd >= 0)
		close(get->dir_fd);
	get->dir_fd = fd;
	return 0;
}

/* Open the directory above the current one; it must be the one we came from. */
static int open_above(struct inl_get *get)
{
	const struct inl_frame *above = &get->frames[get->n_frames - 2];
	int fd = openat(get->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return inl_get_failed(get, INL_DESTINATION, -errno);
	if (!fstat(fd, &st) && st.st_dev == above->dev && st.st_ino == above->dev_ino)
		return fd;
	close(fd);
	return inl_get_failed(get, INL_DESTINATION, inl_diag_set(&get->diag, -ESTALE, "was moved during the export"));
}

static int finish_dir(struct inl_get *get)
{
	struct inl_frame *frame = top_frame(get);
	struct inl_inode *inode = NULL;
	struct inl_stat st;
	int err;

	get->diag = (struct inl_diag){ 0 };
	err = inl_inode_get(get->cli->vol, frame->ino, &get->diag, &inode);
	if (!err)
		err = inl_inode_stat(inode, &st, &get->diag);
	err = err ? inl_get_failed(get, INL_SOURCE, err) : inl_meta_dir(get, inode, &st, get->dir_fd, frame);
	inl_inode_put(inode);
	return err ? inl_get_trouble(get, err) : 0;
}

/* Go up. A failure to get there ends the export, whatever was asked for. */
static int pop(struct inl_get *get)
{
	int code, above = -1;

	get->diag = (struct inl_diag){ 0 };
	if (get->n_frames > 1) {
		above = open_above(get);
		if (above < 0) {
			get->keep_going = false;
			return inl_get_trouble(get, above);
		}
	}
	code = finish_dir(get);
	close(get->dir_fd);
	get->dir_fd = above;
	close_cursor(top_frame(get));
	get->n_frames--;
	if (get->n_frames)
		inl_get_path_cut(get, top_frame(get)->path_len);
	return code;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

/* Open the cursor of a frame, or open it again and go to where it was. */
static int open_cursor(struct inl_get *get, struct inl_frame *frame)
{
	struct inl_inode *inode = NULL;
	int err = inl_inode_get(get->cli->vol, frame->ino, &get->diag, &inode);

	if (!err)
		err = inl_dir_open(inode, &get->diag, &frame->cursor);
	inl_inode_put(inode);
	if (!err)
		inl_dir_seek(frame->cursor, frame->pos);
	return err;
}

static int check_mine(struct inl_get *get, const char *name, int fd)
{
	struct stat st;

	return fstat(fd, &st) ? inl_get_failed(get, INL_DESTINATION, -errno) : inl_mine_check(get, name, &st);
}

static int descend(struct inl_get *get, uint64_t ino, const char *name)
{
	int err, fd;

	get->diag = (struct inl_diag){ 0 };
	if (inl_seen_before(&get->seen, ino))
		return inl_get_failed(
			get, INL_SOURCE,
			inl_diag_set(&get->diag, -EUCLEAN, "damaged: this directory was exported already"));
	fd = inl_get_open_dir(get->dir_fd, name);
	if (fd == -ENOTDIR || fd == -ELOOP)
		inl_diag_set(&get->diag, -ENOTDIR, "something that is no directory is in the way");
	if (fd < 0)
		return inl_get_failed(get, INL_DESTINATION, fd);
	err = check_mine(get, name, fd);
	if (!err)
		return push(get, ino, fd);
	close(fd);
	return err;
}

/* What the source says of an entry: 0 if it can be exported. */
static int examine(struct inl_get *get, const struct inl_dirent *entry, struct inl_inode **inode, struct inl_stat *st)
{
	int err = entry->status;

	get->diag.err = 0;
	get->diag.text[0] = '\0';
	if (!err && (!strcmp(entry->name, ".") || !strcmp(entry->name, "..") || strchr(entry->name, '/')))
		err = -EUCLEAN;
	if (!err && get->n_frames == 1 && !strcmp(entry->name, INL_GET_MARK))
		return inl_diag_set(&get->diag, -EUCLEAN, "the name is reserved for this command");
	if (err)
		return inl_diag_set(&get->diag, err, "damaged directory entry (inode %ju)", (uintmax_t)entry->ino);
	err = inl_inode_get(get->cli->vol, entry->ino, &get->diag, inode);
	if (!err)
		err = inl_inode_stat(*inode, st, &get->diag);
	if (err)
		return err;
	return inl_inode_unlock(*inode, &get->diag);
}

static int take(struct inl_get *get, const struct inl_dirent *entry)
{
	size_t path_len = get->path_len;
	struct inl_inode *inode = NULL;
	struct inl_stat st;
	int code, err;

	inl_get_path_add(get, entry->name, entry->len);
	err = examine(get, entry, &inode, &st);
	if (err) {
		inl_get_failed(get, INL_SOURCE, err);
		code = inl_get_trouble(get, err);
	} else if (S_ISDIR(st.mode)) {
		err = descend(get, entry->ino, entry->name);
		code = err ? inl_get_trouble(get, err) : 0;
	} else {
		code = inl_get_place(get, inode, &st, entry->name);
	}
	inl_inode_put(inode);
	if (err || !S_ISDIR(st.mode))
		inl_get_path_cut(get, path_len);
	return code;
}

/* One entry of the deepest directory, or the way up from it. */
static int step(struct inl_get *get)
{
	struct inl_frame *frame = top_frame(get);
	struct inl_dirent entry;
	int got;

	get->diag.err = 0;
	get->diag.text[0] = '\0';
	if (!frame->cursor) {
		int err = open_cursor(get, frame);

		if (err) {
			int code = inl_get_trouble(get, inl_get_failed(get, INL_SOURCE, err));

			return code ? code : pop(get);
		}
	}
	got = inl_dir_next(frame->cursor, &entry, &get->diag);
	if (!got)
		return pop(get);
	if (got < 0)
		return inl_get_trouble(get, inl_get_failed(get, INL_SOURCE, got));
	frame->tied = entry.pos == inl_dir_tell(frame->cursor);
	frame->n_entries++;
	return take(get, &entry);
}

int inl_get_walk(struct inl_get *get, struct inl_inode *dir, int fd)
{
	struct inl_stat st;
	int code = 0, err = inl_inode_stat(dir, &st, &get->diag);

	if (err) {
		close(fd);
		return inl_get_trouble(get, inl_get_failed(get, INL_SOURCE, err));
	}
	inl_seen_before(&get->seen, st.ino);
	err = push(get, st.ino, fd);
	if (err)
		return inl_get_trouble(get, err);
	while (!code && get->n_frames) {
		code = inl_cli_interrupted() ? INL_EXIT_INTERRUPTED : step(get);
		inl_report_progress(&get->report);
	}
	while (get->n_frames)
		close_cursor(&get->frames[--get->n_frames]);
	return code;
}
