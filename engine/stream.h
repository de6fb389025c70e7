/* Bytes on their way out, hashed as they pass: into a file, or into memory that grows.
 *
 *   stream_put … ─▶ buffer ─▶ SHA-256 ─▶ pwrite
 *
 * Everything here is system calls and plain memory: no heap, no lock, no Python. A forked child of a process with
 * threads may call it. The first error stays in `error`, and what follows it is dropped.
 */
#ifndef BYLINE_STREAM_H
#define BYLINE_STREAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/arithmetic.h"
#include "engine/sha256.h"

#define STREAM_BUFFER ((size_t)1 << 20)
#define STREAM_UNWRITTEN ((uint64_t)8 << 20) /* bytes that may wait in the page cache: a journal shares the disk */

typedef struct {
    uint8_t *buffer;
    size_t used, capacity;
    uint64_t offset; /* of the buffer's first byte in the file */
    uint64_t begin;  /* where the stream began in the file */
    int descriptor;  /* -1: all stays in the buffer, which grows */
    int error;       /* errno, or 0 */
    Sha256 sha;
} Stream;

/* `descriptor` -1 keeps the bytes in memory. Returns 0 or errno. */
static inline int stream_open(Stream *stream, int descriptor, uint64_t offset) {
    memset(stream, 0, sizeof *stream);
    stream->descriptor = descriptor;
    stream->offset = stream->begin = offset;
    stream->capacity = STREAM_BUFFER;
    stream->buffer = (uint8_t *)region_map(stream->capacity);
    if (!stream->buffer) stream->error = ENOMEM;
    sha256_start(&stream->sha);
    return stream->error;
}

static inline void stream_close(Stream *stream) {
    region_unmap(stream->buffer, stream->capacity);
    stream->buffer = NULL;
}

static inline void stream_write_out(Stream *stream, const uint8_t *data, size_t size) {
    while (size && !stream->error) {
        ssize_t written = pwrite(stream->descriptor, data, size, (off_t)stream->offset);
        if (written < 0) {
            if (errno != EINTR) stream->error = errno;
            continue;
        }
        data += written;
        size -= (size_t)written;
        stream->offset += (uint64_t)written;
    }
#ifdef SYNC_FILE_RANGE_WRITE
    /* Only pace: whatever it answers, the fdatasync at the end is what counts. */
    uint64_t from = stream->offset - stream->begin > STREAM_UNWRITTEN ? stream->offset - STREAM_UNWRITTEN : 0;
    sync_file_range(stream->descriptor, (off_t)from, 0, SYNC_FILE_RANGE_WRITE);
    if (from)
        sync_file_range(stream->descriptor, (off_t)stream->begin, (off_t)(from - stream->begin),
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
#endif
}

static inline void stream_make_room(Stream *stream) {
    if (stream->descriptor >= 0) {
        sha256_add(&stream->sha, stream->buffer, stream->used);
        stream_write_out(stream, stream->buffer, stream->used);
        stream->used = 0;
        return;
    }
    void *moved = mremap(stream->buffer, stream->capacity, 2 * stream->capacity, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) {
        stream->error = ENOMEM;
        return;
    }
    stream->buffer = (uint8_t *)moved;
    stream->capacity *= 2;
}

static inline void stream_put(Stream *stream, const void *data, size_t size) {
    const uint8_t *at = (const uint8_t *)data;
    while (size && !stream->error) {
        size_t room = stream->capacity - stream->used, part = size < room ? size : room;
        memcpy(stream->buffer + stream->used, at, part);
        stream->used += part;
        at += part;
        size -= part;
        if (size) stream_make_room(stream);
    }
}

static inline void stream_number(Stream *stream, uint64_t value) { stream_put(stream, &value, sizeof value); }

/* The SHA-256 of everything put so far goes behind it; a file gets all that still waits. Returns 0 or errno. */
static inline int stream_finish(Stream *stream) {
    uint8_t digest[32];
    if (stream->error) return stream->error;
    sha256_add(&stream->sha, stream->buffer, stream->used);
    sha256_end(&stream->sha, digest);
    if (stream->descriptor >= 0) {
        stream_write_out(stream, stream->buffer, stream->used);
        stream_write_out(stream, digest, sizeof digest);
    } else {
        stream_put(stream, digest, sizeof digest);
    }
    return stream->error;
}

/* Items by ascending key, eight bits at a time; `spare` has room for as many. Every item ends in `items`. */
static inline void sort_by_key(SortItem *items, SortItem *spare, size_t count) {
    SortItem *from = items, *to = spare;
    for (int shift = 0; shift < 64; shift += 8) {
        size_t first[256] = {0}, total = 0, most = 0;
        for (size_t i = 0; i < count; i++) first[from[i].key >> shift & 255]++;
        for (int digit = 0; digit < 256; digit++) {
            size_t here = first[digit];
            first[digit] = total;
            total += here;
            if (here > most) most = here;
        }
        if (most == count) continue; /* all have the same digit here */
        for (size_t i = 0; i < count; i++) to[first[from[i].key >> shift & 255]++] = from[i];
        SortItem *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != items) memcpy(items, from, count * sizeof *items);
}

#endif
