/*
 * crypto/xts_portable.c: AES-XTS in portable C that takes the same time whatever key and text are: 32 blocks, bit by bit.
 * Not here: CPUs with AES instructions (the other xts_*.c), ciphertext stealing (xts.c).
 * Read more: IEEE 1619-2018, 5.3; FIPS 197; Boyar and Peralta, "A depth-16 circuit for the AES S-box", 2011 (ePrint 2011/332).
 *
 * Bit-sliced: plane 8 * r + b holds bit b of row r of the state, of 32 blocks at once. Its four lanes are the columns,
 * and bit k of a lane is block k. So the S-box is a circuit of logic gates, ShiftRows moves whole lanes, and MixColumns
 * moves nothing. No table, no branch and no address depends on a secret. The compiler makes SSE2 or Neon of the vectors,
 * or plain words.
 */
#include "base/endian.h"
#include "crypto/xts.h"

#include <string.h>

#define B      INL_AES_BLOCK
#define BLOCKS 32 /* at once */
#define PLANES 32

typedef uint32_t vec __attribute__((vector_size(16)));
typedef int32_t signed_vec __attribute__((vector_size(16)));

#define INLINE __attribute__((always_inline)) static inline

/* ---- between blocks and planes ------------------------------------------------------------------------------------- */

INLINE vec load(const uint8_t block[B])
{
	return (vec){ inl_load_le32(block), inl_load_le32(block + 4), inl_load_le32(block + 8), inl_load_le32(block + 12) };
}

INLINE void store(uint8_t block[B], vec v)
{
	inl_store_le32(block, v[0]);
	inl_store_le32(block + 4, v[1]);
	inl_store_le32(block + 8, v[2]);
	inl_store_le32(block + 12, v[3]);
}

/* One step of it: where the numbers of word and bit differ in this power of two. */
INLINE void swap_bits(vec a[32], unsigned j, uint32_t mask)
{
	for (unsigned k = 0; k < 32; k = ((k | j) + 1) & ~j) {
		vec t = (a[k] >> j ^ a[k | j]) & mask;

		a[k | j] ^= t;
		a[k] ^= t << j;
	}
}

/* In every lane: bit i of word k and bit k of word i change places. Its own inverse. */
static void transpose(vec a[32])
{
	swap_bits(a, 16, 0x0000ffff);
	swap_bits(a, 8, 0x00ff00ff);
	swap_bits(a, 4, 0x0f0f0f0f);
	swap_bits(a, 2, 0x33333333);
	swap_bits(a, 1, 0x55555555);
}

/* ---- the rounds ----------------------------------------------------------------------------------------------------- */

/*
 * SubBytes: the circuit of Boyar and Peralta, 115 gates. Their x0 and s0 are the highest bits. The names of the wires are
 * theirs: y, t, z.
 */
INLINE void sub_row(vec *p)
{
	vec x0 = p[7], x1 = p[6], x2 = p[5], x3 = p[4], x4 = p[3], x5 = p[2], x6 = p[1], x7 = p[0];
	/* The linear part at the top. */
	vec y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2;
	vec y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6;
	vec y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7;
	vec y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
	vec y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;
	/* Inversion, in GF((2^4)^2). */
	vec t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2, t7 = y13 & y16;
	vec t9 = (y5 & y1) ^ t7, t11 = (y2 & y7) ^ t7, t12 = y9 & y11, t14 = (y14 & y17) ^ t12;
	vec t16 = (y8 & y10) ^ t12, t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19, t23 = t9 ^ t14 ^ y21;
	vec t24 = t11 ^ t16 ^ y18, t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26;
	vec t29 = (t25 & t27) ^ t22, t30 = t23 ^ t24, t31 = t22 ^ t26, t33 = (t31 & t30) ^ t24;
	vec t34 = t23 ^ t33, t36 = t24 & (t27 ^ t33), t37 = t36 ^ t34, t38 = t27 ^ t36;
	vec t40 = t25 ^ (t29 & t38), t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40;
	vec t44 = t33 ^ t37, t45 = t42 ^ t41;
	vec z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7;
	vec z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
	vec z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;
	/* The linear part at the bottom, with the affine transformation. */
	vec t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12, t51 = z2 ^ z5;
	vec t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
	vec t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58;
	vec t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65;

	p[7] = t59 ^ t63;
	p[4] = t53 ^ t66;
	p[6] = ~(t64 ^ p[4]);
	p[5] = ~(t55 ^ t67);
	p[3] = t51 ^ t66;
	p[2] = t47 ^ t65;
	p[1] = ~(t56 ^ t62);
	p[0] = ~(t48 ^ t60);
}

