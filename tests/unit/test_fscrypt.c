/*
 * tests/unit/test_fscrypt.c: policies, key ring, per-inode keys and IVs, names, no-key names, symlink targets.
 * Not here: where a file system keeps contexts and names (test_ext4.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst.
 *
 * Oracles: OpenSSL's HKDF, XTS and CBC put together here a second time; hashlib and hmac of Python; known answers that
 * agree with files written by Linux.
 */
#include <inlay/cipher.h>
#include "fscrypt/info.h"
#include "fscrypt/keyring.h"
#include <errno.h>
#include <inlay/block.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define INO        12
#define HASHED_INO 0xb1d67186u /* of inode 12 under the key below */
#define BLOCK      4096

static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
				  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
static const uint8_t nonce[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
static const struct inl_policy_traits ext4_4k = {
	.block_bits = 12, .lblk_bits = 32, .ino_bits = 32, .stable_inodes = true
};

/* ---- helpers ---- */

static const uint8_t *master_key(void)
{
	static uint8_t key[64];

	for (int i = 0; i < 64; i++)
		key[i] = i + 1;
	return key;
}

static void assert_hex(const void *bytes, const char *hex)
{
	char text[1025];
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", ((const uint8_t *)bytes)[i]);
	assert_string_equal(text, hex);
}

struct env {
	struct inl_dev *dev;
	struct inl_keyring *ring;
	struct inl_fscrypt *fs;
};

static void env_open(struct env *env, const char *spec, const struct inl_policy_traits *traits, size_t key_len)
{
	struct inl_fscrypt_params params = { .traits = *traits };

	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, NULL, &env->dev), 0);
	assert_int_equal(inl_keyring_new(&env->ring), 0);
	if (key_len)
		assert_int_equal(inl_keyring_add(env->ring, master_key(), key_len, NULL), 0);
	params.dev = env->dev;
	params.keys = env->ring;
	memcpy(params.uuid, uuid, sizeof(uuid));
	assert_int_equal(inl_fscrypt_new(&params, &env->fs), 0);
}

static void env_close(struct env *env)
{
	struct inl_counters counters;

	inl_fscrypt_free(env->fs);
	inl_dev_counters(env->dev, &counters);
	assert_int_equal(counters.keys_started, counters.keys_evicted);
	inl_keyring_free(env->ring);
	inl_dev_close(env->dev);
}

/* A policy of the first key_len bytes of the master key, as a context. Returns its length. */
static size_t context(uint8_t c[40], int version, int contents, int names, int flags, int log2_unit, size_t key_len)
{
	struct inl_key_spec spec;

	assert_int_equal(inl_key_spec_derive(master_key(), key_len, version, &spec), 0);
	memset(c, 0, 40);
	c[0] = version;
	c[1] = contents;
	c[2] = names;
	c[3] = flags;
	if (version == 1) {
		memcpy(c + 4, spec.bytes, 8);
		memcpy(c + 12, nonce, 16);
		return 28;
	}
	c[4] = log2_unit;
	memcpy(c + 8, spec.bytes, 16);
	memcpy(c + 24, nonce, 16);
	return 40;
}

static struct inl_crypt_info *info_new(struct env *env, enum inl_crypt_kind kind, uint64_t ino, int version,
				       int contents, int names, int flags, int log2_unit, size_t key_len)
{
	struct inl_crypt_info *info;
	uint8_t c[40];
	size_t len = context(c, version, contents, names, flags, log2_unit, key_len);

	assert_int_equal(inl_crypt_info_new(env->fs, ino, kind, false, c, len, &info), 0);
	return info;
}

static void oracle_hkdf(size_t key_len, int ctx, const void *extra, size_t extra_len, uint8_t *out, size_t len)
{
	uint8_t salt[64] = { 0 }, text[64] = "fscrypt";
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *k = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[5];

	text[8] = ctx;
	memcpy(text + 9, extra, extra_len);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA512", 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)master_key(), key_len);
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof(salt));
	params[3] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, text, 9 + extra_len);
	params[4] = OSSL_PARAM_construct_end();
	assert_int_equal(EVP_KDF_derive(k, out, len, params), 1);
	EVP_KDF_CTX_free(k);
	EVP_KDF_free(kdf);
}

static void oracle_encrypt(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t iv[16], const uint8_t *in,
			   int len, uint8_t *out)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;

	assert_int_equal(EVP_EncryptInit_ex(c, cipher, NULL, key, iv), 1);
	EVP_CIPHER_CTX_set_padding(c, 0);
	assert_int_equal(EVP_EncryptUpdate(c, out, &n, in, len), 1);
	assert_int_equal(n, len);
	EVP_CIPHER_CTX_free(c);
}

static void store_le(uint8_t *p, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = v >> (8 * i);
}

/* ---- contexts and policies ---- */

static void test_context_parse(void **state)
{
	struct inl_policy policy, untouched;
	uint8_t c[64] = { 0 }, got[16];
	(void)state;

	assert_int_equal(context(c, 1, 5, 6, 3, 0, 64), 28);
	assert_int_equal(inl_policy_from_context(c, 28, &policy, got), 0);
	assert_int_equal(policy.version, 1);
	assert_int_equal(policy.contents_mode, 5);
	assert_int_equal(policy.filenames_mode, 6);
	assert_int_equal(policy.flags, 3);
	assert_int_equal(policy.log2_data_unit_size, 0);
	assert_int_equal(policy.key.version, 1);
	assert_memory_equal(policy.key.bytes, c + 4, 8);
	assert_hex(policy.key.bytes + 8, "0000000000000000");
	assert_memory_equal(got, nonce, 16);

	assert_int_equal(context(c, 2, 1, 4, 8, 9, 64), 40);
	c[5] = 0x55, c[6] = 0x66, c[7] = 0x77;
	assert_int_equal(inl_policy_from_context(c, 40, &policy, got), 0);
	assert_int_equal(policy.version, 2);
	assert_int_equal(policy.flags, 8);
	assert_int_equal(policy.log2_data_unit_size, 9);
	assert_hex(policy.reserved, "556677");
	assert_memory_equal(policy.key.bytes, c + 8, 16);
	assert_memory_equal(got, nonce, 16);

	memset(&untouched, 0xee, sizeof(untouched));
	for (unsigned version = 0; version < 256; version++) {
		for (size_t len = 0; len <= sizeof(c); len++) {
			if ((version == 1 && len == 28) || (version == 2 && len == 40))
				continue;
			c[0] = version;
			policy = untouched;
			assert_int_equal(inl_policy_from_context(c, len, &policy, got), -EINVAL);
			assert_memory_equal(&policy, &untouched, sizeof(policy));
		}
	}
}

/* Is it refused with a reason exactly when it should be? */
static void expect_policy(bool ok, const struct inl_policy *p, const struct inl_policy_traits *traits, bool casefold)
{
	struct inl_diag diag = { 0 };
	int rc = inl_policy_check(p, traits, casefold, &diag);

	if (rc != (ok ? 0 : -EINVAL))
		fail_msg("v%u %u/%u flags 0x%x unit %u: %d %s", p->version, p->contents_mode, p->filenames_mode,
			 p->flags, p->log2_data_unit_size, rc, diag.text);
	assert_int_equal(diag.err, rc);
	assert_int_equal(strlen(diag.text) > 10, !ok);
	assert_int_equal(inl_policy_check(p, traits, casefold, NULL), rc);
}

