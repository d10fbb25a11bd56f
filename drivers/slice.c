/*
 * drivers/slice.c: a range of another device.
 * Not here: where the range comes from if not from the SPEC (drivers/part.c).
 * Read more: inlay/driver.h, map.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct slice {
	uint64_t offset; /* bytes on the child */
};

void inl_slice_map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	const struct slice *slice = inl_dev_priv(dev);

	*out = (struct inl_dev_extent){ inl_dev_child(dev, 0), slice->offset + pos, len };
}

void inl_slice_close(struct inl_dev *dev)
{
	free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops = {
	.name = "slice",
	.map = inl_slice_map,
	.close = inl_slice_close,
};

int inl_slice_new(const struct inl_dev_ops *slice_ops, struct inl_dev *child, uint64_t offset, uint64_t len,
		  const char *label, struct inl_dev **out)
{
	struct inl_dev_params params = {
		.size = len,
		.block_size = inl_dev_block_size(child),
		.writable = inl_dev_writable(child),
		.label = label,
		.children = &child,
		.n_children = 1,
	};
	struct slice *slice = malloc(sizeof(*slice));
	int err;

	if (!slice)
		return -ENOMEM;
	slice->offset = offset;
	err = inl_dev_new(slice_ops, slice, &params, out);
	if (err)
		free(slice);
	return err;
}

/* Check one bound; an option that was not given is right by construction. */
static int check(const struct inl_spec *spec, const char *name, uint64_t value, uint64_t min, uint64_t max,
		 uint32_t block_size, struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, name);
	unsigned column = arg ? arg->column : spec->column;

	if (value < min || value > max)
		return inl_spec_error(diag, -EINVAL, column, "%s %llu: expected %llu to %llu, the device is no larger",
				      name, (unsigned long long)value, (unsigned long long)min,
				      (unsigned long long)max);
	if (value % block_size)
		return inl_spec_error(diag, -EINVAL, column,
				      "%s %llu: expected a multiple of %u, the device's block size", name,
				      (unsigned long long)value, block_size);
	return 0;
}

int inl_slice_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	uint64_t size, offset = inl_spec_number(spec, "offset", 0), length;
	struct inl_dev *child;
	char label[64];
	int err = inl_spec_open_child(spec, "device", flags, diag, &child);

	if (err)
		return err;
	size = inl_dev_size(child);
	err = check(spec, "offset", offset, 0, size - inl_dev_block_size(child), inl_dev_block_size(child), diag);
	if (err)
		goto fail;
	length = inl_spec_number(spec, "length", size - offset);
	err = check(spec, "length", length, inl_dev_block_size(child), size - offset, inl_dev_block_size(child), diag);
	if (err)
		goto fail;
	snprintf(label, sizeof(label), "offset %llu, length %llu", (unsigned long long)offset,
		 (unsigned long long)length);
	err = inl_slice_new(&ops, child, offset, length, label, out);
	if (err) {
		inl_diag_set(diag, err, "slice: cannot make the device");
		goto fail;
	}
	return 0;
fail:
	inl_dev_close(child);
	return err;
}
