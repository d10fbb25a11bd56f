/*
 * cli/text.h: how things look as text: names that cannot harm a terminal, modes, times, hex, sizes.
 * Not here: JSON (cli/json.h); messages (cli/error.c).
 * Read more: doc/inlay.1, "OUTPUT".
 */
#ifndef INLAY_CLI_TEXT_H
#define INLAY_CLI_TEXT_H

#include <inlay/volume.h>
#include <stdio.h>

bool inl_text_is_utf8(const char *text, size_t len);

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

/* 0 .. 15; -1: it is none. */
int inl_text_hex_digit(unsigned char c);

/* "00112233-4455-..." */
char *inl_text_uuid(const uint8_t uuid[16], char text[37]);

/* "3.4 MiB" */
char *inl_text_size(uint64_t bytes, char text[16]);

const char *inl_text_access(enum inl_access access);

/* "unlocked", "locked", ...: of an inode's or policy's status. */
const char *inl_text_status(int status);

/* The name of an fscrypt mode, also of an unknown one. */
const char *inl_text_fscrypt_mode(int mode, char text[24]);

/* "512, 4096": the powers of two whose bits are set. */
void inl_text_sizes(uint32_t sizes, char *text, size_t room);

/* The name of the next flag that has one, from bit *i on; NULL past the last. */
const char *inl_text_flag(uint32_t flags, unsigned *i);

#endif
