"""The exchange under the soak: core and market data as `byline up` runs them, with accounts, keys and memory samples.

Each process is started by the supervisor's own command line. PostgreSQL, chain and REST are left out: nothing of the
edge depends on them. What goes wrong anywhere in the soak is a line in `World.faults`; it is good when there is none.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.harness import WrongResult
from byline.client import TradingClient, TradingError, generate_key, load_key, public_key
from byline.operator import gateway_url
from byline.settings import Settings
from byline.status_file import read_status
from byline.supervisor import Child, Supervisor

__all__ = ["FAULTS_MAX", "MARKETS", "Member", "Memory", "World"]

MARKETS = tuple(f"S{number}-USD" for number in range(4))
TICK, LOT = "0.01", "0.1"
FAULTS_MAX = 50
"""Faults that are told one by one; more are counted."""
_FUNDS = {"USD": "10000000"} | {market.split("-")[0]: "1000000" for market in MARKETS}
_HANG_S = 900.0


@dataclass(slots=True)
class Member:
    """A trader's account and its keys. `viewer` signs in a drop copy: it may only read."""

    name: str
    key: Ed25519PrivateKey
    viewer: Ed25519PrivateKey | None
    index: int = -1


@dataclass(slots=True)
class Memory:
    """Resident memory of one process over time: (seconds, bytes, anonymous bytes)."""

    pid: int
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    def sample(self, at: float) -> None:
        """Raises OSError: the process is gone."""
        found = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon"):
                found[name] = int(value.split()[0]) * 1024
        self.samples.append((at, found["VmRSS"], found["RssAnon"]))

    def slope(self, since: float, until: float = math.inf) -> float:
        """Anonymous bytes a second by least squares over the samples from `since` to `until`; 0 for fewer than two."""
        rows = [(at, anonymous) for at, _, anonymous in self.samples if since <= at <= until]
        if len(rows) < 2:
            return 0.0
        mean_x = sum(x for x, _ in rows) / len(rows)
        mean_y = sum(y for _, y in rows) / len(rows)
        below = sum((x - mean_x) ** 2 for x, _ in rows)
        return sum((x - mean_x) * (y - mean_y) for x, y in rows) / below if below else 0.0


class World:
    """`async with World(...)` starts it; `operator` is signed in meanwhile."""

    def __init__(self, root: Path, seed: int, traders: int, *, viewers: int) -> None:
        self.settings = Settings(
            root / "data", api_port=0, gateway_port=0, marketdata_port=0, chain_port=0, quiet_market=True, seed=seed
        )
        self.members = [
            Member(f"trader-{number}", generate_key(), generate_key() if number < viewers else None)
            for number in range(traders)
        ]
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.memory: dict[str, Memory] = {}
        self.stop = asyncio.Event()
        """Set by `end`."""
        self.operator: TradingClient
        self._supervisor: Supervisor
        self.began_ns = time.time_ns()
        """When samples of memory say 0, ns since 1970."""
        self._began = time.monotonic()
        self.ended_s = math.inf
        """When everybody stopped trading, on the clock of the samples."""

    def end(self) -> None:
        """Nobody begins anything new."""
        if not self.stop.is_set():
            self.ended_s = time.monotonic() - self._began
            self.stop.set()

    def fault(self, text: str) -> None:
        """Something that must not be."""
        self.counts["faults"] += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    async def __aenter__(self) -> World:
        data = self.settings.data_directory
        data.mkdir(parents=True)
        self._supervisor = Supervisor(data)
        await self._start("core")
        self.gateway_url = gateway_url(self.settings)
        operator = load_key((data / "keys" / "operator.key").read_text())
        self.operator = await TradingClient.connect(self.gateway_url, operator, timeout_s=60.0)
        await self._list()
        await self._start("marketdata")
        self.marketdata_port = int((self.status("marketdata"))["port"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.operator.close()
        await self._supervisor.stop()

    async def stop_exchange(self) -> dict[str, Any]:
        """Stops all processes. Returns the core's last status."""
        died = [child.name for child in self._supervisor.children.values() if child.pid is None]
        if died:
            self.fault(f"processes that died: {died}: {[self._supervisor.log_tail(name) for name in died]}")
        await self.operator.close()
        await self._supervisor.stop()
        return self.status("core")

    def status(self, name: str) -> dict[str, Any]:
        return read_status(self.settings.data_directory, name) or {}

    def log(self, name: str) -> str:
        return (self.settings.data_directory / "logs" / f"{name}.log").read_text(errors="replace")

    def sample(self) -> None:
        """Note the memory of each process now."""
        for memory in self.memory.values():
            try:
                memory.sample(time.monotonic() - self._began)
            except (OSError, KeyError):
                self.fault(f"process {memory.pid} is gone")

    async def released(self) -> int:
        """The sequence up to which everything is told."""
        return int((await self.operator.status())["released_sequence"])

    async def all_of(self, what: str, ways: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Waits for all of them. Raises WrongResult: one hangs, and so would the soak."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        done, hanging = await asyncio.wait(tasks, timeout=_HANG_S) if tasks else (set(), set())
        if hanging:
            raise WrongResult(f"{len(hanging)} of {len(tasks)} {what} for {_HANG_S:.0f} s\n" + "\n".join(self.faults))
        for task in done:
            task.result()

    async def _start(self, name: str) -> None:
        argv = [sys.executable, "-m", "byline.cli", "process", name]
        child = Child(name, argv, self.settings.environment_variables())
        await self._supervisor.start(child)
        assert child.pid is not None
        self.memory[name] = Memory(child.pid)

    async def _list(self) -> None:
        """Assets, markets, accounts with money, keys."""
        commands: list[dict[str, Any]] = [{"op": "asset", "asset": "USD", "scale": 6}]
        for market in MARKETS:
            base = market.split("-")[0]
            commands.append({"op": "asset", "asset": base, "scale": 4})
            commands.append({"op": "market", "market": market, "base": base, "quote": "USD", "tick": TICK, "lot": LOT})
        for member in self.members:
            commands.append({"op": "account", "account": member.name})
            for asset, amount in _FUNDS.items():
                deposit = {"op": "deposit", "account": member.name, "asset": asset, "amount": amount}
                commands.append(deposit | {"ref": f"{asset}-{member.name}"})
        for first in range(0, len(commands), 200):
            answers = await asyncio.gather(*(self.operator.request(one) for one in commands[first : first + 200]))
            assert all(answer.get("event") != "rejected" for answer in answers), answers
        for number, member in enumerate(self.members):
            await self._register(member, number)

    async def _register(self, member: Member, number: int) -> None:
        restrictions: dict[str, Any] = {"tier": "unlimited"}
        if number % 10 == 8:
            restrictions = {"tier": "plain"}  # it runs into its limit
        elif number % 10 == 9:
            restrictions["protection"] = {"window_ms": 1000, "fills": 20}
        register, scopes = self.operator.register_key, ["trade", "read", "transfer"]
        await register(public_key(member.key), [member.name], scopes, member.name, **restrictions)
        if member.viewer is not None:
            await register(public_key(member.viewer), [member.name], ["read"], f"{member.name} drop copy")

    async def turn_phases(self, pause_s: float, times: int | None) -> None:
        """The last market goes through auctions, until told to stop or so many times."""
        done = 0
        while not self.stop.is_set() and (times is None or done < times):
            for op, fields in (("phase", {"phase": "auction"}), ("uncross", {})):
                try:
                    await self.operator.command(op, market=MARKETS[-1], **fields)
                except TradingError as error:
                    self.fault(f"the operator's {op} was refused: {error}")
                await asyncio.sleep(pause_s)
            done += 1
