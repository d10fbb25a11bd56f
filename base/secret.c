/*
 * base/secret.c: the arena of secret memory, wiping, comparison in constant time.
 * Not here: who owns which secret and when it dies (each type's destructor).
 * Read more: ARCHITECTURE.md, "Errors, memory, secrets"; memfd_secret(2), mlock(2), madvise(2).
 *
 * One mapping of fixed size between two guard pages, cut into granules of 64 bytes. A bitmap says which are in use,
 * and the length of each allocation is kept beside it, both outside the arena: a stray write into secrets cannot
 * damage them. Free memory in the arena is always zero.
 *
 * A fork does not take the arena along (MADV_DONTFORK): a child that touches a secret dies. The alternative, zeros in
 * the child, would let it go on and encrypt under a key of zeros.
 */
#include <assert.h>
#include <fcntl.h>
#include <inlay/base.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA_SIZE ((size_t)4 << 20) /* some 8,000 schedules of AES-256-XTS */
#define ARENA_LESS ((size_t)1 << 20) /* where more cannot be hidden (RLIMIT_MEMLOCK) */
#define GRANULE	   ((size_t)64)
#define N_GRANULES (ARENA_SIZE / GRANULE)
#define N_WORDS	   (N_GRANULES / 64)
#define N_HINTS	   ((size_t)16) /* lengths, in granules: keys and schedules have fewer */

/* Number of the system call, for C libraries that do not know it yet. It is the same on all architectures. */
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

static struct {
	pthread_once_t once;
	uint8_t *base;		     /* set once; NULL: there is no arena */
	size_t n_granules;	     /* set once */
	enum inl_secret_level level; /* set once */
	pthread_mutex_t lock;	     /* for what follows */
	uint64_t used[N_WORDS];	     /* bit i: granule i is in use */
	uint32_t run[N_GRANULES];    /* granules of the allocation that begins here; 0: none does */
	size_t hint[N_HINTS];	     /* no i + 1 free granules in a row begin before this word; the last: nor more */
} arena = { .once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER };

static_assert(ARENA_LESS <= ARENA_SIZE && ARENA_SIZE % (64 * GRANULE) == 0, "the bitmap covers the arena");

/* ---- the mapping ------------------------------------------------------------------------------------------------- */

static bool map_hidden(uint8_t *at, size_t len)
{
	int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
	bool ok = false;

	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)len) == 0)
		ok = mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at;
	close(fd);
	return ok;
}

/* Address space for len bytes with a guard page at both ends; NULL: there is none. */
static uint8_t *reserve(size_t guard, size_t len)
{
	uint8_t *all = mmap(NULL, guard + len + guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return all == MAP_FAILED ? NULL : all;
}

/* Lock all of it, or as long a beginning as the limit allows: allocations fill the arena from its beginning. */
static enum inl_secret_level lock_pages(uint8_t *base)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	for (size_t len = ARENA_SIZE; len >= page; len /= 2)
		if (mlock(base, len) == 0)
			return len == ARENA_SIZE ? INL_SECRET_LOCKED : INL_SECRET_PLAIN;
	return INL_SECRET_PLAIN;
}

/* Address space with hidden memory in it; NULL: not so much. */
static uint8_t *reserve_hidden(size_t guard, size_t len)
{
	uint8_t *all = reserve(guard, len);

	if (!all || map_hidden(all + guard, len))
		return all;
	/* The failed mapping may have left a hole, which another thread may have filled: only the guards are ours for sure. */
	munmap(all, guard);
	munmap(all + guard + len, guard);
	return NULL;
}

static void arena_init(void)
{
	size_t guard = (size_t)sysconf(_SC_PAGESIZE), len = ARENA_SIZE;
	uint8_t *all = reserve_hidden(guard, len);

	if (!all) {
		len = ARENA_LESS;
		all = reserve_hidden(guard, len);
	}
	if (all) {
		arena.level = INL_SECRET_HIDDEN;
	} else {
		len = ARENA_SIZE;
		all = reserve(guard, len);
		if (!all || mprotect(all + guard, len, PROT_READ | PROT_WRITE))
			return;
		arena.level = lock_pages(all + guard);
	}
	arena.n_granules = len / GRANULE;
	madvise(all + guard, len, MADV_DONTDUMP);
	if (madvise(all + guard, len, MADV_DONTFORK) == 0)
		arena.base = all + guard;
}

