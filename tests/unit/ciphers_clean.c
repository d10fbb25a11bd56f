/*
 * tests/unit/ciphers_clean.c: schedules of AES-XTS, and that nothing of a key stays where it is not looked for.
 * Not here: what is computed with them (ciphers_compute.c); branches and addresses (test_constant_time.c).
 * Read more: FIPS 197, 5.2, 5.3.5 and appendix A; crypto/xts.h.
 *
 * What OpenSSL leaves behind is OpenSSL's: of its implementation only the raw key in our memory and on the stack is asked.
 */
#include "tests/unit/ciphers_rig.h"
#include "base/cpu.h"
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/xts.h"

#define B	INL_AES_BLOCK
#define FRAME	64 /* bytes that struct inl_cipher may have before the state */
#define N_KEYS	(3 * (INL_AES_ROUNDS_MAX + 1))

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static const struct {
	const char *key, *round_keys;
} expansions[] = {
#include "../vectors/aes-expand.inc"
};

static void from_hex(const char *hex, uint8_t *out)
{
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		*out++ = (uint8_t)byte;
}

/* A product in AES's field: FIPS 197, 4.2. */
static uint8_t product(uint8_t a, unsigned b)
{
	unsigned sum = 0, shifted = a;

	for (; b; b >>= 1, shifted = shifted << 1 ^ (shifted & 0x80 ? 0x11b : 0))
		sum ^= b & 1 ? shifted : 0;
	return (uint8_t)sum;
}

/* FIPS 197, 5.3.3. */
static void inverse_mix_columns(uint8_t block[B])
{
	static const uint8_t by[4] = { 0x0e, 0x0b, 0x0d, 0x09 };
	uint8_t in[B];

	memcpy(in, block, B);
	for (unsigned i = 0; i < B; i++) {
		block[i] = 0;
		for (unsigned k = 0; k < 4; k++)
			block[i] ^= product(in[i / 4 * 4 + k], by[(k - i) % 4]);
	}
}

/* FIPS 197, 5.3.5: the last key first; all but the outer ones through InvMixColumns. */
static void inverse_order(const uint8_t (*enc)[B], unsigned rounds, uint8_t (*dec)[B])
{
	for (unsigned i = 0; i <= rounds; i++) {
		memcpy(dec[i], enc[rounds - i], B);
		if (i && i < rounds)
			inverse_mix_columns(dec[i]);
	}
}

/* Both halves of the key are that of the standard: equal halves, which only the frame refuses. */
static void fips_schedule(const struct inl_tc_subject *subject)
{
	const size_t i = subject->key_size == 64, half = subject->key_size / 2;
	struct inl_xts_keys *keys, expected = { .rounds = i ? 14 : 10 };
	uint8_t key[64];

	if (!subject->own)
		return;
	from_hex(expansions[i].key, key);
	memcpy(key + half, key, half);
	from_hex(expansions[i].round_keys, expected.enc[0]);
	memcpy(expected.tweak, expected.enc, sizeof(expected.tweak));
	inverse_order((const uint8_t (*)[B])expected.enc, expected.rounds, expected.dec);
	keys = inl_secret_alloc(subject->impl->state_size);
	assert_int_equal(subject->impl->state_size, sizeof(*keys));
	assert_int_equal(subject->impl->init(subject->impl, keys, key, subject->key_size), 0);
	inl_tc_same(keys->enc[0], expected.enc[0], sizeof(keys->enc), "keys for encryption");
	inl_tc_same(keys->dec[0], expected.dec[0], sizeof(keys->dec), "keys for decryption");
	inl_tc_same(keys->tweak[0], expected.tweak[0], sizeof(keys->tweak), "keys for tweaks");
	assert_int_equal(keys->rounds, expected.rounds);
	inl_secret_free(keys);
}

static void test_fips_schedules(void **state)
{
	inl_tc_each(fips_schedule);
}

