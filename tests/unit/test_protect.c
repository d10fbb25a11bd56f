/*
 * tests/unit/test_protect.c: keys behind passphrases: known answers, recovery codes, what hostile metadata does not do.
 * Not here: metadata that the tool fscrypt made (tests/kernel/test_passphrase.py).
 * Read more: HACKING.md, "Tests"; tests/vectors/SOURCES.
 */
#include "protect/private.h"
#include "tests/unit/work_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		out[n++] = (uint8_t)byte;
	return n;
}

/* ---- known answers ----------------------------------------------------------------------------------------------- */

static void test_argon2(void **state)
{
	static const struct {
		struct inl_hash_costs costs;
		const char *hash;
	} rows[] = {
		{ { 1, 1024, 1 }, "a66f5398e33761bf161fdf1273e99b148f07d88d12d85b7673fddd723f95ec34" },
		{ { 10, 1024, 1 }, "5fa2cb89db1f7413ba1776258b7c8ee8c377d122078d28fe1fd645c353787f50" },
		{ { 1, 32768, 1 }, "f474a213ed14d16ead619568000939b938ddfbd2ac4a82d253afa81b5ebaef84" },
		{ { 1, 1024, 10 }, "b7c3d7a0be222680b5ea3af3fb1a0b7b02b92cbd7007821dc8b84800c86c7783" },
	};
	uint8_t salt[INL_SALT_SIZE], out[INL_PROTECTOR_KEY_SIZE], want[INL_PROTECTOR_KEY_SIZE];
	char password[] = "password";

	memset(salt, 'a', sizeof(salt));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(unhex(rows[i].hash, want), sizeof(want));
		assert_int_equal(inl_hash(password, 8, salt, &rows[i].costs, out), 0);
		assert_memory_equal(out, want, sizeof(want));
		assert_string_equal(password, "password");
	}
}

/* Computed by Python's hmac and by openssl enc -aes-256-ctr. */
static const char wrapped_64[] =
	"fcbf963298e3736ff217a58b49a4e21dd2534cd7a2802172823a18f2eb424812cfb4d4a1e616c546ad5e384c25d28ad1da42c76c2796af96e8ba362d77c37afe";
static const char wrapped_32[] = "fcbf963298e3736ff217a58b49a4e21dd2534cd7a2802172823a18f2eb424812";
static const char mac_64[] = "543a7fb1e80d4ce04024f1a7350e47364057f464317c10efe37b8b0d451c1d0b";
static const char mac_32[] = "81b03b5c2668cd5772303fbfa2c60f1cd33879835a80155f9d376c8a0eb31169";

static void wrap_inputs(uint8_t by[32], uint8_t iv[16], uint8_t key[64])
{
	for (int i = 0; i < 64; i++)
		key[i] = (uint8_t)(i + 1);
	for (int i = 0; i < 32; i++)
		by[i] = (uint8_t)(0x60 + i);
	for (int i = 0; i < 16; i++)
		iv[i] = i < 8 ? (uint8_t)(0xf8 + i) : 0xff; /* the counter carries over all that is left of it */
}

static void test_wrap(void **state)
{
	uint8_t by[32], iv[16], key[64], sealed[64], mac[32], want[64], out[64];
	Inl__Meta__Wrapped wrapped = INL__META__WRAPPED__INIT;

	wrap_inputs(by, iv, key);
	for (int i = 0; i < 2; i++) {
		size_t len = i ? 32 : 64;

		assert_int_equal(inl_seal(by, iv, key, len, sealed, mac), 0);
		assert_int_equal(unhex(i ? wrapped_32 : wrapped_64, want), len);
		assert_memory_equal(sealed, want, len);
		assert_int_equal(unhex(i ? mac_32 : mac_64, want), 32);
		assert_memory_equal(mac, want, 32);
		wrapped.iv = (ProtobufCBinaryData){ 16, iv };
		wrapped.encrypted_key = (ProtobufCBinaryData){ len, sealed };
		wrapped.hmac = (ProtobufCBinaryData){ 32, mac };
		memset(out, 0, sizeof(out));
		assert_int_equal(inl_unseal(by, &wrapped, len, out), 0);
		assert_memory_equal(out, key, len);
	}
}

