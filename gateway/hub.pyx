"""From released commands to the clients: acks to whoever asked, private events to every session of the account.

Owns the connections, their outgoing buffers, the open orders and the routing by account. What all reads of one turn of
the loop bring about is told together, at the end of the turn or after READS_MAX reads: one release writes into the
buffers of all connections that it touches, `flush` sends each buffer once, and a fill does not cost its other side a
packet of its own if that side has an answer coming anyway. The session that sent a command gets its
ack first and then, as any session of the account, the events that follow; it does not get the first event twice. What
happens to a whole market (`phase_changed`, `uncrossed`) touches no account: it follows the ack of the session that brought
it about, and is public in market data.

Invariants: nothing is encoded that the sequencer has not released, so `t_out` is the time of telling, and answers to
questions (`balances`, `open_orders`, `status`) wait behind everything submitted before them.
Worst case: a reader that does not read is closed at `write_high` unsent bytes; every buffer here shrinks after it. The
events of one read, however many (an uncross, a cascade of stops), are written whole before that bound is asked again: a
client is slow when it does not take what it was given before, not when it was given much.
"""

from asyncio import get_running_loop
from collections import deque
from fractions import Fraction

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from picows.picows cimport WSCloseCode, WSTransport

from gateway.guard cimport (
    COLLAR, EXPIRED_KEY, IN_VAIN, MARKET_NOT_PERMITTED, OUTLIVES, PROTECTED, RATE_LIMITED, SESSION_NOT_PERMITTED, UNPRICED,
    Allowance, Guard,
)
from gateway.names cimport MarketEntry, Names
from gateway.orders cimport OpenOrders
from engine.messages.records cimport (
    EV_ACCEPTED, EV_CANCELED, EV_PHASE_CHANGED, EV_PREVENTED, EV_REJECTED, EV_TRADE, EV_TRANSFERRED, EV_UNCROSSED,
    EV_VOIDED, OP_CANCEL, OP_PLACE, OP_POISON, OP_REPLACE, SLOT, Canceled, EventHead, Place, Prevented, Rejected, Replace, Trade,
)
from gateway.sequencer cimport BUSY, CLOSED, FAILED, RECORD, TEXT, Pending, Sequencer
from gateway.stages cimport Stages
from gateway.transport cimport unsent, write_frames
from gateway.wire.binary cimport MESSAGE_MAX, put_ack, put_refusal, put_told, takes_risk_away
from gateway.wire.encode cimport EVENT_BYTES_MAX, is_fast, put_ack_head, put_event

from engine.messages.codes import ABSENT as _ABSENT
from gateway.wire.json import encode

cdef uint32_t NIL = 0xFFFFFFFF
cdef int64_t ABSENT = _ABSENT
cdef dict REFUSALS = {
    BUSY: "busy", FAILED: "failed", CLOSED: "closed", RATE_LIMITED: "rate_limited",
    MARKET_NOT_PERMITTED: "market_not_permitted", COLLAR: "collar", PROTECTED: "protection", EXPIRED_KEY: "expired_key",
    SESSION_NOT_PERMITTED: "session_not_permitted", IN_VAIN: "in_vain", UNPRICED: "unpriced",
}  # fmt: skip
cdef enum:
    HEADER = 10  # the longest frame header
    START_ROOM = 4096
    F_BY_ORDER_ID = 1
    KEEP_ROOM = 65536  # a buffer larger than this is given back when empty
    TOLD = 384  # request id, sequence, chain, times and rate of an ack
    FRAME_MAX = 65535  # payload of one binary frame; what does not fit begins the next
    HEAD = 4  # of a binary frame of 126 bytes and more
    SEATS_MAX = 65536
    READS_MAX = 32  # of one turn, before what they brought about is told: a busy turn must not hold the first of them long


cdef class Counters:
    """Plain counts since the start, for /metrics."""

    def as_dict(self):
        return {name: getattr(self, name) for name in COUNTED}


COUNTED = tuple(sorted(name for name in dir(Counters) if not name.startswith("_") and name != "as_dict"))


