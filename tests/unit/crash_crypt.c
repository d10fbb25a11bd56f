/*
 * tests/unit/crash_crypt.c: encryption in the crash harness: keys, plaintext on the medium, volumes without their keys,
 * what is behind the ends of files.
 * Not here: which points are tried in which way (crash_points.c).
 * Read more: crash.h; Linux Documentation/filesystems/fscrypt.rst, "Access semantics".
 */
#include "crash.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void master_key(uint8_t key[INL_MASTER_KEY_MAX])
{
	for (unsigned i = 0; i < INL_MASTER_KEY_MAX; i++)
		key[i] = (uint8_t)(7 * i + 3);
}

void cr_policy(const struct cr_crypt *crypt, struct inl_policy *policy)
{
	uint8_t key[INL_MASTER_KEY_MAX];

	master_key(key);
	*policy = (struct inl_policy){ .version = 2, .contents_mode = INL_FSCRYPT_AES_256_XTS,
				       .filenames_mode = INL_FSCRYPT_AES_256_CTS, .flags = crypt->flags,
				       .log2_data_unit_size = crypt->unit_bits };
	if (inl_key_spec_derive(key, crypt->key_len, 2, &policy->key))
		abort();
}

struct inl_keyring *cr_keys_new(const struct cr_crypt *crypt)
{
	uint8_t key[INL_MASTER_KEY_MAX];
	struct inl_keyring *keys;

	if (!crypt)
		return NULL;
	master_key(key);
	if (inl_keyring_new(&keys) || inl_keyring_add(keys, key, crypt->key_len, NULL))
		abort();
	return keys;
}

static struct {
	uintptr_t from, to;
} secrets;

void cr_secrets_note(void)
{
	uint8_t *probe = inl_secret_alloc(1);
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512];

	if (!probe || !f)
		abort();
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= (uintptr_t)probe && (uintptr_t)probe < to) {
			secrets.from = from;
			secrets.to = to;
		}
	}
	fclose(f);
	inl_secret_free(probe);
}

void cr_secrets_renew(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	void *at = (void *)secrets.from;

	if (mmap(at, secrets.to - secrets.from, PROT_READ | PROT_WRITE, flags, -1, 0) != at)
		abort();
}

/* ---- plaintext on the medium ------------------------------------------------------------------------------------- */

uint8_t cr_mark[CR_MARK], cr_control[CR_MARK];

/* Fit for names: neither NUL nor '/', and of UTF-8. */
static void draw_mark(struct cr_dice *dice, uint8_t mark[CR_MARK])
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (unsigned i = 0; i < CR_MARK; i++)
		mark[i] = (uint8_t)letters[cr_below(dice, sizeof(letters) - 1)];
}

void cr_marks_draw(uint64_t seed)
{
	struct cr_dice dice = { seed ^ UINT64_C(0x6d61726b) };

	draw_mark(&dice, cr_mark);
	draw_mark(&dice, cr_control);
}

void cr_mark_put(uint8_t *bytes, size_t len, size_t from, size_t step)
{
	for (size_t at = from; at + CR_MARK <= len; at += step)
		memcpy(bytes + at, cr_mark, CR_MARK);
}

bool cr_mark_find(const uint8_t *bytes, size_t len, const uint8_t mark[CR_MARK], size_t *at)
{
	const uint8_t *found = memmem(bytes, len, mark, CR_MARK);

	if (found)
		*at = (size_t)(found - bytes);
	return found;
}

int cr_control_make(struct inl_volume *vol, struct inl_diag *diag)
{
	struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_inode *top = NULL, *inode = NULL;
	uint8_t bytes[3 * CR_MARK + 1] = { 0 };
	size_t done;
	int err = inl_inode_get(vol, INL_ROOT_INO, diag, &top);

	memcpy(bytes + CR_MARK + 1, cr_control, CR_MARK); /* at an odd place */
	if (!err)
		err = inl_create(top, "control", 7, &attr, 0, diag, &inode);
	if (!err)
		err = inl_write(inode, 0, bytes, sizeof(bytes), &done, diag);
	inl_inode_put(inode);
	inl_inode_put(top);
	return err;
}