/* The second half makes the tweak's keys, the first the others; the portable code is the measure. */
static void same_schedule(const struct inl_tc_subject *subject)
{
	struct inl_xts_keys *keys, *portable;
	uint8_t key[64];

	if (!subject->own)
		return;
	keys = inl_secret_alloc(sizeof(*keys));
	portable = inl_secret_alloc(sizeof(*keys));
	for (unsigned i = 0; i < inl_tc_much(20, 500, 20000); i++) {
		inl_tc_fill(key, sizeof(key));
		memset(keys, 0, sizeof(*keys));
		memset(portable, 0, sizeof(*portable));
		subject->impl->init(subject->impl, keys, key, subject->key_size);
		inl_xts_portable.init(&inl_xts_portable, portable, key, subject->key_size);
		inl_tc_same((uint8_t *)keys, (uint8_t *)portable, sizeof(*keys), "state of random key %u", i);
		inl_tc_same(keys->enc[0], key, B, "beginning of random key %u", i);
		inl_tc_same(keys->tweak[0], key + subject->key_size / 2, B, "second half of random key %u", i);
	}
	inl_secret_free(keys);
	inl_secret_free(portable);
}

static void test_same_schedules(void **state)
{
	inl_tc_each(same_schedule);
}

/* ---- needles ----------------------------------------------------------------------------------------------------- */

/* Secrets of 16 bytes, so covered that who looks for them does not find these. */
#define COVER 0xa5
#define N_NEEDLES_MAX (N_KEYS + 4 + 600)

struct needles {
	unsigned n;
	uint8_t covered[N_NEEDLES_MAX][B];
	uint8_t by_two[65536 / 8]; /* bit: some needle begins with these two bytes, uncovered */
};

static struct needles needles;

static void needle(const uint8_t bytes[B])
{
	uint8_t (*to)[B] = &needles.covered[needles.n];
	unsigned two = bytes[0] | (unsigned)bytes[1] << 8;

	if (inl_tc_all(bytes, B, 0)) /* the unused keys of AES-128 */
		return;
	assert_true(needles.n++ < N_NEEDLES_MAX);
	for (unsigned i = 0; i < B; i++)
		((volatile uint8_t *)*to)[i] = bytes[i] ^ COVER;
	needles.by_two[two / 8] |= (uint8_t)(1u << two % 8);
}

/* The key as the caller has it. */
static void key_needles(const struct inl_tc_subject *subject, const uint8_t *key)
{
	memset(&needles, 0, sizeof(needles));
	for (unsigned at = 0; at < subject->key_size; at += B)
		needle(key + at);
}

/* The schedule in this cipher, which has nothing else that is secret. */
static void schedule_needles(const struct inl_xts_keys *keys)
{
	for (unsigned i = 0; i <= INL_AES_ROUNDS_MAX; i++) {
		needle(keys->enc[i]);
		needle(keys->dec[i]);
		needle(keys->tweak[i]);
	}
}

/* IEEE 1619-2018, 5.2. */
static void double_tweak(uint8_t t[B])
{
	unsigned carry = 0;

	for (unsigned i = 0; i < B; i++) {
		unsigned byte = (unsigned)t[i] << 1 | carry;

		t[i] = (uint8_t)byte;
		carry = byte >> 8;
	}
	t[0] ^= carry ? 0x87 : 0;
}

/* The tweaks of the blocks of this unit, by OpenSSL. */
static void tweak_needles(const struct inl_tc_subject *subject, const uint8_t *key, uint64_t dun, unsigned n_blocks)
{
	EVP_CIPHER *ecb = EVP_CIPHER_fetch(NULL, subject->ecb, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t t[B] = { 0 };
	int out;

	inl_store_le64(t, dun);
	assert_int_equal(EVP_CipherInit_ex2(ctx, ecb, key + subject->key_size / 2, NULL, 1, NULL), 1);
	assert_int_equal(EVP_CipherUpdate(ctx, t, &out, t, B), 1);
	for (unsigned i = 0; i < n_blocks; i++, double_tweak(t))
		needle(t);
	inl_wipe(t, B);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(ecb);
}

/* How many of them stand in these bytes, at any place. Reads nothing but the bytes: they may be a sanitizer's own. */
__attribute__((no_sanitize("address"), noinline)) static unsigned count(const uint8_t *bytes, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i + B <= len; i++) {
		unsigned two = bytes[i] | (unsigned)bytes[i + 1] << 8;

		if (!(needles.by_two[two / 8] >> two % 8 & 1))
			continue;
		for (unsigned k = 0; k < needles.n; k++) {
			unsigned same = 0;

			while (same < B && (bytes[i + same] ^ COVER) == needles.covered[k][same])
				same++;
			n += same == B;
		}
	}
	return n;
}