static void test_policy_pairs(void **state)
{
	static const char v1[] = "1/4 5/6 9/9 ", v2[] = "1/4 5/6 9/9 1/10 7/8 ";
	(void)state;

	for (int version = 0; version < 256; version++) {
		for (int contents = 0; contents < (version < 4 ? 256 : 12); contents++) {
			for (int names = 0; names < (version < 4 ? 256 : 12); names++) {
				struct inl_policy p = { version, contents, names };
				char pair[24];

				snprintf(pair, sizeof(pair), "%d/%d ", contents, names);
				/* No pair is the end of another: "1/4 " against "11/4 " cannot happen in these lists.
				 */
				expect_policy((version == 1 && strstr(v1, pair)) || (version == 2 && strstr(v2, pair)),
					      &p, &ext4_4k, false);
			}
		}
	}
}

static bool flags_ok(int version, int contents, int flags)
{
	int method = flags & ~3;

	if (method == 0)
		return true;
	if (method == 4)
		return contents == 9;
	return version == 2 && contents == 1 && (method == 8 || method == 16);
}

static void test_policy_flags(void **state)
{
	static const uint8_t pairs[][2] = { { 1, 4 }, { 5, 6 }, { 9, 9 }, { 1, 10 }, { 7, 8 } };
	(void)state;

	for (int version = 1; version <= 2; version++) {
		for (int i = 0; i < (version == 1 ? 3 : 5); i++) {
			for (int flags = 0; flags < 256; flags++) {
				struct inl_policy p = { version, pairs[i][0], pairs[i][1], flags };

				expect_policy(flags_ok(version, pairs[i][0], flags), &p, &ext4_4k, false);
			}
		}
	}
}

static void test_policy_units(void **state)
{
	static const uint8_t methods[] = { 0, 8, 16 };
	(void)state;

	for (unsigned block_bits = 10; block_bits <= 16; block_bits++) {
		for (unsigned log2 = 0; log2 < 256; log2++) {
			for (int m = 0; m < 3; m++) {
				struct inl_policy_traits traits = ext4_4k;
				struct inl_policy p = { 2, 1, 4, methods[m], log2 };
				bool in_range = !log2 || (log2 >= 9 && log2 <= block_bits);
				bool whole = !log2 || log2 == block_bits;

				traits.block_bits = block_bits;
				expect_policy(in_range && (!m || whole), &p, &traits, false);
				/* Files so small that their units can be counted in 32 bits all the same. */
				traits.lblk_bits = 32 - (block_bits - 9);
				expect_policy(in_range && (m < 2 || whole), &p, &traits, false);
				traits.lblk_bits++;
				expect_policy(in_range && (m < 2 || whole) && (!m || log2 != 9), &p, &traits, false);
				p.version = 1;
				p.flags = 0;
				expect_policy(!log2, &p, &traits, false);
			}
		}
	}
}

static void test_policy_traits(void **state)
{
	struct inl_policy_traits traits = ext4_4k;
	(void)state;

	for (int flags = 0; flags <= 16; flags += 8) {
		struct inl_policy p = { 2, 1, 4, flags };

		traits = ext4_4k;
		expect_policy(true, &p, &traits, false);
		expect_policy(true, &p, &traits, true);
		traits.stable_inodes = false;
		expect_policy(!flags, &p, &traits, false);
		traits = ext4_4k;
		traits.ino_bits = 33;
		expect_policy(!flags, &p, &traits, false);
		traits = ext4_4k;
		traits.lblk_bits = 33;
		expect_policy(!flags, &p, &traits, false);
		for (int i = 0; i < 3; i++) {
			p = (struct inl_policy){ 2, 1, 4, flags };
			p.reserved[i] = 1;
			expect_policy(false, &p, &ext4_4k, false);
		}
	}
	expect_policy(true, &(struct inl_policy){ 1, 1, 4 }, &ext4_4k, false);
	expect_policy(false, &(struct inl_policy){ 1, 1, 4 }, &ext4_4k, true);
}

static void test_policy_words(void **state)
{
	struct inl_policy a = { 2, 1, 4, 2 }, b = a;
	static const char *const names[] = {
		[1] = "AES-256-XTS",     [4] = "AES-256-CBC-CTS", [5] = "AES-128-CBC-ESSIV",
		[6] = "AES-128-CBC-CTS", [7] = "SM4-XTS",         [8] = "SM4-CBC-CTS",
		[9] = "Adiantum",        [10] = "AES-256-HCTR2",  [11] = NULL
	};
	(void)state;

	assert_true(inl_policy_equal(&a, &b));
	for (size_t i = 0; i < sizeof(b); i++) {
		((uint8_t *)&b)[i] ^= 1;
		assert_false(inl_policy_equal(&a, &b));
		b = a;
	}
	for (int mode = -3; mode < 300; mode++) {
		const char *want = mode >= 0 && mode < 11 ? names[mode] : NULL;

		if (want)
			assert_string_equal(inl_fscrypt_mode_name(mode), want);
		else
			assert_null(inl_fscrypt_mode_name(mode));
	}
	for (int flags = 0; flags < 4; flags++) {
		a.flags = flags | 8;
		assert_int_equal(inl_policy_padding(&a), 4 << flags);
	}
	assert_string_equal(inl_policy_iv_method(&(struct inl_policy){ .flags = 3 }), "per-file");
	assert_string_equal(inl_policy_iv_method(&(struct inl_policy){ .flags = 4 }), "DIRECT_KEY");
	assert_string_equal(inl_policy_iv_method(&(struct inl_policy){ .flags = 8 }), "IV_INO_LBLK_64");
	assert_string_equal(inl_policy_iv_method(&(struct inl_policy){ .flags = 17 }), "IV_INO_LBLK_32");
}

/* ---- keys ---- */

/* fscryptctl, test.py: 32 times 'a', 32 times '1'. */
static void test_identifier_vector(void **state)
{
	struct inl_key_spec spec;
	char hex[INL_KEY_SPEC_HEX_SIZE];
	uint8_t key[64];
	(void)state;

	memset(key, 'a', 32);
	memset(key + 32, '1', 32);
	assert_int_equal(inl_key_spec_derive(key, 64, 2, &spec), 0);
	assert_string_equal(inl_key_spec_hex(&spec, hex), "912ae510a458723a839a9fad701538ac");
	assert_int_equal(inl_key_spec_derive(key, 15, 2, &spec), -EINVAL);
	assert_int_equal(inl_key_spec_derive(key, 65, 1, &spec), -EINVAL);
	assert_int_equal(inl_key_spec_derive(key, 64, 0, &spec), -EINVAL);
	assert_int_equal(inl_key_spec_derive(key, 64, 3, &spec), -EINVAL);
}

