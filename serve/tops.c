/*
 * serve/tops.c: where the encrypted begins: the names, in directories that are not encrypted, of what is.
 * Not here: when the kernel is to forget what is behind them (lock.c).
 * Read more: ARCHITECTURE.md, "The life of a lock".
 *
 * The kernel remembers names, attributes and contents of whatever was looked at, and there is no list of that here. But
 * when it is told that one name is void, it drops all that it knows below it and that is not in use. All that a policy
 * encrypts lies below few names: those of its top directories, and of files that were moved out. These are noted when
 * they are told to the kernel. One too many does no harm.
 */
#include "serve/serve.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TOPS_MAX 16384u /* names: of about 100 bytes each */

struct inl_top {
	struct inl_top *hash_next;
	struct inl_top *newer, *older;
	struct inl_key_spec key;
	uint64_t id;
	uint64_t parent; /* 0: not known yet, as it became encrypted after it was looked up */
	char name[];
};

void inl_tops_init(struct inl_tops *tops)
{
	pthread_mutex_init(&tops->lock, NULL);
}

/* One that has no name yet is told by its number. */
static struct inl_top **bucket(struct inl_tops *tops, uint64_t parent, uint64_t id, const char *name)
{
	uint64_t hash = parent ? parent : id;

	while (*name)
		hash = (hash ^ (uint8_t)*name++) * 0x100000001b3u;
	return &tops->buckets[(hash ^ hash >> 32) % INL_TOP_BUCKETS];
}

static struct inl_top **find(struct inl_tops *tops, uint64_t parent, uint64_t id, const char *name)
{
	struct inl_top **at = bucket(tops, parent, id, name);

	while (*at && ((*at)->parent != parent || (!parent && (*at)->id != id) || strcmp((*at)->name, name)))
		at = &(*at)->hash_next;
	return at;
}

/* lock: of tops, in what follows */

static void unlink_top(struct inl_tops *tops, struct inl_top **at)
{
	struct inl_top *top = *at;

	*at = top->hash_next;
	if (top->newer)
		top->newer->older = top->older;
	else
		tops->newest = top->older;
	if (top->older)
		top->older->newer = top->newer;
	else
		tops->oldest = top->newer;
	tops->n--;
}

static void link_top(struct inl_tops *tops, struct inl_top *top)
{
	struct inl_top **at = bucket(tops, top->parent, top->id, top->name);

	top->hash_next = *at;
	*at = top;
	top->newer = NULL;
	top->older = tops->newest;
	if (top->older)
		top->older->newer = top;
	else
		tops->oldest = top;
	tops->newest = top;
	tops->n++;
}

/* ---- names of those that became encrypted after the kernel knew them --------------------------------------------- */

static uint32_t ino_of(const struct inl_top *top)
{
	return (uint32_t)top->id;
}

/* Its parent's number, or 0. */
static uint64_t parent_of(struct inl_mount *mount, const struct inl_top *top)
{
	struct inl_inode *inode;
	uint64_t ino = 0;

	if (inl_inode_get(mount->vol, ino_of(top), NULL, &inode))
		return 0;
	if (inl_parent(inode, &ino, NULL))
		ino = 0;
	inl_inode_put(inode);
	return ino;
}

/*
 * Look for the names of those that have none and lie in this directory: once for all of them, a list linked by newer.
 *
 *   found   is told of each: its directory's number, its name
 */
static void find_names(struct inl_mount *mount, uint64_t ino, const struct inl_top *list,
		       void (*found)(struct inl_mount *mount, const struct inl_top *top, uint64_t parent,
				     const char *name))
{
	struct inl_inode *inode;
	struct inl_dirent dirent;
	struct inl_dir *dir;
	struct inl_stat st;

	if (!ino || inl_inode_get(mount->vol, ino, NULL, &inode))
		return;
	if (!inl_inode_stat(inode, &st, NULL) && !inl_dir_open(inode, NULL, &dir)) {
		while (inl_dir_next(dir, &dirent, NULL) > 0) {
			for (const struct inl_top *top = list; top; top = top->newer) {
				if (ino_of(top) == dirent.ino)
					found(mount, top, inl_node_id(&st), dirent.name);
			}
		}
		inl_dir_close(dir);
	}
	inl_inode_put(inode);
}

/* ---- one too many: the kernel forgets it now --------------------------------------------------------------------- */

struct forgetting {
	struct inl_job job;
	struct inl_top *top;
};

static void tell_void(struct inl_mount *mount, const struct inl_top *top, uint64_t parent, const char *name)
{
	(void)top;
	fuse_lowlevel_notify_inval_entry(mount->session, parent, name, strlen(name));
}

static void forget_now(struct inl_mount *mount, struct inl_job *job)
{
	struct forgetting *forgetting = (struct forgetting *)job;
	struct inl_top *top = forgetting->top;

	if (top->parent)
		tell_void(mount, top, top->parent, top->name);
	else
		find_names(mount, parent_of(mount, top), top, tell_void);
	free(top);
	free(forgetting);
}

