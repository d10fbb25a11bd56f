/*
 * drivers/spec.c: the SPEC language: from bytes to a tree, and from a tree to open devices.
 * Not here: which drivers there are and what they take (drivers/table.c).
 * Read more: doc/inlay.1, "DEVICES".
 *
 *	spec   = call | path                    a top-level path is taken whole, a nested one ends at ',' or ')'
 *	call   = NAME "(" [ arg { "," arg } ] ")"
 *	arg    = spec | value | OPTION [ "=" value ]	by position first, then options
 *	value  = bare | quoted                  bare: anything but , ( ) and double quotes
 *	quoted = '"' { any | '\"' | '\\' } '"'
 *
 * White space around arguments, names and '=' is ignored, within a bare value it is kept. The last argument by position
 * may be a repeated one: then what begins with the name of an option and '=' ends the repetition, and among devices so
 * does any name and '=', lest a misspelt option become a path. Quotes make it a value again.
 */
#include "drivers/drivers.h"
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct parser {
	const char *text;
	size_t len;
	size_t at;
	unsigned depth;
	struct inl_diag *diag;
};

static const char *const kind_wanted[] = {
	[INL_PARAM_SPEC] = "a device: a path or NAME(...)",
	[INL_PARAM_PATH] = "a path",
	[INL_PARAM_TEXT] = "a value",
	[INL_PARAM_NUMBER] = "a number",
	[INL_PARAM_SIZE] = "a size such as 512, 64K or 1MiB",
	[INL_PARAM_SWITCH] = "on or off",
};

int inl_spec_error(struct inl_diag *diag, int err, unsigned column, const char *fmt, ...)
{
	char text[sizeof(diag->text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return inl_diag_set(diag, err, "SPEC, column %u: %s", column, text);
}

/* Characters, not bytes: the continuation bytes of UTF-8 do not count. */
static unsigned column_of(const struct parser *p, size_t at)
{
	unsigned column = 1;

	for (size_t i = 0; i < at; i++)
		column += ((unsigned char)p->text[i] & 0xc0) != 0x80;
	return column;
}

static int no_memory(const struct parser *p)
{
	return inl_diag_set(p->diag, -ENOMEM, "out of memory");
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The next byte, -1 at the end. */
static int peek(const struct parser *p)
{
	return p->at < p->len ? (unsigned char)p->text[p->at] : -1;
}

static bool is_space(int c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_name_byte(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static void skip_space(struct parser *p)
{
	while (is_space(peek(p)))
		p->at++;
}

/* How long the name at the current place is. */
static size_t name_len(const struct parser *p)
{
	size_t len = 0;

	while (p->at + len < p->len && is_name_byte((unsigned char)p->text[p->at + len]))
		len++;
	return len;
}

/* Length of the name of a call NAME( at the current place, else 0. */
static size_t call_len(const struct parser *p)
{
	size_t len = name_len(p);

	return p->at + len < p->len && p->text[p->at + len] == '(' ? len : 0;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static int parse_quoted(struct parser *p, char **out)
{
	size_t start = p->at++, n = 0;
	char *text = malloc(p->len - start);

	if (!text)
		return no_memory(p);
	while (p->at < p->len && p->text[p->at] != '"') {
		if (p->text[p->at] == '\\') {
			p->at++;
			if (peek(p) != '"' && peek(p) != '\\') {
				free(text);
				return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at),
						      "expected '\"' or '\\' after '\\'");
			}
		}
		text[n++] = p->text[p->at++];
	}
	text[n] = '\0';
	if (p->at == p->len) {
		free(text);
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at),
				      "expected '\"': quotes opened in column %u", column_of(p, start));
	}
	p->at++;
	*out = text;
	return 0;
}

static int parse_bare(struct parser *p, char **out)
{
	size_t start = p->at, end;

	while (p->at < p->len && !memchr(",()\"", p->text[p->at], 4))
		p->at++;
	if (peek(p) == '(' || peek(p) == '"')
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at),
				      "'%c' within a value: put the value in double quotes", peek(p));
	for (end = p->at; end > start && is_space((unsigned char)p->text[end - 1]); end--)
		;
	*out = strndup(p->text + start, end - start);
	return *out ? 0 : no_memory(p);
}

