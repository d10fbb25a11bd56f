/*
 * protect/open.c: from what a person has to the key of a protector, and from there to the keys of policies.
 * Not here: wrapping itself (seal.c); making and changing protectors (make.c).
 * Read more: inlay/protect.h.
 */
#include "protect/private.h"
#include <errno.h>
#include <string.h>

void inl_protector_free(struct inl_protector *protector)
{
	inl_secret_free(protector);
}

const char *inl_protector_id(const struct inl_protector *protector)
{
	return protector->id;
}

static int hash_typed(const Inl__Meta__Protector *meta, const void *secret, size_t len,
		      const struct inl_hash_limits *limits, struct inl_diag *diag, uint8_t *by)
{
	const struct inl_hash_costs costs = inl_meta_costs(meta->costs);
	int err;

	if (len > INL_PASSPHRASE_MAX)
		return inl_diag_set(diag, -EINVAL, "a passphrase of more than %d bytes", INL_PASSPHRASE_MAX);
	err = inl_hash_check(&costs, limits, diag);
	if (!err)
		err = inl_hash(secret, len, meta->salt.data, &costs, by);
	if (err == -ENOMEM)
		inl_diag_set(diag, err, "no memory for its passphrase, which wants %ju KiB", (uintmax_t)costs.memory);
	return err;
}

/* As it was printed, however it was typed; one that is mistyped is found before it costs anything. */
static int hash_code(const Inl__Meta__Protector *meta, const void *secret, size_t len,
		     const struct inl_hash_limits *limits, struct inl_diag *diag, uint8_t *by)
{
	char *code = inl_secret_alloc(INL_CODE_SIZE);
	int err = code ? inl_code_parse(secret, len, diag, code) : -ENOMEM;

	if (!err)
		err = hash_typed(meta, code, INL_CODE_SIZE - 1, limits, diag, by);
	inl_secret_free(code);
	return err;
}

int inl_protector_wrapping(const Inl__Meta__Protector *meta, const void *secret, size_t len,
			   const struct inl_hash_limits *limits, struct inl_diag *diag,
			   uint8_t by[INL_PROTECTOR_KEY_SIZE])
{
	if (inl_meta_kind(meta) == INL_PROTECTOR_RECOVERY)
		return hash_code(meta, secret, len, limits, diag, by);
	if (inl_protector_is_typed(inl_meta_kind(meta)))
		return hash_typed(meta, secret, len, limits, diag, by);
	if (len != INL_PROTECTOR_KEY_SIZE)
		return inl_diag_set(diag, -EINVAL, "the key of this protector has %d bytes", INL_PROTECTOR_KEY_SIZE);
	memcpy(by, secret, len);
	return 0;
}

/* What was unwrapped has a name, which is the protector's: else somebody has mixed files up. */
static int check_name(const struct inl_protector *protector, struct inl_diag *diag)
{
	struct inl_key_spec spec;
	char hex[INL_KEY_SPEC_HEX_SIZE];
	int err = inl_key_spec_derive(protector->key, sizeof(protector->key), 1, &spec);

	if (!err && strcmp(inl_key_spec_hex(&spec, hex), protector->id))
		err = inl_diag_set(diag, -EUCLEAN, "has the key of another protector");
	return err;
}

/* A way from what a person has to the key that wraps. */
typedef int wrapping(const Inl__Meta__Protector *meta, const void *secret, size_t len,
		     const struct inl_hash_limits *limits, struct inl_diag *diag, uint8_t *by);

static int unwrap(const Inl__Meta__Protector *meta, wrapping *find, const void *secret, size_t len,
		  const struct inl_hash_limits *limits, struct inl_diag *diag, struct inl_protector *protector)
{
	uint8_t *by = inl_secret_alloc(INL_PROTECTOR_KEY_SIZE);
	int err = by ? find(meta, secret, len, limits, diag, by) : -ENOMEM;

	if (!err)
		err = inl_unseal(by, meta->wrapped_key, INL_PROTECTOR_KEY_SIZE, protector->key);
	inl_secret_free(by);
	return err;
}

