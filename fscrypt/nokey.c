/*
 * fscrypt/nokey.c: no-key names: what stands for an encrypted name while its key is absent.
 * Not here: real names (fname.c); where the hashes come from (a directory's business).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Access semantics", "Without the key"; RFC 4648, 5.
 *
 * Before base64url: le32 hash, le32 minor hash, then the stored name; of a longer one than 149 bytes the first 149 and
 * the SHA-256 of the rest.
 */
#include "base/endian.h"
#include "crypto/hash.h"
#include "fscrypt/info.h"
#include <errno.h>

#define HASHES_SIZE 8
#define PREFIX_MAX  149 /* bytes of the stored name that are kept */

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t base64url_encode(const uint8_t *src, size_t len, char *out)
{
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		acc = acc << 8 | src[i];
		for (bits += 8; bits >= 6; bits -= 6)
			out[n++] = alphabet[acc >> (bits - 6) & 63];
	}
	if (bits)
		out[n++] = alphabet[acc << (6 - bits) & 63];
	return n;
}

static int base64url_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Only the one spelling that the encoder makes: no superfluous character, no bits left over. */
static bool base64url_decode(const char *src, size_t len, uint8_t *out, size_t *out_len)
{
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int value = base64url_value(src[i]);

		if (value < 0)
			return false;
		acc = acc << 6 | (uint32_t)value;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = acc >> bits;
		}
	}
	if (bits >= 6 || acc & ((1u << bits) - 1))
		return false;
	*out_len = n;
	return true;
}

int inl_nokey_encode(uint32_t hash, uint32_t minor, const uint8_t *stored, size_t len, char *out, size_t *out_len)
{
	uint8_t raw[INL_NOKEY_RAW_MAX];
	size_t raw_len = HASHES_SIZE + len;

	if (len < INL_FNAME_MIN)
		return -EUCLEAN;
	inl_store_le32(raw, hash);
	inl_store_le32(raw + 4, minor);
	if (len <= PREFIX_MAX) {
		memcpy(raw + HASHES_SIZE, stored, len);
	} else {
		memcpy(raw + HASHES_SIZE, stored, PREFIX_MAX);
		if (inl_sha256(stored + PREFIX_MAX, len - PREFIX_MAX, raw + HASHES_SIZE + PREFIX_MAX))
			return -EIO;
		raw_len = INL_NOKEY_RAW_MAX;
	}
	*out_len = base64url_encode(raw, raw_len, out);
	return 0;
}

int inl_nokey_decode(const char *name, size_t len, struct inl_nokey *nokey)
{
	uint8_t raw[INL_NOKEY_RAW_MAX];
	size_t raw_len;

	if (len > INL_NOKEY_NAME_MAX || !base64url_decode(name, len, raw, &raw_len))
		return -ENOENT;
	if (raw_len <= HASHES_SIZE || (raw_len > HASHES_SIZE + PREFIX_MAX && raw_len != INL_NOKEY_RAW_MAX))
		return -ENOENT;
	*nokey = (struct inl_nokey){
		.hash = inl_load_le32(raw),
		.minor = inl_load_le32(raw + 4),
		.len = raw_len - HASHES_SIZE,
	};
	if (raw_len == INL_NOKEY_RAW_MAX) {
		nokey->truncated = true;
		nokey->len = PREFIX_MAX;
		memcpy(nokey->sha256, raw + HASHES_SIZE + PREFIX_MAX, sizeof(nokey->sha256));
	}
	memcpy(nokey->bytes, raw + HASHES_SIZE, nokey->len);
	return 0;
}

bool inl_nokey_match(const struct inl_nokey *nokey, const uint8_t *stored, size_t len)
{
	uint8_t rest[32];

	if (!nokey->truncated)
		return len == nokey->len && memcmp(stored, nokey->bytes, len) == 0;
	if (len <= PREFIX_MAX || memcmp(stored, nokey->bytes, PREFIX_MAX) != 0)
		return false;
	return inl_sha256(stored + PREFIX_MAX, len - PREFIX_MAX, rest) == 0 &&
	       memcmp(rest, nokey->sha256, sizeof(rest)) == 0;
}
