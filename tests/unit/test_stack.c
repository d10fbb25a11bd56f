/*
 * tests/unit/test_stack.c: linear, stripe and fault: where every byte lies, which data unit it is, and what goes wrong.
 * Not here: the SPEC language itself (test_drivers.c); random stacks of all drivers (the routes test).
 * Read more: drivers/linear.c, drivers/stripe.c, drivers/fault.c.
 *
 * Oracles: a model that deals out bytes one block after the other, slowly; OpenSSL's one-shot AES-256-XTS for every data
 * unit.
 */
#include "drivers/drivers.h"
#include "pattern.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB 1024u
#define MIB (1024u * KIB)
#define MS  1000000ull /* ns */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

static char dir[64]; /* for everything that the tests make */

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static const char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *format(const char *fmt, ...)
{
	static char text[8][2048];
	static unsigned turn;
	char *p = text[turn++ % 8];
	va_list args;

	va_start(args, fmt);
	vsnprintf(p, sizeof(text[0]), fmt, args);
	va_end(args);
	return p;
}

static struct inl_dev *open_dev(const char *spec, unsigned flags)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = NULL;
	int err = inl_dev_open(spec, flags, &diag, &dev);

	if (err)
		fail_msg("%s: %d, %s", spec, err, diag.text);
	assert_non_null(dev);
	return dev;
}

/* The error, and text somewhere in its explanation. */
static void refuses(const char *spec, unsigned flags, int want, const char *text)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev;
	int err = inl_dev_open(spec, flags, &diag, &dev);

	if (err != want || diag.err != want || !strstr(diag.text, text))
		fail_msg("%s: %d, \"%s\"; expected %d, \"%s\"", spec, err, diag.text, want, text);
	assert_int_equal(inl_dev_open(spec, flags, NULL, &dev), want);
}

static void control(struct inl_dev *dev, const char *command)
{
	struct inl_diag diag = { 0 };
	int err = inl_dev_control(dev, command, &diag);

	if (err)
		fail_msg("%s: %d, %s", command, err, diag.text);
}

static int range_op(struct inl_dev *dev, enum inl_op op, uint64_t offset, uint64_t len)
{
	struct inl_bio bio;

	inl_bio_init_range(&bio, op, offset, len);
	return inl_submit_wait(dev, &bio);
}

static void read_raw(struct inl_dev *dev, uint64_t offset, void *buf, size_t len)
{
	struct iovec seg = { buf, len };
	struct inl_bio bio;

	inl_bio_init_raw_read(&bio, offset, &seg, 1);
	assert_int_equal(inl_submit_wait(dev, &bio), 0);
}

static void fill(uint8_t *bytes, size_t len, uint64_t *seed)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = dice(seed);

		memcpy(bytes + i, &x, len - i < 8 ? len - i : 8);
	}
}

static bool all_equal(const uint8_t *bytes, size_t len, uint8_t value)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i] != value)
			return false;
	}
	return true;
}

static struct inl_counters counters_of(const struct inl_dev *dev)
{
	struct inl_counters counters;

	inl_dev_counters(dev, &counters);
	return counters;
}

/* The device at the bottom of the leftmost branch. */
static struct inl_dev *leaf(struct inl_dev *dev)
{
	while (inl_dev_child(dev, 0))
		dev = inl_dev_child(dev, 0);
	return dev;
}

/* ---- keys, and what OpenSSL makes of them ------------------------------------------------------------------------ */

static struct inl_key *make_key(uint64_t n, uint32_t unit, uint32_t dun_bytes)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, unit, dun_bytes, INL_KEY_RAW };
	uint8_t bytes[64];
	struct inl_key *key;

	key_bytes(n, bytes);
	assert_int_equal(inl_key_new(&cfg, bytes, sizeof(bytes), &key), 0);
	return key;
}

static void encrypt_unit(uint64_t key, const uint64_t dun[2], const uint8_t *plain, uint8_t *cipher, uint32_t unit)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t bytes[64], iv[16];
	int n = 0;

	key_bytes(key, bytes);
	for (unsigned i = 0; i < 16; i++)
		iv[i] = (uint8_t)(dun[i / 8] >> 8 * (i % 8));
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_xts(), NULL, bytes, iv), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, cipher, &n, plain, (int)unit), 1);
	assert_int_equal(n, unit);
	EVP_CIPHER_CTX_free(ctx);
}

/* dun + i, in 128 bits. */
static void nth_dun(const uint64_t dun[4], uint64_t i, uint64_t out[2])
{
	unsigned __int128 sum = ((unsigned __int128)dun[1] << 64 | dun[0]) + i;

	out[0] = (uint64_t)sum;
	out[1] = (uint64_t)(sum >> 64);
}

static void encrypt(uint64_t key, const uint64_t dun[4], const uint8_t *plain, uint8_t *cipher, size_t len, uint32_t unit)
{
	uint64_t d[2];

	for (size_t at = 0; at < len; at += unit) {
		nth_dun(dun, at / unit, d);
		encrypt_unit(key, d, plain + at, cipher + at, unit);
	}
}

/* ---- the slow model ---------------------------------------------------------------------------------------------- */

#define MAX_CHILDREN 16

struct model {
	bool stripe;
	unsigned n;
	uint64_t sizes[MAX_CHILDREN]; /* bytes that each child has */
	uint32_t block_size;
	uint64_t chunk;
	uint64_t size;		      /* of the stack */
};

/* How much of child i is used. */
static uint64_t used_of(const struct model *m, unsigned i)
{
	uint64_t least = m->sizes[i];

	if (!m->stripe)
		return m->sizes[i] - m->sizes[i] % m->block_size;
	for (unsigned j = 0; j < m->n; j++)
		least = m->sizes[j] < least ? m->sizes[j] : least;
	return least - least % m->chunk;
}

/* Deal out the bytes before pos, and see where the next one goes. */
static unsigned locate(const struct model *m, uint64_t pos, uint64_t *child_pos)
{
	uint64_t at[MAX_CHILDREN] = { 0 };
	unsigned turn = 0;

	if (!m->stripe) {
		for (; pos >= used_of(m, turn); turn++)
			pos -= used_of(m, turn);
		*child_pos = pos;
		return turn;
	}
	for (; pos >= m->chunk; pos -= m->chunk) {
		at[turn] += m->chunk;
		turn = (turn + 1) % m->n;
	}
	*child_pos = at[turn] + pos;
	return turn;
}

/* What lies on the children is what the stack should hold, block by block; what they do not lend it is zero. */
static void check_children(struct inl_dev *dev, const struct model *m, const uint8_t *flat, const char *spec)
{
	uint8_t *raw[MAX_CHILDREN];
	uint64_t pos;
	unsigned i;

	for (i = 0; i < m->n; i++) {
		raw[i] = malloc(m->sizes[i]);
		assert_non_null(raw[i]);
		assert_int_equal(inl_dev_size(leaf(inl_dev_child(dev, i))), m->sizes[i]);
		read_raw(leaf(inl_dev_child(dev, i)), 0, raw[i], m->sizes[i]);
	}
	for (pos = 0; pos < m->size; pos += m->block_size) {
		uint64_t child_pos;

		i = locate(m, pos, &child_pos);
		if (memcmp(raw[i] + child_pos, flat + pos, m->block_size))
			fail_msg("%s: the bytes from %llu on are not at %llu of device %u", spec, (unsigned long long)pos,
				 (unsigned long long)child_pos, i);
	}
	for (i = 0; i < m->n; i++) {
		if (!all_equal(raw[i] + used_of(m, i), m->sizes[i] - used_of(m, i), 0))
			fail_msg("%s: something was written behind the end of device %u", spec, i);
		free(raw[i]);
	}
}

