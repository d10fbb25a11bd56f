/*
 * cli/mine.c: what this run of `inlay get` put into the destination, or left alone there, in bounded memory.
 * Not here: what is done with something that is in the way (cli/place.c, cli/walk.c).
 * Read more: cli/get.h.
 *
 * A directory with two entries of one name (a damaged volume), or a destination that takes "a" and "A" for one name:
 * the second must not replace the first. A bit per inode of the destination, modulo their number, says that there is
 * reason to look; then the names that came before in the same directory decide.
 */
#include "cli/get.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define N_BITS    (UINT64_C(1) << 27) /* 16 MiB, paged in on demand */
#define LOOKS_MAX UINT64_C(10000000)  /* names that are looked at in one run: a volume of twins comes to its end too */

int inl_mine_init(struct inl_get *get)
{
	get->mine = mmap(NULL, N_BITS / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (get->mine != MAP_FAILED)
		return 0;
	get->mine = NULL;
	return -ENOMEM;
}

void inl_mine_done(struct inl_get *get)
{
	if (get->mine)
		munmap(get->mine, N_BITS / 8);
	get->mine = NULL;
}

static uint64_t bit_of(const struct stat *st)
{
	return (st->st_ino ^ st->st_ino / N_BITS) % N_BITS;
}

void inl_mine_add(struct inl_get *get, const struct stat *st)
{
	get->mine[bit_of(st) / 8] |= (uint8_t)(1u << bit_of(st) % 8);
}

/*
 * Is this what an earlier entry became? One that has another name and several links may be another link to it: then
 * this cannot be told, and it passes for one.
 */
static bool became(const struct inl_get *get, const struct inl_dirent *earlier, const char *name, const struct stat *st)
{
	struct stat there;

	if (earlier->status || fstatat(get->dir_fd, earlier->name, &there, AT_SYMLINK_NOFOLLOW))
		return false;
	if (there.st_dev != st->st_dev || there.st_ino != st->st_ino)
		return false;
	return S_ISDIR(st->st_mode) || st->st_nlink == 1 || !strcmp(earlier->name, name);
}

/* Where this cannot be found out, it passes for true: nothing is lost by that. */
static bool is_earlier(struct inl_get *get, const char *name, const struct stat *st)
{
	const struct inl_frame *frame = &get->frames[get->n_frames - 1];
	uint64_t left = frame->n_entries;
	struct inl_inode *inode = NULL;
	struct inl_dir *cursor = NULL;
	struct inl_dirent earlier;
	bool found = inl_inode_get(get->cli->vol, frame->ino, NULL, &inode) || inl_dir_open(inode, NULL, &cursor);

	while (!found) {
		int got = inl_dir_next(cursor, &earlier, NULL);

		/* The last of these is the entry itself. */
		if (!got || (got > 0 && !--left))
			break;
		found = inl_cli_interrupted() || get->n_looks++ >= LOOKS_MAX ||
			(got > 0 && became(get, &earlier, name, st));
	}
	inl_dir_close(cursor);
	inl_inode_put(inode);
	return found;
}

int inl_mine_check(struct inl_get *get, const char *name, const struct stat *st)
{
	if (!get->n_frames || !(get->mine[bit_of(st) / 8] & (1u << bit_of(st) % 8)) || !is_earlier(get, name, st))
		return 0;
	get->diag = (struct inl_diag){ 0 };
	return inl_get_failed(
		get, INL_SOURCE,
		inl_diag_set(&get->diag, -EEXIST, "the export already has an entry of this directory under this name"));
}
