"""The real file system behind the port: what stands in a directory is not lost with the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistence.disk import DirectoryDisk
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
