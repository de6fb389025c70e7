"""The event log over a loss of power: what its mark names is there, all else may be anything."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persistence.event_log import EventLogReader, EventLogWriter
from persistence.event_mark import EventKeeper, damaged_file, read_mark
from persistence.recovery import Recovered, recover, verify
from tests.support.snapshots import take_marked_snapshot, take_snapshot
from tests.unit.persistence.test_event_log import events
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload

FILE_SLOTS = 2_048
OTHER = b"another boot    "


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return workload()


def start(directory: Path, **more: Any) -> Recovered:
    return recover(directory, settings=SETTINGS, event_file_slots=FILE_SLOTS, **more)


def all_events(directory: Path) -> bytes:
    reader, parts = EventLogReader(directory / "events"), []
    while len(part := reader.read()):
        parts.append(part.tobytes())
    return b"".join(parts)


def lose_what_was_not_synced(directory: Path) -> None:
    """The harshest loss of power: of the event log nothing is left but the mark and what it names."""
    mark = read_mark(directory / "events")
    assert mark is not None
    for path in (directory / "events").iterdir():
        whole = path.suffix == ".events" and int(path.stem.partition("-")[2]) < len(mark.sums)
        if path.name == "control" or (path.suffix == ".events" and not whole):
            path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, slots: np.ndarray) -> tuple[Path, int, bytes, bytes, int]:
    """A directory of a core that was killed; its sequence, state and events; the sequence of its mark."""
    directory = tmp_path_factory.mktemp("before")
    recovered = start(directory)
    middle = feed(recovered, slots, 0, len(slots) // 3)
    take_marked_snapshot(directory, recovered)
    middle = feed(recovered, slots, middle, len(slots) // 2)
    take_marked_snapshot(directory, recovered)
    marked = recovered.core.sequence
    feed(recovered, slots, middle, len(slots))
    sequence, state = recovered.core.sequence, recovered.core.state_hash()
    recovered.close()
    return directory, sequence, state, all_events(directory), marked


@pytest.fixture
def data(tmp_path: Path, before: tuple[Path, int, bytes, bytes, int]) -> Path:
    shutil.copytree(before[0], tmp_path / "data")
    return tmp_path / "data"


def test_a_start_after_a_loss_of_power_goes_on_from_snapshot_and_mark(
    data: Path, before: tuple[Path, int, bytes, bytes, int], slots: np.ndarray
) -> None:
    _, sequence, state, told, marked = before
    lose_what_was_not_synced(data)
    again = start(data, boot=OTHER)
    report = again.report
    again.close()
    assert (report.sequence, report.state_hash, report.events_rebuilt) == (sequence, state, False)
    assert (report.snapshot_sequence, report.replayed_records) == (marked, sequence - marked)
    assert all_events(data) == told
    reader = EventLogReader(data / "events")
    for after in random.Random(2).sample(range(sequence - 10), 200):  # the index of every file serves
        reader.seek(after)
        assert int(reader.read(1)["sequence"][0]) > after
    killed = start(data, boot=OTHER)  # and within that boot it is a log as any other
    assert killed.report.replayed_records == sequence - marked and not killed.report.events_rebuilt
    killed.close()
    assert verify(data, boot=OTHER).event_files_checked > 2


def test_marks_go_on_over_boots(data: Path, before: tuple[Path, int, bytes, bytes, int]) -> None:
    lose_what_was_not_synced(data)
    again = start(data, boot=OTHER)
    take_marked_snapshot(data, again)
    again.close()
    lose_what_was_not_synced(data)
    last = start(data, boot=b"a third boot    ")
    last.close()
    assert last.report.replayed_records == 0 and last.report.state_hash == before[2]
    assert all_events(data) == before[3]


@pytest.mark.parametrize("damage", ["page", "gone", "short", "mark", "mark cut", "no mark", "snapshot", "sizes"])
def test_what_is_not_whole_is_built_anew(data: Path, before: tuple[Path, int, bytes, bytes, int], damage: str) -> None:
    _, sequence, state, told, marked = before
    folder = data / "events"
    first = sorted(folder.glob("*.events"))[0]
    match damage:
        case "page":  # a disk that lied about its last sync
            with first.open("r+b") as file:
                file.seek(8_192)
                file.write(bytes(4_096))
        case "gone":
            first.unlink()
        case "short":
            os.truncate(first, first.stat().st_size - 1)
        case "mark":
            whole = bytearray((folder / "kept").read_bytes())
            whole[len(whole) // 2] ^= 4
            (folder / "kept").write_bytes(whole)
        case "mark cut":
            os.truncate(folder / "kept", 100)
        case "no mark":
            (folder / "kept").unlink()
        case "snapshot":
            (data / f"snapshots/{marked:020d}.snapshot").unlink()
    if damage in ("page", "gone", "short"):
        assert verify(data, with_replay=False).event_file_damaged == first.name
    sizes = 2 * FILE_SLOTS if damage == "sizes" else FILE_SLOTS
    again = recover(data, settings=SETTINGS, boot=OTHER, event_file_slots=sizes)
    again.close()
    assert (again.report.sequence, again.report.state_hash) == (sequence, state)
    assert again.report.events_rebuilt and again.report.replayed_records == sequence
    assert all_events(data) == told
    assert not (folder / "kept").exists()  # it was of the log before


def test_a_snapshot_behind_the_mark_waits_for_its_own(data: Path, before: tuple[Path, int, bytes, bytes, int]) -> None:
    """Killed between the snapshot's name and the mark: the one before, with its snapshot, serves."""
    again = start(data)
    take_snapshot(data, again)
    again.close()
    lose_what_was_not_synced(data)
    rebooted = start(data, boot=OTHER)
    rebooted.close()
    assert rebooted.report.snapshot_sequence == before[4] and rebooted.report.state_hash == before[2]
    assert all_events(data) == before[3]


