/*
 * cli/device.c: `inlay device`: a stack of devices as a tree; the counters of one.
 * Not here: the drivers and their SPEC language (the library).
 * Read more: doc/inlay.1, "DEVICES".
 */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"
#include <inttypes.h>
#include <string.h>

/* ---- counters ---------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t offset;
} counter_rows[] = {
#define ROW(member) { #member, offsetof(struct inl_counters, member) }
	ROW(reads), ROW(writes), ROW(flushes), ROW(bytes_read), ROW(bytes_written),
	ROW(fallback_units_decrypted), ROW(fallback_units_encrypted), ROW(engine_units_decrypted),
	ROW(engine_units_encrypted), ROW(slot_hits), ROW(slot_programs), ROW(slot_waits), ROW(slot_evictions),
	ROW(slot_program_failures), ROW(slot_evict_failures), ROW(resets), ROW(bounce_waits), ROW(splits), ROW(merges),
	ROW(keys_started), ROW(keys_evicted), ROW(errors),
#undef ROW
};

#define N_COUNTERS (sizeof(counter_rows) / sizeof(counter_rows[0]))

static uint64_t counter(const struct inl_counters *counters, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)counters + counter_rows[i].offset, sizeof(value));
	return value;
}

/*
 * The counters of a device, less what they were before. The array goes along with a walk from the top down: *since is
 * moved to the next device; NULL: since the device was opened.
 */
static void take(const struct inl_dev *dev, const struct inl_counters **since, struct inl_counters *out)
{
	inl_dev_counters(dev, out);
	if (!*since)
		return;
	for (size_t i = 0; i < N_COUNTERS; i++) {
		uint64_t value = counter(out, i) - counter(*since, i);

		memcpy((char *)out + counter_rows[i].offset, &value, sizeof(value));
	}
	++*since;
}

static size_t count_devices(const struct inl_dev *dev)
{
	const struct inl_dev *child;
	size_t n = 1;

	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		n += count_devices(child);
	return n;
}

static struct inl_counters *take_all(const struct inl_dev *dev, struct inl_counters *out)
{
	const struct inl_dev *child;

	inl_dev_counters(dev, out++);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		out = take_all(child, out);
	return out;
}

struct inl_counters *inl_cli_counters_take(const struct inl_dev *dev)
{
	struct inl_counters *all = inl_cli_alloc(count_devices(dev) * sizeof(*all));

	take_all(dev, all);
	return all;
}

/* Those that are not zero, on one line. */
static void put_counters(FILE *out, const struct inl_counters *counters)
{
	bool any = false;

	for (size_t i = 0; i < N_COUNTERS; i++) {
		if (counter(counters, i))
			fprintf(out, "%s%s %" PRIu64, any ? ", " : "", counter_rows[i].name, counter(counters, i));
		any |= counter(counters, i) != 0;
	}
	fputs(any ? "\n" : "all zero\n", out);
}

static void counters_below(FILE *out, const struct inl_dev *dev, unsigned depth)
{
	struct inl_counters counters = { 0 };
	const struct inl_dev *child;

	fprintf(out, "%*s%s", (int)depth * 2, "", inl_dev_driver(dev));
	if (inl_dev_label(dev)[0]) {
		fputs(" (", out);
		inl_text_put(out, inl_dev_label(dev), strlen(inl_dev_label(dev)), true);
		fputs(")", out);
	}
	fputs(": ", out);
	inl_dev_counters(dev, &counters);
	put_counters(out, &counters);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		counters_below(out, child, depth + 1);
}

void inl_cli_counters(FILE *out, const struct inl_dev *dev)
{
	counters_below(out, dev, 0);
}

/* ---- the drawing ------------------------------------------------------------------------------------------------- */

/* Where in the tree a device hangs; NULL: at the top. */
struct branch {
	const struct branch *up;
	bool more; /* another child follows */
};

static void put_bars(const struct branch *branch)
{
	if (!branch)
		return;
	put_bars(branch->up);
	fputs(branch->more ? "\xe2\x94\x82   " : "    ", stdout);
}

