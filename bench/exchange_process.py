"""One process of an exchange as `byline up` starts it, on a data directory that a bench has made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.harness import WrongResult
from byline.status_file import read_status

__all__ = ["ExchangeProcess"]

READY_S = 600.0
POLL_S = 0.002


class ExchangeProcess:
    """`byline process NAME` on `data`; killed when the `with` ends. Its log is DATA/NAME.log."""

    def __init__(self, name: str, data: Path, **environment: str) -> None:
        self.name, self.data = name, data
        own = {key: value for key, value in os.environ.items() if not key.startswith("BYLINE_")}
        own |= {"BYLINE_DATA_DIRECTORY": str(data), "BYLINE_GATEWAY_PORT": "0"} | environment
        self.began = time.perf_counter()
        """Just before it was started."""
        with open(data / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "byline.cli", "process", name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own,
            )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """What it last said of itself; empty: nothing yet."""
        told = read_status(self.data, self.name) or {}
        return told if told.get("pid") == self.process.pid else {}

    def wait(self, name: str, least: float = 1) -> Any:
        """Until its status says at least `least` of `name`; what it says.

        Raises:
            WrongResult: it ended, or says nothing of the kind for ten minutes.
        """
        deadline = time.monotonic() + READY_S
        while (told := self.status().get(name, 0)) < least:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult(f"{self.name} did not come to {name} {least}: {self.log()[-600:]}")
            time.sleep(POLL_S)
        return told

    def log(self) -> str:
        return (self.data / f"{self.name}.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9. A second call does nothing."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
