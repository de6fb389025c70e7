"""The websocket callbacks of one connection: the hot path for orders, the session for everything else.

A binary frame on a binary session is records: each is checked where it lies, copied to the stack and submitted. A text
frame that the scanner understands goes from its bytes into a record on the stack and to the sequencer without
passing through a Python object. Every other text frame goes to the sans-I/O session, whose outputs are carried out here.
Nothing is sent inside a frame: with the last frame of a read everything is given to the journal, and the hub tells what
came of it at the end of the loop's turn.

An exception of sequencer, journal or core is a broken invariant: it is handed to `Hub.on_fatal`, which stops the
process. One while a command is still being understood has submitted nothing of it: it ends that session and no other.
"""

import logging
from functools import partial

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from picows.picows cimport WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from gateway.hub cimport Connection, Hub
from engine.messages.edge cimport (
    EDGE_BAD_FRAME, EDGE_BUSY, EDGE_CANCEL_ONLY, EDGE_COLLAR, EDGE_EXPIRED_KEY, EDGE_FORBIDDEN, EDGE_JOURNAL_FAILED,
    EDGE_NOT_SIGNED_IN, EDGE_PROTECTION, EDGE_RATE_LIMITED, EDGE_TOO_MANY_COMMANDS, OFFSET_NOT_GIVEN,
)
from engine.messages.records cimport OP_CANCEL, OP_PLACE, OP_REPLACE, SLOT, CommandHead
from gateway.guard cimport RATE_LIMITED
from gateway.sequencer cimport BUSY, RECORD, TEXT
from gateway.wire.binary cimport check, count_commands, takes_risk_away
from gateway.wire.scan cimport OrderText, fill_cancel, fill_place, fill_replace, scan

from gateway.session import Ask, Close, Records, Resume, Send, SignedIn, Submit

cdef enum:
    WAITING_MAX = 16  # of a connection: more are sent by nobody who waits for answers

cdef uint32_t NIL = 0xFFFFFFFF
cdef uint16_t[4] CODES  # by Taken
CODES = [0, EDGE_BUSY, EDGE_JOURNAL_FAILED, EDGE_CANCEL_ONLY]
cdef uint16_t[8] REFUSED  # by Refusal, from RATE_LIMITED on
REFUSED = [
    EDGE_RATE_LIMITED, EDGE_FORBIDDEN, EDGE_COLLAR, EDGE_PROTECTION, EDGE_EXPIRED_KEY, EDGE_FORBIDDEN, EDGE_RATE_LIMITED,
    EDGE_COLLAR,
]
cdef object log = logging.getLogger(__name__)


