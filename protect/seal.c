/*
 * protect/seal.c: keys wrapped by keys.
 * Not here: keys made of passphrases (hash.c); where wrapped keys are kept (message.c).
 * Read more: fscrypt's crypto/crypto.go; RFC 5869; RFC 2104; NIST SP 800-38A, 6.5.
 *
 * Contexts that OpenSSL allocates are in its heap, and wiped by its own free.
 */
#include "protect/private.h"
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define HASH 32 /* bytes of SHA-256 */

/* What one wrapping needs; secret memory. */
struct work {
	uint8_t prk[HASH];
	uint8_t block[HASH + 1]; /* what the second expansion takes: the first, and a 2 */
	uint8_t enc[HASH], auth[HASH];
	uint8_t text[INL_IV_SIZE + INL_POLICY_KEY_SIZE]; /* what the MAC is of */
	uint8_t mac[HASH];
	uint8_t key[INL_POLICY_KEY_SIZE];
};

static bool hmac(const uint8_t key[HASH], const uint8_t *data, size_t len, uint8_t out[HASH])
{
	unsigned got = 0;

	return HMAC(EVP_sha256(), key, HASH, data, len, out, &got) && got == HASH;
}

/* HKDF without salt and information: two blocks. */
static bool derive(struct work *work, const uint8_t *by)
{
	static const uint8_t no_salt[HASH], one = 1;

	if (!hmac(no_salt, by, INL_PROTECTOR_KEY_SIZE, work->prk) || !hmac(work->prk, &one, 1, work->enc))
		return false;
	memcpy(work->block, work->enc, HASH);
	work->block[HASH] = 2;
	return hmac(work->prk, work->block, HASH + 1, work->auth);
}

static bool ctr(const uint8_t *key, const uint8_t *iv, const uint8_t *src, size_t len, uint8_t *dst)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0;
	bool ok = ctx && EVP_EncryptInit_ex2(ctx, EVP_aes_256_ctr(), key, iv, NULL) == 1 &&
		  EVP_EncryptUpdate(ctx, dst, &n, src, (int)len) == 1 && (size_t)n == len;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

static bool mac_of(struct work *work, const uint8_t *iv, const uint8_t *sealed, size_t len)
{
	memcpy(work->text, iv, INL_IV_SIZE);
	memcpy(work->text + INL_IV_SIZE, sealed, len);
	return hmac(work->auth, work->text, INL_IV_SIZE + len, work->mac);
}

int inl_seal(const uint8_t *by, const uint8_t *iv, const uint8_t *key, size_t len, uint8_t *sealed,
	     uint8_t mac[INL_MAC_SIZE])
{
	struct work *work = inl_secret_alloc(sizeof(*work));
	int err = 0;

	if (!work)
		return -ENOMEM;
	if (derive(work, by) && ctr(work->enc, iv, key, len, sealed) && mac_of(work, iv, sealed, len))
		memcpy(mac, work->mac, INL_MAC_SIZE);
	else
		err = -EIO;
	inl_secret_free(work);
	return err;
}

int inl_unseal(const uint8_t *by, const Inl__Meta__Wrapped *wrapped, size_t len, uint8_t *key)
{
	struct work *work;
	int err = 0;

	if (len > INL_POLICY_KEY_SIZE || wrapped->encrypted_key.len != len || wrapped->iv.len != INL_IV_SIZE ||
	    wrapped->hmac.len != INL_MAC_SIZE)
		return -EUCLEAN;
	work = inl_secret_alloc(sizeof(*work));
	if (!work)
		return -ENOMEM;
	if (!derive(work, by) || !mac_of(work, wrapped->iv.data, wrapped->encrypted_key.data, len))
		err = -EIO;
	else if (!inl_equal_ct(work->mac, wrapped->hmac.data, INL_MAC_SIZE))
		err = -EKEYREJECTED;
	else if (!ctr(work->enc, wrapped->iv.data, wrapped->encrypted_key.data, len, work->key))
		err = -EIO;
	else
		memcpy(key, work->key, len);
	inl_secret_free(work);
	return err;
}
