/*
 * tests/unit/test_engine.c: the emulated engine: its chip, its driver, what goes wrong on request, wrapped keys.
 * Not here: slots and parking as such (test_block.c), SPEC grammar (test_drivers.c), what all routes write (test_routes.c).
 * Read more: drivers/chip.h, drivers/faults.h. Ciphertext is compared with what OpenSSL alone makes of the same bytes.
 */
#include <inlay/cipher.h>
#include "crypto/wrap.h"
#include "drivers/chip.h"
#include "drivers/faults.h"
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <inlay/driver.h>
#include <inlay/wrapped.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define UNIT 4096u
#define MS   1000000ull /* ns */

static char scratch[] = "/tmp/inlay-engine-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", scratch, name);
	return path;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	nanosleep(&t, NULL);
}

static struct inl_dev *open_dev(const char *spec)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = NULL;

	if (inl_dev_open(spec, INL_OPEN_WRITE, &diag, &dev))
		fail_msg("%s: %s", spec, diag.text);
	return dev;
}

static void refuses(const char *spec, int want, const char *text)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev = NULL;

	assert_int_equal(inl_dev_open(spec, INL_OPEN_WRITE, &diag, &dev), want);
	assert_null(dev);
	if (!strstr(diag.text, text))
		fail_msg("%s: '%s' is not in '%s'", spec, text, diag.text);
}

static void command(struct inl_dev *dev, const char *text)
{
	struct inl_diag diag = { 0 };

	if (inl_dev_control(inl_dev_find(dev, "engine"), text, &diag))
		fail_msg("%s: %s", text, diag.text);
}

static void command_refused(struct inl_dev *dev, const char *text, int want, const char *why)
{
	struct inl_diag diag = { 0 };

	assert_int_equal(inl_dev_control(dev, text, &diag), want);
	assert_int_equal(diag.err, want);
	if (!strstr(diag.text, why))
		fail_msg("%s: '%s' is not in '%s'", text, why, diag.text);
}

static struct inl_counters counters_of(struct inl_dev *dev)
{
	struct inl_counters c;

	inl_dev_counters(inl_dev_find(dev, "engine"), &c);
	return c;
}

/* ---- rules ------------------------------------------------------------------------------------------------------- */

static const struct inl_fault_word words[] = {
	{ "stop", INL_FAULT_BARE | INL_FAULT_EVENTS, "stop, stop@N" },
	{ "io", INL_FAULT_EVENTS | INL_FAULT_EVENTS_VALUE, "io@N" },
	{ "late", INL_FAULT_VALUE, "late=TIME" },
	{ NULL },
};

static int parse(const char *text, struct inl_fault_rule *rules, unsigned *n, struct inl_diag *diag)
{
	/* Exactly as many bytes as there are: a sanitizer sees one too far. */
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1);
	int err;

	memcpy(copy, text, len);
	err = inl_faults_parse(copy, len, words, diag, rules, n);
	free(copy);
	return err;
}

static void test_rules(void **state)
{
	static const struct {
		const char *text;
		unsigned what;
		enum inl_fault_form form;
		uint64_t first, last;
		const char *value;
	} rows[] = {
		{ "stop", 0, INL_FAULT_BARE, 0, 0, "" },
		{ "stop@3", 0, INL_FAULT_EVENTS, 3, 3, "" },
		{ "io@3..7", 1, INL_FAULT_EVENTS, 3, 7, "" },
		{ "io@*", 1, INL_FAULT_EVENTS, 1, UINT64_MAX, "" },
		{ "io@1=EIO", 1, INL_FAULT_EVENTS_VALUE, 1, 1, "EIO" },
		{ "io@4..4=torn:512", 1, INL_FAULT_EVENTS_VALUE, 4, 4, "torn:512" },
		{ "io@18446744073709551615", 1, INL_FAULT_EVENTS, UINT64_MAX, UINT64_MAX, "" },
		{ "late=100us", 2, INL_FAULT_VALUE, 0, 0, "100us" },
		{ "late=a@b=c", 2, INL_FAULT_VALUE, 0, 0, "a@b=c" },
		{ "late=12345678901234567890123456789012345678901234567", 2, INL_FAULT_VALUE, 0, 0,
		  "12345678901234567890123456789012345678901234567" },
	};
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memset(rules, 0xff, sizeof(rules));
		assert_int_equal(parse(rows[i].text, rules, &n, NULL), 0);
		assert_int_equal(n, 1);
		assert_int_equal(rules[0].what, rows[i].what);
		assert_int_equal(rules[0].form, rows[i].form);
		assert_true(rules[0].first == rows[i].first && rules[0].last == rows[i].last);
		assert_string_equal(rules[0].value, rows[i].value);
		assert_true(!rules[0].action && !rules[0].number[0] && !rules[0].number[1]);
	}
	assert_int_equal(parse("io@1+stop+late=1s+io@*", rules, &n, NULL), 0);
	assert_int_equal(n, 4);
	assert_int_equal(rules[1].what, 0);
	assert_int_equal(rules[2].what, 2);
	assert_true(rules[3].last == UINT64_MAX);
}

static void test_rules_refused(void **state)
{
	static const char *const rows[] = {
		"", "+", "io@1+", "+io@1", "io@1++io@2", "io", "io=3", "io@", "io@0", "io@-1", "io@x", "io@1x", "io@1..",
		"io@..2", "io@3..2", "io@1.2", "io@1...2", "io@1..2..3", "io@**", "io@1..*", "io@18446744073709551616",
		"io@1=", "late", "late=", "late@1", "late@1=2", "stop=1", "stop@1=2", "Stop", "sto", "stopp", " stop",
		"stop ", "late=123456789012345678901234567890123456789012345678",
	};
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX], untouched[INL_FAULT_RULES_MAX];
	unsigned n = 77;
	char many[400] = "stop";

	memset(rules, 0xa5, sizeof(rules));
	memcpy(untouched, rules, sizeof(rules));
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inl_diag diag = { 0 };

		if (parse(rows[i], rules, &n, &diag) != -EINVAL)
			fail_msg("'%s' was taken", rows[i]);
		assert_non_null(strstr(diag.text, "expected one of stop, stop@N, io@N, late=TIME"));
	}
	assert_int_equal(inl_faults_parse("late=a\0b", 8, words, NULL, rules, &n), -EINVAL);
	assert_int_equal(inl_faults_parse("io@1\0", 5, words, NULL, rules, &n), -EINVAL);
	for (unsigned i = 1; i < INL_FAULT_RULES_MAX + 1; i++)
		strcat(many, "+stop");
	assert_int_equal(parse(many, rules, &n, NULL), -EINVAL);
	assert_int_equal(n, 77);
	assert_memory_equal(rules, untouched, sizeof(rules));
	many[strlen(many) - 5] = '\0';
	assert_int_equal(parse(many, rules, &n, NULL), 0);
	assert_int_equal(n, INL_FAULT_RULES_MAX);
}

static int parse_time(const char *text, uint64_t *ns)
{
	return inl_time_parse(text, strlen(text), ns);
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = { { "0ns", 0 }, { "7ns", 7 }, { "100us", 100000 }, { "20ms", 20000000 }, { "3s", 3000000000 },
		     { "3600s", 3600000000000 }, { "0000001us", 1000 } };
	static const char *const bad[] = { "", "5", "us", "5m", "5sec", "5 us", "-5us", "1.5ms", "5US", "5uss" };
	uint64_t ns = 42;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse_time(bad[i], &ns), -EINVAL);
	assert_int_equal(parse_time("3601s", &ns), -ERANGE);
	assert_int_equal(parse_time("18446744073709551617ns", &ns), -ERANGE);
	assert_int_equal(parse_time("18446744073709551615s", &ns), -ERANGE);
	assert_true(ns == 42);
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(parse_time(good[i].text, &ns), 0);
		assert_true(ns == good[i].ns);
	}
}

static void add_rules(struct inl_faults *faults, const char *text)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n;

	assert_int_equal(parse(text, rules, &n, NULL), 0);
	assert_int_equal(inl_faults_add(faults, rules, n), 0);
}

/* How many rules the next event matches; the value of the first. */
static unsigned event(struct inl_faults *faults, unsigned what, char *value)
{
	struct inl_fault_rule out[INL_FAULT_RULES_MAX];
	unsigned n = inl_faults_event(faults, what, out, INL_FAULT_RULES_MAX);

	strcpy(value, n ? out[0].value : "");
	return n;
}

static void test_events(void **state)
{
	struct inl_faults *faults;
	struct inl_fault_rule out[4];
	char value[INL_FAULT_VALUE_MAX];

	assert_int_equal(inl_faults_new(&faults), 0);
	assert_int_equal(event(faults, 1, value), 0);
	add_rules(faults, "io@2=a+io@2..3=b+stop@1");
	assert_int_equal(event(faults, 1, value), 0); /* counted from now, not from the beginning */
	assert_int_equal(event(faults, 1, value), 2);
	assert_string_equal(value, "a");
	add_rules(faults, "io@1=c");
	assert_int_equal(inl_faults_event(faults, 1, out, 1), 1); /* no room for more */
	assert_string_equal(out[0].value, "b");			  /* the older rule comes first */
	assert_int_equal(event(faults, 1, value), 0);
	assert_int_equal(event(faults, 0, value), 1); /* words are counted apart */
	assert_int_equal(event(faults, 0, value), 0);
	add_rules(faults, "io@*=d+late=1s+late=2s");
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(event(faults, 1, value), 1);
	assert_int_equal(inl_faults_values(faults, 2, out, 4), 2);
	assert_string_equal(out[1].value, "2s");
	assert_int_equal(inl_faults_values(faults, 1, out, 4), 0);
	assert_int_equal(inl_faults_values(faults, 2, out, 1), 1);
	inl_faults_clear(faults);
	assert_int_equal(event(faults, 1, value), 0);
	assert_int_equal(inl_faults_values(faults, 2, out, 4), 0);
	inl_faults_free(faults);
	inl_faults_free(NULL);
}

/* Rules that are over make room, others do not; all or nothing. */
static void test_events_room(void **state)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	struct inl_faults *faults;
	char value[INL_FAULT_VALUE_MAX];
	unsigned n;

	assert_int_equal(inl_faults_new(&faults), 0);
	assert_int_equal(parse("io@1=a", rules, &n, NULL), 0);
	for (unsigned i = 0; i < INL_FAULT_RULES_MAX - 2; i++)
		assert_int_equal(inl_faults_add(faults, rules, 1), 0);
	add_rules(faults, "io@2=b+late=1s");
	assert_int_equal(inl_faults_add(faults, rules, 1), -ENOSPC);
	assert_int_equal(event(faults, 1, value), INL_FAULT_RULES_MAX - 2);
	for (unsigned i = 0; i < INL_FAULT_RULES_MAX; i++)
		rules[i] = rules[0];
	assert_int_equal(inl_faults_add(faults, rules, INL_FAULT_RULES_MAX - 1), -ENOSPC);
	assert_int_equal(event(faults, 1, value), 1);
	assert_string_equal(value, "b");
	assert_int_equal(inl_faults_add(faults, rules, INL_FAULT_RULES_MAX), -ENOSPC); /* late stays */
	assert_int_equal(inl_faults_add(faults, rules, INL_FAULT_RULES_MAX - 1), 0);
	assert_int_equal(inl_faults_values(faults, 2, rules, 1), 1);
	inl_faults_free(faults);
}

