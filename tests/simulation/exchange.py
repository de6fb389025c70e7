"""The exchange under test: production recovery, journal, sequencer, engine, event log and session code in one loop.

What it is given in place of the machine: a disk, a clock, a network (ports), and a hand that does the work of the
journal's writer thread after a while of virtual time. Nothing of it knows that it is simulated.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.ports import File
from gateway.keys import KeyRegistry, public_hex
from gateway.sequencer import Sequencer
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from persistence import ring, segments
from persistence.event_log import EventLogReader
from persistence.event_mark import EventKeeper
from persistence.journal import JournalSettings, least_segment_bytes
from persistence.recovery import Recovered, recover
from persistence.segments import write_all
from persistence.snapshot import SnapshotWriter
from tests.simulation.disk import FaultyDisk
from tests.simulation.loop import Schedule, VirtualLoop
from tests.simulation.network import MS, Network

__all__ = ["LIMITS", "DiskPace", "ExchangeProcess", "SimulatedClock", "Snapshot"]

LIMITS = CoreLimits(
    accounts=64, markets=8, assets=8, balances=512, orders=4_096, client_ids_total=20_000,
    client_ids_per_account=5_000, refs=4_096, postings=2_048, max_price_ticks=1 << 21, max_fills_per_command=1_000,
    poisons=4_096,
)  # fmt: skip
IDENTITY = bytes(range(16))
EPOCH_NS = 1_800_000_000_000_000_000
EVENT_FILE_SLOTS = 2_048


class SimulatedClock:
    """A wall clock that steps when it is told to, over the world's own time."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.offset_ns = 0

    def now_ns(self) -> int:
        return EPOCH_NS + self._schedule.now_ns + self.offset_ns


