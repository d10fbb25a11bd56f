/*
 * tests/unit/twin_ops.c: the twin's operations: each chooses what to do, says so on standard output, and does it.
 * Not here: who carries them out (twin_kernel.c, twin_inlay.c).
 * Read more: twin.c.
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define CROWD	 130u /* names, above which more are removed than made */
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int64_t op_make(uint32_t type)
{
	uint32_t mode = type | tw_rng(01000) | (tw_rng(20) ? 0 : S_ISDIR(type) ? tw_rng(010000) : 01000);
	bool big = tw_rng(2), dev = S_ISCHR(type) || S_ISBLK(type);
	unsigned rdev_major = dev ? tw_rng(big ? 4096 : 256) : 0, rdev_minor = dev ? tw_rng(big ? 1 << 20 : 256) : 0;
	uint32_t uid = tw_some_id(), gid = tw_some_id();
	struct place place;
	int err;

	tw_new_place(&place);
	putchar(' ');
	tw_show(place.path);
	tw_side->set_umask(tw_rng(3) ? 022 : tw_rng(01000));
	err = tw_side->make(place.dir, place.name, mode, uid, gid, rdev_major, rdev_minor);
	if (!err)
		tw_add_entry(place.path, type);
	tw_close_place(&place);
	return err;
}

static int64_t op_create(void)
{
	return op_make(S_IFREG);
}

static int64_t op_mkdir(void)
{
	return op_make(S_IFDIR);
}

static int64_t op_mknod(void)
{
	static const uint32_t types[] = { S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };

	return op_make(types[tw_rng(COUNT(types))]);
}

static int64_t op_symlink(void)
{
	static char target[4096];
	unsigned what = tw_rng(10), len = what < 5 ? 1 + tw_rng(59) : what < 7 ? 58 + tw_rng(5) : what < 9 ? 60 + tw_rng(900) : 900 + tw_rng(3100);
	struct place place;
	int err;

	for (unsigned i = 0; i < len; i++)
		target[i] = (char)('a' + tw_rng(26));
	tw_new_place(&place);
	target[len] = 0;
	putchar(' ');
	tw_show(place.path);
	printf(" %u", len);
	err = tw_side->symlink(place.dir, place.name, target);
	if (!err)
		tw_add_entry(place.path, S_IFLNK);
	tw_close_place(&place);
	return err;
}

/* Where there are policies, mostly a place that what is at this path may come to. */
static void new_near(struct place *place, const char *path)
{
	if (!tw_n_policies || !path[0] || !tw_rng(3)) {
		tw_new_place(place);
		return;
	}
	tw_some_name(place->name);
	tw_open_place(place, tw_near_dir(path));
}

static int64_t op_link(void)
{
	struct target target;
	struct place place;
	int err;

	if (!tw_open_target(&target, tw_rng(12) ? TW_REG | TW_LNK | TW_OTHER : TW_ANY))
		return 0;
	new_near(&place, target.path);
	printf(" -> ");
	tw_show(place.path);
	err = tw_side->link(target.obj, place.dir, place.name);
	if (!err)
		tw_add_entry(place.path, target.type);
	tw_close_place(&place);
	tw_close_target(&target);
	return err;
}

static int64_t remove_one(unsigned kinds, bool is_dir)
{
	struct place place;
	int err;

	tw_old_place(&place, kinds);
	putchar(' ');
	tw_show(place.path);
	err = tw_side->unlink(place.dir, place.name, is_dir);
	if (!err)
		tw_remove_entry(place.path);
	tw_close_place(&place);
	return err;
}

static int64_t op_unlink(void)
{
	return remove_one(tw_rng(12) ? TW_REG | TW_LNK | TW_OTHER : TW_ANY, false);
}

static int64_t op_rmdir(void)
{
	return remove_one(tw_rng(12) ? TW_DIR : TW_ANY, true);
}

static uint64_t ino_of(const char *path)
{
	struct twin_stat st = { 0 };
	void *obj;

	if (!tw_side->get(path, &obj)) {
		tw_side->stat(obj, &st);
		tw_side->put(obj);
	}
	return st.ino;
}

static void renamed(const char *from, const char *to, enum twin_rename how)
{
	char away[TWIN_PATH] = "//";

	if (how == TWIN_EXCHANGE) {
		tw_move_entries(from, away);
		tw_move_entries(to, from);
		tw_move_entries(away, to);
	} else if (ino_of(from) != ino_of(to)) { /* two names of one inode stay both */
		tw_remove_entry(to);
		tw_move_entries(from, to);
		if (how >= TWIN_WHITEOUT)
			tw_add_entry(from, S_IFCHR);
	}
}

