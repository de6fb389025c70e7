"""A whole exchange as its users start it: `byline up` in a process of its own, on free ports."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from byline.settings import Settings, load_settings
from byline.status_file import read_all_statuses, read_status

__all__ = ["ExchangeProcess", "until"]

START_TIMEOUT_S = 90.0


async def until(condition: Any, timeout_s: float = 60.0, what: str = "condition") -> Any:
    """Waits until `condition()` is true and returns its value. A hang is a failure that names what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        await asyncio.sleep(0.05)
    return value


class ExchangeProcess:
    """Start it with `start`; end it with `stop` (Ctrl-C) or `kill` (kill -9 of every process at once)."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
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
            self.process = process = subprocess.Popen(argv, stdout=log, stderr=log)

        def is_up() -> bool:
            assert process.poll() is None, self.log()
            return b"Byline is up" in path.read_bytes()[told_before:]

        await until(is_up, START_TIMEOUT_S, "the exchange to be up")

    def pid(self, name: str) -> int:
        return int(self.status(name)["pid"])

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")[-3000:]

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return await asyncio.to_thread(self.process.wait, 60)

    async def kill(self) -> None:
        """kill -9 of the supervisor and of every process it started."""
        assert self.process is not None
        pids = [status["pid"] for status in read_all_statuses(self.data).values() if status["alive"]]
        os.kill(self.process.pid, signal.SIGKILL)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it died with the supervisor
        await asyncio.to_thread(self.process.wait, 60)
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="all processes to be gone")
