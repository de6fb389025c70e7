"""The projector: follows the events and keeps PostgreSQL up to date, exactly once.

    read a batch of events ▸ fold it into rows (fold.py) ▸ one transaction: upserts and the new checkpoint

The checkpoint (last sequence) is written in the same transaction as the rows, so a crash between any two steps repeats
nothing and leaves nothing out. With it stands the journal's chain word of that sequence, and rows are written only when
that word is known: a journal that was cut, or restored without its last records, and has gone on is told from the one
that the rows are of, however far both have come. After any database error the state in memory is thrown away, read
again from the tables and the event source set back to the checkpoint. While PostgreSQL is away the events wait in their
log; nothing else waits for this process. `exchange` and `settlement` hold projections alone: wiped and rebuilt, they
come out the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from engine.messages.codes import (
    AccountStatus,
    CommandKind,
    OrderStatus,
    OrderType,
    Overdraft,
    Phase,
    Side,
    TimeInForce,
)
from engine.messages.directory import AccountEntry, AssetEntry, Directory, MarketEntry
from engine.messages.ports import EventSource
from persistence.stores.postgres.fold import Fold, Order, Rows

__all__ = ["Projector", "ProjectorSettings"]

logger = logging.getLogger(__name__)

NAME = "exchange"
_SYSTEM_ACCOUNTS = (0, 1)
_EPOCH = "timestamptz 'epoch' + {} * interval '1 microsecond'"
_MARKET_NUMBERS = (
    "tick", "tick_decimals", "lot", "lot_decimals", "min_size", "max_size", "max_price", "taker_ppm", "maker_ppm",
    "k", "u", "entry_band_ppm", "exec_band_ppm", "pause_ns", "reference_price",
)  # fmt: skip
_DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # told that the server goes down, before its end of the line
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class ProjectorSettings:
    """`batch_slots_max` bounds one transaction; `poll_s` is the wait when there is nothing to do."""

    batch_slots_max: int = 16_384
    poll_s: float = 0.02
    retry_s: float = 0.5
    command_timeout_s: float = 30.0


class Words(Protocol):
    """The journal behind the events: `persistence.chain_words`."""

    def word(self, sequence: int) -> int | None:
        """Chain word of a record; None: the journal does not reach so far."""


class _AnotherHistory(Exception):
    """The rows are not those that this process wrote, or are to go, and it has told its batches already."""


class Projector:
    """One writer of the projection tables. `run` until told to stop; `store_batch` may be called meanwhile."""

    def __init__(
        self, source: EventSource, dsn: str, settings: ProjectorSettings | None = None, *, journal: bytes = b"",
        words: Words | None = None, rebuild: Path | None = None,
    ) -> None:  # fmt: skip
        """`journal` is the identity of the journal behind `source`: rows of another one are wiped and built anew, as
        are those of records that `words` does not know, or knows otherwise.

        `rebuild`: a file that asks for the same while it exists; it is removed when the rows are gone for good.
        """
        self._source = source
        self._journal = journal
        self._words = words
        self._generation = 0
        """Of the event log that is followed, where it has one: a new one may come from another history."""
        self._held: Rows | None = None
        """Folded, and not yet written: the word of their last record is not known."""
        self._rebuild = rebuild
        self._dsn = dsn
        self._settings = settings or ProjectorSettings()
        self._connection: asyncpg.Connection | None = None
        self._fold = Fold(Directory())
        self._batches: dict[int, Mapping[str, Any]] = {}  # at most what the settler reports while we are down
        self._kept = 0
        """Of the rows that batches were told by: those found first, then the last transaction with batches, which was
        on disk. A database that has less was restored."""
        self.begun = asyncio.Event()
        """The rows have been found, or wiped, and `final_batches` is known."""
        self.final_batches = 0
        """Every batch up to this number stood in the rows as final when they were found: it need not be told again."""
        self.sequence = 0
        self.event_count = 0
        self.transaction_count = 0
        self.last_error = ""

    def status(self) -> dict[str, Any]:
        """For `byline status`: where the projection is and how far behind."""
        head = self._source.head_sequence
        return {
            "sequence": self.sequence, "lag": max(0, head - self.sequence), "events": self.event_count,
            "transactions": self.transaction_count, "connected": self._connection is not None,
            "last_error": self.last_error,
        }  # fmt: skip

    def store_batch(self, record: Mapping[str, Any]) -> None:
        """Takes the newest state of a settlement batch; it is written with the next transaction.

        Fields: number, first_sequence, last_sequence, cut_at_ns, status, state_hash, root, trades_digest, leg_count,
        digests, committed_at_ns or None, error or None, file (bytes; empty: as it was).
        """
        self._batches[int(record["number"])] = dict(record)

    async def run(self, stop: asyncio.Event) -> None:
        """Projects until `stop` is set, reconnecting as often as it takes.

        Ends before when the rows turn out to be of another history, or of an older backup, or are to be built anew: the
        next start sees to it, and has all batches told again that are missing then.
        """
        while not stop.is_set():
            try:
                await self._connect()
                while not stop.is_set():
                    if not await self.step():
                        await _wait(stop, self._settings.poll_s)
            except _AnotherHistory:
                return
            except _DATABASE_ERRORS as error:
                self.last_error = f"{type(error).__name__}: {error}"
                logger.warning("event=projection_waits sequence=%d error=%s", self.sequence, self.last_error)
                await self.close()
                await _wait(stop, self._settings.retry_s)
        await self.close()

    async def close(self) -> None:
        """Drops the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(*_DATABASE_ERRORS):  # it is being thrown away, often because it is broken
                await connection.close(timeout=1)

    async def step(self) -> bool:
        """One batch. False: there was nothing to do."""
        if self._connection is None:
            await self._connect()
        assert self._connection is not None
        rows, self._held = self._held or self._next_rows(), None
        if rows is None:
            return False
        chain = await self._word(rows.sequence)
        if self._source_generation() != self._generation:  # asked after the word: so that is of the log that was read
            await self.close()
            return True
        if self._words is not None and chain is None:
            self._held = rows
            return False
        batches = dict(self._batches)
        async with self._connection.transaction():
            await self._write(self._connection, rows, batches, chain)
        self._kept = rows.sequence if batches else self._kept
        for number, record in batches.items():
            if self._batches.get(number) is record:
                del self._batches[number]
        self.sequence = rows.sequence
        self.event_count += rows.event_count
        self.transaction_count += 1
        self.last_error = ""
        return True

    # ------------------------------------------------------------------------------------------------------------

    def _next_rows(self) -> Rows | None:
        """What there is to write; None: nothing."""
        # The head comes first: what is published between the two reads must not count as read.
        head = self._source.head_sequence
        slots = self._source.read(self._settings.batch_slots_max)
        if len(slots):
            return self._fold.take(slots)
        # Without slots there may still be commands, ones that made no events.
        return Rows(sequence=max(head, self.sequence)) if self._batches or head > self.sequence else None

    def _source_generation(self) -> int:
        return int(getattr(self._source, "generation", 0))

    async def _word(self, sequence: int) -> bytes | None:
        word = await asyncio.to_thread(self._words.word, sequence) if self._words is not None else None
        return None if word is None else word.to_bytes(8, "little")

    async def _is_foreign(self, row: Any) -> bool:
        """Whether the rows are of another journal or history: never to be mixed with this one's."""
        if row["journal"] != self._journal:
            return True
        if self._words is None or row["chain"] is None:  # commands that a crash in mode `memory` took back
            return bool(row["sequence"] > self._source.head_sequence)
        return bool(await self._word(row["sequence"]) != row["chain"])

    async def _connect(self) -> None:
        if self._connection is not None:
            return
        connection = await asyncpg.connect(self._dsn, command_timeout=self._settings.command_timeout_s, timeout=5)
        try:
            await connection.execute("SET synchronous_commit = off")
            row = await connection.fetchrow(
                "SELECT sequence, journal, chain FROM exchange.projection WHERE name = $1", NAME
            )
            self._generation = self._source_generation()
            reached = row["sequence"] if row else 0
            is_foreign = bool(row and await self._is_foreign(row))
            if self.begun.is_set() and (is_foreign or reached < self._kept):
                logger.warning("event=projection_of_another_history sequence=%d", reached)
                raise _AnotherHistory
            if self.begun.is_set() and self._rebuild is not None and self._rebuild.exists():
                raise _AnotherHistory
            if is_foreign:
                logger.warning("event=projection_wiped sequence=%d", reached)
                await connection.execute(_WIPE)
                row = None
            if self._rebuild is not None and self._rebuild.exists():
                logger.warning("event=projection_wiped sequence=%d reason=rebuild", row["sequence"] if row else 0)
                async with connection.transaction():
                    await connection.execute("SET LOCAL synchronous_commit = on")
                    await connection.execute(_WIPE)
                self._rebuild.unlink()
                row = None
            self._fold = await _load(connection)
            self._held = None
            self.sequence = row["sequence"] if row else 0
            if not self.begun.is_set():
                self.final_batches, self._kept = await connection.fetchval(_FINAL_BATCHES), self.sequence
        except BaseException:
            connection.terminate()
            raise
        self._source.seek(self.sequence)
        self._connection = connection
        self.begun.set()
        logger.info("event=projection_connected sequence=%d", self.sequence)

    async def _write(
        self, connection: asyncpg.Connection, rows: Rows, batches: Mapping[int, Mapping[str, Any]],
        chain: bytes | None,
    ) -> None:  # fmt: skip
        if rows.definitions:
            await _write_definitions(connection, self._fold.directory, rows.definitions)
        if rows.phases:
            markets = self._fold.directory.markets
            await connection.executemany(
                "UPDATE exchange.market SET phase = $2 WHERE id = $1",
                [(index, markets[index].phase.word) for index in rows.phases],
            )
        if rows.orders:
            await _write_orders(connection, list(rows.orders.values()))
        if rows.trades:
            await connection.execute(_INSERT_TRADES, *_columns(rows.trades))
        if rows.postings:
            await connection.execute(_INSERT_POSTINGS, *_columns(rows.postings))
        if rows.balances:
            balances = self._fold.balances
            table = [(*key, *balances[key], rows.sequence) for key in rows.balances]
            await connection.execute(_UPSERT_BALANCES, *_columns(table))
        if rows.candles:
            table = [
                (*key[:2], key[2] * 1_000_000, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count)
                for key, c in rows.candles.items()
            ]
            await connection.execute(_UPSERT_CANDLES, *_columns(table))
        if batches:  # these are not in the event log, so their transaction must be on disk before they are forgotten
            await connection.execute("SET LOCAL synchronous_commit = on")
        for record in batches.values():
            await _write_batch(connection, record)
        await connection.execute(
            "INSERT INTO exchange.projection (name, sequence, journal, chain) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (name) DO UPDATE"
            " SET sequence = excluded.sequence, chain = excluded.chain, updated_at = now()",
            NAME, rows.sequence, self._journal, chain,
        )  # fmt: skip


