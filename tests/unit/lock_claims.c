/*
 * tests/unit/lock_claims.c: whose a key is: claims of users in every order, limits, states, version 1.
 * Not here: inodes that have the key (lock_infos.c).
 * Read more: fscrypt/claim.c.
 */
#include "lock.h"

/* ---- claims ------------------------------------------------------------------------------------------------------ */

/* What a key is claimed by, kept in a second way: bit i for user i, bit 2 for all. */
static void see_claims(struct inl_keyring *ring, const struct inl_key_spec *spec, unsigned claims)
{
	struct inl_key_status status = status_of(ring, spec, 1);
	uint32_t uids[3];

	assert_int_equal(status.state == INL_KEY_PRESENT, claims != 0);
	assert_int_equal(inl_keyring_has(ring, spec), claims != 0);
	assert_int_equal(inl_keyring_count(ring), claims != 0);
	assert_int_equal(status.n_claims, __builtin_popcount(claims & 3));
	assert_int_equal(inl_keyring_claimants(ring, spec, uids, 3), status.n_claims);
	assert_int_equal(status.claimed, (claims & 2) != 0);
	assert_int_equal(status.given, (claims & 4) != 0);
	for (uint32_t uid = 0; uid < 2; uid++)
		assert_int_equal(inl_keyring_claimed(ring, spec, uid), claims >> uid & 1);
}

/* Every order of five steps: each of two users, and all, add and remove. */
void lock_claims(void **state)
{
	struct inl_keyring *ring;
	struct inl_key_spec spec;
	unsigned order[5];
	(void)state;

	assert_int_equal(inl_key_spec_derive(master, 64, 2, &spec), 0);
	for (unsigned n = 0; n < 6 * 6 * 6 * 6 * 6; n++) {
		unsigned claims = 0;
		bool marked = false;

		assert_int_equal(inl_keyring_new(&ring), 0);
		for (unsigned i = 0, rest = n; i < 5; i++, rest /= 6)
			order[i] = rest % 6;
		for (unsigned i = 0; i < 5; i++) {
			uint32_t uid = order[i] % 2;
			bool last = false;
			int err;

			if (order[i] < 2) {
				assert_int_equal(inl_keyring_claim(ring, master, 64, uid, NULL), 0);
				claims |= 1u << uid;
			} else if (order[i] == 2) {
				assert_int_equal(inl_keyring_add(ring, master, 64, NULL), 0);
				claims |= 4;
			} else {
				bool all = order[i] == 3;

				err = inl_keyring_unclaim(ring, &spec, uid, all, &last);
				if (claims && !all && !(claims >> uid & 1)) {
					assert_int_equal(err, -ENOKEY);
				} else if (claims || marked) {
					assert_int_equal(err, 0);
					claims = all ? 0 : claims & ~(1u << uid);
					assert_int_equal(last, claims == 0);
				} else {
					assert_int_equal(err, -ENOKEY);
				}
			}
			marked = (marked || order[i] >= 3) && !claims && (marked || last);
			if (claims)
				marked = false;
			see_claims(ring, &spec, claims);
			if (marked && n % 2) {
				assert_int_equal(evict(ring, &spec), 0);
				marked = false;
				assert_int_equal(status_of(ring, &spec, 0).state, INL_KEY_ABSENT);
			}
		}
		inl_keyring_free(ring);
	}
}

