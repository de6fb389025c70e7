"""Backup and restore of a real core under load: what a lost machine costs, and what comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from byline.client import ConnectionLost, TradingClient
from byline.processes.backup import run as run_backup
from byline.settings import load_settings
from byline.status_file import StatusFile, read_status
from persistence.backup import Objects
from persistence.disk import DirectoryDisk
from persistence.recovery import recover, replay
from persistence.restore import restore
from tests.support.core_process import MARKET, CoreProcess
from tests.support.waiting import until
from tests.unit.persistence.test_backup import Slow
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload


@pytest.fixture
def backup(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The backup process, started before there is a journal."""
    (tmp_path / "data").mkdir()
    with (tmp_path / "backup.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "byline.cli", "process", "backup"], stdout=log, stderr=log,
            env=os.environ | {
                "BYLINE_DATA_DIRECTORY": str(tmp_path / "data"), "BYLINE_BACKUP_URL": (tmp_path / "store").as_uri(),
            },
        )  # fmt: skip
    yield process
    process.kill()
    process.wait()


async def place_for_ever(client: TradingClient, tag: str, acked: list[tuple[str, int]]) -> None:
    number = 0
    try:
        while True:
            number += 1
            answer = await client.place(MARKET, f"{tag}-{number}", "buy", "limit", size="0.1", price="1")
            acked.append((f"{tag}-{number}", answer["sequence"]))
    except (ConnectionLost, OSError):
        return


async def test_the_process_sends_what_is_new_while_a_full_segment_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, slots = tmp_path / "data", workload()
    data.mkdir()
    settings = load_settings({}, data_directory=data, backup_url=(tmp_path / "store").as_uri())
    store = Slow(settings.backup_url)
    monkeypatch.setattr("byline.processes.backup.Objects", lambda _url: store)
    recovered, stop = recover(data, settings=SETTINGS), asyncio.Event()

    def told(name: str) -> int:
        return int((read_status(data, "backup") or {}).get(name, 0))

    at = feed(recovered, slots, 0, 9000)  # more than a segment
    process = asyncio.create_task(run_backup(settings, StatusFile(data, "backup"), stop))
    try:
        await until(store.begun.is_set, what="the first segment on its way")
        feed(recovered, slots, at, 12_000)
        await until(lambda: told("shipped_sequence") == recovered.core.sequence, what="what came behind it")
        assert (told("segments"), told("unsealed"), told("reachable")) == (0, 1, 1)
    finally:
        store.go_on.set()
    await until(lambda: (told("segments"), told("unsealed")) == (1, 0), what="the sealed segment")
    stop.set()
    await process
    recovered.close()
    assert restore(Objects(settings.backup_url), tmp_path / "new").sequence == recovered.core.sequence


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "byline.cli", *argv], capture_output=True, text=True, check=False)


async def test_a_lost_machine_costs_what_was_not_shipped_and_nothing_else(
    core: CoreProcess, backup: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    await core.start()
    clients = await core.traders(2, cancel_on_disconnect=False)
    acked: list[tuple[str, int]] = []
    flow = [asyncio.create_task(place_for_ever(client, f"c{n}", acked)) for n, client in enumerate(clients)]

    def told() -> dict[str, float]:
        return read_status(core.data, "backup") or {}

    await until(lambda: len(acked) > 300 and told().get("parts", 0) > 3, what="parts in the store under load")
    core.process.kill()  # type: ignore[union-attr]
    backup.kill()
    await core.ended()
    backup.wait()
    await asyncio.gather(*flow)
    shipped = told()
    assert 0 < shipped["recovery_point_s"] <= shipped["recovery_point_max_s"]
    running, _ = replay(DirectoryDisk(core.data))

    shutil.rmtree(core.data)  # the machine is gone
    restored = tmp_path / "restored"
    store = (tmp_path / "store").as_uri()
    done = command("restore", "--from", store, "--data", str(restored), "--replay")
    assert done.returncode == 0, done.stderr
    assert "Restored" in done.stdout and "replayed in" in done.stdout and "keys are never in a backup" in done.stdout
    back, tail = replay(DirectoryDisk(restored))
    back.check()
    assert shipped["shipped_sequence"] <= tail.sequence <= running.sequence
    names = {row["client_id"].decode() for row in back.open_orders()}
    assert {name for name, sequence in acked if sequence <= tail.sequence} <= names

    again = command("restore", "--from", store, "--data", str(restored))
    assert again.returncode == 2 and "empty directory" in again.stderr and again.stderr.count("\n") == 1
    core.data = restored
    await core.start()  # and trading goes on there: keys of traders came back with the registry
    assert f"sequence={tail.sequence} " in core.log()
    assert await core.stop() == 0


async def test_an_exchange_that_stops_has_all_of_it_shipped_and_a_point_is_chosen_by_time(
    core: CoreProcess, backup: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    await core.start()
    [client] = await core.traders(1)
    acked: list[tuple[str, int]] = []
    flow = asyncio.create_task(place_for_ever(client, "c", acked))
    await until(lambda: len(acked) > 50, what="orders")
    await until(lambda: read_status(core.data, "backup"), what="the backup to run")
    assert await core.stop() == 0
    backup.terminate()
    assert await asyncio.to_thread(backup.wait) == 0
    await flow
    mine, _ = replay(DirectoryDisk(core.data))
    store = (tmp_path / "store").as_uri()
    done = command("restore", "--from", store, "--data", str(tmp_path / "whole"), "--replay")
    assert done.returncode == 0 and mine.state_hash().hex() in done.stdout.replace("\n", ""), done
    done = command("restore", "--from", store, "--data", str(tmp_path / "seven"), "--to", "7")
    assert done.returncode == 0 and "up to sequence 7 " in done.stdout, done
    assert (tmp_path / "seven" / "projection.rebuild").exists()
    done = command("restore", "--from", store, "--data", str(tmp_path / "x"), "--to", "1999-01-01T00:00:00+00:00")
    assert done.returncode == 2 and "before the first record" in done.stderr and not (tmp_path / "x/journal").exists()
    for point in ("yesterday", "2026-11-21T20:00:00", "-4", "0"):
        done = command("restore", "--from", store, "--data", str(tmp_path / "x"), f"--to={point}")
        assert done.returncode == 2 and "a sequence, or a time" in done.stderr, done


async def test_a_backup_that_is_stopped_before_it_began_ships_what_there_is(core: CoreProcess, tmp_path: Path) -> None:
    await core.start()
    [client] = await core.traders(1)
    await client.place(MARKET, "c-1", "buy", "limit", size="0.1", price="1")
    assert await core.stop() == 0
    settings = load_settings({}, data_directory=core.data, backup_url=(tmp_path / "store").as_uri())
    stop = asyncio.Event()
    stop.set()
    await run_backup(settings, StatusFile(core.data, "backup"), stop)
    mine, _ = replay(DirectoryDisk(core.data))
    done = command("restore", "--from", settings.backup_url, "--data", str(tmp_path / "whole"), "--replay")
    assert done.returncode == 0 and mine.state_hash().hex() in done.stdout.replace("\n", ""), done
