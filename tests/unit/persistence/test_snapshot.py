"""Snapshots written by a forked child: the same bytes, whatever the core does; no failure goes unsaid."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.records import commands, setup
from bench.workload import generate
from engine.core import Core
from engine.messages.ports import File
from persistence import snapshot as snapshots
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.forked import fork_snapshot
from persistence.segments import write_all
from persistence.snapshot import SnapshotWriter, newest_snapshots, read_snapshot, snapshot_name
from tests.support.disk import SimulatedDisk
from tests.support.snapshots import ended
from tests.support.waiting import has_ended, until

IDENTITY = b"journal of tests"


def applied(core: Core, slots: np.ndarray, at: int, stop: int) -> bytes:
    """The events of the slots `at` … `stop`."""
    out, events = np.empty(65_536, slots.dtype), b""
    while at < stop:
        at, used = core.apply_batch(slots, out, at, stop)
        events += out[:used].tobytes()
    return events


def workload() -> np.ndarray:
    head = setup()
    at = sequence = 0
    while at < len(head):
        sequence += 1
        head["sequence"][at] = sequence
        at += int(head["slots"][at])
    return np.concatenate([head, commands(generate("W1", smoke=True, ops=20_000), sequence + 1).records])


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return workload()


@pytest.fixture
def core(slots: np.ndarray) -> Core:
    core = Core()
    applied(core, slots, 0, len(slots) - 6000)
    return core


@pytest.fixture
def writer(tmp_path: Path, core: Core) -> SnapshotWriter:
    return SnapshotWriter(DirectoryDisk(tmp_path), core, IDENTITY)


def left_over(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*.tmp")]


def assert_writes_one(writer: SnapshotWriter, directory: Path, core: Core) -> None:
    writer.begin(7)
    ended(writer)
    found = read_snapshot(DirectoryDisk(directory), writer.finish())
    assert found.body == core.snapshot() and left_over(directory) == []


def test_the_bytes_are_those_of_the_sequence_while_the_core_goes_on(
    tmp_path: Path, core: Core, writer: SnapshotWriter, slots: np.ndarray
) -> None:
    expected, before = core.snapshot(), (core.sequence, core.state_hash())
    assert writer.begin(7) == before[0] and writer.pause_s > 0
    os.kill(writer.child, signal.SIGSTOP)  # so that it reads what the core has changed by now
    events = applied(core, slots, len(slots) - 6000, len(slots))
    core.check()
    os.kill(writer.child, signal.SIGCONT)
    ended(writer)
    path = writer.finish()
    writer.join_pages()
    core.check()
    found = read_snapshot(DirectoryDisk(tmp_path), path)
    assert (found.sequence, found.state_hash) == before and (found.chain, found.identity) == (7, IDENTITY)
    assert found.body == expected
    twin = Core.restore(found.body)
    twin.check()
    assert twin.state_hash() == found.state_hash
    assert applied(twin, slots, len(slots) - 6000, len(slots)) == events
    assert twin.state_hash() == core.state_hash() and twin.snapshot() == core.snapshot()


def test_a_killed_child_is_told_and_the_next_one_works(tmp_path: Path, core: Core, writer: SnapshotWriter) -> None:
    writer.begin(7)
    child = writer.child
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(OSError, match="still being written"):
        writer.begin(7)
    assert not writer.ended()
    os.kill(child, signal.SIGKILL)
    ended(writer)
    with pytest.raises(OSError, match="SIGKILL"):
        writer.finish()
    with pytest.raises(ChildProcessError):  # no zombie
        os.waitpid(child, os.WNOHANG)
    assert left_over(tmp_path) == [] and list(newest_snapshots(DirectoryDisk(tmp_path), [])) == []
    assert_writes_one(writer, tmp_path, core)


def test_giving_up_leaves_nothing(tmp_path: Path, core: Core, writer: SnapshotWriter) -> None:
    writer.begin(7)
    os.kill(writer.child, signal.SIGSTOP)
    writer.kill()
    ended(writer)
    writer.discard()
    writer.kill()
    assert left_over(tmp_path) == []
    assert_writes_one(writer, tmp_path, core)


def test_a_file_that_may_not_grow_is_told_with_its_errno(tmp_path: Path, core: Core, writer: SnapshotWriter) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # what the child may write, too
    try:
        writer.begin(7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ended(writer)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as told:
        writer.finish()
    assert told.value.errno == errno.EFBIG and left_over(tmp_path) == []
    assert_writes_one(writer, tmp_path, core)


def test_a_full_disk_is_the_childs_exit_status(core: Core) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        child = fork_snapshot(core, full, 128)
    finally:
        os.close(full)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOSPC


def test_a_refused_fork_is_told_and_leaves_nothing(
    tmp_path: Path, core: Core, writer: SnapshotWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no child")

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "fork_snapshot", refused)
        with pytest.raises(OSError, match="no child"):
            writer.begin(7)
    assert left_over(tmp_path) == [] and writer.ended()
    assert_writes_one(writer, tmp_path, core)


def test_a_status_that_somebody_else_took_counts_as_lost(tmp_path: Path, core: Core, writer: SnapshotWriter) -> None:
    writer.begin(7)
    os.waitpid(writer.child, 0)
    assert writer.ended()
    with pytest.raises(OSError, match=os.strerror(errno.ECHILD)):
        writer.finish()
    assert_writes_one(writer, tmp_path, core)


async def test_the_child_dies_with_its_parent_and_holds_none_of_its_files(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from engine.core import Core
from engine.messages.ports import File
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.snapshot import SnapshotWriter
from tests.unit.persistence.test_snapshot import applied, workload
core, slots = Core(), workload()
applied(core, slots, 0, len(slots))
lock = DirectoryLock(Path({str(tmp_path)!r}) / "lock")
writer = SnapshotWriter(DirectoryDisk(Path({str(tmp_path)!r})), core, bytes(16))
for _ in range(1000):
    writer.begin(0)
    while not writer.ended():
        if len(os.listdir(f"/proc/{{writer.child}}/fd")) == 1:
            os.kill(writer.child, signal.SIGSTOP)
            print(writer.child, flush=True)
            os._exit(0)
    writer.discard()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    await until(lambda: has_ended(int(done.stdout)), what="the child to end after its parent")
    DirectoryLock(tmp_path / "lock").release()


def test_leavings_of_a_killed_process_are_removed(tmp_path: Path, core: Core, writer: SnapshotWriter) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "00000000000000000001.snapshot.tmp").write_bytes(bytes(100_000))
    assert_writes_one(writer, tmp_path, core)


class _NoNames(DirectoryDisk):
    """Renames once and cannot make the name durable, or cannot rename."""

    fails = ""

    def rename(self, source: str, target: str) -> None:
        if self.fails == "sync":
            os.rename(self.root / source, self.root / target)
        if self.fails:
            raise OSError(errno.EIO, f"{self.fails} failed")
        super().rename(source, target)


@pytest.mark.parametrize("fails", ["rename", "sync"])
def test_a_name_that_fails_is_told_removes_nothing_and_the_next_one_works(
    tmp_path: Path, core: Core, slots: np.ndarray, fails: str
) -> None:
    disk = _NoNames(tmp_path)
    writer = SnapshotWriter(disk, core, IDENTITY, keep=1)
    assert_writes_one(writer, tmp_path, core)
    before = writer.sequence
    applied(core, slots, len(slots) - 6000, len(slots) - 3000)
    writer.begin(7)
    ended(writer)
    disk.fails = fails
    with pytest.raises(OSError, match=f"{fails} failed"):
        writer.finish()
    assert read_snapshot(disk, snapshot_name(before)).sequence == before, "the older one may be the only one"
    disk.fails = ""
    assert_writes_one(writer, tmp_path, core)
    assert [found.sequence for found in newest_snapshots(disk, [])] == [core.sequence]


def test_a_snapshot_that_has_its_name_outlives_a_loss_of_power(core: Core) -> None:
    """Its header too, which is written behind the child's own sync."""

    def by_hand(core: Core, file: File, offset: int) -> int:
        write_all(file, offset, core.snapshot())
        file.sync()
        return 0

    disk = SimulatedDisk()
    writer = SnapshotWriter(disk, core, IDENTITY, fork=by_hand)
    sequence = writer.begin(7)
    path = writer.finish()
    disk.crash(survive=0.0)
    found = read_snapshot(disk, path)
    assert (found.sequence, found.body) == (sequence, core.snapshot())


