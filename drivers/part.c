/*
 * drivers/part.c: a partition of another device, found by its number in a GPT or MBR.
 * Not here: the range as a device (drivers/slice.c); writing partition tables.
 * Read more: UEFI 2.10, chapter 5 (GPT, protective MBR, MBR).
 *
 * The parser takes bytes from a reader, so that hostile tables can be given to it without a device. Every number that
 * is read from the medium is checked against the size of the source before it is used.
 */
#include "base/crc.h"
#include "base/endian.h"
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MBR_ENTRIES     4
#define MBR_LOGICAL_MAX 256        /* extended boot records that are followed */
#define GPT_HEADER_MIN  92         /* bytes */
#define GPT_ARRAY_MAX   (4u << 20) /* bytes; 128 entries of 128 bytes are usual */
#define SECTOR_MAX      4096
#define TYPE_PROTECTIVE 0xee

struct mbr_entry {
	uint8_t boot;
	uint8_t chs_first[3];
	uint8_t type;
	uint8_t chs_last[3];
	struct le32 start; /* sectors */
	struct le32 count; /* sectors */
};
_Static_assert(sizeof(struct mbr_entry) == 16, "MBR partition record");

struct mbr {
	uint8_t code[446];
	struct mbr_entry entries[MBR_ENTRIES];
	struct le16 signature;
};
_Static_assert(sizeof(struct mbr) == 512, "MBR");

struct gpt_header {
	uint8_t signature[8];
	struct le32 revision;
	struct le32 header_size; /* bytes */
	struct le32 header_crc;  /* of header_size bytes with this field zero */
	struct le32 reserved;
	struct le64 my_lba;
	struct le64 alternate_lba;
	struct le64 first_usable;
	struct le64 last_usable;
	uint8_t disk_guid[16];
	struct le64 entries_lba;
	struct le32 n_entries;
	struct le32 entry_size; /* bytes */
	struct le32 entries_crc;
};
_Static_assert(sizeof(struct gpt_header) == GPT_HEADER_MIN, "GPT header");

struct gpt_entry {
	uint8_t type[16]; /* zero: unused */
	uint8_t guid[16];
	struct le64 first; /* sectors */
	struct le64 last;  /* inclusive */
	struct le64 attributes;
	uint8_t name[72];
};
_Static_assert(sizeof(struct gpt_entry) == 128, "GPT entry");

/* ---- both kinds -------------------------------------------------------------------------------------------------- */

static struct inl_part_table *table_new(const char *kind, unsigned max_parts)
{
	struct inl_part_table *table = calloc(1, sizeof(*table) + max_parts * sizeof(table->parts[0]));

	if (table)
		table->kind = kind;
	return table;
}

void inl_part_table_free(struct inl_part_table *table)
{
	free(table);
}

/* Append a partition; one that is empty or leaves the device is kept, as bad, so that it can be named. */
static void table_add(struct inl_part_table *table, const struct inl_part_source *source, unsigned number,
		      uint64_t first, uint64_t count, uint32_t sector)
{
	struct inl_part *part = &table->parts[table->n_parts++];
	uint64_t n_sectors = source->size / sector;

	part->number = number;
	part->bad = !first || !count || first >= n_sectors || count > n_sectors - first;
	part->offset = part->bad ? 0 : first * sector;
	part->len = part->bad ? 0 : count * sector;
}

static int out_of_memory(struct inl_diag *diag)
{
	return inl_diag_set(diag, -ENOMEM, "out of memory");
}

/* ---- GPT --------------------------------------------------------------------------------------------------------- */

struct gpt {
	uint32_t sector; /* bytes */
	uint64_t entries_offset;
	uint32_t n_entries;
	uint32_t entry_size;
	uint32_t entries_crc;
	uint64_t first_usable, last_usable;
};

static bool gpt_header_crc_ok(uint8_t *sector, uint32_t header_size)
{
	struct gpt_header *header = (struct gpt_header *)sector;
	uint32_t crc = inl_le32(header->header_crc);

	header->header_crc = inl_to_le32(0);
	return inl_crc32(sector, header_size) == crc;
}

static bool gpt_array_fits(const struct inl_part_source *source, const struct gpt *gpt, uint64_t entries_lba)
{
	uint64_t n_sectors = source->size / gpt->sector, bytes = (uint64_t)gpt->n_entries * gpt->entry_size;

	if (gpt->entry_size < sizeof(struct gpt_entry) || (gpt->entry_size & (gpt->entry_size - 1)))
		return false;
	return bytes && bytes <= GPT_ARRAY_MAX && entries_lba < n_sectors &&
	       bytes <= (n_sectors - entries_lba) * gpt->sector;
}

