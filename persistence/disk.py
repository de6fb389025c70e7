"""The real file system and clock behind the ports `Disk`, `File` and `Clock`, and the lock of the data directory.

Paths are relative to one root, which must exist. Errors of the operating system come through as OSError with their
errno: what they mean is for the caller to say. Nothing here retries, caches or hides a failure.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Self

from engine.messages.errors import DataDirectoryBusy
from files.durable import make_directory, sync_directory
from persistence.clock import SystemClock

__all__ = ["DirectoryDisk", "DirectoryLock", "RealFile", "SystemClock", "boot_id"]


class RealFile:
    """A file opened for reading and writing."""

    def __init__(self, descriptor: int, path: Path) -> None:
        """`path`: what errors of reading name."""
        self._descriptor = descriptor
        self._path = path

    def fileno(self) -> int:
        """The descriptor; -1 after close."""
        return self._descriptor

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the file. Raises OSError, which names the file."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self._descriptor, min(size, 1 << 30), offset)
            except OSError as error:
                error.filename = str(self._path)
                raise
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class DirectoryDisk:
    """The tree below `root`. Directories are made when a file is created in them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, path: str, *, create: bool = False) -> RealFile:
        """Open for reading and writing.

        Raises:
            FileNotFoundError: it does not exist and `create` is false.
            OSError: anything else; EMFILE or ENOMEM never mean that a file is absent.
        """
        target = self.root / path
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
            make_directory(target.parent)
        return RealFile(os.open(target, flags, 0o644), target)

    def map(self, path: str) -> memoryview:
        """The whole file, read-only and mapped. Lives as long as the view."""
        with (self.root / path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def prefetch(self, path: str) -> None:
        """Have the kernel read the file ahead. Only advice: nothing fails because of it but opening."""
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

    def list(self, directory: str) -> list[str]:
        """Names in a directory, sorted; none if it does not exist."""
        try:
            return sorted(os.listdir(self.root / directory))
        except FileNotFoundError:
            return []

    def rename(self, source: str, target: str) -> None:
        os.rename(self.root / source, self.root / target)
        sync_directory((self.root / target).parent)

    def remove(self, path: str) -> None:
        os.unlink(self.root / path)

    def sync_directory(self, directory: str) -> None:
        sync_directory(self.root / directory)


class DirectoryLock:
    """An exclusive flock on one file, held until `release` or the end of the process, however it ends.

    The supervisor holds `DATA/lock`; the core holds `DATA/journal.lock`, so a core that outlives its supervisor still
    keeps a second one away from the journal.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock. Its directory is made if it is not there: who locks it is the first to write in it.

        Raises:
            DataDirectoryBusy: another process (or another lock object of this one) holds it.
            OSError: the directory cannot be made, or the file.
        """
        make_directory(path.parent)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            message = (
                f"{path}: held by process {holder}, which runs on these files: stop it first, and the `byline up` that "
                "would start it again"
            )
            raise DataDirectoryBusy(message) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give the lock back. A second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def boot_id() -> bytes:
    """16 bytes that name this boot of the machine: equal means that the page cache was not lost in between."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace("-", ""))
