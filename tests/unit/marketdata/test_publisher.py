"""Streams and sessions without sockets: snapshot and updates give the core's book at every sequence."""

import msgspec
import pytest

from byline.client.market_data import BookGap, LocalBook
from engine.messages.errors import SettingsInvalid
from engine.reference import ReferenceCore
from marketdata.channels import DEPTHS
from marketdata.frames import text_frame
from marketdata.publisher import Publisher
from marketdata.session import Fragments, Session, close_echo
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from tests.support.frames import messages_of
from tests.support.market_flow import Flow
from tests.support.rule_flow import RuleFlow

BOOK = "orderbook:NOVA-USD"


class Rig:
    def __init__(self, seed=1, flow=None, **settings):
        own = {"requests_per_second": 100_000, "order_limit": 10_000, "tape_trades": 50}
        self.settings = MarketDataSettings(**(own | settings))
        self.flow = flow or Flow(seed)
        self.state = MarketState(self.settings)
        self.now_ms = 0.0
        self.publisher = Publisher(self.state, self.settings)
        self.publisher.apply(self.flow.opening)

    def session(self, *channels, **more):
        session = Session(self.publisher, self.settings)
        for channel in channels:
            reply = self.ask(session, type="subscribe", channel=channel, **more)
            assert reply["type"] == "subscribed", reply
        return session

    def ask(self, session, **request):
        return messages_of(session.receive(msgspec.json.encode(request), 0.0)[0])[0]

    def step(self, count=1):
        for _ in range(count):
            self.publisher.apply(self.flow.step())

    def flush(self, after_ms=20.0, heads=False):
        """The messages of each session; `heads` only where they are asked for."""
        got = {}
        for session, frames in self.raw(after_ms):
            messages = [message for message in messages_of(frames) if heads or message["type"] != "heads"]
            if messages:
                got[session] = messages
        return got

    def raw(self, after_ms=20.0):
        self.now_ms += after_ms
        return [(sink, plan.data) for plan in self.publisher.flush(self.now_ms) for sink in plan.sinks]


@pytest.mark.parametrize("depth", DEPTHS)
def test_f42_snapshot_and_updates_are_the_cores_book_at_every_flush(depth):
    rig = Rig(seed=depth + 3)
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
    rig = Rig(flow=RuleFlow(ReferenceCore(), 3))
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


def test_f43_changed_size_is_noticed_by_the_checksum():
    rig = Rig()
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
        plan = dict(rig.raw())
        if plan:
            assert plan[one] is plan[two]
            ids += [trade["trade_id"] for message in messages_of(plan[one]) for trade in message.get("trades", ())]
    assert ids == list(range(1, len(ids) + 1)) and len(ids) > 50
    assert rig.publisher.message_count - before < 2 * (len(ids) + 2) + 5  # each with its heads, and heartbeats


def test_slow_reader_is_told_moved_to_the_latest_state_and_comes_back_with_snapshots():
    rig = Rig(seed=4)
    session = rig.session("trades:NOVA-USD", "price:NOVA-USD", "orders:NOVA-USD")
    assert rig.ask(session, type="subscribe", channel=BOOK, mode="lossless")["type"] == "subscribed"
    neighbour, book = rig.session(BOOK), LocalBook("NOVA-USD", 50)
    for message in rig.flush()[neighbour]:
        book.apply(message)
    [told] = messages_of(rig.publisher.set_slow(session, 300_000))
    latest = {"mode": "latest", "interval_ms": 1000}
    assert (told["type"], told["conflated"], told["waiting_bytes"]) == ("slow", True, 300_000)
    assert told["moved"] == {
        BOOK: latest, "trades:NOVA-USD": latest, "price:NOVA-USD": latest, "orders:NOVA-USD": {"mode": "paused"},
    }  # fmt: skip
    session.held = True
    rig.step(2)
    got = rig.flush()
    assert session not in got  # nothing at all while what waits for it has not drained
    for message in got.get(neighbour, ()):
        book.apply(message)
    session.held = False
    seen, sent = [], 0
    for _ in range(200):
        rig.step(2)
        got = rig.flush()
        seen += got.get(session, [])
        sent += session in got
        for message in got.get(neighbour, ()):
            book.apply(message)
    assert {message["type"] for message in seen} == {"snapshot"} and sent == 4  # 4 s: once a second
    assert {message["channel"] for message in seen} == {BOOK, "trades:NOVA-USD", "price:NOVA-USD"}
    assert rig.ask(session, type="subscribe", channel="status")["type"] == "subscribed"
    assert rig.ask(session, type="unsubscribe", channel="trades:NOVA-USD")["type"] == "unsubscribed"
    assert rig.publisher.may_recover(session)
    [told] = messages_of(rig.publisher.set_recovered(session))
    assert told["conflated"] is False
    back = {message["channel"]: message for message in rig.flush()[session] if message["type"] == "snapshot"}
    assert set(back) == {BOOK, "price:NOVA-USD", "orders:NOVA-USD", "status"}
    assert [tuple(level) for level in back[BOOK]["bids"]] == book.bids == rig.flow.book_text()[0][:50]
    fresh = LocalBook("NOVA-USD", 50)
    fresh.apply(back[BOOK])
    rig.step(40)
    updates = [message for message in rig.flush()[session] if message["channel"] == BOOK]
    for message in updates:
        fresh.apply(message)
    assert fresh.asks == rig.flow.book_text()[1][:50] and len(updates) > 20  # lossless again: one a command


