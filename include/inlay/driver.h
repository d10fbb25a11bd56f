/*
 * inlay/driver.h: the block layer for people who write devices.
 * Not here: what callers of a device need (inlay/block.h). How a SPEC names a driver: drivers/table.c.
 * Read more: ARCHITECTURE.md, "Devices"; drivers/ram.c is the smallest complete one, examples/driver.c one to copy.
 *
 * A driver is a const struct inl_dev_ops and a private state. It sees only bios that passed the checks of
 * inl_queue_submit, and it sees keyed bios only if its capabilities say that it can honour them.
 *
 * Everything that happens to a bio happens on the thread of its queue: submit is called there, and inl_bio_end, wherever
 * it is called, does the rest there. So a driver needs locks only for what its queues share.
 */
#ifndef INLAY_DRIVER_H
#define INLAY_DRIVER_H

#include <inlay/block.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A list of bios, first in, first out. All zero: empty. It uses a field that belongs to whoever has the bio. */
struct inl_bio_list {
	struct inl_bio *head, *tail;
};
INL_API void inl_bio_list_add(struct inl_bio_list *list, struct inl_bio *bio);
INL_API struct inl_bio *inl_bio_list_pop(struct inl_bio_list *list); /* NULL: empty */

/* Where a part of a device lies: the next len bytes (at least 1 block, at most what was asked) are at pos of child. */
struct inl_dev_extent {
	struct inl_dev *child;
	uint64_t pos, len; /* bytes */
};

struct inl_dev_ops {
	const char *name; /* "file" */

	/*
	 * Start one bio. Look at bio->op, bio->flags, bio->len, bio->state.pos (byte offset on this device, which is
	 * bio->state.dev), and at the payload with inl_bio_iov or inl_bio_copy_*. End it with inl_bio_end, now or later, here or on any other thread;
	 * or hand it down with inl_submit_below; or ask for it again with inl_bio_again. Never sleeps for a resource that
	 * only a completion can free.
	 */
	void (*submit)(struct inl_dev *dev, struct inl_bio *bio);

	/*
	 * Instead of submit, for a stack: where do the bytes [pos, pos + len) lie? The block layer splits bios at the ends
	 * of extents, sends the pieces, each with its part of the context, and sends flushes to every child.
	 */
	void (*map)(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out);

	/*
	 * Optional, for a driver whose medium is memory: where the bytes [pos, pos + len) of the device lie. The fallback then
	 * crosses the line between the caller's memory and these bytes, and submit does not see the bio: it encrypts into
	 * them, only ciphertext and only where that cannot fail, or decrypts out of them. Counters count it as a bio that
	 * reached the driver. Everything else comes to submit as always: plain and raw I/O, INL_BIO_FUA, writes with ciphers
	 * that may fail, what a stack above splits; and flushes, which cover what was encrypted into the memory too. So a
	 * driver that must see every write does not offer its memory.
	 *
	 *   pos, len  within the device, whole blocks, len > 0; for a write only if the device is writable
	 *
	 * Returns: the address, at which the bytes stay until close; NULL: not these, let submit have the bio.
	 * Threads: any number at once. Never sleeps. What two I/Os to the same bytes at the same time leave there is as
	 *          unspecified as for other devices.
	 */
	void *(*memory)(struct inl_dev *dev, uint64_t pos, uint64_t len);

	/* Optional: free the private state; children are closed afterwards by the block layer. */
	void (*close)(struct inl_dev *dev);

	/* Optional: inl_dev_control. -EINVAL with a text for a command that it does not know. */
	int (*control)(struct inl_dev *dev, const char *command, struct inl_diag *diag);

	/*
	 * Optional, all together: drivers that complete I/O later without threads of their own keep a context per queue,
	 * one for all their devices below it. new may fail: the queue then works without, and submit, which sees no
	 * context (inl_bio_queue_ctx), ends its bios before it returns. It also sees none in inl_submit_wait.
	 *
	 * Exception: what waits for another queue's bio may be left, and ended or asked for again (inl_bio_again) then.
	 *
	 *   new     depth: how many bios of the queue may be under way; pieces of them may be more
	 *   flush   start what submit has collected; called before the thread turns to something else
	 *   reap    end (inl_bio_end) what is finished; never waits; returns how many
	 *   fd      readable whenever reap has something to do
	 */
	int (*queue_new)(unsigned depth, void **ctx);
	void (*queue_free)(void *ctx);
	void (*queue_flush)(void *ctx);
	unsigned (*queue_reap)(void *ctx);
	int (*queue_fd)(void *ctx);

