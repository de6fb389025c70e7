"""The door of the reference: the API of engine.core.Core, in plain Python.

It has no limits of speed and none of memory but CoreLimits; `state_hash` and `check` walk everything. It takes no
snapshot: a journal replays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import NIL, CommandKind, EventKind, RejectCode, Side
from engine.messages.layout import AccountMask, MoneyFlag
from engine.reference import amend, auction, digest, listing, money, place, safeguards, timers
from engine.reference.audit import audit
from engine.reference.model import INT64_MAX, Market, State, reject, required_hold, unpack

__all__ = ["ReferenceCore"]


class ReferenceCore:
    """`apply` a record, get its events. Not thread-safe."""

    def __init__(self, limits: CoreLimits | None = None) -> None:
        self._state = State(CoreLimits() if limits is None else limits)
        self._hash = digest.RunningHash(self._state)

    @property
    def sequence(self) -> int:
        return self._state.sequence

    @property
    def time(self) -> int:
        """The largest ts so far, ns."""
        return self._state.time

    @property
    def batch(self) -> int:
        """Cuts so far."""
        return self._state.batch

    @property
    def next_due(self) -> int:
        """When the next tick has work, ns; 2^63 - 1: never."""
        due = timers.next_due(self._state)
        return INT64_MAX if due is None else due.at

    def apply(self, record: bytes | bytearray | memoryview | np.ndarray) -> np.ndarray:
        """Apply one record; its events as an array of layout.EVENT.

        Raises:
            ValueError: the buffer is not the record that its `slots` says, or its sequence is not the next one.
        """
        data = bytes(record)
        if len(data) < layout.SLOT_BYTES or len(data) != data[5] * layout.SLOT_BYTES:
            raise ValueError(f"a record of {len(data)} bytes is not as long as it says")
        head, s = unpack(layout.COMMAND, data), self._state
        if head.sequence != s.sequence + 1:
            raise ValueError(f"a record out of sequence: {head.sequence}, and {s.sequence + 1} is the next")
        s.sequence, s.ts, s.op = head.sequence, head.ts, head.kind
        s.time = max(s.time, head.ts)
        s.fills = s.joins = 0
        s.exec_references = {}
        s.events = []
        self._dispatch(head.kind, data)
        return np.frombuffer(bytearray().join(s.events), layout.EVENT)

    def _dispatch(self, kind: int, record: bytes) -> None:
        s = self._state
        if not _is_whole(kind, record):
            kind = CommandKind.MALFORMED
        match kind:
            case CommandKind.PLACE:
                place.place(s, record)
            case CommandKind.CANCEL:
                amend.cancel(s, record)
            case CommandKind.REPLACE:
                amend.replace(s, record)
            case CommandKind.MASS_CANCEL:
                amend.mass_cancel(s, record)
            case CommandKind.DEPOSIT | CommandKind.WITHDRAW | CommandKind.TRANSFER:
                money.money(s, record)
            case CommandKind.POST | CommandKind.WITHDRAW_SETTLED:
                money.post(s, record)
            case CommandKind.VOID | CommandKind.WITHDRAW_FAILED:
                money.void(s, record)
            case CommandKind.ASSET:
                listing.asset(s, record)
            case CommandKind.MARKET:
                listing.market(s, record)
            case CommandKind.ACCOUNT:
                listing.account(s, record)
            case CommandKind.PHASE:
                auction.phase(s, record)
            case CommandKind.UNCROSS:
                auction.uncross(s, record)
            case CommandKind.KILL | CommandKind.REARM:
                safeguards.kill(s, record)
            case CommandKind.CANCEL_AFTER:
                safeguards.cancel_after(s, record)
            case CommandKind.POISON:
                safeguards.poison(s, record)
            case CommandKind.TICK:
                timers.tick(s)
            case CommandKind.CUT:
                self._cut()
            case _:
                s.ts = 0
                reject(s, RejectCode.MALFORMED)

    def _cut(self) -> None:
        s = self._state
        first, s.batch_first, s.batch = s.batch_first, s.sequence + 1, s.batch + 1
        s.emit(
            layout.CUT, EventKind.CUT, batch=s.batch, first_sequence=first, last_sequence=s.sequence,
            state_hash=self.state_hash(),
        )  # fmt: skip

    def state_hash(self) -> bytes:
        """16 bytes: docs/state-hash.md."""
        return self._hash.value()

    def check(self) -> None:
        """Every invariant of the rulebook, section 5.

        Raises:
            AssertionError: naming what is broken.
        """
        audit(self._state)
        assert self._hash.value() == digest.state_hash(self._state), "a change went unnoticed by the state hash"

    # ------------------------------------------------------------ look-ups

    def account_index(self, name: str) -> int | None:
        return self._index(self._state.accounts, name)

    def market_index(self, name: str) -> int | None:
        return self._index(self._state.markets, name)

    def asset_index(self, name: str) -> int | None:
        return self._index(self._state.assets, name)

    def _index(self, table: list[Any], name: str) -> int | None:
        index = self._state.named(table, name.encode())
        return None if index == NIL else index

    def balances(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(account, asset) → (available, held), of all balances that are not zero."""
        return {
            key: (balance.available, balance.held)
            for key, balance in self._state.balances.items()
            if balance.available or balance.held
        }

    def book(self, market: int, side: Side) -> list[tuple[int, list[tuple[int, int]]]]:
        """Best level first: (price, [(order id, leaves) in queue order])."""
        half = self._state.markets[market].half(side)
        levels = [(price, [(o.order_id, o.leaves) for o in level.values()]) for price, level in half.items()]
        return levels[::-1] if side == Side.BUY else levels

    def open_orders(self) -> np.ndarray:
        """Every open and waiting order, dtype layout.OPEN_ORDERS.

        By market; what rests by side, price from the best and queue, then what waits by order id.
        """
        rows = [row for market in self._state.markets for row in self._rows(market)]
        return np.array(rows, layout.OPEN_ORDERS)

    def _rows(self, market: Market) -> Iterator[tuple[object, ...]]:
        resting = [order for level in reversed(market.bids.values()) for order in level.values()]
        resting += [order for level in market.asks.values() for order in level.values()]
        for o in resting + [order for _, order in sorted(market.stops.items())]:
            yield (
                o.order_id, o.account, o.market, o.client_ids[-1], o.price, o.size, o.leaves,
                required_hold(market, o), o.join, o.session, o.side, o.type, o.tif, o.flags, o.status, b"",
                o.stop_price, o.display_size, o.shown, o.expires_at, 0 if o.partner is None else o.partner.order_id,
            )  # fmt: skip

    def indicative(self, market: int) -> tuple[int | None, int, int]:
        """What an uncross would find now: price in ticks (None: nothing crosses), lots, imbalance (buy minus sell)."""
        return auction.clearing(self._state.markets[market])


def _is_whole(kind: int, record: bytes) -> bool:
    """Whether a definition has the slots that its flags promise. (Of other commands each part is asked for.)"""
    if kind not in (CommandKind.ASSET, CommandKind.MARKET, CommandKind.ACCOUNT, CommandKind.PHASE):
        return True
    needed = 1 + bool(unpack(layout.COMMAND, record).flags & MoneyFlag.HAS_REF) + (kind == CommandKind.MARKET)
    if kind == CommandKind.ACCOUNT:
        needed += bool(unpack(layout.ACCOUNT, record).mask & (AccountMask.ROW | AccountMask.STP_GROUP))
    return len(record) >= needed * layout.SLOT_BYTES
