/*
 * tests/unit/misuse.h: a device in memory whose driver does what it is told, and a table that is held against the headers.
 * Not here: the misuses (test_misuse.c: of callers; test_misuse_driver.c: of drivers).
 * Read more: inlay/driver.h.
 */
#ifndef INLAY_TESTS_MISUSE_H
#define INLAY_TESTS_MISUSE_H

#include <errno.h>
#include <inlay/driver.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define UNIT  4096u
#define SIZE  (64u << 10)
#define BLOCK 512u

/* ---- a device in memory, and what its driver is to do wrong ------------------------------------------------------ */

struct box;
typedef void box_fn(struct inl_dev *dev, struct inl_bio *bio);

struct box {
	uint8_t mem[SIZE];
	box_fn *submit;	      /* NULL: as it should */
	struct inl_bio *held; /* by whoever holds one */
	unsigned n_arrived, n_again;
	unsigned programs, evicts, reprogrammed;
	int fail;
	struct inl_cross *cross;
	struct inl_dev_extent extent; /* the answer of the map */
	bool closed;
};

static inline void box_answer(struct inl_dev *dev, struct inl_bio *bio)
{
	struct box *box = inl_dev_priv(dev);

	if (bio->op == INL_READ)
		inl_bio_copy_in(bio, 0, box->mem + bio->state.pos, bio->len);
	else if (bio->op == INL_WRITE)
		inl_bio_copy_out(bio, 0, box->mem + bio->state.pos, bio->len);
	inl_bio_end(bio, box->fail);
}

static inline void box_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct box *box = inl_dev_priv(dev);

	box->n_arrived++;
	if (box->submit)
		box->submit(dev, bio);
	else
		box_answer(dev, bio);
}

static inline void box_map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	*out = ((struct box *)inl_dev_priv(dev))->extent;
}

static inline int box_program(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	((struct box *)inl_dev_priv(dev))->programs++;
	return 0;
}

static inline int box_evict(struct inl_dev *dev, unsigned slot, const struct inl_key *key)
{
	((struct box *)inl_dev_priv(dev))->evicts++;
	return 0;
}

static inline void box_reprogrammed(struct inl_dev *dev)
{
	((struct box *)inl_dev_priv(dev))->reprogrammed++;
}

static inline void box_close(struct inl_dev *dev)
{
	struct box *box = inl_dev_priv(dev);

	inl_cross_free(box->cross);
	box->closed = true;
}

static const struct inl_dev_ops box_ops = {
	.name = "box",
	.submit = box_submit,
	.close = box_close,
	.key_program = box_program,
	.key_evict = box_evict,
	.reprogrammed = box_reprogrammed,
};

static const struct inl_dev_ops map_ops = { .name = "map", .map = box_map };
static const struct inl_dev_ops other_ops = { .name = "other", .submit = box_submit };

static __attribute__((unused)) struct box boxes[4];

/* Box i as a device, on child if there is one; n_slots < 0: no engine. */
static inline struct inl_dev *make(unsigned i, const struct inl_dev_ops *ops, int n_slots, struct inl_dev *child)
{
	struct inl_dev_params params = { .size = SIZE, .writable = true, .children = &child, .n_children = child != NULL };
	struct inl_dev *dev;

	memset(&boxes[i], 0, sizeof(boxes[i]));
	if (n_slots >= 0) {
		params.has_engine = true;
		params.n_slots = (unsigned)n_slots;
		params.caps.modes[INL_BLK_MODE_AES_256_XTS] = UNIT;
		params.caps.max_dun_bytes = 8;
		params.caps.key_types = INL_KEY_RAW;
	}
	assert_int_equal(inl_dev_new(ops, &boxes[i], &params, &dev), 0);
	return dev;
}

static inline struct inl_dev *box(void)
{
	return make(0, &box_ops, -1, NULL);
}