	/*
	 * Engines with key slots. Never two at a time for a device, never reentered, no lock held; I/O that needs another
	 * slot's key is parked meanwhile. After a failed program the slot is booked under no key. An evict that fails
	 * leaves the slot unlinked all the same.
	 */
	int (*key_program)(struct inl_dev *dev, unsigned slot, const struct inl_key *key);
	int (*key_evict)(struct inl_dev *dev, unsigned slot, const struct inl_key *key);

	/* Optional: the end of what inl_dev_reprogram began. On any thread, with no lock held; no slot is programmed meanwhile. */
	void (*reprogrammed)(struct inl_dev *dev);

	/*
	 * Optional, for engines: a key is started, and is evicted (after key_evict, if it was in a slot). start may refuse
	 * the key, and may keep something for it that inl_bio_key_priv gives back and stop ends. Without slots (n_slots ==
	 * 0) the key goes with the request (inl_bio_key).
	 */
	int (*key_start)(struct inl_dev *dev, const struct inl_key *key, void **priv);
	int (*key_stop)(struct inl_dev *dev, const struct inl_key *key, void *priv);
};

#define INL_DEV_MAX_CHILDREN 16

/* What a driver says of its device when it makes it. Zero means the default. */
struct inl_dev_params {
	uint64_t size;	     /* bytes; a remainder below the block size is cut off */
	uint32_t block_size; /* a power of two, 512 .. 65536; default 512 */
	uint32_t sector_size; /* of the medium: the unit of its partition table; default the children's, or 512 */
	uint32_t mem_align;  /* a power of two, to 4096: payloads that are aligned less go through bounce memory; default 1 */
	bool writable;
	bool has_engine;     /* caps and n_slots are this device's own; otherwise they come from the children */
	unsigned n_slots;    /* 0: the key goes with the request */
	struct inl_caps caps;
	uint32_t unit_max;   /* bytes: of a stack, the largest data unit that its map never cuts; default INL_UNIT_SIZE_MAX */
	const char *label;   /* copied */
	struct inl_dev *const *children; /* owned from now on, closed with the device */
	unsigned n_children;
};

/*
 * Make a device. Without an engine of its own its capabilities are the intersection of its children's, keys are
 * started on every child and contexts are passed down; without children there are none.
 *
 * Returns: 0; -EINVAL; -ENOMEM. On failure the children remain the caller's.
 */
INL_API int inl_dev_new(const struct inl_dev_ops *ops, void *priv, const struct inl_dev_params *params,
			struct inl_dev **out);

INL_API void *inl_dev_priv(const struct inl_dev *dev);

/*
 * Limits of a device, as the options fallback= and bounce= of every SPEC set them.
 *
 *   fallback   false: keys that no engine serves are refused here, on every stack made on top later, and below for keys
 *              that are started here
 *   len        bytes of bounce memory, 64 KiB .. 1 GiB, rounded up to 64 KiB; default 4 MiB, of which only what was
 *              in use at the same time is ever touched
 *
 * Returns: 0; -EINVAL; -ENOMEM. To be called before the device is used.
 */
INL_API void inl_dev_set_fallback(struct inl_dev *dev, bool fallback);
INL_API int inl_dev_set_bounce(struct inl_dev *dev, size_t len);

/*
 * Capabilities of an engine that change while it is in use; the stacks above follow.
 *
 * Returns: 0; -EBUSY (something would be lost, and a key is started here or above); -EINVAL (no engine).
 */
INL_API int inl_dev_set_caps(struct inl_dev *dev, const struct inl_caps *caps);

/* ---- one bio ------------------------------------------------------------------------------------------------------- */

/*
 * End a bio, once, with 0 or -errno. What the block layer has hooked in (decryption, a key slot) is undone, then the caller
 * hears of it, on the bio's own thread. The bio must not be touched after this call. From any thread.
 */
INL_API void inl_bio_end(struct inl_bio *bio, int status);

/* Hand a bio down to a child at pos there. Its end is the bio's end. A context goes along, with the child's use. This and
   all that follows: on the bio's own thread, unless it says otherwise. */
INL_API void inl_submit_below(struct inl_dev *child, struct inl_bio *bio, uint64_t pos);

/*
 * Hand only the first len bytes down (a multiple of the child's block size and of the data unit, may be 0), and end the
 * bio with status, or with the error of the part if there is one: a torn write. A status of 0 is for writes only.
 */
INL_API void inl_submit_torn(struct inl_dev *child, struct inl_bio *bio, uint64_t pos, uint64_t len, int status);

/* Call submit with this bio again: when its thread comes to it (from any thread), or not before this time of inl_now_ns
   (from the bio's own thread only). */
