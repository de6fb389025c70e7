"""Fault switches of the embedded node: what can go wrong between a settler and Sui, on demand.

For one call of ExecuteTransaction (`next_execute`, in order; or `chances`, at random):

    lost_request    the request does not arrive: nothing happens, UNAVAILABLE
    lost_response   it happens, the answer does not come: DEADLINE_EXCEEDED
    hang            it happens, and the answer comes after `hang_s` (or `release`)
    delay           it happens after `delay_s` (or `release`)
    refuse_once     a definite no; nothing happens
    none            all is well

Until switched off: `unavailable` (every method answers UNAVAILABLE), `stale_read` (reads show the chain as it was when
the switch was set; execution goes on). They break the connection's promises, never the chain's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from settlement.chain.localsui.node import LocalSui
from settlement.chain.localsui.state import Item, State, Turn

__all__ = ["CALL_FAULTS", "Faults", "View"]

NEXT_MAX = 1_000
"""Faults that may be planned at a time: the status names each, on one line."""
CALL_FAULTS = ("lost_request", "lost_response", "hang", "delay", "refuse_once", "none")


@dataclass(frozen=True, slots=True)
class View:
    """The chain as reads show it: objects and tables, transactions up to `executed`, checkpoints up to `height`."""

    state: State
    turn: Turn
    executed: int
    height: int

    @property
    def items(self) -> Mapping[bytes, Item]:
        return self.state.items


@dataclass(slots=True)
class Faults:
    """The switches of one node. `chances`: name → probability of a call's fault, from `dice`."""

    next_execute: deque[str] = field(default_factory=lambda: deque(maxlen=NEXT_MAX))
    chances: dict[str, float] = field(default_factory=dict)
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    unavailable: bool = False
    hang_s: float = 3_600.0
    delay_s: float = 1.0
    _frozen: View | None = None
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> None:
        """What `hang` and `delay` do."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def release(self) -> None:
        """End every wait that is under way."""
        self._released.set()
        self._released = asyncio.Event()

    def plan(self, fault: str, count: int) -> None:
        """The next `count` calls that have none yet. ValueError: none, or more than NEXT_MAX would wait then."""
        waiting = len(self.next_execute)
        if not 1 <= count <= NEXT_MAX - waiting:
            raise ValueError(
                f"{fault}: N must be 1 to {NEXT_MAX - waiting}: {NEXT_MAX} may wait, and {waiting} do"
            )
        self.next_execute.extend([fault] * count)

    def next_fault(self) -> str:
        """What befalls the call that has just come. ValueError for a name that is no fault."""
        if self.next_execute:
            fault = self.next_execute.popleft()
        else:
            draw = self.dice.random()
            fault = "none"
            for name, chance in self.chances.items():
                draw -= chance
                if draw < 0:
                    fault = name
                    break
        if fault not in CALL_FAULTS:
            raise ValueError(f"{fault!r} is no fault of a call; there are {', '.join(CALL_FAULTS)}")
        return fault

    def freeze_reads(self, node: LocalSui) -> None:
        """`stale_read` on: reads show this moment from now on."""
        self._frozen = View(node.state.copy(), node.turn, node.state.checkpoint, node.height)

    def thaw_reads(self) -> None:
        self._frozen = None

    @property
    def is_stale(self) -> bool:
        return self._frozen is not None

    def view(self, node: LocalSui) -> View:
        return self._frozen or View(node.state, node.turn, node.state.checkpoint, node.height)
