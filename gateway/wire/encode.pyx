"""The frequent events as JSON, written by hand: acks and private events of an order flow.

Field names and their order are those of the rulebook; absent fields are left out; decimals are in the shortest form.
A trade or prevented match shows a trader the fields of his own side alone: the counterparty's order, account, fee and
leaves are nobody else's business. `tests/unit/gateway/test_encode.py` compares each event with the plain decoder.

Never allocates: names and scales come from `gateway.names`, side, unit of leaves and client id of an order from
`gateway.orders`, which must stand where the event before left it.
Worst case: EVENT_BYTES_MAX bytes an event, asserted where the buffer is made.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from gateway.names cimport MarketEntry, Names
from gateway.orders cimport OpenOrders, OrderEntry
from gateway.sequencer cimport Pending
from engine.messages.records cimport (
    EV_ACCEPTED, EV_BALANCE, EV_CANCELED, EV_DUPLICATE, EV_PREVENTED, EV_REFRESHED, EV_REJECTED, EV_REPLACED,
    EV_TRADE, EV_TRIGGERED, Accepted, Balance, Canceled, Duplicate, EventHead, Prevented, Refreshed, Rejected,
    Replaced, Trade, Triggered,
)

from engine.messages.codes import (
    Aggressor, CancelReason, CommandKind, EventKind, OrderStatus, OrderType, RejectCode, SelfTrade, Side, TimeInForce,
)

cdef extern from *:
    """
    typedef __int128 gateway_i128;
    typedef unsigned __int128 gateway_u128;
    """
    ctypedef long long i128 "gateway_i128"
    ctypedef unsigned long long u128 "gateway_u128"

cdef int64_t ABSENT = INT64_MIN
cdef uint32_t NIL = 0xFFFFFFFF
cdef enum:
    FLAG_BUDGET = 2
    R_ORDER_ID = 1
    R_CLIENT_ID = 2
    R_REF = 4

# Words by number. The bytes objects live in _KEEP, the pointers point into them.
cdef list _KEEP = []
cdef const char* SIDES[256]
cdef const char* TYPES[256]
cdef const char* TIFS[256]
cdef const char* REJECTS[256]
cdef const char* CANCELS[256]
cdef const char* OPS[256]
cdef const char* EVENTS[256]
cdef const char* STATUSES[256]
cdef const char* AGGRESSORS[256]
cdef const char* MODES[256]


cdef void _words(object enumeration, const char** table):
    cdef int i
    cdef bytes word
    for i in range(256):
        table[i] = b"unknown"
    for member in enumeration:
        word = member.word.encode()
        _KEEP.append(word)
        table[<int>member] = word


_words(Side, SIDES)
_words(OrderType, TYPES)
_words(TimeInForce, TIFS)
_words(RejectCode, REJECTS)
_words(CancelReason, CANCELS)
_words(CommandKind, OPS)
_words(EventKind, EVENTS)
_words(OrderStatus, STATUSES)
_words(Aggressor, AGGRESSORS)
_words(SelfTrade, MODES)


cdef char[200] PAIRS  # 00 01 … 99
for _pair in range(100):
    PAIRS[2 * _pair] = 48 + _pair // 10
    PAIRS[2 * _pair + 1] = 48 + _pair % 10


cdef inline char* _text(char* p, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    memcpy(p, text, size)
    return p + size


cdef inline char* _unsigned(char* p, u128 value) noexcept nogil:
    """Two digits a division: an ack has a hundred of them."""
    cdef char[40] digits
    cdef int at = 40
    cdef uint64_t low, pair
    while value > <u128>0xFFFFFFFFFFFFFFFFULL:
        at -= 1
        digits[at] = <char>(c"0" + <int>(value % 10))
        value = value // 10
    low = <uint64_t>value
    while low >= 100:
        pair = low % 100
        low = low // 100
        at -= 2
        memcpy(&digits[at], &PAIRS[2 * pair], 2)
    if low >= 10:
        at -= 2
        memcpy(&digits[at], &PAIRS[2 * low], 2)
    else:
        at -= 1
        digits[at] = <char>(c"0" + low)
    memcpy(p, &digits[at], 40 - at)
    return p + (40 - at)


cdef inline char* _integer(char* p, int64_t value) noexcept nogil:
    if value < 0:
        p[0] = c"-"
        return _unsigned(p + 1, <u128>(-<i128>value))
    return _unsigned(p, <u128>value)


cdef char* _decimal(char* p, int64_t count, int64_t mantissa, uint8_t decimals) noexcept nogil:
    """`count` × `mantissa` × 10^-decimals in quotes, in its shortest form."""
    cdef i128 signed_value = <i128>count * mantissa
    cdef u128 value
    cdef char[64] digits
    cdef char* end
    cdef int size, whole
    p[0] = c'"'
    p += 1
    if signed_value < 0:
        p[0] = c"-"
        p += 1
        signed_value = -signed_value
    value = <u128>signed_value
    while decimals and value % 10 == 0:
        value = value // 10
        decimals -= 1
    end = _unsigned(digits, value)
    size = <int>(end - digits)
    whole = size - decimals
    if decimals == 0:
        memcpy(p, digits, size)
        p += size
    elif whole > 0:
        memcpy(p, digits, whole)
        p[whole] = c"."
        memcpy(p + whole + 1, digits + whole, decimals)
        p += size + 1
    else:
        p[0] = c"0"
        p[1] = c"."
        p += 2
        while whole < 0:
            p[0] = c"0"
            p += 1
            whole += 1
        memcpy(p, digits, size)
        p += size
    p[0] = c'"'
    return p + 1


cdef inline char* _field(char* p, const char* name) noexcept nogil:
    ""","name": — the caller writes the value."""
    p[0] = c","
    p[1] = c'"'
    p = _text(p + 2, name)
    p[0] = c'"'
    p[1] = c":"
    return p + 2


cdef inline char* _word(char* p, const char* name, const char* word) noexcept nogil:
    p = _field(p, name)
    p[0] = c'"'
    p = _text(p + 1, word)
    p[0] = c'"'
    return p + 1


cdef inline char* _fixed(char* p, const char* name, const char* text, int limit) noexcept nogil:
    """A zero-padded text field; nothing if it is empty."""
    cdef int size = 0
    while size < limit and text[size] != 0:
        size += 1
    if size == 0:
        return p
    p = _field(p, name)
    p[0] = c'"'
    memcpy(p + 1, text, size)
    p[size + 1] = c'"'
    return p + size + 2


cdef inline char* _number(char* p, const char* name, int64_t value) noexcept nogil:
    return _integer(_field(p, name), value)


cdef char* _account(char* p, const char* name, Names names, uint32_t index) noexcept:
    if index >= names.account_count:
        return p
    return _fixed(p, name, names.accounts[index].name, 64)


cdef char* _market(char* p, Names names, uint32_t index) noexcept:
    if index >= names.market_count:
        return p
    return _fixed(p, "market", names.markets[index].name, 64)


cdef inline char* _price(char* p, const char* name, const MarketEntry* m, int64_t ticks) noexcept nogil:
    if ticks == ABSENT:
        return p
    return _decimal(_field(p, name), ticks, m.tick, m.tick_decimals)


cdef inline char* _size(char* p, const char* name, const MarketEntry* m, int64_t lots) noexcept nogil:
    if lots == ABSENT:
        return p
    return _decimal(_field(p, name), lots, m.lot, m.lot_decimals)


cdef inline char* _quote(char* p, const char* name, const MarketEntry* m, int64_t units) noexcept nogil:
    if units == ABSENT:
        return p
    return _decimal(_field(p, name), units, 1, m.quote_scale)


cdef inline char* _base(char* p, const char* name, const MarketEntry* m, int64_t units) noexcept nogil:
    return _decimal(_field(p, name), units, 1, m.base_scale)


cdef inline char* _leaves(char* p, const char* name, const MarketEntry* m, int64_t value, bint budget) noexcept nogil:
    return _quote(p, name, m, value) if budget else _size(p, name, m, value)


cdef bint is_fast(const uint8_t* slot) noexcept nogil:
    cdef const EventHead* head = <const EventHead*>slot
    if head.kind == EV_DUPLICATE:
        return (<const Duplicate*>slot).flags & 1 == 0
    return (
        head.kind == EV_ACCEPTED or head.kind == EV_REJECTED or head.kind == EV_TRADE or head.kind == EV_CANCELED
        or head.kind == EV_REPLACED or head.kind == EV_TRIGGERED or head.kind == EV_REFRESHED
        or head.kind == EV_BALANCE or head.kind == EV_PREVENTED
    )


cdef char* put_ack_head(char* p, const Pending* pending, int64_t t_out, int64_t rate_left) noexcept nogil:
    cdef int i
    p[0] = c"{"
    p += 1
    if pending.rid_size:
        p = _text(p, '"rid":')
        memcpy(p, pending.rid, pending.rid_size)
        p += pending.rid_size
        p[0] = c","
        p += 1
    p = _unsigned(_text(p, '"sequence":'), pending.sequence)
    p = _text(_field(p, "chain"), '"')
    for i in range(16):
        p[i] = b"0123456789abcdef"[(pending.chain >> (60 - 4 * i)) & 15]
    p[16] = c'"'
    p = _number(p + 17, "t_in", pending.t_in)
    if pending.t_durable:
        p = _number(p, "t_durable", pending.t_durable)
    p = _number(_number(p, "t_matched", pending.t_matched), "t_out", t_out)
    return p if rate_left < 0 else _number(p, "rate_left", rate_left)


cdef char* put_event(char* p, const uint8_t* slot, Names names, OpenOrders orders, uint32_t own,
                     bint in_ack) noexcept:
    """One event and the closing brace; inside an ack without the sequence, which stands there already."""
    cdef const EventHead* head = <const EventHead*>slot
    if in_ack:
        p = _integer(_text(p, ',"ts":'), head.ts)
    else:
        p = _unsigned(_text(p, '{"sequence":'), head.sequence)
        p = _number(p, "index", head.index)
        p = _number(p, "ts", head.ts)
    p = _word(p, "event", EVENTS[head.kind])
    if head.kind == EV_ACCEPTED:
        p = _put_accepted(p, <const Accepted*>slot, names)
    elif head.kind == EV_TRADE:
        p = _put_trade(p, <const Trade*>slot, names, orders, own)
    elif head.kind == EV_CANCELED:
        p = _put_canceled(p, <const Canceled*>slot, names, orders)
    elif head.kind == EV_REJECTED:
        p = _put_rejected(p, <const Rejected*>slot, names)
    elif head.kind == EV_DUPLICATE:
        p = _put_duplicate(p, <const Duplicate*>slot, names, orders)
    elif head.kind == EV_REPLACED:
        p = _put_replaced(p, <const Replaced*>slot, names, orders)
    elif head.kind == EV_TRIGGERED:
        p = _put_triggered(p, <const Triggered*>slot, names)
    elif head.kind == EV_REFRESHED:
        p = _put_refreshed(p, <const Refreshed*>slot, names)
    elif head.kind == EV_PREVENTED:
        p = _put_prevented(p, <const Prevented*>slot, names, orders, own)
    elif head.kind == EV_BALANCE:
        p = _put_balance(p, <const Balance*>slot, names)
    p[0] = c"}"
    return p + 1


cdef char* _put_accepted(char* p, const Accepted* e, Names names) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    p = _number(p, "order_id", e.order_id)
    p = _fixed(p, "client_id", e.client_id, 32)
    p = _account(p, "account", names, e.head.account)
    p = _market(p, names, e.head.market)
    p = _word(p, "side", SIDES[e.side])
    p = _word(p, "type", TYPES[e.type])
    p = _word(p, "tif", TIFS[e.tif])
    p = _price(p, "price", m, e.price)
    p = _quote(p, "budget", m, e.size) if e.flags & FLAG_BUDGET else _size(p, "size", m, e.size)
    p = _price(p, "stop_price", m, e.stop_price)
    p = _size(p, "display_size", m, e.display_size)
    if e.expires_at != ABSENT:
        p = _number(p, "expires_at", e.expires_at)
    if e.hold != ABSENT:
        p = _base(p, "hold", m, e.hold) if e.side else _quote(p, "hold", m, e.hold)
    return p


cdef char* _put_rejected(char* p, const Rejected* e, Names names) noexcept:
    p = _word(p, "op", OPS[e.head.op])
    p = _account(p, "account", names, e.head.account)
    if e.flags & R_CLIENT_ID:
        p = _fixed(p, "client_id", e.text, 64)
    if e.flags & R_ORDER_ID:
        p = _number(p, "order_id", e.order_id)
    if e.flags & R_REF:
        p = _fixed(p, "ref", e.text, 64)
    return _word(p, "reason", REJECTS[e.head.reason])


cdef char* _put_duplicate(char* p, const Duplicate* e, Names names, OpenOrders orders) noexcept:
    p = _fixed(p, "client_id", e.text, 64)
    if e.order_id:
        p = _number(p, "order_id", e.order_id)
    p = _account(p, "account", names, e.head.account)
    p = _market(p, names, e.head.market)
    p = _word(p, "status", STATUSES[e.status])
    if e.head.market < names.market_count:
        p = _leaves(p, "filled", &names.markets[e.head.market], e.filled, orders.in_quote(e.order_id))
    return p


cdef char* _put_trade(char* p, const Trade* e, Names names, OpenOrders orders, uint32_t own) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    cdef const OrderEntry* order
    p = _number(p, "trade_id", e.trade_id)
    p = _market(p, names, e.head.market)
    p = _price(p, "price", m, e.price)
    p = _size(p, "size", m, e.size)
    p = _quote(p, "notional", m, e.notional)
    p = _word(p, "aggressor", AGGRESSORS[e.aggressor])
    if own == NIL or own == e.head.account:
        order = orders.find(e.maker_order_id)
        p = _number(p, "maker_order_id", e.maker_order_id)
        p = _account(p, "maker_account", names, e.head.account)
        if order != NULL:
            p = _fixed(p, "maker_client_id", order.client_id, 32)
        p = _leaves(p, "maker_leaves", m, e.maker_leaves, order != NULL and order.budget)
        p = _quote(p, "maker_fee", m, e.maker_fee)
        p = _quote(p, "maker_released", m, e.released if e.buyer == 0 else 0)
    if own == NIL or own == e.taker_account:
        order = orders.find(e.taker_order_id)
        p = _number(p, "taker_order_id", e.taker_order_id)
        p = _account(p, "taker_account", names, e.taker_account)
        if order != NULL:
            p = _fixed(p, "taker_client_id", order.client_id, 32)
        p = _leaves(p, "taker_leaves", m, e.taker_leaves, order != NULL and order.budget)
        p = _quote(p, "taker_fee", m, e.taker_fee)
        p = _quote(p, "taker_released", m, e.released if e.buyer == 1 else 0)
    return p


cdef char* _released(char* p, const char* name, const MarketEntry* m, int64_t units, const OrderEntry* order) noexcept:
    """Base units of a sell, quote units of a buy."""
    if order == NULL:
        return p
    return _base(p, name, m, units) if order.side else _quote(p, name, m, units)


cdef char* _put_canceled(char* p, const Canceled* e, Names names, OpenOrders orders) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    cdef const OrderEntry* order = orders.find(e.order_id)
    p = _number(p, "order_id", e.order_id)
    p = _fixed(p, "client_id", e.client_id, 32)
    p = _account(p, "account", names, e.head.account)
    p = _market(p, names, e.head.market)
    p = _leaves(p, "leaves", m, e.leaves, order != NULL and order.budget)
    p = _released(p, "released", m, e.released, order)
    return _word(p, "reason", CANCELS[e.head.reason])


cdef char* _put_replaced(char* p, const Replaced* e, Names names, OpenOrders orders) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    cdef const OrderEntry* order = orders.find(e.order_id)
    p = _number(p, "order_id", e.order_id)
    p = _fixed(p, "client_id", e.client_id, 32)
    p = _account(p, "account", names, e.head.account)
    p = _market(p, names, e.head.market)
    p = _price(p, "price", m, e.price)
    p = _leaves(p, "size", m, e.size, order != NULL and order.budget)
    p = _leaves(p, "leaves", m, e.leaves, order != NULL and order.budget)
    p = _released(p, "hold", m, e.hold, order)
    p = _released(p, "released", m, e.released, order)
    p = _field(p, "priority_kept")
    return _text(p, "true") if e.priority_kept else _text(p, "false")


cdef char* _put_triggered(char* p, const Triggered* e, Names names) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    p = _number(p, "order_id", e.order_id)
    p = _price(p, "stop_price", m, e.stop_price)
    p = _price(p, "trigger_price", m, e.trigger_price)
    return _number(p, "trigger_sequence", e.trigger_sequence)


cdef char* _put_refreshed(char* p, const Refreshed* e, Names names) noexcept:
    p = _number(p, "order_id", e.order_id)
    return _size(p, "display_size", &names.markets[e.head.market], e.display_size)


cdef char* _put_prevented(char* p, const Prevented* e, Names names, OpenOrders orders, uint32_t own) noexcept:
    cdef const MarketEntry* m = &names.markets[e.head.market]
    cdef const OrderEntry* order
    p = _market(p, names, e.head.market)
    p = _price(p, "price", m, e.price)
    p = _size(p, "size", m, e.size)
    p = _word(p, "mode", MODES[e.mode])
    if own == NIL or own == e.head.account:
        order = orders.find(e.maker_order_id)
        p = _number(p, "maker_order_id", e.maker_order_id)
        p = _account(p, "maker_account", names, e.head.account)
        if order != NULL:
            p = _fixed(p, "maker_client_id", order.client_id, 32)
        p = _leaves(p, "maker_leaves", m, e.maker_leaves, order != NULL and order.budget)
        p = _released(p, "maker_released", m, e.maker_released, order)
    if own == NIL or own == e.taker_account:
        order = orders.find(e.taker_order_id)
        p = _number(p, "taker_order_id", e.taker_order_id)
        p = _account(p, "taker_account", names, e.taker_account)
        if order != NULL:
            p = _fixed(p, "taker_client_id", order.client_id, 32)
        p = _leaves(p, "taker_leaves", m, e.taker_leaves, order != NULL and order.budget)
        p = _released(p, "taker_released", m, e.taker_released, order)
    return p


cdef char* _put_balance(char* p, const Balance* e, Names names) noexcept:
    cdef uint8_t scale = names.assets[e.head.market].scale
    p = _account(p, "account", names, e.head.account)
    p = _fixed(p, "asset", names.assets[e.head.market].name, 64)
    p = _decimal(_field(p, "available"), e.available, 1, scale)
    p = _decimal(_field(p, "held"), e.held, 1, scale)
    if e.cause == 0:
        return _word(p, "cause", "expired")
    return _word(p, "cause", OPS[e.cause])


def event_text(const uint8_t[::1] slot not None, Names names not None, OpenOrders orders not None, uint32_t own=0xFFFFFFFF):
    """One fast event as JSON bytes, or None if it is not one of them."""
    cdef char[EVENT_BYTES_MAX] buffer
    cdef char* end
    if slot.shape[0] < 128:
        raise ValueError("an event is at least one slot")
    if not is_fast(&slot[0]):
        return None
    end = put_event(buffer, &slot[0], names, orders, own, False)
    return buffer[: end - <char*>buffer]
