"""What many markets cost: ns a command with 10 and with 100,000 markets, activity by Zipf's law, everything on.

Both have the same accounts, the same number of resting orders and the same mix: 48 % places that rest, 45 % cancels of
a random resting order, 7 % orders that take the best. Only how many markets there are differs, so what is added is what
the spread of the memory costs. Market k gets a share of 1 / k (Zipf, exponent 1) of the commands; orders to take and to
cancel are found in the market that was drawn. Untimed at first: a bid and an ask for each of the many markets, spread
over those there are, then orders by Zipf's law; so that no page is touched for the first time while the clock runs.

Checked: every market has a reference book of its own; trades, volume, notional, what rests and the hash of the fills of
each market must agree before a time is taken, and every timed run must end with the same state hash. Times are CPU
times of the thread; what many markets add is the difference of the fastest runs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from bench.driver import Native
from bench.harness import Row, WrongResult, median, pinned
from bench.records import (
    FIRST_ACCOUNT,
    OUT_SLOTS,
    accounts,
    apply_all,
    assets,
    cancels,
    deposits,
    markets,
    numbered,
    places,
)  # fmt: skip
from bench.workload import M64, Live, ReferenceBook
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import EventKind, TimeInForce

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "wire, journal, disk. One thread, 64 accounts, prices 1 … 1,000"
ACCOUNTS = 64
MAX_PRICE = 1_000
MIDDLE, SPREAD = 384, 60
FEW, MANY = 10, 100_000
RESTING, COUNT, ROUNDS = 100_000, 500_000, 5
ADDED_MUST_NS = 30.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Commands over many markets as records, of which `preload` are untimed, and what must come of them."""

    records: np.ndarray
    preload: int
    books: dict[int, ReferenceBook]


def _core(listed: int) -> tuple[Core, int]:
    core = Core(CoreLimits(markets=max(16, listed)))
    everyone = FIRST_ACCOUNT + np.arange(ACCOUNTS)
    parts = [assets([b"BASE", b"QUOTE"]), markets(listed, MAX_PRICE), accounts(ACCOUNTS)]
    slots, after = numbered([*parts, deposits(everyone, 0, 10**15), deposits(everyone, 1, 10**15)], 1)
    apply_all(core, slots)
    return core, after


