"""The protocol `byline.binary.v1`: the engine's own records in, acks and event slots out. No object, no lock, no socket.

A record of a client is copied into the journal as it stands, so it must be one that the JSON encoder could have made:
kind and flags known, slots as the flags say, every byte without a meaning zero, texts of the allowed characters and
padded with zeros, numbers positive or ABSENT. What only the core can judge (the order's state, funds, bands, whether a
market order may have a price) goes to the core, as it does from JSON. `tests/unit/gateway/test_binary.py` turns every
record that passes into words, and those words into the same record.

Order of the checks: the exchange's words, kind, scope, flags, slots, account, then the fields as they stand. The first
fault is told with its place in the record.

Worst case: a record of two slots is read once; a frame once before any of it is carried out.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from engine.messages.edge cimport (
    EDGE_BAD_DISPLAY, EDGE_BAD_PRICE, EDGE_BAD_SIZE, EDGE_BAD_STOP, EDGE_FORBIDDEN, EDGE_MALFORMED, EDGE_UNKNOWN_MARKET,
    EDGE_UNKNOWN_OP, MESSAGE_ACK, MESSAGE_REFUSAL, MESSAGE_TOLD, OFFSET_NOT_GIVEN, Ack, Refusal, Told,
)
from engine.messages.records cimport (
    EV_PREVENTED, EV_TRADE, EV_TRANSFERRED, EV_VOIDED, OP_CANCEL, OP_CANCEL_AFTER, OP_KILL, OP_MASS_CANCEL, OP_PLACE,
    OP_POISON, OP_REARM, OP_REPLACE, SLOT, Cancel, CancelAfter, CommandHead, EventHead, Leg, MassCancel, MoneyEvent,
    Place, Poison, Prevented, Replace, Trade,
)

cdef int64_t ABSENT = INT64_MIN
cdef uint32_t NIL = 0xFFFFFFFF
cdef enum:
    F_POST_ONLY = 1
    F_BUDGET = 2
    F_HAS_OCO = 4
    F_BY_ORDER_ID = 1
    GIVEN_ACCOUNT = 1
    GIVEN_MARKET = 2
    SIDE_ABSENT = 255
    LEGS_PER_SLOT = 4
    AT_KIND = 4
    AT_SLOTS = 5
    AT_FLAGS = 6
    AT_TS = 16
    AT_CHAIN = 24
    AT_ACCOUNT = 32
    AT_MARKET = 36  # of place and mass_cancel; `spare` of the others
    AT_NAME = 40  # client id or order id
    AT_PRICE = 72  # of place and replace
    AT_SIZE = 80
    AT_STOP = 88
    AT_DISPLAY = 96
    AT_NEW_NAME = 96
    AT_SIDE = 120
    AT_TYPE = 121
    AT_TIF = 122
    AT_STP = 123
    PLACE_END = 124
    AT_MASS_SIDE = 48
    AT_MASS_GIVEN = 49
    MASS_END = 50
    AFTER_END = 48
    NAME_END = 72
    ACCOUNT_END = 40

# 1 for A-Z a-z 0-9 _ - . :
cdef uint8_t[256] PLAIN
memset(PLAIN, 0, sizeof(PLAIN))
for _c in list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:"):
    PLAIN[<uint8_t>_c] = 1


cdef inline bint _zero(const uint8_t* record, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef uint64_t word
    cdef uint64_t any = 0
    while at + 8 <= end:
        memcpy(&word, record + at, 8)
        any |= word
        at += 8
    while at < end:
        any |= record[at]
        at += 1
    return any == 0


cdef inline bint _text(const uint8_t* text) noexcept nogil:
    """1 … 32 plain characters, then zeros."""
    cdef int size = 0
    while size < 32 and PLAIN[text[size]]:
        size += 1
    return size > 0 and _zero(text, size, 32)


cdef inline bint _amount(int64_t value) noexcept nogil:
    """Positive, or not given."""
    return value > 0 or value == ABSENT


cdef Py_ssize_t count_commands(const uint8_t* payload, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t count = 0
    if size == 0 or size % SLOT:
        return -1
    while at < size:
        if payload[at + AT_SLOTS] == 0:
            return -1
        at += <Py_ssize_t>payload[at + AT_SLOTS] * SLOT
        count += 1
    return count if at == size else -1


cdef bint takes_risk_away(uint8_t kind) noexcept nogil:
    return (
        kind == OP_CANCEL or kind == OP_MASS_CANCEL or kind == OP_CANCEL_AFTER or kind == OP_KILL or kind == OP_POISON
    )


cdef inline bint _owned(uint32_t account, const Rights* rights) noexcept nogil:
    cdef uint32_t i
    for i in range(rights.account_count):
        if rights.accounts[i] == account:
            return True
    return False


cdef uint16_t check(const uint8_t* record, const Rights* rights, uint16_t* offset) noexcept nogil:
    cdef const CommandHead* head = <const CommandHead*>record
    cdef uint8_t slots = 1
    cdef uint16_t allowed = 0
    offset[0] = 0
    if head.crc32c:
        return EDGE_MALFORMED
    if head.ts:
        offset[0] = AT_TS
        return EDGE_MALFORMED
    if head.chain:
        offset[0] = AT_CHAIN
        return EDGE_MALFORMED
    offset[0] = AT_KIND
    if head.kind == OP_PLACE:
        allowed = F_POST_ONLY | F_BUDGET | F_HAS_OCO
        slots = 2 if head.flags & F_HAS_OCO else 1
    elif head.kind == OP_CANCEL or head.kind == OP_REPLACE:
        allowed = F_BY_ORDER_ID
    elif not (
        head.kind == OP_MASS_CANCEL or head.kind == OP_KILL or head.kind == OP_REARM or head.kind == OP_CANCEL_AFTER
        or head.kind == OP_POISON
    ):
        return EDGE_UNKNOWN_OP
    # A key that only cancels poisons nothing: ids are a scarce good.
    if not (rights.may_cancel if takes_risk_away(head.kind) and head.kind != OP_POISON else rights.may_trade):
        return EDGE_FORBIDDEN
    offset[0] = AT_FLAGS
    if head.flags & ~allowed:
        return EDGE_MALFORMED
    offset[0] = AT_SLOTS
    if head.slots != slots:
        return EDGE_MALFORMED
    offset[0] = AT_ACCOUNT  # every kind has it there
    if not _owned((<const Cancel*>record).account, rights):
        return EDGE_FORBIDDEN
    if head.kind == OP_PLACE:
        return _check_place(record, rights, offset)
    if head.kind == OP_MASS_CANCEL:
        return _check_mass_cancel(record, offset)
    offset[0] = AT_MARKET
    if (<const Cancel*>record).spare:
        return EDGE_MALFORMED
    if head.kind == OP_CANCEL:
        return _check_name(record, NAME_END, offset)
    if head.kind == OP_REPLACE:
        return _check_replace(record, offset)
    offset[0] = AT_NAME
    if head.kind == OP_POISON:
        if not _text(record + AT_NAME):
            return EDGE_MALFORMED
        return _rest(record, NAME_END, offset)
    if head.kind == OP_CANCEL_AFTER:
        if (<const CancelAfter*>record).at == ABSENT:
            return EDGE_MALFORMED
        return _rest(record, AFTER_END, offset)
    return _rest(record, ACCOUNT_END, offset)


cdef inline uint16_t _rest(const uint8_t* record, uint16_t end, uint16_t* offset) noexcept nogil:
    """What a record does not use of its head slot is zero."""
    offset[0] = end
    return 0 if _zero(record, end, SLOT) else EDGE_MALFORMED


cdef uint16_t _check_name(const uint8_t* record, uint16_t end, uint16_t* offset) noexcept nogil:
    """The order that a cancel or replace names, and the rest behind `end`."""
    offset[0] = AT_NAME
    if (<const CommandHead*>record).flags & F_BY_ORDER_ID:
        if not _zero(record, AT_NAME + 8, NAME_END):
            return EDGE_MALFORMED
    elif not _text(record + AT_NAME):
        return EDGE_MALFORMED
    return _rest(record, end, offset)


cdef uint16_t _check_replace(const uint8_t* record, uint16_t* offset) noexcept nogil:
    cdef const Replace* replace = <const Replace*>record
    cdef bint renames = not _zero(record, AT_NEW_NAME, SLOT)
    cdef uint16_t code = _check_name(record, SLOT, offset)
    if code:
        return code
    offset[0] = AT_PRICE
    if replace.price == ABSENT and replace.size == ABSENT and replace.stop_price == ABSENT and not renames:
        return EDGE_MALFORMED
    if not _amount(replace.price):
        return EDGE_BAD_PRICE
    offset[0] = AT_SIZE
    if not _amount(replace.size):
        return EDGE_BAD_SIZE
    offset[0] = AT_STOP
    if not _amount(replace.stop_price):
        return EDGE_BAD_STOP
    offset[0] = AT_NEW_NAME
    return EDGE_MALFORMED if renames and not _text(record + AT_NEW_NAME) else 0


cdef uint16_t _check_place(const uint8_t* record, const Rights* rights, uint16_t* offset) noexcept nogil:
    cdef const Place* place = <const Place*>record
    offset[0] = AT_MARKET
    if place.market >= rights.market_count:
        return EDGE_UNKNOWN_MARKET
    offset[0] = AT_NAME
    if not _text(record + AT_NAME):
        return EDGE_MALFORMED
    offset[0] = AT_PRICE
    if not _amount(place.price):
        return EDGE_BAD_PRICE
    offset[0] = AT_SIZE
    if place.size <= 0:
        return EDGE_BAD_SIZE
    offset[0] = AT_STOP
    if not _amount(place.stop_price):
        return EDGE_BAD_STOP
    offset[0] = AT_DISPLAY
    if not _amount(place.display_size):
        return EDGE_BAD_DISPLAY
    offset[0] = AT_SIDE
    if place.side > 1:
        return EDGE_MALFORMED
    offset[0] = AT_TYPE
    if place.type < 1 or place.type > 4:
        return EDGE_MALFORMED
    offset[0] = AT_TIF
    if place.tif > 4:
        return EDGE_MALFORMED
    offset[0] = AT_STP
    if place.stp > 4:
        return EDGE_MALFORMED
    if place.head.slots == 2:
        offset[0] = SLOT
        if not _text(record + SLOT):
            return EDGE_MALFORMED
        offset[0] = SLOT + 32
        if not _zero(record, SLOT + 32, 2 * SLOT):
            return EDGE_MALFORMED
    return _rest(record, PLACE_END, offset)


cdef uint16_t _check_mass_cancel(const uint8_t* record, uint16_t* offset) noexcept nogil:
    cdef const MassCancel* mass = <const MassCancel*>record
    offset[0] = AT_MASS_GIVEN
    if mass.given != GIVEN_ACCOUNT and mass.given != GIVEN_ACCOUNT | GIVEN_MARKET:
        return EDGE_MALFORMED  # without an account it would be everybody's orders
    offset[0] = AT_MARKET
    if mass.market != NIL and not mass.given & GIVEN_MARKET:
        return EDGE_MALFORMED
    offset[0] = AT_MASS_SIDE
    if mass.side > 1 and mass.side != SIDE_ABSENT:
        return EDGE_MALFORMED
    return _rest(record, MASS_END, offset)


# ---------------------------------------------------------------- answers


cdef char* put_ack(char* p, uint64_t rid, uint64_t sequence, uint64_t chain, int64_t t_in, int64_t t_durable,
                   int64_t t_matched, int64_t t_out, uint32_t rate_left, const uint8_t* event) noexcept nogil:
    """An ack and the whole of its event (NULL: the command has none)."""
    cdef Ack* ack = <Ack*>p
    cdef Py_ssize_t size = 0
    ack.type = MESSAGE_ACK
    ack.slots = 0
    ack.spare = 0
    ack.rate_left = rate_left
    ack.rid = rid
    ack.sequence = sequence
    ack.chain = chain
    ack.t_in = t_in
    ack.t_durable = t_durable
    ack.t_matched = t_matched
    ack.t_out = t_out
    if event != NULL:
        ack.slots = (<const EventHead*>event).slots
        size = <Py_ssize_t>ack.slots * SLOT
        memcpy(p + sizeof(Ack), event, size)
    return p + sizeof(Ack) + size


cdef char* put_refusal(char* p, uint64_t rid, uint16_t code, uint16_t offset, uint32_t index, int64_t t_out,
                       uint32_t rate_left) noexcept nogil:
    cdef Refusal* refusal = <Refusal*>p
    memset(p, 0, sizeof(Refusal))
    refusal.type = MESSAGE_REFUSAL
    refusal.code = code
    refusal.rate_left = rate_left
    refusal.rid = rid
    refusal.index = index
    refusal.offset = offset
    refusal.t_out = t_out
    return p + sizeof(Refusal)


cdef char* put_told(char* p, const uint8_t* event, uint32_t own) noexcept nogil:
    cdef Told* told = <Told*>p
    cdef uint8_t kind = (<const EventHead*>event).kind
    cdef uint8_t* slots = <uint8_t*>p + sizeof(Told)
    memset(p, 0, sizeof(Told))
    told.type = MESSAGE_TOLD
    if EV_TRANSFERRED <= kind <= EV_VOIDED and own != NIL:
        told.slots = _put_own_legs(slots, event, own)
    else:
        told.slots = (<const EventHead*>event).slots
        memcpy(slots, event, <size_t>told.slots * SLOT)
        if own != NIL and kind == EV_TRADE:
            _blank_trade(<Trade*>slots, own)
        elif own != NIL and kind == EV_PREVENTED:
            _blank_prevented(<Prevented*>slots, own)
    return <char*>slots + <Py_ssize_t>told.slots * SLOT


cdef void _blank_trade(Trade* trade, uint32_t own) noexcept nogil:
    """Without the counterparty's order, account, fee, leaves and released money."""
    if trade.head.account != own:
        trade.head.account = NIL
        trade.maker_order_id = 0
        trade.maker_leaves = ABSENT
        trade.maker_fee = ABSENT
        if trade.buyer == 0:
            trade.released = ABSENT
    if trade.taker_account != own:
        trade.taker_account = NIL
        trade.taker_order_id = 0
        trade.taker_leaves = ABSENT
        trade.taker_fee = ABSENT
        if trade.buyer == 1:
            trade.released = ABSENT


