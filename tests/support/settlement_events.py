"""Builds event slots as the core publishes them, with balances of its own to put into `balance` events."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind

EXTERNAL, FEES = 0, 1
NO_INDEX = 0xFFFFFFFF


class EventLog:
    """A synthetic core: consistent events, and an EventSource over them."""

    def __init__(self) -> None:
        self.slots: list[np.ndarray] = []
        self.sequence = 0
        self.accounts = ["system:external", "system:fees"]
        self.assets: list[str] = []
        self.balances: dict[tuple[int, int], int] = defaultdict(int)
        self.batch = 0
        self.cut_at = 0
        self._read = 0
        self.limit: int | None = None

    # ---- EventSource

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0
        self._read = 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        news: list[np.ndarray] = []
        for command in self.slots[self._read : self.limit]:
            if news and sum(map(len, news)) + len(command) > limit_slots:
                break
            news.append(command)
        self._read += len(news)
        return np.concatenate(news) if news else np.zeros(0, dtype=layout.EVENT)

    @property
    def head_sequence(self) -> int:
        return self.sequence

    # ---- commands

    def _emit(self, *records: np.ndarray) -> None:
        """The events of one command."""
        self.sequence += 1
        for index, record in enumerate(records):
            head = record[:1].view(layout.EVENT)
            head["sequence"], head["index"], head["slots"] = self.sequence, index, len(record)
            head["ts"] = 1_700_000_000_000_000_000 + self.sequence
        self.slots.append(np.concatenate([record.view(layout.EVENT) for record in records]))

    def asset(self, name: str, settled: bool = True) -> int:
        event = _slot(layout.DONE_ASSET, EventKind.DONE, CommandKind.ASSET, market=len(self.assets))
        event["name"], event["scale"], event["settled"] = name, 6, settled
        self.assets.append(name)
        self._emit(event)
        return len(self.assets) - 1

    def market(self, index: int, base: int, quote: int, u: int = 10) -> None:
        event = _slot(layout.DONE_MARKET, EventKind.DONE, CommandKind.MARKET, market=index)
        event["name"], event["base"], event["quote"], event["k"], event["u"] = f"M{index}", base, quote, 1, u
        self._emit(np.concatenate([event.view(layout.EVENT), np.zeros(1, dtype=layout.EVENT)]))

    def account(self, name: str, row: bytes | None = None, overdraft: int = 0) -> int:
        if name not in self.accounts:
            self.accounts.append(name)
        index = self.accounts.index(name)
        event = _slot(layout.DONE_ACCOUNT, EventKind.DONE, CommandKind.ACCOUNT, account=index)
        event["name"], event["overdraft"] = name, overdraft
        extra = np.zeros(1, dtype=layout.DONE_ACCOUNT_EXTRA)
        if row is not None:
            event["mask"] = layout.AccountMask.ROW
            extra["row"] = np.void(row)
        self._emit(np.concatenate([event.view(layout.EVENT), extra.view(layout.EVENT)]))
        return index

    def money(self, kind: EventKind, op: CommandKind, ref: str, legs: list[tuple[int, int, int, int]]) -> None:
        """`legs`: source, asset, amount, target."""
        head = _slot(layout.MONEY_EVENT, kind, op)
        head["ref"], head["leg_count"] = ref, len(legs)
        packed = np.zeros(-(-len(legs) // 4) * 4, dtype=layout.LEG)
        for place, leg in enumerate(legs):
            packed[place]["source"], packed[place]["asset"], packed[place]["amount"], packed[place]["target"] = leg
        if kind in (EventKind.TRANSFERRED, EventKind.POSTED):
            for source, asset, amount, target in legs:
                self.balances[source, asset] -= amount
                self.balances[target, asset] += amount
        touched = dict.fromkeys((who, leg[1]) for leg in legs for who in (leg[0], leg[3]))
        records = [np.concatenate([head.view(layout.EVENT), packed.view(layout.EVENT)])]
        for who, asset in touched:
            event = _slot(layout.BALANCE, EventKind.BALANCE, op, account=who, market=asset)
            event["available"] = self.balances[who, asset]
            records.append(event)
        self._emit(*records)

    def deposit(self, account: int, asset: int, amount: int) -> None:
        ref = f"d{self.sequence}"
        self.money(EventKind.TRANSFERRED, CommandKind.DEPOSIT, ref, [(EXTERNAL, asset, amount, account)])

    def trade(self, market: tuple[int, int, int, int], maker: int, taker: int, size: int, price: int, fee: int) -> None:
        """`market`: index, base, quote, u. The taker buys."""
        index, base, quote, u = market
        event = _slot(layout.TRADE, EventKind.TRADE, CommandKind.PLACE, account=maker, market=index)
        notional = size * price
        event["taker_account"], event["buyer"], event["size"], event["price"] = taker, 1, size, price
        event["notional"], event["maker_fee"], event["taker_fee"] = notional, fee // 2, fee
        for who, asset, amount in (
            (taker, base, size * u),
            (maker, base, -size * u),
            (taker, quote, -notional - fee),
            (maker, quote, notional - fee // 2),
            (FEES, quote, fee + fee // 2),
        ):
            self.balances[who, asset] += amount
        self._emit(event)

    def cut(self) -> int:
        self.batch += 1
        event = _slot(layout.CUT, EventKind.CUT, CommandKind.CUT)
        event["batch"], event["first_sequence"] = self.batch, self.cut_at + 1
        event["last_sequence"] = self.cut_at = self.sequence + 1
        event["state_hash"] = np.void(hashlib.sha256(str(self.sequence).encode()).digest()[:16])
        self._emit(event)
        return self.batch


def _slot(dtype: np.dtype, kind: EventKind, op: CommandKind, **head: int) -> np.ndarray:
    event = np.zeros(1, dtype=dtype)
    event["account"] = event["market"] = NO_INDEX
    event["kind"], event["op"], event["slots"] = kind, op, 1
    for name, value in head.items():
        event[name] = value
    return event
