/*
 * tests/unit/test_base.c: the arena of secrets in fresh processes of every kind, diagnostics, checksums, endian types.
 * Not here: cryptography (test_crypto.c).
 * Read more: HACKING.md, "Tests"; tests/vectors/SOURCES.
 */
#include "base/cpu.h"
#include "base/crc_own.h"
#include "base/endian.h"
#include "base/secret.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) || \
	__has_feature(thread_sanitizer)
#define MLOCK_WORKS false /* these sanitizers make mlock(2) do nothing and report success */
#else
#define MLOCK_WORKS true
#endif

/* ---- what runs in a process of its own, because it dies or needs an arena of its own kind ------------------------ */

/* Children say what went wrong by their exit status: the line that failed, modulo 200, plus 1. */
#define EXPECT(cond)                               \
	do {                                       \
		if (!(cond))                       \
			_exit(__LINE__ % 200 + 1); \
	} while (0)

/* memfd_secret(2) fails from here on, as on an older kernel. Emulators know neither it nor filters. */
static void forbid_memfd_secret(void)
{
	int fd = (int)syscall(SYS_memfd_secret, 0);
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* number of the system call */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_secret, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(rules) / sizeof(rules[0]), rules };

	if (fd < 0)
		return;
	close(fd);
	EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* At most so many bytes of locked memory, also for root. */
static void limit_locked(rlim_t bytes)
{
	struct rlimit limit = { bytes, bytes };

	EXPECT(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (geteuid() == 0)
		EXPECT(setresuid(65534, 65534, 65534) == 0);
}

/* Is there a limit on locked memory (not ours) that leaves no room for an arena? */
static bool too_little_lockable(void)
{
	struct rlimit limit;

	EXPECT(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	return geteuid() != 0 && limit.rlim_cur < 5 << 20;
}

/* Does the mapping that holds p have this flag? (proc(5), smaps, VmFlags) */
static bool has_vm_flag(const void *p, const char *flag)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool inside = false, found = false;
	char line[512];

	EXPECT(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)p && (uintptr_t)p < end;
		if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag);
	}
	fclose(smaps);
	return found;
}

/* Does madvise(2) do what it says? qemu-user swallows most of it and reports success. */
static bool advice_counts(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool counts;

	EXPECT(p != MAP_FAILED && madvise(p, page, MADV_DONTFORK) == 0);
	counts = has_vm_flag(p, " dc");
	munmap(p, page);
	return counts;
}

/* Neither copied to children nor written into a core, unless nothing can be kept out of them here. */
static bool is_kept_back(const void *p)
{
	return (has_vm_flag(p, " dd") && has_vm_flag(p, " dc")) || !advice_counts();
}

/* Fill the arena with pieces; the lowest and the highest are returned. */
static size_t fill(size_t len, uint8_t **lowest, uint8_t **highest)
{
	size_t n = 0;
	uint8_t *p;

	*lowest = *highest = NULL;
	for (; (p = inl_secret_alloc(len)); n++) {
		if (!*lowest || p < *lowest)
			*lowest = p;
		if (p > *highest)
			*highest = p;
	}
	return n;
}

static void child_full(void)
{
	uint8_t *low, *high;
	size_t n = fill(64, &low, &high);

	EXPECT(n >= 8192);
	EXPECT(high - low == (ptrdiff_t)(n - 1) * 64);
	EXPECT(!inl_secret_alloc(1));
	inl_secret_free(low + 64 * 100);
	inl_secret_free(low + 64 * 102);
	EXPECT(!inl_secret_alloc(65)); /* two granules are free, but not in a row */
	inl_secret_free(low + 64 * 101);
	EXPECT(inl_secret_alloc(65 + 64) == low + 64 * 100);
	EXPECT(!inl_secret_alloc(1));
}

static void child_whole(void)
{
	uint8_t *low, *high, *all;
	size_t n = fill(64, &low, &high);

	for (size_t i = 0; i < n; i++)
		inl_secret_free(low + 64 * i);
	all = inl_secret_alloc(64 * n);
	EXPECT(all == low);
	EXPECT(!inl_secret_alloc(1));
	inl_secret_free(all);
	EXPECT(!inl_secret_alloc(64 * n + 1));
	EXPECT(!inl_secret_alloc(SIZE_MAX));
}