/* A text that is not empty. */
static int parse_text(struct parser *p, enum inl_param_kind kind, struct inl_arg *arg)
{
	int err = peek(p) == '"' ? parse_quoted(p, &arg->text) : parse_bare(p, &arg->text);

	if (!err && !arg->text[0])
		err = inl_spec_error(p->diag, -EINVAL, arg->column, "expected %s", kind_wanted[kind]);
	return err;
}

static int parse_switch(const char *text, uint64_t *out)
{
	if (strcmp(text, "on") && strcmp(text, "off"))
		return -EINVAL;
	*out = !strcmp(text, "on");
	return 0;
}

static int convert(struct parser *p, enum inl_param_kind kind, struct inl_arg *arg)
{
	int err;

	if (kind == INL_PARAM_NUMBER)
		err = inl_number_parse(arg->text, strlen(arg->text), &arg->number);
	else if (kind == INL_PARAM_SIZE)
		err = inl_size_parse(arg->text, strlen(arg->text), &arg->number);
	else if (kind == INL_PARAM_SWITCH)
		err = parse_switch(arg->text, &arg->number);
	else
		return 0;
	if (err == -ERANGE)
		return inl_spec_error(p->diag, -EINVAL, arg->column, "number too large (64 bits at most)");
	if (err)
		return inl_spec_error(p->diag, -EINVAL, arg->column, "expected %s", kind_wanted[kind]);
	return 0;
}

static int parse_nested(struct parser *p, struct inl_spec **out);

static int parse_value(struct parser *p, enum inl_param_kind kind, struct inl_arg *arg)
{
	int err;

	arg->given = true;
	arg->column = column_of(p, p->at);
	if (kind == INL_PARAM_SPEC)
		return parse_nested(p, &arg->spec);
	err = parse_text(p, kind, arg);
	return err ? err : convert(p, kind, arg);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static struct inl_spec *spec_new(const struct parser *p, const struct inl_driver *driver)
{
	struct inl_spec *spec = calloc(1, sizeof(*spec));

	if (spec) {
		spec->driver = driver;
		spec->column = column_of(p, p->at);
	}
	return spec;
}

static void arg_done(struct inl_arg *arg)
{
	struct inl_arg *next = arg->next, *after;

	free(arg->text);
	inl_spec_free(arg->spec);
	for (; next; next = after) {
		after = next->next;
		free(next->text);
		inl_spec_free(next->spec);
		free(next);
	}
}

void inl_spec_free(struct inl_spec *spec)
{
	if (!spec)
		return;
	for (unsigned i = 0; i < INL_PARAMS_MAX; i++)
		arg_done(&spec->args[i]);
	for (unsigned i = 0; i < INL_COMMON_MAX; i++)
		arg_done(&spec->common[i]);
	free(spec);
}

/* The first positional parameter that takes one more argument, or NULL. */
static const struct inl_param *next_positional(const struct inl_spec *spec)
{
	const struct inl_param *params = spec->driver->params;

	for (unsigned i = 0; params[i].name && !params[i].option; i++) {
		if (!spec->args[i].given || params[i].many)
			return &params[i];
	}
	return NULL;
}

/* Is it wrong to go on without an argument of this parameter? */
static bool is_missing(const struct inl_spec *spec, const struct inl_param *param)
{
	return !spec->args[param - spec->driver->params].given && !param->may_lack;
}

static const struct inl_param *find_in(const struct inl_param *params, const char *name, size_t len)
{
	for (const struct inl_param *param = params; param->name; param++) {
		if (param->option && strlen(param->name) == len && !memcmp(param->name, name, len))
			return param;
	}
	return NULL;
}

/* The option of this name, of the driver or of all, and where its argument goes; or NULL. */
static const struct inl_param *find_option(struct inl_spec *spec, const char *name, size_t len, struct inl_arg **arg)
{
	const struct inl_param *param = find_in(spec->driver->params, name, len);

	if (param) {
		*arg = &spec->args[param - spec->driver->params];
		return param;
	}
	param = find_in(inl_common_params, name, len);
	if (param)
		*arg = &spec->common[param - inl_common_params];
	return param;
}

/* Length of the NAME if NAME= stands at the current place, else 0. */
static size_t assignment_len(const struct parser *p)
{
	struct parser ahead = *p;
	size_t len = name_len(p);

	ahead.at += len;
	skip_space(&ahead);
	return peek(&ahead) == '=' ? len : 0;
}

/* Does OPTION= stand at the current place? */
static bool at_option(const struct parser *p, struct inl_spec *spec)
{
	size_t len = assignment_len(p);
	struct inl_arg *arg;

	return len && find_option(spec, p->text + p->at, len, &arg);
}

/* Does the repetition of this parameter end at the current place? */
static bool at_end_of_many(const struct parser *p, struct inl_spec *spec, const struct inl_param *param)
{
	return param->kind == INL_PARAM_SPEC ? assignment_len(p) != 0 : at_option(p, spec);
}

static int parse_option(struct parser *p, struct inl_spec *spec)
{
	const struct inl_driver *driver = spec->driver;
	const char *name = p->text + p->at;
	size_t len = name_len(p);
	struct inl_arg *arg = NULL;
	const struct inl_param *param = find_option(spec, name, len, &arg);
	unsigned column = column_of(p, p->at);

	if (!len)
		return inl_spec_error(p->diag, -EINVAL, column, "expected an option: %s", driver->info.usage);
	if (!param)
		return inl_spec_error(p->diag, -EINVAL, column, "unknown option '%.*s': %s", len < 32 ? (int)len : 32,
				      name, driver->info.usage);
	if (arg->given)
		return inl_spec_error(p->diag, -EINVAL, column, "option '%s' given twice", param->name);
	p->at += len;
	skip_space(p);
	if (param->kind == INL_PARAM_FLAG) {
		arg->given = true;
		arg->column = column;
		return 0;
	}
	if (peek(p) != '=')
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected '=' and %s after '%s'",
				      kind_wanted[param->kind], param->name);
	p->at++;
	skip_space(p);
	return parse_value(p, param->kind, arg);
}

