"""What a part asks of the disk, in order: so that a test sees whether a name was on disk before it counted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

__all__ = ["DiskCalls"]


class DiskCalls:
    """`calls`: ("rename", target) and ("sync", file or directory), as the real ones were carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Path]] = []
        self.refused: Path | None = None
        """Its next sync fails, once."""
        rename, sync = os.rename, os.fsync

        def renamed(source: str | Path, target: str | Path) -> None:
            rename(source, target)
            self.calls.append(("rename", Path(target)))

        def synced(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path == self.refused:
                self.refused = None
                raise OSError(errno.EIO, f"{path} cannot be synced")
            sync(descriptor)
            self.calls.append(("sync", path))

        monkeypatch.setattr(os, "rename", renamed)
        monkeypatch.setattr(os, "fsync", synced)

    def has_durable(self, path: Path) -> bool:
        """Whether the directory of `path` was synced behind the renaming that gave it its name, if there was one."""
        ends = [number for number, call in enumerate(self.calls) if call == ("rename", path)]
        return ("sync", path.parent) in self.calls[ends[-1] if ends else 0 :]
