/*
 * crypto/wrap.c: AES-256-GCM blobs of keys, and SP 800-108 in counter mode over AES-256-CMAC, on OpenSSL.
 * Not here: whose secrets seal them, who may see which blob (drivers/chip.c).
 * Read more: crypto/wrap.h; EVP_MAC-CMAC(7), EVP_aes_256_gcm(3). All of it is cold: nothing is kept between calls.
 */
#include "crypto/wrap.h"
#include "base/secret.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

#define NONCE_LEN 12
#define TAG_LEN	  16
#define MAC_LEN	  16

#define AT_NONCE INL_WRAP_LABEL
#define AT_KEY	 (AT_NONCE + NONCE_LEN)
#define AT_TAG	 (AT_KEY + INL_WRAP_KEY)

_Static_assert(AT_TAG + TAG_LEN == INL_WRAP_BLOB, "the parts of a blob add up");

/* ---- blobs ------------------------------------------------------------------------------------------------------- */

/* A GCM context that has taken key, nonce and label. NULL on failure. */
static EVP_CIPHER_CTX *gcm_begin(const uint8_t *kek, const uint8_t *nonce, const uint8_t *label, bool encrypt)
{
	EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER_CTX *ctx = gcm ? EVP_CIPHER_CTX_new() : NULL;
	int len;

	if (ctx && (EVP_CipherInit_ex2(ctx, gcm, kek, nonce, encrypt, NULL) != 1 ||
		    EVP_CipherUpdate(ctx, NULL, &len, label, INL_WRAP_LABEL) != 1)) {
		EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_CIPHER_free(gcm);
	return ctx;
}

int inl_wrap_seal(const uint8_t kek[INL_WRAP_KEY], const uint8_t label[INL_WRAP_LABEL],
		  const uint8_t raw[INL_WRAP_KEY], uint8_t blob[INL_WRAP_BLOB])
{
	uint8_t made[INL_WRAP_BLOB];
	EVP_CIPHER_CTX *ctx;
	int len;
	bool ok;

	memcpy(made, label, INL_WRAP_LABEL);
	if (RAND_bytes(made + AT_NONCE, NONCE_LEN) != 1)
		return -EIO;
	ctx = gcm_begin(kek, made + AT_NONCE, label, true);
	ok = ctx && EVP_CipherUpdate(ctx, made + AT_KEY, &len, raw, INL_WRAP_KEY) == 1 && len == INL_WRAP_KEY &&
	     EVP_CipherFinal_ex(ctx, made + AT_TAG, &len) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, made + AT_TAG) == 1;
	EVP_CIPHER_CTX_free(ctx);
	if (ok)
		memcpy(blob, made, sizeof(made));
	return ok ? 0 : -EIO;
}

int inl_wrap_open(const uint8_t kek[INL_WRAP_KEY], const uint8_t label[INL_WRAP_LABEL], const uint8_t *blob, size_t len,
		  uint8_t raw[INL_WRAP_KEY])
{
	INL_SECRET_ARRAY(opened, INL_WRAP_KEY);
	uint8_t tag[TAG_LEN], none[TAG_LEN];
	EVP_CIPHER_CTX *ctx;
	int n, err = -EIO;

	if (len != INL_WRAP_BLOB || memcmp(blob, label, INL_WRAP_LABEL))
		return -EBADMSG;
	memcpy(tag, blob + AT_TAG, TAG_LEN);
	ctx = gcm_begin(kek, blob + AT_NONCE, label, false);
	if (ctx && EVP_CipherUpdate(ctx, opened, &n, blob + AT_KEY, INL_WRAP_KEY) == 1 && n == INL_WRAP_KEY &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) == 1)
		err = EVP_CipherFinal_ex(ctx, none, &n) == 1 ? 0 : -EBADMSG;
	EVP_CIPHER_CTX_free(ctx);
	if (!err)
		memcpy(raw, opened, INL_WRAP_KEY);
	return err;
}

/* ---- derivation -------------------------------------------------------------------------------------------------- */

static void put_be32(uint8_t *to, size_t value)
{
	for (unsigned i = 0; i < 4; i++)
		to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static bool cmac(EVP_MAC_CTX *ctx, const uint8_t *key, const uint8_t *text, size_t len, uint8_t mac[MAC_LEN])
{
	char cipher[] = "AES-256-CBC";
	const OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher, 0),
				      OSSL_PARAM_construct_end() };
	size_t n;

	return EVP_MAC_init(ctx, key, INL_WRAP_KEY, params) == 1 && EVP_MAC_update(ctx, text, len) == 1 &&
	       EVP_MAC_final(ctx, mac, &n, MAC_LEN) == 1 && n == MAC_LEN;
}

#define CONTEXT_MAX 36

/* SP 800-108, 5.1: block i is the MAC of i, label, a zero byte, context, and the length of the output in bits. */
static int derive(const uint8_t *key, const uint8_t *context, size_t context_len, uint8_t *out, size_t out_len)
{
	static const uint8_t label[11] = { [2] = 0x40, [10] = 0x20 };
	uint8_t text[4 + sizeof(label) + 1 + CONTEXT_MAX + 4] = { 0 };
	size_t at_context = 4 + sizeof(label) + 1, len = at_context + context_len + 4;
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "CMAC", NULL);
	EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
	bool ok = ctx;

	memcpy(text + 4, label, sizeof(label));
	memcpy(text + at_context, context, context_len);
	put_be32(text + at_context + context_len, out_len * 8);
	for (size_t done = 0; ok && done < out_len; done += MAC_LEN) {
		put_be32(text, 1 + done / MAC_LEN);
		ok = cmac(ctx, key, text, len, out + done);
	}
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	if (!ok)
		inl_wipe(out, out_len);
	return ok ? 0 : -EIO;
}

int inl_wrap_inline_key(const uint8_t raw[INL_WRAP_KEY], uint8_t out[INL_WRAP_INLINE_KEY])
{
	static const uint8_t context[36] = "inline encryption key\0\0\0\0\0\0\x02\x43\x00\x82\x50\0\0\0";

	return derive(raw, context, sizeof(context), out, INL_WRAP_INLINE_KEY);
}

int inl_wrap_sw_secret(const uint8_t raw[INL_WRAP_KEY], uint8_t out[INL_WRAP_SW_SECRET])
{
	static const uint8_t context[28] = "raw secret\0\0\0\0\0\0\0\0\0\x02\x17\x00\x80\x50\0\0\0";

	return derive(raw, context, sizeof(context), out, INL_WRAP_SW_SECRET);
}
