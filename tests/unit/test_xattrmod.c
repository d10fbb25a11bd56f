/*
 * tests/unit/test_xattrmod.c: attributes that are set and removed here are what the running kernel sees, and the other way
 * round; every call ends as the kernel's own does on a twin of the volume; e2fsck is content.
 * Not here: reading what others wrote (test_ext4.c).
 * Read more: Linux Documentation/filesystems/ext4/attributes.rst; setxattr(2).
 *
 * The model is a list of names and values. Without the kernel (root, loop devices) only the model and e2fsck judge.
 */
#include "ext4/change.h"
#include "work_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inlay/driver.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a)  (sizeof(a) / sizeof((a)[0]))
#define N_NAMES	  28u
#define VALUE_MAX 70000u

static uint64_t dice = 20240601;

static uint32_t rng(uint32_t below)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(dice >> 33) % below;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	int err = work_dir_make("xattr");

	if (!err)
		work_dir_ask_kernel();
	return err ? err : has_kernel ? try_run("mkdir twin") : 0;
}

static int teardown(void **state)
{
	/* After a test that failed. */
	while (has_kernel && (!try_run("umount mnt") || !try_run("umount twin")))
		;
	return work_dir_remove();
}

/* ---- volumes ----------------------------------------------------------------------------------------------------- */

static const char *const objects[] = { "a", "b", "c", "d", "dir", "link", "pipe", "fixed", "append" };
enum { A, B, C, D, DIR_, LINK, PIPE, FIXED, APPEND, N_OBJECTS };

/* i.img, and its twin t.img. */
static void make_volume(const char *options, const char *size)
{
	const char *extents = strstr(options, "ext4") ? "800" : "";

	run("rm -rf src i.img t.img && mkdir -p src/dir && cd src && echo a >a && echo b >b && echo c >c && : >d && "
	    "ln -s a link && mkfifo pipe && : >fixed && : >append && cd .. && mke2fs -Fq %s -d src i.img %s && "
	    "debugfs -w -R 'sif append flags 0x%s20' i.img && debugfs -w -R 'sif fixed flags 0x%s10' i.img && "
	    "cp --sparse=always i.img t.img", options, size, extents, extents);
}

struct rig {
	struct inl_dev *dev;
	struct inl_volume *vol;
};

static void rig_open(struct rig *rig)
{
	struct inl_diag diag = { 0 };
	int err = inl_dev_open(in_dir("i.img"), INL_OPEN_WRITE, &diag, &rig->dev);

	if (!err)
		err = inl_volume_open(rig->dev, NULL, INL_VOLUME_WRITE, &diag, &rig->vol);
	if (err)
		print_error("%s\n", diag.text);
	assert_int_equal(err, 0);
}

static void rig_close(struct rig *rig)
{
	assert_int_equal(inl_volume_close(rig->vol), 0);
	inl_dev_close(rig->dev);
	run("e2fsck -fn i.img");
}

static struct inl_inode *get(struct rig *rig, unsigned object)
{
	struct inl_inode *inode;

	assert_int_equal(inl_path(rig->vol, objects[object], false, NULL, &inode), 0);
	return inode;
}

static int set(struct rig *rig, unsigned object, const char *name, const void *value, size_t len, unsigned flags)
{
	struct inl_inode *inode = get(rig, object);
	int err = inl_xattr_set(inode, name, value, len, flags, NULL);

	inl_inode_put(inode);
	return err;
}

static const char *path_of(const char *mount, unsigned object)
{
	char name[300];

	snprintf(name, sizeof(name), "%s/%s", mount, objects[object]);
	return in_dir(name);
}