/* Is there a valid header at this sector? */
static bool gpt_read_header(const struct inl_part_source *source, uint32_t sector, uint64_t lba, struct gpt *gpt)
{
	uint8_t bytes[SECTOR_MAX];
	const struct gpt_header *header = (const struct gpt_header *)bytes;
	uint32_t header_size;

	if (source->read(source->arg, lba * sector, bytes, sector) || memcmp(header->signature, "EFI PART", 8))
		return false;
	header_size = inl_le32(header->header_size);
	if (header_size < GPT_HEADER_MIN || header_size > sector || !gpt_header_crc_ok(bytes, header_size))
		return false;
	gpt->sector = sector;
	gpt->n_entries = inl_le32(header->n_entries);
	gpt->entry_size = inl_le32(header->entry_size);
	gpt->entries_crc = inl_le32(header->entries_crc);
	gpt->first_usable = inl_le64(header->first_usable);
	gpt->last_usable = inl_le64(header->last_usable);
	if (inl_le64(header->my_lba) != lba || gpt->first_usable > gpt->last_usable ||
	    !gpt_array_fits(source, gpt, inl_le64(header->entries_lba)))
		return false;
	gpt->entries_offset = inl_le64(header->entries_lba) * sector;
	return true;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

static void gpt_add_entries(const struct inl_part_source *source, const struct gpt *gpt, const uint8_t *array,
			    struct inl_part_table *table)
{
	for (uint32_t i = 0; i < gpt->n_entries; i++) {
		const struct gpt_entry *entry = (const struct gpt_entry *)(array + (size_t)i * gpt->entry_size);
		uint64_t first = inl_le64(entry->first), last = inl_le64(entry->last);
		bool usable = first >= gpt->first_usable && last <= gpt->last_usable && first <= last;

		if (!is_zero(entry->type, sizeof(entry->type)))
			table_add(table, source, i + 1, first, usable ? last - first + 1 : 0, gpt->sector);
	}
}

/* Returns: 1 (a table), 0 (not valid), -ENOMEM. */
static int gpt_read_array(const struct inl_part_source *source, const struct gpt *gpt, struct inl_part_table **out)
{
	size_t len = (size_t)gpt->n_entries * gpt->entry_size;
	struct inl_part_table *table = table_new("GPT", gpt->n_entries);
	uint8_t *array = malloc(len);
	int found = table && array ? 0 : -ENOMEM;

	if (!found && !source->read(source->arg, gpt->entries_offset, array, len) &&
	    inl_crc32(array, len) == gpt->entries_crc) {
		gpt_add_entries(source, gpt, array, table);
		*out = table;
		found = 1;
	}
	if (found != 1)
		inl_part_table_free(table);
	free(array);
	return found;
}

static int gpt_try(const struct inl_part_source *source, uint32_t sector, bool backup, struct inl_part_table **out)
{
	uint64_t n_sectors = source->size / sector;
	struct gpt gpt;
	int found = 0;

	if (n_sectors > 2 && gpt_read_header(source, sector, backup ? n_sectors - 1 : 1, &gpt))
		found = gpt_read_array(source, &gpt, out);
	if (found == 1)
		(*out)->damaged = backup;
	return found;
}

/* The sectors of the disk an image was taken from need not be those of the device it lies on now. */
static int gpt_scan(const struct inl_part_source *source, struct inl_part_table **out)
{
	static const uint32_t sectors[] = { 512, 4096 };

	for (int backup = 0; backup <= 1; backup++) {
		for (unsigned i = 0; i < 2; i++) {
			int found = gpt_try(source, sectors[i], backup, out);

			if (found)
				return found;
		}
	}
	return 0;
}

/* ---- MBR --------------------------------------------------------------------------------------------------------- */

struct mbr_scan {
	const struct inl_part_source *source;
	struct inl_part_table *table;
	uint32_t sector;      /* bytes */
	unsigned next_number; /* of the next logical partition */
	unsigned n_visited;
	uint64_t visited[MBR_LOGICAL_MAX]; /* extended boot records, sectors */
};

static bool is_extended(const struct mbr_entry *entry)
{
	return entry->type == 0x05 || entry->type == 0x0f || entry->type == 0x85;
}

static bool is_used(const struct mbr_entry *entry)
{
	return entry->type && inl_le32(entry->count);
}

static bool has_signature(const struct mbr *mbr)
{
	return inl_le16(mbr->signature) == 0xaa55;
}

/* A boot sector of a file system has the same signature; what it has in place of these flags is code or zeros. */
static bool has_partitions(const struct mbr *mbr)
{
	bool used = false;

	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		if (mbr->entries[i].boot & 0x7f)
			return false;
		used |= is_used(&mbr->entries[i]);
	}
	return used;
}

