"""What the market data feed says, as types. `decode` makes one of them of a message of the wire.

`seq` is the exchange's sequence; `prev_seq` the `seq` of the message before in the same stream, absent in a snapshot.
Meaning and checksums: docs/protocol/market-data.md. docs/protocol/asyncapi.json is generated from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from byline.client.messages import Nanoseconds, PhaseWord, SideWord, Text
from engine.messages.codes import Aggressor

__all__ = ["CHANNELS", "REPLIES", "FeedMessage", "decode"]

Level: TypeAlias = tuple[Text, Text]
Checksum: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
PublicOrder: TypeAlias = tuple[int, SideWord, Text, Text]


class _Stream(Struct, kw_only=True, frozen=True, omit_defaults=True):
    channel: str
    seq: int
    prev_seq: int | None = None
    replayed: bool | None = None


class Book(_Stream, frozen=True):
    """Levels as (price, size), best first in a snapshot; size 0 removes a level. A snapshot has depth, tick, lot."""

    type: Literal["snapshot", "update"]
    bids: list[Level]
    asks: list[Level]
    checksum: Checksum
    depth: int | None = None
    tick: Text | None = None
    lot: Text | None = None


class Orders(_Stream, frozen=True):
    """Orders as (public number, side, price, size); size 0 removes one."""

    type: Literal["snapshot", "update"]
    orders: list[PublicOrder]
    checksum: Checksum
    tick: Text | None = None
    lot: Text | None = None


class PublicTrade(Struct, kw_only=True, frozen=True):
    trade_id: int
    seq: int
    ts: Nanoseconds
    price: Text
    size: Text
    aggressor: Annotated[str, Meta(extra_json_schema={"enum": [member.word for member in Aggressor]})]


class Trades(_Stream, frozen=True):
    type: Literal["snapshot", "event"]
    trades: list[PublicTrade]


class Ticker(_Stream, frozen=True):
    """The best prices and the last 24 hours; null where there is none."""

    type: Literal["snapshot", "update"]
    last: Text | None
    last_size: Text | None
    last_ts: Nanoseconds | None
    best_bid: Level | None
    best_ask: Level | None
    open_24h: Text | None
    high_24h: Text | None
    low_24h: Text | None
    volume_24h: Text
    quote_volume_24h: Text
    trades_24h: int
    phase: PhaseWord


class Candle(Struct, kw_only=True, frozen=True):
    begin: Nanoseconds
    end: Nanoseconds
    open: Text
    high: Text
    low: Text
    close: Text
    volume: Text
    quote_volume: Text
    trades: int
    first_seq: int
    last_seq: int


class Candles(_Stream, frozen=True):
    type: Literal["snapshot", "update"]
    interval: str
    candles: list[Candle]


class UncrossResult(Struct, kw_only=True, frozen=True):
    seq: int
    price: Text | None
    size: Text
    imbalance: Text


class Auction(_Stream, frozen=True):
    """Where an uncross would trade now, and what the last one found."""

    type: Literal["snapshot", "update"]
    phase: PhaseWord
    price: Text | None
    paired: Text
    imbalance: Text
    result: UncrossResult | None


class MarketStatus(Struct, kw_only=True, frozen=True):
    market: str
    index: int
    base: str
    quote: str
    tick: Text
    lot: Text
    phase: PhaseWord


class Status(_Stream, frozen=True):
    type: Literal["snapshot", "update"]
    ts: Nanoseconds
    markets: list[MarketStatus]


class Latency(_Stream, frozen=True):
    """Histograms of the feed's stages."""

    type: Literal["snapshot", "update"]
    stages: dict[str, Any]


class _Reply(Struct, kw_only=True, frozen=True, tag_field="type", omit_defaults=True):
    rid: int | str | None = None


class Subscribed(_Reply, tag="subscribed", frozen=True):
    """With the next flush the snapshot comes."""

    channel: str
    mode: str
    depth: int | None = None
    interval_ms: int | None = None
    index: int | None = None
    tick: Text | None = None
    lot: Text | None = None
    quote_scale: int | None = None


class Unsubscribed(_Reply, tag="unsubscribed", frozen=True):
    channel: str


class ReplayReply(_Reply, tag="replay", frozen=True, rename={"after": "from"}):
    """`count` messages follow, up to `to`; if not complete, ask again from there."""

    channel: str
    after: int
    to: int
    complete: bool
    count: int


class History(_Reply, tag="history", frozen=True):
    """Older candles; `kept` is how many of an interval there can be at most."""

    channel: str
    seq: int
    interval: str
    candles: list[Candle]
    kept: int


class Pong(_Reply, tag="pong", frozen=True):
    seq: int


class Heads(_Reply, tag="heads", frozen=True):
    """The last `seq` of each stream of the connection: shows that nothing is missing at the end."""

    seq: int
    ts: Nanoseconds
    heads: dict[str, int]


class Slow(_Reply, tag="slow", frozen=True):
    """The reader lags and was moved (`moved`), or has caught up and is moved back."""

    conflated: bool
    seq: int
    waiting_bytes: int | None = None
    moved: dict[str, Any] | None = None


class FeedError(_Reply, tag="error", frozen=True):
    """Nothing has changed by the request."""

    code: str
    message: str
    field: str | None = None
    channel: str | None = None
    horizon: int | None = None


Stream: TypeAlias = Book | Orders | Trades | Ticker | Candles | Auction | Status | Latency
Reply: TypeAlias = Subscribed | Unsubscribed | ReplayReply | History | Pong | Heads | Slow | FeedError
FeedMessage: TypeAlias = Stream | Reply

CHANNELS: dict[str, type[Struct]] = {
    "book": Book, "orderbook": Book, "orders": Orders, "trades": Trades, "ticker": Ticker, "price": Ticker,
    "candles": Candles, "auction": Auction, "status": Status, "latency": Latency,
}  # fmt: skip
"""By the word before `:` or `.` in a channel's name."""
REPLIES: dict[str, type[Struct]] = {str(kind.__struct_config__.tag): kind for kind in Reply.__args__}
"""By the word in `type`."""


def decode(message: dict[str, Any]) -> FeedMessage:
    """The typed form of a message of the wire.

    Raises:
        msgspec.ValidationError: a field is missing or of another type, or the kind is not known.
    """
    kind: Any = Reply
    if message.get("type") in ("snapshot", "update", "event"):
        word = str(message.get("channel", "")).partition(":")[0].partition(".")[0]
        if word not in CHANNELS:
            raise msgspec.ValidationError(f"the channel {word!r} is not known")
        kind = CHANNELS[word]
    typed: FeedMessage = msgspec.convert(message, kind)
    return typed
