"""The core's loop of snapshots: a failure is told and does not stop the next one; stopping waits for no child."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from byline import request_file
from byline.processes import snapshots
from engine.core import Core
from persistence import snapshot
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogWriter
from tests.support.waiting import until


def endless_child() -> int:
    """A child that does not end by itself. The real one of an empty core may have ended before a signal reaches it."""
    return os.posix_spawn("/bin/sleep", ["sleep", "1000000"], {})


class Loop:
    """`keep_snapshots` over a fresh core, in a directory, and what it tells."""

    def __init__(self, directory: Path, journal: object = None) -> None:
        (directory / "run").mkdir()
        self.core = Core()
        self.directory = directory
        self.stop = asyncio.Event()
        self.told: dict[str, Any] = {}
        journal = journal or SimpleNamespace(identity=bytes(16), durable_sequence=0, status="running")
        self.event_log = EventLogWriter(directory / "events", bytes(16), bytes(16), threads=False, file_slots=2048)
        report = SimpleNamespace(snapshot_sequence=0)
        self.task = asyncio.ensure_future(
            snapshots.keep_snapshots(
                SimpleNamespace(data_directory=directory, snapshot_interval_s=3600.0),  # type: ignore[arg-type]
                self.stop,
                SimpleNamespace(core=self.core, journal=journal, event_log=self.event_log, report=report),
                SimpleNamespace(sequence=0, chain=0),
                DirectoryDisk(directory),
                self.told,
            )
        )

    async def asked(self) -> str:
        """The answer to one request."""
        done = self.directory / "run" / "snapshot.done"
        (self.directory / "run" / "snapshot.request").touch()
        await until(done.exists, what="the answer to a request")
        answer = done.read_text()
        done.unlink()
        return answer


async def test_a_failure_is_told_and_the_next_request_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path)

    def refused(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no child to write a snapshot")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "fork_snapshot", refused)
        assert "no child to write a snapshot" in await loop.asked()
    assert "no child" in loop.told["snapshot_error"]
    with monkeypatch.context() as patched:

        def killed(*_: object) -> int:
            child = endless_child()
            os.kill(child, signal.SIGKILL)
            return child

        patched.setattr(snapshot, "fork_snapshot", killed)
        assert (await loop.asked()).startswith("- ") and "SIGKILL" in loop.told["snapshot_error"]
    assert await loop.asked() == "0 snapshots/00000000000000000000.snapshot"
    assert loop.told["snapshot_error"] == "" and loop.told["snapshot_pause_ms"] > 0
    loop.stop.set()
    await loop.task


async def test_a_disk_that_takes_no_answer_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path)
    request = tmp_path / "run" / "snapshot.request"

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(request_file, "_put", full)
        request.touch()
        await until(lambda: not request.exists() and loop.told.get("snapshot_error") == "", what="the snapshot")
    assert (await loop.asked()).startswith("0 "), "and the next one who asks is answered"
    loop.stop.set()
    await loop.task


class LateJournal:
    """Its record becomes durable behind the third look; what had a snapshot's name at each look."""

    identity, status = bytes(16), "running"

    def __init__(self, directory: Path) -> None:
        self._snapshots = directory / "snapshots"
        self.named: list[list[str]] = []

    @property
    def durable_sequence(self) -> int:
        self.named.append([path.name for path in self._snapshots.glob("*.snapshot")])
        return 0 if len(self.named) > 3 else -1


async def test_a_snapshot_has_its_name_once_the_journal_is_durable_up_to_it(tmp_path: Path) -> None:
    """Behind a loss of power one that is ahead of its journal would keep the exchange from starting."""
    journal = LateJournal(tmp_path)
    loop = Loop(tmp_path, journal)
    assert (await loop.asked()).startswith("0 ")
    assert journal.named == [[]] * 4
    loop.stop.set()
    await loop.task


@pytest.mark.parametrize("why", ["stop", "time"])
async def test_a_child_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    children: list[int] = []

    def hangs(*_: object) -> int:
        children.append(endless_child())
        return children[-1]

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "fork_snapshot", hangs)
        if why == "time":
            patched.setattr(snapshots, "SNAPSHOT_LIMIT_S", 0.05)
        loop = Loop(tmp_path)
        asking = asyncio.ensure_future(loop.asked())
        await until(lambda: children, what="the child")
        if why == "stop":
            loop.stop.set()
        assert (await asking).startswith("- snapshot 0: not ")
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(children[0], os.WNOHANG)
    assert list((tmp_path / "snapshots").iterdir()) == []
    if why == "time":
        assert (await loop.asked()).startswith("0 ")
    loop.stop.set()
    await loop.task
