/*
 * tests/unit/test_constant_time.c: no branch and no address of our AES-XTS depends on key, tweak or text; step by step.
 * Not here: what it computes (test_ciphers.c); OpenSSL's code; how long anything takes: no clock is asked.
 * Read more: valgrind manual, 4.7 (client requests of memcheck); ptrace(2).
 *
 * Two ways to see it:
 *   --marks (under valgrind)  keys and text are marked as undefined, and memcheck complains of every branch and every
 *                             address that is made of them. It does not know VAES and AVX-512.
 *   otherwise                 a child is traced step by step through the same call with different secrets in the same
 *                             memory. The sequences of instructions must be the same, and in code that keeps secrets in
 *                             vector registers only, so must all other registers: without gathers, addresses come from
 *                             those. Tracing also shows that nothing is stored in dst but the result.
 */
#include "tests/unit/ciphers_rig.h"
#include "base/cpu.h"
#include "crypto/xts.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define HAS_MARKS 1
#else
#define HAS_MARKS 0
#endif

/* ---- calls ------------------------------------------------------------------------------------------------------- */

#define UNIT  1184 /* bytes: wide vectors, halves of them, remainders of all kinds */
#define SMALL 48
#define TEXT  (5 * UNIT)

/* In the same place in every run. */
static struct {
	struct inl_xts_keys keys __attribute__((aligned(64)));
	uint8_t key[64], text[TEXT], out[TEXT];
} lab;

static uint8_t *target = lab.out;

/* What is done to the secrets; len 0: set-up. */
static const struct call {
	const char *name;
	bool encrypt, stealing;
	size_t n, len;
} calls[] = {
	{ "set-up" },
	{ "encrypt", true, false, 5, UNIT },
	{ "decrypt", false, false, 5, UNIT },
	{ "encrypt small units", true, false, 9, SMALL },
	{ "decrypt small units", false, false, 9, SMALL },
	{ "encrypt with stealing", true, true, 1, 669 },
	{ "decrypt with stealing", false, true, 1, 669 },
	{ "encrypt a little with stealing", true, true, 1, 17 },
	{ "decrypt a little with stealing", false, true, 1, 31 },
};
#define N_CALLS INL_TC_ARRAY_LEN(calls)

static void make(const struct inl_impl *impl, unsigned key_size, const struct call *call)
{
	const struct inl_cipher_span span = { target, lab.text, call->n };
	const struct inl_units units = { { UINT64_MAX - 3, 5 }, call->len, &span, 1, NULL };

	if (!call->len)
		impl->init(impl, &lab.keys, lab.key, key_size);
	else
		(call->stealing ? impl->steal : impl->crypt)(impl, &lab.keys, &units, call->encrypt);
}

static const struct inl_impl *const own[] = {
	&inl_xts_vaes_avx512, &inl_xts_vaes_avx2, &inl_xts_aesni, &inl_xts_arm, &inl_xts_portable,
};

static bool runs_here(const struct inl_impl *impl)
{
	return impl->crypt && !(impl->needs & ~inl_cpu_features());
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

#if HAS_MARKS
/* Secrets came this far: if they did not, nothing was tested. No bit of it is known to memcheck. */
static void must_be_secret(const void *bytes, size_t len, const char *what)
{
	static uint8_t known[TEXT];

	assert_int_equal(VALGRIND_GET_VBITS(bytes, known, len), 1);
	if (!inl_tc_all(known, len, 0xff))
		fail_msg("%s: not all of it depends on secrets", what);
}

static void marked_call(const struct inl_impl *impl, unsigned key_size, const struct call *call)
{
	unsigned errors = VALGRIND_COUNT_ERRORS;

	VALGRIND_MAKE_MEM_UNDEFINED(lab.key, sizeof(lab.key));
	VALGRIND_MAKE_MEM_UNDEFINED(lab.text, sizeof(lab.text));
	make(impl, key_size, call);
	if (VALGRIND_COUNT_ERRORS != errors)
		fail_msg("%s, %u bytes of key: %s depends on secrets", impl->name, key_size, call->name);
	if (call->len)
		must_be_secret(lab.out, call->n * call->len, call->name);
	else
		must_be_secret(lab.keys.enc, sizeof(lab.keys.enc[0]) * (lab.keys.rounds + 1), call->name);
	VALGRIND_MAKE_MEM_DEFINED(lab.out, sizeof(lab.out));
}

static void test_marked_secrets(void **state)
{
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(own); i++)
		for (unsigned key_size = 32; runs_here(own[i]) && key_size <= 64; key_size += 32) {
			memset(&lab, 0, sizeof(lab));
			for (size_t c = 0; c < N_CALLS; c++)
				marked_call(own[i], key_size, &calls[c]);
			VALGRIND_MAKE_MEM_DEFINED(&lab, sizeof(lab));
		}
}

