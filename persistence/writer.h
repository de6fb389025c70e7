/* Ring and writer of the journal, in C so that neither ever needs the interpreter.
 *
 *   appender (one thread)      ring of 128-byte slots          writer (one thread, or step() called by hand)
 *   append → head    ───────▶  [tail … published … head)  ───▶ one write (two at the wrap), one sync, durable
 *   publish → published
 *
 * Positions count slots since the start and never wrap. A *group* is what one step writes and syncs; its first record
 * carries its CRC xor BYLINE_GROUP_MARK. As a group is written only after the one before it is on disk, a marked
 * record proves everything before it durable: that is how recovery tells a torn write from damage. A group never
 * spans two segments. A failed write or sync is final; sync is never tried again.
 *
 * Worst case: the disk stalls, the ring fills (room falls, append answers 1), nothing is overwritten or lost.
 */
#ifndef BYLINE_WRITER_H
#define BYLINE_WRITER_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "persistence/crc32c.h"

#define BYLINE_SLOT 128
#define BYLINE_HEADER 4096 /* bytes before the first slot of a segment */
#define BYLINE_FORGET (1 << 20)
#define BYLINE_GROUP_MARK 0x47524f55U

enum { BYLINE_STEP_IDLE = 0, BYLINE_STEP_WROTE = 1, BYLINE_STEP_NEEDS_SEGMENT = 2, BYLINE_STEP_FAILED = 3 };

/* What a step needs of a disk. `write` and `sync` answer a negative errno on failure; `write` may write less than
 * asked. `forget` (NULL: a disk without a cache) is advice: what stands there is synced and not read again soon. */
typedef struct {
    void *context;
    int64_t (*write)(void *context, int64_t file, const uint8_t *data, size_t size, int64_t offset);
    int (*sync)(void *context, int64_t file);
    void (*forget)(void *context, int64_t file, int64_t from, int64_t to);
} byline_disk;

typedef struct {
    /* constant */
    uint8_t *ring;
    uint64_t *ends; /* two words a ring slot: sequence and chain word of the record that ends there */
    uint64_t ring_slots;   /* a power of two */
    uint64_t pace_ns;      /* 0: groups back to back */
    byline_disk disk;
    int wakeup_fd, keeper_fd;
    volatile uint64_t *mark; /* durable sequence in a mapped page, or NULL */
    uint8_t pad0[64];
    /* appender */
    uint64_t head, chain, sequence;
    uint8_t pad1[64];
    /* both */
    uint64_t published;
    int idle, stop;
    uint8_t pad2[64];
    uint64_t tail, durable;
    uint64_t durable_at; /* ns since 1970: when `durable` was on disk; stored before it */
    uint64_t limit; /* position up to which prepared file space exists */
    int failed;
    uint32_t segment_epoch; /* futex: changes with every segment set */
    uint8_t pad3[64];
    /* writer */
    int64_t file;
    uint64_t segment_slots, segment_used, written_chain;
    int64_t forgotten; /* offset in the file up to which its cache was given back */
    uint64_t groups;
    byline_sha256 sha;
    pthread_t thread;
    int started;
    cpu_set_t cpus;
    int has_cpus;
    int is_hurried; /* 1: the next segment is wanted now; -1: it is not wanted any more */
} byline_journal;

