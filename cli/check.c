/*
 * cli/check.c: what `inlay fsck` finds out about encryption by itself: contexts, nonces, policies, names, targets.
 * Not here: what e2fsck checks, which has no keys (cli/fsck.c); the walk (cli/below.c).
 * Read more: doc/inlay.1; Linux Documentation/filesystems/fscrypt.rst, "Encryption policies", "Filenames encryption".
 */
#include "cli/change.h"
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SAID_MAX    100u	/* lines; what more is found is counted */
#define ENCRYPT_FL  0x00000800u /* EXT4_ENCRYPT_FL */
#define CASEFOLD_FL 0x40000000u /* EXT4_CASEFOLD_FL */

/* What keys are derived from. No two inodes have the same. */
struct origin {
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	struct inl_key_spec key;
	uint32_t ino;
};
#define ORIGIN_SIZE (offsetof(struct origin, key) + sizeof(struct inl_key_spec))

/* An inode whose origin another one has too. */
struct twin {
	uint32_t ino;
	uint32_t other; /* 0: it was reported */
};

/* A name of the directory that is being looked at, and where to read it again. */
struct name {
	uint64_t hash;
	uint64_t pos;
	uint64_t nth; /* of the entries that have this position */
};

struct check {
	struct inl_cli *cli;
	struct inl_policy_traits traits;
	struct inl_seen seen; /* inodes that were looked at: others have several names */
	struct origin *origins;
	size_t n_origins, origins_room;
	struct twin *twins;
	size_t n_twins, twins_room, twins_left;
	struct name *names;
	size_t names_room;
	char *target; /* of a symbolic link */
	uint64_t n_inodes, n_policies, n_damaged; /* by the census */
	uint64_t n_dirs, n_no_key, n_no_cipher;
	uint64_t n_found;
};

/* path NULL: of the volume as a whole */
__attribute__((format(printf, 3, 4))) static void found(struct check *check, const char *path, const char *fmt, ...)
{
	const char *image = check->cli->image;
	char *where, *why = NULL;
	va_list args;

	if (check->n_found++ >= SAID_MAX)
		return;
	va_start(args, fmt);
	if (vasprintf(&why, fmt, args) < 0)
		why = NULL;
	va_end(args);
	where = path ? inl_cli_where(check->cli, path, strlen(path)) : inl_cli_strdup(image, strlen(image));
	inl_cli_fail(check->cli, INL_EXIT_VOLUME, where, "%s", why ? why : inl_cli_why(-ENOMEM));
	free(where);
	free(why);
}

static const char *why_of(int err, const struct inl_diag *diag)
{
	return diag->text[0] ? diag->text : inl_cli_why(err);
}

/* ---- names of one directory -------------------------------------------------------------------------------------- */

