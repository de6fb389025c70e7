# Events to JSON on the hot path: straight from slots into a buffer, without objects.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from gateway.names cimport Names
from gateway.orders cimport OpenOrders
from gateway.sequencer cimport Pending

cdef enum:
    EVENT_BYTES_MAX = 2048  # no fast event is longer, its ack fields included

# Whether `put_event` knows this event; the others take `gateway.wire.json`.
cdef bint is_fast(const uint8_t* slot) noexcept nogil

# {"rid":R,"sequence":N,"chain":"…","t_in":I,"t_durable":D,"t_matched":M,"t_out":O,"rate_left":L without a closing brace.
# `t_durable` and `rate_left` (-1) are left out where there is none. Returns the end.
cdef char* put_ack_head(char* p, const Pending* pending, int64_t t_out, int64_t rate_left) noexcept nogil

# {"sequence":N,"index":I,"ts":T,"event":"trade",…}; inside an ack ,"ts":T,"event":… and so on. `own` is the account
# index that reads it and sees its own side alone (NIL: both sides). Not yet applied to `orders`.
cdef char* put_event(char* p, const uint8_t* slot, Names names, OpenOrders orders, uint32_t own,
                     bint in_ack) noexcept
