/*
 * tests/mount/posix_names.c: chance, what is known to be there, choices of paths and numbers, and how things are shown.
 * Not here: what is done with them.
 * Read more: path_resolution(7).
 */
#include "tests/mount/posix.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ---- chance (SplitMix64), and contents --------------------------------------------------------------------------- */

uint64_t px_rng64(void)
{
	uint64_t z = px->dice += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t px_rng(uint64_t below)
{
	return px_rng64() % below;
}

uint64_t px_hash(uint64_t hash, const void *data, size_t len)
{
	const uint8_t *p = data;

	hash ^= 0xcbf29ce484222325u;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ p[i]) * 0x100000001b3u;
	return hash;
}

void px_fill(uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = px_rng64();

		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

void px_show(const char *path)
{
	size_t len = strlen(path), shown = len > 80 ? 60 : len;

	putchar(' ');
	if (!len)
		printf("\"\"");
	for (size_t i = 0; i < shown; i++) {
		uint8_t c = (uint8_t)path[i];

		if (c > ' ' && c < 0x7f && c != '\\')
			putchar(c);
		else
			printf("\\%02x", c);
	}
	if (shown < len)
		printf("..%zu:%016llx", len, (unsigned long long)px_hash(0, path, len));
}

bool px_result(long ret)
{
	if (ret < 0)
		printf(" = %s", strerrorname_np(errno));
	else
		printf(" = %ld", ret);
	return ret >= 0;
}

void px_show_stat(const struct stat *st)
{
	printf(" [%o n%lu %u:%u", st->st_mode, (unsigned long)st->st_nlink, st->st_uid, st->st_gid);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		printf(" d%u:%u", major(st->st_rdev), minor(st->st_rdev));
	if (!S_ISDIR(st->st_mode))
		printf(" s%lld", (long long)st->st_size);
	putchar(']');
}

void px_show_time(const char *what, struct timespec t)
{
	time_t now = time(NULL);

	if (t.tv_sec > now - 86400 && t.tv_sec < now + 86400)
		printf(" %s=now", what);
	else
		printf(" %s=%lld.%09ld", what, (long long)t.tv_sec, t.tv_nsec);
}

void px_show_fd(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		printf(" fstat %s", strerrorname_np(errno));
	else
		px_show_stat(&st);
}

void px_show_path(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		printf(" lstat %s", strerrorname_np(errno));
	else
		px_show_stat(&st);
}

/* ---- what is known ----------------------------------------------------------------------------------------------- */

unsigned px_kind(mode_t mode)
{
	return S_ISREG(mode) ? PX_REG : S_ISDIR(mode) ? PX_DIR : S_ISLNK(mode) ? PX_LNK : PX_OTHER;
}

static unsigned depth(const char *path)
{
	unsigned n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

/* Paths that are odd are used once. */
void px_add(const char *path)
{
	if (px->n_known == PX_KNOWN || strlen(path) >= PX_LONGEST || depth(path) > 5 || strstr(path, "..") ||
	    !path[0] || path[0] == '/' || path[strlen(path) - 1] == '/' || strstr(path, "/.") || path[0] == '.')
		return;
	for (unsigned i = 0; i < px->n_known; i++) {
		if (!strcmp(px->known[i], path))
			return;
	}
	snprintf(px->known[px->n_known++], PX_LONGEST, "%s", path);
}

static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return !strncmp(path, top, len) && (!path[len] || path[len] == '/');
}

void px_forget(const char *path)
{
	unsigned n = 0;

	for (unsigned i = 0; i < px->n_known; i++) {
		if (is_below(px->known[i], path))
			continue;
		if (n != i)
			memcpy(px->known[n], px->known[i], PX_LONGEST);
		n++;
	}
	px->n_known = n;
}

void px_moved(const char *from, const char *to)
{
	char below[PX_KNOWN][PX_LONGEST], path[2 * PX_PATH];
	unsigned n = 0;

	for (unsigned i = 0; i < px->n_known; i++) {
		if (is_below(px->known[i], from))
			memcpy(below[n++], px->known[i] + strlen(from), PX_LONGEST - strlen(from));
	}
	px_forget(from);
	px_forget(to);
	px_add(to);
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s%.*s", to, (int)PX_LONGEST, below[i]);
		px_add(path);
	}
}

/* ---- choices ----------------------------------------------------------------------------------------------------- */

static bool known_path(char *path, unsigned kinds)
{
	struct stat st;

	for (unsigned i = 0; i < 24 && px->n_known; i++) {
		const char *known = px->known[px_rng(px->n_known)];

		snprintf(path, PX_PATH, "%s", known);
		if (lstat(path, &st)) {
			if (errno == ENOENT || errno == ENOTDIR)
				px_forget(path);
		} else if (px_kind(st.st_mode) & kinds) {
			return true;
		}
	}
	return false;
}

void px_some_name(char *name)
{
	unsigned what = (unsigned)px_rng(100);
	size_t len = what < 88 ? 1 + px_rng(24) : what < 98 ? NAME_MAX - px_rng(2) : NAME_MAX + 1;

	if (what < 76) {
		snprintf(name, NAME_MAX + 2, "n%u", (unsigned)px_rng(30));
		return;
	}
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)(what < 80 || (what & 1) ? 'a' + px_rng(26) : 1 + px_rng(255));

		name[i] = (char)(c == '/' ? '_' : c);
	}
	name[len] = 0;
}

static void some_dir(char *path)
{
	if (!px_rng(4) || !known_path(path, PX_DIR))
		snprintf(path, PX_PATH, ".");
}