static int64_t rename_one(enum twin_rename how)
{
	struct place from, to;
	int err;

	tw_old_place(&from, TW_ANY);
	if (how == TWIN_EXCHANGE ? tw_rng(10) != 0 : tw_rng(3) == 0)
		tw_old_place(&to, TW_ANY);
	else
		new_near(&to, from.path);
	if (strlen(to.name) > 255 && !tw_is_there(from.path)) /* one error at a time */
		to.name[255] = 0;
	putchar(' ');
	tw_show(from.path);
	printf(" -> ");
	tw_show(to.path);
	err = tw_side->rename(from.dir, from.name, to.dir, to.name, how);
	tw_close_place(&from);
	tw_close_place(&to);
	if (!err && strcmp(from.path, to.path))
		renamed(from.path, to.path, how);
	return err;
}

static int64_t op_rename(void)
{
	return rename_one(TWIN_RENAME);
}

static int64_t op_noreplace(void)
{
	return rename_one(TWIN_NOREPLACE);
}

static int64_t op_whiteout(void)
{
	return rename_one(tw_rng(4) ? TWIN_WHITEOUT : TWIN_WHITEOUT_NOREPLACE);
}

static int64_t op_exchange(void)
{
	return rename_one(TWIN_EXCHANGE);
}

static int64_t op_write(void)
{
	uint64_t offset = tw_some_offset();
	size_t len = tw_some_len();
	struct target target;
	int64_t done;

	if (!tw_open_target(&target, TW_REG))
		return 0;
	printf(" %" PRIu64 "+%zu", offset, len);
	tw_fill_buf(len);
	done = tw_side->write(target.obj, offset, tw_buf, len);
	tw_close_target(&target);
	return done;
}

/* Behind the end, piece by piece. */
static int64_t op_append(void)
{
	unsigned n = 1 + tw_rng(12);
	struct target target;
	struct twin_stat st;
	int64_t done = 0;

	if (!tw_open_target(&target, TW_REG))
		return 0;
	for (unsigned i = 0; i < n && done >= 0; i++) {
		size_t len = tw_rng(5000);

		done = tw_side->stat(target.obj, &st);
		if (st.size > 4000000)
			break;
		tw_fill_buf(len);
		if (!done)
			done = tw_side->write(target.obj, st.size, tw_buf, len);
	}
	tw_close_target(&target);
	return done;
}

static int64_t op_read(void)
{
	uint64_t offset = tw_some_offset();
	size_t len = tw_some_len();
	struct target target;
	int64_t got;

	if (!tw_open_target(&target, TW_REG))
		return 0;
	got = tw_side->read(target.obj, offset, tw_buf, len);
	printf(" %" PRIu64 "+%zu: %016" PRIx64, offset, len, got > 0 ? tw_hash_bytes(0, tw_buf, (size_t)got) : 0);
	tw_close_target(&target);
	return got;
}

static int64_t op_truncate(void)
{
	struct target target;
	struct twin_stat st;
	uint64_t size;
	int err;

	if (!tw_open_target(&target, tw_rng(30) ? TW_REG : TW_REG | TW_DIR))
		return 0;
	err = tw_side->stat(target.obj, &st);
	/* The size of a directory is nobody's business: the two may divide blocks differently. */
	if (S_ISDIR(st.mode))
		st.size = 1024;
	size = !tw_rng(10) ? 0 : !tw_rng(10) ? st.size : st.size && tw_rng(2) ? tw_rng64() % st.size : tw_some_offset();
	printf(" %" PRIu64, size);
	if (!err)
		err = tw_side->truncate(target.obj, size);
	tw_close_target(&target);
	return err;
}

/* Linux sets the times before it finds out that it cannot. Of an append-only file they cannot be set as it is. */
static void same_times(void *obj)
{
	uint32_t flags;

	if (tw_side->utimes(obj, (struct twin_time){ 1 }, (struct twin_time){ 2 }) != -EPERM)
		return;
	tw_side->get_flags(obj, &flags);
	tw_side->set_flags(obj, flags & ~TWIN_MARKS);
	tw_side->utimes(obj, (struct twin_time){ 1 }, (struct twin_time){ 2 });
}

