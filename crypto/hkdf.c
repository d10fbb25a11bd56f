/*
 * crypto/hkdf.c: HKDF-SHA512 on HMAC states that are keyed once, and AES-128-ECB.
 * Not here: which context number derives what (fscrypt/keyring.c).
 * Read more: RFC 5869; RFC 2104 (HMAC).
 */
#include "base/secret.h"
#include "crypto/kdf.h"
#include "crypto/own.h"

#include <errno.h>
#include <stdlib.h>

#define SHA512_BLOCK 128
#define HASH_LEN     INL_SHA512_LEN

/* SHA-512 after the key block of the inner and of the outer hash: each HMAC starts from copies. */
struct hmac_key {
	EVP_MD_CTX *inner, *outer;
};

struct inl_hkdf {
	struct hmac_key prk;
};

static void hmac_key_done(struct hmac_key *key)
{
	EVP_MD_CTX_free(key->inner);
	EVP_MD_CTX_free(key->outer);
}

/* SHA-512 that has taken the key xored with a byte, over one block. NULL on failure. */
static EVP_MD_CTX *half_keyed(const uint8_t bytes[HASH_LEN], uint8_t pad)
{
	const EVP_MD *md = inl_evp_sha512();
	EVP_MD_CTX *ctx = md ? EVP_MD_CTX_new() : NULL;
	INL_SECRET_ARRAY(block, SHA512_BLOCK);

	memset(block, pad, SHA512_BLOCK);
	for (size_t i = 0; i < HASH_LEN; i++)
		block[i] ^= bytes[i];
	if (ctx && EVP_DigestInit_ex2(ctx, md, NULL) == 1 && EVP_DigestUpdate(ctx, block, SHA512_BLOCK) == 1)
		return ctx;
	EVP_MD_CTX_free(ctx);
	return NULL;
}

static bool hmac_key_init(struct hmac_key *key, const uint8_t bytes[HASH_LEN])
{
	key->inner = half_keyed(bytes, 0x36);
	key->outer = half_keyed(bytes, 0x5c);
	return key->inner && key->outer;
}

/* One piece of what is authenticated. */
struct piece {
	const void *bytes;
	size_t len;
};

static bool hmac(const struct hmac_key *key, EVP_MD_CTX *work, const struct piece *pieces, int n, uint8_t out[HASH_LEN])
{
	if (EVP_MD_CTX_copy_ex(work, key->inner) != 1)
		return false;
	for (int i = 0; i < n; i++)
		if (pieces[i].len && EVP_DigestUpdate(work, pieces[i].bytes, pieces[i].len) != 1)
			return false;
	return EVP_DigestFinal_ex(work, out, NULL) == 1 && EVP_MD_CTX_copy_ex(work, key->outer) == 1 &&
	       EVP_DigestUpdate(work, out, HASH_LEN) == 1 && EVP_DigestFinal_ex(work, out, NULL) == 1;
}

/* RFC 5869, 2.2: the pseudorandom key is the HMAC of the input under the salt. */
static bool extract(const uint8_t *ikm, size_t len, uint8_t prk[HASH_LEN])
{
	static const uint8_t salt[HASH_LEN];
	const struct piece input = { ikm, len };
	struct hmac_key key;
	EVP_MD_CTX *work = EVP_MD_CTX_new();
	bool ok = hmac_key_init(&key, salt) && work && hmac(&key, work, &input, 1, prk);

	EVP_MD_CTX_free(work);
	hmac_key_done(&key);
	return ok;
}

int inl_hkdf_new(const uint8_t *ikm, size_t len, struct inl_hkdf **out)
{
	struct inl_hkdf *hkdf = calloc(1, sizeof(*hkdf));
	INL_SECRET_ARRAY(prk, HASH_LEN);

	if (!hkdf)
		return -ENOMEM;
	if (!extract(ikm, len, prk) || !hmac_key_init(&hkdf->prk, prk)) {
		inl_hkdf_free(hkdf);
		return -EIO;
	}
	*out = hkdf;
	return 0;
}

void inl_hkdf_free(struct inl_hkdf *hkdf)
{
	if (!hkdf)
		return;
	hmac_key_done(&hkdf->prk);
	free(hkdf);
}

/* RFC 5869, 2.3: T(i) = HMAC(T(i-1), info, i), one after the other. */
static bool expand(const struct inl_hkdf *hkdf, EVP_MD_CTX *work, struct piece info, uint8_t *out, size_t out_len)
{
	INL_SECRET_ARRAY(block, HASH_LEN);
	uint8_t counter = 0;

	for (size_t done = 0; done < out_len; done += HASH_LEN) {
		const struct piece pieces[] = { { block, done ? HASH_LEN : 0 }, info, { &counter, 1 } };

		counter++;
		if (!hmac(&hkdf->prk, work, pieces, 3, block))
			return false;
		memcpy(out + done, block, out_len - done < HASH_LEN ? out_len - done : HASH_LEN);
	}
	return true;
}

int inl_hkdf_expand(const struct inl_hkdf *hkdf, const uint8_t *info, size_t info_len, uint8_t *out, size_t out_len)
{
	EVP_MD_CTX *work;
	bool ok;

	if (out_len > 255 * HASH_LEN)
		return -EINVAL;
	work = EVP_MD_CTX_new();
	ok = work && expand(hkdf, work, (struct piece){ info, info_len }, out, out_len);
	EVP_MD_CTX_free(work);
	if (!ok)
		inl_wipe(out, out_len);
	return ok ? 0 : -EIO;
}

int inl_aes128_ecb(const uint8_t key[16], const uint8_t *src, size_t len, uint8_t *dst)
{
	EVP_CIPHER_CTX *ctx;
	bool ok;

	if (len % INL_AES_BLOCK || len > INT32_MAX)
		return -EINVAL;
	ctx = inl_evp_keyed(INL_EVP_AES_128_ECB, key, true);
	ok = ctx && (len == 0 || inl_evp_update(ctx, dst, src, len));
	EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		inl_wipe(dst, len);
	return ok ? 0 : -EIO;
}
