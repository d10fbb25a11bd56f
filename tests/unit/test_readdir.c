/*
 * tests/unit/test_readdir.c: iterating over directories that change meanwhile: nothing twice, nothing left out; the
 * order and the positions are the kernel's.
 * Not here: what the changes do (test_dirmod.c, test_namei.c).
 * Read more: inlay/volume.h, "directories"; ext4/readdir.c.
 *
 * Some names of a directory stay, others come and go; each name of the latter is used once. Hashes can be made worse
 * than they are: then many names have the same one, and an image is not one for others to see.
 */
#include "namei_rig.h"
#include "ext4/dirmod.h"
#include <dirent.h>
#include <linux/fscrypt.h>
#include <pthread.h>
#include <sys/ioctl.h>

enum { N_DAMAGED = 300, MAX_STAYING = 3000, MAX_PASSING = 40000, MAX_LIST = 4000 };

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static uint32_t hash_mask, minor_mask; /* 0 as the former: as they are */

errcode_t __real_ext2fs_dirhash2(int version, const char *name, int len, const struct ext2fs_nls_table *charset,
				 int hash_flags, const __u32 *hash_seed, ext2_dirhash_t *hash, ext2_dirhash_t *minor);
errcode_t __wrap_ext2fs_dirhash2(int version, const char *name, int len, const struct ext2fs_nls_table *charset,
				 int hash_flags, const __u32 *hash_seed, ext2_dirhash_t *hash, ext2_dirhash_t *minor);
errcode_t __wrap_ext2fs_dirhash2(int version, const char *name, int len, const struct ext2fs_nls_table *charset,
				 int hash_flags, const __u32 *hash_seed, ext2_dirhash_t *hash, ext2_dirhash_t *minor)
{
	errcode_t err = __real_ext2fs_dirhash2(version, name, len, charset, hash_flags, hash_seed, hash, minor);

	if (hash_mask) {
		*hash &= hash_mask;
		*minor &= minor_mask;
	}
	return err;
}

/* ---- a directory ------------------------------------------------------------------------------------------------- */

struct kind {
	const char *label, *mkfs, *after;
	uint32_t hash_mask, minor_mask;
	bool by_blocks, encrypted;
	unsigned len; /* of names, at least */
};

static const struct kind kinds[] = {
	{ "half_md4", "-b 1024", NULL, .len = 60 },
	{ "4K", "-b 4096", NULL, .len = 100 },
	{ "legacy", "-b 1024", "tune2fs -E hash_alg=legacy a.img", .len = 120 },
	{ "tea, no checksums", "-b 1024 -O ^metadata_csum", "tune2fs -E hash_alg=tea a.img", .len = 200 },
	{ "no index", "-b 1024 -O ^dir_index", NULL, .by_blocks = true, .len = 40 },
	{ "hashes go on", "-b 1024", NULL, 0x30000000, 0xffffffff, .len = 150 },
	{ "few hashes", "-b 1024", NULL, 0x0f000000, 0x00000003, .len = 90 },
	{ "encrypted", "-b 1024 -O encrypt", NULL, .encrypted = true, .len = 50 },
};

/* Names that pass are numbered from MAX_STAYING on. */
struct world {
	const struct kind *kind;
	struct disk disk;
	struct inl_keyring *keys;
	struct inl_inode *dir, *file;
	unsigned n_staying, n_passing; /* so far */
	unsigned live[MAX_PASSING], n_live;
	unsigned most; /* that pass at a time: else they may come faster than they are met */
	uint8_t seen[MAX_STAYING + MAX_PASSING];
	unsigned broken; /* byte of the root block */
};

static struct world world;
static const uint8_t master[64] = { 9, 8, 7, 6, 5 };

static size_t name_of(const struct world *w, unsigned id, char *name)
{
	size_t len = (size_t)sprintf(name, "%u.\xe4%x", id, id * 2654435761u);
	size_t want = w->kind->len + id % 7;

	for (; len < want; len++)
		name[len] = (char)('a' + (id + len) % 26);
	name[len] = 0;
	return len;
}

static int add_name(struct world *w, unsigned id)
{
	char name[300];
	size_t len = name_of(w, id, name);

	return inl_link(w->file, w->dir, name, len, NULL);
}

