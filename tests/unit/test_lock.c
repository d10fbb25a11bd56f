/*
 * tests/unit/test_lock.c: keys that are taken away from inodes in use: volumes, races on them, the kernel at the same steps.
 * Not here: claims (lock_claims.c), inodes without a volume (lock_infos.c), what is left in memory (lock_rest.c); the cache
 * of file keys (test_filekeys.c); a mount that is locked (tests/mount/).
 * Read more: inlay/fscrypt.h, inl_keyring_claim and what follows; fscrypt/evict.c.
 */
#include "lock.h"
#include "work_dir.h"
#include <fcntl.h>
#include <linux/fscrypt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>

unsigned n_races = 3000;

/* ---- volumes ----------------------------------------------------------------------------------------------------- */

struct scene {
	struct inl_keyring *keys;
	struct inl_policy policy;
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct inl_inode *root, *dir; /* dir: encrypted */
};

static struct inl_inode *make(struct inl_inode *dir, const char *name, uint32_t mode)
{
	const struct inl_attr attr = { .mode = mode };
	struct inl_inode *inode = NULL;

	assert_int_equal(inl_create(dir, name, strlen(name), &attr, 0, NULL, &inode), 0);
	return inode;
}

static void scene_open(struct scene *s, const char *image, uint8_t flags)
{
	run("rm -f %s && truncate -s 32M %s && mke2fs -Fq -t ext4 -O encrypt,stable_inodes -b 4096 %s", image, image, image);
	assert_int_equal(inl_keyring_new(&s->keys), 0);
	s->policy = (struct inl_policy){ .version = 2, .contents_mode = INL_FSCRYPT_AES_256_XTS,
					 .filenames_mode = INL_FSCRYPT_AES_256_CTS, .flags = flags };
	assert_int_equal(inl_key_spec_derive(master, 64, 2, &s->policy.key), 0);
	assert_int_equal(inl_dev_open(in_dir(image), INL_OPEN_WRITE, NULL, &s->dev), 0);
	assert_int_equal(inl_volume_open(s->dev, s->keys, INL_VOLUME_WRITE, NULL, &s->vol), 0);
	assert_int_equal(inl_inode_get(s->vol, INL_ROOT_INO, NULL, &s->root), 0);
	assert_int_equal(inl_keyring_claim(s->keys, master, 64, 1, NULL), 0);
	s->dir = make(s->root, "d", S_IFDIR | 0755);
	assert_int_equal(inl_set_policy(s->dir, &s->policy, NULL, NULL), 0);
}

static void scene_close(struct scene *s, const char *image)
{
	inl_inode_put(s->dir);
	inl_inode_put(s->root);
	assert_int_equal(inl_volume_close(s->vol), 0);
	inl_dev_close(s->dev);
	inl_keyring_free(s->keys);
	run("e2fsck -fn %s", image);
}

static int find(struct scene *s, struct inl_inode *dir, const char *name, struct inl_inode **out)
{
	uint64_t ino;
	int err = inl_lookup(dir, name, strlen(name), &ino, NULL);

	return err ? err : inl_inode_get(s->vol, ino, NULL, out);
}

/* The first name that is shown, and whether that is a no-key name. */
static bool shows_nokey(struct inl_inode *inode, char name[INL_NAME_MAX + 1])
{
	struct inl_dirent entry;
	struct inl_dir *dir;

	assert_int_equal(inl_dir_open(inode, NULL, &dir), 0);
	assert_int_equal(inl_dir_next(dir, &entry, NULL), 1);
	inl_dir_close(dir);
	memcpy(name, entry.name, sizeof(entry.name));
	return entry.nokey;
}