/* Both names of keys of every length, against hashlib and hmac. */
static void test_names_by_python(void **state)
{
	static const char script[] =
		"python3 -c '\n"
		"import hashlib, hmac\n"
		"for n in range(16, 65):\n"
		"    k = bytes(range(1, n + 1))\n"
		"    prk = hmac.new(bytes(64), k, hashlib.sha512).digest()\n"
		"    okm = hmac.new(prk, b\"fscrypt\\0\\1\\1\", hashlib.sha512).hexdigest()\n"
		"    print(hashlib.sha512(hashlib.sha512(k).digest()).hexdigest()[:16], okm[:32])\n"
		"'";
	FILE *python = popen(script, "r");
	(void)state;

	assert_non_null(python);
	for (size_t len = 16; len <= 64; len++) {
		char v1[17], v2[33], hex[INL_KEY_SPEC_HEX_SIZE];
		struct inl_key_spec spec;

		if (fscanf(python, "%16s %32s", v1, v2) != 2)
			fail_msg("python3 did not answer");
		assert_int_equal(inl_key_spec_derive(master_key(), len, 1, &spec), 0);
		assert_int_equal(spec.version, 1);
		assert_string_equal(inl_key_spec_hex(&spec, hex), v1);
		assert_int_equal(inl_key_spec_derive(master_key(), len, 2, &spec), 0);
		assert_int_equal(spec.version, 2);
		assert_string_equal(inl_key_spec_hex(&spec, hex), v2);
	}
	while (fgetc(python) != EOF) /* closed too early, it would die of a broken pipe */
		;
	assert_int_equal(pclose(python), 0);
}

static void test_keyring(void **state)
{
	struct inl_master_key *master;
	struct inl_key_spec spec, want;
	struct inl_keyring *ring;
	struct inl_diag diag = { 0 };
	uint8_t out[16];
	(void)state;

	inl_keyring_free(NULL);
	assert_int_equal(inl_keyring_new(&ring), 0);
	assert_int_equal(inl_keyring_count(ring), 0);
	assert_int_equal(inl_keyring_spec(ring, 0, 2, &spec), -ENOENT);
	assert_int_equal(inl_keyring_add(ring, master_key(), 15, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "15"));
	assert_int_equal(inl_keyring_add(ring, master_key(), 65, NULL), -EINVAL);
	for (unsigned round = 0; round < 2; round++)
		for (size_t len = 16; len <= 64; len++)
			assert_int_equal(inl_keyring_add(ring, master_key(), len, NULL), 0);
	assert_int_equal(inl_keyring_count(ring), 49);
	for (unsigned i = 0; i < 49; i++) {
		for (int version = 1; version <= 2; version++) {
			assert_int_equal(inl_keyring_spec(ring, i, version, &spec), 0);
			assert_int_equal(inl_key_spec_derive(master_key(), 16 + i, version, &want), 0);
			assert_memory_equal(&spec, &want, sizeof(spec));
			assert_true(inl_keyring_has(ring, &spec));
			master = inl_keyring_use(ring, &spec);
			assert_int_equal(master->len, 16 + i);
			inl_keyring_unuse(ring, master);
			spec.bytes[7] ^= 1;
			assert_false(inl_keyring_has(ring, &spec));
		}
	}
	assert_int_equal(inl_keyring_spec(ring, 49, 2, &spec), -ENOENT);
	assert_int_equal(inl_keyring_spec(ring, 0, 3, &spec), -EINVAL);

	assert_int_equal(inl_key_spec_derive(master_key(), 64, 2, &spec), 0);
	master = inl_keyring_use(ring, &spec);
	assert_int_equal(inl_master_key_derive(master, INL_HKDF_DIRHASH_KEY, nonce, 16, out, 16), 0);
	inl_keyring_unuse(ring, master);
	assert_hex(out, "56a94d5d52f8532a98e25757f4979543");
	assert_null(inl_keyring_use(NULL, &spec));
	inl_keyring_free(ring);
}

/* Unlock, expect an outcome, and look for words in the reason. */
static void expect_unlock(struct inl_crypt_info *info, int want, const char *words)
{
	struct inl_diag diag = { 0 };
	int rc = inl_crypt_info_unlock(info, &diag);

	if (rc != want)
		fail_msg("%d, not %d: %s", rc, want, diag.text);
	assert_int_equal(diag.err, want);
	if (words && !strstr(diag.text, words))
		fail_msg("no \"%s\" in: %s", words, diag.text);
	assert_int_equal(inl_crypt_info_unlock(info, NULL), want);
}

static void test_key_missing(void **state)
{
	struct env env;
	struct inl_crypt_info *info[2];
	struct inl_crypt_ctx ctx;
	uint64_t n = 1;
	uint8_t other[64] = { 7 };
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 0);
	info[0] = info_new(&env, INL_CRYPT_REG, INO, 1, 1, 4, 0, 0, 64);
	info[1] = info_new(&env, INL_CRYPT_DIR, INO, 2, 1, 4, 0, 0, 64);
	for (int i = 0; i < 2; i++) {
		char hex[INL_KEY_SPEC_HEX_SIZE], words[80];

		inl_key_spec_hex(&inl_crypt_info_policy(info[i])->key, hex);
		snprintf(words, sizeof(words), "the key %s is needed", hex);
		expect_unlock(info[i], -ENOKEY, words);
	}
	expect_unlock(info[1], -ENOKEY, "no key was given");
	assert_int_equal(inl_crypt_info_ctx(info[0], 0, &n, &ctx, NULL), -ENOKEY);
	for (unsigned i = 0; i < 5; i++) {
		char hex[INL_KEY_SPEC_HEX_SIZE];
		struct inl_key_spec spec;

		other[1] = i;
		assert_int_equal(inl_keyring_add(env.ring, other, 64, NULL), 0);
		for (int version = 1; version <= 2; version++) {
			assert_int_equal(inl_keyring_spec(env.ring, i < 3 ? i : 2, version, &spec), 0);
			expect_unlock(info[version - 1], -ENOKEY, inl_key_spec_hex(&spec, hex));
		}
	}
	expect_unlock(info[0], -ENOKEY, ", and 2 more");
	assert_int_equal(inl_keyring_add(env.ring, master_key(), 64, NULL), 0);
	expect_unlock(info[0], 0, NULL);
	expect_unlock(info[1], 0, NULL);
	assert_int_equal(inl_crypt_info_ctx(info[0], 0, &n, &ctx, NULL), 0);
	inl_crypt_info_ctx_put(info[0]);
	inl_crypt_info_free(info[0]);
	inl_crypt_info_free(info[1]);
	env_close(&env);

	/* No ring at all. */
	{
		struct inl_fscrypt_params params = { .traits = ext4_4k };
		uint8_t c[40];

		assert_int_equal(inl_fscrypt_new(&params, &env.fs), 0);
		assert_int_equal(
			inl_crypt_info_new(env.fs, INO, INL_CRYPT_DIR, false, c, context(c, 2, 1, 4, 0, 0, 64), info),
			0);
		expect_unlock(info[0], -ENOKEY, "no key was given");
		inl_crypt_info_free(info[0]);
		inl_fscrypt_free(env.fs);
	}
}