/* The argument of a positional parameter, or one more of them. */
static int parse_positional(struct parser *p, struct inl_spec *spec, const struct inl_param *param)
{
	struct inl_arg *arg = &spec->args[param - spec->driver->params];
	unsigned n = 1;

	if (!arg->given)
		return parse_value(p, param->kind, arg);
	for (; arg->next; arg = arg->next)
		n++;
	if (++n > INL_REPEATS_MAX)
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "more than %d of them: %s", INL_REPEATS_MAX,
				      spec->driver->info.usage);
	arg->next = calloc(1, sizeof(*arg));
	return arg->next ? parse_value(p, param->kind, arg->next) : no_memory(p);
}

/* in_options: an option was there, what follows can only be options. */
static int parse_arg(struct parser *p, struct inl_spec *spec, bool *in_options)
{
	const struct inl_param *param = *in_options ? NULL : next_positional(spec);

	if (param && is_missing(spec, param)) {
		if (at_option(p, spec))
			return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected %s before the options: %s",
					      kind_wanted[param->kind], spec->driver->info.usage);
		return parse_positional(p, spec, param);
	}
	if (param && !at_end_of_many(p, spec, param))
		return parse_positional(p, spec, param);
	*in_options = true;
	return parse_option(p, spec);
}

/* From behind '(' to behind ')'. */
static int parse_args(struct parser *p, struct inl_spec *spec)
{
	const struct inl_param *missing;
	bool in_options = false;
	int err;

	skip_space(p);
	while (peek(p) != ')') {
		err = parse_arg(p, spec, &in_options);
		if (err)
			return err;
		skip_space(p);
		if (peek(p) == ')')
			break;
		if (peek(p) != ',')
			return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected ',' or ')'");
		p->at++;
		skip_space(p);
		if (peek(p) == ')')
			return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected an argument after ','");
	}
	missing = next_positional(spec);
	if (missing && is_missing(spec, missing))
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected %s: %s",
				      kind_wanted[missing->kind], spec->driver->info.usage);
	p->at++;
	return 0;
}

