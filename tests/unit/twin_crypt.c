/*
 * tests/unit/twin_crypt.c: the twin's policies and keys, and the operations that make encrypted directories.
 * Not here: how they are made (twin_kernel.c, twin_inlay.c); all other operations (twin_ops.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Setting an encryption policy".
 */
#include "tests/unit/twin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define N_POLICIES 8
#define AES_256_XTS 1
#define AES_256_CTS 4

static struct {
	struct twin_policy policy;
	unsigned key, key_len;
} palette[N_POLICIES];

unsigned tw_n_policies;
bool tw_locked;

bool tw_parse_policy(const char *text)
{
	unsigned version, flags, unit, key, key_len;
	int end = 0;

	if (sscanf(text, "%u:%u:%u:%u:%u%n", &version, &flags, &unit, &key, &key_len, &end) != 5 || text[end] ||
	    key_len > 64 || tw_n_policies == N_POLICIES)
		return false;
	palette[tw_n_policies].policy = (struct twin_policy){ (uint8_t)version, AES_256_XTS, AES_256_CTS, (uint8_t)flags,
							      (uint8_t)unit };
	palette[tw_n_policies].key = key;
	palette[tw_n_policies++].key_len = key_len;
	return true;
}

bool tw_script_policy(const char *text, struct twin_policy *policy)
{
	unsigned version, contents, names, flags, unit, reserved, key;
	int end = 0;

	*policy = (struct twin_policy){ 0 };
	if (sscanf(text, "%u:%u:%u:%u:%u:%u:%n", &version, &contents, &names, &flags, &unit, &reserved, &end) != 6 || !end)
		return false;
	policy->version = (uint8_t)version;
	policy->contents_mode = (uint8_t)contents;
	policy->filenames_mode = (uint8_t)names;
	policy->flags = (uint8_t)flags;
	policy->log2_unit = (uint8_t)unit;
	policy->reserved[1] = (uint8_t)reserved;
	if (!strcmp(text + end, "-"))
		memset(policy->key, 0xee, version == 1 ? 8 : 16);
	else if (sscanf(text + end, "%u", &key) == 1 && key < tw_n_policies)
		memcpy(policy->key, palette[key].policy.key, sizeof(policy->key));
	else
		return false;
	return true;
}

/* Keys that protect nothing: what they are depends on their numbers alone. */
static void make_key(unsigned number, unsigned len, uint8_t *key)
{
	for (unsigned i = 0; i < len; i++) {
		uint64_t seed[2] = { number, i };

		key[i] = (uint8_t)(tw_hash_bytes(1, seed, sizeof(seed)) >> 24);
	}
}

int tw_add_keys(void)
{
	int err = 0;

	for (unsigned i = 0; i < tw_n_policies && !tw_locked && !err; i++) {
		struct twin_policy *policy = &palette[i].policy;
		uint8_t key[64];

		make_key(palette[i].key, palette[i].key_len, key);
		err = tw_side->add_key(key, palette[i].key_len, policy->version, policy->key);
	}
	return err;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static int make_vault(const struct place *place, unsigned i)
{
	void *obj;
	int err = tw_side->make(place->dir, place->name, S_IFDIR | 0755, 0, 0, 0, 0);

	if (err)
		return err;
	err = tw_side->get(place->path, &obj);
	if (err)
		tw_die("lost", place->path, err);
	err = tw_side->set_policy(obj, &palette[i].policy);
	tw_side->put(obj);
	return err;
}

/* A new directory, and what will be in it. */
int64_t tw_op_vault(void)
{
	unsigned i = tw_rng(tw_n_policies);
	struct place place;
	int err;

	tw_new_place(&place);
	putchar(' ');
	tw_show(place.path);
	printf(" %u", i);
	err = make_vault(&place, i);
	if (!tw_find_entry(place.path) && tw_is_there(place.path))
		tw_add_entry(place.path, S_IFDIR);
	tw_close_place(&place);
	return err;
}

void tw_make_vaults(void)
{
	for (unsigned i = 0; i < tw_n_policies && !tw_locked; i++) {
		struct place place;

		snprintf(place.name, sizeof(place.name), "e%u", i);
		tw_open_place(&place, "");
		printf("vault %s = %d\n", place.name, make_vault(&place, i));
		tw_close_place(&place);
	}
}

/* Mostly one of ours. None that Inlay would refuse for its key or cipher, which Linux does not look at. */
static struct twin_policy some_policy(void)
{
	struct twin_policy policy = palette[tw_rng(tw_n_policies)].policy;

	switch (tw_rng(40)) {
	case 0:
		policy.version = (uint8_t)(3 + tw_rng(253));
		break;
	case 1:
		policy.filenames_mode = (uint8_t)(11 + tw_rng(245));
		break;
	case 2:
		policy.flags = (uint8_t)(0x18 + (tw_rng(2) ? 0 : 0x20 << tw_rng(3)));
		break;
	case 3:
		policy.log2_unit = (uint8_t)(1 + tw_rng(8));
		policy.version = 2;
		break;
	case 4:
		policy.flags ^= 1;
		break;
	}
	return policy;
}

int64_t tw_op_set_policy(void)
{
	struct twin_policy policy = some_policy();
	struct target target;
	int err;

	if (!tw_open_target(&target, tw_rng(12) ? TW_DIR : TW_REG | TW_DIR))
		return 0;
	printf(" %u %u %u 0x%02x %u", policy.version, policy.contents_mode, policy.filenames_mode, policy.flags,
	       policy.log2_unit);
	err = tw_side->set_policy(target.obj, &policy);
	tw_close_target(&target);
	return err;
}

/* ---- what is seen ------------------------------------------------------------------------------------------------ */

/* Linux tells the policy of what it can open; of anything else only that there is one. */
int tw_show_policy(void *obj, const struct twin_stat *st)
{
	bool can_be_opened = S_ISDIR(st->mode) || (S_ISREG(st->mode) && !tw_locked);
	struct twin_policy policy;
	int err;

	if (!st->encrypted)
		return 0;
	printf(" encrypted");
	if (!can_be_opened)
		return 0;
	err = tw_side->get_policy(obj, &policy);
	if (!err)
		printf(" %u:%u:%u:%u:%u:%08" PRIx32, policy.version, policy.contents_mode, policy.filenames_mode,
		       policy.flags, policy.log2_unit, (uint32_t)tw_hash_bytes(0, policy.key, sizeof(policy.key)));
	return err;
}
