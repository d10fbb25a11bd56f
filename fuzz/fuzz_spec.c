/*
 * fuzz/fuzz_spec.c: fuzz target of the SPEC parser: any bytes give a well-formed tree or one error text.
 * Not here: opening what a SPEC names; nothing is opened for fuzzed text.
 * Read more: drivers/spec.c.
 *
 * A tree is printed in a canonical form, parsed again and printed again: both prints must be the same.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                 \
	do {                                                                        \
		if (!(cond)) {                                                      \
			fprintf(stderr, "line %d: %s is false\n", __LINE__, #cond); \
			abort();                                                    \
		}                                                                   \
	} while (0)

static void print_quoted(FILE *out, const char *text)
{
	CHECK(text && text[0]);
	fputc('"', out);
	for (; *text; text++)
		fprintf(out, "%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
	fputc('"', out);
}

static void print_spec(FILE *out, const struct inl_spec *spec, unsigned depth);

static void print_value(FILE *out, const struct inl_param *param, const struct inl_arg *arg, unsigned depth)
{
	CHECK(arg->given && arg->column >= 1);
	CHECK((param->kind == INL_PARAM_SPEC) == (arg->spec != NULL));
	CHECK((param->kind == INL_PARAM_SPEC || param->kind == INL_PARAM_FLAG) == (arg->text == NULL));
	CHECK(param->kind != INL_PARAM_SWITCH || arg->number == !strcmp(arg->text, "on"));
	if (param->option)
		fprintf(out, "%s%s", param->name, param->kind == INL_PARAM_FLAG ? "" : "=");
	if (param->kind == INL_PARAM_SPEC)
		print_spec(out, arg->spec, depth + 1);
	else if (param->kind == INL_PARAM_SIZE || param->kind == INL_PARAM_NUMBER)
		fprintf(out, "%llu", (unsigned long long)arg->number);
	else if (param->kind != INL_PARAM_FLAG)
		print_quoted(out, arg->text);
}

/* Every argument of these parameters, a comma before each but the very first. */
static void print_args(FILE *out, const struct inl_param *params, const struct inl_arg *args, bool *first, unsigned depth)
{
	for (unsigned i = 0; params[i].name; i++) {
		unsigned n = 0;

		CHECK(args[i].given || params[i].option || params[i].may_lack);
		for (const struct inl_arg *arg = &args[i]; arg && args[i].given; arg = arg->next, n++) {
			if (!*first)
				fputc(',', out);
			*first = false;
			print_value(out, &params[i], arg, depth);
		}
		CHECK(n <= (params[i].many ? INL_REPEATS_MAX : 1));
	}
}

static void print_spec(FILE *out, const struct inl_spec *spec, unsigned depth)
{
	bool first = true;

	CHECK(depth <= INL_SPEC_DEPTH_MAX);
	fprintf(out, "%s(", spec->driver->info.name);
	print_args(out, spec->driver->params, spec->args, &first, depth);
	print_args(out, inl_common_params, spec->common, &first, depth);
	fputc(')', out);
}

/* The canonical form; the caller frees it. */
static char *print(const struct inl_spec *spec)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	CHECK(out);
	print_spec(out, spec, 1);
	CHECK(!fclose(out));
	return text;
}

static void check_error(int err, const struct inl_diag *diag)
{
	CHECK(err == -EINVAL && diag->err == err);
	CHECK(!strncmp(diag->text, "SPEC, column ", 13));
	CHECK(!strpbrk(diag->text, "\n\r\t"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inl_diag diag = { 0 };
	struct inl_spec *spec, *again;
	char *first, *second;
	int err = inl_spec_parse((const char *)data, size, &diag, &spec);

	if (err) {
		check_error(err, &diag);
		return 0;
	}
	CHECK(!diag.err);
	first = print(spec);
	inl_spec_free(spec);
	/* Quotes make the text longer: the canonical form of a SPEC near the limit may be beyond it. */
	if (strlen(first) <= INL_SPEC_LEN_MAX) {
		CHECK(!inl_spec_parse(first, strlen(first), &diag, &again));
		second = print(again);
		CHECK(!strcmp(first, second));
		inl_spec_free(again);
		free(second);
	}
	free(first);
	return 0;
}
