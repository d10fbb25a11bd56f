/*
 * inlay/block.h: the block layer for its callers: devices, bios, keys, crypt contexts, capabilities.
 * Not here: how to write a device (inlay/driver.h); which key protects which block (inlay/fscrypt.h).
 * Read more: ARCHITECTURE.md; Linux Documentation/block/inline-encryption.rst, whose words are used.
 *
 * Every I/O may carry a crypt context: a key and the number of its first data unit (DUN). The block layer finds the best
 * place to honour it: an engine of the device, with or without key slots, or the software fallback. A caller never
 * sets anything up for that and never learns of it, except from the counters.
 */
#ifndef INLAY_BLOCK_H
#define INLAY_BLOCK_H

#include <inlay/base.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct inl_dev;
struct inl_key;
struct inl_key_use;
struct inl_bio;
struct inl_queue;

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

/* Modes of the block layer; the numbers are the kernel's (enum blk_crypto_mode_num). */
enum inl_blk_mode {
	INL_BLK_MODE_INVALID = 0,
	INL_BLK_MODE_AES_256_XTS = 1,
	INL_BLK_MODE_AES_128_CBC_ESSIV = 2,
	INL_BLK_MODE_ADIANTUM = 3,
	INL_BLK_MODE_SM4_XTS = 4,
	INL_BLK_MODE_MAX
};

/* Key types are bits, so that capabilities can name several. */
enum inl_key_type {
	INL_KEY_RAW = 1,
	INL_KEY_HW_WRAPPED = 2,
};

#define INL_DUN_BYTES_MAX  32   /* a DUN is 256 bits wide: four little-endian limbs */
#define INL_UNIT_SIZE_MIN  16   /* bytes; data unit sizes are powers of two */
#define INL_UNIT_SIZE_MAX  65536
#define INL_KEY_SIZE_MAX   64   /* bytes, raw keys */
#define INL_WRAPPED_KEY_MAX 128 /* bytes, hardware-wrapped keys */

/* What a key is for; what a device must support to use it. */
struct inl_key_config {
	enum inl_blk_mode mode;
	uint32_t data_unit_size; /* bytes, a power of two */
	uint32_t dun_bytes;      /* 1..IV size of the mode: how wide the DUNs of this key can get */
	enum inl_key_type type;
};

/* What an engine can do. A plain value; all zero: nothing. */
struct inl_caps {
	uint32_t modes[INL_BLK_MODE_MAX]; /* per mode the data unit sizes, added up (each is its own bit) */
	uint32_t max_dun_bytes;
	uint32_t key_types; /* of enum inl_key_type */
};

/* Can an engine with these capabilities use such keys? */
INL_API bool inl_caps_supports(const struct inl_caps *caps, const struct inl_key_config *cfg);

/* Reduce *caps to what both have. with == NULL: an engine that can nothing. */
INL_API void inl_caps_intersect(struct inl_caps *caps, const struct inl_caps *with);

/* Has *caps everything that *ref has? */
INL_API bool inl_caps_superset(const struct inl_caps *caps, const struct inl_caps *ref);

/* "AES-256-XTS"; NULL for a number that is no mode. */
INL_API const char *inl_blk_mode_name(enum inl_blk_mode mode);

/* Key bytes and IV bytes of a mode; 0 for a number that is no mode. */
INL_API unsigned inl_blk_mode_key_size(enum inl_blk_mode mode);
INL_API unsigned inl_blk_mode_iv_size(enum inl_blk_mode mode);

/* ---- keys --------------------------------------------------------------------------------------------------------- */

/*
 * Make an immutable key; the bytes are copied into secret memory.
 *
 *   bytes  len bytes: exactly the mode's key size (raw), or up to INL_WRAPPED_KEY_MAX (hardware-wrapped)
 *   out    one reference
 *
 * Returns: 0; -EINVAL (size, unit, dun_bytes, equal halves of an XTS key); -ENOMEM.
 */
INL_API int inl_key_new(const struct inl_key_config *cfg, const uint8_t *bytes, size_t len, struct inl_key **out);

