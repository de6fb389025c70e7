"""`byline journal truncate`: what is behind a sequence goes aside, what is before it is the journal, byte for byte."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from byline.journal_tools import truncate_journal, verify_journal
from byline.rebuild import REQUEST
from byline.settings import load_settings
from byline.settle import mend_logs
from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, Refused, Unavailable
from gateway.keys import KeyRegistry
from persistence import segments
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.recovery import recover, replay, verify
from persistence.truncate import plan_truncation, truncate
from settlement.batch import Sealed
from settlement.netting import Batch
from settlement.store import FileBatchStore
from tests.support.snapshots import take_snapshot
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return workload()[:24_000]


@pytest.fixture
def journal(tmp_path: Path, slots: np.ndarray) -> Path:
    """Three segments, a snapshot at about half, and what recovery leaves beside them."""
    recovered = recover(tmp_path, settings=SETTINGS)
    middle = feed(recovered, slots, 0, len(slots) // 2)
    take_snapshot(tmp_path, recovered)
    feed(recovered, slots, middle, len(slots))
    recovered.close()
    return tmp_path


def state_at(slots: np.ndarray, sequence: int, directory: Path) -> bytes:
    directory.mkdir()
    recovered = recover(directory, settings=SETTINGS)
    heads = np.flatnonzero(slots["sequence"] == sequence)
    feed(recovered, slots, 0, int(heads[0]) + int(slots["slots"][heads[0]]))
    recovered.close()
    assert recovered.core.sequence == sequence
    return recovered.core.state_hash()


def cut(data: Path, to: int, **options: object) -> int:
    return truncate_journal(load_settings({}, data_directory=data), to, console=QUIET, **({"yes": True} | options))


@pytest.mark.parametrize("place", ["last segment", "end of the first", "before the snapshot"])
def test_what_stays_is_the_prefix_and_what_goes_is_kept(
    journal: Path, slots: np.ndarray, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    listed = segments.list_segments(DirectoryDisk(journal))
    assert len(listed) >= 3
    last = verify(journal, with_replay=False).sequence
    first_end = listed[1].header.first_sequence - 1
    to = {"last segment": last - 7, "end of the first": first_end, "before the snapshot": first_end // 2}[place]
    before = {path.name: path.read_bytes() for path in (journal / "journal").glob("*.journal")}
    assert cut(journal, to) == 0
    [aside] = (journal / "aside").iterdir()
    kept = {path.name: path.read_bytes() for path in aside.glob("*.journal")}
    assert all(before[name] == data for name, data in kept.items()) and aside.name.endswith(f"after-{to}")
    assert {path.name for path in (journal / "journal").glob("*.journal")} | set(kept) == set(before)
    assert (journal / REQUEST).exists(), "rows of what was cut must not stay in PostgreSQL"
    found = verify(journal)
    expected = state_at(slots, to, tmp_path_factory.mktemp("x") / "again")
    assert (found.sequence, found.torn_bytes, found.state_hash) == (to, 0, expected)
    assert bool(found.snapshots_checked) == (place == "last segment")

    recovered = recover(journal, settings=SETTINGS)  # and it goes on from there
    assert recovered.core.state_hash() == expected
    heads = np.flatnonzero(slots["sequence"] == to + 1)
    feed(recovered, slots, int(heads[0]), len(slots))
    recovered.close()
    assert verify(journal).sequence == last


def test_a_damaged_journal_is_cut_before_the_damage_and_serves_again(journal: Path) -> None:
    listed = segments.list_segments(DirectoryDisk(journal))
    path = journal / listed[1].path
    data = bytearray(path.read_bytes())
    data[segments.offset_of(40) + 60] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt) as refused:
        recover(journal, settings=SETTINGS)
    damaged = int(str(refused.value).partition("sequence ")[2].partition(":")[0])
    with pytest.raises(JournalCorrupt, match=f"sequence {damaged}"):
        cut(journal, damaged)
    assert cut(journal, damaged - 1) == 0
    settings, console = load_settings({}, data_directory=journal), Console(file=io.StringIO(), width=80)
    assert verify_journal(settings, console=console, replay=False) == 0
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Not checked: whether the commands lead to the states" in told and "--replay runs them all" in told
    assert verify_journal(settings, console=QUIET, replay=True) == 0
    recover(journal, settings=SETTINGS).close()


def test_keys_that_may_be_of_accounts_that_are_cut_go_aside_before_anything_is(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is given such a name next must not find another's key on it."""
    keys = KeyRegistry(DirectoryDisk(journal))
    keys.register("ab" * 32, ["user:late"], ["trade"], "of an account that will be cut", 1)
    (journal / "keys" / "epoch").write_text("7\n")
    before, last = (journal / "keys" / "registry.log").read_bytes(), verify(journal, with_replay=False).sequence
    said = io.StringIO()
    settings = load_settings({}, data_directory=journal)
    with monkeypatch.context() as patch:
        patch.setattr("persistence.truncate.segments.cut_tail", None)
        with pytest.raises(TypeError):
            truncate_journal(settings, last - 9, console=Console(file=said, width=400), yes=True)
    assert verify(journal, with_replay=False).sequence == last, "interrupted before the first record went"
    [aside] = (journal / "aside").iterdir()
    assert not (journal / "keys" / "registry.log").exists() and (aside / "registry.log").read_bytes() == before
    assert "traders' keys must be registered again" in said.getvalue()
    aside.rename(aside.with_name("first"))
    assert cut(journal, last - 9) == 0
    assert KeyRegistry(DirectoryDisk(journal)).find("ab" * 32) is None
    assert (journal / "keys" / "epoch").read_text() == "7\n", "no signature of before is valid again"


