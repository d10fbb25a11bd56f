/*
 * serve/holders.c: which processes keep a key that was removed: those that have files open which it encrypts.
 * Not here: what is kept (lock.c).
 * Read more: proc(5): /proc/PID/fd, fdinfo, maps.
 *
 * Only what the system lists is read, nothing is looked up in the mount: this is asked of a thread that serves it. Of
 * processes that we may not look at nothing is known.
 */
#include "serve/serve.h"
#include "serve/where.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct search {
	struct inl_mount *mount;
	uint64_t *inos;
	bool *found;
	unsigned n_inos;
	struct inl_holder *list;
	unsigned n;
	int err;
};

static void add(struct search *search, unsigned which, pid_t pid, const char *path)
{
	struct inl_holder *grown = realloc(search->list, (search->n + 1) * sizeof(*grown)), *holder;
	char name[64];
	FILE *file;

	if (!grown) {
		search->err = -ENOMEM;
		return;
	}
	search->list = grown;
	holder = &grown[search->n++];
	*holder = (struct inl_holder){ .ino = search->inos[which], .pid = pid, .path = path ? strdup(path) : NULL };
	search->found[which] = true;
	snprintf(name, sizeof(name), "/proc/%d/comm", (int)pid);
	file = pid ? fopen(name, "re") : NULL;
	if (!file)
		return;
	if (fgets(holder->command, sizeof(holder->command), file))
		holder->command[strcspn(holder->command, "\n")] = '\0';
	fclose(file);
}

static bool seen(const struct search *search, uint64_t ino, pid_t pid)
{
	for (unsigned i = 0; i < search->n; i++) {
		if (search->list[i].ino == ino && search->list[i].pid == pid)
			return true;
	}
	return false;
}

static void match(struct search *search, uint64_t ino, pid_t pid, const char *path)
{
	for (unsigned i = 0; i < search->n_inos; i++) {
		if (search->inos[i] == ino && !seen(search, ino, pid))
			add(search, i, pid, path);
	}
}

/* The line "ino:" of fdinfo; 0: none. */
static uint64_t ino_of_fd(pid_t pid, const char *fd)
{
	unsigned long long ino = 0;
	char name[64], line[128];
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/fdinfo/%.16s", (int)pid, fd);
	file = fopen(name, "re");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "ino: %llu", &ino) == 1)
			break;
	}
	if (file)
		fclose(file);
	return ino;
}

static void look_at_fds(struct search *search, pid_t pid)
{
	char name[64], path[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	snprintf(name, sizeof(name), "/proc/%d/fd", (int)pid);
	dir = opendir(name);
	while (dir && (entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, path, sizeof(path) - 1);

		if (len <= 0)
			continue;
		path[len] = '\0';
		if (inl_is_below(path, search->mount->dir))
			match(search, ino_of_fd(pid, entry->d_name), pid, path);
	}
	inl_wipe(path, sizeof(path));
	if (dir)
		closedir(dir);
}

/* What is mapped stays in use when its descriptor is closed. */
static void look_at_maps(struct search *search, pid_t pid)
{
	unsigned number_major, number_minor;
	unsigned long long ino;
	char name[64], *line = NULL;
	size_t size = 0;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
	file = fopen(name, "re");
	while (file && getline(&line, &size, file) > 0) {
		char *path = strchr(line, '/');

		if (!path || sscanf(line, "%*s %*s %*s %x:%x %llu", &number_major, &number_minor, &ino) != 3)
			continue;
		path[strcspn(path, "\n")] = '\0';
		if (makedev(number_major, number_minor) == search->mount->dev &&
		    inl_is_below(path, search->mount->dir))
			match(search, ino, pid, path);
	}
	if (line)
		inl_wipe(line, size);
	free(line);
	if (file)
		fclose(file);
}

static void look_at_processes(struct search *search)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;

		if (!pid || pid == getpid())
			continue;
		look_at_fds(search, pid);
		look_at_maps(search, pid);
	}
	if (dir)
		closedir(dir);
}

/* The inodes that are open under this key. */
static int collect(struct search *search, const struct inl_key_spec *key)
{
	struct inl_mount *mount = search->mount;
	struct inl_policy policy;
	struct inl_stat st;
	unsigned n = 0;

	pthread_mutex_lock(&mount->nodes.lock);
	for (const struct inl_open *open = mount->opens; open; open = open->next)
		n++;
	search->inos = calloc(n + 1, sizeof(*search->inos));
	search->found = calloc(n + 1, sizeof(*search->found));
	for (const struct inl_open *open = mount->opens; open && search->inos && search->found; open = open->next) {
		bool twice = false;

		if (!open->holds || !inl_inode_policy(open->node->inode, &policy) ||
		    !inl_key_spec_equal(&policy.key, key) || inl_inode_stat(open->node->inode, &st, NULL))
			continue;
		for (unsigned i = 0; i < search->n_inos && !twice; i++)
			twice = search->inos[i] == st.ino;
		if (!twice)
			search->inos[search->n_inos++] = st.ino;
	}
	pthread_mutex_unlock(&mount->nodes.lock);
	return search->inos && search->found ? 0 : -ENOMEM;
}

int inl_mount_holders(struct inl_mount *mount, const struct inl_key_spec *key, struct inl_holder **list, unsigned *n)
{
	struct search search = { .mount = mount };

	search.err = collect(&search, key);
	if (!search.err && search.n_inos)
		look_at_processes(&search);
	for (unsigned i = 0; i < search.n_inos && !search.err; i++) {
		if (!search.found[i])
			add(&search, i, 0, NULL);
	}
	free(search.inos);
	free(search.found);
	if (search.err)
		inl_holders_free(search.list, search.n);
	*list = search.err ? NULL : search.list;
	*n = search.err ? 0 : search.n;
	return search.err;
}

void inl_holders_free(struct inl_holder *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (list[i].path)
			inl_wipe(list[i].path, strlen(list[i].path));
		free(list[i].path);
	}
	free(list);
}