static inline uint64_t byline_get(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void byline_set(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static uint64_t byline_wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void byline_futex_wait(void *address, uint32_t value) {
    syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void byline_futex_wake(void *address) { syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

static void byline_signal(int fd) {
    uint64_t one = 1;
    /* EAGAIN means the counter is full: the reader has a wake-up waiting in any case. */
    if (fd >= 0 && write(fd, &one, 8) < 0 && errno == EINTR) byline_signal(fd);
}

static int64_t byline_real_write(void *context, int64_t file, const uint8_t *data, size_t size, int64_t offset) {
    (void)context;
    ssize_t n = pwrite((int)file, data, size, offset);
    return n < 0 ? -(int64_t)errno : n;
}

static int byline_real_sync(void *context, int64_t file) {
    (void)context;
    return fdatasync((int)file) < 0 ? -errno : 0;
}

static void byline_real_forget(void *context, int64_t file, int64_t from, int64_t to) {
    (void)context;
    (void)posix_fadvise((int)file, from, to - from, POSIX_FADV_DONTNEED);
}

static void byline_journal_fail(byline_journal *j, int error) {
    int none = 0;
    __atomic_compare_exchange_n(&j->failed, &none, error, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    byline_signal(j->wakeup_fd);
}

static inline int byline_journal_failed(byline_journal *j) { return __atomic_load_n(&j->failed, __ATOMIC_ACQUIRE); }

/* ---------------------------------------------------------------- appender */

static inline uint32_t byline_journal_room(byline_journal *j) {
    uint64_t ring = j->ring_slots - (j->head - byline_get(&j->tail));
    uint64_t limit = byline_get(&j->limit);
    uint64_t file = limit > j->head ? limit - j->head : 0;
    return (uint32_t)(ring < file ? ring : file);
}

static inline int byline_journal_append(byline_journal *j, uint8_t *record, uint32_t slots, uint64_t *chain) {
    uint64_t sequence = byline_load64(record + 8);
    if (__builtin_expect(byline_journal_failed(j) != 0, 0)) return 2;
    if (__builtin_expect(slots == 0 || slots > 255 || record[5] != slots || sequence != j->sequence + 1, 0)) {
        byline_journal_fail(j, EINVAL); /* a bug of the caller: nothing after it could be trusted */
        return 2;
    }
    if (__builtin_expect(j->ring_slots - (j->head - byline_get(&j->tail)) < slots, 0)) return 1;
    uint64_t word = byline_chain(j->chain, record, slots);
    memcpy(record + 24, &word, 8);
    uint32_t crc = byline_crc32c(0, record + 4, (size_t)slots * BYLINE_SLOT - 4);
    memcpy(record, &crc, 4);
    uint64_t mask = j->ring_slots - 1, at = j->head;
    for (uint32_t i = 0; i < slots; i++, at++)
        memcpy(j->ring + (at & mask) * BYLINE_SLOT, record + (size_t)i * BYLINE_SLOT, BYLINE_SLOT);
    j->ends[((at - 1) & mask) * 2] = sequence;
    j->ends[((at - 1) & mask) * 2 + 1] = word;
    j->head = at;
    j->chain = word;
    j->sequence = sequence;
    *chain = word;
    return 0;
}

/* Returns 1 if the writer slept and was woken. The fence pairs with the one in the thread: either it sees our
 * `published`, or we see its `idle`. */
static inline int byline_journal_publish(byline_journal *j) {
    if (j->published == j->head) return 0;
    byline_set(&j->published, j->head);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&j->idle, __ATOMIC_RELAXED)) return 0;
    __atomic_store_n(&j->idle, 0, __ATOMIC_RELAXED);
    byline_futex_wake(&j->idle);
    return 1;
}

/* ---------------------------------------------------------------- writer */

static int byline_write_all(byline_journal *j, const uint8_t *data, size_t size, int64_t offset) {
    while (size) {
        int64_t n = j->disk.write(j->disk.context, j->file, data, size, offset);
        if (n == -EINTR) continue;
        if (n <= 0 || (uint64_t)n > size) return n < 0 ? (int)-n : EIO;
        data += n; offset += n; size -= (size_t)n;
    }
    return 0;
}

/* Whole megabytes of records that are on disk leave the page cache: nobody reads them before the next start, and the
 * zeros of the next segment get their memory. Fresh memory is dear (aside.h): zeros took twenty times as long in it. */
static void byline_journal_forget(byline_journal *j) {
    int64_t whole = (BYLINE_HEADER + (int64_t)(j->segment_used * BYLINE_SLOT)) / BYLINE_FORGET * BYLINE_FORGET;
    if (!j->disk.forget || whole <= j->forgotten) return;
    j->disk.forget(j->disk.context, j->file, j->forgotten, whole);
    j->forgotten = whole;
}

/* One group: write, sync, tell. */
static int byline_journal_step(byline_journal *j) {
    if (byline_journal_failed(j)) return BYLINE_STEP_FAILED;
    uint64_t mask = j->ring_slots - 1, tail = j->tail, count = byline_get(&j->published) - tail;
    if (!count) return BYLINE_STEP_IDLE;
    uint64_t left = j->segment_slots - j->segment_used;
    if (count > left) { /* whole records that still fit */
        uint64_t fits = 0;
        for (;;) {
            uint64_t slots = j->ring[((tail + fits) & mask) * BYLINE_SLOT + 5];
            if (fits + slots > left) break;
            fits += slots;
        }
        if (!fits) return BYLINE_STEP_NEEDS_SEGMENT;
        count = fits;
    }
    uint8_t *first = j->ring + (tail & mask) * BYLINE_SLOT;
    uint32_t crc = byline_load32(first) ^ BYLINE_GROUP_MARK;
    memcpy(first, &crc, 4);
    uint64_t to_wrap = j->ring_slots - (tail & mask), part = count < to_wrap ? count : to_wrap;
    int64_t offset = BYLINE_HEADER + (int64_t)(j->segment_used * BYLINE_SLOT);
    int error = byline_write_all(j, first, part * BYLINE_SLOT, offset);
    if (!error && count > part)
        error = byline_write_all(j, j->ring, (count - part) * BYLINE_SLOT, offset + (int64_t)(part * BYLINE_SLOT));
    if (!error) error = -j->disk.sync(j->disk.context, j->file);
    if (error) {
        byline_journal_fail(j, error);
        return BYLINE_STEP_FAILED;
    }
    uint64_t sequence = j->ends[((tail + count - 1) & mask) * 2];
    if (j->mark) *j->mark = sequence; /* first: who was told that it is durable finds it in the files too */
    byline_set(&j->durable_at, byline_wall_ns());
    byline_set(&j->durable, sequence);
    byline_signal(j->wakeup_fd);
    byline_sha256_update(&j->sha, first, part * BYLINE_SLOT);
    if (count > part) byline_sha256_update(&j->sha, j->ring, (count - part) * BYLINE_SLOT);
    j->segment_used += count;
    j->written_chain = j->ends[((tail + count - 1) & mask) * 2 + 1];
    j->groups++;
    byline_set(&j->tail, tail + count);
    byline_journal_forget(j);
    return BYLINE_STEP_WROTE;
}

/* Whether the next segment, of which so many bytes are written, is wanted sooner than at its slow pace: it is always made
 * twice as far as the current one is used, and late where it is less far. 2: late, 1: sooner, 0, or
 * -1: it is not wanted at all. Any thread. */
static int byline_journal_presses(void *context, uint64_t written) {
    byline_journal *j = (byline_journal *)context;
    int hurry = __atomic_load_n(&j->is_hurried, __ATOMIC_RELAXED);
    uint64_t used = byline_get(&j->segment_used), made = written / BYLINE_SLOT;
    if (hurry) return hurry > 0 ? 2 : -1;
    return made < used ? 2 : made < 2 * used;
}

/* Only while the writer is stopped or waits for a segment. */
static void byline_journal_set_segment(byline_journal *j, int64_t file, uint64_t slots, uint64_t used) {
    j->file = file;
    j->segment_slots = slots;
    j->segment_used = used;
    j->forgotten = 0;
    byline_sha256_start(&j->sha);
    __atomic_add_fetch(&j->segment_epoch, 1, __ATOMIC_RELEASE);
    byline_futex_wake(&j->segment_epoch);
}

static void *byline_journal_run(void *argument) {
    byline_journal *j = (byline_journal *)argument;
    if (j->has_cpus) sched_setaffinity(0, sizeof j->cpus, &j->cpus);
    uint32_t asked = __atomic_load_n(&j->segment_epoch, __ATOMIC_ACQUIRE) - 1;
    for (;;) {
        uint32_t epoch = __atomic_load_n(&j->segment_epoch, __ATOMIC_ACQUIRE);
        int stop = __atomic_load_n(&j->stop, __ATOMIC_ACQUIRE);
        int result = byline_journal_step(j);
        if (result == BYLINE_STEP_FAILED || (stop && result == BYLINE_STEP_IDLE) || stop > 1) break;
        if (result == BYLINE_STEP_NEEDS_SEGMENT) {
            /* Asked once a segment: woken for another reason, a second word would make the keeper take a file too many. */
            if (asked != epoch) byline_signal(j->keeper_fd);
            asked = epoch;
            byline_futex_wait(&j->segment_epoch, epoch);
        } else if (result == BYLINE_STEP_WROTE && j->pace_ns && !stop) {
            struct timespec pause = {0, (long)j->pace_ns};
            nanosleep(&pause, NULL);
        } else if (result == BYLINE_STEP_IDLE) {
            __atomic_store_n(&j->idle, 1, __ATOMIC_RELAXED);
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (byline_get(&j->published) == j->tail && !__atomic_load_n(&j->stop, __ATOMIC_ACQUIRE))
                byline_futex_wait(&j->idle, 1);
            __atomic_store_n(&j->idle, 0, __ATOMIC_RELAXED);
            if (j->pace_ns && !__atomic_load_n(&j->stop, __ATOMIC_ACQUIRE)) {
                struct timespec pause = {0, (long)j->pace_ns};
                nanosleep(&pause, NULL);
            }
        }
    }
    return NULL;
}

static int byline_journal_start(byline_journal *j) {
    int error = pthread_create(&j->thread, NULL, byline_journal_run, j);
    j->started = !error;
    return error;
}

/* stop 1: what is published is still written. stop 2: the thread ends at once. */
static void byline_journal_stop(byline_journal *j, int stop) {
    if (!j->started) return;
    __atomic_store_n(&j->stop, stop, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&j->idle, 0, __ATOMIC_RELAXED);
    byline_futex_wake(&j->idle);
    __atomic_add_fetch(&j->segment_epoch, stop > 1, __ATOMIC_RELEASE);
    byline_futex_wake(&j->segment_epoch);
    pthread_join(j->thread, NULL);
    j->started = 0;
}

/* ---------------------------------------------------------------- reading */

/* 0: no valid record here. 1: valid. 2: valid and the first of its group. `left` in slots. */
static inline int byline_record_check(const uint8_t *record, uint64_t left) {
    uint32_t slots = record[5];
    if (!slots || slots > left || !record[4]) return 0;
    uint32_t crc = byline_crc32c(0, record + 4, (size_t)slots * BYLINE_SLOT - 4), stored = byline_load32(record);
    return stored == crc ? 1 : stored == (crc ^ BYLINE_GROUP_MARK) ? 2 : 0;
}

/* Checks records from slot *at to `end`, at most `limit` of them, moving *at, *sequence and *chain along.
 * 0: all good (or the limit). 1: checksum. 2: sequence. 3: chain. The failing record is at *at. */
static int byline_scan(const uint8_t *data, uint64_t *at, uint64_t end, uint64_t limit, uint64_t *sequence,
                       uint64_t *chain) {
    while (*at < end && limit--) {
        const uint8_t *record = data + *at * BYLINE_SLOT;
        if (!byline_record_check(record, end - *at)) return 1;
        if (byline_load64(record + 8) != *sequence + 1) return 2;
        uint64_t word = byline_chain(*chain, record, record[5]);
        if (byline_load64(record + 24) != word) return 3;
        *chain = word;
        *sequence += 1;
        *at += record[5];
    }
    return 0;
}

/* The first slot in [at, end) that looks like a record of `kind` (2: first of a group, 1: any) with a sequence later
 * than `after`; `end` if there is none. */
static uint64_t byline_find_record(const uint8_t *data, uint64_t at, uint64_t end, int kind, uint64_t after) {
    for (; at < end; at++) {
        const uint8_t *record = data + at * BYLINE_SLOT;
        if (byline_record_check(record, end - at) >= kind && byline_load64(record + 8) > after) return at;
    }
    return end;
}

#endif
