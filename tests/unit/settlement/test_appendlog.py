"""The append-only log on a disk that tears and forgets: what counts is on the disk, what is durable is not lost."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from engine.messages.errors import JournalCorrupt, JournalFailed
from settlement import appendlog
from settlement.appendlog import AppendLog
from tests.support.disk import SECTOR


class ForgetfulOs:
    """`os` over real files that stand for the page cache; beside them what the disk holds of each.

    A sync writes dirty sectors alone, and one that fails calls them clean all the same, as Linux does.
    """

    def __init__(self) -> None:
        self.stored: dict[str, bytearray] = {}
        self.fails_next_sync = False
        self._dirty: dict[str, set[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        written = os.pwrite(descriptor, data, offset)
        sectors = range(offset // SECTOR, -(-(offset + written) // SECTOR))
        self._dirty.setdefault(_path(descriptor), set()).update(sectors)
        return written

    def fsync(self, descriptor: int) -> None:
        path = _path(descriptor)
        dirty = self._dirty.pop(path, set())
        if self.fails_next_sync:
            self.fails_next_sync = False
            raise OSError(errno.EIO, "sync (simulated)")
        if os.path.isfile(path):
            cached, stored = Path(path).read_bytes(), self.stored.setdefault(path, bytearray())
            del stored[len(cached) :]
            stored.extend(bytes(len(cached) - len(stored)))
            for sector in dirty:
                part = slice(sector * SECTOR, (sector + 1) * SECTOR)
                stored[part] = cached[part]

    fdatasync = fsync

    def cut_power(self) -> None:
        for path, stored in self.stored.items():
            Path(path).write_bytes(stored)
        self._dirty.clear()


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> ForgetfulOs:
    forgetful = ForgetfulOs()
    monkeypatch.setattr(appendlog, "os", forgetful)
    return forgetful


def payloads_of(path: Path) -> list[bytes]:
    log = AppendLog(path)
    payloads = [payload for _, payload in log.records()]
    log.close()
    return payloads


@pytest.mark.parametrize("size_bytes", [10, 500, 2000])
def test_what_a_failed_sync_left_in_the_cache_is_on_disk_before_it_counts(
    tmp_path: Path, disk: ForgetfulOs, size_bytes: int
) -> None:
    """After a failed sync the kernel holds pages that it calls clean and that are not on the disk."""
    path, lost = tmp_path / "log", b"l" * size_bytes
    log = AppendLog(path)
    log.append(b"first")
    disk.fails_next_sync = True
    with pytest.raises(JournalFailed, match="simulated"):
        log.append(lost)
    log.close()

    log = AppendLog(path)
    assert [payload for _, payload in log.records()] == [b"first", lost], "it was written, and the cache still has it"
    log.close()
    disk.cut_power()
    assert payloads_of(path) == [b"first", lost], "somebody has read it, and the disk never had it"


def test_what_was_never_synced_is_on_disk_before_it_counts(tmp_path: Path, disk: ForgetfulOs) -> None:
    path = tmp_path / "log"
    log = AppendLog(path)
    log.append(b"first")
    unsynced = path.read_bytes()
    log.close()
    path.write_bytes(unsynced * 2)  # killed between the write and the sync
    assert payloads_of(path) == [b"first", b"first"]
    disk.cut_power()
    assert payloads_of(path) == [b"first", b"first"]


def test_an_end_that_cannot_be_written_again_is_no_open_log(tmp_path: Path, disk: ForgetfulOs) -> None:
    path = tmp_path / "log"
    AppendLog(path).close()
    disk.fails_next_sync = True
    with pytest.raises(JournalFailed, match="its end cannot be written again"):
        AppendLog(path)
    assert payloads_of(path) == []


def test_a_log_cut_at_any_byte_keeps_its_whole_records(tmp_path: Path) -> None:
    path, payloads = tmp_path / "log", [b"one", b"two two", b"3" * 40]
    log = AppendLog(path)
    offsets = [log.append(payload) for payload in payloads]
    log.close()
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(1 for offset, payload in zip(offsets, payloads, strict=True) if offset + 8 + len(payload) <= size)
        log = AppendLog(path)
        assert [payload for _, payload in log.records()] == payloads[:whole]
        log.append(b"next")
        assert [payload for _, payload in log.records()] == [*payloads[:whole], b"next"]
        log.close()


@pytest.mark.parametrize("seed", range(20))
def test_sectors_that_a_power_cut_took_from_the_last_frame_cost_that_frame_alone(tmp_path: Path, seed: int) -> None:
    """The size may be on the disk and the bytes not: zeros, from any sector on or in between."""
    path, chance = tmp_path / "log", random.Random(seed)
    log = AppendLog(path)
    kept = [chance.randbytes(chance.randrange(1, 900)) for _ in range(5)]
    for payload in kept:
        log.append(payload)
    begin = log.append(chance.randbytes(4_000))
    log.close()
    data, lost = bytearray(path.read_bytes()), False
    for sector in range(begin // SECTOR, -(-len(data) // SECTOR)):
        if chance.random() < 0.5 or (sector == begin // SECTOR and seed % 2):
            part = slice(max(begin, sector * SECTOR), min(len(data), (sector + 1) * SECTOR))
            data[part], lost = bytes(part.stop - part.start), True
    path.write_bytes(data)
    assert lost and payloads_of(path) == kept


@pytest.mark.parametrize("position", range(16))
def test_a_bit_that_turned_in_a_record_with_others_behind_it_is_refused(tmp_path: Path, position: int) -> None:
    """In the length too: taken for a torn write, it would have cost all that came after."""
    path = tmp_path / "log"
    log = AppendLog(path)
    for number in range(3):
        log.append(b"payload%d" % number)
    log.close()
    data = bytearray(path.read_bytes())
    for bit in range(8):
        broken = bytearray(data)
        broken[position] ^= 1 << bit
        path.write_bytes(broken)
        for reader in (lambda: AppendLog(path), lambda: list(AppendLog.peek(path))):
            with pytest.raises(JournalCorrupt, match="at offset 0, and records follow"):
                reader()
        assert path.read_bytes() == broken


def test_who_looks_beside_the_writer_is_told_what_is_whole_or_that_it_is_not_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AppendLog(path)
    log.append(b"one")
    log.append(b"two")
    log.close()
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        told = [b"one"] * (size >= 11) + [b"two"] * (size >= 22)
        assert list(AppendLog.peek(path)) == told
        if size in (0, 11, 22):
            assert list(AppendLog.peek(path, whole=True)) == told
        else:
            with pytest.raises(JournalCorrupt, match="its last record is not whole"):
                list(AppendLog.peek(path, whole=True))


def test_each_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is looked through at every start of the core."""
    path, sizes, whole = tmp_path / "log", list[int](), os.pread
    log = AppendLog(path)
    for number in range(5):
        log.append(bytes([number + 1]) * 1_000)
    log.close()

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return whole(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert [payload[0] for payload in AppendLog.peek(path, whole=True)] == [1, 2, 3, 4, 5]
    assert sum(sizes) == path.stat().st_size


def test_a_full_disk_takes_back_the_record_and_takes_the_next_when_there_is_space(
    disk: ForgetfulOs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(tmp_path / "log")
    log.append(b"before")
    whole = (tmp_path / "log").read_bytes()
    write = disk.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > len(whole):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[:5], offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pwrite", full)
        for _ in range(2):
            with pytest.raises(JournalFailed, match="No space left"):
                log.append(b"there is no space for this")
            assert (tmp_path / "log").read_bytes() == whole and not log.failed
    log.append(b"after")
    log.close()
    disk.cut_power()
    assert list(AppendLog.peek(tmp_path / "log", whole=True)) == [b"before", b"after"]


def test_after_a_failed_sync_nothing_more_is_taken_and_it_says_why(disk: ForgetfulOs, tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    disk.fails_next_sync = True
    with pytest.raises(JournalFailed, match="sync"):
        log.append(b"one")
    assert "sync" in log.failed
    with pytest.raises(JournalFailed, match="an earlier write failed: .*sync"):
        log.append(b"two")
    log.close()


@pytest.mark.parametrize("before_bytes", [1, 490, 2_000])
def test_a_bit_that_turned_in_the_last_record_is_refused(tmp_path: Path, before_bytes: int) -> None:
    """It was on disk and acted upon, as the signed bytes of a batch that were sent: not a write that was cut short."""
    path = tmp_path / "log"
    log = AppendLog(path)
    log.append(b"b" * before_bytes)
    last = log.append(b"the bytes that were sent")
    log.close()
    data = path.read_bytes()
    for bit in range(last * 8, len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        for reader in (lambda: AppendLog(path), lambda: list(AppendLog.peek(path))):
            with pytest.raises(JournalCorrupt, match=f"at offset {last} of a record that was written whole"):
                reader()
        assert path.read_bytes() == broken


@pytest.mark.parametrize("block_bytes", [20, 64, 150, 1 << 20])
def test_what_is_read_by_blocks_is_what_is_read_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Whole or damaged anywhere, and with records that are longer than a block."""
    path, chance = tmp_path / "log", random.Random(block_bytes)
    log = AppendLog(path)
    sizes = [1, 4, 12, 13, 200, 3, 90, 41, 42, 43, 7]
    kept = [(log.append(payload), payload) for payload in map(chance.randbytes, sizes)]
    monkeypatch.setattr(appendlog, "_BLOCK_BYTES", block_bytes)
    assert list(log.records()) == kept
    for start, _ in kept:
        assert list(AppendLog.peek(path, start=start)) == [payload for offset, payload in kept if offset >= start]
    log.close()
    whole = path.read_bytes()

    def told(block: int) -> list[Any]:
        monkeypatch.setattr(appendlog, "_BLOCK_BYTES", block)
        found: list[Any] = []
        try:
            found.extend(AppendLog.peek(path))
        except JournalCorrupt as error:
            found.append(str(error))
        return found

    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert told(block_bytes) == told(1)
        path.write_bytes(whole[:place])
        assert told(block_bytes) == told(1)
