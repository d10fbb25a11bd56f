/*
 * fuzz/fuzz_xattr.c: libFuzzer target: an area of extended attributes, and POSIX ACLs, from any bytes.
 * Not here: where areas lie (fuzz_image.c).
 * Read more: HACKING.md, "Fuzzing". Input: the offset of the first entry (0 or 32), then the area.
 */
#include "ext4/xattr.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int touch(const struct inl_raw_xattr *xattr, void *arg)
{
	unsigned *sum = arg;

	for (unsigned i = 0; i < xattr->name_len; i++)
		*sum += (uint8_t)xattr->name[i];
	for (unsigned i = 0; xattr->value && i < xattr->size; i++)
		*sum += xattr->value[i];
	return 0;
}

/* What is an ACL comes back as it was, but for the numbers of entries that have none. */
static void there_and_back(const uint8_t *value, size_t len, uint8_t *out)
{
	struct inl_acl acl;
	int back;

	if (inl_acl_parse(value, len, out, &acl))
		return;
	back = inl_acl_convert(out, acl.len, out + len);
	if (acl.len > len || back != (int)len || memcmp(out + len + 4, value + 4, len > 4 ? 4 : 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned sum = 0;
	uint8_t *out;
	int len;

	if (size < 1)
		return 0;
	inl_xattr_area_walk(data + 1, size - 1, data[0] & 1 ? 32 : 0, touch, &sum);
	out = malloc(4 * size + 4);
	len = out ? inl_acl_convert(data + 1, size - 1, out) : 0;
	if (len > 0 && (size_t)len > 2 * (size - 1) + 4)
		abort();
	if (out)
		there_and_back(data + 1, size - 1, out);
	free(out);
	return sum == 0xdeadbeef;
}
