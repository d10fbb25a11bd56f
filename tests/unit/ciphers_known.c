/*
 * tests/unit/ciphers_known.c: who may compute: wrong answers are refused, and remembered; CPUs that lack something.
 * Not here: right answers (ciphers_compute.c), wrong callers (ciphers_misuse.c).
 * Read more: inlay/cipher.h, inl_cipher_self_test; crypto/own.h.
 *
 * What the frame remembers it remembers for the life of the process, so most tests fork one. A child does not inherit the
 * arena of secrets (inlay/base.h): these tests come before any that uses it.
 *
 * Three functions of the library are replaced (-Wl,--wrap in tests/meson.build): known answers, what the CPU can do, what
 * OpenSSL offers.
 */
#include "tests/unit/ciphers_rig.h"
#include "base/cpu.h"
#include "base/secret.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- in front of the library ------------------------------------------------------------------------------------- */

int __real_inl_known_answers(enum inl_cipher_id id, const struct inl_impl *impl);
int __wrap_inl_known_answers(enum inl_cipher_id id, const struct inl_impl *impl);
unsigned __real_inl_cpu_features(void);
unsigned __wrap_inl_cpu_features(void);
const EVP_CIPHER *__real_inl_evp_cipher(enum inl_evp_id id);
const EVP_CIPHER *__wrap_inl_evp_cipher(enum inl_evp_id id);

/* What is to happen to this pair; err 0: nothing special, to nobody. */
static struct {
	enum inl_cipher_id id;
	const struct inl_impl *impl;
	int err;
	atomic_uint n_asked;		     /* by the frame, of anybody */
	const struct inl_impl *_Atomic last; /* of whom */
} plan;

static unsigned hidden_features;
static bool no_openssl;

int __wrap_inl_known_answers(enum inl_cipher_id id, const struct inl_impl *impl)
{
	plan.n_asked++;
	plan.last = impl;
	if (plan.err && id == plan.id && impl == plan.impl)
		return plan.err;
	return __real_inl_known_answers(id, impl);
}

unsigned __wrap_inl_cpu_features(void)
{
	return __real_inl_cpu_features() & ~hidden_features;
}

const EVP_CIPHER *__wrap_inl_evp_cipher(enum inl_evp_id id)
{
	return no_openssl ? NULL : __real_inl_evp_cipher(id);
}