cdef class Connection:
    """One client. `begin` and `end` enclose a text frame in its buffer, `reserve` and `extend` a message of a binary one.

    Messages gather in one binary frame until it is full, a text frame follows or the buffer is sent.
    """

    def __cinit__(self, uint64_t number, session, WSTransport transport):
        self.number = number
        self.session = session
        self.transport = transport
        self.account = NIL
        self.market = NIL
        self.accounts = []
        self.acked = set()
        self.frame_at = -1
        self.rate_left = -1
        self.is_binary = session.is_binary
        self.owned = NULL
        self.room = START_ROOM
        self.buffer = <char*>PyMem_Malloc(self.room)
        if self.buffer == NULL:
            raise MemoryError("no memory for a connection")

    def __dealloc__(self):
        PyMem_Free(self.buffer)
        PyMem_Free(self.owned)

    cdef int _grow(self, Py_ssize_t need) except -1:
        cdef char* grown = <char*>PyMem_Realloc(self.buffer, need * 2)
        if grown == NULL:
            raise MemoryError("no memory for an answer")
        self.buffer = grown
        self.room = need * 2
        return 0

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        """Where a message of at most `size` bytes goes, in the binary frame that is open."""
        if self.frame_at != -1 and self.size + size - self.frame_at - HEAD > FRAME_MAX:
            self.seal()
        if self.size + HEAD + size > self.room:
            self._grow(self.size + HEAD + size)
        if self.frame_at == -1:
            self.frame_at = self.size
            self.size += HEAD
        return self.buffer + self.size

    cdef int extend(self, char* end) except -1:
        """The message stands between `reserve` and `end`."""
        self.size = end - self.buffer
        assert self.size <= self.room
        return 0

    cdef int seal(self) except -1:
        """Write the header of the open binary frame in front of what it holds."""
        cdef char* start
        cdef Py_ssize_t size
        if self.frame_at == -1:
            return 0
        start = self.buffer + self.frame_at
        size = self.size - self.frame_at - HEAD
        self.frame_at = -1
        assert 0 < size <= FRAME_MAX
        start[0] = <char>0x82
        if size < 126:
            memmove(start + 2, start + HEAD, size)
            start[1] = <char>size
            self.size -= 2
        else:
            start[1] = 126
            start[2] = <char>(size >> 8)
            start[3] = <char>(size & 0xFF)
        return 0

    @property
    def peer(self):
        """The address that it comes from, without the port."""
        name = self.transport.underlying_transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def unsent(self):
        """Bytes that wait for the peer to take them."""
        return self.size + unsent(self.transport)

    def told_until(self, uint64_t released):
        """The last sequence whose private events it has all been told, if everything up to `released` is told."""
        return self.held_from if self.holds else released

    cdef char* begin(self) except NULL:
        """Where the payload of the next frame goes: room for one fast event and its ack."""
        cdef Py_ssize_t need
        if self.frame_at != -1:
            self.seal()
        need = self.size + HEADER + EVENT_BYTES_MAX + TOLD
        if need > self.room:
            self._grow(need)
        return self.buffer + self.size + 4

    cdef int end(self, char* end) except -1:
        """The payload stands between begin and `end`: write its header in front of it."""
        cdef char* start = self.buffer + self.size
        cdef Py_ssize_t size = end - start - 4
        assert 0 < size < 65536
        start[0] = <char>0x81
        if size < 126:
            memmove(start + 2, start + 4, size)
            start[1] = <char>size
            self.size += 2 + size
        else:
            start[1] = 126
            start[2] = <char>(size >> 8)
            start[3] = <char>(size & 0xFF)
            self.size += 4 + size
        return 0

    cdef int put(self, bytes payload) except -1:
        """A whole text frame of any size."""
        cdef Py_ssize_t size = len(payload)
        cdef char* at
        cdef int i
        self.seal()
        if self.size + HEADER + size > self.room:
            self._grow(self.size + HEADER + size)
        at = self.buffer + self.size
        at[0] = <char>0x81
        if size < 126:
            at[1] = <char>size
            at += 2
        elif size < 65536:
            at[1] = 126
            at[2] = <char>(size >> 8)
            at[3] = <char>(size & 0xFF)
            at += 4
        else:
            at[1] = 127
            for i in range(8):
                at[2 + i] = <char>((<uint64_t>size >> (56 - 8 * i)) & 0xFF)
            at += 10
        memcpy(at, <char*>payload, size)
        self.size = at + size - self.buffer
        return 0


