"""Streams and sessions without sockets: snapshot and updates give the core's book at every sequence."""

import msgspec
import pytest

from byline.client.market_data import BookGap, LocalBook
from engine.messages.errors import SettingsInvalid
from engine.reference import ReferenceCore
from marketdata.publisher import DEPTHS, Publisher, text_frame
from marketdata.session import Session, frame_fault
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from tests.support.market_flow import Flow
from tests.support.rule_flow import RuleFlow

BOOK = "orderbook:NOVA-USD"


def split(frames: bytes) -> list[dict]:
    """The messages of whole unmasked text frames."""
    messages, at = [], 0
    while at < len(frames):
        assert frames[at] == 0x81
        size, at = frames[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(frames[at : at + width], "big"), at + width
        messages.append(msgspec.json.decode(frames[at : at + size]))
        at += size
    return messages


class Rig:
    def __init__(self, seed=1, flow=None, **settings):
        self.settings = MarketDataSettings(**({"requests_per_second": 100_000} | settings))
        self.flow = flow or Flow(seed)
        self.state = MarketState(order_limit=10_000, tape_trades=50)
        self.publisher = Publisher(self.state, self.settings)
        self.publisher.apply(self.flow.opening)

    def session(self, *channels, **more):
        session = Session(self.publisher, self.settings)
        for channel in channels:
            reply = self.ask(session, type="subscribe", channel=channel, **more)
            assert reply["type"] == "subscribed", reply
        return session

    def ask(self, session, **request):
        return msgspec.json.decode(session.receive(msgspec.json.encode(request), 0.0)[0])

    def step(self, count=1):
        for _ in range(count):
            self.publisher.apply(self.flow.step())

    def flush(self):
        return {session: split(frames) for session, frames in self.publisher.flush()}


@pytest.mark.parametrize("depth", DEPTHS)
def test_snapshot_and_updates_are_the_cores_book_at_every_flush(depth):
    rig = Rig(seed=depth + 3, checksum_every_updates=3)
    rig.step(50)
    session, book, checked = rig.session(BOOK, depth=depth), LocalBook("NOVA-USD", depth), 0
    late, late_book = None, LocalBook("NOVA-USD", depth)
    for turn in range(500):
        got = rig.flush()
        for message in got.get(session, ()):
            book.apply(message)
            checked += "checksum" in message
        for message in got.get(late, ()):
            late_book.apply(message)
        bids, asks = rig.flow.book_text()
        assert book.bids == bids[: depth or None] and book.asks == asks[: depth or None]
        assert book.seq <= rig.flow.sequence
        if turn == 250:
            late = rig.session(BOOK, depth=depth)
        rig.step(1 + turn % 3)
    assert checked > 20 and late_book.seq == book.seq and late_book.bids == book.bids


def test_stops_slices_auctions_and_pauses_reach_every_subscriber():
    rig = Rig(flow=RuleFlow(ReferenceCore(), 3), checksum_every_updates=1)
    session = rig.session(BOOK, "status", "trades:NOVA-USD", "price:NOVA-USD")
    market, book = rig.flow.directory.markets[0], LocalBook("NOVA-USD", 50)
    ids, aggressors, phases, crossed = [], set(), [], 0
    for _ in range(700):
        for message in rig.flush().get(session, ()):
            kind = message["channel"].split(":")[0]
            if kind == "orderbook":
                book.apply(message)
            elif kind == "status":
                phases.append(message["markets"][0]["phase"])
            elif kind == "price":
                price = message
            else:
                ids += [trade["trade_id"] for trade in message["trades"]]
                aggressors |= {trade["aggressor"] for trade in message["trades"]}
        bids, asks = (
            [(market.price_text(at), market.size_text(size)) for at, size in side] for side in rig.flow.book(0)
        )
        assert (book.bids, book.asks) == (bids, asks)
        assert phases[-1] == price["phase"] == rig.flow.directory.markets[0].phase.word
        assert price["best_bid"] == (list(bids[0]) if bids else None)
        at_best = rig.flow.book(0)
        if at_best[0] and at_best[1] and at_best[0][0][0] >= at_best[1][0][0]:
            crossed += 1
            assert phases[-1] != "continuous"
        rig.step()
    assert ids == list(range(1, len(ids) + 1)) and aggressors == {"buy", "sell", "none"}
    assert {"continuous", "halt", "auction"} <= set(phases) and crossed


def test_lost_update_is_noticed_with_the_next_message():
    rig = Rig()
    session, book = rig.session(BOOK, depth=0), LocalBook("NOVA-USD")
    messages = []
    for _ in range(40):
        messages += rig.flush().get(session, [])
        rig.step(3)
    book.apply(messages[0])
    book.apply(messages[1])
    with pytest.raises(BookGap, match="follows"):
        book.apply(messages[3])
    assert not book.ready


def test_changed_size_is_noticed_by_the_checksum():
    rig = Rig(checksum_every_updates=1)
    session, book = rig.session(BOOK, depth=0), LocalBook("NOVA-USD")
    rig.step(100)
    [snapshot] = rig.flush()[session]
    snapshot["bids"][0][1] = "123.4"
    with pytest.raises(BookGap, match="checksum"):
        book.apply(snapshot)


def test_trade_ids_have_no_hole_and_a_message_is_built_once():
    rig = Rig()
    one, two = rig.session("trades:NOVA-USD"), rig.session("trades:NOVA-USD")
    rig.flush()
    ids, before = [], rig.publisher.message_count
    for _ in range(200):
        rig.step(2)
        plan = dict(rig.publisher.flush())
        if plan:
            assert plan[one] is plan[two]
            ids += [trade["trade_id"] for message in split(plan[one]) for trade in message["trades"]]
    assert ids == list(range(1, len(ids) + 1)) and len(ids) > 50
    assert rig.publisher.message_count - before < len(ids) + 1


def test_slow_reader_keeps_trades_and_comes_back_with_the_latest_book():
    rig = Rig(seed=4)
    session = rig.session(BOOK, "trades:NOVA-USD", "price:NOVA-USD")
    neighbour, book = rig.session(BOOK), LocalBook("NOVA-USD", 50)
    for message in rig.flush()[neighbour]:
        book.apply(message)
    [told] = split(rig.publisher.set_slow(session))
    assert (told["type"], told["conflated"]) == ("slow", True)
    seen = []
    for _ in range(80):
        rig.step(2)
        got = rig.flush()
        seen += got.get(session, [])
        for message in got.get(neighbour, ()):
            book.apply(message)
    assert {message["channel"] for message in seen} == {"trades:NOVA-USD"}
    ids = [trade["trade_id"] for message in seen for trade in message["trades"]]
    assert ids == list(range(1, len(ids) + 1))
    [told] = split(rig.publisher.set_recovered(session))
    assert told["conflated"] is False
    back = {message["channel"]: message for message in rig.flush()[session] if message["type"] == "snapshot"}
    assert set(back) == {BOOK, "price:NOVA-USD"}
    assert [tuple(level) for level in back[BOOK]["bids"]] == book.bids == rig.flow.book_text()[0][:50]
    fresh = LocalBook("NOVA-USD", 50)
    fresh.apply(back[BOOK])
    rig.step(40)
    for message in rig.flush()[session]:
        if message["channel"] == BOOK:
            fresh.apply(message)
    assert fresh.asks == rig.flow.book_text()[1][:50]


def test_price_chain_and_fields():
    rig = Rig(seed=7)
    one = rig.session("ticker:NOVA-USD")
    [snapshot] = rig.flush()[one]
    assert snapshot["channel"] == "price:NOVA-USD" and snapshot["last"] is None and snapshot["phase"] == "continuous"
    previous = snapshot["seq"]
    for turn in range(60):
        rig.step(2)
        if turn == 30:
            rig.session("price:NOVA-USD")
        for message in rig.flush().get(one, ()):
            assert message["prev_seq"] == previous
            previous = message["seq"]
    bids, asks = rig.flow.book_text()
    assert message["best_bid"] == list(bids[0]) and message["best_ask"] == list(asks[0])
    assert message["trades_24h"] == int(rig.state.tape.last(0, 1)[0]["trade_id"])  # a minute of journal time went by
    assert float(message["low_24h"]) <= float(message["last"]) <= float(message["high_24h"])


def test_new_listing_and_phase_reach_status():
    rig = Rig()
    session = rig.session("status")
    [snapshot] = rig.flush()[session]
    assert [market["market"] for market in snapshot["markets"]] == ["NOVA-USD"]
    assert snapshot["markets"][0]["tick"] == "0.05" and snapshot["markets"][0]["lot"] == "0.1"
    rig.publisher.apply(rig.flow.apply({"op": "asset", "asset": "LUX", "scale": 4}))
    rig.publisher.apply(
        rig.flow.apply({"op": "market", "market": "LUX-USD", "base": "LUX", "quote": "USD", "tick": "1", "lot": "1"})
    )
    [update] = rig.flush()[session]
    assert [market["market"] for market in update["markets"]] == ["NOVA-USD", "LUX-USD"]
    assert rig.flush() == {}


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"{", "bad_json", ""),
        (b"\xff\xfe", "bad_json", ""),
        (b"[]", "bad_request", "object"),
        (b"{}", "bad_request", "type"),
        (b'{"type":"order"}', "bad_request", "order"),
        (b'{"type":"ping","x":1}', "bad_request", "x"),
        (b'{"type":"subscribe","channel":5}', "bad_request", "channel"),
        (b'{"type":"subscribe","channel":"candles:NOVA-USD"}', "unknown_channel", "channel:"),
        (b'{"type":"subscribe","channel":"status:NOVA-USD"}', "unknown_channel", "channel:"),
        (b'{"type":"subscribe","channel":"trades:NOPE"}', "unknown_market", "NOPE"),
        (b'{"type":"subscribe","channel":"book:NOVA-USD","depth":7}', "bad_depth", "depth:"),
        (b'{"type":"subscribe","channel":"book:NOVA-USD","depth":-1}', "bad_depth", "depth:"),
        (b'{"type":"subscribe","channel":"trades:NOVA-USD","depth":5}', "bad_depth", "depth:"),
        (b'{"type":"unsubscribe","channel":"trades:NOVA-USD"}', "not_subscribed", "NOVA"),
        (b'{"type":"subscribe","channel":"orderbook:NOVA-USD"}', "already_subscribed", "depth 10"),
        (b'{"type":"ping","rid":"' + b"a" * 5000 + b'"}', "too_large", "4096"),
    ],
)
def test_bad_request_is_named_and_changes_nothing(payload, code, text):
    rig = Rig()
    session = rig.session(BOOK, depth=10)
    [reply] = session.receive(payload, 0.0)
    error = msgspec.json.decode(reply)
    assert (error["type"], error["code"]) == ("error", code) and text in error["message"]
    assert session.subscription_count == 1