static void test_volume(void **state)
{
	const struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_inode *file, *link, *empty, *inode;
	char name[INL_NAME_MAX + 1], target[100];
	uint8_t buf[BLOCK], text[BLOCK];
	struct scene s;
	unsigned n_busy;
	uint64_t ino;
	size_t n;
	bool last;
	(void)state;

	needs_tools();
	scene_open(&s, "v", 0);
	text_of(3, text);
	file = make(s.dir, "a file with a name", S_IFREG | 0644);
	assert_int_equal(inl_symlink(s.dir, "link", 4, "some target", 11, &attr, 0, NULL, &link), 0);
	empty = make(s.root, "empty", S_IFDIR | 0755);
	assert_int_equal(inl_write(file, 0, text, BLOCK, &n, NULL), 0);
	assert_int_equal(inl_inode_hold_key(file, NULL), 0);
	assert_int_equal(inl_inode_hold_key(s.root, NULL), 0); /* not encrypted */
	assert_int_equal(inl_keyring_unclaim(s.keys, &s.policy.key, 1, false, &last), 0);

	/* Marked: no names, nothing new; contents can be written back. */
	assert_int_equal(inl_create(s.dir, "new", 3, &attr, 0, NULL, &inode), -ENOKEY);
	assert_int_equal(inl_lookup(s.dir, "link", 4, &ino, NULL), -ENOKEY);
	assert_int_equal(inl_inode_hold_key(s.dir, NULL), -ENOKEY);
	assert_int_equal(inl_set_policy(empty, &s.policy, NULL, NULL), -ENOKEY);
	assert_true(shows_nokey(s.dir, name));
	assert_int_equal(inl_readlink(link, target, sizeof(target), &n, NULL), 0);
	assert_int_not_equal(n, 11);
	assert_int_equal(inl_write_back(file, 0, text, BLOCK, &n, NULL), 0);
	assert_int_equal(inl_keyring_evict(s.keys, &s.policy.key, &n_busy), 0);
	assert_int_equal(n_busy, 1);

	/* Who has it goes on in every way; it can be unlinked by its no-key name. */
	assert_int_equal(inl_write(file, BLOCK, text, BLOCK, &n, NULL), 0);
	assert_int_equal(inl_truncate(file, 100, NULL), 0);
	assert_int_equal(inl_truncate(file, BLOCK, NULL), 0);
	assert_int_equal(inl_fallocate(file, 0, BLOCK, BLOCK, NULL), 0);
	assert_int_equal(inl_read(file, 0, buf, BLOCK, &n, NULL), 0);
	memset(text + 100, 0, BLOCK - 100);
	assert_memory_equal(buf, text, BLOCK);
	assert_int_equal(inl_inode_hold_key(file, NULL), 0);
	assert_int_equal(inl_lookup(s.dir, name, strlen(name), &ino, NULL), 0);

	/* Given back, everything is there again, and taken away again. */
	assert_int_equal(inl_keyring_claim(s.keys, master, 64, 2, NULL), 0);
	assert_int_equal(find(&s, s.dir, "a file with a name", &inode), 0);
	assert_ptr_equal(inode, file);
	inl_inode_put(inode);
	assert_int_equal(inl_readlink(link, target, sizeof(target), &n, NULL), 0);
	assert_memory_equal(target, "some target", 11);
	assert_int_equal(inl_keyring_unclaim(s.keys, &s.policy.key, 1, false, &last), -ENOKEY);
	assert_int_equal(inl_keyring_unclaim(s.keys, &s.policy.key, 2, false, &last), 0);
	assert_int_equal(inl_keyring_evict(s.keys, &s.policy.key, &n_busy), 0);
	assert_int_equal(n_busy, 1);
	inl_inode_release_key(file);
	assert_int_equal(inl_read(file, 0, buf, BLOCK, &n, NULL), 0);
	inl_inode_release_key(file);
	assert_int_equal(inl_read(file, 0, buf, BLOCK, &n, NULL), -ENOKEY);
	assert_int_equal(inl_write_back(file, 0, buf, BLOCK, &n, NULL), -ENOKEY);
	assert_int_equal(inl_truncate(file, 0, NULL), -ENOKEY);
	assert_int_equal(status_of(s.keys, &s.policy.key, 1).state, INL_KEY_ABSENT);
	inl_inode_release_key(s.root);
	inl_inode_put(file);
	inl_inode_put(link);
	inl_inode_put(empty);
	scene_close(&s, "v");
}

