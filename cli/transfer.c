/*
 * cli/transfer.c: `inlay mv` to where things are encrypted differently: copies them, then removes them where they were.
 * Not here: what can be renamed (cli/move.c); copies from and to the host (cli/get.c, cli/put.c).
 * Read more: doc/inlay.1, "mv"; Linux Documentation/filesystems/fscrypt.rst on EXDEV.
 *
 * First all of the source is looked at, for what would stop the copy later. The copy gets a reserved name in the
 * directory that it goes to. When it is on the medium, it takes its place and the source loses its own, two operations
 * that the journal keeps in this order and, unless it commits just then, together. A directory that has lost its place
 * has the reserved name until all that is in it is removed.
 */
#include "cli/change.h"
#include "cli/report.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUF_LEN  ((size_t)1 << 20)
#define TEMP	 ".inlay-moving"
#define TEMP_LEN (sizeof(TEMP) - 1)

/* Of inl_stat.flags. */
#define IMMUTABLE_FL 0x10u
#define APPEND_FL    0x20u
#define VERITY_FL    0x00100000u

struct transfer {
	struct inl_cli *cli;
	struct inl_entry *from, *to;
	const char *path; /* of from */
	char *left_from;  /* what TEMP beside from is called in messages */
	uint64_t to_ino;  /* of to->dir */
	uint8_t *buf;	  /* BUF_LEN */

	struct inl_inode *dir; /* of the copy: the one that is being filled */
	uint64_t *dirs;	       /* its number, and those above it */
	size_t n_dirs, dirs_room;
	struct inl_twins twins;
	struct inl_report report;
};

static int complain(struct transfer *transfer, const char *path, int err, struct inl_diag *diag)
{
	char *where;
	int code;

	if (inl_cli_interrupted())
		return INL_EXIT_INTERRUPTED;
	if (err == -ENOSPC)
		inl_cli_explain_full(transfer->cli, diag);
	inl_report_erase(&transfer->report);
	where = inl_cli_where(transfer->cli, path, strlen(path));
	code = inl_cli_error(transfer->cli, where, err, diag);
	free(where);
	return code;
}

static int get_inode(struct inl_cli *cli, uint64_t ino, struct inl_inode **inode, struct inl_stat *st,
		     struct inl_diag *diag)
{
	int err = inl_inode_get(cli->vol, ino, diag, inode);

	return err ? err : inl_inode_stat(*inode, st, diag);
}

/* ---- the reserved name ------------------------------------------------------------------------------------------- */

static bool has_temp(const char *path)
{
	while (*path) {
		size_t len = strcspn(path, "/");

		if (len == TEMP_LEN && !memcmp(path, TEMP, len))
			return true;
		path += len + (path[len] == '/');
	}
	return false;
}

/* The path of TEMP in the directory of an entry. */
static char *temp_beside(const struct inl_target *target, const struct inl_entry *entry)
{
	const char *last;
	char *dir, *path;
	size_t len;

	if (entry->entered)
		return inl_cli_join(target->path, TEMP, TEMP_LEN);
	last = inl_path_last(target->path, &len);
	dir = inl_cli_strdup(target->path, (size_t)(last - target->path));
	path = inl_cli_join(dir, TEMP, TEMP_LEN);
	free(dir);
	return path;
}

int inl_transfer_tidy(struct inl_cli *cli, const struct inl_target *target, const struct inl_entry *entry)
{
	uint64_t ino;
	char *path;
	int code;

	if (has_temp(target->path) || inl_lookup(entry->dir, TEMP, TEMP_LEN, &ino, NULL))
		return 0;
	path = temp_beside(target, entry);
	code = inl_remove_name(cli, entry->dir, TEMP, TEMP_LEN, path, INL_BELOW_TO_END);
	free(path);
	return code;
}

/* ---- what would stop it ------------------------------------------------------------------------------------------ */

/* Nothing can be taken from such a directory, nor such a file from any. */
static int check_flags(uint32_t flags, struct inl_diag *diag)
{
	if (flags & VERITY_FL)
		return inl_diag_set(diag, -EOPNOTSUPP, "is protected by fs-verity, which a copy would not be");
	if (!(flags & (IMMUTABLE_FL | APPEND_FL)))
		return 0;
	return inl_diag_set(diag, -EPERM, "is marked as %s", flags & IMMUTABLE_FL ? "immutable" : "append-only");
}

