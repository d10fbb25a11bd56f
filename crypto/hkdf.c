/*
 * crypto/hkdf.c: HKDF-SHA512 on HMAC states that are keyed once, and AES-128-ECB.
 * Not here: which context number derives what (fscrypt/keyring.c).
 * Read more: RFC 5869; RFC 2104 (HMAC).
 *
 * SHA-512 is OpenSSL's, but by its old functions. They work on a plain structure: it can lie in secret memory, is copied
 * by assignment and wiped like any other secret, and nothing of it can fail. A digest context of the new ones is several
 * allocations in OpenSSL's heap, and copying and finishing it costs more than hashing a file's nonce. The price: OpenSSL
 * has called them deprecated since 3.0, and they are always its built-in code, whatever provider its configuration asks
 * for. Should they go, a SHA-512 of our own takes their place: this file needs nothing else.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* for this file only */
#include "base/secret.h"
#include "crypto/kdf.h"
#include "crypto/own.h"

#include <errno.h>
#include <openssl/sha.h>

#define SHA512_BLOCK 128
#define HASH_LEN     INL_SHA512_LEN

/* SHA-512 after the key block of the inner and of the outer hash: each HMAC starts from copies. */
struct hmac_key {
	SHA512_CTX inner, outer;
};

/* In secret memory. */
struct inl_hkdf {
	struct hmac_key prk;
};

/*
 * OpenSSL's SHA-512 leaves its working values on the stack, where a variable of ours cannot reach them. So the hashing is
 * done in a function of its own, and then the stack that it had is overwritten.
 */
#define STACK_USED 4096 /* bytes; OpenSSL 3.0 uses 1,400 or so, below a boundary of 2,048 */

__attribute__((noinline)) static void overwrite(void)
{
	uint8_t stack[STACK_USED];

	inl_wipe(stack, sizeof(stack));
}

/* SHA-512 that has taken the key xored with a byte, over one block. */
static void half_keyed(SHA512_CTX *ctx, const uint8_t bytes[HASH_LEN], uint8_t pad)
{
	INL_SECRET_ARRAY(block, SHA512_BLOCK);

	memset(block, pad, SHA512_BLOCK);
	for (size_t i = 0; i < HASH_LEN; i++)
		block[i] ^= bytes[i];
	SHA512_Init(ctx);
	SHA512_Update(ctx, block, SHA512_BLOCK);
}

static void hmac_key_init(struct hmac_key *key, const uint8_t bytes[HASH_LEN])
{
	half_keyed(&key->inner, bytes, 0x36);
	half_keyed(&key->outer, bytes, 0x5c);
}

/* One piece of what is authenticated. */
struct piece {
	const void *bytes;
	size_t len;
};

static void hmac(const struct hmac_key *key, const struct piece *pieces, int n, uint8_t out[HASH_LEN])
{
	SHA512_CTX work = key->inner;

	for (int i = 0; i < n; i++)
		SHA512_Update(&work, pieces[i].bytes, pieces[i].len);
	SHA512_Final(out, &work);
	work = key->outer;
	SHA512_Update(&work, out, HASH_LEN);
	SHA512_Final(out, &work);
	inl_wipe(&work, sizeof(work));
}

/* RFC 5869, 2.2: the pseudorandom key is the HMAC of the input under the salt. */
__attribute__((noinline)) static void extract(const uint8_t *ikm, size_t len, struct hmac_key *prk)
{
	static const uint8_t salt[HASH_LEN];
	const struct piece input = { ikm, len };
	INL_SECRET_ARRAY(bytes, HASH_LEN);

	hmac_key_init(prk, salt);
	hmac(prk, &input, 1, bytes);
	hmac_key_init(prk, bytes);
}

int inl_hkdf_new(const uint8_t *ikm, size_t len, struct inl_hkdf **out)
{
	struct inl_hkdf *hkdf = inl_secret_alloc(sizeof(*hkdf));

	if (!hkdf)
		return -ENOMEM;
	extract(ikm, len, &hkdf->prk);
	overwrite();
	*out = hkdf;
	return 0;
}

void inl_hkdf_free(struct inl_hkdf *hkdf)
{
	inl_secret_free(hkdf);
}

/* RFC 5869, 2.3: T(i) = HMAC(T(i-1), info, i), one after the other. */
__attribute__((noinline)) static void expand(const struct hmac_key *prk, struct piece info, uint8_t *out, size_t out_len)
{
	INL_SECRET_ARRAY(block, HASH_LEN);
	uint8_t counter = 0;

	for (size_t done = 0; done < out_len; done += HASH_LEN) {
		const struct piece pieces[] = { { block, done ? HASH_LEN : 0 }, info, { &counter, 1 } };

		counter++;
		hmac(prk, pieces, 3, block);
		memcpy(out + done, block, out_len - done < HASH_LEN ? out_len - done : HASH_LEN);
	}
}

int inl_hkdf_expand(const struct inl_hkdf *hkdf, const uint8_t *info, size_t info_len, uint8_t *out, size_t out_len)
{
	if (out_len > 255 * HASH_LEN)
		return -EINVAL;
	expand(&hkdf->prk, (struct piece){ info, info_len }, out, out_len);
	overwrite();
	return 0;
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