struct counting {
	struct inl_faults *faults;
	atomic_uint matched;
};

static void *count_events(void *arg)
{
	struct counting *counting = arg;
	struct inl_fault_rule rule;

	for (unsigned i = 0; i < 20000; i++)
		atomic_fetch_add(&counting->matched, inl_faults_event(counting->faults, 1, &rule, 1));
	return NULL;
}

/* Each event is counted once, whichever thread it is on, also while rules are added. */
static void test_events_threads(void **state)
{
	struct counting counting = { 0 };
	pthread_t threads[4];

	assert_int_equal(inl_faults_new(&counting.faults), 0);
	add_rules(counting.faults, "io@1001..41000");
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_events, &counting), 0);
	for (unsigned i = 0; i < 20; i++)
		add_rules(counting.faults, "stop@5");
	inl_faults_clear(counting.faults);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&counting.matched) <= 40000);
	atomic_store(&counting.matched, 0);
	add_rules(counting.faults, "io@1001..41000");
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_events, &counting), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&counting.matched), 40000);
	inl_faults_free(counting.faults);
}

/* ---- the chip, without any device -------------------------------------------------------------------------------- */

struct ask {
	struct inl_chip_request request; /* first */
	uint8_t *dst;
	const uint8_t *src;
	size_t at_once; /* bytes that follow each other; 0: all */
	enum inl_chip_status status;
	atomic_bool done;
	unsigned order;
	atomic_uint *clock;
};

static size_t ask_range(const struct inl_chip_request *request, uint64_t at, const uint8_t **src, uint8_t **dst)
{
	const struct ask *ask = (const struct ask *)request;
	size_t left = request->len - at;

	*src = ask->src + at;
	*dst = ask->dst + at;
	return ask->at_once && ask->at_once < left ? ask->at_once : left;
}

static void ask_done(struct inl_chip_request *request, enum inl_chip_status status)
{
	struct ask *ask = (struct ask *)request;

	ask->status = status;
	if (ask->clock)
		ask->order = atomic_fetch_add(ask->clock, 1);
	atomic_store(&ask->done, true);
}

static void ask_init(struct ask *ask, int slot, bool encrypt, uint8_t *dst, const uint8_t *src, size_t len)
{
	memset(ask, 0, sizeof(*ask));
	ask->request.slot = slot;
	ask->request.encrypt = encrypt;
	ask->request.unit = UNIT;
	ask->request.len = len;
	ask->request.range = ask_range;
	ask->request.done = ask_done;
	ask->dst = dst;
	ask->src = src;
}

static enum inl_chip_status ask_wait(struct inl_chip *chip, struct ask *ask)
{
	atomic_store(&ask->done, false);
	inl_chip_ring(chip, &ask->request);
	while (!atomic_load(&ask->done))
		sleep_ns(10000);
	return ask->status;
}

static atomic_uint resets_seen;

static void see_reset(void *arg)
{
	atomic_fetch_add(&resets_seen, 1);
	assert_ptr_equal(arg, &resets_seen);
}

static struct inl_chip *chip_new(unsigned n_slots, unsigned n_threads, uint64_t latency)
{
	struct inl_chip_setup setup = {
		.n_slots = n_slots,
		.n_threads = n_threads,
		.latency = latency,
		.caps = { .units = { [INL_CHIP_AES_256_XTS] = 4096, [INL_CHIP_AES_128_CBC_ESSIV] = 512 },
			  .dun_bytes = 8,
			  .key_kinds = INL_CHIP_RAW },
		.on_reset = see_reset,
		.arg = &resets_seen,
	};
	struct inl_chip *chip;

	atomic_store(&resets_seen, 0);
	assert_int_equal(inl_chip_new(&setup, &chip), 0);
	return chip;
}

static struct inl_chip_config chip_config(uint64_t key, uint8_t bytes[64])
{
	key_bytes(key, bytes);
	return (struct inl_chip_config){ true, INL_CHIP_AES_256_XTS, UNIT, INL_CHIP_RAW, bytes, 64 };
}

static void chip_write(struct inl_chip *chip, unsigned slot, uint64_t key)
{
	uint8_t bytes[64];
	struct inl_chip_config config = chip_config(key, bytes);

	assert_int_equal(inl_chip_write_slot(chip, slot, &config), INL_CHIP_OK);
}

static void chip_test(struct inl_chip *chip, const char *text)
{
	assert_int_equal(inl_chip_test(chip, text, strlen(text), NULL), 0);
}

static const struct inl_chip_config off = { .enable = false };

/* What is not configured does nothing: no byte of the destination changes, and it says so. */
static void test_chip_empty(void **state)
{
	struct inl_chip *chip = chip_new(2, 0, 0);
	uint8_t plain[2 * UNIT], out[2 * UNIT], untouched[2 * UNIT], want[2 * UNIT];
	struct ask ask;

	assert_int_equal(inl_chip_n_slots(chip), 2);
	pattern_fill(plain, 0, sizeof(plain), 1);
	memset(untouched, 0x5a, sizeof(untouched));
	memcpy(out, untouched, sizeof(out));
	ask_init(&ask, 0, true, out, plain, sizeof(plain));
	for (int slot = -1; slot < 4; slot++) {
		ask.request.slot = slot;
		assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	}
	ask.request.slot = 0;
	chip_write(chip, 0, 1);
	ask.request.unit = 2 * UNIT;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	ask.request.unit = UNIT;
	ask.request.dun[1] = 1; /* more than 8 bytes */
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_BAD);
	ask.request.dun[1] = 0;
	ask.request.dun[0] = UINT64_MAX; /* the second unit is */
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_BAD);
	ask.request.dun[0] = 0;
	ask.request.len = UNIT + 16;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_BAD);
	ask.request.len = 0;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_BAD);
	ask.request.len = 2 * UNIT;
	assert_memory_equal(out, untouched, sizeof(out));

	ask.request.dun[0] = UINT64_MAX - 1; /* the last that fit */
	for (ask.at_once = 0; ask.at_once <= UNIT; ask.at_once += UNIT) {
		memcpy(out, untouched, sizeof(out));
		assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
		for (unsigned i = 0; i < 2; i++)
			assert_true(unit_crypt(1, UINT64_MAX - 1 + i, plain + i * UNIT, want + i * UNIT, UNIT, true));
		assert_memory_equal(out, want, sizeof(out));
	}
	ask_init(&ask, 0, false, out, out, sizeof(out)); /* in place */
	ask.request.dun[0] = UINT64_MAX - 1;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_memory_equal(out, plain, sizeof(out));

	assert_int_equal(inl_chip_write_slot(chip, 0, &off), INL_CHIP_OK);
	memcpy(out, untouched, sizeof(out));
	ask_init(&ask, 0, true, out, plain, sizeof(plain));
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	assert_memory_equal(out, untouched, sizeof(out));
	inl_chip_free(chip);
	inl_chip_free(NULL);
}

static void test_chip_configs(void **state)
{
	struct inl_chip *chip = chip_new(2, 0, 0);
	struct inl_chip_caps caps, got;
	uint8_t bytes[64], plain[UNIT], out[UNIT];
	struct inl_chip_config good = chip_config(3, bytes), config;
	struct inl_chip_key *key;
	struct ask ask;

	pattern_fill(plain, 0, sizeof(plain), 1);
	for (unsigned i = 0; i < 8; i++) {
		chip_write(chip, 0, 3);
		config = good;
		switch (i) {
		case 0:
			config.unit = 512; /* not for this algorithm */
			break;
		case 1:
			config.unit = 4096 + 512;
			break;
		case 2:
			config.alg = INL_CHIP_AES_128_CBC_ESSIV; /* not for this unit */
			break;
		case 3:
			config.alg = INL_CHIP_ADIANTUM;
			break;
		case 4:
			config.alg = INL_CHIP_N_ALGS;
			break;
		case 5:
			config.kind = INL_CHIP_WRAPPED;
			break;
		case 6:
			config.key_len = 32;
			break;
		default:
			config.unit = 0;
			break;
		}
		assert_int_equal(inl_chip_write_slot(chip, 0, &config), INL_CHIP_BAD);
		/* Refused, and the old one is gone too. */
		ask_init(&ask, 0, true, out, plain, UNIT);
		assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	}
	assert_int_equal(inl_chip_write_slot(chip, 2, &good), INL_CHIP_BAD);
	assert_int_equal(inl_chip_write_slot(chip, 2, &off), INL_CHIP_BAD);

	/* A configuration that goes with the request; a reset does not touch it. */
	assert_int_equal(inl_chip_key_load(chip, &good, &key), INL_CHIP_OK);
	chip_test(chip, "reset");
	ask_init(&ask, -1, true, out, plain, UNIT);
	ask.request.key = key;
	ask.request.generation = 1;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_true(unit_crypt(3, 0, out, out, UNIT, false));
	assert_memory_equal(out, plain, UNIT);
	assert_int_equal(inl_chip_key_drop(chip, key), INL_CHIP_OK);
	assert_int_equal(inl_chip_key_load(chip, &off, &key), INL_CHIP_BAD);

	/* Other capabilities: what slots hold stays, what is written later is held against them. */
	chip_write(chip, 0, 3);
	inl_chip_caps(chip, &caps);
	caps.units[INL_CHIP_AES_256_XTS] = 512;
	inl_chip_set_caps(chip, &caps);
	inl_chip_caps(chip, &got);
	assert_memory_equal(&got, &caps, sizeof(got));
	ask_init(&ask, 0, true, out, plain, UNIT);
	ask.request.generation = 1;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_int_equal(inl_chip_write_slot(chip, 1, &good), INL_CHIP_BAD);
	inl_chip_free(chip);

	assert_true(inl_chip_has_alg(INL_CHIP_AES_256_XTS));
	assert_int_equal(inl_chip_has_alg(INL_CHIP_ADIANTUM), inl_cipher_info(INL_CIPHER_ADIANTUM)->available);
}

static void test_chip_limits(void **state)
{
	struct inl_chip_setup setup = { .n_slots = INL_CHIP_SLOTS_MAX + 1 };
	struct inl_chip *chip = NULL;

	assert_int_equal(inl_chip_new(&setup, &chip), -EINVAL);
	setup = (struct inl_chip_setup){ .n_threads = INL_CHIP_THREADS_MAX + 1 };
	assert_int_equal(inl_chip_new(&setup, &chip), -EINVAL);
	assert_null(chip);
}

