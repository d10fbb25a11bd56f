/*
 * cli/cpu.c: `inlay info --cpu`: how this machine computes each cipher, and whether its answers are right.
 * Not here: how fast (cli/speed.c); the choice itself (cli/ciphers.c).
 * Read more: doc/inlay.1, "CIPHERS"; inlay/cipher.h.
 */
#include "cli/cli.h"
#include "cli/json.h"
#include <inttypes.h>
#include <string.h>

/* What every start costs, ns: the crypto library getting ready, then the self-test. */
struct start {
	uint64_t library, test;
	int err;
	struct inl_diag diag;
};

/* To be measured before anything else is asked for, since both happen only once. */
static void start(const struct inl_cli *cli, struct start *start)
{
	const char *names[INL_IMPL_NAMES_MAX];
	uint64_t begin = inl_now_ns(), ready;

	inl_cli_impl_names(names); /* whether OpenSSL has an algorithm can be told only when it is ready */
	ready = inl_now_ns();
	start->err = inl_cipher_self_test(cli->ciphers, &start->diag);
	start->test = inl_now_ns() - ready;
	start->library = ready - begin;
}

static bool is_used(const struct inl_cli *cli, enum inl_cipher_id id, const struct inl_cipher_impl *impl)
{
	const char *used = inl_cli_impl_of(id, cli->ciphers);

	return !impl->lacks && used && !strcmp(used, impl->name);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void print_impl(const struct inl_cli *cli, enum inl_cipher_id id, const struct inl_cipher_impl *impl)
{
	struct inl_diag diag = { 0 };

	printf("  %-14s ", impl->name);
	if (impl->lacks)
		printf("needs %s\n", impl->lacks);
	else if (inl_cipher_self_test(impl->name, &diag))
		printf("%-10s self-test FAILED: %s\n", is_used(cli, id, impl) ? "used" : "available", diag.text);
	else
		printf("%-10s self-test passed\n", is_used(cli, id, impl) ? "used" : "available");
}

static void print_missing(void)
{
	const struct inl_cipher_info *info;
	bool any = false;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		info = inl_cipher_info((enum inl_cipher_id)id);
		if (!info || info->available)
			continue;
		printf("%s%s", any ? ", " : "Not available yet: ", info->name);
		any = true;
	}
	if (any)
		putchar('\n');
}

static void print_all(const struct inl_cli *cli, const struct start *start)
{
	const struct inl_cipher_info *info;
	struct inl_cipher_impl impl;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		info = inl_cipher_info((enum inl_cipher_id)id);
		if (!info || !info->available)
			continue;
		puts(info->name);
		for (unsigned i = 0; inl_cipher_impl((enum inl_cipher_id)id, i, &impl); i++)
			print_impl(cli, (enum inl_cipher_id)id, &impl);
	}
	print_missing();
	printf("Self-tests at every start: %s, %" PRIu64 " us (and OpenSSL gets ready in %" PRIu64 " us)\n",
	       start->err ? "FAILED" : "passed", start->test / 1000, start->library / 1000);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_impl(struct inl_json *json, const struct inl_cli *cli, enum inl_cipher_id id,
		      const struct inl_cipher_impl *impl)
{
	struct inl_diag diag = { 0 };
	int err = impl->lacks ? 0 : inl_cipher_self_test(impl->name, &diag);

	inl_json_open(json, NULL, '{');
	inl_json_text(json, "name", impl->name);
	inl_json_bool(json, "used", is_used(cli, id, impl));
	inl_json_text(json, "needs", impl->lacks);
	inl_json_text(json, "self_test", impl->lacks ? NULL : err ? "failed" : "passed");
	if (err)
		inl_json_text(json, "why", diag.text);
	inl_json_close(json, '}');
}

static void json_cipher(struct inl_json *json, const struct inl_cli *cli, enum inl_cipher_id id)
{
	const struct inl_cipher_info *info = inl_cipher_info(id);
	struct inl_cipher_impl impl;

	if (!info)
		return;
	inl_json_open(json, NULL, '{');
	inl_json_text(json, "name", info->name);
	inl_json_bool(json, "available", info->available);
	inl_json_open(json, "implementations", '[');
	for (unsigned i = 0; inl_cipher_impl(id, i, &impl); i++)
		json_impl(json, cli, id, &impl);
	inl_json_close(json, ']');
	inl_json_close(json, '}');
}

static void json_all(const struct inl_cli *cli, const struct start *start)
{
	struct inl_json json = { 0 };

	inl_json_open(&json, NULL, '{');
	inl_json_open(&json, "ciphers", '[');
	for (unsigned id = 1; id < INL_CIPHER_MAX; id++)
		json_cipher(&json, cli, (enum inl_cipher_id)id);
	inl_json_close(&json, ']');
	inl_json_bool(&json, "self_test_passed", !start->err);
	inl_json_u64(&json, "self_test_us", start->test / 1000);
	inl_json_u64(&json, "openssl_start_us", start->library / 1000);
	inl_json_close(&json, '}');
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

int inl_cli_cpu(struct inl_cli *cli)
{
	int code = inl_cli_choose_ciphers(cli, false);
	struct start at_start = { 0 };

	if (code)
		return code;
	start(cli, &at_start);
	if (cli->given[INL_OPT_JSON])
		json_all(cli, &at_start);
	else
		print_all(cli, &at_start);
	return at_start.err ? inl_cli_error(cli, NULL, at_start.err, &at_start.diag) : 0;
}
