"""What the files beside a journal say about its end: a journal that ends before it has lost records.

A journal whose last segment, or whose only one, is gone is a whole journal to look at: nothing in it is damaged. What
was made from it tells: the writer's mark, a snapshot, settlement's sealed batches say which sequence was durable; that
there is an event log with events, a registry of keys or a log of settlement says that there was a journal at all.
Recovery and `verify` ask here before they call a journal sound, and before anything is begun anew.

In mode `memory` the event log runs ahead of the journal, and a crash takes the difference: so its end proves nothing,
but that it has events proves that there was a first segment, which is durable before the first command.
Changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from engine.messages.errors import JournalCorrupt
from engine.messages.ports import Disk
from persistence.event_log import log_state
from persistence.journal import MARK, read_mark
from persistence.segments import Tail
from persistence.snapshot import DIRECTORY as SNAPSHOTS
from persistence.snapshot import read_snapshot

__all__ = ["BESIDE", "REGISTRY", "check_durable", "check_end", "check_new"]

REGISTRY = "keys/registry.log"
"""May name keys of accounts that a journal which ends earlier does not have: with it they would trade for whoever is
given such a name next."""
BESIDE = ("settlement/batches.log", "settlement/chain.log", "settlement/brake.log", REGISTRY, "keys/epoch")
"""Files that an exchange makes only after its first segment is there: logs that are only ever appended to, and which
start of the exchange it was, which stands in what clients sign."""


def check_end(disk: Disk, tail: Tail, *, sealed: int = 0) -> None:
    """A journal that ends at `tail` has all that was durable. `sealed`: last sequence of settlement's last batch.

    Raises:
        JournalCorrupt: it ends before a sequence that is known to have been durable.
    """
    place = tail.segment.path if tail.segment else "journal"
    check_durable(tail, read_mark(disk, tail.identity))
    if tail.sequence < sealed:
        raise JournalCorrupt(
            f"{place}: ends with sequence {tail.sequence}, but settlement sealed a batch up to {sealed}"
        )
    for name in disk.list(SNAPSHOTS):
        first, _, kind = name.partition(".")
        if kind == "snapshot" and first.isdigit() and int(first) > tail.sequence:
            try:
                snapshot = read_snapshot(disk, f"{SNAPSHOTS}/{name}")
            except ValueError:
                continue  # damaged, as recovery has told: it proves nothing
            if snapshot.identity == tail.identity:
                raise JournalCorrupt(
                    f"{place}: ends with sequence {tail.sequence}, but there is a snapshot of {snapshot.sequence}"
                )


def check_durable(tail: Tail, durable: int) -> None:
    """A torn write is at most the last group: ending before what the writer noted as synced is a loss.

    Raises:
        JournalCorrupt: it is one.
    """
    if tail.sequence < durable:
        place = tail.segment.path if tail.segment else "journal"
        raise JournalCorrupt(f"{place}: ends with sequence {tail.sequence}, but {durable} was durable")


def check_new(disk: Disk, directory: Path) -> None:
    """There is no segment: so nothing may be here that only comes after one.

    Raises:
        JournalCorrupt: the journal is gone.
    """
    there = [f"{SNAPSHOTS}/{name}" for name in disk.list(SNAPSHOTS) if name.endswith(".snapshot")]
    there += [path for path in (MARK, *BESIDE) if (directory / path).exists()]
    state = log_state(directory / "events")
    if state is not None and state[3] > 0:
        there.append(f"events up to sequence {state[3]}")
    if there:
        raise JournalCorrupt(f"journal: has no segment, but it had one: here are {', '.join(there)}")
