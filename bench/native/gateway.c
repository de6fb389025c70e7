/* A load client for websocket servers: one thread, epoll, frames built before the clock starts.
 *
 *   drive   sends every frame of every connection and keeps all that comes back
 *
 * Closed loop: each connection keeps `in_flight` frames unanswered; a frame's time is from its send to its last answer.
 * Open loop: frame k of all is planned for start + k * interval, on the connections in turn, and sent as soon after as
 * may be; its time is from the plan, so that a stall is charged to everything behind it.
 *
 * What an answer is depends on the protocol: any frame (echo), a text frame that begins with {"rid": (JSON), a message of
 * type 1 or 3 (binary). Where each begins and ends is kept: what the answers say is judged afterwards, by others.
 * Sockets are connected and signed in; frames are masked with zero. 0 or a negative errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum { ECHO = 0, JSON = 1, BINARY = 2 };
enum { SLOT = 128, ACK = 1, TOLD = 2, REFUSAL = 3 };
static const char RID[] = "{\"rid\":";

typedef struct {
    int64_t fd;
    const uint8_t *out;  /* all frames, one behind another */
    const int64_t *ends; /* where each ends in `out` */
    int64_t frames;
    uint8_t *in; /* all that was received */
    int64_t room;
    int64_t *began; /* of each frame: when it was sent, or planned */
    int64_t *took;  /* ns until its last answer */
    int64_t *from, *to; /* of each answer: its place in `in` */
    /* what drive keeps */
    int64_t sent, answers, size, parsed;
} Connection;

static int put(Connection *c) {
    const uint8_t *at = c->out + (c->sent ? c->ends[c->sent - 1] : 0);
    int64_t left = c->out + c->ends[c->sent] - at;
    while (left) {
        ssize_t n = send((int)c->fd, at, (size_t)left, MSG_NOSIGNAL);
        if (n > 0) {
            at += n;
            left -= n;
        } else if (errno == EAGAIN) {
            struct pollfd room = {(int)c->fd, POLLOUT, 0};
            poll(&room, 1, -1);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    c->sent++;
    return 0;
}

/* One more answer stands at from … to. */
static inline int answered(Connection *c, int64_t per_frame, int64_t from, int64_t to, int64_t now) {
    int64_t frame = c->answers / per_frame;
    if (frame >= c->sent) return -EPROTO; /* nobody asked */
    c->from[c->answers] = from;
    c->to[c->answers] = to;
    if (++c->answers % per_frame == 0) c->took[frame] = now - c->began[frame];
    return 0;
}

/* Take every whole frame that has come. */
static int parse(Connection *c, int protocol, int64_t per_frame, int64_t now) {
    for (;;) {
        const uint8_t *p = c->in + c->parsed;
        int64_t have = c->size - c->parsed, head = 2, size;
        if (have < 2) return 0;
        size = p[1];
        if (size == 126) {
            if (have < 4) return 0;
            size = p[2] << 8 | p[3];
            head = 4;
        } else if (size >= 127) {
            return -EPROTO;
        }
        if (have < head + size) return 0;
        int64_t from = c->parsed + head, to = from + size;
        int error = 0;
        if (protocol == ECHO || (p[0] == 0x81 && size > 7 && !memcmp(p + head, RID, 7))) {
            error = answered(c, per_frame, from, to, now);
        } else if (p[0] == 0x82 && protocol == BINARY) {
            for (int64_t at = from; at < to && !error;) {
                const uint8_t *m = c->in + at;
                int64_t end = at + (m[0] == ACK ? 64 : m[0] == TOLD ? 8 : 32) + (int64_t)m[1] * SLOT;
                if (m[0] < ACK || m[0] > REFUSAL || end > to) return -EPROTO;
                if (m[0] != TOLD) error = answered(c, per_frame, at, end, now);
                at = end;
            }
        } else if (p[0] == 0x89) {
            /* a ping: the orders that follow tell that somebody is here */
        } else if (p[0] != 0x81 || protocol != JSON) {
            return -EPROTO; /* a close frame, or what no one speaks here */
        }
        if (error) return error;
        c->parsed = to;
    }
}

static int64_t loop(
    int epoll, Connection *all, int64_t count, int protocol, int64_t per_frame, int64_t in_flight, int64_t interval,
    int64_t patience_ns, int64_t *elapsed) {
    struct epoll_event ready[64];
    int64_t total = 0, open = 0, planned = 0;
    int error;
    for (int64_t i = 0; i < count; i++) total += all[i].frames;
    int64_t start = now_ns(), last = start;
    if (!interval)
        for (int64_t k = 0; k < in_flight; k++)
            for (int64_t i = 0; i < count; i++)
                if (all[i].sent < all[i].frames) {
                    all[i].began[all[i].sent] = now_ns();
                    if ((error = put(&all[i]))) return error;
                }
    for (open = count; open;) {
        struct timespec wait = {1, 0};
        int64_t now = now_ns();
        if (interval && planned < total) {
            for (; planned < total && start + planned * interval <= now; planned++) {
                Connection *c = &all[planned % count];
                c->began[c->sent] = start + planned * interval;
                if ((error = put(c))) return error;
            }
            now = now_ns();
            int64_t rest = planned < total ? start + planned * interval - now : 1000000000;
            wait.tv_sec = 0;
            wait.tv_nsec = rest < 0 ? 0 : rest < 999999999 ? rest : 999999999;
        }
        int n = epoll_pwait2(epoll, ready, 64, &wait, NULL);
        if (n < 0 && errno != EINTR) return -errno;
        now = now_ns();
        if (n > 0) last = now;
        else if (now - last > patience_ns) return -ETIMEDOUT;
        for (int e = 0; e < n; e++) {
            Connection *c = ready[e].data.ptr;
            if (c->size == c->room) return -ENOBUFS;
            ssize_t got = recv((int)c->fd, c->in + c->size, (size_t)(c->room - c->size), 0);
            if (got == 0) return -ECONNRESET;
            if (got < 0 && errno != EAGAIN && errno != EINTR) return -errno;
            if (got <= 0) continue;
            c->size += got;
            int64_t before = c->answers / per_frame;
            if ((error = parse(c, protocol, per_frame, now_ns()))) return error;
            int64_t whole = c->answers / per_frame;
            for (int64_t k = before; !interval && k < whole && c->sent < c->frames; k++) {
                c->began[c->sent] = now_ns();
                if ((error = put(c))) return error;
            }
            open -= before < c->frames && whole == c->frames;
        }
    }
    *elapsed = now_ns() - start;
    return 0;
}

int64_t drive(
    Connection *all, int64_t count, int64_t protocol, int64_t per_frame, int64_t in_flight, int64_t interval,
    int64_t patience_ns, int64_t *elapsed) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) return -errno;
    int64_t error = 0;
    prctl(PR_SET_TIMERSLACK, 1UL); /* else a sleep may end 50 us late */
    for (int64_t i = 0; i < count && !error; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, (int)all[i].fd, &event)) error = -errno;
    }
    if (!error) error = loop(epoll, all, count, (int)protocol, per_frame, in_flight, interval, patience_ns, elapsed);
    close(epoll);
    return error;
}