bool cr_marks_judge(const uint8_t *bytes, size_t len, char text[CR_TEXT])
{
	size_t at;

	if (cr_mark_find(bytes, len, cr_mark, &at)) {
		snprintf(text, CR_TEXT, "plaintext of what is encrypted: '%.8s' at byte %zu", bytes + at, at);
		return false;
	}
	if (cr_mark_find(bytes, len, cr_control, &at))
		return true;
	snprintf(text, CR_TEXT, "the search for plaintext does not find that of a plain file");
	return false;
}

/* ---- all that is below a directory ------------------------------------------------------------------------------- */

/* Visits each name, what is in a directory before the directory. */
struct tour {
	struct inl_volume *vol;
	char *text;
	bool (*visit)(struct tour *tour, struct inl_inode *dir, const struct inl_dirent *entry, struct inl_inode *inode);
	const uint8_t *before, *now; /* of a visit, as all that follows */
	struct cr_dice *dice;
};

static bool failed(const struct tour *tour, const char *what, uint64_t ino, int err, const struct inl_diag *diag)
{
	snprintf(tour->text, CR_TEXT, "%s, inode %llu: %d (%.400s)", what, (unsigned long long)ino, err,
		 diag ? diag->text : "");
	return false;
}

/* The visit may remove names: all are read first. */
static bool list(const struct tour *tour, struct inl_inode *dir, struct inl_dirent **entries, size_t *n)
{
	struct inl_diag diag = { 0 };
	struct inl_dir *at;
	size_t room = 0;
	int err = inl_dir_open(dir, &diag, &at);

	*entries = NULL;
	*n = 0;
	if (err)
		return failed(tour, "cannot open a directory", 0, err, &diag);
	do {
		if (*n == room) {
			room = 2 * room + 16;
			*entries = reallocarray(*entries, room, sizeof(**entries));
		}
		err = inl_dir_next(at, &(*entries)[*n], &diag);
		*n += err == 1;
	} while (err == 1);
	inl_dir_close(at);
	return !err || failed(tour, "cannot read a directory", 0, err, &diag);
}

static bool tour_dir(struct tour *tour, struct inl_inode *dir);

static bool tour_entry(struct tour *tour, struct inl_inode *dir, const struct inl_dirent *entry)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *inode;
	int err = inl_inode_get(tour->vol, entry->ino, &diag, &inode);
	bool good = true;

	if (err)
		return failed(tour, "cannot get", entry->ino, err, &diag);
	if (entry->type == DT_DIR)
		good = tour_dir(tour, inode);
	good = good && tour->visit(tour, dir, entry, inode);
	inl_inode_put(inode);
	return good;
}

static bool tour_dir(struct tour *tour, struct inl_inode *dir)
{
	struct inl_dirent *entries;
	size_t n;
	bool good = list(tour, dir, &entries, &n);

	for (size_t i = 0; good && i < n; i++)
		good = tour_entry(tour, dir, &entries[i]);
	free(entries);
	return good;
}

static bool tour_root(struct tour *tour, const char *root)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *dir;
	int err = inl_path(tour->vol, root, false, &diag, &dir);
	bool good;

	if (err)
		return failed(tour, "cannot find the first directory", 0, err, &diag);
	good = tour_dir(tour, dir);
	inl_inode_put(dir);
	return good;
}

/* ---- without the key --------------------------------------------------------------------------------------------- */

/* Nothing has been written to the data of a file. */
static bool same_data(const struct tour *tour, struct inl_inode *inode, const struct inl_stat *st)
{
	struct inl_diag diag = { 0 };
	struct inl_extent run;

	for (uint64_t at = 0; tour->before && at < st->size; at += run.len) {
		int err = inl_inode_extent(inode, at, &run, &diag);
		uint64_t len = (run.len + CR_SECTOR - 1) / CR_SECTOR * CR_SECTOR; /* with what is behind the end */

		if (err)
			return failed(tour, "cannot see the map", st->ino, err, &diag);
		if (run.kind == INL_EXTENT_DATA && memcmp(tour->before + run.phys, tour->now + run.phys, len))
			return failed(tour, "data was written without the key", st->ino, 0, NULL);
	}
	return true;
}

static bool is_sealed(const struct tour *tour, struct inl_inode *inode, const struct inl_stat *st)
{
	struct inl_diag diag = { 0 };
	char target[INL_NAME_MAX * 8], byte;
	size_t len;
	int err;

	if (S_ISREG(st->mode)) {
		err = inl_read(inode, 0, &byte, 1, &len, &diag);
		return err == -ENOKEY || failed(tour, "read without the key", st->ino, err, &diag);
	}
	err = S_ISLNK(st->mode) ? inl_readlink(inode, target, sizeof(target), &len, &diag) : 0;
	return !err || failed(tour, "no target without the key", st->ino, err, &diag);
}