/* ---- secret memory ----------------------------------------------------------------------------------------------- */

/* A cipher goes where this was: the first free granules. */
static uint8_t *next_secret(const struct inl_tc_subject *subject)
{
	uint8_t *probe = inl_secret_alloc(FRAME + subject->impl->state_size);

	assert_non_null(probe);
	inl_secret_free(probe);
	return probe;
}

static void wiped_after(const struct inl_tc_subject *subject)
{
	const size_t len = FRAME + subject->impl->state_size;
	struct inl_tc_call call = { .n = 3, .len = 528, .dun = { 1 } };
	uint8_t *probe = next_secret(subject), key[64];
	struct inl_cipher *cipher;

	cipher = inl_tc_new(subject, key);
	key_needles(subject, key);
	for (unsigned how = 0; how < 4; how++) {
		call.encrypt = how & 1;
		call.stealing = how & 2;
		inl_tc_run(cipher, &call, inl_tc_rooms.out, inl_tc_rooms.out);
	}
	if (!count(probe, len))
		fail_msg("%s (%s): the cipher is not where it is looked for", subject->oracle, subject->impl->name);
	inl_cipher_free(cipher);
	if (!inl_tc_all(probe, len, 0))
		fail_msg("%s (%s): not wiped", subject->oracle, subject->impl->name);
	assert_ptr_equal(next_secret(subject), probe);
}

static void test_secret_memory_is_wiped(void **state)
{
	inl_tc_each(wiped_after);
}

/* ---- the stack --------------------------------------------------------------------------------------------------- */

__attribute__((noinline)) static unsigned count_below(void)
{
	uint8_t below[32768];

	__asm__ volatile("" : "=m"(below)); /* for the compiler it has been written */
	return count(below, sizeof(below));
}

#define STACK_BLOCKS 66 /* of a unit */

/* What is to be looked for: the key, the schedule, the tweaks of the units below. */
__attribute__((noinline)) static void stack_needles(const struct inl_tc_subject *subject, const uint8_t *key,
						    const struct inl_xts_keys *keys)
{
	key_needles(subject, key);
	if (!subject->own)
		return;
	schedule_needles(keys);
	for (uint64_t dun = 7; dun < 16; dun++)
		tweak_needles(subject, key, dun, STACK_BLOCKS);
}

/* What needles and their making have left there is not the cipher's. */
__attribute__((noinline)) static void sweep_below(void)
{
	uint8_t below[65536];

	inl_wipe(below, sizeof(below));
}

static void stack_after(const struct inl_tc_subject *subject, const struct inl_cipher *cipher)
{
	static const size_t lens[] = { 16, 48, 64, 512, 528, 1056 };

	for (unsigned how = 0; how < 4 * INL_TC_ARRAY_LEN(lens); how++) {
		struct inl_tc_call call = { how & 1, how & 2, .n = how & 2 ? 1 : 9, .len = lens[how / 4], .dun = { 7 } };
		unsigned n;

		call.len -= call.stealing && call.len > 16 ? 7 : 0;
		sweep_below();
		inl_tc_run(cipher, &call, inl_tc_rooms.out, inl_tc_rooms.out);
		n = count_below();
		if (n)
			fail_msg("%s (%s): %u on the stack: encrypt %d, stealing %d, %zu units of %zu", subject->oracle,
				 subject->impl->name, n, call.encrypt, call.stealing, call.n, call.len);
	}
}

