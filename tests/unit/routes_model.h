/*
 * tests/unit/routes_model.h: the slow model of test_routes: stacks, where they place a byte, what ciphers make of it.
 * Not here: the I/O that is compared with the model (test_routes.c).
 * Read more: inlay/block.h, inlay/driver.h. All is written from there and from OpenSSL, from no code of the library.
 */
#ifndef TESTS_UNIT_ROUTES_MODEL_H
#define TESTS_UNIT_ROUTES_MODEL_H

#include <inlay/block.h>
#include <openssl/evp.h>
#include <stdio.h>

#define RT_SECTOR    512u
#define RT_MAX_NODES 40
#define RT_MAX_FAN   4
#define RT_PATH_LEN  64
#define RT_SPEC_LEN  4096

typedef unsigned __int128 rt_u128;

/* ---- random numbers --------------------------------------------------------------------------------------------- */

struct rt_rng {
	uint64_t state;
};

/* splitmix64 */
static inline uint64_t rt_next(struct rt_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0 .. n - 1 */
static inline uint64_t rt_below(struct rt_rng *rng, uint64_t n)
{
	return rt_next(rng) % n;
}

/* lo .. hi */
static inline uint64_t rt_between(struct rt_rng *rng, uint64_t lo, uint64_t hi)
{
	return lo + rt_below(rng, hi - lo + 1);
}

static inline bool rt_chance(struct rt_rng *rng, unsigned percent)
{
	return rt_below(rng, 100) < percent;
}

void inl_rt_fill(struct rt_rng *rng, uint8_t *bytes, size_t len);

/* ---- trees of devices ------------------------------------------------------------------------------------------- */

enum rt_kind { RT_RAM, RT_FILE, RT_SLICE, RT_LINEAR, RT_STRIPE, RT_ENGINE, RT_FAULT };

/* What an engine, or a stack of them, can do. */
struct rt_caps {
	uint32_t units[INL_BLK_MODE_MAX]; /* as in struct inl_caps */
	uint32_t dun_bytes;
};

/* What was done to the bytes of a medium; written: or made zero without a payload. */
enum rt_bytes { RT_BYTES_READ, RT_BYTES_WRITTEN, RT_BYTES_DISCARDED, RT_N_BYTES };

struct rt_node {
	enum rt_kind kind;
	struct rt_node *child[RT_MAX_FAN];
	unsigned n_children;
	unsigned index; /* in its tree */
	uint64_t size;
	uint32_t block;
	uint64_t start[RT_MAX_FAN + 1]; /* linear: where each child begins; slice: [0] is its offset */
	uint32_t chunk;			/* stripe */
	uint64_t declared;		/* leaves: the size that was asked for */
	bool direct;			/* file: past the page cache */
	char path[RT_PATH_LEN];		/* file */
	unsigned delay_us;		/* fault */
	int slots, threads, latency_us; /* engine */
	struct rt_caps own;		/* engine */
	uint32_t unit_max;		/* the largest data unit that the map of a stack never cuts */
	bool refuses_fallback;		/* fallback=off */
	unsigned bounce_kib;		/* 0: not said */
	struct inl_dev *dev;

	/* leaves: what their bytes must be, and by sector what was done to them */
	uint8_t *medium;
	bool *unknown;	 /* was discarded: may hold anything */
	uint32_t *stamp; /* number of the last I/O that changed it */
	uint32_t *busy;	 /* the round in which an I/O touched it */
	uint64_t n_bytes[RT_N_BYTES];
	unsigned n_flushes;
	unsigned n_errors; /* I/Os submitted here that had to fail */
};

struct rt_tree {
	struct rt_node node[RT_MAX_NODES];
	unsigned n_nodes, n_leaves;
	struct rt_node *root;
	struct rt_caps common; /* of most of its engines */
	char spec[RT_SPEC_LEN];
};

/* Where files may be made, and what their devices are like here; filled once. */
struct rt_place {
	char folder[2][RT_PATH_LEN - 16]; /* memory; a disk ("": there is none) */
	uint32_t block[2][2];		  /* by folder, and direct; 0: cannot */
};
int inl_rt_place_init(struct rt_place *place);
void inl_rt_place_done(struct rt_place *place);

/* Draw a tree and make its files and media. */
void inl_rt_tree_draw(struct rt_tree *tree, struct rt_rng *rng, const struct rt_place *place);
void inl_rt_tree_free(struct rt_tree *tree); /* removes the files */

/* Draw again what has no influence on where bytes are: engines, limits. */
void inl_rt_tree_redraw(struct rt_tree *tree, struct rt_rng *rng);

/* Do all its bytes survive a close? */
bool inl_rt_tree_lasting(const struct rt_tree *tree);

/* Open it and compare every device with its node. Returns NULL, or what is wrong. */
const char *inl_rt_tree_open(struct rt_tree *tree, unsigned flags);
void inl_rt_tree_close(struct rt_tree *tree);

/* Is b at or below a? */
bool inl_rt_below(const struct rt_node *a, const struct rt_node *b);
bool inl_rt_has_engine(const struct rt_node *node);
bool inl_rt_native(const struct rt_node *node, const struct inl_key_config *cfg);
bool inl_rt_fallback(const struct rt_node *node);

/* Where does the sector at pos of a node lie? */
struct rt_node *inl_rt_locate(struct rt_node *node, uint64_t pos, uint64_t *leaf_pos);

/* A device that cuts a data unit of this I/O, so that no engine below gets it as a whole; NULL: none. The top first. */
struct rt_node *inl_rt_cutter(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t unit);

/* ---- media ------------------------------------------------------------------------------------------------------ */

void inl_rt_put(struct rt_node *node, uint64_t pos, uint64_t len, const uint8_t *bytes); /* NULL: zeros */
void inl_rt_get(struct rt_node *node, uint64_t pos, uint64_t len, uint8_t *bytes);
bool inl_rt_reserve(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t round); /* false: is in use */
void inl_rt_stamp(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t stamp);
bool inl_rt_has_stamp(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t stamp);
void inl_rt_set_unknown(struct rt_node *node, uint64_t pos, uint64_t len, bool unknown);
bool inl_rt_any_unknown(struct rt_node *node, uint64_t pos, uint64_t len);
void inl_rt_count(struct rt_node *node, uint64_t pos, uint64_t len, enum rt_bytes how);

/* Compare a leaf's medium with the model. Returns the offset of the first wrong byte, or -1; -2: it cannot be read. */
int64_t inl_rt_compare(struct rt_node *leaf, uint8_t *buf);

/* ---- ciphers ---------------------------------------------------------------------------------------------------- */

struct rt_cipher {
	struct inl_key_config cfg;
	uint8_t bytes[INL_KEY_SIZE_MAX];
	size_t len;
	EVP_CIPHER_CTX *enc, *dec, *iv;
};
bool inl_rt_cipher_init(struct rt_cipher *cipher);
void inl_rt_cipher_done(struct rt_cipher *cipher);

/* dst may be src. */
bool inl_rt_crypt(struct rt_cipher *cipher, bool encrypt, rt_u128 dun, const uint8_t *src, uint8_t *dst, size_t len);

/* ---- plaintext that must not be found --------------------------------------------------------------------------- */

#define RT_WINDOW   16u /* bytes */
#define RT_N_HASHES 32768u

struct rt_windows {
	uint8_t maybe[8192]; /* a bit per 16 bits of each window's start */
	uint32_t n;
	uint64_t slot[RT_N_HASHES][2];
};
void inl_rt_windows_clear(struct rt_windows *windows);
void inl_rt_windows_add(struct rt_windows *windows, const uint8_t *bytes);
int64_t inl_rt_windows_find(const struct rt_windows *windows, const uint8_t *bytes, uint64_t len); /* offset or -1 */

#endif
