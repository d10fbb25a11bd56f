/*
 * crypto/hash.c: SHA-256 and SHA-512 of one buffer, SHA-256 of many.
 * Not here: HMAC (hkdf.c).
 * Read more: FIPS 180-4.
 */
#include "crypto/hash.h"
#include "crypto/own.h"

#include <errno.h>

static int digest(const EVP_MD *md, const void *data, size_t len, uint8_t *out)
{
	return md && EVP_Digest(data, len, out, NULL, md, NULL) == 1 ? 0 : -EIO;
}

int inl_sha256(const void *data, size_t len, uint8_t sum[32])
{
	return digest(inl_evp_sha256(), data, len, sum);
}

int inl_sha512(const void *data, size_t len, uint8_t out[64])
{
	return digest(inl_evp_sha512(), data, len, out);
}

/* The one structure that is never allocated: a digest is OpenSSL's, under our name. */
static EVP_MD_CTX *ctx_of(struct inl_digest *digest)
{
	return (EVP_MD_CTX *)digest;
}

int inl_digest_new(struct inl_digest **out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (!ctx)
		return -ENOMEM;
	if (!inl_evp_sha256() || EVP_DigestInit_ex(ctx, inl_evp_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return -EIO;
	}
	*out = (struct inl_digest *)ctx;
	return 0;
}

int inl_digest_add(struct inl_digest *digest, const void *data, size_t len)
{
	return EVP_DigestUpdate(ctx_of(digest), data, len) == 1 ? 0 : -EIO;
}

int inl_digest_end(struct inl_digest *digest, uint8_t sum[32])
{
	bool good = EVP_DigestFinal_ex(ctx_of(digest), sum, NULL) == 1;

	EVP_MD_CTX_free(ctx_of(digest));
	return good ? 0 : -EIO;
}
