"""Private events of the past for one session, from the event log: what `resume` tells, in bounded steps.

    begin ─▶ LOOK    from `after` to what was released: which older orders do these events name?
             TELL    from the oldest of these orders on, quietly up to `after`, then aloud, up to the live end
             done    in the step that reaches it the connection hears live again: no event is missing, none comes twice

An event names an order by its number alone; its client id and whether it is told in quote units stand in the `accepted`
of that order, and in renames since. So the orders of these accounts are kept here as they stood at each event: those
that the past names are followed from their own beginning, the others are taken as they stand now.

A number of an order is the sequence of the command that placed it, so LOOK knows where to begin.

Invariants: what is told equals, byte for byte, what a session that had been there all along was told, but that the
first event of an own command, which it had as its ack, comes as an event. While a replay runs, acks go on at once and
live events wait for their turn in it; the first event of a command that was acked meanwhile is not told again.
Cost: one pass of LOOK and one of TELL, 10 to 20 ns a slot, and the encoding of what is told. A step handles at most
the slots it is given. Memory: the open orders of the accounts.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine.messages.records cimport (
    EV_ACCEPTED, EV_CANCELED, EV_DUPLICATE, EV_PREVENTED, EV_REFRESHED, EV_REJECTED, EV_REPLACED, EV_TRADE,
    EV_TRANSFERRED, EV_TRIGGERED, EV_VOIDED, OP_PLACE, SLOT, Accepted, Canceled, Duplicate, EventHead, Leg, MoneyEvent,
    Prevented, Rejected, Trade,
)
from gateway.hub cimport Connection, Hub
from gateway.orders cimport OpenOrders, OrderEntry
from gateway.transport cimport unsent
from gateway.wire.binary cimport MESSAGE_MAX, put_told
from gateway.wire.encode cimport is_fast, put_event

from gateway.wire.json import encode

__all__ = ["Replay", "had_budget", "rejections_in"]

cdef uint32_t NONE = 0xFFFFFFFF
cdef enum:
    LOOK = 0
    TELL = 1
    DONE = 2
    FLAG_BUDGET = 2


def had_budget(events):
    """Whether a command's event slots begin with the acceptance of an order that was bounded by its budget."""
    cdef const uint8_t[::1] slots = events.view("u1")
    if slots.shape[0] < SLOT or (<const EventHead*>&slots[0]).kind != EV_ACCEPTED:
        return False
    return (<const Accepted*>&slots[0]).flags & FLAG_BUDGET != 0


def rejections_in(events):
    """(account, client id, sequence, reason) of each refused place in whole commands of event slots."""
    cdef const uint8_t[::1] slots = events.view("u1")
    cdef Py_ssize_t at = 0
    cdef const Rejected* event
    found = []
    while at < slots.shape[0]:
        event = <const Rejected*>&slots[at]
        if event.head.kind == EV_REJECTED and event.head.op == OP_PLACE:
            found.append((event.head.account, <bytes>event.text[:32].rstrip(b"\0"), event.head.sequence, event.head.reason))
        at += (event.head.slots if event.head.slots else 1) * SLOT
    return found


