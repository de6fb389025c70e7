"""Runs one process by its name, from its first log line to its exit status.

Exit statuses: 0 stopped as told; 3 starting again would do harm (a journal that is no valid prefix, a failed write or
sync of it, a broken invariant), which the supervisor respects; anything else may be tried again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import sys
from importlib import import_module

import uvloop

from byline.processes.body import Body
from byline.processes.names import PROCESSES, kind_of
from byline.settings import Settings
from byline.status_file import StatusFile
from byline.supervisor import DO_NOT_RESTART
from engine.messages.errors import ExchangeError, JournalCorrupt, JournalFailed

__all__ = ["run_process", "stopped"]

logger = logging.getLogger(__name__)


def run_process(name: str, settings: Settings) -> int:
    """Runs process `name` until SIGTERM or SIGINT. Returns its exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr, force=True
    )
    for noisy in ("picows", "pysui", "httpx"):  # a line for every connection or request
        logging.getLogger(noisy).setLevel(logging.WARNING)
    kind = kind_of(name)
    if kind is None:
        print(f"byline: no process is called {name!r}; there are {', '.join(PROCESSES)}", file=sys.stderr)
        return 2
    if kind in ("core", "marketdata"):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each connection is a descriptor
    try:
        uvloop.run(_run(kind, settings, StatusFile(settings.data_directory, name)))
    except Exception as error:  # noqa: BLE001 - told in the last line of the log, whatever it is
        return stopped(name, error)
    return 0


def stopped(name: str, error: BaseException) -> int:
    """The exit status for `error`, told in one line, the last of the log. Source: docs/operations.md.

    What nobody expected of the core is a broken invariant too, whatever its type: its state may not be what it must be.
    """
    expected = isinstance(error, (ExchangeError, OSError, MemoryError))
    broken = isinstance(error, AssertionError) or (name == "core" and not expected)
    harmful = broken or isinstance(error, JournalCorrupt)
    if isinstance(error, JournalFailed):  # no space at the start may pass; a failed sync must not be tried again
        harmful = getattr(error.__cause__, "errno", 0) not in (errno.ENOSPC, errno.EDQUOT)
    if broken:
        logger.critical("event=broken_invariant process=%s", name, exc_info=error)
    elif not expected:
        logger.error("event=fault process=%s", name, exc_info=error)
    text = " ".join(str(error).split()) or "no text"
    what = "it stays down, see docs/operations.md" if harmful else "it may be started again"
    logger.critical("event=stops process=%s error=%s: %s: %s", name, type(error).__name__, text, what)
    return DO_NOT_RESTART if harmful else 1


async def _run(kind: str, settings: Settings, status: StatusFile) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        body: Body = import_module(f"byline.processes.{kind}").run
        await body(settings, status, stop)
    finally:
        status.close()
