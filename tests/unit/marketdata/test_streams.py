"""Lossless streams, replays, heads and the two encodings: what every reader of whichever process must see alike."""

import msgspec
import numpy as np
import pytest

from byline.client.binary_feed import BinaryDecoder
from byline.client.market_data import BookGap, LocalBook, LocalOrders
from engine.core import Core
from marketdata.channels import DEPTHS, INTERVALS_MS
from marketdata.publisher import Publisher
from marketdata.session import Session
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from tests.support.market_flow import Flow
from tests.support.rule_flow import RuleFlow, book_of

MARKET = "NOVA-USD"
EVERY_CHANNEL = [
    {"channel": f"book:{MARKET}"}, {"channel": f"book:{MARKET}", "mode": "lossless", "depth": 0},
    {"channel": f"book:{MARKET}", "mode": "lossless", "depth": 5}, {"channel": f"book:{MARKET}", "mode": "latest"},
    {"channel": f"orderbook:{MARKET}"}, {"channel": f"orders:{MARKET}"}, {"channel": f"trades:{MARKET}"},
    {"channel": f"trades:{MARKET}", "mode": "conflated", "interval_ms": 100},
    {"channel": f"trades:{MARKET}", "mode": "latest"}, {"channel": f"ticker:{MARKET}"}, {"channel": f"price:{MARKET}"},
    {"channel": f"candles.1s:{MARKET}"}, {"channel": f"candles.1M:{MARKET}"}, {"channel": f"auction:{MARKET}"},
    {"channel": "status"},
]  # fmt: skip


def frames_of(data):
    """(opcode, payload) of whole unmasked frames."""
    found, at = [], 0
    while at < len(data):
        opcode, size, at = data[at] & 15, data[at + 1], at + 2
        assert data[at - 2] & 0xF0 == 0x80
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        found.append((opcode, data[at : at + size]))
        at += size
    return found


class Reader:
    """A session that decodes what it is given."""

    def __init__(self, process, encoding="json"):
        self.process = process
        self.session = Session(process.publisher, process.settings, None, encoding)
        self.decoder = BinaryDecoder()
        self.opcodes = set()

    def take(self, data):
        messages = []
        for opcode, payload in frames_of(data):
            self.opcodes.add(opcode)
            message = self.decoder.decode(payload) if opcode == 2 else msgspec.json.decode(payload)
            self.decoder.learn(message)
            messages.append(message)
        return messages

    def ask(self, **request):
        return self.take(b"".join(self.session.receive(msgspec.json.encode(request), 0.0)))


class Process:
    """A market data process without sockets that is given the events in its own portions."""

    def __init__(self, flow, **settings):
        self.settings = MarketDataSettings(**({"requests_per_second": 100_000} | settings))
        self.state = MarketState(self.settings)
        self.publisher = Publisher(self.state, self.settings)
        self.publisher.apply(flow.opening)
        self.now_ms = 0.0

    def reader(self, encoding="json", **request):
        reader = Reader(self, encoding)
        [reply] = reader.ask(type="subscribe", **request)
        assert reply["type"] == "subscribed", reply
        return reader

    def flush(self, after_ms=20.0):
        self.now_ms += after_ms
        got = {}
        for delivery in self.publisher.flush(self.now_ms):
            for sink in delivery.sinks:
                got.setdefault(sink, []).append(delivery.data)
        return {sink: b"".join(parts) for sink, parts in got.items()}


@pytest.mark.parametrize("request_", EVERY_CHANNEL, ids=lambda r: "-".join(map(str, r.values())))
def test_binary_says_exactly_what_json_says(request_):
    flow = RuleFlow(Core(), 3)
    process = Process(flow)
    plain, packed = process.reader("json", **request_), process.reader("binary", **request_)
    count = 0
    for _ in range(300):
        got = process.flush(60.0)
        one = plain.take(got.get(plain.session, b""))
        assert one == packed.take(got.get(packed.session, b""))
        count += sum(message["type"] != "heads" for message in one)
        process.publisher.apply(flow.step())
    assert count > 5
    assert packed.opcodes == {1, 2} and plain.opcodes == {1}


