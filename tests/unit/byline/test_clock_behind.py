"""A clock that was ahead for one command (F20): the operator hears of it until the clock has caught up."""

from __future__ import annotations

import asyncio
import logging

import pytest

from byline.processes.core import clock_watched
from tests.support.market_flow import Flow
from tests.support.waiting import until

HOUR_NS = 3_600 * 10**9


class Clock:
    now = 0

    def now_ns(self) -> int:
        return self.now


async def test_f20_a_clock_behind_the_engine_is_told_until_it_has_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    core, clock, stop = Flow(1).core, Clock(), asyncio.Event()
    assert core.time > 0
    clock.now = core.time - HOUR_NS
    with caplog.at_level(logging.WARNING, "byline"):
        watch = asyncio.create_task(clock_watched(stop, core, clock, 0.001))
        await until(lambda: len(caplog.messages) >= 3, what="three warnings")
        assert caplog.messages[0] == f"event=clock_behind seconds=3600 engine_time={core.time}"
        clock.now = core.time
        await asyncio.sleep(0.01)
        told = len(caplog.messages)
        await asyncio.sleep(0.05)
        assert len(caplog.messages) == told, "it has caught up"
        stop.set()
        await watch
