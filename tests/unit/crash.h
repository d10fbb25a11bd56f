/*
 * tests/unit/crash.h: what the files of the crash harness share: a recording device, images of crashes, a model, a
 * judge.
 * Not here: which points are tried (test_crash.c).
 * Read more: ARCHITECTURE.md, "The life of a change"; test_crash.c.
 */
#ifndef TESTS_UNIT_CRASH_H
#define TESTS_UNIT_CRASH_H

#include <inlay/driver.h>
#include <inlay/volume.h>
#include <pthread.h>

#define CR_SECTOR     512u
#define CR_COUNT(a)   (sizeof(a) / sizeof((a)[0]))
#define CR_MIN(a, b)  ((a) < (b) ? (a) : (b))
#define CR_MAX(a, b)  ((a) > (b) ? (a) : (b))
#define CR_NONE	      UINT32_MAX
#define CR_TEXT	      1024

/* ---- dice -------------------------------------------------------------------------------------------------------- */

struct cr_dice {
	uint64_t state;
};
uint64_t cr_throw(struct cr_dice *dice);
uint32_t cr_below(struct cr_dice *dice, uint32_t n);		       /* 0 .. n - 1 */
uint32_t cr_between(struct cr_dice *dice, uint32_t lo, uint32_t hi);   /* lo .. hi */
bool cr_chance(struct cr_dice *dice, uint32_t percent);

/* ---- crash_rec.c: a device that writes down what happens to it --------------------------------------------------- */

enum cr_kind { CR_WRITE, CR_FLUSH };

/* A write or a flush. A moment is the number of starts and ends before it, plus one. */
struct cr_event {
	enum cr_kind kind;
	bool fua;
	bool ignored; /* of a planted fault: as if this flush had never been */
	bool ok;
	uint64_t pos, len;
	uint64_t start, end; /* moments; end 0: it never ended */
	uint8_t *bytes;
};

/* An error for the n-th bio of an operation (from 1), or for all from there on. */
struct cr_fault {
	uint64_t nth;
	bool sticky;
};

struct cr_rec {
	uint8_t *bytes; /* the medium */
	uint64_t size;
	bool late;	/* bios end later, in any order, on another thread */
	bool recording;

	pthread_mutex_t lock; /* all that follows */
	struct cr_event *events;
	size_t n_events, room;
	uint64_t now;			 /* moments so far */
	uint64_t n_ops[INL_ZERO + 1];	 /* bios since the faults were set */
	struct cr_fault faults[INL_ZERO + 1];
	uint64_t failed_at[INL_ZERO + 1]; /* the moment of the first error; 0: none */
	uint64_t unstable;		 /* writes whose bytes were changed while they were under way */
	uint64_t bytes_written;

	pthread_cond_t cond;
	pthread_t thread;
	bool stop;
	struct cr_dice dice;
	struct {
		struct inl_bio *bio;
		size_t event;
	} pending[4096];
	unsigned n_pending;
};

/* The medium stays the caller's. */
struct cr_rec *cr_rec_new(uint8_t *bytes, uint64_t size, bool late, uint64_t seed, struct inl_dev **dev);
void cr_rec_free(struct cr_rec *rec); /* after its device has been closed */
uint64_t cr_rec_now(struct cr_rec *rec);
void cr_rec_fail(struct cr_rec *rec, enum inl_op op, uint64_t nth, bool sticky); /* nth 0: no more */

/* Faults that are planted in what was written down. */
enum cr_plant {
	CR_SOUND,
	CR_NO_FLUSH_BEFORE_COMMIT,
	CR_NO_FLUSH_AFTER_COMMIT,
	CR_NO_FLUSH_BEFORE_TAIL, /* of what was checkpointed, before the log forgets it */
	CR_NO_REVOKES,
	CR_LATE_DATA,  /* file data comes after the next commit */
	CR_EARLY_REUSE, /* of freed blocks: planted while the workload runs */
	CR_PLAIN_WRITES, /* of encrypted files, now and then: likewise */
	CR_N_PLANTS,
};
/* Returns how many places there were for the fault. */
unsigned cr_plant(struct cr_rec *rec, enum cr_plant plant);

/* What may be on the medium after a crash: which of the writes that no flush has covered. */
enum cr_variant {
	CR_ALL,	   /* a plain prefix */
	CR_DROP,   /* none */
	CR_SUBSET, /* some */
	CR_SHUFFLE, /* some, in any order */
	CR_TORN,   /* all, the last one in part */
	CR_SHRED,  /* of each write some sectors */
	CR_N_VARIANTS,
};
const char *cr_variant_name(enum cr_variant variant);