/* One bit anywhere: nothing comes out. */
static void test_unwrap_wrong(void **state)
{
	uint8_t by[32], iv[16], key[64], sealed[64], mac[32], out[64], zeros[64] = { 0 };
	const struct {
		uint8_t *bytes;
		size_t len;
	} parts[] = { { by, 32 }, { iv, 16 }, { sealed, 64 }, { mac, 32 } };
	Inl__Meta__Wrapped wrapped = INL__META__WRAPPED__INIT;

	wrap_inputs(by, iv, key);
	assert_int_equal(inl_seal(by, iv, key, 64, sealed, mac), 0);
	wrapped.iv = (ProtobufCBinaryData){ 16, iv };
	wrapped.encrypted_key = (ProtobufCBinaryData){ 64, sealed };
	wrapped.hmac = (ProtobufCBinaryData){ 32, mac };
	memset(out, 0, sizeof(out));
	for (size_t p = 0; p < 4; p++) {
		for (size_t bit = 0; bit < parts[p].len * 8; bit++) {
			parts[p].bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(inl_unseal(by, &wrapped, 64, out), -EKEYREJECTED);
			parts[p].bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	assert_memory_equal(out, zeros, 64);
	wrapped.hmac.len = 31;
	assert_int_equal(inl_unseal(by, &wrapped, 64, out), -EUCLEAN);
	wrapped.hmac.len = 32;
	assert_int_equal(inl_unseal(by, &wrapped, 32, out), -EUCLEAN);
	assert_int_equal(inl_unseal(by, &wrapped, 64, out), 0);
}

/* fscrypt's crypto/crypto_test.go: what 64 bytes of 42 are called. */
static void test_names(void **state)
{
	struct inl_key_spec spec;
	char hex[INL_KEY_SPEC_HEX_SIZE];
	uint8_t key[64];

	memset(key, 42, sizeof(key));
	assert_int_equal(inl_key_spec_derive(key, 64, 1, &spec), 0);
	assert_string_equal(inl_key_spec_hex(&spec, hex), "8290608a029c5aae");
	assert_int_equal(inl_key_spec_derive(key, 64, 2, &spec), 0);
	assert_string_equal(inl_key_spec_hex(&spec, hex), "2139f52bf8386ee99845818ac7e91c4a");
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void test_limits(void **state)
{
	const struct inl_hash_limits more = { .memory = 1 << 20 };
	static const struct {
		struct inl_hash_costs costs;
		const char *says; /* NULL: within */
	} rows[] = {
		{ { 1, 8, 1 }, NULL },
		{ { 512, 131072, 255 }, NULL },
		{ { 10000, 6710, 1 }, NULL },
		{ { 1, 131073, 1 }, "131073 KiB of memory" },
		{ { 1, UINT64_C(1) << 40, 1 }, "the limit is 131072 KiB" },
		{ { 1, INT64_MAX, 1 }, "of memory" },
		{ { 513, 131072, 1 }, "513 passes" },
		{ { 10001, 8, 1 }, "the limit is 10000 passes" },
		{ { INT64_MAX, 131072, 1 }, "passes" },
		{ { 1, 131072, 256 }, "256 lanes" },
		{ { 1, 131072, INT64_MAX }, "lanes" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_diag diag = { 0 };

		assert_int_equal(inl_hash_check(&rows[i].costs, NULL, &diag), rows[i].says ? -E2BIG : 0);
		if (rows[i].says && !strstr(diag.text, rows[i].says))
			fail_msg("'%s' does not say '%s'", diag.text, rows[i].says);
	}
	assert_int_equal(inl_hash_check(&rows[3].costs, &more, NULL), 0);
	assert_int_equal(inl_hash_check(&rows[4].costs, &more, NULL), -E2BIG);
}

/* ---- recovery codes ---------------------------------------------------------------------------------------------- */

static void make_code(unsigned seed, char code[INL_CODE_SIZE])
{
	uint8_t random[INL_CODE_RANDOM];

	for (unsigned i = 0; i < sizeof(random); i++)
		random[i] = (uint8_t)((seed + i) * 2654435761u >> 13);
	inl_code_make(random, code);
}

static void expect_code(const char *text, const char *code)
{
	char got[INL_CODE_SIZE];

	assert_int_equal(inl_code_parse(text, strlen(text), NULL, got), 0);
	assert_string_equal(got, code);
}

static void refuse_code(const char *text, const char *says)
{
	struct inl_diag diag = { 0 };
	char got[INL_CODE_SIZE];

	assert_int_equal(inl_code_parse(text, strlen(text), &diag, got), -EINVAL);
	if (!strstr(diag.text, says))
		fail_msg("'%s' does not say '%s'", diag.text, says);
}

static void test_code_forms(void **state)
{
	char code[INL_CODE_SIZE], typed[128];
	unsigned n = 0;

	make_code(1, code);
	assert_int_equal(strlen(code), 48);
	expect_code(code, code);
	for (const char *c = code; *c; c++) {
		if (*c == '-')
			typed[n++] = ' ';
		else
			typed[n++] = (char)(*c == '0' ? 'o' : *c == '1' ? 'l' : *c >= 'A' ? *c + 32 : *c);
		if (n % 3 == 0)
			typed[n++] = '\t';
	}
	typed[n] = '\0';
	expect_code(typed, code);
	refuse_code("", "7 groups");
	code[47] = '\0';
	refuse_code(code, "41 signs");
	refuse_code("U", "group 1 of the recovery code has a sign that no code has");
	make_code(1, code);
	snprintf(typed, sizeof(typed), "%s-0", code);
	refuse_code(typed, "not more");
}

static void test_code_shape(void **state)
{
	char code[INL_CODE_SIZE];

	make_code(1, code);
	assert_true(inl_code_has_shape(code, 48));
	assert_true(inl_code_has_shape("  olioli olioli olioli olioli\tolioli olioli olioli-", 51));
	assert_false(inl_code_has_shape(code, 47));
	assert_false(inl_code_has_shape("", 0));
	assert_false(inl_code_has_shape("olioli olioli olioli olioli olioli olioli olioli0", 49));
	code[3] = 'U';
	assert_false(inl_code_has_shape(code, 48));
}

/* Every wrong sign, every two that change places, any two groups that do: the group is named. */
static void test_code_errors(void **state)
{
	static const char symbols[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	char code[INL_CODE_SIZE], bad[INL_CODE_SIZE], says[64];

	make_code(2, code);
	for (unsigned i = 0; i < 48; i++) {
		snprintf(says, sizeof(says), "group %u of the recovery code is mistyped", i / 7 + 1);
		for (unsigned s = 0; s < 32 && code[i] && code[i] != '-'; s++) {
			memcpy(bad, code, sizeof(bad));
			bad[i] = symbols[s];
			if (bad[i] != code[i])
				refuse_code(bad, says);
		}
		for (unsigned k = i + 1; k < 48 && k / 7 == i / 7; k++) {
			memcpy(bad, code, sizeof(bad));
			bad[i] = code[k];
			bad[k] = code[i];
			if (code[i] != code[k] && code[k] && code[k] != '-' && code[i] != '-')
				refuse_code(bad, says);
		}
	}
	for (unsigned a = 0; a < 7; a++) {
		for (unsigned b = a + 1; b < 7; b++) {
			memcpy(bad, code, sizeof(bad));
			memcpy(bad + a * 7, code + b * 7, 6);
			memcpy(bad + b * 7, code + a * 7, 6);
			refuse_code(bad, "mistyped");
		}
	}
}

/* One group that is another: found but for a thousandth. */
static void test_code_other_group(void **state)
{
	char code[INL_CODE_SIZE], other[INL_CODE_SIZE], got[INL_CODE_SIZE];
	unsigned missed = 0;

	make_code(3, code);
	for (unsigned i = 0; i < 20000; i++) {
		make_code(1000 + i, other);
		for (unsigned k = 0; k < 6; k++)
			other[k] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(i * 2654435761u >> (k * 5)) & 31];
		memcpy(other + 6, code + 6, sizeof(code) - 6);
		missed += inl_code_parse(other, 48, NULL, got) == 0;
	}
	assert_in_range(missed, 1, 60);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

#define ID "0123456789abcdef"
#define SPEC ID ID

static uint8_t iv_bytes[16], mac_bytes[32], key_bytes[64], salt_bytes[16];

/* Parts of messages that are right; tests make one thing wrong at a time. */
struct parts {
	Inl__Meta__Costs costs;
	Inl__Meta__Wrapped wrapped;
	Inl__Meta__Protector protector;
	Inl__Meta__Options options;
	Inl__Meta__PolicyKey keys[INL_PROTECTORS_MAX + 1], *key_list[INL_PROTECTORS_MAX + 1];
	Inl__Meta__Policy policy;
};

static void make_parts(struct parts *parts)
{
	parts->costs = (Inl__Meta__Costs)INL__META__COSTS__INIT;
	parts->costs.time = 1;
	parts->costs.memory = 64;
	parts->costs.parallelism = 2;
	parts->wrapped = (Inl__Meta__Wrapped)INL__META__WRAPPED__INIT;
	parts->wrapped.iv = (ProtobufCBinaryData){ 16, iv_bytes };
	parts->wrapped.hmac = (ProtobufCBinaryData){ 32, mac_bytes };
	parts->wrapped.encrypted_key = (ProtobufCBinaryData){ 32, key_bytes };
	parts->protector = (Inl__Meta__Protector)INL__META__PROTECTOR__INIT;
	parts->protector.protector_descriptor = (char *)ID;
	parts->protector.source = 2;
	parts->protector.name = (char *)"me";
	parts->protector.costs = &parts->costs;
	parts->protector.salt = (ProtobufCBinaryData){ 16, salt_bytes };
	parts->protector.wrapped_key = &parts->wrapped;
	parts->options = (Inl__Meta__Options)INL__META__OPTIONS__INIT;
	parts->options.padding = 32;
	parts->options.contents = 1;
	parts->options.filenames = 4;
	parts->options.policy_version = 2;
	for (unsigned i = 0; i <= INL_PROTECTORS_MAX; i++) {
		parts->keys[i] = (Inl__Meta__PolicyKey)INL__META__POLICY_KEY__INIT;
		parts->keys[i].protector_descriptor = (char *)ID;
		parts->keys[i].wrapped_key = &parts->wrapped;
		parts->key_list[i] = &parts->keys[i];
	}
	parts->policy = (Inl__Meta__Policy)INL__META__POLICY__INIT;
	parts->policy.key_descriptor = (char *)SPEC;
	parts->policy.options = &parts->options;
	parts->policy.wrapped_policy_keys = parts->key_list;
	parts->policy.n_wrapped_policy_keys = 2;
}

static void expect_protector(const struct parts *parts, const char *says)
{
	Inl__Meta__Protector *out = NULL;
	struct inl_diag diag = { 0 };
	uint8_t data[4096];
	size_t len = inl__meta__protector__pack(&parts->protector, data);

	assert_int_equal(inl_meta_protector(data, len, ID, &diag, &out), says ? -EUCLEAN : 0);
	if (says && !strstr(diag.text, says))
		fail_msg("'%s' does not say '%s'", diag.text, says);
	inl_meta_protector_free(out);
}

static void expect_policy(struct parts *parts, size_t key_len, const char *says)
{
	Inl__Meta__Policy *out = NULL;
	struct inl_diag diag = { 0 };
	static uint8_t data[65536];
	size_t len;

	parts->wrapped.encrypted_key.len = key_len;
	len = inl__meta__policy__pack(&parts->policy, data);
	assert_int_equal(inl_meta_policy(data, len, SPEC, &diag, &out), says ? -EUCLEAN : 0);
	if (says && !strstr(diag.text, says))
		fail_msg("'%s' does not say '%s'", diag.text, says);
	inl_meta_policy_free(out);
}

#define WRONG(what, value, check)               \
	do {                                    \
		make_parts(&parts);             \
		parts.what = value;             \
		check;                          \
	} while (0)

static void test_protector_checks(void **state)
{
	static struct parts parts;

	make_parts(&parts);
	expect_protector(&parts, NULL);
	WRONG(protector.source, 1, expect_protector(&parts, NULL));
	WRONG(protector.source, 0, expect_protector(&parts, "kind that is not known (0)"));
	WRONG(protector.source, 4, expect_protector(&parts, "kind that is not known (4)"));
	WRONG(protector.source, -1, expect_protector(&parts, "not known"));
	WRONG(protector.protector_descriptor, (char *)"0123456789abcdee", expect_protector(&parts, "another one"));
	WRONG(protector.costs, NULL, expect_protector(&parts, "costs"));
	WRONG(protector.wrapped_key, NULL, expect_protector(&parts, "no wrapped key"));
	WRONG(protector.salt.len, 15, expect_protector(&parts, "salt"));
	WRONG(wrapped.iv.len, 15, expect_protector(&parts, "IV"));
	WRONG(wrapped.hmac.len, 0, expect_protector(&parts, "HMAC"));
	WRONG(wrapped.encrypted_key.len, 31, expect_protector(&parts, "31 bytes"));
	WRONG(wrapped.encrypted_key.len, 64, expect_protector(&parts, "64 bytes"));
	WRONG(costs.time, 0, expect_protector(&parts, "not positive"));
	WRONG(costs.time, INT64_MIN, expect_protector(&parts, "not positive"));
	WRONG(costs.memory, -8, expect_protector(&parts, "not positive"));
	WRONG(costs.memory, 15, expect_protector(&parts, "8 KiB"));
	WRONG(costs.parallelism, 9, expect_protector(&parts, "8 KiB"));
	WRONG(costs.parallelism, 256, expect_protector(&parts, "8 KiB"));
	WRONG(costs.parallelism, 258, expect_protector(&parts, NULL)); /* fscrypt took it for 2 */
	parts.costs.truncation_fixed = true;
	expect_protector(&parts, "8 KiB");
	make_parts(&parts);
	parts.protector.source = 1;
	parts.protector.uid = -1;
	expect_protector(&parts, "negative");
	make_parts(&parts);
	parts.protector.source = 3;
	parts.protector.costs = NULL;
	parts.protector.salt.len = 0;
	expect_protector(&parts, NULL);
}

static void test_policy_checks(void **state)
{
	static struct parts parts;

	make_parts(&parts);
	expect_policy(&parts, 64, NULL);
	expect_policy(&parts, 32, "32 bytes");
	WRONG(policy.options, NULL, expect_policy(&parts, 64, "no options"));
	WRONG(policy.key_descriptor, (char *)ID, expect_policy(&parts, 64, "another one"));
	WRONG(options.policy_version, 1, expect_policy(&parts, 64, "version"));
	WRONG(options.policy_version, 0, expect_policy(&parts, 64, "version"));
	WRONG(options.policy_version, 3, expect_policy(&parts, 64, "version"));
	WRONG(options.padding, 0, expect_policy(&parts, 64, "padding"));
	WRONG(options.padding, 64, expect_policy(&parts, 64, "padding"));
	WRONG(options.contents, 0, expect_policy(&parts, 64, "modes"));
	WRONG(options.filenames, 256, expect_policy(&parts, 64, "modes"));
	WRONG(keys[1].protector_descriptor, (char *)"../../../etc/pas", expect_policy(&parts, 64, "name that is none"));
	WRONG(keys[1].wrapped_key, NULL, expect_policy(&parts, 64, "no wrapped key"));
	WRONG(policy.n_wrapped_policy_keys, INL_PROTECTORS_MAX, expect_policy(&parts, 64, NULL));
	WRONG(policy.n_wrapped_policy_keys, INL_PROTECTORS_MAX + 1, expect_policy(&parts, 64, "117 protectors"));
}

/* Every prefix of a message, and every byte of it made another: an answer, and no more. */
static void test_messages_cut(void **state)
{
	static struct parts parts;
	uint8_t data[1024], copy[1024];
	size_t len;

	make_parts(&parts);
	len = inl__meta__protector__pack(&parts.protector, data);
	for (size_t i = 0; i < len * 8; i++) {
		Inl__Meta__Protector *out = NULL;

		memcpy(copy, data, len);
		copy[i / 8] ^= (uint8_t)(1 << i % 8);
		if (!inl_meta_protector(copy, len, ID, NULL, &out))
			inl_meta_protector_free(out);
		out = NULL;
		if (!inl_meta_protector(data, i / 8, ID, NULL, &out))
			inl_meta_protector_free(out);
	}
}

/* ---- a store ----------------------------------------------------------------------------------------------------- */

static void put_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(in_dir(path), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static int count(const struct inl_protector_info *info, void *arg)
{
	unsigned *seen = arg;

	assert_string_equal(info->id, seen[0] ? "fedcba9876543210" : ID);
	if (info->status)
		assert_int_equal(info->why.err, info->status);
	seen[1 + seen[0]++] = (unsigned)-info->status;
	return 0;
}

static unsigned look(unsigned *status)
{
	struct inl_protect *protect = NULL;
	unsigned seen[8] = { 0 };

	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(inl_protectors(protect, count, seen, NULL), 0);
	inl_protect_close(protect);
	*status = seen[1];
	return seen[0];
}

static void test_store(void **state)
{
	static struct parts parts;
	uint8_t data[20000] = { 0 };
	struct inl_protect *protect = NULL;
	unsigned status = 0, seen[8] = { 0 };
	size_t len;

	needs_tools();
	make_parts(&parts);
	len = inl__meta__protector__pack(&parts.protector, data);
	assert_int_equal(try_run("rm -rf m && mkdir -p m"), 0);
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(inl_protectors(protect, count, seen, NULL), -ENOENT);
	inl_protect_close(protect);
	assert_int_equal(try_run("mkdir -p m/.fscrypt/policies m/.fscrypt/protectors && cd m/.fscrypt/protectors &&"
				 "touch .tmp123 README 0123456789ABCDEF 0123456789abcde"),
			 0);
	assert_int_equal(look(&status), 0);
	put_file("m/.fscrypt/protectors/" ID, data, len);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, 0);
	/* Too large, whatever is in it; of another kind; not ours to read. */
	put_file("m/.fscrypt/protectors/" ID, data, INL_META_MAX + 1);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, EUCLEAN);
	assert_int_equal(try_run("cd m/.fscrypt/protectors && rm " ID " && mkfifo " ID), 0);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, EUCLEAN);
	assert_int_equal(try_run("cd m/.fscrypt/protectors && rm " ID " && ln -s /dev/zero " ID), 0);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, EUCLEAN);
	put_file("m/good", data, len);
	run("cd m/.fscrypt/protectors && rm " ID " && ln -s ../../good " ID);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, EUCLEAN);
	run("cd m/.fscrypt && mv protectors other && ln -s other protectors");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_not_equal(inl_protectors(protect, count, seen, NULL), 0);
	inl_protect_close(protect);
	run("cd m/.fscrypt && rm protectors && mv other protectors");
	/* A link, and what it leads to. */
	assert_int_equal(try_run("cd m/.fscrypt/protectors && rm " ID " && printf 'UUID=1-2\\nPATH=/x\\n' >" ID ".link"), 0);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, ENOLINK);
	assert_int_equal(try_run("rm -rf n && mkdir -p n/.fscrypt/protectors"), 0);
	put_file("n/.fscrypt/protectors/" ID, data, len);
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(inl_protect_add_place(protect, in_dir("n"), NULL), 0);
	assert_int_equal(inl_protectors(protect, count, seen, NULL), 0);
	assert_int_equal(seen[0], 1);
	assert_int_equal(seen[1], 0);
	inl_protect_close(protect);
}