static void plan_for(const struct inl_tc_subject *subject, int err)
{
	plan.id = subject->id;
	plan.impl = subject->impl;
	plan.err = err;
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

/* In a child nothing of cmocka may be used: it would go on with the parent's tests. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "# in a child: %s\n", what);
	_exit(1);
}

#define MUST(condition) must(condition, #condition)

static void in_child(void (*fn)(const struct inl_tc_subject *subject), const struct inl_tc_subject *subject)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (!child) {
		fn(subject);
		_exit(0);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status)
		fail_msg("%s (%s): the child ended with status %#x", subject ? subject->oracle : "-",
			 subject ? subject->impl->name : "-", (unsigned)status);
}

static const uint8_t some_key[64] = "any key will do, if only its halves differ";

/* The answer of inl_cipher_new, which sets *out only if it works. */
static int try_new(enum inl_cipher_id id, const char *name)
{
	struct inl_cipher *const untouched = (struct inl_cipher *)(uintptr_t)64;
	struct inl_cipher *cipher = untouched;
	int err = inl_cipher_new(id, name, some_key, &cipher);

	MUST((cipher == untouched) == (err != 0));
	if (!err)
		inl_cipher_free(cipher);
	return err;
}

/* The name of the first that runs. */
static const char *best(enum inl_cipher_id id)
{
	struct inl_cipher_impl impl;

	for (unsigned i = 0; inl_cipher_impl(id, i, &impl); i++)
		if (!impl.lacks)
			return impl.name;
	return "";
}

/* Every other pair works. */
static void others_work(const struct inl_tc_subject *subject)
{
	for (int id = INL_CIPHER_AES_256_XTS; id <= INL_CIPHER_AES_128_XTS; id++) {
		struct inl_cipher_impl impl;

		for (unsigned i = 0; inl_cipher_impl((enum inl_cipher_id)id, i, &impl); i++)
			if (!impl.lacks && (id != (int)subject->id || strcmp(impl.name, subject->impl->name) != 0))
				MUST(!try_new((enum inl_cipher_id)id, impl.name));
	}
}

/* ---- wrong answers ----------------------------------------------------------------------------------------------- */

static void refused_for_good(const struct inl_tc_subject *subject)
{
	const char *name = subject->impl->name, *cipher = inl_cipher_info(subject->id)->name;
	bool is_best = !strcmp(best(subject->id), name);
	struct inl_diag diag = { 0 };

	plan_for(subject, -ENOTRECOVERABLE);
	MUST(try_new(subject->id, name) == -ENOTRECOVERABLE);
	MUST(plan.n_asked == 1 && plan.last == subject->impl);
	plan.err = 0; /* the next time it would be right */
	MUST(try_new(subject->id, name) == -ENOTRECOVERABLE);
	MUST(try_new(subject->id, NULL) == (is_best ? -ENOTRECOVERABLE : 0)); /* no quiet step down */
	others_work(subject);
	MUST(inl_cipher_self_test(name, &diag) == -ENOTRECOVERABLE && diag.err == -ENOTRECOVERABLE);
	MUST(strstr(diag.text, cipher) && strstr(diag.text, name));
	MUST(inl_cipher_self_test(NULL, NULL) == (is_best ? -ENOTRECOVERABLE : 0));
	MUST(inl_cipher_self_test(name, NULL) == -ENOTRECOVERABLE);
}

/* The self-test is the first to ask. */
static void refused_by_self_test(const struct inl_tc_subject *subject)
{
	struct inl_diag diag = { 0 };

	plan_for(subject, -ENOTRECOVERABLE);
	MUST(inl_cipher_self_test(subject->impl->name, &diag) == -ENOTRECOVERABLE);
	MUST(strstr(diag.text, inl_cipher_info(subject->id)->name) && strstr(diag.text, subject->impl->name));
	MUST(diag.text[strlen(diag.text) - 1] != '.' && !strchr(diag.text, '\n'));
	plan.err = 0;
	MUST(try_new(subject->id, subject->impl->name) == -ENOTRECOVERABLE);
	others_work(subject);
}

static void wrong_answers(const struct inl_tc_subject *subject)
{
	in_child(refused_for_good, subject);
	in_child(refused_by_self_test, subject);
}

static void test_wrong_answers(void **state)
{
	inl_tc_each(wrong_answers);
}

/* What could not be asked is asked again. */
static void asked_again(const struct inl_tc_subject *subject)
{
	const char *name = subject->impl->name;
	struct inl_diag diag = { 0 };

	plan_for(subject, -ENOMEM);
	MUST(try_new(subject->id, name) == -ENOMEM);
	MUST(inl_cipher_self_test(name, &diag) == -ENOMEM && diag.err == -ENOMEM);
	MUST(strstr(diag.text, name));
	plan.err = -EIO;
	MUST(try_new(subject->id, name) == -EIO);
	plan.err = 0;
	MUST(try_new(subject->id, name) == 0);
	plan.n_asked = 0;
	plan.err = -ENOTRECOVERABLE; /* nobody asks any more */
	MUST(try_new(subject->id, name) == 0);
	MUST(plan.n_asked == 0);
	MUST(inl_cipher_self_test(name, NULL) == 0);
}

/* The same with an arena that is really full. */
static void asked_with_full_arena(const struct inl_tc_subject *subject)
{
	static void *all[1 << 17];
	size_t n = 0;

	while (n < INL_TC_ARRAY_LEN(all) && (all[n] = inl_secret_alloc(64)))
		n++;
	MUST(n && n < INL_TC_ARRAY_LEN(all));
	MUST(try_new(subject->id, subject->impl->name) == -ENOMEM);
	MUST(inl_cipher_self_test(subject->impl->name, NULL) == -ENOMEM);
	while (n)
		inl_secret_free(all[--n]);
	MUST(inl_cipher_self_test(subject->impl->name, NULL) == 0);
	MUST(try_new(subject->id, subject->impl->name) == 0);
}

static void not_asked(const struct inl_tc_subject *subject)
{
	in_child(asked_again, subject);
	in_child(asked_with_full_arena, subject);
}

static void test_could_not_be_asked(void **state)
{
	inl_tc_each(not_asked);
}

/* ---- the first use by many threads ------------------------------------------------------------------------------- */

enum { N_THREADS = 8 };
static pthread_barrier_t together;
static atomic_int n_refused, n_wrong;

static void *first_user(void *arg)
{
	const struct inl_tc_subject *subject = arg;
	struct inl_cipher *cipher;
	int err;

	pthread_barrier_wait(&together);
	err = inl_cipher_new(subject->id, subject->impl->name, some_key, &cipher);
	if (!err)
		inl_cipher_free(cipher);
	else if (err == -ENOTRECOVERABLE)
		n_refused++;
	else
		n_wrong++;
	return NULL;
}

static void many_first_users(const struct inl_tc_subject *subject)
{
	pthread_t threads[N_THREADS];

	pthread_barrier_init(&together, NULL, N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		MUST(!pthread_create(&threads[i], NULL, first_user, (void *)subject));
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	MUST(n_wrong == 0);
	MUST(n_refused == (plan.err ? N_THREADS : 0));
}

static void many_are_refused(const struct inl_tc_subject *subject)
{
	plan_for(subject, -ENOTRECOVERABLE);
	many_first_users(subject);
}

static void first_users(const struct inl_tc_subject *subject)
{
	in_child(many_first_users, subject);
	in_child(many_are_refused, subject);
}

static void test_first_users(void **state)
{
	inl_tc_each(first_users);
}

/* ---- lesser CPUs, other libraries -------------------------------------------------------------------------------- */

/* Each says what it lacks, if anything, cannot be had then, and the first that runs is the default. */
static void check_choice(enum inl_cipher_id id)
{
	unsigned has = __wrap_inl_cpu_features();
	struct inl_cipher_impl impl;

	for (unsigned i = 0; inl_cipher_impl(id, i, &impl); i++) {
		unsigned missing = inl_tc_impl(id, impl.name)->needs & ~has;
		const char *feature = missing ? inl_cpu_feature_name((enum inl_cpu_feature)(missing & -missing)) : NULL;

		if (!strcmp(impl.name, "openssl") && no_openssl)
			missing = 1;
		else
			MUST(feature ? impl.lacks && !strcmp(impl.lacks, feature) : !impl.lacks);
		MUST(!impl.lacks == !missing);
		MUST(try_new(id, impl.name) == (missing ? -ENOENT : 0));
		MUST(inl_cipher_self_test(impl.name, NULL) == (missing ? -ENOENT : 0));
	}
}

/* In a process where nobody was tested yet, the one that is tested is the one that is used. */
static void check_default(enum inl_cipher_id id)
{
	plan.last = NULL;
	MUST(try_new(id, NULL) == 0);
	MUST(plan.last && !strcmp(plan.last->name, best(id)));
}

static void lesser_cpu(const struct inl_tc_subject *subject)
{
	check_default(INL_CIPHER_AES_256_XTS);
	check_default(INL_CIPHER_AES_128_XTS);
	check_choice(INL_CIPHER_AES_256_XTS);
	check_choice(INL_CIPHER_AES_128_XTS);
}

/* The portable one needs nothing; OpenSSL's is always there, and is not the default. */
static void bare_cpu(const struct inl_tc_subject *subject)
{
	MUST(!strcmp(best(INL_CIPHER_AES_256_XTS), "portable"));
	MUST(!strcmp(best(INL_CIPHER_AES_128_XTS), "portable"));
	lesser_cpu(subject);
	MUST(try_new(INL_CIPHER_AES_256_XTS, "openssl") == 0);
}

static void without_openssl(const struct inl_tc_subject *subject)
{
	no_openssl = true;
	lesser_cpu(subject);
	for (int id = INL_CIPHER_AES_128_CBC_ESSIV; id <= INL_CIPHER_AES_128_CTS; id++) {
		MUST(try_new((enum inl_cipher_id)id, NULL) == -ENOPKG);
		MUST(try_new((enum inl_cipher_id)id, "openssl") == -ENOENT);
	}
	MUST(inl_cipher_self_test("openssl", NULL) == -ENOENT);
}

static void test_lesser_cpus(void **state)
{
	for (unsigned bit = 0; bit < 9; bit++) {
		hidden_features = 1u << bit;
		in_child(lesser_cpu, NULL);
	}
	hidden_features = ~0u;
	in_child(bare_cpu, NULL);
	hidden_features = 0;
	in_child(lesser_cpu, NULL);
	in_child(without_openssl, NULL);
}

/* ---- implementations that compute wrongly ------------------------------------------------------------------------ */

/* One bit of what crypt or steal has written. */
struct flaw {
	bool stealing, encrypt;
	size_t span, at; /* the byte, modulo what the span has */
	unsigned bit;
};

static struct {
	const struct inl_impl *original;
	struct flaw flaw;
	unsigned n_done; /* how often it struck */
} broken;

static void strike(const struct inl_units *units, bool stealing, bool encrypt)
{
	const struct flaw *flaw = &broken.flaw;
	const struct inl_cipher_span *span = &units->spans[flaw->span % units->n_spans];

	if (stealing != flaw->stealing || encrypt != flaw->encrypt)
		return;
	span->dst[flaw->at % (span->n * units->unit_len)] ^= (uint8_t)(1u << flaw->bit);
	broken.n_done++;
}

static int flawed_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	int err = broken.original->crypt(impl, state, units, encrypt);

	strike(units, false, encrypt);
	return err;
}

static int flawed_steal(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	int err = broken.original->steal(impl, state, units, encrypt);

	strike(units, true, encrypt);
	return err;
}

static void check_flaw(const struct inl_tc_subject *subject, const struct inl_impl *copy, struct flaw flaw)
{
	broken.flaw = flaw;
	broken.n_done = 0;
	if (__real_inl_known_answers(subject->id, copy) != -ENOTRECOVERABLE)
		fail_msg("%s (%s): trusted with a wrong bit: stealing %d, encrypt %d, span %zu, byte %zu", subject->oracle,
			 copy->name, flaw.stealing, flaw.encrypt, flaw.span, flaw.at);
	assert_true(broken.n_done > 0);
}

static void flaws(const struct inl_tc_subject *subject)
{
	struct inl_impl copy = *subject->impl;
	size_t step = inl_tc_much(997, 97, 1);

	broken.original = subject->impl;
	assert_int_equal(__real_inl_known_answers(subject->id, &copy), 0);
	copy.crypt = flawed_crypt;
	copy.steal = flawed_steal;
	for (unsigned how = 0; how < 8; how++)
		for (size_t at = 0; at < (how & 1 ? 1173 : 3 * 592); at += step)
			check_flaw(subject, &copy, (struct flaw){ how & 1, how & 2, how & 4 ? 1 : 0, at, at % 8 });
}

static void test_flaws(void **state)
{
	inl_tc_each(flaws);
}

/* ---- and wrongly as a programmer would --------------------------------------------------------------------------- */

static int lazy_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return 0;
}