/* Random devices under a random linear or stripe; each is made of `wraps`, texts with one %s for a ram device. */
static char *random_stack(uint64_t *seed, const char *const *wraps, unsigned n_wraps, uint64_t child_max,
			  uint32_t block_size_max, struct model *m)
{
	size_t size = 4096, used;
	char *spec = malloc(size);
	unsigned block_bits_max = (unsigned)__builtin_ctz(block_size_max);

	assert_non_null(spec);
	memset(m, 0, sizeof(*m));
	m->stripe = roll(seed, 2);
	m->n = roll(seed, 8) ? 1 + roll(seed, 5) : MAX_CHILDREN;
	m->block_size = 512;
	m->chunk = m->stripe ? (uint64_t)512 << roll(seed, 8) : 0;
	used = (size_t)snprintf(spec, size, "%s(", m->stripe ? "stripe" : "linear");
	for (unsigned i = 0; i < m->n; i++) {
		uint32_t block_size = 512u << (roll(seed, 2) ? roll(seed, block_bits_max - 8) : 0);
		uint64_t len = m->chunk + block_size_max + dice(seed) % child_max;
		char ram[64];

		snprintf(ram, sizeof(ram), "ram(%llu, block_size=%u)", (unsigned long long)len, block_size);
		m->sizes[i] = len - len % block_size;
		m->block_size = block_size > m->block_size ? block_size : m->block_size;
		used += (size_t)snprintf(spec + used, size - used, "%s", i ? ", " : "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		used += (size_t)snprintf(spec + used, size - used, wraps[roll(seed, n_wraps)], ram);
#pragma GCC diagnostic pop
	}
	if (m->stripe && m->chunk < m->block_size)
		m->chunk = m->block_size;
	if (m->stripe)
		snprintf(spec + used, size - used, ", chunk=%llu)", (unsigned long long)m->chunk);
	else
		snprintf(spec + used, size - used, ")");
	for (unsigned i = 0; i < m->n; i++)
		m->size += used_of(m, i);
	return spec;
}

/* Offset and length of a random range, in whole blocks. */
static void random_range(uint64_t *seed, const struct model *m, uint64_t *pos, uint64_t *len)
{
	uint64_t n = m->size / m->block_size;

	*pos = dice(seed) % n;
	*len = 1 + dice(seed) % (n - *pos < 200 || !roll(seed, 8) ? n - *pos : 200);
	*pos *= m->block_size;
	*len *= m->block_size;
}

/* ---- where the bytes lie ----------------------------------------------------------------------------------------- */

static void random_op(struct inl_dev *dev, const struct model *m, uint8_t *flat, uint8_t *buf, uint64_t *seed,
		      const char *spec)
{
	uint64_t pos, len;

	random_range(seed, m, &pos, &len);
	switch (roll(seed, 4)) {
	case 0:
		fill(flat + pos, len, seed);
		assert_int_equal(inl_dev_write(dev, pos, flat + pos, len), 0);
		break;
	case 1:
		memset(flat + pos, 0, len);
		assert_int_equal(range_op(dev, INL_ZERO, pos, len), 0);
		break;
	case 2:
		memset(flat + pos, 0, len); /* as ram discards */
		assert_int_equal(range_op(dev, INL_DISCARD, pos, len), 0);
		break;
	default:
		assert_int_equal(inl_dev_read(dev, pos, buf, len), 0);
		if (memcmp(buf, flat + pos, len))
			fail_msg("%s: %llu bytes from %llu on read back otherwise", spec, (unsigned long long)len,
				 (unsigned long long)pos);
		break;
	}
}

/* How many pieces a bio for all of the device comes in. */
static uint64_t n_pieces(const struct model *m)
{
	if (m->n == 1)
		return 0;
	return m->stripe ? m->size / m->chunk : m->n;
}

static void check_layout(uint64_t seed)
{
	static const char *const wraps[] = { "%s", "slice(%s)", "fault(%s)" };
	struct model m;
	char *spec = random_stack(&seed, wraps, 3, 300 * KIB, 8192, &m);
	struct inl_dev *dev = open_dev(spec, INL_OPEN_WRITE);
	uint8_t *flat = malloc(m.size), *buf = malloc(m.size);

	assert_int_equal(inl_dev_size(dev), m.size);
	assert_int_equal(inl_dev_block_size(dev), m.block_size);
	fill(flat, m.size, &seed);
	assert_int_equal(inl_dev_write(dev, 0, flat, m.size), 0);
	if (counters_of(dev).splits != n_pieces(&m))
		fail_msg("%s: %llu pieces, expected %llu", spec, (unsigned long long)counters_of(dev).splits,
			 (unsigned long long)n_pieces(&m));
	check_children(dev, &m, flat, spec);
	assert_int_equal(inl_dev_read(dev, 0, buf, m.size), 0);
	assert_memory_equal(buf, flat, m.size);
	for (unsigned i = 0; i < 60; i++)
		random_op(dev, &m, flat, buf, &seed, spec);
	check_children(dev, &m, flat, spec);
	assert_int_equal(inl_dev_read(dev, m.size, buf, m.block_size), -ENXIO);
	assert_int_equal(inl_dev_write(dev, m.size - m.block_size, buf, 2 * m.block_size), -ENXIO);
	inl_dev_close(dev);
	free(spec);
	free(flat);
	free(buf);
}

static void test_layout(void **state)
{
	for (unsigned i = 0; i < (SLOW ? 40 : 200); i++)
		check_layout(i);
}

/* By hand, so that the model has an oracle too. */
static void test_layout_by_hand(void **state)
{
	static const struct {
		const char *spec;
		const char *flat;   /* of every block of 512, the device and the block there */
	} rows[] = {
		{ "linear(ram(1K), ram(512), ram(1536))", "00 01 10 20 21 22" },
		{ "linear(ram(1536), ram(2K, block_size=1K))", "00 01 10 11 12 13" },
		{ "stripe(ram(1K), ram(1K), ram(1K), chunk=512)", "00 10 20 01 11 21" },
		{ "stripe(ram(5K), ram(4K), chunk=1K)", "00 01 10 11 02 03 12 13 04 05 14 15 06 07 16 17" },
		{ "stripe(ram(3K), ram(4K), chunk=2K)", "00 01 02 03 10 11 12 13" },
		{ "stripe(ram(2K), chunk=1K)", "00 01 02 03" },
		{ "linear(ram(512), stripe(ram(512), ram(512), chunk=512))", "00 10 11" },
	};
	uint8_t block[512], back[512];

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_dev *dev = open_dev(rows[i].spec, INL_OPEN_WRITE);
		size_t n = (strlen(rows[i].flat) + 1) / 3, step = inl_dev_block_size(dev) / 512;

		assert_int_equal(inl_dev_size(dev), n * 512);
		for (size_t b = 0; b < n; b += step) {
			uint8_t *whole = calloc(1, step * 512);

			for (size_t j = 0; j < step; j++)
				memset(whole + j * 512, (int)(b + j + 1), 512);
			assert_int_equal(inl_dev_write(dev, b * 512, whole, step * 512), 0);
			free(whole);
		}
		for (size_t b = 0; b < n; b++) {
			struct inl_dev *child = inl_dev_child(dev, (unsigned)(rows[i].flat[3 * b] - '0'));
			size_t child_step = inl_dev_block_size(child) / 512, at = (size_t)(rows[i].flat[3 * b + 1] - '0');
			uint8_t *whole = malloc(child_step * 512);

			memset(block, (int)b + 1, sizeof(block));
			read_raw(child, at / child_step * child_step * 512, whole, child_step * 512);
			memcpy(back, whole + at % child_step * 512, 512);
			free(whole);
			if (memcmp(back, block, 512))
				fail_msg("%s: block %zu", rows[i].spec, b);
		}
		inl_dev_close(dev);
	}
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

/* Sum over the whole tree. */
static void count_units(const struct inl_dev *dev, uint64_t *engine, uint64_t *fallback)
{
	struct inl_counters c = counters_of(dev);

	*engine += c.engine_units_encrypted + c.engine_units_decrypted;
	*fallback += c.fallback_units_encrypted + c.fallback_units_decrypted;
	for (unsigned i = 0; inl_dev_child(dev, i); i++)
		count_units(inl_dev_child(dev, i), engine, fallback);
}

/* Cut a buffer into segments of whole data units. */
static unsigned cut(uint64_t *seed, uint8_t *buf, uint64_t len, uint32_t unit, struct iovec *segs, unsigned max)
{
	unsigned n = 0;

	while (len && n + 1 < max) {
		uint64_t part = (1 + dice(seed) % (len / unit)) * unit;

		segs[n++] = (struct iovec){ buf, part };
		buf += part;
		len -= part;
	}
	if (len)
		segs[n++] = (struct iovec){ buf, len };
	return n;
}

static void random_dun(uint64_t *seed, uint64_t dun[4])
{
	memset(dun, 0, 32);
	switch (roll(seed, 3)) {
	case 0:
		dun[0] = dice(seed);
		break;
	case 1: /* carries within the bio */
		dun[0] = UINT64_MAX - roll(seed, 8);
		dun[1] = roll(seed, 2) ? roll(seed, 100) : dice(seed) >> 1;
		break;
	default:
		dun[0] = dice(seed);
		dun[1] = dice(seed) >> 1;
		break;
	}
}

struct keyed {
	struct inl_dev *dev;
	struct inl_key_use *use;
	uint64_t key;
	uint32_t unit;
	uint64_t n_units;      /* moved so far */
	bool cut;	       /* an offset was no multiple of the unit */
	uint8_t *plain, *flat; /* flat: ciphertext, as the medium should be */
	uint8_t *back;
	const char *spec;
};

/* Write somewhere, and read it back in other segments. */
static void keyed_op(struct keyed *k, const struct model *m, uint64_t *seed, bool aligned)
{
	uint64_t step = aligned && k->unit > m->block_size ? k->unit : m->block_size;
	uint64_t least = k->unit > m->block_size ? k->unit : m->block_size;
	uint64_t max = (m->size < 20 * k->unit ? m->size : 20 * k->unit) / least;
	uint64_t len, pos;
	struct inl_crypt_ctx ctx = { .use = k->use };
	struct iovec segs[7];
	struct inl_bio bio;

	if (!max)
		return;
	len = (1 + dice(seed) % max) * least;
	pos = dice(seed) % ((m->size - len) / step + 1) * step;
	k->cut |= pos % k->unit != 0;
	random_dun(seed, ctx.dun);
	fill(k->plain, len, seed);
	encrypt(k->key, ctx.dun, k->plain, k->flat + pos, len, k->unit);
	memcpy(k->back, k->plain, len);
	inl_bio_init_keyed(&bio, INL_WRITE, pos, segs, cut(seed, k->back, len, k->unit, segs, 7), &ctx);
	assert_int_equal(inl_submit_wait(k->dev, &bio), 0);
	assert_memory_equal(k->back, k->plain, len); /* the caller's buffer is his */
	memset(k->back, 0xee, len);
	inl_bio_init_keyed(&bio, INL_READ, pos, segs, cut(seed, k->back, len, k->unit, segs, 7), &ctx);
	assert_int_equal(inl_submit_wait(k->dev, &bio), 0);
	if (memcmp(k->back, k->plain, len))
		fail_msg("%s: data units of %u, %llu bytes from %llu on read back otherwise", k->spec, k->unit,
			 (unsigned long long)len, (unsigned long long)pos);
	k->n_units += 2 * len / k->unit;
}

/* Does a boundary lie within a data unit, if the first one begins at 0? */
static bool cuts(const struct model *m, uint32_t unit)
{
	uint64_t boundary = 0;

	if (m->stripe)
		return m->n > 1 && unit > m->chunk;
	for (unsigned i = 0; i + 1 < m->n; i++) {
		boundary += used_of(m, i);
		if (boundary % unit)
			return true;
	}
	return false;
}

/*
 * Random stacks with engines below all, some or none of the children: every byte of the medium is what OpenSSL says, and
 * every data unit was crossed once.
 *
 *   native   every child has an engine: it must be they who work wherever no boundary cuts a data unit
 */
static void check_keyed_stack(uint64_t seed, const char *const *wraps, unsigned n_wraps, bool native, bool aligned)
{
	uint32_t unit = 512u << roll(&seed, 8);
	struct model m;
	char *spec = random_stack(&seed, wraps, n_wraps, 300 * KIB, 4096, &m);
	struct keyed k = { .dev = open_dev(spec, INL_OPEN_WRITE), .key = seed, .unit = unit, .spec = spec };
	struct inl_key *key = make_key(seed, unit, 16);
	uint64_t engine = 0, fallback = 0;

	k.plain = malloc(m.size);
	k.back = malloc(m.size);
	k.flat = calloc(1, m.size);
	assert_int_equal(inl_key_start(k.dev, key, &k.use), 0);
	for (unsigned i = 0; i < 12; i++)
		keyed_op(&k, &m, &seed, aligned);
	check_children(k.dev, &m, k.flat, spec);
	read_raw(k.dev, 0, k.back, m.size);
	assert_memory_equal(k.back, k.flat, m.size);
	count_units(k.dev, &engine, &fallback);
	assert_int_equal(engine + fallback, k.n_units);
	if (native && !k.cut && !cuts(&m, unit))
		assert_int_equal(fallback, 0);
	assert_int_equal(inl_key_evict(k.use), 0);
	inl_key_put(key);
	inl_dev_close(k.dev);
	free(spec);
	free(k.plain);
	free(k.flat);
	free(k.back);
}

static const char *const with_engines[] = { "engine(%s, slots=1, dun_bytes=16)", "engine(%s, slots=0, dun_bytes=16)",
					    "fault(engine(%s, slots=2, dun_bytes=16))" };
static const char *const without_engines[] = { "%s", "fault(%s)", "slice(%s)" };
static const char *const mixed[] = { "engine(%s, slots=1, dun_bytes=16)", "%s", "engine(%s, modes=AES-128-CBC-ESSIV)",
				     "engine(%s, slots=0, dun_bytes=8)", "engine(%s, unit=512+4096, dun_bytes=16)" };

static void test_keyed_engines(void **state)
{
	for (unsigned i = 0; i < (SLOW ? 40 : 200); i++)
		check_keyed_stack(1000 + i, with_engines, 3, true, i % 2);
}

static void test_keyed_fallback(void **state)
{
	for (unsigned i = 0; i < (SLOW ? 20 : 100); i++)
		check_keyed_stack(2000 + i, without_engines, 3, false, i % 2);
}

static void test_keyed_mixed(void **state)
{
	for (unsigned i = 0; i < (SLOW ? 30 : 150); i++)
		check_keyed_stack(3000 + i, mixed, 5, false, i % 2);
}

/* One write through every boundary, the lowest 64 bits of the DUN carrying at one of them. */
static void test_dun_carries_at_boundary(void **state)
{
	static const char *const specs[] = {
		"linear(engine(ram(16K), slots=1, dun_bytes=16), engine(ram(16K), slots=1, dun_bytes=16))",
		"stripe(engine(ram(16K), slots=1, dun_bytes=16), engine(ram(16K), slots=1, dun_bytes=16), chunk=16K)",
		"linear(ram(16K), ram(16K))",
		"linear(engine(ram(16K), slots=1, dun_bytes=16), ram(16K))",
	};
	uint8_t plain[32 * KIB], want[32 * KIB], back[32 * KIB];
	uint64_t seed = 7;

	fill(plain, sizeof(plain), &seed);
	for (unsigned i = 0; i < 4; i++) {
		struct inl_dev *dev = open_dev(specs[i], INL_OPEN_WRITE);
		struct inl_key *key = make_key(5, 4096, 16);
		struct inl_crypt_ctx ctx = { .dun = { UINT64_MAX - 3, 41 } };

		assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
		assert_int_equal(inl_key_use_native(ctx.use), i < 2);
		assert_int_equal(inl_dev_write_keyed(dev, 0, plain, sizeof(plain), &ctx), 0);
		encrypt(5, (uint64_t[4]){ UINT64_MAX - 3, 41 }, plain, want, 16 * KIB, 4096);
		encrypt(5, (uint64_t[4]){ 0, 42 }, plain + 16 * KIB, want + 16 * KIB, 16 * KIB, 4096);
		read_raw(leaf(inl_dev_child(dev, 0)), 0, back, 16 * KIB);
		read_raw(leaf(inl_dev_child(dev, 1)), 0, back + 16 * KIB, 16 * KIB);
		assert_memory_equal(back, want, sizeof(want));
		assert_int_equal(inl_dev_read_keyed(dev, 0, back, sizeof(back), &ctx), 0);
		assert_memory_equal(back, plain, sizeof(plain));
		assert_int_equal(inl_key_evict(ctx.use), 0);
		inl_key_put(key);
		inl_dev_close(dev);
	}
}

/* A data unit that a boundary cuts: neither engine sees the whole of it, so it is crossed above them. */
static void test_unit_across_boundary(void **state)
{
	struct inl_dev *dev = open_dev("linear(engine(ram(10K), slots=1), engine(ram(10K), slots=1))", INL_OPEN_WRITE);
	struct inl_key *key = make_key(6, 4096, 8);
	struct inl_crypt_ctx ctx = { .dun = { 100 } };
	uint8_t plain[8 * KIB], want[8 * KIB], back[8 * KIB];
	uint64_t seed = 8;

	fill(plain, sizeof(plain), &seed);
	encrypt(6, ctx.dun, plain, want, sizeof(plain), 4096);
	assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
	assert_int_equal(inl_dev_write_keyed(dev, 4096, plain, sizeof(plain), &ctx), 0);
	read_raw(dev, 4096, back, sizeof(back));
	assert_memory_equal(back, want, sizeof(want));
	read_raw(leaf(inl_dev_child(dev, 1)), 0, back, 2048);
	assert_memory_equal(back, want + 6 * KIB, 2048);
	assert_int_equal(inl_dev_read_keyed(dev, 4096, back, sizeof(back), &ctx), 0);
	assert_memory_equal(back, plain, sizeof(plain));
	/* The next unit does not need that. */
	ctx.dun[0] = 7;
	assert_int_equal(inl_dev_write_keyed(dev, 10 * KIB, plain, 8 * KIB, &ctx), 0);
	assert_int_equal(inl_dev_read_keyed(dev, 10 * KIB, back, 8 * KIB, &ctx), 0);
	assert_memory_equal(back, plain, 8 * KIB);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_key_put(key);
	inl_dev_close(dev);
}

static void test_caps(void **state)
{
	struct inl_dev *dev = open_dev("linear(engine(ram(1M), unit=512+4096, dun_bytes=8), "
				       "engine(ram(1M), unit=4096+65536, dun_bytes=16, modes=AES-256-XTS))", 0);
	struct inl_caps caps;

	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 4096);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV], 0);
	assert_int_equal(caps.max_dun_bytes, 8);
	assert_int_equal(caps.key_types, INL_KEY_RAW);
	assert_int_equal(inl_dev_n_slots(dev), -1);
	inl_dev_close(dev);

	/* Units that the chunks cut are not offered. */
	dev = open_dev("stripe(engine(ram(1M)), engine(ram(1M)), chunk=4K)", 0);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 512 + 1024 + 2048 + 4096);
	inl_dev_close(dev);
	dev = open_dev("linear(engine(ram(10K)), engine(ram(1M)))", 0);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 512 + 1024 + 2048);
	inl_dev_close(dev);

	dev = open_dev("linear(engine(ram(1M)), ram(1M))", 0);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 0);
	inl_dev_close(dev);
	/* The fault driver has what is below it. */
	dev = open_dev("fault(engine(ram(1M), unit=512))", 0);
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 512);
	inl_dev_close(dev);
}

