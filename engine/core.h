/* The C door of the core: records in, events out, no Python on the way.
 *
 *   Core (Python) ── port() ──▶ capsule "byline.CorePort" ──▶ BylineCorePort* ──▶ apply, apply_batch, bound …
 *
 * A plain C header without dependencies; C11 and C++11. Everything is little endian. Records and events come in slots of
 * 128 bytes, as engine/messages/layout.py says: one head slot, and where `slots` says so extension slots behind it. The
 * structs here are those that a trading harness needs; tests/unit/engine/test_c_door.py compares them with layout.py.
 *
 * Rules (docs/c-door.md has them at length):
 *   - The Core must outlive the port. One thread at a time; which one does not matter.
 *   - Call with or without the GIL. It is never taken, except to drop the exception behind BYLINE_BROKEN and BYLINE_NO_MEMORY.
 *   - Memory belongs to the caller and is only read (records) or written (events) during a call; events may not overlap
 *     records. 8-byte alignment will do, 64 is best.
 *   - `apply` reads all `slots` slots of the record, and needs room for `bound` events, however few come of it.
 *   - A text (client id, name, ref) is padded with zeros; one whose first byte is zero is empty, whatever follows.
 *   - `sequence` counts from 1 without gaps over all records ever applied; `ts` is nanoseconds and may repeat.
 *
 * Worst case: a record that the core cannot take leaves it as it was, but for BYLINE_BROKEN: then it refuses all others.
 */
#ifndef BYLINE_CORE_H
#define BYLINE_CORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define BYLINE_ASSERT(condition, text) static_assert(condition, text)
#else
#define BYLINE_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define BYLINE_CORE_CAPSULE "byline.CorePort"
#define BYLINE_CORE_VERSION 1
#define BYLINE_SLOT_BYTES 128

#define BYLINE_ABSENT_PRICE INT64_MIN /* an int64 field that was not given */
#define BYLINE_NO_INDEX 0xFFFFFFFFu   /* a uint32 index that names nothing */

/* What a call returns instead of a count of slots. Nothing was changed, except by BYLINE_BROKEN. Refused by the rules is
 * something else: an event. */
enum {
    BYLINE_NO_ROOM = -1,    /* fewer event slots than `bound` says the record may need */
    BYLINE_NOT_NEXT = -2,   /* the record's sequence is not the core's + 1 */
    BYLINE_BAD_RECORD = -3, /* `slots` is 0, or the record ends behind the batch */
    BYLINE_BROKEN = -4,     /* an invariant does not hold: the core refuses whatever comes */
    BYLINE_NO_MEMORY = -5,  /* no address space for a book of all prices: the record may come again */
    BYLINE_BAD_CALL = -6,   /* *at is below 0, or events overlap records */
    BYLINE_IN_USE = -7      /* another thread is in a call */
};

/* Command kinds: codes.py, CommandKind. */
enum {
    BYLINE_ASSET = 1, BYLINE_MARKET = 2, BYLINE_ACCOUNT = 3, BYLINE_DEPOSIT = 4, BYLINE_PLACE = 11, BYLINE_CANCEL = 12,
    BYLINE_REPLACE = 13, BYLINE_TICK = 21, BYLINE_CUT = 22
};

/* Event kinds: codes.py, EventKind. */
enum {
    BYLINE_ACCEPTED = 1, BYLINE_REJECTED = 2, BYLINE_DUPLICATE = 3, BYLINE_DONE = 4, BYLINE_TRADE = 5, BYLINE_CANCELED = 6,
    BYLINE_REPLACED = 7, BYLINE_TRIGGERED = 8, BYLINE_REFRESHED = 9, BYLINE_PREVENTED = 10, BYLINE_BALANCE = 11
};

