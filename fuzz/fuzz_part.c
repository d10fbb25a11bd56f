/*
 * fuzz/fuzz_part.c: libFuzzer target: partition tables, GPT and MBR, from any bytes.
 * Not here: the part driver (tests/unit/test_drivers.c).
 * Read more: HACKING.md, "Fuzzing". Input: one byte of flags, then the disk; its end is where a backup GPT would be.
 */
#include "drivers/drivers.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct disk {
	const uint8_t *data;
	uint64_t size;
};

static int read_disk(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct disk *disk = arg;

	if (offset > disk->size || len > disk->size - offset)
		abort(); /* must have been checked against the size */
	memcpy(buf, disk->data + offset, len);
	return 0;
}

static void check(const struct inl_part_table *table, uint64_t size)
{
	struct inl_part part;

	for (unsigned i = 0; i < table->n_parts; i++) {
		const struct inl_part *p = &table->parts[i];

		if (i && table->parts[i - 1].number >= p->number)
			abort();
		if (!p->bad && (p->offset > size || p->len > size - p->offset))
			abort();
		if (!p->bad && inl_part_find(table, p->number, NULL, &part))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct disk disk = { data + 1, size ? size - 1 : 0 };
	struct inl_part_source source = { read_disk, &disk, disk.size, 512 };
	struct inl_part_table *table;
	struct inl_diag diag = { 0 };

	if (!size)
		return 0;
	source.block_size = data[0] & 1 ? 4096 : 512;
	if (inl_part_scan(&source, &diag, &table))
		return 0;
	check(table, disk.size);
	inl_part_table_free(table);
	return 0;
}
