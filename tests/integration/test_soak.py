"""The short soak: a whole edge with a fixed number of steps, and proof that its judge sees what is wrong."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench import bench_soak
from bench.harness import Row
from bench.soak.growth import GROWTH_MAX, growth_rows
from bench.soak.hostile import CASES
from bench.soak.readers import Reader, Seen
from bench.soak.truth import Truth, judge
from bench.soak.world import MARKETS, Memory, World
from engine.messages.codes import EventKind


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """picows tells of each broken connection, and here they break all the time."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_short_soak_ends_with_every_view_equal_to_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[tuple[World, Truth, list[Any], Seen]] = []

    def judging(world: World, truth: Truth, traders: list[Any], seen: Seen) -> dict[str, int]:
        compared = judge(world, truth, traders, seen)
        before = list(world.faults)
        judged.append((world, truth, traders, seen))
        if not before:
            _tamper(world, truth, traders, seen)
        return compared

    monkeypatch.setattr(bench_soak, "judge", judging)
    rows = {row.metric: row for row in bench_soak.run(True, 20_261_121)}
    assert judged and rows["faults"].value == 0
    assert rows["hostile connections"].value == rows["kinds of malformed connections"].value == len(CASES)
    for metric in ("events of traders compared", "outcomes compared", "trades compared", "books at the end compared",
                   "books compared at their sequence", "resumes", "balances compared"):  # fmt: skip
        assert rows[metric].value > 10, metric
    channels = {(market, depth) for market, depth, _ in judged[0][3].books}
    assert {(market, depth) for market in range(2) for depth in (0, -1)} <= channels
    assert all(isinstance(row, Row) and row.ok for row in rows.values())


def _faults(world: World, truth: Truth, traders: list[Any], seen: Seen) -> int:
    """How many the judge finds now; `world` is as before afterwards."""
    judge(world, truth, traders, seen)
    found = len(world.faults)
    world.faults.clear()
    world.counts["faults"] = 0
    return found


def _tamper(world: World, truth: Truth, traders: list[Any], seen: Seen) -> None:
    """Each kind of view, changed by one: the judge must say so, and be content when it is put back."""
    trader = next(trader for trader in traders if trader.records and trader.answers and not trader.viewer)
    key, record = next(iter(trader.records.items()))
    for other in (None, (record[0], record[1] + 1), (not record[0], record[1])):
        del trader.records[key]
        if other is not None:
            trader.records[key] = other
        assert _faults(world, truth, traders, seen) == 1
        trader.records[key] = record
    trader.records[10**9, 1] = record  # what the journal never said
    assert _faults(world, truth, traders, seen) == 1
    del trader.records[10**9, 1]
    balance = trader.answers["balances"]["balances"][0]
    available, balance["available"] = balance["available"], "1"
    assert _faults(world, truth, traders, seen) == 1
    balance["available"] = available
    trader.open[10**9] = "ghost", 0
    assert _faults(world, truth, traders, seen) == 1
    del trader.open[10**9]
    number, trade = next(iter(seen.trades.items()))
    seen.trades[number] = (trade[0], "0.01", *trade[2:])
    assert _faults(world, truth, traders, seen) == 1
    del seen.trades[number]
    assert _faults(world, truth, traders, seen) == 1  # shown to nobody
    seen.thinned.add(number[0])
    assert _faults(world, truth, traders, seen) == 0  # its readers were told that they miss something
    seen.thinned.clear()
    seen.trades[number] = trade
    seen.last[0, 0].add((1, "0" * 16))
    assert _faults(world, truth, traders, seen) == 1
    seen.last[0, 0].discard((1, "0" * 16))
    queue = seen.queues[0]
    seen.queues[0] = [*queue, ("buy", "0.01", "1")]
    assert _faults(world, truth, traders, seen) == 1
    seen.queues[0] = queue
    assert _faults(world, truth, traders, seen) == 0


