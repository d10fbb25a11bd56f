/*
 * cli/text.h: how things look as text: names that cannot harm a terminal, modes, times, hex, sizes.
 * Not here: JSON (cli/json.h); messages (cli/error.c).
 * Read more: doc/inlay.1, "OUTPUT".
 */
#ifndef INLAY_CLI_TEXT_H
#define INLAY_CLI_TEXT_H

#include <inlay/volume.h>
#include <stdio.h>

/*
 * Length of the character at p: 1..4 bytes of printable UTF-8; 0: a control character or bytes that are no UTF-8, of
 * which *skip belong together.
 */
unsigned inl_text_char(const char *p, size_t len, unsigned *skip);

bool inl_text_is_utf8(const char *text, size_t len);

/* Characters, as they will be shown. */
size_t inl_text_width(const char *text, size_t len);

/* Write bytes to out; safe: what could harm a terminal or break a line becomes '?'. */
void inl_text_put(FILE *out, const char *text, size_t len, bool safe);

/* Write a name to standard output: safe if that is a terminal, else the bytes as they are. */
void inl_text_name(const char *text, size_t len);

/* "drwxr-xr-x" */
char *inl_text_mode(uint32_t mode, char text[11]);

/* "regular file" */
const char *inl_text_type(uint32_t mode);

/* "2024-02-29 12:34" or, exact, "2024-02-29 12:34:56.123456789 +0000"; local time. */
#define INL_TIME_TEXT_SIZE 64
char *inl_text_time(const struct inl_time *time, bool exact, char text[INL_TIME_TEXT_SIZE]);

/* Lower-case hex; text has room for 2 * len + 1. */
char *inl_text_hex(const uint8_t *bytes, size_t len, char *text);

/* "00112233-4455-..." */
char *inl_text_uuid(const uint8_t uuid[16], char text[37]);

/* "3.4 MiB" */
char *inl_text_size(uint64_t bytes, char text[16]);

const char *inl_text_access(enum inl_access access);

/* "unlocked", "locked", ...: of an inode's or policy's status. */
const char *inl_text_status(int status);

/* The name of an fscrypt mode, also of an unknown one. */
const char *inl_text_fscrypt_mode(int mode, char text[24]);

/* Capabilities in words: one line per mode. */
void inl_text_sizes(uint32_t sizes, char *text, size_t room);

/* Iterate over the names of inode flags: NULL past the last; 0 for a flag without a name is not reported. */
const char *inl_text_flag(uint32_t flags, unsigned *i);

#endif