/* User 0 has no limit of keys, a key has one of users. */
void lock_limits(void **state)
{
	struct inl_diag diag = { 0 };
	struct inl_keyring *ring;
	struct inl_key_spec spec;
	uint8_t key[64] = { 0 };
	uint32_t uids[3];
	bool last;
	(void)state;

	assert_int_equal(inl_keyring_new(&ring), 0);
	for (uint32_t uid = 1; uid <= INL_CLAIMS_PER_KEY_MAX; uid++)
		assert_int_equal(inl_keyring_claim(ring, master, 64, uid, NULL), 0);
	assert_int_equal(inl_keyring_claim(ring, master, 64, 5000, &diag), -EDQUOT);
	assert_int_equal(diag.err, -EDQUOT);
	assert_int_equal(inl_keyring_claim(ring, master, 64, 7, NULL), 0); /* has it */
	assert_int_equal(inl_keyring_spec(ring, 0, 2, &spec), 0);
	assert_int_equal(inl_keyring_claimants(ring, &spec, uids, 3), INL_CLAIMS_PER_KEY_MAX);
	assert_int_equal(inl_keyring_claimants(ring, &spec, NULL, 0), INL_CLAIMS_PER_KEY_MAX);
	for (unsigned i = 1; i < INL_CLAIMS_PER_USER_MAX; i++) {
		memcpy(key, &i, sizeof(i));
		assert_int_equal(inl_keyring_claim(ring, key, 64, 7, NULL), 0);
		assert_int_equal(inl_keyring_claim(ring, key, 64, 0, NULL), 0);
	}
	key[60] = 1;
	assert_int_equal(inl_keyring_claim(ring, key, 64, 7, NULL), -EDQUOT);
	assert_int_equal(inl_key_spec_derive(key, 64, 2, &spec), 0);
	assert_int_equal(status_of(ring, &spec, 7).state, INL_KEY_ABSENT); /* no trace */
	assert_int_equal(inl_keyring_claim(ring, key, 64, 8, NULL), 0);
	assert_int_equal(inl_keyring_claim(ring, key, 64, 7, NULL), -EDQUOT);
	assert_int_equal(inl_keyring_claim(ring, key, 64, 0, NULL), 0);
	assert_int_equal(inl_keyring_spec(ring, 0, 2, &spec), 0);
	assert_int_equal(inl_keyring_unclaim(ring, &spec, 7, false, &last), 0);
	assert_false(last);
	assert_int_equal(inl_keyring_claim(ring, key, 64, 7, NULL), 0);
	assert_int_equal(inl_keyring_claim(ring, key, 64, 0, NULL), 0);
	inl_keyring_free(ring);
}

/* What is no ring, no key, no claim, or of version 1. */
void lock_odd(void **state)
{
	struct inl_key_spec v1, v2, spec = { .version = 3 };
	struct inl_key_status status;
	struct inl_keyring *ring;
	unsigned n_busy;
	bool last;
	(void)state;

	assert_int_equal(inl_key_spec_derive(master, 64, 1, &v1), 0);
	assert_int_equal(inl_key_spec_derive(master, 64, 2, &v2), 0);
	assert_int_equal(inl_keyring_unclaim(NULL, &v2, 0, true, &last), -ENOKEY);
	assert_int_equal(inl_keyring_evict(NULL, &v2, &n_busy), 0);
	assert_int_equal(status_of(NULL, &v2, 0).state, INL_KEY_ABSENT);
	assert_false(inl_keyring_claimed(NULL, &v2, 0));
	assert_int_equal(inl_keyring_claimants(NULL, &v2, NULL, 0), 0);
	assert_int_equal(inl_keyring_known(NULL, 0, 2, &spec), -ENOENT);
	assert_int_equal(inl_keyring_new(&ring), 0);
	assert_int_equal(inl_keyring_status(ring, &spec, 0, &status), -EINVAL);
	assert_int_equal(inl_keyring_claim(ring, master, 15, 0, NULL), -EINVAL);
	assert_int_equal(inl_keyring_unclaim(ring, &v2, 0, true, &last), -ENOKEY);
	assert_int_equal(evict(ring, &v2), 0);
	assert_int_equal(inl_keyring_claim(ring, master, 64, 1, NULL), 0);
	assert_int_equal(inl_keyring_claim(ring, master, 64, 2, NULL), 0);
	assert_int_equal(evict(ring, &v2), 0); /* is left alone */
	assert_true(inl_keyring_has(ring, &v2));
	assert_int_equal(inl_keyring_unclaim(ring, &v2, 3, false, &last), -ENOKEY);
	assert_int_equal(inl_keyring_unclaim(ring, &v1, 3, false, &last), 0);
	assert_true(last);
	assert_int_equal(status_of(ring, &v2, 1).state, INL_KEY_INCOMPLETELY_REMOVED);
	assert_int_equal(inl_keyring_spec(ring, 0, 2, &spec), -ENOENT);
	assert_int_equal(inl_keyring_known(ring, 0, 2, &spec), 0);
	assert_memory_equal(&spec, &v2, sizeof(spec));
	assert_int_equal(inl_keyring_unclaim(ring, &v2, 3, false, &last), 0); /* a retry */
	assert_true(last);
	assert_int_equal(evict(ring, &v1), 0);
	assert_int_equal(inl_keyring_known(ring, 0, 2, &spec), -ENOENT);
	inl_keyring_free(ring);
}
