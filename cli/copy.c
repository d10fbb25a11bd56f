/*
 * cli/copy.c: the contents of a regular file, holes kept, and what is left of a damaged one.
 * Not here: where the file stands and what belongs to it (cli/place.c, cli/meta.c).
 * Read more: doc/inlay.1, "EXPORT".
 */
#include "cli/get.h"
#include <errno.h>
#include <unistd.h>

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int write_at(struct inl_get *get, int fd, uint64_t offset, size_t len)
{
	const uint8_t *from = get->buf;

	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)offset);

		if (n < 0 && errno == EINTR && !inl_cli_interrupted())
			continue;
		if (n < 0)
			return inl_get_failed(get, INL_DESTINATION, -errno);
		from += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
		get->report.n_bytes += (uint64_t)n;
		get->n_good += (uint64_t)n;
	}
	get->written_end = offset;
	return 0;
}

/* Read exactly len bytes into the buffer. */
static int read_at(struct inl_get *get, struct inl_inode *inode, uint64_t offset, size_t len)
{
	size_t got = 0;
	int err;

	get->diag.err = 0;
	get->diag.text[0] = '\0';
	err = inl_read(inode, offset, get->buf, len, &got, &get->diag);
	if (!err && got < len)
		err = -EUCLEAN;
	return err ? inl_get_failed(get, INL_SOURCE, err) : 0;
}

static bool is_damage(int err)
{
	return err == -EIO || err == -EUCLEAN;
}

static void add_bad(struct inl_get *get, uint64_t offset, uint64_t len)
{
	struct inl_range *last = get->n_ranges ? &get->ranges[get->n_ranges - 1] : NULL;

	get->n_bad += len;
	if (last && last->offset + last->len == offset)
		last->len += len;
	else if (get->n_ranges < INL_RANGES_MAX)
		get->ranges[get->n_ranges++] = (struct inl_range){ offset, len };
}

/* Block by block: what cannot be read stays a hole. */
static int salvage(struct inl_get *get, struct inl_inode *inode, uint64_t offset, size_t len, int fd)
{
	while (len) {
		size_t n = (size_t)min_u64(len, get->block_size - offset % get->block_size);
		int err = read_at(get, inode, offset, n);

		if (!err)
			err = write_at(get, fd, offset, n);
		else if (is_damage(err))
			add_bad(get, offset, n), err = 0;
		if (err)
			return err;
		if (inl_cli_interrupted())
			return -EINTR;
		offset += n;
		len -= n;
	}
	return 0;
}

static int copy_run(struct inl_get *get, struct inl_inode *inode, uint64_t offset, uint64_t len, int fd)
{
	while (len) {
		size_t n = (size_t)min_u64(len, INL_GET_BUF_LEN);
		int err = read_at(get, inode, offset, n);

		if (!err)
			err = write_at(get, fd, offset, n);
		else if (is_damage(err) && get->keep_going)
			err = salvage(get, inode, offset, n, fd);
		if (err)
			return err;
		if (inl_cli_interrupted())
			return -EINTR;
		inl_report_progress(&get->report);
		offset += n;
		len -= n;
	}
	return 0;
}

static bool has_data(const struct inl_extent *extent)
{
	return extent->kind == INL_EXTENT_DATA || extent->kind == INL_EXTENT_INLINE;
}

static int extent_at(struct inl_get *get, struct inl_inode *inode, uint64_t offset, struct inl_extent *extent)
{
	int err;

	get->diag.err = 0;
	get->diag.text[0] = '\0';
	err = inl_inode_extent(inode, offset, extent, &get->diag);
	if (!err && !extent->len)
		err = -EUCLEAN;
	return err ? inl_get_failed(get, INL_SOURCE, err) : 0;
}

/* The run of data that begins with *extent, over its neighbours, as far as one buffer is worth it. */
static int gather(struct inl_get *get, struct inl_inode *inode, uint64_t size, struct inl_extent *extent)
{
	while (extent->len < INL_GET_BUF_LEN && extent->offset + extent->len < size) {
		struct inl_extent next;
		int err = extent_at(get, inode, extent->offset + extent->len, &next);

		if (err)
			return is_damage(err) ? 0 : err; /* the caller meets it again */
		if (!has_data(&next))
			return 0;
		extent->len += next.len;
	}
	return 0;
}

/*
 * How far to go on behind a place that the map does not know. A broken node of the map can cover any range: steps grow,
 * so that a file of terabytes comes to its end, at the price of at most 1/64 of what follows the damage.
 */
static uint64_t map_step(const struct inl_get *get, uint64_t offset, uint64_t bad_from)
{
	uint64_t step = (offset - bad_from) / 64 / get->block_size * get->block_size;

	return (step ? step : get->block_size) - offset % get->block_size;
}

int inl_get_copy(struct inl_get *get, struct inl_inode *inode, uint64_t size, int fd)
{
	uint64_t offset = 0, bad_from = UINT64_MAX;

	get->written_end = get->n_bad = get->n_good = 0;
	get->n_ranges = 0;
	while (offset < size) {
		struct inl_extent extent;
		int err = extent_at(get, inode, offset, &extent);

		if (is_damage(err) && get->keep_going) {
			bad_from = bad_from == UINT64_MAX ? offset : bad_from;
			extent.len = min_u64(map_step(get, offset, bad_from), size - offset);
			add_bad(get, offset, extent.len);
			offset += extent.len;
			if (inl_cli_interrupted())
				return -EINTR;
			continue;
		}
		bad_from = UINT64_MAX;
		if (!err && has_data(&extent)) {
			err = gather(get, inode, size, &extent);
			extent.len = min_u64(extent.len, size - offset);
			if (!err)
				err = copy_run(get, inode, offset, extent.len, fd);
		} else if (!err) {
			get->n_good += extent.len;
		}
		if (err)
			return err;
		offset += extent.len;
	}
	if (get->written_end < size && ftruncate(fd, (off_t)size))
		return inl_get_failed(get, INL_DESTINATION, -errno);
	return 0;
}
