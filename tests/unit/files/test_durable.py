"""Files that are whole or absent, and those who write them: content first, then the name, both before it returns."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from byline.processes.epoch import next_epoch
from byline.rebuild import REQUEST, ask_for_rebuild
from byline.trading_floor import kept_key
from byline.wallet import _seed
from files.durable import keep_name, make_directory, make_once, write_whole
from gateway.keys import load_or_create_key
from platform_api.kernel.sealing import load_ring
from platform_api.security import load_signing_key
from settlement.proof_desk import load_proof_key
from settlement.publication import published, remember_published
from tests.support.syncs import DiskCalls


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Order:
    """Whether the inode that `path` has in the end was synced, and behind its naming the directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.seen: list[tuple[int, bool]] = []
        fsync = os.fsync

        def note(descriptor: int) -> None:
            fsync(descriptor)
            self.seen.append((os.fstat(descriptor).st_ino, path.exists()))

        monkeypatch.setattr(os, "fsync", note)
        self.path = path

    def holds(self) -> bool:
        content, name = (self.path.stat().st_ino, False), (self.path.parent.stat().st_ino, True)
        return content in self.seen and name in self.seen[self.seen.index(content) :]


WRITERS: dict[str, Callable[[Path], object]] = {
    "settlement/published": lambda data: remember_published(data, 3, bytes(32)),
    REQUEST: ask_for_rebuild,
    "keys/epoch": next_epoch,
    "keys/proofs.key": lambda data: load_proof_key(data / "keys" / "proofs.key"),
    "keys/operator.key": lambda data: load_or_create_key(data / "keys" / "operator.key"),
    "keys/columns.json": lambda data: load_ring(data / "keys" / "columns.json"),
    "keys/access-token.key": lambda data: load_signing_key(data / "keys" / "access-token.key"),
    "keys/a.key": lambda data: kept_key(data, "a"),
    "wallet.key": lambda data: _seed(data / "wallet.key", Console(file=io.StringIO())),
}


@pytest.mark.parametrize("path", WRITERS)
def test_a_file_that_counts_is_on_disk_with_its_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for folder in ("keys", "settlement"):
        (tmp_path / folder).mkdir()
    order = Order(monkeypatch, tmp_path / path)
    WRITERS[path](tmp_path)
    assert order.holds()
    assert [left.name for left in order.path.parent.iterdir() if left.is_file()] == [order.path.name], "no draft stays"
    if path.endswith(("key", "json")):
        assert mode(order.path) == 0o600


def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "settlement").mkdir()
    remember_published(tmp_path, 3, bytes(range(32)))
    assert published(tmp_path) == (3, bytes(range(32)))


@pytest.mark.parametrize("write", [write_whole, lambda path, data: make_once(path, data, mode=0o600)])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def refused(_: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="no space"):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_is_made_once_stays_and_what_is_written_again_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    make_once(path, b"first", mode=0o600)
    make_once(path, b"second", mode=0o644)
    assert path.read_bytes() == b"first" and mode(path) == 0o600
    write_whole(path, b"third", mode=0o600)
    assert path.read_bytes() == b"third" and mode(path) == 0o600 and list(tmp_path.iterdir()) == [path]


def test_the_names_of_directories_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DiskCalls(monkeypatch)
    make_directory(tmp_path / "a" / "b")
    assert disk.calls == [("sync", tmp_path), ("sync", tmp_path / "a")]
    disk.refused = tmp_path / "a" / "b"
    with pytest.raises(OSError, match="cannot be synced"):
        make_directory(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a" / "b" / "c").exists(), "the next to come makes it, and its name"
    disk.calls.clear()
    keep_name(tmp_path / "a" / "b")
    assert disk.calls == [("sync", tmp_path / "a"), ("sync", tmp_path)]


def test_a_draft_that_a_dead_writer_left_lends_the_next_neither_its_mode_nor_its_place(tmp_path: Path) -> None:
    path, draft, elsewhere = tmp_path / "columns.json", tmp_path / "columns.json.new", tmp_path / "elsewhere"
    draft.write_bytes(b"old")
    draft.chmod(0o644)
    write_whole(path, b"secret", mode=0o600)
    assert (mode(path), path.read_bytes()) == (0o600, b"secret")
    draft.symlink_to(elsewhere)
    write_whole(path, b"another", mode=0o600)
    assert path.read_bytes() == b"another" and not path.is_symlink() and not elsewhere.exists()


def test_a_write_that_fails_leaves_no_secret_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "columns.json"
    write_whole(path, b"old", mode=0o600)

    def refuse(descriptor: int) -> None:
        raise OSError("the disk refuses (test)")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="refuses"):
        write_whole(path, b"secret", mode=0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["columns.json"] and path.read_bytes() == b"old"
