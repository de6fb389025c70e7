"""The one place that chooses the parts and wires them: each function here is one process of the exchange.

    core        recovery ▸ sequencer ▸ gateway          marketdata  event log ▸ fan-out
    chain       the embedded node                       backoffice  event log ▸ projector, settler
    postgres    the embedded server                     api         REST
    traders     simulated traders (byline.trading_floor)
    relay       event log ▸ NATS, for market data on other hosts
    backup      journal ▸ object store

Market data can be several processes: `marketdata` and its shards `marketdata_2` … are feed A, `marketdata_b` … feed B.

Exit statuses: 0 stopped as told; 3 starting again would do harm (a journal that is no valid prefix, a failed write or
sync of it, a broken invariant), which the supervisor respects; anything else may be tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvloop

from byline.request_file import RequestFile
from byline.settings import API_LIMITS, API_SAME, CHAIN_HOST, Settings
from byline.status_file import StatusFile, read_status
from byline.supervisor import DO_NOT_RESTART
from engine.messages.errors import ExchangeError, JournalCorrupt, JournalFailed, OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    import uvicorn

    from platform_api.settings import ApiSettings

__all__ = ["run_process", "uvicorn_config"]

logger = logging.getLogger(__name__)

STATUS_INTERVAL_S = 0.25
API_GARBAGE = (10_000, 20, 20)
"""How many new objects make a collection: an answer has thousands, hardly any of them in a circle."""
SOCKET_MESSAGE_BYTES_MAX = 16 * 1024
"""Of the event socket; the longest request that is one is a token."""
EVENTS_WAIT_S = 30.0
LOAD_POLL_S = 0.02
PROJECTION_WAIT_S = 3.0
"""For a database that starts as late as its readers; without it settlement begins all the same."""
SNAPSHOT_LIMIT_S = 600.0
"""After that the child that writes a snapshot is killed, so that the next one may try."""
REAP_S = 5.0
FAILED_WAIT_S = 0.25
"""From a failed journal to the end of the core, so that sessions hear why."""
MARKETDATA = re.compile(r"(marketdata(?:_b)?)(?:_([2-9]|1[0-6]))?")
"""Feed and number of the shard."""

Body = Callable[[Settings, StatusFile, asyncio.Event], Awaitable[None]]


def run_process(name: str, settings: Settings) -> int:
    """Runs process `name` until SIGTERM or SIGINT. Returns its exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr, force=True
    )
    for noisy in ("picows", "pysui", "httpx"):  # a line for every connection or request
        logging.getLogger(noisy).setLevel(logging.WARNING)
    bodies: dict[str, Body] = {
        "core": _core, "chain": _chain, "postgres": _postgres, "backoffice": _backoffice, "marketdata": _marketdata,
        "api": _api, "traders": _traders, "relay": _relay, "backup": _backup,
    }  # fmt: skip
    kind = "marketdata" if MARKETDATA.fullmatch(name) else name
    if kind not in bodies:
        print(f"byline: no process is called {name!r}; there are {', '.join(bodies)}", file=sys.stderr)
        return 2
    if kind in ("core", "marketdata"):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each connection is a descriptor
    try:
        uvloop.run(_run(bodies[kind], settings, StatusFile(settings.data_directory, name)))
    except Exception as error:  # noqa: BLE001 - told in the last line of the log, whatever it is
        return _stopped(name, error)
    return 0


def _stopped(name: str, error: BaseException) -> int:
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


async def _run(body: Body, settings: Settings, status: StatusFile) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await body(settings, status, stop)
    finally:
        status.close()


async def _report(status: StatusFile, stop: asyncio.Event, facts: Callable[[], dict[str, Any]]) -> None:
    """Writes the status file until told to stop."""
    while not stop.is_set():
        status.write(ready=True, **facts())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)


async def _report_progress(status: StatusFile, is_over: Callable[[], bool], progress: Callable[[], int]) -> None:
    """Writes it to the status file until whoever is starting is ready, or told to stop."""
    tell = _telling(status)
    while not is_over():
        tell(progress())
        await asyncio.sleep(LOAD_POLL_S)


async def _first_ends(stop: asyncio.Event, *bodies: Awaitable[None]) -> None:
    """Runs all until `stop`; when one ends by itself or fails, the others are told to stop. The failure is raised."""
    tasks = [asyncio.ensure_future(body) for body in bodies]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        assert done
    finally:
        stop.set()


# ---------------------------------------------------------------------------------------------------------- the core


