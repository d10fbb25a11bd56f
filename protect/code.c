/*
 * protect/code.c: recovery codes: random symbols in groups that check themselves.
 * Not here: protectors that are opened by one (open.c, protectors.c).
 * Read more: Douglas Crockford, "Base 32", whose symbols these are; I. S. Reed, G. Solomon, "Polynomial codes over
 * certain finite fields".
 *
 * A group has four symbols of five bits and two that check them: a Reed-Solomon code over GF(32), to which the number
 * of the group is added. So up to two wrong symbols in a group are always found, two that changed places, and two
 * groups that changed places; anything else with odds of 1023 to 1024, but symbols that were moved round with 31 to 32.
 */
#include "protect/private.h"
#include <errno.h>
#include <string.h>

#define DATA (INL_CODE_GROUP - 2)

static const char symbols[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* In GF(32) modulo x^5 + x^2 + 1. No branch and no table for what is secret. */
static unsigned times(unsigned a, unsigned b)
{
	unsigned product = 0;

	for (unsigned bit = 0; bit < 5; bit++)
		product ^= (0u - (b >> bit & 1)) & (a << bit);
	for (unsigned bit = 9; bit >= 5; bit--)
		product ^= (0u - (product >> bit & 1)) & (0x25u << (bit - 5));
	return product;
}

/* The remainder of the group, as a polynomial, modulo (x - 1)(x - 2): x^2 + 3x + 2. */
static void check_symbols(const uint8_t data[DATA], unsigned group, uint8_t check[2])
{
	unsigned high = 0, low = 0;

	for (unsigned i = 0; i < DATA; i++) {
		unsigned top = high ^ data[i];

		high = low ^ times(top, 3);
		low = times(top, 2);
	}
	check[0] = (uint8_t)(high ^ (group + 1));
	check[1] = (uint8_t)(low ^ times(group + 1, 5));
}

/* The symbol of a value, looked up by looking at all of them. */
static char symbol_of(unsigned value)
{
	unsigned symbol = 0;

	for (unsigned i = 0; i < 32; i++)
		symbol |= (unsigned char)symbols[i] & (0u - (unsigned)(((i ^ value) - 1) >> 31));
	return (char)symbol;
}

static int value_of(char c)
{
	int value = -1;

	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	c = (char)(c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c);
	for (int i = 0; i < 32; i++) {
		if (symbols[i] == c)
			value = i;
	}
	return value;
}

static void write_group(const uint8_t data[DATA], unsigned group, char *out)
{
	uint8_t check[2];

	check_symbols(data, group, check);
	for (unsigned i = 0; i < INL_CODE_GROUP; i++)
		out[i] = symbol_of(i < DATA ? data[i] : check[i - DATA]);
	out[INL_CODE_GROUP] = group + 1 < INL_CODE_GROUPS ? '-' : '\0';
	inl_wipe(check, sizeof(check));
}

void inl_code_make(const uint8_t random[INL_CODE_RANDOM], char code[INL_CODE_SIZE])
{
	uint8_t data[DATA];

	for (unsigned group = 0; group < INL_CODE_GROUPS; group++) {
		for (unsigned i = 0; i < DATA; i++)
			data[i] = random[group * DATA + i] & 31;
		write_group(data, group, code + group * (INL_CODE_GROUP + 1));
	}
	inl_wipe(data, sizeof(data));
}

static int check_group(const uint8_t data[INL_CODE_GROUP], unsigned group, struct inl_diag *diag)
{
	uint8_t check[2];

	check_symbols(data, group, check);
	if (check[0] != data[DATA] || check[1] != data[DATA + 1])
		return inl_diag_set(diag, -EINVAL, "group %u of the recovery code is mistyped", group + 1);
	return 0;
}

static bool divides(char c)
{
	return c == '-' || c == ' ' || c == '\t';
}

bool inl_code_has_shape(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (divides(text[i]))
			continue;
		if (value_of(text[i]) < 0)
			return false;
		n++;
	}
	return n == INL_CODE_GROUPS * INL_CODE_GROUP;
}

int inl_code_parse(const char *text, size_t len, struct inl_diag *diag, char code[INL_CODE_SIZE])
{
	uint8_t data[INL_CODE_GROUP] = { 0 };
	unsigned n = 0;
	int err = 0;

	for (size_t i = 0; i < len && !err; i++) {
		int value = value_of(text[i]);

		if (divides(text[i]))
			continue;
		if (n == INL_CODE_GROUPS * INL_CODE_GROUP || value < 0) {
			err = value < 0 ? inl_diag_set(diag, -EINVAL,
						       "group %u of the recovery code has a sign that no code has",
						       n / INL_CODE_GROUP + 1)
					: inl_diag_set(diag, -EINVAL,
						       "a recovery code has %d groups of %d signs, not more",
						       INL_CODE_GROUPS, INL_CODE_GROUP);
			break;
		}
		data[n++ % INL_CODE_GROUP] = (uint8_t)value;
		if (n % INL_CODE_GROUP == 0) {
			unsigned group = n / INL_CODE_GROUP - 1;

			err = check_group(data, group, diag);
			write_group(data, group, code + group * (INL_CODE_GROUP + 1));
		}
	}
	if (!err && n < INL_CODE_GROUPS * INL_CODE_GROUP)
		err = inl_diag_set(diag, -EINVAL, "a recovery code has %d groups of %d signs; here are %u signs",
				   INL_CODE_GROUPS, INL_CODE_GROUP, n);
	inl_wipe(data, sizeof(data));
	return err;
}