/* `reason` in the head of BYLINE_REJECTED: codes.py, RejectCode. What each means: docs/rulebook.md. */
enum {
    BYLINE_REJECT_BAD_REF = 1, BYLINE_REJECT_UNKNOWN_ACCOUNT = 2, BYLINE_REJECT_DUPLICATE = 3,
    BYLINE_REJECT_POISONED = 4, BYLINE_REJECT_UNKNOWN_MARKET = 5, BYLINE_REJECT_UNKNOWN_ASSET = 6,
    BYLINE_REJECT_FROZEN = 7, BYLINE_REJECT_CANCEL_ONLY = 8, BYLINE_REJECT_KILLED = 9,
    BYLINE_REJECT_UNKNOWN_ORDER = 10, BYLINE_REJECT_PHASE = 11, BYLINE_REJECT_BAD_VALUE = 12,
    BYLINE_REJECT_EXISTS = 13, BYLINE_REJECT_BAD_TYPE = 14, BYLINE_REJECT_BAD_TIF = 15,
    BYLINE_REJECT_BAD_PRICE = 16, BYLINE_REJECT_BAD_SIZE = 17, BYLINE_REJECT_BAD_DISPLAY = 18,
    BYLINE_REJECT_BAD_STOP = 19, BYLINE_REJECT_BAD_AMOUNT = 20, BYLINE_REJECT_BAD_EXPIRY = 21,
    BYLINE_REJECT_BAND = 22, BYLINE_REJECT_TOO_MANY_ORDERS = 23, BYLINE_REJECT_BAD_OCO = 24,
    BYLINE_REJECT_INSUFFICIENT_FUNDS = 25, BYLINE_REJECT_WOULD_CROSS = 26, BYLINE_REJECT_NO_LIQUIDITY = 27,
    BYLINE_REJECT_CROSSED = 28, BYLINE_REJECT_EXPIRED = 29, BYLINE_REJECT_BAD_ACCOUNT = 30,
    BYLINE_REJECT_BAD_LEGS = 31, BYLINE_REJECT_TOO_LARGE = 32, BYLINE_REJECT_BUSY = 33, BYLINE_REJECT_MALFORMED = 34
};

/* `reason` in the head of BYLINE_CANCELED: codes.py, CancelReason. */
enum {
    BYLINE_CANCEL_USER = 1, BYLINE_CANCEL_MASS = 2, BYLINE_CANCEL_IOC = 3, BYLINE_CANCEL_FOK = 4,
    BYLINE_CANCEL_MARKET = 5, BYLINE_CANCEL_STP = 6, BYLINE_CANCEL_EXPIRED = 7, BYLINE_CANCEL_OCO = 8,
    BYLINE_CANCEL_KILLED = 9, BYLINE_CANCEL_FROZEN = 10, BYLINE_CANCEL_CLOSED = 11, BYLINE_CANCEL_SESSION = 12,
    BYLINE_CANCEL_BAND = 13, BYLINE_CANCEL_BUDGET = 14, BYLINE_CANCEL_FUNDS = 15, BYLINE_CANCEL_REPLACED = 16,
    BYLINE_CANCEL_FILLS_LIMIT = 17
};

enum { BYLINE_BUY = 0, BYLINE_SELL = 1 };
enum { BYLINE_LIMIT_ORDER = 1, BYLINE_MARKET_ORDER = 2 };
enum { BYLINE_GTC = 1, BYLINE_IOC = 2, BYLINE_FOK = 3 };
enum { BYLINE_PLACE_POST_ONLY = 1, BYLINE_PLACE_BUDGET = 2, BYLINE_PLACE_NO_SIZE = 8 }; /* flags of place */
enum { BYLINE_BY_ORDER_ID = 1 };                                                       /* flag of cancel, replace */
enum { BYLINE_NAMES_ORDER_ID = 1, BYLINE_NAMES_CLIENT_ID = 2, BYLINE_NAMES_REF = 4 };  /* flags of BylineRejected */
enum { BYLINE_WAITING = 0, BYLINE_OPEN = 1, BYLINE_FILLED = 2, BYLINE_ENDED = 3 };     /* status of BylineDuplicate */

/* ---------------------------------------------------------------- records */

typedef struct {
    uint32_t crc32c; /* the journal's; not read by the core */
    uint8_t kind, slots;
    uint16_t flags;
    uint64_t sequence;
    int64_t ts;
    uint64_t chain; /* the journal's; not read by the core */
} BylineRecordHead;

typedef struct {
    BylineRecordHead head;
    uint8_t payload[96];
} BylineRecord;

typedef struct {
    BylineRecordHead head;
    uint32_t account, market;
    char client_id[32]; /* zero-padded, not empty */
    int64_t price, size, stop_price, display_size, expires_at;
    uint64_t session;
    uint8_t side, type, tif, stp;
    uint8_t pad[4];
} BylinePlace;

/* With BYLINE_BY_ORDER_ID the first 8 bytes of `client_id` are the order id, the others zero. */
typedef struct {
    BylineRecordHead head;
    uint32_t account, spare;
    char client_id[32];
    uint8_t pad[56];
} BylineCancel;

typedef struct {
    BylineRecordHead head;
    uint32_t account, spare;
    char client_id[32];
    int64_t price, size, stop_price; /* BYLINE_ABSENT_PRICE: as it is */
    char new_client_id[32];
} BylineReplace;

/* ---------------------------------------------------------------- events */

typedef struct {
    uint64_t sequence;
    int64_t ts;
    uint32_t index, account, market;
    uint8_t kind, slots, reason, op;
} BylineEventHead;

typedef struct {
    BylineEventHead head;
    uint8_t payload[96];
} BylineEvent;