static void put_name(const struct branch *branch, const struct inl_dev *dev)
{
	if (branch) {
		put_bars(branch->up);
		fputs(branch->more ? "\xe2\x94\x9c\xe2\x94\x80\xe2\x94\x80 "
				   : "\xe2\x94\x94\xe2\x94\x80\xe2\x94\x80 ", stdout);
	}
	fputs(inl_dev_driver(dev), stdout);
	if (inl_dev_label(dev)[0]) {
		fputs(": ", stdout);
		inl_text_name(inl_dev_label(dev), strlen(inl_dev_label(dev)));
	}
	putchar('\n');
}

/* The start of a line about a device: bars, and what the line is about. */
static void put_field(const struct branch *branch, const struct inl_dev *dev, const char *name)
{
	put_bars(branch);
	fputs(inl_dev_child(dev, 0) ? "\xe2\x94\x82 " : "  ", stdout);
	printf("%-14s", name);
}

typedef void put_fields_fn(const struct branch *branch, const struct inl_dev *dev, const struct inl_counters **since);

static void put_tree(const struct branch *branch, const struct inl_dev *dev, put_fields_fn *put_fields,
		     const struct inl_counters **since)
{
	const struct inl_dev *child;

	put_name(branch, dev);
	put_fields(branch, dev, since);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++) {
		struct branch below = { branch, inl_dev_child(dev, i + 1) };

		put_tree(&below, child, put_fields, since);
	}
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static const char *key_types(uint32_t types)
{
	switch (types & (INL_KEY_RAW | INL_KEY_HW_WRAPPED)) {
	case INL_KEY_RAW:
		return "raw";
	case INL_KEY_HW_WRAPPED:
		return "hardware-wrapped";
	case INL_KEY_RAW | INL_KEY_HW_WRAPPED:
		return "raw, hardware-wrapped";
	}
	return "none";
}

static void put_caps(const struct branch *branch, const struct inl_dev *dev)
{
	struct inl_caps caps = { 0 };
	char sizes[128];
	bool any = false;

	inl_dev_caps(dev, &caps);
	for (int mode = 1; mode < INL_BLK_MODE_MAX; mode++) {
		if (!caps.modes[mode])
			continue;
		inl_text_sizes(caps.modes[mode], sizes, sizeof(sizes));
		put_field(branch, dev, any ? "" : "engine does");
		printf("%s, data units of %s bytes\n", inl_blk_mode_name((enum inl_blk_mode)mode), sizes);
		any = true;
	}
	put_field(branch, dev, any ? "" : "engine does");
	if (any)
		printf("DUNs of up to %" PRIu32 " bytes, keys: %s\n", caps.max_dun_bytes, key_types(caps.key_types));
	else
		puts("nothing");
	put_field(branch, dev, "fallback");
	puts(inl_dev_fallback(dev) ? "yes" : "no: keys that no engine serves are refused");
}

static void put_slots(const struct branch *branch, const struct inl_dev *dev)
{
	int n = inl_dev_n_slots(dev);

	put_field(branch, dev, "key slots");
	if (n < 0)
		puts("none: no engine of its own");
	else if (!n)
		puts("none: the key goes with the request");
	else
		printf("%d\n", n);
}

static void put_counter_field(const struct branch *branch, const struct inl_dev *dev, const struct inl_counters **since)
{
	struct inl_counters counters = { 0 };

	take(dev, since, &counters);
	put_field(branch, dev, "counters");
	put_counters(stdout, &counters);
}

static void put_fields(const struct branch *branch, const struct inl_dev *dev, const struct inl_counters **since)
{
	char size[16];

	put_field(branch, dev, "size");
	printf("%" PRIu64 " bytes (%s)\n", inl_dev_size(dev), inl_text_size(inl_dev_size(dev), size));
	put_field(branch, dev, "block size");
	printf("%" PRIu32 "\n", inl_dev_block_size(dev));
	put_slots(branch, dev);
	put_caps(branch, dev);
	put_counter_field(branch, dev, since);
}

void inl_cli_counters_tree(const struct inl_dev *dev, const struct inl_counters *since)
{
	put_tree(NULL, dev, put_counter_field, &since);
}

