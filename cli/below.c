/*
 * cli/below.c: walks over what lies below a directory of the volume, however deep.
 * Not here: what is done with it (cli/remove.c, cli/attr.c); the walk of an export (cli/walk.c).
 * Read more: cli/change.h.
 *
 * Only the deepest directories are open; those above are opened again, where they were, when the walk comes back.
 */
#include "cli/change.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_MAX_DIRS 32

struct frame {
	uint64_t ino;
	struct inl_inode *dir;	/* NULL: closed, with the cursor */
	struct inl_dir *cursor; /* NULL: closed, to be opened at pos */
	uint64_t pos;
	bool tied; /* that would bring the last entry again: it stays open */
	size_t path_len; /* with its own name */
	size_t name;	 /* where that begins */
	bool failed;
	bool changed; /* something went away since the cursor was opened */
};

struct inl_below {
	struct inl_cli *cli;
	inl_below_fn *fn;
	void *arg;
	unsigned flags; /* of enum inl_below_flags */
	char *path;
	size_t path_room;
	struct frame *frames;
	size_t n_frames, frames_room;
	struct inl_seen seen;
	int code;
	bool stop;
};

static struct frame *top(struct inl_below *below)
{
	return &below->frames[below->n_frames - 1];
}

static bool interrupted(const struct inl_below *below)
{
	return !(below->flags & INL_BELOW_TO_END) && inl_cli_interrupted();
}

static void close_frame(struct frame *frame)
{
	if (frame->cursor)
		frame->pos = inl_dir_tell(frame->cursor);
	inl_dir_close(frame->cursor);
	inl_inode_put(frame->dir);
	frame->cursor = NULL;
	frame->dir = NULL;
}

/* To be opened again where it was, if there is no doubt about where that is. */
static void park_frame(struct frame *frame)
{
	if (!frame->tied)
		close_frame(frame);
}

static int tell(struct inl_below *below, int err, const struct inl_diag *diag)
{
	struct inl_below_step step = { .cli = below->cli, .when = INL_BELOW_DAMAGE, .path = below->path, .arg = below->arg,
				       .why = diag->text[0] ? diag->text : inl_cli_why(err) };

	return below->fn(&step);
}

static int print(struct inl_below *below, int err, const struct inl_diag *diag)
{
	char *where = inl_cli_where(below->cli, below->path, strlen(below->path));
	int code = inl_cli_error(below->cli, where, err, diag);

	free(where);
	return code;
}

/* Something is wrong with what path names. */
static void complain(struct inl_below *below, int err, const struct inl_diag *diag)
{
	int code = below->flags & INL_BELOW_TELL ? tell(below, err, diag) : print(below, err, diag);

	below->code = inl_cli_worse(below->code, code);
	if (below->n_frames)
		top(below)->failed = true;
}

/* Append a name to the path; returns where it begins. */
static size_t path_add(struct inl_below *below, size_t at, const char *name, size_t len)
{
	below->path = inl_cli_grow(below->path, at, at + len + 2, &below->path_room, 1);
	if (at && below->path[at - 1] != '/')
		below->path[at++] = '/';
	memcpy(below->path + at, name, len);
	below->path[at + len] = '\0';
	return at;
}

static void push(struct inl_below *below, uint64_t ino, struct inl_inode *dir, size_t name)
{
	below->frames = inl_cli_grow(below->frames, below->n_frames, below->n_frames + 1, &below->frames_room,
				   sizeof(*below->frames));
	below->frames[below->n_frames++] =
		(struct frame){ .ino = ino, .dir = dir, .path_len = strlen(below->path), .name = name };
	if (below->n_frames > OPEN_MAX_DIRS)
		park_frame(&below->frames[below->n_frames - 1 - OPEN_MAX_DIRS]);
}

static int open_frame(struct inl_below *below, struct frame *frame, struct inl_diag *diag)
{
	int err = 0;

	if (!frame->dir)
		err = inl_inode_get(below->cli->vol, frame->ino, diag, &frame->dir);
	if (err)
		frame->dir = NULL;
	if (!err && !frame->cursor) {
		err = inl_dir_open(frame->dir, diag, &frame->cursor);
		if (err)
			frame->cursor = NULL;
		else
			inl_dir_seek(frame->cursor, frame->pos);
	}
	return err;
}

/* Returns what fn returned. */
static int call(struct inl_below *below, enum inl_below_when when, struct inl_inode *parent, size_t name, uint64_t ino,
		uint8_t type, bool failed)
{
	struct inl_below_step step = { below->cli, when, parent, ino, below->path + name, below->path,
				       strlen(below->path + name), type, failed, below->arg };
	int code = below->fn(&step);

	if (code < 0) {
		below->stop = true;
		code = -code;
	}
	below->code = inl_cli_worse(below->code, code);
	return code;
}

