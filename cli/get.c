/*
 * cli/get.c: `inlay get`: exports a file or a tree. Here: where it goes, when it ends.
 * Not here: the walk (cli/walk.c), one entry (cli/place.c).
 * Read more: doc/inlay.1, "EXPORT".
 */
#include "cli/get.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- paths, messages --------------------------------------------------------------------------------------------- */

void inl_get_path_add(struct inl_get *get, const char *name, size_t len)
{
	get->path = inl_cli_grow(get->path, get->path_len, get->path_len + len + 2, &get->path_room, 1);
	if (get->path_len)
		get->path[get->path_len++] = '/';
	memcpy(get->path + get->path_len, name, len);
	get->path_len += len;
	get->path[get->path_len] = '\0';
}

void inl_get_path_cut(struct inl_get *get, size_t len)
{
	get->path_len = len;
	if (get->path)
		get->path[len] = '\0';
}

char *inl_get_where(const struct inl_get *get, enum inl_side side)
{
	const char *base = side == INL_SOURCE ? get->source : get->dest;
	char *path, *where;

	if (get->path_len)
		path = inl_cli_join(base, get->path, get->path_len);
	else
		path = inl_cli_strdup(base, strlen(base));
	if (side != INL_SOURCE)
		return path;
	where = inl_cli_where(get->cli, path, strlen(path));
	free(path);
	return where;
}

int inl_get_failed(struct inl_get *get, enum inl_side side, int err)
{
	get->side = side;
	return err;
}

/* Nothing that follows would fare better. */
static bool is_hopeless(const struct inl_get *get, int err)
{
	return get->side == INL_DESTINATION && (err == -ENOSPC || err == -EDQUOT || err == -EROFS);
}

int inl_get_trouble(struct inl_get *get, int err)
{
	char *where;
	int code = 0;

	if (inl_cli_interrupted())
		return INL_EXIT_INTERRUPTED;
	where = inl_get_where(get, get->side);
	if (!is_hopeless(get, err) && (get->keep_going || get->side == INL_REFUSED)) {
		inl_report_add(&get->report, where, get->diag.text[0] ? get->diag.text : inl_cli_why(err));
		get->report.n_skipped++;
	} else {
		inl_report_erase(&get->report);
		code = inl_cli_error(get->cli, where, err, &get->diag);
	}
	free(where);
	return code;
}

/* ---- DEST -------------------------------------------------------------------------------------------------------- */

static int dest_error(struct inl_get *get, const char *dest, int err)
{
	return inl_cli_error(get->cli, dest, err, NULL);
}

/* DEST itself, made if missing. */
static int open_dest(struct inl_get *get, const char *dest, int *fd)
{
	if (mkdir(dest, 0700) && errno != EEXIST)
		return dest_error(get, dest, -errno);
	*fd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *fd < 0 ? dest_error(get, dest, -errno) : 0;
}