/* Where n free granules in a row begin first, looked for one by one. */
static size_t first_fit(const bool *used, size_t n_granules, size_t n)
{
	for (size_t at = 0, run = 0; at < n_granules; at++) {
		run = used[at] ? 0 : run + 1;
		if (run == n)
			return at + 1 - n;
	}
	return n_granules;
}

/* An allocation goes where there is room first, short or long, in an arena full of holes. */
static void child_first_fit(void)
{
	static struct {
		size_t at, n; /* granules */
	} live[300], *one;
	static bool used[1 << 16];
	uint8_t *low, *high;
	size_t n_granules = fill(64, &low, &high);
	unsigned seed = 3;

	for (size_t i = 0; i < n_granules; i++)
		inl_secret_free(low + 64 * i);
	for (int round = 0; round < 10000; round++) {
		one = &live[rand_r(&seed) % 300];
		if (one->n) {
			inl_secret_free(low + 64 * one->at);
			memset(used + one->at, false, one->n);
			one->n = 0;
			continue;
		}
		one->n = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 ? 20 : 90) + 1;
		one->at = first_fit(used, n_granules, one->n);
		EXPECT(inl_secret_alloc(64 * one->n) == low + 64 * one->at);
		memset(used + one->at, true, one->n);
	}
}

static void child_guard_below(void)
{
	uint8_t *low, *high;

	fill(64, &low, &high);
	low[0] = 1;
	*(volatile uint8_t *)(low - 1) = 1;
}

static void child_guard_above(void)
{
	uint8_t *low, *high;

	fill(64, &low, &high);
	high[63] = 1;
	*(volatile uint8_t *)(high + 64) = 1;
}

static void child_double_free(void)
{
	uint8_t *p = inl_secret_alloc(100);

	inl_secret_free(p);
	inl_secret_free(p);
}

static void child_free_inside(void)
{
	inl_secret_free((uint8_t *)inl_secret_alloc(200) + 64);
}

static void child_free_foreign(void)
{
	static uint8_t foreign[64];

	inl_secret_free(inl_secret_alloc(1));
	inl_secret_free(foreign);
}

static void child_fork(void)
{
	volatile uint8_t *p = inl_secret_alloc(32);
	pid_t pid;
	int status;

	p[0] = 42;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0);
		_exit(p[0] == 42 ? 1 : 2); /* must not get that far */
	}
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	EXPECT(p[0] == 42);
}

static void child_hidden(void)
{
	uint8_t *p = inl_secret_alloc(1);
	int fd = (int)syscall(SYS_memfd_secret, 0);

	if (fd < 0 || too_little_lockable())
		_exit(0); /* not to be had here: then there is nothing to expect */
	EXPECT(inl_secret_level() == INL_SECRET_HIDDEN);
	EXPECT(is_kept_back(p) && has_vm_flag(p, " lo"));
}

static void child_locked(void)
{
	uint8_t *p;

	forbid_memfd_secret();
	p = inl_secret_alloc(1);
	EXPECT(p);
	if (too_little_lockable())
		_exit(0);
	EXPECT(inl_secret_level() == INL_SECRET_LOCKED);
	EXPECT(is_kept_back(p) && has_vm_flag(p, " lo"));
}

static void child_plain(void)
{
	uint8_t *p, *low, *high;

	limit_locked(64 * 1024);
	p = inl_secret_alloc(1);
	EXPECT(p && inl_secret_level() == INL_SECRET_PLAIN);
	EXPECT(is_kept_back(p));
	EXPECT(has_vm_flag(p, " lo")); /* the beginning, which is used first, is locked all the same */
	EXPECT(fill(64, &low, &high) >= 8191);
	EXPECT(!has_vm_flag(high, " lo"));
	*high = 1;
}

static void child_not_lockable(void)
{
	uint8_t *p;

	limit_locked(0);
	p = inl_secret_alloc(1);
	EXPECT(p && inl_secret_level() == INL_SECRET_PLAIN && !has_vm_flag(p, " lo") && is_kept_back(p));
}

