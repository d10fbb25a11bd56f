/*
 * cli/encrypt.c: `inlay encrypt`: gives an empty directory an encryption policy.
 * Not here: policies as words (cli/policy.c); what follows from one (the library).
 * Read more: doc/inlay.1, "ENCRYPTING".
 */
#include "cli/change.h"
#include "cli/inside.h"
#include "cli/mount.h"
#include "cli/policy.h"
#include "cli/secret.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The one key: of the options, so that nothing is opened without. */
static int find_key(struct inl_cli *cli, struct inl_policy *policy)
{
	int code, err;

	if (cli->n_key_files != 1)
		return inl_cli_fail(cli, INL_EXIT_USAGE, NULL, "%s: --key FILE or --key-hex FILE",
				    cli->n_key_files ? "one key only" : "a key is needed");
	code = inl_cli_load_keys(cli);
	if (code)
		return code;
	err = inl_keyring_spec(cli->keys, 0, policy->version, &policy->key);
	return err ? inl_cli_error(cli, NULL, err, NULL) : 0;
}

static int parse(struct inl_cli *cli, struct inl_policy *policy)
{
	const struct inl_policy_words words = {
		.contents = cli->values[INL_OPT_CONTENTS],
		.filenames = cli->values[INL_OPT_FILENAMES],
		.padding = cli->values[INL_OPT_PADDING],
		.unit = cli->values[INL_OPT_DATA_UNIT],
		.v1 = cli->given[INL_OPT_POLICY_V1],
		.direct_key = cli->given[INL_OPT_DIRECT_KEY],
		.iv_ino_lblk_64 = cli->given[INL_OPT_LBLK_64],
		.iv_ino_lblk_32 = cli->given[INL_OPT_LBLK_32],
	};

	return inl_policy_make(cli, NULL, &words, policy);
}

static int refused(struct inl_cli *cli, const char *arg, int err, const struct inl_diag *diag)
{
	switch (err) {
	case -ENOTEMPTY:
		return inl_cli_fail(cli, INL_EXIT_FAILED, arg,
				    "is not empty: encrypt a new directory, and 'inlay mv' what is in this one there");
	case -EINVAL:
		inl_cli_error(cli, arg, err, diag);
		return INL_EXIT_USAGE;
	default:
		return inl_cli_error(cli, arg, err, diag);
	}
}

/* e2fsck puts plain things there. Linux would not mind. */
static bool is_lost_found(struct inl_cli *cli, struct inl_inode *dir)
{
	struct inl_inode *root = NULL;
	struct inl_stat st = { 0 };
	uint64_t ino = 0;
	bool is;

	if (inl_inode_get(cli->vol, INL_ROOT_INO, NULL, &root))
		return false;
	is = !inl_lookup(root, "lost+found", 10, &ino, NULL) && !inl_inode_stat(dir, &st, NULL) && st.ino == ino;
	inl_inode_put(root);
	return is;
}

static void print_encrypted(const char *arg, const struct inl_policy *policy)
{
	char hex[INL_KEY_SPEC_HEX_SIZE];

	printf("%s: encrypted with key %s\n", arg, inl_key_spec_hex(&policy->key, hex));
}

/* To the mount, as this user's. */
static int give_key(struct inl_cli *cli, const char *arg)
{
	struct inl_key_spec spec;
	uint8_t *key = NULL;
	size_t len = 0;
	int err;

	if (!cli->n_key_files || !strcmp(cli->key_files[0].file, "-"))
		return -ENOKEY; /* it was given, or has been read */
	if (inl_cli_read_key(cli, cli->key_files[0].file, cli->key_files[0].hex, &key, &len))
		return -ENOKEY;
	err = inl_mounted_add_key(arg, key, len, false, &spec);
	inl_secret_free(key);
	return err;
}

/* It has the policy, which may not last. */
static int not_durable(struct inl_cli *cli, const char *arg, int err, const struct inl_diag *diag)
{
	inl_cli_error(cli, arg, err, diag);
	return INL_EXIT_INCOMPLETE;
}

/* A directory inside a mount: its server has the key, or says that it has not. */
static int encrypt_inside(struct inl_cli *cli, const char *arg, const struct inl_policy *policy)
{
	int fd, err, code = 0;

	if (!inl_mounted_open(arg, &fd))
		return inl_cli_error(cli, arg, -ENOENT, NULL);
	err = inl_mounted_set_policy(fd, policy);
	/* It is there for others, or not at all: whoever has the key may add it. */
	if (err == -ENOKEY && !(err = give_key(cli, arg)))
		err = inl_mounted_set_policy(fd, policy);
	if (!err)
		code = fsync(fd) ? not_durable(cli, arg, -errno, NULL) : 0;
	close(fd);
	if (!err && !code)
		print_encrypted(arg, policy);
	return err ? refused(cli, arg, err, NULL) : code;
}

static int encrypt_one(struct inl_cli *cli, const char *arg, const struct inl_policy *policy)
{
	struct inl_target target;
	struct inl_inode *dir = NULL;
	struct inl_diag diag = { 0 };
	int err, code = inl_target_init(cli, arg, &target);

	if (!code)
		code = inl_cli_find(cli, &target, true, &dir);
	if (!code && is_lost_found(cli, dir))
		code = inl_cli_fail(cli, INL_EXIT_FAILED, arg, "is for e2fsck, which has no keys");
	if (!code) {
		err = inl_set_policy(dir, policy, NULL, &diag);
		if (err)
			code = refused(cli, arg, err, &diag);
		else if ((err = inl_fsync(dir, &diag)))
			code = not_durable(cli, arg, err, &diag);
	}
	if (!code)
		print_encrypted(arg, policy);
	inl_inode_put(dir);
	inl_target_done(&target);
	return code;
}

int inl_cli_encrypt_dir(struct inl_cli *cli, const char *arg, const struct inl_policy *policy)
{
	return inl_inside(arg) ? encrypt_inside(cli, arg, policy) : encrypt_one(cli, arg, policy);
}

int inl_cli_encrypt(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_policy policy;
	int code = parse(cli, &policy);

	if (!code && inl_cli_wants_protectors(cli))
		return inl_cli_encrypt_protected(cli, n_args, args, &policy);
	if (!code)
		code = find_key(cli, &policy);
	if (code)
		return code;
	inl_cli_will_write(cli);
	for (int i = 0; i < n_args; i++)
		code = inl_cli_worse(code, inl_cli_encrypt_dir(cli, args[i], &policy));
	return code;
}
