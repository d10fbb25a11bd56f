/*
 * fuzz/fuzz_context.c: encryption contexts: parse, check the policy, start to use it.
 * Not here: names (fuzz_nokey.c), symlink targets (fuzz_symlink.c).
 * Read more: fscrypt/policy.c.
 *
 * Input: a byte of traits, the context.
 */
#include "fscrypt/info.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what)
{
	if (!what)
		abort();
}

static void check_info(struct inl_fscrypt *fs, bool casefold, const uint8_t *context, size_t len, int want)
{
	struct inl_crypt_info *info;
	struct inl_diag diag = { 0 };
	uint64_t dun[4], n = 1;
	struct inl_crypt_ctx ctx;
	uint32_t unit;

	require(inl_crypt_info_new(fs, 12, INL_CRYPT_REG, casefold, context, len, &info) == 0);
	unit = inl_crypt_info_unit_size(info);
	require(unit >= 512 && unit <= 65536 && !(unit & (unit - 1)));
	inl_crypt_info_dun(info, 1, dun);
	/* Without a key ring the policy is refused, or its key is missing. */
	require(inl_crypt_info_unlock(info, &diag) == (want ? want : -ENOKEY));
	require(diag.err && diag.text[0]);
	require(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL) == diag.err);
	inl_crypt_info_free(info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inl_fscrypt_params params = { 0 };
	struct inl_policy policy;
	struct inl_diag diag = { 0 };
	struct inl_fscrypt *fs;
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	bool casefold;
	int rc;

	if (!size)
		return 0;
	params.traits.block_bits = 10 + (data[0] & 7) % 7;
	params.traits.lblk_bits = data[0] & 8 ? 32 : 29;
	params.traits.ino_bits = 32;
	params.traits.stable_inodes = data[0] & 16;
	casefold = data[0] & 32;
	rc = inl_policy_from_context(data + 1, size - 1, &policy, nonce);
	require(rc == 0 || rc == -EINVAL);
	if (rc)
		return 0;
	require(policy.version == data[1] && policy.key.version == data[1]);
	require(memcmp(nonce, data + size - sizeof(nonce), sizeof(nonce)) == 0);
	require(inl_policy_equal(&policy, &policy) && inl_policy_iv_method(&policy) &&
		inl_policy_padding(&policy) >= 4);
	rc = inl_policy_check(&policy, &params.traits, casefold, &diag);
	require(rc == 0 || (rc == -EINVAL && diag.err == rc && diag.text[0]));
	if (inl_fscrypt_new(&params, &fs) == 0) {
		check_info(fs, casefold, data + 1, size - 1, rc);
		inl_fscrypt_free(fs);
	}
	return 0;
}