/* No memory, or the end of the mount: then it stays. */
static void drop_oldest(struct inl_mount *mount)
{
	struct inl_tops *tops = &mount->tops;
	struct forgetting *forgetting = calloc(1, sizeof(*forgetting));
	struct inl_top *top = tops->oldest;

	if (!forgetting)
		return;
	unlink_top(tops, find(tops, top->parent, top->id, top->name));
	forgetting->job.run = forget_now;
	forgetting->top = top;
	top->newer = NULL;
	if (inl_lane_add(mount, &mount->locker, &forgetting->job))
		return;
	link_top(tops, top);
	free(forgetting);
}

/* ---- noting ------------------------------------------------------------------------------------------------------ */

static int note(struct inl_mount *mount, uint64_t parent, const char *name, uint64_t id, const struct inl_key_spec *key)
{
	struct inl_tops *tops = &mount->tops;
	size_t len = strlen(name);
	struct inl_top *top, **at;
	int err = 0;

	pthread_mutex_lock(&tops->lock);
	at = find(tops, parent, id, name);
	if (*at) {
		(*at)->id = id;
		(*at)->key = *key;
	} else {
		top = malloc(sizeof(*top) + len + 1);
		if (top) {
			*top = (struct inl_top){ .key = *key, .id = id, .parent = parent };
			memcpy(top->name, name, len + 1);
			link_top(tops, top);
		}
		err = top ? 0 : -ENOMEM;
		if (tops->n > TOPS_MAX)
			drop_oldest(mount);
	}
	pthread_mutex_unlock(&tops->lock);
	return err;
}

int inl_top_note(struct inl_mount *mount, struct inl_inode *dir, uint64_t parent, const char *name,
		 struct inl_inode *inode)
{
	struct inl_policy policy;
	struct inl_stat st;
	int err;

	if (inl_inode_policy(dir, NULL) || !inl_inode_policy(inode, &policy))
		return 0;
	err = inl_inode_stat(inode, &st, NULL);
	return err ? err : note(mount, parent, name, inl_node_id(&st), &policy.key);
}

int inl_top_note_unnamed(struct inl_mount *mount, uint64_t id, const struct inl_key_spec *key)
{
	return note(mount, 0, "", id, key);
}

/* ---- what the kernel is to forget -------------------------------------------------------------------------------- */

/* A copy of all of a key that have a name, or have none; for free_list(). Linked by newer. */
static int take_copy(struct inl_tops *tops, const struct inl_key_spec *key, bool named, struct inl_top **out)
{
	struct inl_top *list = NULL;
	int err = 0;

	pthread_mutex_lock(&tops->lock);
	for (const struct inl_top *top = tops->newest; top; top = top->older) {
		size_t size = sizeof(*top) + strlen(top->name) + 1;
		struct inl_top *copy;

		if (!inl_key_spec_equal(&top->key, key) || named != (top->parent != 0))
			continue;
		copy = malloc(size);
		if (!copy) {
			err = -ENOMEM;
			break;
		}
		memcpy(copy, top, size);
		copy->newer = list;
		list = copy;
	}
	pthread_mutex_unlock(&tops->lock);
	*out = list;
	return err;
}

static void free_list(struct inl_top *list)
{
	while (list) {
		struct inl_top *next = list->newer;

		free(list);
		list = next;
	}
}

/* It has a name by now. */
static void name_top(struct inl_mount *mount, const struct inl_top *unnamed, uint64_t parent, const char *name)
{
	struct inl_tops *tops = &mount->tops;
	struct inl_top **at, *top = NULL;

	if (note(mount, parent, name, unnamed->id, &unnamed->key))
		return;
	pthread_mutex_lock(&tops->lock);
	at = find(tops, 0, unnamed->id, "");
	if (*at) {
		top = *at;
		unlink_top(tops, at);
	}
	pthread_mutex_unlock(&tops->lock);
	free(top);
}

/* Those that became encrypted after the kernel knew them. */
static int name_unnamed(struct inl_mount *mount, const struct inl_key_spec *key)
{
	struct inl_top *list;
	int err = take_copy(&mount->tops, key, false, &list);

	for (struct inl_top *top = list; top; top = top->newer)
		top->parent = parent_of(mount, top);
	for (struct inl_top *top = list; top; top = top->newer) {
		bool first = top->parent;

		for (const struct inl_top *before = list; before != top; before = before->newer)
			first = first && before->parent != top->parent;
		if (first)
			find_names(mount, top->parent, list, name_top);
	}
	free_list(list);
	return err;
}

int inl_tops_void(struct inl_mount *mount, const struct inl_key_spec *key)
{
	int err = name_unnamed(mount, key), other;
	struct inl_top *list;

	other = take_copy(&mount->tops, key, true, &list);
	for (const struct inl_top *top = list; top; top = top->newer)
		tell_void(mount, top, top->parent, top->name);
	free_list(list);
	return err ? err : other;
}

void inl_tops_done(struct inl_tops *tops)
{
	while (tops->newest) {
		struct inl_top *top = tops->newest;

		tops->newest = top->older;
		free(top);
	}
	pthread_mutex_destroy(&tops->lock);
}
