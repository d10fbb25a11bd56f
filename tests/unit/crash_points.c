/*
 * tests/unit/crash_points.c: records a workload, makes images of crashes, has them replayed, and judges what is in
 * them.
 * Not here: what can be seen in an image (crash_walk.c), how images are made (crash_rec.c).
 * Read more: crash_points.h; e2fsck(8).
 */
#include "crash_points.h"
#include "base/crc.h"
#include "ext4/own.h"
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
/* test_crash.c: faults in the code while it works, and what only seldom happens. */
extern atomic_bool cr_early_reuse, cr_plain_writes;
extern atomic_uint cr_eager;

/* ---- files and programs ------------------------------------------------------------------------------------------ */

static bool can_mount(const struct cr_place *place)
{
	static const struct cr_config config = { .mkfs = "", .size = 8u << 20 };
	char path[128], command[512], text[CR_TEXT];
	char *argv[] = { "sh", "-c", command, NULL };
	uint8_t *bytes = cr_image_map(place, "probe", config.size, path);

	if (geteuid())
		return false;
	munmap(bytes, config.size);
	cr_mkfs(&config, path);
	snprintf(command, sizeof(command), "mkdir -p %s/mnt && mount -t ext4 -o loop %s %s/mnt && umount %s/mnt",
		 place->dir, path, place->dir, place->dir);
	return cr_spawn(argv, text) == 0 && !unlink(path);
}

void cr_place_init(struct cr_place *place)
{
	snprintf(place->dir, sizeof(place->dir), "%s/inlay-crash-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(place->dir))
		abort();
	place->kernel = can_mount(place);
}

void cr_place_done(struct cr_place *place)
{
	char *argv[] = { "rm", "-rf", "--", place->dir, NULL };
	char text[CR_TEXT];

	cr_spawn(argv, text);
}

uint8_t *cr_image_map(const struct cr_place *place, const char *name, uint64_t size, char path[128])
{
	uint8_t *bytes;
	int fd;

	snprintf(path, 128, "%s/%s", place->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size))
		abort();
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (bytes == MAP_FAILED)
		abort();
	return bytes;
}

/* The end of what was written to a pipe. */
static void read_tail(int fd, char text[CR_TEXT])
{
	char piece[512];
	size_t len = 0;
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		if (len + (size_t)n > CR_TEXT - 1) {
			size_t drop = len + (size_t)n - (CR_TEXT - 1);

			memmove(text, text + drop, len - drop);
			len -= drop;
		}
		memcpy(text + len, piece, (size_t)n);
		len += (size_t)n;
	}
	text[len] = 0;
}

int cr_spawn(char *const argv[], char text[CR_TEXT])
{
	posix_spawn_file_actions_t actions;
	int pipes[2], status = -1, err;
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC))
		abort();
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
	err = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	read_tail(pipes[0], text);
	close(pipes[0]);
	if (err || waitpid(child, &status, 0) != child)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int cr_fsck(const char *mode, const char *path, char text[CR_TEXT])
{
	char *argv[] = { "e2fsck", (char *)mode, (char *)path, NULL };

	return cr_spawn(argv, text);
}

