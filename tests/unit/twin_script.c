/*
 * tests/unit/twin_script.c: the twin's operations one by one, as lines of standard input ask for them, with their results.
 * Not here: random ones (twin_ops.c); which lines, and what should come of them (tests/kernel/test_errno.py).
 * Read more: twin.c.
 *
 * A line is a verb and its arguments, with single spaces. "!" is what was held, "!/NAME" a name in it. POLICY is
 * VERSION:CONTENTS:NAMES:FLAGS:UNIT:RESERVED:KEY, KEY the place of a policy= argument whose key it is to have, or "-": a key
 * that nobody has. A LEN of a target is its length.
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define N_ARGS	 3
#define LINE_MAX_LEN 16384

static void *held;

static int get(const char *path, void **obj)
{
	if (strcmp(path, "!"))
		return tw_side->get(path, obj);
	*obj = held;
	return held ? 0 : -EBADF;
}

static void put(void *obj)
{
	if (obj != held)
		tw_side->put(obj);
}

/* The directory of a path, and the last name of it. */
static int get_dir(const char *path, void **dir, const char **name)
{
	char parent[TWIN_PATH];
	const char *slash = strrchr(path, '/');

	snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 0, path);
	*name = slash ? slash + 1 : path;
	return get(parent, dir);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static int make(const char *path, uint32_t mode, const char *target)
{
	const char *name;
	void *dir;
	int err = get_dir(path, &dir, &name);

	if (err)
		return err;
	err = target ? tw_side->symlink(dir, name, target) : tw_side->make(dir, name, mode, 0, 0, 0, 0);
	put(dir);
	return err;
}

static int do_create(char **args)
{
	return make(args[0], S_IFREG | 0644, NULL);
}

static int do_mknod(char **args)
{
	return make(args[0], (uint32_t)strtoul(args[1], NULL, 8), NULL);
}

static int do_umask(char **args)
{
	tw_side->set_umask((uint32_t)strtoul(args[0], NULL, 8));
	return 0;
}

static int do_mkdir(char **args)
{
	return make(args[0], S_IFDIR | 0755, NULL);
}

static int do_mkfifo(char **args)
{
	return make(args[0], S_IFIFO | 0644, NULL);
}

static int do_symlink(char **args)
{
	static char target[8192];
	size_t len = strtoul(args[1], NULL, 10);

	if (len >= sizeof(target))
		return -E2BIG;
	memset(target, 't', len);
	target[len] = 0;
	return make(args[0], 0, target);
}

static int do_link(char **args)
{
	const char *name;
	void *obj, *dir;
	int err = get(args[0], &obj);

	if (err)
		return err;
	err = get_dir(args[1], &dir, &name);
	if (!err) {
		err = tw_side->link(obj, dir, name);
		put(dir);
	}
	put(obj);
	return err;
}

static int take(const char *path, bool is_dir)
{
	const char *name;
	void *dir;
	int err = get_dir(path, &dir, &name);

	if (err)
		return err;
	err = tw_side->unlink(dir, name, is_dir);
	put(dir);
	return err;
}

static int do_unlink(char **args)
{
	return take(args[0], false);
}

static int do_rmdir(char **args)
{
	return take(args[0], true);
}

static int move(char **args, enum twin_rename how)
{
	const char *from, *to;
	void *dir, *new_dir;
	int err = get_dir(args[0], &dir, &from);

	if (err)
		return err;
	err = get_dir(args[1], &new_dir, &to);
	if (!err) {
		err = tw_side->rename(dir, from, new_dir, to, how);
		put(new_dir);
	}
	put(dir);
	return err;
}

static int do_rename(char **args)
{
	return move(args, TWIN_RENAME);
}

static int do_noreplace(char **args)
{
	return move(args, TWIN_NOREPLACE);
}

static int do_exchange(char **args)
{
	return move(args, TWIN_EXCHANGE);
}

