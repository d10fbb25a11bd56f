/*
 * cli/open.c: IMAGE[:PATH], the volume behind it, and its end.
 * Not here: what a SPEC means (the library); keys (cli/keys.c).
 * Read more: doc/inlay.1, "IMAGES AND PATHS".
 */
#include "cli/secret.h"
#include "cli/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- IMAGE[:PATH] ------------------------------------------------------------------------------------------------ */

/* Length of IMAGE in arg: up to the colon that ends it, or all of it. */
size_t inl_cli_image_len(const char *arg)
{
	size_t first = 0;
	unsigned depth = 0;
	bool quoted = false, found = false;

	if (!access(arg, F_OK))
		return strlen(arg);
	for (size_t i = 0; arg[i]; i++) {
		if (quoted && arg[i] == '\\' && arg[i + 1]) {
			i++;
		} else if (arg[i] == '"') {
			quoted = !quoted;
		} else if (quoted) {
			continue;
		} else if (arg[i] == '(') {
			depth++;
		} else if (arg[i] == ')') {
			depth -= depth > 0;
		} else if (arg[i] == ':' && !depth) {
			if (arg[i + 1] == '/' || !arg[i + 1])
				return i;
			if (!found)
				first = i;
			found = true;
		}
	}
	return found ? first : strlen(arg);
}

int inl_target_init(struct inl_cli *cli, const char *arg, struct inl_target *target)
{
	size_t len = inl_cli_image_len(arg);
	const char *path = arg[len] ? arg + len + 1 : "";

	target->arg = arg;
	target->image = inl_cli_strdup(arg, len);
	target->path = *path ? inl_cli_strdup(path, strlen(path)) : inl_cli_strdup("/", 1);
	if (!len)
		return inl_cli_fail(cli, INL_EXIT_USAGE, arg, "no image is named");
	return 0;
}

void inl_target_done(struct inl_target *target)
{
	free(target->image);
	free(target->path);
}

const char *inl_path_last(const char *path, size_t *len)
{
	size_t end = strlen(path), start;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/';)
		start--;
	*len = end - start;
	return path + start;
}

bool inl_path_is_content(const char *path)
{
	size_t len;
	const char *last = inl_path_last(path, &len);

	return !len || !strcmp(last, "/") || (len == 1 && last[0] == '.') || (len == 2 && !strncmp(last, "..", 2));
}

char *inl_cli_where(const struct inl_cli *cli, const char *path, size_t len)
{
	size_t image = strlen(cli->image);
	char *where = inl_cli_alloc(image + len + 2);

	memcpy(where, cli->image, image);
	where[image] = ':';
	memcpy(where + image + 1, path, len);
	return where;
}

/* ---- open, close ------------------------------------------------------------------------------------------------- */

/* The volume alone: the keys stay. Returns an exit code: what was written may not have arrived. */
static int close_volume(struct inl_cli *cli)
{
	int code = 0, err = inl_volume_close(cli->vol);

	cli->vol = NULL;
	if (err)
		code = inl_cli_fail(cli, INL_EXIT_FAILED, cli->image, "not all that was changed is on the medium: %s",
				    inl_cli_why(err));
	if (cli->dev && cli->given[INL_OPT_COUNTERS]) {
		fflush(stdout);
		inl_cli_counters(stderr, cli->dev);
	}
	inl_dev_close(cli->dev);
	cli->dev = NULL;
	free(cli->image);
	cli->image = NULL;
	return code;
}

int inl_cli_open_device(struct inl_cli *cli, const char *spec, unsigned flags, int not_a_device)
{
	struct inl_diag diag = { 0 };
	int code, err = inl_dev_open(spec, flags, &diag, &cli->dev);

	cli->open_err = err;
	if (!err) {
		err = inl_dev_set_ciphers(cli->dev, cli->ciphers);
		return err ? inl_cli_error(cli, spec, err, NULL) : 0;
	}
	cli->dev = NULL;
	code = inl_cli_error(cli, spec, err, &diag);
	if (err != -EINVAL)
		return code;
	return strchr(spec, '(') ? INL_EXIT_USAGE : not_a_device; /* a bare path is always a SPEC */
}

static int volume_error(struct inl_cli *cli, const char *image, int err, const struct inl_diag *diag)
{
	int code = inl_cli_error(cli, image, err, diag);

	return err == -EINVAL || err == -EUCLEAN || err == -EOPNOTSUPP ? INL_EXIT_VOLUME : code;
}