/* A key that was used on every child leaves the slots of all of them. */
static void test_evicts_everywhere(void **state)
{
	struct inl_dev *dev = open_dev("stripe(engine(ram(1M), slots=2), linear(engine(ram(512K), slots=2), "
				       "fault(engine(ram(512K), slots=2))), engine(ram(1M), slots=2), chunk=4K)",
				       INL_OPEN_WRITE);
	struct inl_dev *middle = inl_dev_child(dev, 1);
	struct inl_dev *engines[] = { inl_dev_child(dev, 0), inl_dev_child(middle, 0),
				      inl_dev_child(inl_dev_child(middle, 1), 0), inl_dev_child(dev, 2) };
	struct inl_key *key = make_key(9, 4096, 8), *other = make_key(10, 4096, 8);
	struct inl_crypt_ctx ctx = { 0 }, other_ctx = { 0 };
	uint8_t *data = calloc(1, 3 * MIB);

	assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
	assert_int_equal(inl_key_start(dev, other, &other_ctx.use), 0);
	assert_true(inl_key_use_native(ctx.use));
	assert_int_equal(inl_dev_write_keyed(dev, 0, data, 3 * MIB, &ctx), 0);
	assert_int_equal(inl_dev_write_keyed(dev, 0, data, 4096, &other_ctx), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(counters_of(engines[i]).slot_programs, i ? 1 : 2);
		assert_int_equal(counters_of(engines[i]).slot_evictions, 0);
	}
	assert_int_equal(inl_key_evict(ctx.use), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(counters_of(engines[i]).slot_evictions, 1);
	/* The other one is still in its slot. */
	assert_int_equal(inl_dev_read_keyed(dev, 0, data, 4096, &other_ctx), 0);
	assert_int_equal(counters_of(engines[0]).slot_programs, 2);
	assert_int_equal(inl_key_evict(other_ctx.use), 0);
	assert_int_equal(counters_of(engines[0]).slot_evictions, 2);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(counters_of(engines[i]).slot_evictions, 1);
	inl_key_put(key);
	inl_key_put(other);
	inl_dev_close(dev);
	free(data);
}

/* ---- fallback and bounce memory ---------------------------------------------------------------------------------- */

static void test_fallback_off(void **state)
{
	struct inl_key *key = make_key(11, 4096, 8), *small = make_key(12, 1024, 8);
	struct inl_key_use *use;
	struct inl_dev *dev = open_dev("linear(engine(ram(1M)), ram(1M), fallback=off)", 0);

	assert_int_equal(inl_key_start(dev, key, &use), -ENOPKG);
	assert_false(inl_dev_supports(dev, inl_key_config(key)));
	/* The children have not been forbidden anything. */
	assert_int_equal(inl_key_start(inl_dev_child(dev, 1), key, &use), 0);
	assert_int_equal(inl_key_evict(use), 0);
	inl_dev_close(dev);

	dev = open_dev("linear(engine(ram(1M)), engine(ram(1M), fallback=off))", INL_OPEN_WRITE);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_true(inl_key_use_native(use));
	struct inl_crypt_ctx ctx = { .use = use };
	uint8_t buf[8 * KIB] = { 1 }, back[8 * KIB];

	assert_int_equal(inl_dev_write_keyed(dev, 1 * MIB - 4096, buf, sizeof(buf), &ctx), 0);
	/* Only software could do this one: the boundary cuts a data unit. Nothing of it may reach the medium. */
	read_raw(dev, 1 * MIB - 4096, back, sizeof(back));
	assert_int_not_equal(inl_dev_write_keyed(dev, 1 * MIB - 2048, buf, 4096, &ctx), 0);
	read_raw(dev, 1 * MIB - 4096, buf, sizeof(buf));
	assert_memory_equal(buf, back, sizeof(buf));
	assert_int_equal(inl_key_evict(use), 0);
	inl_dev_close(dev);

	/* The refusal reaches the devices below: neither does the stripe under the slice do it in software. */
	assert_int_equal(inl_dev_open("slice(stripe(engine(ram(1M)), engine(ram(1M)), chunk=64K), length=1M)",
				      INL_OPEN_WRITE | INL_OPEN_NO_FALLBACK, NULL, &dev), 0);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	ctx.use = use;
	assert_int_equal(inl_dev_write_keyed(dev, 64 * KIB - 4096, buf, sizeof(buf), &ctx), 0);
	assert_int_equal(inl_dev_write_keyed(dev, 64 * KIB - 2048, buf, 4096, &ctx), -EOPNOTSUPP);
	assert_int_equal(inl_key_evict(use), 0);
	inl_dev_close(dev);

	assert_int_equal(inl_dev_open("linear(ram(1M), ram(1M))", INL_OPEN_NO_FALLBACK, NULL, &dev), 0);
	assert_int_equal(inl_key_start(dev, small, &use), -ENOPKG);
	inl_dev_close(dev);
	inl_key_put(key);
	inl_key_put(small);
}

/* The smallest bounce memory, the largest data unit, a write of 4 MiB. */
static void test_small_bounce(void **state)
{
	struct inl_dev *dev = open_dev("stripe(ram(2M), ram(2M), bounce=64K)", INL_OPEN_WRITE);
	struct inl_key *key = make_key(13, 65536, 8);
	struct inl_crypt_ctx ctx = { .dun = { 3 } };
	uint8_t *plain = malloc(4 * MIB), *want = malloc(4 * MIB), *back = malloc(4 * MIB);
	uint64_t seed = 13;

	fill(plain, 4 * MIB, &seed);
	encrypt(13, ctx.dun, plain, want, 4 * MIB, 65536);
	assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
	assert_int_equal(inl_dev_write_keyed(dev, 0, plain, 4 * MIB, &ctx), 0);
	read_raw(dev, 0, back, 4 * MIB);
	assert_memory_equal(back, want, 4 * MIB);
	assert_int_equal(inl_dev_read_keyed(dev, 0, back, 4 * MIB, &ctx), 0);
	assert_memory_equal(back, plain, 4 * MIB);
	assert_int_equal(inl_key_evict(ctx.use), 0);
	inl_key_put(key);
	inl_dev_close(dev);
	free(plain);
	free(want);
	free(back);
}

/* ---- operations that are for all children ------------------------------------------------------------------------ */

static void test_flush(void **state)
{
	struct inl_dev *dev = open_dev("linear(fault(ram(64K)), stripe(ram(64K), ram(64K), fault(ram(64K))))",
				       INL_OPEN_WRITE);
	struct inl_dev *stripe = inl_dev_child(dev, 1);

	for (unsigned n = 1; n < 4; n++) {
		assert_int_equal(inl_dev_flush(dev), 0);
		assert_int_equal(counters_of(leaf(inl_dev_child(dev, 0))).flushes, n);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(counters_of(leaf(inl_dev_child(stripe, i))).flushes, n);
	}
	/* One that fails is enough, and the others are flushed all the same or not at all, but it is reported once. */
	control(inl_dev_child(stripe, 2), "flush@1=ENOSPC");
	assert_int_equal(inl_dev_flush(dev), -ENOSPC);
	assert_int_equal(counters_of(dev).errors, 1);
	assert_int_equal(inl_dev_flush(dev), 0);
	assert_int_equal(counters_of(dev).errors, 1);
	inl_dev_close(dev);
}

static void test_read_only(void **state)
{
	struct inl_dev *dev = open_dev("stripe(ram(64K), ram(64K))", 0);
	uint8_t buf[512] = { 0 };

	assert_false(inl_dev_writable(dev));
	assert_int_equal(inl_dev_write(dev, 0, buf, 512), -EROFS);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), -EROFS);
	assert_int_equal(inl_dev_read(dev, 0, buf, 512), 0);
	inl_dev_close(dev);
}