async def _core(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from gateway.keys import KeyRegistry, Scope, load_or_create_key, public_hex
    from gateway.sequencer import Sequencer
    from gateway.server import GatewayServer
    from gateway.settings import GatewaySettings
    from persistence.disk import DirectoryDisk, SystemClock
    from persistence.event_log import EventLogReader
    from persistence.journal import JournalSettings
    from persistence.recovery import recover

    data = settings.data_directory
    clock = SystemClock()
    mode: Literal["durable", "memory"] = "durable" if settings.ack_mode == "durable" else "memory"
    journal = JournalSettings(mode=mode, segment_bytes=settings.journal_segment_mib << 20)
    recovered = recover(data, settings=journal, clock=clock, sealed=_sealed(data), progress=_telling(status))
    report = recovered.report
    logger.info(
        "event=recovered sequence=%d snapshot=%d replayed=%d torn_bytes=%d seconds=%.2f state_hash=%s",
        report.sequence, report.snapshot_sequence, report.replayed_records, report.torn_bytes, report.seconds,
        report.state_hash.hex(),
    )  # fmt: skip
    try:
        disk = DirectoryDisk(data)
        keys = KeyRegistry(disk)
        operator = public_hex(load_or_create_key(data / "keys" / "operator.key"))
        if keys.find(operator) is None:
            keys.register(operator, [], Scope.OPERATOR.words(), "operator of this data directory", clock.now_ns())
        sequencer = Sequencer(
            recovered.core, clock, recovered.journal, recovered.event_log,
            durable_acks=settings.ack_mode == "durable", chain=recovered.journal.chain,
        )  # fmt: skip
        server = GatewayServer(
            GatewaySettings(
                host=settings.host, port=settings.gateway_port or _port_before(settings, "core"),
                environment=settings.environment, epoch=_next_epoch(data, _used_epochs(recovered)),
                ack_mode=settings.ack_mode,
                batch_interval_s=settings.batch_interval_s, ping_interval_s=settings.gateway_ping_s,
                tls_certificate=settings.tls_certificate, tls_key=settings.tls_key,
                tls_host=settings.tls_host, tls_port=settings.tls_port,
            ),
            sequencer, recovered.journal, recovered.core, keys, clock, lambda: EventLogReader(data / "events"),
            load_or_create_key(data / "keys" / "receipts.key"),
        )  # fmt: skip
        host, port = await server.start()
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not walk it again

        snapshots: dict[str, Any] = {"snapshot_sequence": report.snapshot_sequence}

        def facts() -> dict[str, Any]:
            return {
                "host": host, "port": port, "recovery_s": round(report.seconds, 3),
                "torn_bytes": report.torn_bytes, **snapshots, **server.status(),
                "journal_full": int(recovered.journal.status == "disk_full"),
                **({"tls_port": server.tls_address[1]} if server.tls_address else {}),
            }  # fmt: skip

        try:
            await _first_ends(
                stop,
                _until(stop, server),
                _journal_lives(stop, recovered.journal),
                _clock_watched(stop, recovered.core, clock),
                _report(status, stop, facts),
                _snapshots(settings, stop, recovered, sequencer, disk, snapshots),
            )
        finally:
            await server.stop()
            status.write(ready=False, **facts())
    finally:
        recovered.close()


def _sealed(data: Path) -> int:
    """The last sequence that settlement has sealed, 0 if none is known: its damaged log stops the back office alone."""
    from settlement.store import last_sealed

    try:
        return last_sealed(data / "settlement" / "batches.log")[1]
    except JournalCorrupt as error:  # the settler, which reads it next, is who stops
        logger.warning("event=settlement_log_damaged error=%s", error)
        return 0


async def _until(stop: asyncio.Event, server: Any) -> None:
    """Until told to stop, or a broken invariant ended the server: that is raised."""
    ended = asyncio.ensure_future(server.wait_ended())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if ended.done():
        ended.result()
    ended.cancel()


async def _journal_lives(stop: asyncio.Event, journal: Any) -> None:
    """Raises JournalFailed soon after a write or a sync has failed: sessions have been told, and nothing is acked."""
    while not stop.is_set():
        if journal.failed:
            await asyncio.sleep(FAILED_WAIT_S)
            raise JournalFailed(
                f"errno {journal.failed} ({os.strerror(journal.failed)}): sequence {journal.durable_sequence} is the "
                "last one on disk, nothing behind it was acknowledged"
            )
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.05)


