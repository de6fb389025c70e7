"""A disk that dies in the middle of an operation, loses what was not synced, and lies when it is told to.

Two deaths. `kill`: the process is gone, the machine stays: what was written is still in the page cache, though not on
the platter, until it is synced or the power fails. What a failed sync left there may be dropped meanwhile. `power`:
each unsynced sector of 512 bytes survives or not, and so does what a file grew by; of the names that were made, changed
or removed since their directory was synced only the first few may stand; the operation under way is done in part.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path

from tests.support.disk import SECTOR, Node, SimulatedDisk, SimulatedFile

__all__ = ["FaultyDisk"]

RECORD = 128


class FaultyFile(SimulatedFile):
    """The file of a `FaultyDisk`."""

    _disk: FaultyDisk

    def write_at(self, offset: int, data: bytes) -> int:
        disk = self._disk
        disk.operation("write")
        if disk.is_dead:  # it died in this write: some of it may have reached the cache
            super().write_at(offset, data[: disk.random.randrange(len(data) + 1)])
            raise disk.gone()
        if disk.misdirect and offset:
            disk.misdirect -= 1
            away = disk.random.choice([-8, -1, 1, 3]) * (SECTOR if len(data) >= SECTOR else RECORD)
            disk.done["misdirect"] = 1
            return super().write_at(max(0, offset + away), data)
        return super().write_at(offset, data)

    def sync(self) -> None:
        disk = self._disk
        disk.operation("sync")
        if disk.is_dead:
            raise disk.gone()
        if disk.lies:
            disk.lies -= 1
            disk.done["lie"] = 1
            disk.sync_count += 1
            return  # the sectors stay dirty: a loss of power takes them
        super().sync()


class FaultyDisk(SimulatedDisk):
    """See the module. Faults are armed from outside; `done` counts those that came about."""

    def __init__(self, seed: int, root: Path | None = None) -> None:
        """`root`: a real directory, for what production maps past its disk: the journal's mark. None: there is none."""
        super().__init__(seed)
        self.root = root
        self.random = random.Random(f"disk-{seed}")
        self.is_dead = False
        self.die_in: int | None = None
        """Operations until it dies in the middle of one."""
        self.misdirect = 0
        self.lies = 0
        self._names: dict[str, list[dict[str, Node | None]]] = {}
        """By directory: changes of names since it was synced, each as what stood under these names before."""
        self.done: dict[str, int] = {}
        self.errors_given = 0
        """How many operations have failed because they were told to."""

    def gone(self) -> OSError:
        return OSError(errno.EIO, "the machine is dead (simulated)")

    def operation(self, _name: str) -> None:
        """Before each operation."""
        if self.is_dead:
            raise self.gone()
        if self.die_in is not None:
            self.die_in -= 1
            if self.die_in <= 0:
                self.die_in, self.is_dead = None, True

    def meet(self, operation: str) -> None:
        if operation in self.fail and self.fail[operation][0] == 0:
            self.done[f"{operation}_error"] = self.done.get(f"{operation}_error", 0) + 1
            self.errors_given += 1
        super().meet(operation)

    def open(self, path: str, *, create: bool = False) -> FaultyFile:
        self.operation("open")
        if self.is_dead:
            raise self.gone()
        is_new = path not in self.files
        file = super().open(path, create=create)
        if is_new:
            self._named(path, {path: None})
        return FaultyFile(self, file._node)

    def rename(self, source: str, target: str) -> None:
        """And a sync of the directory, as the port says; it may die in between."""
        self.operation("rename")
        if self.is_dead and self.random.random() < 0.5:
            raise self.gone()
        before = {source: self.files[source], target: self.files.get(target)}
        super().rename(source, target)
        self._named(target, before)
        if self.is_dead:
            raise self.gone()
        self.sync_directory(target.rpartition("/")[0])

    def sync_directory(self, directory: str) -> None:
        self.operation("sync_directory")
        if self.is_dead:
            raise self.gone()
        super().sync_directory(directory)
        self._names.pop(directory, None)

    def remove(self, path: str) -> None:
        self.operation("remove")
        if self.is_dead:
            raise self.gone()
        self._named(path, {path: self.files[path]})
        super().remove(path)

    def _named(self, path: str, before: dict[str, Node | None]) -> None:
        self._names.setdefault(path.rpartition("/")[0], []).append(before)

    def revive(self, death: str) -> None:
        """After `kill` or `power`: the machine is up again."""
        if death == "power":
            for changes in self._names.values():
                for before in reversed(changes[self.random.randrange(len(changes) + 1) :]):
                    self._undo(before)
            self._names.clear()
            self.crash()
        elif self.random.random() < 0.5:
            for node in self.files.values():
                node.evict()
        self.fail.clear()
        self.is_dead, self.die_in, self.short_writes, self.space = False, None, None, None
        self.misdirect = self.lies = 0

    def _undo(self, before: dict[str, Node | None]) -> None:
        for path, node in before.items():
            if node is None:
                self.files.pop(path, None)
            else:
                self.files[path] = node

    def flip_bit(self, path: str, bit: int) -> None:
        """A bit of a file, wherever it is kept."""
        node = self.files[path]
        for kept in (node.cached, node.stored):
            if bit // 8 < len(kept):
                kept[bit // 8] ^= 1 << bit % 8