/* A directory that everybody writes to, and what belongs to others. */
static void test_store_owners(void **state)
{
	static struct parts parts;
	uint8_t data[1024];
	unsigned status = 0, seen[8] = { 0 };
	struct inl_protect *protect = NULL;
	size_t len;
	int err;

	needs_tools();
	make_parts(&parts);
	parts.protector.source = 1;
	parts.protector.uid = 1000;
	len = inl__meta__protector__pack(&parts.protector, data);
	assert_int_equal(try_run("rm -rf m && mkdir -p m/.fscrypt/protectors && chmod 777 m/.fscrypt/protectors"), 0);
	put_file("m/.fscrypt/protectors/" ID, data, len);
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(inl_protectors(protect, count, seen, NULL), -EACCES);
	inl_protect_close(protect);
	assert_int_equal(try_run("chmod 1777 m/.fscrypt/protectors"), 0);
	if (geteuid()) {
		skip();
		return;
	}
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, 0);
	assert_int_equal(try_run("chown 1001 m/.fscrypt/protectors/" ID), 0);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, EACCES);
	assert_int_equal(try_run("chown 1000 m/.fscrypt/protectors/" ID " && chmod 755 ."), 0);
	assert_int_equal(look(&status), 1);
	assert_int_equal(status, 0);
	/* User 1001 believes root and itself. */
	assert_int_equal(try_run("chmod 644 m/.fscrypt/protectors/*"), 0);
	assert_int_equal(seteuid(1001), 0);
	look(&status);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(status, EACCES);
	/* .fscrypt itself belongs to somebody else, who can put other directories into it. */
	assert_int_equal(try_run("chown 1002 m/.fscrypt"), 0);
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(seteuid(1001), 0);
	err = inl_protectors(protect, count, seen, NULL);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(err, -EACCES);
	inl_protect_close(protect);
}

