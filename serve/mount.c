/*
 * serve/mount.c: a mount from begin to end: mounting, the threads that serve, unmounting.
 * Not here: requests (names.c, attr.c, file.c, dir.c, control.c); signals (the caller).
 * Read more: inlay/mount.h.
 */
#include "serve/serve.h"
#include "serve/where.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define COMMIT_SECONDS 5
#define END_SECONDS    3    /* from an unmount to the end of the session, if nothing else keeps it */
#define READ_AHEAD_KB  4096 /* several requests: they are served beside each other */
#define N_BACKGROUND   64

struct inl_mount *inl_mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- the session ------------------------------------------------------------------------------------------------- */

static void serve_init(void *userdata, struct fuse_conn_info *conn)
{
	struct inl_mount *mount = userdata;
	/* Not ATOMIC_O_TRUNC: truncating on its own comes with its time. */
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_DONT_MASK | FUSE_CAP_IOCTL_DIR | FUSE_CAP_READDIRPLUS |
			FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL |
			FUSE_CAP_EXPLICIT_INVAL_DATA;

	/* A target that the kernel has kept is read without asking: it cannot be taken away from whoever holds the link. */
	if (!mount->keys.supported)
		want |= FUSE_CAP_CACHE_SYMLINKS;
	if (mount->writeback)
		want |= FUSE_CAP_WRITEBACK_CACHE;
	conn->want = conn->capable & want;
	mount->writeback = conn->want & FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = INL_REQUEST_MAX;
	conn->max_read = 0;
	conn->max_readahead = READ_AHEAD_KB << 10;
	conn->max_background = N_BACKGROUND;
	conn->time_gran = 1;
}

static const struct fuse_lowlevel_ops serve_ops = {
	.init = serve_init,
	.lookup = inl_serve_lookup,
	.forget = inl_serve_forget,
	.forget_multi = inl_serve_forget_multi,
	.getattr = inl_serve_getattr,
	.setattr = inl_serve_setattr,
	.readlink = inl_serve_readlink,
	.mknod = inl_serve_mknod,
	.mkdir = inl_serve_mkdir,
	.unlink = inl_serve_unlink,
	.rmdir = inl_serve_rmdir,
	.symlink = inl_serve_symlink,
	.rename = inl_serve_rename,
	.link = inl_serve_link,
	.open = inl_serve_open,
	.create = inl_serve_create,
	.read = inl_serve_read,
	.write = inl_serve_write,
	.release = inl_serve_release,
	.fsync = inl_serve_fsync,
	.opendir = inl_serve_opendir,
	.readdir = inl_serve_readdir,
	.readdirplus = inl_serve_readdirplus,
	.releasedir = inl_serve_releasedir,
	.fsyncdir = inl_serve_fsync,
	.statfs = inl_serve_statfs,
	.setxattr = inl_serve_setxattr,
	.getxattr = inl_serve_getxattr,
	.listxattr = inl_serve_listxattr,
	.removexattr = inl_serve_removexattr,
	.ioctl = inl_serve_ioctl,
	.fallocate = inl_serve_fallocate,
	.lseek = inl_serve_lseek,
	.copy_file_range = inl_serve_copy,
};

/* What libfuse says of a failure: the first line, for the caller's diag. */
static _Thread_local char said[256];

static void listen(enum fuse_log_level level, const char *fmt, va_list args)
{
	size_t len = strlen(said);

	/* A line may come in several calls. */
	if (level <= FUSE_LOG_WARNING && !memchr(said, '\n', len))
		vsnprintf(said + len, sizeof(said) - len, fmt, args);
}

/* Without "fuse: ", since what is printed names the directory. */
static const char *what_was_said(const char *otherwise)
{
	static const char prefix[] = "fuse: ";

	said[strcspn(said, "\n")] = '\0';
	if (!said[0])
		return otherwise;
	return strncmp(said, prefix, sizeof(prefix) - 1) ? said : said + sizeof(prefix) - 1;
}

/* Takes "no_writeback" out of a list of options; the rest is libfuse's. */
static int take_options(struct inl_mount *mount, struct fuse_args *args)
{
	static const struct fuse_opt mine[] = { { "no_writeback", 0, 0 }, { "writeback", 0, 1 }, FUSE_OPT_END };
	int writeback = 1;

	if (fuse_opt_parse(args, &writeback, mine, NULL))
		return -EINVAL;
	mount->writeback = writeback;
	return 0;
}

