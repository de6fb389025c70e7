"""Settlement under one seed: the production settler over the real core and a simulated chain, killed at any step.

    core (real, commands by dice) ─events─▶ settler (production: ledger, netting, submitter, clerk, watcher)
                                              │ ChainPort     │ BackupPort    │ BatchStore: memory that outlives it,
                                              ▼               ▼               ▼ and a file of the same bytes
                                        SimulatedChain   gate (production) ─▶ BackupStore (lags, fails)
                                        (model of the contract, faults)

The auditor of I11 reads what went over the chain's door and what the chain did; of the settler it reads nothing:

  - every batch took effect once, part by part, its numbers without a gap, in each vault;
  - no new bytes for a part while those sent before may still take effect;
  - with a backup, no bytes are sent before the store has them, and the journal up to their batch's cut;
  - a withdrawal is booked as paid, or as failed, only when a checkpoint has the transaction that paid or skipped it;
  - at the end each withdrawal that was booked as paid is one payment of the vault, of its amount from its row, there is
    no other, and none is pending;
  - at the end the vaults hold what the core's balances say, row by row, and their pools are the sums.

In half of the seeds wallets pay in on the chain and leave by it (`wallets.py` has their rules), and in some of these a
node shows a wrong pool for a while: settlement halts, as it must, and a person resumes it. In half of them again the
core stands now and then, as on a disk that stands: what settlement sends is not answered, and runs in order afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from byline.backup_gate import SETTLEMENT_LOG
from engine.messages.errors import JournalFailed, Unavailable
from settlement.batch import Sealed, StoredEvent
from settlement.chain.port import Signed
from settlement.netting import Batch
from settlement.rows import CUSTODY_ROW, TREASURY_ROW, chain_row
from settlement.settler import BatchRecord, SettlementSettings, Settler
from settlement.watcher import Watcher
from tests.simulation.auditor import Violation
from tests.simulation.backup_store import BackupStore
from tests.simulation.chain import WRONG_UNITS, ChainNode, Sending, SimulatedChain
from tests.simulation.loop import Schedule, VirtualLoop
from tests.simulation.network import MS
from tests.simulation.wallets import STRANGER, Wallets
from tests.support.real_core import RealCore

__all__ = ["SettlementResult", "SettlementWorld", "audit_sendings", "run_settlement"]

SECOND = 1_000 * MS
ASSETS = {"USDC": 6, "MAYA": 2}
SETTINGS = SettlementSettings(
    poll_interval_s=0.05, watch_interval_s=0.5, retry_first_s=0.1, retry_most_s=2.0, max_pending=50
)


class SimulatedStore:
    """A `BatchStore` whose process may die right before or right after an event is durable."""

    def __init__(self, path: Path) -> None:
        """`path`: of a file whose bytes are the events, for whoever backs them up."""
        path.parent.mkdir(parents=True)
        self._file = path.open("wb", buffering=0)
        self.kept: list[StoredEvent] = []
        self.die_in: int | None = None
        self.dies_after = False
        self.on_death: Any = None

    def append(self, event: StoredEvent) -> None:
        dies = False
        if self.die_in is not None:
            self.die_in -= 1
            dies = self.die_in <= 0
        if not dies or self.dies_after:
            self.kept.append(event)
            self._file.write(msgspec.msgpack.encode(event))
        if dies:
            self.die_in = None
            self.on_death()
            raise JournalFailed("the machine is dead (simulated)")

    def events(self) -> Iterator[tuple[int, StoredEvent]]:
        yield from enumerate(list(self.kept))

    def sealed(self, place: int) -> Batch:
        event = self.kept[place]
        assert isinstance(event, Sealed)
        return event.batch

    def close(self) -> None: ...

    def end(self) -> None:
        """The machine is gone."""
        self._file.close()


class Queue:
    """What a core that stands has been sent and will run: it outlives who sent it."""

    def __init__(self) -> None:
        self.stands = False
        self.waiting: list[Callable[[], object]] = []

    def stand(self) -> None:
        self.stands = True

    def go_on(self) -> None:
        self.stands, waiting, self.waiting = False, self.waiting, []
        for run in waiting:
            run()

    def look(self) -> None:
        """Raises Unavailable: it stands."""
        if self.stands:
            raise Unavailable("the core has not answered (simulated)")


class LossyCommands:
    """The core's door for the settler: requests and answers may be lost, and have to wait in `queue`. `blame` hears
    what no checkpoint bears out, `took` of each command that came to the core, with its answer."""

    def __init__(
        self, core: RealCore, node: ChainNode, queue: Queue, blame: Callable[[Violation], None],
        took: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    ) -> None:  # fmt: skip
        self._core, self._node, self._queue, self._blame, self._took = core, node, queue, blame, took

    async def submit(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        op, ref = command["op"], command.get("ref", "")
        is_booking = op in ("withdraw_settled", "withdraw_failed")
        if is_booking and not self._node.has_paid(ref, skipped=op == "withdraw_failed"):
            self._blame(Violation("I11", f"{op} of {ref}, which no checkpoint bears out"))
        await asyncio.sleep(0.002)
        if self._node.draw("lost_command"):
            raise Unavailable("the core is not reachable (simulated)")
        if self._queue.stands:
            self._queue.waiting.append(lambda: self._run(command))
            self._node.happened["core_stood"] += 1
        self._queue.look()
        answer = self._run(command)
        if self._node.draw("lost_booking"):
            raise Unavailable("the answer is lost (simulated)")
        return answer

    def _run(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._core.send(**command)
        self._took(command, answer)
        return answer

    async def available(self, account: str) -> Mapping[str, str]:
        self._queue.look()
        return await self._core.available(account)

    async def sequence_of(self, account: str) -> int:
        self._queue.look()
        return await self._core.sequence_of(account)


@dataclass(slots=True)
class SettlementResult:
    seed: int
    batches: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    @property
    def failure(self) -> str:
        return "; ".join(map(str, self.violations))


class SettlementWorld:
    """One run."""

    chain_type = SimulatedChain

    def __init__(
        self, seed: int, directory: Path, *, faulty: bool = True, has_backup: bool | None = None,
        has_wallets: bool | None = None,
    ) -> None:  # fmt: skip
        """`has_backup`: None: as the seed says; one of three has one. Who waits sends less while there are faults.
        `has_wallets`: None: as the seed says; every second has some."""
        self.result = SettlementResult(seed)
        self.random = random.Random(f"settlement-{seed}")
        self.schedule = Schedule()
        self.node = ChainNode(self.schedule, seed)
        self.core = RealCore()
        self.queue = Queue()
        self.store = SimulatedStore(directory / SETTLEMENT_LOG)
        self.store.on_death = self._die
        self.directory = directory
        self.settler: Settler | None = None
        self.loop: VirtualLoop | None = None
        self.watcher: Watcher | None = None
        self.task: asyncio.Task[None] | None = None
        self.finals: list[int] = []
        self.faulty = faulty
        self.accounts = [f"user:{number}" for number in range(6)]
        self._refs = 0
        self.backup: BackupStore | None = None
        if (seed % 3 == 0) if has_backup is None else has_backup:
            self.backup = BackupStore(self.schedule, seed, directory, lambda: self.core.core.sequence)
            self.node.on_send = self._sent
        self.cuts: dict[int, int] = {}
        """Batch → the sequence of its cut."""
        self.withdrawals: list[dict[str, str]] = []
        """The commands of those that the core took."""
        self.rows: dict[bytes, list[str]] = {}
        """Row → the accounts of it."""
        self.wallets = Wallets(
            self.node, self.schedule, seed, ASSETS, self.rows, lambda: max(self.cuts, default=0),
            lambda: (self.watcher.cursor or 0) if self.watcher is not None else 0,
        )  # fmt: skip
        self.has_wallets = seed % 2 == 0 if has_wallets is None else has_wallets

    def run(self, batches: int = 12) -> SettlementResult:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            self._run(batches)
        finally:
            if self.loop is not None and self.loop.is_alive:
                self._die()
            self.store.end()
            logging.disable(before)
        self.result.batches = len(self.node.committed)
        self.result.faults.update(self.node.happened)
        if self.backup is not None:
            self.result.faults.update(self.backup.happened)
        return self.result

    def _run(self, batches: int) -> None:
        self._list()
        self._start()
        if self.faulty:
            self.node.chances = {
                name: self.random.choice([0.0, 0.05, 0.2, 0.4])
                for name in (
                    "lost_request",
                    "lost_response",
                    "late",
                    "refuse",
                    "stale",
                    "lost_question",
                    "lost_command",
                    "lost_booking",
                )
            }
            if self.backup is not None:
                dice = self.backup.random
                self.backup.chances = {
                    name: dice.choice([0.0, 0.05, 0.3])
                    for name in ("lost", "damaged", "late", "away", "no_journal", "no_log")
                }
            self.node.chances["uncertified"] = random.Random(f"uncertified-{self.result.seed}").choice([0.0, 0.05, 0.3])
        if self.has_wallets:
            self._draw_strange_events()
            if self.faulty and self.result.seed % 4 == 2:
                self._draw_standing()
        for _ in range(batches):
            for _ in range(self.random.randrange(0, 6)):
                self._move()
            if self.has_wallets:
                self.wallets.act()
            self._cut()
            if self.faulty:
                self._trouble()
            self._pass(self.random.randrange(200, 4_000))
        self.node.chances = {}
        self.queue.go_on()
        self.wallets.is_calm = True
        self.node.is_away = self.node.is_locked = False
        self.node.checkpoint_lag_ns = 0
        self.node.uncertified = None
        if self.backup is not None:
            self.backup.chances = {}
        self.store.die_in = None
        for _ in range(3):  # what was paid is booked, and the booking is cut too
            self._pass(20_000)
            self._cut()
        self._pass(30_000)
        self.wallets.call_off()
        self._pass(30_000)
        self._audit()

    def _cut(self) -> None:
        event = self.core.send(op="cut")
        self.cuts[event["batch"]] = event["last_sequence"]

    def _sent(self, batch: int, signed: Signed) -> None:
        """Bytes are at the chain's door: what a restore would bring back must know of them."""
        assert self.backup is not None
        lacks = []
        if self.backup.sequence < self.cuts[batch]:
            lacks.append(f"the journal behind {self.backup.sequence}")
        if signed.raw not in self.backup.log:
            lacks.append("the bytes")
        if lacks:
            text = f"batch {batch}, cut at {self.cuts[batch]}, is sent, and the backup lacks {' and '.join(lacks)}"
            self.result.violations.append(Violation("I11", text))

    def _draw_strange_events(self) -> None:
        """In some worlds the wallet without an account opens one, and a node shows pools that no vault has."""
        draw = self.wallets.random
        if draw.random() < 0.5:
            self.schedule.later(draw.randrange(10_000, 70_000) * MS, self._open_late)
        if draw.random() < 0.5:
            at_ns = self.schedule.now_ns + draw.randrange(2_000, 20_000) * MS
            self.schedule.at(at_ns, lambda: setattr(self.node, "is_wrong", True))
            self.schedule.at(at_ns + draw.randrange(3_000, 10_000) * MS, self._mend_pools)

    def _draw_standing(self) -> None:
        draw = random.Random(f"standing-{self.result.seed}")
        for _ in range(draw.randrange(1, 5)):
            at_ns = self.schedule.now_ns + draw.randrange(1_000, 20_000) * MS
            self.schedule.at(at_ns, self.queue.stand)
            self.schedule.at(at_ns + draw.randrange(500, 9_000) * MS, self.queue.go_on)

    def _open_late(self) -> None:
        self._open("user:late", STRANGER)

    def _open(self, account: str, row: bytes) -> None:
        self.core.send(op="account", account=account, row=f"0x{row.hex()}")
        self.rows[row] = [account]

    def _mend_pools(self) -> None:
        """The node is right again; who looks after settlement resumes it where it has halted for this, then or soon."""
        self.node.is_wrong = False
        self.schedule.later(SECOND, self._mend_pools)
        if self.loop is None or not self.loop.is_alive or self.settler is None or self.settler.settled_batch is None:
            return
        shown = re.search(r"shows pool (\d+); the books say (\d+)$", self.settler.status()["halted"])
        if shown is not None and int(shown[1]) - int(shown[2]) == WRONG_UNITS:
            self.schedule.later(0, self._resume, self.loop)

    def _resume(self) -> None:
        assert self.settler is not None
        with contextlib.suppress(JournalFailed):  # it died in that very moment: what it halts for stands, or does not
            self.settler.resume("the node was wrong")
            self.node.happened["resumed"] += 1

    def _pass(self, ms: int) -> None:
        self.schedule.run(self.schedule.now_ns + ms * MS)

    # ------------------------------------------------------------ the settler's lives

    def _start(self) -> None:
        self.loop = loop = VirtualLoop(self.schedule, "settler")
        self.watcher = Watcher(self.directory / "chain.log")

        def on_batch(record: BatchRecord) -> None:
            if record.status == "final" and record.number not in self.finals:
                self.finals.append(record.number)

        self.settler = Settler(
            self.core, self.chain_type(self.node), self.store, self.watcher, SETTINGS, on_batch,
            LossyCommands(self.core, self.node, self.queue, self.result.violations.append, self.wallets.took),
            backup=self.backup.gate() if self.backup is not None else None,
        )  # fmt: skip
        settler = self.settler

        async def live() -> None:
            await settler.run(asyncio.Event())

        def begin() -> None:
            self.task = loop.create_task(live())

        self.schedule.later(0, begin, loop)

    def _die(self) -> None:
        assert self.loop is not None and self.watcher is not None
        self.loop.kill()
        self.watcher.close()
        self.result.kills += 1
        if self.task is not None:
            self.task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.schedule.later(self.random.randrange(10, 3_000) * MS, self._start)

    def _trouble(self) -> None:
        """Something that lasts, and its end."""
        kind = self.random.choices(["none", "kill", "die_in_store", "away", "locked", "lag"], [6, 2, 3, 1, 1, 2])[0]
        self.result.faults[kind] += kind != "none"
        ends = self.schedule.now_ns + self.random.randrange(100, 20_000) * MS
        if kind == "kill" and self.loop is not None and self.loop.is_alive:
            self._die()
        elif kind == "die_in_store":
            self.store.die_in, self.store.dies_after = self.random.randrange(1, 8), self.random.random() < 0.5
        elif kind == "away":
            self.node.is_away = True
            self.schedule.at(ends, lambda: setattr(self.node, "is_away", False))
        elif kind == "locked":
            self.node.is_locked = True
            self.schedule.at(ends, lambda: setattr(self.node, "is_locked", False))
        elif kind == "lag":
            self.node.checkpoint_lag_ns = self.random.randrange(1, 5) * SECOND
            self.schedule.at(ends, lambda: setattr(self.node, "checkpoint_lag_ns", 0))

    # ------------------------------------------------------------ the core

    def _ref(self) -> str:
        self._refs += 1
        return f"r{self._refs}"

    def _list(self) -> None:
        for asset, scale in ASSETS.items():
            self.core.send(op="asset", asset=asset, scale=scale, settled=True)
        for number, account in enumerate(self.accounts):
            if number < 4:
                self._open(account, (number + 1).to_bytes(32))
            else:
                self.core.send(op="account", account=account)
            for asset in ASSETS:
                self.core.send(op="deposit", account=account, asset=asset, amount="1000", ref=self._ref())

    def _move(self) -> None:
        a, b = self.random.sample(self.accounts, 2)
        asset = self.random.choice(sorted(ASSETS))
        amount = str(self.random.randrange(1, 90))
        draw = self.random.random()
        if draw < 0.5:
            legs = [{"from": a, "asset": asset, "amount": amount, "to": b}]
            self.core.send(op="transfer", ref=self._ref(), legs=legs)
        elif draw < 0.75:
            self.core.send(op="deposit", account=a, asset=asset, amount=amount, ref=self._ref())
        else:
            payer = self.random.choice(self.accounts[:4])
            command = {"op": "withdraw", "account": payer, "asset": asset, "amount": amount, "ref": self._ref()}
            if self.core.send(**command)["event"] == "pended":
                self.withdrawals.append(command)

    # ------------------------------------------------------------ I11

    def _audit(self) -> None:
        blame = self.result.violations.append
        assert self.settler is not None
        if self.task is not None and self.task.done():
            blame(Violation("I13", f"the settler ended by itself: {self.task.exception()!r}"))
            return
        halted = self.settler.status()["halted"]
        if halted:
            blame(Violation("I11", f"settlement has halted: {halted}"))
        by_vault: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for asset, batch, part in self.node.committed:
            by_vault[asset].append((batch, part))
        last = max((batch for _, batch, _ in self.node.committed), default=0)
        for asset, numbers in by_vault.items():
            batches = [batch for batch, _ in numbers]
            if len(set(numbers)) != len(numbers) or numbers != sorted(numbers):
                blame(Violation("I11", f"the vault of {asset} committed {numbers}"))
            if sorted(set(batches)) != list(range(batches[0], last + 1)):
                blame(Violation("I11", f"the vault of {asset} committed {batches}: a gap"))
        if self.finals != list(range(1, last + 1)):
            blame(Violation("I11", f"batches became final as {self.finals}; the chain has {last}"))
        cuts = self.core.send(op="cut")["batch"] - 1
        if last != cuts:
            blame(Violation("I12", f"{cuts} cuts were made, {last} settled 60 s after the last fault"))
        self.result.violations += audit_sendings(self.node.sendings)
        self._compare_payments()
        self._compare_money()
        held: Counter[str] = Counter()
        for row in self.core.core.balances():
            held[self.core.directory.accounts[int(row["account"])].name] += int(row["held"])
        self.result.violations += self.wallets.audit(held)

    def _compare_payments(self) -> None:
        """No withdrawal may be pending, and what the vaults have paid is those that were booked as paid."""
        rows = {name: bytes(entry.row) for name, entry in self.core.directory.accounts_by_name.items()}
        owed: Counter[tuple[str, bytes, int]] = Counter()
        for command in self.withdrawals:
            status = self.core.send(**command)["status"]  # said again it changes nothing
            if status == "pending":
                self.result.violations.append(Violation("I12", f"{command} is pending 60 s after the last fault"))
            elif status == "posted":
                asset = command["asset"]
                owed[asset, rows[command["account"]], int(command["amount"]) * 10 ** ASSETS[asset]] += 1
        paid = Counter(
            (self.node.assets[event.digest, event.index], event.owner, event.amount)
            for event in self.node.events
            if event.kind == "Withdrawn"
        )
        for payment in owed.keys() | paid.keys():
            if owed[payment] != paid[payment]:
                asset, row, amount = payment
                what = f"{amount} units of {asset} from the row {row.hex()[-4:]}"
                text = f"{what} were paid {paid[payment]} times, booked {owed[payment]} times"
                self.result.violations.append(Violation("I11", text))

    def _compare_money(self) -> None:
        totals: dict[str, dict[bytes, int]] = defaultdict(lambda: defaultdict(int))
        rows = {entry.index: entry for entry in self.core.directory.accounts_by_name.values()}
        for row in self.core.core.balances():
            entry = rows[int(row["account"])]
            if entry.name == "system:external":
                continue
            asset = self.core.directory.assets[int(row["asset"])].name
            own = bytes(entry.row) if entry.mask & 4 or any(entry.row) else None
            totals[asset][chain_row(entry.name, own)] += int(row["available"]) + int(row["held"])
        for (asset, owner), units in self.wallets.unbooked().items():
            totals[asset][owner] += units
        for asset, expected in totals.items():
            vault = self.node.vaults[asset]
            held = {who: amount for who, amount in vault.balances.items() if amount}
            expected = {who: amount for who, amount in expected.items() if amount}
            if held != expected:
                names = {CUSTODY_ROW: "custody", TREASURY_ROW: "treasury"}
                wrong = {
                    names.get(who, who.hex()[-4:]): (held.get(who, 0), expected.get(who, 0))
                    for who in held.keys() | expected.keys()
                    if held.get(who, 0) != expected.get(who, 0)
                }
                self.result.violations.append(Violation("I11", f"{asset}: (chain, core) differ: {wrong}"))
            if vault.header.pool != sum(held.values()):
                self.result.violations.append(Violation("I1", f"{asset}: the pool is not the sum of its rows"))


def audit_sendings(sendings: list[Sending]) -> list[Violation]:
    """No new bytes for a part while those sent before may still take effect: no answer was had, and none found."""
    found, doubtful = [], {}
    for sending in sendings:
        place = (sending.batch, sending.part)
        before = doubtful.get(place)
        if sending.answer == "found":
            doubtful[place] = None if before == sending.digest else before
            continue
        if before is not None and before != sending.digest:
            what = f"{sending.digest[:8]} was sent while {before[:8]} may still be executed"
            found.append(Violation("I11", f"batch {place[0]}, part {place[1]}: {what}"))
        doubtful[place] = sending.digest if sending.answer == "unknown" else None
        if sending.answer == "refused" and before == sending.digest:
            doubtful[place] = None
    return found


def run_settlement(
    seed: int, *, world: type[SettlementWorld] = SettlementWorld, batches: int = 12, has_backup: bool | None = None,
    has_wallets: bool | None = None,
) -> SettlementResult:  # fmt: skip
    """A whole run of one seed. `has_backup`, `has_wallets`: None: as the seed says."""
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="byline-sim-", dir=memory if memory.is_dir() else None))
    try:
        return world(seed, scratch, has_backup=has_backup, has_wallets=has_wallets).run(batches)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
