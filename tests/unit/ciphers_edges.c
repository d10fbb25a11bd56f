/*
 * tests/unit/ciphers_edges.c: the memory of AES-XTS: alignment, fences, spans; many threads on one cipher.
 * Not here: what is computed (ciphers_compute.c), what stays behind (ciphers_clean.c).
 * Read more: inlay/cipher.h.
 */
#include "tests/unit/ciphers_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- alignment --------------------------------------------------------------------------------------------------- */

static void alignments(const struct inl_tc_subject *subject)
{
	static const size_t lens[] = { 16, 528, 1136 };
	size_t step = inl_tc_much(13, 1, 1);
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t at = 0; at < 64 * 64; at += step) {
		struct inl_tc_call call = { .n = 1 + at % 2, .len = lens[at % 3], .src_at = at / 64, .dst_at = at % 64 };

		call.encrypt = at % 7 % 2;
		inl_tc_check(subject, cipher, key, &call);
		call.in_place = !call.src_at;
		call.encrypt = !call.encrypt;
		inl_tc_check(subject, cipher, key, &call);
		call = (struct inl_tc_call){ .n = 1, .len = call.len + 1 + at % 15, .src_at = at / 64, .dst_at = at % 64 };
		call.stealing = true;
		call.encrypt = at % 5 % 2;
		inl_tc_check(subject, cipher, key, &call);
	}
	inl_cipher_free(cipher);
}

static void test_alignments(void **state)
{
	inl_tc_each(alignments);
}

/* ---- fences ------------------------------------------------------------------------------------------------------ */

/* A page between two that nobody may touch; the same page again, somewhere else, for the test. */
struct fenced {
	uint8_t *page; /* as the cipher may use it */
	uint8_t *ours; /* readable and writable */
	size_t len;
};

