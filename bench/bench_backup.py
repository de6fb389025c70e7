"""The backup: what a machine that is lost under load takes with it, and how long it takes to be back.

    traders ─▶ core process ─▶ journal ◀─ backup process ─▶ store          both killed in the middle of the load
                                            store ─▶ restore ─▶ replay ─▶ the journal that was lost, but for its end

The recovery point is measured twice: as the backup tells it of each part (the age of its oldest record when the store
had it), and after kill -9 of both as the time between the last record of the journal and the last one restored. What is
restored must be a prefix of the journal, byte for byte; a whole restore must replay to the same state.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from pathlib import Path

import uvloop

from bench.bench_recovery import records, write_journal
from bench.exchange_process import ExchangeProcess
from bench.gateway_load import commands, prepare, run_load
from bench.harness import Row, WrongResult, seconds
from byline.operator import gateway_url
from byline.settings import load_settings
from persistence import segments
from persistence.backup import Objects, Shipper
from persistence.disk import DirectoryDisk
from persistence.recovery import recover, replay
from persistence.restore import Restored, restore

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = (
    "the network and the store: it is a directory of the same disk (file://), written by the library that speaks to "
    "S3, GCS and Azure; a put there costs its round trip more. Keys and people's data, which are not in a backup"
)
CONNECTIONS, IN_FLIGHT, COMMANDS = 4, 16, 60_000
OPS = 2_000_000
POINT_MUST_S = 1.0


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the recovery point under load, of shipping a whole journal, and of its way back."""
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        lost = uvloop.run(_lose_a_machine(Path(name).resolve(), 1_000 if smoke else COMMANDS, seed))
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        back = _come_back(Path(name).resolve(), 20_000 if smoke else OPS, seed, smoke)
    return [*lost, *back]


async def _lose_a_machine(folder: Path, count: int, seed: int) -> list[Row]:
    """Raises WrongResult: what came back is no prefix of what there was, or the backup sent nothing under load."""
    data, store = folder / "data", folder / "store"
    data.mkdir()
    rng = random.Random(seed)
    with (
        ExchangeProcess("core", data, BYLINE_BATCH_INTERVAL_S="3600") as core,
        ExchangeProcess("backup", data, BYLINE_BACKUP_URL=store.as_uri()) as backup,
    ):
        core.wait("ready")
        url = gateway_url(load_settings({}, data_directory=data))
        keys = await prepare(url, data, CONNECTIONS)
        frames = [commands(count, number, rng) for number in range(CONNECTIONS)]
        load = asyncio.create_task(run_load(url, list(zip(frames, keys, strict=True)), IN_FLIGHT))
        begun = await asyncio.to_thread(backup.wait, "shipped_sequence", 50)
        began = time.perf_counter()
        halfway = await asyncio.to_thread(backup.wait, "shipped_sequence", count * CONNECTIONS // 2)
        rate = (halfway - begun) / (time.perf_counter() - began)
        told = backup.status()
        core.kill()
        backup.kill()
        with contextlib.suppress(ConnectionError):
            await load
    if not told["parts"]:
        raise WrongResult("the backup sent no part under load")
    restored = restore(Objects(store.as_uri()), folder / "restored")
    behind_s = _behind_s(data, folder / "restored", restored)
    case = f"core and backup killed under {CONNECTIONS} connections"
    return [
        Row(case, "commands shipped under load", rate, "a second"),
        Row(case, "oldest record of a part in the store, worst", told["recovery_point_max_s"], "s", must=POINT_MUST_S),
        Row(case, "journal lost with the machine", behind_s, "s", must=POINT_MUST_S),
    ]


def _behind_s(data: Path, back: Path, restored: Restored) -> float:
    """Seconds of the journal in `data` that are not in `back`. Raises WrongResult: that is no prefix of it."""
    last_ts = [0]
    whole, part = DirectoryDisk(data), DirectoryDisk(back)
    listed = segments.list_segments(whole)
    tail = segments.scan(whole, listed, lambda slots, _first, _last: last_ts.append(int(slots["ts"].max())))
    end = segments.scan(part, segments.list_segments(part))
    if not 0 < end.sequence <= tail.sequence or end.sequence != restored.sequence:
        raise WrongResult(f"{end.sequence} records came back of {tail.sequence}")
    if segments.scan(whole, listed, up_to=end.sequence).chain != end.chain:
        raise WrongResult("what came back is no prefix of the journal")
    return max(0.0, (max(last_ts) - restored.last_ts) / 1e9)


def _come_back(folder: Path, ops: int, seed: int, smoke: bool) -> list[Row]:
    """A journal shipped from its first record, restored, and started. Raises WrongResult: it is another one."""
    data, store = folder / "data", folder / "store"
    data.mkdir()
    disk = DirectoryDisk(data)
    write_journal(disk, records(ops, seed, smoke))
    core, tail = replay(disk)
    millions = tail.sequence / 1e6
    shipper, made, started = Shipper(data, Objects(store.as_uri())), list[Restored](), list[bytes]()
    shipper.start()
    shipping = seconds(shipper.step)
    restoring = seconds(lambda: made.append(restore(Objects(store.as_uri()), folder / "restored")))

    def start() -> None:
        recovered = recover(folder / "restored")
        started.append(recovered.core.state_hash())
        recovered.close()

    starting = seconds(start)
    if (made[0].sequence, made[0].chain, started[0]) != (tail.sequence, tail.chain, core.state_hash()):
        raise WrongResult("restored to another journal, or to another state")
    case = f"a journal of {tail.sequence:,} records"
    return [
        Row(case, "shipping a million records", shipping / millions, "s"),
        Row(case, "restoring a million records", restoring / millions, "s"),
        Row(case, "of it: reading and checking the objects, writing the files", made[0].read_s / millions, "s"),
        Row(case, "of it: reading all of it once more", made[0].check_s / millions, "s"),
        Row(case, "starting from it, a million records", starting / millions, "s"),
        Row(case, "from the store to a running core, in all", restoring + starting, "s"),
    ]
