"""Builders: a small exchange that takes commands as JSON and answers events as JSON, on core or reference."""

from __future__ import annotations

import struct
from typing import Any

from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed
from engine.reference import ReferenceCore

__all__ = ["Desk", "account", "cancel", "deposit", "limit", "market_order", "replace"]

Json = dict[str, Any]


def account(name: str, **fields: Any) -> Json:
    return {"op": "account", "account": name, **fields}


def deposit(name: str, asset: str, amount: str, ref: str | None = None, **fields: Any) -> Json:
    ref = f"dep:{name}:{asset}:{amount}" if ref is None else ref
    return {"op": "deposit", "account": name, "asset": asset, "amount": amount, "ref": ref, **fields}


def limit(name: str, client_id: str, side: str, price: str, size: str, market: str = "TOK-USD", **fields: Any) -> Json:
    return {
        "op": "place", "account": name, "market": market, "client_id": client_id, "side": side, "type": "limit",
        "price": price, "size": size, **fields,
    }  # fmt: skip


def market_order(name: str, client_id: str, side: str, market: str = "TOK-USD", **fields: Any) -> Json:
    return {
        "op": "place", "account": name, "market": market, "client_id": client_id, "side": side, "type": "market",
        **fields,
    }  # fmt: skip


def cancel(name: str, client_id: str) -> Json:
    return {"op": "cancel", "account": name, "client_id": client_id}


def replace(name: str, client_id: str, **fields: Any) -> Json:
    return {"op": "replace", "account": name, "client_id": client_id, **fields}


class Desk:
    """A core with its codec. `do` applies one command and returns its events as JSON.

    With TOK-USD listed (tick 0.01, lot 1, USD of scale 2, TOK of scale 0), no fees unless given, and each of `traders`
    opened with 10,000 USD and 1,000 TOK.
    """

    def __init__(self, core: Any = None, traders: tuple[str, ...] = ("ann", "bob"), **terms: Any) -> None:
        self.core = ReferenceCore() if core is None else core
        self.directory = Directory()
        self.decoder = EventDecoder(self.directory)
        self.encoder = CommandEncoder(self.directory, self.decoder.orders)
        self.do({"op": "asset", "asset": "USD", "scale": 2})
        self.do({"op": "asset", "asset": "TOK", "scale": 0})
        listing = {"tick": "0.01", "lot": "1", "taker_ppm": 0, "maker_ppm": 0, **terms}
        self.do({"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", **listing})
        for name in traders:
            self.do(account(name))
            self.do(deposit(name, "USD", "10000"))
            self.do(deposit(name, "TOK", "1000"))

    def do(self, command: Json) -> list[Json]:
        try:
            record = self.encoder.encode(command)
        except Malformed:
            record = self.encoder.malformed()
        struct.pack_into("<Q", record, 8, self.core.sequence + 1)
        return self.decoder.decode(self.core.apply(record), command)

    def names(self, command: Json) -> list[str]:
        """The events' names, with the reason where there is one: `canceled stp`."""
        return [" ".join(filter(None, (event["event"], event.get("reason")))) for event in self.do(command)]

    def balance(self, name: str, asset: str) -> tuple[str, str]:
        """(available, held) as decimals."""
        entry, unit = self.directory.accounts_by_name[name], self.directory.assets_by_name[asset]
        rows = self.core.balances()
        if isinstance(rows, dict):
            available, held = rows.get((entry.index, unit.index), (0, 0))
        else:
            row = rows[(rows["account"] == entry.index) & (rows["asset"] == unit.index)]
            available, held = (int(row["available"][0]), int(row["held"][0])) if len(row) else (0, 0)
        return unit.text(available), unit.text(held)
