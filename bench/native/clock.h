/* Time for the drivers: a clock, the CPU time of a thread, and a cycle counter that no instruction crosses. */
#ifndef BYLINE_BENCH_CLOCK_H
#define BYLINE_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* What this thread has had of a core. */
static inline int64_t cpu_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

#if defined(__x86_64__)
#include <x86intrin.h>

static inline uint64_t ticks_before(void) {
    _mm_lfence();
    uint64_t ticks = __rdtsc();
    _mm_lfence();
    return ticks;
}

static inline uint64_t ticks_after(void) {
    unsigned core;
    uint64_t ticks = __rdtscp(&core); /* waits for everything before it */
    _mm_lfence();
    return ticks;
}
#else
static inline uint64_t ticks_before(void) { return (uint64_t)now_ns(); }
static inline uint64_t ticks_after(void) { return (uint64_t)now_ns(); }
#endif
#endif