_WIPE = (
    "TRUNCATE exchange.projection, exchange.asset, exchange.market, exchange.account, exchange.orders, exchange.trade,"
    " exchange.posting, exchange.balance, exchange.candle, settlement.batch"
)

_FINAL_BATCHES = """
SELECT coalesce(max(number), 0)
FROM (SELECT number, row_number() OVER (ORDER BY number) AS place FROM settlement.batch WHERE status = 'final') AS final
WHERE number = place
"""

_INSERT_TRADES = f"""
INSERT INTO exchange.trade (market_id, trade_id, sequence, event_index, traded_at, price, size, notional, aggressor,
    maker_account_id, maker_order_id, maker_fee, taker_account_id, taker_order_id, taker_fee)
SELECT m, t, s, i, {_EPOCH.format("ts")}, p, z, n, a, ma, mo, mf, ta, tk, tf
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])
    AS r (m, t, s, i, ts, p, z, n, a, ma, mo, mf, ta, tk, tf)
"""

_INSERT_POSTINGS = f"""
INSERT INTO exchange.posting (sequence, event_index, number, posted_at, ref, code, memo, asset_id, amount, source_id,
    target_id)
SELECT s, i, n, {_EPOCH.format("ts")}, r, c, m, a, u, f, t
FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[]) AS r (s, i, n, ts, r, c, m, a, u, f, t)
"""

