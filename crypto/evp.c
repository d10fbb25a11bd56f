/*
 * crypto/evp.c: algorithms of OpenSSL, fetched once per process; contexts with a key.
 * Not here: modes (evp_xts.c, cbc.c), digests of something (hash.c).
 * Read more: crypto(7), "Algorithm fetching": a fetch per use costs more than encrypting a sector.
 */
#include "crypto/own.h"

#include <pthread.h>

static const char *const cipher_names[INL_EVP_N_CIPHERS] = {
	[INL_EVP_AES_256_XTS] = "AES-256-XTS", [INL_EVP_AES_128_XTS] = "AES-128-XTS",
	[INL_EVP_AES_128_CBC] = "AES-128-CBC", [INL_EVP_AES_256_CBC] = "AES-256-CBC",
	[INL_EVP_AES_128_ECB] = "AES-128-ECB", [INL_EVP_AES_256_ECB] = "AES-256-ECB",
};

static pthread_once_t fetched_once = PTHREAD_ONCE_INIT;
static struct {
	EVP_CIPHER *ciphers[INL_EVP_N_CIPHERS];
	EVP_MD *sha256, *sha512;
} fetched; /* never freed: it lives as long as the process */

static void fetch_all(void)
{
	for (int id = 0; id < INL_EVP_N_CIPHERS; id++)
		fetched.ciphers[id] = EVP_CIPHER_fetch(NULL, cipher_names[id], NULL);
	fetched.sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	fetched.sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
}

const EVP_CIPHER *inl_evp_cipher(enum inl_evp_id id)
{
	pthread_once(&fetched_once, fetch_all);
	return fetched.ciphers[id];
}

const EVP_MD *inl_evp_sha256(void)
{
	pthread_once(&fetched_once, fetch_all);
	return fetched.sha256;
}

const EVP_MD *inl_evp_sha512(void)
{
	pthread_once(&fetched_once, fetch_all);
	return fetched.sha512;
}

/* XTS (whose block size OpenSSL gives as 1) never pads; told so, it would set that again for every data unit. */
static bool set_unpadded(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher)
{
	return EVP_CIPHER_get_block_size(cipher) == 1 || EVP_CIPHER_CTX_set_padding(ctx, 0) == 1;
}

EVP_CIPHER_CTX *inl_evp_keyed(enum inl_evp_id id, const uint8_t *key, bool encrypt)
{
	const EVP_CIPHER *cipher = inl_evp_cipher(id);
	EVP_CIPHER_CTX *ctx = cipher ? EVP_CIPHER_CTX_new() : NULL;

	if (ctx && EVP_CipherInit_ex2(ctx, cipher, key, NULL, encrypt, NULL) == 1 && set_unpadded(ctx, cipher))
		return ctx;
	EVP_CIPHER_CTX_free(ctx);
	return NULL;
}