static int copying_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	for (size_t i = 0; i < units->n_spans; i++)
		memmove(units->spans[i].dst, units->spans[i].src, units->spans[i].n * units->unit_len);
	return 0;
}

/* Only the low half of the number. */
static int short_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	struct inl_units low = *units;

	low.dun[1] = 0;
	return broken.original->crypt(impl, state, &low, encrypt);
}

/* Unit by unit, and the carry is lost. */
static int carryless_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	struct inl_units one = *units;

	for (size_t i = 0; i < units->n_spans; i++)
		for (size_t k = 0; k < units->spans[i].n; k++, one.dun[0]++) {
			const struct inl_cipher_span span = { units->spans[i].dst + k * units->unit_len,
							      units->spans[i].src + k * units->unit_len, 1 };

			one.spans = &span;
			one.n_spans = 1;
			broken.original->crypt(impl, state, &one, encrypt);
		}
	return 0;
}

/* Every span begins with the first number again. */
static int forgetful_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	struct inl_units one = *units;

	one.n_spans = 1;
	for (size_t i = 0; i < units->n_spans; i++, one.spans++)
		broken.original->crypt(impl, state, &one, encrypt);
	return 0;
}

/* Right, but the other direction. */
static int backward_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return broken.original->crypt(impl, state, units, !encrypt);
}

