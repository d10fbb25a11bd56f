/*
 * drivers/inuse.c: does the kernel use a file or a block device? As far as it lets itself be asked.
 * Not here: other processes (locks: file.c). What cannot be seen: mounts of other namespaces, except that O_EXCL of a
 * block device knows them; and, for those who may not ask a loop device itself, one that knows the file by another name.
 * Read more: sysfs(5), Documentation/ABI/testing/sysfs-block; loop(4); proc_pid_mountinfo(5).
 */
#include "drivers/file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WORDS 320 /* bytes: of an explanation */

/* ---- sysfs ------------------------------------------------------------------------------------------------------- */

/* The content of a small file below a directory, without its newline. */
static bool read_text(const char *dir, const char *name, char *text, size_t size)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	n -= text[n - 1] == '\n';
	text[n] = 0;
	return true;
}

static bool read_dev(const char *dir, dev_t *dev)
{
	unsigned major, minor;
	char text[32];

	if (!read_text(dir, "dev", text, sizeof(text)) || sscanf(text, "%u:%u", &major, &minor) != 2)
		return false;
	*dev = makedev(major, minor);
	return true;
}

/*
 * Call fn with each entry of a directory until it says true.
 *
 * Returns: whether it did; false also where there is no such directory.
 */
typedef bool each_fn(const char *path, const char *name, void *arg);
static bool each_entry(const char *dir, each_fn *fn, void *arg)
{
	DIR *stream = opendir(dir);
	struct dirent *entry;
	char path[PATH_MAX];
	bool found = false;

	while (!found && stream && (entry = readdir(stream))) {
		if (entry->d_name[0] != '.' &&
		    snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
			found = fn(path, entry->d_name, arg);
	}
	if (stream)
		closedir(stream);
	return found;
}

/* ---- a block device: mounted, or part of another? ---------------------------------------------------------------- */

/* In mountinfo, spaces and the like are three octal digits behind a backslash. Control characters are for nobody. */
static void unescape(char *text)
{
	char *to = text;
	unsigned c;
	int n;

	while (*text) {
		n = 0;
		if (*text == '\\' && sscanf(text + 1, "%3o%n", &c, &n) == 1 && n == 3) {
			*to++ = (char)(c < ' ' ? '?' : c);
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = 0;
}

static bool mounted(dev_t dev, char *words, size_t size)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	unsigned major, minor;
	char *line = NULL, *where;
	size_t room = 0;
	bool found = false;

	while (!found && file && getline(&line, &room, file) > 0) {
		where = NULL;
		found = sscanf(line, "%*u %*u %u:%u %*s %ms", &major, &minor, &where) == 3 &&
			makedev(major, minor) == dev;
		if (found) {
			unescape(where);
			snprintf(words, size, "mounted on '%s'", where);
		}
		free(where);
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

struct use {
	char *words;
	size_t size;
};

static bool name_holder(const char *path, const char *name, void *arg)
{
	const struct use *use = arg;

	snprintf(use->words, use->size, "part of '%s'", name);
	return true;
}

/* dir: of the device in sysfs. */
static bool device_used(const char *dir, const struct use *use)
{
	char holders[PATH_MAX];
	dev_t dev;

	if (read_dev(dir, &dev) && mounted(dev, use->words, use->size))
		return true;
	return snprintf(holders, sizeof(holders), "%s/holders", dir) < (int)sizeof(holders) &&
	       each_entry(holders, name_holder, (void *)use);
}

static bool partition_used(const char *path, const char *name, void *arg)
{
	char number[16];

	return read_text(path, "partition", number, sizeof(number)) && device_used(path, arg);
}

static bool disk_used(const char *dir, const struct use *use)
{
	return device_used(dir, use) || each_entry(dir, partition_used, (void *)use);
}

/* ---- loop devices ------------------------------------------------------------------------------------------------ */

/* Is this what a loop device is set up on? Asked of the device itself, which knows also what was renamed since. */
static bool asked(const char *name, const struct stat *st, bool *same)
{
	struct loop_info64 info;
	char path[PATH_MAX];
	int fd, ret;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	ret = ioctl(fd, LOOP_GET_STATUS64, &info);
	close(fd);
	if (ret)
		return false;
	/* The kernel's long form of device numbers is the C library's as long as they are short. */
	*same = info.lo_device == (uint64_t)st->st_dev && info.lo_inode == st->st_ino;
	if (S_ISBLK(st->st_mode))
		*same |= info.lo_rdevice && info.lo_rdevice == (uint64_t)st->st_rdev;
	return true;
}

static bool same_path(const char *path, const struct stat *st)
{
	struct stat other;

	if (stat(path, &other))
		return false;
	if (S_ISBLK(st->st_mode) && S_ISBLK(other.st_mode))
		return other.st_rdev == st->st_rdev;
	return other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

struct loop {
	const struct stat *st;
	struct use use;
};

static bool is_behind(const char *path, const char *name, void *arg)
{
	const struct loop *loop = arg;
	char backing[PATH_MAX], where[WORDS / 2];
	struct use use = { where, sizeof(where) };
	bool same;

	if (strncmp(name, "loop", 4) || !read_text(path, "loop/backing_file", backing, sizeof(backing)))
		return false;
	if (!asked(name, loop->st, &same))
		same = same_path(backing, loop->st);
	if (!same)
		return false;
	if (disk_used(path, &use))
		snprintf(loop->use.words, loop->use.size, "/dev/%s is set up on it, which is %s", name, where);
	else
		snprintf(loop->use.words, loop->use.size, "/dev/%s is set up on it", name);
	return true;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static bool kernel_uses(const struct stat *st, const struct use *use)
{
	struct loop loop = { st, *use };
	char dir[64];

	if (S_ISBLK(st->st_mode)) {
		snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(st->st_rdev), minor(st->st_rdev));
		if (disk_used(dir, use))
			return true;
	}
	return each_entry("/sys/block", is_behind, &loop);
}

int inl_file_in_use(const struct stat *st, const char *path, struct inl_diag *diag)
{
	char words[WORDS];
	struct use use = { words, sizeof(words) };

	if (!kernel_uses(st, &use))
		return 0;
	return inl_diag_set(diag, -EBUSY, "'%s' is in use by the kernel: %s", path, words);
}
