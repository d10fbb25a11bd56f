/*
 * tests/unit/routes_media.c: what must be on the media, as OpenSSL alone computes it, and plaintext that must not be.
 * Not here: where a stack places a byte (routes_tree.c).
 * Read more: IEEE 1619-2018 (XTS); Linux Documentation/block/inline-encryption.rst (DUNs), crypto/essiv.c (ESSIV).
 */
#include "routes_model.h"
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- media ------------------------------------------------------------------------------------------------------ */

void inl_rt_put(struct rt_node *node, uint64_t pos, uint64_t len, const uint8_t *bytes)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		if (bytes)
			memcpy(leaf->medium + leaf_pos, bytes + at, RT_SECTOR);
		else
			memset(leaf->medium + leaf_pos, 0, RT_SECTOR);
	}
}

void inl_rt_get(struct rt_node *node, uint64_t pos, uint64_t len, uint8_t *bytes)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		memcpy(bytes + at, leaf->medium + leaf_pos, RT_SECTOR);
	}
}

bool inl_rt_reserve(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t round)
{
	uint64_t leaf_pos;
	struct rt_node *leaf;

	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		leaf = inl_rt_locate(node, pos + at, &leaf_pos);
		if (leaf->busy[leaf_pos / RT_SECTOR] == round)
			return false;
	}
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		leaf = inl_rt_locate(node, pos + at, &leaf_pos);
		leaf->busy[leaf_pos / RT_SECTOR] = round;
	}
	return true;
}

void inl_rt_stamp(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t stamp)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		leaf->stamp[leaf_pos / RT_SECTOR] = stamp;
	}
}

bool inl_rt_has_stamp(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t stamp)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		if (leaf->stamp[leaf_pos / RT_SECTOR] != stamp)
			return false;
	}
	return true;
}

void inl_rt_set_unknown(struct rt_node *node, uint64_t pos, uint64_t len, bool unknown)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		leaf->unknown[leaf_pos / RT_SECTOR] = unknown;
	}
}

bool inl_rt_any_unknown(struct rt_node *node, uint64_t pos, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		if (leaf->unknown[leaf_pos / RT_SECTOR])
			return true;
	}
	return false;
}

void inl_rt_count(struct rt_node *node, uint64_t pos, uint64_t len, enum rt_bytes how)
{
	for (uint64_t at = 0; at < len; at += RT_SECTOR) {
		uint64_t leaf_pos;
		struct rt_node *leaf = inl_rt_locate(node, pos + at, &leaf_pos);

		leaf->n_bytes[how] += RT_SECTOR;
	}
}

