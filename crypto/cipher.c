/*
 * crypto/cipher.c: the table of ciphers and of their implementations, and the frame around all of them.
 * Not here: the implementations (xts_*.c, evp_xts.c, cbc.c), their known answers (known.c).
 * Read more: HACKING.md, "Adding a cipher".
 */
#include "base/cpu.h"
#include "base/secret.h"
#include "crypto/own.h"

#include <errno.h>
#include <stdatomic.h>

static bool halves_equal_256(const uint8_t *key)
{
	return inl_equal_ct(key, key + 32, 32);
}

static bool halves_equal_128(const uint8_t *key)
{
	return inl_equal_ct(key, key + 16, 16);
}

#define XTS_IMPLS &inl_xts_vaes_avx512, &inl_xts_vaes_avx2, &inl_xts_aesni, &inl_xts_arm, &inl_xts_portable

/*
 * With equal halves the tweak of block 0 of XTS can be cancelled; Linux and FIPS 140 refuse such keys as well.
 *
 * The portable code stands before OpenSSL's, which looks tables up on CPUs that it has no better code for.
 */
static const struct inl_cipher_row rows[INL_CIPHER_MAX] = {
	[INL_CIPHER_AES_256_XTS] = { { "AES-256-XTS", 64, 16, 32, 16, true }, halves_equal_256,
				     { XTS_IMPLS, &inl_evp_aes_256_xts } },
	[INL_CIPHER_AES_128_XTS] = { { "AES-128-XTS", 32, 16, 16, 16, true }, halves_equal_128,
				     { XTS_IMPLS, &inl_evp_aes_128_xts } },
	[INL_CIPHER_AES_128_CBC_ESSIV] = { { "AES-128-CBC-ESSIV", 16, 16, 16, 16, true }, NULL,
					   { &inl_evp_aes_128_cbc_essiv } },
	[INL_CIPHER_AES_256_CTS] = { { "AES-256-CBC-CTS", 32, 16, 32, 1, true }, NULL, { &inl_evp_aes_256_cts } },
	[INL_CIPHER_AES_128_CTS] = { { "AES-128-CBC-CTS", 16, 16, 16, 1, true }, NULL, { &inl_evp_aes_128_cts } },
	[INL_CIPHER_ADIANTUM] = { { "Adiantum", 32, 32, 32, 1, false } },
	[INL_CIPHER_AES_256_HCTR2] = { { "AES-256-HCTR2", 32, 32, 32, 1, false } },
	[INL_CIPHER_SM4_XTS] = { { "SM4-XTS", 32, 16, 16, 16, false } },
	[INL_CIPHER_SM4_CTS] = { { "SM4-CBC-CTS", 16, 16, 16, 1, false } },
};

/* Who has given the known answers, or has not: 0: nobody asked. Two threads may ask at once; they hear the same. */
enum verdict { UNTESTED, GOOD, BAD };
static atomic_uchar verdicts[INL_CIPHER_MAX][INL_IMPLS_MAX];

/* All of it is secret memory, since the schedule is a part of it. */
struct inl_cipher {
	const struct inl_impl *impl;
	unsigned unit_step;
	uint8_t state[] __attribute__((aligned(64)));
};

/* ---- ciphers and their implementations --------------------------------------------------------------------------- */

const struct inl_cipher_info *inl_cipher_info(enum inl_cipher_id id)
{
	return (unsigned)id < INL_CIPHER_MAX && rows[id].info.name ? &rows[id].info : NULL;
}

static const struct inl_cipher_row *row_of(enum inl_cipher_id id)
{
	const struct inl_cipher_info *info = inl_cipher_info(id);

	return info && info->available ? &rows[id] : NULL;
}

/* The first feature that is lacking; NULL: none. Of implementations that are here. */
static const char *lacks(const struct inl_impl *impl)
{
	unsigned missing = impl->needs & ~inl_cpu_features();

	if (missing)
		return inl_cpu_feature_name((enum inl_cpu_feature)(missing & -missing));
	return impl->offered && !impl->offered(impl) ? "a provider of this algorithm" : NULL;
}

/* Another architecture's implementations are not worth mentioning. */
static bool is_here(const struct inl_impl *impl)
{
	return impl->crypt;
}

bool inl_cipher_impl(enum inl_cipher_id id, unsigned i, struct inl_cipher_impl *out)
{
	const struct inl_cipher_row *row = row_of(id);

	for (unsigned k = 0; row && k < INL_IMPLS_MAX && row->impls[k]; k++) {
		if (!is_here(row->impls[k]) || i--)
			continue;
		*out = (struct inl_cipher_impl){ row->impls[k]->name, lacks(row->impls[k]) };
		return true;
	}
	return false;
}

/* Its index; -1: there is none. */
static int find(const struct inl_cipher_row *row, const char *name)
{
	for (int i = 0; i < INL_IMPLS_MAX && row->impls[i]; i++)
		if ((!name || !strcmp(row->impls[i]->name, name)) && is_here(row->impls[i]) && !lacks(row->impls[i]))
			return i;
	return -1;
}

/* ---- known answers ------------------------------------------------------------------------------------------------ */

/* 0, or why not. What could not be asked is asked again next time. */
static int check_trusted(enum inl_cipher_id id, int i)
{
	atomic_uchar *verdict = &verdicts[id][i];
	unsigned char known = atomic_load_explicit(verdict, memory_order_acquire);
	int err;

	if (known != UNTESTED)
		return known == GOOD ? 0 : -ENOTRECOVERABLE;
	err = inl_known_answers(id, rows[id].impls[i]);
	if (!err || err == -ENOTRECOVERABLE)
		atomic_store_explicit(verdict, err ? BAD : GOOD, memory_order_release);
	return err;
}