/* The ciphers are freed last: that overwrites the very place. */
static void stack(const struct inl_tc_subject *subject)
{
	uint8_t *key = malloc(64), *probe = next_secret(subject);
	struct inl_cipher *cipher;
	unsigned n;

	assert_non_null(key);
	cipher = inl_tc_new(subject, key);
	stack_needles(subject, key, (void *)(probe + FRAME));
	inl_cipher_free(cipher);
	sweep_below();
	assert_int_equal(count_below(), 0);
	assert_int_equal(inl_cipher_new(subject->id, subject->impl->name, key, &cipher), 0);
	n = count_below();
	if (n)
		fail_msg("%s (%s): %u on the stack after set-up", subject->oracle, subject->impl->name, n);
	stack_after(subject, cipher);
	inl_cipher_free(cipher);
	free(key);
}

/* Leaves a needle where count_below must find it. */
__attribute__((noinline)) static void litter(const uint8_t bytes[B])
{
	uint8_t here[4096];

	memcpy(here + 1000, bytes, B);
	__asm__ volatile("" : : "m"(here));
}

static void test_the_stack_is_clean(void **state)
{
	static const uint8_t known[B] = "needle in a hay";

	if (!is_plain_build()) {
		print_message("skipped: sanitizers, or no optimisation, lay out frames in their own way\n");
		skip();
	}
	memset(&needles, 0, sizeof(needles));
	needle(known);
	litter(known);
	assert_int_equal(count_below(), 1);
	inl_tc_each(stack);
}

/* ---- all memory -------------------------------------------------------------------------------------------------- */

/* In everything that this process may write. */
static unsigned count_everywhere(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512], prot[5];
	unsigned n = 0;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, prot) == 3 && prot[0] == 'r' && prot[1] == 'w')
			n += count((const uint8_t *)from, to - from);
	fclose(maps);
	return n;
}

/* The key goes into a cipher, and out of the caller's memory. */
__attribute__((noinline)) static struct inl_cipher *entrust(const struct inl_tc_subject *subject, const uint8_t *probe)
{
	INL_SECRET_ARRAY(key, 64);
	struct inl_cipher *cipher;

	cipher = inl_tc_new(subject, key);
	key_needles(subject, key);
	schedule_needles((const void *)(probe + FRAME));
	return cipher;
}

static void everywhere(const struct inl_tc_subject *subject)
{
	static const struct inl_tc_call calls[] = {
		{ true, false, .n = 33, .len = 528 },	{ false, false, .n = 33, .len = 528 },
		{ true, true, .n = 1, .len = 1061 },	{ false, true, .n = 1, .len = 1061 },
		{ true, false, .n = 100, .len = 16 },	{ false, false, .n = 1, .len = 65536 },
	};
	struct inl_cipher *cipher;
	unsigned n;

	if (!subject->own)
		return;
	cipher = entrust(subject, next_secret(subject));
	sweep_below();
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(calls); i++)
		inl_tc_run(cipher, &calls[i], inl_tc_rooms.out, inl_tc_rooms.out);
	n = count_everywhere();
	/* Once in the schedule, where the first keys are the raw key, and the outer ones those of both directions. */
	assert_true(n >= needles.n);
	inl_cipher_free(cipher);
	n = count_everywhere();
	if (n)
		fail_msg("%s (%s): %u pieces of the key in memory after it was freed", subject->oracle, subject->impl->name,
			 n);
}

static void test_nothing_anywhere(void **state)
{
	if (!is_plain_build()) {
		print_message("skipped: sanitizers keep what is freed\n");
		skip();
	}
	inl_tc_each(everywhere);
}

/* ---- registers --------------------------------------------------------------------------------------------------- */

static uint8_t registers[32 * 64] __attribute__((aligned(64)));

#if defined(__x86_64__)
#define EACH_LOW(do)                                                                                                  \
	do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14)                \
	do(15)
#define EACH_HIGH(do)                                                                                                 \
	do(16) do(17) do(18) do(19) do(20) do(21) do(22) do(23) do(24) do(25) do(26) do(27) do(28) do(29)             \
	do(30) do(31)
