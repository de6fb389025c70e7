"""After a fault: is everything as the clients were told? It knows their history, the journal and the readers' copies.

    resolve      each unknown command has one outcome, told outcomes stand, what never came is poisoned and never comes
    journal      by a reader that shares no line with the exchange: whole, and every ack of an order or a cancel has its
                 record, with the chain word that was told
                 replayed: money sums to zero; no client id is accepted twice; fill ids are unique; no order is filled
                 beyond its size; what was told to be cancelled is; the state is the one the running core has
    readers      PostgreSQL's balances, market data's queue of every order, settlement's batches without gap or halt
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg
import numpy as np
import numpy.typing as npt

from byline.client.market_data import MarketDataClient
from byline.operator import open_operator
from byline.summary import read_projection
from engine.messages import layout
from engine.messages.codes import EventKind
from persistence.beside import durable_sequence, read_beside
from persistence.disk import DirectoryDisk
from persistence.recovery import Replayer
from tests.faults.load import LOST, MARKET, Trader
from tests.simulation.journal_reader import JournalRead, Unsound, read_journal
from tests.support.exchange import ExchangeProcess, until

__all__ = ["Audit", "audit", "replay_durable", "resolve_unknown"]

TICK, LOT = Decimal("0.01"), Decimal("0.01")
"""Of the market, as genesis lists it."""


@dataclass
class Audit:
    """What was checked, and what did not hold."""

    commands: int = 0
    resolved: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            self.failures.append(text)


@dataclass
class _Journal:
    """What the events of a whole replay say, found without any code of the exchange but the layout."""

    accepted: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    filled: Counter[int] = field(default_factory=Counter)
    trades: Counter[tuple[int, int]] = field(default_factory=Counter)
    canceled: set[int] = field(default_factory=set)
    commands: int = 0

    def take(self, events: npt.NDArray[np.void], first: int, last: int) -> None:
        self.commands += last - first + 1
        kinds, slots, at = events["kind"].tolist(), events["slots"].tolist(), 0
        heads: dict[int, list[int]] = {EventKind.ACCEPTED: [], EventKind.TRADE: [], EventKind.CANCELED: []}
        while at < len(kinds):
            if kinds[at] in heads:
                heads[kinds[at]].append(at)
            at += max(1, slots[at])
        accepted = events.view(layout.ACCEPTED)[heads[EventKind.ACCEPTED]]
        for name, order, size, flags in accepted[["client_id", "order_id", "size", "flags"]].tolist():
            self.accepted.setdefault(name.decode(), []).append(order)
            if not flags & layout.PlaceFlag.BUDGET:
                self.sizes[order] = size
        self.canceled.update(events.view(layout.CANCELED)[heads[EventKind.CANCELED]]["order_id"].tolist())
        trades = events.view(layout.TRADE)[heads[EventKind.TRADE]]
        fields = ["market", "trade_id", "maker_order_id", "taker_order_id", "size"]
        for market, trade, maker, taker, size in trades[fields].tolist():
            self.trades[market, trade] += 1
            self.filled[maker] += size
            self.filled[taker] += size


async def resolve_unknown(traders: list[Trader], result: Audit) -> None:
    """Settles what became of each command without an answer, by the exchange's own word."""
    for trader in traders:
        for client_id, told in trader.history.items():
            if told.is_settled:
                continue
            answer = await _resolved(trader, client_id)
            if answer["outcome"] == "never_received":
                client = await trader.connected()
                await client.poison(client_id)  # a packet of it may still be on its way: from now on it never executes
                told.outcome = "never"
            elif answer["outcome"] in ("accepted", "final"):
                told.outcome, told.order_id = "accepted", int(answer["order_id"])
            else:
                told.outcome = str(answer["outcome"])
            told.is_settled = True
            result.resolved[told.outcome] += 1


async def _resolved(trader: Trader, client_id: str) -> dict[str, Any]:
    for _ in range(200):
        try:
            return await (await trader.connected()).resolve(client_id)
        except LOST:
            await trader.drop()
            await asyncio.sleep(0.1)
    raise AssertionError(f"{trader.name} finds no session")


async def audit(exchange: ExchangeProcess, traders: list[Trader], result: Audit) -> None:
    """All checks, while every trader is idle and every process is up."""
    await resolve_unknown(traders, result)
    async with open_operator(exchange.settings) as operator:
        status = await operator.status()
    core, journal = await _replayed(exchange, status["sequence"])
    result.commands = journal.commands
    result.check(core.state_hash().hex() == status["state_hash"], f"replayed to {core.sequence}: another state")
    await _acks(exchange, traders, result)
    core.check()
    _sums(core, result)
    for client_id, orders in journal.accepted.items():
        result.check(len(orders) == 1, f"client id {client_id} was accepted {len(orders)} times: {orders}")
    for trader in traders:
        for client_id, told in trader.history.items():
            found = journal.accepted.get(client_id)
            if told.outcome == "accepted":
                result.check(found == [told.order_id], f"{client_id}: told order {told.order_id}, journal has {found}")
            else:
                result.check(found is None, f"{client_id}: told {told.outcome}, the journal has order {found}")
        gone = trader.canceled - journal.canceled
        result.check(not gone, f"orders told to be cancelled that are not: {sorted(gone)[:3]}")
    doubled = [trade for trade, count in journal.trades.items() if count > 1]
    result.check(not doubled, f"trade ids twice: {doubled[:3]}")
    over = [order for order, filled in journal.filled.items() if filled > journal.sizes.get(order, 1 << 62)]
    result.check(not over, f"orders filled beyond their size: {over[:3]}")
    await _readers(exchange, core, result)