/* ---- making and changing ------------------------------------------------------------------------------------------ */

static const struct inl_hash_costs cheap = { 1, 64, 2 };

static struct inl_protector *make(struct inl_protect *protect, enum inl_protector_kind kind, const char *name,
				  const char *secret, size_t len)
{
	const struct inl_protector_new what = { .kind = kind, .name = name, .costs = cheap };
	struct inl_protector *protector = NULL;
	struct inl_diag diag = { 0 };

	if (inl_protector_make(protect, &what, secret, len, &diag, &protector))
		fail_msg("%s", diag.text);
	return protector;
}

static int opens(struct inl_protect *protect, const char *id, const char *secret)
{
	struct inl_protector *protector = NULL;
	int err = inl_protector_open(protect, id, secret, strlen(secret), NULL, NULL, &protector);

	inl_protector_free(protector);
	return err;
}

static void make_policy(uint8_t key[64], int version, struct inl_policy *policy)
{
	for (int i = 0; i < 64; i++)
		key[i] = (uint8_t)(i * 7 + version);
	*policy = (struct inl_policy){ .version = (uint8_t)version, .contents_mode = 1, .filenames_mode = 4, .flags = 3 };
	assert_int_equal(inl_key_spec_derive(key, 64, version, &policy->key), 0);
}

