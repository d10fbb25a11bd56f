/*
 * cli/device.c: `inlay device`: a stack of devices, from the top down; the counters of one.
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
	ROW(bounce_waits), ROW(keys_started), ROW(keys_evicted), ROW(errors),
#undef ROW
};

#define N_COUNTERS (sizeof(counter_rows) / sizeof(counter_rows[0]))

static uint64_t counter(const struct inl_counters *counters, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)counters + counter_rows[i].offset, sizeof(value));
	return value;
}

/* Those that are not zero, on one line. */
static void put_counters(FILE *out, const struct inl_dev *dev)
{
	struct inl_counters counters = { 0 };
	bool any = false;

	inl_dev_counters(dev, &counters);
	for (size_t i = 0; i < N_COUNTERS; i++) {
		if (counter(&counters, i))
			fprintf(out, "%s%s %" PRIu64, any ? ", " : "", counter_rows[i].name, counter(&counters, i));
		any |= counter(&counters, i) != 0;
	}
	fputs(any ? "\n" : "all zero\n", out);
}

static void counters_below(FILE *out, const struct inl_dev *dev, unsigned depth)
{
	const struct inl_dev *child;

	fprintf(out, "%*s%s", (int)depth * 2, "", inl_dev_driver(dev));
	if (inl_dev_label(dev)[0]) {
		fputs(" (", out);
		inl_text_put(out, inl_dev_label(dev), strlen(inl_dev_label(dev)), true);
		fputs(")", out);
	}
	fputs(": ", out);
	put_counters(out, dev);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		counters_below(out, child, depth + 1);
}

void inl_cli_counters(FILE *out, const struct inl_dev *dev)
{
	counters_below(out, dev, 0);
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

static void print_caps(const struct inl_dev *dev, int indent)
{
	struct inl_caps now, *caps = &now;
	char sizes[128];
	bool any = false;

	inl_dev_caps(dev, &now);
	for (int mode = 1; mode < INL_BLK_MODE_MAX; mode++) {
		if (!caps->modes[mode])
			continue;
		inl_text_sizes(caps->modes[mode], sizes, sizeof(sizes));
		printf("%*s%s%s, data units of %s bytes\n", indent, "", any ? "              " : "engine does   ",
		       inl_blk_mode_name((enum inl_blk_mode)mode), sizes);
		any = true;
	}
	if (!any)
		printf("%*sengine does   nothing: the software fallback encrypts and decrypts\n", indent, "");
	else
		printf("%*s              DUNs of up to %" PRIu32 " bytes, keys: %s\n", indent, "", caps->max_dun_bytes,
		       key_types(caps->key_types));
}

static void print_slots(const struct inl_dev *dev, int indent)
{
	int n = inl_dev_n_slots(dev);

	printf("%*skey slots     ", indent, "");
	if (n < 0)
		puts("none: no engine of its own");
	else if (!n)
		puts("none: the key goes with the request");
	else
		printf("%d\n", n);
}

static void print_device(const struct inl_dev *dev, unsigned depth)
{
	int indent = (int)depth * 4;
	const struct inl_dev *child;
	char size[16];

	printf("%*s%s", indent, "", inl_dev_driver(dev));
	if (inl_dev_label(dev)[0]) {
		printf(": ");
		inl_text_name(inl_dev_label(dev), strlen(inl_dev_label(dev)));
	}
	putchar('\n');
	indent += 2;
	printf("%*ssize          %" PRIu64 " bytes (%s)\n", indent, "", inl_dev_size(dev),
	       inl_text_size(inl_dev_size(dev), size));
	printf("%*sblock size    %" PRIu32 "\n", indent, "", inl_dev_block_size(dev));
	print_slots(dev, indent);
	print_caps(dev, indent);
	printf("%*scounters      ", indent, "");
	put_counters(stdout, dev);
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		print_device(child, depth + 1);
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

static void json_device(struct inl_json *json, const char *key, const struct inl_dev *dev)
{
	struct inl_counters counters = { 0 };
	const struct inl_dev *child;
	struct inl_caps caps;

	inl_dev_caps(dev, &caps);
	inl_dev_counters(dev, &counters);
	inl_json_open(json, key, '{');
	inl_json_text(json, "driver", inl_dev_driver(dev));
	inl_json_name(json, "label", inl_dev_label(dev), strlen(inl_dev_label(dev)));
	inl_json_u64(json, "size", inl_dev_size(dev));
	inl_json_u64(json, "block_size", inl_dev_block_size(dev));
	inl_json_bool(json, "writable", inl_dev_writable(dev));
	inl_json_bool(json, "engine", inl_dev_n_slots(dev) >= 0);
	inl_json_u64(json, "slots", inl_dev_n_slots(dev) < 0 ? 0 : (uint64_t)inl_dev_n_slots(dev));
	json_caps(json, &caps);
	inl_json_open(json, "counters", '{');
	for (size_t i = 0; i < N_COUNTERS; i++)
		inl_json_u64(json, counter_rows[i].name, counter(&counters, i));
	inl_json_close(json, '}');
	inl_json_open(json, "children", '[');
	for (unsigned i = 0; (child = inl_dev_child(dev, i)); i++)
		json_device(json, NULL, child);
	inl_json_close(json, ']');
	inl_json_close(json, '}');
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
	bool json = cli->given[INL_OPT_JSON];
	struct inl_diag diag = { 0 };
	struct inl_json writer = { 0 };
	int err;

	if (!n_args) {
		json ? json_drivers() : print_drivers();
		return 0;
	}
	err = inl_dev_open(args[0], 0, &diag, &cli->dev);
	if (err)
		return inl_cli_device_error(cli, args[0], err, &diag, INL_EXIT_FAILED);
	if (json)
		json_device(&writer, NULL, cli->dev);
	else
		print_device(cli->dev, 0);
	return 0;
}
