"""The real order-by-order capture (byline/feed/bitstamp.py) as a LOBW workload, BTS.

`created` places, `deleted` cancels what still rests, a re-price is both; sizes in satoshi, prices in dollars, ids in
the order of placing. The first 5,000 commands are preload. A feed after the match, replayed, trades more.
The capture is downloaded once, under its own licence, and is no part of the project; without it there is no row.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np

from bench.workload import CANCEL, LIMIT, RECORD, ReferenceBook, Workload, of_records
from byline.feed.bitstamp import convert, fetch_capture
from engine.messages.errors import PartMissing

__all__ = ["CACHE", "bitstamp"]

CACHE = Path.home() / ".cache" / "byline"
PRELOAD = 5_000
SATOSHI = 100_000_000
MOST = (1 << 32) - 1
"""A LOBW quantity has 32 bits: the few orders above 42 coins are cut to that. None of them trades that much."""


def bitstamp(*, download: bool) -> Workload:
    """The workload BTS.

    Raises:
        PartMissing: the capture is not here; with `download`, it can neither be had.
    """
    if not download and not any(CACHE.glob("bitstamp-*.csv.gz")):
        raise PartMissing(f"no capture in {CACHE}")
    book, numbers = ReferenceBook(), dict[str, int]()
    rows: list[tuple[int, int, int, int, int, int]] = []
    for command in convert(fetch_capture(CACHE)):
        if command.op == "place":
            number = numbers[command.client_id] = len(numbers) + 1
            side, price = int(command.side == "sell"), int(command.price)
            size = min(int(Decimal(command.size) * SATOSHI), MOST)
            book.limit(number, side, price, size)
            rows.append((LIMIT, side, 0, size, number, price))
        elif (number := numbers[command.client_id]) in book.where:
            side, _, _ = book.cancel(number)
            rows.append((CANCEL, side, 0, 0, number, 0))
    return of_records("BTS", PRELOAD, np.array(rows, RECORD))
