/*
 * tests/unit/test_ciphers.c: AES-256-XTS and AES-128-XTS, every implementation that this CPU runs.
 * Not here: the tests (ciphers_*.c); OpenSSL's other modes (test_crypto.c); time (test_constant_time.c).
 * Read more: ciphers_rig.h. --quick: less of everything, for emulators; --long: much more; --seed=N: other dice;
 * --only=NAME: one test.
 */
#include "tests/unit/ciphers_rig.h"

static bool under_tsan(void)
{
#if defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
	return true;
#endif
#endif
	return false;
}

static bool read_options(int argc, char **argv, uint64_t *seed)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--quick"))
			inl_tc_scale = INL_TC_QUICK;
		else if (!strcmp(argv[i], "--long"))
			inl_tc_scale = INL_TC_LONG;
		else if (!strncmp(argv[i], "--seed=", 7))
			*seed = strtoull(argv[i] + 7, NULL, 10);
		else if (!strncmp(argv[i], "--only=", 7))
			cmocka_set_test_filter(argv[i] + 7);
		else
			return false;
	return true;
}

int main(int argc, char **argv)
{
	int (*const parts[])(void) = { inl_tc_known, inl_tc_compute, inl_tc_edges, inl_tc_clean, inl_tc_misuse };
	uint64_t seed = 1;
	int n_failed = 0;

	if (under_tsan()) /* it is here for the threads */
		inl_tc_scale = INL_TC_QUICK;
	if (!read_options(argc, argv, &seed)) {
		fprintf(stderr, "usage: test_ciphers [--quick | --long] [--seed=N] [--only=NAME]\n");
		return 2;
	}
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(parts); i++) {
		inl_tc_seed(seed);
		n_failed += parts[i]();
	}
	if (n_failed)
		print_message("# --seed=%llu\n", (unsigned long long)seed);
	return n_failed > 0;
}
