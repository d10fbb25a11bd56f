/*
 * crypto/xts.c: the frame of all implementations of AES-XTS of our own: ciphertext stealing, leaving nothing behind.
 * Not here: whole blocks (xts_*.c), OpenSSL (evp_xts.c).
 * Read more: IEEE 1619-2018, 5.3.2 and 5.4.2.
 */
#include "crypto/xts.h"
#include "base/endian.h"
#include "base/secret.h"

#define B INL_AES_BLOCK

/* ---- tweaks ------------------------------------------------------------------------------------------------------- */

/* Times x^n, n < 64: what leaves at the top comes back as its product with the polynomial, at most 71 bits of it. */
static void shift_bits(uint64_t t[2], unsigned n)
{
	uint64_t out;

	if (!n)
		return;
	out = t[1] >> (64 - n);
	t[1] = t[1] << n | t[0] >> (64 - n);
	t[0] = t[0] << n ^ out ^ out << 1 ^ out << 2 ^ out << 7;
	t[1] ^= out >> 63 ^ out >> 62 ^ out >> 57;
}

/* Times x^64. */
static void shift_limb(uint64_t t[2])
{
	uint64_t out = t[1];

	t[1] = t[0] ^ out >> 63 ^ out >> 62 ^ out >> 57;
	t[0] = out ^ out << 1 ^ out << 2 ^ out << 7;
}

static void advance(uint8_t tweak[B], size_t n)
{
	uint64_t t[2] = { inl_load_le64(tweak), inl_load_le64(tweak + 8) };

	for (; n >= 64; n -= 64)
		shift_limb(t);
	shift_bits(t, (unsigned)n);
	inl_store_le64(tweak, t[0]);
	inl_store_le64(tweak + 8, t[1]);
	inl_wipe(t, sizeof(t));
}

/* ---- whole blocks -------------------------------------------------------------------------------------------------- */

int inl_xts_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size)
{
	const struct inl_xts_code *code = impl->code;

	code->expand(state, key, key_size);
	code->clean();
	return 0;
}

int inl_xts_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	const struct inl_xts_code *code = impl->code;
	const struct inl_xts_keys *keys = state;

	if (keys->rounds == 14)
		(encrypt ? code->encrypt_256 : code->decrypt_256)(keys, units);
	else
		(encrypt ? code->encrypt_128 : code->decrypt_128)(keys, units);
	code->clean();
	return 0;
}

/* ---- ciphertext stealing ------------------------------------------------------------------------------------------ */

/* One unit, as far as it has been done. */
struct theft {
	const struct inl_impl *impl;
	void *state;
	bool encrypt;
};

/* Whole blocks, the first one under this tweak. */
static void run(const struct theft *theft, const uint8_t t[B], size_t len, uint8_t *dst, const uint8_t *src)
{
	const struct inl_cipher_span span = { dst, src, 1 };
	const struct inl_units units = { .unit_len = len, .spans = &span, .n_spans = 1, .tweak = t };

	inl_xts_crypt(theft->impl, theft->state, &units, theft->encrypt);
}

/*
 * The last whole block is encrypted as always, but not into its place: its first bytes become the last, partial block, the
 * rest fills up the partial text to a block, which is encrypted in that place under the next tweak.
 */
static void steal_encrypt(const struct theft *theft, uint8_t t[B], size_t len, uint8_t *dst, const uint8_t *src)
{
	size_t rest = len % B, whole = len - rest, head = whole - B;
	INL_SECRET_ARRAY(filled, B);
	INL_SECRET_ARRAY(last, B);

	if (head)
		run(theft, t, head, dst, src);
	advance(t, head / B);
	run(theft, t, B, last, src + head);
	memcpy(filled, src + whole, rest);
	memcpy(filled + rest, last + rest, B - rest);
	memcpy(dst + whole, last, rest);
	advance(t, 1);
	run(theft, t, B, dst + head, filled);
}

/* Backwards: the last whole block gives the partial text and what was stolen; here the later tweak comes first. */
static void steal_decrypt(const struct theft *theft, uint8_t t[B], size_t len, uint8_t *dst, const uint8_t *src)
{
	size_t rest = len % B, whole = len - rest, head = whole - B;
	INL_SECRET_ARRAY(filled, B);
	INL_SECRET_ARRAY(later, B);
	INL_SECRET_ARRAY(partial, B);

	if (head)
		run(theft, t, head, dst, src);
	advance(t, head / B);
	memcpy(later, t, B);
	advance(later, 1);
	run(theft, later, B, filled, src + head);
	memcpy(partial, filled, rest);
	memcpy(filled, src + whole, rest);
	memcpy(dst + whole, partial, rest);
	run(theft, t, B, dst + head, filled);
}

int inl_xts_steal(const struct inl_impl *impl, void *state, const struct inl_units *unit, bool encrypt)
{
	const struct theft theft = { impl, state, encrypt };
	const struct inl_xts_code *code = impl->code;
	const struct inl_cipher_span *span = unit->spans;
	INL_SECRET_ARRAY(t, B);

	if (unit->unit_len % B == 0)
		return inl_xts_crypt(impl, state, unit, encrypt);
	code->tweak(state, unit->dun, t);
	code->clean();
	(encrypt ? steal_encrypt : steal_decrypt)(&theft, t, unit->unit_len, span->dst, span->src);
	return 0;
}

/* ---- leaving nothing behind --------------------------------------------------------------------------------------- */

__attribute__((noinline)) void inl_xts_clean(void)
{
	uint8_t stack[INL_XTS_STACK];

	inl_wipe(stack, sizeof(stack));
	inl_xts_wipe_registers();
}
