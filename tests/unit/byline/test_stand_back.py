"""A process that stands back is scheduled behind all others, and so are the threads that it starts from then on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from byline.processes.priority import stand_back


def _in_a_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(os.sched_getscheduler, 0).result()


def test_a_thread_and_its_children_take_only_what_others_leave() -> None:
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(_in_a_thread).result()
        pool.submit(stand_back).result()
        assert (before, pool.submit(_in_a_thread).result()) == (os.SCHED_OTHER, os.SCHED_IDLE)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