/* The result may be known, and is branched on by whoever asks; the way to it may not. */
static void test_marked_comparison(void **state)
{
	unsigned errors = VALGRIND_COUNT_ERRORS;
	volatile bool same;

	for (size_t differ = 0; differ <= 32; differ++) {
		memset(lab.key, 0x5a, sizeof(lab.key));
		if (differ < 32)
			lab.key[differ] ^= 1;
		VALGRIND_MAKE_MEM_UNDEFINED(lab.key, sizeof(lab.key));
		same = inl_equal_ct(lab.key, lab.key + 32, 32);
		VALGRIND_MAKE_MEM_DEFINED(&same, sizeof(same));
		VALGRIND_MAKE_MEM_DEFINED(lab.key, sizeof(lab.key));
		assert_int_equal(same, differ == 32);
	}
	assert_int_equal(VALGRIND_COUNT_ERRORS, errors);
}

static int marks(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_marked_secrets),
		cmocka_unit_test(test_marked_comparison),
	};

	if (RUNNING_ON_VALGRIND)
		return cmocka_run_group_tests_name("marks", tests, NULL, NULL);
	printf("1..0 # SKIP needs valgrind\n");
	return 0;
}
#else
static int marks(void)
{
	printf("1..0 # SKIP needs valgrind/memcheck.h\n");
	return 0;
}
#endif

/* ---- steps ------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__linux__)
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

extern const char __executable_start[];

#define N_STEPS_MAX (1u << 20)

/* After one instruction: where the child is, and all its registers but those of vectors. */
struct step {
	uint64_t at, registers;
};

static struct step first_steps[N_STEPS_MAX];

/* What is compared with what. */
static struct trace {
	const struct inl_impl *impl;
	unsigned key_size;
	const struct call *call;
	bool registers; /* these as well, not only the way */
} trace;

/* Different secrets in the same places; the last are the first again, to see that the way is always the same. */
enum { N_SECRETS = 5 };

__attribute__((noinline)) static void set_secrets(unsigned i)
{
	inl_tc_seed(i == N_SECRETS - 1 ? 0 : i);
	memset(&lab, i == 3 ? 0xff : 0, sizeof(lab));
	if (i == 2 || i == 3)
		return;
	inl_tc_fill(lab.key, sizeof(lab.key));
	inl_tc_fill(lab.text, sizeof(lab.text));
}

__attribute__((noinline)) static void here_it_ends(void)
{
	__asm__ volatile("");
}

/* The call, from registers that know nothing of the secrets, nor of whose turn it is. */
__attribute__((noinline)) static void traced_call(void)
{
	__asm__ volatile("xor %%eax, %%eax; xor %%ebx, %%ebx; xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi;"
			 "xor %%edi, %%edi; xor %%r8d, %%r8d; xor %%r9d, %%r9d; xor %%r10d, %%r10d; xor %%r11d, %%r11d;"
			 "xor %%r12d, %%r12d; xor %%r13d, %%r13d; xor %%r14d, %%r14d; xor %%r15d, %%r15d; int3"
			 :
			 :
			 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
			   "cc", "memory");
	make(trace.impl, trace.key_size, trace.call);
	here_it_ends();
	__asm__ volatile(""); /* it was called: the registers of our caller come back afterwards */
}

static void child(void)
{
	static volatile unsigned turn; /* in no register, not even that of frames */

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(1);
	raise(SIGSTOP);
	for (turn = 0; turn < N_SECRETS; turn++) {
		set_secrets(turn);
		memset(&lab.keys, 0, sizeof(lab.keys));
		if (trace.call->len)
			trace.impl->init(trace.impl, &lab.keys, lab.key, trace.key_size);
		traced_call();
	}
	_exit(0);
}

/* Waits for the child to stop with this signal. */
static bool stops(pid_t pid, int sig)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == sig;
}

