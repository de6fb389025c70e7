"""Other people's engines, one driver each: a bench runs the same commands through them as through ours.

A driver turns LOBW records into calls before the clock starts: a function of the peer and its arguments, one call a
command. What a peer lacks is made of what it has, inside that call: a move is a cancel and a new order everywhere, an
immediate-or-cancel order is a limit order whose rest is cancelled, but in lumina-lob, which has them. `compare` holds
what came of it against the reference book's driver: every fill (count, quantity, hash of maker, taker, price and
quantity), the ids that rest, the open quantity of both sides. limit-order-book reports no fills: it is held to what
rests alone.

Only the exact versions in `PEERS` are driven: another version may mean other arguments. None of them is imported by
the project itself. Worst case: a peer that never returns stops the bench; none of those below does on W1.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar, TypeAlias

import numpy as np

from bench.workload import CANCEL, IOC, LIMIT, M64, MOVE, ReferenceBook

__all__ = [
    "PEERS", "Call", "Driver", "Ended", "Fills", "NotDriven", "Peer", "ReferenceDriver", "compare", "fills", "play",
]  # fmt: skip

Call: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]


class NotDriven(Exception):
    """There is no number for this peer; the text says why."""


@dataclass(frozen=True, slots=True)
class Fills:
    """What was traded: how often, how much, and the hash of every fill in order."""

    trades: int
    volume: int
    hash: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of the commands. `fills` is None if the engine reports none; `open` is bought and sold quantity."""

    fills: Fills | None
    resting: frozenset[int]
    open: tuple[int, int]


def fills(rows: Iterable[tuple[int, int, int, int]]) -> Fills:
    """The sum of (maker, taker, price, quantity) rows, hashed as `ReferenceBook` hashes."""
    digest, trades, volume = 0xCBF29CE484222325, 0, 0
    for maker, taker, price, quantity in rows:
        digest = ((digest ^ ((maker * 0x9E3779B97F4A7C15 + taker) & M64)) * 0x100000001B3) & M64
        digest = ((digest ^ ((price * 0x9E3779B97F4A7C15 + quantity) & M64)) * 0x100000001B3) & M64
        trades += 1
        volume += quantity
    return Fills(trades, volume, digest)