/* The least number of bytes a master key must have: version 1: the mode's key; version 2: its strength. */
static void test_key_too_short(void **state)
{
	static const struct {
		uint8_t contents, names, need_v1[2], need_v2[2];
	} rows[] = {
		{ 1, 4, { 64, 32 }, { 32, 32 } }, { 5, 6, { 16, 16 }, { 16, 16 } }, { 9, 9, { 32, 32 }, { 32, 32 } },
		{ 1, 10, { 0 }, { 32, 32 } },     { 7, 8, { 0 }, { 16, 16 } },
	};
	(void)state;

	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (int version = r < 3 ? 1 : 2; version <= 2; version++) {
			for (size_t len = 16; len <= 64; len++) {
				const uint8_t *need = version == 1 ? rows[r].need_v1 : rows[r].need_v2;
				struct env env;

				env_open(&env, "ram(64K)", &ext4_4k, len);
				for (int dir = 0; dir < 2; dir++) {
					struct inl_crypt_info *info =
						info_new(&env, dir ? INL_CRYPT_DIR : INL_CRYPT_REG, INO, version,
							 rows[r].contents, rows[r].names, 0, 0, len);

					if (len < need[dir])
						expect_unlock(info, -ENOKEY, "too short");
					else
						assert_int_not_equal(inl_crypt_info_unlock(info, NULL), -ENOKEY);
					inl_crypt_info_free(info);
				}
				env_close(&env);
			}
		}
	}
}

static enum inl_cipher_id cipher_of(int mode)
{
	static const enum inl_cipher_id ids[] = {
		[1] = INL_CIPHER_AES_256_XTS, [4] = INL_CIPHER_AES_256_CTS,    [5] = INL_CIPHER_AES_128_CBC_ESSIV,
		[6] = INL_CIPHER_AES_128_CTS, [7] = INL_CIPHER_SM4_XTS,        [8] = INL_CIPHER_SM4_CTS,
		[9] = INL_CIPHER_ADIANTUM,    [10] = INL_CIPHER_AES_256_HCTR2,
	};

	return ids[mode];
}

/* Unlocks, and the key is one for this kind of inode: contents or names. */
static void expect_works(struct inl_crypt_info *info, enum inl_crypt_kind kind)
{
	struct inl_crypt_ctx ctx = { 0 };
	uint8_t stored[16];
	uint64_t n = 1;

	expect_unlock(info, 0, NULL);
	assert_int_equal(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL), kind == INL_CRYPT_REG ? 0 : -EINVAL);
	assert_int_equal(ctx.use != NULL, kind == INL_CRYPT_REG);
	if (ctx.use)
		inl_crypt_info_ctx_put(info);
	assert_int_equal(inl_fname_encrypt(info, "n", 1, 16, stored), kind == INL_CRYPT_REG ? -ENOKEY : 0);
}

/* Every policy that Linux accepts either works or says which cipher is missing. */
static void test_cipher_missing(void **state)
{
	static const uint8_t rows[][3] = { { 1, 4, 0 }, { 1, 4, 8 },  { 1, 4, 16 }, { 5, 6, 0 }, { 9, 9, 0 },
					   { 9, 9, 4 }, { 1, 10, 0 }, { 1, 10, 8 }, { 7, 8, 0 } };
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (int kind = INL_CRYPT_REG; kind <= INL_CRYPT_LNK; kind++) {
			int mode = rows[r][kind == INL_CRYPT_REG ? 0 : 1];
			struct inl_crypt_info *info =
				info_new(&env, kind, INO, 2, rows[r][0], rows[r][1], rows[r][2], 0, 64);

			if (inl_cipher_info(cipher_of(mode))->available)
				expect_works(info, kind);
			else
				expect_unlock(info, -ENOPKG, inl_fscrypt_mode_name(mode));
			inl_crypt_info_free(info);
		}
	}
	env_close(&env);
}

static bool has_impl(enum inl_cipher_id id, const char *name)
{
	struct inl_cipher_impl impl;

	for (unsigned i = 0; inl_cipher_impl(id, i, &impl); i++)
		if (!strcmp(impl.name, name) && !impl.lacks)
			return true;
	return false;
}

/* An implementation was chosen that only some ciphers have: the others are not computed in another way. */
static void test_implementation_missing(void **state)
{
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	assert_int_equal(inl_dev_set_ciphers(env.dev, "portable"), 0);
	for (int kind = INL_CRYPT_REG; kind <= INL_CRYPT_LNK; kind++) {
		struct inl_crypt_info *info = info_new(&env, kind, INO, 2, 1, 4, 0, 0, 64);

		if (has_impl(cipher_of(kind == INL_CRYPT_REG ? 1 : 4), "portable"))
			expect_works(info, kind);
		else
			expect_unlock(info, -ENOENT, "no implementation named portable");
		inl_crypt_info_free(info);
	}
	env_close(&env);
}

static void test_refused_policy(void **state)
{
	struct inl_crypt_info *info;
	struct env env;
	uint8_t c[40];
	size_t len;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 0);
	info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 9, 0, 200, 64);
	expect_unlock(info, -EINVAL, "does not go together");
	assert_int_equal(inl_crypt_info_unit_size(info), BLOCK);
	inl_crypt_info_free(info);
	len = context(c, 1, 1, 4, 0, 0, 64);
	assert_int_equal(inl_crypt_info_new(env.fs, INO, INL_CRYPT_DIR, true, c, len, &info), 0);
	expect_unlock(info, -EINVAL, "casefold");
	inl_crypt_info_free(info);
	assert_int_equal(inl_crypt_info_new(env.fs, INO, INL_CRYPT_DIR, false, c, len + 1, &info), -EINVAL);
	env_close(&env);
}

/* A version 1 master key of two equal halves gives XTS keys of two equal halves. */
static void test_weak_key(void **state)
{
	uint8_t key[64], c[28] = { 1, 1, 4, 0 };
	struct inl_crypt_info *info;
	struct inl_key_spec spec;
	struct env env;
	(void)state;

	memcpy(key, master_key(), 32);
	memcpy(key + 32, key, 32);
	env_open(&env, "ram(64K)", &ext4_4k, 0);
	assert_int_equal(inl_keyring_add(env.ring, key, 64, NULL), 0);
	assert_int_equal(inl_key_spec_derive(key, 64, 1, &spec), 0);
	memcpy(c + 4, spec.bytes, 8);
	assert_int_equal(inl_crypt_info_new(env.fs, INO, INL_CRYPT_REG, false, c, 28, &info), 0);
	expect_unlock(info, -EINVAL, "weak");
	inl_crypt_info_free(info);
	env_close(&env);
}

/* ---- contents ---- */

