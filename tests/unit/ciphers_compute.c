/*
 * tests/unit/ciphers_compute.c: what AES-XTS computes: vectors, digests, OpenSSL and each other as oracles.
 * Not here: memory around the text and its cuts (ciphers_edges.c), refusals (ciphers_misuse.c, ciphers_known.c).
 * Read more: IEEE 1619-2018, 5; tests/vectors/SOURCES; tests/unit/xts_digest.h.
 */
#include "tests/unit/ciphers_rig.h"
#include "tests/unit/xts_digest.h"
#include "base/endian.h"

#include "../vectors/aes-xts-digests.inc"

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

struct vector {
	const char *name, *key, *iv, *text, *sealed;
};

static const struct vector vectors[] = {
#include "../vectors/aes-xts.inc"
#include "../vectors/aes-128-xts.inc"
#include "../vectors/aes-xts-stealing.inc"
};

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		out[n++] = (uint8_t)byte;
	assert_int_equal(*hex, '\0');
	return n;
}

/* Both ways, in place and not; where it is whole blocks, as a unit and as one that steals. */
static void check_vector(const struct inl_cipher *cipher, const char *name, const uint64_t dun[4], size_t len,
			 const uint8_t *text, const uint8_t *sealed)
{
	for (unsigned how = 0; how < 8; how++) {
		struct inl_tc_call call = { how & 1, how & 2, how & 4, { dun[0], dun[1], dun[2], dun[3] }, 1, len };
		const uint8_t *src = call.encrypt ? text : sealed, *expected = call.encrypt ? sealed : text;
		uint8_t out[513];

		if (len % 16 && !call.stealing)
			continue;
		memset(out, 0xee, sizeof(out));
		if (call.in_place)
			memcpy(out, src, len);
		inl_tc_run(cipher, &call, out, call.in_place ? out : src);
		inl_tc_same(out, expected, len, "vector %s, way %u", name, how);
		assert_int_equal(out[len], 0xee);
	}
}

static void vectors_of(const struct inl_tc_subject *subject)
{
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t key[64], text[512], sealed[512], iv[32] = { 0 };
		size_t len = unhex(v->sealed, sealed);
		struct inl_cipher *cipher;
		uint64_t dun[4];

		if (unhex(v->key, key) != subject->key_size)
			continue;
		unhex(v->iv, iv);
		for (int limb = 0; limb < 4; limb++)
			dun[limb] = inl_load_le64(iv + 8 * limb);
		for (size_t k = 0; k < len; k++)
			text[k] = (uint8_t)k;
		if (v->text)
			assert_int_equal(unhex(v->text, text), len);
		assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, key, &cipher), 0);
		check_vector(cipher, v->name, dun, len, text, sealed);
		inl_cipher_free(cipher);
	}
}

static void test_vectors(void **state)
{
	inl_tc_each(vectors_of);
}

/* ---- digests ----------------------------------------------------------------------------------------------------- */

static struct inl_cipher *digest_cipher(const struct inl_tc_subject *subject, const uint8_t *key, size_t key_len)
{
	struct inl_cipher *cipher;

	assert_int_equal(key_len, subject->key_size);
	assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, key, &cipher), 0);
	return cipher;
}

/* Encrypted, and decrypted back. */
static void digest_units(void *arg, const uint8_t *key, size_t key_len, const uint64_t dun[2], size_t n, size_t unit_len,
			 uint8_t *dst, const uint8_t *src)
{
	const uint64_t number[4] = { dun[0], dun[1] };
	struct inl_cipher *cipher = digest_cipher(arg, key, key_len);
	uint8_t back[XTS_DIGEST_ROOM];

	assert_int_equal(inl_cipher_encrypt(cipher, number, n, unit_len, dst, src), 0);
	assert_int_equal(inl_cipher_decrypt(cipher, number, n, unit_len, back, dst), 0);
	inl_tc_same(back, src, n * unit_len, "there and back, units of %zu", unit_len);
	inl_cipher_free(cipher);
}

static void digest_steal(void *arg, const uint8_t *key, size_t key_len, const uint64_t dun[2], size_t len, uint8_t *dst,
			 const uint8_t *src)
{
	const uint64_t number[4] = { dun[0], dun[1] };
	struct inl_cipher *cipher = digest_cipher(arg, key, key_len);
	uint8_t back[XTS_DIGEST_ROOM];

	assert_int_equal(inl_cipher_encrypt_stealing(cipher, number, len, dst, src), 0);
	assert_int_equal(inl_cipher_decrypt_stealing(cipher, number, len, back, dst), 0);
	inl_tc_same(back, src, len, "there and back, stealing, %zu bytes", len);
	inl_cipher_free(cipher);
}