void cr_mkfs(const struct cr_config *config, const char *path)
{
	char command[512], text[CR_TEXT];
	char *argv[] = { "sh", "-c", command, NULL };

	/* The same volume every time, but for its times. */
	snprintf(command, sizeof(command), "mke2fs -q -F -t ext4 -U 6c1d1b1e-3a1f-4f6b-9d5c-0a2b4c6d8e0f "
		 "-E hash_seed=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 %s %s", config->mkfs, path);
	if (cr_spawn(argv, text)) {
		fprintf(stderr, "# %s: %s\n", command, text);
		abort();
	}
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bool note(char text[CR_TEXT], const char *what, int err, const struct inl_diag *diag)
{
	snprintf(text, CR_TEXT, "%s: %d (%.500s)", what, err, diag ? diag->text : "");
	return false;
}

static const char *root_of(const struct cr_config *config, unsigned i)
{
	return i ? "other" : config->root ? config->root : "one";
}

static void prepare_actor(const struct cr_config *config, unsigned i, struct cr_rec *rec, struct inl_volume *vol,
			  uint64_t seed, struct cr_actor *actor)
{
	bool secret = config->crypt && i == 0;

	cr_actor_init(actor, rec, root_of(config, i), secret ? CR_SECRET : i ? CR_ID_OTHER : 0x1000, seed * 2 + i);
	if (secret)
		cr_policy(config->crypt, &actor->model.policy);
	actor->model.secret = secret;
	actor->unwritten = config->unwritten;
	actor->max_bytes = (uint64_t)config->max_kib << 10;
	cr_actor_setup(actor, vol, config->n_names);
}

void cr_prepare(const struct cr_config *config, struct inl_keyring *keys, uint64_t seed, uint8_t *bytes,
		struct cr_actor *actors, char text[CR_TEXT])
{
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct cr_rec *rec = cr_rec_new(bytes, config->size, false, seed, &dev);
	int err = inl_volume_open(dev, keys, INL_VOLUME_WRITE, &diag, &vol), made;

	text[0] = 0;
	if (err)
		note(text, "open for writing", err, &diag);
	for (unsigned i = 0; !err && i < config->n_actors; i++) {
		prepare_actor(config, i, rec, vol, seed, &actors[i]);
		if (actors[i].error[0])
			snprintf(text, CR_TEXT, "%.1000s", actors[i].error);
	}
	made = !err && config->crypt ? cr_control_make(vol, &diag) : 0;
	if (made && made != -EEXIST)
		note(text, "make a plain file", made, &diag);
	if (!err) {
		for (unsigned i = 0; i < config->n_actors; i++)
			cr_actor_release(&actors[i]);
		err = inl_volume_close(vol);
		if (err)
			note(text, "close", err, NULL);
		for (unsigned i = 0; i < config->n_actors; i++)
			cr_ack(&actors[i].model, 0);
	}
	inl_dev_close(dev);
	cr_rec_free(rec);
}

struct task {
	struct cr_actor *actor;
	unsigned n;
};

static void *run_actor(void *arg)
{
	struct task *task = arg;

	cr_actor_run(task->actor, task->n);
	return NULL;
}

static void run_actors(struct cr_run *run, unsigned n)
{
	struct task tasks[CR_MAX_ACTORS];
	pthread_t threads[CR_MAX_ACTORS];

	for (unsigned i = 0; i < run->config->n_actors; i++) {
		tasks[i] = (struct task){ &run->actors[i], n };
		if (run->config->n_actors == 1)
			run_actor(&tasks[i]);
		else if (pthread_create(&threads[i], NULL, run_actor, &tasks[i]))
			abort();
	}
	for (unsigned i = 0; run->config->n_actors > 1 && i < run->config->n_actors; i++)
		pthread_join(threads[i], NULL);
}

/* From open to close. */
static bool session(struct cr_run *run, struct inl_dev *dev, unsigned n, char text[CR_TEXT])
{
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	int err = inl_volume_open(dev, run->keys, INL_VOLUME_WRITE, &diag, &vol);

	if (err)
		return note(text, "open for writing", err, &diag);
	for (unsigned i = 0; i < run->config->n_actors; i++) {
		run->actors[i].vol = vol;
		run->actors[i].rec = run->rec;
	}
	run_actors(run, n);
	for (unsigned i = 0; i < run->config->n_actors; i++) {
		cr_actor_release(&run->actors[i]);
		if (!text[0] && run->actors[i].error[0] && run->plant == CR_SOUND)
			snprintf(text, CR_TEXT, "%.1000s", run->actors[i].error);
	}
	for (unsigned i = 0; !text[0] && run->plant == CR_SOUND && i < run->config->n_actors; i++) {
		char why[CR_TEXT];

		if (!cr_judge_now(&run->actors[i].model, vol, why))
			snprintf(text, CR_TEXT, "before any crash: %.900s", why);
	}
	err = inl_volume_close(vol);
	if (err && !text[0])
		note(text, "close", err, NULL);
	for (unsigned i = 0; i < run->config->n_actors; i++)
		cr_ack(&run->actors[i].model, cr_rec_now(run->rec));
	return !text[0];
}

static void plant_in_code(enum cr_plant plant, bool eager)
{
	atomic_store(&cr_eager, eager);
	atomic_store(&cr_early_reuse, plant == CR_EARLY_REUSE);
	atomic_store(&cr_plain_writes, plant == CR_PLAIN_WRITES);
}

/* Nothing that was ever on its way to the medium is plaintext of what is encrypted. */
static bool judge_record(const struct cr_run *run, char text[CR_TEXT])
{
	size_t at;

	for (size_t i = 0; i < run->rec->n_events; i++) {
		const struct cr_event *event = &run->rec->events[i];

		if (event->kind != CR_WRITE || !cr_mark_find(event->bytes, event->len, cr_mark, &at))
			continue;
		snprintf(text, CR_TEXT, "plaintext was written at moment %llu, to byte %llu",
			 (unsigned long long)event->start, (unsigned long long)(event->pos + at));
		return false;
	}
	return cr_marks_judge(run->base, run->config->size, text) && cr_marks_judge(run->live, run->config->size, text);
}

bool cr_run_record(struct cr_run *run, unsigned n, char text[CR_TEXT])
{
	uint64_t size = run->config->size;
	struct inl_dev *dev;
	char path[128];
	bool good;

	run->keys = cr_keys_new(run->config->crypt);
	cr_marks_draw(run->seed);
	run->base = cr_image_map(run->place, "base", size, path);
	cr_mkfs(run->config, path);
	run->live = cr_image_map(run->place, "live", size, path);
	text[0] = 0;
	cr_prepare(run->config, run->keys, run->seed, run->base, run->actors, text);
	if (text[0])
		return false;
	memcpy(run->live, run->base, size);
	run->rec = cr_rec_new(run->live, size, run->config->late, run->seed, &dev);
	run->rec->recording = true;
	plant_in_code(run->plant, run->config->eager);
	good = session(run, dev, n - n / 4, text) && session(run, dev, n / 4, text);
	plant_in_code(CR_SOUND, false);
	inl_dev_close(dev);
	if (good && run->rec->unstable) {
		snprintf(text, CR_TEXT, "%llu writes whose bytes were changed under way", (unsigned long long)run->rec->unstable);
		good = false;
	}
	if (good && run->config->crypt && run->plant == CR_SOUND)
		good = judge_record(run, text);
	run->n_planted = cr_plant(run->rec, run->plant);
	if (good && run->plant == CR_SOUND && cr_fsck("-fn", path, text)) /* the live one, closed */
		good = false;
	return good;
}

void cr_run_done(struct cr_run *run)
{
	if (run->base)
		munmap(run->base, run->config->size);
	if (run->live)
		munmap(run->live, run->config->size);
	if (run->rec)
		cr_rec_free(run->rec);
	for (unsigned i = 0; i < run->config->n_actors; i++)
		cr_actor_done(&run->actors[i]);
	inl_keyring_free(run->keys);
}

/* ---- one crash --------------------------------------------------------------------------------------------------- */

struct point {
	unsigned number;
	uint64_t moment;
	enum cr_variant variant;
	enum cr_path path;
	struct cr_dice dice;
};

/* One process that tries points. */
struct worker {
	const struct cr_run *run;
	struct cr_medium medium;
	struct cr_tally *tally; /* shared */
	struct inl_keyring *keys; /* of its own */
	uint8_t *image;
	uint8_t *before; /* what it was before a replay without the key */
	char path[128], mnt[128];
	char text[CR_TEXT];
};

static bool failed(struct worker *worker, const char *step)
{
	char copy[CR_TEXT];

	memcpy(copy, worker->text, sizeof(copy));
	snprintf(worker->text, CR_TEXT, "%s: %.900s", step, copy);
	return false;
}

static bool judge_all(struct worker *worker, struct inl_volume *vol, uint64_t moment)
{
	for (unsigned i = 0; i < worker->run->config->n_actors; i++) {
		if (!cr_judge(&worker->run->actors[i].model, vol, moment, worker->text))
			return false;
	}
	return true;
}

static bool is_locked(const struct worker *worker, const struct inl_keyring *keys)
{
	return worker->run->config->crypt && !keys;
}

static bool judge_locked(struct worker *worker, struct inl_volume *vol, const uint8_t *before)
{
	return cr_locked_judge(vol, root_of(worker->run->config, 0), before, worker->image, worker->text);
}

/* Open for reading, and judge. The medium must stay as it is. */
static bool look(struct worker *worker, struct inl_keyring *keys, uint64_t moment, const char *step)
{
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct cr_rec *rec = cr_rec_new(worker->image, worker->run->config->size, false, 1, &dev);
	int err = inl_volume_open(dev, keys, 0, &diag, &vol);
	bool good;

	if (err) {
		good = note(worker->text, "open", err, &diag);
	} else {
		good = is_locked(worker, keys) ? judge_locked(worker, vol, NULL) : judge_all(worker, vol, moment);
		inl_volume_close(vol);
	}
	if (good && rec->bytes_written)
		good = note(worker->text, "writes of a volume that is only read", 0, NULL);
	inl_dev_close(dev);
	cr_rec_free(rec);
	return good || failed(worker, step);
}

/* Open for writing and close: what replays. Recorded or not. Without the key no data is touched. */
static bool replay(struct worker *worker, struct inl_keyring *keys, struct cr_rec **keep)
{
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct cr_rec *rec = cr_rec_new(worker->image, worker->run->config->size, false, 1, &dev);
	bool good = true;
	int err;

	if (is_locked(worker, keys))
		memcpy(worker->before, worker->image, worker->run->config->size);
	rec->recording = keep;
	err = inl_volume_open(dev, keys, INL_VOLUME_WRITE, &diag, &vol);
	if (!err && is_locked(worker, keys))
		good = judge_locked(worker, vol, worker->before);
	if (err)
		good = note(worker->text, "open for writing", err, &diag);
	else if ((err = inl_volume_close(vol)) != 0)
		good = note(worker->text, "close", err, NULL);
	inl_dev_close(dev);
	if (keep)
		*keep = rec;
	else
		cr_rec_free(rec);
	return good || failed(worker, "replay");
}

static struct inl_keyring *draw_keys(const struct worker *worker, struct cr_dice *dice)
{
	return worker->keys && cr_chance(dice, 50) ? worker->keys : NULL;
}

/* A second crash, in the middle of the replay of the first one; then as if nothing had happened. */
static bool replay_twice(struct worker *worker, struct cr_dice *dice)
{
	uint64_t size = worker->run->config->size;
	uint8_t *base = malloc(size);
	struct cr_medium medium;
	struct cr_rec *rec;

	memcpy(base, worker->image, size);
	if (!replay(worker, draw_keys(worker, dice), &rec)) {
		cr_rec_free(rec);
		free(base);
		return false;
	}
	cr_medium_init(&medium, rec, base);
	cr_medium_image(&medium, cr_below(dice, (uint32_t)rec->now + 1), (enum cr_variant)cr_below(dice, CR_N_VARIANTS), dice,
			worker->image);
	cr_medium_done(&medium);
	cr_rec_free(rec);
	free(base);
	return replay(worker, draw_keys(worker, dice), NULL) || failed(worker, "after a second crash");
}

static bool kernel_replay(struct worker *worker)
{
	char command[512];
	char *argv[] = { "sh", "-c", command, NULL };

	snprintf(command, sizeof(command), "mount -t ext4 -o loop,noatime %s %s && umount %s", worker->path,
		 worker->mnt, worker->mnt);
	return !cr_spawn(argv, worker->text) || failed(worker, "mount by the kernel");
}

static bool fsck_replay(struct worker *worker)
{
	int status = cr_fsck("-fy", worker->path, worker->text);

	return status == 0 || status == 1 || failed(worker, "e2fsck -fy");
}

/* Nothing encrypted is in plain anywhere on the medium. */
static bool search(struct worker *worker)
{
	if (!worker->keys)
		return true;
	__atomic_fetch_add(&worker->tally->n_searched, 1, __ATOMIC_RELAXED);
	return cr_marks_judge(worker->image, worker->run->config->size, worker->text) || failed(worker, "search");
}

/* What is left can be worked with. */
static bool go_on(struct worker *worker, struct cr_dice *dice)
{
	struct cr_config config = *worker->run->config;
	struct cr_actor actor;

	config.n_actors = 1;
	config.n_names = 10;
	config.root = "after";
	cr_prepare(&config, worker->keys, cr_throw(dice), worker->image, &actor, worker->text);
	if (!worker->text[0] && !cr_fsck("-fn", worker->path, worker->text) && search(worker)) {
		cr_actor_done(&actor);
		return true;
	}
	return failed(worker, "going on");
}

static bool bring_back(struct worker *worker, struct point *point)
{
	switch (point->path) {
	case CR_PATH_TWICE:
		return replay_twice(worker, &point->dice);
	case CR_PATH_FSCK:
		return fsck_replay(worker);
	case CR_PATH_KERNEL:
		return kernel_replay(worker);
	case CR_PATH_LOCKED:
		return replay(worker, NULL, NULL);
	default:
		return replay(worker, worker->keys, NULL);
	}
}

/*
 * Then the kernel refuses the volume, and e2fsck does where there is no other copy: nothing that was written
 * differently would help.
 */
static bool is_super_torn(const uint8_t *image)
{
	const uint8_t *sb = image + EXT4_SUPER_OFFSET;

	return (inl_load_le32(sb + 0x64) & EXT4_RO_COMPAT_METADATA_CSUM) &&
	       inl_crc32c(~0u, sb, 0x3fc) != inl_load_le32(sb + 0x3fc);
}

/*
 * e2fsck 1.47, where it shortens a file on the list of orphans, takes the block of its attributes too, and then removes
 * a file that has its context there.
 */
static bool is_context_in_danger(const struct worker *worker)
{
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct cr_rec *rec;
	bool danger = false;

	if (!worker->run->config->crypt || !strstr(worker->run->config->mkfs, "-I 128"))
		return false;
	rec = cr_rec_new(worker->image, worker->run->config->size, false, 1, &dev);
	if (!inl_volume_open(dev, NULL, 0, NULL, &vol)) {
		danger = vol->fs->super->s_last_orphan;
		inl_volume_close(vol);
	}
	inl_dev_close(dev);
	cr_rec_free(rec);
	return danger;
}

/* Open for writing, have something done, close. */
static bool with_volume(struct worker *worker, struct inl_keyring *keys, struct cr_dice *dice)
{
	const char *root = root_of(worker->run->config, 0);
	struct inl_diag diag = { 0 };
	struct inl_volume *vol;
	struct inl_dev *dev;
	struct cr_rec *rec = cr_rec_new(worker->image, worker->run->config->size, false, 1, &dev);
	int err = inl_volume_open(dev, keys, INL_VOLUME_WRITE, &diag, &vol);
	bool good = true;

	if (err) {
		good = note(worker->text, "open for writing", err, &diag);
	} else {
		good = keys ? cr_tails_judge(vol, root, dice, worker->text) : cr_locked_remove(vol, root, worker->text);
		err = inl_volume_close(vol);
		if (err && good)
			good = note(worker->text, "close", err, NULL);
	}
	inl_dev_close(dev);
	cr_rec_free(rec);
	return good && !cr_fsck("-fn", worker->path, worker->text);
}

/* What there is to do with encrypted files, on a volume that has been brought back: with the key, and without. */
static bool try_crypt(struct worker *worker, struct point *point)
{
	struct cr_dice *dice = &point->dice;
	bool tails = cr_chance(dice, point->path == CR_PATH_LOCKED ? 40 : 15), removes = cr_chance(dice, 15);

	if (tails && !with_volume(worker, worker->keys, dice))
		return failed(worker, "behind the ends of files");
	if (removes && !with_volume(worker, NULL, dice))
		return failed(worker, "removing without the key");
	__atomic_fetch_add(&worker->tally->n_tails, tails, __ATOMIC_RELAXED);
	__atomic_fetch_add(&worker->tally->n_removed, removes, __ATOMIC_RELAXED);
	return true;
}

/* Points of encrypted volumes: some are only seen without the key, and then again with it. */
static bool look_early(struct worker *worker, struct point *point)
{
	static const char step[] = "read with the journal in memory";

	if (worker->keys && cr_chance(&point->dice, 50) && !look(worker, NULL, point->moment, step))
		return failed(worker, "without the key");
	return look(worker, worker->keys, point->moment, step);
}

static bool try_point(struct worker *worker, struct point *point)
{
	bool may_look = cr_chance(&point->dice, 30), goes_on = cr_chance(&point->dice, 4);

	cr_medium_image(&worker->medium, point->moment, point->variant, &point->dice, worker->image);
	cr_after_e2fsck = false;
	if (may_look && !look_early(worker, point))
		return false;
	if ((point->path == CR_PATH_FSCK || point->path == CR_PATH_KERNEL) && is_super_torn(worker->image))
		point->path = CR_PATH_INLAY;
	if (point->path == CR_PATH_FSCK && is_context_in_danger(worker))
		point->path = CR_PATH_INLAY;
	if (!bring_back(worker, point) || !search(worker))
		return false;
	cr_after_e2fsck = point->path == CR_PATH_FSCK;
	if (cr_fsck("-fn", worker->path, worker->text))
		return failed(worker, "e2fsck -fn");
	if (!look(worker, worker->keys, point->moment, "read"))
		return false;
	if (worker->keys && !try_crypt(worker, point))
		return false;
	__atomic_fetch_add(&worker->tally->n_looked, may_look, __ATOMIC_RELAXED);
	__atomic_fetch_add(&worker->tally->n_went_on, goes_on, __ATOMIC_RELAXED);
	return !goes_on || worker->run->config->n_names == 0 || go_on(worker, &point->dice);
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

static const char *const path_names[] = { "Inlay", "Inlay, crashing again", "e2fsck", "the kernel",
					  "Inlay without the key" };

static void report(struct worker *worker, const struct point *point)
{
	unsigned n = __atomic_fetch_add(&worker->tally->n_failed, 1, __ATOMIC_RELAXED);

	if (n >= CR_N_REPORTS)
		return;
	snprintf(worker->tally->reports[n], sizeof(worker->tally->reports[n]),
		 "%s seed %llu point %u: moment %llu of %llu, %s, replayed by %s: %s", worker->run->config->name,
		 (unsigned long long)worker->run->seed, point->number, (unsigned long long)point->moment,
		 (unsigned long long)worker->run->rec->now, cr_variant_name(point->variant), path_names[point->path],
		 worker->text);
}

/* The image as the crash left it, for people. */
static void keep_image(struct worker *worker, const struct point *point)
{
	const char *dir = getenv("KEEP_CRASH");
	char path[256];
	FILE *f;

	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/%s-%llu-%u.img", dir, worker->run->config->name, (unsigned long long)worker->run->seed,
		 point->number);
	f = fopen(path, "w");
	if (f && fwrite(worker->image, worker->run->config->size, 1, f) == 1)
		fclose(f);
}

static uint64_t choose_moment(const struct cr_rec *rec, struct cr_dice *dice)
{
	uint64_t moment;
	size_t i;

	if (cr_chance(dice, 50) || !rec->n_events)
		return cr_below(dice, (uint32_t)rec->now + 1);
	i = cr_below(dice, (uint32_t)rec->n_events); /* near a flush: where it matters */
	while (i + 1 < rec->n_events && rec->events[i].kind != CR_FLUSH)
		i++;
	moment = rec->events[i].start + cr_below(dice, 7);
	return moment < 3 ? 0 : CR_MIN(moment - 3, rec->now);
}

static enum cr_path choose_path(const struct cr_run *run, struct cr_dice *dice)
{
	uint32_t draw = cr_below(dice, 100);

	if (draw < 2)
		return run->place->kernel ? CR_PATH_KERNEL : CR_PATH_FSCK;
	if (run->config->crypt && draw >= 75)
		return CR_PATH_LOCKED;
	return draw < 15 ? CR_PATH_FSCK : draw < 30 ? CR_PATH_TWICE : CR_PATH_INLAY;
}

static int compare_points(const void *a, const void *b)
{
	const struct point *x = a, *y = b;

	return x->moment < y->moment ? -1 : x->moment > y->moment;
}

static struct point *choose_points(const struct cr_run *run, unsigned n)
{
	struct point *points = calloc(n, sizeof(points[0]));

	for (unsigned i = 0; i < n; i++) {
		struct cr_dice *dice = &points[i].dice;

		points[i].number = i;
		dice->state = run->seed * 1000003 + i;
		points[i].moment = choose_moment(run->rec, dice);
		points[i].variant = (enum cr_variant)cr_below(dice, CR_N_VARIANTS);
		points[i].path = choose_path(run, dice);
	}
	qsort(points, n, sizeof(points[0]), compare_points);
	return points;
}

static void work(struct worker *worker, struct point *points, unsigned n, unsigned from, unsigned step, unsigned only,
		 bool first)
{
	for (unsigned i = from; i < n; i += step) {
		struct cr_dice dice = points[i].dice;
		bool good;

		if (only != CR_NONE && points[i].number != only)
			continue;
		if (first && __atomic_load_n(&worker->tally->n_failed, __ATOMIC_RELAXED))
			break;
		__atomic_fetch_add(&worker->tally->n_points, 1, __ATOMIC_RELAXED);
		good = try_point(worker, &points[i]);
		__atomic_fetch_add(&worker->tally->n_paths[points[i].path], 1, __ATOMIC_RELAXED);
		if (good)
			continue;
		report(worker, &points[i]);
		points[i].dice = dice;
		cr_chance(&dice, 30); /* as try_point did */
		cr_chance(&dice, 4);
		cr_medium_image(&worker->medium, points[i].moment, points[i].variant, &dice, worker->image);
		keep_image(worker, &points[i]);
	}
}

static void worker_process(const struct cr_run *run, struct cr_tally *tally, struct point *points, unsigned n, unsigned from,
			   unsigned step, unsigned only, bool first)
{
	struct worker worker = { .run = run, .tally = tally };
	char name[32];

	if (run->config->crypt)
		cr_secrets_renew();
	snprintf(name, sizeof(name), "image%u", from);
	worker.image = cr_image_map(run->place, name, run->config->size, worker.path);
	snprintf(worker.mnt, sizeof(worker.mnt), "%s/mnt%u", run->place->dir, from);
	mkdir(worker.mnt, 0700);
	cr_medium_init(&worker.medium, run->rec, run->base);
	if (run->config->crypt) {
		worker.keys = cr_keys_new(run->config->crypt);
		worker.before = malloc(run->config->size);
	}
	work(&worker, points, n, from, step, only, first);
	cr_medium_done(&worker.medium);
	inl_keyring_free(worker.keys);
	free(worker.before);
}

/* A process that dies has failed at the point that it was at. */
static void wait_for(pid_t child, struct cr_tally *tally)
{
	int status = -1;
	unsigned n;

	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	n = __atomic_fetch_add(&tally->n_failed, 1, __ATOMIC_RELAXED);
	if (n < CR_N_REPORTS)
		snprintf(tally->reports[n], sizeof(tally->reports[n]), "a process that tried points died: status %x", status);
}

void cr_run_points(struct cr_run *run, unsigned n, unsigned only, unsigned n_jobs, bool first, struct cr_tally *tally)
{
	struct cr_tally *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct point *points = choose_points(run, n);
	pid_t children[64];

	*shared = *tally;
	if (run->config->crypt)
		cr_secrets_note();
	fflush(NULL);
	for (unsigned i = 0; i < n_jobs; i++) {
		children[i] = fork();
		if (children[i] < 0)
			abort();
		if (children[i])
			continue;
		worker_process(run, shared, points, n, i, n_jobs, only, first);
		_exit(0);
	}
	for (unsigned i = 0; i < n_jobs; i++)
		wait_for(children[i], shared);
	*tally = *shared;
	munmap(shared, sizeof(*shared));
	free(points);
}