static int add_option(struct fuse_args *args, const char *name, const char *value)
{
	char *text = NULL, *list = NULL;
	int err = -ENOMEM;

	if (asprintf(&text, "%s%s", name, value ? value : "") < 0)
		return -ENOMEM;
	if (!fuse_opt_add_opt_escaped(&list, text) && !fuse_opt_add_arg(args, "-o") && !fuse_opt_add_arg(args, list))
		err = 0;
	free(text);
	free(list);
	return err;
}

static int make_args(struct inl_mount *mount, const struct inl_mount_options *options, struct fuse_args *args)
{
	int err = fuse_opt_add_arg(args, "inlay") ? -ENOMEM : 0;

	err = err ? err : add_option(args, "fsname=", options->source ? options->source : "inlay");
	err = err ? err : add_option(args, "subtype=inlay", NULL);
	err = err ? err : add_option(args, "default_permissions", NULL);
	if (mount->read_only)
		err = err ? err : add_option(args, "ro", NULL);
	if (!err && options->options && options->options[0] &&
	    (fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, options->options)))
		err = -ENOMEM;
	return err ? err : take_options(mount, args);
}

static int open_session(struct inl_mount *mount, const struct inl_mount_options *options, struct inl_diag *diag)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int err = make_args(mount, options, &args);

	said[0] = '\0';
	fuse_set_log_func(listen);
	if (!err) {
		mount->session = fuse_session_new(&args, &serve_ops, sizeof(serve_ops), mount);
		if (!mount->session)
			err = inl_diag_set(diag, -EINVAL, "%s", what_was_said("these options do not serve"));
	}
	if (!err && fuse_session_mount(mount->session, mount->dir))
		err = inl_diag_set(diag, errno ? -errno : -EPERM, "%s", what_was_said("cannot be mounted"));
	mount->mounted = !err;
	if (!err)
		err = inl_channel_set(mount);
	fuse_set_log_func(NULL);
	fuse_opt_free_args(&args);
	return err;
}

/* ---- unmounting -------------------------------------------------------------------------------------------------- */

extern char **environ;

static int run(char *const argv[])
{
	posix_spawn_file_actions_t actions;
	int status, err;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	err = -posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return err;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBUSY;
}

/* lazy: also if it is in use: nobody finds it any more, those that have it open stay. */
static int unmount(char *dir, bool lazy)
{
	char *const argv[] = { "fusermount3", "-u", lazy ? "-z" : "--", lazy ? "--" : dir, lazy ? dir : NULL, NULL };

	if (!umount2(dir, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW))
		return 0;
	return errno == EPERM ? run(argv) : -errno;
}

/* ---- a new one --------------------------------------------------------------------------------------------------- */

static unsigned choose_threads(unsigned wanted)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = wanted ? wanted : n_cpus < 2 ? 4 : (unsigned)n_cpus * 2;

	return n < 2 ? 2 : n > INL_WORKERS_MAX ? INL_WORKERS_MAX : n;
}

/* What a server that was killed has left behind is in the way of the next one. */
static void detach_dead(const char *dir)
{
	struct inl_where where;
	struct statvfs st;

	/* Not stat, which the kernel may answer of its own. */
	if (statvfs(dir, &st) && errno == ENOTCONN && !inl_where(dir, &where))
		unmount((char *)dir, true);
}

