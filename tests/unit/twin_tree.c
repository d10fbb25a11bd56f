/*
 * tests/unit/twin_tree.c: the twin's dice, what it knows of the names that are there, and its choices among them.
 * Not here: the operations that it chooses them for (twin_ops.c).
 * Read more: twin.c.
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct twin_side *tw_side;
uint64_t tw_dice;
bool tw_old_inodes;
uint8_t tw_buf[TW_BUF_LEN];

uint64_t tw_rng64(void)
{
	uint64_t z = tw_dice += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint32_t tw_rng(uint32_t below)
{
	return (uint32_t)(tw_rng64() % below);
}

uint64_t tw_hash_bytes(uint64_t hash, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
		hash ^= hash >> 32;
	}
	while (len--)
		hash = (hash ^ *p++) * 0x100000001b3u;
	return hash;
}

/* A path, on one line and not too long: of long names their beginning and a hash. */
void tw_show(const char *path)
{
	while (*path) {
		size_t len = strcspn(path, "/"), shown = len > 40 ? 12 : len;

		for (size_t i = 0; i < shown; i++) {
			if (path[i] > ' ' && path[i] < 127 && path[i] != '\\')
				putchar(path[i]);
			else
				printf("\\x%02x", (unsigned char)path[i]);
		}
		if (len > shown)
			printf("<%zu:%08" PRIx32 ">", len, (uint32_t)tw_hash_bytes(0, path, len));
		path += len;
		if (*path == '/')
			putchar(*path++);
	}
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

struct entry tw_entries[N_ENTRIES];
unsigned tw_n_entries;

struct held tw_held[N_HELD];

void tw_add_entry(const char *path, uint32_t type)
{
	if (tw_n_entries < N_ENTRIES)
		tw_entries[tw_n_entries++] = (struct entry){ strdup(path), type };
}

struct entry *tw_find_entry(const char *path)
{
	for (unsigned i = 0; i < tw_n_entries; i++) {
		if (!strcmp(tw_entries[i].path, path))
			return &tw_entries[i];
	}
	return NULL;
}

void tw_remove_entry(const char *path)
{
	struct entry *entry = tw_find_entry(path);

	if (!entry)
		return;
	free(entry->path);
	*entry = tw_entries[--tw_n_entries];
}

static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return !strncmp(path, top, len) && (!path[len] || path[len] == '/');
}

/* All that is at `from` or below it is at `to` now. */
void tw_move_entries(const char *from, const char *to)
{
	for (unsigned i = 0; i < tw_n_entries; i++) {
		char path[2 * TWIN_PATH];

		if (!is_below(tw_entries[i].path, from))
			continue;
		snprintf(path, sizeof(path), "%s%s", to, tw_entries[i].path + strlen(from));
		free(tw_entries[i].path);
		tw_entries[i].path = strdup(path);
	}
}

void tw_collect(const char *name, unsigned type, void *arg)
{
	struct names *names = arg;

	if (names->n == names->room) {
		names->room = names->room ? 2 * names->room : 64;
		names->names = reallocarray(names->names, names->room, sizeof(*names->names));
	}
	names->names[names->n++] = strdup(name);
}

int tw_compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int tw_list_sorted(void *dir, struct names *names)
{
	int err;

	memset(names, 0, sizeof(*names));
	err = tw_side->list(dir, tw_collect, names);
	if (names->n)
		qsort(names->names, names->n, sizeof(*names->names), tw_compare_names);
	return err;
}

void tw_free_names(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
}

static void join(char *path, const char *dir, const char *name)
{
	snprintf(path, TWIN_PATH, "%s%s%s", dir, dir[0] ? "/" : "", name);
}

void tw_die(const char *what, const char *path, int err)
{
	printf("%s %s: %s\n", what, path, strerror(-err));
	exit(1);
}

/* Depth first, in the order of the bytes of names. */
void tw_walk(const char *path, void (*each)(const char *path, void *obj, const struct twin_stat *st))
{
	struct twin_stat st;
	struct names names;
	void *obj;
	int err = tw_side->get(path, &obj);

	if (!err)
		err = tw_side->stat(obj, &st);
	if (err)
		tw_die("cannot look at", path, err);
	each(path, obj, &st);
	if (!S_ISDIR(st.mode)) {
		tw_side->put(obj);
		return;
	}
	err = tw_list_sorted(obj, &names);
	tw_side->put(obj);
	if (err)
		tw_die("cannot list", path, err);
	for (size_t i = 0; i < names.n; i++) {
		char child[TWIN_PATH];

		join(child, path, names.names[i]);
		tw_walk(child, each);
	}
	tw_free_names(&names);
}

/* ---- choices ----------------------------------------------------------------------------------------------------- */

static unsigned kind_of(uint32_t type)
{
	return S_ISREG(type) ? TW_REG : S_ISDIR(type) ? TW_DIR : S_ISLNK(type) ? TW_LNK : TW_OTHER;
}

/* One that is there, of these kinds; the root counts as a directory. */
const char *tw_some_path(unsigned kinds)
{
	unsigned n = 0, pick;

	for (unsigned i = 0; i < tw_n_entries; i++)
		n += !!(kind_of(tw_entries[i].type) & kinds);
	if (kinds & TW_DIR && kinds != TW_ANY && !tw_rng(n + 1))
		return "";
	if (!n)
		return kinds & TW_DIR ? "" : NULL;
	pick = tw_rng(n);
	for (unsigned i = 0; i < tw_n_entries; i++) {
		if ((kind_of(tw_entries[i].type) & kinds) && !pick--)
			return tw_entries[i].path;
	}
	return NULL;
}