INL_API struct inl_key *inl_key_get(struct inl_key *key);
INL_API void inl_key_put(struct inl_key *key); /* NULL is fine; the last reference wipes */
INL_API const struct inl_key_config *inl_key_config(const struct inl_key *key);

/*
 * Start a key on a device: after this, bios may carry it there. Refuses early what the data path could not do.
 *
 *   use    a handle, not an address; holds a reference to the key until inl_key_evict. A context with the handle of a
 *          key that was evicted is refused, whatever was started since: handles do not come back.
 *
 * Returns: 0; -EOPNOTSUPP (a wrapped key and no engine that takes it); -ENOPKG (a raw key, no engine that takes it, and
 *          the fallback has no such cipher or is refused on this device); -EBADMSG (a wrapped key that this engine did
 *          not wrap, or not since it was opened); -ENOMEM; -EIO (the engine).
 */
INL_API int inl_key_start(struct inl_dev *dev, struct inl_key *key, struct inl_key_use **use);

/*
 * End a key's use on its device and every device below: new bios are refused with -ENOKEY, those under way are waited
 * for, slots are cleared, schedules wiped. The use is gone even if an engine failed. NULL is fine.
 *
 * While it waits it reaps the queues of the calling thread, so callbacks may run. Bios on queues of other threads end
 * when those threads reap.
 *
 * Returns: 0, or the error of an engine that failed to clear a slot (the slot is unlinked all the same); -ENOKEY (it was
 *          evicted before, or is being evicted by another thread); -EDEADLK (from a callback; nothing was done).
 */
INL_API int inl_key_evict(struct inl_key_use *use);

/* Is the work done by an engine of the device (or of the devices below), or by the fallback? */
INL_API bool inl_key_use_native(const struct inl_key_use *use);

/* ---- crypt contexts ------------------------------------------------------------------------------------------------ */

struct inl_crypt_ctx {
	struct inl_key_use *use;
	uint64_t dun[4]; /* of the first data unit; limb 0 is the least significant */
};

/* dun += n_units, modulo 2^256. */
INL_API void inl_dun_add(uint64_t dun[4], uint64_t n_units);

/*
 * May an I/O with context *next follow one of len bytes with context *ctx in a single bio? Same use, contiguous DUN,
 * no wrap of the key's dun_bytes through zero. Two NULLs: yes.
 */
INL_API bool inl_ctx_mergeable(const struct inl_crypt_ctx *ctx, uint64_t len, const struct inl_crypt_ctx *next);

/* ---- bios ---------------------------------------------------------------------------------------------------------- */

enum inl_op { INL_READ, INL_WRITE, INL_FLUSH, INL_DISCARD, INL_ZERO };

enum inl_bio_flags {
	INL_BIO_FUA = 1, /* writes: durable when done */
};

/*
 * A bio is plain (no key; the payload is what it is), keyed (a context; the payload is plaintext) or sealed (the payload
 * is ciphertext of some key). Sealed writes are made by the block layer alone: no caller can mark plaintext as sealed.
 */
enum inl_bio_kind { INL_BIO_PLAIN, INL_BIO_KEYED, INL_BIO_SEALED };

/*
 * One crossing of the line between plaintext and ciphertext: n_units data units of a keyed bio. Engines see these
 * (inlay/driver.h); for everybody else it is part of a bio's state.
 */
struct inl_cross_job {
	struct inl_bio *bio; /* the keyed bio that it is for: its slot, its key */
	struct inl_cross *cross;
	bool encrypt;
	uint32_t unit;	     /* bytes */
	uint64_t n_units;
	uint64_t dun[4];     /* of the first unit */
	uint64_t at;	     /* bytes: where in the bio's payload the first unit is */
	uint8_t *sealed;     /* the ciphertext, n_units * unit bytes: room for it, or where it is; NULL: decrypt in place */
	struct inl_cross_job *next; /* whoever has the job may use these two */
	unsigned tries;
};

