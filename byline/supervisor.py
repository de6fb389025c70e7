"""Starts the processes of one exchange in order, keeps them running, and stops them in the reverse order.

    starting ──ready──▶ running ──exit──▶ waiting (back-off) ──▶ starting
        │                  │                                        │ too many restarts
        └──── exit 3 ──────┴──▶ failed  (never restarted)  ◀────────┘

A child says that it is ready in its status file. Each has its own log under DATA/logs and dies with the supervisor
(parent-death signal), also when that is killed. Exit status 3 means "restarting would do harm", as with a corrupt
journal: the child stays down and the reason stands in its log. A child that dies more than `RESTARTS_MAX` times within
`RESTARTS_WINDOW_S` stays down too.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byline.status_file import read_status
from engine.messages.errors import LocalFault

__all__ = ["DO_NOT_RESTART", "Child", "ChildFailed", "Supervisor"]

logger = logging.getLogger(__name__)

DO_NOT_RESTART = 3
RESTARTS_MAX = 8
RESTARTS_WINDOW_S = 60.0
BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)
POLL_S = 0.02
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class ChildFailed(LocalFault):
    """A process did not become ready, or stays down. The message holds the end of its log."""


@dataclass(slots=True)
class Child:
    """One process. `argv` is run as it is; `environment` is added to the supervisor's."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_s: float = 60.0
    """Without a step of its recovery: one that goes on is waited for, for hours if the journal is that long."""
    stop_timeout_s: float = 15.0
    state: str = "stopped"
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=RESTARTS_MAX))

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None


def _die_with_parent() -> None:
    """Runs in the child between fork and exec: its own process group, so that Ctrl-C reaches the supervisor alone."""
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Supervisor:
    """Use as: `start(child)` for each in order, `watch()` as a task, `stop()` at the end."""

    def __init__(self, data_directory: Path) -> None:
        self._data = data_directory
        self._logs = data_directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._stopping = False
        self.children: dict[str, Child] = {}

    async def start(self, child: Child) -> None:
        """Starts `child` and waits until it is ready.

        Raises:
            ChildFailed: it exited or was not ready in time.
        """
        self.children[child.name] = child
        self._spawn(child)
        await self._wait_ready(child)

    async def start_together(self, *children: Child) -> None:
        """Starts all at once and waits until all are ready; the first failure is raised."""
        await asyncio.gather(*(self.start(child) for child in children))

    async def watch(self) -> None:
        """Restarts what dies, until `stop` is called."""
        restarts: set[asyncio.Task[None]] = set()
        while not self._stopping:
            for child in list(self.children.values()):
                if child.state == "running" and child.process and child.process.poll() is not None:
                    child.state = "waiting"  # one that cannot come up does not keep the others waiting
                    task = asyncio.create_task(self._restart(child))
                    restarts.add(task)
                    task.add_done_callback(restarts.discard)
            await asyncio.sleep(POLL_S * 5)
        await asyncio.gather(*restarts)

    async def stop_child(self, name: str) -> int | None:
        """Stops one child for good. Returns its exit status, None if it did not run."""
        child = self.children.pop(name)
        child.state = "stopped"
        return await self._terminate(child)

    async def stop(self) -> None:
        """Stops all, the last started first. A child that does not go in its time is killed."""
        self._stopping = True
        for name in reversed(list(self.children)):
            await self.stop_child(name)

    def failed(self) -> list[Child]:
        """The children that stay down."""
        return [child for child in self.children.values() if child.state == "failed"]

    def log_tail(self, name: str, lines: int = 12) -> str:
        """The end of the log of `name`."""
        path = self._logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # ------------------------------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        child.state = "starting"
        with open(self._logs / f"{child.name}.log", "ab") as log:
            child.process = subprocess.Popen(
                list(child.argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **child.environment},
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        logger.info("event=started process=%s pid=%d", child.name, child.process.pid)

    async def _wait_ready(self, child: Child) -> None:
        deadline = time.monotonic() + child.ready_timeout_s
        reached = 0
        assert child.process is not None
        while True:
            code = child.process.poll()
            if code is not None:
                child.state = "failed" if code == DO_NOT_RESTART else "stopped"
                raise ChildFailed(f"{child.name} ended with status {code}:\n{self.log_tail(child.name)}")
            status = read_status(self._data, child.name)
            if status and status["pid"] == child.process.pid and status["ready"]:
                child.state = "running"
                return
            if status and status["pid"] == child.process.pid and status.get("recovered_sequence", 0) > reached:
                reached = status["recovered_sequence"]
                deadline = time.monotonic() + child.ready_timeout_s
            if time.monotonic() > deadline:
                raise ChildFailed(
                    f"{child.name} was not ready after {child.ready_timeout_s:.0f} s:\n{self.log_tail(child.name)}"
                )
            if self._stopping:
                raise ChildFailed(f"{child.name} was stopped before it was ready")
            await asyncio.sleep(POLL_S)

    async def _restart(self, child: Child) -> None:
        assert child.process is not None
        code = child.process.returncode
        now = time.monotonic()
        crowded = len(child._deaths) == RESTARTS_MAX and now - child._deaths[0] < RESTARTS_WINDOW_S
        child._deaths.append(now)
        logger.warning("event=died process=%s status=%s restarts=%d", child.name, code, child.restarts)
        if code == DO_NOT_RESTART or crowded:
            child.state = "failed"
            logger.error("event=stays_down process=%s status=%s log=%s", child.name, code, self.log_tail(child.name, 1))
            return
        await asyncio.sleep(BACKOFF_S[min(child.restarts, len(BACKOFF_S) - 1)])
        if self._stopping:
            return
        child.restarts += 1
        self._spawn(child)
        try:
            await self._wait_ready(child)
            gone_s = time.monotonic() - now
            logger.warning("event=back process=%s pid=%d after_s=%.1f", child.name, child.process.pid, gone_s)
        except ChildFailed as failure:
            logger.warning("event=not_ready process=%s reason=%s", child.name, str(failure).splitlines()[0])
            if child.state != "failed":
                child.state = "running"  # dead or late: the next look decides again

    async def _terminate(self, child: Child) -> int | None:
        process = child.process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + child.stop_timeout_s
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(POLL_S)
            if process.poll() is None:
                logger.error("event=killed process=%s reason=did_not_stop_in_%.0f_s", child.name, child.stop_timeout_s)
                process.kill()
        return process.wait()