static void fence(struct fenced *fenced, int prot)
{
	int fd = memfd_create("fenced", MFD_CLOEXEC);
	uint8_t *all;

	fenced->len = (size_t)sysconf(_SC_PAGESIZE);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)fenced->len), 0);
	all = mmap(NULL, 3 * fenced->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(all, MAP_FAILED);
	fenced->page = mmap(all + fenced->len, fenced->len, prot, MAP_SHARED | MAP_FIXED, fd, 0);
	assert_ptr_equal(fenced->page, all + fenced->len);
	fenced->ours = mmap(NULL, fenced->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(fenced->ours, MAP_FAILED);
	close(fd);
}

static void unfence(struct fenced *fenced)
{
	munmap(fenced->page - fenced->len, 3 * fenced->len);
	munmap(fenced->ours, fenced->len);
}

static struct fenced source, target;

/* Touching one fence or the other: the rest of the page keeps its pattern. */
static void check_fenced(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
			 const struct inl_tc_call *call, bool src_last, bool dst_last)
{
	size_t len = call->n * call->len, src_at = src_last ? source.len - len : 0;
	size_t dst_at = dst_last ? target.len - len : 0;
	uint8_t text[4096];

	inl_tc_fill(text, len);
	inl_tc_oracle(subject, key, call->encrypt, call->dun, call->n, call->len, inl_tc_rooms.expected, text);
	memcpy(source.ours + src_at, text, len);
	memset(target.ours, 0xee, target.len);
	if (call->in_place)
		memcpy(target.ours + dst_at, text, len);
	inl_tc_run(cipher, call, target.page + dst_at, call->in_place ? target.page + dst_at : source.page + src_at);
	inl_tc_same(target.ours + dst_at, inl_tc_rooms.expected, len, "fenced, %zu units of %zu", call->n, call->len);
	inl_tc_same(source.ours + src_at, text, len, "the fenced source, %zu units of %zu", call->n, call->len);
	assert_true(inl_tc_all(target.ours, dst_at, 0xee));
	assert_true(inl_tc_all(target.ours + dst_at + len, target.len - dst_at - len, 0xee));
}

static void fences_at(const struct inl_tc_subject *subject, const struct inl_cipher *cipher, const uint8_t *key,
		      struct inl_tc_call call)
{
	inl_tc_fill((uint8_t *)call.dun, 32);
	for (unsigned how = 0; how < 8; how++) {
		call.encrypt = how & 1;
		call.in_place = (how + call.len / 16) % 4 == 3;
		check_fenced(subject, cipher, key, &call, how & 2, how & 4);
	}
}

static void fences(const struct inl_tc_subject *subject)
{
	size_t step = inl_tc_much(13, 1, 1);
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (size_t len = 16; len <= 1104; len += len < 144 ? 1 : step)
		fences_at(subject, cipher, key, (struct inl_tc_call){ .stealing = true, .n = 1, .len = len });
	for (size_t len = 16; len <= 1104; len += 16)
		for (size_t n = 1; n <= 3; n += 2)
			fences_at(subject, cipher, key, (struct inl_tc_call){ .n = n, .len = len });
	fences_at(subject, cipher, key, (struct inl_tc_call){ .n = 256, .len = 16 });
	fences_at(subject, cipher, key, (struct inl_tc_call){ .n = 8, .len = 512 });
	fences_at(subject, cipher, key, (struct inl_tc_call){ .n = 1, .len = 4096 });
	inl_cipher_free(cipher);
}

static void test_fences(void **state)
{
	fence(&source, PROT_READ);
	fence(&target, PROT_READ | PROT_WRITE);
	inl_tc_each(fences);
	unfence(&source);
	unfence(&target);
}

/* ---- spans ------------------------------------------------------------------------------------------------------- */

#define N_SPANS_MAX 24

struct cuts {
	struct inl_cipher_span spans[N_SPANS_MAX];
	size_t n;
};

/* All units in some spans, each in memory of its own, some in place; one without units may have no memory at all. */
static void cut(struct cuts *cuts, const uint8_t *text, size_t n_units, size_t unit_len)
{
	cuts->n = 1 + inl_tc_below(N_SPANS_MAX);
	for (size_t i = 0; i < cuts->n; i++) {
		struct inl_cipher_span *span = &cuts->spans[i];
		size_t len;

		span->n = i + 1 == cuts->n ? n_units : inl_tc_below(3) ? inl_tc_below(n_units / 4 + 2) : 0;
		span->n = span->n > n_units ? n_units : span->n;
		n_units -= span->n;
		len = span->n * unit_len;
		span->dst = len || inl_tc_below(2) ? malloc(len) : NULL;
		span->src = inl_tc_below(2) ? span->dst : malloc(len);
		assert_true(!len || (span->dst && span->src));
		if (len)
			memcpy((uint8_t *)span->src, text, len);
		text += len;
	}
}

static void check_cuts(struct cuts *cuts, const uint8_t *text, const uint8_t *expected, size_t unit_len)
{
	for (size_t i = 0; i < cuts->n; i++) {
		struct inl_cipher_span *span = &cuts->spans[i];
		size_t len = span->n * unit_len;

		if (len)
			inl_tc_same(span->dst, expected, len, "span %zu of %zu, %zu units of %zu", i, cuts->n, span->n,
				    unit_len);
		if (len && span->src != span->dst)
			inl_tc_same(span->src, text, len, "the source of span %zu", i);
		if (span->src != span->dst)
			free((uint8_t *)span->src);
		free(span->dst);
		text += len;
		expected += len;
	}
}

static void spans(const struct inl_tc_subject *subject)
{
	unsigned n_cases = inl_tc_much(20, 300, 20000);
	struct inl_cipher *cipher;
	uint8_t key[64];

	cipher = inl_tc_new(subject, key);
	for (unsigned i = 0; i < n_cases; i++) {
		struct inl_tc_call call = { .encrypt = i % 2, .n = inl_tc_below(100), .len = 16 + 16 * inl_tc_below(36) };
		struct cuts cuts;

		inl_tc_dun_before(call.dun, i % 3 ? 64 : 128, inl_tc_below(call.n + 1));
		inl_tc_fill(inl_tc_rooms.text, call.n * call.len);
		inl_tc_run(cipher, &call, inl_tc_rooms.expected, inl_tc_rooms.text);
		cut(&cuts, inl_tc_rooms.text, call.n, call.len);
		assert_int_equal((call.encrypt ? inl_cipher_encrypt_spans : inl_cipher_decrypt_spans)(
					 cipher, call.dun, call.len, cuts.spans, cuts.n),
				 0);
		check_cuts(&cuts, inl_tc_rooms.text, inl_tc_rooms.expected, call.len);
	}
	inl_cipher_free(cipher);
}

static void test_spans(void **state)
{
	inl_tc_each(spans);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

enum { N_THREADS = 8, N_UNITS = 9, UNIT = 528, ODD = 517 };

static struct {
	struct inl_cipher *cipher;
	uint64_t dun[4];
	uint8_t text[N_UNITS * UNIT], sealed[N_UNITS * UNIT], stolen[ODD];
	pthread_barrier_t start;
	atomic_int wrong;
} crowd;

static bool is(const uint8_t *got, const uint8_t *expected, size_t len)
{
	return !memcmp(got, expected, len);
}

static bool one_round(uint8_t *out)
{
	const struct inl_cipher *c = crowd.cipher;
	const struct inl_cipher_span halves[] = { { out, out, 4 }, { out, out, 0 }, { out + 4 * UNIT, out + 4 * UNIT, 5 } };

	return !inl_cipher_encrypt(c, crowd.dun, N_UNITS, UNIT, out, crowd.text) && is(out, crowd.sealed, N_UNITS * UNIT) &&
	       !inl_cipher_decrypt_spans(c, crowd.dun, UNIT, halves, 3) && is(out, crowd.text, N_UNITS * UNIT) &&
	       !inl_cipher_encrypt_stealing(c, crowd.dun, ODD, out, crowd.text) && is(out, crowd.stolen, ODD) &&
	       !inl_cipher_decrypt_stealing(c, crowd.dun, ODD, out, out) && is(out, crowd.text, ODD);
}

static void *thread(void *arg)
{
	unsigned n = inl_tc_much(30, 200, 20000);
	uint8_t out[N_UNITS * UNIT];

	pthread_barrier_wait(&crowd.start);
	while (n--)
		if (!one_round(out))
			crowd.wrong++;
	return NULL;
}

static void threads(const struct inl_tc_subject *subject)
{
	pthread_t all[N_THREADS];
	uint8_t key[64];

	crowd.cipher = inl_tc_new(subject, key); /* not used before: schedules of OpenSSL are made in the race */
	inl_tc_dun_before(crowd.dun, 64, 5);
	inl_tc_fill(crowd.text, sizeof(crowd.text));
	inl_tc_oracle(subject, key, true, crowd.dun, N_UNITS, UNIT, crowd.sealed, crowd.text);
	inl_tc_oracle(subject, key, true, crowd.dun, 1, ODD, crowd.stolen, crowd.text);
	pthread_barrier_init(&crowd.start, NULL, N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&all[i], NULL, thread, NULL), 0);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(all[i], NULL);
	pthread_barrier_destroy(&crowd.start);
	if (crowd.wrong)
		fail_msg("%s (%s): wrong in %d rounds of eight threads", subject->oracle, subject->impl->name, crowd.wrong);
	inl_cipher_free(crowd.cipher);
}

static void test_threads(void **state)
{
	inl_tc_each(threads);
}

int inl_tc_edges(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alignments),
		cmocka_unit_test(test_fences),
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("where it reads and writes", tests, NULL, NULL);
}