static bool is_protective(const struct mbr *mbr)
{
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		if (mbr->entries[i].type == TYPE_PROTECTIVE)
			return true;
	}
	return false;
}

/* Note that an extended boot record is visited; false if it was before, or the chain is too long. */
static bool visit(struct mbr_scan *scan, uint64_t lba)
{
	for (unsigned i = 0; i < scan->n_visited; i++) {
		if (scan->visited[i] == lba)
			return false;
	}
	if (scan->n_visited == MBR_LOGICAL_MAX)
		return false;
	scan->visited[scan->n_visited++] = lba;
	return true;
}

static bool read_ebr(const struct mbr_scan *scan, uint64_t lba, struct mbr *ebr)
{
	const struct inl_part_source *source = scan->source;

	return lba < source->size / scan->sector && !source->read(source->arg, lba * scan->sector, ebr, sizeof(*ebr)) &&
	       has_signature(ebr);
}

/* Add the data partition of an extended boot record; its start counts from that record. */
static void add_logical(struct mbr_scan *scan, const struct mbr *ebr, uint64_t lba)
{
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		const struct mbr_entry *entry = &ebr->entries[i];

		if (!is_used(entry) || is_extended(entry))
			continue;
		table_add(scan->table, scan->source, scan->next_number++, lba + inl_le32(entry->start),
			  inl_le32(entry->count), scan->sector);
		return;
	}
}

static const struct mbr_entry *next_ebr(const struct mbr *ebr)
{
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		if (is_used(&ebr->entries[i]) && is_extended(&ebr->entries[i]))
			return &ebr->entries[i];
	}
	return NULL;
}

/* Follow the chain of one extended partition; the links count from its start and must stay within it. */
static void scan_extended(struct mbr_scan *scan, const struct mbr_entry *extended)
{
	uint64_t start = inl_le32(extended->start), end = start + inl_le32(extended->count), lba = start;
	const struct mbr_entry *next;
	struct mbr ebr;

	do {
		if (lba >= end || !visit(scan, lba) || !read_ebr(scan, lba, &ebr)) {
			scan->table->damaged = true;
			return;
		}
		add_logical(scan, &ebr, lba);
		next = next_ebr(&ebr);
		lba = next ? start + inl_le32(next->start) : 0;
	} while (next);
}

static int mbr_scan_entries(const struct inl_part_source *source, const struct mbr *mbr, struct inl_part_table **out)
{
	struct mbr_scan *scan = calloc(1, sizeof(*scan));

	if (!scan)
		return -ENOMEM;
	scan->table = table_new("MBR", MBR_ENTRIES + MBR_LOGICAL_MAX);
	if (!scan->table) {
		free(scan);
		return -ENOMEM;
	}
	scan->source = source;
	scan->sector = source->block_size;
	scan->next_number = MBR_ENTRIES + 1;
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		const struct mbr_entry *entry = &mbr->entries[i];

		if (is_used(entry) && !is_extended(entry))
			table_add(scan->table, source, i + 1, inl_le32(entry->start), inl_le32(entry->count),
				  scan->sector);
	}
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		if (is_used(&mbr->entries[i]) && is_extended(&mbr->entries[i]))
			scan_extended(scan, &mbr->entries[i]);
	}
	*out = scan->table;
	free(scan);
	return 0;
}

/* ---- scan, find -------------------------------------------------------------------------------------------------- */

int inl_part_scan(const struct inl_part_source *source, struct inl_diag *diag, struct inl_part_table **out)
{
	bool protective, plain;
	struct mbr mbr;
	int err, found;

	if (source->size < sizeof(mbr))
		return inl_diag_set(diag, -ENODEV, "no partition table: the device is too small");
	err = source->read(source->arg, 0, &mbr, sizeof(mbr));
	if (err)
		return inl_diag_set(diag, err, "cannot read the partition table");
	protective = has_signature(&mbr) && is_protective(&mbr);
	plain = has_signature(&mbr) && !protective && has_partitions(&mbr);
	if (!plain) {
		found = gpt_scan(source, out);
		if (found)
			return found < 0 ? out_of_memory(diag) : 0;
	}
	if (protective)
		return inl_diag_set(diag, -EUCLEAN, "the GPT is damaged: neither its header nor the backup is valid");
	if (!plain)
		return inl_diag_set(diag, -ENODEV, "no partition table (neither GPT nor MBR)");
	return mbr_scan_entries(source, &mbr, out) ? out_of_memory(diag) : 0;
}

