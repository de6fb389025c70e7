"""Every batch that becomes final is told once, in order, however often the core is away meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from byline import settled_notices
from byline.settled_notices import SettledNotices
from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from settlement.settler import BatchRecord
from tests.support.waiting import HANG_S


class Core:
    """Raises what stands first in `faults`, then takes the command."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.told = list(faults), asyncio.Queue[dict[str, Any]]()

    async def submit(self, command: dict[str, Any]) -> dict[str, Any]:
        if self.faults:
            raise self.faults.pop(0)
        self.told.put_nowait(command)
        return {"type": "told", "sessions": 1}


def record(number: int, status: str = "final", final_ts: int | None = None) -> BatchRecord:
    at = time.time_ns() if final_ts is None else final_ts
    return BatchRecord(
        number, status, 10 * number, 10 * number + 9, "", "", "", 0, 0, 1, [f"digest{number}"], 0, 1, 1, 1, at, "",
        "embedded (not a network)", "movevm",
    )  # fmt: skip


async def told(core: Core, notices: SettledNotices, count: int) -> list[dict[str, Any]]:
    stop = asyncio.Event()
    running = asyncio.create_task(notices.run(stop))
    try:
        return [await asyncio.wait_for(core.told.get(), HANG_S) for _ in range(count)]
    finally:
        stop.set()
        await running


async def test_a_final_batch_is_told_and_no_other_and_none_from_before() -> None:
    core = Core()
    notices = SettledNotices(core)
    for one in (record(1, final_ts=1), record(2, "sealed"), record(2, "submitted"), record(2), record(3)):
        notices.add(one)
    assert await told(core, notices, 2) == [
        {"op": "settled", "batch": number, "first_sequence": 10 * number, "last_sequence": 10 * number + 9,
         "digests": [f"digest{number}"], "chain": "embedded (not a network)", "executor": "movevm"}
        for number in (2, 3)
    ]  # fmt: skip
    assert core.told.empty()


async def test_a_core_that_is_away_is_asked_again_and_a_refusal_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settled_notices, "RETRY_S", 0.001)
    core = Core(Unavailable("away"), Unavailable("still away"))
    notices = SettledNotices(core)
    notices.add(record(5))
    assert [notice["batch"] for notice in await told(core, notices, 1)] == [5]
    core.faults = [Refused("no"), OutcomeUnknown("who knows")]
    for number in (6, 7, 8):
        notices.add(record(number))
    with caplog.at_level(logging.WARNING):
        assert [notice["batch"] for notice in await told(core, notices, 1)] == [8]  # an unknown outcome is not repeated
    assert "batch=6" in caplog.text and "batch=7" in caplog.text


async def test_the_oldest_goes_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled_notices, "WAITING_MAX", 3)
    core = Core()
    notices = SettledNotices(core)
    for number in range(1, 6):
        notices.add(record(number))
    assert [notice["batch"] for notice in await told(core, notices, 3)] == [3, 4, 5]