/* Write zeros to block lblk (at the start of the device) and read back what lies there. */
static void write_zeros(struct env *env, struct inl_crypt_info *info, uint64_t lblk, uint8_t out[BLOCK])
{
	static const uint8_t zeros[BLOCK];
	struct inl_crypt_ctx ctx;
	uint8_t back[BLOCK];
	uint64_t n = 1;

	assert_int_equal(inl_crypt_info_ctx(info, lblk, &n, &ctx, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(inl_dev_write_keyed(env->dev, 0, zeros, BLOCK, &ctx), 0);
	assert_int_equal(inl_dev_read(env->dev, 0, out, BLOCK), 0);
	assert_int_equal(inl_dev_read_keyed(env->dev, 0, back, BLOCK, &ctx), 0);
	assert_memory_equal(back, zeros, BLOCK);
	inl_crypt_info_ctx_put(info);
}

static void test_contents_known(void **state)
{
	static const struct {
		int version, contents, names, flags;
		const char *hex;
	} rows[] = {
		{ 2, 1, 4, 0, "7d7f037e7866ebac38b5f612f2fe8ee971722d935da2ab1a45048c74c07560fb" },
		{ 2, 1, 4, 8, "87fdf2971fa7f2a05c19373166dc9efffc05d7da218905a0748e34ea00adc452" },
		{ 2, 1, 4, 16, "062653fbfde520c69d9e9a64a7e03d437416d0713f4a03aab2a5a3ad91713763" },
		{ 1, 1, 4, 0, "9765ac6609b75a7ea04322aeddb86a4631bfd66581a72290240d0247a879aad6" },
		{ 2, 5, 6, 0, "9243c626df244c8f2a1d9fa3d7f74f7d329668047a9c4b101d386ca2a027066b" },
		{ 2, 9, 9, 4, "c183ad87b54d560cbd664ac1e00bb758f792e5ce090222a71f16aada8a49abd1" },
		{ 1, 9, 9, 4, "a92f718c24169c96ef865729b42fbd53bbb83b2a4d2afdf1e75334d3423a42ba" },
	};
	(void)state;

	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct inl_crypt_info *info;
		uint8_t got[BLOCK];
		struct env env;

		env_open(&env, "ram(64K)", &ext4_4k, 64);
		info = info_new(&env, INL_CRYPT_REG, INO, rows[r].version, rows[r].contents, rows[r].names,
				rows[r].flags, 0, 64);
		if (inl_cipher_info(cipher_of(rows[r].contents))->available) {
			write_zeros(&env, info, 0, got);
			assert_hex(got, rows[r].hex);
		} else {
			expect_unlock(info, -ENOPKG, inl_fscrypt_mode_name(rows[r].contents));
		}
		inl_crypt_info_free(info);
		env_close(&env);
	}
}

/* XTS in every method, many blocks, units of 512 bytes and of a block, against a second implementation of everything.
 */
static void test_contents_oracle(void **state)
{
	static const uint64_t lblks[] = { 0, 1, 7, 0x1234567, 0xfffffffe, 0xffffffff };
	static const uint8_t rows[][2] = { { 0, 0 }, { 0, 9 }, { 0, 12 }, { 8, 0 }, { 8, 12 }, { 16, 0 } };
	static const uint8_t zeros[BLOCK];
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		int flags = rows[r][0], unit = rows[r][1] == 9 ? 512 : BLOCK;
		struct inl_crypt_info *info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, flags, rows[r][1], 64);
		uint8_t key[64], extra[17] = { 1 };

		assert_int_equal(inl_crypt_info_unit_size(info), unit);
		memcpy(extra + 1, uuid, 16);
		if (flags)
			oracle_hkdf(64, flags == 8 ? 4 : 6, extra, 17, key, 64);
		else
			oracle_hkdf(64, 2, nonce, 16, key, 64);
		for (size_t i = 0; i < sizeof(lblks) / sizeof(lblks[0]); i++) {
			uint8_t got[BLOCK], want[BLOCK];

			write_zeros(&env, info, lblks[i], got);
			for (int at = 0; at < BLOCK; at += unit) {
				uint64_t index = lblks[i] * (BLOCK / unit) + at / unit;
				uint8_t iv[16] = { 0 };

				if (flags == 0)
					store_le(iv, index, 8);
				else if (flags == 8)
					store_le(iv, index, 4), store_le(iv + 4, INO, 4);
				else
					store_le(iv, HASHED_INO + index, 4);
				oracle_encrypt(EVP_aes_256_xts(), key, iv, zeros, unit, want + at);
			}
			assert_memory_equal(got, want, BLOCK);
		}
		inl_crypt_info_free(info);
	}
	env_close(&env);
}

static void test_duns(void **state)
{
	struct inl_crypt_info *info;
	struct env env;
	uint64_t dun[4], n = 10;
	struct inl_crypt_ctx ctx;
	struct inl_diag diag = { 0 };
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	info = info_new(&env, INL_CRYPT_REG, INO, 2, 9, 9, 4, 0, 64);
	inl_crypt_info_dun(info, 0x123456789, dun);
	assert_int_equal(dun[0], 0x123456789);
	assert_int_equal(dun[1], 0x0706050403020100);
	assert_int_equal(dun[2], 0x0f0e0d0c0b0a0908);
	assert_int_equal(dun[3], 0);
	inl_crypt_info_free(info);
	info = info_new(&env, INL_CRYPT_REG, 0xfedcba98, 2, 1, 4, 8, 0, 64);
	inl_crypt_info_dun(info, 0xffffffff, dun);
	assert_int_equal(dun[0], 0xfedcba98ffffffff);
	assert_int_equal(dun[1] | dun[2] | dun[3], 0);
	inl_crypt_info_free(info);
	info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, 16, 0, 64);
	expect_unlock(info, 0, NULL);
	inl_crypt_info_dun(info, 0, dun);
	assert_int_equal(dun[0], HASHED_INO);
	assert_int_equal(dun[1] | dun[2] | dun[3], 0);
	inl_crypt_info_free(info);

	/* The largest file ends at 2^32 blocks; directories have no contents. */
	info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, 8, 0, 64);
	assert_int_equal(inl_crypt_info_ctx(info, 0xfffffffe, &n, &ctx, NULL), 0);
	assert_int_equal(n, 2);
	inl_crypt_info_ctx_put(info);
	assert_int_equal(inl_crypt_info_ctx(info, 1ull << 32, &n, &ctx, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "beyond"));
	inl_crypt_info_free(info);
	info = info_new(&env, INL_CRYPT_DIR, INO, 2, 1, 4, 8, 0, 64);
	assert_int_equal(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL), -EINVAL);
	inl_crypt_info_free(info);
	env_close(&env);
}