static int check_directory(const char *dir)
{
	struct stat st;

	if (stat(dir, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int inl_mount_new(struct inl_volume *vol, const char *dir, const struct inl_mount_options *options,
		  struct inl_diag *diag, struct inl_mount **out)
{
	struct inl_mount *mount = calloc(1, sizeof(*mount));
	struct inl_volume_info info;
	int err;

	if (!mount)
		return -ENOMEM;
	pthread_mutex_init(&mount->lock, NULL);
	pthread_mutex_init(&mount->report_lock, NULL);
	pthread_cond_init(&mount->wake, NULL);
	inl_nodes_init(&mount->nodes, vol);
	inl_keys_init(&mount->keys, options->keys, vol);
	mount->gate = inl_gate_new();
	inl_tops_init(&mount->tops);
	mount->vol = vol;
	inl_volume_info(vol, &info);
	mount->block_size = info.block_size;
	mount->fd = -1;
	mount->read_only = options->read_only;
	mount->commit = options->commit ? options->commit : COMMIT_SECONDS;
	mount->owner = getuid();
	mount->report = options->report;
	mount->arg = options->arg;
	mount->n_workers = choose_threads(options->n_threads);
	detach_dead(dir);
	/* The process may change its directory; the path must stay good. */
	mount->dir = realpath(dir, NULL);
	err = mount->dir ? check_directory(mount->dir) : -errno;
	err = mount->gate ? err : -ENOMEM;
	err = err ? err : open_session(mount, options, diag);
	if (err) {
		inl_mount_free(mount);
		return err;
	}
	*out = mount;
	return 0;
}

/* ---- serving ----------------------------------------------------------------------------------------------------- */

static void worker_left(void *arg)
{
	struct inl_worker *worker = arg;
	struct inl_mount *mount = worker->mount;

	pthread_mutex_lock(&worker->lock);
	worker->serves = false;
	pthread_mutex_unlock(&worker->lock);
	pthread_mutex_lock(&mount->lock);
	mount->n_serving--;
	pthread_cond_broadcast(&mount->wake);
	pthread_mutex_unlock(&mount->lock);
}

static void unblock_calls(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* What is asked of it between two requests. */
static void take_turn(struct inl_worker *worker)
{
	unsigned turn = atomic_load_explicit(&worker->mount->turn, memory_order_acquire);

	if (atomic_load_explicit(&worker->turn, memory_order_relaxed) == turn)
		return;
	inl_worker_wipe(worker);
	atomic_store_explicit(&worker->turn, turn, memory_order_release);
}

static void *serve(void *arg)
{
	struct inl_worker *worker = arg;
	struct inl_mount *mount = worker->mount;
	struct fuse_buf buf = { .mem = inl_worker_buf(worker) };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	unblock_calls();
	/* Memory that the kernel wants to free may be freed by our writing: it must not wait for us meanwhile. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	inl_worker_become(worker);
	pthread_cleanup_push(worker_left, worker);
	while (!fuse_session_exited(mount->session)) {
		int n;

		take_turn(worker);
		n = fuse_session_receive_buf(mount->session, &buf);
		if (n == -EINTR || n == -EAGAIN || n == -ENOENT)
			continue;
		if (n <= 0)
			break; /* unmounted */
		atomic_fetch_add_explicit(&mount->requests, 1, memory_order_relaxed);
		fuse_session_process_buf(mount->session, &buf);
		atomic_fetch_add_explicit(&mount->finished, 1, memory_order_release);
	}
	pthread_cleanup_pop(1);
	return NULL;
}

/* What was changed becomes durable after a while without anybody asking for it. */
static void *commit_now_and_then(void *arg)
{
	struct inl_mount *mount = arg;
	uint64_t seen = 0, now;
	struct timespec next;

	pthread_mutex_lock(&mount->lock);
	while (!mount->stop) {
		clock_gettime(CLOCK_REALTIME, &next);
		next.tv_sec += mount->commit;
		while (!mount->stop && pthread_cond_timedwait(&mount->wake, &mount->lock, &next) != ETIMEDOUT)
			;
		/* Where nothing was done there is nothing new: disks may sleep. What is under way counts when it is done. */
		now = atomic_load_explicit(&mount->finished, memory_order_acquire);
		if (mount->stop || now == seen)
			continue;
		seen = now;
		pthread_mutex_unlock(&mount->lock);
		inl_sync(mount->vol, NULL);
		pthread_mutex_lock(&mount->lock);
	}
	pthread_mutex_unlock(&mount->lock);
	return NULL;
}

static void nothing(int number)
{
	(void)number;
}

/*
 * Who waits for a request must be called: by a signal that ends the waiting, again until it has come, as it may just have
 * begun to wait. SIGURG does nothing unless a program wants to hear of it, which will see more of them than there are.
 */
static void call(struct inl_worker *worker, unsigned turn)
{
	const struct timespec pause = { .tv_nsec = 100000 };

	while (atomic_load_explicit(&worker->turn, memory_order_acquire) != turn) {
		pthread_mutex_lock(&worker->lock);
		if (!worker->serves) {
			pthread_mutex_unlock(&worker->lock);
			return;
		}
		if (atomic_load_explicit(&worker->waits, memory_order_relaxed))
			pthread_kill(worker->thread, SIGURG);
		pthread_mutex_unlock(&worker->lock);
		nanosleep(&pause, NULL);
	}
}

void inl_workers_turn(struct inl_mount *mount)
{
	unsigned turn = atomic_fetch_add(&mount->turn, 1) + 1;

	for (unsigned i = 0; i < mount->n_workers; i++)
		call(&mount->workers[i], turn);
}

/* It must not be ignored, and not restart what it interrupts. */
static void hear_calls(void)
{
	const struct sigaction heard = { .sa_handler = nothing };
	struct sigaction before;

	if (!sigaction(SIGURG, NULL, &before) && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN))
		sigaction(SIGURG, &heard, NULL);
}

static int start_workers(struct inl_mount *mount)
{
	int err = 0;

	for (unsigned i = 0; i < mount->n_workers; i++)
		pthread_mutex_init(&mount->workers[i].lock, NULL);
	for (unsigned i = 0; i < mount->n_workers && !err; i++) {
		struct inl_worker *worker = &mount->workers[i];

		err = inl_worker_init(worker, mount);
		if (err)
			break;
		pthread_mutex_lock(&mount->lock);
		mount->n_serving++;
		pthread_mutex_unlock(&mount->lock);
		worker->serves = true;
		err = -pthread_create(&worker->thread, NULL, serve, worker);
		worker->started = !err;
		if (err)
			worker_left(worker);
	}
	return err;
}

/*
 * The kernel reads ahead 128 KiB unless it is told otherwise, whatever the session agreed to. Where this is not allowed
 * it stays so.
 */
static void raise_read_ahead(const struct stat *st)
{
	char path[80];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st->st_dev), minor(st->st_dev));
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", READ_AHEAD_KB);
	fclose(file);
}