static int do_whiteout(char **args)
{
	return move(args, TWIN_WHITEOUT);
}

static int do_whiteout_noreplace(char **args)
{
	return move(args, TWIN_WHITEOUT_NOREPLACE);
}

/* ---- what has a name --------------------------------------------------------------------------------------------- */

static void ignore(const char *name, unsigned type, void *arg)
{
}

static void put_le(uint8_t *p, uint32_t value, unsigned n)
{
	for (; n--; value >>= 8)
		*p++ = (uint8_t)value;
}

/* TAG:PERM[:ID],... in numbers, in the form of setxattr(2); "-": none. */
static int set_acl(void *obj, const char *which, char *entries)
{
	bool is_default = !strcmp(which, "default");
	uint8_t acl[4 + 8 * 256];
	size_t len = 4;

	put_le(acl, 2, 4);
	for (char *entry; len < sizeof(acl) && (entry = strsep(&entries, ",")) && entry[0] != '-'; len += 8) {
		unsigned tag, perm, id;
		int n = sscanf(entry, "%u:%u:%u", &tag, &perm, &id);

		if (n < 2)
			return -ENOSYS;
		put_le(acl + len, tag, 2);
		put_le(acl + len + 2, perm, 2);
		put_le(acl + len + 4, n == 3 ? id : ~0u, 4);
	}
	return tw_side->xattr_set(obj, is_default ? "system.posix_acl_default" : "system.posix_acl_access",
				  len > 4 ? acl : NULL, len, 0);
}

static int64_t on(void *obj, const char *verb, char **args)
{
	struct twin_policy policy;
	struct twin_stat st;

	if (!strcmp(verb, "write"))
		return tw_side->write(obj, 0, "text", 4);
	if (!strcmp(verb, "read"))
		return tw_side->read(obj, 0, tw_buf, 4);
	if (!strcmp(verb, "truncate"))
		return tw_side->truncate(obj, strtoul(args[1], NULL, 10));
	if (!strcmp(verb, "write-end"))
		return !tw_side->stat(obj, &st) ? tw_side->write(obj, st.size, "more", 4) : -EIO;
	if (!strcmp(verb, "allocate"))
		return tw_side->fallocate(obj, TWIN_ALLOCATE, 0, 1);
	if (!strcmp(verb, "allocate-more"))
		return tw_side->fallocate(obj, TWIN_ALLOCATE, 0, 9000);
	if (!strcmp(verb, "chown"))
		return tw_side->chown(obj, (uint32_t)strtoul(args[1], NULL, 10), (uint32_t)strtoul(args[1], NULL, 10));
	if (!strcmp(verb, "chmod"))
		return tw_side->chmod(obj, (uint32_t)strtoul(args[1], NULL, 8));
	if (!strcmp(verb, "chattr"))
		return tw_side->set_flags(obj, (uint32_t)strtoul(args[1], NULL, 16));
	if (!strcmp(verb, "lsattr")) {
		uint32_t flags;
		int err = tw_side->get_flags(obj, &flags);

		if (!err)
			printf("%08x ", flags);
		return err;
	}
	if (!strcmp(verb, "punch"))
		return tw_side->fallocate(obj, TWIN_PUNCH, 0, 1);
	if (!strcmp(verb, "utimes"))
		return tw_side->utimes(obj, (struct twin_time){ 1, 0 }, (struct twin_time){ 2, 0 });
	if (!strcmp(verb, "xattr"))
		return tw_side->xattr_set(obj, "user.x", args[1], strlen(args[1]), 0);
	if (!strcmp(verb, "acl"))
		return set_acl(obj, args[1], args[2]);
	if (!strcmp(verb, "readlink"))
		return tw_side->readlink(obj, (char *)tw_buf, TW_BUF_LEN);
	if (!strcmp(verb, "list"))
		return tw_side->list(obj, ignore, NULL);
	if (!strcmp(verb, "policy"))
		return tw_side->get_policy(obj, &policy);
	if (!strcmp(verb, "set"))
		return tw_script_policy(args[1], &policy) ? tw_side->set_policy(obj, &policy) : -ENOSYS;
	return tw_side->stat(obj, &st);
}

