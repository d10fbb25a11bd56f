/*
 * base/diag.c: filling a diagnostic, once.
 * Not here: printing it (cli/).
 * Read more: ARCHITECTURE.md, "Errors, memory, secrets".
 */
#include <inlay/base.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* Names from a damaged image may end up in the text: keep it one line, and keep control characters off a terminal. */
static void make_one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

int inl_diag_set(struct inl_diag *diag, int err, const char *fmt, ...)
{
	va_list args;

	if (!diag || diag->err || err == -EAGAIN)
		return err;
	va_start(args, fmt);
	if (vsnprintf(diag->text, sizeof(diag->text), fmt, args) < 0)
		diag->text[0] = '\0';
	va_end(args);
	make_one_line(diag->text);
	diag->err = err;
	return err;
}
