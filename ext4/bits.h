/*
 * ext4/bits.h: bitmaps as they lie on the medium: bit i is bit i % 8 of byte i / 8. A word at a time.
 * Not here: what the bits mean (group.c), where to look (place.c).
 * Read more: nothing else.
 *
 * Bitmaps are whole multiples of 8 bytes long, so that a word may be read wherever a bit may.
 */
#ifndef INLAY_EXT4_BITS_H
#define INLAY_EXT4_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool inl_bits_test(const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

/* Make [first, first + n) all set, or all clear. */
void inl_bits_fill(uint8_t *bits, uint32_t first, uint32_t n, bool set);

/* Are they all set, or all clear? */
bool inl_bits_all(const uint8_t *bits, uint32_t first, uint32_t n, bool set);

/* How many of the first n are clear. */
uint32_t inl_bits_n_clear(const uint8_t *bits, uint32_t n);

/*
 * What can be had of a group: a bit that is clear in both bitmaps.
 *
 *   also   NULL: all clear
 *   n      bits
 */
struct inl_bits_view {
	const uint8_t *bits, *also;
	uint32_t n;
};

/* The first bit at or behind `from` that is clear in both, or is set in one. view->n: none. */
uint32_t inl_bits_next_clear(const struct inl_bits_view *view, uint32_t from);
uint32_t inl_bits_next_set(const struct inl_bits_view *view, uint32_t from);

#endif
