"""Deposits on the chain that the core has not booked, and what exits have taken of them again.

Whoever holds a row's key may pay in and leave without ever having an account. Then neither is booked: an exit uses up
the unbooked arrivals of its row, oldest first, and only what it took beyond them is owed by accounts. Both stand on the
chain and in neither side of the books, so the vault's pool is still what the books say.

Everything is told from the chain's events and from what the ledger shows of their refs, so it is the same after a
restart. A deposit that was booked short counts as unbooked for the rest. Cost: what is unbooked, at each question; what
is booked whole is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.messages.codes import EventKind
from settlement.chain.events import ChainEvent
from settlement.ledger import Ledger
from settlement.refs import deposit_ref
from settlement.watcher import Watcher

__all__ = ["Arrivals"]


class Arrivals:
    """Of one watcher. Only the clerk calls `use`."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._read = 0
        self._open: list[ChainEvent] = []
        self._used: dict[str, int] = {}
        """Ref → units that exits took, of those exits that are over."""

    def unbooked(self, ledger: Ledger) -> Iterator[tuple[ChainEvent, str, int]]:
        """Event, its ref, units that stand on the chain and in no account; oldest first."""
        news = self._watcher.arrivals[self._read :]
        self._read += len(news)
        self._open = [event for event in self._open + news if self._left(event, ledger)]
        for event in self._open:
            yield event, deposit_ref(event.digest, event.index), self._left(event, ledger)

    def use(self, ref: str, units: int) -> None:
        """An exit that is over took these: for good."""
        self._used[ref] = self._used.get(ref, 0) + units

    def _left(self, event: ChainEvent, ledger: Ledger) -> int:
        ref = deposit_ref(event.digest, event.index)
        kind, postings = ledger.chain_refs.get(ref, (None, []))
        booked = sum(posting.amount for posting in postings) if kind in (EventKind.TRANSFERRED, EventKind.POSTED) else 0
        return event.amount - booked - self._used.get(ref, 0)