/* Every fault of the test port, on a chip alone. */
static void chip_faults(unsigned n_threads)
{
	struct inl_chip *chip = chip_new(2, n_threads, 0);
	uint8_t plain[UNIT], out[UNIT], want[UNIT], untouched[UNIT], bytes[64];
	struct inl_chip_config config = chip_config(1, bytes);
	struct ask ask;

	pattern_fill(plain, 0, UNIT, 1);
	assert_true(unit_crypt(1, 0, plain, want, UNIT, true));
	memset(untouched, 0x77, UNIT);
	memcpy(out, untouched, UNIT);
	chip_write(chip, 0, 1);
	chip_write(chip, 1, 2);
	ask_init(&ask, 0, true, out, plain, UNIT);

	chip_test(chip, "io@2");
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_memory_equal(out, want, UNIT);
	memcpy(out, untouched, UNIT);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_IO);
	assert_memory_equal(out, untouched, UNIT);

	/* The request that finds a reset has touched nothing, and all slots are empty. */
	assert_true(inl_chip_generation(chip) == 0);
	chip_test(chip, "reset@1");
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_RESET);
	assert_true(inl_chip_generation(chip) == 1);
	while (!atomic_load(&resets_seen))
		sleep_ns(1000);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_RESET); /* made for a chip that was not reset yet */
	ask.request.generation = 2;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_RESET);
	ask.request.generation = 1;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	ask.request.slot = 1;
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);
	ask.request.slot = 0;
	chip_write(chip, 0, 1);
	chip_test(chip, "reset");
	assert_int_equal(atomic_load(&resets_seen), 2);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_RESET);
	assert_memory_equal(out, untouched, UNIT);
	ask.request.generation = 2;

	/* After a program that failed the slot holds neither the old key, nor the new one, nor lets anything pass. */
	chip_write(chip, 0, 2);
	chip_test(chip, "program@2");
	chip_write(chip, 1, 1);
	assert_int_equal(inl_chip_write_slot(chip, 0, &config), INL_CHIP_IO);
	if (ask_wait(chip, &ask) == INL_CHIP_OK) {
		assert_memory_not_equal(out, plain, UNIT);
		assert_memory_not_equal(out, want, UNIT);
		assert_true(unit_crypt(2, 0, plain, want, UNIT, true));
		assert_memory_not_equal(out, want, UNIT);
		assert_true(unit_crypt(1, 0, plain, want, UNIT, true));
	}
	assert_int_equal(inl_chip_write_slot(chip, 0, &config), INL_CHIP_OK);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_memory_equal(out, want, UNIT);

	/* A clear that failed leaves the key where it is. */
	chip_test(chip, "evict@1");
	assert_int_equal(inl_chip_write_slot(chip, 0, &off), INL_CHIP_IO);
	memcpy(out, untouched, UNIT);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	assert_memory_equal(out, want, UNIT);
	assert_int_equal(inl_chip_write_slot(chip, 0, &off), INL_CHIP_OK);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_KEY);

	chip_test(chip, "io@*+program@*");
	assert_int_equal(inl_chip_write_slot(chip, 0, &config), INL_CHIP_IO);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_IO);
	chip_test(chip, "latency=3600s");
	chip_test(chip, "clear"); /* of that too */
	chip_write(chip, 0, 1);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	inl_chip_free(chip);
}

static void test_chip_faults(void **state)
{
	chip_faults(0);
	chip_faults(2);
}

/* A reset aborts what was not begun, untouched; the rest comes later, and in time. */
static void test_chip_latency(void **state)
{
	for (unsigned n_threads = 0; n_threads <= 2; n_threads += 2) {
		struct inl_chip *chip = chip_new(1, n_threads, 3600 * 1000 * MS);
		uint8_t plain[UNIT], out[6][UNIT], untouched[UNIT];
		struct ask asks[6];
		atomic_uint clock = 0;
		uint64_t begin;

		pattern_fill(plain, 0, UNIT, 1);
		memset(untouched, 0x33, UNIT);
		memset(out, 0x33, sizeof(out));
		chip_write(chip, 0, 1);
		for (unsigned i = 0; i < 6; i++) {
			ask_init(&asks[i], 0, true, out[i], plain, UNIT);
			asks[i].clock = &clock;
		}
		for (unsigned i = 0; i < 3; i++)
			inl_chip_ring(chip, &asks[i].request);
		sleep_ns(5 * MS);
		assert_int_equal(atomic_load(&clock), 0);
		chip_test(chip, "reset");
		for (unsigned i = 0; i < 3; i++) {
			assert_true(atomic_load(&asks[i].done));
			assert_int_equal(asks[i].status, INL_CHIP_RESET);
			assert_int_equal(asks[i].order, i);
			assert_memory_equal(out[i], untouched, UNIT);
		}
		/* One with a long latency does not keep back others with a short one. */
		chip_write(chip, 0, 1);
		for (unsigned i = 0; i < 6; i++)
			asks[i].request.generation = 1;
		chip_test(chip, "latency=500ms");
		begin = inl_now_ns();
		inl_chip_ring(chip, &asks[3].request);
		chip_test(chip, "latency=20ms");
		inl_chip_ring(chip, &asks[4].request);
		inl_chip_ring(chip, &asks[5].request);
		while (atomic_load(&clock) < 5)
			sleep_ns(100000);
		assert_true(inl_now_ns() - begin >= 20 * MS);
		while (atomic_load(&clock) < 6)
			sleep_ns(100000);
		assert_true(inl_now_ns() - begin >= 500 * MS);
		assert_int_equal(asks[3].order, 5);
		for (unsigned i = 3; i < 6; i++)
			assert_int_equal(asks[i].status, INL_CHIP_OK);
		chip_test(chip, "latency=0ns");
		assert_int_equal(ask_wait(chip, &asks[0]), INL_CHIP_OK);
		inl_chip_free(chip);
	}
}

static void test_chip_rules_refused(void **state)
{
	static const char *const bad[] = { "",	       "nonsense",  "reset@0",	  "reset=1",   "io",
					   "io=1",     "latency",   "latency=",	  "latency=5", "latency=2h",
					   "clear@1",  "latency@1", "program",	  "evict",     "io@1+nonsense" };
	struct inl_chip *chip = chip_new(1, 0, 0);
	uint8_t plain[UNIT] = { 0 }, out[UNIT];
	struct ask ask;

	chip_write(chip, 0, 1);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct inl_diag diag = { 0 };

		assert_int_equal(inl_chip_test(chip, bad[i], strlen(bad[i]), &diag), -EINVAL);
		assert_true(diag.text[0]);
	}
	/* Nothing of the refused lists is at work. */
	ask_init(&ask, 0, true, out, plain, UNIT);
	assert_int_equal(ask_wait(chip, &ask), INL_CHIP_OK);
	for (unsigned i = 0; i < INL_FAULT_RULES_MAX; i++)
		chip_test(chip, "evict@*");
	assert_int_equal(inl_chip_test(chip, "io@1", 4, NULL), -ENOSPC);
	inl_chip_free(chip);
}

/* ---- an engine under load ---------------------------------------------------------------------------------------- */

#define N_BIOS 48u
#define DEPTH  16u

/* N_BIOS bios of len bytes, each at its own place, key and DUN. Bio i has key i % n_keys. */
struct load {
	struct inl_dev *dev;
	unsigned n_keys;
	size_t len; /* bytes per bio */
	struct inl_key *keys[4];
	struct inl_key_use *uses[4];
	struct inl_bio bios[N_BIOS];
	struct iovec segs[N_BIOS][2];
	int status[N_BIOS]; /* 1: not done */
	uint8_t *buf;	    /* N_BIOS * len */
};

static void load_init(struct load *load, const char *spec, unsigned n_keys, size_t len)
{
	memset(load, 0, sizeof(*load));
	load->dev = open_dev(spec);
	load->n_keys = n_keys;
	load->len = len;
	load->buf = calloc(N_BIOS, len);
	assert_true(load->buf && inl_dev_size(load->dev) >= N_BIOS * len);
	for (unsigned i = 0; i < n_keys; i++) {
		assert_int_equal(key_make(i, UNIT, &load->keys[i]), 0);
		assert_int_equal(inl_key_start(load->dev, load->keys[i], &load->uses[i]), 0);
		assert_true(inl_key_use_native(load->uses[i]));
	}
}

static void load_done(struct load *load)
{
	for (unsigned i = 0; i < load->n_keys; i++) {
		if (load->uses[i])
			assert_int_equal(inl_key_evict(load->uses[i]), 0);
		inl_key_put(load->keys[i]);
	}
	inl_dev_close(load->dev);
	free(load->buf);
}

static uint64_t dun_of(unsigned i)
{
	return 1000000ull * i + 7;
}

static void load_note(struct inl_bio *bio)
{
	struct load *load = bio->private_data;
	unsigned i = (unsigned)(bio - load->bios);

	assert_int_equal(load->status[i], 1); /* exactly once */
	load->status[i] = bio->status;
}

static void load_prepare(struct load *load, unsigned i, enum inl_op op)
{
	struct inl_crypt_ctx ctx = { .use = load->uses[i % load->n_keys], .dun = { dun_of(i) } };
	uint8_t *buf = load->buf + i * load->len;

	/* In two segments if there are two units. */
	load->segs[i][0] = (struct iovec){ buf, load->len > UNIT ? load->len - UNIT : load->len };
	load->segs[i][1] = (struct iovec){ buf + load->segs[i][0].iov_len, UNIT };
	if (op == INL_WRITE)
		pattern_fill(buf, i * load->len, load->len, 1);
	else
		memset(buf, 0xee, load->len);
	inl_bio_init_keyed(&load->bios[i], op, i * load->len, load->segs[i], load->len > UNIT ? 2 : 1, &ctx);
	load->bios[i].done = load_note;
	load->bios[i].private_data = load;
	load->status[i] = 1;
}

/* All bios, DEPTH at a time. Returns how many failed. */
static unsigned load_run(struct load *load, enum inl_op op)
{
	struct inl_queue *queue;
	unsigned n_failed = 0;

	assert_int_equal(inl_queue_new(load->dev, DEPTH, &queue), 0);
	for (unsigned i = 0; i < N_BIOS; i++) {
		load_prepare(load, i, op);
		while (inl_queue_submit(queue, &load->bios[i]) == -EAGAIN)
			inl_queue_reap(queue, 1);
	}
	while (inl_queue_n_busy(queue))
		inl_queue_reap(queue, 1);
	inl_queue_free(queue);
	for (unsigned i = 0; i < N_BIOS; i++) {
		assert_int_not_equal(load->status[i], 1);
		n_failed += load->status[i] != 0;
	}
	return n_failed;
}

static void want_of(const struct load *load, unsigned i, uint8_t *want)
{
	uint8_t plain[UNIT];

	for (size_t at = 0; at < load->len; at += UNIT) {
		pattern_fill(plain, i * load->len + at, UNIT, 1);
		assert_true(unit_crypt(i % load->n_keys, dun_of(i) + at / UNIT, plain, want + at, UNIT, true));
	}
}

