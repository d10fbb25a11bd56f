/*
 * fscrypt/fname.c: names in encrypted directories: their stored length, encrypt, decrypt.
 * Not here: names without the key (nokey.c), symlink targets as a whole (symlink.c), directory entries.
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Filenames encryption".
 */
#include "fscrypt/private.h"
#include <errno.h>
#include <string.h>

#define STORED_MAX 65536 /* bytes: what the ciphers take; symlinks may be longer than names */

bool inl_fname_stored_len(const struct inl_policy *policy, size_t len, size_t max, size_t *stored)
{
	size_t pad = inl_policy_padding(policy);
	size_t padded;

	if (len > max)
		return false;
	padded = len < INL_FNAME_MIN ? INL_FNAME_MIN : len;
	padded = (padded + pad - 1) / pad * pad;
	*stored = padded > max ? max : padded;
	return true;
}

/* Only an unlocked inode has names; its key may have to be derived again. */
static int pin_names(struct inl_crypt_info *dir)
{
	return dir->kind != INL_CRYPT_REG && inl_crypt_info_unlocked(dir) ? inl_crypt_info_pin(dir, NULL) : -ENOKEY;
}

int inl_fname_encrypt(struct inl_crypt_info *dir, const void *name, size_t len, size_t stored, uint8_t *out)
{
	uint64_t dun[4];
	int rc;

	if (len > stored || stored < INL_FNAME_MIN || stored > STORED_MAX || memchr(name, 0, len))
		return -EINVAL;
	rc = pin_names(dir);
	if (rc)
		return rc;
	inl_crypt_info_dun(dir, 0, dun);
	memmove(out, name, len);
	memset(out + len, 0, stored - len);
	rc = inl_cipher_encrypt(dir->names, dun, 1, stored, out, out);
	inl_crypt_info_unpin(dir);
	return rc;
}

int inl_fname_decrypt(struct inl_crypt_info *dir, const uint8_t *stored, size_t len, void *out, size_t *out_len)
{
	uint64_t dun[4];
	int rc;

	if (len < INL_FNAME_MIN || len > STORED_MAX)
		return -EUCLEAN;
	rc = pin_names(dir);
	if (rc)
		return rc;
	inl_crypt_info_dun(dir, 0, dun);
	rc = inl_cipher_decrypt(dir->names, dun, 1, len, out, stored);
	inl_crypt_info_unpin(dir);
	if (rc)
		return rc;
	*out_len = strnlen(out, len);
	return 0;
}
