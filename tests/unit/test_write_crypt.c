/*
 * tests/unit/test_write_crypt.c: encrypted writing: by every route the same bytes, nonces, keys that go, policies that come
 * while others work.
 * Not here: what the kernel makes of it (tests/kernel/test_twin.py, test_encrypt.py); crashes (test_crash.c).
 * Read more: inlay/volume.h, inl_set_policy.
 */
#include "ext4/own.h"
#include "work_dir.h"
#include <errno.h>
#include <inlay/volume.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define IMAGE_SIZE "24M"
#define N_FILES 12u
#define FILE_MAX (96u << 10)
#define STEPS	120u

static const uint8_t master[64] = { 9, 8, 7, 6, 5, 4, 3, 2, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25 };

/* ---- a volume ---------------------------------------------------------------------------------------------------- */

struct scene {
	struct inl_keyring *keys;
	struct inl_key_spec spec;
	struct inl_dev *dev;
	struct inl_volume *vol;
	struct inl_inode *root;
};

static void scene_open(struct scene *s, const char *spec, unsigned flags)
{
	struct inl_diag diag = { 0 };

	assert_int_equal(inl_keyring_new(&s->keys), 0);
	assert_int_equal(inl_keyring_add(s->keys, master, sizeof(master), NULL), 0);
	assert_int_equal(inl_keyring_spec(s->keys, 0, 2, &s->spec), 0);
	if (inl_dev_open(spec, flags & INL_VOLUME_WRITE ? INL_OPEN_WRITE : 0, &diag, &s->dev) ||
	    inl_volume_open(s->dev, s->keys, flags, &diag, &s->vol)) {
		print_error("%s: %s\n", spec, diag.text);
		fail();
	}
	assert_int_equal(inl_inode_get(s->vol, INL_ROOT_INO, NULL, &s->root), 0);
}

static void scene_close(struct scene *s)
{
	inl_inode_put(s->root);
	assert_int_equal(inl_volume_close(s->vol), 0);
	inl_dev_close(s->dev);
	inl_keyring_free(s->keys);
}

static struct inl_policy policy_of(const struct scene *s, uint8_t flags, uint8_t log2_unit)
{
	return (struct inl_policy){ .version = 2, .contents_mode = INL_FSCRYPT_AES_256_XTS,
				    .filenames_mode = INL_FSCRYPT_AES_256_CTS, .flags = flags,
				    .log2_data_unit_size = log2_unit, .key = s->spec };
}

static struct inl_inode *make(struct inl_inode *dir, const char *name, uint32_t mode, const uint8_t *nonce)
{
	const struct inl_attr attr = { .mode = mode, .nonce = nonce };
	struct inl_diag diag = { 0 };
	struct inl_inode *inode;
	int err = inl_create(dir, name, strlen(name), &attr, 0, &diag, &inode);

	if (err)
		print_error("%s: %d %s\n", name, err, diag.text);
	assert_int_equal(err, 0);
	return inode;
}

/* A directory of the root with a policy. */
static struct inl_inode *make_encrypted(struct scene *s, const char *name, const struct inl_policy *policy)
{
	struct inl_inode *dir = make(s->root, name, S_IFDIR | 0755, NULL);

	assert_int_equal(inl_set_policy(dir, policy, NULL, NULL), 0);
	return dir;
}

static void mkfs(const char *name, const char *options)
{
	run("rm -f %s && truncate -s " IMAGE_SIZE " %s && mke2fs -Fq -t ext4 -O encrypt,stable_inodes %s %s", name, name, options, name);
}

/* ---- by every route the same bytes ------------------------------------------------------------------------------- */

/* What is written, as it has to be read again. */
struct model {
	uint64_t random;
	uint8_t nonces;
	uint8_t bytes[N_FILES][FILE_MAX];
	uint32_t size[N_FILES];
};

static uint32_t draw(struct model *m, uint32_t below)
{
	m->random = m->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(m->random >> 33) % below;
}

static const uint8_t *next_nonce(struct model *m)
{
	static uint8_t nonce[INL_FILE_NONCE_SIZE];

	memset(nonce, ++m->nonces, sizeof(nonce));
	return nonce;
}

