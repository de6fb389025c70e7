"""The journal's own writer and scan, step by step on a simulated disk: torn writes, lost tails, damage, full disks."""

from __future__ import annotations

import errno
import random

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from persistence import ring, segments
from persistence.disk import SystemClock
from persistence.journal import RECORD_SLOTS_MAX, Journal, JournalSettings, least_segment_bytes, new_tail
from tests.support.disk import SimulatedDisk, SimulatedFile

SETTINGS = JournalSettings(segment_bytes=73_728, ring_slots=1024, reserved_slots=0)
IDENTITY = bytes(range(16))


def record(sequence: int, slots: int = 1) -> bytearray:
    body = np.zeros(slots, layout.TRANSFER)
    body["ref"] = f"payload-{sequence}".encode()
    body[0]["kind"], body[0]["slots"], body[0]["sequence"], body[0]["ts"] = 6, slots, sequence, sequence * 1000
    return bytearray(body.tobytes())


def reopened(disk: SimulatedDisk) -> tuple[Journal, segments.Tail]:
    tail = segments.scan(disk, segments.list_segments(disk))
    segments.cut_tail(disk, tail)
    return Journal(disk, tail, SystemClock(), SETTINGS, threads=False), tail


def new(disk: SimulatedDisk) -> Journal:
    return Journal(disk, new_tail(IDENTITY), SystemClock(), SETTINGS, threads=False)


def written(disk: SimulatedDisk, count: int, group: int) -> list[int]:
    """A journal of `count` records in groups; returns the sequence after each group."""
    journal, ends = new(disk), []
    for sequence in range(1, count + 1):
        assert journal.append(record(sequence)) == 0
        if sequence % group == 0 or sequence == count:
            journal.publish()
            while journal.step() == ring.WROTE:
                continue
            assert journal.durable_sequence == sequence
            ends.append(sequence)
    return ends


@pytest.mark.parametrize("seed", range(40))
def test_acknowledged_records_survive_any_crash(seed: int) -> None:
    disk = SimulatedDisk(seed)
    draw = random.Random(seed)
    disk.short_writes = draw.choice([None, 100, 4096])
    journal = new(disk)
    acknowledged = sequence = 0
    for _ in range(6):
        for _ in range(draw.randrange(1, 60)):
            for _ in range(draw.randrange(1, 20)):
                if journal.append(record(sequence + 1, draw.choice([1, 1, 1, 2, 7]))) == 0:
                    sequence += 1
            journal.publish()
            if draw.random() < 0.8:
                while journal.step() == ring.WROTE:
                    acknowledged = journal.durable_sequence
        disk.fail["sync"] = (0, errno.EIO)  # the last group is written and never synced
        journal.publish()
        journal.step()
        disk.crash()
        journal, tail = reopened(disk)
        assert acknowledged <= tail.sequence <= sequence
        acknowledged = sequence = tail.sequence
    segments.scan(disk, segments.list_segments(disk), check_sha256=True)


def test_every_cut_gives_a_prefix() -> None:
    disk = SimulatedDisk()
    written(disk, 200, 200)
    node = disk.files[segments.segment_name(1)]
    whole = bytes(node.cached)
    for cut in range(200 * 128):
        node.cached[:] = whole
        node.cached[4096 + cut :] = bytes(len(whole) - 4096 - cut)
        tail = segments.scan(disk, segments.list_segments(disk))
        # A record whose last bytes are zero anyway is whole when only those are cut.
        assert cut // 128 <= tail.sequence <= -(-cut // 128)
        if cut % 128 and tail.sequence == cut // 128:
            assert 0 < tail.torn_bytes <= 128