static struct step look(pid_t pid)
{
	struct user_regs_struct regs;
	struct step step = { 0, 1469598103934665603u };
	uint64_t words[sizeof(regs) / 8];

	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
		return step;
	regs.eflags &= 0x8d5; /* the results of arithmetic */
	memcpy(words, &regs, sizeof(regs));
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(words); i++) {
		step.registers = (step.registers ^ words[i]) * 1099511628211u;
		step.registers ^= step.registers >> 29;
	}
	step.at = regs.rip;
	return step;
}

/* The child has stopped before the call. Returns where the way, or a register, was not as with the first secrets; 0. */
static uint64_t follow(pid_t pid, bool is_first)
{
	static size_t n_first;
	uint64_t differs = 0;
	size_t n = 0;
	struct step step;

	for (step = look(pid); step.at != (uintptr_t)here_it_ends; step = look(pid)) {
		if (n == N_STEPS_MAX || ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || !stops(pid, SIGTRAP))
			fail_msg("lost after %zu steps", n);
		if (is_first)
			first_steps[n] = step;
		else if (!differs && (n >= n_first || step.at != first_steps[n].at ||
				      (trace.registers && step.registers != first_steps[n].registers)))
			differs = step.at;
		n++;
	}
	if (is_first)
		n_first = n;
	if (n < 20)
		fail_msg("only %zu steps", n);
	return differs ? differs : n == n_first ? 0 : step.at;
}

/* Under all secrets. Returns as follow; *repeats: the first secrets lead the same way twice. */
static uint64_t follow_all(pid_t pid, bool *repeats)
{
	uint64_t differs = 0, at = 0;

	for (unsigned i = 0; i < N_SECRETS; i++) {
		if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stops(pid, SIGTRAP))
			fail_msg("lost before secrets %u", i);
		at = follow(pid, i == 0);
		if (!differs && i < N_SECRETS - 1)
			differs = at;
	}
	*repeats = !at;
	return differs;
}

/* Returns 0, or where the secrets can be seen, as addr2line wants it. */
static uint64_t seen(const struct trace *what)
{
	uint64_t at;
	bool repeats;
	pid_t pid;

	trace = *what;
	fflush(stdout);
	pid = fork();
	if (!pid)
		child();
	assert_true(pid > 0);
	if (!stops(pid, SIGSTOP) || ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL))
		fail_msg("the child cannot be traced");
	at = follow_all(pid, &repeats);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (!repeats)
		fail_msg("%s: not the same way twice: nothing can be said", trace.call->name);
	return at ? at - (uintptr_t)__executable_start : 0;
}

/* Stealing moves text through all registers, in code that all share, which the other way to look has seen. */
static void steps_of(const struct inl_impl *impl)
{
	for (unsigned key_size = 32; key_size <= 64; key_size += 32)
		for (size_t c = 0; c < N_CALLS; c++) {
			const struct trace what = { impl, key_size, &calls[c], !calls[c].stealing };
			uint64_t at = seen(&what);

			if (at)
				fail_msg("%s, %u bytes of key: %s depends on secrets at %#lx", impl->name, key_size,
					 calls[c].name, (unsigned long)at);
		}
}

/* The portable code has secrets in all registers, and more steps than anybody wants to count. */
static void test_steps(void **state)
{
	unsigned n = 0;

	for (size_t i = 0; i < INL_TC_ARRAY_LEN(own); i++)
		if (runs_here(own[i]) && own[i] != &inl_xts_portable) {
			steps_of(own[i]);
			n++;
		}
	if (!n) {
		print_message("skipped: this CPU runs nothing but the portable code\n");
		skip();
	}
}

/* ---- what is stored on the way ----------------------------------------------------------------------------------- */

static uint8_t expected[TEXT];

/* Bytes that are neither what they were nor what they are to be. */
static size_t count_strange(const uint8_t *bytes, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += bytes[i] != 0xee && bytes[i] != expected[i];
	return n;
}

/* Looks at target, which is shared with the child, after every instruction of the call. */
static void watch(pid_t pid, size_t len)
{
	size_t n_strange = 0;
	struct step step;

	if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stops(pid, SIGTRAP))
		fail_msg("lost before the call");
	for (step = look(pid); !n_strange && step.at != (uintptr_t)here_it_ends; step = look(pid)) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || !stops(pid, SIGTRAP))
			fail_msg("lost in the call");
		n_strange = count_strange(target, len);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (n_strange)
		fail_msg("%s, %u bytes of key: %s stores what is not the result at %#lx", trace.impl->name, trace.key_size,
			 trace.call->name, (unsigned long)(step.at - (uintptr_t)__executable_start));
	if (memcmp(target, expected, len) != 0)
		fail_msg("%s: not the result", trace.impl->name);
}