static int open_plain(struct inl_get *get, const char *dir, int *fd)
{
	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *fd < 0 ? dest_error(get, dir, -errno) : 0;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* ---- the mark of an unfinished export ---------------------------------------------------------------------------- */

/*
 * `get IMAGE:/dir DEST` makes DEST, or DEST/dir where DEST is there. When it is run a second time, to go on, DEST is
 * there: this file in it says that it is the copy of /dir, not yet finished.
 */
#define MARK_SIZE 64

static void mark_text(const struct inl_get *get, uint64_t ino, char text[MARK_SIZE])
{
	struct inl_volume_info info = { 0 };
	char uuid[37];

	inl_volume_info(get->cli->vol, &info);
	snprintf(text, MARK_SIZE, "%s %ju\n", inl_text_uuid(info.uuid, uuid), (uintmax_t)ino);
}

/* Does the directory hold the mark of this export? */
static bool has_mark(const struct inl_get *get, uint64_t ino, int dir_fd)
{
	int fd = openat(dir_fd, INL_GET_MARK, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[MARK_SIZE], found[MARK_SIZE] = "";

	if (fd < 0)
		return false;
	mark_text(get, ino, text);
	if (read(fd, found, MARK_SIZE - 1) < 0)
		found[0] = '\0';
	close(fd);
	return !strcmp(text, found);
}

/* Something else of this name is not touched. */
static int mark(struct inl_get *get, uint64_t ino, int dir_fd)
{
	char text[MARK_SIZE];
	ssize_t n;
	int fd;

	get->marked = has_mark(get, ino, dir_fd);
	if (get->marked)
		return 0;
	fd = openat(dir_fd, INL_GET_MARK, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return dest_error(get, get->dest, -errno);
	mark_text(get, ino, text);
	n = write(fd, text, strlen(text));
	close(fd);
	get->marked = n == (ssize_t)strlen(text);
	if (get->marked)
		return 0;
	unlinkat(dir_fd, INL_GET_MARK, 0);
	return dest_error(get, get->dest, n < 0 ? -errno : -ENOSPC);
}

void inl_get_unmark(struct inl_get *get)
{
	if (!get->marked || get->report.n_lines)
		return;
	if (has_mark(get, get->frames[0].ino, get->dir_fd))
		unlinkat(get->dir_fd, INL_GET_MARK, 0);
	get->marked = false;
}

/* Is DEST the copy of this directory that was interrupted? */
static bool is_unfinished(const struct inl_get *get, uint64_t ino, const char *dest)
{
	int dir_fd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool unfinished = dir_fd >= 0 && has_mark(get, ino, dir_fd);

	if (dir_fd >= 0)
		close(dir_fd);
	return unfinished;
}

/* ---- what goes there --------------------------------------------------------------------------------------------- */

static int get_dir(struct inl_get *get, struct inl_inode *inode, uint64_t ino, const char *dest)
{
	size_t len;
	const char *last = inl_path_last(get->source, &len);
	bool content = inl_path_is_content(get->source);
	int code, fd = -1, parent = -1;

	if (content || !is_dir(dest) || is_unfinished(get, ino, dest)) {
		get->dest = inl_cli_strdup(dest, strlen(dest));
		code = open_dest(get, dest, &fd);
		if (!code && !content)
			code = mark(get, ino, fd);
		if (code && fd >= 0)
			close(fd);
	} else {
		get->dest = inl_cli_join(dest, last, len);
		code = open_plain(get, dest, &parent);
		if (!code) {
			char *name = inl_cli_strdup(last, len);

			fd = inl_get_open_dir(parent, name);
			free(name);
			if (fd < 0)
				code = dest_error(get, get->dest, fd == -ELOOP ? -ENOTDIR : fd);
			close(parent);
		}
	}
	if (code)
		return code;
	get->top_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return inl_get_walk(get, inode, fd);
}

/* A single file: its directory and its name. */
static int open_parent(struct inl_get *get, const char *dest, char **name)
{
	size_t len;
	const char *last = inl_path_last(get->source, &len);
	char *dir;
	int code;

	if (is_dir(dest)) {
		get->dest = inl_cli_join(dest, last, len);
		*name = inl_cli_strdup(last, len);
		return open_plain(get, dest, &get->dir_fd);
	}
	if (dest[0] && dest[strlen(dest) - 1] == '/')
		return dest_error(get, dest, -ENOTDIR);
	last = inl_path_last(dest, &len);
	dir = last == dest ? inl_cli_strdup(".", 1) : inl_cli_strdup(dest, (size_t)(last - dest));
	get->dest = inl_cli_strdup(dest, strlen(dest));
	*name = inl_cli_strdup(last, len);
	code = open_plain(get, dir, &get->dir_fd);
	free(dir);
	return code;
}

static int get_file(struct inl_get *get, struct inl_inode *inode, const struct inl_stat *st, const char *dest)
{
	char *name = NULL;
	int code = open_parent(get, dest, &name);

	if (!code)
		code = inl_get_place(get, inode, st, name);
	free(name);
	return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

/* What is known to be missing before anything is read. */
static void report_damage(struct inl_get *get, const struct inl_volume_info *info)
{
	if (info->journal_damaged)
		inl_report_add(&get->report, get->cli->image,
			       "the journal is damaged: changes that stood only there are missing, this is an older state");
	if (info->truncated)
		inl_report_add(&get->report, get->cli->image, "cut off: the file system is larger than the image");
}

static int prepare(struct inl_get *get)
{
	struct inl_volume_info info = { 0 };
	int err;

	inl_volume_info(get->cli->vol, &info);
	get->block_size = info.block_size;
	get->euid = geteuid();
	get->egid = getegid();
	get->root = !get->euid;
	get->buf = inl_cli_new_buf(INL_GET_BUF_LEN);
	if (!get->buf)
		return inl_cli_error(get->cli, NULL, -ENOMEM, NULL);
	err = inl_seen_init(&get->seen, get->cli->vol);
	if (!err)
		err = inl_mine_init(get);
	if (err)
		return inl_cli_error(get->cli, get->cli->image, err, NULL);
	umask(0);
	inl_images_note(&get->images, get->cli->dev);
	inl_cli_catch_signals(false);
	inl_report_start(&get->report, get->cli, "exported");
	report_damage(get, &info);
	return 0;
}

/* What is locked or cannot be read is refused before anything is made. */
static int check(struct inl_get *get, struct inl_inode *inode, struct inl_stat *st)
{
	int err = inl_inode_stat(inode, st, &get->diag);

	if (!err)
		err = inl_inode_unlock(inode, &get->diag);
	if (!err && !S_ISDIR(st->mode) && inl_path_is_content(get->source))
		err = -ENOTDIR;
	get->keep_going = false;
	return err ? inl_get_trouble(get, inl_get_failed(get, INL_SOURCE, err)) : 0;
}

/* A size and a time of a file that was exported are no promise of its contents until those are on the medium. */
static int sync_dest(struct inl_get *get)
{
	int fd = get->top_fd >= 0 ? get->top_fd : get->dir_fd;

	if (!get->report.n_files || !syncfs(fd))
		return 0;
	return dest_error(get, get->dest, -errno);
}

static int finish(struct inl_get *get, int code)
{
	inl_report_erase(&get->report);
	if (!code)
		code = sync_dest(get);
	get->report.dest = get->dest;
	inl_report_end(&get->report);
	if (code == INL_EXIT_INTERRUPTED)
		return inl_cli_fail(get->cli, code, NULL, "interrupted; run the same command again to go on");
	if (code)
		return code;
	return get->report.n_lines ? INL_EXIT_INCOMPLETE : 0;
}

static int export(struct inl_get *get, struct inl_inode *inode, const char *dest)
{
	struct inl_stat st;
	int code = check(get, inode, &st);

	if (!code)
		code = prepare(get);
	if (code)
		return code;
	get->keep_going = get->cli->given[INL_OPT_KEEP_GOING];
	code = S_ISDIR(st.mode) ? get_dir(get, inode, st.ino, dest) : get_file(get, inode, &st, dest);
	return finish(get, code);
}

static void done(struct inl_get *get)
{
	inl_cli_free_buf(get->buf, INL_GET_BUF_LEN);
	if (get->dir_fd >= 0)
		close(get->dir_fd);
	if (get->top_fd >= 0)
		close(get->top_fd);
	inl_seen_done(&get->seen);
	inl_links_done(&get->links);
	inl_mine_done(get);
	inl_report_done(&get->report);
	free(get->frames);
	free(get->path);
	free(get->dest);
}

int inl_cli_get(struct inl_cli *cli, int n_args, char **args)
{
	static struct inl_get get = { .top_fd = -1, .dir_fd = -1 };
	struct inl_inode *inode = NULL;
	struct inl_target target;
	int code = inl_target_init(cli, args[0], &target);

	get.cli = cli;
	get.source = target.path;
	inl_links_init(&get.links);
	cli->flags = cli->given[INL_OPT_KEEP_GOING] ? INL_VOLUME_DAMAGED : 0;
	if (!code)
		code = inl_cli_find(cli, &target, inl_path_is_content(target.path), &inode);
	if (!code)
		code = export(&get, inode, args[1]);
	inl_inode_put(inode);
	done(&get);
	inl_target_done(&target);
	return code;
}
