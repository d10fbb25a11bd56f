/*
 * cli/put.c: `inlay put`: imports files and trees. Here: where they go, when it ends.
 * Not here: the walk (cli/source.c), one entry (cli/fill.c).
 * Read more: doc/inlay.1, "IMPORT".
 */
#include "cli/put.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <inlay/cipher.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUF_ALL (INL_PUT_BUF_LEN + 2 * INL_PUT_XATTR_LEN)
#define MARK_LEN INL_FILE_NONCE_SIZE /* bytes */

/* ---- paths, messages --------------------------------------------------------------------------------------------- */

void inl_put_path_add(struct inl_put *put, const char *name, size_t len)
{
	put->path = inl_cli_grow(put->path, put->path_len, put->path_len + len + 2, &put->path_room, 1);
	if (put->path_len)
		put->path[put->path_len++] = '/';
	memcpy(put->path + put->path_len, name, len);
	put->path_len += len;
	put->path[put->path_len] = '\0';
}

void inl_put_path_cut(struct inl_put *put, size_t len)
{
	put->path_len = len;
	if (put->path)
		put->path[len] = '\0';
}

char *inl_put_where(const struct inl_put *put, enum inl_side side)
{
	const char *base = side == INL_DESTINATION ? put->dest : put->source;

	if (put->path_len)
		return inl_cli_join(base, put->path, put->path_len);
	return inl_cli_strdup(base, strlen(base));
}

int inl_put_failed(struct inl_put *put, enum inl_side side, int err)
{
	put->side = side;
	return err;
}

/* Nothing that follows would fare better. */
static bool is_hopeless(const struct inl_put *put, int err)
{
	return put->side == INL_DESTINATION && (err == -ENOSPC || err == -EROFS || err == -EIO);
}

int inl_put_trouble(struct inl_put *put, int err)
{
	char *where;
	int code = 0;

	if (inl_cli_interrupted())
		return INL_EXIT_INTERRUPTED;
	if (err == -ENOSPC && put->side == INL_DESTINATION) {
		put->diag = (struct inl_diag){ 0 };
		inl_cli_explain_full(put->cli, &put->diag);
	}
	where = inl_put_where(put, put->side);
	if (!is_hopeless(put, err) && (put->keep_going || put->side == INL_REFUSED)) {
		inl_report_add(&put->report, where, put->diag.text[0] ? put->diag.text : inl_cli_why(err));
		put->report.n_skipped++;
	} else {
		inl_report_erase(&put->report);
		code = inl_cli_error(put->cli, where, err, &put->diag);
	}
	free(where);
	return code;
}

/* ---- the mark of an unfinished import ---------------------------------------------------------------------------- */

/*
 * `put SRC IMAGE:/new` makes /new, or /new/SRC where /new is there. When it is run a second time, to go on, /new is
 * there: this attribute says that it is the copy of SRC, not yet finished.
 */
/*
 * Attributes are not encrypted, and paths tell something: so the mark is made of a hash, in an encrypted directory with its
 * key.
 */
static bool mark_of(const struct inl_put *put, struct inl_inode *dir, uint8_t mark[MARK_LEN])
{
	char *path = realpath(put->source, NULL);
	const char *text = path ? path : put->source;
	struct inl_inode_crypt crypt;
	uint8_t sum[32], purpose[32];
	bool good = !inl_sha256(text, strlen(text), sum) && !inl_sha256(INL_PUT_MARK, strlen(INL_PUT_MARK), purpose);

	free(path);
	inl_inode_crypt(dir, &crypt);
	memcpy(mark, sum, MARK_LEN);
	if (good && crypt.encrypted)
		good = !inl_nonce_derive(put->cli->keys, &crypt.policy.key, purpose, sum, mark);
	return good;
}

static bool has_mark(const struct inl_put *put, struct inl_inode *dir)
{
	uint8_t mark[MARK_LEN], found[MARK_LEN];
	size_t len = 0;

	return !inl_xattr_get(dir, INL_PUT_MARK, found, sizeof(found), &len, NULL) && len == MARK_LEN &&
	       mark_of(put, dir, mark) && !memcmp(found, mark, MARK_LEN);
}

/* A volume that has no attributes does without. */
static void mark_dir(struct inl_put *put, struct inl_inode *dir)
{
	uint8_t mark[MARK_LEN];
	struct inl_stat st = { 0 };

	if (mark_of(put, dir, mark) && !inl_xattr_set(dir, INL_PUT_MARK, mark, MARK_LEN, 0, NULL) &&
	    !inl_inode_stat(dir, &st, NULL))
		put->marked = st.ino;
}

/* All is on the medium: the mark goes last. */
static void unmark(struct inl_put *put)
{
	struct inl_inode *dir = NULL;

	if (!put->marked || inl_inode_get(put->cli->vol, put->marked, NULL, &dir))
		return;
	inl_xattr_set(dir, INL_PUT_MARK, NULL, 0, 0, NULL);
	inl_inode_put(dir);
}

/* ---- where it goes ----------------------------------------------------------------------------------------------- */

/* What the copy is called in messages. */
static void name_dest(struct inl_put *put, const char *arg, const struct inl_entry *entry, bool entered)
{
	put->entered = entered;
	put->dest = entered ? inl_cli_join(arg, entry->name, entry->len) : inl_cli_strdup(arg, strlen(arg));
}

