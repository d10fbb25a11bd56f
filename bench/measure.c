/*
 * bench/measure.c: runs a command and writes to a file how long it took and how much memory it had at most.
 * Not here: any judgement. A small parent, because a child's peak includes what it had before exec.
 * Read more: getrusage(2), "ru_maxrss".
 */
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec start, end;
	struct rusage usage;
	int status = 0;
	FILE *out;
	pid_t pid;

	if (argc < 3)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &start);
	pid = fork();
	if (!pid) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (pid < 0)
		return 1;
	while (wait4(pid, &status, 0, &usage) < 0) {
		if (errno != EINTR)
			return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	out = fopen(argv[1], "w");
	if (!out)
		return 1;
	/* seconds, kilobytes, exit status */
	fprintf(out, "%.6f %ld %d\n", (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9, usage.ru_maxrss,
		WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return fclose(out) ? 1 : 0;
}