struct heard {
	unsigned n;
	int status;
};

static void hear(struct inl_bio *bio)
{
	struct heard *heard = bio->private_data;

	heard->n++;
	heard->status = bio->status;
}

/* An error of one piece is the error of the bio, once; what was written is the caller's bytes and no others. */
static void test_error_in_a_piece(void **state)
{
	struct inl_dev *dev = open_dev("stripe(ram(64K), fault(ram(64K)), ram(64K), chunk=4K)", INL_OPEN_WRITE);
	uint8_t *data = malloc(48 * KIB), *copy = malloc(48 * KIB), back[4 * KIB];
	struct inl_queue *queue;
	uint64_t seed = 21;

	fill(data, 48 * KIB, &seed);
	memcpy(copy, data, 48 * KIB);
	assert_int_equal(inl_queue_new(dev, 8, &queue), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct iovec seg = { data, 48 * KIB };
		struct heard heard = { 0 };
		struct inl_bio bio;

		control(inl_dev_child(dev, 1), format("write@%u=ENODATA", i + 1));
		inl_bio_init_plain(&bio, INL_WRITE, 0, &seg, 1);
		bio.done = hear;
		bio.private_data = &heard;
		assert_int_equal(inl_queue_submit(queue, &bio), 0);
		inl_queue_reap(queue, 1);
		assert_int_equal(heard.n, 1);
		assert_int_equal(heard.status, -ENODATA);
		assert_int_equal(inl_queue_n_busy(queue), 0);
		assert_int_equal(counters_of(dev).errors, i + 1);
		assert_memory_equal(data, copy, 48 * KIB);
		for (uint64_t pos = 0; pos < 48 * KIB; pos += 4 * KIB) {
			assert_int_equal(inl_dev_read(dev, pos, back, 4 * KIB), 0);
			assert_true(!memcmp(back, data + pos, 4 * KIB) || all_equal(back, 4 * KIB, 0));
		}
		control(inl_dev_child(dev, 1), "clear");
	}
	/* What failed was not written. */
	control(inl_dev_child(dev, 1), "write@*=EIO");
	memset(data, 0x55, 4 * KIB);
	assert_int_equal(inl_dev_write(dev, 4 * KIB, data, 4 * KIB), -EIO);
	assert_int_equal(inl_dev_read(dev, 4 * KIB, back, 4 * KIB), 0);
	assert_false(all_equal(back, 4 * KIB, 0x55));
	inl_queue_free(queue);
	inl_dev_close(dev);
	free(data);
	free(copy);
}