static int kernel_set(const char *mount, unsigned object, const char *name, const void *value, size_t len, unsigned flags)
{
	const char *path = path_of(mount, object);
	int ret = value ? lsetxattr(path, name, value, len, (int)flags) : lremovexattr(path, name);

	return ret ? -errno : 0;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

struct attr {
	bool there;
	uint8_t *value;
	size_t len;
};

struct model {
	char names[N_NAMES][256];
	struct attr attrs[N_OBJECTS][N_NAMES];
};

static const char *const prefixes[] = { "user.", "trusted.", "security." };

static void model_init(struct model *model)
{
	static const unsigned lengths[] = { 1, 2, 3, 4, 5, 8, 13, 30, 63, 100, 180, 240 };

	memset(model, 0, sizeof(*model));
	for (unsigned i = 0; i < N_NAMES; i++) {
		size_t n = (size_t)snprintf(model->names[i], 256, "%s", prefixes[rng(3)]);
		unsigned len = lengths[rng(COUNT(lengths))];

		for (unsigned k = 0; k < len && n < 254; k++)
			model->names[i][n++] = (char)(rng(10) ? 'a' + rng(26) : 0x80 + rng(0x80));
		model->names[i][n++] = (char)('A' + i); /* no two are the same */
	}
}

/* For tests that are not about names: they always fit. */
static void model_init_short(struct model *model)
{
	memset(model, 0, sizeof(*model));
	for (unsigned i = 0; i < N_NAMES; i++)
		snprintf(model->names[i], sizeof(model->names[i]), "user.%u", i);
}

static void model_put(struct attr *attr, const void *value, size_t len)
{
	free(attr->value);
	*attr = (struct attr){ 0 };
	if (!value)
		return;
	attr->there = true;
	attr->len = len;
	attr->value = malloc(len + 1);
	assert_non_null(attr->value);
	memcpy(attr->value, value, len);
}

static void model_done(struct model *model)
{
	for (unsigned i = 0; i < N_OBJECTS; i++) {
		for (unsigned k = 0; k < N_NAMES; k++)
			free(model->attrs[i][k].value);
	}
}

struct seen {
	const struct model *model;
	unsigned object, n;
};

static int see(const char *name, const void *value, size_t len, void *arg)
{
	struct seen *seen = arg;

	for (unsigned i = 0; i < N_NAMES; i++) {
		const struct attr *attr = &seen->model->attrs[seen->object][i];

		if (strcmp(name, seen->model->names[i]))
			continue;
		assert_true(attr->there);
		assert_int_equal(attr->len, len);
		assert_memory_equal(attr->value, value, len);
		seen->n++;
		return 0;
	}
	fail_msg("an attribute '%s' that nobody set", name);
	return 0;
}

static unsigned n_there(const struct model *model, unsigned object)
{
	unsigned n = 0;

	for (unsigned i = 0; i < N_NAMES; i++)
		n += model->attrs[object][i].there;
	return n;
}

static void check_ours(struct rig *rig, const struct model *model)
{
	static uint8_t buf[VALUE_MAX];

	for (unsigned o = 0; o < N_OBJECTS; o++) {
		struct inl_inode *inode = get(rig, o);
		struct seen seen = { model, o, 0 };

		assert_int_equal(inl_xattrs(inode, see, &seen, NULL), 0);
		assert_int_equal(seen.n, n_there(model, o));
		for (unsigned i = 0; i < N_NAMES; i++) {
			const struct attr *attr = &model->attrs[o][i];
			size_t len = 0;
			int err = inl_xattr_get(inode, model->names[i], buf, sizeof(buf), &len, NULL);

			assert_int_equal(err, attr->there ? 0 : -ENODATA);
			if (attr->there) {
				assert_int_equal(len, attr->len);
				assert_memory_equal(buf, attr->value, len);
			}
			if (attr->len > 1)
				assert_int_equal(inl_xattr_get(inode, model->names[i], buf, attr->len - 1, &len, NULL),
						 -ERANGE);
			if (attr->there) {
				assert_int_equal(inl_xattr_get(inode, model->names[i], NULL, 0, &len, NULL), 0);
				assert_int_equal(len, attr->len);
			}
		}
		inl_inode_put(inode);
	}
}

static void check_kernel(const char *mount, const struct model *model)
{
	static uint8_t buf[VALUE_MAX];
	static char list[65536];

	for (unsigned o = 0; o < N_OBJECTS; o++) {
		const char *path = path_of(mount, o);
		struct seen seen = { model, o, 0 };
		ssize_t n = llistxattr(path, list, sizeof(list));

		assert_true(n >= 0);
		for (char *name = list; name < list + n; name += strlen(name) + 1) {
			ssize_t len = lgetxattr(path, name, buf, sizeof(buf));

			assert_true(len >= 0);
			see(name, buf, (size_t)len, &seen);
		}
		assert_int_equal(seen.n, n_there(model, o));
	}
}

/* The hash by which the kernel finds blocks that it could share: 0 without a block. */
static uint32_t hash_of(const char *image, unsigned object)
{
	struct inl_inode *inode;
	struct inl_volume *vol;
	struct inl_block *block;
	struct inl_dev *dev;
	uint32_t hash = 0;
	uint64_t pblk;

	assert_int_equal(inl_dev_open(in_dir(image), 0, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, 0, NULL, &vol), 0);
	assert_int_equal(inl_path(vol, objects[object], false, NULL, &inode), 0);
	pblk = ext2fs_file_acl_block(vol->fs, (struct ext2_inode *)&inode->raw);
	if (pblk) {
		assert_int_equal(inl_block_get(vol, pblk, &block), 0);
		hash = inl_load_le32(inl_block_bytes(block) + 12);
		inl_block_put(block);
	}
	inl_inode_put(inode);
	inl_volume_close(vol);
	inl_dev_close(dev);
	return hash;
}

/* ---- at random, with the kernel in turns ------------------------------------------------------------------------- */

static const char *const layouts[] = {
	"-t ext4 -b 1024 -I 128 -J size=1",
	"-t ext4 -b 1024 -I 256 -J size=1",
	"-t ext4 -b 4096 -I 256",
	"-t ext4 -b 1024 -I 512 -J size=1 -O ^metadata_csum,^64bit",
	"-t ext4 -b 4096 -I 1024 -O metadata_csum_seed,^flex_bg",
	"-t ext3 -b 2048 -I 256",
	"-t ext4 -b 1024 -I 128 -J size=1 -O ^metadata_csum,uninit_bg,^ext_attr",
	"-t ext4 -b 65536 -I 256",
};

static size_t random_len(uint32_t block_size)
{
	switch (rng(8)) {
	case 0:
		return 0;
	case 1:
		return rng(block_size);
	case 2:
		return block_size / 2 + rng(block_size);
	case 3:
		return rng(40) ? 400 : VALUE_MAX - rng(2 * (VALUE_MAX - 65536));
	default:
		return rng(80);
	}
}

/* One call, here and on the twin; and the model. */
static void random_call(struct rig *rig, struct model *model, uint32_t block_size)
{
	static uint8_t value[VALUE_MAX];
	static const unsigned which[] = { A, B, C, DIR_ };
	unsigned object = which[rng(COUNT(which))], i = rng(N_NAMES), flags = rng(5) ? 0 : rng(4);
	struct attr *attr = &model->attrs[object][i];
	size_t len = random_len(block_size);
	bool remove = !rng(3);
	int err, want;

	for (size_t k = 0; k < len; k++)
		value[k] = (uint8_t)rng(256);
	if (!rng(6) && attr->there) { /* again */
		len = attr->len;
		memcpy(value, attr->value, len);
	}
	err = set(rig, object, model->names[i], remove ? NULL : value, len, remove ? 0 : flags);
	if (has_kernel) {
		want = kernel_set("twin", object, model->names[i], remove ? NULL : value, len, flags);
		if (err != want)
			print_error("'%s' on %s: len %zu, flags %u, remove %d, there %d (%zu)\n", model->names[i],
				    objects[object], len, flags, remove, attr->there, attr->len);
		assert_int_equal(err, want);
	} else if (remove) {
		assert_int_equal(err, attr->there ? 0 : -ENODATA);
	}
	if (!err)
		model_put(attr, remove ? NULL : value, len);
}

static void kernel_turn(struct model *model, uint32_t block_size)
{
	static uint8_t value[VALUE_MAX];

	run("mount -o loop i.img mnt");
	check_kernel("mnt", model);
	for (unsigned n = 0; n < 60; n++) {
		static const unsigned which[] = { A, B, C, DIR_ };
		unsigned object = which[rng(COUNT(which))], i = rng(N_NAMES);
		struct attr *attr = &model->attrs[object][i];
		size_t len = rng(4) ? rng(60) : rng(block_size);
		bool remove = !rng(3);
		int err;

		memset(value, (int)rng(256), len);
		err = kernel_set("mnt", object, model->names[i], remove ? NULL : value, len, 0);
		assert_int_equal(kernel_set("twin", object, model->names[i], remove ? NULL : value, len, 0), err);
		if (!err)
			model_put(attr, remove ? NULL : value, len);
	}
	run("umount mnt && e2fsck -fn i.img");
}

static void test_random(void **state)
{
	struct model *model = malloc(sizeof(*model));

	needs_tools();
	assert_non_null(model);
	for (unsigned l = 0; l < COUNT(layouts); l++) {
		uint32_t block_size;
		struct rig rig;

		if (strstr(layouts[l], "65536") && sysconf(_SC_PAGESIZE) < 65536 && has_kernel &&
		    try_run("rm -f p.img && mke2fs -Fq -b 65536 p.img 64M && mount -o loop p.img mnt && umount mnt"))
			continue;
		model_init(model);
		make_volume(layouts[l], strstr(layouts[l], "65536") ? "64M" : "16M");
		if (has_kernel)
			run("mount -o loop t.img twin");
		for (unsigned turn = 0; turn < 3; turn++) {
			rig_open(&rig);
			block_size = rig.vol->block_size;
			check_ours(&rig, model);
			for (unsigned n = 0; n < 250; n++)
				random_call(&rig, model, block_size);
			check_ours(&rig, model);
			rig_close(&rig);
			if (has_kernel && turn < 2)
				kernel_turn(model, block_size);
		}
		if (has_kernel) {
			check_kernel("twin", model);
			run("umount twin && mount -o loop i.img mnt");
			check_kernel("mnt", model);
			run("umount mnt");
			for (unsigned o = 0; o < N_OBJECTS; o++)
				assert_int_equal(hash_of("i.img", o), hash_of("t.img", o));
		}
		model_done(model);
	}
	free(model);
}

/* ---- every kind of call, on every kind of inode ------------------------------------------------------------------ */

#define ACL(...) { 2, 0, 0, 0, __VA_ARGS__ }
#define E(tag, perm, id) tag, 0, perm, 0, (id) & 0xff, (id) >> 8 & 0xff, (id) >> 16 & 0xff, (unsigned)(id) >> 24
#define NO_ID 0xffffffffu

static const struct value {
	const char *what;
	size_t len;
	uint8_t bytes[80];
} values[] = {
	{ "empty", 0, { 0 } },
	{ "text", 4, "text" },
	{ "another text", 7, "another" },
	{ "ACL: the mode", 28, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "ACL: a user", 44, ACL(E(1, 7, NO_ID), E(2, 6, 1000), E(4, 5, NO_ID), E(16, 6, NO_ID), E(32, 4, NO_ID)) },
	{ "ACL: a group", 44, ACL(E(1, 7, NO_ID), E(4, 7, NO_ID), E(8, 7, 70000), E(16, 1, NO_ID), E(32, 0, NO_ID)) },
	{ "ACL: a mask only", 36, ACL(E(1, 6, NO_ID), E(4, 7, NO_ID), E(16, 5, NO_ID), E(32, 0, NO_ID)) },
	{ "ACL: many", 68, ACL(E(1, 1, NO_ID), E(2, 0, 5), E(2, 7, 4), E(4, 2, NO_ID), E(8, 3, 9), E(8, 3, 9), E(16, 7, NO_ID),
			       E(32, 7, NO_ID)) },
	{ "no entries", 4, ACL(0) },
	{ "no header", 3, { 2 } },
	{ "version 1", 4, { 1 } },
	{ "version 3, entries", 28, { 3, 0, 0, 0, E(1, 6, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID) } },
	{ "a part of an entry", 29, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "no OTHER", 20, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID)) },
	{ "no GROUP_OBJ", 20, ACL(E(1, 6, NO_ID), E(32, 4, NO_ID)) },
	{ "no USER_OBJ", 20, ACL(E(4, 6, NO_ID), E(32, 4, NO_ID)) },
	{ "no mask", 36, ACL(E(1, 6, NO_ID), E(2, 6, 1000), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "no mask for groups", 36, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(8, 6, 1000), E(32, 0, NO_ID)) },
	{ "wrong order", 28, ACL(E(4, 6, NO_ID), E(1, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "a user behind the groups", 52, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(8, 4, 7), E(2, 4, 7), E(16, 7, NO_ID),
					      E(32, 0, NO_ID)) },
	{ "twice USER_OBJ", 36, ACL(E(1, 6, NO_ID), E(1, 6, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "twice OTHER", 36, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID), E(32, 0, NO_ID)) },
	{ "two masks", 44, ACL(E(1, 6, NO_ID), E(4, 4, NO_ID), E(16, 4, NO_ID), E(16, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "perm 8", 28, ACL(E(1, 8, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "tag 3", 28, ACL(E(3, 4, NO_ID), E(4, 4, NO_ID), E(32, 0, NO_ID)) },
	{ "tag 0", 28, ACL(E(1, 4, NO_ID), E(4, 4, NO_ID), E(0, 0, NO_ID)) },
	{ "a user without number", 44, ACL(E(1, 7, NO_ID), E(2, 6, NO_ID), E(4, 5, NO_ID), E(16, 6, NO_ID), E(32, 4, NO_ID)) },
	{ "GROUP_OBJ with a number", 28, ACL(E(1, 6, NO_ID), E(4, 4, 5), E(32, 0, NO_ID)) },
};

static const char *call_names[] = {
	"user.a", "user.", "user", "trusted.a", "trusted.", "security.a", "security.", "system.posix_acl_access",
	"system.posix_acl_default", "system.posix_acl_accessx", "system.posix_acl", "system.data", "system.", "nothing.a", "a",
	"", ".", "user..", "User.a", NULL /* 255 bytes */, NULL /* 256 */,
};

static void name_calls(void)
{
	static char longest[256], longer[257];

	memset(longest, 'l', 255);
	memset(longer, 'l', 256);
	memcpy(longest, "user.", 5);
	memcpy(longer, "user.", 5);
	call_names[COUNT(call_names) - 2] = longest;
	call_names[COUNT(call_names) - 1] = longer;
}

struct before {
	struct stat twin;
	struct inl_stat ours;
};

static void look(struct rig *rig, unsigned object, struct before *before)
{
	struct inl_inode *inode = get(rig, object);

	assert_int_equal(inl_inode_stat(inode, &before->ours, NULL), 0);
	assert_int_equal(lstat(path_of("twin", object), &before->twin), 0);
	assert_int_equal(before->ours.mode, before->twin.st_mode);
	inl_inode_put(inode);
}

static bool ctime_same(const struct before *a, const struct before *b, bool twin)
{
	if (twin)
		return a->twin.st_ctim.tv_sec == b->twin.st_ctim.tv_sec && a->twin.st_ctim.tv_nsec == b->twin.st_ctim.tv_nsec;
	return a->ours.ctime.sec == b->ours.ctime.sec && a->ours.ctime.nsec == b->ours.ctime.nsec;
}

static void compare_value(struct rig *rig, unsigned object, const char *name)
{
	struct inl_inode *inode = get(rig, object);
	uint8_t ours[1000], theirs[1000];
	ssize_t n = lgetxattr(path_of("twin", object), name, theirs, sizeof(theirs));
	int want = n < 0 ? -errno : 0, err;
	size_t len;

	err = inl_xattr_get(inode, name, ours, sizeof(ours), &len, NULL);
	inl_inode_put(inode);
	if (err != want)
		print_error("get '%s' of %s\n", name, objects[object]);
	assert_int_equal(err, want);
	if (!err) {
		assert_int_equal(len, n);
		assert_memory_equal(ours, theirs, len);
	}
}

static void compare_call(struct rig *rig, unsigned object, const char *name, const struct value *value, unsigned flags)
{
	struct before before, after;
	int err, want;

	look(rig, object, &before);
	want = kernel_set("twin", object, name, value ? value->bytes : NULL, value ? value->len : 0, flags);
	err = set(rig, object, name, value ? value->bytes : NULL, value ? value->len : 0, value ? flags : 0);
	look(rig, object, &after);
	if (err != want || ctime_same(&before, &after, false) != ctime_same(&before, &after, true))
		print_error("'%s' of %s: %s, flags %u: %d here, %d there\n", name, objects[object],
			    value ? value->what : "remove", flags, err, want);
	assert_int_equal(err, want);
	assert_int_equal(ctime_same(&before, &after, false), ctime_same(&before, &after, true));
	compare_value(rig, object, name);
}

/* What lies on the medium, by way of the own reader, of both. */
static void compare_raw(const char *name, unsigned object, uint8_t index)
{
	uint8_t bytes[2][1000];
	size_t len[2] = { 0 };
	int err[2];

	for (unsigned i = 0; i < 2; i++) {
		struct inl_dev *dev;
		struct inl_volume *vol;
		struct inl_inode *inode;

		assert_int_equal(inl_dev_open(in_dir(i ? "t.img" : "i.img"), 0, NULL, &dev), 0);
		assert_int_equal(inl_volume_open(dev, NULL, 0, NULL, &vol), 0);
		assert_int_equal(inl_path(vol, objects[object], false, NULL, &inode), 0);
		err[i] = inl_raw_xattr_get(inode, index, name, bytes[i], sizeof(bytes[i]), &len[i], NULL);
		inl_inode_put(inode);
		inl_volume_close(vol);
		inl_dev_close(dev);
	}
	assert_int_equal(err[0], err[1]);
	assert_int_equal(len[0], len[1]);
	assert_memory_equal(bytes[0], bytes[1], len[0]);
}

static void test_calls(void **state)
{
	static const char *const options[] = { "-t ext4 -b 1024 -I 256 -J size=1", "-t ext4 -b 1024 -I 128 -J size=1" };
	struct rig rig;

	needs_kernel();
	name_calls();
	for (unsigned l = 0; l < COUNT(options); l++) {
		make_volume(options[l], "16M");
		run("mount -o loop t.img twin");
		rig_open(&rig);
		for (unsigned o = 0; o < N_OBJECTS; o++) {
			for (unsigned i = 0; i < COUNT(call_names); i++) {
				bool acl = strstr(call_names[i], "posix");

				for (unsigned v = 0; v < (acl ? COUNT(values) : 3); v++)
					compare_call(&rig, o, call_names[i], &values[v], rng(4));
				compare_call(&rig, o, call_names[i], NULL, 0);
				compare_call(&rig, o, call_names[i], NULL, 0);
			}
			for (unsigned n = 0; n < 150; n++) {
				const struct value *value = &values[rng(COUNT(values))];

				compare_call(&rig, o, call_names[rng(COUNT(call_names))], rng(3) ? value : NULL, rng(8));
			}
			for (unsigned v = 3; v < 8; v++) {
				compare_call(&rig, o, "system.posix_acl_access", &values[v], 0);
				compare_call(&rig, o, "system.posix_acl_default", &values[v], 0);
			}
		}
		rig_close(&rig);
		run("umount twin");
		for (unsigned o = 0; o < N_OBJECTS; o++) {
			compare_raw("", o, 2);
			compare_raw("", o, 3);
		}
	}
}

/* ---- blocks that the kernel shares ------------------------------------------------------------------------------- */

static uint32_t refcount_of(struct rig *rig, unsigned object, uint64_t *pblk)
{
	struct inl_inode *inode = get(rig, object);
	struct inl_block *block;
	uint32_t count = 0;

	*pblk = ext2fs_file_acl_block(rig->vol->fs, (struct ext2_inode *)&inode->raw);
	if (*pblk) {
		assert_int_equal(inl_block_get(rig->vol, *pblk, &block), 0);
		count = inl_load_le32(inl_block_bytes(block) + 4);
		inl_block_put(block);
	}
	inl_inode_put(inode);
	return count;
}

static int drop_op(struct inl_handle *op, void *arg)
{
	return inl_raw_xattrs_drop(op, arg);
}

static void drop(struct rig *rig, struct model *model, unsigned object)
{
	struct inl_inode *inode = get(rig, object);

	assert_int_equal(inl_op_run(rig->vol, inl_xattr_credits(rig->vol), drop_op, inode, NULL), 0);
	inl_inode_put(inode);
	model_put(&model->attrs[object][0], NULL, 0);
}

static void test_shared(void **state)
{
	static const char *const options[] = { "-t ext4 -b 1024 -I 128 -J size=1", "-t ext4 -b 4096 -I 256",
					       "-t ext4 -b 4096 -I 256 -O ^metadata_csum" };
	struct model *model = malloc(sizeof(*model));
	static uint8_t value[700];
	struct rig rig;

	needs_kernel();
	assert_non_null(model);
	memset(value, 's', sizeof(value));
	for (unsigned l = 0; l < COUNT(options); l++) {
		uint64_t blocks[5];
		bool all = true;

		model_init_short(model);
		make_volume(options[l], "16M");
		run("mount -o loop i.img mnt");
		for (unsigned o = A; o <= DIR_; o++) {
			assert_int_equal(kernel_set("mnt", o, model->names[0], value, sizeof(value), 0), 0);
			model_put(&model->attrs[o][0], value, sizeof(value));
		}
		run("umount mnt");
		rig_open(&rig);
		for (unsigned o = A; o <= DIR_; o++)
			all &= refcount_of(&rig, o, &blocks[o]) == 5;
		assert_true(all); /* or the kernel does not share any more */
		check_ours(&rig, model);

		/* Changed: a block of its own. Removed, dropped: only counted down. */
		assert_int_equal(set(&rig, A, model->names[0], "x", 1, 0), 0);
		model_put(&model->attrs[A][0], "x", 1);
		assert_int_equal(refcount_of(&rig, B, &blocks[B]), 4);
		assert_int_equal(set(&rig, B, model->names[1], value, 60, 0), 0);
		model_put(&model->attrs[B][1], value, 60);
		assert_int_equal(set(&rig, C, model->names[0], NULL, 0, 0), 0);
		model_put(&model->attrs[C][0], NULL, 0);
		check_ours(&rig, model);
		drop(&rig, model, D);
		assert_int_equal(refcount_of(&rig, D, &blocks[D]), 0);
		check_ours(&rig, model);
		rig_close(&rig);
		run("mount -o loop i.img mnt");
		check_kernel("mnt", model);
		run("umount mnt");

		/* The last one frees it. */
		rig_open(&rig);
		drop(&rig, model, DIR_);
		check_ours(&rig, model);
		rig_close(&rig);
		model_done(model);
	}
	free(model);
}

/* ---- a full volume ----------------------------------------------------------------------------------------------- */

static void test_full(void **state)
{
	struct model *model = malloc(sizeof(*model));
	static uint8_t value[700];
	struct inl_inode *fill;
	uint64_t pblk;
	struct rig rig;
	size_t done;

	needs_kernel();
	assert_non_null(model);
	model_init_short(model);
	make_volume("-t ext4 -b 1024 -I 256 -J size=1 -m 0", "4M");
	run("mount -o loop i.img mnt");
	assert_int_equal(kernel_set("mnt", A, model->names[0], value, sizeof(value), 0), 0);
	assert_int_equal(kernel_set("mnt", C, model->names[0], value, sizeof(value), 0), 0);
	run("umount mnt");
	model_put(&model->attrs[A][0], value, sizeof(value));
	model_put(&model->attrs[C][0], value, sizeof(value));
	rig_open(&rig);
	fill = get(&rig, D);
	for (uint64_t at = 0; !inl_write(fill, at, value, sizeof(value), &done, NULL); at += done)
		;
	inl_inode_put(fill);
	assert_int_equal(set(&rig, B, model->names[0], value, sizeof(value), 0), -ENOSPC);
	/* Shared: there is no room for a copy; what is small goes to the inode all the same. */
	assert_int_equal(refcount_of(&rig, A, &pblk), 2);
	assert_int_equal(set(&rig, A, model->names[0], value, 300, 0), -ENOSPC);
	check_ours(&rig, model);
	assert_int_equal(set(&rig, A, "user.small", "1", 1, 0), 0);
	
	rig_close(&rig);
	model_done(model);
	free(model);
}

/* ---- what must survive ------------------------------------------------------------------------------------------- */

struct raw_set {
	struct inl_inode *inode;
	uint8_t index;
	const char *name;
	const void *value;
	size_t len;
};

static int raw_op(struct inl_handle *op, void *arg)
{
	const struct raw_set *set = arg;

	return inl_raw_xattr_set(op, set->inode, set->index, set->name, set->value, set->len, 0);
}

static const uint8_t context[40] = { 2, 1, 4, 3, 0, 0, 0, 0, 1, 2, 3, 4, 5 };

static void check_context(struct rig *rig, unsigned object)
{
	struct inl_inode *inode = get(rig, object);
	uint8_t got[64];
	size_t len;

	assert_int_equal(inl_raw_xattr_get(inode, 9, "c", got, sizeof(got), &len, NULL), 0);
	assert_int_equal(len, sizeof(context));
	assert_memory_equal(got, context, len);
	inl_inode_put(inode);
}

static void test_context(void **state)
{
	struct model *model = malloc(sizeof(*model));
	struct rig rig;

	needs_tools();
	assert_non_null(model);
	for (unsigned l = 0; l < 3; l++) {
		model_init(model);
		make_volume(layouts[l], "16M");
		rig_open(&rig);
		for (unsigned o = A; o <= DIR_; o++) {
			struct raw_set set = { get(&rig, o), 9, "c", context, sizeof(context) };

			assert_int_equal(inl_op_run(rig.vol, inl_xattr_credits(rig.vol), raw_op, &set, NULL), 0);
			inl_inode_put(set.inode);
		}
		for (unsigned n = 0; n < 300; n++) {
			static uint8_t value[1100];
			unsigned o = rng(DIR_ + 1), i = rng(N_NAMES);
			size_t len = rng(3) ? rng(60) : rng(sizeof(value));
			bool remove = !rng(3);
			int err = set(&rig, o, model->names[i], remove ? NULL : value, len, 0);

			if (!err)
				model_put(&model->attrs[o][i], remove ? NULL : value, len);
			check_context(&rig, o);
		}
		check_ours(&rig, model);
		assert_int_equal(inl_volume_close(rig.vol), 0);
		inl_dev_close(rig.dev);
		run("e2fsck -fn i.img || grep -q encrypt log");
		model_done(model);
	}
	free(model);
}

/* Where the attributes of A lie, in bytes of the image: behind the first half of its inode, and their block (0: none). */
static void places(struct rig *rig, uint64_t *body, uint64_t *block)
{
	struct inl_inode *inode = get(rig, A);
	uint32_t at;

	assert_int_equal(inl_inode_place(rig->vol, inode->ino, body, &at), 0);
	inl_inode_put(inode);
	*body = *body * rig->vol->block_size + at + 128;
	refcount_of(rig, A, block);
	*block *= rig->vol->block_size;
}

static void put_bytes(uint64_t at, const void *bytes, size_t len)
{
	int fd = open(in_dir("i.img"), O_RDWR);

	assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
	close(fd);
}

/* Inodes of older systems: nothing, or less, is known behind their first 128 bytes. */
static void test_old_inodes(void **state)
{
	static const unsigned extra[] = { 0, 4, 28, 32 };
	static uint8_t value[90], junk[126];
	uint64_t body, block;
	struct model *model = malloc(sizeof(*model));
	struct rig rig;

	needs_tools();
	assert_non_null(model);
	memset(junk, 'j', sizeof(junk));
	for (unsigned l = 0; l < COUNT(extra); l++) {
		model_init_short(model);
		make_volume("-t ext4 -b 1024 -I 256 -O ^metadata_csum", "16M");
		run("debugfs -w -R 'sif a extra_isize %u' i.img && debugfs -w -R 'sif dir extra_isize %u' i.img", extra[l], extra[l]);
		rig_open(&rig);
		places(&rig, &body, &block);
		rig_close(&rig);
		if (!extra[l]) /* whatever lies there */
			put_bytes(body + 2, junk, sizeof(junk));
		rig_open(&rig);
		for (unsigned i = 0; i < 6; i++) {
			for (unsigned o = A; o <= DIR_; o += DIR_) {
				value[0] = (uint8_t)i;
				assert_int_equal(set(&rig, o, model->names[i], value, 10 + 13 * i, 0), 0);
				model_put(&model->attrs[o][i], value, 10 + 13 * i);
			}
		}
		check_ours(&rig, model);
		rig_close(&rig);
		if (has_kernel) {
			run("mount -o loop i.img mnt");
			check_kernel("mnt", model);
			assert_int_equal(kernel_set("mnt", A, model->names[6], value, 30, 0), 0);
			model_put(&model->attrs[A][6], value, 30);
			run("umount mnt && e2fsck -fn i.img");
		}
		rig_open(&rig);
		check_ours(&rig, model);
		rig_close(&rig);
		model_done(model);
	}
	free(model);
}

/* ---- values in inodes of their own ------------------------------------------------------------------------------- */

static void test_ea_inode(void **state)
{
	static uint8_t value[9000];
	uint64_t pblk;
	struct rig rig;

	needs_kernel();
	memset(value, 'v', sizeof(value));
	make_volume("-t ext4 -b 1024 -I 256 -J size=1 -O ea_inode", "16M");
	run("mount -o loop i.img mnt");
	assert_int_equal(kernel_set("mnt", A, "user.large", value, sizeof(value), 0), 0);
	run("umount mnt");
	rig_open(&rig);
	assert_int_equal(set(&rig, B, "user.large", value, sizeof(value), 0), -ENOSPC);
	assert_int_equal(set(&rig, A, "user.large", value, 1, 0), -EOPNOTSUPP);
	assert_int_equal(set(&rig, A, "user.large", NULL, 0, 0), -EOPNOTSUPP);
	for (unsigned i = 0; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(set(&rig, A, name, value, 20 * i, 0), 0);
	}
	assert_int_equal(refcount_of(&rig, A, &pblk), 1);
	rig_close(&rig);
	run("mount -o loop i.img mnt");
	memset(value, 0, sizeof(value));
	assert_int_equal(lgetxattr(path_of("mnt", A), "user.large", value, sizeof(value)), sizeof(value));
	assert_int_equal(value[8999], 'v');
	run("umount mnt");
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct worker {
	struct rig *rig;
	char name[16];
	unsigned seed;
	bool good;
};

static int count_one(const char *name, const void *value, size_t len, void *arg)
{
	const uint8_t *bytes = value;

	/* All bytes of a value are the same, or it is half of one and half of another. */
	for (size_t i = 1; i < len; i++)
		*(bool *)arg &= bytes[i] == bytes[0];
	return 0;
}

/* Each has a name of its own on two inodes that all share: what it set is there, whatever the others do. */
static void *work(void *arg)
{
	struct worker *worker = arg;
	uint8_t value[300], got[300];
	struct inl_inode *inodes[2] = { get(worker->rig, A), get(worker->rig, DIR_) };

	worker->good = true;
	for (unsigned n = 0; n < 150; n++) {
		struct inl_inode *inode = inodes[n % 2];
		size_t len = (n * worker->seed * 7) % 130, got_len = 0;

		memset(value, (int)n, len);
		worker->good &= !inl_xattr_set(inode, worker->name, value, len, 0, NULL);
		worker->good &= !inl_xattr_get(inode, worker->name, got, sizeof(got), &got_len, NULL);
		worker->good &= got_len == len && !memcmp(got, value, len);
		worker->good &= !inl_xattrs(inode, count_one, &worker->good, NULL);
		if (n % 5 == 0)
			worker->good &= !inl_xattr_set(inode, worker->name, NULL, 0, 0, NULL);
		if (n % 50 == 0)
			worker->good &= !inl_sync(worker->rig->vol, NULL);
	}
	inl_inode_put(inodes[0]);
	inl_inode_put(inodes[1]);
	return NULL;
}

static void test_threads(void **state)
{
	struct worker workers[4] = { 0 };
	pthread_t threads[COUNT(workers)];
	struct rig rig;

	needs_tools();
	make_volume("-t ext4 -b 1024 -I 256 -J size=1", "8M");
	rig_open(&rig);
	for (unsigned i = 0; i < COUNT(workers); i++) {
		workers[i] = (struct worker){ .rig = &rig, .seed = i + 1 };
		snprintf(workers[i].name, sizeof(workers[i].name), "user.%u", i);
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < COUNT(workers); i++) {
		pthread_join(threads[i], NULL);
		assert_true(workers[i].good);
	}
	rig_close(&rig);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static void spoil(uint64_t at)
{
	uint8_t junk[4];
	size_t len = 1 + rng(4);

	for (unsigned k = 0; k < sizeof(junk); k++)
		junk[k] = (uint8_t)(rng(2) ? rng(256) : rng(2) * 255);
	put_bytes(at, junk, len);
}

static int ignore(const char *name, const void *value, size_t len, void *arg)
{
	return 0;
}

/* Whatever lies in an inode or in a block: an answer, and no harm to memory. */
static void test_damaged(void **state)
{
	static uint8_t value[700];
	struct model *model = malloc(sizeof(*model));
	uint64_t body, block;
	unsigned n_damaged = 0;
	struct rig rig;

	needs_tools();
	assert_non_null(model);
	model_init(model);
	make_volume("-t ext4 -b 1024 -I 256 -O ^metadata_csum,^has_journal", "1M");
	rig_open(&rig);
	for (unsigned i = 0; i < 6; i++)
		set(&rig, A, model->names[i], value, i < 3 ? rng(20) : 60 + rng(150), 0);
	places(&rig, &body, &block);
	rig_close(&rig);
	for (unsigned n = 0; n < 120; n++) {
		struct inl_inode *inode;

		run("%s", n ? "cp s.img i.img" : "cp i.img s.img");
		spoil(rng(2) ? body + rng(120) : block + (rng(2) ? rng(150) : rng(1020)));
		rig_open(&rig);
		for (unsigned i = 0; i < 8; i++) {
			int err = set(&rig, A, model->names[rng(9)], rng(3) ? value : NULL, rng(sizeof(value)), 0);

			assert_true(!err || err == -EUCLEAN || err == -ENODATA || err == -ENOSPC || err == -EOPNOTSUPP);
			n_damaged += err == -EUCLEAN;
		}
		inode = get(&rig, A);
		inl_xattrs(inode, ignore, NULL, NULL);
		inl_inode_put(inode);
		inl_volume_close(rig.vol);
		inl_dev_close(rig.dev);
	}
	assert_true(n_damaged > 50);
	model_done(model);
	free(model);
}

/* Another argument than none: where the dice begin. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),	 cmocka_unit_test(test_calls),	   cmocka_unit_test(test_shared),
		cmocka_unit_test(test_full),	 cmocka_unit_test(test_context),   cmocka_unit_test(test_old_inodes),
		cmocka_unit_test(test_ea_inode), cmocka_unit_test(test_threads),   cmocka_unit_test(test_damaged),
	};

	if (argc > 1)
		dice = strtoull(argv[1], NULL, 0);
	return cmocka_run_group_tests_name("attributes that change", tests, setup, teardown);
}