/* The medium: what was acknowledged is there, as OpenSSL has it; what failed may be, piece by piece; never plaintext. */
static void load_check_medium(struct load *load)
{
	struct inl_dev *medium = inl_dev_child(inl_dev_find(load->dev, "engine"), 0);
	uint8_t *have = malloc(load->len), *want = malloc(load->len), zeros[UNIT] = { 0 };

	for (unsigned i = 0; i < N_BIOS; i++) {
		assert_int_equal(inl_dev_read(medium, i * load->len, have, load->len), 0);
		want_of(load, i, want);
		if (!load->status[i])
			assert_memory_equal(have, want, load->len);
		for (size_t at = 0; at < load->len; at += UNIT)
			assert_true(!memcmp(have + at, want + at, UNIT) || !memcmp(have + at, zeros, UNIT));
	}
	assert_int_equal(pattern_find_on(medium), -1);
	free(have);
	free(want);
}

/* What was read well is right; what failed is not handed out as if it had been. */
static void load_check_buffers(const struct load *load)
{
	for (unsigned i = 0; i < N_BIOS; i++) {
		if (!load->status[i])
			assert_true(pattern_is(load->buf + i * load->len, i * load->len, load->len, 1));
		else
			assert_int_equal(pattern_find(load->buf + i * load->len, load->len), -1);
	}
}

static const char *engine_spec(unsigned n_slots, unsigned n_threads, const char *more)
{
	static char spec[256];

	snprintf(spec, sizeof(spec), "engine(ram(8M), slots=%u, threads=%u%s%s)", n_slots, n_threads, *more ? ", " : "",
		 more);
	return spec;
}

static const unsigned slot_counts[] = { 0, 1, 3 }, thread_counts[] = { 0, 1, 4 };

/* Every bio, whatever slots and threads, is what OpenSSL makes of it; the units are counted. */
static void test_load(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		unsigned n_slots = slot_counts[i % 3], n_threads = thread_counts[i / 3];
		struct load *load = malloc(sizeof(*load));
		struct inl_counters c;

		load_init(load, engine_spec(n_slots, n_threads, ""), 2, 3 * UNIT);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		load_check_medium(load);
		assert_int_equal(load_run(load, INL_READ), 0);
		load_check_buffers(load);
		c = counters_of(load->dev);
		assert_int_equal(c.engine_units_encrypted, 3 * N_BIOS);
		assert_int_equal(c.engine_units_decrypted, 3 * N_BIOS);
		assert_int_equal(c.fallback_units_encrypted + c.fallback_units_decrypted + c.errors + c.resets, 0);
		assert_true(n_slots ? c.slot_programs >= 2 : !c.slot_programs);
		load_done(load);
		free(load);
	}
}

/* Resets during writes and reads: nobody above notices, and nothing is decrypted twice. */
static void test_reset_under_load(void **state)
{
	static const struct {
		const char *rules;
		unsigned n_resets;
	} rows[] = { { "reset@1", 1 },	 { "reset@5", 1 },	       { "reset@40", 1 },
		     { "reset@2..3", 2 }, { "reset@5+reset@35", 2 } };

	for (unsigned i = 0; i < 9 * sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned n_slots = slot_counts[i % 3], n_threads = thread_counts[i / 3 % 3], row = i / 9;
		struct load *load = malloc(sizeof(*load));
		struct inl_counters c;

		load_init(load, engine_spec(n_slots, n_threads, ""), 2, 2 * UNIT);
		command(load->dev, rows[row].rules);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		load_check_medium(load);
		c = counters_of(load->dev);
		/* Two that come while one is dealt with are one. */
		assert_true(c.resets >= 1 && c.resets <= rows[row].n_resets);
		if (!n_threads)
			assert_int_equal(c.resets, rows[row].n_resets);
		command(load->dev, rows[row].rules);
		assert_int_equal(load_run(load, INL_READ), 0);
		load_check_buffers(load);
		c = counters_of(load->dev);
		assert_true(c.resets >= 2 && c.resets <= 2 * rows[row].n_resets);
		assert_int_equal(c.engine_units_encrypted, 2 * N_BIOS);
		assert_int_equal(c.engine_units_decrypted, 2 * N_BIOS);
		assert_int_equal(c.errors, 0);
		load_done(load);
		free(load);
	}
}

/* All of them wait in the chip when it is reset. */
static void test_reset_of_what_waits(void **state)
{
	for (unsigned i = 0; i < 18; i++) {
		unsigned n_slots = slot_counts[i % 3], n_threads = thread_counts[i / 3 % 3];
		enum inl_op op = i / 9 ? INL_READ : INL_WRITE;
		struct load *load = malloc(sizeof(*load));
		struct inl_queue *queue;

		load_init(load, engine_spec(n_slots, n_threads, ""), 1, 2 * UNIT);
		if (op == INL_READ)
			assert_int_equal(load_run(load, INL_WRITE), 0);
		command(load->dev, "latency=3600s");
		assert_int_equal(inl_queue_new(load->dev, N_BIOS, &queue), 0);
		for (unsigned j = 0; j < N_BIOS; j++) {
			load_prepare(load, j, op);
			assert_int_equal(inl_queue_submit(queue, &load->bios[j]), 0);
		}
		inl_queue_reap(queue, 0);
		assert_int_equal(inl_queue_n_busy(queue), N_BIOS);
		command(load->dev, "latency=0ns+reset");
		while (inl_queue_n_busy(queue))
			inl_queue_reap(queue, 1);
		inl_queue_free(queue);
		for (unsigned j = 0; j < N_BIOS; j++)
			assert_int_equal(load->status[j], 0);
		if (op == INL_READ)
			load_check_buffers(load);
		load_check_medium(load);
		assert_int_equal(counters_of(load->dev).resets, 1);
		load_done(load);
		free(load);
	}
}

/* A reset while nothing happens: the keys are back in their slots at once. */
static void test_reset_when_idle(void **state)
{
	struct load *load = malloc(sizeof(*load));
	struct inl_counters c;

	load_init(load, "engine(ram(8M), slots=3)", 2, UNIT);
	assert_int_equal(load_run(load, INL_WRITE), 0);
	assert_int_equal(counters_of(load->dev).slot_programs, 2);
	command(load->dev, "reset");
	c = counters_of(load->dev);
	assert_int_equal(c.resets, 1);
	assert_int_equal(c.slot_programs, 4);
	assert_int_equal(load_run(load, INL_READ), 0);
	load_check_buffers(load);
	assert_int_equal(counters_of(load->dev).slot_programs, 4);
	load_done(load);
	free(load);
}

/* A chip that is reset by every request is given up, and works again when it does. */
static void test_reset_for_ever(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		unsigned n_slots = slot_counts[i % 3], n_threads = thread_counts[i / 3];
		struct load *load = malloc(sizeof(*load));

		load_init(load, engine_spec(n_slots, n_threads, "faults=reset@*"), 2, UNIT);
		assert_int_equal(load_run(load, INL_WRITE), N_BIOS);
		for (unsigned j = 0; j < N_BIOS; j++)
			assert_int_equal(load->status[j], -EIO);
		load_check_medium(load); /* all zero */
		assert_int_equal(counters_of(load->dev).errors, N_BIOS);
		assert_int_equal(counters_of(load->dev).engine_units_encrypted, 0);
		command(load->dev, "clear");
		assert_int_equal(load_run(load, INL_WRITE), 0);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* Two tries fail, the third is allowed to work. */
static void test_reset_tries(void **state)
{
	for (unsigned n_slots = 0; n_slots <= 1; n_slots++) {
		struct inl_dev *dev = open_dev(engine_spec(n_slots, 0, ""));
		struct inl_key *key;
		struct inl_key_use *use;
		uint8_t buf[UNIT] = { 0 };

		assert_int_equal(key_make(1, UNIT, &key), 0);
		assert_int_equal(inl_key_start(dev, key, &use), 0);
		struct inl_crypt_ctx ctx = { .use = use };

		command(dev, "reset@1..2");
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), 0);
		command(dev, "reset@1..3");
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), -EIO);
		assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), 0);
		assert_int_equal(counters_of(dev).resets, 5);
		assert_int_equal(inl_key_evict(use), 0);
		inl_key_put(key);
		inl_dev_close(dev);
	}
}