/* The inverse of the S-box's affine transformation: FIPS 197, 5.3.2. */
INLINE void inverse_affine(vec *p)
{
	vec x[8];

	memcpy(x, p, sizeof(x));
	INL_UNROLL
	for (unsigned i = 0; i < 8; i++)
		p[i] = x[(i + 2) % 8] ^ x[(i + 5) % 8] ^ x[(i + 7) % 8];
	p[0] = ~p[0];
	p[2] = ~p[2];
}

/* With L for the inverse affine transformation, inversion is L(S(x)), and the inverse S-box is L(S(L(x))). */
static void sub_bytes(vec s[PLANES], bool encrypt)
{
	for (unsigned r = 0; r < 4; r++) {
		if (!encrypt)
			inverse_affine(s + 8 * r);
		sub_row(s + 8 * r);
		if (!encrypt)
			inverse_affine(s + 8 * r);
	}
}

INLINE void shift_rows(vec s[PLANES], bool encrypt)
{
	INL_UNROLL
	for (unsigned b = 0; b < 8; b++) {
		vec *one = &s[8 + b], *two = &s[16 + b], *three = &s[24 + b];
		vec left = __builtin_shufflevector(*one, *one, 1, 2, 3, 0);
		vec right = __builtin_shufflevector(*three, *three, 3, 0, 1, 2);

		*two = __builtin_shufflevector(*two, *two, 2, 3, 0, 1);
		*one = encrypt ? left : __builtin_shufflevector(*one, *one, 3, 0, 1, 2);
		*three = encrypt ? right : __builtin_shufflevector(*three, *three, 1, 2, 3, 0);
	}
}

/* Times x in AES's own field, modulo x^8 + x^4 + x^3 + x + 1: bit b of it. */
INLINE vec times_x(const vec p[8], unsigned b)
{
	vec shifted = p[(b + 7) % 8];

	return b == 1 || b == 3 || b == 4 ? shifted ^ p[7] : shifted;
}

/* FIPS 197, 5.1.3: each row becomes x * (itself + the next) + the sum of the three others. */
static void mix_columns(vec s[PLANES])
{
	vec sums[4][8]; /* of a row and the next */

	for (unsigned r = 0; r < 4; r++)
		INL_UNROLL
		for (unsigned b = 0; b < 8; b++)
			sums[r][b] = s[8 * r + b] ^ s[8 * ((r + 1) % 4) + b];
	for (unsigned r = 0; r < 4; r++)
		INL_UNROLL
		for (unsigned b = 0; b < 8; b++)
			s[8 * r + b] ^= sums[0][b] ^ sums[2][b] ^ times_x(sums[r], b);

}

/* What makes MixColumns its own inverse: x^2 * (a row + the one opposite) is added to both, before. */
static void prepare_inverse_mix(vec s[PLANES])
{
	for (unsigned r = 0; r < 2; r++) {
		vec sum[8], once[8];

		INL_UNROLL
		for (unsigned b = 0; b < 8; b++)
			sum[b] = s[8 * r + b] ^ s[8 * (r + 2) + b];
		INL_UNROLL
		for (unsigned b = 0; b < 8; b++)
			once[b] = times_x(sum, b);
		INL_UNROLL
		for (unsigned b = 0; b < 8; b++) {
			vec twice = times_x(once, b);

			s[8 * r + b] ^= twice;
			s[8 * (r + 2) + b] ^= twice;
		}
	}
}

/* Bit n of the key's columns, spread over all bits of the lanes of plane n. */
static void add_round_key(vec s[PLANES], const uint8_t key[B])
{
	vec k = load(key);

	INL_UNROLL
	for (int n = 0; n < PLANES; n++)
		s[n] ^= (vec)((signed_vec)(k << (31 - n)) >> 31);
}

