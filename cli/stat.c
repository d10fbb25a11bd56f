/*
 * cli/stat.c: `inlay stat`: everything about one file.
 * Not here: what the volume says of itself (cli/info.c).
 * Read more: doc/inlay.1.
 */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* All that is shown. */
struct facts {
	const struct inl_target *target;
	struct inl_inode *inode;
	struct inl_stat st;
	struct inl_inode_crypt crypt;
	bool key_given;
	char *link;
	size_t link_len;
	bool has_link;
};

static const char *const extent_kinds[] = {
	[INL_EXTENT_HOLE] = "hole",
	[INL_EXTENT_UNWRITTEN] = "unwritten",
	[INL_EXTENT_DATA] = "data",
	[INL_EXTENT_INLINE] = "inline",
};

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void print_flags(uint32_t flags)
{
	const char *name;
	unsigned i = 0;

	printf("Flags       0x%" PRIx32, flags);
	while ((name = inl_text_flag(flags, &i)))
		printf(" %s", name);
	putchar('\n');
}

static void print_time(const char *name, const struct inl_time *time)
{
	char text[INL_TIME_TEXT_SIZE];

	printf("%-11s %s\n", name, time->sec || time->nsec || name[0] != 'B' ? inl_text_time(time, true, text) : "-");
}

static void print_stat(const struct facts *f)
{
	const struct inl_stat *st = &f->st;
	char mode[11];

	printf("Path        ");
	inl_text_name(f->target->path, strlen(f->target->path));
	printf("\nType        %s\n", inl_text_type(st->mode));
	if (f->has_link) {
		printf("Target      ");
		inl_text_name(f->link, f->link_len);
		putchar('\n');
	}
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode))
		printf("Device      %" PRIu32 ",%" PRIu32 "\n", st->rdev_major, st->rdev_minor);
	printf("Inode       %" PRIu64 ", generation %" PRIu32 "\n", st->ino, st->generation);
	printf("Size        %" PRIu64 " bytes in %" PRIu64 " sectors of 512 bytes\n", st->size, st->blocks);
	printf("Mode        %s (%04o)\n", inl_text_mode(st->mode, mode), st->mode & 07777u);
	printf("Owner       %" PRIu32 ":%" PRIu32 "\n", st->uid, st->gid);
	printf("Links       %" PRIu32 "\n", st->nlink);
	print_flags(st->flags);
	print_time("Access", &st->atime);
	print_time("Modify", &st->mtime);
	print_time("Change", &st->ctime);
	print_time("Birth", &st->crtime);
}

static void print_crypt(const struct facts *f)
{
	const struct inl_policy *policy = &f->crypt.policy;
	char hex[INL_KEY_SPEC_HEX_SIZE], mode[24];

	if (!f->crypt.encrypted) {
		puts("Encrypted   no");
		return;
	}
	printf("Encrypted   yes, %s\n", inl_text_status(f->crypt.status));
	if (f->crypt.status == -EUCLEAN)
		return;
	printf("Policy      version %u, flags 0x%02x\n", policy->version, policy->flags);
	printf("Key         %s %s: %s\n", policy->version == 1 ? "descriptor" : "identifier",
	       inl_key_spec_hex(&policy->key, hex), f->key_given ? "given" : "not given");
	printf("Nonce       %s\n", inl_text_hex(f->crypt.nonce, INL_FILE_NONCE_SIZE, hex));
	printf("Contents    %s\n", inl_text_fscrypt_mode(policy->contents_mode, mode));
	printf("Names       %s, padded to %u bytes\n", inl_text_fscrypt_mode(policy->filenames_mode, mode),
	       inl_policy_padding(policy));
	printf("IVs         %s\n", inl_policy_iv_method(policy));
	printf("Data unit   %" PRIu32 " bytes\n", f->crypt.data_unit_size);
}

/* ---- extents ----------------------------------------------------------------------------------------------------- */

static void show_extent(struct inl_json *json, const struct inl_extent *extent)
{
	bool mapped = extent->kind == INL_EXTENT_DATA || extent->kind == INL_EXTENT_UNWRITTEN;

	if (!json) {
		printf("Extent      %" PRIu64 " + %" PRIu64 " %s", extent->offset, extent->len,
		       extent_kinds[extent->kind]);
		if (mapped)
			printf(" at %" PRIu64, extent->phys);
		putchar('\n');
		return;
	}
	inl_json_open(json, NULL, '{');
	inl_json_u64(json, "offset", extent->offset);
	inl_json_u64(json, "length", extent->len);
	inl_json_text(json, "kind", extent_kinds[extent->kind]);
	if (mapped)
		inl_json_u64(json, "physical", extent->phys);
	inl_json_close(json, '}');
}

