/*
 * fuzz/fuzz_xattr.c: libFuzzer target: an area of extended attributes, and POSIX ACLs, from any bytes.
 * Not here: where areas lie (fuzz_image.c).
 * Read more: HACKING.md, "Fuzzing". Input: the offset of the first entry (0 or 32), then the area.
 */
#include "ext4/own.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned sum = 0;
	uint8_t *out;
	int len;

	if (size < 1)
		return 0;
	inl_xattr_area_walk(data + 1, size - 1, data[0] & 1 ? 32 : 0, touch, &sum);
	out = malloc(2 * size + 4);
	len = out ? inl_acl_convert(data + 1, size - 1, out) : 0;
	if (len > 0 && (size_t)len > 2 * (size - 1) + 4)
		abort();
	free(out);
	return sum == 0xdeadbeef;
}