def _open(orders: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Bought and sold quantity of (side, quantity) rows."""
    sums = [0, 0]
    for side, quantity in orders:
        sums[side] += quantity
    return sums[0], sums[1]


def play(calls: list[Call]) -> None:
    """One call a command: the loop that is timed, the same for every engine."""
    for function, arguments in calls:
        function(*arguments)


class Driver(ABC):
    """An empty book of one engine. Side 0 buys and 1 sells; prices and quantities are positive integers."""

    reports_fills: ClassVar[bool] = True

    @abstractmethod
    def limit(self, number: int, side: int, price: int, quantity: int) -> Call: ...

    @abstractmethod
    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call: ...

    @abstractmethod
    def market(self, number: int, side: int, quantity: int) -> Call: ...

    @abstractmethod
    def cancel(self, number: int) -> Call: ...

    @abstractmethod
    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        """`quantity` is what is open; the order goes to the end of the queue at `price`."""

    @abstractmethod
    def ended(self, ids: Iterable[int]) -> Ended:
        """What came of the calls; `ids` are all that may rest."""

    def calls(self, records: np.ndarray) -> list[Call]:
        """One call for each LOBW record."""
        made = []
        for op, side, _, quantity, number, price in records.tolist():
            if op == LIMIT:
                made.append(self.limit(number, side, price, quantity))
            elif op == CANCEL:
                made.append(self.cancel(number))
            elif op == MOVE:
                made.append(self.move(number, side, price, quantity))
            elif op == IOC:
                made.append(self.ioc(number, side, price, quantity))
            else:
                made.append(self.market(number, side, quantity))
        return made


class ReferenceDriver(Driver):
    """The generator's own book: what the others are held to."""

    def __init__(self) -> None:
        self.book = ReferenceBook()

    def limit(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.book.limit, (number, side, price, quantity)

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.book.take, (number, side, price, quantity)

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self.book.take, (number, side, None, quantity)

    def cancel(self, number: int) -> Call:
        return self.book.cancel, (number,)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._move, (number, price)

    def _move(self, number: int, price: int) -> None:
        side, _, quantity = self.book.cancel(number)
        self.book.rest(number, side, price, quantity)

    def ended(self, ids: Iterable[int]) -> Ended:
        book = self.book
        levels = ((side, quantity) for side in (0, 1) for row in book.side[side].values() for quantity in row.values())
        return Ended(Fills(book.trades, book.volume, book.h), frozenset(book.where), _open(levels))


class CythonOrderbook(Driver):
    """cython-orderbook: an `Order` is (side, quantity, price) and is made inside the call, for it is the book's node.

    Its ids are strings of its own counting; ours are written over them, made before the clock starts.
    """

    def __init__(self) -> None:
        module = importlib.import_module("cython_orderbook")
        self.order = module.Order
        self.sides = (module.OrderSide.BID, module.OrderSide.ASK)
        self.book = module.OrderBook()

    def limit(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._limit, (str(number), self.sides[side], quantity, price)

    def _limit(self, key: str, side: object, quantity: int, price: int) -> None:
        order = self.order(side, quantity, price)
        order.order_id = key
        self.book.add_limit_order(order)

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._ioc, (str(number), self.sides[side], quantity, price)

    def _ioc(self, key: str, side: object, quantity: int, price: int) -> None:
        order = self.order(side, quantity, price)
        order.order_id = key
        self.book.add_limit_order(order)
        if order.remaining_quantity:
            self.book.cancel_order(key)

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self._market, (str(number), self.sides[side], quantity)

    def _market(self, key: str, side: object, quantity: int) -> None:
        order = self.order(side, quantity)
        order.order_id = key
        self.book.add_market_order(order)

    def cancel(self, number: int) -> Call:
        return self.book.cancel_order, (str(number),)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._move, (str(number), self.sides[side], quantity, price)

    def _move(self, key: str, side: object, quantity: int, price: int) -> None:
        self.book.cancel_order(key)
        self._limit(key, side, quantity, price)

    def ended(self, ids: Iterable[int]) -> Ended:
        log = self.book.trade_log
        orders = [order for _, order in self.book.orders.values()]
        return Ended(
            fills((int(t.filler_id), int(t.aggressor_id), t.price, t.quantity_filled) for t in log),
            frozenset(int(order.order_id) for order in orders),
            _open((self.sides.index(order.side), order.remaining_quantity) for order in orders),
        )


class LimitOrderBook(Driver):
    """limit-order-book: reports no fills, so the rest of an immediate-or-cancel order has to be asked for."""

    reports_fills = False

    def __init__(self) -> None:
        self.book = importlib.import_module("limit_order_book").LimitOrderBook()
        self.limits = (self.book.limit_buy, self.book.limit_sell)
        self.markets = (self.book.market_buy, self.book.market_sell)

    def limit(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.limits[side], (number, quantity, price)

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._ioc, (self.limits[side], number, quantity, price)

    def _ioc(self, limit: Callable[..., object], number: int, quantity: int, price: int) -> None:
        limit(number, quantity, price)
        if self.book.has(number):
            self.book.cancel(number)

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self.markets[side], (number, quantity)

    def cancel(self, number: int) -> Call:
        return self.book.cancel, (number,)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._move, (self.limits[side], number, quantity, price)

    def _move(self, limit: Callable[..., object], number: int, quantity: int, price: int) -> None:
        self.book.cancel(number)
        limit(number, quantity, price)

    def ended(self, ids: Iterable[int]) -> Ended:
        resting = frozenset(number for number in ids if self.book.has(number))
        return Ended(None, resting, (self.book.volume_buy(), self.book.volume_sell()))


class LuminaLob(Driver):
    """lumina-lob's compiled core; its event log, which it always writes, is where the prices of the fills stand."""

    def __init__(self) -> None:
        core: Any = importlib.import_module("lumina_lob._core")
        self.sides = (core.Side.BID, core.Side.ASK)
        self.kinds = core.OrderType
        self.fill = core.EventType.FILL
        self.book = core.OrderBook()
        self.engine = core.MatchingEngine(self.book)

    def limit(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.engine.process, (number, self.sides[side], price, quantity, self.kinds.LIMIT)

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.engine.process, (number, self.sides[side], price, quantity, self.kinds.IOC)

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self.engine.process, (number, self.sides[side], None, quantity, self.kinds.MARKET)

    def cancel(self, number: int) -> Call:
        return self.book.cancel, (number,)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._move, (number, self.sides[side], price, quantity, self.kinds.LIMIT)

    def _move(self, number: int, side: object, price: int, quantity: int, kind: object) -> None:
        self.book.cancel(number)
        self.engine.process(number, side, price, quantity, kind)

    def ended(self, ids: Iterable[int]) -> Ended:
        events = self.book.event_log().events
        orders = self.book.orders()
        return Ended(
            fills((e.counterparty_id, e.order_id, e.price, e.trade_qty) for e in events if e.event_type == self.fill),
            frozenset(orders),
            _open((self.sides.index(order.side), order.remaining_qty) for order in orders.values()),
        )


class OrderlyChaos(Driver):
    """orderly-chaos: fills come by callback, kept in a list; a limit order returns what was filled of it."""

    def __init__(self) -> None:
        module = importlib.import_module("orderly_chaos")
        self.trades: list[Any] = []
        self.sides = (module.Side.BUY, module.Side.SELL)
        self.book = module.LimitOrderBook(on_trade=self.trades.append)

    def limit(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.book.limit, (self.sides[side], number, quantity, price)

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._ioc, (self.sides[side], number, quantity, price)

    def _ioc(self, side: object, number: int, quantity: int, price: int) -> None:
        if self.book.limit(side, number, quantity, price) < quantity:
            self.book.cancel(number)

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self.book.market, (self.sides[side], number, quantity)

    def cancel(self, number: int) -> Call:
        return self.book.cancel, (number,)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._move, (self.sides[side], number, quantity, price)

    def _move(self, side: object, number: int, quantity: int, price: int) -> None:
        self.book.cancel(number)
        self.book.limit(side, number, quantity, price)

    def ended(self, ids: Iterable[int]) -> Ended:
        return Ended(
            fills((t.maker_id, t.taker_id, t.price, t.quantity) for t in self.trades),
            frozenset(number for number in ids if self.book.has(number)),
            (self.book.volume_buy(), self.book.volume_sell()),
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """A distribution, the one version that is driven, and its driver."""

    name: str
    version: str
    driver: type[Driver]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def open(self) -> Driver:
        """An empty book.

        Raises:
            NotDriven: it is not installed, in another version, or cannot be loaded here.
        """
        try:
            installed = metadata.version(self.name)
        except metadata.PackageNotFoundError as error:
            raise NotDriven("not installed") from error
        if installed != self.version:
            raise NotDriven(f"version {installed} is installed, {self.version} is driven")
        try:
            return self.driver()
        except (ImportError, OSError) as error:
            raise NotDriven(f"cannot be loaded: {error}") from error


# `pyproject.toml` pins the same versions in its extra `peers`, lumina-lob apart: see there.
PEERS = (
    Peer("cython-orderbook", "0.1.2", CythonOrderbook),
    Peer("limit-order-book", "2.0.0", LimitOrderBook),
    Peer("lumina-lob", "0.1.4", LuminaLob),
    Peer("orderly-chaos", "0.2.0", OrderlyChaos),
)


def compare(got: Ended, want: Ended) -> None:
    """Hold a peer to the reference book.

    Raises:
        NotDriven: they differ; the text names in what.
    """
    if got.fills is not None and got.fills != want.fills:
        raise NotDriven(f"disagrees: {got.fills} is not {want.fills}")
    if got.resting != want.resting:
        raise NotDriven(f"disagrees: {len(got.resting ^ want.resting)} orders rest in one book alone")
    if got.open != want.open:
        raise NotDriven(f"disagrees: open quantity {got.open} is not {want.open}")
