"""All modes of the journal over the ends of many segments, on the real disk and on a simulated one."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.errors import JournalFailed
from persistence import segments
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings, Mode, new_tail
from persistence.ring import write_zeros
from tests.support.disk import SimulatedDisk

SEGMENT_BYTES = 73_728  # 544 slots


def records(first: int, count: int) -> bytearray:
    rows = np.zeros(count, layout.TRANSFER)
    rows["kind"], rows["slots"], rows["sequence"] = 6, 1, np.arange(first, first + count)
    return bytearray(rows.tobytes())


def settings(mode: Mode) -> JournalSettings:
    return JournalSettings(mode=mode, segment_bytes=SEGMENT_BYTES, ring_slots=4096, reserved_slots=0, pace_ns=100_000)


@pytest.mark.parametrize("mode", ["durable", "memory", "inline"])
@pytest.mark.parametrize("group", [1, 300, 700])
def test_every_mode_goes_on_in_the_next_segment(tmp_path: Path, mode: Mode, group: int) -> None:
    disk = DirectoryDisk(tmp_path)
    journal = Journal(disk, new_tail(), SystemClock(), settings(mode))
    count = 1200 if group == 1 else 4200
    for first in range(1, count + 1, group):
        assert journal.append_all(records(first, group)) == group
        journal.publish()
        if mode == "inline":
            assert journal.durable_sequence == first + group - 1  # on return, the end of a segment or not
        else:
            journal.wait_durable(first + group - 1)
    assert journal.status == "running"
    journal.close()
    listed = segments.list_segments(disk)
    assert len(listed) == -(-count // 544)
    tail = segments.scan(disk, listed, check_sha256=True)
    assert (tail.sequence, tail.torn_bytes) == (count, 0)
    again = Journal(disk, tail, SystemClock(), settings(mode))  # in the middle of a segment
    assert again.append_all(records(count + 1, group)) == group
    again.publish()
    again.wait_durable(count + group)
    again.close()
    assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == count + group


def test_closing_at_the_end_of_a_segment_writes_everything(tmp_path: Path) -> None:
    for number in range(20):
        disk = DirectoryDisk(tmp_path / str(number))
        disk.root.mkdir()
        journal = Journal(disk, new_tail(), SystemClock(), settings("durable"))
        assert journal.append_all(records(1, 1000)) == 1000
        journal.publish()
        journal.close()  # while the writer waits for its second segment
        assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == 1000


def test_inline_without_space_returns_and_goes_on_later() -> None:
    disk = SimulatedDisk()
    disk.space = SEGMENT_BYTES
    journal = Journal(disk, new_tail(), SystemClock(), settings("inline"), threads=False)
    assert journal.append_all(records(1, 600)) == 600
    journal.publish()
    assert (journal.status, journal.durable_sequence, journal.room) == ("disk_full", 544, 0)
    disk.space = None
    journal.publish()
    assert (journal.status, journal.durable_sequence) == ("running", 600)
    journal.close()
    assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == 600


def cached_pages(path: Path, size: int) -> int:
    """How many of the first pages of a file the page cache holds."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        held = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        start = (ctypes.c_char * size).from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(size), held)
        del start
        assert not failed, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in held)


def test_what_is_on_disk_leaves_the_page_cache_by_whole_megabytes(tmp_path: Path) -> None:
    megabyte, pages = 1 << 20, (1 << 20) // mmap.PAGESIZE
    probe = tmp_path / "probe"
    with probe.open("wb") as file:
        file.write(bytes(megabyte))
        file.flush()
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_pages(probe, megabyte) > pages // 2:
        pytest.skip("this file system has no page cache to give back")
    disk = DirectoryDisk(tmp_path)
    journal = Journal(disk, new_tail(), SystemClock(), replace(settings("durable"), segment_bytes=4 << 20))
    count, group = 20_000, 1_000  # 2.4 MB
    for first in range(1, count + 1, group):
        assert journal.append_all(records(first, group)) == group
        journal.publish()
        journal.wait_durable(first + group - 1)
    journal.close()
    path = tmp_path / segments.segment_name(1)
    assert cached_pages(path, megabyte) < pages // 2
    assert cached_pages(path, 4 * megabyte) > pages // 2  # what is written next is not read back from the disk
    assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == count