static void digests_of(const struct inl_tc_subject *subject)
{
	bool is_256 = subject->key_size == 64;
	uint8_t sum[32], expected[32];

	assert_int_equal(xts_digest_units(digest_units, (void *)subject, subject->key_size, sum), 0);
	unhex(is_256 ? AES_256_XTS_DIGEST : AES_128_XTS_DIGEST, expected);
	inl_tc_same(sum, expected, 32, "digest of units");
	assert_int_equal(xts_digest_stealing(digest_steal, (void *)subject, subject->key_size, sum), 0);
	unhex(is_256 ? AES_256_XTS_STEALING_DIGEST : AES_128_XTS_STEALING_DIGEST, expected);
	inl_tc_same(sum, expected, 32, "digest of stealing");
}

static void test_digests(void **state)
{
	inl_tc_each(digests_of);
}

/* ---- against OpenSSL --------------------------------------------------------------------------------------------- */

/* Anywhere, or a few before a carry. */
static void random_dun(uint64_t dun[4])
{
	static const unsigned bits[] = { 32, 64, 128 };

	inl_tc_dun_before(dun, bits[inl_tc_below(3)], inl_tc_below(9));
	if (inl_tc_below(2))
		inl_tc_fill((uint8_t *)dun, 32);
}

static struct inl_tc_call random_call(size_t n, size_t len)
{
	struct inl_tc_call call = { .n = n, .len = len, .src_at = inl_tc_below(64), .dst_at = inl_tc_below(64) };

	random_dun(call.dun);
	return call;
}

/* Both directions, in place and not. */
static void check_all_ways(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
			   struct inl_tc_call call)
{
	for (unsigned how = 0; how < 4; how++) {
		call.encrypt = how & 1;
		call.in_place = how & 2;
		inl_tc_check(subject, cipher, key, &call);
	}
}

static void every_length(const struct inl_tc_subject *subject)
{
	size_t step = inl_tc_much(7 * 16, 16, 16);
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t len = 16; len <= 4096; len += len < 640 ? 16 : step)
		check_all_ways(subject, cipher, key, random_call(1 + inl_tc_below(inl_tc_much(2, 5, 9)), len));
	inl_cipher_free(cipher);
}

static void test_every_length(void **state)
{
	inl_tc_each(every_length);
}

/* All lengths of one unit, whole blocks too: those both as a unit and as one that steals. */
static void every_stolen_length(const struct inl_tc_subject *subject)
{
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t len = 16; len <= 4096; len += len < 400 ? 1 : inl_tc_much(61, 1, 1)) {
		struct inl_tc_call call = random_call(1, len);

		call.stealing = true;
		check_all_ways(subject, cipher, key, call);
	}
	inl_cipher_free(cipher);
}

static void test_every_stolen_length(void **state)
{
	inl_tc_each(every_stolen_length);
}

/* A length of a unit, longer ones more seldom; how many fit into a call. */
static void random_lengths(const struct inl_tc_subject *subject)
{
	unsigned n_cases = inl_tc_much(5, 60, 3000);

	for (unsigned i = 0; i < n_cases; i++) {
		size_t len = 16 + 16 * inl_tc_below(((size_t)1 << (3 + inl_tc_below(10))) - 1), room = INL_TC_ROOM;
		struct inl_tc_call call;
		struct inl_cipher *cipher;
		uint8_t key[64];

		room >>= inl_tc_below(6) + inl_tc_much(4, 0, 0);
		call = random_call(inl_tc_below(room / len + 1), len);
		call.encrypt = inl_tc_below(2);
		call.in_place = inl_tc_below(2);
		cipher = inl_tc_new(subject, key);
		inl_tc_check(subject, cipher, key, &call);
		call = random_call(1, 16 + inl_tc_below(65536 - 15));
		call.stealing = true;
		call.encrypt = inl_tc_below(2);
		call.in_place = inl_tc_below(2);
		inl_tc_check(subject, cipher, key, &call);
		inl_cipher_free(cipher);
	}
}

static void test_random_lengths(void **state)
{
	inl_tc_each(random_lengths);
}