static int check_source(struct transfer *transfer, uint64_t ino, const char *path)
{
	struct inl_inode *inode = NULL;
	struct inl_stat st = { 0 };
	struct inl_diag diag = { 0 };
	int err = get_inode(transfer->cli, ino, &inode, &st, &diag);

	/* The rename has said so already, unless the volume is damaged, and the way up is another than that down. */
	if (!err && st.ino == transfer->to_ino)
		err = inl_diag_set(&diag, -EINVAL, "a directory cannot be moved into itself");
	if (!err)
		err = check_flags(st.flags, &diag);
	if (!err)
		err = inl_inode_unlock(inode, &diag);
	inl_inode_put(inode);
	return err ? complain(transfer, path, err, &diag) : 0;
}

static int check_step(const struct inl_below_step *step)
{
	return step->when == INL_BELOW_LEAVE ? 0 : -check_source(step->arg, step->ino, step->path);
}

/* The two directories: something is put into one, and taken from both. */
static int check_dirs(struct transfer *transfer)
{
	const struct inl_entry *entries[] = { transfer->from, transfer->to };

	for (size_t i = 0; i < 2; i++) {
		struct inl_stat st = { 0 };
		struct inl_diag diag = { 0 };
		int err = inl_inode_stat(entries[i]->dir, &st, &diag);

		if (!err)
			err = check_flags(st.flags, &diag);
		if (err)
			return inl_cli_error(transfer->cli, entries[i]->arg, err, &diag);
		transfer->to_ino = st.ino;
	}
	return 0;
}

static int check_empty(struct inl_inode *inode, struct inl_diag *diag)
{
	struct inl_dir *dir = NULL;
	struct inl_dirent entry;
	int got = inl_dir_open(inode, diag, &dir);

	if (got)
		return got;
	got = inl_dir_next(dir, &entry, diag);
	inl_dir_close(dir);
	return got > 0 ? -ENOTEMPTY : got;
}

/* May what has the name be replaced? The rename would say so too, but after the copy. */
static int check_replaced(struct transfer *transfer)
{
	const struct inl_entry *from = transfer->from, *to = transfer->to;
	bool is_dir = S_ISDIR(from->st.mode);
	struct inl_diag diag = { 0 };
	int err;

	if (!to->inode)
		return 0;
	if (is_dir != S_ISDIR(to->st.mode))
		err = is_dir ? -ENOTDIR : -EISDIR;
	else
		err = check_flags(to->st.flags, &diag);
	if (!err && is_dir)
		err = check_empty(to->inode, &diag);
	return err ? inl_cli_error(transfer->cli, to->arg, err, &diag) : 0;
}

static int check(struct transfer *transfer)
{
	const struct inl_entry *from = transfer->from;
	int code = check_dirs(transfer);

	code = code ? code : check_source(transfer, from->st.ino, transfer->path);
	code = code ? code : check_replaced(transfer);
	if (!code && S_ISDIR(from->st.mode))
		code = inl_below_walk(transfer->cli, from->inode, transfer->path, 0, check_step, transfer);
	return code;
}

/* ---- the copy of one inode --------------------------------------------------------------------------------------- */

static int copy_run(struct transfer *transfer, struct inl_inode *source, uint64_t offset, uint64_t end,
		    struct inl_inode *copy, struct inl_diag *diag)
{
	while (offset < end) {
		/* The first piece ends at a multiple of the buffer's length: the others are aligned. */
		uint64_t room = BUF_LEN - offset % BUF_LEN;
		size_t n = (size_t)(end - offset < room ? end - offset : room), got = 0;
		int err = inl_read(source, offset, transfer->buf, n, &got, diag);

		if (!err && got < n)
			err = -EUCLEAN;
		if (!err)
			err = inl_write_all(copy, offset, transfer->buf, n, diag);
		if (!err && inl_cli_interrupted())
			err = -EINTR;
		if (err)
			return err;
		transfer->report.n_bytes += n;
		inl_report_progress(&transfer->report);
		offset += n;
	}
	return 0;
}