static int not_found(const struct inl_part_table *table, unsigned number, struct inl_diag *diag)
{
	const char *damaged = table->damaged ? "; the table is damaged" : "";
	char list[256] = "";
	size_t used = 0;

	for (unsigned i = 0; i < table->n_parts && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%u", i ? ", " : "",
					 table->parts[i].number);
	if (used >= sizeof(list))
		memcpy(list + sizeof(list) - 4, "...", 4);
	if (!table->n_parts)
		return inl_diag_set(diag, -ENODEV, "no partition %u: the %s is empty%s", number, table->kind, damaged);
	return inl_diag_set(diag, -ENODEV, "no partition %u: the %s has %s%s", number, table->kind, list, damaged);
}

int inl_part_find(const struct inl_part_table *table, unsigned number, struct inl_diag *diag, struct inl_part *out)
{
	for (unsigned i = 0; i < table->n_parts; i++) {
		const struct inl_part *part = &table->parts[i];

		if (part->number != number)
			continue;
		if (part->bad)
			return inl_diag_set(diag, -EUCLEAN,
					    "partition %u: the %s gives it a range that is not on the device", number,
					    table->kind);
		*out = *part;
		return 0;
	}
	return not_found(table, number, diag);
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

static const struct inl_dev_ops ops = {
	.name = "part",
	.map = inl_slice_map,
	.close = inl_slice_close,
};

/* Any range of a device, by way of the whole blocks around it. */
static int read_device(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct inl_dev *dev = arg;
	uint32_t block_size = inl_dev_block_size(dev), skip = (uint32_t)(offset % block_size);
	size_t whole = (skip + len + block_size - 1) / block_size * block_size;
	uint8_t *blocks;
	int err;

	if (!skip && whole == len)
		return inl_dev_read(dev, offset, buf, len);
	blocks = malloc(whole);
	if (!blocks)
		return -ENOMEM;
	err = inl_dev_read(dev, offset - skip, blocks, whole);
	if (!err)
		memcpy(buf, blocks + skip, len);
	free(blocks);
	return err;
}

/* The device may have larger blocks than the disk that the table was made for. */
static int check_blocks(const struct inl_dev *child, const struct inl_part *part, struct inl_diag *diag)
{
	uint32_t block_size = inl_dev_block_size(child);

	if (!((part->offset | part->len) % block_size))
		return 0;
	return inl_diag_set(diag, -EINVAL,
			    "partition %u: offset %llu, length %llu: no multiples of the device's block size, %u",
			    part->number, (unsigned long long)part->offset, (unsigned long long)part->len, block_size);
}

static int find(struct inl_dev *child, unsigned number, struct inl_diag *diag, struct inl_part *part, char label[64])
{
	struct inl_part_source source = {
		.read = read_device,
		.arg = child,
		.size = inl_dev_size(child),
		.block_size = inl_dev_sector_size(child),
	};
	struct inl_part_table *table;
	int err = inl_part_scan(&source, diag, &table);

	if (err)
		return err;
	err = inl_part_find(table, number, diag, part);
	if (!err)
		err = check_blocks(child, part, diag);
	if (!err)
		snprintf(label, 64, "%s, partition %u%s", table->kind, number,
			 table->damaged ? ", from a damaged table" : "");
	inl_part_table_free(table);
	return err;
}

int inl_part_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	uint64_t number = inl_spec_number(spec, "number", 0);
	struct inl_part part;
	struct inl_dev *child;
	char label[64];
	int err;

	if (number < 1 || number > UINT32_MAX)
		return inl_spec_error(diag, -EINVAL, inl_spec_arg(spec, "number")->column,
				      "expected the number of a partition, from 1 on");
	err = inl_spec_open_child(spec, "device", flags, diag, &child);
	if (err)
		return err;
	err = find(child, (unsigned)number, diag, &part, label);
	if (err)
		goto fail;
	err = inl_slice_new(&ops, child, part.offset, part.len, label, out);
	if (err) {
		inl_diag_set(diag, err, "part: cannot make the device");
		goto fail;
	}
	return 0;
fail:
	inl_dev_close(child);
	return err;
}
