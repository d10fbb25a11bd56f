/*
 * crypto/cbc.c: AES-CBC with ciphertext stealing (CS3), and AES-128-CBC-ESSIV.
 * Not here: padding of names (fscrypt/).
 * Read more: NIST SP 800-38A and its addendum (CS3); Fruhwirth, "New Methods in Hard Disk Encryption", 4.2.1 (ESSIV).
 */
#include "base/secret.h"
#include "crypto/hash.h"
#include "crypto/own.h"

#define B INL_AES_BLOCK

static void xor_bytes(uint8_t *dst, const uint8_t *src, size_t len)
{
	for (size_t i = 0; i < len; i++)
		dst[i] ^= src[i];
}

/* ---- ciphertext stealing ----------------------------------------------------------------------------------------- */

static bool cts_256_prepare(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	schedule->data = inl_evp_keyed(INL_EVP_AES_256_CBC, key, encrypt);
	return schedule->data;
}

static bool cts_128_prepare(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	schedule->data = inl_evp_keyed(INL_EVP_AES_128_CBC, key, encrypt);
	return schedule->data;
}

/*
 * CBC over the text filled up with zeros to whole blocks; then the last two blocks change places, and what was the
 * last but one is cut to the length that is left. whole: bytes before the last, perhaps partial, block.
 */
static bool cts_encrypt(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	size_t whole = (len - 1) / B * B, rest = len - whole;
	INL_SECRET_ARRAY(last, B);
	uint8_t stolen[B];

	if (len == B)
		return inl_evp_unit(schedule->data, iv, dst, src, len);
	memset(last, 0, B);
	memcpy(last, src + whole, rest);
	if (!inl_evp_unit(schedule->data, iv, dst, src, whole))
		return false;
	memcpy(stolen, dst + whole - B, B);
	if (!inl_evp_update(schedule->data, dst + whole - B, last, B))
		return false;
	memcpy(dst + whole, stolen, rest);
	return true;
}

/*
 * The block at whole - B is the encryption of (last text, zeros) xor C, where C is the block that was cut: decrypting
 * it gives the last text, and the missing end of C. Both blocks go through the running CBC context, whose own xor
 * with the block before is undone.
 */
static bool cts_decrypt(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	size_t whole = (len - 1) / B * B, rest = len - whole, head = whole - B;
	INL_SECRET_ARRAY(last, B);
	uint8_t before[B], swapped[B], cut[B];

	if (len == B)
		return inl_evp_unit(schedule->data, iv, dst, src, len);
	memcpy(before, head ? src + head - B : iv, B);
	memcpy(swapped, src + head, B);
	memcpy(cut, src + whole, rest);
	if (EVP_CipherInit_ex2(schedule->data, NULL, NULL, iv, -1, NULL) != 1 ||
	    (head && !inl_evp_update(schedule->data, dst, src, head)) ||
	    !inl_evp_update(schedule->data, last, swapped, B))
		return false;
	xor_bytes(last, before, B);
	memcpy(cut + rest, last + rest, B - rest);
	if (!inl_evp_update(schedule->data, dst + head, cut, B))
		return false;
	xor_bytes(dst + head, swapped, B);
	xor_bytes(dst + head, before, B);
	xor_bytes(last, cut, rest);
	memcpy(dst + whole, last, rest);
	return true;
}

static const struct inl_evp_mode cts_256 = { INL_EVP_AES_256_CBC, cts_256_prepare, cts_encrypt, cts_decrypt };
static const struct inl_evp_mode cts_128 = { INL_EVP_AES_128_CBC, cts_128_prepare, cts_encrypt, cts_decrypt };

const struct inl_impl inl_evp_aes_256_cts = {
	.name = "openssl",
	.may_fail = true,
	.state_size = INL_LANES_SIZE,
	.code = &cts_256,
	.offered = inl_lanes_offered,
	.init = inl_lanes_init,
	.done = inl_lanes_done,
	.crypt = inl_lanes_crypt,
	.steal = inl_lanes_crypt,
};

const struct inl_impl inl_evp_aes_128_cts = {
	.name = "openssl",
	.may_fail = true,
	.state_size = INL_LANES_SIZE,
	.code = &cts_128,
	.offered = inl_lanes_offered,
	.init = inl_lanes_init,
	.done = inl_lanes_done,
	.crypt = inl_lanes_crypt,
	.steal = inl_lanes_crypt,
};

/* ---- ESSIV ------------------------------------------------------------------------------------------------------- */

static bool essiv_prepare(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	INL_SECRET_ARRAY(salt, 32);

	if (inl_sha256(key, 16, salt) < 0)
		return false;
	schedule->iv = inl_evp_keyed(INL_EVP_AES_256_ECB, salt, true);
	schedule->data = inl_evp_keyed(INL_EVP_AES_128_CBC, key, encrypt);
	return schedule->iv && schedule->data;
}

static bool essiv_crypt(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	uint8_t salted[B];

	return inl_evp_update(schedule->iv, salted, iv, B) && inl_evp_unit(schedule->data, salted, dst, src, len);
}

static const struct inl_evp_mode essiv = { INL_EVP_AES_128_CBC, essiv_prepare, essiv_crypt, essiv_crypt };

const struct inl_impl inl_evp_aes_128_cbc_essiv = {
	.name = "openssl",
	.may_fail = true,
	.state_size = INL_LANES_SIZE,
	.code = &essiv,
	.offered = inl_lanes_offered,
	.init = inl_lanes_init,
	.done = inl_lanes_done,
	.crypt = inl_lanes_crypt,
};
