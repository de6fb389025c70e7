"""The wall clock of the shell, for Python and, through a port, for the hot path of the gateway."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from engine.messages.ports cimport ClockPort

__all__ = ["SystemClock"]

cdef ClockPort PORT
PORT.context = NULL
PORT.now_ns = wall_ns


cdef int64_t wall_ns(void* context) noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef class SystemClock:
    """Wall clock, nanoseconds since 1970, UTC."""

    def now_ns(self) -> int:
        return wall_ns(NULL)

    def port(self):
        """The capsule "byline.ClockPort"; it lives as long as the process."""
        return PyCapsule_New(&PORT, "byline.ClockPort", NULL)
