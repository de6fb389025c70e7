"""A settler and a brake at their start, with much behind them: what they read, whom they let live, what they tell."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from settlement.appendlog import _FRAME
from settlement.batch import Listed, PartExecuted, Sealed, Sent, SignedPart, Stopped, StoredEvent
from settlement.brake import Brake
from settlement.chain.port import CoinPart, Execution, Part, Payout, Signed, VaultListing
from settlement.netting import Batch
from settlement.settler import _BREATH, _NAMED, BatchRecord, Known, SettlementSettings, Settler
from settlement.statement import Statement
from settlement.store import FileBatchStore
from settlement.watcher import Watcher
from tests.support.real_core import RealCore

COUNT = 4 * _BREATH
LISTING = VaultListing("USDC", "0x1::a::A", "0x2", 1, 3)


def _batch(number: int, ref: str = "") -> Batch:
    payouts = [Payout(ref or f"w-{number}", b"", b"", 3)]
    part = Part(number, 0, 1, b"r" * 32, b"t" * 32, [CoinPart("USDC", bytes(32), [(b"a" * 32, -1)], [], payouts)])
    first = number * 10
    stated = Statement(number, first, first + 9, 5, b"h" * 16, b"t" * 32, 2, b"l" * 32, [], 0, bytes(32))
    numbers = number, first, first + 9, b"h" * 16, 5, 6, b"r" * 32, b"t" * 32, 2, 1
    return Batch(*numbers, [part], {"USDC": 7}, statement=stated)


def write_store(path: Path, events: list[StoredEvent]) -> None:
    """As the store writes them, but for the syncs."""
    payloads = [msgspec.msgpack.encode(event) for event in events]
    path.write_bytes(b"".join(_FRAME.pack(len(each), zlib.crc32(each)) + each for each in payloads))


def settled(count: int, refs: Mapping[int, str] = MappingProxyType({})) -> list[StoredEvent]:
    """So many final batches, each with a payout: of the ref in `refs`, or of one that nobody knows."""
    events: list[StoredEvent] = [Listed(1, LISTING)]
    for number in range(1, count + 1):
        done = Execution(f"digest{number}", True, None, "", 9, 1)
        signed = SignedPart(2, number, Signed(b"raw", b"signature", done.digest))
        sealed = Sealed(1, _batch(number, refs.get(number, "")))
        events += [sealed, signed, Sent(3, number), PartExecuted(4, number, done)]
    return events


class World:
    def __init__(self, directory: Path) -> None:
        self.records: list[BatchRecord] = []
        self.stop = asyncio.Event()
        self.watcher = Watcher(directory / "chain.log")
        self.store: FileBatchStore | None = None
        self.path = directory / "batches.log"

    def settler(self, known: Known | None = None) -> Settler:
        self.close()
        self.store = FileBatchStore(self.path)

        async def ask() -> Known:
            return known or Known()

        chain = None  # nothing is sent: these settlers do not come past the reading of their store
        settings = SettlementSettings()
        return Settler(RealCore(), chain, self.store, self.watcher, settings, self.records.append, known=ask)

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.close()
    world.watcher.close()


async def _turns(done: asyncio.Event, turns: list[int], settler: Settler) -> None:
    while not done.is_set():
        turns.append(settler.progress)
        await asyncio.sleep(0)


async def test_others_live_while_all_batches_are_read_and_hear_that_it_goes_on(world: World) -> None:
    write_store(world.path, settled(COUNT))
    settler, done, seen = world.settler(), asyncio.Event(), []
    other = asyncio.create_task(_turns(done, seen, settler))
    await settler._load(world.stop)
    done.set()
    await other
    assert settler.settled_batch == COUNT and [each.number for each in world.records] == list(range(1, COUNT + 1))
    steps = [after - before for before, after in zip(seen[:-1], seen[1:-1], strict=False)]
    assert len(steps) > 4 * COUNT // _BREATH and all(0 < step <= _BREATH for step in steps)


async def test_told_to_stop_it_does_not_read_to_the_end(world: World) -> None:
    write_store(world.path, settled(COUNT))
    settler = world.settler()
    running = asyncio.create_task(settler.run(world.stop))
    await asyncio.sleep(0)
    world.stop.set()
    await running
    assert settler.progress < 2 * _BREATH and settler.settled_batch is None and not world.records


async def test_a_halt_is_told_of_and_ended_behind_the_whole_store_alone(world: World) -> None:
    write_store(world.path, [*settled(_BREATH), Stopped(9, "a difference (test)")])
    settler = world.settler()
    loading = asyncio.create_task(settler._load(world.stop))
    await asyncio.sleep(0)
    assert 0 < settler.progress < _BREATH * 4
    with pytest.raises(ValueError, match="is not halted"):
        settler.resume("too early (test)")
    await loading
    assert settler.resume("looked at (test)") == "a difference (test)"


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (Known(), range(1, 11)),
        (Known(30, range(1, 31), ()), ()),
        (Known(7, range(1, 31), ()), (8, 9, 10)),
        (Known(30, [1, 2, 4, 5, 6, 7, 8, 10], ()), (3, 9)),
        (Known(30, range(1, 31), ["w-4"]), (4,)),
        (Known(30, range(1, 31), None), range(1, 11)),
    ],
)
async def test_what_the_outside_has_is_not_told_again(world: World, known: Known, told: Sequence[int]) -> None:
    write_store(world.path, settled(10 + _NAMED))
    settler = world.settler(known)
    await settler._load(world.stop)
    assert [record.number for record in world.records] == [*told, *range(11, 11 + _NAMED)]
    assert settler.settled_batch == 10 + _NAMED and not settler._lives


async def test_an_old_batch_that_is_not_final_is_told_whatever_is_known(world: World) -> None:
    last = 2 + _NAMED
    sealed: list[StoredEvent] = [Sealed(1, _batch(number)) for number in range(2, last + 1)]
    write_store(world.path, [*settled(1), *sealed])
    await world.settler(Known(last, range(last + 1), ()))._load(world.stop)
    assert [(record.number, record.status) for record in world.records] == [(n, "sealed") for n in range(2, last + 1)]


async def test_others_live_while_the_brake_reads_the_event_log(tmp_path: Path) -> None:
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6)
    brake = Brake(core, core, tmp_path / "brake.log", 100.0)
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await brake.step(0, 0)
    assert seen == [1]
    brake.close()