static int remove_name(struct world *w, unsigned id)
{
	char name[300];
	size_t len = name_of(w, id, name);

	return inl_unlink(w->dir, name, len, NULL);
}

/* One name comes, goes, or gets another name. */
static int pass(struct world *w, unsigned what)
{
	char from[300], to[300];
	unsigned i = w->n_live ? what / 256 % w->n_live : 0, id = w->live[i];
	int err;

	if (!w->n_live || (what % 256 < 110 && w->n_live < w->most)) {
		if (w->n_passing == MAX_PASSING)
			return 0;
		err = add_name(w, MAX_STAYING + w->n_passing);
		w->live[w->n_live++] = MAX_STAYING + w->n_passing++;
		return err;
	}
	w->live[i] = w->live[--w->n_live];
	if (what % 256 < 200 || w->n_passing == MAX_PASSING)
		return remove_name(w, id);
	w->live[w->n_live++] = MAX_STAYING + w->n_passing;
	return inl_rename(w->dir, from, name_of(w, id, from), w->dir, to, name_of(w, MAX_STAYING + w->n_passing++, to), 0,
			  NULL);
}

static void stay(struct world *w, unsigned n)
{
	while (n--)
		assert_int_equal(add_name(w, w->n_staying++), 0);
}

static void make_keys(struct world *w, struct inl_policy *policy)
{
	*policy = (struct inl_policy){ .version = 2, .contents_mode = FSCRYPT_MODE_AES_256_XTS,
				       .filenames_mode = FSCRYPT_MODE_AES_256_CTS, .flags = FSCRYPT_POLICY_FLAGS_PAD_32 };
	assert_int_equal(inl_keyring_new(&w->keys), 0);
	assert_int_equal(inl_keyring_add(w->keys, master, sizeof(master), NULL), 0);
	assert_int_equal(inl_key_spec_derive(master, sizeof(master), 2, &policy->key), 0);
}

