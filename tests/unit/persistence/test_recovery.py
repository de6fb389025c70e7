"""Recovery with the real core: same hash from genesis, from a snapshot, after a torn end, and after a reboot."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.records import commands, setup
from bench.workload import generate
from engine.core import Core
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import DataDirectoryBusy, JournalCorrupt
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogReader
from persistence.journal import JournalSettings
from persistence.recovery import Recovered, recover, verify
from tests.support.snapshots import take_snapshot

SETTINGS = JournalSettings(segment_bytes=1 << 20, ring_slots=4096, reserved_slots=64)


def workload() -> np.ndarray:
    head = setup()
    at = sequence = 0
    while at < len(head):
        sequence += 1
        head["sequence"][at] = sequence
        at += int(head["slots"][at])
    return np.concatenate([head, commands(generate("W1", smoke=True, ops=20_000), sequence + 1).records])


def feed(recovered: Recovered, slots: np.ndarray, at: int, stop: int) -> int:
    """Append, apply and log what the sequencer would, one group at a time."""
    out = np.empty(65_536, slots.dtype)
    while at < stop:
        end = min(at + 2000, stop)
        while end < len(slots) and slots["sequence"][end - 1] + 1 != slots["sequence"][end]:
            end += 1
        begin, first = at, recovered.core.sequence + 1
        while at < end:
            at, used = recovered.core.apply_batch(slots, out, at, end)
            events = out[:used].view(np.uint8)
            assert recovered.event_log.append_batch(events, first, recovered.core.sequence) == 0
            first = recovered.core.sequence + 1
        left = bytearray(slots[begin:end].tobytes())
        while left:
            taken = recovered.journal.append_all(left)
            recovered.journal.publish()
            del left[: 128 * sum(int(s) for s in _slots(left, taken))]
        recovered.journal.wait_durable(recovered.core.sequence)
    return at


def _slots(raw: bytearray, count: int) -> list[int]:
    sizes, at = [], 0
    for _ in range(count):
        sizes.append(raw[at + 5])
        at += 128 * raw[at + 5]
    return sizes


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return workload()


def test_every_way_back_ends_with_the_same_hash(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    middle = feed(recovered, slots, 0, len(slots) // 2)
    take_snapshot(tmp_path, recovered)
    feed(recovered, slots, middle, len(slots))
    sequence, expected = recovered.core.sequence, recovered.core.state_hash()
    with pytest.raises(DataDirectoryBusy):
        recover(tmp_path, settings=SETTINGS)
    recovered.close()
    events = _all_events(tmp_path)

    again = recover(tmp_path, settings=SETTINGS)  # the event log was ahead of the snapshot and goes on
    assert (again.report.sequence, again.report.state_hash) == (sequence, expected)
    assert 0 < again.report.snapshot_sequence < sequence and not again.report.events_rebuilt
    again.close()
    assert _all_events(tmp_path) == events

    rebooted = recover(tmp_path, settings=SETTINGS, boot=b"another boot    ")
    assert rebooted.report.state_hash == expected and rebooted.report.events_rebuilt
    assert rebooted.report.replayed_records == sequence
    rebooted.close()
    assert _all_events(tmp_path) == events

    found = verify(tmp_path)
    assert (found.sequence, found.state_hash) == (sequence, expected) and len(found.snapshots_checked) == 1


def test_a_damaged_snapshot_gives_way_to_an_older_one(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    at = 0
    for part in (4, 2):
        at = feed(recovered, slots, at, len(slots) // part)
        path = take_snapshot(tmp_path, recovered)
    expected, newest = recovered.core.state_hash(), recovered.core.sequence
    recovered.close()
    data = bytearray((tmp_path / path).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / path).write_bytes(data)
    again = recover(tmp_path, settings=SETTINGS)
    again.close()
    assert again.report.state_hash == expected and 0 < again.report.snapshot_sequence < newest
    assert "SHA-256" in again.report.damaged_snapshots[0]


def test_too_many_open_files_never_mean_no_snapshot(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, slots, 0, 1000)
    take_snapshot(tmp_path, recovered)
    recovered.close()

    class Full(DirectoryDisk):
        def map(self, path: str) -> memoryview:
            if path.startswith("snapshots/"):
                raise OSError(errno.EMFILE, "too many open files")
            return super().map(path)

    with pytest.raises(OSError, match="too many open files"):
        recover(tmp_path, settings=SETTINGS, disk=Full(tmp_path))


def test_a_snapshot_with_another_chain_word_is_refused(tmp_path: Path, slots: np.ndarray) -> None:
    disk = DirectoryDisk(tmp_path)
    recovered = recover(tmp_path, settings=SETTINGS)
    middle = feed(recovered, slots, 0, len(slots) // 2)
    path = take_snapshot(tmp_path, recovered, chain=recovered.journal.chain ^ 1)
    feed(recovered, slots, middle, middle + 1000)
    recovered.close()
    with pytest.raises(JournalCorrupt, match="chain word"):
        recover(tmp_path, settings=SETTINGS)
    with pytest.raises(JournalCorrupt, match="snapshot"):
        verify(tmp_path)
    disk.remove(path)
    recover(tmp_path, settings=SETTINGS).close()


def test_verify_holds_each_cut_against_the_event_log(tmp_path: Path, slots: np.ndarray) -> None:
    parts, sequence, cuts = [], 0, []
    for begin, end in ((0, 2000), (2000, 6000), (6000, 8000)):
        parts.append(slots[begin:end])
        cut = np.zeros(1, slots.dtype)
        cut["kind"], cut["slots"] = CommandKind.CUT, 1
        parts.append(cut)
    played, at = np.concatenate(parts), 0
    while at < len(played):
        sequence += 1
        played["sequence"][at] = sequence
        played["ts"][at] = sequence
        if played["kind"][at] == CommandKind.CUT:
            cuts.append(sequence)
        at += int(played["slots"][at])
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, played, 0, len(played))
    recovered.close()
    found = verify(tmp_path)
    assert (found.cuts, found.cuts_compared) == (3, 3)
    assert verify(tmp_path, boot=b"another boot    ").cuts_compared == 0  # a log that was never synced proves nothing
    log = min((tmp_path / "events").glob("*.events"))  # the second is prepared ahead
    raw = np.memmap(log, np.uint8, "r+")
    events = raw[: len(raw) // 128 * 128].view(layout.CUT)
    mine = np.flatnonzero((events["kind"] == EventKind.CUT) & (events["sequence"] == cuts[1]))[0]
    events[mine : mine + 1]["state_hash"].view(np.uint8)[3] ^= 1
    raw.flush()
    with pytest.raises(JournalCorrupt, match=f"cut at sequence {cuts[1]}"):
        verify(tmp_path)


def test_a_cut_below_what_was_durable_is_refused(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, slots, 0, 1000)
    recovered.close()
    disk = DirectoryDisk(tmp_path)
    tail = segments.scan(disk, segments.list_segments(disk))
    file = disk.open(tail.segment.path)
    file.write_at(segments.offset_of(tail.used_slots - 1), bytes(128))
    file.close()
    with pytest.raises(JournalCorrupt, match="was durable"):
        recover(tmp_path, settings=SETTINGS)


def test_a_reader_in_another_process_sees_every_event(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    program = (
        "import sys, hashlib; from pathlib import Path; from persistence.event_log import EventLogReader\n"
        "r = EventLogReader(Path(sys.argv[1])); h = hashlib.sha256()\n"
        "while r.after_sequence < int(sys.argv[2]):\n"
        "    h.update(r.read(500).tobytes())\n"
        "print(h.hexdigest())\n"
    )
    last = int(slots["sequence"][-1])
    reader = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "events"), str(last)], stdout=subprocess.PIPE, text=True
    )
    feed(recovered, slots, 0, len(slots))
    out, _ = reader.communicate()
    recovered.close()
    assert out.strip() == hashlib.sha256(_all_events(tmp_path)).hexdigest()


def test_a_kill_within_a_publication_costs_nothing_and_tells_nothing_twice(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    middle = feed(recovered, slots, 0, len(slots) // 2)
    sequence, state = recovered.core.sequence, recovered.core.state_hash()
    recovered.close()
    told, control = _all_events(tmp_path), tmp_path / "events" / "control"
    with control.open("r+b") as page:  # the slots were stored, the sequence was not
        page.seek(72)
        page.write((sequence - 40).to_bytes(8, "little"))
    again = recover(tmp_path, settings=SETTINGS)
    assert (again.report.sequence, again.report.state_hash) == (sequence, state)
    assert not again.report.events_rebuilt and _all_events(tmp_path) == told
    feed(again, slots, middle, len(slots))
    again.close()
    assert _all_events(tmp_path).startswith(told) and not verify(tmp_path).event_log_damaged
    shutil.rmtree(tmp_path / "events")
    recover(tmp_path, settings=SETTINGS).close()
    rebuilt = _all_events(tmp_path)
    assert len(rebuilt) > len(told)

    log = min((tmp_path / "events").glob("*.events"))  # as an earlier version went on behind such a kill
    with log.open("r+b") as file:
        first = file.read(128)
        file.seek(128 * max(1, first[29]))
        file.write(first)
    damaged = verify(tmp_path)
    assert "event log: sequence=1 at slot=" in damaged.event_log_damaged and damaged.state_hash


def _all_events(directory: Path) -> bytes:
    reader = EventLogReader(directory / "events")
    parts = []
    while len(part := reader.read()):
        parts.append(part.tobytes())
    return b"".join(parts)


def test_replaying_by_hand_gives_the_recovered_hash(tmp_path: Path, slots: np.ndarray) -> None:
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, slots, 0, len(slots))
    recovered.close()
    core = Core()
    out = np.empty(65_536, slots.dtype)
    at = 0
    while at < len(slots):
        at, _ = core.apply_batch(slots, out, at)
    assert verify(tmp_path).state_hash == core.state_hash()


def test_names_of_segments_are_durable_before_anything_of_them_is_applied(tmp_path: Path, slots: np.ndarray) -> None:
    """A core killed between the renaming of a new segment and the sync of that leaves a name that power loss takes."""
    recovered = recover(tmp_path, settings=SETTINGS)
    feed(recovered, slots, 0, 2_000)
    recovered.close()

    class Watched(DirectoryDisk):
        synced: list[str] = []

        def sync_directory(self, directory: str) -> None:
            self.synced.append(directory)
            super().sync_directory(directory)

    disk, was_synced = Watched(tmp_path), list[bool]()
    recover(tmp_path, disk=disk, progress=lambda _: was_synced.append("journal" in disk.synced)).close()
    assert was_synced and all(was_synced)
