"""After a fault: is everything as the clients were told? It knows their history, the journal and the readers' copies.

resolve      each unknown command has one outcome, told outcomes stand, what never came is poisoned and never comes
journal      by a reader that shares no line with the exchange: whole, and every ack of an order or a cancel has its
             record, with the chain word that was told
             replayed: money sums to zero; no client id is accepted twice; fill ids are unique; no order is filled
             beyond its size; what was told to be cancelled is; the state is the one the running core has
             every ref moved what it says once, as it was answered, or nothing at all; every fill that a trader was
             told is there, and it was told every one of its own, each once
             orders that were to end with their session did, and no other for that reason: see sessions
chain        by its own events: see vaults
readers      PostgreSQL's balances, market data's queue of every order, settlement's batches without gap or halt
backup       has all that the core had when it was asked; at the end it is restored, and read by the same other reader
             once all processes are dead, with this machine so to say, it has all that the chain has seen of settlement
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import numpy as np

from byline.client import TradingClient
from byline.client.market_data import MarketDataClient
from byline.operator import open_operator
from byline.summary import read_projection
from engine.messages.codes import EventKind
from engine.messages.errors import ExchangeError
from persistence.backup import Objects
from persistence.beside import durable_sequence, read_beside
from persistence.disk import DirectoryDisk
from persistence.recovery import Replayer
from persistence.restore import restore
from settlement.appendlog import AppendLog
from settlement.batch import Sealed, SignedPart, StoredEvent
from settlement.chain.encoding import base58_text
from settlement.chain.localsui.state import Record, Turn
from tests.faults.load import ASSETS, LOST, MARKETS, Moved, Trader
from tests.faults.purse import Purse
from tests.faults.sessions import NOTICED_S, check_sessions
from tests.faults.told import EXTERNAL, Events, Fill, Leg
from tests.faults.vaults import DEPOSIT, Vaults, check_chain, check_end
from tests.simulation.journal_reader import JournalRead, Unsound, read_journal
from tests.support.exchange import ExchangeProcess
from tests.support.waiting import HANG_S, until

__all__ = [
    "Audit", "audit", "check_backup", "check_chain_in_backup", "replay_durable", "resolve_unknown", "settled",
]  # fmt: skip

T = TypeVar("T")
TICK, LOT = Decimal("0.01"), Decimal("0.01")
"""Of every market, as genesis lists it."""
HEAR_S = 60
"""How long traders may take to hear the last of their fills."""
SETTLED_S = 60.0
"""How long money may take to where it belongs, while settlement says that it is through with its batches."""
BATCHES_WAITING = 2
"""One that was just cut, and one that is on its way."""
LOOK_S = 5.0
"""At the latest after that the chain and the journal are looked at again."""
_ENDS = (EventKind.POSTED, EventKind.VOIDED)


@dataclass
class Audit:
    """What was checked, and what did not hold."""

    commands: int = 0
    resolved: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    """Orders that went with their session."""
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            self.failures.append(text)


async def resolve_unknown(traders: list[Trader], result: Audit) -> None:
    """Settles what became of each command without an answer, by the exchange's own word: a ref is sent again."""
    for trader in traders:
        for ref in [ref for ref, moved in trader.money.items() if moved.outcome == "unknown"]:
            await _until_answered(trader, ref)
            result.resolved[f"ref {trader.money[ref].outcome}"] += 1
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
    return await _asked(trader, lambda client: client.resolve(client_id))


async def _until_answered(trader: Trader, ref: str) -> None:
    while trader.money[ref].outcome == "unknown":
        await _asked(trader, lambda client: trader.move(client, ref))


async def _asked(trader: Trader, ask: Callable[[TradingClient], Awaitable[T]]) -> T:
    for _ in range(200):
        try:
            return await ask(await trader.connected())
        except LOST:
            await trader.drop()
            await asyncio.sleep(0.1)
    raise AssertionError(f"{trader.name} finds no session")


async def _sessions_noticed(trader: Trader) -> None:
    """Waits until none of its orders is open that this life of the core took over another session: those of lives
    before went at the start. If one stays, `check_sessions` tells."""
    deadline = time.monotonic() + NOTICED_S
    while time.monotonic() < deadline:
        listed = await _asked(trader, lambda client: client.open_orders())
        sessions = {trader.history[order["client_id"]].session for order in listed} - {trader.session}
        if all(life != trader.session[0] for life, _ in sessions):
            return
        await asyncio.sleep(0.05)


