/*
 * cli/policy.c: encryption policies as people write them.
 * Not here: what is done with them (cli/encrypt.c, cli/build.c).
 * Read more: doc/inlay.1, "ENCRYPTING".
 */
#include "cli/policy.h"
#include <string.h>
#include <strings.h>

#define MODES_MAX   16
#define PADDING_MAX 32

/* Modes that go together. */
static const struct {
	uint8_t contents, filenames;
} partners[] = {
	{ INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS },
	{ INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_HCTR2 },
	{ INL_FSCRYPT_AES_128_CBC, INL_FSCRYPT_AES_128_CTS },
	{ INL_FSCRYPT_SM4_XTS, INL_FSCRYPT_SM4_CTS },
	{ INL_FSCRYPT_ADIANTUM, INL_FSCRYPT_ADIANTUM },
};

#define N_PARTNERS (sizeof(partners) / sizeof(partners[0]))

static int parse_mode(const struct inl_cli *cli, const char *where, const char *word, const char *text, uint8_t *mode)
{
	char known[256] = "";

	if (!text)
		return 0;
	for (int i = 0; i < MODES_MAX; i++) {
		const char *name = inl_fscrypt_mode_name(i);

		if (name && !strcasecmp(name, text)) {
			*mode = (uint8_t)i;
			return 0;
		}
		if (name)
			snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", *known ? ", " : "", name);
	}
	return inl_cli_fail(cli, INL_EXIT_USAGE, where, "%s: '%s' is no mode; there are %s", word, text, known);
}

/* The other one of two, where only one is said. */
static void find_partner(const struct inl_policy_words *words, struct inl_policy *policy)
{
	for (size_t i = 0; i < N_PARTNERS; i++) {
		if (words->contents && !words->filenames && partners[i].contents == policy->contents_mode) {
			policy->filenames_mode = partners[i].filenames;
			return;
		}
		if (!words->contents && words->filenames && partners[i].filenames == policy->filenames_mode) {
			policy->contents_mode = partners[i].contents;
			return;
		}
	}
}

/* A power of two between min and max, as its logarithm. */
static int parse_bytes(const struct inl_cli *cli, const char *where, const char *word, const char *text, uint64_t min,
		       uint64_t max, uint8_t *log2)
{
	uint64_t bytes = 0;

	if (inl_size_parse(text, strlen(text), &bytes) || bytes < min || bytes > max || (bytes & (bytes - 1)))
		return inl_cli_fail(cli, INL_EXIT_USAGE, where, "%s: '%s': expected a power of two, %ju to %ju", word,
				    text, (uintmax_t)min, (uintmax_t)max);
	*log2 = (uint8_t)__builtin_ctzll(bytes);
	return 0;
}

static uint8_t flags_of(const struct inl_policy_words *words)
{
	return (words->direct_key ? INL_POLICY_FLAG_DIRECT_KEY : 0) |
	       (words->iv_ino_lblk_64 ? INL_POLICY_FLAG_IV_INO_LBLK_64 : 0) |
	       (words->iv_ino_lblk_32 ? INL_POLICY_FLAG_IV_INO_LBLK_32 : 0);
}

int inl_policy_make(const struct inl_cli *cli, const char *where, const struct inl_policy_words *words,
		    struct inl_policy *policy)
{
	uint8_t padding = 5; /* log2 of 32 */
	int code;

	*policy = (struct inl_policy){
		.version = words->v1 ? 1 : 2,
		.contents_mode = INL_FSCRYPT_AES_256_XTS,
		.filenames_mode = INL_FSCRYPT_AES_256_CTS,
		.key = { .version = words->v1 ? 1 : 2 },
	};
	code = parse_mode(cli, where, "contents", words->contents, &policy->contents_mode);
	if (!code)
		code = parse_mode(cli, where, "filenames", words->filenames, &policy->filenames_mode);
	if (!code && words->padding)
		code = parse_bytes(cli, where, "padding", words->padding, 4, PADDING_MAX, &padding);
	if (!code && words->unit)
		code = parse_bytes(cli, where, "data-unit-size", words->unit, 512, 65536, &policy->log2_data_unit_size);
	find_partner(words, policy);
	policy->flags = flags_of(words) | (uint8_t)(padding - 2);
	return code;
}