/* Back to the directory above: done with this one. */
static void leave(struct inl_below *below)
{
	struct frame done = *top(below), *above;
	struct inl_diag diag = { 0 };
	int err;

	close_frame(top(below));
	below->n_frames--;
	if (!below->n_frames)
		return;
	below->path[done.path_len] = '\0';
	above = top(below);
	err = open_frame(below, above, &diag);
	if (err) {
		complain(below, err, &diag);
		return;
	}
	if (call(below, INL_BELOW_LEAVE, above->dir, done.name, done.ino, DT_DIR, done.failed) || done.failed)
		above->failed = true;
	else
		above->changed = true;
	below->path[above->path_len] = '\0';
}

/* The end of a directory; what went away meanwhile may have hidden something. */
static void end_of(struct inl_below *below)
{
	struct frame *frame = top(below);

	if (below->flags & INL_BELOW_AGAIN && frame->changed && !frame->failed) {
		frame->changed = false;
		inl_dir_seek(frame->cursor, 0);
		return;
	}
	leave(below);
}

static void descend(struct inl_below *below, const struct inl_dirent *entry, size_t name)
{
	struct frame *frame = top(below);
	struct inl_inode *dir = NULL;
	struct inl_diag diag = { 0 };
	int err;

	if (inl_seen_before(&below->seen, entry->ino)) {
		if (!(below->flags & INL_BELOW_AGAIN) || !frame->failed)
			complain(below, inl_diag_set(&diag, -EUCLEAN, "damaged: met this directory already"), &diag);
		return;
	}
	err = inl_inode_get(below->cli->vol, entry->ino, &diag, &dir);
	if (err)
		complain(below, err, &diag);
	else if (call(below, INL_BELOW_ENTER, frame->dir, name, entry->ino, DT_DIR, false))
		frame->failed = true;
	if (err || interrupted(below))
		inl_inode_put(err ? NULL : dir);
	else
		push(below, entry->ino, dir, name);
}

/* The type where the entry does not say. */
static uint8_t type_of(struct inl_below *below, const struct inl_dirent *entry)
{
	struct inl_inode *inode = NULL;
	struct inl_stat st = { 0 };

	if (entry->type != DT_UNKNOWN)
		return entry->type;
	if (!inl_inode_get(below->cli->vol, entry->ino, NULL, &inode))
		inl_inode_stat(inode, &st, NULL);
	inl_inode_put(inode);
	return st.mode ? IFTODT(st.mode) : DT_UNKNOWN;
}

static void take(struct inl_below *below, const struct inl_dirent *entry)
{
	struct frame *frame = top(below);
	struct inl_diag diag = { 0 };
	uint8_t type;
	size_t name = path_add(below, frame->path_len, entry->name, entry->len);

	if (entry->status) {
		complain(below, inl_diag_set(&diag, entry->status, "damaged directory entry: an impossible name or inode"),
			 &diag);
	} else if ((type = type_of(below, entry)) == DT_DIR) {
		descend(below, entry, name);
	} else if (call(below, INL_BELOW_ENTRY, frame->dir, name, entry->ino, type, false)) {
		frame->failed = true;
	} else {
		frame->changed = true;
	}
	below->path[top(below)->path_len] = '\0';
}

static void step(struct inl_below *below)
{
	struct inl_diag diag = { 0 };
	struct inl_dirent entry;
	int got = open_frame(below, top(below), &diag);

	if (got) {
		complain(below, got, &diag);
		leave(below);
		return;
	}
	got = inl_dir_next(top(below)->cursor, &entry, &diag);
	if (got > 0)
		top(below)->tied = entry.pos == inl_dir_tell(top(below)->cursor);
	if (!got)
		end_of(below);
	else if (got < 0)
		complain(below, got, &diag);
	else
		take(below, &entry);
}

int inl_below_walk(struct inl_cli *cli, struct inl_inode *dir, const char *path, unsigned flags, inl_below_fn *fn,
		   void *arg)
{
	struct inl_below below = { .cli = cli, .fn = fn, .arg = arg, .flags = flags };
	struct inl_inode *first = NULL;
	struct inl_stat st = { 0 };
	struct inl_diag diag = { 0 };
	int err = inl_inode_stat(dir, &st, &diag);

	if (!err)
		err = inl_seen_init(&below.seen, cli->vol);
	if (!err)
		err = inl_inode_get(cli->vol, st.ino, &diag, &first);
	if (err) {
		inl_seen_done(&below.seen);
		return inl_cli_error(cli, path, err, &diag);
	}
	path_add(&below, 0, path, strlen(path));
	inl_seen_before(&below.seen, st.ino);
	push(&below, st.ino, first, 0);
	while (below.n_frames && !below.stop) {
		step(&below);
		if (interrupted(&below)) {
			below.stop = true;
			below.code = INL_EXIT_INTERRUPTED;
		}
	}
	while (below.n_frames)
		close_frame(&below.frames[--below.n_frames]);
	inl_seen_done(&below.seen);
	free(below.frames);
	free(below.path);
	return below.code;
}