/* A directory that somebody has open becomes encrypted. */
static void test_policy_while_held(void **state)
{
	struct inl_inode *dir;
	struct scene s;
	bool last;
	(void)state;

	needs_tools();
	scene_open(&s, "v", 0);
	dir = make(s.root, "e", S_IFDIR | 0755);
	assert_int_equal(inl_inode_hold_key(dir, NULL), 0);
	assert_int_equal(inl_set_policy(dir, &s.policy, NULL, NULL), 0);
	assert_int_equal(inl_inode_hold_key(dir, NULL), 0);
	assert_int_equal(inl_keyring_unclaim(s.keys, &s.policy.key, 1, false, &last), 0);
	assert_int_equal(evict(s.keys, &s.policy.key), 1);
	inl_inode_release_key(dir);
	assert_int_equal(inl_inode_unlock(dir, NULL), 0);
	inl_inode_release_key(dir);
	assert_int_equal(inl_inode_unlock(dir, NULL), -ENOKEY);
	assert_int_equal(status_of(s.keys, &s.policy.key, 1).state, INL_KEY_ABSENT);
	inl_inode_put(dir);
	scene_close(&s, "v");
}

/* ---- races ------------------------------------------------------------------------------------------------------- */

enum { N_WORKERS = 4, N_NAMES = 12 };

struct race {
	struct scene s;
	atomic_uint n_ops, n_done, n_refused, wrong;
	atomic_bool stop;
};

struct worker {
	struct race *race;
	unsigned who, seed;
	bool there[N_NAMES];	/* as far as this thread knows, and nobody else uses its names */
	unsigned text[N_NAMES]; /* what the file has */
};

static void wrong(struct race *race, const char *what, int err)
{
	if (!race->wrong++)
		print_error("%s: %d\n", what, err);
}

/* 0, or refused because it is locked; nothing else may come of it. */
static bool legal(struct race *race, const char *what, int err)
{
	race->n_ops++;
	if (!err)
		race->n_done++;
	else if (err == -ENOKEY)
		race->n_refused++;
	else
		wrong(race, what, err);
	if (err)
		usleep(20);
	return !err;
}

static void name_of(const struct worker *w, unsigned i, char name[40])
{
	snprintf(name, 40, "file %u of worker %u", i, w->who);
}

static void race_create(struct worker *w, unsigned i)
{
	const struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_inode *inode = NULL;
	uint8_t text[BLOCK];
	char name[40];
	size_t n;
	int err;

	name_of(w, i, name);
	err = inl_create(w->race->s.dir, name, strlen(name), &attr, 0, NULL, &inode);
	if (w->there[i]) {
		if (err != -EEXIST && err != -ENOKEY)
			wrong(w->race, "create again", err);
		return;
	}
	if (!legal(w->race, "create", err))
		return;
	w->there[i] = true;
	w->text[i] = 0;
	text_of(i + 1, text);
	err = inl_write(inode, 0, text, BLOCK, &n, NULL);
	if (legal(w->race, "write", err))
		w->text[i] = i + 1;
	inl_inode_put(inode);
}

static void race_rename(struct worker *w, unsigned i)
{
	unsigned to = (i + 1 + (unsigned)rand_r(&w->seed) % (N_NAMES - 1)) % N_NAMES;
	struct inl_inode *dir = w->race->s.dir;
	char name[40], new_name[40];
	int err;

	name_of(w, i, name);
	name_of(w, to, new_name);
	err = inl_rename(dir, name, strlen(name), dir, new_name, strlen(new_name), 0, NULL);
	if (!w->there[i]) {
		if (err != -ENOENT && err != -ENOKEY)
			wrong(w->race, "rename of nothing", err);
		return;
	}
	if (!legal(w->race, "rename", err))
		return;
	w->there[to] = true;
	w->text[to] = w->text[i];
	w->there[i] = false;
}