/* A directory. */
static int put_tree(struct inl_put *put, const struct inl_put_item *item, struct inl_entry *entry,
		    const struct stat *st)
{
	struct inl_inode *dir = NULL;
	bool new = !entry->inode;
	int err;

	if (!entry->dir) {
		dir = entry->inode;
		entry->inode = NULL;
	} else {
		err = inl_put_dir(put, entry->dir, entry->name, entry->len, st, &dir);
		if (err)
			return inl_put_trouble(put, err);
		if (new && !put->entered && !inl_path_is_content(put->source))
			mark_dir(put, dir);
	}
	return inl_put_walk(put, item, dir);
}

static int put_found(struct inl_put *put, const struct inl_put_item *item, struct inl_entry *entry,
		     const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return put_tree(put, item, entry, st);
	if (!entry->dir)
		return inl_cli_error(put->cli, put->dest, -EISDIR, NULL);
	if (entry->slash)
		return inl_cli_error(put->cli, put->dest, -ENOTDIR, NULL);
	return inl_put_place(put, item, entry->dir, entry->name, entry->len);
}

/* DEST itself where the content goes into it or an import is to be finished, else the name in it. */
static int find_dest(struct inl_put *put, const struct inl_target *target, bool into, struct inl_entry *entry)
{
	struct inl_inode *dir = NULL;
	struct inl_stat there = { 0 };
	bool content = inl_path_is_content(put->source);
	int code = inl_entry_find(put->cli, target, entry);

	if (code)
		return code;
	if (entry->inode && !inl_path(put->cli->vol, target->path, true, NULL, &dir) &&
	    !inl_inode_stat(dir, &there, NULL) && S_ISDIR(there.mode)) {
		if (content || (has_mark(put, dir) && !into)) {
			put->marked = content ? 0 : there.ino;
			inl_entry_done(entry);
			entry->inode = dir;
			name_dest(put, target->arg, entry, false);
			return 0;
		}
		inl_inode_put(dir);
		code = inl_entry_enter(put->cli, target, put->source, entry);
		name_dest(put, target->arg, entry, true);
		return code;
	}
	inl_inode_put(dir);
	name_dest(put, target->arg, entry, false);
	return into ? inl_cli_error(put->cli, target->arg, entry->inode ? -ENOTDIR : -ENOENT, NULL) : 0;
}

/* into: DEST has to be a directory. */
static int put_one(struct inl_put *put, const char *source, const struct inl_target *target, bool into)
{
	bool follow = inl_path_is_content(source) || (*source && source[strlen(source) - 1] == '/');
	const struct inl_put_item item = { AT_FDCWD, source, follow, DT_UNKNOWN };
	struct inl_entry entry = { 0 };
	struct stat st;
	int code;

	put->source = source;
	put->marked = 0;
	put->diag = (struct inl_diag){ 0 };
	if (fstatat(AT_FDCWD, source, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return inl_put_trouble(put, inl_put_failed(put, INL_SOURCE, -errno));
	free(put->dest);
	put->dest = NULL;
	code = find_dest(put, target, into, &entry);
	if (!code)
		code = put_found(put, &item, &entry, &st);
	inl_entry_done(&entry);
	inl_put_path_cut(put, 0);
	return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int prepare(struct inl_put *put, const char *image)
{
	struct inl_volume_info info = { 0 };
	int code = inl_cli_open(put->cli, image);

	if (code)
		return code;
	inl_volume_info(put->cli->vol, &info);
	put->seconds_only = info.inode_size < 256;
	put->buf = inl_cli_new_buf(BUF_ALL);
	if (!put->buf)
		return inl_cli_error(put->cli, NULL, -ENOMEM, NULL);
	put->names = (char *)put->buf + INL_PUT_BUF_LEN;
	put->value = put->names + INL_PUT_XATTR_LEN;
	inl_images_note(&put->images, put->cli->dev);
	put->keep_going = put->cli->given[INL_OPT_KEEP_GOING];
	inl_report_start(&put->report, put->cli, "imported");
	return 0;
}

/* What was put is on the medium when the command says that it is. */
static int finish(struct inl_put *put, const char *arg, int code)
{
	struct inl_diag diag = { 0 };
	int err = inl_sync(put->cli->vol, &diag);

	inl_report_erase(&put->report);
	put->report.dest = arg;
	if (err && !code)
		code = inl_cli_error(put->cli, arg, err, &diag);
	if (!code && !put->report.n_lines)
		unmark(put);
	inl_report_end(&put->report);
	if (code == INL_EXIT_INTERRUPTED && !put->plan)
		return inl_cli_fail(put->cli, code, NULL, "interrupted; run the same command again to go on");
	if (code)
		return code;
	return put->report.n_lines ? INL_EXIT_INCOMPLETE : 0;
}

static void done(struct inl_put *put)
{
	inl_cli_free_buf(put->buf, BUF_ALL);
	inl_cli_free_buf(put->second, INL_PUT_BUF_LEN);
	inl_report_done(&put->report);
	inl_twins_done(&put->links);
	free(put->frames);
	free(put->path);
	free(put->dest);
}

int inl_put_run(struct inl_cli *cli, struct inl_plan *plan, int n_sources, char **sources,
		const struct inl_target *target)
{
	static struct inl_put put;
	int code;

	put.cli = cli;
	put.plan = plan;
	code = prepare(&put, target->image);
	if (!code) {
		for (int i = 0; i < n_sources && !code; i++)
			code = put_one(&put, sources[i], target, n_sources > 1);
		code = finish(&put, target->arg, code);
	}
	done(&put);
	return code;
}

int inl_cli_put(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_target target;
	int code = inl_target_init(cli, args[n_args - 1], &target);

	inl_cli_will_write(cli);
	if (!code)
		code = inl_put_run(cli, NULL, n_args - 1, args, &target);
	inl_target_done(&target);
	return code;
}