def test_zeros_for_the_next_segment_come_slowly_until_they_are_wanted(tmp_path: Path) -> None:
    journal = Journal(DirectoryDisk(tmp_path), new_tail(), SystemClock(), settings("durable"))
    ring, size = journal._ring, 3 << 20
    file = (tmp_path / "zeros").open("w+b", buffering=0)
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(write_zeros, file.fileno(), size, 1, ring)  # a byte a second: years
        while os.fstat(file.fileno()).st_size == 0:
            assert not filling.done()
        assert not filling.done()
        ring.hurry(True)
        filling.result()
    assert os.fstat(file.fileno()).st_size == size and os.pread(file.fileno(), size, 0) == bytes(size)
    file.close()
    journal.close()


def test_closing_does_not_wait_for_a_segment_that_nobody_wants(tmp_path: Path) -> None:
    slow = replace(settings("durable"), segment_bytes=4 << 20, fill_bytes_per_second=1)
    disk = DirectoryDisk(tmp_path)
    for number in range(3):
        tail = segments.scan(disk, segments.list_segments(disk)) if number else new_tail()
        journal = Journal(disk, tail, SystemClock(), slow)
        journal.append_all(records(number + 1, 1))
        journal.publish()
        journal.wait_durable(number + 1)
        journal.close()
        assert (journal.status, journal.failed) == ("closed", 0)
        assert disk.list(segments.DIRECTORY) == [
            segment.path.rpartition("/")[2] for segment in segments.list_segments(disk)
        ]


def test_zeros_are_pressed_for_by_what_is_used_of_the_segment_before(tmp_path: Path) -> None:
    journal = Journal(DirectoryDisk(tmp_path), new_tail(), SystemClock(), settings("durable"))
    journal.append_all(records(1, 300))  # of 544: more than half
    journal.publish()
    journal.wait_durable(300)
    with (tmp_path / "zeros").open("w+b", buffering=0) as file:
        write_zeros(file.fileno(), SEGMENT_BYTES, 1, journal._ring)
        assert file.read() == bytes(SEGMENT_BYTES)
    journal.close()


def test_zeros_that_the_disk_refuses_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "zeros").touch()
    with (tmp_path / "zeros").open("rb") as file, pytest.raises(OSError):
        write_zeros(file.fileno(), 4096, 0)


@pytest.mark.parametrize("step", ["the spare", "the change of segment"])
@pytest.mark.parametrize("mode", ["durable", "memory"])
def test_whatever_ends_the_keeper_stops_the_journal(tmp_path: Path, mode: Mode, step: str) -> None:
    """No memory is no OSError: without a keeper the writer waited for its next segment for ever, `running`."""

    class Broken(DirectoryDisk):
        is_armed = False

        def rename(self, source: str, target: str) -> None:
            if self.is_armed and (target == segments.SPARE) == (step == "the spare"):
                raise MemoryError("no memory")
            super().rename(source, target)

    disk = Broken(tmp_path)
    tail = new_tail()
    Journal(disk, tail, SystemClock(), settings(mode)).close()
    (tmp_path / segments.SPARE).unlink(missing_ok=True)
    tail = segments.scan(disk, segments.list_segments(disk))
    disk.is_armed = True
    journal = Journal(disk, tail, SystemClock(), settings(mode))
    journal.append_all(records(1, 700))
    journal.publish()
    with pytest.raises(JournalFailed, match=os.strerror(errno.EIO)):
        journal.wait_durable(700)
    assert journal.status == "failed" and journal.append(records(701, 1)) == 2
    journal.close()
    assert segments.scan(disk, segments.list_segments(disk)).sequence == journal.durable_sequence <= 544
