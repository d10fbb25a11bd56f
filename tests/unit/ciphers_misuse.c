/*
 * tests/unit/ciphers_misuse.c: what ciphers answer to callers that do it wrong: one misuse for each call of inlay/cipher.h.
 * Not here: a CPU that computes wrongly (ciphers_known.c).
 * Read more: inlay/cipher.h. The first test reads it, and fails if a call has no row in the table at the end.
 */
#include "tests/unit/misuse.h"
#include "tests/unit/ciphers_rig.h"

static const int wrong_ids[] = { 0, INL_CIPHER_MAX, -1, INT_MAX, INT_MIN };
static const int not_available[] = { INL_CIPHER_ADIANTUM, INL_CIPHER_AES_256_HCTR2, INL_CIPHER_SM4_XTS,
				     INL_CIPHER_SM4_CTS };
static const uint64_t zero_dun[4];
static uint8_t ramp[64]; /* a key */

static const uint8_t *good_key(void)
{
	for (unsigned i = 0; i < sizeof(ramp); i++)
		ramp[i] = (uint8_t)(i * 5 + 1);
	return ramp;
}

static struct inl_cipher *essiv(void)
{
	struct inl_cipher *cipher;

	assert_int_equal(inl_cipher_new(INL_CIPHER_AES_128_CBC_ESSIV, NULL, good_key(), &cipher), 0);
	return cipher;
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static void test_info(void **state)
{
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(wrong_ids); i++)
		assert_null(inl_cipher_info((enum inl_cipher_id)wrong_ids[i]));
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(not_available); i++)
		assert_false(inl_cipher_info((enum inl_cipher_id)not_available[i])->available);
}

static void no_impl(enum inl_cipher_id id, unsigned i)
{
	struct inl_cipher_impl out = { "untouched", "untouched" };

	assert_false(inl_cipher_impl(id, i, &out));
	assert_string_equal(out.name, "untouched");
	assert_string_equal(out.lacks, "untouched");
}

/* The names are different, the last is OpenSSL's. */
static void test_impl(void **state)
{
	for (int id = INL_CIPHER_AES_256_XTS; id <= INL_CIPHER_AES_128_CTS; id++) {
		struct inl_cipher_impl impl, other;
		unsigned n = 0;

		for (; inl_cipher_impl((enum inl_cipher_id)id, n, &impl); n++)
			for (unsigned k = 0; k < n && inl_cipher_impl((enum inl_cipher_id)id, k, &other); k++)
				assert_string_not_equal(impl.name, other.name);
		assert_true(n >= (id <= INL_CIPHER_AES_128_XTS ? 2 : 1)); /* "portable" runs everywhere */
		assert_string_equal(impl.name, "openssl");
		no_impl((enum inl_cipher_id)id, n);
		no_impl((enum inl_cipher_id)id, UINT_MAX);
	}
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(wrong_ids); i++)
		no_impl((enum inl_cipher_id)wrong_ids[i], 0);
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(not_available); i++)
		no_impl((enum inl_cipher_id)not_available[i], 0);
}

