/*
 * fscrypt/claim.h: making and freeing a master key, for those who put them into a ring.
 * Not here: what is done with one that is there (keyring.h).
 * Read more: fscrypt/claim.c.
 */
#ifndef INLAY_FSCRYPT_CLAIM_H
#define INLAY_FSCRYPT_CLAIM_H

#include "fscrypt/keyring.h"

/*
 * One that is in no ring yet: PRESENT, without claims.
 *
 * Returns: 0; -EINVAL (length); -ENOMEM; -EIO.
 */
int inl_master_new(const uint8_t *key, size_t len, struct inl_master_key **out, struct inl_diag *diag);

void inl_master_free(struct inl_master_key *master); /* NULL is fine */

#endif
