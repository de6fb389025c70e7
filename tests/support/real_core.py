"""The real core behind the ports of settlement and of the API: commands in as JSON objects, events out as slots.

What the gateway, the journal and the event log add in an exchange is left out; `lose` breaks the way to the core.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.core import Core
from engine.messages import layout
from engine.messages.decimals import decimal_text
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder
from engine.messages.errors import Unavailable

NOW = 1_700_000_000_000_000_000


class RealCore:
    """An EventSource, a settlement CommandPort and a platform CorePort over one core."""

    def __init__(self, now_ns: int = NOW) -> None:
        self.core = Core()
        self.now_ns = now_ns
        self.directory = Directory()
        self._decoder = EventDecoder(self.directory)
        self._encoder = CommandEncoder(self.directory, self._decoder.orders)
        self.slots: list[np.ndarray] = []
        self._read = 0
        self.lose: deque[str] = deque()
        """What befalls the coming submits, in order: `request` (it does not arrive), `answer` (it does), `none`; `busy`
        and `cancel_only`: so the gateway answers, without a look at the ref."""
        self.commands: list[dict[str, Any]] = []
        """Those that arrived."""
        self.keys: dict[str, bytes] = {}
        """Public keys that the gateway would let in, by id."""

    def send(self, **command: Any) -> dict[str, Any]:
        """One command; the first event."""
        return self.events(command)[0]

    def events(self, command: Mapping[str, Any]) -> list[dict[str, Any]]:
        command = dict(command)
        record = self._encoder.encode(command)
        struct.pack_into("<Qq", record, 8, self.core.sequence + 1, self.now_ns + self.core.sequence)
        made = self.core.apply(record).copy().reshape(-1).view(layout.EVENT)
        if len(made):
            self.slots.append(made)
        return self._decoder.decode(made, command)

    def balance(self, account: str, asset: str) -> tuple[int, int]:
        """Available and held, units."""
        who, what = self.directory.account(account), self.directory.asset(asset)
        assert who is not None and what is not None
        wanted = (who.index, what.index)
        for row in self.core.balances():
            if (int(row["account"]), int(row["asset"])) == wanted:
                return int(row["available"]), int(row["held"])
        return 0, 0

    # ---- EventSource

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0
        self._read = 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        news, self._read = self.slots[self._read :], len(self.slots)
        return np.concatenate(news) if news else np.zeros(0, dtype=layout.EVENT)

    @property
    def head_sequence(self) -> int:
        return int(self.slots[-1]["sequence"][0]) if self.slots else 0

    # ---- CommandPort, CorePort

    async def submit(self, command: Mapping[str, Any]) -> dict[str, Any]:
        fault = self._fault()
        if fault in ("busy", "cancel_only"):
            return {"event": "rejected", "reason": fault}
        self.commands.append(dict(command))
        answer = self.send(**command)
        if fault == "answer":
            raise Unavailable("the answer is lost (test)")
        return answer

    async def available(self, account: str) -> dict[str, str]:
        who = self.directory.account(account)
        assert who is not None
        return {
            self.directory.assets[int(row["asset"])].name: decimal_text(
                int(row["available"]), self.directory.assets[int(row["asset"])].scale
            )
            for row in self.core.balances()
            if int(row["account"]) == who.index
        }

    async def sequence_of(self, account: str) -> int:
        return self.core.sequence

    async def register_key(self, key_id: str, public_key: bytes, account: str, scopes: Sequence[str]) -> None:
        self._fault()
        self.keys[key_id] = public_key

    async def revoke_key(self, key_id: str, public_key: bytes) -> None:
        self._fault()
        self.keys.pop(key_id, None)

    async def key_uses(self, taken_ns: int | None) -> dict[str, int]:
        return {}  # there is no gateway, so nobody signs in with a key

    def _fault(self) -> str:
        """The next of `lose`. Raises Unavailable for a request that does not arrive."""
        fault = self.lose.popleft() if self.lose else "none"
        if fault == "request":
            raise Unavailable("the core is not reachable (test)")
        return fault

    def status(self) -> dict[str, Any]:
        return {"connected": True}

    def facts(self) -> dict[str, Any]:
        """What its process says of its tables."""
        return {
            "accounts": len(self.directory.accounts), "accounts_max": self.core.limits.accounts,
            "refs": self.core.ref_count, "refs_max": self.core.limits.refs,
        }  # fmt: skip
