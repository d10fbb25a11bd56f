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

#define PART ".inlay-building" /* behind the name of an image that is not complete */

struct build {
	struct inl_cli *cli;
	const char *source, *image;
	char *part; /* where it is built; the image itself where that is a device */
	bool device;
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
	/* e2fsprogs 1.47.1 knows SOURCE_DATE_EPOCH; older ones this. */
	snprintf(seconds, sizeof(seconds), "%jd", (intmax_t)build->plan.now.sec);
	return setenv("E2FSPROGS_FAKE_TIME", seconds, 1) ? inl_cli_error(build->cli, NULL, -errno, NULL) : 0;
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
	return code || !file ? code : inl_plan_read(cli, file, &build->plan);
}

/* ---- before anything is made ------------------------------------------------------------------------------------- */

static int check_source(struct build *build)
{
	struct stat st;

	if (stat(build->source, &st))
		return inl_cli_error(build->cli, build->source, -errno, NULL);
	if (!S_ISDIR(st.st_mode))
		return inl_cli_error(build->cli, build->source, -ENOTDIR, NULL);
	for (size_t i = 0; i < build->plan.n; i++) {
		const struct inl_plan_dir *dir = &build->plan.dirs[i];
		char *path = inl_cli_join(build->source, dir->path, strlen(dir->path));
		int code = lstat(path, &st) ? inl_cli_error(build->cli, path, -errno, NULL) :
			   !S_ISDIR(st.st_mode) ? inl_cli_error(build->cli, path, -ENOTDIR, NULL) : 0;

		free(path);
		if (code)
			return code;
	}
	return 0;
}

static int choose_part(struct build *build)
{
	struct inl_cli *cli = build->cli;
	struct stat st;

	if (stat(build->image, &st)) {
		if (errno != ENOENT)
			return inl_cli_error(cli, build->image, -errno, NULL);
	} else if (S_ISBLK(st.st_mode)) {
		build->device = true;
	} else if (!S_ISREG(st.st_mode)) {
		return inl_cli_fail(cli, INL_EXIT_FAILED, build->image, "is neither a file nor a block device");
	} else if (!cli->given[INL_OPT_FORCE]) {
		return inl_cli_fail(cli, INL_EXIT_FAILED, build->image, "is there already; --force replaces it");
	}
	if (asprintf(&build->part, "%s%s", build->image, build->device ? "" : PART) < 0) {
		build->part = NULL;
		return inl_cli_error(cli, NULL, -ENOMEM, NULL);
	}
	return 0;
}

static int choose_size(struct build *build)
{
	struct inl_mkfs *mkfs = &build->mkfs;
	struct inl_measure measure = { 0 };
	uint64_t block = mkfs->block[0] ? strtoull(mkfs->block, NULL, 10) : 4096;
	int err = inl_measure_tree(build->source, block, &measure);

	if (err)
		return err == -EINTR ? INL_EXIT_INTERRUPTED : inl_cli_error(build->cli, build->source, err, NULL);
	if (!mkfs->size && !build->device)
		mkfs->size = inl_measure_size(&measure);
	mkfs->n_inodes = inl_measure_inodes(&measure);
	/* One for each 16 KiB, as mke2fs does it, if that is more: there will be other files. */
	if (mkfs->n_inodes < mkfs->size / 16384)
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

/* Nothing is there, or all of it. */
static int settle(struct build *build, int code)
{
	int closed = inl_cli_close(build->cli), err = 0;

	if (build->device)
		return code ? code : closed;
	if (!code || code == INL_EXIT_INCOMPLETE)
		code = closed ? closed : code;
	if (code && code != INL_EXIT_INCOMPLETE) {
		unlink(build->part);
		return code;
	}
	if (rename(build->part, build->image))
		err = -errno;
	else
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
		/* What an earlier run has left there may go, unless it is still running. */
		cli->given[INL_OPT_FORCE] |= !build.device;
		code = inl_mkfs_make(cli, &build.mkfs);
		if (!code)
			code = settle(&build, fill(&build));
	}
	if (code == INL_EXIT_INTERRUPTED)
		inl_cli_fail(cli, code, NULL, "interrupted: %s",
			     build.device ? "the device is not complete" : "nothing was made");
	inl_plan_done(&build.plan);
	free(build.part);
	return code;
}