/* Owned by the block layer from init to completion; its names may change in any version. */
struct inl_bio_state {
	enum inl_bio_kind kind;
	struct inl_crypt_ctx ctx;
	uint64_t pos;             /* bytes, on the device where the bio is now */
	uint64_t skip;		  /* bytes of the segments that lie before the payload: a piece of another bio */
	struct inl_dev *dev;      /* where the bio is now */
	struct inl_dev *top;      /* where it was submitted */
	struct inl_thread *thread; /* whose bio this is: it is started, ended and called back there */
	struct inl_queue *queue;  /* NULL: somebody waits for it */
	struct inl_bio *next;     /* parked, posted, or waiting for its turn */
	int error;		  /* known before its turn came; or its end, on its way to its thread */
	unsigned char todo;	  /* what its thread is to do with it next */
	bool piece;		  /* part of another bio, or a merge of several, on its way down */
	bool parked;		  /* has waited for bounce memory: does not queue up behind others again */
	bool going;		  /* its turn to send the next piece will come */
	unsigned stage;		  /* the driver's */
	int torn;		  /* the end of a bio of which only a part goes down, and its whole length */
	uint64_t full_len;
	uint64_t again_at;	  /* ns of CLOCK_MONOTONIC */
	struct inl_use *use;	  /* of the key, where the bio is now */
	struct inl_use *held;	  /* this bio counts as under way there */
	struct inl_dev *slot_dev; /* holds a key slot of this device */
	int slot;
	struct inl_pieces *pieces; /* is being done piece by piece, with pieces from here */
	uint64_t next_piece;	  /* bytes of it that were sent */
	unsigned n_pieces;	  /* pieces under way */
	int piece_error;	  /* the first */
	struct inl_cross *cross;  /* a read that is decrypted here when it ends */
	struct inl_cross_job job;
};

/* One I/O. The caller owns the memory, which stays in place until done is called; nothing is allocated per bio. */
struct inl_bio {
	enum inl_op op;
	unsigned flags;
	uint64_t offset; /* bytes on the device where it is submitted; a multiple of its block size */
	uint64_t len;    /* bytes; for reads and writes the sum of the segments */
	const struct iovec *segs;
	unsigned n_segs;
	struct iovec tags; /* room for one tag per data unit (authenticated modes; none yet): {NULL, 0} */
	int status;        /* 0 or -errno, when done is called */
	void (*done)(struct inl_bio *bio); /* may submit, may free the bio, never blocks */
	void *private_data;                /* the caller's */
	struct inl_bio_state state;
};

/*
 * Make *bio ready for inl_queue_submit. segs must stay in place until the bio is done; they may be empty, but not all.
 * keyed: the length of every segment is a multiple of the key's data unit size.
 * raw_read: reads the ciphertext as it lies on the medium, as a sealed bio.
 * range: INL_FLUSH (offset and len 0), INL_DISCARD, INL_ZERO.
 */
INL_API void inl_bio_init_plain(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs,
				unsigned n_segs);
INL_API void inl_bio_init_keyed(struct inl_bio *bio, enum inl_op op, uint64_t offset, const struct iovec *segs,
				unsigned n_segs, const struct inl_crypt_ctx *ctx);
INL_API void inl_bio_init_raw_read(struct inl_bio *bio, uint64_t offset, const struct iovec *segs, unsigned n_segs);
INL_API void inl_bio_init_range(struct inl_bio *bio, enum inl_op op, uint64_t offset, uint64_t len);

/* ---- queues -------------------------------------------------------------------------------------------------------- */

#define INL_QUEUE_DEPTH_MAX 4096

/*
 * Make a queue to a device, for the thread that calls this.
 *
 *   depth  how many bios may be under way, 1 .. INL_QUEUE_DEPTH_MAX; all memory is allocated here
 *
 * Returns: 0; -EINVAL; -ENOMEM; -EMFILE.
 * Threads: a queue is used, and freed, by the thread that made it. Bios are started, ended and called back there, in
 *          calls that submit, reap, wait or control: a callback may run in a call for another queue of the same thread. A thread
 *          with bios under way must go on reaping, also if its device completes all at once: only then do parked bios go
 *          on, and only then does what is done give back what it holds.
 */
INL_API int inl_queue_new(struct inl_dev *dev, unsigned depth, struct inl_queue **out);

