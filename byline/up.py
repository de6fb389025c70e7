"""`byline up`: one exchange on one machine, from nothing to a living market, and its bounded run with checks.

    lock ▸ core, chain, postgres together ▸ genesis by the operator ▸ back office, market data, REST ▸ traders
    … runs … ▸ traders stop ▸ last batch final, projection caught up ▸ the rest stops ▸ checks (bounded run only)
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byline.genesis import genesis_commands
from byline.operator import open_operator, send_all
from byline.settings import CHAIN_HOST, Settings, load_settings
from byline.status_file import read_status
from byline.status_table import settlement_waits
from byline.summary import judge, print_summary, read_projection
from byline.supervisor import Child, Supervisor
from byline.traders import ACCOUNT_COUNT, funding_commands
from byline.wanted_keys import check_keys_wanted
from engine.messages.errors import LocalFault
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.recovery import replay
from settlement.chain.sealed_key import default_key_file

__all__ = ["Exchange", "run_exchange"]

logger = logging.getLogger(__name__)

QUIESCE_TIMEOUT_S = 60.0
POLL_S = 0.1


class PortTaken(LocalFault):
    """Another program listens where a part of the exchange should."""


class NotQuiet(LocalFault):
    """The readers did not catch up with the core in time after the orders had stopped."""


class Exchange:
    """The processes of one exchange. `async with` starts and stops them; the data directory is locked meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.start_to_ready_s = 0.0
        self.was_cut_off = False
        """The core of the last run did not end by itself."""
        self.new_wrapping_key: Path | None = None
        """The file that this start has made to open the operator's key."""
        self._supervisor: Supervisor | None = None
        self._lock: DirectoryLock | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def supervisor(self) -> Supervisor:
        assert self._supervisor is not None, "not started"
        return self._supervisor

    async def __aenter__(self) -> Exchange:
        """Starts everything.

        Raises:
            DataDirectoryBusy: another exchange runs on the data directory.
            SettingsInvalid: it was restored, and its keys were not brought back.
            ChildFailed: a process did not become ready; the others are stopped again.
        """
        data = self.settings.data_directory
        self._lock = DirectoryLock(data / "lock")
        started = time.monotonic()
        try:
            check_keys_wanted(data)
            _probe_ports(self.settings)
        except BaseException:
            self._lock.release()
            raise
        before = read_status(data, "core")
        self.was_cut_off = bool(before and before.get("ready"))
        key = self._wrapping_key()
        had_key = key.exists()
        shutil.rmtree(data / "run", ignore_errors=True)
        self._supervisor = Supervisor(data)
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        self.start_to_ready_s = time.monotonic() - started
        self.new_wrapping_key = key if key.exists() and not had_key else None
        return self

    def _wrapping_key(self) -> Path:
        """The file that opens the sealed keys of the data directory, whether it is used or not."""
        given = self.settings.key_file
        return Path(given).expanduser() if given else default_key_file()

    async def _start(self) -> None:
        settings = self.settings
        first = ["core"]
        first += [] if settings.chain_url else ["chain"]
        first += [] if settings.postgres_url else ["postgres"]
        backup = [self._child("backup")] if settings.backup_url else []
        await asyncio.gather(
            *(self.supervisor.start_if_it_can(child) for child in backup),  # first: it is stopped after the core, and
            self.supervisor.start_together(*(self._child(name) for name in first)),  # ships its last record
        )
        self._watching = asyncio.create_task(self.supervisor.watch())
        async with open_operator(settings) as operator:
            await send_all(operator, [*genesis_commands(), *funding_commands()])
            listed = (await operator.status())["sequence"]
        readers = ["backoffice", *settings.marketdata_processes(), "api"]
        readers += ["relay"] if settings.relay_url else []
        await self.supervisor.start_together(*(self._child(name) for name in readers))
        await self._projected(listed)
        if not settings.quiet_market:
            await self.supervisor.start(self._child("traders"))

    async def _projected(self, sequence: int) -> None:
        """Waits until PostgreSQL has what the genesis listed, so that the first page somebody opens is not empty."""
        deadline = time.monotonic() + QUIESCE_TIMEOUT_S
        while self.status("backoffice").get("projection", {}).get("sequence", 0) < sequence:
            if time.monotonic() > deadline:  # trading does not wait for the database
                at = self.status("backoffice").get("projection", {})
                logger.warning(
                    "event=projection_late sequence=%d wanted=%d error=%s",
                    at.get("sequence", 0), sequence, at.get("last_error", "the back office has not said why"),
                )  # fmt: skip
                return
            await asyncio.sleep(POLL_S)

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor:
            await self._supervisor.stop()
        if self._watching:
            await self._watching
        if self._lock:
            self._lock.release()

    async def until(self, stop: asyncio.Event) -> None:
        """Until told to stop, or nobody looks after the processes any more: `__aexit__` raises why."""
        assert self._watching is not None
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, self._watching), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    def _child(self, name: str) -> Child:
        argv = [sys.executable, "-m", "byline.cli", "process", name]
        return Child(name, argv, self.settings.environment_variables())

    def status(self, name: str) -> dict[str, Any]:
        """The last status of a process; empty if it never wrote one."""
        return read_status(self.settings.data_directory, name) or {}

    async def quiesce(self, stop: asyncio.Event | None = None) -> dict[str, Any]:
        """Stops the simulated traders and waits until every reader has what the core has and the last cut is final.

        Returns the core's status at that moment: `sequence`, `batch`, `state_hash`, `chain` and more.

        Raises:
            NotQuiet: they did not catch up, in time or until `stop`; the message says who is where.
        """
        if "traders" in self.supervisor.children:
            await self.supervisor.stop_child("traders")
        deadline = time.monotonic() + QUIESCE_TIMEOUT_S
        while True:
            async with open_operator(self.settings) as operator:
                head = await operator.status()
            office = self.status("backoffice")
            final = office.get("settlement", {}).get("final_batch", 0)
            projected = office.get("projection", {}).get("sequence", 0)
            if final >= head["batch"] and projected >= head["sequence"]:
                return head
            if time.monotonic() > deadline or (stop is not None and stop.is_set()):
                raise NotQuiet(
                    f"core at sequence {head['sequence']}, batch {head['batch']}; projection at {projected}, "
                    f"last final batch {final}: {'; '.join(_why(office)) or 'no error told'}"
                )
            await asyncio.sleep(POLL_S)

    def database_url(self) -> str:
        """What asyncpg connects to."""
        return self.settings.postgres_url or str(self.status("postgres")["url"])

    def addresses(self) -> dict[str, str]:
        """What a person opens or connects to."""
        at = {name: self.status(name) for name in ("api", "core", "marketdata", "chain", "postgres")}
        host = self.settings.host
        chain = at["chain"]
        return {
            "terminal and REST": f"http://{host}:{at['api']['port']}/",
            **self._doors("order entry", at["core"], "/v1/ws/trade"),
            **self._doors("market data", at["marketdata"], "/v1/ws"),
            **self._doors("market data, feed B", self.status("marketdata_b"), "/v1/ws"),
            "PostgreSQL": _without_password(self.database_url()),
            "Sui": self.settings.chain_url
            or f"{chain['chain']}, executor {chain['executor']}, gRPC {CHAIN_HOST}:{chain['port']}",
            "data": str(self.settings.data_directory),
        }

    def _doors(self, name: str, status: dict[str, Any], path: str) -> dict[str, str]:
        """The plain door of a process, and the one of TLS if it has one; nothing if there is no such process."""
        doors = {name: f"ws://{self.settings.host}:{status['port']}{path}"} if status else {}
        if "tls_port" in status:
            doors[f"{name}, TLS"] = f"wss://{self.settings.tls_host or self.settings.host}:{status['tls_port']}{path}"
        return doors


