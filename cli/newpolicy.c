/*
 * cli/newpolicy.c: `inlay encrypt --passphrase`: a key is made, wrapped and written down before a directory has it.
 * Not here: directories and policies themselves (cli/encrypt.c); protectors (cli/newsecret.c, cli/protector.c).
 * Read more: doc/inlay.1, "PASSPHRASES".
 *
 * First the protector, then the policy's wrapped key, then the directory: whatever is cut short leaves no directory
 * whose key nobody has. What fails is taken back.
 */
#include "cli/inside.h"
#include "cli/mount.h"
#include "cli/policy.h"
#include "cli/secret.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sealing {
	struct inl_protect *store;
	char *where;
	bool mounted;
	struct inl_protector *protector;
	bool is_new;
	unsigned n_done;
};

/* By name, or by the name of whoever asks: one that is there is opened, another is made. */
static int get_protector(struct inl_cli *cli, struct sealing *on)
{
	const char *name = cli->n_protectors ? cli->protectors[0] : inl_cli_protector_name();
	struct inl_protector_info info;
	bool found;
	int code = inl_cli_find_protector(cli, on->store, on->where, name, &info, &found);

	if (code)
		return code;
	if (found && cli->given[INL_OPT_PROTECTOR_KEY] && inl_protector_is_typed(info.kind))
		return inl_cli_fail(cli, INL_EXIT_USAGE, on->where, "the protector %s is opened by --passphrase", name);
	if (found)
		return inl_cli_open_protector(cli, on->store, on->where, &info, &on->protector);
	on->is_new = true;
	return inl_cli_make_protector(cli, on->store, on->where, name, cli->values[INL_OPT_PROTECTOR_KEY],
				      &on->protector);
}

/* The store that the first directory is in. */
static int open_store(struct inl_cli *cli, const char *arg, struct sealing *on)
{
	struct inl_target target;
	int code;

	on->mounted = inl_inside(arg);
	if (on->mounted)
		return inl_cli_protect_path(cli, arg, &on->store, &on->where);
	code = inl_target_init(cli, arg, &target);
	if (!code)
		code = inl_cli_protect_target(cli, target.image, true, &on->store, &on->where);
	inl_target_done(&target);
	return code;
}

/* The others must be in it, too: a protector is in one place. */
static int check_same(struct inl_cli *cli, const char *arg, const struct sealing *on)
{
	struct inl_protect *store = NULL;
	char *where = NULL;
	int code;

	if (!on->mounted)
		return inl_inside(arg) ? inl_cli_fail(cli, INL_EXIT_USAGE, arg, "is not in the same image")
				       : inl_cli_same_image(cli, arg);
	code = inl_cli_protect_path(cli, arg, &store, &where);
	if (code)
		return code;
	if (strcmp(where, on->where))
		code = inl_cli_fail(cli, INL_EXIT_USAGE, arg, "is not in the same mount as the first directory");
	inl_protect_close(store);
	free(where);
	return code;
}

/* To whom a policy is set by, which must have the key. */
static int give_key(struct inl_cli *cli, const char *arg, const struct sealing *on, const uint8_t *key)
{
	struct inl_key_spec spec;
	int err = on->mounted ? inl_mounted_add_key(arg, key, INL_POLICY_KEY_SIZE, false, &spec)
			      : inl_keyring_add(cli->keys, key, INL_POLICY_KEY_SIZE, NULL);

	return err ? inl_cli_error(cli, arg, err, NULL) : 0;
}

static int encrypt_with(struct inl_cli *cli, const char *arg, struct sealing *on, struct inl_policy *policy,
			const uint8_t *key)
{
	struct inl_diag diag = { 0 };
	int code, err = inl_key_spec_derive(key, INL_POLICY_KEY_SIZE, policy->version, &policy->key);

	if (!err)
		err = inl_protected_make(on->store, policy, key, on->protector, &diag);
	if (err) {
		code = inl_cli_error(cli, arg, err, &diag);
		return err == -EOPNOTSUPP ? INL_EXIT_USAGE : code;
	}
	code = give_key(cli, arg, on, key);
	if (!code)
		code = inl_cli_encrypt_dir(cli, arg, policy);
	/* Where the directory has its policy, and only that it lasts is in doubt, what opens it must stay. */
	if (code && code != INL_EXIT_INCOMPLETE)
		inl_protected_remove(on->store, &policy->key, NULL);
	return code;
}

static int encrypt_one(struct inl_cli *cli, const char *arg, struct sealing *on, struct inl_policy policy)
{
	uint8_t *key = NULL;
	int code = check_same(cli, arg, on);

	if (!code)
		code = inl_cli_random_key(cli, &key);
	if (!code)
		code = encrypt_with(cli, arg, on, &policy, key);
	on->n_done += !code || code == INL_EXIT_INCOMPLETE;
	inl_secret_free(key);
	return code;
}

int inl_cli_encrypt_protected(struct inl_cli *cli, int n_args, char **args, const struct inl_policy *policy)
{
	struct sealing on = { 0 };
	int code;

	if (cli->n_key_files || cli->n_protectors > 1)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL,
				    "either one key, or one protector: its key is made here");
	code = open_store(cli, args[0], &on);
	if (code)
		return code;
	code = get_protector(cli, &on);
	for (int i = 0; i < n_args && on.protector; i++)
		code = inl_cli_worse(code, encrypt_one(cli, args[i], &on, *policy));
	if (on.is_new && on.protector && !on.n_done)
		inl_protector_remove(on.store, inl_protector_id(on.protector), NULL);
	else if (on.is_new && on.protector)
		printf("%s: protector %s\n", on.where, inl_protector_id(on.protector));
	inl_protector_free(on.protector);
	inl_protect_close(on.store);
	free(on.where);
	return code;
}
