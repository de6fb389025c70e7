"""A snapshot's body written by a forked child, from the core's memory as it was at the fork.

    core.settle ─▶ fork ─▶ parent goes on at once
                     └──▶ child: Core.write_snapshot, SHA-256, fdatasync, exit

Owns the fork and nothing else: file names, headers, and waiting for the child are `persistence.snapshot`'s. The child
runs C alone (persistence/fork.h); it never returns to Python.

Worst case of the caller's pause: the kernel copies the parent's page tables, about 25 ns a page of 4 KiB and less than
1 µs a large one. Afterwards the first write to each page copies it, as long as the child lives.
"""

import os

from libc.stdint cimport uint64_t

from engine.core cimport Core
from engine.snapshot cimport Stream

cdef extern from "persistence/fork.h" nogil:
    ctypedef void (*WriteBody)(void* context, Stream* out) noexcept nogil
    int fork_writer(int descriptor, uint64_t offset, WriteBody body, void* context)

cdef extern from "errno.h" nogil:
    int errno

__all__ = ["fork_snapshot", "join_pages"]


cdef void write_body(void* core, Stream* out) noexcept nogil:
    (<Core>core).write_snapshot(out)


def fork_snapshot(Core core not None, int descriptor, uint64_t offset):
    """Have a child write the bytes of `core.snapshot()` to a file, durably, while the core goes on.

    Args:
        descriptor: of a file open for writing. The parent may close it.
        offset: where in the file the bytes begin.

    Returns:
        The child's process id. The caller waits for it; its exit status is 0, or the errno of what went wrong.

    Raises:
        OSError: there is no child: no memory, or too many processes.
    """
    cdef int child
    core.settle()
    child = fork_writer(descriptor, offset, write_body, <void*>core)
    if child < 0:
        raise OSError(errno, f"no child to write a snapshot: {os.strerror(errno)}")
    return child


def join_pages(Core core not None):
    """Make large pages again of those that the core split by writing to them beside a child. After the child, once.

    Without this each fork finds more small pages, scattered over the memory, and takes ten times as long to copy their table
    entries; and commands miss the TLB more often. To be called on a thread of its own, while the core goes on: a command may
    wait some 0.2 ms for one page's copy.
    """
    with nogil:
        core.collapse()