def test_a_segment_without_a_header_is_cut_away_whole(journal: Path) -> None:
    listed = segments.list_segments(DirectoryDisk(journal))
    path = journal / listed[2].path
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(JournalCorrupt, match="header"):
        recover(journal, settings=SETTINGS)
    assert cut(journal, listed[2].header.first_sequence - 1) == 0
    recover(journal, settings=SETTINGS).close()
    assert verify(journal).sequence == listed[2].header.first_sequence - 1


def test_it_can_be_given_again_after_it_was_interrupted_anywhere(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DirectoryDisk(journal)
    to = segments.list_segments(disk)[1].header.first_sequence + 5
    import persistence.truncate as module

    last, found = verify(journal, with_replay=False).sequence, []
    real = {name: getattr(module, name) for name in ("_move", "_copy")}
    for step in range(6):
        calls = [0]

        def breaking(name: str, step: int = step, calls: list[int] = calls) -> object:
            def call(*arguments: object) -> None:
                calls[0] += 1
                if calls[0] > step:
                    raise OSError(5, "interrupted")
                real[name](*arguments)

            return call

        for name in real:
            monkeypatch.setattr(module, name, breaking(name))
        plan = plan_truncation(disk, to)
        try:
            truncate(disk, plan)
        except OSError:
            found.append(state_of(journal))
        for path in (journal / "aside").iterdir():
            path.rename(path.with_name(f"{path.name}-{step}"))
    monkeypatch.undo()
    assert set(found) <= {"refused", last} and "refused" in found
    truncate(disk, plan_truncation(disk, to))
    assert verify(journal).sequence == to


def state_of(data: Path) -> object:
    """Its last sequence, or that it is refused."""
    try:
        return verify(data, with_replay=False).sequence
    except JournalCorrupt:
        return "refused"


def test_nothing_is_cut_without_consent_in_use_behind_a_batch_or_where_nothing_is(
    journal: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    last = verify(journal, with_replay=False).sequence
    before = {path: path.read_bytes() for path in journal.rglob("*") if path.is_file()}
    with pytest.raises(Refused, match="--yes"):
        cut(journal, last - 1, yes=False)
    with pytest.raises(Refused, match=f"ends with sequence {last}"):
        cut(journal, last + 1)
    assert cut(journal, last) == 0, "there is nothing to cut"
    for name in ("lock", "journal.lock"):
        with DirectoryLock(journal / name), pytest.raises(DataDirectoryBusy, match="process [0-9]+.*stop it first"):
            cut(journal, last - 1)
    with pytest.raises(Unavailable):
        cut(tmp_path_factory.mktemp("empty"), 5)
    (journal / "settlement").mkdir()
    store = FileBatchStore(journal / "settlement" / "batches.log")
    store.append(Sealed(1, sealed(last - 10)))
    store.close()
    with pytest.raises(Refused, match="batch 1 was sealed up to"):
        cut(journal, last - 11)
    log = journal / "settlement" / "batches.log"
    whole = log.read_bytes()
    for damaged in (whole[:-1], whole[:5], bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1])):
        log.write_bytes(damaged)
        with pytest.raises(JournalCorrupt, match="its last record is not whole|of a record that was written whole"):
            cut(journal, last - 11)
    log.write_bytes(whole + whole[:40])  # a power cut while the next batch was stored
    with pytest.raises(JournalCorrupt, match="its last record is not whole"):
        cut(journal, last - 10)
    told = io.StringIO()
    mend_logs(load_settings({}, data_directory=journal), Console(file=told, width=500))
    assert log.read_bytes() == whole and "40 bytes cut off its end" in told.getvalue()
    assert {path: path.read_bytes() for path in before if path.suffix == ".journal"} == {
        path: data for path, data in before.items() if path.suffix == ".journal"
    }
    assert cut(journal, last - 10) == 0
    core, tail = replay(DirectoryDisk(journal))
    assert tail.sequence == core.sequence == last - 10


def sealed(last_sequence: int) -> Batch:
    """A batch of nothing that ends there."""
    return Batch(1, 1, last_sequence, bytes(16), 0, 0, bytes(32), bytes(32), 0, 0, [], {})


def test_records_that_are_lost_at_the_end_alone_are_given_up_by_a_cut_at_the_end(tmp_path: Path) -> None:
    """The journal ends where it is to be cut, but its writer noted more as durable: the mark goes, nothing else."""
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, workload()[:2000], 0, 2000)
    sequence = recovered.core.sequence
    recovered.close()
    shutil.rmtree(tmp_path / "events")
    with open(tmp_path / "journal.mark", "r+b") as mark:
        mark.write((sequence + 7).to_bytes(8, "little"))
    with pytest.raises(JournalCorrupt, match=f"but {sequence + 7} was durable"):
        recover(tmp_path, settings=SETTINGS)
    told = io.StringIO()
    console = Console(file=told)
    settings = load_settings({}, data_directory=tmp_path)
    assert truncate_journal(settings, sequence, console=console, yes=True) == 0
    again = recover(tmp_path, settings=SETTINGS)
    again.close()
    assert again.report.sequence == sequence
    assert truncate_journal(settings, sequence, console=console, yes=True) == 0
    assert "nothing to cut" in told.getvalue()
