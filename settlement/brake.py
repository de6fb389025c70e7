"""The cap on what is traded and not settled: past it markets take no new orders until settlement has caught up.

When the oldest cut whose batch is not final is older than the limit, every market in `continuous` is set to
`cancel_only`; when it is younger than a quarter of it, those that were closed here, and that nobody has moved since,
are set back. Cancels always pass.

Follows the event log by itself, cuts and phases: whatever keeps settlement from sealing a cut (a halt, a second core
that is behind, a store that waits) counts from the time of that cut. What it has closed is on disk before the command
is sent, so a crash in between closes or opens again; a market that the operator closed is never opened here.

Never acts before settlement has told which batch is final, and is no use while this process is dead: the supervisor
starts it again, and the age of the cuts has gone on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind, Phase
from engine.messages.errors import Refused, Unavailable
from engine.messages.ports import EventSource
from settlement.appendlog import AppendLog
from settlement.commands import CommandPort
from settlement.ledger import head_positions

__all__ = ["Brake"]

log = logging.getLogger(__name__)

INTERVAL_S = 0.5


class Closed(msgspec.Struct, frozen=True):
    """The brake closed this market, or (not `on`) has nothing to do with it any more."""

    market: str
    on: bool


class Brake:
    """One core. `limit_s` 0: never."""

    def __init__(self, source: EventSource, commands: CommandPort, path: Path, limit_s: float) -> None:
        """Raises DataDirectoryBusy, JournalCorrupt."""
        self._source, self._commands, self._limit_s = source, commands, limit_s
        self._log = AppendLog(path)
        self._names: list[str] = []
        self._phases: list[Phase] = []
        self._sequence = 0
        self._cuts: deque[tuple[int, int]] = deque()
        """Batch and time (ns, UTC) of the cuts that are not settled, oldest first."""
        self._settled = 0
        self.unsettled_s = 0.0
        """Age of the oldest cut that is not settled, as of the last step; 0 if there is none."""
        self.closed: set[str] = set()
        """Markets that the brake holds closed, by name."""
        for _, payload in self._log.records():
            self._take(msgspec.msgpack.decode(payload, type=Closed))
        source.seek(0)

    def status(self) -> dict[str, Any]:
        return {
            "limit_s": self._limit_s,
            "closed": sorted(self.closed),
            "unsettled_s": round(self.unsettled_s, 3),
            "unsettled_cuts": len(self._cuts),
        }

    async def run(self, stop: asyncio.Event, settled: Callable[[], int | None]) -> None:
        """Until told to stop. `settled`: the last batch that is final, None while that is not known."""
        error = ""
        while not stop.is_set():
            try:
                await self.step(settled(), time.time_ns())
                error = ""
            except (Unavailable, Refused) as problem:
                if error != str(problem):
                    log.warning("settlement=brake_waits reason=%s", problem)
                error = str(problem)
            try:
                await asyncio.wait_for(stop.wait(), INTERVAL_S)
            except TimeoutError:
                continue

    async def step(self, settled: int | None, now_ns: int) -> None:
        """Read what is new, close or open what is due. Raises Unavailable, Refused: the rest is done next time."""
        if settled is None:
            return  # nor is anything read: of a year of cuts none is kept that is known to be settled
        self._settled = max(self._settled, settled)  # while settlement reads its store again it tells less
        while len(slots := self._source.read()):
            self._read(slots)
            await asyncio.sleep(0)  # at a start this is the whole event log, and others live on this loop
        while self._cuts and self._cuts[0][0] <= self._settled:
            self._cuts.popleft()
        unsettled_s = self.unsettled_s = max(0.0, (now_ns - self._cuts[0][1]) / 1e9) if self._cuts else 0.0
        if self._sequence > self._source.head_sequence:
            return  # what was sent last is not in the events yet
        if self._limit_s and unsettled_s > self._limit_s:
            for name in self._in_phase(Phase.CONTINUOUS):
                log.error("settlement=brake market=%s unsettled_s=%d limit_s=%d", name, unsettled_s, self._limit_s)
                self._note(name, True)
                await self._set_phase(name, Phase.CANCEL_ONLY)
        elif self.closed and unsettled_s <= self._limit_s / 4:
            closed = set(self._in_phase(Phase.CANCEL_ONLY))
            for name in sorted(self.closed):
                if name in closed:
                    log.warning("settlement=brake_off market=%s", name)
                    await self._set_phase(name, Phase.CONTINUOUS)
                self._note(name, False)

    def close(self) -> None:
        self._log.close()

    def _in_phase(self, phase: Phase) -> list[str]:
        return [name for name, each in zip(self._names, self._phases, strict=True) if each is phase]

    async def _set_phase(self, market: str, phase: Phase) -> None:
        answer = await self._commands.submit({"op": "phase", "market": market, "phase": phase.word})
        if answer.get("event") != "phase_changed":
            said = answer.get("reason", answer.get("event"))
            raise Unavailable(f"market {market} is not set to {phase.word}: {said}")
        self._sequence = max(self._sequence, int(answer.get("sequence", 0)))

    def _note(self, market: str, on: bool) -> None:
        if on != (market in self.closed):
            self._log.append(msgspec.msgpack.encode(Closed(market, on)))
            self._take(Closed(market, on))

    def _take(self, record: Closed) -> None:
        (self.closed.add if record.on else self.closed.discard)(record.market)

    def _read(self, slots: np.ndarray) -> None:
        heads = head_positions(slots)
        kinds, ops = slots["kind"][heads], slots["op"][heads]
        for place in heads[kinds == EventKind.CUT].tolist():
            cut = slots[place : place + 1].view(layout.CUT)[0]
            if int(cut["batch"]) > self._settled:
                self._cuts.append((int(cut["batch"]), int(cut["ts"])))
        listed = (kinds == EventKind.DONE) & (ops == CommandKind.MARKET)
        for place in heads[listed | (kinds == EventKind.PHASE_CHANGED)].tolist():
            one = slots[place : place + 1]
            index = int(one["market"][0])
            if one["kind"][0] == EventKind.PHASE_CHANGED:
                self._phases[index] = Phase(int(one.view(layout.PHASE_CHANGED)["phase"][0]))
                continue
            market = one.view(layout.DONE_MARKET)[0]
            if index == len(self._names):
                self._names.append("")
                self._phases.append(Phase.CONTINUOUS)
            self._names[index], self._phases[index] = market["name"].decode("ascii"), Phase(int(market["phase"]))