/* A read of which a piece failed is not decrypted as if it had not: no byte of it is the plaintext. */
static void test_failed_keyed_read(void **state)
{
	static const char *const specs[] = {
		"linear(ram(64K), fault(ram(64K)))",
		"linear(engine(ram(64K), slots=1), fault(engine(ram(64K), slots=1)))",
		"linear(engine(ram(64K), slots=1), engine(fault(ram(64K)), slots=1))",
	};
	uint8_t *plain = malloc(128 * KIB), *back = malloc(128 * KIB);
	uint64_t seed = 22;

	fill(plain, 128 * KIB, &seed);
	for (unsigned i = 0; i < 3; i++) {
		struct inl_dev *dev = open_dev(specs[i], INL_OPEN_WRITE);
		struct inl_key *key = make_key(22, 4096, 8);
		struct inl_crypt_ctx ctx = { 0 };

		assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
		assert_int_equal(inl_dev_write_keyed(dev, 0, plain, 128 * KIB, &ctx), 0);
		memset(back, 0xcc, 128 * KIB);
		control(inl_dev_find(dev, "fault"), "read@1=EIO");
		assert_int_equal(inl_dev_read_keyed(dev, 0, back, 128 * KIB, &ctx), -EIO);
		assert_true(all_equal(back + 64 * KIB, 64 * KIB, 0xcc));
		assert_int_equal(counters_of(dev).errors, 1);
		assert_int_equal(inl_dev_read_keyed(dev, 0, back, 128 * KIB, &ctx), 0);
		assert_memory_equal(back, plain, 128 * KIB);
		assert_int_equal(inl_key_evict(ctx.use), 0);
		inl_key_put(key);
		inl_dev_close(dev);
	}
	free(plain);
	free(back);
}

/* ---- many at a time ---------------------------------------------------------------------------------------------- */

#define DEPTH	  32
#define AREA	  (96 * KIB) /* bytes; each bio has one for itself */

struct slot {
	struct inl_bio bio;
	struct iovec segs[4];
	unsigned area;
	bool busy, keyed;
	uint64_t dun;
	uint64_t pos, len;     /* within the area */
	uint8_t flat[AREA];    /* plaintext */
	uint8_t buf[AREA];
	unsigned n_done, n_wrong;
};

struct crowd {
	struct inl_queue *queue;
	struct inl_key_use *uses[2];
	struct slot *slots;
	uint64_t seed;
};

static void slot_done(struct inl_bio *bio)
{
	struct slot *slot = bio->private_data;

	/* A failed assertion would leave the callback by longjmp. */
	slot->n_wrong += !slot->busy || bio->status ||
			 (bio->op == INL_READ && memcmp(slot->buf, slot->flat + slot->pos, slot->len));
	slot->busy = false;
	slot->n_done++;
}

/* Areas 0, 2, ... are plain, the others keyed; the DUN of a data unit is its number on the device. */
static void slot_submit(struct crowd *crowd, struct slot *slot)
{
	bool write = roll(&crowd->seed, 2);
	uint64_t base = (uint64_t)slot->area * AREA;
	struct inl_crypt_ctx ctx = { .use = crowd->uses[slot->area / 2 % 2] };
	unsigned n;

	slot->pos = roll(&crowd->seed, AREA / 4096) * 4096ull;
	slot->len = (1 + roll(&crowd->seed, (unsigned)((AREA - slot->pos) / 4096))) * 4096ull;
	if (write) {
		fill(slot->flat + slot->pos, slot->len, &crowd->seed);
		memcpy(slot->buf, slot->flat + slot->pos, slot->len);
	} else {
		memset(slot->buf, 0x99, slot->len);
	}
	n = cut(&crowd->seed, slot->buf, slot->len, 4096, slot->segs, 4);
	ctx.dun[0] = (base + slot->pos) / 4096;
	if (slot->area % 2)
		inl_bio_init_keyed(&slot->bio, write ? INL_WRITE : INL_READ, base + slot->pos, slot->segs, n, &ctx);
	else
		inl_bio_init_plain(&slot->bio, write ? INL_WRITE : INL_READ, base + slot->pos, slot->segs, n);
	slot->bio.done = slot_done;
	slot->bio.private_data = slot;
	slot->busy = true;
	assert_int_equal(inl_queue_submit(crowd->queue, &slot->bio), 0);
}

static void crowd_run(const char *spec, unsigned n_bios)
{
	struct inl_dev *dev = open_dev(spec, INL_OPEN_WRITE);
	struct crowd crowd = { .slots = calloc(DEPTH, sizeof(struct slot)), .seed = n_bios };
	struct inl_key *keys[2] = { make_key(31, 4096, 8), make_key(32, 4096, 8) };
	unsigned n_done = 0;

	assert_true(inl_dev_size(dev) >= DEPTH * AREA);
	assert_int_equal(inl_queue_new(dev, DEPTH, &crowd.queue), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(inl_key_start(dev, keys[i], &crowd.uses[i]), 0);
	/* Keyed areas must hold ciphertext of zeros before they are read. */
	for (unsigned i = 0; i < DEPTH; i++) {
		struct inl_crypt_ctx ctx = { .use = crowd.uses[i / 2 % 2], .dun = { (uint64_t)i * AREA / 4096 } };

		crowd.slots[i].area = i;
		if (i % 2)
			assert_int_equal(inl_dev_write_keyed(dev, (uint64_t)i * AREA, crowd.slots[i].flat, AREA, &ctx), 0);
	}
	for (unsigned n = 0; n < n_bios;) {
		for (unsigned i = 0; i < DEPTH && n < n_bios; i++) {
			if (!crowd.slots[i].busy) {
				slot_submit(&crowd, &crowd.slots[i]);
				n++;
			}
		}
		inl_queue_reap(crowd.queue, 1 + roll(&crowd.seed, 8));
	}
	inl_queue_reap(crowd.queue, DEPTH);
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_false(crowd.slots[i].busy);
		if (crowd.slots[i].n_wrong)
			fail_msg("%s: %u bios of area %u went wrong", spec, crowd.slots[i].n_wrong, i);
		n_done += crowd.slots[i].n_done;
	}
	assert_int_equal(n_done, n_bios);
	assert_int_equal(counters_of(dev).errors, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(inl_key_evict(crowd.uses[i]), 0);
		inl_key_put(keys[i]);
	}
	inl_queue_free(crowd.queue);
	inl_dev_close(dev);
	free(crowd.slots);
}