/* The longest: a unit of 64 KiB, and as many as make a megabyte; a byte less with stealing. */
static void longest(const struct inl_tc_subject *subject)
{
	struct inl_cipher *cipher;
	struct inl_tc_call call;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	check_all_ways(subject, cipher, key, random_call(inl_tc_much(1, INL_TC_ROOM / 65536, INL_TC_ROOM / 65536), 65536));
	for (size_t less = 0; less < inl_tc_much(2, 17, 17); less++) {
		call = random_call(1, 65536 - less);
		call.stealing = true;
		check_all_ways(subject, cipher, key, call);
	}
	inl_cipher_free(cipher);
}

static void test_longest(void **state)
{
	inl_tc_each(longest);
}

/* n units that begin at the beginning of inl_tc_rooms.text; what they must be is in expected. */
static void check_beginning(const struct inl_cipher *cipher, const struct inl_tc_call *call)
{
	size_t len = call->n * call->len;
	uint8_t *out = inl_tc_rooms.out;

	if (call->in_place)
		memcpy(out, inl_tc_rooms.text, len);
	memset(out + len, 0xee, INL_TC_EDGE);
	inl_tc_run(cipher, call, out, call->in_place ? out : inl_tc_rooms.text);
	inl_tc_same(out, inl_tc_rooms.expected, len, "%zu units of %zu, way %d", call->n, call->len,
		    call->encrypt + 2 * call->in_place);
	assert_true(inl_tc_all(out + len, INL_TC_EDGE, 0xee));
}

/* Tweaks of neighbouring units are made together: every number of small units, from none to more than two groups of any. */
static void every_number(const struct inl_tc_subject *subject)
{
	static const size_t lens[] = { 16, 32, 48, 64, 80, 496, 512, 528 };
	const size_t n_max = inl_tc_much(37, 70, 200);
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t i = 0; i < 2 * INL_TC_ARRAY_LEN(lens); i++) {
		struct inl_tc_call call = { .encrypt = i % 2, .len = lens[i / 2] };

		random_dun(call.dun);
		inl_tc_fill(inl_tc_rooms.text, n_max * call.len);
		inl_tc_oracle(subject, key, call.encrypt, call.dun, n_max, call.len, inl_tc_rooms.expected,
			      inl_tc_rooms.text);
		for (call.n = 0; call.n <= n_max; call.n++) {
			call.in_place = call.n % 2;
			check_beginning(cipher, &call);
			call.in_place = !call.in_place;
			if (inl_tc_scale != INL_TC_QUICK)
				check_beginning(cipher, &call);
		}
	}
	inl_cipher_free(cipher);
}

static void test_every_number(void **state)
{
	inl_tc_each(every_number);
}

/* ---- data unit numbers ------------------------------------------------------------------------------------------- */

/* 70 units before 2^bits and 70 after: every window of 70 has the carry at another place. */
static void carries_at(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
		       unsigned bits, struct inl_tc_call call)
{
	const size_t n = 70, step = inl_tc_much(3, 1, 1);

	inl_tc_dun_before(call.dun, bits, n);
	inl_tc_fill(inl_tc_rooms.text, 2 * n * call.len);
	inl_tc_oracle(subject, key, call.encrypt, call.dun, 2 * n, call.len, inl_tc_rooms.expected, inl_tc_rooms.text);
	for (size_t first = 0; first <= n; first += step) {
		inl_tc_dun_before(call.dun, bits, n - first);
		call.n = n;
		inl_tc_run(cipher, &call, inl_tc_rooms.out, inl_tc_rooms.text + first * call.len);
		inl_tc_same(inl_tc_rooms.out, inl_tc_rooms.expected + first * call.len, n * call.len,
			    "carry over %u bits after %zu units of %zu", bits, n - first, call.len);
	}
}

static void carries(const struct inl_tc_subject *subject)
{
	static const unsigned bits[] = { 32, 64, 96, 127, 128 };
	static const size_t lens[] = { 16, 80, 512 };
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(bits); i++)
		for (size_t k = 0; k < inl_tc_much(1, 3, 3); k++)
			for (int encrypt = 0; encrypt < 2; encrypt++)
				carries_at(subject, cipher, key, bits[i],
					   (struct inl_tc_call){ .encrypt = encrypt, .len = lens[k] });
	inl_cipher_free(cipher);
}

static void test_carries(void **state)
{
	inl_tc_each(carries);
}