/* One request fails: one bio hears of it, the rest does not. */
static void test_io_fault(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		unsigned n_slots = slot_counts[i % 3], n_threads = thread_counts[i / 3];
		struct load *load = malloc(sizeof(*load));

		load_init(load, engine_spec(n_slots, n_threads, "faults=io@7"), 2, 2 * UNIT);
		assert_int_equal(load_run(load, INL_WRITE), 1);
		load_check_medium(load);
		assert_int_equal(counters_of(load->dev).errors, 1);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		command(load->dev, "io@11..12");
		assert_int_equal(load_run(load, INL_READ), 2);
		for (unsigned j = 0; j < N_BIOS; j++)
			assert_true(!load->status[j] || load->status[j] == -EIO);
		load_check_buffers(load);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* A slot that could not be programmed is used under no key: what is written is right, or is not written. */
static void test_program_fault(void **state)
{
	for (unsigned i = 0; i < 6; i++) {
		unsigned n_slots = slot_counts[1 + i % 2], n_threads = thread_counts[i / 2];
		struct load *load = malloc(sizeof(*load));
		struct inl_counters c;
		unsigned n_failed;

		load_init(load, engine_spec(n_slots, n_threads, "faults=program@2"), 4, 2 * UNIT);
		n_failed = load_run(load, INL_WRITE);
		assert_int_equal(n_failed, 1);
		load_check_medium(load);
		c = counters_of(load->dev);
		assert_int_equal(c.slot_program_failures, 1);
		assert_int_equal(c.errors, 1);
		command(load->dev, "program@*+reset");
		assert_int_equal(load_run(load, INL_WRITE), N_BIOS);
		for (unsigned j = 0; j < N_BIOS; j++)
			assert_int_equal(load->status[j], -EIO);
		command(load->dev, "clear");
		assert_int_equal(load_run(load, INL_WRITE), 0);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* After a reset a slot is not programmed again: those who hold it fail, later ones get a new try. */
static void test_program_fault_after_reset(void **state)
{
	for (unsigned i = 0; i < 6; i++) {
		unsigned n_slots = slot_counts[1 + i % 2], n_threads = thread_counts[i / 2], n_failed;
		struct load *load = malloc(sizeof(*load));

		load_init(load, engine_spec(n_slots, n_threads, "faults=reset@9+program@2"), 1, 2 * UNIT);
		n_failed = load_run(load, INL_WRITE);
		assert_true(n_failed >= 1 && n_failed <= DEPTH);
		load_check_medium(load);
		assert_int_equal(counters_of(load->dev).slot_program_failures, 1);
		assert_int_equal(counters_of(load->dev).errors, n_failed);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		command(load->dev, "reset@9+program@1");
		n_failed = load_run(load, INL_READ);
		assert_true(n_failed >= 1 && n_failed <= DEPTH);
		load_check_buffers(load);
		load_done(load);
		free(load);
	}
}

/* Without slots there is nothing to program but when a key is started. */
static void test_start_fault(void **state)
{
	struct inl_dev *dev = open_dev("engine(ram(1M), slots=0, faults=program@2)");
	struct inl_key_use *uses[2] = { 0 };
	struct inl_key *key;

	assert_int_equal(key_make(1, UNIT, &key), 0);
	assert_int_equal(inl_key_start(dev, key, &uses[0]), 0);
	assert_int_equal(inl_key_start(dev, key, &uses[1]), -EIO);
	assert_null(uses[1]);
	assert_int_equal(inl_key_start(dev, key, &uses[1]), 0);
	command(dev, "evict@1");
	assert_int_equal(inl_key_evict(uses[0]), -EIO);
	assert_int_equal(inl_key_evict(uses[1]), 0);
	inl_key_put(key);
	inl_dev_close(dev);
}

/* A failed eviction is reported, and the slot serves another key all the same. */
static void test_evict_fault(void **state)
{
	for (unsigned i = 0; i < 6; i++) {
		struct load *load = malloc(sizeof(*load));
		struct inl_counters c;

		load_init(load, engine_spec(slot_counts[1 + i % 2], thread_counts[i / 2], "faults=evict@1"), 1, UNIT);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		assert_int_equal(inl_key_evict(load->uses[0]), -EIO);
		c = counters_of(load->dev);
		assert_int_equal(c.slot_evict_failures, 1);
		assert_int_equal(c.slot_evictions, 1);
		assert_int_equal(c.keys_evicted, 1);
		/* The same bytes as before: a key object of the same kind, started anew. */
		assert_int_equal(inl_key_start(load->dev, load->keys[0], &load->uses[0]), 0);
		assert_int_equal(load_run(load, INL_READ), 0);
		load_check_buffers(load);
		command(load->dev, "evict@1");
		assert_int_equal(inl_key_evict(load->uses[0]), -EIO);
		load->uses[0] = NULL;
		inl_key_put(load->keys[0]);
		assert_int_equal(key_make(0, UNIT, &load->keys[0]), 0);
		assert_int_equal(inl_key_start(load->dev, load->keys[0], &load->uses[0]), 0);
		assert_int_equal(load_run(load, INL_WRITE), 0);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* Pairs of faults, at places drawn by lot: nothing acknowledged is wrong, every error is reported once. */
static void test_pairs(void **state)
{
	static const char *const kinds[] = { "reset", "program", "io" };
	uint64_t seed = 20261;

	for (unsigned round = 0; round < 60; round++) {
		struct load *load = malloc(sizeof(*load));
		char rules[96];
		unsigned n_failed;

		snprintf(rules, sizeof(rules), "%s@%u+%s@%u", kinds[roll(&seed, 3)], 1 + roll(&seed, 30),
			 kinds[roll(&seed, 3)], 1 + roll(&seed, 30));
		load_init(load, engine_spec(1 + roll(&seed, 3), roll(&seed, 3), ""), 1 + roll(&seed, 4), 2 * UNIT);
		command(load->dev, rules);
		n_failed = load_run(load, INL_WRITE);
		assert_int_equal(counters_of(load->dev).errors, n_failed);
		load_check_medium(load);
		command(load->dev, "clear");
		assert_int_equal(load_run(load, INL_WRITE), 0);
		command(load->dev, rules);
		load_run(load, INL_READ);
		load_check_buffers(load);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* ---- threads, time ----------------------------------------------------------------------------------------------- */

/* Submit returns before the work is done, and requests wait side by side. */
static void test_latency(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		struct load *load = malloc(sizeof(*load));
		struct inl_queue *queue;
		uint64_t begin;

		load_init(load, engine_spec(slot_counts[i % 3], thread_counts[i / 3], "latency=30ms"), 1, UNIT);
		assert_int_equal(inl_queue_new(load->dev, N_BIOS, &queue), 0);
		begin = inl_now_ns();
		for (unsigned j = 0; j < N_BIOS; j++) {
			load_prepare(load, j, INL_WRITE);
			assert_int_equal(inl_queue_submit(queue, &load->bios[j]), 0);
		}
		assert_int_equal(inl_queue_n_busy(queue), N_BIOS);
		assert_int_equal(inl_queue_reap(queue, N_BIOS), N_BIOS);
		assert_true(inl_now_ns() - begin >= 30 * MS);
		assert_true(inl_now_ns() - begin < N_BIOS * 30 * MS / 2);
		inl_queue_free(queue);
		load_check_medium(load);
		load_done(load);
		free(load);
	}
}

/* More requests than the chip takes at a time wait in line, through a reset too. */
static void test_more_than_the_chip_holds(void **state)
{
	enum { N = 3 * INL_CHIP_DEPTH + 5 };
	struct inl_bio *bios = calloc(N, sizeof(*bios));
	struct iovec *segs = calloc(N, sizeof(*segs));
	uint8_t *plain = malloc(N * UNIT), *buf = malloc(N * UNIT);

	for (unsigned i = 0; i < 9; i++) {
		struct inl_dev *dev = open_dev(engine_spec(slot_counts[i % 3], thread_counts[i / 3], ""));
		struct inl_key_use *use;
		struct inl_queue *queue;
		struct inl_key *key;

		assert_int_equal(key_make(1, UNIT, &key), 0);
		assert_int_equal(inl_key_start(dev, key, &use), 0);
		pattern_fill(plain, 0, N * UNIT, 1);
		assert_int_equal(inl_dev_write_keyed(dev, 0, plain, N * UNIT, &(struct inl_crypt_ctx){ .use = use }), 0);
		assert_int_equal(inl_queue_new(dev, N, &queue), 0);
		command(dev, "latency=10ms");
		for (unsigned j = 0; j < N; j++) {
			struct inl_crypt_ctx ctx = { .use = use, .dun = { j } };

			segs[j] = (struct iovec){ buf + j * UNIT, UNIT };
			inl_bio_init_keyed(&bios[j], INL_READ, j * UNIT, &segs[j], 1, &ctx);
			assert_int_equal(inl_queue_submit(queue, &bios[j]), 0);
		}
		inl_queue_reap(queue, 1);
		command(dev, "reset");
		while (inl_queue_n_busy(queue))
			inl_queue_reap(queue, 1);
		for (unsigned j = 0; j < N; j++)
			assert_int_equal(bios[j].status, 0);
		assert_memory_equal(buf, plain, N * UNIT);
		inl_queue_free(queue);
		assert_int_equal(inl_key_evict(use), 0);
		inl_key_put(key);
		inl_dev_close(dev);
	}
	free(bios);
	free(segs);
	free(plain);
	free(buf);
}

struct stress {
	struct inl_dev *dev;
	atomic_uint errors, done, n_resets, stop;
	unsigned n_rounds;
	struct inl_key_use *shared; /* a key that all use beside their own */
};

struct stress_worker {
	struct stress *stress;
	unsigned id;
	pthread_t thread;
};

static int write_read(struct stress *stress, struct inl_key_use *use, unsigned id, unsigned round, uint8_t *buf, size_t len)
{
	struct inl_crypt_ctx ctx = { .use = use, .dun = { id * 1000000ull + round } };
	uint64_t pos = id * 48ull * UNIT; /* a place of its own for the largest */
	int err;

	pattern_fill(buf, pos, len, round);
	err = inl_dev_write_keyed(stress->dev, pos, buf, len, &ctx);
	memset(buf, 0, len);
	if (!err)
		err = inl_dev_read_keyed(stress->dev, pos, buf, len, &ctx);
	if (!err && !pattern_is(buf, pos, len, round))
		err = -EILSEQ;
	return err;
}

/* Start a key, write and read with it and with the shared one, evict it. */
static void *stress_work(void *arg)
{
	struct stress_worker *worker = arg;
	struct stress *stress = worker->stress;
	size_t len = (1 + worker->id % 3) * 16 * UNIT;
	uint8_t *buf = malloc(len);
	struct inl_key *key;

	if (!buf || key_make(100 + worker->id, UNIT, &key))
		return NULL;
	for (unsigned round = 0; round < stress->n_rounds; round++) {
		struct inl_key_use *use;
		int err;

		/* The resetter may not get a processor for long: the work must not be over before it has done its own. */
		while (atomic_load(&stress->done) >= 60 * (atomic_load(&stress->n_resets) + 1))
			sleep_ns(20000);
		err = inl_key_start(stress->dev, key, &use);

		if (!err) {
			err = write_read(stress, use, worker->id * 3, round, buf, len);
			if (!err)
				err = write_read(stress, stress->shared, worker->id * 3 + 1, round, buf, len);
			if (inl_key_evict(use))
				err = -EILSEQ;
		}
		atomic_fetch_add(&stress->errors, err != 0);
		atomic_fetch_add(&stress->done, 1);
	}
	inl_key_put(key);
	free(buf);
	return NULL;
}

/* Reset each time some work was done: so often, and not more, that nobody may run out of tries. */
static void *stress_reset(void *arg)
{
	struct stress *stress = arg;
	unsigned seen = 0;

	while (!atomic_load(&stress->stop)) {
		if (atomic_load(&stress->done) - seen < 8) {
			sleep_ns(20000);
			continue;
		}
		seen = atomic_load(&stress->done);
		if (inl_dev_control(stress->dev, "reset", NULL))
			atomic_fetch_add(&stress->errors, 1);
		atomic_fetch_add(&stress->n_resets, 1);
	}
	return NULL;
}

static void stress_run(const char *spec)
{
	struct stress stress = { .dev = open_dev(spec), .n_rounds = 60 };
	struct stress_worker workers[6];
	struct inl_key *shared;
	pthread_t resetter;
	struct inl_counters c;

	assert_int_equal(key_make(99, UNIT, &shared), 0);
	assert_int_equal(inl_key_start(stress.dev, shared, &stress.shared), 0);
	for (unsigned i = 0; i < 6; i++) {
		workers[i] = (struct stress_worker){ .stress = &stress, .id = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, stress_work, &workers[i]), 0);
	}
	assert_int_equal(pthread_create(&resetter, NULL, stress_reset, &stress), 0);
	for (unsigned i = 0; i < 6; i++)
		pthread_join(workers[i].thread, NULL);
	atomic_store(&stress.stop, 1);
	pthread_join(resetter, NULL);
	assert_int_equal(atomic_load(&stress.done), 6 * stress.n_rounds);
	assert_int_equal(atomic_load(&stress.errors), 0);
	c = counters_of(stress.dev);
	assert_true(c.resets >= 5);
	assert_int_equal(c.errors, 0);
	assert_int_equal(c.keys_evicted, 6 * stress.n_rounds);
	assert_int_equal(pattern_find_on(inl_dev_child(stress.dev, 0)), -1);
	assert_int_equal(inl_key_evict(stress.shared), 0);
	inl_key_put(shared);
	inl_dev_close(stress.dev);
}

/* Many threads, keys that come and go, resets all the time: in the middle of reads, writes and evictions. */
static void test_threads_and_resets(void **state)
{
	stress_run("engine(ram(8M), slots=1)");
	stress_run("engine(ram(8M), slots=1, threads=2)");
	stress_run("engine(ram(8M), slots=3, threads=4)");
	stress_run("engine(ram(8M), slots=0, threads=2)");
	stress_run("engine(ram(8M), slots=2, threads=1, latency=50us)");
}

/* ---- options and capabilities ------------------------------------------------------------------------------------ */

static void test_options(void **state)
{
	struct inl_dev *dev = open_dev("engine(ram(1M), slots=7, modes=aes-256-xts, unit=512+4K, dun_bytes=16, "
				       "keys=raw+wrapped, threads=3, latency=5us, faults=io@9+reset@7)");
	struct inl_caps caps;

	inl_dev_caps(dev, &caps);
	assert_int_equal(inl_dev_n_slots(dev), 7);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 512 | 4096);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV], 0);
	assert_int_equal(caps.max_dun_bytes, 16);
	assert_int_equal(caps.key_types, INL_KEY_RAW | INL_KEY_HW_WRAPPED);
	assert_string_equal(inl_dev_label(dev), "7 slots, 3 threads");
	inl_dev_close(dev);

	dev = open_dev("engine(ram(1M))");
	inl_dev_caps(dev, &caps);
	assert_int_equal(inl_dev_n_slots(dev), 4);
	assert_int_equal(caps.key_types, INL_KEY_RAW);
	assert_string_equal(inl_dev_label(dev), "4 slots");
	inl_dev_close(dev);

	dev = open_dev("engine(ram(1M), keys=wrapped)"); /* of the modes only what wrapped keys can */
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.key_types, INL_KEY_HW_WRAPPED);
	assert_true(caps.modes[INL_BLK_MODE_AES_256_XTS] && !caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV]);
	inl_dev_close(dev);

	for (unsigned i = 0; i < 2; i++) {
		dev = open_dev(i ? "engine(ram(1M), slots=1024, threads=64)" : "engine(ram(1M), slots=0, threads=0)");
		assert_int_equal(inl_dev_n_slots(dev), i ? 1024 : 0);
		inl_dev_close(dev);
	}
}