async def _acks(exchange: ExchangeProcess, traders: list[Trader], result: Audit) -> None:
    """Every answer has its record, with the chain word that was told: by the simulator's own reader of the files."""

    def read() -> JournalRead:
        return read_journal({path.name: path.read_bytes() for path in (exchange.data / "journal").glob("*.journal")})

    try:
        records = (await asyncio.to_thread(read)).records
    except Unsound as error:
        result.check(False, f"the journal is not sound: {error}")
        return
    for trader in traders:
        for sequence, chain in trader.acks.items():
            found = f"{records[sequence - 1].chain:016x}" if sequence <= len(records) else "no record"
            result.check(found == chain, f"{trader.name} was acked {sequence} with {chain}; the journal has {found}")


async def _replayed(exchange: ExchangeProcess, to: int) -> tuple[Any, _Journal]:
    """A replay up to this sequence, once it is durable."""
    disk = DirectoryDisk(exchange.data)
    await until(lambda: durable_sequence(disk) >= to, 120, f"sequence {to} to be durable")
    return await asyncio.to_thread(replay_durable, disk, to)


def replay_durable(disk: DirectoryDisk, to: int | None = None) -> tuple[Any, _Journal]:
    """The core behind `to`, or the last durable record, of a journal being written, and what its events said."""
    journal = _Journal()
    replayer = Replayer(journal.take)
    read_beside(disk, replayer.apply, to=durable_sequence(disk) if to is None else to)
    return replayer._replay.core, journal


def _sums(core: Any, result: Audit) -> None:
    rows = core.balances()
    for asset in np.unique(rows["asset"]).tolist():
        mine = rows[rows["asset"] == asset]
        total = sum(mine["available"].tolist()) + sum(mine["held"].tolist())
        result.check(total == 0, f"asset {asset} sums to {total}, not to zero")


async def _readers(exchange: ExchangeProcess, core: Any, result: Audit) -> None:
    expected = {
        (int(row["account"]), int(row["asset"])): (int(row["available"]), int(row["held"]))
        for row in core.balances()
        if row["available"] or row["held"]
    }

    def office() -> dict[str, Any]:
        return exchange.status("backoffice")

    await until(lambda: office().get("projection", {}).get("sequence", 0) >= core.sequence, 120, "the projection")
    try:
        projection = await read_projection(exchange.status("postgres")["url"])
    except (OSError, asyncpg.PostgresError) as error:
        result.check(False, f"PostgreSQL: {error}")
        return
    result.check(projection.balances == expected, "PostgreSQL's balances are not those of the journal")
    numbers = [batch["number"] for batch in projection.batches]
    result.check(numbers == list(range(1, len(numbers) + 1)), f"batches have gaps: {numbers[-9:]}")
    follows = [
        before["last_sequence"] + 1 == batch["first_sequence"]
        for before, batch in zip(projection.batches, projection.batches[1:], strict=False)
    ]
    result.check(all(follows), "batches do not follow each other without a gap")
    result.check(not office()["settlement"].get("halted"), f"settlement halted: {office()['settlement'].get('halted')}")
    market = exchange.status("marketdata")
    async with MarketDataClient(f"ws://{market['host']}:{market['port']}/v1/ws") as client:
        book = await client.subscribe_orders(MARKET)
        wanted = _book_of(core)
        result.check(await _becomes(client, book, wanted), "market data has another book than the journal")


def _book_of(core: Any) -> Counter[tuple[str, int, int]]:
    """Side, price in ticks and leaves in lots of every order in the market, however many there are of a kind."""
    rows = core.open_orders()
    rows = rows[rows["market"] == core.market_index(MARKET)]
    words = ("buy", "sell")
    return Counter((words[int(row["side"])], int(row["price"]), int(row["leaves"])) for row in rows)


async def _becomes(client: MarketDataClient, book: Any, wanted: Counter[tuple[str, int, int]]) -> bool:
    """Waits until the book has every order that the journal has, and no other."""

    def same() -> bool:
        mine = Counter(
            (side, int(Decimal(price) / TICK), int(Decimal(size) / LOT)) for side, price, size in book.orders.values()
        )
        return bool(book.ready) and mine == wanted

    async def follow() -> None:
        async for _ in client:
            if same():
                return

    if same():
        return True
    try:
        await asyncio.wait_for(follow(), 60)
    except TimeoutError:
        return same()
    return True
