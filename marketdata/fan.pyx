"""The write to many readers: one `send` each, straight from the shared bytes.

Uses, alone in this package, the private `_fast_write` of picows: it sends at once if nothing is waiting for that
reader, and hands what the socket does not take to the transport, which copies it. picows is pinned to 2.3.1;
`tests/unit/marketdata/test_fan.py` fails when it changes.

Never: waits; overtakes bytes that wait for a reader; makes an object per reader whose socket takes everything.
"""

from picows.picows cimport WSTransport

__all__ = ["send_all"]


def send_all(list transports, bytes data, Py_ssize_t start, Py_ssize_t stop):
    """Writes `data` to transports start … stop - 1 for whom nothing waits; the numbers of the others, untouched.

    A place that is None, closed or closing is passed over.
    """
    cdef char* pointer = data
    cdef Py_ssize_t size = len(data), at
    cdef WSTransport transport
    cdef list behind = []
    for at in range(start, min(stop, len(transports))):
        transport = transports[at]
        if transport is None or transport.is_close_frame_sent or transport.is_disconnected:
            continue
        if <Py_ssize_t> transport._tr_get_write_buffer_size():
            behind.append(at)
            continue
        transport._fast_write(pointer, size)
    return behind
