/*
 * tests/mount/posix.c: operations on names and modes at random, in a directory of any file system, with their results.
 * Not here: the operations (posix_*.c); contents in all detail (fsx.c); who compares (test_mount_twin.py).
 * Read more: HACKING.md, "Tests".
 *
 *   posix DIR [--ops N] [--seed S] [--procs P --out FILE] [--without WHAT]...
 *                                                              a line for each operation, and at the end for each file
 *   posix DIR --walk                                           only those at the end
 *   posix DIR --shared [--ops N] [--seed S] [--procs P]        P processes in one directory, and what must be true then
 *
 * On two file systems the same seed has the same output, if both are right: it has no inode numbers, no times of today,
 * no sizes of directories. With --procs each process works below DIR/pN and writes to FILE.pN. Needs root, except for
 * --shared; the processes are confined to their directories by chroot(2). WHAT is the name of something that a file
 * system is known not to do as ext4 does it, and that is left out: px_without() in the operations.
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct px *px;
struct px_held px_held[PX_N_HELD];
bool px_is_child;
uint8_t px_buf[PX_BUF];

/* What a file system is known not to have. */
static const char *left_out[32];
static unsigned n_left_out;

bool px_without(const char *what)
{
	for (unsigned i = 0; i < n_left_out; i++) {
		if (!strcmp(left_out[i], what))
			return true;
	}
	return false;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "posix: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- which operation --------------------------------------------------------------------------------------------- */

static const struct px_op *const groups[] = { px_file_ops, px_name_ops, px_meta_ops, px_case_ops, px_peer_ops };
enum { N_SIMPLE = 3 };

static void some_op(size_t n_groups)
{
	unsigned sum = 0, pick;

	for (size_t i = 0; i < n_groups; i++) {
		for (const struct px_op *op = groups[i]; op->fn; op++)
			sum += op->weight;
	}
	pick = (unsigned)px_rng(sum);
	for (size_t i = 0; i < n_groups; i++) {
		for (const struct px_op *op = groups[i]; op->fn; op++) {
			if (pick < op->weight) {
				printf(" %s", op->name);
				op->fn();
				return;
			}
			pick -= op->weight;
		}
	}
}

void px_simple_op(void)
{
	some_op(N_SIMPLE);
}

/* A short form of the walk. What is different is so since the last one. */
static void show_state(void)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		die("open_memstream");
	px_walk(out);
	fclose(out);
	printf("%lu state %016llx\n", px->number, (unsigned long long)px_hash(0, text, len));
	free(text);
}

static void find_known(void)
{
	struct px_list list = { 0 };
	int fd = open(".", O_RDONLY | O_DIRECTORY);

	if (fd < 0 || px_list_fd(fd, &list))
		die("cannot read the directory");
	for (size_t i = 0; i < list.n; i++) {
		if (strcmp(list.names[i] + 1, "lost+found"))
			px_add(list.names[i] + 1);
	}
	px_list_free(&list);
	close(fd);
}

static int run(uint64_t seed, unsigned long n_ops)
{
	px->dice = seed * 1000003;
	umask(0);
	for (unsigned i = 0; i < PX_N_HELD; i++)
		px_held[i].fd = -1;
	find_known();
	for (px->number = 1; px->number <= n_ops; px->number++) {
		printf("%lu", px->number);
		some_op(PX_COUNT(groups));
		putchar('\n');
		if (px->number % 250 == 0)
			show_state();
		fflush(stdout);
	}
	for (unsigned i = 0; i < PX_N_HELD; i++) {
		if (px_held[i].fd >= 0)
			px_release(&px_held[i]);
	}
	px_walk(stdout);
	return fflush(stdout) ? 2 : 0;
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

static int confined(const char *dir, uint64_t seed, unsigned long n_ops, bool walk)
{
	if (geteuid()) {
		fputs("posix: needs root\n", stderr);
		return 2;
	}
	if (chdir(dir) || chroot("."))
		die(dir);
	signal(SIGPIPE, SIG_IGN);
	if (walk) {
		px_walk(stdout);
		return fflush(stdout) ? 2 : 0;
	}
	px = mmap(NULL, sizeof(*px), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (px == MAP_FAILED)
		die("mmap");
	return run(seed, n_ops);
}

static int below(const char *dir, unsigned number, const char *out, uint64_t seed, unsigned long n_ops)
{
	char path[PX_PATH];

	snprintf(path, sizeof(path), "%s.p%u", out, number);
	if (!freopen(path, "w", stdout))
		die(path);
	snprintf(path, sizeof(path), "%s/p%u", dir, number);
	if (mkdir(path, 0755) && errno != EEXIST)
		die(path);
	return confined(path, seed * 1000 + number, n_ops, false);
}

static int several(const char *dir, unsigned n_procs, const char *out, uint64_t seed, unsigned long n_ops)
{
	int status, bad = 0;

	for (unsigned i = 0; i < n_procs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid)
			_exit(below(dir, i, out, seed, n_ops));
	}
	while (wait(&status) > 0) {
		if (status)
			fprintf(stderr, "posix: a process ended with status 0x%x\n", (unsigned)status);
		bad |= status;
	}
	return bad ? 2 : 0;
}

static const struct option options[] = {
	{ "ops", required_argument, NULL, 'o' },     { "seed", required_argument, NULL, 's' },
	{ "procs", required_argument, NULL, 'p' },   { "out", required_argument, NULL, 'O' },
	{ "walk", no_argument, NULL, 'w' },          { "shared", no_argument, NULL, 'S' },
	{ "without", required_argument, NULL, 'W' }, { NULL },
};

int main(int argc, char **argv)
{
	unsigned long n_ops = 1000, n_procs = 0, seed = 1;
	bool walk = false, shared = false;
	const char *out = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'o')
			n_ops = strtoul(optarg, NULL, 0);
		else if (c == 's')
			seed = strtoul(optarg, NULL, 0);
		else if (c == 'p')
			n_procs = strtoul(optarg, NULL, 0);
		else if (c == 'O')
			out = optarg;
		else if (c == 'w')
			walk = true;
		else if (c == 'S')
			shared = true;
		else if (c == 'W' && n_left_out < PX_COUNT(left_out))
			left_out[n_left_out++] = optarg;
		else
			return 2;
	}
	if (optind + 1 != argc || (n_procs && !shared && !out)) {
		fputs("usage: posix DIR [--ops N] [--seed S] [--procs P --out FILE] [--without WHAT]...\n"
		      "       [--walk] [--shared]\n",
		      stderr);
		return 2;
	}
	if (shared)
		return px_shared(argv[optind], seed, n_procs ? (unsigned)n_procs : 4, n_ops);
	if (n_procs)
		return several(argv[optind], (unsigned)n_procs, out, seed, n_ops);
	return confined(argv[optind], seed, n_ops, walk);
}
