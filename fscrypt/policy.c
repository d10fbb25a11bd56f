/*
 * fscrypt/policy.c: encryption policies: the context on the medium, and which policies Linux accepts.
 * Not here: keys (keyring.c), one inode's encryption (info.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Encryption policies", "Encryption modes and usage".
 */
#include "fscrypt/private.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define METHOD_FLAGS (INL_POLICY_FLAG_DIRECT_KEY | INL_POLICY_FLAG_IV_INO_LBLK_64 | INL_POLICY_FLAG_IV_INO_LBLK_32)
#define LBLK_FLAGS   (INL_POLICY_FLAG_IV_INO_LBLK_64 | INL_POLICY_FLAG_IV_INO_LBLK_32)

#define UNIT_BITS_MIN   9  /* 512 bytes */
#define DIRECT_KEY_IV   24 /* bytes: index and nonce */
#define LBLK_INDEX_BITS 32

/* Contexts as they lie on the medium. */
struct context_v1 {
	uint8_t version, contents_mode, filenames_mode, flags;
	uint8_t descriptor[INL_KEY_DESCRIPTOR_SIZE];
	uint8_t nonce[INL_FILE_NONCE_SIZE];
};
static_assert(sizeof(struct context_v1) == 28, "on-disk size");

struct context_v2 {
	uint8_t version, contents_mode, filenames_mode, flags, log2_data_unit_size;
	uint8_t reserved[3];
	uint8_t identifier[INL_KEY_IDENTIFIER_SIZE];
	uint8_t nonce[INL_FILE_NONCE_SIZE];
};
static_assert(sizeof(struct context_v2) == INL_CONTEXT_SIZE_MAX, "on-disk size");

static const struct inl_fscrypt_mode_info modes[] = {
	[INL_FSCRYPT_AES_256_XTS] = { "AES-256-XTS", INL_CIPHER_AES_256_XTS, INL_BLK_MODE_AES_256_XTS },
	[INL_FSCRYPT_AES_256_CTS] = { "AES-256-CBC-CTS", INL_CIPHER_AES_256_CTS, INL_BLK_MODE_INVALID },
	[INL_FSCRYPT_AES_128_CBC] = { "AES-128-CBC-ESSIV", INL_CIPHER_AES_128_CBC_ESSIV,
				      INL_BLK_MODE_AES_128_CBC_ESSIV },
	[INL_FSCRYPT_AES_128_CTS] = { "AES-128-CBC-CTS", INL_CIPHER_AES_128_CTS, INL_BLK_MODE_INVALID },
	[INL_FSCRYPT_SM4_XTS] = { "SM4-XTS", INL_CIPHER_SM4_XTS, INL_BLK_MODE_SM4_XTS },
	[INL_FSCRYPT_SM4_CTS] = { "SM4-CBC-CTS", INL_CIPHER_SM4_CTS, INL_BLK_MODE_INVALID },
	[INL_FSCRYPT_ADIANTUM] = { "Adiantum", INL_CIPHER_ADIANTUM, INL_BLK_MODE_ADIANTUM },
	[INL_FSCRYPT_AES_256_HCTR2] = { "AES-256-HCTR2", INL_CIPHER_AES_256_HCTR2, INL_BLK_MODE_INVALID },
};

/* Modes that go together, and the first policy version that has the pair. */
static const struct {
	uint8_t contents, filenames, since;
} pairs[] = {
	{ INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_CTS, 1 },
	{ INL_FSCRYPT_AES_128_CBC, INL_FSCRYPT_AES_128_CTS, 1 },
	{ INL_FSCRYPT_ADIANTUM, INL_FSCRYPT_ADIANTUM, 1 },
	{ INL_FSCRYPT_AES_256_XTS, INL_FSCRYPT_AES_256_HCTR2, 2 },
	{ INL_FSCRYPT_SM4_XTS, INL_FSCRYPT_SM4_CTS, 2 },
};

const struct inl_fscrypt_mode_info *inl_fscrypt_mode_info(int mode)
{
	if (mode < 0 || (size_t)mode >= sizeof(modes) / sizeof(modes[0]) || !modes[mode].name)
		return NULL;
	return &modes[mode];
}

const char *inl_fscrypt_mode_name(int mode)
{
	const struct inl_fscrypt_mode_info *info = inl_fscrypt_mode_info(mode);

	return info ? info->name : NULL;
}

static void from_v1(const struct context_v1 *c, struct inl_policy *policy, uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	*policy = (struct inl_policy){
		.version = 1,
		.contents_mode = c->contents_mode,
		.filenames_mode = c->filenames_mode,
		.flags = c->flags,
		.key = { .version = 1 },
	};
	memcpy(policy->key.bytes, c->descriptor, sizeof(c->descriptor));
	memcpy(nonce, c->nonce, sizeof(c->nonce));
}

