"""What the events of a whole replay say, found without any code of the exchange but the layout.

Orders and fills, every money command by its ref, who is who, and where each cut lies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.messages import layout
from engine.messages.codes import CancelReason, CommandKind, EventKind

__all__ = ["EXTERNAL", "Deed", "Events", "Fill", "Leg"]

EXTERNAL = "system:external"

Leg = tuple[str, str, int, str]
"""From, asset, units, to."""
Deed = tuple[EventKind, int, list[Leg]]
"""What was done under a ref (transferred, pended, posted, voided), by which sequence, and its postings."""
Fill = tuple[str, int, int, int, int]
"""Account, price in ticks, size and leaves in lots, fee in units of the quote."""
_MONEY = (EventKind.TRANSFERRED, EventKind.PENDED, EventKind.POSTED, EventKind.VOIDED)


@dataclass
class Events:
    """Feed it with `take`, in order."""

    accepted: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    filled: Counter[int] = field(default_factory=Counter)
    trades: Counter[tuple[int, int]] = field(default_factory=Counter)
    fills: dict[tuple[str, int, int], Fill] = field(default_factory=dict)
    """(market, trade id, order) → that side of the trade."""
    canceled: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    """Of these, the orders that went since their session had."""
    last_fill: dict[int, int] = field(default_factory=dict)
    """Order → sequence of its last fill."""
    deeds: dict[str, list[Deed]] = field(default_factory=lambda: defaultdict(list))
    """By ref, in order."""
    cuts: dict[int, int] = field(default_factory=dict)
    """Batch → its last sequence."""
    rows: dict[str, bytes] = field(default_factory=dict)
    """Account → row, of those that have one."""
    commands: int = 0
    _accounts: dict[int, str] = field(default_factory=lambda: {0: EXTERNAL, 1: "system:fees"})
    _assets: dict[int, str] = field(default_factory=dict)
    _markets: dict[int, str] = field(default_factory=dict)

    def take(self, events: npt.NDArray[np.void], first: int, last: int) -> None:
        self.commands += last - first + 1
        kinds, slots, at = events["kind"].tolist(), events["slots"].tolist(), 0
        heads: dict[int, list[int]] = {EventKind.ACCEPTED: [], EventKind.TRADE: [], EventKind.CANCELED: []}
        while at < len(kinds):
            if kinds[at] in heads:
                heads[kinds[at]].append(at)
            elif kinds[at] in _MONEY:
                self._deed(events, at, slots[at])
            elif kinds[at] == EventKind.DONE:
                self._entity(events, at)
            elif kinds[at] == EventKind.CUT:
                cut = events[at : at + 1].view(layout.CUT)[0]
                self.cuts[int(cut["batch"])] = int(cut["last_sequence"])
            at += max(1, slots[at])
        accepted = events.view(layout.ACCEPTED)[heads[EventKind.ACCEPTED]]
        for name, order, size, flags in accepted[["client_id", "order_id", "size", "flags"]].tolist():
            self.accepted.setdefault(name.decode(), []).append(order)
            if not flags & layout.PlaceFlag.BUDGET:
                self.sizes[order] = size
        for order, reason in events.view(layout.CANCELED)[heads[EventKind.CANCELED]][["order_id", "reason"]].tolist():
            self.canceled.add(order)
            if reason == CancelReason.SESSION:
                self.ended.add(order)
        for trade in events.view(layout.TRADE)[heads[EventKind.TRADE]]:
            self._trade(trade)

    def liabilities(self, asset: str, to: int) -> int:
        """Units that came in from outside and did not go there again, up to a sequence: what there is of it inside."""
        total = 0
        for deeds in self.deeds.values():
            for kind, sequence, legs in deeds:
                if sequence <= to and kind in (EventKind.TRANSFERRED, EventKind.POSTED):
                    for source, of, units, target in legs:
                        if of == asset:
                            total += units * ((source == EXTERNAL) - (target == EXTERNAL))
        return total

    def _trade(self, trade: np.void) -> None:
        number, market = int(trade["trade_id"]), int(trade["market"])
        self.trades[market, number] += 1
        for who, account in (("maker", "account"), ("taker", "taker_account")):
            order = int(trade[f"{who}_order_id"])
            self.filled[order] += int(trade["size"])
            self.last_fill[order] = int(trade["sequence"])
            self.fills[self._markets[market], number, order] = (
                self._accounts[int(trade[account])], int(trade["price"]), int(trade["size"]),
                int(trade[f"{who}_leaves"]), int(trade[f"{who}_fee"]),
            )  # fmt: skip

    def _deed(self, events: npt.NDArray[np.void], at: int, slots: int) -> None:
        event = events[at : at + 1].view(layout.MONEY_EVENT)[0]
        start = at + 1 + int(event["has_memo"])
        legs = events[start : at + slots].view(layout.LEG)[: int(event["leg_count"])]
        postings = [
            (self._accounts[source], self._assets[asset], units, self._accounts[target])
            for source, asset, units, target in legs[["source", "asset", "amount", "target"]].tolist()
        ]
        deed = EventKind(int(event["kind"])), int(event["sequence"]), postings
        self.deeds[event["ref"].decode()].append(deed)

    def _entity(self, events: npt.NDArray[np.void], at: int) -> None:
        one, op = events[at : at + 1], int(events["op"][at])
        if op == CommandKind.ACCOUNT:
            account = one.view(layout.DONE_ACCOUNT)[0]
            name = self._accounts[int(account["account"])] = account["name"].decode()
            if int(account["mask"]) & layout.AccountMask.ROW:
                self.rows[name] = events[at + 1 : at + 2].view(layout.DONE_ACCOUNT_EXTRA)[0]["row"].tobytes()
        elif op in (CommandKind.ASSET, CommandKind.MARKET):
            names = self._assets if op == CommandKind.ASSET else self._markets
            kind = layout.DONE_ASSET if op == CommandKind.ASSET else layout.DONE_MARKET
            names[int(one["market"][0])] = one.view(kind)[0]["name"].decode()
