/*
 * tests/unit/ciphers_rig.c: dice, subjects, OpenSSL as oracle, one checked call.
 * Not here: the tests (the other ciphers_*.c).
 * Read more: ciphers_rig.h.
 */
#include "tests/unit/ciphers_rig.h"
#include "base/endian.h"
#include "base/secret.h"

#include <openssl/evp.h>

/* ---- how much, and dice ------------------------------------------------------------------------------------------ */

enum inl_tc_scale inl_tc_scale = INL_TC_NORMAL;
struct inl_tc_rooms inl_tc_rooms;

static uint64_t random_state = 1;
static const struct inl_tc_subject *current; /* whom a failure is about */

/* Started anew for every group: one of them alone throws the same dice. */
void inl_tc_seed(uint64_t seed)
{
	random_state = seed;
}

/* splitmix64 */
uint64_t inl_tc_random(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t inl_tc_below(uint64_t n)
{
	return inl_tc_random() % n;
}

void inl_tc_fill(uint8_t *p, size_t len)
{
	for (; len >= 8; len -= 8, p += 8)
		inl_store_le64(p, inl_tc_random());
	while (len--)
		*p++ = (uint8_t)inl_tc_random();
}

/* ---- subjects ---------------------------------------------------------------------------------------------------- */

static const struct inl_tc_subject ciphers[] = {
	{ INL_CIPHER_AES_256_XTS, 64, "AES-256-XTS", "AES-256-ECB", &inl_evp_aes_256_xts, false },
	{ INL_CIPHER_AES_128_XTS, 32, "AES-128-XTS", "AES-128-ECB", &inl_evp_aes_128_xts, false },
};

const struct inl_impl *inl_tc_impl(enum inl_cipher_id id, const char *name)
{
	const struct inl_impl *const impls[] = {
		&inl_xts_vaes_avx512, &inl_xts_vaes_avx2, &inl_xts_aesni, &inl_xts_arm, &inl_xts_portable,
		id == INL_CIPHER_AES_256_XTS ? &inl_evp_aes_256_xts : &inl_evp_aes_128_xts,
	};

	for (size_t i = 0; i < INL_TC_ARRAY_LEN(impls); i++)
		if (!strcmp(impls[i]->name, name))
			return impls[i];
	return NULL;
}

void inl_tc_each(void (*test)(const struct inl_tc_subject *subject))
{
	struct inl_cipher_impl impl;

	for (size_t c = 0; c < INL_TC_ARRAY_LEN(ciphers); c++)
		for (unsigned i = 0; inl_cipher_impl(ciphers[c].id, i, &impl); i++) {
			struct inl_tc_subject subject = ciphers[c];

			if (impl.lacks)
				continue;
			subject.impl = inl_tc_impl(subject.id, impl.name);
			assert_non_null(subject.impl);
			subject.own = strcmp(impl.name, "openssl") != 0;
			current = &subject;
			test(&subject);
			current = NULL;
		}
}

struct inl_cipher *inl_tc_new(const struct inl_tc_subject *subject, uint8_t key[64])
{
	struct inl_cipher *cipher = NULL;

	inl_tc_fill(key, subject->key_size);
	assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, key, &cipher), 0);
	assert_non_null(cipher);
	return cipher;
}

/* ---- the oracle -------------------------------------------------------------------------------------------------- */

/* Fetched once: that takes ten times as long as a unit. */
static const EVP_CIPHER *fetched(const char *name)
{
	static EVP_CIPHER *all[INL_TC_ARRAY_LEN(ciphers)];
	size_t i = name == ciphers[1].oracle;

	if (!all[i])
		all[i] = EVP_CIPHER_fetch(NULL, name, NULL);
	assert_non_null(all[i]);
	return all[i];
}

static void oracle_unit(const struct inl_tc_subject *subject, const uint8_t *key, bool encrypt, const uint8_t iv[16],
			size_t len, uint8_t *dst, const uint8_t *src)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int out = 0;

	if (!ctx || EVP_CipherInit_ex2(ctx, fetched(subject->oracle), key, iv, encrypt, NULL) != 1 ||
	    EVP_CipherUpdate(ctx, dst, &out, src, (int)len) != 1 || out != (int)len)
		fail_msg("the oracle failed");
	EVP_CIPHER_CTX_free(ctx);
}

