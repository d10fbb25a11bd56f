/*
 * cli/parse.c: modes, owners and dates as people write them.
 * Not here: sizes and numbers (cli/value.c).
 * Read more: chmod(1), "SYMBOLIC MODES"; ISO 8601.
 */
#include "cli/change.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- modes ------------------------------------------------------------------------------------------------------- */

uint32_t inl_mode_umask(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return mask;
}

/* As chmod(1): up to four digits leave the set-ID bits of a directory that they do not name. */
static bool parse_octal(const char *text, uint32_t mode, uint32_t *out)
{
	size_t len = strspn(text, "01234567");
	unsigned long value;

	if (!len || text[len] || len > 8)
		return false;
	value = strtoul(text, NULL, 8);
	if (value > 07777)
		return false;
	if (S_ISDIR(mode) && len < 5)
		value |= mode & (S_ISUID | S_ISGID);
	*out = (mode & ~(uint32_t)07777) | (uint32_t)value;
	return true;
}

/* Every bit that belongs to whom: u, g, o; 't' goes with all of them, or with o. */
static uint32_t bits_of(char who)
{
	switch (who) {
	case 'u':
		return S_ISUID | S_IRWXU;
	case 'g':
		return S_ISGID | S_IRWXG;
	case 'o':
		return S_ISVTX | S_IRWXO;
	case 'a':
		return 07777;
	}
	return 0;
}

/* The permissions of u, g or o, given to all three. */
static uint32_t spread(uint32_t mode, char from)
{
	return (mode >> (from == 'u' ? 6 : from == 'g' ? 3 : 0) & 7) * 0111;
}

static bool permissions(const char **text, uint32_t mode, uint32_t *bits)
{
	*bits = 0;
	if (**text == 'u' || **text == 'g' || **text == 'o') {
		*bits = spread(mode, *(*text)++);
		return true;
	}
	for (;; (*text)++) {
		switch (**text) {
		case 'r':
			*bits |= 0444;
			break;
		case 'w':
			*bits |= 0222;
			break;
		case 'x':
			*bits |= 0111;
			break;
		case 'X':
			*bits |= S_ISDIR(mode) || mode & 0111 ? 0111 : 0;
			break;
		case 's':
			*bits |= S_ISUID | S_ISGID;
			break;
		case 't':
			*bits |= S_ISVTX;
			break;
		default:
			return !**text || strchr(",+-=", **text);
		}
	}
}

/* One operation: "=rw" of "u=rw+x". */
static bool parse_action(const char **text, uint32_t who, uint32_t mask, uint32_t *mode)
{
	uint32_t bits, affected = who ? who : 07777;
	char op = *(*text)++;

	if (!permissions(text, *mode, &bits))
		return false;
	bits &= affected & ~mask;
	if (op == '=')
		*mode &= ~(affected & (S_ISDIR(*mode) ? ~(uint32_t)(S_ISUID | S_ISGID) : ~(uint32_t)0));
	*mode = op == '-' ? *mode & ~bits : *mode | bits;
	return true;
}

static bool parse_clause(const char **text, uint32_t umask_bits, uint32_t *mode)
{
	uint32_t who = 0;

	while (**text && strchr("ugoa", **text))
		who |= bits_of(*(*text)++);
	if (!**text || !strchr("+-=", **text))
		return false;
	while (**text && strchr("+-=", **text)) {
		if (!parse_action(text, who, who ? 0 : umask_bits & 0777, mode))
			return false;
	}
	return true;
}

bool inl_mode_parse(const char *text, uint32_t mode, uint32_t mask, uint32_t *out)
{
	uint32_t result = mode;

	if (*text >= '0' && *text <= '9')
		return parse_octal(text, mode, out);
	for (;; text++) {
		if (!parse_clause(&text, mask, &result))
			return false;
		if (!*text)
			break;
		if (*text != ',')
			return false;
	}
	*out = result;
	return true;
}

/* ---- owners ------------------------------------------------------------------------------------------------------ */

static bool parse_id(const char *text, size_t len, uint32_t *id)
{
	uint64_t value;

	if (inl_number_parse(text, len, &value) || value >= UINT32_MAX)
		return false;
	*id = (uint32_t)value;
	return true;
}