@pytest.mark.parametrize("depth", DEPTHS)
def test_lossless_book_tells_every_command_alike_however_it_is_flushed(depth):
    flow = RuleFlow(Core(), 20 + depth)
    one, two = Process(flow), Process(flow)
    readers = [process.reader(channel=f"book:{MARKET}", mode="lossless", depth=depth) for process in (one, two)]
    told: list[list] = [[], []]
    expected, before = [], book_of(flow.core, 0)
    for process, reader, messages in zip((one, two), readers, told, strict=True):
        messages += reader.take(process.flush()[reader.session])
    for turn in range(700):
        sequence = flow.sequence
        events = flow.step()
        if flow.sequence == sequence + 1:  # a tick before it may have changed the book as well
            shown = tuple(side[: depth or None] for side in book_of(flow.core, 0))
            if shown != tuple(side[: depth or None] for side in before):
                expected.append(flow.sequence)
        before = book_of(flow.core, 0)
        one.publisher.apply(events)
        two.publisher.apply(events)
        told[0] += readers[0].take(one.flush().get(readers[0].session, b""))
        if turn % 37 == 0:
            told[1] += readers[1].take(two.flush().get(readers[1].session, b""))
    told[1] += readers[1].take(two.flush().get(readers[1].session, b""))
    first, second = ([m for m in messages if m["type"] != "heads"] for messages in told)
    assert first == second and len(first) > 50
    sequences = [message["seq"] for message in first[1:]]
    assert sequences == sorted(set(sequences)) and set(expected) <= set(sequences)
    book = LocalBook(MARKET, depth)
    for message in first:
        book.apply(message)
    market = flow.directory.markets[0]
    bids, asks = (
        [(market.price_text(p), market.size_text(s)) for p, s in side[: depth or None]]
        for side in book_of(flow.core, 0)
    )
    assert (book.bids, book.asks) == (bids, asks)


def test_f43_orders_are_the_cores_queues_and_a_wrong_one_is_noticed():
    flow = RuleFlow(Core(), 8)
    process = Process(flow)
    reader, orders = process.reader(channel=f"orders:{MARKET}"), LocalOrders(MARKET)
    for _ in range(600):
        for message in reader.take(process.flush().get(reader.session, b"")):
            if message["type"] != "heads":
                orders.apply(message)
                last = message
        process.publisher.apply(flow.step())
    for message in reader.take(process.flush().get(reader.session, b"")):
        if message["type"] != "heads":
            orders.apply(message)
            last = message
    market = flow.directory.markets[0]
    expected = {
        (market.price_text(int(row["price"])), "sell" if row["side"] else "buy")
        for row in flow.core.open_orders() if row["market"] == 0 and row["displayed"]
    }  # fmt: skip
    assert {(price, side) for side, price, _ in orders.orders.values()} == expected
    for price, side in expected:
        rows = sorted(
            (row for row in flow.core.open_orders() if row["market"] == 0 and row["displayed"]
             and market.price_text(int(row["price"])) == price and ("sell" if row["side"] else "buy") == side),
            key=lambda row: int(row["join"]),
        )  # fmt: skip
        assert [size for _, size in orders.queue(side, price)] == [
            market.size_text(int(row["displayed"])) for row in rows
        ]
    with pytest.raises(BookGap, match="checksum"):
        orders.apply(last | {"seq": last["seq"] + 1, "prev_seq": last["seq"], "orders": [[10**9, "buy", "5", "1"]]})


