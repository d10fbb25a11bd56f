/*
 * crypto/evp_xts.c: AES-XTS by OpenSSL, ciphertext stealing included.
 * Not here: AES-XTS of our own (xts.h and what includes it), SM4-XTS.
 * Read more: IEEE 1619-2018, 5.3; EVP_aes_256_xts(3).
 */
#include "crypto/own.h"

static bool prepare_256(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	schedule->data = inl_evp_keyed(INL_EVP_AES_256_XTS, key, encrypt);
	return schedule->data;
}

static bool prepare_128(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	schedule->data = inl_evp_keyed(INL_EVP_AES_128_XTS, key, encrypt);
	return schedule->data;
}

static bool crypt(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	return inl_evp_unit(schedule->data, iv, dst, src, len);
}

static const struct inl_evp_mode mode_256 = { INL_EVP_AES_256_XTS, prepare_256, crypt, crypt };
static const struct inl_evp_mode mode_128 = { INL_EVP_AES_128_XTS, prepare_128, crypt, crypt };

const struct inl_impl inl_evp_aes_256_xts = {
	.name = "openssl",
	.may_fail = true,
	.state_size = INL_LANES_SIZE,
	.code = &mode_256,
	.offered = inl_lanes_offered,
	.init = inl_lanes_init,
	.done = inl_lanes_done,
	.crypt = inl_lanes_crypt,
	.steal = inl_lanes_crypt,
};

const struct inl_impl inl_evp_aes_128_xts = {
	.name = "openssl",
	.may_fail = true,
	.state_size = INL_LANES_SIZE,
	.code = &mode_128,
	.offered = inl_lanes_offered,
	.init = inl_lanes_init,
	.done = inl_lanes_done,
	.crypt = inl_lanes_crypt,
	.steal = inl_lanes_crypt,
};
