/*
 * block/own.h: what the files of block/ share: the insides of devices, threads, queues, uses, slots, pieces, crossings.
 * Not here: anything that callers or drivers may know (inlay/block.h, inlay/driver.h).
 * Read more: ARCHITECTURE.md, "The life of an I/O".
 *
 * Locks, in the order they are taken: tree_lock (dev.c), slots->lock, pieces->lock, dev->idle_lock, thread->lock. None is
 * held while a driver's functions or a bio's done run.
 */
#ifndef INLAY_BLOCK_OWN_H
#define INLAY_BLOCK_OWN_H

#include "base/clock.h"
#include <inlay/cipher.h>
#include <inlay/driver.h>
#include <pthread.h>
#include <stdatomic.h>

#define INL_N_COUNTERS	  (sizeof(struct inl_counters) / sizeof(uint64_t))
#define INL_COUNTER_CELLS ((INL_N_COUNTERS + 7) / 8 * 8 + 8) /* cells of two shards never share a cache line */
#define INL_N_SHARDS	  8
#define INL_SHARD_SHARED  (INL_N_SHARDS - 1) /* for the many; the others belong to one thread each */

struct inl_dev {
	const struct inl_dev_ops *ops;
	void *priv;
	char *label;
	uint64_t size;
	uint32_t block_size, sector_size, mem_align, unit_max;
	bool writable;
	bool has_engine;
	bool has_memory;	 /* the driver offers it, or that of a device below may be reached through the map */
	bool fallback;		 /* may be used */
	const char *ciphers;	 /* the implementation of the fallback's; NULL: the best. Set before keys are started */
	unsigned n_slots;
	struct inl_caps caps;	 /* tree_lock */
	unsigned n_native;	 /* tree_lock; keys started here that rely on caps */
	struct inl_dev *parent;
	struct inl_slots *slots; /* NULL: no engine, or one that takes the key with the request */
	struct inl_cross *cross; /* the software fallback */
	struct inl_pieces *bounce; /* memory for the ciphertext of writes; NULL: not written */
	struct inl_pieces *align;  /* memory for payloads that mem_align does not allow; NULL: all are allowed */
	struct inl_pieces *split;  /* without memory; NULL: no map */
	unsigned n_children;
	struct inl_dev *children[INL_DEV_MAX_CHILDREN];
	pthread_mutex_t idle_lock; /* for those who wait for a use to drain */
	pthread_cond_t idle;
	_Atomic uint64_t counters[INL_N_SHARDS][INL_COUNTER_CELLS]; /* struct inl_counters, field by field */
};

/* Lives in secret memory as a whole. */
struct inl_key {
	atomic_uint refs;
	struct inl_key_config cfg;
	uint32_t len;
	uint8_t bytes[];
};

/* What the handle of a key's use stands for. Its memory is never anything else; see use.c. */
struct inl_use {
	_Atomic uint64_t busy;	   /* generation, being evicted, bios under way: use.c */
	struct inl_dev *dev;
	struct inl_key *key;
	unsigned unit_bits;	   /* log2 of the data unit size */
	bool native;		   /* an engine here or below does the work */
	struct inl_cipher *cipher; /* of the fallback; if native: for bios that a stack cannot cut, or NULL */
	void *driver_priv;
	atomic_uint ps_per_byte;   /* how long the cipher takes, picoseconds; 0: not measured yet */
	unsigned n_children;
	struct inl_use **children; /* of a stack: the same key on each child */
	unsigned index;		   /* in the table */
	struct inl_use *next_free;
};

