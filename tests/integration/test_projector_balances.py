"""The projection against the core itself: balances, open orders, a server killed, a rebuild that is equal."""

from __future__ import annotations

import asyncio
import bisect
import shutil
from pathlib import Path

import asyncpg
import numpy as np
import pytest

from bench.adversary import Adversary
from bench.records import commands
from bench.workload import generate
from byline.embedded.postgres import EmbeddedPostgres
from engine.core import Core
from engine.messages import layout
from engine.messages.codes import ABSENT, OrderStatus
from engine.messages.directory import Directory
from persistence.chain_words import ChainWords
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogReader
from persistence.recovery import Recovered, recover, replay
from persistence.stores.postgres.migrate import migrate
from persistence.stores.postgres.projector import Projector, ProjectorSettings
from tests.support.market_flow import Flow
from tests.support.rule_flow import RuleFlow
from tests.support.waiting import HANG_S, until
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload

OPTIONAL = ("price", "stop_price", "display_size", "expires_at")
TABLES = {
    "asset": "id", "market": "id", "account": "id", "orders": "order_id", "trade": "market_id, trade_id",
    "candle": "market_id, interval_seconds, opened_at", "posting": "sequence, event_index, number",
}  # fmt: skip


class Log:
    """An event source that can be published to and sought in, command by command."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.arrays: list[np.ndarray] = []
        self.head_sequence = 0
        self._at = 0
        self.between = None

    def publish(self, sequence: int, events: np.ndarray) -> None:
        if len(events):
            self.sequences.append(sequence)
            self.arrays.append(events)
        self.head_sequence = sequence

    def seek(self, after_sequence: int) -> None:
        self._at = bisect.bisect_right(self.sequences, after_sequence)

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        taken, count = [], 0
        while self._at < len(self.arrays) and (not count or count + len(self.arrays[self._at]) <= limit_slots):
            taken.append(self.arrays[self._at])
            count += len(taken[-1])
            self._at += 1
        if not taken and self.between is not None:
            publish, self.between = self.between, None
            publish()
        return np.concatenate(taken) if taken else np.empty(0, layout.EVENT)


def _flow(seed: int, count: int) -> tuple[Core, Log]:
    flow, log = Flow(seed, markets=("NOVA-USD", "ECHO-USD")), Log()
    log.publish(flow.sequence, flow.opening)
    for _ in range(count):
        events = flow.step()
        log.publish(flow.sequence, events)
    return flow.core, log


def _rules(seed: int, count: int) -> tuple[Core, Log]:
    flow, log = RuleFlow(Core(), seed), Log()
    log.publish(flow.sequence, flow.opening)
    for _ in range(count):
        events = flow.step()
        log.publish(flow.sequence, events)
    return flow.core, log


def _hostile(seed: int, count: int) -> tuple[Core, Log]:
    adversary, core, log = Adversary(seed), Core(), Log()
    for sequence in range(1, count + 1):
        events = np.array(core.apply(adversary.record(sequence))).view(layout.EVENT)
        adversary.learn(events.tobytes())
        log.publish(sequence, events)
    return core, log


async def _finish(projector: Projector, log: Log) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(projector.run(stop))
    while projector.sequence < log.head_sequence and not task.done():
        await asyncio.sleep(0.01)
    stop.set()
    await task


async def _assert_equals_core(dsn: str, core: Core) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT * FROM exchange.balance WHERE available <> 0 OR held <> 0")
        stored = {(row["account_id"], row["asset_id"]): (row["available"], row["held"]) for row in rows}
        real = {(int(b["account"]), int(b["asset"])): (int(b["available"]), int(b["held"])) for b in core.balances()}
        assert stored == {key: value for key, value in real.items() if value != (0, 0)}
        rows = await connection.fetch("SELECT * FROM exchange.orders WHERE status IN ('waiting', 'open')")
        stored = {
            r["order_id"]: (
                r["account_id"], r["client_id"], r["status"], r["leaves"], r["budget"] or r["size"],
                *(r[name] for name in OPTIONAL),
            )
            for r in rows
        }  # fmt: skip
        assert stored == {
            int(o["order_id"]): (
                int(o["account"]), o["client_id"].decode(), OrderStatus(int(o["status"])).word, int(o["leaves"]),
                int(o["size"]), *(None if o[name] == ABSENT else int(o[name]) for name in OPTIONAL),
            )
            for o in core.open_orders()
        }  # fmt: skip
        rows = await connection.fetch("SELECT name, phase FROM exchange.market")
        phases = {row["name"]: row["phase"] for row in rows}
        directory = Directory()
        directory.learn(core.describe())
        assert phases == {market.name: market.phase.word for market in directory.markets}
        wrong = await connection.fetch(
            "SELECT o.order_id, o.filled, o.fee, t.filled, t.fee FROM exchange.orders o LEFT JOIN LATERAL ("
            " SELECT coalesce(sum(size), 0) AS filled, coalesce(sum(CASE WHEN maker_order_id = o.order_id"
            " THEN maker_fee ELSE taker_fee END), 0) AS fee FROM exchange.trade"
            " WHERE o.order_id IN (maker_order_id, taker_order_id)) t ON true"
            " WHERE o.filled <> t.filled OR o.fee <> t.fee OR (o.status = 'filled') <> (o.reason IS NULL"
            " AND o.status NOT IN ('open', 'waiting')) OR (o.status = 'filled' AND o.size IS NOT NULL"
            " AND o.filled <> o.size)"
        )
        assert wrong == []
    finally:
        await connection.close()


async def _tables(dsn: str) -> dict[str, list[tuple]]:
    connection = await asyncpg.connect(dsn)
    try:
        found = {
            name: [tuple(row) for row in await connection.fetch(f"SELECT * FROM exchange.{name} ORDER BY {key}")]
            for name, key in TABLES.items()
        }
        balances = "SELECT account_id, asset_id, available, held FROM exchange.balance ORDER BY 1, 2"
        return found | {"balance": [tuple(row) for row in await connection.fetch(balances)]}
    finally:
        await connection.close()


@pytest.mark.parametrize("make, seed, count", [(_flow, 3, 1500), (_rules, 4, 1500), (_hostile, 5, 2500)])
async def test_projection_equals_core_and_rebuilds_equal(postgres_dsn, make, seed, count):
    core, log = make(seed, count)
    await migrate(postgres_dsn)
    await _finish(Projector(log, postgres_dsn, ProjectorSettings(batch_slots_max=300)), log)
    await _assert_equals_core(postgres_dsn, core)
    first = await _tables(postgres_dsn)
    assert first["trade"] and first["candle"]
    connection = await asyncpg.connect(postgres_dsn)
    names = ", ".join(f"exchange.{name}" for name in (*TABLES, "balance", "projection"))
    await connection.execute(f"TRUNCATE {names}")
    await connection.close()
    await _finish(Projector(log, postgres_dsn, ProjectorSettings(batch_slots_max=7)), log)
    assert await _tables(postgres_dsn) == first


async def test_a_definition_writes_its_own_row_and_no_other(postgres_dsn):
    flow, log = Flow(6), Log()
    log.publish(flow.sequence, flow.opening)
    await migrate(postgres_dsn)
    projector = Projector(log, postgres_dsn)
    while await projector.step():
        pass
    query = "SELECT name, xmin::text FROM exchange.account WHERE id > 1"  # the system's two are written each time
    connection = await asyncpg.connect(postgres_dsn)
    try:
        before = dict(await connection.fetch(query))
        events = flow.apply({"op": "account", "account": "user:late"})
        log.publish(flow.sequence, events)
        assert await projector.step()
        after = dict(await connection.fetch(query))
    finally:
        await connection.close()
        await projector.close()
    assert len(before) == 3
    assert after == before | {"user:late": after["user:late"]} and "user:late" not in before
    await _assert_equals_core(postgres_dsn, flow.core)


async def test_f51_server_killed_midway_is_caught_up_with(tmp_path):
    core, log = _flow(9, 1200)
    server = EmbeddedPostgres(tmp_path / "pg")
    server.start()
    try:
        await migrate(server.dsn)
        projector = Projector(log, server.dsn, ProjectorSettings(batch_slots_max=40, retry_s=0.05))
        stop = asyncio.Event()
        task = asyncio.create_task(projector.run(stop))
        await until(lambda: projector.sequence >= 300, what="a part of the log")
        server.stop()
        await until(lambda: not projector.status()["connected"], what="the end of the connection to be seen")
        assert projector.sequence < log.head_sequence, "killed too late to show anything"
        server.start()
        await until(lambda: projector.sequence == log.head_sequence, what="the rest of the log")
        stop.set()
        await task
        await _assert_equals_core(server.dsn, core)
    finally:
        server.stop()


async def test_f51_connections_that_are_ended_again_and_again_are_made_again(postgres_dsn):
    """Whatever a query was doing, and however much of the server's last word had come: it is caught up with."""
    core, log = _flow(15, 600)
    await migrate(postgres_dsn)
    projector, stop = Projector(log, postgres_dsn, ProjectorSettings(batch_slots_max=4, retry_s=0.01)), asyncio.Event()
    task = asyncio.create_task(projector.run(stop))
    other = await asyncpg.connect(postgres_dsn)
    try:
        for reached in range(20, log.head_sequence - 40, 20):
            await until(lambda at=reached: task.done() or projector.sequence >= at, what=f"command {reached}")
            assert not task.done(), task
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await until(lambda: projector.sequence == log.head_sequence, what="the rest of the log")
    finally:
        stop.set()
        await other.close()
        await task
    await _assert_equals_core(postgres_dsn, core)