static void test_options_refused(void **state)
{
	char spec[256];
	int fd = open(path_of("short"), O_CREAT | O_WRONLY, 0600);

	refuses("engine(ram(1M), threads=65)", -EINVAL, "column 25: threads 65: expected 0 to 64");
	refuses("engine(ram(1M), threads=many)", -EINVAL, "column 25: expected a number");
	refuses("engine(ram(1M), slots=1025)", -EINVAL, "column 23: slots 1025: expected 0 to 1024");
	refuses("engine(ram(1M), latency=5)", -EINVAL, "column 25: latency '5': expected digits");
	refuses("engine(ram(1M), latency=2h)", -EINVAL, "latency '2h'");
	refuses("engine(ram(1M), keys=raw+soft)", -EINVAL, "column 22: keys 'soft'");
	refuses("engine(ram(1M), keys=raw+)", -EINVAL, "keys ''");
	refuses("engine(ram(1M), modes=rot13)", -EINVAL, "column 23: unknown mode 'rot13'");
	refuses("engine(ram(1M), dun_bytes=33)", -EINVAL, "column 27: dun_bytes 33: expected 1 to 32");
	refuses("engine(ram(1M), faults=reset@0)", -EINVAL, "column 24: rule 'reset@0': expected one of reset, reset@N, ");
	refuses("engine(ram(1M), faults=io@1+oops)", -EINVAL, "rule 'oops'");
	refuses("engine(ram(1M), faults=latency=2h)", -EINVAL, "column 24: latency '2h'");
	refuses("engine(ram(1M), secret=/nonexistent/secret)", -ENOENT,
		"column 24: secret: cannot read '/nonexistent/secret'");
	assert_int_equal(write(fd, "0123456789012345678901234567890", 31), 31);
	snprintf(spec, sizeof(spec), "engine(ram(1M), keys=wrapped, secret=%s)", path_of("short"));
	refuses(spec, -EINVAL, "secret: expected a file of exactly 32 bytes");
	assert_int_equal(write(fd, "12", 2), 2);
	refuses(spec, -EINVAL, "secret: expected a file of exactly 32 bytes");
	close(fd);
}

static void test_commands_refused(void **state)
{
	struct inl_dev *dev = open_dev("slice(engine(ram(1M), slots=1), offset=4K)"), *engine = inl_dev_find(dev, "engine");

	command_refused(dev, "reset", -ENOTTY, "slice");
	command_refused(engine, "", -EINVAL, "expected one of reset");
	command_refused(engine, "resett", -EINVAL, "rule 'resett'");
	command_refused(engine, "modes=rot13", -EINVAL, "unknown mode 'rot13'");
	command_refused(engine, "unit=3", -EINVAL, "unit '3'");
	command_refused(engine, "dun_bytes=0", -EINVAL, "dun_bytes 0");
	command_refused(engine, "keys=", -EINVAL, "keys ''");
	command_refused(engine, "slots=2", -EINVAL, "rule 'slots=2'");
	command_refused(engine, "latency=soon", -EINVAL, "latency 'soon'");
	for (unsigned i = 0; i < INL_FAULT_RULES_MAX; i++)
		command(dev, "io@1000..2000");
	command_refused(engine, "io@1", -ENOSPC, "'clear' ends them");
	inl_dev_close(dev);
}

/* Capabilities of a live engine grow at any time, and shrink when no key is started; the stack above follows. */
static void test_live_caps(void **state)
{
	struct inl_dev *dev = open_dev("slice(engine(ram(8M), slots=1, modes=aes-256-xts, unit=4096), offset=64K)");
	struct inl_dev *engine = inl_dev_find(dev, "engine");
	struct inl_key *key, *small;
	struct inl_key_use *use, *small_use;
	struct inl_caps caps;
	uint8_t buf[UNIT], raw[UNIT], want[UNIT];

	assert_int_equal(key_make(1, UNIT, &key), 0);
	assert_int_equal(key_make(2, 512, &small), 0);
	assert_int_equal(inl_key_start(dev, key, &use), 0);
	assert_true(inl_key_use_native(use));
	command_refused(engine, "unit=512", -EBUSY, "unit: keys are started");
	command_refused(engine, "modes=aes-128-cbc-essiv", -EBUSY, "modes: keys are started");
	command_refused(engine, "dun_bytes=4", -EBUSY, "dun_bytes: keys are started");
	command_refused(engine, "keys=wrapped", -EBUSY, "keys: keys are started");
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 4096);
	command(dev, "reset"); /* the key goes into its slot again: the chip is what it was */
	struct inl_crypt_ctx first = { .use = use };

	assert_int_equal(inl_dev_read_keyed(dev, 0, buf, UNIT, &first), 0);
	command(dev, "reset");
	assert_int_equal(counters_of(dev).slot_programs, 2);
	command(dev, "unit=4096+512");
	command(dev, "modes=aes-256-xts+aes-128-cbc-essiv");
	command(dev, "dun_bytes=32");
	command(dev, "keys=raw+wrapped");
	inl_dev_caps(dev, &caps);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_256_XTS], 4096 | 512);
	assert_int_equal(caps.modes[INL_BLK_MODE_AES_128_CBC_ESSIV], 4096 | 512);
	assert_int_equal(caps.max_dun_bytes, 32);
	assert_int_equal(caps.key_types, INL_KEY_RAW | INL_KEY_HW_WRAPPED);

	/* What was gained works, and what was there before still does. */
	assert_int_equal(inl_key_start(dev, small, &small_use), 0);
	assert_true(inl_key_use_native(small_use));
	struct inl_crypt_ctx ctx = { .use = small_use, .dun = { 5 } }, old = { .use = use, .dun = { 6 } };

	pattern_fill(buf, 0, UNIT, 1);
	assert_int_equal(inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx), 0);
	assert_int_equal(inl_dev_write_keyed(dev, UNIT, buf, UNIT, &old), 0);
	assert_int_equal(inl_dev_read(inl_dev_child(engine, 0), 65536, raw, UNIT), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_true(unit_crypt(2, 5 + i, buf + 512 * i, want + 512 * i, 512, true));
	assert_memory_equal(raw, want, UNIT);
	assert_int_equal(inl_dev_read(inl_dev_child(engine, 0), 65536 + UNIT, raw, UNIT), 0);
	assert_true(unit_crypt(1, 6, buf, want, UNIT, true));
	assert_memory_equal(raw, want, UNIT);
	assert_int_equal(inl_key_evict(small_use), 0);
	assert_int_equal(inl_key_evict(use), 0);

	command(dev, "unit=512");
	assert_int_equal(inl_key_start(dev, key, &use), 0); /* the fallback's now */
	assert_false(inl_key_use_native(use));
	old.use = use;
	assert_int_equal(inl_dev_read_keyed(dev, UNIT, raw, UNIT, &old), 0);
	assert_memory_equal(raw, buf, UNIT);
	command(dev, "modes=aes-128-cbc-essiv"); /* nobody relies on the engine */
	assert_int_equal(inl_key_evict(use), 0);
	inl_key_put(key);
	inl_key_put(small);
	inl_dev_close(dev);
}

/* An engine that can do nothing with a key leaves it to the fallback, and ciphertext passes it, whatever its state. */
static void test_sealed_passes(void **state)
{
	struct load *load = malloc(sizeof(*load));
	uint8_t *want = malloc(UNIT), *have = malloc(UNIT);

	memset(load, 0, sizeof(*load));
	load->dev = open_dev("engine(ram(8M), slots=1, unit=512, faults=reset@*+io@*+program@*)");
	load->n_keys = 1;
	load->len = UNIT;
	load->buf = calloc(N_BIOS, UNIT);
	assert_int_equal(key_make(0, UNIT, &load->keys[0]), 0);
	assert_int_equal(inl_key_start(load->dev, load->keys[0], &load->uses[0]), 0);
	assert_false(inl_key_use_native(load->uses[0]));
	assert_int_equal(load_run(load, INL_WRITE), 0);
	load_check_medium(load);
	assert_int_equal(load_run(load, INL_READ), 0);
	load_check_buffers(load);
	want_of(load, 3, want);
	struct iovec seg = { have, UNIT };
	struct inl_bio bio;

	inl_bio_init_raw_read(&bio, 3 * UNIT, &seg, 1);
	assert_int_equal(inl_submit_wait(load->dev, &bio), 0);
	assert_memory_equal(have, want, UNIT);
	assert_int_equal(counters_of(load->dev).engine_units_encrypted, 0);
	load_done(load);
	free(load);
	free(want);
	free(have);
}

/* ---- wrapped keys ------------------------------------------------------------------------------------------------ */

/* AES-256-CMAC and the derivation by hand: SP 800-38B, 6; SP 800-108, 5.1. */

