/*
 * crypto/hash.c: SHA-256 and SHA-512 of one buffer.
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

int inl_sha256(const void *data, size_t len, uint8_t out[32])
{
	return digest(inl_evp_sha256(), data, len, out);
}

int inl_sha512(const void *data, size_t len, uint8_t out[64])
{
	return digest(inl_evp_sha512(), data, len, out);
}