static int failing_crypt(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt)
{
	return -EIO;
}

static int failing_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size)
{
	return -ENOMEM;
}

/* The halves of the key in the wrong order. */
static int swapping_init(const struct inl_impl *impl, void *state, const uint8_t *key, unsigned key_size)
{
	uint8_t swapped[64];

	memcpy(swapped, key + key_size / 2, key_size / 2);
	memcpy(swapped + key_size / 2, key, key_size / 2);
	return broken.original->init(impl, state, swapped, key_size);
}

static void mistakes(const struct inl_tc_subject *subject)
{
	int (*const crypts[])(const struct inl_impl *impl, void *state, const struct inl_units *units, bool encrypt) = {
		lazy_crypt, copying_crypt, short_crypt, carryless_crypt, forgetful_crypt, backward_crypt,
	};
	struct inl_impl copy = *subject->impl;

	broken.original = subject->impl;
	for (size_t i = 0; i < INL_TC_ARRAY_LEN(crypts); i++) {
		copy.crypt = crypts[i];
		if (__real_inl_known_answers(subject->id, &copy) != -ENOTRECOVERABLE)
			fail_msg("%s (%s): trusted with mistake %zu", subject->oracle, copy.name, i);
	}
	copy.crypt = failing_crypt;
	assert_int_equal(__real_inl_known_answers(subject->id, &copy), -EIO);
	copy = *subject->impl;
	copy.steal = lazy_crypt;
	assert_int_equal(__real_inl_known_answers(subject->id, &copy), -ENOTRECOVERABLE);
	copy = *subject->impl;
	copy.init = failing_init;
	assert_int_equal(__real_inl_known_answers(subject->id, &copy), -ENOMEM);
	copy.init = swapping_init;
	assert_int_equal(__real_inl_known_answers(subject->id, &copy), -ENOTRECOVERABLE);
}

static void test_mistakes(void **state)
{
	inl_tc_each(mistakes);
}

int inl_tc_known(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_answers),
		cmocka_unit_test(test_could_not_be_asked),
		cmocka_unit_test(test_first_users),
		cmocka_unit_test(test_lesser_cpus),
		cmocka_unit_test(test_flaws), /* from here on with an arena of this process */
		cmocka_unit_test(test_mistakes),
	};

	return cmocka_run_group_tests_name("who may compute", tests, NULL, NULL);
}