void tw_some_name(char *name)
{
	unsigned what = tw_rng(100), len = what < 85 ? 8 + tw_rng(20) : what < 99 ? 200 + tw_rng(56) : 256;

	if (what < 70) {
		snprintf(name, 300, "n%u", tw_rng(40));
		return;
	}
	for (unsigned i = 0; i < len; i++) {
		uint8_t c = (uint8_t)(what < 90 ? 'a' + tw_rng(26) : 1 + tw_rng(255));

		name[i] = (char)(c == '/' ? '_' : c);
	}
	if (name[0] == '~')
		name[0] = '_';
	name[len] = 0;
}

static unsigned depth(const char *path)
{
	unsigned n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

/* A directory with room below. */
const char *tw_some_dir(void)
{
	const char *path = "";

	for (unsigned i = 0; i < 4; i++) {
		path = tw_some_path(TW_DIR);
		if (depth(path) < 4 && strlen(path) < 1000)
			return path;
	}
	return "";
}

const char *tw_near_dir(const char *path)
{
	size_t len = strcspn(path, "/");

	for (unsigned i = 0; i < 12; i++) {
		const char *dir = tw_some_dir();

		if (strcspn(dir, "/") == len && !strncmp(dir, path, len))
			return dir;
	}
	return tw_some_dir();
}

int tw_open_place(struct place *place, const char *dir)
{
	int err = tw_side->get(dir, &place->dir);

	if (err)
		tw_die("lost", dir, err);
	join(place->path, dir, place->name);
	return err;
}

/* Mostly a new name, sometimes one that is there. */
void tw_new_place(struct place *place)
{
	tw_some_name(place->name);
	tw_open_place(place, tw_some_dir());
}

static void place_of(struct place *place, const char *path)
{
	char dir[TWIN_PATH] = "";
	const char *slash = strrchr(path, '/');

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	snprintf(place->name, sizeof(place->name), "%.*s", NAME_MAX + 1, slash ? slash + 1 : path);
	tw_open_place(place, dir);
}

/* Where there is no key Inlay has two ways to say that a name is not there: here it is always a no-key name. */
static void some_missing(struct place *place)
{
	unsigned len = 4 * (3 + tw_rng(50));

	if (!tw_locked) {
		tw_new_place(place);
		return;
	}
	for (unsigned i = 0; i < len; i++)
		place->name[i] = (char)('a' + tw_rng(26));
	place->name[len] = 0;
	tw_open_place(place, tw_some_dir());
}

/* Mostly one that is there. */
void tw_old_place(struct place *place, unsigned kinds)
{
	const char *path = tw_rng(20) ? tw_some_path(kinds) : NULL;
	char copy[TWIN_PATH];

	if (!path || !path[0]) {
		some_missing(place);
		return;
	}
	snprintf(copy, sizeof(copy), "%s", path);
	place_of(place, copy);
}

void tw_close_place(struct place *place)
{
	tw_side->put(place->dir);
}

bool tw_is_there(const char *path)
{
	void *obj;

	if (tw_side->get(path, &obj))
		return false;
	tw_side->put(obj);
	return true;
}

bool tw_open_target(struct target *target, unsigned kinds)
{
	unsigned slot = tw_rng(N_HELD);
	const char *path;
	int err;

	if (tw_held[slot].obj && (kind_of(tw_held[slot].type) & kinds) && !tw_rng(3)) {
		*target = (struct target){ tw_held[slot].obj, "", true, tw_held[slot].type };
		printf(" held%u", slot);
		return true;
	}
	path = tw_some_path(kinds);
	if (!path)
		return false;
	err = tw_side->get(path, &target->obj);
	if (err)
		tw_die("lost", path, err);
	target->path = path;
	target->is_held = false;
	target->type = path[0] ? tw_find_entry(path)->type : S_IFDIR;
	putchar(' ');
	tw_show(path[0] ? path : "/");
	return true;
}

void tw_close_target(struct target *target)
{
	if (!target->is_held)
		tw_side->put(target->obj);
}

void tw_fill_buf(size_t len)
{
	for (size_t at = 0; at < len; at += 8) {
		uint64_t word = tw_rng64();

		memcpy(tw_buf + at, &word, 8);
	}
}

uint32_t tw_some_id(void)
{
	return tw_rng(3) ? tw_rng(2000) : 65536 + tw_rng(1u << 30);
}

/* Lengths and offsets at odd places, near each other so that they meet; few files become large, and few reach far. */
uint64_t tw_some_offset(void)
{
	unsigned what = tw_rng(100);

	if (what < 40)
		return tw_rng(20000);
	if (what < 70)
		return tw_rng(64) * 1024;
	if (what < 95)
		return tw_rng(400000);
	if (what < 99)
		return tw_rng(3000000);
	return (1ull << (24 + tw_rng(22))) + tw_rng(3) * 1000;
}

size_t tw_some_len(void)
{
	unsigned what = tw_rng(100);

	return what < 45 ? tw_rng(3000) : what < 60 ? 1024 * tw_rng(20) : what < 95 ? tw_rng(30000) : tw_rng(300000);
}