static int explain(const struct inl_cipher_row *row, int i, int err, struct inl_diag *diag)
{
	const char *cipher = row->info.name, *impl = row->impls[i]->name;

	if (err != -ENOTRECOVERABLE)
		return inl_diag_set(diag, err, "%s (%s) cannot be tested: %s", cipher, impl,
				    err == -ENOMEM ? "no memory for secrets left" : "the crypto library failed");
	return inl_diag_set(diag, err, "%s (%s) computes wrong answers on this machine", cipher, impl);
}

int inl_cipher_self_test(const char *name, struct inl_diag *diag)
{
	bool found = false;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		const struct inl_cipher_row *row = row_of((enum inl_cipher_id)id);
		int i = row ? find(row, name) : -1, err = i < 0 ? 0 : check_trusted((enum inl_cipher_id)id, i);

		if (err)
			return explain(row, i, err, diag);
		found |= i >= 0;
	}
	return found ? 0 : inl_diag_set(diag, -ENOENT, "no cipher has an implementation named %s here", name ? name : "any");
}

/* ---- keys --------------------------------------------------------------------------------------------------------- */

int inl_cipher_new(enum inl_cipher_id id, const char *name, const uint8_t *key, struct inl_cipher **out)
{
	const struct inl_cipher_row *row = row_of(id);
	const struct inl_impl *impl;
	struct inl_cipher *cipher;
	int i, err;

	if (!row)
		return -ENOPKG;
	i = find(row, name);
	if (i < 0)
		return name ? -ENOENT : -ENOPKG;
	if (row->weak_key && row->weak_key(key))
		return -EINVAL;
	err = check_trusted(id, i);
	if (err)
		return err;
	impl = row->impls[i];
	cipher = inl_secret_alloc(sizeof(*cipher) + impl->state_size);
	if (!cipher)
		return -ENOMEM;
	err = impl->init(impl, cipher->state, key, row->info.key_size);
	if (err) {
		inl_secret_free(cipher);
		return err;
	}
	cipher->impl = impl;
	cipher->unit_step = row->info.unit_step;
	*out = cipher;
	return 0;
}

void inl_cipher_free(struct inl_cipher *cipher)
{
	if (!cipher)
		return;
	if (cipher->impl->done)
		cipher->impl->done(cipher->state);
	inl_secret_free(cipher);
}

bool inl_cipher_never_fails(const struct inl_cipher *cipher)
{
	return !cipher->impl->may_fail;
}

/* ---- data units --------------------------------------------------------------------------------------------------- */

static bool length_valid(size_t len, unsigned step)
{
	return len >= INL_CIPHER_UNIT_MIN && len <= INL_CIPHER_UNIT_MAX && len % step == 0;
}

/* Callers see a cipher as constant: what an implementation keeps for its threads does not change what it computes. */
static int crypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
		 const struct inl_cipher_span *spans, size_t n_spans, bool encrypt)
{
	const struct inl_units units = { { dun[0], dun[1], dun[2], dun[3] }, unit_len, spans, n_spans, NULL };

	if (!length_valid(unit_len, cipher->unit_step))
		return -EINVAL;
	return cipher->impl->crypt(cipher->impl, ((struct inl_cipher *)cipher)->state, &units, encrypt);
}

static int steal(const struct inl_cipher *cipher, const uint64_t dun[4], size_t len, uint8_t *dst, const uint8_t *src,
		 bool encrypt)
{
	const struct inl_cipher_span span = { dst, src, 1 };
	const struct inl_units unit = { { dun[0], dun[1], dun[2], dun[3] }, len, &span, 1, NULL };

	if (!cipher->impl->steal)
		return -EOPNOTSUPP;
	if (!length_valid(len, 1))
		return -EINVAL;
	return cipher->impl->steal(cipher->impl, ((struct inl_cipher *)cipher)->state, &unit, encrypt);
}

int inl_cipher_encrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src)
{
	return crypt(cipher, dun, unit_len, &(struct inl_cipher_span){ dst, src, n }, 1, true);
}

int inl_cipher_decrypt(const struct inl_cipher *cipher, const uint64_t dun[4], size_t n, size_t unit_len, uint8_t *dst,
		       const uint8_t *src)
{
	return crypt(cipher, dun, unit_len, &(struct inl_cipher_span){ dst, src, n }, 1, false);
}

int inl_cipher_encrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
			     const struct inl_cipher_span *spans, size_t n_spans)
{
	return crypt(cipher, dun, unit_len, spans, n_spans, true);
}

int inl_cipher_decrypt_spans(const struct inl_cipher *cipher, const uint64_t dun[4], size_t unit_len,
			     const struct inl_cipher_span *spans, size_t n_spans)
{
	return crypt(cipher, dun, unit_len, spans, n_spans, false);
}

int inl_cipher_encrypt_stealing(const struct inl_cipher *cipher, const uint64_t dun[4], size_t len, uint8_t *dst,
				const uint8_t *src)
{
	return steal(cipher, dun, len, dst, src, true);
}

int inl_cipher_decrypt_stealing(const struct inl_cipher *cipher, const uint64_t dun[4], size_t len, uint8_t *dst,
				const uint8_t *src)
{
	return steal(cipher, dun, len, dst, src, false);
}