async def _clock_watched(stop: asyncio.Event, core: Any, clock: Any, interval_s: float = 10.0) -> None:
    """Tells of a clock that stands behind the engine's time, which never goes back: one command under a clock that was
    far ahead sets it, and until the clock has caught up nothing falls due and every expiry within that time is
    `bad_expiry`."""
    while not stop.is_set():
        behind = (core.time - clock.now_ns()) // 1_000_000_000
        if behind > 0:
            logger.warning("event=clock_behind seconds=%d engine_time=%d", behind, core.time)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), interval_s)


async def _snapshots(
    settings: Settings, stop: asyncio.Event, recovered: Any, sequencer: Any, disk: Any, told: dict[str, Any]
) -> None:
    """A snapshot every interval, and whenever DATA/run/snapshot.request appears: snapshot.done beside it answers.

    Forking the child that writes it pauses matching (`pause_ms` in the log and in `told`); writing it does not. One
    that cannot be written is logged, told, and tried again at the next interval: the journal is the truth. The event
    log's mark follows each, so that a start after a loss of power has both.
    """
    from persistence.event_mark import EventKeeper
    from persistence.snapshot import SnapshotWriter

    request = RequestFile(settings.data_directory, "snapshot")
    due = time.monotonic() + settings.snapshot_interval_s
    last = recovered.report.snapshot_sequence
    writer = SnapshotWriter(disk, recovered.core, recovered.journal.identity)
    keeper = EventKeeper(settings.data_directory / "events", recovered.event_log, recovered.journal.identity)
    told["events_kept_sequence"] = keeper.sequence
    while not stop.is_set():
        is_asked = request.asked() is not None
        if is_asked or (time.monotonic() >= due and sequencer.sequence > last):
            due = time.monotonic() + settings.snapshot_interval_s
            place, chain, path = keeper.at(), sequencer.chain, ""
            try:
                path = await _snapshot(stop, recovered.journal, sequencer, writer)
                last = writer.sequence
                told.update(snapshot_sequence=last, snapshot_pause_ms=round(writer.pause_s * 1e3, 3), snapshot_error="")
                answer = f"{last} {path}"
            except OSError as error:
                logger.error("event=no_snapshot error=%s", error)
                told["snapshot_error"] = str(error)
                answer = f"- {error}"
            if is_asked:
                request.answer(answer)
            if path:
                try:
                    await asyncio.to_thread(keeper.keep, place, chain, stop.is_set)
                except OSError as error:
                    logger.error("event=events_not_kept sequence=%d error=%s", last, error)
                told["events_kept_sequence"] = keeper.sequence
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.1)


async def _snapshot(stop: asyncio.Event, journal: Any, sequencer: Any, writer: Any) -> str:
    """Writes one. Returns its path. Raises OSError, also when the journal will not become durable or time is over."""
    began = time.monotonic()
    sequence = writer.begin(sequencer.chain)
    try:
        while not writer.ended() or journal.durable_sequence < sequence:
            if journal.status == "failed":
                raise OSError(f"the journal is not durable up to sequence {sequence}")
            if stop.is_set():
                raise OSError(f"snapshot {sequence}: not yet written when the core was told to stop")
            if time.monotonic() > began + SNAPSHOT_LIMIT_S:
                raise OSError(f"snapshot {sequence}: not written within {SNAPSHOT_LIMIT_S:.0f} s")
            await asyncio.sleep(0.02)
        path = await asyncio.to_thread(writer.finish)
    except BaseException:
        await _give_up(writer)
        raise
    finally:
        if not stop.is_set():
            await asyncio.to_thread(writer.join_pages)
    logger.info(
        "event=snapshot sequence=%d pause_ms=%.3f seconds=%.2f path=%s",
        sequence, writer.pause_s * 1e3, time.monotonic() - began, path,
    )  # fmt: skip
    return str(path)


async def _give_up(writer: Any) -> None:
    """Kills the child. One that does not die, since a disk hangs, is left: it ends with this process at the latest."""
    writer.kill()
    until = time.monotonic() + REAP_S
    while not writer.ended() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    if writer.ended():
        writer.discard()
    else:
        logger.error("event=snapshot_hangs sequence=%d: its child does not die", writer.sequence)


def _telling(status: StatusFile) -> Callable[[int], None]:
    """Has whoever waits for the start see that it goes on: what is long takes its time. Give it a number that changes
    with all that is done."""
    told = time.monotonic()

    def tell(progress: int) -> None:
        nonlocal told
        if time.monotonic() - told >= STATUS_INTERVAL_S:
            told = time.monotonic()
            status.write(ready=False, progress=progress)

    return tell


