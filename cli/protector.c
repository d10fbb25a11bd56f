/*
 * cli/protector.c: finds the protectors that are meant, opens them with what people have, and takes the keys.
 * Not here: asking (cli/ask.c); `inlay protect` (cli/protect.c).
 * Read more: doc/inlay.1, "PASSPHRASES".
 */
#include "cli/secret.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 3

bool inl_cli_wants_protectors(const struct inl_cli *cli)
{
	return cli->given[INL_OPT_PASSPHRASE] || cli->given[INL_OPT_PASSPHRASE_FD] || cli->given[INL_OPT_PROTECTOR_KEY];
}

int inl_cli_add_protector(struct inl_cli *cli, const char *named)
{
	if (cli->n_protectors == INL_PROTECTORS_NAMED_MAX)
		return inl_cli_fail(cli, INL_EXIT_USAGE, "--protector", "more than %d times", INL_PROTECTORS_NAMED_MAX);
	cli->protectors[cli->n_protectors++] = named;
	cli->given[INL_OPT_PASSPHRASE] = true; /* unless it is a key file */
	return 0;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

const char *inl_protector_kind_text(enum inl_protector_kind kind)
{
	switch (kind) {
	case INL_PROTECTOR_LOGIN:
		return "login passphrase";
	case INL_PROTECTOR_PASSPHRASE:
		return "passphrase";
	case INL_PROTECTOR_RAW_KEY:
		return "key file";
	default:
		return "recovery code";
	}
}

char *inl_protector_text(const struct inl_protector_info *info)
{
	char *text = NULL;
	int n;

	if (info->status)
		n = asprintf(&text, "protector %s", info->id);
	else if (info->kind == INL_PROTECTOR_LOGIN)
		n = asprintf(&text, "%s of user %jd (%s)", inl_protector_kind_text(info->kind), (intmax_t)info->uid,
			     info->id);
	else
		n = asprintf(&text, "%s \"%s\" (%s)", inl_protector_kind_text(info->kind), info->name, info->id);
	return n < 0 ? inl_cli_strdup("protector", 9) : text;
}

/* ---- stores ------------------------------------------------------------------------------------------------------ */

int inl_cli_add_places(struct inl_cli *cli, struct inl_protect *protect)
{
	for (unsigned i = 0; i < cli->n_places; i++) {
		struct inl_diag diag = { 0 };
		int err = inl_protect_add_place(protect, cli->places[i], &diag);

		if (err)
			return inl_cli_error(cli, cli->places[i], err, &diag);
	}
	return 0;
}

/* Up to the directory whose parent is on another device. */
static int find_mount(const char *path, char root[PATH_MAX])
{
	struct stat here, above;
	char *slash;

	if (!realpath(path, root) || stat(root, &here))
		return -errno;
	if (!S_ISDIR(here.st_mode) && (slash = strrchr(root, '/')))
		*(slash == root ? slash + 1 : slash) = '\0';
	while (strcmp(root, "/")) {
		char parent[PATH_MAX];

		snprintf(parent, sizeof(parent), "%s", root);
		slash = strrchr(parent, '/');
		*(slash == parent ? slash + 1 : slash) = '\0';
		if (stat(parent, &above))
			return -errno;
		if (above.st_dev != here.st_dev)
			break;
		snprintf(root, PATH_MAX, "%s", parent);
	}
	return 0;
}

int inl_cli_protect_path(struct inl_cli *cli, const char *path, struct inl_protect **out, char **root)
{
	struct inl_diag diag = { 0 };
	char found[PATH_MAX];
	int code, err = find_mount(path, found);

	if (!err)
		err = inl_protect_open_dir(found, &diag, out);
	if (err)
		return inl_cli_error(cli, path, err, &diag);
	code = inl_cli_add_places(cli, *out);
	if (code)
		inl_protect_close(*out);
	else
		*root = inl_cli_strdup(found, strlen(found));
	return code;
}

/* ---- which one --------------------------------------------------------------------------------------------------- */

struct choice {
	struct inl_protect *protect;
	struct inl_protector_info *rows;
	unsigned n, n_used;
	size_t room;
	char (*used)[INL_PROTECTOR_ID_SIZE]; /* by policies */
	size_t used_room;
};

static int note_used(const struct inl_policy_info *info, void *arg)
{
	struct choice *choice = arg;

	for (unsigned i = 0; i < info->n_protectors; i++) {
		choice->used = inl_cli_grow(choice->used, choice->n_used, choice->n_used + 1, &choice->used_room,
					    sizeof(*choice->used));
		memcpy(choice->used[choice->n_used++], info->protectors[i], INL_PROTECTOR_ID_SIZE);
	}
	return 0;
}

static int note_protector(const struct inl_protector_info *info, void *arg)
{
	struct choice *choice = arg;

	for (unsigned i = 0; i < choice->n_used; i++) {
		if (strcmp(choice->used[i], info->id))
			continue;
		choice->rows =
			inl_cli_grow(choice->rows, choice->n, choice->n + 1, &choice->room, sizeof(*choice->rows));
		choice->rows[choice->n++] = *info;
		break;
	}
	return 0;
}

static int store_error(struct inl_cli *cli, const char *where, int err, const struct inl_diag *diag)
{
	if (err == -ENOENT)
		return inl_cli_fail(cli, INL_EXIT_KEY, where,
				    "nothing here is protected by passphrases: there is no .fscrypt");
	return inl_cli_error(cli, where, err, diag);
}

static int make_choice(struct inl_cli *cli, const char *where, struct choice *choice)
{
	struct inl_diag diag = { 0 };
	int err = inl_protected(choice->protect, note_used, choice, &diag);

	if (!err)
		err = inl_protectors(choice->protect, note_protector, choice, &diag);
	return err ? store_error(cli, where, err, &diag) : 0;
}

/* Is it opened by what the options say that there is? */
static bool fits(const struct inl_cli *cli, const struct inl_protector_info *info)
{
	return !info->status &&
	       (inl_protector_is_typed(info->kind) ? cli->given[INL_OPT_PASSPHRASE] || cli->given[INL_OPT_PASSPHRASE_FD]
						   : cli->given[INL_OPT_PROTECTOR_KEY]);
}

/* Why it cannot be used. */
static int unusable(struct inl_cli *cli, const char *where, const struct inl_protector_info *info)
{
	char *text = inl_protector_text(info);
	int code;

	if (info->status == -ENOLINK)
		code = inl_cli_fail(
			cli, INL_EXIT_KEY, where,
			"%s lies on another file system (%s): --protectors-in DIR says where that is mounted", text,
			info->link);
	else if (info->status)
		code = inl_cli_fail(cli, INL_EXIT_KEY, where, "%s: %s", text,
				    info->why.text[0] ? info->why.text : inl_cli_why(info->status));
	else
		code = inl_cli_fail(cli, INL_EXIT_USAGE, where, "%s is opened by --%s", text,
				    inl_protector_is_typed(info->kind) ? "passphrase" : "protector-key FILE");
	free(text);
	return code;
}

/* By id; or by a name that one has alone. */
struct search {
	const char *named;
	struct inl_protector_info *info; /* the one that was found */
	unsigned n;			 /* that are called so */
	bool by_id;
};

static int match(const struct inl_protector_info *info, void *arg)
{
	struct search *search = arg;

	search->by_id = !strcmp(info->id, search->named);
	if (!search->by_id && (info->status || strcmp(info->name, search->named)))
		return 0;
	if (search->by_id || !search->n++)
		*search->info = *info;
	return search->by_id;
}

static int not_unique(struct inl_cli *cli, const char *where, const struct search *search)
{
	return inl_cli_fail(cli, INL_EXIT_USAGE, where, "%u protectors are called %s: name one by its 16 digits", search->n,
			    search->named);
}

static int find_named(struct inl_cli *cli, const char *where, const char *named, const struct choice *choice,
		      struct inl_protector_info *info)
{
	struct search search = { .named = named, .info = info };

	for (unsigned i = 0; i < choice->n; i++) {
		if (match(&choice->rows[i], &search))
			return 0;
	}
	if (search.n > 1)
		return not_unique(cli, where, &search);
	return search.n ? 0 : inl_cli_fail(cli, INL_EXIT_KEY, where, "protects nothing with a protector %s", named);
}

static void list_them(const struct inl_cli *cli, const struct choice *choice, FILE *out)
{
	for (unsigned i = 0, n = 0; i < choice->n; i++) {
		char *text = inl_protector_text(&choice->rows[i]);

		if (fits(cli, &choice->rows[i])) {
			fprintf(out, "%s%u: %s", n ? ", " : "", n + 1, text);
			n++;
		}
		free(text);
	}
}

/* A number on the list, a name or an id. */
static int ask_which(struct inl_cli *cli, const char *where, const struct choice *choice,
		     struct inl_protector_info *info)
{
	char *list = NULL, *prompt = NULL, line[300];
	size_t len = 0;
	uint64_t number = 0;
	FILE *out = open_memstream(&list, &len);
	int code = 0;
	bool asked;

	if (!out)
		return inl_cli_error(cli, where, -ENOMEM, NULL);
	list_them(cli, choice, out);
	fclose(out);
	if (asprintf(&prompt, "Protectors of %s: %s. Which one", where, list) < 0)
		prompt = NULL;
	asked = !cli->given[INL_OPT_PASSPHRASE_FD] && prompt && inl_ask_line(prompt, line, sizeof(line) - 1);
	if (!asked)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, where, "--protector NAME must say which one is meant: %s",
				    list);
	free(prompt);
	free(list);
	if (code)
		return code;
	if (inl_number_parse(line, strlen(line), &number) || strlen(line) == INL_PROTECTOR_ID_SIZE - 1)
		return find_named(cli, where, line, choice, info);
	for (unsigned i = 0; i < choice->n; i++) {
		if (fits(cli, &choice->rows[i]) && !--number) {
			*info = choice->rows[i];
			return 0;
		}
	}
	return inl_cli_fail(cli, INL_EXIT_USAGE, where, "%s is none of them", line);
}