static bool right(const struct worker *w, unsigned i, struct inl_inode *inode)
{
	uint8_t text[BLOCK], buf[BLOCK];
	size_t n;

	if (inl_read(inode, 0, buf, BLOCK, &n, NULL))
		return false;
	text_of(w->text[i], text);
	return w->text[i] ? n == BLOCK && !memcmp(buf, text, BLOCK) : n == 0;
}

/* Opened, it stays readable; not opened, it may be refused in the middle. */
static void race_open(struct worker *w, unsigned i, bool hold)
{
	struct race *race = w->race;
	struct inl_inode *inode;
	uint8_t text[BLOCK];
	char name[40];
	size_t n;
	int err;

	name_of(w, i, name);
	err = find(&race->s, race->s.dir, name, &inode);
	if (!w->there[i]) {
		if (err != -ENOENT && err != -ENOKEY)
			wrong(race, "lookup of nothing", err);
		return;
	}
	if (!legal(race, "lookup", err))
		return;
	if (hold && legal(race, "hold", inl_inode_hold_key(inode, NULL))) {
		for (unsigned k = 0; k < 3; k++) {
			if (!right(w, i, inode))
				wrong(race, "read of a held file", 0);
			text_of(i + k + 1, text);
			if (inl_write(inode, 0, text, BLOCK, &n, NULL) || inl_truncate(inode, BLOCK - 5, NULL) ||
			    inl_truncate(inode, BLOCK, NULL) || inl_write(inode, BLOCK - 5, text + BLOCK - 5, 5, &n, NULL))
				wrong(race, "change of a held file", 0);
			w->text[i] = i + k + 1;
		}
		inl_inode_release_key(inode);
	} else if (!hold) {
		err = inl_read(inode, 0, text, BLOCK, &n, NULL);
		if (legal(race, "read", err) && n && text[1] != (uint8_t)(w->text[i] * 38 + 1))
			wrong(race, "content", text[1]);
	}
	inl_inode_put(inode);
}

/* A policy for a new directory, which is left as it was, or has it. */
static void race_policy(struct worker *w)
{
	struct race *race = w->race;
	struct inl_inode_crypt crypt;
	struct inl_inode *dir;
	char name[40];
	int err;

	snprintf(name, sizeof(name), "dir of worker %u", w->who);
	dir = make(race->s.root, name, S_IFDIR | 0755);
	err = inl_set_policy(dir, &race->s.policy, NULL, NULL);
	inl_inode_crypt(dir, &crypt);
	if (legal(race, "policy", err) != crypt.encrypted)
		wrong(race, "policy as said", err);
	inl_inode_put(dir);
	if (inl_rmdir(race->s.root, name, strlen(name), NULL))
		wrong(race, "rmdir", 0);
}

static void *race_worker(void *arg)
{
	struct worker *w = arg;

	while (!w->race->stop) {
		unsigned i = (unsigned)rand_r(&w->seed) % N_NAMES;

		if (i % 4 == 0)
			usleep(1);
		switch (rand_r(&w->seed) % 8) {
		case 0:
		case 1:
			race_create(w, i);
			break;
		case 2:
			race_rename(w, i);
			break;
		case 3:
			race_policy(w);
			break;
		case 4:
		case 5:
			race_open(w, i, true);
			break;
		default:
			race_open(w, i, false);
		}
	}
	return NULL;
}

/* A second one who evicts, whenever. */
static void *race_evictor(void *arg)
{
	struct race *race = arg;
	unsigned n_busy;

	while (!race->stop) {
		if (inl_keyring_evict(race->s.keys, &race->s.policy.key, &n_busy))
			wrong(race, "second eviction", 0);
		usleep(200);
	}
	return NULL;
}