/* 32 blocks, with the keys in the order of use. */
static void crypt_blocks(const uint8_t (*keys)[B], unsigned rounds, uint8_t blocks[BLOCKS][B], bool encrypt)
{
	vec s[PLANES];

	for (unsigned k = 0; k < BLOCKS; k++)
		s[k] = load(blocks[k]);
	transpose(s);
	add_round_key(s, keys[0]);
	for (unsigned r = 1; r <= rounds; r++) {
		sub_bytes(s, encrypt);
		shift_rows(s, encrypt);
		if (r < rounds && !encrypt)
			prepare_inverse_mix(s);
		if (r < rounds)
			mix_columns(s);
		add_round_key(s, keys[r]);
	}
	transpose(s);
	for (unsigned k = 0; k < BLOCKS; k++)
		store(blocks[k], s[k]);
}

/* ---- key expansion: FIPS 197, 5.2 ----------------------------------------------------------------------------------- */

/* The S-box on four bytes, as columns of one row each. */
static uint32_t sub_word(uint32_t word)
{
	vec p[8];

	for (unsigned b = 0; b < 8; b++)
		p[b] = (vec){ word >> b & 1, word >> (8 + b) & 1, word >> (16 + b) & 1, word >> (24 + b) & 1 };
	sub_row(p);
	word = 0;
	for (unsigned b = 0; b < 8; b++)
		word |= (p[b][0] & 1) << b | (p[b][1] & 1) << (8 + b) | (p[b][2] & 1) << (16 + b) | (p[b][3] & 1) << (24 + b);
	return word;
}

static void expand_one(uint8_t (*out)[B], const uint8_t *key, unsigned n_words, unsigned rounds)
{
	uint32_t w[4 * (INL_AES_ROUNDS_MAX + 1)], rcon = 1;

	for (unsigned i = 0; i < n_words; i++)
		w[i] = inl_load_le32(key + 4 * i);
	for (unsigned i = n_words; i < 4 * (rounds + 1); i++) {
		uint32_t word = w[i - 1];

		if (i % n_words == 0) {
			word = sub_word(word >> 8 | word << 24) ^ rcon;
			rcon = rcon << 1 ^ (rcon >> 7) * 0x11b;
		} else if (n_words == 8 && i % n_words == 4) {
			word = sub_word(word);
		}
		w[i] = w[i - n_words] ^ word;
	}
	for (unsigned i = 0; i < 4 * (rounds + 1); i++)
		inl_store_le32(out[i / 4] + 4 * (i % 4), w[i]);
}

/* All four bytes of a word times x. */
static uint32_t times_x_word(uint32_t word)
{
	return (word & 0x7f7f7f7f) << 1 ^ (word >> 7 & 0x01010101) * 0x1b;
}

static uint32_t rotate_word(uint32_t word, unsigned bytes)
{
	return word >> 8 * bytes | word << (32 - 8 * bytes);
}

/* InvMixColumns of one column: the coefficients 14, 11, 13, 9 of FIPS 197, 5.3.3. */
static uint32_t inverse_mix_word(uint32_t x)
{
	uint32_t x2 = times_x_word(x), x4 = times_x_word(x2), x8 = times_x_word(x4);

	return x2 ^ x4 ^ x8 ^ rotate_word(x ^ x2 ^ x8, 1) ^ rotate_word(x ^ x4 ^ x8, 2) ^ rotate_word(x ^ x8, 3);
}

__attribute__((noinline)) static void expand(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size)
{
	unsigned rounds = key_size == 64 ? 14 : 10;

	keys->rounds = rounds;
	expand_one(keys->enc, key, key_size / 8, rounds);
	expand_one(keys->tweak, key + key_size / 2, key_size / 8, rounds);
	memcpy(keys->dec[0], keys->enc[rounds], B);
	for (unsigned i = 1; i < rounds; i++)
		for (unsigned c = 0; c < B; c += 4)
			inl_store_le32(keys->dec[i] + c, inverse_mix_word(inl_load_le32(keys->enc[rounds - i] + c)));
	memcpy(keys->dec[rounds], keys->enc[0], B);
}

/* ---- data units ----------------------------------------------------------------------------------------------------- */

/* Blocks on their way, from any units. */
struct batch {
	const uint8_t (*keys)[B];
	unsigned rounds;
	bool encrypt;
	unsigned n;
	uint8_t text[BLOCKS][B], tweaks[BLOCKS][B];
	uint8_t *dst[BLOCKS];
};

