"""The rolling day and the tape."""

import numpy as np

from marketdata.feed import TRADE_ROW
from marketdata.ticker import DAY_MINUTES, MINUTE_NS, Ticker
from marketdata.trades import Tape, by_market


def rows(*trades):
    out = np.zeros(len(trades), TRADE_ROW)
    for at, (minute, price, size) in enumerate(trades):
        out[at]["ts"], out[at]["price"], out[at]["size"] = minute * MINUTE_NS, price, size
        out[at]["notional"] = price * size
    return out


def test_day_equals_a_plain_walk_over_all_trades():
    random = np.random.default_rng(5)
    ticker, seen, minute = Ticker(), [], 100_000
    for _ in range(400):
        minute += int(random.integers(0, 30))
        batch = [(minute, int(random.integers(50, 150)), int(random.integers(1, 9))) for _ in range(3)]
        seen += batch
        ticker.add(rows(*batch))
        window = [trade for trade in seen if trade[0] >= minute - DAY_MINUTES]
        day = ticker.day(minute * MINUTE_NS)
        prices = [price for _, price, _ in window]
        assert (day.open, day.high, day.low) == (prices[0], max(prices), min(prices))
        assert day.size == sum(size for *_, size in window) and day.count == len(window)
        assert day.notional == sum(price * size for _, price, size in window)
    assert ticker.day((minute + DAY_MINUTES + 1) * MINUTE_NS).open is None
    assert ticker.last == (seen[-1][1], seen[-1][2], minute * MINUTE_NS)


def test_sums_of_huge_sizes_do_not_overflow():
    ticker = Ticker()
    ticker.add(rows(*[(1, 1, 2**62)] * 9))
    assert ticker.day(MINUTE_NS).size == 9 * 2**62


def test_groups_keep_the_order_of_the_log():
    mixed = np.zeros(6, TRADE_ROW)
    mixed["market"], mixed["trade_id"] = [3, 1, 3, 1, 1, 3], [1, 1, 2, 2, 3, 3]
    assert [(market, list(group["trade_id"])) for market, group in by_market(mixed)] == [(1, [1, 2, 3]), (3, [1, 2, 3])]


def test_tape_is_bounded_and_keeps_the_newest():
    tape = Tape(3)
    for price in range(10):
        tape.add(0, rows((1, price, 1)))
    assert [int(row["price"]) for row in tape.last(0, 2)] == [8, 9] and len(tape.last(0, 99)) == 3