static void from_v2(const struct context_v2 *c, struct inl_policy *policy, uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	*policy = (struct inl_policy){
		.version = 2,
		.contents_mode = c->contents_mode,
		.filenames_mode = c->filenames_mode,
		.flags = c->flags,
		.log2_data_unit_size = c->log2_data_unit_size,
		.key = { .version = 2 },
	};
	memcpy(policy->reserved, c->reserved, sizeof(c->reserved));
	memcpy(policy->key.bytes, c->identifier, sizeof(c->identifier));
	memcpy(nonce, c->nonce, sizeof(c->nonce));
}

int inl_policy_from_context(const void *context, size_t len, struct inl_policy *policy,
			    uint8_t nonce[INL_FILE_NONCE_SIZE])
{
	const uint8_t *version = context;

	if (len == sizeof(struct context_v1) && *version == 1)
		from_v1(context, policy, nonce);
	else if (len == sizeof(struct context_v2) && *version == 2)
		from_v2(context, policy, nonce);
	else
		return -EINVAL;
	return 0;
}

static size_t to_v1(const struct inl_policy *policy, const uint8_t *nonce, struct context_v1 *c)
{
	*c = (struct context_v1){
		.version = 1,
		.contents_mode = policy->contents_mode,
		.filenames_mode = policy->filenames_mode,
		.flags = policy->flags,
	};
	memcpy(c->descriptor, policy->key.bytes, sizeof(c->descriptor));
	memcpy(c->nonce, nonce, sizeof(c->nonce));
	return sizeof(*c);
}

static size_t to_v2(const struct inl_policy *policy, const uint8_t *nonce, struct context_v2 *c)
{
	*c = (struct context_v2){
		.version = 2,
		.contents_mode = policy->contents_mode,
		.filenames_mode = policy->filenames_mode,
		.flags = policy->flags,
		.log2_data_unit_size = policy->log2_data_unit_size,
	};
	memcpy(c->reserved, policy->reserved, sizeof(c->reserved));
	memcpy(c->identifier, policy->key.bytes, sizeof(c->identifier));
	memcpy(c->nonce, nonce, sizeof(c->nonce));
	return sizeof(*c);
}

size_t inl_policy_to_context(const struct inl_policy *policy, const uint8_t nonce[INL_FILE_NONCE_SIZE],
			     uint8_t context[INL_CONTEXT_SIZE_MAX])
{
	static_assert(_Alignof(struct context_v1) == 1 && _Alignof(struct context_v2) == 1, "bytes only");
	return policy->version == 1 ? to_v1(policy, nonce, (struct context_v1 *)context) :
				      to_v2(policy, nonce, (struct context_v2 *)context);
}

static int check_modes(const struct inl_policy *p, struct inl_diag *diag)
{
	const char *contents = inl_fscrypt_mode_name(p->contents_mode);
	const char *filenames = inl_fscrypt_mode_name(p->filenames_mode);

	if (!contents)
		return inl_diag_set(diag, -EINVAL, "unknown mode %u for contents", p->contents_mode);
	if (!filenames)
		return inl_diag_set(diag, -EINVAL, "unknown mode %u for names", p->filenames_mode);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (pairs[i].contents != p->contents_mode || pairs[i].filenames != p->filenames_mode)
			continue;
		if (p->version >= pairs[i].since)
			return 0;
		return inl_diag_set(diag, -EINVAL, "%s for contents with %s for names needs a version %u policy",
				    contents, filenames, pairs[i].since);
	}
	return inl_diag_set(diag, -EINVAL, "%s for contents does not go together with %s for names", contents,
			    filenames);
}

static int check_flags(const struct inl_policy *p, struct inl_diag *diag)
{
	uint8_t known = INL_POLICY_FLAGS_PAD_MASK | METHOD_FLAGS;
	uint8_t methods = p->flags & METHOD_FLAGS;

	if (p->flags & ~known)
		return inl_diag_set(diag, -EINVAL, "unknown policy flags 0x%02x", p->flags & ~known);
	if (p->version == 1 && (p->flags & LBLK_FLAGS))
		return inl_diag_set(diag, -EINVAL, "%s needs a version 2 policy", inl_policy_iv_method(p));
	if (methods & (methods - 1))
		return inl_diag_set(diag, -EINVAL, "DIRECT_KEY, IV_INO_LBLK_64 and IV_INO_LBLK_32 exclude each other");
	return 0;
}

