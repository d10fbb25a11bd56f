/*
 * cli/build.c: `inlay build`: a finished volume of a directory, in one step.
 * Not here: which directories are encrypted, and how all comes out the same (cli/plan.c); the import (cli/put.c).
 * Read more: doc/inlay.1, "BUILDING"; reproducible-builds.org, "SOURCE_DATE_EPOCH".
 */
#include "cli/build.h"
#include "cli/mkfs.h"
#include "cli/plan.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALLEST 1024 /* bytes: less is no volume, and no device that could be in use */
#define PART ".inlay-building" /* behind the name of an image that is not complete */

struct build {
	struct inl_cli *cli;
	const char *source, *image;
	char *real; /* what image leads to, if that is there */
	char *part; /* where it is built; the image itself where that is a device */
	bool device;
	struct stat old; /* of what is there; st_mode 0: nothing */
	struct inl_plan plan;
	struct inl_mkfs mkfs;
	char uuid[37], hash_seed[37];
};

/* ---- what is asked for ------------------------------------------------------------------------------------------- */

static int read_epoch(struct build *build)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	uint64_t seconds;

	if (!text || !*text)
		return build->plan.seed ? inl_cli_fail(build->cli, INL_EXIT_USAGE, "--seed",
						       "SOURCE_DATE_EPOCH has to be in the environment: "
						       "seconds since 1970, the time of all that has none") :
					  0;
	if (inl_number_parse(text, strlen(text), &seconds) || seconds > UINT32_MAX)
		return inl_cli_fail(build->cli, INL_EXIT_USAGE, "SOURCE_DATE_EPOCH", "'%s': expected seconds since 1970",
				    text);
	build->plan.fixed_time = true;
	build->plan.now.sec = (int64_t)seconds;
	return 0;
}

