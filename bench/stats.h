/*
 * bench/stats.h: the median of some measurements.
 * Not here: measuring them; medians over whole runs of programs (bench/run.py).
 * Read more: HACKING.md, "Speed".
 */
#ifndef INLAY_BENCH_STATS_H
#define INLAY_BENCH_STATS_H

#include <stdlib.h>

static inline int stats_by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts them. n is odd. */
static inline double stats_median(double *values, size_t n)
{
	qsort(values, n, sizeof(double), stats_by_value);
	return values[n / 2];
}

#endif
