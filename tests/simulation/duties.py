"""What must have happened, and what must not, by the rulebook and the words of those who asked: no event tells of it.

Goes through a history beside the ledger (model.py) and looks at each command before the ledger takes it:

    kill              cancels all of its account at once; nothing of it is accepted until a `rearm`
    cancel_after      the first command at or behind its time cancels all of its account, unless it was set anew before
    expires_at        an order is not accepted from then on, and the first command at or behind it ends the order before
                      anything else; in a halted market the first one behind the halt
    post_only         never takes
    phase             no market accepts an order that its phase does not take

Time is that of the engine: `ts` of the events. What is not known (a `rearm` whose answer was lost, a phase that nobody
was told of) is taken for what excuses the exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.model import Ledger, Order
from tests.simulation.reasons import is_open_to

__all__ = ["Duties", "Said"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A `kill`, `rearm` or `cancel_after` that was taken, or may have been."""

    sequence: int
    account: str
    op: str
    at: int | None = None
    """Of `cancel_after`: the time; 0: no more; None: it may be of this account or of another one, or set nothing."""


class Duties:
    """`take` with each command before the ledger takes it; `end` behind the last one."""

    def __init__(
        self, ledger: Ledger, said: Sequence[Said], is_post_only: Callable[[Json], bool],
        blame: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """`said`: by sequence. `is_post_only`: of an `accepted`, whether whoever placed that order had said so."""
        self._ledger, self._said, self._blame = ledger, list(said), blame
        self._is_post_only = is_post_only
        self._killed: dict[str, int] = {}
        """Account → the kill that stands."""
        self._timers: dict[str, int] = {}
        """Account → when its orders end."""
        self._expiring: dict[int, int] = {}
        """Order → its `expires_at`."""
        self._makers: set[int] = set()
        """Orders that are not to take."""

    def take(self, sequence: int, events: list[Json]) -> None:
        """The events of one command, as the drop copy heard them, before the ledger has them."""
        self.obey_before(sequence)
        self._reach(sequence, events[0]["ts"], events)
        while self._said and self._said[0].sequence == sequence:
            self._obey(self._said.pop(0), events)
        for event in events:
            if event["event"] == "accepted":
                self._accepted(event)
            elif event["event"] == "trade":
                self._trade(event)

    def end(self, sequence: int, ts: int) -> None:
        """The last command, which the ledger has, and its time. The markets know their phases then."""
        self._reach(sequence, ts, [])

    def obey_before(self, sequence: int) -> None:
        """Those of earlier commands of which nobody was told: so they had nothing to cancel."""
        while self._said and self._said[0].sequence < sequence:
            self._obey(self._said.pop(0), [])

    def is_killed(self, account: str) -> bool:
        """Whether a kill of it stands."""
        return account in self._killed

    def _reach(self, sequence: int, ts: int, events: list[Json]) -> None:
        """What ends by that time has ended before this command, or does in its events."""
        for account in [account for account, at in self._timers.items() if at <= ts]:
            self._all_canceled(account, events, f"sequence {sequence}: cancel_after {self._timers.pop(account)}")
        canceled = _canceled(events)
        for order_id in [order_id for order_id, at in self._expiring.items() if at <= ts]:
            order = self._ledger.orders[order_id]
            if not order.is_open or order_id in canceled:
                del self._expiring[order_id]
            elif order.market.phase not in ("", "halt") and order.market.left_halt_at != sequence:
                at = self._expiring.pop(order_id)
                self._blame("I14", f"sequence {sequence}: order {order_id} is open at {ts}; it was to end at {at}")

    def _obey(self, said: Said, events: list[Json]) -> None:
        account = said.account
        if said.op == "kill":
            self._killed[account] = said.sequence
            self._all_canceled(account, events, f"sequence {said.sequence}: kill")
        elif said.op == "rearm":
            self._killed.pop(account, None)
        elif said.at:
            self._timers[account] = said.at
        else:
            self._timers.pop(account, None)

    def _standing(self, account: str) -> list[Order]:
        return [order for order in self._ledger.orders.values() if order.is_open and order.account == account]

    def _all_canceled(self, account: str, events: list[Json], what: str) -> None:
        canceled = _canceled(events)
        left = [order.order_id for order in self._standing(account) if order.order_id not in canceled]
        if left:
            self._blame("I4", f"{what} of {account} left its orders {left[:5]} open")

    def _accepted(self, event: Json) -> None:
        account, order_id = event["account"], event["order_id"]
        if account in self._killed:
            self._blame("I4", f"order {order_id} of {account} is accepted behind the kill at {self._killed[account]}")
        if "expires_at" in event:
            self._expiring[order_id] = event["expires_at"]
            if event["expires_at"] <= event["ts"]:
                self._blame("I14", f"order {order_id} is accepted at {event['ts']}, behind its end: {event}")
        market = self._ledger.markets[event["market"]]
        if not is_open_to(event, market.phase):
            self._blame("I6", f"order {order_id} is accepted while {market.name} is in {market.phase}: {event}")
        if self._is_post_only(event):
            self._makers.add(order_id)

    def _trade(self, event: Json) -> None:
        order_id = event.get("taker_order_id", 0)
        if order_id in self._makers and event["aggressor"] != "none":
            self._blame("I14", f"sequence {event['sequence']}: order {order_id} is post_only and takes")


def _canceled(events: list[Json]) -> set[int]:
    return {event["order_id"] for event in events if event["event"] == "canceled"}