def test_a_book_that_was_shown_wrong_is_found_at_its_sequence(tmp_path: Path) -> None:
    async def journal() -> tuple[Path, int]:
        async with World(tmp_path, 1, 1, viewers=0) as world:
            place = {"market": MARKETS[0], "type": "limit", "side": "buy", "size": "1"}
            first = await world.operator.command("place", account="trader-0", client_id="a", price="9", **place)
            await world.operator.command("place", account="trader-0", client_id="b", price="8", **place)
            await world.stop_exchange()
            return world.settings.data_directory, int(first["sequence"])

    directory, sequence = uvloop.run(journal())
    found = []
    for checksum in ("0" * 16, None):
        seen = Seen()
        seen.book(0, 0, sequence, checksum or found[0].rpartition(" ")[2])
        truth = Truth(seen, sequence, lambda truth: None)
        truth.replay(directory, lambda sequence: None)
        found += truth.faults
        assert truth.books_compared == 1 and len(truth.faults) == (checksum is not None)
    seen.book(0, 0, sequence, "1" * 16)
    assert len(seen.faults) == 1  # two readers that saw different books


def test_a_reader_has_not_heard_the_end_of_what_still_waits_for_its_interval() -> None:
    """A write of the price says nothing of the book, which is told a second later."""
    book, price, seen = "orderbook:S0-USD", "price:S0-USD", Seen()
    reader = Reader(15, "", seen, random.Random(1))
    reader.begin()
    for channel in (book, price):
        reader.hear({"type": "subscribed", "channel": channel})
    snapshot = {"type": "snapshot", "channel": book, "seq": 5, "tick": "0.01", "lot": "0.1", "bids": [], "asks": []}
    reader.hear(snapshot | {"checksum": "0" * 16})
    reader.hear({"type": "snapshot", "channel": price, "seq": 5})
    reader.wanted = 9
    reader.hear({"type": "pong", "seq": 9})
    reader.hear({"type": "heads", "seq": 9, "heads": {price: 5}})
    assert not reader.is_whole
    reader.hear({"type": "heads", "seq": 9, "heads": {price: 5, book: 5}})
    assert reader.is_whole and not seen.faults


def test_memory_that_grows_has_a_slope() -> None:
    memory = Memory(0, [(float(second), 10_000, 5_000 + 300 * second) for second in range(10)])
    assert memory.slope(0.0) == pytest.approx(300) and memory.slope(5.0) == pytest.approx(300)
    assert memory.slope(0.0, 3.0) == pytest.approx(300) and replace(memory, samples=memory.samples[:1]).slope(0.0) == 0


def test_growth_beyond_bounded_stores_fails_the_soak(tmp_path: Path) -> None:
    """600 s; ten ids and refusals a second explain what the core grows by in the second half, but nothing of a leak."""
    world = World(tmp_path, 1, 1, viewers=0)
    begin = world.began_ns // 1_000_000_000
    kinds = {
        begin + second: Counter({int(EventKind.ACCEPTED): 10, int(EventKind.REJECTED): 10}) for second in range(700)
    }
    stores = 10 * 112 + 10 * 448
    for leak in (0, GROWTH_MAX // 2, 2 * GROWTH_MAX):
        samples = [(float(second), 10**8, 50_000_000 + (stores + leak) * second) for second in range(0, 601, 2)]
        samples += [(float(second), 10**8, samples[-1][2]) for second in range(602, 1_200, 2)]  # all has ended
        world.memory, world.ended_s = {"core": Memory(0, samples)}, 600.0
        for is_judged in (True, False):
            rows = {row.metric: row for row in growth_rows(world, kinds, is_judged)}
            assert rows["grown in the second half"].value == pytest.approx((stores + leak) * 300 / 1e6)
            assert rows["at most of it: refusals"].value == pytest.approx(4_480 * 300 / 1e6, rel=0.01)
            beyond = rows["grown beyond its stores"]
            assert beyond.value == pytest.approx(leak * 300 / 1e6, abs=0.02)
            assert beyond.ok == (leak < GROWTH_MAX or not is_judged)
