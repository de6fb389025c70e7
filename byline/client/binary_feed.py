"""The binary encoding of market data, read into the very messages of the JSON encoding.

Layouts: docs/protocol/market-data.md, golden vectors beside it. A decoder learns names, ticks and lots from the text
messages (`subscribed`, `status`) that come before the frames which need them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from engine.messages.codes import ABSENT, Aggressor, Phase
from engine.messages.decimals import decimal_text, steps_text

__all__ = ["SUBPROTOCOL", "BinaryDecoder", "UnknownFrame"]

SUBPROTOCOL = "byline.md.binary.v1"
VERSION = 1
KINDS = {1: "snapshot", 2: "update", 3: "event", 4: "heads"}
CHANNELS = {1: "book", 2: "orders", 3: "trades", 4: "ticker", 5: "candles", 6: "auction", 7: "status", 8: "latency"}
INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M")
HEAD = struct.Struct("<BBBBIQqHHI")
ORDER = struct.Struct("<QqqB7x")
TRADE = struct.Struct("<QQqqqB7x")
TICKER = struct.Struct("<qqqqqqqqqqQQQQQB7x")
CANDLE = struct.Struct("<qqqqqqQQQQQQQ")
AUCTION = struct.Struct("<qqqQqqqB7x")
HEAD_LINE = struct.Struct("<BxHIQ")
SIDES = ("buy", "sell")


class UnknownFrame(Exception):
    """A frame of another version or kind, or of a market that was not named before."""


@dataclass(frozen=True, slots=True)
class _Listing:
    name: str
    tick: tuple[int, int]
    lot: tuple[int, int]
    quote_scale: int


def _step(text: str) -> tuple[int, int]:
    """Mantissa and decimals."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction), len(fraction)


