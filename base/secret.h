/*
 * base/secret.h: scope guards and moves for secrets, on top of the public arena and wipe of inlay/base.h.
 * Not here: key types; wiping belongs to each type's destructor.
 * Read more: ARCHITECTURE.md, "Errors, memory, secrets".
 */
#ifndef INLAY_BASE_SECRET_H
#define INLAY_BASE_SECRET_H

#include <inlay/base.h>
#include <string.h>

/* A local secret array, wiped when its scope ends: INL_SECRET_ARRAY(key, 64); */
struct inl_secret_scope {
	void *bytes;
	size_t len;
};

static inline void inl_secret_scope_end(struct inl_secret_scope *scope)
{
	inl_wipe(scope->bytes, scope->len);
}

#define INL_SECRET_ARRAY(name, size) \
	uint8_t name[size];          \
	__attribute__((cleanup(inl_secret_scope_end), unused)) struct inl_secret_scope name##_scope = { name, sizeof(name) }

/* dst = src, then src is wiped. */
static inline void inl_secret_move(void *dst, void *src, size_t len)
{
	memcpy(dst, src, len);
	inl_wipe(src, len);
}

#endif