static int on_path(const char *verb, char **args)
{
	int64_t result;
	void *obj;
	int err = get(args[0], &obj);

	if (err)
		return err;
	result = on(obj, verb, args);
	put(obj);
	return result < 0 ? (int)result : 0;
}

static int do_hold(char **args)
{
	if (held)
		tw_side->put(held);
	held = NULL;
	return tw_side->get(args[0], &held);
}

static int do_user(char **args)
{
	return tw_side->set_user((uint32_t)strtoul(args[0], NULL, 10));
}

static int do_trim(char **args)
{
	uint64_t trimmed;
	int err = tw_side->trim(strtoull(args[0], NULL, 10), strtoull(args[1], NULL, 10), strtoull(args[2], NULL, 10), &trimmed);

	if (!err)
		printf("%llu ", (unsigned long long)trimmed);
	return err;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int n_args;
	int (*fn)(char **args); /* NULL: on_path */
} verbs[] = {
	{ "create", 1, do_create },
	{ "mkdir", 1, do_mkdir },
	{ "mkfifo", 1, do_mkfifo },
	{ "mknod", 2, do_mknod }, /* PATH MODE: octal, with the type; 0:0 */
	{ "umask", 1, do_umask }, /* MASK: octal */
	{ "symlink", 2, do_symlink }, /* PATH LEN */
	{ "link", 2, do_link },
	{ "unlink", 1, do_unlink },
	{ "rmdir", 1, do_rmdir },
	{ "rename", 2, do_rename },
	{ "noreplace", 2, do_noreplace },
	{ "exchange", 2, do_exchange },
	{ "whiteout", 2, do_whiteout },
	{ "whiteout-noreplace", 2, do_whiteout_noreplace },
	{ "hold", 1, do_hold },
	{ "trim", 3, do_trim }, /* OFFSET LEN MIN: bytes; what was discarded stands before the result */
	{ "user", 1, do_user }, /* UID; whoever has users */
	{ "write", 1 },
	{ "read", 1 },
	{ "truncate", 2 }, /* PATH SIZE */
	{ "write-end", 1 },
	{ "allocate", 1 },
	{ "allocate-more", 1 },
	{ "chown", 2 }, /* PATH UID, which is the group too */
	{ "chmod", 2 }, /* PATH MODE: octal */
	{ "chattr", 2 }, /* PATH FLAGS: hexadecimal, all of them */
	{ "lsattr", 1 }, /* the flags stand before the result */
	{ "punch", 1 },
	{ "utimes", 1 },
	{ "xattr", 2 },	 /* PATH VALUE */
	{ "acl", 3 },	/* PATH access|default ENTRIES */
	{ "readlink", 1 },
	{ "list", 1 },
	{ "policy", 1 },
	{ "set", 2 }, /* PATH POLICY */
	{ "stat", 1 },
};

static int one_line(char *line)
{
	char *args[N_ARGS] = { 0 }, *verb = strsep(&line, " ");
	int n = 0;

	while (line && n < N_ARGS)
		args[n++] = strsep(&line, " ");
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (!strcmp(verbs[i].name, verb) && n == verbs[i].n_args)
			return verbs[i].fn ? verbs[i].fn(args) : on_path(verb, args);
	}
	return -ENOSYS;
}

int tw_script(void)
{
	static char line[LINE_MAX_LEN];

	while (fgets(line, sizeof(line), stdin)) {
		int result;

		line[strcspn(line, "\n")] = 0;
		result = one_line(line);
		puts(result ? strerrorname_np(-result) : "0");
	}
	if (held)
		tw_side->put(held);
	return tw_side->close() != 0;
}