async def audit(
    exchange: ExchangeProcess, traders: list[Trader], purses: list[Purse], vaults: Vaults, result: Audit, *,
    at_end: bool = False,
) -> None:  # fmt: skip
    """All checks, while every trader is idle and every process is up. `at_end`: nothing of the purses is under way."""
    await resolve_unknown(traders, result)
    for trader in traders:
        if trader.ends:
            await _sessions_noticed(trader)
    await vaults.read()
    before = replace(vaults, events=list(vaults.events))
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
    check_deeds(journal, traders, result)
    check_sessions(journal, set(core.open_orders()["order_id"].tolist()), traders, result)
    await _fills(journal, traders, result)
    await vaults.read()
    check_chain(before, journal, vaults, result)
    check_documents(journal, vaults, purses, result)
    if at_end:
        check_end(before, journal, result)
        await _wallets(vaults, purses, result)
    await _readers(exchange, core, result)


async def settled(exchange: ExchangeProcess, purses: list[Purse], vaults: Vaults, result: Audit) -> None:
    """Waits until all money is where it belongs, or settlement has halted. What is not after SETTLED_S is told.

    To look costs a reading of the chain and a replay: it waits for settlement to say that it is through, but not long.
    """
    disk, looked, began = DirectoryDisk(exchange.data), 0.0, time.monotonic()
    behind = began
    while True:
        if (settlement := exchange.status("backoffice")["settlement"]).get("halted"):
            return
        now, found = time.monotonic(), Audit()
        if not (is_through := settlement.get("pending_batches", 0) <= BATCHES_WAITING):
            behind = now
        is_over = all([await purse.follow() for purse in purses])
        found.check(is_over, f"withdrawals of {[purse.name for purse in purses if purse.open_ones()]} are under way")
        is_late = now > behind + SETTLED_S or now > began + HANG_S
        if is_late or (is_over and (is_through or now > looked + LOOK_S)):
            looked = now
            await vaults.read()
            before = replace(vaults, events=list(vaults.events))
            _, journal = await _replayed(exchange, durable_sequence(disk))
            check_end(before, journal, found)
            if not found.failures:
                return
        if is_late:
            result.failures += [f"not settled after {now - began:.0f} s: {text}" for text in found.failures]
            return
        await asyncio.sleep(0.3)


def check_backup(exchange: ExchangeProcess, store: str, directory: Path, result: Audit) -> int:
    """Behind the end of the exchange: what is restored is the whole journal, to its last record. Returns how many."""
    status = exchange.status("core")
    try:
        restore(Objects(store), directory)
        records = read_journal({path.name: path.read_bytes() for path in (directory / "journal").glob("*.journal")})
    except (ExchangeError, Unsound) as error:
        result.check(False, f"the backup cannot be restored: {type(error).__name__}: {error}")
        return 0
    last = records.records[-1]
    found, wanted = f"{last.sequence} {last.chain:016x}", f"{status['sequence']} {status['chain']}"
    result.check(found == wanted, f"the backup ends with {found}, the journal with {wanted}")
    return len(records.records)


def check_chain_in_backup(chain: Path, store: str, directory: Path, result: Audit) -> int:
    """If this machine were lost now: each batch of which a part stands on `chain` (a directory of LocalSui, which is
    down) is in the store, with its cut and the bytes that were signed. `directory`: an empty one to restore into.
    Returns how many such transactions the chain has."""
    entries = islice(AppendLog.peek(chain / "transactions.log"), 1, None)  # behind its genesis
    records = (msgspec.msgpack.decode(entry, type=Record | Turn) for entry in entries)
    done = {
        base58_text(record.digest): int.from_bytes(event.contents[32:40], "little")  # behind the vault
        for record in records if isinstance(record, Record)
        for event in record.events if event.name == "BatchCommitted"
    }  # fmt: skip
    try:
        sequence = restore(Objects(store), directory).sequence
    except ExchangeError as error:
        result.check(not done, f"{len(done)} transactions of batches are on the chain, and no backup is: {error}")
        return len(done)
    path = directory / "settlement" / "batches.log"
    steps = AppendLog.peek(path) if path.exists() else ()
    events = [msgspec.msgpack.decode(step, type=StoredEvent) for step in steps]
    signed = {event.signed.digest for event in events if isinstance(event, SignedPart)}
    cuts = {event.batch.number: event.batch.last_sequence for event in events if isinstance(event, Sealed)}
    for digest, batch in done.items():
        result.check(digest in signed, f"batch {batch} is on the chain by {digest}: the backup knows of no such bytes")
        cut = cuts.get(batch, 1 << 63)
        result.check(cut <= sequence, f"batch {batch}, cut at {cut}, is on the chain: the backup ends with {sequence}")
    return len(done)