static int copy_contents(struct transfer *transfer, struct inl_inode *source, uint64_t size, struct inl_inode *copy,
			 struct inl_diag *diag)
{
	uint64_t offset = 0, end = 0;

	while (offset < size) {
		struct inl_extent extent;
		int err = inl_inode_extent(source, offset, &extent, diag);

		if (!err && !extent.len)
			err = -EUCLEAN;
		if (!err && (extent.kind == INL_EXTENT_DATA || extent.kind == INL_EXTENT_INLINE)) {
			end = extent.len < size - offset ? offset + extent.len : size;
			err = copy_run(transfer, source, offset, end, copy, diag);
		}
		if (err)
			return err;
		offset += extent.len;
	}
	return end < size ? inl_truncate(copy, size, diag) : 0;
}

struct attribute_copy {
	struct inl_inode *copy;
	struct inl_diag *diag;
};

/* One that cannot be kept would be lost: then nothing is moved. */
static int copy_attribute(const char *name, const void *value, size_t len, void *arg)
{
	struct attribute_copy *to = arg;
	int err = inl_xattr_set(to->copy, name, value, len, 0, to->diag);

	return err ? inl_diag_set(to->diag, err, "the attribute '%.200s' cannot be copied: %s", name, inl_cli_why(err)) : 0;
}

/* Returns which times attr has. */
static unsigned attr_of(const struct inl_stat *st, struct inl_attr *attr)
{
	*attr = (struct inl_attr){ .mode = st->mode, .uid = st->uid, .gid = st->gid, .rdev_major = st->rdev_major,
				   .rdev_minor = st->rdev_minor, .atime = st->atime, .mtime = st->mtime,
				   .crtime = st->crtime };
	return INL_ATTR_ATIME | INL_ATTR_MTIME | (st->crtime.sec || st->crtime.nsec ? INL_ATTR_CRTIME : 0);
}

static int make(struct transfer *transfer, struct inl_inode *source, const struct inl_stat *st, struct inl_inode *dir,
		const char *name, size_t len, struct inl_diag *diag, struct inl_inode **copy)
{
	char *target = (char *)transfer->buf;
	struct inl_attr attr;
	unsigned which = attr_of(st, &attr);
	size_t target_len = 0;
	int err;

	if (!S_ISLNK(st->mode))
		return inl_create(dir, name, len, &attr, which, diag, copy);
	err = inl_readlink(source, target, INL_SYMLINK_MAX, &target_len, diag);
	return err ? err : inl_symlink(dir, name, len, target, target_len, &attr, which, diag, copy);
}

/* All that belongs to an inode, but for what is in a directory. */
static int copy_inode(struct transfer *transfer, struct inl_inode *source, const struct inl_stat *st,
		      struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag,
		      struct inl_inode **out)
{
	struct inl_inode *copy = NULL;
	struct attribute_copy attributes;
	struct inl_attr attr;
	int err = make(transfer, source, st, dir, name, len, diag, &copy);

	if (err)
		return err;
	attr_of(st, &attr);
	attributes = (struct attribute_copy){ copy, diag };
	if (S_ISREG(st->mode))
		err = copy_contents(transfer, source, st->size, copy, diag);
	if (!err)
		err = inl_xattrs(source, copy_attribute, &attributes, diag);
	if (!err && S_ISREG(st->mode) && st->size)
		err = inl_setattr(copy, &attr, INL_ATTR_ATIME | INL_ATTR_MTIME, diag);
	if (err)
		inl_inode_put(copy);
	else
		*out = copy;
	return err;
}

static int link_twin(struct transfer *transfer, uint64_t ino, struct inl_inode *dir, const char *name, size_t len,
		     struct inl_diag *diag)
{
	struct inl_inode *twin = NULL;
	int err = inl_inode_get(transfer->cli->vol, ino, diag, &twin);

	if (err)
		return err;
	err = inl_link(twin, dir, name, len, diag);
	inl_inode_put(twin);
	return err;
}

