/*
 * cli/value.c: values of options: numbers, sizes, words.
 * Not here: which options there are (cli/main.c).
 * Read more: cli/cli.h.
 */
#include "cli/cli.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int refuse_range(const struct inl_cli *cli, enum inl_opt opt, const char *text, const char *what, uint64_t min,
			uint64_t max)
{
	char name[32];

	return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name(opt, name),
			    "'%s': expected %s from %" PRIu64 " to %" PRIu64, text, what, min, max);
}

int inl_cli_number(const struct inl_cli *cli, enum inl_opt opt, uint64_t min, uint64_t max, uint64_t *out)
{
	const char *text = cli->values[opt];
	uint64_t value;

	if (!text)
		return 0;
	if (inl_number_parse(text, strlen(text), &value) || value < min || value > max)
		return refuse_range(cli, opt, text, "a number", min, max);
	*out = value;
	return 0;
}

static int size_of(const struct inl_cli *cli, enum inl_opt opt, const char *text, uint64_t min, uint64_t max,
		   uint64_t *out)
{
	uint64_t value;

	if (inl_size_parse(text, strlen(text), &value) || value < min || value > max)
		return refuse_range(cli, opt, text, "a size", min, max);
	*out = value;
	return 0;
}

int inl_cli_size(const struct inl_cli *cli, enum inl_opt opt, uint64_t min, uint64_t max, uint64_t *out)
{
	return cli->values[opt] ? size_of(cli, opt, cli->values[opt], min, max, out) : 0;
}

int inl_cli_units(const struct inl_cli *cli, uint64_t min, uint64_t max, uint64_t out[INL_UNITS_MAX], unsigned *n)
{
	int code = 0;

	for (unsigned i = 0; i < cli->n_units && !code; i++)
		code = size_of(cli, INL_OPT_UNIT, cli->units[i], min, max, &out[i]);
	if (cli->n_units)
		*n = cli->n_units;
	return code;
}

int inl_cli_real(const struct inl_cli *cli, enum inl_opt opt, double min, double max, double *out)
{
	const char *text = cli->values[opt];
	char name[32], *end;
	double value;

	if (!text)
		return 0;
	value = strtod(text, &end);
	/* No sign, no "inf", no "0x": what strtod takes and people do not write. */
	if (text[strspn(text, "0123456789.")] || end == text || *end || !isfinite(value) || value < min || value > max)
		return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name(opt, name),
				    "'%s': expected a number from %g to %g", text, min, max);
	*out = value;
	return 0;
}

int inl_cli_word(const struct inl_cli *cli, enum inl_opt opt, const char *const *words, unsigned *out)
{
	const char *text = cli->values[opt];
	char name[32], known[256] = "";
	size_t used = 0;

	if (!text)
		return 0;
	for (unsigned i = 0; words[i]; i++) {
		if (!strcmp(words[i], text)) {
			*out = i;
			return 0;
		}
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
						 !i ? "" : words[i + 1] ? ", " : " or ", words[i]);
	}
	return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name(opt, name), "'%s': expected %s", text, known);
}
