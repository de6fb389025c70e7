"""The real file system behind the port: what stands in a directory is not lost with the directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from persistence.disk import DirectoryDisk, DirectoryLock
from tests.support.syncs import DiskCalls


def test_a_directory_whose_name_is_not_on_disk_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next to come finds it, syncs what is in it alone, and a loss of power takes both."""
    calls, disk = DiskCalls(monkeypatch), DirectoryDisk(tmp_path)
    calls.refused = tmp_path
    with pytest.raises(OSError, match="cannot be synced"):
        disk.open("journal/spare", create=True)
    assert list(tmp_path.iterdir()) == []
    disk.open("journal/spare", create=True).close()
    assert ("sync", tmp_path) in calls.calls


def test_a_data_directory_has_its_name_on_disk_before_anything_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so have those above it that were made for it."""
    calls, lock = DiskCalls(monkeypatch), tmp_path / "srv" / "byline" / "lock"
    calls.refused = tmp_path / "srv"
    with pytest.raises(OSError, match="cannot be synced"):
        DirectoryLock(lock)
    assert list((tmp_path / "srv").iterdir()) == []
    DirectoryLock(lock).release()
    assert calls.calls == [("sync", tmp_path), ("sync", tmp_path / "srv")]
    DirectoryLock(lock).release()
    assert len(calls.calls) == 2


def test_a_read_that_fails_names_its_file(tmp_path: Path) -> None:
    """The core's last line is all that the operator has: `Input/output error` alone does not say of what."""
    file = DirectoryDisk(tmp_path).open("keys/registry.log", create=True)
    os.close(file.fileno())
    with pytest.raises(OSError, match="keys/registry.log"):
        file.read_at(0, 1)
