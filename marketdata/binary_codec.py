"""Messages in fixed little-endian layouts, each one binary frame: subprotocol `byline.md.binary.v1`.

    head, 32 bytes      version u8 = 1 · type u8 (1 snapshot, 2 update, 3 event, 4 heads) · channel u8 · flags u8
                        market u32 · seq u64 · prev_seq i64 (-1 in a snapshot) · parameter u16 · a u16 · b u32
    book                a, b count bids and asks; checksum u64, then levels: price i64 · size i64
    orders              b counts; checksum u64, then: number u64 · price i64 · size i64 · side u8 · pad 7
    trades              b counts; trade_id u64 · sequence u64 · ts i64 · price i64 · size i64 · aggressor u8 · pad 7
    ticker              128 bytes: see TICKER
    candles             b counts; begin, end, open, high, low, close i64 · size, notional u128 · trades, first, last u64
    auction             64 bytes: see AUCTION
    heads               market is 0; ts i64, then b of: channel u8 · pad 1 · interval u16 · market u32 · seq u64

`parameter` is the depth of a book or the number of the candle interval; flags 1: replayed. Prices are ticks, sizes
lots, notionals quote units; what is not there is ABSENT (-2^63). Market numbers, ticks and lots stand in `status` and
the answer to `subscribe`. Replies, `status` and `latency` are text frames as in the JSON encoding.
Golden vectors: docs/protocol/vectors/market-data-binary.json.
"""

from __future__ import annotations

import struct

import numpy as np

from engine.messages.codes import ABSENT
from engine.messages.directory import MarketEntry
from marketdata.channels import CHANNEL_NUMBERS
from marketdata.frames import binary_frame
from marketdata.messages import AuctionState, Heads, Levels, TickerState

__all__ = ["SUBPROTOCOL", "VERSION", "BinaryCodec"]

SUBPROTOCOL = "byline.md.binary.v1"
VERSION = 1
SNAPSHOT, UPDATE, EVENT, HEADS = 1, 2, 3, 4
REPLAYED = 1
M64 = 2**64 - 1

HEAD = struct.Struct("<BBBBIQqHHI")
ORDER = struct.Struct("<QqqB7x")
TRADE = struct.Struct("<QQqqqB7x")
TICKER = struct.Struct("<qqqqqqqqqqQQQQQB7x")
"""last price, size, ts; best bid price, size; best ask price, size; of 24 hours open, high, low, size u128,
notional u128, trades; phase. A wide number is two words, the low one first."""
CANDLE = struct.Struct("<qqqqqqQQQQQQQ")
AUCTION = struct.Struct("<qqqQqqqB7x")
"""price, paired, imbalance; result: sequence (0: none), price, size, imbalance; phase."""
HEAD_LINE = struct.Struct("<BxHIQ")
assert HEAD.size == 32 and ORDER.size == 32 and TRADE.size == 48 and TICKER.size == 128 and AUCTION.size == 64


def _or_absent(value: int | None) -> int:
    return ABSENT if value is None else value


class BinaryCodec:
    """Fulfils messages.Codec."""

    name = "binary"

    def book(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, depth: int, bids: Levels, asks: Levels,
        checksum: int, *, replayed: bool = False,
    ) -> bytes:  # fmt: skip
        flat = [value for level in (*bids, *asks) for value in level]
        head = self._head(UPDATE, "book", market.index, seq, prev_seq, depth, len(bids), len(asks), replayed)
        return binary_frame(head + struct.pack(f"<Q{len(flat)}q", checksum, *flat))

    def orders(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: list[tuple[int, int, int, int]],
        checksum: int, *, replayed: bool = False,
    ) -> bytes:  # fmt: skip
        body = b"".join(ORDER.pack(number, price, size, side) for number, side, price, size in rows)
        head = self._head(UPDATE, "orders", market.index, seq, prev_seq, 0, 0, len(rows), replayed)
        return binary_frame(head + checksum.to_bytes(8, "little") + body)

    def trades(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: np.ndarray, *, replayed: bool = False
    ) -> bytes:
        body = b"".join(
            TRADE.pack(
                int(row["trade_id"]), int(row["sequence"]), int(row["ts"]), int(row["price"]), int(row["size"]),
                int(row["aggressor"]),
            )
            for row in rows
        )  # fmt: skip
        return binary_frame(self._head(EVENT, "trades", market.index, seq, prev_seq, 0, 0, len(rows), replayed) + body)

    def ticker(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: TickerState) -> bytes:
        absent = (ABSENT, 0)
        body = TICKER.pack(
            *(state.last or (ABSENT, 0, 0)), *(state.best_bid or absent), *(state.best_ask or absent),
            _or_absent(state.open), _or_absent(state.high), _or_absent(state.low),
            state.size & M64, state.size >> 64, state.notional & M64, state.notional >> 64, state.trades, state.phase,
        )  # fmt: skip
        return binary_frame(self._head(UPDATE, "ticker", market.index, seq, prev_seq, 0, 0, 1, False) + body)

    def candles(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, kind: int, rows: list[tuple[int, ...]]
    ) -> bytes:
        body = b"".join(
            CANDLE.pack(*row[:6], row[6] & M64, row[6] >> 64, row[7] & M64, row[7] >> 64, *row[8:]) for row in rows
        )
        head = self._head(UPDATE, "candles", market.index, seq, prev_seq, kind, 0, len(rows), False)
        return binary_frame(head + body)

    def auction(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: AuctionState) -> bytes:
        at, price, size, imbalance = state.result or (0, None, 0, 0)
        body = AUCTION.pack(
            _or_absent(state.price), state.paired, state.imbalance, at, _or_absent(price), size, imbalance, state.phase
        )
        return binary_frame(self._head(UPDATE, "auction", market.index, seq, prev_seq, 0, 0, 1, False) + body)

    def heads(self, seq: int, ts: int, heads: Heads) -> bytes:
        head = HEAD.pack(VERSION, HEADS, 0, 0, 0, seq, -1, 0, 0, len(heads))
        lines = b"".join(
            HEAD_LINE.pack(number, interval, max(market, 0), last) for _, number, interval, market, last in heads
        )
        return binary_frame(head + struct.pack("<q", ts) + lines)

    @staticmethod
    def _head(
        kind: int, channel: str, market: int, seq: int, prev_seq: int, parameter: int, a: int, b: int, replayed: bool
    ) -> bytes:
        return HEAD.pack(
            VERSION, SNAPSHOT if prev_seq < 0 else kind, CHANNEL_NUMBERS[channel], REPLAYED if replayed else 0,
            market, seq, prev_seq, parameter, a, b,
        )  # fmt: skip