void inl_tc_oracle(const struct inl_tc_subject *subject, const uint8_t *key, bool encrypt, const uint64_t dun[4], size_t n,
		   size_t len, uint8_t *dst, const uint8_t *src)
{
	unsigned __int128 number = (unsigned __int128)dun[1] << 64 | dun[0];

	for (size_t i = 0; i < n; i++, number++) {
		uint8_t iv[16];

		inl_store_le64(iv, (uint64_t)number);
		inl_store_le64(iv + 8, (uint64_t)(number >> 64));
		oracle_unit(subject, key, encrypt, iv, len, dst + i * len, src + i * len);
	}
}

/* ---- one call ---------------------------------------------------------------------------------------------------- */

void inl_tc_same(const uint8_t *got, const uint8_t *expected, size_t len, const char *fmt, ...)
{
	char what[160];
	size_t at = 0;
	va_list args;

	if (!memcmp(got, expected, len))
		return;
	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	while (got[at] == expected[at])
		at++;
	fail_msg("%s (%s): %s: byte %zu of %zu is %02x, not %02x", current ? current->oracle : "-",
		 current ? current->impl->name : "-", what, at, len, got[at], expected[at]);
}

bool inl_tc_all(const uint8_t *p, size_t len, uint8_t value)
{
	while (len--)
		if (*p++ != value)
			return false;
	return true;
}

void inl_tc_dun_before(uint64_t dun[4], unsigned bits, uint64_t before)
{
	unsigned __int128 number = bits == 128 ? 0 : (unsigned __int128)1 << bits;

	number -= before;
	dun[0] = (uint64_t)number;
	dun[1] = (uint64_t)(number >> 64);
	dun[2] = inl_tc_random();
	dun[3] = inl_tc_random();
}

void inl_tc_run(const struct inl_cipher *cipher, const struct inl_tc_call *call, uint8_t *dst, const uint8_t *src)
{
	int err;

	if (call->stealing)
		err = (call->encrypt ? inl_cipher_encrypt_stealing : inl_cipher_decrypt_stealing)(cipher, call->dun, call->len,
												  dst, src);
	else
		err = (call->encrypt ? inl_cipher_encrypt : inl_cipher_decrypt)(cipher, call->dun, call->n, call->len, dst,
										src);
	if (err)
		fail_msg("refused: %d, %zu units of %zu bytes", err, call->n, call->len);
}

static const uint8_t *edge(void)
{
	static uint8_t bytes[INL_TC_EDGE];

	memset(bytes, 0xee, sizeof(bytes));
	return bytes;
}

void inl_tc_check(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
		  const struct inl_tc_call *call)
{
	size_t len = call->n * call->len;
	uint8_t *src = inl_tc_rooms.text + call->src_at, *dst = inl_tc_rooms.out + INL_TC_EDGE + call->dst_at;
	uint64_t seed = random_state;

	inl_tc_fill(src, len);
	inl_tc_oracle(subject, key, call->encrypt, call->dun, call->n, call->len, inl_tc_rooms.expected, src);
	memset(dst - INL_TC_EDGE, 0xee, len + 2 * INL_TC_EDGE);
	if (call->in_place)
		memcpy(dst, src, len);
	inl_tc_run(cipher, call, dst, call->in_place ? dst : src);
	inl_tc_same(dst, inl_tc_rooms.expected, len, "%s%s%s, %zu units of %zu, from +%zu to +%zu",
		    call->encrypt ? "encrypt" : "decrypt", call->stealing ? " with stealing" : "",
		    call->in_place ? " in place" : "", call->n, call->len, call->src_at, call->dst_at);
	inl_tc_same(dst - INL_TC_EDGE, edge(), INL_TC_EDGE, "before the text, %zu units of %zu", call->n, call->len);
	inl_tc_same(dst + len, edge(), INL_TC_EDGE, "after the text, %zu units of %zu", call->n, call->len);
	random_state = seed;
	inl_tc_fill(inl_tc_rooms.expected, len);
	inl_tc_same(src, inl_tc_rooms.expected, len, "the source, %zu units of %zu", call->n, call->len);
}
