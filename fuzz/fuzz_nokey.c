/*
 * fuzz/fuzz_nokey.c: no-key names: any characters decoded, any stored name encoded and found again.
 * Not here: real names, which need a key (tests/unit/test_fscrypt.c).
 * Read more: fscrypt/nokey.c.
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

/* A name that decodes is the only one for what it decodes to. */
static void check_decode(const char *name, size_t len)
{
	char again[INL_NOKEY_NAME_MAX];
	struct inl_nokey nokey;
	size_t again_len;
	int rc = inl_nokey_decode(name, len, &nokey);

	require(rc == 0 || rc == -ENOENT);
	if (rc)
		return;
	require(nokey.len >= 1 && nokey.len <= sizeof(nokey.bytes));
	require(inl_nokey_match(&nokey, nokey.bytes, nokey.len) == !nokey.truncated);
	if (nokey.truncated || nokey.len < INL_FNAME_MIN)
		return;
	require(inl_nokey_encode(nokey.hash, nokey.minor, nokey.bytes, nokey.len, again, &again_len) == 0);
	require(again_len == len && memcmp(again, name, len) == 0);
}

static void check_encode(const uint8_t *stored, size_t len)
{
	char name[INL_NOKEY_NAME_MAX];
	struct inl_nokey nokey;
	size_t name_len;
	int rc = inl_nokey_encode(len, ~len, stored, len, name, &name_len);

	require(rc == (len < INL_FNAME_MIN ? -EUCLEAN : 0));
	if (rc)
		return;
	require(name_len <= sizeof(name) && inl_nokey_decode(name, name_len, &nokey) == 0);
	require(nokey.hash == (uint32_t)len && nokey.minor == (uint32_t)~len);
	require(inl_nokey_match(&nokey, stored, len) && !inl_nokey_match(&nokey, stored, len - 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_decode((const char *)data, size);
	check_encode(data, size);
	return 0;
}
