"""Real processes under load, killed and stopped one after another and all at once; after each fault the audit.

    start ─▶ traders go ─▶ fault ─▶ all up again, an order of each is taken ─▶ audit ─▶ traders go ─▶ next fault …
                                                                     ─▶ all money where it belongs ─▶ audit of the end

Meanwhile the purses of the same accounts pay in on the chain and take out over REST.

`kill` is SIGKILL, `stop` is SIGSTOP for `pause_s` and then SIGCONT: of one process, of the database and all that serve
its connections, or of all, the supervisor too, as a machine that is paused. `all` is SIGKILL of the supervisor and
everything below it, followed by a new start. Each fault comes at a random moment of the load. While anything but the
core is stopped, orders go on. `all unshipped` is `all` while the backup lacks a batch: the process that ships was
stopped before it was sealed.

`kill core twice` is SIGKILL again while the core starts anew: at a random moment behind its first look at the journal,
or of the whole start, and before it is ready. One that was ready first is killed too, and the next start struck sooner.

Segments of the journal and the time between two snapshots are small, so that starts are from snapshots and kills strike
whoever writes one, changes the segment, or seals it in the backup. An exchange that shows none of it is a failure.

The exchange ships its journal to a backup in a folder. It follows behind each fault, and at the end what is restored
from it is the journal to its last record. Behind `all`, before the new start, it is restored too: the chain must not
know of a batch that this backup does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from byline.client import generate_key, public_key
from byline.operator import open_operator
from tests.faults.audit import Audit, audit, check_backup, check_chain_in_backup, settled
from tests.faults.load import ASSETS, MARKETS, Numbers, Trader
from tests.faults.purse import PLAIN, Purse
from tests.faults.vaults import Vaults
from tests.support.exchange import ExchangeProcess, descendants, until

__all__ = ["FAULTS", "RECOVERED_S", "Kills", "plan", "run_kills", "slow_starts"]

TRADERS = 4
KILLED = ("core", "marketdata", "backoffice", "postgres", "chain", "api", "backup")
STOPPED = ("core", "marketdata", "backoffice", "chain", "api", "postgres", "backup", "all")
FAULTS = (
    "kill core", "kill core twice", "all", "all unshipped",
    *(f"kill {name}" for name in KILLED[1:]), *(f"stop {name}" for name in STOPPED),
)  # fmt: skip
SMALL = {"BYLINE_SNAPSHOT_INTERVAL_S": "2", "BYLINE_JOURNAL_SEGMENT_MIB": "2"}
STARTS_MUST, SEGMENT_RECORDS = 5, (2 << 20) // 128
"""So many kills of the core, and so many records, are enough to see the one and the other."""
RESTARTED_BY_SUPERVISOR_S = 120.0
TAKEN_S = 60.0
"""Until an order is taken, once order entry answers: a start may have cancels to carry out first."""
FAILURES_KEPT = 20
RECOVERED_S = 5.0
"""Of a start of the core, from the lock of its journal to the state at its end, by its own clock: of up to a million
records (I12), and those of an exchange that is killed are some ten thousand."""
STARTS_TRIED = 3
"""By `kill core twice`: each of them makes the supervisor's next pause longer."""
START_S, OPENED_S = 0.8, 0.2
"""About as long takes a start of the core, and the part of it behind its first look at the journal."""