static int check_unit(const struct inl_policy *p, const struct inl_policy_traits *traits, struct inl_diag *diag)
{
	unsigned bits = p->log2_data_unit_size;

	if (!bits)
		return 0;
	if (p->version == 1)
		return inl_diag_set(diag, -EINVAL, "a data unit size of its own needs a version 2 policy");
	if (bits < UNIT_BITS_MIN || bits > traits->block_bits)
		return inl_diag_set(diag, -EINVAL, "data units of 2^%u bytes: must be 2^%u to 2^%u (the block)", bits,
				    UNIT_BITS_MIN, traits->block_bits);
	if (bits != traits->block_bits && (p->flags & INL_POLICY_FLAG_IV_INO_LBLK_32))
		return inl_diag_set(diag, -EINVAL, "IV_INO_LBLK_32 does not go together with data units below a block");
	return 0;
}

static int check_direct_key(const struct inl_policy *p, struct inl_diag *diag)
{
	const struct inl_fscrypt_mode_info *mode = inl_fscrypt_mode_info(p->contents_mode);

	if (!(p->flags & INL_POLICY_FLAG_DIRECT_KEY))
		return 0;
	if (p->contents_mode != p->filenames_mode)
		return inl_diag_set(diag, -EINVAL, "DIRECT_KEY needs the same mode for contents and names");
	if (inl_cipher_info(mode->cipher)->iv_size < DIRECT_KEY_IV)
		return inl_diag_set(diag, -EINVAL, "DIRECT_KEY needs longer IVs than %s has", mode->name);
	return 0;
}

static int check_lblk(const struct inl_policy *p, const struct inl_policy_traits *traits, struct inl_diag *diag)
{
	const char *method = inl_policy_iv_method(p);
	unsigned unit_bits = p->log2_data_unit_size ? p->log2_data_unit_size : traits->block_bits;

	if (!(p->flags & LBLK_FLAGS))
		return 0;
	if (p->contents_mode != INL_FSCRYPT_AES_256_XTS)
		return inl_diag_set(diag, -EINVAL, "%s needs AES-256-XTS for contents", method);
	if (!traits->stable_inodes)
		return inl_diag_set(diag, -EINVAL, "%s needs inode numbers that never change (stable_inodes)", method);
	if (traits->ino_bits > 32)
		return inl_diag_set(diag, -EINVAL, "%s needs inode numbers of at most 32 bits", method);
	if (traits->lblk_bits + traits->block_bits - unit_bits > LBLK_INDEX_BITS)
		return inl_diag_set(diag, -EINVAL, "%s: the largest file has too many data units of 2^%u bytes", method,
				    unit_bits);
	return 0;
}

static int check_reserved(const struct inl_policy *p, struct inl_diag *diag)
{
	if (p->reserved[0] | p->reserved[1] | p->reserved[2])
		return inl_diag_set(diag, -EINVAL, "reserved bytes of the context are not zero");
	return 0;
}

int inl_policy_check(const struct inl_policy *policy, const struct inl_policy_traits *traits, bool casefold,
		     struct inl_diag *diag)
{
	int rc;

	if (policy->version != 1 && policy->version != 2)
		return inl_diag_set(diag, -EINVAL, "unknown policy version %u", policy->version);
	if (policy->version == 1 && casefold)
		return inl_diag_set(diag, -EINVAL, "a casefolded directory needs a version 2 policy");
	rc = check_modes(policy, diag);
	if (!rc)
		rc = check_flags(policy, diag);
	if (!rc)
		rc = check_unit(policy, traits, diag);
	if (!rc)
		rc = check_direct_key(policy, diag);
	if (!rc)
		rc = check_lblk(policy, traits, diag);
	if (!rc)
		rc = check_reserved(policy, diag);
	return rc;
}

bool inl_policy_equal(const struct inl_policy *a, const struct inl_policy *b)
{
	static_assert(_Alignof(struct inl_policy) == 1, "bytes only: no padding to compare");
	return memcmp(a, b, sizeof(*a)) == 0;
}

enum inl_iv_method inl_policy_method(const struct inl_policy *policy)
{
	if (policy->flags & INL_POLICY_FLAG_DIRECT_KEY)
		return INL_IV_DIRECT_KEY;
	if (policy->flags & INL_POLICY_FLAG_IV_INO_LBLK_64)
		return INL_IV_INO_LBLK_64;
	if (policy->flags & INL_POLICY_FLAG_IV_INO_LBLK_32)
		return INL_IV_INO_LBLK_32;
	return INL_IV_PER_FILE;
}

const char *inl_policy_iv_method(const struct inl_policy *policy)
{
	static const char *const names[] = {
		[INL_IV_PER_FILE] = "per-file",
		[INL_IV_DIRECT_KEY] = "DIRECT_KEY",
		[INL_IV_INO_LBLK_64] = "IV_INO_LBLK_64",
		[INL_IV_INO_LBLK_32] = "IV_INO_LBLK_32",
	};

	return names[inl_policy_method(policy)];
}

unsigned inl_policy_padding(const struct inl_policy *policy)
{
	return 4u << (policy->flags & INL_POLICY_FLAGS_PAD_MASK);
}