def test_only_the_newest_stay(tmp_path: Path, core: Core, slots: np.ndarray) -> None:
    writer = SnapshotWriter(DirectoryDisk(tmp_path), core, IDENTITY, keep=2)
    kept = []
    for at in range(len(slots) - 6000, len(slots), 2000):
        applied(core, slots, at, at + 2000)
        kept.append(writer.begin(7))
        ended(writer)
        writer.finish()
    assert [found.sequence for found in newest_snapshots(DirectoryDisk(tmp_path), [])] == kept[:0:-1]


@pytest.mark.parametrize("at", [8, 16, 24, 32, 48, 64, 100, 130, 5000, -40, -1])
def test_any_damage_is_found(tmp_path: Path, core: Core, writer: SnapshotWriter, at: int) -> None:
    writer.begin(7)
    ended(writer)
    path = writer.finish()
    data = bytearray((tmp_path / path).read_bytes())
    data[at] ^= 1
    (tmp_path / path).write_bytes(data)
    with pytest.raises(ValueError, match="format|SHA-256|sequence"):
        read_snapshot(DirectoryDisk(tmp_path), path)
    (tmp_path / path).write_bytes(data[:at])
    with pytest.raises(ValueError):
        read_snapshot(DirectoryDisk(tmp_path), path)


def test_an_empty_core_has_a_snapshot_too(tmp_path: Path) -> None:
    core = Core()
    assert_writes_one(SnapshotWriter(DirectoryDisk(tmp_path), core, IDENTITY), tmp_path, core)
    assert (tmp_path / snapshot_name(0)).exists()