static const struct child {
	const char *name;
	void (*run)(void);
	int signal; /* it must die of; 0: it must end well */
	bool needs_mlock;
} children[] = {
	{ "full", child_full, 0 },
	{ "whole", child_whole, 0 },
	{ "first-fit", child_first_fit, 0 },
	{ "guard-below", child_guard_below, SIGSEGV },
	{ "guard-above", child_guard_above, SIGSEGV },
	{ "double-free", child_double_free, SIGABRT },
	{ "free-inside", child_free_inside, SIGABRT },
	{ "free-foreign", child_free_foreign, SIGABRT },
	{ "hidden", child_hidden, 0 },
	{ "locked", child_locked, 0, true },
	{ "plain", child_plain, 0, true },
	{ "not-lockable", child_not_lockable, 0, true },
};

/* Sanitizers, and cmocka, turn a signal into their report; here it is the expected end. */
static void be_child(const struct child *child)
{
	prctl(PR_SET_DUMPABLE, 1);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	signal(SIGSEGV, SIG_DFL);
	signal(SIGABRT, SIG_DFL);
	child->run();
	_exit(0);
}

/*
 * A child makes an arena of its own as long as this process has none: these tests come first. (To execute the program
 * again would do, too, but an emulator executes what the real CPU understands.)
 */
static void run_child(const struct child *child)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		be_child(child);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (child->signal ? !WIFSIGNALED(status) || WTERMSIG(status) != child->signal : status != 0)
		fail_msg("%s: status 0x%x", child->name, (unsigned)status);
}

static void test_in_fresh_processes(void **state)
{
	for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++)
		if (!children[i].needs_mlock || MLOCK_WORKS)
			run_child(&children[i]);
}

static void test_fork(void **state)
{
	static const struct child child = { "fork", child_fork, 0, false };

	if (!advice_counts()) {
		print_message("skipped: madvise(2) changes nothing here\n");
		skip();
	}
	run_child(&child);
}

/* ---- secrets ----------------------------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, size_t len)
{
	while (len--)
		if (*p++)
			return false;
	return true;
}

static void test_secret_alloc(void **state)
{
	for (size_t len = 0; len < 1000; len += 37) {
		uint8_t *p = inl_secret_alloc(len);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 64, 0);
		assert_true(all_zero(p, len));
		memset(p, 0xa5, len);
		inl_secret_free(p);
		assert_true(all_zero(p, len)); /* the arena stays mapped */
	}
	inl_secret_free(NULL);
}

/* Allocations do not overlap, whatever the order of frees: each keeps its own pattern. */
static void test_secret_churn(void **state)
{
	struct {
		uint8_t *p;
		size_t len;
		uint8_t fill;
	} live[100] = { 0 };
	unsigned seed = 1;

	for (int round = 0; round < 20000; round++) {
		size_t i = (size_t)rand_r(&seed) % 100;

		if (live[i].p) {
			for (size_t k = 0; k < live[i].len; k++)
				assert_int_equal(live[i].p[k], live[i].fill);
			inl_secret_free(live[i].p);
			live[i].p = NULL;
			continue;
		}
		live[i].len = (size_t)rand_r(&seed) % 5000;
		live[i].fill = (uint8_t)(round % 255 + 1);
		live[i].p = inl_secret_alloc(live[i].len);
		assert_non_null(live[i].p);
		assert_true(all_zero(live[i].p, live[i].len));
		memset(live[i].p, live[i].fill, live[i].len);
	}
	for (size_t i = 0; i < 100; i++)
		inl_secret_free(live[i].p);
}

static void *churn_thread(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	bool ok = true;

	for (int round = 0; round < 5000; round++) {
		size_t len = (size_t)rand_r(&seed) % 300 + 1;
		uint8_t *p = inl_secret_alloc(len);

		ok &= p && all_zero(p, len);
		memset(p, (int)(uintptr_t)arg, len);
		ok &= p[0] == (uint8_t)(uintptr_t)arg && p[len - 1] == (uint8_t)(uintptr_t)arg;
		inl_secret_free(p);
	}
	return ok ? arg : NULL;
}

static void test_secret_threads(void **state)
{
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, churn_thread, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < 4; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_ptr_equal(result, (void *)(i + 1));
	}
}

