"""Whole websocket frames, laid out in our own buffer, written with one `send`.

picows offers one write per frame. All answers of one read in one `send` is seven times faster, so this module, alone,
uses what it keeps private: the socket, if nothing is waiting, and `_fast_write`, which hands what the socket does not
take to the transport, which copies it. picows is pinned to 2.3.1; `tests/unit/gateway/test_transport.py` fails when it changes.
"""

from picows.picows cimport WSTransport

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int socket, const void* data, size_t size, int flags)


cdef Py_ssize_t write_frames(WSTransport transport, char* data, Py_ssize_t size, bint* is_clear) except -1:
    """Write complete frames; the buffer is free again on return. Does nothing behind a close frame.

    `is_clear` of a connection: all that was ever written to it has left this process, so nothing need be asked. Whoever
    writes to it by another way than this (a pong) clears the flag first.
    Returns the bytes that wait in this process because the peer does not read.
    """
    cdef ssize_t taken
    if transport.is_close_frame_sent or transport.is_disconnected:
        is_clear[0] = False
        return transport._tr_get_write_buffer_size()
    if not transport.is_secure and (is_clear[0] or transport._tr_get_write_buffer_size() == 0):
        taken = send(transport._socket, data, <size_t>size, 0)
        is_clear[0] = taken == size
        if taken == size:
            return 0
        if taken > 0:
            data += taken
            size -= taken
    transport._fast_write(data, size)
    return transport._tr_get_write_buffer_size()


cdef Py_ssize_t unsent(WSTransport transport) except -1:
    """Bytes that wait in this process because the peer does not read."""
    return transport._tr_get_write_buffer_size()