/* The first name that stays is the file that all others are links of. */
static void world_begin(struct world *w, const struct kind *kind)
{
	struct inl_policy policy;
	char path[320] = "/d/";

	memset(w, 0, sizeof(*w));
	w->kind = kind;
	w->most = 200;
	make_keys(w, &policy);
	run("rm -f a.img && truncate -s 24M a.img && mke2fs -Fq -t ext4 -I 256 -N 64 %s a.img", kind->mkfs);
	if (kind->after)
		run("%s", kind->after);
	hash_mask = kind->hash_mask;
	minor_mask = kind->minor_mask;
	disk_open_keys(&w->disk, "a.img", w->keys, INL_VOLUME_WRITE);
	assert_int_equal(make(w->disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	w->dir = get(w->disk.vol, "/d");
	if (kind->encrypted)
		assert_int_equal(inl_set_policy(w->dir, &policy, NULL, NULL), 0);
	name_of(w, w->n_staying++, path + 3);
	assert_int_equal(make(w->disk.vol, path, S_IFREG | 0644, 0, 0), 0);
	w->file = get(w->disk.vol, path);
}

static void world_put(struct world *w)
{
	inl_inode_put(w->dir);
	inl_inode_put(w->file);
	disk_close(&w->disk);
}

static void world_end(struct world *w)
{
	world_put(w);
	inl_keyring_free(w->keys);
	if (!hash_mask)
		fsck("a.img");
	hash_mask = 0;
}

/* ---- one pass over it -------------------------------------------------------------------------------------------- */

struct pass {
	struct world *world;
	struct inl_dir *it;
	uint64_t sought; /* the last seek; UINT64_MAX: none */
	uint64_t pos;	 /* of the last entry */
	unsigned n;
};

static unsigned id_of(const struct world *w, const struct inl_dirent *entry)
{
	unsigned id = (unsigned)atoi(entry->name);
	char name[300];

	assert_int_equal(entry->status, 0);
	assert_int_equal(entry->len, name_of(w, id, name));
	assert_string_equal(entry->name, name);
	assert_int_equal(entry->ino, w->file->ino);
	return id;
}

static void pass_begin(struct pass *p, struct world *w)
{
	*p = (struct pass){ .world = w, .sought = UINT64_MAX };
	memset(w->seen, 0, sizeof(w->seen));
	assert_int_equal(inl_dir_open(w->dir, NULL, &p->it), 0);
	assert_int_equal(inl_dir_tell(p->it), 0);
}

/* What the iteration would do again after a seek: names of the same hash. */
static bool is_again(const struct pass *p, const struct inl_dirent *entry)
{
	return entry->pos == p->sought && (p->world->kind->hash_mask || strstr(p->world->kind->label, "legacy"));
}

static bool step(struct pass *p)
{
	struct inl_dirent entry;
	int got = inl_dir_next(p->it, &entry, NULL);
	unsigned id;

	assert_true(got >= 0);
	assert_true(inl_dir_tell(p->it) <= INL_DIR_POS_LAST);
	if (!got)
		return false;
	id = id_of(p->world, &entry);
	if (p->world->seen[id] && !is_again(p, &entry)) {
		print_error("%s: %s comes again\n", p->world->kind->label, entry.name);
		fail();
	}
	p->world->seen[id] = 1;
	assert_true(entry.pos >= INL_DIR_POS_FIRST);
	assert_true(entry.pos >= p->pos || entry.pos >= p->sought);
	assert_true(inl_dir_tell(p->it) >= entry.pos);
	p->pos = entry.pos;
	p->n++;
	return true;
}

static void pass_end(struct pass *p)
{
	struct world *w = p->world;

	for (unsigned id = 0; id < w->n_staying; id++) {
		if (!w->seen[id])
			print_error("%s: name %u was left out\n", w->kind->label, id);
		assert_true(w->seen[id]);
	}
	assert_int_equal(inl_dir_next(p->it, &(struct inl_dirent){ 0 }, NULL), 0);
	inl_dir_close(p->it);
}

/* On the same iterator, or another one. */
static void go_on(struct pass *p, bool other)
{
	p->sought = inl_dir_tell(p->it);
	if (other) {
		inl_dir_close(p->it);
		assert_int_equal(inl_dir_open(p->world->dir, NULL, &p->it), 0);
	}
	inl_dir_seek(p->it, p->sought);
	assert_int_equal(inl_dir_tell(p->it), p->sought);
}

enum { SEEK = 1, OTHER = 2 };

static void changing_pass(struct world *w, unsigned how, unsigned changes)
{
	struct pass p;
	bool more = true;

	pass_begin(&p, w);
	while (more) {
		for (unsigned i = draw(4); more && i; i--)
			more = step(&p);
		for (unsigned i = draw(changes); i; i--)
			assert_int_equal(pass(w, draw(1 << 24)), 0);
		if (more && (how & SEEK) && draw(3) == 0)
			go_on(&p, how & OTHER);
	}
	pass_end(&p);
}

/* From a block with a few names to an index of some levels and back to few names. */
static void test_changing(void **state)
{
	needs_tools();
	for (size_t k = 0; k < COUNT(kinds); k++) {
		struct world *w = &world;

		seed = k + 1;
		world_begin(w, &kinds[k]);
		stay(w, 4);
		for (unsigned i = 0; i < 9; i++) {
			changing_pass(w, i % 3, i % 2 ? 4 : 10);
			stay(w, i < 6 ? 10u << i / 2 : 0);
		}
		while (w->n_live)
			assert_int_equal(pass(w, 199), 0);
		changing_pass(w, SEEK, 3);
		world_end(w);
	}
}

/* A name in every step, so many that each makes its leaf, the nodes and the tree grow while they are iterated over. */
static void test_splitting(void **state)
{
	static const struct kind kind = { "splits", "-b 1024", NULL, .len = 240 };
	struct world *w = &world;
	bool more = true;
	struct pass p;

	needs_tools();
	world_begin(w, &kind);
	w->most = MAX_PASSING;
	stay(w, 500);
	pass_begin(&p, w);
	for (unsigned i = 0; more && i < 800; i++) {
		more = step(&p);
		if (i % 3 == 0)
			go_on(&p, i % 2);
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(pass(w, 0), 0);
	}
	while (more)
		more = step(&p);
	pass_end(&p);
	assert_true(w->dir->size > 250 * 1024); /* more leaves than one node has */
	changing_pass(w, OTHER, 2);
	world_end(w);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

struct listed {
	uint64_t pos, next; /* next: told behind it */
	unsigned id;
};

static struct listed list[MAX_LIST];

static unsigned make_list(struct world *w)
{
	struct inl_dirent entry;
	struct inl_dir *it;
	unsigned n = 0;

	assert_int_equal(inl_dir_open(w->dir, NULL, &it), 0);
	for (; inl_dir_next(it, &entry, NULL) == 1; n++) {
		assert_true(n < MAX_LIST);
		list[n] = (struct listed){ entry.pos, inl_dir_tell(it), id_of(w, &entry) };
	}
	inl_dir_close(it);
	return n;
}

/* From a position of entry i come that entry, or others of the same hash first, and then the rest. */
static void check_rest(struct world *w, struct inl_dir *it, unsigned i, unsigned n, unsigned most)
{
	struct inl_dirent entry;

	inl_dir_seek(it, list[i].pos);
	while (i && list[i - 1].pos == list[i].pos)
		i--;
	for (; i < n && most--; i++) {
		assert_int_equal(inl_dir_next(it, &entry, NULL), 1);
		assert_int_equal(id_of(w, &entry), list[i].id);
		assert_true(entry.pos == list[i].pos);
		assert_true(inl_dir_tell(it) == list[i].next);
	}
	if (i == n)
		assert_int_equal(inl_dir_next(it, &entry, NULL), 0);
}

static void check_hashes(struct world *w, unsigned n)
{
	const struct ext2_super_block *sb = w->disk.vol->fs->super;

	for (unsigned i = 0; i < n; i++) {
		uint32_t hash, minor;
		char name[300];
		size_t len = name_of(w, list[i].id, name);

		assert_int_equal(inl_dir_hash(w->dir, sb->s_def_hash_version, (const uint8_t *)name, len, &hash, &minor), 0);
		assert_true(list[i].pos == ((uint64_t)(hash >> 1) << 32 | minor));
	}
}

static void test_seek(void **state)
{
	needs_tools();
	for (size_t k = 0; k < COUNT(kinds); k++) {
		struct world *w = &world;
		struct inl_dir *it;
		unsigned n;

		world_begin(w, &kinds[k]);
		stay(w, 300);
		n = make_list(w);
		assert_int_equal(n, 301);
		assert_int_equal(inl_dir_open(w->dir, NULL, &it), 0);
		for (unsigned i = 0; i < n; i++)
			check_rest(w, it, i, n, i % 8 ? 10 : n);
		for (uint64_t pos = 0; pos < INL_DIR_POS_FIRST; pos++) {
			inl_dir_seek(it, pos);
			assert_int_equal(inl_dir_tell(it), 0);
			assert_int_equal(inl_dir_next(it, &(struct inl_dirent){ 0 }, NULL), 1);
			assert_true(inl_dir_tell(it) == list[0].next);
		}
		for (unsigned i = 0; i < 3; i++) {
			inl_dir_seek(it, i == 0 ? INL_DIR_POS_LAST : i == 1 ? INT64_MAX : UINT64_MAX);
			assert_int_equal(inl_dir_next(it, &(struct inl_dirent){ 0 }, NULL), 0);
		}
		inl_dir_close(it);
		if (!kinds[k].by_blocks && !kinds[k].encrypted && !kinds[k].hash_mask)
			check_hashes(w, n);
		world_end(w);
	}
}

/* From each of n positions, that of the end too, comes what stayed of what was behind it then. */
static void check_positions(struct world *w, unsigned n)
{
	for (unsigned i = 0; i <= n; i++) {
		uint64_t pos = i < n ? list[i].pos : list[n - 1].next;
		struct pass p;

		pass_begin(&p, w);
		inl_dir_seek(p.it, p.sought = pos);
		while (step(&p))
			;
		inl_dir_close(p.it);
		for (unsigned j = 0; j < n; j++)
			if (list[j].id < MAX_STAYING)
				assert_int_equal(w->seen[list[j].id], i < n && list[j].pos >= pos);
	}
}

/* Positions that were told when the directory had one block are good as long as the volume is open. */
static void test_old_positions(void **state)
{
	needs_tools();
	for (size_t k = 0; k < COUNT(kinds); k++) {
		struct world *w = &world;
		unsigned n;

		seed = k + 1;
		world_begin(w, &kinds[k]);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(pass(w, 0), 0);
			stay(w, i != 1);
		}
		n = make_list(w);
		assert_int_equal(n, 6);
		for (unsigned turn = 0; turn < 6; turn++) {
			for (unsigned i = 0; i < (turn < 2 ? 3 : 250); i++)
				assert_int_equal(pass(w, turn == 0 || turn == 4 ? 199 : draw(1 << 24)), 0);
			check_positions(w, n);
		}
		world_end(w);
	}
}

/* ---- many names of one hash: more than are kept in memory -------------------------------------------------------- */

static void test_one_hash(void **state)
{
	static const struct kind one = { "one hash", "-b 4096", NULL, 0x40000000, 0, .len = 248 };
	struct world *w = &world;
	struct inl_dir *it;
	struct pass p;
	unsigned n;

	needs_tools();
	world_begin(w, &one);
	stay(w, 2600);
	n = make_list(w);
	assert_int_equal(n, 2601);
	assert_true(list[0].pos == INL_DIR_POS_FIRST && list[n - 1].pos == UINT64_C(0x20000000) << 32);
	assert_int_equal(inl_dir_open(w->dir, NULL, &it), 0);
	check_rest(w, it, 1, n, n);
	check_rest(w, it, n - 1, n, n);
	inl_dir_close(it);
	pass_begin(&p, w);
	for (unsigned i = 0; step(&p); i++)
		if (i % 32 == 0)
			assert_int_equal(pass(w, draw(1 << 24)), 0);
	pass_end(&p);
	world_end(w);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct crowd {
	struct world *world;
	unsigned n_changes;
	atomic_bool end;
	atomic_uint n_passes;
};

static void *change_names(void *arg)
{
	struct crowd *crowd = arg;
	unsigned rng = 7;
	int err = 0;

	for (unsigned i = 0; !err && !crowd->end && (i < crowd->n_changes || crowd->n_passes < 6); i++)
		err = pass(crowd->world, (unsigned)rand_r(&rng));
	crowd->end = true;
	return (void *)(intptr_t)err;
}

/* Returns what went wrong. */
static void *iterate(void *arg)
{
	struct crowd *crowd = arg;
	struct world *w = crowd->world;
	const char *wrong = NULL;

	while (!wrong && !crowd->end) {
		unsigned seen[MAX_STAYING] = { 0 };
		struct inl_dirent entry;
		struct inl_dir *it;
		int got;

		if (inl_dir_open(w->dir, NULL, &it))
			return "open";
		while ((got = inl_dir_next(it, &entry, NULL)) == 1) {
			unsigned id = (unsigned)atoi(entry.name);

			if (id < MAX_STAYING)
				seen[id]++;
		}
		if (got)
			wrong = "error";
		for (unsigned id = 0; id < w->n_staying; id++)
			if (seen[id] != 1)
				wrong = seen[id] ? "twice" : "left out";
		inl_dir_close(it);
		crowd->n_passes++;
	}
	crowd->end = true;
	return (void *)wrong;
}

static void test_threads(void **state)
{
	static const size_t which[] = { 0, 5, 7 };

	needs_tools();
	for (size_t k = 0; k < COUNT(which); k++) {
		struct crowd crowd = { &world, 1500 };
		pthread_t threads[3];
		void *wrong[3];

		world_begin(&world, &kinds[which[k]]);
		stay(&world, 3);
		assert_int_equal(pthread_create(&threads[0], NULL, change_names, &crowd), 0);
		for (unsigned i = 1; i < 3; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, iterate, &crowd), 0);
		for (unsigned i = 0; i < 3; i++)
			pthread_join(threads[i], &wrong[i]);
		assert_null(wrong[0]);
		for (unsigned i = 1; i < 3; i++)
			if (wrong[i])
				print_error("%s: %s\n", kinds[which[k]].label, (const char *)wrong[i]);
		assert_null(wrong[1]);
		assert_null(wrong[2]);
		world_end(&world);
	}
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static uint64_t bad_from, bad_len; /* bytes of the device that cannot be read */

static void bad_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	uint64_t pos = bio->state.pos;

	if (bio->op == INL_READ && pos < bad_from + bad_len && bad_from < pos + bio->len)
		inl_bio_end(bio, -EIO);
	else
		disk_submit(dev, bio);
}

static const struct inl_dev_ops bad_ops = { .name = "bad", .submit = bad_submit };

/* The volume again, on a device of which a block of the directory cannot be read; 0 as len: all can. */
static void reopen(struct world *w, unsigned flags, uint64_t from, uint64_t len)
{
	struct inl_dev_params params = { .block_size = 512, .writable = true };

	disk_map(&w->disk, "a.img");
	inl_dev_close(w->disk.dev);
	params.size = w->disk.size;
	bad_from = bad_len = 0;
	assert_int_equal(inl_dev_new(&bad_ops, &w->disk, &params, &w->disk.dev), 0);
	assert_int_equal(inl_volume_open(w->disk.dev, w->keys, flags, NULL, &w->disk.vol), 0);
	w->dir = get(w->disk.vol, "/d");
	bad_from = from;
	bad_len = len;
}

static uint64_t place_of(struct world *w, uint64_t lblk)
{
	struct inl_run map;

	assert_int_equal(inl_map_look(w->dir, lblk, &map, NULL), 0);
	return (map.pblk + (lblk - map.lblk)) << w->disk.vol->block_bits;
}

/*
 * How many names come (sound: as they should be, each of them once), and how many errors. Errors must not stop anybody,
 * also not one who seeks.
 */
static unsigned count(struct world *w, bool seeks, bool sound, unsigned *n_errors)
{
	struct inl_dirent entry;
	struct inl_dir *it;
	unsigned n = 0, calls = 0;
	int got;

	memset(w->seen, 0, sizeof(w->seen));
	*n_errors = 0;
	assert_int_equal(inl_dir_open(w->dir, NULL, &it), 0);
	while ((got = inl_dir_next(it, &entry, NULL))) {
		uint64_t pos = inl_dir_tell(it);

		assert_true(calls++ < 10000);
		if (got == 1 && sound)
			assert_int_equal(w->seen[id_of(w, &entry)]++, 0);
		n += got == 1;
		*n_errors += got < 0;
		if (!seeks)
			continue;
		inl_dir_close(it);
		assert_int_equal(inl_dir_open(w->dir, NULL, &it), 0);
		inl_dir_seek(it, pos);
	}
	inl_dir_close(it);
	return n;
}

/* The volume in the state that world_begin and stay have left it in, with any inode as the one that all names have. */
static void reopen_for_names(struct world *w, unsigned flags, uint64_t bad, uint32_t ino)
{
	reopen(w, flags, bad, bad ? 1024 : 0);
	w->file = get(w->disk.vol, "/lost+found");
	w->file->ino = ino;
}

static void close_again(struct world *w)
{
	w->file->ino = 11;
	bad_len = 0;
	world_put(w);
}

enum { UNREADABLE, WRONG_SUM, WRONG_ENTRY };

/* Byte of a block that is to be wrong: in the middle of it, or the length of the second entry. */
static size_t wrong_byte(const struct world *w, uint64_t at, unsigned how)
{
	return (size_t)at + (how == WRONG_SUM ? 600 : inl_load_le16(w->disk.bytes + at + 4) % 900 + 4);
}

static void check_damaged(struct world *w, unsigned flags, unsigned how, uint64_t at, bool seeks, unsigned *n)
{
	uint32_t ino = w->file->ino;
	unsigned n_errors;
	size_t byte;

	world_put(w);
	disk_map(&w->disk, "a.img");
	byte = wrong_byte(w, at, how);
	if (how != UNREADABLE)
		w->disk.bytes[byte] ^= 3;
	disk_unmap(&w->disk);

	reopen_for_names(w, flags, how == UNREADABLE ? at : 0, ino);
	*n = count(w, false, true, &n_errors);
	assert_true(n_errors <= 1 && *n <= N_DAMAGED && *n >= N_DAMAGED - 5);
	assert_true(*n == N_DAMAGED || n_errors == 1);
	if (seeks) {
		unsigned before = n_errors;

		assert_int_equal(count(w, true, true, &n_errors), *n);
		assert_true(n_errors == before || hash_mask); /* a leaf that is come to twice is told of twice */
	}
	close_again(w);
	disk_map(&w->disk, "a.img");
	if (how != UNREADABLE)
		w->disk.bytes[byte] ^= 3;
	disk_unmap(&w->disk);
	reopen_for_names(w, 0, 0, ino);
}

/* A block that cannot be read, or is wrong, hides the names that are in it and no others. */
static void test_damaged_blocks(void **state)
{
	static const struct damaged {
		struct kind kind;
		unsigned how;
	} cases[] = {
		{ { "unreadable", "-b 1024", NULL, .len = 190 }, UNREADABLE },
		{ { "unreadable, hashes go on", "-b 1024", NULL, 0x30000000, 0xffffffff, .len = 190 }, UNREADABLE },
		{ { "wrong sum", "-b 1024", NULL, .len = 190 }, WRONG_SUM },
		{ { "wrong entry", "-b 1024 -O ^metadata_csum", NULL, .len = 190 }, WRONG_ENTRY },
		{ { "wrong entry, hashes go on", "-b 1024 -O ^metadata_csum", NULL, 0x30000000, 0xffffffff, .len = 190 },
		  WRONG_ENTRY },
	};

	needs_tools();
	for (size_t c = 0; c < 2 * COUNT(cases); c++) {
		unsigned flags = c & 1 ? INL_VOLUME_WRITE : 0, n_blocks, n, hidden = 0;
		const struct damaged *damaged = &cases[c / 2];
		struct world *w = &world;

		world_begin(w, &damaged->kind);
		stay(w, N_DAMAGED - 1);
		n_blocks = (unsigned)(w->dir->size / 1024);
		for (unsigned lblk = 0; lblk < n_blocks; lblk += lblk < 3 || lblk + 4 > n_blocks ? 1 : 7) {
			check_damaged(w, flags, damaged->how, place_of(w, lblk), lblk % 3 == 0, &n);
			hidden += n < N_DAMAGED;
		}
		assert_true(hidden > 9);
		close_again(w);
		inl_keyring_free(w->keys);
		hash_mask = 0;
	}
}

/* An index that has one leaf twice and another one not at all: all names are found, by blocks. */
static void test_index_twice(void **state)
{
	static const struct kind kind = { "twice", "-b 1024 -O ^metadata_csum", NULL, .len = 190 };
	struct world *w = &world;
	unsigned n_errors;
	uint32_t ino;
	uint64_t at;

	needs_tools();
	world_begin(w, &kind);
	stay(w, 99);
	at = place_of(w, 0) + INL_DX_ROOT_AT;
	ino = w->file->ino;
	world_put(w);
	disk_map(&w->disk, "a.img");
	memcpy(w->disk.bytes + at + 2 * 8 + 4, w->disk.bytes + at + 5 * 8 + 4, 4);
	disk_unmap(&w->disk);
	reopen_for_names(w, 0, 0, ino);
	assert_int_equal(count(w, false, true, &n_errors), 100);
	assert_int_equal(count(w, true, true, &n_errors), 100);
	assert_int_equal(n_errors, 0);
	close_again(w);
	inl_keyring_free(w->keys);
}

static int break_index(struct inl_handle *op, void *arg)
{
	struct world *w = arg;
	struct inl_dir_block root;
	uint8_t *bytes;
	int err = inl_dir_look(op, w->dir, 0, &root);

	if (!err)
		err = inl_block_change(op, root.pblk, &bytes);
	if (!err)
		bytes[w->broken] ^= 0x41;
	return err;
}

static void flip(struct world *w)
{
	assert_int_equal(inl_op_run(w->disk.vol, 4, break_index, w, NULL), 0);
}

/* An index that is damaged in the middle: who iterates goes on with what is left; who comes later finds everything. */
static void breaks_in_the_middle(struct world *w, bool hash_is_known)
{
	struct inl_dirent entry;
	unsigned n = 150, n_errors;
	uint64_t pos;
	struct pass p;

	stay(w, 399);
	pass_begin(&p, w);
	for (unsigned i = 0; i < n; i++)
		assert_true(step(&p));
	pos = inl_dir_tell(p.it);
	flip(w);
	for (; inl_dir_next(p.it, &entry, NULL) == 1; n++)
		assert_int_equal(w->seen[id_of(w, &entry)]++, 0);
	assert_int_equal(n, 400);
	inl_dir_close(p.it);
	assert_int_equal(count(w, false, true, &n_errors), 400);
	assert_int_equal(count(w, true, true, &n_errors), 400);
	/* A position from before. */
	pass_begin(&p, w);
	inl_dir_seek(p.it, pos);
	for (n = 0; inl_dir_next(p.it, &entry, NULL) == 1; n++)
		;
	assert_int_equal(n, hash_is_known ? 250 : 400);
	inl_dir_close(p.it);
	flip(w);
}

static void test_index_breaks(void **state)
{
	static const struct kind kind = { "breaks", "-b 1024 -O ^metadata_csum", NULL, .len = 100 };
	static const unsigned bytes[] = { 28, 31 }; /* the kind of hash; flags */

	needs_tools();
	for (size_t i = 0; i < COUNT(bytes); i++) {
		world_begin(&world, &kind);
		world.broken = bytes[i];
		breaks_in_the_middle(&world, i == 1);
		world_end(&world);
	}
}

/* ---- the kernel's order ------------------------------------------------------------------------------------------ */

static int add_key(const char *path)
{
	struct fscrypt_add_key_arg *add = test_calloc(1, sizeof(*add) + sizeof(master));
	int err, fd = open(path, O_RDONLY);

	add->key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
	add->raw_size = sizeof(master);
	memcpy(add->raw, master, sizeof(master));
	err = ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, add);
	close(fd);
	test_free(add);
	return err;
}

struct shown {
	uint64_t pos, ino; /* pos 0: not known */
	uint8_t type;
	char name[256];
};

static struct shown shown[MAX_LIST];

/* As the kernel lists it. Of a directory of one block the dots are somewhere between the others. */
static unsigned ask_kernel(void)
{
	DIR *dir = opendir(in_dir("mnt/d"));
	struct dirent *e;
	uint64_t next = 0;
	unsigned n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)) && n < MAX_LIST) {
		struct shown *entry = &shown[n];

		*entry = (struct shown){ next, e->d_ino, e->d_type, "" };
		strcpy(entry->name, e->d_name);
		n += !inl_is_dots(e->d_name, strlen(e->d_name));
		next = (uint64_t)e->d_off;
	}
	closedir(dir);
	return n;
}

