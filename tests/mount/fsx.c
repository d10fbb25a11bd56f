/*
 * tests/mount/fsx.c: exercises files in a directory of any file system, beside a copy in memory.
 * Not here: the changes and looks (fsx_file.c), which of them (fsx_ops.c); names and modes (posix.c).
 * Read more: HACKING.md, "Tests".
 *
 *   fsx DIR [--ops N] [--seed S] [--size MAX] [--base OFFSET] [--procs N] [--drop] [--direct] [--lenient]
 *       [--verbose] [--from N] [--no-cases] [--keep]
 *
 * Every process has files and a seed of its own. The same seed makes the same choices: --verbose prints them, --from N
 * those from number N on. --base: files begin with a hole of that many bytes. --drop: the caches of the machine are
 * dropped now and then (root). --direct: with O_DIRECT, too. --lenient: fallocate(2) may not know all of its modes.
 * --patient: keys come and go: what is locked is tried again.
 * --keep: the files are left there in the end.
 */
#include "tests/mount/fsx.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_LINES  50u
#define LINE_LEN 200u

struct fx fx = { .max = 400 << 10, .from = ~0ul };

static char lines[N_LINES][LINE_LEN];
static unsigned long n_lines;
static uint64_t seed = 1;
static bool keep;

/* ---- what is remembered, and said -------------------------------------------------------------------------------- */

/* A line is printed when the next one begins: then nothing is added any more. */
static void print_last(void)
{
	if (n_lines && (fx.verbose || fx.number >= fx.from))
		fprintf(stderr, "%u: %s\n", fx.process, lines[(n_lines - 1) % N_LINES]);
}

void fx_say(const char *format, ...)
{
	char *line = lines[n_lines % N_LINES];
	int n = snprintf(line, LINE_LEN, "%lu ", fx.number);
	va_list args;

	va_start(args, format);
	vsnprintf(line + n, LINE_LEN - (size_t)n, format, args);
	va_end(args);
	n_lines++;
}

void fx_add(const char *format, ...)
{
	char *line = lines[(n_lines - 1) % N_LINES];
	size_t n = strlen(line);
	va_list args;

	va_start(args, format);
	vsnprintf(line + n, LINE_LEN - n, format, args);
	va_end(args);
}

static void print_lines(void)
{
	for (unsigned long i = n_lines > N_LINES ? n_lines - N_LINES : 0; i < n_lines; i++)
		fprintf(stderr, "  %s\n", lines[i % N_LINES]);
}

void fx_fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "process %u, seed %llu, the last operations:\n", fx.process, (unsigned long long)seed);
	print_lines();
	fprintf(stderr, "process %u, seed %llu, operation %lu: ", fx.process, (unsigned long long)seed, fx.number);
	if (fx.doing)
		fprintf(stderr, "mmap_write_after_fallocate, after %s: ", fx.doing);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(1);
}

void fx_fail_errno(const char *call)
{
	fx_fail("%s: %s", call, strerror(errno));
}

/* An access of a mapping that the file does not back: stdio is as good as lost here, but all that there is. */
static void on_fault(int number)
{
	fx_fail("signal %d (%s)", number, strsignal(number));
}

/* ---- chance (SplitMix64) ----------------------------------------------------------------------------------------- */

uint64_t fx_rng64(void)
{
	uint64_t z = fx.dice += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t fx_rng(uint64_t below)
{
	return fx_rng64() % below;
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

static void *aligned(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("fsx: mmap");
		exit(2);
	}
	return p;
}

static void work(const char *dir, unsigned process, unsigned long n_ops, bool cases)
{
	fx.process = process;
	fx.dice = seed * 1000003 + process;
	fx.buf = aligned(fx.max + 2 * FX_PAGE);
	fx.buf2 = aligned(fx.max + 2 * FX_PAGE);
	for (unsigned i = 0; i < FX_N_FILES; i++) {
		struct fx_file *f = &fx.files[i];

		f->want = aligned(fx.max + FX_PAGE);
		snprintf(f->path, sizeof(f->path), "%s/fsx-%u-%u", dir, process, i);
		fx_create(f);
	}
	if (cases)
		fx_named_case();
	for (fx.number = 1; fx.number <= n_ops; fx.number++) {
		fx_some_op();
		print_last();
	}
	fx_say("the end");
	for (unsigned i = 0; i < FX_N_FILES; i++) {
		struct fx_file *f = &fx.files[i];

		fx_verify(f);
		fx_evict(f);
		fx_verify(f);
		fx_reopen(f, false);
		fx_verify(f);
		fx_close(f);
		if (!keep && FX_PATIENTLY(unlink(f->path)))
			fx_fail_errno("unlink");
	}
}

static int work_in_children(const char *dir, unsigned n_procs, unsigned long n_ops, bool cases)
{
	int status, bad = 0;

	fflush(stdout);
	for (unsigned i = 0; i < n_procs; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("fsx: fork");
			return 2;
		}
		if (!pid) {
			work(dir, i, n_ops, cases);
			fflush(stdout);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	return bad != 0;
}

static const struct option options[] = {
	{ "ops", required_argument, NULL, 'o' },   { "seed", required_argument, NULL, 's' },
	{ "size", required_argument, NULL, 'S' },  { "base", required_argument, NULL, 'b' },
	{ "procs", required_argument, NULL, 'p' }, { "threads", required_argument, NULL, 'p' },
	{ "from", required_argument, NULL, 'f' },  { "drop", no_argument, NULL, 'd' },
	{ "direct", no_argument, NULL, 'D' },      { "lenient", no_argument, NULL, 'l' },
	{ "verbose", no_argument, NULL, 'v' },     { "no-cases", no_argument, NULL, 'n' },
	{ "keep", no_argument, NULL, 'k' },        { "patient", no_argument, NULL, 'P' },
	{ NULL },
};

int main(int argc, char **argv)
{
	unsigned long n_ops = 10000, n_procs = 1;
	bool cases = true;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		unsigned long long number = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'o': n_ops = number; break;
		case 's': seed = number; break;
		case 'S': fx.max = (number + FX_PAGE - 1) & ~(uint64_t)(FX_PAGE - 1); break;
		case 'b': fx.base = number & ~(uint64_t)(FX_PAGE - 1); break;
		case 'p': n_procs = number; break;
		case 'f': fx.from = number; break;
		case 'd': fx.drop = true; break;
		case 'D': fx.direct = true; break;
		case 'l': fx.lenient = true; break;
		case 'P': fx.patient = true; break;
		case 'v': fx.verbose = true; break;
		case 'n': cases = false; break;
		case 'k': keep = true; break;
		default: return 2;
		}
	}
	if (optind + 1 != argc || fx.max < 4 * FX_PAGE) {
		fputs("usage: fsx DIR [--ops N] [--seed S] [--size MAX] [--base OFFSET] [--procs N] [--drop] "
		      "[--direct]\n"
		      "       [--lenient] [--verbose] [--from N] [--no-cases] [--keep] [--patient]\n",
		      stderr);
		return 2;
	}
	signal(SIGBUS, on_fault);
	signal(SIGSEGV, on_fault);
	printf("seed %llu, %lu processes of %lu operations\n", (unsigned long long)seed, n_procs, n_ops);
	c = work_in_children(argv[optind], (unsigned)n_procs, n_ops, cases);
	puts(c ? "FAILED" : "all as it should be");
	return c;
}
