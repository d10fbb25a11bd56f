/*
 * serve/fscrypt.c: the ioctls of fscrypt, as programs know them from Linux: policies and keys.
 * Not here: what adding and removing a key does (lock.c); Inlay's own ioctls (control.c).
 * Read more: linux/Documentation/filesystems/fscrypt.rst, "User API"; linux/fscrypt.h.
 *
 * The number of an ioctl says how many bytes FUSE carries. Some of these want more, or others: whoever asks waits in
 * the call, so the rest is read from its memory, and written there, where the system allows that (ask.c).
 */
#include "serve/control.h"
#include "serve/serve.h"
#include <errno.h>
#include <linux/fscrypt.h>
#include <stdlib.h>
#include <string.h>

#define SPEC_SIZE    40u /* bytes: struct fscrypt_key_specifier */
#define FLAG_WRAPPED 1u  /* of struct fscrypt_add_key_arg, in what older headers call reserved */

static uid_t uid_of(const struct inl_control *control)
{
	return fuse_req_ctx(control->req)->uid;
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

static size_t policy_to_wire(const struct inl_policy *policy, struct fscrypt_policy_v2 *wire)
{
	struct fscrypt_policy_v1 *old = (struct fscrypt_policy_v1 *)wire;

	memset(wire, 0, sizeof(*wire));
	if (policy->version == 1) {
		old->contents_encryption_mode = policy->contents_mode;
		old->filenames_encryption_mode = policy->filenames_mode;
		old->flags = policy->flags;
		memcpy(old->master_key_descriptor, policy->key.bytes, INL_KEY_DESCRIPTOR_SIZE);
		return sizeof(*old);
	}
	wire->version = FSCRYPT_POLICY_V2;
	wire->contents_encryption_mode = policy->contents_mode;
	wire->filenames_encryption_mode = policy->filenames_mode;
	wire->flags = policy->flags;
	wire->__reserved[0] = policy->log2_data_unit_size;
	memcpy(wire->__reserved + 1, policy->reserved, 3);
	memcpy(wire->master_key_identifier, policy->key.bytes, INL_KEY_IDENTIFIER_SIZE);
	return sizeof(*wire);
}

/* Versions other than these two are refused before. */
static void policy_from_wire(const uint8_t *bytes, struct inl_policy *policy)
{
	const struct fscrypt_policy_v1 *old = (const void *)bytes;
	const struct fscrypt_policy_v2 *wire = (const void *)bytes;

	*policy = (struct inl_policy){
		.version = bytes[0] == FSCRYPT_POLICY_V1 ? 1 : 2,
		.contents_mode = old->contents_encryption_mode,
		.filenames_mode = old->filenames_encryption_mode,
		.flags = old->flags,
	};
	policy->key.version = policy->version;
	if (policy->version == 1) {
		memcpy(policy->key.bytes, old->master_key_descriptor, INL_KEY_DESCRIPTOR_SIZE);
	} else {
		policy->log2_data_unit_size = wire->__reserved[0];
		memcpy(policy->reserved, wire->__reserved + 1, 3);
		memcpy(policy->key.bytes, wire->master_key_identifier, INL_KEY_IDENTIFIER_SIZE);
	}
}

int inl_control_set_policy(const struct inl_control *control, const struct inl_policy *policy, bool ready)
{
	struct inl_mount *mount = control->mount;
	struct inl_policy asked = *policy;
	uid_t uid = uid_of(control);
	struct inl_stat st;
	bool fresh;
	int err = inl_inode_stat(control->inode, &st, NULL);

	if (err)
		return err;
	if (uid && uid != st.uid)
		return -EACCES;
	fresh = S_ISDIR(st.mode) && !inl_inode_policy(control->inode, NULL);
	/* Without a claim the key is as good as not there. A name that no key has says all that comes before that. */
	if (fresh && policy->version == 2 && uid &&
	    !(mount->keys.ring && inl_keyring_claimed(mount->keys.ring, &policy->key, uid))) {
		memset(asked.key.bytes, 0, sizeof(asked.key.bytes));
		fresh = false;
		ready = true;
	}
	/* Before, so that no lock misses it. */
	if (fresh)
		err = inl_top_note_unnamed(mount, control->node->id, &policy->key);
	if (err)
		return err;
	return ready ? inl_set_policy(control->inode, &asked, NULL, NULL)
		     : inl_set_policy_unready(control->inode, &asked, NULL);
}

static int set_policy(const struct inl_control *control)
{
	uint8_t bytes[sizeof(struct fscrypt_policy_v2)];
	struct inl_policy policy;
	int err = inl_peek(control, 0, bytes, 1);

	if (!err && bytes[0] != FSCRYPT_POLICY_V1 && bytes[0] != FSCRYPT_POLICY_V2)
		return -EINVAL;
	if (!err)
		err = inl_peek(control, 0, bytes,
			       bytes[0] == FSCRYPT_POLICY_V1 ? sizeof(struct fscrypt_policy_v1) : sizeof(bytes));
	if (err)
		return err;
	policy_from_wire(bytes, &policy);
	err = inl_control_set_policy(control, &policy, false);
	return err ? err : inl_control_reply(control, NULL, 0);
}

/* Not encrypted: -ENODATA; a context that says nothing: -EINVAL. */
static int policy_of(const struct inl_control *control, struct inl_policy *policy)
{
	struct inl_inode_crypt crypt;

	if (inl_inode_policy(control->inode, policy))
		return 0;
	inl_inode_crypt(control->inode, &crypt);
	return crypt.encrypted ? -EINVAL : -ENODATA;
}

/* The number says that the answer goes the other way. */
static int get_policy(const struct inl_control *control)
{
	struct fscrypt_policy_v2 wire;
	struct inl_policy policy;
	int err = policy_of(control, &policy);

	if (!err && policy.version != 1)
		err = -EINVAL;
	if (!err)
		err = inl_poke(control, 0, &wire, policy_to_wire(&policy, &wire));
	return err ? err : inl_control_reply(control, NULL, 0);
}

/* The answer is longer than the number says. */
static int get_policy_ex(const struct inl_control *control)
{
	struct {
		uint64_t size;
		struct fscrypt_policy_v2 policy;
	} answer;
	const size_t carried = _IOC_SIZE(FS_IOC_GET_ENCRYPTION_POLICY_EX);
	struct inl_policy policy;
	uint64_t room;
	int err = policy_of(control, &policy);

	if (err)
		return err;
	if (control->in_size < sizeof(room))
		return -EINVAL;
	memcpy(&room, control->in, sizeof(room));
	answer.size = policy_to_wire(&policy, &answer.policy);
	if (room < answer.size)
		return -EOVERFLOW;
	err = inl_poke(control, carried, (const uint8_t *)&answer + carried, sizeof(room) + answer.size - carried);
	return err ? err : inl_control_reply(control, &answer, carried);
}

static int get_nonce(const struct inl_control *control)
{
	struct inl_inode_crypt crypt;
	struct inl_policy policy;
	int err = policy_of(control, &policy);

	if (err)
		return err;
	inl_inode_crypt(control->inode, &crypt);
	return inl_control_reply(control, crypt.nonce, sizeof(crypt.nonce));
}

static int get_salt(const struct inl_control *control)
{
	uint8_t salt[INL_PW_SALT_SIZE];
	int err = inl_volume_pw_salt(control->mount->vol, salt, NULL);

	if (!err)
		err = inl_poke(control, 0, salt, sizeof(salt));
	return err ? err : inl_control_reply(control, NULL, 0);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static int spec_from_wire(const void *bytes, struct inl_key_spec *spec)
{
	struct fscrypt_key_specifier wire;

	memcpy(&wire, bytes, sizeof(wire));
	if (wire.__reserved ||
	    (wire.type != FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR && wire.type != FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER))
		return -EINVAL;
	*spec = (struct inl_key_spec){ .version = wire.type == FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR ? 1 : 2 };
	memcpy(spec->bytes, wire.u.identifier, spec->version == 1 ? INL_KEY_DESCRIPTOR_SIZE : INL_KEY_IDENTIFIER_SIZE);
	return 0;
}

static bool all_zero(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

/* A change of keys waits for requests: it is made, and answered, elsewhere. */
struct change {
	struct inl_job job; /* first */
	fuse_req_t req;
	struct inl_worker *worker; /* that read the request */
	uid_t uid;
	struct inl_key_spec spec;
	uint8_t *key; /* secret; NULL: it is taken */
	size_t len;
	bool all;
	union {
		struct fscrypt_add_key_arg add;
		struct fscrypt_remove_key_arg remove;
		struct inl_ioc_key own;
	} answer;
};

static void change_free(struct change *change)
{
	inl_secret_free(change->key);
	free(change);
}

static void answer(struct change *change, int err, size_t size)
{
	inl_answer_for(change->worker);
	if (err)
		inl_reply_error(change->req, err);
	else
		fuse_reply_ioctl(change->req, 0, &change->answer, size);
	inl_answer_for(NULL);
	change_free(change);
}

static void give(struct inl_mount *mount, struct inl_job *job)
{
	struct change *change = (struct change *)job;
	int err;

	/* Keys of version 1 policies are root's, and nobody's claim. */
	err = inl_keys_give(mount, change->key, change->len, change->spec.version == 1 ? INL_NOBODY : change->uid);
	if (!err && change->spec.version == 2)
		memcpy(change->answer.add.key_spec.u.identifier, change->spec.bytes, INL_KEY_IDENTIFIER_SIZE);
	answer(change, err, sizeof(change->answer.add));
}

static void take(struct inl_mount *mount, struct inl_job *job)
{
	struct change *change = (struct change *)job;
	struct inl_taken taken;
	int err = inl_keys_take(mount, &change->spec, change->uid, change->all || change->spec.version == 1, &taken);

	change->answer.remove.removal_status_flags = (taken.n_busy ? FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY : 0) |
						     (taken.others ? FSCRYPT_KEY_REMOVAL_STATUS_FLAG_OTHER_USERS : 0);
	answer(change, err, sizeof(change->answer.remove));
}

static struct change *change_new(const struct inl_control *control, const struct inl_key_spec *spec)
{
	struct change *change = calloc(1, sizeof(*change));

	if (!change)
		return NULL;
	change->req = control->req;
	change->worker = inl_control_worker();
	change->uid = uid_of(control);
	change->spec = *spec;
	return change;
}

/* Takes it over. */
static int change_queue(const struct inl_control *control, struct change *change,
			void (*run)(struct inl_mount *mount, struct inl_job *job))
{
	change->job.run = run;
	if (inl_lane_add(control->mount, &control->mount->locker, &change->job))
		return 0;
	change_free(change);
	return -ENOTCONN;
}

/* The name that was given, or the one to be told. */
static int name_key(struct change *change)
{
	struct inl_key_spec spec;
	int err = inl_key_spec_derive(change->key, change->len, change->spec.version, &spec);

	/* Elsewhere, a descriptor is any name. Here it follows from the key, as e4crypt and fscrypt have it. */
	if (!err && change->spec.version == 1 && !inl_key_spec_equal(&spec, &change->spec))
		err = -EOPNOTSUPP;
	change->spec = spec;
	return err;
}

/* For a key that is yet to be filled in. */
static struct change *giving_new(const struct inl_control *control, const struct inl_key_spec *spec, size_t len)
{
	struct change *change = change_new(control, spec);

	if (!change)
		return NULL;
	change->len = len;
	change->key = inl_secret_alloc(len);
	if (change->key)
		return change;
	change_free(change);
	return NULL;
}

/* It was filled in, or err says why not. Takes it over. */
static int giving_queue(const struct inl_control *control, struct change *change, int err,
			void (*run)(struct inl_mount *mount, struct inl_job *job))
{
	err = err ? err : name_key(change);
	if (!err)
		return change_queue(control, change, run);
	change_free(change);
	return err;
}

/* In the order of Linux. */
static int check_adding(const struct inl_control *control, const struct fscrypt_add_key_arg *arg,
			struct inl_key_spec *spec)
{
	uint32_t flags = arg->__reserved[0];
	int err = spec_from_wire(&arg->key_spec, spec);

	if (err)
		return err;
	if (!all_zero(arg->__reserved + 1, sizeof(arg->__reserved) - sizeof(flags)) || (flags & ~FLAG_WRAPPED))
		return -EINVAL;
	if (arg->key_id)
		return arg->raw_size ? -EINVAL : -ENOKEY; /* the kernel's key rings are the caller's, not ours */
	if (spec->version == 1 && uid_of(control))
		return -EACCES;
	if (arg->raw_size < INL_MASTER_KEY_MIN || arg->raw_size > INL_MASTER_KEY_MAX)
		return -EINVAL;
	return flags ? -EOPNOTSUPP : 0;
}

static int add_key(const struct inl_control *control)
{
	struct fscrypt_add_key_arg arg;
	struct inl_key_spec spec;
	struct change *change;
	int err;

	if (control->in_size != sizeof(arg))
		return -EINVAL;
	memcpy(&arg, control->in, sizeof(arg));
	err = check_adding(control, &arg, &spec);
	if (err)
		return err;
	change = giving_new(control, &spec, arg.raw_size);
	if (!change)
		return -ENOMEM;
	change->answer.add = arg;
	err = inl_peek(control, sizeof(arg), change->key, change->len);
	return giving_queue(control, change, err, give);
}

/* The same with the key in the message. What FUSE carried lies in the worker's memory. */
static void give_own(struct inl_mount *mount, struct inl_job *job)
{
	struct change *change = (struct change *)job;
	int err = inl_keys_give(mount, change->key, change->len, change->uid);

	memcpy(change->answer.own.identifier, change->spec.bytes, INL_KEY_IDENTIFIER_SIZE);
	answer(change, err, sizeof(change->answer.own));
}

static int add_own_key(const struct inl_control *control)
{
	const struct inl_ioc_key *arg = control->in;
	const struct inl_key_spec spec = { .version = 2 };
	struct change *change;

	if (control->in_size != sizeof(*arg) || arg->len < INL_MASTER_KEY_MIN || arg->len > INL_MASTER_KEY_MAX)
		return -EINVAL;
	change = giving_new(control, &spec, arg->len);
	if (change)
		memcpy(change->key, arg->key, change->len);
	inl_wipe((void *)arg->key, sizeof(arg->key));
	return change ? giving_queue(control, change, 0, give_own) : -ENOMEM;
}

static int take_key(const struct inl_control *control, bool all)
{
	struct fscrypt_remove_key_arg arg;
	struct inl_key_spec spec;
	struct change *change;
	int err;

	if (control->in_size != sizeof(arg))
		return -EINVAL;
	memcpy(&arg, control->in, sizeof(arg));
	if (all && uid_of(control))
		return -EACCES;
	err = spec_from_wire(&arg.key_spec, &spec);
	if (!err && !all_zero(arg.__reserved, sizeof(arg.__reserved)))
		err = -EINVAL;
	if (!err && spec.version == 1 && uid_of(control))
		err = -EACCES;
	if (err)
		return err;
	change = change_new(control, &spec);
	if (!change)
		return -ENOMEM;
	change->all = all;
	change->answer.remove = arg;
	return change_queue(control, change, take);
}

static int remove_key(const struct inl_control *control)
{
	return take_key(control, false);
}

static int remove_key_all_users(const struct inl_control *control)
{
	return take_key(control, true);
}

static int get_key_status(const struct inl_control *control)
{
	struct inl_key_status status = { .state = INL_KEY_ABSENT };
	struct fscrypt_get_key_status_arg arg;
	struct inl_key_spec spec;
	int err;

	if (control->in_size != sizeof(arg))
		return -EINVAL;
	memcpy(&arg, control->in, sizeof(arg));
	err = spec_from_wire(&arg.key_spec, &spec);
	if (!err && !all_zero(arg.__reserved, sizeof(arg.__reserved)))
		err = -EINVAL;
	if (!err && control->mount->keys.ring)
		err = inl_keyring_status(control->mount->keys.ring, &spec, uid_of(control), &status);
	if (err)
		return err;
	memset(&arg.status, 0, sizeof(arg) - offsetof(struct fscrypt_get_key_status_arg, status));
	arg.status = status.state;
	if (spec.version == 2 && status.state == INL_KEY_PRESENT) {
		arg.status_flags = status.claimed ? FSCRYPT_KEY_STATUS_FLAG_ADDED_BY_SELF : 0;
		arg.user_count = status.n_claims;
	}
	return inl_control_reply(control, &arg, sizeof(arg));
}

static int get_known_key(const struct inl_control *control)
{
	struct inl_keyring *ring = control->mount->keys.ring;
	struct inl_key_status status;
	struct inl_ioc_known arg;
	struct inl_key_spec spec;
	int err;

	if (control->in_size != sizeof(arg))
		return -EINVAL;
	memcpy(&arg, control->in, sizeof(arg));
	err = ring ? inl_keyring_known(ring, arg.i, 2, &spec) : -ENOENT;
	if (err)
		return err == -ENOENT ? -ENODATA : err;
	err = inl_keyring_status(ring, &spec, uid_of(control), &status);
	if (err)
		return err;
	arg.state = status.state;
	arg.n_busy = status.n_busy;
	arg.n_claims = status.n_claims;
	arg.claimed = status.claimed;
	memcpy(arg.identifier, spec.bytes, sizeof(arg.identifier));
	return inl_control_reply(control, &arg, sizeof(arg));
}

const struct inl_control_row inl_fscrypt_controls[] = {
	{ FS_IOC_SET_ENCRYPTION_POLICY, set_policy, true, true },
	{ FS_IOC_GET_ENCRYPTION_POLICY, get_policy, true, true },
	{ FS_IOC_GET_ENCRYPTION_POLICY_EX, get_policy_ex, true, true },
	{ FS_IOC_GET_ENCRYPTION_NONCE, get_nonce, true },
	{ FS_IOC_GET_ENCRYPTION_PWSALT, get_salt, true, true },
	{ FS_IOC_ADD_ENCRYPTION_KEY, add_key, true, true },
	{ FS_IOC_REMOVE_ENCRYPTION_KEY, remove_key, true },
	{ FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS, remove_key_all_users, true },
	{ FS_IOC_GET_ENCRYPTION_KEY_STATUS, get_key_status, true },
	{ INL_IOC_KEY, add_own_key, true },
	{ INL_IOC_KNOWN, get_known_key, true },
	{ 0, NULL },
};
