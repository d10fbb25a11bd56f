/*
 * drivers/table.c: the one table of drivers: what each is called, which arguments it takes, how it is opened.
 * Not here: the grammar (drivers/spec.c); the drivers themselves.
 * Read more: HACKING.md, "Adding a driver".
 */
#include "drivers/drivers.h"
#include <stdio.h>
#include <string.h>

/* The first is what a bare path means. */
static const struct inl_driver drivers[] = {
	{
		{ "file", "file(PATH [, direct])", "a regular file or a block device; direct: past the page cache" },
		{ { "path", INL_PARAM_PATH }, { "direct", INL_PARAM_FLAG, true } },
		inl_file_open,
	},
	{
		{ "ram", "ram(SIZE [, block_size=N])", "memory, zeroed when it is opened, gone when it is closed" },
		{ { "size", INL_PARAM_SIZE }, { "block_size", INL_PARAM_SIZE, true } },
		inl_ram_open,
	},
	{
		{ "slice", "slice(SPEC [, offset=N, length=N])", "a range of a device" },
		{ { "device", INL_PARAM_SPEC },
		  { "offset", INL_PARAM_SIZE, true },
		  { "length", INL_PARAM_SIZE, true } },
		inl_slice_open,
	},
	{
		{ "part", "part(SPEC, N)", "partition N of a device with a GPT or MBR partition table" },
		{ { "device", INL_PARAM_SPEC }, { "number", INL_PARAM_NUMBER } },
		inl_part_open,
	},
	{
		{ "engine",
		  "engine(SPEC [, slots=N, modes=NAME+NAME..., unit=N+N..., dun_bytes=N, keys=raw+wrapped, secret=PATH, "
		  "threads=N, latency=TIME, faults=RULE+RULE...])",
		  "emulated inline crypto hardware before a device; slots=0: the key goes with the request" },
		{ { "device", INL_PARAM_SPEC },
		  { "slots", INL_PARAM_NUMBER, true },
		  { "modes", INL_PARAM_TEXT, true },
		  { "unit", INL_PARAM_TEXT, true },
		  { "dun_bytes", INL_PARAM_NUMBER, true },
		  { "keys", INL_PARAM_TEXT, true },
		  { "secret", INL_PARAM_PATH, true },
		  { "threads", INL_PARAM_NUMBER, true },
		  { "latency", INL_PARAM_TEXT, true },
		  { "faults", INL_PARAM_TEXT, true } },
		inl_engine_open,
	},
	{
		{ "linear", "linear(SPEC, SPEC, ...)", "devices one after the other" },
		{ { "device", INL_PARAM_SPEC, .many = true } },
		inl_linear_open,
	},
	{
		{ "stripe", "stripe(SPEC, SPEC, ... [, chunk=SIZE])", "RAID 0: chunks dealt out to devices in turn" },
		{ { "device", INL_PARAM_SPEC, .many = true }, { "chunk", INL_PARAM_SIZE, true } },
		inl_stripe_open,
	},
	{
		{ "fault", "fault(SPEC [, RULE+RULE, ...])",
		  "a device on which the Nth read, write or flush fails, waits, is torn or dropped, as RULEs say" },
		{ { "device", INL_PARAM_SPEC },
		  { "rule", INL_PARAM_TEXT, .many = true, .may_lack = true } },
		inl_fault_open,
	},
};

const struct inl_param inl_common_params[INL_COMMON_MAX] = {
	{ "fallback", INL_PARAM_SWITCH, true },
	{ "bounce", INL_PARAM_SIZE, true },
};

#define N_DRIVERS (sizeof(drivers) / sizeof(drivers[0]))

const struct inl_driver *inl_driver_find(const char *name, size_t len)
{
	for (size_t i = 0; i < N_DRIVERS; i++) {
		const char *known = drivers[i].info.name;

		if (strlen(known) == len && !memcmp(known, name, len))
			return &drivers[i];
	}
	return NULL;
}

const struct inl_driver *inl_driver_default(void)
{
	return &drivers[0];
}

char *inl_driver_names(char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < N_DRIVERS && used < size; i++)
		used += (size_t)snprintf(buf + used, size - used, "%s%s", i ? ", " : "", drivers[i].info.name);
	return buf;
}

const struct inl_driver_info *inl_driver_info(unsigned i)
{
	return i < N_DRIVERS ? &drivers[i].info : NULL;
}
