"""Messages as JSON in text frames: decimal strings in their shortest form, as everywhere on the JSON wire.

Texts of prices and sizes are remembered, since the same few come again and again: at most TEXTS_MAX of them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from engine.messages.codes import Aggressor, Phase
from engine.messages.directory import MarketEntry
from marketdata.candles import INTERVALS
from marketdata.frames import text_frame
from marketdata.messages import AuctionState, Heads, Levels, MarketLine, TickerState

__all__ = ["JsonCodec", "candle_fields", "checksum_text", "status_frame", "trade_message"]

TEXTS_MAX = 200_000
_ENCODER = msgspec.json.Encoder()
_AGGRESSOR_WORDS = tuple(member.word for member in sorted(Aggressor))
_SIDE_WORDS = ("buy", "sell")


def checksum_text(checksum: int) -> str:
    """16 hex digits."""
    return f"{checksum:016x}"


def trade_message(market: MarketEntry, row: np.void) -> dict[str, Any]:
    """One trade as the wire shows it. `ts` is ns since 1970, UTC."""
    return {
        "trade_id": int(row["trade_id"]),
        "seq": int(row["sequence"]),
        "ts": int(row["ts"]),
        "price": market.price_text(int(row["price"])),
        "size": market.size_text(int(row["size"])),
        "aggressor": _AGGRESSOR_WORDS[row["aggressor"]],
    }


def candle_fields(market: MarketEntry, row: tuple[int, ...]) -> dict[str, Any]:
    """One candle as the wire shows it; `row` as of candles.Candles.last."""
    return {
        "begin": row[0], "end": row[1], "open": market.price_text(row[2]), "high": market.price_text(row[3]),
        "low": market.price_text(row[4]), "close": market.price_text(row[5]), "volume": market.size_text(row[6]),
        "quote_volume": market.quote.text(row[7]), "trades": row[8], "first_seq": row[9], "last_seq": row[10],
    }  # fmt: skip


def status_frame(kind: str, seq: int, prev_seq: int, ts: int, lines: list[MarketLine]) -> bytes:
    """The markets and their phases; text in every encoding, since it is mostly names."""
    markets = [
        {
            "market": line.market.name, "index": line.market.index, "base": line.market.base.name,
            "quote": line.market.quote.name, "tick": line.market.price_text(1), "lot": line.market.size_text(1),
            "phase": Phase(line.phase).word,
        }
        for line in lines
    ]  # fmt: skip
    chain = {} if prev_seq < 0 else {"prev_seq": prev_seq}
    return text_frame(
        _ENCODER.encode({"type": kind, "channel": "status", "seq": seq, **chain, "ts": ts, "markets": markets})
    )


class JsonCodec:
    """Fulfils messages.Codec."""

    name = "json"

    def __init__(self) -> None:
        self._prices: dict[tuple[int, int], str] = {}
        self._sizes: dict[tuple[int, int], str] = {}

    def book(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, depth: int, bids: Levels, asks: Levels,
        checksum: int, *, replayed: bool = False,
    ) -> bytes:  # fmt: skip
        fields: dict[str, Any] = {"depth": depth} if prev_seq < 0 else {}
        if prev_seq < 0:
            fields |= {"tick": market.price_text(1), "lot": market.size_text(1)}
        fields["bids"], fields["asks"] = self._levels(market, bids), self._levels(market, asks)
        fields["checksum"] = checksum_text(checksum)
        return self._frame("update", channel, seq, prev_seq, replayed, fields)

    def orders(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: list[tuple[int, int, int, int]],
        checksum: int, *, replayed: bool = False,
    ) -> bytes:  # fmt: skip
        fields: dict[str, Any] = {}
        if prev_seq < 0:
            fields |= {"tick": market.price_text(1), "lot": market.size_text(1)}
        fields["orders"] = [
            [number, _SIDE_WORDS[side], self._price(market, price), self._size(market, size)]
            for number, side, price, size in rows
        ]
        fields["checksum"] = checksum_text(checksum)
        return self._frame("update", channel, seq, prev_seq, replayed, fields)

    def trades(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: np.ndarray, *, replayed: bool = False
    ) -> bytes:
        fields = {"trades": [trade_message(market, row) for row in rows]}
        return self._frame("event", channel, seq, prev_seq, replayed, fields)

    def ticker(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: TickerState) -> bytes:
        fields: dict[str, Any] = {"last": None, "last_size": None, "last_ts": None}
        if state.last is not None:
            price, size, ts = state.last
            fields = {"last": self._price(market, price), "last_size": self._size(market, size), "last_ts": ts}
        for name, level in (("best_bid", state.best_bid), ("best_ask", state.best_ask)):
            fields[name] = None if level is None else [self._price(market, level[0]), self._size(market, level[1])]
        for name, ticks in (("open_24h", state.open), ("high_24h", state.high), ("low_24h", state.low)):
            fields[name] = None if ticks is None else self._price(market, ticks)
        fields["volume_24h"] = market.size_text(state.size)
        fields["quote_volume_24h"] = market.quote.text(state.notional)
        fields["trades_24h"] = state.trades
        fields["phase"] = Phase(state.phase).word
        return self._frame("update", channel, seq, prev_seq, False, fields)

    def candles(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, kind: int, rows: list[tuple[int, ...]]
    ) -> bytes:
        fields = {"interval": INTERVALS[kind], "candles": [candle_fields(market, row) for row in rows]}
        return self._frame("update", channel, seq, prev_seq, False, fields)

    def auction(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: AuctionState) -> bytes:
        fields: dict[str, Any] = {
            "phase": Phase(state.phase).word,
            "price": None if state.price is None else self._price(market, state.price),
            "paired": self._size(market, state.paired),
            "imbalance": self._signed(market, state.imbalance),
            "result": None,
        }
        if state.result is not None:
            at, price, size, imbalance = state.result
            fields["result"] = {
                "seq": at, "price": None if price is None else self._price(market, price),
                "size": self._size(market, size), "imbalance": self._signed(market, imbalance),
            }  # fmt: skip
        return self._frame("update", channel, seq, prev_seq, False, fields)

    def heads(self, seq: int, ts: int, heads: Heads) -> bytes:
        return text_frame(
            _ENCODER.encode({"type": "heads", "seq": seq, "ts": ts, "heads": {line[0]: line[4] for line in heads}})
        )

    # ---------------------------------------------------------------- texts

    def _frame(self, word: str, channel: str, seq: int, prev_seq: int, replayed: bool, fields: dict[str, Any]) -> bytes:
        if prev_seq < 0:
            head: dict[str, Any] = {"type": "snapshot", "channel": channel, "seq": seq}
        else:
            head = {"type": word, "channel": channel, "seq": seq, "prev_seq": prev_seq}
        if replayed:
            head["replayed"] = True
        return text_frame(_ENCODER.encode(head | fields))

    def _levels(self, market: MarketEntry, levels: Levels) -> list[tuple[str, str]]:
        return [(self._price(market, price), self._size(market, size)) for price, size in levels]

    def _price(self, market: MarketEntry, ticks: int) -> str:
        text = self._prices.get((market.index, ticks))
        if text is None:
            if len(self._prices) >= TEXTS_MAX:
                self._prices.clear()
            text = self._prices[market.index, ticks] = market.price_text(ticks)
        return text

    def _size(self, market: MarketEntry, lots: int) -> str:
        text = self._sizes.get((market.index, lots))
        if text is None:
            if len(self._sizes) >= TEXTS_MAX:
                self._sizes.clear()
            text = self._sizes[market.index, lots] = market.size_text(lots)
        return text

    def _signed(self, market: MarketEntry, lots: int) -> str:
        return self._size(market, lots) if lots >= 0 else "-" + self._size(market, -lots)
