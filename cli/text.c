/*
 * cli/text.c: how things look as text.
 * Not here: JSON (cli/json.c); messages (cli/error.c).
 * Read more: cli/text.h; RFC 3629 for what is UTF-8.
 */
#include "cli/text.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- characters -------------------------------------------------------------------------------------------------- */

/* Decode one character of UTF-8; returns its length, 0 if there is none. */
static unsigned decode(const unsigned char *p, size_t len, uint32_t *out)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint32_t c = n == 1 ? p[0] : p[0] & (0x7fu >> n);

	if (n > len || p[0] > 0xf4 || (p[0] >= 0x80 && p[0] < 0xc2))
		return 0;
	for (unsigned i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*out = c;
	return n;
}

/* C0 and C1, line and paragraph separators, and what changes the direction of the text around it. */
static bool is_harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||
	       c == 0x061c || c == 0x200e || c == 0x200f || c == 0xfeff;
}

/*
 * Length of the character at p: 1..4 bytes that may be shown, or 0: harmful, or no UTF-8. *skip bytes belong together.
 */
static unsigned shown_char(const char *p, size_t len, unsigned *skip)
{
	uint32_t c = 0;
	unsigned n = decode((const unsigned char *)p, len, &c);

	*skip = n ? n : 1;
	return n && !is_harmful(c) ? n : 0;
}

bool inl_text_is_utf8(const char *text, size_t len)
{
	uint32_t c;

	for (size_t i = 0; i < len;) {
		unsigned n = decode((const unsigned char *)text + i, len - i, &c);

		if (!n)
			return false;
		i += n;
	}
	return true;
}

void inl_text_put(FILE *out, const char *text, size_t len, bool safe)
{
	unsigned skip;

	if (!safe) {
		fwrite(text, 1, len, out);
		return;
	}
	for (size_t i = 0; i < len; i += skip) {
		if (shown_char(text + i, len - i, &skip))
			fwrite(text + i, 1, skip, out);
		else
			putc('?', out);
	}
}

void inl_text_name(const char *text, size_t len)
{
	static int terminal = -1;

	if (terminal < 0)
		terminal = isatty(STDOUT_FILENO);
	inl_text_put(stdout, text, len, terminal);
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

char *inl_text_mode(uint32_t mode, char text[11])
{
	static const char types[16] = { [1] = 'p', [2] = 'c', [4] = 'd', [6] = 'b', [8] = '-', [10] = 'l', [12] = 's' };
	char type = types[(mode & S_IFMT) >> 12];

	text[0] = type ? type : '?';
	for (unsigned i = 0; i < 9; i++)
		text[1 + i] = mode & (0400u >> i) ? "rwx"[i % 3] : '-';
	if (mode & S_ISUID)
		text[3] = mode & S_IXUSR ? 's' : 'S';
	if (mode & S_ISGID)
		text[6] = mode & S_IXGRP ? 's' : 'S';
	if (mode & S_ISVTX)
		text[9] = mode & S_IXOTH ? 't' : 'T';
	text[10] = '\0';
	return text;
}

const char *inl_text_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "regular file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "FIFO";
	case S_IFSOCK:
		return "socket";
	}
	return "unknown";
}

char *inl_text_time(const struct inl_time *time, bool exact, char text[INL_TIME_TEXT_SIZE])
{
	time_t sec = (time_t)time->sec;
	struct tm tm;
	size_t used;

	if (!localtime_r(&sec, &tm)) {
		snprintf(text, INL_TIME_TEXT_SIZE, "@%" PRId64, time->sec);
		return text;
	}
	used = strftime(text, INL_TIME_TEXT_SIZE, exact ? "%Y-%m-%d %H:%M:%S" : "%Y-%m-%d %H:%M", &tm);
	if (exact) {
		used += (size_t)snprintf(text + used, INL_TIME_TEXT_SIZE - used, ".%09" PRIu32, time->nsec);
		strftime(text + used, INL_TIME_TEXT_SIZE - used, " %z", &tm);
	}
	return text;
}

int inl_text_hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *inl_text_hex(const uint8_t *bytes, size_t len, char *text)
{
	for (size_t i = 0; i < len; i++) {
		text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	text[2 * len] = '\0';
	return text;
}

char *inl_text_uuid(const uint8_t uuid[16], char text[37])
{
	char *p = text;

	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		inl_text_hex(uuid + i, 1, p);
		p += 2;
	}
	return text;
}

char *inl_text_size(uint64_t bytes, char text[16])
{
	static const char units[] = "KMGTPE";
	double value = (double)bytes / 1024;
	unsigned i = 0;

	if (bytes < 1024) {
		snprintf(text, 16, "%" PRIu64 " B", bytes);
		return text;
	}
	for (; value >= 1023.95; i++)
		value /= 1024;
	snprintf(text, 16, "%.1f %ciB", value, units[i]);
	return text;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

const char *inl_text_access(enum inl_access access)
{
	switch (access) {
	case INL_ACCESS_RW:
		return "read-write";
	case INL_ACCESS_RO:
		return "read-only";
	case INL_ACCESS_REFUSED:
		break;
	}
	return "refused";
}

const char *inl_text_status(int status)
{
	switch (status) {
	case 0:
		return "unlocked";
	case -ENOKEY:
		return "locked";
	case -ENOPKG:
		return "cipher not available";
	case -EINVAL:
		return "policy not valid";
	case -EUCLEAN:
		return "context damaged";
	}
	return "not readable";
}

const char *inl_text_fscrypt_mode(int mode, char text[24])
{
	const char *name = inl_fscrypt_mode_name(mode);

	if (name)
		return name;
	snprintf(text, 24, "unknown mode %d", mode);
	return text;
}

void inl_text_sizes(uint32_t sizes, char *text, size_t room)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t size = INL_UNIT_SIZE_MIN; size && size <= INL_UNIT_SIZE_MAX && used < room; size <<= 1) {
		if (sizes & size)
			used += (size_t)snprintf(text + used, room - used, "%s%" PRIu32, used ? ", " : "", size);
	}
}

const char *inl_text_flag(uint32_t flags, unsigned *i)
{
	static const char *const names[32] = {
		[0] = "secrm",      [1] = "unrm",          [2] = "compr",        [3] = "sync",      [4] = "immutable",
		[5] = "append",     [6] = "nodump",        [7] = "noatime",      [11] = "encrypt",  [12] = "index",
		[13] = "imagic",    [14] = "journal_data", [15] = "notail",      [16] = "dirsync",  [17] = "topdir",
		[18] = "huge_file", [19] = "extents",      [20] = "verity",      [21] = "ea_inode", [23] = "nocow",
		[25] = "dax",       [28] = "inline_data",  [29] = "projinherit", [30] = "casefold",
	};

	while (*i < 32) {
		unsigned bit = (*i)++;

		if ((flags >> bit & 1) && names[bit])
			return names[bit];
	}
	return NULL;
}