static void write_some(struct model *m, struct inl_inode *inode, unsigned i)
{
	static uint8_t buf[FILE_MAX];
	uint32_t at = draw(m, FILE_MAX - 1), len = 1 + draw(m, draw(m, 2) ? 700 : FILE_MAX / 2);
	size_t done;

	if (draw(m, 3) == 0)
		at &= ~4095u;
	if (len > FILE_MAX - at)
		len = FILE_MAX - at;
	for (uint32_t k = 0; k < len; k++)
		buf[k] = (uint8_t)draw(m, 256);
	memcpy(m->bytes[i] + at, buf, len);
	if (at + len > m->size[i])
		m->size[i] = at + len;
	for (uint32_t from = 0; from < len; from += (uint32_t)done)
		assert_int_equal(inl_write(inode, at + from, buf + from, len - from, &done, NULL), 0);
}

static void cut(struct model *m, struct inl_inode *inode, unsigned i)
{
	uint32_t size = draw(m, FILE_MAX);

	if (size < m->size[i])
		memset(m->bytes[i] + size, 0, FILE_MAX - size);
	m->size[i] = size;
	assert_int_equal(inl_truncate(inode, size, NULL), 0);
}

static void punch(struct model *m, struct inl_inode *inode, unsigned i)
{
	uint32_t at = draw(m, FILE_MAX), len = 1 + draw(m, FILE_MAX - at);
	unsigned flags = INL_FALLOC_KEEP_SIZE | (draw(m, 2) ? INL_FALLOC_PUNCH_HOLE : INL_FALLOC_ZERO_RANGE);

	memset(m->bytes[i] + at, 0, len);
	assert_int_equal(inl_fallocate(inode, flags, at, len, NULL), 0);
}

static void step(struct model *m, struct inl_inode *const files[])
{
	unsigned i = draw(m, N_FILES);

	switch (draw(m, 6)) {
	case 0:
		cut(m, files[i], i);
		break;
	case 1:
		punch(m, files[i], i);
		break;
	default:
		write_some(m, files[i], i);
	}
}

static void make_dirs(struct scene *s, struct model *m, const struct inl_policy *policies, struct inl_inode *dirs[4])
{
	for (unsigned i = 0; i < 4; i++) {
		char name[8] = { 'd', (char)('0' + i) };

		dirs[i] = make(s->root, name, S_IFDIR | 0755, NULL);
		assert_int_equal(inl_set_policy(dirs[i], &policies[i], next_nonce(m), NULL), 0);
	}
}

/* Four policies; files, links, names of all lengths. The same every time. */
static void work(struct scene *s, struct model *m, uint8_t unit)
{
	const struct inl_policy policies[4] = { policy_of(s, 3, 0), policy_of(s, 1, unit),
						policy_of(s, 3 | INL_POLICY_FLAG_IV_INO_LBLK_64, 0),
						policy_of(s, 0 | INL_POLICY_FLAG_IV_INO_LBLK_32, 0) };
	static const uint8_t seed[32] = { 1 };
	struct inl_inode *dirs[4], *files[N_FILES];
	char name[256], target[500];

	memset(m, 0, sizeof(*m));
	assert_int_equal(inl_volume_fix(s->vol, (struct inl_time){ 1700000000, 5 }, seed), 0);
	make_dirs(s, m, policies, dirs);
	memset(target, 't', sizeof(target));
	for (unsigned i = 0; i < N_FILES; i++) {
		const struct inl_attr attr = { .mode = S_IFLNK | 0777, .nonce = next_nonce(m) };

		assert_int_equal(inl_symlink(dirs[i % 4], "link", 4 - i / 4, target, 1 + i * 40, &attr, 0, NULL, NULL), 0);
		memset(name, 'n', sizeof(name));
		name[1 + i * 23] = 0;
		files[i] = make(dirs[i % 4], name, S_IFREG | 0644, next_nonce(m));
	}
	for (unsigned i = 0; i < STEPS; i++)
		step(m, files);
	assert_int_equal(inl_rename(dirs[0], "link", 4, dirs[0], "moved", 5, 0, NULL), 0);
	assert_int_equal(inl_unlink(dirs[1], "lin", 3, NULL), 0);
	for (unsigned i = 0; i < N_FILES; i++)
		inl_inode_put(files[i]);
	for (unsigned i = 0; i < 4; i++)
		inl_inode_put(dirs[i]);
}