/* All of it, on whatever the store is. */
static void live(struct inl_protect *protect)
{
	uint8_t key[64], got[64];
	struct inl_protector *one, *two, *three, *opened = NULL;
	struct inl_policy_info *info = calloc(1, sizeof(*info));
	struct inl_policy policies[2];
	struct inl_diag diag = { 0 };
	char raw[32] = "0123456789012345678901234567890", code[INL_RECOVERY_CODE_SIZE];

	one = make(protect, INL_PROTECTOR_PASSPHRASE, "one", "1st", 3);
	for (int v = 1; v <= 2; v++) {
		make_policy(key, v, &policies[v - 1]);
		assert_int_equal(inl_protected_make(protect, &policies[v - 1], key, one, NULL), 0);
		assert_int_equal(inl_protected_make(protect, &policies[v - 1], key, one, &diag), -EEXIST);
	}
	key[0] ^= 1;
	assert_int_equal(inl_protected_make(protect, &policies[1], key, one, NULL), -EINVAL);
	key[0] ^= 1;
	assert_int_equal(inl_protected_info(protect, &policies[1].key, info, NULL), 0);
	assert_true(inl_policy_equal(&info->policy, &policies[1]));
	assert_int_equal(info->n_protectors, 1);

	two = make(protect, INL_PROTECTOR_RAW_KEY, "two", raw, 32);
	assert_int_equal(inl_recovery_code(code), 0);
	three = make(protect, INL_PROTECTOR_RECOVERY, "three", code, strlen(code));
	assert_int_equal(inl_protector_key(protect, two, &policies[0].key, NULL, got), -ENOKEY);
	assert_int_equal(inl_protected_add(protect, &policies[1].key, two, three, NULL), -ENOKEY);
	for (int v = 0; v < 2; v++) {
		assert_int_equal(inl_protected_add(protect, &policies[v].key, one, two, NULL), 0);
		assert_int_equal(inl_protected_add(protect, &policies[v].key, two, three, NULL), 0);
		assert_int_equal(inl_protected_add(protect, &policies[v].key, two, three, NULL), 0);
	}
	assert_int_equal(inl_protected_info(protect, &policies[1].key, info, NULL), 0);
	assert_int_equal(info->n_protectors, 3);
	assert_int_equal(inl_protector_key(protect, three, &policies[1].key, NULL, got), 0);
	assert_memory_equal(got, key, 64);

	assert_int_equal(opens(protect, inl_protector_id(three), code), 0);
	assert_int_equal(inl_protector_change(protect, one, "new", 3, NULL, NULL), 0);
	assert_int_equal(opens(protect, inl_protector_id(one), "1st"), -EKEYREJECTED);
	assert_int_equal(inl_protector_open(protect, inl_protector_id(one), "new", 3, NULL, NULL, &opened), 0);
	assert_int_equal(inl_protector_key(protect, opened, &policies[1].key, NULL, got), 0);
	assert_memory_equal(got, key, 64);
	inl_protector_free(opened);
	assert_int_equal(inl_protector_change(protect, one, "", 0, NULL, NULL), -EINVAL);

	assert_int_equal(inl_protector_remove(protect, inl_protector_id(one), NULL), 0);
	assert_int_equal(opens(protect, inl_protector_id(one), "new"), -ENOENT);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(three), NULL), 0);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(two), &diag), -EBUSY);
	assert_int_equal(inl_protected_remove(protect, &policies[0].key, NULL), 0);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(two), NULL), -EBUSY);
	assert_int_equal(inl_protected_remove(protect, &policies[1].key, NULL), 0);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(two), NULL), 0);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(two), NULL), -ENOENT);
	inl_protector_free(one);
	inl_protector_free(two);
	inl_protector_free(three);
	free(info);
}

