"""The core of an exchange alone, as a real process: recovery, journal, order entry. No database, no chain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import TradingClient, generate_key, public_key
from byline.operator import gateway_url, open_operator
from byline.settings import Settings, load_settings
from byline.status_file import read_status
from tests.support.waiting import until

__all__ = ["MARKET", "CoreProcess", "core"]

MARKET = "CRT-USD"


class CoreProcess:
    """`byline process core` on `data`. Its log is DATA/core.log."""

    def __init__(self, data: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.keys: list[Ed25519PrivateKey] = []
        """Of the last `traders`."""

    @property
    def settings(self) -> Settings:
        return load_settings({}, data_directory=self.data)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def status(self) -> dict[str, Any]:
        return read_status(self.data, "core") or {}

    def log(self) -> str:
        path = self.data / "core.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def start(self) -> None:
        """Started and ready."""
        self.spawn()
        await until(self._is_ready, what="the core to be ready")

    def spawn(self) -> None:
        """Started, whatever becomes of it."""
        self.data.mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BYLINE_")}
        environment |= {
            "BYLINE_DATA_DIRECTORY": str(self.data), "BYLINE_GATEWAY_PORT": "0", "BYLINE_BATCH_INTERVAL_S": "1",
        }  # fmt: skip
        with open(self.data / "core.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "byline.cli", "process", "core"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment | self.environment,
            )  # fmt: skip

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        status = self.status()
        return bool(status.get("ready")) and status.get("pid") == self.process.pid

    async def traders(self, count: int, **options: Any) -> list[TradingClient]:
        """Signed in, each with an account and money; assets and a market are listed if they are not."""
        self.keys = keys = [generate_key() for _ in range(count)]
        async with open_operator(self.settings) as operator:
            for command in (
                {"op": "asset", "asset": "USD", "scale": 6}, {"op": "asset", "asset": "CRT", "scale": 2},
                {"op": "market", "market": MARKET, "base": "CRT", "quote": "USD", "tick": "0.01", "lot": "0.1"},
            ):  # fmt: skip
                await operator.request(command)
            for number, key in enumerate(keys):
                account = f"a{number}:{public_key(key)[:8]}"
                await operator.command("account", account=account)
                await operator.command("deposit", account=account, asset="USD", amount="1000000", ref=f"u-{account}")
                await operator.command("deposit", account=account, asset="CRT", amount="1000000", ref=f"c-{account}")
                await operator.register_key(public_key(key), [account], ["trade", "read"], account, tier="unlimited")
        return [await TradingClient.connect(gateway_url(self.settings), key, **options) for key in keys]

    async def ended(self) -> int:
        """Waits for its end; the exit status."""
        assert self.process is not None
        await until(lambda: self.process is not None and self.process.poll() is not None, what="the end of the core")
        return int(self.process.returncode)

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def sweep(self) -> None:
        """Whatever still runs is killed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreProcess]:
    """One on an empty directory, not started yet; whatever still runs at the end is killed."""
    process = CoreProcess(tmp_path / "data")
    yield process
    process.sweep()
