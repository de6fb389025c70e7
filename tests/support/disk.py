"""A simulated disk: what is written stays in a cache until it is synced, and a crash decides what of it survives.

Deterministic from its seed. It tears unsynced writes at sectors of 512 bytes, loses them, and fails when told to. As on
Linux a sync writes what is dirty and nothing else, and one that fails leaves the cache clean: some of what it was to
write is on the disk, the rest in the cache alone, and no later sync writes it (Rebello et al., ATC 2020). A file that
grew since its last sync may be cut by a crash anywhere down to where it was.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterable

SECTOR = 512
LONG = 1_024


class SimulatedFile:
    def __init__(self, disk: SimulatedDisk, node: Node) -> None:
        self._disk = disk
        self._node = node

    def read_at(self, offset: int, size: int) -> bytes:
        self._disk.meet("read")
        return bytes(self._node.cached[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> int:
        self._disk.meet("write")
        if self._disk.space is not None:
            grows = max(0, offset + len(data) - len(self._node.cached))
            if grows > self._disk.space:
                self._disk.no_space_count += 1
                raise OSError(errno.ENOSPC, "no space (simulated)")
            self._disk.space -= grows
        take = len(data)
        if self._disk.short_writes is not None:
            # Of what is long a part of it at once: a prepared segment, byte by byte, is all that a world would do.
            take = min(take, max(self._disk.short_writes, take // 64 if take > LONG else 0))
        cached = self._node.cached
        cached.extend(bytes(max(0, offset + take - len(cached))))
        cached[offset : offset + take] = data[:take]
        self._node.dirty.update(range(offset // SECTOR, -(-(offset + take) // SECTOR)))
        return take

    def sync(self) -> None:
        self._disk.sync_count += 1
        try:
            self._disk.meet("sync")
        except OSError:
            self._node.forget(self._disk.random)
            raise
        self._node.store(self._node.dirty)
        self._node.dirty.clear()

    def size(self) -> int:
        return len(self._node.cached)

    def close(self) -> None:
        """Closing syncs nothing."""


class Node:
    """A file: what the cache has, what the disk has."""

    def __init__(self, data: bytes = b"") -> None:
        """With `data` in it, durable."""
        self.cached = bytearray(data)
        self.stored = bytearray(data)
        self.dirty: set[int] = set()
        """Sectors that a sync would write."""
        self.forgotten: set[int] = set()
        """Sectors that a failed sync left in the cache alone. Those written again since are dirty too."""

    def store(self, sectors: Iterable[int]) -> None:
        """The disk has these as the cache has them, and is as long."""
        cached, stored = self.cached, self.stored
        stored.extend(bytes(len(cached) - len(stored)))
        for sector in sectors:
            part = slice(sector * SECTOR, (sector + 1) * SECTOR)
            stored[part] = cached[part]
        if self.forgotten:
            self.forgotten.difference_update(sectors)

    def forget(self, draw: random.Random) -> None:
        """A sync failed: some sectors got through, and nothing is dirty any more."""
        chance = draw.choice([0.0, draw.random()])
        through = [sector for sector in sorted(self.dirty) if draw.random() < chance]
        if through:
            self.store(through)
        self.forgotten |= self.dirty.difference(through)
        self.dirty.clear()

    def evict(self) -> None:
        """The cache gives up what is clean: the next to read it reads the disk."""
        for sector in self.forgotten - self.dirty:
            begin, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
            self.cached[begin:end] = bytes(self.stored[begin:end]).ljust(end - begin, b"\0")
        self.forgotten &= self.dirty

    def lose(self, chance: float, draw: random.Random) -> None:
        """The power fails: each dirty sector is on the disk with this chance, and so is what the file grew by."""
        whole, before = len(self.cached), len(self.stored)
        if self.dirty or whole != before:
            self.store([sector for sector in sorted(self.dirty) if draw.random() < chance])
            if whole > before and draw.random() >= chance:
                del self.stored[draw.randrange(before, whole) :]
        self.cached = bytearray(self.stored)
        self.dirty.clear()
        self.forgotten.clear()


class SimulatedDisk:
    """A tree of files. `fail` names the next failure: {"sync": (calls to let pass, errno)}."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.files: dict[str, Node] = {}
        self.fail: dict[str, tuple[int, int]] = {}
        self.space: int | None = None
        self.short_writes: int | None = None
        self.sync_count = 0
        self.no_space_count = 0
        """How often whoever asked was told that there is no space."""

    def meet(self, operation: str) -> None:
        if operation in self.fail:
            passes, error = self.fail[operation]
            if passes == 0:
                del self.fail[operation]
                self.no_space_count += error == errno.ENOSPC
                raise OSError(error, f"{operation} (simulated)")
            self.fail[operation] = (passes - 1, error)

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        self.meet("open")
        if path not in self.files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file (simulated)", path)
            self.files[path] = Node()
        return SimulatedFile(self, self.files[path])

    def list(self, directory: str) -> list[str]:
        return sorted(p.rpartition("/")[2] for p in self.files if p.rpartition("/")[0] == directory)

    def rename(self, source: str, target: str) -> None:
        self.meet("rename")
        self.files[target] = self.files.pop(source)

    def remove(self, path: str) -> None:
        del self.files[path]

    def sync_directory(self, directory: str) -> None:
        self.meet("sync_directory")

    def crash(self, survive: float | None = None) -> None:
        """Power loss: what is not synced survives with this chance (None: a chance drawn for this crash)."""
        chance = self.random.random() if survive is None else survive
        for node in self.files.values():
            node.lose(chance, self.random)
        self.fail.clear()