_UPSERT_BALANCES = """
INSERT INTO exchange.balance (account_id, asset_id, available, held, sequence)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (account_id, asset_id) DO UPDATE
SET available = excluded.available, held = excluded.held, sequence = excluded.sequence
"""

_UPSERT_CANDLES = f"""
INSERT INTO exchange.candle AS c (market_id, interval_seconds, opened_at, open, high, low, close, volume, quote_volume,
    trade_count)
SELECT m, i, {_EPOCH.format("ts")}, o, h, l, cl, v, q, n
FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::numeric[], $9::numeric[], $10::bigint[]) AS r (m, i, ts, o, h, l, cl, v, q, n)
ON CONFLICT (market_id, interval_seconds, opened_at) DO UPDATE
SET high = greatest(c.high, excluded.high), low = least(c.low, excluded.low), close = excluded.close,
    volume = c.volume + excluded.volume, quote_volume = c.quote_volume + excluded.quote_volume,
    trade_count = c.trade_count + excluded.trade_count
"""

_UPSERT_ORDERS = f"""
INSERT INTO exchange.orders (order_id, account_id, market_id, client_id, side, type, tif, price, stop_price, size,
    budget, leaves, display_size, expires_at, filled, fee, status, reason, accepted_at, updated_at)
SELECT o, a, m, c, s, t, f, p, sp, z, b, l, d, ex, fi, fe, st, re, {_EPOCH.format("at")}, {_EPOCH.format("up")}
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
    $16::bigint[], $17::text[], $18::text[], $19::bigint[], $20::bigint[])
    AS r (o, a, m, c, s, t, f, p, sp, z, b, l, d, ex, fi, fe, st, re, at, up)
ON CONFLICT (order_id) DO UPDATE
SET client_id = excluded.client_id, price = excluded.price, stop_price = excluded.stop_price, size = excluded.size,
    leaves = excluded.leaves, filled = excluded.filled, fee = excluded.fee, status = excluded.status,
    reason = excluded.reason, updated_at = excluded.updated_at
"""


