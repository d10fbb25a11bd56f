/*
 * inlay/driver.h: the block layer for people who write devices.
 * Not here: what callers of a device need (inlay/block.h). How a SPEC names a driver: drivers/table.c.
 * Read more: ARCHITECTURE.md, "Devices"; drivers/ram.c is the smallest complete one.
 *
 * A driver is a const struct inl_dev_ops and a private state. It sees only bios that passed the checks of inl_submit, and it
 * sees keyed bios only if its capabilities say that it can honour them.
 */
#ifndef INLAY_DRIVER_H
#define INLAY_DRIVER_H

#include <inlay/block.h>

#ifdef __cplusplus
extern "C" {
#endif

struct inl_dev_ops {
	const char *name; /* "file" */

	/*
	 * Start one bio. Look at bio->op, bio->segs, bio->len, bio->state.pos (byte offset on this device). End it with
	 * inl_bio_end, now or later, here or on another thread; or hand it down with inl_submit_below. Never sleeps for
	 * a resource that only a completion can free.
	 */
	void (*submit)(struct inl_dev *dev, struct inl_bio *bio);

	/* Optional: as inl_reap, for this device alone. NULL: submit ends every bio itself, or a thread does. */
	unsigned (*reap)(struct inl_dev *dev, bool wait);

	/* Optional: free the private state; children are closed afterwards by the block layer. */
	void (*close)(struct inl_dev *dev);

	/*
	 * Engines with key slots. Called under the slots' lock: never two at a time for a device, never reentered.
	 * After a failed program the slot is booked under no key. An evict that fails leaves the slot unlinked all the same.
	 */
	int (*key_program)(struct inl_dev *dev, unsigned slot, const struct inl_key *key);
	int (*key_evict)(struct inl_dev *dev, unsigned slot, const struct inl_key *key);

	/*
	 * Engines without slots (n_slots == 0): the key goes with the request (inl_bio_key). start may keep something per
	 * key (inl_bio_key_priv gives it back); stop ends that. Both optional, together.
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
	bool writable;
	bool has_engine;     /* caps and n_slots are this device's own; otherwise they come from the children */
	unsigned n_slots;    /* 0: the key goes with the request */
	struct inl_caps caps;
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
 * End a bio, once, with 0 or -errno. What the block layer has hooked in (decryption, a key slot) is undone, then the caller
 * hears of it. The bio must not be touched after this call.
 */
INL_API void inl_bio_end(struct inl_bio *bio, int status);

/* Hand a bio down to a child at pos there. Its end is the bio's end. A context goes along, with the child's use. */
INL_API void inl_submit_below(struct inl_dev *child, struct inl_bio *bio, uint64_t pos);

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
 * Copy between the bio's segments and one buffer: from the segments (writes) or to them (reads).
 *
 *   at     byte offset within the bio
 */
INL_API void inl_bio_copy_in(struct inl_bio *bio, uint64_t at, const void *buf, size_t len);
INL_API void inl_bio_copy_out(const struct inl_bio *bio, uint64_t at, void *buf, size_t len);

/*
 * Crossing the line in software, for emulated engines: the same pieces that the fallback is made of. Reads are decrypted
 * in place when they end, writes are encrypted into bounce buffers that are sized here and never grow.
 *
 *   dev       whose engine this is: bounce waits are counted there
 *   lower     where the ciphertext goes to or comes from
 */
struct inl_cross;
struct inl_cipher;
INL_API int inl_cross_new(struct inl_dev *dev, struct inl_dev *lower, struct inl_cross **out);
INL_API void inl_cross_free(struct inl_cross *cross); /* NULL is fine */

/* Perform a keyed bio with this schedule; from the ops' submit. Ends the bio. */
INL_API void inl_cross_submit(struct inl_cross *cross, struct inl_bio *bio, const struct inl_cipher *cipher);

/*
 * A prepared schedule of a block-layer mode for inl_cross_submit.
 *
 * Returns: 0; -EOPNOTSUPP (a wrapped key); -ENOPKG; -EINVAL; -ENOMEM.
 */
INL_API int inl_cross_cipher_new(const struct inl_key *key, struct inl_cipher **out);
INL_API void inl_cross_cipher_free(struct inl_cipher *cipher); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