static void to_uuid(const uint8_t sum[32], char uuid[37])
{
	size_t at = 0;

	for (unsigned i = 0; i < 16; i++) {
		/* Version 8 of RFC 9562: made by a rule of one's own. */
		uint8_t byte = i == 6 ? (uint8_t)(0x80 | (sum[i] & 0x0f)) : i == 8 ? (uint8_t)(0x80 | (sum[i] & 0x3f)) : sum[i];

		at += (size_t)snprintf(uuid + at, 37 - at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", byte);
	}
}

/* What mke2fs would draw at random. */
static int seed_mkfs(struct build *build)
{
	uint8_t sum[32];
	char seconds[24];
	int err;

	if (!build->plan.seed)
		return 0;
	err = inl_plan_seed(&build->plan, "uuid", sum);
	to_uuid(sum, build->uuid);
	if (!err)
		err = inl_plan_seed(&build->plan, "hash seed", sum);
	to_uuid(sum, build->hash_seed);
	if (err)
		return inl_cli_error(build->cli, NULL, err, NULL);
	if (!build->mkfs.uuid)
		build->mkfs.uuid = build->uuid;
	build->mkfs.hash_seed = build->hash_seed;
	/* e2fsprogs 1.47.1 knows SOURCE_DATE_EPOCH, older ones the other; to both 0 is no time. */
	snprintf(seconds, sizeof(seconds), "%jd", (intmax_t)(build->plan.now.sec ? build->plan.now.sec : 1));
	if (setenv("E2FSPROGS_FAKE_TIME", seconds, 1) || setenv("SOURCE_DATE_EPOCH", seconds, 1))
		return inl_cli_error(build->cli, NULL, -errno, NULL);
	return 0;
}

/* Their keys follow from the UUID alone, and their IVs from numbers that another image has too. */
static int check_uuid(struct build *build)
{
	const char *uuid = build->cli->values[INL_OPT_UUID];

	for (size_t i = 0; uuid && strcmp(uuid, "random") && i < build->plan.n; i++) {
		const struct inl_policy *policy = &build->plan.dirs[i].policy;

		if (policy->flags & (INL_POLICY_FLAG_IV_INO_LBLK_64 | INL_POLICY_FLAG_IV_INO_LBLK_32))
			return inl_cli_fail(build->cli, INL_EXIT_USAGE, "--uuid",
					    "with %s (line %u): another image with this UUID would be encrypted alike, with the same "
					    "keys and IVs", inl_policy_iv_method(policy), build->plan.dirs[i].line);
	}
	return 0;
}

static int parse(struct build *build)
{
	struct inl_cli *cli = build->cli;
	const char *file = cli->values[INL_OPT_POLICY];
	int code;

	build->plan.seed = cli->values[INL_OPT_SEED_TEXT];
	code = read_epoch(build);
	if (!code)
		code = inl_mkfs_parse(cli, &build->mkfs);
	if (!code)
		code = seed_mkfs(build);
	if (!code)
		code = inl_cli_ciphers(cli, false);
	if (!code)
		code = inl_cli_load_keys(cli);
	if (!code && file)
		code = inl_plan_read(cli, file, &build->plan);
	return code ? code : check_uuid(build);
}

/* ---- before anything is made ------------------------------------------------------------------------------------- */

/* Is it a directory, and are all above it? Links are not followed by the import either. */
static int check_dir(struct build *build, const char *path)
{
	int fd = open(build->source, O_PATH | O_DIRECTORY | O_CLOEXEC), err = fd < 0 ? -errno : 0;
	char *copy = inl_cli_strdup(path, strlen(path)), *rest = NULL;
	int code = 0;

	for (char *name = strtok_r(copy, "/", &rest); !err && name; name = strtok_r(NULL, "/", &rest)) {
		int next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		err = next < 0 ? -errno : 0;
		close(fd);
		fd = next;
	}
	if (fd >= 0)
		close(fd);
	free(copy);
	if (err) {
		char *where = inl_cli_join(build->source, path, strlen(path));

		code = inl_cli_error(build->cli, where, err, NULL);
		free(where);
	}
	return code;
}

static int check_source(struct build *build)
{
	struct stat st;

	if (stat(build->source, &st))
		return inl_cli_error(build->cli, build->source, -errno, NULL);
	if (!S_ISDIR(st.st_mode))
		return inl_cli_error(build->cli, build->source, -ENOTDIR, NULL);
	for (size_t i = 0; i < build->plan.n; i++) {
		int code = check_dir(build, build->plan.dirs[i].path);

		if (code)
			return code;
	}
	return 0;
}

/* What is there and will be replaced must not be in use. */
static int check_unused(struct build *build, const char *path, const struct stat *st)
{
	return st->st_size >= SMALLEST ? inl_mkfs_check_unused(build->cli, path) : 0;
}

/* An image that is there: --force replaces what a link leads to, with the mode that it has. */
static int look_at_image(struct build *build)
{
	struct inl_cli *cli = build->cli;
	char *real;

	if (stat(build->image, &build->old)) {
		build->old.st_mode = 0;
		return errno == ENOENT ? 0 : inl_cli_error(cli, build->image, -errno, NULL);
	}
	build->device = S_ISBLK(build->old.st_mode);
	if (build->device)
		return 0;
	if (!S_ISREG(build->old.st_mode))
		return inl_cli_fail(cli, INL_EXIT_FAILED, build->image, "is neither a file nor a block device");
	if (!cli->given[INL_OPT_FORCE])
		return inl_cli_fail(cli, INL_EXIT_FAILED, build->image, "is there already; --force replaces it");
	real = realpath(build->image, NULL);
	if (!real)
		return inl_cli_error(cli, build->image, -errno, NULL);
	build->real = real;
	build->image = real;
	return check_unused(build, real, &build->old);
}

/* What an earlier run has left behind may go, if it is that, and the run is over. */
static int clear_part(struct build *build)
{
	struct stat st;
	int code;

	if (lstat(build->part, &st))
		return errno == ENOENT ? 0 : inl_cli_error(build->cli, build->part, -errno, NULL);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return inl_cli_fail(build->cli, INL_EXIT_FAILED, build->part, "is in the way");
	code = check_unused(build, build->part, &st);
	if (!code && unlink(build->part))
		code = inl_cli_error(build->cli, build->part, -errno, NULL);
	return code;
}

static int choose_part(struct build *build)
{
	int code = look_at_image(build);

	if (code)
		return code;
	if (asprintf(&build->part, "%s%s", build->image, build->device ? "" : PART) < 0) {
		build->part = NULL;
		return inl_cli_error(build->cli, NULL, -ENOMEM, NULL);
	}
	build->mkfs.fresh = !build->device;
	return build->device ? 0 : clear_part(build);
}

/* Of a device, its own. */
static uint64_t size_of(const struct build *build)
{
	int fd = build->device ? open(build->image, O_RDONLY | O_CLOEXEC) : -1;
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

	if (fd >= 0)
		close(fd);
	return build->device ? (size > 0 ? (uint64_t)size : 0) : build->mkfs.size;
}

static int choose_size(struct build *build)
{
	struct inl_mkfs *mkfs = &build->mkfs;
	struct inl_measure measure = { .whole = build->plan.seed };
	uint64_t block = mkfs->block[0] ? strtoull(mkfs->block, NULL, 10) : 4096;
	int err = inl_measure_tree(build->source, block, &measure);

	if (err)
		return err == -EINTR ? INL_EXIT_INTERRUPTED : inl_cli_error(build->cli, build->source, err, NULL);
	if (!mkfs->size && !build->device)
		mkfs->size = inl_measure_size(&measure);
	mkfs->n_inodes = inl_measure_inodes(&measure);
	/* One for each 16 KiB, as mke2fs does it, if that is more: there will be other files. */
	if (mkfs->n_inodes < size_of(build) / 16384)
		mkfs->n_inodes = 0;
	return 0;
}

/* ---- the volume -------------------------------------------------------------------------------------------------- */

static int fill(struct build *build)
{
	struct inl_cli *cli = build->cli;
	char *source = inl_cli_join(build->source, ".", 1), *arg = NULL;
	struct inl_target target = { .image = build->part, .path = (char *)"/" };
	uint8_t seed[32];
	int err = 0, code;

	if (asprintf(&arg, "%s:/", build->image) < 0)
		arg = NULL;
	target.arg = arg ? arg : build->image;
	inl_cli_will_write(cli);
	code = inl_cli_open(cli, build->part);
	if (!code && build->plan.seed) {
		err = inl_plan_seed(&build->plan, "volume", seed);
		if (!err)
			err = inl_volume_fix(cli->vol, build->plan.now, seed);
		code = err ? inl_cli_error(cli, build->image, err, NULL) : 0;
	}
	if (!code)
		code = inl_put_run(cli, &build->plan, 1, &source, &target);
	if (!code || code == INL_EXIT_INCOMPLETE)
		code = inl_cli_worse(inl_plan_check_done(cli, &build->plan), code);
	free(source);
	free(arg);
	return code;
}

/* The name too is on the medium when the command says so. */
static int sync_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? inl_cli_strdup(path, (size_t)(slash - path) + 1) : inl_cli_strdup(".", 1);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0 || fsync(fd))
		err = -errno;
	if (fd >= 0)
		close(fd);
	free(dir);
	return err;
}

