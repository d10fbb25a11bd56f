/*
 * drivers/chip.h: an emulated inline crypto chip, as its driver sees it: registers, slots, requests, interrupts.
 * Not here: bios, devices, key objects, when a slot is programmed (drivers/engine.c, and the block layer above it).
 * Read more: JEDEC JESD223 (UFS host controller), 7, and JESD84-B51A (eMMC) for what such registers look like.
 *
 * The chip crosses the line between plaintext and ciphertext for ranges of memory that a request names. It never passes
 * data through: without a valid configuration nothing is touched. A request that was begun is finished; one that was
 * aborted, or answered with anything but OK or IO, has touched no memory, so that it can be rung again.
 *
 * Threads: any, for all functions. Interrupts (done, on_reset) come from inl_chip_ring, from inl_chip_test, or from
 * threads of the chip's own, with no lock held.
 */
#ifndef INLAY_DRIVERS_CHIP_H
#define INLAY_DRIVERS_CHIP_H

#include <inlay/base.h>

#define INL_CHIP_SLOTS_MAX   1024
#define INL_CHIP_THREADS_MAX 64
#define INL_CHIP_DEPTH	     256 /* requests that may be under way at the same time */
#define INL_CHIP_SECRET_LEN  32	 /* bytes */
#define INL_CHIP_BLOB_LEN    64	 /* bytes */
#define INL_CHIP_SW_SECRET   32	 /* bytes */

struct inl_chip;

/* ---- capability registers ----------------------------------------------------------------------------------------- */

enum inl_chip_alg {
	INL_CHIP_AES_256_XTS,
	INL_CHIP_AES_128_CBC_ESSIV,
	INL_CHIP_ADIANTUM,
	INL_CHIP_SM4_XTS,
	INL_CHIP_N_ALGS
};

enum inl_chip_key_kind {
	INL_CHIP_RAW = 1,
	INL_CHIP_WRAPPED = 2, /* an ephemeral blob; AES-256-XTS only */
};

struct inl_chip_caps {
	uint32_t units[INL_CHIP_N_ALGS]; /* per algorithm the data unit sizes, added up (each is its own bit) */
	uint32_t dun_bytes;
	uint32_t key_kinds; /* of enum inl_chip_key_kind */
};

/* Can chips of this build do the algorithm at all? */
bool inl_chip_has_alg(enum inl_chip_alg alg);

struct inl_chip_setup {
	unsigned n_slots;   /* 0: the configuration comes with each request */
	unsigned n_threads; /* that do the work; 0: inl_chip_ring does it */
	uint64_t latency;   /* ns from the ring of a request to its beginning */
	struct inl_chip_caps caps;
	const uint8_t *secret; /* INL_CHIP_SECRET_LEN bytes that seal long-term blobs; NULL: random ones */
	void (*on_reset)(void *arg); /* interrupt: all slots are empty */
	void *arg;
};

/* Returns: 0; -EINVAL; -ENOMEM; -EAGAIN (threads); -EIO (no random bytes). */
int inl_chip_new(const struct inl_chip_setup *setup, struct inl_chip **out);
void inl_chip_free(struct inl_chip *chip); /* no request may be under way; NULL is fine */

unsigned inl_chip_n_slots(const struct inl_chip *chip);
void inl_chip_caps(struct inl_chip *chip, struct inl_chip_caps *out);

/* How often it was reset. What a slot holds in one generation says nothing of the next. */
uint64_t inl_chip_generation(struct inl_chip *chip);

/* ---- configurations ----------------------------------------------------------------------------------------------- */

enum inl_chip_status {
	INL_CHIP_OK,
	INL_CHIP_KEY,	 /* the slot is empty, or configured for another unit size */
	INL_CHIP_RESET,	 /* aborted by a reset, or made before one */
	INL_CHIP_IO,	 /* the chip failed */
	INL_CHIP_BAD,	 /* not within the capabilities */
	INL_CHIP_BLOB,	 /* a blob that this chip did not make, or not of this kind */
	INL_CHIP_MEMORY, /* the emulation has no memory */
};