static void test_live_dir(void **state)
{
	struct inl_protect *protect = NULL;

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	live(protect);
	inl_protect_close(protect);
	/* Nothing temporary is left. */
	run("test -z \"$(find m -type f)\" && test $(find m | wc -l) = 4 && test -d m/.fscrypt/policies/");
}

static void test_live_volume(void **state)
{
	struct inl_protect *protect = NULL;
	struct inl_volume *vol = NULL;
	struct inl_dev *dev = NULL;

	needs_tools();
	run("rm -f v && truncate -s 16M v && mke2fs -Fq -t ext4 -O encrypt v");
	assert_int_equal(inl_dev_open(in_dir("v"), INL_OPEN_WRITE, NULL, &dev), 0);
	assert_int_equal(inl_volume_open(dev, NULL, INL_VOLUME_WRITE, NULL, &vol), 0);
	assert_int_equal(inl_protect_open_volume(vol, NULL, &protect), 0);
	live(protect);
	inl_protect_close(protect);
	assert_int_equal(inl_volume_close(vol), 0);
	inl_dev_close(dev);
	run("e2fsck -fn v");
}

/* fscrypt takes a file for damaged whose name is not UTF-8. */
static void test_new_names(void **state)
{
	static const struct {
		const char *name, *says; /* says: NULL where it is fine */
	} rows[] = {
		{ "me", NULL },
		{ " ~\xc2\xa0", NULL },
		{ "J\xc3\xbcrgen", NULL },
		{ "\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf", NULL },
		{ "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", NULL },
		{ "0123456789abcde", NULL },
		{ "0123456789abcdeg", NULL },
		{ "0123456789abcdef0", NULL },
		{ "0123456789abcdef", "an id" },
		{ "0123456789ABCDEF", "an id" },
		{ NULL, "1 to 255" },
		{ "", "1 to 255" },
		{ "a\nb", "control" },
		{ "\x1b[2J", "control" },
		{ "\x7f", "control" },
		{ "\xc2\x9b", "control" },
		{ "J\xfcrgen", "UTF-8" },
		{ "a\x80", "UTF-8" },
		{ "\xc0\xaf", "UTF-8" },
		{ "\xc1\xbf", "UTF-8" },
		{ "\xe0\x9f\xbf", "UTF-8" },
		{ "\xed\xa0\x80", "UTF-8" },
		{ "\xf0\x8f\xbf\xbf", "UTF-8" },
		{ "\xf4\x90\x80\x80", "UTF-8" },
		{ "\xf5\x80\x80\x80", "UTF-8" },
		{ "\xff", "UTF-8" },
		{ "a\xc3", "UTF-8" },
		{ "a\xe2\x82", "UTF-8" },
	};
	struct inl_protect *protect = NULL;

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_protector_new what = {
			.kind = INL_PROTECTOR_PASSPHRASE,
			.name = rows[i].name,
			.costs = cheap,
		};
		struct inl_protector *protector = NULL;
		struct inl_diag diag = { 0 };
		int err = inl_protector_make(protect, &what, "x", 1, &diag, &protector);

		if (err != (rows[i].says ? -EINVAL : 0) || (rows[i].says && !strstr(diag.text, rows[i].says)))
			fail_msg("row %zu: %d, '%s'", i, err, diag.text);
		inl_protector_free(protector);
	}
	inl_protect_close(protect);
}

/* As somebody else's program may have written it. */
static void raise_costs(struct inl_protect *protect, const struct inl_protector *protector, const char *secret,
			const struct inl_hash_costs *costs)
{
	Inl__Meta__Protector *meta = NULL;
	struct inl_meta_owner owner;
	uint8_t by[INL_PROTECTOR_KEY_SIZE], data[4096];
	char path[200];

	assert_int_equal(inl_meta_load_own(protect, inl_protector_id(protector), &owner, NULL, &meta), 0);
	meta->costs->time = (int64_t)costs->time;
	meta->costs->memory = (int64_t)costs->memory;
	meta->costs->parallelism = (int64_t)costs->parallelism;
	assert_int_equal(inl_hash(secret, strlen(secret), meta->salt.data, costs, by), 0);
	assert_int_equal(inl_seal(by, meta->wrapped_key->iv.data, protector->key, INL_PROTECTOR_KEY_SIZE,
				  meta->wrapped_key->encrypted_key.data, meta->wrapped_key->hmac.data),
			 0);
	snprintf(path, sizeof(path), "m/.fscrypt/protectors/%s", inl_protector_id(protector));
	put_file(path, data, inl__meta__protector__pack(meta, data));
	inl_meta_protector_free(meta);
}

/* What the usual limits would refuse to open is not made; what is so already keeps its costs. */
static void test_costs_made(void **state)
{
	static const struct {
		struct inl_hash_costs costs;
		const char *says;
	} rows[] = {
		{ { 1, INL_HASH_MEMORY_MAX + 1, 1 }, "the limit is 131072 KiB" },
		{ { INL_HASH_WORK_MAX + 1, INL_HASH_MEMORY_MAX, 1 }, "67108864 KiB in all" },
		{ { INL_HASH_TIME_MAX + 1, 64, 1 }, "10000 passes" },
		{ { 1, 4096, INL_HASH_LANES_MAX + 1 }, "the limit is 255" },
	};
	const struct inl_hash_costs dear = { 1, INL_HASH_MEMORY_MAX + 1024, 2 };
	const struct inl_hash_limits more = { .memory = 2 * INL_HASH_MEMORY_MAX };
	struct inl_protector *protector, *opened = NULL;
	struct inl_protect *protect = NULL;

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	protector = make(protect, INL_PROTECTOR_PASSPHRASE, "me", "x", 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_protector_new what = {
			.kind = INL_PROTECTOR_PASSPHRASE,
			.name = "2",
			.costs = rows[i].costs,
		};
		struct inl_diag diag = { 0 }, again = { 0 };

		assert_int_equal(inl_protector_make(protect, &what, "x", 1, &diag, &opened), -E2BIG);
		assert_non_null(strstr(diag.text, rows[i].says));
		assert_int_equal(inl_protector_change(protect, protector, "y", 1, &rows[i].costs, &again), -E2BIG);
		assert_string_equal(again.text, diag.text);
	}
	assert_int_equal(opens(protect, inl_protector_id(protector), "x"), 0);
	raise_costs(protect, protector, "x", &dear);
	assert_int_equal(opens(protect, inl_protector_id(protector), "x"), -E2BIG);
	assert_int_equal(inl_protector_change(protect, protector, "y", 1, NULL, NULL), 0);
	assert_int_equal(inl_protector_open(protect, inl_protector_id(protector), "y", 1, &more, NULL, &opened), 0);
	inl_protector_free(opened);
	inl_protector_free(protector);
	inl_protect_close(protect);
}