def drawn(listed: int, spread: int, resting: int, count: int, seed: int, first: int) -> Drawn:
    """The commands: `spread` over all markets, `resting` by Zipf's law, then the timed. Order ids are sequences."""
    rng = random.Random(seed)
    weights = np.cumsum(1.0 / np.arange(1, listed + 1))
    by_zipf = np.searchsorted(weights, np.random.default_rng(seed).random(resting + count) * weights[-1])
    which = [*(at // 2 % listed for at in range(spread)), *by_zipf.tolist()]
    preload = spread + resting
    books: dict[int, ReferenceBook] = {}
    live: dict[int, Live] = {}
    rows: list[tuple[int, int, int, int, int, int, int]] = []  # cancels?, order id, market, side, price, size, ioc?
    for at, market in enumerate(which):
        book, ids, sequence = books.setdefault(market, ReferenceBook()), live.setdefault(market, Live()), first + at
        draw, side = rng.random(), at & 1 if at < spread else rng.randrange(2)
        best = book.best(1 - side)
        if at >= preload and draw < 0.45 and ids:
            order = ids.a[rng.randrange(len(ids))]
            ids.drop(order)
            side, _, _ = book.cancel(order)
            rows.append((1, order, market, side, 0, 0, 0))
        elif at >= preload and draw > 0.93 and best is not None:
            size = 1 + rng.randrange(100)
            rows.append((0, sequence, market, side, best, size, 1))
            book.take(sequence, side, best, size)
            for maker in book.makers:
                ids.drop(maker)
        else:
            size, away = 1 + rng.randrange(100), 1 + rng.randrange(SPREAD)
            price = MIDDLE - away if side == 0 else MIDDLE + away
            rows.append((0, sequence, market, side, price, size, 0))
            book.rest(sequence, side, price, size)
            ids.add(sequence)
    columns = np.array(rows, np.int64)
    cancelled, order, market, side, price, size, taking = columns.T
    who = FIRST_ACCOUNT + order % (ACCOUNTS // 2) + ACCOUNTS // 2 * side
    records = places(who, market, side, price, size, order)
    records.view(layout.PLACE)["tif"][taking == 1] = TimeInForce.IOC
    where = np.flatnonzero(cancelled)
    records[where] = cancels(who[where], order[where])
    records["sequence"] = records["ts"] = first + np.arange(len(records))
    return Drawn(records, preload, books)


def proven(core: Core, made: Drawn) -> bytes:
    """Play everything, compare it with the reference books, and return the state hash.

    Raises:
        WrongResult: a command was refused, or the fills or what rests differ in any market.
    """
    out = np.zeros(OUT_SLOTS, layout.EVENT)
    hashes: dict[int, int] = {}
    totals = np.zeros(3, np.int64)
    at = 0
    while at < len(made.records):
        at, used = core.apply_batch(made.records, out, at)
        events = out[:used]
        if np.isin(events["kind"], (EventKind.REJECTED, EventKind.DUPLICATE)).any():
            raise WrongResult("a command was refused")
        fills = events[events["kind"] == EventKind.TRADE].view(layout.TRADE)
        totals += (len(fills), int(fills["size"].sum()), int(fills["notional"].sum()))
        names = ("market", "maker_order_id", "taker_order_id", "price", "size")
        for market, maker, taker, price, size in zip(*(fills[name].tolist() for name in names), strict=True):
            digest = hashes.get(market, 0xCBF29CE484222325)
            digest = ((digest ^ ((maker * 0x9E3779B97F4A7C15 + taker) & M64)) * 0x100000001B3) & M64
            hashes[market] = ((digest ^ ((price * 0x9E3779B97F4A7C15 + size) & M64)) * 0x100000001B3) & M64
    core.check()
    books = made.books.values()
    want = (sum(b.trades for b in books), sum(b.volume for b in books), sum(b.notional for b in books))
    if tuple(totals.tolist()) != want or hashes != {m: b.h for m, b in made.books.items() if b.trades}:
        raise WrongResult(f"(trades, volume, notional) {totals.tolist()} is not {want}, or the fills differ")
    if set(core.open_orders()["order_id"].tolist()) != {order for book in books for order in book.where}:
        raise WrongResult("other orders rest than in the reference books")
    return core.state_hash()


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of few and of many markets, and what many add."""
    many, resting, count, rounds = (500, 2_000, 5_000, 1) if smoke else (MANY, RESTING, COUNT, ROUNDS)
    with pinned():
        made: dict[int, tuple[Drawn, bytes]] = {}
        for listed in (FEW, many):
            core, first = _core(listed)
            commands = drawn(listed, 2 * many, resting, count, seed, first)
            made[listed] = (commands, proven(core, commands))
        taken: dict[int, list[float]] = {listed: [] for listed in made}
        for _ in range(rounds):
            for listed, (commands, expected) in made.items():
                core, _ = _core(listed)
                core.reserve(len(commands.records))
                native = Native(core)
                native.play(commands.records, 0, commands.preload)
                taken[listed].append(native.play(commands.records, commands.preload).ns / count)
                if core.state_hash() != expected:
                    raise WrongResult(f"{listed} markets: a timed run ended with another state hash")
    added = min(taken[many]) - min(taken[FEW])  # what else the machine does only ever adds
    return [
        *(Row(f"{listed:,} markets", "ns a command", median(times), "ns") for listed, times in taken.items()),
        Row(f"from {FEW} to {many:,} markets", "added ns a command", added, "ns", must=ADDED_MUST_NS),
    ]
