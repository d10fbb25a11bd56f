/*
 * cli/speed.c: `inlay bench ciphers`: every way to compute every cipher, on one core, from one buffer to another.
 * Not here: ciphers as part of I/O (`inlay bench block`), beside those of others (bench/ciphers.c).
 * Read more: doc/inlay.1, "BENCHMARKS"; inlay/cipher.h.
 */
#include "cli/bench.h"
#include "cli/json.h"
#include "cli/text.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS	     9
#define IMPLS_MAX    INL_IMPL_NAMES_MAX
#define CALL	     ((uint64_t)64 << 10)  /* bytes of one call */
#define LOOK	     ((uint64_t)256 << 10) /* bytes, at least, between two looks at the clock */
#define SIZE_MAX_ALL ((uint64_t)4 << 30)
#define KEY_MAX	     64

struct speed {
	struct inl_cli *cli;
	uint64_t units[INL_UNITS_MAX]; /* bytes */
	unsigned n_units;
	uint64_t size; /* bytes of each buffer */
	double seconds;
	uint64_t slice; /* ns of CPU time, of one figure in one round */
	uint8_t *src, *dst, key[KEY_MAX];
	struct inl_json json;
};

/* One implementation of the cipher whose turn it is. */
struct contestant {
	const char *name;
	struct inl_cipher *cipher;
	uint64_t at; /* bytes: where it goes on in the buffers */
	double gb_s[2][ROUNDS]; /* decrypting, encrypting */
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static int refuse_others(const struct inl_cli *cli)
{
	static const enum inl_opt taken[] = { INL_OPT_JSON, INL_OPT_CIPHERS, INL_OPT_TIME, INL_OPT_UNIT, INL_OPT_SIZE };
	char name[32];

	for (unsigned opt = 1; opt < INL_OPT_MAX; opt++) {
		bool fine = !cli->given[opt];

		for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
			fine |= opt == taken[i];
		if (!fine)
			return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name((enum inl_opt)opt, name),
					    "only with bench block");
	}
	return 0;
}

static int plan(struct speed *s)
{
	struct inl_cli *cli = s->cli;
	int code = refuse_others(cli);
	char name[32];

	s->units[0] = 512;
	s->units[1] = 4096;
	s->n_units = 2;
	s->size = 64 << 10;
	s->seconds = 5;
	code = code ? code : inl_cli_units(cli, INL_CIPHER_UNIT_MIN, INL_CIPHER_UNIT_MAX, s->units, &s->n_units);
	code = code ? code : inl_cli_size(cli, INL_OPT_SIZE, INL_CIPHER_UNIT_MIN, SIZE_MAX_ALL, &s->size);
	code = code ? code : inl_cli_real(cli, INL_OPT_TIME, 0.001, 1e6, &s->seconds);
	for (unsigned i = 0; i < s->n_units && !code; i++) {
		if (s->units[i] > s->size)
			return inl_cli_fail(cli, INL_EXIT_USAGE, inl_cli_option_name(INL_OPT_SIZE, name),
					    "not even one data unit of %" PRIu64 " bytes", s->units[i]);
	}
	return code ? code : inl_cli_ciphers(cli, true);
}

/* ---- who takes part ---------------------------------------------------------------------------------------------- */

/* All that run here, unless --ciphers names one, or the best. */
static unsigned list(const struct speed *s, enum inl_cipher_id id, struct contestant out[IMPLS_MAX])
{
	const char *only = s->cli->given[INL_OPT_CIPHERS] ? inl_cli_impl_of(id, s->cli->ciphers) : NULL;
	struct inl_cipher_impl impl;
	unsigned n = 0;

	for (unsigned i = 0; n < IMPLS_MAX && inl_cipher_impl(id, i, &impl); i++) {
		if (impl.lacks || (s->cli->given[INL_OPT_CIPHERS] && (!only || strcmp(only, impl.name))))
			continue;
		out[n++] = (struct contestant){ .name = impl.name };
	}
	return n;
}