static int64_t op_fallocate(void)
{
	static const char *const names[] = { "allocate", "allocate keep", "punch", "zero", "zero keep" };
	enum twin_fallocate how = tw_rng(TWIN_N_FALLOCATE);
	uint64_t offset = tw_some_offset(), len = tw_rng(30) ? 1 + tw_some_len() : 0;
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_REG))
		return 0;
	if (how == TWIN_PUNCH && !tw_rng(4))
		len = 1 + tw_rng(2000000);
	printf(" %s %" PRIu64 "+%" PRIu64, names[how], offset, len);
	err = tw_side->fallocate(target.obj, how, offset, len);
	if (err == -EOPNOTSUPP)
		same_times(target.obj);
	tw_close_target(&target);
	return err;
}

static int64_t op_chmod(void)
{
	uint32_t mode = tw_rng(02000);
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_REG | TW_DIR | TW_OTHER))
		return 0;
	/* Of a file Linux would take these bits again, here and there. */
	if (S_ISDIR(target.type) && tw_rng(2))
		mode |= S_ISGID;
	err = tw_side->chmod(target.obj, mode);
	tw_close_target(&target);
	return err;
}

static int64_t op_chattr(void)
{
	uint32_t marks = tw_rng(3) ? tw_rng(2) * TWIN_NODUMP : tw_rng(8) * TWIN_IMMUTABLE, flags;
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_REG | TW_DIR))
		return 0;
	printf(" %02x", marks);
	err = tw_locked || (!target.is_held && !target.path[0]) ? -EBUSY : tw_side->get_flags(target.obj, &flags);
	if (!err)
		err = tw_side->set_flags(target.obj, (flags & ~TWIN_MARKS) | marks);
	tw_close_target(&target);
	return err;
}

static int64_t op_chown(void)
{
	uint32_t uid = tw_some_id(), gid = tw_some_id();
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	err = tw_side->chown(target.obj, uid, gid);
	tw_close_target(&target);
	return err;
}

/* Any but those of today, so that a change of today can be told. */
static struct twin_time some_time(void)
{
	static const int64_t spans[][2] = { { 0, 1500000000 }, { -2147483647, 2000000000 }, { 2100000000, 40000000 },
					    { 2147483648, 8000000000 } };
	unsigned i = tw_rng(tw_old_inodes ? 3 : COUNT(spans));

	return (struct twin_time){ spans[i][0] + (int64_t)(tw_rng64() % (uint64_t)spans[i][1]), tw_rng(1000000000) };
}

static int64_t op_utimes(void)
{
	struct twin_time atime = some_time(), mtime = some_time();
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	err = tw_side->utimes(target.obj, atime, mtime);
	tw_close_target(&target);
	return err;
}

static const char *some_xattr(void)
{
	static char name[300];
	static const char *const prefixes[] = { "user.", "user.", "user.", "trusted.", "security.", "bad.", "user" };
	unsigned len;

	if (tw_rng(3)) {
		snprintf(name, sizeof(name), "%sx%u", prefixes[tw_rng(5)], tw_rng(6));
		return name;
	}
	snprintf(name, sizeof(name), "%s", prefixes[tw_rng(tw_rng(5) ? 4 : COUNT(prefixes))]);
	len = tw_rng(20) ? 1 + tw_rng(30) : 240 + tw_rng(12);
	for (unsigned at = (unsigned)strlen(name); len--; at++) {
		name[at] = (char)('a' + tw_rng(26));
		name[at + 1] = 0;
	}
	return name;
}

static int64_t op_setxattr(void)
{
	unsigned what = tw_rng(20), len = what < 14 ? tw_rng(60) : what < 19 ? tw_rng(400) : tw_rng(1500);
	int flags = tw_rng(4) ? 0 : tw_rng(2) ? XATTR_CREATE : XATTR_REPLACE;
	const char *name = some_xattr();
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	printf(" %s %u %d", name, len, flags);
	tw_fill_buf(len + 1);
	err = tw_side->xattr_set(target.obj, name, tw_buf, len, flags);
	tw_close_target(&target);
	return err;
}

static int64_t op_removexattr(void)
{
	const char *name = some_xattr();
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	printf(" %s", name);
	err = tw_side->xattr_set(target.obj, name, NULL, 0, 0);
	tw_close_target(&target);
	return err;
}