def _used_epochs(recovered: Any) -> int:
    """The last epoch that an open order was placed in, if the count beside this journal may be an older one, or lost.

    That is so where the event log is not of this journal's last life: after a restore, or on another machine.
    """
    from gateway.pulls import epoch_of

    return epoch_of(recovered.core.open_orders()) if recovered.report.events_rebuilt else 0


def _next_epoch(data: Path, used: int = 0) -> int:
    """How many times the core of this data directory was started; it stands in what clients sign. Durable on return.

    It is greater than `used`: an order of a connection that is lost must never look like one of a connection to come.

    Raises:
        JournalCorrupt: the file is there and says nothing.
    """
    from persistence.disk import write_whole

    path = data / "keys" / "epoch"
    text = path.read_text(errors="replace").strip() if path.exists() else "0"
    if not (text.isascii() and text.isdigit()):
        raise JournalCorrupt(
            f"{path}: holds no number: put back the copy of the backup, or write one greater than it can ever have been"
        )
    epoch = max(int(text), used) + 1
    write_whole(path, f"{epoch}\n".encode())
    return epoch


# ------------------------------------------------------------------------------------------------------ the servers


async def _chain(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from settlement.chain.localsui.door import status_of
    from settlement.chain.localsui.server import start

    data = settings.data_directory / "chain"
    data.mkdir(parents=True, exist_ok=True)
    port = settings.chain_port or _port_before(settings, "chain")
    running = await start(data, operator_key(settings).address, CHAIN_HOST, port)
    door = {"host": CHAIN_HOST, "port": running.port}

    def facts() -> dict[str, Any]:
        if running.node.log.failed:
            raise JournalFailed(f"{running.node.log.path}: {running.node.log.failed}")
        return status_of(running.node, running.faults) | door

    try:
        await _report(status, stop, facts)
    finally:
        await running.close()


def operator_key(settings: Settings) -> Any:
    """The sealed key of the data directory, or of the settings; made if it is missing."""
    from settlement.chain.keys import OperatorKey

    given = Path(settings.chain_key).expanduser() if settings.chain_key else None
    path = given or settings.data_directory / "chain" / "operator.key"
    return OperatorKey.load_or_create(path, key_lock(settings))


def key_lock(settings: Settings) -> Any:
    """What opens sealed keys."""
    from settlement.chain.sealed_key import KeyLock

    return KeyLock(settings.key_passphrase, Path(settings.key_file).expanduser() if settings.key_file else None)


async def open_chain(settings: Settings, scratch: Path, url: str = "", purse: Any = None) -> tuple[Any, Any]:
    """The chain of the settings, or the node at `url`; and its signer: the settings' program, or the sealed key.

    `purse`: see SuiChain.
    """
    from settlement.chain.admin import SuiAdmin
    from settlement.chain.signer import ExternalSigner
    from settlement.chain.sui import SuiSettings

    signer = await ExternalSigner.start(settings.chain_signer) if settings.chain_signer else operator_key(settings)
    own = SuiSettings(
        url=url or _chain_url(settings), config_directory=scratch, package=settings.chain_package,
        vault=_open_vault(settings), coin_types=settings.coin_types(), publish_test_coins=not settings.chain_url,
    )  # fmt: skip
    return SuiAdmin(own, signer, purse), signer


def open_rights(settings: Settings, scratch: Path, signer: Any, purse: Any) -> Any:
    """Copyrights and licences on the chain, signed by `signer`, paid beside the purse's others; connects at the first
    use."""
    from byline.rights_port import ChainRights
    from settlement.chain.sui import SuiChain, SuiSettings

    def connected() -> SuiChain:
        package, vault = settings.chain_package, _open_vault(settings)
        own = SuiSettings(url=_chain_url(settings), config_directory=scratch, package=package, vault=vault)
        return SuiChain(own, signer, purse)

    return ChainRights(connected)


def _port_before(settings: Settings, name: str, field: str = "port") -> int:
    """The free port that this process had before it was restarted, for those who know it already; 0: there is none."""
    before = read_status(settings.data_directory, name)
    return int(before.get(field, 0)) if before else 0


async def _postgres(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from byline.embedded.postgres import EmbeddedPostgres
    from engine.messages.errors import LocalFault
    from persistence.stores.postgres.migrate import migrate

    server = EmbeddedPostgres(settings.data_directory / "postgres")
    server.start()
    try:
        await migrate(server.dsn)

        def facts() -> dict[str, Any]:
            if not server.is_running():
                raise LocalFault("the database server ended; its log is in DATA/postgres")
            return {"url": server.dsn, "server": str(server.binaries), "postgres_pid": server.pid}

        await _report(status, stop, facts)
    finally:
        server.stop()


def _postgres_url(settings: Settings) -> str:
    if settings.postgres_url:
        return settings.postgres_url
    status = read_status(settings.data_directory, "postgres")
    if not status or "url" not in status:
        raise Unavailable("the embedded database has not started yet")
    return str(status["url"])


async def _event_source(settings: Settings) -> Any:
    """A reader of the event log; waits for the core to make it."""
    from persistence.event_log import EventLogReader

    loop = asyncio.get_running_loop()
    deadline = loop.time() + EVENTS_WAIT_S
    while True:
        try:
            return EventLogReader(settings.data_directory / "events")
        except FileNotFoundError:
            if loop.time() > deadline:
                raise Unavailable("there is no event log: is the core running?") from None
            await asyncio.sleep(0.05)


def stand_back() -> None:
    """From now on this thread, and those that it starts, run only where no other wants to. It takes no privilege."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _marketdata(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from marketdata.server import serve, settle_garbage
    from marketdata.settings import MarketDataSettings

    if settings.marketdata_idle:
        stand_back()
    facts: dict[str, Any] = {}
    ready = asyncio.Event()
    named = MARKETDATA.fullmatch(status.name)
    assert named is not None
    feed, shard = named[1], named[2]
    port = settings.marketdata_port if feed == "marketdata" else settings.marketdata_b_port
    if not port:
        port = await _port_of(settings, feed) if shard else _port_before(settings, feed)
    tls_port = settings.marketdata_tls_port if feed == "marketdata" else settings.marketdata_b_tls_port
    if settings.tls_certificate and not tls_port:
        tls_port = await _port_of(settings, feed, "tls_port") if shard else _port_before(settings, feed, "tls_port")

    async def report() -> None:
        await _report_progress(status, ready.is_set, lambda: facts.get("sequence", 0))
        settle_garbage()
        await _report(status, stop, lambda: {"host": settings.host, **facts})

    own = MarketDataSettings(
        host=settings.host, port=port, reuse_port=settings.marketdata_shards > 1,
        flush_interval_ms=settings.flush_interval_ms, tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key, tls_host=settings.tls_host, tls_port=tls_port,
    )  # fmt: skip
    source, following = await _market_events(settings)
    reporting = asyncio.ensure_future(report())
    try:
        await serve(source, own, stop=stop, status=facts, ready=ready)
    finally:
        reporting.cancel()
        if following is not None:
            await following.close()


async def _port_of(settings: Settings, name: str, field: str = "port") -> int:
    """The port of a process that is starting. Raises Unavailable."""
    deadline = asyncio.get_running_loop().time() + EVENTS_WAIT_S
    while asyncio.get_running_loop().time() < deadline:
        known = read_status(settings.data_directory, name)
        if known and known.get("ready") and known.get(field):
            return int(known[field])
        await asyncio.sleep(0.05)
    raise Unavailable(f"{name} does not listen")


async def _market_events(settings: Settings) -> tuple[Any, Any]:
    """The events that market data follows, and what has to be closed afterwards."""
    if not settings.events_url:
        return await _event_source(settings), None
    from marketdata.relay import RelayedEvents

    relayed = RelayedEvents(settings.events_url)
    await relayed.start()
    return relayed, relayed


async def _backup(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    """Ships the journal. A store that is away is waited for; another history in it ends the process for good."""
    from persistence.backup import Objects, Shipper

    shipper, is_started = Shipper(settings.data_directory, Objects(settings.backup_url)), False
    errors = {"parts": "", "sealing": ""}
    began = time.monotonic()

    def waiting_s() -> float:
        """Until the store has answered once, what waits is not known: at least since this process began."""
        return shipper.oldest_waiting_s() if is_started else time.monotonic() - began

    def facts() -> dict[str, Any]:
        return {
            "shipped_sequence": shipper.sequence, "lag_s": round(waiting_s(), 3),
            "recovery_point_s": round(shipper.lag_s, 3), "recovery_point_max_s": round(shipper.lag_max_s, 3),
            "parts": shipper.parts, "segments": shipper.sealed, "unsealed": shipper.unsealed, "bytes": shipper.bytes,
            "reachable": int(not errors["parts"]), "last_error": errors["parts"] or errors["sealing"],
        }  # fmt: skip

    async def done(what: str, call: Callable[[], object]) -> bool:
        """False: the store, or the journal, is not there."""
        try:
            await asyncio.to_thread(call)
        except Unavailable as problem:
            if str(problem) != errors[what]:
                logger.warning("event=backup_waits of=%s sequence=%d error=%s", what, shipper.sequence, problem)
            errors[what] = str(problem)
            return False
        errors[what] = ""
        return True

    async def shipped() -> bool:
        """One look, and what is new is shipped."""
        nonlocal is_started
        is_started = is_started or await done("parts", shipper.start)
        return is_started and await done("parts", shipper.step)

    async def sealed() -> bool:
        return not is_started or await done("sealing", shipper.seal)

    async def repeat(body: Callable[[], Awaitable[bool]]) -> None:
        """Looks begin an interval apart: what a request took is not waited for once more."""
        interval_s = patience_s = settings.backup_interval_s
        while not stop.is_set():
            looked = time.monotonic()
            if await body():
                wait_s, patience_s = max(0.0, looked + interval_s - time.monotonic()), interval_s
            else:
                wait_s = patience_s = min(5.0, max(2 * patience_s, 0.5))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def ship() -> None:
        await repeat(shipped)
        await shipped()  # what came last: the core has stopped before this process, which may have only just begun

    await _first_ends(stop, ship(), repeat(sealed), _report(status, stop, facts))
    status.write(ready=False, **facts())


async def _relay(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from marketdata.relay import run_relay
    from persistence.chain_words import ChainWords
    from persistence.disk import DirectoryDisk

    facts: dict[str, Any] = {}
    disk = DirectoryDisk(settings.data_directory)
    await _first_ends(
        stop,
        run_relay(
            settings.relay_url, lambda: _event_source(settings), lambda: ChainWords(disk).word, stop, facts
        ),
        _report(status, stop, lambda: facts),
    )


# ---------------------------------------------------------------------------------------------------- the back office


async def _backoffice(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from byline.core_port import GatewayPort
    from byline.journal_publication import keep_batch_file
    from byline.rebuild import REQUEST
    from byline.settled_notices import SettledNotices
    from persistence.chain_words import ChainWords
    from persistence.disk import DirectoryDisk
    from persistence.stores.postgres.projector import Projector
    from platform_api.database import Database
    from platform_api.registry.service import registry_desk
    from platform_api.settlement.desk import WithdrawalDesk
    from settlement.brake import Brake
    from settlement.chain.purse import Purse
    from settlement.proof_desk import ProofSettings, load_proof_key, serve_proofs
    from settlement.publication import published
    from settlement.settler import BatchRecord, SettlementSettings, Settler, run_settler
    from settlement.store import FileBatchStore
    from settlement.watcher import Watcher

    data = settings.data_directory
    core = GatewayPort(data, settings.host)
    events = await _event_source(settings)
    rebuild = data / REQUEST
    projector = Projector(
        events, _postgres_url(settings), journal=events.identity, words=ChainWords(DirectoryDisk(data)), rebuild=rebuild
    )
    chain_directory = data / "chain"
    chain_directory.mkdir(parents=True, exist_ok=True)
    purse = Purse()
    chain, signer = await open_chain(settings, chain_directory / "pysui", purse=purse)
    store = FileBatchStore(data / "settlement" / "batches.log")
    watcher = Watcher(data / "settlement" / "chain.log")
    brake = Brake(
        await _event_source(settings), _Bookings(core), data / "settlement" / "brake.log", settings.unsettled_limit_s
    )
    audit = _Audit(data) if settings.second_core else None
    backup = _backup_gate(settings, events.identity) if settings.backup_url else None
    settlers: list[Settler] = []
    proofs = ProofSettings(load_proof_key(data / "keys" / "proofs.key"), publication=lambda: published(data))

    database = Database(_postgres_url(settings), connections_max=3)
    desk = WithdrawalDesk(database, core)
    rights = open_rights(settings, chain_directory / "pysui-rights", signer, purse)
    registry = registry_desk(database, rights)

    notices = SettledNotices(core)

    def on_batch(record: BatchRecord) -> None:
        projector.store_batch(_batch_row(record))
        notices.add(record)
        if record.file:
            keep_batch_file(data, record.number, record.file)
        desk.store_paid(record.number, record.payouts)

    def has_loaded() -> bool:
        return bool(settlers) and settlers[0].settled_batch is not None

    def facts() -> dict[str, Any]:
        return {"projection": projector.status(), "withdrawals_error": desk.error,
                "registry_error": registry.error, "brake": brake.status(),
                "backup_waits_s": round(backup.waits_s, 3) if backup else 0.0,
                "settlement": settlers[0].status() if has_loaded() else {}}  # fmt: skip

    async def report() -> None:
        await _report_progress(
            status, lambda: has_loaded() or stop.is_set(), lambda: settlers[0].progress if settlers else 0
        )
        await _report(status, stop, facts)

    async def proof_desk() -> None:
        while not settlers and not stop.is_set():
            await asyncio.sleep(0.01)
        if settlers:
            [settler] = settlers
            await serve_proofs(data, lambda: settler.netting.liabilities, lambda: settler.final_batch, stop)

    await core.start()
    await database.open()
    try:
        await _first_ends(
            stop,
            projector.run(stop),
            desk.run(stop),
            registry.run(stop),
            run_settler(
                await _event_source(settings), chain, store, watcher, SettlementSettings(), on_batch, stop,
                commands=_Bookings(core), releases=desk, proofs=proofs, audit=audit,
                backup=backup, known=lambda: _known(projector, desk, data), on_settler=settlers.append,
            ),
            proof_desk(),
            brake.run(stop, lambda: settlers[0].settled_batch if settlers else None),
            notices.run(stop),
            report(),
            _resumes(settings, settlers, stop),
            _rebuilds(rebuild, projector, stop),
        )  # fmt: skip
    finally:
        await core.close()
        await database.close()
        await rights.close()
        await chain.close()
        if settings.chain_signer:
            await signer.close()
        if audit is not None:
            audit.close()
        brake.close()
        watcher.close()
        store.close()


async def _known(projector: Any, desk: Any, data: Path) -> Any:
    """What need not be told again of settled batches: nothing, while PostgreSQL is away."""
    from byline.journal_publication import kept_batches
    from settlement.settler import Known

    try:
        await asyncio.wait_for(projector.begun.wait(), PROJECTION_WAIT_S)
        unpaid = await desk.unpaid()
    except (TimeoutError, Unavailable) as error:
        logger.warning("event=batches_told_again reason=%s", error or "PostgreSQL does not answer")
        return Known()
    return Known(projector.final_batches, await asyncio.to_thread(kept_batches, data), unpaid)


def _backup_gate(settings: Settings, identity: bytes) -> Any:
    from byline.backup_gate import BackupGate
    from persistence.backup import Objects
    from persistence.shipped import Shipped

    def opens() -> Objects:
        return Objects(settings.backup_url, make_directory=False)

    return BackupGate(settings.data_directory, Shipped(settings.data_directory, opens, identity))


async def _rebuilds(request: Path, projector: Any, stop: asyncio.Event) -> None:
    """Ends the process when a rebuild is asked for later than at its start: the next one begins with it, and the
    settler then tells every batch again."""
    while not stop.is_set():
        if projector.status()["connected"] and request.exists():
            logger.warning("event=rebuild: the back office starts anew")
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)


async def _resumes(settings: Settings, settlers: list[Any], stop: asyncio.Event) -> None:
    """Ends a halt of settlement whenever DATA/run/settle-resume.request appears; settle-resume.done answers."""
    request = RequestFile(settings.data_directory, "settle-resume")
    while not stop.is_set():
        note = request.asked() if settlers and settlers[0].settled_batch is not None else None
        if note is not None:
            try:
                answer = "resumed: " + settlers[0].resume(note.strip() or "no note")
            except ValueError as error:
                answer = f"nothing to resume: {error}"
            request.answer(answer)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)


class _Audit:
    """Fulfils `settlement.audit.AuditPort` beside the event loop: catching up may take a while."""

    def __init__(self, directory: Path) -> None:
        from persistence.disk import DirectoryDisk
        from persistence.second_core import SecondCore

        self._core = SecondCore(DirectoryDisk(directory))

    async def at_cut(self, sequence: int) -> tuple[bytes, Any]:
        return await asyncio.to_thread(self._core.at_cut, sequence)

    def close(self) -> None:
        self._core.close()


class _Bookings:
    """Fulfils `settlement.commands.CommandPort`: no answer is an absence, for the same ref again is harmless."""

    def __init__(self, core: Any) -> None:
        self._core = core

    async def submit(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self._core.submit(command)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return answer

    async def available(self, account: str) -> Mapping[str, str]:
        try:
            free: Mapping[str, str] = await self._core.available(account)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return free


def _chain_url(settings: Settings) -> str:
    if settings.chain_url:
        return settings.chain_url
    status = read_status(settings.data_directory, "chain")
    if not status or "port" not in status:
        raise Unavailable("the embedded node has not started yet")
    return f"http://{CHAIN_HOST}:{status['port']}"


def _open_vault(settings: Settings) -> str:
    """One of the vaults that are open; empty: none is yet."""
    from settlement.store import listings

    known = listings(settings.data_directory / "settlement" / "batches.log")
    return next((listing.vault for listing in known.values()), "")


def _batch_row(record: Any) -> dict[str, Any]:
    """A batch of the settler as the projection stores it."""
    return {
        "number": record.number, "first_sequence": record.first_sequence, "last_sequence": record.last_sequence,
        "cut_at_ns": record.cut_ts, "status": record.status, "state_hash": bytes.fromhex(record.state_hash),
        "root": bytes.fromhex(record.root), "trades_digest": bytes.fromhex(record.trades_digest),
        "leg_count": record.row_count, "digests": record.digests, "committed_at_ns": record.final_ts or None,
        "error": record.error or None, "file": record.file,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the API


async def _api(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    import uvicorn

    from byline.book_port import FollowedBooks
    from byline.core_port import GatewayPort
    from byline.proof_port import DeskProofs
    from byline.status_port import StatusFiles
    from platform_api.app import create_app
    from platform_api.logs import configure_logs

    configure_logs()
    data = settings.data_directory
    server_socket = _listen(settings.host, settings.api_port or _port_before(settings, "api"))
    port = server_socket.getsockname()[1]
    core = GatewayPort(data, settings.host)
    books = FollowedBooks(data, settings.host)
    app = create_app(api_settings(settings, port), core, books, StatusFiles(data), DeskProofs(data))

    class Server(uvicorn.Server):
        """The process has its own signal handlers; uvicorn's would end it before the others are told."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(uvicorn_config(app, settings))

    async def stopper() -> None:
        await stop.wait()
        server.should_exit = True

    async def report() -> None:
        while not server.started and not stop.is_set():
            await asyncio.sleep(0.02)
        gc.collect()
        gc.freeze()  # routes and types stay: the collector need not walk them again
        gc.set_threshold(*API_GARBAGE)
        await _report(status, stop, facts)

    def facts() -> dict[str, Any]:
        disk = shutil.disk_usage(data)
        return {
            "host": settings.host, "port": port, "core": dict(core.status()),
            "disk_bytes": disk.total, "disk_free_bytes": disk.free,
        }  # fmt: skip

    async def serve() -> None:
        await server.serve(sockets=[server_socket])
        if not server.started:
            raise Unavailable("the API did not start: the lines above say why")

    try:
        await core.start()
        await books.start()
        await _first_ends(stop, serve(), stopper(), report())
    finally:
        await core.close()
        await books.close()


def api_settings(settings: Settings, port: int) -> ApiSettings:
    """Those of a process of REST that listens at `port`."""
    from byline.people import COLUMN_KEYS
    from platform_api.settings import ApiSettings

    data = settings.data_directory
    web = Path(__file__).parents[1] / "web" / "terminal"
    return ApiSettings(
        postgres_dsn=_postgres_url(settings),
        listens_at=f"{settings.host}:{port}",
        cors_origins=settings.cors_origins(),
        chain="sui:embedded" if not settings.chain_url else "sui",
        signing_key_path=data / "keys" / "access-token.key",
        column_keys_path=data / COLUMN_KEYS,
        mail_folder=data / "mail",
        blob_url=settings.blob_url or (data / "blobs").as_uri(),
        web_folder=web if (web / "index.html").exists() else None,
        embedded=not settings.chain_url,
        test_payments=not settings.chain_url,
        faucet={"USDC": "10000", "INK": "100"} if not settings.chain_url else {},
        withdrawal_fees=settings.fees(),
        session_seconds=settings.session_hours * 3_600,
        **{name: getattr(settings, name) for name in API_SAME},
        **{name.removeprefix("api_"): getattr(settings, name) for name in API_LIMITS},
    )


def uvicorn_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How REST is served. Limits, audit and sessions go by the client's address, so a header says it only if a proxy
    that the settings name has sent it; uvicorn alone would believe every process of this machine."""
    import uvicorn

    proxies = settings.proxies()
    return uvicorn.Config(
        app, loop="none", http="httptools", ws="websockets-sansio", ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False, lifespan="on", log_level="warning", access_log=False,
        proxy_headers=bool(proxies), forwarded_allow_ips=list(proxies),
    )  # fmt: skip


def _listen(host: str, port: int) -> Any:
    import socket

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(512)
    listener.setblocking(False)
    return listener


async def _traders(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    from byline.trading_floor import trade

    await trade(settings, status, stop)