@pytest.mark.parametrize("channel", ["book", "orders", "trades"])
def test_replay_gives_the_very_messages_and_leads_from_any_sequence_to_now(channel):
    flow = RuleFlow(Core(), 4)
    process = Process(flow)
    reader = process.reader(
        channel=f"{channel}:{MARKET}", **({"mode": "lossless", "depth": 0} if channel == "book" else {})
    )
    live = [m for m in reader.take(process.flush()[reader.session]) if m["type"] != "heads"]
    for _ in range(500):
        process.publisher.apply(flow.step())
        live += [m for m in reader.take(process.flush().get(reader.session, b"")) if m["type"] != "heads"]
    for at in (1, len(live) // 3, len(live) - 2):
        after = live[at]["seq"]
        reply, *messages = reader.ask(type="replay", channel=f"{channel}:{MARKET}", **{"from": after}, rid=5)
        assert reply == {
            "type": "replay", "channel": f"{channel}:{MARKET}", "from": after, "to": flow.sequence, "complete": True,
            "count": len(messages), "rid": 5,
        }  # fmt: skip
        assert all(message.pop("replayed") for message in messages)
        if channel == "trades":
            flat = [trade for message in messages for trade in message["trades"]]
            assert flat == [trade for message in live[at + 1 :] for trade in message["trades"]]
        else:
            assert messages == live[at + 1 :]
    middle = live[len(live) // 2]["seq"]
    _, *part = reader.ask(type="replay", channel=f"{channel}:{MARKET}", **{"from": live[1]["seq"], "to": middle})
    assert part[-1]["seq"] == middle


def test_replay_is_bounded_and_refuses_truthfully_what_it_no_longer_has():
    flow = RuleFlow(Core(), 4)
    process = Process(flow, change_rows=1024, read_slots=256, replay_rows=64)
    reader = Reader(process)
    for _ in range(900):
        process.publisher.apply(flow.step())
    horizon = process.state.feed.changes.horizon
    [error] = reader.ask(type="replay", channel=f"orders:{MARKET}", **{"from": horizon - 1})
    assert (error["code"], error["horizon"]) == ("beyond_horizon", horizon) and str(horizon) in error["message"]
    after, told, answers = horizon, [], 0
    while True:
        reply, *messages = reader.ask(type="replay", channel=f"orders:{MARKET}", **{"from": after})
        told += [message["seq"] for message in messages]
        answers, after = answers + 1, reply["to"]
        if reply["complete"]:
            break
    rows = process.state.feed.changes.take(0, process.state.feed.changes.count)
    rows = rows[(rows["sequence"] > horizon) & (rows["market"] == 0) & (rows["kind"] == 2)]
    assert told == sorted(set(rows["sequence"].tolist())) and answers > 5


def test_heads_name_the_last_message_of_each_stream_and_beat_while_it_is_quiet():
    flow = RuleFlow(Core(), 6)
    process = Process(flow)
    reader = process.reader(channel=f"book:{MARKET}", mode="lossless")
    for channel in (f"trades:{MARKET}", f"ticker:{MARKET}"):
        reader.ask(type="subscribe", channel=channel)
    last = {}
    for message in reader.take(process.flush()[reader.session]):
        last[message["channel"]] = message["seq"]
    for _ in range(200):
        process.publisher.apply(flow.step())
        messages = reader.take(process.flush().get(reader.session, b""))
        if messages:
            assert messages[-1]["type"] == "heads" and messages[-1]["seq"] == flow.sequence
            last |= {message["channel"]: message["seq"] for message in messages[:-1]}
            assert messages[-1]["heads"] == {m["channel"]: last[m["channel"]] for m in messages[:-1]}
    process.flush()
    process.publisher.apply(flow.apply({"op": "cut"}))
    assert process.flush() == {}
    [beat] = reader.take(process.flush(1_000.0)[reader.session])
    assert beat["heads"] == last and beat["seq"] == flow.sequence  # quiet, and not stuck
    book = LocalBook(MARKET)
    book.ready, book.seq = True, last[f"book:{MARKET}"] - 1
    with pytest.raises(BookGap, match="last message"):
        book.check_head(beat["heads"][f"book:{MARKET}"])


@pytest.mark.parametrize("interval_ms", INTERVALS_MS)
def test_conflated_every_n_ms_is_that_and_ends_in_the_same_book(interval_ms):
    flow = Flow(9)
    process = Process(flow)
    reader, book = process.reader(channel=f"book:{MARKET}", depth=0, interval_ms=interval_ms), LocalBook(MARKET)
    late = process.reader(channel=f"trades:{MARKET}", mode="conflated", interval_ms=interval_ms)
    sent, ids = 0, []
    for turn in range(1 + 3 * interval_ms // 20 + 400):
        got = process.flush()
        messages = [m for m in reader.take(got.get(reader.session, b"")) if m["type"] != "heads"]
        sent += len(messages)
        for message in messages:
            book.apply(message)
        ids += [t["trade_id"] for m in late.take(got.get(late.session, b"")) for t in m.get("trades", ())]
        if turn < 400:
            process.publisher.apply(flow.step())
    assert (book.bids, book.asks) == flow.book_text()
    assert sent <= 2 + 400 * 20 // interval_ms + 1 and sent >= min(100, 400 * 20 // interval_ms // 2)
    assert ids == list(range(1, len(ids) + 1)) and len(ids) > 50


def test_candle_snapshot_updates_and_history_are_those_of_the_trades():
    flow = RuleFlow(Core(), 2)
    process = Process(flow, candles_sent=5)
    reader = process.reader(channel=f"candles.1m:{MARKET}")
    tape = process.reader(channel=f"trades:{MARKET}")
    candles, trades = {}, []
    for _ in range(900):
        got = process.flush()
        for message in reader.take(got.get(reader.session, b"")):
            for candle in message.get("candles", ()):
                candles[candle["begin"]] = candle
        trades += [t for m in tape.take(got.get(tape.session, b"")) for t in m.get("trades", ())]
        process.publisher.apply(flow.step())
    for begin, candle in candles.items():
        inside = [trade for trade in trades if begin <= trade["ts"] < candle["end"]]
        if candle is candles[max(candles)] or not inside:
            continue
        prices = [float(trade["price"]) for trade in inside]
        assert (float(candle["open"]), float(candle["close"]), candle["trades"]) == (prices[0], prices[-1], len(inside))
        assert (float(candle["low"]), float(candle["high"])) == (min(prices), max(prices))
        assert (candle["first_seq"], candle["last_seq"]) == (inside[0]["seq"], inside[-1]["seq"])
    assert len(candles) > 8
    [page] = reader.ask(type="history", channel=f"candles.1m:{MARKET}", before=max(candles), limit=3)
    assert [candle["begin"] for candle in page["candles"]] == sorted(candles)[-4:-1]


def test_auction_tells_the_indicative_of_the_core_and_the_last_uncross():
    flow = RuleFlow(Core(), 5)
    process = Process(flow)
    reader, crossed, results, state = process.reader(channel=f"auction:{MARKET}"), 0, set(), None
    market = flow.directory.markets[0]
    for _ in range(1200):
        for message in reader.take(process.flush().get(reader.session, b"")):
            state = message if message["type"] != "heads" else state
        phase = flow.directory.markets[0].phase.word
        price, paired, imbalance = flow.core.indicative(0)
        assert state["phase"] == phase
        if phase in ("preopen", "auction"):
            assert state["price"] == (None if price is None else market.price_text(price))
            assert state["paired"] == market.size_text(paired)
            assert state["imbalance"] == ("-" if imbalance < 0 else "") + market.size_text(abs(imbalance))
            crossed += price is not None
        else:
            assert state["price"] is None and state["paired"] == "0"
        if state["result"]:
            results.add(state["result"]["seq"])
        process.publisher.apply(flow.step())
    assert crossed > 20 and len(results) > 5


def test_a_command_larger_than_the_ring_begins_lossless_streams_anew():
    flow = RuleFlow(Core(), 1)
    process = Process(flow, change_rows=64, read_slots=16, replay_rows=8)
    reader, orders = process.reader(channel=f"orders:{MARKET}"), LocalOrders(MARKET)
    other = process.reader(channel=f"book:{MARKET}")
    for _ in range(200):
        process.publisher.apply(flow.step())
    process.flush()
    many = np.concatenate([flow.step() for _ in range(300)])
    process.publisher.apply(many)
    got = process.flush()
    messages = [m for m in reader.take(got[reader.session]) if m["type"] != "heads"]
    assert [message["type"] for message in messages] == ["snapshot"]
    orders.apply(messages[0])
    assert len(orders.orders) == len(process.state.feed.orders.public(0))
    assert "update" in [m["type"] for m in other.take(got[other.session])]
