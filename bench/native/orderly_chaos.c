/* Drives the book of orderly-chaos 0.2.0 through its C API, whose shared library is opened at run time.
 *
 * An immediate-or-cancel order is a limit order whose rest is cancelled, a move is a cancel and a new order. Trades are
 * counted in the book's own callback; with `hashed` the callback hashes every fill too, for the run that is not timed.
 */
#include <dlfcn.h>
#include <stddef.h>

#include "clock.h"
#include "lobw.h"

typedef struct {
    uint64_t taker_id, maker_id, price;
    uint32_t quantity, maker_remaining;
    int32_t taker_side;
} Trade;

typedef void (*Callback)(const Trade *, void *);

typedef struct {
    void *(*new_book)(void);
    void (*free_book)(void *);
    int32_t (*set_callback)(void *, Callback, void *);
    int32_t (*limit)(void *, int32_t, uint64_t, uint32_t, uint64_t, uint32_t *);
    int32_t (*market)(void *, int32_t, uint64_t, uint32_t, uint32_t *);
    int32_t (*cancel)(void *, uint64_t);
    uint64_t (*count)(void *);
    uint64_t (*volume)(void *);
} Api;

static void counted(const Trade *trade, void *user) {
    BookTotals *totals = user;
    totals->trades++;
    totals->volume += trade->quantity;
    totals->notional += trade->price * trade->quantity;
}

static void hashed(const Trade *trade, void *user) {
    BookTotals *totals = user;
    counted(trade, user);
    totals->hash = lobw_hash(totals->hash, trade->maker_id, trade->taker_id, trade->price, trade->quantity);
}

static int resolve(void *library, Api *api) {
    *(void **)&api->new_book = dlsym(library, "oc_book_new");
    *(void **)&api->free_book = dlsym(library, "oc_book_free");
    *(void **)&api->set_callback = dlsym(library, "oc_book_set_trade_callback");
    *(void **)&api->limit = dlsym(library, "oc_book_limit");
    *(void **)&api->market = dlsym(library, "oc_book_market");
    *(void **)&api->cancel = dlsym(library, "oc_book_cancel");
    *(void **)&api->count = dlsym(library, "oc_book_count");
    *(void **)&api->volume = dlsym(library, "oc_book_volume");
    return api->new_book && api->free_book && api->set_callback && api->limit && api->market && api->cancel && api->count
        && api->volume;
}

static void apply(const Api *api, void *book, const LobwRecord *record, uint64_t *failed) {
    int32_t side = record->side == 0; /* 1 buys there */
    uint32_t filled = 0;
    int32_t status = 0;
    switch (record->op) {
    case LOBW_LIMIT:
        status = api->limit(book, side, record->id, record->qty, (uint64_t)record->price, &filled);
        break;
    case LOBW_IOC:
        status = api->limit(book, side, record->id, record->qty, (uint64_t)record->price, &filled);
        if (filled < record->qty)
            status |= api->cancel(book, record->id);
        break;
    case LOBW_MARKET:
        status = api->market(book, side, record->id, record->qty, &filled);
        break;
    case LOBW_CANCEL:
        status = api->cancel(book, record->id);
        break;
    default:
        status = api->cancel(book, record->id);
        status |= api->limit(book, side, record->id, record->qty, (uint64_t)record->price, &filled);
    }
    *failed += status != 0;
}

/* 0; -1: the library cannot be opened; -2: it lacks a function; -3: no memory for a book. `totals` starts as zeros, its
 * `hash` where the hash begins. */
int64_t play(
    const char *path, const LobwRecord *records, int64_t preload, int64_t count, int64_t with_hash, BookTotals *totals) {
    Api api = {0};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return -1;
    if (!resolve(library, &api))
        return -2;
    void *book = api.new_book();
    if (book == NULL)
        return -3;
    api.set_callback(book, with_hash ? hashed : counted, totals);
    int64_t i = 0;
    for (; i < preload; i++)
        apply(&api, book, &records[i], &totals->failed);
    int64_t start = cpu_ns();
    for (; i < count; i++)
        apply(&api, book, &records[i], &totals->failed);
    totals->ns = cpu_ns() - start;
    totals->resting = api.count(book);
    totals->resting_qty = api.volume(book);
    api.free_book(book);
    return 0;
}