static void test_wipe(void **state)
{
	uint8_t bytes[40], from[16] = "secret", to[16];

	memset(bytes, 0xff, sizeof(bytes));
	inl_wipe(bytes + 4, 32);
	assert_true(all_zero(bytes + 4, 32));
	assert_int_equal(bytes[3], 0xff);
	assert_int_equal(bytes[36], 0xff);
	inl_wipe(NULL, 0);
	inl_secret_move(to, from, 16);
	assert_string_equal((char *)to, "secret");
	assert_true(all_zero(from, 16));
}

/* The guard wipes when its scope ends: seen here on an array that outlives the guard. */
static void test_scope(void **state)
{
	uint8_t outer[64];
	INL_SECRET_ARRAY(bytes, 40);

	assert_ptr_equal(bytes_scope.bytes, bytes);
	assert_int_equal(bytes_scope.len, 40);
	memset(outer, 0x77, sizeof(outer));
	{
		struct inl_secret_scope scope __attribute__((cleanup(inl_secret_scope_end))) = { outer, sizeof(outer) };

		assert_int_equal(scope.len, 64);
	}
	assert_true(all_zero(outer, 64));
}

static void test_equal_ct(void **state)
{
	uint8_t a[33], b[33];

	for (size_t i = 0; i < 33; i++)
		a[i] = b[i] = (uint8_t)(i * 7);
	assert_true(inl_equal_ct(a, b, 33));
	assert_true(inl_equal_ct(a, b, 0));
	for (size_t i = 0; i < 33 * 8; i++) {
		b[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_false(inl_equal_ct(a, b, 33));
		b[i / 8] = a[i / 8];
	}
	b[32] ^= 1;
	assert_true(inl_equal_ct(a, b, 32));
}

/* ---- diagnostics, version ---------------------------------------------------------------------------------------- */

static void test_diag(void **state)
{
	struct inl_diag diag = { 0 };
	char huge[2000];

	assert_int_equal(inl_diag_set(NULL, -ENOKEY, "lost"), -ENOKEY);
	assert_int_equal(inl_diag_set(&diag, -EINVAL, "block %d of %s", 7, "a\nb\033[2J\x7f"), -EINVAL);
	assert_string_equal(diag.text, "block 7 of a?b?[2J?");
	assert_int_equal(diag.err, -EINVAL);
	assert_int_equal(inl_diag_set(&diag, -EIO, "later"), -EIO);
	assert_string_equal(diag.text, "block 7 of a?b?[2J?");
	assert_int_equal(diag.err, -EINVAL);

	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	diag = (struct inl_diag){ 0 };
	inl_diag_set(&diag, -EIO, "%s", huge);
	assert_int_equal(strlen(diag.text), sizeof(diag.text) - 1);
}

static void test_version(void **state)
{
	int major, minor, patch, end = 0;

	assert_int_equal(sscanf(inl_version(), "%d.%d.%d%n", &major, &minor, &patch, &end), 3);
	assert_int_equal(inl_version()[end], '\0');
	assert_true(major + minor + patch > 0);
}

/* ---- checksums --------------------------------------------------------------------------------------------------- */

/* The read command of RFC 3720, B.4. */
static const uint8_t iscsi_read[48] = {
	0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
	0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
};

static void check_crc32c_known(const struct inl_crc32c_impl *impl)
{
	uint8_t zeros[32] = { 0 }, ones[32], up[32], down[32];

	memset(ones, 0xff, sizeof(ones));
	for (int i = 0; i < 32; i++) {
		up[i] = (uint8_t)i;
		down[i] = (uint8_t)(31 - i);
	}
	assert_int_equal(~impl->update(~0u, zeros, 32), 0x8a9136aa);
	assert_int_equal(~impl->update(~0u, ones, 32), 0x62a8ab43);
	assert_int_equal(~impl->update(~0u, up, 32), 0x46dd794e);
	assert_int_equal(~impl->update(~0u, down, 32), 0x113fdb5c);
	assert_int_equal(~impl->update(~0u, iscsi_read, 48), 0xd9963a56);
	assert_int_equal(~impl->update(~0u, (const uint8_t *)"123456789", 9), 0xe3069283);
	assert_int_equal(impl->update(0x12345678, zeros, 0), 0x12345678);
}

/* Bit by bit from the definition of the polynomial: slow and obvious. */
static uint32_t slow_crc(uint32_t poly, uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc & 1 ? crc >> 1 ^ poly : crc >> 1;
	}
	return crc;
}