/* Of a number 128 bits count, each of them, in units and with stealing. */
static void dun_bits(const struct inl_tc_subject *subject)
{
	uint8_t key[64], text[33], plain[33], out[33];
	struct inl_tc_call call = { .encrypt = true, .n = 1 };
	struct inl_cipher *cipher;

	cipher = inl_tc_new(subject, key);
	inl_tc_fill(text, sizeof(text));
	inl_tc_fill((uint8_t *)call.dun, 32);
	for (int stealing = 0; stealing < 2; stealing++) {
		call.stealing = stealing;
		call.len = stealing ? 33 : 32;
		inl_tc_run(cipher, &call, plain, text);
		for (unsigned bit = 0; bit < 256; bit++) {
			call.dun[bit / 64] ^= (uint64_t)1 << bit % 64;
			inl_tc_run(cipher, &call, out, text);
			assert_int_equal(!memcmp(out, plain, 16), bit >= 128);
			call.dun[bit / 64] ^= (uint64_t)1 << bit % 64;
		}
	}
	inl_cipher_free(cipher);
}

static void test_dun_bits(void **state)
{
	inl_tc_each(dun_bits);
}

/* ---- against each other ------------------------------------------------------------------------------------------ */

#define BIG  ((size_t)4 << 20)
#define HUGE (((size_t)16 << 20) + 65536) /* an implementation may write such spans around the caches */

/* What they compute, in memory aligned to 64 bytes. */
static struct {
	uint8_t *text, *first, *out;
	struct inl_tc_call call;
	uint8_t key[64];
	enum inl_cipher_id id; /* whose answer is in first: the best implementation's */
} big;

static void big_new(size_t len)
{
	big.text = aligned_alloc(64, len);
	big.first = aligned_alloc(64, len);
	big.out = aligned_alloc(64, len);
	assert_true(big.text && big.first && big.out);
	inl_tc_fill(big.text, len);
}

static void big_free(void)
{
	free(big.text);
	free(big.first);
	free(big.out);
}

/* The first implementation of a cipher answers, the others have to agree. */
static void same_as_the_first(const struct inl_tc_subject *subject)
{
	const struct inl_tc_call *call = &big.call;
	bool is_first = subject->id != big.id;
	uint8_t *dst = (is_first ? big.first : big.out) + call->dst_at;
	struct inl_cipher *cipher;

	assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, big.key, &cipher), 0);
	if (call->in_place)
		memcpy(dst, big.text, call->n * call->len);
	inl_tc_run(cipher, call, dst, call->in_place ? dst : big.text);
	if (!is_first)
		inl_tc_same(dst, big.first + call->dst_at, call->n * call->len,
			    "against the best implementation, %zu units of %zu, to +%zu", call->n, call->len, call->dst_at);
	big.id = subject->id;
	inl_cipher_free(cipher);
}

static void check_big(struct inl_tc_call call)
{
	big.call = call;
	big.call.encrypt = inl_tc_below(2);
	random_dun(big.call.dun);
	inl_tc_fill(big.key, sizeof(big.key));
	big.id = 0;
	inl_tc_each(same_as_the_first);
}

static void test_against_each_other(void **state)
{
	size_t room = inl_tc_much(BIG / 32, BIG, BIG);

	big_new(BIG);
	for (unsigned i = 0; i < inl_tc_much(1, 6, 60); i++) {
		size_t len = 16 + 16 * inl_tc_below(((size_t)1 << (2 + inl_tc_below(11))) - 1);

		check_big((struct inl_tc_call){ .n = room / len, .len = len });
	}
	big_free();
}

/* More than caches hold, in units that lines of 64 bytes divide and that they do not, to where a line begins and not. */
static void test_beyond_the_caches(void **state)
{
	static const struct inl_tc_call all[] = {
		{ .n = 4097, .len = 4096 }, { .n = 31776, .len = 528 }, { .n = 4097, .len = 4096, .dst_at = 16 },
		{ .n = 15423, .len = 1088 }, { .n = 29128, .len = 576 }, { .n = 32768, .len = 512 },
		{ .n = 4097, .len = 4096, .in_place = true }, { .n = 256, .len = 65536 }, { .n = 262144, .len = 64 },
	};
	size_t n;

	n = inl_tc_much(1, is_plain_build() ? INL_TC_ARRAY_LEN(all) : 4, INL_TC_ARRAY_LEN(all));
	big_new(HUGE + 64);
	for (size_t i = 0; i < n; i++)
		check_big(all[i]);
	big_free();
}

int inl_tc_compute(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_digests),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_every_stolen_length),
		cmocka_unit_test(test_random_lengths),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_every_number),
		cmocka_unit_test(test_carries),
		cmocka_unit_test(test_dun_bits),
		cmocka_unit_test(test_against_each_other),
		cmocka_unit_test(test_beyond_the_caches),
	};

	return cmocka_run_group_tests_name("what it computes", tests, NULL, NULL);
}
