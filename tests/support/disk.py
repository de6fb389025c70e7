"""A simulated disk: what is written stays in a cache until it is synced, and a crash decides what of it survives.

Deterministic from its seed. It tears unsynced writes at sectors of 512 bytes, loses them, and fails when told to.
"""

from __future__ import annotations

import errno
import random

SECTOR = 512


class SimulatedFile:
    def __init__(self, disk: SimulatedDisk, node: Node) -> None:
        self._disk = disk
        self._node = node

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self._node.cached[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> int:
        self._disk.meet("write")
        if self._disk.space is not None:
            grows = max(0, offset + len(data) - len(self._node.cached))
            if grows > self._disk.space:
                raise OSError(errno.ENOSPC, "no space (simulated)")
            self._disk.space -= grows
        take = len(data) if self._disk.short_writes is None else min(len(data), self._disk.short_writes)
        cached = self._node.cached
        cached.extend(bytes(max(0, offset + take - len(cached))))
        cached[offset : offset + take] = data[:take]
        self._node.dirty.update(range(offset // SECTOR, -(-(offset + take) // SECTOR)))
        return take

    def sync(self) -> None:
        self._disk.sync_count += 1
        self._disk.meet("sync")
        self._node.stored = bytearray(self._node.cached)
        self._node.dirty.clear()

    def size(self) -> int:
        return len(self._node.cached)

    def close(self) -> None:
        """Closing syncs nothing."""


class Node:
    def __init__(self) -> None:
        self.cached = bytearray()
        self.stored = bytearray()
        self.dirty: set[int] = set()


class SimulatedDisk:
    """A tree of files. `fail` names the next failure: {"sync": (calls to let pass, errno)}."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.files: dict[str, Node] = {}
        self.fail: dict[str, tuple[int, int]] = {}
        self.space: int | None = None
        self.short_writes: int | None = None
        self.sync_count = 0

    def meet(self, operation: str) -> None:
        if operation in self.fail:
            passes, error = self.fail[operation]
            if passes == 0:
                del self.fail[operation]
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

    def free_bytes(self) -> int:
        return 1 << 40 if self.space is None else self.space

    def crash(self, survive: float | None = None) -> None:
        """Power loss: each unsynced sector survives with this chance (None: a chance drawn for this crash)."""
        chance = self.random.random() if survive is None else survive
        for node in self.files.values():
            stored = node.stored
            stored.extend(bytes(len(node.cached) - len(stored)))
            for sector in sorted(node.dirty):
                if self.random.random() < chance:
                    part = slice(sector * SECTOR, (sector + 1) * SECTOR)
                    stored[part] = node.cached[part]
            node.cached = bytearray(stored)
            node.dirty.clear()
        self.fail.clear()