def test_any_flipped_bit_is_found() -> None:
    disk = SimulatedDisk()
    written(disk, 200, 20)
    node = disk.files[segments.segment_name(1)]
    draw = random.Random(7)
    for bit in sorted(draw.sample(range((4096 + 200 * 128) * 8), 4000)):
        node.cached[bit // 8] ^= 1 << bit % 8
        if bit // 8 >= 4096 + 180 * 128:  # the last group: no later one proves that it was synced
            tail = segments.scan(disk, segments.list_segments(disk))
            assert tail.sequence == (bit // 8 - 4096) // 128 and tail.torn_bytes
        else:
            with pytest.raises(JournalCorrupt, match="offset|format"):
                segments.scan(disk, segments.list_segments(disk))
        node.cached[bit // 8] ^= 1 << bit % 8


def test_missing_and_exchanged_segments_are_refused() -> None:
    disk = SimulatedDisk()
    written(disk, 1500, 30)
    names = [segment.path for segment in segments.list_segments(disk)]
    assert len(names) == 3
    assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == 1500
    for name in names[:2]:
        taken = disk.files.pop(name)
        with pytest.raises(JournalCorrupt):
            segments.scan(disk, segments.list_segments(disk))
        disk.files[name] = taken
    node = disk.files[names[1]]
    node.cached[60] ^= 1  # the stored SHA-256, with a header checksum that fits
    node.cached[4092:4096] = ring.crc32c(bytes(node.cached[:4092])).to_bytes(4, "little")
    segments.scan(disk, segments.list_segments(disk))
    with pytest.raises(JournalCorrupt, match="SHA-256"):
        segments.scan(disk, segments.list_segments(disk), check_sha256=True)


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_group_is_final_and_never_tried_again(operation: str, error: int) -> None:
    disk = SimulatedDisk()
    journal = new(disk)
    journal.append(record(1))
    journal.publish()
    journal.step()
    disk.fail[operation] = (0, error)
    journal.append(record(2))
    journal.publish()
    assert journal.step() == ring.FAILED
    syncs = disk.sync_count
    assert (journal.failed, journal.status, journal.durable_sequence) == (error, "failed", 1)
    assert journal.append(record(3)) == 2
    assert journal.step() == ring.FAILED
    assert disk.sync_count == syncs


def test_a_full_disk_stops_new_records_and_passes() -> None:
    disk = SimulatedDisk()
    disk.space = 73_728  # one segment and no more
    journal = new(disk)
    assert journal.status == "disk_full"
    room = journal.room
    assert room == 544
    sequence = 0
    while journal.room:
        sequence += 1
        assert journal.append(record(sequence)) == 0
        journal.publish()
        assert journal.step() == ring.WROTE  # all that `room` promised can be written
    assert journal.durable_sequence == sequence == room
    disk.space = None
    journal.append(record(sequence + 1))
    journal.publish()
    assert journal.step() == ring.WROTE
    assert (journal.status, journal.durable_sequence) == ("running", sequence + 1)
    assert journal.room > 200


@pytest.mark.parametrize("operation", ["write", "sync", "rename"])
def test_a_roll_that_a_full_disk_refuses_loses_neither_the_spare_nor_a_file(operation: str) -> None:
    class CountingFile(SimulatedFile):
        def close(self) -> None:
            disk.open_count -= 1

    class CountingDisk(SimulatedDisk):
        open_count = 0

        def open(self, path: str, *, create: bool = False) -> CountingFile:
            super().open(path, create=create)
            self.open_count += 1
            return CountingFile(self, self.files[path])

    disk = CountingDisk()
    journal = new(disk)
    for sequence in range(1, 546):  # one more than the first segment holds
        assert journal.append(record(sequence)) == 0
        journal.publish()
        if sequence < 545:
            assert journal.step() == ring.WROTE
    if operation != "rename":
        disk.space = 0  # no spare can be made, so the one that is there is the one that is used
    for _ in range(3):
        disk.fail[operation] = (0, errno.ENOSPC)
        assert journal.step() == ring.NEEDS_SEGMENT and journal.status == "disk_full"
    assert journal.step() == ring.WROTE and journal.durable_sequence == 545
    assert disk.open_count == 1 + (operation == "rename"), "the segment, and its spare if there is room"
    journal.close()
    assert disk.open_count == 0
    disk.crash(0.0)
    assert segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence == 545


@pytest.mark.parametrize("left", [254, 3])
def test_a_start_on_a_full_disk_takes_what_the_last_segment_still_holds(left: int) -> None:
    """However little: the cancels of whoever wants out need one slot each."""
    disk = SimulatedDisk()
    disk.space = 73_728
    journal, last = new(disk), 544 - left
    for sequence in range(1, last + 1):
        assert journal.append(record(sequence)) == 0
        journal.publish()
        journal.step()
    journal.close()
    again, _ = reopened(disk)
    assert (again.status, again.room) == ("disk_full", left)
    assert again.append(record(last + 1, slots=2)) == 0
    again.publish()
    assert (again.step(), again.room) == (ring.WROTE, left - 2)
    for sequence in range(last + 2, last + left):
        assert again.append(record(sequence)) == 0
        again.publish()
        assert again.step() == ring.WROTE
    assert (again.durable_sequence, again.room) == (last + left - 1, 0)


@pytest.mark.parametrize("reserved", [0, 64, 192])
def test_the_reserve_is_kept_at_the_end_of_a_segment_too(reserved: int) -> None:
    """While there is space for a next one the longest command and a tick are taken above it, at whatever slot."""
    settings = JournalSettings(
        segment_bytes=least_segment_bytes(reserved), ring_slots=2_048, reserved_slots=reserved
    )  # fmt: skip
    journal, lows = Journal(SimulatedDisk(), new_tail(IDENTITY), SystemClock(), settings, threads=False), []
    for sequence in range(1, 2_000):
        assert journal.append(record(sequence)) == 0
        journal.publish()
        assert journal.step() == ring.WROTE
        lows.append(journal.room)
    assert min(lows) >= reserved + RECORD_SLOTS_MAX + 1


def test_segments_that_are_too_small_for_the_reserve_are_refused() -> None:
    for given, told in (
        ((73_728, 64), "segment_bytes 73728: must be a multiple of 4096, and at least 77824 with reserved_slots 64"),
        ((77_825, 64), "segment_bytes 77825: must be a multiple of 4096, and at least 77824 with reserved_slots 64"),
        ((65_536, 0), "segment_bytes 65536: must be a multiple of 4096, and at least 69632 with reserved_slots 0"),
        ((1 << 20, 1_024), "reserved_slots 1024: must be 0 or more, and less than ring_slots 1024"),
    ):
        settings = JournalSettings(segment_bytes=given[0], ring_slots=1_024, reserved_slots=given[1])
        disk = SimulatedDisk()
        with pytest.raises(ValueError, match=f"^{told}$"):
            Journal(disk, new_tail(IDENTITY), SystemClock(), settings, threads=False)
        assert not disk.files


@pytest.mark.parametrize("seed", range(20))
def test_all_that_room_promised_can_be_written_whatever_the_records_are_long(seed: int) -> None:
    disk, draw = SimulatedDisk(seed), random.Random(seed)
    disk.space = 2 * SETTINGS.segment_bytes  # a segment and its spare
    journal, sequence = new(disk), 0
    while journal.room:
        for _ in range(draw.choice([1, 5, 1_000])):
            if longest := min(journal.room, draw.choice([1, 3, RECORD_SLOTS_MAX])):
                sequence += 1
                assert journal.append(record(sequence, draw.randrange(longest) + 1)) == 0
        journal.publish()
        while journal.durable_sequence < sequence:
            assert journal.step() == ring.WROTE
    assert journal.status == "disk_full"


def test_a_crash_at_any_operation_of_a_roll_keeps_all() -> None:
    for operation in ("write", "sync", "rename", "open"):
        for passes in range(4):
            disk = SimulatedDisk(passes)
            ends = written(disk, 520, 40)
            journal, _ = reopened(disk)
            disk.fail[operation] = (passes, errno.EIO)
            for sequence in range(521, 580):
                if journal.append(record(sequence)):
                    break
                journal.publish()
                journal.step()
            durable = journal.durable_sequence
            assert durable >= ends[-1]
            disk.crash(0.5)
            _, tail = reopened(disk)
            assert tail.sequence >= durable


def test_a_sequence_out_of_order_stops_the_journal() -> None:
    journal = new(SimulatedDisk())
    assert journal.append(record(2)) == 2
    assert journal.failed == errno.EINVAL