static const char *make_file(const char *name, uint64_t len)
{
	const char *path = format("%s/%s", dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	close(fd);
	return path;
}

/* Two keys, one slot per engine, 32 bios under way, and completions in any order. */
static void test_crowd(void **state)
{
	unsigned n = SLOW ? 400 : 3000;
	const char *a = make_file("a", 2 * MIB), *b = make_file("b", 2 * MIB);

	crowd_run(format("stripe(%s, engine(fault(%s, delay=0us..50us), slots=1, threads=2), chunk=32K)", a, b), n);
	crowd_run("stripe(engine(fault(ram(2M), delay=0us..200us), slots=1), engine(ram(2M), slots=1), chunk=16K)", n);
	crowd_run("linear(engine(ram(2M), slots=1), fault(engine(ram(2M), slots=1), delay=0us..200us))", n);
	crowd_run("linear(ram(1M), fault(ram(1M), delay=10us..300us), engine(ram(2M), slots=1), bounce=64K)", n);
	crowd_run("fault(stripe(ram(1M), ram(1M), ram(2M), ram(1M), chunk=8K, bounce=128K), delay=1us..300us)", n);
}

/* ---- what cannot be a stack -------------------------------------------------------------------------------------- */

static void test_stack_refuses(void **state)
{
	const char *path = make_file("twice", 1 * MIB);

	refuses("linear(ram(1M), ram(512), ram(8K, block_size=8K))", 0, -EINVAL,
		"column 17: 512 bytes: less than one block of 8192, the largest of the devices");
	refuses("stripe(ram(1M), ram(1M), chunk=3K)", 0, -EINVAL,
		"column 32: chunk 3072: expected a power of two, at least 512");
	refuses("stripe(ram(1M), ram(1M), chunk=0)", 0, -EINVAL, "column 32: chunk 0");
	refuses("stripe(ram(1M), ram(1M), chunk=256)", 0, -EINVAL, "column 32: chunk 256");
	refuses("stripe(ram(1M), ram(1M, block_size=8K), chunk=4K)", 0, -EINVAL,
		"chunk 4096: expected a power of two, at least 8192");
	refuses("stripe(ram(1M), ram(32K))", 0, -EINVAL, "column 17: 32768 bytes: less than one chunk of 65536");
	refuses("stripe(ram(1M), ram(1M), chunk=2M)", 0, -EINVAL, "column 8: 1048576 bytes: less than one chunk of 2097152");
	refuses("linear(ram(1M), absent/file)", 0, -ENOENT, "'absent/file'");
	refuses("linear(ram(1M), ram(0))", 0, -EINVAL, "column 21");

	/* The same file twice: for reading it is two windows on one thing, for writing the lock says no. */
	inl_dev_close(open_dev(format("linear(%s, %s)", path, path), 0));
	refuses(format("linear(%s, %s)", path, path), INL_OPEN_WRITE, -EBUSY, "is locked: something else has it open");
	refuses(format("stripe(ram(1M), slice(%s), %s)", path, path), INL_OPEN_WRITE, -EBUSY, "is locked");
	/* Nothing was left open. */
	inl_dev_close(open_dev(path, INL_OPEN_WRITE));
}

static void test_stack_describes_itself(void **state)
{
	struct inl_dev *dev = open_dev("linear(ram(1M), ram(64K, block_size=4K), ram(512K))", INL_OPEN_WRITE);

	assert_string_equal(inl_dev_driver(dev), "linear");
	assert_string_equal(inl_dev_label(dev), "boundaries 1048576, 1114112");
	assert_int_equal(inl_dev_block_size(dev), 4096);
	assert_int_equal(inl_dev_sector_size(dev), 4096);
	assert_null(inl_dev_child(dev, 3));
	assert_ptr_equal(inl_dev_find(dev, "ram"), inl_dev_child(dev, 0));
	assert_int_equal(inl_dev_control(dev, "anything", NULL), -ENOTTY);
	inl_dev_close(dev);
	dev = open_dev("linear(ram(1M))", 0);
	assert_string_equal(inl_dev_label(dev), "");
	inl_dev_close(dev);
	dev = open_dev("stripe(ram(1M), ram(1M))", 0);
	assert_string_equal(inl_dev_label(dev), "chunk 65536");
	inl_dev_close(dev);
	dev = open_dev("fault(ram(1M), write@1=EIO+delay=1us, flush@2=drop, clear)", 0);
	assert_string_equal(inl_dev_label(dev), "write@1=EIO+delay=1us+flush@2=drop+clear");
	inl_dev_close(dev);
}

/* ---- fault: one rule at a time ----------------------------------------------------------------------------------- */

static int write_block(struct inl_dev *dev, uint64_t pos, uint8_t value, size_t len)
{
	uint8_t *buf = malloc(len);
	int err;

	memset(buf, value, len);
	err = inl_dev_write(dev, pos, buf, len);
	free(buf);
	return err;
}

/* Are these bytes on the medium below all of this value? */
static bool holds(struct inl_dev *dev, uint64_t pos, size_t len, uint8_t value)
{
	uint8_t *buf;
	bool yes;

	if (!len)
		return true;
	buf = malloc(len);
	read_raw(leaf(dev), pos, buf, len);
	yes = all_equal(buf, len, value);
	free(buf);
	return yes;
}

static void test_fault_nth(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), write@3=ENOSPC+read@2..3=EIO)", INL_OPEN_WRITE);
	uint8_t buf[512];

	for (unsigned i = 1; i <= 5; i++) {
		int err = write_block(dev, 512 * i, (uint8_t)i, 512);

		assert_int_equal(err, i == 3 ? -ENOSPC : 0);
		assert_true(holds(dev, 512 * i, 512, i == 3 ? 0 : (uint8_t)i));
	}
	for (unsigned i = 1; i <= 5; i++) {
		int err;

		memset(buf, 0x77, 512);
		err = inl_dev_read(dev, 512, buf, 512);
		assert_int_equal(err, i == 2 || i == 3 ? -EIO : 0);
		assert_true(all_equal(buf, 512, err ? 0x77 : 1));
	}
	/* Kinds are counted apart, and from when the rule was added. */
	control(dev, "write@2=EIO");
	assert_int_equal(write_block(dev, 0, 9, 512), 0);
	assert_int_equal(inl_dev_read(dev, 0, buf, 512), 0);
	assert_int_equal(inl_dev_flush(dev), 0);
	assert_int_equal(write_block(dev, 0, 8, 512), -EIO);
	assert_true(holds(dev, 0, 512, 9));
	assert_int_equal(write_block(dev, 0, 8, 512), 0);
	/* For ever, until cleared. */
	control(dev, "write@*=EROFS+flush@*=ETIMEDOUT+discard@*=EOPNOTSUPP+zero@*=ENXIO");
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write_block(dev, 0, 7, 512), -EROFS);
		assert_int_equal(inl_dev_flush(dev), -ETIMEDOUT);
		assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), -EOPNOTSUPP);
		assert_int_equal(range_op(dev, INL_ZERO, 0, 512), -ENXIO);
		assert_int_equal(inl_dev_read(dev, 0, buf, 512), 0);
	}
	assert_true(holds(dev, 0, 512, 8));
	assert_int_equal(counters_of(leaf(dev)).flushes, 1);
	control(dev, "clear");
	assert_int_equal(write_block(dev, 0, 7, 512), 0);
	assert_int_equal(inl_dev_flush(dev), 0);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), 0);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 512), 0);
	inl_dev_close(dev);
}

static void test_fault_order(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), write@1..3=ENOSPC, write@2..4=EIO)", INL_OPEN_WRITE);

	assert_int_equal(write_block(dev, 0, 1, 512), -ENOSPC);
	assert_int_equal(write_block(dev, 0, 1, 512), -ENOSPC);
	assert_int_equal(write_block(dev, 0, 1, 512), -ENOSPC);
	assert_int_equal(write_block(dev, 0, 1, 512), -EIO);
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	/* "clear" takes what was before it, in the same text too. */
	control(dev, "write@1=EIO+clear+write@2=EBUSY");
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	assert_int_equal(write_block(dev, 0, 1, 512), -EBUSY);
	inl_dev_close(dev);
}

static void test_fault_torn(void **state)
{
	static const struct {
		const char *rule;
		uint64_t arrives; /* of 8 KiB */
	} rows[] = {
		{ "write@1=torn:512", 512 },	{ "write@1=torn:513", 512 },   { "write@1=torn:4K", 4096 },
		{ "write@1=torn:511", 0 },	{ "write@1=torn:0", 0 },       { "write@1=torn:7680", 7680 },
		{ "write@1=torn:8K", 8192 },	{ "write@1=torn:1T", 8192 },
	};
	struct inl_dev *dev = open_dev("fault(ram(64K))", INL_OPEN_WRITE);

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(range_op(dev, INL_ZERO, 0, 64 * KIB), 0);
		control(dev, rows[i].rule);
		assert_int_equal(write_block(dev, 8 * KIB, 0xaa, 8 * KIB), -EIO);
		assert_true(holds(dev, 0, 8 * KIB, 0));
		if (!holds(dev, 8 * KIB, rows[i].arrives, 0xaa) ||
		    !holds(dev, 8 * KIB + rows[i].arrives, 56 * KIB - rows[i].arrives, 0))
			fail_msg("%s: something else arrived", rows[i].rule);
		assert_int_equal(write_block(dev, 8 * KIB, 0xbb, 8 * KIB), 0);
		assert_true(holds(dev, 8 * KIB, 8 * KIB, 0xbb));
	}
	inl_dev_close(dev);
	/* Blocks are whole. */
	dev = open_dev("fault(ram(64K, block_size=4K), write@1=torn:5000)", INL_OPEN_WRITE);
	assert_int_equal(write_block(dev, 0, 1, 16 * KIB), -EIO);
	assert_true(holds(dev, 0, 4 * KIB, 1));
	assert_true(holds(dev, 4 * KIB, 60 * KIB, 0));
	inl_dev_close(dev);
}

