"""The channels: what a request may name, and the streams that serve it.

    book:MARKET          L2       depth; lossless, every N ms, latest
    orders:MARKET        L3       lossless
    trades:MARKET                 lossless, every N ms, latest
    ticker:MARKET        L1       every N ms, latest
    candles.1m:MARKET             every N ms, latest
    auction:MARKET                every N ms, latest
    status, latency               every N ms, latest

A stream is one key: all readers with the same key share its messages. The aliases of older clients are streams of
their own, which bear the alias in their messages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from marketdata.candles import INTERVALS

__all__ = [
    "ALIASES", "CHANNEL_NUMBERS", "CONFLATED", "DEPTHS", "INTERVALS_MS", "LAG_INTERVAL_MS", "LATEST", "LOSSLESS",
    "ProtocolError", "StreamKey", "parse_channel", "stream_key",
]  # fmt: skip

LOSSLESS, CONFLATED, LATEST = "lossless", "conflated", "latest"
ALIASES = {"orderbook": "book", "price": "ticker"}
VENUE_WIDE = ("status", "latency")
OF_A_MARKET = ("book", "orders", "trades", "ticker", "candles", "auction")
CHANNEL_NUMBERS = {
    "book": 1,
    "orders": 2,
    "trades": 3,
    "ticker": 4,
    "candles": 5,
    "auction": 6,
    "status": 7,
    "latency": 8,
}
MODES = {
    "book": (CONFLATED, LOSSLESS, LATEST), "orders": (LOSSLESS,), "trades": (LOSSLESS, CONFLATED, LATEST),
    "ticker": (CONFLATED, LATEST), "candles": (CONFLATED, LATEST), "auction": (CONFLATED, LATEST),
    "status": (CONFLATED, LATEST), "latency": (CONFLATED, LATEST),
}  # fmt: skip
"""The first is what a request without `mode` gets."""
DEPTHS = (0, 1, 5, 10, 25, 50, 100, 500)
"""Depths a book can be asked for, in levels a side; 0 is the whole book. Few, so that streams are shared."""
INTERVALS_MS = (20, 100, 250, 500, 1000, 5000)
"""The N of every N ms; 20 is every flush."""
DEFAULT_MS = {"latency": 1000}
"""Where a request without `interval_ms` gets another one than the shortest."""
LAG_INTERVAL_MS = 1000
"""At most this often a reader that fell behind is given the latest state."""


class ProtocolError(Exception):
    """A refused request: `code` is a stable word, the text names field and rule."""

    def __init__(self, code: str, text: str, **more: int) -> None:
        super().__init__(text)
        self.code = code
        self.more = more


@dataclass(frozen=True, slots=True)
class StreamKey:
    """What makes two readers share a stream. `channel` as its messages name it; market -1: the whole venue.

    `parameter` is the depth of a book or the number of a candle interval. interval_ms 0 for lossless.
    """

    kind: str
    market: int
    channel: str
    parameter: int
    mode: str
    interval_ms: int
    encoding: str

    def lagging(self) -> StreamKey | None:
        """What a reader that fell behind gets in place of this; None: nothing until it has caught up."""
        if self.kind == "orders":
            return None
        return replace(self, mode=LATEST, interval_ms=max(LAG_INTERVAL_MS, self.interval_ms))


def parse_channel(channel: str) -> tuple[str, int, str]:
    """(kind, number of the candle interval, market name or "") of a channel. Raises ProtocolError."""
    head, colon, market = channel.partition(":")
    word, dot, interval = head.partition(".")
    kind = ALIASES.get(word, word)
    if kind == "user_orders":
        raise ProtocolError("private_channel", "channel: user_orders is private; order entry sends it after sign-in")
    if dot and kind != "candles":
        kind = ""
    if kind in VENUE_WIDE and not colon:
        return kind, 0, ""
    if kind not in OF_A_MARKET or not colon:
        raise ProtocolError(
            "unknown_channel",
            "channel: must be book:MARKET, orders:MARKET, trades:MARKET, ticker:MARKET, candles.INTERVAL:MARKET, "
            "auction:MARKET, status or latency",
        )
    if kind != "candles":
        return kind, 0, market
    if interval not in INTERVALS:
        raise ProtocolError("bad_interval", f"channel: candles.INTERVAL has one of {', '.join(INTERVALS)}")
    return kind, INTERVALS.index(interval), market


def stream_key(
    channel: str, kind: str, market: int, number: int, *,
    depth: int | None, depth_default: int, mode: str | None, interval_ms: int | None, encoding: str,
) -> StreamKey:  # fmt: skip
    """The key of a subscription. Raises ProtocolError."""
    parameter = number
    if kind == "book":
        parameter = depth_default if depth is None else depth
        if parameter not in DEPTHS:
            raise ProtocolError("bad_depth", f"depth: must be one of {', '.join(map(str, DEPTHS))} (0: the whole book)")
    elif depth is not None:
        raise ProtocolError("bad_depth", "depth: only a book has one")
    if mode is None:
        mode = MODES[kind][0] if interval_ms is None or MODES[kind][0] == LATEST else CONFLATED
    if mode not in MODES[kind]:
        raise ProtocolError("bad_mode", f"mode: {kind} can be {', '.join(MODES[kind])}")
    if mode == LOSSLESS:
        if interval_ms is not None:
            raise ProtocolError("bad_interval", "interval_ms: a lossless stream has none")
    elif interval_ms is not None and interval_ms not in INTERVALS_MS:
        raise ProtocolError("bad_interval", f"interval_ms: must be one of {', '.join(map(str, INTERVALS_MS))}")
    every = 0 if mode == LOSSLESS else DEFAULT_MS.get(kind, INTERVALS_MS[0]) if interval_ms is None else interval_ms
    return StreamKey(kind, market, channel, parameter, mode, every, encoding)
