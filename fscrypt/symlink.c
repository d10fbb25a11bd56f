/*
 * fscrypt/symlink.c: targets of encrypted symbolic links, from and to the bytes on the medium.
 * Not here: where those bytes lie (a file system's business); names (fname.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Filenames encryption"; fscrypt/info.h.
 */
#include "base/endian.h"
#include "fscrypt/info.h"
#include <errno.h>
#include <stdlib.h>

#define LENGTH_SIZE sizeof(struct le16)

int inl_symlink_encode(struct inl_crypt_info *info, const char *target, size_t len, size_t size, uint8_t *out,
		       size_t *out_len)
{
	size_t stored;
	int rc;

	if (!inl_fname_stored_len(inl_crypt_info_policy(info), len, size - LENGTH_SIZE - 1, &stored))
		return -ENAMETOOLONG;
	rc = inl_fname_encrypt(info, target, len, stored, out + LENGTH_SIZE);
	if (rc)
		return rc;
	inl_store_le16(out, (uint16_t)stored);
	*out_len = LENGTH_SIZE + stored;
	return 0;
}

static int too_small(size_t need, size_t size, struct inl_diag *diag)
{
	return inl_diag_set(diag, -ERANGE, "the symlink target has %zu bytes, the buffer %zu", need, size);
}

static int nokey_target(const uint8_t *stored, size_t len, char *out, size_t size, size_t *out_len,
			struct inl_diag *diag)
{
	char name[INL_NOKEY_NAME_MAX];
	size_t name_len;
	int rc = inl_nokey_encode(0, 0, stored, len, name, &name_len);

	if (rc)
		return inl_diag_set(diag, rc, "the no-key form of the symlink target could not be made");
	if (name_len > size)
		return too_small(name_len, size, diag);
	memcpy(out, name, name_len);
	*out_len = name_len;
	return 0;
}

static int real_target(struct inl_crypt_info *info, const uint8_t *stored, size_t len, char *out, size_t size,
		       size_t *out_len, struct inl_diag *diag)
{
	char *target = malloc(len);
	size_t target_len = 0;
	int rc;

	if (!target)
		return inl_diag_set(diag, -ENOMEM, "no memory left for a symlink target");
	rc = inl_fname_decrypt(info, stored, len, target, &target_len);
	if (rc == -ENOKEY) {
		/* It was locked in this moment. */
		free(target);
		return nokey_target(stored, len, out, size, out_len, diag);
	}
	if (rc) {
		inl_diag_set(diag, rc, "the symlink target could not be decrypted");
	} else if (!target_len) {
		rc = inl_diag_set(diag, -EUCLEAN, "the symlink target is empty");
	} else if (target_len > size) {
		rc = too_small(target_len, size, diag);
	} else {
		memcpy(out, target, target_len);
		*out_len = target_len;
	}
	inl_wipe(target, len);
	free(target);
	return rc;
}

int inl_symlink_decode(struct inl_crypt_info *info, const uint8_t *raw, size_t len, char *out, size_t size,
		       size_t *out_len, struct inl_diag *diag)
{
	struct inl_diag why = { 0 };
	size_t stored;
	int rc;

	if (len < LENGTH_SIZE + INL_FNAME_MIN)
		return inl_diag_set(diag, -EUCLEAN, "an encrypted symlink of %zu bytes is too short", len);
	stored = inl_load_le16(raw);
	if (stored < INL_FNAME_MIN || stored > len - LENGTH_SIZE)
		return inl_diag_set(diag, -EUCLEAN, "an encrypted symlink of %zu bytes says it stores %zu", len,
				    stored);
	rc = inl_crypt_info_unlock(info, &why);
	if (rc == -ENOKEY)
		return nokey_target(raw + LENGTH_SIZE, stored, out, size, out_len, diag);
	if (rc)
		return inl_diag_set(diag, rc, "%s", why.text);
	return real_target(info, raw + LENGTH_SIZE, stored, out, size, out_len, diag);
}
