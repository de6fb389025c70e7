/* A LOBW record (bench/workload.py), and what a driver of somebody else's book counts. */
#ifndef BYLINE_BENCH_LOBW_H
#define BYLINE_BENCH_LOBW_H

#include <stdint.h>

enum { LOBW_LIMIT, LOBW_IOC, LOBW_MARKET, LOBW_CANCEL, LOBW_MOVE };

typedef struct {
    uint8_t op, side; /* side 0 buys */
    uint16_t zero;
    uint32_t qty;
    uint64_t id;
    int64_t price;
} LobwRecord;

typedef struct {
    uint64_t trades, volume, notional, hash, failed, resting, resting_qty;
    int64_t ns;
} BookTotals;

/* The hash that the generator's reference book makes of every fill, in order. */
static inline uint64_t lobw_hash(uint64_t hash, uint64_t maker, uint64_t taker, uint64_t price, uint64_t qty) {
    hash = (hash ^ (maker * 0x9E3779B97F4A7C15u + taker)) * 0x100000001B3u;
    return (hash ^ (price * 0x9E3779B97F4A7C15u + qty)) * 0x100000001B3u;
}
#endif