bool inl_owner_parse(const char *text, struct inl_attr *attr, unsigned *which)
{
	size_t len = strcspn(text, ":");

	*which = 0;
	if (len) {
		*which |= INL_ATTR_UID;
		if (!parse_id(text, len, &attr->uid))
			return false;
	}
	if (text[len]) {
		*which |= INL_ATTR_GID;
		if (!parse_id(text + len + 1, strlen(text + len + 1), &attr->gid))
			return false;
	}
	return *which;
}

/* ---- dates ------------------------------------------------------------------------------------------------------- */

/* Exactly n digits. */
static bool digits(const char **text, unsigned n, int *out)
{
	int value = 0;

	for (; n; n--, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		value = value * 10 + (**text - '0');
	}
	*out = value;
	return true;
}

/* "" or ".123", up to nine digits that count. */
static bool fraction(const char **text, uint32_t *nsec)
{
	uint32_t unit = 100000000;

	*nsec = 0;
	if (**text != '.' && **text != ',')
		return true;
	(*text)++;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; (*text)++, unit /= 10)
		*nsec += (uint32_t)(**text - '0') * unit;
	return true;
}

static bool parse_seconds(const char *text, struct inl_time *time)
{
	bool negative = *text == '-';
	size_t len;
	uint64_t value;

	text += negative;
	len = strspn(text, "0123456789");
	if (inl_number_parse(text, len, &value) || value > INT64_MAX / 2)
		return false;
	time->sec = negative ? -(int64_t)value : (int64_t)value;
	text += len;
	if (!fraction(&text, &time->nsec) || *text)
		return false;
	if (negative && time->nsec) { /* -1.25 is 0.75 after -2 */
		time->sec--;
		time->nsec = 1000000000 - time->nsec;
	}
	return true;
}

/* HH:MM[:SS[.NS]] */
static bool parse_clock(const char **text, struct tm *tm, uint32_t *nsec)
{
	if (!digits(text, 2, &tm->tm_hour) || *(*text)++ != ':' || !digits(text, 2, &tm->tm_min))
		return false;
	if (**text == ':') {
		(*text)++;
		if (!digits(text, 2, &tm->tm_sec) || !fraction(text, nsec))
			return false;
	}
	return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 61;
}

/* "", Z, +HH, +HHMM or +HH:MM; *offset: seconds east of Greenwich, INT_MIN: none is named. */
static bool parse_zone(const char *text, int *offset)
{
	int hours, minutes = 0, sign = *text == '-' ? -1 : 1;

	*offset = INT_MIN;
	if (!*text)
		return true;
	if (!strcmp(text, "Z") || !strcmp(text, "z")) {
		*offset = 0;
		return true;
	}
	if (*text != '+' && *text != '-')
		return false;
	text++;
	if (!digits(&text, 2, &hours))
		return false;
	if (*text == ':')
		text++;
	if (*text && (!digits(&text, 2, &minutes) || *text))
		return false;
	*offset = sign * (hours * 3600 + minutes * 60);
	return hours < 24 && minutes < 60;
}

/* Seconds since 1970; false: there is no such day. */
static bool to_seconds(struct tm *tm, int offset, int64_t *sec)
{
	struct tm given = *tm;

	tm->tm_isdst = -1;
	*sec = offset == INT_MIN ? mktime(tm) : timegm(tm) - offset;
	return tm->tm_mday == given.tm_mday && tm->tm_mon == given.tm_mon && given.tm_mday && given.tm_mon >= 0;
}

bool inl_date_parse(const char *text, struct inl_time *time)
{
	struct tm tm = { 0 };
	int offset;

	if (*text == '@')
		return parse_seconds(text + 1, time);
	time->nsec = 0;
	if (!digits(&text, 4, &tm.tm_year) || *text++ != '-' || !digits(&text, 2, &tm.tm_mon) || *text++ != '-' ||
	    !digits(&text, 2, &tm.tm_mday))
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	if (*text == 'T' || *text == ' ') {
		text++;
		if (!parse_clock(&text, &tm, &time->nsec))
			return false;
	}
	text += *text == ' ';
	return parse_zone(text, &offset) && to_seconds(&tm, offset, &time->sec);
}
