/*
 * protect/message.c: the messages in the files of .fscrypt: parsed, checked, described.
 * Not here: the files (store_volume.c, store_dir.c).
 * Read more: metadata.proto; fscrypt's metadata/checks.go, whose rules these are.
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool inl_meta_is_id(const char *id, size_t len)
{
	return strlen(id) == len && strspn(id, "0123456789abcdef") == len;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static int damaged(struct inl_diag *diag, const char *what)
{
	return inl_diag_set(diag, -EUCLEAN, "%s", what);
}

static int check_wrapped(const Inl__Meta__Wrapped *wrapped, size_t len, struct inl_diag *diag)
{
	if (!wrapped || wrapped->iv.len != INL_IV_SIZE || wrapped->hmac.len != INL_MAC_SIZE)
		return damaged(diag, "has no wrapped key, or one with a wrong IV or HMAC");
	if (wrapped->encrypted_key.len != len)
		return inl_diag_set(diag, -EUCLEAN, "its wrapped key has %zu bytes, and not %zu",
				    wrapped->encrypted_key.len, len);
	return 0;
}

struct inl_hash_costs inl_meta_costs(const Inl__Meta__Costs *costs)
{
	bool cut = costs->parallelism > UINT8_MAX && !costs->truncation_fixed;

	return (struct inl_hash_costs){
		.time = (uint64_t)costs->time,
		.memory = (uint64_t)costs->memory,
		.parallelism = cut ? (uint8_t)costs->parallelism : (uint64_t)costs->parallelism,
	};
}

static int check_costs(const Inl__Meta__Costs *costs, struct inl_diag *diag)
{
	struct inl_hash_costs real;

	if (!costs || costs->time <= 0 || costs->memory <= 0 || costs->parallelism <= 0)
		return damaged(diag, "its costs are not there, or not positive");
	real = inl_meta_costs(costs);
	if (!real.parallelism || real.memory / 8 < real.parallelism)
		return damaged(diag, "its costs are none that Argon2 takes: 8 KiB at least for each lane");
	return 0;
}

enum inl_protector_kind inl_meta_kind(const Inl__Meta__Protector *protector)
{
	if (protector->source == INL_PROTECTOR_PASSPHRASE && protector->inlay_kind == 1)
		return INL_PROTECTOR_RECOVERY;
	return (enum inl_protector_kind)protector->source;
}

static int check_protector(const Inl__Meta__Protector *protector, const char *id, struct inl_diag *diag)
{
	int err = 0;

	if (protector->source < INL_PROTECTOR_LOGIN || protector->source > INL_PROTECTOR_RAW_KEY)
		return inl_diag_set(diag, -EUCLEAN, "is of a kind that is not known (%d)", (int)protector->source);
	if (protector->source == INL_PROTECTOR_LOGIN && protector->uid < 0)
		return damaged(diag, "its user is negative");
	if (protector->source != INL_PROTECTOR_RAW_KEY) {
		err = check_costs(protector->costs, diag);
		if (!err && protector->salt.len != INL_SALT_SIZE)
			err = damaged(diag, "its salt has a wrong length");
	}
	if (!err)
		err = check_wrapped(protector->wrapped_key, INL_PROTECTOR_KEY_SIZE, diag);
	if (!err && strcmp(protector->protector_descriptor, id))
		err = damaged(diag, "says that it is another one");
	return err;
}

static int check_options(const Inl__Meta__Options *options, size_t id_len, struct inl_diag *diag)
{
	int64_t version;

	if (!options)
		return damaged(diag, "has no options");
	/* Before there were two versions, nothing said which it is. */
	version = options->policy_version ? options->policy_version : 1;
	if (version != (id_len == 2 * INL_KEY_IDENTIFIER_SIZE ? 2 : 1))
		return damaged(diag, "its version does not go with its name");
	if (options->padding != 4 && options->padding != 8 && options->padding != 16 && options->padding != 32)
		return damaged(diag, "its padding is none of 4, 8, 16 and 32");
	if (options->contents <= 0 || options->contents > UINT8_MAX || options->filenames <= 0 ||
	    options->filenames > UINT8_MAX)
		return damaged(diag, "its modes are not known");
	return 0;
}

static int check_policy(const Inl__Meta__Policy *policy, const char *id, struct inl_diag *diag)
{
	size_t n = policy->n_wrapped_policy_keys;
	int err = check_options(policy->options, strlen(id), diag);

	if (!err && strcmp(policy->key_descriptor, id))
		err = damaged(diag, "says that it is another one");
	if (!err && n > INL_PROTECTORS_MAX)
		err = inl_diag_set(diag, -EUCLEAN, "has %zu protectors: %d at most", n, INL_PROTECTORS_MAX);
	for (size_t i = 0; i < n && !err; i++) {
		const Inl__Meta__PolicyKey *key = policy->wrapped_policy_keys[i];

		err = check_wrapped(key->wrapped_key, INL_POLICY_KEY_SIZE, diag);
		if (!err && !inl_meta_is_id(key->protector_descriptor, INL_PROTECTOR_ID_SIZE - 1))
			err = damaged(diag, "one of its protectors has a name that is none");
	}
	return err;
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

void inl_meta_protector_free(Inl__Meta__Protector *protector)
{
	inl__meta__protector__free_unpacked(protector, NULL);
}

void inl_meta_policy_free(Inl__Meta__Policy *policy)
{
	inl__meta__policy__free_unpacked(policy, NULL);
}

int inl_meta_protector(const uint8_t *data, size_t len, const char *id, struct inl_diag *diag,
		       Inl__Meta__Protector **out)
{
	Inl__Meta__Protector *protector = inl__meta__protector__unpack(NULL, len, data);
	int err;

	if (!protector)
		return damaged(diag, "is no protector");
	err = check_protector(protector, id, diag);
	if (err)
		inl_meta_protector_free(protector);
	else
		*out = protector;
	return err;
}

int inl_meta_policy(const uint8_t *data, size_t len, const char *id, struct inl_diag *diag, Inl__Meta__Policy **out)
{
	Inl__Meta__Policy *policy = inl__meta__policy__unpack(NULL, len, data);
	int err;

	if (!policy)
		return damaged(diag, "is no policy");
	err = check_policy(policy, id, diag);
	if (err)
		inl_meta_policy_free(policy);
	else
		*out = policy;
	return err;
}

/* ---- in our words ------------------------------------------------------------------------------------------------ */

void inl_meta_describe_policy(const Inl__Meta__Policy *policy, struct inl_policy_info *info)
{
	const Inl__Meta__Options *options = policy->options;

	info->policy.version = info->policy.key.version;
	info->policy.contents_mode = (uint8_t)options->contents;
	info->policy.filenames_mode = (uint8_t)options->filenames;
	info->policy.flags = (uint8_t)(__builtin_ctz((unsigned)options->padding) - 2);
	info->n_protectors = (unsigned)policy->n_wrapped_policy_keys;
	for (unsigned i = 0; i < info->n_protectors; i++)
		memcpy(info->protectors[i], policy->wrapped_policy_keys[i]->protector_descriptor,
		       INL_PROTECTOR_ID_SIZE);
}