cdef class Hub(ReleaseSink):
    """See the module.

    Args:
        sequencer: whose sink this becomes.
        names, orders: fed with everything that was released before.
        decode: callable from the slots of one event (bytes) to its JSON object, for the rare events.
        answer: callable(Ask, session) to the frame that answers it. It raises nothing that one client can bring about.
        asks_max, asks_per_connection_max: questions that may wait, of all and of one.
    """

    def __init__(self, Sequencer sequencer not None, Names names not None, OpenOrders orders not None, decode,
                 answer, Counters counters not None, Py_ssize_t write_high, Py_ssize_t asks_max, uint32_t asks_per_connection_max):
        self.sequencer = sequencer
        self.names = names
        self.orders = orders
        self.decode = decode
        self.answer = answer
        self.counters = counters
        self.stages = Stages()
        self.write_high = write_high
        self.connections = {}
        self.seats = []
        self.free_seats = []
        self.listeners = []
        self.allowances = []
        self.dirty = []
        self.asks = deque()
        self.asks_max = asks_max
        self.asks_per_connection_max = asks_per_connection_max
        self.on_fatal = None
        self.look = None
        self.collar_rule = None
        self.rejections = None
        self.guarded = {}
        self.receipts = None
        self.state_hash = None
        sequencer.set_sink(self)

    def __len__(self):
        return len(self.connections)

    def sessions(self):
        """The living sessions."""
        return [(<Connection>c).session for c in self.connections.values()]

    def connect(self, session, WSTransport transport):
        """A new connection for `session`. A number is never given twice; its seat is."""
        cdef uint64_t number
        if self.free_seats:
            seat = self.free_seats.pop()
        else:
            seat = len(self.seats)
            assert seat < SEATS_MAX, "more sessions than settings can ask for"
            self.seats.append(None)
        self.numbers += 1
        number = self.numbers << 16 | <uint64_t>seat
        connection = Connection(number, session, transport)
        self.seats[seat] = self.connections[number] = connection
        return connection

    def disconnect(self, Connection connection not None):
        """It is gone: nothing is told to it any more."""
        if self.connections.pop(connection.number, None) is not None:
            self.seats[<Py_ssize_t>(connection.number & 0xFFFF)] = None
            self.free_seats.append(connection.number & 0xFFFF)
        for index in connection.accounts:
            self.listeners[index].remove(connection)
        connection.accounts = []
        connection.is_ending = True

    def subscribe(self, Connection connection not None, list accounts, bint may_trade, bint may_cancel):
        """From now on it hears of these account indices; the first is the default of its commands."""
        cdef Py_ssize_t at
        for index in accounts:
            while len(self.listeners) <= index:
                self.listeners.append(None)
            if self.listeners[index] is None:
                self.listeners[index] = []
            self.listeners[index].append(connection)
        connection.accounts = accounts
        connection.told_since = self.sequencer.released_sequence
        connection.account = accounts[0] if accounts else NIL
        connection.may_trade = may_trade and len(accounts) > 0
        connection.may_cancel = may_cancel and len(accounts) > 0
        cdef uint32_t* owned = <uint32_t*>PyMem_Malloc((len(accounts) + 1) * sizeof(uint32_t))
        if owned == NULL:
            raise MemoryError("no memory for the accounts of a session")
        for at in range(len(accounts)):
            owned[at] = accounts[at]
        PyMem_Free(connection.owned)  # its rights name the old ones until here
        connection.owned = connection.rights.accounts = owned
        connection.rights.account_count = <uint32_t>len(accounts)
        connection.rights.may_trade = connection.may_trade
        connection.rights.may_cancel = connection.may_cancel

    def send(self, Connection connection not None, bytes payload not None):
        """Queue a text frame."""
        connection.put(payload)
        self.touch(connection)

    def ask(self, Connection connection not None, question):
        """Answer when everything submitted so far may be told.

        What comes from the core (`look`) is read now and told then: the core is always ahead of what may be told, so a
        later look would tell of commands that a crash can still undo. Refused if too many wait, or if the wait would have no end.
        """
        if self.sequencer.journal_errno and self.sequencer.sequence > self.sequencer.released_sequence:
            self.send(connection, connection.session.not_answered("failed", question.rid))
            return
        if connection.asks >= self.asks_per_connection_max or len(self.asks) >= self.asks_max:
            self.counters.refused_busy += 1
            self.send(connection, connection.session.not_answered("busy", question.rid))
            return
        connection.asks += 1
        early = None if self.look is None else self.look(question, connection.session)
        self.asks.append((self.sequencer.sequence, connection, question, early))

    def broadcast(self, bytes payload not None):
        """Queue a frame to everybody who has signed in."""
        for connection in self.connections.values():
            if (<Connection>connection).session.key is not None:
                self.send(connection, payload)

    def submit(self, Connection connection not None, record, bytes rid not None, bint reserved, bint is_free=False,
               bint wants_receipt=False, str side=""):
        """A command from the thorough path: the sequence it got. If it is not taken, its error is queued, and 0.

        `is_free`: it goes with the one before it, if a request was taken for that. `wants_receipt`: sign one when it is
        told. `side`: of a quote.
        """
        cdef bytearray copy = bytearray(record)
        cdef char* start = copy
        cdef int64_t t_in = self.sequencer.read_clock()
        cdef Guard guard = connection.guard
        cdef bint counts = guard is not None and not takes_risk_away(copy[4])
        cdef uint32_t market = self._market_of(connection, <uint8_t*>start)
        cdef int why
        is_free = is_free and connection.has_paid
        if counts and is_free:
            guard.allowance.give_back()
        why = self.admit(connection, <uint8_t*>start, market, t_in)
        self.counters.commands_thorough += 1
        if why == 0:
            why = self.sequencer.submit(
                <uint8_t*>start, <uint32_t>(len(copy) // SLOT), connection.number, rid, len(rid), TEXT, t_in, reserved
            )
            if why and guard is not None and not (counts and is_free):
                guard.allowance.untake(copy[4])
        elif counts and is_free:
            guard.allowance.take_request(t_in)  # lent above
        if counts and not is_free:
            connection.has_paid = not why
        if why:
            self.refuse(connection, why, rid, market, side)
            return 0
        self.taken(connection, copy[4])
        if wants_receipt:
            self.receipts.ask(connection, self.sequencer.sequence, bytes(copy), self.state_hash())
        return self.sequencer.sequence

    cdef int admit(self, Connection connection, uint8_t* record, uint32_t market, int64_t now) except -1:
        cdef Guard guard = connection.guard
        cdef Place* place = <Place*>record
        cdef int why
        if guard is None:
            if place.head.kind == OP_PLACE and place.session == OUTLIVES:
                place.session = 0
            return 0
        why = guard.judge(
            record, market, self.sequencer.reference_price(market) if guard.collar_ppm and market != NIL else ABSENT, now
        )
        if why == IN_VAIN and place.head.kind == OP_CANCEL and self._order_market(record) is not None:
            return 0  # that one finds something: it always passes
        return why

    cdef object _order_market(self, const uint8_t* record):
        """The market of the open order that a cancel or replace names, or None."""
        cdef const Replace* replace = <const Replace*>record
        cdef uint64_t order_id
        memcpy(&order_id, replace.client_id, 8)
        return self.sequencer.order_market(
            replace.account, order_id if replace.head.flags & F_BY_ORDER_ID else None,
            <bytes>replace.client_id[:32].rstrip(b"\0"),
        )

    cdef uint32_t _market_of(self, Connection connection, const uint8_t* record) except? 0:
        """The market of a place, or of a replace where the key is bound to markets or prices; NIL otherwise."""
        cdef const Replace* replace = <const Replace*>record
        cdef Guard guard = connection.guard
        if replace.head.kind == OP_PLACE:
            return (<const Place*>record).market
        if replace.head.kind != OP_REPLACE or guard is None or (guard.markets == NULL and not guard.collar_ppm):
            return NIL
        found = self._order_market(record)
        return NIL if found is None else <uint32_t>found

    def allow(self, uint32_t account, allowance not None):
        """From now on a fill of the account gives a request back to this allowance."""
        while len(self.allowances) <= account:
            self.allowances.append(None)
        if self.allowances[account] is None:
            self.allowances[account] = []
        if allowance not in self.allowances[account]:
            self.allowances[account].append(allowance)

    cdef int _reward(self, uint32_t account) except -1:
        """A fill: one request back, to every allowance of the account."""
        cdef list found
        cdef Py_ssize_t i
        if account < <uint32_t>len(self.allowances) and self.allowances[account] is not None:
            found = <list>self.allowances[account]
            for i in range(len(found)):
                (<Allowance>found[i]).give_back()
        return 0

    def settle(self):
        """Let the journal have everything, release what became safe, answer questions, send."""
        self.sequencer.publish()
        self.tell()

    cdef int end_of_read(self) except -1:
        """Everything of one read is submitted: let the journal have it now, and tell with the rest of this turn."""
        self.sequencer.publish()
        if not self.dirty and not self.asks and self.sequencer.safe() <= self.sequencer.released_sequence:
            return 0  # all of it waits for the disk: the journal's wake-up tells
        self.reads += 1
        if self.reads >= READS_MAX:
            return self.tell()
        if not self.is_turning:
            self.is_turning = True
            if self.call_soon is None:
                self.call_soon = get_running_loop().call_soon
                self.turn = self._end_of_turn
            self.call_soon(self.turn)
        return 0

    def _end_of_turn(self):
        self.is_turning = False
        try:
            self.tell()
        except BaseException as error:
            self.on_fatal(error)
            raise

    cdef int tell(self) except -1:
        """Tell what is safe, send once."""
        self.reads = 0
        self.t_out = self.sequencer.read_clock()
        self.sequencer.release()
        if self.receipts is not None and len(self.receipts):
            for owner, receipt in self.receipts.sign(self.sequencer.released_sequence):
                if not (<Connection>owner).is_ending:
                    self.send(owner, encode(receipt))
        if self.asks:
            self.answer_asks()
        if self.dirty:
            self.flush()
        return 0

    cdef int answer_asks(self) except -1:
        cdef Connection asker
        cdef bint has_failed = self.sequencer.journal_errno != 0
        while self.asks:
            sequence, connection, question, early = self.asks[0]
            if sequence > self.sequencer.released_sequence and not has_failed:
                break
            self.asks.popleft()
            asker = <Connection>connection
            asker.asks -= 1
            if asker.is_ending:
                continue
            if sequence > self.sequencer.released_sequence:
                self.send(asker, asker.session.not_answered("failed", question.rid))
            else:
                self.send(asker, self.answer(question, asker.session) if early is None else early)
        return 0

    cdef int touch(self, Connection connection) except -1:
        if not connection.is_dirty:
            connection.is_dirty = True
            self.dirty.append(connection)
        return 0

    cdef Connection owner_of(self, uint64_t number):
        """The living connection of that number, or None."""
        cdef Py_ssize_t seat = <Py_ssize_t>(number & 0xFFFF)
        cdef Connection found
        if number == 0 or seat >= len(self.seats):
            return None
        found = <Connection>self.seats[seat]
        return found if found is not None and found.number == number else None

    cdef int refuse_record(self, Connection connection, uint16_t code, uint16_t offset, uint64_t rid, uint32_t index) except -1:
        """A record is not taken: command `index` of its frame, NIL for the frame itself."""
        cdef char* p = connection.reserve(MESSAGE_MAX)
        cdef int64_t now = self.sequencer.read_clock()
        if connection.guard is not None:
            connection.rate_left = connection.guard.allowance.left(now)
        connection.extend(put_refusal(p, rid, code, offset, index, now, _rate(connection.rate_left)))
        self.counters.rejected_commands += 1
        return self.touch(connection)

    cdef int ack_record(self, Connection connection, const Pending* pending) except -1:
        cdef uint64_t rid
        memcpy(&rid, pending.rid, 8)
        connection.extend(
            put_ack(
                connection.reserve(MESSAGE_MAX), rid, pending.sequence, pending.chain, pending.t_in, pending.t_durable,
                pending.t_matched, self.t_out, _rate(connection.rate_left),
                pending.events if pending.event_slots else NULL,
            )
        )
        return self.touch(connection)

    cdef int refuse(self, Connection connection, int why, bytes rid, uint32_t market, str side) except -1:
        cdef object wait = None
        cdef object rule = None
        cdef int64_t reference
        if why == RATE_LIMITED or why == IN_VAIN:
            wait = connection.guard.allowance.wait_ns(why == IN_VAIN, self.sequencer.read_clock())
        elif why == COLLAR and self.collar_rule is not None:
            reference = self.sequencer.reference_price(market)
            rule = self.collar_rule(market, reference, connection.guard.collar_ppm)
        connection.put(connection.session.not_taken(REFUSALS[why], rid, side, wait, rule))
        self.counters.rejected_commands += 1
        if why == BUSY:
            self.counters.refused_busy += 1
        return self.touch(connection)

    cdef int released(self, const Pending* pending) except -1:
        cdef const uint8_t* slot
        cdef const EventHead* head
        cdef uint32_t at = 0
        cdef uint32_t other
        cdef const Trade* trade
        cdef Connection owner = self.owner_of(pending.owner)
        cdef char* p
        if owner is not None:
            if owner.guard is not None:
                owner.rate_left = owner.guard.allowance.left(self.t_out)
                if pending.event_slots:
                    head = <const EventHead*>pending.events
                    if head.op != OP_POISON and takes_risk_away(head.op) and (
                        head.kind == EV_CANCELED or pending.event_slots > 1
                    ):
                        owner.guard.allowance.untake(head.op)  # not in vain
            if pending.form == RECORD:
                self.ack_record(owner, pending)
            elif pending.event_slots and is_fast(pending.events):
                p = put_ack_head(owner.begin(), pending, self.t_out, owner.rate_left)
                p = put_event(p, pending.events, self.names, self.orders, NIL, True)
                owner.end(p)
                self.touch(owner)
            else:
                self.tell_slow(owner, pending, pending.events, pending.event_slots)
            self.counters.acks += 1
            self.stages.observe(owner.stages_seat, pending.t_in, pending.t_matched, pending.t_durable, self.t_out)
            if owner.holds and pending.event_slots:
                owner.acked.add(pending.sequence)
        if self.guarded and pending.event_slots and (<const EventHead*>pending.events).kind != EV_ACCEPTED:
            self.guarded.pop(pending.sequence, None)  # no order came of it
        while at < pending.event_slots:
            slot = pending.events + <size_t>at * SLOT
            head = <const EventHead*>slot
            assert head.slots > 0
            if head.account != NIL:
                self.tell_account(head.account, slot, owner if at == 0 else None)
            if head.kind == EV_TRADE and self.allowances:
                self._reward(head.account)
                self._reward((<const Trade*>slot).taker_account)
            if self.guarded:
                if head.kind == EV_TRADE:
                    trade = <const Trade*>slot
                    self._count_fill(trade.maker_order_id, trade.maker_leaves, trade)
                    self._count_fill(trade.taker_order_id, trade.taker_leaves, trade)
                elif head.kind == EV_CANCELED:
                    self.guarded.pop((<const Canceled*>slot).order_id, None)
            if head.kind == EV_TRADE or head.kind == EV_PREVENTED:
                other = (<const Trade*>slot).taker_account if head.kind == EV_TRADE else (<const Prevented*>slot).taker_account
                if other != head.account:
                    self.tell_account(other, slot, None)
            elif EV_TRANSFERRED <= head.kind <= EV_VOIDED:
                self._tell_money(slot[: <Py_ssize_t>head.slots * SLOT], owner if at == 0 else None)
            elif head.kind == EV_REJECTED and head.op == OP_PLACE and self.rejections is not None:
                self._learn_rejection(<const Rejected*>slot)
            elif at and owner is not None and (head.kind == EV_PHASE_CHANGED or head.kind == EV_UNCROSSED):
                self.tell_market(slot, owner)
            self.orders.apply(slot)
            at += head.slots
        return 0

    cdef int taken(self, Connection connection, uint8_t kind) except -1:
        """The sequencer took a command: the fills of an order count from now on, though its connection be lost meanwhile."""
        if kind == OP_PLACE and connection.guard is not None and connection.guard.protection is not None:
            self.guarded[self.sequencer.sequence] = connection.guard.protection
        return 0

    cdef int _count_fill(self, uint64_t order_id, int64_t leaves, const Trade* trade) except -1:
        cdef const MarketEntry* market = &self.names.markets[trade.head.market]
        protection = self.guarded.get(order_id)
        if protection is None:
            return 0
        if leaves == 0:
            del self.guarded[order_id]
        protection.fill(
            trade.head.ts, trade.head.market, trade.size, trade.notional,
            Fraction(market.lot, 10**market.lot_decimals), Fraction(1, 10**market.quote_scale),
        )
        return 0

    cdef int _learn_rejection(self, const Rejected* event) except -1:
        self.rejections.learn(
            event.head.account, <bytes>event.text[:32].rstrip(b"\0"), event.head.sequence, event.head.reason
        )
        return 0

    cdef int tell_account(self, uint32_t account, const uint8_t* slot, Connection but) except -1:
        cdef Connection connection
        cdef char* p
        cdef list listeners
        if account >= <uint32_t>len(self.listeners):
            return 0
        listeners = <list>self.listeners[account]
        if listeners is None:
            return 0
        for item in listeners:
            connection = <Connection>item
            if connection is but or connection.is_ending or connection.holds:
                continue
            if connection.is_binary:
                connection.extend(put_told(connection.reserve(MESSAGE_MAX), slot, account))
            elif is_fast(slot):
                p = connection.begin()
                connection.end(put_event(p, slot, self.names, self.orders, account, False))
            else:
                connection.put(encode(self.decode(slot[: (<const EventHead*>slot).slots * SLOT])))
            self.counters.private_events += 1
            self.touch(connection)
        return 0

    cdef int tell_market(self, const uint8_t* slot, Connection connection) except -1:
        """An event of a whole market, to the session whose command brought it about."""
        if not connection.is_ending:
            if connection.is_binary:
                connection.extend(put_told(connection.reserve(MESSAGE_MAX), slot, NIL))
            else:
                connection.put(encode(self.decode(slot[: (<const EventHead*>slot).slots * SLOT])))
            self.touch(connection)
        return 0

    def _tell_money(self, bytes slots, Connection but):
        """A movement of money: each account of its legs hears of its own legs."""
        event = self.decode(slots)
        legs = event.get("legs", ())
        for name in dict.fromkeys(leg[end] for leg in legs for end in ("from", "to")):
            index = self.names.account_index(name)
            if index is None or index >= len(self.listeners) or not self.listeners[index]:
                continue
            payload = encode(event | {"legs": [leg for leg in legs if name in (leg["from"], leg["to"])]})
            for connection in self.listeners[index]:
                if connection is but or (<Connection>connection).is_ending or (<Connection>connection).holds:
                    continue
                self.counters.private_events += 1
                self._tell_legs(connection, slots, payload, index)

    def _tell_legs(self, Connection connection, bytes slots, bytes payload, uint32_t index):
        if connection.is_binary:
            connection.extend(put_told(connection.reserve(MESSAGE_MAX), <const uint8_t*><const char*>slots, index))
            self.touch(connection)
        else:
            self.send(connection, payload)

    cdef int tell_slow(self, Connection connection, const Pending* pending, const uint8_t* slot, uint32_t slots) except -1:
        """An ack whose first event is a rare one, or that has none."""
        cdef char[TOLD] head
        cdef char* end = put_ack_head(head, pending, self.t_out, connection.rate_left)
        text = <bytes>head[: end - <char*>head]
        if slots:
            event = self.decode(slot[: <Py_ssize_t>(<const EventHead*>slot).slots * SLOT])
            event.pop("sequence", None)
            event.pop("index", None)
            connection.put(text + b"," + encode(event)[1:])
        else:
            connection.put(text + b"}")
        return self.touch(connection)

    cdef int flush(self) except -1:
        """One send for each connection that has something."""
        cdef Connection connection
        cdef Py_ssize_t left
        cdef char* shrunk
        cdef list dirty = self.dirty
        self.dirty = []
        for item in dirty:
            connection = <Connection>item
            connection.is_dirty = False
            if connection.size == 0:
                continue
            connection.seal()
            if (connection.burst or connection.size > self.write_high) and (
                unsent(connection.transport) <= self.write_high
            ):
                connection.burst = connection.size if connection.size > self.write_high else 0
            left = write_frames(connection.transport, connection.buffer, connection.size, &connection.is_clear)
            self.counters.sends += 1
            connection.size = 0
            if connection.room > KEEP_ROOM:
                shrunk = <char*>PyMem_Realloc(connection.buffer, START_ROOM)
                if shrunk != NULL:  # else it keeps what it has
                    connection.buffer, connection.room = shrunk, START_ROOM
            if left > self.write_high + connection.burst and not connection.is_ending:
                self.counters.closed_slow += 1
                self._close_slow(connection)
        return 0

    def _close_slow(self, Connection connection):
        """It does not read: what is queued already is all it gets, and the reason may not reach it any more."""
        connection.session.end(1008, "slow_reader")
        connection.is_ending = True
        connection.transport.send_close(WSCloseCode.POLICY_VIOLATION, b"slow_reader: too many unsent bytes")
        connection.transport.disconnect(False)


cdef inline uint32_t _rate(int64_t left) noexcept nogil:
    """What is left of a rate as a binary message tells it: NIL is without limit, and no count reaches it."""
    return NIL if left < 0 else <uint32_t>left if left < NIL else NIL - 1
