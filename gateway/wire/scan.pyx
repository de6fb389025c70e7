"""A scanner for the three commands that make up an order flow, from bytes of JSON straight into a 128-byte record.

It understands one flat object of known keys (all of a place but `oco_with` and `session`), strings of printable ASCII without escapes, whole numbers, `true`,
`false` and `null`. It never reports an error: whatever it does not understand, or finds wrong (an unknown key, a
doubled key, an off-tick price, a word out of its list, anything but `place`, `replace` and `cancel`), it hands to the thorough
path of `gateway.session`, which finds the same thing and names it. So there is one place that words errors, and
this one only has to be right when it says yes. `tests/unit/gateway/test_scan.py` holds the two paths together.

Worst case: one pass over the text; no allocation, no object, no lock.
"""

from libc.stdint cimport INT64_MIN, uint64_t
from libc.string cimport memcmp, memcpy, memset

from gateway.guard cimport OUTLIVES
from engine.messages.records cimport OP_CANCEL, OP_PLACE, OP_REPLACE, SLOT, Cancel, Place, Replace

cdef extern from *:
    """
    typedef unsigned __int128 gateway_u128;
    """
    ctypedef unsigned long long u128 "gateway_u128"

cdef int64_t ABSENT = INT64_MIN
cdef enum:
    RID_BYTES = 34
    F_POST_ONLY = 1
    F_BUDGET = 2
    F_BY_ORDER_ID = 1


cdef inline bint _is(const Slice* part, const char* word, Py_ssize_t size) noexcept nogil:
    return part.size == size and memcmp(part.at, word, size) == 0