#define CRC_ROOM (1 << 20)  /* bytes between two guard pages */
#define CRC_LENS 4400	    /* every length below: more than a block of 4 KiB, and than three full streams */
#define CRC_SEED 0x9e3779b9 /* the sum that went before; any number */

static bool is_quick; /* fewer alignments of checksums: the CPU is an emulated one */

struct crc_rig {
	uint8_t *bytes;		/* CRC_ROOM of them, random; nothing may be read before or behind */
	uint32_t *slow;		/* of those from crc_prepare()'s at on, the sum of the first len */
};

static void crc_rig_init(struct crc_rig *rig)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *map = mmap(NULL, CRC_ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned seed = 3;

	assert_ptr_not_equal(map, MAP_FAILED);
	rig->bytes = map + page;
	assert_return_code(mprotect(rig->bytes, CRC_ROOM, PROT_READ | PROT_WRITE), errno);
	for (size_t i = 0; i < CRC_ROOM; i++)
		rig->bytes[i] = (uint8_t)(rand_r(&seed) >> 8);
	rig->slow = malloc((CRC_ROOM + 1) * sizeof(*rig->slow));
	assert_non_null(rig->slow);
}

static void crc_rig_done(struct crc_rig *rig)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	munmap(rig->bytes - page, CRC_ROOM + 2 * page);
	free(rig->slow);
}

static void crc_prepare(struct crc_rig *rig, size_t at, size_t len)
{
	rig->slow[0] = CRC_SEED;
	for (size_t i = 0; i < len; i++)
		rig->slow[i + 1] = slow_crc(0x82f63b78, rig->slow[i], rig->bytes + at + i, 1);
}

/* The implementations of this CPU, by number; NULL: no more. */
static const struct inl_crc32c_impl *crc32c_impl(unsigned i)
{
	for (const struct inl_crc32c_impl *const *impl = inl_crc32c_impls; *impl; impl++)
		if (!((*impl)->needs & ~inl_cpu_features()) && i-- == 0)
			return *impl;
	return NULL;
}

/* Every length at every alignment (a few of each kind, when quick), behind the first guard page. */
static void check_crc32c_lengths(struct crc_rig *rig)
{
	const struct inl_crc32c_impl *impl;

	for (size_t at = 0; at < 64; at += is_quick ? 9 : 1) {
		crc_prepare(rig, at, CRC_LENS);
		for (unsigned i = 0; (impl = crc32c_impl(i)); i++)
			for (size_t len = 0; len <= CRC_LENS; len++)
				assert_int_equal(impl->update(CRC_SEED, rig->bytes + at, len), rig->slow[len]);
	}
}

/* Every length up to the last guard page. */
static void check_crc32c_ends(const struct crc_rig *rig)
{
	const struct inl_crc32c_impl *impl;

	for (size_t len = 0; len <= CRC_LENS; len++) {
		const uint8_t *data = rig->bytes + CRC_ROOM - len;
		uint32_t slow = slow_crc(0x82f63b78, CRC_SEED, data, len);

		for (unsigned i = 0; (impl = crc32c_impl(i)); i++)
			assert_int_equal(impl->update(CRC_SEED, data, len), slow);
	}
}

/* Long ones, around powers of two and many times three full streams. */
static void check_crc32c_long(struct crc_rig *rig)
{
	const size_t streams = 3 * 8 * INL_CRC32C_SHIFTS;
	const struct inl_crc32c_impl *impl;

	crc_prepare(rig, 0, CRC_ROOM);
	for (unsigned i = 0; (impl = crc32c_impl(i)); i++) {
		for (size_t len = 8192; len <= CRC_ROOM; len *= 2)
			for (size_t less = 0; less < 300; less += 23)
				assert_int_equal(impl->update(CRC_SEED, rig->bytes, len - less), rig->slow[len - less]);
		for (size_t len = streams; len < 20 * streams; len += streams)
			for (size_t more = 0; more < 30; more++)
				assert_int_equal(impl->update(CRC_SEED, rig->bytes, len + more), rig->slow[len + more]);
	}
}

