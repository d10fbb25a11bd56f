/*
 * crypto/wrap.h: hardware-wrapped keys as a chip handles them: sealing and opening blobs, deriving what is used.
 * Not here: whose secrets seal them, who may see which blob (drivers/chip.c).
 * Read more: Linux Documentation/block/inline-encryption.rst, "Hardware-wrapped keys"; NIST SP 800-38D, 800-108, 800-38B.
 */
#ifndef INLAY_CRYPTO_WRAP_H
#define INLAY_CRYPTO_WRAP_H

#include <inlay/base.h>

#define INL_WRAP_KEY	    32 /* bytes: what is wrapped, and what seals it */
#define INL_WRAP_LABEL	    4  /* bytes: what kind of blob it is; authenticated, in clear */
#define INL_WRAP_BLOB	    64 /* bytes: label, nonce, sealed key, tag */
#define INL_WRAP_INLINE_KEY 64 /* bytes: of AES-256-XTS */
#define INL_WRAP_SW_SECRET  32 /* bytes */

/*
 * Seal a key: AES-256-GCM with a random nonce.
 *
 *   kek    seals it
 *   raw    is sealed
 *
 * Returns: 0; -EIO.
 */
int inl_wrap_seal(const uint8_t kek[INL_WRAP_KEY], const uint8_t label[INL_WRAP_LABEL],
		  const uint8_t raw[INL_WRAP_KEY], uint8_t blob[INL_WRAP_BLOB]);

/*
 * Open what inl_wrap_seal made.
 *
 *   blob   len bytes from anywhere
 *   raw    untouched on failure
 *
 * Returns: 0; -EBADMSG (another secret, another label, another length, damaged); -EIO.
 */
int inl_wrap_open(const uint8_t kek[INL_WRAP_KEY], const uint8_t label[INL_WRAP_LABEL], const uint8_t *blob, size_t len,
		  uint8_t raw[INL_WRAP_KEY]);

/*
 * What the key inside a blob is used for: the key that encrypts data, and the secret that software may see.
 *
 * Returns: 0; -EIO.
 * Source:  SP 800-108, 5.1 with AES-256-CMAC; labels and contexts as in Qualcomm's key derivation, which xfstests models
 */
int inl_wrap_inline_key(const uint8_t raw[INL_WRAP_KEY], uint8_t out[INL_WRAP_INLINE_KEY]);
int inl_wrap_sw_secret(const uint8_t raw[INL_WRAP_KEY], uint8_t out[INL_WRAP_SW_SECRET]);

#endif