/* What is certainly on the medium, at a moment that only grows. */
struct cr_medium {
	const struct cr_rec *rec;
	uint8_t *bytes;
	uint64_t *stamps; /* per sector: when what is there was written */
	bool *applied;	  /* per event */
	size_t low;	  /* events before are all on the medium */
	size_t seen;	  /* events looked at for flushes */
	uint64_t covered; /* the start of the last flush that has ended */
};
void cr_medium_init(struct cr_medium *medium, const struct cr_rec *rec, const uint8_t *base);
void cr_medium_done(struct cr_medium *medium);
void cr_medium_image(struct cr_medium *medium, uint64_t moment, enum cr_variant variant, struct cr_dice *dice,
		     uint8_t *image);

/* ---- crash_model.c: what the volume must contain, at any time ---------------------------------------------------- */

#define CR_N_XATTRS 4

/* Ids of nodes, in their contents, with this bit and not the one above: those of an encrypted directory. */
#define CR_SECRET   0x4000u
#define CR_ID_OTHER 0x8000u

/* File content from here on: zeros, or the pattern of a generation. */
struct cr_seg {
	uint64_t at;
	uint32_t gen;
};

/* An inode from one operation on. */
struct cr_state {
	uint32_t op;
	uint32_t mode, nlink;
	uint64_t size;
	struct cr_seg *segs; /* sorted; the first is at 0 */
	uint32_t n_segs;
	struct {
		uint32_t gen, len; /* gen 0: not there */
	} xattrs[CR_N_XATTRS];
	bool tainted; /* a failed write: what is in it is not known */
};

struct cr_node {
	uint32_t id;  /* in its contents */
	uint8_t type; /* DT_* */
	uint64_t ino;
	struct cr_state *states;
	uint32_t n_states, room;
	uint32_t first; /* entry of this directory; CR_NONE */
	char *target;	/* of a symbolic link */
	size_t target_len;
	struct inl_inode *handle; /* kept open */
	bool has_acl;	/* an access ACL, which says what the mode says */
	bool gives_acl; /* a directory with a default ACL */
};

/* A name in the states [from, to). */
struct cr_entry {
	uint32_t dir, node, from, to, next;
	uint8_t len;
	char name[INL_NAME_MAX + 1];
};

struct cr_op {
	uint64_t start;	   /* moment */
	uint32_t partial;  /* node that it changes in steps; CR_NONE */
	char what[48];
};

struct cr_ack {
	uint32_t op;
	uint64_t moment;
};

/* Operations are numbered from 1; state 0 is how it began. Node 0 is the directory that all is in. */
struct cr_model {
	char root[16];
	bool secret; /* all of it is encrypted with this policy */
	struct inl_policy policy;
	uint32_t id_base;
	struct cr_node *nodes;
	uint32_t n_nodes, nodes_room;
	struct cr_entry *entries;
	uint32_t n_entries, entries_room;
	struct cr_op *ops;
	uint32_t n_ops, ops_room;
	struct cr_ack *acks;
	uint32_t n_acks, acks_room;
};

