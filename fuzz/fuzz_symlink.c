/*
 * fuzz/fuzz_symlink.c: what an encrypted symlink stores, with its key and without.
 * Not here: where it is stored (fuzz_image.c).
 * Read more: fscrypt/symlink.c.
 *
 * Input: the size of the buffer (two bytes), then what the symlink stores.
 */
#include "fscrypt/info.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what)
{
	if (!what)
		abort();
}

/* The same symlink twice: [0] without, [1] with the key. */
static struct inl_crypt_info *links[2];

static void set_up(void)
{
	static const uint8_t key[64] = { 1, 2, 3 };
	struct inl_fscrypt_params params = { .traits = { 12, 32, 32, true } };
	uint8_t context[INL_CONTEXT_SIZE_MAX] = { 2, INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS, 3 };
	struct inl_key_spec spec;
	struct inl_fscrypt *fs;

	require(inl_key_spec_derive(key, sizeof(key), 2, &spec) == 0);
	memcpy(context + 8, spec.bytes, sizeof(spec.bytes));
	for (int i = 0; i < 2; i++) {
		if (i) {
			require(inl_keyring_new(&params.keys) == 0);
			require(inl_keyring_add(params.keys, key, sizeof(key), NULL) == 0);
		}
		require(inl_fscrypt_new(&params, &fs) == 0);
		require(inl_crypt_info_new(fs, 12, INL_CRYPT_LNK, false, context, sizeof(context), &links[i]) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char out[65536];

	if (!links[0])
		set_up();
	if (size < 2)
		return 0;
	for (int i = 0; i < 2; i++) {
		size_t room = data[0] | data[1] << 8, len = 0;
		struct inl_diag diag = { 0 };
		int rc;

		out[room] = '!';
		rc = inl_symlink_decode(links[i], data + 2, size - 2, out, room, &len, &diag);
		require(out[room] == '!');
		require(rc == 0 || rc == -EUCLEAN || rc == -ERANGE);
		require(diag.err == rc && !diag.text[0] == !rc);
		if (!rc)
			require(len && len <= room && !memchr(out, 0, len));
	}
	return 0;
}
