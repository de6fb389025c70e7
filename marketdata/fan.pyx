"""The write to many readers: one `send` each, straight from the shared bytes.

    slots[n]   socket · is_clear        64 bits a reader, side by side: a flush of many touches nothing else of them

A slot is clear while nothing waits for its reader in user space. Whatever is given to the reader's transport (a reply, the
rest of a short write) makes it unclear, and the server sets it clear again when the transport has drained; so what is
sent from here never overtakes what waits there. A slot that was given back is not given out before `recycle`, so a
flush that is spread over turns of the loop cannot reach whoever came meanwhile.

The socket belongs to the transport. aiofastnet, on which picows runs, tells of a lost connection before it closes the
socket, so the number of a slot is never that of another connection; `tests/unit/marketdata/test_fan.py` holds its version.

Never: waits; makes an object per reader whose socket takes everything.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, realloc

__all__ = ["Fan"]

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int socket, const void* data, size_t size, int flags)
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef struct Slot:
    int32_t socket      # -1: nobody
    int32_t is_clear


cdef class Fan:
    """Slots of readers."""

    cdef Slot* slots
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef list unused
    cdef list given_back

    def __cinit__(self):
        self.slots = NULL
        self.count = self.capacity = 0
        self.unused = []
        self.given_back = []

    def __dealloc__(self):
        free(self.slots)

    def add(self, int socket):
        """A slot for a socket; clear."""
        cdef Py_ssize_t at
        cdef void* grown
        assert socket >= 0
        if self.unused:
            at = self.unused.pop()
        else:
            if self.count == self.capacity:
                grown = realloc(self.slots, max(256, self.capacity * 2) * sizeof(Slot))
                if grown == NULL:
                    raise MemoryError("slots of readers")
                self.slots = <Slot*> grown
                self.capacity = max(256, self.capacity * 2)
            at = self.count
            self.count += 1
        self.slots[at].socket = socket
        self.slots[at].is_clear = True
        return at

    def remove(self, Py_ssize_t slot):
        """Nothing is sent to it any more. Once for each `add`."""
        assert 0 <= slot < self.count and self.slots[slot].socket >= 0
        self.slots[slot].socket = -1
        self.given_back.append(slot)

    def recycle(self):
        """No flush is under way: slots that were given back may be given out again."""
        if self.given_back:
            self.unused += self.given_back
            self.given_back = []

    def set_clear(self, Py_ssize_t slot, bint is_clear):
        """Whether nothing waits for the reader in its transport."""
        assert 0 <= slot < self.count
        self.slots[slot].is_clear = is_clear

    def is_clear(self, Py_ssize_t slot):
        assert 0 <= slot < self.count
        return bool(self.slots[slot].is_clear)

    def send(self, const int32_t[::1] to, bytes data, Py_ssize_t start, Py_ssize_t stop):
        """Sends `data` to slots to[start] … to[stop - 1].

        Returns [(place in `to`, bytes taken)] of those who were not clear, or took less than all of it.
        """
        cdef const char* pointer = data
        cdef Py_ssize_t size = len(data), at
        cdef ssize_t taken
        cdef Slot* slot
        cdef list behind = []
        stop = min(stop, to.shape[0])
        for at in range(start, stop):
            assert 0 <= to[at] < self.count
            slot = &self.slots[to[at]]
            if slot.socket < 0:
                continue
            taken = 0
            if slot.is_clear:
                taken = send(slot.socket, pointer, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                if taken == size:
                    continue
            behind.append((at, max(taken, 0)))
        return behind