def _columns(table: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*table, strict=True)]


async def _write_orders(connection: asyncpg.Connection, orders: list[Order]) -> None:
    table: list[tuple[Any, ...]] = [
        (
            o.order_id, o.account, o.market, o.client_id, Side(o.side).word, OrderType(o.type).word,
            TimeInForce(o.tif).word, o.price, o.stop_price, o.size, o.budget, o.leaves, o.display_size, o.expires_at,
            o.filled, o.fee, OrderStatus(o.status).word, o.reason, o.accepted_at // 1000, o.updated_at // 1000,
        )
        for o in orders
    ]  # fmt: skip
    await connection.execute(_UPSERT_ORDERS, *_columns(table))


async def _write_definitions(
    connection: asyncpg.Connection, directory: Directory, definitions: Mapping[int, Mapping[int, None]]
) -> None:
    """Those that the batch defined, and no others: every new work and every payee has an account."""
    await connection.executemany(
        "INSERT INTO exchange.asset (id, name, scale, settled) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        [
            (entry.index, entry.name, entry.scale, entry.settled)
            for entry in map(directory.assets.__getitem__, definitions.get(CommandKind.ASSET, ()))
        ],
    )
    columns = ", ".join(_MARKET_NUMBERS)
    values = ", ".join(f"${number}" for number in range(6, 6 + len(_MARKET_NUMBERS)))
    changes = ", ".join(f"{name} = excluded.{name}" for name in ("phase", *_MARKET_NUMBERS))
    await connection.executemany(
        f"INSERT INTO exchange.market (id, name, base_id, quote_id, phase, {columns})"
        f" VALUES ($1, $2, $3, $4, $5, {values}) ON CONFLICT (id) DO UPDATE SET {changes}",
        [
            (m.index, m.name, m.base.index, m.quote.index, m.phase.word, *(getattr(m, n) for n in _MARKET_NUMBERS))
            for m in map(directory.markets.__getitem__, definitions.get(CommandKind.MARKET, ()))
        ],
    )
    # The two that no event defines are there before anything can refer to them.
    accounts = {**dict.fromkeys(_SYSTEM_ACCOUNTS), **definitions.get(CommandKind.ACCOUNT, {})}
    await connection.executemany(
        "INSERT INTO exchange.account (id, name, status, overdraft, row, mask, taker_ppm, maker_ppm, max_open_orders,"
        " stp_group) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE"
        " SET status = excluded.status, row = excluded.row, mask = excluded.mask, taker_ppm = excluded.taker_ppm,"
        " maker_ppm = excluded.maker_ppm, max_open_orders = excluded.max_open_orders, stp_group = excluded.stp_group",
        [
            (
                a.index, a.name, a.status.word, a.overdraft.word, a.row if any(a.row) else None, a.mask, a.taker_ppm,
                a.maker_ppm, a.max_open_orders, a.stp_group,
            )
            for a in map(directory.accounts.__getitem__, accounts)
        ],
    )  # fmt: skip


