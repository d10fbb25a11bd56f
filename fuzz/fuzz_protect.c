/*
 * fuzz/fuzz_protect.c: the files of .fscrypt, and recovery codes as people type them.
 * Not here: where the files lie (tests/unit/test_protect.c); the Argon2 that they ask for.
 * Read more: protect/message.c, protect/code.c.
 *
 * Input: which of the three (a byte), then the file, or the code.
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what)
{
	if (!what)
		abort();
}

/* What is accepted is within what the rest of the code relies on. */
static void check_protector(const uint8_t *data, size_t size)
{
	Inl__Meta__Protector *protector = NULL;
	struct inl_diag diag = { 0 };
	struct inl_hash_costs costs;
	uint8_t by[INL_PROTECTOR_KEY_SIZE] = { 0 }, key[INL_POLICY_KEY_SIZE];
	int rc = inl_meta_protector(data, size, "0123456789abcdef", &diag, &protector);

	require(rc == 0 || rc == -EUCLEAN);
	require(diag.err == rc && !diag.text[0] == !rc);
	if (rc)
		return;
	require(inl_unseal(by, protector->wrapped_key, INL_PROTECTOR_KEY_SIZE, key) == -EKEYREJECTED);
	if (inl_protector_is_typed(inl_meta_kind(protector))) {
		costs = inl_meta_costs(protector->costs);
		require(protector->salt.len == INL_SALT_SIZE);
		rc = inl_hash_check(&costs, NULL, NULL);
		require(rc == -E2BIG || (rc == 0 && costs.memory <= INL_HASH_MEMORY_MAX && costs.parallelism &&
					 costs.memory >= 8 * costs.parallelism &&
					 costs.time * costs.memory <= (uint64_t)INL_HASH_WORK_MAX * INL_HASH_MEMORY_MAX));
	}
	inl_meta_protector_free(protector);
}

static void check_policy(const uint8_t *data, size_t size)
{
	static struct inl_policy_info info;
	Inl__Meta__Policy *policy = NULL;
	struct inl_diag diag = { 0 };
	int rc = inl_meta_policy(data, size, "0123456789abcdef0123456789abcdef", &diag, &policy);

	require(rc == 0 || rc == -EUCLEAN);
	require(diag.err == rc && !diag.text[0] == !rc);
	if (rc)
		return;
	inl_meta_describe_policy(policy, &info);
	require(info.n_protectors <= INL_PROTECTORS_MAX && (info.policy.flags & ~INL_POLICY_FLAGS_PAD_MASK) == 0);
	for (unsigned i = 0; i < info.n_protectors; i++)
		require(inl_meta_is_id(info.protectors[i], INL_PROTECTOR_ID_SIZE - 1));
	inl_meta_policy_free(policy);
}

static void check_code(const uint8_t *data, size_t size)
{
	char code[INL_CODE_SIZE], again[INL_CODE_SIZE];
	struct inl_diag diag = { 0 };
	int rc = inl_code_parse((const char *)data, size, &diag, code);

	require(rc == 0 || rc == -EINVAL);
	require(diag.err == rc);
	if (!rc) {
		require(strlen(code) == INL_CODE_SIZE - 1);
		require(inl_code_parse(code, INL_CODE_SIZE - 1, NULL, again) == 0 && !strcmp(code, again));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > INL_META_MAX)
		return 0;
	if (data[0] % 3 == 0)
		check_protector(data + 1, size - 1);
	else if (data[0] % 3 == 1)
		check_policy(data + 1, size - 1);
	else
		check_code(data + 1, size - 1);
	return 0;
}