/* Anything but a directory. */
static int copy_entry(struct transfer *transfer, struct inl_inode *source, const struct inl_stat *st,
		      struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag)
{
	uint64_t ino = st->nlink > 1 ? inl_twins_find(&transfer->twins, 0, st->ino) : 0;
	struct inl_inode *copy = NULL;
	struct inl_stat made = { 0 };
	int err;

	transfer->report.n_files++;
	if (ino)
		return link_twin(transfer, ino, dir, name, len, diag);
	err = copy_inode(transfer, source, st, dir, name, len, diag, &copy);
	if (err)
		return err;
	if (st->nlink > 1) {
		err = inl_inode_stat(copy, &made, diag);
		if (!err && !inl_twins_add(&transfer->twins, 0, st->ino, made.ino))
			transfer->report.n_unlinked++;
	}
	inl_inode_put(copy);
	return err;
}

/* ---- the copy of a tree ------------------------------------------------------------------------------------------ */

static int enter(struct transfer *transfer, struct inl_inode *source, const struct inl_stat *st, struct inl_inode *dir,
		 const char *name, size_t len, struct inl_diag *diag)
{
	struct inl_inode *copy = NULL;
	struct inl_stat made = { 0 };
	int err = copy_inode(transfer, source, st, dir, name, len, diag, &copy);

	if (err)
		return err;
	err = inl_inode_stat(copy, &made, diag);
	inl_inode_put(transfer->dir);
	transfer->dir = copy;
	transfer->dirs = inl_cli_grow(transfer->dirs, transfer->n_dirs, transfer->n_dirs + 1, &transfer->dirs_room,
				      sizeof(*transfer->dirs));
	transfer->dirs[transfer->n_dirs++] = made.ino;
	return err;
}

/* A directory gets its times last: they changed with all that was put into it. */
static int leave(struct transfer *transfer, const struct inl_stat *st, struct inl_diag *diag)
{
	struct inl_attr attr;
	int err;

	attr_of(st, &attr);
	err = inl_setattr(transfer->dir, &attr, INL_ATTR_ATIME | INL_ATTR_MTIME, diag);
	inl_inode_put(transfer->dir);
	transfer->dir = NULL;
	transfer->n_dirs--;
	if (!err && transfer->n_dirs)
		err = inl_inode_get(transfer->cli->vol, transfer->dirs[transfer->n_dirs - 1], diag, &transfer->dir);
	return err;
}

static int copy_step(const struct inl_below_step *step)
{
	struct transfer *transfer = step->arg;
	struct inl_inode *source = NULL;
	struct inl_stat st = { 0 };
	struct inl_diag diag = { 0 };
	int err = get_inode(step->cli, step->ino, &source, &st, &diag);

	if (!err && step->when == INL_BELOW_ENTRY)
		err = copy_entry(transfer, source, &st, transfer->dir, step->name, step->len, &diag);
	else if (!err && step->when == INL_BELOW_ENTER)
		err = enter(transfer, source, &st, transfer->dir, step->name, step->len, &diag);
	else if (!err)
		err = leave(transfer, &st, &diag);
	inl_inode_put(source);
	inl_report_progress(&transfer->report);
	return err ? -complain(transfer, step->path, err, &diag) : 0;
}

static int copy_all(struct transfer *transfer)
{
	struct inl_entry *from = transfer->from;
	struct inl_inode *dir = transfer->to->dir;
	struct inl_diag diag = { 0 };
	int err, code;

	if (!S_ISDIR(from->st.mode)) {
		err = copy_entry(transfer, from->inode, &from->st, dir, TEMP, TEMP_LEN, &diag);
		return err ? complain(transfer, transfer->path, err, &diag) : 0;
	}
	err = enter(transfer, from->inode, &from->st, dir, TEMP, TEMP_LEN, &diag);
	if (err)
		return complain(transfer, transfer->path, err, &diag);
	code = inl_below_walk(transfer->cli, from->inode, transfer->path, 0, copy_step, transfer);
	if (code)
		return code;
	err = leave(transfer, &from->st, &diag);
	return err ? complain(transfer, transfer->path, err, &diag) : 0;
}

/* ---- the copy takes its place ------------------------------------------------------------------------------------ */