/* IV_INO_LBLK_32: no context crosses the wrap, and none is empty. */
static void test_lblk32_wrap(void **state)
{
	const uint64_t wrap = (1ull << 32) - HASHED_INO; /* the block whose IV is 0 */
	static const uint8_t zeros[6 * BLOCK];
	uint8_t key[64], extra[17] = { 1 }, got[6 * BLOCK], want[6 * BLOCK];
	struct inl_crypt_info *info;
	struct inl_crypt_ctx ctx;
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, 16, 0, 64);
	for (uint64_t lblk = wrap - 20; lblk < wrap + 20; lblk++) {
		for (uint64_t ask = 1; ask < 50; ask++) {
			uint64_t n = ask, room = lblk < wrap ? wrap - lblk : 1000;

			assert_int_equal(inl_crypt_info_ctx(info, lblk, &n, &ctx, NULL), 0);
			assert_int_equal(n, ask < room ? ask : room);
			assert_int_equal(ctx.dun[0], (uint32_t)(HASHED_INO + lblk));
			inl_crypt_info_ctx_put(info);
		}
	}

	/* Six blocks around it, written in as many pieces as the contexts ask for. */
	for (uint64_t done = 0, n; done < 6; done += n) {
		n = 6 - done;
		assert_int_equal(inl_crypt_info_ctx(info, wrap - 4 + done, &n, &ctx, NULL), 0);
		assert_int_equal(n, done ? 2 : 4);
		assert_int_equal(inl_dev_write_keyed(env.dev, done * BLOCK, zeros, n * BLOCK, &ctx), 0);
		inl_crypt_info_ctx_put(info);
	}
	memcpy(extra + 1, uuid, 16);
	oracle_hkdf(64, 6, extra, 17, key, 64);
	for (int i = 0; i < 6; i++) {
		uint8_t iv[16] = { 0 };

		store_le(iv, HASHED_INO + wrap - 4 + i, 4);
		oracle_encrypt(EVP_aes_256_xts(), key, iv, zeros, BLOCK, want + i * BLOCK);
	}
	assert_int_equal(inl_dev_read(env.dev, 0, got, sizeof(got)), 0);
	assert_memory_equal(got, want, sizeof(got));
	inl_crypt_info_free(info);
	env_close(&env);
}

static uint64_t keys_started(const struct env *env)
{
	struct inl_counters counters;

	inl_dev_counters(env->dev, &counters);
	return counters.keys_started;
}

static void test_sharing(void **state)
{
	static const struct {
		int flags, n_started;
	} rows[] = { { 0, 4 }, { 8, 1 }, { 16, 1 } };
	(void)state;

	for (size_t r = 0; r < 3; r++) {
		struct inl_crypt_info *info[4], *other;
		struct env env;

		env_open(&env, "ram(64K)", &ext4_4k, 64);
		for (int i = 0; i < 4; i++) {
			info[i] = info_new(&env, INL_CRYPT_REG, INO + i, 2, 1, 4, rows[r].flags, 0, 64);
			expect_unlock(info[i], 0, NULL);
		}
		assert_int_equal(keys_started(&env), rows[r].n_started);
		/* Another master key shares nothing. */
		assert_int_equal(inl_keyring_add(env.ring, master_key(), 32, NULL), 0);
		other = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, rows[r].flags, 0, 32);
		expect_unlock(other, 0, NULL);
		assert_int_equal(keys_started(&env), rows[r].n_started + 1);
		for (int i = 0; i < 4; i++)
			inl_crypt_info_free(info[i]);
		inl_crypt_info_free(other);
		env_close(&env);
	}
}

/* Seen from an engine that takes DUNs of so many bytes at most. */
static void test_dun_bytes(void **state)
{
	static const struct {
		int flags, log2_unit, lblk_bits, bytes;
	} rows[] = { { 0, 0, 32, 4 }, { 0, 12, 32, 4 }, { 0, 9, 32, 5 }, { 0, 9, 29, 4 },
		     { 0, 0, 24, 3 }, { 8, 0, 32, 8 },  { 16, 0, 32, 4 } };
	(void)state;

	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (int bytes = rows[r].bytes - 1; bytes <= rows[r].bytes; bytes++) {
			struct inl_policy_traits traits = ext4_4k;
			struct inl_crypt_info *info;
			struct inl_crypt_ctx ctx;
			struct env env;
			char spec[80];
			uint64_t n = 1;

			traits.lblk_bits = rows[r].lblk_bits;
			snprintf(spec, sizeof(spec), "engine(ram(64K), slots=1, dun_bytes=%d)", bytes);
			env_open(&env, spec, &traits, 64);
			info = info_new(&env, INL_CRYPT_REG, INO, 2, 1, 4, rows[r].flags, rows[r].log2_unit, 64);
			assert_int_equal(inl_crypt_info_ctx(info, 0, &n, &ctx, NULL), 0);
			assert_int_equal(inl_key_use_native(ctx.use), bytes == rows[r].bytes);
			inl_crypt_info_ctx_put(info);
			inl_crypt_info_free(info);
			env_close(&env);
		}
	}
}

static void *unlock_many(void *arg)
{
	struct inl_crypt_info **info = arg;
	long bad = 0;

	for (int i = 0; i < 64; i++) {
		struct inl_crypt_ctx ctx;
		uint64_t n = 1;

		if (inl_crypt_info_ctx(info[i], 3, &n, &ctx, NULL) || !ctx.use)
			bad++;
		else
			inl_crypt_info_ctx_put(info[i]);
	}
	return (void *)bad;
}

