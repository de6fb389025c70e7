"""How a test waits for what must come. No test measures speed: what ends a wait in vain says that something hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

__all__ = ["HANG_S", "answers", "has_ended", "until"]

HANG_S = 600.0
"""Longer than anything takes on the slowest busy machine."""


async def until(condition: Callable[[], Any], timeout_s: float = HANG_S, what: str = "condition") -> Any:
    """Waits until `condition()` is true and returns its value. A hang is a failure that names what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        await asyncio.sleep(0.01)
    return value


async def answers(ask: Callable[[], Awaitable[Any]], is_wanted: Callable[[Any], Any], pause_s: float = 0.1) -> Any:
    """Asks until the answer is wanted, and returns it; the last answer is in the failure of one that never is.

    The pause between questions must suit the limits of whom it asks.
    """
    deadline = time.monotonic() + HANG_S
    while not is_wanted(answer := await ask()):
        assert time.monotonic() < deadline, f"asked {HANG_S:.0f} s in vain; the last answer: {answer}"
        await asyncio.sleep(pause_s)
    return answer


def has_ended(pid: int) -> bool:
    """Whether that process is gone, or a zombie whose new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
