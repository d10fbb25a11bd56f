/*
 * cli/protect.c: `inlay protect`: several ways to one key: passphrases, key files, recovery codes.
 * Not here: what is asked for (cli/ask.c, cli/newsecret.c); new policies (cli/encrypt.c).
 * Read more: doc/inlay.1, "PASSPHRASES".
 */
#include "cli/change.h"
#include "cli/secret.h"
#include "cli/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What a verb works on. */
struct protected
{
	struct inl_protect *store;
	char *where; /* for messages: the image, or where it is mounted */
};

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int inl_cli_protect_target(struct inl_cli *cli, const char *arg, bool write, struct inl_protect **out, char **where)
{
	struct inl_diag diag = { 0 };
	int code, err;

	if (is_dir(arg))
		return inl_cli_protect_path(cli, arg, out, where);
	cli->making = true;
	if (write)
		inl_cli_will_write(cli);
	code = inl_cli_open(cli, arg);
	if (code)
		return code;
	err = inl_protect_open_volume(cli->vol, &diag, out);
	if (err)
		return inl_cli_error(cli, arg, err, &diag);
	code = inl_cli_add_places(cli, *out);
	if (code)
		inl_protect_close(*out);
	else
		*where = inl_cli_strdup(arg, strlen(arg));
	return code;
}

/* ---- list -------------------------------------------------------------------------------------------------------- */

static void put_name(const char *name)
{
	inl_text_name(name, strlen(name));
}

static int print_protector(const struct inl_protector_info *info, void *arg)
{
	printf("protector %s  ", info->id);
	if (info->status == -ENOLINK) {
		printf("on another file system: ");
		put_name(info->link);
	} else if (info->status) {
		put_name(info->why.text[0] ? info->why.text : inl_cli_why(info->status));
	} else {
		printf("%s", inl_protector_kind_text(info->kind));
		if (info->kind == INL_PROTECTOR_LOGIN)
			printf(" of user %jd", (intmax_t)info->uid);
		if (info->name[0]) {
			printf(" \"");
			put_name(info->name);
			printf("\"");
		}
		if (inl_protector_is_typed(info->kind))
			printf("  (%ju pass%s, %ju KiB, %ju lane%s)", (uintmax_t)info->costs.time,
			       info->costs.time == 1 ? "" : "es", (uintmax_t)info->costs.memory,
			       (uintmax_t)info->costs.parallelism, info->costs.parallelism == 1 ? "" : "s");
		if (info->linked)
			printf("  linked");
	}
	putchar('\n');
	return 0;
}

static int print_policy(const struct inl_policy_info *info, void *arg)
{
	char hex[INL_KEY_SPEC_HEX_SIZE];

	printf("policy %s ", inl_key_spec_hex(&info->policy.key, hex));
	if (info->status) {
		putchar(' ');
		put_name(info->why.text[0] ? info->why.text : inl_cli_why(info->status));
	}
	for (unsigned i = 0; i < info->n_protectors; i++)
		printf(" %s", info->protectors[i]);
	putchar('\n');
	return 0;
}

static int run_list(struct inl_cli *cli, const struct protected *on, const char *name)
{
	struct inl_diag diag = { 0 };
	int err = inl_protectors(on->store, print_protector, NULL, &diag);

	if (!err)
		err = inl_protected(on->store, print_policy, NULL, &diag);
	if (err == -ENOENT)
		return 0; /* nothing */
	return err ? inl_cli_error(cli, on->where, err, &diag) : 0;
}

/* ---- add, recovery ----------------------------------------------------------------------------------------------- */

struct adding {
	struct inl_cli *cli;
	const struct protected *on;
	const struct inl_protector *by, *more;
	unsigned n;
	int code;
};