/* What this thread alone uses is locked and unlocked as it says. */
static void race_locker(struct race *race, struct inl_inode *file)
{
	const struct inl_key_spec *spec = &race->s.policy.key;
	uint8_t buf[BLOCK];
	unsigned n_busy;
	bool last;
	size_t n;
	int err;

	err = inl_keyring_unclaim(race->s.keys, spec, 1, rand() % 2, &last);
	if (err || !last)
		wrong(race, "unclaim", err);
	err = inl_inode_hold_key(file, NULL);
	if (err != -ENOKEY)
		wrong(race, "hold when marked", err);
	err = inl_keyring_evict(race->s.keys, spec, &n_busy);
	if (err || status_of(race->s.keys, spec, 1).state == INL_KEY_PRESENT)
		wrong(race, "evict", err);
	err = inl_read(file, 0, buf, BLOCK, &n, NULL);
	if (err != -ENOKEY)
		wrong(race, "read when locked", err);
	if (rand() % 4 == 0)
		usleep(100);
	err = inl_keyring_claim(race->s.keys, master, 64, 1, NULL);
	if (err)
		wrong(race, "claim", err);
	err = inl_inode_hold_key(file, NULL);
	if (err)
		wrong(race, "hold", err);
	else
		inl_inode_release_key(file);
	err = inl_read(file, 0, buf, BLOCK, &n, NULL);
	if (err)
		wrong(race, "read", err);
	usleep((unsigned)rand() % 300);
}