static void check(const char *spec, struct model *m)
{
	static uint8_t got[FILE_MAX];
	char path[300], target[600];
	struct inl_inode *inode;
	struct scene s;
	size_t len;

	scene_open(&s, spec, 0);
	for (unsigned i = 0; i < N_FILES; i++) {
		int at = sprintf(path, "/d%u/", i % 4);

		memset(path + at, 'n', 1 + i * 23);
		path[at + 1 + i * 23] = 0;
		assert_int_equal(inl_path(s.vol, path, false, NULL, &inode), 0);
		assert_int_equal(inl_read(inode, 0, got, sizeof(got), &len, NULL), 0);
		assert_int_equal(len, m->size[i]);
		assert_memory_equal(got, m->bytes[i], len);
		inl_inode_put(inode);
	}
	assert_int_equal(inl_path(s.vol, "/d3/li", false, NULL, &inode), 0);
	assert_int_equal(inl_readlink(inode, target, sizeof(target), &len, NULL), 0);
	assert_int_equal(len, 1 + 11 * 40);
	inl_inode_put(inode);
	scene_close(&s);
}

static uint8_t *bytes_of(const char *spec, size_t *len)
{
	struct inl_dev *dev;
	uint8_t *bytes;

	assert_int_equal(inl_dev_open(spec, 0, NULL, &dev), 0);
	*len = inl_dev_size(dev);
	bytes = test_malloc(*len);
	assert_int_equal(inl_dev_read(dev, 0, bytes, *len), 0);
	inl_dev_close(dev);
	return bytes;
}

static void same_bytes(const char *a, const char *b)
{
	size_t x_len, y_len;
	uint8_t *x = bytes_of(a, &x_len), *y = bytes_of(b, &y_len);

	assert_int_equal(x_len, y_len);
	for (size_t i = 0; i < x_len; i++) {
		if (x[i] != y[i]) {
			print_error("%s: byte %zu is another one than in %s\n", b, i, a);
			fail();
		}
	}
	test_free(x);
	test_free(y);
}

/* Deal a volume out to the two halves of a stripe, by the stripe itself. */
static void deal_out(const char *from, const char *stripe)
{
	struct inl_dev *dev;
	size_t len;
	uint8_t *bytes = bytes_of(from, &len);

	assert_int_equal(inl_dev_open(stripe, INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_dev_write(dev, 0, bytes, len), 0);
	inl_dev_close(dev);
	test_free(bytes);
}

static void routes(const char *options, uint8_t unit)
{
	static const char *const formats[] = {
		"engine(%s/copy, slots=1)",
		"engine(%s/copy, slots=0)",
		"engine(%s/copy, slots=1, unit=4096, threads=2)",
		"stripe(engine(%s/a, slots=1), engine(%s/b, slots=0), chunk=64K)",
	};
	static struct model model, again;
	char spec[500], halves[300];
	struct scene s;

	mkfs("base", options);
	run("cp base plain");
	scene_open(&s, in_dir("plain"), INL_VOLUME_WRITE);
	work(&s, &model, unit);
	scene_close(&s);
	run("e2fsck -fn plain");
	check(in_dir("plain"), &model);
	for (unsigned i = 0; i < COUNT(formats); i++) {
		bool stripe = !strncmp(formats[i], "stripe", 6);

		snprintf(spec, sizeof(spec), formats[i], work_dir, work_dir);
		snprintf(halves, sizeof(halves), "stripe(%s/a, %s/b, chunk=64K)", work_dir, work_dir);
		run("cp base copy && rm -f a b && truncate -s 12M a b");
		if (stripe)
			deal_out(in_dir("base"), halves);
		scene_open(&s, spec, INL_VOLUME_WRITE);
		work(&s, &again, unit);
		scene_close(&s);
		same_bytes(in_dir("plain"), stripe ? halves : in_dir("copy"));
	}
}

static void test_routes(void **state)
{
	needs_tools();
	routes("-b 4096", 9);
	routes("-b 1024 -I 128", 9);
}

/* ---- IV_INO_LBLK_32: where the data unit number wraps ---------------------------------------------------------- */

#define WRAP_BLOCKS 6u

/* The block of this inode whose IV is 0. */
static uint64_t wrap_of(struct inl_inode *inode)
{
	uint64_t dun[4];

	assert_int_equal(inl_inode_unlock(inode, NULL), 0);
	inl_crypt_info_dun(inode->crypt, 0, dun);
	return (1ull << 32) - dun[0];
}

/* Written at once, across; read block by block, each with a number of its own. */
static void across(struct inl_volume *vol, struct inl_inode *inode, uint64_t wrap, uint32_t skip)
{
	static uint8_t bytes[WRAP_BLOCKS * 4096], block[4096];
	uint64_t from = ((wrap - WRAP_BLOCKS / 2) << 12) + skip;
	size_t len = sizeof(bytes) - 2 * skip, done = 0, got;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 4096 + skip);
	while (done < len) {
		assert_int_equal(inl_write(inode, from + done, bytes + done, len - done, &got, NULL), 0);
		done += got;
	}
	for (size_t at = 0; at < len; at += got) {
		size_t want = 4096 - ((from + at) & 4095);

		want = want < len - at ? want : len - at;
		assert_int_equal(inl_read(inode, from + at, block, want, &got, NULL), 0);
		assert_int_equal(got, want);
		assert_memory_equal(block, bytes + at, want);
	}
	assert_int_equal(inl_sync(vol, NULL), 0);
}

