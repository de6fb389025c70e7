"""The hot path makes no Python object for a record: what is allocated depends on the frames, not on what is in them."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.driver import library
from bench.gateway_client import Draws, connect, drive, judge, plan
from gateway.settings import Tier
from tests.support.gateway import MARKET, exchange

FRAMES = 150
CONNECTIONS = 2
RECORDS = 100


@contextmanager
def counting() -> Iterator[list[int]]:
    """Allocations of this thread inside the block; the list holds their number when it ends."""
    counter = ctypes.PyDLL(library("allocations")._name)
    counter.allocations_counted.restype = ctypes.c_int64
    found: list[int] = []
    counter.allocations_watch()
    try:
        yield found
        found.append(counter.allocations_counted())
    finally:
        counter.allocations_unwatch()


def test_the_counter_sees_what_is_made_in_its_thread() -> None:
    with counting() as quiet:
        pass
    with counting() as busy:
        kept = [number + 10**6 for number in range(1_000)]
    with counting() as elsewhere, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: [number + 10**6 for number in range(1_000)]).result()
    assert len(kept) == 1_000 and quiet[0] < 10 and busy[0] >= 1_000 > 2 * elsewhere[0]


NARROWED: dict[str, Any] = {
    "markets": [MARKET], "collar_ppm": 10**9, "tier": "wide", "addresses": ["127.0.0.0/8"], "expires_at": 2**62,
}  # fmt: skip
TIERS = (Tier("plain", 100, 1_000, 60.0), Tier("wide", 10**9, 10**9, 1.0), Tier("unlimited", 0, 0, 1.0))


@pytest.mark.parametrize("terms", [{}, NARROWED], ids=["any key", "a narrowed key"])
@pytest.mark.parametrize("mode", ["memory", "durable"])
async def test_a_frame_of_many_records_makes_no_more_objects_than_a_frame_of_one(
    tmp_path: Path, mode: str, terms: dict[str, Any]
) -> None:
    # The loop's thread alone is counted, without its timers: what is left goes with the frames, a turn of the loop and
    # a wake-up of the writer for each at the most, however long they take.
    quiet = {"tick_poll_s": 86_400, "ping_interval_s": 86_400, "tiers": TIERS}
    # Everything fits the first segment and the ring: a disk that stands still for a second makes nobody `busy`.
    quiet |= {"segment_bytes": 32 << 20, "ring_slots": 1 << 18}
    async with exchange(tmp_path, ack_mode=mode, **quiet) as x, await x.client(x.operator) as operator:
        keys = [await x.trader(operator, f"t{number}", **terms) for number in range(CONNECTIONS)]
        rng = np.random.default_rng(3)
        made: dict[int, int] = {}
        for round_, per_frame in enumerate((1, RECORDS, 1, RECORDS)):  # the first two find every pool at its size
            sockets = await asyncio.gather(*(asyncio.to_thread(connect, x.url, key, "binary") for key in keys))
            plans = [
                plan("binary", Draws.of(FRAMES * per_frame, f"r{round_}c{n}", rng), signed.account, per_frame)
                for n, signed in enumerate(sockets)
            ]
            with counting() as found:
                result = await asyncio.to_thread(drive, sockets, plans, 1)
            judge(result)
            made[per_frame] = found[0]
            for signed in sockets:
                signed.socket.close()
        more = (made[RECORDS] - made[1]) / (CONNECTIONS * FRAMES)
        # Larger buffers, and frames that shared a turn and do not now; an object for every tenth record would be ten.
        assert more < RECORDS / 10, f"{more:.1f} allocations more a frame of {RECORDS} records than of one ({made})"