static int find_only(struct inl_cli *cli, const char *where, const struct choice *choice,
		     struct inl_protector_info *info)
{
	unsigned n = 0;

	for (unsigned i = 0; i < choice->n; i++) {
		if (fits(cli, &choice->rows[i]) && !n++)
			*info = choice->rows[i];
	}
	if (n == 1)
		return 0;
	if (n)
		return ask_which(cli, where, choice, info);
	if (choice->n)
		return unusable(cli, where, &choice->rows[0]);
	return inl_cli_fail(cli, INL_EXIT_KEY, where, "no policy here has a protector");
}

int inl_cli_choose_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *named,
			     struct inl_protector_info *info)
{
	struct choice choice = { .protect = protect };
	int code = make_choice(cli, where, &choice);

	if (!code)
		code = named ? find_named(cli, where, named, &choice, info) : find_only(cli, where, &choice, info);
	if (!code && !fits(cli, info))
		code = unusable(cli, where, info);
	free(choice.rows);
	free(choice.used);
	return code;
}

int inl_cli_find_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *named,
			   struct inl_protector_info *info, bool *found)
{
	struct search search = { .named = named, .info = info };

	/* Some have no name: who names nothing does not mean those. */
	if (*named)
		inl_protectors(protect, match, &search, NULL);
	*found = search.by_id || search.n == 1;
	return *found || !search.n ? 0 : not_unique(cli, where, &search);
}