@dataclass
class Kills:
    """What a run did and found."""

    faults: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, list[float]] = field(default_factory=dict)
    """By fault: from the signal until every process was up, ready, and order entry answered."""
    replay_s: float = 0.0
    """The core's own slowest recovery, as it says."""
    commands: int = 0
    requests: int = 0
    """Orders whose true outcome was compared with what was told."""
    acked: int = 0
    resolved: Counter[str] = field(default_factory=Counter)
    refs: int = 0
    """Money commands of the traders, each compared with what was told of it."""
    refs_again: int = 0
    """Of these, sent again because no answer came."""
    fills: int = 0
    """Fills that were told."""
    withdrawn: int = 0
    """Withdrawals that the chain paid."""
    deposited: int = 0
    """Deposits that wallets made on the chain."""
    ended: int = 0
    """Orders that went with their session."""
    starts: int = 0
    """Starts of the core that a kill struck before it was ready."""
    from_snapshots: int = 0
    """Starts of the core from a snapshot."""
    segments: int = 0
    """Of the journals at their ends, those that were full."""
    restored: int = 0
    """Records that backups held at the end, all that the journals had."""
    backed: int = 0
    """Transactions of batches that chains had executed when everything was dead, each looked for in its backup."""
    core_s: dict[str, float] = field(default_factory=dict)
    """By fault: the slowest recovery of the core behind it, as the core says. Those that leave the core alive have
    none."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Kills) -> None:
        """Sums of both; the slowest of both."""
        for name in (
            "commands",
            "requests",
            "acked",
            "refs",
            "refs_again",
            "fills",
            "withdrawn",
            "deposited",
            "ended",
            "starts",
            "from_snapshots",
            "segments",
            "restored",
            "backed",
            "seconds",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults.update(other.faults)
        self.resolved.update(other.resolved)
        for fault, times in other.recovery_s.items():
            self.recovery_s.setdefault(fault, []).extend(times)
        for fault, seconds in other.core_s.items():
            self.core_s[fault] = max(self.core_s.get(fault, 0.0), seconds)
        self.replay_s = max(self.replay_s, other.replay_s)
        self.failures += other.failures


def slow_starts(kills: Kills) -> list[str]:
    """I12: faults behind which the core took longer to recover than it may, by its own count."""
    return [
        f"I12: {fault}: the core took {seconds:g} s to recover its journal; {RECOVERED_S:g} s are the bound"
        for fault, seconds in sorted(kills.core_s.items())
        if seconds > RECOVERED_S
    ]


def plan(count: int, seed: int) -> list[str]:
    """`count` kills: half of them the core, of which each fifth strikes its next start too; a tenth everything, the
    rest each process in turn. Behind each fifth of them one process is stopped for a while, each in turn: these come on
    top."""
    draw = random.Random(seed)
    others, stops = ([f"{word} {name}" for name in names] for word, names in (("kill", KILLED[1:]), ("stop", STOPPED)))
    draw.shuffle(others)
    draw.shuffle(stops)
    faults = []
    for number in range(count):
        if number % 2 == 0:
            faults.append("kill core twice" if number % 10 == 4 else "kill core")
        elif number % 10 == 9:
            faults.append("all unshipped" if number % 20 == 19 else "all")
        else:
            faults.append(others[(number // 2 - number // 10) % len(others)])
        if number % 5 == 4:
            faults.append(stops[number // 5 % len(stops)])
    return faults


async def run_kills(
    directory: Path, faults: list[str], *, seed: int, pause_s: float = 1.5, rest_s: float = 0.0, batch_s: int = 1,
    on_fault: Callable[[int, str, Kills], None] | None = None, environment: Mapping[str, str] | None = None,
) -> Kills:  # fmt: skip
    """Carries out `faults` in order on one exchange in `directory`. What fails is in the result, and raises nothing.

    `pause_s`: how long what is stopped stays so. `rest_s`: of traders between their rounds, while what was struck comes
    up again. `batch_s`: between two batches of settlement. `environment`: more of it for the exchange.

    The exchange is stopped at the end, and its backup restored.
    """
    result, began, draw = Kills(), time.monotonic(), random.Random(seed)
    exchange = ExchangeProcess(directory / "data", "--quiet-market", "--batch-seconds", str(batch_s))
    store = (directory / "backup").as_uri()
    exchange.environment.update({"BYLINE_BACKUP_URL": store, **SMALL, **(environment or {})})
    traders: list[Trader] = []
    purses: list[Purse] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        await exchange.start()
        purses = await _purses(exchange, directory / "wallets", seed)
        traders = await _traders(exchange, purses, seed)
        vaults = Vaults(exchange, directory / "wallets" / "auditor", purses[0])
        tasks = [asyncio.create_task(one.run()) for one in (*traders, *purses)]
        for number, fault in enumerate(faults):
            before = sum(len(trader.history) for trader in traders)
            for trader in traders:
                trader.rest_s = 0.0
            for one in (*traders, *purses):
                one.going.set()
            more = 40 + draw.randrange(200)
            await until(lambda goal=before + more: sum(len(t.history) for t in traders) > goal, 240, "orders under way")
            await _carry_out(exchange, traders, fault, draw, pause_s, rest_s, result)
            await _idle([*traders, *purses])
            await _take_orders(traders)
            found = Audit()
            if at_end := number == len(faults) - 1:
                await settled(exchange, purses, vaults, found)
            await audit(exchange, traders, purses, vaults, found, at_end=at_end)
            result.commands, result.ended = found.commands, found.ended
            result.resolved.update(found.resolved)
            result.failures += [f"fault {number + 1} ({fault}): {text}" for text in found.failures[:FAILURES_KEPT]]
            result.faults[fault] += 1
            result.withdrawn = sum(len(events) for events in vaults.paid().values())
            result.deposited = len(vaults.arrivals())
            if on_fault is not None:
                on_fault(number + 1, fault, result)
            if result.failures:
                break
        await _end(tasks)
        if not result.failures:
            await _stop(exchange, store, directory / "restored", result)
    except Exception as error:  # noqa: BLE001 - whatever stands in the way of the checks is a failure of that fault
        text = f"{type(error).__name__}: {error}; {exchange.log()[-600:]}"
        result.failures.append(f"fault {sum(result.faults.values()) + 1}: {text}")
    finally:
        await _end(tasks)
        await exchange.kill()
    histories = [told for trader in traders for told in trader.history.values()]
    result.requests, result.acked = len(histories), sum(told.outcome == "accepted" for told in histories)
    refs = [moved for trader in traders for moved in trader.money.values()]
    result.refs, result.refs_again = len(refs), sum(moved.lost > 0 for moved in refs)
    result.fills = sum(len(trader.fills) for trader in traders)
    result.seconds = time.monotonic() - began
    return result


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _stop(exchange: ExchangeProcess, store: str, restored: Path, result: Kills) -> None:
    """Stops it as a person does, and holds its backup against its journal."""
    if status := await exchange.stop():
        result.failures.append(f"the exchange stopped with status {status}: {exchange.log()[-300:]}")
    _count_snapshots(exchange, result)
    found = Audit()
    result.restored = await asyncio.to_thread(check_backup, exchange, store, restored, found)
    result.failures += found.failures


def _count_snapshots(exchange: ExchangeProcess, result: Kills) -> None:
    """What `SMALL` is for has happened."""
    log = (exchange.data / "logs" / "core.log").read_text(errors="replace")
    starts = [int(told) for told in re.findall(r"event=recovered sequence=\d+ snapshot=(\d+) ", log)]
    result.from_snapshots = sum(sequence > 0 for sequence in starts)
    result.segments = len(list((exchange.data / "journal").glob("*.journal"))) - 1
    if len(starts) > STARTS_MUST and not result.from_snapshots:
        result.failures.append(f"none of {len(starts)} starts of the core was from a snapshot")
    if result.commands > 2 * SEGMENT_RECORDS and not result.segments:
        result.failures.append(f"{result.commands} records are in one segment")


async def _purses(exchange: ExchangeProcess, directory: Path, seed: int) -> list[Purse]:
    """Once every vault is open: one account for each, with gas."""

    def vaults() -> bool:
        return ASSETS.keys() <= (exchange.status("backoffice").get("settlement") or {}).get("coins", {}).keys()

    await until(vaults, what="the vaults")
    numbers = Numbers()
    purses = [Purse(exchange, directory, f"p{number}", seed, numbers) for number in range(TRADERS)]
    for purse in purses:
        await purse.open()
    return purses


async def _traders(exchange: ExchangeProcess, purses: list[Purse], seed: int) -> list[Trader]:
    """Of the same accounts, which get something to trade with. Orders of the last one end with their session."""
    keys = {purse.account: generate_key() for purse in purses}
    async with open_operator(exchange.settings) as operator:
        for account, key in keys.items():
            for asset in ASSETS:
                ref = f"fund:{account[-12:]}:{asset}"
                await operator.command("deposit", account=account, asset=asset, amount="1000000", ref=ref)
            scopes = ["read", "trade", "transfer", "withdraw"]
            await operator.register_key(public_key(key), [account], scopes, "trader", tier="unlimited")
    return [
        Trader(
            exchange.settings, f"k{number}", account, key, seed * 1000 + number, purses[0].numbers,
            [other for other in keys if other != account], ends=number == TRADERS - 1,
        )
        for number, (account, key) in enumerate(keys.items())
    ]  # fmt: skip


async def _idle(traders: Sequence[Trader | Purse]) -> None:
    for trader in traders:
        trader.going.clear()
    for trader in traders:
        await asyncio.wait_for(trader.idle.wait(), 240)


async def _take_orders(traders: Sequence[Trader]) -> None:
    """A plain order of each is accepted in each market: an exchange that answers, and refuses trade, is not back."""
    for trader, market in itertools.product(traders, MARKETS):
        deadline = time.monotonic() + TAKEN_S
        while why := await trader.why_not_taken(market):
            assert time.monotonic() < deadline, f"no order of {trader.name} in {market} is taken: {why}"
            await asyncio.sleep(0.1)


async def _carry_out(
    exchange: ExchangeProcess, traders: list[Trader], fault: str, draw: random.Random, pause_s: float, rest_s: float,
    result: Kills,
) -> None:  # fmt: skip
    await asyncio.sleep(draw.random() * 0.3)
    kind, name, again = (*fault.split(" "), "", "")[:3]
    began = time.monotonic()
    for trader in traders:
        trader.rest_s = rest_s
    if kind == "all":
        if name == "unshipped":
            await _stop_shipping(exchange)
            began = time.monotonic()
        await exchange.kill()
        began += await asyncio.to_thread(_look_at_backup, exchange, fault, result)
        await exchange.start()
        await _all_up(exchange, {})
    elif kind == "kill":
        dead = [exchange.pid(name)]
        os.kill(dead[0], signal.SIGKILL)
        if again:
            await _strike_a_start(exchange, name, dead, draw, result)
            began = time.monotonic()
        await _all_up(exchange, {name: dead})
    else:
        await (_all_stopped(exchange, pause_s) if name == "all" else _stopped(exchange, traders, name, pause_s))
        began = time.monotonic()
        await _all_up(exchange, {})
    result.recovery_s.setdefault(fault, []).append(round(time.monotonic() - began, 3))
    replay_s = float(exchange.status("core").get("recovery_s", 0.0))
    result.replay_s = max(result.replay_s, replay_s)
    if kind == "all" or name == "core" and kind == "kill":
        result.core_s[fault] = max(result.core_s.get(fault, 0.0), replay_s)


async def _stop_shipping(exchange: ExchangeProcess) -> None:
    """SIGSTOP of the backup, until settlement waits for it; or has gone on with a batch that was sealed since."""

    def office() -> dict[str, Any]:
        return exchange.status("backoffice")

    def waits(before: int) -> bool:
        settlement = office()["settlement"]
        return bool(settlement["backup_waits"]) or settlement["final_batch"] > before

    os.kill(exchange.pid("backup"), signal.SIGSTOP)
    stopped = time.time()
    await until(lambda: office()["written_at"] > stopped, 240, "a status")  # the one before may lack what was shipped
    settlement = office()["settlement"]
    before = settlement["final_batch"] + settlement["pending_batches"]
    await until(lambda: waits(before), 240, "a batch that waits for the backup")


def _look_at_backup(exchange: ExchangeProcess, fault: str, result: Kills) -> float:
    """Holds the chain against the backup while all processes are dead. Returns how many seconds that took."""
    began, found = time.monotonic(), Audit()
    with tempfile.TemporaryDirectory(dir=exchange.data.parent) as scratch:
        store = exchange.environment["BYLINE_BACKUP_URL"]
        result.backed += check_chain_in_backup(exchange.data / "chain", store, Path(scratch), found)
    number = sum(result.faults.values()) + 1
    result.failures += [f"fault {number} ({fault}): {text}" for text in found.failures[:FAILURES_KEPT]]
    return time.monotonic() - began


async def _strike_a_start(
    exchange: ExchangeProcess, name: str, dead: list[int], draw: random.Random, result: Kills
) -> None:
    """SIGKILL of a process that starts anew, before it is ready. Adds to `dead` what was killed."""
    for trial in range(1, STARTS_TRIED + 1):
        pid = await until(lambda: _process(exchange, name, dead), RESTARTED_BY_SUPERVISOR_S, f"a start of {name}")
        is_late = draw.random() < 0.75
        if is_late:
            await until(lambda of=pid: _has_opened_journal(of) or not _lives(of), RESTARTED_BY_SUPERVISOR_S)
        await asyncio.sleep(draw.random() * (OPENED_S if is_late else START_S) / trial)
        status = exchange.status(name)
        is_ready = status.get("ready") and status["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        dead.append(pid)
        if not is_ready:
            result.starts += 1
            return


def _process(exchange: ExchangeProcess, name: str, dead: list[int]) -> int | None:
    """The living one of that name, which has not written a status perhaps, but for those."""
    assert exchange.process is not None
    for pid in descendants(exchange.process.pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[-3:-1] == [b"process", name.encode()] and pid not in dead:
                return pid
    return None


def _has_opened_journal(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(os.readlink(entry).endswith("/journal.lock") for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


async def _stopped(exchange: ExchangeProcess, traders: list[Trader], name: str, pause_s: float) -> None:
    """SIGSTOP, a while, SIGCONT. What the API was asked meanwhile is answered when it goes on."""
    first = int(exchange.status(name)["postgres_pid"]) if name == "postgres" else exchange.pid(name)
    os.kill(first, signal.SIGSTOP)  # before its children are looked for: it starts no more
    others = descendants(first) if name == "postgres" else []
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    before = sum(len(trader.history) for trader in traders)
    asked = asyncio.create_task(_is_ready(exchange)) if name == "api" else None
    await asyncio.sleep(pause_s)
    if name != "core":
        await until(lambda: sum(len(t.history) for t in traders) > before, 240, f"orders while {name} is stopped")
    assert asked is None or not asked.done(), "what is stopped answers nothing"
    for pid in (first, *others):
        with contextlib.suppress(ProcessLookupError):  # a connection's process may have been ended by a time limit
            os.kill(pid, signal.SIGCONT)
    if asked is not None:
        assert await asked, "it was asked while it was stopped"


async def _all_stopped(exchange: ExchangeProcess, pause_s: float) -> None:
    """SIGSTOP of the supervisor and of all below it, a while, SIGCONT of all: for each of them the time has jumped."""
    assert exchange.process is not None
    stopped: list[int] = []
    while fresh := [pid for pid in (exchange.process.pid, *descendants(exchange.process.pid)) if pid not in stopped]:
        for pid in fresh:  # parents before their children: who is stopped starts no more
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped += fresh
    await asyncio.sleep(pause_s)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):  # it had just ended
            os.kill(pid, signal.SIGCONT)


async def _is_ready(exchange: ExchangeProcess) -> bool:
    """Whether the API says that it, the database and the core are."""
    api = exchange.status("api")
    try:
        async with httpx.AsyncClient(timeout=RESTARTED_BY_SUPERVISOR_S, verify=PLAIN) as http:
            return (await http.get(f"http://{api['host']}:{api['port']}/ready")).status_code == 200
    except httpx.HTTPError:
        return False


async def _all_up(exchange: ExchangeProcess, dead: dict[str, list[int]]) -> None:
    """Every process is up and ready, those in `dead` under another number; order entry and the API answer."""

    def up() -> bool:
        assert exchange.process is not None and exchange.process.poll() is None, "the supervisor ended"
        for name in KILLED:
            status = exchange.status(name)
            if not status.get("ready") or status["pid"] in dead.get(name, ()) or not _lives(status["pid"]):
                return False
        return True

    await until(up, RESTARTED_BY_SUPERVISOR_S, f"all processes to be up after {dead or 'a fault'}")

    async def answers() -> bool:
        try:
            async with open_operator(exchange.settings) as operator:
                await operator.status()
        except Exception:  # noqa: BLE001 - whatever the reason, it does not answer yet
            return False
        return True

    for ask, what in ((answers, "order entry does not answer"), (lambda: _is_ready(exchange), "the API is not ready")):
        deadline = time.monotonic() + RESTARTED_BY_SUPERVISOR_S
        while not await ask():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