def _without_password(url: str) -> str:
    """A URL of libpq as it may stand in a log."""
    return re.sub(r"(?<=://)([^:/?@]*):[^@]*@", r"\1:***@", re.sub(r"([?&]password=)[^&]*", r"\1***", url))


def _probe_ports(settings: Settings) -> None:
    """Raises PortTaken before anything is started, naming the setting."""
    names = ["api", "gateway", "marketdata", "chain"] + (["marketdata_b"] if settings.marketdata_feeds == 2 else [])
    for name in names:
        port = getattr(settings, f"{name}_port")
        host = CHAIN_HOST if name == "chain" else settings.host
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise PortTaken(
                    f"{host}:{port} cannot be used ({error.strerror}): set BYLINE_{name.upper()}_PORT, "
                    "or give --free-ports"
                ) from error


def run_exchange(settings: Settings, *, console: Console, seconds: float | None, json_path: Path | None) -> int:
    """Runs until Ctrl-C, or for `seconds` with checks at the end. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    return asyncio.run(_run(settings, console, seconds, json_path))


async def _run(settings: Settings, console: Console, seconds: float | None, json_path: Path | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    exchange = Exchange(settings)
    with console.status("starting the exchange …") if console.is_terminal else nullcontext():
        is_up = await _start_unless(stop, exchange)
    if not is_up:
        console.print("stopped before it was up")
        return 0 if seconds is None else 1
    try:
        _print_addresses(exchange, console)
        if seconds is None:
            await exchange.until(stop)
            console.print("stopping …")
        else:
            await _bounded(exchange, stop, seconds, console)
            stop.clear()  # it ended the run; once more, it ends the wait for whoever does not catch up
            head = await exchange.quiesce(stop)
            projection = await read_projection(exchange.database_url())
            chain = exchange.status("chain")
            failed = [child.name for child in exchange.supervisor.failed()]
    finally:
        await exchange.__aexit__()
    final = exchange.status("core")  # what the core said last: a tick or a cut may have come after the quiet moment
    if seconds is None:
        console.print(f"stopped after {final['sequence']:,} commands; the next start goes on from there")
        return 0
    console.print("replaying the journal from its first record …")
    replayed, _ = replay(DirectoryDisk(settings.data_directory))
    summary = judge(
        settings, head=head, final=final, projection=projection, replayed=replayed, seconds=seconds,
        start_to_ready_s=exchange.start_to_ready_s, failed=failed,
        chain_kind=f"{chain['chain']}, executor {chain['executor']}" if chain else settings.chain_url,
    )  # fmt: skip
    print_summary(summary, console)
    if json_path:
        json_path.write_text(json.dumps(summary.as_json(), indent=2) + "\n")
    return 0 if summary.ok else 1


async def _start_unless(stop: asyncio.Event, exchange: Exchange) -> bool:
    """Starts it, and takes back what was started if it is told to stop meanwhile: False."""
    starting, stopped = asyncio.ensure_future(exchange.__aenter__()), asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return False
    await starting
    return True


def _why(office: dict[str, Any]) -> list[str]:
    """What the back office waits for, as far as it told."""
    projection = office.get("projection", {}).get("last_error")
    return ([f"projection: {projection}"] if projection else []) + settlement_waits(office.get("settlement") or {})


def _print_addresses(exchange: Exchange, console: Console) -> None:
    console.print(f"[bold green]Byline is up[/] after {exchange.start_to_ready_s:.1f} s")
    addresses = exchange.addresses()
    width = max(map(len, addresses)) + 2
    for name, address in addresses.items():
        console.print(f"  {name:<{width}}[bold]{address}[/]", soft_wrap=True)
    if not exchange.settings.quiet_market:
        traders = f"{ACCOUNT_COUNT} simulated accounts trade test money; --quiet-market leaves them out"
        console.print(f"  {'traders':<{width}}{traders}", soft_wrap=True)
    if exchange.was_cut_off:
        core = exchange.status("core")
        console.print(
            f"The last run was cut off. The journal was read again in {core['recovery_s']} s, up to the last command "
            f"that was acknowledged; {core['torn_bytes']} bytes of an unfinished write were dropped.",
            soft_wrap=True,
        )
    if exchange.new_wrapping_key:
        console.print(
            f"[yellow]Keep a copy of {exchange.new_wrapping_key}[/], apart from the data: it opens the operator's key, "
            "and no backup of the data directory holds it.",
            soft_wrap=True,
        )
    where = exchange.settings.data_directory
    at = "" if where == load_settings({}).data_directory else f" --data {where}"
    text = f"`byline status{at}` in another terminal shows it live; Ctrl-C stops it."
    console.print(text, style="dim", soft_wrap=True)


async def _bounded(exchange: Exchange, stop: asyncio.Event, seconds: float, console: Console) -> None:
    """Waits `seconds` with a progress bar that tells what goes on; Ctrl-C ends it early."""
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("running", total=seconds)
        while (passed := time.monotonic() - started) < seconds and not stop.is_set():
            core, office = exchange.status("core"), exchange.status("backoffice")
            batches = office.get("settlement", {}).get("final_batch", 0)
            text = f"{core.get('sequence', 0):,} commands, {batches} batches final"
            progress.update(task, completed=passed, description=text)
            await asyncio.sleep(POLL_S)
