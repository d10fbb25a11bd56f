/*
 * drivers/stripe.c: RAID 0: chunks of one size, dealt out to the devices in turn.
 * Not here: splitting bios and advancing their contexts (the block layer does it for every ops structure with a map).
 * Read more: inlay/driver.h, map; Linux Documentation/admin-guide/device-mapper/striped.rst, whose layout this is.
 */
#include "drivers/drivers.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_DEFAULT 65536u

struct stripe {
	unsigned n;
	unsigned chunk_bits;
	uint64_t child_len; /* bytes of each child that are used: whole chunks */
};

static void map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	const struct stripe *stripe = inl_dev_priv(dev);
	uint64_t chunk = UINT64_C(1) << stripe->chunk_bits;
	uint64_t nth = pos >> stripe->chunk_bits, within = pos & (chunk - 1);

	out->child = inl_dev_child(dev, (unsigned)(nth % stripe->n));
	out->pos = (nth / stripe->n << stripe->chunk_bits) + within;
	out->len = stripe->n == 1 || len < chunk - within ? len : chunk - within;
}

static const struct inl_dev_ops ops = {
	.name = "stripe",
	.map = map,
	.close = inl_stack_close,
};

static int set_chunk(struct stripe *stripe, const struct inl_spec *spec, struct inl_dev *const *children,
		     struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "chunk");
	uint64_t chunk = arg ? arg->number : CHUNK_DEFAULT;
	uint32_t block_size = inl_stack_block_size(children, stripe->n);

	if (!chunk || chunk & (chunk - 1) || chunk < block_size)
		return inl_spec_error(diag, -EINVAL, arg ? arg->column : spec->column,
				      "chunk %llu: expected a power of two, at least %u, the largest block size of the "
				      "devices", (unsigned long long)chunk, block_size);
	stripe->chunk_bits = (unsigned)__builtin_ctzll(chunk);
	return 0;
}

/* Of every child as much as of the smallest. */
static int place(struct stripe *stripe, const struct inl_spec *spec, struct inl_dev *const *children,
		 struct inl_diag *diag)
{
	const struct inl_arg *arg = inl_spec_arg(spec, "device");

	stripe->child_len = UINT64_MAX;
	for (unsigned i = 0; i < stripe->n; i++, arg = arg->next) {
		uint64_t used = inl_dev_size(children[i]) >> stripe->chunk_bits << stripe->chunk_bits;

		if (!used)
			return inl_spec_error(diag, -EINVAL, arg->column, "%llu bytes: less than one chunk of %llu",
					      (unsigned long long)inl_dev_size(children[i]), 1ULL << stripe->chunk_bits);
		if (used < stripe->child_len)
			stripe->child_len = used;
	}
	if (stripe->child_len > UINT64_MAX / stripe->n)
		return inl_spec_error(diag, -EINVAL, spec->column, "more than 2^64 bytes together");
	return 0;
}

static int stripe_new(struct stripe *stripe, const struct inl_spec *spec, struct inl_dev *const *children,
		      struct inl_diag *diag, struct inl_dev **out)
{
	uint64_t chunk;
	char label[32];
	int err = set_chunk(stripe, spec, children, diag);

	if (!err)
		err = place(stripe, spec, children, diag);
	if (err)
		return err;
	chunk = UINT64_C(1) << stripe->chunk_bits;
	snprintf(label, sizeof(label), "chunk %llu", (unsigned long long)chunk);
	err = inl_stack_new(&ops, stripe, children, stripe->n, stripe->n * stripe->child_len,
			    stripe->n > 1 && chunk < INL_UNIT_SIZE_MAX ? (uint32_t)chunk : INL_UNIT_SIZE_MAX, label, out);
	return err ? inl_diag_set(diag, err, "stripe: cannot make the device") : 0;
}

int inl_stripe_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev *children[INL_DEV_MAX_CHILDREN];
	struct stripe *stripe = calloc(1, sizeof(*stripe));
	int err;

	if (!stripe)
		return inl_diag_set(diag, -ENOMEM, "out of memory");
	err = inl_spec_open_children(spec, "device", flags, diag, children, &stripe->n);
	if (err)
		goto fail;
	err = stripe_new(stripe, spec, children, diag, out);
	if (err)
		goto fail;
	return 0;
fail:
	inl_close_children(children, stripe->n);
	free(stripe);
	return err;
}
