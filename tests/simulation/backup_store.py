"""An object store with a backup in it that lags: what settlement's gate asks, and what the auditor looks into.

Production is the gate and what it asks with (`byline.backup_gate`, `persistence.shipped`): they read the head of the
store and the real file beside the journal. Simulated are the store and the hand that ships: now and then it takes the
journal's last sequence and the bytes of the file, and a while later the head names both; for seconds it may ship one of
them without the other. Meanwhile the store may be away, lose a request, answer late, or give a head that is damaged.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from byline.backup_gate import SETTLEMENT_LOG, BackupGate
from engine.messages.errors import Unavailable
from persistence.backup import CHUNK_BYTES, Head, head_name
from persistence.shipped import Shipped
from tests.simulation.loop import Schedule
from tests.simulation.network import MS

__all__ = ["BackupStore"]

IDENTITY = bytes(range(16))


class BackupStore:
    """What settlement's gate needs of `persistence.backup.Objects`, and its shipper. It outlives every settler."""

    def __init__(self, schedule: Schedule, seed: int, directory: Path, sequence: Callable[[], int]) -> None:
        """`sequence`: of the last record that is durable."""
        self.random = random.Random(f"backup-{seed}")
        self.chances: dict[str, float] = {}
        """Of each request: lost, damaged, late. Of each shipment: away (there is none), no_journal, no_log (nothing of
        it for some seconds)."""
        self.happened: Counter[str] = Counter()
        self.sequence = 0
        """Up to here it has the journal: what a restore would bring back."""
        self.log = b""
        """Its copy of the settlement log."""
        self._schedule, self._directory, self._durable = schedule, directory, sequence
        self._until_ns: dict[str, int] = {}
        """Fault of shipments → its end."""
        self._head: bytes | None = None
        self._ship()

    def gate(self) -> BackupGate:
        """That of a new settler."""
        return BackupGate(self._directory, Shipped(self._directory, lambda: self, IDENTITY))  # type: ignore[arg-type, return-value]

    def _draw(self, fault: str) -> bool:
        is_drawn = self.random.random() < self.chances.get(fault, 0.0)
        self.happened[f"backup_{fault}"] += is_drawn
        return is_drawn

    # ------------------------------------------------------------ the shipper

    def _ship(self) -> None:
        sequence = self.sequence if self._lasts("no_journal") else self._durable()
        log = self.log if self._lasts("no_log") else (self._directory / SETTLEMENT_LOG).read_bytes()
        if (sequence > self.sequence or len(log) > len(self.log)) and not self._draw("away"):
            self._schedule.later(self.random.randrange(20, 500) * MS, lambda: self._put(sequence, log))
        self._schedule.later(self.random.randrange(50, 300) * MS, self._ship)

    def _lasts(self, fault: str) -> bool:
        now_ns = self._schedule.now_ns
        if now_ns >= self._until_ns.get(fault, 0) and self._draw(fault):
            self._until_ns[fault] = now_ns + self.random.randrange(500, 10_000) * MS
        return now_ns < self._until_ns.get(fault, 0)

    def _put(self, sequence: int, log: bytes) -> None:
        """Both grow, and neither is taken back: objects are made, never replaced."""
        assert len(log) <= CHUNK_BYTES, "one piece"
        self.sequence, self.log = max(self.sequence, sequence), max(self.log, log, key=len)
        beside = {SETTLEMENT_LOG: (len(self.log), [hashlib.sha256(self.log).hexdigest()])} if self.log else {}
        self._head = Head(self.sequence, 0, beside).pack()

    # ------------------------------------------------------------ persistence.backup.Objects

    async def fetch(self, key: str) -> bytes:
        """Raises KeyError, Unavailable."""
        assert key == head_name(IDENTITY)
        await asyncio.sleep(self.random.uniform(0.001, 0.05))
        if self._draw("late"):
            await asyncio.sleep(self.random.uniform(1.0, 10.0))
        if self._draw("lost"):
            raise Unavailable("the backup's store does not answer (simulated)")
        if self._head is None:
            raise KeyError("no such object")
        return self._head[:-1] + b"?" if self._draw("damaged") else self._head
