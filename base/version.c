/*
 * base/version.c: the version of the library, as text.
 * Not here: the number itself (meson.build, project()).
 * Read more: HACKING.md, "Public interface".
 */
#include <inlay/base.h>

#ifndef INLAY_VERSION
#define INLAY_VERSION "0.0.0" /* compiled without meson */
#endif

const char *inl_version(void)
{
	return INLAY_VERSION;
}