static void batch_end(struct batch *batch)
{
	crypt_blocks(batch->keys, batch->rounds, batch->text, batch->encrypt);
	for (unsigned k = 0; k < batch->n; k++)
		store(batch->dst[k], load(batch->text[k]) ^ load(batch->tweaks[k]));
	batch->n = 0;
}

static void batch_add(struct batch *batch, const uint64_t tweak[2], uint8_t *dst, const uint8_t *src)
{
	unsigned k = batch->n++;

	inl_store_le64(batch->tweaks[k], tweak[0]);
	inl_store_le64(batch->tweaks[k] + 8, tweak[1]);
	store(batch->text[k], load(src) ^ load(batch->tweaks[k]));
	batch->dst[k] = dst;
	if (batch->n == BLOCKS)
		batch_end(batch);
}

static void unit(struct batch *batch, const uint8_t first[B], size_t len, uint8_t *dst, const uint8_t *src)
{
	uint64_t t[2] = { inl_load_le64(first), inl_load_le64(first + 8) };

	for (size_t at = 0; at < len; at += B) {
		uint64_t out = t[1] >> 63;

		batch_add(batch, t, dst + at, src + at);
		t[1] = t[1] << 1 | t[0] >> 63;
		t[0] = t[0] << 1 ^ out * INL_XTS_POLY;
	}
}

/* The first tweaks of 32 units: their numbers encrypted together. */
static void first_tweaks(const struct inl_xts_keys *keys, const uint64_t from[2], uint8_t tweaks[BLOCKS][B])
{
	uint64_t dun[2] = { from[0], from[1] };

	for (unsigned k = 0; k < BLOCKS; k++, inl_xts_dun_next(dun, 1)) {
		inl_store_le64(tweaks[k], dun[0]);
		inl_store_le64(tweaks[k] + 8, dun[1]);
	}
	crypt_blocks(keys->tweak, keys->rounds, tweaks, true);
}

static void crypt_units(const struct inl_xts_keys *keys, const struct inl_units *u, bool encrypt)
{
	struct batch batch = { .keys = encrypt ? keys->enc : keys->dec, .rounds = keys->rounds, .encrypt = encrypt };
	uint64_t dun[2] = { u->dun[0], u->dun[1] };
	uint8_t first[BLOCKS][B];
	size_t n_made = 0;

	for (size_t s = 0; s < u->n_spans; s++)
		for (size_t i = 0; i < u->spans[s].n; i++, n_made++) {
			if (!u->tweak && n_made % BLOCKS == 0) {
				first_tweaks(keys, dun, first);
				inl_xts_dun_next(dun, BLOCKS);
			}
			unit(&batch, u->tweak ? u->tweak : first[n_made % BLOCKS], u->unit_len,
			     u->spans[s].dst + i * u->unit_len, u->spans[s].src + i * u->unit_len);
		}
	if (batch.n)
		batch_end(&batch);
}

/* ---- the implementation --------------------------------------------------------------------------------------------- */

__attribute__((noinline)) static void encrypt_units(const struct inl_xts_keys *keys, const struct inl_units *u)
{
	crypt_units(keys, u, true);
}

__attribute__((noinline)) static void decrypt_units(const struct inl_xts_keys *keys, const struct inl_units *u)
{
	crypt_units(keys, u, false);
}

__attribute__((noinline)) static void first_tweak(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t *tweak)
{
	uint8_t tweaks[BLOCKS][B];

	first_tweaks(keys, dun, tweaks);
	memcpy(tweak, tweaks[0], B);
}

/* Everything here lives on the stack: more of it than elsewhere. */
#define STACK 8192 /* bytes */

__attribute__((noinline)) static void clean(void)
{
	uint8_t stack[STACK];

	inl_wipe(stack, sizeof(stack));
	inl_xts_wipe_registers();
}

static const struct inl_xts_code code = {
	expand, encrypt_units, decrypt_units, encrypt_units, decrypt_units, first_tweak, clean,
};

const struct inl_impl inl_xts_portable = {
	.name = "portable",
	.state_size = sizeof(struct inl_xts_keys),
	.code = &code,
	.init = inl_xts_init,
	.crypt = inl_xts_crypt,
	.steal = inl_xts_steal,
};
