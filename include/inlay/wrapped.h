/*
 * inlay/wrapped.h: hardware-wrapped keys: blobs that only an engine can open, so that software never has the key.
 * Not here: using one (inl_key_new with INL_KEY_HW_WRAPPED and an ephemeral blob, inl_key_start: inlay/block.h).
 * Read more: Linux Documentation/block/inline-encryption.rst, "Hardware-wrapped keys", whose ioctls these are.
 *
 * An engine wraps a key into a long-term blob, which may be stored. Each time the device is opened, the long-term blob
 * is turned into an ephemeral one, which is good for this time only; that is what keys are made of. The engine derives
 * from what is inside the key that encrypts data, which nobody sees, and a secret for everything else, which software may
 * have.
 *
 * The engine is the first device named "engine" in the stack, from the top. All functions return -EOPNOTSUPP if there is
 * none, or if it takes no wrapped keys, and may be called on any thread.
 */
#ifndef INLAY_WRAPPED_H
#define INLAY_WRAPPED_H

#include <inlay/block.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INL_SW_SECRET_SIZE 32 /* bytes */

/*
 * Wrap a raw key, which the caller should then forget.
 *
 *   raw       len bytes: 32 for the emulated engine
 *   blob      room for size bytes; INL_WRAPPED_KEY_MAX is always enough
 *   blob_len  bytes of the long-term blob
 *
 * Returns: 0; -EOPNOTSUPP; -EINVAL (len); -EOVERFLOW (size); -EIO.
 */
INL_API int inl_dev_key_import(struct inl_dev *dev, const uint8_t *raw, size_t len, uint8_t *blob, size_t size,
			       size_t *blob_len);

/* The same with a key that nobody ever had. */
INL_API int inl_dev_key_generate(struct inl_dev *dev, uint8_t *blob, size_t size, size_t *blob_len);

/*
 * Turn a long-term blob into an ephemeral one.
 *
 * Returns: 0; -EOPNOTSUPP; -EBADMSG (no long-term blob of this engine); -EOVERFLOW (size); -EIO.
 */
INL_API int inl_dev_key_prepare(struct inl_dev *dev, const uint8_t *blob, size_t len, uint8_t *ephemeral, size_t size,
				size_t *ephemeral_len);

/*
 * The secret for everything but the encryption of data: the same for the same key, for ever.
 *
 * Returns: 0; -EOPNOTSUPP; -EBADMSG (no ephemeral blob of this engine, opened as it is now); -EIO.
 */
INL_API int inl_dev_derive_sw_secret(struct inl_dev *dev, const uint8_t *ephemeral, size_t len,
				     uint8_t secret[INL_SW_SECRET_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