static int parse_call(struct parser *p, size_t len, struct inl_spec **out)
{
	const struct inl_driver *driver = inl_driver_find(p->text + p->at, len);
	char known[128];
	int err;

	if (!driver)
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "unknown driver '%.*s' (known: %s)",
				      len < 32 ? (int)len : 32, p->text + p->at,
				      inl_driver_names(known, sizeof(known)));
	*out = spec_new(p, driver);
	if (!*out)
		return no_memory(p);
	p->at += len + 1;
	err = parse_args(p, *out);
	return err;
}

/* ---- specs ------------------------------------------------------------------------------------------------------- */

static int parse_nested_path(struct parser *p, struct inl_spec **out)
{
	*out = spec_new(p, inl_driver_default());
	if (!*out)
		return no_memory(p);
	(*out)->args[0].given = true;
	(*out)->args[0].column = (*out)->column;
	return parse_text(p, INL_PARAM_SPEC, &(*out)->args[0]);
}

static int parse_nested(struct parser *p, struct inl_spec **out)
{
	size_t len = call_len(p);
	int err;

	if (p->depth == INL_SPEC_DEPTH_MAX)
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "more than %d devices deep",
				      INL_SPEC_DEPTH_MAX);
	p->depth++;
	err = len ? parse_call(p, len, out) : parse_nested_path(p, out);
	p->depth--;
	return err;
}

static int parse_whole_path(struct parser *p, struct inl_spec **out)
{
	struct inl_spec *spec = spec_new(p, inl_driver_default());

	*out = spec;
	if (!spec)
		return no_memory(p);
	spec->args[0].given = true;
	spec->args[0].column = 1;
	spec->args[0].text = strndup(p->text, p->len);
	return spec->args[0].text ? 0 : no_memory(p);
}

static int parse_root(struct parser *p, struct inl_spec **out)
{
	size_t len = call_len(p);
	int err;

	if (!len || !inl_driver_find(p->text, len))
		return parse_whole_path(p, out);
	p->depth = 1;
	err = parse_call(p, len, out);
	if (err)
		return err;
	skip_space(p);
	if (p->at != p->len)
		return inl_spec_error(p->diag, -EINVAL, column_of(p, p->at), "expected nothing more after ')'");
	return 0;
}

int inl_spec_parse(const char *text, size_t len, struct inl_diag *diag, struct inl_spec **out)
{
	struct parser p = { .text = text, .len = len, .diag = diag };
	struct inl_spec *spec = NULL;
	const char *nul;
	int err;

	if (!len)
		return inl_spec_error(diag, -EINVAL, 1, "expected %s", kind_wanted[INL_PARAM_SPEC]);
	if (len > INL_SPEC_LEN_MAX)
		return inl_spec_error(diag, -EINVAL, 1, "longer than %d bytes", INL_SPEC_LEN_MAX);
	nul = memchr(text, '\0', len);
	if (nul)
		return inl_spec_error(diag, -EINVAL, column_of(&p, (size_t)(nul - text)), "expected no NUL byte");
	err = parse_root(&p, &spec);
	if (err) {
		inl_spec_free(spec);
		return err;
	}
	*out = spec;
	return 0;
}

/* ---- from the tree to devices ------------------------------------------------------------------------------------ */

static const struct inl_arg *find_arg(const struct inl_param *params, const struct inl_arg *args, const char *name)
{
	for (unsigned i = 0; params[i].name; i++) {
		if (!strcmp(params[i].name, name))
			return &args[i];
	}
	return NULL;
}

const struct inl_arg *inl_spec_arg(const struct inl_spec *spec, const char *name)
{
	const struct inl_arg *arg = find_arg(spec->driver->params, spec->args, name);

	if (!arg)
		arg = find_arg(inl_common_params, spec->common, name);
	assert(arg);
	return arg->given ? arg : NULL;
}

