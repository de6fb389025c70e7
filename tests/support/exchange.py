"""A whole exchange as its users start it: `byline up` in a process of its own, on free ports.

It dies with whoever started it, in whatever way that ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from byline.parent_death import dying_with_parent
from byline.settings import Settings, load_settings
from byline.status_file import read_all_statuses, read_status
from tests.support.waiting import HANG_S, until
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["ExchangeProcess", "descendants", "new_exchange", "rest_of", "running"]

Data = Callable[..., Awaitable[Any]]


class ExchangeProcess:
    """Start it with `start`; end it with `stop` (Ctrl-C) or `kill` (kill -9 of every process at once)."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.environment: dict[str, str] = {}
        """Added to that of whoever starts it."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load_settings({}, data_directory=self.data)

    def status(self, name: str) -> dict[str, Any]:
        return read_status(self.data, name) or {}

    async def start(self) -> None:
        argv = [sys.executable, "-m", "byline.cli", "up", "--data", str(self.data), "--free-ports", *self.options]
        path = self.data.parent / f"{self.data.name}.log"
        with open(path, "ab") as log:
            told_before = log.tell()
            keys = {"BYLINE_KEY_FILE": str(self.data.parent / "wrapping.key")}
            self.process = process = subprocess.Popen(
                argv, stdout=log, stderr=log, env=os.environ | keys | self.environment,
                preexec_fn=dying_with_parent(),  # its own processes die with it in the same way
            )  # fmt: skip

        def is_up() -> bool:
            assert process.poll() is None, self.log()
            return b"Byline is up" in path.read_bytes()[told_before:]

        await until(is_up, what="the exchange to be up")

    def pid(self, name: str) -> int:
        return int(self.status(name)["pid"])

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")[-3000:]

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return await asyncio.to_thread(self.process.wait, HANG_S)

    async def kill(self) -> None:
        """kill -9 of the supervisor and of every process it started."""
        await asyncio.to_thread(self.sweep)

    def sweep(self) -> None:
        """The same for one that may have ended; returns when none is left."""
        if self.process is None:
            return
        pids = [*descendants(self.process.pid)]
        pids += [status["pid"] for status in read_all_statuses(self.data).values() if status["alive"]]
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it died with the supervisor
        self.process.wait(HANG_S)
        deadline = time.monotonic() + HANG_S
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline, "processes of the exchange do not die"
            time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, in sessions of their own or not."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended while we looked
    found, at = [pid], 0
    while at < len(found):
        found += [child for child, parent in parents.items() if parent == found[at]]
        at += 1
    return found[1:]


@pytest.fixture
def new_exchange(tmp_path: Path) -> Iterator[Callable[..., ExchangeProcess]]:
    """Makes exchanges on `tmp_path / "data"` with the options given. What a failed test leaves running is killed."""
    made: list[ExchangeProcess] = []

    def make(*options: str) -> ExchangeProcess:
        made.append(ExchangeProcess(tmp_path / "data", *options))
        return made[-1]

    yield make
    for exchange in made:
        exchange.sweep()


@contextmanager
def running(directory: Path, *options: str, **environment: str) -> Iterator[ExchangeProcess]:
    """One that several tests share, for a fixture of their module: a start costs more than most of what they ask.

    At the end it must stop as told, without an error."""
    exchange = ExchangeProcess(directory / "data", *options)
    exchange.environment |= environment
    try:
        asyncio.run(exchange.start())
        yield exchange
        assert asyncio.run(exchange.stop()) == 0, exchange.log()
    finally:
        exchange.sweep()


@asynccontextmanager
async def rest_of(exchange: ExchangeProcess, wallet: Wallet) -> AsyncIterator[tuple[Data, dict[str, Any]]]:
    """REST of a running exchange, signed in: what asks and gives the data (`method, path, **body`), and the session."""
    api = exchange.status("api")
    async with httpx.AsyncClient(base_url=f"http://{api['host']}:{api['port']}") as http:

        async def data(method: str, path: str, **body: Any) -> Any:
            headers = {"idempotency-key": uuid4().hex} if method == "POST" else {}
            answer = await http.request(method, path, headers=headers, **({"json": body} if body else {}))
            assert answer.status_code < 300, answer.text
            return answer.json()["data"]

        nonce = await data("POST", "/v1/auth/nonce", address=wallet.address)
        session = await data(
            "POST", "/v1/auth/verify", address=wallet.address, nonce=nonce["nonce"],
            signature=wallet.sign(nonce["message"].encode()),
        )  # fmt: skip
        http.headers["authorization"] = "Bearer " + session["access_token"]
        yield data, session
