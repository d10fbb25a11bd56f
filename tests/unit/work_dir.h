/*
 * tests/unit/work_dir.h: a folder in memory for the volumes of a test program, commands in it, and whether the kernel can
 * be asked.
 * Not here: what is made there (the tests).
 * Read more: HACKING.md, "Tests".
 */
#ifndef TESTS_UNIT_WORK_DIR_H
#define TESTS_UNIT_WORK_DIR_H

#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char work_dir[64]; /* empty: no volumes can be made here */
static bool has_kernel;

/* The path of a name in the folder; eight of them are good at a time. */
static inline const char *in_dir(const char *name)
{
	static char paths[8][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, PATH_MAX, "%s/%s", work_dir, name);
	return path;
}

/* Run a command of the shell there; its output goes to the file "log". Returns as system(3). */
static inline int __attribute__((format(printf, 1, 2))) try_run(const char *fmt, ...)
{
	char command[3000], whole[3300];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	snprintf(whole, sizeof(whole), "cd %s && PATH=$PATH:/sbin:/usr/sbin && { %s; } >log 2>&1 </dev/null", work_dir,
		 command);
	return system(whole);
}

static inline void show_log(void)
{
	char command[100];

	snprintf(command, sizeof(command), "cat %s/log >&2", work_dir);
	if (system(command))
		print_error("(no log)\n");
}

/* The same; a command that fails fails the test. */
#define run(...)                                                        \
	do {                                                            \
		if (try_run(__VA_ARGS__)) {                             \
			print_error("failed: " __VA_ARGS__);            \
			print_error("\n");                              \
			show_log();                                     \
			fail();                                         \
		}                                                       \
	} while (0)

static inline void needs_tools(void)
{
	if (!work_dir[0]) {
		print_message("skipped: mke2fs, debugfs or e2fsck is missing\n");
		skip();
	}
}

static inline void needs_kernel(void)
{
	needs_tools();
	if (!has_kernel) {
		print_message("skipped: needs root and a loop device\n");
		skip();
	}
}

/* Returns 0, also where the tools are missing; -1. */
static inline int work_dir_make(const char *name)
{
	snprintf(work_dir, sizeof(work_dir), "%s/inlay-%s-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", name);
	if (!mkdtemp(work_dir))
		return -1;
	if (try_run("mke2fs -V && debugfs -V && command -v e2fsck")) {
		rmdir(work_dir);
		work_dir[0] = 0;
	}
	return 0;
}

/* Sets has_kernel; the folder "mnt" is for mounts. */
static inline void work_dir_ask_kernel(void)
{
	has_kernel = work_dir[0] && !geteuid() &&
		     !try_run("mkdir mnt && truncate -s 4M probe && mke2fs -Fq -t ext4 probe && "
			      "mount -o loop probe mnt && umount mnt");
	if (work_dir[0] && !has_kernel)
		print_message("the kernel's ext4 is not asked: needs root and a loop device\n");
}

static inline int work_dir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline int work_dir_remove(void)
{
	return work_dir[0] ? nftw(work_dir, work_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS) : 0;
}

#endif