typedef struct {
    BylineEventHead head;
    uint64_t order_id; /* the sequence of its place */
    char client_id[32];
    int64_t price, size, hold, stop_price, display_size, expires_at;
    uint8_t side, type, tif, flags;
    uint8_t pad[4];
} BylineAccepted;

typedef struct {
    BylineEventHead head; /* account: the maker's */
    uint32_t taker_account;
    uint8_t aggressor, buyer, pad[2];
    uint64_t trade_id;
    int64_t price, size, notional;
    uint64_t maker_order_id;
    int64_t maker_leaves, maker_fee;
    uint64_t taker_order_id;
    int64_t taker_leaves, taker_fee, released;
} BylineTrade;

typedef struct {
    BylineEventHead head;
    uint64_t order_id;
    char client_id[32];
    int64_t leaves, released;
    uint8_t pad[40];
} BylineCanceled;

/* What the command named: `flags` says whether `order_id` and `text` (a client id or a ref) are there. */
typedef struct {
    BylineEventHead head; /* reason: BYLINE_REJECT_… */
    uint64_t order_id;
    char text[64];
    uint8_t flags;
    uint8_t pad[23];
} BylineRejected;

/* A client id that was seen before: what became of its order until now. Of a ref (`flags` 1): its first sequence. */
typedef struct {
    BylineEventHead head;
    uint64_t order_id;
    char text[64];
    int64_t filled;
    uint8_t status, flags;
    uint8_t pad[14];
} BylineDuplicate;

typedef struct {
    BylineEventHead head;
    uint64_t order_id;
    char client_id[32]; /* the one it answers to from now on, beside its older ones */
    int64_t price, size, leaves, hold, released;
    uint8_t priority_kept, pad[7];
    int64_t stop_price;
} BylineReplaced;

/* Self-trade prevention: what would have traded, and what is left of both. */
typedef struct {
    BylineEventHead head; /* account: the maker's */
    uint32_t taker_account;
    uint8_t mode, pad[3];
    int64_t price, size;
    uint64_t maker_order_id;
    int64_t maker_leaves, maker_released;
    uint64_t taker_order_id;
    int64_t taker_leaves, taker_released;
    uint8_t spare[24];
} BylinePrevented;

BYLINE_ASSERT(sizeof(BylineRecordHead) == 32 && sizeof(BylineEventHead) == 32, "a head is 32 bytes");
BYLINE_ASSERT(sizeof(BylineRecord) == BYLINE_SLOT_BYTES && sizeof(BylineEvent) == BYLINE_SLOT_BYTES, "a slot");
BYLINE_ASSERT(sizeof(BylinePlace) == BYLINE_SLOT_BYTES && sizeof(BylineCancel) == BYLINE_SLOT_BYTES, "one slot each");
BYLINE_ASSERT(sizeof(BylineReplace) == BYLINE_SLOT_BYTES && sizeof(BylineAccepted) == BYLINE_SLOT_BYTES, "one slot each");
BYLINE_ASSERT(sizeof(BylineTrade) == BYLINE_SLOT_BYTES && sizeof(BylineCanceled) == BYLINE_SLOT_BYTES, "one slot each");
BYLINE_ASSERT(sizeof(BylineRejected) == BYLINE_SLOT_BYTES && sizeof(BylineDuplicate) == BYLINE_SLOT_BYTES, "one slot each");
BYLINE_ASSERT(sizeof(BylineReplaced) == BYLINE_SLOT_BYTES && sizeof(BylinePrevented) == BYLINE_SLOT_BYTES, "one slot each");

/* ---------------------------------------------------------------- the door */

typedef struct {
    uint32_t version;    /* BYLINE_CORE_VERSION */
    uint32_t slot_bytes; /* BYLINE_SLOT_BYTES */
    void *context;       /* the first argument of every function */

    /* Applies one record, all its slots. The event slots written (0 is possible), or a negative number from above. */
    int64_t (*apply)(void *context, const BylineRecord *record, BylineEvent *events, int64_t event_slots);

    /* Applies the records in slots *at … end, looking ahead in memory; moves *at to the first slot not applied. Stops early
     * before a record that it cannot take now. The event slots written; a negative number only if nothing was applied, and
     * BYLINE_BROKEN. *at and event_slots are not below 0. */
    int64_t (*apply_batch)(
        void *context, const BylineRecord *records, int64_t *at, int64_t end, BylineEvent *events, int64_t event_slots);

    /* The most event slots that the record can make in the present state. */
    int64_t (*bound)(void *context, const BylineRecord *record);

    /* The last applied sequence; 0 at first. */
    uint64_t (*sequence)(void *context);

    /* docs/state-hash.md: 16 bytes, little endian. */
    void (*state_hash)(void *context, uint8_t hash[16]);
} BylineCorePort;

#ifdef __cplusplus
}
#endif
#endif
