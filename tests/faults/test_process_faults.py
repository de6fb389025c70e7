"""Faults of processes and of what they need, under the real core: F9, F16, F17, F19, F21, F22, F46, F53, F62, F63."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from byline.client import CommandError, TradingClient
from byline.operator import gateway_url
from byline.processes.epoch import next_epoch
from engine.messages.errors import JournalCorrupt
from engine.messages.layout import SLOT_BYTES
from gateway.session import Session
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.recovery import replay, verify
from persistence.ring import WROTE
from tests.faults.test_storage_faults import open_names, placed
from tests.support.core_process import MARKET, CoreProcess
from tests.support.exchange import until
from tests.support.faulty_disk import compiler, without_names
from tests.support.gateway import Exchange, exchange
from tests.unit.gateway.test_session import session, tell


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs for a data directory: two segments, the event log, and little more."""
    (tmp_path / "data").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(tmp_path / "data")]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs; the simulator has the same with a simulated disk")
    yield tmp_path / "data"
    subprocess.run(["umount", "--lazy", str(tmp_path / "data")], check=True)


async def test_f09_killed_on_a_full_disk_it_comes_back_and_goes_on_when_there_is_space(
    small_disk: Path, core: CoreProcess
) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert set((await placed(client, ["one", "two"])).values()) == {"accepted"}
    await until((small_disk / segments.SPARE).exists, what="the spare: without it the disk counts as full at once")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # until it is full
        while file.write(bytes(1 << 20)):
            continue
    told = await placed(client, [f"full-{number}" for number in range(50)])
    assert set(told.values()) == {"accepted"}, "what is prepared is used up first"
    core.signal(signal.SIGKILL)
    await core.ended()
    await client.close()

    core.spawn()  # there is no space at all: it serves what it can, or ends and may be started again; it loses nothing
    await until(lambda: core.status().get("ready") or core.process.poll() is not None, what="a decision")  # type: ignore[union-attr]
    core.sweep()
    ballast.unlink()
    await core.start()
    assert await core.stop() == 0
    accepted = {name for name, answer in told.items() if answer == "accepted"}
    assert accepted | {"one", "two"} == set(open_names(core.data))


async def test_f19_f62_f63_a_second_core_on_one_journal_is_refused_and_the_first_goes_on(core: CoreProcess) -> None:
    await core.start()
    [client] = await core.traders(1)
    again = subprocess.run(
        [sys.executable, "-m", "byline.cli", "process", "core"], capture_output=True, text=True, check=False,
        env=os.environ | {"BYLINE_DATA_DIRECTORY": str(core.data), "BYLINE_GATEWAY_PORT": "0"},
    )  # fmt: skip
    assert again.returncode == 1
    last = again.stderr.strip().splitlines()[-1]
    assert "error=DataDirectoryBusy" in last and f"held by process {core.pid}" in last
    assert await placed(client, ["after"]) == {"after": "accepted"}
    epoch = int((core.data / "keys" / "epoch").read_text())
    await client.close()
    assert await core.stop() == 0 and verify(core.data).sequence > 0
    await core.start()
    assert int((core.data / "keys" / "epoch").read_text()) == epoch + 1, "the refused one was no start"
    assert await core.stop() == 0


@contextlib.contextmanager
def stolen_cores() -> Iterator[None]:
    """Twice as many loops that never wait as there are cores."""
    thieves = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for thief in thieves:
            thief.kill()
            thief.wait()


async def test_f22_with_both_cores_stolen_every_command_is_answered(core: CoreProcess) -> None:
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    with stolen_cores():
        names = [f"n{number}" for number in range(400)]
        told = await placed(client, names)
        assert set(told.values()) <= {"accepted", "busy"}
        accepted = [name for name, answer in told.items() if answer == "accepted"]
        canceled = await asyncio.gather(*(client.cancel(client_id=name) for name in accepted))
        assert {answer["event"] for answer in canceled} == {"canceled"}, "what takes risk away always passes"
    await client.close()
    assert await core.stop() == 0
    assert open_names(core.data) == []