/* FNV-1a. Names with the same hash are compared: it need not be a strong one. */
static uint64_t hash_name(const char *name, size_t len)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)name[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static int by_hash(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash > y->hash ? 1 : -1;
	if (x->pos != y->pos)
		return x->pos > y->pos ? 1 : -1;
	return (x->nth > y->nth) - (x->nth < y->nth);
}

/* Returns how many names there are. What is damaged is left out: the walk reports it. */
static size_t collect_names(struct check *check, struct inl_dir *cursor)
{
	struct inl_dirent entry;
	uint64_t pos = UINT64_MAX, nth = 0;
	size_t n = 0;

	while (!inl_cli_interrupted()) {
		int got = inl_dir_next(cursor, &entry, NULL);

		if (!got)
			break;
		if (got < 0)
			continue;
		nth = entry.pos == pos ? nth + 1 : 0;
		pos = entry.pos;
		if (entry.status)
			continue;
		check->names = inl_cli_grow(check->names, n, n + 1, &check->names_room, sizeof(*check->names));
		check->names[n++] = (struct name){ hash_name(entry.name, entry.len), pos, nth };
	}
	return n;
}

static bool read_name(struct inl_dir *cursor, const struct name *name, struct inl_dirent *entry)
{
	inl_dir_seek(cursor, name->pos);
	for (uint64_t i = 0; i <= name->nth; i++) {
		if (inl_dir_next(cursor, entry, NULL) != 1)
			return false;
	}
	return true;
}

static void compare_names(struct check *check, const char *path, struct inl_dir *cursor, const struct name *pair)
{
	struct inl_dirent a, b;
	char *where;

	if (!read_name(cursor, &pair[0], &a) || !read_name(cursor, &pair[1], &b))
		return;
	if (a.len != b.len || memcmp(a.name, b.name, a.len))
		return;
	where = inl_cli_join(path, a.name, a.len);
	found(check, where, "two entries of the directory have this name: inodes %ju and %ju", (uintmax_t)a.ino,
	      (uintmax_t)b.ino);
	free(where);
}

/* Different names as they are stored may be the same when decrypted: what follows a NUL is not shown. */
static void check_names(struct check *check, const char *path, struct inl_inode *dir)
{
	struct inl_dir *cursor = NULL;
	size_t n;

	if (inl_dir_open(dir, NULL, &cursor))
		return; /* the walk says why */
	n = collect_names(check, cursor);
	if (n)
		qsort(check->names, n, sizeof(*check->names), by_hash);
	for (size_t i = 1; i < n; i++) {
		if (check->names[i - 1].hash == check->names[i].hash)
			compare_names(check, path, cursor, &check->names[i - 1]);
	}
	inl_dir_close(cursor);
}

/* ---- one inode --------------------------------------------------------------------------------------------------- */

struct look {
	struct check *check;
	const char *path;
	struct inl_inode *inode;
	struct inl_stat st;
	struct inl_inode_crypt crypt;
};

/* crypt.status alone does not tell: -EINVAL may also be a master key that the cipher does not take. */
static bool has_context(const struct inl_inode_crypt *crypt)
{
	return crypt->policy.version != 0;
}

static void note_origin(struct check *check, const struct look *look)
{
	struct origin *origin;

	check->origins = inl_cli_grow(check->origins, check->n_origins, check->n_origins + 1, &check->origins_room,
				      sizeof(*check->origins));
	origin = &check->origins[check->n_origins++];
	memcpy(origin->nonce, look->crypt.nonce, sizeof(origin->nonce));
	origin->key = look->crypt.policy.key;
	origin->ino = (uint32_t)look->st.ino;
}

static void check_dir(const struct look *look)
{
	struct check *check = look->check;

	if (look->crypt.status == -ENOKEY) {
		check->n_no_key++;
	} else if (look->crypt.status) {
		check->n_no_cipher++;
	} else {
		check->n_dirs++;
		check_names(check, look->path, look->inode);
	}
}

/* Without the key its form on the medium can be looked at, without the cipher not even that. */
static void check_target(const struct look *look)
{
	struct inl_diag diag = { 0 };
	size_t len;
	int err;

	if (look->crypt.status && look->crypt.status != -ENOKEY)
		return;
	err = inl_readlink(look->inode, look->check->target, INL_SYMLINK_MAX, &len, &diag);
	if (err)
		found(look->check, look->path, "%s", why_of(err, &diag));
}

static void check_encrypted(const struct look *look)
{
	struct check *check = look->check;
	struct inl_diag diag = { 0 };
	int err;

	if (!has_context(&look->crypt)) {
		err = inl_inode_unlock(look->inode, &diag);
		if (!S_ISDIR(look->st.mode)) /* which the walk cannot open, and says so */
			found(check, look->path, "%s", why_of(err, &diag));
		return;
	}
	note_origin(check, look);
	err = inl_policy_check(&look->crypt.policy, &check->traits, look->st.flags & CASEFOLD_FL, &diag);
	if (err)
		found(check, look->path, "has a policy that Linux refuses: %s", why_of(err, &diag));
	if (S_ISDIR(look->st.mode))
		check_dir(look);
	if (S_ISLNK(look->st.mode))
		check_target(look);
}

/* Once for each inode. */
static void check_inode(const struct look *look)
{
	if (inl_seen_before(&look->check->seen, look->st.ino))
		return;
	if (look->crypt.encrypted)
		check_encrypted(look);
	else if (look->st.flags & ENCRYPT_FL)
		found(look->check, look->path, "has the flag of encrypted inodes, but is a special file");
}

/* Once for each name. Linux opens nothing that does not fit its directory. */
static void check_parent(const struct look *look, struct inl_inode *parent)
{
	uint32_t mode = look->st.mode;
	struct inl_inode_crypt above;

	inl_inode_crypt(parent, &above);
	if (!above.encrypted || !(S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode)))
		return;
	if (!look->crypt.encrypted)
		found(look->check, look->path, "is not encrypted, but the directory that it is in");
	else if (has_context(&look->crypt) && !inl_policy_equal(&look->crypt.policy, &above.policy))
		found(look->check, look->path, "has another policy than the directory that it is in");
}