/* Free a queue; waits for what is under way by reaping. Never from a callback. NULL is fine. */
INL_API void inl_queue_free(struct inl_queue *queue);

/*
 * Submit. Never sleeps: the bio completes at once or later, and a bio that lacks a key slot or bounce memory is parked
 * until whoever holds some gives it back. bio->done is called exactly once, for errors too:
 *
 *   -EINVAL   misaligned, empty, segments that do not add up to len, a segment that is no whole number of data units,
 *             a context of another device
 *   -ENOKEY   a context without a key, or whose key is being evicted
 *   -EROFS    a write on a device opened for reading
 *   -ENXIO    beyond the end of the device
 *   -EOPNOTSUPP  INL_DISCARD on a medium that cannot; a keyed bio that a stack would have to cut within a data unit,
 *             where the fallback is refused or the key is hardware-wrapped
 *   others    from the device
 *
 * Returns: 0; or, and then nothing was done: -EAGAIN (depth bios are under way; a callback can always submit one bio in
 *          place of its own); -EPERM (another thread's queue).
 */
INL_API int inl_queue_submit(struct inl_queue *queue, struct inl_bio *bio);

/*
 * Between plug and unplug bios collect: adjacent ones of one kind (the same op and flags, the next place, the context
 * that inl_ctx_mergeable allows, or none) become one I/O, and the system is asked once for many. Whoever reaps or waits
 * unplugs. If a merged I/O fails, its bios are tried one by one, so that an error arrives where it belongs.
 */
INL_API void inl_queue_plug(struct inl_queue *queue);
INL_API void inl_queue_unplug(struct inl_queue *queue);

/*
 * Complete what is finished.
 *
 *   min    wait until so many bios of this queue have been completed in this call, or none is under way; 0: do not wait
 *
 * Returns: how many bios of this queue were completed; 0 from a callback, and on another thread than the queue's.
 */
INL_API unsigned inl_queue_reap(struct inl_queue *queue, unsigned min);

INL_API unsigned inl_queue_n_busy(const struct inl_queue *queue); /* bios under way */

/* May the calling thread wait for an I/O or an eviction? Not from a callback: there such calls answer -EDEADLK. */
INL_API bool inl_may_wait(void);

/*
 * Submit and wait, by reaping what this thread has under way. bio->done is not called. Returns the status, errors as for
 * inl_queue_submit; -EDEADLK from a callback; -ENOMEM.
 */
INL_API int inl_submit_wait(struct inl_dev *dev, struct inl_bio *bio);

/* Plain I/O of one buffer, waiting. Return 0 or -errno as inl_queue_submit; no short transfers. */
INL_API int inl_dev_read(struct inl_dev *dev, uint64_t offset, void *buf, size_t len);
INL_API int inl_dev_write(struct inl_dev *dev, uint64_t offset, const void *buf, size_t len);
INL_API int inl_dev_flush(struct inl_dev *dev);

/* Keyed I/O of one buffer, waiting. */
INL_API int inl_dev_read_keyed(struct inl_dev *dev, uint64_t offset, void *buf, size_t len,
			       const struct inl_crypt_ctx *ctx);
INL_API int inl_dev_write_keyed(struct inl_dev *dev, uint64_t offset, const void *buf, size_t len,
				const struct inl_crypt_ctx *ctx);

/* ---- devices ------------------------------------------------------------------------------------------------------- */

enum inl_open_flags {
	INL_OPEN_WRITE = 1, /* otherwise the device and all below it are opened for reading only */
	INL_OPEN_NO_FALLBACK = 2, /* no encryption in software, here or below: as fallback=off of the topmost device */
};

/*
 * Open a device from a SPEC: a path, or NAME(SPEC, option=value, ...). `inlay device --help` and inlay(1) list the drivers.
 *
 * Returns: 0; -EINVAL (SPEC does not parse, unknown driver or option: the text says where); errors of open(2); -EBUSY
 *          (locked by another process); -ENODEV (no such partition).
 */
INL_API int inl_dev_open(const char *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);

/*
 * Close a device and those below it that it owns. All uses must be evicted, all queues freed, and no call on it be under
 * way, callbacks included. NULL is fine.
 */
