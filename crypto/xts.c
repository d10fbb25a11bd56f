/*
 * crypto/xts.c: AES-256-XTS.
 * Not here: ciphertext stealing (data units are whole blocks), SM4-XTS.
 * Read more: IEEE 1619-2018, 5.3.
 */
#include "crypto/own.h"

static bool prepare(struct inl_schedule *schedule, const uint8_t *key, bool encrypt)
{
	schedule->data = inl_evp_keyed(INL_EVP_AES_256_XTS, key, encrypt);
	return schedule->data;
}

static bool crypt(struct inl_schedule *schedule, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t len)
{
	return inl_evp_unit(schedule->data, iv, dst, src, len);
}

/* With equal halves the tweak of block 0 can be cancelled; Linux and FIPS 140 refuse such keys as well. */
static bool halves_equal(const uint8_t *key)
{
	return inl_equal_ct(key, key + 32, 32);
}

const struct inl_mode inl_mode_aes_256_xts = {
	.prepare = prepare,
	.encrypt = crypt,
	.decrypt = crypt,
	.weak_key = halves_equal,
	.needs = INL_EVP_AES_256_XTS,
	.unit_step = INL_AES_BLOCK,
};
