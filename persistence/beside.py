"""Reading a journal beside the core that writes it.

The end of such a journal moves, and its last group lies there in part, in any order of its pages: whether what looks
damaged is damage or a write under way cannot be told from the bytes. So a reader takes the writer's mark of what is
durable first and the list of segments after it, and reads nothing behind the mark: everything before it was whole
before the mark said so. What is not readable there is damage; what lies behind it is not there yet.

A journal that nobody has opened since the machine started, or that was restored, may have no mark or an old one. Then
what the reader is sure was written (`known`: a batch that is final, a snapshot) bounds it too.

Changes nothing, takes no lock.
"""

from __future__ import annotations

from engine.messages.errors import JournalCorrupt, Unavailable
from engine.messages.ports import Disk
from persistence import segments
from persistence.journal import read_mark
from persistence.segments import Batch

__all__ = ["durable_sequence", "read_beside"]


def durable_sequence(disk: Disk) -> int:
    """The last sequence that the writer noted as durable: a lower bound, 0 where there is no journal or no mark.

    Raises:
        JournalCorrupt: the first segment is none.
    """
    first = segments.list_segments(disk, up_to=1)
    return read_mark(disk, first[0].header.identity) if first else 0


def read_beside(disk: Disk, on_batch: Batch, *, to: int, after: int = 0, known: bool = False) -> None:
    """Hand out the records `after` + 1 … `to`, checked, beside a writer or without one.

    `known`: that `to` was durable is certain, whatever the mark says.

    Raises:
        Unavailable: `to` is not durable yet; nothing was handed out.
        JournalCorrupt: a record up to `to` is damaged or missing.
    """
    if not known and (durable := durable_sequence(disk)) < to:
        raise Unavailable(f"the journal ends before sequence {to}: {durable} is durable")
    listed = segments.list_segments(disk, up_to=max(1, to))
    tail = segments.scan(disk, listed, on_batch, after=after, up_to=to)
    if tail.sequence < to:
        where = listed[-1].path if listed else "the journal"
        raise JournalCorrupt(f"{where}: ends with sequence {tail.sequence}, but {to} was durable")