static int put_in_place(struct transfer *transfer)
{
	struct inl_cli *cli = transfer->cli;
	struct inl_entry *to = transfer->to;
	struct inl_diag diag = { 0 };
	int err = inl_sync(cli->vol, &diag);

	if (!err && inl_cli_interrupted())
		return INL_EXIT_INTERRUPTED;
	if (!err)
		err = inl_rename(to->dir, TEMP, TEMP_LEN, to->dir, to->name, to->len,
				 cli->given[INL_OPT_NO_CLOBBER] ? INL_RENAME_NOREPLACE : 0, &diag);
	return err ? inl_cli_error(cli, to->arg, err, &diag) : 0;
}

/* From here on it goes to its end, whatever signal comes. */
static int take_away(struct transfer *transfer)
{
	struct inl_cli *cli = transfer->cli;
	struct inl_entry *from = transfer->from;
	struct inl_volume_info info = { 0 };
	struct inl_diag diag = { 0 };
	int err = 0;

	inl_inode_put(from->inode);
	from->inode = NULL;
	inl_volume_info(cli->vol, &info);
	if (!info.has_journal)
		err = inl_sync(cli->vol, &diag);
	if (!err && S_ISDIR(from->st.mode))
		err = inl_rename(from->dir, from->name, from->len, from->dir, TEMP, TEMP_LEN, 0, &diag);
	else if (!err)
		err = inl_unlink(from->dir, from->name, from->len, &diag);
	if (!err)
		err = inl_sync(cli->vol, &diag);
	if (err)
		return inl_cli_fail(cli, INL_EXIT_FAILED, from->arg, "copied to %s, but not removed: %s",
				    transfer->to->arg, diag.text[0] ? diag.text : inl_cli_why(err));
	inl_cli_fail(cli, 0, transfer->to->arg, "encrypted differently from %s: copied", from->arg);
	return inl_remove_name(cli, from->dir, TEMP, TEMP_LEN, transfer->left_from, INL_BELOW_TO_END);
}

/* ---- in order ---------------------------------------------------------------------------------------------------- */

static int run(struct transfer *transfer, const struct inl_target *to_target)
{
	struct inl_cli *cli = transfer->cli;
	struct inl_volume_info info = { 0 };
	int code = copy_all(transfer);

	inl_inode_put(transfer->dir);
	transfer->dir = NULL;
	inl_report_erase(&transfer->report);
	code = code ? code : put_in_place(transfer);
	if (!code) {
		code = take_away(transfer);
		inl_report_end(&transfer->report);
		return code;
	}
	/* After an error of the device nothing can be removed any more; the next run does it. */
	inl_volume_info(cli->vol, &info);
	if (info.writable)
		inl_transfer_tidy(cli, to_target, transfer->to);
	return code;
}

static int prepare(struct transfer *transfer, const struct inl_target *from_target, const struct inl_target *to_target)
{
	struct inl_cli *cli = transfer->cli;
	int code;

	transfer->left_from = temp_beside(from_target, transfer->from);
	if (has_temp(from_target->path) || has_temp(to_target->path))
		return inl_cli_fail(cli, INL_EXIT_FAILED, transfer->from->arg,
				    "has to be copied to be moved, but the name " TEMP " is reserved for that");
	code = check(transfer);
	code = code ? code : inl_transfer_tidy(cli, to_target, transfer->to);
	code = code ? code : inl_transfer_tidy(cli, from_target, transfer->from);
	if (code)
		return code;
	transfer->buf = inl_cli_new_buf(BUF_LEN);
	return transfer->buf ? 0 : inl_cli_error(cli, NULL, -ENOMEM, NULL);
}

int inl_transfer(struct inl_cli *cli, const struct inl_target *from_target, struct inl_entry *from,
		 const struct inl_target *to_target, struct inl_entry *to)
{
	struct transfer transfer = { .cli = cli, .from = from, .to = to, .path = from_target->path };
	int code;

	inl_report_start(&transfer.report, cli, "moved");
	transfer.report.dest = to->arg;
	code = prepare(&transfer, from_target, to_target);
	code = code ? code : run(&transfer, to_target);
	inl_cli_free_buf(transfer.buf, BUF_LEN);
	inl_report_done(&transfer.report);
	inl_twins_done(&transfer.twins);
	free(transfer.dirs);
	free(transfer.left_from);
	if (code == INL_EXIT_INTERRUPTED)
		inl_cli_fail(cli, code, from->arg, "interrupted; it is where it was");
	return code;
}
