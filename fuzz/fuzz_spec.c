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

static void print_arg(FILE *out, const struct inl_param *param, const struct inl_arg *arg, unsigned depth)
{
	CHECK(arg->column >= 1);
	CHECK((param->kind == INL_PARAM_SPEC) == (arg->spec != NULL));
	if (param->option)
		fprintf(out, "%s%s", param->name, param->kind == INL_PARAM_FLAG ? "" : "=");
	if (param->kind == INL_PARAM_SPEC)
		print_spec(out, arg->spec, depth + 1);
	else if (param->kind == INL_PARAM_SIZE || param->kind == INL_PARAM_NUMBER)
		fprintf(out, "%llu", (unsigned long long)arg->number);
	else if (param->kind != INL_PARAM_FLAG)
		print_quoted(out, arg->text);
}

static void print_spec(FILE *out, const struct inl_spec *spec, unsigned depth)
{
	const struct inl_param *params = spec->driver->params;

	CHECK(depth <= INL_SPEC_DEPTH_MAX);
	fprintf(out, "%s(", spec->driver->info.name);
	for (unsigned i = 0; params[i].name; i++) {
		CHECK(spec->args[i].given || params[i].option);
		if (!spec->args[i].given)
			continue;
		if (i)
			fputc(',', out);
		print_arg(out, &params[i], &spec->args[i], depth);
	}
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