static int64_t op_getxattr(void)
{
	const char *name = some_xattr();
	struct target target;
	int64_t got;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	printf(" %s", name);
	got = tw_side->xattr_get(target.obj, name, tw_buf, tw_rng(3) ? 4096 : tw_rng(30));
	if (got > 0)
		printf(": %016" PRIx64, tw_hash_bytes(0, tw_buf, (size_t)got));
	tw_close_target(&target);
	return got;
}

static void put_le(uint8_t *p, uint32_t value, unsigned n)
{
	while (n--) {
		*p++ = (uint8_t)value;
		value >>= 8;
	}
}

static size_t put_ace(size_t at, unsigned tag, unsigned perm, uint32_t id)
{
	put_le(tw_buf + at, tag, 2);
	put_le(tw_buf + at + 2, perm, 2);
	put_le(tw_buf + at + 4, id, 4);
	return at + 8;
}

/* An ACL in the form of setxattr(2): of three entries, or with named users and groups. Now and then no ACL at all. */
static size_t some_acl(void)
{
	unsigned users = tw_rng(3) ? tw_rng(4) : 0, groups = tw_rng(3) ? tw_rng(3) : 0;
	size_t at = 4;

	put_le(tw_buf, tw_rng(20) ? 2 : 3, 4);
	at = put_ace(at, 0x01, tw_rng(8), ~0u);
	for (unsigned i = 0; i < users; i++)
		at = put_ace(at, 0x02, tw_rng(8), 100 * (i + 1) + tw_rng(50));
	at = put_ace(at, 0x04, tw_rng(8), ~0u);
	for (unsigned i = 0; i < groups; i++)
		at = put_ace(at, 0x08, tw_rng(8), 100 * (i + 1) + tw_rng(50));
	if (users || groups || !tw_rng(4))
		at = put_ace(at, 0x10, tw_rng(8), ~0u);
	return tw_rng(20) ? put_ace(at, 0x20, tw_rng(8), ~0u) : at;
}

static int64_t set_acl(void *obj, const char *name)
{
	bool remove = !tw_rng(4);
	size_t len = some_acl();

	printf(" %s %zu", name, remove ? 0 : len);
	return tw_side->xattr_set(obj, name, remove ? NULL : tw_buf, len, 0);
}

static int64_t op_acl(void)
{
	struct target target;
	int64_t err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	err = set_acl(target.obj, "system.posix_acl_access");
	tw_close_target(&target);
	return err;
}

static int64_t op_default_acl(void)
{
	struct target target;
	int64_t err;

	if (!tw_open_target(&target, tw_rng(8) ? TW_DIR : TW_ANY))
		return 0;
	err = set_acl(target.obj, "system.posix_acl_default");
	tw_close_target(&target);
	return err;
}

static int64_t op_stat(void)
{
	struct target target;
	struct twin_stat st;
	int err;

	if (!tw_open_target(&target, TW_ANY))
		return 0;
	err = tw_side->stat(target.obj, &st);
	printf(" %o %u %u:%u", st.mode, st.nlink, st.uid, st.gid);
	if (!S_ISDIR(st.mode))
		printf(" %" PRIu64, st.size);
	tw_close_target(&target);
	return err;
}

static int64_t op_list(void)
{
	struct target target;
	struct names names;
	uint64_t hash = 0;
	int err;

	if (!tw_open_target(&target, TW_DIR))
		return 0;
	err = tw_list_sorted(target.obj, &names);
	for (size_t i = 0; i < names.n; i++)
		hash = tw_hash_bytes(hash, names.names[i], strlen(names.names[i]) + 1);
	printf(" %zu: %016" PRIx64, names.n, hash);
	tw_free_names(&names);
	tw_close_target(&target);
	return err;
}

/* Many names in one directory: more than fit a block, some of them longer than others. */
static int64_t op_crowd(void)
{
	const char *path = tw_some_dir();
	unsigned n = 20 + tw_rng(tw_rng(4) ? 100 : 500), longest = 1 + tw_rng(tw_rng(3) ? 20 : 240);
	int64_t err = 0, done = 0;
	void *dir;

	putchar(' ');
	tw_show(path);
	err = tw_side->get(path, &dir);
	for (unsigned i = 0; i < n && !err; i++, done++) {
		char name[300];
		int len = snprintf(name, sizeof(name), "~%08" PRIx32, (uint32_t)tw_rng64());

		for (unsigned more = tw_rng(longest); more--; name[len] = 0)
			name[len++] = (char)('a' + tw_rng(26));
		err = tw_side->make(dir, name, tw_rng(10) ? S_IFREG | 0600 : S_IFDIR | 0700, 0, 0, 0, 0);
	}
	tw_side->put(dir);
	return err ? err : done;
}