static void test_wrap(void **state)
{
	struct inl_inode *dir, *inode;
	struct inl_policy policy;
	struct scene s;
	unsigned n = 0;

	needs_tools();
	mkfs("a", "-b 4096");
	scene_open(&s, in_dir("a"), INL_VOLUME_WRITE);
	policy = policy_of(&s, INL_POLICY_FLAG_IV_INO_LBLK_32, 0);
	dir = make_encrypted(&s, "d", &policy);
	for (unsigned i = 0; i < 8; i++) {
		char name[8];

		snprintf(name, sizeof(name), "%u", i);
		inode = make(dir, name, S_IFREG | 0644, NULL);
		if (wrap_of(inode) > WRAP_BLOCKS && wrap_of(inode) + WRAP_BLOCKS < UINT32_MAX) {
			across(s.vol, inode, wrap_of(inode), 0);
			across(s.vol, inode, wrap_of(inode), 1000);
			n++;
		}
		inl_inode_put(inode);
	}
	assert_true(n > 0);
	inl_inode_put(dir);
	scene_close(&s);
	run("e2fsck -fn a");
}

/* ---- nonces ------------------------------------------------------------------------------------------------------ */

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, INL_FILE_NONCE_SIZE);
}

static void test_nonces(void **state)
{
	static uint8_t nonces[300][INL_FILE_NONCE_SIZE];
	static const uint8_t given[INL_FILE_NONCE_SIZE] = "sixteen bytes...", seed[32];
	const struct inl_attr none = { .mode = S_IFREG | 0644 };
	struct inl_inode_crypt crypt;
	struct inl_inode *dir, *inode;
	struct inl_policy policy;
	struct scene s;

	needs_tools();
	mkfs("a", "-b 4096");
	scene_open(&s, in_dir("a"), INL_VOLUME_WRITE);
	policy = policy_of(&s, 3, 0);
	dir = make_encrypted(&s, "d", &policy);
	for (unsigned i = 0; i < COUNT(nonces); i++) {
		char name[8];

		sprintf(name, "%u", i);
		inode = make(dir, name, i % 2 ? S_IFREG | 0644 : S_IFDIR | 0755, NULL);
		inl_inode_crypt(inode, &crypt);
		assert_true(crypt.encrypted && !crypt.status && inl_policy_equal(&crypt.policy, &policy));
		memcpy(nonces[i], crypt.nonce, INL_FILE_NONCE_SIZE);
		inl_inode_put(inode);
	}
	qsort(nonces, COUNT(nonces), INL_FILE_NONCE_SIZE, by_bytes);
	for (unsigned i = 1; i < COUNT(nonces); i++)
		assert_true(by_bytes(nonces[i - 1], nonces[i]) < 0);
	inode = make(dir, "given", S_IFREG | 0644, given);
	inl_inode_crypt(inode, &crypt);
	assert_memory_equal(crypt.nonce, given, sizeof(given));
	inl_inode_put(inode);
	/* Nothing secret is taken from a seed. */
	assert_int_equal(inl_volume_fix(s.vol, (struct inl_time){ 1, 0 }, seed), 0);
	assert_int_equal(inl_create(dir, "x", 1, &none, 0, NULL, NULL), -EINVAL);
	inl_inode_put(dir);
	scene_close(&s);
	run("e2fsck -fn a");
}

/* ---- keys that go, ciphers that are not there -------------------------------------------------------------------- */

