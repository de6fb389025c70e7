"""Do orders end with the session that placed them? By the journal, and by what traders know of their own sessions.

    the session is over    no such order is open, once the exchange has had a moment to notice
    its core is dead       no such order is filled by the first answered command of a later life, or behind it: they go
                           before anybody is listened to
    no other order         goes because a session did
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tests.faults.load import Trader
from tests.faults.told import Events

__all__ = ["NOTICED_S", "check_sessions"]

NOTICED_S = 20.0
"""How long the exchange may take to cancel what ends with a lost connection."""


class Result(Protocol):
    ended: int

    def check(self, holds: bool, text: str) -> None: ...


def check_sessions(journal: Events, open_orders: set[int], traders: Sequence[Trader], result: Result) -> None:
    """`open_orders`: at the end of that journal, when lost sessions were noticed or NOTICED_S had passed. Sets
    `result.ended`."""
    may_end: set[int] = set()
    for trader in traders:
        if not trader.ends:
            continue
        of_lost = {
            told.order_id: told.session[0] for told in trader.history.values()
            if told.outcome == "accepted" and told.session != trader.session
        }  # fmt: skip
        may_end |= of_lost.keys()
        left = sorted(of_lost.keys() & open_orders)
        result.check(not left, f"{len(left)} orders of sessions that {trader.name} lost are open: {left[:3]}")
        late = [
            order for order, life in of_lost.items() if journal.last_fill.get(order, 0) >= _heard_again(traders, life)
        ]
        result.check(
            not late,
            f"{len(late)} orders of {trader.name} were filled in a later life than that of their session: {late[:3]}",
        )
    others = sorted(journal.ended - may_end)
    result.check(not others, f"orders ended as if their session had, which lives, or was to leave them: {others[:3]}")
    result.ended = len(journal.ended)


def _heard_again(traders: Sequence[Trader], life: int) -> int:
    """The first sequence that anybody was acked in a later life of the core; a huge one: nobody was."""
    firsts = [first for trader in traders for of, first in trader.first_acked.items() if of > life]
    return min(firsts, default=1 << 63)