static void test_make_refused(void **state)
{
	struct inl_protector_new what = { .kind = INL_PROTECTOR_PASSPHRASE, .name = "me", .costs = cheap };
	struct inl_protector *protector = NULL;
	struct inl_protect *protect = NULL;
	struct inl_policy policy;
	uint8_t key[64];

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	assert_int_equal(inl_protector_make(protect, &what, "", 0, NULL, &protector), -EINVAL);
	what.name = "";
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EINVAL);
	what.name = "me";
	what.kind = INL_PROTECTOR_LOGIN;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EINVAL);
	what.kind = INL_PROTECTOR_RAW_KEY;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EINVAL);
	what.kind = INL_PROTECTOR_RECOVERY;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EINVAL);
	what.kind = INL_PROTECTOR_PASSPHRASE;
	what.costs.parallelism = 9;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EINVAL);
	what.costs = (struct inl_hash_costs){ 10001, 64, 2 };
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -E2BIG);
	what.costs = cheap;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), 0);
	make_policy(key, 2, &policy);
	policy.flags |= INL_POLICY_FLAG_IV_INO_LBLK_64;
	assert_int_equal(inl_protected_make(protect, &policy, key, protector, NULL), -EOPNOTSUPP);
	policy.flags = 3;
	policy.log2_data_unit_size = 9;
	assert_int_equal(inl_protected_make(protect, &policy, key, protector, NULL), -EOPNOTSUPP);
	inl_protector_free(protector);
	protector = NULL;
	assert_int_equal(inl_protector_make(protect, &what, "x", 1, NULL, &protector), -EEXIST);
	inl_protect_close(protect);
}

/* Each of two users has a policy, which the other cannot read. */
static void test_shared(void **state)
{
	static const char *const names[] = { "1", "2", "3" };
	struct inl_protect *protect = NULL;
	struct inl_protector *mine[3], *theirs;
	struct inl_policy policies[2];
	uint8_t key[64];
	int errs[2];

	needs_tools();
	if (geteuid())
		skip();
	run("rm -rf m && mkdir m && chmod 755 .");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	theirs = make(protect, INL_PROTECTOR_PASSPHRASE, "theirs", "x", 1);
	make_policy(key, 1, &policies[0]);
	assert_int_equal(inl_protected_make(protect, &policies[0], key, theirs, NULL), 0);
	run("chown 1002 m/.fscrypt/*/* && chmod 1777 m/.fscrypt/*");
	assert_int_equal(seteuid(1001), 0);
	for (int i = 0; i < 3; i++)
		mine[i] = make(protect, INL_PROTECTOR_PASSPHRASE, names[i], "x", 1);
	make_policy(key, 2, &policies[1]);
	errs[0] = inl_protected_make(protect, &policies[1], key, mine[0], NULL);
	if (!errs[0])
		errs[0] = inl_protected_add(protect, &policies[1].key, mine[0], mine[1], NULL);
	if (!errs[0])
		errs[0] = inl_protector_remove(protect, inl_protector_id(mine[0]), NULL);
	errs[1] = inl_protector_remove(protect, inl_protector_id(mine[1]), NULL);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(errs[0], 0);
	assert_int_equal(errs[1], -EBUSY);
	/* What can be read, and is damaged, is in the way as before. */
	run("cd m/.fscrypt/policies && for f in ????????????????; do chown 1001 $f && echo no >$f; done");
	assert_int_equal(seteuid(1001), 0);
	errs[0] = inl_protector_remove(protect, inl_protector_id(mine[2]), NULL);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(errs[0], -EUCLEAN);
	inl_protector_free(theirs);
	for (int i = 0; i < 3; i++)
		inl_protector_free(mine[i]);
	inl_protect_close(protect);
}

/* Two at once, each with a store of its own. */
struct racer {
	pthread_barrier_t *start;
	struct inl_protect *protect;
	const struct inl_key_spec *policy;
	const struct inl_protector *by, *more; /* more: to be added by that; or only by: to be removed */
	int err;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	pthread_barrier_wait(racer->start);
	if (racer->more)
		racer->err = inl_protected_add(racer->protect, racer->policy, racer->by, racer->more, NULL);
	else
		racer->err = inl_protector_remove(racer->protect, inl_protector_id(racer->by), NULL);
	return NULL;
}

static void race_both(struct racer racers[2])
{
	pthread_barrier_t start;
	pthread_t threads[2];

	pthread_barrier_init(&start, NULL, 2);
	for (int i = 0; i < 2; i++) {
		racers[i].start = &start;
		assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &racers[i].protect), 0);
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		inl_protect_close(racers[i].protect);
	}
	pthread_barrier_destroy(&start);
}

/* Both are added, and of two that are removed one stays, which still opens the policy. */
static void race_once(struct inl_protect *protect)
{
	static const char *const names[] = { "a", "b", "c" };
	struct inl_policy_info *info = calloc(1, sizeof(*info));
	struct racer racers[2] = { 0 };
	struct inl_protector *all[3];
	struct inl_policy policy;
	uint8_t key[64];

	for (int i = 0; i < 3; i++)
		all[i] = make(protect, INL_PROTECTOR_PASSPHRASE, names[i], "x", 1);
	make_policy(key, 2, &policy);
	assert_int_equal(inl_protected_make(protect, &policy, key, all[0], NULL), 0);
	for (int i = 0; i < 2; i++)
		racers[i] = (struct racer){ .policy = &policy.key, .by = all[0], .more = all[i + 1] };
	race_both(racers);
	assert_int_equal(racers[0].err | racers[1].err, 0);
	assert_int_equal(inl_protected_info(protect, &policy.key, info, NULL), 0);
	assert_int_equal(info->n_protectors, 3);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(all[0]), NULL), 0);
	for (int i = 0; i < 2; i++)
		racers[i] = (struct racer){ .by = all[i + 1] };
	race_both(racers);
	assert_int_equal(racers[0].err + racers[1].err, -EBUSY);
	assert_int_equal(inl_protector_key(protect, all[racers[0].err ? 1 : 2], &policy.key, NULL, key), 0);
	assert_int_equal(inl_protected_remove(protect, &policy.key, NULL), 0);
	/* What was removed is not added again. */
	assert_int_equal(inl_protected_make(protect, &policy, key, all[0], NULL), -ENOENT);
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(all[racers[0].err ? 1 : 2]), NULL), 0);
	for (int i = 0; i < 3; i++)
		inl_protector_free(all[i]);
	free(info);
}

