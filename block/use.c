/*
 * block/use.c: uses of keys: their memory, their handles, holding one and waiting until nobody does.
 * Not here: what starting and ending a use means for a device (key.c).
 * Read more: inlay/block.h, "keys".
 *
 * What callers have is a handle: the number of a place in a table and the generation of what is there. So a context whose key
 * was evicted is refused with certainty, and the use that took its place or its address is never taken for it. The
 * table grows and never shrinks; looking up takes no lock.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>

#define INDEX_BITS 24
#define CHUNK	   256u
#define N_CHUNKS   ((1u << INDEX_BITS) / CHUNK)
#define GEN_BITS   (sizeof(uintptr_t) > 4 ? 32 : 8 * sizeof(uintptr_t) - INDEX_BITS)
#define GEN_MASK   ((UINT64_C(1) << GEN_BITS) - 1)

/* inl_use.busy: the generation, a bit, the number of bios under way. */
#define GEN_SHIFT 32
#define EVICTING  UINT64_C(0x80000000)
#define COUNT	  UINT64_C(0x7fffffff)

static struct {
	pthread_mutex_t lock;
	unsigned n_uses;      /* lock; in the chunks there are */
	struct inl_use *free; /* lock */
	struct inl_use *_Atomic chunks[N_CHUNKS];
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- places ------------------------------------------------------------------------------------------------------ */

/* Those that are free count as being evicted, so that nobody can hold them. */
static bool add_chunk(void)
{
	unsigned first = table.n_uses;
	struct inl_use *chunk = first / CHUNK < N_CHUNKS ? calloc(CHUNK, sizeof(*chunk)) : NULL;

	if (!chunk)
		return false;
	for (unsigned i = CHUNK; i--;) {
		chunk[i].index = first + i;
		atomic_init(&chunk[i].busy, UINT64_C(1) << GEN_SHIFT | EVICTING);
		chunk[i].next_free = table.free;
		table.free = &chunk[i];
	}
	table.n_uses += CHUNK;
	atomic_store_explicit(&table.chunks[first / CHUNK], chunk, memory_order_release);
	return true;
}

struct inl_use *inl_use_new(void)
{
	struct inl_use *use = NULL;

	pthread_mutex_lock(&table.lock);
	if (table.free || add_chunk()) {
		use = table.free;
		table.free = use->next_free;
	}
	pthread_mutex_unlock(&table.lock);
	return use;
}

/* The place becomes the next generation's; after the last one nobody's, so that no handle ever comes back. */
void inl_use_free(struct inl_use *use)
{
	uint64_t gen = ((atomic_load(&use->busy) >> GEN_SHIFT) + 1) & GEN_MASK;

	if (!gen)
		return;
	atomic_store(&use->busy, gen << GEN_SHIFT | EVICTING);
	pthread_mutex_lock(&table.lock);
	use->next_free = table.free;
	table.free = use;
	pthread_mutex_unlock(&table.lock);
}

void inl_use_open(struct inl_use *use)
{
	atomic_fetch_and(&use->busy, ~EVICTING);
}

struct inl_key_use *inl_use_handle(const struct inl_use *use)
{
	uint64_t gen = atomic_load_explicit(&use->busy, memory_order_relaxed) >> GEN_SHIFT;

	return (struct inl_key_use *)(uintptr_t)(gen << INDEX_BITS | use->index);
}

static struct inl_use *place_of(const struct inl_key_use *handle)
{
	unsigned index = (uintptr_t)handle & ((1u << INDEX_BITS) - 1);
	struct inl_use *chunk = atomic_load_explicit(&table.chunks[index / CHUNK], memory_order_acquire);

	return chunk ? &chunk[index % CHUNK] : NULL;
}

static bool same_generation(const struct inl_key_use *handle, uint64_t busy)
{
	return (uint64_t)(uintptr_t)handle >> INDEX_BITS == busy >> GEN_SHIFT;
}

struct inl_use *inl_use_find(const struct inl_key_use *handle)
{
	struct inl_use *use = handle ? place_of(handle) : NULL;
	uint64_t busy = use ? atomic_load_explicit(&use->busy, memory_order_acquire) : 0;

