/*
 * cli/open.c: IMAGE[:PATH], the volume behind it, and its end.
 * Not here: what a SPEC means (the library); keys (cli/keys.c).
 * Read more: doc/inlay.1, "IMAGES AND PATHS".
 */
#include "cli/cli.h"
#include "cli/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- IMAGE[:PATH] ------------------------------------------------------------------------------------------------ */

/* Length of IMAGE in arg: up to the colon that ends it, or all of it. */
static size_t image_len(const char *arg)
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
	size_t len = image_len(arg);
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

/* The volume alone: the keys stay. */
static void close_volume(struct inl_cli *cli)
{
	inl_volume_close(cli->vol);
	cli->vol = NULL;
	if (cli->dev && cli->given[INL_OPT_COUNTERS]) {
		fflush(stdout);
		inl_cli_counters(stderr, cli->dev);
	}
	inl_dev_close(cli->dev);
	cli->dev = NULL;
	free(cli->image);
	cli->image = NULL;
}

int inl_cli_open_device(struct inl_cli *cli, const char *spec, unsigned flags, int not_a_device)
{
	struct inl_diag diag = { 0 };
	int code, err = inl_dev_open(spec, flags, &diag, &cli->dev);

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

int inl_cli_open(struct inl_cli *cli, const char *image)
{
	struct inl_diag diag = { 0 };
	int err, code;

	if (cli->vol && !strcmp(cli->image, image))
		return 0;
	close_volume(cli);
	code = inl_cli_ciphers(cli, false);
	code = code ? code : inl_cli_load_keys(cli);
	code = code ? code : inl_cli_open_device(cli, image, 0, INL_EXIT_VOLUME);
	if (code)
		return code;
	cli->image = inl_cli_strdup(image, strlen(image));
	err = inl_volume_open(cli->dev, cli->keys, cli->flags, &diag, &cli->vol);
	if (err) {
		code = volume_error(cli, image, err, &diag);
		close_volume(cli);
	}
	return code;
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

void inl_cli_close(struct inl_cli *cli)
{
	close_volume(cli);
	inl_keyring_free(cli->keys);
	cli->keys = NULL;
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
