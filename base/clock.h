/*
 * base/clock.h: waiting until a time of inl_now_ns.
 * Not here: the time itself (inlay/base.h).
 * Read more: clock_gettime(2), pthread_condattr_setclock(3).
 */
#ifndef INLAY_BASE_CLOCK_H
#define INLAY_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

static inline struct timespec inl_timespec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

/* For pthread_cond_timedwait until an inl_timespec_of(inl_now_ns() + ...): the wall clock may be set meanwhile. */
void inl_cond_init(pthread_cond_t *cond);

#endif
