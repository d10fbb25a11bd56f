/*
 * cli/json.c: a small JSON writer.
 * Not here: what is written (the subcommands).
 * Read more: cli/json.h; RFC 8259.
 */
#include "cli/json.h"
#include "cli/text.h"
#include <inttypes.h>
#include <string.h>

static void put_string(const char *text, size_t len)
{
	putchar('"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

/* Whatever comes before a value: a comma, a line of its own, the key. */
static void begin(struct inl_json *json, const char *key)
{
	if (json->more)
		putchar(',');
	if (json->depth)
		printf("\n%*s", (int)json->depth * 2, "");
	if (key) {
		put_string(key, strlen(key));
		printf(": ");
	}
	json->more = true;
}

void inl_json_open(struct inl_json *json, const char *key, char bracket)
{
	begin(json, key);
	putchar(bracket);
	json->depth++;
	json->more = false;
}

void inl_json_close(struct inl_json *json, char bracket)
{
	json->depth--;
	if (json->more)
		printf("\n%*s", (int)json->depth * 2, "");
	putchar(bracket);
	if (!json->depth)
		putchar('\n');
	json->more = true;
}

void inl_json_text(struct inl_json *json, const char *key, const char *text)
{
	begin(json, key);
	if (text)
		put_string(text, strlen(text));
	else
		printf("null");
}

void inl_json_u64(struct inl_json *json, const char *key, uint64_t value)
{
	begin(json, key);
	printf("%" PRIu64, value);
}

void inl_json_real(struct inl_json *json, const char *key, double value)
{
	begin(json, key);
	printf("%.4g", value);
}

void inl_json_bool(struct inl_json *json, const char *key, bool value)
{
	begin(json, key);
	printf("%s", value ? "true" : "false");
}

void inl_json_hex(struct inl_json *json, const char *key, const uint8_t *bytes, size_t len)
{
	char text[3];

	begin(json, key);
	putchar('"');
	for (size_t i = 0; i < len; i++)
		printf("%s", inl_text_hex(bytes + i, 1, text));
	putchar('"');
}

void inl_json_time(struct inl_json *json, const char *key, const struct inl_time *time)
{
	begin(json, key);
	printf("{\"sec\": %" PRId64 ", \"nsec\": %" PRIu32 "}", time->sec, time->nsec);
}

void inl_json_name(struct inl_json *json, const char *key, const char *text, size_t len)
{
	char key_hex[32];

	if (inl_text_is_utf8(text, len)) {
		begin(json, key);
		put_string(text, len);
		return;
	}
	snprintf(key_hex, sizeof(key_hex), "%s_hex", key);
	inl_json_hex(json, key_hex, (const uint8_t *)text, len);
}

void inl_json_stat(struct inl_json *json, const struct inl_stat *st)
{
	char mode[11];

	inl_json_u64(json, "inode", st->ino);
	inl_json_text(json, "type", inl_text_type(st->mode));
	inl_json_text(json, "mode", inl_text_mode(st->mode, mode));
	inl_json_u64(json, "mode_bits", st->mode & 07777);
	inl_json_u64(json, "nlink", st->nlink);
	inl_json_u64(json, "uid", st->uid);
	inl_json_u64(json, "gid", st->gid);
	inl_json_u64(json, "size", st->size);
}

void inl_json_policy(struct inl_json *json, const struct inl_policy *policy)
{
	char hex[INL_KEY_SPEC_HEX_SIZE], mode[24];

	inl_json_u64(json, "version", policy->version);
	inl_json_text(json, policy->version == 1 ? "key_descriptor" : "key_identifier",
		      inl_key_spec_hex(&policy->key, hex));
	inl_json_text(json, "contents_mode", inl_text_fscrypt_mode(policy->contents_mode, mode));
	inl_json_text(json, "filenames_mode", inl_text_fscrypt_mode(policy->filenames_mode, mode));
	inl_json_u64(json, "flags", policy->flags);
	inl_json_u64(json, "padding", inl_policy_padding(policy));
	inl_json_text(json, "iv_method", inl_policy_iv_method(policy));
	inl_json_u64(json, "log2_data_unit_size", policy->log2_data_unit_size);
}
