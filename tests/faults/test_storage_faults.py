"""Faults of a disk under the real core (F10, F11, F12, F15), and a kill that the disk gives the time for (F24): a shim
below its system calls fails, stalls and cuts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byline.client import CommandError, ConnectionLost, TradingClient
from byline.operator import gateway_url, open_operator, request_snapshot
from byline.supervisor import DO_NOT_RESTART, Child, ChildFailed, Supervisor
from engine.messages import layout
from engine.messages.codes import CommandKind
from persistence import ring, segments
from persistence.beside import durable_sequence
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings
from persistence.recovery import recover, replay, verify
from tests.support.core_process import MARKET, CoreProcess
from tests.support.disk import SimulatedDisk
from tests.support.faulty_disk import FaultyDisk, compiler
from tests.support.waiting import until

SMALL = JournalSettings(segment_bytes=73_728, ring_slots=1024, reserved_slots=0)
pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler for the shim")


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> FaultyDisk:
    return FaultyDisk(tmp_path / "shim", name=getattr(request, "param", ".journal"))


@pytest.fixture
def core(tmp_path: Path, disk: FaultyDisk) -> Iterator[CoreProcess]:
    core = CoreProcess(tmp_path / "data", disk.environment())
    yield core
    core.sweep()


async def placed(client: TradingClient, names: list[str]) -> dict[str, str]:
    """What became of each: `accepted`, the code of an error, or `no answer`."""
    answers = await asyncio.gather(
        *(client.place(MARKET, name, "buy", "limit", size="0.1", price="1") for name in names), return_exceptions=True
    )
    told: dict[str, str] = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, CommandError):
            told[name] = answer.code
        elif isinstance(answer, BaseException):
            assert isinstance(answer, (ConnectionLost, OSError)), answer
            told[name] = "no answer"
        else:
            told[name] = answer["event"]
    return told


def behind(core: CoreProcess, since: float) -> dict[str, Any] | None:
    """A status written after `since` that tells of commands that wait for the disk."""
    told = core.status()
    return told if told["written_at"] > since and told["pending"] > 9 else None


async def placed_until(seen: asyncio.Event, client: TradingClient, name: str) -> dict[str, str]:
    """Places 500 orders at a time until what the test waits for was seen; what became of each."""
    told: dict[str, str] = {}
    while not (told and seen.is_set()):
        told |= await placed(client, [f"{name}-{number}" for number in range(len(told), len(told) + 500)])
    return told


def open_names(data: Path) -> list[str]:
    core, _ = replay(DirectoryDisk(data))
    core.check()
    return sorted(row["client_id"].decode() for row in core.open_orders())


async def test_f10_a_failed_sync_stops_the_core_and_is_never_tried_again(core: CoreProcess, disk: FaultyDisk) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert await placed(client, ["before"]) == {"before": "accepted"}
    disk.set(sync_errno=errno.EIO)  # once: the next one would succeed
    syncs = disk.get("syncs")
    told = await placed(client, [f"n{number}" for number in range(20)])
    assert await core.ended() == DO_NOT_RESTART
    assert "accepted" not in told.values(), told
    await client.close()
    last = core.log().strip().splitlines()[-1]
    assert "event=stops process=core error=JournalFailed" in last and "Input/output error" in last
    assert "docs/operations.md" in last
    assert disk.get("failed_syncs") == 1 and disk.get("syncs") == syncs + 1, "nothing is synced after that"

    await core.start()
    assert await core.stop() == 0
    assert "before" in open_names(core.data)


async def test_f11_short_and_interrupted_writes_lose_nothing(core: CoreProcess, disk: FaultyDisk) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    disk.set(write_bytes_max=100, interrupts=1000)
    names = [f"n{number}" for number in range(300)]
    told = await placed(client, names)
    assert set(told.values()) == {"accepted"}
    assert disk.get("odd_writes") > 1000
    core.signal(signal.SIGKILL)
    await core.ended()
    await client.close()
    assert set(names) <= set(open_names(core.data))
    assert verify(core.data).sequence > 300


async def test_f12_a_slow_disk_delays_acks_and_loses_none(core: CoreProcess, disk: FaultyDisk) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    accepted: set[str] = set()
    on_disk = DirectoryDisk(core.data)
    for stall_ms in (50, 500, 5000):
        assert await placed(client, [f"old{stall_ms}"]) == {f"old{stall_ms}": "accepted"}
        disk.set(sync_delay_us=stall_ms * 1000)
        seen = asyncio.Event()
        flow = asyncio.create_task(placed_until(seen, client, f"s{stall_ms}"))
        before = core.status()["written_at"]
        told = await until(lambda before=before: behind(core, before), what="commands to wait for the disk")
        seen.set()
        assert told["durable_sequence"] < told["sequence"], "the status tells how far the disk is behind"
        cancel = asyncio.create_task(client.cancel(client_id=f"old{stall_ms}"))  # taken while orders wait
        async with open_operator(core.settings) as operator:
            asked = await operator.status()  # of what a loss of power would take it tells nothing
            assert asked["sequence"] <= durable_sequence(on_disk), "an answer ran ahead of the disk"
        if stall_ms == 5000:
            at = told["written_at"]
            await until(lambda at=at: core.status()["written_at"] > at, what="the loop to go on meanwhile")
            disk.set(sync_delay_us=0)  # one stall of five seconds is enough
        answers = await flow
        assert set(answers.values()) <= {"accepted", "busy"} and "accepted" in answers.values()
        assert (await cancel)["event"] == "canceled"
        accepted |= {name for name, answer in answers.items() if answer == "accepted"}
        disk.set(sync_delay_us=0)
    assert await core.stop() == 0
    await client.close()
    assert accepted == set(open_names(core.data))


async def test_f24_killed_between_the_sync_of_an_order_and_its_answer_it_has_accepted_it(
    core: CoreProcess, disk: FaultyDisk
) -> None:
    core.environment["BYLINE_BATCH_INTERVAL_S"] = "600"  # no cut needs a sync of its own meanwhile
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert await placed(client, ["told"]) == {"told": "accepted"}
    done = disk.get("done_syncs")
    disk.set(done_delay_us=600_000_000)
    answer = asyncio.create_task(placed(client, ["untold"]))
    await until(lambda: disk.get("done_syncs") > done, what="the sync of the order")
    core.signal(signal.SIGKILL)
    await core.ended()
    assert await answer == {"untold": "no answer"}
    await client.close()

    disk.set(done_delay_us=0)
    await core.start()
    url, [key] = gateway_url(core.settings), core.keys
    async with await TradingClient.connect(url, key, cancel_on_disconnect=False) as again:
        for name, outcome in (("told", "accepted"), ("untold", "accepted"), ("unsaid", "never_received")):
            assert (await again.resolve(name))["outcome"] == outcome, name
        assert (await again.place(MARKET, "untold", "buy", "limit", size="0.1", price="1"))["event"] == "duplicate"
    assert await core.stop() == 0
    assert open_names(core.data) == ["told", "untold"]


@pytest.mark.parametrize("disk", [".snapshot"], indirect=True)
async def test_f15_a_snapshot_that_cannot_be_opened_is_never_no_snapshot(core: CoreProcess, disk: FaultyDisk) -> None:
    await core.start()
    [client] = await core.traders(1)
    await placed(client, ["first"])
    taken = await asyncio.to_thread(request_snapshot, core.settings)
    assert taken["sequence"] > 0
    await client.close()
    assert await core.stop() == 0
    for number, code in enumerate((errno.EMFILE, errno.ENOMEM), 1):
        disk.set(open_errno=code)
        core.spawn()
        assert await core.ended() == 1
        assert disk.get("refused_opens") == number
        last = core.log().strip().splitlines()[-1]
        assert "event=stops process=core error=OSError" in last and os.strerror(code) in last
    disk.set(open_errno=0)
    await core.start()
    assert f"snapshot={taken['sequence']}" in core.log(), "nothing was wiped, and the snapshot serves again"
    assert await core.stop() == 0


async def test_a_corrupt_journal_keeps_the_core_down_until_it_is_cut(core: CoreProcess) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    for name in ("one", "two", "three", "four"):
        assert await placed(client, [name]) == {name: "accepted"}
    core.signal(signal.SIGKILL)
    await core.ended()
    await client.close()
    place = max(verify(core.data).sequence - 1, 1)
    [segment] = segments.list_segments(DirectoryDisk(core.data))
    slots = np.memmap(core.data / segment.path, layout.COMMAND, "r+", segments.HEADER_BYTES)
    slots["ts"][np.flatnonzero(slots["sequence"] == place)[0]] ^= 1
    slots.flush()

    supervisor = Supervisor(core.data)
    argv = [sys.executable, "-m", "byline.cli", "process", "core"]
    child = Child("core", argv, {"BYLINE_DATA_DIRECTORY": str(core.data), "BYLINE_GATEWAY_PORT": "0"})
    with pytest.raises(ChildFailed, match="error=JournalCorrupt: .*docs/operations.md"):
        await supervisor.start(child)
    assert child.state == "failed" and child.restarts == 0, "the supervisor never starts it again"
    await supervisor.stop()

    done = subprocess.run(
        [sys.executable, "-m", "byline.cli", "journal", "truncate", "--to", str(place - 1), "--data", str(core.data)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "--yes" in done.stderr and "lost" in done.stdout
    done = subprocess.run([*done.args, "--yes"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    await core.start()
    assert await core.stop() == 0
    assert {"one", "two"} <= set(open_names(core.data)) and "four" not in open_names(core.data)


@pytest.mark.parametrize("seed", range(10))
def test_f10_what_a_failed_sync_left_in_the_cache_is_on_disk_before_it_counts(tmp_path: Path, seed: int) -> None:
    """After a failed sync the kernel holds pages that it calls clean and that are not on the disk. A start in the same
    boot reads them: it must write them again before anything is built on them."""
    disk = SimulatedDisk(seed)
    recovered = recover(tmp_path, disk=disk, settings=SMALL, clock=SystemClock(), threads=False)
    appended = [record(recovered.journal, number) for number in range(1, 40)]
    recovered.journal.publish()
    while recovered.journal.step() == ring.WROTE:
        continue
    synced = recovered.journal.durable_sequence
    appended += [record(recovered.journal, number) for number in range(40, 50)]
    disk.fail["sync"] = (0, errno.EIO)
    recovered.journal.publish()
    assert recovered.journal.step() == ring.FAILED and synced == 39
    recovered.close()

    again = recover(tmp_path, disk=disk, settings=SMALL, clock=SystemClock(), threads=False)
    found = again.report.sequence
    assert synced <= found <= len(appended)
    record(again.journal, found + 1)
    again.journal.publish()
    assert again.journal.step() == ring.WROTE and again.journal.durable_sequence == found + 1
    disk.crash(0.0)
    listed = segments.list_segments(disk)
    assert segments.scan(disk, listed).sequence == found + 1, "what a later group stands on was not on the disk"


def record(journal: Journal, sequence: int) -> bytes:
    """A command that the core rejects: all that matters is that it is one."""
    body = np.zeros(1, layout.TRANSFER)
    body["kind"], body["slots"], body["sequence"], body["ts"] = CommandKind.CUT, 1, sequence, sequence
    assert journal.append(bytearray(body.tobytes())) == 0
    return body.tobytes()
