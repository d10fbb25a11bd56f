/*
 * cli/names.c: the names in a directory of the host, in order.
 * Not here: the walk (cli/source.c).
 * Read more: cli/put.h.
 */
#include "cli/put.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct inl_put_names {
	char **names; /* the type before each */
	size_t n, room, next;
};

static int by_bytes(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strcmp(*x + 1, *y + 1);
}

static void add(struct inl_put_names *names, const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);
	char *name = inl_cli_alloc(len + 2);

	name[0] = (char)entry->d_type;
	memcpy(name + 1, entry->d_name, len + 1);
	names->names = inl_cli_grow(names->names, names->n, names->n + 1, &names->room, sizeof(*names->names));
	names->names[names->n++] = name;
}

int inl_put_names_read(DIR *stream, struct inl_put_names **out)
{
	struct inl_put_names *names = inl_cli_alloc(sizeof(*names));
	const struct dirent *entry;

	memset(names, 0, sizeof(*names));
	*out = names;
	errno = 0;
	while ((entry = readdir(stream)))
		add(names, entry);
	if (errno)
		return -errno;
	if (names->n)
		qsort(names->names, names->n, sizeof(*names->names), by_bytes);
	return 0;
}

const char *inl_put_names_next(struct inl_put_names *names, uint8_t *type)
{
	const char *name;

	if (names->next == names->n)
		return NULL;
	name = names->names[names->next++];
	*type = (uint8_t)name[0];
	return name + 1;
}

void inl_put_names_free(struct inl_put_names *names)
{
	if (!names)
		return;
	for (size_t i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
	free(names);
}