INL_API void inl_dev_close(struct inl_dev *dev);

INL_API uint64_t inl_dev_size(const struct inl_dev *dev);	/* bytes */
INL_API uint32_t inl_dev_block_size(const struct inl_dev *dev); /* logical block, bytes: the unit of offsets and lengths */
INL_API uint32_t inl_dev_sector_size(const struct inl_dev *dev); /* logical sector of the medium, bytes: 512 or 4096 */
INL_API bool inl_dev_writable(const struct inl_dev *dev);
INL_API const char *inl_dev_driver(const struct inl_dev *dev); /* "file" */
INL_API const char *inl_dev_label(const struct inl_dev *dev);  /* for people: the path, the parameters; may be "" */
INL_API void inl_dev_caps(const struct inl_dev *dev, struct inl_caps *out); /* as they are now */
INL_API bool inl_dev_supports_natively(const struct inl_dev *dev, const struct inl_key_config *cfg);
INL_API bool inl_dev_supports(const struct inl_dev *dev, const struct inl_key_config *cfg); /* ... or the fallback does */
INL_API bool inl_dev_fallback(const struct inl_dev *dev); /* may the fallback be used? */
INL_API const char *inl_dev_ciphers(const struct inl_dev *dev); /* as inl_dev_set_ciphers has chosen; NULL: the best */
INL_API int inl_dev_n_slots(const struct inl_dev *dev); /* -1: no engine of its own; 0: an engine without slots */
INL_API struct inl_dev *inl_dev_child(const struct inl_dev *dev, unsigned i); /* NULL past the last */

/*
 * Choose the implementation of ciphers, of the fallback and of emulated engines, here and on every device below, for keys
 * that are started from now on. File systems on the device follow the choice for names, and so do stacks that are made
 * on top later: the first choice that one of their devices has.
 *
 *   impl   as inl_cipher_impl lists it ("openssl"); NULL: the best of each cipher. Keys of a cipher that has no such
 *          implementation are then refused with -ENOENT
 *
 * Returns: 0; -ENOENT (no cipher has it, or it does not run on this CPU). To be called before other threads use the device.
 */
INL_API int inl_dev_set_ciphers(struct inl_dev *dev, const char *impl);

/*
 * Tell a driver something while it works: faults of emulated hardware, above all. inlay(1) lists what each understands.
 *
 * Returns: 0; -ENOTTY (this driver understands nothing); -EINVAL (not this); others from the driver.
 */
INL_API int inl_dev_control(struct inl_dev *dev, const char *command, struct inl_diag *diag);

/* The first device of this driver in a stack, from the top; NULL: none. */
INL_API struct inl_dev *inl_dev_find(struct inl_dev *dev, const char *driver);

/* What a device has done since it was opened. */
struct inl_counters {
	uint64_t reads, writes, flushes;	     /* bios that reached the driver or its memory; writes: discards, zeroing too */
	uint64_t bytes_read, bytes_written;	     /* written: zeroed too, not discarded */
	uint64_t fallback_units_decrypted, fallback_units_encrypted;
	uint64_t engine_units_decrypted, engine_units_encrypted;
	uint64_t slot_hits, slot_programs, slot_waits, slot_evictions;
	uint64_t slot_program_failures, slot_evict_failures;
	uint64_t resets;			     /* of the engine: all slots lost their keys and got them back */
	uint64_t bounce_waits;			     /* bios that waited for bounce memory, or for a piece to split with */
	uint64_t splits;			     /* pieces that bios were split into */
	uint64_t merges;			     /* bios that went along in another one's I/O */
	uint64_t keys_started, keys_evicted;
	uint64_t errors;			     /* bios that ended with an error */
};
INL_API void inl_dev_counters(const struct inl_dev *dev, struct inl_counters *out);

/* One row per driver of the SPEC language, in a fixed order; NULL past the last. */
struct inl_driver_info {
	const char *name;    /* "slice" */
	const char *usage;   /* "slice(SPEC, offset=N, length=N)" */
	const char *summary; /* one line */
};
INL_API const struct inl_driver_info *inl_driver_info(unsigned i);

#ifdef __cplusplus
}
#endif
#endif