cdef void _blank_prevented(Prevented* prevented, uint32_t own) noexcept nogil:
    if prevented.head.account != own:
        prevented.head.account = NIL
        prevented.maker_order_id = 0
        prevented.maker_leaves = ABSENT
        prevented.maker_released = ABSENT
    if prevented.taker_account != own:
        prevented.taker_account = NIL
        prevented.taker_order_id = 0
        prevented.taker_leaves = ABSENT
        prevented.taker_released = ABSENT


cdef uint8_t _put_own_legs(uint8_t* target, const uint8_t* event, uint32_t own) noexcept nogil:
    """A movement of money with the legs of one account alone: how many slots it has become."""
    cdef const MoneyEvent* money = <const MoneyEvent*>event
    cdef MoneyEvent* copy = <MoneyEvent*>target
    cdef int before = 2 if money.has_memo else 1
    cdef const Leg* legs = <const Leg*>(event + before * SLOT)
    cdef Leg* kept = <Leg*>(target + before * SLOT)
    cdef uint16_t i
    cdef uint16_t count = 0
    memcpy(target, event, before * SLOT)
    for i in range(money.leg_count):
        if legs[i].source == own or legs[i].target == own:
            kept[count] = legs[i]
            count += 1
    memset(&kept[count], 0, ((LEGS_PER_SLOT - count % LEGS_PER_SLOT) % LEGS_PER_SLOT) * sizeof(Leg))
    copy.leg_count = count
    copy.head.slots = <uint8_t>(before + (count + LEGS_PER_SLOT - 1) // LEGS_PER_SLOT)
    return copy.head.slots


# ---------------------------------------------------------------- for tests


def command_count(const uint8_t[::1] frame not None):
    """How many commands a frame holds; -1 if it is no whole number of records."""
    return count_commands(&frame[0], frame.shape[0]) if frame.shape[0] else -1


def first_fault(const uint8_t[::1] record not None, accounts, uint32_t market_count, bint may_trade=True,
                bint may_cancel=True):
    """(EdgeCode, offset) of the first fault of a record in whole slots, or None."""
    cdef uint32_t[64] owned
    cdef Rights rights
    cdef uint16_t offset = OFFSET_NOT_GIVEN
    cdef uint16_t code
    cdef uint32_t i
    if count_commands(&record[0], record.shape[0]) != 1 or len(accounts) > 64:
        raise ValueError("one record, of a key of at most 64 accounts")
    for i in range(<uint32_t>len(accounts)):
        owned[i] = accounts[i]
    rights.accounts = owned
    rights.account_count = <uint32_t>len(accounts)
    rights.market_count = market_count
    rights.may_trade = may_trade
    rights.may_cancel = may_cancel
    code = check(&record[0], &rights, &offset)
    return (code, offset) if code else None


def told_message(const uint8_t[::1] event not None, uint32_t own=0xFFFFFFFF):
    """The message in which `own` hears of an event."""
    cdef char[MESSAGE_MAX] buffer
    cdef char* end
    if event.shape[0] < SLOT or event.shape[0] != event[29] * SLOT:
        raise ValueError("an event is as many slots as it says")
    end = put_told(buffer, &event[0], own)
    return buffer[: end - <char*>buffer]