/* Written whole, never in parts. */
struct inl_chip_config {
	bool enable; /* false: clear; the rest does not matter */
	enum inl_chip_alg alg;
	uint32_t unit; /* bytes */
	enum inl_chip_key_kind kind;
	const uint8_t *key; /* key_len bytes; not kept */
	size_t key_len;
	const char *impl; /* which implementation of its cipher emulates the chip's; NULL: the best */
};

/*
 * Write a slot. The old configuration is gone in any case, but for a clear that fails, which leaves it. After a failed
 * write the slot holds nothing known: nothing, or a key that nobody has.
 */
enum inl_chip_status inl_chip_write_slot(struct inl_chip *chip, unsigned slot, const struct inl_chip_config *config);

/*
 * A configuration to go with requests instead of a slot. Hardware would take the key bytes from each request; to expand
 * them each time would cost more than the request does, so here they are expanded once. A reset does not touch these.
 */
struct inl_chip_key;
enum inl_chip_status inl_chip_key_load(struct inl_chip *chip, const struct inl_chip_config *config,
				       struct inl_chip_key **out);
enum inl_chip_status inl_chip_key_drop(struct inl_chip *chip, struct inl_chip_key *key); /* gone whatever is returned */

/* ---- requests ----------------------------------------------------------------------------------------------------- */

/* Belongs to the chip from the ring until done is called. */
struct inl_chip_request {
	int slot;		  /* -1: key */
	struct inl_chip_key *key;
	bool encrypt;
	uint32_t unit;		  /* bytes */
	uint64_t len;		  /* bytes: whole units */
	uint64_t dun[4];	  /* of the first unit */
	uint64_t generation;	  /* of the chip for which this was made; in any other it is answered with RESET */

	/* The memory from byte at on: bytes that follow each other, whole units; *src and *dst may be the same. */
	size_t (*range)(const struct inl_chip_request *request, uint64_t at, const uint8_t **src, uint8_t **dst);

	/* The interrupt. */
	void (*done)(struct inl_chip_request *request, enum inl_chip_status status);

	/* The chip's own. */
	struct inl_chip_request *next;
	uint64_t due; /* ns of CLOCK_MONOTONIC */
	bool fail;
};

void inl_chip_ring(struct inl_chip *chip, struct inl_chip_request *request);

/* ---- wrapped keys ------------------------------------------------------------------------------------------------- */

/* Make a long-term blob of INL_CHIP_BLOB_LEN bytes: of a raw key (32 bytes; else BAD), or of a new one. */
enum inl_chip_status inl_chip_import(struct inl_chip *chip, const uint8_t *raw, size_t len, uint8_t *blob);
enum inl_chip_status inl_chip_generate(struct inl_chip *chip, uint8_t *blob);

/* A long-term blob becomes an ephemeral one, which this chip knows until it is freed. */
enum inl_chip_status inl_chip_prepare(struct inl_chip *chip, const uint8_t *blob, size_t len, uint8_t *ephemeral);

/* What software may have of an ephemeral blob's key. */
enum inl_chip_status inl_chip_sw_secret(struct inl_chip *chip, const uint8_t *ephemeral, size_t len,
					uint8_t secret[INL_CHIP_SW_SECRET]);

/* ---- the test port ------------------------------------------------------------------------------------------------ */

/*
 * Make things go wrong. Rules as in drivers/faults.h:
 *
 *   reset, reset@N   the reset line: now, or as the N-th request arrives: all slots are lost, all requests that were not
 *                    begun are aborted
 *   program@N        the N-th write of a slot fails
 *   evict@N          the N-th clear of a slot fails, the key stays
 *   io@N             the N-th request is answered with IO
 *   latency=TIME     of every request from now on
 *   clear            no more rules; the latency is again that of the setup
 *
 * Returns: 0; -EINVAL (nothing was done); -ENOSPC (too many rules at work); -EAGAIN (latency needs a thread).
 */
int inl_chip_test(struct inl_chip *chip, const char *text, size_t len, struct inl_diag *diag);

/* Another chip, as it were: what slots hold stays. */
void inl_chip_set_caps(struct inl_chip *chip, const struct inl_chip_caps *caps);

#endif