def test_price_chain_and_fields():
    rig = Rig(seed=7)
    one = rig.session("ticker:NOVA-USD")
    [snapshot] = rig.flush()[one]
    assert snapshot["channel"] == "ticker:NOVA-USD" and snapshot["last"] is None and snapshot["phase"] == "continuous"
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
    assert message["trades_24h"] == int(rig.state.tape.last(0, 1)["trade_id"][0])  # a minute of journal time went by
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
        (b'{"type":"subscribe","channel":"candles:NOVA-USD"}', "bad_interval", "1m"),
        (b'{"type":"subscribe","channel":"candles.2m:NOVA-USD"}', "bad_interval", "1m"),
        (b'{"type":"subscribe","channel":"book.5:NOVA-USD"}', "unknown_channel", "channel:"),
        (b'{"type":"subscribe","channel":"user_orders"}', "private_channel", "order entry"),
        (b'{"type":"subscribe","channel":"trades:NOVA-USD","mode":"all"}', "bad_mode", "lossless"),
        (b'{"type":"subscribe","channel":"orders:NOVA-USD","mode":"latest"}', "bad_mode", "orders"),
        (b'{"type":"subscribe","channel":"ticker:NOVA-USD","mode":"lossless"}', "bad_mode", "ticker"),
        (b'{"type":"subscribe","channel":"book:NOVA-USD","interval_ms":30}', "bad_interval", "100"),
        (
            b'{"type":"subscribe","channel":"book:NOVA-USD","mode":"lossless","interval_ms":100}',
            "bad_interval",
            "lossless",
        ),
        (b'{"type":"replay","channel":"ticker:NOVA-USD","from":1}', "bad_request", "replayed"),
        (b'{"type":"replay","channel":"book:NOVA-USD"}', "bad_request", "from"),
        (b'{"type":"replay","channel":"book:NOVA-USD","from":-1}', "bad_request", "from"),
        (b'{"type":"replay","channel":"book:NOVA-USD","from":99999999}', "bad_range", "from"),
        (b'{"type":"replay","channel":"book:NOVA-USD","from":5,"to":4}', "bad_range", "from"),
        (b'{"type":"history","channel":"trades:NOVA-USD"}', "bad_request", "candles"),
        (b'{"type":"history","channel":"candles.1m:NOVA-USD","limit":100000}', "bad_request", "limit"),
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
    [error] = messages_of(b"".join(session.receive(payload, 0.0)))
    assert (error["type"], error["code"]) == ("error", code) and text in error["message"]
    assert len(session.subscriptions) == 1


@pytest.mark.parametrize(
    ("payload", "rid"),
    [
        (b'{"type":"subscribe","channel":"status","color":1,"rid":7}', 7),
        (b'{"type":"subscribe","channel":5,"rid":"a"}', "a"),
        (b'{"rid":8,"type":"replay","channel":"book:NOVA-USD"}', 8),
        (b'{"type":"order","rid":9}', 9),
        (b'{"type":"order","rid":{}}', None),
        (b'{"type":"order","rid":9', None),
    ],
)
def test_what_is_refused_before_it_is_understood_keeps_its_rid(payload, rid):
    [error] = messages_of(b"".join(Rig().session().receive(payload, 0.0)))
    assert error["type"] == "error" and error.get("rid") == rid


def test_a_request_beyond_the_rate_keeps_its_rid():
    rig = Rig(requests_per_second=1)
    session = rig.session()
    told = [messages_of(b"".join(session.receive(b'{"type":"ping","rid":%d}' % rid, 0.0)))[0] for rid in range(1, 9)]
    assert [each["rid"] for each in told] == list(range(1, 9)) and told[-1]["code"] == "rate_limited"


def test_subscriptions_and_requests_are_limited():
    rig = Rig(subscription_limit=1)
    session = rig.session("book:NOVA-USD")
    assert rig.ask(session, type="subscribe", channel="status")["code"] == "too_many_subscriptions"
    assert rig.ask(session, type="unsubscribe", channel="book:NOVA-USD", rid=7) == {
        "type": "unsubscribed", "channel": "book:NOVA-USD", "rid": 7,
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
    assert rig.flush() == {} and rig.publisher.session_count == 0


def test_frames_that_are_no_text_are_named():
    def code(*frames: tuple[int, bool, bool, bytes], most: int = 100) -> int:
        fragments = Fragments(most)
        told = [fragments.take(*frame) for frame in frames]
        assert all(one is None for one in told[:-1]) and isinstance(told[-1], tuple)
        return told[-1][0]

    assert code((1, True, False, b"\xff")) == 1007 and code((2, True, False, b"")) == 1003
    assert code((0, True, False, b"")) == code((1, True, True, b"")) == code((3, True, False, b"")) == 1002
    assert code((1, False, False, b""), (1, True, False, b"")) == 1002  # a new one inside
    assert code((1, False, False, b"\xe2"), (0, True, False, b"x")) == 1007
    assert code((1, False, False, b"a" * 60), (0, True, False, b"a" * 60)) == 1009
    assert code(*([(1, False, False, b"")] + [(0, False, False, b"")] * 256)) == 1009


def test_a_message_in_fragments_is_one_message():
    fragments = Fragments(100)
    assert fragments.take(1, True, False, b"whole") == b"whole"
    assert fragments.take(1, False, False, b"\xe2") is None and fragments.take(0, False, False, b"\x82") is None
    assert fragments.take(0, True, False, b"\xac") == "€".encode() and fragments.take(1, True, False, b"x") == b"x"


def test_a_close_is_answered_with_a_code_that_may_be_sent():
    for code, answer in ((1000, 1000), (1001, 1001), (4008, 4008), (0, 1002), (1005, 1002), (1006, 1002), (5000, 1002)):
        assert close_echo(code.to_bytes(2, "big") + b"why") == answer
    assert close_echo(b"") == 1000 and close_echo(b"\x03") == 1002


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
