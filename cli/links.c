/*
 * cli/links.c: where files with several links were exported to, in bounded memory.
 * Not here: making the links (cli/place.c).
 * Read more: cli/get.h.
 */
#include "cli/get.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define UNIT      16 /* records begin at multiples of this many bytes, so that 32 bits reach 64 GiB */
#define SLOTS_MIN 1024u
#define SLOTS_MAX (UINT32_C(1) << 21) /* 16 MiB, and 8 more while it grows */

struct inl_link_slot {
	uint32_t ino; /* 0: empty; once taken, a slot stays taken */
	uint32_t at;  /* in units */
};

/* A record in the file, in the form of this machine; the path follows. */
struct record {
	uint64_t dev, ino;
	uint64_t len;
};

void inl_links_init(struct inl_links *links)
{
	*links = (struct inl_links){ .fd = -1 };
}

void inl_links_done(struct inl_links *links)
{
	free(links->slots);
	if (links->fd >= 0)
		close(links->fd);
	inl_links_init(links);
}

/* The slot that holds ino, or the empty one where it belongs. */
static struct inl_link_slot *slot_of(struct inl_link_slot *slots, uint32_t n_slots, uint32_t ino)
{
	uint32_t i = ino * UINT32_C(2654435769);

	for (i ^= i >> 16;; i++) {
		struct inl_link_slot *slot = &slots[i & (n_slots - 1)];

		if (!slot->ino || slot->ino == ino)
			return slot;
	}
}

static int grow(struct inl_links *links)
{
	uint32_t n_slots = links->n_slots ? links->n_slots * 2 : SLOTS_MIN;
	struct inl_link_slot *slots;

	if (n_slots > SLOTS_MAX)
		return -EOVERFLOW;
	slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return -EOVERFLOW;
	for (uint32_t i = 0; i < links->n_slots; i++) {
		if (links->slots[i].ino)
			*slot_of(slots, n_slots, links->slots[i].ino) = links->slots[i];
	}
	free(links->slots);
	links->slots = slots;
	links->n_slots = n_slots;
	return 0;
}

static int open_file(struct inl_links *links, int top_fd)
{
	char name[INL_TEMP_NAME_SIZE];

	links->fd = openat(top_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (links->fd >= 0)
		return 0;
	inl_get_temp_name(name);
	links->fd = openat(top_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (links->fd < 0)
		return -errno;
	unlinkat(top_fd, name, 0);
	return 0;
}

static int write_record(struct inl_links *links, const char *path, size_t len, const struct stat *st)
{
	struct record record = { .dev = st->st_dev, .ino = st->st_ino, .len = len };
	struct iovec parts[] = { { &record, sizeof(record) }, { (void *)path, len } };
	ssize_t n = pwritev(links->fd, parts, 2, (off_t)links->end);

	if (n < 0)
		return -errno;
	return (size_t)n == sizeof(record) + len ? 0 : -ENOSPC;
}

int inl_links_add(struct inl_links *links, int top_fd, uint32_t ino, const char *path, size_t len,
		  const struct stat *st)
{
	struct inl_link_slot *slot;
	int err = 0;

	if (links->fd < 0)
		err = open_file(links, top_fd);
	if (!err && links->end / UNIT > UINT32_MAX)
		err = -EOVERFLOW;
	if (!err && links->n >= links->n_slots / 4 * 3)
		err = grow(links);
	if (!err)
		err = write_record(links, path, len, st);
	if (err)
		return err;
	slot = slot_of(links->slots, links->n_slots, ino);
	links->n += !slot->ino;
	*slot = (struct inl_link_slot){ .ino = ino, .at = (uint32_t)(links->end / UNIT) };
	links->end += (sizeof(struct record) + len + UNIT - 1) / UNIT * UNIT;
	return 0;
}

char *inl_links_find(const struct inl_links *links, uint32_t ino, struct stat *st)
{
	const struct inl_link_slot *slot;
	struct record record;
	char *path;
	off_t at;

	if (!links->n)
		return NULL;
	slot = slot_of(links->slots, links->n_slots, ino);
	at = (off_t)slot->at * UNIT;
	if (!slot->ino || pread(links->fd, &record, sizeof(record), at) != sizeof(record))
		return NULL;
	path = inl_cli_alloc(record.len + 1);
	if (pread(links->fd, path, record.len, at + (off_t)sizeof(record)) == (ssize_t)record.len) {
		st->st_dev = record.dev;
		st->st_ino = record.ino;
		return path;
	}
	free(path);
	return NULL;
}