void px_dir_path(char *path)
{
	some_dir(path);
	px_show(path);
}

static void new_path(char *path)
{
	char name[NAME_MAX + 2];
	size_t len;

	some_dir(path);
	px_some_name(name);
	len = strcmp(path, ".") ? strlen(path) : 0;
	snprintf(path + len, PX_PATH - len, "%s%s", len ? "/" : "", name);
}

/* Ways to name something: behind what is no directory, by the way of its parent, with a slash at the end, ... */
static void odd_path(char *path)
{
	size_t len;

	if (px_rng(2) || !known_path(path, PX_ANY))
		new_path(path);
	len = strlen(path);
	switch (px_rng(9)) {
	case 0: snprintf(path + len, PX_PATH - len, "/"); break;
	case 1: snprintf(path + len, PX_PATH - len, "/."); break;
	case 2: snprintf(path + len, PX_PATH - len, "/.."); break;
	case 3: snprintf(path + len, PX_PATH - len, "/n%u", (unsigned)px_rng(30)); break;
	case 4: snprintf(path + len, PX_PATH - len, "/../n%u", (unsigned)px_rng(30)); break;
	case 5: snprintf(path, PX_PATH, "/n%u", (unsigned)px_rng(30)); break;
	case 6: snprintf(path, PX_PATH, "%s", px_rng(2) ? "." : ".."); break;
	case 7: path[0] = 0; break;
	default: memset(path, 'p', PATH_MAX); path[PATH_MAX] = 0;
	}
}

static void choose(char *path, unsigned old, unsigned kinds)
{
	unsigned what = (unsigned)px_rng(100);

	if (what < 5)
		odd_path(path);
	else if (what >= old || !known_path(path, px_rng(12) ? kinds : PX_ANY))
		new_path(path);
	px_show(path);
}

void px_old_path(char *path, unsigned kinds)
{
	choose(path, 95, kinds);
}

void px_new_path(char *path)
{
	choose(path, 15, PX_ANY);
}

void px_any_path(char *path)
{
	choose(path, 60, PX_ANY);
}

mode_t px_some_mode(void)
{
	static const mode_t modes[] = { 0644,  0755,  0777,  0666, 0600, 0700, 01777,
					02775, 04755, 06777, 0,    0111, 0444, 02777 };

	return px_rng(4) ? modes[px_rng(PX_COUNT(modes))] : (mode_t)px_rng(010000);
}

unsigned px_some_id(void)
{
	static const unsigned ids[] = { 0, 0, 1000, 1000, 1001, 2000, 65534, 70000, 4000000000u };

	return ids[px_rng(PX_COUNT(ids))];
}

uint64_t px_some_offset(void)
{
	unsigned what = (unsigned)px_rng(100);

	return what < 30   ? 0
	       : what < 60 ? px_rng(12000)
	       : what < 80 ? px_rng(32) * 1024
	       : what < 98 ? px_rng(200000)
			   : px_rng(2000000);
}

size_t px_some_len(void)
{
	unsigned what = (unsigned)px_rng(100);

	return what < 50 ? px_rng(300) : what < 70 ? 1024 * px_rng(9) : what < 97 ? px_rng(12000) : px_rng(PX_BUF);
}

/* ---- what is held open ------------------------------------------------------------------------------------------- */

struct px_held *px_some_held(unsigned kinds)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned slot = (unsigned)px_rng(PX_N_HELD);

		if (px_held[slot].fd >= 0 && (px_held[slot].kind & kinds)) {
			printf(" held%u", slot);
			return &px_held[slot];
		}
	}
	return NULL;
}

void px_release(struct px_held *held)
{
	if (close(held->fd))
		printf(" close %s", strerrorname_np(errno));
	held->fd = -1;
}

void px_hold(int fd, int flags)
{
	unsigned slot = (unsigned)px_rng(PX_N_HELD);
	struct stat st;

	if (px_is_child || px_rng(3) == 0 || fstat(fd, &st)) {
		if (close(fd))
			printf(" close %s", strerrorname_np(errno));
		return;
	}
	if (px_held[slot].fd >= 0)
		px_release(&px_held[slot]);
	px_held[slot] = (struct px_held){ fd, flags, px_kind(st.st_mode) };
	printf(" as held%u", slot);
}

/* ---- lists of names ---------------------------------------------------------------------------------------------- */

void px_list_add(struct px_list *list, unsigned type, const char *name)
{
	size_t len = strlen(name);
	char *copy = malloc(len + 2);

	if (list->n == list->room) {
		list->room = list->room ? 2 * list->room : 64;
		list->names = realloc(list->names, list->room * sizeof(*list->names));
	}
	if (!copy || !list->names)
		abort();
	copy[0] = (char)(type + '0');
	memcpy(copy + 1, name, len + 1);
	list->names[list->n++] = copy;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a + 1, *(char *const *)b + 1);
}

void px_list_sort(struct px_list *list)
{
	if (list->n)
		qsort(list->names, list->n, sizeof(*list->names), compare_names);
}

void px_list_free(struct px_list *list)
{
	while (list->n)
		free(list->names[--list->n]);
	free(list->names);
	*list = (struct px_list){ 0 };
}

int px_list_fd(int fd, struct px_list *list)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	if (!dir) {
		int err = -errno;

		if (copy >= 0)
			close(copy);
		return err;
	}
	while ((errno = 0, entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			px_list_add(list, entry->d_type, entry->d_name);
	}
	px_list_sort(list);
	copy = -errno;
	closedir(dir);
	return copy;
}
