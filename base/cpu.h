/*
 * base/cpu.h: which instructions this CPU has, of those that some code here is written in.
 * Not here: the choice among implementations: each kind has its own list, best first (crypto/, base/crc.c).
 * Read more: Intel SDM, CPUID; Linux Documentation/arch/arm64/elf_hwcaps.rst.
 */
#ifndef INLAY_BASE_CPU_H
#define INLAY_BASE_CPU_H

/* A set of them is an OR. On another architecture than its own a feature is never there. */
enum inl_cpu_feature {
	/* x86-64 */
	INL_CPU_SSE42 = 1 << 0,	  /* SSE4.2 and what came before it */
	INL_CPU_AESNI = 1 << 1,
	INL_CPU_PCLMUL = 1 << 2,
	INL_CPU_AVX2 = 1 << 3,	  /* and the system saves its registers */
	INL_CPU_VAES = 1 << 4,	  /* VAES and VPCLMULQDQ, in the widths that AVX2 or AVX-512 allow */
	INL_CPU_AVX512 = 1 << 5,  /* F, BW, DQ and VL, and the system saves their registers */
	/* ARMv8, AArch64 */
	INL_CPU_ARM_AES = 1 << 6, /* AESE, AESD, AESMC, AESIMC */
	INL_CPU_ARM_PMULL = 1 << 7,
	INL_CPU_ARM_CRC32 = 1 << 8,
};

/* What this CPU has. Asked once per process: in a virtual machine the question costs as much as encrypting a file. */
unsigned inl_cpu_features(void);

/* What /proc/cpuinfo calls a feature: "aes", "vaes". Bits that are no feature: NULL. */
const char *inl_cpu_feature_name(enum inl_cpu_feature feature);

#endif
