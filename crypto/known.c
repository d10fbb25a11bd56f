/*
 * crypto/known.c: known answers: what every implementation must compute before it is trusted with anybody's data.
 * Not here: when they are asked for (cipher.c), tests that find out why an answer is wrong (tests/unit/).
 * Read more: FIPS 140-3, 7.10 (self-tests); tests/vectors/make-known.py, which makes the answers.
 *
 * The question: N units of LEN bytes, more than have their tweaks made at once, so that every width of vector, its
 * remainders and carries of the data unit number take part; then, where the mode has stealing, one unit of an odd length.
 * The answer is the SHA-256 of all ciphertext.
 */
#include "base/secret.h"
#include "crypto/hash.h"
#include "crypto/own.h"

#include <errno.h>

#define N   34 /* more than any implementation makes tweaks for at once */
#define LEN 592 /* bytes: 512 + 64 + 16 */
#define ODD 1173
#define ALL (N * LEN + ODD)

static const uint64_t first[4] = { UINT64_MAX - 2, 5 };

static const uint8_t answers[INL_CIPHER_MAX][32] = {
#include "crypto/known.inc"
};

static void make_question(uint8_t key[INL_EVP_KEY_MAX], uint8_t text[ALL])
{
	for (unsigned i = 0; i < INL_EVP_KEY_MAX; i++)
		key[i] = (uint8_t)(7 * i + 1);
	for (unsigned i = 0; i < ALL; i++)
		text[i] = (uint8_t)(i + (i >> 8) * 3);
}

/* Two spans, so that a group of tweaks is cut between them; then the odd one. *len: how much of it there was. */
static int answer(const struct inl_impl *impl, void *state, const uint8_t *src, uint8_t *dst, bool encrypt, size_t *len)
{
	const struct inl_cipher_span spans[] = { { dst, src, 3 }, { dst + 3 * LEN, src + 3 * LEN, N - 3 } };
	const struct inl_cipher_span odd = { dst + N * LEN, src + N * LEN, 1 };
	struct inl_units units = { { first[0], first[1] }, LEN, spans, 2 };
	int err = impl->crypt(impl, state, &units, encrypt);

	*len = N * LEN;
	if (err || !impl->steal)
		return err;
	*len = ALL;
	units.unit_len = ODD;
	units.spans = &odd;
	units.n_spans = 1;
	return impl->steal(impl, state, &units, encrypt);
}

static int check(const struct inl_impl *impl, void *state, const uint8_t text[ALL], const uint8_t expected[32])
{
	uint8_t sealed[ALL], digest[32];
	size_t len;
	int err = answer(impl, state, text, sealed, true, &len);

	err = err ? err : inl_sha256(sealed, len, digest);
	if (!err && memcmp(digest, expected, sizeof(digest)) != 0)
		return -ENOTRECOVERABLE;
	err = err ? err : answer(impl, state, sealed, sealed, false, &len);
	return !err && memcmp(sealed, text, len) != 0 ? -ENOTRECOVERABLE : err;
}

int inl_known_answers(enum inl_cipher_id id, const struct inl_impl *impl)
{
	uint8_t key[INL_EVP_KEY_MAX], text[ALL], *state = inl_secret_alloc(impl->state_size);
	int err;

	if (!state)
		return -ENOMEM;
	make_question(key, text);
	err = impl->init(impl, state, key, inl_cipher_info(id)->key_size);
	if (!err) {
		err = check(impl, state, text, answers[id]);
		if (impl->done)
			impl->done(state);
	}
	inl_secret_free(state);
	return err;
}