static void race_run(uint8_t flags)
{
	struct worker workers[N_WORKERS] = { 0 };
	pthread_t threads[N_WORKERS], evictor;
	unsigned rounds = 0, n_busy = 99;
	struct inl_inode *mine;
	struct race race = { 0 };
	uint8_t text[BLOCK];
	bool last;
	size_t n;

	scene_open(&race.s, "r", flags);
	text_of(9, text);
	mine = make(race.s.dir, "mine", S_IFREG | 0644);
	assert_int_equal(inl_write(mine, 0, text, BLOCK, &n, NULL), 0);
	for (unsigned i = 0; i < N_WORKERS; i++) {
		workers[i].race = &race;
		workers[i].who = workers[i].seed = i;
		assert_int_equal(pthread_create(&threads[i], NULL, race_worker, &workers[i]), 0);
	}
	assert_int_equal(pthread_create(&evictor, NULL, race_evictor, &race), 0);
	while ((race.n_ops < n_races || race.n_done < n_races / 4 || rounds < n_races / 50) && !race.wrong) {
		race_locker(&race, mine);
		rounds++;
	}
	race.stop = true;
	for (unsigned i = 0; i < N_WORKERS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(evictor, NULL);
	print_message("%u locks, %u operations done, %u refused\n", rounds, race.n_done, race.n_refused);
	assert_int_equal(race.wrong, 0);
	/* What each thread knows is so. */
	for (unsigned k = 0; k < N_WORKERS * N_NAMES; k++) {
		struct worker *w = &workers[k / N_NAMES];
		struct inl_inode *inode;
		char name[40];

		name_of(w, k % N_NAMES, name);
		assert_int_equal(find(&race.s, race.s.dir, name, &inode), w->there[k % N_NAMES] ? 0 : -ENOENT);
		if (!w->there[k % N_NAMES])
			continue;
		assert_true(right(w, k % N_NAMES, inode));
		inl_inode_put(inode);
	}
	assert_int_equal(inl_keyring_unclaim(race.s.keys, &race.s.policy.key, 1, false, &last), 0);
	assert_int_equal(inl_keyring_evict(race.s.keys, &race.s.policy.key, &n_busy), 0);
	assert_int_equal(n_busy, 0);
	assert_int_equal(status_of(race.s.keys, &race.s.policy.key, 1).state, INL_KEY_ABSENT);
	inl_inode_put(mine);
	scene_close(&race.s, "r");
}

static void test_races(void **state)
{
	(void)state;
	needs_tools();
	race_run(0);
	race_run(INL_POLICY_FLAG_IV_INO_LBLK_64);
	race_run(INL_POLICY_FLAG_IV_INO_LBLK_32);
}

/* ---- as the kernel has it ---------------------------------------------------------------------------------------- */

enum { USER = 1234, N_OPEN = 3 };

struct parity {
	struct scene s;
	struct inl_inode *file[2];
	int mnt;	   /* of the kernel's volume */
	int open[2][N_OPEN]; /* there; as often the inode is held here. -1: not */
	struct fscrypt_key_specifier spec;
};

static int kernel_add(int mnt, uint32_t uid, struct fscrypt_key_specifier *spec)
{
	struct fscrypt_add_key_arg *add = calloc(1, sizeof(*add) + sizeof(master));
	int err;

	add->key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
	add->raw_size = sizeof(master);
	memcpy(add->raw, master, sizeof(master));
	setfsuid(uid);
	err = ioctl(mnt, FS_IOC_ADD_ENCRYPTION_KEY, add) ? -errno : 0;
	setfsuid(0);
	*spec = add->key_spec;
	free(add);
	return err;
}

static int kernel_remove(struct parity *p, uint32_t uid, bool all, unsigned *flags)
{
	struct fscrypt_remove_key_arg arg = { .key_spec = p->spec };
	int err;

	setfsuid(uid);
	err = ioctl(p->mnt, all ? FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS : FS_IOC_REMOVE_ENCRYPTION_KEY, &arg) ? -errno : 0;
	setfsuid(0);
	*flags = arg.removal_status_flags;
	return err;
}

static void same_status(struct parity *p, uint32_t uid)
{
	struct inl_key_status ours = status_of(p->s.keys, &p->s.policy.key, uid);
	struct fscrypt_get_key_status_arg arg = { .key_spec = p->spec };

	setfsuid(uid);
	assert_int_equal(ioctl(p->mnt, FS_IOC_GET_ENCRYPTION_KEY_STATUS, &arg), 0);
	setfsuid(0);
	assert_int_equal(ours.state, arg.status);
	assert_int_equal(ours.n_claims, arg.user_count);
	assert_int_equal(ours.claimed, (arg.status_flags & FSCRYPT_KEY_STATUS_FLAG_ADDED_BY_SELF) != 0);
}

static void same_remove(struct parity *p, uint32_t uid, bool all)
{
	unsigned flags, n_busy = 0;
	bool last = false;
	int theirs = kernel_remove(p, uid, all, &flags);

	assert_int_equal(inl_keyring_unclaim(p->s.keys, &p->s.policy.key, uid, all, &last), theirs);
	if (theirs)
		return;
	if (last)
		assert_int_equal(inl_keyring_evict(p->s.keys, &p->s.policy.key, &n_busy), 0);
	assert_int_equal(last, !(flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_OTHER_USERS));
	assert_int_equal(n_busy > 0, (flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY) != 0);
}

/* The kernel says ENOENT of a name in a locked directory. */
static void same_open(struct parity *p, unsigned i, unsigned k)
{
	int fd;

	if (p->open[i][k] >= 0)
		return;
	fd = open(in_dir(i ? "mnt/e/g" : "mnt/e/f"), O_RDWR);
	assert_true(fd >= 0 || errno == ENOKEY || errno == ENOENT);
	p->open[i][k] = fd;
	assert_int_equal(inl_inode_hold_key(p->file[i], NULL), fd >= 0 ? 0 : -ENOKEY);
}

/* Our last release completes a removal, the kernel wants to be asked again. */
static void same_close(struct parity *p, unsigned i, unsigned k)
{
	struct fscrypt_get_key_status_arg arg = { .key_spec = p->spec };
	unsigned flags;

	if (p->open[i][k] < 0)
		return;
	close(p->open[i][k]);
	p->open[i][k] = -1;
	inl_inode_release_key(p->file[i]);
	assert_int_equal(ioctl(p->mnt, FS_IOC_GET_ENCRYPTION_KEY_STATUS, &arg), 0);
	if (arg.status == FSCRYPT_KEY_STATUS_INCOMPLETELY_REMOVED)
		assert_int_equal(kernel_remove(p, 0, true, &flags), 0);
}

/* A user's policy: of a directory of his own. */
static void same_policy(struct parity *p)
{
	struct fscrypt_policy_v2 policy = { .version = 2, .contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
					    .filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS };
	const char *path = in_dir("mnt/his");
	int fd, err;

	memcpy(policy.master_key_identifier, p->spec.u.identifier, 16);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(chown(path, USER, 0), 0);
	fd = open(path, O_RDONLY);
	setfsuid(USER);
	err = ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &policy) ? -errno : 0;
	setfsuid(0);
	close(fd);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(err, inl_keyring_claimed(p->s.keys, &p->s.policy.key, USER) ? 0 : -ENOKEY);
}