/* A file is read past the library. */
static bool read_leaf(struct rt_node *leaf, uint8_t *buf)
{
	struct iovec seg = { buf, leaf->size };
	struct inl_bio bio;
	ssize_t n;
	int fd;

	if (leaf->kind == RT_RAM) {
		leaf->n_bytes[RT_BYTES_READ] += leaf->size;
		inl_bio_init_raw_read(&bio, 0, &seg, 1);
		return inl_submit_wait(leaf->dev, &bio) == 0;
	}
	fd = open(leaf->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = pread(fd, buf, leaf->size, 0);
	close(fd);
	return n == (ssize_t)leaf->size;
}

int64_t inl_rt_compare(struct rt_node *leaf, uint8_t *buf)
{
	if (!read_leaf(leaf, buf))
		return -2;
	for (uint64_t at = 0; at < leaf->size; at += RT_SECTOR) {
		if (leaf->unknown[at / RT_SECTOR] || memcmp(buf + at, leaf->medium + at, RT_SECTOR) == 0)
			continue;
		while (buf[at] == leaf->medium[at])
			at++;
		return (int64_t)at;
	}
	return -1;
}

/* ---- ciphers ---------------------------------------------------------------------------------------------------- */

static bool start(EVP_CIPHER_CTX **ctx, const EVP_CIPHER *cipher, const uint8_t *key, int encrypt)
{
	*ctx = EVP_CIPHER_CTX_new();
	return *ctx && EVP_CipherInit_ex(*ctx, cipher, NULL, key, NULL, encrypt) == 1 &&
	       EVP_CIPHER_CTX_set_padding(*ctx, 0) == 1;
}

bool inl_rt_cipher_init(struct rt_cipher *cipher)
{
	uint8_t salt[SHA256_DIGEST_LENGTH];

	if (cipher->cfg.mode == INL_BLK_MODE_AES_256_XTS) {
		cipher->len = 64;
		return start(&cipher->enc, EVP_aes_256_xts(), cipher->bytes, 1) &&
		       start(&cipher->dec, EVP_aes_256_xts(), cipher->bytes, 0);
	}
	cipher->len = 16;
	SHA256(cipher->bytes, cipher->len, salt);
	return start(&cipher->enc, EVP_aes_128_cbc(), cipher->bytes, 1) &&
	       start(&cipher->dec, EVP_aes_128_cbc(), cipher->bytes, 0) && start(&cipher->iv, EVP_aes_256_ecb(), salt, 1);
}

void inl_rt_cipher_done(struct rt_cipher *cipher)
{
	EVP_CIPHER_CTX_free(cipher->enc);
	EVP_CIPHER_CTX_free(cipher->dec);
	EVP_CIPHER_CTX_free(cipher->iv);
	cipher->enc = cipher->dec = cipher->iv = NULL;
}

/* The DUN, little endian, in 16 bytes; ESSIV encrypts that with the key's hash. */
static bool make_iv(struct rt_cipher *cipher, rt_u128 dun, uint8_t iv[16])
{
	int n;

	for (unsigned i = 0; i < 16; i++, dun >>= 8)
		iv[i] = (uint8_t)dun;
	return !cipher->iv || EVP_CipherUpdate(cipher->iv, iv, &n, iv, 16) == 1;
}

bool inl_rt_crypt(struct rt_cipher *cipher, bool encrypt, rt_u128 dun, const uint8_t *src, uint8_t *dst, size_t len)
{
	EVP_CIPHER_CTX *ctx = encrypt ? cipher->enc : cipher->dec;
	size_t unit = cipher->cfg.data_unit_size;

	for (size_t at = 0; at < len; at += unit, dun++) {
		uint8_t iv[16];
		int n;

		if (!make_iv(cipher, dun, iv) || EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) != 1 ||
		    EVP_CipherUpdate(ctx, dst + at, &n, src + at, (int)unit) != 1 || n != (int)unit)
			return false;
	}
	return true;
}

/* ---- plaintext that must not be found --------------------------------------------------------------------------- */

void inl_rt_windows_clear(struct rt_windows *windows)
{
	memset(windows->maybe, 0, sizeof(windows->maybe));
	if (windows->n)
		memset(windows->slot, 0, sizeof(windows->slot));
	windows->n = 0;
}

static bool maybe(const struct rt_windows *windows, uint64_t v)
{
	return windows->maybe[v % 65536 / 8] >> (v % 8) & 1;
}

/* More than fit are left out: many are enough. */
void inl_rt_windows_add(struct rt_windows *windows, const uint8_t *bytes)
{
	uint64_t v[2];
	uint32_t i;

	if (windows->n >= RT_N_HASHES / 2)
		return;
	memcpy(v, bytes, RT_WINDOW);
	windows->maybe[v[0] % 65536 / 8] |= (uint8_t)(1u << (v[0] % 8));
	for (i = v[0] % RT_N_HASHES; windows->slot[i][0]; i = (i + 1) % RT_N_HASHES)
		;
	memcpy(windows->slot[i], v, RT_WINDOW);
	windows->n++;
}

int64_t inl_rt_windows_find(const struct rt_windows *windows, const uint8_t *bytes, uint64_t len)
{
	for (uint64_t at = 0; at + RT_WINDOW <= len; at += RT_WINDOW) {
		uint64_t v[2];

		memcpy(v, bytes + at, RT_WINDOW);
		if (!maybe(windows, v[0]))
			continue;
		for (uint32_t i = v[0] % RT_N_HASHES; windows->slot[i][0]; i = (i + 1) % RT_N_HASHES)
			if (memcmp(windows->slot[i], v, RT_WINDOW) == 0)
				return (int64_t)at;
	}
	return -1;
}
