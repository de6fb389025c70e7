"""Names and terms of assets, markets and accounts, learnt from the core's own `done` and `phase_changed` events.

Everybody who turns names into indices, or indices and whole numbers into text, holds one Directory and feeds it every
event slot in order. It never guesses: what no `done` event has named is unknown. `system:external` (account 0) and
`system:fees` (account 1) are known from the start.

Entities are never removed and an index never changes its name, so a reference to an entry stays good; a later `done`
replaces the entry by a new one. One thread writes; readers of the same thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.messages import layout
from engine.messages.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    Overdraft,
    Phase,
)
from engine.messages.decimals import decimal_text, steps_of, steps_text, units_of

__all__ = ["AccountEntry", "AssetEntry", "Directory", "MarketEntry"]

_LAST_ENTITY_OP = CommandKind.ACCOUNT
"""asset, market and account are the first three numbers, and a number never changes."""


@dataclass(frozen=True, slots=True)
class AssetEntry:
    """An asset. `scale`: decimals of a unit."""

    index: int
    name: str
    scale: int
    settled: bool

    def units(self, text: str) -> int:
        """Whole units of a wire decimal, or codes.INVALID."""
        return units_of(text, self.scale)

    def text(self, units: int) -> str:
        """Units as the shortest decimal."""
        return decimal_text(units, self.scale)


@dataclass(frozen=True, slots=True)
class MarketEntry:
    """A market as it now is. Steps are mantissa × 10^-decimals; sizes in lots, max_price in ticks."""

    index: int
    name: str
    base: AssetEntry
    quote: AssetEntry
    tick: int
    tick_decimals: int
    lot: int
    lot_decimals: int
    k: int
    u: int
    min_size: int
    max_size: int
    max_price: int
    taker_ppm: int
    maker_ppm: int
    entry_band_ppm: int
    exec_band_ppm: int
    pause_ns: int
    phase: Phase
    reference_price: int

    def ticks(self, text: str) -> int:
        """Whole ticks of a wire decimal, or codes.INVALID."""
        return steps_of(text, self.tick, self.tick_decimals)

    def lots(self, text: str) -> int:
        """Whole lots of a wire decimal, or codes.INVALID."""
        return steps_of(text, self.lot, self.lot_decimals)

    def price_text(self, ticks: int) -> str:
        return steps_text(ticks, self.tick, self.tick_decimals)

    def size_text(self, lots: int) -> str:
        return steps_text(lots, self.lot, self.lot_decimals)


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An account as it now is. `mask`: layout.AccountMask of what was ever set; fields never set are 0 or empty."""

    index: int
    name: str
    status: AccountStatus
    overdraft: Overdraft
    mask: int
    taker_ppm: int
    maker_ppm: int
    max_open_orders: int
    row: bytes
    stp_group: str