#define CLEAR_XMM(n) "pxor %%xmm" #n ", %%xmm" #n ";"
#define CLEAR_ZMM(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n ";"
#define STORE_XMM(n) "movdqu %%xmm" #n ", 64*" #n "(%0);"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%0);"
#define CLOBBER(n)   , "xmm" #n

static bool has_zmm(void)
{
	return inl_cpu_features() & INL_CPU_AVX512;
}

static void clear_registers(void)
{
	if (has_zmm())
		__asm__ volatile(EACH_LOW(CLEAR_ZMM) EACH_HIGH(CLEAR_ZMM) : : : "memory" EACH_LOW(CLOBBER));
	else
		__asm__ volatile(EACH_LOW(CLEAR_XMM) : : : "memory" EACH_LOW(CLOBBER));
}

static void store_registers(void)
{
	if (has_zmm())
		__asm__ volatile(EACH_LOW(STORE_ZMM) EACH_HIGH(STORE_ZMM) : : "r"(registers) : "memory");
	else
		__asm__ volatile(EACH_LOW(STORE_XMM) : : "r"(registers) : "memory");
}
#elif defined(__aarch64__)
/* Those that a function may change: of v8 to v15 the low halves are its caller's. */
#define EACH(do)                                                                                                      \
	do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(16) do(17) do(18) do(19) do(20) do(21) do(22) do(23)       \
	do(24) do(25) do(26) do(27) do(28) do(29) do(30) do(31)
#define CLEAR(n)   "movi v" #n ".2d, #0;"
#define STORE(n)   "str q" #n ", [%0, #16*" #n "];"
#define CLOBBER(n) , "v" #n

static void clear_registers(void)
{
	__asm__ volatile(EACH(CLEAR) : : : "memory" EACH(CLOBBER));
}

static void store_registers(void)
{
	__asm__ volatile(EACH(STORE) : : "r"(registers) : "memory");
}
#else
static void clear_registers(void)
{
}

static void store_registers(void)
{
}
#endif

/* All vector registers are zero right after these functions of the implementation. */
static void registers_after(const struct inl_tc_subject *subject)
{
	const struct inl_impl *impl = subject->impl;
	const struct inl_cipher_span span = { inl_tc_rooms.out, inl_tc_rooms.text, 5 }, one = { span.dst, span.src, 1 };
	const struct inl_units units = { { 7 }, 1056, &span, 1, NULL };
	struct inl_units odd = { { 7 }, 1056, &one, 1, NULL };
	uint8_t key[64];
	void *state;

	if (!subject->own)
		return;
	state = inl_secret_alloc(impl->state_size);
	inl_tc_fill(key, sizeof(key));
	inl_tc_fill(inl_tc_rooms.text, 5 * 1056);
	for (unsigned how = 0; how < 4 * 16; how++) {
		bool init = how == 0;

		odd.unit_len = 1056 + how / 4;
		memset(registers, 0, sizeof(registers));
		clear_registers();
		if (init)
			impl->init(impl, state, key, subject->key_size);
		else
			(how & 2 ? impl->steal : impl->crypt)(impl, state, how & 2 ? &odd : &units, how & 1);
		store_registers();
		if (!inl_tc_all(registers, sizeof(registers), 0))
			fail_msg("%s (%s): something is left in vector registers, way %u", subject->oracle, impl->name,
				 how);
	}
	inl_secret_free(state);
}

static void test_registers_are_clean(void **state)
{
	if (!is_plain_build()) {
		print_message("skipped: sanitizers use vector registers as well\n");
		skip();
	}
	inl_tc_each(registers_after);
}

int inl_tc_clean(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fips_schedules),
		cmocka_unit_test(test_same_schedules),
		cmocka_unit_test(test_secret_memory_is_wiped),
		cmocka_unit_test(test_the_stack_is_clean),
		cmocka_unit_test(test_nothing_anywhere),
		cmocka_unit_test(test_registers_are_clean),
	};

	return cmocka_run_group_tests_name("what stays behind", tests, NULL, NULL);
}
