/*
 * ext4/bits.c: bitmaps, a word at a time.
 * Not here: what the bits mean (group.c), where to look (place.c).
 * Read more: ext4/bits.h.
 */
#include "ext4/bits.h"
#include "base/endian.h"

#define WORD 64u

/* Bits [lo, hi) of a word; 0 <= lo < hi <= 64. */
static uint64_t mask_of(uint32_t lo, uint32_t hi)
{
	return ~0ull >> (WORD - (hi - lo)) << lo;
}

void inl_bits_fill(uint8_t *bits, uint32_t first, uint32_t n, bool set)
{
	uint32_t end = first + n;

	while (first < end) {
		uint32_t base = first - first % WORD, stop = end - base < WORD ? end - base : WORD;
		uint64_t mask = mask_of(first - base, stop), word = inl_load_le64(bits + base / 8);

		inl_store_le64(bits + base / 8, set ? word | mask : word & ~mask);
		first = base + stop;
	}
}

bool inl_bits_all(const uint8_t *bits, uint32_t first, uint32_t n, bool set)
{
	uint32_t end = first + n;

	while (first < end) {
		uint32_t base = first - first % WORD, stop = end - base < WORD ? end - base : WORD;
		uint64_t mask = mask_of(first - base, stop), word = inl_load_le64(bits + base / 8);

		if ((word & mask) != (set ? mask : 0))
			return false;
		first = base + stop;
	}
	return true;
}

uint32_t inl_bits_n_clear(const uint8_t *bits, uint32_t n)
{
	uint32_t n_set = 0;

	for (uint32_t base = 0; base < n; base += WORD) {
		uint64_t mask = mask_of(0, n - base < WORD ? n - base : WORD);

		n_set += (uint32_t)__builtin_popcountll(inl_load_le64(bits + base / 8) & mask);
	}
	return n - n_set;
}

/* The first bit whose combination of both bitmaps, turned over by flip, is set. */
static uint32_t next(const struct inl_bits_view *view, uint32_t from, uint64_t flip)
{
	for (uint32_t base = from - from % WORD; from < view->n; base += WORD, from = base) {
		uint64_t word = inl_load_le64(view->bits + base / 8);

		if (view->also)
			word |= inl_load_le64(view->also + base / 8);
		word = (word ^ flip) & ~0ull << (from - base);
		if (word) {
			uint32_t at = base + (uint32_t)__builtin_ctzll(word);

			return at < view->n ? at : view->n;
		}
	}
	return view->n;
}

uint32_t inl_bits_next_clear(const struct inl_bits_view *view, uint32_t from)
{
	return next(view, from, ~0ull);
}

uint32_t inl_bits_next_set(const struct inl_bits_view *view, uint32_t from)
{
	return next(view, from, 0);
}