static bool kernel_scene(struct parity *p)
{
	struct fscrypt_policy_v2 policy = { .version = 2, .contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
					    .filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS };
	int fd, err;

	run("truncate -s 32M k && mke2fs -Fq -t ext4 -O encrypt,stable_inodes k && mount -o loop k mnt && mkdir mnt/e");
	p->mnt = open(in_dir("mnt"), O_RDONLY);
	err = kernel_add(p->mnt, 1, &p->spec);
	memcpy(policy.master_key_identifier, p->spec.u.identifier, 16);
	fd = open(in_dir("mnt/e"), O_RDONLY);
	if (!err && ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &policy))
		err = -errno;
	close(fd);
	if (!err)
		run("echo x > mnt/e/f && echo x > mnt/e/g && sync");
	return !err;
}

static void parity_step(struct parity *p, unsigned dice)
{
	static const uint32_t uids[] = { 1, 0, USER };
	uint32_t uid = uids[dice / 16 % 3];
	struct fscrypt_key_specifier spec;

	switch (dice % 16) {
	case 0 ... 3:
		assert_int_equal(kernel_add(p->mnt, uid, &spec), 0);
		assert_int_equal(inl_keyring_claim(p->s.keys, master, 64, uid, NULL), 0);
		break;
	case 4 ... 7:
		same_remove(p, uid, false);
		break;
	case 8:
		same_remove(p, uid, true);
		break;
	case 9 ... 11:
		same_open(p, dice / 64 % 2, dice / 128 % N_OPEN);
		break;
	case 12 ... 14:
		same_close(p, dice / 64 % 2, dice / 128 % N_OPEN);
		break;
	default:
		same_policy(p);
	}
	for (unsigned i = 0; i < COUNT(uids); i++)
		same_status(p, uids[i]);
}

static void test_kernel(void **state)
{
	struct parity p = { 0 };
	unsigned seed = 11;
	(void)state;

	needs_kernel();
	memset(p.open, -1, sizeof(p.open));
	scene_open(&p.s, "v", 0);
	for (unsigned i = 0; i < 2; i++)
		p.file[i] = make(p.s.dir, i ? "g" : "f", S_IFREG | 0644);
	if (kernel_scene(&p)) {
		for (unsigned i = 0; i < 1500; i++)
			parity_step(&p, (unsigned)rand_r(&seed));
		for (unsigned i = 0; i < 2 * N_OPEN; i++)
			same_close(&p, i / N_OPEN, i % N_OPEN);
	}
	close(p.mnt);
	run("umount mnt");
	for (unsigned i = 0; i < 2; i++)
		inl_inode_put(p.file[i]);
	scene_close(&p.s, "v");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lock_claims),
		cmocka_unit_test(lock_limits),
		cmocka_unit_test(lock_odd),
		cmocka_unit_test(lock_many_files),
		cmocka_unit_test(lock_shared),
		cmocka_unit_test(lock_slots),
		cmocka_unit_test(lock_two_volumes),
		cmocka_unit_test(lock_version_1),
		cmocka_unit_test(lock_memory_full),
		cmocka_unit_test(lock_two_evictions),
		cmocka_unit_test(lock_name_in_use),
		cmocka_unit_test(lock_callback),
		cmocka_unit_test(test_volume),
		cmocka_unit_test(test_policy_while_held),
		cmocka_unit_test(lock_info_races),
		cmocka_unit_test(test_races),
		cmocka_unit_test(lock_nothing_left),
		cmocka_unit_test(test_kernel),
	};
	int failed;

	if (argc > 1 && !strcmp(argv[1], "--long"))
		n_races = 120000;
	if (work_dir_make("lock"))
		return 1;
	work_dir_ask_kernel();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return work_dir_remove() ? 1 : failed;
}