/* A piece after the other is the same as all at once. Uses what check_crc32c_long() prepared. */
static void check_crc32c_pieces(const struct crc_rig *rig)
{
	const struct inl_crc32c_impl *impl;
	unsigned seed = 5;

	for (unsigned i = 0; (impl = crc32c_impl(i)); i++)
		for (int turn = 0; turn < 200; turn++) {
			size_t longest = (size_t)1 << rand_r(&seed) % 15, at = 0, len;
			uint32_t crc = CRC_SEED;

			for (int piece = 0; piece < 40; piece++, at += len) {
				len = (unsigned)rand_r(&seed) % (longest + 1);
				crc = impl->update(crc, rig->bytes + at, len);
				assert_int_equal(crc, rig->slow[at + len]);
			}
		}
}

static void test_crc32c(void **state)
{
	const struct inl_crc32c_impl *impl;
	struct crc_rig rig;
	unsigned n_run = 0;

	for (; (impl = crc32c_impl(n_run)); n_run++)
		check_crc32c_known(impl);
	assert_true(n_run >= 1);
	crc_rig_init(&rig);
	check_crc32c_lengths(&rig);
	check_crc32c_ends(&rig);
	check_crc32c_long(&rig);
	check_crc32c_pieces(&rig);
	crc_rig_done(&rig);
	assert_int_equal(~inl_crc32c(~0u, "123456789", 9), 0xe3069283);
}

/* x^(64n - 33) modulo the polynomial of RFC 3720, 12.1, bits not reflected, by so many multiplications by x. */
static void test_crc32c_shift(void **state)
{
	uint32_t power = 1;
	int exponent = 0;

	for (int n = 1; n <= INL_CRC32C_SHIFTS; n++) {
		uint32_t reflected = 0;

		for (; exponent < 64 * n - 33; exponent++)
			power = power << 1 ^ (power >> 31 ? 0x1edc6f41 : 0);
		for (int bit = 0; bit < 32; bit++)
			reflected |= (power >> bit & 1) << (31 - bit);
		assert_int_equal(inl_crc32c_shift[n - 1], reflected);
	}
}

static void test_crc32(void **state)
{
	uint8_t bytes[300];
	unsigned seed = 4;

	assert_int_equal(inl_crc32("123456789", 9), 0xcbf43926);
	assert_int_equal(inl_crc32("", 0), 0);
	for (size_t k = 0; k < sizeof(bytes); k++)
		bytes[k] = (uint8_t)rand_r(&seed);
	for (size_t len = 0; len < 280; len++)
		assert_int_equal(inl_crc32(bytes + len % 16, len), ~slow_crc(0xedb88320, ~0u, bytes + len % 16, len));
}

/* ---- endian types ------------------------------------------------------------------------------------------------ */

static void test_endian(void **state)
{
	static const uint8_t bytes[9] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };
	uint8_t out[9];
	struct le32 le;
	struct be64 be;

	memcpy(le.b, bytes + 1, 4);
	memcpy(be.b, bytes + 1, 8);
	assert_int_equal(inl_le32(le), 0x04030201);
	assert_true(inl_be64(be) == 0x0102030405060708);
	assert_int_equal(inl_load_le16(bytes + 1), 0x0201);
	assert_int_equal(inl_load_be16(bytes + 1), 0x0102);
	assert_int_equal(inl_load_be32(bytes + 1), 0x01020304);
	assert_true(inl_load_le64(bytes + 1) == 0x0807060504030201);
	inl_store_le64(out + 1, 0x0807060504030201);
	assert_memory_equal(out + 1, bytes + 1, 8);
	inl_store_be32(out + 1, 0x01020304);
	assert_memory_equal(out + 1, bytes + 1, 4);
	assert_memory_equal(inl_to_be64(0x0102030405060708).b, bytes + 1, 8);
	assert_memory_equal(inl_to_le16(0x0201).b, bytes + 1, 2);
	assert_int_equal(_Alignof(struct le64), 1);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		int err, size_err;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0, 0 },
		{ "007", 0, 0, 7 },
		{ "18446744073709551615", 0, 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, -ERANGE, 1 },
		{ "99999999999999999999x", -EINVAL, -ERANGE, 1 },
		{ "", -EINVAL, -EINVAL, 1 },
		{ "-1", -EINVAL, -EINVAL, 1 },
		{ "+1", -EINVAL, -EINVAL, 1 },
		{ " 1", -EINVAL, -EINVAL, 1 },
		{ "1 ", -EINVAL, -EINVAL, 1 },
		{ "0x10", -EINVAL, -EINVAL, 1 },
		{ "1.5", -EINVAL, -EINVAL, 1 },
	};
	uint64_t value = 1;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t number = 1, size = 1;

		assert_int_equal(inl_number_parse(rows[i].text, strlen(rows[i].text), &number), rows[i].err);
		assert_int_equal(inl_size_parse(rows[i].text, strlen(rows[i].text), &size), rows[i].size_err);
		assert_int_equal(number, rows[i].value); /* untouched on failure */
		assert_int_equal(size, rows[i].value);
	}
	/* A suffix is a size's, and nothing behind len is looked at. */
	assert_int_equal(inl_number_parse("4K", 2, &value), -EINVAL);
	assert_int_equal(inl_number_parse("4K", 1, &value), 0);
	assert_int_equal(value, 4);
	assert_int_equal(inl_size_parse("4K", 2, &value), 0);
	assert_int_equal(value, 4096);
}