uint64_t inl_spec_number(const struct inl_spec *spec, const char *name, uint64_t def)
{
	const struct inl_arg *arg = inl_spec_arg(spec, name);

	return arg ? arg->number : def;
}

static int set_fallback(struct inl_dev *dev, const struct inl_arg *arg, struct inl_diag *diag)
{
	if (arg->number && !inl_dev_fallback(dev))
		return inl_spec_error(diag, -EINVAL, arg->column, "a device below has fallback=off");
	inl_dev_set_fallback(dev, arg->number);
	return 0;
}

static int set_bounce(struct inl_dev *dev, const struct inl_arg *arg, struct inl_diag *diag)
{
	int err = arg->number > SIZE_MAX ? -EINVAL : inl_dev_set_bounce(dev, (size_t)arg->number);

	if (err == -EINVAL)
		return inl_spec_error(diag, err, arg->column, "bounce memory of %llu bytes: expected 64K to 1G",
				      (unsigned long long)arg->number);
	if (err)
		return inl_spec_error(diag, err, arg->column, "no memory for %llu bytes of bounce memory",
				      (unsigned long long)arg->number);
	return 0;
}

/* The options that every device takes. */
static int set_common(struct inl_dev *dev, const struct inl_spec *spec, struct inl_diag *diag)
{
	const struct inl_arg *fallback = inl_spec_arg(spec, "fallback"), *bounce = inl_spec_arg(spec, "bounce");
	int err = 0;

	if (fallback)
		err = set_fallback(dev, fallback, diag);
	if (!err && bounce)
		err = set_bounce(dev, bounce, diag);
	return err;
}

int inl_spec_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev *dev;
	int err = spec->driver->open(spec, flags, diag, &dev);

	if (err)
		return err;
	err = set_common(dev, spec, diag);
	if (err) {
		inl_dev_close(dev);
		return err;
	}
	*out = dev;
	return 0;
}

int inl_spec_open_child(const struct inl_spec *spec, const char *name, unsigned flags, struct inl_diag *diag,
			struct inl_dev **out)
{
	return inl_spec_open(inl_spec_arg(spec, name)->spec, flags, diag, out);
}

void inl_close_children(struct inl_dev *const *children, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		inl_dev_close(children[i]);
}

int inl_spec_open_children(const struct inl_spec *spec, const char *name, unsigned flags, struct inl_diag *diag,
			   struct inl_dev **out, unsigned *n_out)
{
	unsigned n = 0;
	int err;

	_Static_assert(INL_REPEATS_MAX <= INL_DEV_MAX_CHILDREN, "every device of a SPEC has room");
	for (const struct inl_arg *arg = inl_spec_arg(spec, name); arg; arg = arg->next) {
		err = inl_spec_open(arg->spec, flags, diag, &out[n]);
		if (err) {
			inl_close_children(out, n);
			return err;
		}
		n++;
	}
	*n_out = n;
	return 0;
}

/* A path that does not exist and looks like a call was most likely meant as one. */
static int check_misspelt(const char *text, struct inl_diag *diag)
{
	struct parser p = { .text = text, .len = strlen(text) };
	size_t len = call_len(&p);
	char known[128];

	if (!len || inl_driver_find(text, len) || !access(text, F_OK))
		return 0;
	return inl_spec_error(diag, -EINVAL, 1, "unknown driver '%.*s' (known: %s), and no file of this name",
			      len < 32 ? (int)len : 32, text, inl_driver_names(known, sizeof(known)));
}

int inl_dev_open(const char *text, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_spec *spec;
	int err;

	if (flags & ~(unsigned)(INL_OPEN_WRITE | INL_OPEN_NO_FALLBACK))
		return inl_diag_set(diag, -EINVAL, "unknown flags 0x%x", flags);
	err = inl_spec_parse(text, strlen(text), diag, &spec);
	if (err)
		return err;
	err = check_misspelt(text, diag);
	if (!err)
		err = inl_spec_open(spec, flags & INL_OPEN_WRITE, diag, out);
	if (!err && flags & INL_OPEN_NO_FALLBACK)
		inl_dev_set_fallback(*out, false);
	inl_spec_free(spec);
	return err;
}