def check_deeds(journal: Events, traders: list[Trader], result: Audit) -> None:
    """Each ref acted at most once, and as its owner was told; nobody but an owner used one of ours."""
    for ref, deeds in journal.deeds.items():
        kinds = [kind for kind, _, _ in deeds]
        begun = sum(kind in (EventKind.TRANSFERRED, EventKind.PENDED) for kind in kinds)
        ended = sum(kind in _ENDS for kind in kinds)
        result.check(begun <= 1 and ended <= 1, f"ref {ref} acted more than once: {[kind.name for kind in kinds]}")
        result.check(
            EventKind.POSTED not in kinds or EventKind.PENDED in kinds, f"ref {ref} is posted and was never held"
        )
    for trader in traders:
        for ref, moved in trader.money.items():
            result.check(not moved.lies, f"ref {ref}: {moved.lies[:1]}")
            found = [deed for deed in journal.deeds.get(ref, []) if deed[0] not in _ENDS]
            if moved.outcome in ("moved", "held"):
                kind = EventKind.TRANSFERRED if moved.outcome == "moved" else EventKind.PENDED
                wanted = [(kind, moved.sequence, legs_of(moved))]
                result.check(found == wanted, f"ref {ref}: told {wanted}, the journal has {found}")
            else:
                result.check(not found, f"ref {ref}: told {moved.outcome}, the journal has {found}")
        strangers = {ref for ref in journal.deeds if ref.startswith(f"{trader.name}:")} - trader.money.keys()
        result.check(not strangers, f"refs of {trader.name} that it never sent: {sorted(strangers)[:3]}")