static int add_to(const struct inl_policy_info *info, void *arg)
{
	struct adding *adding = arg;
	char hex[INL_KEY_SPEC_HEX_SIZE];

	for (unsigned i = 0; i < info->n_protectors; i++) {
		struct inl_diag diag = { 0 };
		int err;

		if (strcmp(info->protectors[i], inl_protector_id(adding->by)))
			continue;
		err = inl_protected_add(adding->on->store, &info->policy.key, adding->by, adding->more, &diag);
		if (err)
			adding->code = inl_cli_fail(adding->cli, INL_EXIT_FAILED, adding->on->where, "policy %s: %s",
						    inl_key_spec_hex(&info->policy.key, hex),
						    diag.text[0] ? diag.text : inl_cli_why(err));
		adding->n += !err;
		break;
	}
	return 0;
}

/* To all policies that the one that was opened protects. */
static int add_to_all(struct inl_cli *cli, const struct protected *on, const struct inl_protector *by,
		      const struct inl_protector *more)
{
	struct adding adding = { cli, on, by, more };
	struct inl_diag diag = { 0 };
	int err = inl_protected(on->store, add_to, &adding, &diag);

	/* One that opens nothing is of no use. */
	if (!adding.n)
		inl_protector_remove(on->store, inl_protector_id(more), NULL);
	return err ? inl_cli_error(cli, on->where, err, &diag) : adding.code;
}

static int open_chosen(struct inl_cli *cli, const struct protected *on, struct inl_protector **by)
{
	struct inl_protector_info info;
	int code = inl_cli_choose_protector(cli, on->store, on->where, cli->n_protectors ? cli->protectors[0] : NULL,
					    &info);

	return code ? code : inl_cli_open_protector(cli, on->store, on->where, &info, by);
}

static void print_made(const struct protected *on, const struct inl_protector *more)
{
	printf("%s: protector %s\n", on->where, inl_protector_id(more));
}

static int run_add(struct inl_cli *cli, const struct protected *on, const char *name)
{
	struct inl_protector *by = NULL, *more = NULL;
	int code = open_chosen(cli, on, &by);

	if (!code)
		code = inl_cli_make_protector(cli, on->store, on->where, name ? name : inl_cli_protector_name(),
					      cli->values[INL_OPT_NEW_KEY], &more);
	if (!code)
		code = add_to_all(cli, on, by, more);
	if (!code)
		print_made(on, more);
	inl_protector_free(by);
	inl_protector_free(more);
	return code;
}

static bool is_there(const struct protected *on, const struct inl_protector *protector)
{
	struct inl_protector_info info;

	return !inl_protector_info(on->store, inl_protector_id(protector), &info, NULL);
}

static int run_recovery(struct inl_cli *cli, const struct protected *on, const char *name)
{
	struct inl_protector *by = NULL, *more = NULL;
	char *text = inl_secret_alloc(INL_RECOVERY_CODE_SIZE);
	int code = text ? open_chosen(cli, on, &by) : inl_cli_fail(cli, INL_EXIT_FAILED, NULL, "no secret memory left");

	if (!code)
		code = inl_cli_make_recovery(cli, on->store, on->where, name ? name : "recovery", text, &more);
	if (!code)
		code = add_to_all(cli, on, by, more);
	/* Also one that opens only a part; none that nobody has seen stays. */
	if (more && is_there(on, more)) {
		int shown = inl_cli_show_code(cli, text);

		if (shown)
			inl_protector_remove(on->store, inl_protector_id(more), NULL);
		code = inl_cli_worse(code, shown);
	}
	inl_secret_free(text);
	inl_protector_free(by);
	inl_protector_free(more);
	return code;
}

/* ---- change, remove ---------------------------------------------------------------------------------------------- */

static int change_error(struct inl_cli *cli, const char *where, const char *id, int err, const struct inl_diag *diag)
{
	return inl_cli_fail(cli, INL_EXIT_FAILED, where, "protector %s: %s", id,
			    diag->text[0] ? diag->text : inl_cli_why(err));
}