static void aes_block(const uint8_t key[32], const uint8_t in[16], uint8_t out[16])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int len;

	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_ecb(), NULL, key, NULL), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, out, &len, in, 16), 1);
	EVP_CIPHER_CTX_free(ctx);
}

static void double_block(uint8_t block[16])
{
	uint8_t carry = block[0] >> 7;

	for (unsigned i = 0; i < 15; i++)
		block[i] = (uint8_t)(block[i] << 1 | block[i + 1] >> 7);
	block[15] = (uint8_t)(block[15] << 1 ^ (carry ? 0x87 : 0));
}

static void slow_cmac(const uint8_t key[32], const uint8_t *text, size_t len, uint8_t mac[16])
{
	uint8_t sub[16] = { 0 }, last[16] = { 0 };
	size_t n_before = len ? (len - 1) / 16 : 0, tail = len - 16 * n_before;

	aes_block(key, sub, sub);
	double_block(sub);
	memcpy(last, text + 16 * n_before, tail);
	if (tail < 16) {
		last[tail] = 0x80;
		double_block(sub);
	}
	memset(mac, 0, 16);
	for (size_t i = 0; i <= n_before; i++) {
		for (unsigned j = 0; j < 16; j++)
			mac[j] ^= i < n_before ? text[16 * i + j] : last[j] ^ sub[j];
		aes_block(key, mac, mac);
	}
}

static void slow_kdf(const uint8_t key[32], const uint8_t *context, size_t len, uint8_t *out, size_t out_len)
{
	static const uint8_t label[11] = { 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20 };

	for (uint8_t i = 0; i < out_len / 16; i++) {
		uint8_t text[64] = { 0, 0, 0, (uint8_t)(i + 1) };

		memcpy(text + 4, label, 11);
		memcpy(text + 16, context, len);
		text[16 + len + 2] = (uint8_t)(out_len * 8 >> 8);
		text[16 + len + 3] = (uint8_t)(out_len * 8);
		slow_cmac(key, text, 16 + len + 4, out + 16 * i);
	}
}

static const uint8_t inline_context[36] = {
	'i', 'n', 'l', 'i', 'n', 'e', ' ', 'e',	 'n', 'c', 'r',	 'y',  'p',  't',  'i',	 'o',
	'n', ' ', 'k', 'e', 'y', 0,   0,   0,	 0,   0,   0,	 0x02, 0x43, 0x00, 0x82, 0x50,
};
static const uint8_t secret_context[28] = {
	'r', 'a', 'w', ' ', 's', 'e', 'c', 'r',	 'e',  't',  0,	   0,
	0,   0,	  0,   0,   0,	 0,   0,   0x02, 0x17, 0x00, 0x80, 0x50,
};

/* The same with OpenSSL's KBKDF, which knows the standard as such. */
static void openssl_kdf(const uint8_t key[32], const uint8_t *context, size_t len, uint8_t *out, size_t out_len)
{
	static const uint8_t label[11] = { 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20 };
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "KBKDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	char mac[] = "CMAC", cipher[] = "AES-256-CBC", mode[] = "counter";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, mac, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_CIPHER, cipher, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MODE, mode, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, 32),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)label, sizeof(label)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)context, len),
		OSSL_PARAM_construct_end(),
	};

	assert_int_equal(EVP_KDF_derive(ctx, out, out_len, params), 1);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
}

static void test_derivation(void **state)
{
	/* NIST SP 800-38B, example of AES-256, messages of 0, 16, 40 and 64 bytes */
	static const uint8_t key[32] = { 0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae,
					 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61,
					 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4 };
	static const uint8_t text[16] = { 0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96,
					  0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a };
	static const uint8_t mac0[16] = { 0x02, 0x89, 0x62, 0xf6, 0x1b, 0x7b, 0xf8, 0x9e,
					  0xfc, 0x6b, 0x55, 0x1f, 0x46, 0x67, 0xd9, 0x83 };
	static const uint8_t mac16[16] = { 0x28, 0xa7, 0x02, 0x3f, 0x45, 0x2e, 0x8f, 0x82,
					   0xbd, 0x4b, 0xf2, 0x8d, 0x8c, 0x37, 0xc3, 0x5c };
	uint8_t raw[32], want[64], have[64], mac[16];

	slow_cmac(key, text, 0, mac);
	assert_memory_equal(mac, mac0, 16);
	slow_cmac(key, text, 16, mac);
	assert_memory_equal(mac, mac16, 16);
	for (unsigned n = 0; n < 20; n++) {
		uint8_t bytes[64];

		key_bytes(500 + n, bytes);
		memcpy(raw, bytes, 32);
		slow_kdf(raw, inline_context, sizeof(inline_context), want, 64);
		assert_int_equal(inl_wrap_inline_key(raw, have), 0);
		assert_memory_equal(have, want, 64);
		openssl_kdf(raw, inline_context, sizeof(inline_context), have, 64);
		assert_memory_equal(have, want, 64);
		slow_kdf(raw, secret_context, sizeof(secret_context), want, 32);
		assert_int_equal(inl_wrap_sw_secret(raw, have), 0);
		assert_memory_equal(have, want, 32);
		openssl_kdf(raw, secret_context, sizeof(secret_context), have, 32);
		assert_memory_equal(have, want, 32);
	}
}

static void test_blobs(void **state)
{
	static const uint8_t label[4] = "abcd", other[4] = "abce";
	uint8_t kek[32], kek2[32], raw[32], blob[INL_WRAP_BLOB], again[INL_WRAP_BLOB], bytes[64], out[32], untouched[32];

	key_bytes(1, bytes);
	memcpy(kek, bytes, 32);
	memcpy(raw, bytes + 32, 32);
	key_bytes(2, bytes);
	memcpy(kek2, bytes, 32);
	memset(untouched, 9, 32);
	memcpy(out, untouched, 32);
	assert_int_equal(inl_wrap_seal(kek, label, raw, blob), 0);
	assert_int_equal(inl_wrap_seal(kek, label, raw, again), 0);
	assert_memory_not_equal(blob, again, sizeof(blob)); /* the nonce */
	assert_null(memmem(blob, sizeof(blob), raw, 8));
	assert_int_equal(inl_wrap_open(kek, other, blob, sizeof(blob), out), -EBADMSG);
	assert_int_equal(inl_wrap_open(kek2, label, blob, sizeof(blob), out), -EBADMSG);
	assert_int_equal(inl_wrap_open(kek, label, blob, sizeof(blob) - 1, out), -EBADMSG);
	assert_int_equal(inl_wrap_open(kek, label, blob, 0, out), -EBADMSG);
	for (unsigned bit = 0; bit < 8 * sizeof(blob); bit++) {
		blob[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(inl_wrap_open(kek, label, blob, sizeof(blob), out), -EBADMSG);
		blob[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_memory_equal(out, untouched, 32);
	assert_int_equal(inl_wrap_open(kek, label, blob, sizeof(blob), out), 0);
	assert_memory_equal(out, raw, 32);
}

/* One unit under a key of the reference, by OpenSSL alone. */
static void xts_unit(const uint8_t key[64], uint64_t dun, const uint8_t *in, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t iv[16] = { 0 };
	int len;

	for (unsigned i = 0; i < 8; i++)
		iv[i] = (uint8_t)(dun >> (8 * i));
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_xts(), NULL, key, iv), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, out, &len, in, UNIT), 1);
	EVP_CIPHER_CTX_free(ctx);
}

struct blob {
	uint8_t bytes[INL_WRAPPED_KEY_MAX];
	size_t len;
};

static struct blob prepare(struct inl_dev *dev, const struct blob *lt)
{
	struct blob eph = { .len = 0 };

	assert_int_equal(inl_dev_key_prepare(dev, lt->bytes, lt->len, eph.bytes, sizeof(eph.bytes), &eph.len), 0);
	assert_true(eph.len && eph.len <= INL_WRAPPED_KEY_MAX);
	return eph;
}

static struct inl_key *wrapped_key(const struct blob *blob)
{
	struct inl_key_config cfg = { INL_BLK_MODE_AES_256_XTS, UNIT, 8, INL_KEY_HW_WRAPPED };
	struct inl_key *key;

	assert_int_equal(inl_key_new(&cfg, blob->bytes, blob->len, &key), 0);
	return key;
}

/* Write and read with an ephemeral blob: the first error of starting, writing and reading. */
static int use_blob(struct inl_dev *dev, const struct blob *blob, uint8_t *medium)
{
	struct inl_key *key = wrapped_key(blob);
	struct inl_key_use *use;
	uint8_t buf[UNIT], back[UNIT];
	int err = inl_key_start(dev, key, &use);

	pattern_fill(buf, 0, UNIT, 1);
	if (!err) {
		struct inl_crypt_ctx ctx = { .use = use, .dun = { 77 } };

		assert_true(inl_key_use_native(use));
		err = inl_dev_write_keyed(dev, 0, buf, UNIT, &ctx);
		if (!err)
			err = inl_dev_read_keyed(dev, 0, back, UNIT, &ctx);
		if (!err)
			assert_memory_equal(back, buf, UNIT);
		assert_int_equal(inl_key_evict(use), 0);
		assert_int_equal(inl_dev_read(inl_dev_child(inl_dev_find(dev, "engine"), 0), 0, medium, UNIT), 0);
		assert_int_equal(pattern_find(medium, UNIT), -1);
	}
	inl_key_put(key);
	return err;
}

/* An imported key: software sees its secret, the medium what the reference makes of it. */
static void test_wrapped(void **state)
{
	static const char *const specs[] = { "engine(ram(1M), slots=1, keys=wrapped)",
					     "engine(ram(1M), slots=0, keys=raw+wrapped)",
					     "slice(engine(ram(1M), slots=2, threads=2, keys=wrapped), offset=0)" };
	uint8_t raw[64], key[64], secret[32], want[UNIT], medium[UNIT], plain[UNIT];

	key_bytes(7, raw);
	slow_kdf(raw, inline_context, sizeof(inline_context), key, 64);
	pattern_fill(plain, 0, UNIT, 1);
	xts_unit(key, 77, plain, want);
	for (unsigned i = 0; i < 3; i++) {
		struct inl_dev *dev = open_dev(specs[i]);
		struct blob lt, eph, eph2;

		assert_int_equal(inl_dev_key_import(dev, raw, 32, lt.bytes, sizeof(lt.bytes), &lt.len), 0);
		assert_null(memmem(lt.bytes, lt.len, raw, 8));
		eph = prepare(dev, &lt);
		eph2 = prepare(dev, &lt);
		assert_null(memmem(eph.bytes, eph.len, raw, 8));
		assert_memory_not_equal(eph.bytes, eph2.bytes, eph.len);
		assert_int_equal(use_blob(dev, &eph, medium), 0);
		assert_memory_equal(medium, want, UNIT);
		command(dev, "reset@1+reset@2");
		assert_int_equal(use_blob(dev, &eph2, medium), 0);
		assert_memory_equal(medium, want, UNIT);
		assert_int_equal(inl_dev_derive_sw_secret(dev, eph2.bytes, eph2.len, secret), 0);
		slow_kdf(raw, secret_context, sizeof(secret_context), key, 32);
		assert_memory_equal(secret, key, 32);
		inl_dev_close(dev);
	}
}