/* Names and positions, one by one. */
static void compare_order(struct inl_keyring *keys, unsigned want)
{
	unsigned n = ask_kernel();
	struct inl_dirent entry;
	struct inl_inode *inode;
	struct inl_dir *it;
	struct disk disk;
	uint64_t told = 0;

	assert_int_equal(n, want);
	disk_open_keys(&disk, "a.img", keys, 0);
	inode = get(disk.vol, "/d");
	assert_int_equal(inl_dir_open(inode, NULL, &it), 0);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(inl_dir_next(it, &entry, NULL), 1);
		assert_string_equal(entry.name, shown[i].name);
		assert_int_equal(entry.ino, shown[i].ino);
		assert_int_equal(entry.type, shown[i].type);
		assert_true(entry.pos == shown[i].pos || !shown[i].pos);
		assert_true(entry.pos >= told);
		told = inl_dir_tell(it);
	}
	assert_int_equal(inl_dir_next(it, &entry, NULL), 0);
	inl_dir_close(it);
	inl_inode_put(inode);
	disk_close(&disk);
}

static void test_kernel_order(void **state)
{
	needs_kernel();
	for (size_t k = 0; k < COUNT(kinds); k++) {
		static const unsigned sizes[] = { 3, 100, 900 };
		struct world *w = &world;

		if (kinds[k].hash_mask)
			continue;
		for (size_t s = 0; s < COUNT(sizes); s++) {
			world_begin(w, &kinds[k]);
			stay(w, sizes[s] - 1);
			world_put(w);
			if (!kinds[k].encrypted) {
				run("mount -o loop,ro a.img mnt");
			} else if (try_run("mount -o loop,ro a.img mnt")) {
				print_message("the kernel does not encrypt\n");
				inl_keyring_free(w->keys);
				break;
			}
			compare_order(NULL, sizes[s]);
			if (kinds[k].encrypted) {
				assert_int_equal(add_key(in_dir("mnt")), 0);
				compare_order(w->keys, sizes[s]);
			}
			run("umount mnt");
			inl_keyring_free(w->keys);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changing),
		cmocka_unit_test(test_splitting),
		cmocka_unit_test(test_seek),
		cmocka_unit_test(test_old_positions),
		cmocka_unit_test(test_one_hash),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_damaged_blocks),
		cmocka_unit_test(test_index_twice),
		cmocka_unit_test(test_index_breaks),
		cmocka_unit_test(test_kernel_order),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
