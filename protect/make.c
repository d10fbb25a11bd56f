/*
 * protect/make.c: protectors and wrapped keys made, changed and removed.
 * Not here: how files are written (store_volume.c, store_dir.c).
 * Read more: inlay/protect.h; fscrypt's actions/protector.go, actions/policy.go.
 *
 * The order of writing is what a crash cannot spoil: what protects comes before what is protected by it, and goes
 * after. What callers see has the lock of the store all the time.
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int inl_protect_random(void *bytes, size_t len)
{
	ssize_t n;

	do {
		n = getrandom(bytes, len, 0);
	} while (n < 0 && errno == EINTR);
	return n == (ssize_t)len ? 0 : -EIO;
}

int inl_meta_temp(char name[INL_TEMP_SIZE])
{
	uint64_t number = 0;
	int err = inl_protect_random(&number, sizeof(number));

	snprintf(name, INL_TEMP_SIZE, INL_META_TEMP "%016jx", (uintmax_t)number);
	return err;
}

_Static_assert(INL_RECOVERY_CODE_SIZE == INL_CODE_SIZE, "as announced");

int inl_recovery_code(char code[INL_RECOVERY_CODE_SIZE])
{
	uint8_t *random = inl_secret_alloc(INL_CODE_RANDOM);
	int err = random ? inl_protect_random(random, INL_CODE_RANDOM) : -ENOMEM;

	if (!err)
		inl_code_make(random, code);
	inl_secret_free(random);
	return err;
}

/* ---- wrapping ---------------------------------------------------------------------------------------------------- */

/* A wrapped key on its own, as messages point to it. */
struct sealed {
	Inl__Meta__Wrapped wrapped;
	uint8_t iv[INL_IV_SIZE], mac[INL_MAC_SIZE], key[INL_POLICY_KEY_SIZE];
};

static int seal(const uint8_t *by, const uint8_t *key, size_t len, struct sealed *sealed)
{
	int err = inl_protect_random(sealed->iv, sizeof(sealed->iv));

	if (!err)
		err = inl_seal(by, sealed->iv, key, len, sealed->key, sealed->mac);
	sealed->wrapped = (Inl__Meta__Wrapped)INL__META__WRAPPED__INIT;
	sealed->wrapped.iv = (ProtobufCBinaryData){ sizeof(sealed->iv), sealed->iv };
	sealed->wrapped.encrypted_key = (ProtobufCBinaryData){ len, sealed->key };
	sealed->wrapped.hmac = (ProtobufCBinaryData){ sizeof(sealed->mac), sealed->mac };
	return err;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static int write_message(struct inl_protect *protect, enum inl_meta_dir dir, const char *id,
			 const ProtobufCMessage *message, const struct inl_meta_owner *owner, struct inl_diag *diag)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t data[INL_META_MAX];

	if (len > sizeof(data))
		return inl_diag_set(diag, -ENOSPC, ".fscrypt/%s/%s would have more than %d bytes",
				    inl_meta_dir_names[dir], id, INL_META_MAX);
	protobuf_c_message_pack(message, data);
	return protect->ops->write(protect->at, dir, id, data, len, owner, diag);
}

/* Is there a protector behind this name? One that lies elsewhere counts: its link is there. */
static bool is_there(struct inl_protect *protect, const char *id)
{
	struct inl_protector_info info;
	int err = inl_protector_info(protect, id, &info, NULL);

	return !err || err == -ENOLINK;
}

/* ---- protectors -------------------------------------------------------------------------------------------------- */

struct search {
	const char *name;
	bool found;
};

static int is_called(const struct inl_protector_info *info, void *arg)
{
	struct search *search = arg;

	search->found |= !info->status && !strcmp(info->name, search->name);
	return 0;
}

/* How many bytes the sign at the start of text has; 0: none that is well-formed (the Unicode standard, table 3-7). */
static size_t utf8_sign(const unsigned char *text, uint32_t *sign)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = text[0];
	size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

	*sign = n == 1 ? first : first & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*sign = *sign << 6 | (text[i] & 0x3f);
	}
	return n && *sign >= least[n] && *sign <= 0x10ffff && (*sign < 0xd800 || *sign > 0xdfff) ? n : 0;
}