/* parent NULL: it is the root */
static void look_at(struct check *check, const char *path, struct inl_inode *parent, uint64_t ino)
{
	struct look look = { .check = check, .path = path };
	struct inl_diag diag = { 0 };
	int err = inl_inode_get(check->cli->vol, ino, &diag, &look.inode);

	if (!err)
		err = inl_inode_stat(look.inode, &look.st, &diag);
	if (err) {
		found(check, path, "%s", why_of(err, &diag));
	} else {
		inl_inode_crypt(look.inode, &look.crypt);
		check_inode(&look);
		if (parent)
			check_parent(&look, parent);
		if ((!parent || !strcmp(path, "/lost+found")) && look.crypt.encrypted)
			found(check, path, "is encrypted, which this directory must not be");
	}
	inl_inode_put(look.inode);
}

static int look_step(const struct inl_below_step *step)
{
	if (step->when == INL_BELOW_DAMAGE)
		found(step->arg, step->path, "%s", step->why);
	else if (step->when != INL_BELOW_LEAVE)
		look_at(step->arg, step->path, step->parent, step->ino);
	return 0;
}

/* ---- nonces ------------------------------------------------------------------------------------------------------ */

static int by_origin(const void *a, const void *b)
{
	const struct origin *x = a, *y = b;
	int order = memcmp(x, y, ORIGIN_SIZE);

	return order ? order : (x->ino > y->ino) - (x->ino < y->ino);
}

