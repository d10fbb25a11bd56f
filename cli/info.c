/*
 * cli/info.c: `inlay info`: what a volume is, what can be done with it, which keys it needs.
 * Not here: single files (cli/stat.c); the CPU (cli/cpu.c).
 * Read more: doc/inlay.1.
 */
#include "cli/info.h"
#include "cli/json.h"
#include "cli/text.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct report {
	struct inl_json *json; /* NULL: text */
	unsigned n_policies;
};

static size_t label_len(const struct inl_volume_info *info)
{
	return strnlen(info->label, sizeof(info->label));
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void print_state(const struct inl_volume_info *info)
{
	printf("Access       %s by its features\n", inl_text_access(info->access));
	if (info->backup_superblock)
		printf("Superblock   damaged; the backup in block %" PRIu64 " is used\n", info->backup_superblock);
	else
		puts("Superblock   primary");
	if (info->journal_replayed)
		printf("Journal      replayed in memory: %" PRIu32 " blocks of %" PRIu32
		       " transactions (not cleanly unmounted)\n",
		       info->journal_blocks, info->journal_transactions);
	else
		puts("Journal      nothing to replay");
	printf("Errors flag  %s\n", info->has_errors ? "set: run e2fsck" : "clear");
}

static void print_volume(const struct inl_volume_info *info)
{
	char uuid[37], size[16], free[16];

	printf("Label        ");
	inl_text_name(info->label, label_len(info));
	printf("\nUUID         %s\n", inl_text_uuid(info->uuid, uuid));
	printf("Block size   %" PRIu32 "\n", info->block_size);
	printf("Size         %" PRIu64 " blocks (%s), %" PRIu64 " free (%s)\n", info->n_blocks,
	       inl_text_size(info->n_blocks * info->block_size, size), info->n_free_blocks,
	       inl_text_size(info->n_free_blocks * info->block_size, free));
	printf("Inodes       %" PRIu32 " of %" PRIu32 " bytes, %" PRIu32 " free\n", info->n_inodes, info->inode_size,
	       info->n_free_inodes);
	print_state(info);
}

static void print_features(const struct inl_volume *vol)
{
	struct inl_feature feature;

	puts("Features");
	for (unsigned i = 0; inl_volume_feature(vol, i, &feature); i++) {
		printf("  %-18s %s%s%s\n", feature.name, inl_text_access(feature.access), feature.why[0] ? ": " : "",
		       feature.why);
	}
}

static void print_policy(const struct inl_policy_use *use)
{
	const struct inl_policy *policy = &use->policy;
	char hex[INL_KEY_SPEC_HEX_SIZE], contents[24], names[24];

	printf("  version %u, key %s %s: %s\n", policy->version, policy->version == 1 ? "descriptor" : "identifier",
	       inl_key_spec_hex(&policy->key, hex), use->key_given ? "given" : "not given");
	printf("    %" PRIu64 " inode%s, %s\n", use->n_inodes, use->n_inodes == 1 ? "" : "s",
	       inl_text_status(use->status));
	printf("    contents %s, names %s padded to %u, IVs %s", inl_text_fscrypt_mode(policy->contents_mode, contents),
	       inl_text_fscrypt_mode(policy->filenames_mode, names), inl_policy_padding(policy),
	       inl_policy_iv_method(policy));
	if (policy->log2_data_unit_size && policy->log2_data_unit_size < 32)
		printf(", data units of %" PRIu32 " bytes", UINT32_C(1) << policy->log2_data_unit_size);
	putchar('\n');
}

static int each_policy(const struct inl_policy_use *use, void *arg)
{
	struct report *report = arg;

	if (!report->json && !report->n_policies)
		puts("Policies in use");
	report->n_policies++;
	if (!report->json) {
		print_policy(use);
		return 0;
	}
	inl_json_open(report->json, NULL, '{');
	inl_json_policy(report->json, &use->policy);
	inl_json_u64(report->json, "inodes", use->n_inodes);
	inl_json_bool(report->json, "key_given", use->key_given);
	inl_json_text(report->json, "state", inl_text_status(use->status));
	inl_json_close(report->json, '}');
	return 0;
}

static int print_policies(struct inl_cli *cli, struct inl_diag *diag)
{
	struct report report = { 0 };
	uint64_t n_damaged = 0;
	int err = inl_volume_policies(cli->vol, each_policy, &report, &n_damaged, diag);

	if (err)
		return err;
	if (!report.n_policies)
		puts("Policies in use: none");
	if (n_damaged)
		printf("Encrypted inodes with a missing or damaged context: %" PRIu64 "\n", n_damaged);
	return 0;
}

int inl_info_print(struct inl_cli *cli, struct inl_diag *diag)
{
	struct inl_volume_info info = { 0 };

	inl_volume_info(cli->vol, &info);
	print_volume(&info);
	print_features(cli->vol);
	return print_policies(cli, diag);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_volume(struct inl_json *json, const struct inl_volume_info *info)
{
	char uuid[37];

	inl_json_name(json, "label", info->label, label_len(info));
	inl_json_text(json, "uuid", inl_text_uuid(info->uuid, uuid));
	inl_json_u64(json, "block_size", info->block_size);
	inl_json_u64(json, "blocks", info->n_blocks);
	inl_json_u64(json, "free_blocks", info->n_free_blocks);
	inl_json_u64(json, "inodes", info->n_inodes);
	inl_json_u64(json, "free_inodes", info->n_free_inodes);
	inl_json_u64(json, "inode_size", info->inode_size);
	inl_json_text(json, "access", inl_text_access(info->access));
	inl_json_u64(json, "backup_superblock", info->backup_superblock);
	inl_json_bool(json, "journal_replayed", info->journal_replayed);
	inl_json_u64(json, "journal_blocks", info->journal_blocks);
	inl_json_u64(json, "journal_transactions", info->journal_transactions);
	inl_json_bool(json, "has_errors", info->has_errors);
}

static void json_features(struct inl_json *json, const struct inl_volume *vol)
{
	struct inl_feature feature;

	inl_json_open(json, "features", '[');
	for (unsigned i = 0; inl_volume_feature(vol, i, &feature); i++) {
		inl_json_open(json, NULL, '{');
		inl_json_text(json, "name", feature.name);
		inl_json_text(json, "access", inl_text_access(feature.access));
		inl_json_text(json, "why", feature.why);
		inl_json_close(json, '}');
	}
	inl_json_close(json, ']');
}

int inl_info_json(struct inl_cli *cli, struct inl_json *json, struct inl_diag *diag)
{
	struct report report = { .json = json };
	struct inl_volume_info info = { 0 };
	uint64_t n_damaged = 0;
	int err;

	inl_volume_info(cli->vol, &info);
	json_volume(json, &info);
	json_features(json, cli->vol);
	inl_json_open(json, "policies", '[');
	err = inl_volume_policies(cli->vol, each_policy, &report, &n_damaged, diag);
	inl_json_close(json, ']');
	inl_json_u64(json, "damaged_contexts", n_damaged);
	return err;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int describe(struct inl_cli *cli, const struct inl_target *target)
{
	struct inl_json json = { 0 };
	struct inl_diag diag = { 0 };
	int err, code = inl_cli_open(cli, target->image);

	if (code)
		return code;
	if (cli->given[INL_OPT_JSON]) {
		inl_json_open(&json, NULL, '{');
		err = inl_info_json(cli, &json, &diag);
		inl_json_close(&json, '}');
	} else {
		err = inl_info_print(cli, &diag);
	}
	return err ? inl_cli_error(cli, target->image, err, &diag) : 0;
}

int inl_cli_info(struct inl_cli *cli, int n_args, char **args)
{
	bool cpu = cli->given[INL_OPT_CPU];
	int code = inl_cli_operands(cli, n_args, args, !cpu, !cpu);
	struct inl_target target;

	if (code || cpu)
		return code ? code : inl_cli_cpu(cli);
	code = inl_target_init(cli, args[0], &target);
	if (!code && strcmp(target.path, "/"))
		code = inl_cli_fail(cli, INL_EXIT_USAGE, args[0],
				    "an image is described, not a path in it (inlay stat)");
	if (!code)
		code = describe(cli, &target);
	inl_target_done(&target);
	return code;
}
