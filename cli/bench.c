/*
 * cli/bench.c: `inlay bench block`: what is asked for, the device, its keys.
 * Not here: `inlay bench ciphers` (cli/speed.c), the I/O (cli/load.c), what is printed (cli/figures.c), the table of benchmarks (bench/).
 * Read more: doc/inlay.1, "BENCHMARKS".
 */
#include "cli/bench.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BS_MAX      ((uint64_t)64 << 20)
#define THREADS_MAX 256
#define KEYS_MAX    (1u << 20)
#define BUFFERS_MAX ((uint64_t)1 << 30) /* bytes, of all threads */
#define FILL_MAX    ((uint64_t)1 << 30) /* bytes, of one device of memory */
#define FILL_LEN    ((size_t)1 << 20)
#define DUN_BYTES   8

struct bench {
	struct inl_cli *cli;
	struct inl_bench_plan plan;
	struct inl_key_use **uses;
	uint64_t n_uses; /* started */
	struct inl_bench_choice choice;
	struct inl_bench_result result;
};

static bool writes(const struct inl_bench_plan *plan)
{
	return plan->read_percent < 100;
}

static int refuse(const struct bench *b, enum inl_opt opt, const char *why)
{
	char name[32];

	return inl_cli_fail(b->cli, INL_EXIT_USAGE, inl_cli_option_name(opt, name), "%s", why);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static int plan_mix(struct bench *b)
{
	static const char *const words[] = { "read", "write", "mix", NULL };
	unsigned word = b->cli->given[INL_OPT_READ] ? 2 : 0;
	int code = inl_cli_word(b->cli, INL_OPT_RW, words, &word);

	b->plan.read_percent = word == 0 ? 100 : word == 1 ? 0 : 50;
	if (code)
		return code;
	if (word != 2 && b->cli->given[INL_OPT_READ])
		return refuse(b, INL_OPT_READ, "only with --rw=mix");
	return inl_cli_number(b->cli, INL_OPT_READ, 0, 100, &b->plan.read_percent);
}

static int plan_keys(struct bench *b)
{
	static const enum inl_opt keyed_only[] = { INL_OPT_UNIT, INL_OPT_KEYS, INL_OPT_ZIPF };
	static const char *const words[] = { "none", "raw", NULL };
	int code = inl_cli_word(b->cli, INL_OPT_MADE_KEY, words, &b->plan.keyed);

	for (unsigned i = 0; i < 3 && !code && !b->plan.keyed; i++) {
		if (b->cli->given[keyed_only[i]])
			return refuse(b, keyed_only[i], "only with --key=raw");
	}
	b->plan.n_keys = 1;
	code = code ? code : inl_cli_size(b->cli, INL_OPT_UNIT, INL_UNIT_SIZE_MIN, INL_UNIT_SIZE_MAX, &b->plan.unit);
	code = code ? code : inl_cli_number(b->cli, INL_OPT_KEYS, 1, KEYS_MAX, &b->plan.n_keys);
	code = code ? code : inl_cli_real(b->cli, INL_OPT_ZIPF, 0, 10, &b->plan.theta);
	if (!code && (b->plan.unit & (b->plan.unit - 1)))
		return refuse(b, INL_OPT_UNIT, "must be a power of two");
	return code;
}

static int plan_end(struct bench *b)
{
	int code;

	b->plan.seconds = b->cli->given[INL_OPT_COUNT] ? 0 : 2;
	code = inl_cli_number(b->cli, INL_OPT_COUNT, 1, UINT64_MAX / 2, &b->plan.count);
	return code ? code : inl_cli_real(b->cli, INL_OPT_TIME, 0.001, 1e6, &b->plan.seconds);
}

/* What the options say, before the device is known. */
static int plan_options(struct bench *b)
{
	static const char *const patterns[] = { "random", "sequential", NULL };
	struct inl_cli *cli = b->cli;
	int code = plan_mix(b);

	b->plan.bs = 4096;
	b->plan.depth = 32;
	b->plan.n_threads = 1;
	b->plan.seed = 1;
	b->plan.sample = 1;
	code = code ? code : inl_cli_size(cli, INL_OPT_BS, 1, BS_MAX, &b->plan.bs);
	code = code ? code : inl_cli_number(cli, INL_OPT_DEPTH, 1, INL_QUEUE_DEPTH_MAX, &b->plan.depth);
	code = code ? code : inl_cli_number(cli, INL_OPT_THREADS, 1, THREADS_MAX, &b->plan.n_threads);
	code = code ? code : inl_cli_word(cli, INL_OPT_PATTERN, patterns, &b->plan.sequential);
	code = code ? code : inl_cli_size(cli, INL_OPT_SIZE, 1, UINT64_MAX, &b->plan.range);
	code = code ? code : inl_cli_number(cli, INL_OPT_PLUG, 0, b->plan.depth, &b->plan.plug);
	code = code ? code : inl_cli_number(cli, INL_OPT_FLUSH, 0, UINT64_MAX, &b->plan.flush);
	code = code ? code : inl_cli_number(cli, INL_OPT_SEED, 0, UINT64_MAX, &b->plan.seed);
	code = code ? code : inl_cli_number(cli, INL_OPT_SAMPLE, 0, UINT64_MAX, &b->plan.sample);
	code = code ? code : plan_end(b);
	return code ? code : plan_keys(b);
}

/* What depends on the device. */
static int plan_device(struct bench *b)
{
	uint32_t block_size = inl_dev_block_size(b->cli->dev);
	uint64_t size = inl_dev_size(b->cli->dev);
	struct inl_bench_plan *plan = &b->plan;
	char name[32];

	if (plan->bs % block_size)
		return inl_cli_fail(b->cli, INL_EXIT_USAGE, inl_cli_option_name(INL_OPT_BS, name),
				    "must be a multiple of the device's block size, %" PRIu32, block_size);
	if (!plan->unit)
		plan->unit = plan->bs % 4096 ? block_size : 4096;
	if (plan->keyed && plan->bs % plan->unit)
		return refuse(b, INL_OPT_UNIT, "I/Os must be made of whole data units");
	if (plan->range > size)
		return inl_cli_fail(b->cli, INL_EXIT_USAGE, inl_cli_option_name(INL_OPT_SIZE, name),
				    "the device has only %" PRIu64 " bytes", size);
	plan->range = plan->range ? plan->range : size;
	plan->share = plan->range / plan->n_threads / plan->bs * plan->bs;
	if (!plan->share)
		return refuse(b, INL_OPT_BS, "not even one I/O for each thread fits into the range");
	if (plan->bs * plan->depth * plan->n_threads > BUFFERS_MAX)
		return inl_cli_fail(b->cli, INL_EXIT_USAGE, inl_cli_option_name(INL_OPT_DEPTH, name),
				    "more than 1 GiB of buffers: bs * depth * threads");
	return 0;
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

/* Is all that this stack writes to memory that nobody will miss? */
static bool is_memory(const struct inl_dev *dev)
{
	const struct inl_dev *child = inl_dev_child(dev, 0);

	if (!child)
		return !strcmp(inl_dev_driver(dev), "ram");
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++) {
		if (!is_memory(child))
			return false;
	}
	return true;
}

/* Memory that was never written is no memory yet: one page of zeros, or a page fault. */
static int fill_one(struct inl_dev *dev, uint64_t *seed)
{
	uint64_t end = inl_dev_size(dev) < FILL_MAX ? inl_dev_size(dev) : FILL_MAX;
	uint8_t *buf = inl_cli_alloc(FILL_LEN);
	int err = 0;

	inl_bench_noise(seed, buf, FILL_LEN);
	for (uint64_t at = 0; at < end && !err; at += FILL_LEN)
		err = inl_dev_write(dev, at, buf, end - at < FILL_LEN ? end - at : FILL_LEN);
	free(buf);
	return err;
}

static int fill(struct inl_dev *dev, uint64_t *seed)
{
	struct inl_dev *child;
	int err = 0;

	if (!inl_dev_child(dev, 0))
		return fill_one(dev, seed);
	for (unsigned i = 0; !err && (child = inl_dev_child(dev, i)); i++)
		err = fill(child, seed);
	return err;
}

/* For reading first: what it is decides whether it may be written to. */
static int prepare_device(struct bench *b)
{
	uint64_t seed = ~b->plan.seed;
	int err, code = inl_cli_open_device(b->cli, b->plan.spec, 0, INL_EXIT_FAILED);
	bool memory;

	if (code)
		return code;
	memory = is_memory(b->cli->dev);
	if (writes(&b->plan) && !memory && !b->cli->given[INL_OPT_OVERWRITE])
		return inl_cli_fail(b->cli, INL_EXIT_USAGE, b->plan.spec,
				    "writing would destroy what is on this device; --overwrite if that is meant");
	code = plan_device(b);
	if (code || (!memory && !writes(&b->plan)))
		return code;
	inl_dev_close(b->cli->dev);
	code = inl_cli_open_device(b->cli, b->plan.spec, INL_OPEN_WRITE, INL_EXIT_FAILED);
	if (code || !memory)
		return code;
	err = fill(b->cli->dev, &seed);
	return err ? inl_cli_error(b->cli, b->plan.spec, err, NULL) : 0;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static int start_key(struct bench *b, struct inl_key_use **use)
{
	struct inl_key_config cfg = {
		.mode = INL_BLK_MODE_AES_256_XTS,
		.data_unit_size = (uint32_t)b->plan.unit,
		.dun_bytes = DUN_BYTES,
		.type = INL_KEY_RAW,
	};
	size_t len = inl_blk_mode_key_size(cfg.mode);
	uint8_t *bytes = inl_secret_alloc(len);
	struct inl_key *key = NULL;
	int err = bytes ? 0 : -ENOMEM;

	if (!err && getrandom(bytes, len, 0) != (ssize_t)len)
		err = -EIO;
	if (!err)
		err = inl_key_new(&cfg, bytes, len, &key);
	if (!err)
		err = inl_key_start(b->cli->dev, key, use);
	inl_key_put(key);
	inl_secret_free(bytes);
	return err;
}

static int key_error(struct bench *b, int err)
{
	if (err == -ENOPKG && !inl_dev_fallback(b->cli->dev))
		return inl_cli_fail(b->cli, INL_EXIT_FAILED, b->plan.spec,
				    "no engine takes AES-256-XTS keys with data units of %" PRIu64
				    " bytes, and the fallback is refused", b->plan.unit);
	if (err == -ENOENT)
		return inl_cli_fail(b->cli, INL_EXIT_FAILED, b->plan.spec,
				    "AES-256-XTS has no implementation named %s here", b->cli->ciphers);
	return inl_cli_fail(b->cli, INL_EXIT_FAILED, b->plan.spec, "cannot start key %" PRIu64 " of %" PRIu64 ": %s",
			    b->n_uses + 1, b->plan.n_keys, inl_cli_why(err));
}

/* Every row stands for an equal part of chance, which its own key shares with one other. */
static void init_choice(struct inl_bench_choice *choice, uint64_t n, double theta)
{
	double *weights = inl_cli_alloc(n * sizeof(*weights)), sum = 0;
	uint32_t *todo = inl_cli_alloc(n * sizeof(*todo)); /* rows below the average from the left, others from the right */
	uint64_t n_small = 0, n_large = 0;

	choice->n = n;
	choice->rows = inl_cli_alloc(n * sizeof(*choice->rows));
	for (uint64_t i = 0; i < n; i++)
		sum += weights[i] = pow((double)(i + 1), -theta);
	for (uint64_t i = 0; i < n; i++) {
		weights[i] *= (double)n / sum;
		choice->rows[i].other = (uint32_t)i;
		choice->rows[i].stay = UINT32_MAX;
		if (weights[i] < 1)
			todo[n_small++] = (uint32_t)i;
		else
			todo[n - ++n_large] = (uint32_t)i;
	}
	while (n_small && n_large) {
		uint32_t small = todo[--n_small], large = todo[n - n_large];

		choice->rows[small].stay = (uint32_t)(weights[small] * UINT32_MAX);
		choice->rows[small].other = large;
		weights[large] -= 1 - weights[small];
		if (weights[large] < 1) {
			n_large--;
			todo[n_small++] = large;
		}
	}
	free(weights);
	free(todo);
}

static int start_keys(struct bench *b)
{
	int err = 0;

	if (!b->plan.keyed)
		return 0;
	b->uses = inl_cli_alloc(b->plan.n_keys * sizeof(*b->uses));
	init_choice(&b->choice, b->plan.n_keys, b->plan.theta);
	while (b->n_uses < b->plan.n_keys) {
		err = start_key(b, &b->uses[b->n_uses]);
		if (err)
			return key_error(b, err);
		b->n_uses++;
	}
	b->result.native = inl_key_use_native(b->uses[0]);
	b->result.ciphers = inl_cli_impl_of(INL_CIPHER_AES_256_XTS, inl_dev_ciphers(b->cli->dev));
	return 0;
}

static int evict_keys(struct bench *b)
{
	int err = 0, first = 0;

	while (b->n_uses) {
		err = inl_key_evict(b->uses[--b->n_uses]);
		first = first ? first : err;
	}
	free(b->uses);
	free(b->choice.rows);
	return first ? inl_cli_fail(b->cli, INL_EXIT_FAILED, b->plan.spec, "cannot evict a key: %s", inl_cli_why(first)) : 0;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static int verdict(struct bench *b)
{
	const struct inl_bench_result *result = &b->result;
	int code = result->interrupted ? inl_cli_fail(b->cli, INL_EXIT_INTERRUPTED, NULL, "interrupted") : 0;

	if (!result->n_errors)
		return code;
	return inl_cli_worse(code, inl_cli_fail(b->cli, INL_EXIT_FAILED, b->plan.spec,
						"%" PRIu64 " I/O%s failed; the first: %s at %" PRIu64 ": %s",
						result->n_errors, result->n_errors == 1 ? "" : "s",
						inl_bench_kind_name(result->first_error.kind),
						result->first_error.offset, inl_cli_why(result->first_error.err)));
}

static int measure(struct bench *b)
{
	struct inl_counters *since = inl_cli_counters_take(b->cli->dev);
	int err = inl_bench_load(b->cli->dev, &b->plan, b->uses, &b->choice, &b->result);
	int code = 0;

	if (err)
		code = inl_cli_error(b->cli, b->plan.spec, err, NULL);
	else if (b->cli->given[INL_OPT_JSON])
		inl_bench_print_json(&b->plan, &b->result, b->cli->dev, since);
	else
		inl_bench_print(&b->plan, &b->result, b->cli->dev, since);
	free(since);
	return err ? code : verdict(b);
}

static int bench_block(struct inl_cli *cli, const char *spec)
{
	static struct bench bench;
	int code;

	bench.cli = cli;
	bench.plan.spec = spec;
	code = plan_options(&bench);
	code = code ? code : inl_cli_ciphers(cli, true);
	code = code ? code : prepare_device(&bench);
	code = code ? code : start_keys(&bench);
	code = code ? code : measure(&bench);
	return inl_cli_worse(code, evict_keys(&bench));
}

int inl_cli_bench(struct inl_cli *cli, int n_args, char **args)
{
	bool block = !strcmp(args[0], "block");
	int code;

	if (!block && strcmp(args[0], "ciphers"))
		return inl_cli_fail(cli, INL_EXIT_USAGE, args[0], "no such benchmark; there are: block, ciphers");
	code = inl_cli_operands(cli, n_args, args, 1 + block, 1 + block);
	if (code)
		return code;
	return block ? bench_block(cli, args[1]) : inl_bench_ciphers(cli);
}