class BinaryDecoder:
    """One connection's. `decode` raises UnknownFrame."""

    def __init__(self) -> None:
        self._listings: dict[int, _Listing] = {}
        self._channels: dict[tuple[str, int, int], str] = {}

    def learn(self, message: dict[str, Any]) -> None:
        """Takes in a text message that names a market."""
        if message["type"] != "subscribed" or "index" not in message:
            return
        channel = message["channel"]
        head, _, name = channel.partition(":")
        word, _, interval = head.partition(".")
        kind = {"orderbook": "book", "price": "ticker"}.get(word, word)
        parameter = INTERVALS.index(interval) if kind == "candles" else 0
        self._channels[kind, message["index"], parameter] = channel
        self._listings[message["index"]] = _Listing(
            name, _step(message["tick"]), _step(message["lot"]), message["quote_scale"]
        )

    def decode(self, frame: bytes) -> dict[str, Any]:
        """The message of one binary frame."""
        version, kind, number, flags, index, seq, prev_seq, parameter, a, b = HEAD.unpack_from(frame)
        if version != VERSION or kind not in KINDS:
            raise UnknownFrame(f"version {version}, kind {kind}")
        if KINDS[kind] == "heads":
            return self._heads(frame, seq, b)
        channel, listing = CHANNELS[number], self._listings.get(index)
        if listing is None:
            raise UnknownFrame(f"market {index} was not named")
        candle_kind = parameter if channel == "candles" else 0
        name = self._channels.get((channel, index, candle_kind), f"{channel}:{listing.name}")
        message: dict[str, Any] = {"type": KINDS[kind], "channel": name, "seq": seq}
        if prev_seq >= 0:
            message["prev_seq"] = prev_seq
        if flags & 1:
            message["replayed"] = True
        body: dict[str, Any] = getattr(self, f"_{channel}")(frame, listing, parameter, a, b)
        if prev_seq < 0 and channel in ("book", "orders"):
            message |= {"depth": parameter} if channel == "book" else {}
            message |= {"tick": _price(listing, 1), "lot": _size(listing, 1)}
        return message | body

    def _heads(self, frame: bytes, seq: int, count: int) -> dict[str, Any]:
        heads = {}
        for at in range(count):
            number, parameter, index, last = HEAD_LINE.unpack_from(frame, 40 + at * HEAD_LINE.size)
            channel = CHANNELS[number]
            name = channel if channel in ("status", "latency") else self._channels.get((channel, index, parameter))
            if name is not None:
                heads[name] = last
        return {"type": "heads", "seq": seq, "ts": struct.unpack_from("<q", frame, 32)[0], "heads": heads}

    @staticmethod
    def _book(frame: bytes, listing: _Listing, _: int, bids: int, asks: int) -> dict[str, Any]:
        checksum, *flat = struct.unpack_from(f"<Q{2 * (bids + asks)}q", frame, 32)
        levels = [
            [_price(listing, price), _size(listing, size)] for price, size in zip(flat[::2], flat[1::2], strict=True)
        ]
        return {"bids": levels[:bids], "asks": levels[bids:], "checksum": f"{checksum:016x}"}

    @staticmethod
    def _orders(frame: bytes, listing: _Listing, _: int, _a: int, count: int) -> dict[str, Any]:
        rows = (ORDER.unpack_from(frame, 40 + at * ORDER.size) for at in range(count))
        orders = [
            [number, SIDES[side], _price(listing, price), _size(listing, size)] for number, price, size, side in rows
        ]
        return {"orders": orders, "checksum": f"{struct.unpack_from('<Q', frame, 32)[0]:016x}"}

    @staticmethod
    def _trades(frame: bytes, listing: _Listing, _: int, _a: int, count: int) -> dict[str, Any]:
        rows = (TRADE.unpack_from(frame, 32 + at * TRADE.size) for at in range(count))
        return {
            "trades": [
                {
                    "trade_id": number, "seq": seq, "ts": ts, "price": _price(listing, price),
                    "size": _size(listing, size), "aggressor": Aggressor(aggressor).word,
                }
                for number, seq, ts, price, size, aggressor in rows
            ]
        }  # fmt: skip

    @staticmethod
    def _ticker(frame: bytes, listing: _Listing, *_: int) -> dict[str, Any]:
        values = TICKER.unpack_from(frame, 32)
        last, size, ts, bid, bid_size, ask, ask_size, first, high, low, low_size, high_size, low_sum, high_sum = values[
            :14
        ]
        return {
            "last": _price(listing, last), "last_size": None if last == ABSENT else _size(listing, size),
            "last_ts": None if last == ABSENT else ts,
            "best_bid": None if bid == ABSENT else [_price(listing, bid), _size(listing, bid_size)],
            "best_ask": None if ask == ABSENT else [_price(listing, ask), _size(listing, ask_size)],
            "open_24h": _price(listing, first), "high_24h": _price(listing, high), "low_24h": _price(listing, low),
            "volume_24h": _size(listing, low_size | high_size << 64),
            "quote_volume_24h": decimal_text(low_sum | high_sum << 64, listing.quote_scale),
            "trades_24h": values[14], "phase": Phase(values[15]).word,
        }  # fmt: skip

    @staticmethod
    def _candles(frame: bytes, listing: _Listing, parameter: int, _a: int, count: int) -> dict[str, Any]:
        candles = []
        for at in range(count):
            row = CANDLE.unpack_from(frame, 32 + at * CANDLE.size)
            words = zip(("open", "high", "low", "close"), row[2:6], strict=True)
            candles.append(
                {
                    "begin": row[0], "end": row[1], **{word: _price(listing, price) for word, price in words},
                    "volume": _size(listing, row[6] | row[7] << 64),
                    "quote_volume": decimal_text(row[8] | row[9] << 64, listing.quote_scale),
                    "trades": row[10], "first_seq": row[11], "last_seq": row[12],
                }
            )  # fmt: skip
        return {"interval": INTERVALS[parameter], "candles": candles}

    @staticmethod
    def _auction(frame: bytes, listing: _Listing, *_: int) -> dict[str, Any]:
        price, paired, imbalance, at, uncross, size, surplus, phase = AUCTION.unpack_from(frame, 32)
        result = None
        if at:
            result = {
                "seq": at, "price": _price(listing, uncross), "size": _size(listing, size),
                "imbalance": _signed(listing, surplus),
            }  # fmt: skip
        return {
            "phase": Phase(phase).word, "price": _price(listing, price), "paired": _size(listing, paired),
            "imbalance": _signed(listing, imbalance), "result": result,
        }  # fmt: skip


def _price(listing: _Listing, ticks: int) -> str | None:
    return None if ticks == ABSENT else steps_text(ticks, *listing.tick)


def _size(listing: _Listing, lots: int) -> str:
    return steps_text(lots, *listing.lot)


def _signed(listing: _Listing, lots: int) -> str:
    return _size(listing, lots) if lots >= 0 else "-" + _size(listing, -lots)
