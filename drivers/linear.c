/*
 * drivers/linear.c: devices one after the other; and what every stack of several devices shares.
 * Not here: splitting bios and advancing their contexts (the block layer does it for every ops structure with a map).
 * Read more: inlay/driver.h, map; Linux Documentation/admin-guide/device-mapper/linear.rst.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- stacks of several devices ----------------------------------------------------------------------------------- */

uint32_t inl_stack_block_size(struct inl_dev *const *children, unsigned n)
{
	uint32_t block_size = 0;

	for (unsigned i = 0; i < n; i++) {
		if (inl_dev_block_size(children[i]) > block_size)
			block_size = inl_dev_block_size(children[i]);
	}
	return block_size;
}

int inl_stack_new(const struct inl_dev_ops *ops, void *priv, struct inl_dev *const *children, unsigned n, uint64_t size,
		  uint32_t unit_max, const char *label, struct inl_dev **out)
{
	struct inl_dev_params params = {
		.size = size,
		.block_size = inl_stack_block_size(children, n),
		.writable = true,
		.unit_max = unit_max,
		.label = label,
		.children = children,
		.n_children = n,
	};

	for (unsigned i = 0; i < n; i++)
		params.writable &= inl_dev_writable(children[i]);
	return inl_dev_new(ops, priv, &params, out);
}

void inl_stack_close(struct inl_dev *dev)
{
	free(inl_dev_priv(dev));
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

struct linear {
	unsigned n;
	uint64_t start[INL_DEV_MAX_CHILDREN + 1]; /* bytes: where each child begins; the last is the size */
};

static void map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	const struct linear *linear = inl_dev_priv(dev);
	unsigned i = 0;

	while (pos >= linear->start[i + 1])
		i++;
	out->child = inl_dev_child(dev, i);
	out->pos = pos - linear->start[i];
	out->len = len < linear->start[i + 1] - pos ? len : linear->start[i + 1] - pos;
}

static const struct inl_dev_ops ops = {
	.name = "linear",
	.map = map,
	.close = inl_stack_close,
};

/* Every child begins at a multiple of the block size: what is left over at its end is not used. */
static int place(struct linear *linear, const struct inl_spec *spec, struct inl_dev *const *children,
		 struct inl_diag *diag)
{
	uint32_t block_size = inl_stack_block_size(children, linear->n);
	const struct inl_arg *arg = inl_spec_arg(spec, "device");

	for (unsigned i = 0; i < linear->n; i++, arg = arg->next) {
		uint64_t used = inl_dev_size(children[i]) / block_size * block_size;

		if (!used)
			return inl_spec_error(diag, -EINVAL, arg->column,
					      "%llu bytes: less than one block of %u, the largest of the devices",
					      (unsigned long long)inl_dev_size(children[i]), block_size);
		if (__builtin_add_overflow(linear->start[i], used, &linear->start[i + 1]))
			return inl_spec_error(diag, -EINVAL, arg->column, "more than 2^64 bytes together");
	}
	return 0;
}

/* The largest data unit that no boundary cuts. */
static uint32_t unit_max(const struct linear *linear)
{
	uint64_t bits = INL_UNIT_SIZE_MAX;

	for (unsigned i = 1; i < linear->n; i++)
		bits |= linear->start[i];
	return (uint32_t)(bits & -bits);
}

static void describe(const struct linear *linear, char *label, size_t size)
{
	size_t used = 0;

	label[0] = '\0';
	for (unsigned i = 1; i < linear->n && used < size; i++)
		used += (size_t)snprintf(label + used, size - used, "%s%llu", i > 1 ? ", " : "boundaries ",
					 (unsigned long long)linear->start[i]);
}

int inl_linear_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev *children[INL_DEV_MAX_CHILDREN];
	struct linear *linear = calloc(1, sizeof(*linear));
	char label[INL_DEV_MAX_CHILDREN * 24];
	int err;

	if (!linear)
		return inl_diag_set(diag, -ENOMEM, "out of memory");
	err = inl_spec_open_children(spec, "device", flags, diag, children, &linear->n);
	if (err)
		goto fail;
	err = place(linear, spec, children, diag);
	if (err)
		goto fail;
	describe(linear, label, sizeof(label));
	err = inl_stack_new(&ops, linear, children, linear->n, linear->start[linear->n], unit_max(linear), label, out);
	if (err) {
		inl_diag_set(diag, err, "linear: cannot make the device");
		goto fail;
	}
	return 0;
fail:
	inl_close_children(children, linear->n);
	free(linear);
	return err;
}