/* json NULL: text. */
static int show_extents(struct inl_json *json, const struct facts *f, struct inl_diag *diag)
{
	struct inl_extent extent;
	uint64_t offset = 0;
	int err = 0;

	if (!S_ISREG(f->st.mode))
		return 0;
	while (offset < f->st.size) {
		err = inl_inode_extent(f->inode, offset, &extent, diag);
		if (err)
			return err;
		if (!extent.len)
			return -EUCLEAN;
		show_extent(json, &extent);
		offset += extent.len;
	}
	return 0;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_crypt(struct inl_json *json, const struct facts *f)
{
	inl_json_open(json, "encryption", '{');
	inl_json_text(json, "state", inl_text_status(f->crypt.status));
	if (f->crypt.status != -EUCLEAN) {
		inl_json_policy(json, &f->crypt.policy);
		inl_json_bool(json, "key_given", f->key_given);
		inl_json_hex(json, "nonce", f->crypt.nonce, INL_FILE_NONCE_SIZE);
		inl_json_u64(json, "data_unit_size", f->crypt.data_unit_size);
	}
	inl_json_close(json, '}');
}

static void json_stat(struct inl_json *json, const struct facts *f)
{
	const struct inl_stat *st = &f->st;

	inl_json_name(json, "path", f->target->path, strlen(f->target->path));
	inl_json_stat(json, st);
	inl_json_u64(json, "sectors", st->blocks);
	inl_json_u64(json, "generation", st->generation);
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		inl_json_u64(json, "device_major", st->rdev_major);
		inl_json_u64(json, "device_minor", st->rdev_minor);
	}
	if (f->has_link)
		inl_json_name(json, "target", f->link, f->link_len);
	inl_json_time(json, "atime", &st->atime);
	inl_json_time(json, "mtime", &st->mtime);
	inl_json_time(json, "ctime", &st->ctime);
	inl_json_time(json, "crtime", &st->crtime);
}

static int json_all(struct inl_json *json, const struct facts *f, struct inl_diag *diag)
{
	const char *name;
	unsigned i = 0;
	int err;

	inl_json_open(json, NULL, '{');
	json_stat(json, f);
	inl_json_u64(json, "flag_bits", f->st.flags);
	inl_json_open(json, "flags", '[');
	while ((name = inl_text_flag(f->st.flags, &i)))
		inl_json_text(json, NULL, name);
	inl_json_close(json, ']');
	inl_json_bool(json, "encrypted", f->crypt.encrypted);
	if (f->crypt.encrypted)
		json_crypt(json, f);
	inl_json_open(json, "extents", '[');
	err = show_extents(json, f, diag);
	inl_json_close(json, ']');
	inl_json_close(json, '}');
	return err;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int gather(struct inl_cli *cli, struct facts *f, struct inl_diag *diag)
{
	int err = inl_inode_stat(f->inode, &f->st, diag);

	if (err)
		return err;
	inl_inode_crypt(f->inode, &f->crypt);
	f->key_given =
		f->crypt.encrypted && f->crypt.status != -EUCLEAN && inl_keyring_has(cli->keys, &f->crypt.policy.key);
	if (!S_ISLNK(f->st.mode))
		return 0;
	f->link = inl_cli_alloc(INL_SYMLINK_MAX);
	f->has_link = !inl_readlink(f->inode, f->link, INL_SYMLINK_MAX, &f->link_len, diag);
	return 0;
}

static int show(struct inl_cli *cli, struct inl_json *json, bool first, struct facts *f)
{
	struct inl_diag diag = { 0 };
	int err = gather(cli, f, &diag);

	if (err)
		return inl_cli_error(cli, f->target->arg, err, &diag);
	if (cli->given[INL_OPT_JSON]) {
		err = json_all(json, f, &diag);
	} else {
		if (!first)
			putchar('\n');
		print_stat(f);
		print_crypt(f);
		err = show_extents(NULL, f, &diag);
	}
	if (err || diag.text[0])
		return inl_cli_error(cli, f->target->arg, err ? err : diag.err, &diag);
	return 0;
}

int inl_cli_stat(struct inl_cli *cli, int n_args, char **args)
{
	struct inl_json json = { 0 };
	int code = 0;

	if (cli->given[INL_OPT_JSON])
		inl_json_open(&json, NULL, '[');
	for (int i = 0; i < n_args; i++) {
		struct inl_target target;
		struct facts facts = { .target = &target };
		int one = inl_target_init(cli, args[i], &target);

		if (!one)
			one = inl_cli_find(cli, &target, false, &facts.inode);
		if (!one)
			one = show(cli, &json, i == 0, &facts);
		inl_inode_put(facts.inode);
		free(facts.link);
		inl_target_done(&target);
		code = inl_cli_worse(code, one);
	}
	if (cli->given[INL_OPT_JSON])
		inl_json_close(&json, ']');
	return code;
}
