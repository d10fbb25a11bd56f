/*
 * serve/where.c: which mount of Inlay a path leads to, by what the system lists: without looking into it.
 * Not here: asking it something (client.c).
 * Read more: proc(5), /proc/PID/mountinfo.
 */
#include "serve/where.h"
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* "\040" is a blank, and so on. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned code;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* The path without links; of one that does not let us look into it, at least as far as its parent. */
static char *absolute(const char *path)
{
	char *full = realpath(path, NULL), *copy, *last, *above;
	int err;

	if (full || (errno != EACCES && errno != ENOTCONN))
		return full;
	copy = strdup(path);
	last = strdup(path);
	above = copy ? realpath(dirname(copy), NULL) : NULL;
	err = above ? ENOMEM : errno;
	if (!above || !last || asprintf(&full, "%s/%s", above[1] ? above : "", basename(last)) < 0)
		full = NULL;
	free(above);
	free(copy);
	free(last);
	errno = err;
	return full;
}

bool inl_is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/' || (len && dir[len - 1] == '/'));
}

/* A line: "36 35 98:0 /root /point options - type source options" */
static bool parse_line(char *line, struct inl_where *where, bool *ours)
{
	unsigned number_major, number_minor;
	char *save = NULL, *field, *point = NULL, *end = strstr(line, " - "), *type, *options, *user;

	if (!end || sscanf(line, "%*d %*d %u:%u", &number_major, &number_minor) != 2)
		return false;
	*end = '\0';
	type = strtok_r(end + 3, " \n", &save);
	strtok_r(NULL, " \n", &save);
	options = strtok_r(NULL, " \n", &save);
	save = NULL;
	field = strtok_r(line, " ", &save);
	for (unsigned i = 0; field && i < 4; i++)
		point = field = strtok_r(NULL, " ", &save);
	if (!type || !options || !point)
		return false;
	unescape(point);
	where->dev = makedev(number_major, number_minor);
	*ours = !strcmp(type, "fuse.inlay");
	user = strstr(options, "user_id=");
	where->owner = user ? (uid_t)strtoul(user + 8, NULL, 10) : 0;
	where->others = strstr(options, "allow_other");
	return (size_t)snprintf(where->point, sizeof(where->point), "%s", point) < sizeof(where->point);
}

int inl_where(const char *path, struct inl_where *where)
{
	char *full = absolute(path), *line = NULL;
	int err = full ? -ENOTTY : -errno;
	struct inl_where *one = malloc(sizeof(*one));
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	size_t size = 0, longest = 0;
	bool ours;

	if (full && (!mounts || !one))
		err = -ENOMEM;

	while (mounts && full && one && getline(&line, &size, mounts) > 0) {
		/* Of two at one place the later one lies above. */
		if (!parse_line(line, one, &ours) || !inl_is_below(full, one->point) || strlen(one->point) < longest)
			continue;
		longest = strlen(one->point);
		err = ours ? 0 : -ENOTTY;
		*where = *one;
	}
	if (mounts)
		fclose(mounts);
	free(one);
	free(line);
	free(full);
	return err;
}

int inl_where_nth(unsigned i, struct inl_where *where)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	int err = mounts ? -ENOENT : -errno;
	char *line = NULL;
	size_t size = 0;
	bool ours;

	while (mounts && err && getline(&line, &size, mounts) > 0) {
		if (parse_line(line, where, &ours) && ours && !i--)
			err = 0;
	}
	if (mounts)
		fclose(mounts);
	free(line);
	return err;
}
