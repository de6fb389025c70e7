"""What was, on the same socket: `replay` of a lossless channel from the ring of changes, and pages of candles.

A replay answers with the very messages that a lossless reader had, of all commands later than `from` and up to `to`,
marked `replayed`; a book is replayed whole (depth 0). What the ring no longer has is refused with the sequence from
which on it has everything. One answer looks at a bounded number of rows and has a bounded number of bytes, but for a
single command that has more: then `complete` is false and `to` is how far it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from marketdata.candles import INTERVALS
from marketdata.changes import LEVEL_ROW, ORDER_ROW
from marketdata.channels import ProtocolError
from marketdata.json_codec import candle_fields
from marketdata.messages import Codec, Levels
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from marketdata.streams import TRADES_PER_MESSAGE, order_lines, split_by_sequence
from marketdata.trades import trade_rows

__all__ = ["candle_page", "replay"]


def replay(
    state: MarketState, codec: Codec, settings: MarketDataSettings, channel: str, kind: str, index: int,
    after: int, to: int | None,
) -> tuple[dict[str, Any], list[bytes]]:  # fmt: skip
    """The reply and the frames behind it. Raises ProtocolError."""
    if kind not in ("book", "orders", "trades"):
        raise ProtocolError(
            "bad_request", "channel: book, orders and trades can be replayed; others are whole in each message"
        )
    changes = state.feed.changes
    last = state.sequence if to is None else to
    if not 0 <= after <= last <= state.sequence:
        raise ProtocolError("bad_range", f"from, to: 0 ≤ from ≤ to ≤ {state.sequence}", seq=state.sequence)
    if after < changes.horizon:
        raise ProtocolError(
            "beyond_horizon", f"from: everything later than {changes.horizon} is kept", horizon=changes.horizon
        )
    start, stop = changes.after(after), changes.after(last)
    is_complete = stop - start <= settings.replay_rows
    if not is_complete:
        cut = int(changes.take(start + settings.replay_rows, start + settings.replay_rows + 1)["sequence"][0]) - 1
        if cut <= after:  # a single command fills the answer
            cut = after + 1
        last, stop = cut, changes.after(cut)
    rows = changes.take(start, stop)
    frames, cut = _frames(
        state, codec, channel, kind, index, after, rows[rows["market"] == index], settings.replay_bytes
    )  # fmt: skip
    if cut:
        last, is_complete = cut, False
    reply = {
        "type": "replay", "channel": channel, "from": after, "to": last, "complete": is_complete, "count": len(frames),
    }  # fmt: skip
    return reply, frames


def _frames(
    state: MarketState, codec: Codec, channel: str, kind: str, index: int, after: int, rows: Any, bytes_max: int
) -> tuple[list[bytes], int]:
    """The frames, and the sequence with which they end if more would be too many bytes; else 0."""
    market, frames, previous, size = state.directory.markets[index], list[bytes](), after, 0
    for part in _parts(kind, rows):
        seq = int(part["sequence"][-1])
        if size >= bytes_max and int(part["sequence"][0]) > previous:  # a command is never told by half
            return frames, previous
        if kind == "trades":
            frames.append(codec.trades(channel, market, seq, previous, part, replayed=True))
        elif kind == "orders":
            checksum = int(part["checksum"][-1])
            frames.append(codec.orders(channel, market, seq, previous, order_lines(part), checksum, replayed=True))
        else:
            sides: tuple[Levels, Levels] = ([], [])
            for side, price, lots in zip(
                part["side"].tolist(), part["price"].tolist(), part["size"].tolist(), strict=True
            ):
                sides[side].append((price, lots))
            checksum = int(part["checksum"][-1])
            frames.append(codec.book(channel, market, seq, previous, 0, *sides, checksum, replayed=True))
        previous = seq
        size += len(frames[-1])
    return frames, 0


def _parts(kind: str, rows: Any) -> Iterator[Any]:
    """The rows of each message: of one command, of trades of several."""
    if kind != "trades":
        yield from split_by_sequence(rows[rows["kind"] == (LEVEL_ROW if kind == "book" else ORDER_ROW)])
        return
    trades = trade_rows(rows)
    for first in range(0, len(trades), TRADES_PER_MESSAGE):
        yield trades[first : first + TRADES_PER_MESSAGE]


def candle_page(
    state: MarketState, settings: MarketDataSettings, channel: str, index: int, number: int,
    before: int | None, limit: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Candles that open before a time (ns), the newest of them, oldest first. Raises ProtocolError."""
    wanted = settings.candles_sent if limit is None else limit
    if not 1 <= wanted <= settings.candles_sent:
        raise ProtocolError("bad_request", f"limit: must be 1 to {settings.candles_sent}")
    candles, market = state.candles.get(index), state.directory.markets[index]
    rows = [] if candles is None else candles.last(number, wanted, *(() if before is None else (before,)))
    return {
        "type": "history", "channel": channel, "seq": state.sequence, "interval": INTERVALS[number],
        "kept": settings.candles_kept, "candles": [candle_fields(market, row) for row in rows],
    }  # fmt: skip