/* Torn twice on its way down: less arrives, and the caller's bio is as it was. */
static void test_fault_torn_twice(void **state)
{
	struct inl_dev *dev = open_dev("fault(fault(ram(64K), write@1=torn:1K), write@1..2=torn:4K)", INL_OPEN_WRITE);
	static uint8_t buf[8 * KIB];
	struct iovec seg = { buf, sizeof(buf) };
	struct inl_bio bio;

	memset(buf, 0xaa, sizeof(buf));
	for (unsigned i = 0; i < 3; i++) {
		inl_bio_init_plain(&bio, INL_WRITE, i * 8 * KIB, &seg, 1);
		assert_int_equal(inl_submit_wait(dev, &bio), i < 2 ? -EIO : 0);
		assert_int_equal(bio.len, 8 * KIB);
	}
	assert_true(holds(dev, 0, 1 * KIB, 0xaa) && holds(dev, 1 * KIB, 7 * KIB, 0));
	assert_true(holds(dev, 8 * KIB, 4 * KIB, 0xaa) && holds(dev, 12 * KIB, 4 * KIB, 0));
	assert_true(holds(dev, 16 * KIB, 8 * KIB, 0xaa));
	inl_dev_close(dev);
}

/* Above an engine a keyed write is torn between data units; below it, or below the fallback, within one. */
static void test_fault_torn_keyed(void **state)
{
	static const struct {
		const char *spec;
		uint64_t arrives; /* of 64 KiB */
	} rows[] = {
		{ "fault(engine(ram(64K), slots=1), write@1=torn:7K)", 4 * KIB },
		{ "fault(engine(ram(64K), slots=0), write@1=torn:4095)", 0 },
		{ "engine(fault(ram(64K), write@1=torn:7K), slots=1)", 7 * KIB },
		{ "fault(ram(64K), write@1=torn:7K)", 7 * KIB },
		{ "linear(fault(engine(ram(64K), slots=1), write@1=torn:60K))", 60 * KIB },
	};
	uint8_t *plain = malloc(64 * KIB), *want = malloc(64 * KIB), *back = malloc(64 * KIB);
	uint64_t seed = 41;

	fill(plain, 64 * KIB, &seed);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_dev *dev = open_dev(rows[i].spec, INL_OPEN_WRITE);
		struct inl_key *key = make_key(41, 4096, 8);
		struct inl_crypt_ctx ctx = { .dun = { 17 } };

		encrypt(41, ctx.dun, plain, want, 64 * KIB, 4096);
		memset(want + rows[i].arrives, 0, 64 * KIB - rows[i].arrives);
		assert_int_equal(inl_key_start(dev, key, &ctx.use), 0);
		assert_int_equal(inl_dev_write_keyed(dev, 0, plain, 64 * KIB, &ctx), -EIO);
		read_raw(leaf(dev), 0, back, 64 * KIB);
		if (memcmp(back, want, 64 * KIB))
			fail_msg("%s: something else arrived", rows[i].spec);
		assert_int_equal(inl_dev_write_keyed(dev, 0, plain, 64 * KIB, &ctx), 0);
		assert_int_equal(inl_dev_read_keyed(dev, 0, back, 64 * KIB, &ctx), 0);
		assert_memory_equal(back, plain, 64 * KIB);
		assert_int_equal(inl_key_evict(ctx.use), 0);
		inl_key_put(key);
		inl_dev_close(dev);
	}
	free(plain);
	free(want);
	free(back);
}

static void test_fault_drop(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K))", INL_OPEN_WRITE);
	struct inl_counters below;

	assert_int_equal(write_block(dev, 0, 1, 4096), 0);
	control(dev, "write@1=drop+flush@2=drop+zero@1=drop+discard@1=drop");
	assert_int_equal(write_block(dev, 0, 2, 4096), 0);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 4096), 0);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 4096), 0);
	assert_true(holds(dev, 0, 4096, 1));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(inl_dev_flush(dev), 0);
	below = counters_of(leaf(dev));
	assert_int_equal(below.flushes, 2);
	assert_int_equal(below.writes, 1);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 4096), 0);
	assert_true(holds(dev, 0, 4096, 0));
	inl_dev_close(dev);
}

static void test_fault_bad(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), bad=4K..5K, bad=60K..1T)", INL_OPEN_WRITE);
	static const struct {
		uint64_t pos, len;
		int err;
	} rows[] = {
		{ 0, 4096, 0 },	    { 0, 4608, -EIO },	    { 4096, 512, -EIO },
		{ 4608, 512, -EIO },  { 5120, 512, 0 },	    { 4608, 4096, -EIO },
		{ 0, 65536, -EIO },   { 59 * KIB, 1024, 0 }, { 65024, 512, -EIO },
	};
	uint8_t *buf = calloc(1, 64 * KIB);

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(inl_dev_read(dev, rows[i].pos, buf, rows[i].len), rows[i].err);
		assert_int_equal(inl_dev_write(dev, rows[i].pos, buf, rows[i].len), rows[i].err);
		assert_int_equal(range_op(dev, INL_ZERO, rows[i].pos, rows[i].len), rows[i].err);
		assert_int_equal(range_op(dev, INL_DISCARD, rows[i].pos, rows[i].len), 0);
	}
	assert_int_equal(inl_dev_flush(dev), 0);
	control(dev, "clear");
	assert_int_equal(inl_dev_read(dev, 0, buf, 64 * KIB), 0);
	inl_dev_close(dev);
	free(buf);
}

/* ---- fault: time ------------------------------------------------------------------------------------------------- */

static uint64_t time_read(struct inl_dev *dev)
{
	uint8_t buf[512];
	uint64_t start = inl_now_ns();

	assert_int_equal(inl_dev_read(dev, 0, buf, 512), 0);
	return inl_now_ns() - start;
}

static void test_fault_delay(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), read@2=delay:20ms)", INL_OPEN_WRITE);
	uint64_t start;

	time_read(dev);
	assert_true(time_read(dev) >= 20 * MS);
	/* Everything, the last word counts, and what one bio meets adds up. */
	control(dev, "delay=20s+delay=5ms");
	for (unsigned i = 0; i < 2; i++) {
		uint64_t t = time_read(dev);

		assert_true(t >= 5 * MS && t < 15000 * MS);
	}
	start = inl_now_ns();
	assert_int_equal(inl_dev_flush(dev), 0);
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	assert_int_equal(range_op(dev, INL_ZERO, 0, 512), 0);
	assert_int_equal(range_op(dev, INL_DISCARD, 0, 512), 0);
	assert_true(inl_now_ns() - start >= 20 * MS);
	control(dev, "read@1=delay:30ms+read@1=delay:10ms");
	assert_true(time_read(dev) >= 45 * MS);
	/* First late, then wrong; what was decided when it came is not forgotten by a "clear". */
	control(dev, "clear+write@1..2=delay:10ms+write@1=ENOSPC+write@2=torn:512");
	start = inl_now_ns();
	assert_int_equal(write_block(dev, 0, 1, 1024), -ENOSPC);
	assert_int_equal(write_block(dev, 0, 2, 1024), -EIO);
	assert_true(inl_now_ns() - start >= 20 * MS);
	assert_true(holds(dev, 0, 512, 2) && holds(dev, 512, 512, 0));
	inl_dev_close(dev);
}

/* 32 that wait do not wait for each other. */
static void test_fault_delays_overlap(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), delay=100ms)", INL_OPEN_WRITE);
	struct inl_queue *queue;
	struct inl_bio bios[32];
	struct heard heard[32] = { 0 };
	static uint8_t bufs[32][512];
	struct iovec segs[32];
	uint64_t start = inl_now_ns(), took;

	assert_int_equal(inl_queue_new(dev, 32, &queue), 0);
	for (unsigned i = 0; i < 32; i++) {
		segs[i] = (struct iovec){ bufs[i], 512 };
		inl_bio_init_plain(&bios[i], INL_READ, i * 512, &segs[i], 1);
		bios[i].done = hear;
		bios[i].private_data = &heard[i];
		assert_int_equal(inl_queue_submit(queue, &bios[i]), 0);
	}
	if (inl_now_ns() - start < 50 * MS) {
		assert_int_equal(inl_queue_reap(queue, 0), 0);
		assert_int_equal(inl_queue_n_busy(queue), 32);
	}
	inl_queue_reap(queue, 32);
	took = inl_now_ns() - start;
	assert_true(took >= 100 * MS && took < 2500 * MS);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(heard[i].n, 1);
		assert_int_equal(heard[i].status, 0);
	}
	inl_queue_free(queue);
	inl_dev_close(dev);
}