/* Where there is no place for a socket, keys come and go by ioctls only. */
static void begin_to_listen(struct inl_mount *mount)
{
	struct inl_where where;

	mount->others = !inl_where(mount->dir, &where) && where.others;
	inl_socket_start(mount);
}

int inl_mount_start(struct inl_mount *mount, struct inl_diag *diag)
{
	struct stat st;
	int err = inl_lane_start(mount, &mount->flusher);

	hear_calls();
	err = err ? err : inl_lane_start(mount, &mount->locker);

	if (!err && !mount->read_only) {
		err = -pthread_create(&mount->committer, NULL, commit_now_and_then, mount);
		mount->has_committer = !err;
	}
	if (!err)
		err = start_workers(mount);
	if (!err && stat(mount->dir, &st))
		err = inl_diag_set(diag, -errno, "the mount does not answer");
	if (err)
		inl_mount_end(mount);
	else
		raise_read_ahead(&st);
	mount->dev = err ? 0 : st.st_dev;
	if (!err)
		begin_to_listen(mount);
	return err;
}

void inl_mount_wait(struct inl_mount *mount)
{
	pthread_mutex_lock(&mount->lock);
	while (mount->n_serving)
		pthread_cond_wait(&mount->wake, &mount->lock);
	pthread_mutex_unlock(&mount->lock);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* Those that wait for requests are told that none will come; those that serve one finish it. */
static void stop_workers(struct inl_mount *mount)
{
	fuse_session_exit(mount->session);
	for (unsigned i = 0; i < mount->n_workers; i++) {
		if (mount->workers[i].started)
			pthread_cancel(mount->workers[i].thread);
	}
}

/* Is ours what is mounted there, and not something else above it? */
static bool is_on_top(const struct inl_mount *mount)
{
	struct stat st;

	/* One that has never answered is not known yet, and covered by nothing. */
	return !mount->dev || (!stat(mount->dir, &st) && st.st_dev == mount->dev);
}

/* Do all workers end within this time? */
static bool have_left(struct inl_mount *mount, unsigned seconds)
{
	struct timespec end;
	bool left;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += seconds;
	pthread_mutex_lock(&mount->lock);
	while (mount->n_serving && pthread_cond_timedwait(&mount->wake, &mount->lock, &end) != ETIMEDOUT)
		;
	left = !mount->n_serving;
	pthread_mutex_unlock(&mount->lock);
	return left;
}

void inl_mount_end(struct inl_mount *mount)
{
	bool first, on_top;

	pthread_mutex_lock(&mount->lock);
	/* When nobody serves any more it was unmounted: what is mounted on the directory now is another's. */
	first = !mount->asked_to_end && mount->n_serving;
	mount->asked_to_end = true;
	pthread_mutex_unlock(&mount->lock);
	if (!first)
		return;
	/*
	 * The kernel then writes what it has, and ends the session: the workers see that. Unless it is mounted elsewhere, too:
	 * then what is on the directory now is another's, as is what lies above ours.
	 */
	on_top = is_on_top(mount);
	if (on_top && !unmount(mount->dir, false)) {
		if (have_left(mount, END_SECONDS))
			return;
		on_top = false;
	}
	mount->hands_off = !on_top;
	inl_socket_stop(mount);
	inl_flush_all(mount);
	inl_lane_stop(mount, &mount->locker);
	inl_lane_stop(mount, &mount->flusher); /* while there is somebody who serves what it waits for */
	inl_flush_all(mount);
	stop_workers(mount);
}

static void join(struct inl_mount *mount)
{
	pthread_mutex_lock(&mount->lock);
	mount->stop = true;
	pthread_cond_broadcast(&mount->wake);
	pthread_mutex_unlock(&mount->lock);
	if (mount->has_committer)
		pthread_join(mount->committer, NULL);
	for (unsigned i = 0; i < mount->n_workers; i++) {
		if (mount->workers[i].started)
			pthread_join(mount->workers[i].thread, NULL);
	}
	inl_socket_stop(mount);
	inl_gate_close(mount->gate);
	inl_lane_stop(mount, &mount->locker);
	inl_lane_stop(mount, &mount->flusher);
}

/* libfuse ends a session by unmounting. Where the directory is not ours any more, it is only cut off, and kept. */
static struct fuse_session *kept __attribute__((used));

static void session_end(struct inl_mount *mount)
{
	if (!mount->session)
		return;
	if (mount->hands_off) {
		close(mount->fd);
		kept = mount->session;
		return;
	}
	if (mount->mounted)
		fuse_session_unmount(mount->session);
	fuse_session_destroy(mount->session);
}

void inl_mount_free(struct inl_mount *mount)
{
	if (!mount)
		return;
	join(mount);
	for (unsigned i = 0; i < mount->n_workers; i++) {
		if (mount->workers[i].mount)
			inl_worker_done(&mount->workers[i]);
	}
	/* Those that still have files open are cut off when the last descriptor is closed. */
	session_end(mount);
	while (mount->opens)
		inl_open_free(mount, mount->opens);
	inl_nodes_done(&mount->nodes);
	inl_tops_done(&mount->tops);
	inl_keys_done(&mount->keys);
	pthread_cond_destroy(&mount->wake);
	pthread_mutex_destroy(&mount->report_lock);
	pthread_mutex_destroy(&mount->lock);
	free(mount->report_text);
	free(mount->dir);
	free(mount);
}

void inl_mount_counters(const struct inl_mount *mount, struct inl_mount_counters *counters)
{
	struct inl_mount *live = (struct inl_mount *)mount;

	memset(counters, 0, sizeof(*counters));
	counters->requests = atomic_load_explicit(&live->requests, memory_order_relaxed);
	counters->reads = atomic_load_explicit(&live->reads, memory_order_relaxed);
	counters->writes = atomic_load_explicit(&live->writes, memory_order_relaxed);
	counters->bytes_read = atomic_load_explicit(&live->bytes_read, memory_order_relaxed);
	counters->bytes_written = atomic_load_explicit(&live->bytes_written, memory_order_relaxed);
	counters->errors = atomic_load_explicit(&live->errors, memory_order_relaxed);
	pthread_mutex_lock(&live->nodes.lock);
	counters->n_inodes = live->nodes.n;
	counters->n_orphans = live->nodes.n_orphans;
	for (const struct inl_open *open = live->opens; open; open = open->next)
		counters->n_open++;
	pthread_mutex_unlock(&live->nodes.lock);
}