static bool see_locked(struct tour *tour, struct inl_inode *dir, const struct inl_dirent *entry, struct inl_inode *inode)
{
	struct inl_diag diag = { 0 };
	struct inl_stat st;
	uint64_t ino = 0;
	int err = inl_inode_stat(inode, &st, &diag);

	if (err || entry->status || !entry->nokey)
		return failed(tour, "a name that is no no-key name", entry->ino, err, &diag);
	err = inl_lookup(dir, entry->name, entry->len, &ino, &diag);
	if (err || ino != entry->ino)
		return failed(tour, "a no-key name leads elsewhere", entry->ino, err, &diag);
	return is_sealed(tour, inode, &st) && (!S_ISREG(st.mode) || same_data(tour, inode, &st));
}

bool cr_locked_judge(struct inl_volume *vol, const char *root, const uint8_t *before, const uint8_t *now,
		     char text[CR_TEXT])
{
	struct tour tour = { .vol = vol, .text = text, .visit = see_locked, .before = before, .now = now };

	return tour_root(&tour, root);
}

static bool remove_it(struct tour *tour, struct inl_inode *dir, const struct inl_dirent *entry, struct inl_inode *inode)
{
	struct inl_diag diag = { 0 };
	int err = entry->type == DT_DIR ? inl_rmdir(dir, entry->name, entry->len, &diag) :
					  inl_unlink(dir, entry->name, entry->len, &diag);

	(void)inode;
	return !err || failed(tour, "cannot remove", entry->ino, err, &diag);
}

bool cr_locked_remove(struct inl_volume *vol, const char *root, char text[CR_TEXT])
{
	struct tour tour = { .vol = vol, .text = text, .visit = remove_it };
	struct inl_diag diag = { 0 };
	struct inl_inode *top;
	int err;

	if (!tour_root(&tour, root))
		return false;
	err = inl_inode_get(vol, INL_ROOT_INO, &diag, &top);
	if (!err) {
		err = inl_rmdir(top, root, strlen(root), &diag);
		inl_inode_put(top);
	}
	return !err || failed(&tour, "cannot remove the first directory", 0, err, &diag);
}

/* ---- behind the ends of files ------------------------------------------------------------------------------------ */

/* Make a file longer by n bytes: a hole; a byte behind a hole; blocks that are not written. */
static int extend(struct inl_inode *inode, uint64_t size, uint32_t n, uint32_t how, struct inl_diag *diag)
{
	size_t done;

	if (how == 0)
		return inl_truncate(inode, size + n, diag);
	if (how == 1)
		return inl_write(inode, size + n - 1, "", 1, &done, diag);
	return inl_fallocate(inode, 0, size, n, diag);
}

static bool see_tail(struct tour *tour, struct inl_inode *dir, const struct inl_dirent *entry, struct inl_inode *inode)
{
	static const uint8_t zeros[6000];
	uint32_t n = cr_between(tour->dice, 1, sizeof(zeros)), how = cr_below(tour->dice, 3);
	struct inl_diag diag = { 0 };
	uint8_t bytes[sizeof(zeros)];
	struct inl_stat st;
	size_t got;
	int err = inl_inode_stat(inode, &st, &diag);

	(void)dir;
	if (err)
		return failed(tour, "stat", entry->ino, err, &diag);
	if (!S_ISREG(st.mode))
		return true;
	err = extend(inode, st.size, n, how, &diag);
	if (err == -ENOSPC)
		return true;
	if (err)
		return failed(tour, "cannot make longer", entry->ino, err, &diag);
	err = inl_read(inode, st.size, bytes, n, &got, &diag);
	if (err || got != n)
		return failed(tour, "cannot read behind the old end", entry->ino, err, &diag);
	return !memcmp(bytes, zeros, n) || failed(tour, "no zeros behind the old end", entry->ino, (int)how, NULL);
}

bool cr_tails_judge(struct inl_volume *vol, const char *root, struct cr_dice *dice, char text[CR_TEXT])
{
	struct tour tour = { .vol = vol, .text = text, .visit = see_tail, .dice = dice };

	return tour_root(&tour, root);
}