static void test_key_removed(void **state)
{
	struct inl_inode *dir, *old, *inode = NULL;
	const struct inl_attr attr = { .mode = S_IFREG | 0644 };
	struct inl_policy policy;
	struct inl_diag diag = { 0 };
	struct scene s;
	size_t done;
	uint64_t ino;

	needs_tools();
	mkfs("a", "-b 4096");
	scene_open(&s, in_dir("a"), INL_VOLUME_WRITE);
	policy = policy_of(&s, 3, 0);
	dir = make_encrypted(&s, "d", &policy);
	inl_inode_put(make(dir, "closed", S_IFREG | 0644, NULL));
	old = make(dir, "open", S_IFREG | 0644, NULL);
	assert_int_equal(inl_write(old, 0, "abc", 3, &done, NULL), 0);
	assert_int_equal(inl_inode_hold_key(dir, NULL), 0);
	assert_int_equal(inl_keyring_remove(s.keys, &s.spec), 0);
	assert_int_equal(inl_keyring_remove(s.keys, &s.spec), -ENOKEY);
	assert_int_equal(inl_keyring_count(s.keys), 0);

	/* What has its key goes on; nothing else does, and says which key it needs. */
	assert_int_equal(inl_write(old, 3, "def", 3, &done, NULL), 0);
	assert_int_equal(inl_create(dir, "new", 3, &attr, 0, &diag, &inode), -ENOKEY);
	assert_non_null(strstr(diag.text, "is needed"));
	assert_int_equal(inl_lookup(dir, "closed", 6, &ino, NULL), 0);
	assert_int_equal(inl_inode_get(s.vol, ino, NULL, &inode), 0);
	assert_int_equal(inl_write(inode, 0, "x", 1, &done, NULL), -ENOKEY);
	assert_int_equal(inl_truncate(inode, 10, NULL), -ENOKEY);
	assert_int_equal(inl_fallocate(inode, 0, 0, 10, NULL), -ENOKEY);
	inl_inode_put(inode);
	assert_int_equal(inl_set_policy(s.root, &policy, NULL, NULL), -ENOTEMPTY);
	inode = make(s.root, "e", S_IFDIR | 0755, NULL);
	assert_int_equal(inl_set_policy(inode, &policy, NULL, NULL), -ENOKEY);
	assert_int_equal(inl_keyring_add(s.keys, master, sizeof(master), NULL), 0);
	assert_int_equal(inl_keyring_count(s.keys), 1);
	assert_int_equal(inl_set_policy(inode, &policy, NULL, NULL), 0);
	inl_inode_put(inode);
	inl_inode_put(make(dir, "new", S_IFREG | 0644, NULL));
	inl_inode_release_key(dir);
	inl_inode_put(old);
	inl_inode_put(dir);
	scene_close(&s);
	run("e2fsck -fn a");
}

static void test_no_cipher(void **state)
{
	static const struct {
		uint8_t contents, names;
		const char *name;
	} rows[] = {
		{ INL_FSCRYPT_ADIANTUM, INL_FSCRYPT_ADIANTUM, "Adiantum" },
		{ INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_HCTR2, "AES-256-HCTR2" },
		{ INL_FSCRYPT_SM4_XTS, INL_FSCRYPT_SM4_CTS, "SM4" },
	};
	struct inl_inode_crypt crypt;
	struct inl_policy policy;
	struct inl_inode *dir;
	struct scene s;

	needs_tools();
	mkfs("a", "-b 4096");
	scene_open(&s, in_dir("a"), INL_VOLUME_WRITE);
	dir = make(s.root, "d", S_IFDIR | 0755, NULL);
	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct inl_diag diag = { 0 };

		policy = policy_of(&s, 3, 0);
		policy.contents_mode = rows[i].contents;
		policy.filenames_mode = rows[i].names;
		assert_int_equal(inl_set_policy(dir, &policy, NULL, &diag), -ENOPKG);
		assert_non_null(strstr(diag.text, rows[i].name));
	}
	inl_inode_crypt(dir, &crypt);
	assert_false(crypt.encrypted);
	inl_inode_put(dir);
	scene_close(&s);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define N_THREADS 3u
#define N_ROUNDS  40u

struct crowd {
	struct scene s;
	struct inl_inode *shared; /* becomes encrypted while the others make files in it */
	struct inl_inode *other;
	_Atomic unsigned plain_first, failed;
};

