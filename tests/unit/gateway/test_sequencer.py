"""The sequencer over a real journal whose writer is stepped by hand: order, release, reserve, failure."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core import Core
from engine.messages import layout
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder
from gateway.sequencer import PythonSink, Sequencer
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogWriter
from persistence.journal import Journal, JournalSettings, new_tail


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def now_ns(self) -> int:
        return self.now


class FailingFile:
    """A file without a descriptor, so that the journal writes through it; `broken` makes every sync fail."""

    def __init__(self, file: Any, disk: FailingDisk) -> None:
        self._file, self._disk = file, disk

    def read_at(self, offset: int, size: int) -> bytes:
        return self._file.read_at(offset, size)

    def write_at(self, offset: int, data: bytes) -> int:
        return self._file.write_at(offset, data)

    def sync(self) -> None:
        if self._disk.broken:
            raise OSError(errno.EIO, "sync failed")
        self._file.sync()

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()


class FailingDisk(DirectoryDisk):
    broken = False

    def open(self, path: str, *, create: bool = False) -> Any:
        return FailingFile(super().open(path, create=create), self)


class World:
    def __init__(self, root: Path, durable: bool, ring_slots: int, event_file_slots: int | None = None) -> None:
        more: dict[str, Any] = {"threads": False} if event_file_slots is None else {"file_slots": event_file_slots}
        self.disk, self.clock, self.core, self.directory = FailingDisk(root), Clock(), Core(), Directory()
        settings = JournalSettings(segment_bytes=1 << 20, ring_slots=ring_slots, reserved_slots=8)
        self.journal = Journal(self.disk, new_tail(b"i" * 16), self.clock, settings, threads=False)
        self.events = EventLogWriter(root / "events", self.journal.identity, bytes(16), **more)
        self.sequencer = Sequencer(
            self.core, self.clock, self.journal, self.events, durable_acks=durable, pending_max=64,
            arena_slots=256, journal_reserve_slots=8, chain=self.journal.chain,
        )  # fmt: skip
        self.told: list[tuple[Any, ...]] = []
        self.sequencer.set_sink(PythonSink(lambda *told: self.told.append(told)))
        self.sequencer.on_definition = self.directory.learn
        self.encoder = CommandEncoder(self.directory)

    def submit(self, reserved: bool = False, **command: Any) -> str:
        return self.sequencer.submit_record(bytes(self.encoder.encode(command)), 7, b"1", self.clock.now, reserved)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    worlds = []

    def made(durable: bool = True, ring_slots: int = 1024) -> World:
        worlds.append(World(tmp_path, durable, ring_slots))
        return worlds[-1]

    yield made
    for world in worlds:
        world.journal.close()
        world.events.close()


def test_durable_tells_nothing_before_the_disk_has_it(make: Any) -> None:
    world = make()
    assert world.submit(op="asset", asset="USD", scale=6) == world.submit(op="account", account="a") == "taken"
    world.sequencer.release_ready()
    assert (world.told, world.events.published_sequence, world.sequencer.pending) == ([], 0, 2)
    world.journal.publish()
    world.journal.step()
    world.sequencer.release_ready()
    assert [told[0] for told in world.told] == [1, 2] and world.events.published_sequence == 2
    assert world.told[-1][1] == world.journal.chain == world.sequencer.chain
    assert [told[2:5] for told in world.told] == [(7, b"1", 1_000)] * 2


def test_memory_tells_at_once(make: Any) -> None:
    world = make(durable=False)
    world.submit(op="asset", asset="USD", scale=6)
    world.sequencer.flush()
    assert [told[0] for told in world.told] == [1]


def test_time_never_goes_backwards(make: Any) -> None:
    world = make(durable=False)
    world.submit(op="asset", asset="USD", scale=6)
    world.clock.now = 10
    world.submit(op="asset", asset="EUR", scale=2)
    world.sequencer.flush()
    assert [int.from_bytes(told[5][8:16], "little") for told in world.told] == [1_000, 1_000]


def test_a_command_without_a_time_of_its_own_has_that_of_the_clock(make: Any) -> None:
    world = make(durable=False)
    record = bytes(world.encoder.encode({"op": "asset", "asset": "USD", "scale": 6}))
    assert world.sequencer.submit_record(record, 7, b"1") == "taken"
    world.sequencer.flush()
    assert int.from_bytes(world.told[0][5][8:16], "little") == world.clock.now


def test_a_tick_stands_before_the_first_command_at_a_due_time(make: Any) -> None:
    world = make(durable=False)
    world.submit(op="asset", asset="USD", scale=6)
    world.submit(op="account", account="a")
    world.submit(op="deposit", account="a", asset="USD", amount="5", ref="d", not_after=2_000)
    assert world.core.next_due < 2**63 - 1
    world.clock.now = world.core.next_due - 1
    assert not world.sequencer.advance()
    world.clock.now += 1
    assert world.submit(op="account", account="b") == "taken"
    assert (world.sequencer.sequence, world.sequencer.ticks) == (5, 1)
    world.sequencer.flush()
    assert [told[2] for told in world.told] == [7, 7, 7, 0, 7] and world.told[3][5] == b""


def test_orders_pauses_and_cancel_after_fall_due_at_the_sequencer(make: Any) -> None:
    world = make(durable=False)
    place = {"op": "place", "market": "M", "type": "limit", "tif": "gtd", "size": "1", "price": "10"}
    commands: list[dict[str, Any]] = [
        {"op": "asset", "asset": "USD", "scale": 2}, {"op": "asset", "asset": "TOK", "scale": 0},
        {"op": "market", "market": "M", "base": "TOK", "quote": "USD", "tick": "1", "lot": "1",
         "exec_band_ppm": 100_000, "pause_ns": 500, "reference_price": "10", "taker_ppm": 0, "maker_ppm": 0},
        *({"op": "account", "account": name} for name in ("a", "b")),
        *({"op": "deposit", "account": name, "asset": asset, "amount": "999", "ref": f"{name}{asset}"}
          for name in ("a", "b") for asset in ("USD", "TOK")),
        place | {"account": "a", "client_id": "e", "side": "buy", "expires_at": 2_000},
        place | {"account": "b", "client_id": "s", "side": "sell", "price": "20", "tif": "gtc"},
        {"op": "cancel_after", "account": "b", "at": 4_000},
    ]  # fmt: skip
    assert all(world.submit(**command) == "taken" for command in commands)
    decoder = EventDecoder(Directory())

    def news() -> list[str]:
        """What was told since the last look, in words."""
        world.sequencer.flush()
        slots = b"".join(told[5] for told in world.told)
        world.told.clear()
        return [f"{event['event']} {event.get('reason', event.get('price', ''))}" for event in decoder.decode(slots)]

    def look(now: int) -> list[str]:
        """What a look at the clock brings about, without any command."""
        world.clock.now = now
        is_due = world.core.next_due <= now
        assert world.sequencer.advance() == is_due and world.core.next_due > now
        return news()

    assert news()[-3:] == ["accepted 10", "accepted 20", "done "]
    assert look(1_999) == [] and look(2_000) == ["canceled expired"]
    high = place | {"price": "20", "tif": "gtc"}
    assert world.submit(**high | {"account": "a", "client_id": "h", "side": "buy"}) == "taken"
    assert news() == ["accepted 20", "phase_changed band"] and world.core.next_due == 2_500
    assert look(2_499) == [] and look(2_500) == ["phase_changed pause"]
    assert look(2_999) == [] and look(3_000) == ["uncrossed 20", "trade 20", "phase_changed uncross"]
    assert world.submit(**high | {"account": "b", "client_id": "t", "side": "sell"}) == "taken"
    world.clock.now = 4_000
    assert world.submit(op="account", account="late") == "taken"
    assert news() == ["accepted 20", "canceled session", "done "], "the tick stands before the command that came late"


def test_a_nearly_full_ring_refuses_orders_and_still_takes_cancels(make: Any) -> None:
    world = make()
    answers = [world.submit(op="account", account=f"a{n}") for n in range(100)]
    first_busy = answers.index("busy")
    before = world.core.state_hash(), world.sequencer.sequence
    assert world.submit(op="account", account="late") == "busy"
    assert (world.core.state_hash(), world.sequencer.sequence) == before and first_busy > 40
    assert world.submit(reserved=True, op="cancel", account="a0", client_id="x") == "taken"
    assert world.sequencer.cut() == "taken"
    world.journal.publish()
    world.journal.step()
    world.sequencer.release_ready()
    assert world.submit(op="account", account="late") == "taken"
    assert [told[0] for told in world.told] == list(range(1, world.sequencer.sequence))


def test_an_event_log_without_a_next_file_refuses_before_the_journal_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.posix_fallocate, [True]

    def allocate(descriptor: int, offset: int, size: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if full[0] and name.endswith(".events") and not name.endswith("-00000000.events"):
            raise OSError(errno.ENOSPC, "no space left")
        real(descriptor, offset, size)

    def until(holds: Any) -> None:
        while not holds():
            time.sleep(0.01)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    world = World(tmp_path, False, 4096, event_file_slots=2048)
    try:
        until(lambda: world.events.failure is not None)
        assert world.submit(op="account", account="new") == "busy" and world.sequencer.sequence == 0
        answers = []
        while not answers or answers[-1] == "taken":
            answers.append(world.submit(reserved=True, op="cancel", account="system:fees", client_id="x"))
            world.sequencer.flush()
            world.journal.step()
        assert answers[-1] == "busy" and 1_000 < len(answers) <= 2_049
        assert world.sequencer.sequence == len(answers) - 1 == world.core.sequence == len(world.told)
        assert world.sequencer.cut() == "busy"
        full[0] = False
        until(lambda: world.events.failure is None)
        assert world.submit(op="account", account="new") == "taken"
        world.sequencer.flush()
        assert world.events.published_sequence == world.sequencer.sequence == len(answers)
    finally:
        world.journal.close()
        world.events.close()


def test_cancel_only_takes_cancels_alone(make: Any) -> None:
    world = make()
    world.sequencer.cancel_only = True
    assert world.submit(op="account", account="a") == "closed"
    assert world.submit(reserved=True, op="mass_cancel") == "taken"


def test_after_a_failed_sync_nothing_is_told_and_nothing_is_taken(make: Any) -> None:
    world = make()
    world.submit(op="asset", asset="USD", scale=6)
    world.disk.broken = True
    world.journal.publish()
    world.journal.step()
    world.sequencer.release_ready()
    assert world.told == [] and world.sequencer.journal_errno == errno.EIO
    sequence = world.sequencer.sequence
    assert world.submit(op="account", account="a") == "failed"
    assert world.submit(reserved=True, op="mass_cancel") == "failed"
    assert world.sequencer.cut() == "failed" and not world.sequencer.advance()
    assert world.sequencer.sequence == sequence and world.told == []


def test_events_larger_than_the_arena_are_told_whole(make: Any) -> None:
    world = make(durable=False)
    world.submit(op="asset", asset="USD", scale=2)
    for n in range(40):
        world.submit(op="account", account=f"a{n}")
        world.sequencer.flush()
    for n in range(40):
        assert world.submit(op="deposit", account=f"a{n}", asset="USD", amount="5", ref=f"d{n}") == "taken"
    world.sequencer.flush()
    assert [told[0] for told in world.told] == list(range(1, 82))
    assert all(
        len(told[5]) >= layout.SLOT_BYTES and int.from_bytes(told[5][:8], "little") == told[0] for told in world.told
    )


def test_a_record_that_does_not_state_its_slots_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="slots"):
        make().sequencer.submit_record(bytes(256))