static inline bool inl_power_of_two(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* ---- thread.c ---- */

/*
 * What a thread has to do for the bios that are its own. Never freed, since others may still be about to wake it; used
 * again by a later thread.
 */
struct inl_thread {
	_Atomic(struct inl_bio *) posted; /* by other threads, newest first */
	atomic_bool asleep;
	atomic_bool by_pipe;   /* how it wants to be woken */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken;	       /* lock */
	int pipe[2];	       /* -1: not needed yet */
	/* The thread's own: */
	unsigned shard;	       /* where it counts */
	bool running;
	unsigned n_fds;
	struct inl_bio_list turn;  /* to be done, in order */
	/* Kept for the next bio of the same turn, since each would cost a locked instruction to give back and to get. */
	struct inl_piece *spare;
	struct inl_use *spare_use;
	const struct inl_key_use *spare_handle;
	unsigned n_spare_uses;
	struct inl_bio *later;     /* by again_at */
	struct inl_queue *queues;
	struct inl_thread *next_free;
};

/* The calling thread's; NULL: out of memory. */
struct inl_thread *inl_thread_get(void);

/* The calling thread's if it has one. Looked at several times per bio: not by a call into the dynamic linker each time. */
extern _Thread_local struct inl_thread *inl_thread_self __attribute__((tls_model("initial-exec")));

static inline void inl_count(_Atomic uint64_t (*counters)[INL_COUNTER_CELLS], size_t i, uint64_t n)
{
	unsigned shard = inl_thread_self ? inl_thread_self->shard : INL_SHARD_SHARED;
	_Atomic uint64_t *cell = &counters[shard][i];

	/* A cell of one thread's own needs no locked instruction. */
	if (shard == INL_SHARD_SHARED)
		atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
	else
		atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Do everything that has collected. Returns how much it was. */
unsigned inl_turn_run(struct inl_thread *thread);

/* Between these two, what the thread has to do collects; the outermost end does it all. */
static inline bool inl_turn_begin(struct inl_thread *thread)
{
	bool first = !thread->running;

	thread->running = true;
	return first;
}

static inline void inl_turn_end(struct inl_thread *thread, bool first)
{
	if (first)
		inl_turn_run(thread);
}

#define INL_COUNT(dev, field, n) inl_count((dev)->counters, offsetof(struct inl_counters, field) / sizeof(uint64_t), (n))

/* What a bio's thread is to do with it when its turn comes. */
enum inl_todo {
	INL_TODO_START,	  /* at bio->state.dev, where it has just arrived */
	INL_TODO_DRIVE,	  /* at bio->state.dev: the driver wants it again */
	INL_TODO_END,	  /* with bio->state.error */
	INL_TODO_PIECES,  /* there may be memory for the next piece */
	INL_TODO_CROSSED, /* a piece whose ciphertext is ready, or not: bio->state.error */
};

/* Have it done on the bio's own thread, in its turn. From any thread. This is what keeps callbacks from recursing. */
void inl_todo(struct inl_bio *bio, enum inl_todo todo);

/* The same before anything else that this thread has to do; from within a turn of the bio's own thread only. */
void inl_todo_first(struct inl_bio *bio, enum inl_todo todo);

/*
 * Do what there is to do, what was plugged too, without waiting; or else wait until there was something. Returns how much it
 * was: whoever waits for more than that looks whether it has come, and waits again.
 */
unsigned inl_thread_poll(struct inl_thread *thread);
void inl_thread_wait(struct inl_thread *thread);

/* A pipe to be woken by, for a thread that will wait for descriptors. Returns 0; -EMFILE. */
int inl_thread_need_pipe(struct inl_thread *thread);

/* Has this thread bios under way on queues of its own, so that waiting for others must reap? */
bool inl_thread_has_work(const struct inl_thread *thread);

/* ---- queue.c ---- */
#define INL_QUEUE_CTX_MAX 8
#define INL_THREAD_FDS_MAX 64

struct inl_merge;

struct inl_queue {
	struct inl_dev *dev;
	struct inl_thread *thread;
	struct inl_queue *next; /* of the thread */
	unsigned depth, n_busy;
	uint64_t n_done;
	bool plugged;
	bool dirty;		/* a driver may have collected something that is not started yet */
	struct inl_bio_list plug_list;
	struct inl_bio *plug_last; /* what the next bio may be merged with; not in the list yet */
	struct inl_merge *merges, *free_merges;
	unsigned n_ctx;
	struct {
		const struct inl_dev_ops *ops;
		void *ctx;
		int fd;
	} ctx[INL_QUEUE_CTX_MAX];
};
unsigned inl_queue_poll(struct inl_queue *queue);
void inl_queue_flush(struct inl_queue *queue);

/* ---- submit.c ---- */
void inl_bio_dispatch(struct inl_bio *bio);

/* Check and prepare a bio that comes from outside: what is wrong will be its end when its turn comes. */
void inl_bio_accept(struct inl_thread *thread, struct inl_queue *queue, struct inl_dev *dev, struct inl_bio *bio);

/* Give the bio to the driver of its device, or to bounce memory first. Counts it. */
void inl_dev_drive(struct inl_dev *dev, struct inl_bio *bio);

/*
 * The memory, of this device or of one below, where the bio's bytes lie on the medium; NULL: they do not lie in one piece
 * of memory that may be had. Counts the bio, on every device on the way.
 */
void *inl_dev_reach(struct inl_dev *dev, const struct inl_bio *bio);

/* May an I/O (op, pos, len) go to this device? 0; -EROFS; -ENXIO; -EINVAL. */
int inl_dev_check(const struct inl_dev *dev, enum inl_op op, uint64_t pos, uint64_t len);
struct inl_use *inl_child_use(const struct inl_use *use, const struct inl_dev *child);

/* ---- bio.c ---- */

/* Does the key's DUN width hold n_units (at least 1) from dun on, without wrapping? */
bool inl_dun_covers(const struct inl_key_config *cfg, const uint64_t dun[4], uint64_t n_units);

static inline uint32_t inl_unit_size(const struct inl_use *use)
{
	return 1u << use->unit_bits;
}

void inl_bio_state_init(struct inl_bio_state *state, struct inl_thread *thread, struct inl_queue *queue, bool piece);

/* Make *part a bio for len bytes of owner's payload from `at` on: same thread, same queue, no device yet. */
void inl_bio_init_part(struct inl_bio *part, const struct inl_bio *owner, uint64_t at, uint64_t len);

/* A bio that goes down on behalf of owner, whose payload is ciphertext. Only cross.c makes these. */
void inl_bio_init_sealed_write(struct inl_bio *bio, const struct inl_bio *owner, uint64_t at, const struct iovec *seg);

/* ---- dev.c ---- */
bool inl_tree_claim(struct inl_dev *dev, const struct inl_key_config *cfg); /* true: native, and counted as such */
void inl_tree_release(struct inl_dev *dev);

/* ---- use.c ---- */

/* A place that nobody can hold before it is opened. NULL: out of memory. */
struct inl_use *inl_use_new(void);
void inl_use_free(struct inl_use *use);
void inl_use_open(struct inl_use *use);
struct inl_key_use *inl_use_handle(const struct inl_use *use);

/* NULL: it was evicted. find: for callers who know that it will not be while they look. */
struct inl_use *inl_use_find(const struct inl_key_use *handle);
struct inl_use *inl_use_hold(const struct inl_key_use *handle);
void inl_use_release(struct inl_use *use);
bool inl_use_spare_wanted(const struct inl_thread *thread);
void inl_use_return_spare(struct inl_thread *thread);

/* Nobody can hold it from now on. False: it was evicted, or is being. */
bool inl_use_close(const struct inl_key_use *handle, struct inl_use **out);

/* Wait until nobody holds it, reaping what is the calling thread's own. */
void inl_use_drain(struct inl_use *use);

/* ---- slots.c ---- */
struct inl_slots;
int inl_slots_new(struct inl_dev *dev, unsigned n_slots, struct inl_slots **out);
void inl_slots_free(struct inl_slots *slots);

/* 0: bio->state.slot is set; -EAGAIN: the bio is parked and will be started again when it has one, or with an error. */
int inl_slots_get(struct inl_slots *slots, struct inl_bio *bio);
void inl_slots_put(struct inl_slots *slots, struct inl_bio *bio);

/* Clear the slot that holds this use, if any. Returns the engine's error; the slot is unlinked all the same. */
int inl_slots_evict(struct inl_slots *slots, struct inl_use *use);

/* ---- pieces.c ---- */

/*
 * Doing a bio piece by piece, with a fixed number of pieces. Those of dev->split go to children as the driver's map says;
 * those of dev->bounce and dev->align have memory of their own for the payload.
 */
int inl_pieces_new(struct inl_dev *dev, size_t bounce_len, struct inl_pieces **out);
void inl_pieces_free(struct inl_pieces *pieces);

/* Ask a stack where its bytes lie. False: its map answered nonsense. */
bool inl_dev_map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out);
void inl_pieces_start(struct inl_pieces *pieces, struct inl_bio *owner);
void inl_pieces_go(struct inl_bio *owner);
void inl_piece_crossed(struct inl_bio *piece, int status);
bool inl_piece_spare_wanted(const struct inl_thread *thread);
void inl_piece_return_spare(struct inl_thread *thread);

/* ---- cross.c ---- */
int inl_cross_new_fallback(struct inl_dev *dev, struct inl_cross **out);

bool inl_cross_has_cipher(const struct inl_key_config *cfg);

/* Begin to decrypt a read that ended well; it is ended again when that is done. */
void inl_cross_read(struct inl_cross *cross, struct inl_bio *bio);

/* Send a piece, whose payload is ciphertext now, to where that belongs. */
void inl_cross_seal(struct inl_cross *cross, struct inl_bio *piece, uint64_t pos);

/* Begin to encrypt a piece: n bytes of the owner's payload from `at` on, into out. Ends in inl_piece_crossed. */
void inl_cross_write(struct inl_bio *piece, struct inl_bio *owner, uint64_t at, uint64_t len, uint8_t *out);

/* ---- workers.c ---- */

/* Call fn(arg, i) for every i below n, some of them on helping threads. Returns when all are done. */
void inl_spread(unsigned n, void (*fn)(void *arg, unsigned i), void *arg);
unsigned inl_spread_width(void); /* threads that would take part, this one included */

#endif