static void test_two_at_once(void **state)
{
	struct inl_protect *protect = NULL;

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	for (int i = 0; i < 40; i++)
		race_once(protect);
	inl_protect_close(protect);
}

static size_t get_file(const char *path, uint8_t *data, size_t room)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	assert_non_null(f);
	n = fread(data, 1, room, f);
	fclose(f);
	return n;
}

/* What a later fscrypt may keep in its messages is there after they were written here. */
static void test_unknown_fields(void **state)
{
	static const uint8_t unknown[] = { 0xca, 0x3e, 6, 'l', 'a', 't', 'e', 'r', '!' }; /* field 1001, 6 bytes */
	struct inl_protector *protector, *more;
	struct inl_protect *protect = NULL;
	struct inl_policy policy;
	char path[200], hex[INL_KEY_SPEC_HEX_SIZE];
	uint8_t data[4096], key[64];
	size_t n;

	needs_tools();
	run("rm -rf m && mkdir m");
	assert_int_equal(inl_protect_open_dir(in_dir("m"), NULL, &protect), 0);
	protector = make(protect, INL_PROTECTOR_PASSPHRASE, "me", "x", 1);
	more = make(protect, INL_PROTECTOR_PASSPHRASE, "more", "y", 1);
	make_policy(key, 2, &policy);
	assert_int_equal(inl_protected_make(protect, &policy, key, protector, NULL), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "m/.fscrypt/%s/%s", inl_meta_dir_names[i],
			 i ? inl_protector_id(protector) : inl_key_spec_hex(&policy.key, hex));
		n = get_file(in_dir(path), data, sizeof(data));
		memcpy(data + n, unknown, sizeof(unknown));
		put_file(path, data, n + sizeof(unknown));
		if (i)
			assert_int_equal(inl_protector_change(protect, protector, "z", 1, NULL, NULL), 0);
		else
			assert_int_equal(inl_protected_add(protect, &policy.key, protector, more, NULL), 0);
		n = get_file(in_dir(path), data, sizeof(data));
		assert_non_null(memmem(data, n, unknown, sizeof(unknown)));
	}
	assert_int_equal(inl_protector_remove(protect, inl_protector_id(more), NULL), 0);
	snprintf(path, sizeof(path), "m/.fscrypt/policies/%s", hex);
	n = get_file(in_dir(path), data, sizeof(data));
	assert_non_null(memmem(data, n, unknown, sizeof(unknown)));
	assert_int_equal(opens(protect, inl_protector_id(protector), "z"), 0);
	inl_protector_free(protector);
	inl_protector_free(more);
	inl_protect_close(protect);
}

/* Of control groups old and new, and those above. */
static void test_memory(void **state)
{
	uint64_t whole = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	needs_tools();
	run("rm -rf g && mkdir -p g/proc/self g/sys/fs/cgroup/a/b g/sys/fs/cgroup/memory/c");
	assert_int_equal(inl_memory_here(in_dir("g")), whole);
	run("echo 0::/a/b >g/proc/self/cgroup && echo max >g/sys/fs/cgroup/a/b/memory.max");
	assert_int_equal(inl_memory_here(in_dir("g")), whole);
	run("echo 67108864 >g/sys/fs/cgroup/a/memory.max");
	assert_int_equal(inl_memory_here(in_dir("g")), 67108864);
	run("echo 33554432 >g/sys/fs/cgroup/a/b/memory.max");
	assert_int_equal(inl_memory_here(in_dir("g")), 33554432);
	run("echo 4:cpu,memory:/c >g/proc/self/cgroup && echo 8388608 >g/sys/fs/cgroup/memory/c/memory.limit_in_bytes");
	assert_int_equal(inl_memory_here(in_dir("g")), whole);
	run("echo 4:memory:/c >g/proc/self/cgroup");
	assert_int_equal(inl_memory_here(in_dir("g")), 8388608);
	run("echo 9223372036854771712 >g/sys/fs/cgroup/memory/c/memory.limit_in_bytes");
	assert_int_equal(inl_memory_here(in_dir("g")), whole);
	run("printf 'x\\n:\\n::\\n0::' >g/proc/self/cgroup");
	assert_int_equal(inl_memory_here(in_dir("g")), whole);
}

static void test_costs(void **state)
{
	struct inl_hash_costs costs = { 0 };

	assert_int_equal(inl_hash_costs_here(20000000, &costs), 0);
	assert_true(costs.time >= 1 && costs.parallelism >= 1 && costs.memory >= 8 * costs.parallelism);
	assert_true(costs.memory <= INL_HASH_MEMORY_MAX);
	assert_int_equal(inl_hash_check(&costs, NULL, NULL), 0);
}

static int set_up(void **state)
{
	return work_dir_make("protect");
}

static int tear_down(void **state)
{
	return work_dir_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_argon2),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_unwrap_wrong),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_code_forms),
		cmocka_unit_test(test_code_shape),
		cmocka_unit_test(test_code_errors),
		cmocka_unit_test(test_code_other_group),
		cmocka_unit_test(test_protector_checks),
		cmocka_unit_test(test_policy_checks),
		cmocka_unit_test(test_messages_cut),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_store_owners),
		cmocka_unit_test(test_live_dir),
		cmocka_unit_test(test_live_volume),
		cmocka_unit_test(test_new_names),
		cmocka_unit_test(test_costs_made),
		cmocka_unit_test(test_make_refused),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_unknown_fields),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_costs),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
