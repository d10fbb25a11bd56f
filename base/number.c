/*
 * base/number.c: numbers and sizes as people write them.
 * Not here: where they stand (SPECs: drivers/spec.c; rules of faults: drivers/faults.c; options: the command).
 * Read more: inlay/base.h.
 */
#include <errno.h>
#include <inlay/base.h>
#include <string.h>

/* The digits at the start. Returns how many; *err: 0 or -ERANGE. */
static size_t take_digits(const char *text, size_t len, uint64_t *out, int *err)
{
	uint64_t value = 0;
	size_t i = 0;

	*err = 0;
	for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			*err = -ERANGE;
	}
	*out = value;
	return i;
}

int inl_number_parse(const char *text, size_t len, uint64_t *out)
{
	uint64_t value;
	int err;

	if (!len || take_digits(text, len, &value, &err) != len)
		return -EINVAL;
	if (!err)
		*out = value;
	return err;
}

int inl_size_parse(const char *text, size_t len, uint64_t *out)
{
	static const char prefixes[] = "KMGT";
	const char *prefix;
	uint64_t value;
	int err;
	size_t i = take_digits(text, len, &value, &err);

	if (!i)
		return -EINVAL;
	if (err)
		return err;
	prefix = i < len ? memchr(prefixes, text[i], sizeof(prefixes) - 1) : NULL;
	if (prefix) {
		if (__builtin_mul_overflow(value, UINT64_C(1) << (10 * (prefix - prefixes + 1)), &value))
			return -ERANGE;
		i++;
		if (len - i == 2 && text[i] == 'i')
			i++;
	}
	if (i < len && text[i] == 'B')
		i++;
	if (i != len)
		return -EINVAL;
	*out = value;
	return 0;
}