static int by_ino(const void *a, const void *b)
{
	const struct twin *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static void add_twin(struct check *check, uint32_t ino, uint32_t other)
{
	check->twins = inl_cli_grow(check->twins, check->n_twins, check->n_twins + 1, &check->twins_room,
				    sizeof(*check->twins));
	check->twins[check->n_twins++] = (struct twin){ ino, other };
}

static void find_twins(struct check *check)
{
	struct origin *origins = check->origins;
	bool before = false;

	if (check->n_origins)
		qsort(origins, check->n_origins, sizeof(*origins), by_origin);
	for (size_t i = 1; i < check->n_origins; i++) {
		bool same = !memcmp(&origins[i - 1], &origins[i], ORIGIN_SIZE);

		if (same && !before)
			add_twin(check, origins[i - 1].ino, origins[i].ino);
		if (same)
			add_twin(check, origins[i].ino, origins[i - 1].ino);
		before = same;
	}
	if (check->n_twins)
		qsort(check->twins, check->n_twins, sizeof(*check->twins), by_ino);
	check->twins_left = check->n_twins;
}

static void name_twin(struct check *check, const char *path, uint64_t ino)
{
	struct twin wanted = { .ino = (uint32_t)ino };
	struct twin *twin = bsearch(&wanted, check->twins, check->n_twins, sizeof(wanted), by_ino);

	if (!twin || !twin->other)
		return;
	found(check, path, "has the nonce and the master key of inode %ju: both are encrypted with the same keys",
	      (uintmax_t)twin->other);
	twin->other = 0;
	check->twins_left--;
}

static int twin_step(const struct inl_below_step *step)
{
	struct check *check = step->arg;

	if (step->when == INL_BELOW_ENTRY || step->when == INL_BELOW_ENTER)
		name_twin(check, step->path, step->ino);
	return check->twins_left ? 0 : -INL_EXIT_VOLUME;
}

/* ---- the volume -------------------------------------------------------------------------------------------------- */

static void learn_traits(struct check *check)
{
	struct inl_volume_info info = { 0 };
	struct inl_feature feature;

	inl_volume_info(check->cli->vol, &info);
	check->traits = (struct inl_policy_traits){ .lblk_bits = 32, .ino_bits = 32 };
	while (info.block_size >> check->traits.block_bits > 1)
		check->traits.block_bits++;
	for (unsigned i = 0; inl_volume_feature(check->cli->vol, i, &feature); i++) {
		if (!strcmp(feature.name, "stable_inodes"))
			check->traits.stable_inodes = true;
	}
}

static int count_policy(const struct inl_policy_use *use, void *arg)
{
	struct check *check = arg;
	struct inl_diag diag = { 0 };
	int err = inl_policy_check(&use->policy, &check->traits, false, &diag);

	check->n_policies++;
	check->n_inodes += use->n_inodes;
	if (err)
		found(check, NULL, "%ju inode%s a policy that Linux refuses: %s", (uintmax_t)use->n_inodes,
		      use->n_inodes == 1 ? " has" : "s have", why_of(err, &diag));
	return 0;
}

/* All inodes, also those that no directory names. Returns false if none is encrypted. */
static bool take_census(struct check *check)
{
	struct inl_diag diag = { 0 };
	int err = inl_volume_policies(check->cli->vol, count_policy, check, &check->n_damaged, &diag);

	if (err)
		found(check, NULL, "%s", why_of(err, &diag));
	if (check->n_damaged)
		found(check, NULL, "%ju encrypted inode%s no encryption context that can be used",
		      (uintmax_t)check->n_damaged, check->n_damaged == 1 ? " has" : "s have");
	return check->n_inodes || check->n_damaged || err;
}

/* Twins are known by number only when all was seen: a second walk finds their names. */
static int walk(struct check *check, struct inl_inode *root)
{
	int code;

	look_at(check, "/", NULL, INL_ROOT_INO);
	code = inl_below_walk(check->cli, root, "/", INL_BELOW_TELL, look_step, check);
	if (code)
		return code;
	find_twins(check);
	if (!check->n_twins)
		return 0;
	name_twin(check, "/", INL_ROOT_INO);
	return inl_below_walk(check->cli, root, "/", INL_BELOW_TELL, twin_step, check);
}

static int check_tree(struct check *check)
{
	struct inl_inode *root = NULL;
	struct inl_diag diag = { 0 };
	int code, err = inl_inode_get(check->cli->vol, INL_ROOT_INO, &diag, &root);

	if (err) {
		found(check, "/", "%s", why_of(err, &diag));
		return 0;
	}
	err = inl_seen_init(&check->seen, check->cli->vol);
	if (err) {
		code = inl_cli_error(check->cli, check->cli->image, err, NULL);
	} else {
		check->target = inl_cli_alloc(INL_SYMLINK_MAX);
		code = walk(check, root);
		inl_seen_done(&check->seen);
	}
	inl_inode_put(root);
	free(check->target);
	free(check->origins);
	free(check->twins);
	free(check->names);
	return code;
}

static void say_checked(const struct check *check)
{
	printf("encryption: %ju inode%s, %ju polic%s, names of %ju director%s checked", (uintmax_t)check->n_inodes,
	       check->n_inodes == 1 ? "" : "s", (uintmax_t)check->n_policies, check->n_policies == 1 ? "y" : "ies",
	       (uintmax_t)check->n_dirs, check->n_dirs == 1 ? "y" : "ies");
	if (check->n_no_key)
		printf("; of %ju the key is missing", (uintmax_t)check->n_no_key);
	if (check->n_no_cipher)
		printf("; of %ju the key cannot be used here", (uintmax_t)check->n_no_cipher);
	putchar('\n');
}

int inl_check_encryption(struct inl_cli *cli)
{
	struct check check = { .cli = cli };
	bool any;
	int code;

	learn_traits(&check);
	any = take_census(&check);
	code = any ? check_tree(&check) : 0;
	if (check.n_found > SAID_MAX)
		inl_cli_fail(cli, INL_EXIT_VOLUME, cli->image, "and %ju more", (uintmax_t)(check.n_found - SAID_MAX));
	if (inl_cli_interrupted())
		return inl_cli_fail(cli, INL_EXIT_INTERRUPTED, cli->image, "interrupted; not all of it was checked");
	if (any && !code && !check.n_found)
		say_checked(&check);
	return check.n_found ? INL_EXIT_VOLUME : code;
}