static bool takes(enum inl_cipher_id id, uint64_t unit)
{
	const struct inl_cipher_info *info = inl_cipher_info(id);

	return info && info->available && unit % info->unit_step == 0;
}

/* How many figures there will be. */
static unsigned count(const struct speed *s)
{
	struct contestant all[IMPLS_MAX];
	unsigned n = 0;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		for (unsigned i = 0; i < s->n_units; i++)
			n += takes((enum inl_cipher_id)id, s->units[i]) ? 2 * list(s, (enum inl_cipher_id)id, all) : 0;
	}
	return n;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* Some units, LOOK bytes or a few more. Returns how many bytes; 0: it failed. */
static uint64_t pass(const struct speed *s, struct contestant *c, uint64_t unit, bool encrypt)
{
	static uint64_t dun[4];
	uint64_t n = (s->size < CALL ? s->size : CALL) / unit, done = 0;

	for (; done < LOOK; done += n * unit, c->at += n * unit, dun[0] += n) {
		if (c->at + n * unit > s->size)
			c->at = 0;
		if (encrypt ? inl_cipher_encrypt(c->cipher, dun, n, unit, s->dst + c->at, s->src + c->at)
			    : inl_cipher_decrypt(c->cipher, dun, n, unit, s->dst + c->at, s->src + c->at))
			return 0;
	}
	return done;
}

/* Of this thread: what others do meanwhile on this core does not count. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The first pass does not count: it brings code, schedule and clock rate to where they are when there is much to do. */
static int turn(const struct speed *s, struct contestant *c, uint64_t unit, bool encrypt, unsigned round)
{
	uint64_t done = pass(s, c, unit, encrypt), start = cpu_ns(), bytes = 0, passed = 0;

	while (done && (!passed || passed < s->slice)) {
		done = pass(s, c, unit, encrypt);
		bytes += done;
		passed = cpu_ns() - start;
	}
	c->gb_s[encrypt][round] = passed ? (double)bytes / (double)passed : 0;
	return done ? 0 : inl_cli_fail(s->cli, INL_EXIT_FAILED, c->name, "the crypto library failed");
}

/* All in turns, every other round from the last to the first, so that what disturbs one disturbs its neighbour too. */
static int measure(const struct speed *s, struct contestant *all, unsigned n, uint64_t unit)
{
	int code = 0;

	for (unsigned encrypt = 0; encrypt < 2; encrypt++) {
		for (unsigned round = 0; round < ROUNDS; round++) {
			for (unsigned i = 0; i < n && !code; i++)
				code = turn(s, &all[round % 2 ? n - 1 - i : i], unit, encrypt, round);
		}
	}
	return code;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double values[ROUNDS])
{
	double sorted[ROUNDS];

	memcpy(sorted, values, sizeof(sorted));
	qsort(sorted, ROUNDS, sizeof(double), by_value);
	return sorted[ROUNDS / 2];
}

static double ratio(const struct contestant *c, const struct contestant *to, bool encrypt)
{
	double ratios[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++)
		ratios[i] = c->gb_s[encrypt][i] / to->gb_s[encrypt][i];
	return median(ratios);
}

/* ---- what is printed --------------------------------------------------------------------------------------------- */

static void json_rows(struct speed *s, const char *mode, const struct contestant *all, unsigned n, uint64_t unit)
{
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < 2; k++) {
			inl_json_open(&s->json, NULL, '{');
			inl_json_text(&s->json, "mode", mode);
			inl_json_u64(&s->json, "unit", unit);
			inl_json_text(&s->json, "impl", all[i].name);
			inl_json_text(&s->json, "direction", k ? "decrypt" : "encrypt");
			inl_json_real(&s->json, "gb_s", median(all[i].gb_s[!k]));
			inl_json_close(&s->json, '}');
		}
	}
}

