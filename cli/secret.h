/*
 * cli/secret.h: what people are asked for, and the protectors that it opens.
 * Not here: keys in files (cli/cli.h); the metadata (inlay/protect.h).
 * Read more: doc/inlay.1, "PASSPHRASES".
 */
#ifndef INLAY_CLI_SECRET_H
#define INLAY_CLI_SECRET_H

#include "cli/cli.h"
#include <inlay/protect.h>

/* What was typed, or read from a file. */
struct inl_typed {
	char *bytes; /* secret memory; inl_secret_free it */
	size_t len;
};

/* Room for one: it tells one that is too long. */
#define INL_TYPED_ROOM (INL_PASSPHRASE_MAX + 2)

/*
 * Ask for a passphrase: --passphrase-fd, else the terminal, without echo, else systemd-ask-password.
 *
 *   prompt   without a colon
 *
 * Returns: an exit code; the message is printed.
 */
int inl_ask(struct inl_cli *cli, const char *prompt, struct inl_typed *typed);

/* May one be asked again, who has mistyped? Not what comes from a descriptor. */
bool inl_ask_again(const struct inl_cli *cli);

/* A line that is no secret, from the terminal; false: there is no terminal. */
bool inl_ask_line(const char *prompt, char *line, size_t room);

/* Read a file of 32 bytes, for a raw_key protector. */
int inl_ask_file(struct inl_cli *cli, const char *file, struct inl_typed *typed);

/* ---- protectors -------------------------------------------------------------------------------------------------- */

/* Are keys to be had through protectors? --passphrase, --passphrase-fd, --protector-key. */
bool inl_cli_wants_protectors(const struct inl_cli *cli);

/* "passphrase protector "me" (0123456789abcdef)", on the heap; never NULL. */
char *inl_protector_text(const struct inl_protector_info *info);

/* Add the places of --protectors-in. */
int inl_cli_add_places(struct inl_cli *cli, struct inl_protect *protect);

/*
 * Open one protector: three tries for one that is typed, on a terminal.
 *
 *   where   for messages
 *
 * Returns: an exit code; the message is printed.
 */
int inl_cli_open_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where,
			   const struct inl_protector_info *info, struct inl_protector **out);

/*
 * Which protector is meant, of those that protect something and are opened by what was asked for.
 *
 *   named   a name or an id; NULL: the only one, or the one that is chosen on the terminal
 */
int inl_cli_choose_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *named,
			     struct inl_protector_info *info);

/*
 * Open the protectors that are meant, and call give with every key that they have.
 *
 *   give   key: secret memory, INL_POLICY_KEY_SIZE bytes. Returns an exit code
 */
typedef int inl_give(struct inl_cli *cli, const char *where, const uint8_t *key);
int inl_cli_open_protectors(struct inl_cli *cli, struct inl_protect *protect, const char *where, inl_give *give);

/* By id, or by a name that only one has, of all that there are. An exit code: several are called so. */
int inl_cli_find_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *named,
			   struct inl_protector_info *info, bool *found);

/* The keys that the volume itself has, into cli->keys. */
int inl_cli_load_protected(struct inl_cli *cli);

/* The store of the file system that has this path in it; *root, for free(), is where it is mounted. */
int inl_cli_protect_path(struct inl_cli *cli, const char *path, struct inl_protect **out, char **root);

/* The store of an image, which is opened, or of the file system that a directory is in. */
int inl_cli_protect_target(struct inl_cli *cli, const char *arg, bool write, struct inl_protect **out, char **where);

const char *inl_protector_kind_text(enum inl_protector_kind kind);

/* ---- new ones ----------------------------------------------------------------------------------------------------- */

/*
 * All of these return an exit code; the message is printed.
 *
 *   ask_new         twice, where a person types it
 *   costs           --argon2-time, --argon2-memory; else what it costs now; NULL: about a second
 *   make_protector  key_file: what is to open it; NULL: a passphrase, which is asked for
 *   random_key      INL_POLICY_KEY_SIZE bytes; inl_secret_free it
 *   show_code       on standard output, and nowhere else
 */
int inl_ask_new(struct inl_cli *cli, const char *what, struct inl_typed *typed);
int inl_cli_costs(struct inl_cli *cli, const struct inl_hash_costs *now, struct inl_hash_costs *costs);
int inl_cli_make_protector(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *name,
			   const char *key_file, struct inl_protector **out);
int inl_cli_make_recovery(struct inl_cli *cli, struct inl_protect *protect, const char *where, const char *name, char *text,
			  struct inl_protector **out);
int inl_cli_random_key(struct inl_cli *cli, uint8_t **key);
int inl_cli_show_code(struct inl_cli *cli, const char *text);

/* What a protector is called where nobody has said how: as its user. */
const char *inl_cli_protector_name(void);

/* `inlay encrypt` with a protector instead of a key. */
int inl_cli_encrypt_protected(struct inl_cli *cli, int n_args, char **args, const struct inl_policy *policy);

/* One directory, in an image or inside a mount, with a key that is there (cli/encrypt.c). */
int inl_cli_encrypt_dir(struct inl_cli *cli, const char *arg, const struct inl_policy *policy);

#endif
