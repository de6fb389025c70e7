"""The binary layouts, byte for byte: docs/protocol/vectors/market-data-binary.json.

`BYLINE_WRITE_VECTORS=1` writes the file anew; that is a new version of the protocol unless nothing but cases was added.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from byline.client.binary_feed import BinaryDecoder
from engine.messages.directory import AssetEntry, MarketEntry
from marketdata.binary_codec import BinaryCodec
from marketdata.feed import TRADE_ROW
from marketdata.json_codec import JsonCodec
from marketdata.messages import AuctionState, TickerState

VECTORS = Path(__file__).parents[3] / "docs/protocol/vectors/market-data-binary.json"
MARKET = MarketEntry(
    3, "NOVA-USD", AssetEntry(1, "NOVA", 4, False), AssetEntry(0, "USD", 6, False), tick=5, tick_decimals=2, lot=1,
    lot_decimals=1, k=5000, u=1000, min_size=1, max_size=10**9, max_price=10**6, taker_ppm=0, maker_ppm=0,
    entry_band_ppm=0, exec_band_ppm=0, pause_ns=0, phase=0, reference_price=0,
)  # fmt: skip
SUBSCRIBED = {"type": "subscribed", "index": 3, "tick": "0.05", "lot": "0.1", "quote_scale": 6}
CHANNELS = [f"{kind}:NOVA-USD" for kind in ("book", "orders", "trades", "ticker", "candles.5m", "auction")]
DAY = TickerState((101, 7, 10**18), (99, 40), None, 90, 120, 80, 2**65 + 3, 2**70 + 1, 391, 1)


def trades():
    rows = np.zeros(2, TRADE_ROW)
    for name, values in {
        "sequence": (815, 816), "ts": (10**18, 10**18 + 5), "trade_id": (57, 58), "price": (100, 101), "size": (30, 1),
        "market": (3, 3), "aggressor": (0, 2),
    }.items():  # fmt: skip
        rows[name] = values
    return rows


def cases(codec):
    """(name, frame) of every message kind; the same calls for every codec."""
    book, orders, tape, ticker, candles, auction = CHANNELS
    yield "book snapshot", codec.book(book, MARKET, 812, -1, 50, [(99, 121), (98, 2**40)], [(101, 7)], 2**64 - 2)
    yield "book update", codec.book(book, MARKET, 815, 812, 50, [(99, 0)], [(101, 30), (102, 1)], 12345)
    yield "book replayed", codec.book(book, MARKET, 815, 812, 0, [], [(10**6, 1)], 1, replayed=True)
    yield "orders snapshot", codec.orders(orders, MARKET, 812, -1, [(8812, 0, 99, 121), (8813, 1, 101, 7)], 77)
    yield "orders update", codec.orders(orders, MARKET, 815, 814, [(8812, 0, 99, 0)], 0)
    yield "trades event", codec.trades(tape, MARKET, 816, 812, trades())
    yield "ticker", codec.ticker(ticker, MARKET, 816, 815, DAY)
    yield "ticker without a trade", codec.ticker(ticker, MARKET, 5, -1, TickerState(*[None] * 6, 0, 0, 0, 0))
    candle = (10**18, 10**18 + 300 * 10**9, 100, 110, 90, 101, 2**66, 2**71, 12, 788, 815)
    yield "candles", codec.candles(candles, MARKET, 815, 812, 2, [candle])
    yield "auction", codec.auction(auction, MARKET, 815, 812, AuctionState(2, 101, 1200, -35, (700, 99, 5, 0)))
    yield "auction not crossed", codec.auction(auction, MARKET, 815, -1, AuctionState(0, None, 0, 0, None))
    yield "heads", codec.heads(816, 10**18, [(book, 1, 0, 3, 815), (candles, 5, 2, 3, 815), ("status", 7, 0, -1, 40)])


def payload(frame):
    return frame[2 if frame[1] < 126 else 4 :]


def decoder():
    found = BinaryDecoder()
    for channel in CHANNELS:
        found.learn(SUBSCRIBED | {"channel": channel})
    return found


def test_vectors_are_what_is_sent_and_what_the_client_reads():
    if os.environ.get("BYLINE_WRITE_VECTORS"):
        told = [
            {"name": name, "frame": payload(frame).hex(), "message": decoder().decode(payload(frame))}
            for name, frame in cases(BinaryCodec())
        ]
        VECTORS.parent.mkdir(exist_ok=True)
        text = json.dumps({"subscribed": SUBSCRIBED, "channels": CHANNELS, "vectors": told}, indent=1)
        VECTORS.write_text(text + "\n")
    vectors = json.loads(VECTORS.read_text())["vectors"]
    assert [(vector["name"], vector["frame"]) for vector in vectors] == [
        (name, payload(frame).hex()) for name, frame in cases(BinaryCodec())
    ]
    for vector in vectors:
        assert decoder().decode(bytes.fromhex(vector["frame"])) == vector["message"]


def test_json_of_the_same_calls_is_what_the_binary_is_read_as():
    plain = {name: json.loads(payload(frame)) for name, frame in cases(JsonCodec())}
    assert plain == {vector["name"]: vector["message"] for vector in json.loads(VECTORS.read_text())["vectors"]}


@pytest.mark.parametrize("change", [lambda f: b"\x02" + f[1:], lambda f: f[:1] + b"\x09" + f[2:]])
def test_other_version_or_kind_is_refused_by_the_client(change):
    from byline.client.binary_feed import UnknownFrame

    _, frame = next(iter(cases(BinaryCodec())))
    with pytest.raises(UnknownFrame):
        decoder().decode(change(payload(frame)))