/* What the tool fscrypt can read, what a terminal shows as it is, and what nobody takes for the id of another. */
static int check_name(const char *name, struct inl_diag *diag)
{
	const unsigned char *at = (const unsigned char *)name;
	uint32_t sign;
	size_t n;

	if (!name || !*name || strlen(name) > 255)
		return inl_diag_set(diag, -EINVAL, "a protector has a name of 1 to 255 bytes");
	for (; *at; at += n) {
		n = utf8_sign(at, &sign);
		if (!n)
			return inl_diag_set(diag, -EINVAL, "the name of a protector is UTF-8: this is not");
		if (sign < 0x20 || (sign >= 0x7f && sign < 0xa0))
			return inl_diag_set(diag, -EINVAL, "the name of a protector has no control characters");
	}
	if (strlen(name) == INL_PROTECTOR_ID_SIZE - 1 && strspn(name, "0123456789abcdefABCDEF") == strlen(name))
		return inl_diag_set(diag, -EINVAL, "16 hex digits are an id, and no name of a protector");
	return 0;
}

static int check_new(struct inl_protect *protect, const struct inl_protector_new *what, size_t len,
		     struct inl_diag *diag)
{
	struct search search = { .name = what->name };
	int err = check_name(what->name, diag);

	if (err)
		return err;
	if (what->kind < INL_PROTECTOR_PASSPHRASE || what->kind > INL_PROTECTOR_RECOVERY)
		return inl_diag_set(diag, -EINVAL, "protectors of this kind are not made here");
	if (!len)
		return inl_diag_set(diag, -EINVAL, "nothing protects nothing: the passphrase is empty");
	err = inl_protectors(protect, is_called, &search, diag);
	if (!err && search.found)
		err = inl_diag_set(diag, -EEXIST, "there is a protector \"%s\" already", what->name);
	return err == -ENOENT ? 0 : err;
}

/* A message and what it points to. */
struct new_protector {
	Inl__Meta__Protector meta;
	Inl__Meta__Costs costs;
	uint8_t salt[INL_SALT_SIZE];
	struct sealed sealed;
};

static int fill_costs(struct new_protector *new, const struct inl_hash_costs *costs,
		      const struct inl_hash_limits *limits, struct inl_diag *diag)
{
	int err = inl_hash_check(costs, limits, diag);

	if (!err && (!costs->time || !costs->parallelism || costs->memory < 8 * costs->parallelism))
		err = inl_diag_set(diag, -EINVAL,
				   "costs that Argon2 does not take: a pass and 8 KiB for each lane are the least");
	new->costs = (Inl__Meta__Costs)INL__META__COSTS__INIT;
	new->costs.time = (int64_t)costs->time;
	new->costs.memory = (int64_t)costs->memory;
	new->costs.parallelism = (int64_t)costs->parallelism;
	return err ? err : inl_protect_random(new->salt, sizeof(new->salt));
}

/* Wrap its key by what a person has. */
static int wrap_protector(const Inl__Meta__Protector *meta, const struct inl_protector *protector, const void *secret,
			  size_t len, struct sealed *sealed, struct inl_diag *diag)
{
	const struct inl_hash_limits any = { .memory = UINT32_MAX };
	uint8_t *by = inl_secret_alloc(INL_PROTECTOR_KEY_SIZE);
	int err = by ? inl_protector_wrapping(meta, secret, len, &any, diag, by) : -ENOMEM;

	if (!err)
		err = seal(by, protector->key, INL_PROTECTOR_KEY_SIZE, sealed);
	inl_secret_free(by);
	return err;
}

