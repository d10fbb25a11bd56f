/*
 * cli/plan.c: reads which directories `inlay build` encrypts, and encrypts them; nonces that follow from a seed.
 * Not here: the command (cli/build.c), the import (cli/put.c), policies as words (cli/policy.c).
 * Read more: doc/inlay.1, "BUILDING".
 */
#include "cli/plan.h"
#include "cli/policy.h"
#include <errno.h>
#include <inlay/cipher.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* The next word of a line, in place: its quotes go. NULL: none; *bad: a quote that does not end. */
static char *next_word(char **line, bool *bad)
{
	char *from = *line + strspn(*line, " \t\r\n"), *to = from, *word = from;
	bool quoted = false;

	if (!*from || *from == '#')
		return NULL;
	while (*from && (quoted || !strchr(" \t\r\n", *from))) {
		if (*from == '"') {
			quoted = !quoted;
			from++;
			continue;
		}
		if (quoted && *from == '\\' && from[1])
			from++;
		*to++ = *from++;
	}
	*bad = quoted;
	*line = *from ? from + 1 : from;
	*to = '\0';
	return word;
}

/* What a line says. */
struct line {
	const char *where; /* FILE:LINE */
	const char *key;
	bool hex;
	struct inl_policy_words words;
};

static bool take_value(const char *word, const char *name, const char **value)
{
	size_t len = strlen(name);

	if (strncmp(word, name, len) || word[len] != '=')
		return false;
	*value = word + len + 1;
	return true;
}

static bool take_flag(const char *word, const char *name, bool *flag)
{
	if (strcmp(word, name))
		return false;
	*flag = true;
	return true;
}

static bool take_word(struct line *line, const char *word)
{
	struct inl_policy_words *words = &line->words;

	if (take_value(word, "key-hex", &line->key)) {
		line->hex = true;
		return true;
	}
	if (take_value(word, "key", &line->key)) {
		line->hex = false;
		return true;
	}
	return take_value(word, "contents", &words->contents) || take_value(word, "filenames", &words->filenames) ||
	       take_value(word, "padding", &words->padding) || take_value(word, "data-unit-size", &words->unit) ||
	       take_flag(word, "v1", &words->v1) || take_flag(word, "direct-key", &words->direct_key) ||
	       take_flag(word, "iv-ino-lblk-64", &words->iv_ino_lblk_64) ||
	       take_flag(word, "iv-ino-lblk-32", &words->iv_ino_lblk_32);
}

static int take_key(struct inl_cli *cli, const struct line *line, struct inl_policy *policy)
{
	struct inl_diag diag = { 0 };
	uint8_t *key = NULL;
	size_t len = 0;
	int err, code;

	if (!line->key)
		return inl_cli_fail(cli, INL_EXIT_USAGE, line->where, "key=FILE or key-hex=FILE is missing");
	code = inl_cli_read_key(cli, line->key, line->hex, &key, &len);
	if (code)
		return code;
	err = inl_keyring_add(cli->keys, key, len, &diag);
	if (!err)
		err = inl_key_spec_derive(key, len, policy->version, &policy->key);
	inl_secret_free(key);
	return err ? inl_cli_error(cli, line->key, err, &diag) : 0;
}

/* Without slashes at both ends, and one between two names. */
static char *clean_path(const char *path)
{
	char *clean = inl_cli_alloc(strlen(path) + 1), *to = clean;

	for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
		size_t len = strcspn(path, "/");

		if (to != clean)
			*to++ = '/';
		memcpy(to, path, len);
		to += len;
		path += len;
	}
	*to = '\0';
	return clean;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* Is path inner, or below it? */
static bool is_within(const char *path, const char *outer)
{
	size_t len = strlen(outer);

	return !strncmp(path, outer, len) && (!path[len] || path[len] == '/');
}