void cr_model_init(struct cr_model *model, const char *root, uint32_t id_base);
void cr_model_done(struct cr_model *model);
uint32_t cr_op_begin(struct cr_model *model, uint64_t moment, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void cr_ack(struct cr_model *model, uint64_t moment);
uint32_t cr_node_add(struct cr_model *model, uint8_t type, uint32_t mode);
struct cr_state *cr_node_change(struct cr_model *model, uint32_t node); /* its state, for this operation to change */
const struct cr_state *cr_node_now(const struct cr_model *model, uint32_t node);
const struct cr_state *cr_node_at(const struct cr_node *node, uint32_t op);
void cr_entry_add(struct cr_model *model, uint32_t dir, const char *name, size_t len, uint32_t node);
void cr_entry_remove(struct cr_model *model, uint32_t entry);
uint32_t cr_entry_find(const struct cr_model *model, uint32_t dir, const char *name, size_t len);
void cr_segs_set(struct cr_state *state, uint64_t from, uint64_t to, uint32_t gen); /* to UINT64_MAX: all the rest */
uint32_t cr_segs_gen(const struct cr_state *state, uint64_t at);

/* Bytes [at, at + len) of the pattern of a file in a generation. */
void cr_pattern(uint32_t id, uint32_t gen, uint64_t at, uint8_t *out, size_t len);
/* Is there pattern in a sector? Whose, from where? */
bool cr_pattern_find(const uint8_t *sector, uint32_t *id, uint32_t *gen, uint64_t *at);
void cr_xattr_name(unsigned i, char name[32]);
void cr_xattr_value(uint32_t id, uint32_t gen, uint8_t *out, size_t len);

/* ---- crash_crypt.c: encryption: keys, marks, and what there is to see without keys ------------------------------- */

/* How a directory is encrypted. NULL: it is not. */
struct cr_crypt {
	uint8_t flags;	    /* of the policy */
	uint8_t unit_bits;  /* log2 of the data unit size; 0: the block */
	uint8_t key_len;
};
void cr_policy(const struct cr_crypt *crypt, struct inl_policy *policy);
struct inl_keyring *cr_keys_new(const struct cr_crypt *crypt); /* NULL for NULL */

/*
 * A process that was forked has no secret memory (MADV_DONTFORK), and here it shall have keys of its own: note before the
 * fork where that memory is; renew it in the child, before anything else is put there. The parent's keys stay the
 * parent's.
 */
void cr_secrets_note(void);
void cr_secrets_renew(void);

/*
 * Bytes that are in every 64 bytes of encrypted contents, in names of 16 bytes or more and in most targets; and others
 * that are in a plain file of the same volume, to see that the search finds what there is. Other ones in every run.
 */
#define CR_MARK 8
extern uint8_t cr_mark[CR_MARK], cr_control[CR_MARK];
void cr_marks_draw(uint64_t seed);
bool cr_mark_find(const uint8_t *bytes, size_t len, const uint8_t mark[CR_MARK], size_t *at);
void cr_mark_put(uint8_t *bytes, size_t len, size_t from, size_t step);

/* The plain file. Returns 0 or a negative errno. */
int cr_control_make(struct inl_volume *vol, struct inl_diag *diag);

/* No plaintext of anything encrypted is there, and the plain file is. Or false, and where. */
bool cr_marks_judge(const uint8_t *bytes, size_t len, char text[CR_TEXT]);

/*
 * What is below an encrypted directory, without its key: all can be listed and looked up, no file read, no data written.
 *
 *   before, now  the medium before the volume was opened, and as it is; before may be NULL
 */
bool cr_locked_judge(struct inl_volume *vol, const char *root, const uint8_t *before, const uint8_t *now,
		     char text[CR_TEXT]);

/* Remove all of it, and the directory. */
bool cr_locked_remove(struct inl_volume *vol, const char *root, char text[CR_TEXT]);

/* With the key: make every file longer, in one of three ways. What is between is zeros. */
bool cr_tails_judge(struct inl_volume *vol, const char *root, struct cr_dice *dice, char text[CR_TEXT]);

/* ---- crash_walk.c: what a volume does contain, and whether it may ------------------------------------------------ */

/*
 * Is what is below the model's directory of this volume a state that it may be in after a crash at this moment?
 * Returns true, or false and why not.
 */
bool cr_judge(const struct cr_model *model, struct inl_volume *vol, uint64_t moment, char text[CR_TEXT]);

/*
 * e2fsck 1.47 has replayed: where it finishes the truncation of a file on the orphan list it frees the block of the
 * file's attributes as well (that of a file that is deleted would have to go). A regular file may then have none at
 * all.
 */
extern bool cr_after_e2fsck;

/* The same, of one certain state. */
bool cr_judge_now(const struct cr_model *model, struct inl_volume *vol, char text[CR_TEXT]);

/* ---- crash_ops.c: a workload ------------------------------------------------------------------------------------- */

struct cr_actor {
	struct cr_model model;
	struct cr_rec *rec;
	struct inl_volume *vol;
	struct cr_dice dice;
	uint32_t gen;
	uint32_t sync_percent;
	uint64_t max_bytes; /* of all files together */
	bool unwritten;	    /* fallocate works */
	bool errors_ok;	    /* the device fails */
	bool sync_failed;
	char error[CR_TEXT]; /* "" or what should not have happened */
};

void cr_actor_init(struct cr_actor *actor, struct cr_rec *rec, const char *root, uint32_t id_base, uint64_t seed);
void cr_actor_done(struct cr_actor *actor);

/* Make the actor's directory, and in it a directory of long names and some files. Not recorded. */
void cr_actor_setup(struct cr_actor *actor, struct inl_volume *vol, unsigned n_names);

/* n operations at random. Stops at what should not have happened. */
void cr_actor_run(struct cr_actor *actor, unsigned n);
void cr_actor_step(struct cr_actor *actor);
void cr_actor_sync(struct cr_actor *actor);

/* Let go of all inodes, before the volume is closed. */
void cr_actor_release(struct cr_actor *actor);

#endif
