"""A really full disk (a small tmpfs) under order entry: no ack without a record, cancels pass, then it goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from byline.client import CommandError
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import until

SIZE_BYTES = 96 << 20
BATCH = 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of SIZE_BYTES."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs; tests/simulation has the same with a simulated disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def has_prepared(root: Path) -> bool:
    """Whether nobody is about to take more of the disk: what is left is left."""
    sizes = [path.stat().st_size for path in (root / "events").glob("*.events")]
    return any(root.rglob("spare")) and len(sizes) == 2 and sizes[0] == sizes[1]


async def test_f09_a_full_disk_leaves_cancels_only_and_trading_resumes_when_space_returns(small_disk: Path) -> None:
    async with exchange(small_disk) as x:
        async with await x.client(x.operator) as operator:
            key = await x.trader(operator, "alice")
        async with await x.client(key, cancel_on_disconnect=False) as client:
            await client.place(MARKET, "first", "buy", "limit", size="1", price="1")
            await until(lambda: has_prepared(small_disk), what="the next files to be prepared")
            ballast = small_disk / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - (1 << 16)))
            accepted: set[str] = {"first"}
            refused: dict[str, str] = {}
            number = 0
            while not refused:
                names = [f"n{number + offset}" for offset in range(BATCH)]
                number += BATCH
                answers = await asyncio.gather(
                    *(client.place(MARKET, name, "sell", "limit", size="0.1", price="100") for name in names),
                    return_exceptions=True,
                )
                for name, answer in zip(names, answers, strict=True):
                    if isinstance(answer, CommandError):
                        refused[name] = answer.code
                    else:
                        assert answer["event"] == "accepted"
                        accepted.add(name)
                assert number < 200_000, "the journal never ran out of space"
            assert set(refused.values()) <= {"busy", "cancel_only"}
            await until(lambda: x.server.status()["cancel_only"], what="the gateway to take cancels only")
            assert x.journal.status == "disk_full" and x.server.status()["journal"] == "disk_full"
            canceled = await client.cancel(client_id="first")
            assert canceled["event"] == "canceled"
            with pytest.raises(CommandError, match="cancel_only"):
                await client.place(MARKET, "late", "buy", "limit", size="1", price="1")

            ballast.unlink()
            await until(lambda: x.journal.status == "running", what="the journal to find space again")
            await until(lambda: not x.server.status()["cancel_only"], what="orders to be taken again")
            answer = await client.place(MARKET, "late", "buy", "limit", size="1", price="1")
            assert answer["event"] == "accepted"
            accepted.add("late")
        x.journal.wait_durable(x.core.sequence)
        core, _ = replay(DirectoryDisk(small_disk))
        assert core.state_hash() == x.core.state_hash()
        assert len(core.open_orders()) == len(accepted) - 1  # one was canceled, and nothing refused is there