static int name_protector(struct inl_protector *protector)
{
	char hex[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec;
	int err = inl_protect_random(protector->key, sizeof(protector->key));

	if (!err)
		err = inl_key_spec_derive(protector->key, sizeof(protector->key), 1, &spec);
	if (!err)
		memcpy(protector->id, inl_key_spec_hex(&spec, hex), INL_PROTECTOR_ID_SIZE);
	return err;
}

static int fill_protector(struct new_protector *new, const struct inl_protector_new *what, const void *secret,
			  size_t len, struct inl_protector *protector, struct inl_diag *diag)
{
	bool typed = inl_protector_is_typed(what->kind);
	int err = name_protector(protector);

	new->meta = (Inl__Meta__Protector)INL__META__PROTECTOR__INIT;
	new->meta.protector_descriptor = protector->id;
	new->meta.source = typed ? INL_PROTECTOR_PASSPHRASE : what->kind;
	new->meta.inlay_kind = what->kind == INL_PROTECTOR_RECOVERY;
	new->meta.name = (char *)what->name;
	if (!err && typed)
		err = fill_costs(new, &what->costs, NULL, diag);
	if (typed) {
		new->meta.costs = &new->costs;
		new->meta.salt = (ProtobufCBinaryData){ sizeof(new->salt), new->salt };
	}
	if (!err)
		err = wrap_protector(&new->meta, protector, secret, len, &new->sealed, diag);
	new->meta.wrapped_key = &new->sealed.wrapped;
	return err;
}

static int make_protector(struct inl_protect *protect, const struct inl_protector_new *what, const void *secret,
			  size_t len, struct inl_diag *diag, struct inl_protector **out)
{
	struct inl_protector *protector;
	struct new_protector new;
	int err = check_new(protect, what, len, diag);

	if (err)
		return err;
	protector = inl_secret_alloc(sizeof(*protector));
	err = protector ? fill_protector(&new, what, secret, len, protector, diag) : -ENOMEM;
	if (!err)
		err = write_message(protect, INL_META_PROTECTORS, protector->id, &new.meta.base, NULL, diag);
	if (err)
		inl_protector_free(protector);
	else
		*out = protector;
	return err;
}

int inl_protector_make(struct inl_protect *protect, const struct inl_protector_new *what, const void *secret,
		       size_t len, struct inl_diag *diag, struct inl_protector **out)
{
	int err = inl_protect_lock(protect, diag);

	if (err)
		return err;
	err = make_protector(protect, what, secret, len, diag, out);
	inl_protect_unlock(protect);
	return err;
}

/* In the message that was read, so that what else is in it stays. */
static int rewrap(Inl__Meta__Protector *meta, const struct inl_protector *protector, const void *secret, size_t len,
		  const struct inl_hash_costs *costs, struct new_protector *new, struct inl_diag *diag)
{
	const struct inl_hash_limits any = { .memory = UINT32_MAX };
	const struct inl_hash_costs same = meta->costs ? inl_meta_costs(meta->costs) : (struct inl_hash_costs){ 0 };
	int err = 0;

	if (inl_protector_is_typed(inl_meta_kind(meta))) {
		/* What it has was fine for whoever opened it. */
		err = fill_costs(new, costs ? costs : &same, costs ? NULL : &any, diag);
		if (!err) {
			meta->costs->time = new->costs.time;
			meta->costs->memory = new->costs.memory;
			meta->costs->parallelism = new->costs.parallelism;
			memcpy(meta->salt.data, new->salt, INL_SALT_SIZE);
		}
	}
	if (!err)
		err = wrap_protector(meta, protector, secret, len, &new->sealed, diag);
	if (!err) {
		memcpy(meta->wrapped_key->iv.data, new->sealed.iv, INL_IV_SIZE);
		memcpy(meta->wrapped_key->encrypted_key.data, new->sealed.key, INL_PROTECTOR_KEY_SIZE);
		memcpy(meta->wrapped_key->hmac.data, new->sealed.mac, INL_MAC_SIZE);
	}
	return err;
}

int inl_protector_change(struct inl_protect *protect, const struct inl_protector *protector, const void *secret,
			 size_t len, const struct inl_hash_costs *costs, struct inl_diag *diag)
{
	Inl__Meta__Protector *meta = NULL;
	struct inl_meta_owner owner;
	struct new_protector new;
	int err;

	if (!len)
		return inl_diag_set(diag, -EINVAL, "nothing protects nothing: the passphrase is empty");
	err = inl_protect_lock(protect, diag);
	if (err)
		return err;
	err = inl_meta_load_own(protect, protector->id, &owner, diag, &meta);
	if (!err)
		err = rewrap(meta, protector, secret, len, costs, &new, diag);
	if (!err)
		err = write_message(protect, INL_META_PROTECTORS, protector->id, &meta->base, &owner, diag);
	inl_protect_unlock(protect);
	inl_meta_protector_free(meta);
	return err;
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

/* fscrypt knows modes and padding, and nothing else that a policy may have. */
static int check_expressible(const struct inl_policy *policy, struct inl_diag *diag)
{
	if (policy->flags & ~INL_POLICY_FLAGS_PAD_MASK)
		return inl_diag_set(diag, -EOPNOTSUPP, "fscrypt has no place for the IV method %s",
				    inl_policy_iv_method(policy));
	if (policy->log2_data_unit_size)
		return inl_diag_set(diag, -EOPNOTSUPP,
				    "fscrypt has no place for data units of another size than a block");
	return 0;
}

static int check_unknown(struct inl_protect *protect, const char *id, struct inl_diag *diag)
{
	uint8_t data[INL_META_MAX + 1];
	struct inl_meta_owner owner;
	size_t len = 0;
	int err = inl_metadata_read(protect, INL_META_POLICIES, id, data, &len, &owner, NULL);

	if (!err)
		return inl_diag_set(diag, -EEXIST, "the policy %s has metadata already", id);
	return err == -ENOENT ? 0 : err;
}

/* Somebody else may have removed it since it was opened: nothing is to depend on what is gone. */
static int check_is_there(struct inl_protect *protect, const struct inl_protector *protector, struct inl_diag *diag)
{
	if (is_there(protect, protector->id))
		return 0;
	return inl_diag_set(diag, -ENOENT, "the protector %s is not there any more", protector->id);
}

static int make_protected(struct inl_protect *protect, const struct inl_policy *policy, const uint8_t *key,
			  const struct inl_protector *protector, struct inl_diag *diag)
{
	Inl__Meta__PolicyKey policy_key = INL__META__POLICY_KEY__INIT, *list = &policy_key;
	Inl__Meta__Options options = INL__META__OPTIONS__INIT;
	Inl__Meta__Policy meta = INL__META__POLICY__INIT;
	char id[INL_KEY_SPEC_HEX_SIZE];
	struct inl_key_spec spec;
	struct sealed sealed;
	int err = check_expressible(policy, diag);

	if (!err)
		err = inl_key_spec_derive(key, INL_POLICY_KEY_SIZE, policy->version, &spec);
	if (!err && memcmp(&spec, &policy->key, sizeof(spec)))
		err = inl_diag_set(diag, -EINVAL, "this is not the key of the policy");
	inl_key_spec_hex(&policy->key, id);
	if (!err)
		err = check_unknown(protect, id, diag);
	if (!err)
		err = check_is_there(protect, protector, diag);
	if (!err)
		err = seal(protector->key, key, INL_POLICY_KEY_SIZE, &sealed);
	if (err)
		return err;
	options.padding = inl_policy_padding(policy);
	options.contents = policy->contents_mode;
	options.filenames = policy->filenames_mode;
	options.policy_version = policy->version;
	policy_key.protector_descriptor = (char *)protector->id;
	policy_key.wrapped_key = &sealed.wrapped;
	meta.key_descriptor = id;
	meta.options = &options;
	meta.wrapped_policy_keys = &list;
	meta.n_wrapped_policy_keys = 1;
	return write_message(protect, INL_META_POLICIES, id, &meta.base, NULL, diag);
}

int inl_protected_make(struct inl_protect *protect, const struct inl_policy *policy, const uint8_t *key,
		       const struct inl_protector *protector, struct inl_diag *diag)
{
	int err = inl_protect_lock(protect, diag);

	if (err)
		return err;
	err = make_protected(protect, policy, key, protector, diag);
	inl_protect_unlock(protect);
	return err;
}

int inl_protected_remove(struct inl_protect *protect, const struct inl_key_spec *policy, struct inl_diag *diag)
{
	char id[INL_KEY_SPEC_HEX_SIZE];
	int err = inl_protect_lock(protect, diag);

	if (err)
		return err;
	err = protect->ops->remove(protect->at, INL_META_POLICIES, inl_key_spec_hex(policy, id), diag);
	inl_protect_unlock(protect);
	return err;
}

/* Read a policy, with the owner of its file. */
static int load_policy(struct inl_protect *protect, const char *id, struct inl_meta_owner *owner, struct inl_diag *diag,
		       Inl__Meta__Policy **out)
{
	uint8_t data[INL_META_MAX + 1];
	size_t len = 0;
	int err = inl_metadata_read(protect, INL_META_POLICIES, id, data, &len, owner, diag);

	return err ? err : inl_meta_policy(data, len, id, diag, out);
}

/* The message with one more key; it is given back its own list afterwards. */
static int write_with(struct inl_protect *protect, const char *id, Inl__Meta__Policy *meta,
		      const struct inl_meta_owner *owner, struct sealed *sealed, const struct inl_protector *more,
		      struct inl_diag *diag)
{
	Inl__Meta__PolicyKey added = INL__META__POLICY_KEY__INIT, *list[INL_PROTECTORS_MAX + 1],
			     **own = meta->wrapped_policy_keys;
	size_t n = meta->n_wrapped_policy_keys;
	int err;

	added.protector_descriptor = (char *)more->id;
	added.wrapped_key = &sealed->wrapped;
	for (size_t i = 0; i < n; i++)
		list[i] = own[i];
	list[n] = &added;
	meta->wrapped_policy_keys = list;
	meta->n_wrapped_policy_keys = n + 1;
	err = write_message(protect, INL_META_POLICIES, id, &meta->base, owner, diag);
	meta->wrapped_policy_keys = own;
	meta->n_wrapped_policy_keys = n;
	return err;
}

static int add_protected(struct inl_protect *protect, const struct inl_key_spec *policy, const struct inl_protector *by,
			 const struct inl_protector *more, struct inl_diag *diag)
{
	uint8_t *key = inl_secret_alloc(INL_POLICY_KEY_SIZE);
	Inl__Meta__Policy *meta = NULL;
	char id[INL_KEY_SPEC_HEX_SIZE];
	struct inl_meta_owner owner;
	struct sealed sealed;
	int err = key ? inl_protector_key(protect, by, policy, diag, key) : -ENOMEM;

	inl_key_spec_hex(policy, id);
	if (!err)
		err = check_is_there(protect, more, diag);
	if (!err)
		err = seal(more->key, key, INL_POLICY_KEY_SIZE, &sealed);
	inl_secret_free(key);
	if (!err)
		err = load_policy(protect, id, &owner, diag, &meta);
	if (!err && !inl_meta_find_wrapped(meta, more->id)) {
		if (meta->n_wrapped_policy_keys == INL_PROTECTORS_MAX)
			err = inl_diag_set(diag, -ENOSPC, "the policy %s has %d protectors: no more go into its file",
					   id, INL_PROTECTORS_MAX);
		else
			err = write_with(protect, id, meta, &owner, &sealed, more, diag);
	}
	inl_meta_policy_free(meta);
	return err;
}

int inl_protected_add(struct inl_protect *protect, const struct inl_key_spec *policy, const struct inl_protector *by,
		      const struct inl_protector *more, struct inl_diag *diag)
{
	int err = inl_protect_lock(protect, diag);

	if (err)
		return err;
	err = add_protected(protect, policy, by, more, diag);
	inl_protect_unlock(protect);
	return err;
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

struct removal {
	struct inl_protect *protect;
	const char *id;
	bool check; /* only look whether it may go */
	struct inl_diag *diag;
};

static int is_last(const char *policy, struct inl_diag *diag)
{
	return inl_diag_set(diag, -EBUSY, "it is the only protector of policy %s: without it nothing opens that",
			    policy);
}

/* What is left in the message has the last word: the tool fscrypt, which may write meanwhile, knows no lock. */
static int drop(struct inl_protect *protect, const char *policy, const char *id, struct inl_diag *diag)
{
	Inl__Meta__Policy *meta = NULL;
	struct inl_meta_owner owner;
	int err = load_policy(protect, policy, &owner, diag, &meta);
	size_t n = 0, n_there = 0;

	if (err)
		return err;
	for (size_t i = 0; i < meta->n_wrapped_policy_keys; i++) {
		Inl__Meta__PolicyKey *key = meta->wrapped_policy_keys[i];

		if (strcmp(key->protector_descriptor, id)) {
			n_there += is_there(protect, key->protector_descriptor);
			meta->wrapped_policy_keys[n++] = key;
		} else {
			inl__meta__policy_key__free_unpacked(key, NULL);
		}
	}
	meta->n_wrapped_policy_keys = n;
	err = n_there ? write_message(protect, INL_META_POLICIES, policy, &meta->base, &owner, diag)
		      : is_last(policy, diag);
	inl_meta_policy_free(meta);
	return err;
}

/*
 * Where several users share a directory, each has policies that only he can read, and that only he could change: they
 * keep nobody from removing what is his own.
 */
static bool is_of_others(const struct inl_protect *protect, const struct inl_policy_info *info)
{
	return protect->ops == &inl_store_dir && info->status == -EACCES;
}

/* Does the policy have others that open it? */
static int remove_from(const struct inl_policy_info *info, void *arg)
{
	struct removal *removal = arg;
	char id[INL_KEY_SPEC_HEX_SIZE];
	unsigned n_others = 0;
	bool has = false;

	for (unsigned i = 0; i < info->n_protectors; i++) {
		bool same = !strcmp(info->protectors[i], removal->id);

		has |= same;
		n_others += !same && is_there(removal->protect, info->protectors[i]);
	}
	inl_key_spec_hex(&info->policy.key, id);
	if (is_of_others(removal->protect, info))
		return 0;
	if (info->status) /* it may be in there */
		return inl_diag_set(removal->diag, info->status, "policy %s: %s", id,
				    info->why.text[0] ? info->why.text : "cannot be read");
	if (!has)
		return 0;
	if (!n_others)
		return is_last(id, removal->diag);
	return removal->check ? 0 : drop(removal->protect, id, removal->id, removal->diag);
}

static int remove_protector(struct inl_protect *protect, const char *id, struct inl_diag *diag)
{
	struct removal removal = { .protect = protect, .id = id, .check = true, .diag = diag };
	char link[INL_PROTECTOR_ID_SIZE + sizeof(INL_META_SUFFIX)];
	int err;

	err = inl_protected(protect, remove_from, &removal, diag);
	removal.check = false;
	if (!err)
		err = inl_protected(protect, remove_from, &removal, diag);
	if (err)
		return err;
	snprintf(link, sizeof(link), "%s" INL_META_SUFFIX, id);
	err = protect->ops->remove(protect->at, INL_META_PROTECTORS, link, NULL);
	return err == -ENOENT ? protect->ops->remove(protect->at, INL_META_PROTECTORS, id, diag) : err;
}

int inl_protector_remove(struct inl_protect *protect, const char *id, struct inl_diag *diag)
{
	int err = inl_meta_is_id(id, INL_PROTECTOR_ID_SIZE - 1) ? inl_protect_lock(protect, diag) : -ENOENT;

	if (err)
		return err;
	err = remove_protector(protect, id, diag);
	inl_protect_unlock(protect);
	return err;
}
