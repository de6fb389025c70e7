# The one place that touches what picows keeps private; see transport.pyx.

from picows.picows cimport WSTransport

cdef Py_ssize_t write_frames(WSTransport transport, char* data, Py_ssize_t size, bint* is_clear) except -1
cdef Py_ssize_t unsent(WSTransport transport) except -1
