/* Readers of market data, as light as they can be, and the broadcast that they are compared with.
 *
 *   fan_connect    opens connections to a server, shakes hands, sends each one's requests
 *   fan_read       one epoll loop: takes what comes, counts bytes and frames, and keeps a CRC32C of all of it
 *   fan_broadcast  the bare thing: one send of the same buffer to each socket
 *
 * What each reader has had stands in shared memory (struct reader), so that the server's side can wait for it. A CRC does
 * not depend on how the bytes were cut, so equal CRCs and lengths mean equal contents.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) uint32_t fan_crc(uint32_t crc, const uint8_t *data, int64_t size) {
    uint64_t wide = crc;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
        data += 8;
        size -= 8;
    }
    crc = (uint32_t)wide;
    while (size-- > 0) crc = _mm_crc32_u8(crc, *data++);
    return crc;
}
#else
uint32_t fan_crc(uint32_t crc, const uint8_t *data, int64_t size) {
    while (size-- > 0) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return crc;
}
#endif

enum { CONNECTING, UPGRADING, OPEN, ENDED };

struct reader { /* 64 bytes, shared */
    int64_t bytes;  /* since the last mark, without the answer to the upgrade */
    int64_t frames;
    uint32_t crc;
    int32_t state;
    int64_t ready_ns;    /* when the wanted number of frames was there */
    int64_t gap_ns_max;  /* longest time between two arrivals */
    int64_t last_ns;
    int64_t spare[2];
};

struct control { /* 64 bytes, shared; the readers follow */
    volatile int64_t stop;
    volatile int64_t mark;     /* counted up by the server's side: begin to count anew */
    volatile int64_t marked;   /* the last mark that was done */
    volatile int64_t open;     /* readers that have sent their requests */
    volatile int64_t ready;    /* readers that have had `wanted` frames */
    volatile int64_t started_ns;
    volatile int64_t ready_ns; /* when the last of them was */
    volatile int64_t failed;
};

struct own { /* of this process */
    int fd;
    int header_have;
    int64_t payload_left;
    uint8_t header[10];
    uint8_t tail[4]; /* the last bytes of the answer to the upgrade */
};

static int header_size(const uint8_t *header) {
    int size = header[1] & 127;
    return size < 126 ? 2 : size == 126 ? 4 : 10;
}

static void count_frames(struct reader *r, struct own *o, const uint8_t *data, int64_t size) {
    while (size > 0) {
        if (o->payload_left > 0) {
            int64_t step = size < o->payload_left ? size : o->payload_left;
            o->payload_left -= step;
            data += step;
            size -= step;
            if (o->payload_left == 0) r->frames++;
            continue;
        }
        o->header[o->header_have++] = *data++;
        size--;
        if (o->header_have < 2 || o->header_have < header_size(o->header)) continue;
        int64_t length = o->header[1] & 127;
        if (length == 126) length = o->header[2] << 8 | o->header[3];
        if ((o->header[1] & 127) == 127) {
            length = 0;
            for (int at = 2; at < 10; at++) length = length << 8 | o->header[at];
        }
        o->header_have = 0;
        o->payload_left = length;
        if (length == 0) r->frames++;
    }
}

static int begin(int epoll, struct own *o, int64_t number, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(o, 0, sizeof *o);
    o->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (o->fd < 0) return -1;
    if (connect(o->fd, (struct sockaddr *)&at, sizeof at) < 0 && errno != EINPROGRESS) return -1;
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = (uint64_t)number};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, o->fd, &event);
}

/* Connects readers first … first + count - 1 of `control`, at most `window` of them at once, and reads until told to
 * stop. `wanted`: so many frames make a reader ready. Returns 0, or the errno that ended it. */
int fan_read(struct control *control, int64_t count, int port, const char *upgrade, int64_t upgrade_size,
             const char *requests, int64_t requests_size, int64_t wanted, int64_t window) {
    static uint8_t buffer[1 << 18];
    struct reader *readers = (struct reader *)(control + 1);
    struct own *owns = calloc((size_t)count, sizeof *owns);
    struct epoll_event events[256];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int64_t begun = 0, upgraded = 0, mark = 0;
    if (!owns || epoll < 0) return errno;
    control->started_ns = now_ns();
    while (!control->stop) {
        while (begun < count && begun - upgraded < window) {
            if (begin(epoll, &owns[begun], begun, port)) { control->failed = errno; goto end; }
            begun++;
        }
        if (control->mark != mark) { /* everything is quiet now: the server's side has seen to that */
            for (int64_t i = 0; i < count; i++) {
                readers[i].bytes = readers[i].frames = readers[i].gap_ns_max = readers[i].last_ns = 0;
                readers[i].crc = 0;
            }
            mark = control->mark;
            control->marked = mark;
        }
        int found = epoll_wait(epoll, events, 256, 1);
        int64_t now = now_ns();
        for (int i = 0; i < found; i++) {
            int64_t number = (int64_t)events[i].data.u64;
            struct reader *r = &readers[number];
            struct own *o = &owns[number];
            if (r->state == CONNECTING) {
                int error = 0;
                socklen_t size = sizeof error;
                getsockopt(o->fd, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error || send(o->fd, upgrade, (size_t)upgrade_size, MSG_NOSIGNAL) != upgrade_size) {
                    control->failed = error ? error : EIO;
                    goto end;
                }
                struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)number};
                epoll_ctl(epoll, EPOLL_CTL_MOD, o->fd, &event);
                r->state = UPGRADING;
                continue;
            }
            ssize_t size = recv(o->fd, buffer, sizeof buffer, 0);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, o->fd, NULL);
                r->state = ENDED;
                control->failed = size < 0 ? errno : EPIPE;
                continue;
            }
            const uint8_t *data = buffer;
            if (r->state == UPGRADING) { /* skip to the empty line */
                while (size > 0 && memcmp(o->tail, "\r\n\r\n", 4)) {
                    memmove(o->tail, o->tail + 1, 3);
                    o->tail[3] = *data++;
                    size--;
                }
                if (memcmp(o->tail, "\r\n\r\n", 4)) continue;
                if (send(o->fd, requests, (size_t)requests_size, MSG_NOSIGNAL) != requests_size) {
                    control->failed = EIO;
                    goto end;
                }
                r->state = OPEN;
                upgraded++;
                control->open++;
                if (size == 0) continue;
            }
            r->crc = fan_crc(r->crc, data, size);
            count_frames(r, o, data, size);
            if (r->last_ns && now - r->last_ns > r->gap_ns_max) r->gap_ns_max = now - r->last_ns;
            r->last_ns = now;
            __atomic_store_n(&r->bytes, r->bytes + size, __ATOMIC_RELEASE);
            if (!r->ready_ns && r->frames >= wanted) {
                r->ready_ns = now;
                control->ready_ns = now;
                control->ready++;
            }
        }
    }
end:
    for (int64_t i = 0; i < begun; i++) close(owns[i].fd);
    close(epoll);
    free(owns);
    return (int)control->failed;
}

/* One send of the same bytes to each socket. Returns how many did not take all of it. */
int fan_broadcast(const int *sockets, int64_t count, const char *data, int64_t size) {
    int behind = 0;
    for (int64_t i = 0; i < count; i++) behind += send(sockets[i], data, (size_t)size, MSG_NOSIGNAL) != size;
    return behind;
}
