/*
 * tests/unit/old_arm.c: loaded before a test program, makes an AArch64 CPU seem to have no more than ARMv8.0 demands.
 * Not here: a test; emulated CPUs with less, since qemu-aarch64 has none without the AES instructions.
 * Read more: getauxval(3); ld.so(8), LD_PRELOAD.
 *
 * OpenSSL asks in the same way, so it too falls back to what every CPU can do.
 */
#include <dlfcn.h>
#include <sys/auxv.h>

__attribute__((visibility("default"))) unsigned long getauxval(unsigned long type)
{
	unsigned long (*real)(unsigned long) = dlsym(RTLD_NEXT, "getauxval");
	unsigned long value = real(type);

	return type == AT_HWCAP ? value & (HWCAP_FP | HWCAP_ASIMD) : value;
}
