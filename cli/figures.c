/*
 * cli/figures.c: what `inlay bench block` found, as text and as JSON.
 * Not here: messages (cli/bench.c); counters as such (cli/device.c).
 * Read more: doc/inlay.1, "BENCHMARKS".
 */
#include "cli/bench.h"
#include "cli/json.h"
#include "cli/text.h"
#include <inttypes.h>
#include <string.h>

static const struct {
	const char *name, *json;
	double part;
} percentiles[] = {
	{ "50 %", "p50", 0.5 }, { "90 %", "p90", 0.9 }, { "99 %", "p99", 0.99 }, { "99.9 %", "p99_9", 0.999 }, { "max", "max", 1 },
};

#define N_PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

const char *inl_bench_kind_name(enum inl_bench_kind kind)
{
	static const char *const names[] = { "read", "write", "flush" };

	return names[kind];
}

static uint64_t per_second(const struct inl_bench_result *result, uint64_t n)
{
	return (uint64_t)((double)n * 1e9 / (double)result->elapsed);
}

/* Reads and writes. */
static uint64_t n_ios(const struct inl_bench_result *result)
{
	return result->kinds[INL_BENCH_READ].n + result->kinds[INL_BENCH_WRITE].n;
}

static double cpu_ns_per_io(const struct inl_bench_result *result)
{
	uint64_t n = n_ios(result);

	return n ? (double)(result->user + result->system) / (double)n : 0;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static const char *text_ns(double ns, char text[16])
{
	if (ns < 1e3)
		snprintf(text, 16, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(text, 16, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(text, 16, "%.1f ms", ns / 1e6);
	else
		snprintf(text, 16, "%.1f s", ns / 1e9);
	return text;
}

static void print_what(const struct inl_bench_plan *plan)
{
	char bs[16], range[16];

	printf("%s ", plan->sequential ? "sequential" : "random");
	if (plan->read_percent == 100)
		printf("reads");
	else if (!plan->read_percent)
		printf("writes");
	else
		printf("reads (%" PRIu64 " %%) and writes", plan->read_percent);
	printf(" of %s in %s; depth %" PRIu64, inl_text_size(plan->bs, bs), inl_text_size(plan->range, range), plan->depth);
	if (plan->plug)
		printf(", %" PRIu64 " at a time", plan->plug);
	printf(", %" PRIu64 " thread%s", plan->n_threads, plan->n_threads == 1 ? "" : "s");
	if (plan->flush)
		printf(", a flush every %" PRIu64 " writes", plan->flush);
	putchar('\n');
}

static void print_keys(const struct inl_bench_plan *plan, const struct inl_bench_result *result)
{
	if (!plan->keyed) {
		puts("no key");
		return;
	}
	printf("%s, data units of %" PRIu64 " bytes, ", inl_blk_mode_name(INL_BLK_MODE_AES_256_XTS), plan->unit);
	if (plan->n_keys == 1)
		printf("one key");
	else if (plan->theta > 0)
		printf("%" PRIu64 " keys (Zipf %g)", plan->n_keys, plan->theta);
	else
		printf("%" PRIu64 " keys", plan->n_keys);
	printf("; by %s (%s)\n", result->native ? "an engine" : "the fallback", result->ciphers);
}

static void print_kind(const struct inl_bench_result *result, enum inl_bench_kind kind)
{
	const struct inl_times *times = &result->kinds[kind].times;
	uint64_t n = result->kinds[kind].n;
	char text[16];

	if (!n)
		return;
	printf("%-6s%14" PRIu64 "%12" PRIu64 "%13s", inl_bench_kind_name(kind), n, per_second(result, n),
	       inl_text_size(per_second(result, result->kinds[kind].bytes), text));
	for (size_t i = 0; i < N_PERCENTILES; i++)
		printf("%10s", times->n ? text_ns((double)inl_times_at(times, percentiles[i].part), text) : "-");
	putchar('\n');
}

static void print_cpu(const struct inl_bench_result *result)
{
	char user[16], system[16], elapsed[16], each[16];

	printf("%s of CPU time for each, user %s, system %s in %s; %" PRIu64 " error%s\n",
	       text_ns(cpu_ns_per_io(result), each), text_ns((double)result->user, user),
	       text_ns((double)result->system, system), text_ns((double)result->elapsed, elapsed), result->n_errors,
	       result->n_errors == 1 ? "" : "s");
}

void inl_bench_print(const struct inl_bench_plan *plan, const struct inl_bench_result *result,
		     const struct inl_dev *dev, const struct inl_counters *since)
{
	print_what(plan);
	print_keys(plan, result);
	printf("\n%-6s%14s%12s%13s", "", "I/Os", "/s", "bytes/s");
	for (size_t i = 0; i < N_PERCENTILES; i++)
		printf("%10s", percentiles[i].name);
	putchar('\n');
	for (unsigned kind = 0; kind < INL_BENCH_KINDS; kind++)
		print_kind(result, (enum inl_bench_kind)kind);
	print_cpu(result);
	putchar('\n');
	inl_cli_counters_tree(dev, since);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_plan(struct inl_json *json, const struct inl_bench_plan *plan)
{
	char theta[32];

	inl_json_name(json, "spec", plan->spec, strlen(plan->spec));
	inl_json_u64(json, "read_percent", plan->read_percent);
	inl_json_text(json, "pattern", plan->sequential ? "sequential" : "random");
	inl_json_u64(json, "bs", plan->bs);
	inl_json_u64(json, "range", plan->range);
	inl_json_u64(json, "depth", plan->depth);
	inl_json_u64(json, "threads", plan->n_threads);
	inl_json_u64(json, "plug", plan->plug);
	inl_json_u64(json, "flush", plan->flush);
	inl_json_u64(json, "seed", plan->seed);
	inl_json_u64(json, "sample", plan->sample);
	inl_json_u64(json, "keys", plan->keyed ? plan->n_keys : 0);
	if (!plan->keyed)
		return;
	snprintf(theta, sizeof(theta), "%g", plan->theta);
	inl_json_text(json, "mode", inl_blk_mode_name(INL_BLK_MODE_AES_256_XTS));
	inl_json_u64(json, "unit", plan->unit);
	inl_json_text(json, "zipf", theta);
}

static void json_kind(struct inl_json *json, const struct inl_bench_result *result, enum inl_bench_kind kind)
{
	const struct inl_times *times = &result->kinds[kind].times;

	inl_json_open(json, inl_bench_kind_name(kind), '{');
	inl_json_u64(json, "n", result->kinds[kind].n);
	inl_json_u64(json, "per_second", per_second(result, result->kinds[kind].n));
	inl_json_u64(json, "bytes", result->kinds[kind].bytes);
	inl_json_u64(json, "bytes_per_second", per_second(result, result->kinds[kind].bytes));
	inl_json_open(json, "latency_ns", '{');
	inl_json_u64(json, "n", times->n);
	inl_json_u64(json, "mean", times->n ? (uint64_t)(times->sum / (double)times->n) : 0);
	for (size_t i = 0; i < N_PERCENTILES; i++)
		inl_json_u64(json, percentiles[i].json, inl_times_at(times, percentiles[i].part));
	inl_json_close(json, '}');
	inl_json_close(json, '}');
}

static void json_error(struct inl_json *json, const struct inl_bench_result *result)
{
	inl_json_u64(json, "errors", result->n_errors);
	if (!result->n_errors)
		return;
	inl_json_open(json, "first_error", '{');
	inl_json_text(json, "op", inl_bench_kind_name(result->first_error.kind));
	inl_json_u64(json, "offset", result->first_error.offset);
	inl_json_u64(json, "errno", (uint64_t)-(int64_t)result->first_error.err);
	inl_json_close(json, '}');
}

void inl_bench_print_json(const struct inl_bench_plan *plan, const struct inl_bench_result *result,
			  const struct inl_dev *dev, const struct inl_counters *since)
{
	struct inl_json json = { 0 };

	inl_json_open(&json, NULL, '{');
	json_plan(&json, plan);
	inl_json_bool(&json, "native", plan->keyed && result->native);
	inl_json_text(&json, "ciphers", result->ciphers);
	inl_json_bool(&json, "interrupted", result->interrupted);
	inl_json_u64(&json, "elapsed_ns", result->elapsed);
	inl_json_u64(&json, "cpu_user_ns", result->user);
	inl_json_u64(&json, "cpu_system_ns", result->system);
	inl_json_u64(&json, "cpu_ns_per_io", (uint64_t)cpu_ns_per_io(result));
	inl_json_u64(&json, "ios", n_ios(result));
	inl_json_u64(&json, "ios_per_second", per_second(result, n_ios(result)));
	json_error(&json, result);
	for (unsigned kind = 0; kind < INL_BENCH_KINDS; kind++)
		json_kind(&json, result, (enum inl_bench_kind)kind);
	inl_cli_json_device(&json, "device", dev, since);
	inl_json_close(&json, '}');
}
