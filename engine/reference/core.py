"""The door of the reference: the API of engine.core.Core, in plain Python.

It has no limits of speed and none of memory but CoreLimits; `state_hash` and `check` walk everything. It takes no
snapshot: a journal replays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import NIL, CommandKind, EventKind, Overdraft, RejectCode, Side
from engine.messages.layout import MoneyFlag
from engine.reference import digest, listing, money, orders
from engine.reference.model import INT64_MAX, State, reject, required_hold, unpack

__all__ = ["ReferenceCore"]


class ReferenceCore:
    """`apply` a record, get its events. Not thread-safe."""

    def __init__(self, limits: CoreLimits | None = None) -> None:
        self._state = State(CoreLimits() if limits is None else limits)

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
        due = money.next_due(self._state)
        return INT64_MAX if due is None else due[0]

    def apply(self, record: bytes | bytearray | memoryview | np.ndarray) -> np.ndarray:
        """Apply one record; its events as an array of layout.EVENT.

        Raises:
            ValueError: the buffer is not the record that its `slots` says.
            AssertionError: the record's sequence is not the next one.
        """
        data = bytes(record)
        if len(data) < layout.SLOT_BYTES or len(data) != data[5] * layout.SLOT_BYTES:
            raise ValueError(f"a record of {len(data)} bytes is not as long as it says")
        head, s = unpack(layout.COMMAND, data), self._state
        assert head.sequence == s.sequence + 1, "a record out of sequence"
        s.sequence, s.ts, s.op = head.sequence, head.ts, head.kind
        s.time = max(s.time, head.ts)
        s.fills = s.joins = 0
        s.events = []
        self._dispatch(head.kind, data)
        return np.concatenate(s.events) if s.events else np.empty(0, layout.EVENT)

    def _dispatch(self, kind: int, record: bytes) -> None:
        s = self._state
        match kind:
            case CommandKind.PLACE:
                orders.place(s, record)
            case CommandKind.CANCEL:
                orders.cancel(s, record)
            case CommandKind.REPLACE:
                orders.replace(s, record)
            case CommandKind.MASS_CANCEL:
                orders.mass_cancel(s, record)
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
            case CommandKind.TICK:
                money.tick(s)
            case CommandKind.CUT:
                self._cut()
            case CommandKind.PHASE | CommandKind.UNCROSS:
                self._refuse_of_market(kind, record)
            case CommandKind.KILL | CommandKind.REARM | CommandKind.CANCEL_AFTER | CommandKind.POISON:
                self._refuse_of_account(kind, record)
            case _:
                s.ts = 0
                reject(s, RejectCode.MALFORMED)

    def _cut(self) -> None:
        s = self._state
        first, s.batch_first, s.batch = s.batch_first, s.sequence + 1, s.batch + 1
        s.emit(
            layout.CUT, EventKind.CUT, batch=s.batch, first_sequence=first, last_sequence=s.sequence,
            state_hash=np.void(self.state_hash()),
        )  # fmt: skip

    def _refuse_of_market(self, kind: int, record: bytes) -> None:
        """phase and uncross: every market is continuous, and phases are not carried yet."""
        s = self._state
        reason = RejectCode.UNSUPPORTED if kind == CommandKind.PHASE else RejectCode.PHASE
        if unpack(layout.PHASE, record).market >= len(s.markets):
            reason = RejectCode.UNKNOWN_MARKET
        ref = None
        if unpack(layout.COMMAND, record).flags & MoneyFlag.HAS_REF:
            ref = unpack(layout.REF_SLOT, record, record[5] - 1).ref
        reject(s, reason, ref=ref)

    def _refuse_of_account(self, kind: int, record: bytes) -> None:
        """kill, rearm, cancel_after, poison: not carried yet."""
        s, r = self._state, unpack(layout.POISON, record)
        reason = RejectCode.UNKNOWN_ACCOUNT if r.account >= len(s.accounts) else RejectCode.UNSUPPORTED
        reject(s, reason, r.account, client_id=r.client_id if kind == CommandKind.POISON else None)

    def state_hash(self) -> bytes:
        """16 bytes: docs/state-hash.md."""
        return digest.state_hash(self._state)

    def check(self) -> None:
        """Every invariant of the rulebook, section 5, that this build can break.

        Raises:
            AssertionError: naming what is broken.
        """
        s = self._state
        for m in s.markets:
            bid, ask = m.best(Side.BUY), m.best(Side.SELL)
            assert bid is None or ask is None or bid < ask, f"{m.name!r} is crossed: {bid} {ask}"
            for side in (Side.BUY, Side.SELL):
                for price, level in m.half(side).items():
                    joins = [order.join for order in level.values()]
                    assert level and joins == sorted(joins), f"{m.name!r} {price}: queue out of order"
                    for order in level.values():
                        assert order.leaves > 0 and order.price == price and s.orders[order.order_id] is order
        required: dict[tuple[int, int], int] = {}
        for order in s.orders.values():
            market = s.markets[order.market]
            key = order.account, market.base if order.side == Side.SELL else market.quote
            required[key] = required.get(key, 0) + required_hold(market, order)
        for ref in s.refs.values():
            for move in ref.moves:
                key = move.source, move.asset
                required[key] = required.get(key, 0) + move.amount
        sums = [0] * len(s.assets)
        for key, balance in s.balances.items():
            account, asset = key
            sums[asset] += balance.available + balance.held
            assert balance.held == required.get(key, 0), f"{key}: held {balance.held}, required {required.get(key, 0)}"
            never = s.accounts[account].overdraft == Overdraft.NEVER
            assert not never or balance.available >= 0, f"{key}: available {balance.available}"
        assert not any(sums), f"assets do not sum to zero: {sums}"
        resting = sum(len(level) for m in s.markets for half in (m.bids, m.asks) for level in half.values())
        assert resting == len(s.orders), f"{resting} orders in the books, {len(s.orders)} open"

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
