/*
 * cli/json.h: a small JSON writer to standard output.
 * Not here: what is written (the subcommands).
 * Read more: RFC 8259; doc/inlay.1, "OUTPUT".
 */
#ifndef INLAY_CLI_JSON_H
#define INLAY_CLI_JSON_H

#include <inlay/volume.h>

/* {0} to start. Keys are NULL inside arrays. */
struct inl_json {
	unsigned depth;
	bool more; /* a comma is needed before the next value */
};

/* bracket: '{' or '['; the end of the outermost one ends the line. */
void inl_json_open(struct inl_json *json, const char *key, char bracket);
void inl_json_close(struct inl_json *json, char bracket);

void inl_json_text(struct inl_json *json, const char *key, const char *text); /* UTF-8; NULL: null */
void inl_json_u64(struct inl_json *json, const char *key, uint64_t value);
void inl_json_real(struct inl_json *json, const char *key, double value); /* four digits */
void inl_json_bool(struct inl_json *json, const char *key, bool value);
void inl_json_hex(struct inl_json *json, const char *key, const uint8_t *bytes, size_t len);
void inl_json_time(struct inl_json *json, const char *key, const struct inl_time *time);

/* A name: under key if it is UTF-8, else in hex under key "_hex". */
void inl_json_name(struct inl_json *json, const char *key, const char *text, size_t len);

/* What ls and stat both say of an inode, as members of the open object. */
void inl_json_stat(struct inl_json *json, const struct inl_stat *st);

/* The policy and its key, as members of the open object. */
void inl_json_policy(struct inl_json *json, const struct inl_policy *policy);

#endif