static void test_threads(void **state)
{
	struct inl_crypt_info *info[64];
	pthread_t threads[4];
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	for (int i = 0; i < 64; i++)
		info[i] = info_new(&env, INL_CRYPT_REG, INO + i, 2, 1, 4, i % 2 ? 8 : 0, 0, 64);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, unlock_many, info), 0);
	for (int i = 0; i < 4; i++) {
		void *bad;

		pthread_join(threads[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(keys_started(&env), 32 + 1);
	for (int i = 0; i < 64; i++)
		inl_crypt_info_free(info[i]);
	inl_crypt_info_free(NULL);
	inl_fscrypt_free(NULL);
	env_close(&env);
}

/* ---- names ---- */

static void test_names_known(void **state)
{
	static const struct {
		int names, flags;
		const char *hex;
	} rows[] = {
		{ 4, 3, "5cb2a7682a675ad009cc5401ce96209cb11b1123ab7c7f65ba62df02ba11140c" },
		{ 4, 0, "b11b1123ab7c7f65ba62df02ba11140c" },
		{ 10, 3, "5ace5fd72dfe69f36a88248d73e4b43ee576a833c3968259571c5ef12956dbe6" },
	};
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct inl_crypt_info *dir =
			info_new(&env, INL_CRYPT_DIR, INO, 2, 1, rows[r].names, rows[r].flags, 0, 64);
		uint8_t stored[255], name[255];
		size_t stored_len, len;

		assert_true(inl_fname_stored_len(inl_crypt_info_policy(dir), 5, 255, &stored_len));
		assert_int_equal(stored_len, strlen(rows[r].hex) / 2);
		assert_int_equal(inl_fname_encrypt(dir, "hello", 5, stored_len, stored), -ENOKEY);
		assert_int_equal(inl_fname_decrypt(dir, stored, stored_len, name, &len), -ENOKEY);
		if (inl_crypt_info_unlock(dir, NULL)) {
			assert_false(inl_cipher_info(cipher_of(rows[r].names))->available);
		} else {
			assert_int_equal(inl_fname_encrypt(dir, "hello", 5, stored_len, stored), 0);
			assert_hex(stored, rows[r].hex);
			assert_int_equal(inl_fname_decrypt(dir, stored, stored_len, name, &len), 0);
			assert_int_equal(len, 5);
			assert_memory_equal(name, "hello", 5);
		}
		inl_crypt_info_free(dir);
	}
	env_close(&env);
}

/* A name of one cipher block: CTS is plain CBC there, so every way to make keys and IVs can be seen from outside. */
static void test_names_oracle(void **state)
{
	static const uint8_t name[16] = "sixteen bytes ab";
	static const int flags[] = { 0, 8, 16 };
	struct env env;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	for (int i = 0; i < 3; i++) {
		struct inl_crypt_info *dir = info_new(&env, INL_CRYPT_DIR, INO, 2, 1, 4, flags[i], 0, 64);
		uint8_t key[32], iv[16] = { 0 }, extra[17] = { 4 }, got[16], want[16];

		memcpy(extra + 1, uuid, 16);
		if (flags[i] == 0)
			oracle_hkdf(64, 2, nonce, 16, key, 32);
		else
			oracle_hkdf(64, flags[i] == 8 ? 4 : 6, extra, 17, key, 32);
		if (flags[i] == 8)
			store_le(iv + 4, INO, 4);
		if (flags[i] == 16)
			store_le(iv, HASHED_INO, 4);
		oracle_encrypt(EVP_aes_256_cbc(), key, iv, name, 16, want);
		expect_unlock(dir, 0, NULL);
		assert_int_equal(inl_fname_encrypt(dir, name, 16, 16, got), 0);
		assert_memory_equal(got, want, 16);
		inl_crypt_info_free(dir);
	}
	env_close(&env);
}

static void test_names_all_lengths(void **state)
{
	uint8_t stored[255], back[255];
	struct inl_crypt_info *dir;
	struct env env;
	size_t stored_len, len;
	char name[256];
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	memset(name, 'n', sizeof(name));
	for (int pad = 0; pad < 4; pad++) {
		dir = info_new(&env, INL_CRYPT_DIR, INO, 2, 1, 4, pad, 0, 64);
		expect_unlock(dir, 0, NULL);
		for (size_t n = 1; n <= 255; n++) {
			size_t want = n < 16 ? 16 : n;

			while (want % (4 << pad))
				want++;
			assert_true(inl_fname_stored_len(inl_crypt_info_policy(dir), n, 255, &stored_len));
			assert_int_equal(stored_len, want > 255 ? 255 : want);
			assert_int_equal(inl_fname_encrypt(dir, name, n, stored_len, stored), 0);
			assert_int_equal(inl_fname_decrypt(dir, stored, stored_len, back, &len), 0);
			assert_int_equal(len, n);
			assert_memory_equal(back, name, n);
			for (size_t i = n; i < stored_len; i++)
				assert_int_equal(back[i], 0);
		}
		assert_false(inl_fname_stored_len(inl_crypt_info_policy(dir), 256, 255, &stored_len));
		for (size_t n = 0; n < 16; n++)
			assert_int_equal(inl_fname_decrypt(dir, stored, n, back, &len), -EUCLEAN);
		assert_int_equal(inl_fname_encrypt(dir, "a\0b", 3, 16, stored), -EINVAL);
		assert_int_equal(inl_fname_encrypt(dir, name, 17, 16, stored), -EINVAL);
		assert_int_equal(inl_fname_encrypt(dir, name, 3, 15, stored), -EINVAL);
		inl_crypt_info_free(dir);
	}
	env_close(&env);
}

/* ---- no-key names ---- */

static void check_nokey(uint32_t hash, uint32_t minor, const uint8_t *stored, size_t len, const char *want)
{
	char name[INL_NOKEY_NAME_MAX];
	size_t n;

	assert_int_equal(inl_nokey_encode(hash, minor, stored, len, name, &n), 0);
	assert_int_equal(n, strlen(want));
	assert_memory_equal(name, want, n);
}

/* Made with struct, base64 and hashlib of Python. */
static void test_nokey_known(void **state)
{
	static const uint8_t hello[] = { 0x5c, 0xb2, 0xa7, 0x68, 0x2a, 0x67, 0x5a, 0xd0, 0x09, 0xcc, 0x54,
					 0x01, 0xce, 0x96, 0x20, 0x9c, 0xb1, 0x1b, 0x11, 0x23, 0xab, 0x7c,
					 0x7f, 0x65, 0xba, 0x62, 0xdf, 0x02, 0xba, 0x11, 0x14, 0x0c };
	uint8_t falling[240], same[149];
	(void)state;

	for (int i = 0; i < 240; i++)
		falling[i] = 255 - i;
	memset(same, 0xfb, sizeof(same));
	check_nokey(0x773b3eee, 0x0dacfc5e, hello, sizeof(hello),
		    "7j47d178rA1csqdoKmda0AnMVAHOliCcsRsRI6t8f2W6Yt8CuhEUDA");
	check_nokey(0, 0, falling, sizeof(falling),
		    "AAAAAAAAAAD__v38-_r5-Pf29fTz8vHw7-7t7Ovq6ejn5uXk4-Lh4N_e3dzb2tnY19bV1NPS0dDPzs3My8rJyMfGxcTDwsHAv7"
		    "69vLu6ubi3trW0s7KxsK-urayrqqmop6alpKOioaCfnp2cm5qZmJeWlZSTkpGQj46NjIuKiYiHhoWEg4KBgH9-fXx7enl4d3Z1"
		    "dHNycXBvbm1sa33BfSUB5jfpHMPR2A859WHjuQFDGtnjiQxR0P0Jubi6");
	check_nokey(
		0xffffffff, 0xfbf0fbf0, same, sizeof(same),
		"______D78Pv7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7"
		"-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7"
		"-_v7-_v7-w");
}

static void test_nokey_round_trip(void **state)
{
	static uint8_t stored[65536];
	struct inl_nokey nokey;
	char name[INL_NOKEY_NAME_MAX];
	size_t n;
	(void)state;

	for (size_t i = 0; i < sizeof(stored); i++)
		stored[i] = i * 167 + (i >> 8);
	for (size_t len = 0; len < 16; len++)
		assert_int_equal(inl_nokey_encode(0, 0, stored, len, name, &n), -EUCLEAN);
	for (size_t len = 16; len <= 65533; len += len < 300 ? 1 : 4093) {
		assert_int_equal(inl_nokey_encode(0x01020304, 0xa0b0c0d0, stored, len, name, &n), 0);
		assert_int_equal(n, len <= 149 ? ((8 + len) * 4 + 2) / 3 : 252);
		assert_int_equal(inl_nokey_decode(name, n, &nokey), 0);
		assert_int_equal(nokey.hash, 0x01020304);
		assert_int_equal(nokey.minor, 0xa0b0c0d0);
		assert_int_equal(nokey.truncated, len > 149);
		assert_int_equal(nokey.len, len > 149 ? 149 : len);
		assert_memory_equal(nokey.bytes, stored, nokey.len);
		assert_true(inl_nokey_match(&nokey, stored, len));
		assert_false(inl_nokey_match(&nokey, stored, len - 1));
		assert_false(inl_nokey_match(&nokey, stored, len + 1));
		assert_false(inl_nokey_match(&nokey, stored, len > 149 ? 149 : 0));
		assert_false(inl_nokey_match(&nokey, stored, len > 16 ? 16 : 1));
		for (size_t i = 0; i < len; i += len < 300 ? 1 : 997) {
			stored[i] ^= 1;
			assert_false(inl_nokey_match(&nokey, stored, len));
			stored[i] ^= 1;
		}
	}
}

static void test_nokey_rejects(void **state)
{
	static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	struct inl_nokey nokey, untouched;
	char name[400];
	(void)state;

	memset(&untouched, 0xee, sizeof(untouched));
	memset(name, 'A', sizeof(name));
	for (size_t len = 0; len <= 300; len++) {
		size_t bytes = len * 3 / 4;
		bool ok = len % 4 != 1 && ((bytes >= 9 && bytes <= 157) || bytes == 189);

		nokey = untouched;
		assert_int_equal(inl_nokey_decode(name, len, &nokey), ok ? 0 : -ENOENT);
		assert_int_equal(memcmp(&nokey, &untouched, sizeof(nokey)) == 0, !ok);
	}
	/* Every character at every place; where bits are left over, they must be zero. */
	for (size_t len = 12; len <= 52; len++) {
		for (size_t at = 0; len % 4 != 1 && at < len; at++) {
			for (int c = 0; c < 256; c++) {
				const char *p = c ? strchr(good, c) : NULL;
				int spare = len % 4 == 2 ? 15 : len % 4 == 3 ? 3 : 0;
				bool ok = p && (at != len - 1 || ((p - good) & spare) == 0);

				name[at] = c;
				assert_int_equal(inl_nokey_decode(name, len, &nokey), ok ? 0 : -ENOENT);
			}
			name[at] = 'A';
		}
	}
}

/* ---- symlinks ---- */

static size_t symlink_make(struct inl_crypt_info *link, const void *target, size_t len, uint8_t *raw)
{
	size_t stored;

	assert_true(inl_fname_stored_len(inl_crypt_info_policy(link), len, 4093, &stored));
	assert_int_equal(inl_fname_encrypt(link, target, len, stored, raw + 2), 0);
	store_le(raw, stored, 2);
	return stored + 2;
}

static void test_symlink(void **state)
{
	static const size_t lens[] = { 1, 15, 16, 17, 32, 255, 256, 1000, 4092, 4093 };
	struct inl_crypt_info *link, *locked;
	uint8_t raw[4200], target[4093];
	char out[4100], want[252];
	struct env env, without;
	size_t n, want_len, len;
	(void)state;

	memset(target, 't', sizeof(target));
	env_open(&env, "ram(64K)", &ext4_4k, 64);
	env_open(&without, "ram(64K)", &ext4_4k, 0);
	link = info_new(&env, INL_CRYPT_LNK, INO, 2, 1, 4, 3, 0, 64);
	locked = info_new(&without, INL_CRYPT_LNK, INO, 2, 1, 4, 3, 0, 64);
	expect_unlock(link, 0, NULL);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		len = symlink_make(link, target, lens[i], raw);
		memset(out, 0x7e, sizeof(out));
		assert_int_equal(inl_symlink_decode(link, raw, len, out, lens[i], &n, NULL), 0);
		assert_int_equal(n, lens[i]);
		assert_memory_equal(out, target, n);
		assert_int_equal(out[n], 0x7e);
		memset(out, 0x7e, sizeof(out));
		assert_int_equal(inl_symlink_decode(link, raw, len, out, lens[i] - 1, &n, NULL), -ERANGE);
		assert_int_equal(out[0], 0x7e);

		assert_int_equal(inl_nokey_encode(0, 0, raw + 2, len - 2, want, &want_len), 0);
		assert_int_equal(inl_symlink_decode(locked, raw, len, out, want_len, &n, NULL), 0);
		assert_int_equal(n, want_len);
		assert_memory_equal(out, want, n);
		assert_int_equal(inl_symlink_decode(locked, raw, len, out, want_len - 1, &n, NULL), -ERANGE);
	}
	inl_crypt_info_free(link);
	inl_crypt_info_free(locked);
	env_close(&without);
	env_close(&env);
}