/* The new file is like the one that it replaces, as far as this user may decide. */
static int keep_owner(const struct build *build)
{
	if (chown(build->part, build->old.st_uid, build->old.st_gid) && errno != EPERM)
		return -errno;
	return chmod(build->part, build->old.st_mode & 07777) ? -errno : 0;
}

static bool is_made(int code)
{
	return !code || code == INL_EXIT_INCOMPLETE;
}

/* The new image takes its place; somebody may have begun to use the old one. */
static int put_in_place(struct build *build)
{
	bool replaces = S_ISREG(build->old.st_mode);
	int err, code = replaces ? check_unused(build, build->image, &build->old) : 0;

	if (code)
		return code;
	err = replaces ? keep_owner(build) : 0;
	if (!err && rename(build->part, build->image))
		err = -errno;
	return err ? inl_cli_error(build->cli, build->image, err, NULL) : 0;
}

/* Nothing is there, or all of it. */
static int settle(struct build *build, int code)
{
	int placed, err, closed = inl_cli_close(build->cli);

	if (is_made(code) && closed)
		code = closed;
	if (build->device)
		return code;
	placed = is_made(code) ? put_in_place(build) : code;
	if (placed) {
		unlink(build->part);
		return placed;
	}
	err = sync_name(build->image);
	return err ? inl_cli_error(build->cli, build->image, err, NULL) : code;
}

int inl_cli_build(struct inl_cli *cli, int n_args, char **args)
{
	struct build build = { .cli = cli, .source = args[0], .image = args[1] };
	int code = parse(&build);

	inl_cli_catch_signals(false);
	cli->building = true;
	if (!code)
		code = check_source(&build);
	if (!code)
		code = choose_part(&build);
	if (!code)
		code = choose_size(&build);
	if (!code) {
		build.mkfs.image = build.part;
		code = inl_mkfs_make(cli, &build.mkfs);
		if (!code)
			code = settle(&build, fill(&build));
	}
	if (code == INL_EXIT_INTERRUPTED)
		inl_cli_fail(cli, code, NULL, "interrupted: %s",
			     build.device ? "the device is not complete" : "nothing was made");
	inl_plan_done(&build.plan);
	free(build.part);
	free(build.real);
	return code;
}