INL_API void inl_bio_again(struct inl_bio *bio);
INL_API void inl_bio_again_at(struct inl_bio *bio, uint64_t ns);

/* For the driver to remember where it is with this bio: 0 when the bio arrives at its device. */
INL_API unsigned *inl_bio_stage(struct inl_bio *bio);

/* The context of this driver for the bio's queue; NULL: there is none, end the bio before submit returns. */
INL_API void *inl_bio_queue_ctx(const struct inl_bio *bio, const struct inl_dev_ops *ops);

/* What kind of payload this is, for this device. */
INL_API enum inl_bio_kind inl_bio_kind(const struct inl_bio *bio);

/* Of a keyed bio at an engine: the first DUN, the slot that holds the key (or -1), the key, and what key_start kept. */
INL_API const uint64_t *inl_bio_dun(const struct inl_bio *bio);
INL_API int inl_bio_slot(const struct inl_bio *bio);
INL_API const struct inl_key *inl_bio_key(const struct inl_bio *bio);
INL_API void *inl_bio_key_priv(const struct inl_bio *bio);

/* The bytes of a key, for an engine that programs it. */
INL_API const uint8_t *inl_key_bytes(const struct inl_key *key, size_t *len);

/* Count n data units that this device's engine has processed. */
INL_API void inl_dev_count_units(struct inl_dev *dev, enum inl_op op, uint64_t n_units);

/*
 * The payload from byte `at` on, as segments.
 *
 *   at     bytes, at most bio->len
 *   iov    room for max entries
 *
 * Returns: how many entries were filled; *len: how many bytes they hold (all the rest, or what max entries hold).
 */
INL_API unsigned inl_bio_iov(const struct inl_bio *bio, uint64_t at, struct iovec *iov, unsigned max, uint64_t *len);

/*
 * Copy between the payload and one buffer: to the payload (reads) or from it (writes).
 *
 *   at     byte offset within the bio
 */
INL_API void inl_bio_copy_in(struct inl_bio *bio, uint64_t at, const void *buf, size_t len);
INL_API void inl_bio_copy_out(const struct inl_bio *bio, uint64_t at, void *buf, size_t len);

/* ---- engines ------------------------------------------------------------------------------------------------------- */

/*
 * All slots have lost their keys: a controller was reset. (Without slots this is counted, and reported back, that is all.) Parks what comes, programs every key into its slot again, and
 * then calls ops->reprogrammed, before this returns or later. A slot whose key could not be programmed again is booked
 * under no key. Never sleeps; from any thread.
 */
INL_API void inl_dev_reprogram(struct inl_dev *dev);

/*
 * Crossing the line in memory, for emulated engines: the same pieces that the fallback is made of. A read is handed to
 * crypt after it was read, a write in pieces, each with bounce memory for its ciphertext, before it is written.
 *
 *   dev       whose engine this is: its bounce memory and its counters are used
 *   lower     where the ciphertext goes to or comes from
 *   crypt     perform one job, and call inl_cross_done once, now or later, on any thread
 */
struct inl_cross;
struct inl_cipher;
typedef void inl_crypt_fn(struct inl_dev *dev, struct inl_cross_job *job);
INL_API int inl_cross_new(struct inl_dev *dev, struct inl_dev *lower, inl_crypt_fn *crypt, struct inl_cross **out);
INL_API void inl_cross_free(struct inl_cross *cross); /* NULL is fine */

/* Perform a keyed bio; from the ops' submit. Ends the bio. */
INL_API void inl_cross_submit(struct inl_cross *cross, struct inl_bio *bio);

/* The whole job with this schedule, on this thread, or partly on helping threads if it is large. Returns 0 or -EIO. */
INL_API int inl_cross_job_run(struct inl_cross_job *job, const struct inl_cipher *cipher);

/*
 * The memory of a job, range by range: from at (bytes, less than n_units * unit) on.
 *
 *   src, dst  the same when decrypting
 *
 * Returns: bytes that follow each other there, a multiple of the unit.
 */
INL_API size_t inl_cross_job_range(const struct inl_cross_job *job, uint64_t at, const uint8_t **src, uint8_t **dst);

/* A job is done, with 0 or -errno. The job must not be touched after this call. */
INL_API void inl_cross_done(struct inl_cross_job *job, int status);

/*
 * A prepared schedule of a block-layer mode.
 *
 *   impl   as inl_dev_ciphers says; NULL: the best
 *
 * Returns: 0; -EOPNOTSUPP (a wrapped key); and as inl_cipher_new does.
 */
INL_API int inl_cross_cipher_new(const struct inl_key *key, const char *impl, struct inl_cipher **out);
INL_API void inl_cross_cipher_free(struct inl_cipher *cipher); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