/* Whether the kernel lists a feature of the first CPU. */
static bool kernel_lists(const char *word)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	size_t room = 0, len = strlen(word);
	char *line = NULL;
	bool found = false;

	assert_non_null(f);
	while (!found && getline(&line, &room, f) > 0) {
		if (strncmp(line, "flags", 5) && strncmp(line, "Features", 8))
			continue;
		for (const char *at = line; !found && (at = strstr(at, word)); at += len)
			found = at[-1] == ' ' && (at[len] == ' ' || at[len] == '\n');
		break;
	}
	free(line);
	fclose(f);
	return found;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* A CPU that qemu makes for one process: /proc/cpuinfo describes the real one. */
static bool is_emulated(void)
{
	unsigned highest, sign[3];

	__cpuid(0x40000000, highest, sign[0], sign[1], sign[2]);
	return memcmp(sign, "TCGTCGTCGTCG", 12) == 0;
}

static void test_cpu(void **state)
{
	static const char *const words[][4] = {
		{ "sse4_2" }, { "aes" }, { "pclmulqdq" }, { "avx2" }, { "vaes", "vpclmulqdq" },
		{ "avx512f", "avx512bw", "avx512dq", "avx512vl" },
	};

	if (is_emulated()) {
		print_message("skipped: the kernel does not know this emulated CPU\n");
		skip();
	}
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		bool all = true;

		for (unsigned k = 0; k < 4 && words[i][k]; k++)
			all = all && kernel_lists(words[i][k]);
		assert_int_equal(!!(inl_cpu_features() & 1u << i), all);
	}
}
#else
static void test_cpu(void **state)
{
	static const char *const words[] = { "aes", "pmull", "crc32" };

	if (!kernel_lists("fp")) {
		print_message("skipped: the kernel does not know this CPU, an emulated one\n");
		skip();
	}
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		assert_int_equal(!!(inl_cpu_features() & INL_CPU_ARM_AES << i), kernel_lists(words[i]));
}
#endif

static void test_cpu_names(void **state)
{
	assert_string_equal(inl_cpu_feature_name(INL_CPU_VAES), "vaes");
	assert_string_equal(inl_cpu_feature_name(INL_CPU_ARM_CRC32), "crc32");
	assert_null(inl_cpu_feature_name(0));
	assert_null(inl_cpu_feature_name(1u << 30));
	assert_null(inl_cpu_feature_name(INL_CPU_VAES | INL_CPU_AVX2));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_fresh_processes),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_secret_alloc),
		cmocka_unit_test(test_secret_churn),
		cmocka_unit_test(test_secret_threads),
		cmocka_unit_test(test_wipe),
		cmocka_unit_test(test_scope),
		cmocka_unit_test(test_equal_ct),
		cmocka_unit_test(test_diag),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_cpu),
		cmocka_unit_test(test_cpu_names),
		cmocka_unit_test(test_crc32c),
		cmocka_unit_test(test_crc32c_shift),
		cmocka_unit_test(test_crc32),
		cmocka_unit_test(test_endian),
		cmocka_unit_test(test_numbers),
	};

	is_quick = argc == 2 && strcmp(argv[1], "--quick") == 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
