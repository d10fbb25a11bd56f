/*
 * crypto/xts_arm.c: AES-XTS for AArch64 CPUs with the AES instructions of ARMv8: eight blocks in flight.
 * Not here: other CPUs (the other xts_*.c), ciphertext stealing (xts.c).
 * Read more: IEEE 1619-2018, 5.3; Arm, "Neon Intrinsics Reference" (AESE, AESMC, AESD, AESIMC).
 *
 * AESE adds the round key before SubBytes and ShiftRows; AESMC is MixColumns alone. So round i uses key i, and the last
 * key is added by an exclusive or, together with the tweak.
 */
#include "base/cpu.h"
#include "crypto/xts.h"

#if defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <arm_neon.h>
#include <string.h>

#ifdef __clang__
#define TARGET __attribute__((target("aes,neon")))
#else
#define TARGET __attribute__((target("+crypto")))
#endif
#define INLINE	 TARGET __attribute__((always_inline)) static inline
#define NOINLINE TARGET __attribute__((noinline)) static
#define WIDE	 8 /* blocks in flight */
#define B	 INL_AES_BLOCK

/* Every round but the last two additions. */
INLINE uint8x16_t one_round(uint8x16_t x, uint8x16_t key, bool encrypt)
{
	return encrypt ? vaesmcq_u8(vaeseq_u8(x, key)) : vaesimcq_u8(vaesdq_u8(x, key));
}

INLINE uint8x16_t last_round(uint8x16_t x, uint8x16_t key, bool encrypt)
{
	return encrypt ? vaeseq_u8(x, key) : vaesdq_u8(x, key);
}

/* Times x: both halves are doubled, and each takes in the bit that the other one lost: as 1, or as the polynomial. */
INLINE uint8x16_t times_x(uint8x16_t t)
{
	const uint64x2_t in = { INL_XTS_POLY, 1 };
	uint64x2_t halves = vreinterpretq_u64_u8(t);
	uint64x2_t out = vreinterpretq_u64_s64(vshrq_n_s64(vreinterpretq_s64_u64(vextq_u64(halves, halves, 1)), 63));

	return vreinterpretq_u8_u64(veorq_u64(vaddq_u64(halves, halves), vandq_u64(out, in)));
}

/* n blocks, n a constant. Moves *t on by n. */
INLINE void blocks(const uint8_t (*k)[B], unsigned rounds, uint8x16_t *t, unsigned n, uint8_t *dst, const uint8_t *src,
		   bool encrypt)
{
	const uint8x16_t last = vld1q_u8(k[rounds]);
	uint8x16_t x[WIDE], tweaks[WIDE];

	INL_UNROLL
	for (unsigned i = 0; i < n; i++) {
		x[i] = veorq_u8(vld1q_u8(src + B * i), *t);
		tweaks[i] = veorq_u8(*t, last);
		*t = times_x(*t);
	}
	INL_UNROLL
	for (unsigned r = 0; r + 1 < rounds; r++) {
		const uint8x16_t key = vld1q_u8(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < n; i++)
			x[i] = one_round(x[i], key, encrypt);
	}
	INL_UNROLL
	for (unsigned i = 0; i < n; i++)
		vst1q_u8(dst + B * i, veorq_u8(last_round(x[i], vld1q_u8(k[rounds - 1]), encrypt), tweaks[i]));
}

/* One unit, from the tweak of its first block. */
INLINE void unit(const uint8_t (*k)[B], unsigned rounds, uint8x16_t t, size_t len, uint8_t *dst, const uint8_t *src,
		 bool encrypt)
{
	for (; len >= B * WIDE; len -= B * WIDE, dst += B * WIDE, src += B * WIDE)
		blocks(k, rounds, &t, WIDE, dst, src, encrypt);
	if (len >= B * 4) {
		blocks(k, rounds, &t, 4, dst, src, encrypt);
		len -= B * 4;
		dst += B * 4;
		src += B * 4;
	}
	for (; len; len -= B, dst += B, src += B)
		blocks(k, rounds, &t, 1, dst, src, encrypt);
}