static int64_t op_disperse(void)
{
	const char *path = tw_some_path(TW_DIR);
	unsigned share = tw_rng(5);
	struct names names;
	int64_t err, done = 0;
	void *dir;

	putchar(' ');
	tw_show(path);
	err = tw_side->get(path, &dir);
	if (!err)
		err = tw_list_sorted(dir, &names);
	for (size_t i = 0; i < names.n && !err; i++) {
		if (names.names[i][0] != '~' || tw_rng(5) < share)
			continue;
		err = tw_side->unlink(dir, names.names[i], false);
		if (err == -EISDIR)
			err = tw_side->unlink(dir, names.names[i], true);
		done++;
	}
	tw_free_names(&names);
	tw_side->put(dir);
	return err ? err : done;
}

static int64_t op_hold(void)
{
	unsigned slot = tw_rng(N_HELD);
	const char *path = tw_some_path(TW_REG | TW_DIR | TW_LNK | TW_OTHER);
	int err;

	if (tw_held[slot].obj)
		tw_side->put(tw_held[slot].obj);
	tw_held[slot].obj = NULL;
	if (!path || !path[0] || !tw_rng(4))
		return 0;
	printf(" %u ", slot);
	tw_show(path);
	err = tw_side->get(path, &tw_held[slot].obj);
	if (err)
		tw_held[slot].obj = NULL;
	else
		tw_held[slot].type = tw_find_entry(path)->type;
	return err;
}

static int64_t op_fsync(void)
{
	struct target target;
	int err;

	if (!tw_open_target(&target, TW_REG | TW_DIR))
		return 0;
	err = tw_side->fsync(target.obj);
	tw_close_target(&target);
	return err;
}

static int64_t op_sync(void)
{
	return tw_side->sync();
}

static const struct op ops[] = {
	{ "create", op_create, 14, 3 },
	{ "mkdir", op_mkdir, 7, 1 },
	{ "symlink", op_symlink, 4, 1 },
	{ "mknod", op_mknod, 3, 1 },
	{ "link", op_link, 5, 1 },
	{ "unlink", op_unlink, 9, 25 },
	{ "rmdir", op_rmdir, 4, 15 },
	{ "rename", op_rename, 10, 10 },
	{ "noreplace", op_noreplace, 2, 2 },
	{ "exchange", op_exchange, 4, 4 },
	{ "whiteout", op_whiteout, 3, 3 },
	{ "write", op_write, 24, 15 },
	{ "append", op_append, 5, 3 },
	{ "read", op_read, 6, 6 },
	{ "truncate", op_truncate, 9, 9 },
	{ "fallocate", op_fallocate, 11, 11 },
	{ "chmod", op_chmod, 3, 3 },
	{ "chown", op_chown, 3, 3 },
	{ "chattr", op_chattr, 6, 6 },
	{ "utimes", op_utimes, 3, 3 },
	{ "setxattr", op_setxattr, 8, 8 },
	{ "removexattr", op_removexattr, 3, 3 },
	{ "getxattr", op_getxattr, 3, 3 },
	{ "acl", op_acl, 3, 3 },
	{ "default acl", op_default_acl, 2, 2 },
	{ "stat", op_stat, 4, 4 },
	{ "list", op_list, 2, 2 },
	{ "crowd", op_crowd, 1, 0 },
	{ "disperse", op_disperse, 1, 3 },
	{ "hold", op_hold, 4, 4 },
	{ "fsync", op_fsync, 3, 3 },
	{ "sync", op_sync, 1, 1 },
	{ "vault", tw_op_vault, 4, 1, true },
	{ "set policy", tw_op_set_policy, 5, 5, true },
};

static unsigned weight_of(const struct op *op)
{
	if (op->crypt && (!tw_n_policies || tw_locked))
		return 0;
	return tw_n_entries > CROWD ? op->weight_crowded : op->weight;
}

const struct op *tw_some_op(void)
{
	unsigned sum = 0, pick;

	for (size_t i = 0; i < COUNT(ops); i++)
		sum += weight_of(&ops[i]);
	pick = tw_rng(sum);
	for (const struct op *op = ops;; op++) {
		unsigned weight = weight_of(op);

		if (pick < weight)
			return op;
		pick -= weight;
	}
}