/* ---- opening it -------------------------------------------------------------------------------------------------- */

static int ask_for(struct inl_cli *cli, const char *where, const struct inl_protector_info *info,
		   struct inl_typed *typed)
{
	char *prompt, *text;
	size_t room;
	int code;

	if (!inl_protector_is_typed(info->kind))
		return inl_ask_file(cli, cli->values[INL_OPT_PROTECTOR_KEY], typed);
	text = inl_protector_text(info);
	room = strlen(text) + strlen(where) + 8;
	prompt = inl_cli_alloc(room);
	snprintf(prompt, room, "%c%s for %s", text[0] - 'a' + 'A', text + 1, where);
	code = inl_ask(cli, prompt, typed);
	free(prompt);
	free(text);
	return code;
}

static int limits_of(struct inl_cli *cli, struct inl_hash_limits *limits)
{
	uint64_t bytes = 0;
	int code = inl_cli_size(cli, INL_OPT_MEMORY_LIMIT, 8192, UINT64_C(1) << 42, &bytes);

	limits->memory = bytes >> 10;
	return code;
}

/* *again: it may have been mistyped. */
static int open_error(struct inl_cli *cli, const char *where, const struct inl_protector_info *info, int err,
		      const struct inl_diag *diag, bool *again)
{
	char *text = inl_protector_text(info);
	int code;

	*again = (err == -EKEYREJECTED || err == -EINVAL) && inl_protector_is_typed(info->kind) && inl_ask_again(cli);
	if (err == -EKEYREJECTED)
		code = inl_cli_fail(cli, INL_EXIT_KEY, where, "this is not the %s", text);
	else
		code = inl_cli_fail(
			cli, err == -EINVAL || err == -E2BIG || err == -ENOLINK ? INL_EXIT_KEY : INL_EXIT_FAILED, where,
			"%s: %s%s", text, diag->text[0] ? diag->text : inl_cli_why(err),
			err == -E2BIG ? "; --memory-limit SIZE allows more" : "");
	free(text);
	return code;
}

