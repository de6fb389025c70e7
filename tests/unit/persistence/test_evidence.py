"""A journal whose segments are gone is refused, by what lies beside it; a new one begins only where nothing is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.messages.errors import JournalCorrupt
from persistence.disk import DirectoryDisk
from persistence.evidence import BESIDE
from persistence.journal import MARK, JournalSettings, read_mark
from persistence.recovery import recover, verify
from tests.support.snapshots import take_snapshot
from tests.unit.persistence.test_recovery import feed, workload

SETTINGS = JournalSettings(segment_bytes=1 << 20, ring_slots=4096, reserved_slots=64)


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A data directory of three and more segments and a snapshot near its end; its last sequence."""
    directory = tmp_path_factory.mktemp("exchange")
    slots = workload()
    recovered = recover(directory, settings=SETTINGS)
    middle = feed(recovered, slots, 0, len(slots) - 500)
    take_snapshot(directory, recovered)
    feed(recovered, slots, middle, len(slots))
    sequence = recovered.core.sequence
    recovered.close()
    assert len(list((directory / "journal").glob("*.journal"))) >= 3
    return directory, sequence


def copied(exchange: Path, target: Path, *without: str) -> Path:
    shutil.copytree(exchange, target)
    for path in without:
        shutil.rmtree(target / path) if (target / path).is_dir() else (target / path).unlink()
    return target


def refused(data: Path, match: str) -> None:
    """By start and by verify, with and without a replay; and nothing was changed, in the event log neither."""
    before = {path: path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}
    before = {path: held for path, held in before.items() if held.strip(b"\0")}  # prepared files are nothing yet
    for attempt in (
        lambda: recover(data, settings=SETTINGS).close(), lambda: verify(data), lambda: verify(data, with_replay=False)
    ):  # fmt: skip
        with pytest.raises(JournalCorrupt, match=match):
            attempt()
    after = {path: path.read_bytes() for path in before if path.exists()}
    assert [path for path in before if before[path] != after.get(path)] == []


@pytest.mark.parametrize("kept", ["everything", "mark", "snapshots", "events", *BESIDE])
def test_without_any_segment_whatever_else_is_there_tells_that_there_was_one(
    exchange: tuple[Path, int], tmp_path: Path, kept: str
) -> None:
    data = tmp_path / "data"
    if kept == "everything":
        copied(exchange[0], data)
        for path in (data / "journal").glob("*.journal"):
            path.unlink()
    elif kept in ("mark", "snapshots", "events"):
        data.mkdir()
        path = exchange[0] / (MARK if kept == "mark" else kept)
        shutil.copytree(path, data / path.name) if path.is_dir() else shutil.copy(path, data / path.name)
    else:
        (data / kept).parent.mkdir(parents=True)
        (data / kept).write_bytes(b"1")
    refused(data, "journal: has no segment, but it had one: here are ")


def test_a_refused_start_leaves_the_damaged_end_as_it_was(exchange: tuple[Path, int], tmp_path: Path) -> None:
    """Of what was durable: a repair may need each byte, and behind zeros the next boot would begin in silence."""
    data = copied(exchange[0], tmp_path / "data", "events", "snapshots")
    last = max((data / "journal").glob("*.journal"))
    held = bytearray(last.read_bytes())
    held[len(held.rstrip(b"\0")) - 1] ^= 1  # of the last record, which the mark calls durable
    last.write_bytes(held)
    refused(data, f"but {exchange[1]} was durable")


def test_any_one_segment_that_is_missing_is_noticed(exchange: tuple[Path, int], tmp_path: Path) -> None:
    names = sorted(path.name for path in (exchange[0] / "journal").glob("*.journal"))
    for number, name in enumerate(names):
        reason = "are missing" if number == 0 else "continue" if number + 1 < len(names) else "but .* was durable"
        refused(copied(exchange[0], tmp_path / name, f"journal/{name}"), reason)


def test_the_last_segment_is_missed_by_a_snapshot_and_by_settlement_too(
    exchange: tuple[Path, int], tmp_path: Path
) -> None:
    whole, sequence = exchange
    last = max(path.name for path in (whole / "journal").glob("*.journal"))
    refused(copied(whole, tmp_path / "1", f"journal/{last}", MARK, "events"), "but there is a snapshot of")
    bare = copied(whole, tmp_path / "2", f"journal/{last}", MARK, "events", "snapshots")
    for check in (lambda: recover(bare, settings=SETTINGS, sealed=sequence), lambda: verify(bare, sealed=sequence)):
        with pytest.raises(JournalCorrupt, match=f"settlement sealed a batch up to {sequence}"):
            check()
    assert verify(whole, sealed=sequence).sequence == sequence


def test_a_damaged_snapshot_proves_nothing_and_an_empty_directory_begins(
    exchange: tuple[Path, int], tmp_path: Path
) -> None:
    whole, sequence = exchange
    data = copied(whole, tmp_path / "data")
    (data / "snapshots" / f"{sequence + 5:020d}.snapshot").write_bytes(b"BYLINES\0 torn")
    recover(data, settings=SETTINGS).close()
    fresh = tmp_path / "fresh"
    (fresh / "journal").mkdir(parents=True)
    (fresh / "journal" / "spare.tmp").write_bytes(b"")  # a first start that was cut off before its first segment
    (fresh / "keys").mkdir()
    (fresh / "keys" / "operator.key").write_text("brought along")
    recovered = recover(fresh, settings=SETTINGS)
    recovered.close()
    recover(fresh, settings=SETTINGS).close()
    assert recovered.report.sequence == 0 and read_mark(DirectoryDisk(fresh), recovered.journal.identity) == 0