class Directory:
    """Assets, markets and accounts by name and by index."""

    __slots__ = ("accounts", "accounts_by_name", "assets", "assets_by_name", "markets", "markets_by_name")

    def __init__(self) -> None:
        self.assets: list[AssetEntry] = []
        self.markets: list[MarketEntry] = []
        self.accounts: list[AccountEntry] = []
        self.assets_by_name: dict[str, AssetEntry] = {}
        self.markets_by_name: dict[str, MarketEntry] = {}
        self.accounts_by_name: dict[str, AccountEntry] = {}
        for index, name in enumerate(("system:external", "system:fees")):
            self._set_account(
                AccountEntry(index, name, AccountStatus.ACTIVE, Overdraft.OPEN, 0, 0, 0, 0, bytes(32), "")
            )

    def asset(self, name: str) -> AssetEntry | None:
        return self.assets_by_name.get(name)

    def market(self, name: str) -> MarketEntry | None:
        return self.markets_by_name.get(name)

    def account(self, name: str) -> AccountEntry | None:
        return self.accounts_by_name.get(name)

    def define(self, entry: AssetEntry | MarketEntry | AccountEntry) -> None:
        """Take in an entry that a reader kept itself, in the order of the indices.

        Raises:
            ValueError: the entries before it are missing.
        """
        if isinstance(entry, AssetEntry):
            self._set_asset(entry)
        elif isinstance(entry, MarketEntry):
            self._set_market(entry)
        else:
            self._set_account(entry)

    def learn(self, slots: np.ndarray | bytes | bytearray | memoryview) -> None:
        """Take in the `done` and `phase_changed` events among whole events in order; all others are passed over.

        `slots`: whole events, as an array of any 128-byte dtype or as bytes. An event seen twice changes nothing.

        Raises:
            ValueError: an entity comes without the ones before it, so that events were left out.
        """
        heads = _slots(slots)
        kinds = heads["kind"]
        phases = kinds == EventKind.PHASE_CHANGED
        found = np.flatnonzero((kinds == EventKind.DONE) & (heads["op"] <= _LAST_ENTITY_OP) | phases)
        if not len(found):
            return
        starts = _starts(heads)
        for at in found:
            if not starts[at]:  # an extension slot may look like a head
                continue
            if phases[at]:
                self._learn_phase(heads, int(at))
            else:
                self._learn_one(heads, int(at))

    def _learn_phase(self, heads: np.ndarray, at: int) -> None:
        index = int(heads[at]["market"])
        if index >= len(self.markets):
            raise ValueError(f"market {index} changes its phase, but {len(self.markets)} are known")
        phase = Phase(int(heads.view(layout.PHASE_CHANGED)[at]["phase"]))
        self._set_market(replace(self.markets[index], phase=phase))

    def _learn_one(self, heads: np.ndarray, at: int) -> None:
        head, op = heads[at], heads[at]["op"]
        if op == CommandKind.ASSET:
            record = heads.view(layout.DONE_ASSET)[at]
            self._set_asset(
                AssetEntry(int(head["market"]), _text(record["name"]), int(record["scale"]), bool(record["settled"]))
            )
        elif op == CommandKind.MARKET:
            record = heads.view(layout.DONE_MARKET)[at]
            terms = heads.view(layout.DONE_MARKET_EXTRA)[at + 1]
            self._set_market(
                MarketEntry(
                    index=int(head["market"]),
                    name=_text(record["name"]),
                    base=self.assets[record["base"]],
                    quote=self.assets[record["quote"]],
                    k=int(record["k"]),
                    u=int(record["u"]),
                    phase=Phase(int(record["phase"])),
                    **{
                        name: int(terms[name])
                        for name in (
                            "tick", "tick_decimals", "lot", "lot_decimals", "min_size", "max_size", "max_price",
                            "taker_ppm", "maker_ppm", "entry_band_ppm", "exec_band_ppm", "pause_ns", "reference_price",
                        )
                    },
                )
            )  # fmt: skip
        else:
            record = heads.view(layout.DONE_ACCOUNT)[at]
            extra = heads.view(layout.DONE_ACCOUNT_EXTRA)[at + 1]
            self._set_account(
                AccountEntry(
                    index=int(head["account"]),
                    name=_text(record["name"]),
                    status=AccountStatus(int(record["status"])),
                    overdraft=Overdraft(int(record["overdraft"])),
                    mask=int(record["mask"]),
                    taker_ppm=int(record["taker_ppm"]),
                    maker_ppm=int(record["maker_ppm"]),
                    max_open_orders=int(record["max_open_orders"]),
                    row=bytes(extra["row"]),
                    stp_group=_text(extra["stp_group"]),
                )
            )

    def _set_asset(self, entry: AssetEntry) -> None:
        _put(self.assets, entry)
        self.assets_by_name[entry.name] = entry

    def _set_market(self, entry: MarketEntry) -> None:
        _put(self.markets, entry)
        self.markets_by_name[entry.name] = entry

    def _set_account(self, entry: AccountEntry) -> None:
        _put(self.accounts, entry)
        self.accounts_by_name[entry.name] = entry


def _put(table: list[Any], entry: AssetEntry | MarketEntry | AccountEntry) -> None:
    if entry.index == len(table):
        table.append(entry)
    elif entry.index < len(table):
        table[entry.index] = entry
    else:
        raise ValueError(f"{type(entry).__name__} {entry.name} has index {entry.index}, but {len(table)} are known")


def _slots(slots: np.ndarray | bytes | bytearray | memoryview) -> np.ndarray:
    if isinstance(slots, np.ndarray):
        return slots.view(layout.EVENT)
    return np.frombuffer(slots, layout.EVENT)


def _starts(heads: np.ndarray) -> np.ndarray:
    """Which slots begin an event."""
    lengths = heads["slots"].tolist()
    starts = np.zeros(len(heads), bool)
    at = 0
    while at < len(lengths):
        if lengths[at] == 0:
            raise ValueError(f"slot {at} is no event: its length is 0")
        starts[at] = True
        at += lengths[at]
    return starts


def _text(value: bytes) -> str:
    return bytes(value).decode("ascii")
