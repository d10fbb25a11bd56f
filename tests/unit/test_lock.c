/*
 * tests/unit/test_lock.c: keys that are taken away from inodes in use: claims, states, holds, eviction, races, what is left.
 * Not here: the cache of file keys (test_filekeys.c); a mount that is locked (tests/mount/).
 * Read more: inlay/fscrypt.h, inl_keyring_claim and what follows; fscrypt/evict.c.
 */
#include "ext4/own.h"
#include "fscrypt/keyring.h"
#include "work_dir.h"
#include <errno.h>
#include <inlay/volume.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define BLOCK	 4096

static const uint8_t master[64] = { 5, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5 };

/* ---- claims ------------------------------------------------------------------------------------------------------ */

static struct inl_key_status status_of(struct inl_keyring *ring, const struct inl_key_spec *spec, uint32_t uid)
{
	struct inl_key_status status = { 0 };

	assert_int_equal(inl_keyring_status(ring, spec, uid, &status), 0);
	return status;
}

static unsigned evict(struct inl_keyring *ring, const struct inl_key_spec *spec)
{
	unsigned n_busy = 99;

	assert_int_equal(inl_keyring_evict(ring, spec, &n_busy), 0);
	return n_busy;
}

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
static void test_claims(void **state)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_claims),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
