/* Work of a helper that must not be in the loop's way: zeros for files that will be needed, maps touched ahead.
 *
 *   byline_aside      a thread of its own for one piece of work; the caller waits for it without the interpreter
 *   byline_zeros      zeros written to a file, at a pace
 *   byline_touch      a map whose later stores neither fault nor find the disk full
 *
 * Fresh memory is dear: on a virtual machine a megabyte of it can cost three milliseconds, and a helper that has the
 * loop's CPU for so long, or is preempted while it holds the interpreter, holds up every order. So the work runs on the
 * CPUs that its caller is not bound to, and without the interpreter. It has the usual share of them: with a low
 * priority it never ends on a full machine, and then orders wait for it. But whoever wakes up there (market data, a
 * client, the journal's writer) goes first until the work is late: byline_go_last, and pieces so small that a kernel
 * which does not preempt itself is left after a tenth of a millisecond.
 */
#ifndef BYLINE_ASIDE_H
#define BYLINE_ASIDE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BYLINE_ZEROS (64 << 10)      /* bytes of a piece */
#define BYLINE_ZEROS_SYNCED (1 << 20) /* of what is synced at once where it presses */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

typedef struct {
    int (*work)(void *argument);
    void *argument;
    cpu_set_t cpus;
    int has_cpus, result;
} byline_aside_work;

/* This thread keeps its share of the CPU, but goes last: it preempts nobody, and whoever wakes up with an ordinary slice
 * preempts it (EEVDF, Linux 6.12; an older kernel takes the first half of it). Needs no privilege; only advice. With
 * `is_late` it is like any other again. */
static void byline_go_last(int is_late) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wanted = {.size = sizeof wanted, .policy = is_late ? SCHED_OTHER : SCHED_BATCH, .runtime = is_late ? 0 : 10000000};
    int is = sched_getscheduler(0);
    if (is != SCHED_OTHER && is != SCHED_BATCH) return; /* somebody has chosen already */
    wanted.nice = getpriority(PRIO_PROCESS, 0);
    (void)syscall(SYS_sched_setattr, 0, &wanted, 0);
}

static void *byline_aside_run(void *argument) {
    byline_aside_work *w = (byline_aside_work *)argument;
    if (w->has_cpus) sched_setaffinity(0, sizeof w->cpus, &w->cpus);
    byline_go_last(0);
    w->result = w->work(w->argument);
    return NULL;
}

/* Do `work` on a thread aside and wait for it: what it returned. Without memory for a thread it is done here. */
static int byline_aside(int (*work)(void *), void *argument) {
    byline_aside_work w = {.work = work, .argument = argument};
    cpu_set_t mine;
    pthread_t thread;
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    CPU_ZERO(&w.cpus);
    if (!sched_getaffinity(0, sizeof mine, &mine))
        for (int cpu = 0; cpu < count && cpu < CPU_SETSIZE; cpu++)
            if (!CPU_ISSET(cpu, &mine)) {
                CPU_SET(cpu, &w.cpus);
                w.has_cpus = 1;
            }
    if (pthread_create(&thread, NULL, byline_aside_run, &w)) return work(argument);
    pthread_join(thread, NULL);
    return w.result;
}

/* ---------------------------------------------------------------- the pieces of work */

typedef struct {
    int file;
    uint64_t size;
    int is_synced;                                  /* else the page cache is all it has to reach */
    uint64_t bytes_per_second;                      /* 0: no pauses, and late if it is synced: somebody waits */
    /* 1: go on without a pause; 2: it is late; -1: nobody wants it any more. */
    int (*is_due)(void *context, uint64_t written);
    void *context;
} byline_zeros_work;

#define BYLINE_ZEROS_LOOK_NS 5000000ULL

/* Zeros from the start of the file to `size`: 0 or an errno. At a pace each piece is synced for itself, so that nobody
 * waits long for the disk. What is written in such pieces is also mapped in such pieces, and touched four times as fast
 * as page by page. */
static int byline_zeros(void *argument) {
    static const uint8_t zeros[BYLINE_ZEROS];
    byline_zeros_work *w = (byline_zeros_work *)argument;
    int is_late = 0, is_due = w->bytes_per_second ? w->is_due(w->context, 0) : w->is_synced ? 2 : 1;
    for (uint64_t at = 0; at < w->size;) {
        if (is_due < 0) return ECANCELED;
        if ((is_due == 2) != is_late) byline_go_last(is_late = !is_late);
        size_t part = w->size - at < BYLINE_ZEROS ? (size_t)(w->size - at) : BYLINE_ZEROS;
        ssize_t n = pwrite(w->file, zeros, part, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n ? errno : EIO;
        at += (uint64_t)n;
        if (at == w->size || !w->bytes_per_second || (is_due && at % BYLINE_ZEROS_SYNCED)) continue;
        if (fdatasync(w->file)) return errno;
        uint64_t left = (uint64_t)n * 1000000000ULL / w->bytes_per_second;
        while (!(is_due = w->is_due(w->context, at)) && left) {
            uint64_t pause = left < BYLINE_ZEROS_LOOK_NS ? left : BYLINE_ZEROS_LOOK_NS;
            struct timespec time = {0, (long)pause};
            nanosleep(&time, NULL);
            left -= pause;
        }
    }
    return w->is_synced && fdatasync(w->file) ? errno : 0;
}

typedef struct {
    void *base;
    uint64_t size;
} byline_touch_work;

/* 0 or an errno. A kernel that knows no way to do it faults on first touch instead. */
static inline int byline_touch(void *argument) {
    byline_touch_work *t = (byline_touch_work *)argument;
    return madvise(t->base, t->size, MADV_POPULATE_WRITE) && errno != EINVAL ? errno : 0;
}

#endif
