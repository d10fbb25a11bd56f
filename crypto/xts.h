/*
 * crypto/xts.h: what the implementations of AES-XTS share: the schedule, ciphertext stealing on top of whole blocks.
 * Not here: the implementations (xts_*.c), OpenSSL's (evp_xts.c).
 * Read more: IEEE 1619-2018, 5; FIPS 197.
 *
 * Tweaks are elements of GF(2^128), little endian, modulo x^128 + x^7 + x^2 + x + 1: the 0x87 in all of them. Nothing
 * may branch on keys, tweaks or text, nor use them as an index.
 */
#ifndef INLAY_CRYPTO_XTS_H
#define INLAY_CRYPTO_XTS_H

#include "base/cpu.h"
#include "crypto/own.h"

#define INL_AES_ROUNDS_MAX 14
#define INL_XTS_POLY	   0x87

/* Loops over registers: left as loops, they would be loops over memory. */
#ifdef __clang__
#define INL_UNROLL _Pragma("unroll 32")
#else
#define INL_UNROLL _Pragma("GCC unroll 32")
#endif

/* The state of every implementation, the same bytes in all of them. */
struct inl_xts_keys {
	uint8_t enc[INL_AES_ROUNDS_MAX + 1][INL_AES_BLOCK];
	uint8_t dec[INL_AES_ROUNDS_MAX + 1][INL_AES_BLOCK]; /* in the order of use: FIPS 197, 5.3.5, equivalent inverse cipher */
	uint8_t tweak[INL_AES_ROUNDS_MAX + 1][INL_AES_BLOCK];
	unsigned rounds;				     /* 10 or 14 */
};

/* The code of an implementation. Its functions leave registers and stack dirty; clean is called after each. */
struct inl_xts_code {
	void (*expand)(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size);
	void (*encrypt_256)(const struct inl_xts_keys *keys, const struct inl_units *units);
	void (*decrypt_256)(const struct inl_xts_keys *keys, const struct inl_units *units);
	void (*encrypt_128)(const struct inl_xts_keys *keys, const struct inl_units *units);
	void (*decrypt_128)(const struct inl_xts_keys *keys, const struct inl_units *units);
	void (*tweak)(const struct inl_xts_keys *keys, const uint64_t dun[4], uint8_t tweak[INL_AES_BLOCK]);
	void (*clean)(void);
};

/* Four of them, from one inlined function, to which rounds and direction are constants: units(keys, u, rounds, encrypt). */
#define INL_XTS_DIRECTIONS(noinline)                                                                                  \
	noinline void encrypt_256(const struct inl_xts_keys *keys, const struct inl_units *u)                         \
	{                                                                                                             \
		units(keys, u, 14, true);                                                                             \
	}                                                                                                             \
	noinline void decrypt_256(const struct inl_xts_keys *keys, const struct inl_units *u)                         \
	{                                                                                                             \
		units(keys, u, 14, false);                                                                            \
	}                                                                                                             \
	noinline void encrypt_128(const struct inl_xts_keys *keys, const struct inl_units *u)                         \
	{                                                                                                             \
		units(keys, u, 10, true);                                                                             \
	}                                                                                                             \
	noinline void decrypt_128(const struct inl_xts_keys *keys, const struct inl_units *u)                         \
	{                                                                                                             \
		units(keys, u, 10, false);                                                                            \
	}

/* The functions of such an implementation. */
int inl_xts_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size);
int inl_xts_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt);
int inl_xts_steal(const struct inl_impl *impl, void *state, const struct inl_units *unit, bool encrypt);

/* The expand of all on x86-64. */
void inl_xts_expand_x86(struct inl_xts_keys *keys, const uint8_t *key, unsigned key_size);

/* The numbers of data units: 128 bits of them count. */
static inline void inl_xts_dun_next(uint64_t dun[2], uint64_t n)
{
	dun[0] += n;
	dun[1] += dun[0] < n;
}

/*
 * The compiler may keep round keys and tweaks on the stack, where no variable names them. So the work is done in a
 * function that is not inlined, and then the stack that it had is overwritten, and the vector registers too. How much of
 * it is a matter of the compiler: optimised builds of gcc 12 and clang 14, hardened ones too, use up to 3600 bytes with
 * 512-bit vectors and less than 2048 otherwise. A test looks for what is left. Builds without optimisation and with
 * sanitizers use more, and leave something behind.
 */
#define INL_XTS_STACK	   2048
#define INL_XTS_STACK_WIDE 4096

/* The vector registers of code without AVX, and of the C library's. */
static inline void inl_xts_wipe_registers(void)
{
#if defined(__x86_64__)
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2; pxor %%xmm3, %%xmm3;"
			 "pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5; pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7;"
			 "pxor %%xmm8, %%xmm8; pxor %%xmm9, %%xmm9; pxor %%xmm10, %%xmm10; pxor %%xmm11, %%xmm11;"
			 "pxor %%xmm12, %%xmm12; pxor %%xmm13, %%xmm13; pxor %%xmm14, %%xmm14; pxor %%xmm15, %%xmm15"
			 :
			 :
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
			   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	/* The C library's memcpy, which compilers make of loops, goes through these where there are any. */
	if (inl_cpu_features() & INL_CPU_AVX512)
		__asm__ volatile("vpxord %zmm16, %zmm16, %zmm16; vpxord %zmm17, %zmm17, %zmm17;"
				 "vpxord %zmm18, %zmm18, %zmm18; vpxord %zmm19, %zmm19, %zmm19;"
				 "vpxord %zmm20, %zmm20, %zmm20; vpxord %zmm21, %zmm21, %zmm21;"
				 "vpxord %zmm22, %zmm22, %zmm22; vpxord %zmm23, %zmm23, %zmm23;"
				 "vpxord %zmm24, %zmm24, %zmm24; vpxord %zmm25, %zmm25, %zmm25;"
				 "vpxord %zmm26, %zmm26, %zmm26; vpxord %zmm27, %zmm27, %zmm27;"
				 "vpxord %zmm28, %zmm28, %zmm28; vpxord %zmm29, %zmm29, %zmm29;"
				 "vpxord %zmm30, %zmm30, %zmm30; vpxord %zmm31, %zmm31, %zmm31");
#elif defined(__aarch64__)
	__asm__ volatile("movi v0.2d, #0; movi v1.2d, #0; movi v2.2d, #0; movi v3.2d, #0;"
			 "movi v4.2d, #0; movi v5.2d, #0; movi v6.2d, #0; movi v7.2d, #0;"
			 "movi v8.2d, #0; movi v9.2d, #0; movi v10.2d, #0; movi v11.2d, #0;"
			 "movi v12.2d, #0; movi v13.2d, #0; movi v14.2d, #0; movi v15.2d, #0;"
			 "movi v16.2d, #0; movi v17.2d, #0; movi v18.2d, #0; movi v19.2d, #0;"
			 "movi v20.2d, #0; movi v21.2d, #0; movi v22.2d, #0; movi v23.2d, #0;"
			 "movi v24.2d, #0; movi v25.2d, #0; movi v26.2d, #0; movi v27.2d, #0;"
			 "movi v28.2d, #0; movi v29.2d, #0; movi v30.2d, #0; movi v31.2d, #0"
			 :
			 :
			 : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
			   "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",
			   "v28", "v29", "v30", "v31");
#endif
}

/* The clean of code that uses no other registers and no more than INL_XTS_STACK. */
void inl_xts_clean(void);

#endif