static void test_self_test(void **state)
{
	static const char *const names[] = { "nonsense", "", "OPENSSL", "openssl " };
	struct inl_diag diag = { 0 };

	for (size_t i = 0; i < INL_TC_ARRAY_LEN(names); i++) {
		diag.err = 0;
		assert_int_equal(inl_cipher_self_test(names[i], &diag), -ENOENT);
		assert_int_equal(diag.err, -ENOENT);
		assert_non_null(strstr(diag.text, names[i]));
		assert_null(strchr(diag.text, '\n'));
		assert_int_equal(inl_cipher_self_test(names[i], NULL), -ENOENT);
	}
	memset(&diag, 0, sizeof(diag));
	assert_int_equal(inl_cipher_self_test(NULL, &diag), 0);
	assert_int_equal(inl_cipher_self_test("openssl", &diag), 0);
	assert_int_equal(inl_cipher_self_test("portable", &diag), 0);
	assert_int_equal(inl_cipher_self_test(NULL, NULL), 0);
	assert_int_equal(diag.err, 0);
	assert_string_equal(diag.text, "");
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void not_new(int id, const char *impl, const uint8_t *key, int err)
{
	struct inl_cipher *const untouched = (struct inl_cipher *)buf;
	struct inl_cipher *cipher = untouched;

	assert_int_equal(inl_cipher_new((enum inl_cipher_id)id, impl, key, &cipher), err);
	assert_ptr_equal(cipher, untouched);
}

/* Equal halves; not if one bit is different, whichever it is. */
static void weak_keys_of(const struct inl_tc_subject *subject)
{
	unsigned half = subject->key_size / 2;
	struct inl_cipher *cipher;
	uint8_t key[64];

	inl_tc_fill(key, half);
	memcpy(key + half, key, half);
	not_new(subject->id, subject->impl->name, key, -EINVAL);
	for (unsigned bit = 0; bit < 8 * subject->key_size; bit++) {
		key[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, key, &cipher), 0);
		inl_cipher_free(cipher);
		key[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void test_new(void **state)
{
	struct inl_cipher_impl impl;

	for (size_t i = 0; i < INL_TC_ARRAY_LEN(wrong_ids); i++)
		not_new(wrong_ids[i], NULL, good_key(), -ENOPKG);
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(not_available); i++) {
		not_new(not_available[i], NULL, good_key(), -ENOPKG);
		not_new(not_available[i], "openssl", good_key(), -ENOPKG);
	}
	for (int id = INL_CIPHER_AES_256_XTS; id <= INL_CIPHER_AES_128_CTS; id++) {
		not_new(id, "nonsense", good_key(), -ENOENT);
		not_new(id, "", good_key(), -ENOENT);
		for (unsigned i = 0; inl_cipher_impl((enum inl_cipher_id)id, i, &impl); i++)
			if (impl.lacks)
				not_new(id, impl.name, good_key(), -ENOENT);
	}
	not_new(INL_CIPHER_AES_128_CBC_ESSIV, "portable", good_key(), -ENOENT); /* another cipher's */
	inl_tc_each(weak_keys_of);
}

static void test_free_nothing(void **state)
{
	inl_cipher_free(NULL);
}

static void promise_of(const struct inl_tc_subject *subject)
{
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	assert_int_equal(inl_cipher_never_fails(cipher), subject->own);
	inl_cipher_free(cipher);
}

/* OpenSSL's does not promise. */
static void test_never_fails(void **state)
{
	struct inl_cipher *cipher = essiv();

	assert_false(inl_cipher_never_fails(cipher));
	inl_cipher_free(cipher);
	inl_tc_each(promise_of);
}

/* ---- lengths ----------------------------------------------------------------------------------------------------- */

static const size_t never[] = { 0, 1, 15, 65537, 65552, 65536 * 2, SIZE_MAX, SIZE_MAX - 15 };
static const size_t not_blocks[] = { 17, 31, 33, 511, 513, 4095, 65535 };

/* Refused whole, with units and without, in all forms; dst stays as it was. */
static void refuse_unit(const struct inl_cipher *cipher, size_t len)
{
	const struct inl_cipher_span spans[] = { { buf, buf + UNIT, 0 }, { buf, buf + UNIT, 1 } };

	memset(buf, 0x11, sizeof(buf));
	for (size_t n = 0; n < 3; n++) {
		assert_int_equal(inl_cipher_encrypt(cipher, zero_dun, n, len, buf, buf + UNIT), -EINVAL);
		assert_int_equal(inl_cipher_decrypt(cipher, zero_dun, n, len, buf, buf + UNIT), -EINVAL);
		assert_int_equal(inl_cipher_encrypt_spans(cipher, zero_dun, len, spans, n), -EINVAL);
		assert_int_equal(inl_cipher_decrypt_spans(cipher, zero_dun, len, spans, n), -EINVAL);
	}
	assert_true(inl_tc_all(buf, sizeof(buf), 0x11));
}

static void unit_lengths(const struct inl_cipher *cipher)
{
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(never); i++)
		refuse_unit(cipher, never[i]);
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(not_blocks); i++)
		refuse_unit(cipher, not_blocks[i]);
}

static void unit_lengths_of(const struct inl_tc_subject *subject)
{
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	unit_lengths(cipher);
	inl_cipher_free(cipher);
}

static void test_units(void **state)
{
	struct inl_cipher *cipher = essiv();

	unit_lengths(cipher);
	inl_cipher_free(cipher);
	inl_tc_each(unit_lengths_of);
}