/* A verdict is given when the bio comes, in the order in which they come, also if it is late. */
static void test_fault_counts_on_arrival(void **state)
{
	struct inl_dev *dev = open_dev("fault(ram(64K), write@1=delay:300ms+write@2=EIO)", INL_OPEN_WRITE);
	struct inl_queue *queue;
	struct inl_bio bios[3];
	struct heard heard[3] = { 0 };
	static uint8_t bufs[3][512];
	struct iovec segs[3];

	assert_int_equal(inl_queue_new(dev, 3, &queue), 0);
	for (unsigned i = 0; i < 3; i++) {
		segs[i] = (struct iovec){ bufs[i], 512 };
		inl_bio_init_plain(&bios[i], INL_WRITE, i * 512, &segs[i], 1);
		bios[i].done = hear;
		bios[i].private_data = &heard[i];
		assert_int_equal(inl_queue_submit(queue, &bios[i]), 0);
	}
	while (!heard[1].n || !heard[2].n)
		inl_queue_reap(queue, 1);
	assert_int_equal(heard[0].n, 0);
	assert_int_equal(heard[1].status, -EIO);
	inl_queue_reap(queue, 1);
	assert_int_equal(heard[0].n, 1);
	assert_int_equal(heard[0].status + heard[2].status, 0);
	inl_queue_free(queue);
	inl_dev_close(dev);
}

/* ---- fault: from another thread ---------------------------------------------------------------------------------- */

#define N_WRITERS 3
#define N_FAULTS  100

struct writer {
	struct inl_dev *dev;
	atomic_bool *stop;
	unsigned id, n_errors, n_wrong;
	pthread_t thread;
};

/* Eight at a time into 32 KiB of its own. */
static void *write_on(void *arg)
{
	struct writer *writer = arg;
	struct heard heard[8];
	struct inl_bio bios[8];
	uint8_t bytes[4096] = { 0 };
	struct iovec seg = { bytes, sizeof(bytes) };
	struct inl_queue *queue;

	if (inl_queue_new(writer->dev, 8, &queue)) {
		writer->n_wrong = 1;
		return NULL;
	}
	while (!atomic_load(writer->stop)) {
		memset(heard, 0, sizeof(heard));
		for (unsigned i = 0; i < 8; i++) {
			inl_bio_init_plain(&bios[i], INL_WRITE, (writer->id * 8 + i) * 4096ull, &seg, 1);
			bios[i].done = hear;
			bios[i].private_data = &heard[i];
			writer->n_wrong += inl_queue_submit(queue, &bios[i]) != 0;
		}
		inl_queue_reap(queue, 8);
		for (unsigned i = 0; i < 8; i++) {
			writer->n_errors += heard[i].status == -ENODATA;
			writer->n_wrong += heard[i].n != 1 || (heard[i].status && heard[i].status != -ENODATA);
		}
	}
	inl_queue_free(queue);
	return NULL;
}

/* Rules that one thread makes meet the bios of others, each rule one bio. */
static void test_fault_control_while_writing(void **state)
{
	struct inl_dev *dev = open_dev("stripe(fault(ram(256K), delay=0us..20us), fault(ram(256K)), chunk=4K)",
				       INL_OPEN_WRITE);
	struct writer writers[N_WRITERS];
	uint64_t deadline = inl_now_ns() + 60000 * MS;
	atomic_bool stop = false;
	unsigned n_errors = 0;

	for (unsigned i = 0; i < N_WRITERS; i++) {
		writers[i] = (struct writer){ .dev = dev, .stop = &stop, .id = i };
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]), 0);
	}
	for (unsigned i = 0; i < N_FAULTS; i++) {
		control(inl_dev_child(dev, i % 2), format("write@%u=ENODATA", 1 + i % 5));
		while (counters_of(dev).errors <= i && inl_now_ns() < deadline)
			sched_yield();
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < N_WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		assert_int_equal(writers[i].n_wrong, 0);
		n_errors += writers[i].n_errors;
	}
	assert_int_equal(n_errors, N_FAULTS);
	assert_int_equal(counters_of(dev).errors, N_FAULTS);
	inl_dev_close(dev);
}

/* ---- fault: its language ----------------------------------------------------------------------------------------- */

static void test_fault_refuses(void **state)
{
	static const char *const bad[] = {
		"", "write", "write@3", "write=EIO", "write@0=EIO", "write@3..2=EIO", "write@3=", "write@3=eio",
		"write@3=EFOO", "write@3=-5", "write@=EIO", "write@x=EIO", "read@1=drop", "read@1=torn:512",
		"flush@1=torn:512", "zero@1=torn:512", "discard@1=torn:0", "write@1=torn", "write@1=torn:",
		"write@1=torn:x", "write@1=torn:-1", "write@1=delay", "write@1=delay:", "write@1=delay:1",
		"write@1=delay:1h", "write@1=delay:2us..1us", "write@1=delay:..", "write@1=delay:1us..", "delay",
		"delay=", "delay=x", "delay=5", "delay=3us..1us", "delay@1=1us", "bad", "bad=", "bad=0", "bad=0..",
		"bad=..1", "bad=5..5", "bad=6..5", "bad=1..x", "bad@1=0..1", "clear=1", "clear@1", "+",
		"write@1=EIO+", "+write@1=EIO", "write@1=EIO++clear", "reset", " write@1=EIO", "write@1=EIO ",
		"writes@1=EIO", "write@1=drop:1", "write@1=dropp",
	};
	struct inl_dev *dev = open_dev("fault(ram(64K))", INL_OPEN_WRITE);
	struct inl_diag diag;
	char many[32 * 16] = "";

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		diag = (struct inl_diag){ 0 };
		if (inl_dev_control(dev, bad[i], &diag) != -EINVAL || diag.err != -EINVAL || !strstr(diag.text, "rule"))
			fail_msg("'%s': \"%s\"", bad[i], diag.text);
		/* Nothing of a text that is wrong somewhere. */
		assert_int_equal(inl_dev_control(dev, format("write@*=EIO+%s", bad[i]), NULL), -EINVAL);
	}
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	for (unsigned i = 0; i < 32; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many), "%swrite@9=EIO", i ? "+" : "");
	control(dev, many);
	assert_int_equal(inl_dev_control(dev, "write@1=EIO", NULL), -ENOSPC);
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	control(dev, "clear+write@1=EIO");
	assert_int_equal(write_block(dev, 0, 1, 512), -EIO);
	inl_dev_close(dev);

	refuses("fault(ram(64K), write@1=EIO, write@0=EIO)", 0, -EINVAL, "SPEC, column 30: rule 'write@0=EIO': expected ");
	refuses("fault(ram(64K), write@1=E)", 0, -EINVAL, "SPEC, column 17: rule 1, 'write=E': expected write@N=ERRNO|");
	refuses("fault(ram(64K), falback=off)", 0, -EINVAL, "SPEC, column 17: rule 'falback=off': expected one of ");
	refuses("fault(ram(0), write@1=EIO)", 0, -EINVAL, "column 11");
}

/* Any text is rules or an error, and does no harm. */
static void test_fault_any_text(void **state)
{
	static const char *const words[] = {
		"read", "write", "flush", "bad", "delay", "clear", "@", "=", "+", "..", "*", "1", "512",
		"18446744073709551615", "EIO", "torn:", "drop", "delay:", "us", "T", ":",
	};
	struct inl_dev *dev = open_dev("fault(ram(64K))", INL_OPEN_WRITE);
	uint64_t seed = 51;
	unsigned n_good = 0;

	for (unsigned i = 0; i < 20000; i++) {
		char text[256] = "";
		unsigned n = 1 + roll(&seed, 8);
		struct inl_diag diag = { 0 };
		int err;

		for (unsigned j = 0; j < n; j++) {
			if (roll(&seed, 20))
				strncat(text, words[roll(&seed, sizeof(words) / sizeof(words[0]))], 24);
			else
				text[strlen(text)] = (char)(1 + roll(&seed, 255));
		}
		err = inl_dev_control(dev, text, &diag);
		if (err == -ENOSPC)
			control(dev, "clear");
		else if (err && (err != -EINVAL || diag.err != err))
			fail_msg("'%s': %d, \"%s\"", text, err, diag.text);
		n_good += !err;
	}
	assert_true(n_good > 20);
	control(dev, "clear");
	assert_int_equal(write_block(dev, 0, 1, 512), 0);
	inl_dev_close(dev);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/inlay-stack-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	return system(format("rm -r '%s'", dir));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_by_hand),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_keyed_engines),
		cmocka_unit_test(test_keyed_fallback),
		cmocka_unit_test(test_keyed_mixed),
		cmocka_unit_test(test_dun_carries_at_boundary),
		cmocka_unit_test(test_unit_across_boundary),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_evicts_everywhere),
		cmocka_unit_test(test_fallback_off),
		cmocka_unit_test(test_small_bounce),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_error_in_a_piece),
		cmocka_unit_test(test_failed_keyed_read),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_stack_refuses),
		cmocka_unit_test(test_stack_describes_itself),
		cmocka_unit_test(test_fault_nth),
		cmocka_unit_test(test_fault_order),
		cmocka_unit_test(test_fault_torn),
		cmocka_unit_test(test_fault_torn_twice),
		cmocka_unit_test(test_fault_torn_keyed),
		cmocka_unit_test(test_fault_drop),
		cmocka_unit_test(test_fault_bad),
		cmocka_unit_test(test_fault_delay),
		cmocka_unit_test(test_fault_delays_overlap),
		cmocka_unit_test(test_fault_counts_on_arrival),
		cmocka_unit_test(test_fault_control_while_writing),
		cmocka_unit_test(test_fault_refuses),
		cmocka_unit_test(test_fault_any_text),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