static void test_symlink_damaged(void **state)
{
	struct inl_crypt_info *link;
	struct inl_diag diag = { 0 };
	uint8_t raw[100];
	char out[300];
	struct env env;
	size_t n, len;
	(void)state;

	env_open(&env, "ram(64K)", &ext4_4k, 64);
	link = info_new(&env, INL_CRYPT_LNK, INO, 2, 1, 4, 0, 0, 64);
	expect_unlock(link, 0, NULL);
	len = symlink_make(link, "target", 6, raw);
	assert_int_equal(len, 18);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(inl_symlink_decode(link, raw, cut, out, sizeof(out), &n, NULL), -EUCLEAN);
	for (unsigned says = 0; says < 65536; says++) {
		store_le(raw, says, 2);
		assert_int_equal(inl_symlink_decode(link, raw, len, out, sizeof(out), &n, NULL),
				 says == 16 ? 0 : -EUCLEAN);
	}
	/* An empty target. */
	symlink_make(link, "", 0, raw);
	assert_int_equal(inl_symlink_decode(link, raw, len, out, sizeof(out), &n, &diag), -EUCLEAN);
	assert_non_null(strstr(diag.text, "empty"));
	inl_crypt_info_free(link);

	/* A policy that does not work is an error, not a missing key. */
	diag = (struct inl_diag){ 0 };
	link = info_new(&env, INL_CRYPT_LNK, INO, 2, 1, 4, 32, 0, 64);
	assert_int_equal(inl_symlink_decode(link, raw, len, out, sizeof(out), &n, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "flags"));
	inl_crypt_info_free(link);
	if (!inl_cipher_info(INL_CIPHER_SM4_CTS)->available) {
		link = info_new(&env, INL_CRYPT_LNK, INO, 2, 7, 8, 0, 0, 64);
		assert_int_equal(inl_symlink_decode(link, raw, len, out, sizeof(out), &n, NULL), -ENOPKG);
		inl_crypt_info_free(link);
	}
	env_close(&env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_context_parse),
		cmocka_unit_test(test_policy_pairs),
		cmocka_unit_test(test_policy_flags),
		cmocka_unit_test(test_policy_units),
		cmocka_unit_test(test_policy_traits),
		cmocka_unit_test(test_policy_words),
		cmocka_unit_test(test_identifier_vector),
		cmocka_unit_test(test_names_by_python),
		cmocka_unit_test(test_keyring),
		cmocka_unit_test(test_key_missing),
		cmocka_unit_test(test_key_too_short),
		cmocka_unit_test(test_cipher_missing),
		cmocka_unit_test(test_implementation_missing),
		cmocka_unit_test(test_refused_policy),
		cmocka_unit_test(test_weak_key),
		cmocka_unit_test(test_contents_known),
		cmocka_unit_test(test_contents_oracle),
		cmocka_unit_test(test_duns),
		cmocka_unit_test(test_lblk32_wrap),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_dun_bytes),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_names_known),
		cmocka_unit_test(test_names_oracle),
		cmocka_unit_test(test_names_all_lengths),
		cmocka_unit_test(test_nokey_known),
		cmocka_unit_test(test_nokey_round_trip),
		cmocka_unit_test(test_nokey_rejects),
		cmocka_unit_test(test_symlink),
		cmocka_unit_test(test_symlink_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
