/*
 * cli/xattr.c: `inlay xattr`.
 * Not here: attributes of what is copied (cli/meta.c, cli/fill.c).
 * Read more: doc/inlay.1; setfattr(1).
 */
#include "cli/change.h"
#include "cli/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 65536 /* bytes: no value is longer */

struct value {
	uint8_t *bytes;
	size_t len;
};

/* ---- values as text ---------------------------------------------------------------------------------------------- */

static bool parse_hex(const char *text, struct value *value)
{
	for (; *text; text += 2) {
		int high = inl_text_hex_digit((unsigned char)text[0]),
		    low = text[1] ? inl_text_hex_digit((unsigned char)text[1]) : -1;

		if (high < 0 || low < 0)
			return false;
		value->bytes[value->len++] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static int base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static bool parse_base64(const char *text, struct value *value)
{
	size_t len = strlen(text);
	uint32_t bits = 0;
	unsigned n = 0;

	if (len % 4)
		return false;
	while (len && n < 2 && text[len - 1] == '=')
		len--, n++;
	n = 0;
	for (size_t i = 0; i < len; i++) {
		int digit = base64_digit(text[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		n += 6;
		if (n < 8)
			continue;
		n -= 8;
		value->bytes[value->len++] = (uint8_t)(bits >> n);
	}
	return true;
}

/* Within quotes a backslash stands before a quote, itself, or three octal digits. */
static bool parse_quoted(const char *text, size_t len, struct value *value)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '\\') {
			value->bytes[value->len++] = (uint8_t)text[i];
		} else if (i + 1 < len && (text[i + 1] == '"' || text[i + 1] == '\\')) {
			value->bytes[value->len++] = (uint8_t)text[++i];
		} else if (i + 3 < len && strspn(text + i + 1, "01234567") >= 3) {
			char octal[] = { text[i + 1], text[i + 2], text[i + 3], '\0' };

			value->bytes[value->len++] = (uint8_t)strtoul(octal, NULL, 8);
			i += 3;
		} else {
			return false;
		}
	}
	return true;
}

static bool parse_value(const char *text, struct value *value)
{
	size_t len = strlen(text);

	value->bytes = inl_cli_alloc(len);
	value->len = 0;
	if (text[0] == '0' && (text[1] | 0x20) == 'x')
		return parse_hex(text + 2, value);
	if (text[0] == '0' && (text[1] | 0x20) == 's')
		return parse_base64(text + 2, value);
	if (len >= 2 && text[0] == '"' && text[len - 1] == '"')
		return parse_quoted(text + 1, len - 2, value);
	if (len)
		memcpy(value->bytes, text, len);
	value->len = len;
	return true;
}

/* Would it be the same value again, given as plain text? */
static bool is_text(const struct value *value)
{
	const char *text = (const char *)value->bytes;

	for (size_t i = 0; i < value->len; i++) {
		if (value->bytes[i] < 0x20 || value->bytes[i] == 0x7f)
			return false;
	}
	if (value->len && text[0] == '"')
		return false;
	if (value->len >= 2 && text[0] == '0' && strchr("xXsS", text[1]))
		return false;
	return inl_text_is_utf8(text, value->len);
}

static void print_value(const struct value *value)
{
	if (is_text(value)) {
		inl_text_name((const char *)value->bytes, value->len);
	} else {
		char *hex = inl_cli_alloc(2 * value->len + 1);

		printf("0x%s", inl_text_hex(value->bytes, value->len, hex));
		free(hex);
	}
	putchar('\n');
}

/* ---- what is done ------------------------------------------------------------------------------------------------ */

static int print_name(const char *name, const void *value, size_t len, void *arg)
{
	inl_text_name(name, strlen(name));
	putchar('\n');
	return 0;
}

static int list(struct inl_inode *inode, char **args, struct inl_diag *diag)
{
	return inl_xattrs(inode, print_name, NULL, diag);
}

static int get(struct inl_inode *inode, char **args, struct inl_diag *diag)
{
	struct value value = { .bytes = inl_cli_alloc(VALUE_MAX) };
	int err = inl_xattr_get(inode, args[0], value.bytes, VALUE_MAX, &value.len, diag);

	if (!err)
		print_value(&value);
	free(value.bytes);
	return err;
}

static int set(struct inl_inode *inode, char **args, struct inl_diag *diag)
{
	struct value value;
	int err = parse_value(args[1], &value) ? 0 : -EINVAL;

	if (err)
		inl_diag_set(diag, err, "'%.100s': expected a value: text, \"text\", 0x and hex, or 0s and base64",
			     args[1]);
	else
		err = inl_xattr_set(inode, args[0], value.bytes, value.len, 0, diag);
	free(value.bytes);
	return err;
}

static int remove_one(struct inl_inode *inode, char **args, struct inl_diag *diag)
{
	return inl_xattr_set(inode, args[0], NULL, 0, 0, diag);
}

static const struct verb {
	const char *name;
	unsigned n_args; /* before the files */
	bool writes;
	int (*run)(struct inl_inode *inode, char **args, struct inl_diag *diag);
} verbs[] = {
	{ "list", 0, false, list },
	{ "get", 1, false, get },
	{ "set", 2, true, set },
	{ "remove", 1, true, remove_one },
};

static int run_one(struct inl_cli *cli, const struct verb *verb, char **args, const char *arg)
{
	struct inl_inode *inode = NULL;
	struct inl_diag diag = { 0 };
	struct inl_target target;
	int err, code = inl_target_init(cli, arg, &target);

	if (!code)
		code = inl_cli_find(cli, &target, !cli->given[INL_OPT_NO_FOLLOW], &inode);
	if (!code) {
		err = verb->run(inode, args, &diag);
		if (err == -ENODATA && !diag.text[0])
			inl_diag_set(&diag, err, "has no attribute %.200s", args[0]);
		else if (err == -EOPNOTSUPP && !diag.text[0])
			inl_diag_set(&diag, err, "cannot have an attribute %.200s", args[0]);
		code = err ? inl_cli_error(cli, arg, err, &diag) : 0;
	}
	inl_inode_put(inode);
	inl_target_done(&target);
	return code;
}

int inl_cli_xattr(struct inl_cli *cli, int n_args, char **args)
{
	const struct verb *verb = NULL;
	int code = 0;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (!strcmp(verbs[i].name, args[0]))
			verb = &verbs[i];
	}
	if (!verb)
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0], "expected list, get, set or remove");
	if (n_args < 2 + (int)verb->n_args)
		return inl_cli_operands(cli, 0, args, 2, -1);
	if (verb->writes)
		inl_cli_will_write(cli);
	for (int i = 1 + (int)verb->n_args; i < n_args; i++)
		code = inl_cli_worse(code, run_one(cli, verb, args + 1, args[i]));
	return code;
}