static void test_wrapped_generate(void **state)
{
	struct inl_dev *dev = open_dev("engine(ram(1M), slots=1, keys=wrapped)");
	struct blob a, b, eph;
	uint8_t secrets[2][32], medium[2][UNIT];

	assert_int_equal(inl_dev_key_generate(dev, a.bytes, sizeof(a.bytes), &a.len), 0);
	assert_int_equal(inl_dev_key_generate(dev, b.bytes, sizeof(b.bytes), &b.len), 0);
	for (unsigned i = 0; i < 2; i++) {
		eph = prepare(dev, i ? &b : &a);
		assert_int_equal(inl_dev_derive_sw_secret(dev, eph.bytes, eph.len, secrets[i]), 0);
		assert_int_equal(use_blob(dev, &eph, medium[i]), 0);
	}
	assert_memory_not_equal(secrets[0], secrets[1], 32);
	assert_memory_not_equal(medium[0], medium[1], UNIT);
	inl_dev_close(dev);
}

/* Blobs that this chip did not make, or not of this kind. */
static void test_wrapped_refused(void **state)
{
	for (unsigned n_slots = 0; n_slots <= 1; n_slots++) {
		char spec[96];
		struct inl_dev *dev, *stranger;
		struct blob lt, eph, bad, out = { .len = 123 };
		struct inl_counters counters;
		uint8_t raw[64] = { 1 }, medium[UNIT], secret[32] = { 0 }, zeros[UNIT] = { 0 };

		snprintf(spec, sizeof(spec), "engine(ram(1M), slots=%u, keys=raw+wrapped)", n_slots);
		dev = open_dev(spec);
		stranger = open_dev(spec);
		assert_int_equal(inl_dev_key_import(dev, raw, 32, lt.bytes, sizeof(lt.bytes), &lt.len), 0);
		eph = prepare(dev, &lt);

		assert_int_equal(use_blob(dev, &lt, medium), -EBADMSG);
		assert_int_equal(use_blob(stranger, &eph, medium), -EBADMSG);
		bad = eph;
		bad.bytes[20] ^= 1;
		assert_int_equal(use_blob(dev, &bad, medium), -EBADMSG);
		bad = eph;
		bad.len++;
		assert_int_equal(use_blob(dev, &bad, medium), -EBADMSG);
		/* Refused at the start, not in the middle of an I/O; nothing was written for any of them. */
		inl_dev_counters(dev, &counters);
		assert_int_equal(counters.keys_started, 0);
		assert_int_equal(inl_dev_read(inl_dev_child(dev, 0), 0, medium, UNIT), 0);
		assert_memory_equal(medium, zeros, UNIT);

		assert_int_equal(inl_dev_key_prepare(dev, eph.bytes, eph.len, out.bytes, sizeof(out.bytes), &out.len),
				 -EBADMSG);
		assert_int_equal(inl_dev_key_prepare(stranger, lt.bytes, lt.len, out.bytes, sizeof(out.bytes), &out.len),
				 -EBADMSG);
		assert_int_equal(inl_dev_key_prepare(dev, lt.bytes, 0, out.bytes, sizeof(out.bytes), &out.len), -EBADMSG);
		assert_int_equal(inl_dev_key_prepare(dev, lt.bytes, lt.len, out.bytes, 63, &out.len), -EOVERFLOW);
		assert_int_equal(inl_dev_key_import(dev, raw, 32, out.bytes, 63, &out.len), -EOVERFLOW);
		assert_int_equal(inl_dev_key_generate(dev, out.bytes, 63, &out.len), -EOVERFLOW);
		assert_int_equal(inl_dev_key_import(dev, raw, 31, out.bytes, sizeof(out.bytes), &out.len), -EINVAL);
		assert_int_equal(inl_dev_key_import(dev, raw, 64, out.bytes, sizeof(out.bytes), &out.len), -EINVAL);
		assert_int_equal(inl_dev_key_import(dev, raw, 0, out.bytes, sizeof(out.bytes), &out.len), -EINVAL);
		assert_int_equal(inl_dev_derive_sw_secret(dev, lt.bytes, lt.len, secret), -EBADMSG);
		assert_int_equal(inl_dev_derive_sw_secret(stranger, eph.bytes, eph.len, secret), -EBADMSG);
		assert_int_equal(out.len, 123);
		assert_memory_equal(secret, zeros, 32);
		inl_dev_close(dev);
		inl_dev_close(stranger);
	}
}

/* Not a driver of ours, though it has the name. */
static void other_submit(struct inl_dev *dev, struct inl_bio *bio)
{
	inl_bio_end(bio, -EIO);
}

static void test_wrapped_unsupported(void **state)
{
	static const struct inl_dev_ops ops = { .name = "engine", .submit = other_submit };
	static const char *const specs[] = { "ram(1M)", "engine(ram(1M), slots=1)" };
	struct inl_key_config essiv = { INL_BLK_MODE_AES_128_CBC_ESSIV, UNIT, 8, INL_KEY_HW_WRAPPED };
	struct inl_dev_params params = { .size = 1 << 20, .has_engine = true, .caps = { .key_types = INL_KEY_HW_WRAPPED } };
	struct inl_dev *dev, *engine = open_dev("engine(ram(1M), slots=0, keys=raw+wrapped)");
	uint8_t raw[32] = { 1 }, medium[UNIT];
	struct inl_key_use *use;
	struct inl_key *key;
	struct blob lt, out, eph;

	assert_int_equal(inl_dev_key_import(engine, raw, 32, lt.bytes, sizeof(lt.bytes), &lt.len), 0);
	eph = prepare(engine, &lt);
	for (unsigned i = 0; i < 3; i++) {
		if (i < 2)
			dev = open_dev(specs[i]);
		else
			assert_int_equal(inl_dev_new(&ops, NULL, &params, &dev), 0);
		assert_int_equal(inl_dev_key_import(dev, raw, 32, out.bytes, sizeof(out.bytes), &out.len), -EOPNOTSUPP);
		assert_int_equal(inl_dev_key_generate(dev, out.bytes, sizeof(out.bytes), &out.len), -EOPNOTSUPP);
		assert_int_equal(inl_dev_key_prepare(dev, lt.bytes, lt.len, out.bytes, sizeof(out.bytes), &out.len),
				 -EOPNOTSUPP);
		assert_int_equal(inl_dev_derive_sw_secret(dev, eph.bytes, eph.len, raw), -EOPNOTSUPP);
		if (i < 2)
			assert_int_equal(use_blob(dev, &eph, medium), -EOPNOTSUPP);
		inl_dev_close(dev);
	}
	/* Wrapped keys are for AES-256-XTS, whatever else the engine can. */
	assert_int_equal(inl_key_new(&essiv, eph.bytes, eph.len, &key), 0);
	assert_int_equal(inl_key_start(engine, key, &use), -EOPNOTSUPP);
	inl_key_put(key);
	/* Raw keys do not disturb: what cannot take them leaves them to the fallback. */
	command(engine, "keys=wrapped");
	assert_int_equal(key_make(1, UNIT, &key), 0);
	assert_int_equal(inl_key_start(engine, key, &use), 0);
	assert_false(inl_key_use_native(use));
	assert_int_equal(inl_key_evict(use), 0);
	inl_key_put(key);
	inl_dev_close(engine);
}

/* A chip's long-term blobs outlive it only with its secret; ephemeral ones never do. */
static void test_wrapped_secret(void **state)
{
	uint8_t bytes[64], secrets[2][32], out[INL_WRAPPED_KEY_MAX];
	struct blob lt = { .len = 0 }, eph = { .len = 0 };
	char spec[256];
	size_t len;
	int fd = open(path_of("secret"), O_CREAT | O_WRONLY, 0600);

	key_bytes(3, bytes);
	assert_int_equal(write(fd, bytes, 32), 32);
	close(fd);
	snprintf(spec, sizeof(spec), "engine(ram(1M), slots=1, keys=wrapped, secret=%s)", path_of("secret"));
	for (unsigned i = 0; i < 2; i++) {
		struct inl_dev *dev = open_dev(spec);

		if (i == 0)
			assert_int_equal(inl_dev_key_generate(dev, lt.bytes, sizeof(lt.bytes), &lt.len), 0);
		else
			assert_int_equal(inl_dev_derive_sw_secret(dev, eph.bytes, eph.len, secrets[1]), -EBADMSG);
		eph = prepare(dev, &lt);
		assert_int_equal(inl_dev_derive_sw_secret(dev, eph.bytes, eph.len, secrets[i]), 0);
		inl_dev_close(dev);
	}
	assert_memory_equal(secrets[0], secrets[1], 32);
	for (unsigned i = 0; i < 2; i++) {
		struct inl_dev *dev = open_dev("engine(ram(1M), slots=1, keys=wrapped)");

		assert_int_equal(inl_dev_key_prepare(dev, lt.bytes, lt.len, out, sizeof(out), &len), -EBADMSG);
		inl_dev_close(dev);
	}
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static int make_scratch(void **state)
{
	return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
	unlink(path_of("short"));
	unlink(path_of("secret"));
	return rmdir(scratch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_rules_refused),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_events_room),
		cmocka_unit_test(test_events_threads),
		cmocka_unit_test(test_chip_empty),
		cmocka_unit_test(test_chip_configs),
		cmocka_unit_test(test_chip_limits),
		cmocka_unit_test(test_chip_faults),
		cmocka_unit_test(test_chip_latency),
		cmocka_unit_test(test_chip_rules_refused),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_reset_under_load),
		cmocka_unit_test(test_reset_of_what_waits),
		cmocka_unit_test(test_reset_when_idle),
		cmocka_unit_test(test_reset_for_ever),
		cmocka_unit_test(test_reset_tries),
		cmocka_unit_test(test_io_fault),
		cmocka_unit_test(test_program_fault),
		cmocka_unit_test(test_program_fault_after_reset),
		cmocka_unit_test(test_start_fault),
		cmocka_unit_test(test_evict_fault),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_latency),
		cmocka_unit_test(test_more_than_the_chip_holds),
		cmocka_unit_test(test_threads_and_resets),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_options_refused),
		cmocka_unit_test(test_commands_refused),
		cmocka_unit_test(test_live_caps),
		cmocka_unit_test(test_sealed_passes),
		cmocka_unit_test(test_derivation),
		cmocka_unit_test(test_blobs),
		cmocka_unit_test(test_wrapped),
		cmocka_unit_test(test_wrapped_generate),
		cmocka_unit_test(test_wrapped_refused),
		cmocka_unit_test(test_wrapped_unsupported),
		cmocka_unit_test(test_wrapped_secret),
	};

	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
