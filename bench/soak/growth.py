"""What the processes of the exchange grew by, and how much of it their bounded stores explain that are still filling.

An exchange remembers client ids of closed orders, refusals, references of transfers, changes that can be replayed. Each
of these stores has a bound that minutes do not reach, so it still grows; by how much, the journal says. What a process
grew by beyond that, it must not have: `GROWTH_MAX` is the little that allocators and huge pages are given.

Memory is anonymous memory (the journal and the event log are mapped files), its growth the slope of a straight line
through the samples of the second half of the trading, so that what connections and pools take at first does not count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bench.harness import Row
from bench.soak.world import World
from engine.messages.codes import EventKind

__all__ = ["GROWTH_MAX", "JUDGED_FROM_S", "STORES", "Store", "growth_rows"]

GROWTH_MAX = 16 << 10
"""Bytes a second of the second half, beyond what the stores explain."""
JUDGED_FROM_S = 300.0
"""Shorter runs are not judged: pools that take their first huge pages would look like a leak."""
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Store:
    """Something bounded of a process that grows by at most `unit_bytes` with each event of these kinds."""

    process: str
    name: str
    unit_bytes: int
    kinds: tuple[EventKind, ...]


_OF_ORDERS = (
    EventKind.ACCEPTED, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.TRIGGERED,
    EventKind.REFRESHED, EventKind.PREVENTED, EventKind.PHASE_CHANGED, EventKind.UNCROSSED,
)  # fmt: skip
STORES = (
    # A node of 80 bytes and its place in the map; a rename makes one more.
    Store("core", "client ids", 112, (EventKind.ACCEPTED, EventKind.REPLACED)),
    Store("core", "poisoned ids", 112, (EventKind.DONE,)),
    # Two entries of Python's containers, the id and two numbers.
    Store("core", "refusals", 448, (EventKind.REJECTED,)),
    # A node of 208 bytes, two postings, their places in the map.
    Store("core", "references of transfers", 384, (EventKind.TRANSFERRED,)),
    # Of an order, its level and the trade: rows of 64 bytes.
    Store("marketdata", "changes for replays", 192, _OF_ORDERS),
)


def growth_rows(world: World, kinds: dict[int, Counter[int]], judged: bool) -> list[Row]:
    """Rows of every process. `kinds`: events of the journal by second since 1970 and kind."""
    rows = []
    for name, memory in world.memory.items():
        case = f"memory of {name}"
        first, last = memory.samples[0], memory.samples[-1]
        until = min(last[0], world.ended_s)  # when trading ends, stores stop filling, and what it grew by is thinned
        half = first[0] + (until - first[0]) / 2
        seconds = max(until - half, 1e-9)
        from_second, to_second = ((world.began_ns + at * 1e9) / _SECOND_NS for at in (half, until))
        late: Counter[int] = Counter()
        for second, counted in kinds.items():
            if from_second <= second < to_second:
                late.update(counted)
        grown = memory.slope(half, until) * seconds / 1e6
        rows.append(Row(case, "resident at the start", first[1] / 1e6, "MB"))
        rows.append(Row(case, "resident at the end", last[1] / 1e6, "MB"))
        rows.append(Row(case, "grown in the second half", grown, "MB"))
        explained = 0.0
        for store in STORES:
            if store.process == name:
                most = store.unit_bytes * sum(late[kind] for kind in store.kinds) / 1e6
                explained += most
                rows.append(Row(case, f"at most of it: {store.name}", most, "MB"))
        must = GROWTH_MAX * seconds / 1e6 if judged else None
        rows.append(Row(case, "grown beyond its stores", max(0.0, grown - explained), "MB", must=must))
    return rows