def test_a_snapshot_ahead_of_the_published_end_waits_in_the_same_boot(tmp_path: Path, slots: np.ndarray) -> None:
    """Killed when the journal was durable and the events not yet published: an older snapshot, and the log goes on."""
    recovered = start(tmp_path)
    middle = feed(recovered, slots, 0, len(slots) // 2)
    take_snapshot(tmp_path, recovered)
    first = recovered.core.sequence
    feed(recovered, slots, middle, len(slots) // 2 + 1_000)
    take_snapshot(tmp_path, recovered)
    recovered.close()
    told = all_events(tmp_path)
    reader = EventLogReader(tmp_path / "events")
    reader.seek(first + 10)
    behind = int(reader.read(1)["sequence"][0])
    reader.seek(behind)
    with (tmp_path / "events" / "control").open("r+b") as control:  # the head as it was a moment before
        slot = sum(1 for _ in range(0, told_until(told, behind), 128))
        control.seek(64)
        control.write(slot.to_bytes(8, "little") + behind.to_bytes(8, "little"))
    again = start(tmp_path)
    again.close()
    assert again.report.snapshot_sequence == first and not again.report.events_rebuilt
    assert all_events(tmp_path) == told


def told_until(told: bytes, sequence: int) -> int:
    """Bytes of the events up to a sequence, its own included."""
    at = 0
    while at < len(told) and int.from_bytes(told[at : at + 8], "little") <= sequence:
        at += 128 * max(1, told[at + 29])
    return at


def test_a_mark_holds_what_was_appended_when_its_place_was_taken(tmp_path: Path) -> None:
    """Writing goes on while the mark is made: nothing behind the place is in it."""
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, file_slots=FILE_SLOTS, threads=False)
    keeper = EventKeeper(tmp_path, writer, b"i" * 16)

    def write(first: int, last: int) -> None:
        for sequence in range(first, last + 1):
            rows = events(sequence, 5)
            assert writer.append_batch(rows.view(np.uint8), sequence, sequence) == 0

    for last in (10, 409, 410, 1_000, 2_048):  # within the first file, at and over an edge, 5 files exactly
        write(writer.sequence + 1, last)
        place = keeper.at()
        write(last + 1, last + 1)  # (the next mark's place lies behind it anyway)
        assert keeper.keep(place, chain=7)
        mark = read_mark(tmp_path)
        assert mark is not None and (mark.sequence, mark.slots) == place and mark.chain == 7
        assert len(mark.sums) * FILE_SLOTS * 128 + len(mark.tail) == mark.slots * 128
        assert damaged_file(tmp_path, mark, newest=None) == ""
    told = b"".join(events(sequence, 5).tobytes() for sequence in range(1, place[0] + 1))
    writer.close()
    mark = read_mark(tmp_path)
    writer = EventLogWriter(tmp_path, b"i" * 16, OTHER, mark=mark, file_slots=FILE_SLOTS, threads=False)
    reader, parts = EventLogReader(tmp_path), []
    while len(part := reader.read()):
        parts.append(part.tobytes())
    assert b"".join(parts) == told
    writer.close()


def test_a_failed_sync_is_not_believed_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, file_slots=FILE_SLOTS, threads=False)
    for sequence in range(1, 501):
        assert writer.append_batch(events(sequence, 5).view(np.uint8), sequence, sequence) == 0
    keeper = EventKeeper(tmp_path, writer, b"i" * 16)

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="input/output"):
            keeper.keep(keeper.at(), chain=1)
    with pytest.raises(OSError, match="an earlier sync failed"):
        keeper.keep(keeper.at(), chain=1)
    assert read_mark(tmp_path) is None
    assert not EventKeeper(tmp_path, writer, b"i" * 16).keep(EventKeeper.at(keeper), 1, lambda: True)  # told to stop
    writer.close()