cdef inline const char* _blank(const char* p, const char* end) noexcept nogil:
    while p < end and (p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t"):
        p += 1
    return p


cdef inline const char* _string(const char* p, const char* end, Slice* out) noexcept nogil:
    """`p` stands behind the opening quote; returns the place behind the closing one, or NULL."""
    cdef const char* start = p
    while p < end:
        if p[0] == c'"':
            out.at = start
            out.size = p - start
            return p + 1
        if p[0] < 0x20 or p[0] == c"\\" or p[0] > 0x7E:
            return NULL
        p += 1
    return NULL


cdef inline const char* _integer(const char* p, const char* end, int64_t* out) noexcept nogil:
    """A whole number from 0 to 2^63 - 1, without leading zeros."""
    cdef uint64_t value = 0
    cdef int count = 0
    cdef const char* start = p
    while p < end and c"0" <= p[0] <= c"9":
        if count == 19:
            return NULL
        value = value * 10 + <uint8_t>(p[0] - c"0")
        count += 1
        p += 1
    if count == 0 or (count > 1 and start[0] == c"0") or value > <uint64_t>0x7FFFFFFFFFFFFFFF:
        return NULL
    out[0] = <int64_t>value
    return p


cdef inline bint _once(Slice* field, const Slice* value) noexcept nogil:
    if field.size != -1:
        return False
    field[0] = value[0]
    return True


cdef void scan(const char* text, Py_ssize_t size, OrderText* out) noexcept nogil:
    """Fill `out` from one JSON object. `out.op` stays 0 unless everything in it was understood."""
    cdef const char* p = text
    cdef const char* end = text + size
    cdef const char* start
    cdef Slice key, value
    cdef Slice op
    cdef int64_t number
    cdef uint8_t kind  # s string, n number, t true, f false, 0 null
    cdef bint known
    memset(out, 0, sizeof(OrderText))
    out.rid.size = out.account.size = out.market.size = out.client_id.size = out.side.size = out.type.size = -1
    out.size.size = out.price.size = out.tif.size = out.stp.size = -1
    out.budget.size = out.stop_price.size = out.display_size.size = out.new_client_id.size = -1
    out.order_id = out.expires_at = -1
    out.post_only = out.receipt = out.cancel_on_disconnect = -1
    op.size = -1
    p = _blank(p, end)
    if p >= end or p[0] != c"{":
        return
    p += 1
    while True:
        p = _blank(p, end)
        if p >= end or p[0] != c'"':
            return
        p = _string(p + 1, end, &key)
        if p == NULL:
            return
        p = _blank(p, end)
        if p >= end or p[0] != c":":
            return
        p = _blank(p + 1, end)
        if p >= end:
            return
        start = p
        number = 0
        value.size = -1
        if p[0] == c'"':
            kind = c"s"
            p = _string(p + 1, end, &value)
        elif p[0] == c"n" and end - p >= 4 and memcmp(p, "null", 4) == 0:
            kind = 0
            p += 4
        elif p[0] == c"t" and end - p >= 4 and memcmp(p, "true", 4) == 0:
            kind = c"t"
            p += 4
        elif p[0] == c"f" and end - p >= 5 and memcmp(p, "false", 5) == 0:
            kind = c"f"
            p += 5
        else:
            kind = c"n"
            p = _integer(p, end, &number)
        if p == NULL:
            return
        if kind == 0:
            return  # absent in JSON's words: rare, and doubled keys would need care
        known = False
        if kind == c"s":
            if _is(&key, "op", 2):
                known = _once(&op, &value)
            elif _is(&key, "price", 5):
                known = _once(&out.price, &value)
            elif _is(&key, "size", 4):
                known = _once(&out.size, &value)
            elif _is(&key, "side", 4):
                known = _once(&out.side, &value)
            elif _is(&key, "type", 4):
                known = _once(&out.type, &value)
            elif _is(&key, "client_id", 9):
                known = _once(&out.client_id, &value)
            elif _is(&key, "market", 6):
                known = _once(&out.market, &value)
            elif _is(&key, "account", 7):
                known = _once(&out.account, &value)
            elif _is(&key, "tif", 3):
                known = _once(&out.tif, &value)
            elif _is(&key, "stp", 3):
                known = _once(&out.stp, &value)
            elif _is(&key, "stop_price", 10):
                known = _once(&out.stop_price, &value)
            elif _is(&key, "display_size", 12):
                known = _once(&out.display_size, &value)
            elif _is(&key, "budget", 6):
                known = _once(&out.budget, &value)
            elif _is(&key, "new_client_id", 13):
                known = _once(&out.new_client_id, &value)
            elif _is(&key, "rid", 3):
                value.at = start
                value.size = p - start
                known = value.size <= RID_BYTES and value.size > 2 and _once(&out.rid, &value)
        elif kind == c"n":
            if _is(&key, "rid", 3):
                value.at = start
                value.size = p - start
                known = _once(&out.rid, &value)
            elif _is(&key, "order_id", 8):
                known = out.order_id == -1 and number > 0
                out.order_id = number
            elif _is(&key, "expires_at", 10):
                known = out.expires_at == -1 and number > 0
                out.expires_at = number
        elif _is(&key, "post_only", 9):
            known = out.post_only == -1
            out.post_only = kind == c"t"
        elif _is(&key, "receipt", 7):
            known = out.receipt == -1
            out.receipt = kind == c"t"
        elif _is(&key, "cancel_on_disconnect", 20):
            known = out.cancel_on_disconnect == -1
            out.cancel_on_disconnect = kind == c"t"
        if not known:
            return
        p = _blank(p, end)
        if p >= end:
            return
        if p[0] == c",":
            p += 1
            continue
        if p[0] != c"}":
            return
        p = _blank(p + 1, end)
        if p != end:
            return
        break
    if _is(&op, "place", 5):
        if out.order_id == -1 and out.new_client_id.size == -1:
            out.op = OP_PLACE
        return
    if (
        out.market.size != -1 or out.side.size != -1 or out.type.size != -1 or out.tif.size != -1 or out.stp.size != -1
        or out.post_only != -1 or out.budget.size != -1 or out.display_size.size != -1 or out.expires_at != -1
        or out.cancel_on_disconnect != -1
    ):
        return
    if _is(&op, "replace", 7):
        out.op = OP_REPLACE
    elif (
        _is(&op, "cancel", 6) and out.price.size == -1 and out.size.size == -1 and out.stop_price.size == -1
        and out.new_client_id.size == -1
    ):
        out.op = OP_CANCEL


cdef inline bint _name(const Slice* part, Py_ssize_t limit) noexcept nogil:
    """1 … limit of A–Z a–z 0–9 _ - . :"""
    cdef Py_ssize_t i
    cdef char c
    if part.size < 1 or part.size > limit:
        return False
    for i in range(part.size):
        c = part.at[i]
        if not (
            c"a" <= c <= c"z" or c"0" <= c <= c"9" or c"A" <= c <= c"Z" or c == c"_" or c == c"-" or c == c"."
            or c == c":"
        ):
            return False
    return True


cdef int64_t steps(const char* text, Py_ssize_t size, int64_t mantissa, uint8_t decimals) noexcept nogil:
    """How many steps of mantissa × 10^-decimals the decimal text is; -1 if it is no positive whole number of them."""
    cdef u128 value = 0
    cdef u128 bound = (<u128>1) << 96
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t fraction = 0
    cdef Py_ssize_t digits = 0
    while i < size and c"0" <= text[i] <= c"9":
        value = value * 10 + <uint8_t>(text[i] - c"0")
        i += 1
    if i == 0 or i > 20:
        return -1
    if i < size:
        if text[i] != c".":
            return -1
        i += 1
        while i < size and c"0" <= text[i] <= c"9":
            digits += 1
            if fraction < decimals:
                if value >= bound:
                    return -1
                value = value * 10 + <uint8_t>(text[i] - c"0")
                fraction += 1
            elif text[i] != c"0":
                return -1
            i += 1
        if i != size or digits == 0 or digits > 20:
            return -1
    while fraction < decimals:
        if value >= bound:
            return -1
        value *= 10
        fraction += 1
    if value % <u128>mantissa:
        return -1
    value = value // <u128>mantissa
    if value == 0 or value > <u128>0x7FFFFFFFFFFFFFFF:
        return -1
    return <int64_t>value


cdef bint fill_place(const OrderText* order, const MarketEntry* market, uint32_t market_index, uint32_t account,
                     uint8_t* record) noexcept nogil:
    """Write the record of a place. False: something is unusual or wrong, and the record must not be used."""
    cdef Place* place = <Place*>record
    memset(record, 0, SLOT)
    place.head.kind = OP_PLACE
    place.head.slots = 1
    place.account = account
    place.market = market_index
    place.stop_price = ABSENT
    place.display_size = ABSENT
    place.expires_at = ABSENT
    if not _name(&order.client_id, 32):
        return False
    memcpy(place.client_id, order.client_id.at, order.client_id.size)
    if _is(&order.side, "buy", 3):
        place.side = 0
    elif _is(&order.side, "sell", 4):
        place.side = 1
    else:
        return False
    if (order.size.size == -1) == (order.budget.size == -1):
        return False
    if order.budget.size != -1:
        place.head.flags |= F_BUDGET
        place.size = steps(order.budget.at, order.budget.size, 1, market.quote_scale)
    else:
        place.size = steps(order.size.at, order.size.size, market.lot, market.lot_decimals)
    if place.size < 0:
        return False
    if _is(&order.type, "limit", 5):
        place.type = 1
    elif _is(&order.type, "market", 6):
        place.type = 2
    elif _is(&order.type, "stop", 4):
        place.type = 3
    elif _is(&order.type, "stop_limit", 10):
        place.type = 4
    else:
        return False
    # A field that its type needs and does not have, or has and cannot need, is for the thorough path.
    if (order.price.size == -1) != (place.type == 2 or place.type == 3):
        return False
    if (order.stop_price.size == -1) != (place.type < 3) or (order.display_size.size != -1 and place.type != 1):
        return False
    place.price = ABSENT
    if order.price.size != -1:
        place.price = steps(order.price.at, order.price.size, market.tick, market.tick_decimals)
        if place.price < 0:
            return False
    if order.stop_price.size != -1:
        place.stop_price = steps(order.stop_price.at, order.stop_price.size, market.tick, market.tick_decimals)
        if place.stop_price < 0:
            return False
    if order.display_size.size != -1:
        place.display_size = steps(order.display_size.at, order.display_size.size, market.lot, market.lot_decimals)
        if place.display_size < 0:
            return False
    if order.expires_at != -1:
        place.expires_at = order.expires_at
    if order.tif.size == -1:
        place.tif = 0
    elif _is(&order.tif, "gtc", 3):
        place.tif = 1
    elif _is(&order.tif, "ioc", 3):
        place.tif = 2
    elif _is(&order.tif, "fok", 3):
        place.tif = 3
    elif _is(&order.tif, "gtd", 3):
        place.tif = 4
    else:
        return False
    if order.stp.size == -1 or _is(&order.stp, "cancel_newest", 13):
        place.stp = 0
    elif _is(&order.stp, "cancel_oldest", 13):
        place.stp = 1
    elif _is(&order.stp, "cancel_both", 11):
        place.stp = 2
    elif _is(&order.stp, "decrement", 9):
        place.stp = 3
    elif _is(&order.stp, "none", 4):
        place.stp = 4
    else:
        return False
    if order.cancel_on_disconnect == 0:
        place.session = OUTLIVES
    if order.post_only == 1:
        place.head.flags |= F_POST_ONLY
    return True


cdef bint _order_name(const OrderText* order, Cancel* record) noexcept nogil:
    """The order that a cancel or replace names, by exactly one of its ids."""
    cdef int64_t order_id = order.order_id
    if (order_id == -1) == (order.client_id.size == -1):
        return False
    if order_id != -1:
        record.head.flags = F_BY_ORDER_ID
        memcpy(record.client_id, &order_id, 8)
        return True
    if not _name(&order.client_id, 32):
        return False
    memcpy(record.client_id, order.client_id.at, order.client_id.size)
    return True


cdef bint fill_cancel(const OrderText* order, uint32_t account, uint8_t* record) noexcept nogil:
    """Write the record of a cancel. False: something is unusual or wrong, and the record must not be used."""
    cdef Cancel* cancel = <Cancel*>record
    memset(record, 0, SLOT)
    cancel.head.kind = OP_CANCEL
    cancel.head.slots = 1
    cancel.account = account
    return _order_name(order, cancel)


cdef bint fill_replace(const OrderText* order, const MarketEntry* market, uint32_t account, uint8_t* record) noexcept nogil:
    """Write the record of a replace of an order of that market. False: as above."""
    cdef Replace* replace = <Replace*>record
    memset(record, 0, SLOT)
    replace.head.kind = OP_REPLACE
    replace.head.slots = 1
    replace.account = account
    replace.price = replace.size = replace.stop_price = ABSENT
    if order.price.size == -1 and order.size.size == -1 and order.stop_price.size == -1 and order.new_client_id.size == -1:
        return False
    if order.price.size != -1:
        replace.price = steps(order.price.at, order.price.size, market.tick, market.tick_decimals)
        if replace.price < 0:
            return False
    if order.size.size != -1:
        replace.size = steps(order.size.at, order.size.size, market.lot, market.lot_decimals)
        if replace.size < 0:
            return False
    if order.stop_price.size != -1:
        replace.stop_price = steps(order.stop_price.at, order.stop_price.size, market.tick, market.tick_decimals)
        if replace.stop_price < 0:
            return False
    if order.new_client_id.size != -1:
        if not _name(&order.new_client_id, 32):
            return False
        memcpy(replace.new_client_id, order.new_client_id.at, order.new_client_id.size)
    return _order_name(order, <Cancel*>record)


def scan_record(bytes text, str market_name, tuple market, uint32_t market_index, uint32_t account):
    """The record for `text`, or None if the thorough path must look at it. For tests: the hot path as Python sees it.

    `market` is (tick mantissa, tick decimals, lot mantissa, lot decimals, scale of the quote asset).
    """
    cdef OrderText order
    cdef MarketEntry entry
    cdef uint8_t[SLOT] record
    cdef bint good = False
    entry.tick, entry.tick_decimals, entry.lot, entry.lot_decimals, entry.quote_scale = market
    scan(text, len(text), &order)
    if order.op == OP_PLACE:
        if order.market.size == -1 or order.market.at[: order.market.size] != market_name.encode():
            return None
        good = fill_place(&order, &entry, market_index, account, record)
    elif order.op == OP_CANCEL:
        good = fill_cancel(&order, account, record)
    elif order.op == OP_REPLACE:
        good = fill_replace(&order, &entry, account, record)
    return (<char*>record)[:SLOT] if good else None