cdef class Replay:
    """One `resume`. `step` until it says True.

    Args:
        hub, connection: who tells, and whom; from now on live events are held back from it.
        source: an EventSource of its own.
        after: the last sequence that the client has seen.
    """

    cdef Hub hub
    cdef readonly Connection connection
    cdef object source
    cdef OpenOrders orders
    cdef set named  # orders placed up to `after` that events behind it name
    cdef readonly uint64_t after
    cdef uint64_t told_since, told_until  # what the session was told live before
    cdef uint64_t mark
    cdef int stage
    cdef readonly uint64_t told  # events

    def __init__(self, Hub hub not None, Connection connection not None, source, uint64_t after):
        self.hub = hub
        self.connection = connection
        self.source = source
        self.after = after
        self.orders = OpenOrders(64)
        self.named = set()
        self.mark = hub.sequencer.released_sequence
        self.told_since = connection.told_since
        self.told_until = self.mark
        self.stage = LOOK
        connection.holds = True
        connection.held_from = after
        for account in connection.accounts:
            self._take_open(account)
        source.seek(after)

    @property
    def is_blocked(self):
        """Whether the client does not take what it was told: go on later."""
        return self.connection.size + unsent(self.connection.transport) > self.hub.write_high // 4

    def step(self, int limit_slots):
        """Handle at most so many slots (or one command). True: it is over, and the connection hears live again."""
        cdef const uint8_t[::1] slots
        cdef Py_ssize_t at = 0
        cdef const EventHead* head
        if self.stage == DONE or self.connection.is_ending:
            self._end()
            return True
        events = self.source.read(limit_slots)
        if len(events) == 0:
            if self.stage == LOOK:
                self._begin_to_tell()
                return False
            if self.source.head_sequence < self.hub.sequencer.released_sequence:
                return False  # the log is being built anew
            self._end()
            return True
        slots = events.view("u1")
        while at < slots.shape[0]:
            head = <const EventHead*>&slots[at]
            if self.stage == LOOK:
                if head.sequence > self.mark:
                    self._begin_to_tell()
                    return False
                self._look(&slots[at])
            else:
                self._tell(&slots[at])
            at += (head.slots if head.slots else 1) * SLOT
        return False

    cdef int _end(self) except -1:
        self.stage = DONE
        self.connection.holds = False
        self.connection.acked.clear()
        if self.after < self.connection.told_since:
            self.connection.told_since = self.after
        return 0

    cdef bint _own(self, uint32_t account):
        return account in self.connection.accounts

    cdef int _take_open(self, uint32_t account) except -1:
        """Copy the account's orders as they stand now; those that the past names are followed anew later."""
        cdef OpenOrders live = self.hub.orders
        cdef OrderEntry* entry
        cdef uint32_t at = live.firsts[account] if account < live.account_room else NONE
        while at != NONE:
            entry = &live.pool[at]
            at = entry.next
            if entry.order_id > self.after:
                continue  # its `accepted` is told
            self.orders.adopt(entry)
        return 0

    cdef int _name(self, uint64_t order_id) except -1:
        if 0 < order_id <= self.after:
            self.named.add(order_id)
        return 0

    cdef int _look(self, const uint8_t* slot) except -1:
        """Note the older orders that an event names."""
        cdef const EventHead* head = <const EventHead*>slot
        if head.kind == EV_TRADE:
            if self._own(head.account):
                self._name((<const Trade*>slot).maker_order_id)
            if self._own((<const Trade*>slot).taker_account):
                self._name((<const Trade*>slot).taker_order_id)
        elif head.kind == EV_PREVENTED:
            if self._own(head.account):
                self._name((<const Prevented*>slot).maker_order_id)
            if self._own((<const Prevented*>slot).taker_account):
                self._name((<const Prevented*>slot).taker_order_id)
        elif (
            head.kind == EV_CANCELED or head.kind == EV_REPLACED or head.kind == EV_TRIGGERED or head.kind == EV_REFRESHED
        ):
            if self._own(head.account):
                self._name((<const Canceled*>slot).order_id)
        elif head.kind == EV_DUPLICATE and (<const Duplicate*>slot).flags == 0 and self._own(head.account):
            self._name((<const Duplicate*>slot).order_id)
        return 0

    cdef int _begin_to_tell(self) except -1:
        """Go back to where the oldest of the orders named was placed."""
        self.stage = TELL
        for order_id in self.named:
            self.orders._remove(order_id)
        self.source.seek(min(self.named) - 1 if self.named else self.after)
        return 0

    cdef int _tell(self, const uint8_t* slot) except -1:
        cdef const EventHead* head = <const EventHead*>slot
        cdef uint32_t other
        if head.sequence > self.after and not self.told_since < head.sequence <= self.told_until:
            if head.account != NONE and self._own(head.account):
                self._put(head.account, slot)
            if head.kind == EV_TRADE or head.kind == EV_PREVENTED:
                other = (<const Trade*>slot).taker_account if head.kind == EV_TRADE else (<const Prevented*>slot).taker_account
                if other != head.account and self._own(other):
                    self._put(other, slot)
            elif EV_TRANSFERRED <= head.kind <= EV_VOIDED:
                self._put_money(slot)
        if head.kind == EV_ACCEPTED:
            if self._own(head.account) and self.orders.find((<const Accepted*>slot).order_id) == NULL:
                self.orders.apply(slot)
        else:
            self.orders.apply(slot)
        return 0

    cdef bint _was_acked(self, const EventHead* head):
        return head.index == 0 and head.sequence in self.connection.acked

    cdef int _put(self, uint32_t account, const uint8_t* slot) except -1:
        cdef char* p
        if self._was_acked(<const EventHead*>slot):
            return 0
        if self.connection.is_binary:
            self.connection.extend(put_told(self.connection.reserve(MESSAGE_MAX), slot, account))
        elif is_fast(slot):
            p = self.connection.begin()
            self.connection.end(put_event(p, slot, self.hub.names, self.orders, account, False))
        else:
            self.connection.put(encode(self.hub.decode(slot[: <Py_ssize_t>(<const EventHead*>slot).slots * SLOT])))
        self.told += 1
        return self.hub.touch(self.connection)

    cdef bint _has_own_legs(self, const uint8_t* slot):
        """Whether a movement of money is of these accounts: most are not, and only those that are get words."""
        cdef const MoneyEvent* money = <const MoneyEvent*>slot
        cdef const Leg* legs = <const Leg*>(slot + (2 if money.has_memo else 1) * SLOT)
        cdef uint16_t i
        for i in range(money.leg_count):
            if self._own(legs[i].source) or self._own(legs[i].target):
                return True
        return False

    cdef int _put_money(self, const uint8_t* slot) except -1:
        """A movement of money, once for each own account in it, with that account's legs: as the hub tells it."""
        if self._was_acked(<const EventHead*>slot) or not self._has_own_legs(slot):
            return 0
        event = self.hub.decode(slot[: <Py_ssize_t>(<const EventHead*>slot).slots * SLOT])
        legs = event.get("legs", ())
        for name in dict.fromkeys(leg[end] for leg in legs for end in ("from", "to")):
            index = self.hub.names.account_index(name)
            if index is not None and self._own(index):
                if self.connection.is_binary:
                    self.connection.extend(put_told(self.connection.reserve(MESSAGE_MAX), slot, index))
                else:
                    mine = [leg for leg in legs if name in (leg["from"], leg["to"])]
                    self.connection.put(encode(event | {"legs": mine}))
                self.told += 1
                self.hub.touch(self.connection)
        return 0