static bool has_dots(const char *path)
{
	for (const char *at = path; *at; at += strspn(at, "/")) {
		size_t len = strcspn(at, "/");

		if ((len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return true;
		at += len;
	}
	return false;
}

static int check_dir(const struct inl_cli *cli, const struct inl_plan *plan, const char *where, const char *path,
		     const struct inl_policy *policy)
{
	if (!*path)
		return inl_cli_fail(cli, INL_EXIT_USAGE, where, "the root of a volume cannot be encrypted");
	if (is_within(path, "lost+found"))
		return inl_cli_fail(cli, INL_EXIT_USAGE, where, "lost+found is for e2fsck, which has no keys");
	if (has_dots(path))
		return inl_cli_fail(cli, INL_EXIT_USAGE, where, "'%s': no '.' and no '..'", path);
	for (size_t i = 0; i < plan->n; i++) {
		const char *other = plan->dirs[i].path;

		if (is_within(path, other) || is_within(other, path))
			return inl_cli_fail(cli, INL_EXIT_USAGE, where, "/%s and /%s: one is in the other", other, path);
	}
	if (plan->seed && (policy->flags & (INL_POLICY_FLAG_IV_INO_LBLK_64 | INL_POLICY_FLAG_IV_INO_LBLK_32)))
		return inl_cli_fail(cli, INL_EXIT_USAGE, where,
				    "%s and --seed: a changed file would be encrypted as the old one was",
				    inl_policy_iv_method(policy));
	return 0;
}

static int take_line(struct inl_cli *cli, struct inl_plan *plan, const char *where, unsigned number, char *text)
{
	struct line line = { .where = where };
	struct inl_policy policy;
	bool bad = false;
	char *path = next_word(&text, &bad), *word;
	int code = 0;

	if (!path && !bad)
		return 0;
	while (!bad && (word = next_word(&text, &bad))) {
		if (!bad && !take_word(&line, word))
			return inl_cli_fail(cli, INL_EXIT_USAGE, where, "'%s' is no word of a policy", word);
	}
	if (bad)
		return inl_cli_fail(cli, INL_EXIT_USAGE, where, "a quote does not end");
	code = inl_policy_make(cli, where, &line.words, &policy);
	if (!code)
		code = take_key(cli, &line, &policy);
	path = clean_path(path);
	if (!code)
		code = check_dir(cli, plan, where, path, &policy);
	if (code) {
		free(path);
		return code;
	}
	plan->dirs = inl_cli_grow(plan->dirs, plan->n, plan->n + 1, &plan->room, sizeof(*plan->dirs));
	plan->dirs[plan->n++] = (struct inl_plan_dir){ .path = path, .policy = policy, .line = number };
	return 0;
}

int inl_plan_read(struct inl_cli *cli, const char *file, struct inl_plan *plan)
{
	FILE *f = fopen(file, "re");
	size_t room = 0, where_len = strlen(file) + 16;
	char *text = NULL, *where = inl_cli_alloc(where_len);
	unsigned number = 0;
	ssize_t n;
	int code = f ? 0 : inl_cli_error(cli, file, -errno, NULL);

	plan->file = file;
	while (!code && (n = getline(&text, &room, f)) >= 0) {
		snprintf(where, where_len, "%s:%u", file, ++number);
		if (memchr(text, 0, (size_t)n))
			code = inl_cli_fail(cli, INL_EXIT_USAGE, where, "a NUL is in it: this is no text");
		else
			code = take_line(cli, plan, where, number, text);
	}
	if (!code && ferror(f))
		code = inl_cli_error(cli, file, -EIO, NULL);
	if (!code && !plan->n)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, file, "names no directory");
	if (f)
		fclose(f);
	free(text);
	free(where);
	return code;
}

void inl_plan_done(struct inl_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++)
		free(plan->dirs[i].path);
	free(plan->dirs);
}

/* ---- in the import ----------------------------------------------------------------------------------------------- */

static bool is_later(struct inl_time a, struct inl_time b)
{
	return a.sec > b.sec || (a.sec == b.sec && a.nsec > b.nsec);
}

/* Reading a file changes its time of access: that cannot stay. */
void inl_plan_attr(const struct inl_plan *plan, struct inl_attr *attr)
{
	if (!plan->fixed_time)
		return;
	if (is_later(attr->mtime, plan->now))
		attr->mtime = plan->now;
	attr->atime = attr->mtime;
}

static int hash(const void *const parts[], const size_t lens[], unsigned n, uint8_t sum[32])
{
	struct inl_digest *digest;
	int err = inl_digest_new(&digest), ended;

	if (err)
		return err;
	for (unsigned i = 0; i < n && !err; i++) {
		/* With their lengths, so that nothing can be mistaken for something else. */
		const uint64_t len = lens[i];
		uint8_t bytes[8];

		for (unsigned k = 0; k < sizeof(bytes); k++)
			bytes[k] = (uint8_t)(len >> 8 * k);
		err = inl_digest_add(digest, bytes, sizeof(bytes));
		if (!err)
			err = inl_digest_add(digest, parts[i], lens[i]);
	}
	ended = inl_digest_end(digest, sum);
	return err ? err : ended;
}

