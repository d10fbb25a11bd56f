/*
 * base/cpu.c: asks the CPU, and the system about the registers that it saves.
 * Not here: anything that depends on the answer.
 * Read more: Intel SDM volume 2, CPUID, and volume 1, 13.3 (XCR0); getauxval(3).
 */
#include "base/cpu.h"

#include <pthread.h>
#include <stddef.h>

static const char *const names[] = {
	"sse4_2", "aes", "pclmulqdq", "avx2", "vaes", "avx512", "aes", "pmull", "crc32",
};

const char *inl_cpu_feature_name(enum inl_cpu_feature feature)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((unsigned)feature == 1u << i)
			return names[i];
	return NULL;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0: the parts of the register file that the system saves. */
static unsigned saved_registers(void)
{
	unsigned low, high;

	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

static unsigned ask(void)
{
	enum { AESNI = 1 << 25, PCLMUL = 1 << 1, SSE42 = 1 << 20, OSXSAVE = 1 << 27 };	  /* leaf 1, ecx */
	const unsigned avx2 = 1u << 5, avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* leaf 7, ebx */
	const unsigned vaes = 1u << 9 | 1u << 10;					  /* leaf 7, ecx */
	const unsigned ymm = 0x06, zmm = 0xe6;						  /* XCR0 */
	unsigned a, b, c, d, saved, features = 0;

	if (!__get_cpuid(1, &a, &b, &c, &d))
		return 0;
	features |= c & SSE42 ? INL_CPU_SSE42 : 0;
	features |= c & AESNI ? INL_CPU_AESNI : 0;
	features |= c & PCLMUL ? INL_CPU_PCLMUL : 0;
	saved = c & OSXSAVE ? saved_registers() : 0;
	if ((saved & ymm) != ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2))
		return features;
	features |= INL_CPU_AVX2;
	features |= (c & vaes) == vaes ? INL_CPU_VAES : 0;
	features |= (saved & zmm) == zmm && (b & avx512) == avx512 ? INL_CPU_AVX512 : 0;
	return features;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static unsigned ask(void)
{
	enum { AES = 1 << 3, PMULL = 1 << 4, CRC32 = 1 << 7 }; /* AT_HWCAP */
	unsigned long caps = getauxval(AT_HWCAP);

	return (caps & AES ? INL_CPU_ARM_AES : 0) | (caps & PMULL ? INL_CPU_ARM_PMULL : 0) |
	       (caps & CRC32 ? INL_CPU_ARM_CRC32 : 0);
}
#else
static unsigned ask(void)
{
	return 0;
}
#endif

static pthread_once_t asked = PTHREAD_ONCE_INIT;
static unsigned answer;

static void ask_once(void)
{
	answer = ask();
}

unsigned inl_cpu_features(void)
{
	pthread_once(&asked, ask_once);
	return answer;
}