def test_subscriptions_and_requests_are_limited():
    rig = Rig(subscription_limit=1)
    session = rig.session(BOOK)
    assert rig.ask(session, type="subscribe", channel="status")["code"] == "too_many_subscriptions"
    assert rig.ask(session, type="unsubscribe", channel="book:NOVA-USD", rid=7) == {
        "type": "unsubscribed", "channel": BOOK, "rid": 7,
    }  # fmt: skip
    slow = Session(rig.publisher, MarketDataSettings(requests_per_second=1))
    replies = [rig.ask(slow, type="ping")["type"] for _ in range(6)]
    assert replies == ["pong"] * 4 + ["error"] * 2


def test_dropped_session_leaves_no_stream_behind():
    rig = Rig()
    session = rig.session(BOOK, "trades:NOVA-USD", depth=None)
    rig.flush()
    rig.publisher.drop(session)
    rig.step(20)
    assert rig.flush() == {} and not rig.publisher.sessions


def test_frames_that_are_no_text_are_named():
    assert frame_fault(1, True, False) is None
    assert frame_fault(2, True, False)[0] == 1003 and frame_fault(1, False, False)[0] == 1003
    assert frame_fault(0, True, False)[0] == 1003 and frame_fault(1, True, True)[0] == 1002


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_header_of_each_length(size):
    frame = text_frame(b"x" * size)
    header = 2 if size < 126 else 4 if size < 65_536 else 10
    assert len(frame) == header + size and frame[1] == (size if size < 126 else 126 if size < 65_536 else 127)


def test_settings_name_the_broken_rule():
    with pytest.raises(SettingsInvalid, match="slow_bytes"):
        MarketDataSettings(slow_bytes=10, cut_bytes=10)
    with pytest.raises(SettingsInvalid, match="flush_interval_ms"):
        MarketDataSettings(flush_interval_ms=0)
