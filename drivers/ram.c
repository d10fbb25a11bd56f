/*
 * drivers/ram.c: a device in memory, zeroed and taken lazily. The smallest complete driver.
 * Not here: memory that is mapped from a medium.
 * Read more: inlay/driver.h.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ram {
	uint8_t *mem;
	size_t len;
};

/* Whole pages are given back to the system, which makes them zero; the edges are overwritten. */
static void zero(struct ram *ram, uint64_t pos, uint64_t len)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end = pos + len;
	uint64_t first = (pos + page - 1) & ~(page - 1), last = end & ~(page - 1);

	if (first < last && !madvise(ram->mem + first, last - first, MADV_DONTNEED)) {
		memset(ram->mem + pos, 0, first - pos);
		memset(ram->mem + last, 0, end - last);
	} else {
		memset(ram->mem + pos, 0, len);
	}
}

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	struct ram *ram = inl_dev_priv(dev);
	uint64_t pos = bio->state.pos;

	switch (bio->op) {
	case INL_READ:
		inl_bio_copy_in(bio, 0, ram->mem + pos, bio->len);
		break;
	case INL_WRITE:
		inl_bio_copy_out(bio, 0, ram->mem + pos, bio->len);
		break;
	case INL_DISCARD:
	case INL_ZERO:
		zero(ram, pos, bio->len);
		break;
	case INL_FLUSH:
		break;
	}
	inl_bio_end(bio, 0);
}

static void *memory(struct inl_dev *dev, uint64_t pos, uint64_t len)
{
	struct ram *ram = inl_dev_priv(dev);

	return ram->mem + pos;
}

static void ram_free(struct ram *ram)
{
	if (ram && ram->mem)
		munmap(ram->mem, ram->len);
	free(ram);
}

static void close_ram(struct inl_dev *dev)
{
	ram_free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops = {
	.name = "ram",
	.submit = submit,
	.memory = memory,
	.close = close_ram,
};

static struct ram *ram_new(uint64_t len)
{
	struct ram *ram = calloc(1, sizeof(*ram));
	void *mem;

	if (!ram)
		return NULL;
	mem = len > SIZE_MAX
		      ? MAP_FAILED
		      : mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED) {
		ram_free(ram);
		return NULL;
	}
	ram->mem = mem;
	ram->len = len;
	return ram;
}

static int check_args(const struct inl_spec *spec, const struct inl_dev_params *params, struct inl_diag *diag)
{
	uint64_t block_size = inl_spec_number(spec, "block_size", 512);

	if (block_size < 512 || block_size > 65536 || (block_size & (block_size - 1)))
		return inl_spec_error(diag, -EINVAL, inl_spec_arg(spec, "block_size")->column,
				      "block size %llu: expected a power of two, 512 to 65536",
				      (unsigned long long)block_size);
	if (params->size < block_size)
		return inl_spec_error(diag, -EINVAL, inl_spec_arg(spec, "size")->column,
				      "expected at least one block of %llu bytes", (unsigned long long)block_size);
	return 0;
}

int inl_ram_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev_params params = {
		.size = inl_spec_number(spec, "size", 0),
		.block_size = (uint32_t)inl_spec_number(spec, "block_size", 512),
		.sector_size = (uint32_t)inl_spec_number(spec, "block_size", 512),
		.writable = flags & INL_OPEN_WRITE,
		.label = inl_spec_arg(spec, "size")->text,
	};
	struct ram *ram;
	int err = check_args(spec, &params, diag);

	if (err)
		return err;
	ram = ram_new(params.size);
	if (!ram)
		return inl_diag_set(diag, -ENOMEM, "ram: no memory for %llu bytes", (unsigned long long)params.size);
	err = inl_dev_new(&ops, ram, &params, out);
	if (err) {
		ram_free(ram);
		return inl_diag_set(diag, err, "ram: cannot make the device");
	}
	return 0;
}