@contextlib.asynccontextmanager
async def written_by_hand(root: Path, **settings: Any) -> AsyncIterator[tuple[Exchange, asyncio.Event, Any]]:
    """A listed exchange with a trader; nothing is written while the event is set. With the trader's key."""
    is_stolen = asyncio.Event()
    async with exchange(root, listed=False, threads=False, **settings) as x:

        async def write() -> None:
            while True:
                while not is_stolen.is_set() and x.journal.step() == WROTE:
                    continue
                await asyncio.sleep(0.001)

        writer = asyncio.create_task(write())
        async with await x.client(x.operator) as operator:
            await operator.command("asset", asset="USD", scale=6)
            await operator.command("asset", asset="CRT", scale=2)
            await operator.command("market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="0.1")
            key = await x.trader(operator, "alice")
        yield x, is_stolen, key
        writer.cancel()


async def test_f22_while_the_queue_is_full_cancels_are_taken_and_orders_are_told_that_it_is_busy(
    tmp_path: Path,
) -> None:
    """The journal's writer gets no core at all: what was taken waits, and nothing of it is told."""
    async with (
        written_by_hand(tmp_path, pending_max=256) as (x, is_stolen, key),
        await x.client(key, cancel_on_disconnect=False) as client,
    ):
        old = [f"old-{number}" for number in range(10)]
        assert set((await placed(client, old)).values()) == {"accepted"}
        is_stolen.set()
        names = [f"n{number}" for number in range(400)]
        orders = [asyncio.create_task(placed(client, [name])) for name in names]
        await until(lambda: sum(o.done() for o in orders) + x.sequencer.pending == 400, what="all to be judged")
        refused = [name for name, order in zip(names, orders, strict=True) if order.done()]
        assert 100 < len(refused) < 200 and refused == names[-len(refused) :], "who came first has the room"
        taken = x.sequencer.pending
        cancels = [asyncio.create_task(client.cancel(client_id=name)) for name in old]
        await until(lambda: x.sequencer.pending == taken + 10, what="every cancel to be taken")
        assert await placed(client, ["late"]) == {"late": "busy"}, "and orders are not"
        assert not any(cancel.done() for cancel in cancels), "nobody is told what is not on disk"
        is_stolen.clear()
        assert {answer["event"] for answer in await asyncio.gather(*cancels)} == {"canceled"}
        told = {name: answer for order in orders for name, answer in (await order).items()}
        assert told == {name: "busy" if name in refused else "accepted" for name in names}
        assert await placed(client, ["after"]) == {"after": "accepted"}
    assert open_names(tmp_path) == sorted({*names, "after"} - {*refused})


@pytest.mark.parametrize("landed", [0, 1, 17, 39, 40])
async def test_f23_f24_engine_dies_in_mid_batch_and_resolve_tells_which_of_it_there_are(
    tmp_path: Path, landed: int
) -> None:
    """Of a group of forty orders so many are on disk whole, and the next one in part; none was acked."""
    alive, died = tmp_path / "alive", tmp_path / "died"
    alive.mkdir()
    names = [f"n{number:02}" for number in range(40)]
    async with (
        written_by_hand(alive) as (x, is_stolen, key),
        await x.client(key, cancel_on_disconnect=False) as client,
    ):
        assert await placed(client, ["acked"]) == {"acked": "accepted"}
        is_stolen.set()
        orders = [asyncio.create_task(placed(client, [name])) for name in names]
        await until(lambda: x.sequencer.pending == len(names), what="all to wait for the disk")
        shutil.copytree(alive, died)
        assert x.journal.step() == WROTE  # from here to the copy no turn of the loop: nobody is told
        assert x.journal.durable_sequence == x.sequencer.sequence
        [segment] = (alive / "journal").glob("*.journal")
        written = segment.read_bytes()
        used = -(-len(written.rstrip(b"\0")) // SLOT_BYTES) - len(names)  # an order is of one slot
        end = (used + landed) * SLOT_BYTES + SLOT_BYTES // 3
        (died / "journal" / segment.name).write_bytes(written[:end].ljust(len(written), b"\0"))
        assert not any(order.done() for order in orders)
        is_stolen.clear()
        await asyncio.gather(*orders)
    async with exchange(died, restart=True) as x, await x.client(key, cancel_on_disconnect=False) as client:
        outcomes = [(await client.resolve(name))["outcome"] for name in ["acked", *names]]
        assert outcomes == ["accepted"] * (1 + landed) + ["never_received"] * (len(names) - landed)
        again = await placed(client, names)  # said again each is there once
        assert [again[name] for name in names] == ["duplicate"] * landed + ["accepted"] * (len(names) - landed)
    assert open_names(died) == ["acked", *names]


async def test_f21_a_core_without_memory_loses_no_order_that_it_took(core: CoreProcess) -> None:
    """Its address space may not grow: it answers, refuses or ends, and a start with memory has what was told."""
    await core.start()
    clients = await core.traders(3, cancel_on_disconnect=False)
    size = int((Path("/proc") / str(core.pid) / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(core.pid, resource.RLIMIT_AS, (size, size))
    told: dict[str, str] = {}
    for number in range(8):
        names = [f"n{number}-{place}" for place in range(100)]
        told |= await placed(clients[number % 3], names)
    assert set(told.values()) <= {"accepted", "busy", "unavailable", "no answer"}, set(told.values())
    core.sweep()
    for client in clients:
        await client.close()

    await core.start()  # with memory
    assert await core.stop() == 0
    accepted = {name for name, answer in told.items() if answer == "accepted"}
    assert accepted <= set(open_names(core.data)) <= accepted | {n for n, a in told.items() if a == "no answer"}


async def test_f53_a_log_that_cannot_be_written_stops_no_order(core: CoreProcess) -> None:
    core.data.mkdir()
    (core.data / "core.log").symlink_to("/dev/full")
    core.spawn()
    await until(lambda: core.status().get("ready"), what="the core to be ready without a log")
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert await placed(client, ["one"]) == {"one": "accepted"}
    await client.close()
    with pytest.raises(CommandError):
        async with await TradingClient.connect(gateway_url(core.settings), await _key(core)) as other:
            await other.place(MARKET, "x", "buy", "limit", size="1", price="nonsense")
    assert await core.stop() == 0
    (core.data / "core.log").unlink()
    core_state, _ = replay(DirectoryDisk(core.data))
    core_state.check()
    assert open_names(core.data) == ["one"]


@pytest.mark.skipif(compiler() is None, reason="needs a C compiler for the shim")
async def test_f53_without_a_resolver_and_with_nowhere_to_tell_its_numbers_orders_go_on(
    core: CoreProcess, tmp_path: Path
) -> None:
    core.environment, asked = without_names(tmp_path)
    code = "import socket; socket.getaddrinfo('exchange.invalid', 80)"
    proof = subprocess.run([sys.executable, "-c", code], env=os.environ | core.environment, capture_output=True)
    assert proof.returncode == 1 and asked.read_bytes() == b"x", "the shim does what it is for"
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert await placed(client, ["one"]) == {"one": "accepted"}
    partial = core.data / "run" / "core.partial"  # where each status begins: from here on none can be written

    def stands_in_its_way() -> bool:
        with contextlib.suppress(FileExistsError):
            partial.mkdir()
        return partial.is_dir()

    await until(stands_in_its_way, what="a directory where the status begins")
    await until(lambda: "event=status_not_written" in core.log(), what="the core to notice")
    assert await placed(client, ["two"]) == {"two": "accepted"}
    since = core.status()["written_at"]
    partial.rmdir()
    await until(lambda: core.status()["written_at"] > since, what="the status to be told again")
    await client.close()
    assert await core.stop() == 0
    assert asked.read_bytes() == b"x", "nothing on the way of an order looks a name up"
    assert open_names(core.data) == ["one", "two"]


async def _key(core: CoreProcess) -> object:
    from byline.client import load_key

    return load_key((core.data / "keys" / "operator.key").read_text())


BOMBS = {
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "long text": b'{"op":"ping","rid":"' + b"x" * 1_000_000 + b'"}',
    "many digits": b'{"op":"ping","rid":' + b"9" * 1_000_000 + b"}",
    "doubled keys": b"{" + b'"op":"ping",' * 20_000 + b'"rid":1}',
    "many commands": b"[" + b",".join([b'{"op":"ping"}'] * 20_000) + b"]",
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
@pytest.mark.parametrize("is_signed_in", [True, False])
def test_f46_a_bomb_in_json_is_refused_at_little_cost(bomb: str, is_signed_in: bool) -> None:
    made: Session = session(signed_in=is_signed_in)
    tell(made, {"op": "ping", "rid": 1})
    tracemalloc.start()
    try:
        outputs = tell(made, BOMBS[bomb])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outputs, "it is answered, or its session ends"
    refusals = [output for output in outputs if b'"error"' in bytes(getattr(output, "payload", b"") or b"")]
    closes = [output for output in outputs if type(output).__name__ == "Close"]
    assert refusals or closes
    assert peak < 2 * len(BOMBS[bomb]) + (1 << 20), "no more than the text and a megabyte"
    assert not any(json.loads(output.payload).get("type") == "pong" for output in refusals)


async def test_f16_a_deleted_journal_is_no_new_exchange(core: CoreProcess) -> None:
    """Only the segments are gone: the core stays down with one line, and nothing that is left is touched."""
    await core.start()
    await core.traders(1)
    assert await core.stop() == 0
    for path in (core.data / "journal").glob("*.journal"):
        path.unlink()
    left = {path: path.read_bytes() for path in (core.data / "journal.mark", core.data / "keys" / "epoch")}
    core.spawn()
    assert await core.ended() == 3
    last = core.log().strip().splitlines()[-1]
    assert "error=JournalCorrupt: journal: has no segment, but it had one: here are journal.mark, keys/" in last
    assert "stays down, see docs/operations.md" in last
    assert {path: path.read_bytes() for path in left} == left
    found = subprocess.run(
        [sys.executable, "-m", "byline.cli", "journal", "verify", "--data", str(core.data)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1 and "has no segment" in found.stdout and "sound" not in found.stdout


async def test_f17_the_count_of_starts_is_durable_and_refused_when_it_says_nothing(core: CoreProcess) -> None:
    await core.start()
    assert await core.stop() == 0
    epoch = core.data / "keys" / "epoch"
    assert next_epoch(core.data) == int(epoch.read_text()) == 2
    for text in (b"", b"\0\0", b"two\n", b"-3\n"):
        epoch.write_bytes(text)
        with pytest.raises(JournalCorrupt, match="keys/epoch: holds no number"):
            next_epoch(core.data)
        assert epoch.read_bytes() == text
    core.spawn()
    assert await core.ended() == 3 and "keys/epoch: holds no number" in core.log().strip().splitlines()[-1]


async def test_f17_orders_of_lost_connections_end_also_where_the_count_of_starts_is_lost(core: CoreProcess) -> None:
    """As a restore to a point leaves a directory: the journal, but neither event log nor count."""
    await core.start()
    [client] = await core.traders(1, cancel_on_disconnect=True)
    placed = await client.place(MARKET, "cod", "buy", "limit", size="0.1", price="1")
    assert placed["event"] == "accepted"
    core.signal(signal.SIGKILL)
    await core.ended()
    await client.close()
    (core.data / "keys" / "epoch").unlink()
    shutil.rmtree(core.data / "events")
    await core.start()
    assert int((core.data / "keys" / "epoch").read_text()) == 2
    assert await core.stop() == 0
    assert not len(replay(DirectoryDisk(core.data))[0].open_orders())


def test_f17_the_count_of_starts_is_on_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    steps: list[str] = []

    def noted(name: str, is_file: bool) -> None:
        real = getattr(os, name)

        def call(*given: Any, **more: Any) -> Any:
            steps.append(name if not is_file else f"{name} {Path(os.readlink(f'/proc/self/fd/{given[0]}')).name}")
            return real(*given, **more)

        monkeypatch.setattr(os, name, call)

    noted("fsync", True)
    noted("rename", False)
    assert next_epoch(tmp_path) == 1
    assert steps == ["fsync epoch.new", "rename", "fsync keys"]
