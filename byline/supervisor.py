"""Starts the processes of one exchange in order, keeps them running, and stops them in the reverse order.

    starting ──ready──▶ running ──exit──▶ waiting (back-off) ──▶ starting
        │                  │                     ▲
        └──── exit 3 ──────┴──▶ failed ──────────┘ an operator asks (`byline restart NAME`)

A child says that it is ready in its status file. Each has its own log under DATA/logs and dies with the supervisor
(parent-death signal), also when that is killed. Exit status 3 means "restarting would do harm", as with a corrupt
journal: the child stays down and the reason stands in its log. Anything else is tried again for as long as it takes,
since what it lacks may come back without anybody here: space on a disk, memory, a port. One that does not live for
`SHORT_LIFE_S` is given a longer pause each time, of a minute at last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byline.parent_death import dying_with_parent
from byline.request_file import RequestFile
from byline.status_file import read_status
from engine.messages.errors import LocalFault

__all__ = ["DO_NOT_RESTART", "NO_CHILD", "Child", "ChildFailed", "Supervisor"]

logger = logging.getLogger(__name__)

DO_NOT_RESTART = 3
NO_CHILD = "- "
"""How the answer to a request begins that names no child; the names of all follow."""
SHORT_LIFE_S = 5.0
"""Who was ready for less has not got over what it died of."""
BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
"""Before the first start again, the second after a short life, and so on."""
TOLD_S = 5.0
"""A pause so long is an outage that somebody should hear of."""
POLL_S = 0.02


class ChildFailed(LocalFault):
    """A process did not become ready, or stays down. The message holds the end of its log."""


@dataclass(slots=True)
class Child:
    """One process. `argv` is run as it is; `environment` is added to the supervisor's."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_s: float = 60.0
    """Without progress: one that gets on is waited for, for hours if what it reads is that long. `progress` in its
    status is whatever differs from what it was: a sequence, a place in a file."""
    stop_timeout_s: float = 15.0
    state: str = "stopped"
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    ready_at: float | None = None
    """When its process became ready, by the monotonic clock; None: it is not yet."""
    short_lives: int = 0
    """How many processes of it in a row did not live for `SHORT_LIFE_S`."""
    is_asked: bool = False
    """An operator wants it to start now, whatever it died of."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends a pause: an operator asks, or all is stopped."""

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None


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
        try:
            self._spawn(child)
        except OSError as error:
            raise ChildFailed(f"{child.name} cannot be started: {error}") from error
        await self._wait_ready(child)

    async def start_if_it_can(self, child: Child) -> None:
        """As `start`, for one that the others can do without: a failure is told, and `watch` looks after it."""
        try:
            await self.start(child)
        except ChildFailed as failure:
            self._give_to_watch(child, failure)

    async def start_together(self, *children: Child) -> None:
        """Starts all at once and waits until all are ready; the first failure is raised."""
        await asyncio.gather(*(self.start(child) for child in children))

    async def watch(self) -> None:
        """Restarts what dies and what an operator asks for, until `stop` is called."""
        tasks: set[asyncio.Task[Any]] = set()
        while not self._stopping:
            for child in list(self.children.values()):
                try:
                    self._look_after(child, tasks)
                except OSError as error:  # of a request's file, a log: for want of descriptors, as likely as of a disk
                    logger.error("event=not_looked_after process=%s error=%s", child.name, error)
            try:
                self._refuse_unknown()
            except OSError as error:
                logger.error("event=not_looked_after process=%s error=%s", "-", error)
            await asyncio.sleep(POLL_S * 5)
        await asyncio.gather(*tasks)

    def _look_after(self, child: Child, tasks: set[asyncio.Task[Any]]) -> None:
        """Begins what it needs, as one of `tasks`. Raises OSError."""
        is_dead = child.process is None or child.process.poll() is not None
        if is_dead and (child.state == "running" or (child.state == "failed" and child.is_asked)):
            child.state = "waiting"  # one that cannot come up does not keep the others waiting
            tasks.add(asyncio.create_task(self._restart(child)))
        if self._is_asked_for(child):
            tasks.add(asyncio.create_task(self._terminate(child)))
        for task in [task for task in tasks if task.done()]:
            tasks.remove(task)
            task.result()

    def _is_asked_for(self, child: Child) -> bool:
        """Takes a request of `byline restart NAME`. True: it runs, and is to be stopped first."""
        request = RequestFile(self._data, f"restart-{child.name}")
        if request.asked() is None:
            return False
        logger.warning("event=restart_asked process=%s state=%s", child.name, child.state)
        request.answer(child.state)
        if child.state == "starting":
            return False  # that is what is asked for
        child.is_asked, child.short_lives = True, 0
        child.hurry.set()
        return child.state == "running" and child.pid is not None

    def _refuse_unknown(self) -> None:
        """Who asks for what is no process of this exchange hears so at once."""
        for path in (self._data / "run").glob("restart-*.request"):
            if path.stem.removeprefix("restart-") not in self.children:
                RequestFile(self._data, path.stem).answer(NO_CHILD + ", ".join(self.children))

    async def stop_child(self, name: str) -> int | None:
        """Stops one child for good. Returns its exit status, None if it did not run."""
        child = self.children.pop(name)
        child.state = "stopped"
        return await self._terminate(child)

    async def stop(self) -> None:
        """Stops all, the last started first. A child that does not go in its time is killed."""
        self._stopping = True
        for child in self.children.values():
            child.hurry.set()
        for name in reversed(list(self.children)):
            await self.stop_child(name)

    def failed(self) -> list[Child]:
        """The children that stay down."""
        return [child for child in self.children.values() if child.state == "failed"]

    def log_tail(self, name: str, lines: int = 12) -> str:
        """The end of the log of `name`; that it cannot be read, if it cannot."""
        path = self._logs / f"{name}.log"
        try:
            return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
        except OSError as error:
            return f"{path}: {error}"

    # ------------------------------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        """Raises OSError: the machine has no process, memory, descriptor or log for it now."""
        child.ready_at = None
        with open(self._logs / f"{child.name}.log", "ab") as log:
            child.process = subprocess.Popen(
                list(child.argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **child.environment},
                preexec_fn=dying_with_parent(),
            )  # fmt: skip
        child.state = "starting"
        logger.info("event=started process=%s pid=%d", child.name, child.process.pid)

    async def _wait_ready(self, child: Child) -> None:
        deadline = time.monotonic() + child.ready_timeout_s
        progress = None
        assert child.process is not None
        while True:
            code = child.process.poll()
            if code is not None:
                child.state = "failed" if code == DO_NOT_RESTART else "stopped"
                raise ChildFailed(f"{child.name} ended with status {code}:\n{self.log_tail(child.name)}")
            status = read_status(self._data, child.name)
            if status and status["pid"] == child.process.pid and status["ready"]:
                child.state, child.ready_at = "running", time.monotonic()
                return
            if status and status["pid"] == child.process.pid and status.get("progress") != progress:
                progress = status.get("progress")
                deadline = time.monotonic() + child.ready_timeout_s
            if time.monotonic() > deadline:
                raise ChildFailed(
                    f"{child.name} was not ready after {child.ready_timeout_s:.0f} s:\n{self.log_tail(child.name)}"
                )
            if self._stopping:
                raise ChildFailed(f"{child.name} was stopped before it was ready")
            await asyncio.sleep(POLL_S)

    async def _restart(self, child: Child) -> None:
        """Behind its death: the pause, the next process, and until that is ready or dead too."""
        code, died = child.process.returncode if child.process else None, time.monotonic()
        is_short = child.ready_at is None or died - child.ready_at < SHORT_LIFE_S
        child.short_lives = child.short_lives + 1 if is_short else 0
        logger.warning("event=died process=%s status=%s restarts=%d", child.name, code, child.restarts)
        if code == DO_NOT_RESTART and not child.is_asked:
            child.state = "failed"
            self._tell_down(child)
            return
        while True:
            await self._pause(child)
            if self._stopping:
                return
            child.restarts += 1
            try:
                self._spawn(child)
            except OSError as error:  # there is none for it to die: this is its next short life
                child.short_lives += 1
                logger.error("event=not_started process=%s error=%s", child.name, error)
            else:
                break
        try:
            await self._wait_ready(child)
            gone_s, pid = time.monotonic() - died, child.pid
            logger.warning("event=back process=%s pid=%s after_s=%.1f", child.name, pid, gone_s)
        except (ChildFailed, OSError) as failure:
            self._give_to_watch(child, failure)

    def _give_to_watch(self, child: Child, failure: Exception) -> None:
        """One that is not ready: down for good, or dead or late, and the next look decides again."""
        logger.error("event=not_ready process=%s reason=%s", child.name, str(failure).splitlines()[0])
        if child.state == "failed":
            self._tell_down(child)
        else:
            child.state = "running"

    def _tell_down(self, child: Child) -> None:
        log = self.log_tail(child.name, 1)
        logger.error("event=stays_down process=%s status=%d log=%s", child.name, DO_NOT_RESTART, log)

    async def _pause(self, child: Child) -> None:
        pause = BACKOFF_S[min(child.short_lives, len(BACKOFF_S) - 1)]
        if pause >= TOLD_S:
            log = self.log_tail(child.name, 1)
            logger.error("event=dies_again process=%s next_start_in_s=%.0f log=%s", child.name, pause, log)
        if not child.is_asked:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.hurry.wait(), pause)
        child.is_asked = False
        child.hurry.clear()

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
