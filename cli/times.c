/*
 * cli/times.c: how often something took how long, in memory of a fixed size.
 * Not here: reading the clock (cli/load.c).
 * Read more: cli/bench.h.
 */
#include "cli/bench.h"

#define SUB (1u << INL_TIMES_SUB_BITS)

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < SUB)
		return (unsigned)ns;
	shift = 63 - (unsigned)__builtin_clzll(ns) - INL_TIMES_SUB_BITS;
	return ((shift + 1) << INL_TIMES_SUB_BITS) + (unsigned)(ns >> shift & (SUB - 1));
}

/* The longest time that belongs there. */
static uint64_t last_of(unsigned bucket)
{
	unsigned shift = bucket >> INL_TIMES_SUB_BITS;

	if (!shift)
		return bucket;
	shift--;
	return ((uint64_t)(bucket & (SUB - 1)) + SUB + 1) * (UINT64_C(1) << shift) - 1;
}

void inl_times_add(struct inl_times *times, uint64_t ns)
{
	times->n++;
	times->sum += (double)ns;
	if (ns > times->max)
		times->max = ns;
	times->buckets[bucket_of(ns)]++;
}

void inl_times_merge(struct inl_times *into, const struct inl_times *from)
{
	into->n += from->n;
	into->sum += from->sum;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < INL_TIMES_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

uint64_t inl_times_at(const struct inl_times *times, double part)
{
	double wanted = part * (double)times->n;
	uint64_t seen = 0;

	if (!times->n)
		return 0;
	for (unsigned i = 0; i < INL_TIMES_BUCKETS; i++) {
		seen += times->buckets[i];
		if (seen && (double)seen >= wanted)
			return last_of(i) < times->max ? last_of(i) : times->max;
	}
	return times->max;
}