static void one_file(struct crowd *c, struct inl_inode *dir, unsigned who, unsigned i)
{
	const struct inl_attr attr = { .mode = S_IFREG | 0644 };
	uint8_t buf[6000], got[6000];
	struct inl_inode *inode;
	char name[40];
	size_t len;

	memset(buf, (int)(who * 64 + i), sizeof(buf));
	snprintf(name, sizeof(name), "name of thread %u, file %u", who, i);
	if (inl_create(dir, name, strlen(name), &attr, 0, NULL, &inode)) {
		c->failed++;
		return;
	}
	if (inl_write(inode, i, buf, sizeof(buf), &len, NULL) || len != sizeof(buf) ||
	    inl_read(inode, i, got, sizeof(got), &len, NULL) || memcmp(buf, got, sizeof(buf)))
		c->failed++;
	inl_inode_put(inode);
	if (i % 3 == 0 && inl_unlink(dir, name, strlen(name), NULL))
		c->failed++;
}

static void *maker(void *arg)
{
	static _Atomic unsigned next;
	struct crowd *c = arg;
	unsigned who = next++ % N_THREADS;

	for (unsigned i = 0; i < N_ROUNDS; i++) {
		one_file(c, c->other, who, i);
		one_file(c, c->shared, who, i);
	}
	return NULL;
}

static void *encrypter(void *arg)
{
	struct crowd *c = arg;
	struct inl_policy policy = policy_of(&c->s, 3, 0);
	int err = inl_set_policy(c->shared, &policy, NULL, NULL);

	if (err == -ENOTEMPTY)
		c->plain_first++;
	else if (err)
		c->failed++;
	return NULL;
}

/* Either all files of the directory are encrypted, or none is. */
static void all_alike(struct crowd *c)
{
	struct inl_inode_crypt of_dir, of_file;
	struct inl_dirent entry;
	struct inl_dir *dir;
	unsigned n = 0;

	inl_inode_crypt(c->shared, &of_dir);
	assert_int_equal(of_dir.encrypted, !c->plain_first);
	assert_int_equal(inl_dir_open(c->shared, NULL, &dir), 0);
	for (; inl_dir_next(dir, &entry, NULL) == 1; n++) {
		struct inl_inode *inode;

		assert_int_equal(inl_inode_get(c->s.vol, entry.ino, NULL, &inode), 0);
		inl_inode_crypt(inode, &of_file);
		assert_int_equal(of_file.encrypted, of_dir.encrypted);
		assert_int_equal(strncmp(entry.name, "name of thread", 14), 0);
		inl_inode_put(inode);
	}
	inl_dir_close(dir);
	assert_true(n >= N_THREADS * N_ROUNDS / 2);
}

static void test_threads(void **state)
{
	struct inl_policy policy;
	unsigned plain = 0;

	needs_tools();
	for (unsigned round = 0; round < 6; round++) {
		pthread_t threads[N_THREADS + 1];
		struct crowd c = { 0 };

		mkfs("a", "-b 4096");
		scene_open(&c.s, in_dir("a"), INL_VOLUME_WRITE);
		policy = policy_of(&c.s, 3, 0);
		c.other = make_encrypted(&c.s, "other", &policy);
		c.shared = make(c.s.root, "shared", S_IFDIR | 0755, NULL);
		if (round % 2)
			pthread_create(&threads[N_THREADS], NULL, encrypter, &c);
		for (unsigned i = 0; i < N_THREADS; i++)
			pthread_create(&threads[i], NULL, maker, &c);
		if (round % 2 == 0)
			pthread_create(&threads[N_THREADS], NULL, encrypter, &c);
		for (unsigned i = 0; i <= N_THREADS; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(c.failed, 0);
		all_alike(&c);
		plain += c.plain_first;
		inl_inode_put(c.other);
		inl_inode_put(c.shared);
		scene_close(&c.s);
		run("e2fsck -fn a");
	}
	print_message("in %u of 6 rounds files were faster than the policy\n", plain);
}

static int setup(void **state)
{
	return work_dir_make("write-crypt");
}

static int teardown(void **state)
{
	return work_dir_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),	    cmocka_unit_test(test_wrap),      cmocka_unit_test(test_nonces),
		cmocka_unit_test(test_key_removed), cmocka_unit_test(test_no_cipher), cmocka_unit_test(test_threads),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