static void watch_stores(const struct inl_impl *impl, unsigned key_size, const struct call *call, uint8_t *shared)
{
	size_t len = call->n * call->len;
	pid_t pid;

	trace = (struct trace){ impl, key_size, call, false };
	set_secrets(0);
	impl->init(impl, &lab.keys, lab.key, key_size);
	make(impl, key_size, call);
	memcpy(expected, lab.out, len);
	memset(shared, 0xee, len);
	target = shared;
	pid = fork();
	if (!pid)
		child();
	if (pid < 0 || !stops(pid, SIGSTOP) || ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL))
		fail_msg("the child cannot be traced");
	watch(pid, len);
	target = lab.out;
}

/* A cipher that never fails stores nothing in dst but the result: dst may be a medium. */
static void test_only_the_result_is_stored(void **state)
{
	uint8_t *shared = mmap(NULL, TEXT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(shared, MAP_FAILED);
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(own); i++)
		for (size_t c = 1; runs_here(own[i]) && c < N_CALLS; c++) {
			bool is_long = calls[c].len > 100;

			if (own[i] == &inl_xts_portable && is_long)
				continue;
			watch_stores(own[i], 64, &calls[c], shared);
			if (!is_long)
				watch_stores(own[i], 32, &calls[c], shared);
		}
	munmap(shared, TEXT);
}

/* ---- that steps are seen ----------------------------------------------------------------------------------------- */

static volatile uint8_t table[256];

static int no_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size)
{
	memcpy(state, key, key_size);
	return 0;
}

static int key_branch(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	if (*(uint8_t *)state & 1)
		__asm__ volatile("nop");
	return 0;
}

static int key_index(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return table[*(uint8_t *)state];
}

static int text_branch(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return memcmp(units->spans->src, "\xff\xff", 2) != 0 ? 1 : table[0];
}

static int text_index(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return table[units->spans->src[0]];
}

static int text_length(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	for (volatile unsigned i = 0; i < 5u + (units->spans->src[1] >> 7); i++)
		;
	return 0;
}

/* Moves the text and does what may be done to it. */
static int innocent(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	for (size_t i = 0; i < 64; i++)
		units->spans->dst[i] = units->spans->src[i] ^ *(uint8_t *)state;
	return 0;
}

static void test_steps_are_seen(void **state)
{
	const struct {
		int (*crypt)(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt);
		bool registers, seen;
	} plants[] = {
		{ key_branch, false, true },  { key_branch, true, true },  { key_index, true, true },
		{ text_branch, false, true }, { text_index, true, true },  { text_length, false, true },
		{ innocent, false, false },
	};

	for (size_t i = 0; i < INL_TC_ARRAY_LEN(plants); i++) {
		const struct inl_impl leaky = { .name = "leaky", .init = no_init, .crypt = plants[i].crypt };
		const struct trace what = { &leaky, 64, &calls[1], plants[i].registers };

		if (!seen(&what) == plants[i].seen)
			fail_msg("plant %zu: %s", i, plants[i].seen ? "not seen" : "seen, where nothing is");
	}
}

/* Nobody may trace in some containers, and under some emulators. */
static bool may_trace(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(1);
		raise(SIGSTOP);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return false;
	status = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || !stops(pid, SIGTRAP);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return !status;
}

static int steps(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps_are_seen),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_only_the_result_is_stored),
	};

	if (!is_plain_build())
		printf("1..0 # SKIP not where sanitizers add branches\n");
	else if (!may_trace())
		printf("1..0 # SKIP needs ptrace\n");
	else
		return cmocka_run_group_tests_name("steps", tests, NULL, NULL);
	return 0;
}
#else
static int steps(void)
{
	printf("1..0 # SKIP needs x86-64\n");
	return 0;
}
#endif

int main(int argc, char **argv)
{
	bool by_marks = argc == 2 && !strcmp(argv[1], "--marks");

	if (argc > 1 && !by_marks) {
		fprintf(stderr, "usage: test_constant_time [--marks]\n");
		return 2;
	}
	return by_marks ? marks() : steps();
}
