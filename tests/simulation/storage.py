"""A journal that a whole exchange wrote, for tests that damage it: files in memory, and what they must recover to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.core import Core
from persistence import segments
from persistence.journal import JournalSettings
from persistence.recovery import Recovered, recover
from tests.simulation.disk import FaultyDisk
from tests.simulation.exchange import EVENT_FILE_SLOTS, IDENTITY, LIMITS
from tests.simulation.world import Fault, Plan, World
from tests.support.disk import Node

__all__ = ["Written", "disk_of", "recovered", "written"]

SETTINGS = JournalSettings(segment_bytes=73_728, ring_slots=1_024, reserved_slots=0)


@dataclass(frozen=True, slots=True)
class Written:
    files: dict[str, bytes]
    hashes: list[bytes]
    """State hash after each sequence; the first is that of an empty core."""

    @property
    def last(self) -> str:
        """The last segment."""
        return max(path for path in self.files if path.endswith(segments.SUFFIX))


def written(directory: Path, *, seed: int, duration_ms: int, faults: tuple[Fault, ...] = ()) -> Written:
    """What a world without trouble leaves on its disk."""
    world = World(Plan(seed, faults, duration_ms=duration_ms), directory)
    result = world.run()
    assert not result.violations, result.failure
    files = {path: bytes(node.cached) for path, node in world.disk.files.items()}
    return Written(files, _hashes(files))


def _hashes(files: dict[str, bytes]) -> list[bytes]:
    core, hashes = Core(LIMITS), []
    hashes.append(core.state_hash())

    def take(slots: np.ndarray, _first: int, _last: int) -> None:
        at = 0
        while at < len(slots):
            width = int(slots["slots"][at])
            core.apply(slots[at : at + width].tobytes())
            hashes.append(core.state_hash())
            at += width

    disk = disk_of(files)
    segments.scan(disk, segments.list_segments(disk), take)
    return hashes


def disk_of(files: dict[str, bytes], seed: int = 0) -> FaultyDisk:
    """A disk with these files, all of them durable."""
    disk = FaultyDisk(seed)
    for path, data in files.items():
        disk.files[path] = Node(data)
    return disk


def recovered(disk: FaultyDisk, directory: Path, boot: int = 2) -> Recovered:
    """A core from that disk, after a boot. Close it."""
    return recover(
        directory, limits=LIMITS, settings=SETTINGS, disk=disk, identity=IDENTITY, boot=boot.to_bytes(16, "little"),
        threads=False, event_file_slots=EVENT_FILE_SLOTS,
    )  # fmt: skip