int inl_plan_seed(const struct inl_plan *plan, const char *purpose, uint8_t sum[32])
{
	const void *const parts[] = { purpose, plan->seed };
	const size_t lens[] = { strlen(purpose), strlen(plan->seed) };

	return hash(parts, lens, 2, sum);
}

/* Which inode of which volume it is. */
static int hash_who(const struct inl_put *put, const struct stat *st, uint8_t sum[32])
{
	const uint32_t type = st->st_mode & S_IFMT;
	const uint8_t type_bytes[] = { (uint8_t)(type >> 8), (uint8_t)type };
	const void *const parts[] = { put->plan->seed, put->path, type_bytes };
	const size_t lens[] = { strlen(put->plan->seed), put->path_len, sizeof(type_bytes) };

	return hash(parts, lens, 3, sum);
}

/* All that is in a regular file. What changes it between this and the copy is found by inl_put_contents. */
static int add_contents(struct inl_put *put, int fd, struct inl_digest *digest)
{
	off_t offset = 0;
	int err = 0;

	while (!err) {
		ssize_t n = pread(fd, put->buf, INL_PUT_BUF_LEN, offset);

		if (inl_cli_interrupted())
			return -EINTR;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? inl_put_failed(put, INL_SOURCE, -errno) : 0;
		err = inl_digest_add(digest, put->buf, (size_t)n);
		offset += n;
	}
	return inl_put_failed(put, INL_DESTINATION, err);
}

static int hash_contents(struct inl_put *put, int fd, const char *target, uint8_t sum[32])
{
	struct inl_digest *digest;
	int err = inl_digest_new(&digest), ended;

	if (err)
		return inl_put_failed(put, INL_DESTINATION, err);
	if (target)
		err = inl_digest_add(digest, target, strlen(target));
	else if (fd >= 0)
		err = add_contents(put, fd, digest);
	ended = inl_digest_end(digest, sum);
	return err ? err : ended ? inl_put_failed(put, INL_DESTINATION, ended) : 0;
}

static struct inl_plan_dir *dir_above(const struct inl_put *put)
{
	for (size_t i = 0; put->plan && put->path && i < put->plan->n; i++) {
		if (is_within(put->path, put->plan->dirs[i].path))
			return &put->plan->dirs[i];
	}
	return NULL;
}

static int derive(struct inl_put *put, const struct inl_plan_dir *above, int fd, const struct stat *st,
		  const char *target, uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	uint8_t who[32], contents[32];
	int err = hash_contents(put, fd, target, contents);

	if (err)
		return err;
	memcpy(put->sum, contents, sizeof(contents));
	err = hash_who(put, st, who);
	if (!err)
		err = inl_nonce_derive(put->cli->keys, &above->policy.key, who, contents, nonce);
	return err ? inl_put_failed(put, INL_DESTINATION, err) : 0;
}

int inl_plan_nonce(struct inl_put *put, int fd, const struct stat *st, const char *target,
		   uint8_t nonce[INL_FILE_NONCE_SIZE], struct inl_attr *attr)
{
	const struct inl_plan_dir *above = put->plan && put->plan->seed ? dir_above(put) : NULL;
	int err;

	if (!above || !(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode)))
		return 0;
	err = derive(put, above, fd, st, target, nonce);
	if (!err)
		attr->nonce = nonce;
	return err;
}

int inl_plan_enter(struct inl_put *put, struct inl_inode *dir)
{
	struct inl_plan_dir *above = dir_above(put);
	const struct stat st = { .st_mode = S_IFDIR };
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	int err = 0;

	if (!above || strcmp(above->path, put->path))
		return 0;
	if (put->plan->seed)
		err = derive(put, above, -1, &st, NULL, nonce);
	if (!err) {
		err = inl_set_policy(dir, &above->policy, put->plan->seed ? nonce : NULL, &put->diag);
		inl_put_failed(put, INL_DESTINATION, err);
	}
	if (err)
		put->keep_going = false;
	else
		above->done = true;
	return err;
}

int inl_plan_check_done(struct inl_cli *cli, const struct inl_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		if (!plan->dirs[i].done)
			return inl_cli_fail(cli, INL_EXIT_FAILED, plan->file,
					    "line %u: /%s was not made, so nothing is encrypted there: it must be a directory, "
					    "reached by no symbolic link", plan->dirs[i].line, plan->dirs[i].path);
	}
	return 0;
}