@dataclass(slots=True)
class DiskPace:
    """How long a group takes to reach the disk."""

    usual_ns: int = MS // 5
    stall_until_ns: int = 0
    wake_ns: int = 0
    """From a group's end on the disk to the loop that hears of it: commands come in between."""
    random: random.Random = field(default_factory=random.Random)

    def next_ns(self, now_ns: int) -> int:
        usual = self.random.randrange(self.usual_ns // 2, 2 * self.usual_ns)
        return usual if now_ns >= self.stall_until_ns else self.stall_until_ns - now_ns + usual


class ExchangeProcess:
    """One life of the core's process, from recovery to its end."""

    def __init__(
        self, schedule: Schedule, network: Network, disk: FaultyDisk, clock: SimulatedClock, directory: Path, *,
        boot: bytes, epoch: int, pace: DiskPace, operator_key: Any, receipt_key: Any, settings: dict[str, Any],
        durable_acks: bool = True, queue: tuple[int, int] = (1_024, 64),
    ) -> None:  # fmt: skip
        """Recover and begin to listen. Raises what recovery raises; nothing of it is left then.

        `queue`: slots of the journal's ring, and how many of them are kept for cancels.
        """
        self.schedule, self.disk, self.pace = schedule, disk, pace
        self.directory = directory
        self.loop = VirtualLoop(schedule, f"exchange {epoch}")
        self.network = network
        self._is_writing = False
        self.failed_at_ns: int | None = None
        self.recovered: Recovered = recover(
            directory, limits=LIMITS, disk=disk, clock=clock, identity=IDENTITY, boot=boot, threads=False,
            settings=JournalSettings(
                segment_bytes=least_segment_bytes(queue[1]), ring_slots=queue[0], reserved_slots=queue[1]
            ),
            event_file_slots=EVENT_FILE_SLOTS,
        )  # fmt: skip
        self.journal, self.core = self.recovered.journal, self.recovered.core
        try:
            self.keys = KeyRegistry(disk)
            if self.keys.find(public_hex(operator_key)) is None:
                self.keys.register(public_hex(operator_key), [], ["operator"], "operator", clock.now_ns())
            self.sequencer = Sequencer(
                self.core, clock, self.journal, self.recovered.event_log, durable_acks=durable_acks, pending_max=1_024,
                arena_slots=8_192, journal_reserve_slots=queue[1], chain=self.journal.chain,
            )  # fmt: skip
            self.server = GatewayServer(
                GatewaySettings(epoch=epoch, **settings), self.sequencer, self.journal, self.core, self.keys, clock,
                lambda: EventLogReader(directory / "events"), receipt_key,
            )  # fmt: skip
        except BaseException:
            self.recovered.close()
            raise
        self.loop.listen = network.listen_for(self.loop)
        self.is_ready = False
        self.loop.schedule.later(0, self._begin, self.loop)
        if self.journal.status == "disk_full":  # from the start: nothing may ever be written that would look for space
            self.schedule.later(1_000 * MS, self._keep, self.loop)

    def _begin(self) -> None:
        self.loop.create_task(self._start())

    async def _start(self) -> None:
        await self.server.start()
        self.is_ready = True

    # ------------------------------------------------------------ the writer's hand

    def look(self) -> None:
        """After each step: what was published is on its way to the disk."""
        if self.failed_at_ns is None and self.journal.failed:
            self.failed_at_ns = self.schedule.now_ns
        if self._is_writing or self.failed_at_ns is not None:
            return
        if self.journal.appended_sequence > self.journal.durable_sequence:
            self._is_writing = True
            self.schedule.later(self.pace.next_ns(self.schedule.now_ns), self._write, self.loop)

    def _write(self) -> None:
        self._is_writing = False
        result = self.journal.step()
        if self.disk.is_dead:
            return  # whoever watches the disk ends this process
        if result == ring.NEEDS_SEGMENT:
            self._is_writing = True
            self.schedule.later(1_000 * MS, self._write, self.loop)
        if result in (ring.WROTE, ring.FAILED):
            if self.pace.wake_ns:
                self.schedule.later(self.pace.wake_ns, lambda: self.loop.wake_reader(self.journal.fileno()), self.loop)
            else:
                self.loop.wake_reader(self.journal.fileno())
        if result == ring.FAILED and self.failed_at_ns is None:
            self.failed_at_ns = self.schedule.now_ns
        if self.journal.status == "disk_full" and not self._is_writing:
            self._is_writing = True
            self.schedule.later(1_000 * MS, self._try_space, self.loop)

    def _try_space(self) -> None:
        """What the keeper does each second while there is no space for a segment ahead."""
        self._is_writing = False
        if not self._prepare():
            self._is_writing = True
            self.schedule.later(1_000 * MS, self._try_space, self.loop)
        self.loop.wake_reader(self.journal.fileno())

    def _keep(self) -> None:
        """The same, of a process that began on a full disk; what can be written is written meanwhile."""
        if not self._prepare():
            self.schedule.later(1_000 * MS, self._keep, self.loop)
        self.loop.wake_reader(self.journal.fileno())

    def _prepare(self) -> bool:
        if self.journal._spare is None:
            self.journal._prepare_or_say(hurry=True)
        return self.journal.status != "disk_full"

    # ------------------------------------------------------------ the end

    def kill(self) -> None:
        """kill -9: nothing more of it runs, nothing is flushed."""
        self.loop.kill()
        self.network.process_died(self.loop)
        self.server.hub.on_fatal = None
        self.recovered.lock.release()

    @property
    def fault(self) -> BaseException | None:
        return self.server.fault


def _written_at_once(core: Core, file: File, offset: int) -> int:
    """In place of the fork, which copies the core as it is now."""
    write_all(file, offset, core.snapshot())
    file.sync()
    return 0


class Snapshot:
    """One that production's writer has begun: the state of that moment. Raises OSError as the disk does."""

    def __init__(self, process: ExchangeProcess) -> None:
        self._keeper = EventKeeper(process.directory / "events", process.recovered.event_log, process.journal.identity)
        self._writer = SnapshotWriter(process.disk, process.core, process.journal.identity, fork=_written_at_once)
        self._place, self._chain = self._keeper.at(), process.sequencer.chain
        self.sequence = self._writer.begin(self._chain)

    def finish(self) -> str:
        """Once the journal is durable up to `sequence`. Returns its path. The event log's mark follows."""
        name = self._writer.finish()
        self._keeper.keep(self._place, self._chain)
        return name


def wipe_events(directory: Path) -> None:
    """The event log is derived: it may go while the exchange is down."""
    shutil.rmtree(directory / "events", ignore_errors=True)


def journal_paths(disk: FaultyDisk) -> list[str]:
    return [path for path in sorted(disk.files) if path.startswith("journal/") and path.endswith(segments.SUFFIX)]