static void print_drivers(void)
{
	const struct inl_driver_info *info;

	for (unsigned i = 0; (info = inl_driver_info(i)); i++)
		printf("%s\n    %s\n", info->usage, info->summary);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_caps(struct inl_json *json, const struct inl_caps *caps)
{
	inl_json_open(json, "capabilities", '{');
	inl_json_open(json, "modes", '[');
	for (int mode = 1; mode < INL_BLK_MODE_MAX; mode++) {
		if (!caps->modes[mode])
			continue;
		inl_json_open(json, NULL, '{');
		inl_json_text(json, "mode", inl_blk_mode_name((enum inl_blk_mode)mode));
		inl_json_open(json, "data_unit_sizes", '[');
		for (uint32_t size = INL_UNIT_SIZE_MIN; size <= INL_UNIT_SIZE_MAX; size <<= 1) {
			if (caps->modes[mode] & size)
				inl_json_u64(json, NULL, size);
		}
		inl_json_close(json, ']');
		inl_json_close(json, '}');
	}
	inl_json_close(json, ']');
	inl_json_u64(json, "max_dun_bytes", caps->max_dun_bytes);
	inl_json_bool(json, "raw_keys", caps->key_types & INL_KEY_RAW);
	inl_json_bool(json, "wrapped_keys", caps->key_types & INL_KEY_HW_WRAPPED);
	inl_json_close(json, '}');
}

static void json_counters(struct inl_json *json, const struct inl_dev *dev, const struct inl_counters **since)
{
	struct inl_counters counters = { 0 };

	take(dev, since, &counters);
	inl_json_open(json, "counters", '{');
	for (size_t i = 0; i < N_COUNTERS; i++)
		inl_json_u64(json, counter_rows[i].name, counter(&counters, i));
	inl_json_close(json, '}');
}

static void json_device(struct inl_json *json, const char *key, const struct inl_dev *dev,
			const struct inl_counters **since)
{
	struct inl_caps caps = { 0 };
	const struct inl_dev *child;

	inl_dev_caps(dev, &caps);
	inl_json_open(json, key, '{');
	inl_json_text(json, "driver", inl_dev_driver(dev));
	inl_json_name(json, "label", inl_dev_label(dev), strlen(inl_dev_label(dev)));
	inl_json_u64(json, "size", inl_dev_size(dev));
	inl_json_u64(json, "block_size", inl_dev_block_size(dev));
	inl_json_bool(json, "writable", inl_dev_writable(dev));
	inl_json_bool(json, "fallback", inl_dev_fallback(dev));
	inl_json_bool(json, "engine", inl_dev_n_slots(dev) >= 0);
	inl_json_u64(json, "slots", inl_dev_n_slots(dev) < 0 ? 0 : (uint64_t)inl_dev_n_slots(dev));
	json_caps(json, &caps);
	json_counters(json, dev, since);
	inl_json_open(json, "children", '[');
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		json_device(json, NULL, child, since);
	inl_json_close(json, ']');
	inl_json_close(json, '}');
}

void inl_cli_json_device(struct inl_json *json, const char *key, const struct inl_dev *dev,
			 const struct inl_counters *since)
{
	json_device(json, key, dev, &since);
}

static void json_drivers(void)
{
	const struct inl_driver_info *info;
	struct inl_json json = { 0 };

	inl_json_open(&json, NULL, '[');
	for (unsigned i = 0; (info = inl_driver_info(i)); i++) {
		inl_json_open(&json, NULL, '{');
		inl_json_text(&json, "name", info->name);
		inl_json_text(&json, "usage", info->usage);
		inl_json_text(&json, "summary", info->summary);
		inl_json_close(&json, '}');
	}
	inl_json_close(&json, ']');
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

int inl_cli_device(struct inl_cli *cli, int n_args, char **args)
{
	const struct inl_counters *since = NULL;
	bool json = cli->given[INL_OPT_JSON];
	struct inl_json writer = { 0 };
	int code;

	if (!n_args) {
		json ? json_drivers() : print_drivers();
		return 0;
	}
	code = inl_cli_ciphers(cli, false);
	code = code ? code : inl_cli_open_device(cli, args[0], 0, INL_EXIT_FAILED);
	if (code)
		return code;
	if (json)
		json_device(&writer, NULL, cli->dev, &since);
	else
		put_tree(NULL, cli->dev, put_fields, &since);
	return 0;
}