/*
 * The tool fscrypt gives a recovery code's protector any passphrase, and it is called a recovery code still. So what
 * cannot be a code may be that; if it is not, what is wrong with it as a code is said.
 */
static int unwrap_no_code(const Inl__Meta__Protector *meta, const void *secret, size_t len,
			  const struct inl_hash_limits *limits, struct inl_diag *diag, struct inl_protector *protector)
{
	struct inl_diag other = { 0 };
	int err = unwrap(meta, hash_typed, secret, len, limits, &other, protector);

	if (err == -EKEYREJECTED)
		return -EINVAL;
	if (diag)
		*diag = other;
	return err;
}

static int open_meta(const Inl__Meta__Protector *meta, const void *secret, size_t len,
		     const struct inl_hash_limits *limits, struct inl_diag *diag, struct inl_protector *protector)
{
	int err = unwrap(meta, inl_protector_wrapping, secret, len, limits, diag, protector);

	if (err == -EINVAL && inl_meta_kind(meta) == INL_PROTECTOR_RECOVERY && !inl_code_has_shape(secret, len))
		err = unwrap_no_code(meta, secret, len, limits, diag, protector);
	if (err)
		return err;
	memcpy(protector->id, meta->protector_descriptor, INL_PROTECTOR_ID_SIZE);
	return check_name(protector, diag);
}

int inl_protector_open(struct inl_protect *protect, const char *id, const void *secret, size_t len,
		       const struct inl_hash_limits *limits, struct inl_diag *diag, struct inl_protector **out)
{
	Inl__Meta__Protector *meta = NULL;
	struct inl_protector *protector;
	int err = inl_meta_load_protector(protect, id, NULL, diag, &meta);

	if (err)
		return err;
	protector = inl_secret_alloc(sizeof(*protector));
	err = protector ? open_meta(meta, secret, len, limits, diag, protector) : -ENOMEM;
	inl_meta_protector_free(meta);
	if (err)
		inl_protector_free(protector);
	else
		*out = protector;
	return err;
}

const Inl__Meta__Wrapped *inl_meta_find_wrapped(const Inl__Meta__Policy *policy, const char *id)
{
	for (size_t i = 0; i < policy->n_wrapped_policy_keys; i++) {
		if (!strcmp(policy->wrapped_policy_keys[i]->protector_descriptor, id))
			return policy->wrapped_policy_keys[i]->wrapped_key;
	}
	return NULL;
}

static int check_key(const uint8_t *key, const struct inl_key_spec *policy, struct inl_diag *diag)
{
	struct inl_key_spec spec;
	int err = inl_key_spec_derive(key, INL_POLICY_KEY_SIZE, policy->version, &spec);

	if (!err && memcmp(&spec, policy, sizeof(spec)))
		err = inl_diag_set(diag, -EUCLEAN, "what is wrapped is the key of another policy");
	return err;
}

int inl_protector_key(struct inl_protect *protect, const struct inl_protector *protector,
		      const struct inl_key_spec *policy, struct inl_diag *diag, uint8_t key[INL_POLICY_KEY_SIZE])
{
	const Inl__Meta__Wrapped *wrapped;
	Inl__Meta__Policy *meta = NULL;
	char id[INL_KEY_SPEC_HEX_SIZE];
	int err = inl_meta_load_policy(protect, inl_key_spec_hex(policy, id), diag, &meta);

	if (err)
		return err;
	wrapped = inl_meta_find_wrapped(meta, protector->id);
	err = wrapped ? inl_unseal(protector->key, wrapped, INL_POLICY_KEY_SIZE, key) : -ENOKEY;
	inl_meta_policy_free(meta);
	if (err == -EKEYREJECTED)
		err = inl_diag_set(diag, -EUCLEAN, "the key that is wrapped for protector %s is damaged",
				   protector->id);
	if (!err) {
		err = check_key(key, policy, diag);
		if (err)
			inl_wipe(key, INL_POLICY_KEY_SIZE);
	}
	return err;
}