static int change_to(struct inl_cli *cli, const struct protected *on, const struct inl_protector_info *info,
		     const struct inl_protector *protector)
{
	bool costs_given = inl_protector_is_typed(info->kind) &&
			   (cli->given[INL_OPT_ARGON2_TIME] || cli->given[INL_OPT_ARGON2_MEMORY]);
	char *text = inl_protector_text(info);
	struct inl_typed typed = { 0 };
	struct inl_hash_costs costs;
	struct inl_diag diag = { 0 };
	int err, code = 0;

	if (info->kind == INL_PROTECTOR_RECOVERY)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, on->where,
				    "%s is not changed: make another, and remove this one", text);
	else if (info->linked)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, on->where,
				    "%s lies on another file system (%s): change it there", text, info->link);
	else if (info->kind == INL_PROTECTOR_LOGIN)
		code = inl_cli_fail(cli, INL_EXIT_USAGE, on->where, "%s is the password of a login: passwd(1) changes both", text);
	else if (costs_given)
		code = inl_cli_costs(cli, &info->costs, &costs);
	if (!code && info->kind == INL_PROTECTOR_RAW_KEY)
		code = cli->given[INL_OPT_NEW_KEY]
			       ? inl_ask_file(cli, cli->values[INL_OPT_NEW_KEY], &typed)
			       : inl_cli_fail(cli, INL_EXIT_USAGE, on->where, "the new key is needed: --new-key FILE");
	else if (!code)
		code = inl_ask_new(cli, text, &typed);
	if (!code) {
		err = inl_protector_change(on->store, protector, typed.bytes, typed.len, costs_given ? &costs : NULL,
					   &diag);
		code = err ? change_error(cli, on->where, info->id, err, &diag) : 0;
	}
	inl_secret_free(typed.bytes);
	free(text);
	return code;
}

static int run_change(struct inl_cli *cli, const struct protected *on, const char *name)
{
	const char *named = name ? name : cli->n_protectors ? cli->protectors[0] : NULL;
	struct inl_protector *protector = NULL;
	struct inl_protector_info info;
	int code = inl_cli_choose_protector(cli, on->store, on->where, named, &info);

	if (!code)
		code = inl_cli_open_protector(cli, on->store, on->where, &info, &protector);
	if (!code)
		code = change_to(cli, on, &info, protector);
	if (!code)
		printf("%s: protector %s changed\n", on->where, info.id);
	inl_protector_free(protector);
	return code;
}

static int run_remove(struct inl_cli *cli, const struct protected *on, const char *name)
{
	struct inl_protector_info info;
	struct inl_diag diag = { 0 };
	bool found;
	int err, code = inl_cli_find_protector(cli, on->store, on->where, name, &info, &found);

	if (code)
		return code;
	if (!found)
		return inl_cli_fail(cli, INL_EXIT_FAILED, on->where, "there is no protector %s", name);
	err = inl_protector_remove(on->store, info.id, &diag);
	if (err)
		return change_error(cli, on->where, info.id, err, &diag);
	printf("%s: protector %s removed\n", on->where, info.id);
	return 0;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	bool writes, needs_name;
	int (*run)(struct inl_cli *cli, const struct protected *on, const char *name);
} verbs[] = {
	{ "list", false, false, run_list },        { "add", true, false, run_add },
	{ "recovery", true, false, run_recovery }, { "change", true, false, run_change },
	{ "remove", true, true, run_remove },
};

int inl_cli_protect(struct inl_cli *cli, int n_args, char **args)
{
	struct protected on = { 0 };
	size_t i = 0;
	int code;

	while (i < sizeof(verbs) / sizeof(verbs[0]) && strcmp(verbs[i].name, args[1]))
		i++;
	if (i == sizeof(verbs) / sizeof(verbs[0]))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[1], "add, remove, list, change or recovery");
	if (verbs[i].needs_name && n_args < 3)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "which one is to be removed?");
	/* Of the two kinds there are, people have passphrases. */
	cli->given[INL_OPT_PASSPHRASE] |= !cli->given[INL_OPT_PROTECTOR_KEY];
	code = inl_cli_protect_target(cli, args[0], verbs[i].writes, &on.store, &on.where);
	if (code)
		return code;
	code = verbs[i].run(cli, &on, n_args > 2 ? args[2] : NULL);
	inl_protect_close(on.store);
	free(on.where);
	return code;
}