/* ---- granules ---------------------------------------------------------------------------------------------------- */

static void mark(size_t first, size_t n, bool in_use)
{
	while (n) {
		size_t here = 64 - first % 64 < n ? 64 - first % 64 : n;
		uint64_t bits = UINT64_MAX >> (64 - here) << first % 64;

		if (in_use)
			arena.used[first / 64] |= bits;
		else
			arena.used[first / 64] &= ~bits;
		first += here;
		n -= here;
	}
}

/* The first granule from `at` on that is in use, or is free; end if there is none before that. */
static size_t next(size_t at, bool in_use, size_t end)
{
	while (at < end) {
		uint64_t word = (in_use ? arena.used[at / 64] : ~arena.used[at / 64]) >> at % 64;

		if (word) {
			at += (size_t)__builtin_ctzll(word);
			break;
		}
		at += 64 - at % 64;
	}
	return at < end ? at : end;
}

/* The first n free granules in a row; n_granules if there are none. */
static size_t find_free(size_t n)
{
	size_t *hint = &arena.hint[n < N_HINTS ? n - 1 : N_HINTS - 1];
	size_t first = next(*hint * 64, false, arena.n_granules);

	while (first + n <= arena.n_granules) {
		size_t end = next(first, true, first + n);

		if (end == first + n) {
			if (n <= N_HINTS)
				*hint = first / 64;
			return first;
		}
		first = next(end, false, arena.n_granules);
	}
	return arena.n_granules;
}

/* What is free now may have become part of a run that begins before it. */
static void lower_hints(size_t first)
{
	for (size_t i = 0; i < N_HINTS; i++) {
		size_t word = (first > i ? first - i : 0) / 64;

		if (word < arena.hint[i])
			arena.hint[i] = word;
	}
}

void *inl_secret_alloc(size_t len)
{
	size_t n = len / GRANULE + (len % GRANULE != 0), first;

	pthread_once(&arena.once, arena_init);
	if (!arena.base || n > arena.n_granules)
		return NULL;
	if (n == 0)
		n = 1;
	pthread_mutex_lock(&arena.lock);
	first = find_free(n);
	if (first < arena.n_granules) {
		mark(first, n, true);
		arena.run[first] = (uint32_t)n;
	}
	pthread_mutex_unlock(&arena.lock);
	return first < arena.n_granules ? arena.base + first * GRANULE : NULL;
}

void inl_secret_free(void *secret)
{
	size_t offset = (size_t)((uintptr_t)secret - (uintptr_t)arena.base), first = offset / GRANULE, n;

	if (!secret)
		return;
	/* Freed twice, or never allocated: memory is no longer what the program believes it to be. */
	if (!arena.base || first >= arena.n_granules || offset % GRANULE)
		abort();
	pthread_mutex_lock(&arena.lock);
	n = arena.run[first];
	if (n == 0)
		abort();
	inl_wipe(secret, n * GRANULE);
	arena.run[first] = 0;
	mark(first, n, false);
	lower_hints(first);
	pthread_mutex_unlock(&arena.lock);
}

enum inl_secret_level inl_secret_level(void)
{
	pthread_once(&arena.once, arena_init);
	return arena.level;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

void inl_wipe(void *bytes, size_t len)
{
	if (len)
		explicit_bzero(bytes, len);
}

bool inl_equal_ct(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;
	unsigned diff = 0;

	for (size_t i = 0; i < len; i++) {
		diff |= x[i] ^ y[i];
		__asm__ volatile("" : "+r"(diff)); /* the compiler must not see that it could stop early */
	}
	return diff == 0;
}