static inline struct inl_key *key_of_type(enum inl_key_type type, uint32_t dun_bytes)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, dun_bytes, type };
	struct inl_key *key;
	uint8_t bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 5 + 1);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	return key;
}

static inline struct inl_key_use *start(struct inl_dev *dev)
{
	struct inl_key *key = key_of_type(INL_KEY_RAW, 8);
	struct inl_key_use *use;

	assert_int_equal(inl_key_start(dev, key, &use), 0);
	inl_key_put(key);
	return use;
}

static inline struct inl_counters counters(const struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(dev, &c);
	return c;
}

/* A bio that counts its ends. */
struct watched {
	struct inl_bio bio;
	struct iovec seg;
	uint8_t buf[UNIT];
	unsigned n_done;
	int status;
	void (*then)(struct watched *watched);
	struct inl_dev *dev;
	struct inl_queue *queue;
	struct inl_key_use *use;
	int answer;
};

static inline void watched_done(struct inl_bio *bio)
{
	struct watched *watched = bio->private_data;

	watched->n_done++;
	watched->status = bio->status;
	if (watched->then)
		watched->then(watched);
}

static inline void watch(struct watched *watched)
{
	watched->bio.done = watched_done;
	watched->bio.private_data = watched;
}

static inline struct watched *watched_read(struct watched *watched, uint64_t offset)
{
	memset(watched, 0, sizeof(*watched));
	watched->seg = (struct iovec){ watched->buf, sizeof(watched->buf) };
	inl_bio_init_plain(&watched->bio, INL_READ, offset, &watched->seg, 1);
	watch(watched);
	return watched;
}

/* A refused bio ends once, with this, and nothing reaches the driver. */
static inline void refused(struct inl_dev *dev, struct inl_bio *bio, int err)
{
	unsigned n_arrived = boxes[0].n_arrived;
	uint64_t errors = counters(dev).errors;

	assert_int_equal(inl_submit_wait(dev, bio), err);
	assert_int_equal(boxes[0].n_arrived, n_arrived);
	assert_int_equal(counters(dev).errors, errors + 1);
}

static uint8_t buf[2 * UNIT];

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* A test, and which calls it misuses. */
struct row {
	void (*test)(void **state);
	const char *calls;
};

static inline bool has_row(const struct row *rows, const char *call)
{
	size_t len = strlen(call);

	for (; rows->test; rows++)
		for (const char *at = rows->calls; (at = strstr(at, call)); at += len)
			if ((at == rows->calls || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
				return true;
	return false;
}

/* The name of the function that a line of a header declares; NULL: none. */
static inline const char *declared(char *line)
{
	char *at = strstr(line, "inl_"), *end = strchr(line, '(');

	if (strncmp(line, "INL_API ", 8) || !at || !end)
		return NULL;
	*end = '\0';
	while (end > line && end[-1] != ' ' && end[-1] != '*')
		end--;
	return end;
}

/* Every call that the header declares has a row. Returns how many there are. */
static inline unsigned check_header(const char *path, const struct row *rows)
{
	char line[512];
	unsigned n = 0;
	FILE *file = fopen(path, "r");

	if (!file) {
		print_message("skipped: %s is not here\n", path);
		skip();
	}
	while (fgets(line, sizeof(line), file)) {
		const char *call = declared(line);

		if (!call)
			continue;
		n++;
		if (!has_row(rows, call))
			fail_msg("%s has no row", call);
	}
	fclose(file);
	return n;
}

#define N_ROWS_MAX 64

static inline int run_rows(const struct row *rows, void (*check_rows)(void **state))
{
	struct CMUnitTest tests[N_ROWS_MAX + 1] = { { .name = "every call has a row", .test_func = check_rows } };
	unsigned n = 1;

	for (; rows->test && n <= N_ROWS_MAX; rows++)
		tests[n++] = (struct CMUnitTest){ .name = rows->calls, .test_func = rows->test };
	return _cmocka_run_group_tests("misuse", tests, n, NULL, NULL);
}

#endif