int inl_cli_open_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where,
			   const struct inl_protector_info *info, struct inl_protector **out)
{
	struct inl_hash_limits limits = { 0 };
	int code = fits(cli, info) ? limits_of(cli, &limits) : unusable(cli, where, info);
	bool again = !code;

	for (int i = 0; i < TRIES && again; i++) {
		struct inl_diag diag = { 0 };
		struct inl_typed typed;
		int err;

		code = ask_for(cli, where, info, &typed);
		if (code)
			return code;
		err = inl_protector_open(protect, info->id, typed.bytes, typed.len, &limits, &diag, out);
		inl_secret_free(typed.bytes);
		if (!err)
			return 0;
		code = open_error(cli, where, info, err, &diag, &again);
	}
	return code;
}

/* ---- its keys ---------------------------------------------------------------------------------------------------- */

struct giving {
	struct inl_cli *cli;
	struct inl_protect *protect;
	const struct inl_protector *protector;
	const char *where;
	inl_give *give;
	uint8_t *key; /* secret memory */
	unsigned n;   /* that were given */
	int code;
};

/* One policy that cannot be opened is no reason to leave the others shut. */
static int give_key(const struct inl_policy_info *info, void *arg)
{
	struct giving *giving = arg;
	struct inl_diag diag = { 0 };
	char hex[INL_KEY_SPEC_HEX_SIZE];
	int err, code = 0;

	for (unsigned i = 0; i < info->n_protectors; i++) {
		if (strcmp(info->protectors[i], inl_protector_id(giving->protector)))
			continue;
		err = inl_protector_key(giving->protect, giving->protector, &info->policy.key, &diag, giving->key);
		if (err)
			code = inl_cli_fail(giving->cli, INL_EXIT_FAILED, giving->where, "policy %s: %s",
					    inl_key_spec_hex(&info->policy.key, hex),
					    diag.text[0] ? diag.text : inl_cli_why(err));
		else
			code = giving->give(giving->cli, giving->where, giving->key);
		inl_wipe(giving->key, INL_POLICY_KEY_SIZE);
		giving->n += !code;
		break;
	}
	giving->code = inl_cli_worse(giving->code, code);
	return 0;
}

static int give_keys(struct inl_cli *cli, struct inl_protect *protect, const char *where,
		     const struct inl_protector *protector, inl_give *give)
{
	struct giving giving = { cli, protect, protector, where, give };
	struct inl_diag diag = { 0 };
	int err = -ENOMEM;

	giving.key = inl_secret_alloc(INL_POLICY_KEY_SIZE);
	if (giving.key)
		err = inl_protected(protect, give_key, &giving, &diag);
	inl_secret_free(giving.key);
	if (err)
		return inl_cli_error(cli, where, err, &diag);
	return giving.n ? 0 : giving.code;
}

static int open_one(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *named,
		    inl_give *give)
{
	struct inl_protector *protector = NULL;
	struct inl_protector_info info;
	int code = inl_cli_choose_protector(cli, protect, where, named, &info);

	if (!code)
		code = inl_cli_open_protector(cli, protect, where, &info, &protector);
	if (!code)
		code = give_keys(cli, protect, where, protector, give);
	inl_protector_free(protector);
	return code;
}

int inl_cli_open_protectors(struct inl_cli *cli, struct inl_protect *protect, const char *where, inl_give *give)
{
	int code = 0;

	if (!cli->n_protectors)
		return open_one(cli, protect, where, NULL, give);
	for (unsigned i = 0; i < cli->n_protectors && !code; i++)
		code = open_one(cli, protect, where, cli->protectors[i], give);
	return code;
}

static int give_ring(struct inl_cli *cli, const char *where, const uint8_t *key)
{
	struct inl_diag diag = { 0 };
	int err = cli->claims ? inl_keyring_claim(cli->keys, key, INL_POLICY_KEY_SIZE, getuid(), &diag)
			      : inl_keyring_add(cli->keys, key, INL_POLICY_KEY_SIZE, &diag);

	return err ? inl_cli_error(cli, where, err, &diag) : 0;
}

int inl_cli_load_protected(struct inl_cli *cli)
{
	struct inl_protect *protect = NULL;
	struct inl_diag diag = { 0 };
	int code, err = inl_protect_open_volume(cli->vol, &diag, &protect);

	if (err)
		return inl_cli_error(cli, cli->image, err, &diag);
	code = inl_cli_add_places(cli, protect);
	if (!code)
		code = inl_cli_open_protectors(cli, protect, cli->image, give_ring);
	inl_protect_close(protect);
	return code;
}
