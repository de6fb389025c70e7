"""A synthetic event log for the settlement benches: traders in pairs, two assets, a row each."""

from __future__ import annotations

import hashlib
import random
import time

import numpy as np

from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind

__all__ = ["Flow"]

LOT_UNITS, FEE, START = 10, 2, 10**12


class Flow:
    """An EventSource: traders in pairs, two assets, every trader in every batch."""

    lot_units, start = LOT_UNITS, START

    def __init__(self, traders: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._seed, self._traders, self._sequence, self._batch, self._last_cut = seed, traders, 0, 0, 0
        self._waiting: list[np.ndarray] = []
        for index, name in enumerate(("USDC", "MAYA")):
            asset = self._event(layout.DONE_ASSET, EventKind.DONE, CommandKind.ASSET, market=index)
            asset["name"], asset["scale"], asset["settled"] = name, 6, 1
            self._publish(asset)
        market = self._event(layout.DONE_MARKET, EventKind.DONE, CommandKind.MARKET, slots=2, market=0)
        market["name"], market["base"], market["quote"], market["k"], market["u"] = "MAYA-USDC", 1, 0, 1, LOT_UNITS
        self._publish(market, np.zeros(1, layout.EVENT))
        for index in range(2, traders + 2):
            account = self._event(layout.DONE_ACCOUNT, EventKind.DONE, CommandKind.ACCOUNT, slots=2, account=index)
            account["name"], account["mask"] = f"user:{index}", layout.AccountMask.ROW
            extra = np.zeros(1, layout.DONE_ACCOUNT_EXTRA)
            extra["row"] = np.void(self.row(index))
            self._publish(account, extra)
            for asset_index in (0, 1):
                deposit = self._event(layout.MONEY_EVENT, EventKind.TRANSFERRED, CommandKind.DEPOSIT, slots=2)
                deposit["ref"], deposit["leg_count"] = f"d{index}-{asset_index}", 1
                legs = np.zeros(4, layout.LEG)
                legs[0]["asset"], legs[0]["amount"], legs[0]["target"] = asset_index, START, index
                self._publish(deposit, legs)

    def row(self, account: int) -> bytes:
        """The row of that account's wallet."""
        return hashlib.sha256(f"{self._seed}:{account}".encode()).digest()

    def _event(self, dtype: np.dtype, kind: EventKind, op: CommandKind, **head: int) -> np.ndarray:
        event = np.zeros(1, dtype)
        event["kind"], event["op"], event["slots"] = kind, op, 1
        for name, value in head.items():
            event[name] = value
        return event

    def _publish(self, event: np.ndarray, *extensions: np.ndarray) -> None:
        self._sequence += 1
        event["sequence"], event["ts"] = self._sequence, time.time_ns()
        self._waiting += [event.view(layout.EVENT), *(extension.view(layout.EVENT) for extension in extensions)]

    def trade_and_cut(self) -> None:
        for maker in range(2, self._traders + 2, 2):
            trade = self._event(layout.TRADE, EventKind.TRADE, CommandKind.PLACE, account=maker, market=0)
            size, price = self._rng.randrange(1, 99), self._rng.randrange(1, 999)
            trade["taker_account"], trade["buyer"], trade["size"], trade["price"] = maker + 1, 1, size, price
            trade["notional"], trade["maker_fee"], trade["taker_fee"] = size * price, FEE, FEE
            self._publish(trade)
        self.cut()

    def cut(self) -> None:
        self._batch += 1
        cut = self._event(layout.CUT, EventKind.CUT, CommandKind.CUT)
        cut["batch"], cut["first_sequence"], cut["last_sequence"] = self._batch, self._last_cut + 1, self._sequence + 1
        self._last_cut = self._sequence + 1
        self._publish(cut)

    def trades(self, count: int) -> np.ndarray:
        """That many trades between random traders, as slots; they are published by being returned."""
        dice = np.random.default_rng(self._rng.randrange(2**32))
        trade = np.zeros(count, layout.TRADE)
        trade["kind"], trade["op"], trade["slots"], trade["market"] = EventKind.TRADE, CommandKind.PLACE, 1, 0
        maker = dice.integers(0, self._traders, count)
        trade["account"] = maker + 2
        trade["taker_account"] = (maker + dice.integers(1, self._traders, count)) % self._traders + 2
        trade["buyer"], trade["size"], trade["price"] = 1, dice.integers(1, 99, count), dice.integers(1, 999, count)
        trade["notional"] = trade["size"] * trade["price"]
        trade["maker_fee"], trade["taker_fee"] = FEE, FEE
        trade["sequence"] = self._sequence + 1 + np.arange(count)
        self._sequence += count
        return trade.view(layout.EVENT)

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        waiting, self._waiting = self._waiting, []
        return np.concatenate(waiting) if waiting else np.zeros(0, layout.EVENT)

    @property
    def head_sequence(self) -> int:
        return self._sequence