/* Are they one image? A stack of devices is compared by what it is called. */
static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	if (!strcmp(a, b))
		return true;
	return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int inl_cli_same_image(struct inl_cli *cli, const char *arg)
{
	struct inl_target target;
	int code = inl_target_init(cli, arg, &target);

	if (!code && !is_same(cli->image, target.image))
		code = inl_cli_fail(cli, INL_EXIT_USAGE, arg,
				    "is not in the same image as %s; get and put copy between images", cli->image);
	inl_target_done(&target);
	return code;
}

/* What somebody who writes should know. */
static void warn(const struct inl_cli *cli)
{
	struct inl_volume_info info = { 0 };

	inl_volume_info(cli->vol, &info);
	if (!info.has_journal && !cli->building)
		inl_cli_fail(cli, 0, cli->image, "warning: no journal: a crash now may damage the volume");
}

int inl_cli_open(struct inl_cli *cli, const char *image)
{
	bool write = cli->flags & INL_VOLUME_WRITE;
	struct inl_diag diag = { 0 };
	int err, code;

	if (cli->vol && is_same(cli->image, image))
		return 0;
	code = close_volume(cli);
	code = code ? code : inl_cli_ciphers(cli, false);
	code = code ? code : inl_cli_load_keys(cli);
	code = code ? code : inl_cli_open_device(cli, image, write ? INL_OPEN_WRITE : 0, INL_EXIT_VOLUME);
	if (code)
		return code;
	cli->image = inl_cli_strdup(image, strlen(image));
	err = inl_volume_open(cli->dev, cli->keys, cli->flags, &diag, &cli->vol);
	cli->open_err = err;
	if (err) {
		code = volume_error(cli, image, err, &diag);
		close_volume(cli);
		return code;
	}
	if (write)
		warn(cli);
	return inl_cli_wants_protectors(cli) && !cli->making ? inl_cli_load_protected(cli) : 0;
}

int inl_cli_find(struct inl_cli *cli, const struct inl_target *target, bool follow, struct inl_inode **inode)
{
	struct inl_diag diag = { 0 };
	int err, code = inl_cli_open(cli, target->image);
	char *where;

	if (code)
		return code;
	err = inl_path(cli->vol, target->path, follow, &diag, inode);
	if (!err)
		return 0;
	*inode = NULL;
	where = inl_cli_where(cli, target->path, strlen(target->path));
	code = inl_cli_error(cli, where, err, &diag);
	free(where);
	return code;
}

int inl_cli_close(struct inl_cli *cli)
{
	int code = close_volume(cli);

	inl_keyring_free(cli->keys);
	cli->keys = NULL;
	return code;
}

/* ---- the files of a stack ---------------------------------------------------------------------------------------- */

void inl_images_note(struct inl_images *images, const struct inl_dev *dev)
{
	struct stat st;

	if (!strcmp(inl_dev_driver(dev), "file") && images->n < INL_IMAGES_MAX && !stat(inl_dev_label(dev), &st))
		images->files[images->n++] = (struct inl_image){ st.st_dev, st.st_ino };
	for (unsigned i = 0; inl_dev_child(dev, i); i++)
		inl_images_note(images, inl_dev_child(dev, i));
}

bool inl_images_has(const struct inl_images *images, const struct stat *st)
{
	for (unsigned i = 0; i < images->n; i++) {
		if (images->files[i].dev == st->st_dev && images->files[i].ino == st->st_ino)
			return true;
	}
	return false;
}

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

int inl_seen_init(struct inl_seen *seen, const struct inl_volume *vol)
{
	struct inl_volume_info info = { 0 };

	inl_volume_info(vol, &info);
	seen->n_inodes = info.n_inodes;
	seen->bits = mmap(NULL, info.n_inodes / 8 + 1, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (seen->bits == MAP_FAILED) {
		seen->bits = NULL;
		return -ENOMEM;
	}
	return 0;
}

void inl_seen_done(struct inl_seen *seen)
{
	if (seen->bits)
		munmap(seen->bits, seen->n_inodes / 8 + 1);
	seen->bits = NULL;
}

bool inl_seen_before(struct inl_seen *seen, uint64_t ino)
{
	uint8_t bit = (uint8_t)(1 << (ino & 7));
	bool before;

	if (ino > seen->n_inodes)
		return true;
	before = seen->bits[ino / 8] & bit;
	seen->bits[ino / 8] |= bit;
	return before;
}