def legs_of(moved: Moved) -> list[Leg]:
    """What must be posted, by the rulebook: parts by weight, what is left one unit each to the largest remainders."""
    command = moved.command
    if command["op"] == "withdraw":
        return [(command["account"], command["asset"], _units(command), EXTERNAL)]
    (leg,) = command["legs"]
    source, asset, units = leg["from"], leg["asset"], _units(leg)
    if "to" in leg:
        return [(source, asset, units, leg["to"])]
    total = sum(share["weight"] for share in leg["shares"])
    parts = [units * share["weight"] // total for share in leg["shares"]]
    order = sorted(range(len(parts)), key=lambda n: -(units * leg["shares"][n]["weight"] % total))
    for number in order[: units - sum(parts)]:
        parts[number] += 1
    return [(source, asset, part, share["to"]) for part, share in zip(parts, leg["shares"], strict=True) if part]


def _units(said: dict[str, Any]) -> int:
    return int(Decimal(said["amount"]).scaleb(ASSETS[said["asset"]]))


async def _fills(journal: Events, traders: list[Trader], result: Audit) -> None:
    """What is told late is waited for: it comes by itself, or never."""
    deadline = time.monotonic() + HEAR_S
    for trader in traders:
        mine = {key: fill for key, fill in journal.fills.items() if fill[0] == trader.account}
        await _asked(trader, lambda client: client.ping())
        with contextlib.suppress(AssertionError):
            await until(lambda own=mine, of=trader: own.keys() <= of.fills.keys(), deadline - time.monotonic())
        untold = mine.keys() - trader.fills.keys()
        result.check(
            not untold,
            f"{trader.name} was not told of {len(untold)} of its {len(mine)} fills: {min(untold, default=0)}",
        )
        for key, event in trader.fills.items():
            told = fill_of(event, key[2])
            result.check(
                mine.get(key) == told, f"{trader.name} was told of {key}: {told}; the journal has {mine.get(key)}"
            )
        twice = [key for key, count in trader.fills_twice.items() if count > 1]
        result.check(not twice, f"{trader.name} was told twice on one connection of {twice[:3]}")


def fill_of(event: dict[str, Any], order: int) -> Fill:
    """A `trade` as the wire tells it, as the journal has it."""
    who = "maker" if event.get("maker_order_id") == order else "taker"
    return (
        event[f"{who}_account"], int(Decimal(event["price"]) / TICK), int(Decimal(event["size"]) / LOT),
        int(Decimal(event[f"{who}_leaves"]) / LOT), int(Decimal(event[f"{who}_fee"]).scaleb(ASSETS["USDC"])),
    )  # fmt: skip


def check_documents(journal: Events, vaults: Vaults, purses: list[Purse], result: Audit) -> None:
    """What REST told of withdrawals, and the chain of deposits, is what became of them."""
    paid, arrived = vaults.paid(), Counter(event.digest for event in vaults.arrivals())
    held = {
        (asset, journal.rows.get(source), units): ref
        for ref, deeds in journal.deeds.items()
        for kind, _, legs in deeds if kind == EventKind.PENDED
        for source, asset, units, _ in legs
    }  # fmt: skip
    for purse in purses:
        row = bytes.fromhex(purse.key.address[2:])
        for out in purse.outs:
            payment = out.asset, row, out.units
            digests = [event.digest for event in paid.get(payment, [])]
            what = f"{purse.name}: withdrawal {out.key} of {out.amount} {out.asset}, told {out.status}"
            if out.status == "settled":
                result.check(digests == [out.document["digest"]], f"{what} in {out.document['digest']}: {digests}")
            elif out.status in ("canceled", "failed", "refused") or out.is_called_off:
                result.check(not digests, f"{what}, was paid by {digests}")
            if out.status not in ("unknown", "requested", "failed", "refused"):
                result.check(held.get(payment) == out.document["ref"], f"{what}: the core held {held.get(payment)}")
        for paid_in in purse.ins:
            if paid_in.digest:
                result.check(
                    arrived[paid_in.digest] == 1,
                    f"{purse.name}: deposit {paid_in.digest} of {paid_in.amount} {paid_in.asset} is "
                    f"{arrived[paid_in.digest]} times on the chain",
                )


async def _wallets(vaults: Vaults, purses: list[Purse], result: Audit) -> None:
    """Each wallet owns what was paid to it: it had nothing, and deposits are of coins made for them."""
    paid = vaults.paid()
    for purse in purses:
        result.check(await purse.follow(), f"{purse.name} has withdrawals that are never over")
        row = bytes.fromhex(purse.key.address[2:])
        for asset in ASSETS:
            owned = await vaults.coins(asset, purse)
            wanted = sum(units for of, to, units in paid if (of, to) == (asset, row))
            result.check(owned == wanted, f"{purse.name} owns {owned} units of {asset} and was paid {wanted}")
        booked = {ref.rpartition(":")[0].removeprefix(DEPOSIT): units for ref, _, units in await purse.booked()}
        for paid_in in purse.ins:
            if paid_in.digest:
                told = booked.get(paid_in.digest)
                is_shown = told is not None and Decimal(told) == Decimal(paid_in.amount)
                result.check(is_shown, f"{purse.name}: deposit {paid_in} is shown as {told}")


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


async def _replayed(exchange: ExchangeProcess, to: int) -> tuple[Any, Events]:
    """A replay up to this sequence, once it is durable."""
    disk = DirectoryDisk(exchange.data)
    await until(lambda: durable_sequence(disk) >= to, 120, f"sequence {to} to be durable")
    return await asyncio.to_thread(replay_durable, disk, to)


def replay_durable(disk: DirectoryDisk, to: int | None = None) -> tuple[Any, Events]:
    """The core behind `to`, or the last durable record, of a journal being written, and what its events said."""
    journal = Events()
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
    def office() -> dict[str, Any]:
        return exchange.status("backoffice")

    def shipped() -> bool:
        return int(exchange.status("backup").get("shipped_sequence", 0)) >= core.sequence

    await until(shipped, 120, f"sequence {core.sequence} in the backup")
    await until(lambda: office().get("projection", {}).get("sequence", 0) >= core.sequence, 120, "the projection")
    try:
        projection = await read_projection(exchange.status("postgres")["url"])
    except (OSError, asyncpg.PostgresError) as error:
        result.check(False, f"PostgreSQL: {error}")
        return
    # Bookings of the chain and cuts go on: the core as of what PostgreSQL has.
    core, _ = await _replayed(exchange, max(core.sequence, projection.sequence))
    expected = {
        (int(row["account"]), int(row["asset"])): (int(row["available"]), int(row["held"]))
        for row in core.balances()
        if row["available"] or row["held"]
    }
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
        for market in MARKETS:
            book = await client.subscribe_orders(market)
            same = await _becomes(client, book, _book_of(core, market))
            result.check(same, f"market data has another book of {market} than the journal")


def _book_of(core: Any, market: str) -> Counter[tuple[str, int, int]]:
    """Side, price in ticks and leaves in lots of every order in a market, however many there are of a kind."""
    rows = core.open_orders()
    rows = rows[rows["market"] == core.market_index(market)]
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