async def _write_batch(connection: asyncpg.Connection, record: Mapping[str, Any]) -> None:
    await connection.execute(
        "INSERT INTO settlement.batch (number, first_sequence, last_sequence, cut_at, status, state_hash, root,"
        " trades_digest, leg_count, digests, committed_at, error, file)"
        f" VALUES ($1, $2, $3, {_EPOCH.format('$4::bigint')}, $5, $6, $7, $8, $9, $10,"
        f" {_EPOCH.format('$11::bigint')}, $12, $13)"
        " ON CONFLICT (number) DO UPDATE SET status = excluded.status, root = excluded.root,"
        " trades_digest = excluded.trades_digest, leg_count = excluded.leg_count, digests = excluded.digests,"
        " committed_at = excluded.committed_at, error = excluded.error,"
        " file = coalesce(excluded.file, settlement.batch.file)",
        record["number"], record["first_sequence"], record["last_sequence"], record["cut_at_ns"] // 1000,
        record["status"], record["state_hash"], record["root"], record["trades_digest"], record["leg_count"],
        list(record["digests"]), None if record["committed_at_ns"] is None else record["committed_at_ns"] // 1000,
        record["error"], record.get("file") or None,
    )  # fmt: skip


async def _load(connection: asyncpg.Connection) -> Fold:
    """The fold as of the checkpoint, from the tables."""
    directory = Directory()
    for row in await connection.fetch("SELECT * FROM exchange.asset ORDER BY id"):
        directory.define(AssetEntry(row["id"], row["name"], row["scale"], row["settled"]))
    for row in await connection.fetch("SELECT * FROM exchange.market ORDER BY id"):
        base, quote = directory.assets[row["base_id"]], directory.assets[row["quote_id"]]
        numbers = {name: row[name] for name in _MARKET_NUMBERS}
        directory.define(
            MarketEntry(
                index=row["id"], name=row["name"], base=base, quote=quote, phase=Phase.of(row["phase"]), **numbers
            )  # fmt: skip
        )
    for row in await connection.fetch("SELECT * FROM exchange.account ORDER BY id"):
        directory.define(
            AccountEntry(
                row["id"], row["name"], AccountStatus.of(row["status"]), Overdraft.of(row["overdraft"]), row["mask"],
                row["taker_ppm"], row["maker_ppm"], row["max_open_orders"], row["row"] or bytes(32), row["stp_group"],
            )
        )  # fmt: skip
    fold = Fold(directory)
    for row in await connection.fetch("SELECT * FROM exchange.balance"):
        fold.balances[(row["account_id"], row["asset_id"])] = [row["available"], row["held"]]
    micros = "(extract(epoch FROM {0}) * 1000000)::bigint AS {0}_us"
    for row in await connection.fetch(
        f"SELECT *, {micros.format('accepted_at')}, {micros.format('updated_at')} FROM exchange.orders"
        " WHERE status IN ('waiting', 'open')"
    ):
        fold.orders[row["order_id"]] = Order(
            row["order_id"], row["account_id"], row["market_id"], row["client_id"], int(Side.of(row["side"])),
            int(OrderType.of(row["type"])), int(TimeInForce.of(row["tif"])), row["price"], row["stop_price"],
            row["size"], row["budget"], row["leaves"], row["accepted_at_us"] * 1000, row["updated_at_us"] * 1000,
            row["display_size"], row["expires_at"], row["filled"], row["fee"], int(OrderStatus.of(row["status"])),
            row["reason"],
        )  # fmt: skip
    return fold


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