/* The first tweaks of eight units: their numbers encrypted side by side. */
INLINE void first_tweaks(const uint8_t (*k)[B], unsigned rounds, const uint64_t dun[2], uint8x16_t t[WIDE])
{
	INL_UNROLL
	for (unsigned i = 0; i < WIDE; i++) {
		const uint64_t low = dun[0] + i;
		const uint64x2_t number = { low, dun[1] + (low < dun[0]) };

		t[i] = vreinterpretq_u8_u64(number);
	}
	INL_UNROLL
	for (unsigned r = 0; r + 1 < rounds; r++) {
		const uint8x16_t key = vld1q_u8(k[r]);

		INL_UNROLL
		for (unsigned i = 0; i < WIDE; i++)
			t[i] = one_round(t[i], key, true);
	}
	INL_UNROLL
	for (unsigned i = 0; i < WIDE; i++)
		t[i] = veorq_u8(last_round(t[i], vld1q_u8(k[rounds - 1]), true), vld1q_u8(k[rounds]));
}

INLINE void units(const struct inl_xts_keys *keys, const struct inl_units *u, unsigned rounds, bool encrypt)
{
	const uint8_t (*k)[B] = encrypt ? keys->enc : keys->dec;
	uint64_t dun[2] = { u->dun[0], u->dun[1] };
	size_t len = u->unit_len, n_made = 0;
	uint8x16_t first[WIDE];

	for (size_t s = 0; s < u->n_spans; s++) {
		const uint8_t *src = u->spans[s].src;
		uint8_t *dst = u->spans[s].dst;

		for (size_t i = u->spans[s].n; i; i--, dst += len, src += len, n_made++) {
			if (u->tweak) {
				first[0] = vld1q_u8(u->tweak);
			} else if (n_made % WIDE == 0) {
				first_tweaks(keys->tweak, rounds, dun, first);
				inl_xts_dun_next(dun, WIDE);
			}
			unit(k, rounds, first[n_made % WIDE], len, dst, src, encrypt);
		}
	}
}

/* ---- key expansion: FIPS 197, 5.2 ----------------------------------------------------------------------------------- */

/* The S-box on four bytes: AESE with a key of zeros is SubBytes and ShiftRows, which leaves four equal columns alone. */
INLINE uint32_t sub_word(uint32_t word)
{
	return vgetq_lane_u32(vreinterpretq_u32_u8(vaeseq_u8(vreinterpretq_u8_u32(vdupq_n_u32(word)), vdupq_n_u8(0))), 0);
}

INLINE uint32_t rotate(uint32_t word)
{
	return word >> 8 | word << 24;
}

INLINE void expand_one(uint8_t (*out)[B], const uint8_t *key, unsigned n_words, unsigned rounds)
{
	uint32_t w[4 * (INL_AES_ROUNDS_MAX + 1)], rcon = 1;

	memcpy(w, key, 4 * n_words);
	for (unsigned i = n_words; i < 4 * (rounds + 1); i++) {
		uint32_t word = w[i - 1];

		if (i % n_words == 0) {
			word = rotate(sub_word(word)) ^ rcon;
			rcon = rcon << 1 ^ (rcon >> 7) * 0x11b;
		} else if (n_words == 8 && i % n_words == 4) {
			word = sub_word(word);
		}
		w[i] = w[i - n_words] ^ word;
	}
	memcpy(out, w, (size_t)B * (rounds + 1));
}

NOINLINE void expand(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size)
{
	unsigned rounds = key_size == 64 ? 14 : 10;

	keys->rounds = rounds;
	expand_one(keys->enc, key, key_size / 8, rounds);
	expand_one(keys->tweak, key + key_size / 2, key_size / 8, rounds);
	memcpy(keys->dec[0], keys->enc[rounds], B);
	for (unsigned i = 1; i < rounds; i++)
		vst1q_u8(keys->dec[i], vaesimcq_u8(vld1q_u8(keys->enc[rounds - i])));
	memcpy(keys->dec[rounds], keys->enc[0], B);
}

/* ---- the implementation -------------------------------------------------------------------------------------------- */

INL_XTS_DIRECTIONS(NOINLINE)

NOINLINE void first_tweak(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t *tweak)
{
	uint8x16_t t[WIDE];

	first_tweaks(keys->tweak, keys->rounds, dun, t);
	vst1q_u8(tweak, t[0]);
}

static const struct inl_xts_code code = {
	expand, encrypt_256, decrypt_256, encrypt_128, decrypt_128, first_tweak, inl_xts_clean,
};

const struct inl_impl inl_xts_arm = {
	.name = "armv8",
	.needs = INL_CPU_ARM_AES,
	.state_size = sizeof(struct inl_xts_keys),
	.code = &code,
	.init = inl_xts_init,
	.crypt = inl_xts_crypt,
	.steal = inl_xts_steal,
};
#else
const struct inl_impl inl_xts_arm = { .name = "armv8", .needs = INL_CPU_ARM_AES };
#endif
