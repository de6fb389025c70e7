/* A harness in C on the C door (engine/core.h), and the measure of what "native" is in our benches.
 *
 *   collect   all records in batches, every event kept: for tests
 *   play      all records in batches; what a consumer of the events would count is counted from the events
 *   bare      all records in batches, the events read by nobody
 *   singles   the same, one `apply` a record: no look-ahead
 *   ticks     one `apply` a record between two readings of the cycle counter
 *   timer     the same readings with nothing between them
 *
 * It knows the door alone. Every function returns 0 or what is said beside it, or the negative number with which the door refused.
 */
#include "clock.h"
#include "engine/core.h"

typedef struct {
    uint64_t trades, volume, refused;
    int64_t notional, ns; /* CPU time of this thread: the loop never waits, and other work does not count */
} Totals;

static inline void count(const BylineEvent *events, int64_t used, Totals *totals) {
    for (int64_t i = 0; i < used; i += events[i].head.slots) {
        uint8_t kind = events[i].head.kind;
        if (kind == BYLINE_TRADE) {
            const BylineTrade *trade = (const BylineTrade *)&events[i];
            totals->trades++;
            totals->volume += (uint64_t)trade->size;
            totals->notional += trade->notional;
        } else if (kind == BYLINE_REJECTED || kind == BYLINE_DUPLICATE) {
            totals->refused++;
        }
    }
}

/* The event slots written. */
int64_t collect(
    const BylineCorePort *core, const BylineRecord *records, int64_t from, int64_t to, int64_t batch, BylineEvent *events,
    int64_t event_slots) {
    int64_t at = from, kept = 0;
    while (at < to) {
        int64_t end = at + batch < to ? at + batch : to;
        int64_t used = core->apply_batch(core->context, records, &at, end, events + kept, event_slots - kept);
        if (used < 0)
            return used;
        kept += used;
    }
    return kept;
}

int64_t play(
    const BylineCorePort *core, const BylineRecord *records, int64_t from, int64_t to, int64_t batch, BylineEvent *events,
    int64_t event_slots, Totals *totals) {
    int64_t at = from, start = cpu_ns();
    while (at < to) {
        int64_t end = at + batch < to ? at + batch : to;
        int64_t used = core->apply_batch(core->context, records, &at, end, events, event_slots);
        if (used < 0)
            return used;
        count(events, used, totals);
    }
    totals->ns = cpu_ns() - start;
    return 0;
}

int64_t bare(
    const BylineCorePort *core, const BylineRecord *records, int64_t from, int64_t to, int64_t batch, BylineEvent *events,
    int64_t event_slots, Totals *totals) {
    int64_t at = from, start = cpu_ns();
    while (at < to) {
        int64_t end = at + batch < to ? at + batch : to;
        int64_t used = core->apply_batch(core->context, records, &at, end, events, event_slots);
        if (used < 0)
            return used;
    }
    totals->ns = cpu_ns() - start;
    return 0;
}

int64_t singles(
    const BylineCorePort *core, const BylineRecord *records, int64_t from, int64_t to, BylineEvent *events,
    int64_t event_slots, Totals *totals) {
    int64_t start = cpu_ns();
    for (int64_t at = from; at < to; at += records[at].head.slots) {
        int64_t used = core->apply(core->context, &records[at], events, event_slots);
        if (used < 0)
            return used;
        count(events, used, totals);
    }
    totals->ns = cpu_ns() - start;
    return 0;
}

/* `ticks` and `fills` have one place for each record (of one slot each). */
int64_t ticks(
    const BylineCorePort *core, const BylineRecord *records, int64_t from, int64_t to, BylineEvent *events,
    int64_t event_slots, uint32_t *ticks, uint32_t *fills, Totals *totals) {
    uint64_t before = 0;
    for (int64_t at = from; at < to; at++) {
        uint64_t start = ticks_before();
        int64_t used = core->apply(core->context, &records[at], events, event_slots);
        uint64_t taken = ticks_after() - start;
        if (used < 0)
            return used;
        ticks[at - from] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
        count(events, used, totals);
        fills[at - from] = (uint32_t)(totals->trades - before);
        before = totals->trades;
    }
    return 0;
}

int64_t timer(int64_t readings, uint32_t *ticks) {
    for (int64_t i = 0; i < readings; i++) {
        uint64_t start = ticks_before();
        uint64_t taken = ticks_after() - start;
        ticks[i] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
    }
    return 0;
}

double ns_per_tick(int64_t over_ns) {
    int64_t start = now_ns(), end;
    uint64_t ticks = ticks_before();
    do
        end = now_ns();
    while (end - start < over_ns);
    return (double)(end - start) / (double)(ticks_after() - ticks);
}