/* No units, no spans: nothing to do, no memory to do it in. */
static void nothing_of(const struct inl_tc_subject *subject)
{
	const struct inl_cipher_span empty = { NULL, NULL, 0 };
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	assert_int_equal(inl_cipher_encrypt(cipher, zero_dun, 0, 512, NULL, NULL), 0);
	assert_int_equal(inl_cipher_decrypt(cipher, zero_dun, 0, 512, NULL, NULL), 0);
	assert_int_equal(inl_cipher_encrypt_spans(cipher, zero_dun, 512, NULL, 0), 0);
	assert_int_equal(inl_cipher_decrypt_spans(cipher, zero_dun, 512, NULL, 0), 0);
	assert_int_equal(inl_cipher_encrypt_spans(cipher, zero_dun, 512, &empty, 1), 0);
	assert_int_equal(inl_cipher_decrypt_spans(cipher, zero_dun, 512, &empty, 1), 0);
	inl_cipher_free(cipher);
}

static void test_spans(void **state)
{
	inl_tc_each(nothing_of);
}

static void stolen_lengths_of(const struct inl_tc_subject *subject)
{
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	memset(buf, 0x11, sizeof(buf));
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(never); i++) {
		assert_int_equal(inl_cipher_encrypt_stealing(cipher, zero_dun, never[i], buf, buf + UNIT), -EINVAL);
		assert_int_equal(inl_cipher_decrypt_stealing(cipher, zero_dun, never[i], buf, buf + UNIT), -EINVAL);
	}
	assert_true(inl_tc_all(buf, sizeof(buf), 0x11));
	inl_cipher_free(cipher);
}

/* ESSIV cannot, whole blocks or not. */
static void test_stealing(void **state)
{
	struct inl_cipher *cipher = essiv();

	memset(buf, 0x11, sizeof(buf));
	for (size_t len = 16; len < 50; len++) {
		assert_int_equal(inl_cipher_encrypt_stealing(cipher, zero_dun, len, buf, buf + UNIT), -EOPNOTSUPP);
		assert_int_equal(inl_cipher_decrypt_stealing(cipher, zero_dun, len, buf, buf + UNIT), -EOPNOTSUPP);
	}
	assert_true(inl_tc_all(buf, sizeof(buf), 0x11));
	inl_cipher_free(cipher);
	inl_tc_each(stolen_lengths_of);
}

/* Pieces of every length, none too: the sum is that of the whole. "abc": FIPS 180-4, by NIST's examples. */
static void test_digest(void **state)
{
	static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
					 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
					 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	struct inl_digest *digest;
	uint8_t sum[32], whole[32];

	assert_int_equal(inl_digest_new(&digest), 0);
	assert_int_equal(inl_digest_add(digest, "a", 1), 0);
	assert_int_equal(inl_digest_add(digest, "", 0), 0);
	assert_int_equal(inl_digest_add(digest, "bc", 2), 0);
	assert_int_equal(inl_digest_end(digest, sum), 0);
	assert_memory_equal(sum, abc, sizeof(sum));
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 31);
	assert_int_equal(inl_sha256(buf, sizeof(buf), whole), 0);
	for (size_t step = 1; step < 200; step += 13) {
		assert_int_equal(inl_digest_new(&digest), 0);
		for (size_t at = 0; at < sizeof(buf); at += step)
			assert_int_equal(inl_digest_add(digest, buf + at, step < sizeof(buf) - at ? step : sizeof(buf) - at), 0);
		assert_int_equal(inl_digest_end(digest, sum), 0);
		assert_memory_equal(sum, whole, sizeof(sum));
	}
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct row rows[] = {
	{ test_info, "inl_cipher_info" },
	{ test_impl, "inl_cipher_impl" },
	{ test_self_test, "inl_cipher_self_test" },
	{ test_new, "inl_cipher_new" },
	{ test_free_nothing, "inl_cipher_free" },
	{ test_never_fails, "inl_cipher_never_fails" },
	{ test_units, "inl_cipher_encrypt inl_cipher_decrypt inl_cipher_encrypt_spans inl_cipher_decrypt_spans" },
	{ test_spans, "inl_cipher_encrypt_spans inl_cipher_decrypt_spans" },
	{ test_stealing, "inl_cipher_encrypt_stealing inl_cipher_decrypt_stealing" },
	{ test_digest, "inl_sha256 inl_digest_new inl_digest_add inl_digest_end" },
	{ NULL },
};

static void test_every_call_has_a_row(void **state)
{
	assert_int_equal(check_header("include/inlay/cipher.h", rows), 16);
}

int inl_tc_misuse(void)
{
	return run_rows(rows, test_every_call_has_a_row);
}