static void print_rows(const char *mode, const struct contestant *all, unsigned n, uint64_t unit)
{
	const struct contestant *openssl = NULL;

	for (unsigned i = 0; i < n; i++)
		openssl = strcmp(all[i].name, "openssl") ? openssl : &all[i];
	for (unsigned i = 0; i < n; i++) {
		if (i)
			printf("%-17s %6s  %-12s", "", "", all[i].name);
		else
			printf("%-17s %6" PRIu64 "  %-12s", mode, unit, all[i].name);
		for (unsigned k = 0; k < 2; k++) {
			printf("  %6.2f GB/s", median(all[i].gb_s[!k]));
			if (openssl)
				printf(" %6.2f", ratio(&all[i], openssl, !k));
			else
				printf(" %6s", "-");
		}
		putchar('\n');
	}
	fflush(stdout);
}

static void print_head(const struct speed *s)
{
	char size[16];

	printf("One core, from one buffer of %s to another; GB/s (10^9 bytes in a second of CPU time),\n"
	       "and how many times as much as openssl\n\n",
	       inl_text_size(s->size, size));
	printf("%-17s %6s  %-12s  %11s %6s  %11s %6s\n", "", "unit", "", "encrypt", "", "decrypt", "");
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int prepare(const struct speed *s, enum inl_cipher_id id, struct contestant *all, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int err = inl_cipher_new(id, all[i].name, s->key, &all[i].cipher);

		if (err)
			return inl_cli_fail(s->cli, INL_EXIT_FAILED, inl_cipher_info(id)->name, "%s: %s", all[i].name,
					    inl_cli_why(err));
	}
	return 0;
}

static int contest(struct speed *s, enum inl_cipher_id id, uint64_t unit)
{
	struct contestant all[IMPLS_MAX];
	unsigned n = list(s, id, all);
	int code = prepare(s, id, all, n);

	code = code ? code : measure(s, all, n, unit);
	if (!code && s->cli->given[INL_OPT_JSON])
		json_rows(s, inl_cipher_info(id)->name, all, n, unit);
	else if (!code)
		print_rows(inl_cipher_info(id)->name, all, n, unit);
	for (unsigned i = 0; i < n; i++)
		inl_cipher_free(all[i].cipher);
	return code;
}

static int contests(struct speed *s)
{
	int code = 0;

	for (unsigned id = 1; id < INL_CIPHER_MAX; id++) {
		for (unsigned i = 0; i < s->n_units && !code; i++) {
			if (takes((enum inl_cipher_id)id, s->units[i]))
				code = contest(s, (enum inl_cipher_id)id, s->units[i]);
		}
	}
	return code;
}

/* In whole pages, none of which is the kernel's one page of zeros. */
static uint8_t *buffer(const struct speed *s, uint64_t *seed)
{
	uint8_t *buf = aligned_alloc(4096, (s->size + 4095) & ~UINT64_C(4095));

	if (buf)
		inl_bench_noise(seed, buf, s->size);
	return buf;
}

static int run(struct speed *s)
{
	int code;

	if (!s->src || !s->dst)
		return inl_cli_fail(s->cli, INL_EXIT_FAILED, NULL, "no memory for two buffers of this size");
	s->slice = (uint64_t)(s->seconds * 1e9 / ROUNDS / count(s));
	if (s->cli->given[INL_OPT_JSON])
		inl_json_open(&s->json, NULL, '[');
	else
		print_head(s);
	code = contests(s);
	if (s->cli->given[INL_OPT_JSON])
		inl_json_close(&s->json, ']');
	return code;
}

int inl_bench_ciphers(struct inl_cli *cli)
{
	struct speed s = { .cli = cli };
	uint64_t seed = 1;
	int code = plan(&s);

	if (code)
		return code;
	inl_bench_noise(&seed, s.key, sizeof(s.key));
	s.src = buffer(&s, &seed);
	s.dst = buffer(&s, &seed);
	code = run(&s);
	free(s.src);
	free(s.dst);
	return code;
}
