"""A process that gives way: what it does may come late, and never at the cost of an order."""

from __future__ import annotations

import os

__all__ = ["stand_back"]


def stand_back() -> None:
    """From now on this thread, and those that it starts, run only where no other wants to. It takes no privilege."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
