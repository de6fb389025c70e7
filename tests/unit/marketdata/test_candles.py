"""Candles against a plain re-computation from the tape."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from marketdata.candles import INTERVALS, Candles
from marketdata.feed import TRADE_ROW

SECONDS = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": 86_400}


def begin_of(interval, ts):
    if interval in SECONDS:
        width = SECONDS[interval] * 10**9
        return ts // width * width
    day = datetime.fromtimestamp(ts // 10**9, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = day - timedelta(days=day.weekday()) if interval == "1w" else day.replace(day=1)
    return int(day.timestamp()) * 10**9


def trades(seed, count, start, span_s):
    rng = random.Random(seed)
    rows = np.zeros(count, TRADE_ROW)
    rows["ts"] = sorted(start + rng.randrange(span_s * 10**9) for _ in range(count))
    rows["sequence"] = sorted(rng.sample(range(1, count * 5), count))
    rows["trade_id"] = range(1, count + 1)
    rows["price"] = [rng.randint(90, 110) for _ in range(count)]
    rows["size"] = [rng.randint(1, 2**40) for _ in range(count)]
    rows["notional"] = [rng.randint(1, 2**61) for _ in range(count)]
    return rows


def plain(interval, rows):
    groups = {}
    for row in rows:
        groups.setdefault(begin_of(interval, int(row["ts"])), []).append(row)
    return [
        (
            begin, int(g[0]["price"]), max(int(r["price"]) for r in g), min(int(r["price"]) for r in g),
            int(g[-1]["price"]), sum(int(r["size"]) for r in g), sum(int(r["notional"]) for r in g), len(g),
            int(g[0]["sequence"]), int(g[-1]["sequence"]),
        )
        for begin, g in groups.items()
    ]  # fmt: skip


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("start", [1_700_000_000 * 10**9, 951_700_000 * 10**9])  # the second: 28 February 2000
def test_candles_are_those_of_the_tape(interval, start):
    span = {"1s": 40, "1m": 4_000, "5m": 30_000}.get(interval, 5_000_000 if interval != "1M" else 400_000_000)
    rows = trades(7, 900, start, span)
    candles, kind = Candles(1000), INTERVALS.index(interval)
    for part in np.array_split(rows, 17):
        candles.add(part)
    told = candles.last(kind, 1000)
    assert [(c[0], *c[2:]) for c in told] == plain(interval, rows) and len(told) > 3
    assert all(c[0] < c[1] and begin_of(interval, c[1]) == c[1] and begin_of(interval, c[1] - 1) == c[0] for c in told)


def test_only_the_last_are_kept_and_pages_go_back():
    rows = trades(3, 500, 1_700_000_000 * 10**9, 100_000)
    few, all_of_them = Candles(20), Candles(10_000)
    few.add(rows)
    all_of_them.add(rows)
    whole = all_of_them.last(1, 10_000)
    assert few.last(1, 1000) == whole[-20:] and len(whole) > 100
    assert all_of_them.last(1, 10, before=whole[-20][0]) == whole[-30:-20]
    assert few.last(1, 10, before=whole[-20][0]) == []
    assert all_of_them.changed(1, whole[-3][10]) == whole[-2:]
    assert all_of_them.changed(1, whole[-1][10]) == []


def test_trade_of_an_earlier_time_counts_into_the_last_candle():
    rows = trades(1, 2, 1_700_000_000 * 10**9, 1)
    rows["ts"] = [1_700_000_100 * 10**9, 1_700_000_000 * 10**9]
    candles = Candles(10)
    candles.add(rows)
    [candle] = candles.last(1, 10)
    assert candle[8] == 2