cdef class OrderEntryListener(WSListener):
    """Created by the server for each handshake.

    Args:
        hub: where connections live.
        session: a fresh gateway.session.Session.
        server: told `opened`, `signed_in`, `closed`.
    """

    cdef Hub hub
    cdef object session
    cdef object server
    cdef Connection connection
    cdef bint is_paused
    cdef Py_ssize_t commands_max  # of a frame
    cdef Py_ssize_t unsigned_bytes_max  # of a frame before sign-in
    cdef bint is_over  # the last message was over the limit
    cdef bint is_known  # it has signed in
    cdef int waiting  # messages that are to be looked at in a later turn

    def __init__(self, Hub hub not None, session, server):
        self.hub = hub
        self.session = session
        self.server = server
        self.connection = None
        self.is_over = self.is_known = False
        self.waiting = 0
        self.commands_max = server.settings.commands_per_frame_max
        self.unsigned_bytes_max = session.unsigned_bytes_max

    cpdef on_ws_connected(self, WSTransport transport):
        try:
            self.connection = self.hub.connect(self.session, transport)
            transport.underlying_transport.set_write_buffer_limits(self.server.settings.write_low_bytes)
            self.server.opened(self)
            self.carry_out(self.session.connect())
            self.hub.end_of_read()
        except BaseException as error:
            self.hub.on_fatal(error)
            raise

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef OrderText order
        cdef bint done = False
        if transport.is_close_frame_sent or self.connection is None:
            return  # a fault behind this frame has ended the connection: nothing of it is executed any more
        try:
            self.hub.counters.frames_in += 1
            self.connection.was_heard = True
            if (self.waiting or not self.is_known) and self.must_wait(frame):
                if frame.last_in_buffer:
                    self.hub.end_of_read()
                return
            if frame.msg_type == WSMsgType.TEXT and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
                if self.connection.may_cancel and not (self.connection.is_ending or self.connection.in_fragments):
                    scan(frame.payload_ptr, frame.payload_size, &order)
                    if order.op:
                        done = self.take(&order)
                if not done:
                    self.follow(1, frame.get_payload_as_bytes(), True, False)
            elif (
                frame.msg_type == WSMsgType.BINARY and self.connection.is_binary and frame.fin
                and not (self.connection.in_fragments or frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                if not self.connection.is_ending:
                    self.take_records(<const uint8_t*>frame.payload_ptr, frame.payload_size)
            elif frame.msg_type == WSMsgType.PING:
                self.connection.is_clear = False
                transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type == WSMsgType.CLOSE:
                self.hub.tell()
                transport.send_close(_echo(<int>frame.get_close_code(), frame.payload_size), b"")
                transport.disconnect()
            elif frame.msg_type != WSMsgType.PONG:
                self.hub.counters.bad_frames += 1
                self.follow(
                    <int>frame.msg_type, frame.get_payload_as_bytes(), bool(frame.fin),
                    bool(frame.rsv1 or frame.rsv2 or frame.rsv3),
                )
            if frame.last_in_buffer:
                self.hub.end_of_read()
        except BaseException as error:
            self.hub.on_fatal(error)
            raise

    cpdef on_ws_disconnected(self, WSTransport transport):
        cdef Connection gone = self.connection
        if gone is not None:
            self.hub.disconnect(gone)
            self.session.lost()
            self.connection = None
        self.server.closed(self, gone)

    cpdef pause_writing(self):
        # The peer does not read: stop reading from it, so that it cannot ask for more than it takes.
        if self.connection is not None and not self.is_paused:
            self.is_paused = True
            self.connection.transport.underlying_transport.pause_reading()

    cpdef resume_writing(self):
        if self.connection is not None and self.is_paused:
            self.is_paused = False
            self.connection.transport.underlying_transport.resume_reading()

    cdef bint must_wait(self, WSFrame frame) except -1:
        """What comes before sign-in waits where a turn has looked at enough of it; behind it waits all that follows it."""
        cdef bint has_reserved
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            return False
        if not self.is_known and frame.payload_size > self.unsigned_bytes_max:
            return False  # the session ends it for that
        if self.server.sign_ins.takes():
            return False
        if self.waiting == WAITING_MAX:
            self.carry_out(self.session.end(1008, "too many messages"))
            return True
        if self.server.sign_ins.is_full:
            self.carry_out(self.session.end(1013, "too many connections sign in: connect again"))
            return True
        has_reserved = bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
        self.server.sign_ins.wait(
            partial(self.look, <int>frame.msg_type, frame.get_payload_as_bytes(), bool(frame.fin), has_reserved)
        )
        self.waiting += 1
        return True

    def look(self, int frame_type, bytes payload, bint is_final, bint has_reserved_bits):
        """At a message that waited, as if it came now. False: its connection is gone, and nothing was done."""
        self.waiting -= 1
        if self.connection is None or self.connection.is_ending:
            return False
        if (
            frame_type == <int>WSMsgType.BINARY and self.connection.is_binary and is_final
            and not (self.connection.in_fragments or has_reserved_bits)
        ):
            self.take_records(<const uint8_t*><const char*>payload, len(payload))
        else:
            if frame_type != <int>WSMsgType.TEXT or not is_final or has_reserved_bits:
                self.hub.counters.bad_frames += 1
            self.follow(frame_type, payload, is_final, has_reserved_bits)
        self.hub.end_of_read()
        return True

    cdef int follow(self, int frame_type, bytes payload, bint is_final, bint has_reserved_bits) except -1:
        """Do what the session says to a frame, step by step. A fault of the session is this session's alone."""
        outputs = self.session.receive(frame_type, payload, is_final=is_final, has_reserved_bits=has_reserved_bits)
        while True:
            try:
                output = next(outputs, None)
            except Exception:
                self.hub.counters.bad_frames += 1
                log.exception("a frame of %d bytes could not be handled: its session ends", len(payload))
                self.carry_out(self.session.broken())
                return 0
            if output is None:
                self.connection.in_fragments = self.session.in_fragments
                return 0
            self.carry_out((output,))

    def carry_out(self, outputs):
        """Do what the session says."""
        for output in outputs:
            if isinstance(output, Send):
                self.hub.send(self.connection, output.payload)
            elif isinstance(output, Submit):
                self.hub.submit(self.connection, output.record, output.rid, output.is_cancel, output.is_free,
                                output.wants_receipt, output.side)
            elif isinstance(output, Records):
                self.take_records(<const uint8_t*><const char*>(<bytes>output.payload), len(output.payload))
            elif isinstance(output, Ask):
                self.hub.ask(self.connection, output)
            elif isinstance(output, SignedIn):
                self.server.signed_in(self, output)
                self.is_known = True
            elif isinstance(output, Resume):
                self.server.resume(self, output)
            elif isinstance(output, Close):
                self.hub.tell()  # what came before this is answered before the end
                self.connection.is_ending = True
                self.connection.transport.send_close(<WSCloseCode><int>output.code, output.reason.encode())
                self.server.closing(self)

    @property
    def link(self):
        """The connection, None before the handshake and after the end."""
        return self.connection

    def was_heard(self):
        """Whether a frame came since this was asked before."""
        found = self.connection is not None and self.connection.was_heard
        if found:
            self.connection.was_heard = False
        return found

    def ping(self):
        """Ask the peer whether it is there."""
        if self.connection is not None and not self.connection.is_ending:
            self.connection.is_clear = False
            self.connection.transport.send_ping(b"")

    def drop(self):
        """End the connection without waiting for the peer."""
        if self.connection is not None:
            self.connection.transport.disconnect(False)

    cdef bint take(self, OrderText* order) except -1:
        """Submit what the scanner understood. False: the thorough path must look at it."""
        cdef uint8_t[SLOT] record
        cdef Connection connection = self.connection
        cdef Hub hub = self.hub
        cdef int64_t t_in
        cdef int why
        cdef uint32_t market = NIL
        if order.receipt == 1 and hub.receipts is None:
            return False
        if order.account.size != -1:
            if order.account.size != hub.names.accounts[connection.account].length or memcmp(
                order.account.at, hub.names.accounts[connection.account].name, order.account.size
            ):
                return False
        if order.op == OP_PLACE:
            if not connection.may_trade or order.market.size == -1:
                return False
            market = connection.market
            if (
                market == NIL or hub.names.markets[market].length != order.market.size
                or memcmp(hub.names.markets[market].name, order.market.at, order.market.size)
            ):
                market = hub.names.find_market(order.market.at, order.market.size)
                if market == NIL:
                    return False
                connection.market = market
            if not fill_place(order, &hub.names.markets[market], market, connection.account, record):
                return False
        elif order.op == OP_REPLACE:
            if not connection.may_trade or (order.client_id.size == -1) == (order.order_id == -1):
                return False
            found = hub.sequencer.order_market(
                connection.account, None if order.order_id == -1 else order.order_id,
                b"" if order.client_id.size == -1 else <bytes>order.client_id.at[: order.client_id.size],
            )
            if found is None:
                return False
            market = found
            if not fill_replace(order, &hub.names.markets[market], connection.account, record):
                return False
        elif not fill_cancel(order, connection.account, record):
            return False
        t_in = hub.sequencer.read_clock()
        if connection.guard is not None and order.op != OP_CANCEL and not connection.guard.allowance.take_message_at(t_in):
            return False  # the session says no, and counts
        why = hub.admit(connection, record, market, t_in)
        if not why:
            why = hub.sequencer.submit(
                record, 1, connection.number, order.rid.at, 0 if order.rid.size == -1 else order.rid.size, TEXT, t_in,
                order.op == OP_CANCEL,
            )
            if why and connection.guard is not None:
                connection.guard.allowance.untake(order.op)
            if not why:
                hub.taken(connection, order.op)
            if not why and order.receipt == 1:
                hub.receipts.ask(connection, hub.sequencer.sequence, <bytes>(<char*>record)[:SLOT], hub.state_hash())
        hub.counters.commands_fast += 1
        if why:
            hub.refuse(connection, why, b"" if order.rid.size == -1 else order.rid.at[: order.rid.size], market, "")
        return True

    cdef int take_records(self, const uint8_t* payload, Py_ssize_t size) except -1:
        """The records of a binary frame, each answered for itself. A frame that is not whole records does nothing."""
        cdef uint8_t[2 * SLOT] record  # no kind that passes the check is longer
        cdef Connection connection = self.connection
        cdef Hub hub = self.hub
        cdef const CommandHead* head
        cdef Py_ssize_t count = count_commands(payload, size)
        cdef Py_ssize_t at = 0
        cdef int64_t t_in = hub.sequencer.read_clock()
        cdef uint32_t index
        cdef uint16_t code
        cdef uint16_t offset = OFFSET_NOT_GIVEN
        cdef uint64_t rid
        cdef bint may_speak = True
        cdef int why
        if count <= 0 or connection.owned == NULL or not _only_cancels(payload, size):
            if connection.guard is None:
                may_speak = self.session.take_message(t_in)
            else:
                may_speak = connection.guard.allowance.take_message_at(t_in)
                if not may_speak or self.is_over:
                    self.is_over = not may_speak
                    self.session.count_message(may_speak)
            if not may_speak and self.session.is_flooding:
                self.carry_out(self.session.flooded())
                return 0
        if count < 0 or count > self.commands_max:
            hub.counters.bad_frames += 1
            return hub.refuse_record(connection, EDGE_BAD_FRAME if count < 0 else EDGE_TOO_MANY_COMMANDS, offset, 0, NIL)
        connection.rights.market_count = hub.names.market_count
        for index in range(<uint32_t>count):
            head = <const CommandHead*>(payload + at)
            rid = head.sequence
            offset = OFFSET_NOT_GIVEN
            code = EDGE_NOT_SIGNED_IN if connection.owned == NULL else check(payload + at, &connection.rights, &offset)
            if not code:
                memcpy(record, payload + at, <size_t>head.slots * SLOT)
                why = RATE_LIMITED
                if may_speak or takes_risk_away(head.kind):
                    why = hub.admit(connection, record, hub._market_of(connection, record), t_in)
                if not why:
                    why = hub.sequencer.submit(
                        record, head.slots, connection.number, <char*>&rid, sizeof(rid), RECORD, t_in,
                        takes_risk_away(head.kind),
                    )
                    if why and connection.guard is not None:
                        connection.guard.allowance.untake(head.kind)
                    if not why:
                        hub.taken(connection, head.kind)
                hub.counters.commands_binary += 1
                code = CODES[why] if why < 4 else REFUSED[why - RATE_LIMITED]
                offset = OFFSET_NOT_GIVEN
                if why == BUSY:
                    hub.counters.refused_busy += 1
            if code:
                hub.refuse_record(connection, code, offset, rid, index)
            at += <Py_ssize_t>head.slots * SLOT
        return 0


cdef WSCloseCode _echo(int code, size_t size) noexcept:
    """The answer to a close frame: its own code, 1000 if it has none, 1002 if nobody may send that one."""
    if size == 0:
        return WSCloseCode.OK
    if size == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return WSCloseCode.PROTOCOL_ERROR
    return <WSCloseCode>code


cdef bint _only_cancels(const uint8_t* payload, Py_ssize_t size) noexcept nogil:
    """Whether all records of a frame only take risk away."""
    cdef Py_ssize_t at = 0
    while at < size:
        if not takes_risk_away((<const CommandHead*>(payload + at)).kind):
            return False
        at += <Py_ssize_t>(<const CommandHead*>(payload + at)).slots * SLOT
    return True
