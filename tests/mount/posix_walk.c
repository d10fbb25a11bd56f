/*
 * tests/mount/posix_walk.c: everything in a tree, a line for each; and the removal of a tree.
 * Not here: the tree's inode numbers, its times of today, the layout of its files: equal trees differ in them.
 * Read more: getdents(2), listxattr(2).
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *error_name(void)
{
	return strerrorname_np(errno);
}

/* On one line, and not too long. */
static void escaped(FILE *out, const char *name)
{
	size_t len = strlen(name), shown = len > 160 ? 80 : len;

	for (size_t i = 0; i < shown; i++) {
		uint8_t c = (uint8_t)name[i];

		if (c > ' ' && c < 0x7f && c != '\\')
			putc(c, out);
		else
			fprintf(out, "\\%02x", c);
	}
	if (shown < len)
		fprintf(out, "..%zu:%016llx", len, (unsigned long long)px_hash(0, name, len));
}

static void walk_contents(FILE *out, const char *name, const struct stat *st)
{
	uint64_t hash = 0, size = 0;
	int fd = open(name, O_RDONLY | O_NOFOLLOW);
	ssize_t got = fd < 0 ? -1 : 0;

	while (fd >= 0 && (got = read(fd, px_buf, PX_BUF)) > 0) {
		hash = px_hash(hash, px_buf, (size_t)got);
		size += (uint64_t)got;
	}
	if (got < 0)
		fprintf(out, " %s", error_name());
	fprintf(out, " %lld %016llx", (long long)st->st_size, (unsigned long long)hash);
	if ((off_t)size != st->st_size)
		fprintf(out, " but %llu bytes", (unsigned long long)size);
	if (fd >= 0)
		close(fd);
}

static void walk_link(FILE *out, const char *name, const struct stat *st)
{
	ssize_t len = readlink(name, (char *)px_buf, PX_BUF - 1);

	if (len < 0) {
		fprintf(out, " %s", error_name());
		return;
	}
	px_buf[len] = 0;
	fprintf(out, " %lld -> ", (long long)st->st_size);
	escaped(out, (char *)px_buf);
}

static void walk_xattrs(FILE *out, const char *name)
{
	static char list[65536];
	static uint8_t value[65536];
	struct px_list sorted = { 0 };
	ssize_t len = llistxattr(name, list, sizeof(list));

	if (len < 0)
		fprintf(out, " xattrs %s", error_name());
	for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
		px_list_add(&sorted, 0, list + at);
	px_list_sort(&sorted);
	for (size_t i = 0; i < sorted.n; i++) {
		const char *attr = sorted.names[i] + 1;

		if (!strcmp(attr, "security.selinux"))
			continue;
		len = lgetxattr(name, attr, value, sizeof(value));
		putc(' ', out);
		escaped(out, attr);
		if (len < 0)
			fprintf(out, "=%s", error_name());
		else
			fprintf(out, "=%zd:%016llx", len, (unsigned long long)px_hash(0, value, (size_t)len));
	}
	px_list_free(&sorted);
}

static void walk_time(FILE *out, struct timespec t)
{
	time_t now = time(NULL);

	if (t.tv_sec > now - 86400 && t.tv_sec < now + 86400)
		fprintf(out, " now");
	else
		fprintf(out, " %lld.%09ld", (long long)t.tv_sec, t.tv_nsec);
}

/* One that is called `name` in the working directory. */
static void walk_one(FILE *out, const char *path, const char *name, const struct stat *st)
{
	escaped(out, path);
	fprintf(out, " %o n%lu %u:%u", st->st_mode, (unsigned long)st->st_nlink, st->st_uid, st->st_gid);
	if (!S_ISFIFO(st->st_mode) || !px_without("pipe-times"))
		walk_time(out, st->st_mtim);
	if (S_ISREG(st->st_mode))
		walk_contents(out, name, st);
	else if (S_ISLNK(st->st_mode))
		walk_link(out, name, st);
	else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		fprintf(out, " %u:%u", major(st->st_rdev), minor(st->st_rdev));
	walk_xattrs(out, name);
	putc('\n', out);
}

static const unsigned dt_of[] = { [S_IFREG >> 12] = DT_REG,  [S_IFDIR >> 12] = DT_DIR, [S_IFLNK >> 12] = DT_LNK,
				  [S_IFIFO >> 12] = DT_FIFO, [S_IFCHR >> 12] = DT_CHR, [S_IFBLK >> 12] = DT_BLK,
				  [S_IFSOCK >> 12] = DT_SOCK };

/* Of the working directory, whose path from the top this is; it is the same again afterwards. */
static void walk_dir(FILE *out, const char *path)
{
	struct px_list list = { 0 };
	int here = open(".", O_RDONLY | O_DIRECTORY), err = here < 0 ? -errno : px_list_fd(here, &list);

	if (err)
		fprintf(out, "%s: cannot be read: %s\n", path, strerrorname_np(-err));
	for (size_t i = 0; !err && i < list.n; i++) {
		const char *name = list.names[i] + 1;
		size_t len = strlen(path) + strlen(name) + 2;
		char *below = malloc(len);
		struct stat st;

		if (!below)
			abort();
		snprintf(below, len, "%s%s%s", path, path[0] ? "/" : "", name);
		if (lstat(name, &st)) {
			fprintf(out, "%s: listed, but %s\n", below, error_name());
		} else if (strcmp(below, "lost+found")) {
			if ((unsigned)(list.names[i][0] - '0') != dt_of[st.st_mode >> 12])
				fprintf(out, "%s: listed as type %d\n", below, list.names[i][0] - '0');
			walk_one(out, below, name, &st);
			if (S_ISDIR(st.st_mode) && !chdir(name)) {
				walk_dir(out, below);
				if (fchdir(here))
					abort();
			}
		}
		free(below);
	}
	px_list_free(&list);
	if (here >= 0)
		close(here);
}

void px_walk(FILE *out)
{
	struct stat st;

	if (lstat(".", &st))
		fprintf(out, ".: %s\n", error_name());
	else
		walk_one(out, ".", ".", &st);
	walk_dir(out, "");
}

/* ---- removal ----------------------------------------------------------------------------------------------------- */

static int remove_at(int dir, const char *name)
{
	struct px_list list = { 0 };
	int fd, n = 0, below;

	if (!unlinkat(dir, name, 0))
		return 1;
	if (errno != EISDIR)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	below = px_list_fd(fd, &list);
	for (size_t i = 0; i < list.n && below >= 0; i++) {
		below = remove_at(fd, list.names[i] + 1);
		n += below;
	}
	px_list_free(&list);
	close(fd);
	if (below < 0)
		return below;
	return unlinkat(dir, name, AT_REMOVEDIR) ? -errno : n + 1;
}

int px_remove_tree(const char *path)
{
	return remove_at(AT_FDCWD, path);
}