	return use && same_generation(handle, busy) && !(busy & EVICTING) ? use : NULL;
}

/* ---- holding ----------------------------------------------------------------------------------------------------- */

struct inl_use *inl_use_hold(const struct inl_key_use *handle)
{
	struct inl_thread *thread = inl_thread_self;
	struct inl_use *use = handle ? place_of(handle) : NULL;
	uint64_t busy;

	if (!use)
		return NULL;
	busy = atomic_load_explicit(&use->busy, memory_order_relaxed);
	if (thread && thread->n_spare_uses && thread->spare_handle == handle && !(busy & EVICTING)) {
		thread->n_spare_uses--;
		return use;
	}
	do {
		if (busy & EVICTING || !same_generation(handle, busy))
			return NULL;
	} while (!atomic_compare_exchange_weak_explicit(&use->busy, &busy, busy + 1, memory_order_acquire,
							memory_order_relaxed));
	return use;
}

/*
 * While it is being evicted the count goes down under the lock that the evictor takes last: what it frees then, device
 * included, is not touched after that.
 */
static void release(struct inl_use *use, unsigned n)
{
	struct inl_dev *dev = use->dev;
	uint64_t busy = atomic_load_explicit(&use->busy, memory_order_relaxed);

	do {
		if (busy & EVICTING) {
			pthread_mutex_lock(&dev->idle_lock);
			atomic_fetch_sub_explicit(&use->busy, n, memory_order_acq_rel);
			pthread_cond_broadcast(&dev->idle);
			pthread_mutex_unlock(&dev->idle_lock);
			return;
		}
	} while (!atomic_compare_exchange_weak_explicit(&use->busy, &busy, busy - n, memory_order_release,
							memory_order_relaxed));
}

void inl_use_release(struct inl_use *use)
{
	struct inl_thread *thread = inl_thread_self;

	if (!thread || !thread->running || (thread->n_spare_uses && thread->spare_use != use) ||
	    atomic_load_explicit(&use->busy, memory_order_relaxed) & EVICTING) {
		release(use, 1);
		return;
	}
	if (!thread->n_spare_uses++) {
		thread->spare_use = use;
		thread->spare_handle = inl_use_handle(use);
	}
}

bool inl_use_spare_wanted(const struct inl_thread *thread)
{
	return thread->n_spare_uses &&
	       atomic_load_explicit(&thread->spare_use->busy, memory_order_relaxed) & EVICTING;
}

void inl_use_return_spare(struct inl_thread *thread)
{
	unsigned n = thread->n_spare_uses;

	thread->n_spare_uses = 0;
	if (n)
		release(thread->spare_use, n);
}

bool inl_use_close(const struct inl_key_use *handle, struct inl_use **out)
{
	struct inl_use *use = place_of(handle);
	uint64_t busy = use ? atomic_load(&use->busy) : EVICTING;

	do {
		if (busy & EVICTING || !same_generation(handle, busy))
			return false;
	} while (!atomic_compare_exchange_weak(&use->busy, &busy, busy | EVICTING));
	*out = use;
	return true;
}

static bool is_busy(struct inl_use *use)
{
	return atomic_load_explicit(&use->busy, memory_order_acquire) & COUNT;
}

/* A thread with bios of its own looks after them once per millisecond. */
void inl_use_drain(struct inl_use *use)
{
	struct inl_thread *thread = inl_thread_self;
	struct inl_dev *dev = use->dev;

	while (is_busy(use)) {
		bool mine = thread && inl_thread_has_work(thread);
		struct timespec until;

		if (mine && inl_thread_poll(thread))
			continue;
		until = inl_timespec_of(inl_now_ns() + 1000000);
		pthread_mutex_lock(&dev->idle_lock);
		if (is_busy(use) && mine)
			pthread_cond_timedwait(&dev->idle, &dev->idle_lock, &until);
		else if (is_busy(use))
			pthread_cond_wait(&dev->idle, &dev->idle_lock);
		pthread_mutex_unlock(&dev->idle_lock);
	}
	/* The last release may still hold the lock. */
	pthread_mutex_lock(&dev->idle_lock);
	pthread_mutex_unlock(&dev->idle_lock);
}