async def test_f51_queries_that_take_too_long_are_given_up_and_all_is_caught_up_with(postgres_dsn):
    """Somebody else's lock makes each query last: the projector gives them up, and nothing is applied twice."""
    core, log = _flow(12, 600)
    await migrate(postgres_dsn)
    settings = ProjectorSettings(batch_slots_max=40, retry_s=0.05, command_timeout_s=0.5)
    projector, stop = Projector(log, postgres_dsn, settings), asyncio.Event()
    task = asyncio.create_task(projector.run(stop))
    other = await asyncpg.connect(postgres_dsn)
    try:
        await until(lambda: projector.sequence > 100, what="a part of the log")
        async with other.transaction():
            await other.execute("LOCK TABLE exchange.projection IN ACCESS EXCLUSIVE MODE")
            await until(lambda: not projector.status()["connected"], what="a query to be given up")
            assert projector.sequence < log.head_sequence, "too late to show anything"
        await until(lambda: projector.sequence == log.head_sequence, what="the rest of the log")
    finally:
        stop.set()
        await other.close()
        await task
    await _assert_equals_core(postgres_dsn, core)


async def test_f51_queries_that_take_five_seconds_each_are_waited_for(postgres_dsn):
    core, log = _flow(16, 300)
    await migrate(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(
        "CREATE FUNCTION exchange.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_sleep(5); RETURN NEW; END$$;"
        " CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON exchange.projection"
        " FOR EACH ROW EXECUTE FUNCTION exchange.slow()"
    )
    await connection.close()
    slots = sum(len(events) for events in log.arrays)
    projector = Projector(log, postgres_dsn, ProjectorSettings(batch_slots_max=slots // 2 + 1))
    await _finish(projector, log)
    assert projector.transaction_count >= 2 and projector.last_error == "", "none was given up"
    await _assert_equals_core(postgres_dsn, core)


async def test_events_published_between_read_and_checkpoint_are_not_skipped(postgres_dsn):
    core, log = _flow(2, 50)
    late_sequence, late = log.sequences.pop(), log.arrays.pop()
    log.head_sequence = late_sequence - 1
    await migrate(postgres_dsn)
    projector = Projector(log, postgres_dsn)
    while await projector.step():
        pass
    log.between = lambda: log.publish(late_sequence, late)
    await projector.step()  # reads nothing, and only then the late command is published
    await projector.close()  # a crash here must not lose it
    again = Projector(log, postgres_dsn)
    await again.step()
    await again.close()
    await _assert_equals_core(postgres_dsn, core)


async def test_f51_rows_of_another_journal_or_of_a_future_that_was_lost_are_never_mixed_in(postgres_dsn):
    await migrate(postgres_dsn)
    _, first = _flow(11, 200)
    await _finish(Projector(first, postgres_dsn, journal=b"one"), first)
    core, second = _flow(12, 150)
    await _finish(Projector(second, postgres_dsn, journal=b"two"), second)
    await _assert_equals_core(postgres_dsn, core)
    core, shorter = _flow(13, 60)
    await _finish(Projector(shorter, postgres_dsn, journal=b"two"), shorter)
    await _assert_equals_core(postgres_dsn, core)


def _go_on(recovered: Recovered, seed: int, count: int) -> None:
    """Orders of an own history behind what is there."""
    slots = commands(generate("W1", seed=seed, smoke=True, ops=count), recovered.core.sequence + 1).records
    feed(recovered, slots, 0, len(slots))


def _projector(data: Path, dsn: str, words_of: Path | None = None) -> tuple[Projector, EventLogReader]:
    events = EventLogReader(data / "events")
    words = ChainWords(DirectoryDisk(words_of or data))
    return Projector(events, dsn, ProjectorSettings(batch_slots_max=300), journal=events.identity, words=words), events


@pytest.fixture
def two_histories(tmp_path: Path) -> tuple[Path, Path]:
    """A journal, and the same one restored without its last records and gone on, further than the first had come."""
    lost, restored = tmp_path / "lost", tmp_path / "restored"
    slots = workload()
    recovered = recover(lost, settings=SETTINGS)
    feed(recovered, slots, 0, 600)
    recovered.close()
    shutil.copytree(lost, restored)
    for data, seed, count in ((lost, 7, 400), (restored, 8, 900)):
        recovered = recover(data, settings=SETTINGS)
        _go_on(recovered, seed, count)
        recovered.close()
    return lost, restored


async def test_rows_of_records_that_a_restore_lost_are_told_by_their_chain_word(postgres_dsn, two_histories):
    """Same identity, and the restored journal is past the sequence of the rows: only the word tells."""
    lost, restored = two_histories
    await migrate(postgres_dsn)
    await _finish(*_projector(lost, postgres_dsn))
    await _assert_equals_core(postgres_dsn, replay(DirectoryDisk(lost))[0])
    was = _projector(lost, postgres_dsn)[1].head_sequence
    projector, events = _projector(restored, postgres_dsn)
    assert was < events.head_sequence
    await _finish(projector, events)
    await _assert_equals_core(postgres_dsn, replay(DirectoryDisk(restored))[0])
    again, _ = _projector(restored, postgres_dsn)  # its own rows are gone on with
    await again._connect()
    assert again.sequence == events.head_sequence
    await again.close()


async def test_no_row_is_written_whose_chain_word_is_not_known(postgres_dsn, two_histories, tmp_path):
    """As in mode `memory`: events are read before their records are in the journal's file."""
    lost, _ = two_histories
    short = tmp_path / "short"
    shutil.copytree(lost / "journal", short / "journal")
    tail = replay(DirectoryDisk(lost))[1]
    path = short / tail.segment.path
    whole = path.read_bytes()
    end = 4_096 + tail.used_slots * 128
    path.write_bytes(whole[: end - 128 * 50] + bytes(128 * 50) + whole[end:])
    await migrate(postgres_dsn)
    projector, events = _projector(lost, postgres_dsn, short)
    while await projector.step():
        pass
    known = replay(DirectoryDisk(short))[1].sequence
    assert 0 < projector.sequence <= known < events.head_sequence
    path.write_bytes(whole)
    words = ChainWords(DirectoryDisk(lost))
    projector._words = words
    while projector.sequence < events.head_sequence:
        await projector.step()
    await projector.close()
    await _assert_equals_core(postgres_dsn, replay(DirectoryDisk(lost))[0])
    assert [words.word(sequence) for sequence in (0, tail.sequence, tail.sequence + 1)] == [
        int.from_bytes(tail.identity[:8], "little"), tail.chain, None,
    ]  # fmt: skip


async def test_a_process_that_meets_another_history_ends_so_that_the_next_builds_anew(
    postgres_dsn, two_histories, tmp_path
):
    """Batches are told at a start alone, so the rows are not wiped under a process that has told them."""
    lost, restored = two_histories
    await migrate(postgres_dsn)
    projector, events = _projector(lost, postgres_dsn)
    while await projector.step():
        pass
    await projector.close()
    projector._words = ChainWords(DirectoryDisk(restored))
    await asyncio.wait_for(projector.run(asyncio.Event()), HANG_S)
    connection = await asyncpg.connect(postgres_dsn)
    assert await connection.fetchval("SELECT sequence FROM exchange.projection") == events.head_sequence
    await connection.close()


def _batch(number: int) -> dict:
    """A settled batch, as the settler tells it."""
    return {
        "number": number, "first_sequence": 10 * number - 9, "last_sequence": 10 * number, "cut_at_ns": 1_000,
        "status": "final", "state_hash": bytes(32), "root": None, "trades_digest": None, "leg_count": 1, "digests": [],
        "committed_at_ns": None, "error": None, "file": b"f",
    }  # fmt: skip


async def _batches(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["number"] for row in await connection.fetch("SELECT number FROM settlement.batch ORDER BY 1")]
    finally:
        await connection.close()


OFTEN = ProjectorSettings(batch_slots_max=40, retry_s=0.05)


async def _two_thirds(server: EmbeddedPostgres, log, backup):
    """A projector that has a third of the log and a batch in the backup, and as much again behind it: the task it runs
    in, and what stops it."""
    whole = log.arrays
    log.arrays, log.head_sequence = whole[:300], log.sequences[299]
    await migrate(server.dsn)
    projector, stop = Projector(log, server.dsn, OFTEN), asyncio.Event()
    projector.store_batch(_batch(1))
    task = asyncio.create_task(projector.run(stop))
    await until(lambda: projector.sequence == log.head_sequence, what="a third of the log")
    server.stop()
    shutil.copytree(server.directory, backup, symlinks=True)
    server.start()
    projector.store_batch(_batch(2))
    log.arrays, log.head_sequence = whole[:600], log.sequences[599]
    await until(lambda: projector.sequence == log.head_sequence, what="two thirds of the log")
    assert await _batches(server.dsn) == [1, 2]
    return task, stop


async def test_f51_a_server_restored_to_an_older_backup_has_all_of_it_again(tmp_path):
    """Its rows are gone on with from where they are, its batches are told again by the start behind it."""
    core, log = _flow(14, 900)
    whole, last = log.arrays, log.head_sequence
    server = EmbeddedPostgres(tmp_path / "pg")
    server.start()
    try:
        task, stop = await _two_thirds(server, log, tmp_path / "backup")
        stop.set()
        await task
        server.stop()
        shutil.rmtree(server.directory)
        shutil.copytree(tmp_path / "backup", server.directory, symlinks=True)
        server.start()
        assert await _batches(server.dsn) == [1]
        log.arrays, log.head_sequence = whole, last
        again = Projector(log, server.dsn, OFTEN)
        for number in (1, 2):
            again.store_batch(_batch(number))  # as the settler does at each start
        await _finish(again, log)
        await _assert_equals_core(server.dsn, core)
        assert await _batches(server.dsn) == [1, 2]
        restored = await _tables(server.dsn)
        connection = await asyncpg.connect(server.dsn)
        names = ", ".join(f"exchange.{name}" for name in (*TABLES, "balance", "projection"))
        await connection.execute(f"TRUNCATE {names}")
        await connection.close()
        await _finish(Projector(log, server.dsn), log)
        assert await _tables(server.dsn) == restored, "and equal to what is built from the first record"
    finally:
        server.stop()


async def test_f51_a_restore_under_a_running_process_ends_it_so_that_batches_are_told_again(tmp_path):
    """Restored under a running process: its rows can be read again, but the batches that it has told cannot."""
    core, log = _flow(14, 900)
    whole, last = log.arrays, log.head_sequence
    server = EmbeddedPostgres(tmp_path / "pg")
    server.start()
    try:
        task, _ = await _two_thirds(server, log, tmp_path / "backup")
        server.stop()
        shutil.rmtree(server.directory)
        shutil.copytree(tmp_path / "backup", server.directory, symlinks=True)
        server.start()
        log.arrays, log.head_sequence = whole, last  # it hears of the restore when it has something to write
        await asyncio.wait_for(task, HANG_S)
        assert await _batches(server.dsn) == [1], "it wrote nothing over what it does not know"
        again = Projector(log, server.dsn, OFTEN)
        for number in (1, 2):
            again.store_batch(_batch(number))  # as the settler does at each start
        await _finish(again, log)
        await _assert_equals_core(server.dsn, core)
        assert await _batches(server.dsn) == [1, 2]
        restored = await _tables(server.dsn)
        connection = await asyncpg.connect(server.dsn)
        names = ", ".join(f"exchange.{name}" for name in (*TABLES, "balance", "projection"))
        await connection.execute(f"TRUNCATE {names}")
        await connection.close()
        await _finish(Projector(log, server.dsn), log)
        assert await _tables(server.dsn) == restored, "and equal to what is built from the first record"
    finally:
        server.stop()


async def test_a_rebuild_asked_for_while_the_database_is_away_forgets_no_batch(postgres_dsn, tmp_path):
    """The process that comes back to it has told its batches: the next one is to wipe, and tells them again."""
    core, log = _flow(15, 200)
    await migrate(postgres_dsn)
    request = tmp_path / "projection.rebuild"
    projector = Projector(log, postgres_dsn, rebuild=request)
    projector.store_batch(_batch(1))
    while await projector.step():
        pass
    await projector.close()
    request.touch()
    await asyncio.wait_for(projector.run(asyncio.Event()), HANG_S)
    assert request.exists() and await _batches(postgres_dsn) == [1]
    again = Projector(log, postgres_dsn, rebuild=request)
    again.store_batch(_batch(1))
    await _finish(again, log)
    assert not request.exists() and await _batches(postgres_dsn) == [1]
    await _assert_equals_core(postgres_dsn, core)
